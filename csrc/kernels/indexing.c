/* indexing.c -- embedding, index, gather, index_select, isin: they move elements and never round.
 *
 * Every index is checked before anything is read (negative ones count from the end where torch lets them). */
#include "../core/plane.h"
#include "loops.h"
#include "places.h"

/* ---------------------------------------------------------------- places */

enum { SLOW_ELEMS = 4 }; /* copied elements that take as long as finding the place of one */

/* Turns a flat row-major number into the offset of that element in bytes. */
static int64_t
offset_of(const port_view *view, int64_t flat)
{
    int64_t offset = 0;
    for (int32_t d = view->ndim - 1; d >= 0; d--) {
        offset += flat % view->shape[d] * view->strides[d];
        flat /= view->shape[d];
    }
    return offset * (int64_t)port_dtype_size(view->dtype);
}

static int64_t
index_at(const port_view *indices, int64_t flat)
{
    return port_place_at(indices->dtype == PORT_I64, (const char *)indices->data + offset_of(indices, flat));
}

enum { INDEX_LANES = 64 };

/* Of n places side by side. */
static bool
dense_outside(const int64_t *places, int64_t n, int64_t least, int64_t size)
{
    int64_t i = 0, negative = 0;
#define OUTSIDE(place) (((place) - (uint64_t)least) | ((uint64_t)(size - least - 1) - (((place) - (uint64_t)least) & INT64_MAX)))
    for (; i + INDEX_LANES <= n; i += INDEX_LANES) {
        int64_t lanes[INDEX_LANES];
        for (int lane = 0; lane < INDEX_LANES; lane++) {
            lanes[lane] = (int64_t)OUTSIDE((uint64_t)places[i + lane]);
        }
        for (int lane = 0; lane < INDEX_LANES; lane++) {
            negative |= lanes[lane];
        }
    }
    for (; i < n; i++) {
        negative |= (int64_t)OUTSIDE((uint64_t)places[i]);
    }
#undef OUTSIDE
    return negative < 0;
}

bool
port_places_outside(const port_view *index, int64_t least, int64_t size)
{
    port_view seen = *index; /* each element one time, where it is repeated over a dimension */
    for (int32_t d = 0; d < seen.ndim; d++) {
        seen.shape[d] = seen.strides[d] == 0 && seen.shape[d] > 1 ? 1 : seen.shape[d];
    }
    int64_t n = port_view_elems(&seen), cols = seen.ndim > 0 ? seen.shape[seen.ndim - 1] : 1;
    if (seen.dtype == PORT_I64 && port_view_is_contiguous(&seen)) {
        return dense_outside(seen.data, n, least, size);
    }
    int64_t step = seen.ndim > 0 ? seen.strides[seen.ndim - 1] * (int64_t)port_dtype_size(seen.dtype) : 0;
    for (int64_t begin = 0; begin < n; begin += cols) {
        const char *row = (const char *)seen.data + offset_of(&seen, begin);
        for (int64_t i = 0; i < cols; i++) {
            int64_t place = port_place_at(seen.dtype == PORT_I64, row + i * step);
            if (place < least || place >= size) {
                return true;
            }
        }
    }
    return false;
}

static port_status
check_indices(const char *op, const port_view *indices, int64_t size, bool negative_allowed, port_error *err)
{
    if (indices->dtype != PORT_I64 && indices->dtype != PORT_I32) {
        return port_fail(err, PORT_E_DTYPE, "%s: the indices are %s, expected I64 or I32", op, port_dtype_name(indices->dtype));
    }
    int64_t n = port_view_elems(indices), least = negative_allowed ? -size : 0;
    bool outside = port_places_outside(indices, least, size);
    for (int64_t i = 0; outside && i < n; i++) { /* which one */
        int64_t value = index_at(indices, i);
        if (value < least || value >= size) {
            return port_fail(err, PORT_E_VALUE, "%s: index %lld at place %lld is outside of %lld..%lld", op, (long long)value,
                             (long long)i, (long long)least, (long long)(size - 1));
        }
    }
    return PORT_OK;
}

/* Elements that go to places `to_step` apart, each from where an element of an index says: to[i] = from[i * along + index[i] * stride],
 * strides and steps in bytes. */
typedef struct pick {
    const char *from, *index;
    char *to;
    int64_t count, along, index_step, stride, to_step;
} pick;

