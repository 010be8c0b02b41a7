/* activation_ops.c -- ops made of a few kernels: glu, _safe_softmax, log_sigmoid, weight norm, complex numbers.
 *
 * A complex tensor (C64) is pairs of F32; only what rotary embeddings and spectra need is here: polar, the views, products. */
#include "../kernels/loops.h"
#include "../kernels/vecmath.h"
#include "compose.h"

#include <complex.h>
#include <math.h>

/* Half `part` of x along dimension d, as it lies. */
static port_status
half_of(op_call *call, const port_tensor *x, int32_t d, int64_t part, port_tensor **out)
{
    port_status status = tensor_alias(call, x, out);
    if (status == PORT_OK) {
        int64_t size = x->shape[d] / 2;
        (*out)->shape[d] = size;
        (*out)->offset_bytes += part * size * x->strides[d] * (int64_t)port_dtype_size(x->dtype);
    }
    return status;
}

/* glu(self, dim) = a * sigmoid(b). */
static port_status
run_glu(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    port_dtype dtype = x->dtype;
    int32_t d;
    port_tensor *a, *b, *gate, *out;
    op_plan plan;
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    if (status != PORT_OK || x->ndim == 0 || x->shape[d] % 2 != 0 || !dtype_is_float(dtype)) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_SHAPE, "dimension %lld must have an even size", (long long)arg_int(call, 1));
    }
    if ((status = tensor_cast(call, x, dtype == PORT_F64 ? PORT_F64 : PORT_F32, &x)) != PORT_OK ||
        (status = half_of(call, x, d, 0, &a)) != PORT_OK || (status = half_of(call, x, d, 1, &b)) != PORT_OK ||
        (status = plan_pointwise(call, (const op_operand[]){{.tensor = a}, {.tensor = b}}, 2, &plan)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, a->ndim, a->shape, plan.strides, &gate)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, a->ndim, a->shape, plan.strides, &out)) != PORT_OK ||
        (status = launch_tensors(call, "sigmoid", x->dtype, (const port_tensor *const[]){b}, 1, (const port_tensor *const[]){gate}, 1,
                                 NULL)) != PORT_OK ||
        (status = launch_tensors(call, "mul", x->dtype, (const port_tensor *const[]){a, gate}, 2, (const port_tensor *const[]){out}, 1,
                                 NULL)) != PORT_OK ||
        (status = tensor_cast(call, out, dtype, &result)) != PORT_OK) {
        return status;
    }
    return emit(call, result);
}

/* _safe_softmax(self, dim): softmax, but a row of -inf alone becomes zeros. */
static port_status
run_safe_softmax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    int32_t d;
    port_tensor *greatest, *out;
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    port_dtype dtype = arg_dtype(call, 2, x->dtype);
    if (status != PORT_OK || x->ndim == 0 || !dtype_is_float(dtype)) {
        return status != PORT_OK ? status : fail_unsupported(call, "%s of %d dimensions", port_dtype_name(dtype), x->ndim);
    }
    if (tensor_elems(x) == 0) {
        status = tensor_new(call, dtype, x->ndim, x->shape, NULL, &out);
        return status == PORT_OK ? emit(call, out) : status;
    }
    if ((status = tensor_cast(call, x, dtype, &x)) != PORT_OK ||
        (status = tensor_cast(call, x, dtype == PORT_F64 ? PORT_F64 : PORT_F32, &x)) != PORT_OK) {
        return status;
    }
    int64_t shape[PORT_MAX_NDIM], place[PORT_MAX_NDIM] = {0};
    memcpy(shape, x->shape, sizeof shape);
    shape[d] = 1;
    port_softmax_params params = {d};
    port_reduce_params over = {.dims = 1u << d};
    if ((status = tensor_new(call, x->dtype, x->ndim, shape, NULL, &greatest)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &out)) != PORT_OK ||
        (status = launch_tensors(call, "amax", x->dtype, &x, 1, (const port_tensor *const[]){greatest}, 1, &over)) != PORT_OK ||
        (status = launch_tensors(call, "softmax", x->dtype, &x, 1, (const port_tensor *const[]){out}, 1, &params)) != PORT_OK) {
        return status;
    }
    const char *top = tensor_view(greatest).data;
    size_t size = port_dtype_size(x->dtype);
    for (int64_t i = 0, n = tensor_elems(greatest); i < n; i++) {
        float narrow = 0.0f;
        double wide = 0.0;
        memcpy(size == 4 ? (void *)&narrow : (void *)&wide, top + (size_t)i * size, size);
        int64_t at = 0;
        for (int32_t k = 0; k < x->ndim; k++) {
            at += place[k] * out->strides[k];
        }
        for (int64_t k = 0; (size == 4 ? (double)narrow : wide) == -(double)INFINITY && k < x->shape[d]; k++) {
            memset((char *)tensor_view(out).data + (size_t)(at + k * out->strides[d]) * size, 0, size);
        }
        for (int32_t k = x->ndim - 1; k >= 0 && ++place[k] == shape[k]; k--) {
            place[k] = 0;
        }
    }
    status = tensor_cast(call, out, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* log_sigmoid_forward(self): the result, and a buffer for the backward pass. */
static port_status
run_log_sigmoid(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *out, *buffer;
    port_status status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &out);
    if (status == PORT_OK) {
        status = launch_tensors(call, "log_sigmoid", x->dtype, &x, 1, (const port_tensor *const[]){out}, 1, NULL);
    }
    if (status != PORT_OK || (status = emit(call, out)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &buffer)) != PORT_OK) {
        return status;
    }
    status = launch_tensors(call, "exp_minus_abs", x->dtype, &x, 1, (const port_tensor *const[]){buffer}, 1, NULL);
    return status == PORT_OK ? emit(call, buffer) : status;
}

