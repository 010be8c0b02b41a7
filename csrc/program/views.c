/* views.c -- ops that only look at their input's memory in another way. Nothing is copied; results share the buffer,
 * so that a later in-place op acts through them. The shapes and strides are torch's. */
#include "exec.h"

static port_status
begin_view(op_call *call, port_tensor **out)
{
    return tensor_alias(call, arg_tensor(call, 0), out);
}

static port_status
run_alias(op_call *call)
{
    return emit(call, arg_tensor(call, 0));
}

/* Runs of dimensions that lie densely are cut anew. */
bool
view_strides(const port_tensor *old, int32_t ndim, const int64_t *shape, int64_t *strides)
{
    int64_t elems = tensor_elems(old);
    if (elems == 0) {
        if (ndim == old->ndim && memcmp(shape, old->shape, (size_t)ndim * sizeof *shape) == 0) {
            memcpy(strides, old->strides, (size_t)ndim * sizeof *strides);
        } else {
            dense_strides(ndim, shape, strides);
        }
        return true;
    }
    if (old->ndim == 0) {
        dense_strides(ndim, shape, strides);
        return true;
    }
    int32_t view_d = ndim - 1;
    int64_t base = old->strides[old->ndim - 1], old_elems = 1, new_elems = 1;
    for (int32_t d = old->ndim - 1; d >= 0; d--) {
        old_elems *= old->shape[d];
        if (d > 0 && (old->shape[d - 1] == 1 || old->strides[d - 1] == old_elems * base)) {
            continue;
        }
        while (view_d >= 0 && (new_elems < old_elems || shape[view_d] == 1)) {
            strides[view_d] = new_elems * base;
            new_elems *= shape[view_d--];
        }
        if (new_elems != old_elems) {
            return false;
        }
        if (d > 0) {
            base = old->strides[d - 1];
            old_elems = new_elems = 1;
        }
    }
    return view_d == -1;
}

/* Reads a shape with at most one -1 from argument idx, for a tensor of `elems` elements. */
static port_status
read_shape(op_call *call, int32_t idx, int64_t elems, int32_t *ndim, int64_t *shape)
{
    int64_t len = arg_len(call, idx), known = 1;
    int32_t open = -1;
    if (len > PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_SHAPE, "%lld dimensions; at most %d are possible", (long long)len, PORT_MAX_NDIM);
    }
    for (int32_t d = 0; d < len; d++) {
        shape[d] = arg_int_at(call, idx, d);
        if (shape[d] == -1 && open < 0) {
            open = d;
        } else if (shape[d] < 0 || __builtin_mul_overflow(known, shape[d], &known)) {
            return fail_op(call, PORT_E_SHAPE, "size %lld of dimension %d is not possible", (long long)shape[d], d);
        }
    }
    if (open >= 0 && known > 0) {
        shape[open] = elems / known;
        known *= shape[open];
    }
    char text[256];
    *ndim = (int32_t)len;
    if (known != elems || (open >= 0 && shape[open] < 0)) {
        return fail_op(call, PORT_E_SHAPE, "%lld elements cannot take shape %s", (long long)elems,
                       shape_text(*ndim, shape, text, sizeof text));
    }
    return PORT_OK;
}

static port_status
view_as_shape(op_call *call, int32_t ndim, const int64_t *shape, bool may_copy)
{
    const port_tensor *x = arg_tensor(call, 0), *base = x;
    int64_t strides[PORT_MAX_NDIM];
    port_status status = PORT_OK;
    if (!view_strides(x, ndim, shape, strides)) {
        if (!may_copy) {
            char text[256];
            return fail_op(call, PORT_E_SHAPE, "the tensor's strides do not allow a view of shape %s",
                           shape_text(ndim, shape, text, sizeof text));
        }
        status = tensor_contiguous(call, x, &base);
        dense_strides(ndim, shape, strides);
    }
    port_tensor *out;
    if (status != PORT_OK || (status = tensor_alias(call, base, &out)) != PORT_OK) {
        return status;
    }
    out->ndim = ndim;
    memcpy(out->shape, shape, sizeof out->shape);
    memcpy(out->strides, strides, sizeof out->strides);
    return emit(call, out);
}

static port_status
run_view(op_call *call)
{
    int32_t ndim = 0;
    int64_t shape[PORT_MAX_NDIM] = {0};
    port_status status = read_shape(call, 1, tensor_elems(arg_tensor(call, 0)), &ndim, shape);
    return status == PORT_OK ? view_as_shape(call, ndim, shape, call->row->flags != 0) : status;
}
#define VIEW_MAY_COPY 256 /* a flag of this file */

