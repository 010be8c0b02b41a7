/* norm.c -- layer_norm and rms_norm over the last dimensions.
 *     layer_norm: y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps)
 *     rms_norm:   y = x * rsqrt(mean(x^2) + eps) * weight
 * x: (rows, cols); weight, bias: cols elements, row-major, or NULL. f32, and bf16 and f16 computed in f32; f64 in double.
 *
 * Mean and variance are PyTorch's RowwiseMoments (BSD-3-Clause; restated): Welford in 8 lanes over chunks of 16 vectors, chunks merged as a
 * binary tree, then the scalar rest, then the lanes one after the other (Chan, Golub, LeVeque 1979). With avx2 and up
 * the lanes contract a * b + c into fma. */
#include "dense.h"
#include "norm.h"
#include "sum.h"
#include "vecmath.h"

#include <math.h>

enum { LANES = 8, CHUNK_VECTORS = 16, MAX_DEPTH = 48 };

typedef struct moments {
    int64_t count;
    float mean[LANES], m2[LANES];
} moments;

PORT_INLINE float
multiply_add(bool fused, float a, float b, float c)
{
    return fused ? fmaf(a, b, c) : a * b + c;
}

/* into += add, lane by lane. Into nothing the same with the numbers that are known: half of the merges. */
PORT_INLINE void
merge_moments(bool fused, const moments *add, moments *into)
{
    int64_t count = into->count + add->count;
    if (into->count == 0 && count > 0) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            float mean = add->mean[lane];
            into->mean[lane] = mean + 0.0f; /* no -0 */
            into->m2[lane] = multiply_add(fused, mean * 0.0f, mean, add->m2[lane] + 0.0f); /* NaN where the mean is infinite */
        }
        into->count = count;
        return;
    }
    float c = count == 0 ? 0.0f : (float)add->count / (float)count;
    float before = (float)into->count;
    PORT_INDEPENDENT
    for (int lane = 0; lane < LANES; lane++) {
        float delta = add->mean[lane] - into->mean[lane];
        float step = c * delta; /* named in the reference's source, which keeps the compiler from fusing it */
        into->mean[lane] += step;
        into->m2[lane] = multiply_add(fused, delta * before, step, into->m2[lane] + add->m2[lane]);
    }
    into->count = count;
}

static const float weights[CHUNK_VECTORS] = {1.0f / 1, 1.0f / 2,  1.0f / 3,  1.0f / 4,  1.0f / 5,  1.0f / 6,  1.0f / 7,  1.0f / 8,
                                             1.0f / 9, 1.0f / 10, 1.0f / 11, 1.0f / 12, 1.0f / 13, 1.0f / 14, 1.0f / 15, 1.0f / 16};

/* Welford over `vectors` vectors from x, `step` floats apart. */
PORT_INLINE void
chunk_moments(bool fused, const float *x, int64_t step, int64_t vectors, moments *chunk)
{
    float mean[LANES] = {0.0f}, m2[LANES] = {0.0f}; /* not in *chunk, which x might alias for all the compiler knows */
    for (int64_t v = 0; v < vectors; v++, x += step) {
        float weight = weights[v];
        for (int lane = 0; lane < LANES; lane++) {
            float delta = x[lane] - mean[lane];
            mean[lane] = multiply_add(fused, delta, weight, mean[lane]);
            m2[lane] = multiply_add(fused, delta, x[lane] - mean[lane], m2[lane]);
        }
    }
    chunk->count = vectors;
    memcpy(chunk->mean, mean, sizeof(mean));
    memcpy(chunk->m2, m2, sizeof(m2));
}

/* The same for the four parts of 4 / parts whole chunks of any of the three types as they lie: each is one chain of dependent steps, and four of them
 * run side by side. */
#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 PORT_INLINE __m256
eight_of(port_dtype dtype, const char *from)
{
    if (dtype == PORT_F32) {
        return _mm256_loadu_ps((const float *)(const void *)from);
    }
    __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)from);
    return dtype == PORT_F16 ? _mm256_cvtph_ps(halves) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

