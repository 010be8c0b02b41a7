/* gemm.c -- matrix products as aten::mm, addmm, bmm and baddbmm make them.
 *     gemm  y = beta * c + alpha * a @ b        a (M, K), b (K, N), c broadcast to (M, N), y (M, N) row-major
 *     bmm   the same for each item of a batch   a (B, M, K), b (B, K, N), c (B, M, N), y (B, M, N) row-major
 * Variants: blas (the provider's function where it has one, called with the same arguments as ATen would; halves in the reference's own
 * orders; else chain), chain, ref (own loops, matmul.h); for F64 also golden (blas, with dots that cancel summed again: dot2.h). On the way ATen chooses transposition flags and leading dimensions from
 * the strides, and copies what is neither row- nor column-major; a BLAS may round differently for each, so that is
 * done the same way here. Source: at::native addmm_impl_cpu_, bmm_out_or_baddbmm_ and cpublas::gemm of PyTorch 2.
 */
#include "chain.h"
#include "dot2.h"

enum { ONEDNN_BLOCK = 512 }; /* terms of a chain of products of BF16 in oneDNN; of some twice as many */

/* One product of a batch: a and b with their strides, y dense. */
typedef struct item {
    port_dtype dtype;
    int64_t M, N, K;
    port_matrix a, b;
    void *y;
    bool as_rows; /* see port_gemm_params */
} item;

static int64_t
at_least_one(int64_t size)
{
    return size > 1 ? size : 1;
}

static bool
is_row_or_column_major(int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride)
{
    return (col_stride == 1 && row_stride >= at_least_one(cols)) ||
           (row_stride == 1 && col_stride >= at_least_one(rows));
}

/* ------------------------------------------------------------------ check, scratch */

static port_status
check_shapes(const char *op, const port_kernel_call *call, int32_t ndim, port_error *err)
{
    const port_view *a = call->in[0], *b = call->in[1], *c = call->in[2], *y = call->out[0];
    if (a->ndim != ndim || b->ndim != ndim || y->ndim != ndim || (c != NULL && c->ndim != ndim)) {
        return port_fail(err, PORT_E_SHAPE, "%s: expected operands of %d dimensions, got %d, %d and out %d", op, (int)ndim,
                         (int)a->ndim, (int)b->ndim, (int)y->ndim);
    }
    int32_t row = ndim - 2, col = ndim - 1;
    if (a->shape[col] != b->shape[row] || (ndim == 3 && a->shape[0] != b->shape[0])) {
        return port_fail(err, PORT_E_SHAPE, "%s: (%lld x %lld) times (%lld x %lld) does not fit", op,
                         (long long)a->shape[row], (long long)a->shape[col], (long long)b->shape[row],
                         (long long)b->shape[col]);
    }
    bool fits = y->shape[row] == a->shape[row] && y->shape[col] == b->shape[col];
    fits = fits && (ndim == 2 || y->shape[0] == a->shape[0]);
    for (int32_t d = 0; c != NULL && d < ndim; d++) {
        fits = fits && c->shape[d] == y->shape[d];
    }
    if (!fits || !port_view_is_contiguous(y)) {
        return port_fail(err, PORT_E_SHAPE, "%s: out must be row-major (%lld x %lld), and the addend of the same shape", op,
                         (long long)a->shape[row], (long long)b->shape[col]);
    }
    if (a->dtype != b->dtype || a->dtype != y->dtype || (c != NULL && c->dtype != y->dtype)) {
        return port_fail(err, PORT_E_DTYPE, "%s: operands must have one dtype, got %s, %s and out %s", op,
                         port_dtype_name(a->dtype), port_dtype_name(b->dtype), port_dtype_name(y->dtype));
    }
    return PORT_OK;
}

static port_status
gemm_check(const port_kernel_call *call, port_error *err)
{
    return check_shapes("gemm", call, 2, err);
}

static port_status
bmm_check(const port_kernel_call *call, port_error *err)
{
    return check_shapes("bmm", call, 3, err);
}

static size_t
round_up(size_t size_bytes)
{
    return (size_bytes + 63) / 64 * 64;
}

/* Bytes of a copy of an operand's matrix, 0 if a BLAS can take it as it is. */
static size_t
copy_bytes(const port_view *view)
{
    int32_t row = view->ndim - 2, col = view->ndim - 1;
    if (is_row_or_column_major(view->shape[row], view->shape[col], view->strides[row], view->strides[col])) {
        return 0;
    }
    return round_up((size_t)(view->shape[row] * view->shape[col]) * port_dtype_size(view->dtype));
}