/* _weight_norm_interface(v, g, dim): w = v * (g / norm), norm over all dimensions but dim. Of halves the norm stays F32. */
static port_status
run_weight_norm(op_call *call)
{
    const port_tensor *v = arg_tensor(call, 0), *g = arg_tensor(call, 1);
    int64_t shape[PORT_MAX_NDIM];
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 2), v->ndim, &d);
    port_dtype dtype = v->dtype, inner = dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    bool known = dtype_is_float(dtype) && g->dtype == dtype;
    if (status != PORT_OK || !known || v->ndim == 0 || tensor_elems(g) != v->shape[d]) {
        return status != PORT_OK ? status : fail_unsupported(call, "a weight of %s", port_dtype_name(v->dtype));
    }
    if (d != 0 && d != v->ndim - 1) {
        return fail_unsupported(call, "the norm of dimension %d of %d", d, v->ndim);
    }
    int64_t rows = d == 0 ? v->shape[0] : 1, flat[2];
    for (int32_t k = 0; k < v->ndim; k++) {
        shape[k] = k == d ? v->shape[k] : 1;
        rows *= d != 0 && k != d ? v->shape[k] : 1;
    }
    flat[0] = rows;
    flat[1] = rows > 0 ? tensor_elems(v) / rows : 0;
    port_tensor *norm, *out, *parts[3];
    if ((status = tensor_cast(call, v, inner, &v)) != PORT_OK || (status = tensor_cast(call, g, inner, &g)) != PORT_OK ||
        (status = tensor_contiguous(call, v, &v)) != PORT_OK || (status = tensor_contiguous(call, g, &g)) != PORT_OK ||
        (status = tensor_new(call, inner, v->ndim, shape, NULL, &norm)) != PORT_OK ||
        (status = tensor_new(call, inner, v->ndim, v->shape, NULL, &out)) != PORT_OK) {
        return status;
    }
    const port_tensor *whole[3] = {v, out, norm};
    int64_t length = tensor_elems(norm);
    for (int32_t k = 0; k < 3; k++) {
        if ((status = tensor_reshaped(call, whole[k], k < 2 ? 2 : 1, k < 2 ? flat : &length, &parts[k])) != PORT_OK) {
            return status;
        }
    }
    port_weight_norm_params params = {.rows = d == 0, .halves = dtype != inner};
    status = launch_tensors(call, "weight_norm", inner, (const port_tensor *const[]){parts[0], g}, 2,
                            (const port_tensor *const[]){parts[1], parts[2]}, 2, &params);
    if (status != PORT_OK || (status = tensor_cast(call, out, dtype, &v)) != PORT_OK || (status = emit(call, v)) != PORT_OK) {
        return status;
    }
    return emit(call, norm);
}

/* ------------------------------------------------------------------ complex numbers */

