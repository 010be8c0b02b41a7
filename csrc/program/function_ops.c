/* function_ops.c -- torch.special's functions that few models use, element by element in double (kernels/functions.h), rounded once;
 * and the windows made of one of them. */
#include "compose.h"
#include "floats.h"

#include "../kernels/functions.h"

#include <math.h>

/* A function of one number takes no second. */
typedef double (*function_of_pair)(double x, double y, port_precision precision);

#define FUNCTION(name, expression)                                                                                    \
    static double of_##name(double x, double y, port_precision precision)                                             \
    {                                                                                                                 \
        (void)y, (void)precision;                                                                                     \
        return (expression);                                                                                          \
    }

FUNCTION(i0e, port_bessel_i0e(x))
FUNCTION(i1e, port_bessel_i1e(x))
FUNCTION(i0, isinf(x) ? (double)NAN : exp(fabs(x) / 2.0) * port_bessel_i0e(x) * exp(fabs(x) / 2.0))
FUNCTION(i1, isinf(x) ? (double)NAN : exp(fabs(x) / 2.0) * port_bessel_i1e(x) * exp(fabs(x) / 2.0))
FUNCTION(k0, port_bessel_ke(0.0, x) * exp(-x))
FUNCTION(k1, port_bessel_ke(1.0, x) * exp(-x))
FUNCTION(scaled_k0, port_bessel_ke(0.0, x))
FUNCTION(scaled_k1, port_bessel_ke(1.0, x))
FUNCTION(j0, isinf(x) ? (double)NAN : j0(x))
FUNCTION(j1, isinf(x) ? (double)NAN : j1(x))
FUNCTION(y0, x < 0.0 || isinf(x) ? (double)NAN : y0(x))
#define TWO_BY_PI 0.63661977236758134308
FUNCTION(y1, x < 0.0 || isinf(x) ? (double)NAN : x < 1e-30 ? -TWO_BY_PI * port_step(precision, 1.0 / fabs(x)) : y1(x))
FUNCTION(spherical_j0, isinf(x) ? 0.0 : (x == 0.0 ? 1.0 : sin(x) / x))
FUNCTION(erfcx, port_erfcx(x))
FUNCTION(log_ndtr, port_log_ndtr(x))
FUNCTION(ndtri, port_ndtri(x))

/* A function of pairs, or else a polynomial. Names without special_, in torch's spelling. */
typedef struct function {
    const char *name;
    function_of_pair of;
    port_polynomial kind;
    bool shifted;
} function;

static const function functions[] = {
    {.name = "i0e", .of = of_i0e},
    {.name = "i1", .of = of_i1},
    {.name = "i1e", .of = of_i1e},
    {.name = "modified_bessel_i0", .of = of_i0},
    {.name = "modified_bessel_i1", .of = of_i1},
    {.name = "modified_bessel_k0", .of = of_k0},
    {.name = "modified_bessel_k1", .of = of_k1},
    {.name = "scaled_modified_bessel_k0", .of = of_scaled_k0},
    {.name = "scaled_modified_bessel_k1", .of = of_scaled_k1},
    {.name = "bessel_j0", .of = of_j0},
    {.name = "bessel_j1", .of = of_j1},
    {.name = "bessel_y0", .of = of_y0},
    {.name = "bessel_y1", .of = of_y1},
    {.name = "spherical_bessel_j0", .of = of_spherical_j0},
    {.name = "erfcx", .of = of_erfcx},
    {.name = "log_ndtr", .of = of_log_ndtr},
    {.name = "ndtri", .of = of_ndtri},
    {.name = "zeta", .of = port_zeta},
    {.name = "igamma", .of = port_igamma},
    {.name = "igammac", .of = port_igammac},
    {.name = "chebyshev_polynomial_t", .kind = PORT_CHEBYSHEV_T},
    {.name = "chebyshev_polynomial_u", .kind = PORT_CHEBYSHEV_U},
    {.name = "chebyshev_polynomial_v", .kind = PORT_CHEBYSHEV_V},
    {.name = "chebyshev_polynomial_w", .kind = PORT_CHEBYSHEV_W},
    {.name = "shifted_chebyshev_polynomial_t", .kind = PORT_CHEBYSHEV_T, .shifted = true},
    {.name = "shifted_chebyshev_polynomial_u", .kind = PORT_CHEBYSHEV_U, .shifted = true},
    {.name = "shifted_chebyshev_polynomial_v", .kind = PORT_CHEBYSHEV_V, .shifted = true},
    {.name = "shifted_chebyshev_polynomial_w", .kind = PORT_CHEBYSHEV_W, .shifted = true},
    {.name = "hermite_polynomial_h", .kind = PORT_HERMITE_H},
    {.name = "hermite_polynomial_he", .kind = PORT_HERMITE_HE},
    {.name = "laguerre_polynomial_l", .kind = PORT_LAGUERRE_L},
    {.name = "legendre_polynomial_p", .kind = PORT_LEGENDRE_P},
};