/* A packed panel for own loops, copies for a BLAS, and the pointers of a batch. */
static size_t
gemm_scratch_bytes(const port_kernel_call *call)
{
    const port_view *a = call->in[0], *b = call->in[1];
    int64_t M = a->shape[a->ndim - 2], K = a->shape[a->ndim - 1];
    if (port_dtype_size(a->dtype) == sizeof(uint16_t)) {
        size_t halves_bytes = port_half_matmul_scratch_bytes(M, K, call->profile->num_threads);
        size_t chain_bytes = port_matmul_scratch_bytes(K, a->dtype, call->profile->num_threads);
        return round_up(halves_bytes > chain_bytes ? halves_bytes : chain_bytes);
    }
    size_t pointers_bytes = a->ndim == 3 ? 3 * (size_t)a->shape[0] * sizeof(void *) : 0;
    return round_up(port_matmul_scratch_bytes(K, a->dtype, call->profile->num_threads)) + copy_bytes(a) + copy_bytes(b) + round_up(pointers_bytes);
}

/* ------------------------------------------------------------------ one product through the provider */

/* Copies a matrix row-major into *space, moves *space on, and describes the copy; without space, describes it only. */
static void
copy_dense(port_matrix *matrix, int64_t rows, int64_t cols, char **space)
{
    if (*space != NULL) {
        port_view view = {.data = (void *)(uintptr_t)matrix->data, .dtype = matrix->dtype, .ndim = 2,
                          .shape = {rows, cols}, .strides = {matrix->row_stride, matrix->col_stride}};
        port_view_gather(&view, *space);
        matrix->data = *space;
        *space += round_up((size_t)(rows * cols) * port_dtype_size(matrix->dtype)); /* a BLAS may sum by alignment */
    }
    matrix->row_stride = cols;
    matrix->col_stride = 1;
}

/* The flag and leading dimension of an operand in column-major terms: `inner` steps down a column, `outer` to the next. */
static void
blas_layout(int64_t inner, int64_t outer, int64_t rows, bool *trans, int64_t *ld)
{
    *trans = !(inner == 1 && outer >= at_least_one(rows));
    *ld = *trans ? inner : outer;
}

static bool
has_gemm(const port_provider *provider, port_dtype dtype)
{
    return dtype == PORT_F32 ? provider->sgemm != NULL : dtype == PORT_F64 && provider->dgemm != NULL;
}

/* y is row-major, so BLAS is asked for its transpose, y^T = b^T a^T; only a single column is taken as it is, but for as_rows. Copies go to `space`; without
 * it the call tells flags alone. */
static port_blas_call
item_call(const item *p, double alpha, double beta, char *space)
{
    port_matrix a = p->a, b = p->b;
    bool copy_a = !is_row_or_column_major(p->M, p->K, a.row_stride, a.col_stride);
    bool copy_b = !is_row_or_column_major(p->K, p->N, b.row_stride, b.col_stride);
    if (copy_a) {
        copy_dense(&a, p->M, p->K, &space);
    }
    if (copy_b) {
        copy_dense(&b, p->K, p->N, &space);
    }
    port_blas_call call = {.k = p->K, .alpha = alpha, .beta = beta, .c = p->y};
    if (p->N == 1 && !p->as_rows) {
        call.m = p->M;
        call.n = 1;
        call.ldc = 1;
        call.a = a.data;
        call.b = b.data;
        blas_layout(a.row_stride, a.col_stride, p->M, &call.trans_a, &call.lda);
        blas_layout(b.row_stride, b.col_stride, p->K, &call.trans_b, &call.ldb);
        call.trans_a = call.trans_a || copy_a; /* a copy is row-major to ATen, even where it could be either */
        call.trans_b = call.trans_b || copy_b;
        call.lda = copy_a ? p->K : call.lda;
        call.ldb = copy_b ? 1 : call.ldb;
    } else {
        call.m = p->N;
        call.n = p->M;
        call.ldc = p->N;
        call.a = b.data;
        call.b = a.data;
        blas_layout(b.col_stride, b.row_stride, p->N, &call.trans_a, &call.lda);
        blas_layout(a.col_stride, a.row_stride, p->K, &call.trans_b, &call.ldb);
    }
    return call;
}

/* ------------------------------------------------------------------ halves */