/* polar(abs, angle) = abs * (cos angle + i sin angle). */
static port_status
run_polar(op_call *call)
{
    const port_tensor *size = arg_tensor(call, 0), *angle = arg_tensor(call, 1), *dense[2];
    port_tensor *out;
    if (size->dtype != PORT_F32 || angle->dtype != PORT_F32) {
        return fail_unsupported(call, "%s and %s", port_dtype_name(size->dtype), port_dtype_name(angle->dtype));
    }
    op_plan plan;
    port_status status = plan_pointwise(call, (const op_operand[]){{.tensor = size}, {.tensor = angle}}, 2, &plan);
    if (status != PORT_OK || (status = tensor_new(call, PORT_C64, plan.ndim, plan.shape, plan.strides, &out)) != PORT_OK) {
        return status;
    }
    port_tensor *parts[2];
    for (int32_t k = 0; k < 2; k++) { /* the operands in the order of the result's memory */
        if ((status = tensor_new(call, PORT_F32, plan.ndim, plan.shape, plan.strides, &parts[k])) != PORT_OK) {
            return status;
        }
        port_view to_view = tensor_view(parts[k]), from_view = view_broadcast(k == 0 ? size : angle, plan.ndim, plan.shape);
        copy_view(call, &to_view, &from_view);
        dense[k] = parts[k];
    }
    const float *r = (const float *)tensor_view(dense[0]).data, *phi = (const float *)tensor_view(dense[1]).data;
    float *to = (float *)tensor_view(out).data;
    for (int64_t i = 0, n = tensor_elems(out); i < n; i++) {
        to[2 * i] = r[i] * cosf(phi[i]);
        to[2 * i + 1] = r[i] * sinf(phi[i]);
    }
    return emit(call, out);
}

/* ------------------------------------------------------------------ logit */

typedef struct logit_loop {
    bool bounded;
    float low, high;
    int64_t step; /* elements that vectors take at a time; 0: there are none */
} logit_loop;

static void
logit_rows(void *context, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const logit_loop *loop = context;
    bool dense = loop->step > 0 && strides[0] == (int64_t)sizeof(float) && (strides[1] == (int64_t)sizeof(float) || strides[1] == 0);
    int64_t bulk = dense ? size0 - size0 % loop->step : 0;
    for (int64_t row = 0; row < size1; row++) {
        for (int64_t i = 0; i < size0; i++) {
            float v = *(const float *)(void *)(data[1] + row * strides[3] + i * strides[1]);
            if (loop->bounded) {
                v = v < loop->low ? loop->low : (v > loop->high ? loop->high : v);
            }
            v = v / (1.0f - v);
            *(float *)(void *)(data[0] + row * strides[2] + i * strides[0]) = i < bulk ? port_log_u10(v) : logf(v);
        }
    }
}

/* logit(self, eps). The library's logarithm is for dense tensors; of others torch takes SLEEF's in vectors and libm's for the rest. */
port_status
run_logit(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    const port_profile *profile = &call->options->profile;
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *out;
    if (x->dtype != PORT_F32 || tensor_is_dense(x) || call->options->variant != NULL) {
        return run_composed(call);
    }
    logit_loop loop = {.bounded = arg_given(call, 1), .low = (float)arg_double(call, 1, 0.0)};
    loop.high = 1.0f - loop.low;
    loop.step = profile->capability == PORT_CAP_DEFAULT ? 0 : 2 * port_profile_lanes(profile, PORT_F32);
    preserve_strides(x, strides);
    port_status status = tensor_new(call, PORT_F32, x->ndim, x->shape, strides, &out);
    if (status != PORT_OK) {
        return status;
    }
    port_view from = tensor_view(x), to = tensor_view(out);
    port_iter iter = port_iter_elementwise(2, (const port_view *const[]){&to, &from});
    port_iter_for_each(&iter, profile->num_threads, logit_rows, &loop);
    call->kernel_ran = true;
    return emit(call, out);
}

/* An operand as C64; a number as a tensor without dimensions. */
static port_status
complex_operand(op_call *call, int32_t idx, op_operand *operand)
{
    const port_tensor *t = arg_tensor(call, idx);
    const port_arg *arg = &call->args[idx];
    if (arg->kind == PORT_ARG_COMPLEX) {
        port_tensor *number;
        port_status made = tensor_new(call, PORT_C64, 0, NULL, NULL, &number);
        if (made == PORT_OK) {
            memcpy(tensor_view(number).data, (float[2]){(float)arg->d, (float)arg->imag}, 2 * sizeof(float));
        }
        *operand = (op_operand){.tensor = number};
        return made;
    }
    port_status status = t == NULL ? scalar_to_tensor(call, arg_scalar(call, idx), PORT_F32, &t) : PORT_OK;
    bool beside_number = call->args[1 - idx].kind == PORT_ARG_COMPLEX;
    if (status == PORT_OK && ((t->dtype == PORT_F64 && (t->ndim > 0 || beside_number)) || (t->dtype == PORT_F16 && beside_number))) {
        return fail_unsupported(call, "a complex number and %s, which make another complex dtype than C64", port_dtype_name(t->dtype));
    }
    if (status == PORT_OK && t->dtype != PORT_C64) {
        status = tensor_cast_complex(call, t, PORT_C64, &t);
    }
    *operand = (op_operand){.tensor = t};
    return status;
}

