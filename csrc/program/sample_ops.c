/* sample_ops.c -- reading images at places between pixels: grid_sampler in all its modes, and resizing with
 * anti-aliasing. grid_sampler_2d, bilinear with zeros outside, has a kernel of its own (pool.c). Coordinates are F32
 * for F32 and halves, as torch's: a nearest pixel must not tip over. Sums run in double: these results are near
 * torch's, not equal.
 * Source: at::native GridSampler.h, UpSampleKernel.cpp (BSD-3-Clause; restated). */
#include "exec.h"

#include <math.h>

enum { ZEROS = 0, BORDER, REFLECTION };
enum { LINEAR = 0, NEAREST, CUBIC };

typedef struct sampler {
    bool narrow, align_corners; /* narrow: coordinates are rounded to F32 after every step */
    int64_t interpolation, padding;
    int32_t spatial;
    int64_t size[3], step[3]; /* of the image's dimensions of space, in elements */
    const char *data;
    port_dtype dtype;
} sampler;

static double
rounded(const sampler *s, double v)
{
    return s->narrow ? (double)(float)v : v;
}

static double
unnormalized(const sampler *s, double at, int64_t size)
{
    double shifted = rounded(s, at + 1.0);
    if (s->align_corners) {
        return rounded(s, rounded(s, shifted / 2.0) * (double)(size - 1));
    }
    return rounded(s, rounded(s, rounded(s, shifted * (double)size) - 1.0) / 2.0);
}

static double
clipped(double at, int64_t size)
{
    double low = at > 0.0 ? at : 0.0; /* NaN too */
    return low < (double)(size - 1) ? low : (double)(size - 1);
}

static double
reflected(const sampler *s, double at, double twice_low, double twice_high)
{
    if (twice_low == twice_high) {
        return 0.0;
    }
    double least = twice_low / 2.0, span = (twice_high - twice_low) / 2.0,
           away = rounded(s, fabs(rounded(s, at - least)));
    double extra = fmod(away, span), flips = floor(rounded(s, away / span));
    return rounded(s, fmod(flips, 2.0) == 0.0 ? extra + least : span - extra + least);
}

/* A place as the padding moves it. */
static double
placed(const sampler *s, double at, int64_t size)
{
    if (s->padding == REFLECTION) {
        at = s->align_corners ? reflected(s, at, 0.0, 2.0 * (double)(size - 1))
                              : reflected(s, at, -1.0, 2.0 * (double)size - 1.0);
    }
    return s->padding == ZEROS ? at : clipped(at, size);
}

/* The pixel at whole coordinates; 0 outside. */
static double
pixel(const sampler *s, int64_t offset, const double *at)
{
    for (int32_t d = 0; d < s->spatial; d++) {
        if (!(at[d] >= 0.0) || at[d] > (double)(s->size[d] - 1)) {
            return 0.0;
        }
        offset += (int64_t)at[d] * s->step[d];
    }
    float narrow;
    double wide;
    memcpy(s->dtype == PORT_F32 ? (void *)&narrow : (void *)&wide,
           s->data + offset * (int64_t)port_dtype_size(s->dtype), port_dtype_size(s->dtype));
    return s->dtype == PORT_F32 ? (double)narrow : wide;
}

static double
linear_value(const sampler *s, int64_t offset, const double *at)
{
    double low[3], rest[3], corner[3], sum = 0.0;
    for (int32_t d = 0; d < s->spatial; d++) {
        low[d] = floor(at[d]);
        rest[d] = rounded(s, at[d] - low[d]);
    }
    for (int32_t k = 0; k < 1 << s->spatial; k++) {
        double weight = 1.0;
        for (int32_t d = 0; d < s->spatial; d++) {
            bool upper = (k >> (s->spatial - 1 - d) & 1) != 0;
            corner[d] = low[d] + (upper ? 1.0 : 0.0);
            weight = rounded(s, weight * (upper ? rest[d] : rounded(s, 1.0 - rest[d])));
        }
        sum += pixel(s, offset, corner) * weight;
    }
    return sum;
}

/* Keys' cubic convolution: four weights for the rest of a coordinate. */
static void
cubic_weights(double a, double rest, double *weights)
{
    double near[2] = {rest, 1.0 - rest};
    for (int32_t k = 0; k < 2; k++) {
        double far = near[k] + 1.0;
        weights[1 + k] = ((a + 2.0) * near[k] - (a + 3.0)) * near[k] * near[k] + 1.0;
        weights[3 * k] = ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a;
    }
}

static double
cubic_value(const sampler *s, int64_t offset, const double *at)
{
    double weights[2][4], sum = 0.0;
    for (int32_t d = 0; d < 2; d++) {
        cubic_weights(-0.75, rounded(s, at[d] - floor(at[d])), weights[d]);
    }
    for (int32_t i = 0; i < 16; i++) {
        double corner[2] = {placed(s, floor(at[0]) - 1.0 + (double)(i / 4), s->size[0]),
                            placed(s, floor(at[1]) - 1.0 + (double)(i % 4), s->size[1])};
        sum += pixel(s, offset, corner) * weights[0][i / 4] * weights[1][i % 4];
    }
    return sum;
}

