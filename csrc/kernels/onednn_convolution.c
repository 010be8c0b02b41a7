/* onednn_convolution.c -- convolutions with the bits of oneDNN's AVX-512 code: fused multiply-adds, one chain for each output element.
 *
 *     y[n,o,p] = bias[o] + sum over (kernel element, channel) of w[o,c,k] * x[n,c, p * stride - padding + k * dilation]
 *
 * A chain runs over kernel elements first and channels innermost. How chains begin and meet is what differs (found by trying, over
 * channels, kernel sizes, groups, strides and memory formats; docs/NUMERICS.md):
 *     channels-last                                 one chain from 0 for each block of channels that keeps its weights in the second cache
 *                                                   (last_block; mostly all of them), added in order, then the bias
 *     1x1 kernels with padding, or with groups of channels that are not multiples of 16
 *                                                   one chain from 0 over everything, then the bias
 *     one channel in each group (not in three dimensions), 1x1 without groups
 *                                                   one chain from the bias (1x1: where strides divide the input exactly); of many
 *                                                   channels it has the first block (point_block),
 *                                                   and as many again are one chain from 0 each, added to y
 *     everything else                               one chain from 0 for each 16 channels; each is added to y, which begins as the bias
 * BF16 (with AVX512_BF16) takes channels by pairs, the second of each first, and adds the bias last. Row-major, what is in blocks of 16 above
 * is one chain from 0 over all blocks; 1x1 kernels have a chain from 0 for each block of twice as many channels.
 * What its own code refuses (pads beyond what it unrolls, long kernels) is unfolded and multiplied: there a chain from 0 runs over channels
 * first and kernel elements innermost, in blocks of at most PRODUCT_TERMS terms, which are added; the bias comes last.
 * x (N, C, H, W), w (O, C / groups, kh, kw), y (N, O, H', W'): row-major, whatever format the reference had; or without H, or with a depth before it.
 * Source: measured on oneDNN 3.12 (Apache-2.0), whose code is made at run time; what decides the blocks of 1x1 kernels and what is unfolded
 * was read in the init_conf of its jit_avx512_common_1x1_conv_kernel and jit_avx512_common_conv_kernel, and then measured. */
#include "loops.h"
#include "vecmath.h"

#include <math.h>

#define STEP 64 /* output positions that are computed together */
#define OUTS 4 /* channels out that are computed together */
#define LANES 16 /* channels that oneDNN keeps side by side */
#define WAY_LINES 1024 /* 64-byte lines in the 64 KiB that oneDNN takes a way of the second cache for */
#define PRODUCT_TERMS 384 /* terms of a block of its products */
#define CODE_BYTES (256 * 1024) /* what its code for one convolution may take */
#define FIRST_CACHE_BYTES (32 * 1024)
#define SECOND_CACHE_BYTES (768 * 1024) /* what it takes of it: three quarters */
#define MAX_BLOCKS 80 /* of LANES channels in one chain of a channels-last convolution */
#define SIDE_BY_SIDE 6 /* outputs of a row that it computes together where channels lie innermost */
#define MAX_HITS 7 /* lines of one tile that may fall on one set of that cache */

typedef struct conv_plan {
    int64_t C, O, group_in, group_out;
    int64_t in[3], out[3], kernel[3], stride[3], padding[3], dilation[3]; /* depth, height, width: 1 (0) of those that are not there */
    int64_t taps, positions; /* products of kernel and out */
    int64_t block; /* channels of one chain */
    bool from_bias; /* the first chain begins with the bias */
    bool bias_last; /* y begins as 0 and gets the bias at the end */
    bool paired;    /* channels come by pairs, the second first */
    bool one_chain; /* a block goes on where the one before it ended */
    bool unfolded;  /* computed as a product */
    int64_t lanes;  /* channels of a group that its code keeps side by side; 0: none fit */
    const int64_t *places; /* find_places of the positions at hand */
} conv_plan;

