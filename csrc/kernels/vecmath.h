/* vecmath.h -- exp, log, log1p, expm1, tanh, pow and erf in f32, so that every lane has the bits of the vector functions that
 * PyTorch's CPU kernels call. Private to csrc/.
 *
 * The algorithms and constants are SLEEF's u10 functions (Naoki Shibata and contributors, Boost Software License 1.0),
 * error below 1 ulp, and for erf formula 7.1.26 of Abramowitz and Stegun as PyTorch evaluates it (BSD-3-Clause). They
 * are restated here for one lane: the same operations in the same order, an fma where SLEEF has one, selects for its masks.
 * No branch and no table, so that a loop over a constant number of lanes is vectorised under target("avx2,fma") with the same bits.
 *
 * Not here: float64, and the functions that PyTorch takes from MKL (docs/NUMERICS.md). */
#ifndef PORT_VECMATH_H
#define PORT_VECMATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PORT_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define PORT_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#if defined(__clang__)
#define PORT_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,f16c")))
#else
#define PORT_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,f16c,prefer-vector-width=512")))
#endif
#define PORT_HAVE_AVX2 1
#include <immintrin.h>
#else
#define PORT_TARGET_AVX2
#define PORT_TARGET_AVX512
#define PORT_HAVE_AVX2 0
#endif

/* A value as the unevaluated sum hi + lo, |lo| <= ulp(hi) / 2. */
typedef struct port_df {
    float hi, lo;
} port_df;

PORT_INLINE int32_t
port_f32_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

PORT_INLINE float
port_f32_of_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* condition ? yes : no without a branch: a ternary becomes control flow, which keeps a loop from being vectorised. */
PORT_INLINE float
port_select(bool condition, float yes, float no)
{
    int32_t mask = -(int32_t)condition;
    return port_f32_of_bits((port_f32_bits(yes) & mask) | (port_f32_bits(no) & ~mask));
}

PORT_INLINE double
port_select_f64(bool condition, double yes, double no)
{
    int64_t mask = -(int64_t)condition, a, b;
    memcpy(&a, &yes, sizeof a);
    memcpy(&b, &no, sizeof b);
    a = (a & mask) | (b & ~mask);
    memcpy(&yes, &a, sizeof a);
    return yes;
}

/* 2^n for -127 <= n <= 128 (the ends give 0 and infinity). */
PORT_INLINE float
port_pow2i(int32_t n)
{
    return port_f32_of_bits((int32_t)(((uint32_t)n + 127u) << 23));
}

/* x * 2^n in two exact steps, so that the last one alone rounds into the subnormals. */
PORT_INLINE float
port_scale2(float x, int32_t n)
{
    int32_t half = n >> 1;
    return x * port_pow2i(half) * port_pow2i(n - half);
}

PORT_INLINE float
port_sign_of(float magnitude, float sign)
{
    return port_f32_of_bits(port_f32_bits(magnitude) ^ (port_f32_bits(sign) & INT32_MIN));
}

/* The integer nearest to x, ties to even, for |x| <= 2^22; beyond, some integer; NaN gives 0. Adding 1.5 * 2^23 leaves the
 * integer in the low bits. */
PORT_INLINE int32_t
port_round_to_int(float x)
{
    float shifted = x + 12582912.0f;
    int32_t n = (int32_t)((uint32_t)port_f32_bits(shifted) - 0x4B400000u);
    return n & -(int32_t)(x == x);
}

/* ---------------------------------------------------------------- double-float arithmetic */

PORT_INLINE port_df
port_df_add2(port_df x, port_df y)
{
    float s = x.hi + y.hi;
    float v = s - x.hi;
    float t = (x.hi - (s - v)) + (y.hi - v);
    return (port_df){s, t + (x.lo + y.lo)};
}

/* With y.lo = 0 the sum x.lo + y.lo is x.lo, so one function serves both of SLEEF's. */
PORT_INLINE port_df
port_df_add2_f(port_df x, float y)
{
    float s = x.hi + y;
    float v = s - x.hi;
    float t = (x.hi - (s - v)) + (y - v);
    return (port_df){s, t + x.lo};
}

