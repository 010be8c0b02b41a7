/* reduce.c -- reductions over any set of dimensions: prod amax amin any all argmax argmin var. (sum, mean in the reference's order: sum.c;
 * products of floats: ordered.c; running sums: scans.c)
 *
 * Each is a fold over the reduced elements of one output in row-major order, in float64 (exact for comparisons, and
 * more than enough for var) or in 64-bit integers. A NaN wins amax, amin, argmax and argmin, as in torch; ties go to the first,
 * but which of two zeros amax and amin give follows the reference's order (ordered.c). */
#include "extremes.h"
#include "sum.h"
#include "wholes.h"

typedef struct fold_state {
    double value, mean, m2;
    int64_t whole, count, best_idx;
    bool seen;
} fold_state;

typedef struct reduce_op {
    void (*f64)(fold_state *state, int64_t n, const double *x);
    void (*i64)(fold_state *state, int64_t n, const int64_t *x);
    void (*finish)(const fold_state *state, const port_kernel_call *call, char *out);
    void (*f64_four)(fold_state states[4], int64_t n, double x[4][PORT_BLOCK]); /* of four outputs at once, the same; NULL: one by one */
} reduce_op;

/* ---------------------------------------------------------------- walking */

typedef struct walk {
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM], in_strides[PORT_MAX_NDIM], out_strides[PORT_MAX_NDIM]; /* bytes */
    int64_t elems;
} walk;

/* The dimensions of x whose bit in `dims` equals `reduced`, merged where one goes on from the other. */
static walk
walk_dims(const port_view *x, const port_view *y, uint32_t dims, bool reduced)
{
    walk w = {.ndim = 0, .elems = 1};
    for (int32_t d = 0; d < x->ndim; d++) {
        if (((dims >> d & 1u) != 0) != reduced) {
            continue;
        }
        int64_t in = x->strides[d] * (int64_t)port_dtype_size(x->dtype), out = y->strides[d] * (int64_t)port_dtype_size(y->dtype);
        int32_t last = w.ndim - 1;
        bool goes_on = last >= 0 && w.in_strides[last] == x->shape[d] * in && (reduced || w.out_strides[last] == x->shape[d] * out);
        last = goes_on ? last : w.ndim++;
        w.shape[last] = goes_on ? w.shape[last] * x->shape[d] : x->shape[d];
        w.in_strides[last] = in;
        w.out_strides[last] = out;
        w.elems *= x->shape[d];
    }
    return w;
}

static void
walk_offsets(const walk *w, int64_t flat, int64_t *in, int64_t *out)
{
    *in = 0, *out = 0;
    for (int32_t d = w->ndim - 1; d >= 0; d--) {
        int64_t place = flat % w->shape[d];
        flat /= w->shape[d];
        *in += place * w->in_strides[d];
        *out += place * w->out_strides[d];
    }
}

static void
fold_run_of_elements(const reduce_op *op, fold_state *state, port_dtype dtype, const char *x, int64_t stride, int64_t n)
{
    union {
        double f64[PORT_BLOCK];
        int64_t i64[PORT_BLOCK];
    } block;
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        if (port_compute_of(dtype) == PORT_COMPUTE_I64) {
            port_load_i64(dtype, x + i * stride, stride, m, block.i64);
            op->i64(state, m, block.i64);
        } else {
            port_load_f64(dtype, x + i * stride, stride, m, block.f64);
            op->f64(state, m, block.f64);
        }
        state->count += m;
    }
}

/* The same of four outputs, `in` their first elements: where a step waits for the one before it, four of them run side by side. */
static void
fold_four(const reduce_op *op, fold_state states[4], port_dtype dtype, const char *const in[4], int64_t stride, int64_t n)
{
    double block[4][PORT_BLOCK];
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        for (int k = 0; k < 4; k++) {
            port_load_f64(dtype, in[k] + i * stride, stride, m, block[k]);
        }
        op->f64_four(states, m, block);
        for (int k = 0; k < 4; k++) {
            states[k].count += m;
        }
    }
}

