/* compare.c -- port_compare: what may be compared, the parts that large tensors are cut into, and what they say together.
 *
 * How a tensor is cut depends on its size alone, so that the last bits of sums do not depend on the number of threads. */
#include "compare_blocks.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>

#define PART_ELEMS (1 << 18) /* starting a thread costs about a fifth of the time that comparing so many takes */
#define MAX_PARTS 16

/* ------------------------------------------------------------------ checks */

/* Floating dtypes from the widest significand to the narrowest; 0 for the others. */
static int
narrowness(port_dtype dtype)
{
    switch (dtype) {
    case PORT_F64: return 1;
    case PORT_F32: return 2;
    case PORT_F16: return 3;
    case PORT_BF16: return 4;
    case PORT_F8_E4M3: return 5;
    case PORT_F8_E5M2: return 6;
    default: return 0;
    }
}

static bool
same_shape(const port_view *a, const port_view *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

static void
shape_text(const port_view *view, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int32_t d = 0; d < view->ndim && used < size; d++) {
        used += (size_t)snprintf(out + used, size - used, "%s%lld", d > 0 ? ", " : "", (long long)view->shape[d]);
    }
    if (used < size) {
        snprintf(out + used, size - used, "]");
    }
}

static port_status
check_shapes(const port_view *expected, const port_view *actual, const char *what, port_error *err)
{
    if (!same_shape(expected, actual)) {
        char left[256], right[256];
        shape_text(expected, left, sizeof left);
        shape_text(actual, right, sizeof right);
        return port_fail(err, PORT_E_SHAPE, "the expected tensor has shape %s, the %s has %s", left, what, right);
    }
    return PORT_OK;
}

static bool
valid_view(const port_view *view)
{
    int64_t elems;
    uint64_t bytes;
    return view != NULL && port_shape_bytes(view->dtype, view->ndim, view->shape, &elems, &bytes) &&
           (view->data != NULL || elems == 0);
}

static port_status
check(const port_view *expected, const port_view *actual, const port_compare_options *options, port_error *err)
{
    if (!valid_view(expected) || !valid_view(actual)) {
        return port_fail(err, PORT_E_VALUE, "a tensor to compare has no data, no known dtype, or an impossible shape");
    }
    port_status status = check_shapes(expected, actual, "actual one", err);
    if (status != PORT_OK) {
        return status;
    }
    if (expected->dtype != actual->dtype && (narrowness(expected->dtype) == 0 || narrowness(actual->dtype) == 0)) {
        return port_fail(err, PORT_E_DTYPE, "the expected tensor is %s, the actual one %s; only two floating dtypes can be "
                         "compared with each other", port_dtype_name(expected->dtype), port_dtype_name(actual->dtype));
    }
    if (options == NULL) {
        return PORT_OK;
    }
    if (!(options->scale_scalar >= 0) || !(options->unit_roundoff >= 0) || !(options->scale_slope >= 0)) {
        return port_fail(err, PORT_E_VALUE, "the scale (%g), its slope (%g) and the unit roundoff (%g) must be numbers that are not"
                         " negative", options->scale_scalar, options->scale_slope, options->unit_roundoff);
    }
    if (options->scale == NULL) {
        return PORT_OK;
    }
    if (!valid_view(options->scale) || (options->scale->dtype != PORT_F64 && options->scale->dtype != PORT_F32)) {
        return port_fail(err, PORT_E_DTYPE, "the scale must be an F64 or F32 tensor");
    }
    if (expected->dtype == PORT_C64) {
        return port_fail(err, PORT_E_DTYPE, "a scale for each element of a complex tensor is not defined; give one number");
    }
    return check_shapes(expected, options->scale, "scale", err);
}

/* ------------------------------------------------------------------ the end */

/* The smallest bucket edge that at least `share` of the finite errors do not exceed. Walks down from the largest error. */
static double
percentile(const compare_state *state, double share)
{
    const port_metrics *m = state->m;
    int64_t allowed_above = state->num_finite - (int64_t)ceil(share * (double)state->num_finite);
    uint64_t bits;
    memcpy(&bits, &m->max_abs, sizeof bits);
    int64_t above = 0;
    for (int64_t bucket = (int64_t)(bits >> 48); bucket >= 0; bucket--) {
        above += state->errors[bucket];
        if (above > allowed_above) {
            double edge;
            bits = (uint64_t)(bucket + 1) << 48;
            memcpy(&edge, &bits, sizeof edge);
            return edge < m->max_abs ? edge : m->max_abs;
        }
    }
    return 0;
}

