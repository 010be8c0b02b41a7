/* scatter.c -- writing elements where an index says.
 *     scatter   y[..., index[p], ...] = combine(y[..., index[p], ...], src[p]) for all places p of index, in row-major order
 * Source: at::native scatter_add, scatter_reduce, index_add, index_put (BSD-3-Clause; restated). */
#include "loops.h"
#include "places.h"
#include "vecmath.h"

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
    if (port_places_outside(index, 0, y->shape[p->dim])) {
        return port_fail(err, PORT_E_VALUE, "scatter: an index is outside of 0 to %lld", (long long)y->shape[p->dim] - 1);
    }
    return PORT_OK;
}

/* Places of a row, one after the other: what is there becomes `combined` of `old` and what the source has, `new`. */
#define EACH_PLACE(type, combined)                                                                                   \
    for (int64_t i = 0; i < row->count; i++) {                                                                       \
        char *to = row->line + i * row->line_step + port_place_at(wide, row->index + i * row->index_step) * stride;       \
        type old, new;                                                                                               \
        memcpy(&new, row->src + i * row->src_step, sizeof new);                                                      \
        memcpy(&old, to, sizeof old);                                                                                \
        old = (combined);                                                                                            \
        memcpy(to, &old, sizeof old);                                                                                \
    }                                                                                                                \
    break
#define SCATTER_ROW(suffix, type, sum, product, greater, less)                                                       \
    PORT_INLINE void scatter_any_##suffix(port_scatter_kind kind, const bool wide, int64_t stride, const place_row *from) \
    {                                                                                                                \
        const place_row at = *from, *row = &at; /* which no store can change */                                      \
        switch (kind) {                                                                                              \
        case PORT_SCATTER_ADD: EACH_PLACE(type, sum);                                                                \
        case PORT_SCATTER_MUL: EACH_PLACE(type, product);                                                            \
        case PORT_SCATTER_MAX: EACH_PLACE(type, greater);                                                            \
        case PORT_SCATTER_MIN: EACH_PLACE(type, less);                                                               \
        default: EACH_PLACE(type, new);                                                                              \
        }                                                                                                            \
    }                                                                                                                \
    static void scatter_row_##suffix(port_scatter_kind kind, bool wide, int64_t stride, const place_row *row)        \
    {                                                                                                                \
        if (wide) {                                                                                                  \
            scatter_any_##suffix(kind, true, stride, row);                                                           \
        } else {                                                                                                     \
            scatter_any_##suffix(kind, false, stride, row);                                                          \
        }                                                                                                            \
    }
#define SCATTER_FLOATS(suffix, type)                                                                                 \
    SCATTER_ROW(suffix, type, old + new, old *new, new != new || new > old ? new : old, new != new || new < old ? new : old)
#define SCATTER_WHOLES(suffix, type, of_bits)                                                                        \
    SCATTER_ROW(suffix, type, of_bits((uint64_t)old + (uint64_t)new), of_bits((uint64_t)old * (uint64_t)new), new > old ? new : old, \
                new < old ? new : old)
#define AS_TRUTH(bits) (uint8_t)((bits) != 0)
#define HALF_OF(widen, narrow, combined) narrow(combined(widen(old), widen(new)))
SCATTER_FLOATS(f32, float)
SCATTER_FLOATS(f64, double)
SCATTER_WHOLES(i64, int64_t, (int64_t))
SCATTER_WHOLES(i32, int32_t, (int32_t))
SCATTER_WHOLES(i16, int16_t, (int16_t))
SCATTER_WHOLES(i8, int8_t, (int8_t))
SCATTER_WHOLES(u8, uint8_t, (uint8_t))
SCATTER_WHOLES(truth, uint8_t, AS_TRUTH)

PORT_INLINE float
plus(float a, float b)
{
    return a + b;
}

PORT_INLINE float
times(float a, float b)
{
    return a * b;
}

PORT_INLINE float
greater_of(float old, float new)
{
    return new != new || new > old ? new : old;
}

PORT_INLINE float
less_of(float old, float new)
{
    return new != new || new < old ? new : old;
}

#define SCATTER_HALVES(suffix, widen, narrow)                                                                        \
    SCATTER_ROW(suffix, uint16_t, HALF_OF(widen, narrow, plus), HALF_OF(widen, narrow, times), HALF_OF(widen, narrow, greater_of), \
                HALF_OF(widen, narrow, less_of))
SCATTER_HALVES(bf16, port_bf16_to_f32, port_f32_to_bf16)
SCATTER_HALVES(f16, port_f16_to_f32, port_f32_to_f16)

PORT_DEFINE_MAP2(plus_map, plus)

/* A dense row that goes to one place of the index: set, or of F32 added, as a whole. False: it is none. */
static bool
scatter_dense(const port_kernel_call *call, const place_row *row, bool wide, int64_t stride)
{
    port_scatter_kind kind = ((const port_scatter_params *)call->params)->kind;
    int64_t bytes = (int64_t)port_dtype_size(call->out[0]->dtype);
    bool dense = row->index_step == 0 && row->count > 1 && row->line_step == bytes && row->src_step == bytes;
    if (!dense || (kind != PORT_SCATTER_SET && (kind != PORT_SCATTER_ADD || call->out[0]->dtype != PORT_F32))) {
        return false;
    }
    char *to = row->line + port_place_at(wide, row->index) * stride;
    if (kind == PORT_SCATTER_SET) {
        memcpy(to, row->src, (size_t)(row->count * bytes));
    } else {
        float *sums = (float *)(void *)to;
        PORT_PICK_MAP(plus_map, port_cpu_level_found())(row->count, sums, 1, (const float *)(const void *)row->src, 1, sums);
    }
    return true;
}

static void
scatter_row(const port_kernel_call *call, const place_row *row)
{
    const port_scatter_params *p = call->params;
    const port_view *y = call->out[0];
    int64_t stride = y->strides[p->dim] * (int64_t)port_dtype_size(y->dtype);
    bool wide = call->in[0]->dtype == PORT_I64;
    if (scatter_dense(call, row, wide, stride)) {
        return;
    }
    switch (y->dtype) {
    case PORT_F32: scatter_row_f32(p->kind, wide, stride, row); break;
    case PORT_F64: scatter_row_f64(p->kind, wide, stride, row); break;
    case PORT_BF16: scatter_row_bf16(p->kind, wide, stride, row); break;
    case PORT_F16: scatter_row_f16(p->kind, wide, stride, row); break;
    case PORT_I64: scatter_row_i64(p->kind, wide, stride, row); break;
    case PORT_I32: scatter_row_i32(p->kind, wide, stride, row); break;
    case PORT_I16: scatter_row_i16(p->kind, wide, stride, row); break;
    case PORT_I8: scatter_row_i8(p->kind, wide, stride, row); break;
    case PORT_BOOL: scatter_row_truth(p->kind, wide, stride, row); break;
    default: scatter_row_u8(p->kind, wide, stride, row); break;
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
