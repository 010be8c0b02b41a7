/* loops.c -- see loops.h. The order of iteration restates PyTorch's TensorIterator (BSD-3-Clause). */
#include "loops.h"
#include "dense.h"

/* ---------------------------------------------------------------- setting up */

/* > 0: dimension `a` must stand outside of `b`; < 0: inside is right; 0: cannot tell. */
static int
compare_dims(const port_iter *iter, int32_t a, int32_t b)
{
    for (int32_t k = 0; k < iter->num_operands; k++) {
        int64_t stride_a = iter->strides[a][k], stride_b = iter->strides[b][k];
        if (iter->is_reduction && k == 0 && (stride_a == 0) != (stride_b == 0)) {
            return stride_a == 0 ? -1 : 1; /* reduced dimensions go inside */
        }
        if (stride_a == 0 || stride_b == 0) {
            continue;
        }
        if (stride_a != stride_b) {
            return stride_a < stride_b ? -1 : 1;
        }
        if (iter->shape[a] > iter->shape[b]) {
            return 1;
        }
    }
    return 0;
}

static void
swap_dims(port_iter *iter, int32_t a, int32_t b)
{
    int64_t size = iter->shape[a];
    iter->shape[a] = iter->shape[b];
    iter->shape[b] = size;
    for (int32_t k = 0; k < iter->num_operands; k++) {
        int64_t stride = iter->strides[a][k];
        iter->strides[a][k] = iter->strides[b][k];
        iter->strides[b][k] = stride;
    }
}

/* Insertion sort by compare_dims, which is no total order: the algorithm is part of the answer. */
static void
sort_dims(port_iter *iter)
{
    for (int32_t i = 1; i < iter->ndim; i++) {
        int32_t moving = i;
        for (int32_t other = i - 1; other >= 0; other--) {
            int order = compare_dims(iter, other, moving);
            if (order > 0) {
                swap_dims(iter, other, moving);
                moving = other;
            } else if (order < 0) {
                break;
            }
        }
    }
}

static bool
can_merge(const port_iter *iter, int32_t inner, int32_t outer)
{
    if (iter->shape[inner] == 1 || iter->shape[outer] == 1) {
        return true;
    }
    for (int32_t k = 0; k < iter->num_operands; k++) {
        if (iter->shape[inner] * iter->strides[inner][k] != iter->strides[outer][k]) {
            return false;
        }
    }
    return true;
}

void
port_iter_merge_dims(port_iter *iter)
{
    int32_t last = 0;
    for (int32_t d = 1; d < iter->ndim; d++) {
        bool merge = can_merge(iter, last, d);
        if (!merge) {
            last++;
        }
        if (!merge || iter->shape[last] == 1) {
            memmove(iter->strides[last], iter->strides[d], sizeof(iter->strides[d]));
        }
        iter->shape[last] = merge ? iter->shape[last] * iter->shape[d] : iter->shape[d];
    }
    iter->ndim = iter->ndim == 0 ? 0 : last + 1;
}

/* Operand k of the iteration in torch's order of dimensions: the last one first. */
static void
set_operand(port_iter *iter, int32_t k, const port_view *view, const port_view *shape)
{
    iter->elem_bytes[k] = (int64_t)port_dtype_size(view->dtype);
    iter->data[k] = view->data;
    for (int32_t d = 0; d < iter->ndim; d++) {
        int32_t from = iter->ndim - 1 - d;
        bool broadcast = view->shape[from] == 1 && shape->shape[from] != 1;
        iter->shape[d] = shape->shape[from];
        iter->strides[d][k] = broadcast ? 0 : view->strides[from] * iter->elem_bytes[k];
    }
}

port_iter
port_iter_elementwise(int32_t num_operands, const port_view *const *operands)
{
    port_iter iter = {.num_operands = num_operands, .ndim = operands[0]->ndim};
    for (int32_t k = 0; k < num_operands; k++) {
        set_operand(&iter, k, operands[k], operands[0]);
    }
    sort_dims(&iter);
    port_iter_merge_dims(&iter);
    return iter;
}