typedef struct complex_loop {
    enum { COMPLEX_SUM, COMPLEX_PRODUCT, COMPLEX_QUOTIENT, COMPLEX_POWER, COMPLEX_EQUAL, COMPLEX_UNEQUAL } kind;
    float factor;  /* of the second term of a sum */
    bool compiled; /* for the CPU's vectors: with fma where the compiler found pairs */
    int64_t group; /* of a power that is a square: elements of two vectors, behind which everything is fused; else 0 */
    bool in_place;
} complex_loop;

/* Elements [from, to) of a run of n products whose imaginary parts of both factors meet in one fused operation. The reference's own vectors
 * don't fuse; its compiler fuses what they leave, two elements at a time, and not the last of an odd number. A factor that is one
 * number for the run moves the pairs: one element comes before them, and they come in fours. */
static void
fused_part(const int64_t *strides, int64_t n, bool in_place, int64_t *from, int64_t *to)
{
    const int64_t size = 2 * (int64_t)sizeof(float);
    bool dense = strides[0] == size && (strides[1] == size || strides[1] == 0) && (strides[2] == size || strides[2] == 0);
    if (in_place && !dense) { /* its check that memory does not overlap fails: one by one */
        *from = *to = 0;
        return;
    }
    bool repeated = dense && strides[1] != strides[2];
    int64_t rest = dense ? n % 8 : n, first = n - rest;
    *from = repeated ? first + 1 : first;
    *to = repeated ? first + (rest > 4 ? 5 : 0) : first + rest - rest % 2;
}

static void
fused_part_of_square(const int64_t *strides, int64_t n, int64_t group, int64_t *from, int64_t *to)
{
    const int64_t size = 2 * (int64_t)sizeof(float);
    *from = strides[0] == size && strides[1] == size ? n - n % group : 0;
    *to = n;
}

/* As std::pow: 0 to the power of 0 is 1. */
static void
complex_power(const float *a, const float *b, float *to)
{
    float complex x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    x = cpowf(x, y);
    memcpy(to, &x, sizeof x);
}

static void
complex_quotient(float x, float y, float u, float v, float *to)
{
    double size = (double)u * (double)u + (double)v * (double)v;
    to[0] = (float)(((double)x * (double)u + (double)y * (double)v) / size);
    to[1] = (float)(((double)y * (double)u - (double)x * (double)v) / size);
}

static void
complex_element(const complex_loop *loop, const float *a, const float *b, bool fused, float *to)
{
    float x = a[0], y = a[1], u = b[0], v = b[1];
    if (loop->kind == COMPLEX_PRODUCT) {
        to[0] = fused ? fmaf(x, u, -(y * v)) : x * u - y * v;
        to[1] = fused ? fmaf(x, v, y * u) : x * v + y * u;
    } else if (loop->kind == COMPLEX_QUOTIENT) {
        complex_quotient(x, y, u, v, to);
    } else if (loop->kind == COMPLEX_POWER) {
        complex_power(a, b, to);
    } else if (loop->kind == COMPLEX_EQUAL || loop->kind == COMPLEX_UNEQUAL) {
        *(bool *)(void *)to = (x == u && y == v) == (loop->kind == COMPLEX_EQUAL);
    } else {
        to[0] = x + loop->factor * u;
        to[1] = y + loop->factor * v;
    }
}

static void
complex_rows(void *context, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const complex_loop *loop = context;
    int64_t from = 0, to = 0;
    if (loop->compiled && loop->group > 0) {
        fused_part_of_square(strides, size0, loop->group, &from, &to);
    } else if (loop->compiled) {
        fused_part(strides, size0, loop->in_place, &from, &to);
    }
    for (int64_t row = 0; row < size1; row++) {
        for (int64_t i = 0; i < size0; i++) {
            char *at[3];
            for (int32_t k = 0; k < 3; k++) {
                at[k] = data[k] + row * strides[3 + k] + i * strides[k];
            }
            complex_element(loop, (const float *)(void *)at[1], (const float *)(void *)at[2], i >= from && i < to, (float *)(void *)at[0]);
        }
    }
}

