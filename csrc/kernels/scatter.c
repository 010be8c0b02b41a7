/* scatter.c -- writing elements where an index says, and the places of the greatest.
 *     scatter   y[..., index[p], ...] = combine(y[..., index[p], ...], src[p]) for all places p of index, in row-major order
 *     topk      the k greatest (or smallest) elements of each row and their places, in order
 * Source: at::native scatter_add, scatter_reduce, index_add, index_put, topk, sort (BSD-3-Clause; restated). NaN is greatest. */
#include "loops.h"

#include <math.h>

static int64_t
index_at(const port_view *index, const char *at)
{
    int64_t value;
    port_load_i64(index->dtype, at, 0, 1, &value);
    return value;
}

/* Calls visit for each place of the index, with addresses of index, src and the line of y that the place is on. */
typedef bool (*scatter_visit)(const port_kernel_call *call, const char *index, const char *src, char *line);

static bool
for_each_place(const port_kernel_call *call, scatter_visit visit)
{
    const port_scatter_params *p = call->params;
    const port_view *index = call->in[0], *src = call->in[1], *y = call->out[0];
    int64_t n = port_view_elems(index), place[PORT_MAX_NDIM] = {0};
    int64_t index_bytes = (int64_t)port_dtype_size(index->dtype), bytes = (int64_t)port_dtype_size(y->dtype);
    for (int64_t i = 0; i < n; i++) {
        const char *index_at_place = index->data, *src_at_place = src->data;
        char *line = y->data;
        for (int32_t d = 0; d < index->ndim; d++) {
            index_at_place += place[d] * index->strides[d] * index_bytes;
            src_at_place += place[d] * src->strides[d] * bytes;
            line += d == p->dim ? 0 : place[d] * y->strides[d] * bytes;
        }
        if (!visit(call, index_at_place, src_at_place, line)) {
            return false;
        }
        for (int32_t d = index->ndim - 1; d >= 0 && ++place[d] == index->shape[d]; d--) {
            place[d] = 0;
        }
    }
    return true;
}

static bool
in_range(const port_kernel_call *call, const char *index, const char *src, char *line)
{
    (void)src, (void)line;
    const port_scatter_params *p = call->params;
    int64_t at = index_at(call->in[0], index), size = call->out[0]->shape[p->dim];
    return at >= 0 && at < size;
}

static port_status
scatter_check(const port_kernel_call *call, port_error *err)
{
    const port_scatter_params *p = call->params;
    const port_view *index = call->in[0], *src = call->in[1], *y = call->out[0];
    if (p == NULL || index->ndim != y->ndim || src->ndim != y->ndim || p->dim < 0 || p->dim >= y->ndim) {
        return port_fail(err, PORT_E_SHAPE, "scatter: index, source and destination have %d, %d and %d dimensions", index->ndim,
                         src->ndim, y->ndim);
    }
    for (int32_t d = 0; d < y->ndim; d++) {
        if (index->shape[d] > src->shape[d] || (d != p->dim && index->shape[d] > y->shape[d])) {
            return port_fail(err, PORT_E_SHAPE, "scatter: the index is larger than the source or the destination in dimension %d", d);
        }
    }
    if (src->dtype != y->dtype || (index->dtype != PORT_I64 && index->dtype != PORT_I32)) {
        return port_fail(err, PORT_E_DTYPE, "scatter: %s written into %s by an index of %s", port_dtype_name(src->dtype),
                         port_dtype_name(y->dtype), port_dtype_name(index->dtype));
    }
    return for_each_place(call, in_range)
               ? PORT_OK
               : port_fail(err, PORT_E_VALUE, "scatter: an index is outside of 0 to %lld", (long long)y->shape[p->dim] - 1);
}

static float
combine_f32(port_scatter_kind kind, float y, float x)
{
    switch (kind) {
    case PORT_SCATTER_ADD: return y + x;
    case PORT_SCATTER_MUL: return y * x;
    case PORT_SCATTER_MAX: return x != x || x > y ? x : y;
    case PORT_SCATTER_MIN: return x != x || x < y ? x : y;
    default: return x;
    }
}

static double
combine_f64(port_scatter_kind kind, double y, double x)
{
    switch (kind) {
    case PORT_SCATTER_ADD: return y + x;
    case PORT_SCATTER_MUL: return y * x;
    case PORT_SCATTER_MAX: return x != x || x > y ? x : y;
    case PORT_SCATTER_MIN: return x != x || x < y ? x : y;
    default: return x;
    }
}

