/* windows.c -- which windows of a frame pooling looks at, and ways to go through them. See windows.h. */
#include "windows.h"
#include "window_rows.h"

static int64_t
param_of(const int64_t *of, const port_frames *f, int32_t d, int64_t if_absent)
{
    int32_t from = d - (3 - f->spatial);
    return from < 0 ? if_absent : of[from];
}

port_span
port_pool_span(const port_pool_params *p, const port_frames *f, int32_t d, int64_t place)
{
    int64_t pad = param_of(p->padding, f, d, 0), spread = param_of(p->dilation, f, d, 1), kernel = param_of(p->kernel, f, d, 1);
    port_span s = {.begin = place * param_of(p->stride, f, d, 1) - pad};
    s.end = s.begin + (kernel - 1) * spread + 1;
    s.end = s.end < f->in[d] + pad ? s.end : f->in[d] + pad;
    s.whole = s.end - s.begin;
    s.end = s.end < f->in[d] ? s.end : f->in[d];
    s.begin += s.begin < 0 ? (spread - 1 - s.begin) / spread * spread : 0;
    return s;
}

port_span
port_adaptive_span(const port_pool_params *unused, const port_frames *f, int32_t d, int64_t place)
{
    (void)unused;
    port_span s = {place * f->in[d] / f->out[d], ((place + 1) * f->in[d] + f->out[d] - 1) / f->out[d], 0};
    s.whole = s.end - s.begin;
    return s;
}

/* The span of each place of each dimension, one dimension after the other, then where columns start. */
size_t
port_pooling_scratch_bytes(const port_kernel_call *call)
{
    port_frames f = port_frames_of(call->in[0], call->out[0]);
    return (size_t)(f.out[0] + f.out[1] + f.out[2]) * sizeof(port_span) + (size_t)f.out[2] * sizeof(int32_t);
}

/* Of which columns of y the k'th place of a window lies inside the frame. */
static struct port_reach
reach_of(const port_pooling *p, int64_t k)
{
    int64_t shift = k * p->spread[2] - p->padding, inside = p->f.in[2] - 1 - shift;
    return (struct port_reach){shift < 0 ? (p->stride - 1 - shift) / p->stride : 0, inside < 0 ? 0 : inside / p->stride + 1};
}

port_pooling
port_pooling_of(const port_kernel_call *call, port_span_fn span_of)
{
    port_pooling p = {.call = call, .x = call->in[0], .y = call->out[0], .p = call->params};
    port_span *table = call->scratch;
    p.f = port_frames_of(p.x, p.y);
    for (int32_t d = 0; d < 3; d++) {
        p.spans[d] = table;
        p.spread[d] = span_of == port_pool_span ? param_of(p.p->dilation, &p.f, d, 1) : 1;
        for (int64_t i = 0; i < p.f.out[d]; i++) {
            *table++ = span_of(p.p, &p.f, d, i);
        }
    }
    if (span_of == port_pool_span) {
        int32_t *starts = (int32_t *)(void *)table;
        p.stride = param_of(p.p->stride, &p.f, 2, 1);
        p.padding = param_of(p.p->padding, &p.f, 2, 0);
        for (int64_t i = 0; i < p.f.out[2]; i++) {
            starts[i] = (int32_t)(i * p.stride);
        }
        p.starts = starts;
        for (int64_t k = 0; k < PORT_POOL_NEAR; k++) {
            p.reach[k] = reach_of(&p, k);
        }
    }
    p.pick = port_pick_for(true);
    return p;
}

/* ---------------------------------------------------------------- one window after the other */

typedef struct visit_job {
    const port_pooling *p;
    port_window_fn visit;
} visit_job;

