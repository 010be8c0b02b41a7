/* channel_norm.c -- batch_norm with given statistics, and group_norm. x (N, C, ...), y like x; F32 and F64.
 *     batch_norm  y = x * a + (bias - mean * a),  a = weight / sqrt(var + eps)
 *     group_norm  y = x * a + (bias - mean * a),  a = weight * rstd of the group,  rstd = 1 / sqrt(var + eps) in double;
 *                 without weight and bias y = (x - mean) * rstd, but for channels-last
 * Each multiply-add is one fma with avx2 and up. Moments as in layer_norm (norm.c); of a group that is stored channels-last, F32, as
 * sum x^2 / n - mean^2: in one vector of lanes over the group's channels, or, of SPREAD positions and more, by channels and threads.
 * Source: at::native batch_norm_kernel, group_norm_kernel (BSD-3-Clause; restated). */
#include "loops.h"
#include "norm.h"
#include "vecmath.h"

#include <math.h>

static float
mul_add(bool fused, float a, float b, float c)
{
    return fused ? fmaf(a, b, c) : a * b + c;
}

/* Element c of an operand of one dimension, which may be None. */
static double
element(const port_view *view, int64_t c, double if_none)
{
    if (view == NULL) {
        return if_none;
    }
    int64_t at = c * view->strides[0];
    return view->dtype == PORT_F32 ? (double)((const float *)view->data)[at] : ((const double *)view->data)[at];
}

/* y = (x - shift) * a + b over n elements, strides in elements. */
PORT_INLINE void
scale_f32(bool fused, int64_t n, const float *x, int64_t x_step, float *y, int64_t y_step, float shift, float a, float b)
{
    enum { LANES_AT_ONCE = 16 };
    int64_t i = 0;
    for (; x_step == 1 && y_step == 1 && i + LANES_AT_ONCE <= n; i += LANES_AT_ONCE) {
        PORT_INDEPENDENT
        for (int lane = 0; lane < LANES_AT_ONCE; lane++) {
            float away = x[i + lane] - shift;
            y[i + lane] = fused ? fmaf(away, a, b) : away * a + b;
        }
    }
    for (; i < n; i++) {
        float away = x[i * x_step] - shift;
        y[i * y_step] = fused ? fmaf(away, a, b) : away * a + b;
    }
}

PORT_INLINE void
scale_any(bool fused, int64_t n, const float *x, int64_t x_step, float *y, int64_t y_step, float shift, float a, float b)
{
    if (x_step == 1 && y_step == 1) {
        scale_f32(fused, n, x, 1, y, 1, shift, a, b);
    } else {
        scale_f32(fused, n, x, x_step, y, y_step, shift, a, b);
    }
}

