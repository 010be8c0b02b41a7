/* attention.c -- scaled dot-product attention in blocks, as aten::_scaled_dot_product_flash_attention_for_cpu.
 *     y[b,h,t,:] = sum_s p[t,s] v[b,g,s,:] / sum_s p[t,s],   p[t,s] = exp(scale * q[t,:].k[s,:] + mask[t,s] - max_t)
 *     lse[b,h,t] = max_t + log(sum_s p[t,s])
 * q (B, H, T, D); k, v (B, G, S, D), head h of q uses h / (H / G); mask broadcast to (B, H, T, S): F32 or the dtype of q is
 * added, BOOL keeps where true; causal: key s is seen by query t if s <= t. A row that sees no key gives y = 0, lse = 0.
 *
 * Queries go in blocks of 32, 64 or 256, keys in blocks of 512 with a running maximum and sum; what was summed before
 * is scaled by exp(old maximum - new one). Sums run in the vector lanes of the reference's capability, so the bits depend on
 * it: 8 lanes and libm's expf for default, 8 or 16 lanes and a polynomial exp for avx2 and avx512. Keys that do not fill
 * the lanes take exp in double. NaN in a score follows the same instructions: a maximum may miss it, as it does in ATen.
 * Source: T. Dao et al., FlashAttention (2022); at::native cpu_flash_attention of PyTorch 2 (order of operations and the
 * constants of exp_u20).
 */
#include "dense.h"
#include "matmul.h"

#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define KEY_BLOCK 512

typedef enum way { WAY_BLAS, WAY_CHAIN, WAY_REF } way;

/* One call, taken apart. */
typedef struct task {
    const port_kernel_call *call;
    const port_view *q, *k, *v, *mask, *y, *lse;
    int64_t B, H, G, T, S, D;
    int64_t query_block, key_block;
    float scale;
    bool is_causal;
    int lanes;  /* of the reference's vectors */
    bool fused; /* its compiler fused multiply and add */
    way how;
    float *scores, *max, *sum, *acc, *mask_row; /* scratch */
    void *product_scratch;
} task;

/* ------------------------------------------------------------------ check, scratch */

port_status
port_sdpa_check(const port_kernel_call *call, port_error *err)
{
    const port_view *q = call->in[0], *k = call->in[1], *v = call->in[2], *mask = call->in[3], *y = call->out[0];
    const port_view *lse = call->num_out > 1 ? call->out[1] : NULL;
    if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4 || y->ndim != 4) {
        return port_fail(err, PORT_E_SHAPE, "attention: query, key and value must have 4 dimensions, got %d, %d and %d",
                         (int)q->ndim, (int)k->ndim, (int)v->ndim);
    }
    if (k->shape[0] != q->shape[0] || v->shape[0] != q->shape[0] || k->shape[1] != v->shape[1] ||
        k->shape[2] != v->shape[2] || k->shape[3] != q->shape[3] || v->shape[3] != q->shape[3]) {
        return port_fail(err, PORT_E_SHAPE, "attention: query, key and value must agree in batch and head size, and key and "
                         "value in heads and length");
    }
    if (k->shape[1] == 0 ? q->shape[1] != 0 : q->shape[1] % k->shape[1] != 0) {
        return port_fail(err, PORT_E_SHAPE, "attention: %lld query heads are no multiple of %lld key heads",
                         (long long)q->shape[1], (long long)k->shape[1]);
    }
    bool fits = true;
    for (int32_t d = 0; d < 4; d++) {
        fits = fits && y->shape[d] == q->shape[d];
        fits = fits && (mask == NULL || (mask->ndim == 4 && mask->shape[d] == (d < 3 ? q->shape[d] : k->shape[2])));
        fits = fits && (lse == NULL || d == 3 || (lse->ndim == 3 && lse->shape[d] == q->shape[d]));
    }
    if (!fits) {
        return port_fail(err, PORT_E_SHAPE, "attention: mask (broadcast), out or log-sum-exp do not have the query's shape");
    }
    if (k->dtype != q->dtype || v->dtype != q->dtype || y->dtype != q->dtype ||
        (lse != NULL && lse->dtype != PORT_F32 && !(lse->dtype == PORT_F64 && q->dtype == PORT_F64))) {
        return port_fail(err, PORT_E_DTYPE, "attention: query, key, value and out must have one dtype, got %s, %s and %s; "
                         "log-sum-exp is F32 (F64 with an F64 query, too)", port_dtype_name(q->dtype), port_dtype_name(k->dtype),
                         port_dtype_name(v->dtype));
    }
    if (mask != NULL && mask->dtype != q->dtype && mask->dtype != PORT_F32 && mask->dtype != PORT_BOOL) {
        return port_fail(err, PORT_E_DTYPE, "attention: a mask is BOOL, F32 or of the query's dtype %s, got %s",
                         port_dtype_name(q->dtype), port_dtype_name(mask->dtype));
    }
    return PORT_OK;
}

