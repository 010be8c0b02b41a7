/* sum.c -- sum and mean in the order in which PyTorch adds (SumKernel and parallel_reduce, BSD-3-Clause; restated).
 *     sum: y = sum of x over the reduced dimensions     mean: y = sum / count
 * f32, bf16 and f16 add in f32, f64 in f64, BOOL and integers in 64-bit integers that wrap.
 *
 * Rounding depends on the shape, the strides and, from 32,768 elements on, the threads: one output is cut into one part per thread,
 * several outputs are dealt to the threads. */
#include "sum.h"
#include "vecmath.h"
#include "wholes.h"

#include <math.h>

#define CASCADE_REAL float
#define CASCADE(name) name##_float
#define CASCADE_LOAD port_load_f32
#define CASCADE_STORE port_store_f32
#define CASCADE_TARGET
#include "cascade.h"

#define CASCADE_REAL double
#define CASCADE(name) name##_double
#define CASCADE_LOAD port_load_f64
#define CASCADE_STORE port_store_f64
#define CASCADE_TARGET
#include "cascade.h"

#if PORT_HAVE_AVX2
#define CASCADE_REAL float
#define CASCADE(name) name##_float_avx2
#define CASCADE_LOAD port_load_f32
#define CASCADE_STORE port_store_f32
#define CASCADE_TARGET PORT_TARGET_AVX2
#include "cascade.h"

#define CASCADE_REAL double
#define CASCADE(name) name##_double_avx2
#define CASCADE_LOAD port_load_f64
#define CASCADE_STORE port_store_f64
#define CASCADE_TARGET PORT_TARGET_AVX2
#include "cascade.h"

#define PICK(name) (port_cpu_level_found() > 0 ? name##_avx2 : name)
#else
#define PICK(name) name
#endif

typedef struct sum_context {
    port_dtype in, out;
    bool pairs;
} sum_context;

#define CASCADE_SUM(name, type, suffix, dtype)                                                                       \
    type name(const type *x, int64_t n)                                                                              \
    {                                                                                                                \
        if (n < 32 / (int64_t)sizeof(type)) {                                                                        \
            source_##suffix scalar = {dtype, 1, false, sizeof(type)};                                                \
            vector_##suffix total;                                                                                   \
            row_sum_##suffix(&scalar, (const char *)x, sizeof(type), n, &total);                                     \
            return total[0];                                                                                         \
        }                                                                                                            \
        return PICK(inner_sum_##suffix)(dtype, (const char *)x, n, false);                                           \
    }
CASCADE_SUM(port_cascade_sum_f32, float, float, PORT_F32)
CASCADE_SUM(port_cascade_sum_f64, double, double, PORT_F64)

/* *to += value, both in 64 bits that wrap. */
static void
add_to(char *to, int64_t value)
{
    int64_t before;
    memcpy(&before, to, sizeof(before));
    before = (int64_t)((uint64_t)before + (uint64_t)value);
    memcpy(to, &before, sizeof(before));
}

/* Columns of integers side by side, whose sums lie wherever. */
static void
sum_columns_i64(port_dtype dtype, char *out, int64_t out_stride, const char *in, int64_t row_stride, int64_t size0, int64_t size1)
{
    int64_t totals[PORT_BLOCK], bytes = (int64_t)port_dtype_size(dtype);
    for (int64_t j = 0; j < size1; j += PORT_BLOCK) {
        int64_t m = size1 - j < PORT_BLOCK ? size1 - j : PORT_BLOCK;
        memset(totals, 0, sizeof(totals));
        for (int64_t i = 0; i < size0; i++) {
            port_whole_totals(dtype, false, m, in + i * row_stride + j * bytes, totals);
        }
        for (int64_t k = 0; k < m; k++) {
            add_to(out + (j + k) * out_stride, totals[k]);
        }
    }
}

static void
sum_i64(port_dtype dtype, char *out, int64_t out_stride, const char *in, const int64_t *in_strides, int64_t size0, int64_t size1)
{
    int64_t bytes = (int64_t)port_dtype_size(dtype);
    if (in_strides[0] != bytes && in_strides[1] == bytes && size1 > 1) {
        sum_columns_i64(dtype, out, out_stride, in, in_strides[0], size0, size1);
        return;
    }
    for (int64_t j = 0; j < size1; j++, in += in_strides[1]) {
        uint64_t total = in_strides[0] == bytes ? (uint64_t)port_whole_total(dtype, false, size0, in) : 0;
        for (int64_t i = 0; i < size0 && in_strides[0] != bytes; i++) {
            int64_t value;
            port_load_i64(dtype, in + i * in_strides[0], 0, 1, &value);
            total += (uint64_t)value;
        }
        add_to(out + j * out_stride, (int64_t)total);
    }
}

static void
sum_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const sum_context *context = opaque;
    int64_t in_strides[2] = {strides[1], strides[3]}, out_strides[2] = {strides[0], strides[2]};
    if (out_strides[0] != 0) { /* the outer dimension is the reduced one, or none is: then rows of one element each */
        int64_t swap = in_strides[0];
        in_strides[0] = in_strides[1], in_strides[1] = swap;
        swap = out_strides[0];
        out_strides[0] = out_strides[1], out_strides[1] = swap;
        swap = size0;
        size0 = size1, size1 = swap;
    }
    int64_t rows = out_strides[0] == 0 ? 1 : size0;
    size0 = out_strides[0] == 0 ? size0 : 1;
    for (int64_t r = 0; r < rows; r++) {
        char *out = data[0] + r * out_strides[0];
        const char *in = data[1] + r * in_strides[0];
        switch (port_compute_of(context->in)) {
        case PORT_COMPUTE_F32:
            PICK(reduce_piece_float)(context->in, context->pairs, context->out, out, out_strides[1], in, in_strides, size0, size1);
            break;
        case PORT_COMPUTE_F64:
            PICK(reduce_piece_double)(context->in, false, context->out, out, out_strides[1], in, in_strides, size0, size1);
            break;
        default:
            sum_i64(context->in, out, out_strides[1], in, in_strides, size0, size1);
            break;
        }
    }
}

