/* compare_wide.h -- blocks of finite f64 and of integers below 2^52, several elements at a time, as float64 in state->e and a.
 *
 * Included by compare_lanes.h. A distance of integers is their error; f64 are counted in the order of compare_decode.c. What does not
 * fit (NaN, infinity, what squares beyond float64's range, large integers) is left to compare_blocks.c. */
#define WIDE_LIMIT 0x1p500        /* no product of two such, nor a sum of a block of them, overflows */
#define WIDE_WHOLE_LIMIT 0x1p52   /* integers up to it, and their differences, are exact */

typedef struct wide_found {
    lanes_found common;
    uint64_t max_ulp;
    double max_rel; /* where num_rel > 0 */
} wide_found;

LANES_FN static double
min_across(VD v)
{
    return -max_across(VD_SUB(VD_SET(0.0), v));
}

/* Range, equality and relative errors. */
LANES_FN static void
wide_relative_pass(const compare_state *state, int64_t count, wide_found *found)
{
    const VD zero = VD_SET(0.0), one = VD_SET(1.0);
    VD low_e = VD_LOAD(state->e), high_e = low_e, low_a = VD_LOAD(state->a), high_a = low_a, top = zero, sum = zero;
    int64_t num_zero = 0, num_inf = 0, num_unequal = 0;
    for (int64_t i = 0; i < count; i += HALF) {
        VD ve = VD_LOAD(state->e + i), va = VD_LOAD(state->a + i), error = VD_LOAD(state->error + i);
        VD_MASK at_zero = VD_EQUAL(ve, zero), unequal = VD_LESS(zero, error);
        VD rel = VD_BLEND(VD_DIV(error, VD_BLEND(VD_ABS(ve), one, at_zero)), zero, at_zero);
        sum = VD_ADD(sum, rel);
        top = VD_MAX(top, rel);
        num_zero += VD_COUNT(at_zero);
        num_inf += VD_COUNT_BOTH(at_zero, unequal);
        num_unequal += VD_COUNT(unequal);
        low_e = VD_MIN(low_e, ve);
        high_e = VD_MAX(high_e, ve);
        low_a = VD_MIN(low_a, va);
        high_a = VD_MAX(high_a, va);
    }
    lanes_found *common = &found->common;
    found->max_rel = max_across(top);
    common->sum_rel = add_across(sum);
    common->num_rel = count - num_zero;
    common->num_rel_inf = num_inf;
    common->num_unequal = num_unequal;
    common->min_e = min_across(low_e);
    common->max_e = max_across(high_e);
    common->min_a = min_across(low_a);
    common->max_a = max_across(high_a);
}

/* Distances of f64, left in state->key_e; in key_a the same, but all bits for a pair of different signs. */
LANES_FN static void
wide_integer_pass(compare_state *state, int64_t count, wide_found *found)
{
    const VI magnitude = VL_SET(INT64_MAX), lower = VL_SET(UINT32_MAX), middle = VL_SET(INT64_MIN), zero = VL_SET(0);
    VI top = zero, net_high = zero, net_low = zero; /* the sum of signed distances, in two halves that cannot overflow */
    for (int64_t i = 0; i < count; i += HALF) {
        VI be = VI_LOAD(state->e + i), ba = VI_LOAD(state->a + i);
        VI se = VL_SIGN(be), sa = VL_SIGN(ba);
        VI ke = VL_SUB(VI_XOR(be, VI_AND(se, magnitude)), se);
        VI ka = VL_SUB(VI_XOR(ba, VI_AND(sa, magnitude)), sa);
        VI ulp = VL_SUB(VL_MAX(ka, ke), VL_MIN(ka, ke)); /* as uint64 */
        VI opposite = VI_OR(VI_AND(VL_SIGN(ke), VL_SIGN(VL_SUB(zero, ka))), VI_AND(VL_SIGN(ka), VL_SIGN(VL_SUB(zero, ke))));
        VI_STORE(state->key_e + i, ulp);
        VI_STORE(state->key_a + i, VI_OR(ulp, opposite));
        top = VL_MAXU(top, ulp);
        net_high = VL_ADD(net_high, VL_SUB(VL_UPPER(VI_XOR(ka, middle)), VL_UPPER(VI_XOR(ke, middle))));
        net_low = VL_ADD(net_low, VL_SUB(VI_AND(ka, lower), VI_AND(ke, lower)));
    }
    uint64_t tops[HALF];
    int64_t high[HALF], low[HALF];
    VI_STORE(tops, top);
    VI_STORE(high, net_high);
    VI_STORE(low, net_low);
    found->max_ulp = 0;
    for (int k = 0; k < HALF; k++) {
        found->max_ulp = tops[k] > found->max_ulp ? tops[k] : found->max_ulp;
        found->common.sum_signed_ulp += 0x1p32 * (double)high[k] + (double)low[k];
    }
}

/* The greatest relative error and distance, each at its first place. */
static void
settle_wide(compare_state *state, bool whole, int64_t base, const wide_found *found)
{
    port_metrics *m = state->m;
    if (found->common.num_rel > 0 && (found->max_rel > m->max_rel || m->max_rel_idx < 0)) {
        int64_t i = 0;
        while (state->e[i] == 0 || state->error[i] / fabs(state->e[i]) != found->max_rel) {
            i++;
        }
        m->max_rel = found->max_rel;
        m->max_rel_idx = base + i;
    }
    if (found->max_ulp > m->max_ulp) {
        int64_t i = 0;
        while (whole ? state->error[i] != found->common.max_abs : state->key_e[i] != found->max_ulp) {
            i++;
        }
        m->max_ulp = found->max_ulp;
        m->max_ulp_idx = base + i;
    }
}

