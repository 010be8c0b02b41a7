/* complex_ops.c -- complex tensors (C64: pairs of F32) beyond views and products: conversions, functions of elements,
 * sums, matrix products.
 * A conjugate is written out: torch only marks its view, and every op that reads it resolves the mark. */
#include "compose.h"
#include "numbers.h"

#include <complex.h>
#include <math.h>

typedef struct pair {
    float re, im;
} pair;

port_status
tensor_as_pairs(op_call *call, const port_tensor *x, port_tensor **out)
{
    if (x->ndim == PORT_MAX_NDIM) {
        return fail_unsupported(call, "a complex tensor of %d dimensions", x->ndim);
    }
    port_status status = tensor_alias(call, x, out);
    if (status == PORT_OK) {
        for (int32_t d = 0; d < x->ndim; d++) {
            (*out)->strides[d] = 2 * x->strides[d];
        }
        (*out)->dtype = PORT_F32;
        (*out)->ndim = x->ndim + 1;
        (*out)->shape[x->ndim] = 2;
        (*out)->strides[x->ndim] = 1;
    }
    return status;
}

/* The real (0) or imaginary (1) parts, as they lie. */
static port_status
part_of(op_call *call, const port_tensor *x, int32_t part, port_tensor **out)
{
    port_status status = tensor_as_pairs(call, x, out);
    if (status == PORT_OK) {
        (*out)->ndim--;
        (*out)->offset_bytes += part * (int64_t)sizeof(float);
    }
    return status;
}

/* Of any of both parts, as BOOL. */
static port_status
is_not_zero(op_call *call, const port_tensor *x, const port_tensor **out)
{
    const port_tensor *flags[2];
    port_tensor *part;
    for (int32_t k = 0; k < 2; k++) {
        port_status status = part_of(call, x, k, &part);
        if (status != PORT_OK || (status = tensor_cast(call, part, PORT_BOOL, &flags[k])) != PORT_OK) {
            return status;
        }
    }
    bool *to = (bool *)tensor_view(flags[0]).data; /* both casts are new, and lie alike */
    const bool *imag = (const bool *)tensor_view(flags[1]).data;
    for (int64_t i = 0, n = tensor_elems(x); i < n; i++) {
        to[i] = to[i] || imag[i];
    }
    *out = flags[0];
    return PORT_OK;
}

port_status
tensor_cast_complex(op_call *call, const port_tensor *tensor, port_dtype dtype, const port_tensor **out)
{
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *made, *part;
    if (tensor->dtype == PORT_C64 && dtype == PORT_BOOL) {
        return is_not_zero(call, tensor, out);
    }
    if (tensor->dtype == PORT_C64) { /* torch drops the imaginary part with a warning */
        port_status status = part_of(call, tensor, 0, &part);
        return status == PORT_OK ? tensor_cast(call, part, dtype, out) : status;
    }
    const port_tensor *real;
    preserve_strides(tensor, strides);
    port_status status = tensor_cast(call, tensor, PORT_F32, &real);
    if (status != PORT_OK ||
        (status = tensor_new(call, PORT_C64, tensor->ndim, tensor->shape, strides, &made)) != PORT_OK ||
        (status = part_of(call, made, 0, &part)) != PORT_OK) {
        return status;
    }
    memset(tensor_view(made).data, 0, (size_t)made->buffer->size_bytes);
    port_view to = tensor_view(part), from = tensor_view(real);
    copy_view(call, &to, &from);
    *out = made;
    return PORT_OK;
}

/* ------------------------------------------------------------------ functions of elements */

typedef struct library_function {
    const char *name;
    float complex (*of)(float complex);
} library_function;

static const library_function *
library_function_of(const char *name)
{
    static const library_function all[] = {{"exp", cexpf},   {"log", clogf},     {"sqrt", csqrtf},   {"sin", csinf},     {"cos", ccosf},
                                           {"tan", ctanf},   {"sinh", csinhf},   {"cosh", ccoshf},   {"tanh", ctanhf},   {"asin", casinf},
                                           {"acos", cacosf}, {"atan", catanf},   {"asinh", casinhf}, {"acosh", cacoshf}, {"atanh", catanhf}};
    for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
        if (strcmp(all[k].name, name) == 0) {
            return &all[k];
        }
    }
    return NULL;
}