static void
scale_ref(bool fused, int64_t n, const float *x, int64_t x_step, float *y, int64_t y_step, float shift, float a, float b)
{
    scale_any(fused, n, x, x_step, y, y_step, shift, a, b);
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
scale_avx2(bool fused, int64_t n, const float *x, int64_t x_step, float *y, int64_t y_step, float shift, float a, float b)
{
    if (fused) {
        scale_any(true, n, x, x_step, y, y_step, shift, a, b);
    } else {
        scale_any(false, n, x, x_step, y, y_step, shift, a, b);
    }
}
#define PICK(name) (port_cpu_level_found() > 0 ? name##_avx2 : name##_ref)
#else
#define PICK(name) name##_ref
#endif

static void
scale_f64(bool fused, int64_t n, const double *x, int64_t x_step, double *y, int64_t y_step, double shift, double a, double b)
{
    for (int64_t i = 0; i < n; i++) {
        double away = x[i * x_step] - shift;
        y[i * y_step] = fused ? fma(away, a, b) : away * a + b;
    }
}

/* The same over one channel of one item, whatever the strides: as many of its last dimensions at once as have one stride. */
static void
scale_channel(const port_kernel_call *call, int64_t n, int64_t c, double shift, double a, double b)
{
    const port_view *x = call->in[0], *y = call->out[0];
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    int32_t last = x->ndim - 1, inner = last;
    int64_t count = last >= 2 ? x->shape[last] : 1, rows = 1;
    int64_t x_step = last >= 2 ? x->strides[last] : 1, y_step = last >= 2 ? y->strides[last] : 1;
    while (inner > 2 && x->strides[inner - 1] == count * x_step && y->strides[inner - 1] == count * y_step) {
        count *= x->shape[--inner];
    }
    for (int32_t d = 2; d < inner; d++) {
        rows *= x->shape[d];
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = n * x->strides[0] + c * x->strides[1], to = n * y->strides[0] + c * y->strides[1];
        for (int64_t d = inner - 1, rest = r; d >= 2; rest /= x->shape[d--]) {
            from += rest % x->shape[d] * x->strides[d];
            to += rest % x->shape[d] * y->strides[d];
        }
        if (x->dtype == PORT_F32) {
            PICK(scale)(fused, count, (const float *)x->data + from, x_step, (float *)y->data + to, y_step, (float)shift, (float)a, (float)b);
        } else {
            scale_f64(fused, count, (const double *)x->data + from, x_step, (double *)y->data + to, y_step, shift, a, b);
        }
    }
}

/* y = fma(x, a, b) of n channels that lie side by side, each with an a and a b of its own, at `places` places, which are `all` apart. */
#define SCALE_ROWS(suffix, lanes, attributes)                                                                        \
    attributes static void scale_rows_##suffix(bool fused, int64_t places, int64_t all, int64_t n, const float *x, const float *a, \
                                               const float *b, float *y)                                             \
    {                                                                                                                \
        for (int64_t m = 0; m < places; m++, x += all, y += all) {                                                   \
            int64_t i = 0;                                                                                           \
            for (; fused && i + (lanes) <= n; i += (lanes)) {                                                        \
                PORT_INDEPENDENT                                                                                     \
                for (int lane = 0; lane < (lanes); lane++) {                                                         \
                    y[i + lane] = fmaf(x[i + lane] - 0.0f, a[i + lane], b[i + lane]);                                \
                }                                                                                                    \
            }                                                                                                        \
            for (; i < n; i++) {                                                                                     \
                y[i] = mul_add(fused, x[i] - 0.0f, a[i], b[i]);                                                      \
            }                                                                                                        \
        }                                                                                                            \
    }
SCALE_ROWS(ref, 4, )
#if PORT_HAVE_AVX2
SCALE_ROWS(avx2, 8, PORT_TARGET_AVX2)
#endif

enum { CHANNELS = 256 }; /* at a time */

/* Whether x and y are F32 with their channels side by side, and the dimensions of space one behind the other. */
static bool
channels_together(const port_kernel_call *call)
{
    const port_view *views[2] = {call->in[0], call->out[0]};
    bool together = views[0]->dtype == PORT_F32 && views[0]->ndim > 2 && views[0]->shape[1] > 1;
    for (int k = 0; k < 2 && together; k++) {
        int64_t expected = views[k]->shape[1];
        together = views[k]->strides[1] == 1;
        for (int32_t d = views[k]->ndim - 1; d >= 2; d--) {
            together = together && views[k]->strides[d] == expected;
            expected *= views[k]->shape[d];
        }
    }
    return together;
}

/* Channels c to c + count of item n at its places [begin, end). */
static void
scale_places(const port_kernel_call *call, int64_t n, int64_t c, int64_t count, int64_t begin, int64_t end, const float *a, const float *b)
{
    const port_view *x = call->in[0], *y = call->out[0];
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    int64_t all = x->shape[1], at = begin * all + c;
    PICK(scale_rows)(fused, end - begin, all, count, (const float *)x->data + n * x->strides[0] + at, a, b,
                     (float *)y->data + n * y->strides[0] + at);
}

/* ---------------------------------------------------------------- batch_norm */

