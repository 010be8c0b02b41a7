/* resize.c -- interpolation: nearest, linear and cubic.
 * x, y (N, C, ...) with 1 to 3 dimensions of space, any strides; F32 and F64.
 *     resize   per dimension up to 4 places and their weights; dimensions from the innermost outwards, or all corners as one sum
 * Places and weights of each dimension are worked out once. Of planes, output rows are made from rows of x that have been interpolated
 * along their columns, which neighbours share; where channels lie side by side, pixel by pixel from whole vectors of channels.
 * Source: at::native UpSampleKernel (BSD-3-Clause; restated). With avx2 and up their compiler fuses a * b + c. */
#include "frames.h"

#include <math.h>

/* ---------------------------------------------------------------- places and weights */

enum { MAX_TAPS = 4 };

typedef struct taps {
    int32_t num;
    int64_t at[MAX_TAPS];
    double weight[MAX_TAPS]; /* f32 numbers but for F64 */
} taps;

PORT_INLINE float
mul_add(bool fused, float a, float b, float c)
{
    return fused ? fmaf(a, b, c) : a * b + c;
}

/* Keys' cubic with a = -0.75: inside of one step, and in the second. The compiler fuses all but the last step. */
static float
cubic_near(bool fused, float x)
{
    return mul_add(fused, 1.25f, x, -2.25f) * x * x + 1.0f;
}

static float
cubic_far(bool fused, float x)
{
    return mul_add(fused, mul_add(fused, -0.75f, x, 3.75f), x, -6.0f) * x + 3.0f;
}

static void
cubic_weights_f64(bool fused, double rest, double weight[MAX_TAPS])
{
    double near[2] = {rest, 1.0 - rest};
    for (int32_t k = 0; k < 2; k++) {
        double far = near[k] + 1.0;
        double inner = fused ? fma(1.25, near[k], -2.25) : 1.25 * near[k] - 2.25, outer = -0.75 * far + 3.75;
        outer = fused ? fma(fma(-0.75, far, 3.75), far, -6.0) : outer * far - 6.0;
        weight[1 + k] = inner * near[k] * near[k] + 1.0;
        weight[3 * k] = outer * far + 3.0;
    }
}

/* Places ascend with `place`, as port_pick wants them, also where it is no number or more than an integer holds. */
static int64_t
clamp_index(double place, int64_t size)
{
    return !(place > 0.0) ? 0 : (place >= (double)(size - 1) ? size - 1 : (int64_t)place);
}

static double
part_of_step(double rest)
{
    return rest < 0.0 ? 0.0 : (rest > 1.0 ? 1.0 : rest);
}

/* Where output i of a dimension takes its values from. The coordinates are f32 but for F64, and whole places f32 for F64 too, so that
 * what lies just below a place counts as on it; halves hold the weights rounded. */
