/* matmul_ops.c -- matrix products and attention. */
#include "compose.h"
#include "floats.h"

static port_status
need_same_dtype(op_call *call, const port_tensor *a, const port_tensor *b)
{
    return b == NULL || a->dtype == b->dtype
               ? PORT_OK
               : fail_op(call, PORT_E_DTYPE, "operands of %s and %s", port_dtype_name(a->dtype), port_dtype_name(b->dtype));
}

static bool
broadcasts_to(const port_tensor *t, int32_t ndim, const int64_t *shape)
{
    if (t->ndim > ndim) {
        return false;
    }
    for (int32_t d = 0; d < t->ndim; d++) {
        int64_t to = shape[ndim - t->ndim + d];
        if (t->shape[d] != to && t->shape[d] != 1) {
            return false;
        }
    }
    return true;
}

/* Integers: 64 bits that wrap, cut to the dtype. All tensors of ndim 2 or 3; c may be NULL. */
static port_status
integer_product(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, double beta, double alpha, int32_t ndim,
                const int64_t *shape, port_tensor **out)
{
    const port_tensor *wide[3] = {a, b, c}, *result;
    port_tensor *made, *sum;
    port_status status = PORT_OK;
    for (int32_t k = 0; status == PORT_OK && k < 3; k++) {
        if (wide[k] != NULL && (status = tensor_cast(call, wide[k], PORT_I64, &wide[k])) == PORT_OK && k < 2) {
            status = tensor_contiguous(call, wide[k], &wide[k]);
        }
    }
    if (status != PORT_OK || (status = tensor_new(call, PORT_I64, ndim, shape, NULL, &made)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, ndim, shape, NULL, &sum)) != PORT_OK) {
        return status;
    }
    int64_t *y = (int64_t *)tensor_view(made).data, K = a->shape[ndim - 1], N = shape[ndim - 1], rows = tensor_elems(made) / (N > 0 ? N : 1);
    const int64_t *left = (const int64_t *)tensor_view(wide[0]).data, *right = (const int64_t *)tensor_view(wide[1]).data;
    if (c != NULL) {
        port_view to = tensor_view(sum), from = view_broadcast(wide[2], ndim, shape);
        copy_view(call, &to, &from);
    }
    const int64_t *added = (const int64_t *)tensor_view(sum).data;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t *stack = right + (ndim == 3 ? r / shape[1] * K * N : 0);
        for (int64_t n = 0; n < N; n++) {
            uint64_t total = 0;
            for (int64_t k = 0; k < K; k++) {
                total += (uint64_t)left[r * K + k] * (uint64_t)stack[k * N + n];
            }
            total *= (uint64_t)port_int_of_double(alpha);
            y[r * N + n] = (int64_t)(total + (c != NULL ? (uint64_t)port_int_of_double(beta) * (uint64_t)added[r * N + n] : 0));
        }
    }
    status = tensor_cast(call, made, a->dtype, &result);
    return status == PORT_OK ? tensor_alias(call, result, out) : status;
}

static port_status
multiply(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, const port_gemm_params *params, int32_t ndim,
         const int64_t *shape, port_tensor **out)
{
    port_status status = tensor_for_result(call, a->dtype, ndim, shape, NULL, out);
    if (status != PORT_OK) {
        return status;
    }
    port_view views[3] = {tensor_view(a), tensor_view(b)}, y = tensor_view(*out);
    const port_view *in[3] = {&views[0], &views[1], NULL};
    if (c != NULL) {
        views[2] = view_broadcast(c, ndim, shape);
        in[2] = &views[2];
    }
    return launch(call, ndim == 2 ? "gemm" : "bmm", a->dtype, in, 3, (const port_view *const[]){&y}, 1, params);
}

static bool
lies_as(const port_tensor *t, int32_t ndim, const int64_t *shape)
{
    return t != NULL && t->ndim == ndim && memcmp(t->shape, shape, (size_t)ndim * sizeof *shape) == 0;
}

static bool
lies_in_lines(const port_tensor *t, int32_t along, int32_t across)
{
    return t->strides[along] == 1 && (t->shape[across] == 1 || t->strides[across] >= (t->shape[along] > 1 ? t->shape[along] : 1));
}

