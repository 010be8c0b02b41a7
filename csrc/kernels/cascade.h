/* cascade.h -- the sum that PyTorch's SumKernel forms (BSD-3-Clause; algorithm restated), for one type of accumulator.
 *
 * Template: the includer defines CASCADE_REAL (float or double), CASCADE(name) (adds a suffix), CASCADE_LOAD, CASCADE_STORE and CASCADE_TARGET
 * (attributes of a CPU level, or nothing; the same bits), and gets static functions.
 *
 * A long sum is kept in four levels: level 0 adds `step` rows, then spills into level 1, and so on, so that rounding errors grow with
 * the fourth root of the length. Four rows run side by side, each a vector of `lanes` elements (or 1). */

enum { CASCADE(LEVELS) = 4, CASCADE(ROWS) = 4, CASCADE(GROUPS) = 4, CASCADE(WIDENED) = 8192 };

/* Where an element stands: base + i * row_stride + k * col_stride + lane * elem_bytes, strides in bytes. */
typedef struct CASCADE(source) {
    port_dtype dtype;
    int32_t lanes; /* 1, or all lanes of a vector */
    bool pairs;    /* half floats inside a vector: elements lane and lane + lanes are added before */
    int64_t elem_bytes;
} CASCADE(source);

CASCADE_TARGET static inline void
CASCADE(load)(const CASCADE(source) *source, const char *at, CASCADE_REAL *to)
{
    int32_t lanes = source->lanes;
    if (source->dtype == (sizeof(CASCADE_REAL) == 4 ? PORT_F32 : PORT_F64)) {
        memcpy(to, at, (size_t)lanes * sizeof(CASCADE_REAL));
        return;
    }
    CASCADE_LOAD(source->dtype, at, source->elem_bytes, lanes, to);
    if (source->pairs) {
        CASCADE_REAL second[8];
        CASCADE_LOAD(source->dtype, at + lanes * source->elem_bytes, source->elem_bytes, lanes, second);
        for (int32_t lane = 0; lane < lanes; lane++) {
            to[lane] += second[lane];
        }
    }
}

/* A vector of the accumulator's type, wherever it lies. */
typedef CASCADE_REAL CASCADE(vector) __attribute__((vector_size(32), aligned(sizeof(CASCADE_REAL)), may_alias));

/* Whole vectors of the accumulator's type as they lie. */
CASCADE_TARGET static inline bool
CASCADE(is_dense)(const CASCADE(source) *source)
{
    return source->dtype == (sizeof(CASCADE_REAL) == 4 ? PORT_F32 : PORT_F64) && source->lanes == 32 / (int32_t)sizeof(CASCADE_REAL);
}

/* The sums of the rows' vectors, for a dense source. The four have names, as compilers leave an array of them in memory. */
CASCADE_TARGET PORT_INLINE void
CASCADE(sum_dense_rows)(const char *at, int64_t row_stride, int64_t col_stride, int64_t rows, CASCADE(vector) *to0, CASCADE(vector) *to1,
                        CASCADE(vector) *to2, CASCADE(vector) *to3)
{
    CASCADE(vector) sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    const bool far = row_stride >= 1024 || row_stride <= -1024;
    for (int64_t i = 0; i < rows && far; i++) { /* the processor fetches ahead within a page only */
        const uintptr_t ahead = (uintptr_t)at + (uintptr_t)(i + 12) * (uintptr_t)row_stride;
        __builtin_prefetch((const void *)ahead);
        __builtin_prefetch((const void *)(ahead + 64));
    }
    for (int64_t i = 0; i < rows; i++, at += row_stride) {
        sum0 += *(const CASCADE(vector) *)(const void *)at;
        sum1 += *(const CASCADE(vector) *)(const void *)(at + col_stride);
        sum2 += *(const CASCADE(vector) *)(const void *)(at + 2 * col_stride);
        sum3 += *(const CASCADE(vector) *)(const void *)(at + 3 * col_stride);
    }
    *to0 = sum0, *to1 = sum1, *to2 = sum2, *to3 = sum3;
}

