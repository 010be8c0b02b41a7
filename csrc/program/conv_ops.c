/* conv_ops.c -- convolution. BF16 that oneDNN takes is computed in F32 and rounded once. */
#include "exec.h"

/* One number for all dimensions, or one for each. */
static port_status
read_each(op_call *call, int32_t idx, int32_t spatial, int64_t *to)
{
    int64_t len = arg_len(call, idx);
    if (len != 1 && len != spatial) {
        return fail_op(call, PORT_E_VALUE, "%lld numbers for %d dimensions", (long long)len, spatial);
    }
    for (int32_t d = 0; d < spatial; d++) {
        to[d] = arg_int_at(call, idx, len == 1 ? 0 : d);
        if (to[d] < 0 || to[d] > INT32_MAX) {
            return fail_op(call, PORT_E_VALUE, "a stride, padding or dilation of %lld", (long long)to[d]);
        }
    }
    return PORT_OK;
}

static port_status
read_params(op_call *call, int32_t spatial, port_conv_params *p)
{
    port_status status = read_each(call, 3, spatial, p->stride);
    if (status == PORT_OK) {
        status = read_each(call, 4, spatial, p->padding);
    }
    if (status == PORT_OK) {
        status = read_each(call, 5, spatial, p->dilation);
    }
    if (status == PORT_OK) {
        status = read_each(call, 7, spatial, p->output_padding);
    }
    p->transposed = arg_bool(call, 6);
    p->groups = arg_int(call, 8);
    for (int32_t d = 0; status == PORT_OK && d < spatial; d++) {
        if (p->stride[d] < 1 || p->dilation[d] < 1) {
            return fail_op(call, PORT_E_VALUE, "strides and dilations are at least 1");
        }
    }
    return status;
}

static port_status
out_shape(op_call *call, const port_tensor *x, const port_tensor *w, const port_conv_params *p, int64_t *shape)
{
    char a[200], b[200];
    int64_t least = w->shape[0] > 1 ? w->shape[0] : 1;
    bool fits = p->groups >= 1 && p->groups <= least && w->shape[0] % p->groups == 0 &&
                x->shape[1] == (p->transposed ? w->shape[0] : w->shape[1] * p->groups);
    shape[0] = x->shape[0];
    shape[1] = p->transposed && fits ? w->shape[1] * p->groups : w->shape[0];
    for (int32_t d = 0; fits && d < x->ndim - 2; d++) {
        int64_t kernel = w->shape[2 + d], size = x->shape[2 + d];
        fits = kernel >= 1 && size >= 1 && kernel <= INT32_MAX && size <= INT32_MAX; /* so that products stay below 2^62 */
        int64_t reach = fits ? p->dilation[d] * (kernel - 1) + 1 : 0;
        fits = fits && (p->transposed || size + 2 * p->padding[d] >= reach);
        if (fits) {
            shape[2 + d] = p->transposed ? (size - 1) * p->stride[d] - 2 * p->padding[d] + reach + p->output_padding[d]
                                         : (size + 2 * p->padding[d] - reach) / p->stride[d] + 1;
            fits = shape[2 + d] >= 1;
        }
    }
    return fits ? PORT_OK
                : fail_op(call, PORT_E_SHAPE, "an input of shape %s does not fit a weight of shape %s in %lld groups",
                          shape_text(x->ndim, x->shape, a, sizeof a), shape_text(w->ndim, w->shape, b, sizeof b),
                          (long long)p->groups);
}

/* Whether oneDNN takes halves: BF16 where the processor has AVX-512; of F16 it asks for more, which no profile has. */
static bool
takes_halves(const op_call *call, port_dtype dtype, int32_t spatial, const port_conv_params *p)
{
    const port_profile *profile = &call->options->profile;
    bool taken = dtype == PORT_BF16 && profile->mkldnn && profile->onednn_avx512;
    for (int32_t d = 0; d < spatial; d++) {
        taken = taken && !(p->transposed && p->output_padding[d] >= p->stride[d]);
    }
    return taken;
}

/* Whether the reference leaves this convolution to oneDNN (at::native ConvParams::use_mkldnn), in code whose order of summation is known.
 * Of a single image in F32 only what is large or has groups goes there. */
