/* frames.c -- what pooling and interpolation share: shapes of (N, C, ...), and elements of a row by a table of their places. */
#include "frames.h"

port_frames
port_frames_of(const port_view *x, const port_view *y)
{
    port_frames f = {.spatial = x->ndim - 2, .N = x->shape[0], .C = x->shape[1]};
    for (int32_t d = 0; d < 3; d++) {
        int32_t from = d - (3 - f.spatial);
        f.in[d] = from < 0 ? 1 : x->shape[2 + from];
        f.out[d] = from < 0 ? 1 : y->shape[2 + from];
        f.in_step[d] = from < 0 ? 0 : x->strides[2 + from];
        f.out_step[d] = from < 0 ? 0 : y->strides[2 + from];
    }
    return f;
}

port_status
port_frames_check(const char *op, const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *y = call->out[0];
    if (call->params == NULL || x->ndim < 3 || x->ndim > 5 || y->ndim != x->ndim || x->shape[0] != y->shape[0] ||
        x->shape[1] != y->shape[1] || x->dtype != y->dtype) {
        return port_fail(err, PORT_E_SHAPE, "%s: expected (N, C, ...) of 3 to 5 dimensions and one dtype, got %d and out %d", op,
                         x->ndim, y->ndim);
    }
    for (int32_t d = 2; d < x->ndim; d++) {
        if (x->shape[d] < 1) {
            return port_fail(err, PORT_E_SHAPE, "%s: dimension %d is empty", op, d);
        }
        if (x->shape[d] > INT32_MAX || y->shape[d] > INT32_MAX) {
            return port_fail(err, PORT_E_SHAPE, "%s: dimension %d has more than 2^31 - 1 places", op, d);
        }
    }
    return PORT_OK;
}

bool
port_frames_channels_last(const port_kernel_call *call)
{
    bool together = call->in[0]->shape[1] > 1 && call->in[0]->strides[1] == 1;
    for (int32_t k = 0; k < call->num_out; k++) {
        together = together && (call->out[k] == NULL || call->out[k]->strides[1] == 1);
    }
    return together;
}

/* ---------------------------------------------------------------- elements by a table of places */

#define PICK(real)                                                                               \
    static void pick_##real##_ref(int64_t n, const void *row, int64_t step, const int32_t *at, void *y) \
    {                                                                                            \
        const real *from = row;                                                                  \
        real *to = y;                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                        \
            to[i] = from[at[i] * step];                                                          \
        }                                                                                        \
    }
PICK(float)
PICK(double)

#if PORT_HAVE_AVX2
/* The lowest `count` lanes. */
PORT_INLINE uint32_t
low_lanes(int64_t count)
{
    return (uint32_t)(((uint64_t)1 << count) - 1);
}

/* Where the places of a vector lie close together, one or two loads and a permutation; nothing beyond the last is read. */
PORT_TARGET_AVX512 static void
pick_float_avx512(int64_t n, const void *row, int64_t step, const int32_t *at, void *y)
{
    const float *from = row;
    float *to = y;
    for (int64_t i = 0; i < n; i += 16) {
        int64_t lanes = n - i < 16 ? n - i : 16, low = at[i], span = at[i + lanes - 1] - low + 1;
        __mmask16 kept = (__mmask16)low_lanes(lanes);
        __m512i places = _mm512_maskz_loadu_epi32(kept, at + i), near = _mm512_sub_epi32(places, _mm512_set1_epi32((int32_t)low));
        __m512 v;
        if (step != 1 || span > 32) {
            for (int64_t lane = 0; lane < lanes; lane++) {
                to[i + lane] = from[at[i + lane] * step];
            }
            continue;
        }
        if (span <= 16) {
            v = _mm512_permutexvar_ps(near, _mm512_maskz_loadu_ps((__mmask16)low_lanes(span), from + low));
        } else {
            __m512 above = _mm512_maskz_loadu_ps((__mmask16)low_lanes(span - 16), from + low + 16);
            v = _mm512_permutex2var_ps(_mm512_loadu_ps(from + low), near, above);
        }
        _mm512_mask_storeu_ps(to + i, kept, v);
    }
}

PORT_TARGET_AVX2 static void
pick_float_avx2(int64_t n, const void *row, int64_t step, const int32_t *at, void *y)
{
    const float *from = row;
    float *to = y;
    const __m256i ordinals = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int64_t i = 0;
    for (; i + 8 <= n && step == 1; i += 8) {
        int32_t low = at[i], span = at[i + 7] - low + 1;
        __m256i places = _mm256_loadu_si256((const __m256i *)(const void *)(at + i));
        __m256 v;
        if (span <= 8) {
            __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(span), ordinals);
            v = _mm256_permutevar8x32_ps(_mm256_maskload_ps(from + low, inside), _mm256_sub_epi32(places, _mm256_set1_epi32(low)));
        } else {
            v = _mm256_i32gather_ps(from, places, 4);
        }
        _mm256_storeu_ps(to + i, v);
    }
    pick_float_ref(n - i, row, step, at + i, to + i);
}
#endif

port_pick
port_pick_for(bool narrow)
{
#if PORT_HAVE_AVX2
    if (narrow) {
        return PORT_PICK_MAP(pick_float, port_cpu_level_found());
    }
#endif
    return narrow ? pick_float_ref : pick_double_ref;
}

void
port_spread(bool narrow, int64_t n, const void *x, void *y, int64_t step)
{
    if (step == 1) {
        memcpy(y, x, (size_t)n * (narrow ? sizeof(float) : sizeof(double)));
        return;
    }
    for (int64_t i = 0; i < n && narrow; i++) {
        ((float *)y)[i * step] = ((const float *)x)[i];
    }
    for (int64_t i = 0; i < n && !narrow; i++) {
        ((double *)y)[i * step] = ((const double *)x)[i];
    }
}