static int64_t
min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t
query_block_of(int64_t T)
{
    return min_i64(T >= 768 ? 256 : T >= 192 ? 64 : 32, T);
}

#define LINE_ELEMS 16 /* f32 in 64 bytes */

static size_t
round_up(size_t elems)
{
    return (elems + LINE_ELEMS - 1) / LINE_ELEMS * LINE_ELEMS;
}

/* The reference gives each of its threads this much of one buffer: scores, maxima, sums, accumulator, without gaps. A BLAS
 * may sum by the alignment of its operands, so ours lie at the same offset in their cache line. */
static size_t
thread_elems(size_t rows, size_t keys, size_t D)
{
    return rows * keys + 2 * rows + rows * D;
}

static size_t
product_terms(int64_t D, int64_t key_block)
{
    return (size_t)(D > key_block ? D : key_block);
}

enum { MAX_PARTS = 16 };

/* How the blocks of queries are shared: each thread of the reference has `share` of them, one after the other. Our parts, side by side,
 * have room for one block each and take every so many-th of those threads. */
typedef struct shares {
    int64_t blocks, num_blocks; /* of one head, of all */
    int64_t threads, share, parts;
    size_t room_elems;
} shares;

static shares
shares_of(const port_kernel_call *call)
{
    const port_view *q = call->in[0];
    int64_t T = q->shape[2], D = q->shape[3], S = call->in[1]->shape[2], block = query_block_of(T);
    size_t rows = (size_t)block, keys = (size_t)min_i64(KEY_BLOCK, S);
    shares s = {.blocks = T > 0 ? (T + block - 1) / block : 0};
    s.num_blocks = q->shape[0] * q->shape[1] * s.blocks;
    s.threads = min_i64(call->profile->num_threads > 1 ? call->profile->num_threads : 1, s.num_blocks > 0 ? s.num_blocks : 1);
    s.share = (s.num_blocks + s.threads - 1) / s.threads;
    int64_t each = min_i64(s.share * block, INT32_MAX) * min_i64(D > 4 ? D / 4 : 1, INT16_MAX); /* enough is enough: the product fits */
    s.parts = port_chunks_by_elems(s.threads, each * min_i64(S, INT16_MAX), MAX_PARTS).count;
    size_t product_elems = port_matmul_scratch_bytes((int64_t)product_terms(D, (int64_t)keys), PORT_F32, 1) / sizeof(float);
    size_t half_elems = round_up(keys * (size_t)D) + round_up(rows * product_terms(D, (int64_t)keys));
    s.room_elems = round_up(thread_elems(rows, keys, (size_t)D) + LINE_ELEMS) + round_up(keys) +
                   round_up(q->dtype == PORT_F32 || product_elems > half_elems ? product_elems : half_elems);
    return s;
}

static size_t
sdpa_scratch_bytes(const port_kernel_call *call)
{
    shares s = shares_of(call);
    return (size_t)s.parts * s.room_elems * sizeof(float);
}

