/* activation.c -- activations with numbers of their own, log1p, expm1 and the rarer functions.
 *     softplus     log1p(exp(a x)) / a, x itself where a x > b          leaky_relu  x > 0 ? x : a x
 *     elu          x >= 0 ? b x : (exp(c x) - 1) a b                     hardswish, hardsigmoid, mish, log_sigmoid, trunc, log2, exp2, tan, atan
 * Source: at::native Activation.cpp, UnaryOpsKernel.cpp (BSD-3-Clause; restated); vector functions: vecmath.h. */
#include "unary.h"

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
    PORT_UNARY_RUN(name, name##_f32, name##_f64, NULL)

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
OP(exp_minus_abs, exp_of(always, -fabsf(v)), exp(-fabs(v)))
OP(log1p, log1p_of(always, v), log1p(v))
OP(expm1, expm1_of(always, v), expm1(v))
OP(trunc, truncf(v), trunc(v))
OP(exp2, exp2f(v), exp2(v))
OP(sinh, sinhf(v), sinh(v))
OP(cosh, coshf(v), cosh(v))

/* Functions of MKL's vector math for f32; without it, and for half floats, within 1 ulp of the reference's. */
#define VML_OP(name)                                                                                                 \
    PORT_UNARY_VML(name, PORT_LIBM_LOOP(name##f))                                                                    \
    PORT_UNARY_EACH(double, f64, name, name(v))                                                                      \
    PORT_UNARY_RUN(name, name##_f32, name##_f64, NULL)

VML_OP(log2)
VML_OP(log10)
VML_OP(tan)
VML_OP(atan)
VML_OP(acos)
VML_OP(asin)

#define FLOATS(name) PORT_FLOAT_ROWS(#name, "ref", 0, port_unary_check, name##_run)

const port_kernel_row port_activation_rows[] = {
    FLOATS(softplus), FLOATS(elu),  FLOATS(leaky_relu), FLOATS(hardswish), FLOATS(hardsigmoid), FLOATS(mish), FLOATS(log_sigmoid), FLOATS(exp_minus_abs),
    FLOATS(log1p),    FLOATS(expm1), FLOATS(trunc),     FLOATS(log2),      FLOATS(log10),       FLOATS(exp2), FLOATS(tan),
    FLOATS(atan),     FLOATS(sinh), FLOATS(cosh),       FLOATS(acos),      FLOATS(asin),
    {.op = NULL},
};
