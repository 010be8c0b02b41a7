/* compare_walk.c -- one part of two tensors, in blocks that stay in the first-level cache.
 *
 * A block is handed to one of the functions of compare_blocks.h as row-major elements: where a view is strided they
 * are gathered first, 1024 at a time, so nothing is ever copied whole. */
#include "compare_blocks.h"

/* ------------------------------------------------------------------ walking a view */

typedef struct cursor {
    const char *data;    /* next element of a contiguous view, else the first element */
    size_t size_bytes;   /* of one element */
    bool contiguous;
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM], stride_bytes[PORT_MAX_NDIM], at[PORT_MAX_NDIM];
    char *buffer;        /* PORT_COMPARE_BLOCK elements */
} cursor;

/* At the element `begin` in row-major order. */
static void
cursor_start(cursor *c, const port_view *view, int64_t begin, void *buffer)
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
    if (c->contiguous) {
        c->data += (uint64_t)begin * c->size_bytes;
        return;
    }
    for (int32_t d = c->ndim - 1; d > 0 && begin > 0; d--) {
        c->at[d] = begin % c->shape[d];
        begin /= c->shape[d];
    }
    c->at[0] = begin;
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

/* The next run along the last dimension: its first byte. *run: at most `most` elements. */
static const char *
cursor_run(cursor *c, int64_t most, int64_t *run)
{
    int32_t last = c->ndim - 1;
    int64_t offset = 0, left = c->shape[last] - c->at[last];
    for (int32_t d = 0; d < c->ndim; d++) {
        offset += c->at[d] * c->stride_bytes[d];
    }
    *run = left < most ? left : most;
    c->at[last] += *run;
    cursor_carry(c);
    return c->data + offset;
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
    for (int64_t done = 0, run; done < count; done += run) {
        const char *from = cursor_run(c, count - done, &run);
        copy_run(c->buffer + done * (int64_t)c->size_bytes, from, run, c->stride_bytes[c->ndim - 1], c->size_bytes);
    }
    return c->buffer;
}

/* ------------------------------------------------------------------ one block */

/* The part of a block that the lanes take as f32. */
static void
as_lanes(compare_state *state, const compare_pair *p, const char *e, const char *a, int64_t count, compare_lanes *x)
{
    port_dtype dtype = p->expected->dtype;
    if (dtype == PORT_F32) {
        *x = (compare_lanes){.e = (const float *)(const void *)e, .a = (const float *)(const void *)a, .bits_e = e, .bits_a = a};
    } else {
        p->kernels->widen((const uint16_t *)(const void *)e, dtype == PORT_F16, count, state->wide_e, state->bits_e);
        if (e != a) {
            p->kernels->widen((const uint16_t *)(const void *)a, dtype == PORT_F16, count, state->wide_a, state->bits_a);
        }
        *x = (compare_lanes){.e = state->wide_e, .a = state->wide_a, .bits_e = state->bits_e, .bits_a = state->bits_a, .ulp_shift = 16};
    }
    x->elem_bytes = port_dtype_size(dtype);
    x->next_e = (uintptr_t)e + (uintptr_t)count * x->elem_bytes;
    x->next_a = (uintptr_t)a + (uintptr_t)count * x->elem_bytes;
}

/* As many elements as fit the lanes, by them; false if they do not take them. *at: the expected ones as f32, NULL: in state->e. */
static bool
run_lanes(compare_state *state, const compare_pair *p, const char *e, const char *a, int64_t base, int64_t count, const float **at)
{
    port_dtype dtype = p->expected->dtype;
    compare_lanes x = {0};
    bool fits;
    if (count == 0) {
        return false;
    }
    if (p->whole || dtype == PORT_F64) {
        p->kernels->to_f64(e, dtype, count, state->e);
        if (e != a) {
            p->kernels->to_f64(a, dtype, count, state->a);
        }
        fits = e == a ? p->kernels->wide_equal(state, base, count) : p->kernels->wide_block(state, p->whole, base, count);
    } else {
        as_lanes(state, p, e, a, count, &x);
        fits = e == a ? p->kernels->equal(state, x.e, base, count) : p->kernels->block(state, &x, base, count);
    }
    *at = x.e;
    return fits;
}

static int64_t
lanes_of(const compare_pair *p, int64_t count)
{
    return p->kernels != NULL ? count - count % p->kernels->lanes : 0;
}