/* multi_row_sum_by of a dense source that comes to use two levels at most: both stay in registers. */
CASCADE_TARGET static void
CASCADE(sum_dense_short)(const char *base, int64_t row_stride, int64_t col_stride, int64_t size, CASCADE(vector) *part)
{
    CASCADE(vector) level0 = {0}, level1 = {0}, level2 = {0}, level3 = {0}, sum0, sum1, sum2, sum3;
    int64_t i = 0;
    for (; i + 16 <= size; i += 16) {
        CASCADE(sum_dense_rows)(base + i * row_stride, row_stride, col_stride, 16, &sum0, &sum1, &sum2, &sum3);
        level0 += sum0, level1 += sum1, level2 += sum2, level3 += sum3;
    }
    CASCADE(sum_dense_rows)(base + i * row_stride, row_stride, col_stride, size - i, &sum0, &sum1, &sum2, &sum3);
    part[0] = sum0 + level0, part[1] = sum1 + level1, part[2] = sum2 + level2, part[3] = sum3 + level3;
}

/* acc[k * lanes + lane] += row i. */
CASCADE_TARGET static inline void
CASCADE(add_row)(const CASCADE(source) *source, const char *at, int64_t col_stride, CASCADE_REAL *acc)
{
    const int32_t lanes = source->lanes;
    for (int32_t k = 0; k < CASCADE(ROWS); k++, at += col_stride) {
        CASCADE_REAL value[8];
        CASCADE(load)(source, at, value);
        for (int32_t lane = 0; lane < lanes; lane++) {
            acc[k * lanes + lane] += value[lane];
        }
    }
}

/* The same of `groups` times four vectors of another type in a row, which lie side by side: a few rows at a time as those of the accumulator's type. */
CASCADE_TARGET static void
CASCADE(sum_widened_rows)(const CASCADE(source) *source, int32_t groups, const char *at, int64_t row_stride, int64_t rows, CASCADE(vector) *sums)
{
    enum { MOST = 4 };
    const int32_t vectors = CASCADE(ROWS) * groups;
    const int64_t elems = vectors * source->lanes * (source->pairs ? 2 : 1), most = MOST * CASCADE(GROUPS) / groups;
    const bool joined = row_stride == elems * source->elem_bytes;
    CASCADE(vector) wide[MOST * CASCADE(GROUPS) * CASCADE(ROWS) * 2];
    CASCADE_REAL *to = (CASCADE_REAL *)wide;
    memset(sums, 0, (size_t)vectors * sizeof(*sums));
    for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = rows - first < most ? rows - first : most;
        for (int64_t i = 0; i < count; i += joined ? count : 1) {
            CASCADE_LOAD(source->dtype, at + (first + i) * row_stride, source->elem_bytes, joined ? count * elems : elems, to + i * elems);
        }
        for (int64_t v = 0; v < count * vectors && source->pairs; v++) {
            wide[v] = wide[2 * v] + wide[2 * v + 1];
        }
        for (int64_t i = 0; i < count; i++) {
            for (int32_t k = 0; k < vectors; k++) {
                sums[k] += wide[i * vectors + k];
            }
        }
    }
}

/* The same for any source; sums[k * lanes + lane], beyond them zeros. */
CASCADE_TARGET static void
CASCADE(sum_any_rows)(const CASCADE(source) *source, const char *at, int64_t row_stride, int64_t col_stride, int64_t rows,
                      CASCADE(vector) *sums)
{
    const int64_t vector_bytes = 32 / (int64_t)sizeof(CASCADE_REAL) * source->elem_bytes * (source->pairs ? 2 : 1);
    if (source->lanes > 1 && col_stride == vector_bytes) {
        CASCADE(sum_widened_rows)(source, 1, at, row_stride, rows, sums);
        return;
    }
    memset(sums, 0, CASCADE(ROWS) * sizeof(*sums));
    for (int64_t i = 0; i < rows; i++) {
        CASCADE(add_row)(source, at + i * row_stride, col_stride, (CASCADE_REAL *)sums);
    }
}