/* ------------------------------------------------------------------ one row of scores */

#define LN_FLT_MIN (-0x1.5d58ap+6f)
#define LN_FLT_MAX 0x1.62e43p+6f
#define LOG2_E 0x1.715476p+0f
#define LN_2 0x1.62e43p-1f
static const float exp_terms[5] = {0.00828929059f, 0.0418978221f, 0.166676521f, 0.499991506f, 0.999999701f};

/* exp to about 20 ulp: x = n ln 2 + r, a polynomial in r, times 2^(n-1), times 2. The comparisons are those of min and max
 * instructions, which give the second operand for NaN. */
static float
exp_u20(float value)
{
    float x = value < LN_FLT_MAX ? value : LN_FLT_MAX;
    x = x > LN_FLT_MIN ? x : LN_FLT_MIN;
    float n = floorf(fmaf(x, LOG2_E, 0.5f));
    float r = fmaf(-n, LN_2, x);
    float y = exp_terms[0];
    for (int i = 1; i < 5; i++) {
        y = fmaf(r, y, exp_terms[i]);
    }
    y = fmaf(r, y, 1.0f);
    uint32_t bits = (uint32_t)((int32_t)(n - 1.0f) + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return y * (value < LN_FLT_MIN ? 0.0f : power) * 2.0f;
}

/* exp for weights that are rounded to a half anyway: x log2 e - p(its fraction) is put in the place of exponent and mantissa, p of degree 3.
 * NaN gives -0, as converting it to an integer does. Source: Malossi et al., Fast Exponential Computation on SIMD Architectures (2015). */
static const float fast_exp_terms[4] = {-0.079204240219773236f, -0.22433836478672356f, 0.30354260500649682f, 0.00010703434948458272f};

static float
exp_fast(float x)
{
    if (x < LN_FLT_MIN || x > LN_FLT_MAX || x != x) {
        return x < 0.0f ? 0.0f : x > 0.0f ? INFINITY : -0.0f;
    }
    float power = x * LOG2_E, fraction = power - floorf(power), y = fast_exp_terms[0];
    for (int i = 1; i < 4; i++) {
        y = fmaf(fraction, y, fast_exp_terms[i]);
    }
    int32_t bits = (int32_t)fmaf(0x1p23f, power - y, 0x1p23f * 127.0f);
    memcpy(&y, &bits, sizeof y);
    return y;
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static inline __m256
exp_u20_avx2(__m256 value)
{
    const __m256 low = _mm256_set1_ps(LN_FLT_MIN), one = _mm256_set1_ps(1.0f);
    __m256 too_low = _mm256_cmp_ps(value, low, _CMP_LT_OS);
    __m256 x = _mm256_max_ps(_mm256_min_ps(value, _mm256_set1_ps(LN_FLT_MAX)), low);
    __m256 n = _mm256_floor_ps(_mm256_fmadd_ps(x, _mm256_set1_ps(LOG2_E), _mm256_set1_ps(0.5f)));
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2), x);
    __m256 y = _mm256_set1_ps(exp_terms[0]);
#pragma GCC unroll 4
    for (int i = 1; i < 5; i++) {
        y = _mm256_fmadd_ps(r, y, _mm256_set1_ps(exp_terms[i]));
    }
    y = _mm256_fmadd_ps(r, y, one);
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_sub_ps(n, one)), _mm256_set1_epi32(127));
    __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_mul_ps(_mm256_mul_ps(y, _mm256_andnot_ps(too_low, power)), _mm256_set1_ps(2.0f));
}

__attribute__((target("avx2,fma"))) static inline __m256
exp_fast_avx2(__m256 x)
{
    __m256 too_low = _mm256_cmp_ps(x, _mm256_set1_ps(LN_FLT_MIN), _CMP_LT_OS), too_high = _mm256_cmp_ps(x, _mm256_set1_ps(LN_FLT_MAX), _CMP_GT_OS);
    __m256 power = _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)), fraction = _mm256_sub_ps(power, _mm256_floor_ps(power));
    __m256 y = _mm256_set1_ps(fast_exp_terms[0]);
