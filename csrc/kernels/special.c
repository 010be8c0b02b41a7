/* special.c -- functions of one or two elements that few models use: inverse hyperbolic functions, error functions,
 * gamma functions, and pairs such as hypot, copysign, logaddexp, gcd.
 * Source: at::native Math.h, UnaryOpsKernel.cpp, BinaryOpsKernel.cpp (BSD-3-Clause; restated). Where torch's vector
 * loop has functions of its own (SLEEF), these are libm's: the labels say how far that is. */
#include "binary.h"
#include "unary.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* Rational approximations in the middle and in the tails, then two Newton steps. */
static double
erfinv_of(double y)
{
    static const double a[4] = {0.886226899, -1.645349621, 0.914624893, -0.140543331};
    static const double b[4] = {-2.118377725, 1.442710462, -0.329097515, 0.012229801};
    static const double c[4] = {-1.970840454, -1.624906493, 3.429567803, 1.641345311};
    static const double d[2] = {3.543889200, 1.637067800};
    double size = fabs(y), x;
    if (!(size < 1.0)) {
        return size == 1.0 ? copysign((double)INFINITY, y) : (double)NAN;
    }
    if (size <= 0.7) {
        double z = y * y;
        x = y * (((a[3] * z + a[2]) * z + a[1]) * z + a[0]) / ((((b[3] * z + b[2]) * z + b[1]) * z + b[0]) * z + 1.0);
    } else {
        double z = sqrt(-log((1.0 - size) / 2.0));
        x = copysign((((c[3] * z + c[2]) * z + c[1]) * z + c[0]) / ((d[1] * z + d[0]) * z + 1.0), y);
    }
    for (int step = 0; step < 2; step++) {
        x -= (erf(x) - y) / (2.0 / sqrt(PI) * exp(-x * x));
    }
    return x;
}

/* Reflection for negative arguments, recurrence up to 10, then the asymptotic series. */
static double
digamma_of(double x)
{
    static const double series[7] = {8.33333333333333333333E-2,  -2.10927960927960927961E-2, 7.57575757575757575758E-3,
                                     -4.16666666666666666667E-3, 3.96825396825396825397E-3,  -8.33333333333333333333E-3,
                                     8.33333333333333333333E-2};
    if (x == 0.0) {
        return copysign((double)INFINITY, -x);
    }
    if (x < 0.0) {
        if (x == trunc(x)) {
            return (double)NAN;
        }
        double whole;
        return digamma_of(1.0 - x) - PI / tan(PI * modf(x, &whole));
    }
    double result = 0.0, rest = 0.0;
    for (; x < 10.0; x += 1.0) {
        result -= 1.0 / x;
    }
    if (x == 10.0) {
        return result + 2.25175258906672110764;
    }
    if (x < 1.0e17) {
        double z = 1.0 / (x * x);
        for (int k = 0; k < 7; k++) {
            rest = rest * z + series[k];
        }
        rest *= z;
    }
    return result + log(x) - 0.5 / x - rest;
}

/* The modified Bessel function of order 0: its power series, or the asymptotic one where that is shorter. */
static double
i0_of(double x)
{
    double size = fabs(x), sum = 1.0, term = 1.0;
    if (size < 30.0) {
        for (int k = 1; k < 120; k++) {
            term *= (size / 2.0) / k * ((size / 2.0) / k);
            sum += term;
        }
        return sum;
    }
    for (int k = 1; k < 25; k++) {
        term *= (2.0 * k - 1.0) * (2.0 * k - 1.0) / (8.0 * k * size);
        sum += term;
    }
    return exp(size / 2.0) * sum / sqrt(2.0 * PI * size) * exp(size / 2.0);
}