static int64_t
combine_i64(port_scatter_kind kind, int64_t y, int64_t x)
{
    switch (kind) {
    case PORT_SCATTER_ADD: return (int64_t)((uint64_t)y + (uint64_t)x);
    case PORT_SCATTER_MUL: return (int64_t)((uint64_t)y * (uint64_t)x);
    case PORT_SCATTER_MAX: return x > y ? x : y;
    case PORT_SCATTER_MIN: return x < y ? x : y;
    default: return x;
    }
}

static bool
scatter_place(const port_kernel_call *call, const char *index, const char *src, char *line)
{
    const port_scatter_params *p = call->params;
    const port_view *view = call->out[0];
    port_dtype dtype = view->dtype;
    char *y = line + index_at(call->in[0], index) * view->strides[p->dim] * (int64_t)port_dtype_size(dtype);
    union {
        float f32[2];
        double f64[2];
        int64_t i64[2];
    } v;
    if (p->kind == PORT_SCATTER_SET) {
        memcpy(y, src, port_dtype_size(dtype));
        return true;
    }
    switch (port_compute_of(dtype)) {
    case PORT_COMPUTE_F32:
        port_load_f32(dtype, y, 0, 1, &v.f32[0]);
        port_load_f32(dtype, src, 0, 1, &v.f32[1]);
        v.f32[0] = combine_f32(p->kind, v.f32[0], v.f32[1]);
        port_store_f32(dtype, &v.f32[0], 1, y, 0);
        break;
    case PORT_COMPUTE_F64:
        port_load_f64(dtype, y, 0, 1, &v.f64[0]);
        port_load_f64(dtype, src, 0, 1, &v.f64[1]);
        v.f64[0] = combine_f64(p->kind, v.f64[0], v.f64[1]);
        port_store_f64(dtype, &v.f64[0], 1, y, 0);
        break;
    default:
        port_load_i64(dtype, y, 0, 1, &v.i64[0]);
        port_load_i64(dtype, src, 0, 1, &v.i64[1]);
        v.i64[0] = combine_i64(p->kind, v.i64[0], v.i64[1]);
        port_store_i64(dtype, &v.i64[0], 1, y, 0);
    }
    return true;
}

static void
scatter_run(const port_kernel_call *call)
{
    for_each_place(call, scatter_place);
}

/* ---------------------------------------------------------------- topk */

/* The row's elements as f64 (exact for every float) or i64, and a permutation that is sorted by merging: stable. */
typedef struct sort_row {
    int64_t n;
    bool descending, is_float;
    double *f64;
    int64_t *i64, *order, *space;
} sort_row;

static bool
comes_before(const sort_row *row, int64_t a, int64_t b)
{
    if (!row->is_float) {
        return row->descending ? row->i64[a] > row->i64[b] : row->i64[a] < row->i64[b];
    }
    double x = row->f64[a], y = row->f64[b];
    return row->descending ? (x != x && y == y) || x > y : (x == x && y != y) || x < y;
}

static void
sort_by_merging(const sort_row *row)
{
    for (int64_t i = 0; i < row->n; i++) {
        row->order[i] = i;
    }
    int64_t *from = row->order, *to = row->space;
    for (int64_t width = 1; width < row->n; width *= 2) {
        for (int64_t begin = 0; begin < row->n; begin += 2 * width) {
            int64_t middle = begin + width < row->n ? begin + width : row->n;
            int64_t end = begin + 2 * width < row->n ? begin + 2 * width : row->n;
            for (int64_t a = begin, b = middle, k = begin; k < end; k++) {
                bool second = a == middle || (b < end && comes_before(row, from[b], from[a]));
                to[k] = second ? from[b++] : from[a++];
            }
        }
        int64_t *last = from;
        from = to;
        to = last;
    }
    if (from != row->order) {
        memcpy(row->order, from, (size_t)row->n * sizeof *from);
    }
}

static void
swap_places(int64_t *order, int64_t a, int64_t b)
{
    int64_t place = order[a];
    order[a] = order[b];
    order[b] = place;
}

/* Hoare's selection as the reference's C++ library does it, which decides the order of equal elements: pivot is the median of
 * three, moved to the front; short ranges by insertion. Afterwards the element at `nth` is in place. */