static port_status
check_channels(const char *op, const port_kernel_call *call, int32_t first, int32_t last, port_error *err)
{
    port_status status = port_check_same_shape(op, call, 1, err);
    const port_view *x = call->in[0];
    if (status == PORT_OK && (call->params == NULL || x->ndim < 2 || call->out[0]->dtype != x->dtype)) {
        return port_fail(err, PORT_E_SHAPE, "%s: expected (N, C, ...) and out of the same dtype", op);
    }
    for (int32_t k = first; status == PORT_OK && k <= last; k++) {
        const port_view *v = call->in[k];
        if (v != NULL && (v->ndim != 1 || v->shape[0] != x->shape[1] || v->dtype != x->dtype)) {
            return port_fail(err, PORT_E_SHAPE, "%s: operand %d must have %lld elements of %s", op, k, (long long)x->shape[1],
                             port_dtype_name(x->dtype));
        }
    }
    return status;
}

static port_status
batch_check(const port_kernel_call *call, port_error *err)
{
    if (call->num_in != 5 || call->in[3] == NULL || call->in[4] == NULL) {
        return port_fail(err, PORT_E_VALUE, "batch_norm: mean and variance are missing");
    }
    return check_channels("batch_norm", call, 1, 4, err);
}

/* What channel c is multiplied by, and what is added then. */
static void
batch_factors(const port_kernel_call *call, int64_t c, double *a, double *b)
{
    const port_batch_norm_params *p = call->params;
    double eps = p->eps;
    bool fused = call->profile->capability != PORT_CAP_DEFAULT && !p->rounded_product;
    double weight = element(call->in[1], c, 1.0), bias = element(call->in[2], c, 0.0);
    double mean = element(call->in[3], c, 0.0), var = element(call->in[4], c, 1.0);
    *a = weight * (1.0 / sqrt(var + eps));
    *b = fused ? fma(-mean, *a, bias) : bias - mean * *a;
    if (call->in[0]->dtype == PORT_F32) {
        float scale = (float)weight * (1.0f / sqrtf((float)var + (float)eps));
        *a = (double)scale;
        *b = (double)mul_add(fused, -(float)mean, scale, (float)bias);
    }
}

/* Channels of items, by their number. */
static void
batch_range(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    int64_t channels = call->in[0]->shape[1];
    for (int64_t i = begin; i < end; i++) {
        double a, b;
        batch_factors(call, i % channels, &a, &b);
        scale_channel(call, i / channels, i % channels, 0.0, a, b);
    }
}

/* Places of items, by their number. */
static void
batch_places(const void *opaque, int64_t begin, int64_t end)
{
    const port_kernel_call *call = opaque;
    const port_view *x = call->in[0];
    int64_t all = x->shape[1], places = port_view_elems(x) / x->shape[0] / all;
    float a[CHANNELS], b[CHANNELS];
    for (int64_t c = 0; c < all; c += CHANNELS) {
        int64_t count = all - c < CHANNELS ? all - c : CHANNELS;
        for (int64_t i = 0; i < count; i++) {
            double wide_a, wide_b;
            batch_factors(call, c + i, &wide_a, &wide_b);
            a[i] = (float)wide_a, b[i] = (float)wide_b;
        }
        for (int64_t i = begin; i < end;) {
            int64_t n = i / places, last = (n + 1) * places < end ? (n + 1) * places : end;
            scale_places(call, n, c, count, i - n * places, last - n * places, a, b);
            i = last;
        }
    }
}

static void
batch_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    if (channels_together(call) && port_view_elems(x) > 0) {
        port_deal(port_view_elems(x) / x->shape[1], x->shape[1], call->profile->num_threads, batch_places, call);
        return;
    }
    int64_t channels = x->shape[0] * x->shape[1];
    port_deal(channels, channels > 0 ? port_view_elems(x) / channels : 0, call->profile->num_threads, batch_range, call);
}

/* ---------------------------------------------------------------- group_norm */

