/* train_ops.c -- what a forward pass in training mode adds: losses by class. */
#include "compose.h"
#include "floats.h"

enum { NLL_LEVELS = 8 };

/* torch's sum over samples, every step rounded to the dtype: level 0 spills into level 1 every 2^power samples, and so on. */
typedef struct nll_sum {
    port_dtype dtype;
    bool weighted;
    double loss[NLL_LEVELS], weight[NLL_LEVELS];
    int64_t power, ignored;
} nll_sum;

static int64_t
level_power(int64_t count)
{
    int64_t bits = 0;
    while (bits < 62 && (int64_t)1 << bits < count) {
        bits++;
    }
    return bits / NLL_LEVELS > 4 ? bits / NLL_LEVELS : 4;
}

/* After sample i. */
static void
spill_levels(nll_sum *sum, int64_t i)
{
    int64_t mask = ((int64_t)1 << sum->power) - 1;
    for (int32_t j = 0; j + 1 < NLL_LEVELS && (i & mask << j * sum->power) == 0; j++) {
        sum->loss[j + 1] = float_rounded(sum->dtype, sum->loss[j + 1] + sum->loss[j]);
        sum->weight[j + 1] = float_rounded(sum->dtype, sum->weight[j + 1] + sum->weight[j]);
        sum->loss[j] = sum->weight[j] = 0.0;
    }
}

/* Samples from `first` on; those whose `counts` is 0 are left out. */
static void
add_samples(nll_sum *sum, int64_t first, int64_t n, const double *x, const double *w, const bool *counts)
{
    port_dtype dtype = sum->dtype;
    for (int64_t i = 0; i < n && dtype != PORT_F32; i++) {
        if (counts[i]) {
            sum->loss[0] = float_rounded(dtype, sum->loss[0] - float_rounded(dtype, x[i] * w[i]));
            sum->weight[0] = float_rounded(dtype, sum->weight[0] + w[i]);
            spill_levels(sum, first + i);
        }
    }
    int64_t step = (int64_t)1 << sum->power;
    for (int64_t i = 0, end; i < n && dtype == PORT_F32; i = end) { /* up to and with the next sample after which level 0 spills */
        int64_t left = step - (first + i + step - 1) % step;
        end = i + left < n ? i + left : n;
        float loss = (float)sum->loss[0], weight = (float)sum->weight[0];
        for (int64_t k = i; k < end; k++) {
            loss = counts[k] ? loss - (float)x[k] * (float)w[k] : loss;
            weight = counts[k] ? weight + (float)w[k] : weight;
        }
        sum->loss[0] = (double)loss;
        sum->weight[0] = (double)weight;
        if (counts[end - 1]) {
            spill_levels(sum, first + end - 1);
        }
    }
}

static port_status
emit_number(op_call *call, double value, port_dtype dtype)
{
    port_tensor *made;
    port_status status = tensor_new(call, dtype, 0, NULL, NULL, &made);
    if (status == PORT_OK) {
        float_store(dtype, tensor_view(made).data, 0, value);
        status = emit(call, made);
    }
    return status;
}

static port_status
emit_reduced(op_call *call, const nll_sum *sum, int64_t samples)
{
    bool mean = arg_int(call, 3) == 1;
    double loss = 0.0, weight = 0.0;
    for (int32_t k = 0; k < NLL_LEVELS; k++) {
        loss = float_rounded(sum->dtype, loss + sum->loss[k]);
        weight = float_rounded(sum->dtype, weight + sum->weight[k]);
    }
    weight = sum->weighted ? weight : float_rounded(sum->dtype, (double)(samples - sum->ignored));
    port_status status = emit_number(call, samples == 0 && mean ? (double)NAN : mean ? loss / weight : loss, sum->dtype);
    return status == PORT_OK ? emit_number(call, weight, sum->dtype) : status;
}

/* The samples of a loss: `map` of them (H * W) side by side, of which each has a score for every class. */
typedef struct nll_samples {
    port_dtype dtype;
    const void *scores;
    int64_t classes, count, map, sample_stride, class_stride, ignored;
    const int64_t *targets;
    const double *weights; /* or NULL */
} nll_samples;

enum { NLL_BLOCK = 64 };

typedef struct nll_block {
    double score[NLL_BLOCK], weight[NLL_BLOCK];
    bool counts[NLL_BLOCK];
} nll_block;

/* The scores and weights of samples [first, end), the first of whose scores are at `base`, base + step, ...; a block of them is fetched side by
 * side before it is summed. */