#pragma GCC unroll 3
    for (int i = 1; i < 4; i++) {
        y = _mm256_fmadd_ps(fraction, y, _mm256_set1_ps(fast_exp_terms[i]));
    }
    y = _mm256_fmadd_ps(_mm256_set1_ps(0x1p23f), _mm256_sub_ps(power, y), _mm256_set1_ps(0x1p23f * 127.0f));
    y = _mm256_castsi256_ps(_mm256_cvttps_epi32(y));
    return _mm256_blendv_ps(_mm256_andnot_ps(too_low, y), _mm256_set1_ps(INFINITY), too_high);
}

/* row = exp(row - max) over whole vectors of `lanes`; lane sums into sums[lanes]. `fast`: by exp_fast, every other vector into a sum of its
 * own, which is added at the end. */
__attribute__((target("avx2,fma"))) static void
exp_vectors_avx2(float *row, int64_t elems, float max, int lanes, bool fast, float *sums)
{
    __m256 shift = _mm256_set1_ps(max), sum[4];
    for (int k = 0; k < 4; k++) {
        sum[k] = _mm256_setzero_ps();
    }
    int apart = (lanes / 8) << fast;
    for (int64_t i = 0; i < elems; i += 8) {
        __m256 x = _mm256_sub_ps(_mm256_loadu_ps(row + i), shift), e = fast ? exp_fast_avx2(x) : exp_u20_avx2(x);
        _mm256_storeu_ps(row + i, e);
        sum[i / 8 % apart] = _mm256_add_ps(sum[i / 8 % apart], e);
    }
    for (int k = 0; k < lanes / 8; k++) {
        _mm256_storeu_ps(sums + 8 * k, fast ? _mm256_add_ps(sum[k], sum[k + lanes / 8]) : sum[k]);
    }
}

__attribute__((target("fma"))) static void
scale_and_add_fma(float *row, const float *mask, int64_t elems, float scale)
{
    for (int64_t i = 0; i < elems; i++) {
        row[i] = fmaf(row[i], scale, mask[i]);
    }
}
#endif

static void
exp_vectors(const task *t, float *row, int64_t elems, float max, float *sums)
{
    bool fast = t->q->dtype != PORT_F32;
#if defined(__x86_64__)
    if (t->fused && port_cpu_level() >= 1) {
        exp_vectors_avx2(row, elems, max, t->lanes, fast, sums);
        return;
    }
#endif
    float others[16] = {0};
    memset(sums, 0, (size_t)t->lanes * sizeof *sums);
    for (int64_t i = 0; i < elems; i++) {
        row[i] = !t->fused ? expf(row[i] - max) : fast ? exp_fast(row[i] - max) : exp_u20(row[i] - max);
        (fast && i / t->lanes % 2 != 0 ? others : sums)[i % t->lanes] += row[i];
    }
    for (int lane = 0; fast && lane < t->lanes; lane++) {
        sums[lane] += others[lane];
    }
}

/* row = exp(row - max), and its sum: whole vectors lane by lane, lanes by halves (default: from left to right), then the
 * rest one by one, by exp in double as ATen's unqualified exp finds it there. */
static float
exp_row(const task *t, float *row, int64_t elems, float max)
{
    float sums[16];
    int64_t whole = elems - elems % t->lanes;
    exp_vectors(t, row, whole, max, sums);
    if (t->fused) {
        for (int half = t->lanes / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; i++) {
                sums[i] += sums[i + half];
            }
        }
    } else {
        for (int i = 1; i < t->lanes; i++) {
            sums[0] += sums[i];
        }
    }
    float sum = sums[0];
    for (int64_t i = whole; i < elems; i++) {
        row[i] = (float)exp((double)(row[i] - max));
        sum += row[i];
    }
    return sum;
}