static taps
taps_of(const port_kernel_call *call, int64_t i, int64_t in, int64_t out, double factor)
{
    const port_resize_params *p = call->params;
    port_dtype held = p->corners ? call->in[0]->dtype : p->given; /* weights of corners stay as they are */
    bool narrow = call->in[0]->dtype != PORT_F64, fused = call->profile->capability != PORT_CAP_DEFAULT;
    taps t = {.num = 1, .weight = {1.0}};
    if (p->mode == PORT_RESIZE_NEAREST || p->mode == PORT_RESIZE_NEAREST_EXACT) {
        float scale = factor > 0.0 ? (float)(1.0 / factor) : (float)in / (float)out;
        float half = p->mode == PORT_RESIZE_NEAREST ? 0.0f : 0.5f;
        t.at[0] = clamp_index((double)floorf(((float)i + half) * scale), in);
        return t;
    }
    double scale = factor > 0.0 ? 1.0 / factor : (double)in / (double)out;
    if (p->align_corners) {
        scale = out > 1 ? (double)(in - 1) / (double)(out - 1) : 0.0;
        scale = narrow && out > 1 ? (double)((float)(in - 1) / (float)(out - 1)) : scale;
    } else if (narrow) {
        scale = factor > 0.0 ? (double)(float)(1.0 / factor) : (double)((float)in / (float)out);
    }
    double source = p->align_corners ? scale * (double)i : (fused ? fma(scale, (double)i + 0.5, -0.5) : scale * ((double)i + 0.5) - 0.5);
    if (narrow) {
        float shifted = (float)i + 0.5f;
        source = (double)(p->align_corners ? (float)scale * (float)i : mul_add(fused, (float)scale, shifted, -0.5f));
    }
    if (p->mode == PORT_RESIZE_LINEAR) {
        source = source < 0.0 ? 0.0 : source;
        t.num = 2;
        t.at[0] = clamp_index((double)floorf((float)source), in);
        t.at[1] = t.at[0] + (t.at[0] < in - 1);
        t.weight[1] = part_of_step(source - (double)t.at[0]);
        if (narrow) {
            t.weight[1] = (double)port_rounded(held, (float)t.weight[1]);
            t.weight[0] = (double)port_rounded(held, 1.0f - (float)t.weight[1]);
        } else {
            t.weight[0] = 1.0 - t.weight[1];
        }
        if (in == out) { /* the reference copies */
            t.at[0] = t.at[1] = i;
            t.weight[0] = 1.0;
            t.weight[1] = 0.0;
        }
        return t;
    }
    double floor_of = fmin((double)floorf((float)source), (double)(in - 1)), rest = part_of_step(source - floor_of);
    float x = (float)rest, y = 1.0f - x;
    t.num = 4;
    for (int32_t k = 0; k < 4; k++) {
        t.at[k] = clamp_index(floor_of + (double)(k - 1), in);
    }
    if (!narrow) {
        cubic_weights_f64(fused, rest, t.weight);
        return t;
    }
    t.weight[0] = (double)port_rounded(held, cubic_far(fused, x + 1.0f));
    t.weight[1] = (double)port_rounded(held, cubic_near(fused, x));
    t.weight[2] = (double)port_rounded(held, cubic_near(fused, y));
    t.weight[3] = (double)port_rounded(held, cubic_far(fused, y + 1.0f));
    return t;
}


/* Of the first two products the second is rounded by itself; the others are added to it. */
static const int32_t tap_order[MAX_TAPS] = {1, 0, 2, 3};

/* One dimension: `num` places of x for each of y, and their weights in y's dtype, by taps in the order in which they are added. */
typedef struct axis {
    int32_t num;
    int64_t length;
    int32_t *at; /* of tap k and place i: [k * length + i] */
    char *weight;
} axis;

typedef void (*weigh_fn)(bool fused, int32_t num, int64_t n, const void *const v[4], const void *const w[4], void *y);

/* How to work, and what with. */
typedef struct resizing {
    const port_view *x, *y;
    port_frames f;
    axis a[3];
    bool narrow, fused, corners;
    size_t size;    /* of an element */
    int64_t vector; /* channels in 256 bits of the input before halves were widened */
    port_pick pick;
    weigh_fn weigh_each, weigh_all; /* by weights of each element; by one for all */
    void (*weigh_corners)(bool fused, int64_t n, const void *const v[4], const void *const rows[4], const void *const columns[4], void *y);
    void (*corner_pixels)(const struct resizing *r, const void *const rows[2], int64_t place, void *y);
    void (*volume_pixel)(const struct resizing *r, int64_t from, const int64_t place[3], void *y);
} resizing;

static size_t
weight_bytes(const port_kernel_call *call)
{
    return call->in[0]->dtype == PORT_F32 ? sizeof(float) : sizeof(double);
}

static size_t
resize_scratch_bytes(const port_kernel_call *call)
{
    port_frames f = port_frames_of(call->in[0], call->out[0]);
    return (size_t)(f.out[0] + f.out[1] + f.out[2]) * MAX_TAPS * (sizeof(int32_t) + weight_bytes(call));
}

/* Fills the scratch: all weights, then all places. */
static void
make_axes(const port_kernel_call *call, resizing *r)
{
    const port_resize_params *p = call->params;
    int64_t total = r->f.out[0] + r->f.out[1] + r->f.out[2];
    char *weight = call->scratch;
    int32_t *at = (int32_t *)(void *)(weight + (size_t)total * MAX_TAPS * r->size);
    for (int32_t d = 0; d < 3; d++) {
        int32_t own = d - (3 - r->f.spatial);
        axis *a = &r->a[d];
        *a = (axis){1, r->f.out[d], at, weight};
        for (int64_t i = 0; i < a->length; i++) {
            taps t = own < 0 ? (taps){.num = 1, .weight = {1.0}} : taps_of(call, i, r->f.in[d], r->f.out[d], p->factor[own]);
            a->num = t.num;
            for (int32_t k = 0; k < t.num; k++) {
                int32_t tap = t.num > 1 ? tap_order[k] : 0;
                a->at[k * a->length + i] = (int32_t)t.at[tap];
                if (r->narrow) {
                    ((float *)(void *)weight)[k * a->length + i] = (float)t.weight[tap];
                } else {
                    ((double *)(void *)weight)[k * a->length + i] = t.weight[tap];
                }
            }
        }
        at += MAX_TAPS * a->length;
        weight += (size_t)(MAX_TAPS * a->length) * r->size;
    }
}

