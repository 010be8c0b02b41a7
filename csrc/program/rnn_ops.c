/* rnn_ops.c -- sequences: the LSTM layer that oneDNN runs as one op, packing of padded sequences.
 * mkldnn_rnn_layer has the bits of oneDNN's AVX-512 code; else it sees through to the same products and gates as an LSTM that is not fused:
 * oneDNN's exp and its order of sums are its own, so results are near, not equal. Halves are computed in F32 and rounded once. */
#include "compose.h"

#include <math.h>

/* y = c + a @ w.t() for a (rows, in), w (out, in); c is broadcast. */
static port_status
product_with_weight(op_call *call, const port_tensor *a, const port_tensor *w, const port_tensor *c, port_tensor **y)
{
    int64_t shape[2] = {a->shape[0], w->shape[0]};
    port_status status = tensor_new(call, a->dtype, 2, shape, NULL, y);
    if (status != PORT_OK) {
        return status;
    }
    port_view left = tensor_view(a), right = tensor_view(w), out = tensor_view(*y), added;
    right.shape[0] = w->shape[1];
    right.shape[1] = w->shape[0];
    right.strides[0] = w->strides[1];
    right.strides[1] = w->strides[0];
    if (c != NULL) {
        added = view_broadcast(c, 2, shape);
    }
    port_gemm_params params = {.alpha = 1.0, .beta = c != NULL ? 1.0 : 0.0};
    return launch(call, "gemm", a->dtype, (const port_view *const[]){&left, &right, c != NULL ? &added : NULL}, 3,
                  (const port_view *const[]){&out}, 1, &params);
}

/* One step: gates (B, 4H) as input, forget, cell, output; h and c (B, H) are renewed. */
#define LSTM_STEP(real, exponential, tangent)                                                                       \
    static void lstm_step_##real(int64_t B, int64_t H, const real *gates, real *h, real *c)                         \
    {                                                                                                               \
        for (int64_t i = 0; i < B * H; i++) {                                                                       \
            const real *gate = gates + i / H * 4 * H + i % H;                                                       \
            real in = 1 / (1 + exponential(-gate[0])), kept = 1 / (1 + exponential(-gate[H]));                      \
            c[i] = kept * c[i] + in * tangent(gate[2 * H]);                                                         \
            h[i] = 1 / (1 + exponential(-gate[3 * H])) * tangent(c[i]);                                             \
        }                                                                                                           \
    }
LSTM_STEP(float, expf, tanhf)
LSTM_STEP(double, exp, tanh)

static port_status
check_lstm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (arg_int(call, 9) != 2 || arg_len(call, 8) != 0) {
        return fail_unsupported(call, "only an LSTM (mode 2) of one length; got mode %lld, %lld batch sizes", (long long)arg_int(call, 9),
                                (long long)arg_len(call, 8));
    }
    int64_t I = x->ndim == 3 ? x->shape[2] : 0, H = arg_int(call, 10);
    const port_tensor *w = arg_tensor(call, 1), *r = arg_tensor(call, 2);
    bool fits = x->ndim == 3 && H > 0 && H < INT32_MAX && w->ndim == 2 && r->ndim == 2 && w->shape[0] == 4 * H &&
                w->shape[1] == I && r->shape[0] == 4 * H && r->shape[1] == H;
    for (int32_t k = 3; fits && arg_bool(call, 12) && k < 5; k++) {
        fits = arg_tensor(call, k)->ndim == 1 && arg_tensor(call, k)->shape[0] == 4 * H;
    }
    for (int32_t k = 5; fits && k < 7; k++) {
        fits = tensor_elems(arg_tensor(call, k)) == x->shape[1] * H;
    }
    for (int32_t k = 0; fits && k < 7; k++) {
        fits = arg_tensor(call, k)->dtype == x->dtype && (x->dtype == PORT_F32 || x->dtype == PORT_F64);
    }
    return fits ? PORT_OK
                : fail_op(call, PORT_E_SHAPE,
                          "expected F32 or F64: x (T, B, I), weights (4H, I) and (4H, H), biases (4H), states (B, H)");
}

/* A copy of a state that steps can renew. */
static port_status
own_state(op_call *call, const port_tensor *state, port_tensor **out)
{
    port_status status = tensor_new(call, state->dtype, state->ndim, state->shape, NULL, out);
    if (status == PORT_OK) {
        port_view to = tensor_view(*out), from = tensor_view(state);
        copy_view(call, &to, &from);
    }
    return status;
}

