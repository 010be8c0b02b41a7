/* vector_norm.c -- the norm of a vector, and weights that are scaled to a norm.
 *     vector_norm   of any order over any dimensions (0 counts, infinities are the greatest and the least size): y = (sum |x|^p)^(1/p)
 *     weight_norm   w = v * (g / |v|), the norm taken of each row, or of each column
 * Orders of summation as the reference has them: the 2-norm of a dense row in lanes of 32 bytes (also with avx512),
 * every other norm in order of memory. What its compiler fused differs from loop to loop and was found by trying;
 * nothing is fused under "default".
 * Source: at::native ReduceOpsKernel.cpp, WeightNormKernel.cpp (BSD-3-Clause; restated). */
#include "loops.h"
#include "vecmath.h"

#include <math.h>

#define LANES 8

/* ---------------------------------------------------------------- vector_norm */

static port_status
vector_norm_check(const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *y = call->out[0];
    const port_vector_norm_params *p = call->params;
    bool fits = p != NULL && y->ndim == x->ndim && y->dtype == x->dtype && p->order == p->order;
    for (int32_t d = 0; fits && d < x->ndim; d++) {
        fits = y->shape[d] == ((p->dims >> d & 1u) != 0 ? 1 : x->shape[d]);
    }
    return fits ? PORT_OK
                : port_fail(err, PORT_E_SHAPE, "vector_norm: an order that is NaN, or an output that does not fit");
}

#define TAKE(sum, size) (order == 1.0 ? (sum) + (size) : ((size) != (size) || (size) > (sum) ? (size) : (sum)))

/* One output from its elements: one after the other, a large one in as many parts as the reference has threads for it. */
#define NORM(real, absolute, root)                                                                                        \
    static real norm_##real(double order, const real *x, int64_t n, int32_t num_threads)                                  \
    {                                                                                                                     \
        real total = 0;                                                                                                   \
        port_chunks chunks = port_chunks_of(n, PORT_GRAIN_SIZE, num_threads);                                                  \
        for (int64_t begin = 0; begin < n; begin += chunks.size) {                                                        \
            real sum = 0;                                                                                                 \
            for (int64_t i = begin; i < n && i < begin + chunks.size; i++) {                                              \
                real size = absolute(x[i]);                                                                               \
                sum = order == 2.0 ? sum + size * size : TAKE(sum, size);                                                 \
            }                                                                                                             \
            total = order == 2.0 ? total + sum : TAKE(total, sum);                                                        \
        }                                                                                                                 \
        return order == 2.0 ? root(total) : total;                                                                        \
    }

NORM(float, fabsf, sqrtf)
NORM(double, fabs, sqrt)

/* The orders that take powers, in float, in as many parts; of one element its size, unless it is to be `computed`. */
static float
power_norm(double order, bool computed, const float *x, int64_t n, int32_t num_threads)
{
    float total = 0.0f;
    bool plain = n == 1 && !computed;
    port_chunks chunks = port_chunks_of(n, PORT_GRAIN_SIZE, num_threads);
    for (int64_t begin = 0; !plain && begin < n; begin += chunks.size) {
        float sum = 0.0f;
        for (int64_t i = begin; i < n && i < begin + chunks.size; i++) {
            sum += powf(fabsf(x[i]), (float)order);
        }
        total += sum;
    }
    return plain ? fabsf(x[0]) : powf(total, 1.0f / (float)order);
}

/* The other orders, one element after the other in double. */
static double
rare_norm(double order, bool narrow, const void *x, int64_t n)
{
    double sum = isinf(order) ? (double)INFINITY : 0.0;
    for (int64_t i = 0; i < n; i++) {
        double size = fabs(narrow ? (double)((const float *)x)[i] : ((const double *)x)[i]);
        if (order == 0.0) {
            sum += size != 0.0;
        } else if (isinf(order)) {
            sum = size != size || size < sum ? size : sum;
        } else {
            sum += pow(size, order);
        }
    }
    return order == 0.0 || isinf(order) ? sum : pow(sum, 1.0 / order);
}

static bool
is_rare(double order)
{
    return order != 1.0 && order != 2.0 && !(isinf(order) && order > 0.0);
}

/* The squares of n elements, a multiple of a vector's, in the lanes of one vector of 32 bytes; and n columns side by side, each of whose sums
 * takes the square of one more element. */