static bool
goes_to_onednn(const op_call *call, const port_tensor *x, const port_tensor *w, const port_conv_params *p)
{
    const port_profile *profile = &call->options->profile;
    int32_t spatial = x->ndim - 2;
    if (x->dtype == PORT_BF16 && profile->onednn_bf16 && !p->transposed) {
        return takes_halves(call, x->dtype, spatial, p) && tensor_elems(x) > 0;
    }
    if (!profile->mkldnn || !profile->onednn_avx512 || x->dtype != PORT_F32) {
        return false;
    }
    bool strided = false, dilated = false;
    for (int32_t d = 0; d < spatial; d++) {
        if (p->transposed && p->output_padding[d] >= p->stride[d]) {
            return false;
        }
        strided = strided || p->stride[d] != 1;
        dilated = dilated || p->dilation[d] != 1;
    }
    /* One dimension is seen as two, the first of size 1. */
    int64_t kw = w->shape[w->ndim - 1], kh = spatial >= 2 ? w->shape[w->ndim - 2] : 1;
    int64_t elems = spatial == 3 ? tensor_elems(x) / (x->shape[4] > 0 ? x->shape[4] : 1) : tensor_elems(x); /* it counts four dimensions */
    bool worth = strided || dilated || x->shape[0] >= 16 || kw != 1 || kh != 1 || profile->num_threads > 1;
    bool large = p->groups > 1 || (kw > 3 && kh > 3) || x->shape[0] > 1 || elems > 20480;
    return worth && large && tensor_elems(x) > 0;
}

/* Whether an image is one pixel, of which row-major and channels-last are the same memory, and its strides do not say channels-last;
 * without groups oneDNN takes row-major code. */
static bool
is_plain_pixel(const port_tensor *x)
{
    return tensor_elems(x) == x->shape[0] * x->shape[1] && x->strides[x->ndim - 1] != x->shape[1];
}

static port_status
by_onednn(op_call *call, const port_tensor *const *in, const port_conv_params *p, const int64_t *shape, port_tensor **y)
{
    const port_tensor *dense[3] = {NULL, NULL, NULL}, *result;
    int32_t ndim = in[0]->ndim;
    port_onednn_conv_params params = {.conv = *p, .nhwc = p->channels_last && (p->groups > 1 || !is_plain_pixel(in[0]))};
    port_dtype dtype = in[0]->dtype;
    params.paired = dtype == PORT_BF16;
    port_tensor *out;
    port_status status = PORT_OK;
    for (int32_t k = 0; status == PORT_OK && k < 3; k++) {
        if (in[k] != NULL && (status = tensor_cast(call, in[k], PORT_F32, &dense[k])) == PORT_OK) {
            status = tensor_contiguous(call, dense[k], &dense[k]);
        }
    }
    const char *kernel = p->transposed ? "onednn_deconvolution" : "onednn_convolution";
    if (status != PORT_OK || (status = tensor_new(call, PORT_F32, ndim, shape, NULL, &out)) != PORT_OK ||
        (status = launch_tensors(call, kernel, PORT_F32, dense, 3, (const port_tensor *const[]){out}, 1,
                                 p->transposed ? (const void *)p : &params)) != PORT_OK ||
        (status = tensor_cast(call, out, dtype, &result)) != PORT_OK ||
        (status = tensor_in_format(call, result, p->channels_last, &result)) != PORT_OK ||
        (status = tensor_alias(call, result, y)) != PORT_OK) {
        return status;
    }
    format_strides(ndim, shape, p->channels_last, (*y)->strides); /* of dimensions of size 1 too: they decide later formats */
    return PORT_OK;
}

/* The tensor with a dimension of size 1 before its last one, as torch adds it. */
static port_status
with_height(op_call *call, const port_tensor *t, port_tensor **out)
{
    port_status status = tensor_alias(call, t, out);
    if (status == PORT_OK) {
        port_tensor *seen = *out;
        seen->shape[3] = seen->shape[2];
        seen->strides[3] = seen->strides[2];
        seen->strides[2] *= seen->shape[2];
        seen->shape[2] = 1;
        seen->ndim = 4;
    }
    return status;
}

/* torch makes signals row-major and adds a dimension to them and to their weight. Where strides then say channels-last (of a weight that is
 * a view of a linear layer's, of a signal of one place or channel), torch takes that code: so are they convolved here, where `in` and the
 * parameters become those of two dimensions. */
