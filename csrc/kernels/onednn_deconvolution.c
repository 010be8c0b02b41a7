/* onednn_deconvolution.c -- transposed convolutions with the bits of oneDNN's AVX-512 code: the contributions to an
 * output are chains of fused multiply-adds from 0 over kernel elements and channels, which are added in order (order_of), the bias last.
 *
 *     y[n,o,l * stride - padding + k * dilation] += sum over c of w[c,o,k] * x[n,c,l]
 *
 * x (N, C, ...), w (C, O / groups, ...), y (N, O, ...): row-major F32 of one to three dimensions, whatever format the reference had.
 * Source: measured on oneDNN 3.12 (Apache-2.0), whose code is made at run time. */
#include "loops.h"
#include "vecmath.h"

#include <math.h>

#define STEP 64 /* output channels that are computed together */

typedef struct deconv_plan {
    int64_t C, O, group_in, group_out, groups;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3], dilation[3]; /* depth, height, width: 1 (0) of those that are not there */
    int64_t taps, places, positions; /* products of kernel, in and out */
} deconv_plan;

static deconv_plan
plan_of(const port_kernel_call *call)
{
    const port_conv_params *p = call->params;
    const port_view *x = call->in[0], *w = call->in[1], *y = call->out[0];
    deconv_plan plan = {.C = x->shape[1], .O = y->shape[1], .groups = p->groups, .taps = 1, .places = 1, .positions = 1};
    plan.group_in = plan.C / p->groups;
    plan.group_out = plan.O / p->groups;
    for (int32_t d = 0; d < 3; d++) {
        int32_t from = d - (5 - x->ndim); /* among the dimensions that are there */
        bool there = from >= 0;
        plan.in[d] = there ? x->shape[2 + from] : 1;
        plan.out[d] = there ? y->shape[2 + from] : 1;
        plan.kernel[d] = there ? w->shape[2 + from] : 1;
        plan.stride[d] = there ? p->stride[from] : 1;
        plan.padding[d] = there ? p->padding[from] : 0;
        plan.dilation[d] = there ? p->dilation[from] : 1;
        plan.taps *= plan.kernel[d];
        plan.places *= plan.in[d];
        plan.positions *= plan.out[d];
    }
    return plan;
}

static port_status
onednn_deconv_check(const port_kernel_call *call, port_error *err)
{
    const port_conv_params *p = call->params;
    const port_view *x = call->in[0], *w = call->in[1], *bias = call->in[2], *y = call->out[0];
    bool fits = p != NULL && x->ndim >= 3 && x->ndim <= 5 && w->ndim == x->ndim && y->ndim == x->ndim && p->groups >= 1 && p->transposed;
    if (!fits || w->shape[0] != x->shape[1] || w->shape[0] % p->groups != 0 || w->shape[1] * p->groups != y->shape[1] ||
        y->shape[0] != x->shape[0] || (bias != NULL && (bias->ndim != 1 || bias->shape[0] != y->shape[1]))) {
        return port_fail(err, PORT_E_SHAPE, "onednn_deconvolution: the tensors do not fit");
    }
    for (int32_t d = 0; d < x->ndim - 2; d++) {
        if (p->stride[d] < 1 || p->dilation[d] < 1 || p->padding[d] < 0 || w->shape[2 + d] < 1 || x->shape[2 + d] < 1 ||
            y->shape[2 + d] != (x->shape[2 + d] - 1) * p->stride[d] - 2 * p->padding[d] + p->dilation[d] * (w->shape[2 + d] - 1) + 1 +
                                   p->output_padding[d]) {
            return port_fail(err, PORT_E_SHAPE, "onednn_deconvolution: dimension %d of out has size %lld", 2 + d, (long long)y->shape[2 + d]);
        }
    }
    return port_row_major_f32((const port_view *[]){x, w, y, bias}, 4, "onednn_deconvolution", err);
}

/* One kernel element's weights of STEP channels out: (channel in, STEP); and room for chains, as y. */
static size_t
onednn_deconv_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)(plan_of(call).group_in * STEP + port_view_elems(call->out[0])) * sizeof(float) + 64;
}

/* Where the place l of the input meets the output by the kernel's element k; -1: outside of it. */
static int64_t
place_of(const deconv_plan *plan, int64_t l, int64_t k)
{
    int64_t place = 0, below = 1;
    for (int32_t d = 2; d >= 0; d--) {
        int64_t at = l % plan->in[d] * plan->stride[d] - plan->padding[d] + k % plan->kernel[d] * plan->dilation[d];
        if (at < 0 || at >= plan->out[d]) {
            return -1;
        }
        place += at * below;
        below *= plan->out[d];
        l /= plan->in[d];
        k /= plan->kernel[d];
    }
    return place;
}

