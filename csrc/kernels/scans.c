/* scans.c -- along one dimension: running sums, products and extremes.
 *     cumsum    y[i] = x[0] + ... + x[i]            cumprod   y[i] = x[0] * ... * x[i]
 *     cummax, cummin   y[i] = the greatest or least of x[0..i], and the place of the last that equals it; the last NaN has it
 * Of F32 in double, of halves in F32, of BOOL and integers in 64 bits that wrap. A line is one chain of operations; four run side by side.
 * Source: at::native ReduceOpsKernel.cpp, ReduceOps.cpp (BSD-3-Clause; restated). */
#include "loops.h"
#include "vecmath.h"

enum { LINES = 4 };

/* `count` lines of n elements, in bytes from one to the next; places: of cummax and cummin. */
typedef struct scan_lines {
    int count;
    int64_t n, x_stride, y_stride, place_stride;
    port_dtype dtype;
    const char *x[LINES];
    char *y[LINES], *places[LINES];
} scan_lines;

/* The function `name`, from name_of(lines, how many of them, the first). */
#define BY_LINES(name)                                                                                               \
    static void name(const scan_lines *lines)                                                                        \
    {                                                                                                                \
        if (lines->count == LINES) {                                                                                 \
            name##_of(lines, LINES, 0);                                                                              \
            return;                                                                                                  \
        }                                                                                                            \
        for (int line = 0; line < lines->count; line++) {                                                            \
            name##_of(lines, 1, line);                                                                               \
        }                                                                                                            \
    }

/* ---------------------------------------------------------------- sums and products */

#define SUM_START 0
#define PRODUCT_START 1
#define AS_IT_IS(value) (value)
#define AS_TRUTH(value) ((value) != 0)