static port_status
broadcast(op_call *call, const port_tensor *t, int32_t ndim, const int64_t *shape, port_tensor **out)
{
    port_status status = tensor_alias(call, t, out);
    if (status == PORT_OK) {
        port_view view = view_broadcast(t, ndim, shape);
        (*out)->ndim = ndim;
        memcpy((*out)->shape, view.shape, (size_t)ndim * sizeof *shape);
        memcpy((*out)->strides, view.strides, (size_t)ndim * sizeof *shape);
    }
    return status;
}

/* A matrix, or a row-major copy of what a library cannot take, transposed. */
static port_status
turned(op_call *call, const port_tensor *t, port_tensor **out)
{
    port_status status = PORT_OK;
    if (!lies_in_lines(t, 0, 1) && !lies_in_lines(t, 1, 0)) {
        status = tensor_contiguous(call, t, &t);
    }
    if (status != PORT_OK || (status = tensor_alias(call, t, out)) != PORT_OK) {
        return status;
    }
    for (int32_t d = 0; d < 2; d++) {
        (*out)->shape[d] = t->shape[1 - d];
        (*out)->strides[d] = t->strides[1 - d];
    }
    return PORT_OK;
}

/* A product into memory that is there: where its columns are dense, or neither they nor its rows, the reference asks a library for the
 * product itself, else, as for new memory, for its transpose. A library may round differently for each. Here the transpose of either is made:
 * (a b)^T = b^T a^T. */
static port_status
into_given(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, double alpha, double beta, const port_tensor *to,
           port_tensor **out)
{
    const port_gemm_params params = {.alpha = alpha, .beta = beta, .as_rows = true};
    if (!lies_in_lines(to, 0, 1) && lies_in_lines(to, 1, 0)) {
        return multiply(call, c, a, b, &params, 2, to->shape, out);
    }
    port_tensor *a_turned, *b_turned, *wide, *c_turned = NULL, *made;
    const int64_t shape[2] = {to->shape[1], to->shape[0]};
    port_status status = turned(call, a, &a_turned);
    if (status == PORT_OK && (status = turned(call, b, &b_turned)) == PORT_OK && c != NULL &&
        (status = broadcast(call, c, 2, to->shape, &wide)) == PORT_OK) {
        status = turned(call, wide, &c_turned);
    }
    status = status == PORT_OK ? multiply(call, c_turned, b_turned, a_turned, &params, 2, shape, &made) : status;
    return status == PORT_OK ? turned(call, made, out) : status;
}

/* Matrix i of a stack. */
static port_status
matrix_of(op_call *call, const port_tensor *stack, int64_t i, port_tensor **out)
{
    port_status status = tensor_alias(call, stack, out);
    if (status == PORT_OK) {
        (*out)->offset_bytes += tensor_elems(stack) > 0 ? i * stack->strides[0] * (int64_t)port_dtype_size(stack->dtype) : 0;
        (*out)->ndim = 2;
        memmove((*out)->shape, &stack->shape[1], 2 * sizeof stack->shape[0]);
        memmove((*out)->strides, &stack->strides[1], 2 * sizeof stack->strides[0]);
    }
    return status;
}

/* A stack of products into memory that is not row-major: the reference makes one matrix after the other in it. A library may sum by
 * alignment, so stacks of columns are made where they would lie. */
static port_status
into_given_stack(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, double alpha, double beta,
                 const port_tensor *to, port_tensor **out)
{
    port_tensor *wide = NULL, *items[5] = {NULL}; /* a, b, to, c; the product */
    const int64_t M = to->shape[1], N = to->shape[2], by_columns[3] = {M * N, 1, M};
    bool columns = memcmp(to->strides, by_columns, sizeof by_columns) == 0;
    port_status status = tensor_new(call, a->dtype, 3, to->shape, columns ? by_columns : NULL, out);
    if (status == PORT_OK && c != NULL) {
        status = broadcast(call, c, 3, to->shape, &wide);
    }
    const port_tensor *const stacks[4] = {a, b, to, wide}, *before = call->target;
    for (int64_t i = 0; status == PORT_OK && i < to->shape[0]; i++) {
        port_tensor *place = NULL, *line = NULL;
        for (int32_t k = 0; status == PORT_OK && k < 4; k++) {
            status = stacks[k] != NULL ? matrix_of(call, stacks[k], i, &items[k]) : PORT_OK;
        }
        if (status == PORT_OK && (status = matrix_of(call, *out, i, &place)) == PORT_OK && columns) {
            status = turned(call, place, &line);
        }
        call->target = line;
        status = status == PORT_OK ? into_given(call, items[3], items[0], items[1], alpha, beta, items[2], &items[4]) : status;
        if (status == PORT_OK && tensor_view(items[4]).data != tensor_view(place).data) {
            port_view from = tensor_view(items[4]), y = tensor_view(place);
            copy_view(call, &y, &from);
        }
    }
    call->target = before;
    return status;
}

