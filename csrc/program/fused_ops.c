/* fused_ops.c -- what torch runs as one op on its fast paths and everybody else as a row of them: the transformer encoder layer and multi-head
 * attention without gradients, bilinear layers, grouped products. They see through to the ops they stand for; sums may run in another order. */
#include "compose.h"

#include <math.h>

/* The product without its bias, which is added to it; of one operand for all three it is one product. */
#define PROJECTED(NAME, FROM, BEGIN, END, SHAPE)                                                                      \
    "b = slice.Tensor(qkv_bias, 0, " BEGIN ", " END "); ?same: " NAME " = slice.Tensor(r, 2, " BEGIN ", " END "); "            \
    "!same: a = slice.Tensor(qkv_weight, 0, " BEGIN ", " END "); !same: " NAME " = linear(" FROM ", a); " NAME " = add.Tensor(" NAME ", b); "  \
    NAME " = reshape(" NAME ", " SHAPE "); " NAME " = transpose.int(" NAME ", 1, 2); "
/* A mask hides where it is true: (T, S), with mask_type 1 (B, S), with 2 (B, H, T, S). */
#define MASKED                                                                                                        \
    "?mask: m = _to_copy(mask, dtype=BOOL); ?mask: ?mask_type=1: m = unsqueeze(m, 1); ?mask: ?mask_type=1: m = unsqueeze(m, 1); "  \
    "?mask: m = expand(m, sshape); ?mask: p = _masked_softmax(s, m, -1, 2); !mask: p = _softmax(s, -1, false); "
#define ATTENTION                                                                                                     \
    "?same: r = linear(query, qkv_weight); " PROJECTED("q", "query", "0", "E", "qshape") PROJECTED("k", "key", "E", "E2", "kshape") PROJECTED("v", "value", "E2", "E3", "kshape")  \
    "q = mul.Scalar(q, scale); q = reshape(q, qflat); k = reshape(k, vflat); k = transpose.int(k, 1, 2); v = reshape(v, vflat); "  \
    "s = bmm(q, k); s = reshape(s, sshape); " MASKED "w = reshape(p, sflat); o = bmm(w, v); o = reshape(o, oshape); "  \
    "o = transpose.int(o, 1, 2); o = reshape(o, xshape); y = linear(o, proj_weight, proj_bias); "

typedef struct attention_names {
    port_arg items[8][4];
    port_named_arg extra[14];
    int32_t count;
} attention_names;

static void
name_list(attention_names *names, int32_t slot, const char *name, int32_t n, const int64_t *sizes)
{
    for (int32_t k = 0; k < n; k++) {
        names->items[slot][k] = (port_arg){.kind = PORT_ARG_INT, .i = sizes[k], .d = (double)sizes[k]};
    }
    names->extra[names->count++] = (port_named_arg){name, {.kind = PORT_ARG_LIST, .items = names->items[slot], .num_items = n}};
}

static void
name_int(attention_names *names, const char *name, int64_t value)
{
    names->extra[names->count++] = (port_named_arg){name, {.kind = PORT_ARG_INT, .i = value, .d = (double)value}};
}

/* The shapes of attention over (B, T, E) and (B, S, E) in H heads. */
static void
name_shapes(attention_names *names, int64_t B, int64_t T, int64_t S, int64_t E, int64_t H)
{
    int64_t D = E / H;
    name_list(names, 0, "qshape", 4, (const int64_t[]){B, T, H, D});
    name_list(names, 1, "kshape", 4, (const int64_t[]){B, S, H, D});
    name_list(names, 2, "qflat", 3, (const int64_t[]){B * H, T, D});
    name_list(names, 3, "sshape", 4, (const int64_t[]){B, H, T, S});
    name_list(names, 4, "sflat", 3, (const int64_t[]){B * H, T, S});
    name_list(names, 5, "vflat", 3, (const int64_t[]){B * H, S, D});
    name_list(names, 6, "oshape", 4, (const int64_t[]){B, H, T, D});
    name_list(names, 7, "xshape", 3, (const int64_t[]){B, T, E});
    names->extra[names->count++] = (port_named_arg){"scale", {.kind = PORT_ARG_FLOAT, .d = 1.0 / sqrt((double)D)}};
}

