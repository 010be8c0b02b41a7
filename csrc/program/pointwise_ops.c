/* pointwise_ops.c -- ops over elements: promotion, broadcasting, the output's strides; the kernels do the arithmetic.
 *
 * F16 and BF16 go through F32 where there is no kernel of their own: torch computes them so as well (its opmath type)
 * and rounds once at the end. */
#include "compose.h"
#include "floats.h"
#include "numbers.h"

#include <math.h>

static op_operand
operand_of(op_call *call, int32_t idx)
{
    op_operand o = {.tensor = arg_tensor(call, idx)};
    if (o.tensor == NULL) {
        o.scalar = arg_scalar(call, idx);
    }
    return o;
}

/* The dtype to compute in: itself, or F32 for the halves. */
static port_dtype
compute_dtype(op_call *call, const char *kernel, port_dtype dtype)
{
    bool half = dtype == PORT_F16 || dtype == PORT_BF16;
    return half && !kernel_exists(call, kernel, dtype) ? PORT_F32 : dtype;
}

port_status
run_planned(op_call *call, const char *kernel, const op_operand *operands, int32_t num_operands, const op_plan *plan,
            port_dtype dtype, port_dtype out_dtype, bool compares, const void *params)
{
    port_dtype inner = compute_dtype(call, kernel, dtype), made_dtype = compares ? PORT_BOOL : inner;
    port_view in[OP_MAX_OPERANDS];
    const port_view *ins[OP_MAX_OPERANDS];
    port_status status = PORT_OK;
    for (int32_t k = 0; status == PORT_OK && k < num_operands; k++) {
        const port_tensor *t = operands[k].tensor;
        status = t != NULL ? tensor_cast(call, t, inner, &t) : scalar_to_tensor(call, operands[k].scalar, inner, &t);
        if (status == PORT_OK) {
            in[k] = view_broadcast(t, plan->ndim, plan->shape);
            ins[k] = &in[k];
        }
    }
    port_tensor *made;
    const port_tensor *result;
    if (status == PORT_OK) {
        status = made_dtype == out_dtype ? tensor_for_result(call, made_dtype, plan->ndim, plan->shape, plan->strides, &made)
                                         : tensor_new(call, made_dtype, plan->ndim, plan->shape, plan->strides, &made);
    }
    if (status != PORT_OK) {
        return status;
    }
    port_view out = tensor_view(made);
    status = launch(call, kernel, inner, ins, num_operands, (const port_view *const[]){&out}, 1, params);
    if (status == PORT_OK) {
        status = tensor_cast(call, made, out_dtype, &result);
    }
    return status == PORT_OK ? emit(call, result) : status;
}

static bool
any_float(const op_operand *operands, int32_t num_operands)
{
    for (int32_t k = 0; k < num_operands; k++) {
        if (operands[k].tensor != NULL && dtype_is_float(operands[k].tensor->dtype)) {
            return true;
        }
    }
    return false;
}

static port_status
common_dtype(op_call *call, const op_operand *operands, int32_t num_operands, port_dtype *dtype)
{
    *dtype = result_type(operands, num_operands);
    if (*dtype >= PORT_NUM_DTYPES) {
        return fail_unsupported(call, "its operands have no common dtype");
    }
    bool made_float = call->row->mode == MODE_FLOAT && !dtype_is_float(*dtype);
    if (made_float || (*dtype == PORT_F32 && !any_float(operands, num_operands))) {
        *dtype = default_dtype(call);
    }
    if ((call->row->mode == MODE_INTEGRAL && dtype_is_float(*dtype)) ||
        ((call->row->flags & OP_NO_BOOL) != 0 && *dtype == PORT_BOOL)) {
        return fail_op(call, PORT_E_DTYPE, "not defined for %s", port_dtype_name(*dtype));
    }
    return PORT_OK;
}

/* torch multiplies and divides a half by a number or tensor of one element as that is, not rounded to the half first nor on the way, if it is
 * the second operand; which it is not in mul_.Scalar, as that changes the operands' places. */
