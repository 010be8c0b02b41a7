/* pool.c -- pooling: what stands for a window of a frame.
 * x, y (N, C, ...) with 1 to 3 dimensions of space, any strides; F32 and F64.
 *     max_pool     the first greatest of a window and its place in the frame (NaN wins)
 *     avg_pool     sum over the window in order, divided by its size
 *     adaptive_avg_pool  windows from floor(i * in / out) to ceil((i + 1) * in / out)
 * Windows of F32 are taken many at a time, in the order of one: of all channels where they lie side by side; else of a row's columns, or,
 * where these are few, of a few channels. Of F64 one after the other.
 * Source: at::native MaxPoolKernel, AvgPoolKernel, AdaptiveAvgPoolKernel (BSD-3-Clause; restated). */
#include "windows.h"

#include <math.h>

enum {
    FEW_COLUMNS = 4, /* fewer go faster one window after the other */
    FEW_CHANNELS = 4 /* whose sums are taken at a time */
};

/* ---------------------------------------------------------------- one window */

/* The first greatest of a window, its place in a row-major frame of rows of in[1] x in[2]; and the sum in order. */
#define WINDOW(real)                                                                                                     \
    static real max_of_##real(const real *x, const port_window *w, const int64_t in[3], int64_t *place)                       \
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
    static real sum_of_##real(const real *x, const port_window *w)                                                            \
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

static double
window_sum(const port_view *x, const port_window *w, int64_t from)
{
    return x->dtype == PORT_F32 ? (double)sum_of_float((const float *)x->data + from, w) : sum_of_double((const double *)x->data + from, w);
}

static double
divide(const port_view *x, double a, double b)
{
    return x->dtype == PORT_F32 ? (double)((float)a / (float)b) : a / b;
}

/* ---------------------------------------------------------------- max_pool */

static int64_t *
places_of(const port_pooling *p)
{
    return p->call->num_out > 1 && p->call->out[1] != NULL ? p->call->out[1]->data : NULL;
}

static void
max_visit(const port_pooling *p, const port_window *w, int64_t channel, int64_t from, int64_t to)
{
    int64_t best_at, *places = places_of(p);
    (void)channel;
    if (p->x->dtype == PORT_F32) {
        ((float *)p->y->data)[to] = max_of_float((const float *)p->x->data + from, w, p->f.in, &best_at);
    } else {
        ((double *)p->y->data)[to] = max_of_double((const double *)p->x->data + from, w, p->f.in, &best_at);
    }
    if (places != NULL) {
        places[to] = best_at;
    }
}

static void
max_pixel(const port_pooling *p, const port_window *w, int64_t first, int64_t count, int64_t from, int64_t to)
{
    float *best = (float *)p->y->data + to;
    int32_t at[PORT_POOL_CHUNK];
    int64_t *places = places_of(p);
    (void)first;
    for (int64_t i = 0; i < count; i++) {
        best[i] = -INFINITY;
        at[i] = (int32_t)((w->s[0].begin * p->f.in[1] + w->s[1].begin) * p->f.in[2] + w->s[2].begin);
    }
    port_take_window(p, w, count, from, best, at);
    for (int64_t i = 0; i < count && places != NULL; i++) {
        places[to + i] = at[i];
    }
}

static void
max_stretch(port_stretch *s, int64_t to)
{
    const port_pooling *p = s->p;
    float best[PORT_POOL_CHUNK];
    int32_t at[PORT_POOL_CHUNK];
    int64_t *places = places_of(p), row = (s->w.s[0].begin * p->f.in[1] + s->w.s[1].begin) * p->f.in[2];
    for (int64_t i = 0; i < s->columns; i++) {
        best[i] = -INFINITY;
        at[i] = (int32_t)(uint32_t)(uint64_t)(row + p->spans[2][s->begin + i].begin - p->starts[s->begin + i]);
    }
    port_take_columns(s, best, at);
    port_spread(true, s->columns, best, (float *)p->y->data + to, p->f.out_step[2]);
    for (int64_t i = 0; i < s->columns && places != NULL; i++) {
        places[to + i * p->f.out_step[2]] = (int32_t)((uint32_t)at[i] + (uint32_t)p->starts[s->begin + i]);
    }
}