/* How uneven `work` is over units of `unit`, as oneDNN reckons it. */
static float
unevenness(int64_t work, int64_t unit)
{
    int64_t rest = work % unit;
    return (float)(work < unit || unit - rest < rest ? unit - rest : rest) / (float)unit;
}

/* oneDNN's estimate of its loss in blocks of m rows and `chunk` times n columns with `shares` threads along K. */
static float
loss_of_blocks(int64_t M, int64_t N, int64_t K, int64_t m, int64_t n, int64_t chunk, int64_t shares, int64_t num_threads)
{
    int64_t beside = num_threads / shares, columns = (N + n - 1) / n, chunks = (columns + chunk - 1) / chunk, rows = (M + m - 1) / m;
    float rest_of_rows = (float)(m * rows % M) / (float)M;
    float rest_of_columns = ((float)chunks * (float)chunk - (float)columns) / (float)columns;
    float idle = beside * shares != num_threads ? (float)(num_threads - beside * shares) / (float)num_threads : 0.0f;
    return (unevenness(rows * chunks, beside) + rest_of_rows + rest_of_columns + idle + unevenness(K, shares * ONEDNN_BLOCK)) / 5;
}

/* Among how many threads oneDNN divides the terms of a product with a transposed a, which has fewer blocks of 64 columns than there are
 * threads: the first of the numbers from 4 down whose blocks lose least. `stack`: a stack of one. */
static int64_t
onednn_shares(int64_t M, int64_t N, int64_t K, int64_t num_threads, bool stack)
{
    int64_t blocks = (N + 63) / 64, best = 1;
    if (num_threads <= blocks || K < 2048 || (K & (K - 1)) != 0) {
        return 1;
    }
    int64_t n = N < 64 ? N : 64, most = M < 256 ? M : 256, least = M < 16 ? M : 16;
    if (M <= 512 && (stack || blocks > 1)) {
        n = N < 32 ? N : 32;
    }
    float lowest = 1.0f;
    for (int64_t shares = num_threads < 4 ? num_threads : 4; shares >= 1; shares--) {
        for (int64_t chunk = blocks < 16 ? blocks : 16; chunk >= 1; chunk--) {
            for (int64_t m = most; m >= least; m--) {
                float loss = loss_of_blocks(M, N, K, m, n, chunk, shares, num_threads);
                if (loss < lowest) {
                    lowest = loss;
                    best = shares;
                }
            }
        }
    }
    return best;
}

/* oneDNN's order for an item of a stack of `count` (`stack`), or for a product, which it is asked for as a BLAS is: of a single column, for the
 * transpose. What it takes for a transposed a has shorter chains; so has a single row, which may be either. */
static port_half_way
onednn_way(const port_profile *profile, const item *p, int64_t count, bool stack)
{
    bool turned = !stack && p->N == 1 && !p->as_rows;
    bool transposed = p->M == 1 || turned || (p->a.row_stride == 1 && p->a.col_stride == p->M && !(p->a.col_stride == 1 && p->a.row_stride == p->K));
    port_half_way way = {.order = PORT_HALF_PAIRS, .fused = true, .shares = 1};
    way.block = p->K > 1024 && !transposed ? 2 * ONEDNN_BLOCK : ONEDNN_BLOCK;
    if (transposed && count == 1) {
        way.shares = onednn_shares(turned ? 1 : p->M, turned ? p->M : p->N, p->K, profile->num_threads, stack);
    }
    return way;
}

/* How the reference sums an item of a stack of `count` (`stack`), or a product. */
static port_half_way
half_way(const port_kernel_call *call, const item *p, int64_t count)
{
    const port_profile *profile = call->profile;
    bool stack = call->out[0]->ndim == 3;
    port_half_way way = {.order = PORT_HALF_QUARTERS, .fused = profile->capability != PORT_CAP_DEFAULT};
    if (p->dtype == PORT_BF16 && profile->onednn_bf16 && count * p->M * p->N * p->K > PORT_ONEDNN_PRODUCT) {
        if (((const port_gemm_params *)call->params)->is_spread) {
            return (port_half_way){.order = PORT_HALF_ASCENDING, .fused = true};
        }
        return onednn_way(profile, p, count, stack);
    }
    port_blas_call blas = item_call(p, 1.0, 0.0, NULL);
    if (blas.trans_a != blas.trans_b) {
        way.order = blas.trans_a ? PORT_HALF_DOT : PORT_HALF_SEQUENCE;
    }
    return way;
}