port_iter
port_iter_reduction(const port_view *out, const port_view *x, uint32_t dims)
{
    port_iter iter = {.num_operands = 2, .ndim = x->ndim, .is_reduction = true};
    set_operand(&iter, 0, out, x);
    set_operand(&iter, 1, x, x);
    for (int32_t d = 0; d < iter.ndim; d++) {
        if ((dims >> (iter.ndim - 1 - d) & 1u) != 0) {
            iter.strides[d][0] = 0;
        }
    }
    sort_dims(&iter);
    port_iter_merge_dims(&iter);
    return iter;
}

int64_t
port_iter_elems(const port_iter *iter)
{
    int64_t elems = 1;
    for (int32_t d = 0; d < iter->ndim; d++) {
        elems *= iter->shape[d];
    }
    return elems;
}

/* ---------------------------------------------------------------- walking */

void
port_iter_range(const port_iter *iter, int64_t begin, int64_t end, port_loop_fn loop, void *context)
{
    int64_t strides[2 * PORT_ITER_MAX_OPERANDS] = {0};
    int64_t place[PORT_MAX_NDIM] = {0};
    for (int32_t k = 0; k < iter->num_operands; k++) {
        strides[k] = iter->ndim > 0 ? iter->strides[0][k] : iter->elem_bytes[k];
        strides[iter->num_operands + k] = iter->ndim > 1 ? iter->strides[1][k] : 0;
    }
    int64_t rest = begin;
    for (int32_t d = 0; d < iter->ndim; d++) {
        place[d] = iter->shape[d] > 0 ? rest % iter->shape[d] : 0;
        rest = iter->shape[d] > 0 ? rest / iter->shape[d] : 0;
    }
    while (begin < end) {
        char *data[PORT_ITER_MAX_OPERANDS];
        for (int32_t k = 0; k < iter->num_operands; k++) {
            data[k] = iter->data[k];
            for (int32_t d = 0; d < iter->ndim; d++) {
                data[k] += place[d] * iter->strides[d][k];
            }
        }
        int64_t size0 = iter->ndim > 0 ? iter->shape[0] - place[0] : 1;
        size0 = size0 < end - begin ? size0 : end - begin;
        int64_t size1 = 1;
        if (iter->ndim > 1 && size0 == iter->shape[0]) {
            size1 = iter->shape[1] - place[1];
            size1 = size1 < (end - begin) / size0 ? size1 : (end - begin) / size0;
        }
        loop(context, data, strides, size0, size1);
        begin += size0 * size1;
        int32_t d = size1 == 1 ? 0 : 1;
        for (int64_t step = size1 == 1 ? size0 : size1; d < iter->ndim && step > 0; d++) {
            place[d] += step;
            step = place[d] >= iter->shape[d] ? 1 : 0;
            place[d] -= step * iter->shape[d];
        }
    }
}

float
port_add_lanes(float *acc, int64_t count, bool halving)
{
    for (int64_t half = count / 2; halving && half > 0; half /= 2) {
        for (int64_t i = 0; i < half; i++) {
            acc[i] += acc[i + half];
        }
    }
    float total = acc[0];
    for (int64_t i = 1; !halving && i < count; i++) {
        total += acc[i];
    }
    return total;
}

typedef struct iter_ranges {
    const port_iter *iter;
    port_loop_fn loop;
    void *context;
    int64_t elems;
    port_chunks chunks;
} iter_ranges;

static void
run_range(void *opaque, int64_t i)
{
    const iter_ranges *ranges = opaque;
    int64_t begin = i * ranges->chunks.size, end = begin + ranges->chunks.size;
    port_iter_range(ranges->iter, begin, end < ranges->elems ? end : ranges->elems, ranges->loop, ranges->context);
}

void
port_iter_for_each_grain(const port_iter *iter, int64_t grain, int32_t num_threads, port_loop_fn loop, void *context)
{
    iter_ranges ranges = {iter, loop, context, port_iter_elems(iter), {0, 0}};
    ranges.chunks = port_chunks_of(ranges.elems, grain, num_threads);
    port_parallel(ranges.elems > 0 ? ranges.chunks.count : 0, num_threads, run_range, &ranges);
}

void
port_iter_for_each(const port_iter *iter, int32_t num_threads, port_loop_fn loop, void *context)
{
    port_iter_for_each_grain(iter, PORT_GRAIN_SIZE, num_threads, loop, context);
}