/* The largest of row[0 .. elems), NaN if there is one. */
static float
max_with_nan(const float *row, int64_t elems)
{
    float max = -INFINITY;
    bool any_nan = false;
    for (int64_t i = 0; i < elems; i++) {
        any_nan |= row[i] != row[i];
        max = row[i] > max ? row[i] : max;
    }
    return any_nan ? NAN : max;
}

/* row = row * scale, and its maximum. ATen's last step keeps the first operand where the second is not larger, so that NaN in
 * whole vectors is lost and NaN in the rest never counted. */
static float
scale_row(const task *t, float *row, int64_t elems)
{
    for (int64_t i = 0; i < elems; i++) {
        row[i] *= t->scale;
    }
    int64_t whole = elems - elems % t->lanes;
    float of_rest = -INFINITY;
    for (int64_t i = whole; i < elems; i++) {
        of_rest = of_rest < row[i] ? row[i] : of_rest;
    }
    float of_vectors = max_with_nan(row, whole);
    return of_rest < of_vectors ? of_vectors : of_rest;
}

/* row = row * scale + mask, and its maximum: here NaN counts. */
static float
mask_row(const task *t, float *row, const float *mask, int64_t elems)
{
    if (!t->fused) {
        for (int64_t i = 0; i < elems; i++) {
            row[i] = row[i] * t->scale + mask[i];
        }
        return max_with_nan(row, elems);
    }
#if defined(__x86_64__)
    if (port_cpu_level() >= 1) {
        scale_and_add_fma(row, mask, elems, t->scale);
        return max_with_nan(row, elems);
    }
#endif
    for (int64_t i = 0; i < elems; i++) {
        row[i] = fmaf(row[i], t->scale, mask[i]);
    }
    return max_with_nan(row, elems);
}

/* The mask of one query and a block of keys as dense f32. */
static const float *
mask_values(const task *t, int64_t b, int64_t h, int64_t query, int64_t key, int64_t elems)
{
    const port_view *m = t->mask;
    int64_t at = b * m->strides[0] + h * m->strides[1] + query * m->strides[2] + key * m->strides[3];
    if (m->dtype == PORT_F32 && m->strides[3] == 1) {
        return (const float *)m->data + at;
    }
    for (int64_t i = 0; i < elems; i++, at += m->strides[3]) {
        t->mask_row[i] = m->dtype == PORT_BOOL ? (((const uint8_t *)m->data)[at] ? 0.0f : -INFINITY)
                                               : port_load_f32(m->data, m->dtype, at);
    }
    return t->mask_row;
}

/* ------------------------------------------------------------------ one block of keys */

static const void *
at_offset(const port_view *view, int64_t elems)
{
    return (const char *)view->data + elems * (int64_t)port_dtype_size(view->dtype);
}

static void
own_product(const task *t, int64_t M, int64_t N, int64_t K, port_matrix a, port_matrix b, float beta, float *y)
{
    port_matmul product = {.M = M, .N = N, .K = K, .alpha = 1.0, .beta = (double)beta, .a = a, .b = b, .y = y,
                           .y_dtype = PORT_F32, .y_row_stride = N};
    port_matmul_run(&product, t->how == WAY_REF ? PORT_MATMUL_REF : PORT_MATMUL_CHAIN, t->product_scratch);
}

/* n lines of D halves, `step` elements apart, as dense f32. */
static void
widen_lines(port_dtype dtype, const void *from, int64_t step, int64_t n, int64_t D, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        const char *line = (const char *)from + i * step * (int64_t)sizeof(uint16_t);
        (dtype == PORT_BF16 ? port_dense_f32_of_bf16 : port_dense_f32_of_f16)(D, line, (char *)(to + i * D));
    }
}

/* The library's way with halves and a single query, which is q or its weights; the lines of a are those of keys. Scores: four sums of every
 * fourth term, what is left over one by one. */
