/* operands.c -- the operands of products rounded to a narrower format before they are multiplied (docs/NUMERICS.md,
 * section 8).
 *
 * Products are the kernels gemm, bmm, convolution and sdpa_flash; of attention q, k and v are rounded, its
 * probabilities are not. float32 operands only: others are as narrow as they are meant to be, or meant to be wide.
 * The product itself is computed as ever. */
#include "exec.h"

#include <math.h>

#define Q8_BLOCK 32

/* 10 bits of mantissa, to nearest even; NaN and infinities stay. */
static float
to_tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) {
        bits = (bits + 0x0fffu + ((bits >> 13) & 1u)) & 0xffffe000u;
    }
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* One block of ggml's q8_0: a float16 scale of max|x| / 127, whole numbers rounded half away from zero. */
static void
to_q8_0(const float *x, int64_t n, float *y)
{
    float top = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    }
    float step = top / 127.0f, inverse = step != 0.0f ? 1.0f / step : 0.0f;
    float kept = port_f16_to_f32(port_f32_to_f16(step));
    for (int64_t i = 0; i < n; i++) {
        y[i] = roundf(x[i] * inverse) * kept;
    }
}

static void
round_block(port_operand_format format, const float *x, int64_t n, float *y)
{
    if (format == PORT_OPERANDS_Q8_0) {
        to_q8_0(x, n, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        switch (format) {
        case PORT_OPERANDS_TF32: y[i] = to_tf32(x[i]); break;
        case PORT_OPERANDS_BF16: y[i] = port_bf16_to_f32(port_f32_to_bf16(x[i])); break;
        case PORT_OPERANDS_F16: y[i] = port_f16_to_f32(port_f32_to_f16(x[i])); break;
        default: y[i] = x[i]; break;
        }
    }
}

/* to = from, rounded in blocks of Q8_BLOCK along dimension `dim`; the last block may be shorter. */
static void
round_view(port_operand_format format, const port_view *from, const port_view *to, int32_t dim)
{
    int64_t length = from->shape[dim], lines = length > 0 ? port_view_elems(from) / length : 0;
    float in[Q8_BLOCK], out[Q8_BLOCK];
    for (int64_t line = 0; line < lines; line++) {
        int64_t rest = line, from_at = 0, to_at = 0;
        for (int32_t d = from->ndim - 1; d >= 0; d--) {
            if (d != dim) {
                from_at += rest % from->shape[d] * from->strides[d];
                to_at += rest % from->shape[d] * to->strides[d];
                rest /= from->shape[d];
            }
        }
        const float *x = (const float *)from->data + from_at;
        float *y = (float *)to->data + to_at;
        for (int64_t k = 0; k < length; k += Q8_BLOCK) {
            int64_t n = length - k < Q8_BLOCK ? length - k : Q8_BLOCK;
            for (int64_t i = 0; i < n; i++) {
                in[i] = x[(k + i) * from->strides[dim]];
            }
            round_block(format, in, n, out);
            for (int64_t i = 0; i < n; i++) {
                y[(k + i) * to->strides[dim]] = out[i];
            }
        }
    }
}

/* "convolution" and oneDNN's. */
static bool
is_any_convolution(const char *kernel)
{
    return strstr(kernel, "convolution") != NULL;
}

/* How many of a kernel's inputs are factors of its product; 0: it is none. */
static int32_t
num_factors(const char *kernel)
{
    if (strcmp(kernel, "sdpa_flash") == 0) {
        return 3;
    }
    return strcmp(kernel, "gemm") == 0 || strcmp(kernel, "bmm") == 0 || is_any_convolution(kernel) ? 2 : 0;
}

port_status
round_operands(op_call *call, const char *kernel, const port_view **in)
{
    port_operand_format format = call->options->operands;
    bool is_convolution = is_any_convolution(kernel), is_attention = strcmp(kernel, "sdpa_flash") == 0;
    for (int32_t i = 0; i < num_factors(kernel); i++) {
        if (in[i] == NULL || in[i]->dtype != PORT_F32 || in[i]->ndim == 0) {
            continue;
        }
        if (is_convolution && format == PORT_OPERANDS_Q8_0) {
            return fail_unsupported(call, "a convolution's operands have no blocks that q8_0 could round");
        }
        port_buffer memory = {.data = in[i]->data};
        port_tensor like = {.buffer = &memory, .dtype = PORT_F32, .ndim = in[i]->ndim}, *made;
        memcpy(like.shape, in[i]->shape, sizeof like.shape);
        memcpy(like.strides, in[i]->strides, sizeof like.strides);
        int64_t strides[PORT_MAX_NDIM];
        preserve_strides(&like, strides);
        port_status status = tensor_new(call, PORT_F32, like.ndim, like.shape, strides, &made);
        if (status != PORT_OK) {
            return status;
        }
        int32_t dim = i == 0 || is_attention || is_convolution ? like.ndim - 1 : like.ndim - 2;
        port_view to = tensor_view(made);
        round_view(format, in[i], &to, dim);
        call->rounded[i] = to;
        in[i] = &call->rounded[i];
    }
    return PORT_OK;
}
