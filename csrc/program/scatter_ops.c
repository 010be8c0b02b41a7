/* scatter_ops.c -- ops that write where an index says. The in-place forms come from the functional ones (call.c). */
#include "compose.h"

#include <math.h>

/* A copy of self, which is written into: row-major, for index_fill with the strides of torch's clone. */
static port_status
copy_of(op_call *call, const port_tensor *self, port_tensor **out)
{
    int64_t strides[PORT_MAX_NDIM];
    bool clones = strncmp(call->row->name, "index_fill", 10) == 0;
    preserve_strides(self, strides);
    port_status status = tensor_new(call, self->dtype, self->ndim, self->shape, clones ? strides : NULL, out);
    if (status == PORT_OK) {
        port_view to = tensor_view(*out), from = tensor_view(self);
        copy_view(call, &to, &from);
    }
    return status;
}

/* A view of one dimension where there is none. */
static port_view
at_least_1d(const port_tensor *t)
{
    port_view view = tensor_view(t);
    if (view.ndim == 0) {
        view.ndim = 1;
        view.shape[0] = view.strides[0] = 1;
    }
    return view;
}

static port_status
launch_one(op_call *call, const char *kernel, const port_view *from, const port_view *to)
{
    return launch(call, kernel, from->dtype, &from, 1, &to, 1, NULL);
}

/* Halves are combined in F32 and rounded once, after the last of them. */
static port_status
combine_wide(op_call *call, const port_scatter_params *params, const port_view *index, const port_view *src, port_tensor *out)
{
    port_tensor *sum, *terms;
    port_status status = tensor_new(call, PORT_F32, out->ndim, out->shape, NULL, &sum);
    if (status != PORT_OK || (status = tensor_new(call, PORT_F32, src->ndim, src->shape, NULL, &terms)) != PORT_OK) {
        return status;
    }
    port_view narrow = at_least_1d(out), y = at_least_1d(sum), x = tensor_view(terms);
    if ((status = launch_one(call, "cast", &narrow, &y)) != PORT_OK || (status = launch_one(call, "cast", src, &x)) != PORT_OK ||
        (status = launch(call, "scatter", PORT_F32, (const port_view *const[]){index, &x}, 2, (const port_view *const[]){&y}, 1, params)) != PORT_OK ||
        (status = launch_one(call, "cast", &y, &narrow)) != PORT_OK) {
        return status;
    }
    return PORT_OK;
}

/* each: halves are rounded after every element that is combined with them. */
static port_status
combine_into(op_call *call, int32_t dim, port_scatter_kind kind, bool each, const port_view *index, const port_view *src, port_tensor *out)
{
    port_scatter_params params = {dim, kind};
    port_view y = at_least_1d(out), from = *src;
    if (!each && kind != PORT_SCATTER_SET && (out->dtype == PORT_BF16 || out->dtype == PORT_F16)) {
        return combine_wide(call, &params, index, src, out);
    }
    bool moves = out->dtype == PORT_C64 && kind == PORT_SCATTER_SET; /* a complex number goes as the double that has its bits */
    y.dtype = from.dtype = moves ? PORT_F64 : out->dtype;
    src = &from;
    return launch(call, "scatter", y.dtype, (const port_view *const[]){index, src}, 2, (const port_view *const[]){&y}, 1, &params);
}

static port_status
scatter_into(op_call *call, int32_t dim, port_scatter_kind kind, bool each, const port_view *index, const port_view *src, port_tensor *out)
{
    port_status status = port_view_elems(index) > 0 ? combine_into(call, dim, kind, each, index, src, out) : PORT_OK;
    return status == PORT_OK ? emit(call, out) : status;
}

/* The index of one dimension, repeated over the others of a tensor. */
static port_view
lines_of(const port_tensor *self, const port_tensor *index, int32_t dim)
{
    port_view whole = at_least_1d(self), places = {.data = tensor_view(index).data, .dtype = index->dtype, .ndim = whole.ndim};
    for (int32_t k = 0; k < whole.ndim; k++) {
        places.shape[k] = k == dim ? tensor_elems(index) : whole.shape[k];
        places.strides[k] = k == dim && index->ndim == 1 ? index->strides[0] : 0;
    }
    return places;
}

/* torch writes line after line along a dimension that is neither the first nor the last, and has the others done by scatter_add. */
static bool
adds_by_lines(const port_tensor *self, int32_t dim)
{
    return self->ndim < 2 || (dim != 0 && dim != self->ndim - 1);
}

