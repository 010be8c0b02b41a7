/* topk.c -- the k greatest (or smallest) elements of each row and their places; with k = n and stable, a sort. Elements
 * by their rank: the k-th, the median, the most frequent.
 *
 * Equal elements: a stable sort keeps their order. The reference's topk and plain sort do not: they select and sort
 * with its C++ library (libstdc++), whose algorithms are restated here step for step, because what they do to equal
 * elements is what is seen. So is the order of elements that were asked for unsorted.
 * The k-th element is selected by Sedgewick's partition with a pivot of three.
 * Source: at::native topk_impl_loop, sort, quick_select_template, median_with_indices_impl, mode_kernel (BSD-3-Clause;
 * restated); Musser, Introspective sorting and selection algorithms (1997); Sedgewick, Implementing Quicksort programs
 * (1978).
 * NaN is greatest, but in mode, which does not order it. */
#include "../core/sort.h"
#include "loops.h"

/* The row's elements as f64 (exact for every float) or i64, and a permutation that is sorted by merging: stable. */
typedef struct sort_row {
    int64_t n;
    bool descending, is_float, by_place, nan_unordered; /* by_place: of equal elements the first comes first */
    double *f64;
    int64_t *i64, *order, *space;
} sort_row;

static bool
comes_before(const sort_row *row, int64_t a, int64_t b)
{
    if (!row->is_float) {
        int64_t x = row->i64[a], y = row->i64[b];
        return (row->descending ? x > y : x < y) || (row->by_place && x == y && a < b);
    }
    double x = row->f64[a], y = row->f64[b];
    if (row->nan_unordered) {
        return x < y;
    }
    if (row->by_place && x == y) {
        return a < b;
    }
    return row->descending ? (x != x && y == y) || x > y : (x == x && y != y) || x < y;
}

static bool
item_comes_before(const void *row, int64_t a, int64_t b)
{
    return comes_before(row, a, b);
}

static void
begin_order(const sort_row *row)
{
    for (int64_t i = 0; i < row->n; i++) {
        row->order[i] = i;
    }
}

static void
sort_by_merging(const sort_row *row)
{
    begin_order(row);
    port_sort_stable(row->n, row->order, row->space, item_comes_before, row);
}

/* ---------------------------------------------------------------- selection as the reference's library does it */

static void
swap_places(int64_t *order, int64_t a, int64_t b)
{
    int64_t place = order[a];
    order[a] = order[b];
    order[b] = place;
}

/* Puts `value` into the heap order[first..first+n) whose place `hole` is free: down to a leaf along the later children,
 * then up again. */
static void
fill_hole(const sort_row *row, int64_t first, int64_t hole, int64_t n, int64_t value)
{
    int64_t *heap = row->order + first, top = hole, child = hole;
    while (child < (n - 1) / 2) {
        child = 2 * (child + 1);
        child -= comes_before(row, heap[child], heap[child - 1]);
        heap[hole] = heap[child];
        hole = child;
    }
    if (n % 2 == 0 && child == (n - 2) / 2) {
        heap[hole] = heap[2 * child + 1];
        hole = 2 * child + 1;
    }
    for (; hole > top && comes_before(row, heap[(hole - 1) / 2], value); hole = (hole - 1) / 2) {
        heap[hole] = heap[(hole - 1) / 2];
    }
    heap[hole] = value;
}

/* The first of order[first..last) come to order[first..middle), as a heap whose top is the last of them. */
static void
heap_select(const sort_row *row, int64_t first, int64_t middle, int64_t last)
{
    int64_t *order = row->order, n = middle - first;
    for (int64_t parent = n / 2 - 1; parent >= 0; parent--) {
        fill_hole(row, first, parent, n, order[first + parent]);
    }
    for (int64_t i = middle; i < last; i++) {
        if (comes_before(row, order[i], order[first])) {
            int64_t value = order[i];
            order[i] = order[first];
            fill_hole(row, first, 0, n, value);
        }
    }
}

static void
partial_sort(const sort_row *row, int64_t first, int64_t middle, int64_t last)
{
    heap_select(row, first, middle, last);
    for (int64_t end = middle - 1; end > first; end--) {
        int64_t value = row->order[end];
        row->order[end] = row->order[first];
        fill_hole(row, first, 0, end - first, value);
    }
}

