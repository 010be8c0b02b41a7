/* loss_ops.c -- losses that are loops of their own: connectionist temporal classification, margins of several classes.
 * Margins of classes are summed in the dtype, those of labels in double; frames' sums in double.
 * Source: at::native LossCTC.cpp, LossMultiMargin.cpp, LossMultiLabelMargin.cpp (BSD-3-Clause; restated). */
#include "exec.h"
#include "floats.h"

/* ---------------------------------------------------------------- _ctc_loss */

/* One sequence: log_probs in steps of classes, alpha in rows of `width` places. */
typedef struct ctc_item {
    const char *log_probs;
    int64_t step_bytes, class_bytes;
    const int64_t *targets;
    int64_t num_steps, num_targets, blank, width;
} ctc_item;

/* The label at a place of the sequence with blanks between, before and after all labels. */
static int64_t
ctc_label(const ctc_item *item, int64_t place)
{
    return place % 2 == 0 ? item->blank : item->targets[place / 2];
}

/* alpha(t, s) = log(e^alpha(t-1, s) + e^alpha(t-1, s-1) + e^alpha(t-1, s-2)) + p(t, label of s); returns -log of the likelihood. */
#define CTC_FORWARD(real, exponential, logarithm)                                                                    \
    static real ctc_log_sum_##real(real a, real b, real c)                                                           \
    {                                                                                                                \
        real most = a;                                                                                               \
        most = b > most ? b : most;                                                                                  \
        most = c > most ? c : most;                                                                                  \
        most = most == -(real)INFINITY ? 0 : most;                                                                   \
        return logarithm(exponential(a - most) + exponential(b - most) + exponential(c - most)) + most;              \
    }                                                                                                                \
    static real ctc_prob_##real(const ctc_item *item, int64_t t, int64_t place)                                      \
    {                                                                                                                \
        real p;                                                                                                      \
        memcpy(&p, item->log_probs + t * item->step_bytes + ctc_label(item, place) * item->class_bytes, sizeof p);   \
        return p;                                                                                                    \
    }                                                                                                                \
    static real ctc_forward_##real(const ctc_item *item, real *alpha)                                                \
    {                                                                                                                \
        const real never = -(real)INFINITY;                                                                          \
        int64_t places = 2 * item->num_targets + 1;                                                                  \
        for (int64_t s = 0; s < item->width; s++) {                                                                  \
            alpha[s] = never;                                                                                        \
        }                                                                                                            \
        if (item->num_steps == 0) {                                                                                  \
            return item->num_targets == 0 ? -(real)0 : -never;                                                       \
        }                                                                                                            \
        for (int64_t s = 0; s < 2 && s < places; s++) {                                                              \
            alpha[s] = ctc_prob_##real(item, 0, s);                                                                  \
        }                                                                                                            \
        for (int64_t t = 1; t < item->num_steps; t++) {                                                              \
            const real *before = alpha;                                                                              \
            alpha += item->width;                                                                                    \
            for (int64_t s = 0; s < places; s++) {                                                                   \
                bool skips = s > 1 && ctc_label(item, s - 2) != ctc_label(item, s);                                  \
                alpha[s] = ctc_log_sum_##real(before[s], s > 0 ? before[s - 1] : never,                              \
                                              skips ? before[s - 2] : never) +                                       \
                           ctc_prob_##real(item, t, s);                                                              \
            }                                                                                                        \
        }                                                                                                            \
        return places == 1 ? -alpha[0] : -ctc_log_sum_##real(alpha[places - 1], alpha[places - 2], never);           \
    }
CTC_FORWARD(float, expf, logf)
CTC_FORWARD(double, exp, log)

/* A list of ints, or a tensor of integers, as a row-major tensor of I64. */
static port_status
as_lengths(op_call *call, int32_t idx, const port_tensor **out)
{
    const port_tensor *given = arg_tensor(call, idx);
    if (given != NULL) {
        if (given->ndim != 1 || !dtype_is_integral(given->dtype)) {
            return fail_op(call, PORT_E_DTYPE, "lengths of %s in %d dimensions", port_dtype_name(given->dtype), given->ndim);
        }
        port_status status = tensor_cast(call, given, PORT_I64, &given);
        return status == PORT_OK ? tensor_contiguous(call, given, out) : status;
    }
    int64_t len = arg_len(call, idx);
    port_tensor *made = NULL;
    port_status status = tensor_new(call, PORT_I64, 1, &len, NULL, &made);
    for (int64_t k = 0; status == PORT_OK && k < len; k++) {
        ((int64_t *)tensor_view(made).data)[k] = arg_int_at(call, idx, k);
    }
    *out = made;
    return status;
}

