/* chain.h -- large products of F32 in the order `chain` of matmul.h, from packed operands. Private to csrc/kernels/.
 *
 *     y[i,j] = start[i,j] + sum_k a[i,k] * b[k,j]          a (M, K), b (K, N), y (M, N)
 *
 * The bits are those of port_matmul_run with PORT_MATMUL_CHAIN, alpha 1 and beta 1 (start NULL: beta 0); of several NaN
 * that meet in an element the library's comes out. */
#ifndef PORT_CHAIN_H
#define PORT_CHAIN_H

#include "matmul.h"

typedef struct port_chain {
    int64_t M, N, K;
    const float *a; /* columns are dense */
    int64_t a_row_stride;
    const float *b;
    int64_t b_row_stride, b_col_stride; /* one of them is 1 */
    const float *start;                 /* columns are dense; may be y itself; NULL: the sums alone */
    int64_t start_row_stride;           /* 0: one row for all */
    float *y;                           /* columns are dense */
    int64_t y_row_stride;
    int32_t num_threads;
} port_chain;

/* Whether this CPU and these sizes have such a way: AVX-512, and enough rows to be worth packing. */
bool port_chain_fits(int64_t M, int64_t N, int64_t K);
size_t port_chain_scratch_bytes(int64_t M, int64_t N, int32_t num_threads);
/* Only what fits; scratch on a line of 64 bytes. */
void port_chain_run(const port_chain *product, void *scratch);

#endif /* PORT_CHAIN_H */