/* Of the first 16, an element that comes before the first goes there at once: seen only where NaN has no order. */
static void
insertion_sort(const sort_row *row, int64_t first, int64_t last)
{
    for (int64_t i = first + 1; i < last; i++) {
        bool to_front = i < first + 16 && comes_before(row, row->order[i], row->order[first]);
        for (int64_t k = i; k > first && (to_front || comes_before(row, row->order[k], row->order[k - 1])); k--) {
            swap_places(row->order, k, k - 1);
        }
    }
}

/* Parts order[first..last) in two by the median of three, which goes to the front first; returns where the second part
 * begins. */
static int64_t
partition(const sort_row *row, int64_t first, int64_t last)
{
    int64_t *order = row->order, a = first + 1, b = first + (last - first) / 2, c = last - 1;
    bool ab = comes_before(row, order[a], order[b]), bc = comes_before(row, order[b], order[c]);
    bool ac = comes_before(row, order[a], order[c]);
    swap_places(order, first, ab ? (bc ? b : (ac ? c : a)) : (ac ? a : (bc ? c : b)));
    int64_t low = first + 1, high = last;
    for (;; low++) { /* the bounds are met only where NaN has no order */
        while (low < last && comes_before(row, order[low], order[first])) {
            low++;
        }
        high--;
        while (high > first && comes_before(row, order[first], order[high])) {
            high--;
        }
        if (low >= high) {
            return low;
        }
        swap_places(order, low, high);
    }
}

static int
twice_log2(int64_t n)
{
    return n < 1 ? 0 : 2 * (63 - __builtin_clzll((unsigned long long)n));
}

/* Afterwards the element at `nth` is in place, with none after it that comes before it. */
static void
select_nth(const sort_row *row, int64_t nth)
{
    int64_t first = 0, last = row->n;
    for (int depth = twice_log2(row->n); last - first > 3; depth--) {
        if (depth == 0) {
            heap_select(row, first, nth + 1, last);
            swap_places(row->order, first, nth);
            return;
        }
        int64_t cut = partition(row, first, last);
        first = cut <= nth ? cut : first;
        last = cut <= nth ? last : cut;
    }
    insertion_sort(row, first, last);
}

/* Parts of at most 16 are left for the insertions that come after. Its own calls go to the later parts: their depth is
 * bounded by `depth`. */
static void
sort_roughly(const sort_row *row, int64_t first, int64_t last, int depth)
{
    for (; last - first > 16; depth--) {
        if (depth == 0) {
            partial_sort(row, first, last, last);
            return;
        }
        int64_t cut = partition(row, first, last);
        sort_roughly(row, cut, last, depth - 1);
        last = cut;
    }
}

static void
sort_range(const sort_row *row, int64_t last)
{
    sort_roughly(row, 0, last, twice_log2(last));
    insertion_sort(row, 0, last);
}

/* The first k, in order if `sorted`; PORT_TOPK_SORT: all, without a selection before. */
static void
take_first(const sort_row *row, int64_t k, port_topk_order how)
{
    begin_order(row);
    if (how == PORT_TOPK_SORT) {
        sort_range(row, row->n);
        return;
    }
    if (k <= row->n / 64) {
        partial_sort(row, 0, k, row->n);
        return;
    }
    select_nth(row, k - 1);
    if (how == PORT_TOPK_ORDERED) {
        sort_range(row, k - 1);
    }
}

/* ---------------------------------------------------------------- elements by rank */

/* Brings the element of rank k, counted from 0, to order[k]. */
static void
quick_select(const sort_row *row, int64_t k)
{
    int64_t *order = row->order, left = 0, right = row->n - 1;
    while (right > left + 1) {
        swap_places(order, left + (right - left) / 2, left + 1);
        if (comes_before(row, order[right], order[left + 1])) {
            swap_places(order, left + 1, right);
        }
        if (comes_before(row, order[right], order[left])) {
            swap_places(order, left, right);
        }
        if (comes_before(row, order[left], order[left + 1])) {
            swap_places(order, left + 1, left);
        }
        int64_t low = left + 1, high = right, pivot = order[left];
        for (;;) {
            do {
                low++;
            } while (comes_before(row, order[low], pivot));
            do {
                high--;
            } while (comes_before(row, pivot, order[high]));
            if (high < low) {
                break;
            }
            swap_places(order, low, high);
        }
        swap_places(order, left, high);
        left = high <= k ? low : left;
        right = high >= k ? high - 1 : right;
    }
    if (right == left + 1 && comes_before(row, order[right], order[left])) {
        swap_places(order, left, right);
    }
}