static void
select_nth(const sort_row *row, int64_t nth)
{
    int64_t *order = row->order, first = 0, last = row->n;
    while (last - first > 3) {
        int64_t a = first + 1, b = first + (last - first) / 2, c = last - 1;
        bool ab = comes_before(row, order[a], order[b]), bc = comes_before(row, order[b], order[c]);
        bool ac = comes_before(row, order[a], order[c]);
        swap_places(order, first, ab ? (bc ? b : (ac ? c : a)) : (ac ? a : (bc ? c : b)));
        int64_t low = first + 1, high = last;
        for (;; low++) {
            while (comes_before(row, order[low], order[first])) {
                low++;
            }
            high--;
            while (comes_before(row, order[first], order[high])) {
                high--;
            }
            if (low >= high) {
                break;
            }
            swap_places(order, low, high);
        }
        first = low <= nth ? low : first;
        last = low <= nth ? last : low;
    }
    for (int64_t i = first + 1; i < last; i++) {
        for (int64_t k = i; k > first && comes_before(row, order[k], order[k - 1]); k--) {
            swap_places(order, k, k - 1);
        }
    }
}

/* The first k in order: selected, then sorted among themselves. */
static void
take_first(const sort_row *row, int64_t k)
{
    for (int64_t i = 0; i < row->n; i++) {
        row->order[i] = i;
    }
    select_nth(row, k - 1);
    for (int64_t i = 1; i < k - 1; i++) {
        for (int64_t j = i; j > 0 && comes_before(row, row->order[j], row->order[j - 1]); j--) {
            swap_places(row->order, j, j - 1);
        }
    }
}

static port_status
topk_check(const port_kernel_call *call, port_error *err)
{
    const port_topk_params *p = call->params;
    const port_view *x = call->in[0], *y = call->out[0], *places = call->out[1];
    if (p == NULL || x->ndim != 2 || y->ndim != 2 || places->ndim != 2 || y->shape[1] > x->shape[1] || y->shape[0] != x->shape[0] ||
        places->shape[0] != y->shape[0] || places->shape[1] != y->shape[1]) {
        return port_fail(err, PORT_E_SHAPE, "topk: expected rows of x, values and places of the same number");
    }
    return y->dtype == x->dtype && places->dtype == PORT_I64
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "topk: values of %s and places of %s", port_dtype_name(y->dtype),
                           port_dtype_name(places->dtype));
}

static size_t
topk_scratch_bytes(const port_kernel_call *call)
{
    return 3 * sizeof(int64_t) * (size_t)call->in[0]->shape[1] + 64;
}

static void
topk_run(const port_kernel_call *call)
{
    const port_topk_params *p = call->params;
    const port_view *x = call->in[0], *y = call->out[0], *places = call->out[1];
    int64_t n = x->shape[1], bytes = (int64_t)port_dtype_size(x->dtype);
    sort_row row = {.n = n, .descending = p->largest, .is_float = port_dtype_is_float(x->dtype), .f64 = call->scratch,
                    .i64 = call->scratch, .order = (int64_t *)call->scratch + n, .space = (int64_t *)call->scratch + 2 * n};
    for (int64_t r = 0; r < x->shape[0]; r++) {
        const char *from = (const char *)x->data + r * x->strides[0] * bytes;
        if (row.is_float) {
            port_load_f64(x->dtype, from, x->strides[1] * bytes, n, row.f64);
        } else {
            port_load_i64(x->dtype, from, x->strides[1] * bytes, n, row.i64);
        }
        int64_t taken = y->shape[1];
        if (taken > 0 && !p->stable && taken <= 17 && taken * 64 > n) { /* the reference selects; more or fewer it sorts */
            take_first(&row, taken);
        } else {
            sort_by_merging(&row);
        }
        for (int64_t k = 0; k < y->shape[1]; k++) {
            memcpy((char *)y->data + (r * y->strides[0] + k * y->strides[1]) * bytes, from + row.order[k] * x->strides[1] * bytes,
                   (size_t)bytes);
            ((int64_t *)places->data)[r * places->strides[0] + k * places->strides[1]] = row.order[k];
        }
    }
}

#define ALL_ROWS(op, check_, scratch_, run_, T) {op, T, "ref", 0, check_, scratch_, run_}
#define BOTH_ROWS(T) ALL_ROWS("scatter", scatter_check, NULL, scatter_run, T), \
                     ALL_ROWS("topk", topk_check, topk_scratch_bytes, topk_run, T)

const port_kernel_row port_scatter_rows[] = {
    BOTH_ROWS(PORT_F32), BOTH_ROWS(PORT_F64), BOTH_ROWS(PORT_BF16), BOTH_ROWS(PORT_F16), BOTH_ROWS(PORT_I64), BOTH_ROWS(PORT_I32),
    BOTH_ROWS(PORT_I16), BOTH_ROWS(PORT_I8),  BOTH_ROWS(PORT_U8),   BOTH_ROWS(PORT_BOOL), {.op = NULL},
};
