/* attention_f64.c -- scaled dot-product attention in double precision, for the float64 run that says how accurate an f32
 * result is. The formula is that of attention.c. Nobody needs the bits of ATen's float64 kernel, so its blocks are not
 * imitated: plain loops over one query at a time make scores, their maximum, exponentials and the weighted sum of values.
 * A row that sees no key gives y = 0, lse = 0.
 */
#include "loops.h"

#include <math.h>

/* One call, taken apart; `weights` is scratch for one query's scores. */
typedef struct task {
    const port_view *q, *k, *v, *mask, *y, *lse;
    double scale;
    bool is_causal;
    int64_t lanes;
    double *weights;
} task;

static int64_t
row_of(const port_view *view, int64_t b, int64_t h, int64_t t)
{
    return b * view->strides[0] + h * view->strides[1] + t * view->strides[2];
}

/* What the mask adds to a score. */
static double
mask_value(const port_view *mask, int64_t at)
{
    if (mask->dtype == PORT_BOOL) {
        return ((const uint8_t *)mask->data)[at] != 0 ? 0.0 : -(double)INFINITY;
    }
    return mask->dtype == PORT_F64 ? ((const double *)mask->data)[at] : (double)((const float *)mask->data)[at];
}

/* Scores of one query into weights[0 .. S); returns the largest, NaN if one is. Without a mask ATen overlooks NaN in keys that fill no vector, so
 * that a row of nothing else sees no key. */
static double
score_row(const task *t, int64_t b, int64_t h, int64_t query)
{
    int64_t D = t->q->shape[3], S = t->k->shape[2], group = t->q->shape[1] / t->k->shape[1];
    const double *q = (const double *)t->q->data + row_of(t->q, b, h, query);
    int64_t counted = t->mask != NULL ? S : S - S % t->lanes;
    double max = -(double)INFINITY;
    for (int64_t s = 0; s < S; s++) {
        if (t->is_causal && s > query) {
            t->weights[s] = -(double)INFINITY;
            continue;
        }
        const double *k = (const double *)t->k->data + row_of(t->k, b, h / group, s);
        double sum = 0.0;
        for (int64_t d = 0; d < D; d++) {
            sum = fma(q[d * t->q->strides[3]], k[d * t->k->strides[3]], sum);
        }
        sum *= t->scale;
        if (t->mask != NULL) {
            sum += mask_value(t->mask, row_of(t->mask, b, h, query) + s * t->mask->strides[3]);
        }
        t->weights[s] = sum;
        max = sum > max || (sum != sum && s < counted) ? sum : max;
    }
    return max;
}

static void
query_row(const task *t, int64_t b, int64_t h, int64_t query)
{
    int64_t D = t->q->shape[3], S = t->k->shape[2], group = t->q->shape[1] / t->k->shape[1];
    double max = score_row(t, b, h, query), total = 0.0;
    bool sees_none = isinf(max) && max < 0.0;
    for (int64_t s = 0; s < S; s++) {
        t->weights[s] = sees_none ? 0.0 : exp(t->weights[s] - max);
        total += t->weights[s];
    }
    double factor = sees_none ? 0.0 : 1.0 / total;
    double *y = (double *)t->y->data + row_of(t->y, b, h, query);
    for (int64_t d = 0; d < D; d++) {
        const double *v = (const double *)t->v->data + row_of(t->v, b, h / group, 0) + d * t->v->strides[3];
        double sum = 0.0;
        for (int64_t s = 0; s < S; s++) {
            sum = fma(t->weights[s], v[s * t->v->strides[2]], sum);
        }
        y[d * t->y->strides[3]] = sum * factor; /* of a row that sees none: NaN where a value is not finite */
    }
    if (t->lse != NULL) {
        double value = sees_none ? 0.0 : max + log(total);
        int64_t at = row_of(t->lse, b, h, query);
        if (t->lse->dtype == PORT_F64) {
            ((double *)t->lse->data)[at] = value;
        } else {
            ((float *)t->lse->data)[at] = (float)value;
        }
    }
}

enum { MAX_PARTS = 16 };

/* Queries go in parts, each of which has room for the weights of one. */
static port_chunks
query_parts(const port_kernel_call *call)
{
    const int64_t *shape = call->in[0]->shape;
    int32_t num_threads = call->profile->num_threads < MAX_PARTS ? call->profile->num_threads : MAX_PARTS;
    int64_t keys = call->in[1]->shape[2], width = shape[3];
    int64_t elems = (keys < INT32_MAX ? keys : INT32_MAX) * (width < INT32_MAX ? width : INT32_MAX); /* the product of both fits */
    return port_chunks_by_elems(shape[0] * shape[1] * shape[2], elems, num_threads);
}

static size_t
sdpa_f64_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)(query_parts(call).count * call->in[1]->shape[2]) * sizeof(double);
}

typedef struct query_job {
    task task;
    port_chunks parts;
    const port_kernel_call *call;
} query_job;

static void
query_part(void *opaque, int64_t part)
{
    const query_job *job = opaque;
    task t = job->task;
    const int64_t *shape = t.q->shape;
    t.weights = (double *)job->call->scratch + part * t.k->shape[2];
    for (int64_t i = part * job->parts.size; i < (part + 1) * job->parts.size && i < shape[0] * shape[1] * shape[2]; i++) {
        query_row(&t, i / shape[2] / shape[1], i / shape[2] % shape[1], i % shape[2]);
    }
}

static void
sdpa_f64_run(const port_kernel_call *call)
{
    const port_sdpa_params *params = call->params;
    query_job job = {.task = {.q = call->in[0], .k = call->in[1], .v = call->in[2], .mask = call->in[3], .y = call->out[0],
                              .lse = call->num_out > 1 ? call->out[1] : NULL, .scale = params->scale, .is_causal = params->is_causal,
                              .lanes = port_profile_lanes(call->profile, PORT_F64)},
                     .parts = query_parts(call),
                     .call = call};
    port_parallel(job.parts.size > 0 ? job.parts.count : 0, call->profile->num_threads, query_part, &job);
}

const port_kernel_row port_attention_f64_rows[] = {
    {"sdpa_flash", PORT_F64, "ref", 0, port_sdpa_check, sdpa_f64_scratch_bytes, sdpa_f64_run},
    {.op = NULL},
};
