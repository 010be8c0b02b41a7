/* window_rows.h -- many windows of floats at a time, for pool.c: place after place, each a row with one element for each window.
 * Private to csrc/kernels/. The same bits at every level of the CPU. */
#ifndef PORT_WINDOW_ROWS_H
#define PORT_WINDOW_ROWS_H

#include "loops.h"
#include "vecmath.h"

/* Rows of n elements into each column's greatest so far and its place, as pooling has it: of equals the first, but the last NaN. */
void port_greatest_rows(int32_t num, const float *const *rows, const int32_t *places, int64_t n, float *best, int32_t *at);
/* Rows of n elements added to each column's sum so far, in order. */
void port_sum_rows(int32_t num, const float *const *rows, int64_t n, float *sums);

#endif /* PORT_WINDOW_ROWS_H */
