/* batch_ops.c -- batch norm over (N, C, ...) with the statistics of the batch, which also renew the running ones, or
 * with the running ones; instance norm is this over (1, N C, ...).
 *     mean = sum x / n,  v = sum (x - mean)^2,  i = 1 / sqrt(v / n + eps),  y = x * (i weight) + (bias - mean (i weight))
 * The statistics are kept in the dtype of the parameters, and read back from there. Sums of F32 run in double over
 * row-major frames, in F32 over channels-last ones; of halves in F32, by vectors.
 * Source: at::native batch_norm_kernel.cpp, Normalization.cpp (BSD-3-Clause; restated). */
#include "compose.h"
#include "floats.h"

enum { LANES = 8, FEW_CHANNELS = 16 }; /* LANES: of floats, with avx512 too */

/* One channel of x, and how the reference sums it up. */
typedef struct channel_sum {
    port_dtype dtype, param; /* of x, of the statistics */
    int32_t ndim;
    bool channels_last, fused;
    int64_t run; /* of squares in double that the reference takes two at a time, and fuses the odd one; 1: each by itself */
    int64_t batch, frame, n, num_threads;
    const char *data; /* (N, C, frame) or (N, frame, C), dense */
    int64_t image_step, pixel_step;
} channel_sum;

/* What is summed: x, or squared, its distance from the mean. */
static double
term(const channel_sum *s, const char *data, int64_t i, const double *mean)
{
    double x = float_load(s->dtype, data, i);
    return mean != NULL ? float_rounded(s->dtype == PORT_F64 ? PORT_F64 : PORT_F32, x - *mean) : x;
}

/* sum + term, in F32; squares are fused with the sum under avx2 and up. */
static float
add_term(const channel_sum *s, float sum, float v, bool square)
{
    return !square ? sum + v : (s->fused ? fmaf(v, v, sum) : sum + v * v);
}

/* Of halves, row-major: whole vectors of them into lanes of floats, the rest of each frame beside them; no square is fused with a sum. */
static double
sum_halves(const channel_sum *s, const char *data, const double *mean)
{
    float lane[LANES] = {0.0f}, rest = 0.0f;
    for (int64_t b = 0; b < s->batch; b++) {
        int64_t whole = s->frame - s->frame % (2 * LANES);
        for (int64_t i = 0; i < s->frame; i++) {
            float v = (float)term(s, data, b * s->image_step + i, mean), *to = i < whole ? &lane[i % LANES] : &rest;
            *to += mean != NULL ? v * v : v;
        }
    }
    for (int32_t k = 1; k < LANES; k++) {
        lane[0] += lane[k];
    }
    return (double)(rest + lane[0]);
}

/* Elements begin ... end one after the other, in double, or `narrow`, in F32. */
static double
sum_range(const channel_sum *s, const char *data, const double *mean, int64_t begin, int64_t end, bool narrow)
{
    double sum = 0.0;
    for (int64_t i = begin; i < end; i++) {
        double v = term(s, data, i / s->frame * s->image_step + i % s->frame * s->pixel_step, mean);
        if (narrow) {
            sum = (double)add_term(s, (float)sum, (float)v, mean != NULL);
        } else if (s->dtype == PORT_F64) {
            bool alone = s->run % 2 != 0 && i % s->run == s->run - 1;
            sum = mean == NULL ? sum + v : (s->fused && alone ? fma(v, v, sum) : sum + v * v);
        } else {
            sum += mean == NULL ? v : (double)((float)v * (float)v);
        }
    }
    return sum;
}

/* Row-major frames in double; channels-last ones in a part for each thread, in the dtype of computation. With no more elements than threads
 * the reference takes few channels together, by vectors and in that dtype, and many one by one in double. */
static double
sum_in_order(const channel_sum *s, const char *data, const double *mean)
{
    bool narrow = s->dtype != PORT_F64, half = narrow && s->dtype != PORT_F32;
    if (!s->channels_last || s->n <= s->num_threads) {
        bool together = half || (s->channels_last && s->pixel_step <= FEW_CHANNELS);
        channel_sum alone = *s;
        alone.fused = s->fused && !half && (together || s->dtype == PORT_F64);
        alone.run = together ? 1 : (s->channels_last ? s->n : s->frame);
        return sum_range(&alone, data, mean, 0, s->n, narrow && together);
    }
    int64_t part = (s->n + s->num_threads - 1) / s->num_threads;
    double sum = 0.0;
    for (int64_t begin = 0; begin < s->n; begin += part) {
        int64_t end = begin + part < s->n ? begin + part : s->n;
        sum += sum_range(s, data, mean, begin, end, narrow);
        sum = half ? (double)(float)sum : sum;
    }
    return sum;
}

