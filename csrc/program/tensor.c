/* tensor.c -- tensors on counted buffers: sizes, strides, copies. */
#include "../core/plane.h"
#include "exec.h"

#define MAX_TENSOR_BYTES ((uint64_t)1 << 40) /* a size beyond this is nonsense in a program, and no allocator is asked for it */
#define MAX_GAP_BYTES ((uint64_t)16 << 20)   /* between the elements of a fed tensor that is laid out with its strides */
#define MAX_ELEMS ((int64_t)1 << 40)         /* also of an expanded tensor */
#define MAX_RESULTS ((size_t)1 << 20)        /* of one op: parts of an expanded tensor cost memory where it has none */

port_status
buffer_new(uint64_t size_bytes, uint64_t lead_bytes, bool zeroed, port_buffer **buffer, port_error *err)
{
    port_buffer *b = port_calloc(1, sizeof *b);
    if (b != NULL) {
        b->memory = size_bytes < MAX_TENSOR_BYTES ? port_alloc_aligned((size_t)(size_bytes + lead_bytes)) : NULL;
    }
    if (b == NULL || b->memory == NULL) {
        port_free(b);
        return port_fail(err, PORT_E_NOMEM, "no memory for a tensor of %llu bytes", (unsigned long long)size_bytes);
    }
    b->data = (char *)b->memory + lead_bytes;
    if (zeroed) {
        memset(b->data, 0, (size_t)size_bytes);
    }
    b->size_bytes = size_bytes;
    b->refs = 1;
    *buffer = b;
    return PORT_OK;
}

void
buffer_release(port_buffer *buffer)
{
    if (buffer != NULL && --buffer->refs == 0) {
        port_free_aligned(buffer->memory);
        port_free(buffer);
    }
}

port_status
buffer_make_writable(port_buffer *buffer, port_error *err)
{
    if (buffer->memory != NULL) {
        return PORT_OK;
    }
    size_t lead_bytes = (uintptr_t)buffer->data % 64;
    buffer->memory = port_alloc_aligned((size_t)buffer->size_bytes + lead_bytes);
    if (buffer->memory == NULL) {
        return port_fail(err, PORT_E_NOMEM, "no memory for a tensor of %llu bytes", (unsigned long long)buffer->size_bytes);
    }
    buffer->data = memcpy((char *)buffer->memory + lead_bytes, buffer->data, (size_t)buffer->size_bytes);
    return PORT_OK;
}

port_view
tensor_view(const port_tensor *tensor)
{
    port_view view = {.data = tensor->buffer->data + tensor->offset_bytes, .dtype = tensor->dtype, .ndim = tensor->ndim};
    memcpy(view.shape, tensor->shape, sizeof view.shape);
    memcpy(view.strides, tensor->strides, sizeof view.strides);
    return view;
}

int64_t
tensor_elems(const port_tensor *tensor)
{
    int64_t elems = 1;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        elems *= tensor->shape[d];
    }
    return elems;
}

bool
tensor_is_contiguous(const port_tensor *tensor)
{
    port_view view = tensor_view(tensor);
    return port_view_is_contiguous(&view);
}

bool
tensor_is_dense(const port_tensor *tensor)
{
    if (tensor_is_contiguous(tensor)) {
        return true;
    }
    bool taken[PORT_MAX_NDIM] = {false};
    int64_t expected = 1;
    for (int32_t k = 0; k < tensor->ndim; k++) {
        int32_t best = -1;
        for (int32_t d = 0; d < tensor->ndim; d++) {
            if (!taken[d] && tensor->shape[d] >= 2 && (best < 0 || tensor->strides[d] < tensor->strides[best])) {
                best = d;
            }
        }
        if (best < 0) {
            return true;
        }
        if (tensor->strides[best] != expected) {
            return false;
        }
        taken[best] = true;
        expected *= tensor->shape[best];
    }
    return true;
}

