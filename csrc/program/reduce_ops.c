/* reduce_ops.c -- reductions over dimensions, scans and softmax. Results are row-major, as torch makes them. */
#include "compose.h"

/* The dimensions to reduce as a bit mask: an absent or empty list means all (where `empty_is_all`). */
static port_status
read_dims(op_call *call, int32_t idx, int32_t ndim, uint32_t *dims)
{
    uint32_t all = ndim >= 1 ? (uint32_t)((1ull << ndim) - 1) : 1;
    int64_t len = idx < 0 ? 0 : arg_len(call, idx);
    *dims = len == 0 ? all : 0;
    for (int64_t k = 0; k < len; k++) {
        int32_t d = 0;
        port_status status = wrap_dim(call, arg_int_at(call, idx, k), ndim, &d);
        if (status != PORT_OK) {
            return status;
        }
        if (*dims & 1u << d) {
            return fail_op(call, PORT_E_VALUE, "dimension %d is named twice", d);
        }
        *dims |= 1u << d;
    }
    return PORT_OK;
}

/* Without the reduced dimensions. */
static void
drop_dims(port_tensor *t, uint32_t dims)
{
    int32_t kept = 0;
    for (int32_t d = 0; d < t->ndim; d++) {
        if ((dims & 1u << d) == 0) {
            t->shape[kept] = t->shape[d];
            t->strides[kept++] = t->strides[d];
        }
    }
    t->ndim = kept;
}

/* A scalar seen as one dimension of size 1, so that a kernel has a dimension to reduce. */
static port_status
at_least_1d(op_call *call, const port_tensor **x)
{
    port_tensor *seen;
    if ((*x)->ndim > 0) {
        return PORT_OK;
    }
    port_status status = tensor_alias(call, *x, &seen);
    if (status == PORT_OK) {
        seen->ndim = 1;
        seen->shape[0] = seen->strides[0] = 1;
        *x = seen;
    }
    return status;
}

static port_dtype
result_dtype(const char *kernel, port_dtype dtype)
{
    if (strcmp(kernel, "argmax") == 0 || strcmp(kernel, "argmin") == 0) {
        return PORT_I64;
    }
    if (strcmp(kernel, "any") == 0 || strcmp(kernel, "all") == 0) {
        return PORT_BOOL;
    }
    bool sums = strcmp(kernel, "sum") == 0 || strcmp(kernel, "prod") == 0 || strncmp(kernel, "cum", 3) == 0;
    return sums && !dtype_is_float(dtype) ? PORT_I64 : dtype;
}

/* Runs the kernel over `dims` of x and emits the result cast to `dtype`. */
static port_status
reduce(op_call *call, const char *kernel, const port_tensor *x, uint32_t dims, bool keepdim, double correction, port_dtype dtype)
{
    bool scalar = x->ndim == 0;
    bool half = (x->dtype == PORT_F16 || x->dtype == PORT_BF16) && !kernel_exists(call, kernel, x->dtype);
    port_status status = tensor_cast(call, x, half ? PORT_F32 : x->dtype, &x); /* torch accumulates halves in F32 */
    if (status == PORT_OK) {
        status = at_least_1d(call, &x);
    }
    int64_t shape[PORT_MAX_NDIM];
    for (int32_t d = 0; status == PORT_OK && d < x->ndim; d++) {
        shape[d] = dims & 1u << d ? 1 : x->shape[d];
    }
    port_tensor *made, *out;
    const port_tensor *result;
    port_reduce_params params = {dims, correction, .about_mean = strstr(call->row->name, "_mean") == NULL,
                                 .signs_in_order = strcmp(call->row->name, "amax") == 0 || strcmp(call->row->name, "amin") == 0};
    if (status != PORT_OK ||
        (status = tensor_new(call, result_dtype(kernel, x->dtype), x->ndim, shape, NULL, &made)) != PORT_OK ||
        (status = launch_tensors(call, kernel, x->dtype, &x, 1, (const port_tensor *const[]){made}, 1, &params)) != PORT_OK ||
        (status = tensor_cast(call, made, dtype, &result)) != PORT_OK ||
        (status = tensor_alias(call, result, &out)) != PORT_OK) {
        return status;
    }
    if (scalar || !keepdim) {
        drop_dims(out, dims);
    }
    return emit(call, out);
}