/* Four rows of sums over i < size, into element k * lanes + lane of the four vectors; of vectors side by side as many groups of four as `groups`
 * says, which walk the rows together. */
CASCADE_TARGET PORT_INLINE void
CASCADE(multi_row_sum_by)(const CASCADE(source) *source, bool dense, int32_t groups, const char *base, int64_t row_stride, int64_t col_stride,
                          int64_t size, CASCADE(vector) *part)
{
    const int32_t log2 = size > 2 ? 64 - __builtin_clzll((unsigned long long)(size - 1)) : 1; /* ceil(log2 size), at least 1 */
    const int32_t power = log2 / CASCADE(LEVELS) > 4 ? log2 / CASCADE(LEVELS) : 4, rows = CASCADE(ROWS) * groups;
    const int64_t step = (int64_t)1 << power, mask = step - 1;
    CASCADE(vector) acc[CASCADE(LEVELS)][CASCADE(ROWS) * CASCADE(GROUPS)]; /* level 0 is `part` */
    int32_t levels = 1; /* that come to be used; the reference adds the zeros of the others, which changes nothing: no sum is -0 */
    while (levels < CASCADE(LEVELS) && size >> (levels * power) > 0) {
        memset(acc[levels++], 0, (size_t)rows * sizeof(acc[0][0]));
    }
    for (int64_t i = 0;; ) {
        const int64_t count = i + step <= size ? step : size - i;
        const char *from = base + i * row_stride;
        for (int32_t g = 0; g < groups && dense; g++) {
            CASCADE(vector) *to = part + g * CASCADE(ROWS);
            CASCADE(sum_dense_rows)(from + g * CASCADE(ROWS) * col_stride, row_stride, col_stride, count, to, to + 1, to + 2, to + 3);
        }
        if (!dense && groups == 1) {
            CASCADE(sum_any_rows)(source, from, row_stride, col_stride, count, part);
        } else if (!dense) {
            CASCADE(sum_widened_rows)(source, groups, from, row_stride, count, part);
        }
        i += count;
        if (count < step) {
            break;
        }
        for (int32_t k = 0; k < rows; k++) {
            acc[1][k] += part[k];
        }
        for (int32_t level = 2; level < levels && (i & (mask << ((level - 1) * power))) == 0; level++) {
            for (int32_t k = 0; k < rows; k++) {
                acc[level][k] += acc[level - 1][k];
                acc[level - 1][k] = (CASCADE(vector)){0};
            }
        }
    }
    for (int32_t level = 1; level < levels; level++) {
        for (int32_t k = 0; k < rows; k++) {
            part[k] += acc[level][k];
        }
    }
}

CASCADE_TARGET static void
CASCADE(multi_row_sum)(const CASCADE(source) *source, const char *base, int64_t row_stride, int64_t col_stride, int64_t size,
                       CASCADE(vector) *sums)
{
    if (CASCADE(is_dense)(source) && size < 16 * 16) {
        CASCADE(sum_dense_short)(base, row_stride, col_stride, size, sums);
    } else if (CASCADE(is_dense)(source)) {
        CASCADE(multi_row_sum_by)(source, true, 1, base, row_stride, col_stride, size, sums);
    } else {
        CASCADE(multi_row_sum_by)(source, false, 1, base, row_stride, col_stride, size, sums);
    }
}