static bool
keeps_number(const op_call *call, const op_operand *operands, int32_t num_operands, port_dtype dtype)
{
    const char *kernel = call->row->kernel;
    bool product = strcmp(kernel, "mul") == 0;
    bool division = strcmp(kernel, "div") == 0 || strcmp(kernel, "trunc_divide") == 0 || strcmp(kernel, "floor_divide") == 0;
    if ((dtype != PORT_F16 && dtype != PORT_BF16) || num_operands != 2 || (!product && !division)) {
        return false;
    }
    const port_tensor *b = operands[1].tensor;
    bool swapped = product && call->in_place && strcmp(call->row->name, "mul.Scalar") == 0;
    return (b == NULL || tensor_elems(b) == 1) && !swapped;
}

/* keeps_number where a kernel takes the number beside the halves: all but what is to be cut or floored, which is rounded otherwise. */
static bool
kernel_keeps_number(const op_call *call, const op_operand *operands, port_dtype dtype)
{
    const char *kernel = call->row->kernel;
    return operands[0].tensor != NULL && operands[0].tensor->dtype == dtype && (strcmp(kernel, "mul") == 0 || strcmp(kernel, "div") == 0);
}

static port_status
run_by_number(op_call *call, const op_operand *operands, const op_plan *plan, port_dtype dtype)
{
    const port_tensor *b = operands[1].tensor;
    port_status status = b != NULL ? tensor_cast(call, b, PORT_F32, &b) : scalar_to_tensor(call, operands[1].scalar, PORT_F32, &b);
    if (status != PORT_OK) {
        return status;
    }
    float number;
    memcpy(&number, tensor_view(b).data, sizeof number);
    port_binary_params params = {.alpha = {PORT_SCALAR_INT, 1, 1.0}, .number = {PORT_SCALAR_FLOAT, 0, (double)number}};
    const op_operand both[2] = {operands[0], operands[0]}; /* the second is not read */
    return run_planned(call, call->row->kernel, both, 2, plan, dtype, dtype, false, &params);
}

static port_status
run_simple(op_call *call, const op_operand *operands, int32_t num_operands, const void *params)
{
    op_plan plan;
    port_dtype dtype;
    port_status status = common_dtype(call, operands, num_operands, &dtype);
    if (status == PORT_OK) {
        status = plan_pointwise(call, operands, num_operands, &plan);
    }
    bool compares = call->row->mode == MODE_COMPARE;
    bool keeps = status == PORT_OK && keeps_number(call, operands, num_operands, dtype);
    if (keeps && kernel_keeps_number(call, operands, dtype)) {
        return run_by_number(call, operands, &plan, dtype);
    }
    port_dtype inner = keeps ? PORT_F32 : dtype;
    op_operand rounded[2];
    if (keeps) { /* the first operand is a half before it is computed with */
        const port_tensor *a = operands[0].tensor;
        status = a != NULL ? tensor_cast(call, a, dtype, &a) : scalar_to_tensor(call, operands[0].scalar, dtype, &a);
        memcpy(rounded, operands, sizeof rounded);
        rounded[0].tensor = a;
        operands = rounded;
    }
    return status == PORT_OK ? run_planned(call, call->row->kernel, operands, num_operands, &plan, inner,
                                           compares ? PORT_BOOL : dtype, compares, params)
                             : status;
}

port_status
run_unary(op_call *call)
{
    op_operand x = operand_of(call, 0);
    if (x.tensor->dtype == PORT_C64) {
        return run_complex_unary(call);
    }
    if (call->row->mode == MODE_KEEP && !dtype_is_float(x.tensor->dtype)) {
        op_plan plan;
        port_tensor *copy;
        port_status status = plan_pointwise(call, &x, 1, &plan);
        if (status == PORT_OK) {
            status = tensor_new(call, x.tensor->dtype, plan.ndim, plan.shape, plan.strides, &copy);
        }
        if (status == PORT_OK) {
            port_view to = tensor_view(copy), from = tensor_view(x.tensor);
            copy_view(call, &to, &from);
            status = emit(call, copy);
        }
        return status;
    }
    return run_simple(call, &x, 1, NULL);
}

static bool
is_complex(const op_call *call, int32_t idx)
{
    const port_tensor *t = arg_tensor(call, idx);
    return t != NULL ? t->dtype == PORT_C64 : call->args[idx].kind == PORT_ARG_COMPLEX;
}

