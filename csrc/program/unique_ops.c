/* unique_ops.c -- distinct elements or slices (unique, unique_dim, unique_consecutive) and counts (bincount, histc).
 * The size of a result follows from values. NaN equals nothing, not even itself. */
#include "../core/sort.h"
#include "floats.h"
#include "numbers.h"

#include <math.h>

/* n items of `width` numbers, compared as a whole. */
typedef struct item_set {
    int64_t n, width;
    number_list numbers;
} item_set;

static int
compare_items(const item_set *set, int64_t a, int64_t b)
{
    int order = 0;
    for (int64_t k = 0; k < set->width && order == 0; k++) {
        order = compare_numbers(&set->numbers, a * set->width + k, b * set->width + k);
    }
    return order;
}

static bool
same_items(const item_set *set, int64_t a, int64_t b)
{
    bool same = compare_items(set, a, b) == 0;
    const double *f64 = set->numbers.f64;
    for (int64_t k = 0; same && !set->numbers.whole && k < set->width; k++) {
        same = f64[a * set->width + k] == f64[b * set->width + k];
    }
    return same;
}

static bool
comes_before(const void *set, int64_t a, int64_t b)
{
    return compare_items(set, a, b) < 0;
}

/* x as items: along dimension d, or (d < 0) its elements. `slices` holds them as rows in x's dtype. */
static port_status
load_items(op_call *call, const port_tensor *x, int32_t d, port_tensor **slices, item_set *set)
{
    const port_tensor *dense;
    port_tensor *moved;
    port_status status = tensor_alias(call, x, &moved);
    if (status != PORT_OK) {
        return status;
    }
    for (int32_t k = d; k > 0; k--) { /* dimension d first */
        moved->shape[k] = x->shape[k - 1];
        moved->strides[k] = x->strides[k - 1];
    }
    if (d >= 0) {
        moved->shape[0] = x->shape[d];
        moved->strides[0] = x->strides[d];
    }
    if ((status = tensor_contiguous(call, moved, &dense)) != PORT_OK ||
        (status = tensor_alias(call, dense, slices)) != PORT_OK ||
        (status = numbers_of(call, dense, &set->numbers)) != PORT_OK) {
        return status;
    }
    int64_t elems = tensor_elems(x), n = d >= 0 ? x->shape[d] : elems;
    set->n = n;
    set->width = n > 0 ? elems / n : 0;
    return PORT_OK;
}

/* The distinct items as a tensor of x's shape with `count` at dimension d; `first` holds which item stands for each. */
static port_status
emit_distinct(op_call *call, const port_tensor *x, int32_t d, const port_tensor *slices, const item_set *set,
              const int64_t *first, int64_t count)
{
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    port_tensor *made, *seen;
    memcpy(shape, slices->shape, sizeof shape);
    shape[0] = count;
    int32_t ndim = d >= 0 ? x->ndim : 1;
    port_status status = tensor_new(call, x->dtype, ndim, shape, NULL, &made);
    if (status != PORT_OK || (status = tensor_alias(call, made, &seen)) != PORT_OK) {
        return status;
    }
    size_t bytes = port_dtype_size(x->dtype) * (size_t)set->width;
    for (int64_t i = 0; i < count; i++) {
        memcpy((char *)tensor_view(made).data + (size_t)i * bytes,
               (const char *)tensor_view(slices).data + (size_t)first[i] * bytes, bytes);
    }
    memcpy(strides, made->strides, sizeof strides);
    for (int32_t k = 0; k < d; k++) { /* dimension d back to its place */
        seen->shape[k] = made->shape[k + 1];
        seen->strides[k] = strides[k + 1];
    }
    if (d >= 0) {
        seen->shape[d] = count;
        seen->strides[d] = strides[0];
    }
    return emit(call, seen);
}

static port_status
emit_numbers(op_call *call, const int64_t *numbers, int32_t ndim, const int64_t *shape, bool wanted)
{
    static const int64_t none = 0;
    port_tensor *made;
    port_status status = tensor_new(call, PORT_I64, wanted ? ndim : 1, wanted ? shape : &none, NULL, &made);
    if (status == PORT_OK && wanted && tensor_elems(made) > 0) {
        memcpy(tensor_view(made).data, numbers, (size_t)tensor_elems(made) * sizeof *numbers);
    }
    return status == PORT_OK ? emit(call, made) : status;
}