static port_status
gather_samples(op_call *call, const nll_samples *s, int64_t base, int64_t step, int64_t first, int64_t end, nll_block *block)
{
    for (int64_t i = first; i < end; i++, base += step) {
        int64_t k = s->targets[i];
        bool counts = k != s->ignored;
        if (counts && (k < 0 || k >= s->classes)) {
            return fail_op(call, PORT_E_VALUE, "target %lld is %lld, there are %lld classes", (long long)i, (long long)k, (long long)s->classes);
        }
        block->counts[i - first] = counts;
        block->score[i - first] = counts ? float_load(s->dtype, s->scores, base + k * s->class_stride) : 0.0;
        block->weight[i - first] = counts && s->weights != NULL ? s->weights[k] : 1.0;
    }
    return PORT_OK;
}

/* Every sample into the sum, or its loss into `each` if that is not NULL. */
static port_status
take_samples(op_call *call, const nll_samples *s, nll_sum *sum, void *each)
{
    nll_block block;
    int64_t line = s->map > 1 ? s->map : s->count, step = s->map > 1 ? 1 : s->sample_stride; /* samples one step apart */
    for (int64_t first = 0, end; first < s->count; first = end) {
        int64_t place = first % line, most = line - place < NLL_BLOCK ? line - place : NLL_BLOCK;
        end = first + most;
        port_status status = gather_samples(call, s, first / line * s->sample_stride + place * step, step, first, end, &block);
        if (status != PORT_OK) {
            return status;
        }
        for (int64_t i = 0; i < most; i++) {
            double v = block.score[i], w = block.weight[i];
            sum->ignored += !block.counts[i];
            if (each != NULL) {
                float_store(s->dtype, each, first + i, !block.counts[i] ? 0.0 : s->dtype == PORT_F64 ? -v * w : (double)(-(float)v * (float)w));
            }
        }
        if (each == NULL) {
            add_samples(sum, first, most, block.score, block.weight, block.counts);
        }
    }
    return PORT_OK;
}

/* nll_loss_forward(self (N, C) or (C), target, weight, reduction, ignore_index) and nll_loss2d_forward (N, C, H, W):
 * the loss and the sum of the weights. */
static port_status
run_nll_loss(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *target = arg_tensor(call, 1), *weight = arg_tensor(call, 2),
                      *wide = NULL;
    int32_t classes = x->ndim == 1 ? 0 : 1;
    int64_t C = x->ndim > 0 ? x->shape[classes] : 0, samples = tensor_elems(target), reduction = arg_int(call, 3);
    bool fits = x->ndim == 1 ? samples == 1 : target->ndim == x->ndim - 1;
    for (int32_t d = 0; fits && x->ndim > 1 && d < target->ndim; d++) {
        fits = target->shape[d] == x->shape[d > 0 ? d + 1 : 0];
    }
    if (!fits || x->ndim < 1 || !dtype_is_float(x->dtype) || !dtype_is_integral(target->dtype) ||
        (weight != NULL && tensor_elems(weight) != C)) {
        return fail_op(call, PORT_E_SHAPE, "expected scores (N, C, ...), targets (N, ...) and weights (C)");
    }
    port_status status = tensor_cast(call, target, PORT_I64, &target);
    if (status != PORT_OK || (x->ndim > 2 && (status = tensor_contiguous(call, x, &x)) != PORT_OK) ||
        (status = tensor_contiguous(call, target, &target)) != PORT_OK ||
        (weight != NULL && ((status = tensor_cast(call, weight, PORT_F64, &wide)) != PORT_OK ||
                            (status = tensor_contiguous(call, wide, &wide)) != PORT_OK))) {
        return status;
    }
    port_dtype dtype = x->dtype;
    nll_samples all = {.dtype = dtype, .scores = tensor_view(x).data, .classes = C, .count = samples, .ignored = arg_int(call, 4),
                       .map = classes == 1 && x->shape[0] > 0 ? samples / x->shape[0] : 1, .class_stride = x->strides[classes],
                       .sample_stride = classes == 1 ? x->strides[0] : 0, .targets = (const int64_t *)tensor_view(target).data,
                       .weights = wide != NULL ? (const double *)tensor_view(wide).data : NULL};
    nll_sum sum = {.dtype = dtype, .weighted = weight != NULL, .power = level_power(samples)};
    if (reduction != 0 || x->ndim == 1) {
        status = take_samples(call, &all, &sum, NULL);
        return status == PORT_OK ? emit_reduced(call, &sum, samples) : status;
    }
    port_tensor *each;
    if ((status = tensor_new(call, dtype, target->ndim, target->shape, NULL, &each)) != PORT_OK ||
        (status = take_samples(call, &all, &sum, tensor_view(each).data)) != PORT_OK || (status = emit(call, each)) != PORT_OK) {
        return status;
    }
    return emit_number(call, 0.0, dtype);
}

#define NLL "T self, T target, T? weight, I reduction, I ignore_index"

const op_row op_train_rows[] = {
    {"nll_loss_forward", NLL, run_nll_loss, NULL, MODE_SAME, 0},
    {"nll_loss2d_forward", NLL, run_nll_loss, NULL, MODE_SAME, 0},
    {.name = NULL},
};
