/* convolution.c -- convolutions of one to three dimensions and their transposes: unfold, then a matrix product.
 *
 *     y[n,o,p] = bias[o] + sum_{c,k} w[o,c,k] * x[n,c, p * stride - padding + k * dilation]
 *
 * x (N, C, ...), w (O, C / groups, ...) or transposed (C, O / groups, ...), y (N, O, ...): x, w and y are dense, all row-major or all
 * channels-last. K = C / groups * kernel elements, L = output positions. Each frame is one product: columns (K, L) times w
 * with the bias as start, rows and columns exchanged for channels-last. The calls of the BLAS, their threads and the
 * alignment of what they are given are those of PyTorch's CPU convolutions without oneDNN: all of that can change bits.
 * A transposed convolution multiplies first and folds then, adding up in order of (kernel element).
 * Halves come as F32 that holds them: their products are those of ATen's own loops, and rounded, as is every sum of a fold.
 * Source: at::native ConvolutionMM2d, ConvolutionMM3d, NaiveDilatedConvolution, NaiveConvolutionTranspose2d (BSD-3-Clause; restated). */
#include "matmul.h"

typedef struct shape_of_conv {
    int32_t spatial;
    int64_t N, C, O, groups, group_in, group_out, num_kernel, num_in, num_out; /* num_*: elements of kernel, x's and y's frame */
    int64_t in[3], out[3], kernel[3];
    int64_t K, L; /* of the matrix of columns */
} shape_of_conv;

static shape_of_conv
conv_shape(const port_kernel_call *call)
{
    const port_conv_params *p = call->params;
    const port_view *x = call->in[0], *w = call->in[1], *y = call->out[0];
    shape_of_conv s = {.spatial = x->ndim - 2, .N = x->shape[0], .C = x->shape[1], .O = y->shape[1], .groups = p->groups,
                       .num_kernel = 1, .num_in = 1, .num_out = 1};
    for (int32_t d = 0; d < 3; d++) {
        int32_t from = d - (3 - s.spatial); /* fewer dimensions are leading ones of size 1 */
        s.in[d] = from < 0 ? 1 : x->shape[2 + from];
        s.out[d] = from < 0 ? 1 : y->shape[2 + from];
        s.kernel[d] = from < 0 ? 1 : w->shape[2 + from];
        s.num_in *= s.in[d];
        s.num_out *= s.out[d];
        s.num_kernel *= s.kernel[d];
    }
    s.group_in = s.C / s.groups;
    s.group_out = s.O / s.groups;
    s.K = (p->transposed ? s.group_out : s.group_in) * s.num_kernel;
    s.L = p->transposed ? s.num_in : s.num_out;
    return s;
}

/* ---------------------------------------------------------------- check, scratch */

static bool
is_dense(const port_view *view, bool channels_last)
{
    port_view seen = *view;
    if (channels_last) { /* (N, C, ...) seen as (N, ..., C) */
        for (int32_t d = 1; d + 1 < view->ndim; d++) {
            seen.shape[d] = view->shape[d + 1];
            seen.strides[d] = view->strides[d + 1];
        }
        seen.shape[view->ndim - 1] = view->shape[1];
        seen.strides[view->ndim - 1] = view->strides[1];
    }
    return port_view_is_contiguous(&seen);
}