/* ---------------------------------------------------------------- threads of the reference */

/* The parts of one call, each of which writes outputs of its own. */
typedef struct sum_parts {
    const port_iter *iter;
    port_loop_fn loop;
    void *context;
    port_chunks chunks;
    int64_t n;       /* what is cut: elements, or places along `dim` */
    int32_t dim;     /* dealt out */
    char *partials;  /* of one output */
} sum_parts;

static void
sum_partial(void *opaque, int64_t c)
{
    const sum_parts *parts = opaque;
    port_iter part = *parts->iter;
    int64_t end = (c + 1) * parts->chunks.size < parts->n ? (c + 1) * parts->chunks.size : parts->n;
    part.data[0] = parts->partials + c * parts->iter->elem_bytes[0];
    port_iter_range(&part, c * parts->chunks.size, end, parts->loop, parts->context);
}

/* One output: each thread reduces its range, then the partial results are reduced by the same rules. */
static void
reduce_two_pass(sum_parts *parts, int32_t num_threads, void *again)
{
    double partials[PORT_SUM_MAX_THREADS];
    int64_t bytes = parts->iter->elem_bytes[0], strides[4] = {0, bytes, 0, 0};
    char *data[2] = {parts->iter->data[0], (char *)partials};
    for (int64_t k = 0; k < num_threads; k++) {
        memcpy((char *)partials + k * bytes, data[0], (size_t)bytes); /* the neutral element */
    }
    parts->partials = (char *)partials;
    parts->chunks = port_chunks_of(parts->n, PORT_GRAIN_SIZE, num_threads);
    port_parallel(parts->chunks.count, num_threads, sum_partial, parts);
    parts->loop(again, data, strides, num_threads, 1);
}

static void
sum_places(void *opaque, int64_t c)
{
    const sum_parts *parts = opaque;
    const port_iter *iter = parts->iter;
    int64_t begin = c * parts->chunks.size, end = begin + parts->chunks.size < parts->n ? begin + parts->chunks.size : parts->n;
    int64_t multiple = 128 / iter->elem_bytes[1];
    if (iter->strides[parts->dim][1] == iter->elem_bytes[1]) {
        begin -= begin % multiple;
        end -= end == parts->n ? 0 : end % multiple;
    }
    if (begin == end) {
        return;
    }
    port_iter part = *iter;
    for (int32_t k = 0; k < 2; k++) {
        part.data[k] += begin * part.strides[parts->dim][k];
    }
    part.shape[parts->dim] = end - begin;
    if (end - begin == 1) {
        port_iter_merge_dims(&part);
    }
    port_iter_range(&part, 0, port_iter_elems(&part), parts->loop, parts->context);
}

