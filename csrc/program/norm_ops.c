/* norm_ops.c -- normalisation over the last dimensions. */
#include "exec.h"

/* Checks normalized_shape against x's last dimensions, weight and bias, which have x's dtype, or `mixed` F32 beside halves. */
static port_status
check_norm(op_call *call, const port_tensor *x, int32_t shape_idx, const port_tensor *const *affine, int32_t num_affine, bool mixed)
{
    int64_t len = arg_len(call, shape_idx);
    bool fits = len >= 1 && len <= x->ndim;
    for (int32_t d = 0; fits && d < len; d++) {
        fits = arg_int_at(call, shape_idx, d) == x->shape[x->ndim - (int32_t)len + d];
    }
    for (int32_t k = 0; fits && k < num_affine; k++) {
        fits = affine[k] == NULL || affine[k]->ndim == len;
        for (int32_t d = 0; fits && affine[k] != NULL && d < len; d++) {
            fits = affine[k]->shape[d] == x->shape[x->ndim - (int32_t)len + d];
        }
        if (affine[k] != NULL && affine[k]->dtype != (mixed ? PORT_F32 : x->dtype)) {
            return fail_unsupported(call, "a weight of %s for an input of %s", port_dtype_name(affine[k]->dtype),
                                    port_dtype_name(x->dtype));
        }
    }
    return fits ? PORT_OK : fail_op(call, PORT_E_SHAPE, "normalized_shape, weight and bias must have the input's last dimensions");
}

/* native_layer_norm (three results), layer_norm (the first). */
static port_status
run_layer_norm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *in[3] = {NULL, arg_tensor(call, 2), arg_tensor(call, 3)};
    bool mixed = (x->dtype == PORT_BF16 || x->dtype == PORT_F16) && ((in[1] != NULL && in[1]->dtype == PORT_F32) || (in[2] != NULL && in[2]->dtype == PORT_F32));
    port_status status = check_norm(call, x, 1, in + 1, 2, mixed);
    for (int32_t k = 1; status == PORT_OK && k < 3; k++) {
        status = in[k] != NULL ? tensor_contiguous(call, in[k], &in[k]) : PORT_OK;
    }
    if (status != PORT_OK || (status = tensor_contiguous(call, x, &in[0])) != PORT_OK) {
        return status;
    }
    port_norm_params params = {(int32_t)arg_len(call, 1), arg_double(call, 4, 1e-5)};
    int64_t shape[PORT_MAX_NDIM];
    for (int32_t d = 0; d < x->ndim; d++) {
        shape[d] = d < x->ndim - params.normalized_ndim ? x->shape[d] : 1;
    }
    port_tensor *out[3];
    if ((status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &out[0])) != PORT_OK ||
        (status = tensor_new(call, mixed ? PORT_F32 : x->dtype, x->ndim, shape, NULL, &out[1])) != PORT_OK ||
        (status = tensor_new(call, mixed ? PORT_F32 : x->dtype, x->ndim, shape, NULL, &out[2])) != PORT_OK) {
        return status;
    }
    status = launch_tensors(call, "layer_norm", x->dtype, in, 3, (const port_tensor *const[]){out[0], out[1], out[2]}, 3, &params);
    int32_t results = strcmp(call->row->name, "layer_norm") == 0 ? 1 : 3;
    for (int32_t k = 0; status == PORT_OK && k < results; k++) {
        status = emit(call, out[k]);
    }
    return status;
}

static port_status
run_rms_norm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *in[2] = {NULL, arg_tensor(call, 2)};
    port_status status = check_norm(call, x, 1, in + 1, 1, false);
    if (status == PORT_OK && in[1] != NULL) {
        status = tensor_contiguous(call, in[1], &in[1]);
    }
    if (status != PORT_OK || (status = tensor_contiguous(call, x, &in[0])) != PORT_OK) {
        return status;
    }
    /* Without eps torch takes the dtype's machine epsilon. */
    double epsilon = x->dtype == PORT_F64 ? 0x1p-52 : (x->dtype == PORT_F16 ? 0x1p-10 : (x->dtype == PORT_BF16 ? 0x1p-7 : 0x1p-23));
    port_norm_params params = {(int32_t)arg_len(call, 1), arg_double(call, 3, epsilon)};
    port_tensor *out;
    status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &out);
    if (status == PORT_OK) {
        status = launch_tensors(call, "rms_norm", x->dtype, in, 2, (const port_tensor *const[]){out}, 1, &params);
    }
    return status == PORT_OK ? emit(call, out) : status;
}

const op_row op_norm_rows[] = {
    {"native_layer_norm", "T input, A normalized_shape, T? weight, T? bias, F eps", run_layer_norm, "layer_norm", 0, 0},
    {"layer_norm", "T input, A normalized_shape, T? weight=None, T? bias=None, F eps=1e-5, B cudnn_enable=True", run_layer_norm,
     "layer_norm", 0, 0},
    {"rms_norm", "T input, A normalized_shape, T? weight=None, F? eps=None", run_rms_norm, "rms_norm", 0, 0},
    {.name = NULL},
};
