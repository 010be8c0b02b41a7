/* softmax.c -- softmax and log_softmax along one dimension.
 *     softmax: y = exp(x - m) / sum exp(x - m)     log_softmax: y = (x - m) - log sum exp(x - m)     m = max x
 * f32 as PyTorch's vectorised kernels do (BSD-3-Clause; restated), also for bf16 and f16 with one rounding at the end; f64 within a few ulp.
 *
 * Along the last dimension of row-major data: the sum runs in the lanes of one vector, a partial last vector into its
 * first lanes, and the lanes are then added by halves (one after the other without avx2, or if the row is shorter than a
 * vector). Softmax multiplies by 1 / sum. Along another dimension: sequentially, and it divides; neighbouring lines are the
 * lanes of a vector, and the lines that are left over use libm's exp. */
#include "loops.h"
#include "vecmath.h"


PORT_INLINE float
difference_of(float u, float v)
{
    return u - v;
}

PORT_INLINE float
product_of(float u, float v)
{
    return u * v;
}

PORT_INLINE float
quotient_of(float u, float v)
{
    return u / v;
}

PORT_INLINE float
sum_of(float u, float v)
{
    return u + v;
}

PORT_INLINE float
exp_of_difference(float u, float v)
{
    return port_exp_u10(u - v);
}

/* A NaN wins. */
PORT_INLINE float
larger_of(float u, float v)
{
    return port_select((u > v) | (u != u), u, v);
}

/* Both differences are rounded. */
PORT_INLINE float
log_softmax_of(float v, float max, float log_sum)
{
    return v - max - log_sum;
}

PORT_DEFINE_MAP2(difference_map, difference_of)
PORT_DEFINE_MAP_PQ(log_softmax_map, log_softmax_of)
PORT_DEFINE_MAP2(product_map, product_of)
PORT_DEFINE_MAP2(quotient_map, quotient_of)
PORT_DEFINE_MAP2(sum_map, sum_of)
PORT_DEFINE_MAP2_BODY(exp_map_ref, exp_of_difference, 4, )
#if PORT_HAVE_AVX2
PORT_DEFINE_MAP2_BODY(exp_map_avx2, exp_of_difference, 8, PORT_TARGET_AVX2)

/* AVX-512 has clamps, rounding and scaling as single instructions: sixteen exponentials by them. */
PORT_TARGET_AVX512 static void
exp_map_avx512(int64_t n, const float *x, int64_t x_step, const float *max, int64_t max_step, float *y)
{
    int64_t i = 0;
    for (; i + 16 <= n && x_step == 1; i += 16) {
        __m512 from = max_step != 0 ? _mm512_loadu_ps(max + i) : _mm512_set1_ps(*max);
        _mm512_storeu_ps(y + i, port_exp_u10_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), from)));
    }
    for (; i < n; i++) {
        y[i] = exp_of_difference(x[i * x_step], max[i * max_step]);
    }
}
#endif
PORT_DEFINE_MAP2(larger_map, larger_of)

enum { LANES_MAX = 32 }; /* lanes of the reference's two widest vectors */

/* Lines along the dimension: one, or some that lie side by side. */
typedef struct softmax_line {
    const port_kernel_call *call;
    port_dtype x_dtype, y_dtype; /* the call's; F32 for a row that was widened as a whole */
    const char *x;
    char *y;
    int64_t n, x_stride, y_stride; /* along the line; strides in bytes */
    int64_t width, x_step, y_step; /* lines side by side, and bytes from one to the next */
    int64_t lanes;                 /* of a vector of F32 */
    int64_t group;                 /* elements in a vector of the call's dtype */
    bool is_log, is_half;
    int32_t level;  /* of the row: which builds of the maps may run; same bits, faster */
    bool in_vector; /* among the reference's vectors; else left over behind them */
    bool vector_math; /* the exponentials are the vector functions of avx2 and up, not libm's */
} softmax_line;

/* to = exp(x - max), for one max (step 0) or one for each. */
static void
exp_of(const softmax_line *line, int64_t n, const float *x, const float *max, int64_t max_step, float *to)
{
    if (line->vector_math) {
        PORT_PICK_MAP(exp_map, line->level)(n, x, 1, max, max_step, to);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        to[i] = expf(x[i] - max[i * max_step]);
    }
}