static port_status
need_elements(op_call *call, const port_tensor *x, uint32_t dims)
{
    for (int32_t d = 0; d < x->ndim; d++) {
        if ((dims & 1u << d) != 0 && x->shape[d] == 0) {
            return fail_op(call, PORT_E_VALUE, "dimension %d to reduce has size 0", d);
        }
    }
    return PORT_OK;
}

/* Sums and means of complex numbers: of their two parts. */
static port_status
reduce_complex(op_call *call, bool full)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_arg items[PORT_MAX_NDIM];
    uint32_t dims;
    int32_t count = 0;
    port_status status = read_dims(call, full ? -1 : 1, x->ndim, &dims);
    if (status != PORT_OK || strcmp(call->row->kernel, "prod") == 0) {
        return status != PORT_OK ? status : fail_unsupported(call, "operands of C64");
    }
    if (arg_dtype(call, call->num_args - 1, PORT_C64) != PORT_C64) {
        return fail_unsupported(call, "operands of C64 with a result of another dtype");
    }
    if (x->ndim == 0) {
        return run_formula(call, "y = clone(self) -> y", NULL, 0);
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        if ((dims & 1u << d) != 0) {
            items[count++] = (port_arg){.kind = PORT_ARG_INT, .i = d};
        }
    }
    const port_named_arg extra[2] = {{"dims", {.kind = PORT_ARG_LIST, .items = items, .num_items = count}},
                                     {"keep", {.kind = PORT_ARG_BOOL, .i = !full && arg_bool(call, 2)}}};
    bool mean = strcmp(call->row->kernel, "mean") == 0;
    return run_formula(call, mean ? "r = view_as_real(self); r = mean.dim(r, dims, keep); y = view_as_complex(r) -> y"
                                  : "r = view_as_real(self); r = sum.dim_IntList(r, dims, keep); y = view_as_complex(r) -> y", extra, 2);
}

/* sum, mean, prod with a dtype argument in the last place; dims at 1 unless the row is a full reduction. */
static port_status
run_sum(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool full = call->num_args == 2;
    port_dtype dtype = arg_dtype(call, call->num_args - 1, result_dtype(call->row->kernel, x->dtype));
    uint32_t dims;
    if (x->dtype == PORT_C64) {
        return reduce_complex(call, full);
    }
    bool mean = strcmp(call->row->kernel, "mean") == 0, half = dtype == PORT_F16 || dtype == PORT_BF16;
    if (mean && !dtype_is_float(dtype)) {
        return fail_op(call, PORT_E_DTYPE, "the mean of %s needs a floating dtype", port_dtype_name(dtype));
    }
    port_status status = read_dims(call, full ? -1 : 1, x->ndim, &dims);
    if (status == PORT_OK && (dtype_is_float(dtype) || dtype_is_float(x->dtype))) {
        /* Means in halves are those of a copy in F32, without gaps; the kernel needs none of dense halves. */
        bool copied = mean && half && (x->dtype != dtype || !tensor_is_dense(x));
        status = tensor_cast(call, x, copied ? PORT_F32 : dtype, &x);
    }
    return status == PORT_OK ? reduce(call, call->row->kernel, x, dims, !full && arg_bool(call, 2), 0.0, dtype) : status;
}

/* any, all, amax, amin, max, min: no dtype argument. */
static port_status
run_extremum(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool full = call->num_args == 1, extremum = call->row->kernel[0] == 'a' && call->row->kernel[1] == 'm';
    uint32_t dims;
    port_status status = read_dims(call, full ? -1 : 1, x->ndim, &dims);
    if (status == PORT_OK && extremum) {
        status = need_elements(call, x, dims);
    }
    port_dtype dtype = extremum ? x->dtype : (x->dtype == PORT_U8 ? PORT_U8 : PORT_BOOL);
    return status == PORT_OK ? reduce(call, call->row->kernel, x, dims, !full && arg_bool(call, 2), 0.0, dtype) : status;
}

static port_status
run_argmax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    uint32_t dims;
    port_status status = read_dims(call, 1, x->ndim, &dims);
    if (status == PORT_OK) {
        status = need_elements(call, x, dims);
    }
    return status == PORT_OK ? reduce(call, call->row->kernel, x, dims, arg_bool(call, 2), 0.0, PORT_I64) : status;
}