static double
sum_channel(const channel_sum *s, int64_t channel, const double *mean)
{
    int64_t step = s->channels_last ? 1 : s->frame;
    const char *data = s->data + channel * step * (int64_t)port_dtype_size(s->dtype);
    bool half = s->dtype == PORT_BF16 || s->dtype == PORT_F16;
    return half && !s->channels_last ? sum_halves(s, data, mean) : sum_in_order(s, data, mean);
}

typedef struct running {
    const port_tensor *mean, *var; /* NULL: none */
    double momentum, eps;
} running;

/* Every product is rounded, but that of the momentum and a variance; of BF16 the momentum too. F64 and F16 round the sum alone. */
static void
renew(const port_tensor *t, int64_t c, double momentum, double v, bool variance)
{
    char *data = tensor_view(t).data;
    double before = float_load(t->dtype, data, c * t->strides[0]), after = momentum * v + (1.0 - momentum) * before;
    if (t->dtype == PORT_F32) {
        float share = (float)momentum, kept = (1.0f - share) * (float)before;
        after = variance ? (double)share * v + (double)kept : (double)(share * (float)v + kept);
    } else if (t->dtype == PORT_BF16) {
        double share = float_rounded(PORT_BF16, momentum), kept = float_rounded(PORT_BF16, 1.0 - share);
        after = (variance ? share * v : float_rounded(PORT_BF16, share * v)) + float_rounded(PORT_BF16, kept * before);
    }
    float_store(t->dtype, data, c * t->strides[0], after);
}

/* mean, i and i * weight of every channel. */
static void
channel_statistics(const channel_sum *s, const running *r, const port_tensor *weight, int64_t channels, void *means,
                   void *inverses, void *factors)
{
    port_dtype wide = s->dtype == PORT_F64 ? PORT_F64 : PORT_F32, sums = s->dtype == PORT_F32 ? PORT_F64 : wide;
    for (int64_t c = 0; c < channels; c++) {
        double n = (double)s->n, exact = float_rounded(sums, sum_channel(s, c, NULL) / n), mean = float_rounded(s->param, exact);
        /* The mean of halves as it was before it was kept, but of BF16 channels-last. */
        bool own = s->dtype == PORT_F16 || (s->dtype == PORT_BF16 && !s->channels_last);
        double v = sum_channel(s, c, own ? &exact : &mean);
        v = s->param == PORT_F16 ? v : float_rounded(s->param, v); /* F16 alone is not rounded here */
        port_dtype divided = s->param == PORT_F16 ? PORT_F32 : s->param;
        double even = float_rounded(divided, v / n), unbiased = float_rounded(divided, v / (n - 1.0));
        double inverse = even != 0.0 || r->eps != 0.0 ? float_rounded(s->param, 1.0 / sqrt(even + r->eps)) : 0.0;
        double factor = weight != NULL ? float_load(weight->dtype, tensor_view(weight).data, c * weight->strides[0]) : 1.0;
        float_store(s->param, means, c, mean);
        float_store(s->param, inverses, c, inverse);
        float_store(wide, factors, c, inverse * factor);
        if (r->mean != NULL) {
            renew(r->mean, c, r->momentum, s->param == PORT_F16 ? exact : mean, false);
        }
        if (r->var != NULL) {
            renew(r->var, c, r->momentum, unbiased, true);
        }
    }
}

/* What the statistics are kept in: x's dtype, but F32 for halves of which a parameter is F32. */
static port_dtype
statistics_dtype(const op_call *call, const port_tensor *x, int32_t num_parameters)
{
    bool wide = false;
    for (int32_t k = 1; k <= num_parameters; k++) {
        const port_tensor *t = arg_tensor(call, k);
        wide = wide || (t != NULL && t->dtype == PORT_F32);
    }
    return wide && x->dtype != PORT_F64 ? PORT_F32 : x->dtype;
}

