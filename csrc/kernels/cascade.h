/* cascade.h -- the sum that PyTorch's SumKernel forms (BSD-3-Clause; algorithm restated), for one type of accumulator.
 *
 * Template: the includer defines CASCADE_REAL (float or double), CASCADE(name) (adds a suffix), CASCADE_LOAD, CASCADE_STORE and CASCADE_TARGET
 * (attributes of a CPU level, or nothing; the same bits), and gets static functions.
 *
 * A long sum is kept in four levels: level 0 adds `step` rows, then spills into level 1, and so on, so that rounding errors grow with
 * the fourth root of the length. Four rows run side by side, each a vector of `lanes` elements (or 1). */

enum { CASCADE(LEVELS) = 4, CASCADE(ROWS) = 4, CASCADE(WIDTH) = 4 * 8 };

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

/* sums[k] = the rows' vectors, for a dense source. The four sums have names, as compilers leave an array of them in memory. */
CASCADE_TARGET static inline void
CASCADE(sum_dense_rows)(const char *at, int64_t row_stride, int64_t col_stride, int64_t rows, CASCADE(vector) *sums)
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
    sums[0] = sum0, sums[1] = sum1, sums[2] = sum2, sums[3] = sum3;
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

/* The same for any source; sums[k * lanes + lane], beyond them zeros. */
CASCADE_TARGET static void
CASCADE(sum_any_rows)(const CASCADE(source) *source, const char *at, int64_t row_stride, int64_t col_stride, int64_t rows,
                      CASCADE(vector) *sums)
{
    memset(sums, 0, CASCADE(ROWS) * sizeof(*sums));
    for (int64_t i = 0; i < rows; i++) {
        CASCADE(add_row)(source, at + i * row_stride, col_stride, (CASCADE_REAL *)sums);
    }
}

/* Four rows of sums over i < size, into sums[k * lanes + lane]. */
CASCADE_TARGET PORT_INLINE void
CASCADE(multi_row_sum_by)(const CASCADE(source) *source, bool dense, const char *base, int64_t row_stride, int64_t col_stride,
                          int64_t size, CASCADE_REAL *sums)
{
    const int32_t width = CASCADE(ROWS) * source->lanes;
    const int32_t log2 = size > 2 ? 64 - __builtin_clzll((unsigned long long)(size - 1)) : 1; /* ceil(log2 size), at least 1 */
    const int32_t power = log2 / CASCADE(LEVELS) > 4 ? log2 / CASCADE(LEVELS) : 4;
    const int64_t step = (int64_t)1 << power, mask = step - 1;
    CASCADE(vector) part[CASCADE(ROWS)], acc[CASCADE(LEVELS)][CASCADE(ROWS)]; /* level 0 is `part` */
    int32_t levels = 1; /* that come to be used; the reference adds the zeros of the others, which changes nothing: no sum is -0 */
    while (levels < CASCADE(LEVELS) && size >> (levels * power) > 0) {
        memset(acc[levels++], 0, sizeof(acc[0]));
    }
    int64_t i = 0;
    while (i + step <= size) {
        if (dense) {
            CASCADE(sum_dense_rows)(base + i * row_stride, row_stride, col_stride, step, part);
        } else {
            CASCADE(sum_any_rows)(source, base + i * row_stride, row_stride, col_stride, step, part);
        }
        i += step;
#pragma GCC unroll 4
        for (int32_t k = 0; k < CASCADE(ROWS); k++) {
            acc[1][k] += part[k];
        }
        for (int32_t level = 2; level < levels && (i & (mask << ((level - 1) * power))) == 0; level++) {
            for (int32_t k = 0; k < CASCADE(ROWS); k++) {
                acc[level][k] += acc[level - 1][k];
                acc[level - 1][k] = (CASCADE(vector)){0};
            }
        }
    }
    if (dense) {
        CASCADE(sum_dense_rows)(base + i * row_stride, row_stride, col_stride, size - i, part);
    } else {
        CASCADE(sum_any_rows)(source, base + i * row_stride, row_stride, col_stride, size - i, part);
    }
    for (int32_t level = 1; level < levels; level++) {
#pragma GCC unroll 4
        for (int32_t k = 0; k < CASCADE(ROWS); k++) {
            part[k] += acc[level][k];
        }
    }
    memcpy(sums, part, (size_t)width * sizeof(CASCADE_REAL));
}

CASCADE_TARGET static void
CASCADE(multi_row_sum)(const CASCADE(source) *source, const char *base, int64_t row_stride, int64_t col_stride, int64_t size,
                       CASCADE_REAL *sums)
{
    if (CASCADE(is_dense)(source)) {
        CASCADE(multi_row_sum_by)(source, true, base, row_stride, col_stride, size, sums);
    } else {
        CASCADE(multi_row_sum_by)(source, false, base, row_stride, col_stride, size, sums);
    }
}

