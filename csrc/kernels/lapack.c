/* lapack.c -- systems of equations and decompositions of stacks of column-major matrices.
 *     lu: P a = L U      cholesky: a = L L^T or U^T U      qr: a = Q R      eigh: a = V w V^T      svd: a = U s V^T
 * The reference calls LAPACK; with its functions the bits are the same. The own loops compute in double and round once
 * at the end: elimination with row pivots, Cholesky by columns, Householder reflections with LAPACK's signs. Vectors of
 * eigh and svd have no sign of their own, so that without the library there would be nothing to compare: refused.
 * Source: at::native BatchLinearAlgebra (BSD-3-Clause; restated); Golub, van Loan, Matrix computations, chapters 3-5. */
#include "matmul.h"

#include <math.h>

static const port_lapack *
lapack_of(const port_kernel_call *call)
{
    static const port_lapack none = {0};
    if (call->provider == NULL) {
        return &none;
    }
    return call->out[0]->dtype == PORT_F32 ? &call->provider->lapack_f32 : &call->provider->lapack_f64;
}

static int
at_least_one(int64_t size)
{
    return size > 1 ? (int)size : 1;
}

static int64_t
least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The data of matrix `item` of a dense stack. */
static void *
item_of(const port_view *stack, int64_t item)
{
    int64_t elems = 1;
    for (int32_t d = 1; d < stack->ndim; d++) {
        elems *= stack->shape[d];
    }
    return (char *)stack->data + item * elems * (int64_t)port_dtype_size(stack->dtype);
}

static bool
is_stack(const port_view *view)
{
    int64_t rows = view->ndim == 3 ? view->shape[1] : 0, cols = view->ndim == 3 ? view->shape[2] : 0;
    return view->ndim == 3 && rows <= INT32_MAX && cols <= INT32_MAX &&
           (port_view_elems(view) == 0 || ((rows == 1 || view->strides[1] == 1) && (cols == 1 || view->strides[2] == rows) &&
                                           (view->shape[0] == 1 || view->strides[0] == rows * cols)));
}

static port_status
refuse_shape(const char *op, port_error *err)
{
    return port_fail(err, PORT_E_SHAPE, "%s: expected stacks of dense column-major matrices that fit each other", op);
}

static bool
is_vectors(const port_view *view, int64_t count, int64_t length, port_dtype dtype)
{
    return view->ndim == 2 && view->dtype == dtype && view->shape[0] == count && view->shape[1] == length &&
           port_view_is_contiguous(view);
}

static bool
is_info(const port_view *view, int64_t count)
{
    return view->ndim == 1 && view->dtype == PORT_I32 && view->shape[0] == count && port_view_is_contiguous(view);
}

/* Room for one matrix in double and as many numbers again for its rows and columns. */
static size_t
own_bytes(const port_view *a)
{
    return ((size_t)(a->shape[1] * a->shape[2]) + (size_t)(a->shape[1] + a->shape[2])) * sizeof(double) + 64;
}

static void
load_numbers(port_dtype dtype, const void *from, int64_t n, double *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = dtype == PORT_F32 ? (double)((const float *)from)[i] : ((const double *)from)[i];
    }
}

static void
store_numbers(port_dtype dtype, const double *from, int64_t n, void *to)
{
    for (int64_t i = 0; i < n; i++) {
        if (dtype == PORT_F32) {
            ((float *)to)[i] = (float)from[i];
        } else {
            ((double *)to)[i] = from[i];
        }
    }
}

static void
load_matrix(const port_view *stack, int64_t item, double *to)
{
    load_numbers(stack->dtype, item_of(stack, item), stack->shape[1] * stack->shape[2], to);
}

static void
store_matrix(const port_view *stack, int64_t item, const double *from)
{
    store_numbers(stack->dtype, from, stack->shape[1] * stack->shape[2], item_of(stack, item));
}

/* ---------------------------------------------------------------- lu */

static port_status
lu_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->out[0];
    bool fits = is_stack(a) && is_vectors(call->out[1], a->shape[0], least(a->shape[1], a->shape[2]), PORT_I32) &&
                is_info(call->out[2], a->shape[0]);
    return fits ? PORT_OK : refuse_shape("lu", err);
}