PORT_INLINE void
pick_any(bool wide, size_t bytes, pick p)
{
    if (wide && p.along == 0 && p.index_step == sizeof(int64_t) && p.to_step == (int64_t)bytes && p.stride == (int64_t)bytes) {
        const int64_t *index = (const int64_t *)(const void *)p.index;
#pragma GCC unroll 8
        for (int64_t i = 0; i < p.count; i++) {
            memcpy(p.to + (size_t)i * bytes, p.from + (size_t)index[i] * bytes, bytes);
        }
        return;
    }
    for (int64_t i = 0; i < p.count; i++) {
        memcpy(p.to + i * p.to_step, p.from + i * p.along + port_place_at(wide, p.index + i * p.index_step) * p.stride, bytes);
    }
}

static void
pick_elements(bool wide, size_t bytes, const pick *p)
{
    switch (bytes * 2 + (wide ? 1 : 0)) {
    case 3: pick_any(true, 1, *p); break;
    case 5: pick_any(true, 2, *p); break;
    case 9: pick_any(true, 4, *p); break;
    case 17: pick_any(true, 8, *p); break;
    default: pick_any(wide, bytes, *p); break;
    }
}

static port_status
check_operands(const char *op, const port_kernel_call *call, int32_t num_in, bool has_params, port_error *err)
{
    bool there = call->num_in >= num_in && call->num_out >= 1 && call->out[0] != NULL && (!has_params || call->params != NULL);
    for (int32_t k = 0; there && k < num_in; k++) {
        there = call->in[k] != NULL;
    }
    if (!there) {
        return port_fail(err, PORT_E_VALUE, "%s: expected %d tensors, an output%s", op, num_in, has_params ? " and parameters" : "");
    }
    return PORT_OK;
}

static port_status
check_dtype(const char *op, const port_view *x, const port_view *y, port_error *err)
{
    if (x->dtype != y->dtype) {
        return port_fail(err, PORT_E_DTYPE, "%s: the output is %s, the input %s", op, port_dtype_name(y->dtype),
                         port_dtype_name(x->dtype));
    }
    return PORT_OK;
}

/* ---------------------------------------------------------------- embedding */

static port_status
embedding_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_operands("embedding", call, 2, false, err);
    if (status != PORT_OK) {
        return status;
    }
    const port_view *weight = call->in[0], *indices = call->in[1], *y = call->out[0];
    bool fits = weight->ndim == 2 && y->ndim == indices->ndim + 1 && y->shape[y->ndim - 1] == weight->shape[1];
    for (int32_t d = 0; fits && d < indices->ndim; d++) {
        fits = y->shape[d] == indices->shape[d];
    }
    if (!fits) {
        return port_fail(err, PORT_E_SHAPE, "embedding: expected a weight (V, D) and an output (indices.shape, D)");
    }
    status = check_dtype("embedding", weight, y, err);
    return status != PORT_OK ? status : check_indices("embedding", indices, weight->shape[0], false, err);
}

static void
embedding_range(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    const port_view *weight = call->in[0], *indices = call->in[1], *y = call->out[0];
    int64_t D = weight->shape[1];
    int64_t bytes = (int64_t)port_dtype_size(weight->dtype);
    port_view places = *y; /* the output without its last dimension */
    places.ndim = indices->ndim;
    int64_t from_stride = weight->strides[1] * bytes, to_stride = y->strides[y->ndim - 1] * bytes;
    for (int64_t i = begin; i < end; i++) {
        const char *from = (const char *)weight->data + index_at(indices, i) * weight->strides[0] * bytes;
        char *to = (char *)y->data + offset_of(&places, i);
        if (from_stride == bytes && to_stride == bytes) {
            memcpy(to, from, (size_t)(D * bytes));
            continue;
        }
        for (int64_t j = 0; j < D; j++) {
            memcpy(to + j * to_stride, from + j * from_stride, (size_t)bytes);
        }
    }
}

static void
embedding_run(const port_kernel_call *call)
{
    port_deal(port_view_elems(call->in[1]), call->in[0]->shape[1], call->profile->num_threads, embedding_range, call);
}

/* ---------------------------------------------------------------- index */

static bool
is_indexed(const port_index_params *params, int32_t dim)
{
    for (int32_t k = 0; k < params->num_indices; k++) {
        if (params->dims[k] == dim) {
            return true;
        }
    }
    return false;
}

/* The shape that x[...] has: the indexed dimensions replaced by the indices' shape at first_dim. */
static bool
index_shape_fits(const port_kernel_call *call)
{
    const port_index_params *params = call->params;
    const port_view *x = call->in[0], *indices = call->in[1], *y = call->out[0];
    int32_t kept = 0, at = 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        kept += is_indexed(params, d) ? 0 : 1;
    }
    if (y->ndim != kept + indices->ndim || params->first_dim < 0 || params->first_dim > kept) {
        return false;
    }
    for (int32_t d = 0; d < indices->ndim; d++) {
        if (y->shape[params->first_dim + d] != indices->shape[d]) {
            return false;
        }
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        if (is_indexed(params, d)) {
            continue;
        }
        at += at == params->first_dim ? indices->ndim : 0;
        if (y->shape[at] != x->shape[d]) {
            return false;
        }
        at++;
    }
    return true;
}

