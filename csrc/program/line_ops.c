/* line_ops.c -- linspace and logspace, whose ends are numbers or tensors without dimensions.
 * Source: at::native RangeFactories.cpp and cpu/RangeFactoriesKernel.cpp (BSD-3-Clause; restated). */
#include "exec.h"
#include "floats.h"
#include "numbers.h"

/* The first two arguments, start and end. */
static port_status
read_ends(op_call *call, port_scalar *ends)
{
    for (int32_t k = 0; k < 2; k++) {
        const port_tensor *t = arg_tensor(call, k), *number;
        if (t == NULL) {
            ends[k] = arg_scalar(call, k);
            continue;
        }
        if (t->ndim != 0 || t->dtype == PORT_C64) {
            return fail_op(call, PORT_E_SHAPE, "an end of %d dimensions of %s; expected a real number", t->ndim, port_dtype_name(t->dtype));
        }
        port_status status = tensor_cast(call, t, PORT_F64, &number);
        if (status != PORT_OK) {
            return status;
        }
        ends[k] = (port_scalar){PORT_SCALAR_FLOAT, 0, *(const double *)tensor_view(number).data};
    }
    return PORT_OK;
}

/* The ends as numbers of the dtype, of integers without what stands behind the point; of a line of one step the second does not count. */
static port_status
cut_ends(op_call *call, port_dtype dtype, int64_t steps, port_scalar *ends)
{
    for (int32_t k = 0; k < 2 && k < steps; k++) {
        double given = ends[k].d;
        bool whole = dtype_is_integral(dtype);
        ends[k].d = whole ? trunc(given) : float_rounded(dtype, given);
        if (whole ? !dtype_holds(dtype, given) : isinf(ends[k].d) && !isinf(given)) {
            return fail_op(call, PORT_E_VALUE, "an end of %g, which %s does not hold", given, port_dtype_name(dtype));
        }
    }
    return PORT_OK;
}

/* Element i of `steps` in a line: counted from the nearer end. Steps are fused in F32 and F64 (not under `default`), rounded to the
 * dtype one by one in halves; integers come from F64, cut. */
static double
line_element(port_dtype dtype, bool fused, double start, double end, int64_t i, int64_t steps)
{
    bool first_half = i < steps / 2;
    double step = steps > 1 ? float_rounded(dtype, float_rounded(dtype, end - start) / float_rounded(dtype, (double)(steps - 1))) : 0.0;
    double k = float_rounded(dtype, (double)(first_half ? i : steps - i - 1)), from = first_half ? start : end,
           by = first_half ? step : -step;
    return fused && (dtype == PORT_F32 || dtype == PORT_F64) ? float_fma(dtype, by, k, from) : float_rounded(dtype, from + float_rounded(dtype, by * k));
}

/* linspace(start, end, steps) */
static port_status
run_linspace(op_call *call)
{
    port_scalar ends[2];
    int64_t steps = arg_int(call, 2);
    port_dtype dtype = arg_dtype(call, 3, default_dtype(call));
    bool whole = dtype_is_integral(dtype);
    port_tensor *wide;
    const port_tensor *result;
    port_status status = read_ends(call, ends);
    if (status != PORT_OK) {
        return status;
    }
    if (dtype == PORT_C64 || dtype == PORT_BOOL || (!whole && !dtype_is_float(dtype))) {
        return fail_unsupported(call, "a result of %s", port_dtype_name(dtype));
    }
    if ((status = cut_ends(call, dtype, steps, ends)) != PORT_OK ||
        (status = tensor_new(call, whole ? PORT_F64 : dtype, 1, &steps, NULL, &wide)) != PORT_OK) {
        return status;
    }
    bool fused = call->options->profile.capability != PORT_CAP_DEFAULT;
    for (int64_t i = 0; i < steps; i++) {
        double v = steps == 1 ? ends[0].d : line_element(wide->dtype, fused, ends[0].d, ends[1].d, i, steps);
        float_store(wide->dtype, tensor_view(wide).data, i, v);
    }
    status = tensor_cast(call, wide, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* logspace(start, end, steps, base): base to the powers of a line that is counted in double from the nearer end. */
static port_status
run_logspace(op_call *call)
{
    port_scalar ends[2];
    int64_t steps = arg_int(call, 2);
    double base = arg_double(call, 3, 10.0);
    port_dtype dtype = arg_dtype(call, 4, default_dtype(call));
    bool whole = dtype_is_integral(dtype);
    port_tensor *wide;
    const port_tensor *result;
    port_status status = read_ends(call, ends);
    if (status != PORT_OK) {
        return status;
    }
    if (!whole && !dtype_is_float(dtype)) {
        return fail_unsupported(call, "a result of %s", port_dtype_name(dtype));
    }
    if ((steps != 1 && (status = cut_ends(call, dtype, steps, ends)) != PORT_OK) ||
        (status = tensor_new(call, PORT_F64, 1, &steps, NULL, &wide)) != PORT_OK) {
        return status;
    }
    double step = float_rounded(whole ? PORT_F64 : dtype, ends[1].d - ends[0].d) / (double)(steps - 1), *to = (double *)tensor_view(wide).data;
    for (int64_t i = 0; i < steps; i++) {
        bool first_half = i < steps / 2 || steps == 1;
        double away = steps == 1 ? 0.0 : step * (double)(first_half ? i : steps - i - 1);
        to[i] = pow(base, first_half ? ends[0].d + away : ends[1].d - away);
    }
    status = tensor_cast(call, wide, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

#define FACTORY ", *, D? dtype=None, y layout=None, v device=None, p pin_memory=None"
#define LINE(OVERLOAD, ENDS)                                                                                          \
    {"linspace" OVERLOAD, ENDS ", I steps" FACTORY, run_linspace, NULL, 0, 0},                                        \
        {"logspace" OVERLOAD, ENDS ", I steps, F base=10.0" FACTORY, run_logspace, NULL, 0, 0}

const op_row op_line_rows[] = {
    LINE("", "S start, S end"),
    LINE(".Tensor_Tensor", "T start, T end"),
    LINE(".Tensor_Scalar", "T start, S end"),
    LINE(".Scalar_Tensor", "S start, T end"),
    {.name = NULL},
};
