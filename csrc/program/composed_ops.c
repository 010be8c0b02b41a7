/* composed_ops.c -- ops as formulas over other ops (compose.c). Where torch makes the op of others the formula names
 * the same in the same order, and the bits are the same; where torch has one loop for it, roundings may differ, and
 * the op's label says so. */
#include "compose.h"

#define FORMULA(NAME, SIGNATURE, TEXT) {NAME, SIGNATURE, run_composed, TEXT, MODE_SAME, 0}
#define AS_FLOAT "%self: self = _to_copy(self, dtype=F32); "
#define FORMULA_(NAME, SIGNATURE, TEXT) {NAME, SIGNATURE, run_composed, TEXT, MODE_SAME, OP_IN_PLACE}
#define REDUCED(NAME) "?reduction=1: " NAME " = mean(" NAME "); ?reduction=2: " NAME " = sum(" NAME ") -> " NAME
#define LOSS(NAME, MORE, TEXT) FORMULA(NAME, "T self, T target, " MORE, TEXT REDUCED("l"))

/* addr(self, vec1, vec2, beta, alpha): alpha and beta in the dtype, every step rounded to it, but in F32 and F64 the
 * last product and sum as addcmul's; of BOOL a disjunction. */
static port_status
run_addr(op_call *call)
{
    bool all_bool = true, wide = false;
    for (int32_t k = 0; k < 3; k++) {
        port_dtype dtype = arg_tensor(call, k)->dtype;
        all_bool = all_bool && dtype == PORT_BOOL;
        wide = wide || dtype == PORT_F32 || dtype == PORT_F64;
    }
    if (all_bool) {
        return run_formula(call,
                           "a = unsqueeze(vec1, 1); k = scalar_tensor(alpha, dtype=BOOL); a = logical_and(a, k); "
                           "y = logical_and(a, vec2); b = scalar_tensor(beta, dtype=BOOL); b = logical_and(self, b); "
                           "!beta=0: y = logical_or(b, y) -> y",
                           NULL, 0);
    }
    const port_named_arg fused = {"fused", {.kind = PORT_ARG_BOOL, .i = wide, .d = (double)wide}};
    return run_formula(call,
                       "a = unsqueeze(vec1, 1); k = scalar_tensor(alpha, dtype=vec1.dtype); a = mul.Tensor(a, k); "
                       "b = scalar_tensor(beta, dtype=self.dtype); b = mul.Tensor(self, b); "
                       "?beta=0: y = mul.Tensor(a, vec2); !beta=0: ?fused: y = addcmul(b, a, vec2); "
                       "!beta=0: !fused: y = mul.Tensor(a, vec2); !beta=0: !fused: y = add.Tensor(b, y) -> y",
                       &fused, 1);
}

/* linalg_cross(self, other, dim): with vectors F32 and F64 fuse the first product. */
static port_status
run_cross(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0), *b = arg_tensor(call, 1);
    int32_t d;
    if (a->ndim != b->ndim) {
        return fail_op(call, PORT_E_SHAPE, "tensors of %d and %d dimensions; expected as many", a->ndim, b->ndim);
    }
    port_status status = wrap_dim(call, arg_int(call, 2), a->ndim, &d);
    if (status != PORT_OK) {
        return status;
    }
    if (a->ndim < 1 || a->shape[d] != 3 || b->shape[d] != 3) {
        return fail_op(call, PORT_E_SHAPE, "expected vectors of 3 numbers along dimension %d", d);
    }
    port_dtype dtype = a->dtype;
    bool wide = (dtype == PORT_F32 || dtype == PORT_F64) && call->options->profile.capability != PORT_CAP_DEFAULT;
    const port_named_arg fused = {"fused", {.kind = PORT_ARG_BOOL, .i = wide, .d = (double)wide}};
    return run_formula(call,
                       "a = roll(self, [-2], [dim]); b = roll(other, [-1], [dim]); q = mul.Tensor(a, b); a = roll(self, [-1], [dim]); "
                       "b = roll(other, [-2], [dim]); ?fused: q = neg(q); ?fused: y = addcmul(q, a, b); "
                       "!fused: p = mul.Tensor(a, b); !fused: y = sub.Tensor(p, q) -> y",
                       &fused, 1);
}

