/* test_own_gemm.c -- own loops make a library's products where it sums as they do, to the last bit of every element, and nowhere else. */
#include "kernels/chain.h"
#include "program/exec.h"

#include <math.h>

#include "check.h"

#define MOST_CALLS 6

/* A library that sums in chains or in another order, and which is wrong in the last element's last bit if told so. */
static struct {
    bool chains, off_by_one;
    int calls;
} library;

static void
library_sgemm(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha, const float *a, const int *lda,
              const float *b, const int *ldb, const float *beta, float *c, const int *ldc)
{
    CHECK(*transa == 't' && *transb == 'n' && *alpha == 1.0f && *beta == 1.0f);
    port_chain chain = {.M = *n, .N = *m, .K = *k, .a = b, .a_row_stride = *ldb, .b = a, .b_row_stride = 1, .b_col_stride = *lda, .start = c,
                        .start_row_stride = *ldc, .y = c, .y_row_stride = *ldc};
    port_matmul other = {.M = *n, .N = *m, .K = *k, .alpha = 1.0, .beta = 1.0, .a = {b, PORT_F32, *ldb, 1}, .b = {a, PORT_F32, 1, *lda}, .y = c,
                         .y_dtype = PORT_F32, .y_row_stride = *ldc};
    size_t scratch_bytes = port_matmul_scratch_bytes(*k, PORT_F32, 1) + port_chain_scratch_bytes(*n, *m, 1);
    void *scratch = port_alloc_aligned(scratch_bytes);
    if (library.chains) {
        port_chain_run(&chain, scratch);
    } else {
        port_matmul_run(&other, PORT_MATMUL_REF, scratch);
    }
    port_free_aligned(scratch);
    if (library.off_by_one) {
        float *last = c + (int64_t)(*n - 1) * *ldc + *m - 1;
        *last = nextafterf(*last, 2e9f);
    }
    library.calls++;
}

static void
other_sgemm(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha, const float *a, const int *lda,
            const float *b, const int *ldb, const float *beta, float *c, const int *ldc)
{
    library_sgemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

typedef void sgemm_function(const char *, const char *, const int *, const int *, const int *, const float *, const float *, const int *, const float *,
                            const int *, const float *, float *, const int *);

static void
load_library(sgemm_function *sgemm, bool chains, bool off_by_one)
{
    void *address;
    memcpy(&address, &sgemm, sizeof address);
    CHECK(port_provider_torch_set("sgemm", address, NULL) == PORT_OK);
    library.chains = chains;
    library.off_by_one = off_by_one;
    library.calls = 0;
}

/* The variant that each of MOST_CALLS calls of M x K times K x N with a bias gets: "bbcccc". */
static void
choices(int64_t M, int64_t N, int64_t K, char made[MOST_CALLS + 1])
{
    const port_profile profile = {.capability = PORT_CAP_AVX512, .num_threads = 1};
    const port_gemm_params params = {.alpha = 1.0, .beta = 1.0};
    float *memory = port_alloc_aligned((size_t)(M * K + N * K + N + M * N) * sizeof *memory);
    int64_t a_shape[2] = {M, K}, b_shape[2] = {N, K}, y_shape[2] = {M, N};
    port_view a = port_view_contiguous(memory, PORT_F32, 2, a_shape), b = port_view_contiguous(memory + M * K, PORT_F32, 2, b_shape);
    port_view y = port_view_contiguous(memory + M * K + N * K, PORT_F32, 2, y_shape);
    port_view c = {.data = memory + M * K + N * K + M * N, .dtype = PORT_F32, .ndim = 2, .shape = {M, N}, .strides = {0, 1}};
    b.shape[0] = K, b.shape[1] = N, b.strides[0] = 1, b.strides[1] = K;
    const port_kernel_call call = {.num_in = 3, .num_out = 1, .in = {&a, &b, &c}, .out = {&y}, .params = &params, .profile = &profile,
                                   .provider = port_provider_torch()};
    const port_kernel_row *row = port_kernel_find("gemm", PORT_F32, NULL);
    for (int k = 0; k < MOST_CALLS; k++) {
        made[k] = own_gemm_row(row, &call)->variant[0];
    }
    made[MOST_CALLS] = '\0';
    port_free_aligned(memory);
}

static bool
chosen(int64_t M, int64_t N, int64_t K, const char *expected)
{
    char made[MOST_CALLS + 1];
    choices(M, N, K, made);
    return strcmp(made, expected) == 0;
}

static void
test_products(void)
{
    load_library(library_sgemm, true, false);
    CHECK(chosen(40, 70, 400, "bbcccc"));
    CHECK(library.calls == 1); /* asked once */
    CHECK(chosen(40, 70, 400, "cccccc"));
    CHECK(chosen(41, 70, 400, "bbcccc")); /* every size is asked about by itself */
    CHECK(chosen(40, 70, 399, "bbcccc"));
    CHECK(chosen(4, 70, 400, "bbbbbb")); /* too few rows to be worth it */
    CHECK(library.calls == 3);
    load_library(library_sgemm, false, false);
    CHECK(chosen(48, 70, 400, "bbbbbb"));
    CHECK(library.calls == 1);
    CHECK(chosen(48, 70, 400, "bbbbbb"));
    CHECK(library.calls == 1); /* not asked again */
    load_library(library_sgemm, true, true);
    CHECK(chosen(49, 70, 400, "bbbbbb"));
    load_library(other_sgemm, false, false);
    CHECK(chosen(40, 70, 400, "bbbbbb")); /* what was known of another library is forgotten */
    load_library(library_sgemm, true, false);
    port_alloc_fail_after(2); /* the operands' own memory is there, that for asking is not */
    CHECK(chosen(50, 70, 400, "bbbbbb"));
    port_alloc_fail_after(0);
}

int
main(void)
{
    if (port_cpu_level() < 2) { /* own loops for this are of AVX-512 */
        load_library(library_sgemm, true, false);
        CHECK(chosen(40, 70, 400, "bbbbbb"));
        return CHECK_REPORT();
    }
    test_products();
    return CHECK_REPORT();
}