/* Of a @ b, to which c, which may be NULL, has to broadcast. */
static port_status
product_shape(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, int32_t ndim, int64_t shape[3])
{
    char left[200], right[200];
    if (a->ndim != ndim || b->ndim != ndim || a->shape[ndim - 1] != b->shape[ndim - 2] ||
        (ndim == 3 && a->shape[0] != b->shape[0])) {
        return fail_op(call, PORT_E_SHAPE, "shapes %s and %s do not multiply", shape_text(a->ndim, a->shape, left, sizeof left),
                       shape_text(b->ndim, b->shape, right, sizeof right));
    }
    memcpy(shape, a->shape, 3 * sizeof *shape);
    shape[ndim - 1] = b->shape[ndim - 1];
    if (c != NULL && !broadcasts_to(c, ndim, shape)) {
        return fail_op(call, PORT_E_SHAPE, "a tensor of shape %s cannot be added to a product of shape %s",
                       shape_text(c->ndim, c->shape, left, sizeof left), shape_text(ndim, shape, right, sizeof right));
    }
    return PORT_OK;
}

double
factor_of_addend(port_dtype dtype, int64_t terms, double beta)
{
    return terms == 0 && dtype_is_float(dtype) ? float_rounded(dtype, beta) : beta;
}

/* y = beta * c + alpha * a @ b for two matrices (gemm) or two stacks of them (bmm); c may be NULL, and is not read where beta is 0. */
static port_status
product(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, double beta, double alpha,
        int32_t ndim, port_tensor **out)
{
    port_status status = need_same_dtype(call, a, b);
    int64_t shape[3];
    if (status != PORT_OK || (status = need_same_dtype(call, a, c)) != PORT_OK ||
        (status = product_shape(call, c, a, b, ndim, shape)) != PORT_OK) {
        return status;
    }
    c = beta != 0.0 ? c : NULL;
    beta = factor_of_addend(a->dtype, a->shape[ndim - 1], beta);
    if (dtype_is_integral(a->dtype)) {
        return integer_product(call, c, a, b, beta, alpha, ndim, shape, out);
    }
    const port_tensor *to = lies_as(call->written, ndim, shape) ? call->written : NULL;
    if (to != NULL && ndim == 2) {
        const port_tensor *before = call->target;
        call->target = NULL; /* what is made may be the transpose */
        status = into_given(call, c, a, b, alpha, beta, to, out);
        call->target = before;
        return status;
    }
    bool apart = to != NULL && !tensor_is_contiguous(to) && shape[1] * shape[2] * a->shape[2] >= PORT_SMALL_PRODUCT;
    if (apart && (a->dtype == PORT_F32 || a->dtype == PORT_F64)) {
        return into_given_stack(call, c, a, b, alpha, beta, to, out);
    }
    const port_gemm_params params = {.alpha = alpha, .beta = beta, .is_spread = to != NULL && shape[2] > 1 && to->strides[2] != 1};
    return multiply(call, c, a, b, &params, ndim, shape, out);
}

static port_status
emit_product(op_call *call, const port_tensor *c, const port_tensor *a, const port_tensor *b, double beta, double alpha,
             int32_t ndim)
{
    port_tensor *out;
    port_status status = product(call, c, a, b, beta, alpha, ndim, &out);
    return status == PORT_OK ? emit(call, out) : status;
}

static port_status
run_mm(op_call *call)
{
    if (arg_tensor(call, 0)->dtype == PORT_C64 && arg_tensor(call, 1)->dtype == PORT_C64) {
#define PARTS "r = view_as_real(self); a = select.int(r, -1, 0); b = select.int(r, -1, 1); r = view_as_real(mat2); c = select.int(r, -1, 0); d = select.int(r, -1, 1); "
#define COMPLEX_PRODUCT(MM)                                                                                           \
    PARTS "p = " MM "(a, c); q = " MM "(b, d); p = sub.Tensor(p, q); q = " MM "(a, d); r = " MM "(b, c); q = add.Tensor(q, r); y = complex(p, q) -> y"
        return run_formula(call, strcmp(call->row->name, "bmm") == 0 ? COMPLEX_PRODUCT("bmm") : COMPLEX_PRODUCT("mm"), NULL, 0);
    }
    return emit_product(call, NULL, arg_tensor(call, 0), arg_tensor(call, 1), 0.0, 1.0, strcmp(call->row->name, "bmm") == 0 ? 3 : 2);
}

