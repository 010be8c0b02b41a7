/* compare_blocks.h -- how the parts of the comparison fit together. Private to csrc/compare/.
 *
 * The two tensors are cut into parts (compare.c), and each part is walked (compare_walk.c) in row-major order in
 * blocks of PORT_COMPARE_BLOCK elements. For each block one of these adds to the part's accumulator:
 *   equal      the bytes are the same: only one side is looked at, for NaN, infinity, range and moments
 *   lanes      two finite blocks of f32, f16 or bf16 (compare_lanes.h, for AVX2 and AVX-512), or of f64 or integers
 *              as float64 (compare_wide.h)
 *   decoded    anything else: elements as float64 values and as ordered integers
 * Every one counts what it sees in the same way, so which one ran cannot be told from the metrics (but for the
 * last bits of sums).
 */
#ifndef PORT_COMPARE_BLOCKS_H
#define PORT_COMPARE_BLOCKS_H

#include "../core/core.h"

#define PORT_COMPARE_BLOCK 1024
#define PORT_ERROR_BUCKETS 32768 /* an error's float64 exponent and 4 bits of its mantissa: 16 buckets an octave */
#define PORT_DIFFERENT_SIGN (PORT_ULP_BUCKETS - 1)

/* The bucket of an error that is a number and not negative. */
static inline int64_t
compare_bucket(double error)
{
    uint64_t bits;
    memcpy(&bits, &error, sizeof bits);
    return (int64_t)(bits >> 48);
}

/* Sums over one block (or the whole tensor, as far as it was seen), of finite pairs. e and a are taken relative to
 * a shift that is an element of the block, so that the second moments lose at most the block's length in accuracy. */
typedef struct compare_sums {
    double sum_abs, sum_error, sum_sq_error, sum_sq_expected, sum_sq_actual, sum_product;
    double shift_e, shift_a;              /* the shift */
    double d_e, d_a, d_ee, d_aa, d_ea;    /* sums of (e - shift_e) and so on */
} compare_sums;

typedef struct compare_state {
    port_metrics *m;
    int64_t *errors;              /* PORT_ERROR_BUCKETS counts of errors that are not 0; NULL: no percentiles, no histogram */
    double unit_roundoff, scale_scalar, scale_slope;
    bool has_scale;
    int64_t num_finite;           /* pairs with two finite sides */
    int64_t most_above;           /* no percentile asked for can have more errors above it than this */
    int64_t floor_bucket;         /* more than most_above errors were counted at or above it: smaller ones decide nothing */
    int64_t num_above_floor;
    int64_t num_rel;              /* of them, those with e != 0 */
    double sum_rel, sum_signed_ulp;
    double sum_abs, sum_error, sum_product;
    double mean_e, mean_a, m2_e, m2_a, m2_ea; /* moments about the mean, merged block by block */
    double scale[PORT_COMPARE_BLOCK]; /* from here on not zeroed at the start */
    double e[PORT_COMPARE_BLOCK], a[PORT_COMPARE_BLOCK], error[PORT_COMPARE_BLOCK];
    uint64_t key_e[PORT_COMPARE_BLOCK], key_a[PORT_COMPARE_BLOCK];
    float rel[PORT_COMPARE_BLOCK];
    uint32_t ulp[PORT_COMPARE_BLOCK];
    float wide_e[PORT_COMPARE_BLOCK], wide_a[PORT_COMPARE_BLOCK]; /* f16 and bf16 as f32 */
    int32_t bits_e[PORT_COMPARE_BLOCK], bits_a[PORT_COMPARE_BLOCK];
} compare_state;

/* Two blocks for compare_lanes.h. bits: sign and magnitude as int32, the magnitude's unit being 2^ulp_shift; for f32
 * the elements themselves. */
typedef struct compare_lanes {
    const float *e, *a;
    const void *bits_e, *bits_a;
    int ulp_shift;
    /* What is likely to be looked at next, fetched while this block is worked on; any address. */
    uintptr_t next_e, next_a;
    size_t elem_bytes;
} compare_lanes;

