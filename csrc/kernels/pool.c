/* pool.c -- windows over frames: pooling, interpolation, sampling at given places.
 * x, y (N, C, ...) with 1 to 3 dimensions of space, any strides; F32 and F64.
 *     max_pool     the first greatest of a window and its place in the frame (NaN wins)
 *     avg_pool     sum over the window in order, divided by its size
 *     adaptive_avg_pool  windows from floor(i * in / out) to ceil((i + 1) * in / out)
 *     resize       nearest, linear and cubic interpolation: taps and weights per dimension, dimensions from the outermost inwards
 * Source: at::native MaxPoolKernel, AvgPoolKernel, AdaptiveAvgPoolKernel, UpSampleKernel, GridSamplerKernel (BSD-3-Clause; restated).
 * With avx2 and up their compiler fuses a * b + c. */
#include "extremes.h"

#include <math.h>

typedef struct frames {
    int32_t spatial;
    int64_t N, C, in[3], out[3], in_step[3], out_step[3]; /* fewer dimensions: leading ones of size 1 */
    int64_t channel; /* being visited; the first of CHANNELS or fewer, of which there are `count`, where they are visited together */
    int64_t count;
} frames;

enum { CHANNELS = 128 };

static frames
frames_of(const port_view *x, const port_view *y)
{
    frames f = {.spatial = x->ndim - 2, .N = x->shape[0], .C = x->shape[1]};
    for (int32_t d = 0; d < 3; d++) {
        int32_t from = d - (3 - f.spatial);
        f.in[d] = from < 0 ? 1 : x->shape[2 + from];
        f.out[d] = from < 0 ? 1 : y->shape[2 + from];
        f.in_step[d] = from < 0 ? 0 : x->strides[2 + from];
        f.out_step[d] = from < 0 ? 0 : y->strides[2 + from];
    }
    return f;
}

static int64_t
param_of(const int64_t *of, const frames *f, int32_t d, int64_t if_absent)
{
    int32_t from = d - (3 - f->spatial);
    return from < 0 ? if_absent : of[from];
}

PORT_INLINE double
load(const port_view *view, int64_t at)
{
    return view->dtype == PORT_F32 ? (double)((const float *)view->data)[at] : ((const double *)view->data)[at];
}

static void
store(const port_view *view, int64_t at, double value)
{
    if (view->dtype == PORT_F32) {
        ((float *)view->data)[at] = (float)value;
    } else {
        ((double *)view->data)[at] = value;
    }
}

static port_status
frames_check(const char *op, const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *y = call->out[0];
    if (call->params == NULL || x->ndim < 3 || x->ndim > 5 || y->ndim != x->ndim || x->shape[0] != y->shape[0] ||
        x->shape[1] != y->shape[1] || x->dtype != y->dtype) {
        return port_fail(err, PORT_E_SHAPE, "%s: expected (N, C, ...) of 3 to 5 dimensions and one dtype, got %d and out %d", op,
                         x->ndim, y->ndim);
    }
    for (int32_t d = 2; d < x->ndim; d++) {
        if (x->shape[d] < 1) {
            return port_fail(err, PORT_E_SHAPE, "%s: dimension %d is empty", op, d);
        }
    }
    return PORT_OK;
}

/* Calls visit for every element of y: its offset, the offset of its channel in x, its place. */
typedef void (*frame_visit)(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place);

/* Channels of items, by their number; where channels lie side by side, rows of places. */
typedef struct frame_job {
    const port_kernel_call *call;
    frame_visit visit;
} frame_job;

static void
visit_channels(const void *opaque, int64_t begin, int64_t end)
{
    const frame_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    frames f = frames_of(x, y);
    int64_t place[3];
    for (int64_t i = begin; i < end; i++) {
        int64_t n = i / f.C, c = i % f.C;
        int64_t from = n * x->strides[0] + c * x->strides[1], to = n * y->strides[0] + c * y->strides[1];
        f.channel = c;
        for (place[0] = 0; place[0] < f.out[0]; place[0]++) {
            for (place[1] = 0; place[1] < f.out[1]; place[1]++) {
                for (place[2] = 0; place[2] < f.out[2]; place[2]++) {
                    job->visit(job->call, &f, from,
                               to + place[0] * f.out_step[0] + place[1] * f.out_step[1] + place[2] * f.out_step[2], place);
                }
            }
        }
    }
}

