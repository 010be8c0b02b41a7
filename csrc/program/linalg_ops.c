/* linalg_ops.c -- linear algebra: factorisations (lapack.c) and what torch makes of them: determinants, inverses, solutions;
 * products with vectors.
 *
 * For a determinant a row-major matrix is given to LU as its transpose, as torch does to save the copy: the bits depend on it.
 * Results are column-major, as torch's are. */
#include "compose.h"

#include <math.h>

/* A stack of matrices as one dimension of them: how many, and the shape of the tensor that it came from. */
typedef struct stack {
    port_tensor *whole, *flat; /* (.., M, N) column-major, and the same memory as (count, M, N) */
    int64_t count;
} stack;

static port_status
need_matrices(op_call *call, const port_tensor *t, bool square)
{
    if (t->dtype != PORT_F32 && t->dtype != PORT_F64) {
        return fail_unsupported(call, "matrices of %s", port_dtype_name(t->dtype));
    }
    return t->ndim >= 2 && (!square || t->shape[t->ndim - 1] == t->shape[t->ndim - 2])
               ? PORT_OK
               : fail_op(call, PORT_E_SHAPE, "expected %smatrices (.., M, N), got a tensor of %d dimensions", square ? "square " : "", t->ndim);
}

/* A column-major copy of the matrices, each broadcast to `shape`, of which `t` fills the first rows and columns. */
static port_status
column_major_copy(op_call *call, const port_tensor *t, int32_t ndim, const int64_t *shape, stack *out)
{
    out->count = 1;
    for (int32_t d = 0; d < ndim - 2; d++) {
        out->count *= shape[d];
    }
    return copy_stack(call, t, true, ndim, shape, out->count, &out->whole, &out->flat);
}

/* A row-major tensor of x's batch and `extra` more sizes, and the same with the batch as one dimension. */
static port_status
new_vectors(op_call *call, const port_tensor *x, int64_t count, port_dtype dtype, int64_t length, port_tensor **whole, port_tensor **flat)
{
    int32_t batch = x->ndim - 2, more = length >= 0;
    int64_t shape[PORT_MAX_NDIM];
    memcpy(shape, x->shape, sizeof shape);
    if (more) {
        shape[batch] = length;
    }
    port_status status = tensor_new(call, dtype, batch + more, shape, NULL, whole);
    return status == PORT_OK ? tensor_reshaped(call, *whole, 1 + more, (const int64_t[]){count, length}, flat) : status;
}

static int64_t
least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ------------------------------------------------------------------ LU */

/* linalg_lu_factor_ex(A, pivot, check_errors): LU, pivots, info. */
static port_status
run_lu_factor(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    port_tensor *pivots, *pivot_rows, *info, *infos;
    stack lu;
    if (!arg_bool(call, 1)) {
        return fail_unsupported(call, "factors without pivots");
    }
    port_status status = need_matrices(call, a, false);
    if (status != PORT_OK || (status = column_major_copy(call, a, a->ndim, a->shape, &lu)) != PORT_OK ||
        (status = new_vectors(call, a, lu.count, PORT_I32, least(a->shape[a->ndim - 2], a->shape[a->ndim - 1]), &pivots, &pivot_rows)) != PORT_OK ||
        (status = new_vectors(call, a, lu.count, PORT_I32, -1, &info, &infos)) != PORT_OK ||
        (status = launch_tensors(call, "lu", a->dtype, NULL, 0, (const port_tensor *const[]){lu.flat, pivot_rows, infos}, 3, NULL)) != PORT_OK ||
        (status = emit(call, lu.whole)) != PORT_OK || (status = emit(call, pivots)) != PORT_OK) {
        return status;
    }
    return emit(call, info);
}

static port_status
transposed(op_call *call, const port_tensor *t, port_tensor **out)
{
    port_status status = tensor_alias(call, t, out);
    if (status == PORT_OK) {
        int32_t last = t->ndim - 1;
        (*out)->shape[last] = t->shape[last - 1];
        (*out)->strides[last] = t->strides[last - 1];
        (*out)->shape[last - 1] = t->shape[last];
        (*out)->strides[last - 1] = t->strides[last];
    }
    return status;
}