/* add, sub, rsub: the third argument is alpha; the others have two. */
port_status
run_binary(op_call *call)
{
    op_operand operands[2] = {operand_of(call, 0), operand_of(call, 1)};
    port_binary_params params = {.alpha = {PORT_SCALAR_INT, 1, 1.0}};
    if (is_complex(call, 0) || is_complex(call, 1)) {
        return run_complex_binary(call);
    }
    if (call->num_args > 2) {
        params.alpha = arg_scalar(call, 2);
        if (params.alpha.kind == PORT_SCALAR_FLOAT && !dtype_is_float(result_type(operands, 2))) {
            return fail_op(call, PORT_E_DTYPE, "alpha is a float, the operands are integers");
        }
    }
    if ((call->row->flags & OP_SWAP) == 0) {
        return run_simple(call, operands, 2, &params);
    }
    op_operand swapped[2] = {operands[1], operands[0]};
    return run_simple(call, swapped, 2, &params);
}

static port_status
run_pow_scalar(op_call *call)
{
    op_operand operands[2] = {operand_of(call, 0), operand_of(call, 1)};
    op_plan plan;
    port_dtype dtype;
    port_pow_params params = {operands[1].scalar};
    if (is_complex(call, 0) || is_complex(call, 1)) {
        return run_complex_binary(call);
    }
    port_status status = common_dtype(call, operands, 2, &dtype);
    if (status == PORT_OK) {
        status = plan_pointwise(call, operands, 2, &plan);
    }
    if (status == PORT_OK && dtype_is_integral(dtype) && params.exponent.i < 0) {
        return fail_op(call, PORT_E_VALUE, "an integer to a negative power");
    }
    return status == PORT_OK ? run_planned(call, "pow_scalar", operands, 1, &plan, dtype, dtype, false, &params) : status;
}

static port_status
run_gelu(op_call *call)
{
    const char *text = arg_text(call, 1, "none");
    port_gelu_params params = {strcmp(text, "tanh") == 0};
    if (!params.tanh_approximation && strcmp(text, "none") != 0) {
        return fail_op(call, PORT_E_VALUE, "approximate must be 'none' or 'tanh', got '%.40s'", text);
    }
    op_operand x = operand_of(call, 0);
    return run_simple(call, &x, 1, &params);
}

/* softplus, elu, leaky_relu: the numbers behind x are the kernel's parameters. */
port_status
run_activation(op_call *call)
{
    port_activation_params params = {1.0, 1.0, 1.0};
    double *const numbers[3] = {&params.a, &params.b, &params.c};
    for (int32_t k = 1; k < call->num_args && k <= 3; k++) {
        *numbers[k - 1] = arg_scalar(call, k).d;
    }
    op_operand x = operand_of(call, 0);
    if (!dtype_is_float(x.tensor->dtype)) {
        return fail_op(call, PORT_E_DTYPE, "not defined for %s", port_dtype_name(x.tensor->dtype));
    }
    return run_simple(call, &x, 1, &params);
}

/* div with rounding_mode None, "floor" or "trunc": three kernels. */
static port_status
run_div_mode(op_call *call)
{
    op_operand operands[2] = {operand_of(call, 0), operand_of(call, 1)};
    const op_row *outer = call->row;
    op_row row = *outer;
    const char *mode = arg_text(call, 2, "");
    bool down = strcmp(mode, "floor") == 0;
    if (arg_given(call, 2)) {
        if (!down && strcmp(mode, "trunc") != 0) {
            return fail_op(call, PORT_E_VALUE, "rounding_mode must be None, 'floor' or 'trunc', got '%.40s'", mode);
        }
        row.mode = MODE_SAME;
        row.kernel = down ? "floor_divide" : "trunc_divide";
    }
    port_binary_params params = {.alpha = {PORT_SCALAR_INT, 1, 1.0}};
    call->row = &row;
    port_status status = run_simple(call, operands, 2, &params);
    call->row = outer;
    return status;
}