static void
visit_rows(const void *opaque, int64_t begin, int64_t end)
{
    const frame_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    frames f = frames_of(x, y);
    for (int64_t i = begin; i < end; i++) {
        int64_t n = i / (f.out[0] * f.out[1]), place[3] = {i / f.out[1] % f.out[0], i % f.out[1], 0};
        for (; place[2] < f.out[2]; place[2]++) {
            int64_t to = n * y->strides[0] + place[0] * f.out_step[0] + place[1] * f.out_step[1] + place[2] * f.out_step[2];
            for (f.channel = 0; f.channel < f.C; f.channel += CHANNELS) {
                f.count = f.C - f.channel < CHANNELS ? f.C - f.channel : CHANNELS;
                job->visit(job->call, &f, n * x->strides[0] + f.channel, to + f.channel, place);
            }
        }
    }
}

/* Whether x and all that is made are F32 (places I64) with their channels side by side, and places fit in 32 bits. */
static bool
channels_together(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    bool together = x->dtype == PORT_F32 && x->shape[1] > 1 && x->strides[1] == 1 && port_view_elems(x) <= INT32_MAX;
    for (int32_t k = 0; k < call->num_out; k++) {
        together = together && (call->out[k] == NULL || call->out[k]->strides[1] == 1);
    }
    return together;
}

/* all: the same as `visit` for several channels that lie side by side; NULL if there is no such way. */
static void
for_each_output(const port_kernel_call *call, frame_visit visit, frame_visit all)
{
    const port_view *x = call->in[0], *y = call->out[0];
    int64_t channels = x->shape[0] * x->shape[1], elems = port_view_elems(x) + port_view_elems(y);
    frame_job job = {call, visit};
    if (all != NULL && channels_together(call) && elems > 0) {
        frames f = frames_of(x, y);
        int64_t rows = f.N * f.out[0] * f.out[1];
        job.visit = all;
        port_deal(rows, rows > 0 ? elems / rows : 0, call->profile->num_threads, visit_rows, &job);
        return;
    }
    port_deal(channels, channels > 0 ? elems / channels : 0, call->profile->num_threads, visit_channels, &job);
}

/* ---------------------------------------------------------------- pooling */

/* Which places [begin, end) of one dimension of the frame a window covers, and how many it would with the padding. */
typedef struct span {
    int64_t begin, end, whole;
} span;

static span
pool_span(const port_pool_params *p, const frames *f, int32_t d, int64_t place)
{
    int64_t pad = param_of(p->padding, f, d, 0), spread = param_of(p->dilation, f, d, 1), kernel = param_of(p->kernel, f, d, 1);
    span s = {.begin = place * param_of(p->stride, f, d, 1) - pad};
    s.end = s.begin + (kernel - 1) * spread + 1;
    s.end = s.end < f->in[d] + pad ? s.end : f->in[d] + pad;
    s.whole = s.end - s.begin;
    s.end = s.end < f->in[d] ? s.end : f->in[d];
    s.begin += s.begin < 0 ? (spread - 1 - s.begin) / spread * spread : 0;
    return s;
}

static span
adaptive_span(const port_pool_params *unused, const frames *f, int32_t d, int64_t place)
{
    (void)unused;
    span s = {place * f->in[d] / f->out[d], ((place + 1) * f->in[d] + f->out[d] - 1) / f->out[d], 0};
    s.whole = s.end - s.begin;
    return s;
}

/* The scratch holds the span of each place of each dimension, one dimension after the other. */
static size_t
spans_scratch_bytes(const port_kernel_call *call)
{
    frames f = frames_of(call->in[0], call->out[0]);
    return (size_t)(f.out[0] + f.out[1] + f.out[2]) * sizeof(span);
}

static void
for_each_window(const port_kernel_call *call, span (*span_of)(const port_pool_params *p, const frames *f, int32_t d, int64_t place),
                frame_visit visit, frame_visit all)
{
    frames f = frames_of(call->in[0], call->out[0]);
    span *table = call->scratch;
    for (int32_t d = 0; d < 3; d++) {
        for (int64_t i = 0; i < f.out[d]; i++) {
            *table++ = span_of(call->params, &f, d, i);
        }
    }
    for_each_output(call, visit, all);
}