static port_status
group_check(const port_kernel_call *call, port_error *err)
{
    port_status status = check_channels("group_norm", call, 1, 2, err);
    const port_group_params *p = call->params;
    if (status == PORT_OK && (p->groups < 1 || call->in[0]->shape[1] % p->groups != 0)) {
        return port_fail(err, PORT_E_VALUE, "group_norm: %lld channels in %lld groups", (long long)call->in[0]->shape[1],
                         (long long)p->groups);
    }
    for (int32_t k = 1; status == PORT_OK && k < 3; k++) {
        const port_view *v = k < call->num_out ? call->out[k] : NULL;
        if (v == NULL || v->dtype != call->in[0]->dtype || port_view_elems(v) != call->in[0]->shape[0] * p->groups ||
            !port_view_is_contiguous(v)) {
            return port_fail(err, PORT_E_SHAPE, "group_norm: mean and rstd must be row-major (N, groups)");
        }
    }
    return status;
}

/* One call: groups, or items where they are stored channels-last, in as many parts as have room for one of them. */
typedef struct group_job {
    const port_kernel_call *call;
    port_chunks chunks;
    int64_t units;
    bool by_items;
    size_t room_bytes; /* of a part */
} group_job;

enum { MAX_PARTS = 16 };

static group_job
group_job_of(const port_kernel_call *call)
{
    const port_view *x = call->in[0];
    const port_group_params *p = call->params;
    int32_t num_threads = call->profile->num_threads;
    group_job job = {.call = call, .units = x->shape[0], .by_items = p->channels_last && x->dtype == PORT_F32};
    job.units *= job.by_items ? 1 : p->groups;
    int64_t elems = job.units > 0 ? port_view_elems(x) / job.units : 0;
    job.chunks = port_chunks_by_elems(job.units, elems, num_threads < MAX_PARTS ? num_threads : MAX_PARTS);
    job.room_bytes = ((size_t)elems * port_dtype_size(x->dtype) + 63) / 64 * 64;
    return job;
}

static size_t
group_scratch_bytes(const port_kernel_call *call)
{
    group_job job = group_job_of(call);
    return (size_t)job.chunks.count * job.room_bytes;
}

static void
group_moments(const port_kernel_call *call, void *room, int64_t n, int64_t g, double *mean, double *rstd)
{
    const port_view *x = call->in[0];
    const port_group_params *p = call->params;
    port_view part = *x;
    int64_t channels = x->shape[1] / p->groups;
    part.data = (char *)x->data + (n * x->strides[0] + g * channels * x->strides[1]) * (int64_t)port_dtype_size(x->dtype);
    part.shape[0] = 1;
    part.shape[1] = channels;
    int64_t count = port_view_elems(&part);
    if (port_view_is_contiguous(&part)) {
        room = part.data;
    } else {
        port_view_gather(&part, room);
    }
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    if (x->dtype == PORT_F64) {
        port_row_norm_f64(fused, room, count, p->eps, NULL, NULL, NULL, mean, rstd);
        return;
    }
    float mean_f32, var;
    port_row_moments_f32(fused, p->given, room, count, &mean_f32, &var);
    *mean = (double)mean_f32;
    *rstd = (double)(float)(1.0 / sqrt((double)(var > 0.0f || var != var ? var : 0.0f) + p->eps));
}

/* Positions from which on the reference sums each channel by itself. */
#define SPREAD 1024
#define LANES 8 /* with avx512 too */

/* Sums over one group of the item that x holds as (positions, channels of the item): lanes across its channels. */
#define SUMS_IN_LANES(suffix, attributes)                                                                            \
    attributes static void sums_in_lanes_##suffix(const float *x, int64_t positions, int64_t all, int64_t channels, float *sums, float *squares) \
    {                                                                                                                \
        float sum[LANES] = {0.0f}, square[LANES] = {0.0f};                                                           \
        for (int64_t m = 0; m < positions; m++, x += all) {                                                          \
            int64_t c = 0;                                                                                           \
            for (; c + LANES <= channels; c += LANES) {                                                              \
                for (int lane = 0; lane < LANES; lane++) {                                                           \
                    sum[lane] += x[c + lane];                                                                        \
                    square[lane] += x[c + lane] * x[c + lane];                                                       \
                }                                                                                                    \
            }                                                                                                        \
            for (int lane = 0; c + lane < channels; lane++) {                                                        \
                sum[lane] += x[c + lane];                                                                            \
                square[lane] += x[c + lane] * x[c + lane];                                                           \
            }                                                                                                        \
        }                                                                                                            \
        memcpy(sums, sum, sizeof(sum));                                                                              \
        memcpy(squares, square, sizeof(square));                                                                     \
    }
