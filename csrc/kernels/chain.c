/* chain.c -- see chain.h.
 *
 * Terms go in blocks (port_matmul_block_terms). For each, all rows of a are packed by ROWS, term by term, and NC columns of b by PANEL; a tile of
 * ROWS x PANEL outputs then has its sums in 24 registers, takes both packs one after the other, and is added to y: 27 of 32 registers, and two
 * fused multiply-adds for each number that is loaded. MC rows by a block of terms stay in the second or third cache, NC columns of b in the second. */
#include "chain.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROWS = 12, PANEL = 32, TERMS = 192, MC = 86 * ROWS, NC = 8 * PANEL, MAX_PARTS = 16, LEAST_ROWS = 16 };

bool
port_chain_fits(int64_t M, int64_t N, int64_t K)
{
#if defined(__x86_64__)
    return port_cpu_level_found() >= 2 && M >= LEAST_ROWS && N >= PANEL && K >= 16;
#else
    (void)M, (void)N, (void)K;
    return false;
#endif
}

static int64_t
rounded_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Floats of the packed rows; the last term's vector goes beyond its rows. */
static int64_t
room_of_a(int64_t M)
{
    return rounded_up((M < MC ? rounded_up(M, ROWS) : MC) * TERMS + 16, 16);
}

static int64_t
room_of_part(int64_t M, int64_t N)
{
    return room_of_a(M) + (N < NC ? rounded_up(N, PANEL) : NC) * TERMS;
}