/* trace(self): a running sum from 0. */
static port_status
run_trace(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->ndim != 2 || x->dtype == PORT_BOOL) {
        return fail_op(call, PORT_E_SHAPE, "expected a matrix of numbers, got %d dimensions of %s", x->ndim, port_dtype_name(x->dtype));
    }
    return run_formula(call, "d = diagonal(self); d = constant_pad_nd(d, [1, 0]); d = cumsum(d, 0); y = select.int(d, 0, -1) -> y", NULL, 0);
}

/* equal(self, other): tensors of different shapes are not. */
static port_status
run_equal(op_call *call)
{
    const port_tensor *a = arg_tensor(call, 0), *b = arg_tensor(call, 1);
    bool fit = a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
    return run_formula(call, fit ? "e = eq.Tensor(self, other); y = _is_all_true(e) -> y"
                                 : "y = scalar_tensor(false, dtype=BOOL) -> y", NULL, 0);
}

/* logsumexp(self, dim, keepdim); of nothing the logarithm of 0. */
static port_status
run_logsumexp(op_call *call)
{
    if (tensor_elems(arg_tensor(call, 0)) == 0) {
        return run_formula(call, AS_FLOAT "e = exp(self); s = sum.dim_IntList(e, dim, keepdim); y = log(s) -> y", NULL, 0);
    }
    return run_formula(call,
                       AS_FLOAT "m = amax(self, dim, true); a = abs(m); i = eq.Scalar(a, inf); m = masked_fill.Scalar(m, i, 0); "
                                "d = sub.Tensor(self, m); e = exp(d); s = sum.dim_IntList(e, dim, keepdim); l = log(s); "
                                "!keepdim: ?dim: m = squeeze.dims(m, dim); !keepdim: !dim: m = squeeze(m); "
                                "y = add.Tensor(l, m) -> y",
                       NULL, 0);
}

/* renorm(self, p, dim, maxnorm): slices of dimension dim whose norm is greater are brought down to it. */
static port_status
run_renorm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_arg dims[PORT_MAX_NDIM];
    int32_t kept = 0, count = 0;
    port_status status = wrap_dim(call, arg_int(call, 2), x->ndim, &kept);
    for (int32_t d = 0; d < x->ndim; d++) {
        dims[count] = (port_arg){.kind = PORT_ARG_INT, .i = d, .d = d};
        count += d != kept;
    }
    const bool half = x->dtype == PORT_BF16 || x->dtype == PORT_F16;
    const port_named_arg extra[] = {{"dims", {.kind = PORT_ARG_LIST, .items = dims, .num_items = count}},
                                    {"half", {.kind = PORT_ARG_BOOL, .i = half, .d = (double)half}}};
    if (status != PORT_OK || x->ndim < 2) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_SHAPE, "expected at least 2 dimensions, got %d", x->ndim);
    }
    return run_formula(call,
                       "!half: n = linalg_vector_norm(self, p, dims, true); ?half: n = linalg_vector_norm(self, p, dims, true, dtype=F32); "
                       "g = gt.Scalar(n, maxnorm); d = add.Scalar(n, 1e-7); m = full_like(d, maxnorm); d = div.Tensor(m, d); "
                       "o = ones_like(n); f = where.self(g, d, o); ?half: f = _to_copy(f, dtype=self.dtype); y = mul.Tensor(self, f) -> y",
                       extra, 2);
}

