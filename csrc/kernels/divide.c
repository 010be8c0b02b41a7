/* divide.c -- remainder, fmod and the quotients that are cut off or floored: y[i] = f(a[i], b[i]), broadcast as in binary.c.
 *
 * The rest of a division of ordinary operands is exact, and so one whatever the way to it: the quotient's estimate is the true one or one more,
 * and one fma takes its product off without rounding. A block of elements one of which is not ordinary goes by fmod.h or libm. */
#include "binary.h"
#include "fmod.h"

#include <float.h>

enum { LANES = 16 };

/* ---------------------------------------------------------------- blocks of ordinary operands */

#define REST(type, suffix, least, most, bits, whole, fused, sign_of)                                                 \
    /* *odd: nothing is to be read from the result. */                                                               \
    PORT_INLINE type rest_##suffix(type u, type v, whole *odd)                                                       \
    {                                                                                                                \
        type x = (type)fabs((double)u), d = (type)fabs((double)v);                                                   \
        bool usual = (d >= least) & (d < most) & (x < d * bits);                                                     \
        type quotient = (type)(whole)pick_##suffix(usual, x / d, 0), rest = fused(-quotient, d, x);                  \
        *odd |= !usual;                                                                                              \
        return sign_of(pick_##suffix(rest < 0, rest + d, rest), u);                                                  \
    }                                                                                                                \
    PORT_INLINE type fmod_easy_##suffix(type u, type v, whole *odd)                                                  \
    {                                                                                                                \
        return rest_##suffix(u, v, odd);                                                                             \
    }                                                                                                                \
    PORT_INLINE type remainder_easy_##suffix(type u, type v, whole *odd)                                             \
    {                                                                                                                \
        type rest = rest_##suffix(u, v, odd);                                                                        \
        return pick_##suffix((rest != 0) & ((v < 0) != (rest < 0)), rest + v, rest);                                 \
    }                                                                                                                \
    PORT_INLINE type floor_divide_easy_##suffix(type u, type v, whole *odd)                                          \
    {                                                                                                                \
        type rest = rest_##suffix(u, v, odd);                                                                        \
        double part = (double)((u - rest) / v) - (double)((rest != 0) & ((v < 0) != (rest < 0)));                    \
        double nearest = rint(part), below = nearest - (double)(nearest > part);                                     \
        below += (double)(part - below > 0.5);                                                                       \
        return (type)pick_f64(part != 0.0, below, copysign(0.0, (double)(u / v)));                                   \
    }
#define pick_f32 port_select
#define pick_f64 port_select_f64
REST(float, f32, FLT_MIN, 0x1p126f, 0x1p22f, int32_t, fmaf, copysignf)
REST(double, f64, DBL_MIN, 0x1p1022, 0x1p40, int64_t, fma, copysign)

/* ---------------------------------------------------------------- single elements */

/* vector: as the reference's vector function, which differs for extreme operands; else as libm. */
#define SINGLE(type, suffix, of_library)                                                                             \
    static type fmod_one_##suffix(bool vector, type u, type v)                                                       \
    {                                                                                                                \
        return vector ? port_fmod_##suffix(u, v) : of_library(u, v);                                                 \
    }                                                                                                                \
    /* Python's modulo: the sign of the divisor. */                                                                  \
    static type remainder_one_##suffix(bool vector, type u, type v)                                                  \
    {                                                                                                                \
        type rest = fmod_one_##suffix(vector, u, v);                                                                 \
        return rest != 0 && (v < 0) != (rest < 0) ? rest + v : rest;                                                 \
    }                                                                                                                \
    /* Rounded towards minus infinity, as Python's // does it: by the exact remainder. */                            \
    static type floor_divide_one_##suffix(bool vector, type u, type v)                                               \
    {                                                                                                                \
        (void)vector;                                                                                                \
        type rest = of_library(u, v);                                                                                \
        double part = (double)((u - rest) / v);                                                                      \
        if (v == 0) {                                                                                                \
            return u / v;                                                                                            \
        }                                                                                                            \
        part -= rest != 0 && (v < 0) != (rest < 0) ? 1.0 : 0.0;                                                      \
        double whole = floor(part);                                                                                  \
        whole += part - whole > 0.5 ? 1.0 : 0.0;                                                                     \
        return (type)(part != 0.0 ? whole : copysign(0.0, (double)u / (double)v));                                   \
    }
SINGLE(float, f32, fmodf)
SINGLE(double, f64, fmod)

/* ---------------------------------------------------------------- rows of elements */

#define BUILD(name, type, suffix, whole, level, attributes)                                                          \
    attributes static void name##_##suffix##_##level(bool vector, int64_t n, const type *a, int64_t a_step, const type *b, int64_t b_step, type *y) \
    {                                                                                                                \
        type same[2][LANES], made[LANES];                                                                            \
        for (int lane = 0; lane < LANES && n > 0; lane++) {                                                          \
            same[0][lane] = a[0];                                                                                    \
            same[1][lane] = b[0];                                                                                    \
        }                                                                                                            \
        int64_t i = 0;                                                                                               \
        for (; i + LANES <= n; i += LANES) {                                                                         \
            const type *u = a_step != 0 ? a + i : same[0], *v = b_step != 0 ? b + i : same[1];                       \
            whole odd = 0;                                                                                           \
            for (int lane = 0; lane < LANES; lane++) {                                                               \
                made[lane] = name##_easy_##suffix(u[lane], v[lane], &odd);                                           \
            }                                                                                                        \
            for (int lane = 0; lane < LANES && odd != 0; lane++) {                                                   \
                made[lane] = name##_one_##suffix(vector, u[lane], v[lane]);                                          \
            }                                                                                                        \
            memcpy(y + i, made, sizeof made);                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = name##_one_##suffix(vector, a_step != 0 ? a[i] : same[0][0], b_step != 0 ? b[i] : same[1][0]);    \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define BUILDS(name, type, suffix, whole)                                                                            \
    BUILD(name, type, suffix, whole, ref, )                                                                          \
    BUILD(name, type, suffix, whole, avx2, PORT_TARGET_AVX2)                                                         \
    BUILD(name, type, suffix, whole, avx512, PORT_TARGET_AVX512)
#else
#define BUILDS(name, type, suffix, whole) BUILD(name, type, suffix, whole, ref, )
#endif
#define FLOATS(name)                                                                                                 \
    BUILDS(name, float, f32, int32_t)                                                                                \
    BUILDS(name, double, f64, int64_t)                                                                               \
    static void name##_rows_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b, \
                                int64_t b_step, float *y)                                                            \
    {                                                                                                                \
        bool vector = is_vector && context->call->profile->capability != PORT_CAP_DEFAULT;                           \
        PORT_PICK_MAP(name##_f32, port_cpu_level_found())(vector, n, a, a_step, b, b_step, y);                       \
    }                                                                                                                \
    static void name##_rows_f64(const binary_context *context, int64_t n, const double *a, const double *b, double *y) \
    {                                                                                                                \
        bool vector = context->in_vectors && context->call->profile->capability != PORT_CAP_DEFAULT;                 \
        PORT_PICK_MAP(name##_f64, port_cpu_level_found())(vector, n, a, 1, b, 1, y);                                 \
    }
FLOATS(fmod)
FLOATS(remainder)
FLOATS(floor_divide)

/* floor_divide with each step rounded to a half. */
static float
floor_divide_half(port_dtype dtype, float u, float v)
{
    float quotient = port_rounded(dtype, u / v), rest = fmodf(u, v);
    if (v == 0.0f) {
        return quotient;
    }
    float part = port_rounded(dtype, port_rounded(dtype, u - rest) / v);
    if (rest != 0.0f && (v < 0.0f) != (rest < 0.0f)) {
        part = port_rounded(dtype, part - 1.0f);
    }
    float whole = floorf(part);
    whole += port_rounded(dtype, part - whole) > 0.5f ? 1.0f : 0.0f;
    return part != 0.0f ? whole : copysignf(0.0f, quotient);
}

static void
floor_divide_any_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b, int64_t b_step,
                     float *y)
{
    port_dtype dtype = context->call->in[0]->dtype;
    if (dtype == PORT_F32) {
        floor_divide_rows_f32(context, is_vector, n, a, a_step, b, b_step, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = floor_divide_half(dtype, a[i * a_step], b[i * b_step]);
    }
}

/* The quotient of two halves is one before its fraction is cut off. */
static void
trunc_divide_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b,
                 int64_t b_step, float *y)
{
    (void)is_vector;
    port_dtype dtype = context->call->in[0]->dtype;
    for (int64_t i = 0; i < n; i++) {
        y[i] = truncf(port_rounded(dtype, a[i * a_step] / b[i * b_step]));
    }
}

PORT_BINARY_EACH(double, f64, trunc_divide, trunc(u / v))
PORT_BINARY_EACH(int64_t, i64, trunc_divide, v == -1 ? (int64_t)(0 - (uint64_t)u) : u / v)

/* ---------------------------------------------------------------- integers; the checks refuse a divisor of 0, and the least number by -1 traps */

PORT_BINARY_EACH(int64_t, i64, fmod, v == -1 ? 0 : u % v)

static void
remainder_i64(const binary_context *context, int64_t n, const int64_t *a, const int64_t *b, int64_t *y)
{
    (void)context;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = b[i] == -1 ? 0 : a[i] % b[i];
        y[i] = rest != 0 && (b[i] < 0) != (rest < 0) ? rest + b[i] : rest;
    }
}

static void
floor_divide_i64(const binary_context *context, int64_t n, const int64_t *a, const int64_t *b, int64_t *y)
{
    (void)context;
    for (int64_t i = 0; i < n; i++) {
        uint64_t quotient = b[i] == -1 ? 0 - (uint64_t)a[i] : (uint64_t)(a[i] / b[i]);
        int64_t rest = (int64_t)((uint64_t)a[i] - quotient * (uint64_t)b[i]);
        y[i] = (int64_t)(quotient - (uint64_t)(rest != 0 && (a[i] < 0) != (b[i] < 0)));
    }
}

static void
zero_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const port_view *b = ((const void **)opaque)[0];
    bool *found = ((void **)opaque)[1];
    int64_t block[PORT_BLOCK];
    for (int64_t r = 0; r < size1 && !*found; r++) {
        for (int64_t i = 0; i < size0; i += PORT_BLOCK) {
            int64_t m = size0 - i < PORT_BLOCK ? size0 - i : PORT_BLOCK;
            port_load_i64(b->dtype, data[0] + r * strides[1] + i * strides[0], strides[0], m, block);
            for (int64_t k = 0; k < m; k++) {
                *found |= block[k] == 0;
            }
        }
    }
}

/* An integer divisor of 0 has no answer, as in torch. */
static bool
zero_divisor(const port_view *b)
{
    bool found = false;
    const void *context[2] = {b, &found};
    port_iter iter = port_iter_elementwise(1, &b);
    port_iter_range(&iter, 0, port_iter_elems(&iter), zero_loop, context);
    return found;
}

static port_status
remainder_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_binary_check(call, err);
    if (status == PORT_OK && !port_dtype_is_float(call->in[1]->dtype) && zero_divisor(call->in[1])) {
        return port_fail(err, PORT_E_VALUE, "remainder: an integer divisor is 0");
    }
    return status;
}

/* ---------------------------------------------------------------- rows */

/* The reference has fmod and remainder built for avx2 alone. */
#define RUN(name, of_f32, of_f64, narrow)                                                                            \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const binary_op op = {.f32 = of_f32, .f64 = of_f64, .i64 = name##_i64, .only_avx2 = narrow};          \
        port_binary_run(call, &op, 0);                                                                               \
    }
RUN(fmod, fmod_rows_f32, fmod_rows_f64, true)
RUN(remainder, remainder_rows_f32, remainder_rows_f64, true)
RUN(floor_divide, floor_divide_any_f32, floor_divide_rows_f64, false)
RUN(trunc_divide, trunc_divide_f32, trunc_divide_f64, false)

#define ROWS(name) PORT_FLOAT_ROWS(#name, "ref", 0, remainder_check, name##_run), PORT_INT_ROWS(#name, "ref", 0, remainder_check, name##_run)

const port_kernel_row port_divide_rows[] = {
    ROWS(remainder),
    ROWS(fmod),
    ROWS(floor_divide),
    ROWS(trunc_divide),
    {.op = NULL},
};