static void
finish(compare_state *state)
{
    port_metrics *m = state->m;
    double n = (double)state->num_finite;
    if (state->num_finite > 0) {
        m->mean_abs = state->sum_abs / n;
        m->mean_error = state->sum_error / n;
        m->mean_signed_ulp = state->sum_signed_ulp / n;
        m->p99_abs = state->errors != NULL ? percentile(state, 0.99) : (double)NAN;
        m->p999_abs = state->errors != NULL ? percentile(state, 0.999) : (double)NAN;
    }
    if (state->num_rel > 0) {
        m->mean_rel = state->sum_rel / (double)state->num_rel;
    }
    m->min_expected = m->min_expected <= m->max_expected ? m->min_expected : (double)NAN;
    m->max_expected = isnan(m->min_expected) ? (double)NAN : m->max_expected;
    m->min_actual = m->min_actual <= m->max_actual ? m->min_actual : (double)NAN;
    m->max_actual = isnan(m->min_actual) ? (double)NAN : m->max_actual;
    m->nmse = m->sum_sq_error == 0 ? 0 : m->sum_sq_error / m->sum_sq_expected;
    m->sqnr_db = m->sum_sq_error == 0 ? (double)INFINITY : 10 * log10(m->sum_sq_expected / m->sum_sq_error);
    bool cosine_defined = m->sum_sq_expected > 0 && m->sum_sq_actual > 0;
    m->cosine = cosine_defined ? state->sum_product / (sqrt(m->sum_sq_expected) * sqrt(m->sum_sq_actual)) : (double)NAN;
    bool pcc_defined = state->m2_e > 0 && state->m2_a > 0;
    m->pcc = pcc_defined ? state->m2_ea / (sqrt(state->m2_e) * sqrt(state->m2_a)) : (double)NAN;
    m->cosine = fabs(m->cosine) > 1 ? copysign(1, m->cosine) : m->cosine;
    m->pcc = fabs(m->pcc) > 1 ? copysign(1, m->pcc) : m->pcc;
}

/* A complex tensor as its parts: one more dimension of two F32. */
static bool
as_parts(const port_view *view, port_view *out)
{
    *out = *view;
    if (view->dtype != PORT_C64) {
        return true;
    }
    if (view->ndim == PORT_MAX_NDIM) {
        return false;
    }
    for (int32_t d = 0; d < view->ndim; d++) {
        out->strides[d] = 2 * view->strides[d];
    }
    out->dtype = PORT_F32;
    out->shape[view->ndim] = 2;
    out->strides[view->ndim] = 1;
    out->ndim = view->ndim + 1;
    return true;
}

static void
start(port_metrics *m, int64_t elems)
{
    memset(m, 0, sizeof *m);
    m->num_elems = elems;
    m->first_nonfinite_mismatch = m->max_abs_idx = m->max_rel_idx = m->max_ulp_idx = m->max_err_scale_idx = -1;
    m->max_err_scale = -1;
    m->min_expected = m->min_actual = HUGE_VAL;
    m->max_expected = m->max_actual = -HUGE_VAL;
}

/* ------------------------------------------------------------------ parts and threads */

/* The greater of two maxima, the first of equal ones; `from` is further on. An index of -1 says that there is none. */
#define MERGE_MAX(into, from, value, index)                                                             \
    do {                                                                                                \
        if ((from)->index >= 0 && ((into)->index < 0 || (from)->value > (into)->value)) {               \
            (into)->value = (from)->value;                                                              \
            (into)->index = (from)->index;                                                              \
        }                                                                                               \
    } while (0)