static port_status
index_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_operands("index", call, 2, true, err);
    if (status != PORT_OK) {
        return status;
    }
    const port_index_params *params = call->params;
    const port_view *x = call->in[0], *first = call->in[1];
    if (params->num_indices < 1 || params->num_indices > call->num_in - 1) {
        return port_fail(err, PORT_E_VALUE, "index: %d indices for %d tensors", params->num_indices, call->num_in - 1);
    }
    for (int32_t k = 0; k < params->num_indices; k++) {
        const port_view *indices = call->in[k + 1];
        bool same = indices != NULL && indices->ndim == first->ndim && params->dims[k] >= 0 && params->dims[k] < x->ndim;
        for (int32_t d = 0; same && d < first->ndim; d++) {
            same = indices->shape[d] == first->shape[d];
        }
        if (!same) {
            return port_fail(err, PORT_E_SHAPE, "index: index tensor %d does not fit dimension %d or the first index's shape", k,
                             params->dims[k]);
        }
        status = check_indices("index", indices, x->shape[params->dims[k]], true, err);
        if (status != PORT_OK) {
            return status;
        }
    }
    if (!index_shape_fits(call)) {
        return port_fail(err, PORT_E_SHAPE, "index: the output does not have the shape that the indices give");
    }
    return check_dtype("index", x, call->out[0], err);
}

/* x and y by the dimensions that are not indexed, and y by those that the indices have. The last `run` elements of what is kept, or none,
 * lie side by side in both. */
typedef struct index_job {
    const port_kernel_call *call;
    port_view kept, kept_out, index_out;
    int64_t run;
} index_job;

static index_job
index_job_of(const port_kernel_call *call)
{
    const port_index_params *params = call->params;
    const port_view *x = call->in[0], *y = call->out[0], *first = call->in[1];
    index_job job = {call, *x, *y, *y, 1};
    job.kept.ndim = 0, job.kept_out.ndim = 0, job.index_out.ndim = first->ndim;
    for (int32_t d = 0; d < x->ndim; d++) {
        if (!is_indexed(params, d)) {
            int32_t at = job.kept.ndim, out = at < params->first_dim ? at : at + first->ndim;
            job.kept.shape[at] = job.kept_out.shape[at] = x->shape[d];
            job.kept.strides[at] = x->strides[d];
            job.kept_out.strides[at] = y->strides[out];
            job.kept.ndim = ++job.kept_out.ndim;
        }
    }
    for (int32_t d = 0; d < first->ndim; d++) {
        job.index_out.shape[d] = first->shape[d];
        job.index_out.strides[d] = y->strides[params->first_dim + d];
    }
    for (int32_t d = job.kept.ndim - 1; d >= 0; d--) {
        if (job.kept.shape[d] != 1 && (job.kept.strides[d] != job.run || job.kept_out.strides[d] != job.run)) {
            break;
        }
        job.run *= job.kept.shape[d];
    }
    return job;
}

/* The dimension of the index along which places are taken at a time: the last that has several. -1: none. */
static int32_t
row_dim(const port_view *index)
{
    int32_t d = index->ndim - 1;
    while (d >= 0 && index->shape[d] == 1) {
        d--;
    }
    return d;
}

/* What the indices say for n places of a row from place i on, as offsets in x in bytes. */
static void
offsets_of_row(const port_kernel_call *call, int64_t i, int64_t n, int64_t *offsets)
{
    const port_index_params *params = call->params;
    const port_view *x = call->in[0];
    memset(offsets, 0, (size_t)n * sizeof *offsets);
    for (int32_t k = 0; k < params->num_indices; k++) {
        const port_view *indices = call->in[k + 1];
        const char *at = (const char *)indices->data + offset_of(indices, i);
        int32_t d = row_dim(indices);
        int64_t size = x->shape[params->dims[k]], stride = x->strides[params->dims[k]] * (int64_t)port_dtype_size(x->dtype);
        int64_t step = d < 0 ? 0 : indices->strides[d] * (int64_t)port_dtype_size(indices->dtype);
        bool wide = indices->dtype == PORT_I64;
        for (int64_t j = 0; j < n; j++) {
            int64_t value = port_place_at(wide, at + j * step);
            offsets[j] += (value + (value < 0 ? size : 0)) * stride;
        }
    }
}

