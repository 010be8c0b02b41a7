/* create_ops.c -- ops that make a tensor from a shape or from numbers.
 * empty, new_empty and empty_like have undefined contents in torch; here they are zeros. */
#include "exec.h"

#include <math.h>

static const port_scalar zero = {PORT_SCALAR_INT, 0, 0.0}, one = {PORT_SCALAR_INT, 1, 1.0};

static port_status
read_sizes(op_call *call, int32_t idx, int32_t *ndim, int64_t *shape)
{
    int64_t len = arg_len(call, idx);
    if (len > PORT_MAX_NDIM) {
        return fail_op(call, PORT_E_SHAPE, "%lld dimensions; at most %d are possible", (long long)len, PORT_MAX_NDIM);
    }
    *ndim = (int32_t)len;
    for (int32_t d = 0; d < *ndim; d++) {
        shape[d] = arg_int_at(call, idx, d);
    }
    return PORT_OK;
}

static port_dtype
dtype_of_scalar(const op_call *call, port_scalar value)
{
    return value.kind == PORT_SCALAR_BOOL ? PORT_BOOL : (value.kind == PORT_SCALAR_INT ? PORT_I64 : default_dtype(call));
}

static port_status
emit_filled(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides, port_scalar value)
{
    port_tensor *made;
    port_status status = tensor_new(call, dtype, ndim, shape, strides, &made);
    if (status != PORT_OK) {
        return status;
    }
    if (value.d == 0.0 && !signbit(value.d) && value.i == 0) {
        memset(made->buffer->data, 0, (size_t)made->buffer->size_bytes); /* zero is zero bits in every dtype */
    } else {
        status = tensor_fill(call, made, value);
    }
    return status == PORT_OK ? emit(call, made) : status;
}

static port_status
need_plain_format(op_call *call, int32_t idx, port_memory_format if_none)
{
    int64_t format = arg_given(call, idx) ? call->args[idx].i : if_none;
    return format == PORT_FORMAT_CONTIGUOUS || format == PORT_FORMAT_PRESERVE
               ? PORT_OK
               : fail_unsupported(call, "a channels_last memory format");
}

/* zeros, ones, empty: size and dtype; the row's kernel name says what to fill with. */
static port_status
run_sized(op_call *call)
{
    int32_t ndim = 0;
    int64_t shape[PORT_MAX_NDIM];
    port_status status = read_sizes(call, 0, &ndim, shape);
    if (status == PORT_OK && call->num_args > 5) {
        status = need_plain_format(call, 5, PORT_FORMAT_CONTIGUOUS);
    }
    port_scalar value = call->row->flags != 0 ? one : zero;
    return status == PORT_OK ? emit_filled(call, arg_dtype(call, 1, default_dtype(call)), ndim, shape, NULL, value) : status;
}
#define FILL_ONES 256 /* a flag of this file */

static port_status
run_full(op_call *call)
{
    int32_t ndim = 0;
    int64_t shape[PORT_MAX_NDIM];
    port_scalar value = arg_scalar(call, 1);
    port_status status = read_sizes(call, 0, &ndim, shape);
    return status == PORT_OK ? emit_filled(call, arg_dtype(call, 2, dtype_of_scalar(call, value)), ndim, shape, NULL, value) : status;
}

static port_status
run_empty_strided(op_call *call)
{
    int32_t ndim, num_strides;
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    port_status status = read_sizes(call, 0, &ndim, shape);
    if (status == PORT_OK) {
        status = read_sizes(call, 1, &num_strides, strides);
    }
    if (status == PORT_OK && num_strides != ndim) {
        return fail_op(call, PORT_E_VALUE, "%d sizes and %d strides", ndim, num_strides);
    }
    return status == PORT_OK ? emit_filled(call, arg_dtype(call, 2, default_dtype(call)), ndim, shape, strides, zero) : status;
}

static port_status
run_scalar_tensor(op_call *call)
{
    return emit_filled(call, arg_dtype(call, 1, default_dtype(call)), 0, NULL, NULL, arg_scalar(call, 0));
}

/* new_zeros, new_ones, new_empty, new_full. */
static port_status
run_new(op_call *call)
{
    int32_t ndim, full = strcmp(call->row->name, "new_full") == 0;
    int64_t shape[PORT_MAX_NDIM];
    port_status status = read_sizes(call, 1, &ndim, shape);
    port_dtype dtype = arg_dtype(call, 2 + full, arg_tensor(call, 0)->dtype);
    port_scalar value = full ? arg_scalar(call, 2) : (call->row->flags != 0 ? one : zero);
    return status == PORT_OK ? emit_filled(call, dtype, ndim, shape, NULL, value) : status;
}

/* zeros_like, ones_like, empty_like, full_like. */
static port_status
run_like(op_call *call)
{
    int32_t full = strcmp(call->row->name, "full_like") == 0;
    const port_tensor *like = arg_tensor(call, 0);
    port_status status = need_plain_format(call, 5 + full, PORT_FORMAT_PRESERVE);
    if (status != PORT_OK) {
        return status;
    }
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(like, strides);
    bool plain = arg_given(call, 5 + full) && call->args[5 + full].i == PORT_FORMAT_CONTIGUOUS;
    port_scalar value = full ? arg_scalar(call, 1) : (call->row->flags != 0 ? one : zero);
    return emit_filled(call, arg_dtype(call, 1 + full, like->dtype), like->ndim, like->shape, plain ? NULL : strides, value);
}

/* The number without what stands after the point; below 2^63. */
static port_scalar
as_integer(port_scalar value)
{
    if (value.kind != PORT_SCALAR_FLOAT) {
        return value;
    }
    return (port_scalar){PORT_SCALAR_INT, (int64_t)value.d, trunc(value.d)};
}