#define UNARY(name, f32_expression, f64_expression)                                                                  \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        (void)context, (void)is_vector;                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            float v = x[i];                                                                                          \
            y[i] = (float)(f32_expression);                                                                          \
        }                                                                                                            \
    }                                                                                                                \
    PORT_UNARY_EACH(double, f64, name, f64_expression)                                                               \
    PORT_UNARY_RUN(name, name##_f32, name##_f64, NULL)

static float
sinc_f32_of(float v)
{
    float product = (float)PI * v;
    return v == 0.0f ? 1.0f : sinf(product) / product;
}

UNARY(acosh, acoshf(v), acosh(v))
UNARY(asinh, asinhf(v), asinh(v))
UNARY(atanh, atanhf(v), atanh(v))
UNARY(erfc, erfcf(v), erfc(v))
UNARY(erfinv, erfinv_of((double)v), erfinv_of(v))
UNARY(lgamma, lgammaf(v), lgamma(v))
UNARY(digamma, digamma_of((double)v), digamma_of(v))
UNARY(i0, i0_of((double)v), i0_of(v))
UNARY(sinc, sinc_f32_of(v), v == 0.0 ? 1.0 : sin(PI *v) / (PI * v))

/* ---------------------------------------------------------------- functions of two elements */

static double
logaddexp_of(double u, double v)
{
    double most = u > v ? u : v;
    return isinf(u) && u == v ? u : (u != u || v != v ? u + v : most + log1p(exp(-fabs(u - v))));
}

static double
logaddexp2_of(double u, double v)
{
    double most = u > v ? u : v;
    return isinf(u) && u == v ? u
                              : (u != u || v != v ? u + v : most + log1p(exp2(-fabs(u - v))) * 1.44269504088896340736);
}

static double
xlogy_of(double u, double v)
{
    return v != v ? v : (u == 0.0 ? 0.0 : u * log(v));
}

static int64_t
gcd_of(int64_t u, int64_t v)
{
    uint64_t a = u < 0 ? 0 - (uint64_t)u : (uint64_t)u, b = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    while (a != 0) {
        uint64_t rest = b % a;
        b = a;
        a = rest;
    }
    return (int64_t)b;
}

static int64_t
lcm_of(int64_t u, int64_t v)
{
    int64_t divisor = gcd_of(u, v);
    int64_t product = divisor == 0 ? 0 : (int64_t)((uint64_t)(divisor == -1 ? u : u / divisor) * (uint64_t)v);
    return product < 0 ? (int64_t)(0 - (uint64_t)product) : product;
}

/* The half next to u towards v; of a zero the least subnormal. */
static float
next_half(float (*widen)(uint16_t), uint16_t (*narrow)(float), float u, float v)
{
    if (u != u || v != v || u == v) {
        return u != u || v != v ? u + v : v;
    }
    if (u == 0.0f) {
        return copysignf(widen(1), v);
    }
    return widen((uint16_t)(narrow(u) + ((u < v) == (u > 0.0f) ? 1 : -1)));
}

#define BINARY_F32(name, expression)                                                                                 \
    static void name##_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, \
                           const float *b, int64_t b_step, float *y)                                                 \
    {                                                                                                                \
        (void)context, (void)is_vector;                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            float u = a[i * a_step], v = b[i * b_step];                                                              \
            y[i] = (float)(expression);                                                                              \
        }                                                                                                            \
    }
#define BINARY_FLOATS(name, f32_expression, f64_expression)                                                          \
    BINARY_F32(name, f32_expression)                                                                                 \
    PORT_BINARY_EACH(double, f64, name, f64_expression)