static port_status
check_batch(op_call *call, const port_tensor *x, int32_t num_parameters)
{
    if (x->ndim < 2 || !dtype_is_float(x->dtype)) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, ...) of floats, got %d dimensions of %s", x->ndim,
                       port_dtype_name(x->dtype));
    }
    for (int32_t k = 1; k <= num_parameters; k++) {
        const port_tensor *t = arg_tensor(call, k);
        if (t != NULL && (t->ndim != 1 || t->shape[0] != x->shape[1] || !dtype_is_float(t->dtype))) {
            return fail_op(call, PORT_E_SHAPE, "parameter %d is not (%lld) of floats", k, (long long)x->shape[1]);
        }
    }
    return PORT_OK;
}

/* Emits x * a + (bias - mean * a), a = weight / sqrt(var + eps), of (x, weight or NULL, bias or NULL, mean, var), in which the reference has
 * parameters of dtype `param`. */
static port_status
normalise_channels(op_call *call, const port_tensor *const *given, port_dtype param, double eps)
{
    const port_tensor *x = given[0], *in[5], *result;
    port_dtype wide = x->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    port_batch_norm_params params = {.eps = eps, .rounded_product = param == PORT_F16};
    port_tensor *out;
    int64_t strides[PORT_MAX_NDIM];
    port_status status = PORT_OK;
    for (int32_t k = 0; k < 5; k++) {
        in[k] = given[k];
        status = status == PORT_OK && in[k] != NULL ? tensor_cast(call, in[k], wide, &in[k]) : status;
    }
    format_strides(x->ndim, x->shape, tensor_suggests_channels_last(x), strides);
    if (status != PORT_OK || (status = tensor_new(call, wide, x->ndim, x->shape, strides, &out)) != PORT_OK ||
        (status = launch_tensors(call, "batch_norm", out->dtype, in, 5, (const port_tensor *const[]){out}, 1, &params)) != PORT_OK ||
        (status = tensor_cast(call, out, x->dtype, &result)) != PORT_OK) {
        return status;
    }
    return emit(call, result);
}

/* Whether x lies row-major or channels-last without gaps: the reference takes other tensors element by element. */
static bool
is_dense(op_call *call, const port_tensor *x)
{
    const port_tensor *laid = NULL;
    return tensor_is_contiguous(x) || ((x->ndim == 4 || x->ndim == 5) &&
                                       tensor_in_format(call, x, true, &laid) == PORT_OK && laid == x);
}

/* Tensors that are not dense: means by mean, variances in double, ((x - mean) * i) * weight + bias, each step rounded; without a bias 0 is
 * added, after which no result is -0. */
#define STATISTICS                                                                                                    \
    "m = mean.dim(input, dims, dtype=param); mean = view(m, each); x = _to_copy(input, dtype=F64); "  \
    "x = sub.Tensor(x, mean); x = mul.Tensor(x, x); v = sum.dim_IntList(x, dims); u = div.Scalar(v, others); "         \
    "v = div.Scalar(v, count); e = add.Scalar(v, eps); i = sqrt(e); i = reciprocal(i); i = _to_copy(i, dtype=param); "
#define RENEWED                                                                                                        \
    "?running_mean: n = _to_copy(m, dtype=F64); ?running_mean: n = mul.Scalar(n, momentum); "                          \
    "?running_mean: r = _to_copy(running_mean, dtype=F64); ?running_mean: r = mul.Scalar(r, kept); "                   \
    "?running_mean: r = add.Tensor(n, r); ?running_mean: r = copy_(running_mean, r); "                                 \
    "?running_var: u = mul.Scalar(u, momentum); ?running_var: r = _to_copy(running_var, dtype=F64); "                  \
    "?running_var: r = mul.Scalar(r, kept); ?running_var: r = add.Tensor(u, r); ?running_var: r = copy_(running_var, r); "
#define GIVEN                                                                                                          \
    "m = alias(running_mean); mean = view(m, each); e = add.Scalar(running_var, eps); i = sqrt(e); i = reciprocal(i); "
#define EACH                                                                                                           \
    "i_each = view(i, each); y = sub.Tensor(input, mean); y = mul.Tensor(y, i_each); ?weight: w = view(weight, each); " \
    "?weight: y = mul.Tensor(y, w); ?bias: b = view(bias, each); ?bias: y = add.Tensor(y, b); "        \
    "!bias: y = add.Scalar(y, 0); "                                                                                   \
    "y = _to_copy(y, dtype=input.dtype); y = clone(y, memory_format=format) -> y"