static port_status
check_attention(op_call *call, const port_tensor *q, const port_tensor *k, int64_t E, int64_t H)
{
    bool fits = q->ndim == 3 && k->ndim == 3 && q->shape[0] == k->shape[0] && q->shape[2] == E && k->shape[2] == E && H > 0 && E > 0 && E % H == 0;
    return fits ? PORT_OK : fail_op(call, PORT_E_SHAPE, "expected (B, T, E) with E = %lld in %lld heads", (long long)E, (long long)H);
}

/* The same elements of the same memory in the same order: a view with other strides is another operand. */
static bool
are_one(const port_tensor *a, const port_tensor *b)
{
    size_t bytes = (size_t)a->ndim * sizeof a->shape[0];
    return a == b || (tensor_view(a).data == tensor_view(b).data && a->dtype == b->dtype && a->ndim == b->ndim &&
                      memcmp(a->shape, b->shape, bytes) == 0 && memcmp(a->strides, b->strides, bytes) == 0);
}

/* _native_multi_head_attention(query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, need_weights,
 * average_attn_weights, mask_type): the result, and the weights if they are needed. */
static port_status
run_multi_head(op_call *call)
{
    const port_tensor *q = arg_tensor(call, 0), *k = arg_tensor(call, 1);
    int64_t E = arg_int(call, 3), H = arg_int(call, 4);
    attention_names names = {.count = 0};
    port_status status = check_attention(call, q, k, E, H);
    if (status != PORT_OK) {
        return status;
    }
    name_shapes(&names, q->shape[0], q->shape[1], k->shape[1], E, H);
    name_int(&names, "E", E);
    name_int(&names, "E2", 2 * E);
    name_int(&names, "E3", 3 * E);
    bool same = are_one(q, k) && are_one(q, arg_tensor(call, 2));
    names.extra[names.count++] = (port_named_arg){"same", {.kind = PORT_ARG_BOOL, .i = same, .d = (double)same}};
    const char *formula = ATTENTION "w = new_empty(y, [0]) -> y, w";
    if (arg_bool(call, 10)) {
        formula = arg_bool(call, 11) ? ATTENTION "w = mean.dim(p, [1]) -> y, w" : ATTENTION "-> y, p";
    }
    return run_formula(call, formula, names.extra, names.count);
}

#define NORM(WHICH) "x = layer_norm(x, width, norm_weight_" WHICH ", norm_bias_" WHICH ", eps); "
#define ATTEND                                                                                                        \
    "a, w = _native_multi_head_attention(x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, false, true, mask_type); "

/* _transformer_encoder_layer_fwd: attention and a feed-forward part, each with its sum and norm, before (norm_first) or after. */
static port_status
run_encoder_layer(op_call *call)
{
    const port_arg width = {.kind = PORT_ARG_INT, .i = arg_int(call, 1)};
    const port_named_arg extra[1] = {{"width", {.kind = PORT_ARG_LIST, .items = &width, .num_items = 1}}};
    return run_formula(call,
                       "x = alias(src); ?norm_first: " NORM("1") ATTEND "x = add.Tensor(a, src); !norm_first: " NORM("1") "r = alias(x); ?norm_first: " NORM("2")
                       "x = linear(x, ffn_weight_1, ffn_bias_1); ?use_gelu: x = gelu(x); !use_gelu: x = relu(x); x = linear(x, ffn_weight_2, ffn_bias_2); "
                       "x = add.Tensor(x, r); !norm_first: " NORM("2") "-> x", extra, 1);
}

/* Operand k of _trilinear with dimensions of size 1 where its list says so. */
static port_status
widened_operand(op_call *call, int32_t k, port_tensor **out)
{
    port_status status = tensor_alias(call, arg_tensor(call, k), out);
    for (int64_t i = 0; status == PORT_OK && i < arg_len(call, 3 + k); i++) {
        port_tensor *seen = *out;
        int64_t at = arg_int_at(call, 3 + k, i);
        if (at < 0 || at > seen->ndim || seen->ndim == PORT_MAX_NDIM) {
            return fail_op(call, PORT_E_VALUE, "dimension %lld to widen of %d", (long long)at, seen->ndim);
        }
        for (int32_t d = seen->ndim++; d > at; d--) {
            seen->shape[d] = seen->shape[d - 1];
            seen->strides[d] = seen->strides[d - 1];
        }
        seen->shape[at] = 1;
        seen->strides[at] = 1;
    }
    return status;
}

