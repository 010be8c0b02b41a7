/* grid_ops.c -- grid_sampler_2d and grid_sampler_3d: reading images at the places between pixels that a grid names.
 * Every step is rounded to the image's dtype, halves too. torch reads images by vectors, in which a product and a sum
 * are one fused step (not under the capability `default`, and not for halves); volumes by scalar code, which fuses
 * nothing and has formulas of its own for places.
 * Source: at::native GridSamplerKernel.cpp, GridSampler.cpp, GridSampler.h (BSD-3-Clause; restated). */
#include "exec.h"
#include "floats.h"
#include "../kernels/grid_read.h"

enum { ZEROS = 0, BORDER, REFLECTION };
enum { LINEAR = 0, NEAREST, CUBIC };

#define MAX_TAPS 16 /* pixels that one result is made of */

typedef struct sampler {
    port_dtype dtype;
    bool fused, align_corners;
    int64_t interpolation, padding;
    int32_t spatial;
    int64_t size[3], step[3]; /* of the image's dimensions of space, in elements */
    const char *data;
} sampler;

/* A pixel and what it counts; offset -1: it lies outside, and counts as 0. */
typedef struct tap {
    int64_t offset;
    double weight;
} tap;

PORT_INLINE double
plus(const sampler *s, double a, double b)
{
    return float_rounded(s->dtype, a + b);
}

PORT_INLINE double
times(const sampler *s, double a, double b)
{
    return float_rounded(s->dtype, a * b);
}

/* a * b + c */
PORT_INLINE double
times_plus(const sampler *s, double a, double b, double c)
{
    if (s->fused) {
        return float_fma(s->dtype, a, b, c);
    }
    return plus(s, times(s, a, b), c);
}

/* ------------------------------------------------------------------ places in images, by vectors */

/* -1 ... 1 to pixels. */
PORT_INLINE double
image_place(const sampler *s, double at, int64_t size)
{
    double shifted = plus(s, at, 1.0);
    if (s->align_corners) {
        return times(s, shifted, float_rounded(s->dtype, float_rounded(s->dtype, (double)(size - 1)) / 2.0));
    }
    return times_plus(s, shifted, float_rounded(s->dtype, float_rounded(s->dtype, (double)size) / 2.0), -0.5);
}

PORT_INLINE double
image_reflected(const sampler *s, double at, int64_t size)
{
    double low = s->align_corners ? 0.0 : -0.5, count = (double)(s->align_corners ? size - 1 : size);
    double twice_span = float_rounded(s->dtype, float_rounded(s->dtype, count) * 2.0), away = fabs(plus(s, at, -low));
    if (count < 1.0) {
        return 0.0;
    }
    double flips = trunc(float_rounded(s->dtype, away / twice_span));
    double extra = times_plus(s, -flips, twice_span, away), back = plus(s, twice_span, -extra);
    return plus(s, extra < back || extra != extra ? extra : back, low);
}

/* A place as the padding moves it; of NaN 0. */
PORT_INLINE double
image_padded(const sampler *s, double at, int64_t size)
{
    if (s->padding == ZEROS) {
        return at;
    }
    at = s->padding == REFLECTION ? image_reflected(s, at, size) : at;
    double low = at > 0.0 ? at : 0.0, last = float_rounded(s->dtype, (double)(size - 1));
    return low < last ? low : last;
}

/* The number of a pixel in the integers of the dtype's size; it is compared with the image's size there. */
PORT_INLINE int64_t
pixel_number(const sampler *s, double at)
{
    if (s->dtype == PORT_F64) {
        return fabs(at) < 0x1p62 ? (int64_t)at : INT64_MIN / 2;
    }
    int32_t whole = fabs(at) < 0x1p31 ? (int32_t)at : INT32_MIN;
    return s->dtype == PORT_F32 ? whole : (int16_t)whole;
}

/* The pixel at (row, column). */
PORT_INLINE tap
image_tap(const sampler *s, int64_t row, int64_t column, double weight)
{
    bool inside = row >= 0 && row < s->size[0] && column >= 0 && column < s->size[1];
    return (tap){inside ? row * s->step[0] + column * s->step[1] : -1, weight};
}