/* Positions of one tile of a 1x1 kernel: between least and most, of which one is the largest that leaves no rest, or the largest rest. */
static int64_t
point_tile(int64_t rows, int64_t positions, int64_t least, int64_t most)
{
    for (int64_t tile = most; tile >= least; tile--) {
        if ((rows >= 14 ? rows : positions) % tile == 0) {
            return tile;
        }
    }
    int64_t found = positions < most ? positions : most, rest = positions % most;
    for (int64_t tile = most; tile >= least && rest > 0; tile--) {
        int64_t left = positions % tile;
        if (left == 0 || left > rest) {
            found = tile;
            rest = left == 0 ? -1 : left;
        }
    }
    return found;
}

/* Channels of one chain so that no tile has MAX_HITS lines on one set: lines lie `positions` apart for the channels that fill one. */
static int64_t
without_aliases(int64_t block, int64_t positions, int64_t tile, int64_t filling)
{
    if (positions * block <= WAY_LINES * filling * MAX_HITS) {
        return block;
    }
    int64_t lines = positions * (block / filling);
    for (int64_t first = 0; first < tile; first++) {
        int64_t hits = 0;
        for (int64_t line = first; line < lines && hits < MAX_HITS; line += WAY_LINES) {
            hits += line % positions < tile;
            if (hits == MAX_HITS) {
                int64_t fits = (line + WAY_LINES) / positions;
                fits = filling * (fits > 1 ? fits : 1);
                block = fits < block ? fits : block;
            }
        }
    }
    return block;
}

/* The largest number up to `most` of those that round `amount` up least, both in blocks of LANES channels. */
static int64_t
best_divisor(int64_t amount, int64_t most)
{
    int64_t best = most < amount ? most : amount;
    float least = INFINITY;
    for (int64_t divisor = best; divisor >= 1; divisor--) {
        int64_t whole = (amount + divisor - 1) / divisor * divisor;
        float loss = (float)(whole - amount) / (float)whole;
        if (loss < least) {
            least = loss;
            best = divisor;
        }
    }
    return best;
}

/* Channels of one chain of a 1x1 kernel without groups: by rows, channels in and out, images and threads. Of BF16 twice as many fill a line. */
static int64_t
point_block(int64_t images, int64_t channels, int64_t out_channels, int64_t rows, int64_t columns, int32_t threads, bool paired)
{
    int64_t in = (channels + LANES - 1) / LANES * LANES, out = (out_channels + LANES - 1) / LANES * LANES;
    int64_t positions = rows * columns, block, tile;
    int64_t filling = paired ? 2 * LANES : LANES;
    bool few_rows = rows <= 10, middle = rows > 10 && rows < 28;
    if (8 * images >= threads) {
        bool narrow = out > 128 && out < 256 && middle;
        tile = point_tile(rows, positions, narrow ? 5 : 6, narrow ? 6 : 9);
        block = middle && out <= 256 ? 80 : (few_rows ? 256 : 512);
        block *= filling / LANES;
        block = block < in ? block : in;
    } else {
        int64_t most = in < 1024 ? in / LANES : (few_rows ? 16 : 8);
        tile = point_tile(rows, positions, 9, 30);
        block = best_divisor(in / LANES, most) * LANES;
    }
    return without_aliases(block, positions, tile, filling);
}

static int64_t
least_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Groups whose channels do not fill a vector have a shorter one. */
static int64_t
lanes_of(const conv_plan *plan, int64_t groups)
{
    for (int64_t lanes = LANES; lanes >= LANES / 4; lanes /= 2) {
        if (groups == 1 || (plan->group_in % lanes == 0 && plan->group_out % lanes == 0)) {
            return lanes;
        }
    }
    return 0;
}

/* How far the kernel reaches beyond the end of a row of the input, for the first `count` outputs. */
static int64_t
pad_after(const conv_plan *plan, int32_t d, int64_t count)
{
    int64_t reach = (plan->kernel[d] - 1) * plan->dilation[d] + 1;
    return (count - 1) * plan->stride[d] + reach - plan->in[d] - plan->padding[d];
}