/* Lengths within what there is, labels within the classes. *longest: of the targets. */
static port_status
check_ctc(op_call *call, const port_tensor *x, const port_tensor *targets, const int64_t *steps, const int64_t *counts,
          int64_t *longest)
{
    int64_t T = x->shape[0], B = x->shape[1], C = x->shape[2], blank = arg_int(call, 4), used = 0;
    const int64_t *labels = (const int64_t *)tensor_view(targets).data;
    bool together = targets->ndim == 1;
    *longest = 0;
    if (blank < 0 || blank >= C) {
        return fail_op(call, PORT_E_VALUE, "the blank is class %lld of %lld", (long long)blank, (long long)C);
    }
    for (int64_t b = 0; b < B; b++) {
        int64_t room = together ? tensor_elems(targets) - used : targets->shape[1], first = together ? used : b * targets->shape[1];
        if (steps[b] < 0 || steps[b] > T || counts[b] < 0 || counts[b] > room) {
            return fail_op(call, PORT_E_VALUE, "sequence %lld has %lld steps and %lld labels; there are %lld and %lld", (long long)b,
                           (long long)steps[b], (long long)counts[b], (long long)T, (long long)room);
        }
        for (int64_t k = 0; k < counts[b]; k++) {
            if (labels[first + k] < 0 || labels[first + k] >= C) {
                return fail_op(call, PORT_E_VALUE, "label %lld of sequence %lld is class %lld of %lld", (long long)k, (long long)b,
                               (long long)labels[first + k], (long long)C);
            }
        }
        used += counts[b];
        *longest = counts[b] > *longest ? counts[b] : *longest;
    }
    return PORT_OK;
}

/* Shapes and dtypes, and everything row-major but the probabilities. */
static port_status
ctc_operands(op_call *call, const port_tensor **targets, const port_tensor **steps, const port_tensor **counts)
{
    const port_tensor *x = arg_tensor(call, 0), *given = arg_tensor(call, 1);
    if (x->ndim != 3 || (x->dtype != PORT_F32 && x->dtype != PORT_F64) || tensor_elems(x) < 1 ||
        !dtype_is_integral(given->dtype) || (given->ndim != 1 && (given->ndim != 2 || given->shape[0] != x->shape[1]))) {
        return fail_op(call, PORT_E_SHAPE, "expected F32 or F64 (T, B, C), none of them 0, and labels (B, S) or in one row");
    }
    port_status status = tensor_cast(call, given, PORT_I64, targets);
    if (status != PORT_OK || (status = tensor_contiguous(call, *targets, targets)) != PORT_OK ||
        (status = as_lengths(call, 2, steps)) != PORT_OK || (status = as_lengths(call, 3, counts)) != PORT_OK) {
        return status;
    }
    return (*steps)->shape[0] == x->shape[1] && (*counts)->shape[0] == x->shape[1]
               ? PORT_OK
               : fail_op(call, PORT_E_SHAPE, "expected lengths of %lld sequences", (long long)x->shape[1]);
}

/* _ctc_loss(log_probs (T, B, C), targets, input_lengths, target_lengths, blank, zero_infinity): the losses (B) and alpha
 * (B, T, 2 S + 1), of which the reference leaves what is beyond a sequence's end undefined; here it is 0. */
static port_status
run_ctc_loss(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *targets, *steps, *counts;
    int64_t longest;
    port_tensor *losses, *alpha;
    port_status status = ctc_operands(call, &targets, &steps, &counts);
    if (status != PORT_OK) {
        return status;
    }
    const int64_t *step = (const int64_t *)tensor_view(steps).data, *count = (const int64_t *)tensor_view(counts).data;
    if ((status = check_ctc(call, x, targets, step, count, &longest)) != PORT_OK) {
        return status;
    }
    int64_t B = x->shape[1], shape[3] = {B, x->shape[0], 2 * longest + 1}, size = (int64_t)port_dtype_size(x->dtype), used = 0;
    if ((status = tensor_new(call, x->dtype, 1, &B, NULL, &losses)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, 3, shape, NULL, &alpha)) != PORT_OK ||
        (status = tensor_fill(call, alpha, (port_scalar){PORT_SCALAR_INT, 0, 0.0})) != PORT_OK) {
        return status;
    }
    for (int64_t b = 0; b < B; b++) {
        ctc_item item = {.log_probs = (const char *)tensor_view(x).data + b * x->strides[1] * size,
                         .step_bytes = x->strides[0] * size, .class_bytes = x->strides[2] * size,
                         .targets = (const int64_t *)tensor_view(targets).data + (targets->ndim == 1 ? used : b * targets->shape[1]),
                         .num_steps = step[b], .num_targets = count[b], .blank = arg_int(call, 4), .width = shape[2]};
        char *rows = (char *)tensor_view(alpha).data + b * shape[1] * shape[2] * size, *loss = (char *)tensor_view(losses).data;
        if (x->dtype == PORT_F32) {
            ((float *)(void *)loss)[b] = ctc_forward_float(&item, (float *)(void *)rows);
        } else {
            ((double *)(void *)loss)[b] = ctc_forward_double(&item, (double *)(void *)rows);
        }
        used += count[b];
    }
    status = emit(call, losses);
    return status == PORT_OK ? emit(call, alpha) : status;
}