/* The lower median; a NaN if there is one and they are not skipped. */
static int64_t
median_place(sort_row *row, bool skips_nan, bool by_place)
{
    int64_t numbers = row->n;
    for (int64_t i = 0; row->is_float && i < row->n; i++) {
        if (row->f64[i] != row->f64[i]) {
            if (!skips_nan) {
                return i;
            }
            numbers--;
        }
    }
    int64_t rank = numbers > 0 ? (numbers - 1) / 2 : 0;
    row->by_place = by_place;
    begin_order(row);
    select_nth(row, rank);
    return row->order[rank];
}

/* The last place, in sorted order, of the least of the most frequent elements. No NaN equals another. */
static int64_t
mode_place(sort_row *row)
{
    row->nan_unordered = true;
    begin_order(row);
    sort_range(row, row->n);
    int64_t place = 0, most = 0, run = 0;
    for (int64_t i = 0; i < row->n; i++) {
        int64_t a = row->order[i], b = row->order[i + 1 < row->n ? i + 1 : i];
        run++;
        if (i + 1 == row->n || (row->is_float ? row->f64[a] != row->f64[b] : row->i64[a] != row->i64[b])) {
            place = run > most ? a : place;
            most = run > most ? run : most;
            run = 0;
        }
    }
    return place;
}

static int64_t
place_of_rank(sort_row *row, const port_ranked_params *p)
{
    switch (p->kind) {
    case PORT_RANK_KTH:
        begin_order(row);
        quick_select(row, p->k);
        return row->order[p->k];
    case PORT_RANK_MODE:
        return mode_place(row);
    case PORT_RANK_MEDIAN:
    case PORT_RANK_NANMEDIAN:
    default:
        return median_place(row, p->kind == PORT_RANK_NANMEDIAN, p->by_place);
    }
}

/* ---------------------------------------------------------------- the ops */

static port_status
topk_check(const port_kernel_call *call, port_error *err)
{
    const port_topk_params *p = call->params;
    const port_view *x = call->in[0], *y = call->out[0], *places = call->out[1];
    if (p == NULL || x->ndim != 2 || y->ndim != 2 || places->ndim != 2 || y->shape[1] > x->shape[1] ||
        y->shape[0] != x->shape[0] || places->shape[0] != y->shape[0] || places->shape[1] != y->shape[1] ||
        (p->order >= PORT_TOPK_SORT && y->shape[1] != x->shape[1])) {
        return port_fail(err, PORT_E_SHAPE, "topk: expected rows of x, values and places of the same number");
    }
    return y->dtype == x->dtype && places->dtype == PORT_I64
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "topk: values of %s and places of %s", port_dtype_name(y->dtype),
                           port_dtype_name(places->dtype));
}

enum { MAX_PARTS = 16 };