/* "add", "sum", "multiply", "prod", "amax", "amin"; anything else is not taken. */
static bool
kind_of_reduce(const char *text, port_scatter_kind *kind)
{
    static const struct {
        const char *text;
        port_scatter_kind kind;
    } names[] = {{"add", PORT_SCATTER_ADD}, {"sum", PORT_SCATTER_ADD}, {"multiply", PORT_SCATTER_MUL},
                 {"prod", PORT_SCATTER_MUL}, {"amax", PORT_SCATTER_MAX}, {"amin", PORT_SCATTER_MIN}};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (strcmp(names[k].text, text) == 0) {
            *kind = names[k].kind;
            return true;
        }
    }
    return false;
}

/* What does not change under a reduction. False: the dtype has none that can be written. */
static bool
neutral_element(const char *reduce, port_dtype dtype, port_arg *arg)
{
    bool most = strcmp(reduce, "amin") == 0, least = strcmp(reduce, "amax") == 0;
    *arg = (port_arg){.kind = PORT_ARG_INT, .i = strcmp(reduce, "prod") == 0, .d = strcmp(reduce, "prod") == 0};
    if (most || least) {
        *arg = (port_arg){.kind = PORT_ARG_FLOAT, .d = most ? (double)INFINITY : -(double)INFINITY};
        if (!dtype_is_float(dtype)) {
            bool is_signed = dtype != PORT_BOOL && dtype != PORT_U8;
            uint64_t top = dtype == PORT_BOOL ? 1 : UINT64_MAX >> (64 - 8 * port_dtype_size(dtype) + (is_signed ? 1 : 0));
            int64_t value = most ? (int64_t)top : (is_signed ? -(int64_t)top - 1 : 0);
            *arg = (port_arg){.kind = PORT_ARG_INT, .i = value, .d = (double)value};
        }
        return dtype_is_float(dtype) || dtype_is_integral(dtype) || dtype == PORT_BOOL;
    }
    return true;
}

#define COUNTED                                                                                                       \
    "y = scatter_add(y, dim, index, src); o = ones_like(src); ?include_self: c = ones_like(self); !include_self: c = zeros_like(self); "  \
    "c = scatter_add(c, dim, index, o); c = clamp_min(c, 1); ~self: y = div.Tensor(y, c); %self: y = div.Tensor_mode(y, c, rounding_mode='floor') -> y"

/* scatter_reduce without self, whose elements begin as the neutral one, and means. */
static port_status
reduce_without_self(op_call *call)
{
    const char *reduce = arg_text(call, 4, "");
    port_named_arg extra[1] = {{"start", {.kind = PORT_ARG_NONE}}};
    if (!neutral_element(reduce, arg_tensor(call, 0)->dtype, &extra[0].arg)) {
        return fail_unsupported(call, "%.40s of %s without self", reduce, port_dtype_name(arg_tensor(call, 0)->dtype));
    }
    if (strcmp(reduce, "mean") == 0) {
        return run_formula(call, "?include_self: y = clone(self); !include_self: y = scatter.value(self, dim, index, start); " COUNTED, extra, 1);
    }
    return run_formula(call, "y = scatter.value(self, dim, index, start); y = scatter_reduce.two(y, dim, index, src, reduce) -> y", extra, 1);
}

/* index_reduce of halves, which are rounded after every element; so are the counts that means are divided by. */
static port_status
reduce_halves(op_call *call, int32_t d)
{
    const port_tensor *self = arg_tensor(call, 0), *index = arg_tensor(call, 2), *source = arg_tensor(call, 3), *first, *one;
    const char *reduce = arg_text(call, 4, "");
    bool mean = strcmp(reduce, "mean") == 0, include_self = arg_bool(call, 5);
    const port_scalar unit = {.kind = PORT_SCALAR_INT, .i = 1, .d = 1.0};
    port_scatter_kind kind = PORT_SCATTER_ADD;
    port_view places = lines_of(self, index, d), from = tensor_view(source);
    port_arg start;
    port_tensor *out, *counts;
    if (!neutral_element(reduce, self->dtype, &start) || (!mean && !kind_of_reduce(reduce, &kind))) {
        return fail_unsupported(call, "the reduction %.40s", reduce);
    }
    port_status status = copy_of(call, self, &out);
    if (status != PORT_OK || tensor_elems(index) == 0 || (status = scalar_to_tensor(call, (port_scalar){.kind = PORT_SCALAR_FLOAT, .d = start.d}, self->dtype, &first)) != PORT_OK ||
        (status = scalar_to_tensor(call, unit, self->dtype, &one)) != PORT_OK) {
        return status == PORT_OK ? emit(call, out) : status;
    }
    port_view begins = view_broadcast(first, places.ndim, places.shape), ones = view_broadcast(one, places.ndim, places.shape);
    status = include_self ? PORT_OK : combine_into(call, d, PORT_SCATTER_SET, true, &places, &begins, out);
    if (status != PORT_OK || (status = combine_into(call, d, kind, true, &places, &from, out)) != PORT_OK || !mean ||
        (status = copy_of(call, self, &counts)) != PORT_OK) {
        return status == PORT_OK ? emit(call, out) : status;
    }
    port_view count = tensor_view(counts), all = view_broadcast(one, self->ndim, self->shape), y = tensor_view(out);
    copy_view(call, &count, &all); /* an element that no line meets is divided by 1 too */
    if ((!include_self && (status = combine_into(call, d, PORT_SCATTER_SET, true, &places, &begins, counts)) != PORT_OK) ||
        (status = combine_into(call, d, PORT_SCATTER_ADD, adds_by_lines(self, d), &places, &ones, counts)) != PORT_OK ||
        (status = launch(call, "div", self->dtype, (const port_view *const[]){&y, &count}, 2, (const port_view *const[]){&y}, 1, NULL)) != PORT_OK) {
        return status;
    }
    return emit(call, out);
}