static const function *
function_named(const char *name)
{
    name += strncmp(name, "special_", 8) == 0 ? 8 : 0;
    size_t length = strcspn(name, ".");
    for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++) {
        if (strlen(functions[k].name) == length && strncmp(functions[k].name, name, length) == 0) {
            return &functions[k];
        }
    }
    return NULL;
}

/* An operand in double, of the plan's shape and strides. */
static port_status
operand_in_double(op_call *call, const op_operand *operand, const op_plan *plan, double **data)
{
    const port_tensor *wide;
    port_tensor *made;
    port_status status = operand->tensor != NULL ? tensor_cast(call, operand->tensor, PORT_F64, &wide)
                                                 : scalar_to_tensor(call, operand->scalar, PORT_F64, &wide);
    if (status != PORT_OK || (status = tensor_new(call, PORT_F64, plan->ndim, plan->shape, plan->strides, &made)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made), from = view_broadcast(wide, plan->ndim, plan->shape);
    copy_view(call, &to, &from);
    *data = to.data;
    return PORT_OK;
}

/* y = f(first, second) of one or two operands; integers make floats. */
static port_status
map_operands(op_call *call, const function *f, const op_operand *operands, int32_t num_operands)
{
    port_dtype dtype = result_type(operands, num_operands);
    op_plan plan;
    double *data[2] = {NULL, NULL};
    port_tensor *made;
    const port_tensor *result;
    if (f == NULL || dtype >= PORT_NUM_DTYPES || dtype == PORT_C64) {
        return fail_unsupported(call, "operands of %s", dtype < PORT_NUM_DTYPES ? port_dtype_name(dtype) : "dtypes that have none in common");
    }
    dtype = dtype_is_float(dtype) ? dtype : default_dtype(call);
    port_status status = plan_pointwise(call, operands, num_operands, &plan);
    for (int32_t k = 0; status == PORT_OK && k < num_operands; k++) {
        status = operand_in_double(call, &operands[k], &plan, &data[k]);
    }
    if (status != PORT_OK || (status = tensor_new(call, PORT_F64, plan.ndim, plan.shape, plan.strides, &made)) != PORT_OK) {
        return status;
    }
    double *to = (double *)tensor_view(made).data;
    port_precision precision = {dtype != PORT_F64, call->options->profile.capability != PORT_CAP_DEFAULT};
    for (int64_t i = 0, n = tensor_elems(made); i < n; i++) {
        if (f->of == NULL && port_polynomial_is_long(f->kind, f->shifted, data[0][i], data[1][i], precision)) {
            return fail_unsupported(call, "a polynomial of degree %g", data[1][i]);
        }
        double second = num_operands > 1 ? data[1][i] : 0.0;
        to[i] = f->of != NULL ? f->of(data[0][i], second, precision) : port_polynomial_of(f->kind, f->shifted, data[0][i], second, precision);
    }
    status = tensor_cast(call, made, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

static port_status
run_function(op_call *call)
{
    op_operand operands[2];
    for (int32_t k = 0; k < call->num_args; k++) {
        const port_tensor *t = arg_tensor(call, k);
        operands[k] = (op_operand){.tensor = t, .scalar = t == NULL ? arg_scalar(call, k) : (port_scalar){PORT_SCALAR_NONE, 0, 0.0}};
    }
    return map_operands(call, function_named(call->row->name), operands, call->num_args);
}

/* polygamma(n, self); in place self comes first. */
static port_status
run_polygamma(op_call *call)
{
    int32_t first = call->args[0].kind == PORT_ARG_TENSOR ? 0 : 1;
    int64_t n = arg_int(call, 1 - first);
    if (n < 0) {
        return fail_op(call, PORT_E_VALUE, "n is %lld", (long long)n);
    }
    if (n == 0) {
        return run_formula(call, "y = digamma(self) -> y", NULL, 0);
    }
    const op_operand one = {.tensor = arg_tensor(call, first)};
    const op_operand degree = {.scalar = {PORT_SCALAR_INT, n, (double)n}};
    static const function polygamma = {.name = "polygamma", .of = port_polygamma};
    return map_operands(call, &polygamma, (const op_operand[]){degree, one}, 2);
}

/* kaiser_window(window_length, [periodic, [beta]]): i0(beta sqrt(1 - ((k - a) / a)^2)) / i0(beta), a the middle. */
static port_status
run_kaiser(op_call *call)
{
    const char *name = call->row->name;
    int64_t length = arg_int(call, 0);
    int32_t given = strstr(name, "beta") != NULL ? 2 : (strstr(name, "periodic") != NULL ? 1 : 0);
    bool periodic = given < 1 || arg_bool(call, 1);
    double beta = given == 2 ? arg_double(call, 2, 12.0) : 12.0;
    port_dtype dtype = arg_dtype(call, given + 1, default_dtype(call));
    port_tensor *wide;
    const port_tensor *result;
    if (length < 0 || length > INT32_MAX || !dtype_is_float(dtype)) {
        return fail_unsupported(call, "a window of %lld elements of %s", (long long)length, port_dtype_name(dtype));
    }
    port_status status = tensor_new(call, PORT_F64, 1, &length, NULL, &wide);
    if (status != PORT_OK) {
        return status;
    }
    const port_precision in_double = {false, false};
    double middle = (double)(length - 1 + (periodic && length > 1)) / 2.0, *to = (double *)tensor_view(wide).data;
    const double greatest = of_i0(beta, 0.0, in_double);
    for (int64_t k = 0; k < length; k++) {
        double away = length > 1 ? (float_rounded(dtype, (double)k) - middle) / middle : 0.0;
        to[k] = of_i0(beta * sqrt(1.0 - away * away), 0.0, in_double) / greatest;
    }
    status = tensor_cast(call, wide, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

#define ONE(NAME) {"special_" NAME, "T self", run_function, NULL, MODE_FLOAT, 0}
#define PAIR(NAME, FIRST, SECOND, FIRST_SCALAR, SECOND_SCALAR)                                                        \
    {"special_" NAME, "T " FIRST ", T " SECOND, run_function, NULL, MODE_FLOAT, 0},                                   \
        {"special_" NAME "." FIRST_SCALAR, "S " FIRST ", T " SECOND, run_function, NULL, MODE_FLOAT, 0},              \
        {"special_" NAME "." SECOND_SCALAR, "T " FIRST ", S " SECOND, run_function, NULL, MODE_FLOAT, 0}
#define OF_DEGREE(NAME) PAIR(NAME, "x", "n", "x_scalar", "n_scalar")
#define FACTORY ", *, D? dtype=None, y layout=None, v device=None, p pin_memory=None"

const op_row op_function_rows[] = {
    ONE("i0e"),
    ONE("i1"),
    ONE("i1e"),
    ONE("modified_bessel_i0"),
    ONE("modified_bessel_i1"),
    ONE("modified_bessel_k0"),
    ONE("modified_bessel_k1"),
    ONE("scaled_modified_bessel_k0"),
    ONE("scaled_modified_bessel_k1"),
    ONE("bessel_j0"),
    ONE("bessel_j1"),
    ONE("bessel_y0"),
    ONE("bessel_y1"),
    ONE("spherical_bessel_j0"),
    ONE("erfcx"),
    ONE("log_ndtr"),
    ONE("ndtri"),
    PAIR("zeta", "self", "other", "self_scalar", "other_scalar"),
    OF_DEGREE("chebyshev_polynomial_t"),
    OF_DEGREE("chebyshev_polynomial_u"),
    OF_DEGREE("chebyshev_polynomial_v"),
    OF_DEGREE("chebyshev_polynomial_w"),
    OF_DEGREE("shifted_chebyshev_polynomial_t"),
    OF_DEGREE("shifted_chebyshev_polynomial_u"),
    OF_DEGREE("shifted_chebyshev_polynomial_v"),
    OF_DEGREE("shifted_chebyshev_polynomial_w"),
    OF_DEGREE("hermite_polynomial_h"),
    OF_DEGREE("hermite_polynomial_he"),
    OF_DEGREE("laguerre_polynomial_l"),
    OF_DEGREE("legendre_polynomial_p"),
    {"igamma", "T self, T other", run_function, NULL, MODE_FLOAT, OP_IN_PLACE},
    {"igammac", "T self, T other", run_function, NULL, MODE_FLOAT, OP_IN_PLACE},
    {"polygamma", "I n, T self", run_polygamma, NULL, MODE_FLOAT, 0},
    {"polygamma_", "T self, I n", run_polygamma, NULL, MODE_FLOAT, OP_WRITES},
    {"kaiser_window", "I window_length" FACTORY, run_kaiser, NULL, MODE_SAME, 0},
    {"kaiser_window.periodic", "I window_length, B periodic" FACTORY, run_kaiser, NULL, MODE_SAME, 0},
    {"kaiser_window.beta", "I window_length, B periodic, F beta" FACTORY, run_kaiser, NULL, MODE_SAME, 0},
    {.name = NULL},
};
