/* frames.h -- what pooling and interpolation share: (N, C, ...) with 1 to 3 dimensions of space, and elements of a row by a table
 * of their places. Private to csrc/kernels/. */
#ifndef PORT_FRAMES_H
#define PORT_FRAMES_H

#include "loops.h"
#include "vecmath.h"

typedef struct port_frames {
    int32_t spatial;
    int64_t N, C, in[3], out[3], in_step[3], out_step[3]; /* fewer dimensions: leading ones of size 1 */
} port_frames;

port_frames port_frames_of(const port_view *x, const port_view *y);
/* Errors: SHAPE. */
port_status port_frames_check(const char *op, const port_kernel_call *call, port_error *err);
/* Whether x and all that is made have their channels side by side. */
bool port_frames_channels_last(const port_kernel_call *call);

/* An output row of planes: its offset in y, and where its plane and its two outer places stand. */
typedef struct port_frame_row {
    int64_t channel, place[2]; /* of the outer dimensions */
    int64_t from, to;          /* offsets of the channel in x, of the row in y */
} port_frame_row;

/* The number'th row of all channels of all items (y as planes). */
static inline port_frame_row
port_frame_row_of(const port_view *x, const port_view *y, const port_frames *f, int64_t number)
{
    int64_t plane = number / f->out[1], channel = plane / f->out[0];
    port_frame_row row = {.channel = channel % f->C, .place = {plane % f->out[0], number % f->out[1]}};
    int64_t n = channel / f->C;
    row.from = n * x->strides[0] + row.channel * x->strides[1];
    row.to = n * y->strides[0] + row.channel * y->strides[1] + row.place[0] * f->out_step[0] + row.place[1] * f->out_step[1];
    return row;
}

/* y[i] = row[at[i] * step], i < n, `at` ascending and at least 0. */
typedef void (*port_pick)(int64_t n, const void *row, int64_t step, const int32_t *at, void *y);
/* For F32 (narrow) or F64. */
port_pick port_pick_for(bool narrow);

/* n elements of F32 (narrow) or F64, y `step` elements apart. */
void port_spread(bool narrow, int64_t n, const void *x, void *y, int64_t step);

#endif /* PORT_FRAMES_H */