/* One row: its elements i*stride are dealt to four rows, the rest goes to the first, which then takes the others. */
CASCADE_TARGET static void
CASCADE(row_sum)(const CASCADE(source) *source, const char *base, int64_t stride, int64_t size, CASCADE_REAL *sums)
{
    const int32_t lanes = source->lanes;
    CASCADE_REAL partial[CASCADE(WIDTH)], value[8];
    int64_t dealt = size / CASCADE(ROWS);
    CASCADE(multi_row_sum)(source, base, stride * CASCADE(ROWS), stride, dealt, partial);
    for (int64_t i = dealt * CASCADE(ROWS); i < size; i++) {
        CASCADE(load)(source, base + i * stride, value);
        for (int32_t lane = 0; lane < lanes; lane++) {
            partial[lane] += value[lane];
        }
    }
    if (CASCADE(is_dense)(source)) {
        CASCADE(vector) *row = (CASCADE(vector) *)(void *)partial;
        row[0] = row[0] + row[1] + row[2] + row[3];
    }
    for (int32_t k = 1; k < CASCADE(ROWS) && !CASCADE(is_dense)(source); k++) {
        for (int32_t lane = 0; lane < lanes; lane++) {
            partial[lane] += partial[k * lanes + lane];
        }
    }
    memcpy(sums, partial, (size_t)lanes * sizeof(CASCADE_REAL));
}

/* A contiguous row of n elements: vectors first, then what is left one by one, then the lanes in order. */
CASCADE_TARGET static CASCADE_REAL
CASCADE(inner_sum)(port_dtype dtype, const char *row, int64_t n, bool pairs)
{
    const int64_t elem_bytes = (int64_t)port_dtype_size(dtype);
    const int32_t lanes = 32 / (int32_t)sizeof(CASCADE_REAL), per_vector = pairs ? 2 * lanes : lanes;
    CASCADE(source) vector = {dtype, lanes, pairs, elem_bytes}, scalar = {dtype, 1, false, elem_bytes};
    CASCADE_REAL lane_sums[8], value, total = 0;
    int64_t vectors = n / per_vector;
    CASCADE(row_sum)(&vector, row, per_vector * elem_bytes, vectors, lane_sums);
    for (int64_t i = vectors * per_vector; i < n; i++) {
        CASCADE(load)(&scalar, row + i * elem_bytes, &value);
        total += value;
    }
    for (int32_t lane = 0; lane < lanes; lane++) {
        total += lane_sums[lane];
    }
    return total;
}

CASCADE_TARGET static void
CASCADE(accumulate)(char *out, port_dtype dtype, const CASCADE_REAL *sums, int32_t count, int64_t out_stride)
{
    const bool own = dtype == (sizeof(CASCADE_REAL) == 4 ? PORT_F32 : PORT_F64);
    for (int32_t i = 0; i < count; i++) {
        CASCADE_REAL value;
        if (own) {
            memcpy(&value, out + i * out_stride, sizeof(value));
            value += sums[i];
            memcpy(out + i * out_stride, &value, sizeof(value));
            continue;
        }
        CASCADE_LOAD(dtype, out + i * out_stride, 0, 1, &value);
        value += sums[i];
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
    CASCADE_REAL sums[CASCADE(WIDTH)];
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
        for (; j + CASCADE(ROWS) * lanes <= size1; j += CASCADE(ROWS) * lanes) {
            CASCADE(multi_row_sum)(&vector, in + j * elem_bytes, in_strides[0], lanes * elem_bytes, size0, sums);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, CASCADE(ROWS) * lanes, out_stride);
        }
        for (; j + lanes <= size1; j += lanes) {
            CASCADE(row_sum)(&vector, in + j * elem_bytes, in_strides[0], size0, sums);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, lanes, out_stride);
        }
    } else if (in_strides[0] >= in_strides[1]) {
        for (; j + CASCADE(ROWS) <= size1; j += CASCADE(ROWS)) {
            CASCADE(multi_row_sum)(&scalar, in + j * in_strides[1], in_strides[0], in_strides[1], size0, sums);
            CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, CASCADE(ROWS), out_stride);
        }
    }
    for (; j < size1; j++) {
        CASCADE(row_sum)(&scalar, in + j * in_strides[1], in_strides[0], size0, sums);
        CASCADE(accumulate)(out + j * out_stride, out_dtype, sums, 1, out_stride);
    }
}

#undef CASCADE
#undef CASCADE_REAL
#undef CASCADE_LOAD
#undef CASCADE_STORE
#undef CASCADE_TARGET
