/* compare_blocks.h -- how the parts of the comparison fit together. Private to csrc/compare/.
 *
 * The two tensors are walked in row-major order in blocks of PORT_COMPARE_BLOCK elements. For each block one of
 * three functions adds to the accumulator:
 *   equal      the bytes are the same: only one side is looked at, for NaN, infinity, range and moments
 *   f32_avx2   two finite f32 blocks
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
    int64_t *errors;              /* PORT_ERROR_BUCKETS counts of errors that are not 0 */
    double unit_roundoff, scale_scalar;
    bool has_scale;
    int64_t num_finite;           /* pairs with two finite sides */
    int64_t most_above;           /* no percentile asked for can have more errors above it than this */
    int64_t floor_bucket;         /* more than most_above errors were counted at or above it: smaller ones decide nothing */
    int64_t num_above_floor;
    int64_t num_rel;              /* of them, those with e != 0 */
    double sum_rel, sum_signed_ulp;
    double sum_abs, sum_error, sum_product;
    double mean_e, mean_a, m2_e, m2_a, m2_ea; /* moments about the mean, merged block by block */
    int64_t ulp_lanes[4][PORT_ULP_BUCKETS];   /* four counters each: increments of one do not wait for each other */
    double scale[PORT_COMPARE_BLOCK];
    double e[PORT_COMPARE_BLOCK], a[PORT_COMPARE_BLOCK], error[PORT_COMPARE_BLOCK], rel[PORT_COMPARE_BLOCK];
    uint64_t key_e[PORT_COMPARE_BLOCK], key_a[PORT_COMPARE_BLOCK];
    uint32_t ulp[PORT_COMPARE_BLOCK];
    uint32_t opposite[PORT_COMPARE_BLOCK]; /* not 0 where the signs differ */
} compare_state;

/* Adds the sums of `count` finite pairs to the totals (moments by Chan, Golub and LeVeque's pairwise update). */
void compare_merge_sums(compare_state *state, const compare_sums *sums, int64_t count);

/* The block [base, base + count) by state->e, a, key_e, key_a (decoded). `whole` says that the dtype is an
 * integer: the error is then the exact distance of the keys. */
void compare_block_decoded(compare_state *state, int64_t base, int64_t count, bool whole);
/* The same when both sides are equal: only state->e is read. */
void compare_block_equal(compare_state *state, int64_t base, int64_t count);
/* max |a-e| / (u s) over state->error, where it is a number. */
void compare_block_scale(compare_state *state, int64_t base, int64_t count);
/* The histogram of state->ulp of a finite block; opposite: state->opposite has an entry that is not 0. */
void compare_block_ulps(compare_state *state, int64_t count, bool opposite);
/* Raises floor_bucket as far as the counts allow. Called after a block, so that most errors of the next need not be counted. */
void compare_raise_floor(compare_state *state);

/* True if this CPU can run the two below. */
bool compare_have_avx2(void);
/* Two f32 blocks; false, with nothing added, if an element is not finite. */
bool compare_block_f32_avx2(compare_state *state, const float *e, const float *a, int64_t base, int64_t count);
/* One f32 block that equals its counterpart; false, with nothing added, if an element is not finite. */
bool compare_equal_f32_avx2(compare_state *state, const float *e, int64_t base, int64_t count);

/* Fills values and ordered keys of `count` elements. A key grows with the value; -0 and 0 have the same.
 * Floating dtypes other than `keys_of` have their key taken after rounding to it. */
void compare_decode(const void *data, port_dtype dtype, port_dtype keys_of, int64_t count, double *values,
                    uint64_t *keys);

#endif /* PORT_COMPARE_BLOCKS_H */