static port_status
run_view_as(op_call *call)
{
    const port_tensor *other = arg_tensor(call, 1);
    if (tensor_elems(other) != tensor_elems(arg_tensor(call, 0))) {
        return fail_op(call, PORT_E_SHAPE, "the tensors have different numbers of elements");
    }
    return view_as_shape(call, other->ndim, other->shape, false);
}

static port_status
run_view_dtype(op_call *call)
{
    port_dtype dtype = arg_dtype(call, 1, PORT_NUM_DTYPES);
    port_tensor *out;
    if (port_dtype_size(dtype) != port_dtype_size(arg_tensor(call, 0)->dtype)) {
        return fail_unsupported(call, "a view of another element size (%s as %s)",
                                port_dtype_name(arg_tensor(call, 0)->dtype), port_dtype_name(dtype));
    }
    port_status status = begin_view(call, &out);
    if (status == PORT_OK) {
        out->dtype = dtype;
        status = emit(call, out);
    }
    return status;
}

static port_status
run_transpose(op_call *call)
{
    int32_t a, b;
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 1), out->ndim, &a)) != PORT_OK ||
        (status = wrap_dim(call, arg_int(call, 2), out->ndim, &b)) != PORT_OK) {
        return status;
    }
    if (out->ndim > 0) {
        swap_dims(out->shape, out->strides, a, b);
    }
    return emit(call, out);
}

static port_status
run_t(op_call *call)
{
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    if (out->ndim > 2) {
        return fail_op(call, PORT_E_SHAPE, "expected at most 2 dimensions, got %d", out->ndim);
    }
    if (out->ndim == 2) {
        swap_dims(out->shape, out->strides, 0, 1);
    }
    return emit(call, out);
}

static port_status
run_permute(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *out;
    uint32_t taken = 0;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    if (arg_len(call, 1) != x->ndim) {
        return fail_op(call, PORT_E_VALUE, "%lld dimensions are named, the tensor has %d", (long long)arg_len(call, 1), x->ndim);
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        int32_t from;
        status = wrap_dim(call, arg_int_at(call, 1, d), x->ndim, &from);
        if (status != PORT_OK) {
            return status;
        }
        if (taken & 1u << from) {
            return fail_op(call, PORT_E_VALUE, "dimension %d is named twice", from);
        }
        taken |= 1u << from;
        out->shape[d] = x->shape[from];
        out->strides[d] = x->strides[from];
    }
    return emit(call, out);
}

static port_status
run_unsqueeze(op_call *call)
{
    int32_t at;
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 1), out->ndim + 1, &at)) != PORT_OK) {
        return status;
    }
    if (out->ndim == PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_SHAPE, "more than %d dimensions", PORT_MAX_NDIM);
    }
    int64_t stride = at < out->ndim ? out->shape[at] * out->strides[at] : 1;
    for (int32_t d = out->ndim; d > at; d--) {
        out->shape[d] = out->shape[d - 1];
        out->strides[d] = out->strides[d - 1];
    }
    out->shape[at] = 1;
    out->strides[at] = stride;
    out->ndim++;
    return emit(call, out);
}

/* squeeze, squeeze.dim, squeeze.dims: drops the named dimensions of size 1, or all of them. */
static port_status
run_squeeze(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *out;
    uint32_t named = call->num_args == 1 ? ~0u : 0;
    port_status status = begin_view(call, &out);
    for (int64_t k = 0; status == PORT_OK && call->num_args > 1 && k < arg_len(call, 1); k++) {
        int32_t d = 0;
        status = wrap_dim(call, arg_int_at(call, 1, k), x->ndim, &d);
        named |= 1u << d;
    }
    if (status != PORT_OK) {
        return status;
    }
    out->ndim = 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        if (x->shape[d] != 1 || (named & 1u << d) == 0) {
            out->shape[out->ndim] = x->shape[d];
            out->strides[out->ndim++] = x->strides[d];
        }
    }
    return emit(call, out);
}

