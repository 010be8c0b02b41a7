/* ordered.c -- products and extremes of floats over any set of dimensions, in PyTorch's order (Reduce.h, BSD-3-Clause; restated).
 *     y = product, greatest or least of x over the reduced dimensions; every product is rounded to the dtype, of halves too
 *
 * Dense rows run in four vectors, which are joined by pairs, then lane by lane, then the rest one after the other. Dense columns
 * run four vectors of them at a time before they meet what y holds. Everything else goes one after the other.
 *
 * Of extremes only the sign of a zero depends on the order: of two zeros a vector keeps the second, a single element the first. */
#include "sum.h"
#include "vecmath.h"

enum { VECTORS = 4, LANES_MAX = 32 };

typedef enum ordered_kind { PRODUCT, GREATEST, LEAST } ordered_kind;

typedef struct ordered_context {
    port_dtype dtype;
    ordered_kind kind;
    int64_t lanes;
} ordered_context;

PORT_INLINE double
joined(const ordered_context *context, bool in_vector, double u, double v)
{
    if (context->kind == PRODUCT) {
        return context->dtype == PORT_F64 ? u * v : (double)port_rounded(context->dtype, (float)u * (float)v);
    }
    if (u != u || v != v) {
        return (double)NAN;
    }
    bool second = context->kind == GREATEST ? v > u : v < u;
    return second || (in_vector && u == v) ? v : u;
}

/* *out = *out joined with n elements, one after the other. */
static void
join_each(const ordered_context *context, char *out, const char *in, int64_t stride, int64_t n)
{
    port_dtype dtype = context->dtype;
    double value, block[PORT_BLOCK];
    port_load_f64(dtype, out, 0, 1, &value);
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        port_load_f64(dtype, in + i * stride, stride, m, block);
        for (int64_t k = 0; k < m; k++) {
            value = joined(context, false, value, block[k]);
        }
    }
    port_store_f64(dtype, &value, 1, out, 0);
}

/* acc = n runs of `width` dense elements, `stride` bytes apart, joined place by place; n at least 1. */
static void
join_runs(const ordered_context *context, const char *in, int64_t stride, int64_t n, int64_t width, double *acc)
{
    port_dtype dtype = context->dtype;
    double run[VECTORS * LANES_MAX];
    int64_t bytes = (int64_t)port_dtype_size(dtype);
    port_load_f64(dtype, in, bytes, width, acc);
    for (int64_t i = 1; i < n; i++) {
        port_load_f64(dtype, in + i * stride, bytes, width, run);
        for (int64_t k = 0; k < width; k++) {
            acc[k] = joined(context, true, acc[k], run[k]);
        }
    }
}

static void
ordered_row(const ordered_context *context, char *out, const char *in, int64_t n)
{
    port_dtype dtype = context->dtype;
    double acc[VECTORS * LANES_MAX], value;
    int64_t bytes = (int64_t)port_dtype_size(dtype), lanes = context->lanes, width = VECTORS * lanes, whole = n / width * width;
    if (whole > 0) {
        join_runs(context, in, width * bytes, n / width, width, acc);
        for (int64_t k = 0; k < lanes; k++) {
            double first = joined(context, true, acc[k], acc[lanes + k]);
            acc[k] = joined(context, true, first, joined(context, true, acc[2 * lanes + k], acc[3 * lanes + k]));
            acc[0] = k > 0 ? joined(context, false, acc[0], acc[k]) : acc[0];
        }
        port_load_f64(dtype, out, 0, 1, &value);
        value = joined(context, false, value, acc[0]);
        port_store_f64(dtype, &value, 1, out, 0);
    }
    join_each(context, out, in + whole * bytes, bytes, n - whole);
}

static void
ordered_columns(const ordered_context *context, char *out, const char *in, int64_t stride, int64_t n, int64_t columns)
{
    port_dtype dtype = context->dtype;
    double acc[VECTORS * LANES_MAX], before[VECTORS * LANES_MAX];
    int64_t bytes = (int64_t)port_dtype_size(dtype), width = VECTORS * context->lanes, j = 0;
    for (; n > 0 && j + width <= columns; j += width) {
        join_runs(context, in + j * bytes, stride, n, width, acc);
        port_load_f64(dtype, out + j * bytes, bytes, width, before);
        for (int64_t k = 0; k < width; k++) {
            acc[k] = joined(context, true, acc[k], before[k]);
        }
        port_store_f64(dtype, acc, width, out + j * bytes, bytes);
    }
    for (; j < columns; j++) {
        join_each(context, out + j * bytes, in + j * bytes, stride, n);
    }
}