/* |x| >= |y| is known. */
PORT_INLINE port_df
port_df_add(port_df x, port_df y)
{
    float s = x.hi + y.hi;
    return (port_df){s, x.hi - s + y.hi + x.lo + y.lo};
}

PORT_INLINE port_df
port_df_add_f(port_df x, float y)
{
    float s = x.hi + y;
    return (port_df){s, x.hi - s + y + x.lo};
}

PORT_INLINE port_df
port_df_mul(port_df x, port_df y)
{
    float s = x.hi * y.hi;
    return (port_df){s, fmaf(x.hi, y.lo, fmaf(x.lo, y.hi, fmaf(x.hi, y.hi, -s)))};
}

PORT_INLINE port_df
port_df_mul_f(port_df x, float y)
{
    float s = x.hi * y;
    return (port_df){s, fmaf(x.lo, y, fmaf(x.hi, y, -s))};
}

PORT_INLINE port_df
port_df_square(port_df x)
{
    float s = x.hi * x.hi;
    return (port_df){s, fmaf(x.hi + x.hi, x.lo, fmaf(x.hi, x.hi, -s))};
}

PORT_INLINE port_df
port_df_reciprocal(port_df x)
{
    float s = 1.0f / x.hi;
    return (port_df){s, s * fmaf(-x.lo, s, fmaf(-x.hi, s, 1.0f))};
}

PORT_INLINE port_df
port_df_div(port_df n, port_df d)
{
    float t = 1.0f / d.hi;
    float s = n.hi * t;
    float u = fmaf(t, n.hi, -s);
    float v = fmaf(-d.lo, t, fmaf(-d.hi, t, 1.0f));
    return (port_df){s, fmaf(s, v, fmaf(n.lo, t, u))};
}

/* ---------------------------------------------------------------- exponentials */

#define PORT_LOG2E_F 1.442695040888963407359924681001892137426645954152985934135449406931f
#define PORT_LN2_HIGH 0.693145751953125f
#define PORT_LN2_LOW 1.428606765330187045e-06f

/* e^x, error below 1 ulp. */
PORT_INLINE float
port_exp_u10(float x)
{
    float near = port_select(x < -105.0f, -105.0f, x);
    near = port_select(near > 101.0f, 101.0f, near);
    int32_t q = port_round_to_int(near * PORT_LOG2E_F);
    float s = fmaf((float)q, -PORT_LN2_HIGH, near);
    s = fmaf((float)q, -PORT_LN2_LOW, s);
    float u = 0.000198527617612853646278381f;
    u = fmaf(u, s, 0.00139304355252534151077271f);
    u = fmaf(u, s, 0.00833336077630519866943359f);
    u = fmaf(u, s, 0.0416664853692054748535156f);
    u = fmaf(u, s, 0.166666671633720397949219f);
    u = fmaf(u, s, 0.5f);
    u = 1.0f + fmaf(s * s, u, s);
    u = port_scale2(u, q);
    u = port_select(x < -104.0f, 0.0f, u);
    return port_select(x > 100.0f, INFINITY, u);
}

#if PORT_HAVE_AVX2
/* The same bits for sixteen (all 2^32 arguments were compared): scaling rounds once, so that the ends come to 0 and infinity by themselves. */
PORT_TARGET_AVX512 static inline __m512
port_exp_u10_16(__m512 x)
{
    __m512 near = _mm512_min_ps(_mm512_set1_ps(101.0f), _mm512_max_ps(_mm512_set1_ps(-105.0f), x)); /* NaN stays */
    __m512 q = _mm512_roundscale_ps(_mm512_mul_ps(near, _mm512_set1_ps(PORT_LOG2E_F)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 s = _mm512_fmadd_ps(q, _mm512_set1_ps(-PORT_LN2_HIGH), near);
    s = _mm512_fmadd_ps(q, _mm512_set1_ps(-PORT_LN2_LOW), s);
    __m512 u = _mm512_set1_ps(0.000198527617612853646278381f);
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(0.00139304355252534151077271f));
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(0.00833336077630519866943359f));
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(0.0416664853692054748535156f));
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(0.166666671633720397949219f));
    u = _mm512_fmadd_ps(u, s, _mm512_set1_ps(0.5f));
    u = _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(_mm512_mul_ps(s, s), u, s));
    return _mm512_scalef_ps(u, q);
}
#endif