static size_t
lu_scratch_bytes(const port_kernel_call *call)
{
    return own_bytes(call->out[0]);
}

static void
lu_own(int64_t m, int64_t n, double *a, int32_t *pivots, int32_t *info)
{
    *info = 0;
    for (int64_t k = 0; k < least(m, n); k++) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < m; i++) {
            pivot = fabs(a[i + k * m]) > fabs(a[pivot + k * m]) ? i : pivot;
        }
        pivots[k] = (int32_t)(pivot + 1);
        if (a[pivot + k * m] == 0.0) {
            *info = *info == 0 ? (int32_t)(k + 1) : *info;
            continue;
        }
        for (int64_t j = 0; j < n && pivot != k; j++) {
            double held = a[k + j * m];
            a[k + j * m] = a[pivot + j * m];
            a[pivot + j * m] = held;
        }
        for (int64_t i = k + 1; i < m; i++) {
            a[i + k * m] /= a[k + k * m];
        }
        for (int64_t j = k + 1; j < n; j++) {
            for (int64_t i = k + 1; i < m; i++) {
                a[i + j * m] -= a[i + k * m] * a[k + j * m];
            }
        }
    }
}

/* A stack of small matrices is dealt to the reference's threads, and each factored by one. */
static int32_t
lu_threads(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    double rank = (double)least(a->shape[1], a->shape[2]), share = 3200.0 / (rank * rank * rank);
    int64_t grain = (int64_t)(share < 1.0 ? share : 1.0) * call->profile->num_threads;
    return a->shape[0] > 1 && a->shape[0] > grain ? 1 : call->profile->num_threads;
}

static void
lu_run(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    const port_lapack *lapack = lapack_of(call);
    int rows = (int)a->shape[1], cols = (int)a->shape[2], lead = at_least_one(rows);
    bool library = lapack->getrf != NULL && port_view_elems(a) > 0;
    int before = library ? port_provider_use_threads(call->provider, lu_threads(call)) : -1;
    for (int64_t item = 0; item < a->shape[0]; item++) {
        int32_t *pivots = item_of(call->out[1], item), *info = item_of(call->out[2], item);
        if (library) {
            lapack->getrf(&rows, &cols, item_of(a, item), &lead, pivots, info);
        } else {
            load_matrix(a, item, call->scratch);
            lu_own(rows, cols, call->scratch, pivots, info);
            store_matrix(a, item, call->scratch);
        }
    }
    if (library) {
        port_provider_restore_threads(call->provider, before);
    }
}

/* ---------------------------------------------------------------- lu_solve */

static port_status
lu_solve_check(const port_kernel_call *call, port_error *err)
{
    const port_view *lu = call->in[0], *pivots = call->in[1], *x = call->out[0];
    bool fits = call->params != NULL && is_stack(lu) && is_stack(x) && lu->dtype == x->dtype && lu->shape[1] == lu->shape[2] &&
                lu->shape[0] == x->shape[0] && x->shape[1] == lu->shape[1] &&
                is_vectors(pivots, lu->shape[0], lu->shape[1], PORT_I32);
    if (!fits) {
        return refuse_shape("lu_solve", err);
    }
    const int32_t *rows = pivots->data;
    for (int64_t i = 0; i < port_view_elems(pivots); i++) {
        if (rows[i] < 1 || rows[i] > lu->shape[1]) {
            return port_fail(err, PORT_E_VALUE, "lu_solve: pivot %lld is %d, there are %lld rows", (long long)i, (int)rows[i],
                             (long long)lu->shape[1]);
        }
    }
    return PORT_OK;
}

static size_t
lu_solve_scratch_bytes(const port_kernel_call *call)
{
    return own_bytes(call->in[0]) + own_bytes(call->out[0]);
}

/* One column: rows are exchanged before the substitutions, or after those with the transposed. */
static void
lu_solve_own(int64_t n, const double *lu, const int32_t *pivots, bool transposed, double *x)
{
    for (int64_t k = 0; k < n && !transposed; k++) {
        double held = x[k];
        x[k] = x[pivots[k] - 1];
        x[pivots[k] - 1] = held;
    }
    for (int half = 0; half < 2; half++) {
        bool forward = half == 0, unit = forward != transposed;
        for (int64_t step = 0; step < n; step++) {
            int64_t i = forward ? step : n - 1 - step;
            for (int64_t j = forward ? 0 : i + 1; j < (forward ? i : n); j++) {
                x[i] -= (transposed ? lu[j + i * n] : lu[i + j * n]) * x[j];
            }
            x[i] = unit ? x[i] : x[i] / lu[i + i * n];
        }
    }
    for (int64_t k = n - 1; k >= 0 && transposed; k--) {
        double held = x[k];
        x[k] = x[pivots[k] - 1];
        x[pivots[k] - 1] = held;
    }
}