/* index_reduce(self, dim, index, source, reduce, include_self): scatter_reduce with the index repeated over the other dimensions. */
static port_status
run_index_reduce(op_call *call)
{
    const port_tensor *source = arg_tensor(call, 3), *index = arg_tensor(call, 2);
    port_arg shape[PORT_MAX_NDIM], seen[PORT_MAX_NDIM];
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), source->ndim, &d);
    if (status == PORT_OK && source->ndim == 0 && arg_tensor(call, 0)->ndim == 0 && tensor_elems(index) == 1) {
        return run_formula(call, "s = reshape(self, [1]); i = reshape(index, [1]); v = reshape(source, [1]); y = scatter_reduce.two(s, 0, i, v, "
                                 "reduce, include_self=include_self); y = reshape(y, []) -> y", NULL, 0);
    }
    if (status != PORT_OK || source->ndim == 0 || index->ndim != 1) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_SHAPE, "an index of %d dimensions for a source of %d", index->ndim, source->ndim);
    }
    if (source->dtype == PORT_F16 || source->dtype == PORT_BF16) {
        return reduce_halves(call, d);
    }
    for (int32_t k = 0; k < source->ndim; k++) {
        shape[k] = (port_arg){.kind = PORT_ARG_INT, .i = source->shape[k]};
        seen[k] = (port_arg){.kind = PORT_ARG_INT, .i = k == d ? index->shape[0] : 1};
    }
    const port_named_arg extra[2] = {{"shape", {.kind = PORT_ARG_LIST, .items = shape, .num_items = source->ndim}},
                                     {"seen", {.kind = PORT_ARG_LIST, .items = seen, .num_items = source->ndim}}};
    return run_formula(call, "i = reshape(index, seen); i = expand(i, shape); y = scatter_reduce.two(self, dim, i, source, reduce, include_self=include_self) -> y",
                       extra, 2);
}

/* scatter (.src, .value, .reduce, .value_reduce), scatter_add, scatter_reduce.two: (self, dim, index, source or number, ...). */
static port_status
run_scatter(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *index = arg_tensor(call, 2), *src = arg_tensor(call, 3);
    port_scatter_kind kind = strcmp(call->row->name, "scatter_add") == 0 ? PORT_SCATTER_ADD : PORT_SCATTER_SET;
    port_tensor *out;
    int32_t d;
    if (call->num_args > 5 && (!arg_bool(call, 5) || strcmp(arg_text(call, 4, ""), "mean") == 0)) {
        return reduce_without_self(call);
    }
    if (call->num_args > 4 && !kind_of_reduce(arg_text(call, 4, ""), &kind)) {
        return fail_unsupported(call, "the reduction %.40s", arg_text(call, 4, ""));
    }
    port_status status = wrap_dim(call, arg_int(call, 1), self->ndim, &d);
    if (status == PORT_OK) {
        status = src != NULL ? tensor_cast(call, src, self->dtype, &src) : scalar_to_tensor(call, arg_scalar(call, 3), self->dtype, &src);
    }
    if (status != PORT_OK || (status = copy_of(call, self, &out)) != PORT_OK) {
        return status;
    }
    port_view places = at_least_1d(index);
    port_view from = arg_tensor(call, 3) != NULL ? at_least_1d(src) : view_broadcast(src, places.ndim, places.shape);
    return scatter_into(call, d, kind, false, &places, &from, out);
}

