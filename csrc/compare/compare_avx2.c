/* compare_avx2.c -- blocks of finite f32, 8 elements at a time; the same counts as compare_blocks.c.
 *
 * Three passes over a block that stays in the first-level cache: integers (equality, order, ulp), float64 (errors
 * and sums, four to a vector), and the histograms, which are scalar. Sums may be fused: their last bits are free. */
#include "compare_blocks.h"

#include <math.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))

bool
compare_have_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

AVX2 static double
add_across(__m256d v)
{
    __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

AVX2 static double
max_across(__m256d v)
{
    __m128d half = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(half, _mm_unpackhi_pd(half, half)));
}

/* True if no element has the exponent of infinity and NaN. */
AVX2 static bool
all_finite(const float *x, int64_t count)
{
    const __m256i top = _mm256_set1_epi32(0x7f7fffff), magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i beyond = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 8) {
        __m256i bits = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), magnitude);
        beyond = _mm256_or_si256(beyond, _mm256_cmpgt_epi32(bits, top));
    }
    return _mm256_testz_si256(beyond, beyond);
}

AVX2 static void
range(const float *x, int64_t count, double *min, double *max)
{
    __m256 low = _mm256_loadu_ps(x), high = low;
    for (int64_t i = 8; i < count; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        low = _mm256_min_ps(low, v);
        high = _mm256_max_ps(high, v);
    }
    float lows[8], highs[8];
    _mm256_storeu_ps(lows, low);
    _mm256_storeu_ps(highs, high);
    for (int k = 0; k < 8; k++) {
        *min = (double)lows[k] < *min ? (double)lows[k] : *min;
        *max = (double)highs[k] > *max ? (double)highs[k] : *max;
    }
}

/* Equality and ulp. Returns true if some pair has different signs. */
AVX2 static bool
integer_pass(compare_state *state, const float *e, const float *a, int64_t base, int64_t count, uint32_t *block_ulp)
{
    port_metrics *m = state->m;
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), zero = _mm256_setzero_si256();
    __m256i max_ulp = zero, any_opposite = zero;
    __m256d signed_ulp = _mm256_setzero_pd();
    int64_t unequal = 0;
    for (int64_t i = 0; i < count; i += 8) {
        __m256i be = _mm256_loadu_si256((const __m256i *)(e + i)), ba = _mm256_loadu_si256((const __m256i *)(a + i));
        __m256i me = _mm256_and_si256(be, magnitude), ma = _mm256_and_si256(ba, magnitude);
        __m256i se = _mm256_srai_epi32(be, 31), sa = _mm256_srai_epi32(ba, 31);
        __m256i ke = _mm256_sub_epi32(_mm256_xor_si256(me, se), se); /* negative ones mirrored: -magnitude */
        __m256i ka = _mm256_sub_epi32(_mm256_xor_si256(ma, sa), sa);
        __m256i ulp = _mm256_sub_epi32(_mm256_max_epi32(ka, ke), _mm256_min_epi32(ka, ke)); /* as uint32 */
        __m256i has_zero = _mm256_or_si256(_mm256_cmpeq_epi32(me, zero), _mm256_cmpeq_epi32(ma, zero));
        __m256i opposite = _mm256_andnot_si256(has_zero, _mm256_xor_si256(se, sa));
        max_ulp = _mm256_max_epu32(max_ulp, ulp);
        any_opposite = _mm256_or_si256(any_opposite, opposite);
        unequal += 8 - __builtin_popcount((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(ulp, zero))));
        _mm256_storeu_si256((__m256i *)(state->ulp + i), ulp);
        _mm256_storeu_si256((__m256i *)(state->opposite + i), opposite);
        __m256d low = _mm256_sub_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(ka)),
                                    _mm256_cvtepi32_pd(_mm256_castsi256_si128(ke)));
        __m256d high = _mm256_sub_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(ka, 1)),
                                     _mm256_cvtepi32_pd(_mm256_extracti128_si256(ke, 1)));
        signed_ulp = _mm256_add_pd(signed_ulp, _mm256_add_pd(low, high));
    }
    state->sum_signed_ulp += add_across(signed_ulp);
    m->num_unequal += unequal;
    uint32_t lanes[8], largest = 0;
    _mm256_storeu_si256((__m256i *)lanes, max_ulp);
    for (int k = 0; k < 8; k++) {
        largest = lanes[k] > largest ? lanes[k] : largest;
    }
    *block_ulp = largest;
    if (largest > m->max_ulp) {
        m->max_ulp = largest;
        int64_t i = 0;
        while (state->ulp[i] != largest) {
            i++;
        }
        m->max_ulp_idx = base + i;
    }
    return !_mm256_testz_si256(any_opposite, any_opposite);
}

