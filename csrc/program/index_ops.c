/* index_ops.c -- ops whose elements are chosen by other tensors' values. The kernels check every index. */
#include "exec.h"

static port_status
need_index(op_call *call, const port_tensor *index)
{
    return index->dtype == PORT_I64 || index->dtype == PORT_I32
               ? PORT_OK
               : fail_op(call, PORT_E_DTYPE, "an index must be I64 or I32, got %s", port_dtype_name(index->dtype));
}

static port_status
run_embedding(op_call *call)
{
    const port_tensor *weight = arg_tensor(call, 0), *indices = arg_tensor(call, 1);
    int64_t shape[PORT_MAX_NDIM];
    if (weight->ndim != 2 || indices->ndim == PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_SHAPE, "expected a weight (V, D), got %d dimensions", weight->ndim);
    }
    port_status status = need_index(call, indices);
    memcpy(shape, indices->shape, sizeof shape);
    shape[indices->ndim] = weight->shape[1];
    port_tensor *out;
    if (status != PORT_OK || (status = tensor_new(call, weight->dtype, indices->ndim + 1, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    status = launch_tensors(call, "embedding", weight->dtype, (const port_tensor *const[]){weight, indices}, 2,
                            (const port_tensor *const[]){out}, 1, NULL);
    return status == PORT_OK ? emit(call, out) : status;
}

/* The tensor, or one without dimensions as one of one element. */
static port_status
as_vector(op_call *call, const port_tensor *t, port_tensor **out)
{
    port_status status = tensor_alias(call, t, out);
    if (status == PORT_OK && t->ndim == 0) {
        (*out)->ndim = 1;
        (*out)->shape[0] = (*out)->strides[0] = 1;
    }
    return status;
}

/* gather(self, dim, index), index_select(self, dim, index). */
static port_status
run_along_dim(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *given = arg_tensor(call, 2);
    bool gather = strcmp(call->row->name, "gather") == 0, nothing = gather && tensor_elems(given) == 0;
    int32_t d;
    port_tensor *x, *index, *out;
    port_status status = wrap_dim(call, arg_int(call, 1), self->ndim, &d);
    if (status != PORT_OK || (!nothing && (status = need_index(call, given)) != PORT_OK) ||
        (status = as_vector(call, self, &x)) != PORT_OK || (status = as_vector(call, given, &index)) != PORT_OK) {
        return status;
    }
    if (nothing) {
        status = tensor_new(call, self->dtype, given->ndim, given->shape, NULL, &out);
        return status == PORT_OK ? emit(call, out) : status;
    }
    if (index->ndim != (gather ? x->ndim : 1) || (!gather && self->ndim == 0 && index->shape[0] != 1)) {
        return fail_op(call, PORT_E_SHAPE, "a tensor of %d dimensions with an index of %d", self->ndim, given->ndim);
    }
    int64_t shape[PORT_MAX_NDIM];
    memcpy(shape, gather ? index->shape : x->shape, sizeof shape);
    shape[d] = index->shape[gather ? d : 0];
    for (int32_t k = 0; gather && k < x->ndim; k++) {
        if (k != d && index->shape[k] > x->shape[k]) {
            return fail_op(call, PORT_E_SHAPE, "the index is larger than the tensor in dimension %d", k);
        }
    }
    port_dim_params params = {d};
    if ((status = tensor_new(call, x->dtype, x->ndim, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    status = launch_tensors(call, call->row->kernel, x->dtype, (const port_tensor *const[]){x, index}, 2,
                            (const port_tensor *const[]){out}, 1, &params);
    out->ndim = gather ? given->ndim : self->ndim;
    return status == PORT_OK ? emit(call, out) : status;
}

static port_status
run_isin(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *test = arg_tensor(call, 1);
    op_operand both[2] = {{.tensor = x}, {.tensor = test}};
    port_dtype dtype = result_type(both, 2);
    port_isin_params params = {arg_bool(call, 3)};
    port_tensor *out;
    if (dtype >= PORT_NUM_DTYPES) {
        return fail_unsupported(call, "its operands have no common dtype");
    }
    port_status status = tensor_cast(call, x, dtype, &x);
    if (status != PORT_OK || (status = tensor_cast(call, test, dtype, &test)) != PORT_OK ||
        (status = tensor_new(call, PORT_BOOL, x->ndim, x->shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    status = launch_tensors(call, "isin", dtype, (const port_tensor *const[]){x, test}, 2, (const port_tensor *const[]){out}, 1,
                            &params);
    return status == PORT_OK ? emit(call, out) : status;
}

/* ------------------------------------------------------------------ index.Tensor */

typedef struct index_set {
    int32_t num, first_dim;
    int32_t dims[PORT_MAX_NDIM];
    const port_tensor *tensors[PORT_MAX_NDIM];
} index_set;

enum { MASK_BLOCK = 256 };

/* The places where a row-major mask is true, in order: to[k] takes what they are in dimension k. */
static void
list_true(int32_t ndim, const int64_t *shape, int64_t elems, const char *bits, int64_t *const *to)
{
    int64_t cols = ndim > 0 ? shape[ndim - 1] : 1, at = 0, step;
    for (int64_t i = 0; i < elems; i += step) {
        int64_t col = i % cols, rest = i / cols, found[MASK_BLOCK], n = 0;
        step = cols - col < MASK_BLOCK ? cols - col : MASK_BLOCK;
        for (int64_t j = 0; j < step; j++) { /* without a branch: what a mask says cannot be foreseen */
            found[n] = col + j;
            n += bits[i + j] != 0;
        }
        memcpy(to[ndim - 1] + at, found, (size_t)n * sizeof *found);
        for (int32_t k = ndim - 2; k >= 0; rest /= shape[k--]) {
            for (int64_t j = 0, place = rest % shape[k]; j < n; j++) {
                to[k][at + j] = place;
            }
        }
        at += n;
    }
}

/* A mask over dimensions [d, d + mask.ndim) becomes one index tensor for each of them: the places where it is true. */
static port_status
expand_mask(op_call *call, const port_tensor *mask, int32_t d, index_set *set)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    for (int32_t k = 0; k < mask->ndim; k++) {
        if (d + k >= x->ndim || mask->shape[k] != x->shape[d + k]) {
            return fail_op(call, PORT_E_SHAPE, "a mask does not have the shape of the dimensions it indexes");
        }
    }
    port_status status = tensor_contiguous(call, mask, &dense);
    if (status != PORT_OK) {
        return status;
    }
    const char *bits = tensor_view(dense).data;
    int64_t elems = tensor_elems(dense), count = 0, *to[PORT_MAX_NDIM] = {NULL};
    for (int64_t i = 0; i < elems; i++) {
        count += bits[i] != 0;
    }
    for (int32_t k = 0; k < mask->ndim; k++) {
        port_tensor *places;
        status = tensor_new(call, PORT_I64, 1, &count, NULL, &places);
        if (status != PORT_OK) {
            return status;
        }
        to[k] = (int64_t *)(void *)places->buffer->data;
        set->dims[set->num] = d + k;
        set->tensors[set->num++] = places;
    }
    list_true(mask->ndim, mask->shape, elems, bits, to);
    return PORT_OK;
}

static port_status
read_indices(op_call *call, index_set *set)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d = 0;
    for (int64_t k = 0; k < arg_len(call, 1); k++) {
        const port_tensor *t = item_tensor(call, 1, k);
        bool mask = t != NULL && (t->dtype == PORT_BOOL || t->dtype == PORT_U8);
        int32_t takes = mask ? t->ndim : 1;
        if (d + takes > x->ndim || (mask && t->ndim == 0)) {
            return fail_unsupported(call, "more indices than the tensor's %d dimensions, or a mask without dimensions", x->ndim);
        }
        port_status status = PORT_OK;
        if (mask) {
            status = expand_mask(call, t, d, set);
        } else if (t != NULL && (status = need_index(call, t)) == PORT_OK) {
            set->dims[set->num] = d;
            set->tensors[set->num++] = t;
        }
        if (status != PORT_OK) {
            return status;
        }
        d += takes;
    }
    bool adjacent = true;
    for (int32_t k = 1; k < set->num; k++) {
        adjacent = adjacent && set->dims[k] == set->dims[k - 1] + 1;
    }
    set->first_dim = adjacent && set->num > 0 ? set->dims[0] : 0;
    return set->num > 0 ? PORT_OK : fail_unsupported(call, "no index tensor");
}

/* The result's shape: x's free dimensions with the indices' common shape at first_dim. Fills the seen operands for the
 * strides: x with stride 0 at the indices' shape, the indices with stride 0 at the free dimensions. */
static port_status
index_shape(op_call *call, const index_set *set, const op_plan *common, op_plan *plan, port_tensor *seen)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t n = 0, free_dims = x->ndim - set->num;
    if (free_dims + common->ndim > PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_SHAPE, "the result would have too many dimensions");
    }
    memset(seen, 0, sizeof *seen);
    for (int32_t d = 0, k = 0; d <= x->ndim; d++) {
        if (n == set->first_dim && plan->ndim == 0) {
            plan->ndim = -1; /* the indices' shape was put in */
            for (int32_t i = 0; i < common->ndim; i++, n++) {
                plan->shape[n] = common->shape[i];
                seen->shape[n] = 1;
            }
        }
        if (d == x->ndim) {
            break;
        }
        if (k < set->num && set->dims[k] == d) {
            k++;
            continue;
        }
        plan->shape[n] = x->shape[d];
        seen->shape[n] = x->shape[d];
        seen->strides[n++] = x->strides[d];
    }
    plan->ndim = n;
    seen->ndim = n;
    seen->buffer = x->buffer;
    seen->dtype = x->dtype;
    return PORT_OK;
}

/* x, which has the first argument's shape, at the places that the second argument names. */
static port_status
take_indexed(op_call *call, const port_tensor *x, port_tensor **out)
{
    index_set set = {0};
    op_operand operands[PORT_MAX_NDIM + 1] = {{0}};
    op_plan common, plan = {0};
    port_tensor seen, placed[PORT_MAX_NDIM];
    port_status status = read_indices(call, &set);
    if (status == PORT_OK && set.num > OP_MAX_OPERANDS - 1) {
        return fail_unsupported(call, "%d indices", set.num);
    }
    for (int32_t k = 0; k < set.num; k++) {
        operands[k].tensor = set.tensors[k];
    }
    if (status != PORT_OK || (status = plan_pointwise(call, operands, set.num, &common)) != PORT_OK ||
        (status = index_shape(call, &set, &common, &plan, &seen)) != PORT_OK) {
        return status;
    }
    port_view views[PORT_KERNEL_MAX_IN];
    const port_view *in[PORT_KERNEL_MAX_IN] = {&views[0]};
    port_index_params params = {.num_indices = set.num, .first_dim = set.first_dim};
    views[0] = tensor_view(x);
    operands[0].tensor = &seen;
    int32_t behind = plan.ndim - set.first_dim - common.ndim;
    for (int32_t k = 0; k < set.num; k++) {
        const port_tensor *t = set.tensors[k];
        views[1 + k] = view_broadcast(t, common.ndim, common.shape);
        in[1 + k] = &views[1 + k];
        params.dims[k] = set.dims[k];
        placed[k] = *t; /* with dimensions of size 1 for the free dimensions behind it */
        placed[k].ndim = t->ndim + behind;
        for (int32_t d = t->ndim; d < placed[k].ndim; d++) {
            placed[k].shape[d] = 1;
            placed[k].strides[d] = 0;
        }
        operands[1 + k].tensor = &placed[k];
    }
    op_plan strided;
    status = plan_pointwise(call, operands, set.num + 1, &strided);
    if (status != PORT_OK ||
        (status = tensor_new(call, x->dtype, plan.ndim, plan.shape, strided.strides, out)) != PORT_OK) {
        return status;
    }
    port_view y = tensor_view(*out);
    return launch(call, "index", x->dtype, in, set.num + 1, (const port_view *const[]){&y}, 1, &params);
}

static port_status
run_index(op_call *call)
{
    port_tensor *out;
    port_status status = take_indexed(call, arg_tensor(call, 0), &out);
    return status == PORT_OK ? emit(call, out) : status;
}

/* Each element of the common shape of the indices over the first dimensions of x: the number of the part of x that it names. */
static port_status
number_parts(op_call *call, const index_set *set, const op_plan *common, int64_t *numbers)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t count = 1;
    for (int32_t d = 0; d < common->ndim; d++) {
        count *= common->shape[d];
    }
    memset(numbers, 0, (size_t)count * sizeof *numbers);
    for (int32_t k = 0; k < set->num; k++) {
        const port_tensor *wide, *t;
        port_tensor *spread;
        int64_t size = x->shape[k];
        port_status status = tensor_cast(call, set->tensors[k], PORT_I64, &wide);
        if (status == PORT_OK && tensor_elems(wide) == count) {
            status = tensor_contiguous(call, wide, &t);
        } else if (status == PORT_OK && (status = tensor_new(call, PORT_I64, common->ndim, common->shape, NULL, &spread)) == PORT_OK) {
            port_view to = tensor_view(spread), from = view_broadcast(wide, common->ndim, common->shape);
            copy_view(call, &to, &from);
            t = spread;
        }
        if (status != PORT_OK) {
            return status;
        }
        const int64_t *index = (const int64_t *)tensor_view(t).data;
        for (int64_t i = 0; i < count; i++) {
            if (index[i] < -size || index[i] >= size) {
                return fail_op(call, PORT_E_VALUE, "index %lld at place %lld is outside of %lld..%lld", (long long)index[i], (long long)i,
                               (long long)-size, (long long)(size - 1));
            }
            numbers[i] = numbers[i] * size + index[i] + (index[i] < 0 ? size : 0);
        }
    }
    return PORT_OK;
}

/* What index_put writes: `places` of parts of `part` elements each, which are written to in order. */
typedef struct put_places {
    const port_tensor *numbers; /* I64 (places) */
    int64_t part;
    int32_t ndim; /* of the places' shape, parts and all */
    int64_t shape[PORT_MAX_NDIM];
} put_places;

static port_status
read_places(op_call *call, put_places *places)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    port_tensor *numbers, *taken;
    index_set set = {0};
    op_operand operands[PORT_MAX_NDIM + 1] = {{0}};
    op_plan common;
    port_status status = read_indices(call, &set);
    bool leading = status == PORT_OK && set.num < OP_MAX_OPERANDS && set.dims[0] == 0 && set.dims[set.num - 1] == set.num - 1;
    for (int32_t k = 0; leading && k < set.num; k++) {
        operands[k].tensor = set.tensors[k];
    }
    if (status != PORT_OK || (leading && (status = plan_pointwise(call, operands, set.num, &common)) != PORT_OK)) {
        return status;
    }
    if (leading && common.ndim + x->ndim - set.num <= PORT_MAX_NDIM) {
        if ((status = tensor_new(call, PORT_I64, common.ndim, common.shape, NULL, &numbers)) != PORT_OK ||
            (status = number_parts(call, &set, &common, (int64_t *)tensor_view(numbers).data)) != PORT_OK) {
            return status;
        }
        places->numbers = numbers;
        places->part = 1;
        places->ndim = common.ndim;
        memcpy(places->shape, common.shape, sizeof common.shape);
        for (int32_t d = set.num; d < x->ndim; d++) {
            places->part *= places->shape[places->ndim++] = x->shape[d];
        }
        return PORT_OK;
    }
    status = tensor_new(call, PORT_I64, x->ndim, x->shape, NULL, &numbers);
    for (int64_t i = 0, n = status == PORT_OK ? tensor_elems(numbers) : 0; i < n; i++) {
        ((int64_t *)tensor_view(numbers).data)[i] = i;
    }
    if (status != PORT_OK || (status = take_indexed(call, numbers, &taken)) != PORT_OK ||
        (status = tensor_contiguous(call, taken, &dense)) != PORT_OK) {
        return status;
    }
    *places = (put_places){.numbers = dense, .part = 1, .ndim = dense->ndim};
    memcpy(places->shape, dense->shape, sizeof places->shape);
    return PORT_OK;
}

/* `rows` parts of `part` elements that lie one behind the other. */
static port_view
parts_view(const port_tensor *t, int64_t rows, int64_t part)
{
    port_view view = tensor_view(t);
    view.ndim = part == 1 ? 1 : 2;
    view.shape[0] = rows;
    view.strides[0] = view.shape[1] = part;
    view.strides[1] = 1;
    return view;
}

/* Writes the values, row-major and of the places' shape, into y, row-major and of x's shape. */
static port_status
put_parts(op_call *call, const put_places *places, const port_tensor *values, const port_tensor *y)
{
    int64_t part = places->part, count = tensor_elems(places->numbers);
    if (count * part == 0) {
        return PORT_OK;
    }
    port_view index = parts_view(places->numbers, count, part), src = parts_view(values, count, part);
    port_view to = parts_view(y, tensor_elems(y) / part, part);
    index.strides[0] = 1;
    index.strides[1] = 0;
    port_scatter_params params = {0, arg_bool(call, 3) ? PORT_SCATTER_ADD : PORT_SCATTER_SET};
    return launch(call, "scatter", y->dtype, (const port_view *const[]){&index, &src}, 2, (const port_view *const[]){&to}, 1, &params);
}

/* The values as a row-major tensor of the places' shape. */
static port_status
spread_values(op_call *call, const put_places *places, const port_tensor **values)
{
    const port_tensor *given = *values;
    bool fits = given->ndim <= places->ndim, alike = given->ndim == places->ndim;
    for (int32_t d = 0; fits && d < given->ndim; d++) {
        int64_t size = places->shape[places->ndim - given->ndim + d];
        fits = given->shape[d] == size || given->shape[d] == 1;
        alike = alike && given->shape[d] == size;
    }
    if (!fits) {
        return fail_op(call, PORT_E_SHAPE, "the values do not broadcast to the indexed places");
    }
    if (alike) {
        return tensor_contiguous(call, given, values);
    }
    port_tensor *spread;
    port_status status = tensor_new(call, given->dtype, places->ndim, places->shape, NULL, &spread);
    if (status == PORT_OK) {
        port_view to = tensor_view(spread), from = view_broadcast(given, places->ndim, places->shape);
        copy_view(call, &to, &from);
        *values = spread;
    }
    return status;
}

/* index_put(self, indices, values, accumulate): indices over the first dimensions name whole parts of self; others are places of
 * self's elements, indexed as self would be. */
static port_status
run_index_put(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *values = arg_tensor(call, 2);
    port_tensor *copy, *out;
    put_places places;
    if (values->dtype != x->dtype) {
        return fail_op(call, PORT_E_DTYPE, "values of %s for a tensor of %s", port_dtype_name(values->dtype), port_dtype_name(x->dtype));
    }
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(x, strides);
    port_status status = read_places(call, &places);
    if (status != PORT_OK || (status = spread_values(call, &places, &values)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, x->ndim, x->shape, strides, &out)) != PORT_OK) {
        return status;
    }
    copy = out;
    if (!tensor_is_contiguous(out) && (status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &copy)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(copy), from = tensor_view(x), last = tensor_view(out);
    copy_view(call, &to, &from);
    if ((status = put_parts(call, &places, values, copy)) != PORT_OK) {
        return status;
    }
    if (copy != out) {
        copy_view(call, &last, &to);
    }
    return emit(call, out);
}

static port_status
run_local_scalar(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *out;
    if (tensor_elems(x) != 1) {
        return fail_op(call, PORT_E_SHAPE, "expected one element, got %lld", (long long)tensor_elems(x));
    }
    port_status status = tensor_alias(call, x, &out);
    if (status == PORT_OK) {
        out->ndim = 0;
        status = emit(call, out);
    }
    return status;
}

const op_row op_index_rows[] = {
    {"embedding", "T weight, T indices, I padding_idx=-1, B scale_grad_by_freq=False, B sparse=False", run_embedding, "embedding", 0, 0},
    {"gather", "T self, I dim, T index, *, B sparse_grad=False", run_along_dim, "gather", 0, 0},
    {"index_select", "T self, I dim, T index", run_along_dim, "index_select", 0, 0},
    {"isin.Tensor_Tensor", "T elements, T test_elements, *, B assume_unique=False, B invert=False", run_isin, "isin", 0, 0},
    {"index.Tensor", "T self, O indices", run_index, "index", 0, 0},
    {"_unsafe_index.Tensor", "T self, O indices", run_index, "index", 0, 0},
    {"index_put", "T self, O indices, T values, B accumulate=False", run_index_put, "scatter", 0, OP_IN_PLACE},
    {"_unsafe_index_put", "T self, O indices, T values, B accumulate=False", run_index_put, "scatter", 0, 0},
    {"_local_scalar_dense", "T self", run_local_scalar, NULL, 0, 0},
    {.name = NULL},
};