/* Outputs of a row that its code computes side by side, and the blocks of channels that it does at once. */
static int64_t
unrolled(const conv_plan *plan, int64_t images, int64_t in_block, int64_t *blocks)
{
    int64_t width = plan->out[2], kernel_rows = plan->kernel[0] * plan->kernel[1];
    int64_t lanes = plan->lanes, out_blocks = (plan->group_out + lanes - 1) / lanes;
    int64_t whole = least_of(width, 28), kw = plan->kernel[2];
    bool first = plan->group_in < LANES && plan->group_in == plan->C, unit = plan->stride[1] == 1 && plan->stride[2] == 1;
    int64_t floats = (plan->in[2] + plan->stride[2] - 1) / plan->stride[2] * in_block * kernel_rows + width * lanes * 2 +
                     kernel_rows * kw * in_block * lanes * 2;
    bool cached = floats * (int64_t)sizeof(float) < FIRST_CACHE_BYTES;
    bool small = kw == 3 && width <= 28 && cached && !(width == 13 && plan->group_in >= 192) && !(width == 28 && plan->group_in >= 512);
    bool strided = !unit && images <= 16 && (plan->group_out <= 192 || plan->out[1] <= 10);
    bool single = images == 1 && (whole >= width || first || (width <= 147 && plan->group_out <= 96));
    *blocks = 1;
    if (kw > 3 || (small && (unit || strided)) || single) {
        bool two = cached && width <= 8 && plan->kernel[1] <= 3 && kw <= 3 && out_blocks % 2 == 0 && (!first || images == 1) &&
                   (images != 1 || whole < width);
        *blocks = two ? 2 : 1;
        return two ? least_of(width, 10) : whole;
    }
    if (first && images == 1) {
        return whole;
    }
    for (int64_t count = least_of(out_blocks, 5); count > 1 && *blocks == 1; count--) {
        *blocks = out_blocks % count == 0 ? count : 1;
    }
    return least_of(width, 31 / (*blocks + 1));
}

/* Whether its own code refuses a row-major convolution, which it then computes as a product. */
static bool
is_refused(const conv_plan *plan, int64_t images, bool depthwise)
{
    for (int32_t d = 0; d < 3; d++) {
        int64_t reach = (plan->kernel[d] - 1) * plan->dilation[d] + 1;
        if (reach <= plan->padding[d] || reach <= pad_after(plan, d, plan->out[d])) {
            return true;
        }
    }
    int64_t width = plan->out[2], whole = least_of(width, 28), blocks;
    if (depthwise) {
        int64_t unroll = least_of(width, 6);
        return plan->padding[2] > unroll || pad_after(plan, 2, width - width % unroll) > unroll;
    }
    if (plan->lanes == 0) {
        return true;
    }
    int64_t in_block = plan->group_in < LANES && plan->group_in == plan->C ? plan->group_in : plan->lanes;
    int64_t unroll = unrolled(plan, images, in_block, &blocks);
    int64_t parts = 1 + (plan->padding[2] > 0) + (pad_after(plan, 2, width - width % whole) > 0);
    return plan->padding[2] > unroll || pad_after(plan, 2, width - width % unroll) > unroll ||
           parts * plan->kernel[2] * in_block * blocks * unroll * 15 > CODE_BYTES;
}

/* Channels whose weights for `outputs` channels out stay in the second cache together with the rows that they meet. */
static int64_t
cached_channels(const conv_plan *plan, int64_t outputs)
{
    int64_t seen = (least_of(plan->out[2], SIDE_BY_SIDE) - 1) * plan->stride[2] + (plan->kernel[2] - 1) * plan->dilation[2] + 1;
    int64_t floats = plan->taps * outputs + plan->kernel[0] * plan->kernel[1] * least_of(seen, plan->in[2]);
    int64_t blocks = SECOND_CACHE_BYTES / (floats * (int64_t)sizeof(float) * LANES);
    return LANES * (blocks < 1 ? 1 : least_of(blocks, MAX_BLOCKS));
}

/* Channels of one chain of a channels-last convolution. It computes 64 channels out at a time where they leave no rest and are not many, else 32;
 * of more than one column 32, if all channels in can then be one chain. */
static int64_t
last_block(const conv_plan *plan)
{
    int64_t in = plan->group_in, out = (plan->group_out + LANES - 1) / LANES * LANES;
    bool wide = out % 64 == 0 && out < 192;
    if (plan->taps == 1 || out == LANES) {
        return least_of(in, MAX_BLOCKS * LANES);
    }
    if (plan->out[2] > 1 && (cached_channels(plan, 32) >= in || (!wide && plan->out[2] < 8))) {
        return in;
    }
    return least_of(in, cached_channels(plan, wide ? 64 : 32));
}