/* Of lines that are left over too: the sums of a block are one array. */
static float
log_of(const softmax_line *line, float sum)
{
    return line->call->profile->capability != PORT_CAP_DEFAULT ? port_log_u10(sum) : logf(sum);
}

/* The largest of n and `best`; a NaN wins. */
PORT_INLINE float
max_of_any(const float *x, int64_t n, float best)
{
    enum { WIDTH = 64 };
    float lanes[WIDTH];
    int32_t has_nan[WIDTH] = {0};
    int64_t i = 0;
    for (int lane = 0; lane < WIDTH; lane++) {
        lanes[lane] = best;
    }
    for (; i + WIDTH <= n; i += WIDTH) {
        for (int lane = 0; lane < WIDTH; lane++) {
            float v = x[i + lane];
            lanes[lane] = port_select(v > lanes[lane], v, lanes[lane]);
            has_nan[lane] |= -(int32_t)(v != v);
        }
    }
    int32_t nan = -(int32_t)(best != best);
    for (int lane = 0; lane < WIDTH; lane++) {
        best = lanes[lane] > best ? lanes[lane] : best;
        nan |= has_nan[lane];
    }
    for (; i < n; i++) {
        best = x[i] > best ? x[i] : best;
        nan |= -(int32_t)(x[i] != x[i]);
    }
    return nan != 0 ? NAN : best;
}

/* acc[lane] += x[i + lane]: for a constant number of lanes, which are added side by side. */
PORT_INLINE void
add_lanes_any(int64_t lanes, int64_t n, const float *x, float *acc)
{
    float sums[LANES_MAX]; /* not in *acc, which x might alias for all the compiler knows */
    int64_t i = 0;
    memcpy(sums, acc, sizeof(sums));
    for (; lanes == 32 && i + 32 <= n; i += 32) {
        for (int lane = 0; lane < 32; lane++) {
            sums[lane] += x[i + lane];
        }
    }
    for (; lanes == 16 && i + 16 <= n; i += 16) {
        for (int lane = 0; lane < 16; lane++) {
            sums[lane] += x[i + lane];
        }
    }
    for (; lanes == 8 && i + 8 <= n; i += 8) {
        for (int lane = 0; lane < 8; lane++) {
            sums[lane] += x[i + lane];
        }
    }
    memcpy(acc, sums, sizeof(sums));
    for (; i < n; i++) {
        acc[i % lanes] += x[i];
    }
}

/* y = exp(x - max), and add_lanes of that. */
PORT_INLINE void
exp_lanes_any(int64_t lanes, int64_t n, const float *x, float max, float *y, float *acc)
{
    float sums[LANES_MAX], e[16];
    int64_t i = 0;
    memcpy(sums, acc, sizeof(sums));
    for (; lanes == 16 && i + 16 <= n; i += 16) {
        for (int lane = 0; lane < 16; lane++) {
            e[lane] = port_exp_u10(x[i + lane] - max);
            sums[lane] += e[lane];
        }
        memcpy(y + i, e, 16 * sizeof(*y));
    }
    for (; lanes == 8 && i + 8 <= n; i += 8) {
        for (int lane = 0; lane < 8; lane++) {
            e[lane] = port_exp_u10(x[i + lane] - max);
            sums[lane] += e[lane];
        }
        memcpy(y + i, e, 8 * sizeof(*y));
    }
    memcpy(acc, sums, sizeof(sums));
    for (; i < n; i++) {
        y[i] = port_exp_u10(x[i] - max);
        acc[i % lanes] += y[i];
    }
}

/* One build of each per level: the same bits. */
#define EXP_LANES(suffix, attributes)                                                                                \
    attributes static void exp_lanes_##suffix(int64_t lanes, int64_t n, const float *x, float max, float *y, float *acc) \
    {                                                                                                                \
        exp_lanes_any(lanes, n, x, max, y, acc);                                                                     \
    }
EXP_LANES(ref, )
#if PORT_HAVE_AVX2
EXP_LANES(avx2, PORT_TARGET_AVX2)