/* max.dim, min.dim: values and indices. */
static port_status
run_max_dim(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *bytes;
    bool max = strcmp(call->row->kernel, "amax") == 0;
    uint32_t dims;
    port_status status = read_dims(call, 1, x->ndim, &dims);
    if (status == PORT_OK) {
        status = need_elements(call, x, dims);
    }
    if (status == PORT_OK) {
        status = reduce(call, call->row->kernel, x, dims, arg_bool(call, 2), 0.0, x->dtype);
    }
    if (status == PORT_OK) {
        status = tensor_cast(call, x, x->dtype == PORT_BOOL ? PORT_U8 : x->dtype, &bytes);
    }
    return status == PORT_OK ? reduce(call, max ? "argmax" : "argmin", bytes, dims, arg_bool(call, 2), 0.0, PORT_I64) : status;
}

/* var and var_mean, in the three forms of torch: (unbiased), (dim, unbiased, keepdim), (dim, correction, keepdim). */
static port_status
run_var(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool full = call->num_args == 2, by_number = strstr(call->row->name, "correction") != NULL;
    double correction = by_number ? arg_double(call, 2, 1.0) : (arg_bool(call, full ? 1 : 2) ? 1.0 : 0.0);
    bool keepdim = !full && arg_bool(call, 3);
    uint32_t dims;
    if (!dtype_is_float(x->dtype)) {
        return fail_op(call, PORT_E_DTYPE, "the variance of %s is not defined", port_dtype_name(x->dtype));
    }
    port_status status = read_dims(call, full ? -1 : 1, x->ndim, &dims);
    if (status == PORT_OK) {
        status = reduce(call, call->row->kernel, x, dims, keepdim, correction, x->dtype);
    }
    if (status == PORT_OK && strstr(call->row->name, "_mean") != NULL) {
        status = reduce(call, "welford_mean", x, dims, keepdim, 0.0, x->dtype);
    }
    return status;
}

/* linalg_vector_norm(self, ord, dim, keepdim, dtype). */
static port_status
run_vector_norm(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    port_dtype dtype = arg_dtype(call, 4, x->dtype), inner = dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    port_vector_norm_params params = {.order = arg_scalar(call, 1).d};
    int64_t shape[PORT_MAX_NDIM];
    port_tensor *made, *out;
    bool scalar = x->ndim == 0;
    if (x->dtype == PORT_C64) {
        return run_formula(call, "a = abs(self); y = linalg_vector_norm(a, ord, dim, keepdim) -> y", NULL, 0);
    }
    if (!dtype_is_float(dtype) || params.order != params.order) {
        return fail_unsupported(call, "order %g of %s", params.order, port_dtype_name(dtype));
    }
    port_status status = read_dims(call, 2, x->ndim, &params.dims);
    params.computed = scalar && arg_len(call, 2) > 0; /* a number whose dimension is named */
    if (status != PORT_OK || (status = tensor_cast(call, x, dtype, &x)) != PORT_OK ||
        (status = tensor_cast(call, x, inner, &x)) != PORT_OK || (status = at_least_1d(call, &x)) != PORT_OK) {
        return status;
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        shape[d] = params.dims & 1u << d ? 1 : x->shape[d];
    }
    if ((status = tensor_new(call, inner, x->ndim, shape, NULL, &made)) != PORT_OK ||
        (status = launch_tensors(call, "vector_norm", inner, &x, 1, (const port_tensor *const[]){made}, 1, &params)) != PORT_OK ||
        (status = tensor_cast(call, made, dtype, &result)) != PORT_OK || (status = tensor_alias(call, result, &out)) != PORT_OK) {
        return status;
    }
    if (scalar || !arg_bool(call, 3)) {
        drop_dims(out, params.dims);
    }
    return emit(call, out);
}

/* aminmax(self, dim, keepdim): the least and the greatest. */
static port_status
run_aminmax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    uint32_t dims;
    port_status status = read_dims(call, arg_given(call, 1) ? 1 : -1, x->ndim, &dims);
    if (status == PORT_OK && (status = need_elements(call, x, dims)) == PORT_OK) {
        status = reduce(call, "amin", x, dims, arg_bool(call, 2), 0.0, x->dtype);
    }
    return status == PORT_OK ? reduce(call, "amax", x, dims, arg_bool(call, 2), 0.0, x->dtype) : status;
}