static void
lu_solve_run(const port_kernel_call *call)
{
    const port_view *lu = call->in[0], *x = call->out[0];
    bool transposed = ((const port_lapack_params *)call->params)->transposed;
    const port_lapack *lapack = lapack_of(call);
    int n = (int)lu->shape[1], cols = (int)x->shape[2], lead = at_least_one(n), info = 0;
    bool library = lapack->getrs != NULL && port_view_elems(x) > 0;
    int before = library ? port_provider_use_threads(call->provider, call->profile->num_threads) : -1;
    for (int64_t item = 0; item < x->shape[0]; item++) {
        const int32_t *pivots = item_of(call->in[1], item);
        if (library) {
            lapack->getrs(transposed ? "T" : "N", &n, &cols, item_of(lu, item), &lead, pivots, item_of(x, item), &lead, &info);
            continue;
        }
        double *factors = call->scratch, *columns = factors + (int64_t)n * n;
        load_matrix(lu, item, factors);
        load_matrix(x, item, columns);
        for (int64_t c = 0; c < cols; c++) {
            lu_solve_own(n, factors, pivots, transposed, columns + c * n);
        }
        store_matrix(x, item, columns);
    }
    if (library) {
        port_provider_restore_threads(call->provider, before);
    }
}

/* ---------------------------------------------------------------- cholesky */

static port_status
cholesky_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->out[0];
    bool fits = call->params != NULL && is_stack(a) && a->shape[1] == a->shape[2] && is_info(call->out[1], a->shape[0]);
    return fits ? PORT_OK : refuse_shape("cholesky", err);
}

/* Of the upper triangle: that of the transposed matrix. */
static void
cholesky_own(int64_t n, double *a, bool upper, int32_t *info)
{
    int64_t down = upper ? n : 1, across = upper ? 1 : n;
    *info = 0;
    for (int64_t k = 0; k < n; k++) {
        double *pivot = &a[k * (n + 1)];
        for (int64_t j = 0; j < k; j++) {
            *pivot -= a[k * down + j * across] * a[k * down + j * across];
        }
        if (!(*pivot > 0.0)) {
            *info = (int32_t)(k + 1);
            return;
        }
        *pivot = sqrt(*pivot);
        for (int64_t i = k + 1; i < n; i++) {
            double sum = a[i * down + k * across];
            for (int64_t j = 0; j < k; j++) {
                sum -= a[i * down + j * across] * a[k * down + j * across];
            }
            a[i * down + k * across] = sum / *pivot;
        }
    }
}

static void
cholesky_run(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    bool upper = ((const port_lapack_params *)call->params)->upper;
    const port_lapack *lapack = lapack_of(call);
    int n = (int)a->shape[1], lead = at_least_one(n);
    bool library = lapack->potrf != NULL && port_view_elems(a) > 0;
    int before = library ? port_provider_use_threads(call->provider, call->profile->num_threads) : -1;
    for (int64_t item = 0; item < a->shape[0]; item++) {
        int32_t *info = item_of(call->out[1], item);
        if (library) {
            lapack->potrf(upper ? "U" : "L", &n, item_of(a, item), &lead, info);
        } else {
            load_matrix(a, item, call->scratch);
            cholesky_own(n, call->scratch, upper, info);
            store_matrix(a, item, call->scratch);
        }
    }
    if (library) {
        port_provider_restore_threads(call->provider, before);
    }
}

/* ---------------------------------------------------------------- qr */

static port_status
qr_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->out[0];
    bool fits = is_stack(a) && is_vectors(call->out[1], a->shape[0], least(a->shape[1], a->shape[2]), a->dtype);
    return fits ? PORT_OK : refuse_shape("qr", err);
}