/* The results, and the workspace that oneDNN keeps for gradients, here empty. */
static port_status
emit_states(op_call *call, port_tensor *out, port_tensor *h, port_tensor *c)
{
    int64_t zero = 0;
    port_tensor *none;
    port_status status;
    if ((status = emit(call, out)) != PORT_OK || (status = emit(call, h)) != PORT_OK || (status = emit(call, c)) != PORT_OK ||
        (status = tensor_new(call, PORT_U8, 1, &zero, NULL, &none)) != PORT_OK) {
        return status;
    }
    return emit(call, none);
}

/* x and bias dense; h and c (.., B, H) are renewed. */
static port_status
run_onednn_lstm(op_call *call, const port_tensor *x, const port_tensor *bias, port_tensor *out, port_tensor *h, port_tensor *c)
{
    const port_tensor *in[4] = {x, NULL, NULL, bias};
    port_lstm_params params = {.reverse = arg_bool(call, 7)};
    port_tensor states[2] = {*h, *c};
    for (int32_t k = 0; k < 2; k++) {
        states[k].ndim = 2;
        states[k].shape[0] = x->shape[1];
        states[k].shape[1] = states[k].strides[0] = out->shape[2];
        states[k].strides[1] = 1;
        port_status status = tensor_contiguous(call, arg_tensor(call, 1 + k), &in[1 + k]);
        if (status != PORT_OK) {
            return status;
        }
    }
    port_status status = launch_tensors(call, "onednn_lstm", PORT_F32, in, 4, (const port_tensor *const[]){out, &states[0], &states[1]}, 3, &params);
    return status == PORT_OK ? emit_states(call, out, h, c) : status;
}

static port_status
run_lstm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    port_status status = check_lstm(call);
    if (status != PORT_OK) {
        return status;
    }
    int64_t T = x->shape[0], B = x->shape[1], H = arg_int(call, 10), shape[3] = {T, B, H};
    bool reverse = arg_bool(call, 7), biased = arg_bool(call, 12);
    port_tensor *flat, *gates, *bias, *h, *c, *out;
    if ((status = tensor_contiguous(call, x, &dense)) != PORT_OK ||
        (status = tensor_alias(call, dense, &flat)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, 1, (const int64_t[]){4 * H}, NULL, &bias)) != PORT_OK ||
        (status = own_state(call, arg_tensor(call, 5), &h)) != PORT_OK ||
        (status = own_state(call, arg_tensor(call, 6), &c)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, 3, shape, NULL, &out)) != PORT_OK ||
        (biased && (status = launch_tensors(call, "add", x->dtype,
                                            (const port_tensor *const[]){arg_tensor(call, 3), arg_tensor(call, 4)}, 2,
                                            (const port_tensor *const[]){bias}, 1, NULL)) != PORT_OK)) {
        return status;
    }
    bool exact = call->options->operands == PORT_OPERANDS_EXACT; /* else its products are seen through to, and their operands rounded */
    if (x->dtype == PORT_F32 && exact && call->options->profile.onednn_avx512) {
        if (!biased) {
            memset(tensor_view(bias).data, 0, (size_t)(4 * H) * sizeof(float));
        }
        return run_onednn_lstm(call, dense, bias, out, h, c);
    }
    flat->ndim = 2;
    flat->shape[0] = T * B;
    flat->shape[1] = flat->strides[0] = x->shape[2];
    flat->strides[1] = 1;
    if ((status = product_with_weight(call, flat, arg_tensor(call, 1), biased ? bias : NULL, &gates)) != PORT_OK) {
        return status;
    }
    int64_t size = (int64_t)port_dtype_size(x->dtype);
    void *hidden = tensor_view(h).data, *cell = tensor_view(c).data;
    for (int64_t k = 0; k < T && B > 0; k++) { /* of no sequences there may be any number of steps */
        int64_t t = reverse ? T - 1 - k : k;
        port_tensor now = *h, part = *gates, *sum;
        now.ndim = 2;
        now.shape[0] = B;
        now.shape[1] = now.strides[0] = H;
        now.strides[1] = 1;
        part.shape[0] = B;
        part.offset_bytes += t * B * 4 * H * size;
        if ((status = product_with_weight(call, &now, arg_tensor(call, 2), &part, &sum)) != PORT_OK) {
            return status;
        }
        if (x->dtype == PORT_F64) {
            lstm_step_double(B, H, tensor_view(sum).data, hidden, cell);
        } else {
            lstm_step_float(B, H, tensor_view(sum).data, hidden, cell);
        }
        memcpy((char *)tensor_view(out).data + t * B * H * size, hidden, (size_t)(B * H * size));
    }
    return emit_states(call, out, h, c);
}