static port_status
conv_check(const port_kernel_call *call, port_error *err)
{
    const port_conv_params *p = call->params;
    const port_view *x = call->in[0], *w = call->in[1], *bias = call->in[2], *y = call->out[0];
    if (p == NULL || x->ndim < 3 || x->ndim > 5 || w->ndim != x->ndim || y->ndim != x->ndim || p->groups < 1) {
        return port_fail(err, PORT_E_SHAPE, "convolution: expected tensors of 3 to 5 dimensions, got %d, %d and out %d", x->ndim,
                         w->ndim, y->ndim);
    }
    int64_t in = p->transposed ? w->shape[0] : w->shape[1] * p->groups;
    int64_t out = p->transposed ? w->shape[1] * p->groups : w->shape[0];
    if (x->shape[1] != in || y->shape[1] != out || out % p->groups != 0 || in % p->groups != 0 || y->shape[0] != x->shape[0]) {
        return port_fail(err, PORT_E_SHAPE, "convolution: %lld channels in and %lld out do not fit the weight and %lld groups",
                         (long long)x->shape[1], (long long)y->shape[1], (long long)p->groups);
    }
    for (int32_t d = 0; d < x->ndim - 2; d++) {
        int64_t reach = p->dilation[d] * (w->shape[2 + d] - 1) + 1;
        int64_t size = p->transposed ? (x->shape[2 + d] - 1) * p->stride[d] - 2 * p->padding[d] + reach + p->output_padding[d]
                                     : (x->shape[2 + d] + 2 * p->padding[d] - reach) / p->stride[d] + 1;
        if (p->stride[d] < 1 || p->dilation[d] < 1 || p->padding[d] < 0 || y->shape[2 + d] != size) {
            return port_fail(err, PORT_E_SHAPE, "convolution: dimension %d of out has size %lld, expected %lld", 2 + d,
                             (long long)y->shape[2 + d], (long long)size);
        }
    }
    if (bias != NULL && (bias->ndim != 1 || bias->shape[0] != out || !port_view_is_contiguous(bias))) {
        return port_fail(err, PORT_E_SHAPE, "convolution: the bias must have one dimension of size %lld", (long long)out);
    }
    if (!is_dense(x, p->channels_last) || !is_dense(w, p->channels_last) || !is_dense(y, p->channels_last)) {
        return port_fail(err, PORT_E_SHAPE, "convolution: its tensors must be dense and of one memory format");
    }
    shape_of_conv s = conv_shape(call);
    int64_t cells;
    if (__builtin_mul_overflow(s.K, s.L, &cells) || cells > INT64_MAX / 64) {
        return port_fail(err, PORT_E_SHAPE, "convolution: more columns than memory has");
    }
    return w->dtype == x->dtype && y->dtype == x->dtype && (bias == NULL || bias->dtype == x->dtype)
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "convolution: tensors of %s, %s and out %s", port_dtype_name(x->dtype),
                           port_dtype_name(w->dtype), port_dtype_name(y->dtype));
}

static size_t
round_up(size_t size_bytes)
{
    return (size_bytes + 63) / 64 * 64;
}

/* Frames run in parallel in the reference if there are several, and then each product has one thread. Dilated ones and volumes that are transposed
 * or few come one after the other. */
static bool
is_serial(const port_kernel_call *call, const shape_of_conv *s)
{
    const port_conv_params *p = call->params;
    bool dilated = p->dilation[0] > 1 || p->dilation[1] > 1 || p->dilation[2] > 1;
    return s->N == 1 || (p->transposed ? s->spatial == 3 : dilated || (s->spatial == 3 && s->N <= 20));
}

enum { MAX_PARTS = 8 };

/* The same here, where the library's threads can be told. */
static port_chunks
frame_parts(const port_kernel_call *call, const shape_of_conv *s)
{
    int32_t num_threads = call->profile->num_threads < MAX_PARTS ? call->profile->num_threads : MAX_PARTS;
    bool alone = is_serial(call, s) || call->provider->set_num_threads_local == NULL;
    return port_chunks_by_elems(s->N, s->K * s->L, alone ? 1 : num_threads);
}

/* For each part one frame of one group: columns, output and input, each moved by up to 64 bytes; and the own loops' panel. Of stacked groups
 * one frame of all of them, and the batch's pointers. */
typedef struct conv_room {
    size_t columns_bytes, output_bytes, input_bytes, panel_bytes, all_bytes;
} conv_room;

static bool
is_of_halves(const port_conv_params *p)
{
    return p->halves == PORT_F16 || p->halves == PORT_BF16;
}

/* Whether the groups of a frame are one stack of products, as those of volumes are in the reference: a library may sum them otherwise. */
static bool
is_stacked(const port_kernel_call *call, const shape_of_conv *s)
{
    const port_conv_params *p = call->params;
    return s->spatial == 3 && s->groups > 1 && !p->transposed && !p->channels_last && !is_of_halves(p);
}

