/* compare_lanes.h -- blocks of finite f32, several elements at a time; the same counts as compare_blocks.c.
 *
 * Included once by compare_avx2.c and once by compare_avx512.c, which define the vectors, their operations and LANES, the
 * number of f32 in a vector. f16 and bf16 come as f32 values beside their own bits moved to the top of an int32: one
 * integer order serves all three, a distance is that order's divided by 2^ulp_shift. f64 and integers come as float64;
 * what is done with them alone is in compare_wide.h.
 *
 * Passes over a block that stays in the first-level cache: integers (equality, order, range), float64 (errors and sums),
 * f32 (which relative error may be the greatest), and, if all is wanted, the histograms. Sums may be fused: their last
 * bits are free. A pass that meets what it cannot do returns before anything was added. */
#ifndef LANES
#error "include compare_lanes.h from a file that defines the vectors"
#endif

#define HALF (LANES / 2)

LANES_FN static double
add_across(VD v)
{
    double lanes[HALF], sum = 0;
    VD_STORE(lanes, v);
    for (int k = 0; k < HALF; k++) {
        sum += lanes[k];
    }
    return sum;
}

LANES_FN static double
max_across(VD v)
{
    double lanes[HALF], top;
    VD_STORE(lanes, v);
    top = lanes[0];
    for (int k = 1; k < HALF; k++) {
        top = lanes[k] > top ? lanes[k] : top;
    }
    return top;
}

/* What the passes find, added to the accumulator only when all of them have ended well. */
typedef struct lanes_found {
    compare_sums sums;
    double max_abs, sum_rel, sum_signed_ulp;
    double min_e, max_e, min_a, max_a;
    int64_t num_unequal, num_rel, num_rel_inf;
    uint32_t max_ulp; /* in units of 2^ulp_shift */
    float max_rel;    /* to f32's precision, or -1 */
    bool opposite;    /* some pair may have different signs */
} lanes_found;

LANES_FN static void
range_across(VF low, VF high, double *min, double *max)
{
    float lows[LANES], highs[LANES];
    VF_STORE(lows, low);
    VF_STORE(highs, high);
    *min = (double)lows[0];
    *max = (double)highs[0];
    for (int k = 1; k < LANES; k++) {
        *min = (double)lows[k] < *min ? (double)lows[k] : *min;
        *max = (double)highs[k] > *max ? (double)highs[k] : *max;
    }
}

/* Equality, distance and range. The distances are left in state->ulp. */
LANES_FN static void
integer_pass(compare_state *state, const compare_lanes *x, int64_t count, lanes_found *found)
{
    const VI zero = VI_SET(0), magnitude = VI_SET(0x7fffffff);
    VI top = zero, signs = zero, net = zero;
    VF low_e = VF_LOAD(x->e), high_e = low_e, low_a = VF_LOAD(x->a), high_a = low_a;
    int64_t equal = 0;
    for (int64_t i = 0; i < count; i += LANES) {
        VI be = VI_LOAD((const char *)x->bits_e + 4 * i), ba = VI_LOAD((const char *)x->bits_a + 4 * i);
        VI se = VI_SIGN(be), sa = VI_SIGN(ba);
        VI ke = VI_SUB(VI_XOR(be, VI_AND(se, magnitude)), se); /* negative ones mirrored: -magnitude; zero has one key */
        VI ka = VI_SUB(VI_XOR(ba, VI_AND(sa, magnitude)), sa);
        VI ulp = VI_SUB(VI_MAX(ka, ke), VI_MIN(ka, ke)); /* as uint32 */
        VI_STORE(state->ulp + i, ulp);
        top = VI_MAXU(top, ulp);
        signs = VI_OR(signs, VI_XOR(be, ba));
        net = VI_ADD(net, VI_SHIFT_RIGHT(VI_SUB(ka, ke), x->ulp_shift));
        equal += VI_COUNT_EQUAL(ulp, zero);
        VF ve = VF_LOAD(x->e + i), va = VF_LOAD(x->a + i);
        low_e = VF_MIN(low_e, ve);
        high_e = VF_MAX(high_e, ve);
        low_a = VF_MIN(low_a, va);
        high_a = VF_MAX(high_a, va);
    }
    found->num_unequal = count - equal;
    range_across(low_e, high_e, &found->min_e, &found->max_e);
    range_across(low_a, high_a, &found->min_a, &found->max_a);
    uint32_t tops[LANES];
    int32_t nets[LANES];
    VI_STORE(tops, top);
    VI_STORE(nets, net);
    found->max_ulp = 0;
    for (int k = 0; k < LANES; k++) {
        found->max_ulp = tops[k] > found->max_ulp ? tops[k] : found->max_ulp;
        found->sum_signed_ulp += (double)nets[k];
    }
    found->opposite = VI_COUNT_EQUAL(VI_SIGN(signs), zero) != LANES;
}