static void
max_pool_run(const port_kernel_call *call)
{
    port_pooling p = port_pooling_of(call, port_pool_span);
    if (p.x->dtype != PORT_F32 || port_view_elems(p.x) > INT32_MAX) {
        port_visit_windows(&p, max_visit);
    } else if (port_frames_channels_last(call)) {
        port_visit_pixels(&p, max_pixel);
    } else if (p.f.out[2] < FEW_COLUMNS) {
        port_visit_windows(&p, max_visit);
    } else {
        port_visit_stretches(&p, max_stretch, -INFINITY);
    }
}

/* ---------------------------------------------------------------- sums and what they are divided by */

PORT_INLINE float
ratio(float a, float b)
{
    return a / b;
}

PORT_DEFINE_MAP2(ratio_map, ratio)

/* y = x / divisor; or, with a step of 1, by a divisor for each. */
static void
divide_all(int64_t n, const float *x, const float *divisor, int64_t step, float *y)
{
    PORT_PICK_MAP(ratio_map, port_cpu_level_found())(n, x, 1, divisor, step, y);
}

/* What a window's sum is divided by; `inside`: how many places of the frame it covers. */
static int64_t
avg_divisor(const port_pool_params *p, const port_window *w, int64_t *inside)
{
    uint64_t size = 1; /* wraps, as the reference's does */
    *inside = 1;
    for (int32_t d = 0; d < 3; d++) {
        *inside *= w->s[d].end > w->s[d].begin ? w->s[d].end - w->s[d].begin : 0;
        size *= (uint64_t)w->s[d].whole;
    }
    return p->divisor != 0 ? p->divisor : (p->count_include_pad ? (int64_t)size : *inside);
}

static double
avg_of(const port_pooling *p, const port_window *w, double sum)
{
    int64_t inside, divisor = avg_divisor(p->p, w, &inside);
    return inside == 0 ? 0.0 : divide(p->x, sum, (double)divisor);
}

static void
avg_visit(const port_pooling *p, const port_window *w, int64_t channel, int64_t from, int64_t to)
{
    (void)channel;
    store(p->y, to, avg_of(p, w, window_sum(p->x, w, from)));
}

static void
avg_pixel(const port_pooling *p, const port_window *w, int64_t first, int64_t count, int64_t from, int64_t to)
{
    int64_t inside, divisor = avg_divisor(p->p, w, &inside);
    float *y = (float *)p->y->data + to, by = (float)(double)divisor;
    (void)first;
    memset(y, 0, (size_t)count * sizeof *y);
    if (inside != 0) {
        port_take_window(p, w, count, from, y, NULL);
        divide_all(count, y, &by, 0, y);
    }
}

static bool
same_length(const port_span *a, const port_span *b)
{
    return a->whole == b->whole && a->end - a->begin == b->end - b->begin;
}

/* What the sums of a stretch are divided by: the last one's, unless the windows differ. */
static const float *
divisors_of(port_stretch *s)
{
    const port_pooling *p = s->p;
    if (s->divided_from == s->begin && same_length(&s->divided[0], &s->w.s[0]) && same_length(&s->divided[1], &s->w.s[1])) {
        return s->divisors;
    }
    for (int64_t i = 0; i < s->columns; i++) {
        port_window w = s->w;
        int64_t inside, divisor;
        w.s[2] = p->spans[2][s->begin + i];
        divisor = avg_divisor(p->p, &w, &inside);
        s->divisors[i] = inside == 0 ? 1.0f : (float)(double)divisor;
    }
    s->divided[0] = s->w.s[0];
    s->divided[1] = s->w.s[1];
    s->divided_from = s->begin;
    return s->divisors;
}

