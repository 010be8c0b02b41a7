/* image_ops.c -- ops over (N, C, ...): pooling, interpolation, sampling, batch_norm and group_norm.
 * A result has the memory format that the input suggests. BF16 and F16 are computed in F32 and rounded once. */
#include "exec.h"

static port_dtype
inner_dtype(port_dtype dtype)
{
    return dtype == PORT_F64 ? PORT_F64 : PORT_F32;
}

/* Integers as F64, where ops that choose elements are exact. Refuses those that F64 does not hold. */
static port_status
integers_as_f64(op_call *call, const port_tensor *t, const port_tensor **wide)
{
    const port_tensor *back;
    port_status status = tensor_cast(call, t, PORT_F64, wide);
    if (status != PORT_OK || t->dtype != PORT_I64 || (status = tensor_cast(call, *wide, PORT_I64, &back)) != PORT_OK ||
        (status = tensor_contiguous(call, back, &back)) != PORT_OK || (status = tensor_contiguous(call, t, &t)) != PORT_OK) {
        return status;
    }
    bool held = memcmp(tensor_view(back).data, tensor_view(t).data, (size_t)tensor_elems(t) * sizeof(int64_t)) == 0;
    return held ? PORT_OK : fail_unsupported(call, "integers beyond 2^53");
}

/* x in the dtype of computation with a batch dimension if it lacks one (`spatial` dimensions of space). chooses: the op
 * computes no new values, so that integers will do. */
static port_status
as_batch(op_call *call, int32_t spatial, bool chooses, port_tensor **x, bool *unbatched)
{
    const port_tensor *t = arg_tensor(call, 0);
    bool whole = chooses && dtype_is_integral(t->dtype);
    if ((!dtype_is_float(t->dtype) && !whole) || (t->ndim != spatial + 1 && t->ndim != spatial + 2)) {
        return fail_unsupported(call, "an input of %d dimensions of %s", t->ndim, port_dtype_name(t->dtype));
    }
    *unbatched = t->ndim == spatial + 1;
    port_status status = whole ? integers_as_f64(call, t, &t) : tensor_cast(call, t, inner_dtype(t->dtype), &t);
    if (status == PORT_OK && (status = tensor_alias(call, t, x)) == PORT_OK && *unbatched) {
        for (int32_t d = t->ndim; d > 0; d--) {
            (*x)->shape[d] = t->shape[d - 1];
            (*x)->strides[d] = t->strides[d - 1];
        }
        (*x)->shape[0] = 1;
        (*x)->strides[0] = t->ndim > 0 ? t->shape[0] * t->strides[0] : 1;
        (*x)->ndim = t->ndim + 1;
    }
    return status;
}

static port_status
new_frames(op_call *call, port_dtype dtype, const port_tensor *x, const int64_t *shape, bool unbatched, port_tensor **out)
{
    int64_t strides[PORT_MAX_NDIM];
    format_strides(x->ndim, shape, !unbatched && tensor_suggests_channels_last(x), strides);
    return tensor_new(call, dtype, x->ndim, shape, strides, out);
}

static port_status
emit_frames(op_call *call, const port_tensor *made, port_dtype dtype, bool unbatched)
{
    const port_tensor *result;
    port_tensor *seen;
    port_status status = tensor_cast(call, made, dtype, &result);
    if (status == PORT_OK && (status = tensor_alias(call, result, &seen)) == PORT_OK && unbatched) {
        seen->ndim--;
        for (int32_t d = 0; d < seen->ndim; d++) {
            seen->shape[d] = result->shape[d + 1];
            seen->strides[d] = result->strides[d + 1];
        }
    }
    return status == PORT_OK ? emit(call, seen) : status;
}

/* ------------------------------------------------------------------ pooling */

/* One number for all dimensions, one for each, or none: `if_none`. */
static port_status
read_each(op_call *call, int32_t idx, int32_t spatial, const int64_t *if_none, int64_t *to)
{
    int64_t len = arg_len(call, idx);
    if (len != 0 && len != 1 && len != spatial) {
        return fail_op(call, PORT_E_VALUE, "%lld numbers for %d dimensions", (long long)len, spatial);
    }
    for (int32_t d = 0; d < spatial; d++) {
        to[d] = len == 0 ? if_none[d] : arg_int_at(call, idx, len == 1 ? 0 : d);
        if (to[d] < 0 || to[d] > INT32_MAX) {
            return fail_op(call, PORT_E_VALUE, "a window, stride or padding of %lld", (long long)to[d]);
        }
    }
    return PORT_OK;
}

