/* norm.h -- moments of a row, as layer_norm and group_norm take them. Private to csrc/kernels/. */
#ifndef PORT_NORM_H
#define PORT_NORM_H

#include "../core/core.h"

/* Mean and biased variance of n floats in the reference's order; fused: with fma, as it does with avx2 and up; given: what x was widened from, F32 or halves. */
void port_row_moments_f32(bool fused, port_dtype given, const float *x, int64_t n, float *mean, float *var);

/* Mean and rstd = 1 / sqrt(var + eps) of n doubles in the reference's order, and, unless y is NULL, layer_norm of them; weight and bias may be NULL. */
void port_row_norm_f64(bool fused, const double *x, int64_t n, double eps, const double *weight, const double *bias, double *y, double *mean,
                       double *rstd);

/* Fills the statistics of what has no elements, as torch does: means of 0 and no numbers for rstd. Either may be NULL. */
void port_norm_of_nothing(const port_view *mean, const port_view *rstd);

#endif /* PORT_NORM_H */