PORT_TARGET_AVX2 PORT_INLINE void
four_chunks_of(port_dtype dtype, bool fused, int parts, const char *x, moments chunks[4])
{
    const int64_t vector_bytes = LANES * (dtype == PORT_F32 ? 4 : 2);
    __m256 mean[4], m2[4];
    const char *from[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        from[c] = x + (c / parts * CHUNK_VECTORS * parts + c % parts) * vector_bytes;
        mean[c] = m2[c] = _mm256_setzero_ps();
    }
    for (int v = 0; v < CHUNK_VECTORS; v++) {
        __m256 weight = _mm256_set1_ps(weights[v]);
        /* The processor itself does not see four streams of so few lines coming. Two groups on, and into the second level: the first has too few
         * lines under way to wait for memory. */
        uintptr_t ahead = (uintptr_t)x + (8 * CHUNK_VECTORS + 4 * (uintptr_t)v) * (uintptr_t)vector_bytes;
        __builtin_prefetch((const void *)ahead, 0, 2);
        __builtin_prefetch((const void *)(ahead + 64), 0, 2);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            __m256 value = eight_of(dtype, from[c] + v * parts * vector_bytes);
            __m256 delta = _mm256_sub_ps(value, mean[c]);
            __m256 step = _mm256_mul_ps(delta, weight);
            mean[c] = fused ? _mm256_fmadd_ps(delta, weight, mean[c]) : _mm256_add_ps(mean[c], step);
            __m256 rest = _mm256_sub_ps(value, mean[c]);
            m2[c] = fused ? _mm256_fmadd_ps(delta, rest, m2[c]) : _mm256_add_ps(m2[c], _mm256_mul_ps(delta, rest));
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        chunks[c].count = CHUNK_VECTORS;
        _mm256_storeu_ps(chunks[c].mean, mean[c]);
        _mm256_storeu_ps(chunks[c].m2, m2[c]);
    }
}

PORT_TARGET_AVX2 PORT_INLINE void
four_chunks_by(port_dtype dtype, bool fused, int parts, const char *x, moments chunks[4])
{
    if (dtype == PORT_BF16) {
        four_chunks_of(PORT_BF16, fused, 2, x, chunks);
    } else if (dtype == PORT_F16) {
        four_chunks_of(PORT_F16, fused, 2, x, chunks);
    } else if (parts == 2) {
        four_chunks_of(PORT_F32, fused, 2, x, chunks);
    } else {
        four_chunks_of(PORT_F32, fused, 1, x, chunks);
    }
}

PORT_TARGET_AVX2 static void
four_chunks(port_dtype dtype, bool fused, int parts, const char *x, moments chunks[4])
{
    if (fused) {
        four_chunks_by(dtype, true, parts, x, chunks);
    } else {
        four_chunks_by(dtype, false, parts, x, chunks);
    }
}
#else
#define four_chunks(dtype, fused, parts, x, chunks) (void)(x)
#endif

/* The lanes' moments of a row, merged over its chunks. Vectors of halves fill two of floats, of which each has moments of its own (parts = 2). */
PORT_INLINE void
vector_moments(bool simd, port_dtype dtype, bool fused, int parts, const char *x, int64_t vectors, moments *total)
{
    int64_t chunks = (vectors + CHUNK_VECTORS - 1) / CHUNK_VECTORS;
    int32_t depth = 1;
    while (((int64_t)1 << depth) < chunks) {
        depth++;
    }
    moments stack[MAX_DEPTH], made[4];
    const moments *chunk = made;
    int64_t ready = 0; /* chunks whose moments are known */
    for (int32_t level = 0; level < depth; level++) {
        stack[level] = (moments){.count = 0};
    }
    for (int64_t i = 0; i < chunks; i++) {
        int64_t rest = vectors - i * CHUNK_VECTORS;
        const char *from = x + i * CHUNK_VECTORS * LANES * parts * (int64_t)port_dtype_size(dtype);
        if (i == ready) {
            bool four = simd && rest >= 4 / parts * CHUNK_VECTORS;
            if (four) {
                four_chunks(dtype, fused, parts, from, made);
            } else {
                rest = rest < CHUNK_VECTORS ? rest : CHUNK_VECTORS;
                const float *wide = (const float *)(const void *)from;
                float room[2 * CHUNK_VECTORS * LANES];
                if (dtype != PORT_F32) {
                    port_load_f32(dtype, from, 2, rest * parts * LANES, room);
                    wide = room;
                }
                for (int part = 0; part < parts; part++) {
                    chunk_moments(fused, wide + part * LANES, parts * LANES, rest, &made[part]);
                }
            }
            chunk = made;
            ready += four ? 4 / parts : 1;
        }
        if (parts == 2) {
            merge_moments(fused, chunk++, &stack[0]);
        }
        merge_moments(fused, chunk++, &stack[0]);
        for (int32_t level = 1; level < depth && ((i + 1) >> (level - 1) & 1) == 0; level++) {
            merge_moments(fused, &stack[level - 1], &stack[level]);
            stack[level - 1] = (moments){.count = 0};
        }
    }
    for (int32_t level = 1; level < depth; level++) {
        merge_moments(fused, &stack[level], &stack[0]);
    }
    *total = stack[0];
}

