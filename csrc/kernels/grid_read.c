/* grid_read.c -- images read between their pixels, at many places at a time. See grid_read.h.
 * Source: at::native GridSamplerKernel.cpp (BSD-3-Clause; restated). */
#include "grid_read.h"

/* a * b + c */
PORT_INLINE float
times_plus(bool fused, float a, float b, float c)
{
    return fused ? fmaf(a, b, c) : a * b + c;
}

PORT_INLINE float
pixel_of(const port_grid_taps *t, bool all_inside, int32_t tap, int64_t i, const float *x)
{
    float v = x[t->at[tap][i]];
    return all_inside ? v : port_f32_of_bits(port_f32_bits(v) & t->inside[tap][i]);
}

PORT_INLINE float
of_four(const port_grid_taps *t, bool all_inside, bool fused, int64_t i, const float *x)
{
    float sum = pixel_of(t, all_inside, 0, i, x) * t->weight[0][i];
    sum = times_plus(fused, pixel_of(t, all_inside, 1, i, x), t->weight[1][i], sum);
    sum = times_plus(fused, pixel_of(t, all_inside, 2, i, x), t->weight[2][i], sum);
    return times_plus(fused, pixel_of(t, all_inside, 3, i, x), t->weight[3][i], sum);
}

/* One row of four pixels: of the products only the first is fused. */
PORT_INLINE float
of_row(const port_grid_taps *t, bool all_inside, bool fused, int32_t row, int64_t i, const float *x)
{
    int32_t first = 4 * row;
    float sum = pixel_of(t, all_inside, first + 1, i, x) * t->weight[first + 1][i];
    sum = times_plus(fused, pixel_of(t, all_inside, first, i, x), t->weight[first][i], sum);
    sum = sum + pixel_of(t, all_inside, first + 2, i, x) * t->weight[first + 2][i];
    return sum + pixel_of(t, all_inside, first + 3, i, x) * t->weight[first + 3][i];
}

PORT_INLINE float
of_sixteen(const port_grid_taps *t, bool all_inside, bool fused, int64_t i, const float *x)
{
    float sum = of_row(t, all_inside, fused, 0, i, x) * t->row_weight[0][i];
    sum = times_plus(fused, of_row(t, all_inside, fused, 1, i, x), t->row_weight[1][i], sum);
    sum = times_plus(fused, of_row(t, all_inside, fused, 2, i, x), t->row_weight[2][i], sum);
    return times_plus(fused, of_row(t, all_inside, fused, 3, i, x), t->row_weight[3][i], sum);
}

/* Whole vectors; what is made of places that there are not is left out at the end. */
#define READ(suffix, lanes, attributes)                                                                                 \
    attributes PORT_INLINE void read_by_##suffix(const port_grid_taps *t, int32_t count, bool all_inside, bool fused,   \
                                                 int64_t n, const float *x, float *y)                                   \
    {                                                                                                                   \
        for (int64_t i = 0; i < n; i += (lanes)) {                                                                      \
            PORT_INDEPENDENT                                                                                            \
            for (int lane = 0; lane < (lanes); lane++) {                                                                \
                y[i + lane] = count == 1   ? pixel_of(t, all_inside, 0, i + lane, x)                                    \
                              : count == 4 ? of_four(t, all_inside, fused, i + lane, x)                                 \
                                           : of_sixteen(t, all_inside, fused, i + lane, x);                             \
            }                                                                                                           \
        }                                                                                                               \
    }                                                                                                                   \
    attributes PORT_INLINE void read_count_##suffix(const port_grid_taps *t, int32_t count, bool fused, int64_t n,      \
                                                    const float *x, float *y)                                           \
    {                                                                                                                   \
        if (t->all_inside && fused) {                                                                                   \
            read_by_##suffix(t, count, true, true, n, x, y);                                                            \
        } else if (fused) {                                                                                             \
            read_by_##suffix(t, count, false, true, n, x, y);                                                           \
        } else {                                                                                                        \
            read_by_##suffix(t, count, false, false, n, x, y);                                                          \
        }                                                                                                               \
    }                                                                                                                   \
    attributes static void read_##suffix(const port_grid_taps *t, bool fused, int64_t n, const float *x, float *y)      \
    {                                                                                                                   \
        if (t->count == 1) {                                                                                            \
            read_count_##suffix(t, 1, true, n, x, y);                                                                   \
        } else if (t->count == 4) {                                                                                     \
            read_count_##suffix(t, 4, fused, n, x, y);                                                                  \
        } else {                                                                                                        \
            read_count_##suffix(t, 16, fused, n, x, y);                                                                 \
        }                                                                                                               \
    }
READ(ref, 4, )
#if PORT_HAVE_AVX2
READ(avx2, 8, PORT_TARGET_AVX2)
READ(avx512, 16, PORT_TARGET_AVX512)
#endif

void
port_grid_read(const port_grid_taps *taps, bool fused, int64_t n, const float *x, float *y)
{
    float made[PORT_GRID_PLACES];
    PORT_PICK_MAP(read, port_cpu_level_found())(taps, fused, n, x, made);
    memcpy(y, made, (size_t)n * sizeof *y);
}