/* sums[o], in which a chain begins, goes on over channels of x[c] * weights[c][o], whose channels lie `step` apart in x. */
PORT_INLINE void
run_chain(const float *restrict weights, const float *restrict x, int64_t channels, int64_t step, float *restrict sums)
{
    for (int64_t c = 0; c < channels; c++) {
        float value = x[c * step];
        for (int64_t o = 0; o < STEP; o++) {
            sums[o] = fmaf(value, weights[c * STEP + o], sums[o]);
        }
    }
}

static void
chain_ref(const float *weights, const float *x, int64_t channels, int64_t step, float *sums)
{
    run_chain(weights, x, channels, step, sums);
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
chain_avx2(const float *weights, const float *x, int64_t channels, int64_t step, float *sums)
{
    run_chain(weights, x, channels, step, sums);
}
#endif

typedef void (*chain_fn)(const float *weights, const float *x, int64_t channels, int64_t step, float *sums);

/* One kernel element, whose weights are in the scratch: the channels [first, first + count) of group g from its channels [from, from + terms).
 * They join the chains in `to`, or are chains from 0 that are added to it. */
typedef struct deconv_tap {
    const port_kernel_call *call;
    const deconv_plan *plan;
    chain_fn chain;
    int64_t g, k, first, count, from, terms;
    float *to;
    bool joins;
} deconv_tap;

/* What it gives from places of the input (of all images), each of which meets an output of its own. */
static void
add_places(const void *opaque, int64_t begin, int64_t end)
{
    const deconv_tap *tap = opaque;
    const deconv_plan *plan = tap->plan;
    const float *x = tap->call->in[0]->data, *weights = tap->call->scratch;
    float *y = tap->to, sums[STEP] = {0};
    for (int64_t i = begin; i < end; i++) {
        int64_t n = i / plan->places, l = i % plan->places, at = place_of(plan, l, tap->k);
        const float *image = x + (n * plan->C + tap->g * plan->group_in + tap->from) * plan->places;
        float *made = y + (n * plan->O + tap->g * plan->group_out + tap->first) * plan->positions;
        if (at < 0) {
            continue;
        }
        if (plan->group_in == 1 && plan->group_out == 1) {
            made[at] = fmaf(image[l], weights[0], made[at]);
            continue;
        }
        for (int64_t o = 0; o < tap->count; o++) {
            sums[o] = tap->joins ? made[o * plan->positions + at] : 0.0f;
        }
        tap->chain(weights, image + l, tap->terms, plan->places, sums);
        for (int64_t o = 0; o < tap->count; o++) {
            made[o * plan->positions + at] = tap->joins ? sums[o] : made[o * plan->positions + at] + sums[o];
        }
    }
}

static void
add_tap(const deconv_tap *tap)
{
    const deconv_plan *plan = tap->plan;
    const port_kernel_call *call = tap->call;
    const float *w = call->in[1]->data;
    float *weights = call->scratch;
    for (int64_t c = 0; c < tap->terms; c++) {
        const float *from = w + ((tap->g * plan->group_in + tap->from + c) * plan->group_out + tap->first) * plan->taps + tap->k;
        for (int64_t o = 0; o < STEP; o++) {
            weights[c * STEP + o] = o < tap->count ? from[o * plan->taps] : 0.0f;
        }
    }
    port_deal(call->in[0]->shape[0] * plan->places, tap->terms * STEP / 8, call->profile->num_threads, add_places, tap);
}

/* Whether column k of the kernel reaches every output of a row that is `phase` modulo the stride. */
static bool
reaches_all(const deconv_plan *plan, int64_t phase, int64_t k)
{
    int64_t stride = plan->stride[2], pad = plan->padding[2], last = phase + (plan->out[2] - 1 - phase) / stride * stride;
    return phase + pad >= k && (last + pad - k) / stride < plan->in[2];
}

/* The order of a sum. Strides of 1: a chain over all kernel elements for each 16 channels (not of kernels whose code oneDNN does not unroll).
 * Dilated: one for each kernel element. Else one over all of them; but where rows are a multiple of the stride, a column of the
 * kernel that an output at their ends lacks has a chain of its own. Chains that follow the first of a place begin at 0 and are added to it. */
typedef enum deconv_order { BY_TAP, BY_COLUMN, BY_BLOCK } deconv_order;

enum { BLOCK = 16 };

static deconv_order
order_of(const deconv_plan *plan)
{
    bool strided = plan->stride[0] > 1 || plan->stride[1] > 1 || plan->stride[2] > 1;
    if (plan->group_in == 1 && plan->group_out == 1) {
        return BY_TAP; /* a chain over all of them, see add_places */
    }
    if (!strided && plan->taps > 1 && plan->kernel[2] < BLOCK) {
        return BY_BLOCK;
    }
    return plan->dilation[0] > 1 || plan->dilation[1] > 1 || plan->dilation[2] > 1 ? BY_TAP : BY_COLUMN;
}

/* The chain over kernel columns first, first + step, ... below end, and all rows: into y where it is the first there, else by way of `room`. */
static void
add_columns(deconv_tap tap, int64_t first, int64_t end, int64_t step, bool is_first, float *room)
{
    const deconv_plan *plan = tap.plan;
    int64_t rows = plan->kernel[0] * plan->kernel[1], width = plan->kernel[2], images = tap.call->in[0]->shape[0];
    float *y = tap.to;
    bool alone = rows == 1 && first + step >= end, apart = !is_first && !alone;
    int64_t elems = images * plan->O * plan->positions;
    if (apart) {
        memset(room, 0, (size_t)elems * sizeof *room);
        tap.to = room;
    }
    tap.joins = is_first || apart;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = first; column < end; column += step) {
            tap.k = row * width + column;
            add_tap(&tap);
        }
    }
    for (int64_t i = 0; apart && i < elems; i++) {
        y[i] += room[i];
    }
}