/* e^(hi + lo) as a double-float; the argument is clamped by the callers' own selects. */
PORT_INLINE port_df
port_expk2(port_df x)
{
    int32_t q = port_round_to_int((x.hi + x.lo) * PORT_LOG2E_F);
    port_df s = port_df_add2_f(x, (float)q * -PORT_LN2_HIGH);
    s = port_df_add2_f(s, (float)q * -PORT_LN2_LOW);
    float u = 0.1980960224e-3f;
    u = fmaf(u, s.hi, 0.1394256484e-2f);
    u = fmaf(u, s.hi, 0.8333456703e-2f);
    u = fmaf(u, s.hi, 0.4166637361e-1f);
    port_df t = port_df_add2_f(port_df_mul_f(s, u), 0.166666659414234244790680580464e+0f);
    t = port_df_add2_f(port_df_mul(s, t), 0.5f);
    t = port_df_add2(s, port_df_mul(port_df_square(s), t));
    t = port_df_add((port_df){1.0f, 0.0f}, t);
    t.hi = port_select(x.hi < -104.0f, 0.0f, port_scale2(t.hi, q));
    t.lo = port_select(x.hi < -104.0f, 0.0f, port_scale2(t.lo, q));
    return t;
}

/* e^x - 1, error below 1 ulp. */
PORT_INLINE float
port_expm1_u10(float x)
{
    float near = port_select(x < -105.0f, -105.0f, x);
    near = port_select(near > 101.0f, 101.0f, near);
    port_df d = port_df_add2_f(port_expk2((port_df){near, 0.0f}), -1.0f);
    float r = d.hi + d.lo;
    r = port_select(x > 88.72283172607421875f, INFINITY, r);
    r = port_select(x < -16.635532333438687426013570f, -1.0f, r);
    return port_select(x == 0.0f, x, r);
}

/* tanh x, error below 1 ulp. */
PORT_INLINE float
port_tanh_u10(float x)
{
    float magnitude = fabsf(x);
    float near = port_select(magnitude > 20.0f, 20.0f, magnitude);
    port_df e = port_expk2((port_df){near, 0.0f});
    port_df r = port_df_reciprocal(e);
    e = port_df_div(port_df_add(e, (port_df){-r.hi, -r.lo}), port_df_add(e, r));
    float y = e.hi + e.lo;
    y = port_select(magnitude > 8.664339742f, 1.0f, y);
    y = port_sign_of(y, x);
    return port_select(x == x, y, x + x);
}

/* ---------------------------------------------------------------- logarithms */

#define PORT_MIN_NORMAL 1.17549435e-38f
#define PORT_TWO_64 18446744073709551616.0f

/* floor(log2 x) of a normal x > 0; other values give a number that the callers' selects discard. */
PORT_INLINE int32_t
port_exponent_of(float x)
{
    return ((port_f32_bits(x) >> 23) & 0xff) - 127;
}

/* ln(m) + e * ln 2 for s = (m - 1) / (m + 1): the tail that log and log1p share. */
PORT_INLINE float
port_log_of_ratio(port_df ratio, float e)
{
    float x2 = ratio.hi * ratio.hi;
    float t = 0.3027294874e+0f;
    t = fmaf(t, x2, 0.3996108174e+0f);
    t = fmaf(t, x2, 0.6666694880e+0f);
    port_df s = port_df_mul_f((port_df){0.69314718246459960938f, -1.904654323148236017e-09f}, e);
    s = port_df_add(s, (port_df){ratio.hi * 2.0f, ratio.lo * 2.0f});
    s = port_df_add_f(s, x2 * ratio.hi * t);
    return s.hi + s.lo;
}

/* ln x, error below 1 ulp. */
PORT_INLINE float
port_log_u10(float x)
{
    bool tiny = x < PORT_MIN_NORMAL;
    float d = port_select(tiny, x * PORT_TWO_64, x);
    int32_t e = port_exponent_of(d * (1.0f / 0.75f));
    float m = port_f32_of_bits((int32_t)((uint32_t)port_f32_bits(d) - ((uint32_t)e << 23)));
    float scaled = (float)(e - 64 * (int32_t)tiny);
    port_df minus = port_df_add2_f((port_df){-1.0f, 0.0f}, m);
    port_df plus = port_df_add2_f((port_df){1.0f, 0.0f}, m);
    float r = port_log_of_ratio(port_df_div(minus, plus), scaled);
    r = port_select(x == INFINITY, INFINITY, r);
    r = port_select((x < 0.0f) | (x != x), NAN, r);
    return port_select(x == 0.0f, -INFINITY, r);
}