/* The product of three operands in the shape that they broadcast to, in `inner`. */
static port_status
product_of_three(op_call *call, const port_tensor *const *in, port_dtype inner, op_plan *plan, const port_tensor **product)
{
    port_tensor *made;
    port_status status = plan_pointwise(call, (const op_operand[]){{.tensor = in[0]}, {.tensor = in[1]}, {.tensor = in[2]}}, 3, plan);
    *product = in[0];
    for (int32_t k = 1; status == PORT_OK && k < 3; k++) {
        const port_tensor *a, *b;
        if ((status = tensor_cast(call, *product, inner, &a)) != PORT_OK || (status = tensor_cast(call, in[k], inner, &b)) != PORT_OK ||
            (status = tensor_new(call, inner, plan->ndim, plan->shape, NULL, &made)) != PORT_OK) {
            return status;
        }
        port_view left = view_broadcast(a, plan->ndim, plan->shape), right = view_broadcast(b, plan->ndim, plan->shape), y = tensor_view(made);
        status = launch(call, "mul", inner, (const port_view *const[]){&left, &right}, 2, (const port_view *const[]){&y}, 1, NULL);
        *product = made;
    }
    return status;
}

static port_view
stack_view(const port_tensor *t, const int64_t *shape, const int64_t *strides)
{
    port_view view = tensor_view(t);
    view.ndim = 3;
    memcpy(view.shape, shape, 3 * sizeof *shape);
    memcpy(view.strides, strides, 3 * sizeof *strides);
    return view;
}

static port_status
launch_bmm(op_call *call, const port_view *a, const port_view *b, const port_view *y)
{
    const port_gemm_params params = {.alpha = 1.0, .beta = 0.0};
    return launch(call, "bmm", a->dtype, (const port_view *const[]){a, b, NULL}, 3, &y, 1, &params);
}

/* A bilinear layer's: y[n, o] = x1[n] . W[o] . x2[n]. For each o one product with the matrix W[o] and a stack of products with the rows of x2;
 * one row is no stack. */
static port_status
run_bilinear(op_call *call, const port_tensor *x1, const port_tensor *weight, const port_tensor *x2)
{
    int64_t N = x1->shape[0], O = weight->shape[0], I = weight->shape[1], J = weight->shape[2];
    port_tensor *out, *rows, *column;
    port_status status = tensor_new(call, x1->dtype, 2, (const int64_t[]){N, O}, NULL, &out);
    if (status != PORT_OK || (status = tensor_fill(call, out, (port_scalar){PORT_SCALAR_INT, 0, 0.0})) != PORT_OK ||
        (status = tensor_new(call, x1->dtype, 2, (const int64_t[]){N, J}, NULL, &rows)) != PORT_OK ||
        (status = tensor_new(call, x1->dtype, 1, &N, NULL, &column)) != PORT_OK) {
        return status;
    }
    port_view y = tensor_view(out), sums = tensor_view(column);
    port_view left = stack_view(x1, (const int64_t[]){1, N, I}, (const int64_t[]){N * x1->strides[0], x1->strides[0], x1->strides[1]});
    port_view matrix = stack_view(weight, (const int64_t[]){1, I, J}, weight->strides);
    port_view whole = stack_view(rows, (const int64_t[]){1, N, J}, (const int64_t[]){N * J, J, 1});
    port_view row = stack_view(rows, (const int64_t[]){N, 1, J}, (const int64_t[]){J, J, 1});
    port_view right = stack_view(x2, (const int64_t[]){N, J, 1}, (const int64_t[]){x2->strides[0], x2->strides[1], 1});
    port_view sum = stack_view(column, (const int64_t[]){N, 1, 1}, (const int64_t[]){1, 1, 1});
    y.ndim = 1;
    y.strides[0] = O;
    for (int64_t o = 0; status == PORT_OK && o < O && N * I * J > 0; o++) {
        const port_view *const added[2] = {&y, &sums};
        const port_view *const to = &y;
        status = launch_bmm(call, &left, &matrix, &whole);
        if (status == PORT_OK && (status = launch_bmm(call, &row, &right, &sum)) == PORT_OK) {
            status = launch(call, "add", y.dtype, added, 2, &to, 1, NULL);
        }
        y.data = (char *)y.data + port_dtype_size(y.dtype);
        matrix.data = (char *)matrix.data + weight->strides[0] * (int64_t)port_dtype_size(matrix.dtype);
    }
    return status == PORT_OK ? emit(call, out) : status;
}

static bool
lists_are(const op_call *call, int32_t idx, int64_t first, int64_t second)
{
    return arg_len(call, idx) == (second < 0 ? 1 : 2) && arg_int_at(call, idx, 0) == first && (second < 0 || arg_int_at(call, idx, 1) == second);
}