/* One row of n elements: mean and (biased) variance. Halves may be given as they lie if there are whole vectors of them only. */
PORT_INLINE void
row_moments(bool simd, port_dtype dtype, bool fused, int parts, const char *from, int64_t n, float *mean_out, float *var_out)
{
    const float *x = (const float *)(const void *)from;
    int64_t vectors = n / (parts * LANES), count = 0;
    moments lanes;
    float mean = 0.0f, m2 = 0.0f;
    vector_moments(simd, dtype, fused, parts, from, vectors, &lanes);
    vectors *= parts;
    for (int64_t i = vectors * LANES; i < n; i++) {
        float delta = x[i] - mean;
        count++;
        mean += delta / (float)count;
        m2 += delta * (x[i] - mean);
    }
    for (int lane = 0; lane < LANES; lane++) {
        int64_t together = count + vectors;
        float c = together == 0 ? 0.0f : (float)vectors / (float)together;
        float delta = lanes.mean[lane] - mean;
        mean = multiply_add(fused, c, delta, mean);
        m2 += multiply_add(fused, delta * delta * c, (float)count, lanes.m2[lane]);
        count = together;
    }
    *mean_out = mean;
    *var_out = m2 / (float)n;
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
row_moments_avx2(bool fused, const char *x, int64_t n, float *mean, float *var)
{
    if (fused) {
        row_moments(true, PORT_F32, true, 1, x, n, mean, var);
    } else {
        row_moments(true, PORT_F32, false, 1, x, n, mean, var);
    }
}
#endif

void
port_row_moments_f32(bool fused, const float *x, int64_t n, float *mean, float *var)
{
#if PORT_HAVE_AVX2
    if (port_cpu_level_found() > 0) {
        row_moments_avx2(fused, (const char *)x, n, mean, var);
        return;
    }
#endif
    row_moments(false, PORT_F32, fused, 1, (const char *)x, n, mean, var);
}

PORT_INLINE void
row_apply(bool fused, const float *x, int64_t n, float mean, float rstd, const float *weight, const float *bias, float *y)
{
    int64_t i = 0;
    for (; i + LANES <= n && weight != NULL && bias != NULL; i += LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            y[i + lane] = multiply_add(fused, (x[i + lane] - mean) * rstd, weight[i + lane], bias[i + lane]);
        }
    }
    for (; i < n; i++) {
        float centred = x[i] - mean, b = bias != NULL ? bias[i] : 0.0f;
        y[i] = weight != NULL ? multiply_add(fused, centred * rstd, weight[i], b) : multiply_add(fused, centred, rstd, b);
    }
}

/* The same of halves: the mean is scaled rather than taken away first. */
PORT_INLINE void
row_apply_half(bool fused, const float *x, int64_t n, float mean, float rstd, const float *weight, const float *bias, float *y)
{
    float shift = -rstd * mean;
    int64_t i = 0;
    for (; i + LANES <= n && weight != NULL && bias != NULL; i += LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            y[i + lane] = multiply_add(fused, multiply_add(fused, x[i + lane], rstd, shift), weight[i + lane], bias[i + lane]);
        }
    }
    for (; i < n; i++) {
        float scaled = multiply_add(fused, x[i], rstd, shift);
        y[i] = multiply_add(fused, scaled, weight != NULL ? weight[i] : 1.0f, bias != NULL ? bias[i] : 0.0f);
    }
}

/* ---------------------------------------------------------------- two builds of the row, one answer */