/* arange, arange.start, arange.start_step. */
static port_status
run_arange(op_call *call)
{
    int32_t numbers = call->num_args - 4; /* after them: dtype and three that only the CPU can satisfy */
    port_scalar start = numbers > 1 ? arg_scalar(call, 0) : zero, step = numbers > 2 ? arg_scalar(call, 2) : one;
    port_scalar end = arg_scalar(call, numbers > 1 ? 1 : 0);
    bool ints = start.kind != PORT_SCALAR_FLOAT && end.kind != PORT_SCALAR_FLOAT && step.kind != PORT_SCALAR_FLOAT;
    port_dtype dtype = arg_dtype(call, numbers, ints ? PORT_I64 : default_dtype(call));
    double count;
    bool small = fabs(start.d) < 0x1p62 && fabs(end.d) < 0x1p62 && fabs(step.d) < 0x1p62; /* also false for NaN */
    if (!small) {
        count = -1.0;
    } else if (dtype == PORT_I64) { /* torch counts with integers here, and divides for every other dtype */
        int64_t to = as_integer(end).i, from = as_integer(start).i, by = as_integer(step).i;
        count = by == 0 ? -1.0 : ceil((double)(to - from) / (double)by);
    } else {
        count = ceil((end.d - start.d) / step.d);
    }
    if (step.d == 0.0 || !(count >= 0.0) || count > 1e15) {
        return fail_op(call, PORT_E_VALUE, "from %g to %g in steps of %g is no range", start.d, end.d, step.d);
    }
    port_tensor *made;
    bool whole = !dtype_is_float(dtype); /* then the elements are made of integers too */
    port_arange_params params = {whole ? as_integer(start) : start, whole ? as_integer(step) : step};
    int64_t shape[1] = {(int64_t)count};
    port_status status = tensor_new(call, dtype, 1, shape, NULL, &made);
    if (status == PORT_OK && shape[0] > 0) {
        status = launch_tensors(call, "arange", dtype, NULL, 0, (const port_tensor *const[]){made}, 1, &params);
    }
    return status == PORT_OK ? emit(call, made) : status;
}

/* fill_ and zero_ (and their functional forms): the strides of self. */
static port_status
run_fill(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0);
    port_scalar value = zero;
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(self, strides);
    if (call->num_args > 1) {
        value = arg_scalar(call, 1);
        if (value.kind == PORT_SCALAR_FLOAT && !isfinite(value.d) && !dtype_is_float(self->dtype)) {
            return fail_op(call, PORT_E_VALUE, "%g cannot be stored as %s", value.d, port_dtype_name(self->dtype));
        }
    }
    return emit_filled(call, self->dtype, self->ndim, self->shape, strides, value);
}

static port_status
run_fill_tensor(op_call *call)
{
    const port_tensor *self = arg_tensor(call, 0), *value = arg_tensor(call, 1);
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *made;
    if (value->ndim > 0) {
        return fail_op(call, PORT_E_SHAPE, "the value must have no dimensions, it has %d", value->ndim);
    }
    preserve_strides(self, strides);
    port_status status = tensor_new(call, self->dtype, self->ndim, self->shape, strides, &made);
    if (status == PORT_OK) {
        status = tensor_cast(call, value, self->dtype, &value);
    }
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made), from = view_broadcast(value, self->ndim, self->shape);
    copy_view(call, &to, &from);
    return emit(call, made);
}

#define FACTORY ", *, D? dtype=None, y layout=None, v device=None, p pin_memory=None"
#define FORMAT ", m memory_format=None"

const op_row op_create_rows[] = {
    {"zeros", "A size" FACTORY, run_sized, NULL, 0, 0},
    {"ones", "A size" FACTORY, run_sized, NULL, 0, FILL_ONES},
    {"empty.memory_format", "A size" FACTORY FORMAT, run_sized, NULL, 0, 0},
    {"empty_strided", "A size, A stride" FACTORY, run_empty_strided, NULL, 0, 0},
    {"full", "A size, S fill_value" FACTORY, run_full, NULL, 0, 0},
    {"scalar_tensor", "S s" FACTORY, run_scalar_tensor, NULL, 0, 0},
    {"new_zeros", "T self, A size" FACTORY, run_new, NULL, 0, 0},
    {"new_ones", "T self, A size" FACTORY, run_new, NULL, 0, FILL_ONES},
    {"new_empty", "T self, A size" FACTORY, run_new, NULL, 0, 0},
    {"new_full", "T self, A size, S fill_value" FACTORY, run_new, NULL, 0, 0},
    {"zeros_like", "T self" FACTORY FORMAT, run_like, NULL, 0, 0},
    {"ones_like", "T self" FACTORY FORMAT, run_like, NULL, 0, FILL_ONES},
    {"empty_like", "T self" FACTORY FORMAT, run_like, NULL, 0, 0},
    {"full_like", "T self, S fill_value" FACTORY FORMAT, run_like, NULL, 0, 0},
    {"arange", "S end" FACTORY, run_arange, NULL, 0, 0},
    {"arange.start", "S start, S end" FACTORY, run_arange, NULL, 0, 0},
    {"arange.start_step", "S start, S end, S step=1" FACTORY, run_arange, NULL, 0, 0},
    {"zero", "T self", run_fill, NULL, 0, OP_IN_PLACE},
    {"fill.Scalar", "T self, S value", run_fill, NULL, 0, OP_IN_PLACE},
    {"fill.Tensor", "T self, T value", run_fill_tensor, NULL, 0, OP_IN_PLACE},
    {.name = NULL},
};