/* What an output sees: its spans, how far apart the places of one are, and how far in x. */
typedef struct window {
    span s[3];
    int64_t step[3], in_step[3];
} window;

static inline window
window_of(const port_kernel_call *call, const frames *f, const int64_t *place)
{
    const span *table = call->scratch;
    window w = {.s = {table[place[0]], table[f->out[0] + place[1]], table[f->out[0] + f->out[1] + place[2]]}};
    for (int32_t d = 0; d < 3; d++) {
        w.step[d] = 1;
        w.in_step[d] = f->in_step[d];
    }
    return w;
}

/* The first greatest of a window, its place in a row-major frame of rows of in[1] x in[2]; and the sum in order. */
#define WINDOW(real)                                                                                                     \
    static real max_of_##real(const real *x, const window *w, const int64_t in[3], int64_t *place)                       \
    {                                                                                                                    \
        real best = -(real)INFINITY;                                                                                     \
        *place = (w->s[0].begin * in[1] + w->s[1].begin) * in[2] + w->s[2].begin;                                        \
        for (int64_t a = w->s[0].begin; a < w->s[0].end; a += w->step[0]) {                                              \
            for (int64_t b = w->s[1].begin; b < w->s[1].end; b += w->step[1]) {                                          \
                const real *row = x + a * w->in_step[0] + b * w->in_step[1];                                             \
                for (int64_t c = w->s[2].begin; c < w->s[2].end; c += w->step[2]) {                                      \
                    real v = row[c * w->in_step[2]];                                                                     \
                    if (v > best || v != v) {                                                                            \
                        best = v;                                                                                        \
                        *place = (a * in[1] + b) * in[2] + c;                                                            \
                    }                                                                                                    \
                }                                                                                                        \
            }                                                                                                            \
        }                                                                                                                \
        return best;                                                                                                     \
    }                                                                                                                    \
    static real sum_of_##real(const real *x, const window *w)                                                            \
    {                                                                                                                    \
        real sum = 0;                                                                                                    \
        for (int64_t a = w->s[0].begin; a < w->s[0].end; a++) {                                                          \
            for (int64_t b = w->s[1].begin; b < w->s[1].end; b++) {                                                      \
                const real *row = x + a * w->in_step[0] + b * w->in_step[1];                                             \
                for (int64_t c = w->s[2].begin; c < w->s[2].end; c++) {                                                  \
                    sum += row[c * w->in_step[2]];                                                                       \
                }                                                                                                        \
            }                                                                                                            \
        }                                                                                                                \
        return sum;                                                                                                      \
    }
WINDOW(float)
WINDOW(double)

static void
max_pool_visit(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    const port_view *x = call->in[0], *y = call->out[0], *places = call->num_out > 1 ? call->out[1] : NULL;
    window w = window_of(call, f, place);
    int64_t best_at;
    for (int32_t d = 0; d < 3; d++) {
        w.step[d] = param_of(((const port_pool_params *)call->params)->dilation, f, d, 1);
    }
    if (x->dtype == PORT_F32) {
        ((float *)y->data)[to] = max_of_float((const float *)x->data + from, &w, f->in, &best_at);
    } else {
        ((double *)y->data)[to] = max_of_double((const double *)x->data + from, &w, f->in, &best_at);
    }
    if (places != NULL) {
        ((int64_t *)places->data)[to] = best_at;
    }
}

/* Several channels at once, which lie side by side. */
static void
max_pool_all(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    const float *x = (const float *)call->in[0]->data + from;
    window w = window_of(call, f, place);
    float best[CHANNELS];
    int32_t at[CHANNELS];
    for (int32_t d = 0; d < 3; d++) {
        w.step[d] = param_of(((const port_pool_params *)call->params)->dilation, f, d, 1);
    }
    for (int64_t i = 0; i < f->count; i++) {
        best[i] = -INFINITY;
        at[i] = (int32_t)((w.s[0].begin * f->in[1] + w.s[1].begin) * f->in[2] + w.s[2].begin);
    }
    for (int64_t a = w.s[0].begin; a < w.s[0].end; a += w.step[0]) {
        for (int64_t b = w.s[1].begin; b < w.s[1].end; b += w.step[1]) {
            for (int64_t c = w.s[2].begin; c < w.s[2].end; c += w.step[2]) {
                const float *row = x + a * w.in_step[0] + b * w.in_step[1] + c * w.in_step[2];
                port_greatest_columns((int32_t)((a * f->in[1] + b) * f->in[2] + c), row, f->count, best, at);
            }
        }
    }
    memcpy((float *)call->out[0]->data + to, best, (size_t)f->count * sizeof *best);
    for (int64_t i = 0; i < f->count && call->num_out > 1 && call->out[1] != NULL; i++) {
        ((int64_t *)call->out[1]->data)[to + i] = at[i];
    }
}