static conv_room
room_of(const port_kernel_call *call, const shape_of_conv *s)
{
    const port_conv_params *p = call->params;
    size_t size = port_dtype_size(call->in[0]->dtype);
    int64_t stack = is_stacked(call, s) ? s->groups : 1;
    conv_room room = {.columns_bytes = (size_t)(stack * s->K * s->L) * size,
                      .output_bytes = (size_t)(stack * s->group_out * s->num_out) * size,
                      .input_bytes = (size_t)(s->group_in * s->num_in) * size};
    int32_t num_threads = call->profile->num_threads;
    int64_t terms = p->transposed ? s->group_in : s->K, rows = p->channels_last ? s->L : (p->transposed ? s->K : s->group_out);
    room.panel_bytes = round_up(is_of_halves(p) ? port_half_matmul_scratch_bytes(rows, terms, num_threads)
                                                : port_matmul_scratch_bytes(terms, call->in[0]->dtype, num_threads));
    room.all_bytes = round_up(room.columns_bytes + 64) + round_up(room.output_bytes + 64) + round_up(room.input_bytes + 64) +
                     room.panel_bytes + (stack > 1 ? round_up((size_t)stack * 3 * sizeof(void *)) : 0);
    return room;
}

static size_t
conv_scratch_bytes(const port_kernel_call *call)
{
    shape_of_conv s = conv_shape(call);
    return (size_t)frame_parts(call, &s).count * room_of(call, &s).all_bytes;
}

/* ---------------------------------------------------------------- one frame */

typedef enum conv_way { CONV_BLAS, CONV_CHAIN, CONV_REF } conv_way;

typedef struct frame {
    const port_kernel_call *call;
    const port_conv_params *p;
    shape_of_conv s;
    conv_way how;
    size_t size; /* bytes of an element */
    int64_t n, g;
    char *columns, *input, *output, *panel, *pointers;
} frame;

static int64_t
param_at(const int64_t *of, const shape_of_conv *s, int32_t d, int64_t if_absent)
{
    int32_t from = d - (3 - s->spatial);
    return from < 0 ? if_absent : of[from];
}

/* Calls visit for each (kernel element, position of the smaller frame) with the place in the larger frame, -1 outside. `small` are
 * y's positions (x's if transposed). Kernel elements are outermost, for channels-last innermost: folding adds in this order. */
static void
for_each_tap(const frame *f, void (*visit)(const frame *f, int64_t kernel_idx, int64_t small_idx, int64_t large_idx))
{
    const shape_of_conv *s = &f->s;
    const int64_t *small = f->p->transposed ? s->in : s->out, *large = f->p->transposed ? s->out : s->in;
    int64_t step[3], pad[3], spread[3], place[3];
    for (int32_t d = 0; d < 3; d++) {
        step[d] = param_at(f->p->stride, s, d, 1);
        pad[d] = param_at(f->p->padding, s, d, 0);
        spread[d] = param_at(f->p->dilation, s, d, 1);
    }
    for (int64_t i = 0; i < s->num_kernel * s->L; i++) {
        int64_t k = f->p->channels_last ? i % s->num_kernel : i / s->L, l = f->p->channels_last ? i / s->num_kernel : i % s->L;
        int64_t kernel[3] = {k / (s->kernel[1] * s->kernel[2]), k / s->kernel[2] % s->kernel[1], k % s->kernel[2]};
        int64_t at[3] = {l / (small[1] * small[2]), l / small[2] % small[1], l % small[2]};
        bool inside = true;
        for (int32_t d = 0; d < 3; d++) {
            place[d] = at[d] * step[d] - pad[d] + kernel[d] * spread[d];
            inside = inside && place[d] >= 0 && place[d] < large[d];
        }
        visit(f, k, l, inside ? (place[0] * large[1] + place[1]) * large[2] + place[2] : -1);
    }
}

/* Element (channel c, position i) of a frame with `channels` channels of which this group has a part that starts at `first`. */
static int64_t
frame_offset(const frame *f, int64_t channels, int64_t positions, int64_t first, int64_t c, int64_t i)
{
    return f->p->channels_last ? i * channels + first + c : (first + c) * positions + i;
}

static void
unfold_tap(const frame *f, int64_t k, int64_t l, int64_t from)
{
    const shape_of_conv *s = &f->s;
    const char *x = (const char *)f->call->in[0]->data + (size_t)(f->n * s->C * s->num_in) * f->size;
    for (int64_t c = 0; c < s->group_in; c++) {
        int64_t to = f->p->channels_last ? l * s->K + k * s->group_in + c : (c * s->num_kernel + k) * s->L + l;
        if (from < 0) {
            memset(f->columns + (size_t)to * f->size, 0, f->size);
        } else {
            int64_t at = frame_offset(f, s->C, s->num_in, f->g * s->group_in, c, from);
            memcpy(f->columns + (size_t)to * f->size, x + (size_t)at * f->size, f->size);
        }
    }
}