/* One call: outputs by their number among the dimensions that are kept, each from the dimensions that are reduced. */
typedef struct reduce_job {
    const port_kernel_call *call;
    const reduce_op *op;
    walk kept, reduced;
    bool largest; /* of extremes */
} reduce_job;

static reduce_job
reduce_job_of(const port_kernel_call *call, const reduce_op *op)
{
    const port_view *x = call->in[0], *y = call->out[0];
    uint32_t dims = ((const port_reduce_params *)call->params)->dims;
    return (reduce_job){.call = call, .op = op, .kept = walk_dims(x, y, dims, false), .reduced = walk_dims(x, y, dims, true)};
}

static void
deal_outputs(const reduce_job *job, port_range_fn range)
{
    port_deal(job->kept.elems, job->reduced.elems, job->call->profile->num_threads, range, job);
}

static void
reduce_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const walk *reduced = &job->reduced;
    const port_view *x = job->call->in[0];
    int64_t inner = reduced->ndim > 0 ? reduced->shape[reduced->ndim - 1] : 1;
    int64_t inner_stride = reduced->ndim > 0 ? reduced->in_strides[reduced->ndim - 1] : 0;
    int64_t out[4], ignored, offset;
    for (int64_t j = begin; j < end;) {
        int count = job->op->f64_four != NULL && end - j >= 4 ? 4 : 1;
        fold_state states[4] = {{.best_idx = 0}};
        const char *first[4], *from[4];
        for (int k = 0; k < count; k++) {
            walk_offsets(&job->kept, j + k, &offset, &out[k]);
            first[k] = (const char *)x->data + offset;
        }
        for (int64_t i = 0; i < reduced->elems; i += inner) {
            walk_offsets(reduced, i, &offset, &ignored);
            for (int k = 0; k < count; k++) {
                from[k] = first[k] + offset;
            }
            if (count == 4) {
                fold_four(job->op, states, x->dtype, from, inner_stride, inner);
            } else {
                fold_run_of_elements(job->op, states, x->dtype, from[0], inner_stride, inner);
            }
        }
        for (int k = 0; k < count; k++) {
            job->op->finish(&states[k], job->call, (char *)job->call->out[0]->data + out[k]);
        }
        j += count;
    }
}

static void
reduce_run(const port_kernel_call *call, const reduce_op *op)
{
    reduce_job job = reduce_job_of(call, op);
    deal_outputs(&job, reduce_range);
}

/* ---------------------------------------------------------------- folds */

static void
store_value(const fold_state *state, const port_kernel_call *call, char *out)
{
    if (port_compute_of(call->in[0]->dtype) == PORT_COMPUTE_I64) {
        port_store_i64(call->out[0]->dtype, &state->whole, 1, out, 0);
    } else {
        port_store_f64(call->out[0]->dtype, &state->value, 1, out, 0);
    }
}

/* Of integers, which wrap; the product starts from 1. */
static void
prod_i64(fold_state *state, int64_t n, const int64_t *x)
{
    uint64_t lanes[4] = {state->count == 0 ? 1 : (uint64_t)state->whole, 1, 1, 1};
    for (int64_t i = 0; i + 4 <= n; i += 4) {
#pragma GCC unroll 4
        for (int lane = 0; lane < 4; lane++) {
            lanes[lane] *= (uint64_t)x[i + lane];
        }
    }
    for (int64_t i = n - n % 4; i < n; i++) {
        lanes[0] *= (uint64_t)x[i];
    }
    state->whole = (int64_t)(lanes[0] * lanes[1] * lanes[2] * lanes[3]);
}

static void
prod_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    int64_t value = state->count == 0 ? 1 : state->whole;
    port_store_i64(call->out[0]->dtype, &value, 1, out, 0);
}