/* linalg_lu_solve(LU, pivots, B, left, adjoint). X A = B is A^T X^T = B^T. */
static port_status
run_lu_solve(op_call *call)
{
    const port_tensor *lu = arg_tensor(call, 0), *pivots = arg_tensor(call, 1), *b = arg_tensor(call, 2);
    bool left = arg_bool(call, 3);
    port_lapack_params params = {.transposed = arg_bool(call, 4) == left};
    int64_t lu_shape[PORT_MAX_NDIM], b_shape[PORT_MAX_NDIM], count;
    int32_t ndim;
    port_tensor *right, *order, *orders, *out;
    stack factors, x;
    port_status status = need_matrices(call, lu, true);
    if (status != PORT_OK || (status = need_matrices(call, b, false)) != PORT_OK) {
        return status;
    }
    if ((status = tensor_alias(call, b, &right)) != PORT_OK || (!left && (status = transposed(call, b, &right)) != PORT_OK)) {
        return status;
    }
    if (pivots->dtype != PORT_I32 || pivots->ndim != lu->ndim - 1 || b->dtype != lu->dtype ||
        memcmp(pivots->shape, lu->shape, (size_t)pivots->ndim * sizeof *lu->shape) != 0 ||
        right->shape[right->ndim - 2] != lu->shape[lu->ndim - 1] || !stack_shape(lu, right, &ndim, lu_shape, &count) ||
        !stack_shape(right, lu, &ndim, b_shape, &count)) {
        return fail_op(call, PORT_E_SHAPE, "the factors, pivots and right sides do not fit");
    }
    if ((status = column_major_copy(call, lu, ndim, lu_shape, &factors)) != PORT_OK ||
        (status = column_major_copy(call, right, ndim, b_shape, &x)) != PORT_OK ||
        (status = new_vectors(call, factors.whole, count, PORT_I32, lu_shape[ndim - 1], &order, &orders)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(order), from = view_broadcast(pivots, order->ndim, order->shape);
    copy_view(call, &to, &from);
    if ((status = launch_tensors(call, "lu_solve", lu->dtype, (const port_tensor *const[]){factors.flat, orders}, 2,
                                 (const port_tensor *const[]){x.flat}, 1, &params)) != PORT_OK) {
        return status;
    }
    out = x.whole;
    status = left ? PORT_OK : transposed(call, x.whole, &out);
    return status == PORT_OK ? emit(call, out) : status;
}

#define FACTORS(A) "a = " A "; lu, p, i = linalg_lu_factor_ex(a); "
#define TRANSPOSED "transpose.int(A, -2, -1)"

/* _linalg_solve_ex(A, B, left, check_errors): X, LU, pivots, info. B is vectors if it has one dimension, or A's but the last. */
static port_status
run_solve(op_call *call)
{
    static const char *const formulas[3] = { /* matrices, a vector, vectors, which come out column-major */
        "lu, p, i = linalg_lu_factor_ex(A); x = linalg_lu_solve(lu, p, B, left=left) -> x, lu, p, i",
        "lu, p, i = linalg_lu_factor_ex(A); b = unsqueeze(B, -1); x = linalg_lu_solve(lu, p, b, left=left); x = squeeze.dim(x, -1) -> x, lu, p, i",
        ("lu, p, i = linalg_lu_factor_ex(A); b = unsqueeze(B, -1); x = linalg_lu_solve(lu, p, b, left=left); x = squeeze.dim(x, -1); "
         "x = transpose.int(x, -2, -1); x = contiguous(x); x = transpose.int(x, -2, -1) -> x, lu, p, i")};
    const port_tensor *a = arg_tensor(call, 0), *b = arg_tensor(call, 1);
    port_status status = need_matrices(call, a, true);
    bool vectors = b->ndim == 1 || (b->ndim == a->ndim - 1 && memcmp(a->shape, b->shape, (size_t)b->ndim * sizeof *b->shape) == 0);
    return status == PORT_OK ? run_formula(call, formulas[!vectors ? 0 : (b->ndim == 1 ? 1 : 2)], NULL, 0) : status;
}

/* Even or odd by the rows that changed places: 1 or -1. */
#define PARITY                                                                                                         \
    "o = ones_like(p); o = cumsum(o, -1); c = ne.Tensor(p, o); c = sum.dim_IntList(c, [-1]); c = remainder.Scalar(c, 2); " \
    "c = mul.Scalar(c, -2); c = add.Scalar(c, 1); c = _to_copy(c, dtype=A.dtype); g = diagonal(lu, 0, -2, -1); "

/* _linalg_det(A): det, LU, pivots. _linalg_slogdet(A): sign, log |det|, LU, pivots. */
static port_status
run_det(op_call *call)
{
#define DET PARITY "d = prod.dim_int(g, -1); d = mul.Tensor(c, d) -> d, lu, p"
#define SLOGDET                                                                                                        \
    PARITY "s = sgn(g); s = prod.dim_int(s, -1); s = mul.Tensor(s, c); l = abs(g); l = log(l); l = sum.dim_IntList(l, [-1]) -> s, l, lu, p"
    static const char *const formulas[2][2] = {{FACTORS("alias(A)") DET, FACTORS(TRANSPOSED) DET},
                                               {FACTORS("alias(A)") SLOGDET, FACTORS(TRANSPOSED) SLOGDET}};
    const port_tensor *a = arg_tensor(call, 0);
    port_status status = need_matrices(call, a, true);
    bool logarithm = strcmp(call->row->name, "_linalg_slogdet") == 0;
    return status == PORT_OK ? run_formula(call, formulas[logarithm][tensor_is_contiguous(a)], NULL, 0) : status;
}

/* ------------------------------------------------------------------ Cholesky, QR */

#define EACH(REAL, VALUE)                                                                                              \
    for (int64_t at = 0; at < elems; at++) {                                                                           \
        int64_t row = at % rows, col = at / rows % cols;                                                               \
        ((REAL *)data)[at] = (upper ? row > col : row < col) ? VALUE : ((REAL *)data)[at];                             \
    }

/* Zeroes what is below the diagonal of dense column-major matrices, or above it. */
static void
keep_triangle(const port_tensor *flat, bool upper)
{
    int64_t elems = tensor_elems(flat), rows = flat->shape[1], cols = flat->shape[2];
    void *data = tensor_view(flat).data;
    if (flat->dtype == PORT_F32) {
        EACH(float, 0.0f)
    } else {
        EACH(double, 0.0)
    }
}

/* linalg_cholesky_ex(self, upper, check_errors): L, info. */
static port_status
run_cholesky(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    port_lapack_params params = {.upper = arg_bool(call, 1)};
    port_tensor *info, *infos;
    stack l;
    port_status status = need_matrices(call, a, true);
    if (status != PORT_OK || (status = column_major_copy(call, a, a->ndim, a->shape, &l)) != PORT_OK ||
        (status = new_vectors(call, a, l.count, PORT_I32, -1, &info, &infos)) != PORT_OK) {
        return status;
    }
    keep_triangle(l.flat, params.upper);
    if ((status = launch_tensors(call, "cholesky", a->dtype, NULL, 0, (const port_tensor *const[]){l.flat, infos}, 2, &params)) != PORT_OK ||
        (status = emit(call, l.whole)) != PORT_OK) {
        return status;
    }
    return emit(call, info);
}

/* The first `rows` rows or `cols` columns of column-major matrices, in a copy that has so many; what is missing is not set. */
static port_status
resized(op_call *call, const port_tensor *t, int64_t rows, int64_t cols, stack *out)
{
    int64_t shape[PORT_MAX_NDIM];
    port_tensor *part, *room;
    memcpy(shape, t->shape, sizeof shape);
    shape[t->ndim - 2] = rows;
    shape[t->ndim - 1] = cols;
    port_status status = tensor_new(call, t->dtype, t->ndim, shape, NULL, &room);
    if (status != PORT_OK || (status = column_major_copy(call, room, t->ndim, shape, out)) != PORT_OK ||
        (status = tensor_alias(call, t, &part)) != PORT_OK || (status = tensor_alias(call, out->whole, &room)) != PORT_OK) {
        return status;
    }
    part->shape[t->ndim - 2] = room->shape[t->ndim - 2] = least(rows, t->shape[t->ndim - 2]);
    part->shape[t->ndim - 1] = room->shape[t->ndim - 1] = least(cols, t->shape[t->ndim - 1]);
    port_view to = tensor_view(room), from = tensor_view(part);
    copy_view(call, &to, &from);
    return PORT_OK;
}

/* linalg_qr(A, mode): Q, R; "r": Q is empty. */
static port_status
run_qr(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    const char *mode = arg_text(call, 1, "");
    bool whole = strcmp(mode, "complete") == 0, only_r = strcmp(mode, "r") == 0;
    if (!whole && !only_r && strcmp(mode, "reduced") != 0 && mode[0] != '\0') {
        return fail_op(call, PORT_E_VALUE, "the mode is %.40s; expected reduced, complete or r", mode);
    }
    port_status status = need_matrices(call, a, false);
    if (status != PORT_OK) {
        return status;
    }
    int64_t rows = a->shape[a->ndim - 2], cols = a->shape[a->ndim - 1], k = least(rows, cols), nothing = 0;
    port_tensor *tau, *taus, *q_out;
    stack qr, q, r;
    if ((status = column_major_copy(call, a, a->ndim, a->shape, &qr)) != PORT_OK ||
        (status = new_vectors(call, a, qr.count, a->dtype, k, &tau, &taus)) != PORT_OK ||
        (status = launch_tensors(call, "qr", a->dtype, NULL, 0, (const port_tensor *const[]){qr.flat, taus}, 2, NULL)) != PORT_OK ||
        (status = resized(call, qr.whole, whole ? rows : k, cols, &r)) != PORT_OK) {
        return status;
    }
    keep_triangle(r.flat, true);
    if (only_r) {
        status = tensor_new(call, a->dtype, 1, &nothing, NULL, &q_out);
    } else if ((status = resized(call, qr.whole, rows, whole ? rows : k, &q)) == PORT_OK) {
        q_out = q.whole;
        status = launch_tensors(call, "qr_basis", a->dtype, (const port_tensor *const[]){taus}, 1, (const port_tensor *const[]){q.flat}, 1, NULL);
    }
    if (status != PORT_OK || (status = emit(call, q_out)) != PORT_OK) {
        return status;
    }
    return emit(call, r.whole);
}

/* geqrf(A): R above the reflectors, and their factors. */
static port_status
run_geqrf(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    port_tensor *tau, *taus;
    stack qr;
    port_status status = need_matrices(call, a, false);
    if (status != PORT_OK || (status = column_major_copy(call, a, a->ndim, a->shape, &qr)) != PORT_OK ||
        (status = new_vectors(call, a, qr.count, a->dtype, least(a->shape[a->ndim - 2], a->shape[a->ndim - 1]), &tau, &taus)) != PORT_OK ||
        (status = launch_tensors(call, "qr", a->dtype, NULL, 0, (const port_tensor *const[]){qr.flat, taus}, 2, NULL)) != PORT_OK ||
        (status = emit(call, qr.whole)) != PORT_OK) {
        return status;
    }
    return emit(call, tau);
}

/* linalg_householder_product(A (.., M, N), tau (.., K)): the first N columns of the product of K reflectors. */
static port_status
run_householder(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0), *tau = arg_tensor(call, 1);
    port_tensor *taus;
    stack q;
    port_status status = need_matrices(call, a, false);
    if (status != PORT_OK) {
        return status;
    }
    int64_t M = a->shape[a->ndim - 2], N = a->shape[a->ndim - 1], K = tau->ndim > 0 ? tau->shape[tau->ndim - 1] : -1;
    if (N > M || K < 0 || K > N || tau->dtype != a->dtype || tau->ndim != a->ndim - 1 ||
        memcmp(tau->shape, a->shape, (size_t)(a->ndim - 2) * sizeof a->shape[0]) != 0) {
        return fail_op(call, PORT_E_SHAPE, "expected (.., M, N) with M >= N and the factors of at most N reflectors for each");
    }
    if ((status = column_major_copy(call, a, a->ndim, a->shape, &q)) != PORT_OK || (status = tensor_contiguous(call, tau, &tau)) != PORT_OK ||
        (status = tensor_reshaped(call, tau, 2, (const int64_t[]){q.count, K}, &taus)) != PORT_OK ||
        (status = launch_tensors(call, "qr_basis", a->dtype, (const port_tensor *const[]){taus}, 1, (const port_tensor *const[]){q.flat}, 1, NULL)) !=
            PORT_OK) {
        return status;
    }
    return emit(call, q.whole);
}

/* ------------------------------------------------------------------ eigenvalues, singular values */

/* Refuses values that were not found, as torch does. */
static port_status
need_values(op_call *call, const port_tensor *values)
{
    int64_t length = values->shape[1];
    port_view view = tensor_view(values);
    for (int64_t i = 0; i < tensor_elems(values); i++) {
        double v = values->dtype == PORT_F32 ? (double)((const float *)view.data)[i] : ((const double *)view.data)[i];
        if (v != v) {
            return fail_op(call, PORT_E_VALUE, "matrix %lld has no decomposition: the algorithm did not converge, or an element is not finite",
                           (long long)(i / length));
        }
    }
    return PORT_OK;
}

/* _linalg_eigh(A, UPLO, compute_v): values, vectors (none: an empty tensor). */
static port_status
run_eigh(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    const char *triangle = arg_text(call, 1, "L");
    port_lapack_params params = {.upper = triangle[0] == 'U' || triangle[0] == 'u', .vectors = arg_bool(call, 2)};
    int64_t nothing = 0;
    port_tensor *values, *flat, *none;
    stack v;
    port_status status = need_matrices(call, a, true);
    if (status != PORT_OK || (status = column_major_copy(call, a, a->ndim, a->shape, &v)) != PORT_OK ||
        (status = new_vectors(call, a, v.count, a->dtype, a->shape[a->ndim - 1], &values, &flat)) != PORT_OK ||
        (status = tensor_new(call, a->dtype, 1, &nothing, NULL, &none)) != PORT_OK ||
        (status = launch_tensors(call, "eigh", a->dtype, NULL, 0, (const port_tensor *const[]){v.flat, flat}, 2, &params)) != PORT_OK ||
        (status = need_values(call, flat)) != PORT_OK || (status = emit(call, values)) != PORT_OK) {
        return status;
    }
    return emit(call, params.vectors ? v.whole : none);
}

/* Of a matrix of no elements any basis is one: torch takes the identity. */
static port_status
set_identity(op_call *call, const stack *square)
{
    const port_tensor *flat = square->flat;
    port_tensor *diagonal;
    port_status status = tensor_fill(call, flat, (port_scalar){PORT_SCALAR_INT, 0, 0.0});
    if (status != PORT_OK || (status = tensor_alias(call, flat, &diagonal)) != PORT_OK) {
        return status;
    }
    diagonal->ndim = 2;
    diagonal->shape[1] = least(flat->shape[1], flat->shape[2]);
    diagonal->strides[1] = flat->strides[1] + flat->strides[2];
    return tensor_fill(call, diagonal, (port_scalar){PORT_SCALAR_INT, 1, 1.0});
}

/* _linalg_svd(A, full_matrices, compute_uv, driver): U, S, Vh; U and Vh empty if not asked for. */
static port_status
run_svd(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0);
    port_lapack_params params = {.full = arg_bool(call, 1), .vectors = arg_bool(call, 2)};
    port_status status = need_matrices(call, a, false);
    if (status != PORT_OK) {
        return status;
    }
    int64_t rows = a->shape[a->ndim - 2], cols = a->shape[a->ndim - 1], k = least(rows, cols), nothing = 0;
    port_tensor *values, *flat, *none;
    stack work, u, vt;
    if ((status = column_major_copy(call, a, a->ndim, a->shape, &work)) != PORT_OK ||
        (status = new_vectors(call, a, work.count, a->dtype, k, &values, &flat)) != PORT_OK ||
        (status = tensor_new(call, a->dtype, 1, &nothing, NULL, &none)) != PORT_OK ||
        (status = resized(call, a, rows, params.full ? rows : k, &u)) != PORT_OK ||
        (status = resized(call, a, params.full ? cols : k, cols, &vt)) != PORT_OK ||
        (k == 0 && ((status = set_identity(call, &u)) != PORT_OK || (status = set_identity(call, &vt)) != PORT_OK)) ||
        (status = launch_tensors(call, "svd", a->dtype, NULL, 0, (const port_tensor *const[]){work.flat, flat, u.flat, vt.flat}, 4, &params)) != PORT_OK ||
        (status = need_values(call, flat)) != PORT_OK || (status = emit(call, params.vectors ? u.whole : none)) != PORT_OK || (status = emit(call, values)) != PORT_OK) {
        return status;
    }
    return emit(call, params.vectors ? vt.whole : none);
}

