/* compare_blocks.c -- one decoded block of any dtype into the accumulator, element by element. It defines what the
 * metrics mean; compare_lanes.h is the same for most blocks. */
#include "compare_blocks.h"

#include <math.h>

void
compare_unshift(compare_sums *sums, int64_t count)
{
    double n = (double)count, e = sums->shift_e, a = sums->shift_a;
    sums->sum_error = (sums->d_a - sums->d_e) + n * (a - e);
    sums->sum_sq_expected = sums->d_ee + (2 * sums->d_e + n * e) * e;
    sums->sum_sq_actual = sums->d_aa + (2 * sums->d_a + n * a) * a;
    sums->sum_product = sums->d_ea + sums->d_e * a + sums->d_a * e + n * e * a;
}

void
compare_merge_sums(compare_state *state, const compare_sums *sums, int64_t count)
{
    if (count == 0) {
        return;
    }
    state->sum_abs += sums->sum_abs;
    state->sum_error += sums->sum_error;
    state->sum_product += sums->sum_product;
    state->m->sum_sq_error += sums->sum_sq_error;
    state->m->sum_sq_expected += sums->sum_sq_expected;
    state->m->sum_sq_actual += sums->sum_sq_actual;

    double n = (double)count, before = (double)state->num_finite, total = n + before;
    double mean_e = sums->shift_e + sums->d_e / n, mean_a = sums->shift_a + sums->d_a / n;
    double step_e = mean_e - state->mean_e, step_a = mean_a - state->mean_a;
    double weight = before * n / total;
    state->m2_e += sums->d_ee - sums->d_e * sums->d_e / n + step_e * step_e * weight;
    state->m2_a += sums->d_aa - sums->d_a * sums->d_a / n + step_a * step_a * weight;
    state->m2_ea += sums->d_ea - sums->d_e * sums->d_a / n + step_e * step_a * weight;
    state->mean_e += step_e * n / total;
    state->mean_a += step_a * n / total;
    state->num_finite += count;
}

/* The side's own range and infinities; true if the value is finite. */
static bool
look_at(double value, double *min, double *max, int64_t *num_nan, int64_t *num_inf)
{
    if (isnan(value)) {
        ++*num_nan;
        return false;
    }
    if (isinf(value)) {
        ++*num_inf;
        return false;
    }
    *min = value < *min ? value : *min;
    *max = value > *max ? value : *max;
    return true;
}

static void
count_ulp(port_metrics *m, uint64_t ulp, bool special, int64_t index)
{
    int bucket = ulp == 0 ? 0 : 64 - __builtin_clzll(ulp);
    bucket = bucket > PORT_DIFFERENT_SIGN - 1 ? PORT_DIFFERENT_SIGN - 1 : bucket;
    m->ulp_histogram[special ? PORT_DIFFERENT_SIGN : bucket]++;
    if (ulp > m->max_ulp) {
        m->max_ulp = ulp;
        m->max_ulp_idx = index;
    }
}

static void
nonfinite_pair(port_metrics *m, double e, double a, uint64_t ulp, int64_t index)
{
    bool nan_e = isnan(e), nan_a = isnan(a);
    bool same = (nan_e && nan_a) || e == a;
    m->num_nan_mismatch += nan_e != nan_a;
    m->num_inf_mismatch += (isinf(e) || isinf(a)) && e != a;
    m->num_unequal += !same;
    if (!same && m->first_nonfinite_mismatch < 0) {
        m->first_nonfinite_mismatch = index;
    }
    count_ulp(m, same ? 0 : nan_e != nan_a ? UINT64_MAX : ulp, !same, index);
}

static void
relative(compare_state *state, double error, double e, int64_t index)
{
    port_metrics *m = state->m;
    if (e == 0) {
        m->num_rel_inf += error > 0;
        return;
    }
    double rel = error / fabs(e);
    state->num_rel++;
    state->sum_rel += rel;
    if (rel > m->max_rel || m->max_rel_idx < 0) {
        m->max_rel = rel;
        m->max_rel_idx = index;
    }
}

static void
count_error(compare_state *state, double error, int64_t index)
{
    port_metrics *m = state->m;
    if (error > m->max_abs || m->max_abs_idx < 0) {
        m->max_abs = error;
        m->max_abs_idx = index;
    }
    if (error > 0 && state->errors != NULL) {
        int64_t bucket = compare_bucket(error);
        state->errors[bucket]++;
        state->num_above_floor += bucket >= state->floor_bucket;
    }
}

