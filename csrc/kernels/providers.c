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
    {"sgemm", offsetof(port_provider, sgemm)},       {"dgemm", offsetof(port_provider, dgemm)},
    {"vms_exp", offsetof(port_provider, vms_exp)},   {"vms_log", offsetof(port_provider, vms_log)},
    {"vms_tanh", offsetof(port_provider, vms_tanh)}, {"vms_erf", offsetof(port_provider, vms_erf)},
    {"vms_sin", offsetof(port_provider, vms_sin)},   {"vms_cos", offsetof(port_provider, vms_cos)},
    {"vms_sqrt", offsetof(port_provider, vms_sqrt)}, {"sgemm_batch", offsetof(port_provider, sgemm_batch)},
    {"dgemm_batch", offsetof(port_provider, dgemm_batch)},
    {"set_num_threads_local", offsetof(port_provider, set_num_threads_local)},
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
    return port_fail(err, PORT_E_NAME, "the torch provider has no function %s; it has sgemm, dgemm, sgemm_batch, dgemm_batch "
                     "set_num_threads_local and vms_exp, log, tanh, erf, sin, cos, sqrt", name);
}