#define SQUARES(suffix, type, attributes)                                                                            \
    attributes static void squares_##suffix(int64_t n, const type *x, type *sums)                                    \
    {                                                                                                                \
        typedef type vector __attribute__((vector_size(32), aligned(sizeof(type)), may_alias));                      \
        vector sum = {0};                                                                                            \
        for (const type *end = x + n; x < end; x += 32 / sizeof(type)) {                                             \
            const vector value = *(const vector *)(const void *)x;                                                   \
            sum += value * value;                                                                                    \
        }                                                                                                            \
        *(vector *)(void *)sums = sum;                                                                               \
    }                                                                                                                \
    attributes static void square_columns_##suffix(int64_t n, const type *x, type *sums)                             \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + COLUMNS <= n; i += COLUMNS) {                                                                     \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < COLUMNS; lane++) {                                                             \
                sums[i + lane] += x[i + lane] * x[i + lane];                                                         \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            sums[i] += x[i] * x[i];                                                                                  \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define SQUARE_BUILDS(name, type)                                                                                    \
    SQUARES(name##_ref, type, )                                                                                      \
    SQUARES(name##_avx2, type, PORT_TARGET_AVX2)                                                                     \
    SQUARES(name##_avx512, type, PORT_TARGET_AVX512)
#else
#define SQUARE_BUILDS(name, type) SQUARES(name##_ref, type, )
#endif
enum { COLUMNS = 16 };
SQUARE_BUILDS(f32, float)
SQUARE_BUILDS(f64, double)

/* Whole vectors in lanes, which are added one after the other; of the rest the compiler made one more vector of half as many products. */
#define ROW_NORM(suffix, type, fused_root, root)                                                                     \
    static type row_norm_##suffix(const port_kernel_call *call, const type *x, int64_t n)                            \
    {                                                                                                                \
        enum { WIDTH = 32 / sizeof(type), HALF = WIDTH / 2 };                                                        \
        type sums[WIDTH];                                                                                            \
        int64_t bulk = n - n % WIDTH, products = bulk + (n - bulk) / HALF * HALF;                                    \
        PORT_PICK_MAP(squares_##suffix, port_cpu_level_found())(bulk, x, sums);                                      \
        type sum = sums[0];                                                                                          \
        for (int lane = 1; lane < WIDTH; lane++) {                                                                   \
            sum += sums[lane];                                                                                       \
        }                                                                                                            \
        for (int64_t i = bulk; i < n; i++) {                                                                         \
            bool fused = i >= products && call->profile->capability != PORT_CAP_DEFAULT;                             \
            sum = fused ? fused_root(x[i], x[i], sum) : sum + x[i] * x[i];                                           \
        }                                                                                                            \
        return root(sum);                                                                                            \
    }
ROW_NORM(f32, float, fmaf, sqrtf)
ROW_NORM(f64, double, fma, sqrt)

/* The reduced dimensions of x in order of memory, others as size 1; true if they are one dense row. */
static bool
reduced_part(const port_view *x, uint32_t dims, port_view *part)
{
    *part = *x;
    part->ndim = 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        if ((dims >> d & 1u) == 0 || x->shape[d] == 1) {
            continue;
        }
        int32_t at = part->ndim++;
        for (; at > 0 && part->strides[at - 1] < x->strides[d]; at--) {
            part->shape[at] = part->shape[at - 1];
            part->strides[at] = part->strides[at - 1];
        }
        part->shape[at] = x->shape[d];
        part->strides[at] = x->strides[d];
    }
    return part->ndim > 0 && port_view_is_contiguous(part);
}

typedef struct norm_job {
    const port_kernel_call *call;
    port_view part; /* what one output is made of, at the place of the first */
    bool row;       /* the 2-norm of a dense row */
    int64_t outputs, out_stride; /* of columns, in elements */
} norm_job;

static double
norm_of(const norm_job *job, const void *x, int64_t n)
{
    const port_kernel_call *call = job->call;
    const port_vector_norm_params *p = call->params;
    bool narrow = call->in[0]->dtype == PORT_F32;
    int32_t threads = job->outputs == 1 ? call->profile->num_threads : 1; /* several outputs are dealt to the threads */
    if (is_rare(p->order)) {
        bool powers = narrow && p->order != 0.0 && !isinf(p->order);
        return powers ? (double)power_norm(p->order, p->computed, x, n, threads) : rare_norm(p->order, narrow, x, n);
    }
    if (!narrow) {
        return job->row ? row_norm_f64(call, x, n) : norm_double(p->order, x, n, threads);
    }
    return (double)(job->row ? row_norm_f32(call, x, n) : norm_float(p->order, x, n, threads));
}

/* Every output by itself, from a row-major copy of its elements where they do not lie so. */
static void
norm_range(const void *opaque, int64_t begin, int64_t end)
{
    const norm_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    int64_t n = port_view_elems(&job->part), bytes = (int64_t)port_dtype_size(x->dtype);
    bool dense = port_view_is_contiguous(&job->part);
    for (int64_t i = begin; i < end; i++) {
        int64_t from = 0, to = 0, rest = i;
        for (int32_t d = x->ndim - 1; d >= 0; d--) {
            from += rest % y->shape[d] * x->strides[d];
            to += rest % y->shape[d] * y->strides[d];
            rest /= y->shape[d];
        }
        port_view part = job->part;
        part.data = (char *)x->data + from * bytes;
        char *copy = (char *)job->call->scratch + i * n * bytes;
        if (!dense) {
            port_view_gather(&part, copy);
        }
        double norm = norm_of(job, dense ? part.data : copy, n);
        port_store_f64(y->dtype, &norm, 1, (char *)y->data + to * bytes, 0);
    }
}

/* 2-norms of columns that lie side by side, row after row in order of memory. */
static void
column_range(const void *opaque, int64_t begin, int64_t end)
{
    const norm_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0], *part = &job->part;
    int64_t rows = port_view_elems(part), bytes = (int64_t)port_dtype_size(x->dtype);
    double wide[PORT_BLOCK];
    float narrow[PORT_BLOCK];
    for (int64_t j = begin; j < end; j += PORT_BLOCK) {
        int64_t m = end - j < PORT_BLOCK ? end - j : PORT_BLOCK;
        memset(wide, 0, sizeof wide);
        memset(narrow, 0, sizeof narrow);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = j, rest = r;
            for (int32_t d = part->ndim - 1; d >= 0; d--) {
                at += rest % part->shape[d] * part->strides[d];
                rest /= part->shape[d];
            }
            const void *row = (const char *)x->data + at * bytes;
            if (x->dtype == PORT_F32) {
                PORT_PICK_MAP(square_columns_f32, port_cpu_level_found())(m, row, narrow);
            } else {
                PORT_PICK_MAP(square_columns_f64, port_cpu_level_found())(m, row, wide);
            }
        }
        for (int64_t i = 0; i < m; i++) {
            double norm = x->dtype == PORT_F32 ? (double)sqrtf(narrow[i]) : sqrt(wide[i]);
            port_store_f64(y->dtype, &norm, 1, (char *)y->data + (j + i) * job->out_stride * bytes, 0);
        }
    }
}

/* Whether the outputs run along one dimension, on which x's elements lie side by side. */
static bool
in_columns(norm_job *job, uint32_t dims)
{
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    int32_t kept = 0;
    bool dense = false;
    for (int32_t d = 0; d < x->ndim; d++) {
        if ((dims >> d & 1u) == 0 && x->shape[d] != 1) {
            kept++;
            dense = x->strides[d] == 1;
            job->out_stride = y->strides[d];
        }
    }
    return kept == 1 && dense;
}

static void
vector_norm_run(const port_kernel_call *call)
{
    const port_vector_norm_params *p = call->params;
    norm_job job = {.call = call, .outputs = port_view_elems(call->out[0])};
    job.row = reduced_part(call->in[0], p->dims, &job.part) && p->order == 2.0;
    if (p->order == 2.0 && job.outputs > 1 && in_columns(&job, p->dims)) {
        port_deal(job.outputs, port_view_elems(&job.part), call->profile->num_threads, column_range, &job);
        return;
    }
    port_deal(job.outputs, port_view_elems(&job.part), call->profile->num_threads, norm_range, &job);
}

static size_t
vector_norm_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)port_view_elems(call->in[0]) * port_dtype_size(call->in[0]->dtype) + 64;
}