PORT_INLINE int32_t
bilinear_taps(const sampler *s, double x, double y, tap *taps)
{
    double left = floor(x), top = floor(y), west = plus(s, x, -left), east = plus(s, 1.0, -west),
           north = plus(s, y, -top), south = plus(s, 1.0, -north);
    int64_t row = pixel_number(s, top), column = pixel_number(s, left);
    taps[0] = image_tap(s, row, column, times(s, south, east));
    taps[1] = image_tap(s, row, column + 1, times(s, south, west));
    taps[2] = image_tap(s, row + 1, column, times(s, north, east));
    taps[3] = image_tap(s, row + 1, column + 1, times(s, north, west));
    return 4;
}

/* Keys' cubic convolution: four weights for the rest of a coordinate. */
PORT_INLINE void
cubic_weights(const sampler *s, double rest, double *weights)
{
    const double a = -0.75;
    double near[2] = {rest, plus(s, 1.0, -rest)}, far[2] = {plus(s, rest, 1.0), plus(s, 2.0, -rest)};
    for (int32_t k = 0; k < 2; k++) {
        double inner = times(s, times_plus(s, a + 2.0, near[k], -(a + 3.0)), near[k]);
        weights[1 + k] = times_plus(s, inner, near[k], 1.0);
        inner = plus(s, times(s, a, far[k]), -5.0 * a); /* fused are the products that are numbers: 5 a, 8 a, 4 a */
        inner = plus(s, times(s, inner, far[k]), 8.0 * a);
        weights[3 * k] = plus(s, times(s, inner, far[k]), -4.0 * a);
    }
}

/* Sixteen taps, row by row, with the weights of their columns; the rows' weights apart. */
PORT_INLINE int32_t
bicubic_taps(const sampler *s, double x, double y, tap *taps, double *row_weights)
{
    double left = floor(x), top = floor(y), columns[4];
    cubic_weights(s, plus(s, x, -left), columns);
    cubic_weights(s, plus(s, y, -top), row_weights);
    for (int32_t i = 0; i < 16; i++) {
        double row = image_padded(s, plus(s, top, (double)(i / 4 - 1)), s->size[0]),
               column = image_padded(s, plus(s, left, (double)(i % 4 - 1)), s->size[1]);
        taps[i] = image_tap(s, pixel_number(s, row), pixel_number(s, column), columns[i % 4]);
    }
    return 16;
}

/* grid: x, y. */
PORT_INLINE int32_t
image_taps(const sampler *s, const double *grid, tap *taps, double *row_weights)
{
    double x = image_place(s, grid[0], s->size[1]), y = image_place(s, grid[1], s->size[0]);
    if (s->interpolation == CUBIC) {
        return bicubic_taps(s, x, y, taps, row_weights);
    }
    x = image_padded(s, x, s->size[1]);
    y = image_padded(s, y, s->size[0]);
    if (s->interpolation == LINEAR) {
        return bilinear_taps(s, x, y, taps);
    }
    taps[0] = image_tap(s, pixel_number(s, nearbyint(y)), pixel_number(s, nearbyint(x)), 1.0);
    return 1;
}

static double
tap_value(const sampler *s, int64_t channel, const tap *t)
{
    return t->offset < 0 ? 0.0 : float_load(s->dtype, s->data, channel + t->offset);
}

/* One row of four taps: of the products only the first is fused. */
static double
cubic_row(const sampler *s, int64_t channel, const tap *taps)
{
    double sum = times(s, tap_value(s, channel, &taps[1]), taps[1].weight);
    sum = times_plus(s, tap_value(s, channel, &taps[0]), taps[0].weight, sum);
    for (int32_t k = 2; k < 4; k++) {
        sum = plus(s, sum, times(s, tap_value(s, channel, &taps[k]), taps[k].weight));
    }
    return sum;
}

static double
image_value(const sampler *s, int64_t channel, const tap *taps, int32_t count, const double *row_weights)
{
    if (count == 1) {
        return tap_value(s, channel, &taps[0]);
    }
    double sum = 0.0;
    for (int32_t k = 0; k < 4; k++) {
        double value = count == 4 ? tap_value(s, channel, &taps[k]) : cubic_row(s, channel, taps + 4 * k),
               weight = count == 4 ? taps[k].weight : row_weights[k];
        sum = k == 0 ? times(s, value, weight) : times_plus(s, value, weight, sum);
    }
    return sum;
}

/* ------------------------------------------------------------------ places in volumes, by scalar code */

static double
volume_reflected(const sampler *s, double at, int64_t size)
{
    double least = s->align_corners ? 0.0 : -0.5,
           span = float_rounded(s->dtype, s->align_corners ? (double)(size - 1) : (double)size);
    if (span == 0.0) {
        return 0.0;
    }
    double away = fabs(plus(s, at, -least)), extra = fmod(away, span), flips = floor(float_rounded(s->dtype, away / span));
    return fmod(flips, 2.0) == 0.0 ? plus(s, extra, least) : plus(s, plus(s, span, -extra), least);
}

