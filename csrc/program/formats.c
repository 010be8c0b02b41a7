/* formats.c -- memory formats: which one a tensor suggests, and tensors in one (PyTorch's rules, BSD-3-Clause; restated). */
#include "exec.h"

bool
tensor_suggests_channels_last(const port_tensor *t)
{
    if (t->ndim != 4 && t->ndim != 5) {
        return false;
    }
    int64_t least = 0;
    if (t->strides[1] == 0) {
        return false;
    }
    for (int32_t k = 0; k < t->ndim; k++) { /* channels, then the last dimension inwards, the batch at the end */
        int32_t d = k == 0 ? 1 : (k == t->ndim - 1 ? 0 : t->ndim - k);
        if (t->shape[d] == 0 || t->strides[d] < least || (d == 0 && least == t->strides[1])) {
            return false;
        }
        least = t->shape[d] > 1 ? t->strides[d] * t->shape[d] : t->strides[d];
    }
    return true;
}

void
format_strides(int32_t ndim, const int64_t *shape, bool channels_last, int64_t *strides)
{
    if (!channels_last) {
        dense_strides(ndim, shape, strides);
        return;
    }
    uint64_t step = 1; /* wraps, as in dense_strides */
    for (int32_t k = 0; k < ndim; k++) {
        int32_t d = k == 0 ? 1 : (k == ndim - 1 ? 0 : ndim - k);
        strides[d] = (int64_t)step;
        step *= shape[d] > 1 ? (uint64_t)shape[d] : 1;
    }
}

port_status
strides_of_format(op_call *call, const port_tensor *like, int64_t format, int64_t *strides)
{
    int32_t ndim = format == PORT_FORMAT_CHANNELS_LAST ? 4 : (format == PORT_FORMAT_CHANNELS_LAST_3D ? 5 : like->ndim);
    if (like->ndim != ndim) {
        return fail_op(call, PORT_E_SHAPE, "channels last needs %d dimensions, the tensor has %d", ndim, like->ndim);
    }
    if (format == PORT_FORMAT_PRESERVE) {
        preserve_strides(like, strides);
    } else {
        format_strides(ndim, like->shape, format != PORT_FORMAT_CONTIGUOUS, strides);
    }
    return PORT_OK;
}

port_status
tensor_in_format(op_call *call, const port_tensor *t, bool channels_last, const port_tensor **out)
{
    int64_t strides[PORT_MAX_NDIM];
    format_strides(t->ndim, t->shape, channels_last, strides);
    bool same = true;
    for (int32_t d = 0; d < t->ndim; d++) {
        same = same && (t->shape[d] == 1 || t->strides[d] == strides[d]);
    }
    *out = t;
    if (same) {
        return PORT_OK;
    }
    port_tensor *made;
    port_status status = tensor_new(call, t->dtype, t->ndim, t->shape, strides, &made);
    if (status == PORT_OK) {
        port_view to = tensor_view(made), from = tensor_view(t);
        copy_view(call, &to, &from);
        *out = made;
    }
    return status;
}