static int32_t
most_parts(int32_t num_threads)
{
    return num_threads < 1 ? 1 : (num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
}

size_t
port_chain_scratch_bytes(int64_t M, int64_t N, int32_t num_threads)
{
    return (size_t)most_parts(num_threads) * (size_t)room_of_part(M, N) * sizeof(float);
}

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f")))
#define TARGET_INLINE __attribute__((target("avx512f"), always_inline)) static inline

/* ------------------------------------------------------------------ packing */

/* 16 vectors of 16: lane i of vector j becomes lane j of vector i, stored `step` apart in ascending order. */
TARGET_INLINE void
store_transposed(__m512 r[16], float *to, int64_t step)
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_ps(to + i * step, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_ps(to + (i + 8) * step, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    }
}

/* to[k * width + i] = from[i * stride + k] for the `count` <= width lines that there are; spare ones give numbers that nobody uses. Each vector's end is
 * written over by the next; after the last term there is room for it. width: ROWS or 16. */
TARGET_INLINE void
pack_lines(const float *from, int64_t stride, int64_t count, int64_t terms, int width, float *to, int64_t step)
{
    int64_t k = 0;
    for (; k + 16 <= terms; k += 16) {
        __m512 lines[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            lines[i] = i < width ? _mm512_loadu_ps(from + (i < count ? i : 0) * stride + k) : _mm512_setzero_ps();
        }
        store_transposed(lines, to + k * step, step);
    }
    for (; k < terms; k++) {
        for (int i = 0; i < width; i++) {
            to[k * step + i] = from[(i < count ? i : 0) * stride + k];
        }
    }
}

TARGET static void
pack_rows(const float *from, int64_t stride, int64_t count, int64_t terms, float *to)
{
    pack_lines(from, stride, count, terms, ROWS, to, ROWS);
}

/* Terms [k, k + terms) of `width` <= PANEL columns of b. */
TARGET static void
pack_panel(const port_chain *p, int64_t k, int64_t terms, int64_t column, int64_t width, float *to)
{
    if (p->b_row_stride == 1) {
        const float *from = p->b + column * p->b_col_stride + k;
        int64_t beyond = width > 16 ? width - 16 : 1; /* of one column: spare, but memory that is there */
        pack_lines(from, p->b_col_stride, width, terms, 16, to, PANEL);
        pack_lines(width > 16 ? from + 16 * p->b_col_stride : from, p->b_col_stride, beyond, terms, 16, to + 16, PANEL);
        return;
    }
    const float *from = p->b + k * p->b_row_stride + column;
    __mmask16 low = (__mmask16)(width >= 16 ? 0xffff : (1 << width) - 1);
    __mmask16 high = (__mmask16)(width >= 16 ? (1 << (width - 16)) - 1 : 0);
    for (int64_t i = 0; i < terms; i++) {
        _mm512_storeu_ps(to + i * PANEL, _mm512_maskz_loadu_ps(low, from + i * p->b_row_stride));
        _mm512_storeu_ps(to + i * PANEL + 16, _mm512_maskz_loadu_ps(high, from + i * p->b_row_stride + 16));
    }
}

/* ------------------------------------------------------------------ a tile */

/* Where a tile's sums go: y = start + sum, start NULL: the sums. */
typedef struct tile_target {
    float *y;
    const float *start;
    int64_t y_row_stride, start_row_stride, rows;
    __mmask16 low, high; /* columns that there are */
} tile_target;

/* a + b; of two NaN a's, as the library has it. A compiler may turn a sum's operands round. */
TARGET_INLINE __m512
add_in_order(__m512 a, __m512 b)
{
    __m512 sum;
    __asm__("vaddps %2, %1, %0" : "=v"(sum) : "v"(a), "v"(b));
    return sum;
}

/* `count` rows, of which the target's are stored, over packs of `terms` terms. */
TARGET_INLINE void
run_tile(const int count, const float *a, const float *b, int64_t terms, const tile_target *target)
{
    __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < count; r++) {
        low[r] = high[r] = _mm512_setzero_ps();
        const float *row = target->y + (r < target->rows ? r : 0) * target->y_row_stride; /* is here when the sums are */
        _mm_prefetch((const char *)row, _MM_HINT_T0);
        _mm_prefetch((const char *)(row + 16), _MM_HINT_T0);
    }
    for (int64_t k = 0; k < terms; k++) {
        __m512 w0 = _mm512_loadu_ps(b + k * PANEL), w1 = _mm512_loadu_ps(b + k * PANEL + 16);
#pragma GCC unroll 12
        for (int r = 0; r < count; r++) {
            __m512 x = _mm512_set1_ps(a[k * ROWS + r]);
            low[r] = _mm512_fmadd_ps(x, w0, low[r]);
            high[r] = _mm512_fmadd_ps(x, w1, high[r]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < count; r++) {
        if (r >= target->rows) {
            break;
        }
        float *y = target->y + r * target->y_row_stride;
        if (target->start != NULL) {
            const float *start = target->start + r * target->start_row_stride;
            low[r] = add_in_order(_mm512_maskz_loadu_ps(target->low, start), low[r]);
            high[r] = add_in_order(_mm512_maskz_loadu_ps(target->high, start + 16), high[r]);
        }
        _mm512_mask_storeu_ps(y, target->low, low[r]);
        _mm512_mask_storeu_ps(y + 16, target->high, high[r]);
    }
}

TARGET static void
run_tile_12(const float *a, const float *b, int64_t terms, const tile_target *target)
{
    run_tile(12, a, b, terms, target);
}

TARGET static void
run_tile_8(const float *a, const float *b, int64_t terms, const tile_target *target)
{
    run_tile(8, a, b, terms, target);
}

TARGET static void
run_tile_4(const float *a, const float *b, int64_t terms, const tile_target *target)
{
    run_tile(4, a, b, terms, target);
}

/* ------------------------------------------------------------------ the product */

/* Rows and columns of the product that one thread computes. */
typedef struct chain_part {
    const port_chain *product;
    int64_t row, rows, column, columns;
    float *packed_a, *packed_b;
} chain_part;

/* Terms [k, k + terms) of columns [column, column + columns) of b, packed, with all packed rows. */
static void
run_columns(const chain_part *part, int64_t k, int64_t terms, int64_t column, int64_t columns)
{
    const port_chain *p = part->product;
    for (int64_t i = 0; i < part->rows; i += ROWS) {
        tile_target target = {.y_row_stride = p->y_row_stride, .rows = part->rows - i < ROWS ? part->rows - i : ROWS};
        target.start_row_stride = k > 0 ? p->y_row_stride : p->start_row_stride;
        for (int64_t j = 0; j < columns; j += PANEL) {
            int64_t width = columns - j < PANEL ? columns - j : PANEL;
            target.y = p->y + (part->row + i) * p->y_row_stride + column + j;
            target.start = k > 0 ? target.y : p->start;
            if (k == 0 && p->start != NULL) {
                target.start += (part->row + i) * p->start_row_stride + column + j;
            }
            target.low = (__mmask16)(width >= 16 ? 0xffff : (1 << width) - 1);
            target.high = (__mmask16)(width >= 16 ? (1 << (width - 16)) - 1 : 0);
            const float *a = part->packed_a + i * terms, *b = part->packed_b + j * terms;
            (target.rows > 8 ? run_tile_12 : target.rows > 4 ? run_tile_8 : run_tile_4)(a, b, terms, &target);
        }
    }
}

static void
run_part(const chain_part *part)
{
    const port_chain *p = part->product;
    int64_t block = port_matmul_block_terms(PORT_MATMUL_CHAIN, p->K);
    for (int64_t k = 0; k < p->K; k += block) {
        int64_t terms = p->K - k < block ? p->K - k : block;
        for (int64_t i = 0; i < part->rows; i += ROWS) {
            const float *from = p->a + (part->row + i) * p->a_row_stride + k;
            pack_rows(from, p->a_row_stride, part->rows - i < ROWS ? part->rows - i : ROWS, terms, part->packed_a + i * terms);
        }
        for (int64_t column = part->column; column < part->column + part->columns; column += NC) {
            int64_t columns = part->column + part->columns - column < NC ? part->column + part->columns - column : NC;
            for (int64_t j = 0; j < columns; j += PANEL) {
                pack_panel(p, k, terms, column + j, columns - j < PANEL ? columns - j : PANEL, part->packed_b + j * terms);
            }
            run_columns(part, k, terms, column, columns);
        }
    }
}

/* Rows are dealt where there are more of them than columns, else columns: what a thread packs twice is the smaller operand. */
typedef struct chain_job {
    const port_chain *product;
    float *scratch;
    bool by_rows;
    port_chunks chunks; /* of tiles */
} chain_job;

static void
run_chunk(void *opaque, int64_t chunk)
{
    const chain_job *job = opaque;
    const port_chain *p = job->product;
    int64_t unit = job->by_rows ? ROWS : PANEL, all = job->by_rows ? p->M : p->N;
    int64_t begin = chunk * job->chunks.size * unit, end = begin + job->chunks.size * unit;
    end = end < all ? end : all;
    chain_part part = {.product = p, .rows = p->M, .columns = p->N, .packed_a = job->scratch + chunk * room_of_part(p->M, p->N)};
    part.packed_b = part.packed_a + room_of_a(p->M);
    int64_t last = job->by_rows ? end : p->M;
    part.column = job->by_rows ? 0 : begin;
    part.columns = job->by_rows ? p->N : end - begin;
    for (part.row = job->by_rows ? begin : 0; part.row < last; part.row += MC) {
        part.rows = last - part.row < MC ? last - part.row : MC;
        run_part(&part);
    }
}

void
port_chain_run(const port_chain *product, void *scratch)
{
    chain_job job = {.product = product, .scratch = scratch, .by_rows = product->M > product->N};
    int64_t tiles = job.by_rows ? (product->M + ROWS - 1) / ROWS : (product->N + PANEL - 1) / PANEL;
    int64_t elems = (job.by_rows ? ROWS * product->N : PANEL * product->M) * product->K / 64; /* a multiply-add is far less than an element's work */
    job.chunks = port_chunks_by_elems(tiles, elems, most_parts(product->num_threads));
    port_parallel(job.chunks.count, product->num_threads, run_chunk, &job);
}
#else
void
port_chain_run(const port_chain *product, void *scratch)
{
    (void)product, (void)scratch;
}
#endif
