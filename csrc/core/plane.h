/* plane.h -- copies of runs and of transposed planes of elements. Private to csrc/. */
#ifndef PORT_PLANE_H
#define PORT_PLANE_H

#include "core.h"

#define PORT_PLANE_TILE 16 /* elements: one line of the cache for 4-byte ones */

/* Moves `elems` elements of size_bytes (1, 2, 4 or 8) with strides in bytes; to does not overlap from. */
void port_copy_run(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t elems, size_t size_bytes);
/* The same for rows x cols elements, whose rows stand `size_bytes` apart in `from`: by tiles, so that the lines of the cache on both sides
 * are used while they are there. Strides in bytes. */
void port_copy_plane(char *to, int64_t to_row, int64_t to_col, const char *from, int64_t from_col, int64_t rows, int64_t cols,
                     size_t size_bytes);

#endif /* PORT_PLANE_H */
