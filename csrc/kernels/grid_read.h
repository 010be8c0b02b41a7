/* grid_read.h -- images read between their pixels, at many places at a time. Private to csrc/.
 * The same bits at every level of the CPU. */
#ifndef PORT_GRID_READ_H
#define PORT_GRID_READ_H

#include "loops.h"
#include "vecmath.h"

#define PORT_GRID_PLACES 32
#define PORT_GRID_TAPS 16

/* What some places are made of: 1 pixel each, 4 with weights, or 16 with weights in their row and of the rows. */
typedef struct port_grid_taps {
    int32_t count;
    bool all_inside;
    int32_t at[PORT_GRID_TAPS][PORT_GRID_PLACES];     /* offset in an image; 0 for a pixel outside, and of places that there are not */
    int32_t inside[PORT_GRID_TAPS][PORT_GRID_PLACES]; /* all bits, or none: the pixel counts as 0 */
    float weight[PORT_GRID_TAPS][PORT_GRID_PLACES];
    float row_weight[4][PORT_GRID_PLACES];
} port_grid_taps;

/* y[i] = x at place i < n. fused: a product and the sum that it is added to are rounded once (of a row of four pixels the first sum alone). */
void port_grid_read(const port_grid_taps *taps, bool fused, int64_t n, const float *x, float *y);

#endif /* PORT_GRID_READ_H */