/* The rows go in parts, each of which has room for one of them. */
static port_chunks
row_parts(const port_kernel_call *call)
{
    int32_t num_threads = call->profile->num_threads;
    return port_chunks_by_elems(call->in[0]->shape[0], 8 * call->in[0]->shape[1], num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
}

static size_t
row_room_bytes(const port_kernel_call *call)
{
    return (3 * sizeof(int64_t) * (size_t)call->in[0]->shape[1] + 63) / 64 * 64;
}

static size_t
topk_scratch_bytes(const port_kernel_call *call)
{
    return (size_t)row_parts(call).count * row_room_bytes(call);
}

static void
load_row(const sort_row *row, const port_view *x, int64_t r)
{
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    const char *from = (const char *)x->data + r * x->strides[0] * bytes;
    if (row->is_float) {
        port_load_f64(x->dtype, from, x->strides[1] * bytes, row->n, row->f64);
    } else {
        port_load_i64(x->dtype, from, x->strides[1] * bytes, row->n, row->i64);
    }
}

/* values[r, k] = x[r, place], places[r, k] = place */
static void
store_place(const port_kernel_call *call, int64_t r, int64_t k, int64_t place)
{
    const port_view *x = call->in[0], *y = call->out[0], *places = call->out[1];
    int64_t bytes = (int64_t)port_dtype_size(x->dtype);
    memcpy((char *)y->data + (r * y->strides[0] + k * y->strides[1]) * bytes,
           (const char *)x->data + (r * x->strides[0] + place * x->strides[1]) * bytes, (size_t)bytes);
    ((int64_t *)places->data)[r * places->strides[0] + k * places->strides[1]] = place;
}

static sort_row
row_in_room(const port_kernel_call *call, int64_t part)
{
    int64_t n = call->in[0]->shape[1], *room = (int64_t *)(void *)((char *)call->scratch + (size_t)part * row_room_bytes(call));
    return (sort_row){.n = n,
                      .is_float = port_dtype_is_float(call->in[0]->dtype),
                      .f64 = (double *)(void *)room,
                      .i64 = room,
                      .order = room + n,
                      .space = room + 2 * n};
}

/* One row: what is asked of it. */
typedef void (*row_fn)(const port_kernel_call *call, sort_row *row, int64_t r);

typedef struct row_job {
    const port_kernel_call *call;
    row_fn run;
    port_chunks parts;
} row_job;

static void
run_part(void *opaque, int64_t part)
{
    const row_job *job = opaque;
    int64_t begin = part * job->parts.size, end = begin + job->parts.size, rows = job->call->in[0]->shape[0];
    for (int64_t r = begin; r < end && r < rows; r++) {
        sort_row row = row_in_room(job->call, part);
        load_row(&row, job->call->in[0], r);
        job->run(job->call, &row, r);
    }
}

static void
for_each_row(const port_kernel_call *call, row_fn run)
{
    row_job job = {call, run, row_parts(call)};
    port_parallel(job.parts.count, call->profile->num_threads, run_part, &job);
}

static void
topk_row(const port_kernel_call *call, sort_row *row, int64_t r)
{
    const port_topk_params *p = call->params;
    int64_t taken = call->out[0]->shape[1];
    row->descending = p->largest;
    if (p->order == PORT_TOPK_STABLE) {
        sort_by_merging(row);
    } else if (taken > 0) {
        take_first(row, taken, p->order);
    }
    for (int64_t k = 0; k < taken; k++) {
        store_place(call, r, k, row->order[k]);
    }
}

static void
topk_run(const port_kernel_call *call)
{
    for_each_row(call, topk_row);
}

static port_status
ranked_check(const port_kernel_call *call, port_error *err)
{
    const port_ranked_params *p = call->params;
    const port_view *x = call->in[0], *y = call->out[0], *places = call->out[1];
    if (p == NULL || x->ndim != 2 || y->ndim != 2 || places->ndim != 2 || y->shape[1] != 1 || places->shape[1] != 1 ||
        y->shape[0] != x->shape[0] || places->shape[0] != x->shape[0]) {
        return port_fail(err, PORT_E_SHAPE, "ranked: expected rows of x, and one value and one place for each");
    }
    if (x->shape[1] < 1 || (p->kind == PORT_RANK_KTH && (p->k < 0 || p->k >= x->shape[1]))) {
        return port_fail(err, PORT_E_VALUE, "no element of %lld has that rank", (long long)x->shape[1]);
    }
    return y->dtype == x->dtype && places->dtype == PORT_I64
               ? PORT_OK
               : port_fail(err, PORT_E_DTYPE, "ranked: values of %s and places of %s", port_dtype_name(y->dtype),
                           port_dtype_name(places->dtype));
}

static void
ranked_row(const port_kernel_call *call, sort_row *row, int64_t r)
{
    store_place(call, r, 0, place_of_rank(row, call->params));
}

static void
ranked_run(const port_kernel_call *call)
{
    for_each_row(call, ranked_row);
}

#define ROW(T)                                                                                                         \
    {"topk", T, "ref", 0, topk_check, topk_scratch_bytes, topk_run},                                                   \
    {                                                                                                                  \
        "ranked", T, "ref", 0, ranked_check, topk_scratch_bytes, ranked_run                                            \
    }

const port_kernel_row port_topk_rows[] = {
    ROW(PORT_F32), ROW(PORT_F64), ROW(PORT_BF16), ROW(PORT_F16), ROW(PORT_I64), ROW(PORT_I32),
    ROW(PORT_I16), ROW(PORT_I8),  ROW(PORT_U8),   ROW(PORT_BOOL), {.op = NULL},
};
