/* matmul.h -- own matrix products, shared by gemm.c and attention.c. Private to csrc/kernels/.
 *
 *     y[i,j] = beta * y[i,j] + alpha * sum_k a[i,k] * b[k,j]          a (M, K), b (K, N), y (M, N)
 *
 * Any strides and any mix of F32, BF16, F16 operands (computed in f32, rounded once on the way into y), or all F64
 * (computed in f64). Two orders of summation, both the same on every machine:
 *   ref    k = 0, 1, ... K-1, each product rounded, then each sum; then y = beta * y + alpha * sum
 *   chain  fused multiply-adds, k in blocks: the order of the BLAS in the reference library (docs/NUMERICS.md)
 * beta = 0 ignores what y holds, NaN too.
 */
#ifndef PORT_MATMUL_H
#define PORT_MATMUL_H

#include "kernels.h"

typedef enum port_matmul_order { PORT_MATMUL_REF = 0, PORT_MATMUL_CHAIN } port_matmul_order;

typedef struct port_matrix {
    const void *data;
    port_dtype dtype;
    int64_t row_stride, col_stride; /* in elements */
} port_matrix;

typedef struct port_matmul {
    int64_t M, N, K;
    double alpha, beta;
    port_matrix a, b;
    void *y;
    port_dtype y_dtype;
    int64_t y_row_stride; /* columns of y are dense */
    int32_t num_threads;  /* on which its columns are computed; less than 1: on one */
} port_matmul;

/* Scratch for any product with at most K terms on so many threads; 64-byte aligned memory is best but not needed. */
size_t port_matmul_scratch_bytes(int64_t K, port_dtype dtype, int32_t num_threads);
void port_matmul_run(const port_matmul *product, port_matmul_order order, void *scratch);

/* How many terms a chain has before its sum is added to y: 1 and more. */
int64_t port_matmul_block_terms(port_matmul_order order, int64_t K);

/* One tile of a product: sums[r][j] += a[r][k] * panel[k * PORT_MATMUL_PANEL + j] for k0 <= k < k1, k ascending, all in f32. Rows beyond
 * `rows` are valid memory; their sums are not used. CHAIN fuses, REF rounds the product and the sum. */
enum { PORT_MATMUL_PANEL = 32, PORT_MATMUL_ROWS = 4 };
typedef void port_matmul_tile(const float *const a[PORT_MATMUL_ROWS], const float *panel, int64_t k0, int64_t k1, int64_t rows,
                              float sums[PORT_MATMUL_ROWS][PORT_MATMUL_PANEL]);
port_matmul_tile *port_matmul_tile_of(port_matmul_order order);

/* Products of BF16 and F16 in the reference's orders (half_matmul.c): summed in f32, rounded once on the way into y. */
typedef enum port_half_order {
    PORT_HALF_DOT = 0,  /* b column-major, a row-major: eight vectors of 8 lanes along k, then one, then one by one */
    PORT_HALF_QUARTERS, /* four sums of every fourth term; what is left over joins the first */
    PORT_HALF_SEQUENCE, /* k ascending, from beta * y on */
    PORT_HALF_PAIRS,    /* oneDNN's: fused, of two terms the second first; blocks of `block` terms are chains from 0 that are added */
    PORT_HALF_ASCENDING /* k ascending, each term times alpha: oneDNN's plain loops, into memory whose rows are not dense */
} port_half_order;
typedef struct port_half_way {
    port_half_order order;
    bool fused;    /* the reference's compiler fused multiply and add, and lanes are added by halves; else from left to right */
    int64_t block; /* PAIRS only; even */
    int64_t shares; /* PAIRS only: the blocks are added in as many sums, as even as can be and the longer ones first; 0 as 1 */
} port_half_way;
/* With more multiplications than these the reference gives a product of BF16, or a whole stack, to oneDNN. */
enum { PORT_ONEDNN_PRODUCT = 16 * 16 * 16 };
/* K >= 1. Scratch as for port_matmul_run. */
size_t port_half_matmul_scratch_bytes(int64_t M, int64_t K, int32_t num_threads);
void port_half_matmul_run(const port_matmul *product, port_half_way way, void *scratch);

/* A BLAS call in column-major terms, as ATen's cpublas::gemm makes it: leading dimensions of single rows and columns
 * are normalised first. Returns false, having done nothing, if the provider has no function for the dtype or if
 * the sizes are not what BLAS takes. */
typedef struct port_blas_call {
    bool trans_a, trans_b;
    int64_t m, n, k;
    double alpha, beta;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
} port_blas_call;
bool port_blas_gemm(const port_provider *provider, port_dtype dtype, port_blas_call call);
/* The same for `count` products whose operands lie a_step, b_step, c_step elements apart: in one call of the provider's
 * batch function if it has one and count > 1, else one by one. pointers: room for 3 * count pointers. */
bool port_blas_gemm_batch(const port_provider *provider, port_dtype dtype, port_blas_call call, int64_t count,
                          int64_t a_step, int64_t b_step, int64_t c_step, void *pointers);

/* Lets the provider's functions use num_threads threads when called by this thread, until restore is given what this
 * returned. The bits of a product may depend on it. Does nothing for a provider that has no setting of the thread's own:
 * a process-wide one is never touched. */
static inline int
port_provider_use_threads(const port_provider *provider, int32_t num_threads)
{
    return provider->set_num_threads_local != NULL && num_threads > 0 ? provider->set_num_threads_local(num_threads) : -1;
}

static inline void
port_provider_restore_threads(const port_provider *provider, int restore)
{
    if (restore >= 0) {
        provider->set_num_threads_local(restore);
    }
}

static inline float
port_load_f32(const void *data, port_dtype dtype, int64_t i)
{
    switch (dtype) {
    case PORT_BF16: return port_bf16_to_f32(((const uint16_t *)data)[i]);
    case PORT_F16: return port_f16_to_f32(((const uint16_t *)data)[i]);
    default: return ((const float *)data)[i];
    }
}

static inline void
port_store_f32(void *data, port_dtype dtype, int64_t i, float value)
{
    switch (dtype) {
    case PORT_BF16: ((uint16_t *)data)[i] = port_f32_to_bf16(value); break;
    case PORT_F16: ((uint16_t *)data)[i] = port_f32_to_f16(value); break;
    default: ((float *)data)[i] = value;
    }
}

#endif /* PORT_MATMUL_H */
