/* ordered.c -- products and extremes of floats over any set of dimensions, in PyTorch's order (Reduce.h, BSD-3-Clause; restated).
 *     y = product, greatest or least of x over the reduced dimensions; every product is rounded to the dtype, of halves too
 *
 * Dense rows run in four vectors, which are joined by pairs, then lane by lane, then the rest one after the other. Dense columns
 * run four vectors of them at a time before they meet what y holds. Everything else goes one after the other.
 *
 * Of extremes only the sign of a zero depends on the order: of two zeros a vector keeps the second, a single element the first. */
#include "halves.h"
#include "sum.h"

enum { VECTORS = 4, LANES_MAX = 32, PRODUCT_BYTES = 8192 };

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

/* ---------------------------------------------------------------- products of dense elements */

/* acc[i] *= x[i] of n elements, a multiple of a vector's; and the product of n rows of VECTORS vectors of 32 bytes. */
#define PRODUCTS(suffix, type, attributes)                                                                           \
    attributes static void multiply_##suffix(int64_t n, type *acc, const type *x)                                    \
    {                                                                                                                \
        for (int64_t i = 0; i + 32 / (int64_t)sizeof(type) <= n; i += 32 / (int64_t)sizeof(type)) {                  \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < 32 / (int)sizeof(type); lane++) {                                              \
                acc[i + lane] *= x[i + lane];                                                                        \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    attributes static type multiply_rows_##suffix(int64_t n, const type *x)                                          \
    {                                                                                                                \
        typedef type vector __attribute__((vector_size(32), aligned(sizeof(type)), may_alias));                      \
        const vector *from = (const vector *)(const void *)x;                                                        \
        vector a = from[0], b = from[1], c = from[2], d = from[3];                                                   \
        for (int64_t i = 1; i < n; i++) {                                                                            \
            from += VECTORS;                                                                                         \
            a *= from[0], b *= from[1], c *= from[2], d *= from[3];                                                  \
        }                                                                                                            \
        a = (a * b) * (c * d);                                                                                       \
        type product = a[0];                                                                                         \
        for (int lane = 1; lane < 32 / (int)sizeof(type); lane++) {                                                  \
            product *= a[lane];                                                                                      \
        }                                                                                                            \
        return product;                                                                                              \
    }
#if PORT_HAVE_AVX2
#define PRODUCT_BUILDS(name, type)                                                                                   \
    PRODUCTS(name##_ref, type, )                                                                                     \
    PRODUCTS(name##_avx2, type, PORT_TARGET_AVX2)                                                                    \
    PRODUCTS(name##_avx512, type, PORT_TARGET_AVX512)
#else
#define PRODUCT_BUILDS(name, type) PRODUCTS(name##_ref, type, )
#endif
PRODUCT_BUILDS(f32, float)
PRODUCT_BUILDS(f64, double)
PORT_HALF_MAP2(product, u * v)

/* acc *= x, n elements of the dtype, a multiple of VECTORS * lanes. False: there is no such way. */
static bool
multiply(port_dtype dtype, int64_t n, char *acc, const char *x)
{
    int32_t level = port_cpu_level_found();
    switch (dtype) {
    case PORT_F32:
        PORT_PICK_MAP(multiply_f32, level)(n, (float *)(void *)acc, (const float *)(const void *)x);
        return true;
    case PORT_F64:
        PORT_PICK_MAP(multiply_f64, level)(n, (double *)(void *)acc, (const double *)(const void *)x);
        return true;
    default:
        return product_halves(dtype, level, n, acc, 1, x, 1, acc);
    }
}

/* *y = the product of n rows of VECTORS vectors of F32 or F64 that lie one behind the other; n at least 1. False: of another dtype. */
static bool
multiply_rows(port_dtype dtype, int64_t n, const char *x, double *y)
{
    int32_t level = port_cpu_level_found();
    if (dtype == PORT_F32) {
        *y = (double)PORT_PICK_MAP(multiply_rows_f32, level)(n, (const float *)(const void *)x);
    } else if (dtype == PORT_F64) {
        *y = PORT_PICK_MAP(multiply_rows_f64, level)(n, (const double *)(const void *)x);
    }
    return dtype == PORT_F32 || dtype == PORT_F64;
}

/* The same of halves, n at least 1; false where there is no such way. The four vectors meet by pairs, of which two are one call. */
static bool
multiply_half_rows(port_dtype dtype, int64_t n, const char *x, double *y)
{
    enum { HALF_LANES = 16 };
    uint16_t acc[VECTORS * HALF_LANES], second[VECTORS * HALF_LANES];
    memcpy(acc, x, sizeof acc);
    bool done = true;
    for (int64_t i = 1; i < n && done; i++) {
        done = multiply(dtype, VECTORS * HALF_LANES, (char *)acc, x + i * (int64_t)sizeof acc);
    }
    for (int pairs = VECTORS / 2; pairs > 0 && done; pairs /= 2) {
        for (int k = 0; k < pairs; k++) {
            memcpy(second + k * HALF_LANES, acc + (2 * k + 1) * HALF_LANES, HALF_LANES * sizeof *acc);
            memmove(acc + k * HALF_LANES, acc + 2 * k * HALF_LANES, HALF_LANES * sizeof *acc);
        }
        done = multiply(dtype, 2 * HALF_LANES, (char *)acc, (const char *)second);
    }
    float lanes[HALF_LANES];
    port_load_f32(dtype, (const char *)acc, sizeof *acc, HALF_LANES, lanes);
    for (int lane = 1; lane < HALF_LANES; lane++) {
        lanes[0] = port_rounded(dtype, lanes[0] * lanes[lane]);
    }
    *y = (double)lanes[0];
    return done;
}

/* ---------------------------------------------------------------- rows and columns */

/* The lanes of n runs of VECTORS vectors, joined; n at least 1. */
static double
join_lanes(const ordered_context *context, const char *in, int64_t n)
{
    double acc[VECTORS * LANES_MAX], product;
    int64_t lanes = context->lanes, width = VECTORS * lanes;
    if (context->kind == PRODUCT && (multiply_rows(context->dtype, n, in, &product) || multiply_half_rows(context->dtype, n, in, &product))) {
        return product;
    }
    join_runs(context, in, width * (int64_t)port_dtype_size(context->dtype), n, width, acc);
    for (int64_t k = 0; k < lanes; k++) {
        double first = joined(context, true, acc[k], acc[lanes + k]);
        acc[k] = joined(context, true, first, joined(context, true, acc[2 * lanes + k], acc[3 * lanes + k]));
        acc[0] = k > 0 ? joined(context, false, acc[0], acc[k]) : acc[0];
    }
    return acc[0];
}

static void
ordered_row(const ordered_context *context, char *out, const char *in, int64_t n)
{
    port_dtype dtype = context->dtype;
    double value;
    int64_t bytes = (int64_t)port_dtype_size(dtype), width = VECTORS * context->lanes, whole = n / width * width;
    if (whole > 0) {
        port_load_f64(dtype, out, 0, 1, &value);
        value = joined(context, false, value, join_lanes(context, in, n / width));
        port_store_f64(dtype, &value, 1, out, 0);
    }
    join_each(context, out, in + whole * bytes, bytes, n - whole);
}

/* Columns by whole vectors, row after row; n at least 1. Returns how many of them are done: none where there is no such way. */
static int64_t
product_columns(const ordered_context *context, char *out, const char *in, int64_t stride, int64_t n, int64_t columns)
{
    _Alignas(64) char acc[PRODUCT_BYTES];
    int64_t bytes = (int64_t)port_dtype_size(context->dtype), width = VECTORS * context->lanes, whole = columns / width * width, j = 0;
    for (int64_t step = PRODUCT_BYTES / bytes; context->kind == PRODUCT && j < whole; j += step) {
        int64_t m = whole - j < step ? whole - j : step;
        memcpy(acc, in + j * bytes, (size_t)(m * bytes));
        for (int64_t i = 1; i < n; i++) {
            if (!multiply(context->dtype, m, acc, in + i * stride + j * bytes)) {
                return 0;
            }
        }
        if (!multiply(context->dtype, m, acc, out + j * bytes)) {
            return 0;
        }
        memcpy(out + j * bytes, acc, (size_t)(m * bytes));
    }
    return j < whole ? j : whole;
}

static void
ordered_columns(const ordered_context *context, char *out, const char *in, int64_t stride, int64_t n, int64_t columns)
{
    port_dtype dtype = context->dtype;
    double acc[VECTORS * LANES_MAX], before[VECTORS * LANES_MAX];
    int64_t bytes = (int64_t)port_dtype_size(dtype), width = VECTORS * context->lanes;
    int64_t j = n > 0 ? product_columns(context, out, in, stride, n, columns) : 0;
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