static port_status
qr_basis_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->out[0], *tau = call->in[0];
    bool fits = is_stack(a) && tau->ndim == 2 && tau->shape[1] <= a->shape[2] && a->shape[2] <= a->shape[1] &&
                is_vectors(tau, a->shape[0], tau->shape[1], a->dtype);
    return fits ? PORT_OK : refuse_shape("qr_basis", err);
}

/* What a library function said that it wants to work in, as its first element. */
static int64_t
wanted(port_dtype dtype, const double *work)
{
    float narrow;
    memcpy(&narrow, work, sizeof narrow);
    double elems = dtype == PORT_F32 ? (double)narrow : *work;
    return elems >= 1.0 && elems < 2e9 ? (int64_t)elems : 1;
}

static int64_t
qr_work(const port_kernel_call *call, int64_t reflectors, bool basis)
{
    const port_view *a = call->out[0];
    const port_lapack *lapack = lapack_of(call);
    int rows = (int)a->shape[1], cols = (int)a->shape[2], k = (int)reflectors, lead = at_least_one(rows), query = -1, info = 0;
    double work = 1.0;
    if (lapack->geqrf == NULL || lapack->orgqr == NULL) {
        return 0;
    }
    if (basis) {
        lapack->orgqr(&rows, &cols, &k, NULL, &lead, NULL, &work, &query, &info);
    } else {
        lapack->geqrf(&rows, &cols, NULL, &lead, NULL, &work, &query, &info);
    }
    int64_t elems = wanted(a->dtype, &work);
    return elems > cols ? elems : at_least_one(cols);
}

static size_t
qr_scratch_bytes(const port_kernel_call *call)
{
    return own_bytes(call->out[0]) + (size_t)qr_work(call, 0, false) * sizeof(double);
}

static size_t
qr_basis_scratch_bytes(const port_kernel_call *call)
{
    return own_bytes(call->out[0]) + (size_t)qr_work(call, call->in[0]->shape[1], true) * sizeof(double);
}

/* a -= tau v (v^T a) over the columns [from, n), for the reflector v = (1, a[k+1.., k]). */
static void
reflect(int64_t m, int64_t n, double *a, int64_t k, int64_t from, double tau)
{
    for (int64_t j = from; j < n; j++) {
        double dot = a[k + j * m];
        for (int64_t i = k + 1; i < m; i++) {
            dot += a[i + k * m] * a[i + j * m];
        }
        a[k + j * m] -= tau * dot;
        for (int64_t i = k + 1; i < m; i++) {
            a[i + j * m] -= tau * dot * a[i + k * m];
        }
    }
}

static void
qr_own(int64_t m, int64_t n, double *a, double *tau)
{
    for (int64_t k = 0; k < least(m, n); k++) {
        double below = 0.0, head = a[k + k * m];
        for (int64_t i = k + 1; i < m; i++) {
            below += a[i + k * m] * a[i + k * m];
        }
        tau[k] = 0.0;
        if (below == 0.0) {
            continue;
        }
        double beta = head > 0.0 || (head == 0.0 && !signbit(head)) ? -sqrt(head * head + below) : sqrt(head * head + below);
        tau[k] = (beta - head) / beta;
        for (int64_t i = k + 1; i < m; i++) {
            a[i + k * m] /= head - beta;
        }
        a[k + k * m] = beta;
        reflect(m, n, a, k, k + 1, tau[k]);
    }
}

/* The reflectors, from the last on, times the first columns of the identity. */
static void
qr_basis_own(int64_t m, int64_t n, int64_t reflectors, double *a, const double *tau)
{
    for (int64_t j = reflectors; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            a[i + j * m] = i == j ? 1.0 : 0.0;
        }
    }
    for (int64_t k = reflectors - 1; k >= 0; k--) {
        reflect(m, n, a, k, k + 1, tau[k]);
        for (int64_t i = k + 1; i < m; i++) {
            a[i + k * m] *= -tau[k];
        }
        a[k + k * m] = 1.0 - tau[k];
        for (int64_t i = 0; i < k; i++) {
            a[i + k * m] = 0.0;
        }
    }
}

