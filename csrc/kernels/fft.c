/* fft.c -- discrete Fourier transforms of stacks by the library that the reference calls.
 *     y[k] = scale * sum_n x[n] exp(-2 pi i k n / N), with + if not forward; of several dimensions one after the other
 * The reference makes a plan (a DFTI descriptor) for the strides of each call, and so does this: which algorithm the
 * library takes depends on sizes and strides. Without the library csrc/program/fft_ops.c sums in double.
 * Source: at::native mkl/SpectralOps.cpp (BSD-3-Clause; restated); the interface is that of Intel MKL's DFTI. */
#include "matmul.h"

/* Names and values of the interface. */
enum {
    DFTI_FORWARD_SCALE = 4, DFTI_BACKWARD_SCALE = 5, DFTI_NUMBER_OF_TRANSFORMS = 7, DFTI_CONJUGATE_EVEN_STORAGE = 10,
    DFTI_PLACEMENT = 11, DFTI_INPUT_STRIDES = 12, DFTI_OUTPUT_STRIDES = 13, DFTI_INPUT_DISTANCE = 14,
    DFTI_OUTPUT_DISTANCE = 15, DFTI_COMPLEX = 32, DFTI_REAL = 33, DFTI_COMPLEX_COMPLEX = 39, DFTI_NOT_INPLACE = 44
};

bool
port_fft_has_library(const port_provider *provider)
{
    const port_dfti *dfti = provider != NULL ? &provider->dfti : NULL;
    return dfti != NULL && dfti->create_1d != NULL && dfti->create_md != NULL && dfti->set_value != NULL &&
           dfti->commit != NULL && dfti->forward != NULL && dfti->backward != NULL && dfti->release != NULL;
}

static bool
is_half(int64_t size, int64_t of)
{
    return size == of / 2 + 1;
}

static bool
fits(const port_fft_params *p, const port_view *x, const port_view *y)
{
    bool from_complex = x->dtype == PORT_C64, to_complex = y->dtype == PORT_C64;
    bool good = p->num_dims >= 1 && p->num_dims < PORT_MAX_NDIM && x->ndim == p->num_dims + 1 && y->ndim == x->ndim &&
                x->shape[0] == y->shape[0] && x->shape[0] > 0 && (from_complex || x->dtype == PORT_F32) &&
                (to_complex || y->dtype == PORT_F32) && (p->forward ? to_complex : from_complex);
    for (int32_t d = 0; good && d < p->num_dims; d++) {
        bool half = d == p->num_dims - 1 && from_complex != to_complex;
        int64_t in = x->shape[d + 1], out = y->shape[d + 1], n = p->sizes[d];
        good = n >= 1 && (in == n || (half && from_complex && is_half(in, n))) &&
               (out == n || (half && to_complex && is_half(out, n)));
    }
    return good;
}

/* The plan of a call, or NULL. */
static void *
make_plan(const port_dfti *dfti, const port_fft_params *p, const port_view *x, const port_view *y)
{
    long sizes[PORT_MAX_NDIM], from[PORT_MAX_NDIM + 1] = {0}, to[PORT_MAX_NDIM + 1] = {0};
    void *plan = NULL;
    bool real = x->dtype != y->dtype;
    int domain = real ? DFTI_REAL : DFTI_COMPLEX;
    for (int32_t d = 0; d < p->num_dims; d++) {
        sizes[d] = (long)p->sizes[d];
        from[d + 1] = (long)x->strides[d + 1];
        to[d + 1] = (long)y->strides[d + 1];
    }
    long failed = p->num_dims == 1 ? dfti->create_1d(&plan, domain, sizes[0])
                                   : dfti->create_md(&plan, domain, (long)p->num_dims, sizes);
    if (failed != 0) {
        return NULL;
    }
    failed = dfti->set_value(plan, DFTI_PLACEMENT, DFTI_NOT_INPLACE) != 0 ||
             dfti->set_value(plan, DFTI_NUMBER_OF_TRANSFORMS, (long)x->shape[0]) != 0 ||
             dfti->set_value(plan, DFTI_INPUT_DISTANCE, (long)x->strides[0]) != 0 ||
             dfti->set_value(plan, DFTI_OUTPUT_DISTANCE, (long)y->strides[0]) != 0 ||
             dfti->set_value(plan, DFTI_INPUT_STRIDES, from) != 0 || dfti->set_value(plan, DFTI_OUTPUT_STRIDES, to) != 0 ||
             (real && dfti->set_value(plan, DFTI_CONJUGATE_EVEN_STORAGE, DFTI_COMPLEX_COMPLEX) != 0) ||
             (p->scale != 1.0 && dfti->set_value(plan, p->forward ? DFTI_FORWARD_SCALE : DFTI_BACKWARD_SCALE, p->scale) != 0) ||
             dfti->commit(plan) != 0;
    if (failed != 0) {
        dfti->release(&plan);
        return NULL;
    }
    return plan;
}

port_status
port_fft_run(const port_provider *provider, int32_t num_threads, const port_fft_params *params, const port_view *x, const port_view *y,
             port_error *err)
{
    if (!port_fft_has_library(provider) || !fits(params, x, y)) {
        return port_fail(err, PORT_E_SHAPE, "fft: expected a library with transforms, and stacks of signals and spectra that fit each other");
    }
    const port_dfti *dfti = &provider->dfti;
    int before = port_provider_use_threads(provider, num_threads);
    void *plan = make_plan(dfti, params, x, y);
    bool done = plan != NULL && (params->forward ? dfti->forward : dfti->backward)(plan, x->data, y->data) == 0;
    if (plan != NULL) {
        dfti->release(&plan);
    }
    port_provider_restore_threads(provider, before);
    return done ? PORT_OK : port_fail(err, PORT_E_NOMEM, "fft: the library refused to transform %lld signals", (long long)x->shape[0]);
}
