/* sort_ops.c -- ops about the order of elements: topk, sort, argsort, aminmax, searchsorted, bucketize.
 * Equal elements, and what topk need not sort, come in the reference's order; a stable sort keeps them as they were. */
#include "exec.h"

/* From so many integers in one dimension on, the reference sorts by their digits, which keeps equal ones in order. */
#define RADIX_SORT_FROM 32768

port_status
tensor_as_rows(op_call *call, const port_tensor *x, int32_t d, port_tensor **rows)
{
    port_tensor *moved;
    const port_tensor *dense;
    port_status status = tensor_alias(call, x, &moved);
    if (status != PORT_OK) {
        return status;
    }
    for (int32_t k = d; k + 1 < x->ndim; k++) {
        moved->shape[k] = x->shape[k + 1];
        moved->strides[k] = x->strides[k + 1];
    }
    int64_t n = 1;
    if (x->ndim > 0) {
        n = moved->shape[x->ndim - 1] = x->shape[d];
        moved->strides[x->ndim - 1] = x->strides[d];
    }
    if ((status = tensor_contiguous(call, moved, &dense)) != PORT_OK ||
        (status = tensor_alias(call, dense, rows)) != PORT_OK) {
        return status;
    }
    int64_t elems = tensor_elems(dense);
    (*rows)->ndim = 2;
    (*rows)->shape[0] = n > 0 ? elems / n : 0;
    (*rows)->shape[1] = (*rows)->strides[0] = n;
    (*rows)->strides[1] = 1;
    return PORT_OK;
}

port_status
emit_rows(op_call *call, const port_tensor *rows, const port_tensor *x, int32_t d, bool like_x)
{
    port_tensor *out;
    int64_t shape[PORT_MAX_NDIM];
    memcpy(shape, x->shape, sizeof shape);
    if (x->ndim > 0) {
        shape[d] = rows->shape[1];
    }
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(x, strides);
    port_status status = tensor_new(call, rows->dtype, x->ndim, shape, like_x ? strides : NULL, &out);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(out), from = tensor_view(rows);
    from.ndim = x->ndim;
    int64_t step = rows->shape[1];
    for (int32_t k = x->ndim - 1; k >= 0; k--) {
        from.shape[k] = shape[k];
        from.strides[k] = k == d ? 1 : step;
        step *= k == d ? 1 : shape[k];
    }
    copy_view(call, &to, &from);
    return emit(call, out);
}

static port_status
sort_rows(op_call *call, const port_tensor *x, int64_t dim, int64_t k, bool largest, port_topk_order how, bool values)
{
    int32_t d;
    port_tensor *rows, *taken, *order;
    port_topk_params params = {largest, how};
    port_status status = wrap_dim(call, dim, x->ndim, &d);
    if (status != PORT_OK || (status = tensor_as_rows(call, x, d, &rows)) != PORT_OK) {
        return status;
    }
    bool all = k < 0;
    if (how == PORT_TOPK_SORT && x->ndim == 1 && x->shape[0] >= RADIX_SORT_FROM && !largest && dtype_is_integral(x->dtype)) {
        params.order = PORT_TOPK_STABLE;
    }
    k = all ? rows->shape[1] : k;
    if (k > rows->shape[1]) {
        return fail_op(call, PORT_E_VALUE, "the %lld greatest of %lld elements", (long long)k,
                       (long long)rows->shape[1]);
    }
    int64_t shape[2] = {rows->shape[0], k};
    if ((status = tensor_new(call, x->dtype, 2, shape, NULL, &taken)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, 2, shape, NULL, &order)) != PORT_OK ||
        (status = launch_tensors(call, "topk", x->dtype, (const port_tensor *const[]){rows}, 1,
                                 (const port_tensor *const[]){taken, order}, 2, &params)) != PORT_OK) {
        return status;
    }
    if (values) {
        status = emit_rows(call, taken, x, d, all);
    }
    return status == PORT_OK ? emit_rows(call, order, x, d, all) : status;
}