static void
index_range(const void *opaque, int64_t begin, int64_t end)
{
    const index_job *job = opaque;
    const port_view *x = job->call->in[0], *index_out = &job->index_out;
    int64_t m = port_view_elems(&job->kept), bytes = (int64_t)port_dtype_size(x->dtype), offsets[PORT_BLOCK], n = 0;
    int32_t d = row_dim(index_out);
    int64_t cols = d < 0 ? 1 : index_out->shape[d], step = d < 0 ? 0 : index_out->strides[d] * bytes;
    for (int64_t i = begin; i < end; i += n) {
        int64_t row_end = i - i % cols + cols, most = row_end < end ? row_end : end;
        n = most - i < PORT_BLOCK ? most - i : PORT_BLOCK;
        offsets_of_row(job->call, i, n, offsets);
        char *row = (char *)job->call->out[0]->data + offset_of(index_out, i);
        for (int64_t j = 0; j < m; j += job->run) {
            const char *from = (const char *)x->data + offset_of(&job->kept, j);
            char *to = row + offset_of(&job->kept_out, j);
            if (job->run == 1) {
                pick one = {from, (const char *)offsets, to, n, 0, sizeof *offsets, 1, step};
                pick_elements(true, (size_t)bytes, &one);
                continue;
            }
            for (int64_t k = 0; k < n; k++) {
                memcpy(to + k * step, from + offsets[k], (size_t)(job->run * bytes));
            }
        }
    }
}

static void
index_run(const port_kernel_call *call)
{
    index_job job = index_job_of(call);
    port_deal(port_view_elems(call->in[1]), port_view_elems(&job.kept), call->profile->num_threads, index_range, &job);
}

/* ---------------------------------------------------------------- gather, index_select */

static port_status
gather_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_operands("gather", call, 2, true, err);
    if (status != PORT_OK) {
        return status;
    }
    const port_view *x = call->in[0], *indices = call->in[1], *y = call->out[0];
    int32_t dim = ((const port_dim_params *)call->params)->dim;
    bool fits = x->ndim == indices->ndim && y->ndim == indices->ndim && dim >= 0 && dim < (x->ndim > 0 ? x->ndim : 1);
    for (int32_t d = 0; fits && d < x->ndim; d++) {
        fits = y->shape[d] == indices->shape[d] && (d == dim || indices->shape[d] <= x->shape[d]);
    }
    if (!fits) {
        return port_fail(err, PORT_E_SHAPE, "gather: the index does not fit x along dimension %d, or the output the index", dim);
    }
    status = check_dtype("gather", x, y, err);
    return status != PORT_OK ? status : check_indices("gather", indices, x->ndim > 0 ? x->shape[dim] : 1, false, err);
}

/* y[i] = x at the place of y[i] but along `dim`, where the index says: an element of its own each (gather), or one for all that
 * stand at the same place along dim (index_select). Rows of y, by their number. */
static void
pick_rows(const port_kernel_call *call, bool each, int64_t begin, int64_t end)
{
    const port_view *x = call->in[0], *indices = call->in[1], *y = call->out[0];
    int32_t dim = ((const port_dim_params *)call->params)->dim, last = x->ndim - 1;
    int64_t bytes = (int64_t)port_dtype_size(x->dtype), index_bytes = (int64_t)port_dtype_size(indices->dtype);
    int64_t cols = last < 0 ? 1 : y->shape[last], own = last < 0 ? 0 : indices->strides[each ? last : 0] * index_bytes;
    bool wide = indices->dtype == PORT_I64;
    int64_t x_step = last < 0 ? 0 : x->strides[last] * bytes, y_step = last < 0 ? 0 : y->strides[last] * bytes;
    for (int64_t r = begin; r < end; r++) {
        const char *from = x->data, *index = indices->data;
        char *to = y->data;
        for (int64_t d = last - 1, rest = r; d >= 0; rest /= y->shape[d--]) {
            int64_t place = rest % y->shape[d];
            to += place * y->strides[d] * bytes;
            from += d == dim ? 0 : place * x->strides[d] * bytes;
            index += each ? place * indices->strides[d] * index_bytes : (d == dim ? place * indices->strides[0] * index_bytes : 0);
        }
        int64_t stride = dim < x->ndim ? x->strides[dim] * bytes : 0;
        if (!each && dim != last) { /* a whole row of one place */
            port_copy_run(to, y_step, from + port_place_at(wide, index) * stride, x_step, cols, (size_t)bytes);
            continue;
        }
        pick one = {from, index, to, cols, dim == last ? 0 : x_step, own, stride, y_step};
        pick_elements(wide, (size_t)bytes, &one);
    }
}