/* Whether _trilinear is that of a bilinear layer; other sums may run in another order here. */
static bool
is_bilinear(const op_call *call)
{
    const port_tensor *x1 = arg_tensor(call, 0), *weight = arg_tensor(call, 1), *x2 = arg_tensor(call, 2);
    bool fits = x1->ndim == 2 && weight->ndim == 3 && x2->ndim == 2 && x1->dtype == weight->dtype && x1->dtype == x2->dtype &&
                dtype_is_float(x1->dtype) && x1->shape[0] == x2->shape[0] && x1->shape[1] == weight->shape[1] && x2->shape[1] == weight->shape[2];
    return fits && lists_are(call, 3, 1, 3) && lists_are(call, 4, 0, -1) && lists_are(call, 5, 1, 2) && lists_are(call, 6, 2, 3) &&
           arg_int(call, 7) == 1;
}

/* _trilinear(i1, i2, i3, expand1, expand2, expand3, sumdim, unroll_dim): products of the three, widened, summed over dimensions. */
static port_status
run_trilinear(op_call *call)
{
    const port_tensor *in[3], *whole, *result;
    op_plan plan;
    port_tensor *seen;
    port_status status;
    if (is_bilinear(call)) {
        return run_bilinear(call, arg_tensor(call, 0), arg_tensor(call, 1), arg_tensor(call, 2));
    }
    for (int32_t k = 0; k < 3; k++) {
        if ((status = widened_operand(call, k, &seen)) != PORT_OK) {
            return status;
        }
        in[k] = seen;
        if (seen->dtype != in[0]->dtype || !dtype_is_float(seen->dtype)) {
            return fail_op(call, PORT_E_DTYPE, "operands of %s and %s", port_dtype_name(in[0]->dtype), port_dtype_name(seen->dtype));
        }
    }
    port_dtype inner = in[0]->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    if ((status = product_of_three(call, in, inner, &plan, &whole)) != PORT_OK) {
        return status;
    }
    int64_t shape[PORT_MAX_NDIM];
    port_reduce_params params = {.dims = 0};
    port_tensor *sum, *out;
    memcpy(shape, plan.shape, sizeof shape);
    for (int64_t i = 0; i < arg_len(call, 6); i++) {
        int32_t d;
        if ((status = wrap_dim(call, arg_int_at(call, 6, i), plan.ndim, &d)) != PORT_OK) {
            return status;
        }
        params.dims |= 1u << d;
        shape[d] = 1;
    }
    if ((status = tensor_new(call, inner, plan.ndim, shape, NULL, &sum)) != PORT_OK ||
        (status = launch_tensors(call, "sum", inner, &whole, 1, (const port_tensor *const[]){sum}, 1, &params)) != PORT_OK ||
        (status = tensor_cast(call, sum, in[0]->dtype, &result)) != PORT_OK || (status = tensor_alias(call, result, &out)) != PORT_OK) {
        return status;
    }
    int32_t kept = 0;
    for (int32_t d = 0; d < out->ndim; d++) {
        if ((params.dims >> d & 1u) == 0) {
            out->shape[kept] = out->shape[d];
            out->strides[kept++] = out->strides[d];
        }
    }
    out->ndim = kept;
    return emit(call, out);
}

#define HEADS_OF(HEAD) HEAD ", T qkv_weight, T qkv_bias, T proj_weight, T proj_bias"

const op_row op_fused_rows[] = {
    {"_native_multi_head_attention", HEADS_OF("T query, T key, T value, I embed_dim, I num_head")
     ", T? mask=None, B need_weights=True, B average_attn_weights=True, I? mask_type=None", run_multi_head, NULL, MODE_SAME, 0},
    {"_transformer_encoder_layer_fwd", HEADS_OF("T src, I embed_dim, I num_heads")
     ", B use_gelu, B norm_first, F eps, T norm_weight_1, T norm_bias_1, T norm_weight_2, T norm_bias_2, T ffn_weight_1, T ffn_bias_1, "
     "T ffn_weight_2, T ffn_bias_2, T? mask=None, I? mask_type=None", run_encoder_layer, NULL, MODE_SAME, 0},
    {"_trilinear", "T i1, T i2, T i3, A expand1, A expand2, A expand3, A sumdim, I unroll_dim=1", run_trilinear, NULL, MODE_SAME, 0},
    {.name = NULL},
};