/* Distinct items, where each item went, and how many there are of each. */
static port_status
unique_along(op_call *call, int32_t d, bool sorted, bool want_inverse, bool want_counts)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *slices;
    item_set set;
    int64_t *order;
    if (x->dtype == PORT_C64) {
        return fail_unsupported(call, "operands of C64");
    }
    port_status status = load_items(call, x, d, &slices, &set);
    if (status != PORT_OK || (status = new_integers(call, 5 * set.n, &order)) != PORT_OK) {
        return status;
    }
    int64_t *spare = order + set.n, *inverse = spare + set.n, *first = inverse + set.n;
    int64_t *counts = first + set.n, count = 0;
    for (int64_t i = 0; i < set.n; i++) {
        order[i] = i;
    }
    if (sorted) {
        port_sort_stable(set.n, order, spare, comes_before, &set);
    }
    for (int64_t i = 0; i < set.n; i++) {
        if (i == 0 || !same_items(&set, order[i], order[i - 1])) {
            first[count] = order[i];
            counts[count++] = 0;
        }
        counts[count - 1]++;
        inverse[order[i]] = count - 1;
    }
    if ((status = emit_distinct(call, x, d, slices, &set, first, count)) != PORT_OK ||
        (status = emit_numbers(call, inverse, d >= 0 ? 1 : x->ndim, d >= 0 ? &set.n : x->shape, want_inverse)) !=
            PORT_OK) {
        return status;
    }
    return emit_numbers(call, counts, 1, &count, want_counts);
}

/* _unique2(self, sorted, return_inverse, return_counts). */
static port_status
run_unique(op_call *call)
{
    return unique_along(call, -1, true, arg_bool(call, 2), arg_bool(call, 3));
}

/* unique_dim(self, dim, sorted, return_inverse, return_counts): torch gives all three, whatever is asked. */
static port_status
run_unique_dim(op_call *call)
{
    int32_t d;
    port_status status = wrap_dim(call, arg_int(call, 1), arg_tensor(call, 0)->ndim, &d);
    if (status == PORT_OK && arg_tensor(call, 0)->ndim == 0) {
        return fail_op(call, PORT_E_SHAPE, "expected at least one dimension");
    }
    return status == PORT_OK ? unique_along(call, d, true, true, true) : status;
}

/* unique_consecutive(self, return_inverse, return_counts, dim). Along a dimension torch gives all three, but for dimension
 * 0 of a vector, which it takes as a tensor of numbers. */
static port_status
run_unique_consecutive(op_call *call)
{
    int32_t d = -1;
    port_status status = PORT_OK;
    int32_t ndim = arg_tensor(call, 0)->ndim;
    bool along = arg_given(call, 3) && ndim > 0 && !(ndim == 1 && arg_int(call, 3) == 0);
    if (along) {
        status = wrap_dim(call, arg_int(call, 3), arg_tensor(call, 0)->ndim, &d);
    }
    return status == PORT_OK ? unique_along(call, d, false, along || arg_bool(call, 1), along || arg_bool(call, 2))
                             : status;
}

/* bincount(self, weights, minlength). */
static port_status
run_bincount(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *weights = arg_tensor(call, 1), *result;
    int64_t n = tensor_elems(x), size = arg_int(call, 2);
    port_tensor *out;
    port_status status =
        dtype_is_integral(x->dtype) && x->ndim == 1 && size >= 0
            ? PORT_OK
            : fail_op(call, PORT_E_VALUE, "expected one dimension of integers and a minlength of at least 0");
    if (status != PORT_OK || (status = tensor_cast(call, x, PORT_I64, &x)) != PORT_OK ||
        (status = tensor_contiguous(call, x, &x)) != PORT_OK) {
        return status;
    }
    const int64_t *bins = (const int64_t *)tensor_view(x).data;
    for (int64_t i = 0; i < n; i++) {
        if (bins[i] < 0 || bins[i] == INT64_MAX) {
            return fail_op(call, PORT_E_VALUE, "element %lld is %lld", (long long)i, (long long)bins[i]);
        }
        size = bins[i] >= size ? bins[i] + 1 : size;
    }
    port_dtype dtype = weights == NULL || n == 0 ? PORT_I64 : (weights->dtype == PORT_F32 ? PORT_F32 : PORT_F64);
    if (weights != NULL &&
        (tensor_elems(weights) != n || (status = tensor_cast(call, weights, dtype, &weights)) != PORT_OK ||
         (status = tensor_contiguous(call, weights, &weights)) != PORT_OK)) {
        return status != PORT_OK ? status
                                 : fail_op(call, PORT_E_SHAPE, "weights must have %lld elements", (long long)n);
    }
    if ((status = tensor_new(call, dtype, 1, &size, NULL, &out)) != PORT_OK) {
        return status;
    }
    void *to = tensor_view(out).data;
    memset(to, 0, (size_t)out->buffer->size_bytes);
    for (int64_t i = 0; i < n; i++) {
        if (weights == NULL) {
            ((int64_t *)to)[bins[i]]++;
        } else if (dtype == PORT_F32) {
            ((float *)to)[bins[i]] += ((const float *)tensor_view(weights).data)[i];
        } else {
            ((double *)to)[bins[i]] += ((const double *)tensor_view(weights).data)[i];
        }
    }
    result = out;
    return emit(call, result);
}