/* ------------------------------------------------------------------ runs */

static port_matmul
product_of(const port_kernel_call *call, const item *p, double alpha, double beta)
{
    return (port_matmul){.M = p->M, .N = p->N, .K = p->K, .alpha = alpha, .beta = beta, .a = p->a, .b = p->b, .y = p->y,
                         .y_dtype = p->dtype, .y_row_stride = p->N, .num_threads = call->profile->num_threads};
}

typedef enum way { WAY_BLAS, WAY_CHAIN, WAY_REF } way;

/* y = beta * y where there is nothing to sum: adding 0 would lose the sign of -0. */
static void
scale_alone(const item *p, double beta)
{
    for (int64_t i = 0; i < p->M * p->N; i++) {
        if (p->dtype == PORT_F64) {
            double *y = (double *)p->y + i;
            *y = beta == 0.0 ? 0.0 : beta * *y;
        } else {
            port_store_f32(p->y, p->dtype, i, beta == 0.0 ? 0.0f : (float)beta * port_load_f32(p->y, p->dtype, i));
        }
    }
}

/* One of a stack of `count`. */
static void
run_item(const port_kernel_call *call, const item *p, int64_t count, double alpha, double beta, way how)
{
    if (p->K == 0) {
        scale_alone(p, beta);
        return;
    }
    if (how == WAY_BLAS && port_dtype_size(p->dtype) == sizeof(uint16_t)) {
        port_matmul product = product_of(call, p, alpha, beta);
        port_half_matmul_run(&product, half_way(call, p, count), call->scratch);
        return;
    }
    char *copies = (char *)call->scratch + round_up(port_matmul_scratch_bytes(p->K, p->dtype, call->profile->num_threads));
    if (how == WAY_BLAS && has_gemm(call->provider, p->dtype) &&
        port_blas_gemm(call->provider, p->dtype, item_call(p, alpha, beta, copies))) {
        return;
    }
    port_matmul product = product_of(call, p, alpha, beta);
    port_matmul_run(&product, how == WAY_REF ? PORT_MATMUL_REF : PORT_MATMUL_CHAIN, call->scratch);
}

static double
addend(const port_kernel_call *call, const port_gemm_params *params)
{
    const port_view *c = call->in[2], *y = call->out[0];
    if (c == NULL || params->beta == 0.0) {
        return 0.0;
    }
    if (c->data != y->data) {
        port_view_gather(c, y->data);
    }
    return params->beta;
}

static item
item_of(const port_kernel_call *call, int64_t batch)
{
    const port_view *a = call->in[0], *b = call->in[1], *y = call->out[0];
    int32_t row = a->ndim - 2, col = a->ndim - 1;
    size_t size_bytes = port_dtype_size(a->dtype);
    int64_t a_step = a->ndim == 3 ? a->strides[0] : 0, b_step = b->ndim == 3 ? b->strides[0] : 0;
    item p = {.dtype = a->dtype, .M = a->shape[row], .K = a->shape[col], .N = b->shape[col]};
    const char *from_a = (const char *)a->data + batch * a_step * (int64_t)size_bytes;
    const char *from_b = (const char *)b->data + batch * b_step * (int64_t)size_bytes;
    p.a = (port_matrix){from_a, a->dtype, a->strides[row], a->strides[col]};
    p.b = (port_matrix){from_b, b->dtype, b->strides[row], b->strides[col]};
    p.y = (char *)y->data + (size_t)(batch * p.M * p.N) * size_bytes;
    return p;
}

static void
gemm_run(const port_kernel_call *call, way how)
{
    const port_gemm_params *params = call->params;
    if (port_view_elems(call->out[0]) > 0) {
        double beta = addend(call, params);
        item p = item_of(call, 0);
        p.as_rows = params->as_rows;
        run_item(call, &p, 1, params->alpha, beta, how);
    }
}

static float
small_sum_f32(const item *p, int64_t i, int64_t j)
{
    float sum = 0.0f;
    for (int64_t k = 0; k < p->K; k++) {
        float a = port_load_f32(p->a.data, p->dtype, i * p->a.row_stride + k * p->a.col_stride);
        sum += a * port_load_f32(p->b.data, p->dtype, k * p->b.row_stride + j * p->b.col_stride);
    }
    return sum;
}