/* BEST(name, type, better): keeps the first element that is better than all before it, and where it stood. */
#define BEST(name, type, suffix, field, better)                                                                      \
    static void name##_##suffix(fold_state *state, int64_t n, const type *x)                                         \
    {                                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            type v = x[i], best = state->field;                                                                      \
            if (!state->seen || (better)) {                                                                          \
                state->field = v;                                                                                    \
                state->best_idx = state->count + i;                                                                  \
                state->seen = true;                                                                                  \
            }                                                                                                        \
        }                                                                                                            \
    }
BEST(max, double, f64, value, best == best && (v > best || v != v))
BEST(max, int64_t, i64, whole, v > best)
BEST(min, double, f64, value, best == best && (v < best || v != v))
BEST(min, int64_t, i64, whole, v < best)

static void
store_best_idx(const fold_state *state, const port_kernel_call *call, char *out)
{
    (void)call;
    memcpy(out, &state->best_idx, sizeof(state->best_idx));
}

/* any: seen a value that is not 0. all: not seen a 0. `whole` counts what was looked for. */
static void
any_f64(fold_state *state, int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++) {
        state->whole += x[i] != 0.0;
    }
}

static void
any_i64(fold_state *state, int64_t n, const int64_t *x)
{
    for (int64_t i = 0; i < n; i++) {
        state->whole += x[i] != 0;
    }
}

static void
any_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    (void)call;
    *out = state->whole > 0;
}

static void
all_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    (void)call;
    *out = state->whole == state->count;
}

/* Welford's update, in double as the reference does it. */
static void
var_f64(fold_state *state, int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++) {
        double delta = x[i] - state->mean;
        state->mean += delta / (double)(state->count + i + 1);
        state->m2 += delta * (x[i] - state->mean);
    }
}

static void
var_f64_four(fold_state states[4], int64_t n, double x[4][PORT_BLOCK])
{
    double mean[4], m2[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        mean[k] = states[k].mean, m2[k] = states[k].m2;
    }
    for (int64_t i = 0; i < n; i++) {
        double count = (double)(states[0].count + i + 1);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            double delta = x[k][i] - mean[k];
            mean[k] += delta / count;
            m2[k] += delta * (x[k][i] - mean[k]);
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        states[k].mean = mean[k], states[k].m2 = m2[k];
    }
}

static void
var_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    double divisor = (double)state->count - ((const port_reduce_params *)call->params)->correction;
    double value = state->m2 / (divisor > 0.0 ? divisor : 0.0);
    port_store_f64(call->out[0]->dtype, &value, 1, out, 0);
}

static void
std_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    double divisor = (double)state->count - ((const port_reduce_params *)call->params)->correction;
    double value = sqrt(state->m2 / (divisor > 0.0 ? divisor : 0.0));
    port_store_f64(call->out[0]->dtype, &value, 1, out, 0);
}

/* One output takes two passes in the reference, several one each. */
static void
var_run_any(const port_kernel_call *call, const reduce_op *op)
{
    const port_view *x = call->in[0], *y = call->out[0];
    bool wide = x->dtype == PORT_F32 || x->dtype == PORT_F64;
    if (((const port_reduce_params *)call->params)->about_mean && wide && port_view_elems(y) == 1 && port_view_elems(x) > 0) {
        fold_state state = {.count = port_view_elems(x), .m2 = port_squares_about_mean(call)};
        op->finish(&state, call, y->data);
    } else {
        reduce_run(call, op);
    }
}

/* The mean that var_mean and std_mean give: Welford's. */
static void
welford_mean_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    double value = state->count > 0 ? state->mean : (double)NAN;
    port_store_f64(call->out[0]->dtype, &value, 1, out, 0);
}

/* The variant "strict" of sum and mean: one element after another in row-major order, in double; of var and std: Welford's update always.
 * However the tensor lies in memory and whatever it is a part of, an output depends on nothing but its own elements. */
static void
sum_f64(fold_state *state, int64_t n, const double *x)
{
    for (int64_t i = 0; i < n; i++) {
        state->value += x[i];
    }
}