/* addmm, baddbmm; in place they write to self, which is also the third operand. */
static port_status
run_addmm(op_call *call)
{
    const port_tensor *c = arg_tensor(call, 0);
    double beta = arg_scalar(call, 3).d, alpha = arg_scalar(call, 4).d;
    bool stack = strcmp(call->row->name, "baddbmm") == 0;
    if (c->dtype == PORT_C64 && arg_tensor(call, 1)->dtype == PORT_C64 && arg_tensor(call, 2)->dtype == PORT_C64) {
#define ADDED(MM, A, B) "y = " MM "(" A ", " B "); !alpha=1: y = mul.Scalar(y, alpha); !beta=1: self = mul.Scalar(self, beta); !beta=0: y = add.Tensor(y, self) -> y"
        int64_t shape[3];
        port_status status = product_shape(call, c, arg_tensor(call, 1), arg_tensor(call, 2), stack ? 3 : 2, shape);
        return status != PORT_OK ? status
                                 : run_formula(call, stack ? ADDED("bmm", "batch1", "batch2") : ADDED("mm", "mat1", "mat2"), NULL, 0);
    }
    return emit_product(call, c, arg_tensor(call, 1), arg_tensor(call, 2), beta, alpha, stack ? 3 : 2);
}

/* addbmm(self, batch1, batch2, beta, alpha): one matrix after the other is added to the result. */
static port_status
run_addbmm(op_call *call)
{
    const port_tensor *c = arg_tensor(call, 0), *stacks[2] = {arg_tensor(call, 1), arg_tensor(call, 2)};
    double beta = arg_scalar(call, 3).d, alpha = arg_scalar(call, 4).d;
    if (stacks[0]->ndim != 3 || stacks[1]->ndim != 3 || stacks[0]->shape[0] != stacks[1]->shape[0] ||
        stacks[0]->shape[2] != stacks[1]->shape[1]) {
        return fail_op(call, PORT_E_SHAPE, "expected two stacks of as many matrices that multiply");
    }
    if (tensor_elems(stacks[0]) == 0 || tensor_elems(stacks[1]) == 0) { /* sums of nothing, however many */
        const port_named_arg extra[3] = {{"rows", {.kind = PORT_ARG_INT, .i = stacks[0]->shape[1]}}, {"cols", {.kind = PORT_ARG_INT, .i = stacks[1]->shape[2]}},
                                         {"factor", {.kind = PORT_ARG_FLOAT, .d = factor_of_addend(c->dtype, 0, beta)}}};
        return run_formula(call, beta == 0.0              ? "y = new_zeros(self, [rows, cols]) -> y"
                                 : dtype_is_float(c->dtype) ? "y = expand(self, [rows, cols]); y = mul.Scalar(y, factor) -> y"
                                                            : "y = expand(self, [rows, cols]); y = mul.Scalar(y, beta) -> y", extra, 3);
    }
    const port_tensor *sum = beta != 0.0 ? c : NULL;
    port_tensor *items[2], *made = NULL;
    for (int64_t i = 0; i < stacks[0]->shape[0]; i++) {
        for (int32_t k = 0; k < 2; k++) {
            port_status status = matrix_of(call, stacks[k], i, &items[k]);
            if (status != PORT_OK) {
                return status;
            }
        }
        port_status status = product(call, sum, items[0], items[1], i == 0 ? beta : 1.0, alpha, 2, &made);
        if (status != PORT_OK) {
            return status;
        }
        sum = made;
    }
    return emit(call, made);
}

static port_status
as_matrix(op_call *call, const port_tensor *t, int32_t ndim, const int64_t *shape, port_tensor **out)
{
    const port_tensor *dense;
    port_status status = tensor_contiguous(call, t, &dense);
    if (status == PORT_OK) {
        status = tensor_alias(call, dense, out);
    }
    if (status == PORT_OK) {
        (*out)->ndim = ndim;
        memcpy((*out)->shape, shape, (size_t)ndim * sizeof *shape);
        dense_strides(ndim, shape, (*out)->strides);
    }
    return status;
}