static port_status
run_expand(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t len = arg_len(call, 1);
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    if (len > PORT_MAX_NDIM || len < x->ndim) {
        return fail_op(call, PORT_E_SHAPE, "a tensor of %d dimensions cannot be expanded to %lld", x->ndim, (long long)len);
    }
    int32_t lead = (int32_t)len - x->ndim;
    out->ndim = (int32_t)len;
    for (int32_t d = out->ndim - 1; d >= 0; d--) {
        int64_t wanted = arg_int_at(call, 1, d), have = d >= lead ? x->shape[d - lead] : 1;
        int64_t stride = d >= lead ? x->strides[d - lead]
                                   : (d + 1 < out->ndim ? out->shape[d + 1] * out->strides[d + 1] : 1);
        bool keep = wanted == have || (wanted == -1 && d >= lead);
        if (!keep && (have != 1 || wanted < 0)) {
            return fail_op(call, PORT_E_SHAPE, "size %lld of dimension %d cannot be expanded to %lld", (long long)have, d,
                           (long long)wanted);
        }
        out->shape[d] = keep ? have : wanted;
        out->strides[d] = keep ? stride : 0;
    }
    return emit(call, out);
}

/* Nothing has no second element: what has no elements stays where it is, whatever its strides say. */
static void
skip_elems(port_tensor *view, int64_t num)
{
    view->offset_bytes += tensor_elems(view) > 0 ? num * (int64_t)port_dtype_size(view->dtype) : 0;
}

/* The part [start, end) in steps of dimension d; start and end are inside. */
static port_status
emit_part(op_call *call, int32_t d, int64_t start, int64_t end, int64_t step)
{
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    skip_elems(out, start * out->strides[d]);
    out->shape[d] = end > start ? (end - start - 1) / step + 1 : 0;
    if (__builtin_mul_overflow(out->strides[d], step, &out->strides[d])) {
        return fail_op(call, PORT_E_VALUE, "step %lld is too large", (long long)step);
    }
    return emit(call, out);
}

static port_status
need_dims(op_call *call)
{
    return arg_tensor(call, 0)->ndim > 0 ? PORT_OK : fail_op(call, PORT_E_SHAPE, "the tensor has no dimension to cut");
}

static int64_t
clamp_index(int64_t index, int64_t size)
{
    index += index < 0 ? size : 0;
    return index < 0 ? 0 : (index > size ? size : index);
}

static port_status
run_slice(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    port_status status = need_dims(call);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 1), x->ndim, &d)) != PORT_OK) {
        return status;
    }
    int64_t step = arg_int(call, 4);
    if (step < 1) {
        return fail_op(call, PORT_E_VALUE, "step must be positive, got %lld", (long long)step);
    }
    int64_t start = arg_given(call, 2) ? clamp_index(arg_int(call, 2), x->shape[d]) : 0;
    int64_t end = arg_given(call, 3) ? clamp_index(arg_int(call, 3), x->shape[d]) : x->shape[d];
    return emit_part(call, d, start, end, step);
}

static port_status
run_narrow(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    port_status status = need_dims(call);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 1), x->ndim, &d)) != PORT_OK) {
        return status;
    }
    int64_t start = arg_int(call, 2), length = arg_int(call, 3), size = x->shape[d];
    start += start < 0 ? size : 0;
    if (start < 0 || length < 0 || start > size || length > size - start) {
        return fail_op(call, PORT_E_VALUE, "start %lld and length %lld do not fit a dimension of size %lld", (long long)start,
                       (long long)length, (long long)size);
    }
    return emit_part(call, d, start, start + length, 1);
}

static port_status
drop_dim(op_call *call, int32_t d, int64_t index)
{
    port_tensor *out;
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    skip_elems(out, index * out->strides[d]);
    out->ndim--;
    for (int32_t k = d; k < out->ndim; k++) {
        out->shape[k] = out->shape[k + 1];
        out->strides[k] = out->strides[k + 1];
    }
    return emit(call, out);
}

static port_status
run_select(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    port_status status = need_dims(call);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 1), x->ndim, &d)) != PORT_OK) {
        return status;
    }
    int64_t index = arg_int(call, 2);
    if (index < -x->shape[d] || index >= x->shape[d]) {
        return fail_op(call, PORT_E_VALUE, "index %lld is out of range for size %lld", (long long)index, (long long)x->shape[d]);
    }
    return drop_dim(call, d, index < 0 ? index + x->shape[d] : index);
}

static port_status
run_unbind(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    port_status status = need_dims(call);
    if (status == PORT_OK) {
        status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    }
    for (int64_t k = 0; status == PORT_OK && k < x->shape[d]; k++) {
        status = drop_dim(call, d, k);
    }
    return status;
}