static void
mean_finish(const fold_state *state, const port_kernel_call *call, char *out)
{
    double value = state->value / (double)state->count;
    port_store_f64(call->out[0]->dtype, &value, 1, out, 0);
}


/* ---------------------------------------------------------------- extremes of dense rows and columns */

/* A row of n floats of at most 32 bits that lie side by side; the same as folding over it, but for the place unless `placed`. */
static void
best_of_row(bool largest, bool placed, port_dtype dtype, const char *x, int64_t n, fold_state *state)
{
    float room[PORT_BLOCK], best = 0.0f;
    int64_t bytes = (int64_t)port_dtype_size(dtype), step = dtype == PORT_F32 ? n : PORT_BLOCK;
    for (int64_t i = 0; i < n && best == best; i += step) {
        int64_t m = n - i < step ? n - i : step;
        const float *block = dtype == PORT_F32 ? (const float *)(const void *)x : room;
        if (dtype != PORT_F32) {
            port_load_f32(dtype, x + i * bytes, bytes, m, room);
        }
        int64_t place = 0;
        float v = port_first_best(largest, block, m, placed ? &place : NULL);
        if (i == 0 || v != v || (largest ? v > best : v < best)) {
            best = v;
            state->best_idx = i + place;
        }
    }
    state->value = (double)best;
}

static void
best_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const port_view *x = job->call->in[0];
    bool placed = job->op->finish == store_best_idx;
    for (int64_t j = begin; j < end; j++) {
        fold_state state = {.count = job->reduced.elems};
        int64_t in, out;
        walk_offsets(&job->kept, j, &in, &out);
        best_of_row(job->largest, placed, x->dtype, (const char *)x->data + in, job->reduced.elems, &state);
        job->op->finish(&state, job->call, (char *)job->call->out[0]->data + out);
    }
}

enum { MAX_PARTS = 64 };

/* One output, whose elements go in parts; the first best part in order has it. */
typedef struct best_parts {
    const reduce_job *job;
    port_chunks chunks;
    fold_state states[MAX_PARTS];
} best_parts;

static void
best_part(void *opaque, int64_t i)
{
    best_parts *parts = opaque;
    const port_view *x = parts->job->call->in[0];
    int64_t begin = i * parts->chunks.size, end = begin + parts->chunks.size, n = parts->job->reduced.elems;
    const char *from = (const char *)x->data + begin * (int64_t)port_dtype_size(x->dtype);
    best_of_row(parts->job->largest, parts->job->op->finish == store_best_idx, x->dtype, from, (end < n ? end : n) - begin, &parts->states[i]);
    parts->states[i].best_idx += begin;
}

static void
best_alone(const reduce_job *job)
{
    int32_t num_threads = job->call->profile->num_threads;
    best_parts parts = {.job = job, .chunks = port_chunks_by_elems(job->reduced.elems, 1, num_threads < MAX_PARTS ? num_threads : MAX_PARTS)};
    port_parallel(parts.chunks.count, num_threads, best_part, &parts);
    fold_state best = parts.states[0];
    for (int64_t i = 1; i < parts.chunks.count; i++) {
        double v = parts.states[i].value;
        if (best.value == best.value && (v != v || (job->largest ? v > best.value : v < best.value))) {
            best = parts.states[i];
        }
    }
    best.count = job->reduced.elems;
    job->op->finish(&best, job->call, job->call->out[0]->data);
}

enum { COLUMN_BLOCK = 2048 }; /* elements of a row that are taken before those of the next */

