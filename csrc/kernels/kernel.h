/* kernel.h -- what a kernel is. Private to csrc/.
 *
 * A kernel is one op for one dtype in one named variant. It computes; it never allocates, never does I/O, never
 * keeps state. Everything it may touch comes in `port_kernel_call`.
 *
 * A family file (norm.c, pointwise.c, ...) holds for each op: a check (the only part that can fail), a reference
 * (scalar C; it defines the answer), faster variants, and ends with its rows. rows.c collects the families.
 */
#ifndef PORT_KERNEL_H
#define PORT_KERNEL_H

#include "../core/core.h"

#define PORT_KERNEL_MAX_IN 8
#define PORT_KERNEL_MAX_OUT 4

/* One of MKL's vector functions. */
typedef void (*port_vms)(int n, const float *in, float *out, long long mode);

/* BLAS's and LAPACK's functions of vectors and systems in one real type (Fortran ABI: column-major, all by address). */
typedef struct port_lapack {
    void (*gemv)(const char *trans, const int *m, const int *n, const void *alpha, const void *a, const int *lda,
                 const void *x, const int *incx, const void *beta, void *y, const int *incy);
    void (*getrf)(const int *m, const int *n, void *a, const int *lda, int *pivots, int *info);
    void (*getrs)(const char *trans, const int *n, const int *nrhs, const void *a, const int *lda, const int *pivots,
                  void *b, const int *ldb, int *info);
    void (*potrf)(const char *uplo, const int *n, void *a, const int *lda, int *info);
    void (*geqrf)(const int *m, const int *n, void *a, const int *lda, void *tau, void *work, const int *lwork,
                  int *info);
    void (*orgqr)(const int *m, const int *n, const int *k, void *a, const int *lda, const void *tau, void *work,
                  const int *lwork, int *info);
    void (*syevd)(const char *jobz, const char *uplo, const int *n, void *a, const int *lda, void *w, void *work,
                  const int *lwork, int *iwork, const int *liwork, int *info);
    void (*gesdd)(const char *jobz, const int *m, const int *n, void *a, const int *lda, void *s, void *u,
                  const int *ldu, void *vt, const int *ldvt, void *work, const int *lwork, int *iwork, int *info);
} port_lapack;

/* MKL's Fourier transforms: a plan is created, given values, committed, used and released. They return 0, or what failed. */
typedef struct port_dfti {
    long (*create_1d)(void **plan, int domain, long size);
    long (*create_md)(void **plan, int domain, long num_dims, const long *sizes);
    long (*set_value)(void *plan, int name, ...);
    long (*commit)(void *plan);
    long (*forward)(void *plan, const void *x, void *y);
    long (*backward)(void *plan, const void *x, void *y);
    long (*release)(void **plan);
} port_dfti;

/* Functions of a library that kernels may call. A NULL member is not there; `reference` has none of them.
 * sgemm/dgemm are the Fortran ABI (column-major, all arguments by address, 32-bit integers).
 * strsm solves op(a) x = alpha b or x op(a) = alpha b in place of b, a triangular. */
typedef struct port_provider {
    const char *name; /* "reference", "openblas", "torch" */
    void (*sgemm)(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha,
                  const float *a, const int *lda, const float *b, const int *ldb, const float *beta, float *c,
                  const int *ldc);
    void (*dgemm)(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
                  const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
                  const int *ldc);
    port_vms vms_exp, vms_log, vms_tanh, vms_erf, vms_sin, vms_cos, vms_sqrt, vms_log2, vms_log10, vms_tan, vms_atan, vms_acos, vms_asin;
    void (*strsm)(const char *side, const char *uplo, const char *transa, const char *diag, const int *m, const int *n,
                  const float *alpha, const float *a, const int *lda, float *b, const int *ldb);
    /* Groups of products of one shape: every argument but the matrices is an array with one entry per group. */
    void (*sgemm_batch)(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha,
                        const void **a, const int *lda, const void **b, const int *ldb, const float *beta, void **c,
                        const int *ldc, const int *num_groups, const int *group_size);
    void (*dgemm_batch)(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
                        const void **a, const int *lda, const void **b, const int *ldb, const double *beta, void **c,
                        const int *ldc, const int *num_groups, const int *group_size);
    float (*sdot)(const int *n, const float *x, const int *incx, const float *y, const int *incy);
    double (*ddot)(const int *n, const double *x, const int *incx, const double *y, const int *incy);
    port_lapack lapack_f32, lapack_f64;
    port_dfti dfti; /* F32 */
    /* Threads that the functions may use when the calling thread calls them; returns the former value, 0: as the process. */
    int (*set_num_threads_local)(int num_threads);
} port_provider;