void
port_iter_for_each_serial(const port_iter *iter, int32_t num_threads, port_loop_fn loop, void *context)
{
    iter_ranges ranges = {iter, loop, context, port_iter_elems(iter), {0, 0}};
    ranges.chunks = port_chunks_of(ranges.elems, PORT_GRAIN_SIZE, num_threads);
    for (int64_t c = 0; c < ranges.chunks.count && ranges.elems > 0; c++) {
        run_range(&ranges, c);
    }
}

/* ---------------------------------------------------------------- conversion */

/* The cases of a switch over dtypes that load n elements, with what is to be done to a float, an integer and a BOOL. */
#define LOAD(type, statement)                                                                                        \
    for (int64_t i = 0; i < n; i++, from += stride_bytes) {                                                          \
        type value;                                                                                                  \
        memcpy(&value, from, sizeof(value));                                                                         \
        to[i] = statement;                                                                                           \
    }                                                                                                                \
    break
#define LOAD_CASES(of_float, of_int, of_bool)                                                                        \
    case PORT_F32: LOAD(float, of_float(value));                                                                     \
    case PORT_F64: LOAD(double, of_float(value));                                                                    \
    case PORT_BF16: LOAD(uint16_t, of_float(port_bf16_to_f32(value)));                                               \
    case PORT_F16: LOAD(uint16_t, of_float(port_f16_to_f32(value)));                                                 \
    case PORT_F8_E4M3: LOAD(uint8_t, of_float(port_f8e4m3_to_f32(value)));                                           \
    case PORT_F8_E5M2: LOAD(uint8_t, of_float(port_f8e5m2_to_f32(value)));                                           \
    case PORT_BOOL: LOAD(uint8_t, of_bool(value));                                                                   \
    case PORT_U8: LOAD(uint8_t, of_int(value));                                                                      \
    case PORT_I8: LOAD(int8_t, of_int(value));                                                                       \
    case PORT_I16: LOAD(int16_t, of_int(value));                                                                     \
    case PORT_I32: LOAD(int32_t, of_int(value));                                                                     \
    case PORT_I64: LOAD(int64_t, of_int(value));                                                                     \
    default: break
#define AS_FLOAT(value) (float)(value)
#define AS_DOUBLE(value) (double)(value)
#define AS_IT_IS(value) (value)
#define AS_TRUTH(value) ((value) != 0)
#define TRUNCATED(value) port_int_of_double((double)(value))

void
port_load_f32(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, float *to)
{
    bool dense = stride_bytes == (int64_t)port_dtype_size(dtype);
    if (dense && dtype == PORT_F32) {
        memcpy(to, from, (size_t)n * sizeof(*to));
        return;
    }
    if (dense && dtype == PORT_BF16) {
        port_dense_f32_of_bf16(n, from, (char *)to);
        return;
    }
    if (dense && dtype == PORT_F16) {
        port_dense_f32_of_f16(n, from, (char *)to);
        return;
    }
    if (dense && port_dense_convert(dtype, PORT_F32, n, from, (char *)to)) {
        return;
    }
    switch (dtype) {
        LOAD_CASES(AS_FLOAT, AS_FLOAT, AS_FLOAT);
    }
}

void
port_load_f64(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, double *to)
{
    if (stride_bytes == (int64_t)port_dtype_size(dtype) && port_dense_convert(dtype, PORT_F64, n, from, (char *)to)) {
        return;
    }
    switch (dtype) {
        LOAD_CASES(AS_DOUBLE, AS_DOUBLE, AS_DOUBLE);
    }
}

void
port_load_i64(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, int64_t *to)
{
    if (stride_bytes == (int64_t)port_dtype_size(dtype) && port_dense_convert(dtype, PORT_I64, n, from, (char *)to)) {
        return;
    }
    switch (dtype) {
        LOAD_CASES(TRUNCATED, AS_IT_IS, AS_TRUTH);
    }
}

/* The same for storing; integers go through port_store_i64 alone. */
#define STORE(type, expression)                                                                                      \
    for (int64_t i = 0; i < n; i++, to += stride_bytes) {                                                            \
        type value = (type)(expression);                                                                             \
        memcpy(to, &value, sizeof(value));                                                                           \
    }                                                                                                                \
    break