static void
merge_counts(port_metrics *m, const port_metrics *from)
{
    m->num_unequal += from->num_unequal;
    m->num_nan_expected += from->num_nan_expected;
    m->num_nan_actual += from->num_nan_actual;
    m->num_nan_mismatch += from->num_nan_mismatch;
    m->num_inf_expected += from->num_inf_expected;
    m->num_inf_actual += from->num_inf_actual;
    m->num_inf_mismatch += from->num_inf_mismatch;
    m->num_rel_inf += from->num_rel_inf;
    if (m->first_nonfinite_mismatch < 0) {
        m->first_nonfinite_mismatch = from->first_nonfinite_mismatch;
    }
    for (int b = 0; b < PORT_ULP_BUCKETS; b++) {
        m->ulp_histogram[b] += from->ulp_histogram[b];
    }
    MERGE_MAX(m, from, max_abs, max_abs_idx);
    MERGE_MAX(m, from, max_rel, max_rel_idx);
    MERGE_MAX(m, from, max_ulp, max_ulp_idx);
    MERGE_MAX(m, from, max_err_scale, max_err_scale_idx);
    m->min_expected = from->min_expected < m->min_expected ? from->min_expected : m->min_expected;
    m->max_expected = from->max_expected > m->max_expected ? from->max_expected : m->max_expected;
    m->min_actual = from->min_actual < m->min_actual ? from->min_actual : m->min_actual;
    m->max_actual = from->max_actual > m->max_actual ? from->max_actual : m->max_actual;
}

/* Adds a part to those before it. */
static void
merge(compare_state *state, const compare_state *from)
{
    double n = (double)from->num_finite;
    merge_counts(state->m, from->m);
    state->num_rel += from->num_rel;
    state->sum_rel += from->sum_rel;
    state->sum_signed_ulp += from->sum_signed_ulp;
    /* The moments are those of a block whose shift is its mean: nothing is left of the first ones. */
    compare_sums sums = {.sum_abs = from->sum_abs, .sum_error = from->sum_error, .sum_product = from->sum_product,
                         .sum_sq_error = from->m->sum_sq_error, .sum_sq_expected = from->m->sum_sq_expected,
                         .sum_sq_actual = from->m->sum_sq_actual, .shift_e = from->mean_e, .shift_a = from->mean_a,
                         .d_ee = from->m2_e, .d_aa = from->m2_a, .d_ea = from->m2_ea};
    compare_merge_sums(state, &sums, (int64_t)n);
    int64_t top = compare_bucket(from->m->max_abs); /* below its floor a part counted too few to be asked for */
    for (int64_t b = from->floor_bucket; state->errors != NULL && b <= top; b++) {
        state->errors[b] += from->errors[b];
    }
}

typedef struct part {
    compare_state *state;
    const compare_pair *pair;
    int64_t begin, end;
    char *buffers;
    int64_t *errors;
    port_metrics metrics;
    port_error err;
    port_status status;
    pthread_t thread;
    bool started;
} part;

static void *
run_part(void *argument)
{
    part *p = argument;
    p->status = compare_walk(p->state, p->pair, p->begin, p->end, p->buffers, &p->err);
    return NULL;
}

static int32_t
usable_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* All parts, on as many threads as there are processors. The calling thread takes what no other was started for. */
static void
run_parts(part *parts, int32_t num_parts)
{
    int32_t cpus = num_parts > 1 ? usable_cpus() : 1;
    for (int32_t first = 0; first < num_parts; first += cpus) {
        int32_t after = first + cpus < num_parts ? first + cpus : num_parts;
        for (int32_t i = first + 1; i < after; i++) {
            parts[i].started = pthread_create(&parts[i].thread, NULL, run_part, &parts[i]) == 0;
        }
        for (int32_t i = first; i < after; i++) {
            if (!parts[i].started) {
                run_part(&parts[i]);
            }
        }
        for (int32_t i = first + 1; i < after; i++) {
            if (parts[i].started) {
                pthread_join(parts[i].thread, NULL);
            }
        }
    }
}