static double
sampled(const sampler *s, int64_t offset, const double *grid)
{
    double at[3];
    for (int32_t d = 0; d < s->spatial; d++) {
        at[d] = unnormalized(s, grid[s->spatial - 1 - d], s->size[d]); /* a grid names x first */
        at[d] = s->interpolation == CUBIC ? at[d] : placed(s, at[d], s->size[d]);
        at[d] = s->interpolation == NEAREST ? nearbyint(at[d]) : at[d];
    }
    if (s->interpolation == NEAREST) {
        return pixel(s, offset, at);
    }
    return s->interpolation == CUBIC ? cubic_value(s, offset, at) : linear_value(s, offset, at);
}

static port_status
check_grid(op_call *call, const port_tensor *x, const port_tensor *grid, int32_t spatial)
{
    int64_t interpolation = arg_int(call, 2), padding = arg_int(call, 3);
    if (x->ndim != spatial + 2 || grid->ndim != spatial + 2 || grid->shape[spatial + 1] != spatial ||
        grid->shape[0] != x->shape[0]) {
        return fail_op(call, PORT_E_SHAPE, "expected an image and a grid of %d dimensions for the same batch",
                       spatial + 2);
    }
    for (int32_t d = 0; d < spatial; d++) {
        if (x->shape[2 + d] < 1) {
            return fail_op(call, PORT_E_SHAPE, "an image without pixels");
        }
    }
    if (!dtype_is_float(x->dtype) || x->dtype != grid->dtype) {
        return fail_op(call, PORT_E_DTYPE, "an image of %s with a grid of %s", port_dtype_name(x->dtype),
                       port_dtype_name(grid->dtype));
    }
    if (interpolation < 0 || interpolation > 2 || padding < 0 || padding > 2 ||
        (spatial == 3 && interpolation == CUBIC)) {
        return fail_op(call, PORT_E_VALUE, "interpolation mode %lld, padding mode %lld", (long long)interpolation,
                       (long long)padding);
    }
    return PORT_OK;
}

/* The kernel of pool.c. */
static port_status
bilinear_kernel(op_call *call, const port_tensor *x, const port_tensor *grid, const int64_t *shape)
{
    port_grid_params params = {arg_bool(call, 4)};
    port_tensor *out;
    port_status status = tensor_new(call, x->dtype, 4, shape, NULL, &out);
    if (status == PORT_OK) {
        status = launch_tensors(call, "grid_sample", x->dtype, (const port_tensor *const[]){x, grid}, 2,
                                (const port_tensor *const[]){out}, 1, &params);
    }
    return status == PORT_OK ? emit(call, out) : status;
}

/* grid_sampler_2d, grid_sampler_3d (input, grid, interpolation_mode, padding_mode, align_corners). */
static port_status
run_grid_sampler(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *grid = arg_tensor(call, 1), *result;
    port_dtype dtype = x->dtype, inner = dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : 2;
    port_tensor *out;
    int64_t shape[5] = {x->shape[0], x->shape[1]};
    port_status status = check_grid(call, x, grid, spatial);
    if (status != PORT_OK || (status = tensor_cast(call, x, inner, &x)) != PORT_OK ||
        (status = tensor_cast(call, grid, inner, &grid)) != PORT_OK ||
        (status = tensor_contiguous(call, grid, &grid)) != PORT_OK) {
        return status;
    }
    memcpy(shape + 2, grid->shape + 1, (size_t)spatial * sizeof *shape);
    if (spatial == 2 && dtype == PORT_F32 && arg_int(call, 2) == LINEAR && arg_int(call, 3) == ZEROS) {
        return bilinear_kernel(call, x, grid, shape);
    }
    if ((status = tensor_new(call, inner, spatial + 2, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    sampler s = {inner == PORT_F32, arg_bool(call, 4),           arg_int(call, 2), arg_int(call, 3),
                 spatial,           .data = tensor_view(x).data, .dtype = inner};
    memcpy(s.size, x->shape + 2, (size_t)spatial * sizeof *shape);
    memcpy(s.step, x->strides + 2, (size_t)spatial * sizeof *shape);
    int64_t places = shape[1] > 0 && shape[0] > 0 ? tensor_elems(out) / shape[0] / shape[1] : 0;
    const char *grids = tensor_view(grid).data;
    for (int64_t i = 0; i < shape[0] * shape[1] * places; i++) {
        int64_t n = i / places / shape[1], c = i / places % shape[1], at = (n * places + i % places) * spatial;
        double where[3];
        for (int32_t d = 0; d < spatial; d++) {
            where[d] = s.narrow ? (double)((const float *)grids)[at + d] : ((const double *)grids)[at + d];
        }
        double value = sampled(&s, n * x->strides[0] + c * x->strides[1], where);
        if (s.narrow) {
            ((float *)tensor_view(out).data)[i] = (float)value;
        } else {
            ((double *)tensor_view(out).data)[i] = value;
        }
    }
    status = tensor_cast(call, out, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* ------------------------------------------------------------------ resizing with anti-aliasing */

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

#define GRID "T input, T grid, I interpolation_mode, I padding_mode, B align_corners"
#define RESIZE "T self, A output_size, B align_corners, F? scales_h=None, F? scales_w=None"

const op_row op_sample_rows[] = {
    {"grid_sampler_2d", GRID, run_grid_sampler, "grid_sample", MODE_SAME, 0},
    {"grid_sampler_3d", GRID, run_grid_sampler, NULL, MODE_SAME, 0},
    {"_upsample_bilinear2d_aa", RESIZE, run_resize_aa, NULL, MODE_SAME, 0},
    {"_upsample_bicubic2d_aa", RESIZE, run_resize_aa, NULL, MODE_SAME, 0},
    {.name = NULL},
};
