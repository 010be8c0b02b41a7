/* move_ops.c -- ops that copy elements: clones, casts, joins, repeats, paddings. Bits are moved, not computed. */
#include "exec.h"

static port_status
copy_with_format(op_call *call, const port_tensor *self, port_dtype dtype, int32_t format_idx)
{
    int64_t format = arg_given(call, format_idx) ? call->args[format_idx].i : PORT_FORMAT_PRESERVE;
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *made;
    port_status status = strides_of_format(call, self, format, strides);
    if (status != PORT_OK || (status = tensor_new(call, dtype, self->ndim, self->shape, strides, &made)) != PORT_OK) {
        return status;
    }
    if (dtype == self->dtype || dtype == PORT_C64 || self->dtype == PORT_C64) {
        if ((status = tensor_cast(call, self, dtype, &self)) != PORT_OK) {
            return status;
        }
        port_view to = tensor_view(made), from = tensor_view(self);
        copy_view(call, &to, &from);
    } else {
        status = launch_tensors(call, "cast", self->dtype, &self, 1, (const port_tensor *const[]){made}, 1, NULL);
    }
    return status == PORT_OK ? emit(call, made) : status;
}

static port_status
run_clone(op_call *call)
{
    return copy_with_format(call, arg_tensor(call, 0), arg_tensor(call, 0)->dtype, 1);
}

static port_status
run_to_copy(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0);
    return copy_with_format(call, self, arg_dtype(call, 1, self->dtype), 6);
}

/* contiguous: the tensor itself if it is so already. */
static port_status
run_contiguous(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *out;
    int64_t format = arg_given(call, 1) ? call->args[1].i : PORT_FORMAT_CONTIGUOUS, strides[PORT_MAX_NDIM];
    port_status status = strides_of_format(call, self, format, strides);
    if (status == PORT_OK && format == PORT_FORMAT_PRESERVE) {
        return fail_op(call, PORT_E_VALUE, "a tensor is not contiguous in the format preserve");
    }
    if (status == PORT_OK) {
        status = tensor_in_format(call, self, format != PORT_FORMAT_CONTIGUOUS, &out);
    }
    return status == PORT_OK ? emit(call, out) : status;
}

/* copy(self, src): src broadcast to self's shape, in self's dtype. */
static port_status
run_copy(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *src = arg_tensor(call, 1);
    op_operand both[2] = {{.tensor = self}, {.tensor = src}};
    op_plan plan;
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *made;
    port_status status = plan_pointwise(call, both, 2, &plan);
    if (status != PORT_OK) {
        return status;
    }
    if (plan.ndim != self->ndim || memcmp(plan.shape, self->shape, (size_t)plan.ndim * sizeof plan.shape[0]) != 0) {
        return fail_op(call, PORT_E_SHAPE, "the source does not broadcast to the tensor to change");
    }
    preserve_strides(self, strides);
    status = tensor_new(call, self->dtype, self->ndim, self->shape, strides, &made);
    if (status == PORT_OK) {
        status = tensor_cast(call, src, self->dtype, &src);
    }
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made), from = view_broadcast(src, self->ndim, self->shape);
    copy_view(call, &to, &from);
    return emit(call, made);
}

/* The part of `whole` where dimension d runs over [start, start + size). */
static port_view
part_of(const port_tensor *whole, int32_t d, int64_t start, int64_t size)
{
    port_view view = tensor_view(whole);
    view.data = (char *)view.data + start * view.strides[d] * (int64_t)port_dtype_size(view.dtype);
    view.shape[d] = size;
    return view;
}

static bool
is_legacy_empty(const port_tensor *t)
{
    return t->ndim == 1 && t->shape[0] == 0; /* torch.cat passes over these, whatever the others' shape */
}

static port_status
cat_check(op_call *call, const port_tensor *first, const port_tensor *t, int32_t d, int64_t item)
{
    bool fits = t->ndim == first->ndim;
    for (int32_t k = 0; fits && k < t->ndim; k++) {
        fits = k == d || t->shape[k] == first->shape[k];
    }
    char a[200], b[200];
    return fits ? PORT_OK
                : fail_op(call, PORT_E_SHAPE, "tensor %lld has shape %s, which does not join %s along dimension %d",
                          (long long)item, shape_text(t->ndim, t->shape, a, sizeof a),
                          shape_text(first->ndim, first->shape, b, sizeof b), d);
}

/* The joined tensor is channels-last where each part is. */
static bool
all_channels_last(const op_call *call)
{
    int32_t ndim = item_tensor(call, 0, 0)->ndim;
    for (int64_t k = 0; k < arg_len(call, 0); k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        if (t->ndim != ndim || !tensor_suggests_channels_last(t)) {
            return false;
        }
    }
    return true;
}