/* _linalg_check_errors(info, api_name, is_matrix): gives nothing; refuses what torch refuses. */
static port_status
run_check_errors(op_call *call)
{
    const port_tensor *info;
    port_status status = tensor_contiguous(call, arg_tensor(call, 0), &info);
    if (status != PORT_OK || info->dtype != PORT_I32) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_DTYPE, "info must be I32, got %s", port_dtype_name(info->dtype));
    }
    for (int64_t i = 0; i < tensor_elems(info); i++) {
        int32_t code = ((const int32_t *)tensor_view(info).data)[i];
        if (code != 0) {
            return fail_op(call, PORT_E_VALUE, "%.60s failed for matrix %lld: LAPACK's info is %d", arg_text(call, 1, ""), (long long)i, (int)code);
        }
    }
    return PORT_OK;
}

/* ------------------------------------------------------------------ vectors */

static bool
is_real(const port_tensor *t)
{
    return t->dtype == PORT_F32 || t->dtype == PORT_F64;
}

/* mv(self, vec), addmv(self, mat, vec, beta, alpha). Halves and integers are products with a matrix of one column. */
static port_status
run_mv(op_call *call)
{
    bool added = strcmp(call->row->name, "addmv") == 0;
    const port_tensor *c = added ? arg_tensor(call, 0) : NULL, *a = arg_tensor(call, added), *x = arg_tensor(call, added + 1);
    port_gemm_params params = {.alpha = added ? arg_scalar(call, 4).d : 1.0, .beta = added ? arg_scalar(call, 3).d : 0.0};
    port_tensor *out;
    if (a->ndim != 2 || x->ndim != 1 || a->shape[1] != x->shape[0] || a->dtype != x->dtype || (c != NULL && c->dtype != a->dtype)) {
        return fail_op(call, PORT_E_SHAPE, "expected a matrix (M, K) and a vector (K) of one dtype");
    }
    if (c != NULL && (c->ndim > 1 || (c->ndim == 1 && c->shape[0] != 1 && c->shape[0] != a->shape[0]))) {
        return fail_op(call, PORT_E_SHAPE, "the addend does not broadcast to the product");
    }
    if (!is_real(a)) {
        return run_formula(call, added ? "x = unsqueeze(vec, 1); c = expand(self, [size]); c = unsqueeze(c, 1); y = addmm(c, mat, x, "
                                         "beta=beta, alpha=alpha); y = squeeze.dim(y, 1) -> y"
                                       : "x = unsqueeze(vec, 1); y = mm(self, x); y = squeeze.dim(y, 1) -> y",
                           (const port_named_arg[]){{"size", {.kind = PORT_ARG_INT, .i = a->shape[0]}}}, 1);
    }
    params.beta = factor_of_addend(a->dtype, a->shape[1], params.beta);
    port_status status = tensor_new(call, a->dtype, 1, a->shape, NULL, &out);
    if (status != PORT_OK) {
        return status;
    }
    port_view views[3] = {tensor_view(a), tensor_view(x)}, to = tensor_view(out);
    if (c != NULL) {
        views[2] = view_broadcast(c, 1, a->shape);
    }
    status = launch(call, "gemv", a->dtype, (const port_view *const[]){&views[0], &views[1], c != NULL && params.beta != 0.0 ? &views[2] : NULL}, 3,
                    (const port_view *const[]){&to}, 1, &params);
    return status == PORT_OK ? emit(call, out) : status;
}