static port_status
run_linear(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *w = arg_tensor(call, 1), *bias = arg_tensor(call, 2);
    if (x->ndim < 1 || w->ndim != 2 || x->shape[x->ndim - 1] != w->shape[1]) {
        return fail_op(call, PORT_E_SHAPE, "expected an input (..., K) and a weight (N, K)");
    }
    int64_t k = w->shape[1], rows = 1;
    for (int32_t d = 0; d < x->ndim - 1; d++) {
        rows *= x->shape[d];
    }
    port_tensor *a, *b, *y;
    port_status status = as_matrix(call, x, 2, (const int64_t[]){rows, k}, &a);
    if (status != PORT_OK || (status = tensor_alias(call, w, &b)) != PORT_OK) {
        return status;
    }
    b->shape[0] = k;
    b->shape[1] = w->shape[0];
    b->strides[0] = w->strides[1];
    b->strides[1] = w->strides[0];
    status = product(call, bias, a, b, bias != NULL ? 1.0 : 0.0, 1.0, 2, &y);
    if (status != PORT_OK) {
        return status;
    }
    y->ndim = x->ndim;
    memcpy(y->shape, x->shape, sizeof y->shape);
    y->shape[x->ndim - 1] = w->shape[0];
    dense_strides(y->ndim, y->shape, y->strides);
    return emit(call, y);
}

/* The scores' mask must broadcast to (B, H, T, S); attention without dropout only. Out (B, H, T, D) lies as q does. */
static port_status
run_flash(op_call *call)
{
    const port_tensor *q = arg_tensor(call, 0), *k = arg_tensor(call, 1), *v = arg_tensor(call, 2), *mask = arg_tensor(call, 5);
    if (arg_double(call, 3, 0.0) != 0.0) {
        return fail_unsupported(call, "dropout");
    }
    port_status status = need_same_dtype(call, q, k);
    if (status != PORT_OK || (status = need_same_dtype(call, q, v)) != PORT_OK) {
        return status;
    }
    if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4 || k->shape[0] != q->shape[0] || v->shape[0] != q->shape[0] ||
        k->shape[3] != q->shape[3] || v->shape[3] != q->shape[3] || k->shape[1] != v->shape[1] || k->shape[2] != v->shape[2] ||
        k->shape[1] < 1 || q->shape[1] % k->shape[1] != 0) {
        return fail_op(call, PORT_E_SHAPE, "expected q (B, H, T, D), k and v (B, G, S, D) with H a multiple of G");
    }
    int64_t B = q->shape[0], H = q->shape[1], T = q->shape[2], D = q->shape[3], S = k->shape[2];
    port_tensor *y, *lse;
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(q, strides);
    if ((status = tensor_new(call, q->dtype, 4, q->shape, strides, &y)) != PORT_OK ||
        (status = tensor_new(call, q->dtype == PORT_F64 ? PORT_F64 : PORT_F32, 3, q->shape, (const int64_t[]){T * H, 1, H}, &lse)) !=
            PORT_OK) {
        return status;
    }
    const int64_t scores[4] = {B, H, T, S};
    if (mask != NULL && !broadcasts_to(mask, 4, scores)) {
        return fail_op(call, PORT_E_SHAPE, "the mask does not broadcast to (%lld, %lld, %lld, %lld)", (long long)B, (long long)H,
                       (long long)T, (long long)S);
    }
    port_view in[4] = {tensor_view(q), tensor_view(k), tensor_view(v)}, out[2] = {tensor_view(y), tensor_view(lse)};
    if (mask != NULL) {
        in[3] = view_broadcast(mask, 4, scores);
    }
    port_sdpa_params params = {arg_bool(call, 4), 0.0};
    params.scale = arg_double(call, 6, 1.0 / __builtin_sqrt((double)(D > 0 ? D : 1)));
    status = launch(call, "sdpa_flash", q->dtype, (const port_view *const[]){&in[0], &in[1], &in[2], mask != NULL ? &in[3] : NULL},
                    4, (const port_view *const[]){&out[0], &out[1]}, 2, &params);
    if (status == PORT_OK) {
        status = emit(call, y);
    }
    return status == PORT_OK ? emit(call, lse) : status;
}