static int64_t
pooled_size(int64_t in, const port_pool_params *p, int32_t d, bool ceil_mode)
{
    int64_t room = in + 2 * p->padding[d] - p->dilation[d] * (p->kernel[d] - 1) - 1 + (ceil_mode ? p->stride[d] - 1 : 0);
    if (room < 0) {
        return 0;
    }
    int64_t size = room / p->stride[d] + 1;
    return ceil_mode && (size - 1) * p->stride[d] >= in + p->padding[d] ? size - 1 : size;
}

/* avg_pool: (self, kernel, stride, padding, ceil_mode, count_include_pad, divisor); max_pool: (.., padding, dilation, ceil_mode). */
static port_status
run_pool(op_call *call)
{
    static const int64_t ones[3] = {1, 1, 1}, zeros[3] = {0, 0, 0};
    bool max = strncmp(call->row->kernel, "max", 3) == 0, unbatched;
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : (strstr(call->row->name, "2d") != NULL ? 2 : 1);
    port_pool_params params = {.dilation = {1, 1, 1}};
    port_tensor *x, *out, *places = NULL;
    port_status status = read_each(call, 1, spatial, ones, params.kernel);
    if (status != PORT_OK || (status = read_each(call, 2, spatial, params.kernel, params.stride)) != PORT_OK ||
        (status = read_each(call, 3, spatial, zeros, params.padding)) != PORT_OK ||
        (max && (status = read_each(call, 4, spatial, ones, params.dilation)) != PORT_OK) ||
        (status = as_batch(call, spatial, max, &x, &unbatched)) != PORT_OK) {
        return status;
    }
    bool ceil_mode = arg_bool(call, max ? 5 : 4);
    params.count_include_pad = !max && arg_bool(call, 5);
    bool divided = !max && call->num_args > 6 && arg_given(call, 6);
    params.divisor = divided ? arg_int(call, 6) : 0;
    if (divided && params.divisor == 0) {
        return fail_op(call, PORT_E_VALUE, "divisor_override is 0; expected another number or None");
    }
    int64_t shape[PORT_MAX_NDIM] = {x->shape[0], x->shape[1]};
    for (int32_t d = 0; d < spatial; d++) {
        if (params.stride[d] < 1 || params.dilation[d] < 1 || params.kernel[d] < 1) {
            return fail_op(call, PORT_E_VALUE, "windows, strides and dilations are at least 1");
        }
        shape[2 + d] = pooled_size(x->shape[2 + d], &params, d, ceil_mode);
    }
    if ((status = new_frames(call, x->dtype, x, shape, unbatched, &out)) != PORT_OK ||
        (max && (status = new_frames(call, PORT_I64, x, shape, unbatched, &places)) != PORT_OK) ||
        (status = launch_tensors(call, call->row->kernel, x->dtype, (const port_tensor *const[]){x}, 1,
                                 (const port_tensor *const[]){out, places}, max ? 2 : 1, &params)) != PORT_OK) {
        return status;
    }
    status = emit_frames(call, out, arg_tensor(call, 0)->dtype, unbatched);
    return status == PORT_OK && max ? emit_frames(call, places, PORT_I64, unbatched) : status;
}

/* _adaptive_avg_pool2d, _adaptive_avg_pool3d (self, output_size). */
static port_status
run_adaptive_pool(op_call *call)
{
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : 2;
    bool unbatched;
    port_pool_params params = {.given = arg_tensor(call, 0)->dtype};
    port_tensor *x, *out;
    port_status status = as_batch(call, spatial, false, &x, &unbatched);
    if (status == PORT_OK && arg_len(call, 1) != spatial) {
        return fail_op(call, PORT_E_VALUE, "%lld sizes for %d dimensions", (long long)arg_len(call, 1), spatial);
    }
    if (status != PORT_OK) {
        return status;
    }
    int64_t shape[PORT_MAX_NDIM] = {x->shape[0], x->shape[1]};
    for (int32_t d = 0; d < spatial; d++) {
        shape[2 + d] = arg_int_at(call, 1, d);
    }
    if ((status = new_frames(call, x->dtype, x, shape, unbatched, &out)) != PORT_OK ||
        (status = launch_tensors(call, "adaptive_avg_pool", x->dtype, (const port_tensor *const[]){x}, 1,
                                 (const port_tensor *const[]){out}, 1, &params)) != PORT_OK) {
        return status;
    }
    return emit_frames(call, out, arg_tensor(call, 0)->dtype, unbatched);
}