/* dot(self, tensor), vdot(self, other), which conjugates the first. */
static port_status
run_dot(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *y = arg_tensor(call, 1);
    port_tensor *out;
    if (x->ndim != 1 || y->ndim != 1 || x->shape[0] != y->shape[0] || x->dtype != y->dtype) {
        return fail_op(call, PORT_E_SHAPE, "expected two vectors of one length and dtype");
    }
    if (!is_real(x)) {
        return run_formula(call, strcmp(call->row->name, "dot") == 0 ? "a = unsqueeze(self, 0); b = unsqueeze(tensor, 1); y = mm(a, b); y = squeeze(y) -> y"
                                                                     : "c = _conj(self); y = dot(c, other) -> y", NULL, 0);
    }
    port_status status = tensor_new(call, x->dtype, 0, NULL, NULL, &out);
    if (status != PORT_OK || (status = launch_tensors(call, "dot", x->dtype, (const port_tensor *const[]){x, y}, 2,
                                                      (const port_tensor *const[]){out}, 1, NULL)) != PORT_OK) {
        return status;
    }
    return emit(call, out);
}

/* linalg_pinv(self, atol, rtol, hermitian): V (1 / S, 0 for those up to max(rtol S[0], atol)) U^T; of a symmetric matrix
 * with its eigenvalues for S and one basis for both. */