static void
single_scores(const float *q, const float *a, int64_t keys, int64_t D, float *scores)
{
    for (int64_t key = 0; key < keys; key++, a += D) {
        float lanes[4] = {0};
        int64_t d = 0;
        for (; d < D - D % 4; d++) {
            lanes[d % 4] += q[d] * a[d];
        }
        scores[key] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
        for (; d < D; d++) {
            scores[key] += q[d] * a[d];
        }
    }
}

/* acc += weights a: four keys at a time, what is left over from the last on. */
static void
single_values(const float *weights, const float *a, int64_t keys, int64_t D, float *acc)
{
    int64_t whole = keys - keys % 4;
    for (int64_t key = 0; key < whole; key += 4) {
        const float *w = weights + key, *line = a + key * D;
        for (int64_t d = 0; d < D; d++) {
            acc[d] += (w[0] * line[d] + w[2] * line[2 * D + d]) + (w[1] * line[D + d] + w[3] * line[3 * D + d]);
        }
    }
    for (int64_t key = keys - 1; key >= whole; key--) {
        for (int64_t d = 0; d < D; d++) {
            acc[d] += weights[key] * a[key * D + d];
        }
    }
}

/* Products of halves with a result of f32 have the bits, in one thread, of the library's product of widened copies. Both operands are read
 * line by line: a of the keys, b of the queries. */
static bool
blas_product(const task *t, port_blas_call blas)
{
    const port_provider *provider = t->call->provider;
    if (t->q->dtype != PORT_F32 && provider->sgemm != NULL) {
        int64_t keys = blas.trans_a ? blas.m : blas.k;
        float *a = t->product_scratch, *b = a + round_up((size_t)(keys * t->D));
        widen_lines(t->q->dtype, blas.a, blas.lda, keys, t->D, a);
        if (blas.b == t->scores) {
            memcpy(b, blas.b, (size_t)(blas.n * blas.k) * sizeof *b);
        } else {
            widen_lines(t->q->dtype, blas.b, blas.ldb, blas.n, blas.k, b);
        }
        if (blas.n == 1 && blas.b == t->scores) {
            single_values(b, a, keys, t->D, blas.c);
            return true;
        }
        if (blas.n == 1) {
            single_scores(b, a, keys, t->D, blas.c);
            return true;
        }
        blas.a = a;
        blas.b = b;
        blas.lda = t->D;
        blas.ldb = blas.k;
    }
    return port_blas_gemm(provider, PORT_F32, blas);
}

/* scores (rows, keys) = q k^T */
static void
score_block(const task *t, int64_t b, int64_t h, int64_t query, int64_t rows, int64_t key, int64_t keys)
{
    const port_view *q = t->q, *k = t->k;
    int64_t g = h / (t->H / t->G);
    const void *from_q = at_offset(q, b * q->strides[0] + h * q->strides[1] + query * q->strides[2]);
    const void *from_k = at_offset(k, b * k->strides[0] + g * k->strides[1] + key * k->strides[2]);
    port_blas_call blas = {.trans_a = true, .m = keys, .n = rows, .k = t->D, .alpha = 1.0, .a = from_k, .lda = k->strides[2],
                           .b = from_q, .ldb = q->strides[2], .c = t->scores, .ldc = keys};
    if (t->how == WAY_BLAS && t->D > 0 && q->strides[3] == 1 && k->strides[3] == 1 &&
        blas_product(t, blas)) {
        return;
    }
    own_product(t, rows, keys, t->D, (port_matrix){from_q, q->dtype, q->strides[2], q->strides[3]},
                (port_matrix){from_k, k->dtype, k->strides[3], k->strides[2]}, 0.0f, t->scores);
}