/* Outputs side by side, of elements that lie a row apart each. */
static void
columns_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype), out_bytes = (int64_t)port_dtype_size(y->dtype);
    float best[COLUMN_BLOCK], room[COLUMN_BLOCK];
    int32_t places[COLUMN_BLOCK] = {0};
    bool placed = job->op->finish == store_best_idx;
    for (int64_t j = begin; j < end; j += COLUMN_BLOCK) {
        int64_t m = end - j < COLUMN_BLOCK ? end - j : COLUMN_BLOCK;
        for (int64_t r = 0; r < job->reduced.elems; r++) {
            const char *from = (const char *)x->data + j * bytes + r * job->reduced.in_strides[0];
            const float *row = (const float *)(const void *)from;
            if (x->dtype != PORT_F32) {
                port_load_f32(x->dtype, from, bytes, m, room);
                row = room;
            }
            port_best_columns(job->largest, (int32_t)r, row, m, best, placed ? places : NULL);
        }
        for (int64_t i = 0; i < m; i++) {
            fold_state state = {.count = job->reduced.elems, .value = (double)best[i], .best_idx = places[i]};
            job->op->finish(&state, job->call, (char *)y->data + (j + i) * out_bytes);
        }
    }
}

/* Whether the outputs lie side by side, and so do the elements that they see at one place of the only reduced dimension. */
static bool
in_columns(const reduce_job *job)
{
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    return job->kept.ndim == 1 && job->reduced.ndim == 1 && job->kept.in_strides[0] == (int64_t)port_dtype_size(x->dtype) &&
           job->kept.out_strides[0] == (int64_t)port_dtype_size(y->dtype) && job->reduced.elems > 0 && job->reduced.elems <= INT32_MAX;
}

/* ---------------------------------------------------------------- extremes and truths of dense integers */

enum { EXTREME_WIDTH = 128 };

/* Integers side by side: best[i] = the better of best[i] and x[i]. False: there is no such way for the dtype. */
static bool
better_of_wholes(bool largest, port_dtype dtype, int64_t n, const char *x, char *best)
{
    return (largest ? port_whole_maximum : port_whole_minimum)(dtype, dtype, port_cpu_level_found(), n, best, 1, x, 1, best);
}

/* amax or amin of a dense row of n > 0 integers. */
static int64_t
extreme_of_row(bool largest, port_dtype dtype, const char *x, int64_t n)
{
    _Alignas(64) char best[EXTREME_WIDTH * sizeof(int64_t)];
    int64_t lanes[EXTREME_WIDTH], bytes = (int64_t)port_dtype_size(dtype), width = n < EXTREME_WIDTH ? n : EXTREME_WIDTH;
    memcpy(best, x, (size_t)(width * bytes));
    for (int64_t i = width; i < n; i += width) {
        int64_t from = i + width <= n ? i : n - width; /* what is seen twice changes nothing */
        better_of_wholes(largest, dtype, width, x + from * bytes, best);
    }
    port_load_i64(dtype, best, bytes, width, lanes);
    for (int64_t i = 1; i < width; i++) {
        lanes[0] = (largest ? lanes[i] > lanes[0] : lanes[i] < lanes[0]) ? lanes[i] : lanes[0];
    }
    return lanes[0];
}

static bool
looks_for_truth(const reduce_op *op)
{
    return op->finish == any_finish || op->finish == all_finish;
}

/* Outputs of a dense row each. */
static void
whole_rows_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const port_view *x = job->call->in[0];
    for (int64_t j = begin; j < end; j++) {
        fold_state state = {.count = job->reduced.elems};
        int64_t in, out;
        walk_offsets(&job->kept, j, &in, &out);
        const char *row = (const char *)x->data + in;
        state.whole = looks_for_truth(job->op) ? port_whole_total(x->dtype, true, state.count, row)
                                               : extreme_of_row(job->largest, x->dtype, row, state.count);
        job->op->finish(&state, job->call, (char *)job->call->out[0]->data + out);
    }
}