static conv_plan
plan_of(const port_kernel_call *call)
{
    const port_onednn_conv_params *params = call->params;
    const port_conv_params *p = &params->conv;
    const port_view *x = call->in[0], *w = call->in[1], *y = call->out[0];
    conv_plan plan = {.C = x->shape[1], .O = y->shape[1], .taps = 1, .positions = 1};
    bool padded = false, whole = true;
    plan.group_in = plan.C / p->groups;
    plan.group_out = plan.O / p->groups;
    for (int32_t d = 0; d < 3; d++) {
        int32_t from = d - (5 - x->ndim); /* among the dimensions that are there */
        bool there = from >= 0;
        plan.in[d] = there ? x->shape[2 + from] : 1;
        plan.out[d] = there ? y->shape[2 + from] : 1;
        plan.kernel[d] = there ? w->shape[2 + from] : 1;
        plan.stride[d] = there ? p->stride[from] : 1;
        plan.padding[d] = there ? p->padding[from] : 0;
        plan.dilation[d] = there ? p->dilation[from] : 1;
        plan.taps *= plan.kernel[d];
        plan.positions *= plan.out[d];
        padded = padded || plan.padding[d] > 0;
        whole = whole && plan.out[d] * plan.stride[d] == plan.in[d];
    }
    plan.lanes = lanes_of(&plan, p->groups);
    bool point = plan.taps == 1, depthwise = p->groups > 1 && plan.group_in == 1 && plan.group_out == 1 && x->ndim < 5;
    plan.from_bias = !params->nhwc && (depthwise || (point && whole && !padded && p->groups == 1));
    plan.bias_last = params->nhwc || params->paired;
    plan.paired = params->paired;
    plan.block = params->nhwc ? last_block(&plan) : (plan.lanes > 0 ? plan.lanes : LANES);
    if (plan.from_bias && !depthwise) {
        plan.block = point_block(x->shape[0], plan.C, plan.O, plan.out[0] * plan.out[1], plan.out[2], call->profile->num_threads, plan.paired);
    }
    plan.one_chain = plan.paired && !params->nhwc && !(plan.from_bias && !depthwise);
    plan.from_bias = plan.from_bias && !plan.paired;
    bool points = point && !depthwise && p->groups == 1 && !padded;
    plan.unfolded = !params->nhwc && !points && is_refused(&plan, x->shape[0], depthwise);
    return plan;
}

static port_status
onednn_conv_check(const port_kernel_call *call, port_error *err)
{
    const port_onednn_conv_params *params = call->params;
    const port_view *x = call->in[0], *w = call->in[1], *bias = call->in[2], *y = call->out[0];
    bool fits = params != NULL && x->ndim >= 3 && x->ndim <= 5 && w->ndim == x->ndim && y->ndim == x->ndim &&
                params->conv.groups >= 1 && !params->conv.transposed;
    if (!fits || w->shape[1] * params->conv.groups != x->shape[1] || w->shape[0] != y->shape[1] ||
        w->shape[0] % params->conv.groups != 0 || y->shape[0] != x->shape[0] ||
        (bias != NULL && (bias->ndim != 1 || bias->shape[0] != w->shape[0]))) {
        return port_fail(err, PORT_E_SHAPE, "onednn_convolution: the tensors do not fit");
    }
    for (int32_t d = 0; d < x->ndim - 2; d++) {
        const port_conv_params *p = &params->conv;
        if (p->stride[d] < 1 || p->dilation[d] < 1 || p->padding[d] < 0 || w->shape[2 + d] < 1 ||
            y->shape[2 + d] != (x->shape[2 + d] + 2 * p->padding[d] - p->dilation[d] * (w->shape[2 + d] - 1) - 1) / p->stride[d] + 1) {
            return port_fail(err, PORT_E_SHAPE, "onednn_convolution: dimension %d of out has size %lld", 2 + d, (long long)y->shape[2 + d]);
        }
    }
    return port_row_major_f32((const port_view *[]){x, w, y, bias}, 4, "onednn_convolution", err);
}

enum { OUT_BLOCK = 64, MAX_PARTS = 16 };

/* What is computed together: STEP positions of one group of one image, for up to OUT_BLOCK channels out. */
typedef struct conv_units {
    int64_t steps, out_blocks, count;
    port_chunks parts; /* each of which has room for the places and the columns of one: (channel, kernel element, position) */
    size_t room_bytes;
} conv_units;