bool
tensor_in_bounds(const port_tensor *tensor)
{
    int64_t last = 0, elems = 1; /* empty dimensions counted as 1 */
    bool empty = false;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        int64_t size = tensor->shape[d] > 0 ? tensor->shape[d] : 1;
        if (tensor->shape[d] < 0 || __builtin_mul_overflow(elems, size, &elems) || elems > MAX_ELEMS) {
            return false;
        }
    }
    for (int32_t d = 0; d < tensor->ndim; d++) {
        int64_t reach;
        if (tensor->strides[d] < 0 || tensor->strides[d] > INT64_MAX / 64 / elems) { /* so that views need not check products */
            return false;
        }
        empty = empty || tensor->shape[d] == 0;
        if (tensor->shape[d] > 0 && (__builtin_mul_overflow(tensor->shape[d] - 1, tensor->strides[d], &reach) ||
                                     __builtin_add_overflow(last, reach, &last))) {
            return false;
        }
    }
    int64_t end;
    if (tensor->offset_bytes < 0 || (uint64_t)tensor->offset_bytes > tensor->buffer->size_bytes) {
        return false;
    }
    if (empty) {
        return true;
    }
    int64_t size = (int64_t)port_dtype_size(tensor->dtype);
    return !__builtin_add_overflow(last, 1, &last) && !__builtin_mul_overflow(last, size, &last) &&
           !__builtin_add_overflow(last, tensor->offset_bytes, &end) && (uint64_t)end <= tensor->buffer->size_bytes;
}

bool
layout_extent(port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides, uint64_t *extent_bytes)
{
    int64_t last = 0;
    for (int32_t d = 0; d < ndim; d++) {
        int64_t reach;
        if (shape[d] < 1 || (shape[d] > 1 && (strides[d] < 0 || __builtin_mul_overflow(shape[d] - 1, strides[d], &reach) ||
                                              __builtin_add_overflow(last, reach, &last)))) {
            return false;
        }
    }
    return port_mul_u64((uint64_t)last + 1, port_dtype_size(dtype), extent_bytes);
}

bool
layout_is_affordable(uint64_t extent_bytes, uint64_t dense_bytes)
{
    return extent_bytes <= 4 * dense_bytes + MAX_GAP_BYTES;
}

void
dense_strides(int32_t ndim, const int64_t *shape, int64_t *strides)
{
    uint64_t stride = 1; /* wraps where a program lies about a shape, which is refused where it is used */
    for (int32_t d = ndim - 1; d >= 0; d--) {
        strides[d] = (int64_t)stride;
        stride *= shape[d] > 1 ? (uint64_t)shape[d] : 1;
    }
}

port_status
tensor_new(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides, port_tensor **out)
{
    int64_t elems;
    uint64_t bytes;
    char text[256];
    if (ndim > PORT_MAX_NDIM || !port_shape_bytes(dtype, ndim, shape, &elems, &bytes)) {
        return fail_op(call, PORT_E_SHAPE, "a tensor of shape %s cannot be",
                       shape_text(ndim < PORT_MAX_NDIM ? ndim : PORT_MAX_NDIM, shape, text, sizeof text));
    }
    port_tensor t = {.dtype = dtype, .ndim = ndim};
    if (ndim > 0) {
        memcpy(t.shape, shape, (size_t)ndim * sizeof *shape);
    }
    if (strides != NULL) {
        memcpy(t.strides, strides, (size_t)ndim * sizeof *strides);
    } else {
        dense_strides(ndim, shape, t.strides);
    }
    port_buffer *buffer = NULL;
    op_temp *temp = NULL;
    port_status status = buffer_new(bytes, 0, false, &buffer, call->err);
    if (status == PORT_OK) {
        t.buffer = buffer;
        temp = port_alloc(sizeof *temp);
        status = temp != NULL ? PORT_OK : port_fail(call->err, PORT_E_NOMEM, "no memory for a tensor");
    }
    if (status == PORT_OK && !tensor_in_bounds(&t)) {
        status = fail_op(call, PORT_E_SHAPE, "strides of a new tensor reach outside of it");
    }
    if (status != PORT_OK) {
        buffer_release(buffer);
        port_free(temp);
        return status;
    }
    *temp = (op_temp){t, call->temps};
    call->temps = temp;
    *out = &temp->tensor;
    return PORT_OK;
}