/* Outputs side by side, of elements that lie a row apart each. */
static void
whole_columns_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const port_view *x = job->call->in[0], *y = job->call->out[0];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype), out_bytes = (int64_t)port_dtype_size(y->dtype), totals[PORT_BLOCK];
    _Alignas(64) char best[PORT_BLOCK * sizeof(int64_t)];
    bool truths = looks_for_truth(job->op);
    for (int64_t j = begin; j < end; j += PORT_BLOCK) {
        int64_t m = end - j < PORT_BLOCK ? end - j : PORT_BLOCK;
        const char *row = (const char *)x->data + j * bytes;
        memset(totals, 0, sizeof totals);
        memcpy(best, row, (size_t)(m * bytes));
        for (int64_t r = 0; r < job->reduced.elems; r++, row += job->reduced.in_strides[0]) {
            if (truths) {
                port_whole_totals(x->dtype, true, m, row, totals);
            } else {
                better_of_wholes(job->largest, x->dtype, m, row, best);
            }
        }
        if (!truths) {
            port_load_i64(x->dtype, best, bytes, m, totals);
        }
        for (int64_t i = 0; i < m; i++) {
            fold_state state = {.count = job->reduced.elems, .whole = totals[i]};
            job->op->finish(&state, job->call, (char *)y->data + (j + i) * out_bytes);
        }
    }
}

/* any and all of any dtype, amax and amin of integers, where whole vectors do it. False: they do not. */
static bool
wholes_run(const reduce_job *job)
{
    const port_view *x = job->call->in[0];
    char one[sizeof(int64_t)] = {0}, other[sizeof(int64_t)] = {0};
    bool can = looks_for_truth(job->op) || (port_compute_of(x->dtype) == PORT_COMPUTE_I64 && job->op->finish == store_value &&
                                            better_of_wholes(job->largest, x->dtype, 1, one, other));
    bool dense = job->reduced.ndim == 1 && job->reduced.in_strides[0] == (int64_t)port_dtype_size(x->dtype);
    if (!can || job->reduced.elems == 0 || (!dense && !in_columns(job))) {
        return false;
    }
    deal_outputs(job, dense ? whole_rows_range : whole_columns_range);
    return true;
}

/* amax and amin of doubles: outputs of a dense row each. */
static void
double_rows_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    for (int64_t j = begin; j < end; j++) {
        int64_t in, out;
        walk_offsets(&job->kept, j, &in, &out);
        double best = port_first_best_f64(job->largest, (const double *)(const void *)((const char *)job->call->in[0]->data + in), job->reduced.elems);
        memcpy((char *)job->call->out[0]->data + out, &best, sizeof best);
    }
}

/* The same of outputs side by side, of elements that lie a row apart each. */
static void
double_columns_range(const void *opaque, int64_t begin, int64_t end)
{
    const reduce_job *job = opaque;
    const char *x = job->call->in[0]->data;
    double *best = (double *)job->call->out[0]->data;
    for (int64_t j = begin; j < end; j += PORT_BLOCK) {
        int64_t m = end - j < PORT_BLOCK ? end - j : PORT_BLOCK;
        for (int64_t r = 0; r < job->reduced.elems; r++) {
            const void *row = x + j * (int64_t)sizeof(double) + r * job->reduced.in_strides[0];
            port_best_columns_f64(job->largest, r, row, m, best + j);
        }
    }
}

/* amax, amin, argmax, argmin: along a dense dimension or across one by whole vectors, else fold by fold. */
static void
best_run(const port_kernel_call *call, const reduce_op *op, bool largest)
{
    const port_view *x = call->in[0];
    reduce_job job = reduce_job_of(call, op);
    job.largest = largest;
    bool narrow = port_compute_of(x->dtype) == PORT_COMPUTE_F32;
    bool dense = job.reduced.ndim == 1 && job.reduced.in_strides[0] == (int64_t)port_dtype_size(x->dtype);
    bool doubles = x->dtype == PORT_F64 && op->finish == store_value && job.reduced.elems > 0;
    if (narrow && in_columns(&job)) {
        deal_outputs(&job, columns_range);
    } else if (doubles && (dense || in_columns(&job))) {
        deal_outputs(&job, dense ? double_rows_range : double_columns_range);
    } else if (wholes_run(&job)) {
        return;
    } else if (!narrow || !dense) {
        deal_outputs(&job, reduce_range);
    } else if (job.kept.elems == 1 && job.reduced.elems > 0) {
        best_alone(&job);
    } else if (job.reduced.elems > 0) {
        deal_outputs(&job, best_range);
    }
    if (op->finish == store_value && port_dtype_is_float(x->dtype) && ((const port_reduce_params *)call->params)->signs_in_order) {
        port_sign_zero_extremes(call, largest);
    }
}

