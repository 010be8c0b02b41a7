/* prod.c -- products over any set of dimensions, in the order in which PyTorch multiplies (Reduce.h, BSD-3-Clause; restated).
 *     y = product of x over the reduced dimensions; every product is rounded to the dtype, of halves too
 *
 * Dense rows run in four vectors, which are multiplied by pairs, then lane by lane, then the rest one after the other. Dense columns
 * run four vectors of them at a time before they meet what y holds. Everything else goes one after the other. */
#include "sum.h"

enum { VECTORS = 4, LANES_MAX = 16 };

typedef struct prod_context {
    port_dtype dtype;
    int64_t lanes;
} prod_context;

static double
times(port_dtype dtype, double u, double v)
{
    return dtype == PORT_F64 ? u * v : (double)port_rounded(dtype, (float)u * (float)v);
}

/* *out = *out times n elements, one after the other. */
static void
times_each(port_dtype dtype, char *out, const char *in, int64_t stride, int64_t n)
{
    double value, block[PORT_BLOCK];
    port_load_f64(dtype, out, 0, 1, &value);
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        port_load_f64(dtype, in + i * stride, stride, m, block);
        for (int64_t k = 0; k < m; k++) {
            value = times(dtype, value, block[k]);
        }
    }
    port_store_f64(dtype, &value, 1, out, 0);
}

/* acc = the product of n runs of `width` dense elements, `stride` bytes apart; n at least 1. */
static void
times_runs(port_dtype dtype, const char *in, int64_t stride, int64_t n, int64_t width, double *acc)
{
    double run[VECTORS * LANES_MAX];
    int64_t bytes = (int64_t)port_dtype_size(dtype);
    port_load_f64(dtype, in, bytes, width, acc);
    for (int64_t i = 1; i < n; i++) {
        port_load_f64(dtype, in + i * stride, bytes, width, run);
        for (int64_t k = 0; k < width; k++) {
            acc[k] = times(dtype, acc[k], run[k]);
        }
    }
}

static void
prod_row(const prod_context *context, char *out, const char *in, int64_t n)
{
    port_dtype dtype = context->dtype;
    double acc[VECTORS * LANES_MAX], value;
    int64_t bytes = (int64_t)port_dtype_size(dtype), lanes = context->lanes, width = VECTORS * lanes, whole = n / width * width;
    if (whole > 0) {
        times_runs(dtype, in, width * bytes, n / width, width, acc);
        for (int64_t k = 0; k < lanes; k++) {
            acc[k] = times(dtype, times(dtype, acc[k], acc[lanes + k]), times(dtype, acc[2 * lanes + k], acc[3 * lanes + k]));
            acc[0] = k > 0 ? times(dtype, acc[0], acc[k]) : acc[0];
        }
        port_load_f64(dtype, out, 0, 1, &value);
        value = times(dtype, value, acc[0]);
        port_store_f64(dtype, &value, 1, out, 0);
    }
    times_each(dtype, out, in + whole * bytes, bytes, n - whole);
}

static void
prod_columns(const prod_context *context, char *out, const char *in, int64_t stride, int64_t n, int64_t columns)
{
    port_dtype dtype = context->dtype;
    double acc[VECTORS * LANES_MAX], before[VECTORS * LANES_MAX];
    int64_t bytes = (int64_t)port_dtype_size(dtype), width = VECTORS * context->lanes, j = 0;
    for (; n > 0 && j + width <= columns; j += width) {
        times_runs(dtype, in + j * bytes, stride, n, width, acc);
        port_load_f64(dtype, out + j * bytes, bytes, width, before);
        for (int64_t k = 0; k < width; k++) {
            acc[k] = times(dtype, acc[k], before[k]);
        }
        port_store_f64(dtype, acc, width, out + j * bytes, bytes);
    }
    for (; j < columns; j++) {
        times_each(dtype, out + j * bytes, in + j * bytes, stride, n);
    }
}

static void
prod_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const prod_context *context = opaque;
    int64_t bytes = (int64_t)port_dtype_size(context->dtype);
    if (strides[0] == 0 && strides[2] == bytes && strides[3] == bytes && strides[1] != bytes) {
        prod_columns(context, data[0], data[1], strides[1], size0, size1);
        return;
    }
    for (int64_t r = 0; r < size1; r++) {
        char *out = data[0] + r * strides[2];
        const char *in = data[1] + r * strides[3];
        if (strides[0] == 0 && strides[1] == bytes) {
            prod_row(context, out, in, size0);
        } else if (strides[0] == 0) {
            times_each(context->dtype, out, in, strides[1], size0);
        } else {
            for (int64_t i = 0; i < size0; i++) {
                times_each(context->dtype, out + i * strides[0], in + i * strides[1], 0, 1);
            }
        }
    }
}

static void
ones_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    double one = 1.0;
    for (int64_t r = 0; r < size1; r++) {
        for (int64_t i = 0; i < size0; i++) {
            port_store_f64(*(const port_dtype *)opaque, &one, 1, data[0] + r * strides[1] + i * strides[0], 0);
        }
    }
}

void
port_prod_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0], *y = call->out[0];
    port_dtype dtype = x->dtype;
    port_iter iter = port_iter_elementwise(1, &y);
    prod_context context = {dtype, 32 / (int64_t)port_dtype_size(dtype)}; /* this loop is not built for avx512 */
    port_iter_for_each(&iter, call->profile->num_threads, ones_loop, &dtype);
    port_reduce_in_order(y, x, ((const port_reduce_params *)call->params)->dims, call->profile->num_threads, prod_loop, &context, &context);
}
