/* compare.c -- port_compare: one walk over two tensors, in blocks that stay in the first-level cache.
 *
 * A block is handed to one of the functions of compare_blocks.h as row-major elements: where a view is strided they
 * are gathered first, 1024 at a time, so nothing is ever copied whole. */
#include "compare_blocks.h"

#include <math.h>

/* ------------------------------------------------------------------ walking a view */

typedef struct cursor {
    const char *data;    /* next element of a contiguous view, else the first element */
    size_t size_bytes;   /* of one element */
    bool contiguous;
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM], stride_bytes[PORT_MAX_NDIM], at[PORT_MAX_NDIM];
    char *buffer;        /* PORT_COMPARE_BLOCK elements */
} cursor;

static void
cursor_start(cursor *c, const port_view *view, void *buffer)
{
    *c = (cursor){.data = view->data, .size_bytes = port_dtype_size(view->dtype), .ndim = view->ndim, .buffer = buffer};
    bool aligned = (uintptr_t)view->data % c->size_bytes == 0; /* elements that are not are copied one by one */
    c->contiguous = port_view_is_contiguous(view) && aligned;
    for (int32_t d = 0; d < view->ndim; d++) {
        c->shape[d] = view->shape[d];
        c->stride_bytes[d] = view->strides[d] * (int64_t)c->size_bytes;
    }
    if (c->ndim == 0) { /* a scalar walks as one element of one dimension */
        c->ndim = 1;
        c->shape[0] = 1;
    }
}

static void
copy_run(char *out, const char *in, int64_t count, int64_t stride_bytes, size_t size_bytes)
{
    for (int64_t i = 0; i < count; i++) {
        memcpy(out + i * (int64_t)size_bytes, in + i * stride_bytes, size_bytes);
    }
}

/* Steps the dimensions above the last one. */
static void
cursor_carry(cursor *c)
{
    int32_t d = c->ndim - 1;
    while (d > 0 && c->at[d] == c->shape[d]) {
        c->at[d] = 0;
        c->at[--d]++;
    }
}

