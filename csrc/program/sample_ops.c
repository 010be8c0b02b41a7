/* sample_ops.c -- resizing with anti-aliasing: a triangle or Keys' cubic (a = -0.5) as wide as an output pixel, its weights divided by their sum;
 * one dimension after the other, each output one sum from the first pixel on.
 * Source: at::native UpSampleKernel.cpp (BSD-3-Clause; restated). */
#include "numbers.h"

#include <math.h>

/* What a pass does: numbers are kept as double, and of F32 rounded at every step. */
typedef struct aa_pass {
    bool cubic, narrow, fused, first_only; /* first_only: every output is the first */
    double scale;
    int64_t outer, in, out, inner; /* rows (outer, in, inner) become (outer, out, inner) */
} aa_pass;

static double
rounded(const aa_pass *p, double v)
{
    return p->narrow ? (double)(float)v : v;
}

/* a * b + c, fused where the compiler of the reference may. */
static double
mul_add(const aa_pass *p, double a, double b, double c)
{
    if (p->narrow) {
        return (double)(p->fused ? fmaf((float)a, (float)b, (float)c) : (float)a * (float)b + (float)c);
    }
    return p->fused ? fma(a, b, c) : a * b + c;
}

static double
filter(const aa_pass *p, double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (!p->cubic) {
        return x < 1.0 ? rounded(p, 1.0 - x) : 0.0;
    }
    if (x < 1.0) {
        return mul_add(p, rounded(p, mul_add(p, a + 2.0, x, -(a + 3.0)) * x), x, 1.0);
    }
    return x < 2.0 ? mul_add(p, mul_add(p, mul_add(p, a, x, -5.0 * a), x, 8.0 * a), x, -4.0 * a) : 0.0;
}

/* The whole part of v between 0 and n. */
static int64_t
clamped(double v, int64_t n)
{
    return v > 0.0 ? (v < (double)n ? (int64_t)v : n) : 0;
}

/* The weights of output o; returns how many there are, from input *begin on. */
static int64_t
weights_of(const aa_pass *p, int64_t o, int64_t *begin, double *weights)
{
    bool smaller = p->scale >= 1.0;
    double support = (p->cubic ? 2.0 : 1.0) * (smaller ? p->scale : 1.0), total = 0.0;
    double inverse = smaller ? rounded(p, 1.0 / p->scale) : 1.0, center = rounded(p, p->scale * ((double)o + 0.5));
    int64_t most = 2 * clamped(ceil(support), p->in) + 1; /* more than there are is no bound */
    *begin = clamped(rounded(p, center - support) + 0.5, p->in);
    int64_t count = clamped(rounded(p, center + support) + 0.5, p->in) - *begin;
    count = count < most ? count : most;
    for (int64_t k = 0; k < count; k++) {
        weights[k] = filter(p, rounded(p, (rounded(p, (double)(*begin + k) - center) + 0.5) * inverse));
        total = rounded(p, total + weights[k]);
    }
    for (int64_t k = 0; k < count && total != 0.0; k++) {
        weights[k] = rounded(p, weights[k] / total);
    }
    return count;
}

/* The sum of count products. The compiler multiplies four at a time after the first, and fuses what is left of them. */
static double
weighed(const aa_pass *p, const double *x, const double *weights, int64_t count)
{
    double sum = count > 0 ? rounded(p, x[0] * weights[0]) : 0.0;
    int64_t k = 1, whole = count - (count - 1) % 4;
    for (; k < whole; k++) {
        sum = rounded(p, sum + rounded(p, x[k * p->inner] * weights[k]));
    }
    for (; k < count; k++) {
        sum = mul_add(p, x[k * p->inner], weights[k], sum);
    }
    return sum;
}