bool
stack_shape(const port_tensor *of, const port_tensor *other, int32_t *ndim, int64_t *shape, int64_t *count)
{
    *ndim = of->ndim > other->ndim ? of->ndim : other->ndim;
    *count = 1;
    for (int32_t d = 0; d < *ndim - 2; d++) {
        int32_t in_of = d - (*ndim - of->ndim), in_other = d - (*ndim - other->ndim);
        int64_t a = in_of < 0 ? 1 : of->shape[in_of], b = in_other < 0 ? 1 : other->shape[in_other];
        shape[d] = a == 1 ? b : a;
        if ((b != 1 && a != 1 && a != b) || __builtin_mul_overflow(*count, shape[d], count)) {
            return false;
        }
    }
    shape[*ndim - 2] = of->shape[of->ndim - 2];
    shape[*ndim - 1] = of->shape[of->ndim - 1];
    return true;
}

port_status
copy_stack(op_call *call, const port_tensor *t, bool columns, int32_t ndim, const int64_t *shape, int64_t count, port_tensor **whole,
           port_tensor **stack)
{
    int64_t strides[PORT_MAX_NDIM], rows = shape[ndim - 2], cols = shape[ndim - 1];
    dense_strides(ndim, shape, strides);
    if (columns) {
        strides[ndim - 2] = 1;
        strides[ndim - 1] = rows > 0 ? rows : 1;
    }
    port_status status = tensor_new(call, t->dtype, ndim, shape, strides, whole);
    if (status != PORT_OK || (status = tensor_alias(call, *whole, stack)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(*whole), from = view_broadcast(t, ndim, shape);
    copy_view(call, &to, &from);
    **stack = (port_tensor){.buffer = (*whole)->buffer, .offset_bytes = (*whole)->offset_bytes, .dtype = t->dtype, .ndim = 3,
                            .shape = {count, rows, cols}, .strides = {rows * cols, strides[ndim - 2], strides[ndim - 1]}};
    return PORT_OK;
}

/* linalg_solve_triangular(A (.., N, N), B (.., N, K), upper, left, unitriangular). A row-major stack is used as it is, any
 * other copied. */
static port_status
run_solve_triangular(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0), *b = arg_tensor(call, 1);
    port_triangular_params params = {.upper = arg_bool(call, 2), .left = arg_bool(call, 3), .unit = arg_bool(call, 4)};
    if ((a->dtype != PORT_F32 && a->dtype != PORT_F64) || b->dtype != a->dtype || a->ndim < 2 || b->ndim < 2) {
        return fail_unsupported(call, "operands of %s and %s in %d and %d dimensions", port_dtype_name(a->dtype),
                                port_dtype_name(b->dtype), a->ndim, b->ndim);
    }
    int64_t n = a->shape[a->ndim - 1], a_shape[PORT_MAX_NDIM], b_shape[PORT_MAX_NDIM], count;
    int32_t ndim;
    if (a->shape[a->ndim - 2] != n || b->shape[b->ndim - (params.left ? 2 : 1)] != n || !stack_shape(a, b, &ndim, a_shape, &count) ||
        !stack_shape(b, a, &ndim, b_shape, &count)) {
        return fail_op(call, PORT_E_SHAPE, "the operands do not fit");
    }
    port_tensor *matrices, *whole, *out, *x;
    bool as_it_is = a->ndim == ndim && tensor_is_contiguous(a) && memcmp(a->shape, a_shape, (size_t)ndim * sizeof *a_shape) == 0;
    /* Where x is one row, and so row-major as well as column-major, a copy of A is row-major. */
    bool columns = params.left || b_shape[ndim - 2] != 1 || (a->ndim == ndim && a->strides[ndim - 2] == 1 && a->strides[ndim - 1] == n);
    int64_t stack[3] = {count, n, n};
    port_status status = as_it_is ? tensor_reshaped(call, a, 3, stack, &matrices)
                                  : copy_stack(call, a, columns, ndim, a_shape, count, &whole, &matrices);
    if (status != PORT_OK || (status = copy_stack(call, b, true, ndim, b_shape, count, &out, &x)) != PORT_OK || tensor_elems(out) == 0) {
        return status == PORT_OK ? emit(call, out) : status;
    }
    if ((status = launch_tensors(call, "solve_triangular", a->dtype, (const port_tensor *const[]){matrices}, 1,
                                 (const port_tensor *const[]){x}, 1, &params)) != PORT_OK) {
        return status;
    }
    return emit(call, out);
}

/* _grouped_mm(self (T, K), mat2 (G, K, N), offs (G)): rows up to each offset times the group's matrix; rows behind the last are 0.
 * Without offsets both are stacks. */
static port_status
run_grouped_mm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *w = arg_tensor(call, 1), *offs = arg_tensor(call, 2), *dense;
    if (arg_given(call, 3) || arg_dtype(call, 4, x->dtype) != x->dtype || !dtype_is_float(x->dtype)) {
        return fail_unsupported(call, "a bias, or a result of another dtype than %s", port_dtype_name(x->dtype));
    }
    if (offs == NULL && x->ndim == 3 && w->ndim == 3) {
        return emit_product(call, NULL, x, w, 0.0, 1.0, 3);
    }
    if (offs == NULL || x->ndim != 2 || w->ndim != 3 || offs->ndim != 1 || offs->shape[0] != w->shape[0] || x->shape[1] != w->shape[1]) {
        return fail_unsupported(call, "operands of %d and %d dimensions", x->ndim, w->ndim);
    }
    int64_t shape[2] = {x->shape[0], w->shape[2]}, begin = 0, size = (int64_t)port_dtype_size(x->dtype);
    port_tensor *out, *rows, *matrix, *y;
    port_status status = tensor_cast(call, offs, PORT_I64, &offs);
    if (status != PORT_OK || (status = tensor_contiguous(call, offs, &dense)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, 2, shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    memset(tensor_view(out).data, 0, (size_t)out->buffer->size_bytes);
    for (int64_t g = 0; g < w->shape[0]; g++) {
        int64_t end = ((const int64_t *)tensor_view(dense).data)[g];
        if (end < begin || end > shape[0]) {
            return fail_op(call, PORT_E_VALUE, "offset %lld is %lld, after %lld, of %lld rows", (long long)g, (long long)end, (long long)begin,
                           (long long)shape[0]);
        }
        if ((status = tensor_alias(call, x, &rows)) != PORT_OK || (status = tensor_alias(call, w, &matrix)) != PORT_OK) {
            return status;
        }
        rows->shape[0] = end - begin;
        rows->offset_bytes += begin * x->strides[0] * size;
        matrix->offset_bytes += g * w->strides[0] * size;
        matrix->ndim = 2;
        for (int32_t d = 0; d < 2; d++) {
            matrix->shape[d] = w->shape[d + 1];
            matrix->strides[d] = w->strides[d + 1];
        }
        if (end > begin && (status = product(call, NULL, rows, matrix, 0.0, 1.0, 2, &y)) != PORT_OK) {
            return status;
        }
        if (end > begin) {
            memcpy((char *)tensor_view(out).data + begin * shape[1] * size, tensor_view(y).data, (size_t)((end - begin) * shape[1] * size));
        }
        begin = end;
    }
    return emit(call, out);
}

const op_row op_matmul_rows[] = {
    {"_grouped_mm", "T self, T mat2, T? offs=None, T? bias=None, D? out_dtype=None", run_grouped_mm, "gemm", 0, 0},
    {"mm", "T self, T mat2", run_mm, "gemm", 0, 0},
    {"bmm", "T self, T mat2", run_mm, "bmm", 0, 0},
    {"addmm", "T self, T mat1, T mat2, *, S beta=1, S alpha=1", run_addmm, "gemm", 0, OP_IN_PLACE},
    {"baddbmm", "T self, T batch1, T batch2, *, S beta=1, S alpha=1", run_addmm, "bmm", 0, OP_IN_PLACE},
    {"addbmm", "T self, T batch1, T batch2, *, S beta=1, S alpha=1", run_addbmm, "gemm", 0, OP_IN_PLACE},
    {"linear", "T input, T weight, T? bias=None", run_linear, "gemm", 0, 0},
    {"linalg_solve_triangular", "T self, T B, *, B upper, B left=True, B unitriangular=False", run_solve_triangular, "solve_triangular", 0, 0},
    {"_scaled_dot_product_flash_attention_for_cpu",
     "T query, T key, T value, F dropout_p=0., B is_causal=False, *, T? attn_mask=None, F? scale=None", run_flash, "sdpa_flash", 0, 0},
    {.name = NULL},
};