/* The sum of signed distances where int32 lanes may have overflowed. */
static double
wide_signed_ulp(const compare_lanes *x, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t e, a;
        memcpy(&e, (const char *)x->bits_e + 4 * i, sizeof e);
        memcpy(&a, (const char *)x->bits_a + 4 * i, sizeof a);
        int64_t size_e = e & 0x7fffffff, size_a = a & 0x7fffffff;
        sum += (a < 0 ? -size_a : size_a) - (e < 0 ? -size_e : size_e);
    }
    return ldexp((double)sum, -x->ulp_shift);
}

/* Errors, left in state->error, and sums. `wide`: of the float64 in state->e and a, whose signed errors are summed as they are (of
 * narrower floats they follow from the other sums, which have bits to spare). */
LANES_INLINE static void
float_pass(bool wide, compare_state *state, const compare_lanes *x, int64_t count, lanes_found *found)
{
    const double first_e = wide ? state->e[0] : (double)x->e[0], first_a = wide ? state->a[0] : (double)x->a[0];
    const VD shift_e = VD_SET(first_e), shift_a = VD_SET(first_a), one = VD_SET(1.0);
    VD top = VD_SET(0.0), s_abs = top, s_d = top, s_dd = top, d_e = top, d_a = top, d_ee = top, d_aa = top, d_ea = top;
    for (int64_t i = 0; i < count; i += HALF) {
        VD ve = wide ? VD_LOAD(state->e + i) : VD_FROM_F32(x->e + i), va = wide ? VD_LOAD(state->a + i) : VD_FROM_F32(x->a + i);
        VD diff = VD_SUB(va, ve), error = VD_ABS(diff);
        VD de = VD_SUB(ve, shift_e), da = VD_SUB(va, shift_a);
        VD_STORE(state->error + i, error);
        top = VD_MAX(top, error);
        s_abs = VD_FMA(error, one, s_abs); /* the multipliers are as idle as the adders are busy */
        d_e = VD_FMA(de, one, d_e);
        d_a = VD_ADD(d_a, da);
        s_d = wide ? VD_ADD(s_d, diff) : s_d;
        s_dd = VD_FMA(diff, diff, s_dd);
        d_ee = VD_FMA(de, de, d_ee);
        d_aa = VD_FMA(da, da, d_aa);
        d_ea = VD_FMA(de, da, d_ea);
    }
    found->max_abs = max_across(top);
    found->sums = (compare_sums){.sum_abs = add_across(s_abs), .sum_sq_error = add_across(s_dd), .shift_e = first_e,
                                 .shift_a = first_a, .d_e = add_across(d_e), .d_a = add_across(d_a),
                                 .d_ee = add_across(d_ee), .d_aa = add_across(d_aa), .d_ea = add_across(d_ea)};
    compare_unshift(&found->sums, count);
    found->sums.sum_error = wide ? add_across(s_d) : found->sums.sum_error;
}

