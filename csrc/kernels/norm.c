/* norm.c -- layer_norm and rms_norm over the last dimensions.
 *     layer_norm: y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps)
 *     rms_norm:   y = x * rsqrt(mean(x^2) + eps) * weight
 * x: (rows, cols); weight, bias: cols elements, row-major, or NULL. f32, and bf16 and f16 computed in f32; f64 in double.
 *
 * Mean and variance are those of moments.h, in 8 lanes of floats and 4 of doubles. */
#include "dense.h"
#include "norm.h"
#include "sum.h"
#include "vecmath.h"

#include <math.h>

#define MOMENTS_REAL float
#define MOMENTS(name) name##_f32
#define MOMENTS_FMA fmaf
#define MOMENTS_LANES 8 /* with avx512 too */
#include "moments.h"
#define MOMENTS_REAL double
#define MOMENTS(name) name##_f64
#define MOMENTS_FMA fma
#define MOMENTS_LANES 4
#include "moments.h"

enum { LANES = LANES_f32, CHUNK_VECTORS = CHUNK_VECTORS_f32 };

/* chunk_moments for the four parts of 4 / parts whole chunks of any of the three types as they lie: each is one chain of dependent steps, and four of them
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
four_chunks_of(port_dtype dtype, bool fused, int parts, const char *x, moments_f32 chunks[4])
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
        __m256 weight = _mm256_set1_ps(weights_f32[v]);
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
four_chunks_by(port_dtype dtype, bool fused, int parts, const char *x, moments_f32 chunks[4])
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
four_chunks(port_dtype dtype, bool fused, int parts, const char *x, moments_f32 chunks[4])
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

/* Takes the chunks of a row into the tree. Vectors of halves fill two of floats, of which each has moments of its own (parts = 2). */
PORT_INLINE void
take_chunks(bool simd, port_dtype dtype, bool fused, int parts, const char *x, int64_t vectors, int32_t depth, moments_f32 *tree)
{
    moments_f32 made[4];
    const moments_f32 *chunk = made;
    int64_t ready = 0; /* chunks whose moments are known */
    for (int64_t i = 0; i * CHUNK_VECTORS < vectors; i++) {
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
                    chunk_moments_f32(fused, wide + part * LANES, parts * LANES, rest, &made[part]);
                }
            }
            chunk = made;
            ready += four ? 4 / parts : 1;
        }
        if (parts == 2) {
            merge_moments_f32(fused, chunk++, &tree[0]);
        }
        merge_moments_f32(fused, chunk++, &tree[0]);
        tree_carry_f32(fused, i, depth, tree);
    }
}

/* One row of n elements: mean and (biased) variance. Halves may be given as they lie if there are whole vectors of them only. */
PORT_INLINE void
row_moments(bool simd, port_dtype dtype, bool fused, bool fused_rest, int parts, const char *x, int64_t n, float *mean, float *var)
{
    int64_t vectors = n / (parts * LANES);
    moments_f32 tree[MAX_DEPTH_f32];
    int32_t depth = tree_begin_f32((vectors + CHUNK_VECTORS - 1) / CHUNK_VECTORS, tree);
    take_chunks(simd, dtype, fused, parts, x, vectors, depth, tree);
    vectors *= parts;
    tree_end_f32(fused, fused_rest, depth, tree, vectors, (const float *)(const void *)x, vectors * LANES, n, mean, var);
}

PORT_INLINE void
row_moments_f64(bool fused, const double *x, int64_t n, double *mean, double *var)
{
    int64_t vectors = n / LANES_f64, chunks = (vectors + CHUNK_VECTORS - 1) / CHUNK_VECTORS;
    moments_f64 tree[MAX_DEPTH_f64], chunk;
    int32_t depth = tree_begin_f64(chunks, tree);
    for (int64_t i = 0; i < chunks; i++) {
        int64_t rest = vectors - i * CHUNK_VECTORS;
        chunk_moments_f64(fused, x + i * CHUNK_VECTORS * LANES_f64, LANES_f64, rest < CHUNK_VECTORS ? rest : CHUNK_VECTORS, &chunk);
        merge_moments_f64(fused, &chunk, &tree[0]);
        tree_carry_f64(fused, i, depth, tree);
    }
    tree_end_f64(fused, false, depth, tree, vectors, x, vectors * LANES_f64, n, mean, var);
}