static void
equal_block(compare_state *state, const compare_pair *p, const char *e, int64_t base, int64_t count)
{
    int64_t done = lanes_of(p, count);
    const float *at = NULL;
    bool fits = run_lanes(state, p, e, e, base, done, &at);
    if (fits && state->has_scale && state->m->max_err_scale < 0) {
        state->m->max_err_scale = 0;
        state->m->max_err_scale_idx = base;
    }
    done = fits ? done : 0;
    if (done < count) {
        port_dtype dtype = p->expected->dtype;
        compare_decode(e + done * (int64_t)port_dtype_size(dtype), dtype, dtype, count - done, state->e, state->key_e);
        compare_block_equal(state, base + done, count - done);
        if (state->has_scale && state->m->max_err_scale < 0) {
            compare_block_scale(state, NULL, base + done, count - done);
        }
    }
}

static void
unequal_block(compare_state *state, const compare_pair *p, const char *e, const char *a, int64_t base, int64_t count)
{
    int64_t done = lanes_of(p, count);
    const float *at = NULL;
    bool fits = run_lanes(state, p, e, a, base, done, &at);
    double near = state->m->max_err_scale * state->unit_roundoff * (1 - 0x1p-49);
    if (fits && state->has_scale && p->kernels->beyond(state, at, near, done)) {
        compare_block_scale(state, at, base, done);
    }
    done = fits ? done : 0;
    if (done < count) {
        e += done * (int64_t)port_dtype_size(p->expected->dtype);
        a += done * (int64_t)port_dtype_size(p->actual->dtype);
        compare_decode(e, p->expected->dtype, p->narrower, count - done, state->e, state->key_e);
        compare_decode(a, p->actual->dtype, p->narrower, count - done, state->a, state->key_a);
        compare_block_decoded(state, base + done, count - done, p->whole);
        if (state->has_scale) {
            memmove(state->scale, state->scale + done, (size_t)(count - done) * sizeof state->scale[0]);
            compare_block_scale(state, NULL, base + done, count - done);
        }
    }
}

static port_status
bad_scale(port_error *err, int64_t index, double scale)
{
    return port_fail(err, PORT_E_VALUE, "the scale of element %lld is %g; it must be a number that is not negative",
                     (long long)index, scale);
}

static double
scale_at(const char *data, port_dtype dtype, int64_t i)
{
    double wide;
    float narrow;
    if (dtype == PORT_F64) {
        memcpy(&wide, data + 8 * i, sizeof wide);
        return wide;
    }
    memcpy(&narrow, data + 4 * i, sizeof narrow);
    return (double)narrow;
}

/* The scales of the block into state->scale. One that is the same along the last dimension is read once a row. */
static port_status
fetch_scale(compare_state *state, port_dtype dtype, cursor *scale, int64_t base, int64_t count, port_error *err)
{
    double *out = state->scale;
    if (!scale->contiguous && scale->stride_bytes[scale->ndim - 1] == 0) {
        for (int64_t done = 0, run; done < count; done += run) {
            double s = scale_at(cursor_run(scale, count - done, &run), dtype, 0);
            if (!(s >= 0)) {
                return bad_scale(err, base + done, s);
            }
            for (int64_t i = 0; i < run; i++) {
                out[done + i] = s;
            }
        }
        return PORT_OK;
    }
    const char *data = cursor_next(scale, count);
    for (int64_t i = 0; i < count; i++) {
        out[i] = scale_at(data, dtype, i);
        if (!(out[i] >= 0)) {
            return bad_scale(err, base + i, out[i]);
        }
    }
    return PORT_OK;
}

port_status
compare_walk(compare_state *state, const compare_pair *p, int64_t begin, int64_t end, char *buffers, port_error *err)
{
    cursor ce, ca, cs;
    cursor_start(&ce, p->expected, begin, buffers);
    cursor_start(&ca, p->actual, begin, buffers + 8 * PORT_COMPARE_BLOCK);
    if (p->scale != NULL) {
        cursor_start(&cs, p->scale, begin, buffers + 16 * PORT_COMPARE_BLOCK);
    }
    for (int64_t i = 0; i < PORT_COMPARE_BLOCK; i++) {
        state->scale[i] = state->scale_scalar;
    }
    bool same_dtype = p->expected->dtype == p->actual->dtype;
    size_t size_bytes = port_dtype_size(p->expected->dtype);
    for (int64_t base = begin; base < end; base += PORT_COMPARE_BLOCK) {
        int64_t count = end - base < PORT_COMPARE_BLOCK ? end - base : PORT_COMPARE_BLOCK;
        const char *e = cursor_next(&ce, count), *a = cursor_next(&ca, count);
        if (p->scale != NULL) {
            port_status status = fetch_scale(state, p->scale->dtype, &cs, base, count, err);
            if (status != PORT_OK) {
                return status;
            }
        }
        if (state->errors != NULL) {
            compare_raise_floor(state);
        }
        if (same_dtype && memcmp(e, a, (size_t)count * size_bytes) == 0) {
            equal_block(state, p, e, base, count);
        } else {
            unequal_block(state, p, e, a, base, count);
        }
    }
    return PORT_OK;
}