/* Several outputs: the outermost kept dimension that feeds all threads, else the largest kept one, is dealt out. */
static void
reduce_by_dim(sum_parts *parts, int32_t num_threads)
{
    const port_iter *iter = parts->iter;
    int32_t best = iter->ndim - 1;
    for (int32_t d = best; d >= 0 && !(iter->strides[d][0] == 0 && iter->shape[d] > 1); d--) {
        if (iter->shape[d] >= num_threads) {
            best = d;
            break;
        }
        best = iter->shape[d] > iter->shape[best] ? d : best;
    }
    parts->n = iter->shape[best];
    parts->dim = best;
    parts->chunks = port_chunks_of(parts->n, 1, num_threads);
    port_parallel(parts->chunks.count, num_threads, sum_places, parts);
}

void
port_reduce_in_order(const port_view *out, const port_view *x, uint32_t dims, int32_t num_threads, port_loop_fn loop, void *context, void *again)
{
    port_iter iter = port_iter_reduction(out, x, dims);
    sum_parts parts = {.iter = &iter, .loop = loop, .context = context, .n = port_iter_elems(&iter)};
    num_threads = num_threads < PORT_SUM_MAX_THREADS ? num_threads : PORT_SUM_MAX_THREADS;
    if (parts.n == 0) {
        return;
    }
    if (parts.n < PORT_GRAIN_SIZE || num_threads <= 1) {
        port_iter_range(&iter, 0, parts.n, loop, context);
    } else if (port_view_elems(out) == 1) {
        reduce_two_pass(&parts, num_threads, again);
    } else {
        reduce_by_dim(&parts, num_threads);
    }
}

static void
sum_into(const port_view *out, const port_view *x, uint32_t dims, int32_t num_threads, bool pairs)
{
    sum_context context = {x->dtype, out->dtype, pairs}, again = {out->dtype, out->dtype, pairs};
    port_reduce_in_order(out, x, dims, num_threads, sum_loop, &context, &again);
}

/* ---------------------------------------------------------------- sum and mean */

static void
zero_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    size_t bytes = *(const size_t *)opaque;
    for (int64_t r = 0; r < size1; r++) {
        for (int64_t i = 0; i < size0; i++) {
            memset(data[0] + r * strides[1] + i * strides[0], 0, bytes);
        }
    }
}

typedef struct mean_context {
    port_dtype dtype, sum_dtype;
    double count;
} mean_context;

/* out = sums / count; the sums of half floats are f32. */
static void
divide_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const mean_context *context = opaque;
    for (int64_t r = 0; r < size1; r++) {
        for (int64_t i = 0; i < size0; i++) {
            char *to = data[0] + r * strides[2] + i * strides[0];
            const char *from = data[1] + r * strides[3] + i * strides[1];
            if (context->dtype == PORT_F64) {
                double value;
                memcpy(&value, from, sizeof(value));
                value /= context->count;
                memcpy(to, &value, sizeof(value));
            } else {
                float value;
                memcpy(&value, from, sizeof(value));
                value /= (float)context->count;
                port_store_f32(context->dtype, &value, 1, to, 0);
            }
        }
    }
}

static bool
is_half(port_dtype dtype)
{
    return dtype == PORT_BF16 || dtype == PORT_F16;
}

/* Sums of half floats may need room in f32. */
size_t
port_sum_scratch_bytes(const port_kernel_call *call)
{
    return is_half(call->in[0]->dtype) ? (size_t)port_view_elems(call->out[0]) * sizeof(float) : 0;
}