/* Along dimension d of x, whose results have x's shape: cumsum and cumprod one of `dtype`, cummax and cummin the values and the places. */
static port_status
scan(op_call *call, const port_tensor *x, int32_t d, port_dtype dtype, bool placed)
{
    const port_tensor *result;
    port_tensor *made[2], *out;
    bool scalar = x->ndim == 0;
    port_status status = at_least_1d(call, &x);
    port_reduce_params params = {.dims = 1u << d};
    if (status != PORT_OK ||
        (status = tensor_new(call, placed ? dtype : result_dtype(call->row->kernel, x->dtype), x->ndim, x->shape, NULL, &made[0])) != PORT_OK ||
        (placed && (status = tensor_new(call, PORT_I64, x->ndim, x->shape, NULL, &made[1])) != PORT_OK) ||
        (status = launch_tensors(call, call->row->kernel, x->dtype, &x, 1, (const port_tensor *const *)made, placed ? 2 : 1, &params)) != PORT_OK) {
        return status;
    }
    for (int32_t k = 0; k < (placed ? 2 : 1); k++) {
        if ((status = tensor_cast(call, made[k], k == 0 ? dtype : PORT_I64, &result)) != PORT_OK ||
            (status = tensor_alias(call, result, &out)) != PORT_OK) {
            return status;
        }
        if (scalar) {
            drop_dims(out, 1);
        }
        if ((status = emit(call, out)) != PORT_OK) {
            return status;
        }
    }
    return PORT_OK;
}

/* cumsum, cumprod (self, dim, *, dtype). */
static port_status
run_cumsum(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_dtype dtype = arg_dtype(call, 2, result_dtype(call->row->kernel, x->dtype));
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    bool complex = x->dtype == PORT_C64, product = strcmp(call->row->kernel, "cumprod") == 0;
    if (status == PORT_OK && complex && product) {
        return fail_unsupported(call, "operands of C64");
    }
    if (status == PORT_OK && complex && arg_dtype(call, 2, PORT_C64) == PORT_C64 && x->ndim > 0) {
        const port_named_arg along = {"along", {.kind = PORT_ARG_INT, .i = d, .d = d}};
        return run_formula(call, "r = view_as_real(self); r = cumsum(r, along); y = view_as_complex(r) -> y", &along, 1);
    }
    if (status == PORT_OK && (dtype_is_float(dtype) || dtype_is_float(x->dtype))) {
        status = tensor_cast(call, x, dtype, &x);
    }
    return status == PORT_OK ? scan(call, x, d, dtype, false) : status;
}

/* cummax, cummin (self, dim): values and places. */
static port_status
run_cummax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int32_t d;
    if (x->dtype == PORT_C64) {
        return fail_unsupported(call, "operands of C64");
    }
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    return status == PORT_OK ? scan(call, x, d, x->dtype, true) : status;
}

/* _softmax(x, dim, half_to_float), softmax.int(x, dim, dtype) and the log forms. */
static port_status
run_softmax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    bool scalar = x->ndim == 0, inner = call->args[2].kind == PORT_ARG_BOOL;
    if (inner && arg_bool(call, 2)) {
        return fail_unsupported(call, "half_to_float");
    }
    port_dtype dtype = inner ? x->dtype : arg_dtype(call, 2, x->dtype);
    int32_t d;
    port_tensor *made, *out;
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    if (status == PORT_OK && !dtype_is_float(dtype)) {
        return fail_op(call, PORT_E_DTYPE, "not defined for %s", port_dtype_name(dtype));
    }
    bool half = (dtype == PORT_F16 || dtype == PORT_BF16) && !kernel_exists(call, call->row->kernel, dtype);
    if (status != PORT_OK || (status = tensor_cast(call, x, dtype, &x)) != PORT_OK ||
        (status = tensor_cast(call, x, half ? PORT_F32 : dtype, &x)) != PORT_OK || (status = at_least_1d(call, &x)) != PORT_OK) {
        return status;
    }
    port_softmax_params params = {d};
    status = half || scalar ? tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &made)
                            : tensor_for_result(call, x->dtype, x->ndim, x->shape, NULL, &made);
    if (status != PORT_OK ||
        (status = launch_tensors(call, call->row->kernel, x->dtype, &x, 1, (const port_tensor *const[]){made}, 1, &params)) !=
            PORT_OK ||
        (status = tensor_cast(call, made, dtype, &result)) != PORT_OK ||
        (status = tensor_alias(call, result, &out)) != PORT_OK) {
        return status;
    }
    if (scalar) {
        drop_dims(out, 1);
    }
    return emit(call, out);
}