/* ------------------------------------------------------------------ interpolation */

/* Dense, its channels side by side. */
static bool
is_channels_last(const port_tensor *t)
{
    int64_t strides[PORT_MAX_NDIM];
    bool same = true;
    format_strides(t->ndim, t->shape, true, strides);
    for (int32_t d = 0; d < t->ndim; d++) {
        same = same && (t->shape[d] == 1 || t->strides[d] == strides[d]);
    }
    return same;
}

/* upsample_<mode><dimensions>(self, output_size, [align_corners,] scales...). */
static port_status
run_resize(op_call *call)
{
    const char *name = call->row->name;
    bool nearest = strstr(name, "nearest") != NULL, unbatched;
    port_resize_params params = {.mode = nearest ? PORT_RESIZE_NEAREST : PORT_RESIZE_LINEAR};
    params.mode = strstr(name, "exact") != NULL ? PORT_RESIZE_NEAREST_EXACT : params.mode;
    params.mode = strstr(name, "bicubic") != NULL ? PORT_RESIZE_CUBIC : params.mode;
    int32_t spatial = strstr(name, "3d") != NULL ? 3 : (strstr(name, "2d") != NULL ? 2 : 1), first = nearest ? 2 : 3;
    params.align_corners = !nearest && arg_bool(call, 2);
    port_tensor *x, *out;
    port_status status = as_batch(call, spatial, nearest, &x, &unbatched);
    if (status != PORT_OK) {
        return status;
    }
    if (unbatched || arg_len(call, 1) != spatial || call->num_args != first + spatial) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, ...) and %d sizes", spatial);
    }
    int64_t shape[PORT_MAX_NDIM] = {x->shape[0], x->shape[1]};
    for (int32_t d = 0; d < spatial; d++) {
        shape[2 + d] = arg_int_at(call, 1, d);
        params.factor[d] = arg_double(call, first + d, 0.0);
    }
    bool small = spatial == 2 && shape[2] >= 0 && shape[2] <= 128 && shape[3] <= 128 - shape[2]; /* one dimension after the other beyond that, where rows are dense */
    params.corners = params.mode == PORT_RESIZE_LINEAR && spatial > 1 &&
                     (small || (spatial == 2 && shape[1] == 3 && call->options->profile.num_threads == 1) ||
                      (shape[1] > 3 && is_channels_last(arg_tensor(call, 0))));
    params.given = arg_tensor(call, 0)->dtype;
    if ((status = new_frames(call, x->dtype, x, shape, false, &out)) != PORT_OK ||
        (status = launch_tensors(call, "resize", x->dtype, (const port_tensor *const[]){x}, 1, (const port_tensor *const[]){out}, 1,
                                 &params)) != PORT_OK) {
        return status;
    }
    return emit_frames(call, out, arg_tensor(call, 0)->dtype, false);
}

/* ------------------------------------------------------------------ norms over channels */

