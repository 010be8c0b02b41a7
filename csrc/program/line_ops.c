/* line_ops.c -- linspace and logspace, whose ends are numbers or tensors without dimensions.
 * Source: at::native RangeFactories.cpp and cpu/RangeFactoriesKernel.cpp (BSD-3-Clause; restated). */
#include "exec.h"
#include "floats.h"
#include "numbers.h"

typedef struct line {
    double ends[2];
    int64_t steps;
    port_dtype dtype; /* of the result */
    bool whole;       /* which is integers */
} line;

/* The first two arguments, start and end. */
static port_status
read_ends(op_call *call, double *ends)
{
    for (int32_t k = 0; k < 2; k++) {
        const port_tensor *t = arg_tensor(call, k), *number;
        if (t == NULL) {
            ends[k] = arg_scalar(call, k).d;
            continue;
        }
        if (t->ndim != 0 || t->dtype == PORT_C64) {
            return fail_op(call, PORT_E_SHAPE, "an end of %d dimensions of %s; expected a real number", t->ndim, port_dtype_name(t->dtype));
        }
        port_status status = tensor_cast(call, t, PORT_F64, &number);
        if (status != PORT_OK) {
            return status;
        }
        ends[k] = *(const double *)tensor_view(number).data;
    }
    return PORT_OK;
}

/* The ends as numbers of the dtype, of integers without what stands behind the point; of a line of one step the second does not count. */
static port_status
cut_ends(op_call *call, line *given)
{
    for (int32_t k = 0; k < 2 && k < given->steps; k++) {
        double end = given->ends[k], cut = given->whole ? trunc(end) : float_rounded(given->dtype, end);
        given->ends[k] = cut;
        if (given->whole ? !dtype_holds(given->dtype, end) : isinf(cut) && !isinf(end)) {
            return fail_op(call, PORT_E_VALUE, "an end of %g, which %s does not hold", end, port_dtype_name(given->dtype));
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

/* What both are given; argument `dtype_at` is the result's dtype. */
static port_status
read_line(op_call *call, int32_t dtype_at, line *given)
{
    port_dtype dtype = arg_dtype(call, dtype_at, default_dtype(call));
    *given = (line){.steps = arg_int(call, 2), .dtype = dtype, .whole = dtype_is_integral(dtype)};
    port_status status = read_ends(call, given->ends);
    if (status != PORT_OK) {
        return status;
    }
    return given->whole || dtype_is_float(dtype) ? PORT_OK : fail_unsupported(call, "a result of %s", port_dtype_name(dtype));
}

static port_status
emit_as(op_call *call, const port_tensor *wide, port_dtype dtype)
{
    const port_tensor *result;
    port_status status = tensor_cast(call, wide, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* linspace(start, end, steps) */
static port_status
run_linspace(op_call *call)
{
    line given;
    port_tensor *wide;
    port_status status = read_line(call, 3, &given);
    if (status == PORT_OK && given.dtype == PORT_BOOL) {
        return fail_unsupported(call, "a result of %s", port_dtype_name(given.dtype));
    }
    if (status != PORT_OK || (status = cut_ends(call, &given)) != PORT_OK ||
        (status = tensor_new(call, given.whole ? PORT_F64 : given.dtype, 1, &given.steps, NULL, &wide)) != PORT_OK) {
        return status;
    }
    bool fused = call->options->profile.capability != PORT_CAP_DEFAULT;
    for (int64_t i = 0; i < given.steps; i++) {
        double v = given.steps == 1 ? given.ends[0] : line_element(wide->dtype, fused, given.ends[0], given.ends[1], i, given.steps);
        float_store(wide->dtype, tensor_view(wide).data, i, v);
    }
    return emit_as(call, wide, given.dtype);
}

/* logspace(start, end, steps, base): base to the powers of a line that is counted in double from the nearer end. */
static port_status
run_logspace(op_call *call)
{
    line given;
    double base = arg_double(call, 3, 10.0);
    port_tensor *wide;
    port_status status = read_line(call, 4, &given);
    if (status != PORT_OK || (given.steps != 1 && (status = cut_ends(call, &given)) != PORT_OK) ||
        (status = tensor_new(call, PORT_F64, 1, &given.steps, NULL, &wide)) != PORT_OK) {
        return status;
    }
    double *to = (double *)tensor_view(wide).data;
    double step = float_rounded(given.whole ? PORT_F64 : given.dtype, given.ends[1] - given.ends[0]) / (double)(given.steps - 1);
    for (int64_t i = 0; i < given.steps; i++) {
        bool first_half = i < given.steps / 2 || given.steps == 1;
        double away = given.steps == 1 ? 0.0 : step * (double)(first_half ? i : given.steps - i - 1);
        to[i] = pow(base, first_half ? given.ends[0] + away : given.ends[1] - away);
    }
    return emit_as(call, wide, given.dtype);
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
