/* train_ops.c -- what a forward pass in training mode adds: losses by class. */
#include "compose.h"
#include "floats.h"

enum { NLL_LEVELS = 8 };

/* torch's sum over samples: level 0 spills into level 1 every 2^power samples, and so on. */
typedef struct nll_sum {
    float loss[NLL_LEVELS], weight[NLL_LEVELS];
    double wide_loss, wide_weight;
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

static void
add_sample(nll_sum *sum, int64_t i, double x, double w, bool weighted)
{
    sum->loss[0] -= weighted ? (float)x * (float)w : (float)x;
    sum->weight[0] += (float)w;
    sum->wide_loss -= x * w;
    sum->wide_weight += w;
    int64_t mask = ((int64_t)1 << sum->power) - 1;
    for (int32_t j = 0; j + 1 < NLL_LEVELS && (i & mask << j * sum->power) == 0; j++) {
        sum->loss[j + 1] += sum->loss[j];
        sum->weight[j + 1] += sum->weight[j];
        sum->loss[j] = sum->weight[j] = 0.0f;
    }
}

static port_status
emit_number(op_call *call, double value, port_dtype dtype)
{
    const port_tensor *made;
    port_status status = scalar_to_tensor(call, (port_scalar){PORT_SCALAR_FLOAT, 0, value}, dtype, &made);
    return status == PORT_OK ? emit(call, made) : status;
}

static port_status
emit_reduced(op_call *call, const nll_sum *sum, int64_t samples, bool weighted, port_dtype dtype)
{
    bool mean = arg_int(call, 3) == 1, narrow = dtype != PORT_F64;
    double loss = sum->wide_loss, weight = weighted ? sum->wide_weight : (double)(samples - sum->ignored);
    if (narrow) {
        float narrow_loss = 0.0f, narrow_weight = 0.0f;
        for (int32_t k = 0; k < NLL_LEVELS; k++) {
            narrow_loss += sum->loss[k];
            narrow_weight += sum->weight[k];
        }
        narrow_weight = weighted ? narrow_weight : (float)weight;
        loss = (double)(mean ? narrow_loss / narrow_weight : narrow_loss);
        weight = (double)narrow_weight;
    } else if (mean) {
        loss /= weight;
    }
    port_status status = emit_number(call, samples == 0 && mean ? (double)NAN : loss, dtype);
    return status == PORT_OK ? emit_number(call, weight, dtype) : status;
}

/* nll_loss_forward(self (N, C) or (C), target, weight, reduction, ignore_index) and nll_loss2d_forward (N, C, H, W):
 * the loss and the sum of the weights. */
static port_status
run_nll_loss(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *target = arg_tensor(call, 1), *weight = arg_tensor(call, 2),
                      *wide = NULL;
    int32_t classes = x->ndim == 1 ? 0 : 1;
    int64_t C = x->ndim > 0 ? x->shape[classes] : 0, samples = tensor_elems(target), reduction = arg_int(call, 3),
            ignored = arg_int(call, 4);
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
    port_tensor *each;
    const port_tensor *result;
    port_dtype dtype = x->dtype;
    if ((status = tensor_new(call, PORT_F64, target->ndim, target->shape, NULL, &each)) != PORT_OK) {
        return status;
    }
    int64_t map = classes == 1 && x->shape[0] > 0 ? samples / x->shape[0] : 1; /* samples that lie side by side: H * W */
    int64_t sample_stride = classes == 1 ? x->strides[0] : 0, class_stride = x->strides[classes];
    const void *scores = tensor_view(x).data;
    const double *weights = wide != NULL ? (const double *)tensor_view(wide).data : NULL;
    const int64_t *class_of = (const int64_t *)tensor_view(target).data;
    double *loss = (double *)tensor_view(each).data;
    nll_sum sum = {.power = level_power(samples)};
    for (int64_t i = 0; i < samples; i++) {
        int64_t k = class_of[i];
        loss[i] = 0.0;
        if (k == ignored) {
            sum.ignored++;
            continue;
        }
        if (k < 0 || k >= C) {
            return fail_op(call, PORT_E_VALUE, "target %lld is %lld, there are %lld classes", (long long)i,
                           (long long)k, (long long)C);
        }
        double v = float_load(dtype, scores, i / map * sample_stride + k * class_stride + i % map), w = weights != NULL ? weights[k] : 1.0;
        loss[i] = dtype == PORT_F64 ? -v * w : (double)(-(float)v * (float)w);
        add_sample(&sum, i, v, w, weights != NULL);
    }
    if (reduction != 0 || x->ndim == 1) {
        return emit_reduced(call, &sum, samples, weights != NULL, dtype);
    }
    status = tensor_cast(call, each, dtype, &result);
    if (status != PORT_OK || (status = emit(call, result)) != PORT_OK) {
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