static conv_units
units_of(const port_kernel_call *call, const conv_plan *plan)
{
    const port_onednn_conv_params *params = call->params;
    int32_t num_threads = call->profile->num_threads < MAX_PARTS ? call->profile->num_threads : MAX_PARTS;
    conv_units units = {.steps = (plan->positions + STEP - 1) / STEP, .out_blocks = (plan->group_out + OUT_BLOCK - 1) / OUT_BLOCK};
    int64_t terms = plan->group_in * plan->taps, outs = least_of(plan->group_out, OUT_BLOCK);
    units.count = call->in[0]->shape[0] * params->conv.groups * units.steps * units.out_blocks;
    units.parts = port_chunks_by_elems(units.count, terms * (STEP + STEP / 8 * outs), num_threads);
    units.room_bytes = (size_t)(plan->taps * STEP) * sizeof(int64_t) + (size_t)(terms * STEP) * sizeof(float);
    return units;
}

static size_t
onednn_conv_scratch_bytes(const port_kernel_call *call)
{
    conv_plan plan = plan_of(call);
    conv_units units = units_of(call, &plan);
    return (size_t)units.parts.count * units.room_bytes;
}

/* Where the position p of the output, without a kernel element, stands in each dimension of the input. */
static void
corner_of(const conv_plan *plan, int64_t p, int64_t corner[3])
{
    for (int32_t d = 2; d >= 0; d--) {
        corner[d] = p % plan->out[d] * plan->stride[d] - plan->padding[d];
        p /= plan->out[d];
    }
}

/* Where it meets the kernel's element that stands `reach` further in one channel of the input; -1: outside of it. */
PORT_INLINE int64_t
place_of(const conv_plan *plan, const int64_t corner[3], const int64_t reach[3])
{
    int64_t at[3];
    bool inside = true;
    for (int32_t d = 0; d < 3; d++) {
        at[d] = corner[d] + reach[d];
        inside &= at[d] >= 0 && at[d] < plan->in[d];
    }
    return inside ? (at[0] * plan->in[1] + at[1]) * plan->in[2] + at[2] : -1;
}

/* Where the positions [begin, begin + count) of the output meet each kernel element in one channel of the input: (kernel element, STEP). */
static void
find_places(const conv_plan *plan, int64_t begin, int64_t count, int64_t *places)
{
    int64_t corners[STEP][3];
    for (int64_t l = 0; l < count; l++) {
        corner_of(plan, begin + l, corners[l]);
    }
    for (int64_t k = 0; k < plan->taps; k++) {
        int64_t reach[3] = {k / (plan->kernel[1] * plan->kernel[2]) * plan->dilation[0],
                            k / plan->kernel[2] % plan->kernel[1] * plan->dilation[1], k % plan->kernel[2] * plan->dilation[2]};
        for (int64_t l = 0; l < STEP; l++) {
            places[k * STEP + l] = l < count ? place_of(plan, corners[l], reach) : -1;
        }
    }
}

/* What is at those places of a group's channels; 0 outside of the input. */
static void
unfold(const conv_plan *plan, const float *x, const int64_t *places, float *columns)
{
    int64_t size = plan->in[0] * plan->in[1] * plan->in[2];
    for (int64_t c = 0; c < plan->group_in; c++, x += size) {
        for (int64_t i = 0; i < plan->taps * STEP; i++) {
            *columns++ = places[i] < 0 ? 0.0f : x[places[i]];
        }
    }
}

/* Which channel below `last` comes where channel c stands; `last` is odd for the last block alone. */
PORT_INLINE int64_t
channel_at(const conv_plan *plan, int64_t c, int64_t last)
{
    return plan->paired && (c ^ 1) < last ? c ^ 1 : c;
}

/* acc[o] += the chain over kernel elements and the channels [first, last) with w[o], for OUTS channels out. */
typedef void (*chain_fn)(const conv_plan *plan, const float *const *w, const float *columns, int64_t first, int64_t last,
                         float acc[OUTS][STEP]);