static void
add_to_sums(compare_sums *sums, double e, double a, double signed_error, bool first)
{
    if (first) {
        sums->shift_e = e;
        sums->shift_a = a;
    }
    double d_e = e - sums->shift_e, d_a = a - sums->shift_a;
    sums->d_e += d_e;
    sums->d_a += d_a;
    sums->d_ee += d_e * d_e;
    sums->d_aa += d_a * d_a;
    sums->d_ea += d_e * d_a;
    sums->sum_abs += fabs(signed_error);
    sums->sum_error += signed_error;
    sums->sum_sq_error += signed_error * signed_error;
    sums->sum_sq_expected += e * e;
    sums->sum_sq_actual += a * a;
    sums->sum_product += e * a;
}

void
compare_block_decoded(compare_state *state, int64_t base, int64_t count, bool whole)
{
    port_metrics *m = state->m;
    compare_sums sums = {0};
    int64_t num_finite = 0;
    for (int64_t i = 0; i < count; i++) {
        double e = state->e[i], a = state->a[i];
        bool upward = state->key_a[i] >= state->key_e[i];
        uint64_t ulp = upward ? state->key_a[i] - state->key_e[i] : state->key_e[i] - state->key_a[i];
        bool finite_e = look_at(e, &m->min_expected, &m->max_expected, &m->num_nan_expected, &m->num_inf_expected);
        bool finite_a = look_at(a, &m->min_actual, &m->max_actual, &m->num_nan_actual, &m->num_inf_actual);
        state->error[i] = (double)NAN;
        if (!finite_e || !finite_a) {
            nonfinite_pair(m, e, a, ulp, base + i);
            continue;
        }
        double size = whole ? (double)ulp : fabs(a - e); /* 64-bit integers do not fit in a double, their distance rounds once */
        double signed_error = (whole ? upward : a >= e) ? size : -size;
        state->error[i] = size;
        m->num_unequal += whole ? ulp != 0 : e != a;
        count_error(state, size, base + i);
        relative(state, size, e, base + i);
        count_ulp(m, ulp, (e < 0 && a > 0) || (e > 0 && a < 0), base + i);
        state->sum_signed_ulp += upward ? (double)ulp : -(double)ulp;
        add_to_sums(&sums, e, a, signed_error, num_finite == 0);
        num_finite++;
    }
    compare_merge_sums(state, &sums, num_finite);
}

void
compare_block_equal(compare_state *state, int64_t base, int64_t count)
{
    port_metrics *m = state->m;
    compare_sums sums = {0};
    int64_t num_finite = 0;
    for (int64_t i = 0; i < count; i++) {
        double e = state->e[i];
        state->error[i] = (double)NAN;
        if (!look_at(e, &m->min_expected, &m->max_expected, &m->num_nan_expected, &m->num_inf_expected)) {
            m->num_nan_actual += isnan(e) != 0;
            m->num_inf_actual += isinf(e) != 0;
            continue;
        }
        m->min_actual = e < m->min_actual ? e : m->min_actual;
        m->max_actual = e > m->max_actual ? e : m->max_actual;
        state->error[i] = 0;
        count_error(state, 0, base + i);
        relative(state, 0, e, base + i);
        add_to_sums(&sums, e, e, 0, num_finite == 0);
        num_finite++;
    }
    m->ulp_histogram[0] += count;
    compare_merge_sums(state, &sums, num_finite);
}

void
compare_block_scale(compare_state *state, const float *e, int64_t base, int64_t count)
{
    port_metrics *m = state->m;
    /* Only what comes near the greatest ratio so far is divided; the factor covers the rounding of the product. */
    double near = m->max_err_scale * state->unit_roundoff * (1 - 0x1p-50);
    for (int64_t i = 0; i < count; i++) {
        double error = state->error[i];
        double scale = state->scale[i] + state->scale_slope * fabs(e != NULL ? (double)e[i] : state->e[i]);
        if (!(error >= near * scale) || (error == 0 && m->max_err_scale >= 0)) {
            continue; /* also where the error is no number */
        }
        double ratio = error == 0 ? 0 : error / (state->unit_roundoff * scale); /* no scale: infinite */
        if (!(ratio <= m->max_err_scale)) {
            m->max_err_scale = isnan(ratio) ? (double)INFINITY : ratio; /* an infinite error against an infinite scale */
            m->max_err_scale_idx = base + i;
            near = m->max_err_scale * state->unit_roundoff * (1 - 0x1p-50);
        }
    }
}

/* A percentile is found by walking down from the largest error until more errors lie above than it allows. Buckets below the point
 * where that is sure to have happened are never reached, so their errors need not be counted. */
void
compare_raise_floor(compare_state *state)
{
    int64_t top = compare_bucket(state->m->max_abs);
    while (state->floor_bucket < top && state->num_above_floor - state->errors[state->floor_bucket] > state->most_above) {
        state->num_above_floor -= state->errors[state->floor_bucket++];
    }
}