/* ln(1 + x), error below 1 ulp. */
PORT_INLINE float
port_log1p_u10(float x)
{
    float d = x + 1.0f;
    bool tiny = d < PORT_MIN_NORMAL;
    d = port_select(tiny, d * PORT_TWO_64, d);
    int32_t e = port_exponent_of(d * (1.0f / 0.75f));
    float t = port_scale2(1.0f, -e);
    float m = fmaf(x, t, t - 1.0f);
    float scaled = (float)(e - 64 * (int32_t)tiny);
    port_df ratio = port_df_div((port_df){m, 0.0f}, port_df_add_f((port_df){2.0f, 0.0f}, m));
    float r = port_log_of_ratio(ratio, scaled);
    r = port_select(x == INFINITY, INFINITY, r);
    r = port_select((x < -1.0f) | (x != x), NAN, r);
    r = port_select(x == -1.0f, -INFINITY, r);
    return port_select(x == 0.0f, x, r);
}

/* ---------------------------------------------------------------- pow */

/* ln x of a positive finite x as a double-float. */
PORT_INLINE port_df
port_logk(float x)
{
    bool tiny = x < PORT_MIN_NORMAL;
    float d = port_select(tiny, x * PORT_TWO_64, x);
    int32_t e = port_exponent_of(d * (1.0f / 0.75f));
    float m = port_f32_of_bits((int32_t)((uint32_t)port_f32_bits(d) - ((uint32_t)e << 23)));
    float scaled = (float)(e - 64 * (int32_t)tiny);
    port_df ratio = port_df_div(port_df_add2_f((port_df){-1.0f, 0.0f}, m), port_df_add2_f((port_df){1.0f, 0.0f}, m));
    port_df x2 = port_df_square(ratio);
    float t = 0.240320354700088500976562f;
    t = fmaf(t, x2.hi, 0.285112679004669189453125f);
    t = fmaf(t, x2.hi, 0.400007992982864379882812f);
    port_df c = {0.66666662693023681640625f, 3.69183861259614332084311e-09f};
    port_df s = port_df_mul_f((port_df){0.69314718246459960938f, -1.904654323148236017e-09f}, scaled);
    s = port_df_add(s, (port_df){ratio.hi * 2.0f, ratio.lo * 2.0f});
    return port_df_add(s, port_df_mul(port_df_mul(x2, ratio), port_df_add2(port_df_mul_f(x2, t), c)));
}

/* e^(hi + lo) rounded to one float. */
PORT_INLINE float
port_expk(port_df x)
{
    float near = port_select(x.hi < -105.0f, -105.0f, x.hi);
    near = port_select(near > 105.0f, 105.0f, near);
    int32_t q = port_round_to_int((near + x.lo) * PORT_LOG2E_F);
    const float whole = x.hi;
    x.hi = near;
    port_df s = port_df_add2_f(x, (float)q * -PORT_LN2_HIGH);
    s = port_df_add2_f(s, (float)q * -PORT_LN2_LOW);
    float s_hi = s.hi + s.lo;
    float s_lo = s.hi - s_hi + s.lo;
    s = (port_df){s_hi, s_lo};
    float u = 0.00136324646882712841033936f;
    u = fmaf(u, s.hi, 0.00836596917361021041870117f);
    u = fmaf(u, s.hi, 0.0416710823774337768554688f);
    u = fmaf(u, s.hi, 0.166665524244308471679688f);
    u = fmaf(u, s.hi, 0.499999850988388061523438f);
    port_df t = port_df_add(s, port_df_mul_f(port_df_square(s), u));
    t = port_df_add((port_df){1.0f, 0.0f}, t);
    float r = port_scale2(t.hi + t.lo, q);
    r = port_select(whole > 104.0f, INFINITY, r);
    return port_select(whole < -104.0f, 0.0f, r);
}