/* weights: room for `in` of them. A dimension that keeps its size is left as it is, whatever the scale. */
static void
run_pass(const aa_pass *p, double *weights, const double *x, double *y)
{
    if (p->in == p->out) {
        memcpy(y, x, (size_t)(p->outer * p->in * p->inner) * sizeof *y);
        return;
    }
    for (int64_t o = 0; o < p->out; o++) {
        int64_t begin, count = weights_of(p, p->first_only ? 0 : o, &begin, weights);
        for (int64_t r = 0; r < p->outer * p->inner; r++) {
            int64_t row = r / p->inner, column = r % p->inner;
            y[(row * p->out + o) * p->inner + column] = weighed(p, x + (row * p->in + begin) * p->inner + column, weights, count);
        }
    }
}

static double
aa_scale(op_call *call, int32_t scales_idx, int64_t in, int64_t out)
{
    if (arg_bool(call, 2)) {
        return out > 1 ? (double)(in - 1) / (double)(out - 1) : 0.0;
    }
    double factor = arg_double(call, scales_idx, 0.0);
    return factor > 0.0 ? 1.0 / factor : (double)in / (double)out;
}

/* _upsample_bilinear2d_aa, _upsample_bicubic2d_aa (self, output_size, align_corners, scales_h, scales_w): the last
 * dimension, then the other. */
static port_status
run_resize_aa(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    port_tensor *middle, *out;
    double *weights;
    if (x->ndim != 4 || arg_len(call, 1) != 2 || !dtype_is_float(x->dtype)) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, H, W) of floats and 2 sizes");
    }
    int64_t H = x->shape[2], W = x->shape[3], h = arg_int_at(call, 1, 0), w = arg_int_at(call, 1, 1),
            n = x->shape[0] * x->shape[1];
    int64_t strides[PORT_MAX_NDIM], shape[4] = {x->shape[0], x->shape[1], h, w};
    if (H < 1 || W < 1 || h < 1 || w < 1) {
        return fail_op(call, PORT_E_SHAPE, "from %lld x %lld to %lld x %lld pixels", (long long)H, (long long)W,
                       (long long)h, (long long)w);
    }
    port_status status = tensor_cast(call, x, PORT_F64, &wide);
    if (status != PORT_OK || (status = tensor_contiguous(call, wide, &wide)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 3, (const int64_t[]){n, H, w}, NULL, &middle)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 4, shape, NULL, &out)) != PORT_OK ||
        (status = new_doubles(call, H > W ? H : W, &weights)) != PORT_OK) {
        return status;
    }
    aa_pass rows = {.cubic = strstr(call->row->name, "bicubic") != NULL, .narrow = x->dtype != PORT_F64,
                    .fused = call->options->profile.capability != PORT_CAP_DEFAULT, .outer = n * H, .in = W, .out = w, .inner = 1};
    aa_pass columns = rows;
    columns.outer = n;
    columns.in = H;
    columns.out = h;
    columns.inner = w;
    columns.first_only = w == 1 && !tensor_suggests_channels_last(x); /* torch 2.13 takes the rows of a single column for its pixels */
    rows.scale = rounded(&rows, aa_scale(call, 4, W, w));
    columns.scale = rounded(&columns, aa_scale(call, 3, H, h));
    run_pass(&rows, weights, (const double *)tensor_view(wide).data, (double *)tensor_view(middle).data);
    run_pass(&columns, weights, (const double *)tensor_view(middle).data, (double *)tensor_view(out).data);
    if ((status = tensor_cast(call, out, x->dtype, &result)) != PORT_OK) {
        return status;
    }
    format_strides(4, shape, tensor_suggests_channels_last(x), strides);
    port_tensor *laid;
    if ((status = tensor_new(call, x->dtype, 4, shape, strides, &laid)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(laid), from = tensor_view(result);
    copy_view(call, &to, &from);
    return emit(call, laid);
}

#define RESIZE "T self, A output_size, B align_corners, F? scales_h=None, F? scales_w=None"

const op_row op_sample_rows[] = {
    {"_upsample_bilinear2d_aa", RESIZE, run_resize_aa, NULL, MODE_SAME, 0},
    {"_upsample_bicubic2d_aa", RESIZE, run_resize_aa, NULL, MODE_SAME, 0},
    {.name = NULL},
};