PORT_TARGET_AVX512 static void
exp_lanes_avx512(int64_t lanes, int64_t n, const float *x, float max, float *y, float *acc)
{
    __m512 sums = _mm512_loadu_ps(acc), from = _mm512_set1_ps(max);
    __m256 halves = _mm512_castps512_ps256(sums);
    int64_t i = 0;
    for (; lanes == 16 && i + 16 <= n; i += 16) {
        __m512 e = port_exp_u10_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), from));
        _mm512_storeu_ps(y + i, e);
        sums = _mm512_add_ps(sums, e);
    }
    for (; lanes == 8 && i + 16 <= n; i += 16) {
        __m512 e = port_exp_u10_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), from));
        _mm512_storeu_ps(y + i, e);
        halves = _mm256_add_ps(_mm256_add_ps(halves, _mm512_castps512_ps256(e)), _mm512_extractf32x8_ps(e, 1));
    }
    if (lanes == 16) {
        _mm512_storeu_ps(acc, sums);
    } else {
        _mm256_storeu_ps(acc, halves);
    }
    exp_lanes_any(lanes, n - i, x + i, max, y + i, acc);
}
#endif
#if PORT_HAVE_AVX2
/* As max_of_any but for which of two zeros comes out, which no result tells. */
PORT_TARGET_AVX512 static float
max_of_avx512(const float *x, int64_t n, float best)
{
    __m512 bests[4];
    __mmask16 has_nan = 0;
    int64_t i = 0;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        bests[k] = _mm512_set1_ps(best);
    }
    for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 2
        for (int k = 0; k < 4; k += 2) {
            __m512 u = _mm512_loadu_ps(x + i + 16 * k), v = _mm512_loadu_ps(x + i + 16 * k + 16);
            bests[k] = _mm512_max_ps(u, bests[k]);
            bests[k + 1] = _mm512_max_ps(v, bests[k + 1]);
            has_nan |= _mm512_cmp_ps_mask(u, v, _CMP_UNORD_Q); /* of either */
        }
    }
    __m512 all = _mm512_max_ps(_mm512_max_ps(bests[0], bests[1]), _mm512_max_ps(bests[2], bests[3]));
    best = has_nan != 0 || best != best ? NAN : _mm512_reduce_max_ps(all);
    return max_of_any(x + i, n - i, best);
}
#endif
#define LEVEL(suffix, attributes)                                                                                    \
    attributes static void add_lanes_##suffix(int64_t lanes, int64_t n, const float *x, float *acc)                  \
    {                                                                                                                \
        add_lanes_any(lanes, n, x, acc);                                                                             \
    }
#define MAX_OF(suffix, attributes)                                                                                   \
    attributes static float max_of_##suffix(const float *x, int64_t n, float best)                                   \
    {                                                                                                                \
        return max_of_any(x, n, best);                                                                               \
    }
LEVEL(ref, )
MAX_OF(ref, )
#if PORT_HAVE_AVX2
LEVEL(avx2, PORT_TARGET_AVX2)
LEVEL(avx512, PORT_TARGET_AVX512)
MAX_OF(avx2, PORT_TARGET_AVX2)
#endif

/* ---------------------------------------------------------------- along the last dimension */

/* m <= PORT_BLOCK elements from element i on: where they lie, or loaded into `room`. */
static const float *
block_at(const softmax_line *line, int64_t i, int64_t m, float *room)
{
    const char *from = line->x + i * line->x_stride;
    if (line->x_dtype == PORT_F32 && line->x_stride == 4) {
        return (const float *)(const void *)from;
    }
    port_load_f32(line->x_dtype, from, line->x_stride, m, room);
    return room;
}

/* Where the results of such a block are to be made. */
static float *
target_at(const softmax_line *line, int64_t i, float *room)
{
    bool direct = line->y_dtype == PORT_F32 && line->y_stride == 4;
    return direct ? (float *)(void *)(line->y + i * line->y_stride) : room;
}

static void
store_block(const softmax_line *line, int64_t i, int64_t m, const float *made)
{
    char *to = line->y + i * line->y_stride;
    if ((const char *)made != to) {
        port_store_f32(line->y_dtype, made, m, to, line->y_stride);
    }
}

/* Whether a row is read and written where it lies, and so need not go by blocks. */
static bool
lies_dense(const softmax_line *line)
{
    return line->x_dtype == PORT_F32 && line->y_dtype == PORT_F32 && line->x_stride == 4 && line->y_stride == 4;
}

static float
max_of_line(const softmax_line *line)
{
    float room[PORT_BLOCK], best = -INFINITY;
    int64_t step = lies_dense(line) ? line->n : PORT_BLOCK;
    for (int64_t i = 0; i < line->n; i += step) {
        int64_t m = line->n - i < step ? line->n - i : step;
        best = PORT_PICK_MAP(max_of, line->level)(block_at(line, i, m, room), m, best);
    }
    return best;
}