static double
small_sum_f64(const item *p, int64_t i, int64_t j)
{
    const double *a = (const double *)p->a.data + i * p->a.row_stride;
    const double *b = (const double *)p->b.data + j * p->b.col_stride;
    double sum = 0.0;
    for (int64_t k = 0; k < p->K; k++) {
        sum += a[k * p->a.col_stride] * b[k * p->b.row_stride];
    }
    return sum;
}

static void
small_item(const item *p, double alpha, double beta)
{
    for (int64_t i = 0; i < p->M; i++) {
        for (int64_t j = 0; j < p->N; j++) {
            int64_t at = i * p->N + j;
            if (p->dtype == PORT_F64) {
                double *y = (double *)p->y + at;
                double sum = alpha * small_sum_f64(p, i, j);
                *y = beta == 0.0 ? sum : *y * beta + sum;
            } else {
                float sum = (float)alpha * small_sum_f32(p, i, j);
                sum = beta == 0.0 ? sum : port_load_f32(p->y, p->dtype, at) * (float)beta + sum;
                port_store_f32(p->y, p->dtype, at, sum);
            }
        }
    }
}

/* What ATen asks of an item to give the whole batch to the BLAS at once: a size of one may have any stride. */
static bool
is_batchable(const port_view *view)
{
    const int64_t *size = view->shape, *stride = view->strides;
    return (stride[2] == 1 && (size[1] == 1 || stride[1] >= size[2])) ||
           (stride[1] == 1 && (size[2] == 1 || stride[2] >= size[1]));
}

/* The BLAS call for an item of such a batch: never copied, and a single column is not special. */
static port_blas_call
batch_call(const item *p, double alpha, double beta)
{
    port_blas_call call = {.m = p->N, .n = p->M, .k = p->K, .alpha = alpha, .beta = beta, .a = p->b.data, .b = p->a.data,
                           .c = p->y, .ldc = p->N};
    call.trans_a = p->b.row_stride == 1 && p->b.col_stride >= p->K;
    call.lda = call.trans_a ? p->b.col_stride : p->b.row_stride;
    call.trans_b = p->a.row_stride == 1 && p->a.col_stride >= p->M;
    call.ldb = call.trans_b ? p->a.col_stride : p->a.row_stride;
    return call;
}

static bool
bmm_at_once(const port_kernel_call *call, double alpha, double beta)
{
    const port_view *a = call->in[0], *b = call->in[1], *y = call->out[0];
    if (!has_gemm(call->provider, a->dtype) || !is_batchable(a) || !is_batchable(b)) {
        return false;
    }
    item first = item_of(call, 0);
    port_blas_call blas = batch_call(&first, alpha, beta);
    return port_blas_gemm_batch(call->provider, a->dtype, blas, y->shape[0], b->strides[0], a->strides[0],
                                first.M * first.N, call->scratch);
}

static void
bmm_run(const port_kernel_call *call, way how)
{
    const port_gemm_params *params = call->params;
    const port_view *a = call->in[0], *y = call->out[0];
    if (port_view_elems(y) == 0) {
        return;
    }
    double beta = addend(call, params);
    int64_t num_products = y->shape[1] * y->shape[2] * a->shape[2];
    bool small = how != WAY_REF && num_products > 0 && num_products < PORT_SMALL_PRODUCT;
    if (how == WAY_BLAS && num_products > 0 && !small && bmm_at_once(call, params->alpha, beta)) {
        return;
    }
    for (int64_t n = 0; n < y->shape[0]; n++) {
        item p = item_of(call, n);
        if (small) {
            small_item(&p, params->alpha, beta);
        } else {
            run_item(call, &p, y->shape[0], params->alpha, beta, how);
        }
    }
}

bool
port_bmm_is_itemwise(const port_provider *provider, port_dtype dtype, const int64_t sizes[4], const port_profile *profile)
{
    if (dtype == PORT_BF16 && profile->onednn_bf16) {
        int64_t products = sizes[1] * sizes[2] * sizes[3];
        return products > PORT_ONEDNN_PRODUCT || sizes[0] * products <= PORT_ONEDNN_PRODUCT;
    }
    if (!has_gemm(provider, dtype)) {
        return true;
    }
    bool large = sizes[1] >= 16 && sizes[2] >= 16 && sizes[3] >= 16;
    return dtype == PORT_F32 && large &&
           (profile->num_threads <= 1 || (provider->sgemm_batch != NULL && sizes[0] >= profile->num_threads));
}