static port_status
as_plane(op_call *call, const port_tensor **in, port_conv_params *p, bool *widened)
{
    const port_tensor *dense;
    port_tensor *plane, *weight;
    *widened = false;
    if (in[0]->ndim != 3) {
        return PORT_OK;
    }
    port_status status = tensor_contiguous(call, in[0], &dense);
    if (status != PORT_OK || (status = with_height(call, dense, &plane)) != PORT_OK || (status = with_height(call, in[1], &weight)) != PORT_OK ||
        (!tensor_suggests_channels_last(plane) && !tensor_suggests_channels_last(weight))) {
        return status;
    }
    in[0] = plane;
    in[1] = weight;
    int64_t *lists[] = {p->stride, p->padding, p->dilation, p->output_padding};
    for (int32_t k = 0; k < 4; k++) {
        lists[k][1] = lists[k][0];
        lists[k][0] = k % 2 == 0;
    }
    *widened = true;
    return PORT_OK;
}

/* The convolution of in[0] by in[1] with in[2] or NULL as bias; dtypes and numbers of dimensions go together. */
static port_status
convolve(op_call *call, const port_tensor *const *given, port_conv_params *p, port_tensor **y)
{
    const port_tensor *in[3] = {given[0], given[1], given[2]}, *x = in[0], *w = in[1], *result;
    port_dtype dtype = x->dtype, inner = dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    port_tensor *out;
    port_status status = out_shape(call, x, w, p, shape);
    if (status != PORT_OK) {
        return status;
    }
    bool narrow = dtype == PORT_F16 || dtype == PORT_BF16, own = narrow && !takes_halves(call, dtype, x->ndim - 2, p);
    bool onednn = goes_to_onednn(call, x, w, p);
    bool volume = x->ndim == 5 && !onednn && (!narrow || own); /* torch's own three-dimensional ones are row-major */
    p->halves = own ? dtype : PORT_F32;
    p->channels_last = !volume && (tensor_suggests_channels_last(x) || tensor_suggests_channels_last(w));
    if (onednn) {
        return by_onednn(call, in, p, shape, y);
    }
    for (int32_t k = 0; status == PORT_OK && k < 3; k++) {
        if (in[k] != NULL && (status = tensor_cast(call, in[k], inner, &in[k])) == PORT_OK) {
            status = tensor_in_format(call, in[k], p->channels_last && k < 2, &in[k]);
        }
    }
    format_strides(x->ndim, shape, p->channels_last, strides);
    if (status != PORT_OK || (status = tensor_new(call, inner, x->ndim, shape, strides, &out)) != PORT_OK ||
        (status = launch_tensors(call, "convolution", inner, in, 3, (const port_tensor *const[]){out}, 1, p)) != PORT_OK ||
        (status = tensor_cast(call, out, dtype, &result)) != PORT_OK) {
        return status;
    }
    return tensor_alias(call, result, y);
}

static port_status
run_convolution(op_call *call)
{
    const port_tensor *in[3] = {arg_tensor(call, 0), arg_tensor(call, 1), arg_tensor(call, 2)};
    const port_tensor *x = in[0], *w = in[1];
    port_conv_params params = {.transposed = false};
    int64_t shape[PORT_MAX_NDIM];
    port_tensor *y;
    bool widened;
    if (x->ndim < 3 || x->ndim > 5 || w->ndim != x->ndim || w->dtype != x->dtype || !dtype_is_float(x->dtype)) {
        return fail_unsupported(call, "an input of %d dimensions (%s) with a weight of %d (%s)", x->ndim, port_dtype_name(x->dtype),
                                w->ndim, port_dtype_name(w->dtype));
    }
    port_status status = read_params(call, x->ndim - 2, &params);
    if (status != PORT_OK || (status = out_shape(call, x, w, &params, shape)) != PORT_OK ||
        (status = as_plane(call, in, &params, &widened)) != PORT_OK ||
        (status = convolve(call, in, &params, &y)) != PORT_OK) {
        return status;
    }
    if (widened) {
        y->ndim = 3;
        y->shape[2] = y->shape[3];
        y->strides[2] = y->strides[3];
    }
    return emit(call, y);
}

const op_row op_conv_rows[] = {
    {"convolution", "T input, T weight, T? bias, A stride, A padding, A dilation, B transposed, A output_padding, I groups",
     run_convolution, "convolution", 0, 0},
    {.name = NULL},
};