/* x^y, error below 1 ulp, with C's special cases. */
PORT_INLINE float
port_pow_u10(float x, float y)
{
    float magnitude_y = fabsf(y), magnitude_x = fabsf(x);
    bool small = magnitude_y < 16777216.0f;
    int32_t whole_y = (int32_t)port_select(small, magnitude_y, 0.0f);
    bool y_is_int = port_select(small, (float)whole_y, magnitude_y) == magnitude_y;
    int32_t odd = -(whole_y & (int32_t)y_is_int & 1), sign = port_f32_bits(x) & odd & INT32_MIN; /* odd powers keep it */
    float r = port_expk(port_df_mul_f(port_logk(magnitude_x), y));
    r = port_select(r != r, INFINITY, r);
    float of_negative = port_select(y_is_int, port_f32_of_bits(port_f32_bits(r) ^ (odd & INT32_MIN)), NAN);
    r = port_select(x > 0.0f, r, of_negative);
    float from_one = port_sign_of(magnitude_x - 1.0f, y);
    float at_infinity = port_select(from_one < 0.0f, 0.0f, port_select(from_one == 0.0f, 1.0f, INFINITY));
    r = port_select(magnitude_y == INFINITY, at_infinity, r);
    int32_t falls = -(int32_t)(port_f32_bits(y) < 0) ^ -(int32_t)(x == 0.0f);
    float at_end = port_f32_of_bits((port_f32_bits(INFINITY) & ~falls) | sign);
    r = port_select((magnitude_x == INFINITY) | (x == 0.0f), at_end, r);
    r = port_select((x != x) | (y != y), NAN, r);
    return port_select((y == 0.0f) | (x == 1.0f), 1.0f, r);
}

/* base^exponent in wrapping 64-bit arithmetic; a negative exponent gives 0 but for the bases 1 and -1. */
PORT_INLINE int64_t
port_int_pow(int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        return base == 1 ? 1 : (base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0);
    }
    uint64_t result = 1, factor = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1) {
        result *= (exponent & 1) != 0 ? factor : 1;
        factor *= factor;
    }
    return (int64_t)result;
}

/* ---------------------------------------------------------------- erf */

/* erf x by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7), evaluated as PyTorch's vector class does. */
PORT_INLINE float
port_erf_as(float x)
{
    float t = 1.0f / fmaf(0.3275911f, fabsf(x), 1.0f);
    float r = fmaf(1.061405429f, t, -1.453152027f);
    r = fmaf(r, t, 1.421413741f);
    r = fmaf(r, t, -0.284496736f);
    r = fmaf(r, t, 0.254829592f);
    float y = fmaf(-port_exp_u10(-(x * x)) * t, r, 1.0f);
    return port_sign_of(y, x);
}

/* ---------------------------------------------------------------- over arrays */

/* PORT_DEFINE_MAP(name, scalar): static functions name_ref, name_avx2 and name_avx512, void (int64_t n, const float *x, float *y),
 * which put scalar(x[i]) into y[i]; y may be x. PORT_DEFINE_MAP2: the same for y[i] = scalar(a[i], b[i]), where a or b may be y;
 * a_step and b_step are 1, or 0 for one number. PORT_DEFINE_MAP_PQ: y[i] = scalar(x[i], p, q) for two numbers, void (n, x, p, q, y). The inner loop is one vector long, which is what lets -O2 vectorise it. */
/* The lanes of one vector do not depend on each other, also where y is an operand. */
#if defined(__clang__)
#define PORT_INDEPENDENT /* clang asks at run time, and warns where a loop that is told so is not vectorised */
#else
#define PORT_INDEPENDENT _Pragma("GCC ivdep")
#endif
#define PORT_DEFINE_MAP_BODY(name, scalar, lanes, attributes)                                                        \
    attributes static void name(int64_t n, const float *x, float *y)                                                 \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                     \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = scalar(x[i + lane]);                                                                   \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = scalar(x[i]);                                                                                     \
        }                                                                                                            \
    }
