/* matmul.c -- own matrix products (matmul.h).
 *
 * Columns of b are packed into a panel of PANEL columns, k-major and widened, so that the inner loop runs over
 * neighbouring outputs: every lane is one output and keeps its own order of summation, however wide the registers.
 * Four rows of a go over a panel together.
 */
#include "matmul.h"

#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PANEL PORT_MATMUL_PANEL /* columns of a packed panel */
#define ROWS PORT_MATMUL_ROWS   /* rows of a that share one pass over a panel */

typedef float float4 __attribute__((vector_size(16)));
typedef double double2 __attribute__((vector_size(16)));

enum { MAX_PARTS = 16 };

static int32_t
most_parts(int32_t num_threads)
{
    return num_threads < 1 ? 1 : (num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
}

/* One panel and the rows that go over it. */
static size_t
room_bytes(int64_t K, port_dtype dtype)
{
    size_t size_bytes = dtype == PORT_F64 ? sizeof(double) : sizeof(float);
    return (size_t)(K > 0 ? K : 1) * (PANEL + ROWS) * size_bytes;
}

size_t
port_matmul_scratch_bytes(int64_t K, port_dtype dtype, int32_t num_threads)
{
    return (size_t)most_parts(num_threads) * room_bytes(K, dtype);
}

/* ------------------------------------------------------------------ packing */

static void
pack_panel_f32(const port_matrix *b, int64_t K, int64_t first, int64_t width, float *panel)
{
    if (width < PANEL) {
        memset(panel, 0, (size_t)(K * PANEL) * sizeof *panel);
    }
    if (b->dtype == PORT_F32 && b->col_stride == 1) {
        const float *from = (const float *)b->data + first;
        for (int64_t k = 0; k < K; k++) {
            memcpy(panel + k * PANEL, from + k * b->row_stride, (size_t)width * sizeof *panel);
        }
        return;
    }
    if (b->dtype == PORT_F32) {
        for (int64_t j = 0; j < width; j++) {
            const float *from = (const float *)b->data + (first + j) * b->col_stride;
            for (int64_t k = 0; k < K; k++) {
                panel[k * PANEL + j] = from[k * b->row_stride];
            }
        }
        return;
    }
    for (int64_t k = 0; k < K; k++) {
        for (int64_t j = 0; j < width; j++) {
            panel[k * PANEL + j] = port_load_f32(b->data, b->dtype, k * b->row_stride + (first + j) * b->col_stride);
        }
    }
}

/* Rows first .. first + rows - 1 of a as dense f32: where they lie if they are, else in `space`. */
static void
take_rows_f32(const port_matrix *a, int64_t K, int64_t first, int64_t rows, float *space, const float *taken[ROWS])
{
    for (int64_t r = 0; r < ROWS; r++) {
        int64_t row = first + (r < rows ? r : 0); /* spare rows repeat the first one; their results are not stored */
        if (a->dtype == PORT_F32 && a->col_stride == 1) {
            taken[r] = (const float *)a->data + row * a->row_stride;
        } else if (r >= rows) {
            taken[r] = taken[0];
        } else {
            float *to = space + r * K;
            for (int64_t k = 0; k < K; k++) {
                to[k] = port_load_f32(a->data, a->dtype, row * a->row_stride + k * a->col_stride);
            }
            taken[r] = to;
        }
    }
}

/* ------------------------------------------------------------------ one tile: ROWS x PANEL sums over k0 <= k < k1 */

static void
tile_f32_ref(const float *const a[ROWS], const float *panel, int64_t k0, int64_t k1, int64_t rows,
             float sums[ROWS][PANEL])
{
    for (int64_t r = 0; r < rows; r++) {
        float4 sum[PANEL / 4];
        memcpy(sum, sums[r], sizeof sum);
        for (int64_t k = k0; k < k1; k++) {
            float4 x = {a[r][k], a[r][k], a[r][k], a[r][k]};
#pragma GCC unroll 8
            for (int v = 0; v < PANEL / 4; v++) {
                float4 w;
                memcpy(&w, panel + k * PANEL + 4 * v, sizeof w);
                sum[v] += x * w;
            }
        }
        memcpy(sums[r], sum, sizeof sum);
    }
}

static void
tile_f32_chain(const float *const a[ROWS], const float *panel, int64_t k0, int64_t k1, int64_t rows,
               float sums[ROWS][PANEL])
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = k0; k < k1; k++) {
            for (int64_t j = 0; j < PANEL; j++) {
                sums[r][j] = fmaf(a[r][k], panel[k * PANEL + j], sums[r][j]);
            }
        }
    }
}