static double
volume_place(const sampler *s, double at, int64_t size)
{
    double shifted = plus(s, at, 1.0), whole = float_rounded(s->dtype, (double)(s->align_corners ? size - 1 : size));
    at = s->align_corners ? times(s, float_rounded(s->dtype, shifted / 2.0), whole)
                          : float_rounded(s->dtype, plus(s, times(s, shifted, whole), -1.0) / 2.0);
    if (s->padding == ZEROS) {
        return at;
    }
    at = s->padding == REFLECTION ? volume_reflected(s, at, size) : at;
    double low = at < 0.0 ? 0.0 : at, last = float_rounded(s->dtype, (double)(size - 1));
    return low < last ? low : last;
}

/* The taps that lie inside. grid: x, y, z. */
static int32_t
volume_taps(const sampler *s, const double *grid, tap *taps)
{
    double low[3], weights[3][2];
    int32_t count = 0;
    for (int32_t d = 0; d < 3; d++) {
        double at = volume_place(s, grid[2 - d], s->size[d]);
        low[d] = s->interpolation == NEAREST ? nearbyint(at) : floor(at);
        weights[d][1] = plus(s, at, -float_rounded(s->dtype, low[d]));
        weights[d][0] = plus(s, float_rounded(s->dtype, low[d] + 1.0), -at);
    }
    for (int32_t k = 0; k < (s->interpolation == NEAREST ? 1 : 8); k++) {
        const int32_t upper[3] = {k >> 2 & 1, k >> 1 & 1, k & 1};
        int64_t offset = 0;
        bool inside = true;
        for (int32_t d = 0; d < 3; d++) {
            double at = low[d] + (double)upper[d];
            inside = inside && at >= 0.0 && at < (double)s->size[d];
            offset += inside ? (int64_t)at * s->step[d] : 0;
        }
        if (inside) {
            double flat = times(s, weights[2][upper[2]], weights[1][upper[1]]);
            taps[count++] = (tap){offset, times(s, flat, weights[0][upper[0]])};
        }
    }
    return count;
}

static double
volume_value(const sampler *s, int64_t channel, const tap *taps, int32_t count)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++) {
        double value = float_load(s->dtype, s->data, channel + taps[k].offset);
        sum = s->interpolation == NEAREST ? value : plus(s, sum, times(s, value, taps[k].weight));
    }
    return sum;
}

/* ------------------------------------------------------------------ the ops */

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

typedef struct grid_task {
    const sampler *s;
    const port_tensor *x;
    const char *grids;
    char *out;
    int64_t places; /* of one image */
} grid_task;

/* Places begin ... end of all images, each in all channels. */
static void
sample_places(const void *opaque, int64_t begin, int64_t end)
{
    const grid_task *task = opaque;
    const sampler *s = task->s;
    const port_tensor *x = task->x;
    for (int64_t i = begin; i < end; i++) {
        tap taps[MAX_TAPS];
        double row_weights[4], where[3];
        for (int32_t d = 0; d < s->spatial; d++) {
            where[d] = float_load(s->dtype, task->grids, i * s->spatial + d);
        }
        int32_t count = s->spatial == 3 ? volume_taps(s, where, taps) : image_taps(s, where, taps, row_weights);
        for (int64_t c = 0, n = i / task->places; c < x->shape[1]; c++) {
            int64_t channel = n * x->strides[0] + c * x->strides[1];
            double value = s->spatial == 3 ? volume_value(s, channel, taps, count)
                                           : image_value(s, channel, taps, count, row_weights);
            float_store(s->dtype, task->out, (n * x->shape[1] + c) * task->places + i % task->places, value);
        }
    }
}

/* The taps of n places of one image, as a vector takes them. */
PORT_INLINE void
lay_out_taps(const sampler *s, const float *grid, int64_t n, port_grid_taps *laid)
{
    laid->all_inside = true;
    for (int64_t i = 0; i < n; i++) {
        tap taps[MAX_TAPS];
        double row_weights[4] = {0.0}, where[2] = {(double)grid[2 * i], (double)grid[2 * i + 1]};
        laid->count = image_taps(s, where, taps, row_weights);
        for (int32_t k = 0; k < laid->count; k++) {
            bool inside = taps[k].offset >= 0;
            laid->at[k][i] = inside ? (int32_t)taps[k].offset : 0;
            laid->inside[k][i] = -(int32_t)inside;
            laid->weight[k][i] = (float)taps[k].weight;
            laid->all_inside = laid->all_inside && inside;
        }
        for (int32_t k = 0; k < 4 && laid->count == 16; k++) {
            laid->row_weight[k][i] = (float)row_weights[k];
        }
    }
}