PORT_INLINE int64_t
place_of(const axis *a, int32_t k, int64_t i)
{
    return a->at[k * a->length + i];
}

PORT_INLINE const void *
weight_of(const resizing *r, const axis *a, int32_t k, int64_t i)
{
    return a->weight + (size_t)(k * a->length + i) * r->size;
}

/* ---------------------------------------------------------------- sums of weighted rows, one build per level */

/* y[i] = the sum of v[k][i] * w[k][i, or 0 unless `each`] over k < num, in this order. v: may be y. */
#define WEIGH_BODY(real, fma, suffix, lanes, attributes)                                                                   \
    attributes PORT_INLINE real weighed_##suffix(bool fused, int num, const real *const v[4], const real *const w[4], int64_t i, int64_t j) \
    {                                                                                                                      \
        real sum = v[0][i] * w[0][j];                                                                                      \
        sum = fused ? fma(v[1][i], w[1][j], sum) : v[1][i] * w[1][j] + sum;                                                \
        if (num > 2) {                                                                                                     \
            sum = fused ? fma(v[2][i], w[2][j], sum) : v[2][i] * w[2][j] + sum;                                            \
            sum = fused ? fma(v[3][i], w[3][j], sum) : v[3][i] * w[3][j] + sum;                                            \
        }                                                                                                                  \
        return sum;                                                                                                        \
    }                                                                                                                      \
    attributes PORT_INLINE void weigh_any_##suffix(bool fused, int num, bool each, int64_t n, const void *const values[4],   \
                                                   const void *const weights[4], real *y)                                  \
    {                                                                                                                      \
        const real *const v[4] = {values[0], values[1], num > 2 ? values[2] : NULL, num > 2 ? values[3] : NULL};           \
        const real *const w[4] = {weights[0], weights[1], num > 2 ? weights[2] : NULL, num > 2 ? weights[3] : NULL};       \
        int64_t i = 0;                                                                                                     \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                           \
            PORT_INDEPENDENT                                                                                               \
            for (int lane = 0; lane < (lanes); lane++) {                                                                   \
                y[i + lane] = weighed_##suffix(fused, num, v, w, i + lane, each ? i + lane : 0);                           \
            }                                                                                                              \
        }                                                                                                                  \
        for (; i < n; i++) {                                                                                               \
            y[i] = weighed_##suffix(fused, num, v, w, i, each ? i : 0);                                                    \
        }                                                                                                                  \
    }                                                                                                                      \
    attributes PORT_INLINE void weigh_by_##suffix(bool fused, int num, bool each, int64_t n, const void *const v[4],         \
                                                  const void *const w[4], void *y)                                         \
    {                                                                                                                      \
        if (num == 2) {                                                                                                    \
            if (fused) {                                                                                                   \
                weigh_any_##suffix(true, 2, each, n, v, w, y);                                                             \
            } else {                                                                                                       \
                weigh_any_##suffix(false, 2, each, n, v, w, y);                                                            \
            }                                                                                                              \
        } else if (fused) {                                                                                                \
            weigh_any_##suffix(true, 4, each, n, v, w, y);                                                                 \
        } else {                                                                                                           \
            weigh_any_##suffix(false, 4, each, n, v, w, y);                                                                \
        }                                                                                                                  \
    }                                                                                                                      \
    attributes static void weigh_each_##suffix(bool fused, int32_t num, int64_t n, const void *const v[4], const void *const w[4], void *y) \
    {                                                                                                                      \
        weigh_by_##suffix(fused, num, true, n, v, w, y);                                                                   \
    }                                                                                                                      \
    attributes static void weigh_all_##suffix(bool fused, int32_t num, int64_t n, const void *const v[4], const void *const w[4], void *y) \
    {                                                                                                                      \
        weigh_by_##suffix(fused, num, false, n, v, w, y);                                                                  \
    }