static port_status
run_topk(op_call *call)
{
    int64_t k = arg_int(call, 1);
    if (k < 0) {
        return fail_op(call, PORT_E_VALUE, "the %lld greatest elements", (long long)k);
    }
    return sort_rows(call, arg_tensor(call, 0), arg_int(call, 2), k, arg_bool(call, 3),
                     arg_bool(call, 4) ? PORT_TOPK_ORDERED : PORT_TOPK_ANY, true);
}

/* sort(self, dim, descending), argsort; the stable forms have `stable` before. */
static port_status
run_sort(op_call *call)
{
    int32_t first = strstr(call->row->name, "stable") != NULL ? 2 : 1;
    bool stable = first == 2 && arg_given(call, 1) && arg_bool(call, 1);
    bool places_only = strncmp(call->row->name, "argsort", 7) == 0;
    return sort_rows(call, arg_tensor(call, 0), arg_int(call, first), -1, arg_bool(call, first + 1),
                     stable ? PORT_TOPK_STABLE : PORT_TOPK_SORT, !places_only);
}

/* Sequences and values in a common dtype, dense: all as F64, or as I64. */
typedef struct search_data {
    const void *values, *edges; /* double or int64_t */
    const int64_t *order;       /* like the edges: their places in sorted order; NULL: they are sorted */
    bool whole;
} search_data;

static port_status
load_search(op_call *call, const port_tensor *values, const port_tensor *edges, const port_tensor *sorter, search_data *data)
{
    op_operand operands[2] = {{.tensor = values}, {.tensor = edges}};
    port_dtype common = result_type(operands, 2);
    const port_tensor *in[2] = {values, edges};
    const void **out[2] = {&data->values, &data->edges};
    if (common >= PORT_NUM_DTYPES || common == PORT_C64) {
        return fail_unsupported(call, "sequences and values without a common order");
    }
    data->whole = !dtype_is_float(common);
    for (int32_t k = 0; k < 2; k++) {
        port_status status = tensor_cast(call, in[k], common, &in[k]);
        if (status != PORT_OK || (status = tensor_cast(call, in[k], data->whole ? PORT_I64 : PORT_F64, &in[k])) != PORT_OK ||
            (status = tensor_contiguous(call, in[k], &in[k])) != PORT_OK) {
            return status;
        }
        *out[k] = tensor_view(in[k]).data;
    }
    port_status status = sorter != NULL ? tensor_contiguous(call, sorter, &sorter) : PORT_OK;
    data->order = sorter != NULL && status == PORT_OK ? (const int64_t *)tensor_view(sorter).data : NULL;
    return status;
}

/* How many elements of sequence `row`, of n, stand before value `i`; or, on the right, before or beside it. */
static int64_t
search_one(const search_data *data, int64_t row, int64_t n, int64_t i, bool right)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2, at = row * n + (data->order != NULL ? data->order[row * n + middle] : middle);
        bool before;
        if (data->whole) {
            int64_t edge = ((const int64_t *)data->edges)[at], v = ((const int64_t *)data->values)[i];
            before = right ? edge <= v : edge < v;
        } else {
            double edge = ((const double *)data->edges)[at], v = ((const double *)data->values)[i];
            before = right ? !(edge > v) : !(edge >= v);
        }
        low = before ? middle + 1 : low;
        high = before ? high : middle;
    }
    return low;
}

/* The sorter must have the sequences' shape, and its elements must be places in them. */
static port_status
check_sorter(op_call *call, const port_tensor *sorter, const port_tensor *edges)
{
    const port_tensor *dense;
    if (sorter->dtype != PORT_I64 || sorter->ndim != edges->ndim ||
        memcmp(sorter->shape, edges->shape, (size_t)edges->ndim * sizeof *edges->shape) != 0) {
        return fail_op(call, PORT_E_SHAPE, "a sorter must be I64 and have the shape of the sequence");
    }
    port_status status = tensor_contiguous(call, sorter, &dense);
    int64_t n = edges->shape[edges->ndim - 1];
    for (int64_t i = 0; status == PORT_OK && i < tensor_elems(dense); i++) {
        int64_t place = ((const int64_t *)tensor_view(dense).data)[i];
        if (place < 0 || place >= n) {
            return fail_op(call, PORT_E_VALUE, "the sorter's element %lld is %lld, the sequence has %lld", (long long)i, (long long)place, (long long)n);
        }
    }
    return status;
}