/* Distances of integers, in state->error, as the pass above leaves them. */
static void
whole_distances(compare_state *state, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double e = state->e[i], a = state->a[i];
        int opposite = ((e < 0) & (a > 0)) | ((e > 0) & (a < 0));
        state->key_a[i] = (uint64_t)(int64_t)state->error[i] | (uint64_t)-(int64_t)opposite;
    }
}

static void
count_wide_ulps(compare_state *state, bool whole, int64_t count)
{
    enum { OPPOSITE = 64, TURNS = 4 };
    uint32_t counts[TURNS][OPPOSITE + 1] = {{0}}; /* several, as neighbours often meet in one bucket */
    if (whole) {
        whole_distances(state, count);
    }
    for (int64_t i = 0; i < count; i += TURNS) { /* the distance of two f64 of one sign is below 2^63 */
        for (int turn = 0; turn < TURNS; turn++) {
            uint64_t ulp = state->key_a[i + turn];
            counts[turn][ulp == 0 ? 0 : OPPOSITE - __builtin_clzll(ulp)]++;
        }
    }
    for (int b = 0; b <= OPPOSITE; b++) {
        int bucket = b < PORT_DIFFERENT_SIGN ? b : b < OPPOSITE ? PORT_DIFFERENT_SIGN - 1 : PORT_DIFFERENT_SIGN;
        for (int turn = 0; turn < TURNS; turn++) {
            state->m->ulp_histogram[bucket] += counts[turn][b];
        }
    }
}

LANES_FN static bool
wide_block(compare_state *state, bool whole, int64_t base, int64_t count)
{
    wide_found found = {0};
    lanes_found *common = &found.common;
    const double limit = whole ? WIDE_WHOLE_LIMIT : WIDE_LIMIT;
    float_pass(true, state, NULL, count, common);
    if (!(common->sums.d_ee <= DBL_MAX && common->sums.d_aa <= DBL_MAX)) {
        return false;
    }
    wide_relative_pass(state, count, &found);
    if (!(common->min_e >= -limit && common->max_e <= limit && common->min_a >= -limit && common->max_a <= limit)) {
        return false;
    }
    if (whole) {
        found.max_ulp = (uint64_t)common->max_abs;
        common->sum_signed_ulp = common->sums.sum_error;
    } else {
        wide_integer_pass(state, count, &found);
    }
    settle_wide(state, whole, base, &found);
    add_found(state, base, count, common);
    state->sum_signed_ulp += common->sum_signed_ulp;
    if (state->errors != NULL) {
        count_errors(state, count);
        count_wide_ulps(state, whole, count);
    }
    return true;
}

LANES_FN static bool
wide_equal(compare_state *state, int64_t base, int64_t count)
{
    const VD shift = VD_SET(state->e[0]), nothing = VD_SET(0.0);
    VD d_e = nothing, d_ee = nothing, low = VD_LOAD(state->e), high = low;
    int64_t num_zero = 0, not_zero = 0;
    for (int64_t i = 0; i < count; i += HALF) {
        VD v = VD_LOAD(state->e + i), d = VD_SUB(v, shift);
        low = VD_MIN(low, v);
        high = VD_MAX(high, v);
        num_zero += VD_COUNT(VD_EQUAL(v, nothing));
        d_e = VD_ADD(d_e, d);
        d_ee = VD_FMA(d, d, d_ee);
    }
    while (state->m->max_rel_idx < 0 && num_zero < count && state->e[not_zero] == 0) {
        not_zero++;
    }
    double min = min_across(low), max = max_across(high);
    compare_sums sums = {.shift_e = state->e[0], .d_e = add_across(d_e), .d_ee = add_across(d_ee)};
    if (!(min >= -WIDE_LIMIT && max <= WIDE_LIMIT) || !add_equal(state, sums, base, count, num_zero, not_zero)) {
        return false;
    }
    add_range(state->m, min, max, min, max);
    return true;
}

#define WIDEN(type, value)                                                    \
    do {                                                                      \
        const type *in = data;                                                \
        for (int64_t i = 0; i < count; i += LANES) {                          \
            for (int k = 0; k < LANES; k++) {                                 \
                const type x = in[i + k];                                     \
                values[i + k] = (double)(value);                              \
            }                                                                 \
        }                                                                     \
    } while (0)

LANES_FN static void
wide_decode(const void *restrict data, port_dtype dtype, int64_t count, double *restrict values)
{
    switch (dtype) {
    case PORT_BOOL: WIDEN(uint8_t, x != 0); break;
    case PORT_U8: WIDEN(uint8_t, x); break;
    case PORT_I8: WIDEN(int8_t, x); break;
    case PORT_U16: WIDEN(uint16_t, x); break;
    case PORT_I16: WIDEN(int16_t, x); break;
    case PORT_U32: WIDEN(uint32_t, x); break;
    case PORT_I32: WIDEN(int32_t, x); break;
    case PORT_U64: WIDEN(uint64_t, x); break;
    case PORT_I64: WIDEN(int64_t, x); break;
    default: memcpy(values, data, (size_t)count * sizeof *values); break;
    }
}

#undef WIDEN