/* acc (rows, D) = scores v, added to what it holds unless these are the first keys */
static void
value_block(const task *t, int64_t b, int64_t h, int64_t rows, int64_t key, int64_t keys)
{
    const port_view *v = t->v;
    int64_t g = h / (t->H / t->G);
    const void *from = at_offset(v, b * v->strides[0] + g * v->strides[1] + key * v->strides[2]);
    float beta = key == 0 ? 0.0f : 1.0f;
    port_blas_call blas = {.m = t->D, .n = rows, .k = keys, .alpha = 1.0, .beta = (double)beta, .a = from,
                           .lda = v->strides[2], .b = t->scores, .ldb = keys, .c = t->acc, .ldc = t->D};
    if (t->how == WAY_BLAS && t->D > 0 && v->strides[3] == 1 && blas_product(t, blas)) {
        return;
    }
    own_product(t, rows, t->D, keys, (port_matrix){t->scores, PORT_F32, keys, 1},
                (port_matrix){from, v->dtype, v->strides[2], v->strides[3]}, beta, t->acc);
}

/* Weights of one query for a block of keys, from its scores; updates its running maximum and sum. */
static void
weight_row(const task *t, int64_t b, int64_t h, int64_t query, int64_t row, int64_t key, int64_t keys)
{
    float *scores = t->scores + row * keys;
    float max = t->mask != NULL ? mask_row(t, scores, mask_values(t, b, h, query + row, key, keys), keys)
                                : scale_row(t, scores, keys);
    max = t->max[row] > max ? t->max[row] : max;
    if (max == -INFINITY) {
        memset(scores, 0, (size_t)keys * sizeof *scores);
        return;
    }
    float sum = exp_row(t, scores, keys, max);
    float shrink = expf(t->max[row] - max);
    t->sum[row] = t->fused ? fmaf(shrink, t->sum[row], sum) : sum + shrink * t->sum[row];
    t->max[row] = max;
    if (key > 0) {
        for (int64_t d = 0; d < t->D; d++) {
            t->acc[row * t->D + d] *= shrink;
        }
    }
    if (t->q->dtype != PORT_F32) { /* the weights are rounded to the half type before they meet v */
        for (int64_t i = 0; i < keys; i++) {
            scores[i] = t->q->dtype == PORT_BF16 ? port_bf16_to_f32(port_f32_to_bf16(scores[i]))
                                                 : port_f16_to_f32(port_f32_to_f16(scores[i]));
        }
    }
}

static void
store_rows(const task *t, int64_t b, int64_t h, int64_t query, int64_t rows)
{
    for (int64_t row = 0; row < rows; row++) {
        float max = t->max[row] == -INFINITY ? 0.0f : t->max[row];
        float sum = t->sum[row] == 0.0f ? 1.0f : t->sum[row];
        float factor = 1.0f / sum;
        const int64_t *stride = t->y->strides;
        int64_t at = b * stride[0] + h * stride[1] + (query + row) * stride[2];
        for (int64_t d = 0; d < t->D; d++) {
            port_store_f32(t->y->data, t->y->dtype, at + d * stride[3], t->acc[row * t->D + d] * factor);
        }
        if (t->lse != NULL) {
            stride = t->lse->strides;
            ((float *)t->lse->data)[b * stride[0] + h * stride[1] + (query + row) * stride[2]] = max + logf(sum);
        }
    }
}

static void
query_rows(const task *t, int64_t b, int64_t h, int64_t query)
{
    int64_t rows = min_i64(t->query_block, t->T - query);
    int64_t num_keys = t->is_causal ? min_i64(query + rows, t->S) : t->S;
    for (int64_t row = 0; row < rows; row++) {
        t->max[row] = -INFINITY;
        t->sum[row] = 0.0f;
    }
    memset(t->acc, 0, (size_t)(rows * t->D) * sizeof *t->acc);
    for (int64_t key = 0; key < num_keys; key += t->key_block) {
        int64_t keys = min_i64(t->key_block, t->S - key);
        score_block(t, b, h, query, rows, key, keys);
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t s = query + row - key + 1; t->is_causal && s < keys; s++) {
                t->scores[row * keys + s] = -INFINITY;
            }
            weight_row(t, b, h, query, row, key, keys);
        }
        value_block(t, b, h, rows, key, keys);
    }
    store_rows(t, b, h, query, rows);
}