static port_status
run_cat(op_call *call)
{
    int64_t len = arg_len(call, 0), total = 0;
    const port_tensor *first = NULL;
    if (len < 1) {
        return fail_op(call, PORT_E_VALUE, "there is no tensor to join");
    }
    port_dtype dtype = item_tensor(call, 0, 0)->dtype;
    for (int64_t k = 0; k < len; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        dtype = promote_dtypes(dtype, t->dtype);
        first = first == NULL && !is_legacy_empty(t) ? t : first;
    }
    first = first != NULL ? first : item_tensor(call, 0, 0);
    if (dtype >= PORT_NUM_DTYPES || first->ndim == 0) {
        return fail_unsupported(call, "tensors without a common dtype or without dimensions");
    }
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), first->ndim, &d);
    for (int64_t k = 0; status == PORT_OK && k < len; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        if (!is_legacy_empty(t)) {
            status = cat_check(call, first, t, d, k);
            total += t->shape[d];
        }
    }
    if (status != PORT_OK) {
        return status;
    }
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    port_tensor *made;
    memcpy(shape, first->shape, sizeof shape);
    shape[d] = total;
    format_strides(first->ndim, shape, all_channels_last(call), strides);
    status = tensor_new(call, dtype, first->ndim, shape, strides, &made);
    if (status != PORT_OK) {
        return status;
    }
    int64_t start = 0;
    for (int64_t k = 0; status == PORT_OK && k < len; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        if (is_legacy_empty(t)) {
            continue;
        }
        int64_t size = t->shape[d];
        status = tensor_cast(call, t, dtype, &t);
        if (status == PORT_OK) {
            port_view to = part_of(made, d, start, size), from = tensor_view(t);
            copy_view(call, &to, &from);
            start += size;
        }
    }
    return status == PORT_OK ? emit(call, made) : status;
}