static void
avg_stretch(port_stretch *s, int64_t to)
{
    float sums[PORT_POOL_CHUNK];
    memset(sums, 0, (size_t)s->columns * sizeof *sums);
    port_take_columns(s, sums, NULL);
    divide_all(s->columns, sums, divisors_of(s), 1, sums);
    port_spread(true, s->columns, sums, (float *)s->p->y->data + to, s->p->f.out_step[2]);
}

/* The sums of a window in FEW_CHANNELS channels, each in order: four sums that wait for nothing but themselves. */
static void
four_sums(const port_pooling *p, const port_window *w, int64_t from, float sums[FEW_CHANNELS])
{
    const float *x = (const float *)p->x->data + from;
    int64_t apart = p->x->strides[1];
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    for (int64_t a = w->s[0].begin; a < w->s[0].end; a++) {
        for (int64_t b = w->s[1].begin; b < w->s[1].end; b++) {
            const float *row = x + a * w->in_step[0] + b * w->in_step[1];
            for (int64_t c = w->s[2].begin; c < w->s[2].end; c++) {
                const float *at = row + c * w->in_step[2];
                s0 += at[0];
                s1 += at[apart];
                s2 += at[2 * apart];
                s3 += at[3 * apart];
            }
        }
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* What an output is, of its window's sum. */
typedef double (*mean_fn)(const port_pooling *p, const port_window *w, double sum);

typedef struct fours_job {
    const port_pooling *p;
    mean_fn mean;
} fours_job;

/* Rows of fours of channels. The last four of an item may begin before the others end: those are not stored again. */
static void
four_rows(const void *opaque, int64_t begin, int64_t end)
{
    const fours_job *job = opaque;
    const port_pooling *p = job->p;
    const port_frames *f = &p->f;
    int64_t fours = (f->C + FEW_CHANNELS - 1) / FEW_CHANNELS;
    for (int64_t i = begin; i < end; i++) {
        int64_t plane = i / f->out[1], four = plane / f->out[0], n = four / fours, c = four % fours * FEW_CHANNELS;
        int64_t place[3] = {plane % f->out[0], i % f->out[1], 0};
        int64_t skipped = c + FEW_CHANNELS > f->C ? c + FEW_CHANNELS - f->C : 0;
        c -= skipped;
        int64_t from = n * p->x->strides[0] + c * p->x->strides[1];
        int64_t to = n * p->y->strides[0] + c * p->y->strides[1] + place[0] * f->out_step[0] + place[1] * f->out_step[1];
        for (; place[2] < f->out[2]; place[2]++, to += f->out_step[2]) {
            port_window w = port_window_at(p, place);
            float sums[FEW_CHANNELS];
            four_sums(p, &w, from, sums);
            for (int64_t k = skipped; k < FEW_CHANNELS; k++) {
                store(p->y, to + k * p->y->strides[1], job->mean(p, &w, (double)sums[k]));
            }
        }
    }
}

static void
visit_fours(const port_pooling *p, mean_fn mean)
{
    fours_job job = {p, mean};
    int64_t fours = (p->f.C + FEW_CHANNELS - 1) / FEW_CHANNELS;
    port_deal(p->f.N * fours * p->f.out[0] * p->f.out[1], FEW_CHANNELS * p->f.out[2] * port_pooling_work(p), p->call->profile->num_threads, four_rows, &job);
}

static void
avg_pool_run(const port_kernel_call *call)
{
    port_pooling p = port_pooling_of(call, port_pool_span);
    if (p.x->dtype != PORT_F32) {
        port_visit_windows(&p, avg_visit);
    } else if (port_frames_channels_last(call)) {
        port_visit_pixels(&p, avg_pixel);
    } else if (p.f.out[2] >= FEW_COLUMNS) {
        port_visit_stretches(&p, avg_stretch, 0.0f);
    } else if (p.f.C >= FEW_CHANNELS) {
        visit_fours(&p, avg_of);
    } else {
        port_visit_windows(&p, avg_visit);
    }
}

/* ---------------------------------------------------------------- adaptive_avg_pool */

/* The mean of a window of halves in three dimensions, every step rounded. */
static double
mean_of_halves(const port_view *x, port_dtype half, const port_window *w, int64_t from)
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

/* The reference divides by each side of the window in turn; for channels-last by its size, in whole vectors of 256 bits of channels. */
static double
mean_by_sides(const port_pooling *p, const port_window *w, double sum)
{
    for (int32_t d = 0; d < 3; d++) {
        sum = divide(p->x, sum, (double)w->s[d].whole);
    }
    return sum;
}

static void
halves_visit(const port_pooling *p, const port_window *w, int64_t channel, int64_t from, int64_t to)
{
    (void)channel;
    store(p->y, to, mean_of_halves(p->x, p->p->given, w, from));
}

static void
adaptive_visit(const port_pooling *p, const port_window *w, int64_t channel, int64_t from, int64_t to)
{
    int64_t lanes = p->x->dtype == PORT_F32 ? 8 : 4;
    double sum = window_sum(p->x, w, from);
    if (p->f.C > 1 && p->x->strides[1] == 1 && channel < p->f.C - p->f.C % lanes) {
        store(p->y, to, divide(p->x, sum, (double)w->s[0].whole * (double)w->s[1].whole * (double)w->s[2].whole));
    } else {
        store(p->y, to, mean_by_sides(p, w, sum));
    }
}

static void
adaptive_pixel(const port_pooling *p, const port_window *w, int64_t first, int64_t count, int64_t from, int64_t to)
{
    int64_t whole = p->f.C - p->f.C % 8 - first;
    float *y = (float *)p->y->data + to, size = (float)((double)w->s[0].whole * (double)w->s[1].whole * (double)w->s[2].whole);
    whole = whole < 0 ? 0 : (whole < count ? whole : count);
    memset(y, 0, (size_t)count * sizeof *y);
    port_take_window(p, w, count, from, y, NULL);
    divide_all(whole, y, &size, 0, y);
    for (int32_t d = 0; d < 3; d++) {
        float side = (float)w->s[d].whole;
        divide_all(count - whole, y + whole, &side, 0, y + whole);
    }
}

static void
adaptive_run(const port_kernel_call *call)
{
    port_pooling p = port_pooling_of(call, port_adaptive_span);
    bool is_channels_last = p.f.C > 1 && p.x->strides[1] == 1;
    if (p.x->ndim == 5 && p.p->given != p.x->dtype && !is_channels_last) {
        port_visit_windows(&p, halves_visit);
    } else if (p.x->dtype == PORT_F32 && port_frames_channels_last(call)) {
        port_visit_pixels(&p, adaptive_pixel);
    } else if (p.x->dtype == PORT_F32 && !is_channels_last && p.f.C >= FEW_CHANNELS) {
        visit_fours(&p, mean_by_sides);
    } else {
        port_visit_windows(&p, adaptive_visit);
    }
}

/* ---------------------------------------------------------------- checks, rows */

static port_status
pool_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_frames_check("pool", call, err);
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
    return port_frames_check("adaptive pool", call, err);
}

#define TWO_ROWS(op, check, run) {op, PORT_F32, "ref", 0, check, port_pooling_scratch_bytes, run}, {op, PORT_F64, "ref", 0, check, port_pooling_scratch_bytes, run}

const port_kernel_row port_pool_rows[] = {
    TWO_ROWS("max_pool", pool_check, max_pool_run),
    TWO_ROWS("avg_pool", pool_check, avg_pool_run),
    TWO_ROWS("adaptive_avg_pool", adaptive_check, adaptive_run),
    {.op = NULL},
};
