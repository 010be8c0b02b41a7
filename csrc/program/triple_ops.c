/* triple_ops.c -- ops of up to three elements and of numbers, which one kernel computes in one pass (kernels/triples.c): addcmul, addcdiv, lerp,
 * threshold and the shrinks, prelu, nan_to_num, and two losses. Of integers they are formulas over other ops. */
#include "compose.h"

#include <float.h>

/* The row's kernel; the formula where the operands are not floating, or NULL: they must be. */
static port_status
run_elements(op_call *call, const op_operand *operands, int32_t num_operands, port_triple_params params, const char *formula)
{
    op_plan plan;
    port_dtype dtype = result_type(operands, num_operands);
    if (dtype >= PORT_NUM_DTYPES || !dtype_is_float(dtype)) {
        const char *name = dtype < PORT_NUM_DTYPES ? port_dtype_name(dtype) : "operands of no common dtype";
        return formula != NULL ? run_formula(call, formula, NULL, 0) : fail_op(call, PORT_E_DTYPE, "not defined for %s", name);
    }
    port_status status = plan_pointwise(call, operands, num_operands, &plan);
    return status == PORT_OK ? run_planned(call, call->row->kernel, operands, num_operands, &plan, dtype, dtype, false, &params) : status;
}

/* addcmul, addcdiv (self, tensor1, tensor2, value). */
static port_status
run_product(op_call *call)
{
    const op_operand operands[3] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}, {.tensor = arg_tensor(call, 2)}};
    bool divides = strcmp(call->row->kernel, "addcdiv") == 0;
    return run_elements(call, operands, 3, (port_triple_params){.p = arg_scalar(call, 3).d},
                        divides ? "p = mul.Scalar(tensor1, value); p = div.Tensor(p, tensor2); y = add.Tensor(self, p) -> y"
                                : "p = mul.Tensor(tensor1, tensor2); !value=1: p = mul.Scalar(p, value); y = add.Tensor(self, p) -> y");
}

/* lerp (self, end, weight), weight a tensor or a number. */
static port_status
run_lerp(op_call *call)
{
#define LERP                                                                                                          \
    "d = sub.Tensor(end, self); p = mul.Tensor(d, w); a = add.Tensor(self, p); r = rsub.Scalar(w, 1); p = mul.Tensor(d, r); b = sub.Tensor(end, p); "  \
    "c = abs(w); c = lt.Scalar(c, 0.5); y = where.self(c, a, b) -> y"
    const op_operand operands[3] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}, {.tensor = arg_tensor(call, 2)}};
    if (operands[2].tensor != NULL) {
        return run_elements(call, operands, 3, (port_triple_params){0}, "w = alias(weight); " LERP);
    }
    return run_elements(call, operands, 2, (port_triple_params){.p = arg_scalar(call, 2).d}, "w = scalar_tensor(weight, dtype=self.dtype); " LERP);
}

static port_status
run_threshold(op_call *call)
{
    const op_operand x = {.tensor = arg_tensor(call, 0)};
    return run_elements(call, &x, 1, (port_triple_params){.p = arg_scalar(call, 1).d, .q = arg_scalar(call, 2).d},
                        "c = le.Scalar(self, threshold); y = masked_fill.Scalar(self, c, value) -> y");
}

/* hardshrink, softshrink (self, lambd). The first compares halves with a half, and leaves a NaN as it is. */
static port_status
run_shrink(op_call *call)
{
    const op_operand x = {.tensor = arg_tensor(call, 0)};
    bool half = x.tensor->dtype == PORT_BF16 || x.tensor->dtype == PORT_F16;
    if (half && strcmp(call->row->kernel, "hardshrink") == 0) {
        return run_formula(call, "a = abs(self); c = le.Scalar(a, lambd); y = masked_fill.Scalar(self, c, 0) -> y", NULL, 0);
    }
    return run_elements(call, &x, 1, (port_triple_params){.p = arg_scalar(call, 1).d}, NULL);
}

static port_status
run_prelu(op_call *call)
{
    const op_operand operands[2] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}};
    return run_elements(call, operands, 2, (port_triple_params){0},
                        "c = gt.Scalar(self, 0); p = mul.Tensor(weight, self); y = where.self(c, self, p) -> y");
}

