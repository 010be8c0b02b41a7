/* sample_ops.c -- resizing with anti-aliasing. Sums run in double: these results are near torch's, not equal.
 * Source: at::native UpSampleKernel.cpp (BSD-3-Clause; restated). */
#include "exec.h"

#include <math.h>

static double
filter(bool cubic, double x)
{
    x = fabs(x);
    if (!cubic) {
        return x < 1.0 ? 1.0 - x : 0.0;
    }
    const double a = -0.5;
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    }
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

/* The whole part of v between 0 and n. */
static int64_t
clamped(double v, int64_t n)
{
    return v > 0.0 ? (v < (double)n ? (int64_t)v : n) : 0;
}

/* Resizes the rows (n, in) of f64 into (n, out), both row-major. */
static void
resize_rows(bool cubic, bool narrow, double scale, int64_t n, int64_t in, int64_t out, const double *x, double *y)
{
    scale = narrow ? (double)(float)scale : scale;
    double support = (cubic ? 2.0 : 1.0) * (scale >= 1.0 ? scale : 1.0), inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
    for (int64_t o = 0; o < out; o++) {
        double center = narrow ? (double)((float)scale * ((float)o + 0.5f)) : scale * ((double)o + 0.5), total = 0.0;
        int64_t begin = clamped(center - support + 0.5, in), end = clamped(center + support + 0.5, in);
        for (int64_t k = begin; k < end; k++) {
            total += filter(cubic, ((double)k - center + 0.5) * inverse);
        }
        for (int64_t r = 0; r < n; r++) {
            double sum = 0.0;
            for (int64_t k = begin; k < end; k++) {
                sum += x[r * in + k] *
                       (filter(cubic, ((double)k - center + 0.5) * inverse) / (total != 0.0 ? total : 1.0));
            }
            y[r * out + o] = narrow ? (double)(float)sum : sum;
        }
    }
}

/* x (n, h, w) to (n, w, h), row-major. */
static void
transpose_rows(int64_t n, int64_t h, int64_t w, const double *x, double *y)
{
    for (int64_t i = 0; i < n * h * w; i++) {
        int64_t plane = i / (h * w), r = i / w % h, c = i % w;
        y[plane * h * w + c * h + r] = x[i];
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
    bool cubic = strstr(call->row->name, "bicubic") != NULL, narrow = x->dtype != PORT_F64;
    port_tensor *wide_out, *turned, *room, *out;
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
        (status = tensor_new(call, PORT_F64, 3, (const int64_t[]){n, H, w}, NULL, &wide_out)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 3, (const int64_t[]){n, w, H}, NULL, &turned)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 3, (const int64_t[]){n, w, h}, NULL, &room)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 4, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    resize_rows(cubic, narrow, aa_scale(call, 4, W, w), n * H, W, w, (const double *)tensor_view(wide).data,
                (double *)tensor_view(wide_out).data);
    transpose_rows(n, H, w, (const double *)tensor_view(wide_out).data, (double *)tensor_view(turned).data);
    resize_rows(cubic, narrow, aa_scale(call, 3, H, h), n * w, H, h, (const double *)tensor_view(turned).data,
                (double *)tensor_view(room).data);
    transpose_rows(n, w, h, (const double *)tensor_view(room).data, (double *)tensor_view(out).data);
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