/* To the halves' dtype, if the convolution is one of halves. */
static float
rounded(const frame *f, float value)
{
    switch (f->p->halves) {
    case PORT_F16: return port_f16_to_f32(port_f32_to_f16(value));
    case PORT_BF16: return port_bf16_to_f32(port_f32_to_bf16(value));
    default: return value;
    }
}

static void
fold_tap(const frame *f, int64_t k, int64_t l, int64_t to)
{
    const shape_of_conv *s = &f->s;
    for (int64_t c = 0; to >= 0 && c < s->group_out; c++) {
        int64_t from = f->p->channels_last ? l * s->K + k * s->group_out + c : (c * s->num_kernel + k) * s->L + l;
        int64_t at = f->p->channels_last ? to * s->group_out + c : c * s->num_out + to;
        if (f->size == 4) {
            float *output = (float *)(void *)f->output;
            output[at] = rounded(f, output[at] + ((const float *)(const void *)f->columns)[from]);
        } else {
            ((double *)(void *)f->output)[at] += ((const double *)(const void *)f->columns)[from];
        }
    }
}

/* The product of halves, rounded to them: ATen's own loops, or oneDNN's, as far as it is on. */
static void
multiply_halves(const frame *f, const port_matmul *product)
{
    const port_profile *profile = f->call->profile;
    bool last = f->p->channels_last, transposed = f->p->transposed;
    port_half_way way = {.order = PORT_HALF_QUARTERS, .fused = profile->capability != PORT_CAP_DEFAULT};
    if (f->p->halves == PORT_BF16 && profile->onednn_bf16 && product->M * product->N * product->K > PORT_ONEDNN_PRODUCT) {
        way = (port_half_way){.order = PORT_HALF_PAIRS, .fused = true, .block = last && product->K > 1024 ? 1024 : 512};
    } else if (last != transposed) {
        way.order = last ? PORT_HALF_DOT : PORT_HALF_SEQUENCE;
    }
    port_half_matmul_run(product, way, f->panel);
    float *made = product->y;
    for (int64_t i = 0; i < product->M * product->N; i++) {
        made[i] = rounded(f, made[i]);
    }
}

/* c (rows x cols, row-major) = a @ b + beta * c, asked of a BLAS as its transpose: cols come first there. */
static void
multiply(const frame *f, port_matrix a, port_matrix b, char *c, int64_t rows, int64_t cols, int64_t terms, double beta)
{
    port_dtype dtype = f->call->in[0]->dtype;
    bool trans_b = b.col_stride != 1, trans_a = a.col_stride != 1;
    port_blas_call blas = {.trans_a = trans_b, .trans_b = trans_a, .m = cols, .n = rows, .k = terms, .alpha = 1.0, .beta = beta,
                           .a = b.data, .b = a.data, .c = c, .lda = trans_b ? b.col_stride : b.row_stride,
                           .ldb = trans_a ? a.col_stride : a.row_stride, .ldc = cols};
    port_matmul own = {.M = rows, .N = cols, .K = terms, .alpha = 1.0, .beta = beta, .a = a, .b = b, .y = c, .y_dtype = dtype,
                       .y_row_stride = cols, .num_threads = f->call->profile->num_threads};
    if (is_of_halves(f->p)) {
        multiply_halves(f, &own);
        return;
    }
    if (f->how == CONV_BLAS && terms > 0 && rows > 0 && cols > 0 && port_blas_gemm(f->call->provider, dtype, blas)) {
        return;
    }
    port_matmul_run(&own, f->how == CONV_REF ? PORT_MATMUL_REF : PORT_MATMUL_CHAIN, f->panel);
}

/* The group's output starts as its bias, or as zeros. */
static void
start_output(const frame *f)
{
    const shape_of_conv *s = &f->s;
    const char *bias = f->call->in[2] == NULL ? NULL : (const char *)f->call->in[2]->data + (size_t)(f->g * s->group_out) * f->size;
    for (int64_t i = 0; i < s->num_out * s->group_out; i++) {
        int64_t c = f->p->channels_last ? i % s->group_out : i / s->num_out;
        if (bias != NULL) {
            memcpy(f->output + (size_t)i * f->size, bias + (size_t)c * f->size, f->size);
        } else {
            memset(f->output + (size_t)i * f->size, 0, f->size);
        }
    }
}

