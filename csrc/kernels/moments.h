/* moments.h -- mean and variance of a row as PyTorch's RowwiseMoments forms them (BSD-3-Clause; algorithm restated), for one type of accumulator.
 *
 * Template: the includer defines MOMENTS_REAL (float or double), MOMENTS(name) (adds a suffix), MOMENTS_FMA and MOMENTS_LANES, and gets inline functions.
 *
 * Welford in the lanes of a vector over chunks of 16 vectors, chunks merged as a binary tree, then the rest of the row one by one, then
 * the lanes one after the other (Chan, Golub, LeVeque 1979). Fused: lanes contract a * b + c into fma, as with avx2 and up. */

enum { MOMENTS(LANES) = MOMENTS_LANES, MOMENTS(CHUNK_VECTORS) = 16, MOMENTS(MAX_DEPTH) = 48 };

typedef struct MOMENTS(moments) {
    int64_t count;
    MOMENTS_REAL mean[MOMENTS_LANES], m2[MOMENTS_LANES];
} MOMENTS(moments);

PORT_INLINE MOMENTS_REAL
MOMENTS(multiply_add)(bool fused, MOMENTS_REAL a, MOMENTS_REAL b, MOMENTS_REAL c)
{
    return fused ? MOMENTS_FMA(a, b, c) : a * b + c;
}

/* into += add, lane by lane. Into nothing the same with the numbers that are known: half of the merges. */
PORT_INLINE void
MOMENTS(merge_moments)(bool fused, const MOMENTS(moments) *add, MOMENTS(moments) *into)
{
    const MOMENTS_REAL zero = 0;
    int64_t count = into->count + add->count;
    if (into->count == 0 && count > 0) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < MOMENTS_LANES; lane++) {
            MOMENTS_REAL mean = add->mean[lane];
            into->mean[lane] = mean + zero; /* no -0 */
            into->m2[lane] = MOMENTS(multiply_add)(fused, mean * zero, mean, add->m2[lane] + zero); /* NaN where the mean is infinite */
        }
        into->count = count;
        return;
    }
    MOMENTS_REAL c = count == 0 ? zero : (MOMENTS_REAL)add->count / (MOMENTS_REAL)count;
    MOMENTS_REAL before = (MOMENTS_REAL)into->count;
    PORT_INDEPENDENT
    for (int lane = 0; lane < MOMENTS_LANES; lane++) {
        MOMENTS_REAL delta = add->mean[lane] - into->mean[lane];
        MOMENTS_REAL step = c * delta; /* named in the reference's source, which keeps the compiler from fusing it */
        into->mean[lane] += step;
        into->m2[lane] = MOMENTS(multiply_add)(fused, delta * before, step, into->m2[lane] + add->m2[lane]);
    }
    into->count = count;
}

#define ONE_BY(n) (MOMENTS_REAL)1 / n
static const MOMENTS_REAL MOMENTS(weights)[MOMENTS(CHUNK_VECTORS)] = {ONE_BY(1),  ONE_BY(2),  ONE_BY(3),  ONE_BY(4), ONE_BY(5),  ONE_BY(6),
                                                                      ONE_BY(7),  ONE_BY(8),  ONE_BY(9),  ONE_BY(10), ONE_BY(11), ONE_BY(12),
                                                                      ONE_BY(13), ONE_BY(14), ONE_BY(15), ONE_BY(16)};
#undef ONE_BY

/* Welford over `vectors` vectors from x, `step` elements apart. */
PORT_INLINE void
MOMENTS(chunk_moments)(bool fused, const MOMENTS_REAL *x, int64_t step, int64_t vectors, MOMENTS(moments) *chunk)
{
    MOMENTS_REAL mean[MOMENTS_LANES] = {0}, m2[MOMENTS_LANES] = {0}; /* not in *chunk, which x might alias for all the compiler knows */
    for (int64_t v = 0; v < vectors; v++, x += step) {
        MOMENTS_REAL weight = MOMENTS(weights)[v];
        for (int lane = 0; lane < MOMENTS_LANES; lane++) {
            MOMENTS_REAL delta = x[lane] - mean[lane];
            mean[lane] = MOMENTS(multiply_add)(fused, delta, weight, mean[lane]);
            m2[lane] = MOMENTS(multiply_add)(fused, delta, x[lane] - mean[lane], m2[lane]);
        }
    }
    chunk->count = vectors;
    memcpy(chunk->mean, mean, sizeof(mean));
    memcpy(chunk->m2, m2, sizeof(m2));
}