static void
visit_rows(const void *opaque, int64_t begin, int64_t end)
{
    const visit_job *job = opaque;
    const port_pooling *p = job->p;
    for (int64_t i = begin; i < end; i++) {
        port_frame_row row = port_frame_row_of(p->x, p->y, &p->f, i);
        for (int64_t column = 0; column < p->f.out[2]; column++) {
            port_window w = port_window_at(p, (const int64_t[3]){row.place[0], row.place[1], column});
            job->visit(p, &w, row.channel, row.from, row.to + column * p->f.out_step[2]);
        }
    }
}

void
port_visit_windows(const port_pooling *p, port_window_fn visit)
{
    visit_job job = {p, visit};
    port_deal(p->f.N * p->f.C * p->f.out[0] * p->f.out[1], p->f.out[2] * port_pooling_work(p), p->call->profile->num_threads, visit_rows, &job);
}

/* ---------------------------------------------------------------- windows of channels that lie side by side */

typedef struct pixel_job {
    const port_pooling *p;
    port_pixel_fn pixel;
} pixel_job;

static void
pixel_rows(const void *opaque, int64_t begin, int64_t end)
{
    const pixel_job *job = opaque;
    const port_pooling *p = job->p;
    const port_frames *f = &p->f;
    for (int64_t i = begin; i < end; i++) {
        int64_t plane = i / f->out[1], n = plane / f->out[0], place[3] = {plane % f->out[0], i % f->out[1], 0};
        int64_t from = n * p->x->strides[0], to = n * p->y->strides[0] + place[0] * f->out_step[0] + place[1] * f->out_step[1];
        port_window w = port_window_at(p, place);
        for (; place[2] < f->out[2]; place[2]++) {
            w.s[2] = p->spans[2][place[2]];
            for (int64_t c = 0; c < f->C; c += PORT_POOL_CHUNK) {
                job->pixel(p, &w, c, f->C - c < PORT_POOL_CHUNK ? f->C - c : PORT_POOL_CHUNK, from + c, to + place[2] * f->out_step[2] + c);
            }
        }
    }
}

void
port_visit_pixels(const port_pooling *p, port_pixel_fn pixel)
{
    pixel_job job = {p, pixel};
    port_deal(p->f.N * p->f.out[0] * p->f.out[1], p->f.out[2] * p->f.C * port_pooling_work(p), p->call->profile->num_threads, pixel_rows, &job);
}

/* Places of windows, a number at a time: rows of floats, one for each window, and their places in the frame. */
typedef struct gathered {
    int32_t num;
    const float *rows[PORT_POOL_ROWS];
    int32_t places[PORT_POOL_ROWS];
} gathered;

/* Takes what was gathered: the greatest so far and their places, or (at is NULL) the sums so far. */
static void
take(gathered *g, int64_t n, float *values, int32_t *at)
{
    if (at != NULL) {
        port_greatest_rows(g->num, g->rows, g->places, n, values, at);
    } else {
        port_sum_rows(g->num, g->rows, n, values);
    }
    g->num = 0;
}

void
port_take_window(const port_pooling *p, const port_window *w, int64_t count, int64_t from, float *values, int32_t *at)
{
    const float *x = (const float *)p->x->data + from;
    gathered g = {.num = 0};
    for (int64_t a = w->s[0].begin; a < w->s[0].end; a += w->step[0]) {
        for (int64_t b = w->s[1].begin; b < w->s[1].end; b += w->step[1]) {
            for (int64_t c = w->s[2].begin; c < w->s[2].end; c += w->step[2]) {
                if (g.num == PORT_POOL_ROWS) {
                    take(&g, count, values, at);
                }
                g.places[g.num] = (int32_t)((a * p->f.in[1] + b) * p->f.in[2] + c);
                g.rows[g.num++] = x + a * w->in_step[0] + b * w->in_step[1] + c * w->in_step[2];
            }
        }
    }
    take(&g, count, values, at);
}

/* ---------------------------------------------------------------- windows of a row's columns */