/* Of two dimensions, by rows and columns as axes have them: in whole vectors of 256 bits of channels (under AVX-512 too), and in the
 * rest of the channels. Which product of the first two is rounded is their compiler's choice. */
static const int32_t corner_order[2][4] = {{1, 0, 2, 3}, {2, 3, 1, 0}};

/* The four corners as one sum: of a row, by a weight for the row times one for the column; of a row of pixels with channels side by side. */
#define CORNERS_BODY(real, fma, suffix, lanes, attributes)                                                                 \
    attributes PORT_INLINE void corners_any_##suffix(bool fused, int64_t n, const real *const v[4], const real row[4],       \
                                                     const real *const w[4], real *y)                                      \
    {                                                                                                                      \
        int64_t i = 0;                                                                                                     \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                           \
            PORT_INDEPENDENT                                                                                               \
            for (int lane = 0; lane < (lanes); lane++) {                                                                   \
                int64_t at = i + lane;                                                                                     \
                real sum = v[0][at] * (row[0] * w[0][at]), a = row[1] * w[1][at], b = row[2] * w[2][at], c = row[3] * w[3][at]; \
                sum = fused ? fma(v[1][at], a, sum) : v[1][at] * a + sum;                                                  \
                sum = fused ? fma(v[2][at], b, sum) : v[2][at] * b + sum;                                                  \
                y[at] = fused ? fma(v[3][at], c, sum) : v[3][at] * c + sum;                                                \
            }                                                                                                              \
        }                                                                                                                  \
        for (; i < n; i++) {                                                                                               \
            real sum = v[0][i] * (row[0] * w[0][i]);                                                                       \
            for (int k = 1; k < 4; k++) {                                                                                  \
                sum = fused ? fma(v[k][i], row[k] * w[k][i], sum) : v[k][i] * (row[k] * w[k][i]) + sum;                    \
            }                                                                                                              \
            y[i] = sum;                                                                                                    \
        }                                                                                                                  \
    }                                                                                                                      \
    attributes static void weigh_corners_##suffix(bool fused, int64_t n, const void *const values[4], const void *const rows[4], \
                                                  const void *const columns[4], void *y)                                   \
    {                                                                                                                      \
        const real *const v[4] = {values[0], values[1], values[2], values[3]};                                             \
        const real *const w[4] = {columns[0], columns[1], columns[2], columns[3]};                                         \
        const real row[4] = {*(const real *)rows[0], *(const real *)rows[1], *(const real *)rows[2], *(const real *)rows[3]}; \
        if (fused) {                                                                                                       \
            corners_any_##suffix(true, n, v, row, w, y);                                                                   \
        } else {                                                                                                           \
            corners_any_##suffix(false, n, v, row, w, y);                                                                  \
        }                                                                                                                  \
    }                                                                                                                      \
    attributes PORT_INLINE void pixels_of_##suffix(const resizing *r, bool fused, bool rest, int64_t first, int64_t count, \
                                                   const void *const rows[2], int64_t place, real *y)                  \
    {                                                                                                                  \
        const real *v[4], *columns[4], *from[4];                                                                       \
        const int32_t *at[4];                                                                                          \
        real row[4];                                                                                                   \
        for (int k = 0; k < 4; k++) {                                                                                  \
            int32_t down = corner_order[rest][k] / 2, across = corner_order[rest][k] % 2;                              \
            from[k] = (const real *)rows[down] + first;                                                                \
            row[k] = *(const real *)weight_of(r, &r->a[1], down, place);                                               \
            at[k] = r->a[2].at + across * r->a[2].length;                                                              \
            columns[k] = weight_of(r, &r->a[2], across, 0);                                                            \
        }                                                                                                              \
        for (int64_t i = 0; i < r->f.out[2]; i++) {                                                                    \
            const real w[4] = {row[0] * columns[0][i], row[1] * columns[1][i], row[2] * columns[2][i], row[3] * columns[3][i]}; \
            for (int k = 0; k < 4; k++) {                                                                              \
                v[k] = from[k] + at[k][i] * r->f.in_step[2];                                                           \
            }                                                                                                          \
            weigh_any_##suffix(fused, 4, false, count, (const void *const[4]){v[0], v[1], v[2], v[3]},                 \
                               (const void *const[4]){&w[0], &w[1], &w[2], &w[3]}, y + i * r->f.out_step[2] + first);  \
        }                                                                                                              \
    }                                                                                                                  \
    attributes static void corner_pixels_##suffix(const resizing *r, const void *const rows[2], int64_t place, void *y) \
    {                                                                                                                  \
        int64_t rest = r->f.C % r->vector, whole = r->f.C - rest;                                                      \
        if (r->fused) {                                                                                                \
            pixels_of_##suffix(r, true, false, 0, whole, rows, place, y);                                              \
        } else {                                                                                                       \
            pixels_of_##suffix(r, false, false, 0, whole, rows, place, y);                                             \
        }                                                                                                              \
        if (rest > 0) {                                                                                                \
            pixels_of_##suffix(r, r->fused, true, whole, rest, rows, place, y);                                        \
        }                                                                                                              \
    }