/* The next `count` elements, row-major; there must be as many. Valid until the next call. */
static const void *
cursor_next(cursor *c, int64_t count)
{
    if (c->contiguous) {
        const void *here = c->data;
        c->data += count * (int64_t)c->size_bytes;
        return here;
    }
    int32_t last = c->ndim - 1;
    for (int64_t done = 0; done < count;) {
        int64_t offset = 0, run = c->shape[last] - c->at[last];
        for (int32_t d = 0; d < c->ndim; d++) {
            offset += c->at[d] * c->stride_bytes[d];
        }
        run = run < count - done ? run : count - done;
        copy_run(c->buffer + done * (int64_t)c->size_bytes, c->data + offset, run, c->stride_bytes[last], c->size_bytes);
        done += run;
        c->at[last] += run;
        cursor_carry(c);
    }
    return c->buffer;
}

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
    if (!(options->scale_scalar >= 0) || !(options->unit_roundoff >= 0)) {
        return port_fail(err, PORT_E_VALUE, "the scale (%g) and the unit roundoff (%g) must be numbers that are not negative",
                         options->scale_scalar, options->unit_roundoff);
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

/* ------------------------------------------------------------------ one block */

typedef struct pair {
    port_dtype dtype_e, dtype_a, narrower;
    bool whole, avx2;
} pair;

static void
equal_block(compare_state *state, const pair *p, const char *e, int64_t base, int64_t count)
{
    int64_t done = 0;
    if (p->avx2 && count >= 8 && compare_equal_f32_avx2(state, (const float *)(const void *)e, base, count & ~(int64_t)7)) {
        done = count & ~(int64_t)7;
        if (state->has_scale && state->m->max_err_scale < 0) {
            compare_block_scale(state, base, done);
        }
    }
    if (done < count) {
        size_t size_bytes = port_dtype_size(p->dtype_e);
        compare_decode(e + done * (int64_t)size_bytes, p->dtype_e, p->dtype_e, count - done, state->e, state->key_e);
        compare_block_equal(state, base + done, count - done);
        if (state->has_scale && state->m->max_err_scale < 0) {
            compare_block_scale(state, base + done, count - done);
        }
    }
}

static void
unequal_block(compare_state *state, const pair *p, const char *e, const char *a, int64_t base, int64_t count)
{
    int64_t done = 0;
    const float *fe = (const float *)(const void *)e, *fa = (const float *)(const void *)a;
    if (p->avx2 && count >= 8 && compare_block_f32_avx2(state, fe, fa, base, count & ~(int64_t)7)) {
        done = count & ~(int64_t)7;
        if (state->has_scale) {
            compare_block_scale(state, base, done);
        }
    }
    if (done < count) {
        e += done * (int64_t)port_dtype_size(p->dtype_e);
        a += done * (int64_t)port_dtype_size(p->dtype_a);
        compare_decode(e, p->dtype_e, p->narrower, count - done, state->e, state->key_e);
        compare_decode(a, p->dtype_a, p->narrower, count - done, state->a, state->key_a);
        compare_block_decoded(state, base + done, count - done, p->whole);
        if (state->has_scale) {
            memmove(state->scale, state->scale + done, (size_t)(count - done) * sizeof state->scale[0]);
            compare_block_scale(state, base + done, count - done);
        }
    }
}

static port_status
fetch_scale(compare_state *state, const port_view *view, cursor *scale, int64_t base, int64_t count, port_error *err)
{
    const void *data = cursor_next(scale, count);
    for (int64_t i = 0; i < count; i++) {
        double s = view->dtype == PORT_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
        if (!(s >= 0)) {
            return port_fail(err, PORT_E_VALUE, "the scale of element %lld is %g; it must be a number that is not negative",
                             (long long)(base + i), s);
        }
        state->scale[i] = s;
    }
    return PORT_OK;
}

static port_status
walk(compare_state *state, const pair *p, const port_view *expected, const port_view *actual, const port_view *scale,
     char *buffers, port_error *err)
{
    cursor ce, ca, cs;
    int64_t elems = state->m->num_elems;
    cursor_start(&ce, expected, buffers);
    cursor_start(&ca, actual, buffers + 8 * PORT_COMPARE_BLOCK);
    if (scale != NULL) {
        cursor_start(&cs, scale, buffers + 16 * PORT_COMPARE_BLOCK);
    }
    for (int64_t i = 0; state->has_scale && scale == NULL && i < PORT_COMPARE_BLOCK; i++) {
        state->scale[i] = state->scale_scalar;
    }
    bool same_dtype = p->dtype_e == p->dtype_a;
    for (int64_t base = 0; base < elems; base += PORT_COMPARE_BLOCK) {
        int64_t count = elems - base < PORT_COMPARE_BLOCK ? elems - base : PORT_COMPARE_BLOCK;
        const char *e = cursor_next(&ce, count), *a = cursor_next(&ca, count);
        if (scale != NULL) {
            port_status status = fetch_scale(state, scale, &cs, base, count, err);
            if (status != PORT_OK) {
                return status;
            }
        }
        compare_raise_floor(state);
        if (same_dtype && memcmp(e, a, (size_t)count * port_dtype_size(p->dtype_e)) == 0) {
            equal_block(state, p, e, base, count);
        } else {
            unequal_block(state, p, e, a, base, count);
        }
    }
    return PORT_OK;
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
    for (int lane = 0; lane < 4; lane++) {
        for (int b = 0; b < PORT_ULP_BUCKETS; b++) {
            m->ulp_histogram[b] += state->ulp_lanes[lane][b];
        }
    }
    double n = (double)state->num_finite;
    if (state->num_finite > 0) {
        m->mean_abs = state->sum_abs / n;
        m->mean_error = state->sum_error / n;
        m->mean_signed_ulp = state->sum_signed_ulp / n;
        m->p99_abs = percentile(state, 0.99);
        m->p999_abs = percentile(state, 0.999);
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

port_status
port_compare(const port_view *expected, const port_view *actual, const port_compare_options *options,
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
    compare_state *state = port_calloc(1, sizeof *state);
    char *buffers = port_alloc_aligned(3 * 8 * PORT_COMPARE_BLOCK);
    int64_t *errors = port_calloc(PORT_ERROR_BUCKETS, sizeof *errors);
    if (state == NULL || buffers == NULL || errors == NULL) {
        status = port_fail(err, PORT_E_NOMEM, "no memory to compare two tensors");
    } else {
        pair p = {.dtype_e = e.dtype, .dtype_a = a.dtype, .whole = narrowness(e.dtype) == 0};
        p.narrower = narrowness(e.dtype) > narrowness(a.dtype) ? e.dtype : a.dtype;
        p.avx2 = e.dtype == PORT_F32 && a.dtype == PORT_F32 && compare_have_avx2();
        const port_view *scale = options != NULL ? options->scale : NULL;
        state->m = metrics;
        state->errors = errors;
        state->scale_scalar = options != NULL ? options->scale_scalar : 0;
        state->has_scale = scale != NULL || state->scale_scalar > 0;
        state->unit_roundoff = options != NULL && options->unit_roundoff > 0 ? options->unit_roundoff : 0x1p-24;
        start(metrics, port_view_elems(&e));
        state->most_above = metrics->num_elems - (int64_t)ceil(0.99 * (double)metrics->num_elems) + 1; /* 1: products round */
        status = walk(state, &p, &e, &a, scale, buffers, err);
        finish(state);
    }
    port_free(errors);
    port_free_aligned(buffers);
    port_free(state);
    return status;
}
