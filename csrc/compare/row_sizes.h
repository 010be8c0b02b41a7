/* row_sizes.h -- how large the elements of each row are. Private to csrc/. */
#ifndef PORT_ROW_SIZES_H
#define PORT_ROW_SIZES_H

#include "../core/core.h"

typedef enum port_row_size {
    PORT_ROW_RMS,    /* root of the sum of squares of the finite elements over the length of the row */
    PORT_ROW_MEDIAN, /* lower median of |x| over the elements that are finite and not 0; 0 if there are none */
} port_row_size;

/* One size for each row along the last dimension (a scalar is one row of one element).
 * x: row-major, aligned, real.  sizes: one number per row.  Returns: PORT_OK; VALUE (another view), NOMEM. */
port_status port_row_sizes(const port_view *x, port_row_size kind, double *sizes, port_error *err);

#endif /* PORT_ROW_SIZES_H */
