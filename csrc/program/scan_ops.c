/* scan_ops.c -- along one dimension: running log-sums, in double, and elements by their rank: kthvalue, median, mode. */
#include "exec.h"

#include <math.h>

/* The rows of a tensor. */
typedef struct row_data {
    port_tensor *rows; /* (n, k) in x's dtype */
    int32_t d;
} row_data;

/* Emits results (.., size) by rows; a dimension of size 1 is dropped unless keepdim. */
static port_status
emit_along(op_call *call, const port_tensor *rows, const row_data *data, bool keepdim)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_status status = emit_rows(call, rows, x, data->d, false);
    if (status == PORT_OK && !keepdim && x->ndim > 0) {
        port_tensor *out = &call->out[call->num_out - 1];
        for (int32_t k = data->d; k + 1 < out->ndim; k++) {
            out->shape[k] = out->shape[k + 1];
            out->strides[k] = out->strides[k + 1];
        }
        out->ndim--;
    }
    return status;
}

static double
log_add(double a, double b)
{
    if (a != a || b != b) {
        return a + b;
    }
    double low = a < b ? a : b, high = a < b ? b : a;
    return low != high || isfinite(low) ? log1p(exp(low - high)) + high : low;
}

/* Halves are summed in F32. */
static float
log_add_f32(float a, float b)
{
    if (a != a || b != b) {
        return a + b;
    }
    float low = a < b ? a : b, high = a < b ? b : a;
    return low != high || isfinite(low) ? log1pf(expf(low - high)) + high : low;
}

static port_status
run_logcumsumexp(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    port_tensor *rows, *made;
    int32_t d;
    bool narrow = x->dtype == PORT_BF16 || x->dtype == PORT_F16;
    if (!dtype_is_float(x->dtype)) {
        return x->dtype == PORT_C64 ? fail_unsupported(call, "operands of C64")
                                    : fail_op(call, PORT_E_DTYPE, "not defined for %s", port_dtype_name(x->dtype));
    }
    port_status status = wrap_dim(call, arg_int(call, 1), x->ndim, &d);
    if (status != PORT_OK || (status = tensor_as_rows(call, x, d, &rows)) != PORT_OK ||
        (status = tensor_cast(call, rows, narrow ? PORT_F32 : PORT_F64, &wide)) != PORT_OK ||
        (status = tensor_new(call, wide->dtype, 2, wide->shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    const void *from = tensor_view(wide).data;
    void *to = tensor_view(made).data;
    for (int64_t r = 0, k = wide->shape[1]; r < wide->shape[0]; r++) {
        double sum = -(double)INFINITY;
        float narrow_sum = -INFINITY;
        for (int64_t at = r * k; at < (r + 1) * k; at++) {
            if (narrow) {
                ((float *)to)[at] = narrow_sum = log_add_f32(((const float *)from)[at], narrow_sum);
            } else {
                ((double *)to)[at] = sum = log_add(((const double *)from)[at], sum);
            }
        }
    }
    status = tensor_cast(call, made, x->dtype, &result);
    return status == PORT_OK ? emit_rows(call, result, x, d, false) : status;
}

/* One element of each row of x (n, k): its value and its place. */
static port_status
rank_rows(op_call *call, const port_tensor *rows, const port_ranked_params *params, port_tensor **values, port_tensor **places)
{
    int64_t shape[2] = {rows->shape[0], 1};
    port_status status = tensor_new(call, rows->dtype, 2, shape, NULL, values);
    if (status == PORT_OK) {
        status = tensor_new(call, PORT_I64, 2, shape, NULL, places);
    }
    return status != PORT_OK ? status
                             : launch_tensors(call, "ranked", rows->dtype, (const port_tensor *const[]){rows}, 1,
                                              (const port_tensor *const[]){*values, *places}, 2, params);
}

static port_rank_kind
rank_kind(const op_call *call)
{
    const char *name = call->row->name;
    return strcmp(name, "kthvalue") == 0       ? PORT_RANK_KTH
           : strcmp(name, "mode") == 0         ? PORT_RANK_MODE
           : strncmp(name, "nanmedian", 9) == 0 ? PORT_RANK_NANMEDIAN
                                               : PORT_RANK_MEDIAN;
}

/* kthvalue(self, k, dim, keepdim), median.dim, nanmedian.dim, mode (self, dim, keepdim): values and places. */
static port_status
run_ranked(op_call *call)
{
    port_ranked_params params = {.kind = rank_kind(call), .by_place = true};
    bool kth = params.kind == PORT_RANK_KTH;
    params.k = kth ? (arg_int(call, 1) > 0 ? arg_int(call, 1) : 0) - 1 : 0;
    const port_tensor *x = arg_tensor(call, 0);
    row_data data = {.d = 0};
    port_tensor *values, *places;
    port_status status = wrap_dim(call, arg_int(call, kth ? 2 : 1), x->ndim, &data.d);
    if (status != PORT_OK || (status = tensor_as_rows(call, x, data.d, &data.rows)) != PORT_OK) {
        return status;
    }
    if (data.rows->shape[1] == 0 && x->shape[data.d] > 0) { /* x is empty, and so is the result */
        data.rows->shape[1] = x->shape[data.d];
    }
    if ((status = rank_rows(call, data.rows, &params, &values, &places)) != PORT_OK) {
        return status;
    }
    bool keepdim = arg_bool(call, kth ? 3 : 2);
    status = emit_along(call, values, &data, keepdim);
    return status == PORT_OK ? emit_along(call, places, &data, keepdim) : status;
}

/* median(self), nanmedian(self): of all elements in order of memory, which decides between -0 and 0; of none, NaN. */
static port_status
run_median(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    port_tensor *copy, *value, *place;
    int64_t strides[PORT_MAX_NDIM], n = tensor_elems(x);
    if (n == 0) {
        port_status status = scalar_to_tensor(call, (port_scalar){PORT_SCALAR_FLOAT, 0, (double)NAN}, x->dtype, &result);
        return status == PORT_OK ? emit(call, result) : status;
    }
    preserve_strides(x, strides);
    port_status status = tensor_new(call, x->dtype, x->ndim, x->shape, strides, &copy);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(copy), from = tensor_view(x);
    copy_view(call, &to, &from);
    copy->ndim = 2;
    copy->shape[0] = 1;
    copy->shape[1] = copy->strides[0] = n;
    copy->strides[1] = 1;
    port_ranked_params params = {.kind = rank_kind(call)};
    if ((status = rank_rows(call, copy, &params, &value, &place)) != PORT_OK) {
        return status;
    }
    value->ndim = 0;
    return emit(call, value);
}

#define OVER(NAME) {NAME, "T self, I dim, B keepdim=False", run_ranked, "ranked", MODE_SAME, 0}

const op_row op_scan_rows[] = {
    {"logcumsumexp", "T self, I dim", run_logcumsumexp, NULL, MODE_SAME, 0},
    {"kthvalue", "T self, I k, I dim=-1, B keepdim=False", run_ranked, "ranked", MODE_SAME, 0},
    {"median", "T self", run_median, "ranked", MODE_SAME, 0},
    {"nanmedian", "T self", run_median, "ranked", MODE_SAME, 0},
    OVER("median.dim"), OVER("nanmedian.dim"),
    {"mode", "T self, I dim=-1, B keepdim=False", run_ranked, "ranked", MODE_SAME, 0},
    {.name = NULL},
};