/* mkldnn_rnn_layer(input, weight0 .. weight3, hx, cx, reverse, batch_sizes, mode, hidden_size, num_layers, has_biases,
 * bidirectional, batch_first, train): output, hy, cy and the workspace that oneDNN keeps for gradients, here empty. */
static port_status
run_rnn_layer(op_call *call)
{
    port_dtype dtype = arg_tensor(call, 0)->dtype;
    if (dtype != PORT_BF16 && dtype != PORT_F16) {
        return run_lstm(call);
    }
    return run_formula(call, "^y, h, c, w = mkldnn_rnn_layer(input, weight0, weight1, weight2, weight3, hx_, cx_, reverse, batch_sizes, mode, "
                             "hidden_size, num_layers, has_biases, bidirectional, batch_first, train) -> y, h, c, w", NULL, 0);
}

/* _pack_padded_sequence(input, lengths, batch_first): the steps of all sequences that are so long, step by step; and
 * how many there are. */
static port_status
run_pack(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *lengths = arg_tensor(call, 1);
    int32_t time = arg_bool(call, 2) ? 1 : 0;
    port_tensor *packed, *sizes;
    if (x->ndim < 2 || lengths->ndim != 1 || lengths->dtype != PORT_I64 || lengths->shape[0] != x->shape[1 - time] ||
        lengths->shape[0] < 1) {
        return fail_op(call, PORT_E_SHAPE, "expected a batch of sequences and their lengths as I64");
    }
    port_status status = tensor_contiguous(call, lengths, &lengths);
    if (status != PORT_OK) {
        return status;
    }
    const int64_t *length = (const int64_t *)tensor_view(lengths).data;
    int64_t B = lengths->shape[0], total = 0, shape[PORT_MAX_NDIM], step = 0;
    for (int64_t b = 0; b < B; b++) {
        if (length[b] < 1 || length[b] > x->shape[time] || (b > 0 && length[b] > length[b - 1])) {
            return fail_op(call, PORT_E_VALUE, "length %lld is %lld; expected 1 to %lld, in descending order",
                           (long long)b, (long long)length[b], (long long)x->shape[time]);
        }
        if (__builtin_add_overflow(total, length[b], &total)) {
            return fail_op(call, PORT_E_VALUE, "the lengths are too great");
        }
    }
    memcpy(shape + 1, x->shape + 2, (size_t)(x->ndim - 2) * sizeof *shape);
    shape[0] = total;
    if ((status = tensor_new(call, x->dtype, x->ndim - 1, shape, NULL, &packed)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, 1, &length[0], NULL, &sizes)) != PORT_OK) {
        return status;
    }
    int64_t bytes = (int64_t)port_dtype_size(x->dtype), *size = (int64_t *)tensor_view(sizes).data;
    for (int64_t t = 0; t < length[0]; t++) {
        port_view to = tensor_view(packed), from = tensor_view(x);
        for (size[t] = 0; size[t] < B && length[size[t]] > t;) {
            size[t]++;
        }
        from.data = (char *)from.data + t * x->strides[time] * bytes;
        from.ndim = to.ndim = x->ndim - 1;
        from.strides[0] = x->strides[1 - time];
        memcpy(from.shape + 1, shape + 1, (size_t)(x->ndim - 2) * sizeof *shape);
        memcpy(from.strides + 1, x->strides + 2, (size_t)(x->ndim - 2) * sizeof *shape);
        to.data = (char *)to.data + step * to.strides[0] * bytes;
        from.shape[0] = to.shape[0] = size[t];
        copy_view(call, &to, &from);
        step += size[t];
    }
    status = emit(call, packed);
    return status == PORT_OK ? emit(call, sizes) : status;
}

const op_row op_rnn_rows[] = {
    {"mkldnn_rnn_layer",
     "T input, T weight0, T weight1, T weight2, T weight3, T hx_, T cx_, B reverse, A batch_sizes, I mode, I "
     "hidden_size, "
     "I num_layers, B has_biases, B bidirectional, B batch_first, B train",
     run_rnn_layer, "gemm", MODE_SAME, OP_OPAQUE},
    {"_pack_padded_sequence", "T input, T lengths, B batch_first", run_pack, NULL, MODE_SAME, 0},
    {.name = NULL},
};