#if defined(__x86_64__)
/* The chain again, with half of the panel's columns in registers at a time. */
__attribute__((target("avx2,fma"))) static void
tile_f32_chain_avx2(const float *const a[ROWS], const float *panel, int64_t k0, int64_t k1, int64_t rows,
                    float sums[ROWS][PANEL])
{
    (void)rows; /* spare rows are computed too: they are valid memory */
    for (int64_t j = 0; j < PANEL; j += 16) {
        __m256 low[ROWS], high[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            low[r] = _mm256_loadu_ps(sums[r] + j);
            high[r] = _mm256_loadu_ps(sums[r] + j + 8);
        }
        for (int64_t k = k0; k < k1; k++) {
            __m256 w0 = _mm256_loadu_ps(panel + k * PANEL + j);
            __m256 w1 = _mm256_loadu_ps(panel + k * PANEL + j + 8);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                __m256 x = _mm256_broadcast_ss(a[r] + k);
                low[r] = _mm256_fmadd_ps(x, w0, low[r]);
                high[r] = _mm256_fmadd_ps(x, w1, high[r]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            _mm256_storeu_ps(sums[r] + j, low[r]);
            _mm256_storeu_ps(sums[r] + j + 8, high[r]);
        }
    }
}

__attribute__((target("avx512f"))) static void
tile_f32_chain_avx512(const float *const a[ROWS], const float *panel, int64_t k0, int64_t k1, int64_t rows,
                      float sums[ROWS][PANEL])
{
    (void)rows;
    __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        low[r] = _mm512_loadu_ps(sums[r]);
        high[r] = _mm512_loadu_ps(sums[r] + 16);
    }
    for (int64_t k = k0; k < k1; k++) {
        __m512 w0 = _mm512_loadu_ps(panel + k * PANEL);
        __m512 w1 = _mm512_loadu_ps(panel + k * PANEL + 16);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            __m512 x = _mm512_set1_ps(a[r][k]);
            low[r] = _mm512_fmadd_ps(x, w0, low[r]);
            high[r] = _mm512_fmadd_ps(x, w1, high[r]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        _mm512_storeu_ps(sums[r], low[r]);
        _mm512_storeu_ps(sums[r] + 16, high[r]);
    }
}
#endif

port_matmul_tile *
port_matmul_tile_of(port_matmul_order order)
{
    if (order == PORT_MATMUL_REF) {
        return tile_f32_ref;
    }
#if defined(__x86_64__)
    switch (port_cpu_level()) {
    case 2: return tile_f32_chain_avx512;
    case 1: return tile_f32_chain_avx2;
    }
#endif
    return tile_f32_chain;
}

/* ------------------------------------------------------------------ the product */

int64_t
port_matmul_block_terms(port_matmul_order order, int64_t K)
{
    if (order == PORT_MATMUL_REF || K <= 192) {
        return K > 0 ? K : 1;
    }
    return K < 384 ? K / 2 : 192;
}

static void
finish_row_f32(const port_matmul *p, port_matmul_order order, bool first_block, const float *sums, int64_t row,
               int64_t first, int64_t width)
{
    float alpha = (float)p->alpha;
    float beta = first_block ? (float)p->beta : 1.0f;
    int64_t offset = row * p->y_row_stride + first;
    for (int64_t j = 0; j < width; j++) {
        float sum;
        if (beta == 0.0f) {
            sum = alpha * sums[j];
        } else {
            float start = beta * port_load_f32(p->y, p->y_dtype, offset + j);
            sum = order == PORT_MATMUL_CHAIN ? fmaf(alpha, sums[j], start) : start + alpha * sums[j];
        }
        port_store_f32(p->y, p->y_dtype, offset + j, sum);
    }
}

static void
run_f32(const port_matmul *p, port_matmul_order order, int64_t begin, int64_t end, void *scratch)
{
    port_matmul_tile *tile = port_matmul_tile_of(order);
    float *panel = scratch;
    float *space = panel + p->K * PANEL;
    float sums[ROWS][PANEL];
    /* A half-precision y must be rounded once: then there is one block. */
    int64_t terms = p->y_dtype == PORT_F32 ? port_matmul_block_terms(order, p->K) : (p->K > 0 ? p->K : 1);
    for (int64_t j = begin; j < end; j += PANEL) {
        int64_t width = end - j < PANEL ? end - j : PANEL;
        pack_panel_f32(&p->b, p->K, j, width, panel);
        for (int64_t i = 0; i < p->M; i += ROWS) {
            const float *a[ROWS];
            int64_t rows = p->M - i < ROWS ? p->M - i : ROWS;
            take_rows_f32(&p->a, p->K, i, rows, space, a);
            for (int64_t k = 0; k < p->K || k == 0; k += terms) {
                memset(sums, 0, sizeof sums);
                tile(a, panel, k, k + terms < p->K ? k + terms : p->K, rows, sums);
                for (int64_t r = 0; r < rows; r++) {
                    finish_row_f32(p, order, k == 0, sums[r], i + r, j, width);
                }
            }
        }
    }
}

/* The library's path for fewer than 4 rows or 12 columns, where b is column-major: 4 lanes along k, multiplied, then added;
 * a single row first puts its leading terms, 1 to 4 of them, into lane 0, so that a multiple of 4 is left. */
static float
dot_lanes(const float *a, const float *b, int64_t K, bool single_row)
{
    int64_t k = single_row && K > 0 ? (K - 1) % 4 + 1 : 0;
    float4 sum = {0};
    for (int64_t i = 0; i < k; i++) {
        sum[0] += a[i] * b[i];
    }
    for (; k + 4 <= K; k += 4) {
        float4 x, w;
        memcpy(&x, a + k, sizeof x);
        memcpy(&w, b + k, sizeof w);
        sum += x * w;
    }
    float total = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    for (; k < K; k++) {
        total += a[k] * b[k];
    }
    return total;
}

static bool
is_small(const port_matmul *p)
{
    return (p->M < 4 || p->N < 12) && p->a.dtype == PORT_F32 && p->b.dtype == PORT_F32 && p->y_dtype == PORT_F32;
}

static void
run_small_f32(const port_matmul *p, int64_t begin, int64_t end)
{
    float alpha = (float)p->alpha, beta = (float)p->beta;
    for (int64_t i = 0; i < p->M; i++) {
        float *y = (float *)p->y + i * p->y_row_stride;
        for (int64_t j = begin; j < end; j++) {
            const float *a = (const float *)p->a.data + i * p->a.row_stride;
            float sum = alpha * dot_lanes(a, (const float *)p->b.data + j * p->b.col_stride, p->K, p->M == 1);
            y[j] = beta == 0.0f ? sum : beta * y[j] + sum;
        }
    }
}

static void
pack_panel_f64(const port_matrix *b, int64_t K, int64_t first, int64_t width, double *panel)
{
    const double *from = (const double *)b->data + first * b->col_stride;
    for (int64_t k = 0; k < K; k++) {
        for (int64_t j = 0; j < PANEL; j++) {
            panel[k * PANEL + j] = j < width ? from[k * b->row_stride + j * b->col_stride] : 0.0;
        }
    }
}

static void
run_f64(const port_matmul *p, int64_t begin, int64_t end, void *scratch)
{
    double *panel = scratch;
    for (int64_t first = begin; first < end; first += PANEL) {
        int64_t width = end - first < PANEL ? end - first : PANEL;
        pack_panel_f64(&p->b, p->K, first, width, panel);
        for (int64_t i = 0; i < p->M; i++) {
            const double *a = (const double *)p->a.data + i * p->a.row_stride;
            double2 sum[PANEL / 2] = {{0}};
            for (int64_t k = 0; k < p->K; k++) {
                double2 x = {a[k * p->a.col_stride], a[k * p->a.col_stride]};
#pragma GCC unroll 16
                for (int v = 0; v < PANEL / 2; v++) {
                    double2 w;
                    memcpy(&w, panel + k * PANEL + 2 * v, sizeof w);
                    sum[v] += x * w;
                }
            }
            double *y = (double *)p->y + i * p->y_row_stride + first;
            for (int64_t j = 0; j < width; j++) {
                double value = p->alpha * sum[j / 2][j % 2];
                y[j] = p->beta == 0.0 ? value : p->beta * y[j] + value;
            }
        }
    }
}

/* Columns go in parts of whole panels. */
typedef struct column_job {
    const port_matmul *product;
    port_matmul_order order;
    char *scratch;
    port_chunks parts; /* of panels */
} column_job;

static void
run_columns(void *opaque, int64_t part)
{
    const column_job *job = opaque;
    const port_matmul *p = job->product;
    int64_t begin = part * job->parts.size * PANEL, end = begin + job->parts.size * PANEL;
    end = end < p->N ? end : p->N;
    void *room = job->scratch + (size_t)part * room_bytes(p->K, p->y_dtype);
    if (p->y_dtype == PORT_F64) {
        run_f64(p, begin, end, room); /* one order only: no claim is made for f64 chains */
    } else if (job->order != PORT_MATMUL_CHAIN || !is_small(p)) {
        run_f32(p, job->order, begin, end, room);
    } else if (p->a.col_stride == 1 && p->b.row_stride == 1 && p->b.col_stride >= p->K) {
        run_small_f32(p, begin, end);
    } else {
        run_f32(p, PORT_MATMUL_REF, begin, end, room); /* b row-major: k in order, multiplied, then added */
    }
}

void
port_matmul_run(const port_matmul *product, port_matmul_order order, void *scratch)
{
    int64_t panels = (product->N + PANEL - 1) / PANEL;
    column_job job = {product, order, scratch, port_chunks_by_elems(panels, product->K * PANEL, most_parts(product->num_threads))};
    port_parallel(panels > 0 ? job.parts.count : 0, product->num_threads, run_columns, &job);
}

/* ------------------------------------------------------------------ a BLAS, called as ATen calls it */

/* Fortran wants a leading dimension that holds a column even where there is only one, and ATen then writes the
 * natural one whatever the stride of the single row or column was. */
static void
normalise(port_blas_call *call)
{
    if (call->n == 1) {
        call->ldc = call->m;
    }
    if (call->trans_a) {
        if (call->m == 1) {
            call->lda = call->k;
        }
    } else if (call->k == 1) {
        call->lda = call->m;
    }
    if (call->trans_b) {
        if (call->k == 1) {
            call->ldb = call->n;
        }
    } else if (call->n == 1) {
        call->ldb = call->k;
    }
}

static bool
fits(int64_t size, int64_t at_least)
{
    return size >= at_least && size >= 1 && size <= INT32_MAX;
}

/* Fortran's view of a call: everything by address, 32-bit integers. */
typedef struct fortran_call {
    char trans_a, trans_b;
    int m, n, k, lda, ldb, ldc;
    float alpha_f32, beta_f32;
    double alpha_f64, beta_f64;
} fortran_call;

static bool
to_fortran(port_blas_call *call, fortran_call *f)
{
    normalise(call);
    if (call->m > INT32_MAX || call->n > INT32_MAX || call->k > INT32_MAX ||
        !fits(call->lda, call->trans_a ? call->k : call->m) || !fits(call->ldb, call->trans_b ? call->n : call->k) ||
        !fits(call->ldc, call->m)) {
        return false;
    }
    *f = (fortran_call){.trans_a = call->trans_a ? 't' : 'n', .trans_b = call->trans_b ? 't' : 'n', .m = (int)call->m,
                        .n = (int)call->n, .k = (int)call->k, .lda = (int)call->lda, .ldb = (int)call->ldb,
                        .ldc = (int)call->ldc, .alpha_f32 = (float)call->alpha, .beta_f32 = (float)call->beta,
                        .alpha_f64 = call->alpha, .beta_f64 = call->beta};
    return true;
}

bool
port_blas_gemm(const port_provider *provider, port_dtype dtype, port_blas_call call)
{
    fortran_call f;
    if (!to_fortran(&call, &f)) {
        return false;
    }
    if (dtype == PORT_F32 && provider->sgemm != NULL) {
        provider->sgemm(&f.trans_a, &f.trans_b, &f.m, &f.n, &f.k, &f.alpha_f32, call.a, &f.lda, call.b, &f.ldb, &f.beta_f32,
                        call.c, &f.ldc);
        return true;
    }
    if (dtype == PORT_F64 && provider->dgemm != NULL) {
        provider->dgemm(&f.trans_a, &f.trans_b, &f.m, &f.n, &f.k, &f.alpha_f64, call.a, &f.lda, call.b, &f.ldb, &f.beta_f64,
                        call.c, &f.ldc);
        return true;
    }
    return false;
}

bool
port_blas_gemm_batch(const port_provider *provider, port_dtype dtype, port_blas_call call, int64_t count, int64_t a_step,
                     int64_t b_step, int64_t c_step, void *pointers)
{
    int64_t size_bytes = (int64_t)port_dtype_size(dtype);
    fortran_call f;
    port_blas_call normal = call;
    if (!to_fortran(&normal, &f)) {
        return false;
    }
    bool has_batch = dtype == PORT_F32 ? provider->sgemm_batch != NULL : provider->dgemm_batch != NULL;
    if (count == 1 || count > INT32_MAX || !has_batch) {
        bool done = true;
        for (int64_t i = 0; i < count && done; i++) {
            port_blas_call one = call;
            one.a = (const char *)call.a + i * a_step * size_bytes;
            one.b = (const char *)call.b + i * b_step * size_bytes;
            one.c = (char *)call.c + i * c_step * size_bytes;
            done = port_blas_gemm(provider, dtype, one);
        }
        return done;
    }
    const void **a = pointers, **b = a + count;
    void **c = (void **)pointers + 2 * count;
    for (int64_t i = 0; i < count; i++) {
        a[i] = (const char *)call.a + i * a_step * size_bytes;
        b[i] = (const char *)call.b + i * b_step * size_bytes;
        c[i] = (char *)call.c + i * c_step * size_bytes;
    }
    int num_groups = 1, group_size = (int)count;
    if (dtype == PORT_F32) {
        provider->sgemm_batch(&f.trans_a, &f.trans_b, &f.m, &f.n, &f.k, &f.alpha_f32, a, &f.lda, b, &f.ldb, &f.beta_f32, c,
                              &f.ldc, &num_groups, &group_size);
    } else {
        provider->dgemm_batch(&f.trans_a, &f.trans_b, &f.m, &f.n, &f.k, &f.alpha_f64, a, &f.lda, b, &f.ldb, &f.beta_f64, c,
                              &f.ldc, &num_groups, &group_size);
    }
    return true;
}