/* Relative errors to f32's precision, left in state->rel (-1 where e = 0). False if one is too large for f32. */
LANES_FN static bool
relative_pass(compare_state *state, const compare_lanes *x, int64_t count, lanes_found *found)
{
    const VF zero = VF_SET(0.0f), none = VF_SET(-1.0f);
    VF top = none;
    VD sum = VD_SET(0.0);
    int64_t num_zero = 0, num_inf = 0;
    for (int64_t i = 0; i < count; i += LANES) {
        __builtin_prefetch((const void *)(x->next_e + (uintptr_t)i * x->elem_bytes));
        __builtin_prefetch((const void *)(x->next_a + (uintptr_t)i * x->elem_bytes));
        VF ve = VF_LOAD(x->e + i), error = VF_ABS(VF_SUB(VF_LOAD(x->a + i), ve));
        VF_MASK at_zero = VF_EQUAL(ve, zero);
        VF rel = VF_BLEND(VF_DIV(error, VF_ABS(ve)), zero, at_zero);
        sum = VD_ADD(sum, VD_ADD(VF_LOW(rel), VF_HIGH(rel)));
        rel = VF_BLEND(rel, none, at_zero);
        VF_STORE(state->rel + i, rel);
        top = VF_MAX(top, rel);
        num_zero += VF_COUNT(at_zero);
        num_inf += VF_COUNT_BOTH(at_zero, VF_LESS(zero, error));
    }
    float tops[LANES];
    VF_STORE(tops, top);
    found->max_rel = tops[0];
    for (int k = 1; k < LANES; k++) {
        found->max_rel = tops[k] > found->max_rel ? tops[k] : found->max_rel;
    }
    found->sum_rel = add_across(sum);
    found->num_rel = count - num_zero;
    found->num_rel_inf = num_inf;
    return found->sum_rel <= DBL_MAX && found->max_rel <= FLT_MAX;
}

/* The greatest relative error in float64, among those that f32 cannot tell from it. */
LANES_FN static void
settle_relative(compare_state *state, const compare_lanes *x, int64_t base, int64_t count, float block_max)
{
    port_metrics *m = state->m;
    if (block_max < 0 || (m->max_rel_idx >= 0 && (double)block_max * (1 + 0x1p-20) <= m->max_rel)) {
        return;
    }
    /* A quotient that is not 0 is at least 2^-25: two different f32 are no nearer. None is lost below f32's range. */
    const VF edge = VF_SET(block_max * (1 - 0x1p-20f)), zero = VF_SET(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        VF rel = VF_LOAD(state->rel + i);
        for (unsigned mask = VF_BITS(VF_NEITHER(VF_LESS(rel, edge), VF_LESS(rel, zero))); mask != 0; mask &= mask - 1) {
            int64_t k = i + __builtin_ctz(mask);
            double exact = state->error[k] / fabs((double)x->e[k]);
            if (exact > m->max_rel || m->max_rel_idx < 0) {
                m->max_rel = exact;
                m->max_rel_idx = base + k;
            }
        }
    }
}

/* Counts the errors that can still decide a percentile: after the first blocks these are about one in a hundred. */
LANES_FN static void
count_errors(compare_state *state, int64_t count)
{
    double floor;
    uint64_t bits = (uint64_t)state->floor_bucket << 48;
    memcpy(&floor, &bits, sizeof floor);
    floor = floor > 0 ? floor : 0x1p-1074; /* an error of 0 is not counted */
    const VD edge = VD_SET(floor);
    for (int64_t i = 0; i < count; i += HALF) {
        for (unsigned mask = VD_BITS_NOT_LESS(VD_LOAD(state->error + i), edge); mask != 0; mask &= mask - 1) {
            state->errors[compare_bucket(state->error[i + __builtin_ctz(mask)])]++;
            state->num_above_floor++;
        }
    }
}

#define OTHER_SIGN UINT32_MAX /* greater than any distance of two finite f32 */

static void
mark_opposite(compare_state *state, const compare_lanes *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int opposite = ((x->e[i] < 0) & (x->a[i] > 0)) | ((x->e[i] > 0) & (x->a[i] < 0)); /* no branches: signs are noise */
        state->ulp[i] |= (uint32_t)-opposite;
    }
}

