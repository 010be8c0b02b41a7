/* summary.c -- statistics, hash and sketch of a tensor, in one pass over blocks of decoded elements. */
#include "summary.h"

#include "compare_blocks.h"

#include <math.h>

#define BLOCK 1024

/* Bits that look random, from the number of an element (the finaliser of splitmix64). */
static uint64_t
scatter_bits(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

typedef struct sums {
    double sum, squares;
    uint64_t finite;
} sums;

static void
add_block(port_summary *summary, sums *s, const double *values, int64_t count, uint64_t first)
{
    for (int64_t i = 0; i < count; i++) {
        double x = values[i];
        if (!isfinite(x)) {
            summary->num_nan += x != x;
            summary->num_inf += x == x;
            continue;
        }
        uint64_t bits = scatter_bits(first + (uint64_t)i);
        summary->sketch[bits % SUMMARY_BUCKETS] += bits >> 32 & 1 ? -x : x;
        summary->min = s->finite == 0 || x < summary->min ? x : summary->min;
        summary->max = s->finite == 0 || x > summary->max ? x : summary->max;
        s->sum += x;
        s->squares += x * x;
        s->finite++;
    }
}

port_status
port_summarize(const port_view *tensor, port_summary *summary, port_error *err)
{
    int64_t elems;
    uint64_t bytes;
    if (!port_shape_bytes(tensor->dtype, tensor->ndim, tensor->shape, &elems, &bytes) || (tensor->data == NULL && elems > 0)) {
        return port_fail(err, PORT_E_VALUE, "a tensor's dtype, shape or data is not valid");
    }
    port_dtype part = tensor->dtype == PORT_C64 ? PORT_F32 : tensor->dtype;
    bool aligned = (uintptr_t)tensor->data % port_dtype_size(part) == 0;
    char *gathered = NULL;
    if (!port_view_is_contiguous(tensor) || !aligned) {
        gathered = port_alloc_aligned((size_t)bytes);
        if (gathered == NULL) {
            return port_fail(err, PORT_E_NOMEM, "no memory to gather a tensor of %llu bytes", (unsigned long long)bytes);
        }
        port_view_gather(tensor, gathered);
    }
    const char *data = gathered != NULL ? gathered : tensor->data;
    int64_t parts = tensor->dtype == PORT_C64 ? 2 * elems : elems;
    double values[BLOCK];
    uint64_t keys[BLOCK];
    sums s = {0};
    const double none = (double)NAN;
    *summary = (port_summary){.hash = port_hash(bytes > 0 ? data : "", (size_t)bytes), .min = none, .max = none, .mean = none, .rms = none};
    for (int64_t at = 0; at < parts; at += BLOCK) {
        int64_t count = parts - at < BLOCK ? parts - at : BLOCK;
        compare_decode(data + (size_t)at * port_dtype_size(part), part, part, count, values, keys);
        add_block(summary, &s, values, count, (uint64_t)at);
    }
    if (s.finite > 0) {
        summary->mean = s.sum / (double)s.finite;
        summary->rms = sqrt(s.squares / (double)s.finite);
    }
    port_free_aligned(gathered);
    return PORT_OK;
}

static unsigned char *
put_u64(unsigned char *at, uint64_t value)
{
    for (int k = 0; k < 8; k++) {
        at[k] = (unsigned char)(value >> 8 * k);
    }
    return at + 8;
}

static unsigned char *
put_f64(unsigned char *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put_u64(at, bits);
}

size_t
port_summary_write(const port_view *tensor, const port_summary *summary, unsigned char out[SUMMARY_MAX_BYTES])
{
    unsigned char *at = out;
    memset(at, 0, 8);
    at[0] = 1; /* version */
    at[1] = (unsigned char)tensor->dtype;
    at[2] = (unsigned char)tensor->ndim;
    at += 8;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        at = put_u64(at, (uint64_t)tensor->shape[d]);
    }
    at = put_u64(put_u64(at, summary->hash.low), summary->hash.high);
    at = put_u64(put_u64(at, summary->num_nan), summary->num_inf);
    at = put_f64(put_f64(put_f64(put_f64(at, summary->min), summary->max), summary->mean), summary->rms);
    for (int k = 0; k < SUMMARY_BUCKETS; k++) {
        at = put_f64(at, summary->sketch[k]);
    }
    return (size_t)(at - out);
}