#define OVER_DIMS(NAME, OVERLOAD, KERNEL, DIM) {NAME OVERLOAD, "T self, " DIM ", B keepdim=False", run_extremum, KERNEL, 0, 0}

const op_row op_reduce_rows[] = {
    {"sum", "T self, *, D? dtype=None", run_sum, "sum", 0, 0},
    {"sum.dim_IntList", "T self, A? dim, B keepdim=False, *, D? dtype=None", run_sum, "sum", 0, 0},
    {"mean", "T self, *, D? dtype=None", run_sum, "mean", 0, 0},
    {"mean.dim", "T self, A? dim, B keepdim=False, *, D? dtype=None", run_sum, "mean", 0, 0},
    {"prod", "T self, *, D? dtype=None", run_sum, "prod", 0, 0},
    {"prod.dim_int", "T self, I dim, B keepdim=False, *, D? dtype=None", run_sum, "prod", 0, 0},
    {"any", "T self", run_extremum, "any", 0, 0},
    OVER_DIMS("any", ".dim", "any", "I dim"),
    OVER_DIMS("any", ".dims", "any", "A? dim=None"),
    {"all", "T self", run_extremum, "all", 0, 0},
    OVER_DIMS("all", ".dim", "all", "I dim"),
    OVER_DIMS("all", ".dims", "all", "A? dim=None"),
    {"max", "T self", run_extremum, "amax", 0, 0},
    {"min", "T self", run_extremum, "amin", 0, 0},
    OVER_DIMS("amax", "", "amax", "A dim=[]"),
    OVER_DIMS("amin", "", "amin", "A dim=[]"),
    {"max.dim", "T self, I dim, B keepdim=False", run_max_dim, "amax", 0, 0},
    {"min.dim", "T self, I dim, B keepdim=False", run_max_dim, "amin", 0, 0},
    {"argmax", "T self, I? dim=None, B keepdim=False", run_argmax, "argmax", 0, 0},
    {"argmin", "T self, I? dim=None, B keepdim=False", run_argmax, "argmin", 0, 0},
    {"var", "T self, B unbiased=True", run_var, "var", 0, 0},
    {"var.dim", "T self, A? dim, B unbiased=True, B keepdim=False", run_var, "var", 0, 0},
    {"var.correction", "T self, A? dim=None, *, S? correction=None, B keepdim=False", run_var, "var", 0, 0},
    {"var_mean", "T self, B unbiased=True", run_var, "var", 0, 0},
    {"var_mean.dim", "T self, A? dim, B unbiased=True, B keepdim=False", run_var, "var", 0, 0},
    {"var_mean.correction", "T self, A? dim=None, *, S? correction=None, B keepdim=False", run_var, "var", 0, 0},
    {"std", "T self, B unbiased=True", run_var, "std", 0, 0},
    {"std.dim", "T self, A? dim, B unbiased=True, B keepdim=False", run_var, "std", 0, 0},
    {"std.correction", "T self, A? dim=None, *, S? correction=None, B keepdim=False", run_var, "std", 0, 0},
    {"std_mean.correction", "T self, A? dim=None, *, S? correction=None, B keepdim=False", run_var, "std", 0, 0},
    {"aminmax", "T self, *, I? dim=None, B keepdim=False", run_aminmax, "amin", 0, 0},
    {"linalg_vector_norm", "T self, S ord=2, A? dim=None, B keepdim=False, *, D? dtype=None", run_vector_norm, "vector_norm", 0, 0},
    {"cumsum", "T self, I dim, *, D? dtype=None", run_cumsum, "cumsum", 0, OP_IN_PLACE},
    {"cumprod", "T self, I dim, *, D? dtype=None", run_cumsum, "cumprod", 0, OP_IN_PLACE},
    {"cummax", "T self, I dim", run_cummax, "cummax", MODE_SAME, 0},
    {"cummin", "T self, I dim", run_cummax, "cummin", MODE_SAME, 0},
    {"_softmax", "T self, I dim, B half_to_float", run_softmax, "softmax", 0, 0},
    {"_log_softmax", "T self, I dim, B half_to_float", run_softmax, "log_softmax", 0, 0},
    {"softmax.int", "T self, I dim, D? dtype=None", run_softmax, "softmax", 0, 0},
    {"log_softmax.int", "T self, I dim, D? dtype=None", run_softmax, "log_softmax", 0, 0},
    {.name = NULL},
};