static double
largest(port_dtype dtype)
{
    switch (dtype) {
    case PORT_F16: return 65504.0;
    case PORT_BF16: return 3.3895313892515355e38;
    case PORT_F32: return (double)FLT_MAX;
    default: return DBL_MAX;
    }
}

static port_status
run_nan_to_num(op_call *call)
{
    const op_operand x = {.tensor = arg_tensor(call, 0)};
    double most = largest(x.tensor->dtype);
    if (!dtype_is_float(x.tensor->dtype)) {
        return run_unary(call);
    }
    return run_elements(call, &x, 1, (port_triple_params){arg_double(call, 1, 0.0), arg_double(call, 2, most), arg_double(call, 3, -most)}, NULL);
}

/* smooth_l1_loss, huber_loss (self, target, reduction, beta or delta): element by element, then the mean or the sum of that. The reference rounds each
 * step of the first in F16, of the second in BF16. */
static port_status
run_loss(op_call *call)
{
#define REDUCED "?reduction=1: l = mean(l); ?reduction=2: l = sum(l) -> l"
#define STEPS                                                                                                          \
    "d = sub.Tensor(self, target); z = abs(d); h = mul.Scalar(z, 0.5); h = mul.Tensor(h, z); o = mul.Scalar(b, 0.5); f = sub.Tensor(z, o); "
    const op_operand operands[2] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}};
    bool huber = strcmp(call->row->kernel, "huber") == 0;
    if (result_type(operands, 2) == (huber ? PORT_BF16 : PORT_F16)) {
        return run_formula(call,
                           huber ? "b = scalar_tensor(delta, dtype=self.dtype); " STEPS "f = mul.Tensor(f, b); c = le.Tensor(z, b); l = where.self(c, h, f); " REDUCED
                                 : "b = scalar_tensor(beta, dtype=self.dtype); " STEPS "h = div.Tensor(h, b); c = lt.Tensor(z, b); l = where.self(c, h, f); " REDUCED,
                           NULL, 0);
    }
    if (arg_int(call, 2) != 0) {
        return run_formula(call, huber ? "l = huber_loss(self, target, 0, delta); " REDUCED : "l = smooth_l1_loss(self, target, 0, beta); " REDUCED, NULL, 0);
    }
    return run_elements(call, operands, 2, (port_triple_params){.p = arg_double(call, 3, 1.0)}, NULL);
}

const op_row op_triple_rows[] = {
    {"addcmul", "T self, T tensor1, T tensor2, *, S value=1", run_product, "addcmul", MODE_SAME, OP_IN_PLACE},
    {"addcdiv", "T self, T tensor1, T tensor2, *, S value=1", run_product, "addcdiv", MODE_SAME, OP_IN_PLACE},
    {"lerp.Scalar", "T self, T end, S weight", run_lerp, "lerp", MODE_SAME, OP_IN_PLACE},
    {"lerp.Tensor", "T self, T end, T weight", run_lerp, "lerp", MODE_SAME, OP_IN_PLACE},
    {"threshold", "T self, S threshold, S value", run_threshold, "threshold", MODE_SAME, OP_IN_PLACE},
    {"hardshrink", "T self, S lambd=0.5", run_shrink, "hardshrink", MODE_SAME, 0},
    {"softshrink", "T self, S lambd=0.5", run_shrink, "softshrink", MODE_SAME, 0},
    {"_prelu_kernel", "T self, T weight", run_prelu, "prelu", MODE_SAME, 0},
    {"nan_to_num", "T self, F? nan=None, F? posinf=None, F? neginf=None", run_nan_to_num, "nan_to_num", MODE_KEEP, OP_IN_PLACE},
    {"smooth_l1_loss", "T self, T target, I reduction=1, F beta=1.0", run_loss, "smooth_l1", MODE_SAME, 0},
    {"huber_loss", "T self, T target, I reduction=1, F delta=1.0", run_loss, "huber", MODE_SAME, 0},
    {.name = NULL},
};