static void
qr_item(const port_kernel_call *call, int64_t item, const port_view *tau, bool basis)
{
    const port_view *a = call->out[0];
    double *matrix = call->scratch, *factors = matrix + a->shape[1] * a->shape[2];
    load_matrix(a, item, matrix);
    if (basis) {
        load_numbers(tau->dtype, item_of(tau, item), tau->shape[1], factors);
        qr_basis_own(a->shape[1], a->shape[2], tau->shape[1], matrix, factors);
    } else {
        qr_own(a->shape[1], a->shape[2], matrix, factors);
        store_numbers(tau->dtype, factors, tau->shape[1], item_of(tau, item));
    }
    store_matrix(a, item, matrix);
}

static void
qr_stack(const port_kernel_call *call, const port_view *tau, bool basis)
{
    const port_view *a = call->out[0];
    const port_lapack *lapack = lapack_of(call);
    int rows = (int)a->shape[1], cols = (int)a->shape[2], k = (int)tau->shape[1], lead = at_least_one(rows), info = 0;
    int room = (int)qr_work(call, k, basis);
    bool library = room > 0 && port_view_elems(a) > 0;
    int before = library ? port_provider_use_threads(call->provider, call->profile->num_threads) : -1;
    for (int64_t item = 0; item < a->shape[0] && port_view_elems(a) > 0; item++) {
        if (!library) {
            qr_item(call, item, tau, basis);
        } else if (basis) {
            lapack->orgqr(&rows, &cols, &k, item_of(a, item), &lead, item_of(tau, item), call->scratch, &room, &info);
        } else {
            lapack->geqrf(&rows, &cols, item_of(a, item), &lead, item_of(tau, item), call->scratch, &room, &info);
        }
    }
    if (library) {
        port_provider_restore_threads(call->provider, before);
    }
}

static void
qr_run(const port_kernel_call *call)
{
    qr_stack(call, call->out[1], false);
}

static void
qr_basis_run(const port_kernel_call *call)
{
    qr_stack(call, call->in[0], true);
}

/* ---------------------------------------------------------------- eigh, svd: the library alone */

static port_status
need_library(const char *op, bool there, port_error *err)
{
    return there ? PORT_OK
                 : port_fail(err, PORT_E_UNSUPPORTED,
                             "%s: only the torch provider's library computes it: its vectors have no sign of their own", op);
}

static port_status
eigh_check(const port_kernel_call *call, port_error *err)
{
    const port_view *a = call->out[0];
    bool fits = call->params != NULL && is_stack(a) && a->shape[1] == a->shape[2] &&
                is_vectors(call->out[1], a->shape[0], a->shape[1], a->dtype);
    return fits ? need_library("eigh", lapack_of(call)->syevd != NULL, err) : refuse_shape("eigh", err);
}

/* What the library has not found is NaN. */
static void
set_nan(const port_view *values, int64_t item)
{
    const double nan = (double)NAN;
    for (int64_t i = 0; i < values->shape[1]; i++) {
        store_numbers(values->dtype, &nan, 1, (char *)item_of(values, item) + i * (int64_t)port_dtype_size(values->dtype));
    }
}

static int
eigh_call(const port_kernel_call *call, void *a, void *w, void *work, int lwork, int *iwork, int liwork)
{
    const port_lapack_params *p = call->params;
    int n = (int)call->out[0]->shape[1], lead = at_least_one(n), info = 0;
    lapack_of(call)->syevd(p->vectors ? "V" : "N", p->upper ? "U" : "L", &n, a, &lead, w, work, &lwork, iwork, &liwork, &info);
    return info;
}

/* Numbers and ints that the function works in. */
static void
eigh_work(const port_kernel_call *call, int64_t *elems, int *ints)
{
    double work = 1.0;
    *ints = 1;
    eigh_call(call, NULL, NULL, &work, -1, ints, -1);
    *elems = wanted(call->out[0]->dtype, &work);
    *ints = *ints > 1 ? *ints : 1;
}

static size_t
eigh_scratch_bytes(const port_kernel_call *call)
{
    int64_t elems;
    int ints;
    eigh_work(call, &elems, &ints);
    return (size_t)elems * sizeof(double) + (size_t)ints * sizeof(int) + 64;
}