/* searchsorted(sorted_sequence, self, out_int32, right, side, sorter), bucketize(self, boundaries, out_int32, right): how
 * many boundaries stand before each element. One sequence for all, or one for each row. */
static port_status
run_search(op_call *call)
{
    bool buckets = strncmp(call->row->name, "bucketize", 9) == 0, to_int32 = arg_bool(call, 2);
    const port_tensor *x = arg_tensor(call, buckets ? 0 : 1), *edges = arg_tensor(call, buckets ? 1 : 0), *result;
    const port_tensor *sorter = buckets ? NULL : arg_tensor(call, 5);
    search_data data = {.order = NULL};
    port_tensor *out;
    port_status status = PORT_OK;
    const char *side = buckets ? "" : arg_text(call, 4, "");
    bool right = arg_bool(call, 3) || strcmp(side, "right") == 0;
    if (side[0] != '\0' && strcmp(side, "right") != 0 && (strcmp(side, "left") != 0 || arg_bool(call, 3))) {
        return fail_op(call, PORT_E_VALUE, "the side is %.40s%s; expected left or right", side, arg_bool(call, 3) ? " and right is true" : "");
    }
    if (x == NULL) {
        port_scalar value = arg_scalar(call, buckets ? 0 : 1);
        status = scalar_to_tensor(call, value, value.kind == PORT_SCALAR_FLOAT ? PORT_F32 : PORT_I64, &x);
    }
    bool fits = edges->ndim == 1 || (edges->ndim > 1 && x != NULL && x->ndim == edges->ndim &&
                                     memcmp(x->shape, edges->shape, (size_t)(edges->ndim - 1) * sizeof *x->shape) == 0);
    if (status == PORT_OK && !fits) {
        return fail_op(call, PORT_E_SHAPE, "a sequence of %d dimensions for values of %d, or other rows", edges->ndim, x->ndim);
    }
    if (status != PORT_OK || (sorter != NULL && (status = check_sorter(call, sorter, edges)) != PORT_OK) ||
        (status = load_search(call, x, edges, sorter, &data)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, x->ndim, x->shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    int64_t *to = (int64_t *)tensor_view(out).data, elems = tensor_elems(x), n = edges->shape[edges->ndim - 1];
    int64_t in_row = edges->ndim > 1 ? x->shape[x->ndim - 1] : elems;
    for (int64_t i = 0; i < elems; i++) {
        to[i] = search_one(&data, i / in_row, n, i, right);
    }
    status = tensor_cast(call, out, to_int32 ? PORT_I32 : PORT_I64, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

#define SEARCH_ARGS "*, B out_int32=False, B right=False"

const op_row op_sort_rows[] = {
    {"topk", "T self, I k, I dim=-1, B largest=True, B sorted=True", run_topk, "topk", 0, 0},
    {"sort", "T self, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"sort.stable", "T self, *, B? stable, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"argsort", "T self, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"argsort.stable", "T self, *, B stable, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"searchsorted.Tensor",
     "T sorted_sequence, T self, " SEARCH_ARGS ", s? side=None, T? sorter=None", run_search, NULL, 0, 0},
    {"searchsorted.Scalar",
     "T sorted_sequence, S self, " SEARCH_ARGS ", s? side=None, T? sorter=None", run_search, NULL, 0, 0},
    {"bucketize.Tensor", "T self, T boundaries, " SEARCH_ARGS, run_search, NULL, 0, 0},
    {"bucketize.Scalar", "S self, T boundaries, " SEARCH_ARGS, run_search, NULL, 0, 0},
    {.name = NULL},
};