static port_status
run_pinv(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->ndim < 2 || x->ndim > 8 || (x->dtype != PORT_F32 && x->dtype != PORT_F64)) {
        return fail_unsupported(call, "%d dimensions of %s", x->ndim, port_dtype_name(x->dtype));
    }
    if (tensor_elems(x) == 0) {
        return run_formula(call, "y = transpose.int(self, -2, -1); y = zeros_like(y) -> y", NULL, 0);
    }
    int64_t rows = x->shape[x->ndim - 2], cols = x->shape[x->ndim - 1];
    double unit = x->dtype == PORT_F32 ? 0x1p-23 : 0x1p-52, least = arg_given(call, 1) ? 0.0 : unit * (double)(rows > cols ? rows : cols);
    port_arg shape[8];
    for (int32_t d = 0; d < x->ndim; d++) {
        int64_t size = d < x->ndim - 2 ? x->shape[d] : (d == x->ndim - 1 ? rows : cols);
        shape[d] = (port_arg){.kind = PORT_ARG_INT, .i = size, .d = (double)size};
    }
    const int64_t inner = rows < cols ? rows : cols, sizes[6] = {-1, cols, inner, -1, inner, rows};
    port_arg stacks[6];
    for (int32_t k = 0; k < 6; k++) {
        stacks[k] = (port_arg){.kind = PORT_ARG_INT, .i = sizes[k], .d = (double)sizes[k]};
    }
    const port_named_arg extra[] = {{"least", {.kind = PORT_ARG_FLOAT, .d = least}},
                                    {"left", {.kind = PORT_ARG_LIST, .items = stacks, .num_items = 3}},
                                    {"right", {.kind = PORT_ARG_LIST, .items = stacks + 3, .num_items = 3}},
                                    {"shape", {.kind = PORT_ARG_LIST, .items = shape, .num_items = x->ndim}},
                                    {"stack", {.kind = PORT_ARG_BOOL, .i = x->ndim > 3, .d = x->ndim > 3}}};