/* ------------------------------------------------------------------ runs */

static void
place_buffers(task *t, float *room, size_t thread)
{
    size_t rows = (size_t)t->query_block, keys = (size_t)t->key_block, elems = thread_elems(rows, keys, (size_t)t->D);
    t->scores = room + thread * elems % LINE_ELEMS;
    t->max = t->scores + rows * keys;
    t->sum = t->max + rows;
    t->acc = t->sum + rows;
    t->mask_row = room + round_up(elems + LINE_ELEMS);
    t->product_scratch = t->mask_row + round_up(keys);
}

typedef struct sdpa_job {
    task task;
    shares shares;
} sdpa_job;

static void
sdpa_part(void *opaque, int64_t part)
{
    const sdpa_job *job = opaque;
    const shares *s = &job->shares;
    task t = job->task;
    const port_provider *provider = t.call->provider;
    /* ATen shares the blocks among its threads, where a BLAS runs in one; a single block it computes outside of them. */
    int restore = port_provider_use_threads(provider, s->num_blocks > 1 ? 1 : t.call->profile->num_threads);
    for (int64_t thread = part; thread < s->threads; thread += s->parts) {
        place_buffers(&t, (float *)t.call->scratch + (size_t)part * s->room_elems, (size_t)thread);
        for (int64_t i = thread * s->share; i < (thread + 1) * s->share && i < s->num_blocks; i++) {
            query_rows(&t, i / (t.H * s->blocks), i / s->blocks % t.H, i % s->blocks * t.query_block);
        }
    }
    port_provider_restore_threads(provider, restore);
}

static void
sdpa_run(const port_kernel_call *call, way how)
{
    const port_sdpa_params *params = call->params;
    const port_view *q = call->in[0], *k = call->in[1];
    task t = {.call = call, .q = q, .k = k, .v = call->in[2], .mask = call->in[3], .y = call->out[0],
              .lse = call->num_out > 1 ? call->out[1] : NULL, .B = q->shape[0], .H = q->shape[1], .G = k->shape[1],
              .T = q->shape[2], .S = k->shape[2], .D = q->shape[3], .scale = (float)params->scale,
              .is_causal = params->is_causal, .how = how};
    t.query_block = query_block_of(t.T);
    t.key_block = min_i64(KEY_BLOCK, t.S);
    t.fused = call->profile->capability != PORT_CAP_DEFAULT;
    t.lanes = call->profile->capability == PORT_CAP_AVX512 ? 16 : 8;
    sdpa_job job = {t, shares_of(call)};
    port_parallel(job.shares.num_blocks > 0 ? job.shares.parts : 0, call->profile->num_threads, sdpa_part, &job);
}

static void
sdpa_run_blas(const port_kernel_call *call)
{
    sdpa_run(call, WAY_BLAS);
}

static void
sdpa_run_chain(const port_kernel_call *call)
{
    sdpa_run(call, WAY_CHAIN);
}

static void
sdpa_run_ref(const port_kernel_call *call)
{
    sdpa_run(call, WAY_REF);
}

/* The first of a kind is the one taken when no variant is asked for. */
#define SDPA_ROWS(T)                                                                    \
    {"sdpa_flash", T, "blas", 0, port_sdpa_check, sdpa_scratch_bytes, sdpa_run_blas},   \
    {"sdpa_flash", T, "chain", 0, port_sdpa_check, sdpa_scratch_bytes, sdpa_run_chain}, \
    {"sdpa_flash", T, "ref", 0, port_sdpa_check, sdpa_scratch_bytes, sdpa_run_ref}

const port_kernel_row port_attention_rows[] = {
    SDPA_ROWS(PORT_F32), SDPA_ROWS(PORT_BF16), SDPA_ROWS(PORT_F16), {.op = NULL},
};