/* _euclidean_dist(x1 (.., P, M), x2 (.., R, M)) of one batch: the root of |x1|^2 - 2 x1 x2 + |x2|^2 as one product. */
static port_status
run_euclidean(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *y = arg_tensor(call, 1);
    int32_t ndim = x->ndim;
    if (ndim < 2 || y->ndim != ndim || x->shape[ndim - 1] != y->shape[ndim - 1] || ndim > 8 ||
        memcmp(x->shape, y->shape, (size_t)(ndim - 2) * sizeof x->shape[0]) != 0) {
        return fail_op(call, PORT_E_SHAPE, "expected points (.., P, M) and (.., R, M) of one batch");
    }
    int64_t batch = 1, P = x->shape[ndim - 2], R = y->shape[ndim - 2], width = x->shape[ndim - 1] + 2;
    port_arg stack[2][3], out[8];
    for (int32_t d = 0; d < ndim; d++) {
        int64_t size = d + 1 == ndim ? R : x->shape[d];
        out[d] = (port_arg){.kind = PORT_ARG_INT, .i = size, .d = (double)size};
        batch *= d < ndim - 2 ? size : 1;
    }
    const int64_t sizes[2][3] = {{batch, P, width}, {batch, R, width}};
    for (int32_t k = 0; k < 6; k++) {
        stack[k / 3][k % 3] = (port_arg){.kind = PORT_ARG_INT, .i = sizes[k / 3][k % 3], .d = (double)sizes[k / 3][k % 3]};
    }
    const port_named_arg extra[] = {{"first", {.kind = PORT_ARG_LIST, .items = stack[0], .num_items = 3}},
                                    {"second", {.kind = PORT_ARG_LIST, .items = stack[1], .num_items = 3}},
                                    {"shape", {.kind = PORT_ARG_LIST, .items = out, .num_items = ndim}}};
#define NORMS                                                                                                          \
    "n = mul.Tensor(x1, x1); n = sum.dim_IntList(n, [-1], true); p = ones_like(n); a = mul.Scalar(x1, -2); "           \
    "a = cat([a, n, p], -1); n = mul.Tensor(x2, x2); n = sum.dim_IntList(n, [-1], true); q = ones_like(n); "           \
    "b = cat([x2, q, n], -1); "
    return run_formula(call,
                       ndim == 2 ? NORMS "b = t(b); y = mm(a, b); y = clamp_min(y, 0); y = sqrt(y) -> y"
                                 : NORMS "a = reshape(a, first); b = reshape(b, second); b = transpose.int(b, 1, 2); "
                                         "y = bmm(a, b); y = reshape(y, shape); y = clamp_min(y, 0); y = sqrt(y) -> y",
                       extra, 3);
}

/* _cdist_forward(x1, x2, p, compute_mode): order 2 by a product if that is asked for, or there are more than 25 points. */
static port_status
run_cdist(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *y = arg_tensor(call, 1);
    int64_t mode = arg_given(call, 3) ? arg_int(call, 3) : 0;
    bool same_batch = x->ndim >= 2 && x->ndim == y->ndim && memcmp(x->shape, y->shape, (size_t)(x->ndim - 2) * sizeof x->shape[0]) == 0;
    bool many = same_batch && (x->shape[x->ndim - 2] > 25 || y->shape[x->ndim - 2] > 25);
    if (same_batch && arg_double(call, 2, 2.0) == 2.0 && (mode == 1 || (mode == 0 && many))) {
        return run_formula(call, "y = _euclidean_dist(x1, x2) -> y", NULL, 0);
    }
#define DIFFERENCES "a = unsqueeze(x1, -2); b = unsqueeze(x2, -3); d = sub.Tensor(a, b); "
    return run_formula(call, arg_double(call, 2, 2.0) != 0.0 /* of order 0 a norm counts NaN, a distance is NaN */
                                 ? DIFFERENCES "y = linalg_vector_norm(d, p, [-1]) -> y"
                                 : DIFFERENCES "d = abs(d); d = ceil(d); d = clamp_max(d, 1); y = sum.dim_IntList(d, [-1]) -> y", NULL, 0);
}

/* as_strided_scatter(self, src, size, stride, storage_offset). The reference copies the whole storage that self is a part of, and counts from its
 * begin; what of it is not in memory here is not written to. */