PORT_INLINE float
rstd_of(float var, float eps)
{
    return 1.0f / sqrtf((var > 0.0f || var != var ? var : 0.0f) + eps);
}

typedef void (*norm_row)(bool half, const float *x, int64_t n, float eps, const float *weight, const float *bias, float *y, float *mean,
                         float *rstd);

#define LAYER_NORM_ROW(name, simd, fused, attributes)                                                                \
    attributes static void name(bool half, const float *x, int64_t n, float eps, const float *weight,                \
                                const float *bias, float *y, float *mean, float *rstd)                               \
    {                                                                                                                \
        float var;                                                                                                   \
        if (half) {                                                                                                  \
            row_moments(simd, PORT_F32, fused, 2, (const char *)x, n, mean, &var);                                   \
        } else {                                                                                                     \
            row_moments(simd, PORT_F32, fused, 1, (const char *)x, n, mean, &var);                                   \
        }                                                                                                            \
        *rstd = rstd_of(var, eps);                                                                                   \
        if (half) {                                                                                                  \
            row_apply_half(fused, x, n, *mean, *rstd, weight, bias, y);                                              \
        } else {                                                                                                     \
            row_apply(fused, x, n, *mean, *rstd, weight, bias, y);                                                   \
        }                                                                                                            \
    }
LAYER_NORM_ROW(layer_row_plain, false, false, )
LAYER_NORM_ROW(layer_row_fused, false, true, )
#if PORT_HAVE_AVX2
LAYER_NORM_ROW(layer_row_plain_avx2, true, false, PORT_TARGET_AVX2)
LAYER_NORM_ROW(layer_row_fused_avx2, true, true, PORT_TARGET_AVX2)

PORT_TARGET_AVX2 PORT_INLINE void
apply_direct(port_dtype dtype, const char *x, int64_t n, float mean, float rstd, const float *weight, const float *bias, char *y)
{
    const __m256 scale = _mm256_set1_ps(rstd), shift = _mm256_set1_ps(-rstd * mean);
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        __m256 made[2];
#pragma GCC unroll 2
        for (int part = 0; part < 2; part++) {
            int64_t at = i + part * LANES;
            __m256 scaled = _mm256_fmadd_ps(eight_of(dtype, x + 2 * at), scale, shift);
            made[part] = _mm256_fmadd_ps(scaled, _mm256_loadu_ps(weight + at), _mm256_loadu_ps(bias + at));
        }
        if (dtype == PORT_BF16) {
            bf16_of_f32_16_avx2((const char *)made, y + 2 * i);
        } else {
            PORT_STORE_256(y + 2 * i, _mm256_set_m128i(_mm256_cvtps_ph(made[1], _MM_FROUND_TO_NEAREST_INT),
                                                       _mm256_cvtps_ph(made[0], _MM_FROUND_TO_NEAREST_INT)));
        }
    }
}

/* layer_row_fused_avx2 of halves as they lie, n a multiple of 16, with weight and bias: memory is read and written while there is something to compute. */
PORT_TARGET_AVX2 static void
layer_row_direct(port_dtype dtype, const char *x, int64_t n, float eps, const float *weight, const float *bias, char *y, float *mean,
                 float *rstd)
{
    float var;
    row_moments(true, dtype, true, 2, x, n, mean, &var);
    *rstd = rstd_of(var, eps);
    if (dtype == PORT_BF16) {
        apply_direct(PORT_BF16, x, n, *mean, *rstd, weight, bias, y);
    } else {
        apply_direct(PORT_F16, x, n, *mean, *rstd, weight, bias, y);
    }
}
#else
#define layer_row_plain_avx2 layer_row_plain
#define layer_row_direct(dtype, x, n, eps, weight, bias, y, mean, rstd) (void)0
#define layer_row_fused_avx2 layer_row_fused
#endif

static void
layer_row_f64(const double *x, int64_t n, double eps, const double *weight, const double *bias, double *y, double *mean_out,
              double *rstd_out)
{
    double mean = 0.0, m2 = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double delta = x[i] - mean;
        mean += delta / (double)(i + 1);
        m2 += delta * (x[i] - mean);
    }
    double rstd = 1.0 / sqrt(m2 / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) * rstd * (weight != NULL ? weight[i] : 1.0) + (bias != NULL ? bias[i] : 0.0);
    }
    *mean_out = mean;
    *rstd_out = rstd;
}