static void
gemm_run_blas(const port_kernel_call *call)
{
    int restore = port_provider_use_threads(call->provider, call->profile->num_threads);
    gemm_run(call, WAY_BLAS);
    port_provider_restore_threads(call->provider, restore);
}

/* The product as chain.h takes it; false: not one of those. */
static bool
chain_of(const port_kernel_call *call, port_chain *chain)
{
    const port_gemm_params *params = call->params;
    const port_view *a = call->in[0], *b = call->in[1], *c = params->beta != 0.0 ? call->in[2] : NULL, *y = call->out[0];
    bool plain = a->dtype == PORT_F32 && params->alpha == 1.0 && (c == NULL || (params->beta == 1.0 && c->strides[1] == 1));
    if (!plain || a->strides[1] != 1 || (b->strides[0] != 1 && b->strides[1] != 1) || !port_chain_fits(y->shape[0], y->shape[1], a->shape[1])) {
        return false;
    }
    *chain = (port_chain){.M = y->shape[0], .N = y->shape[1], .K = a->shape[1], .a = a->data, .a_row_stride = a->strides[0], .b = b->data,
                          .b_row_stride = b->strides[0], .b_col_stride = b->strides[1], .start = c != NULL ? c->data : NULL,
                          .start_row_stride = c != NULL ? c->strides[0] : 0, .y = y->data, .y_row_stride = y->shape[1],
                          .num_threads = call->profile->num_threads};
    return true;
}

bool
port_gemm_is_packed(const port_kernel_call *call)
{
    port_chain chain;
    return chain_of(call, &chain);
}

static size_t
gemm_chain_scratch_bytes(const port_kernel_call *call)
{
    port_chain chain;
    return chain_of(call, &chain) ? port_chain_scratch_bytes(chain.M, chain.N, chain.num_threads) : gemm_scratch_bytes(call);
}

static void
gemm_run_chain(const port_kernel_call *call)
{
    port_chain chain;
    if (chain_of(call, &chain)) {
        port_chain_run(&chain, call->scratch);
    } else {
        gemm_run(call, WAY_CHAIN);
    }
}

static void
gemm_run_ref(const port_kernel_call *call)
{
    gemm_run(call, WAY_REF);
}

static void
bmm_run_blas(const port_kernel_call *call)
{
    int restore = port_provider_use_threads(call->provider, call->profile->num_threads);
    bmm_run(call, WAY_BLAS);
    port_provider_restore_threads(call->provider, restore);
}

static void
bmm_run_chain(const port_kernel_call *call)
{
    bmm_run(call, WAY_CHAIN);
}

static void
bmm_run_ref(const port_kernel_call *call)
{
    bmm_run(call, WAY_REF);
}

static void
gemm_run_golden(const port_kernel_call *call)
{
    const port_gemm_params *params = call->params;
    gemm_run_blas(call);
    port_dot2_refine(call, params->alpha, params->beta);
}

static void
bmm_run_golden(const port_kernel_call *call)
{
    const port_gemm_params *params = call->params;
    bmm_run_blas(call);
    port_dot2_refine(call, params->alpha, params->beta);
}

/* The first of a kind is the one taken when no variant is asked for. */
#define GEMM_ROWS(T)                                                       \
    {"gemm", T, "blas", 0, gemm_check, gemm_scratch_bytes, gemm_run_blas}, \
    {"gemm", T, "chain", 0, gemm_check, gemm_chain_scratch_bytes, gemm_run_chain}, \
    {"gemm", T, "ref", 0, gemm_check, gemm_scratch_bytes, gemm_run_ref}, \
    {"bmm", T, "blas", 0, bmm_check, gemm_scratch_bytes, bmm_run_blas}, \
    {"bmm", T, "chain", 0, bmm_check, gemm_scratch_bytes, bmm_run_chain}, \
    {"bmm", T, "ref", 0, bmm_check, gemm_scratch_bytes, bmm_run_ref}

const port_kernel_row port_gemm_rows[] = {
    GEMM_ROWS(PORT_F32),
    GEMM_ROWS(PORT_F64),
    GEMM_ROWS(PORT_BF16),
    GEMM_ROWS(PORT_F16),
    {"gemm", PORT_F64, "golden", 0, gemm_check, gemm_scratch_bytes, gemm_run_golden},
    {"bmm", PORT_F64, "golden", 0, bmm_check, gemm_scratch_bytes, bmm_run_golden},
    {.op = NULL},
};