static void
chain_ref(const conv_plan *plan, const float *const *w, const float *columns, int64_t first, int64_t last, float acc[OUTS][STEP])
{
    int64_t taps = plan->taps;
    for (int64_t o = 0; o < OUTS; o++) {
        for (int64_t k = 0; k < taps; k++) {
            for (int64_t at = first; at < last; at++) {
                int64_t c = channel_at(plan, at, last);
                for (int64_t l = 0; l < STEP; l++) {
                    acc[o][l] = fmaf(w[o][c * taps + k], columns[(c * taps + k) * STEP + l], acc[o][l]);
                }
            }
        }
    }
}

/* The same without the kernel elements that meet padding: a weight that is not finite times 0 would be NaN. */
static void
chain_inside(const conv_plan *plan, const float *const *w, const float *columns, int64_t first, int64_t last, float acc[OUTS][STEP])
{
    int64_t taps = plan->taps;
    for (int64_t i = 0; i < OUTS * STEP; i++) {
        int64_t o = i / STEP, l = i % STEP;
        for (int64_t k = 0; k < taps; k++) {
            for (int64_t at = first; at < last && plan->places[k * STEP + l] >= 0; at++) {
                int64_t c = channel_at(plan, at, last);
                acc[o][l] = fmaf(w[o][c * taps + k], columns[(c * taps + k) * STEP + l], acc[o][l]);
            }
        }
    }
}

#if PORT_HAVE_AVX2
/* `vectors` of the STEP positions at a time, so that their sums stay in registers. */
#define CHAIN(level, attributes, vector, lanes, vectors, load, store, spread, fused)                                        \
    attributes static void chain_##level(const conv_plan *plan, const float *const *w, const float *columns, int64_t first, \
                                         int64_t last, float acc[OUTS][STEP])                                               \
    {                                                                                                                       \
        int64_t taps = plan->taps;                                                                                          \
        for (int64_t l = 0; l < STEP; l += (vectors) * (lanes)) {                                                           \
            vector sums[OUTS][vectors];                                                                                     \
            _Pragma("GCC unroll 4") for (int o = 0; o < OUTS; o++)                                                          \
            {                                                                                                               \
                _Pragma("GCC unroll 4") for (int v = 0; v < (vectors); v++) { sums[o][v] = load(acc[o] + l + v * (lanes)); } \
            }                                                                                                               \
            for (int64_t k = 0; k < taps; k++) {                                                                            \
                for (int64_t at = first; at < last; at++) {                                                                 \
                    int64_t c = channel_at(plan, at, last);                                                                 \
                    const float *column = columns + (c * taps + k) * STEP + l;                                              \
                    vector seen[vectors];                                                                                   \
                    _Pragma("GCC unroll 4") for (int v = 0; v < (vectors); v++) { seen[v] = load(column + v * (lanes)); }   \
                    _Pragma("GCC unroll 4") for (int o = 0; o < OUTS; o++)                                                  \
                    {                                                                                                       \
                        vector weight = spread(w[o][c * taps + k]);                                                         \
                        _Pragma("GCC unroll 4") for (int v = 0; v < (vectors); v++)                                         \
                        {                                                                                                   \
                            sums[o][v] = fused(weight, seen[v], sums[o][v]);                                                \
                        }                                                                                                   \
                    }                                                                                                       \
                }                                                                                                           \
            }                                                                                                               \
            _Pragma("GCC unroll 4") for (int o = 0; o < OUTS; o++)                                                          \
            {                                                                                                               \
                _Pragma("GCC unroll 4") for (int v = 0; v < (vectors); v++) { store(acc[o] + l + v * (lanes), sums[o][v]); } \
            }                                                                                                               \
        }                                                                                                                   \
    }
CHAIN(avx2, PORT_TARGET_AVX2, __m256, 8, 2, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps)
CHAIN(avx512, PORT_TARGET_AVX512, __m512, 16, 4, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps)
#endif

/* Terms of the next block of a product, of which `rest` are left. */
static int64_t
product_terms(int64_t rest)
{
    return rest >= 2 * PRODUCT_TERMS ? PRODUCT_TERMS : (rest > PRODUCT_TERMS ? (rest + 1) / 2 : rest);
}