#define PSEUDO                                                                                                         \
    "u, s, v = _linalg_svd(self, false, true); m = narrow(s, -1, 0, 1); a = alias(s); v = transpose.int(v, -2, -1); "
#define SYMMETRIC                                                                                                      \
    "s, u = _linalg_eigh(self); v = alias(u); a = abs(s); m = amax(a, [-1], true); "
#define INVERTED                                                                                                       \
    "m = _to_copy(m, dtype=F64); ?rtol: r = unsqueeze(rtol, -1); ?rtol: m = mul.Tensor(m, r); "                        \
    "!rtol: m = mul.Scalar(m, least); ?atol: t = unsqueeze(atol, -1); ?atol: m = maximum(m, t); "                      \
    "g = gt.Tensor(a, m); s = reciprocal(s); z = zeros_like(s); s = where.self(g, s, z); s = unsqueeze(s, -2); "       \
    "v = mul.Tensor(v, s); u = transpose.int(u, -2, -1); "
#define PRODUCT                                                                                                        \
    "?stack: v = reshape(v, left); ?stack: u = reshape(u, right); y = bmm(v, u); "                                     \
    "?stack: y = reshape(y, shape) -> y"
    const int32_t num_extra = (int32_t)(sizeof extra / sizeof *extra);
    if (arg_bool(call, 3)) {
        return run_formula(call, x->ndim == 2 ? SYMMETRIC INVERTED "y = mm(v, u) -> y" : SYMMETRIC INVERTED PRODUCT, extra, num_extra);
    }
    return run_formula(call, x->ndim == 2 ? PSEUDO INVERTED "y = mm(v, u) -> y" : PSEUDO INVERTED PRODUCT, extra, num_extra);
}