/* The tree: level 0 takes chunk after chunk. Returns its depth. */
PORT_INLINE int32_t
MOMENTS(tree_begin)(int64_t chunks, MOMENTS(moments) *tree)
{
    int32_t depth = 1;
    while (((int64_t)1 << depth) < chunks) {
        depth++;
    }
    for (int32_t level = 0; level < depth; level++) {
        tree[level] = (MOMENTS(moments)){.count = 0};
    }
    return depth;
}

/* What is due once level 0 has taken chunk i. */
PORT_INLINE void
MOMENTS(tree_carry)(bool fused, int64_t i, int32_t depth, MOMENTS(moments) *tree)
{
    for (int32_t level = 1; level < depth && ((i + 1) >> (level - 1) & 1) == 0; level++) {
        MOMENTS(merge_moments)(fused, &tree[level - 1], &tree[level]);
        tree[level - 1] = (MOMENTS(moments)){.count = 0};
    }
}

/* All levels into level 0, then mean and biased variance of the row of n elements, of which x[begin ... n) are not in the lanes' vectors. */
PORT_INLINE void
MOMENTS(tree_end)(bool fused, bool fused_rest, int32_t depth, MOMENTS(moments) *tree, int64_t vectors, const MOMENTS_REAL *x, int64_t begin,
                  int64_t n, MOMENTS_REAL *mean_out, MOMENTS_REAL *var_out)
{
    MOMENTS_REAL mean = 0, m2 = 0;
    int64_t count = 0;
    for (int32_t level = 1; level < depth; level++) {
        MOMENTS(merge_moments)(fused, &tree[level], &tree[0]);
    }
    for (int64_t i = begin; i < n; i++) {
        MOMENTS_REAL delta = x[i] - mean;
        count++;
        mean += delta / (MOMENTS_REAL)count;
        m2 = MOMENTS(multiply_add)(fused_rest, delta, x[i] - mean, m2);
    }
    for (int lane = 0; lane < MOMENTS_LANES; lane++) {
        int64_t together = count + vectors;
        MOMENTS_REAL c = together == 0 ? (MOMENTS_REAL)0 : (MOMENTS_REAL)vectors / (MOMENTS_REAL)together;
        MOMENTS_REAL delta = tree[0].mean[lane] - mean;
        mean = MOMENTS(multiply_add)(fused, c, delta, mean);
        m2 += MOMENTS(multiply_add)(fused, delta * delta * c, (MOMENTS_REAL)count, tree[0].m2[lane]);
        count = together;
    }
    *mean_out = mean;
    *var_out = m2 / (MOMENTS_REAL)n;
}

/* y = (x - mean) * rstd * weight + bias over a row; weight and bias may be NULL. */
PORT_INLINE void
MOMENTS(row_apply)(bool fused, const MOMENTS_REAL *x, int64_t n, MOMENTS_REAL mean, MOMENTS_REAL rstd, const MOMENTS_REAL *weight,
                   const MOMENTS_REAL *bias, MOMENTS_REAL *y)
{
    int64_t i = 0;
    for (; i + MOMENTS_LANES <= n && weight != NULL && bias != NULL; i += MOMENTS_LANES) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < MOMENTS_LANES; lane++) {
            y[i + lane] = MOMENTS(multiply_add)(fused, (x[i + lane] - mean) * rstd, weight[i + lane], bias[i + lane]);
        }
    }
    for (; i < n; i++) {
        MOMENTS_REAL centred = x[i] - mean, b = bias != NULL ? bias[i] : 0;
        y[i] = weight != NULL ? MOMENTS(multiply_add)(fused, centred * rstd, weight[i], b) : MOMENTS(multiply_add)(fused, centred, rstd, b);
    }
}

#undef MOMENTS
#undef MOMENTS_REAL
#undef MOMENTS_FMA
#undef MOMENTS_LANES
