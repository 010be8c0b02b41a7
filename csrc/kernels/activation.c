/* activation.c -- activations with numbers of their own, log1p, expm1 and the norm of a vector.
 *     softplus     log1p(exp(a x)) / a, x itself where a x > b          leaky_relu  x > 0 ? x : a x
 *     elu          x >= 0 ? b x : (exp(c x) - 1) a b                     hardswish, hardsigmoid, mish, log_sigmoid, trunc, log2, exp2, tan, atan
 *     vector_norm  of order 1, 2 or infinity over any dimensions
 * Source: at::native Activation.cpp, UnaryOpsKernel.cpp, ReduceOpsKernel.cpp (BSD-3-Clause; restated); vector functions: vecmath.h. */
#include "unary.h"
#include "vecmath.h"

static bool
has_vector_functions(const unary_context *context)
{
    return context->call->profile->capability != PORT_CAP_DEFAULT;
}

/* What the three forms have in common: v is the element, a, b, c the parameters; `vector` if the vector functions apply. */
#define OP(name, f32_expression, f64_expression)                                                                     \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        const port_activation_params *p = context->call->params;                                                     \
        float a = p != NULL ? (float)p->a : 1.0f, b = p != NULL ? (float)p->b : 1.0f, c = p != NULL ? (float)p->c : 1.0f; \
        bool vector = is_vector && has_vector_functions(context), always = has_vector_functions(context);            \
        (void)a, (void)b, (void)c, (void)vector, (void)always;                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            float v = x[i];                                                                                          \
            y[i] = (f32_expression);                                                                                 \
        }                                                                                                            \
    }                                                                                                                \
    static void name##_f64(const unary_context *context, int64_t n, const double *x, double *y)                      \
    {                                                                                                                \
        const port_activation_params *p = context->call->params;                                                     \
        double a = p != NULL ? p->a : 1.0, b = p != NULL ? p->b : 1.0, c = p != NULL ? p->c : 1.0;                    \
        (void)a, (void)b, (void)c;                                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            double v = x[i];                                                                                         \
            y[i] = (f64_expression);                                                                                 \
        }                                                                                                            \
    }                                                                                                                \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const unary_op op = {name##_f32, name##_f64, NULL};                                                   \
        port_unary_run(call, &op, 0);                                                                            \
    }

static float
exp_of(bool vector, float v)
{
    return vector ? port_exp_u10(v) : expf(v);
}

static float
log1p_of(bool vector, float v)
{
    return vector ? port_log1p_u10(v) : log1pf(v);
}

static float
expm1_of(bool vector, float v)
{
    return vector ? port_expm1_u10(v) : expm1f(v);
}

static float
tanh_of(bool vector, float v)
{
    return vector ? port_tanh_u10(v) : tanhf(v);
}

static float
six_f32(float v)
{
    v = v < 0.0f ? 0.0f : v;
    return v > 6.0f ? 6.0f : v;
}

static double
six_f64(double v)
{
    v = v < 0.0 ? 0.0 : v;
    return v > 6.0 ? 6.0 : v;
}

OP(softplus, v *a > b ? v : log1p_of(vector, exp_of(vector, v * a)) / a, v *a > b ? v : log1p(exp(v * a)) / a)
OP(elu, v < 0.0f ? expm1_of(vector, v * c) * (a * b) : v * b, v < 0.0 ? expm1(v * c) * (a * b) : v * b)
OP(leaky_relu, v > 0.0f ? v : v * a, v > 0.0 ? v : v * a)
OP(hardswish, v *six_f32(v + 3.0f) / 6.0f, v *six_f64(v + 3.0) / 6.0)
OP(hardsigmoid, six_f32(v + 3.0f) / 6.0f, six_f64(v + 3.0) / 6.0)
OP(mish, v *tanh_of(vector, log1p_of(vector, exp_of(vector, v))), v *tanh(log1p(exp(v))))
OP(log_sigmoid, (v < 0.0f ? v : 0.0f) - log1p_of(always, exp_of(always, -fabsf(v))), (v < 0.0 ? v : 0.0) - log1p(exp(-fabs(v))))
OP(log1p, log1p_of(always, v), log1p(v))
OP(expm1, expm1_of(always, v), expm1(v))
OP(trunc, truncf(v), trunc(v))
OP(log2, log2f(v), log2(v))
OP(log10, log10f(v), log10(v))
OP(exp2, exp2f(v), exp2(v))
OP(tan, tanf(v), tan(v))
OP(atan, atanf(v), atan(v))
OP(sinh, sinhf(v), sinh(v))
OP(cosh, coshf(v), cosh(v))
OP(acos, acosf(v), acos(v))
OP(asin, asinf(v), asin(v))

/* ---------------------------------------------------------------- vector_norm */