SUMS_IN_LANES(ref, )
#if PORT_HAVE_AVX2
SUMS_IN_LANES(avx2, PORT_TARGET_AVX2)
#endif

/* Sums and squares of `count` channels that lie side by side, over positions `all` apart. */
#define ADD_PLACES(suffix, lanes, attributes)                                                                        \
    attributes static void add_places_##suffix(bool fused, const float *x, int64_t positions, int64_t all, int64_t count, float *sums, float *squares) \
    {                                                                                                                \
        for (int64_t m = 0; m < positions; m++, x += all) {                                                          \
            int64_t i = 0;                                                                                           \
            for (; fused && i + (lanes) <= count; i += (lanes)) {                                                    \
                PORT_INDEPENDENT                                                                                     \
                for (int lane = 0; lane < (lanes); lane++) {                                                         \
                    sums[i + lane] += x[i + lane];                                                                   \
                    squares[i + lane] = fmaf(x[i + lane], x[i + lane], squares[i + lane]);                           \
                }                                                                                                    \
            }                                                                                                        \
            for (; i < count; i++) {                                                                                 \
                sums[i] += x[i];                                                                                     \
                squares[i] = mul_add(fused, x[i], x[i], squares[i]);                                                 \
            }                                                                                                        \
        }                                                                                                            \
    }
ADD_PLACES(ref, 4, )
#if PORT_HAVE_AVX2
ADD_PLACES(rest_avx2, 8, PORT_TARGET_AVX2)

/* The same, fused, of 32 channels, whose sums stay in registers. */
PORT_TARGET_AVX2 static void
add_places_of_32(const float *x, int64_t positions, int64_t all, float *sums, float *squares)
{
    __m256 sum[4], square[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        sum[k] = _mm256_loadu_ps(sums + 8 * k);
        square[k] = _mm256_loadu_ps(squares + 8 * k);
    }
    for (int64_t m = 0; m < positions; m++, x += all) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            __m256 value = _mm256_loadu_ps(x + 8 * k);
            sum[k] = _mm256_add_ps(sum[k], value);
            square[k] = _mm256_fmadd_ps(value, value, square[k]);
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        _mm256_storeu_ps(sums + 8 * k, sum[k]);
        _mm256_storeu_ps(squares + 8 * k, square[k]);
    }
}

/* The same of any channels, as many positions at a time as the first cache keeps of a few lines each. */
static void
add_places_avx2(bool fused, const float *x, int64_t positions, int64_t all, int64_t count, float *sums, float *squares)
{
    enum { AT_ONCE = 64 };
    for (int64_t m = 0; m < positions; m += AT_ONCE, x += AT_ONCE * all) {
        int64_t c = 0, some = positions - m < AT_ONCE ? positions - m : AT_ONCE;
        for (; fused && c + 32 <= count; c += 32) {
            add_places_of_32(x + c, some, all, sums + c, squares + c);
        }
        if (c < count) {
            add_places_rest_avx2(fused, x + c, some, all, count - c, sums + c, squares + c);
        }
    }
}
#endif

enum { SUM_CHANNELS = 64, SUM_PARTS = 16 }; /* at a time */

/* Sums of all groups of item n, with one sum for each channel and each thread, which has a range of the positions of all items. Channel by channel
 * the threads' sums are added in order; those of threads that have nothing of the item are 0. */