PORT_INLINE float
plus(float a, float b)
{
    return a + b;
}

PORT_INLINE float
ratio(float a, float b)
{
    return a / b;
}

PORT_DEFINE_MAP2(plus_map, plus)
PORT_DEFINE_MAP2(ratio_map, ratio)

static void
window_sums(const float *x, const window *w, int64_t count, float *sums)
{
    memset(sums, 0, (size_t)count * sizeof *sums);
    for (int64_t a = w->s[0].begin; a < w->s[0].end; a++) {
        for (int64_t b = w->s[1].begin; b < w->s[1].end; b++) {
            for (int64_t c = w->s[2].begin; c < w->s[2].end; c++) {
                const float *row = x + a * w->in_step[0] + b * w->in_step[1] + c * w->in_step[2];
                PORT_PICK_MAP(plus_map, port_cpu_level_found())(count, sums, 1, row, 1, sums);
            }
        }
    }
}

/* y = x / divisor */
static void
divide_all(int64_t n, const float *x, float divisor, float *y)
{
    PORT_PICK_MAP(ratio_map, port_cpu_level_found())(n, x, 1, &divisor, 0, y);
}

static double
window_sum(const port_view *x, const window *w, int64_t from)
{
    return x->dtype == PORT_F32 ? (double)sum_of_float((const float *)x->data + from, w) : sum_of_double((const double *)x->data + from, w);
}

static double
divide(const port_view *x, double a, double b)
{
    return x->dtype == PORT_F32 ? (double)((float)a / (float)b) : a / b;
}

/* What a window's sum is divided by; `inside`: how many places of the frame it covers. */
static int64_t
avg_divisor(const port_pool_params *p, const window *w, int64_t *inside)
{
    uint64_t size = 1; /* wraps, as the reference's does */
    *inside = 1;
    for (int32_t d = 0; d < 3; d++) {
        *inside *= w->s[d].end > w->s[d].begin ? w->s[d].end - w->s[d].begin : 0;
        size *= (uint64_t)w->s[d].whole;
    }
    return p->divisor != 0 ? p->divisor : (p->count_include_pad ? (int64_t)size : *inside);
}

static void
avg_pool_all(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    window w = window_of(call, f, place);
    int64_t inside, divisor = avg_divisor(call->params, &w, &inside);
    float sums[CHANNELS], *y = (float *)call->out[0]->data + to;
    window_sums((const float *)call->in[0]->data + from, &w, f->count, sums);
    if (inside == 0) {
        memset(y, 0, (size_t)f->count * sizeof *y);
    } else {
        divide_all(f->count, sums, (float)(double)divisor, y);
    }
}

static void
avg_pool_visit(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    window w = window_of(call, f, place);
    int64_t inside, divisor = avg_divisor(call->params, &w, &inside);
    store(call->out[0], to, inside == 0 ? 0.0 : divide(call->in[0], window_sum(call->in[0], &w, from), (double)divisor));
}

/* The mean of a window of halves in three dimensions, every step rounded. */
static double
mean_of_halves(const port_view *x, port_dtype half, const window *w, int64_t from)
{
    float sum = 0.0f;
    for (int64_t a = w->s[0].begin; a < w->s[0].end; a++) {
        for (int64_t b = w->s[1].begin; b < w->s[1].end; b++) {
            for (int64_t c = w->s[2].begin; c < w->s[2].end; c++) {
                sum = port_rounded(half, sum + (float)load(x, from + a * w->in_step[0] + b * w->in_step[1] + c * w->in_step[2]));
            }
        }
    }
    for (int32_t d = 0; d < 3; d++) {
        sum = port_rounded(half, sum / (float)w->s[d].whole);
    }
    return (double)sum;
}

