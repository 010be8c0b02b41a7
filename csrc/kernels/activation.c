/* activation.c -- activations with numbers of their own, log1p, expm1 and the rarer functions.
 *     softplus     log1p(exp(a x)) / a, x itself where a x > b          leaky_relu  x > 0 ? x : a x
 *     elu          x >= 0 ? b x : (exp(c x) - 1) a b                     hardswish, hardsigmoid, mish, log_sigmoid, trunc, log2, exp2, tan, atan
 * Source: at::native Activation.cpp, UnaryOpsKernel.cpp (BSD-3-Clause; restated); vector functions: vecmath.h. */
#include "unary.h"

/* What the forms have in common: v is the element, a, b, c the parameters; `vector` if the vector functions apply, `always` if they do in the scalar
 * rest of a row as well. One build of the f32 loop per level of the CPU; without the vector functions it goes one by one. */
#define BUILD(name, suffix, lanes, attributes)                                                                       \
    attributes static void name##_loop_##suffix(bool vector, bool always, int64_t n, const float *x, float a, float b, float c, float *y) \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; vector && i + (lanes) <= n; i += (lanes)) {                                                           \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = name##_one(true, true, x[i + lane], a, b, c);                                           \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = name##_one(vector, always, x[i], a, b, c);                                                         \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define BUILDS(name) BUILD(name, ref, 4, ) BUILD(name, avx2, 8, PORT_TARGET_AVX2) BUILD(name, avx512, 16, PORT_TARGET_AVX512)
#else
#define BUILDS(name) BUILD(name, ref, 4, )
#endif
#define OP(name, f32_expression, f64_expression)                                                                     \
    PORT_INLINE float name##_one(bool vector, bool always, float v, float a, float b, float c)                        \
    {                                                                                                                \
        (void)a, (void)b, (void)c, (void)vector, (void)always;                                                       \
        return (f32_expression);                                                                                     \
    }                                                                                                                \
    BUILDS(name)                                                                                                     \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        const port_activation_params *p = context->call->params;                                                     \
        float a = p != NULL ? (float)p->a : 1.0f, b = p != NULL ? (float)p->b : 1.0f, c = p != NULL ? (float)p->c : 1.0f; \
        bool always = port_has_vector_functions(context, true);                                                                 \
        PORT_PICK_MAP(name##_loop, context->level)(is_vector && always, always, n, x, a, b, c, y);                   \
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
    static void name##_any(const port_kernel_call *call, int32_t level)                                              \
    {                                                                                                                \
        static const unary_op op = {name##_f32, name##_f64, NULL, NULL, NULL};                                       \
        port_unary_run(call, &op, level);                                                                            \
    }                                                                                                                \
    PORT_RUN_LEVELS(name, name##_any)

PORT_INLINE float
exp_of(bool vector, float v)
{
    return vector ? port_exp_u10(v) : expf(v);
}

PORT_INLINE float
log1p_of(bool vector, float v)
{
    return vector ? port_log1p_u10(v) : log1pf(v);
}

PORT_INLINE float
expm1_of(bool vector, float v)
{
    return vector ? port_expm1_u10(v) : expm1f(v);
}

PORT_INLINE float
tanh_of(bool vector, float v)
{
    return vector ? port_tanh_u10(v) : tanhf(v);
}

PORT_INLINE float
six_f32(float v)
{
    v = port_select(v < 0.0f, 0.0f, v);
    return port_select(v > 6.0f, 6.0f, v);
}

static double
six_f64(double v)
{
    v = v < 0.0 ? 0.0 : v;
    return v > 6.0 ? 6.0 : v;
}

OP(softplus, port_select(v *a > b, v, log1p_of(vector, exp_of(vector, v * a)) / a), v *a > b ? v : log1p(exp(v * a)) / a)
OP(elu, port_select(v < 0.0f, expm1_of(vector, v * c) * (a * b), v * b), v < 0.0 ? expm1(v * c) * (a * b) : v * b)
OP(leaky_relu, port_select(v > 0.0f, v, v * a), v > 0.0 ? v : v * a)
OP(hardswish, v *six_f32(v + 3.0f) / 6.0f, v *six_f64(v + 3.0) / 6.0)
OP(hardsigmoid, six_f32(v + 3.0f) / 6.0f, six_f64(v + 3.0) / 6.0)
OP(mish, v *tanh_of(vector, log1p_of(vector, exp_of(vector, v))), v *tanh(log1p(exp(v))))
OP(log_sigmoid, port_select(v < 0.0f, v, 0.0f) - log1p_of(always, exp_of(always, -fabsf(v))), (v < 0.0 ? v : 0.0) - log1p(exp(-fabs(v))))
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
#define LEVELS(name) PORT_LEVEL_ROWS(name, port_unary_check)

const port_kernel_row port_activation_rows[] = {
    LEVELS(softplus), LEVELS(elu),  LEVELS(leaky_relu), LEVELS(hardswish), LEVELS(hardsigmoid), LEVELS(mish), LEVELS(log_sigmoid), LEVELS(exp_minus_abs),
    LEVELS(log1p),    LEVELS(expm1), LEVELS(trunc),     FLOATS(log2),      FLOATS(log10),       LEVELS(exp2), FLOATS(tan),
    FLOATS(atan),     LEVELS(sinh), LEVELS(cosh),       FLOATS(acos),      FLOATS(asin),
    {.op = NULL},
};