static void
ordered_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const ordered_context *context = opaque;
    int64_t bytes = (int64_t)port_dtype_size(context->dtype);
    if (strides[0] == 0 && strides[2] == bytes && strides[3] == bytes && strides[1] != bytes) {
        ordered_columns(context, data[0], data[1], strides[1], size0, size1);
        return;
    }
    for (int64_t r = 0; r < size1; r++) {
        char *out = data[0] + r * strides[2];
        const char *in = data[1] + r * strides[3];
        if (strides[0] == 0 && strides[1] == bytes) {
            ordered_row(context, out, in, size0);
        } else if (strides[0] == 0) {
            join_each(context, out, in, strides[1], size0);
        } else {
            for (int64_t i = 0; i < size0; i++) {
                join_each(context, out + i * strides[0], in + i * strides[1], 0, 1);
            }
        }
    }
}

typedef struct fill_context {
    port_dtype dtype;
    double value;
} fill_context;

static void
fill_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const fill_context *fill = opaque;
    for (int64_t r = 0; r < size1; r++) {
        for (int64_t i = 0; i < size0; i++) {
            port_store_f64(fill->dtype, &fill->value, 1, data[0] + r * strides[1] + i * strides[0], 0);
        }
    }
}

static void
ordered_run(const port_kernel_call *call, ordered_kind kind, double neutral, int64_t vector_bytes)
{
    const port_view *x = call->in[0], *y = call->out[0];
    port_iter iter = port_iter_elementwise(1, &y);
    fill_context fill = {x->dtype, neutral};
    ordered_context context = {x->dtype, kind, vector_bytes / (int64_t)port_dtype_size(x->dtype)};
    port_iter_for_each(&iter, call->profile->num_threads, fill_loop, &fill);
    port_reduce_in_order(y, x, ((const port_reduce_params *)call->params)->dims, call->profile->num_threads, ordered_loop, &context, &context);
}

void
port_prod_run(const port_kernel_call *call)
{
    ordered_run(call, PRODUCT, 1.0, 32); /* this loop is not built for avx512 */
}

/* ---------------------------------------------------------------- zeros among extremes */

typedef struct zero_search {
    port_dtype dtype;
    bool negative; /* only those with the sign set count */
    bool found;
} zero_search;

#define FIND_ZEROS(type, sign)                                                                                       \
    for (int64_t i = 0; i < size0; i++) {                                                                            \
        type bits;                                                                                                   \
        memcpy(&bits, x + i * strides[0], sizeof bits);                                                              \
        found |= search->negative ? bits == (sign) : (type)(bits << 1) == 0;                                         \
    }                                                                                                                \
    break

static void
zero_search_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    zero_search *search = opaque;
    bool found = false;
    for (int64_t r = 0; r < size1 && !found; r++) {
        const char *x = data[0] + r * strides[1];
        switch (port_dtype_size(search->dtype)) {
        case 2: FIND_ZEROS(uint16_t, 0x8000u);
        case 4: FIND_ZEROS(uint32_t, 0x80000000u);
        default: FIND_ZEROS(uint64_t, UINT64_C(1) << 63);
        }
    }
    if (found) {
        __atomic_store_n(&search->found, true, __ATOMIC_RELAXED); /* other ranges run beside this one */
    }
}

static bool
has_zero(const port_view *x, bool negative, int32_t num_threads)
{
    zero_search search = {x->dtype, negative, false};
    port_iter iter = port_iter_elementwise(1, &x);
    port_iter_for_each(&iter, num_threads, zero_search_loop, &search);
    return search.found;
}

void
port_sign_zero_extremes(const port_kernel_call *call, bool largest)
{
    int32_t num_threads = call->profile->num_threads;
    if (has_zero(call->out[0], false, num_threads) && has_zero(call->in[0], true, num_threads)) {
        double worst = largest ? -(double)INFINITY : (double)INFINITY;
        ordered_run(call, largest ? GREATEST : LEAST, worst, 32);
    }
}