/* One row: its elements i*stride are dealt to four rows, the rest goes to the first, which then takes the others. */
CASCADE_TARGET static void
CASCADE(row_sum)(const CASCADE(source) *source, const char *base, int64_t stride, int64_t size, CASCADE(vector) *sum)
{
    const int32_t lanes = source->lanes;
    const bool dense = CASCADE(is_dense)(source);
    CASCADE(vector) row[CASCADE(ROWS)];
    CASCADE_REAL *partial = (CASCADE_REAL *)row, value[8];
    int64_t dealt = size / CASCADE(ROWS);
    CASCADE(multi_row_sum)(source, base, stride * CASCADE(ROWS), stride, dealt, row);
    for (int64_t i = dealt * CASCADE(ROWS); i < size && dense; i++) {
        row[0] += *(const CASCADE(vector) *)(const void *)(base + i * stride);
    }
    for (int64_t i = dealt * CASCADE(ROWS); i < size && !dense; i++) {
        CASCADE(load)(source, base + i * stride, value);
        for (int32_t lane = 0; lane < lanes; lane++) {
            partial[lane] += value[lane];
        }
    }
    if (dense) {
        *sum = row[0] + row[1] + row[2] + row[3];
        return;
    }
    for (int32_t k = 1; k < CASCADE(ROWS); k++) {
        for (int32_t lane = 0; lane < lanes; lane++) {
            partial[lane] += partial[k * lanes + lane];
        }
    }
    *sum = row[0];
}

/* row_sum of `vectors` vectors of another type that lie side by side, at most WIDENED elements: as one dense row of the accumulator's type. */
CASCADE_TARGET static void
CASCADE(widened_sum)(const CASCADE(source) *source, const char *row, int64_t vectors, CASCADE(vector) *sum)
{
    const int32_t lanes = source->lanes;
    const CASCADE(source) dense = {sizeof(CASCADE_REAL) == 4 ? PORT_F32 : PORT_F64, lanes, false, sizeof(CASCADE_REAL)};
    CASCADE_REAL wide[CASCADE(WIDENED)];
    CASCADE_LOAD(source->dtype, row, source->elem_bytes, vectors * lanes * (source->pairs ? 2 : 1), wide);
    CASCADE(vector) *to = (CASCADE(vector) *)(void *)wide;
    for (int64_t v = 0; v < vectors && source->pairs; v++) {
        to[v] = to[2 * v] + to[2 * v + 1];
    }
    CASCADE(row_sum)(&dense, (const char *)wide, 32, vectors, sum);
}

/* A contiguous row of n elements: vectors first, then what is left one by one, then the lanes in order. */
CASCADE_TARGET static CASCADE_REAL
CASCADE(inner_sum)(port_dtype dtype, const char *row, int64_t n, bool pairs)
{
    const int64_t elem_bytes = (int64_t)port_dtype_size(dtype);
    const int32_t lanes = 32 / (int32_t)sizeof(CASCADE_REAL), per_vector = pairs ? 2 * lanes : lanes;
    CASCADE(source) vector = {dtype, lanes, pairs, elem_bytes}, scalar = {dtype, 1, false, elem_bytes};
    CASCADE_REAL value, total = 0;
    CASCADE(vector) lane_sums;
    int64_t vectors = n / per_vector;
    if (!CASCADE(is_dense)(&vector) && n <= CASCADE(WIDENED)) {
        CASCADE(widened_sum)(&vector, row, vectors, &lane_sums);
    } else {
        CASCADE(row_sum)(&vector, row, per_vector * elem_bytes, vectors, &lane_sums);
    }
    for (int64_t i = vectors * per_vector; i < n; i++) {
        CASCADE(load)(&scalar, row + i * elem_bytes, &value);
        total += value;
    }
    for (int32_t lane = 0; lane < lanes; lane++) {
        total += lane_sums[lane];
    }
    return total;
}

/* out += sums. An output of another dtype takes each sum rounded to that dtype, and the total is rounded again: a reduction over dimensions that do not
 * merge comes here once for each of their rows. */