/* Deals the rows of y. */
static void
pick_along(const port_kernel_call *call, port_range_fn range)
{
    const port_view *y = call->out[0];
    int64_t cols = y->ndim > 0 ? y->shape[y->ndim - 1] : 1;
    port_deal(cols > 0 ? port_view_elems(y) / cols : 0, SLOW_ELEMS * cols, call->profile->num_threads, range, call);
}

static void
gather_range(const void *call, int64_t begin, int64_t end)
{
    pick_rows(call, true, begin, end);
}

static void
gather_run(const port_kernel_call *call)
{
    pick_along(call, gather_range);
}

static port_status
index_select_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_operands("index_select", call, 2, true, err);
    if (status != PORT_OK) {
        return status;
    }
    const port_view *x = call->in[0], *indices = call->in[1], *y = call->out[0];
    int32_t dim = ((const port_dim_params *)call->params)->dim;
    bool fits = indices->ndim == 1 && y->ndim == x->ndim && dim >= 0 && dim < x->ndim;
    for (int32_t d = 0; fits && d < x->ndim; d++) {
        fits = y->shape[d] == (d == dim ? indices->shape[0] : x->shape[d]);
    }
    if (!fits) {
        return port_fail(err, PORT_E_SHAPE, "index_select: the output does not have the shape that the index gives along dimension %d",
                         dim);
    }
    status = check_dtype("index_select", x, y, err);
    return status != PORT_OK ? status : check_indices("index_select", indices, x->shape[dim], false, err);
}

static void
index_select_range(const void *call, int64_t begin, int64_t end)
{
    pick_rows(call, false, begin, end);
}

static void
index_select_run(const port_kernel_call *call)
{
    pick_along(call, index_select_range);
}

/* ---------------------------------------------------------------- isin */

static port_status
isin_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_operands("isin", call, 2, true, err);
    if (status != PORT_OK) {
        return status;
    }
    port_kernel_call elements = *call;
    elements.num_in = 1;
    status = port_check_same_shape("isin", &elements, 1, err);
    if (status == PORT_OK && (call->in[0]->dtype != call->in[1]->dtype || call->out[0]->dtype != PORT_BOOL)) {
        return port_fail(err, PORT_E_DTYPE, "isin: expected one dtype and a BOOL output, got %s, %s and %s",
                         port_dtype_name(call->in[0]->dtype), port_dtype_name(call->in[1]->dtype),
                         port_dtype_name(call->out[0]->dtype));
    }
    return status;
}

static bool
same_element(port_dtype dtype, const char *a, const char *b)
{
    if (port_dtype_is_float(dtype)) {
        double u, v;
        port_load_f64(dtype, a, 0, 1, &u);
        port_load_f64(dtype, b, 0, 1, &v);
        return u == v;
    }
    return memcmp(a, b, port_dtype_size(dtype)) == 0;
}

static void
isin_range(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    const port_view *x = call->in[0], *wanted = call->in[1], *y = call->out[0];
    bool invert = ((const port_isin_params *)call->params)->invert;
    int64_t m = port_view_elems(wanted);
    for (int64_t i = begin; i < end; i++) {
        const char *element = (const char *)x->data + offset_of(x, i);
        bool found = false;
        for (int64_t j = 0; j < m && !found; j++) {
            found = same_element(x->dtype, element, (const char *)wanted->data + offset_of(wanted, j));
        }
        *((char *)y->data + offset_of(y, i)) = found != invert;
    }
}

static void
isin_run(const port_kernel_call *call)
{
    port_deal(port_view_elems(call->in[0]), SLOW_ELEMS * (1 + port_view_elems(call->in[1])), call->profile->num_threads, isin_range, call);
}

/* ---------------------------------------------------------------- rows */

#define EVERY_DTYPE(name)                                                                                            \
    PORT_FLOAT_ROWS(#name, "ref", 0, name##_check, name##_run), PORT_INT_ROWS(#name, "ref", 0, name##_check, name##_run), \
        PORT_BOOL_ROW(#name, "ref", 0, name##_check, name##_run)

const port_kernel_row port_indexing_rows[] = {
    PORT_FLOAT_ROWS("embedding", "ref", 0, embedding_check, embedding_run),
    EVERY_DTYPE(index),
    EVERY_DTYPE(gather),
    EVERY_DTYPE(index_select),
    PORT_FLOAT_ROWS("isin", "ref", 0, isin_check, isin_run),
    PORT_INT_ROWS("isin", "ref", 0, isin_check, isin_run),
    {.op = NULL},
};
