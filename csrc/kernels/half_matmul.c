/* half_matmul.c -- products of BF16 and F16 as the reference sums them (matmul.h).
 *
 * Products of two halves are exact in f32, so what decides the bits is the order of the sum alone. Five orders are known. DOT and ASCENDING run
 * along k for one output at a time. The others are chains over neighbouring outputs, k in another order: rows of a and panels of b are widened in
 * that order, and the tiles of matmul.c do the rest.
 * Source: at::native cpublas_gemm_impl and bf16_dot_with_fp32_arith of PyTorch 2; the order of VDPBF16PS on AMD Zen 4 and the blocks of
 * oneDNN's matmul, measured.
 */
#include "dense.h"
#include "matmul.h"

#include <math.h>

#define PANEL PORT_MATMUL_PANEL
#define ROWS PORT_MATMUL_ROWS
#define LANES 8     /* of the reference's vectors, also under avx512 */
#define REGISTERS 8 /* that its dot runs on side by side */

enum { MAX_PARTS = 16 };

typedef struct half_job {
    const port_matmul *product;
    port_half_way way;
    int64_t *terms; /* the place of the p-th term to be added, p < K */
    float *rows;    /* a, widened, its columns in that order */
    float *rooms;   /* for each part, a panel and a line: K * (PANEL + 1) */
    port_chunks parts;
} half_job;