#define OF_FLOATS(name, f32_expression, f64_expression)                                                              \
    BINARY_FLOATS(name, f32_expression, f64_expression)                                                              \
    PORT_BINARY_RUN(name, name##_f32, name##_f64, NULL)
#define OF_ALL(name, f32_expression, f64_expression, i64_expression)                                                 \
    BINARY_FLOATS(name, f32_expression, f64_expression)                                                              \
    PORT_BINARY_EACH(int64_t, i64, name, i64_expression)                                                                  \
    PORT_BINARY_RUN(name, name##_f32, name##_f64, name##_i64)
#define OF_INTS(name, expression)                                                                                    \
    PORT_BINARY_EACH(int64_t, i64, name, expression)                                                                      \
    PORT_BINARY_RUN(name, NULL, NULL, name##_i64)

OF_FLOATS(copysign, copysignf(u, v), copysign(u, v))
OF_FLOATS(hypot, hypotf(u, v), hypot(u, v))
OF_FLOATS(nextafter, nextafterf(u, v), nextafter(u, v))
BINARY_F32(nextafter_bf16, next_half(port_bf16_to_f32, port_f32_to_bf16, u, v))
PORT_BINARY_RUN(nextafter_bf16, nextafter_bf16_f32, NULL, NULL)
BINARY_F32(nextafter_f16, next_half(port_f16_to_f32, port_f32_to_f16, u, v))
PORT_BINARY_RUN(nextafter_f16, nextafter_f16_f32, NULL, NULL)
OF_FLOATS(logaddexp, logaddexp_of((double)u, (double)v), logaddexp_of(u, v))
OF_FLOATS(logaddexp2, logaddexp2_of((double)u, (double)v), logaddexp2_of(u, v))
/* Of halves the logarithm is one. */
OF_FLOATS(xlogy, v != v ? v : (u == 0.0f ? 0.0f : u * port_rounded(context->call->in[0]->dtype, logf(v))), xlogy_of(u, v))
/* Of equal operands, zeros of both signs too, the first; of bf16 the second. */
OF_ALL(fmax, v > u || u != u ? v : u, v > u || u != u ? v : u, u > v ? u : v)
OF_ALL(fmin, v < u || u != u ? v : u, v < u || u != u ? v : u, u < v ? u : v)
BINARY_F32(fmax_bf16, u > v || v != v ? u : v)
PORT_BINARY_RUN(fmax_bf16, fmax_bf16_f32, NULL, NULL)
BINARY_F32(fmin_bf16, u < v || v != v ? u : v)
PORT_BINARY_RUN(fmin_bf16, fmin_bf16_f32, NULL, NULL)
OF_ALL(heaviside, u == 0.0f ? v : (float)(u > 0.0f), u == 0.0 ? v : (double)(u > 0.0), u == 0 ? v : u > 0)
OF_INTS(gcd, gcd_of(u, v))
OF_INTS(lcm, lcm_of(u, v))

/* ---------------------------------------------------------------- rows */

#define ONE(name) PORT_FLOAT_ROWS(#name, "ref", 0, port_unary_check, name##_run)
#define TWO(name) PORT_FLOAT_ROWS(#name, "ref", 0, port_binary_check, name##_run)
#define TWO_BF16_APART(name)                                                                                        \
    PORT_ROW(#name, PORT_F32, "ref", 0, port_binary_check, name##_run),                                             \
        PORT_ROW(#name, PORT_F64, "ref", 0, port_binary_check, name##_run),                                         \
        PORT_ROW(#name, PORT_F16, "ref", 0, port_binary_check, name##_run),                                         \
        PORT_ROW(#name, PORT_BF16, "ref", 0, port_binary_check, name##_bf16_run)
#define TWO_INTS(name) PORT_INT_ROWS(#name, "ref", 0, port_binary_check, name##_run)
#define TWO_BOOL(name) PORT_BOOL_ROW(#name, "ref", 0, port_binary_check, name##_run)

const port_kernel_row port_special_rows[] = {
    ONE(acosh),
    ONE(asinh),
    ONE(atanh),
    ONE(erfc),
    ONE(erfinv),
    ONE(lgamma),
    ONE(digamma),
    ONE(i0),
    ONE(sinc),
    TWO(copysign),
    TWO(hypot),
    PORT_ROW("nextafter", PORT_F32, "ref", 0, port_binary_check, nextafter_run),
    PORT_ROW("nextafter", PORT_F64, "ref", 0, port_binary_check, nextafter_run),
    PORT_ROW("nextafter", PORT_BF16, "ref", 0, port_binary_check, nextafter_bf16_run),
    PORT_ROW("nextafter", PORT_F16, "ref", 0, port_binary_check, nextafter_f16_run),
    TWO(logaddexp),
    TWO(logaddexp2),
    TWO(xlogy),
    TWO_BF16_APART(fmax),
    TWO_INTS(fmax),
    TWO_BOOL(fmax),
    TWO_BF16_APART(fmin),
    TWO_INTS(fmin),
    TWO_BOOL(fmin),
    TWO(heaviside),
    TWO_INTS(heaviside),
    TWO_BOOL(heaviside),
    TWO_INTS(gcd),
    TWO_INTS(lcm),
    {.op = NULL},
};
