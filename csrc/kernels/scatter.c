/* scatter.c -- writing elements where an index says.
 *     scatter   y[..., index[p], ...] = combine(y[..., index[p], ...], src[p]) for all places p of index, in row-major order
 * Source: at::native scatter_add, scatter_reduce, index_add, index_put (BSD-3-Clause; restated). */
#include "loops.h"
#include "vecmath.h"

#include <math.h>

static int64_t
index_at(port_dtype dtype, const char *at)
{
    int64_t value;
    port_load_i64(dtype, at, 0, 1, &value);
    return value;
}

/* One row of places along the index's last dimension: addresses of the first index and source, of the line of y that it is on, and
 * how far apart the next ones are. */
typedef struct place_row {
    const char *index, *src;
    char *line;
    int64_t count, index_step, src_step, line_step;
} place_row;

static int64_t
num_rows(const port_view *index)
{
    int64_t count = index->shape[index->ndim - 1];
    return count > 0 ? port_view_elems(index) / count : 0;
}

static place_row
row_of(const port_kernel_call *call, int64_t r)
{
    const port_scatter_params *p = call->params;
    const port_view *index = call->in[0], *src = call->in[1], *y = call->out[0];
    int64_t index_bytes = (int64_t)port_dtype_size(index->dtype), bytes = (int64_t)port_dtype_size(y->dtype);
    int32_t last = index->ndim - 1;
    place_row row = {.index = index->data, .src = src->data, .line = y->data, .count = index->shape[last]};
    row.index_step = index->strides[last] * index_bytes;
    row.src_step = src->strides[last] * bytes;
    row.line_step = last == p->dim ? 0 : y->strides[last] * bytes;
    for (int32_t d = last - 1; d >= 0; d--) {
        int64_t place = r % index->shape[d];
        row.index += place * index->strides[d] * index_bytes;
        row.src += place * src->strides[d] * bytes;
        row.line += d == p->dim ? 0 : place * y->strides[d] * bytes;
        r /= index->shape[d];
    }
    return row;
}

static bool
in_range(const port_kernel_call *call)
{
    const port_view *index = call->in[0];
    int64_t size = call->out[0]->shape[((const port_scatter_params *)call->params)->dim], rows = num_rows(index);
    for (int64_t r = 0; r < rows; r++) {
        place_row row = row_of(call, r);
        int64_t different = row.index_step == 0 && row.count > 1 ? 1 : row.count;
        for (int64_t i = 0; i < different; i++) {
            int64_t at = index_at(index->dtype, row.index + i * row.index_step);
            if (at < 0 || at >= size) {
                return false;
            }
        }
    }
    return true;
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
    return in_range(call)
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

PORT_INLINE float
plus(float a, float b)
{
    return a + b;
}

PORT_DEFINE_MAP2(plus_map, plus)

/* A dense row of F32 that goes to one place of the index: added or set as a whole. False: it is none. */
static bool
scatter_dense(const port_kernel_call *call, const place_row *row)
{
    const port_scatter_params *p = call->params;
    const port_view *y = call->out[0];
    bool dense = row->index_step == 0 && row->count > 1 && row->line_step == (int64_t)sizeof(float) && row->src_step == row->line_step;
    if (!dense || y->dtype != PORT_F32 || (p->kind != PORT_SCATTER_ADD && p->kind != PORT_SCATTER_SET)) {
        return false;
    }
    float *to = (float *)(void *)row->line + index_at(call->in[0]->dtype, row->index) * y->strides[p->dim];
    if (p->kind == PORT_SCATTER_SET) {
        memcpy(to, row->src, (size_t)row->count * sizeof *to);
    } else {
        PORT_PICK_MAP(plus_map, port_cpu_level_found())(row->count, to, 1, (const float *)(const void *)row->src, 1, to);
    }
    return true;
}

static void
scatter_row(const port_kernel_call *call, const place_row *row)
{
    if (scatter_dense(call, row)) {
        return;
    }
    const port_scatter_params *p = call->params;
    const port_view *view = call->out[0];
    port_dtype dtype = view->dtype;
    int64_t stride = view->strides[p->dim] * (int64_t)port_dtype_size(dtype);
    for (int64_t i = 0; i < row->count; i++) {
        const char *src = row->src + i * row->src_step;
        char *y = row->line + i * row->line_step + index_at(call->in[0]->dtype, row->index + i * row->index_step) * stride;
        if (p->kind == PORT_SCATTER_SET) {
            memcpy(y, src, port_dtype_size(dtype));
            continue;
        }
        switch (port_compute_of(dtype)) {
        case PORT_COMPUTE_F32: COMBINE_AT(f32, float); break;
        case PORT_COMPUTE_F64: COMBINE_AT(f64, double); break;
        case PORT_COMPUTE_I64: COMBINE_AT(i64, int64_t); break;
        }
    }
}

static void
scatter_rows(const void *opaque, int64_t begin, int64_t end)
{
    for (int64_t r = begin; r < end; r++) {
        place_row row = row_of(opaque, r);
        scatter_row(opaque, &row);
    }
}

enum { SLOW_ELEMS = 4 }; /* copied elements that take as long as one that is written where an index says */

/* Rows along the dimension of the index write to lines of their own; others may meet, and go in order. */
static void
scatter_run(const port_kernel_call *call)
{
    const port_view *index = call->in[0];
    int32_t last = index->ndim - 1;
    bool apart = last == ((const port_scatter_params *)call->params)->dim;
    port_deal(num_rows(index), SLOW_ELEMS * index->shape[last], apart ? call->profile->num_threads : 1, scatter_rows, call);
}

#define ROW(T) {"scatter", T, "ref", 0, scatter_check, NULL, scatter_run}

const port_kernel_row port_scatter_rows[] = {
    ROW(PORT_F32), ROW(PORT_F64), ROW(PORT_BF16), ROW(PORT_F16), ROW(PORT_I64), ROW(PORT_I32),
    ROW(PORT_I16), ROW(PORT_I8),  ROW(PORT_U8),   ROW(PORT_BOOL), {.op = NULL},
};