/* ---------------------------------------------------------------- checks */

static port_status
reduce_check(const port_kernel_call *call, port_error *err)
{
    if (call->num_in < 1 || call->num_out < 1 || call->in[0] == NULL || call->out[0] == NULL || call->params == NULL) {
        return port_fail(err, PORT_E_VALUE, "reduction: expected an input, an output and the dimensions");
    }
    const port_view *x = call->in[0], *y = call->out[0];
    uint32_t dims = ((const port_reduce_params *)call->params)->dims;
    if (x->ndim != y->ndim) {
        return port_fail(err, PORT_E_SHAPE, "reduction: the output has %d dimensions, the input %d", y->ndim, x->ndim);
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        int64_t expected = (dims >> d & 1u) != 0 ? 1 : x->shape[d];
        if (y->shape[d] != expected) {
            return port_fail(err, PORT_E_SHAPE, "reduction: the output has size %lld at dimension %d, expected %lld",
                             (long long)y->shape[d], d, (long long)expected);
        }
    }
    return PORT_OK;
}

/* The largest of nothing does not exist. */
static port_status
best_check(const port_kernel_call *call, port_error *err)
{
    port_status status = reduce_check(call, err);
    if (status == PORT_OK && port_view_elems(call->in[0]) == 0 && port_view_elems(call->out[0]) > 0) {
        return port_fail(err, PORT_E_VALUE, "reduction: a maximum or minimum over no elements has no value");
    }
    return status;
}

static port_status
sum_check(const port_kernel_call *call, port_error *err)
{
    port_status status = reduce_check(call, err);
    if (status == PORT_OK && !port_dtype_is_float(call->in[0]->dtype) && call->out[0]->dtype != PORT_I64) {
        return port_fail(err, PORT_E_DTYPE, "sum: integers sum to I64, the output is %s",
                         port_dtype_name(call->out[0]->dtype));
    }
    if (status == PORT_OK && port_dtype_is_float(call->in[0]->dtype) && call->out[0]->dtype != call->in[0]->dtype) {
        return port_fail(err, PORT_E_DTYPE, "sum: the output is %s, the input %s", port_dtype_name(call->out[0]->dtype),
                         port_dtype_name(call->in[0]->dtype));
    }
    return status;
}

static port_status
index_check(const port_kernel_call *call, port_error *err)
{
    port_status status = best_check(call, err);
    if (status == PORT_OK && call->out[0]->dtype != PORT_I64) {
        return port_fail(err, PORT_E_DTYPE, "argmax, argmin: the output is %s, expected I64",
                         port_dtype_name(call->out[0]->dtype));
    }
    return status;
}

/* ---------------------------------------------------------------- rows */

#define RUN(name, f64, i64, finish) RUN_BY_FOUR(name, f64, i64, finish, NULL)
#define RUN_BY_FOUR(name, f64, i64, finish, f64_four)                                                                \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const reduce_op op = {f64, i64, finish, f64_four};                                                    \
        reduce_run(call, &op);                                                                                       \
    }
RUN(prod_whole, NULL, prod_i64, prod_finish)
#define RUN_BEST(name, f64, i64, finish, largest)                                                                    \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const reduce_op op = {f64, i64, finish, NULL};                                                        \
        best_run(call, &op, largest);                                                                                \
    }
RUN_BEST(amax, max_f64, max_i64, store_value, true)
RUN_BEST(amin, min_f64, min_i64, store_value, false)
RUN_BEST(argmax, max_f64, max_i64, store_best_idx, true)
RUN_BEST(argmin, min_f64, min_i64, store_best_idx, false)
#define RUN_VAR(name, finish)                                                                                        \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const reduce_op op = {var_f64, NULL, finish, var_f64_four};                                           \
        var_run_any(call, &op);                                                                                      \
    }