static bool
is_laid_out(const port_tensor *t, int32_t ndim, const int64_t *shape, const int64_t *strides)
{
    int64_t dense[PORT_MAX_NDIM];
    if (t->ndim != ndim || memcmp(t->shape, shape, (size_t)ndim * sizeof *shape) != 0) {
        return false;
    }
    dense_strides(ndim, shape, dense);
    return memcmp(t->strides, strides != NULL ? strides : dense, (size_t)ndim * sizeof *dense) == 0;
}

port_status
tensor_for_result(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides, port_tensor **out)
{
    const port_tensor *target = call->target;
    if (target != NULL && target->dtype == dtype && is_laid_out(target, ndim, shape, strides)) {
        return tensor_alias(call, target, out);
    }
    return tensor_new(call, dtype, ndim, shape, strides, out);
}

port_status
tensor_alias(op_call *call, const port_tensor *tensor, port_tensor **out)
{
    op_temp *temp = port_alloc(sizeof *temp);
    if (temp == NULL) {
        return port_fail(call->err, PORT_E_NOMEM, "no memory for a tensor");
    }
    *temp = (op_temp){*tensor, call->temps};
    temp->tensor.buffer->refs++;
    call->temps = temp;
    *out = &temp->tensor;
    return PORT_OK;
}

port_status
tensor_reshaped(op_call *call, const port_tensor *tensor, int32_t ndim, const int64_t *shape, port_tensor **out)
{
    port_status status = tensor_alias(call, tensor, out);
    if (status == PORT_OK) {
        (*out)->ndim = ndim;
        memcpy((*out)->shape, shape, (size_t)ndim * sizeof *shape);
        dense_strides(ndim, shape, (*out)->strides);
    }
    return status;
}

port_status
emit(op_call *call, const port_tensor *tensor)
{
    port_tensor result = *tensor;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        result.offset_bytes = tensor->shape[d] == 0 ? 0 : result.offset_bytes; /* a view of nothing may begin anywhere */
    }
    if (!tensor_in_bounds(&result)) {
        return fail_op(call, PORT_E_SHAPE, "its result would reach outside its memory");
    }
    if (call->num_out == MAX_RESULTS) {
        return fail_op(call, PORT_E_VALUE, "it has more than %zu results", MAX_RESULTS);
    }
    if (call->num_out == call->capacity_out) {
        size_t capacity = call->capacity_out > 0 ? 2 * call->capacity_out : 4;
        port_tensor *grown = port_realloc(call->out, capacity * sizeof *grown);
        if (grown == NULL) {
            return port_fail(call->err, PORT_E_NOMEM, "no memory for %zu results", capacity);
        }
        call->out = grown;
        call->capacity_out = capacity;
    }
    tensor->buffer->refs++;
    call->out[call->num_out++] = result;
    return PORT_OK;
}

/* The dimension along which `from` is dense where that is not the last one; -1 if it is not worth going by planes. */
static int32_t
plane_dim(const port_view *from)
{
    int32_t last = from->ndim - 1;
    for (int32_t d = 0; d < last; d++) {
        if (from->strides[d] == 1 && from->shape[d] >= PORT_PLANE_TILE && from->shape[last] >= PORT_PLANE_TILE && from->strides[last] != 1) {
            return d;
        }
    }
    return -1;
}