static void
sums_by_channels(const port_kernel_call *call, const float *x, int64_t n, int64_t positions, int64_t channels, float *sum, float *squares)
{
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    int64_t all = call->in[0]->shape[1];
    port_chunks chunks = port_chunks_of(call->in[0]->shape[0] * positions, 1, call->profile->num_threads);
    int64_t first = n * positions / chunks.size, parts = ((n + 1) * positions - 1) / chunks.size - first + 1;
    int64_t step = parts <= SUM_PARTS ? SUM_CHANNELS : 1; /* of many threads one after the other */
    for (int64_t c = 0; c < all; c += step) {
        int64_t count = all - c < step ? all - c : step, at_once = step > 1 ? parts : 1;
        for (int64_t p = 0; p < parts; p += at_once) {
            float sums[SUM_PARTS][SUM_CHANNELS] = {{0.0f}}, square_sums[SUM_PARTS][SUM_CHANNELS] = {{0.0f}};
            for (int64_t k = 0; k < at_once; k++) {
                int64_t begin = (first + p + k) * chunks.size - n * positions, end = begin + chunks.size;
                begin = begin > 0 ? begin : 0, end = end < positions ? end : positions;
                PICK(add_places)(fused, x + begin * all + c, end - begin, all, count, sums[k], square_sums[k]);
            }
            for (int64_t i = 0; i < count; i++) {
                for (int64_t k = 0; k < at_once; k++) {
                    sum[(c + i) / channels] += sums[k][i];
                    squares[(c + i) / channels] += square_sums[k][i];
                }
            }
        }
    }
}

/* Means and rstds of the groups of item n, which is stored channels-last, and with which the room is filled first if it has gaps. */
static void
nhwc_moments(const port_kernel_call *call, float *room, int64_t n, float *means, float *rstds)
{
    const port_view *x = call->in[0];
    const port_group_params *p = call->params;
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    int64_t all = x->shape[1], channels = all / p->groups, positions = port_view_elems(x) / x->shape[0] / all;
    if (channels_together(call)) {
        room = (float *)x->data + n * x->strides[0];
    } else {
        port_view item = *x;
        item.data = (char *)x->data + n * x->strides[0] * (int64_t)sizeof(float);
        item.shape[0] = 1;
        for (int32_t d = 1; d < x->ndim; d++) {
            item.shape[d] = x->shape[d + 1 < x->ndim ? d + 1 : 1];
            item.strides[d] = x->strides[d + 1 < x->ndim ? d + 1 : 1];
        }
        port_view_gather(&item, room);
    }
    for (int64_t g = 0; g < p->groups; g++) {
        means[g] = rstds[g] = 0.0f;
        if (positions < SPREAD) {
            float sums[LANES], squares[LANES];
            PICK(sums_in_lanes)(room + g * channels, positions, all, channels, sums, squares);
            means[g] = port_add_lanes(sums, LANES, fused);
            rstds[g] = port_add_lanes(squares, LANES, fused);
        }
    }
    if (positions >= SPREAD) {
        sums_by_channels(call, room, n, positions, channels, means, rstds);
    }
    float scale = 1.0f / (float)(channels * positions);
    for (int64_t g = 0; g < p->groups; g++) {
        float mean = means[g] * scale, var = mul_add(fused, rstds[g], scale, -(mean * mean));
        means[g] = mean;
        rstds[g] = (float)(1.0 / sqrt((double)(var < 0.0f ? 0.0f : var) + p->eps));
    }
}

/* What channel c is multiplied by, and what is added then. */
static void
group_factors(const port_kernel_call *call, int64_t c, double mean, double rstd, double *a, double *b)
{
    const port_group_params *p = call->params;
    bool fused = call->profile->capability != PORT_CAP_DEFAULT;
    double weight = element(call->in[1], c, 1.0), bias = element(call->in[2], c, 0.0);
    *a = rstd * weight;
    *b = fused ? fma(-*a, mean, bias) : bias - mean * *a;
    if (call->in[0]->dtype == PORT_F32) {
        bool hoisted = p->channels_last && call->in[1] == NULL; /* the group's mean * rstd is rounded by itself */
        *a = (double)((float)rstd * (float)weight);
        *b = (double)mul_add(fused && !hoisted, -(float)*a, (float)mean, (float)bias);
    }
}