port_status
run_complex_binary(op_call *call)
{
    op_operand both[2];
    const char *kernel = call->row->kernel;
    op_plan plan;
    port_tensor *out;
    static const char *const names[] = {"add", "sub", "mul", "div", "pow", "pow_scalar", "eq", "ne"};
    static const int kinds[] = {COMPLEX_SUM, COMPLEX_SUM, COMPLEX_PRODUCT, COMPLEX_QUOTIENT, COMPLEX_POWER, COMPLEX_POWER, COMPLEX_EQUAL, COMPLEX_UNEQUAL};
    size_t which = 0;
    int32_t first = (call->row->flags & OP_SWAP) != 0 ? 1 : 0;
    while (which < sizeof names / sizeof names[0] && strcmp(kernel, names[which]) != 0) {
        which++;
    }
    if (which == sizeof names / sizeof names[0]) {
        return fail_unsupported(call, "a complex operand");
    }
    const port_arg *power = &call->args[1];
    bool square = strcmp(kernel, "pow_scalar") == 0 && (power->kind == PORT_ARG_COMPLEX ? power->d == 2.0 && power->imag == 0.0 : arg_scalar(call, 1).d == 2.0);
    bool compares = kinds[which] == COMPLEX_EQUAL || kinds[which] == COMPLEX_UNEQUAL;
    float alpha = call->num_args > 2 ? (float)arg_scalar(call, 2).d : 1.0f;
    port_capability capability = call->options->profile.capability;
    complex_loop loop = {square ? COMPLEX_PRODUCT : kinds[which], strcmp(kernel, "sub") == 0 ? -alpha : alpha, capability != PORT_CAP_DEFAULT, 0,
                         strstr(call->name, "_.") != NULL};
    loop.group = square ? (capability == PORT_CAP_AVX512 ? 16 : 8) : 0;
    port_status status = complex_operand(call, first, &both[0]);
    both[1] = both[0];
    if (status != PORT_OK || (!square && (status = complex_operand(call, 1 - first, &both[1])) != PORT_OK) ||
        (status = plan_pointwise(call, both, 2, &plan)) != PORT_OK ||
        (status = tensor_new(call, compares ? PORT_BOOL : PORT_C64, plan.ndim, plan.shape, plan.strides, &out)) != PORT_OK) {
        return status;
    }
    port_view a = view_broadcast(both[0].tensor, plan.ndim, plan.shape), b = view_broadcast(both[1].tensor, plan.ndim, plan.shape);
    port_view to = tensor_view(out);
    port_iter iter = port_iter_elementwise(3, (const port_view *const[]){&to, &a, &b});
    port_iter_for_each(&iter, call->options->profile.num_threads, complex_rows, &loop);
    return emit(call, out);
}

/* view_as_real: one more dimension of size 2. view_as_complex: the last one, dense and of size 2, goes. */
static port_status
run_complex_view(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool to_real = strcmp(call->row->name, "view_as_real") == 0;
    int32_t last = x->ndim - 1;
    port_tensor *out;
    if (to_real ? x->dtype != PORT_C64 || x->ndim == PORT_MAX_NDIM
                : x->dtype != PORT_F32 || x->ndim < 1 || x->shape[last] != 2 || x->strides[last] != 1) {
        return fail_op(call, PORT_E_SHAPE, "a tensor of %s in %d dimensions cannot be seen so", port_dtype_name(x->dtype), x->ndim);
    }
    if (!to_real && (x->buffer->origin_bytes + x->offset_bytes) % 8 != 0) {
        return fail_op(call, PORT_E_SHAPE, "it begins at an odd element of its storage");
    }
    port_status status = tensor_alias(call, x, &out);
    if (status != PORT_OK) {
        return status;
    }
    out->dtype = to_real ? PORT_F32 : PORT_C64;
    out->ndim = to_real ? x->ndim + 1 : last;
    for (int32_t d = 0; d < (to_real ? x->ndim : last); d++) {
        if (!to_real && x->shape[d] > 1 && x->strides[d] % 2 != 0) {
            return fail_op(call, PORT_E_SHAPE, "dimension %d has an odd stride", d);
        }
        out->strides[d] = to_real ? 2 * x->strides[d] : x->strides[d] / 2;
    }
    if (to_real) {
        out->shape[x->ndim] = 2;
        out->strides[x->ndim] = 1;
    }
    return emit(call, out);
}

const op_row op_activation_rows[] = {
    {"glu", "T self, I dim=-1", run_glu, "sigmoid", 0, 0},
    {"_safe_softmax", "T self, I dim, D? dtype=None", run_safe_softmax, "softmax", 0, 0},
    {"log_sigmoid_forward", "T self", run_log_sigmoid, "log_sigmoid", 0, 0},
    {"_weight_norm_interface", "T v, T g, I dim=0", run_weight_norm, "weight_norm", 0, 0},
    {"polar", "T abs, T angle", run_polar, NULL, 0, 0},
    {"view_as_real", "T self", run_complex_view, NULL, 0, 0},
    {"view_as_complex", "T self", run_complex_view, NULL, 0, 0},
    {.name = NULL},
};