/* clamp.Tensor(self, min, max): a maximum, then a minimum; NaN stays. */
static port_status
run_clamp_tensor(op_call *call)
{
    op_operand operands[3] = {operand_of(call, 0), operand_of(call, 0), operand_of(call, 0)};
    for (int32_t k = 1; k < 3; k++) {
        if (arg_given(call, k)) {
            operands[k].tensor = arg_tensor(call, k);
        }
    }
    op_plan plan;
    port_dtype dtype;
    port_status status = common_dtype(call, operands, 3, &dtype);
    if (status != PORT_OK || (status = plan_pointwise(call, operands, 3, &plan)) != PORT_OK) {
        return status;
    }
    const port_tensor *now;
    port_tensor *made;
    port_dtype inner = compute_dtype(call, "maximum", dtype);
    status = tensor_cast(call, operands[0].tensor, inner, &now);
    for (int32_t k = 1; status == PORT_OK && k < 3; k++) {
        const port_tensor *bound;
        if (!arg_given(call, k)) {
            continue;
        }
        if ((status = tensor_cast(call, operands[k].tensor, inner, &bound)) != PORT_OK ||
            (status = tensor_new(call, inner, plan.ndim, plan.shape, plan.strides, &made)) != PORT_OK) {
            return status;
        }
        port_view views[2] = {view_broadcast(now, plan.ndim, plan.shape), view_broadcast(bound, plan.ndim, plan.shape)};
        port_view y = tensor_view(made);
        status = launch(call, k == 1 ? "maximum" : "minimum", inner, (const port_view *const[]){&views[0], &views[1]}, 2,
                        (const port_view *const[]){&y}, 1, NULL);
        now = made;
    }
    if (status == PORT_OK) {
        status = tensor_cast(call, now, dtype, &now);
    }
    return status == PORT_OK ? emit(call, now) : status;
}

/* clamp(min, max), clamp_min, clamp_max with numbers, hardtanh. */
static port_status
run_clamp(op_call *call)
{
    op_operand operands[3] = {operand_of(call, 0)};
    bool only_max = strcmp(call->row->name, "clamp_max") == 0;
    int32_t num = call->num_args;
    for (int32_t k = 1; k < num; k++) {
        operands[k] = (op_operand){.tensor = NULL, .scalar = arg_scalar(call, k)};
    }
    port_clamp_params params = {only_max ? (port_scalar){0} : operands[1].scalar, only_max ? operands[1].scalar : operands[2].scalar};
    if (params.min.kind == PORT_SCALAR_NONE && params.max.kind == PORT_SCALAR_NONE) {
        return fail_op(call, PORT_E_VALUE, "neither min nor max is given");
    }
    op_plan plan;
    port_dtype dtype;
    port_status status = common_dtype(call, operands, num, &dtype);
    if (strcmp(call->row->name, "hardtanh") == 0 && dtype_is_integral(operands[0].tensor->dtype)) {
        dtype = operands[0].tensor->dtype; /* the bounds are cut to integers */
        params.min = (port_scalar){PORT_SCALAR_INT, port_int_of_double(params.min.d), trunc(params.min.d)};
        params.max = (port_scalar){PORT_SCALAR_INT, port_int_of_double(params.max.d), trunc(params.max.d)};
    }
    if (status == PORT_OK) {
        status = plan_pointwise(call, operands, 1, &plan);
    }
    return status == PORT_OK ? run_planned(call, "clamp", operands, 1, &plan, dtype, dtype, false, &params) : status;
}

/* where(condition, a, b) with the strides of `plan`; the row is by the dtype of the result. */
static port_status
select_elements(op_call *call, const port_tensor *condition, const op_operand *a, const op_operand *b, port_dtype dtype,
                const op_plan *plan)
{
    const op_operand *both[2] = {a, b};
    port_view views[3];
    port_status status = PORT_OK;
    views[0] = view_broadcast(condition, plan->ndim, plan->shape);
    for (int32_t k = 0; status == PORT_OK && k < 2; k++) {
        const port_tensor *t = both[k]->tensor;
        status = t != NULL ? tensor_cast(call, t, dtype, &t) : scalar_to_tensor(call, both[k]->scalar, dtype, &t);
        if (status == PORT_OK) {
            views[1 + k] = view_broadcast(t, plan->ndim, plan->shape);
        }
    }
    port_tensor *made;
    if (status != PORT_OK || (status = tensor_new(call, dtype, plan->ndim, plan->shape, plan->strides, &made)) != PORT_OK) {
        return status;
    }
    port_view out = tensor_view(made);
    status = launch(call, "where", dtype, (const port_view *const[]){&views[0], &views[1], &views[2]}, 3,
                    (const port_view *const[]){&out}, 1, NULL);
    return status == PORT_OK ? emit(call, made) : status;
}