/* y of group g of item n, from its moments. */
static void
scale_group(const port_kernel_call *call, int64_t n, int64_t g, double mean, double rstd)
{
    const port_group_params *p = call->params;
    int64_t channels = call->in[0]->shape[1] / p->groups;
    bool plain = call->in[1] == NULL && call->in[2] == NULL && !p->channels_last;
    for (int64_t c = g * channels; c < (g + 1) * channels; c++) {
        double a, b;
        group_factors(call, c, mean, rstd, &a, &b);
        scale_channel(call, n, c, plain ? mean : 0.0, plain ? rstd : a, plain ? -0.0 : b); /* -0: no zero changes its sign */
    }
}

/* One item that is stored channels-last: its moments, and all its channels at once where they lie side by side. */
static void
nhwc_item(const port_kernel_call *call, void *room, int64_t n)
{
    const port_view *x = call->in[0];
    const port_group_params *p = call->params;
    float *means = (float *)call->out[1]->data + n * p->groups, *rstds = (float *)call->out[2]->data + n * p->groups;
    nhwc_moments(call, room, n, means, rstds);
    if (!channels_together(call)) {
        for (int64_t g = 0; g < p->groups; g++) {
            scale_group(call, n, g, (double)means[g], (double)rstds[g]);
        }
        return;
    }
    int64_t all = x->shape[1], channels = all / p->groups, places = port_view_elems(x) / x->shape[0] / all;
    float scales[CHANNELS], shifts[CHANNELS];
    for (int64_t c = 0; c < all; c += CHANNELS) {
        int64_t count = all - c < CHANNELS ? all - c : CHANNELS;
        for (int64_t i = 0; i < count; i++) {
            double a, b;
            int64_t g = (c + i) / channels;
            group_factors(call, c + i, (double)means[g], (double)rstds[g], &a, &b);
            scales[i] = (float)a, shifts[i] = (float)b;
        }
        scale_places(call, n, c, count, 0, places, scales, shifts);
    }
}

static void
group_part(void *opaque, int64_t part)
{
    const group_job *job = opaque;
    const port_kernel_call *call = job->call;
    const port_view *mean_out = call->out[1], *rstd_out = call->out[2];
    const port_group_params *p = call->params;
    void *room = (char *)call->scratch + (size_t)part * job->room_bytes;
    int64_t last = (part + 1) * job->chunks.size < job->units ? (part + 1) * job->chunks.size : job->units;
    for (int64_t i = part * job->chunks.size; i < last; i++) {
        if (job->by_items) {
            nhwc_item(call, room, i);
            continue;
        }
        double mean, rstd;
        group_moments(call, room, i / p->groups, i % p->groups, &mean, &rstd);
        scale_group(call, i / p->groups, i % p->groups, mean, rstd);
        port_store_f64(mean_out->dtype, &mean, 1, (char *)mean_out->data + i * (int64_t)port_dtype_size(mean_out->dtype), 0);
        port_store_f64(rstd_out->dtype, &rstd, 1, (char *)rstd_out->data + i * (int64_t)port_dtype_size(rstd_out->dtype), 0);
    }
}

static void
group_run(const port_kernel_call *call)
{
    group_job job = group_job_of(call);
    if (port_view_elems(call->in[0]) == 0) {
        port_norm_of_nothing(call->out[1], call->out[2]);
        return;
    }
    port_parallel(job.chunks.count, call->profile->num_threads, group_part, &job);
}

const port_kernel_row port_channel_norm_rows[] = {
    {"batch_norm", PORT_F32, "ref", 0, batch_check, NULL, batch_run},
    {"batch_norm", PORT_F64, "ref", 0, batch_check, NULL, batch_run},
    {"group_norm", PORT_F32, "ref", 0, group_check, group_scratch_bytes, group_run},
    {"group_norm", PORT_F64, "ref", 0, group_check, group_scratch_bytes, group_run},
    {.op = NULL},
};
