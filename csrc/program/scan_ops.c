/* scan_ops.c -- along one dimension: running products, maxima and log-sums, and elements by their rank: kthvalue,
 * median, mode.
 * Sums run in double and integers in 64 bits, as torch's accumulators do. */
#include "numbers.h"

#include <math.h>

/* The rows of a tensor and their elements. */
typedef struct row_data {
    port_tensor *rows; /* (n, k) in x's dtype */
    number_list numbers;
    int32_t d;
    bool scalar;
} row_data;

static port_status
load_rows(op_call *call, int64_t dim, row_data *data)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->dtype == PORT_C64) {
        return fail_unsupported(call, "operands of C64");
    }
    port_status status = wrap_dim(call, dim, x->ndim, &data->d);
    if (status == PORT_OK) {
        status = tensor_as_rows(call, x, data->d, &data->rows);
    }
    return status == PORT_OK ? numbers_of(call, data->rows, &data->numbers) : status;
}

static bool
is_nan_at(const row_data *data, int64_t i)
{
    return !data->numbers.whole && data->numbers.f64[i] != data->numbers.f64[i];
}

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

/* Results for each row: elements of x by their place in it, and those places. */
static port_status
emit_places(op_call *call, const row_data *data, const int64_t *places, int64_t size, bool keepdim)
{
    port_tensor *values, *indices;
    int64_t n = data->rows->shape[0], k = data->rows->shape[1], shape[2] = {n, size};
    port_status status = tensor_new(call, data->rows->dtype, 2, shape, NULL, &values);
    if (status != PORT_OK || (status = tensor_new(call, PORT_I64, 2, shape, NULL, &indices)) != PORT_OK) {
        return status;
    }
    size_t bytes = port_dtype_size(data->rows->dtype);
    const char *from = tensor_view(data->rows).data;
    char *to = tensor_view(values).data;
    for (int64_t i = 0; i < n * size; i++) {
        memcpy(to + (size_t)i * bytes, from + (size_t)(i / size * k + places[i]) * bytes, bytes);
    }
    if (n * size > 0) {
        memcpy(tensor_view(indices).data, places, (size_t)(n * size) * sizeof *places);
    }
    status = emit_along(call, values, data, keepdim);
    return status == PORT_OK ? emit_along(call, indices, data, keepdim) : status;
}

/* cummax, cummin: the last of equal elements wins; the first NaN stays. */
static port_status
run_cummax(op_call *call)
{
    row_data data;
    int64_t *places;
    bool max = strcmp(call->row->name, "cummax") == 0;
    port_status status = load_rows(call, arg_int(call, 1), &data);
    if (status != PORT_OK) {
        return status;
    }
    int64_t n = data.rows->shape[0], k = data.rows->shape[1];
    if ((status = new_integers(call, n * k, &places)) != PORT_OK) {
        return status;
    }
    for (int64_t r = 0; r < n; r++) {
        int64_t best = 0;
        for (int64_t i = 0; i < k; i++) {
            int64_t at = r * k + i, order = is_nan_at(&data, r * k + best) ? -1 : compare_numbers(&data.numbers, at, r * k + best);
            bool better = is_nan_at(&data, at) || (!is_nan_at(&data, r * k + best) && (max ? order >= 0 : order <= 0));
            best = better ? i : best;
            places[at] = best;
        }
    }
    return emit_places(call, &data, places, k, true);
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

/* cumprod (integers: I64), logcumsumexp. */
static port_status
run_scan(op_call *call)
{
    row_data data;
    bool product = strcmp(call->row->name, "cumprod") == 0;
    port_dtype from = arg_tensor(call, 0)->dtype;
    port_dtype dtype = product ? arg_dtype(call, 2, dtype_is_float(from) ? from : PORT_I64) : from;
    port_tensor *made;
    const port_tensor *result;
    port_status status = load_rows(call, arg_int(call, 1), &data);
    if (status != PORT_OK || (!product && data.numbers.whole)) {
        return status != PORT_OK ? status : fail_op(call, PORT_E_DTYPE, "not defined for %s", port_dtype_name(from));
    }
    bool whole = data.numbers.whole && !dtype_is_float(dtype);
    if ((status = tensor_new(call, whole ? PORT_I64 : PORT_F64, 2, data.rows->shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    void *to = tensor_view(made).data;
    for (int64_t r = 0, k = data.rows->shape[1]; r < data.rows->shape[0]; r++) {
        double sum = product ? 1.0 : -(double)INFINITY;
        uint64_t whole_sum = 1;
        for (int64_t at = r * k; at < (r + 1) * k; at++) {
            double v = data.numbers.whole ? (double)data.numbers.i64[at] : data.numbers.f64[at];
            sum = product ? sum * v : log_add(v, sum);
            if (whole) {
                ((int64_t *)to)[at] = (int64_t)(whole_sum *= (uint64_t)data.numbers.i64[at]);
            } else {
                ((double *)to)[at] = sum;
            }
        }
    }
    status = tensor_cast(call, made, dtype, &result);
    return status == PORT_OK ? emit_rows(call, result, arg_tensor(call, 0), data.d, false) : status;
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
    {"cummax", "T self, I dim", run_cummax, NULL, MODE_SAME, 0},
    {"cummin", "T self, I dim", run_cummax, NULL, MODE_SAME, 0},
    {"cumprod", "T self, I dim, *, D? dtype=None", run_scan, NULL, MODE_SAME, OP_IN_PLACE},
    {"logcumsumexp", "T self, I dim", run_scan, NULL, MODE_SAME, 0},
    {"kthvalue", "T self, I k, I dim=-1, B keepdim=False", run_ranked, "ranked", MODE_SAME, 0},
    {"median", "T self", run_median, "ranked", MODE_SAME, 0},
    {"nanmedian", "T self", run_median, "ranked", MODE_SAME, 0},
    OVER("median.dim"), OVER("nanmedian.dim"),
    {"mode", "T self, I dim=-1, B keepdim=False", run_ranked, "ranked", MODE_SAME, 0},
    {.name = NULL},
};