static port_status
run_stack(op_call *call)
{
    int64_t len = arg_len(call, 0);
    if (len < 1) {
        return fail_op(call, PORT_E_VALUE, "there is no tensor to stack");
    }
    const port_tensor *first = item_tensor(call, 0, 0);
    port_dtype dtype = first->dtype;
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), first->ndim + 1, &d);
    for (int64_t k = 0; status == PORT_OK && k < len; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        dtype = promote_dtypes(dtype, t->dtype);
        status = cat_check(call, first, t, -1, k);
    }
    if (status == PORT_OK && (dtype >= PORT_NUM_DTYPES || first->ndim == PORT_MAX_NDIM)) {
        return fail_unsupported(call, "tensors without a common dtype, or of too many dimensions");
    }
    int64_t shape[PORT_MAX_NDIM];
    port_tensor *made;
    for (int32_t k = 0; status == PORT_OK && k <= first->ndim; k++) {
        shape[k] = k == d ? len : first->shape[k - (k > d)];
    }
    if (status != PORT_OK || (status = tensor_new(call, dtype, first->ndim + 1, shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    for (int64_t k = 0; status == PORT_OK && k < len; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        status = tensor_cast(call, t, dtype, &t);
        if (status == PORT_OK) {
            port_view to = part_of(made, d, k, 1), from = tensor_view(t);
            for (int32_t m = d; m < first->ndim; m++) {
                to.shape[m] = to.shape[m + 1];
                to.strides[m] = to.strides[m + 1];
            }
            to.ndim--;
            copy_view(call, &to, &from);
        }
    }
    return status == PORT_OK ? emit(call, made) : status;
}

/* repeat: the output seen as (repeats0, size0, repeats1, size1, ...), the input broadcast to it. */
static port_status
run_repeat(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t len = arg_len(call, 1), shape[PORT_MAX_NDIM];
    if (len < x->ndim || 2 * len > PORT_MAX_NDIM) {
        return fail_unsupported(call, "%lld repeats for a tensor of %d dimensions", (long long)len, x->ndim);
    }
    int32_t n = (int32_t)len, lead = n - x->ndim;
    for (int32_t d = 0; d < n; d++) {
        int64_t times = arg_int_at(call, 1, d);
        if (times < 0 || __builtin_mul_overflow(times, d < lead ? 1 : x->shape[d - lead], &shape[d])) {
            return fail_op(call, PORT_E_VALUE, "%lld repeats are not possible", (long long)times);
        }
    }
    port_tensor *made;
    port_status status = tensor_new(call, x->dtype, n, shape, NULL, &made);
    if (status != PORT_OK) {
        return status;
    }
    if (tensor_elems(made) == 0) {
        return emit(call, made);
    }
    port_view to = tensor_view(made), from = tensor_view(x);
    to.ndim = from.ndim = 2 * n;
    for (int32_t d = 0; d < n; d++) {
        int64_t size = d < lead ? 1 : x->shape[d - lead];
        to.shape[2 * d] = from.shape[2 * d] = arg_int_at(call, 1, d);
        to.shape[2 * d + 1] = from.shape[2 * d + 1] = size;
        to.strides[2 * d] = made->strides[d] * size;
        to.strides[2 * d + 1] = made->strides[d];
        from.strides[2 * d] = 0;
        from.strides[2 * d + 1] = d < lead ? 0 : x->strides[d - lead];
    }
    copy_view(call, &to, &from);
    return emit(call, made);
}

/* pads are (before, after) of the last dimension, then of the one before, ...; negative ones cut off. */
static port_status
run_constant_pad(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t len = arg_len(call, 1), shape[PORT_MAX_NDIM];
    if (len % 2 != 0 || len / 2 > x->ndim) {
        return fail_op(call, PORT_E_VALUE, "%lld pads for a tensor of %d dimensions", (long long)len, x->ndim);
    }
    port_view from = tensor_view(x);
    int64_t begin[PORT_MAX_NDIM] = {0}, strides[PORT_MAX_NDIM];
    bool grows = false;
    for (int32_t d = 0; d < x->ndim; d++) {
        int64_t k = 2 * (x->ndim - 1 - d);
        int64_t before = k < len ? arg_int_at(call, 1, k) : 0, after = k < len ? arg_int_at(call, 1, k + 1) : 0;
        if (__builtin_add_overflow(x->shape[d], before, &shape[d]) || __builtin_add_overflow(shape[d], after, &shape[d]) ||
            shape[d] < 0 || x->shape[d] + (before < 0 ? before : 0) + (after < 0 ? after : 0) < 0) {
            return fail_op(call, PORT_E_VALUE, "pads %lld and %lld do not fit dimension %d", (long long)before, (long long)after, d);
        }
        from.shape[d] += (before < 0 ? before : 0) + (after < 0 ? after : 0);
        from.data = (char *)from.data + (before < 0 ? -before : 0) * from.strides[d] * (int64_t)port_dtype_size(x->dtype);
        begin[d] = before > 0 ? before : 0;
        grows = grows || before > 0 || after > 0;
    }
    if (grows) {
        format_strides(x->ndim, shape, tensor_suggests_channels_last(x), strides);
    } else { /* a part of it, cloned */
        port_tensor part = *x;
        memcpy(part.shape, shape, sizeof part.shape);
        preserve_strides(&part, strides);
    }
    port_tensor *made;
    port_status status = tensor_new(call, x->dtype, x->ndim, shape, strides, &made);
    if (status == PORT_OK) {
        status = tensor_fill(call, made, arg_scalar(call, 2));
    }
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made);
    for (int32_t d = 0; d < x->ndim; d++) {
        to.shape[d] = from.shape[d];
        to.data = (char *)to.data + begin[d] * to.strides[d] * (int64_t)port_dtype_size(x->dtype);
    }
    copy_view(call, &to, &from);
    return emit(call, made);
}

/* tril, triu: a copy with zeros above or below the diagonal. */
static port_status
run_triangle(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t diagonal = arg_int(call, 1);
    bool lower = strcmp(call->row->name, "tril") == 0;
    port_tensor *made;
    if (x->ndim < 2) {
        return fail_op(call, PORT_E_SHAPE, "expected at least 2 dimensions, got %d", x->ndim);
    }
    port_status status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &made);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made), from = tensor_view(x);
    copy_view(call, &to, &from);
    int64_t rows = x->shape[x->ndim - 2], cols = x->shape[x->ndim - 1];
    int64_t all = cols > 0 ? tensor_elems(x) / cols : 0;
    size_t size = port_dtype_size(x->dtype);
    for (int64_t r = 0; r < all; r++) {
        char *row = made->buffer->data + (size_t)(r * cols) * size;
        int64_t edge = diagonal > cols ? cols : (diagonal < -rows ? -rows : diagonal);
        edge += r % rows + (lower ? 1 : 0); /* first column outside tril, first inside triu */
        edge = edge < 0 ? 0 : (edge > cols ? cols : edge);
        if (lower) {
            memset(row + (size_t)edge * size, 0, (size_t)(cols - edge) * size);
        } else {
            memset(row, 0, (size_t)edge * size);
        }
    }
    return emit(call, made);
}

const op_row op_move_rows[] = {
    {"clone", "T self, *, m memory_format=None", run_clone, NULL, 0, 0},
    {"_to_copy", "T self, *, D? dtype=None, y layout=None, v device=None, p pin_memory=None, B non_blocking=False, "
                 "m memory_format=None", run_to_copy, NULL, 0, 0},
    {"contiguous", "T self, *, m memory_format=None", run_contiguous, NULL, 0, 0},
    {"copy", "T self, T src, B non_blocking=False", run_copy, NULL, 0, OP_IN_PLACE},
    {"cat", "L tensors, I dim=0", run_cat, NULL, 0, 0},
    {"stack", "L tensors, I dim=0", run_stack, NULL, 0, 0},
    {"repeat", "T self, A repeats", run_repeat, NULL, 0, 0},
    {"constant_pad_nd", "T self, A pad, S value=0", run_constant_pad, NULL, 0, 0},
    {"tril", "T self, I diagonal=0", run_triangle, NULL, 0, OP_IN_PLACE},
    {"triu", "T self, I diagonal=0", run_triangle, NULL, 0, OP_IN_PLACE},
    {.name = NULL},
};