static int32_t
most_parts(int32_t num_threads)
{
    return num_threads < 1 ? 1 : (num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
}

size_t
port_half_matmul_scratch_bytes(int64_t M, int64_t K, int32_t num_threads)
{
    size_t terms = (size_t)(K > 0 ? K : 1), rooms = (size_t)most_parts(num_threads) * (PANEL + 1);
    return terms * (sizeof(int64_t) + ((size_t)M + rooms) * sizeof(float));
}

/* ------------------------------------------------------------------ the order of terms */

static int64_t
term_at(port_half_order order, int64_t K, int64_t p)
{
    int64_t quarter = K / 4, first = quarter + K % 4;
    if (order == PORT_HALF_PAIRS) {
        return (p ^ 1) < K ? (p ^ 1) : p;
    }
    if (order != PORT_HALF_QUARTERS) { /* DOT, SEQUENCE, ASCENDING */
        return p;
    }
    if (p < first) {
        return p < quarter ? 4 * p : 3 * quarter + p;
    }
    return 4 * ((p - first) % quarter) + 1 + (p - first) / quarter;
}

/* Where the chain that begins at term k ends. */
static int64_t
chain_end(port_half_way way, int64_t K, int64_t k)
{
    switch (way.order) {
    case PORT_HALF_QUARTERS: return k == 0 ? K / 4 + K % 4 : k + K / 4;
    case PORT_HALF_PAIRS: return K - k < way.block ? K : k + way.block;
    default: return K;
    }
}

/* Where the sum of chains that begins at term k ends. */
static int64_t
share_end(port_half_way way, int64_t K, int64_t k)
{
    if (way.order != PORT_HALF_PAIRS || way.shares <= 1) {
        return K;
    }
    int64_t blocks = (K + way.block - 1) / way.block, longer = blocks % way.shares, size = blocks / way.shares, at = k / way.block;
    int64_t end = (at + size + (at < longer * (size + 1) ? 1 : 0)) * way.block;
    return end < K ? end : K;
}

/* ------------------------------------------------------------------ widening */

static void
widen_line(const port_matrix *from, int64_t first, int64_t stride, int64_t n, float *to)
{
    if (stride == 1 && from->dtype != PORT_F32) {
        const char *data = (const char *)from->data + first * (int64_t)sizeof(uint16_t);
        (from->dtype == PORT_BF16 ? port_dense_f32_of_bf16 : port_dense_f32_of_f16)(n, data, (char *)to);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        to[i] = port_load_f32(from->data, from->dtype, first + i * stride);
    }
}

/* a in the order of terms; SEQUENCE multiplies it by alpha, as the reference does before it multiplies by b. */
static void
widen_rows(const half_job *job)
{
    const port_matmul *p = job->product;
    float alpha = job->way.order == PORT_HALF_SEQUENCE ? (float)p->alpha : 1.0f;
    for (int64_t i = 0; i < p->M; i++) {
        widen_line(&p->a, i * p->a.row_stride, p->a.col_stride, p->K, job->rooms);
        for (int64_t k = 0; k < p->K; k++) {
            job->rows[i * p->K + k] = alpha * job->rooms[job->terms[k]];
        }
    }
}

static void
pack_panel(const half_job *job, int64_t first, int64_t width, float *panel)
{
    const port_matmul *p = job->product;
    if (width < PANEL) {
        memset(panel, 0, (size_t)(p->K * PANEL) * sizeof *panel);
    }
    float *line = panel + p->K * PANEL;
    for (int64_t j = 0; p->b.row_stride == 1 && j < width; j++) {
        widen_line(&p->b, (first + j) * p->b.col_stride, 1, p->K, line);
        for (int64_t k = 0; k < p->K; k++) {
            panel[k * PANEL + j] = line[job->terms[k]];
        }
    }
    for (int64_t k = 0; p->b.row_stride != 1 && k < p->K; k++) {
        widen_line(&p->b, job->terms[k] * p->b.row_stride + first * p->b.col_stride, p->b.col_stride, width, panel + k * PANEL);
    }
}

/* ------------------------------------------------------------------ sums */

static void
finish(const half_job *job, int64_t i, int64_t j, float sum)
{
    const port_matmul *p = job->product;
    int64_t at = i * p->y_row_stride + j;
    if (job->way.order != PORT_HALF_SEQUENCE) {
        float beta = (float)p->beta;
        sum *= job->way.order == PORT_HALF_ASCENDING ? 1.0f : (float)p->alpha;
        if (beta != 0.0f) {
            float start = port_load_f32(p->y, p->y_dtype, at);
            sum = job->way.fused ? fmaf(beta, start, sum) : beta * start + sum;
        }
    }
    port_store_f32(p->y, p->y_dtype, at, sum);
}

static void
add_tile(float sums[ROWS][PANEL], float total[ROWS][PANEL])
{
    for (int64_t i = 0; i < ROWS * PANEL; i++) {
        total[i / PANEL][i % PANEL] += sums[i / PANEL][i % PANEL];
    }
}

/* The chains of one share added in their order; the first begins with total. */
static void
sum_share(const half_job *job, const float *const a[ROWS], const float *panel, int64_t begin, int64_t share, int64_t rows, float total[ROWS][PANEL])
{
    float sums[ROWS][PANEL];
    port_matmul_tile *tile = port_matmul_tile_of(job->way.fused ? PORT_MATMUL_CHAIN : PORT_MATMUL_REF);
    int64_t end = chain_end(job->way, job->product->K, begin);
    end = end < share ? end : share;
    tile(a, panel, begin, end, rows, total);
    for (int64_t k = end; k < share; k = end) {
        end = chain_end(job->way, job->product->K, k);
        memset(sums, 0, sizeof sums);
        tile(a, panel, k, end, rows, sums);
        add_tile(sums, total);
    }
}

/* The four rows of a from `first` on with a panel: the sums of all chains, added share by share. */
static void
sum_tile(const half_job *job, const float *panel, int64_t first, int64_t rows, int64_t column, int64_t width, float total[ROWS][PANEL])
{
    const port_matmul *p = job->product;
    const float *a[ROWS];
    float sums[ROWS][PANEL];
    for (int64_t r = 0; r < ROWS; r++) {
        a[r] = job->rows + (first + (r < rows ? r : 0)) * p->K;
    }
    memset(total, 0, sizeof sums);
    for (int64_t r = 0; job->way.order == PORT_HALF_SEQUENCE && p->beta != 0.0 && r < rows; r++) {
        for (int64_t j = 0; j < width; j++) {
            total[r][j] = (float)p->beta * port_load_f32(p->y, p->y_dtype, (first + r) * p->y_row_stride + column + j);
        }
    }
    int64_t end = share_end(job->way, p->K, 0);
    sum_share(job, a, panel, 0, end, rows, total);
    for (int64_t k = end; k < p->K; k = end) {
        end = share_end(job->way, p->K, k);
        memset(sums, 0, sizeof sums);
        sum_share(job, a, panel, k, end, rows, sums);
        add_tile(sums, total);
    }
}

static void
run_chains(const half_job *job, int64_t begin, int64_t end, float *panel)
{
    float total[ROWS][PANEL];
    for (int64_t j = begin; j < end; j += PANEL) {
        int64_t width = end - j < PANEL ? end - j : PANEL;
        pack_panel(job, j, width, panel);
        for (int64_t i = 0; i < job->product->M; i += ROWS) {
            int64_t rows = job->product->M - i < ROWS ? job->product->M - i : ROWS;
            sum_tile(job, panel, i, rows, j, width, total);
            for (int64_t at = 0; at < rows * width; at++) {
                finish(job, i + at / width, j + at % width, total[at / width][at % width]);
            }
        }
    }
}

/* ------------------------------------------------------------------ one output after the other, along k */

static float
join_lanes(const float *lanes, bool by_halves)
{
    if (by_halves) {
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
    float sum = lanes[0];
    for (int lane = 1; lane < LANES; lane++) {
        sum += lanes[lane];
    }
    return sum;
}

/* sums[v] += the terms of vector v in each group of `vectors`, over k from 0 to n. */
typedef void dot_lanes(const float *a, const float *b, int64_t n, int vectors, float sums[REGISTERS][LANES]);

static void
dot_lanes_ref(const float *a, const float *b, int64_t n, int vectors, float sums[REGISTERS][LANES])
{
    for (int64_t k = 0; k < n; k++) {
        float *sum = &sums[k / LANES % vectors][k % LANES];
        *sum = fmaf(a[k], b[k], *sum);
    }
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
dot_lanes_avx2(const float *a, const float *b, int64_t n, int vectors, float sums[REGISTERS][LANES])
{
    __m256 sum[REGISTERS];
    for (int v = 0; v < REGISTERS; v++) {
        sum[v] = _mm256_loadu_ps(sums[v]);
    }
    int64_t k = 0;
    for (; vectors == REGISTERS && k < n; k += REGISTERS * LANES) {
#pragma GCC unroll 8
        for (int v = 0; v < REGISTERS; v++) {
            sum[v] = _mm256_fmadd_ps(_mm256_loadu_ps(a + k + v * LANES), _mm256_loadu_ps(b + k + v * LANES), sum[v]);
        }
    }
    for (; k < n; k += LANES) {
        sum[0] = _mm256_fmadd_ps(_mm256_loadu_ps(a + k), _mm256_loadu_ps(b + k), sum[0]);
    }
    for (int v = 0; v < REGISTERS; v++) {
        _mm256_storeu_ps(sums[v], sum[v]);
    }
}
#endif

static float
dot(dot_lanes *lanes, const float *a, const float *b, int64_t n, bool fused)
{
    float sums[REGISTERS][LANES] = {{0}}, rest[REGISTERS][LANES] = {{0}};
    int64_t groups = n - n % (REGISTERS * LANES), vectors = n - n % (2 * LANES);
    lanes(a, b, groups, REGISTERS, sums);
    for (int half = REGISTERS / 2; half > 0; half /= 2) {
        for (int i = 0; i < half * LANES; i++) {
            sums[i / LANES][i % LANES] += sums[half + i / LANES][i % LANES];
        }
    }
    lanes(a + groups, b + groups, vectors - groups, 1, rest);
    float sum = join_lanes(sums[0], fused) + join_lanes(rest[0], fused);
    for (int64_t k = vectors; k < n; k++) {
        sum = fmaf(a[k], b[k], sum);
    }
    return sum;
}

static float
sum_of_terms(const float *a, const float *b, int64_t n, float alpha)
{
    float sum = 0.0f;
    for (int64_t k = 0; k < n; k++) {
        sum += a[k] * b[k] * alpha;
    }
    return sum;
}

static void
run_dots(const half_job *job, int64_t begin, int64_t end, float *column)
{
    const port_matmul *p = job->product;
    dot_lanes *lanes = dot_lanes_ref;
#if PORT_HAVE_AVX2
    lanes = port_cpu_level_found() > 0 ? dot_lanes_avx2 : lanes;
#endif
    for (int64_t j = begin; j < end; j++) {
        widen_line(&p->b, j * p->b.col_stride, p->b.row_stride, p->K, column);
        for (int64_t i = 0; i < p->M; i++) {
            const float *row = job->rows + i * p->K;
            finish(job, i, j, job->way.order == PORT_HALF_DOT ? dot(lanes, row, column, p->K, job->way.fused)
                                                              : sum_of_terms(row, column, p->K, (float)p->alpha));
        }
    }
}

static void
run_part(void *opaque, int64_t part)
{
    const half_job *job = opaque;
    int64_t begin = part * job->parts.size * PANEL, end = begin + job->parts.size * PANEL;
    end = end < job->product->N ? end : job->product->N;
    float *room = job->rooms + part * job->product->K * (PANEL + 1);
    bool along = job->way.order == PORT_HALF_DOT || job->way.order == PORT_HALF_ASCENDING;
    (along ? run_dots : run_chains)(job, begin, end, room);
}

void
port_half_matmul_run(const port_matmul *product, port_half_way way, void *scratch)
{
    int64_t panels = (product->N + PANEL - 1) / PANEL, K = product->K;
    half_job job = {.product = product, .way = way, .terms = scratch};
    job.rooms = (float *)(void *)(job.terms + K);
    job.rows = job.rooms + most_parts(product->num_threads) * K * (PANEL + 1);
    for (int64_t p = 0; p < K; p++) {
        job.terms[p] = term_at(way.order, K, p);
    }
    widen_rows(&job);
    job.parts = port_chunks_by_elems(panels, K * PANEL * (1 + product->M / ROWS), most_parts(product->num_threads));
    port_parallel(panels > 0 ? job.parts.count : 0, product->num_threads, run_part, &job);
}