#define STORE_FLOAT_CASES()                                                                                          \
    case PORT_F32: STORE(float, from[i]);                                                                            \
    case PORT_F64: STORE(double, from[i]);                                                                           \
    case PORT_BF16: STORE(uint16_t, port_f32_to_bf16((float)from[i]));                                               \
    case PORT_F16: STORE(uint16_t, port_f32_to_f16((float)from[i]));                                                 \
    case PORT_F8_E4M3: STORE(uint8_t, port_f32_to_f8e4m3((float)from[i]));                                           \
    case PORT_F8_E5M2: STORE(uint8_t, port_f32_to_f8e5m2((float)from[i]));                                           \
    case PORT_BOOL: STORE(uint8_t, from[i] != 0)

void
port_store_f32(port_dtype dtype, const float *from, int64_t n, char *to, int64_t stride_bytes)
{
    if (stride_bytes == (int64_t)port_dtype_size(dtype)) {
        switch (dtype) {
        case PORT_F32:
            memmove(to, from, (size_t)n * sizeof(*from));
            return;
        case PORT_BF16:
            port_dense_bf16_of_f32(n, (const char *)from, to);
            return;
        case PORT_F16:
            port_dense_f16_of_f32(n, (const char *)from, to);
            return;
        case PORT_BOOL:
            port_dense_bool_of_f32(n, (const char *)from, to);
            return;
        default:
            break;
        }
    }
    switch (dtype) {
        STORE_FLOAT_CASES();
    default: break;
    }
}

void
port_store_f64(port_dtype dtype, const double *from, int64_t n, char *to, int64_t stride_bytes)
{
    if (stride_bytes == (int64_t)port_dtype_size(dtype) && port_dense_convert(PORT_F64, dtype, n, (const char *)from, to)) {
        return;
    }
    switch (dtype) {
        STORE_FLOAT_CASES();
    default: break;
    }
}

void
port_store_i64(port_dtype dtype, const int64_t *from, int64_t n, char *to, int64_t stride_bytes)
{
    if (stride_bytes == (int64_t)port_dtype_size(dtype) && port_dense_convert(PORT_I64, dtype, n, (const char *)from, to)) {
        return;
    }
    switch (dtype) {
        STORE_FLOAT_CASES();
    case PORT_U8: STORE(uint8_t, from[i]);
    case PORT_I8: STORE(int8_t, from[i]);
    case PORT_I16: STORE(int16_t, from[i]);
    case PORT_I32: STORE(int32_t, from[i]);
    case PORT_I64: STORE(int64_t, from[i]);
    default: break;
    }
}

/* ---------------------------------------------------------------- helpers of every family */

int64_t
port_profile_lanes(const port_profile *profile, port_dtype dtype)
{
    int64_t vector_bytes = profile->capability == PORT_CAP_AVX512 ? 64 : 32;
    return vector_bytes / (int64_t)port_dtype_size(dtype);
}

port_status
port_check_same_shape(const char *op, const port_kernel_call *call, int32_t num_in, port_error *err)
{
    if (call->num_in < num_in || call->num_out < 1 || call->out[0] == NULL) {
        return port_fail(err, PORT_E_VALUE, "%s: expected %d inputs and 1 output, got %d and %d", op, num_in, call->num_in,
                         call->num_out);
    }
    const port_view *y = call->out[0];
    for (int32_t k = 0; k < num_in; k++) {
        const port_view *x = call->in[k];
        if (x == NULL) {
            return port_fail(err, PORT_E_VALUE, "%s: input %d is None, expected a tensor", op, k);
        }
        bool same = x->ndim == y->ndim;
        for (int32_t d = 0; same && d < y->ndim; d++) {
            same = x->shape[d] == y->shape[d];
            if (!same) {
                return port_fail(err, PORT_E_SHAPE, "%s: input %d has size %lld at dimension %d, the output %lld", op, k,
                                 (long long)x->shape[d], d, (long long)y->shape[d]);
            }
        }
        if (!same) {
            return port_fail(err, PORT_E_SHAPE, "%s: input %d has %d dimensions, the output %d", op, k, x->ndim, y->ndim);
        }
    }
    return PORT_OK;
}
