/* summary.h -- what is known of a tensor without keeping it. Private to csrc/. */
#ifndef PORT_SUMMARY_H
#define PORT_SUMMARY_H

#include "../core/core.h"

#define SUMMARY_BUCKETS 16
#define SUMMARY_MAX_BYTES (8 + 8 * PORT_MAX_NDIM + 8 * (8 + SUMMARY_BUCKETS))

/* Sums run in float64 over the finite elements in row-major order; complex elements count as their two parts. */
typedef struct port_summary {
    port_hash128 hash; /* of the row-major bytes, as in the journal */
    uint64_t num_nan, num_inf;
    double min, max, mean, rms; /* NaN if nothing is finite */
    /* Element i is added to bucket h(i) mod 16, with the sign that another bit of h(i) gives: the squared distance of two sketches
     * is, on average, that of the tensors (Charikar, Chen, Farach-Colton 2002: Finding Frequent Items in Data Streams). */
    double sketch[SUMMARY_BUCKETS];
} port_summary;

/* Any strides.  Returns: PORT_OK; NOMEM, VALUE (no valid dtype or shape). */
port_status port_summarize(const port_view *tensor, port_summary *summary, port_error *err);
/* The bytes of docs/FORMAT.md section 10; returns how many. */
size_t port_summary_write(const port_view *tensor, const port_summary *summary, unsigned char out[SUMMARY_MAX_BYTES]);

#endif /* PORT_SUMMARY_H */