static void
eigh_run(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    int64_t elems;
    int ints, before = port_provider_use_threads(call->provider, call->profile->num_threads);
    eigh_work(call, &elems, &ints);
    for (int64_t item = 0; item < a->shape[0] && port_view_elems(a) > 0; item++) {
        if (eigh_call(call, item_of(a, item), item_of(call->out[1], item), call->scratch, (int)elems,
                      (int *)((double *)call->scratch + elems), ints) != 0) {
            set_nan(call->out[1], item);
        }
    }
    port_provider_restore_threads(call->provider, before);
}

static port_status
svd_check(const port_kernel_call *call, port_error *err)
{
    const port_lapack_params *p = call->params;
    const port_view *a = call->out[0], *u = call->out[2], *vt = call->out[3];
    if (p == NULL || !is_stack(a) || !is_vectors(call->out[1], a->shape[0], least(a->shape[1], a->shape[2]), a->dtype)) {
        return refuse_shape("svd", err);
    }
    int64_t k = least(a->shape[1], a->shape[2]);
    bool fits = !p->vectors || (u != NULL && vt != NULL && is_stack(u) && is_stack(vt) && u->dtype == a->dtype && vt->dtype == a->dtype &&
                                u->shape[0] == a->shape[0] && vt->shape[0] == a->shape[0] && u->shape[1] == a->shape[1] &&
                                u->shape[2] == (p->full ? a->shape[1] : k) && vt->shape[1] == (p->full ? a->shape[2] : k) &&
                                vt->shape[2] == a->shape[2]);
    return fits ? need_library("svd", lapack_of(call)->gesdd != NULL, err) : refuse_shape("svd", err);
}

static int
svd_call(const port_kernel_call *call, int64_t item, void *work, int lwork, int *iwork)
{
    const port_lapack_params *p = call->params;
    const port_view *a = call->out[0], *u = call->out[2], *vt = call->out[3];
    int rows = (int)a->shape[1], cols = (int)a->shape[2], lead = at_least_one(rows), info = 0;
    int lead_u = lead, lead_vt = p->vectors ? at_least_one(vt->shape[1]) : 1;
    lapack_of(call)->gesdd(!p->vectors ? "N" : (p->full ? "A" : "S"), &rows, &cols, item_of(a, item), &lead, item_of(call->out[1], item),
                           p->vectors ? item_of(u, item) : NULL, &lead_u, p->vectors ? item_of(vt, item) : NULL, &lead_vt, work, &lwork,
                           iwork, &info);
    return info;
}

static int64_t
svd_work(const port_kernel_call *call)
{
    double work = 1.0;
    int ints = 0;
    svd_call(call, 0, &work, -1, &ints);
    return wanted(call->out[0]->dtype, &work);
}

static size_t
svd_scratch_bytes(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    return (size_t)svd_work(call) * sizeof(double) + 8 * (size_t)at_least_one(least(a->shape[1], a->shape[2])) * sizeof(int) + 64;
}

static void
svd_run(const port_kernel_call *call)
{
    const port_view *a = call->out[0];
    int before = port_provider_use_threads(call->provider, call->profile->num_threads);
    int64_t elems = svd_work(call);
    for (int64_t item = 0; item < a->shape[0] && port_view_elems(a) > 0; item++) {
        if (svd_call(call, item, call->scratch, (int)elems, (int *)((double *)call->scratch + elems)) != 0) {
            set_nan(call->out[1], item);
        }
    }
    port_provider_restore_threads(call->provider, before);
}

#define ROWS(T)                                                                                                        \
    {"lu", T, "ref", 0, lu_check, lu_scratch_bytes, lu_run},                                                           \
    {"lu_solve", T, "ref", 0, lu_solve_check, lu_solve_scratch_bytes, lu_solve_run},                                   \
    {"cholesky", T, "ref", 0, cholesky_check, lu_scratch_bytes, cholesky_run},                                         \
    {"qr", T, "ref", 0, qr_check, qr_scratch_bytes, qr_run},                                                           \
    {"qr_basis", T, "ref", 0, qr_basis_check, qr_basis_scratch_bytes, qr_basis_run},                                   \
    {"eigh", T, "ref", 0, eigh_check, eigh_scratch_bytes, eigh_run},                                                   \
    {"svd", T, "ref", 0, svd_check, svd_scratch_bytes, svd_run}

const port_kernel_row port_lapack_rows[] = {ROWS(PORT_F32), ROWS(PORT_F64), {.op = NULL}};