/* native_group_norm(input, weight, bias, N, C, HxW, group, eps): result, mean, rstd. */
static port_status
run_group_norm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *in[3] = {x, arg_tensor(call, 1), arg_tensor(call, 2)}, *result;
    port_group_params params = {arg_int(call, 6), arg_double(call, 7, 1e-5), tensor_suggests_channels_last(x), x->dtype};
    int64_t strides[PORT_MAX_NDIM], shape[2] = {x->shape[0], params.groups};
    port_tensor *out[3];
    if (x->ndim < 2 || !dtype_is_float(x->dtype) || params.groups < 1) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, ...) in groups, got %d dimensions of %s", x->ndim, port_dtype_name(x->dtype));
    }
    port_dtype inner = inner_dtype(x->dtype);
    bool mixed = (in[1] != NULL && in[1]->dtype == PORT_F32) || (in[2] != NULL && in[2]->dtype == PORT_F32); /* or all are F32 */
    port_dtype affine = mixed && inner == PORT_F32 ? PORT_F32 : x->dtype;
    port_status status = PORT_OK;
    for (int32_t k = 0; status == PORT_OK && k < 3; k++) {
        if (k > 0 && in[k] != NULL && in[k]->dtype != affine) {
            return fail_op(call, PORT_E_DTYPE, "a weight or bias of %s for an input of %s; expected %s", port_dtype_name(in[k]->dtype),
                           port_dtype_name(x->dtype), port_dtype_name(affine));
        }
        status = in[k] != NULL ? tensor_cast(call, in[k], inner, &in[k]) : PORT_OK;
    }
    format_strides(x->ndim, x->shape, params.channels_last, strides);
    if (status != PORT_OK || (status = tensor_new(call, inner, x->ndim, x->shape, strides, &out[0])) != PORT_OK ||
        (status = tensor_new(call, inner, 2, shape, NULL, &out[1])) != PORT_OK ||
        (status = tensor_new(call, inner, 2, shape, NULL, &out[2])) != PORT_OK ||
        (status = launch_tensors(call, "group_norm", inner, in, 3, (const port_tensor *const[]){out[0], out[1], out[2]}, 3, &params)) !=
            PORT_OK) {
        return status;
    }
    for (int32_t k = 0; status == PORT_OK && k < 3; k++) {
        status = tensor_cast(call, out[k], k > 0 && mixed ? PORT_F32 : x->dtype, &result);
        status = status == PORT_OK ? emit(call, result) : status;
    }
    return status;
}

#define AVG ", A kernel_size, A stride=[], A padding=0, B ceil_mode=False, B count_include_pad=True"
#define MAX ", A kernel_size, A stride=[], A padding=0, A dilation=1, B ceil_mode=False"
#define STATISTICS "T input, T? weight, T? bias, "

const op_row op_image_rows[] = {
    {"avg_pool1d", "T self" AVG, run_pool, "avg_pool", 0, 0},
    {"avg_pool2d", "T self" AVG ", I? divisor_override=None", run_pool, "avg_pool", 0, 0},
    {"avg_pool3d", "T self" AVG ", I? divisor_override=None", run_pool, "avg_pool", 0, 0},
    {"max_pool2d_with_indices", "T self" MAX, run_pool, "max_pool", 0, 0},
    {"max_pool3d_with_indices", "T self" MAX, run_pool, "max_pool", 0, 0},
    {"_adaptive_avg_pool2d", "T self, A output_size", run_adaptive_pool, "adaptive_avg_pool", 0, 0},
    {"_adaptive_avg_pool3d", "T self, A output_size", run_adaptive_pool, "adaptive_avg_pool", 0, 0},
    {"upsample_nearest1d", "T self, A output_size, F? scales=None", run_resize, "resize", 0, 0},
    {"upsample_nearest2d", "T self, A output_size, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"upsample_nearest3d", "T self, A output_size, F? scales_d=None, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"_upsample_nearest_exact1d", "T self, A output_size, F? scales=None", run_resize, "resize", 0, 0},
    {"_upsample_nearest_exact3d", "T self, A output_size, F? scales_d=None, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"_upsample_nearest_exact2d", "T self, A output_size, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"upsample_linear1d", "T self, A output_size, B align_corners, F? scales=None", run_resize, "resize", 0, 0},
    {"upsample_bilinear2d", "T self, A output_size, B align_corners, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"upsample_bicubic2d", "T self, A output_size, B align_corners, F? scales_h=None, F? scales_w=None", run_resize, "resize", 0, 0},
    {"upsample_trilinear3d", "T self, A output_size, B align_corners, F? scales_d=None, F? scales_h=None, F? scales_w=None", run_resize,
     "resize", 0, 0},
    {"native_group_norm", STATISTICS "I N, I C, I HxW, I group, F eps", run_group_norm, "group_norm", 0, 0},
    {.name = NULL},
};