static void
forward_frame(const frame *f)
{
    const shape_of_conv *s = &f->s;
    port_dtype dtype = f->call->in[0]->dtype;
    const char *w = (const char *)f->call->in[1]->data + (size_t)(f->g * s->group_out * s->K) * f->size;
    double beta = f->call->in[2] != NULL ? 1.0 : 0.0;
    for_each_tap(f, unfold_tap);
    start_output(f);
    port_matrix weight = {w, dtype, s->K, 1}, columns = {f->columns, dtype, f->p->channels_last ? s->K : s->L, 1};
    if (f->p->channels_last) {
        multiply(f, columns, (port_matrix){w, dtype, 1, s->K}, f->output, s->L, s->group_out, s->K, beta);
    } else {
        multiply(f, weight, columns, f->output, s->group_out, s->L, s->K, beta);
    }
}

static void
add_bias(const frame *f)
{
    const shape_of_conv *s = &f->s;
    const port_view *bias = f->call->in[2];
    for (int64_t i = 0; bias != NULL && i < s->num_out * s->group_out; i++) {
        int64_t c = f->g * s->group_out + (f->p->channels_last ? i % s->group_out : i / s->num_out);
        if (f->size == 4) {
            float *output = (float *)(void *)f->output;
            output[i] = rounded(f, output[i] + ((const float *)(const void *)bias->data)[c]);
        } else {
            ((double *)(void *)f->output)[i] += ((const double *)(const void *)bias->data)[c];
        }
    }
}

/* columns (K, L) = w^T @ x, then each column's elements are added where they belong. */
static void
transposed_frame(const frame *f)
{
    const shape_of_conv *s = &f->s;
    port_dtype dtype = f->call->in[0]->dtype;
    const char *x = (const char *)f->call->in[0]->data + (size_t)(f->n * s->C * s->num_in) * f->size;
    const char *w = (const char *)f->call->in[1]->data + (size_t)(f->g * s->group_in * s->K) * f->size;
    bool last = f->p->channels_last;
    for (int64_t i = 0; i < s->group_in * s->num_in; i++) {
        int64_t c = last ? i % s->group_in : i / s->num_in, place = last ? i / s->group_in : i % s->num_in;
        int64_t from = frame_offset(f, s->C, s->num_in, f->g * s->group_in, c, place);
        memcpy(f->input + (size_t)i * f->size, x + (size_t)from * f->size, f->size);
    }
    if (last) {
        multiply(f, (port_matrix){f->input, dtype, s->group_in, 1}, (port_matrix){w, dtype, s->K, 1}, f->columns, s->L, s->K,
                 s->group_in, 0.0);
    } else {
        multiply(f, (port_matrix){w, dtype, 1, s->K}, (port_matrix){f->input, dtype, s->L, 1}, f->columns, s->K, s->L, s->group_in,
                 0.0);
    }
    memset(f->output, 0, (size_t)(s->group_out * s->num_out) * f->size);
    for_each_tap(f, fold_tap);
    add_bias(f);
}

static void
store_output(const frame *f)
{
    const shape_of_conv *s = &f->s;
    char *y = (char *)f->call->out[0]->data + (size_t)(f->n * s->O * s->num_out) * f->size;
    for (int64_t i = 0; i < s->num_out * s->group_out; i++) {
        int64_t c = f->p->channels_last ? i % s->group_out : i / s->num_out;
        int64_t place = f->p->channels_last ? i / s->group_out : i % s->num_out;
        int64_t to = frame_offset(f, s->O, s->num_out, f->g * s->group_out, c, place);
        memcpy(y + (size_t)to * f->size, f->output + (size_t)i * f->size, f->size);
    }
}