static float
sum_of_lanes(const softmax_line *line, float *acc, int64_t count)
{
    bool halving = line->call->profile->capability != PORT_CAP_DEFAULT && count == line->lanes;
    return port_add_lanes(acc, count, halving);
}

/* Sum of exp(x - max) over the first n; with `keep`, y gets the exponentials (f32 only: of halves that are not widened as a whole they
 * are computed twice). */
static float
sum_of_exp(const softmax_line *line, int64_t n, float max, bool keep)
{
    float room[PORT_BLOCK], made[PORT_BLOCK], acc[LANES_MAX] = {0};
    int64_t step = keep && lies_dense(line) ? n : PORT_BLOCK;
    for (int64_t i = 0; i < n; i += step) {
        int64_t m = n - i < step ? n - i : step;
        float *to = keep ? target_at(line, i, made) : made;
        const float *x = block_at(line, i, m, room);
        if (line->vector_math) {
            PORT_PICK_MAP(exp_lanes, line->level)(line->lanes, m, x, max, to, acc);
        } else {
            exp_of(line, m, x, &max, 0, to);
            PORT_PICK_MAP(add_lanes, line->level)(line->lanes, m, to, acc);
        }
        if (keep) {
            store_block(line, i, m, to);
        }
    }
    return sum_of_lanes(line, acc, n < line->lanes ? n : line->lanes);
}

/* The same for log_softmax of halves: in the lanes of two vectors, which are added first. Of a row that does not fill both the lanes are
 * added one after the other. The sum is rounded to the half. */
static float
log_sum_of_half(const softmax_line *line, float max)
{
    float room[PORT_BLOCK], made[PORT_BLOCK], acc[LANES_MAX] = {0};
    for (int64_t i = 0; i < line->n; i += PORT_BLOCK) {
        int64_t m = line->n - i < PORT_BLOCK ? line->n - i : PORT_BLOCK;
        exp_of(line, m, block_at(line, i, m, room), &max, 0, made);
        PORT_PICK_MAP(add_lanes, line->level)(line->group, m, made, acc);
    }
    for (int64_t k = 0; k < line->lanes; k++) {
        acc[k] += acc[line->lanes + k];
    }
    port_dtype dtype = line->call->in[0]->dtype;
    bool halving = line->call->profile->capability != PORT_CAP_DEFAULT && line->n >= line->group;
    float sum = port_add_lanes(acc, line->n < line->lanes ? line->n : line->lanes, halving);
    return port_rounded(dtype, log_of(line, port_rounded(dtype, sum)));
}

/* Elements from `begin` on that fill no vector, of a row of halves: libm's exponentials, added one after the other. */
static float
add_rest_of_half(const softmax_line *line, int64_t begin, float max, bool keep, float sum)
{
    float room[LANES_MAX], made[LANES_MAX];
    int64_t m = line->n - begin;
    const float *x = block_at(line, begin, m, room);
    float *to = keep ? target_at(line, begin, made) : made;
    for (int64_t k = 0; k < m; k++) {
        to[k] = expf(x[k] - max);
        sum += to[k];
    }
    if (keep) {
        store_block(line, begin, m, to);
    }
    return sum;
}

/* y = exp(x - max) * inverse, or y * inverse where y holds the exponentials already. */
static void
scale_line(const softmax_line *line, int64_t begin, int64_t end, bool keep, float max, float inverse)
{
    float room[PORT_BLOCK], made[PORT_BLOCK];
    softmax_line kept = *line;
    kept.x = line->y, kept.x_stride = line->y_stride;
    int64_t step = lies_dense(line) && end > begin ? end - begin : PORT_BLOCK;
    for (int64_t i = begin; i < end; i += step) {
        int64_t m = end - i < step ? end - i : step;
        const float *x = block_at(keep ? &kept : line, i, m, room);
        float *to = target_at(line, i, made);
        if (!keep) {
            exp_of(line, m, x, &max, 0, to);
            x = to;
        }
        PORT_PICK_MAP(product_map, line->level)(m, x, 1, &inverse, 0, to);
        store_block(line, i, m, to);
    }
}