/* Two builds: without the instruction an fma is a call. All steps are those of F32. */
static void
lay_out_taps_ref(const sampler *s, const float *grid, int64_t n, port_grid_taps *laid)
{
    sampler f32 = *s;
    f32.dtype = PORT_F32;
    lay_out_taps(&f32, grid, n, laid);
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
lay_out_taps_avx2(const sampler *s, const float *grid, int64_t n, port_grid_taps *laid)
{
    sampler f32 = *s;
    f32.dtype = PORT_F32;
    lay_out_taps(&f32, grid, n, laid);
}
#define LAY_OUT_TAPS (port_cpu_level_found() > 0 ? lay_out_taps_avx2 : lay_out_taps_ref)
#else
#define LAY_OUT_TAPS lay_out_taps_ref
#endif

/* sample_places of images of F32 whose offsets fit in 32 bits: some places of one image at a time. */
static void
sample_blocks(const void *opaque, int64_t begin, int64_t end)
{
    const grid_task *task = opaque;
    const port_tensor *x = task->x;
    port_grid_taps taps;
    memset(taps.at, 0, sizeof taps.at);
    for (int64_t i = begin, count; i < end; i += count) {
        int64_t n = i / task->places, place = i % task->places;
        count = end - i < PORT_GRID_PLACES ? end - i : PORT_GRID_PLACES;
        count = count < task->places - place ? count : task->places - place;
        LAY_OUT_TAPS(task->s, (const float *)(const void *)task->grids + 2 * i, count, &taps);
        for (int64_t c = 0; c < x->shape[1]; c++) {
            const float *image = (const float *)(const void *)task->s->data + n * x->strides[0] + c * x->strides[1];
            port_grid_read(&taps, task->s->fused, count, image,
                           (float *)(void *)task->out + (n * x->shape[1] + c) * task->places + place);
        }
    }
}

/* grid_sampler_2d, grid_sampler_3d (input, grid, interpolation_mode, padding_mode, align_corners). */
static port_status
run_grid_sampler(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *grid = arg_tensor(call, 1);
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : 2;
    port_tensor *out;
    int64_t shape[5] = {x->shape[0], x->shape[1]}, places = 1;
    port_status status = check_grid(call, x, grid, spatial);
    if (status != PORT_OK || (status = tensor_contiguous(call, grid, &grid)) != PORT_OK) {
        return status;
    }
    for (int32_t d = 0; d < spatial; d++) {
        shape[2 + d] = grid->shape[1 + d];
        places *= shape[2 + d];
    }
    if ((status = tensor_new(call, x->dtype, spatial + 2, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    bool wide = x->dtype == PORT_F32 || x->dtype == PORT_F64;
    sampler s = {.dtype = x->dtype,
                 .fused = wide && spatial == 2 && call->options->profile.capability != PORT_CAP_DEFAULT,
                 .align_corners = arg_bool(call, 4),
                 .interpolation = arg_int(call, 2),
                 .padding = arg_int(call, 3),
                 .spatial = spatial,
                 .data = tensor_view(x).data};
    memcpy(s.size, x->shape + 2, (size_t)spatial * sizeof *shape);
    memcpy(s.step, x->strides + 2, (size_t)spatial * sizeof *shape);
    grid_task task = {&s, x, tensor_view(grid).data, tensor_view(out).data, places};
    bool narrow = (s.size[0] - 1) * s.step[0] + (s.size[1] - 1) * s.step[1] <= INT32_MAX;
    port_deal(shape[0] * places, 4 * shape[1], call->options->profile.num_threads,
              x->dtype == PORT_F32 && spatial == 2 && narrow ? sample_blocks : sample_places, &task);
    return emit(call, out);
}

#define GRID "T input, T grid, I interpolation_mode, I padding_mode, B align_corners"

const op_row op_grid_rows[] = {
    {"grid_sampler_2d", GRID, run_grid_sampler, NULL, MODE_SAME, 0},
    {"grid_sampler_3d", GRID, run_grid_sampler, NULL, MODE_SAME, 0},
    {.name = NULL},
};
