/* norm.h -- moments of a row, as layer_norm and group_norm take them. Private to csrc/kernels/. */
#ifndef PORT_NORM_H
#define PORT_NORM_H

#include <stdbool.h>
#include <stdint.h>

/* Mean and biased variance of n floats in the reference's order; fused: with fma, as it does with avx2 and up. */
void port_row_moments_f32(bool fused, const float *x, int64_t n, float *mean, float *var);

#endif /* PORT_NORM_H */