static void
softmax_line_f32(const softmax_line *line)
{
    float max = max_of_line(line);
    bool keep = line->x_dtype == PORT_F32;
    int64_t whole = line->is_half ? line->n / line->lanes * line->lanes : line->n;
    float sum = sum_of_exp(line, whole, max, keep);
    sum = whole < line->n ? add_rest_of_half(line, whole, max, keep, sum) : sum;
    softmax_line rest = *line;
    rest.vector_math = false;
    scale_line(line, 0, whole, keep, max, 1.0f / sum);
    scale_line(&rest, whole, line->n, keep, max, 1.0f / sum);
}

static void
log_softmax_line_f32(const softmax_line *line)
{
    float max = max_of_line(line), room[PORT_BLOCK], made[PORT_BLOCK];
    float log_sum = line->is_half ? log_sum_of_half(line, max) : log_of(line, sum_of_exp(line, line->n, max, false));
    int64_t step = lies_dense(line) ? line->n : PORT_BLOCK;
    for (int64_t i = 0; i < line->n; i += step) {
        int64_t m = line->n - i < step ? line->n - i : step;
        float *to = target_at(line, i, made);
        PORT_PICK_MAP(log_softmax_map, line->level)(m, block_at(line, i, m, room), max, log_sum, to);
        store_block(line, i, m, to);
    }
}

static void
softmax_row_f32(const softmax_line *line)
{
    (line->is_log ? log_softmax_line_f32 : softmax_line_f32)(line);
}

enum { ROW_MAX = 8192 }; /* elements of a row of halves that are widened as a whole */

/* A row of halves: the same as block by block, where each of its elements is widened once and has one exponential. */
static void
softmax_line_half(const softmax_line *line)
{
    _Alignas(64) float row[ROW_MAX];
    if (line->n > ROW_MAX) {
        softmax_row_f32(line);
        return;
    }
    softmax_line wide = *line;
    port_load_f32(line->x_dtype, line->x, line->x_stride, line->n, row);
    wide.x_dtype = wide.y_dtype = PORT_F32;
    wide.x = wide.y = (char *)row;
    wide.x_stride = wide.y_stride = sizeof(*row);
    softmax_row_f32(&wide);
    port_store_f32(line->y_dtype, row, line->n, line->y, line->y_stride);
}

/* ---------------------------------------------------------------- along another dimension: lines side by side */

/* Element i of each line. */
static const float *
row_at(const softmax_line *line, int64_t i, float *room)
{
    const char *from = line->x + i * line->x_stride;
    if (line->x_dtype == PORT_F32 && line->x_step == 4) {
        return (const float *)(const void *)from;
    }
    port_load_f32(line->x_dtype, from, line->x_step, line->width, room);
    return room;
}

static void
softmax_lines_f32(const softmax_line *line)
{
    float max[PORT_BLOCK], sum[PORT_BLOCK] = {0}, room[PORT_BLOCK], made[PORT_BLOCK];
    const int64_t width = line->width;
    for (int64_t k = 0; k < width; k++) {
        max[k] = -INFINITY;
    }
    for (int64_t i = 0; i < line->n; i++) {
        PORT_PICK_MAP(larger_map, line->level)(width, row_at(line, i, room), 1, max, 1, max);
    }
    for (int64_t i = 0; i < line->n; i++) {
        exp_of(line, width, row_at(line, i, room), max, 1, made);
        PORT_PICK_MAP(sum_map, line->level)(width, sum, 1, made, 1, sum);
    }
    for (int64_t k = 0; line->is_log && k < width; k++) {
        sum[k] = log_of(line, sum[k]);
    }
    for (int64_t i = 0; i < line->n; i++) {
        const float *x = row_at(line, i, room);
        if (line->is_log) {
            PORT_PICK_MAP(difference_map, line->level)(width, x, 1, max, 1, made);
            PORT_PICK_MAP(difference_map, line->level)(width, made, 1, sum, 1, made);
        } else {
            exp_of(line, width, x, max, 1, made);
            for (int64_t k = 0; line->is_half && !line->in_vector && k < width; k++) {
                made[k] = port_rounded(line->x_dtype, made[k]); /* they are kept in the result */
            }
            PORT_PICK_MAP(quotient_map, line->level)(width, made, 1, sum, 1, made);
        }
        port_store_f32(line->y_dtype, made, width, line->y + i * line->y_stride, line->y_step);
    }
}

