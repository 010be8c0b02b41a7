/* cast.c -- conversion between dtypes, fill, arange.
 *
 * cast: torch's conversion. Float to a narrower float rounds to nearest even (e4m3fn saturates); float64 to a half goes
 * through f32, as torch's does. Float to an integer truncates; anything to BOOL is "not 0". */
#include "dense.h"
#include "loops.h"

#include <math.h>

/* ---------------------------------------------------------------- cast */

/* What x86 makes of floats that no I32 holds, NaN among them: the least I32. The reference's loops go through it on the way to I16 and I8. */
static void
as_from_i32(int64_t n, int64_t *values)
{
    for (int64_t i = 0; i < n; i++) {
        values[i] = values[i] >= INT32_MIN && values[i] <= INT32_MAX ? values[i] : INT32_MIN;
    }
}

static void
cast_row(port_dtype from, const char *x, int64_t x_stride, port_dtype to, char *y, int64_t y_stride, int64_t n)
{
    bool to_int = port_compute_of(to) == PORT_COMPUTE_I64 && to != PORT_BOOL;
    bool by_i32 = port_compute_of(from) != PORT_COMPUTE_I64 && (to == PORT_I32 || to == PORT_I16 || to == PORT_I8);
    bool dense = x_stride == (int64_t)port_dtype_size(from) && y_stride == (int64_t)port_dtype_size(to);
    if (dense && port_dense_convert(from, to, n, x, y)) {
        return;
    }
    if (from == PORT_F32 && x_stride == 4 && !to_int) { /* as it lies, in one go */
        port_store_f32(to, (const float *)(const void *)x, n, y, y_stride);
        return;
    }
    if (to == PORT_F32 && y_stride == 4 && port_compute_of(from) == PORT_COMPUTE_F32) {
        port_load_f32(from, x, x_stride, n, (float *)(void *)y);
        return;
    }
    _Alignas(64) union {
        float f32[PORT_BLOCK];
        double f64[PORT_BLOCK];
        int64_t i64[PORT_BLOCK];
    } block, whole;
    bool by_f32 = port_compute_of(from) == PORT_COMPUTE_F32 || port_compute_of(to) == PORT_COMPUTE_F32;
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        const char *source = x + i * x_stride;
        char *target = y + i * y_stride;
        if (by_f32) {
            port_load_f32(from, source, x_stride, m, block.f32);
        }
        if (by_f32 && !to_int) {
            port_store_f32(to, block.f32, m, target, y_stride);
        } else if (to_int || port_compute_of(from) == PORT_COMPUTE_I64) {
            const char *floats = (const char *)block.f32;
            port_load_i64(by_f32 ? PORT_F32 : from, by_f32 ? floats : source, by_f32 ? (int64_t)sizeof(float) : x_stride, m, whole.i64);
            if (by_i32) {
                as_from_i32(m, whole.i64);
            }
            port_store_i64(to, whole.i64, m, target, y_stride);
        } else {
            port_load_f64(from, source, x_stride, m, block.f64);
            port_store_f64(to, block.f64, m, target, y_stride);
        }
    }
}

static void
copy_row(size_t bytes, const char *x, int64_t x_stride, char *y, int64_t y_stride, int64_t n)
{
    if (x_stride == (int64_t)bytes && y_stride == (int64_t)bytes) {
        memmove(y, x, (size_t)n * bytes);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(y + i * y_stride, x + i * x_stride, bytes);
    }
}

static void
cast_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const port_kernel_call *call = opaque;
    port_dtype from = call->in[0]->dtype, to = call->out[0]->dtype;
    for (int64_t r = 0; r < size1; r++) {
        char *y = data[0] + r * strides[2];
        const char *x = data[1] + r * strides[3];
        if (from == to) {
            copy_row(port_dtype_size(from), x, strides[1], y, strides[0], size0);
        } else {
            cast_row(from, x, strides[1], to, y, strides[0], size0);
        }
    }
}

static port_status
cast_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("cast", call, 1, err);
    port_dtype from = status == PORT_OK ? call->in[0]->dtype : PORT_F32, to = status == PORT_OK ? call->out[0]->dtype : PORT_F32;
    bool odd = from == PORT_C64 || from == PORT_U16 || from == PORT_U32 || from == PORT_U64 || to == PORT_C64 ||
               to == PORT_U16 || to == PORT_U32 || to == PORT_U64;
    if (status == PORT_OK && odd && from != to) {
        return port_fail(err, PORT_E_UNSUPPORTED, "cast: no conversion from %s to %s", port_dtype_name(from), port_dtype_name(to));
    }
    return status;
}

static void
cast_run(const port_kernel_call *call)
{
    const port_view *operands[2] = {call->out[0], call->in[0]};
    port_iter iter = port_iter_elementwise(2, operands);
    port_kernel_call copy = *call;
    port_iter_for_each(&iter, call->profile->num_threads, cast_loop, &copy);
}

/* ---------------------------------------------------------------- fill */