/* ---------------------------------------------------------------- margins */

/* x as (N, C) in double; classes as I64. N is 1 for a single frame. */
typedef struct margin_operands {
    const double *x, *weight; /* weight may be NULL */
    const int64_t *target;
    int64_t N, C;
    port_dtype dtype;
} margin_operands;

static port_status
as_dense(op_call *call, const port_tensor *t, port_dtype dtype, const void **data)
{
    port_status status = tensor_cast(call, t, dtype, &t);
    status = status == PORT_OK ? tensor_contiguous(call, t, &t) : status;
    *data = status == PORT_OK ? tensor_view(t).data : NULL;
    return status;
}

/* per_class: of x's shape; else a frame's one, in a row of them where there are several. */
static bool
is_margin_target(const port_tensor *x, const port_tensor *target, bool per_class)
{
    int64_t classes = x->ndim > 0 ? x->shape[x->ndim - 1] : 1, frames = x->ndim == 2 ? x->shape[0] : 1;
    if (!per_class) {
        return target->ndim <= 1 && tensor_elems(target) == frames;
    }
    return x->ndim == 2 ? target->ndim == 2 && target->shape[0] == frames && target->shape[1] == classes
                        : target->ndim <= 1 && tensor_elems(target) == classes;
}

/* per_class: the target names classes of x's shape, else one for each frame. */
static port_status
read_margins(op_call *call, bool per_class, const port_tensor *weight, margin_operands *m)
{
    const port_tensor *x = arg_tensor(call, 0), *target = arg_tensor(call, 1);
    const void *data[3] = {NULL, NULL, NULL};
    *m = (margin_operands){.N = x->ndim == 2 ? x->shape[0] : 1, .C = x->ndim > 0 ? x->shape[x->ndim - 1] : 1, .dtype = x->dtype};
    if (x->ndim > 2 || m->C < 1 || (x->dtype != PORT_F32 && x->dtype != PORT_F64) || target->dtype != PORT_I64 ||
        !is_margin_target(x, target, per_class) ||
        (weight != NULL && (weight->dtype != x->dtype || weight->ndim > 1 || tensor_elems(weight) != m->C))) {
        return fail_op(call, PORT_E_SHAPE, "expected F32 or F64 (N, C) or (C), classes as I64 %s, and weights (C)",
                       per_class ? "of the same shape" : "(N)");
    }
    port_status status = as_dense(call, x, PORT_F64, &data[0]);
    status = status == PORT_OK ? as_dense(call, target, PORT_I64, &data[1]) : status;
    status = status == PORT_OK && weight != NULL ? as_dense(call, weight, PORT_F64, &data[2]) : status;
    m->x = data[0], m->target = data[1], m->weight = data[2];
    for (int64_t k = 0; status == PORT_OK && k < tensor_elems(target); k++) {
        if (m->target[k] >= m->C || m->target[k] < (per_class ? -1 : 0)) {
            status = fail_op(call, PORT_E_VALUE, "target %lld is class %lld of %lld", (long long)k, (long long)m->target[k], (long long)m->C);
        }
    }
    return status;
}

/* What each frame adds, before the division by C: margins(m, frame). */
typedef double (*frame_sum)(const op_call *call, const margin_operands *m, int64_t n, double *is_target);