/* The same of floats that may have been widened from `given`: for halves in the order of halves, and of F16 the rest is fused too. */
PORT_INLINE void
row_moments_by(bool simd, bool fused, port_dtype given, const char *x, int64_t n, float *mean, float *var)
{
    if (given == PORT_F32) {
        row_moments(simd, PORT_F32, fused, false, 1, x, n, mean, var);
    } else {
        row_moments(simd, PORT_F32, fused, fused && given == PORT_F16, 2, x, n, mean, var);
    }
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
row_moments_avx2(bool fused, port_dtype given, const char *x, int64_t n, float *mean, float *var)
{
    if (fused) {
        row_moments_by(true, true, given, x, n, mean, var);
    } else {
        row_moments_by(true, false, given, x, n, mean, var);
    }
}
#endif

void
port_row_moments_f32(bool fused, port_dtype given, const float *x, int64_t n, float *mean, float *var)
{
#if PORT_HAVE_AVX2
    if (port_cpu_level_found() > 0) {
        row_moments_avx2(fused, given, (const char *)x, n, mean, var);
        return;
    }
#endif
    row_moments_by(false, fused, given, (const char *)x, n, mean, var);
}

/* row_apply of halves: the mean is scaled rather than taken away first. */
PORT_INLINE void
row_apply_half(bool fused, const float *x, int64_t n, float mean, float rstd, const float *weight, const float *bias, float *y)
{
    float shift = -rstd * mean;
    int64_t i = 0;
    for (; i + LANES <= n && weight != NULL && bias != NULL; i += LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES; lane++) {
            y[i + lane] = multiply_add_f32(fused, multiply_add_f32(fused, x[i + lane], rstd, shift), weight[i + lane], bias[i + lane]);
        }
    }
    for (; i < n; i++) {
        float scaled = multiply_add_f32(fused, x[i], rstd, shift);
        y[i] = multiply_add_f32(fused, scaled, weight != NULL ? weight[i] : 1.0f, bias != NULL ? bias[i] : 0.0f);
    }
}

/* ---------------------------------------------------------------- two builds of the row, one answer */

PORT_INLINE float
rstd_of(float var, float eps)
{
    return 1.0f / sqrtf((var > 0.0f || var != var ? var : 0.0f) + eps);
}

typedef void (*norm_row)(port_dtype given, const float *x, int64_t n, float eps, const float *weight, const float *bias, float *y, float *mean,
                         float *rstd);

#define LAYER_NORM_ROW(name, simd, fused, attributes)                                                                \
    attributes static void name(port_dtype given, const float *x, int64_t n, float eps, const float *weight,                \
                                const float *bias, float *y, float *mean, float *rstd)                               \
    {                                                                                                                \
        float var;                                                                                                   \
        row_moments_by(simd, fused, given, (const char *)x, n, mean, &var);                                          \
        *rstd = rstd_of(var, eps);                                                                                   \
        if (given != PORT_F32) {                                                                                     \
            row_apply_half(fused, x, n, *mean, *rstd, weight, bias, y);                                              \
        } else {                                                                                                     \
            row_apply_f32(fused, x, n, *mean, *rstd, weight, bias, y);                                                   \
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
    row_moments(true, dtype, true, true, 2, x, n, mean, &var);
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

/* A row of doubles. */
#define ROW_F64(name, fused, attributes)                                                                             \
    attributes static void name(const double *x, int64_t n, double eps, const double *weight, const double *bias, double *y, double *mean, \
                                double *rstd)                                                                        \
    {                                                                                                                \
        double var;                                                                                                  \
        row_moments_f64(fused, x, n, mean, &var);                                                                    \
        *rstd = 1.0 / sqrt((var > 0.0 || var != var ? var : 0.0) + eps);                                             \
        if (y != NULL) {                                                                                             \
            row_apply_f64(fused, x, n, *mean, *rstd, weight, bias, y);                                               \
        }                                                                                                            \
    }
ROW_F64(row_plain_f64, false, )
ROW_F64(row_fused_f64, true, )
#if PORT_HAVE_AVX2
ROW_F64(row_fused_f64_avx2, true, PORT_TARGET_AVX2)
#else
#define row_fused_f64_avx2 row_fused_f64
#endif

void
port_row_norm_f64(bool fused, const double *x, int64_t n, double eps, const double *weight, const double *bias, double *y, double *mean,
                  double *rstd)
{
    (!fused ? row_plain_f64 : (port_cpu_level_found() > 0 ? row_fused_f64_avx2 : row_fused_f64))(x, n, eps, weight, bias, y, mean, rstd);
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
rms_row_f64(const double *x, int64_t n, double eps, const double *weight, double *squares, double *y)
{
    for (int64_t i = 0; i < n; i++) {
        squares[i] = x[i] * x[i];
    }
    double scale = 1.0 / sqrt(port_cascade_sum_f64(squares, n) / (double)n + eps);
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
        port_row_norm_f64(call->profile->capability != PORT_CAP_DEFAULT, from, b->cols, eps, b->weight, b->bias, (double *)(void *)to, &mean, &rstd);
    } else if (job->as_it_lies) {
        layer_row_direct(x->dtype, (const char *)x->data + r * b->cols * bytes, b->cols, (float)eps, b->weight, b->bias, to, &narrow_mean, &narrow_rstd);
    } else if (x->dtype == PORT_F32) {
        job->run(PORT_F32, from, b->cols, (float)eps, b->weight, b->bias, (float *)(void *)to, &narrow_mean, &narrow_rstd);
    } else {
        job->run(x->dtype, from, b->cols, (float)eps, b->weight, b->bias, made, &narrow_mean, &narrow_rstd);
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
            rms_row_f64(from, b->cols, params->eps, b->weight, (double *)(void *)squares, (double *)(void *)to);
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