CASCADE_TARGET static void
CASCADE(accumulate)(char *out, port_dtype dtype, const CASCADE_REAL *sums, int32_t count, int64_t out_stride)
{
    const bool own = dtype == (sizeof(CASCADE_REAL) == 4 ? PORT_F32 : PORT_F64);
    for (int32_t i = 0; i < count; i++) {
        CASCADE_REAL value, sum;
        char rounded[sizeof(CASCADE_REAL)];
        if (own) {
            memcpy(&value, out + i * out_stride, sizeof(value));
            value += sums[i];
            memcpy(out + i * out_stride, &value, sizeof(value));
            continue;
        }
        CASCADE_STORE(dtype, &sums[i], 1, rounded, 0);
        CASCADE_LOAD(dtype, rounded, 0, 1, &sum);
        CASCADE_LOAD(dtype, out + i * out_stride, 0, 1, &value);
        value += sum;
        CASCADE_STORE(dtype, &value, 1, out + i * out_stride, out_stride);
    }
}

/* One piece of the reduction, dimensions already turned so that size0 is the reduced one: out[j] += sum_i in[i, j]. */
CASCADE_TARGET static void
CASCADE(reduce_piece)(port_dtype dtype, bool pairs, port_dtype out_dtype, char *out, int64_t out_stride, const char *in,
                      const int64_t *in_strides, int64_t size0, int64_t size1)
{
    const int64_t elem_bytes = (int64_t)port_dtype_size(dtype);
    const int32_t lanes = 32 / (int32_t)sizeof(CASCADE_REAL);
    const int64_t least = pairs ? 2 * lanes : lanes;
    CASCADE(source) vector = {dtype, lanes, false, elem_bytes}, scalar = {dtype, 1, false, elem_bytes};
    CASCADE(vector) part[CASCADE(ROWS) * CASCADE(GROUPS)];
    CASCADE_REAL *sums = (CASCADE_REAL *)part;
    int64_t j = 0;
    if (in_strides[0] == elem_bytes && size0 >= least) {
        for (; j < size1; j++) {
            sums[0] = CASCADE(inner_sum)(dtype, in + j * in_strides[1], size0, pairs);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, 1, out_stride);
        }
        return;
    }
    bool outer = in_strides[1] == elem_bytes && size1 >= least;
    if (outer) {
        const int32_t wide = CASCADE(GROUPS) * CASCADE(ROWS) * lanes;
        for (; j + wide <= size1; j += wide) {
            if (CASCADE(is_dense)(&vector)) {
                CASCADE(multi_row_sum_by)(&vector, true, CASCADE(GROUPS), in + j * elem_bytes, in_strides[0], 32, size0, part);
            } else {
                CASCADE(multi_row_sum_by)(&vector, false, CASCADE(GROUPS), in + j * elem_bytes, in_strides[0], lanes * elem_bytes, size0, part);
            }
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, wide, out_stride);
        }
        for (; j + CASCADE(ROWS) * lanes <= size1; j += CASCADE(ROWS) * lanes) {
            CASCADE(multi_row_sum)(&vector, in + j * elem_bytes, in_strides[0], lanes * elem_bytes, size0, part);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, CASCADE(ROWS) * lanes, out_stride);
        }
        for (; j + lanes <= size1; j += lanes) {
            CASCADE(row_sum)(&vector, in + j * elem_bytes, in_strides[0], size0, part);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, lanes, out_stride);
        }
    } else if (in_strides[0] >= in_strides[1]) {
        for (; j + CASCADE(ROWS) <= size1; j += CASCADE(ROWS)) {
            CASCADE(multi_row_sum)(&scalar, in + j * in_strides[1], in_strides[0], in_strides[1], size0, part);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, CASCADE(ROWS), out_stride);
        }
    }
    for (; j < size1; j++) {
        CASCADE(row_sum)(&scalar, in + j * in_strides[1], in_strides[0], size0, part);
        CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, 1, out_stride);
    }
}

#undef CASCADE
#undef CASCADE_REAL
#undef CASCADE_LOAD
#undef CASCADE_STORE
#undef CASCADE_TARGET
