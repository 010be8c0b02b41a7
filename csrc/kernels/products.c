/* products.c -- a matrix times a vector, and two vectors.
 *     gemv   y = beta * c + alpha * a @ x        a (M, K), x (K), c and y (M)
 *     dot    y = sum_k x[k] * y[k]
 * The reference calls ?gemv and ?dot of its BLAS, with the flags that ATen chooses by the strides; the own loops add in
 * double and round once.
 * Source: at::native addmv_out, dot (BSD-3-Clause; restated). */
#include "matmul.h"

static const port_lapack *
lapack_of(const port_kernel_call *call)
{
    return call->in[0]->dtype == PORT_F32 ? &call->provider->lapack_f32 : &call->provider->lapack_f64;
}

static double
real_at(const port_view *view, int64_t at)
{
    return view->dtype == PORT_F32 ? (double)((const float *)view->data)[at] : ((const double *)view->data)[at];
}

static void
set_real(const port_view *view, int64_t at, double value)
{
    if (view->dtype == PORT_F32) {
        ((float *)view->data)[at] = (float)value;
    } else {
        ((double *)view->data)[at] = value;
    }
}

static bool
fits_int(const port_view *view)
{
    bool fits = true;
    for (int32_t d = 0; d < view->ndim; d++) {
        fits = fits && view->shape[d] <= INT32_MAX && view->strides[d] <= INT32_MAX;
    }
    return fits;
}

/* ---------------------------------------------------------------- gemv */

static port_status
gemv_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->in[0], *x = call->in[1], *c = call->in[2], *y = call->out[0];
    bool fits = call->params != NULL && a->ndim == 2 && x->ndim == 1 && y->ndim == 1 && a->shape[1] == x->shape[0] &&
                a->shape[0] == y->shape[0] && port_view_is_contiguous(y) &&
                (c == NULL || (c->ndim == 1 && c->shape[0] == y->shape[0]));
    if (!fits) {
        return port_fail(err, PORT_E_SHAPE, "gemv: expected a matrix (M, K), a vector (K) and an addend (M)");
    }
    return x->dtype == a->dtype && y->dtype == a->dtype && (c == NULL || c->dtype == a->dtype)
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "gemv: operands of %s and %s", port_dtype_name(a->dtype), port_dtype_name(x->dtype));
}

/* Room for a copy of the matrix, where it is neither row- nor column-major. */
static size_t
gemv_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)port_view_elems(call->in[0]) * port_dtype_size(call->in[0]->dtype) + 64;
}

static int
at_least_one(int64_t size)
{
    return size > 1 ? (int)size : 1;
}

/* ATen's choice: as it lies if column-major, else transposed, a copy if it must be. */
static void
gemv_by_blas(const port_kernel_call *call, double alpha, double beta)
{
    port_view a = *call->in[0];
    const port_view *x = call->in[1], *y = call->out[0];
    int rows = (int)a.shape[0], cols = (int)a.shape[1], one = 1, incx = (int)x->strides[0];
    bool columns = a.strides[0] == 1 && a.strides[1] >= at_least_one(rows);
    if (!columns && !(a.strides[1] == 1 && a.strides[0] >= at_least_one(cols))) {
        port_view_gather(&a, call->scratch);
        a.data = call->scratch;
        a.strides[0] = cols;
        a.strides[1] = 1;
    }
    int m = columns ? rows : cols, n = columns ? cols : rows, lda = (int)a.strides[columns ? 1 : 0];
    lda = n == 1 ? m : lda;
    float alpha_f32 = (float)alpha, beta_f32 = (float)beta;
    bool narrow = a.dtype == PORT_F32;
    int before = port_provider_use_threads(call->provider, call->profile->num_threads);
    lapack_of(call)->gemv(columns ? "n" : "t", &m, &n, narrow ? (const void *)&alpha_f32 : &alpha, a.data, &lda, x->data,
                          &incx, narrow ? (const void *)&beta_f32 : &beta, y->data, &one);
    port_provider_restore_threads(call->provider, before);
}

static void
gemv_run(const port_kernel_call *call)
{
    const port_gemm_params *p = call->params;
    const port_view *a = call->in[0], *x = call->in[1], *c = call->in[2], *y = call->out[0];
    double beta = c != NULL ? p->beta : 0.0;
    for (int64_t i = 0; i < y->shape[0]; i++) {
        set_real(y, i, c != NULL ? real_at(c, i * c->strides[0]) : 0.0);
    }
    bool blas = call->provider != NULL && lapack_of(call)->gemv != NULL && fits_int(a) && fits_int(x) && x->strides[0] > 0;
    if (blas && port_view_elems(a) > 0) {
        gemv_by_blas(call, p->alpha, beta);
        return;
    }
    double kept = y->dtype == PORT_F32 ? (double)(float)beta : beta;
    for (int64_t i = 0; i < y->shape[0] && x->shape[0] == 0; i++) { /* nothing to sum: adding 0 would lose the sign of -0 */
        set_real(y, i, beta == 0.0 ? 0.0 : kept * real_at(y, i));
    }
    for (int64_t i = 0; i < y->shape[0] && x->shape[0] > 0; i++) {
        double sum = 0.0;
        for (int64_t k = 0; k < x->shape[0]; k++) {
            sum += real_at(a, i * a->strides[0] + k * a->strides[1]) * real_at(x, k * x->strides[0]);
        }
        set_real(y, i, beta == 0.0 ? p->alpha * sum : beta * real_at(y, i) + p->alpha * sum);
    }
}

/* ---------------------------------------------------------------- dot */

static port_status
dot_check(const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *y = call->in[1], *to = call->out[0];
    if (x->ndim != 1 || y->ndim != 1 || x->shape[0] != y->shape[0] || port_view_elems(to) != 1) {
        return port_fail(err, PORT_E_SHAPE, "dot: expected two vectors of one length and a single result");
    }
    return x->dtype == y->dtype && to->dtype == x->dtype
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "dot: vectors of %s and %s", port_dtype_name(x->dtype), port_dtype_name(y->dtype));
}

static void
dot_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0], *y = call->in[1];
    int64_t n = x->shape[0];
    const port_provider *from = call->provider;
    bool narrow = x->dtype == PORT_F32;
    if (from != NULL && (narrow ? from->sdot != NULL : from->ddot != NULL) && fits_int(x) && fits_int(y)) {
        int length = (int)n, incx = n == 1 ? 1 : (int)x->strides[0], incy = n == 1 ? 1 : (int)y->strides[0];
        int before = port_provider_use_threads(from, call->profile->num_threads);
        double sum = narrow ? (double)from->sdot(&length, x->data, &incx, y->data, &incy)
                            : from->ddot(&length, x->data, &incx, y->data, &incy);
        port_provider_restore_threads(from, before);
        set_real(call->out[0], 0, sum);
        return;
    }
    double sum = 0.0;
    for (int64_t k = 0; k < n; k++) {
        sum += real_at(x, k * x->strides[0]) * real_at(y, k * y->strides[0]);
    }
    set_real(call->out[0], 0, sum);
}

#define ROWS(T)                                                                                                        \
    {"gemv", T, "ref", 0, gemv_check, gemv_scratch_bytes, gemv_run}, {"dot", T, "ref", 0, dot_check, NULL, dot_run}

const port_kernel_row port_products_rows[] = {ROWS(PORT_F32), ROWS(PORT_F64), {.op = NULL}};
