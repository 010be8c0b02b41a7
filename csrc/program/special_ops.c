/* special_ops.c -- elementwise ops that few models use: the functions of special.c, forms of arithmetic with the
 * number first, and those that look at single elements: signbit, round to decimals, celu. */
#include "exec.h"

#include <math.h>

/* celu(x, alpha) is elu with the inner factor 1 / alpha. */
static port_status
run_celu(op_call *call)
{
    double alpha = arg_scalar(call, 1).d;
    op_row row = {"elu", call->row->signature, run_activation, "elu", MODE_SAME, 0};
    const op_row *outer = call->row;
    if (alpha == 0.0) {
        return fail_op(call, PORT_E_VALUE, "alpha is 0");
    }
    call->row = &row;
    call->num_args = 4;
    call->args[1] = (port_arg){.kind = PORT_ARG_FLOAT, .d = alpha};
    call->args[2] = (port_arg){.kind = PORT_ARG_FLOAT, .d = 1.0};
    call->args[3] = (port_arg){.kind = PORT_ARG_FLOAT, .d = 1.0 / alpha};
    port_status status = run_activation(call);
    call->row = outer;
    return status;
}

/* y[i] = f(x[i]) in double for a result of x's shape and strides; integers pass through double where they fit. */
typedef double (*element_map)(const op_call *call, const port_tensor *x, double v);