/* All groups of a frame: columns (groups, K, L), output (groups, O / groups, L). */
static void
stacked_frame(const frame *all)
{
    const shape_of_conv *s = &all->s;
    const port_view *w = all->call->in[1];
    const int64_t w_step = s->group_out * s->K, columns_step = s->K * s->L, output_step = s->group_out * s->L;
    const double beta = all->call->in[2] != NULL ? 1.0 : 0.0;
    frame f = *all;
    for (f.g = 0; f.g < s->groups; f.g++) {
        f.columns = all->columns + (size_t)(f.g * columns_step) * f.size;
        f.output = all->output + (size_t)(f.g * output_step) * f.size;
        for_each_tap(&f, unfold_tap);
        start_output(&f);
    }
    port_blas_call blas = {.m = s->L, .n = s->group_out, .k = s->K, .alpha = 1.0, .beta = beta, .a = all->columns, .b = w->data,
                           .c = all->output, .lda = s->L, .ldb = s->K, .ldc = s->L};
    bool done = output_step > 0 && s->K > 0 &&
                port_blas_gemm_batch(all->call->provider, w->dtype, blas, s->groups, columns_step, w_step, output_step, all->pointers);
    for (f.g = 0; f.g < s->groups; f.g++) {
        f.output = all->output + (size_t)(f.g * output_step) * f.size;
        if (!done) {
            port_matrix weight = {(const char *)w->data + (size_t)(f.g * w_step) * f.size, w->dtype, s->K, 1};
            port_matrix columns = {all->columns + (size_t)(f.g * columns_step) * f.size, w->dtype, s->L, 1};
            multiply(&f, weight, columns, f.output, s->group_out, s->L, s->K, beta);
        }
        store_output(&f);
    }
}

/* ---------------------------------------------------------------- all frames */

typedef struct conv_job {
    const port_kernel_call *call;
    shape_of_conv shape;
    conv_way how;
    port_chunks parts;
} conv_job;

static void
conv_part(void *opaque, int64_t part)
{
    const conv_job *job = opaque;
    const port_kernel_call *call = job->call;
    const shape_of_conv *s = &job->shape;
    frame f = {.call = call, .p = call->params, .s = *s, .how = job->how, .size = port_dtype_size(call->in[0]->dtype)};
    conv_room room = room_of(call, s);
    char *columns = (char *)call->scratch + (size_t)part * room.all_bytes, *output = columns + round_up(room.columns_bytes + 64);
    char *input = output + round_up(room.output_bytes + 64);
    f.panel = input + round_up(room.input_bytes + 64);
    int32_t num_threads = is_serial(call, s) ? call->profile->num_threads : 1;
    f.pointers = f.panel + room.panel_bytes;
    bool stacked = job->how == CONV_BLAS && is_stacked(call, s);
    int restore = job->how == CONV_BLAS ? port_provider_use_threads(call->provider, num_threads) : -1;
    int64_t begin = part * job->parts.size, end = begin + job->parts.size < s->N ? begin + job->parts.size : s->N;
    for (f.g = 0; f.g < (stacked ? 1 : s->groups); f.g++) {
        for (f.n = begin; f.n < end; f.n++) { /* frame n lies where it does in a tensor of all frames: modulo 64 bytes */
            f.columns = columns + (f.p->transposed && s->spatial == 3 ? 0 : (size_t)f.n * room.columns_bytes % 64);
            f.output = output + (size_t)f.n * room.output_bytes % 64;
            f.input = input + (size_t)f.n * room.input_bytes % 64;
            if (stacked) {
                stacked_frame(&f);
                continue;
            }
            if (f.p->transposed) {
                transposed_frame(&f);
            } else {
                forward_frame(&f);
            }
            store_output(&f);
        }
    }
    port_provider_restore_threads(call->provider, restore);
}

static void
conv_run(const port_kernel_call *call, conv_way how)
{
    conv_job job = {.call = call, .shape = conv_shape(call), .how = how};
    job.parts = frame_parts(call, &job.shape);
    port_parallel(job.shape.N > 0 ? job.parts.count : 0, call->profile->num_threads, conv_part, &job);
}

static void
conv_run_blas(const port_kernel_call *call)
{
    conv_run(call, CONV_BLAS);
}

static void
conv_run_chain(const port_kernel_call *call)
{
    conv_run(call, CONV_CHAIN);
}

static void
conv_run_ref(const port_kernel_call *call)
{
    conv_run(call, CONV_REF);
}

/* The first of a kind is the one taken when no variant is asked for. */
#define CONV_ROWS(T)                                                            \
    {"convolution", T, "blas", 0, conv_check, conv_scratch_bytes, conv_run_blas}, \
    {"convolution", T, "chain", 0, conv_check, conv_scratch_bytes, conv_run_chain}, \
    {"convolution", T, "ref", 0, conv_check, conv_scratch_bytes, conv_run_ref}

const port_kernel_row port_convolution_rows[] = {CONV_ROWS(PORT_F32), CONV_ROWS(PORT_F64), {.op = NULL}};