/* The k'th place of all windows in a row of x; what lies outside is filled. */
static const float *
columns_of(port_stretch *s, const float *row, int64_t k, float *spare)
{
    const port_pooling *p = s->p;
    struct port_reach reach = k < PORT_POOL_NEAR ? p->reach[k] : reach_of(p, k);
    int64_t step = p->f.in_step[2], shift = k * p->spread[2] - p->padding;
    int64_t first = reach.begin > s->begin ? reach.begin - s->begin : 0, last = reach.end - s->begin;
    first = first < s->columns ? first : s->columns;
    last = last < first ? first : (last < s->columns ? last : s->columns);
    const float *from = row + (shift + (s->begin + first) * p->stride) * step;
    if (p->stride == 1 && step == 1 && first == 0 && last == s->columns) {
        return from;
    }
    for (int64_t i = 0; i < first; i++) {
        spare[i] = s->filling;
    }
    for (int64_t i = last; i < s->columns; i++) {
        spare[i] = s->filling;
    }
    if (p->stride == 1 && step == 1) {
        memcpy(spare + first, from, (size_t)(last - first) * sizeof *spare);
    } else {
        p->pick(last - first, from, step, p->starts, spare + first);
    }
    return spare;
}

void
port_take_columns(port_stretch *s, float *values, int32_t *at)
{
    const port_pooling *p = s->p;
    const float *x = (const float *)p->x->data + s->row.from;
    int64_t spread = s->w.step[2], last_start = (p->f.out[2] - 1) * p->stride;
    int64_t k0 = p->padding > last_start ? (p->padding - last_start + spread - 1) / spread : 0;
    int64_t kernel = param_of(p->p->kernel, &p->f, 2, 1), inside = (p->f.in[2] - 1 + p->padding) / spread + 1;
    gathered g = {.num = 0};
    for (int64_t a = s->w.s[0].begin; a < s->w.s[0].end; a += s->w.step[0]) {
        for (int64_t b = s->w.s[1].begin; b < s->w.s[1].end; b += s->w.step[1]) {
            const float *row = x + a * p->f.in_step[0] + b * p->f.in_step[1];
            for (int64_t k = k0; k < kernel && k < inside; k++) {
                if (g.num == PORT_POOL_ROWS) {
                    take(&g, s->columns, values, at);
                }
                g.places[g.num] = (int32_t)(uint32_t)(uint64_t)((a * p->f.in[1] + b) * p->f.in[2] + k * spread - p->padding);
                g.rows[g.num] = columns_of(s, row, k, s->picked[g.num]);
                g.num++;
            }
        }
    }
    take(&g, s->columns, values, at);
}

typedef struct stretch_job {
    const port_pooling *p;
    port_stretch_fn run;
    float filling;
} stretch_job;

static void
stretch_rows(const void *opaque, int64_t begin, int64_t end)
{
    const stretch_job *job = opaque;
    const port_pooling *p = job->p;
    port_stretch s;
    s.p = p;
    s.filling = job->filling;
    s.divided_from = -1;
    for (int64_t i = begin; i < end; i++) {
        s.row = port_frame_row_of(p->x, p->y, &p->f, i);
        s.w = port_window_at(p, (const int64_t[3]){s.row.place[0], s.row.place[1], 0});
        for (s.begin = 0; s.begin < p->f.out[2]; s.begin += PORT_POOL_CHUNK) {
            s.columns = p->f.out[2] - s.begin < PORT_POOL_CHUNK ? p->f.out[2] - s.begin : PORT_POOL_CHUNK;
            job->run(&s, s.row.to + s.begin * p->f.out_step[2]);
        }
    }
}

void
port_visit_stretches(const port_pooling *p, port_stretch_fn run, float filling)
{
    stretch_job job = {p, run, filling};
    port_deal(p->f.N * p->f.C * p->f.out[0] * p->f.out[1], p->f.out[2] * port_pooling_work(p), p->call->profile->num_threads, stretch_rows, &job);
}