static port_status
map_elements(op_call *call, port_dtype dtype, element_map map)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    port_tensor *made;
    port_status status = tensor_cast(call, x, PORT_F64, &wide);
    if (status == PORT_OK) {
        status = tensor_new(call, PORT_F64, x->ndim, x->shape, wide->strides, &made);
    }
    if (status != PORT_OK) {
        return status;
    }
    port_view from = tensor_view(wide), to = tensor_view(made);
    copy_view(call, &to, &from);
    double *element = (double *)to.data;
    for (int64_t i = 0, n = tensor_elems(made); i < n; i++) {
        element[i] = map(call, x, element[i]);
    }
    status = tensor_cast(call, made, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

static double
sign_bit(const op_call *call, const port_tensor *x, double v)
{
    (void)call;
    return dtype_is_float(x->dtype) ? signbit(v) != 0 : v < 0.0;
}

static port_status
run_signbit(op_call *call)
{
    return map_elements(call, PORT_BOOL, sign_bit);
}

/* To `decimals` digits after the point: in the dtype of computation, by a power of ten that multiplies or divides. */
static double
rounded(const op_call *call, const port_tensor *x, double v)
{
    int64_t decimals = arg_int(call, 1);
    double power = pow(10.0, (double)(decimals < 0 ? -decimals : decimals));
    if (x->dtype == PORT_F64) {
        return decimals < 0 ? nearbyint(v / power) * power : nearbyint(v * power) / power;
    }
    float ten = (float)power, u = (float)v;
    return (double)(decimals < 0 ? nearbyintf(u / ten) * ten : nearbyintf(u * ten) / ten);
}

static port_status
run_round_decimals(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t decimals = arg_int(call, 1);
    if (!dtype_is_float(x->dtype) || decimals < -300 || decimals > 300) {
        return fail_unsupported(call, "%lld decimals of %s", (long long)decimals, port_dtype_name(x->dtype));
    }
    return map_elements(call, x->dtype, rounded);
}

#define UNARY(NAME, KERNEL, MODE) {NAME, "T self", run_unary, KERNEL, MODE, OP_IN_PLACE}
#define BINARY(NAME, KERNEL, SIGNATURE, MODE, FLAGS) {NAME, SIGNATURE, run_binary, KERNEL, MODE, FLAGS}
#define TWO "T self, N other"
#define TWO_SCALAR "T self, S other"
#define NUMBER_FIRST "S self, T other"
#define BITS_NUMBER_FIRST(NAME) BINARY(NAME ".Scalar_Tensor", NAME, NUMBER_FIRST, MODE_INTEGRAL, 0)
#define SHIFT(OP, NAME, KERNEL)                                                                                       \
    BINARY(NAME ".Scalar_Tensor", KERNEL, NUMBER_FIRST, MODE_INTEGRAL, OP_NO_BOOL),                                   \
        BINARY(NAME ".Tensor_Scalar", KERNEL, TWO_SCALAR, MODE_INTEGRAL, OP_IN_PLACE | OP_NO_BOOL),                   \
        BINARY("__" OP "__.Tensor", KERNEL, TWO, MODE_INTEGRAL, OP_NO_BOOL),                                          \
        BINARY("__i" OP "__.Tensor", KERNEL, TWO, MODE_INTEGRAL, OP_NO_BOOL | OP_WRITES),                             \
        BINARY("__i" OP "__.Scalar", KERNEL, TWO_SCALAR, MODE_INTEGRAL, OP_NO_BOOL | OP_WRITES)

const op_row op_special_rows[] = {
    UNARY("acosh", "acosh", MODE_FLOAT),
    UNARY("asinh", "asinh", MODE_FLOAT),
    UNARY("atanh", "atanh", MODE_FLOAT),
    UNARY("erfc", "erfc", MODE_FLOAT),
    UNARY("erfinv", "erfinv", MODE_FLOAT),
    UNARY("lgamma", "lgamma", MODE_FLOAT),
    UNARY("digamma", "digamma", MODE_FLOAT),
    UNARY("i0", "i0", MODE_FLOAT),
    UNARY("sinc", "sinc", MODE_FLOAT),
    BINARY("copysign.Tensor", "copysign", TWO, MODE_FLOAT, OP_IN_PLACE),
    BINARY("copysign.Scalar", "copysign", TWO_SCALAR, MODE_FLOAT, OP_IN_PLACE),
    BINARY("hypot", "hypot", TWO, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("nextafter", "nextafter", TWO, MODE_SAME, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("logaddexp", "logaddexp", TWO, MODE_SAME, OP_NO_BOOL),
    BINARY("logaddexp2", "logaddexp2", TWO, MODE_SAME, OP_NO_BOOL),
    BINARY("xlogy.Tensor", "xlogy", TWO, MODE_FLOAT, OP_IN_PLACE),
    BINARY("xlogy.Scalar_Self", "xlogy", NUMBER_FIRST, MODE_FLOAT, 0),
    BINARY("xlogy.Scalar_Other", "xlogy", TWO_SCALAR, MODE_FLOAT, OP_IN_PLACE),
    BINARY("fmax", "fmax", TWO, MODE_SAME, 0),
    BINARY("fmin", "fmin", TWO, MODE_SAME, 0),
    BINARY("heaviside", "heaviside", "T self, T values", MODE_SAME, OP_IN_PLACE),
    BINARY("gcd", "gcd", TWO, MODE_INTEGRAL, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("lcm", "lcm", TWO, MODE_INTEGRAL, OP_IN_PLACE | OP_NO_BOOL),
    BINARY("remainder.Scalar_Tensor", "remainder", NUMBER_FIRST, MODE_SAME, OP_NO_BOOL),
    {"floor_divide_.Scalar", TWO_SCALAR, run_binary, "floor_divide", MODE_SAME, OP_NO_BOOL | OP_WRITES},
    BITS_NUMBER_FIRST("bitwise_and"),
    BITS_NUMBER_FIRST("bitwise_or"),
    BITS_NUMBER_FIRST("bitwise_xor"),
    SHIFT("lshift", "bitwise_left_shift", "shift_left"),
    SHIFT("rshift", "bitwise_right_shift", "shift_right"),
    {"celu", "T self, S alpha=1.0", run_celu, "elu", MODE_SAME, OP_IN_PLACE},
    {"signbit", "T self", run_signbit, NULL, MODE_SAME, 0},
    {"round.decimals", "T self, *, I decimals", run_round_decimals, NULL, MODE_SAME, OP_IN_PLACE},
    {.name = NULL},
};
