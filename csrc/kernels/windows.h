/* windows.h -- which windows of a frame pooling looks at, and ways to go through them. Private to csrc/kernels/.
 * One window after the other; of all channels at a time where they lie side by side; of a row's columns at a time. */
#ifndef PORT_WINDOWS_H
#define PORT_WINDOWS_H

#include "frames.h"

enum {
    PORT_POOL_CHUNK = 128, /* columns or channels at a time */
    PORT_POOL_ROWS = 16,   /* places of their windows at a time */
    PORT_POOL_NEAR = 16    /* places of a row's windows whose reach is worked out once */
};

/* Which places [begin, end) of one dimension of the frame a window covers, and how many it would with the padding. */
typedef struct port_span {
    int64_t begin, end, whole;
} port_span;

typedef struct port_pooling {
    const port_kernel_call *call;
    const port_view *x, *y;
    const port_pool_params *p;
    port_frames f;
    const port_span *spans[3]; /* of each place of y */
    const int32_t *starts;     /* of each column of y, before the padding */
    int64_t stride, padding; /* of columns */
    int64_t spread[3];
    port_pick pick;
    struct port_reach {
        int64_t begin, end;
    } reach[PORT_POOL_NEAR]; /* of the first places of a window: of which columns of y they lie inside */
} port_pooling;

/* What an output sees: its spans, how far apart the places of one are, and how far in x. */
typedef struct port_window {
    port_span s[3];
    int64_t step[3], in_step[3];
} port_window;

/* The span of a place of dimension d: of max_pool and avg_pool; of adaptive pools. */
typedef port_span (*port_span_fn)(const port_pool_params *p, const port_frames *f, int32_t d, int64_t place);
port_span port_pool_span(const port_pool_params *p, const port_frames *f, int32_t d, int64_t place);
port_span port_adaptive_span(const port_pool_params *unused, const port_frames *f, int32_t d, int64_t place);
/* Fills the scratch; starts, stride, padding and reach are those of max_pool and avg_pool alone. */
port_pooling port_pooling_of(const port_kernel_call *call, port_span_fn span_of);
size_t port_pooling_scratch_bytes(const port_kernel_call *call);

static inline port_window
port_window_at(const port_pooling *p, const int64_t *place)
{
    port_window w;
    for (int32_t d = 0; d < 3; d++) {
        w.s[d] = p->spans[d][place[d]];
        w.step[d] = p->spread[d];
        w.in_step[d] = p->f.in_step[d];
    }
    return w;
}

/* Elements that an output costs. */
static inline int64_t
port_pooling_work(const port_pooling *p)
{
    int64_t outputs = port_view_elems(p->y);
    return outputs > 0 ? (port_view_elems(p->x) + outputs) / outputs : 1;
}

/* One output: its channel, the offsets of the channel in x and of the output in y. */
typedef void (*port_window_fn)(const port_pooling *p, const port_window *w, int64_t channel, int64_t from, int64_t to);
void port_visit_windows(const port_pooling *p, port_window_fn visit);

/* One output in channels [0, count) from these offsets on; `first`: the number of the first. */
typedef void (*port_pixel_fn)(const port_pooling *p, const port_window *w, int64_t first, int64_t count, int64_t from, int64_t to);
/* All pixels of y, in no more than PORT_POOL_CHUNK channels at a time. F32 with channels side by side. */
void port_visit_pixels(const port_pooling *p, port_pixel_fn pixel);
/* All places of one window in `count` channels: the greatest so far and their places, or (at is NULL) the sums so far. */
void port_take_window(const port_pooling *p, const port_window *w, int64_t count, int64_t from, float *values, int32_t *at);

/* `columns` of a row of y from `begin` on. */
typedef struct port_stretch {
    const port_pooling *p;
    port_frame_row row;
    port_window w; /* of which the columns do not count */
    int64_t begin, columns;
    float filling;         /* what the padding counts as */
    int64_t divided_from;  /* `begin` of the divisors; -1: there are none yet */
    port_span divided[2];  /* the outer spans that they are for */
    float divisors[PORT_POOL_CHUNK];
    float picked[PORT_POOL_ROWS][PORT_POOL_CHUNK];
} port_stretch;
/* One stretch into y. */
typedef void (*port_stretch_fn)(port_stretch *s, int64_t to);
/* All of y, in stretches of no more than PORT_POOL_CHUNK columns. F32; not for adaptive pools. */
void port_visit_stretches(const port_pooling *p, port_stretch_fn run, float filling);
/* As port_take_window, of the windows of a stretch; places are those of the frame less the starts of columns. */
void port_take_columns(port_stretch *s, float *values, int32_t *at);

#endif /* PORT_WINDOWS_H */
