/* view.c -- shapes and strided views: sizes with overflow checks, and copying into row-major order. */
#include "core.h"

port_view
port_view_contiguous(void *data, port_dtype dtype, int32_t ndim, const int64_t *shape)
{
    port_view view = {.data = data, .dtype = dtype, .ndim = ndim};
    int64_t stride = 1;
    for (int32_t d = ndim - 1; d >= 0; d--) {
        view.shape[d] = shape[d];
        view.strides[d] = stride;
        stride *= shape[d] > 0 ? shape[d] : 1;
    }
    return view;
}

int64_t
port_view_elems(const port_view *view)
{
    int64_t elems = 1;
    for (int32_t d = 0; d < view->ndim; d++) {
        elems *= view->shape[d];
    }
    return elems;
}

bool
port_shape_bytes(port_dtype dtype, int32_t ndim, const int64_t *shape, int64_t *elems, uint64_t *bytes)
{
    size_t size_bytes = port_dtype_size(dtype);
    if (size_bytes == 0 || ndim < 0 || ndim > PORT_MAX_NDIM) {
        return false;
    }
    int64_t nonzero = 1; /* product with zeros taken as one: strides are made from it, so it must fit too */
    bool empty = false;
    for (int32_t d = 0; d < ndim; d++) {
        if (shape[d] < 0 || (shape[d] > 0 && __builtin_mul_overflow(nonzero, shape[d], &nonzero))) {
            return false;
        }
        empty = empty || shape[d] == 0;
    }
    int64_t total;
    if (__builtin_mul_overflow(nonzero, (int64_t)size_bytes, &total)) {
        return false;
    }
    *elems = empty ? 0 : nonzero;
    *bytes = empty ? 0 : (uint64_t)total;
    return true;
}

bool
port_view_is_contiguous(const port_view *view)
{
    int64_t expected = 1;
    for (int32_t d = view->ndim - 1; d >= 0; d--) {
        if (view->shape[d] == 0) {
            return true;
        }
        if (view->shape[d] != 1) {
            if (view->strides[d] != expected) {
                return false;
            }
            expected *= view->shape[d];
        }
    }
    return true;
}

static void
copy_row(char *out, const char *in, int64_t elems, int64_t stride_bytes, size_t size_bytes)
{
    switch (size_bytes) {
    case 1:
        for (int64_t i = 0; i < elems; i++) {
            out[i] = in[i * stride_bytes];
        }
        break;
    case 2:
        for (int64_t i = 0; i < elems; i++) {
            memcpy(out + 2 * i, in + i * stride_bytes, 2);
        }
        break;
    case 4:
        for (int64_t i = 0; i < elems; i++) {
            memcpy(out + 4 * i, in + i * stride_bytes, 4);
        }
        break;
    default:
        for (int64_t i = 0; i < elems; i++) {
            memcpy(out + 8 * i, in + i * stride_bytes, 8);
        }
    }
}

void
port_view_gather(const port_view *view, void *out)
{
    int64_t elems = port_view_elems(view);
    size_t size_bytes = port_dtype_size(view->dtype);
    if (elems == 0) {
        return;
    }
    if (port_view_is_contiguous(view)) {
        memcpy(out, view->data, (size_t)elems * size_bytes);
        return;
    }
    /* Rows are the last dimensions that lie densely; the rest is walked like an odometer. */
    int32_t outer = view->ndim;
    int64_t row = 1;
    while (outer > 0 && (view->shape[outer - 1] == 1 || view->strides[outer - 1] == row)) {
        row *= view->shape[--outer];
    }
    int64_t row_stride = 1;
    if (row == 1 && outer > 0) {
        outer--;
        row = view->shape[outer];
        row_stride = view->strides[outer];
    }
    int64_t index[PORT_MAX_NDIM] = {0};
    const char *in = view->data;
    char *to = out;
    int64_t step = (int64_t)size_bytes;
    for (int64_t done = 0; done < elems; done += row) {
        if (row_stride == 1) {
            memcpy(to, in, (size_t)row * size_bytes);
        } else {
            copy_row(to, in, row, row_stride * step, size_bytes);
        }
        to += row * step;
        for (int32_t d = outer - 1; d >= 0; d--) {
            in += view->strides[d] * step;
            if (++index[d] < view->shape[d]) {
                break;
            }
            in -= view->strides[d] * view->shape[d] * step;
            index[d] = 0;
        }
    }
}