static pair
function_of(const char *name, pair v)
{
    float complex z; // its parts in an array's order (C11 6.2.5); CMPLXF is not everywhere, and re + I * im loses signs and infinities
    memcpy(&z, (float[2]){v.re, v.im}, sizeof z);
    float complex y = z;
    if (strcmp(name, "neg") == 0) {
        return (pair){-v.re, -v.im};
    }
    if (strncmp(name, "_conj", 5) == 0 || strncmp(name, "conj", 4) == 0) {
        return (pair){v.re, -v.im};
    }
    if (strcmp(name, "sgn") == 0 || strcmp(name, "sign") == 0) {
        float size = cabsf(z);
        return size == 0.0f ? (pair){0.0f, 0.0f} : (pair){v.re / size, v.im / size};
    }
    const library_function *known = library_function_of(name);
    if (known != NULL) {
        y = known->of(z);
    } else if (strcmp(name, "reciprocal") == 0) {
        y = 1.0f / z;
    } else if (strcmp(name, "rsqrt") == 0) {
        y = 1.0f / csqrtf(z);
    } else if (strcmp(name, "sigmoid") == 0) {
        y = 1.0f / (1.0f + cexpf(-z));
    } else if (strcmp(name, "silu") == 0) {
        y = z / (1.0f + cexpf(-z));
    } else if (strcmp(name, "log2") == 0) {
        y = clogf(z) / 0.693147180559945309417f;
    } else if (strcmp(name, "log10") == 0) {
        y = clogf(z) / 2.302585092994045684018f;
    } else {
        y = z * z; /* square */
    }
    return (pair){crealf(y), cimagf(y)};
}

static bool
has_function(const char *name)
{
    static const char *const known[] = {"neg", "sign", "_conj", "_conj_physical", "conj_physical", "sgn", "reciprocal", "rsqrt", "sigmoid", "silu",
                                        "log2", "log10", "square"};
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        if (strcmp(known[k], name) == 0) {
            return true;
        }
    }
    return library_function_of(name) != NULL;
}

/* abs and angle give F32; everything else C64. */
port_status
run_complex_unary(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    const char *name = call->row->name;
    bool size = strcmp(name, "abs") == 0, angle = strcmp(name, "angle") == 0;
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *dense, *made;
    if (!size && !angle && !has_function(name)) {
        return fail_unsupported(call, "a complex operand");
    }
    preserve_strides(x, strides);
    port_status status = tensor_new(call, PORT_C64, x->ndim, x->shape, strides, &dense);
    if (status != PORT_OK || (status = tensor_new(call, size || angle ? PORT_F32 : PORT_C64, x->ndim, x->shape, strides,
                                                  &made)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(dense), from = tensor_view(x);
    copy_view(call, &to, &from);
    for (int64_t i = 0, n = tensor_elems(x); i < n; i++) {
        pair v = ((const pair *)to.data)[i];
        if (size || angle) {
            ((float *)tensor_view(made).data)[i] = size ? hypotf(v.re, v.im) : atan2f(v.im, v.re);
        } else {
            ((pair *)tensor_view(made).data)[i] = function_of(name, v);
        }
    }
    return emit(call, made);
}

/* angle, _conj, _conj_physical: of real tensors too. */
static port_status
run_either(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->dtype == PORT_C64) {
        return run_complex_unary(call);
    }
    if (strcmp(call->row->name, "angle") == 0) {
        return run_formula(call,
                           "%self: self = _to_copy(self, dtype=F32); c = lt.Scalar(self, 0); y = zeros_like(self); y = "
                           "masked_fill.Scalar(y, c, 3.14159265358979323846); "
                           "n = isnan(self); y = where.self(n, self, y) -> y",
                           NULL, 0);
    }
    return emit(call, x);
}

/* complex(real, imag). */
static port_status
run_complex(op_call *call)
{
    const port_tensor *in[2] = {arg_tensor(call, 0), arg_tensor(call, 1)};
    op_plan plan;
    port_tensor *made, *part;
    if (in[0]->dtype != PORT_F32 || in[1]->dtype != PORT_F32) {
        return fail_unsupported(call, "%s and %s", port_dtype_name(in[0]->dtype), port_dtype_name(in[1]->dtype));
    }
    port_status status = plan_pointwise(call, (const op_operand[]){{.tensor = in[0]}, {.tensor = in[1]}}, 2, &plan);
    if (status != PORT_OK ||
        (status = tensor_new(call, PORT_C64, plan.ndim, plan.shape, plan.strides, &made)) != PORT_OK) {
        return status;
    }
    for (int32_t k = 0; k < 2; k++) {
        if ((status = part_of(call, made, k, &part)) != PORT_OK) {
            return status;
        }
        port_view to = tensor_view(part), from = view_broadcast(in[k], plan.ndim, plan.shape);
        copy_view(call, &to, &from);
    }
    return emit(call, made);
}

const op_row op_complex_rows[] = {
    {"complex", "T real, T imag", run_complex, NULL, MODE_SAME, 0},
    {"angle", "T self", run_either, NULL, MODE_SAME, 0},
    {"_conj", "T self", run_either, NULL, MODE_SAME, 0},
    {"_conj_physical", "T self", run_either, NULL, MODE_SAME, 0},
    {"conj_physical", "T self", run_either, NULL, MODE_SAME, OP_IN_PLACE},
    {.name = NULL},
};