static port_status
need_bool(op_call *call, const port_tensor *mask, const port_tensor **out)
{
    if (mask->dtype != PORT_BOOL && mask->dtype != PORT_U8) {
        return fail_op(call, PORT_E_DTYPE, "the condition must be BOOL, got %s", port_dtype_name(mask->dtype));
    }
    return tensor_cast(call, mask, PORT_BOOL, out);
}

static port_status
run_where(op_call *call)
{
    op_operand operands[3] = {operand_of(call, 0), operand_of(call, 1), operand_of(call, 2)};
    const port_tensor *condition;
    op_plan plan;
    port_dtype dtype = result_type(operands + 1, 2);
    port_status status = need_bool(call, operands[0].tensor, &condition);
    if (status == PORT_OK && dtype >= PORT_NUM_DTYPES) {
        return fail_unsupported(call, "its operands have no common dtype");
    }
    if (status == PORT_OK) {
        status = plan_pointwise(call, operands, 3, &plan);
    }
    return status == PORT_OK ? select_elements(call, condition, &operands[1], &operands[2], dtype, &plan) : status;
}

/* What a floating value becomes among integers: the number without what stands after the point, if they can hold it. BOOL holds every one. */
static port_status
cut_value(op_call *call, op_operand *value, port_dtype dtype)
{
    const port_tensor *t = value->tensor;
    double v = t == NULL ? value->scalar.d : float_load(t->dtype, tensor_view(t).data, 0);
    if (dtype == PORT_BOOL) {
        *value = (op_operand){.scalar = {PORT_SCALAR_BOOL, v != 0.0, v != 0.0 ? 1.0 : 0.0}};
        return PORT_OK;
    }
    if (!dtype_holds(dtype, v)) {
        return fail_op(call, PORT_E_DTYPE, "the value %g cannot be written into %s", v, port_dtype_name(dtype));
    }
    *value = (op_operand){.scalar = {PORT_SCALAR_INT, (int64_t)v, trunc(v)}};
    return PORT_OK;
}

static port_status
run_masked_fill(op_call *call)
{
    op_operand self = operand_of(call, 0), value = operand_of(call, 2), shaped[2] = {self, operand_of(call, 1)};
    const port_tensor *mask;
    op_plan plan;
    port_status status = need_bool(call, shaped[1].tensor, &mask);
    if (status == PORT_OK) {
        status = plan_pointwise(call, shaped, 2, &plan);
    }
    if (status != PORT_OK) {
        return status;
    }
    if (value.tensor != NULL && value.tensor->ndim > 0) {
        return fail_op(call, PORT_E_SHAPE, "the value must have no dimensions, it has %d", value.tensor->ndim);
    }
    port_dtype given = result_type(&value, 1);
    if (given == PORT_C64 && self.tensor->dtype != PORT_C64) {
        return fail_op(call, PORT_E_DTYPE, "a value of C64 cannot be written into %s", port_dtype_name(self.tensor->dtype));
    }
    if (dtype_is_float(given) && !dtype_is_float(self.tensor->dtype) && self.tensor->dtype != PORT_C64 &&
        (status = cut_value(call, &value, self.tensor->dtype)) != PORT_OK) {
        return status;
    }
    dense_strides(plan.ndim, plan.shape, plan.strides);
    return select_elements(call, mask, &value, &self, self.tensor->dtype, &plan);
}

#define UNARY(NAME, MODE) {NAME, "T self", run_unary, NAME, MODE, OP_IN_PLACE}
#define BINARY(NAME, KERNEL, SIGNATURE, MODE, FLAGS) {NAME, SIGNATURE, run_binary, KERNEL, MODE, FLAGS}
#define TWO "T self, N other"
#define TWO_SCALAR "T self, C other"
#define WITH_ALPHA "T self, N other, *, S alpha=1"
#define NUMBERS "N self, N other" /* torch.mul(2.0, x) hands its number on as it is */
#define NUMBER_WITH_ALPHA "N self, N other, *, S alpha=1"
#define SCALAR_ALPHA "T self, C other, S alpha=1"
#define COMPARISON(NAME)                                           \
    BINARY(NAME ".Tensor", NAME, TWO, MODE_COMPARE, OP_IN_PLACE), \
        BINARY(NAME ".Scalar", NAME, TWO_SCALAR, MODE_COMPARE, OP_IN_PLACE)