/* split.Tensor (one size), chunk (a number of parts). */
static port_status
run_split(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    port_status status = need_dims(call);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 2), x->ndim, &d)) != PORT_OK) {
        return status;
    }
    int64_t size = arg_int(call, 1), total = x->shape[d];
    if (call->row->flags != 0) { /* chunk */
        if (size < 1 || size > INT32_MAX) {
            return fail_unsupported(call, "%lld chunks of a dimension of size %lld", (long long)size, (long long)total);
        }
        for (int64_t k = 0; total == 0 && k < size; k++) { /* as many as were asked for, and all empty */
            if ((status = emit_part(call, d, 0, 0, 1)) != PORT_OK || k + 1 == size) {
                return status;
            }
        }
        size = total / size + (total % size != 0);
    }
    if (size < 0 || (size == 0 && total != 0)) {
        return fail_op(call, PORT_E_VALUE, "a split size of %lld is not possible", (long long)size);
    }
    int64_t start = 0;
    do {
        int64_t end = size > total - start ? total : start + size;
        status = emit_part(call, d, start, end, 1);
        start = end;
    } while (status == PORT_OK && start < total);
    return status;
}
#define SPLIT_CHUNKS 256 /* a flag of this file */

static port_status
run_split_sizes(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    int64_t start = 0;
    port_status status = need_dims(call);
    if (status == PORT_OK) {
        status = wrap_dim(call, arg_int(call, 2), x->ndim, &d);
    }
    for (int64_t k = 0; status == PORT_OK && k < arg_len(call, 1); k++) {
        int64_t size = arg_int_at(call, 1, k);
        if (size < 0 || size > x->shape[d] - start) {
            return fail_op(call, PORT_E_VALUE, "the sizes do not add up to %lld", (long long)x->shape[d]);
        }
        status = emit_part(call, d, start, start + size, 1);
        start += size;
    }
    if (status == PORT_OK && start != x->shape[d]) {
        return fail_op(call, PORT_E_VALUE, "the sizes add up to %lld, not %lld", (long long)start, (long long)x->shape[d]);
    }
    return status;
}

static port_status
run_as_strided(op_call *call)
{
    port_tensor *out;
    int64_t len = arg_len(call, 1);
    port_status status = begin_view(call, &out);
    if (status != PORT_OK) {
        return status;
    }
    if (len > PORT_MAX_NDIM || arg_len(call, 2) != len) {
        return fail_op(call, PORT_E_VALUE, "%lld sizes and %lld strides", (long long)len, (long long)arg_len(call, 2));
    }
    out->ndim = (int32_t)len;
    for (int32_t d = 0; d < out->ndim; d++) {
        out->shape[d] = arg_int_at(call, 1, d);
        out->strides[d] = arg_int_at(call, 2, d);
    }
    int64_t elem = (int64_t)port_dtype_size(out->dtype);
    if (arg_given(call, 3) && __builtin_mul_overflow(arg_int(call, 3), elem, &out->offset_bytes)) {
        return fail_op(call, PORT_E_VALUE, "the offset is too large");
    }
    if (arg_given(call, 3) && __builtin_sub_overflow(out->offset_bytes, out->buffer->origin_bytes, &out->offset_bytes)) {
        return fail_op(call, PORT_E_VALUE, "the offset is too large");
    }
    return emit(call, out); /* which checks the bounds */
}

static port_status
run_diagonal(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t a = 0, b = 0;
    int64_t offset = arg_int(call, 1);
    port_tensor *out;
    port_status status = need_dims(call);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 2), x->ndim, &a)) != PORT_OK ||
        (status = wrap_dim(call, arg_int(call, 3), x->ndim, &b)) != PORT_OK || (status = begin_view(call, &out)) != PORT_OK) {
        return status;
    }
    if (a == b) {
        return fail_op(call, PORT_E_VALUE, "a diagonal needs two different dimensions");
    }
    if (offset <= -x->shape[a] - 1 || offset >= x->shape[b] + 1) {
        offset = offset < 0 ? -x->shape[a] : x->shape[b]; /* nothing is left */
    }
    int64_t rows = x->shape[a] + (offset < 0 ? offset : 0), cols = x->shape[b] - (offset > 0 ? offset : 0);
    int64_t size = rows < cols ? rows : cols;
    if (size > 0) {
        int64_t skip = offset >= 0 ? offset * x->strides[b] : -offset * x->strides[a];
        out->offset_bytes += skip * (int64_t)port_dtype_size(x->dtype);
    }
    out->ndim = 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        if (d != a && d != b) {
            out->shape[out->ndim] = x->shape[d];
            out->strides[out->ndim++] = x->strides[d];
        }
    }
    out->shape[out->ndim] = size > 0 ? size : 0;
    out->strides[out->ndim++] = x->strides[a] + x->strides[b];
    return emit(call, out);
}