#define RUNNING(name, type, number, wide, start, operator, to)                                                       \
    PORT_INLINE void name##_of(const scan_lines *lines, const int count, int first)                                  \
    {                                                                                                                \
        const scan_lines at = *lines; /* which no store can change */                                                \
        wide total[LINES] = {start, start, start, start};                                                            \
        for (int64_t i = 0; i < at.n; i++) {                                                                         \
            _Pragma("GCC unroll 4") for (int k = 0; k < count; k++) {                                                \
                type value;                                                                                          \
                memcpy(&value, at.x[first + k] + i * at.x_stride, sizeof value);                                     \
                total[k] = total[k] operator (wide)number(value);                                                    \
                to result = (to)total[k];                                                                            \
                memcpy(at.y[first + k] + i * at.y_stride, &result, sizeof result);                                   \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    BY_LINES(name)
#define RUNNINGS(name, start, operator)                                                                              \
    RUNNING(name##_f32, float, AS_IT_IS, double, start, operator, float)                                             \
    RUNNING(name##_f64, double, AS_IT_IS, double, start, operator, double)                                           \
    RUNNING(name##_i64, int64_t, AS_IT_IS, uint64_t, start, operator, int64_t)                                       \
    RUNNING(name##_i32, int32_t, (int64_t), uint64_t, start, operator, int64_t)                                      \
    RUNNING(name##_i16, int16_t, (int64_t), uint64_t, start, operator, int64_t)                                      \
    RUNNING(name##_i8, int8_t, (int64_t), uint64_t, start, operator, int64_t)                                        \
    RUNNING(name##_u8, uint8_t, AS_IT_IS, uint64_t, start, operator, int64_t)                                        \
    RUNNING(name##_truth, uint8_t, AS_TRUTH, uint64_t, start, operator, int64_t)
RUNNINGS(sums, SUM_START, +)
RUNNINGS(products, PRODUCT_START, *)

/* Of halves, by blocks in F32. */
static void
running_halves(const scan_lines *lines, bool product)
{
    float block[LINES][PORT_BLOCK], total[LINES];
    for (int k = 0; k < LINES; k++) {
        total[k] = product ? 1.0f : 0.0f;
    }
    memset(block, 0, sizeof block);
    for (int64_t i = 0; i < lines->n; i += PORT_BLOCK) {
        int64_t m = lines->n - i < PORT_BLOCK ? lines->n - i : PORT_BLOCK;
        for (int k = 0; k < lines->count; k++) {
            port_load_f32(lines->dtype, lines->x[k] + i * lines->x_stride, lines->x_stride, m, block[k]);
        }
        for (int64_t at = 0; at < m; at++) {
#pragma GCC unroll 4
            for (int k = 0; k < LINES; k++) {
                block[k][at] = total[k] = product ? total[k] * block[k][at] : total[k] + block[k][at];
            }
        }
        for (int k = 0; k < lines->count; k++) {
            port_store_f32(lines->dtype, block[k], m, lines->y[k] + i * lines->y_stride, lines->y_stride);
        }
    }
}

static void
sums_halves(const scan_lines *lines)
{
    running_halves(lines, false);
}

static void
products_halves(const scan_lines *lines)
{
    running_halves(lines, true);
}

/* ---------------------------------------------------------------- extremes */

/* The order of halves is that of their bits but for the sign; `infinity` holds the greatest that is no NaN. */
PORT_INLINE float
rank_of_half(uint16_t bits, int infinity)
{
    int size = bits & 0x7fff;
    return size > infinity ? NAN : (float)(size == bits ? size : -size);
}

#define RANK_BF16(bits) rank_of_half(bits, 0x7f80)
#define RANK_F16(bits) rank_of_half(bits, 0x7c00)
#define EXTREMES_OF(name, type, rank, rank_type, worse)                                                              \
    PORT_INLINE void name##_of(const scan_lines *lines, const int count, int first)                                  \
    {                                                                                                                \
        const scan_lines at = *lines;                                                                                \
        type best[LINES];                                                                                            \
        rank_type ranks[LINES];                                                                                      \
        int64_t places[LINES] = {0};                                                                                 \
        for (int k = 0; k < count && at.n > 0; k++) {                                                                \
            memcpy(&best[k], at.x[first + k], sizeof(type));                                                         \
            ranks[k] = rank(best[k]);                                                                                \
        }                                                                                                            \
        for (int64_t i = 0; i < at.n; i++) {                                                                         \
            _Pragma("GCC unroll 4") for (int k = 0; k < count; k++) {                                                \
                type value;                                                                                          \
                memcpy(&value, at.x[first + k] + i * at.x_stride, sizeof value);                                     \
                rank_type v = rank(value);                                                                           \
                if (!(v worse ranks[k]) && (ranks[k] == ranks[k] || v != v)) {                                       \
                    best[k] = value;                                                                                 \
                    ranks[k] = v;                                                                                    \
                    places[k] = i;                                                                                   \
                }                                                                                                    \
                memcpy(at.y[first + k] + i * at.y_stride, &best[k], sizeof value);                                   \
                memcpy(at.places[first + k] + i * at.place_stride, &places[k], sizeof places[k]);                    \
            }                                                                                                        \
        }                                                                                                            \
    }                                                                                                                \
    BY_LINES(name)
#define EXTREMES(name, worse)                                                                                        \
    EXTREMES_OF(name##_f32, float, AS_IT_IS, float, worse)                                                           \
    EXTREMES_OF(name##_f64, double, AS_IT_IS, double, worse)                                                         \
    EXTREMES_OF(name##_bf16, uint16_t, RANK_BF16, float, worse)                                                      \
    EXTREMES_OF(name##_f16, uint16_t, RANK_F16, float, worse)                                                        \
    EXTREMES_OF(name##_i64, int64_t, AS_IT_IS, int64_t, worse)                                                       \
    EXTREMES_OF(name##_i32, int32_t, AS_IT_IS, int32_t, worse)                                                       \
    EXTREMES_OF(name##_i16, int16_t, AS_IT_IS, int16_t, worse)                                                       \
    EXTREMES_OF(name##_i8, int8_t, AS_IT_IS, int8_t, worse)                                                          \
    EXTREMES_OF(name##_u8, uint8_t, AS_IT_IS, uint8_t, worse)
EXTREMES(greatest, <)
EXTREMES(least, >)

/* ---------------------------------------------------------------- lines of a tensor */

typedef void (*scan_fn)(const scan_lines *lines);

typedef struct scan_job {
    const port_kernel_call *call;
    scan_fn scan;
    int32_t dim;
    int64_t n; /* of a line */
} scan_job;

/* Where line j of a view begins, in bytes: its place among all dimensions but `dim`. */
static int64_t
line_begin(const port_view *view, int32_t dim, int64_t j)
{
    int64_t at = 0;
    for (int32_t d = view->ndim - 1; d >= 0; d--) {
        if (d != dim) {
            at += j % view->shape[d] * view->strides[d];
            j /= view->shape[d];
        }
    }
    return at * (int64_t)port_dtype_size(view->dtype);
}

static int64_t
step_bytes(const port_view *view, int32_t dim)
{
    return view->ndim > 0 ? view->strides[dim] * (int64_t)port_dtype_size(view->dtype) : 0;
}

static void
scan_range(const void *opaque, int64_t begin, int64_t end)
{
    const scan_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0], *places = job->call->num_out > 1 ? job->call->out[1] : NULL;
    scan_lines lines = {.n = job->n, .dtype = x->dtype, .x_stride = step_bytes(x, job->dim), .y_stride = step_bytes(y, job->dim),
                        .place_stride = places != NULL ? step_bytes(places, job->dim) : 0};
    for (int64_t j = begin; j < end; j += lines.count) {
        lines.count = end - j < LINES ? (int)(end - j) : LINES;
        for (int k = 0; k < lines.count; k++) {
            lines.x[k] = (const char *)x->data + line_begin(x, job->dim, j + k);
            lines.y[k] = (char *)y->data + line_begin(y, job->dim, j + k);
            lines.places[k] = places != NULL ? (char *)places->data + line_begin(places, job->dim, j + k) : NULL;
        }
        job->scan(&lines);
    }
}

/* A number is a line of one element. */
static void
scan_run(const port_kernel_call *call, const scan_fn *scans)
{
    const port_view *x = call->in[0];
    scan_job job = {.call = call, .scan = scans[x->dtype], .n = 1};
    if (x->ndim > 0) {
        job.dim = __builtin_ctz(((const port_reduce_params *)call->params)->dims);
        job.n = x->shape[job.dim];
    }
    port_deal(job.n > 0 ? port_view_elems(x) / job.n : 0, job.n, call->profile->num_threads, scan_range, &job);
}

static port_status
scan_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("scan", call, 1, err);
    if (status == PORT_OK && call->params == NULL) {
        return port_fail(err, PORT_E_VALUE, "scan: the dimension is missing");
    }
    uint32_t dims = status == PORT_OK ? ((const port_reduce_params *)call->params)->dims : 1;
    bool fits = status != PORT_OK || call->in[0]->ndim == 0 ||
                (dims != 0 && (dims & (dims - 1)) == 0 && dims >> call->in[0]->ndim == 0);
    if (!fits) {
        return port_fail(err, PORT_E_VALUE, "scan: expected one dimension of %d", call->in[0]->ndim);
    }
    port_dtype from = status == PORT_OK ? call->in[0]->dtype : PORT_F32, to = status == PORT_OK ? call->out[0]->dtype : PORT_F32;
    port_dtype expected = port_dtype_is_float(from) || call->num_out > 1 ? from : PORT_I64;
    return status != PORT_OK || to == expected
               ? status
               : port_fail(err, PORT_E_DTYPE, "scan: %s gives %s, the output is %s", port_dtype_name(from), port_dtype_name(expected), port_dtype_name(to));
}

/* The same shape, the values' dtype that of x, places of I64. */
static port_status
extremes_check(const port_kernel_call *call, port_error *err)
{
    if (call->num_out < 2 || call->out[1] == NULL || call->out[1]->dtype != PORT_I64) {
        return port_fail(err, PORT_E_DTYPE, "scan: expected places of I64 as the second output");
    }
    const port_view *x = call->in[0], *places = call->out[1];
    if (x == NULL || places->ndim != x->ndim || memcmp(places->shape, x->shape, (size_t)x->ndim * sizeof x->shape[0]) != 0) {
        return port_fail(err, PORT_E_SHAPE, "scan: the places do not have the shape of the input");
    }
    return scan_check(call, err);
}

#define RUN_SCAN(op, name, halves, truth)                                                                            \
    static void op##_run(const port_kernel_call *call)                                                               \
    {                                                                                                                \
        static const scan_fn scans[PORT_NUM_DTYPES] = {                                                              \
            [PORT_F32] = name##_f32, [PORT_F64] = name##_f64, [PORT_BF16] = halves(name, bf16), [PORT_F16] = halves(name, f16), \
            [PORT_I64] = name##_i64, [PORT_I32] = name##_i32, [PORT_I16] = name##_i16, [PORT_I8] = name##_i8,        \
            [PORT_U8] = name##_u8,   [PORT_BOOL] = truth};                                                           \
        scan_run(call, scans);                                                                                       \
    }
#define TOGETHER(name, half) name##_halves
#define BY_ITSELF(name, half) name##_##half
RUN_SCAN(cumsum, sums, TOGETHER, sums_truth)
RUN_SCAN(cumprod, products, TOGETHER, products_truth)
RUN_SCAN(cummax, greatest, BY_ITSELF, greatest_u8)
RUN_SCAN(cummin, least, BY_ITSELF, least_u8)

#define ROWS(op, check)                                                                                              \
    PORT_FLOAT_ROWS(#op, "ref", 0, check, op##_run), PORT_INT_ROWS(#op, "ref", 0, check, op##_run),                  \
        PORT_BOOL_ROW(#op, "ref", 0, check, op##_run)

const port_kernel_row port_scan_rows[] = {
    ROWS(cumsum, scan_check), ROWS(cumprod, scan_check), ROWS(cummax, extremes_check), ROWS(cummin, extremes_check), {.op = NULL},
};
