/* providers.c -- where GEMM and vector math come from: own loops, OpenBLAS, or the torch that is in the process. */
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>

static const port_provider reference = {.name = "reference"};

const port_provider *
port_provider_reference(void)
{
    return &reference;
}

#ifdef PORT_OPENBLAS
#include <cblas.h>

/* scipy-openblas32 puts the prefix scipy_ before every name; its header declares the C interface only. Whatever thread
 * count the library chose for itself stays as it is: other users of the same library live in this process. */
extern void scipy_sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
                         const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
                         const float *beta, float *c, const int *ldc);
extern void scipy_dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
                         const double *alpha, const double *a, const int *lda, const double *b, const int *ldb,
                         const double *beta, double *c, const int *ldc);

_Static_assert(sizeof(blasint) == sizeof(int), "the OpenBLAS that this is built against takes 32-bit integers");

static const port_provider openblas = {.name = "openblas", .sgemm = scipy_sgemm_, .dgemm = scipy_dgemm_};

const port_provider *
port_provider_openblas(void)
{
    return &openblas;
}
#else
const port_provider *
port_provider_openblas(void)
{
    return NULL;
}
#endif

/* ------------------------------------------------------------------ torch: addresses given at run time */

static const struct {
    const char *name;
    size_t offset;
} members[] = {
#define MEMBER(name) {#name, offsetof(port_provider, name)}
    MEMBER(sgemm), MEMBER(dgemm), MEMBER(sgemm_batch), MEMBER(dgemm_batch), MEMBER(strsm), MEMBER(set_num_threads_local),
    MEMBER(vms_exp), MEMBER(vms_log), MEMBER(vms_tanh), MEMBER(vms_erf), MEMBER(vms_sin), MEMBER(vms_cos), MEMBER(vms_sqrt),
    MEMBER(sdot), MEMBER(ddot),
#define LAPACK(name) {"s" #name, offsetof(port_provider, lapack_f32.name)}, {"d" #name, offsetof(port_provider, lapack_f64.name)}
    LAPACK(gemv), LAPACK(getrf), LAPACK(getrs), LAPACK(potrf), LAPACK(geqrf), LAPACK(orgqr), LAPACK(syevd), LAPACK(gesdd),
#undef LAPACK
    MEMBER(vms_log2), MEMBER(vms_log10), MEMBER(vms_tan), MEMBER(vms_atan), MEMBER(vms_acos), MEMBER(vms_asin),
#define DFTI(name) {"dfti_" #name, offsetof(port_provider, dfti.name)}
    DFTI(create_1d), DFTI(create_md), DFTI(set_value), DFTI(commit), DFTI(forward), DFTI(backward), DFTI(release),
#undef DFTI
#undef MEMBER
};

static pthread_mutex_t torch_lock = PTHREAD_MUTEX_INITIALIZER;
static port_provider torch = {.name = "torch"};
static atomic_bool torch_is_set;

const port_provider *
port_provider_torch(void)
{
    return atomic_load(&torch_is_set) ? &torch : NULL;
}

port_status
port_provider_torch_set(const char *name, void *address, port_error *err)
{
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (strcmp(members[i].name, name) == 0) {
            if (address == NULL) {
                return port_fail(err, PORT_E_VALUE, "the address of the torch provider's %s is null", name);
            }
            pthread_mutex_lock(&torch_lock);
            memcpy((char *)&torch + members[i].offset, &address, sizeof address);
            pthread_mutex_unlock(&torch_lock);
            atomic_store(&torch_is_set, true);
            return PORT_OK;
        }
    }
    return port_fail(err, PORT_E_NAME, "the torch provider has no function %s; it has sgemm, dgemm, sgemm_batch, dgemm_batch, strsm, sdot, ddot, "
                     "s and d forms of gemv, getrf, getrs, potrf, geqrf, orgqr, syevd, gesdd; "
                     "dfti_create_1d, create_md, set_value, commit, forward, backward, release; set_num_threads_local and vms_exp, log, tanh, erf, sin, cos, sqrt, log2, log10, tan, atan, acos, asin", name);
}