static void
copy_planes(const port_view *to, const port_view *from, int32_t row_dim, int64_t elems)
{
    int32_t last = to->ndim - 1;
    int64_t step = (int64_t)port_dtype_size(to->dtype), plane = to->shape[row_dim] * to->shape[last];
    for (int64_t k = 0; k < elems / plane; k++) {
        char *write = to->data;
        const char *read = from->data;
        int64_t rest = k;
        for (int32_t d = last - 1; d >= 0; d--) {
            if (d != row_dim) {
                write += rest % to->shape[d] * to->strides[d] * step;
                read += rest % to->shape[d] * from->strides[d] * step;
                rest /= to->shape[d];
            }
        }
        port_copy_plane(write, to->strides[row_dim] * step, to->strides[last] * step, read, from->strides[last] * step,
                   to->shape[row_dim], to->shape[last], (size_t)step);
    }
}

static void
copy_part(const port_view *to, const port_view *from)
{
    int64_t elems = port_view_elems(to);
    size_t size = port_dtype_size(to->dtype);
    if (port_view_is_contiguous(to) && port_view_is_contiguous(from)) {
        memcpy(to->data, from->data, (size_t)elems * size);
        return;
    }
    int64_t step = (int64_t)size, index[PORT_MAX_NDIM] = {0};
    int32_t last = to->ndim - 1; /* not contiguous, hence at least one dimension */
    int32_t row_dim = plane_dim(from);
    if (row_dim >= 0) {
        copy_planes(to, from, row_dim, elems);
        return;
    }
    int64_t run = to->shape[last];
    char *write = to->data;
    const char *read = from->data;
    for (int64_t done = 0; done < elems; done += run) {
        port_copy_run(write, to->strides[last] * step, read, from->strides[last] * step, run, size);
        for (int32_t d = last - 1; d >= 0; d--) {
            write += to->strides[d] * step;
            read += from->strides[d] * step;
            if (++index[d] < to->shape[d]) {
                break;
            }
            write -= to->strides[d] * to->shape[d] * step;
            read -= from->strides[d] * from->shape[d] * step;
            index[d] = 0;
        }
    }
}

/* Both sides, cut along one dimension. */
typedef struct copy_job {
    const port_view *to, *from;
    int32_t dim;
} copy_job;

static void
copy_range(const void *opaque, int64_t begin, int64_t end)
{
    const copy_job *job = opaque;
    port_view to = *job->to, from = *job->from;
    int64_t step = (int64_t)port_dtype_size(to.dtype);
    to.shape[job->dim] = from.shape[job->dim] = end - begin;
    to.data = (char *)to.data + begin * to.strides[job->dim] * step;
    from.data = (char *)from.data + begin * from.strides[job->dim] * step;
    copy_part(&to, &from);
}

void
swap_dims(int64_t *shape, int64_t *strides, int32_t a, int32_t b)
{
    int64_t size = shape[a], stride = strides[a];
    shape[a] = shape[b];
    strides[a] = strides[b];
    shape[b] = size;
    strides[b] = stride;
}

/* The dimensions of both in the order of `to` in memory. */
static void
order_dims(port_view *to, port_view *from)
{
    for (int32_t d = 1; d < to->ndim; d++) {
        for (int32_t k = d; k > 0 && to->strides[k - 1] < to->strides[k]; k--) {
            swap_dims(to->shape, to->strides, k - 1, k);
            swap_dims(from->shape, from->strides, k - 1, k);
        }
    }
}

void
copy_view(const op_call *call, const port_view *to, const port_view *from)
{
    port_view ordered_to = *to, ordered_from = *from;
    int32_t num_threads = call != NULL ? call->options->profile.num_threads : 1;
    int64_t elems = port_view_elems(to);
    copy_job job = {.to = &ordered_to, .from = &ordered_from};
    order_dims(&ordered_to, &ordered_from);
    while (job.dim < to->ndim - 1 && ordered_to.shape[job.dim] == 1) {
        job.dim++;
    }
    if (elems > 0 && to->ndim > 0 && num_threads > 1) {
        port_deal(ordered_to.shape[job.dim], elems / ordered_to.shape[job.dim], num_threads, copy_range, &job);
    } else if (elems > 0) {
        copy_part(&ordered_to, &ordered_from);
    }
}