static void
adaptive_visit(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    window w = window_of(call, f, place);
    port_dtype given = ((const port_pool_params *)call->params)->given;
    bool is_channels_last = f->C > 1 && call->in[0]->strides[1] == 1;
    if (call->in[0]->ndim == 5 && given != call->in[0]->dtype && !is_channels_last) {
        store(call->out[0], to, mean_of_halves(call->in[0], given, &w, from));
        return;
    }
    double sum = window_sum(call->in[0], &w, from);
    /* The reference divides by each side of the window in turn; for channels-last by its size, in whole vectors of 256 bits of channels. */
    int64_t lanes = call->in[0]->dtype == PORT_F32 ? 8 : 4, channel = to % (f->C > 0 ? f->C : 1);
    bool in_vector = is_channels_last && channel < f->C - f->C % lanes;
    double size = 1.0;
    for (int32_t d = 0; d < 3; d++) {
        size *= (double)w.s[d].whole;
        sum = in_vector ? sum : divide(call->in[0], sum, (double)w.s[d].whole);
    }
    store(call->out[0], to, in_vector ? divide(call->in[0], sum, size) : sum);
}

/* The whole vectors of channels by the window's size, the rest by each side in turn. */
static void
adaptive_all(const port_kernel_call *call, const frames *f, int64_t from, int64_t to, const int64_t *place)
{
    window w = window_of(call, f, place);
    int64_t whole = f->C - f->C % 8 - f->channel;
    float sums[CHANNELS], *y = (float *)call->out[0]->data + to;
    whole = whole < 0 ? 0 : (whole < f->count ? whole : f->count);
    window_sums((const float *)call->in[0]->data + from, &w, f->count, sums);
    divide_all(whole, sums, (float)((double)w.s[0].whole * (double)w.s[1].whole * (double)w.s[2].whole), y);
    for (int32_t d = 0; d < 3; d++) {
        divide_all(f->count - whole, sums + whole, (float)w.s[d].whole, sums + whole);
    }
    memcpy(y + whole, sums + whole, (size_t)(f->count - whole) * sizeof *y);
}

static port_status
pool_check(const port_kernel_call *call, port_error *err)
{
    port_status status = frames_check("pool", call, err);
    const port_pool_params *p = call->params;
    for (int32_t d = 0; status == PORT_OK && d < call->in[0]->ndim - 2; d++) {
        if (p->kernel[d] < 1 || p->stride[d] < 1 || p->dilation[d] < 1 || p->padding[d] < 0 || 2 * p->padding[d] > p->kernel[d]) {
            return port_fail(err, PORT_E_VALUE, "pool: a window of %lld with stride %lld and padding %lld", (long long)p->kernel[d],
                             (long long)p->stride[d], (long long)p->padding[d]);
        }
    }
    if (status == PORT_OK && call->num_out > 1 && call->out[1]->dtype != PORT_I64) {
        return port_fail(err, PORT_E_DTYPE, "pool: places of %s, expected I64", port_dtype_name(call->out[1]->dtype));
    }
    return status;
}

static port_status
adaptive_check(const port_kernel_call *call, port_error *err)
{
    return frames_check("adaptive pool", call, err);
}

static void
max_pool_run(const port_kernel_call *call)
{
    for_each_window(call, pool_span, max_pool_visit, max_pool_all);
}

static void
avg_pool_run(const port_kernel_call *call)
{
    for_each_window(call, pool_span, avg_pool_visit, avg_pool_all);
}

static void
adaptive_run(const port_kernel_call *call)
{
    for_each_window(call, adaptive_span, adaptive_visit, adaptive_all);
}

#define TWO_ROWS(op, check, scratch, run) {op, PORT_F32, "ref", 0, check, scratch, run}, {op, PORT_F64, "ref", 0, check, scratch, run}

const port_kernel_row port_pool_rows[] = {
    TWO_ROWS("max_pool", pool_check, spans_scratch_bytes, max_pool_run),
    TWO_ROWS("avg_pool", pool_check, spans_scratch_bytes, avg_pool_run),
    TWO_ROWS("adaptive_avg_pool", adaptive_check, spans_scratch_bytes, adaptive_run),
    {.op = NULL},
};
