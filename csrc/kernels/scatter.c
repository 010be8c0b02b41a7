/* scatter.c -- writing elements where an index says.
 *     scatter   y[..., index[p], ...] = combine(y[..., index[p], ...], src[p]) for all places p of index, in row-major order
 * Source: at::native scatter_add, scatter_reduce, index_add, index_put (BSD-3-Clause; restated). */
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

#define COMBINE_FLOATS(suffix, type)                                                                                 \
    static type combine_##suffix(port_scatter_kind kind, type y, type x)                                             \
    {                                                                                                                \
        switch (kind) {                                                                                              \
        case PORT_SCATTER_ADD: return y + x;                                                                         \
        case PORT_SCATTER_MUL: return y * x;                                                                         \
        case PORT_SCATTER_MAX: return x != x || x > y ? x : y;                                                       \
        case PORT_SCATTER_MIN: return x != x || x < y ? x : y;                                                       \
        default: return x;                                                                                           \
        }                                                                                                            \
    }
COMBINE_FLOATS(f32, float)
COMBINE_FLOATS(f64, double)

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

/* What is at `y` becomes what it gives with what is at `src`. */
#define COMBINE_AT(suffix, type)                                                                                     \
    do {                                                                                                             \
        type old, new;                                                                                               \
        port_load_##suffix(dtype, y, 0, 1, &old);                                                                    \
        port_load_##suffix(dtype, src, 0, 1, &new);                                                                  \
        old = combine_##suffix(p->kind, old, new);                                                                   \
        port_store_##suffix(dtype, &old, 1, y, 0);                                                                   \
    } while (0)

static bool
scatter_place(const port_kernel_call *call, const char *index, const char *src, char *line)
{
    const port_scatter_params *p = call->params;
    const port_view *view = call->out[0];
    port_dtype dtype = view->dtype;
    char *y = line + index_at(call->in[0], index) * view->strides[p->dim] * (int64_t)port_dtype_size(dtype);
    if (p->kind == PORT_SCATTER_SET) {
        memcpy(y, src, port_dtype_size(dtype));
        return true;
    }
    switch (port_compute_of(dtype)) {
    case PORT_COMPUTE_F32: COMBINE_AT(f32, float); break;
    case PORT_COMPUTE_F64: COMBINE_AT(f64, double); break;
    case PORT_COMPUTE_I64: COMBINE_AT(i64, int64_t); break;
    }
    return true;
}

static void
scatter_run(const port_kernel_call *call)
{
    for_each_place(call, scatter_place);
}

#define ROW(T) {"scatter", T, "ref", 0, scatter_check, NULL, scatter_run}

const port_kernel_row port_scatter_rows[] = {
    ROW(PORT_F32), ROW(PORT_F64), ROW(PORT_BF16), ROW(PORT_F16), ROW(PORT_I64), ROW(PORT_I32),
    ROW(PORT_I16), ROW(PORT_I8),  ROW(PORT_U8),   ROW(PORT_BOOL), {.op = NULL},
};