/* Of three dimensions, by planes, rows and columns as axes have them: in whole vectors of channels, and in the rest of them. */
static const int32_t volume_order[2][8] = {{1, 0, 2, 3, 4, 5, 6, 7}, {6, 7, 5, 4, 3, 2, 1, 0}};

/* The eight corners as one sum: of one pixel, whose channels lie side by side in x, `step` apart in y. */
#define VOLUMES_BODY(real, fma, suffix, lanes, attributes)                                                             \
    attributes PORT_INLINE real eight_##suffix(bool fused, const real *const v[8], const real w[8], int64_t i)         \
    {                                                                                                                  \
        real sum = v[0][i] * w[0];                                                                                     \
        sum = fused ? fma(v[1][i], w[1], sum) : v[1][i] * w[1] + sum;                                                  \
        sum = fused ? fma(v[2][i], w[2], sum) : v[2][i] * w[2] + sum;                                                  \
        sum = fused ? fma(v[3][i], w[3], sum) : v[3][i] * w[3] + sum;                                                  \
        sum = fused ? fma(v[4][i], w[4], sum) : v[4][i] * w[4] + sum;                                                  \
        sum = fused ? fma(v[5][i], w[5], sum) : v[5][i] * w[5] + sum;                                                  \
        sum = fused ? fma(v[6][i], w[6], sum) : v[6][i] * w[6] + sum;                                                  \
        return fused ? fma(v[7][i], w[7], sum) : v[7][i] * w[7] + sum;                                                 \
    }                                                                                                                  \
    attributes PORT_INLINE void weigh_eight_##suffix(bool fused, int64_t n, const real *const v[8], const real w[8], int64_t step, real *y) \
    {                                                                                                                  \
        int64_t i = 0;                                                                                                 \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                       \
            PORT_INDEPENDENT                                                                                           \
            for (int lane = 0; lane < (lanes); lane++) {                                                               \
                y[(i + lane) * step] = eight_##suffix(fused, v, w, i + lane);                                          \
            }                                                                                                          \
        }                                                                                                              \
        for (; i < n; i++) {                                                                                           \
            y[i * step] = eight_##suffix(fused, v, w, i);                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    attributes static void volume_pixel_##suffix(const resizing *r, int64_t from, const int64_t place[3], void *y)     \
    {                                                                                                                  \
        int64_t whole = r->f.C - r->f.C % r->vector, step = r->y->strides[1];                                          \
        for (int rest = 0; rest < 2; rest++) {                                                                         \
            const real *v[8];                                                                                          \
            real w[8];                                                                                                 \
            int64_t first = rest ? whole : 0, count = rest ? r->f.C - whole : whole;                                   \
            for (int k = 0; k < 8; k++) {                                                                              \
                int64_t at = from + first;                                                                             \
                w[k] = 1;                                                                                              \
                for (int d = 0; d < 3; d++) {                                                                          \
                    int32_t side = volume_order[rest][k] >> (2 - d) & 1;                                               \
                    at += place_of(&r->a[d], side, place[d]) * r->f.in_step[d];                                        \
                    w[k] *= *(const real *)weight_of(r, &r->a[d], side, place[d]);                                     \
                }                                                                                                      \
                v[k] = (const real *)r->x->data + at;                                                                  \
            }                                                                                                          \
            if (r->fused && step == 1) {                                                                               \
                weigh_eight_##suffix(true, count, v, w, 1, (real *)y + first);                                         \
            } else {                                                                                                   \
                weigh_eight_##suffix(r->fused, count, v, w, step, (real *)y + first * step);                           \
            }                                                                                                          \
        }                                                                                                              \
    }

#define LEVEL(real, fma, suffix, lanes, attributes)    \
    WEIGH_BODY(real, fma, suffix, lanes, attributes)   \
    CORNERS_BODY(real, fma, suffix, lanes, attributes) \
    VOLUMES_BODY(real, fma, suffix, lanes, attributes)
LEVEL(float, fmaf, f32_ref, 4, )
LEVEL(double, fma, f64_ref, 2, )
#if PORT_HAVE_AVX2
LEVEL(float, fmaf, f32_avx2, 8, PORT_TARGET_AVX2)
LEVEL(double, fma, f64_avx2, 4, PORT_TARGET_AVX2)
LEVEL(float, fmaf, f32_avx512, 16, PORT_TARGET_AVX512)
LEVEL(double, fma, f64_avx512, 8, PORT_TARGET_AVX512)
#endif

static void
pick_level(resizing *r)
{
    int32_t level = port_cpu_level_found();
    r->pick = port_pick_for(r->narrow);
    r->weigh_each = r->narrow ? PORT_PICK_MAP(weigh_each_f32, level) : PORT_PICK_MAP(weigh_each_f64, level);
    r->weigh_all = r->narrow ? PORT_PICK_MAP(weigh_all_f32, level) : PORT_PICK_MAP(weigh_all_f64, level);
    r->weigh_corners = r->narrow ? PORT_PICK_MAP(weigh_corners_f32, level) : PORT_PICK_MAP(weigh_corners_f64, level);
    r->corner_pixels = r->narrow ? PORT_PICK_MAP(corner_pixels_f32, level) : PORT_PICK_MAP(corner_pixels_f64, level);
    r->volume_pixel = r->narrow ? PORT_PICK_MAP(volume_pixel_f32, level) : PORT_PICK_MAP(volume_pixel_f64, level);
}

/* ---------------------------------------------------------------- planes, row by row */

enum { COLUMNS = 256, MAX_LINES = MAX_TAPS * MAX_TAPS };

typedef __attribute__((aligned(64))) char line[COLUMNS * sizeof(double)];

/* Rows of x as output rows need them, for up to COLUMNS columns from `begin` on. The taps of a dimension stand side by side, so that
 * those of one row of y have slots of their own by the last bits of their places. */
typedef struct lines {
    const resizing *r;
    int64_t begin, n;
    int64_t made_of[MAX_LINES]; /* offset in x; -1: nothing */
    line slots[MAX_LINES];
} lines;

/* The row of x at an offset, interpolated along its columns. */
static void
make_line(const lines *l, int64_t offset, void *y)
{
    const resizing *r = l->r;
    const axis *a = &r->a[2];
    const char *row = (const char *)r->x->data + (size_t)offset * r->size;
    line picked[MAX_TAPS];
    const void *v[MAX_TAPS], *w[MAX_TAPS];
    if (a->num == 1) {
        r->pick(l->n, row, r->f.in_step[2], a->at + l->begin, y);
        return;
    }
    for (int32_t k = 0; k < a->num; k++) {
        r->pick(l->n, row, r->f.in_step[2], a->at + k * a->length + l->begin, picked[k]);
        v[k] = picked[k];
        w[k] = weight_of(r, a, k, l->begin);
    }
    r->weigh_each(r->fused, a->num, l->n, v, w, y);
}

static const void *
line_of(lines *l, const port_frame_row *row, int64_t plane, int64_t place)
{
    const resizing *r = l->r;
    int64_t offset = row->from + plane * r->f.in_step[0] + place * r->f.in_step[1];
    int64_t slot = plane % MAX_TAPS * MAX_TAPS + place % MAX_TAPS;
    if (l->made_of[slot] != offset) {
        make_line(l, offset, l->slots[slot]);
        l->made_of[slot] = offset;
    }
    return l->slots[slot];
}

/* One row of y, one dimension after the other. */
static void
row_by_dimensions(lines *l, const port_frame_row *row, void *y)
{
    const resizing *r = l->r;
    const axis *outer = &r->a[0], *inner = &r->a[1];
    line planes[MAX_TAPS];
    const void *v[2][MAX_TAPS], *w[2][MAX_TAPS];
    for (int32_t k = 0; k < outer->num; k++) {
        int64_t plane = place_of(outer, k, row->place[0]);
        for (int32_t j = 0; j < inner->num; j++) {
            v[1][j] = line_of(l, row, plane, place_of(inner, j, row->place[1]));
            w[1][j] = weight_of(r, inner, j, row->place[1]);
        }
        v[0][k] = v[1][0];
        w[0][k] = weight_of(r, outer, k, row->place[0]);
        if (inner->num > 1) {
            v[0][k] = outer->num > 1 ? planes[k] : y;
            r->weigh_all(r->fused, inner->num, l->n, v[1], w[1], outer->num > 1 ? planes[k] : y);
        }
    }
    if (outer->num > 1) {
        r->weigh_all(r->fused, outer->num, l->n, v[0], w[0], y);
    } else if (inner->num == 1) {
        memcpy(y, v[0][0], (size_t)l->n * r->size);
    }
}

/* One row of y from its corners: of both rows of x what stands left and right. */
static void
row_by_corners(lines *l, const port_frame_row *row, void *y)
{
    const resizing *r = l->r;
    const axis *down = &r->a[1], *across = &r->a[2];
    const void *v[4], *rows[4], *columns[4];
    bool rest = row->channel >= r->f.C - r->f.C % r->vector;
    for (int32_t k = 0; k < 4; k++) {
        int32_t corner = corner_order[rest][k], j = corner / 2, side = corner % 2;
        int64_t place = place_of(down, j, row->place[1]), slot = place % 2 * 2 + side, offset = row->from + place * r->f.in_step[1];
        if (l->made_of[slot] != offset) {
            r->pick(l->n, (const char *)r->x->data + (size_t)offset * r->size, r->f.in_step[2], across->at + side * across->length + l->begin,
                    l->slots[slot]);
            l->made_of[slot] = offset;
        }
        v[k] = l->slots[slot];
        rows[k] = weight_of(r, down, j, row->place[1]);
        columns[k] = weight_of(r, across, side, l->begin);
    }
    r->weigh_corners(r->fused, l->n, v, rows, columns, y);
}

static void
resize_planes(const void *opaque, int64_t begin, int64_t end)
{
    const resizing *r = opaque;
    lines l;
    line apart; /* where the columns of y do not stand side by side */
    l.r = r; /* the slots stay as they are */
    bool direct = r->f.out_step[2] == 1, single = r->a[0].num == 1 && r->a[1].num == 1;
    for (l.begin = 0; l.begin < r->f.out[2]; l.begin += COLUMNS) {
        int64_t copied_from = -1;
        const char *last = NULL;
        l.n = r->f.out[2] - l.begin < COLUMNS ? r->f.out[2] - l.begin : COLUMNS;
        memset(l.made_of, -1, sizeof l.made_of);
        for (int64_t i = begin; i < end; i++) {
            port_frame_row row = port_frame_row_of(r->x, r->y, &r->f, i);
            char *y = (char *)r->y->data + (size_t)(row.to + l.begin * r->f.out_step[2]) * r->size, *to = direct ? y : apart;
            int64_t offset = row.from + place_of(&r->a[0], 0, row.place[0]) * r->f.in_step[0] +
                             place_of(&r->a[1], 0, row.place[1]) * r->f.in_step[1];
            if (r->corners) {
                row_by_corners(&l, &row, to);
            } else if (single && direct && offset == copied_from) {
                memcpy(to, last, (size_t)l.n * r->size);
            } else if (single) {
                make_line(&l, offset, to);
            } else {
                row_by_dimensions(&l, &row, to);
            }
            copied_from = offset;
            last = to;
            if (!direct) {
                port_spread(r->narrow, l.n, apart, y, r->f.out_step[2]);
            }
        }
    }
}

/* ---------------------------------------------------------------- channels side by side, pixel by pixel */

/* `count` channels of one pixel, from their offset in x on, one dimension after the other. */
static void
pixel_by_dimensions(const resizing *r, int64_t from, const int64_t place[3], int64_t count, void *y)
{
    line made[2][MAX_TAPS];
    const void *v[3][MAX_TAPS], *w[3][MAX_TAPS];
    for (int32_t d = 0; d < 3; d++) {
        for (int32_t k = 0; k < r->a[d].num; k++) {
            w[d][k] = weight_of(r, &r->a[d], k, place[d]);
        }
    }
    for (int32_t k = 0; k < r->a[0].num; k++) {
        for (int32_t j = 0; j < r->a[1].num; j++) {
            int64_t at = from + place_of(&r->a[0], k, place[0]) * r->f.in_step[0] + place_of(&r->a[1], j, place[1]) * r->f.in_step[1];
            for (int32_t i = 0; i < r->a[2].num; i++) {
                v[2][i] = (const char *)r->x->data + (size_t)(at + place_of(&r->a[2], i, place[2]) * r->f.in_step[2]) * r->size;
            }
            v[1][j] = v[2][0];
            if (r->a[2].num > 1) {
                r->weigh_all(r->fused, r->a[2].num, count, v[2], w[2], made[1][j]);
                v[1][j] = made[1][j];
            }
        }
        v[0][k] = v[1][0];
        if (r->a[1].num > 1) {
            r->weigh_all(r->fused, r->a[1].num, count, v[1], w[1], made[0][k]);
            v[0][k] = made[0][k];
        }
    }
    if (r->a[0].num > 1) {
        r->weigh_all(r->fused, r->a[0].num, count, v[0], w[0], y);
    } else {
        memcpy(y, v[0][0], (size_t)count * r->size);
    }
}

static void
resize_pixels(const void *opaque, int64_t begin, int64_t end)
{
    const resizing *r = opaque;
    const port_frames *f = &r->f;
    for (int64_t number = begin; number < end; number++) {
        int64_t plane = number / f->out[1], n = plane / f->out[0], place[3] = {plane % f->out[0], number % f->out[1], 0};
        int64_t from = n * r->x->strides[0], to = n * r->y->strides[0] + place[0] * f->out_step[0] + place[1] * f->out_step[1];
        char *y = (char *)r->y->data + (size_t)to * r->size;
        for (; r->corners && f->spatial == 3 && place[2] < f->out[2]; place[2]++) {
            r->volume_pixel(r, from, place, y + (size_t)(place[2] * f->out_step[2]) * r->size);
        }
        if (r->corners && f->spatial == 2) {
            const void *rows[2];
            for (int32_t k = 0; k < 2; k++) {
                rows[k] = (const char *)r->x->data + (size_t)(from + place_of(&r->a[1], k, place[1]) * f->in_step[1]) * r->size;
            }
            r->corner_pixels(r, rows, place[1], y);
            continue;
        }
        for (; place[2] < f->out[2]; place[2]++) {
            for (int64_t c = 0; c < f->C; c += COLUMNS) {
                int64_t count = f->C - c < COLUMNS ? f->C - c : COLUMNS;
                pixel_by_dimensions(r, from + c, place, count, y + (size_t)(place[2] * f->out_step[2] + c) * r->size);
            }
        }
    }
}

/* ---------------------------------------------------------------- the op */

enum { FEW_CHANNELS = 8 }; /* fewer than these go faster as planes */

static port_status
resize_check(const port_kernel_call *call, port_error *err)
{
    const port_resize_params *p = call->params;
    const port_view *x = call->in[0];
    if (p != NULL && p->corners && (p->mode != PORT_RESIZE_LINEAR || x->ndim < 4 || (x->ndim == 5 && x->strides[1] != 1))) {
        return port_fail(err, PORT_E_VALUE, "resize: corners are those of linear interpolation in two dimensions, or in three where channels "
                                            "lie side by side");
    }
    return port_frames_check("resize", call, err);
}

static void
resize_run(const port_kernel_call *call)
{
    const port_view *x = call->in[0], *y = call->out[0];
    resizing r = {.x = x, .y = y, .f = port_frames_of(x, y), .narrow = x->dtype == PORT_F32, .size = weight_bytes(call)};
    r.fused = call->profile->capability != PORT_CAP_DEFAULT;
    r.corners = ((const port_resize_params *)call->params)->corners;
    r.vector = 32 / (int64_t)port_dtype_size(((const port_resize_params *)call->params)->given);
    make_axes(call, &r);
    pick_level(&r);
    bool pixels = (r.f.C >= FEW_CHANNELS && port_frames_channels_last(call)) || (r.corners && r.f.spatial == 3);
    int64_t rows = r.f.N * r.f.out[0] * r.f.out[1] * (pixels ? 1 : r.f.C);
    port_deal(rows, (pixels ? r.f.C : 1) * r.f.out[2] * r.a[0].num * r.a[1].num, call->profile->num_threads,
              pixels ? resize_pixels : resize_planes, &r);
}

const port_kernel_row port_resize_rows[] = {
    {"resize", PORT_F32, "ref", 0, resize_check, resize_scratch_bytes, resize_run},
    {"resize", PORT_F64, "ref", 0, resize_check, resize_scratch_bytes, resize_run},
    {.op = NULL},
};