/* What compare_lanes.h offers for one width; counts are multiples of `lanes`. */
typedef struct compare_kernels {
    int64_t lanes;
    /* Two blocks; false, with nothing added, if an element is not finite. Leaves the errors in state->error. */
    bool (*block)(compare_state *state, const compare_lanes *x, int64_t base, int64_t count);
    /* One block that equals its counterpart; false, with nothing added, if an element is not finite. */
    bool (*equal)(compare_state *state, const float *e, int64_t base, int64_t count);
    /* The same for float64 in state->e and a, integers if `whole`; false also where one is too large. */
    bool (*wide_block)(compare_state *state, bool whole, int64_t base, int64_t count);
    bool (*wide_equal)(compare_state *state, int64_t base, int64_t count);
    /* f64, bool or integers as float64. */
    void (*to_f64)(const void *data, port_dtype dtype, int64_t count, double *values);
    /* Whether an error may be at least near * scale. e: the expected elements, NULL: state->e. */
    bool (*beyond)(const compare_state *state, const float *e, double near, int64_t count);
    /* f16 or bf16 as f32, and their bits in the upper half of an int32. */
    void (*widen)(const uint16_t *half, bool is_f16, int64_t count, float *values, int32_t *bits);
    /* Sum of squares; infinite or NaN if an element is. */
    double (*squares)(const float *x, int64_t count);
} compare_kernels;

extern const compare_kernels compare_kernels_avx2, compare_kernels_avx512;
bool compare_have_avx2(void);
bool compare_have_avx512(void);
/* The widest that this CPU can run, NULL if it can run none. */
const compare_kernels *compare_best_kernels(void);

/* sum_sq_expected, sum_sq_actual, sum_product and sum_error from the sums relative to the shifts. These are elements of the
 * block, so no square of a shift is greater than the sum that it is part of, and little is lost. */
void compare_unshift(compare_sums *sums, int64_t count);
/* Adds the sums of `count` finite pairs to the totals (moments by Chan, Golub and LeVeque's pairwise update). */
void compare_merge_sums(compare_state *state, const compare_sums *sums, int64_t count);

/* The block [base, base + count) by state->e, a, key_e, key_a (decoded). `whole` says that the dtype is an
 * integer: the error is then the exact distance of the keys. */
void compare_block_decoded(compare_state *state, int64_t base, int64_t count, bool whole);
/* The same when both sides are equal: only state->e is read. */
void compare_block_equal(compare_state *state, int64_t base, int64_t count);
/* max |a-e| / (u s) over state->error, where it is a number. e: the expected elements if they are f32, NULL: state->e. */
void compare_block_scale(compare_state *state, const float *e, int64_t base, int64_t count);
/* Raises floor_bucket as far as the counts allow. Called after a block, so that most errors of the next need not be counted. */
void compare_raise_floor(compare_state *state);

/* Fills values and ordered keys of `count` elements. A key grows with the value; -0 and 0 have the same.
 * Floating dtypes other than `keys_of` have their key taken after rounding to it. */
void compare_decode(const void *data, port_dtype dtype, port_dtype keys_of, int64_t count, double *values,
                    uint64_t *keys);

/* What is compared, the same for all parts. */
typedef struct compare_pair {
    const port_view *expected, *actual, *scale; /* scale may be NULL */
    port_dtype narrower;
    bool whole;                     /* integers */
    const compare_kernels *kernels; /* NULL: element by element */
} compare_pair;

#define PORT_COMPARE_BUFFER (3 * 8 * PORT_COMPARE_BLOCK) /* bytes that a walk needs for strided views */

/* Elements [begin, end) of a pair into the accumulator. Returns PORT_OK, or VALUE for a scale that is negative or NaN. */
port_status compare_walk(compare_state *state, const compare_pair *pair, int64_t begin, int64_t end, char *buffers,
                         port_error *err);

/* port_compare by the kernels named; NULL: element by element. The CPU must have what they take. */
port_status compare_by(const compare_kernels *kernels, const port_view *expected, const port_view *actual,
                       const port_compare_options *options, port_metrics *metrics, port_error *err);

#endif /* PORT_COMPARE_BLOCKS_H */