#define BITWISE(NAME)                                               \
    BINARY(NAME ".Tensor", NAME, TWO, MODE_INTEGRAL, OP_IN_PLACE), \
        BINARY(NAME ".Scalar", NAME, TWO_SCALAR, MODE_INTEGRAL, OP_IN_PLACE)

const op_row op_pointwise_rows[] = {
    UNARY("abs", MODE_SAME), UNARY("neg", MODE_SAME), UNARY("square", MODE_SAME), UNARY("sign", MODE_SAME),
    UNARY("relu", MODE_SAME), UNARY("silu", MODE_SAME), UNARY("bitwise_not", MODE_INTEGRAL),
    UNARY("logical_not", MODE_COMPARE), UNARY("exp", MODE_FLOAT), UNARY("log", MODE_FLOAT), UNARY("sin", MODE_FLOAT),
    UNARY("cos", MODE_FLOAT), UNARY("tanh", MODE_FLOAT), UNARY("sigmoid", MODE_FLOAT), UNARY("rsqrt", MODE_FLOAT),
    UNARY("sqrt", MODE_FLOAT), UNARY("reciprocal", MODE_FLOAT), UNARY("erf", MODE_FLOAT), UNARY("floor", MODE_KEEP),
    UNARY("ceil", MODE_KEEP), UNARY("round", MODE_KEEP),
    UNARY("log1p", MODE_FLOAT), UNARY("expm1", MODE_FLOAT), UNARY("trunc", MODE_KEEP), UNARY("log2", MODE_FLOAT),
    UNARY("log10", MODE_FLOAT), UNARY("exp2", MODE_FLOAT), UNARY("tan", MODE_FLOAT), UNARY("atan", MODE_FLOAT),
    UNARY("sinh", MODE_FLOAT), UNARY("cosh", MODE_FLOAT), UNARY("acos", MODE_FLOAT), UNARY("asin", MODE_FLOAT),
    UNARY("hardswish", MODE_SAME), UNARY("hardsigmoid", MODE_SAME), UNARY("mish", MODE_SAME),
    {"softplus", "T self, S beta=1, S threshold=20", run_activation, "softplus", MODE_SAME, 0},
    {"elu", "T self, S alpha=1, S scale=1, S input_scale=1", run_activation, "elu", MODE_SAME, OP_IN_PLACE},
    {"leaky_relu", "T self, S negative_slope=0.01", run_activation, "leaky_relu", MODE_SAME, OP_IN_PLACE},
    {"gelu", "T self, *, s approximate=none", run_gelu, "gelu", MODE_SAME, OP_IN_PLACE},
    {"pow.Tensor_Scalar", "T self, C exponent", run_pow_scalar, "pow_scalar", MODE_SAME, 0},
    {"pow_.Scalar", "T self, C exponent", run_pow_scalar, "pow_scalar", MODE_SAME, OP_WRITES},
    {"pow_.Tensor", "T self, N exponent", run_binary, "pow", MODE_SAME, OP_NO_BOOL | OP_WRITES},
    {"clamp", "T self, S? min=None, S? max=None", run_clamp, "clamp", MODE_SAME, OP_IN_PLACE},
    {"clamp_min", "T self, S min", run_clamp, "clamp", MODE_SAME, OP_IN_PLACE},
    {"clamp_max", "T self, S max", run_clamp, "clamp", MODE_SAME, OP_IN_PLACE},
    {"hardtanh", "T self, S min_val=-1, S max_val=1", run_clamp, "clamp", MODE_SAME, OP_IN_PLACE | OP_NO_BOOL},
    BINARY("add.Tensor", "add", NUMBER_WITH_ALPHA, MODE_SAME, OP_IN_PLACE),
    BINARY("add.Scalar", "add", SCALAR_ALPHA, MODE_SAME, OP_IN_PLACE),
    BINARY("sub.Tensor", "sub", NUMBER_WITH_ALPHA, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("sub.Scalar", "sub", SCALAR_ALPHA, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("rsub.Tensor", "sub", WITH_ALPHA, MODE_SAME, OP_SWAP | OP_NO_BOOL),
    BINARY("rsub.Scalar", "sub", SCALAR_ALPHA, MODE_SAME, OP_SWAP | OP_NO_BOOL),
    BINARY("mul.Tensor", "mul", NUMBERS, MODE_SAME, OP_IN_PLACE),
    BINARY("mul.Scalar", "mul", TWO_SCALAR, MODE_SAME, OP_IN_PLACE),
    BINARY("div.Tensor", "div", NUMBERS, MODE_FLOAT, OP_IN_PLACE),
    BINARY("div.Scalar", "div", TWO_SCALAR, MODE_FLOAT, OP_IN_PLACE),
    BINARY("pow.Tensor_Tensor", "pow", "T self, N exponent", MODE_SAME, OP_NO_BOOL),
    BINARY("pow.Scalar", "pow", "C self, T exponent", MODE_SAME, OP_NO_BOOL),
    BINARY("maximum", "maximum", TWO, MODE_SAME, 0),
    BINARY("minimum", "minimum", TWO, MODE_SAME, 0),
    BINARY("max.other", "maximum", TWO, MODE_SAME, 0),
    BINARY("min.other", "minimum", TWO, MODE_SAME, 0),
    BINARY("remainder.Tensor", "remainder", TWO, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("remainder.Scalar", "remainder", TWO_SCALAR, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("fmod.Tensor", "fmod", TWO, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("fmod.Scalar", "fmod", TWO_SCALAR, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("floor_divide", "floor_divide", NUMBERS, MODE_SAME, OP_NO_BOOL),
    BINARY("floor_divide.Scalar", "floor_divide", TWO_SCALAR, MODE_SAME, OP_NO_BOOL),
    {"floor_divide_.Tensor", TWO, run_binary, "floor_divide", MODE_SAME, OP_NO_BOOL | OP_WRITES},
    BINARY("atan2", "atan2", TWO, MODE_FLOAT, OP_IN_PLACE),
    BINARY("logical_xor", "logical_xor", TWO, MODE_COMPARE, OP_IN_PLACE),
    BINARY("bitwise_left_shift.Tensor", "shift_left", TWO, MODE_INTEGRAL, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("bitwise_right_shift.Tensor", "shift_right", TWO, MODE_INTEGRAL, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("__rshift__.Scalar", "shift_right", TWO_SCALAR, MODE_INTEGRAL, OP_NO_BOOL),
    BINARY("__lshift__.Scalar", "shift_left", TWO_SCALAR, MODE_INTEGRAL, OP_NO_BOOL),
    {"div.Tensor_mode", "N self, N other, *, s? rounding_mode", run_div_mode, "div", MODE_FLOAT, OP_IN_PLACE},
    {"div.Scalar_mode", "T self, S other, *, s? rounding_mode", run_div_mode, "div", MODE_FLOAT, OP_IN_PLACE},
    {"clamp.Tensor", "T self, T? min=None, T? max=None", run_clamp_tensor, "maximum", MODE_SAME, OP_IN_PLACE},
    {"clamp_min.Tensor", "T self, T min", run_binary, "maximum", MODE_SAME, OP_IN_PLACE},
    {"clamp_max.Tensor", "T self, T max", run_binary, "minimum", MODE_SAME, OP_IN_PLACE},
    BITWISE("bitwise_and"), BITWISE("bitwise_or"), BITWISE("bitwise_xor"),
    BINARY("logical_and", "logical_and", TWO, MODE_COMPARE, OP_IN_PLACE),
    BINARY("logical_or", "logical_or", TWO, MODE_COMPARE, OP_IN_PLACE),
    COMPARISON("eq"), COMPARISON("ne"), COMPARISON("lt"), COMPARISON("le"), COMPARISON("gt"), COMPARISON("ge"),
    {"where.self", "T condition, N self, N other", run_where, "where", MODE_SAME, 0},
    {"where.ScalarOther", "T condition, T self, S other", run_where, "where", MODE_SAME, 0},
    {"where.ScalarSelf", "T condition, S self, T other", run_where, "where", MODE_SAME, 0},
    {"where.Scalar", "T condition, S self, S other", run_where, "where", MODE_SAME, 0},
    {"masked_fill.Scalar", "T self, T mask, S value", run_masked_fill, "where", MODE_SAME, OP_IN_PLACE},
    {"masked_fill.Tensor", "T self, T mask, T value", run_masked_fill, "where", MODE_SAME, OP_IN_PLACE},
    {.name = NULL},
};