LANES_FN static int64_t
count_at_least(const uint32_t *ulp, int64_t count, uint32_t least)
{
    const VI edge = VI_SET((int)least);
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i += LANES) {
        VI v = VI_LOAD(ulp + i);
        sum += VI_COUNT_EQUAL(VI_MAXU(v, edge), v);
    }
    return sum;
}

/* By counting, for each power of two, how many distances are at least as large. */
LANES_FN static void
count_ulps(compare_state *state, const compare_lanes *x, int64_t count, const lanes_found *found)
{
    int64_t *histogram = state->m->ulp_histogram;
    int64_t num_opposite = 0;
    if (found->opposite) {
        mark_opposite(state, x, count);
        num_opposite = count_at_least(state->ulp, count, OTHER_SIGN);
        histogram[PORT_DIFFERENT_SIGN] += num_opposite;
    }
    int64_t above = count - num_opposite;
    int bucket = 0;
    for (uint64_t least = 1; least <= found->max_ulp >> x->ulp_shift; least *= 2, bucket++) {
        int64_t reached = count_at_least(state->ulp, count, (uint32_t)(least << x->ulp_shift)) - num_opposite;
        histogram[bucket] += above - reached;
        above = reached;
    }
    histogram[bucket] += above;
}

static void
add_range(port_metrics *m, double min_e, double max_e, double min_a, double max_a)
{
    m->min_expected = min_e < m->min_expected ? min_e : m->min_expected;
    m->max_expected = max_e > m->max_expected ? max_e : m->max_expected;
    m->min_actual = min_a < m->min_actual ? min_a : m->min_actual;
    m->max_actual = max_a > m->max_actual ? max_a : m->max_actual;
}

/* All but the distances. */
static void
add_found(compare_state *state, int64_t base, int64_t count, const lanes_found *found)
{
    port_metrics *m = state->m;
    add_range(m, found->min_e, found->max_e, found->min_a, found->max_a);
    m->num_unequal += found->num_unequal;
    m->num_rel_inf += found->num_rel_inf;
    state->num_rel += found->num_rel;
    state->sum_rel += found->sum_rel;
    if (found->max_abs > m->max_abs || m->max_abs_idx < 0) {
        int64_t i = 0;
        while (state->error[i] != found->max_abs) {
            i++;
        }
        m->max_abs = found->max_abs;
        m->max_abs_idx = base + i;
    }
    compare_merge_sums(state, &found->sums, count);
}

static void
add_distances(compare_state *state, const compare_lanes *x, int64_t base, int64_t count, const lanes_found *found)
{
    port_metrics *m = state->m;
    bool narrow = found->max_ulp < (x->ulp_shift > 0 ? 1u << 31 : 1u << 23); /* at most 128 additions to an int32 */
    state->sum_signed_ulp += narrow ? found->sum_signed_ulp : wide_signed_ulp(x, count);
    if (found->max_ulp >> x->ulp_shift > m->max_ulp) {
        int64_t i = 0;
        while (state->ulp[i] != found->max_ulp) {
            i++;
        }
        m->max_ulp = found->max_ulp >> x->ulp_shift;
        m->max_ulp_idx = base + i;
    }
}

LANES_FN static bool
lanes_block(compare_state *state, const compare_lanes *x, int64_t base, int64_t count)
{
    lanes_found found = {0};
    float_pass(false, state, x, count, &found);
    if (!(found.sums.d_ee <= DBL_MAX && found.sums.d_aa <= DBL_MAX)) { /* squares of f32 do not overflow a double */
        return false;
    }
    if (!relative_pass(state, x, count, &found)) {
        return false;
    }
    integer_pass(state, x, count, &found);
    settle_relative(state, x, base, count, found.max_rel);
    add_found(state, base, count, &found);
    add_distances(state, x, base, count, &found);
    if (state->errors != NULL) {
        count_errors(state, count);
        count_ulps(state, x, count, &found);
    }
    return true;
}