enum { HISTC_GRAIN = 200 }; /* elements of a thread of the reference, at least */

typedef struct histogram {
    port_dtype dtype; /* in which places are found and counted: halves stop at the number that they can not pass by one */
    int64_t bins;
    double low, high;
    double *counts;
} histogram;

static void
count_range(const histogram *h, const double *v, int64_t begin, int64_t end)
{
    double span = float_rounded(h->dtype, h->high - h->low), bins = float_rounded(h->dtype, (double)h->bins);
    for (int64_t i = begin; i < end; i++) {
        if (v[i] >= h->low && v[i] <= h->high) {
            double away = float_rounded(h->dtype, v[i] - h->low);
            double place = float_rounded(h->dtype, float_rounded(h->dtype, away * bins) / span);
            /* NaN: of a range that is nothing in the dtype. */
            double *bin = &h->counts[place >= (double)h->bins ? h->bins - 1 : (place > 0.0 ? (int64_t)place : 0)];
            *bin = float_rounded(h->dtype, *bin + 1.0);
        }
    }
}

/* histc(self, bins, min, max): elements outside are not counted; min == max: the range of the elements. Each thread of the
 * reference counts by itself, in the dtype; then counts are added. */
static port_status
run_histc(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    int64_t bins = arg_int(call, 1), n = tensor_elems(x);
    double low = arg_scalar(call, 2).d, high = arg_scalar(call, 3).d;
    port_tensor *counts, *counted;
    if (bins < 1 || x->dtype == PORT_C64) {
        return fail_op(call, PORT_E_VALUE, "%lld bins of %s", (long long)bins, port_dtype_name(x->dtype));
    }
    port_status status = tensor_cast(call, x, PORT_F64, &wide);
    if (status != PORT_OK || (status = tensor_contiguous(call, wide, &wide)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 1, &bins, NULL, &counts)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 1, &bins, NULL, &counted)) != PORT_OK) {
        return status;
    }
    const double *v = (const double *)tensor_view(wide).data;
    double *to = (double *)tensor_view(counts).data;
    memset(to, 0, (size_t)bins * sizeof *to);
    if (low == high && n > 0) {
        low = high = v[0];
        for (int64_t i = 1; i < n; i++) {
            low = v[i] < low ? v[i] : low;
            high = v[i] > high ? v[i] : high;
        }
    }
    if (low == high) {
        low -= 1.0;
        high += 1.0;
    }
    if (!(low < high) || isinf(low) || isinf(high)) {
        return fail_op(call, PORT_E_VALUE, "a range from %g to %g", low, high);
    }
    histogram h = {x->dtype, bins, float_rounded(x->dtype, low), float_rounded(x->dtype, high), (double *)tensor_view(counted).data};
    port_chunks parts = port_chunks_of(n, HISTC_GRAIN, call->options->profile.num_threads);
    for (int64_t begin = 0; begin < n; begin += parts.size) {
        memset(h.counts, 0, (size_t)bins * sizeof *to);
        count_range(&h, v, begin, begin + parts.size < n ? begin + parts.size : n);
        for (int64_t i = 0; i < bins; i++) {
            to[i] += h.counts[i];
        }
    }
    status = tensor_cast(call, counts, x->dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

const op_row op_unique_rows[] = {
    {"_unique2", "T self, B sorted=True, B return_inverse=False, B return_counts=False", run_unique, NULL, MODE_SAME,
     0},
    {"unique_dim", "T self, I dim, B sorted=True, B return_inverse=False, B return_counts=False", run_unique_dim, NULL,
     MODE_SAME, 0},
    {"unique_consecutive", "T self, B return_inverse=False, B return_counts=False, I? dim=None", run_unique_consecutive,
     NULL, MODE_SAME, 0},
    {"bincount", "T self, T? weights=None, I minlength=0", run_bincount, NULL, MODE_SAME, 0},
    {"histc", "T self, I bins=100, S min=0, S max=0", run_histc, NULL, MODE_SAME, 0},
    {.name = NULL},
};
