/* dot2.h -- dot products in twice the working precision, for products whose terms cancel. Private to csrc/kernels/.
 *
 *     Dot2 (T. Ogita, S. M. Rump, S. Oishi: Accurate sum and dot product, SIAM J. Sci. Comput. 26, 2005,
 *     algorithm 5.3): the rounding error of each product and of each sum is itself a float64 number; those errors are summed beside. */
#ifndef PORT_DOT2_H
#define PORT_DOT2_H

#include "kernels.h"

/* call: operands of gemm or bmm (kernels.h), all F64, out computed already. Every element with
 * |y| < 2^-20 (|alpha| * norm(row of a) * norm(column of b) + |beta c|) is computed again by Dot2 and rounded once;
 * the product of the norms is never less than the sum of the terms' sizes, so no dot that cancels is missed. An addend
 * that is out itself was overwritten: nothing is computed again then. NaN and infinities stay as they are. */
void port_dot2_refine(const port_kernel_call *call, double alpha, double beta);

#endif /* PORT_DOT2_H */