static void
softmax_line_f64(const softmax_line *line)
{
    double max = -(double)INFINITY, sum = 0.0, value;
    for (int64_t i = 0; i < line->n; i++) {
        memcpy(&value, line->x + i * line->x_stride, sizeof(value));
        max = value > max || value != value ? value : max;
        if (max != max) {
            break;
        }
    }
    for (int64_t i = 0; i < line->n; i++) {
        memcpy(&value, line->x + i * line->x_stride, sizeof(value));
        sum += exp(value - max);
    }
    double log_sum = log(sum);
    for (int64_t i = 0; i < line->n; i++) {
        memcpy(&value, line->x + i * line->x_stride, sizeof(value));
        value = line->is_log ? value - max - log_sum : exp(value - max) / sum;
        memcpy(line->y + i * line->y_stride, &value, sizeof(value));
    }
}

static int32_t
dim_of(const port_kernel_call *call)
{
    return ((const port_softmax_params *)call->params)->dim;
}

/* Whether line i of `lines` is in a vector of neighbours. `inner` lines lie side by side; softmax cuts all lines into the threads'
 * ranges, log_softmax cuts each row of lines into blocks of 128 KiB. */
static bool
is_in_vector(const softmax_line *line, int64_t i, int64_t lines, int64_t inner)
{
    int64_t place = i % inner, begin = 0, end = inner;
    if (line->is_log) {
        int64_t block = 128 * 1024 / line->n / (int64_t)port_dtype_size(line->x_dtype);
        block = (block > line->group ? block : line->group) / line->group * line->group;
        begin = place / block * block;
        end = begin + block < inner ? begin + block : inner;
        return place < end - (end - begin) % line->group;
    }
    port_chunks chunks = port_chunks_of(lines, 1, line->call->profile->num_threads);
    int64_t row = i - place, chunk = i / chunks.size * chunks.size;
    begin = chunk > row ? chunk - row : 0;
    end = chunk + chunks.size < row + inner ? chunk + chunks.size - row : inner;
    end = end < lines - row ? end : lines - row;
    return place < end - (end - begin) % line->group;
}

/* How many lines from line i on lie side by side and are computed alike: at least 1, at most PORT_BLOCK. */
static int64_t
lines_alike(const softmax_line *line, int64_t i, int64_t lines, int64_t inner)
{
    const port_view *x = line->call->in[0];
    int64_t in_row = x->shape[x->ndim - 1], most = in_row - i % in_row;
    most = most < PORT_BLOCK ? most : PORT_BLOCK;
    bool first = is_in_vector(line, i, lines, inner);
    int64_t count = 1;
    while (count < most && is_in_vector(line, i + count, lines, inner) == first) {
        count++;
    }
    return count;
}

static softmax_line
line_shape(const port_kernel_call *call, int32_t dim, bool is_log, int32_t level)
{
    const port_view *x = call->in[0], *y = call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    softmax_line line = {.call = call, .x_dtype = x->dtype, .y_dtype = y->dtype, .is_log = is_log, .level = level, .width = 1};
    line.lanes = call->profile->capability == PORT_CAP_AVX512 ? 16 : 8;
    line.group = line.lanes * (int64_t)sizeof(float) / bytes;
    line.is_half = x->dtype == PORT_BF16 || x->dtype == PORT_F16;
    line.n = x->ndim > 0 ? x->shape[dim] : 1;
    line.x_stride = x->ndim > 0 ? x->strides[dim] * bytes : bytes;
    line.y_stride = y->ndim > 0 ? y->strides[dim] * bytes : bytes;
    line.x_step = x->ndim > 0 ? x->strides[x->ndim - 1] * bytes : bytes;
    line.y_step = y->ndim > 0 ? y->strides[y->ndim - 1] * bytes : bytes;
    return line;
}

typedef struct softmax_job {
    softmax_line line; /* of the shape of all */
    int64_t lines, inner;
    port_chunks chunks;
    bool is_last;
} softmax_job;

static void
place_line(softmax_line *line, int64_t i)
{
    const port_view *x = line->call->in[0], *y = line->call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    int32_t dim = x->ndim > 0 ? dim_of(line->call) : 0;
    line->x = x->data, line->y = y->data;
    for (int32_t d = x->ndim - 1; d >= 0; d--) {
        if (d != dim) {
            line->x += i % x->shape[d] * x->strides[d] * bytes;
            line->y += i % x->shape[d] * y->strides[d] * bytes;
            i /= x->shape[d];
        }
    }
}