/* ---------------------------------------------------------------- weight_norm */

static port_status
weight_norm_check(const port_kernel_call *call, port_error *err)
{
    const port_weight_norm_params *p = call->params;
    const port_view *v = call->in[0], *g = call->in[1], *w = call->out[0], *norm = call->out[1];
    bool fits = p != NULL && v->ndim == 2 && w->ndim == 2 && w->shape[0] == v->shape[0] && w->shape[1] == v->shape[1] &&
                port_view_elems(g) == v->shape[p->rows ? 0 : 1] && port_view_elems(norm) == port_view_elems(g);
    if (!fits || !port_view_is_contiguous(v) || !port_view_is_contiguous(g) || !port_view_is_contiguous(w) ||
        !port_view_is_contiguous(norm)) {
        return port_fail(err, PORT_E_SHAPE,
                         "weight_norm: expected dense matrices v and w, and one g and one norm for each row or column");
    }
    return g->dtype == v->dtype && w->dtype == v->dtype && norm->dtype == v->dtype
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "weight_norm: expected tensors of one dtype");
}

/* The 2-norm of a row that is shorter than a vector: one after the other; else in lanes that are added by halves
 * (default: in order). Of halves two vectors are summed side by side, and then added. */
static float
halved_row_norm(const port_kernel_call *call, const float *x, int64_t n)
{
    float sums[2 * LANES] = {0.0f}; /* a row without elements has the norm 0 */
    int64_t count = n < LANES ? n : LANES, width = ((const port_weight_norm_params *)call->params)->halves ? 2 * LANES : LANES;
    for (int64_t i = 0; i < n; i++) {
        sums[i % width] += x[i] * x[i];
    }
    for (int64_t i = 0; i < LANES; i++) {
        sums[i] += sums[LANES + i];
    }
    return sqrtf(port_add_lanes(sums, count, count == LANES && call->profile->capability != PORT_CAP_DEFAULT));
}

