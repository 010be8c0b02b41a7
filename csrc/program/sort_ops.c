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
    copy_view(&to, &from);
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

/* searchsorted.Tensor(sorted_sequence, self), bucketize.Tensor(self, boundaries): how many boundaries stand before each
 * element. */
static port_status
run_search(op_call *call)
{
    bool buckets = strncmp(call->row->name, "bucketize", 9) == 0;
    const port_tensor *x = arg_tensor(call, buckets ? 0 : 1), *edges = arg_tensor(call, buckets ? 1 : 0);
    bool to_int32 = arg_bool(call, 2), right = arg_bool(call, 3);
    port_tensor *out;
    const port_tensor *result;
    if ((!buckets && (arg_given(call, 4) || arg_given(call, 5))) || edges->ndim != 1) {
        return fail_unsupported(call, "side, sorter, or a sequence of %d dimensions", edges->ndim);
    }
    port_status status = tensor_cast(call, x, PORT_F64, &x);
    if (status != PORT_OK || (status = tensor_contiguous(call, x, &x)) != PORT_OK ||
        (status = tensor_cast(call, edges, PORT_F64, &edges)) != PORT_OK ||
        (status = tensor_contiguous(call, edges, &edges)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, x->ndim, x->shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    const double *value = (const double *)tensor_view(x).data, *edge = (const double *)tensor_view(edges).data;
    int64_t *to = (int64_t *)tensor_view(out).data, elems = tensor_elems(x);
    for (int64_t i = 0; i < elems; i++) {
        int64_t low = 0, high = edges->shape[0];
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            bool before = right ? !(edge[middle] > value[i]) : !(edge[middle] >= value[i]);
            low = before ? middle + 1 : low;
            high = before ? high : middle;
        }
        to[i] = low;
    }
    status = tensor_cast(call, out, to_int32 ? PORT_I32 : PORT_I64, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

const op_row op_sort_rows[] = {
    {"topk", "T self, I k, I dim=-1, B largest=True, B sorted=True", run_topk, "topk", 0, 0},
    {"sort", "T self, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"sort.stable", "T self, *, B? stable, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"argsort", "T self, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"argsort.stable", "T self, *, B stable, I dim=-1, B descending=False", run_sort, "topk", 0, 0},
    {"searchsorted.Tensor",
     "T sorted_sequence, T self, *, B out_int32=False, B right=False, s? side=None, T? sorter=None", run_search, NULL,
     0, 0},
    {"bucketize.Tensor", "T self, T boundaries, *, B out_int32=False, B right=False", run_search, NULL, 0, 0},
    {.name = NULL},
};