static void
rms_row_f32(const float *x, int64_t n, float eps, const float *weight, float *squares, float *y)
{
    int64_t full = n - n % LANES;
    for (int64_t i = 0; i < full; i += LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            squares[i + lane] = x[i + lane] * x[i + lane];
        }
    }
    for (int64_t i = full; i < n; i++) {
        squares[i] = x[i] * x[i];
    }
    float mean = port_cascade_sum_f32(squares, n) / (float)n;
    float scale = 1.0f / sqrtf(mean + eps);
    for (int64_t i = 0; i < full && weight != NULL; i += LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            y[i + lane] = x[i + lane] * scale * weight[i + lane];
        }
    }
    for (int64_t i = weight != NULL ? full : 0; i < n; i++) {
        float scaled = x[i] * scale;
        y[i] = weight != NULL ? scaled * weight[i] : scaled;
    }
}

static void
rms_row_f64(const double *x, int64_t n, double eps, const double *weight, double *y)
{
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        total += x[i] * x[i];
    }
    double scale = 1.0 / sqrt(total / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * scale * (weight != NULL ? weight[i] : 1.0);
    }
}

/* ---------------------------------------------------------------- rows of any dtype */

static int64_t
cols_of(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    int32_t last = ((const port_norm_params *)call->params)->normalized_ndim;
    int64_t cols = 1;
    for (int32_t d = x->ndim - last; d < x->ndim; d++) {
        cols *= x->shape[d];
    }
    return cols;
}

enum { MAX_PARTS = 64 };

/* Rows go in parts, side by side. The scratch: cols elements of weight and bias, then for each part of x, y and squares, in the type
 * of computation. */
typedef struct norm_buffers {
    void *weight, *bias; /* NULL if there is none */
    char *rooms;
    size_t each_bytes;
    int64_t rows, cols;
    port_chunks chunks; /* of rows */
} norm_buffers;

static norm_buffers
norm_sizes(const port_kernel_call *call)
{
    norm_buffers b = {.cols = cols_of(call)};
    int32_t num_threads = call->profile->num_threads;
    b.rows = b.cols > 0 ? port_view_elems(call->in[0]) / b.cols : 0;
    b.chunks = port_chunks_by_elems(b.rows, b.cols, num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
    b.each_bytes = (size_t)b.cols * (call->in[0]->dtype == PORT_F64 ? sizeof(double) : sizeof(float)) + 64;
    return b;
}

static size_t
norm_scratch_bytes(const port_kernel_call *call)
{
    norm_buffers b = norm_sizes(call);
    return (2 + 3 * (size_t)b.chunks.count) * b.each_bytes;
}

/* n contiguous elements of `view` from element `at`, in f32 (f64 for F64); borrowed where nothing is to convert. What comes behind them is
 * fetched ahead meanwhile: the processor itself does so within a page only. */
static void *
row_of(const port_view *view, int64_t at, int64_t n, void *room)
{
    int64_t bytes = (int64_t)port_dtype_size(view->dtype);
    char *from = (char *)view->data + at * bytes;
    if (view->dtype == PORT_F32 || view->dtype == PORT_F64) {
        return from;
    }
    port_load_f32(view->dtype, from, bytes, n, room);
    for (int64_t ahead = n * bytes; ahead < 2 * n * bytes && n * bytes <= 0x4000; ahead += 64) {
        __builtin_prefetch((const void *)((uintptr_t)from + (uintptr_t)ahead));
    }
    return room;
}

static norm_buffers
norm_prepare(const port_kernel_call *call, bool has_bias)
{
    norm_buffers b = norm_sizes(call);
    char *room = call->scratch;
    b.weight = call->in[1] != NULL ? row_of(call->in[1], 0, b.cols, room) : NULL;
    b.bias = has_bias && call->in[2] != NULL ? row_of(call->in[2], 0, b.cols, room + b.each_bytes) : NULL;
    b.rooms = room + 2 * b.each_bytes;
    return b;
}

static void
store_statistic(const port_view *out, int64_t row, double value)
{
    if (out != NULL) {
        char *to = (char *)out->data + row * (int64_t)port_dtype_size(out->dtype);
        port_store_f64(out->dtype, &value, 1, to, 0);
    }
}

void
port_norm_of_nothing(const port_view *mean, const port_view *rstd)
{
    const port_view *out[2] = {mean, rstd};
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0, n = out[k] != NULL ? port_view_elems(out[k]) : 0; i < n; i++) {
            store_statistic(out[k], i, k == 0 ? 0.0 : (double)NAN);
        }
    }
}