static port_status
run_as_strided_scatter(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t bytes = (int64_t)port_dtype_size(x->dtype), begin = x->buffer->origin_bytes / bytes, own = x->offset_bytes / bytes;
    int64_t all = (int64_t)x->buffer->size_bytes / bytes, at = own;
    if (!tensor_is_dense(x) || x->offset_bytes % bytes != 0 || x->buffer->origin_bytes % bytes != 0) {
        return fail_unsupported(call, "a tensor with gaps between its elements");
    }
    if (arg_given(call, 4) && __builtin_sub_overflow(arg_int(call, 4), begin, &at)) {
        return fail_op(call, PORT_E_VALUE, "the offset is too large");
    }
    port_arg sizes[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    for (int32_t d = 0; d < x->ndim; d++) {
        sizes[d] = (port_arg){.kind = PORT_ARG_INT, .i = x->shape[d]};
        strides[d] = (port_arg){.kind = PORT_ARG_INT, .i = x->strides[d]};
    }
    const port_named_arg names[] = {{"all", {.kind = PORT_ARG_INT, .i = all}},
                                    {"begin", {.kind = PORT_ARG_INT, .i = begin}},
                                    {"at", {.kind = PORT_ARG_INT, .i = at}},
                                    {"own", {.kind = PORT_ARG_INT, .i = own}},
                                    {"sizes", {.kind = PORT_ARG_LIST, .items = sizes, .num_items = x->ndim}},
                                    {"strides", {.kind = PORT_ARG_LIST, .items = strides, .num_items = x->ndim}}};
    return run_formula(call,
                       "y = as_strided(self, [all], [1], begin); y = clone(y); v = as_strided(y, size, stride, at); v = copy_(v, src); "
                       "y = as_strided(y, sizes, strides, own) -> y",
                       names, 6);
}

const op_row op_composed_rows[] = {
    /* what elements are */
    FORMULA("isnan", "T self", "y = ne.Tensor(self, self) -> y"),
    FORMULA("isinf", "T self",
            "%self: y = eq.Scalar(self, inf); ~self: a = abs(self); ~self: y = eq.Scalar(a, inf) -> y"),
    FORMULA("isposinf", "T self", "y = eq.Scalar(self, inf) -> y"),
    FORMULA("isneginf", "T self", "y = eq.Scalar(self, -inf) -> y"),
    FORMULA("count_nonzero", "T self, I? dim=None",
            "n = ne.Scalar(self, 0); !dim: y = sum(n); ?dim: y = sum.dim_IntList(n, [dim]) -> y"),
    FORMULA("count_nonzero.dim_IntList", "T self, A dim", "n = ne.Scalar(self, 0); y = sum.dim_IntList(n, dim) -> y"),
    {"equal", "T self, T other", run_equal, NULL, MODE_SAME, 0},
    FORMULA(
        "allclose", "T self, T other, F rtol=1e-05, F atol=1e-08, B equal_nan=False",
        "d = sub.Tensor(self, other); d = abs(d); b = abs(other); b = mul.Scalar(b, rtol); b = add.Scalar(b, atol); c "
        "= le.Tensor(d, b); "
        "f = isinf(d); f = logical_not(f); c = logical_and(c, f); e = eq.Tensor(self, other); c = logical_or(c, e); "
        "?equal_nan: n = isnan(self); ?equal_nan: o = isnan(other); ?equal_nan: n = logical_and(n, o); "
        "?equal_nan: c = logical_or(c, n); y = _is_all_true(c) -> y"),

    FORMULA("isin.Tensor_Scalar", "T elements, S test_element, *, B assume_unique=False, B invert=False",
            "!invert: y = eq.Scalar(elements, test_element); ?invert: y = ne.Scalar(elements, test_element); y = contiguous(y) -> y"),
    FORMULA("isin.Scalar_Tensor", "S element, T test_elements, *, B assume_unique=False, B invert=False",
            "%test_elements: y = eq.Scalar(test_elements, element); ~test_elements: e = scalar_tensor(element, dtype=test_elements.dtype); "
            "~test_elements: y = eq.Tensor(test_elements, e); y = any(y); ?invert: y = logical_not(y) -> y"),

    /* functions of elements */
    FORMULA_("frac", "T self", "t = trunc(self); y = sub.Tensor(self, t) -> y"),
    FORMULA_("sgn", "T self", "y = sign(self) -> y"),
    FORMULA_("deg2rad", "T self", "y = mul.Tensor(self, 0.017453292519943295) -> y"),
    FORMULA_("rad2deg", "T self", "y = mul.Tensor(self, 57.29577951308232) -> y"),
    FORMULA("ldexp.Tensor", "T self, T other", "p = pow.Scalar(2.0, other); y = mul.Tensor(self, p) -> y"),
    {"ldexp_", "T self, T other", run_composed, "p = pow.Scalar(2.0, other); y = mul.Tensor(self, p) -> y", MODE_SAME,
     OP_WRITES},
    {"logit", "T self, F? eps=None", run_logit,
             AS_FLOAT "?eps: e = scalar_tensor(eps, dtype=self.dtype); ?eps: h = rsub.Scalar(e, 1.0); ?eps: self = "
                          "clamp.Tensor(self, e, h); "
             "d = rsub.Scalar(self, 1.0); q = div.Tensor(self, d); y = log(q) -> y",
     MODE_SAME, OP_IN_PLACE},

    FORMULA("special_entr", "T self",
            AS_FLOAT "l = log(self); y = mul.Tensor(self, l); y = neg(y); z = eq.Scalar(self, 0); o = scalar_tensor(0, dtype=y.dtype); "
                     "y = where.self(z, o, y); z = lt.Scalar(self, 0); o = scalar_tensor(-inf, dtype=y.dtype); y = where.self(z, o, y) -> y"),
    FORMULA("special_xlog1py", "T self, T other",
            AS_FLOAT "%other: other = _to_copy(other, dtype=F32); l = log1p(other); y = mul.Tensor(self, l); n = isnan(other); "
                     "n = logical_not(n); z = eq.Scalar(self, 0); z = logical_and(z, n); o = scalar_tensor(0, dtype=y.dtype); y = where.self(z, o, y) -> y"),

    /* losses */
    LOSS("mse_loss", "I reduction=1", "d = sub.Tensor(self, target); l = mul.Tensor(d, d); "),
    LOSS("soft_margin_loss", "I reduction=1", "n = neg(self); n = mul.Tensor(n, target); e = exp(n); l = log1p(e); "),
    LOSS("binary_cross_entropy", "T? weight=None, I reduction=1",
         "n = neg(self); a = log1p(n); a = clamp_min(a, -100); t = sub.Scalar(target, 1); a = mul.Tensor(t, a); b = "
         "log(self); "
         "b = clamp_min(b, -100); b = mul.Tensor(target, b); l = sub.Tensor(a, b); ?weight: l = mul.Tensor(l, "
         "weight); "),
    LOSS("binary_cross_entropy_with_logits", "T? weight=None, T? pos_weight=None, I reduction=1",
         "s, buffer = log_sigmoid_forward(self); ?pos_weight: w = sub.Scalar(pos_weight, 1); ?pos_weight: w = "
         "mul.Tensor(w, target); "
         "?pos_weight: w = add.Scalar(w, 1); ?pos_weight: s = mul.Tensor(s, w); l = rsub.Scalar(target, 1); l = "
         "mul.Tensor(l, self); "
         "l = sub.Tensor(l, s); ?weight: l = mul.Tensor(l, weight); "),

    /* reductions */
    {"logsumexp", "T self, A dim, B keepdim=False", run_logsumexp, NULL, MODE_SAME, 0},
    FORMULA(
        "nansum", "T self, A? dim=None, B keepdim=False, *, D? dtype=None",
        "n = isnan(self); z = masked_fill.Scalar(self, n, 0); y = sum.dim_IntList(z, dim, keepdim, dtype=dtype) -> y"),
    {"trace", "T self", run_trace, NULL, MODE_SAME, 0},
    FORMULA("dist", "T self, T other, S p=2", "d = sub.Tensor(self, other); y = linalg_vector_norm(d, p) -> y"),
    FORMULA("norm.Scalar", "T self, S p=2", "y = linalg_vector_norm(self, p) -> y"),
    FORMULA("norm.ScalarOpt_dtype", "T self, S? p, *, D dtype",
            "?p: y = linalg_vector_norm(self, p, dtype=dtype); !p: y = linalg_vector_norm(self, dtype=dtype) -> y"),
    FORMULA(
        "norm.ScalarOpt_dim", "T self, S? p, A dim, B keepdim=False",
        "?p: y = linalg_vector_norm(self, p, dim, keepdim); !p: y = linalg_vector_norm(self, 2, dim, keepdim) -> y"),
    FORMULA("norm.ScalarOpt_dim_dtype", "T self, S? p, A dim, B keepdim=False, *, D dtype",
            "?p: y = linalg_vector_norm(self, p, dim, keepdim, dtype=dtype); !p: y = linalg_vector_norm(self, 2, dim, "
            "keepdim, dtype=dtype) -> y"),

    {"renorm", "T self, S p, I dim, S maxnorm", run_renorm, NULL, MODE_SAME, OP_IN_PLACE},
    {"embedding_renorm_", "T self, T indices, F max_norm, F norm_type", run_composed,
     "n = linalg_vector_norm(self, norm_type, [1], true); d = _to_copy(n, dtype=F64); g = gt.Scalar(d, max_norm); "
     "d = add.Scalar(d, 1e-7); m = full_like(d, max_norm); m = div.Tensor(m, d); m = _to_copy(m, dtype=self.dtype); "
     "o = zeros_like(n); i = reshape(indices, [-1]); o = index_fill.int_Scalar(o, 0, i, 1); o = gt.Scalar(o, 0); "
     "g = logical_and(g, o); s = mul.Tensor(self, m); y = where.self(g, s, self) -> y",
     MODE_SAME, OP_WRITES},

    /* products */
    {"addr", "T self, T vec1, T vec2, *, S beta=1, S alpha=1", run_addr, NULL, MODE_SAME, OP_IN_PLACE},
    {"linalg_cross", "T self, T other, *, I dim=-1", run_cross, NULL, MODE_SAME, 0},
    {"_cdist_forward", "T x1, T x2, F p, I? compute_mode", run_cdist, NULL, MODE_SAME, 0},
    {"_euclidean_dist", "T x1, T x2", run_euclidean, NULL, MODE_SAME, 0},
    FORMULA("conv_tbc", "T self, T weight, T bias, I pad=0",
            "x = permute(self, [1, 2, 0]); w = permute(weight, [2, 1, 0]); y = convolution(x, w, bias, [1], [pad], "
            "[1], false, [0], 1); "
            "y = permute(y, [2, 0, 1]); y = contiguous(y) -> y"),
    FORMULA("_int_mm", "T self, T mat2",
            "a = _to_copy(self, dtype=I32); b = _to_copy(mat2, dtype=I32); y = mm(a, b) -> y"),
    FORMULA("_weight_int8pack_mm", "T self, T mat2, T scales",
            "w = t(mat2); w = _to_copy(w, dtype=self.dtype); y = mm(self, w); y = mul.Tensor(y, scales) -> y"),

    /* writing into a copy */
    FORMULA("slice_scatter", "T self, T src, I dim=0, I? start=None, I? end=None, I step=1",
            "y = clone(self); v = slice.Tensor(y, dim, start, end, step); v = copy_(v, src) -> y"),
    FORMULA("select_scatter", "T self, T src, I dim, I index",
            "y = clone(self); v = select.int(y, dim, index); v = copy_(v, src) -> y"),
    FORMULA("diagonal_scatter", "T self, T src, I offset=0, I dim1=0, I dim2=1",
            "y = clone(self); v = diagonal(y, offset, dim1, dim2); v = copy_(v, src) -> y"),
    {"as_strided_scatter", "T self, T src, A size, A stride, I? storage_offset=None", run_as_strided_scatter, NULL, MODE_SAME, 0},

    {.name = NULL},
};