port_status
tensor_contiguous(op_call *call, const port_tensor *tensor, const port_tensor **out)
{
    *out = tensor;
    if (tensor_is_contiguous(tensor)) {
        return PORT_OK;
    }
    port_tensor *copy;
    port_status status = tensor_new(call, tensor->dtype, tensor->ndim, tensor->shape, NULL, &copy);
    if (status == PORT_OK) {
        port_view to = tensor_view(copy), from = tensor_view(tensor);
        copy_view(call, &to, &from);
        *out = copy;
    }
    return status;
}

port_status
tensor_cast(op_call *call, const port_tensor *tensor, port_dtype dtype, const port_tensor **out)
{
    *out = tensor;
    if (tensor->dtype == dtype) {
        return PORT_OK;
    }
    if (tensor->dtype == PORT_C64 || dtype == PORT_C64) {
        return tensor_cast_complex(call, tensor, dtype, out);
    }
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(tensor, strides);
    port_tensor *made;
    port_status status = tensor_new(call, dtype, tensor->ndim, tensor->shape, strides, &made);
    if (status == PORT_OK) {
        status = launch_tensors(call, "cast", tensor->dtype, &tensor, 1, (const port_tensor *const[]){made}, 1, NULL);
        *out = made;
    }
    return status;
}

port_status
tensor_fill(op_call *call, const port_tensor *tensor, port_scalar value)
{
    port_fill_params params = {value};
    if (tensor->dtype == PORT_C64) {
        const port_tensor *number;
        port_status status = scalar_to_tensor(call, value, PORT_F32, &number);
        if (status == PORT_OK && (status = tensor_cast(call, number, PORT_C64, &number)) == PORT_OK) {
            port_view to = tensor_view(tensor), from = view_broadcast(number, tensor->ndim, tensor->shape);
            copy_view(call, &to, &from);
        }
        return status;
    }
    return launch_tensors(call, "fill", tensor->dtype, NULL, 0, &tensor, 1, &params);
}

port_status
scalar_to_tensor(op_call *call, port_scalar value, port_dtype dtype, const port_tensor **out)
{
    port_tensor *made;
    port_status status = tensor_new(call, dtype, 0, NULL, NULL, &made);
    if (status == PORT_OK) {
        status = tensor_fill(call, made, value);
        *out = made;
    }
    return status;
}

port_view
view_broadcast(const port_tensor *tensor, int32_t ndim, const int64_t *shape)
{
    port_view view = {.data = tensor->buffer->data + tensor->offset_bytes, .dtype = tensor->dtype, .ndim = ndim};
    int32_t lead = ndim - tensor->ndim;
    for (int32_t d = 0; d < ndim; d++) {
        view.shape[d] = shape[d];
        bool repeated = d < lead || (tensor->shape[d - lead] == 1 && shape[d] != 1);
        view.strides[d] = repeated ? 0 : tensor->strides[d - lead];
    }
    return view;
}

const char *
shape_text(int32_t ndim, const int64_t *shape, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (int32_t d = 0; d < ndim && used < text_bytes; d++) {
        int n = snprintf(text + used, text_bytes - used, "%s%lld", d > 0 ? ", " : "(", (long long)shape[d]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < text_bytes) {
        snprintf(text + used, text_bytes - used, ndim > 0 ? ")" : "()");
    }
    return text;
}

static port_status
fail_with(op_call *call, port_status status, const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    return port_fail(call->err, status, "%s: %s", call->name, text);
}

port_status
fail_op(op_call *call, port_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    status = fail_with(call, status, format, args);
    va_end(args);
    return status;
}

port_status
fail_unsupported(op_call *call, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    port_status status = fail_with(call, PORT_E_UNSUPPORTED, format, args);
    va_end(args);
    return status;
}