static void
softmax_range(void *opaque, int64_t chunk)
{
    const softmax_job *job = opaque;
    softmax_line line = job->line;
    const port_view *x = line.call->in[0];
    bool has_vectors = line.call->profile->capability != PORT_CAP_DEFAULT;
    int64_t begin = chunk * job->chunks.size, end = begin + job->chunks.size;
    end = end < job->lines ? end : job->lines;
    for (int64_t i = begin; i < end && line.n > 0; i += line.width) {
        line.in_vector = job->is_last || is_in_vector(&line, i, job->lines, job->inner);
        line.vector_math = has_vectors && line.in_vector;
        line.width = job->is_last || x->dtype == PORT_F64 ? 1 : lines_alike(&line, i, job->lines, job->inner);
        line.width = line.width < end - i ? line.width : end - i;
        place_line(&line, i);
        if (x->dtype == PORT_F64) {
            softmax_line_f64(&line);
        } else if (job->is_last) {
            (x->dtype == PORT_F32 ? softmax_row_f32 : softmax_line_half)(&line);
        } else {
            softmax_lines_f32(&line);
        }
    }
}

static void
softmax_any(const port_kernel_call *call, bool is_log, int32_t level)
{
    const port_view *x = call->in[0];
    int32_t dim = x->ndim > 0 ? dim_of(call) : 0;
    softmax_job job = {.line = line_shape(call, dim, is_log, level), .lines = 1, .inner = 1};
    job.is_last = dim == x->ndim - 1 || x->ndim == 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        job.lines *= d == dim ? 1 : x->shape[d];
        job.inner *= d > dim ? x->shape[d] : 1;
    }
    int64_t grain = PORT_GRAIN_SIZE / (job.line.n > 0 ? job.line.n : 1);
    job.chunks = port_chunks_of(job.lines, grain > 1 ? grain : 1, call->profile->num_threads);
    port_parallel(job.chunks.count, call->profile->num_threads, softmax_range, &job);
}

static port_status
softmax_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("softmax", call, 1, err);
    if (status != PORT_OK) {
        return status;
    }
    if (call->in[0]->dtype != call->out[0]->dtype) {
        return port_fail(err, PORT_E_DTYPE, "softmax: the output is %s, the input %s", port_dtype_name(call->out[0]->dtype),
                         port_dtype_name(call->in[0]->dtype));
    }
    if (call->params == NULL || (call->in[0]->ndim > 0 && (dim_of(call) < 0 || dim_of(call) >= call->in[0]->ndim))) {
        return port_fail(err, PORT_E_VALUE, "softmax: dimension %d of a tensor with %d dimensions",
                         call->params == NULL ? -1 : dim_of(call), call->in[0]->ndim);
    }
    return PORT_OK;
}

#define RUN(name, is_log, suffix, level)                                                                             \
    static void name##_run##suffix(const port_kernel_call *call)                                                     \
    {                                                                                                                \
        softmax_any(call, is_log, level);                                                                            \
    }
RUN(softmax, false, , 0)
RUN(log_softmax, true, , 0)
#if PORT_HAVE_AVX2
RUN(softmax, false, _avx2, 1)
RUN(log_softmax, true, _avx2, 1)
RUN(softmax, false, _avx512, 2)
RUN(log_softmax, true, _avx512, 2)
#endif

#define SIMD(name, variant, level)                                                                                   \
    PORT_ROW(#name, PORT_F32, #variant, level, softmax_check, name##_run_##variant),                                 \
        PORT_ROW(#name, PORT_BF16, #variant, level, softmax_check, name##_run_##variant),                            \
        PORT_ROW(#name, PORT_F16, #variant, level, softmax_check, name##_run_##variant)

const port_kernel_row port_softmax_rows[] = {
    PORT_FLOAT_ROWS("softmax", "ref", 0, softmax_check, softmax_run),
    PORT_FLOAT_ROWS("log_softmax", "ref", 0, softmax_check, log_softmax_run),
#if PORT_HAVE_AVX2
    SIMD(softmax, avx2, 1),
    SIMD(log_softmax, avx2, 1),
    SIMD(softmax, avx512, 2),
    SIMD(log_softmax, avx512, 2),
#endif
    {.op = NULL},
};