/* Errors, relative errors and sums in float64. */
AVX2 static void
float_pass(compare_state *state, const float *e, const float *a, int64_t count, compare_sums *sums, double *max_abs,
           double *max_rel)
{
    const __m256d sign = _mm256_set1_pd(-0.0), none = _mm256_set1_pd(-1.0), zero = _mm256_setzero_pd();
    const __m256d shift_e = _mm256_set1_pd((double)e[0]), shift_a = _mm256_set1_pd((double)a[0]);
    __m256d top_abs = zero, top_rel = none, s_abs = zero, s_err = zero, s_rel = zero, s_dd = zero, s_ee = zero;
    __m256d s_aa = zero, s_ea = zero, d_e = zero, d_a = zero, d_ee = zero, d_aa = zero, d_ea = zero;
    int64_t num_rel = 0, num_rel_inf = 0;
    for (int64_t i = 0; i < count; i += 4) {
        __m256d ve = _mm256_cvtps_pd(_mm_loadu_ps(e + i)), va = _mm256_cvtps_pd(_mm_loadu_ps(a + i));
        __m256d diff = _mm256_sub_pd(va, ve), error = _mm256_andnot_pd(sign, diff);
        __m256d at_zero = _mm256_cmp_pd(ve, zero, _CMP_EQ_OQ);
        __m256d rel = _mm256_div_pd(error, _mm256_andnot_pd(sign, ve));
        __m256d de = _mm256_sub_pd(ve, shift_e), da = _mm256_sub_pd(va, shift_a);
        _mm256_storeu_pd(state->error + i, error);
        _mm256_storeu_pd(state->rel + i, _mm256_blendv_pd(rel, none, at_zero));
        top_abs = _mm256_max_pd(top_abs, error);
        top_rel = _mm256_max_pd(top_rel, _mm256_blendv_pd(rel, none, at_zero));
        s_rel = _mm256_add_pd(s_rel, _mm256_andnot_pd(at_zero, rel));
        s_abs = _mm256_add_pd(s_abs, error);
        s_err = _mm256_add_pd(s_err, diff);
        s_dd = _mm256_fmadd_pd(diff, diff, s_dd);
        s_ee = _mm256_fmadd_pd(ve, ve, s_ee);
        s_aa = _mm256_fmadd_pd(va, va, s_aa);
        s_ea = _mm256_fmadd_pd(ve, va, s_ea);
        d_e = _mm256_add_pd(d_e, de);
        d_a = _mm256_add_pd(d_a, da);
        d_ee = _mm256_fmadd_pd(de, de, d_ee);
        d_aa = _mm256_fmadd_pd(da, da, d_aa);
        d_ea = _mm256_fmadd_pd(de, da, d_ea);
        int zeros = _mm256_movemask_pd(at_zero);
        num_rel += 4 - __builtin_popcount((unsigned)zeros);
        num_rel_inf += __builtin_popcount((unsigned)(zeros & _mm256_movemask_pd(_mm256_cmp_pd(error, zero, _CMP_GT_OQ))));
    }
    state->num_rel += num_rel;
    state->m->num_rel_inf += num_rel_inf;
    state->sum_rel += add_across(s_rel);
    *max_abs = max_across(top_abs);
    *max_rel = max_across(top_rel);
    *sums = (compare_sums){.sum_abs = add_across(s_abs), .sum_error = add_across(s_err), .sum_sq_error = add_across(s_dd),
                           .sum_sq_expected = add_across(s_ee), .sum_sq_actual = add_across(s_aa),
                           .sum_product = add_across(s_ea), .shift_e = (double)e[0], .shift_a = (double)a[0],
                           .d_e = add_across(d_e), .d_a = add_across(d_a), .d_ee = add_across(d_ee),
                           .d_aa = add_across(d_aa), .d_ea = add_across(d_ea)};
}

/* Counts the errors that can still decide a percentile: after the first blocks these are about one in a hundred. */
AVX2 static void
count_errors(compare_state *state, int64_t count)
{
    double floor;
    uint64_t bits = (uint64_t)state->floor_bucket << 48;
    memcpy(&floor, &bits, sizeof floor);
    const __m256d edge = _mm256_set1_pd(floor), zero = _mm256_setzero_pd();
    for (int64_t i = 0; i < count; i += 4) {
        __m256d error = _mm256_loadu_pd(state->error + i);
        __m256d wanted = _mm256_and_pd(_mm256_cmp_pd(error, edge, _CMP_GE_OQ), _mm256_cmp_pd(error, zero, _CMP_GT_OQ));
        for (unsigned mask = (unsigned)_mm256_movemask_pd(wanted); mask != 0; mask &= mask - 1) {
            state->errors[compare_bucket(state->error[i + __builtin_ctz(mask)])]++;
            state->num_above_floor++;
        }
    }
}