/* What an equal block adds but its range. */
static bool
add_equal(compare_state *state, compare_sums sums, int64_t base, int64_t count, int64_t num_zero, int64_t first_not_zero)
{
    port_metrics *m = state->m;
    if (!(sums.d_ee <= DBL_MAX)) {
        return false;
    }
    sums.shift_a = sums.shift_e;
    sums.d_a = sums.d_e;
    sums.d_aa = sums.d_ea = sums.d_ee;
    compare_unshift(&sums, count);
    sums.sum_error = 0;
    m->max_abs_idx = m->max_abs_idx < 0 ? base : m->max_abs_idx;
    m->max_rel_idx = m->max_rel_idx < 0 && num_zero < count ? base + first_not_zero : m->max_rel_idx;
    state->num_rel += count - num_zero;
    m->ulp_histogram[0] += count;
    compare_merge_sums(state, &sums, count);
    return true;
}

LANES_FN static bool
lanes_equal(compare_state *state, const float *e, int64_t base, int64_t count)
{
    const VD shift = VD_SET((double)e[0]);
    const VF nothing = VF_SET(0.0f);
    VD d_e = VD_SET(0.0), d_ee = d_e;
    VF low = VF_LOAD(e), high = low;
    int64_t num_zero = 0, not_zero = 0;
    for (int64_t i = 0; i < count; i += LANES) {
        VF v = VF_LOAD(e + i);
        low = VF_MIN(low, v);
        high = VF_MAX(high, v);
        num_zero += VF_COUNT(VF_EQUAL(v, nothing));
        VD first = VD_SUB(VF_LOW(v), shift), second = VD_SUB(VF_HIGH(v), shift);
        d_e = VD_ADD(d_e, VD_ADD(first, second));
        d_ee = VD_FMA(first, first, VD_FMA(second, second, d_ee));
    }
    while (state->m->max_rel_idx < 0 && num_zero < count && e[not_zero] == 0) {
        not_zero++;
    }
    compare_sums sums = {.shift_e = (double)e[0], .d_e = add_across(d_e), .d_ee = add_across(d_ee)};
    if (!add_equal(state, sums, base, count, num_zero, not_zero)) {
        return false;
    }
    double min, max;
    range_across(low, high, &min, &max);
    add_range(state->m, min, max, min, max);
    return true;
}

/* True if some error may be at least `near` times its scale, that is state->scale[i] + state->scale_slope |e[i]|. */
LANES_FN static bool
lanes_beyond(const compare_state *state, const float *e, double near, int64_t count)
{
    const VD factor = VD_SET(near), slope = VD_SET(state->scale_slope);
    unsigned beyond = 0;
    for (int64_t i = 0; i < count; i += HALF) {
        VD value = e != NULL ? VD_FROM_F32(e + i) : VD_LOAD(state->e + i);
        VD s = VD_FMA(slope, VD_ABS(value), VD_LOAD(state->scale + i));
        beyond |= VD_BITS_NOT_LESS(VD_LOAD(state->error + i), VD_MUL(factor, s));
    }
    return beyond != 0;
}

LANES_FN static void
lanes_widen(const uint16_t *half, bool is_f16, int64_t count, float *values, int32_t *bits)
{
    for (int64_t i = 0; i < count; i += LANES) {
        VI top = VI_FROM_U16(half + i);
        VI_STORE(bits + i, top);
        if (is_f16) {
            VF_STORE(values + i, VF_FROM_F16(half + i));
        } else {
            VI_STORE(values + i, top);
        }
    }
}

LANES_FN static double
lanes_squares(const float *x, int64_t count)
{
    VD first = VD_SET(0.0), second = first;
    for (int64_t i = 0; i < count; i += LANES) {
        VF v = VF_LOAD(x + i);
        first = VD_FMA(VF_LOW(v), VF_LOW(v), first);
        second = VD_FMA(VF_HIGH(v), VF_HIGH(v), second);
    }
    return add_across(VD_ADD(first, second));
}

#include "compare_wide.h"

const compare_kernels LANES_TABLE = {.lanes = LANES, .block = lanes_block, .equal = lanes_equal, .beyond = lanes_beyond,
                                     .widen = lanes_widen, .squares = lanes_squares, .wide_block = wide_block,
                                     .wide_equal = wide_equal, .to_f64 = wide_decode};