/* y = sum of x / count; sums of half floats in f32, rounded once, if `wide`. */
static void
sum_and_divide(const port_kernel_call *call, bool wide, double count)
{
    const port_reduce_params *params = call->params;
    const port_view *x = call->in[0], *y = call->out[0];
    port_view sums = wide ? port_view_contiguous(call->scratch, PORT_F32, y->ndim, y->shape) : *y;
    const port_view *zeroed[1] = {&sums}, *divided[2] = {y, &sums};
    size_t bytes = port_dtype_size(sums.dtype);
    port_iter iter = port_iter_elementwise(1, zeroed);
    port_iter_for_each(&iter, call->profile->num_threads, zero_loop, &bytes);
    sum_into(&sums, x, params->dims, call->profile->num_threads, is_half(x->dtype) && !wide);
    if (wide || count != 1.0) {
        mean_context context = {x->dtype, sums.dtype, count};
        iter = port_iter_elementwise(2, divided);
        port_iter_for_each(&iter, call->profile->num_threads, divide_loop, &context);
    }
}

/* Half floats whose two innermost dimensions are both reduced, and do not merge, are summed as floats: the reference would else round after each row. */
void
port_sum_run(const port_kernel_call *call)
{
    port_iter iter = port_iter_reduction(call->out[0], call->in[0], ((const port_reduce_params *)call->params)->dims);
    sum_and_divide(call, is_half(call->in[0]->dtype) && iter.ndim >= 2 && iter.strides[0][0] == 0 && iter.strides[1][0] == 0, 1.0);
}

void
port_mean_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    int64_t count = 1;
    for (int32_t d = 0; d < x->ndim; d++) {
        count *= (((const port_reduce_params *)call->params)->dims >> d & 1u) != 0 ? x->shape[d] : 1;
    }
    sum_and_divide(call, is_half(x->dtype), (double)count);
}

/* ---------------------------------------------------------------- squares about the mean */

typedef struct square_job {
    port_iter iter;
    port_dtype dtype;
    port_chunks chunks;
    double mean, sums[PORT_SUM_MAX_THREADS];
} square_job;

typedef struct square_sum {
    port_dtype dtype;
    double mean, sum;
} square_sum;

/* The squares of n elements about the mean, added one after the other. */
#define SQUARES(suffix, type)                                                                                        \
    static double squares_##suffix(const char *x, int64_t stride, int64_t n, double mean, double sum)               \
    {                                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            type value;                                                                                              \
            memcpy(&value, x + i * stride, sizeof value);                                                            \
            sum += ((double)value - mean) * ((double)value - mean);                                                  \
        }                                                                                                            \
        return sum;                                                                                                  \
    }
SQUARES(f32, float)
SQUARES(f64, double)

/* Each piece of the loop has a sum of its own. */
static void
square_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    square_sum *total = opaque;
    double sum = 0.0;
    for (int64_t r = 0; r < size1; r++) {
        sum = (total->dtype == PORT_F32 ? squares_f32 : squares_f64)(data[0] + r * strides[1], strides[0], size0, total->mean, sum);
    }
    total->sum += sum;
}

static void
square_part(void *opaque, int64_t c)
{
    square_job *job = opaque;
    square_sum total = {job->dtype, job->mean, 0.0};
    int64_t begin = c * job->chunks.size, end = begin + job->chunks.size, n = port_iter_elems(&job->iter);
    port_iter_range(&job->iter, begin, end < n ? end : n, square_loop, &total);
    job->sums[c] = total.sum;
}

double
port_squares_about_mean(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    int32_t num_threads = call->profile->num_threads < PORT_SUM_MAX_THREADS ? call->profile->num_threads : PORT_SUM_MAX_THREADS;
    int64_t n = port_view_elems(x), ones[PORT_MAX_NDIM];
    for (int32_t d = 0; d < x->ndim; d++) {
        ones[d] = 1;
    }
    double wide = 0.0, sum = 0.0;
    float narrow = 0.0f;
    port_view mean = port_view_contiguous(x->dtype == PORT_F32 ? (void *)&narrow : &wide, x->dtype, x->ndim, ones);
    sum_into(&mean, x, UINT32_MAX, num_threads, false);
    square_job job = {.iter = port_iter_elementwise(1, &x), .dtype = x->dtype, .chunks = port_chunks_of(n, PORT_GRAIN_SIZE, num_threads)};
    job.mean = x->dtype == PORT_F32 ? (double)(narrow / (float)n) : wide / (double)n;
    port_parallel(n > 0 ? job.chunks.count : 0, num_threads, square_part, &job);
    for (int64_t c = 0; c < job.chunks.count; c++) {
        sum += job.sums[c];
    }
    return sum;
}
