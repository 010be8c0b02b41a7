/* extremes.h -- extremes of floats by whole vectors, for reduce.c. Private to csrc/kernels/.
 * The same bits at every level of the CPU: zeros of both signs are equal, NaN wins, and of equals the first. */
#ifndef PORT_EXTREMES_H
#define PORT_EXTREMES_H

#include "loops.h"
#include "vecmath.h"

/* The first greatest (or least) of n > 0 floats, and its place if that is not NULL. */
float port_first_best(bool largest, const float *x, int64_t n, int64_t *place);
/* The same of doubles, without a place. */
double port_first_best_f64(bool largest, const double *x, int64_t n);

/* Row r of n columns into what the rows before it gave: each column's best so far and the row that it stood in (places may be NULL). Row 0 is the first. */
void port_best_columns(bool largest, int32_t r, const float *row, int64_t n, float *best, int32_t *places);
/* The same of doubles, without places. */
void port_best_columns_f64(bool largest, int64_t r, const double *row, int64_t n, double *best);

#endif /* PORT_EXTREMES_H */