static bool
prepare_part(part *p, const port_compare_options *options, int64_t num_elems)
{
    bool basic = options != NULL && options->basic;
    const size_t errors_bytes = PORT_ERROR_BUCKETS * sizeof *p->errors;
    p->state = port_alloc_aligned(sizeof *p->state); /* aligned blocks are kept and given again: new pages cost more than the sums */
    p->buffers = port_alloc_aligned(PORT_COMPARE_BUFFER);
    p->errors = basic ? NULL : port_alloc_aligned(errors_bytes);
    if (p->state == NULL || p->buffers == NULL || (p->errors == NULL && !basic)) {
        return false;
    }
    compare_state *state = p->state;
    memset(state, 0, offsetof(compare_state, scale)); /* what follows is written before it is read */
    if (!basic) {
        memset(p->errors, 0, errors_bytes);
    }
    state->m = &p->metrics;
    state->errors = p->errors;
    state->scale_scalar = options != NULL ? options->scale_scalar : 0;
    state->scale_slope = options != NULL ? options->scale_slope : 0;
    state->has_scale = p->pair->scale != NULL || state->scale_scalar > 0 || state->scale_slope > 0;
    state->unit_roundoff = options != NULL && options->unit_roundoff > 0 ? options->unit_roundoff : 0x1p-24;
    state->most_above = num_elems - (int64_t)ceil(0.99 * (double)num_elems) + 1; /* 1: products round */
    start(&p->metrics, num_elems);
    return true;
}

static port_status
compare_parts(const compare_pair *pair, const port_compare_options *options, port_metrics *metrics, port_error *err)
{
    int64_t elems = port_view_elems(pair->expected);
    int64_t num_parts = elems / PART_ELEMS < 1 ? 1 : elems / PART_ELEMS > MAX_PARTS ? MAX_PARTS : elems / PART_ELEMS;
    int64_t part_elems = (elems / num_parts / PORT_COMPARE_BLOCK + 1) * PORT_COMPARE_BLOCK;
    part parts[MAX_PARTS] = {0};
    port_status status = PORT_OK;
    for (int32_t i = 0; i < (int32_t)num_parts && status == PORT_OK; i++) {
        int64_t begin = i * part_elems < elems ? i * part_elems : elems;
        parts[i].pair = pair;
        parts[i].begin = begin;
        parts[i].end = i + 1 == num_parts || elems - begin < part_elems ? elems : begin + part_elems;
        if (!prepare_part(&parts[i], options, elems)) {
            status = port_fail(err, PORT_E_NOMEM, "no memory to compare two tensors");
        }
    }
    if (status == PORT_OK) {
        run_parts(parts, (int32_t)num_parts);
        for (int32_t i = 0; i < (int32_t)num_parts; i++) {
            if (parts[i].status != PORT_OK && status == PORT_OK) {
                status = parts[i].status;
                if (err != NULL) {
                    *err = parts[i].err;
                }
            }
            if (i > 0) {
                merge(parts[0].state, parts[i].state);
            }
        }
        finish(parts[0].state);
        *metrics = parts[0].metrics;
    }
    for (int32_t i = 0; i < (int32_t)num_parts; i++) {
        port_free_aligned(parts[i].errors);
        port_free_aligned(parts[i].buffers);
        port_free_aligned(parts[i].state);
    }
    return status;
}

const compare_kernels *
compare_best_kernels(void)
{
    static _Atomic int width = -1; /* asked once: CPUID is slow in a virtual machine */
    if (width < 0) {
        width = compare_have_avx512() ? 16 : compare_have_avx2() ? 8 : 0;
    }
    return width == 16 ? &compare_kernels_avx512 : width == 8 ? &compare_kernels_avx2 : NULL;
}

port_status
compare_by(const compare_kernels *kernels, const port_view *expected, const port_view *actual, const port_compare_options *options,
           port_metrics *metrics, port_error *err)
{
    port_status status = check(expected, actual, options, err);
    if (status != PORT_OK) {
        return status;
    }
    port_view e, a;
    if (!as_parts(expected, &e) || !as_parts(actual, &a)) {
        return port_fail(err, PORT_E_SHAPE, "a complex tensor can have at most %d dimensions here", PORT_MAX_NDIM - 1);
    }
    compare_pair pair = {.expected = &e, .actual = &a, .scale = options != NULL ? options->scale : NULL};
    pair.whole = narrowness(e.dtype) == 0;
    pair.narrower = narrowness(e.dtype) > narrowness(a.dtype) ? e.dtype : a.dtype;
    bool laned = e.dtype == a.dtype && e.dtype != PORT_F8_E4M3 && e.dtype != PORT_F8_E5M2;
    pair.kernels = laned ? kernels : NULL;
    return compare_parts(&pair, options, metrics, err);
}

port_status
port_compare(const port_view *expected, const port_view *actual, const port_compare_options *options,
             port_metrics *metrics, port_error *err)
{
    return compare_by(compare_best_kernels(), expected, actual, options, metrics, err);
}