static port_status
run_unfold(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    int64_t size = arg_int(call, 2), step = arg_int(call, 3);
    port_tensor *out;
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    if (status != PORT_OK || (status = begin_view(call, &out)) != PORT_OK) {
        return status;
    }
    int64_t room = x->ndim > 0 ? x->shape[d] : 1; /* a tensor without dimensions is one window */
    if (size < 0 || size > room || step < 1 || out->ndim == PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_VALUE, "windows of %lld every %lld do not fit a dimension of size %lld", (long long)size,
                       (long long)step, (long long)room);
    }
    if (x->ndim == 0) {
        out->ndim = 1;
        out->shape[0] = size;
        out->strides[0] = 1;
        return emit(call, out);
    }
    out->shape[out->ndim] = size;
    out->strides[out->ndim++] = x->strides[d];
    out->shape[d] = (x->shape[d] - size) / step + 1;
    if (__builtin_mul_overflow(x->strides[d], step, &out->strides[d])) {
        return fail_op(call, PORT_E_VALUE, "step %lld is too large", (long long)step);
    }
    return emit(call, out);
}

const op_row op_view_rows[] = {
    {"alias", "T self", run_alias, NULL, 0, 0},
    {"detach", "T self", run_alias, NULL, 0, 0},
    {"lift_fresh", "T self", run_alias, NULL, 0, 0},
    {"view", "T self, A size", run_view, NULL, 0, 0},
    {"_unsafe_view", "T self, A size", run_view, NULL, 0, 0},
    {"reshape", "T self, A shape", run_view, NULL, 0, VIEW_MAY_COPY},
    {"_reshape_alias", "T self, A size, A stride", run_as_strided, NULL, 0, 0},
    {"view_as", "T self, T other", run_view_as, NULL, 0, 0},
    {"view.dtype", "T self, D dtype", run_view_dtype, NULL, 0, 0},
    {"transpose.int", "T self, I dim0, I dim1", run_transpose, NULL, 0, 0},
    {"t", "T self", run_t, NULL, 0, 0},
    {"permute", "T self, A dims", run_permute, NULL, 0, 0},
    {"unsqueeze", "T self, I dim", run_unsqueeze, NULL, 0, 0},
    {"squeeze", "T self", run_squeeze, NULL, 0, 0},
    {"squeeze.dim", "T self, I dim", run_squeeze, NULL, 0, 0},
    {"squeeze.dims", "T self, A dim", run_squeeze, NULL, 0, 0},
    {"expand", "T self, A size, *, B implicit=False", run_expand, NULL, 0, 0},
    {"slice.Tensor", "T self, I dim=0, I? start=None, I? end=None, I step=1", run_slice, NULL, 0, 0},
    {"narrow", "T self, I dim, I start, I length", run_narrow, NULL, 0, 0},
    {"select.int", "T self, I dim, I index", run_select, NULL, 0, 0},
    {"unbind.int", "T self, I dim=0", run_unbind, NULL, 0, 0},
    {"unsafe_split.Tensor", "T self, I split_size, I dim=0", run_split, NULL, 0, 0},
    {"split.Tensor", "T self, I split_size, I dim=0", run_split, NULL, 0, 0},
    {"chunk", "T self, I chunks, I dim=0", run_split, NULL, 0, SPLIT_CHUNKS},
    {"unsafe_split_with_sizes", "T self, A split_sizes, I dim=0", run_split_sizes, NULL, 0, 0},
    {"split_with_sizes", "T self, A split_sizes, I dim=0", run_split_sizes, NULL, 0, 0},
    {"as_strided", "T self, A size, A stride, I? storage_offset=None", run_as_strided, NULL, 0, 0},
    {"diagonal", "T self, I offset=0, I dim1=0, I dim2=1", run_diagonal, NULL, 0, 0},
    {"unfold", "T self, I dimension, I size, I step", run_unfold, NULL, 0, 0},
    {.name = NULL},
};