/* In the reference the rows are dealt to the threads, each of which sums the columns of its own; then the sums are added. */
static void
column_norms(const void *opaque, int64_t first, int64_t last)
{
    const port_kernel_call *call = opaque;
    const port_view *v = call->in[0];
    int64_t rows = v->shape[0], cols = v->shape[1];
    port_chunks chunks = port_chunks_of(rows, 1, call->profile->num_threads);
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    const float *x = v->data;
    float *norms = call->out[1]->data;
    for (int64_t c = first; c < last; c++) {
        float total = 0.0f;
        for (int64_t part = 0; part < chunks.count; part++) {
            float sum = 0.0f;
            for (int64_t r = part * chunks.size; r < rows && r < (part + 1) * chunks.size; r++) {
                float value = x[r * cols + c];
                sum = fused ? fmaf(value, value, sum) : sum + value * value;
            }
            total += sum;
        }
        norms[c] = sqrtf(total);
    }
}

static void
weight_norm_rows(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    const port_weight_norm_params *p = call->params;
    int64_t cols = call->in[0]->shape[1];
    const float *x = call->in[0]->data, *g = call->in[1]->data;
    float *w = call->out[0]->data, *norms = call->out[1]->data;
    for (int64_t r = begin; r < end; r++) {
        if (p->rows) {
            norms[r] = halved_row_norm(call, x + r * cols, cols);
        }
        for (int64_t c = 0; c < cols; c++) {
            int64_t k = p->rows ? r : c;
            w[r * cols + c] = x[r * cols + c] * (g[k] / norms[k]);
        }
    }
}

static void
weight_norm_run(const port_kernel_call *call)
{
    int64_t rows = call->in[0]->shape[0], cols = call->in[0]->shape[1];
    int32_t num_threads = call->profile->num_threads;
    if (!((const port_weight_norm_params *)call->params)->rows) {
        port_deal(cols, rows, num_threads, column_norms, call);
    }
    port_deal(rows, cols, num_threads, weight_norm_rows, call);
}

static void
weight_norms_f64(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    const port_weight_norm_params *p = call->params;
    int64_t rows = call->in[0]->shape[0], cols = call->in[0]->shape[1];
    const double *x = call->in[0]->data, *g = call->in[1]->data;
    double *w = call->out[0]->data, *norms = call->out[1]->data;
    for (int64_t k = begin; k < end; k++) {
        int64_t first = p->rows ? k * cols : k, step = p->rows ? 1 : cols, n = p->rows ? cols : rows;
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += x[first + i * step] * x[first + i * step];
        }
        norms[k] = sqrt(sum);
        for (int64_t i = 0; i < n; i++) {
            w[first + i * step] = x[first + i * step] * (g[k] / norms[k]);
        }
    }
}

static void
weight_norm_run_f64(const port_kernel_call *call)
{
    bool by_rows = ((const port_weight_norm_params *)call->params)->rows;
    int64_t rows = call->in[0]->shape[0], cols = call->in[0]->shape[1];
    port_deal(by_rows ? rows : cols, by_rows ? cols : rows, call->profile->num_threads, weight_norms_f64, call);
}

const port_kernel_row port_vector_norm_rows[] = {
    {"vector_norm", PORT_F32, "ref", 0, vector_norm_check, vector_norm_scratch_bytes, vector_norm_run},
    {"vector_norm", PORT_F64, "ref", 0, vector_norm_check, vector_norm_scratch_bytes, vector_norm_run},
    {"weight_norm", PORT_F32, "ref", 0, weight_norm_check, NULL, weight_norm_run},
    {"weight_norm", PORT_F64, "ref", 0, weight_norm_check, NULL, weight_norm_run_f64},
    {.op = NULL},
};