#define RUN_TRUTH(name, finish)                                                                                      \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const reduce_op op = {any_f64, any_i64, finish, NULL};                                                \
        reduce_job job = reduce_job_of(call, &op);                                                                   \
        if (!wholes_run(&job)) {                                                                                     \
            deal_outputs(&job, reduce_range);                                                                        \
        }                                                                                                            \
    }
RUN_TRUTH(any, any_finish)
RUN_TRUTH(all, all_finish)
RUN_VAR(var, var_finish)
RUN_VAR(std, std_finish)
RUN_BY_FOUR(welford_mean, var_f64, NULL, welford_mean_finish, var_f64_four)
RUN(sum_strict, sum_f64, NULL, store_value)
RUN(mean_strict, sum_f64, NULL, mean_finish)
RUN_BY_FOUR(var_strict, var_f64, NULL, var_finish, var_f64_four)
RUN_BY_FOUR(std_strict, var_f64, NULL, std_finish, var_f64_four)

#define EVERY_DTYPE(name, check)                                                                                     \
    PORT_FLOAT_ROWS(#name, "ref", 0, check, name##_run), PORT_INT_ROWS(#name, "ref", 0, check, name##_run),          \
        PORT_BOOL_ROW(#name, "ref", 0, check, name##_run)
#define SUM_ROW(name, type)                                                                                          \
    {.op = #name, .dtype = type, .variant = "ref", .check = sum_check, .scratch_bytes = port_sum_scratch_bytes,      \
     .run = port_##name##_run}

const port_kernel_row port_reduce_rows[] = {
    SUM_ROW(sum, PORT_F32),
    SUM_ROW(sum, PORT_F64),
    SUM_ROW(sum, PORT_BF16),
    SUM_ROW(sum, PORT_F16),
    PORT_INT_ROWS("sum", "ref", 0, sum_check, port_sum_run),
    PORT_BOOL_ROW("sum", "ref", 0, sum_check, port_sum_run),
    SUM_ROW(mean, PORT_F32),
    SUM_ROW(mean, PORT_F64),
    SUM_ROW(mean, PORT_BF16),
    SUM_ROW(mean, PORT_F16),
    PORT_FLOAT_ROWS("sum", "strict", 0, sum_check, sum_strict_run),
    PORT_FLOAT_ROWS("mean", "strict", 0, sum_check, mean_strict_run),
    PORT_FLOAT_ROWS("prod", "ref", 0, reduce_check, port_prod_run),
    PORT_INT_ROWS("prod", "ref", 0, reduce_check, prod_whole_run),
    PORT_BOOL_ROW("prod", "ref", 0, reduce_check, prod_whole_run),
    EVERY_DTYPE(amax, best_check),
    EVERY_DTYPE(amin, best_check),
    PORT_FLOAT_ROWS("argmax", "ref", 0, index_check, argmax_run),
    PORT_INT_ROWS("argmax", "ref", 0, index_check, argmax_run),
    PORT_FLOAT_ROWS("argmin", "ref", 0, index_check, argmin_run),
    PORT_INT_ROWS("argmin", "ref", 0, index_check, argmin_run),
    EVERY_DTYPE(any, reduce_check),
    EVERY_DTYPE(all, reduce_check),
    PORT_FLOAT_ROWS("var", "ref", 0, reduce_check, var_run),
    PORT_FLOAT_ROWS("std", "ref", 0, reduce_check, std_run),
    PORT_FLOAT_ROWS("var", "strict", 0, reduce_check, var_strict_run),
    PORT_FLOAT_ROWS("std", "strict", 0, reduce_check, std_strict_run),
    PORT_FLOAT_ROWS("welford_mean", "ref", 0, reduce_check, welford_mean_run),
    {.op = NULL},
};
