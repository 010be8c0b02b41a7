/* rsqrt_variants.c -- rsqrt as others compute it: variants of the op rsqrt that are never chosen by themselves, to tell how far a port that
 * uses them goes (bench/rsqrt.py). F32 only. */
#include "unary.h"

#include <math.h>

#define OF_F32(name)                                                                                                 \
    PORT_DEFINE_MAP(name##_map, name##_of)                                                                           \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        (void)is_vector;                                                                                             \
        PORT_PICK_MAP(name##_map, context->level)(n, x, y);                                                          \
    }                                                                                                                \
    PORT_UNARY_RUN(name, name##_f32, NULL, NULL)

/* 1 / sqrt(x) rounded once: the double is right but where it lies next to the middle of two floats, and there the sign of
 * middle^2 * x - 1, which one fma gives exactly, decides. */
PORT_INLINE float
rsqrt_correct_of(float v)
{
    float r = (float)(1.0 / sqrt((double)v));
    if (!(v > 0.0f) || v == INFINITY) {
        return r;
    }
    float above = nextafterf(r, INFINITY), below = nextafterf(r, 0.0f);
    double upper = ((double)r + (double)above) / 2, lower = ((double)r + (double)below) / 2;
    if (fma(upper * upper, (double)v, -1.0) < 0.0) {
        return above;
    }
    return fma(lower * lower, (double)v, -1.0) > 0.0 ? below : r;
}

OF_F32(rsqrt_correct)

#if PORT_HAVE_AVX2
/* The CPU's approximation, relative error up to 1.5 * 2^-12; its bits differ between makers of CPUs. */
PORT_INLINE float
rsqrt_rsqrtss_of(float v)
{
    return _mm_cvtss_f32(_mm_rsqrt_ss(_mm_set_ss(v)));
}

/* y (1.5 - 0.5 x y^2), each operation rounded; 0 gives NaN, as where it is written so. */
PORT_INLINE float
newton_step(float x, float y)
{
    return y * (1.5f - 0.5f * x * y * y);
}

PORT_INLINE float
rsqrt_newton1_of(float v)
{
    return newton_step(v, rsqrt_rsqrtss_of(v));
}

PORT_INLINE float
rsqrt_newton2_of(float v)
{
    return newton_step(v, rsqrt_newton1_of(v));
}

OF_F32(rsqrt_rsqrtss)
OF_F32(rsqrt_newton1)
OF_F32(rsqrt_newton2)
#endif

const port_kernel_row port_rsqrt_rows[] = {
    PORT_ROW("rsqrt", PORT_F32, "correct", 0, port_unary_check, rsqrt_correct_run),
#if PORT_HAVE_AVX2
    PORT_ROW("rsqrt", PORT_F32, "rsqrtss", 0, port_unary_check, rsqrt_rsqrtss_run),
    PORT_ROW("rsqrt", PORT_F32, "newton1", 0, port_unary_check, rsqrt_newton1_run),
    PORT_ROW("rsqrt", PORT_F32, "newton2", 0, port_unary_check, rsqrt_newton2_run),
#endif
    {.op = NULL},
};