static void
fill_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const port_kernel_call *call = opaque;
    port_scalar value = ((const port_fill_params *)call->params)->value;
    port_dtype dtype = call->out[0]->dtype;
    size_t bytes = port_dtype_size(dtype);
    char element[8] = {0};
    if (value.kind != PORT_SCALAR_FLOAT && port_compute_of(dtype) == PORT_COMPUTE_I64) {
        port_store_i64(dtype, &value.i, 1, element, 0);
    } else if (port_compute_of(dtype) == PORT_COMPUTE_I64 && dtype != PORT_BOOL) {
        int64_t whole;
        port_load_i64(PORT_F64, (const char *)&value.d, 0, 1, &whole);
        port_store_i64(dtype, &whole, 1, element, 0);
    } else {
        port_store_f64(dtype, &value.d, 1, element, 0);
    }
    char line[64];
    for (size_t at = 0; at < sizeof line; at += bytes) {
        memcpy(line + at, element, bytes);
    }
    int64_t lines = strides[0] == (int64_t)bytes ? size0 * strides[0] / (int64_t)sizeof line : 0;
    for (int64_t r = 0; r < size1; r++) {
        char *y = data[0] + r * strides[1];
        for (int64_t i = 0; i < lines; i++) {
            memcpy(y + i * (int64_t)sizeof line, line, sizeof line);
        }
        for (int64_t i = lines * (int64_t)sizeof line / (int64_t)bytes; i < size0; i++) {
            memcpy(y + i * strides[0], element, bytes);
        }
    }
}

static port_status
fill_check(const port_kernel_call *call, port_error *err)
{
    if (call->num_out < 1 || call->out[0] == NULL || call->params == NULL) {
        return port_fail(err, PORT_E_VALUE, "fill: expected 1 output and a value");
    }
    return PORT_OK;
}

static void
fill_run(const port_kernel_call *call)
{
    const port_view *operands[1] = {call->out[0]};
    port_iter iter = port_iter_elementwise(1, operands);
    port_kernel_call copy = *call;
    port_iter_for_each(&iter, call->profile->num_threads, fill_loop, &copy);
}

/* ---------------------------------------------------------------- arange */

static port_status
arange_check(const port_kernel_call *call, port_error *err)
{
    if (call->num_out < 1 || call->out[0] == NULL || call->params == NULL) {
        return port_fail(err, PORT_E_VALUE, "arange: expected 1 output, start and step");
    }
    if (call->out[0]->ndim != 1) {
        return port_fail(err, PORT_E_SHAPE, "arange: the output has %d dimensions, expected 1", call->out[0]->ndim);
    }
    return PORT_OK;
}

/* Element i of n halves: in float, and in whole pairs of vectors of 16 counted from the vector's first element, which is rounded. */
static float
arange_half(port_dtype dtype, bool fused, float start, float step, int64_t i, int64_t n)
{
    int64_t lane = i < n - n % 32 ? i % 16 : 0;
    float base = fused ? fmaf(step, (float)(i - lane), start) : start + step * (float)(i - lane);
    if (i < n - n % 32) {
        char room[2];
        port_store_f32(dtype, &base, 1, room, 0);
        port_load_f32(dtype, room, 0, 1, &base);
    }
    return base + (float)lane * step;
}

/* start + step * i: in 64-bit integers or, for other floats than halves, in double. */
static void
arange_run(const port_kernel_call *call)
{
    const port_arange_params *params = call->params;
    const port_view *y = call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(y->dtype);
    for (int64_t i = 0; i < y->shape[0]; i++) {
        char *to = (char *)y->data + i * y->strides[0] * bytes;
        if (port_compute_of(y->dtype) == PORT_COMPUTE_I64) {
            int64_t value = (int64_t)((uint64_t)params->start.i + (uint64_t)params->step.i * (uint64_t)i);
            port_store_i64(y->dtype, &value, 1, to, 0);
        } else {
            bool half = y->dtype == PORT_BF16 || y->dtype == PORT_F16;
            double value = half ? (double)arange_half(y->dtype, call->profile->capability != PORT_CAP_DEFAULT, (float)params->start.d,
                                                      (float)params->step.d, i, y->shape[0])
                                : params->start.d + params->step.d * (double)i;
            port_store_f64(y->dtype, &value, 1, to, 0);
        }
    }
}

/* ---------------------------------------------------------------- rows */

#define EVERY_DTYPE(name)                                                                                            \
    PORT_FLOAT_ROWS(#name, "ref", 0, name##_check, name##_run), PORT_INT_ROWS(#name, "ref", 0, name##_check, name##_run), \
        PORT_BOOL_ROW(#name, "ref", 0, name##_check, name##_run),                                                    \
        PORT_ROW(#name, PORT_F8_E4M3, "ref", 0, name##_check, name##_run),                                           \
        PORT_ROW(#name, PORT_F8_E5M2, "ref", 0, name##_check, name##_run)

const port_kernel_row port_cast_rows[] = {
    EVERY_DTYPE(cast),
    EVERY_DTYPE(fill),
    PORT_FLOAT_ROWS("arange", "ref", 0, arange_check, arange_run),
    PORT_INT_ROWS("arange", "ref", 0, arange_check, arange_run),
    {.op = NULL},
};