/* All kernel elements of the channels that a tap names. */
static void
add_channels(deconv_tap tap, float *room)
{
    const deconv_plan *plan = tap.plan;
    deconv_order order = order_of(plan);
    int64_t stride = plan->stride[2], width = plan->kernel[2];
    if (order == BY_BLOCK) {
        for (tap.from = 0; tap.from < plan->group_in; tap.from += BLOCK) {
            tap.terms = plan->group_in - tap.from < BLOCK ? plan->group_in - tap.from : BLOCK;
            add_columns(tap, 0, width, 1, tap.from == 0, room);
        }
        return;
    }
    for (tap.k = 0; order == BY_TAP && tap.k < plan->taps; tap.k++) {
        add_tap(&tap);
    }
    for (int64_t first = 0; order == BY_COLUMN && first < stride && first < width; first++) { /* columns of other phases meet other outputs */
        int64_t phase = (first + stride - plan->padding[2] % stride) % stride;
        for (int64_t column = first, end; column < width; column = end) {
            bool joined = plan->out[2] % stride != 0 || reaches_all(plan, phase, column);
            end = column + stride;
            while (joined && end < width && (plan->out[2] % stride != 0 || reaches_all(plan, phase, end))) {
                end += stride;
            }
            add_columns(tap, column, end < width ? end : width, stride, column == first, room);
        }
    }
}

static void
onednn_deconv_run(const port_kernel_call *call, chain_fn chain)
{
    deconv_plan plan = plan_of(call);
    const float *bias = call->in[2] == NULL ? NULL : call->in[2]->data;
    float *y = call->out[0]->data, *room = (float *)call->scratch + plan.group_in * STEP;
    int64_t elems = call->in[0]->shape[0] * plan.O * plan.positions;
    memset(y, 0, (size_t)elems * sizeof *y);
    for (int64_t g = 0; g < plan.groups; g++) {
        for (int64_t first = 0; first < plan.group_out; first += STEP) {
            int64_t count = plan.group_out - first < STEP ? plan.group_out - first : STEP;
            add_channels((deconv_tap){.call = call, .plan = &plan, .chain = chain, .g = g, .first = first, .count = count,
                                      .terms = plan.group_in, .to = y}, room);
        }
    }
    for (int64_t i = 0; bias != NULL && i < elems; i++) {
        y[i] += bias[i / plan.positions % plan.O];
    }
}

static void
onednn_deconv_run_ref(const port_kernel_call *call)
{
    onednn_deconv_run(call, chain_ref);
}

#if PORT_HAVE_AVX2
static void
onednn_deconv_run_avx2(const port_kernel_call *call)
{
    onednn_deconv_run(call, chain_avx2);
}
#endif

const port_kernel_row port_onednn_deconvolution_rows[] = {
#if PORT_HAVE_AVX2
    {"onednn_deconvolution", PORT_F32, "avx2", 1, onednn_deconv_check, onednn_deconv_scratch_bytes, onednn_deconv_run_avx2},
#endif
    {"onednn_deconvolution", PORT_F32, "ref", 0, onednn_deconv_check, onednn_deconv_scratch_bytes, onednn_deconv_run_ref},
    {.op = NULL},
};