typedef struct norm_job {
    const port_kernel_call *call;
    norm_buffers buffers;
    norm_row run;
    bool as_it_lies; /* by layer_row_direct */
} norm_job;

static void
layer_norm_one(const norm_job *job, char *room, int64_t r)
{
    const port_kernel_call *call = job->call;
    const norm_buffers *b = &job->buffers;
    const port_view *x = call->in[0], *y = call->out[0];
    double eps = ((const port_norm_params *)call->params)->eps;
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    char *to = (char *)y->data + r * b->cols * bytes;
    void *from = job->as_it_lies ? NULL : row_of(x, r * b->cols, b->cols, room);
    double mean = 0.0, rstd = 0.0;
    float narrow_mean = 0.0f, narrow_rstd = 0.0f, *made = (float *)(void *)(room + b->each_bytes);
    if (x->dtype == PORT_F64) {
        layer_row_f64(from, b->cols, eps, b->weight, b->bias, (double *)(void *)to, &mean, &rstd);
    } else if (job->as_it_lies) {
        layer_row_direct(x->dtype, (const char *)x->data + r * b->cols * bytes, b->cols, (float)eps, b->weight, b->bias, to, &narrow_mean, &narrow_rstd);
    } else if (x->dtype == PORT_F32) {
        job->run(false, from, b->cols, (float)eps, b->weight, b->bias, (float *)(void *)to, &narrow_mean, &narrow_rstd);
    } else {
        job->run(true, from, b->cols, (float)eps, b->weight, b->bias, made, &narrow_mean, &narrow_rstd);
        port_store_f32(y->dtype, made, b->cols, to, bytes);
    }
    if (x->dtype != PORT_F64) {
        mean = (double)narrow_mean, rstd = (double)narrow_rstd;
    }
    store_statistic(call->num_out > 1 ? call->out[1] : NULL, r, mean);
    store_statistic(call->num_out > 2 ? call->out[2] : NULL, r, rstd);
}

static void
layer_norm_part(void *opaque, int64_t part)
{
    const norm_job *job = opaque;
    const norm_buffers *b = &job->buffers;
    char *room = b->rooms + (size_t)part * 3 * b->each_bytes;
    int64_t begin = part * b->chunks.size, end = begin + b->chunks.size;
    for (int64_t r = begin; r < end && r < b->rows; r++) {
        layer_norm_one(job, room, r);
    }
}

static void
layer_norm_any(const port_kernel_call *call, bool simd)
{
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    norm_job job = {.call = call, .buffers = norm_prepare(call, true)};
    bool half = call->in[0]->dtype == PORT_BF16 || call->in[0]->dtype == PORT_F16;
    job.as_it_lies = simd && fused && half && job.buffers.weight != NULL && job.buffers.bias != NULL && job.buffers.cols % (2 * LANES) == 0;
    job.run = simd ? (fused ? layer_row_fused_avx2 : layer_row_plain_avx2) : (fused ? layer_row_fused : layer_row_plain);
    port_parallel(job.buffers.rows > 0 ? job.buffers.chunks.count : 0, call->profile->num_threads, layer_norm_part, &job);
    if (job.buffers.rows == 0) {
        port_norm_of_nothing(call->num_out > 1 ? call->out[1] : NULL, call->num_out > 2 ? call->out[2] : NULL);
    }
}

static void
layer_norm_run(const port_kernel_call *call)
{
    layer_norm_any(call, false);
}

#if PORT_HAVE_AVX2
static void
layer_norm_run_avx2(const port_kernel_call *call)
{
    layer_norm_any(call, true);
}
#endif