/* Losses of the frames, or their sum or mean; where the frames' own sums are divided by C decides their rounding. */
static port_status
reduce_margins(op_call *call, const margin_operands *m, int64_t reduction, bool single, frame_sum sum_of, bool divide_each, double *is_target)
{
    bool each = reduction == 0 && !single;
    double total = 0.0, C = (double)m->C;
    const port_tensor *result;
    port_tensor *made;
    port_status status = tensor_new(call, PORT_F64, each, &m->N, NULL, &made);
    if (status != PORT_OK) {
        return status;
    }
    double *to = (double *)tensor_view(made).data;
    for (int64_t n = 0; n < m->N; n++) {
        double sum = float_rounded(m->dtype, sum_of(call, m, n, is_target != NULL ? is_target + n * m->C : NULL));
        sum = divide_each || each ? float_rounded(m->dtype, sum / C) : sum;
        total += sum;
        if (each) {
            to[n] = sum;
        }
    }
    total = divide_each ? total : total / C;
    if (!each) {
        to[0] = reduction == 1 ? total / (double)m->N : total;
    }
    status = tensor_cast(call, made, m->dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* max(0, margin - x[target] + x[i])^p of all others, times the target's weight. */
static double
other_classes(const op_call *call, const margin_operands *m, int64_t n, double *is_target)
{
    const double *x = m->x + n * m->C;
    int64_t target = m->target[n];
    double margin = float_rounded(m->dtype, arg_scalar(call, 3).d), base = float_rounded(m->dtype, margin - x[target]), sum = 0.0;
    (void)is_target;
    for (int64_t i = 0; i < m->C; i++) {
        double z = float_rounded(m->dtype, base + x[i]);
        if (i != target && z > 0.0) {
            double h = arg_scalar(call, 2).d == 1.0 ? z : float_rounded(m->dtype, z * z);
            sum = float_rounded(m->dtype, sum + (m->weight != NULL ? float_rounded(m->dtype, h * m->weight[target]) : h));
        }
    }
    return sum;
}

/* multi_margin_loss(self, target, p, margin, weight, reduction) */
static port_status
run_multi_margin(op_call *call)
{
    margin_operands m;
    double p = arg_scalar(call, 2).d;
    if (p != 1.0 && p != 2.0) {
        return fail_op(call, PORT_E_VALUE, "p is %g; expected 1 or 2", p);
    }
    port_status status = read_margins(call, false, arg_tensor(call, 4), &m);
    return status == PORT_OK ? reduce_margins(call, &m, arg_int(call, 5), arg_tensor(call, 1)->ndim == 0, other_classes, true, NULL) : status;
}

/* max(0, 1 - x[target] + x[i]) of all targets, which end at the first negative one, and all i that are none. */
static double
other_labels(const op_call *call, const margin_operands *m, int64_t n, double *is_target)
{
    const double *x = m->x + n * m->C;
    const int64_t *target = m->target + n * m->C;
    double sum = 0.0;
    (void)call;
    for (int64_t k = 0; k < m->C && target[k] >= 0; k++) {
        is_target[target[k]] = 1.0;
    }
    for (int64_t k = 0; k < m->C && target[k] >= 0; k++) {
        double base = float_rounded(m->dtype, 1.0 - x[target[k]]);
        for (int64_t i = 0; i < m->C; i++) {
            double z = float_rounded(m->dtype, base + x[i]);
            sum += is_target[i] == 0.0 && z > 0.0 ? z : 0.0;
        }
    }
    return sum;
}

/* multilabel_margin_loss_forward(self, target, reduction): the loss, and which classes are targets. */
static port_status
run_multilabel_margin(op_call *call)
{
    const port_tensor *target = arg_tensor(call, 1), *result;
    margin_operands m;
    port_tensor *marks;
    port_status status = read_margins(call, true, NULL, &m);
    if (status != PORT_OK || (status = tensor_new(call, PORT_F64, target->ndim, target->shape, NULL, &marks)) != PORT_OK ||
        (status = tensor_fill(call, marks, (port_scalar){PORT_SCALAR_INT, 0, 0.0})) != PORT_OK ||
        (status = reduce_margins(call, &m, arg_int(call, 2), target->ndim < 2, other_labels, false, tensor_view(marks).data)) != PORT_OK) {
        return status;
    }
    status = tensor_cast(call, marks, m.dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

#define CTC(LENGTHS) "T log_probs, T targets, " LENGTHS ", I blank=0, B zero_infinity=False"

const op_row op_loss_rows[] = {
    {"_ctc_loss", CTC("A input_lengths, A target_lengths"), run_ctc_loss, NULL, MODE_SAME, 0},
    {"_ctc_loss.Tensor", CTC("T input_lengths, T target_lengths"), run_ctc_loss, NULL, MODE_SAME, 0},
    {"multi_margin_loss", "T self, T target, S p=1, S margin=1, T? weight=None, I reduction=1", run_multi_margin, NULL, MODE_SAME, 0},
    {"multilabel_margin_loss_forward", "T self, T target, I reduction", run_multilabel_margin, NULL, MODE_SAME, 0},
    {.name = NULL},
};