static port_status
run_strided(op_call *call, bool training, bool no_stats, double momentum, double eps)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_arg dims[PORT_MAX_NDIM], each[PORT_MAX_NDIM];
    int32_t count = 0;
    for (int32_t d = 0; d < x->ndim; d++) {
        each[d] = (port_arg){.kind = PORT_ARG_INT, .i = d == 1 ? -1 : 1, .d = d == 1 ? -1.0 : 1.0};
        if (d != 1) {
            dims[count++] = (port_arg){.kind = PORT_ARG_INT, .i = d, .d = d};
        }
    }
    double n = (double)(tensor_elems(x) / x->shape[1]);
    int64_t format = !tensor_suggests_channels_last(x) ? PORT_FORMAT_CONTIGUOUS
                     : x->ndim == 4                    ? PORT_FORMAT_CHANNELS_LAST
                                                       : PORT_FORMAT_CHANNELS_LAST_3D;
    const port_named_arg extra[] = {
        {"param", {.kind = PORT_ARG_DTYPE, .i = statistics_dtype(call, x, no_stats ? 2 : 4)}},
        {"dims", {.kind = PORT_ARG_LIST, .items = dims, .num_items = count}},
        {"each", {.kind = PORT_ARG_LIST, .items = each, .num_items = x->ndim}},
        {"format", {.kind = PORT_ARG_MEMORY_FORMAT, .i = format}},
        {"count", {.kind = PORT_ARG_FLOAT, .d = n}},
        {"others", {.kind = PORT_ARG_FLOAT, .d = n - 1.0}},
        {"kept", {.kind = PORT_ARG_FLOAT, .d = 1.0 - momentum}},
        {"eps", {.kind = PORT_ARG_FLOAT, .d = eps}},
    };
    const int32_t num_extra = (int32_t)(sizeof extra / sizeof *extra);
    if (!training) {
        return run_formula(call, GIVEN EACH, extra, num_extra);
    }
    return run_formula(call, no_stats ? STATISTICS EACH ", m, i" : STATISTICS RENEWED EACH ", m, i", extra, num_extra);
}

/* Fills means, inverses and factors of x, which is dense, and renews the running statistics. */
static port_status
batch_statistics(op_call *call, port_dtype param, const running *r, port_tensor *const *made)
{
    const port_tensor *x = arg_tensor(call, 0), *const renewed[2] = {r->mean, r->var};
    for (int32_t k = 0; k < 2; k++) {
        port_status status = renewed[k] != NULL ? buffer_make_writable(renewed[k]->buffer, call->err) : PORT_OK;
        if (status != PORT_OK) {
            return status;
        }
    }
    const port_profile *profile = &call->options->profile;
    int64_t channels = x->shape[1], frame = tensor_elems(x) / x->shape[0] / channels;
    bool channels_last = frame == 1 || !tensor_is_contiguous(x);
    channel_sum s = {.dtype = x->dtype,
                     .param = param,
                     .channels_last = channels_last,
                     .fused = profile->capability != PORT_CAP_DEFAULT,
                     .run = 1,
                     .batch = x->shape[0],
                     .frame = frame,
                     .n = x->shape[0] * frame,
                     .num_threads = profile->num_threads,
                     .data = tensor_view(x).data,
                     .image_step = channels * frame,
                     .pixel_step = channels_last ? channels : 1};
    channel_statistics(&s, r, arg_tensor(call, 1), channels, tensor_view(made[0]).data, tensor_view(made[1]).data,
                       tensor_view(made[2]).data);
    return PORT_OK;
}

