/* row_sizes.c -- how large the elements of each row are: root mean square, or median.
 *
 * Both leave out what is not finite, the median also zeros: a reference that is mostly padding has a size all the same. */
#include "row_sizes.h"

#include "compare_blocks.h"

#include <math.h>

static const uint64_t MAGNITUDE = ~((uint64_t)1 << 63);
static const uint64_t INFINITE = (uint64_t)0x7ff << 52;

/* The k-th smallest (from 0) of count magnitudes, which are reordered: Hoare's selection, the pivot a median of three. */
static uint64_t
select_kth(uint64_t *keys, int64_t count, int64_t k)
{
    int64_t low = 0, high = count - 1;
    while (low < high) {
        uint64_t x = keys[low], y = keys[low + (high - low) / 2], z = keys[high];
        uint64_t pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        int64_t i = low - 1, j = high + 1;
        for (;;) {
            do {
                i++;
            } while (keys[i] < pivot);
            do {
                j--;
            } while (keys[j] > pivot);
            if (i >= j) {
                break;
            }
            uint64_t swapped = keys[i];
            keys[i] = keys[j];
            keys[j] = swapped;
        }
        if (k <= j) {
            high = j;
        } else {
            low = j + 1;
        }
    }
    return keys[low];
}

/* Keeps the magnitudes of finite elements that are not 0, as integers of the same order. Returns how many. */
static int64_t
keep_magnitudes(const double *values, int64_t count, uint64_t *keys)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= MAGNITUDE;
        keys[kept] = bits;
        kept += bits != 0 && bits < INFINITE;
    }
    return kept;
}

typedef struct row_reader {
    const char *data;
    port_dtype dtype;
    const compare_kernels *kernels; /* for f32 */
    double values[PORT_COMPARE_BLOCK];
    uint64_t keys[PORT_COMPARE_BLOCK];
} row_reader;

static double
square_sum(row_reader *r, int64_t begin, int64_t count)
{
    const char *from = r->data + begin * (int64_t)port_dtype_size(r->dtype);
    double sum = 0;
    int64_t done = 0;
    if (r->kernels != NULL) {
        done = count - count % r->kernels->lanes;
        sum = done > 0 ? r->kernels->squares((const float *)(const void *)from, done) : 0;
        done = isfinite(sum) ? done : 0;
        sum = isfinite(sum) ? sum : 0;
    }
    while (done < count) {
        int64_t step = count - done < PORT_COMPARE_BLOCK ? count - done : PORT_COMPARE_BLOCK;
        compare_decode(from + done * (int64_t)port_dtype_size(r->dtype), r->dtype, r->dtype, step, r->values, r->keys);
        for (int64_t i = 0; i < step; i++) {
            sum += isfinite(r->values[i]) ? r->values[i] * r->values[i] : 0;
        }
        done += step;
    }
    return sum;
}

static double
median(row_reader *r, int64_t begin, int64_t count, uint64_t *keys)
{
    int64_t kept = 0;
    for (int64_t done = 0, step; done < count; done += step) {
        step = count - done < PORT_COMPARE_BLOCK ? count - done : PORT_COMPARE_BLOCK;
        const char *from = r->data + (begin + done) * (int64_t)port_dtype_size(r->dtype);
        compare_decode(from, r->dtype, r->dtype, step, r->values, r->keys);
        kept += keep_magnitudes(r->values, step, keys + kept);
    }
    if (kept == 0) {
        return 0;
    }
    uint64_t bits = select_kth(keys, kept, (kept - 1) / 2);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

port_status
port_row_sizes(const port_view *x, port_row_size kind, double *sizes, port_error *err)
{
    if (x->dtype == PORT_C64 || !port_view_is_contiguous(x) || (uintptr_t)x->data % port_dtype_size(x->dtype) != 0) {
        return port_fail(err, PORT_E_VALUE, "the sizes of rows need a row-major, aligned tensor of real numbers");
    }
    int64_t cols = x->ndim > 0 ? x->shape[x->ndim - 1] : 1;
    int64_t rows = cols > 0 ? port_view_elems(x) / cols : 0;
    row_reader *reader = port_alloc(sizeof *reader);
    uint64_t *keys = kind == PORT_ROW_MEDIAN ? port_alloc((size_t)cols * sizeof *keys) : NULL;
    if (reader == NULL || (kind == PORT_ROW_MEDIAN && keys == NULL)) {
        port_free(reader);
        port_free(keys);
        return port_fail(err, PORT_E_NOMEM, "no memory for the sizes of rows of %lld elements", (long long)cols);
    }
    reader->data = x->data;
    reader->dtype = x->dtype;
    reader->kernels = x->dtype == PORT_F32 ? compare_best_kernels() : NULL;
    for (int64_t r = 0; r < rows; r++) {
        sizes[r] = kind == PORT_ROW_MEDIAN ? median(reader, r * cols, cols, keys) : sqrt(square_sum(reader, r * cols, cols) / (double)cols);
    }
    port_free(keys);
    port_free(reader);
    return PORT_OK;
}