static port_status
vector_norm_check(const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *y = call->out[0];
    const port_vector_norm_params *p = call->params;
    bool fits = p != NULL && y->ndim == x->ndim && y->dtype == x->dtype && (p->order == 1.0 || p->order == 2.0 || isinf(p->order));
    for (int32_t d = 0; fits && d < x->ndim; d++) {
        fits = y->shape[d] == ((p->dims >> d & 1u) != 0 ? 1 : x->shape[d]);
    }
    return fits ? PORT_OK : port_fail(err, PORT_E_SHAPE, "vector_norm: an order other than 1, 2 or infinity, or an output that does not fit");
}

static float
step_f32(double order, bool fused, float sum, float v)
{
    if (order == 2.0) {
        return fused ? fmaf(v, v, sum) : sum + v * v;
    }
    float size = fabsf(v);
    return order == 1.0 ? sum + size : (size != size || size > sum ? size : sum);
}

static double
step_f64(double order, double sum, double v)
{
    double size = fabs(v);
    return order == 2.0 ? sum + v * v : (order == 1.0 ? sum + size : (size != size || size > sum ? size : sum));
}

/* A contiguous row: the 2-norm runs in lanes, which are added in order, then the rest; everything else one by one. */
static float
row_norm_f32(const port_kernel_call *call, double order, const float *x, int64_t stride, int64_t n, bool in_lanes)
{
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    int64_t lanes = port_profile_lanes(call->profile, PORT_F32), bulk = in_lanes ? n - n % lanes : 0;
    float sums[16] = {0.0f}, sum = 0.0f;
    for (int64_t i = 0; i < bulk; i++) {
        sums[i % lanes] = step_f32(order, fused, sums[i % lanes], x[i * stride]);
    }
    for (int64_t lane = 0; bulk > 0 && lane < lanes; lane++) {
        sum = lane == 0 ? sums[0] : sum + sums[lane];
    }
    for (int64_t i = bulk; i < n; i++) {
        sum = step_f32(order, fused, sum, x[i * stride]);
    }
    return order == 2.0 ? sqrtf(sum) : sum;
}

/* Every output by itself: the reduced dimensions are gathered in order. */
static void
vector_norm_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0], *y = call->out[0];
    const port_vector_norm_params *p = call->params;
    int64_t outputs = port_view_elems(y), place[PORT_MAX_NDIM] = {0};
    port_view part = *x;
    for (int32_t d = 0; d < x->ndim; d++) {
        part.shape[d] = (p->dims >> d & 1u) != 0 ? x->shape[d] : 1;
    }
    int64_t n = port_view_elems(&part), bytes = (int64_t)port_dtype_size(x->dtype);
    bool last = x->ndim > 0 && (p->dims >> (x->ndim - 1) & 1u) != 0 && p->order == 2.0 && x->strides[x->ndim - 1] == 1;
    for (int64_t i = 0; i < outputs; i++) {
        int64_t from = 0, to = 0;
        for (int32_t d = 0; d < x->ndim; d++) {
            from += place[d] * x->strides[d];
            to += place[d] * y->strides[d];
        }
        part.data = (char *)x->data + from * bytes;
        port_view_gather(&part, call->scratch);
        if (x->dtype == PORT_F32) {
            ((float *)y->data)[to] = row_norm_f32(call, p->order, call->scratch, 1, n, last);
        } else {
            double sum = 0.0;
            for (int64_t k = 0; k < n; k++) {
                sum = step_f64(p->order, sum, ((const double *)call->scratch)[k]);
            }
            ((double *)y->data)[to] = p->order == 2.0 ? sqrt(sum) : sum;
        }
        for (int32_t d = x->ndim - 1; d >= 0 && ++place[d] == y->shape[d]; d--) {
            place[d] = 0;
        }
    }
}

static size_t
vector_norm_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)port_view_elems(call->in[0]) * port_dtype_size(call->in[0]->dtype) + 64;
}

#define FLOATS(name) PORT_FLOAT_ROWS(#name, "ref", 0, port_unary_check, name##_run)

const port_kernel_row port_activation_rows[] = {
    FLOATS(softplus), FLOATS(elu),  FLOATS(leaky_relu), FLOATS(hardswish), FLOATS(hardsigmoid), FLOATS(mish), FLOATS(log_sigmoid),
    FLOATS(log1p),    FLOATS(expm1), FLOATS(trunc),     FLOATS(log2),      FLOATS(log10),       FLOATS(exp2), FLOATS(tan),
    FLOATS(atan),     FLOATS(sinh), FLOATS(cosh),       FLOATS(acos),      FLOATS(asin),
    {"vector_norm", PORT_F32, "ref", 0, vector_norm_check, vector_norm_scratch_bytes, vector_norm_run},
    {"vector_norm", PORT_F64, "ref", 0, vector_norm_check, vector_norm_scratch_bytes, vector_norm_run},
    {.op = NULL},
};