#define IDENTITY(LIKE) "z = zeros_like(" LIKE "); g = diagonal(z, 0, -2, -1); g = fill_.Scalar(g, 1); "
#define FORMULA(NAME, SIGNATURE, TEXT) {NAME, SIGNATURE, run_composed, TEXT, MODE_SAME, 0}

const op_row op_linalg_rows[] = {
    {"mv", "T self, T vec", run_mv, "gemv", 0, 0},
    {"addmv", "T self, T mat, T vec, *, S beta=1, S alpha=1", run_mv, "gemv", 0, OP_IN_PLACE},
    {"dot", "T self, T tensor", run_dot, "dot", 0, 0},
    {"vdot", "T self, T other", run_dot, "dot", 0, 0},
    {"linalg_lu_factor_ex", "T A, *, B pivot=True, B check_errors=False", run_lu_factor, "lu", 0, 0},
    {"linalg_lu_solve", "T LU, T pivots, T B, *, B left=True, B adjoint=False", run_lu_solve, "lu_solve", 0, 0},
    {"_linalg_solve_ex", "T A, T B, *, B left=True, B check_errors=False", run_solve, "lu_solve", 0, 0},
    {"_linalg_det", "T A", run_det, "lu", 0, 0},
    {"_linalg_slogdet", "T A", run_det, "lu", 0, 0},
    FORMULA("linalg_inv_ex", "T A, *, B check_errors=False", IDENTITY("A") "x, lu, p, i = _linalg_solve_ex(A, z) -> x, i"),
    {"linalg_cholesky_ex", "T self, *, B upper=False, B check_errors=False", run_cholesky, "cholesky", 0, 0},
    FORMULA("cholesky", "T self, B upper=False", "l, i = linalg_cholesky_ex(self, upper=upper) -> l"),
    FORMULA("cholesky_solve", "T self, T input2, B upper=False",
            "t = transpose.int(input2, -2, -1); ?upper: y = linalg_solve_triangular(t, self, upper=false); ?upper: x = linalg_solve_triangular(input2, "
            "y, upper=true); !upper: y = linalg_solve_triangular(input2, self, upper=false); !upper: x = linalg_solve_triangular(t, y, upper=true) -> x"),
    FORMULA("cholesky_inverse", "T self, B upper=False", IDENTITY("self") "y = cholesky_solve(z, self, upper) -> y"),
    {"geqrf", "T self", run_geqrf, "qr", 0, 0},
    {"linalg_householder_product", "T input, T tau", run_householder, "qr_basis", 0, 0},
    {"linalg_qr", "T A, s mode=reduced", run_qr, "qr", 0, 0},
    {"_linalg_eigh", "T A, s UPLO=L, B compute_v=True", run_eigh, "eigh", 0, 0},
    {"_linalg_svd", "T A, B full_matrices=False, B compute_uv=True, *, s? driver=None", run_svd, "svd", 0, 0},
    {"linalg_pinv.atol_rtol_tensor", "T self, *, T? atol=None, T? rtol=None, B hermitian=False", run_pinv, "svd", 0, 0},
    {"_linalg_check_errors", "T info, s api_name, *, B is_matrix", run_check_errors, NULL, 0, 0},
    {.name = NULL},
};