/* Small distances by counting, for each power of two, how many are at least as large; others one by one. */
AVX2 static void
count_ulps(compare_state *state, int64_t count, bool opposite, uint32_t block_ulp)
{
    if (opposite || block_ulp >= 512) {
        compare_block_ulps(state, count, opposite);
        return;
    }
    int64_t above = count; /* elements of at least the bucket's smallest distance */
    int bucket = 0;
    for (uint32_t least = 1; least <= block_ulp; least *= 2, bucket++) {
        __m256i reached = _mm256_setzero_si256();
        const __m256i below = _mm256_set1_epi32((int)(least - 1));
        for (int64_t i = 0; i < count; i += 8) {
            __m256i ulp = _mm256_loadu_si256((const __m256i *)(state->ulp + i));
            reached = _mm256_sub_epi32(reached, _mm256_cmpgt_epi32(ulp, below));
        }
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)lanes, reached);
        int64_t sum = 0;
        for (int k = 0; k < 8; k++) {
            sum += lanes[k];
        }
        state->ulp_lanes[0][bucket] += above - sum;
        above = sum;
    }
    state->ulp_lanes[0][bucket] += above;
}

static int64_t
first_equal(const double *values, double wanted)
{
    int64_t i = 0;
    while (values[i] != wanted) {
        i++;
    }
    return i;
}

bool
compare_block_f32_avx2(compare_state *state, const float *e, const float *a, int64_t base, int64_t count)
{
    if (!all_finite(e, count) || !all_finite(a, count)) {
        return false;
    }
    port_metrics *m = state->m;
    range(e, count, &m->min_expected, &m->max_expected);
    range(a, count, &m->min_actual, &m->max_actual);
    uint32_t block_ulp;
    bool opposite = integer_pass(state, e, a, base, count, &block_ulp);
    compare_sums sums;
    double max_abs, max_rel;
    float_pass(state, e, a, count, &sums, &max_abs, &max_rel);
    if (max_abs > m->max_abs || m->max_abs_idx < 0) {
        m->max_abs = max_abs;
        m->max_abs_idx = base + first_equal(state->error, max_abs);
    }
    if (max_rel > m->max_rel || (m->max_rel_idx < 0 && max_rel >= 0)) {
        m->max_rel = max_rel;
        m->max_rel_idx = base + first_equal(state->rel, max_rel);
    }
    count_errors(state, count);
    count_ulps(state, count, opposite, block_ulp);
    compare_merge_sums(state, &sums, count);
    return true;
}

AVX2 bool
compare_equal_f32_avx2(compare_state *state, const float *e, int64_t base, int64_t count)
{
    if (!all_finite(e, count)) {
        return false;
    }
    port_metrics *m = state->m;
    range(e, count, &m->min_expected, &m->max_expected);
    range(e, count, &m->min_actual, &m->max_actual);
    const __m256d shift = _mm256_set1_pd((double)e[0]), zero = _mm256_setzero_pd();
    __m256d s_ee = zero, d_e = zero, d_ee = zero;
    int64_t num_zero = 0, first_nonzero = -1;
    for (int64_t i = 0; i < count; i += 4) {
        __m256d ve = _mm256_cvtps_pd(_mm_loadu_ps(e + i)), de = _mm256_sub_pd(ve, shift);
        int zeros = _mm256_movemask_pd(_mm256_cmp_pd(ve, zero, _CMP_EQ_OQ));
        num_zero += __builtin_popcount((unsigned)zeros);
        if (first_nonzero < 0 && zeros != 15) {
            first_nonzero = i + __builtin_ctz(~(unsigned)zeros);
        }
        s_ee = _mm256_fmadd_pd(ve, ve, s_ee);
        d_e = _mm256_add_pd(d_e, de);
        d_ee = _mm256_fmadd_pd(de, de, d_ee);
    }
    if (m->max_abs_idx < 0) {
        m->max_abs_idx = base;
    }
    if (m->max_rel_idx < 0 && first_nonzero >= 0) {
        m->max_rel_idx = base + first_nonzero;
    }
    double ee = add_across(s_ee), sum = add_across(d_e), squares = add_across(d_ee);
    compare_sums sums = {.sum_sq_expected = ee, .sum_sq_actual = ee, .sum_product = ee, .shift_e = (double)e[0],
                         .shift_a = (double)e[0], .d_e = sum, .d_a = sum, .d_ee = squares, .d_aa = squares,
                         .d_ea = squares};
    state->num_rel += count - num_zero;
    m->ulp_histogram[0] += count;
    memset(state->error, 0, (size_t)count * sizeof state->error[0]);
    compare_merge_sums(state, &sums, count);
    return true;
}

#else

bool
compare_have_avx2(void)
{
    return false;
}

bool
compare_block_f32_avx2(compare_state *state, const float *e, const float *a, int64_t base, int64_t count)
{
    (void)state;
    (void)e;
    (void)a;
    (void)base;
    (void)count;
    return false;
}

bool
compare_equal_f32_avx2(compare_state *state, const float *e, int64_t base, int64_t count)
{
    (void)state;
    (void)e;
    (void)base;
    (void)count;
    return false;
}

#endif