/* The sum of `count` products, at most 8 of which lie in one vector: lanes in order, then neighbours, then halves. */
static float
lanes_product(const float *w, const float *columns, int64_t count)
{
    float acc[8] = {0.0f};
    for (int64_t i = 0; i < count; i++) {
        acc[i % 8] = fmaf(w[i], columns[i * STEP], acc[i % 8]);
    }
    return ((acc[0] + acc[1]) + (acc[4] + acc[5])) + ((acc[2] + acc[3]) + (acc[6] + acc[7]));
}

/* A single output position: a product with a vector, in lanes along the terms; what does not fill 16 of them in ever shorter parts. */
static float
vector_product(const conv_plan *plan, const float *w, const float *columns)
{
    int64_t terms = plan->group_in * plan->taps, done = terms - terms % 16;
    float y = done > 0 ? lanes_product(w, columns, done) : 0.0f;
    for (int64_t part = 8; part >= 1; part /= 2) {
        if ((terms & part) != 0) {
            y += lanes_product(w + done, columns + done * STEP, part);
            done += part;
        }
    }
    return y;
}

/* Channels out of an unfolded convolution: all terms lie side by side, as if they were kernel elements of one channel. */
static void
products(const conv_plan *plan, chain_fn chain, const float *const *w, const float *bias, const float *columns, float y[OUTS][STEP])
{
    conv_plan part = {.taps = 0};
    int64_t terms = plan->group_in * plan->taps;
    bool vector = plan->positions == 1 && plan->group_out > 1;
    memset(y, 0, OUTS * sizeof *y);
    for (int64_t o = 0; o < OUTS && vector; o++) {
        y[o][0] = vector_product(plan, w[o], columns);
    }
    for (int64_t first = 0; first < terms && !vector; first += part.taps) {
        float sums[OUTS][STEP] = {{0.0f}};
        const float *from[OUTS];
        for (int64_t o = 0; o < OUTS; o++) {
            from[o] = w[o] + first;
        }
        part.taps = product_terms(terms - first);
        chain(&part, from, columns + first * STEP, 0, 1, sums);
        for (int64_t i = 0; i < OUTS * STEP; i++) {
            int64_t o = i / STEP, l = i % STEP;
            y[o][l] = first == 0 ? sums[o][l] : y[o][l] + sums[o][l];
        }
    }
    for (int64_t i = 0; i < OUTS * STEP; i++) {
        y[i / STEP][i % STEP] += bias[i / STEP];
    }
}

/* OUTS channels out at STEP positions. */
static void
outputs(const conv_plan *plan, chain_fn chain, const float *const *w, const float *bias, const float *columns, float y[OUTS][STEP])
{
    if (plan->unfolded) {
        products(plan, chain, w, bias, columns, y);
        return;
    }
    for (int64_t i = 0; i < OUTS * STEP; i++) {
        y[i / STEP][i % STEP] = plan->bias_last ? 0.0f : bias[i / STEP];
    }
    for (int64_t c = 0; c < plan->group_in; c += plan->block) {
        int64_t last = least_of(c + plan->block, plan->group_in);
        float sums[OUTS][STEP] = {{0.0f}};
        bool goes_on = plan->one_chain || (c == 0 && plan->from_bias);
        chain(plan, w, columns, c, last, goes_on ? y : sums);
        for (int64_t i = 0; i < OUTS * STEP && !goes_on; i++) {
            y[i / STEP][i % STEP] += sums[i / STEP][i % STEP];
        }
    }
    for (int64_t i = 0; i < OUTS * STEP && plan->bias_last; i++) {
        y[i / STEP][i % STEP] += bias[i / STEP];
    }
}

typedef struct conv_job {
    const port_kernel_call *call;
    conv_plan plan;
    conv_units units;
    chain_fn chain;
} conv_job;

/* Whether what is NaN here may be so by padding alone. */
static bool
meets_padding(const conv_plan *plan, float made[OUTS][STEP])
{
    bool nan = false, outside = false;
    for (int64_t i = 0; i < OUTS * STEP && !plan->unfolded; i++) {
        nan |= made[i / STEP][i % STEP] != made[i / STEP][i % STEP];
    }
    for (int64_t i = 0; i < plan->taps * STEP && nan && !outside; i++) {
        outside = plan->places[i] < 0;
    }
    return outside;
}

