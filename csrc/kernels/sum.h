/* sum.h -- sums in the reference's order, shared by reduce.c and norm.c. Private to csrc/kernels/. */
#ifndef PORT_SUM_H
#define PORT_SUM_H

#include "loops.h"

#define PORT_SUM_MAX_THREADS 1024 /* threads of the reference beyond this are taken for this many */

/* The sum of n contiguous elements as one row of an inner reduction. */
float port_cascade_sum_f32(const float *x, int64_t n);
double port_cascade_sum_f64(const double *x, int64_t n);

/* Reduces x over `dims` into out, which holds the neutral element, in the reference's order (parallel_reduce): `loop` gets (out, in) and
 * reduces into what out holds. One output of many elements has one part per thread, whose results, of out's dtype, are then reduced
 * by `loop` with the context `again`. */
void port_reduce_in_order(const port_view *out, const port_view *x, uint32_t dims, int32_t num_threads, port_loop_fn loop, void *context, void *again);

/* Rows "prod", "sum" and "mean" of reduce.c; operands as in kernels.h. */
void port_prod_run(const port_kernel_call *call); /* floats (ordered.c) */
void port_sum_run(const port_kernel_call *call);
void port_mean_run(const port_kernel_call *call);
size_t port_sum_scratch_bytes(const port_kernel_call *call);
/* amax or amin of floats once more in the reference's order, if an output is 0 and an element -0: it gives that zero its sign. */
void port_sign_zero_extremes(const port_kernel_call *call, bool largest);
/* The sum of (x - mean)^2 over all of in[0], F32 or F64, in double about the rounded mean; one sum per thread of the reference. */
double port_squares_about_mean(const port_kernel_call *call);

#endif /* PORT_SUM_H */