/* index_add (self, dim, index, source, alpha), index_copy, index_fill: the index of one dimension is repeated over the others. */
static port_status
run_index_write(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *index = arg_tensor(call, 2), *src = arg_tensor(call, 3);
    bool adds = strcmp(call->row->name, "index_add") == 0;
    port_tensor *out;
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), self->ndim, &d);
    if (status == PORT_OK && adds && arg_scalar(call, 4).d != 1.0) {
        return run_formula(call, "s = mul.Scalar(source, alpha); y = index_add(self, dim, index, s) -> y", NULL, 0);
    }
    if (status == PORT_OK) {
        status = src != NULL ? tensor_cast(call, src, self->dtype, &src) : scalar_to_tensor(call, arg_scalar(call, 3), self->dtype, &src);
    }
    if (status != PORT_OK || index->ndim > 1) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_SHAPE, "an index of %d dimensions", index->ndim);
    }
    if ((status = copy_of(call, self, &out)) != PORT_OK) {
        return status;
    }
    port_view places = lines_of(self, index, d);
    bool repeated = arg_tensor(call, 3) == NULL || src->ndim == 0;
    if (!repeated && src->ndim != places.ndim) {
        return fail_op(call, PORT_E_SHAPE, "a source of %d dimensions for a tensor of %d", src->ndim, self->ndim);
    }
    port_view from = repeated ? view_broadcast(src, places.ndim, places.shape) : at_least_1d(src);
    return scatter_into(call, d, adds ? PORT_SCATTER_ADD : PORT_SCATTER_SET, adds_by_lines(self, d), &places, &from, out);
}

/* masked_scatter(self, mask, source): the source's elements one after the other where the mask is true. */
static port_status
run_masked_scatter(op_call *call)
{
    op_operand both[2] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}};
    const port_tensor *source = arg_tensor(call, 2), *mask = both[1].tensor;
    size_t size = port_dtype_size(source->dtype);
    op_plan plan;
    port_tensor *out, *where;
    port_status status = plan_pointwise(call, both, 2, &plan);
    if (status != PORT_OK || source->dtype != both[0].tensor->dtype || mask->dtype != PORT_BOOL) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_DTYPE, "a source of %s and a mask of %s",
                                                    port_dtype_name(source->dtype), port_dtype_name(mask->dtype));
    }
    if ((status = tensor_contiguous(call, source, &source)) != PORT_OK ||
        (status = tensor_new(call, source->dtype, plan.ndim, plan.shape, NULL, &out)) != PORT_OK ||
        (status = tensor_new(call, PORT_BOOL, plan.ndim, plan.shape, NULL, &where)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(out), from = view_broadcast(both[0].tensor, plan.ndim, plan.shape);
    port_view mask_to = tensor_view(where), mask_from = view_broadcast(mask, plan.ndim, plan.shape);
    copy_view(call, &to, &from);
    copy_view(call, &mask_to, &mask_from);
    const char *next = tensor_view(source).data;
    int64_t left = tensor_elems(source), n = tensor_elems(out);
    for (int64_t i = 0; i < n; i++) {
        if (((const char *)mask_to.data)[i] != 0) {
            if (left-- == 0) {
                return fail_op(call, PORT_E_VALUE, "the mask is true at more places than the source has elements");
            }
            memcpy((char *)to.data + (size_t)i * size, next, size);
            next += size;
        }
    }
    return emit(call, out);
}

#define INDEXED "T self, I dim, T index, "

const op_row op_scatter_rows[] = {
    {"scatter.src", INDEXED "T src", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"scatter.value", INDEXED "S value", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"scatter.reduce", INDEXED "T src, *, s reduce", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"scatter.value_reduce", INDEXED "S value, *, s reduce", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"scatter_add", INDEXED "T src", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"scatter_reduce.two", INDEXED "T src, s reduce, *, B include_self=True", run_scatter, "scatter", 0, OP_IN_PLACE},
    {"index_add", INDEXED "T source, *, S alpha=1", run_index_write, "scatter", 0, OP_IN_PLACE},
    {"index_reduce", INDEXED "T source, s reduce, *, B include_self=True", run_index_reduce, "scatter", 0, OP_IN_PLACE},
    {"index_copy", INDEXED "T source", run_index_write, "scatter", 0, OP_IN_PLACE},
    {"index_fill.int_Scalar", INDEXED "S value", run_index_write, "scatter", 0, OP_IN_PLACE},
    {"index_fill.int_Tensor", INDEXED "T value", run_index_write, "scatter", 0, OP_IN_PLACE},
    {"masked_scatter", "T self, T mask, T source", run_masked_scatter, NULL, 0, OP_IN_PLACE},
    {.name = NULL},
};