/* The channels [first, last) out of image n at `count` positions from `at` on; of a rest below OUTS the first is computed several times. */
static void
channels_out(const conv_job *job, const conv_plan *plan, const float *columns, int64_t n, int64_t first, int64_t last, int64_t at, int64_t count)
{
    const port_kernel_call *call = job->call;
    const float *weight = call->in[1]->data, *bias = call->in[2] == NULL ? NULL : call->in[2]->data;
    float *y = (float *)call->out[0]->data + n * plan->O * plan->positions + at, made[OUTS][STEP];
    for (int64_t o = first; o < last; o += OUTS) {
        const float *w[OUTS];
        float start[OUTS];
        for (int64_t k = 0; k < OUTS; k++) {
            int64_t own = o + k < last ? o + k : o;
            w[k] = weight + own * plan->group_in * plan->taps;
            start[k] = bias == NULL ? 0.0f : bias[own];
        }
        outputs(plan, job->chain, w, start, columns, made);
        if (meets_padding(plan, made)) {
            outputs(plan, chain_inside, w, start, columns, made);
        }
        for (int64_t k = 0; k < OUTS && o + k < last; k++) {
            memcpy(y + (o + k) * plan->positions, made[k], (size_t)count * sizeof *y);
        }
    }
}

static void
conv_part(void *opaque, int64_t part)
{
    const conv_job *job = opaque;
    const port_kernel_call *call = job->call;
    conv_plan own = job->plan, *plan = &own;
    const conv_units *units = &job->units;
    int64_t groups = ((const port_onednn_conv_params *)call->params)->conv.groups, size = plan->in[0] * plan->in[1] * plan->in[2];
    char *room = (char *)call->scratch + (size_t)part * units->room_bytes;
    int64_t *places = (int64_t *)(void *)room, found = -1, unfolded = -1;
    float *columns = (float *)(void *)(room + (size_t)(plan->taps * STEP) * sizeof *places);
    own.places = places;
    int64_t begin = part * units->parts.size, end = least_of(begin + units->parts.size, units->count);
    for (int64_t unit = begin; unit < end; unit++) { /* channels out innermost, then groups, images, positions */
        int64_t group = unit / units->out_blocks, image = group / groups, g = group % groups;
        int64_t step = image / call->in[0]->shape[0], n = image % call->in[0]->shape[0];
        int64_t at = step * STEP, count = least_of(plan->positions - at, STEP), first = unit % units->out_blocks * OUT_BLOCK;
        if (step != found) {
            find_places(plan, at, count, places);
            found = step;
        }
        if (group != unfolded) {
            unfold(plan, (const float *)call->in[0]->data + (n * plan->C + g * plan->group_in) * size, places, columns);
            unfolded = group;
        }
        int64_t last = least_of(first + OUT_BLOCK, plan->group_out);
        channels_out(job, plan, columns, n, g * plan->group_out + first, g * plan->group_out + last, at, count);
    }
}

static void
onednn_conv_run(const port_kernel_call *call, chain_fn chain)
{
    conv_job job = {.call = call, .plan = plan_of(call), .chain = chain};
    job.units = units_of(call, &job.plan);
    port_parallel(job.units.count > 0 ? job.units.parts.count : 0, call->profile->num_threads, conv_part, &job);
}

static void
onednn_conv_run_ref(const port_kernel_call *call)
{
    onednn_conv_run(call, chain_ref);
}

#if PORT_HAVE_AVX2
static void
onednn_conv_run_avx2(const port_kernel_call *call)
{
    onednn_conv_run(call, chain_avx2);
}

static void
onednn_conv_run_avx512(const port_kernel_call *call)
{
    onednn_conv_run(call, chain_avx512);
}
#endif

const port_kernel_row port_onednn_convolution_rows[] = {
#if PORT_HAVE_AVX2
    {"onednn_convolution", PORT_F32, "avx512", 2, onednn_conv_check, onednn_conv_scratch_bytes, onednn_conv_run_avx512},
    {"onednn_convolution", PORT_F32, "avx2", 1, onednn_conv_check, onednn_conv_scratch_bytes, onednn_conv_run_avx2},
#endif
    {"onednn_convolution", PORT_F32, "ref", 0, onednn_conv_check, onednn_conv_scratch_bytes, onednn_conv_run_ref},
    {.op = NULL},
};
