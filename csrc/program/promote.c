/* promote.c -- dtypes and shapes of results, as ATen derives them.
 *
 * A tensor with dimensions decides over one without, and that over a Python number, unless the weaker one is of a higher
 * category (BOOL < integers < floats). A Python int counts as I64, a float as F32 (the default dtype).
 */
#include "exec.h"

bool
dtype_is_float(port_dtype dtype)
{
    return dtype == PORT_F16 || dtype == PORT_BF16 || dtype == PORT_F32 || dtype == PORT_F64 || dtype == PORT_F8_E4M3 ||
           dtype == PORT_F8_E5M2;
}

bool
dtype_is_integral(port_dtype dtype)
{
    return dtype >= PORT_U8 && dtype <= PORT_U64;
}

static port_dtype
promote_floats(port_dtype a, port_dtype b)
{
    if (a == PORT_F8_E4M3 || a == PORT_F8_E5M2 || b == PORT_F8_E4M3 || b == PORT_F8_E5M2) {
        return PORT_NUM_DTYPES;
    }
    if (a == PORT_F64 || b == PORT_F64) {
        return PORT_F64;
    }
    return PORT_F32; /* two different ones of F16, BF16, F32 */
}

port_dtype
default_dtype(const op_call *call)
{
    return call->wide ? PORT_F64 : PORT_F32;
}

port_dtype
promote_dtypes(port_dtype a, port_dtype b)
{
    static const int32_t rank[PORT_NUM_DTYPES] = {
        [PORT_U8] = 1, [PORT_I8] = 1, [PORT_I16] = 2, [PORT_I32] = 3, [PORT_I64] = 4};
    if (a == b) {
        return a;
    }
    if (a >= PORT_NUM_DTYPES || b >= PORT_NUM_DTYPES) {
        return PORT_NUM_DTYPES;
    }
    if (a == PORT_C64 || b == PORT_C64) {
        return a == PORT_F64 || b == PORT_F64 ? PORT_NUM_DTYPES : PORT_C64; /* there is no C128 */
    }
    if (a == PORT_BOOL || b == PORT_BOOL) {
        return a == PORT_BOOL ? b : a;
    }
    if (dtype_is_float(a) && dtype_is_float(b)) {
        return promote_floats(a, b);
    }
    if (dtype_is_float(a) || dtype_is_float(b)) {
        return dtype_is_float(a) ? a : b;
    }
    if (rank[a] == 0 || rank[b] == 0) {
        return PORT_NUM_DTYPES; /* U16, U32, U64 mix with nothing */
    }
    if (rank[a] == rank[b]) {
        return PORT_I16; /* U8 and I8 */
    }
    return rank[a] > rank[b] ? a : b;
}

static int32_t
category(port_dtype dtype)
{
    return dtype == PORT_BOOL ? 0 : (dtype_is_integral(dtype) ? 1 : (dtype == PORT_C64 ? 3 : 2));
}

/* PORT_NUM_DTYPES + 1 stands for "none of this kind". */
#define NONE_YET ((port_dtype)(PORT_NUM_DTYPES + 1))

static port_dtype
combine(port_dtype strong, port_dtype weak)
{
    if (strong == NONE_YET || weak == NONE_YET || strong == PORT_NUM_DTYPES || weak == PORT_NUM_DTYPES) {
        return strong == NONE_YET ? weak : strong;
    }
    return category(weak) > category(strong) ? promote_dtypes(strong, weak) : strong;
}

static void
join(port_dtype *slot, port_dtype dtype)
{
    *slot = *slot == NONE_YET ? dtype : promote_dtypes(*slot, dtype);
}

port_dtype
result_type(const op_operand *operands, int32_t num_operands)
{
    port_dtype dims = NONE_YET, zero = NONE_YET, number = NONE_YET;
    for (int32_t k = 0; k < num_operands; k++) {
        const op_operand *o = &operands[k];
        if (o->tensor != NULL) {
            join(o->tensor->ndim > 0 ? &dims : &zero, o->tensor->dtype);
        } else if (o->scalar.kind != PORT_SCALAR_NONE) {
            join(&number, o->scalar.kind == PORT_SCALAR_BOOL ? PORT_BOOL
                                                             : (o->scalar.kind == PORT_SCALAR_INT ? PORT_I64 : PORT_F32));
        }
    }
    port_dtype result = combine(dims, combine(zero, number));
    return result == NONE_YET ? PORT_NUM_DTYPES : result;
}

/* ------------------------------------------------------------------ strides of a fresh output */

typedef struct seen {
    int64_t strides[PORT_MAX_NDIM]; /* as broadcast: 0 where repeated */
} seen;

/* > 0: dimension a lies outside b in memory; < 0: inside; 0: the operands do not say. */
static int
order_of(const seen *operands, int32_t num_operands, const int64_t *shape, int32_t a, int32_t b)
{
    for (int32_t k = 0; k < num_operands; k++) {
        int64_t sa = operands[k].strides[a], sb = operands[k].strides[b];
        if (sa == 0 || sb == 0) {
            continue;
        }
        if (sa != sb) {
            return sa < sb ? -1 : 1;
        }
        if (shape[a] > shape[b]) {
            return 1;
        }
    }
    return 0;
}