#define PORT_DEFINE_MAP2_BODY(name, scalar, lanes, attributes)                                                       \
    attributes static void name(int64_t n, const float *a, int64_t a_step, const float *b, int64_t b_step, float *y) \
    {                                                                                                                \
        const float first_a = n > 0 ? a[0] : 0.0f, first_b = n > 0 ? b[0] : 0.0f;                                    \
        int64_t i = 0;                                                                                               \
        for (; i + (lanes) <= n && a_step != 0 && b_step != 0; i += (lanes)) {                                       \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = scalar(a[i + lane], b[i + lane]);                                                      \
            }                                                                                                        \
        }                                                                                                            \
        for (; i + (lanes) <= n && a_step != 0; i += (lanes)) {                                                      \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = scalar(a[i + lane], first_b);                                                          \
            }                                                                                                        \
        }                                                                                                            \
        for (; i + (lanes) <= n && b_step != 0; i += (lanes)) {                                                      \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = scalar(first_a, b[i + lane]);                                                          \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = scalar(a_step != 0 ? a[i] : first_a, b_step != 0 ? b[i] : first_b);                               \
        }                                                                                                            \
    }
#define PORT_DEFINE_MAP_PQ_BODY(name, scalar, lanes, attributes)                                                     \
    attributes static void name(int64_t n, const float *x, float p, float q, float *y)                               \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                     \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                y[i + lane] = scalar(x[i + lane], p, q);                                                             \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = scalar(x[i], p, q);                                                                               \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define PORT_DEFINE_MAP(name, scalar)                                                                                \
    PORT_DEFINE_MAP_BODY(name##_ref, scalar, 4, )                                                                    \
    PORT_DEFINE_MAP_BODY(name##_avx2, scalar, 8, PORT_TARGET_AVX2)                                                   \
    PORT_DEFINE_MAP_BODY(name##_avx512, scalar, 16, PORT_TARGET_AVX512)
/* PORT_DEFINE_MAP with 16 lanes by a function of __m512, which has the same bits. */
#define PORT_DEFINE_MAP_OWN_16(name, scalar, sixteen)                                                                \
    PORT_DEFINE_MAP_BODY(name##_ref, scalar, 4, )                                                                    \
    PORT_DEFINE_MAP_BODY(name##_avx2, scalar, 8, PORT_TARGET_AVX2)                                                   \
    PORT_TARGET_AVX512 static void name##_avx512(int64_t n, const float *x, float *y)                                \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 16 <= n; i += 16) {                                                                               \
            _mm512_storeu_ps(y + i, sixteen(_mm512_loadu_ps(x + i)));                                                \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = scalar(x[i]);                                                                                     \
        }                                                                                                            \
    }
#define PORT_DEFINE_MAP2(name, scalar)                                                                               \
    PORT_DEFINE_MAP2_BODY(name##_ref, scalar, 4, )                                                                   \
    PORT_DEFINE_MAP2_BODY(name##_avx2, scalar, 8, PORT_TARGET_AVX2)                                                  \
    PORT_DEFINE_MAP2_BODY(name##_avx512, scalar, 16, PORT_TARGET_AVX512)
#define PORT_DEFINE_MAP_PQ(name, scalar)                                                                             \
    PORT_DEFINE_MAP_PQ_BODY(name##_ref, scalar, 4, )                                                                 \
    PORT_DEFINE_MAP_PQ_BODY(name##_avx2, scalar, 8, PORT_TARGET_AVX2)                                                \
    PORT_DEFINE_MAP_PQ_BODY(name##_avx512, scalar, 16, PORT_TARGET_AVX512)
/* The map for a level of port_kernel_row: 0, 1 (avx2) or 2 (avx512). */
#define PORT_PICK_MAP(name, level) ((level) > 1 ? name##_avx512 : (level) > 0 ? name##_avx2 : name##_ref)
#else
#define PORT_DEFINE_MAP(name, scalar) PORT_DEFINE_MAP_BODY(name##_ref, scalar, 4, )
#define PORT_DEFINE_MAP_OWN_16(name, scalar, sixteen) PORT_DEFINE_MAP(name, scalar)
#define PORT_DEFINE_MAP2(name, scalar) PORT_DEFINE_MAP2_BODY(name##_ref, scalar, 4, )
#define PORT_DEFINE_MAP_PQ(name, scalar) PORT_DEFINE_MAP_PQ_BODY(name##_ref, scalar, 4, )
#define PORT_PICK_MAP(name, level) ((void)(level), name##_ref)
#endif

#endif /* PORT_VECMATH_H */