static void
rms_norm_part(void *opaque, int64_t part)
{
    const norm_job *job = opaque;
    const port_kernel_call *call = job->call;
    const norm_buffers *b = &job->buffers;
    const port_norm_params *params = call->params;
    const port_view *x = call->in[0], *y = call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    bool direct = x->dtype == PORT_F32;
    char *room = b->rooms + (size_t)part * 3 * b->each_bytes;
    float *made = (float *)(void *)(room + b->each_bytes), *squares = (float *)(void *)(room + 2 * b->each_bytes);
    int64_t begin = part * b->chunks.size, end = begin + b->chunks.size;
    for (int64_t r = begin; r < end && r < b->rows; r++) {
        char *to = (char *)y->data + r * b->cols * bytes;
        void *from = row_of(x, r * b->cols, b->cols, room);
        if (x->dtype == PORT_F64) {
            rms_row_f64(from, b->cols, params->eps, b->weight, (double *)(void *)to);
            continue;
        }
        rms_row_f32(from, b->cols, (float)params->eps, b->weight, squares, direct ? (float *)(void *)to : made);
        if (!direct) {
            port_store_f32(y->dtype, made, b->cols, to, bytes);
        }
    }
}

static void
rms_norm_run(const port_kernel_call *call)
{
    norm_job job = {.call = call, .buffers = norm_prepare(call, false)};
    port_parallel(job.buffers.rows > 0 ? job.buffers.chunks.count : 0, call->profile->num_threads, rms_norm_part, &job);
}

/* ---------------------------------------------------------------- checks and rows */

static port_status
norm_check_operand(const port_kernel_call *call, int32_t k, const char *what, port_error *err)
{
    const port_view *view = k < call->num_in ? call->in[k] : NULL;
    if (view == NULL) {
        return PORT_OK;
    }
    port_dtype x = call->in[0]->dtype;
    if (view->dtype != x && !(view->dtype == PORT_F32 && (x == PORT_BF16 || x == PORT_F16))) {
        return port_fail(err, PORT_E_DTYPE, "norm: the %s is %s, x is %s", what, port_dtype_name(view->dtype),
                         port_dtype_name(call->in[0]->dtype));
    }
    if (port_view_elems(view) != cols_of(call) || !port_view_is_contiguous(view)) {
        return port_fail(err, PORT_E_SHAPE, "norm: the %s has %lld elements, expected %lld, row-major", what,
                         (long long)port_view_elems(view), (long long)cols_of(call));
    }
    return PORT_OK;
}

static port_status
norm_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("norm", call, 1, err);
    if (status != PORT_OK) {
        return status;
    }
    const port_norm_params *params = call->params;
    const port_view *x = call->in[0], *y = call->out[0];
    if (params == NULL || params->normalized_ndim < 1 || params->normalized_ndim > x->ndim) {
        return port_fail(err, PORT_E_VALUE, "norm: %d normalized dimensions of %d",
                         params == NULL ? 0 : params->normalized_ndim, x->ndim);
    }
    if (x->dtype != y->dtype || !port_view_is_contiguous(x) || !port_view_is_contiguous(y)) {
        return port_fail(err, PORT_E_SHAPE, "norm: expected x and y row-major and of one dtype");
    }
    status = norm_check_operand(call, 1, "weight", err);
    return status != PORT_OK ? status : norm_check_operand(call, 2, "bias", err);
}

#define NORM_ROW(name, type, variant_name, level, runner)                                                            \
    {.op = name, .dtype = type, .variant = variant_name, .cpu_level = level, .check = norm_check,                    \
     .scratch_bytes = norm_scratch_bytes, .run = runner}
#define NORM_ROWS(name, runner)                                                                                      \
    NORM_ROW(name, PORT_F32, "ref", 0, runner), NORM_ROW(name, PORT_F64, "ref", 0, runner),                          \
        NORM_ROW(name, PORT_BF16, "ref", 0, runner), NORM_ROW(name, PORT_F16, "ref", 0, runner)

const port_kernel_row port_norm_rows[] = {
    NORM_ROWS("layer_norm", layer_norm_run),
    NORM_ROWS("rms_norm", rms_norm_run),
#if PORT_HAVE_AVX2
    NORM_ROW("layer_norm", PORT_F32, "avx2", 1, layer_norm_run_avx2),
    NORM_ROW("layer_norm", PORT_BF16, "avx2", 1, layer_norm_run_avx2),
    NORM_ROW("layer_norm", PORT_F16, "avx2", 1, layer_norm_run_avx2),
#endif
    {.op = NULL},
};