/* TensorIterator's order of dimensions, innermost first: an insertion sort that stops at the first clear answer. */
static void
strides_in_order(const seen *operands, int32_t num_operands, int32_t ndim, const int64_t *shape, int64_t *strides)
{
    int32_t perm[PORT_MAX_NDIM];
    for (int32_t d = 0; d < ndim; d++) {
        perm[d] = ndim - 1 - d;
    }
    for (int32_t i = 1; i < ndim; i++) {
        int32_t moving = i;
        for (int32_t k = i - 1; k >= 0; k--) {
            int order = order_of(operands, num_operands, shape, perm[k], perm[moving]);
            if (order > 0) {
                int32_t swap = perm[k];
                perm[k] = perm[moving];
                perm[moving] = swap;
                moving = k;
            } else if (order < 0) {
                break;
            }
        }
    }
    bool row_major = true;
    uint64_t stride = 1; /* wraps where operands broadcast to more than memory has, which is refused where it is asked for */
    for (int32_t d = 0; d < ndim; d++) {
        row_major = row_major && perm[d] == ndim - 1 - d;
        strides[perm[d]] = (int64_t)stride;
        stride *= (uint64_t)shape[perm[d]];
    }
    if (row_major) {
        dense_strides(ndim, shape, strides);
    }
}

void
preserve_strides(const port_tensor *like, int64_t *strides)
{
    if (tensor_is_dense(like)) {
        memcpy(strides, like->strides, sizeof like->strides);
        return;
    }
    seen operand;
    memcpy(operand.strides, like->strides, sizeof operand.strides);
    strides_in_order(&operand, 1, like->ndim, like->shape, strides);
    for (int32_t d = 0; d < like->ndim; d++) {
        if (like->shape[d] == 0) {
            dense_strides(like->ndim, like->shape, strides);
        }
    }
}

static bool
is_channels_last(const port_tensor *t)
{
    if (t->ndim != 4) {
        return false;
    }
    static const int32_t order[4] = {1, 3, 2, 0};
    int64_t expected = 1;
    for (int32_t k = 0; k < 4; k++) {
        int64_t size = t->shape[order[k]];
        if (size != 1 && t->strides[order[k]] != expected) {
            return false;
        }
        expected *= size;
    }
    return true;
}

/* The way TensorIterator takes when all operands are tensors of one shape and lie alike. False: it does not apply. */
static bool
strides_if_alike(const op_operand *operands, int32_t num_operands, op_plan *plan)
{
    bool row_major = true, channels_last = true, dense = true;
    const port_tensor *first = NULL;
    for (int32_t k = 0; k < num_operands; k++) {
        const port_tensor *t = operands[k].tensor;
        if (t == NULL && operands[k].scalar.kind == PORT_SCALAR_NONE) {
            continue;
        }
        if (t == NULL ? plan->ndim > 0
                      : (t->ndim != plan->ndim || memcmp(t->shape, plan->shape, (size_t)t->ndim * sizeof t->shape[0]) != 0)) {
            return false;
        }
        if (t == NULL) {
            continue;
        }
        row_major = row_major && tensor_is_contiguous(t);
        channels_last = channels_last && is_channels_last(t);
        dense = dense && tensor_is_dense(t) &&
                (first == NULL || memcmp(t->strides, first->strides, (size_t)t->ndim * sizeof t->strides[0]) == 0);
        first = first != NULL ? first : t;
    }
    if (row_major) {
        dense_strides(plan->ndim, plan->shape, plan->strides);
    } else if (channels_last) {
        plan->strides[1] = 1;
        plan->strides[3] = plan->shape[1];
        plan->strides[2] = plan->strides[3] * plan->shape[3];
        plan->strides[0] = plan->strides[2] * plan->shape[2];
    } else if (dense && first != NULL) {
        memcpy(plan->strides, first->strides, sizeof plan->strides);
    }
    return row_major || channels_last || (dense && first != NULL);
}

static port_status
broadcast_shape(op_call *call, const op_operand *operands, int32_t num_operands, op_plan *plan)
{
    plan->ndim = 0;
    for (int32_t k = 0; k < num_operands; k++) {
        const port_tensor *t = operands[k].tensor;
        plan->ndim = t != NULL && t->ndim > plan->ndim ? t->ndim : plan->ndim;
    }
    for (int32_t d = 0; d < plan->ndim; d++) {
        plan->shape[d] = 1;
    }
    for (int32_t k = 0; k < num_operands; k++) {
        const port_tensor *t = operands[k].tensor;
        for (int32_t d = 0; t != NULL && d < t->ndim; d++) {
            int64_t *size = &plan->shape[plan->ndim - t->ndim + d];
            if (*size != t->shape[d] && *size != 1 && t->shape[d] != 1) {
                char a[200], b[200];
                return fail_op(call, PORT_E_SHAPE, "operands of shapes %s and %s do not broadcast",
                               shape_text(plan->ndim, plan->shape, a, sizeof a), shape_text(t->ndim, t->shape, b, sizeof b));
            }
            *size = *size == 1 ? t->shape[d] : *size;
        }
    }
    return PORT_OK;
}

port_status
plan_pointwise(op_call *call, const op_operand *operands, int32_t num_operands, op_plan *plan)
{
    port_status status = broadcast_shape(call, operands, num_operands, plan);
    if (status != PORT_OK || strides_if_alike(operands, num_operands, plan)) {
        return status;
    }
    seen views[OP_MAX_OPERANDS];
    int32_t count = 0;
    for (int32_t k = 0; k < num_operands; k++) {
        if (operands[k].tensor != NULL) {
            port_view view = view_broadcast(operands[k].tensor, plan->ndim, plan->shape);
            memcpy(views[count++].strides, view.strides, sizeof view.strides);
        }
    }
    strides_in_order(views, count, plan->ndim, plan->shape, plan->strides);
    for (int32_t d = 0; d < plan->ndim; d++) {
        if (plan->shape[d] == 0) {
            dense_strides(plan->ndim, plan->shape, plan->strides);
        }
    }
    return PORT_OK;
}