/* The norm with the batch's statistics; emits y, mean and i. */
static port_status
run_training(op_call *call, int32_t num_parameters, int32_t momentum_idx)
{
    const port_tensor *x = arg_tensor(call, 0);
    running r = {.momentum = arg_double(call, momentum_idx, 0.1), .eps = arg_double(call, momentum_idx + 1, 1e-5)};
    port_status status = check_batch(call, x, num_parameters);
    if (status == PORT_OK && tensor_elems(x) == 0) {
        return fail_op(call, PORT_E_SHAPE, "no elements to sum up");
    }
    if (status != PORT_OK || !is_dense(call, x)) {
        return status != PORT_OK ? status : run_strided(call, true, num_parameters == 2, r.momentum, r.eps);
    }
    if (num_parameters == 4) {
        r.mean = arg_tensor(call, 3);
        r.var = arg_tensor(call, 4);
    }
    port_dtype param = statistics_dtype(call, x, num_parameters), wide = x->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    const port_dtype kinds[4] = {param, param, wide, wide}; /* mean, i, i * weight, a variance of 1 */
    port_tensor *made[4];
    for (int32_t k = 0; k < 4; k++) {
        if ((status = tensor_new(call, kinds[k], 1, &x->shape[1], NULL, &made[k])) != PORT_OK) {
            return status;
        }
    }
    const port_tensor *in[5] = {x, made[2], arg_tensor(call, 2), made[0], made[3]};
    if ((status = batch_statistics(call, param, &r, made)) != PORT_OK ||
        (status = tensor_fill(call, made[3], (port_scalar){PORT_SCALAR_FLOAT, 0, 1.0})) != PORT_OK ||
        (status = normalise_channels(call, in, param, 0.0)) != PORT_OK || (status = emit(call, made[0])) != PORT_OK) {
        return status;
    }
    return emit(call, made[1]);
}

/* The norm with the running statistics; the statistics that training would save are empty. */
static port_status
run_given(op_call *call, int32_t eps_idx)
{
    const port_tensor *x = arg_tensor(call, 0);
    const port_tensor *const in[5] = {x, arg_tensor(call, 1), arg_tensor(call, 2), arg_tensor(call, 3), arg_tensor(call, 4)};
    double eps = arg_double(call, eps_idx, 1e-5);
    port_tensor *none;
    int64_t zero = 0;
    port_dtype param = statistics_dtype(call, x, 4);
    port_status status = check_batch(call, x, 4);
    if (status == PORT_OK && (in[3] == NULL || in[4] == NULL)) {
        return fail_op(call, PORT_E_VALUE, "mean and variance are missing");
    }
    if (status == PORT_OK) {
        status = tensor_elems(x) == 0 || is_dense(call, x) ? normalise_channels(call, in, param, eps)
                                                           : run_strided(call, false, false, 0.0, eps);
    }
    if (status != PORT_OK || (status = tensor_new(call, param, 1, &zero, NULL, &none)) != PORT_OK ||
        (status = emit(call, none)) != PORT_OK) {
        return status;
    }
    return emit(call, none);
}

/* _native_batch_norm_legit_no_training(input, weight, bias, running_mean, running_var, momentum, eps) */
static port_status
run_no_training(op_call *call)
{
    return run_given(call, 6);
}

/* Batch norm: (input, weight, bias, [running_mean, running_var,] [training,] momentum, eps). */
static port_status
run_batch_norm(op_call *call)
{
    bool no_stats = strstr(call->row->name, "no_stats") != NULL, update = strstr(call->row->name, "with_update") != NULL;
    int32_t training_idx = no_stats ? 3 : 5, num_parameters = no_stats ? 2 : 4;
    if (!no_stats && !update && !arg_bool(call, training_idx)) {
        return run_given(call, 7);
    }
    port_status status = run_training(call, num_parameters, update ? 5 : training_idx + 1);
    if (status != PORT_OK || !update) {
        return status;
    }
    int64_t none = 0;
    port_tensor *reserve;
    status = tensor_new(call, PORT_U8, 1, &none, NULL, &reserve);
    return status == PORT_OK ? emit(call, reserve) : status;
}

#define AFFINE "T input, T? weight, T? bias, "

const op_row op_batch_rows[] = {
    {"_native_batch_norm_legit_no_training", AFFINE "T running_mean, T running_var, F momentum, F eps", run_no_training,
     "batch_norm", MODE_SAME, 0},
    {"native_batch_norm", AFFINE "T? running_mean, T? running_var, B training, F momentum, F eps", run_batch_norm, NULL,
     MODE_SAME, OP_CHANGES},
    {"_native_batch_norm_legit", AFFINE "T running_mean, T running_var, B training, F momentum, F eps", run_batch_norm,
     NULL, MODE_SAME, OP_CHANGES},
    {"_native_batch_norm_legit.no_stats", AFFINE "B training, F momentum, F eps", run_batch_norm, NULL, MODE_SAME, 0},
    {"_batch_norm_with_update", AFFINE "T running_mean, T running_var, F momentum, F eps", run_batch_norm, NULL,
     MODE_SAME, OP_CHANGES},
    {.name = NULL},
};