/* How the reference ran: what decides its bits besides the inputs (docs/NUMERICS.md). */
typedef enum port_capability { PORT_CAP_DEFAULT = 0, PORT_CAP_AVX2 = 1, PORT_CAP_AVX512 = 2 } port_capability;

typedef struct port_profile {
    port_capability capability; /* ATEN_CPU_CAPABILITY of the reference's process */
    int32_t num_threads;        /* its intra-op threads: they cut the loops, so the tails move */
    bool mkldnn;                /* torch.backends.mkldnn.enabled */
    bool onednn_avx512;         /* with mkldnn: oneDNN ran its AVX-512 code, whatever the capability */
    bool onednn_bf16;           /* with it: its code for AVX512_BF16, and no AMX */
} port_profile;

typedef enum port_scalar_kind { PORT_SCALAR_NONE = 0, PORT_SCALAR_INT, PORT_SCALAR_FLOAT, PORT_SCALAR_BOOL } port_scalar_kind;

/* A Python number as ATen got it. For INT and BOOL `d` holds the value too. */
typedef struct port_scalar {
    port_scalar_kind kind;
    int64_t i;
    double d;
} port_scalar;

typedef struct port_kernel_call {
    int32_t num_in, num_out;
    const port_view *in[PORT_KERNEL_MAX_IN]; /* NULL: this optional tensor is None */
    const port_view *out[PORT_KERNEL_MAX_OUT]; /* preallocated by the caller, shapes already checked; may alias inputs only
                                            where the op's header comment says so */
    const void *params;  /* the op's own parameter struct, declared in kernels.h beside the op */
    void *scratch;       /* `scratch_bytes` as the row's function said, 64-byte aligned */
    const port_provider *provider;
    const port_profile *profile;
} port_kernel_call;

typedef struct port_kernel_row {
    const char *op;      /* "gelu", "layer_norm", ...: the family's name for it, without aten:: */
    port_dtype dtype;    /* dtype of the (first floating) input */
    const char *variant; /* "ref", "avx2", ... ; "ref" is always there */
    int32_t cpu_level;   /* 0 baseline x86-64/any, 1 avx2+fma, 2 avx512f: needed to run, not the profile's */
    port_status (*check)(const port_kernel_call *call, port_error *err);
    size_t (*scratch_bytes)(const port_kernel_call *call); /* NULL: none */
    void (*run)(const port_kernel_call *call);
} port_kernel_row;

/* All rows, ended by a row whose op is NULL. */
const port_kernel_row *const *port_kernel_families(void); /* NULL-ended list of row arrays */
/* The best row for this CPU (variant NULL), or the named variant; NULL if there is none. */
const port_kernel_row *port_kernel_find(const char *op, port_dtype dtype, const char *variant);
/* 0, 1 or 2: what this CPU and OS can run (CPUID and XGETBV), lowered by PORTING_DISABLE_CPU=avx512|avx2. */
int32_t port_cpu_level(void);
/* What port_cpu_level found when it was last called, which port_kernel_find does: for code that runs too often to ask. */
int32_t port_cpu_level_found(void);
/* Whether libraries on this CPU take their AVX-512 code: not lowered by PORTING_DISABLE_CPU. */
bool port_cpu_has_avx512(void);
/* Products of pairs of bf16 (AVX512_BF16) in vectors, without tiles (AMX). */
bool port_cpu_has_avx512_bf16(void);

const port_provider *port_provider_reference(void);
const port_provider *port_provider_openblas(void); /* NULL if built with PORTING_BLAS=none */
const port_provider *port_provider_torch(void);    /* NULL until addresses were set */
/* Sets one function of the torch provider by name ("sgemm", "vms_exp", ...). NAME if there is no such member. */
port_status port_provider_torch_set(const char *name, void *address, port_error *err);

#endif /* PORT_KERNEL_H */
