/* extremes.c -- the greatest and the least of floats by whole vectors, along rows and across them. See extremes.h. */
#include "extremes.h"

/* ---------------------------------------------------------------- rows */

enum { EXTREME_LANES = 32 };

/* The better of two numbers; of which one is better if either is NaN is not said. */
PORT_INLINE float
better_of(bool largest, float v, float best)
{
    return port_select(largest ? v > best : v < best, v, best);
}

/* The extreme of n floats and of `best`. False if there is a NaN among the n: then it means nothing. */
PORT_INLINE bool
extreme_rest(bool largest, const float *x, int64_t n, float best, float *extreme)
{
    int32_t any = 0;
    for (int64_t i = 0; i < n; i++) {
        best = better_of(largest, x[i], best);
        any |= -(int32_t)(x[i] != x[i]);
    }
    *extreme = best;
    return any == 0;
}

/* The extreme of n > 0 floats. False if there is a NaN: then it means nothing. */
PORT_INLINE bool
extreme_any(bool largest, const float *x, int64_t n, float *extreme)
{
    float lanes[EXTREME_LANES];
    int32_t odd[EXTREME_LANES] = {0}, any = 0;
    int64_t i = 0;
    for (int lane = 0; lane < EXTREME_LANES; lane++) {
        lanes[lane] = x[0];
    }
    for (; i + EXTREME_LANES <= n; i += EXTREME_LANES) {
        for (int lane = 0; lane < EXTREME_LANES; lane++) {
            float v = x[i + lane];
            lanes[lane] = better_of(largest, v, lanes[lane]);
            odd[lane] |= -(int32_t)(v != v);
        }
    }
    for (int lane = 0; lane < EXTREME_LANES; lane++) {
        lanes[0] = better_of(largest, lanes[lane], lanes[0]);
        any |= odd[lane];
    }
    return extreme_rest(largest, x + i, n - i, lanes[0], extreme) && any == 0;
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 PORT_INLINE __m256
better_of_8(bool largest, __m256 v, __m256 best)
{
    return largest ? _mm256_max_ps(v, best) : _mm256_min_ps(v, best);
}

/* The same with four bests of 8 lanes each; one comparison finds the NaN of two vectors. */
PORT_TARGET_AVX2 PORT_INLINE bool
extreme_avx2(bool largest, const float *x, int64_t n, float *extreme)
{
    __m256 best[4], odd = _mm256_setzero_ps();
    int64_t i = 0;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        best[k] = _mm256_set1_ps(x[0]);
    }
    for (; i + EXTREME_LANES <= n; i += EXTREME_LANES) {
#pragma GCC unroll 2
        for (int k = 0; k < 4; k += 2) {
            __m256 u = _mm256_loadu_ps(x + i + 8 * k), v = _mm256_loadu_ps(x + i + 8 * k + 8);
            best[k] = better_of_8(largest, u, best[k]);
            best[k + 1] = better_of_8(largest, v, best[k + 1]);
            odd = _mm256_or_ps(odd, _mm256_cmp_ps(u, v, _CMP_UNORD_Q));
        }
    }
    __m256 lanes = better_of_8(largest, better_of_8(largest, best[0], best[1]), better_of_8(largest, best[2], best[3]));
    lanes = better_of_8(largest, lanes, _mm256_permute2f128_ps(lanes, lanes, 1));
    lanes = better_of_8(largest, lanes, _mm256_permute_ps(lanes, 0x4e));
    lanes = better_of_8(largest, lanes, _mm256_permute_ps(lanes, 0xb1));
    return extreme_rest(largest, x + i, n - i, _mm256_cvtss_f32(lanes), extreme) && _mm256_movemask_ps(odd) == 0;
}
#endif

/* Where the first of n floats stands that equals `value`, or the first NaN if `value` is one; n if there is none. */
PORT_INLINE int64_t
place_any(const float *x, int64_t n, float value)
{
    bool nan = value != value;
    int64_t i = 0;
    for (; i + EXTREME_LANES <= n; i += EXTREME_LANES) {
        int32_t found = 0;
        for (int lane = 0; lane < EXTREME_LANES; lane++) {
            found |= -(int32_t)(x[i + lane] == value) | (-(int32_t)(x[i + lane] != x[i + lane]) & -(int32_t)nan);
        }
        if (found != 0) {
            break;
        }
    }
    while (i < n && !(x[i] == value || (nan && x[i] != x[i]))) {
        i++;
    }
    return i;
}

/* The first best of n floats, and its place if that is asked for: one build per level, the same bits. Zeros of both signs are equal
 * and NaN have many forms: there the value itself is the one at the first place. */
#define FIRST_BEST(suffix, extreme, attributes)                                                                      \
    attributes static float first_best_##suffix(bool largest, const float *x, int64_t n, int64_t *place)             \
    {                                                                                                                \
        float best;                                                                                                  \
        bool whole = largest ? extreme(true, x, n, &best) : extreme(false, x, n, &best);                             \
        if (place == NULL && whole && best != 0.0f) {                                                                \
            return best;                                                                                             \
        }                                                                                                            \
        int64_t at = place_any(x, n, whole ? best : NAN);                                                            \
        if (place != NULL) {                                                                                         \
            *place = at;                                                                                             \
        }                                                                                                            \
        return x[at];                                                                                                \
    }
FIRST_BEST(ref, extreme_any, )
#if PORT_HAVE_AVX2
FIRST_BEST(avx2, extreme_avx2, PORT_TARGET_AVX2)
FIRST_BEST(avx512, extreme_avx2, PORT_TARGET_AVX512)
#endif

float
port_first_best(bool largest, const float *x, int64_t n, int64_t *place)
{
    return PORT_PICK_MAP(first_best, port_cpu_level_found())(largest, x, n, place);
}

/* ---------------------------------------------------------------- columns */

/* One build per level, with `lanes` columns at a time. Of equals the first stays, and so does the first NaN. */
#define COLUMN(largest, i)                                                                                           \
    do {                                                                                                             \
        float v = row[i], old = best[i];                                                                             \
        int32_t better = -(int32_t)((largest) ? v > old : v < old) | (-(int32_t)(v != v) & -(int32_t)(old == old)); \
        best[i] = port_f32_of_bits((port_f32_bits(v) & better) | (port_f32_bits(old) & ~better));                    \
        if (placed) {                                                                                                \
            places[i] = (r & better) | (places[i] & ~better);                                                        \
        }                                                                                                            \
    } while (0)
#define COLUMN_BUILDS(suffix, lanes, attributes)                                                                     \
    attributes PORT_INLINE void best_any_##suffix(bool largest, const bool placed, int32_t r, const float *row, int64_t n, float *best, \
                                                  int32_t *places)                                                  \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                     \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < (lanes); lane++) {                                                             \
                COLUMN(largest, i + lane);                                                                           \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            COLUMN(largest, i);                                                                                      \
        }                                                                                                            \
    }                                                                                                                \
    attributes static void best_columns_##suffix(bool largest, int32_t r, const float *row, int64_t n, float *best, int32_t *places) \
    {                                                                                                                \
        if (largest && places != NULL) {                                                                             \
            best_any_##suffix(true, true, r, row, n, best, places);                                                  \
        } else if (largest) {                                                                                        \
            best_any_##suffix(true, false, r, row, n, best, places);                                                 \
        } else if (places != NULL) {                                                                                 \
            best_any_##suffix(false, true, r, row, n, best, places);                                                 \
        } else {                                                                                                     \
            best_any_##suffix(false, false, r, row, n, best, places);                                                \
        }                                                                                                            \
    }
COLUMN_BUILDS(ref, 4, )
#if PORT_HAVE_AVX2
COLUMN_BUILDS(avx2, 8, PORT_TARGET_AVX2)
COLUMN_BUILDS(avx512, 16, PORT_TARGET_AVX512)
#endif

void
port_best_columns(bool largest, int32_t r, const float *row, int64_t n, float *best, int32_t *places)
{
    if (r == 0) {
        memcpy(best, row, (size_t)n * sizeof *best);
        if (places != NULL) {
            memset(places, 0, (size_t)n * sizeof *places);
        }
        return;
    }
    PORT_PICK_MAP(best_columns, port_cpu_level_found())(largest, r, row, n, best, places);
}

/* ---------------------------------------------------------------- doubles */

PORT_INLINE int64_t
f64_bits(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

PORT_INLINE double
select_f64(int64_t mask, double yes, double no)
{
    int64_t bits = (f64_bits(yes) & mask) | (f64_bits(no) & ~mask);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

enum { DOUBLE_LANES = 16 };

/* Of equals the old one stays, and so does an old NaN. */
PORT_INLINE double
first_of(bool largest, double v, double old)
{
    return select_f64(-(int64_t)(largest ? v > old : v < old) | (-(int64_t)(v != v) & -(int64_t)(old == old)), v, old);
}

/* One build per level, with a row's elements in lanes. Zeros of both signs are equal and NaN have many forms: there the value is the one at the first
 * place. */
#define DOUBLES(suffix, attributes)                                                                                  \
    attributes PORT_INLINE double extreme_f64_##suffix(bool largest, const double *x, int64_t n)                    \
    {                                                                                                                \
        double lanes[DOUBLE_LANES];                                                                                 \
        int64_t odd[DOUBLE_LANES] = {0}, i = 0;                                                                     \
        for (int lane = 0; lane < DOUBLE_LANES; lane++) {                                                           \
            lanes[lane] = x[0];                                                                                      \
        }                                                                                                            \
        for (; i + DOUBLE_LANES <= n; i += DOUBLE_LANES) {                                                         \
            for (int lane = 0; lane < DOUBLE_LANES; lane++) {                                                       \
                double v = x[i + lane];                                                                              \
                lanes[lane] = select_f64(-(int64_t)(largest ? v > lanes[lane] : v < lanes[lane]), v, lanes[lane]);   \
                odd[lane] |= -(int64_t)(v != v);                                                                     \
            }                                                                                                        \
        }                                                                                                            \
        for (int half = DOUBLE_LANES / 2; half > 0; half /= 2) {                                                     \
            for (int lane = 0; lane < half; lane++) {                                                                \
                double v = lanes[half + lane];                                                                       \
                lanes[lane] = select_f64(-(int64_t)(largest ? v > lanes[lane] : v < lanes[lane]), v, lanes[lane]);   \
                odd[lane] |= odd[half + lane];                                                                       \
            }                                                                                                        \
        }                                                                                                            \
        double best = odd[0] != 0 ? (double)NAN : lanes[0];                                                          \
        for (; i < n; i++) {                                                                                         \
            best = first_of(largest, x[i], best);                                                                    \
        }                                                                                                            \
        return best;                                                                                                 \
    }                                                                                                                \
    attributes static double first_best_f64_##suffix(bool largest, const double *x, int64_t n)                      \
    {                                                                                                                \
        double best = largest ? extreme_f64_##suffix(true, x, n) : extreme_f64_##suffix(false, x, n);                \
        int64_t at = 0;                                                                                              \
        if (best == best && best != 0.0) {                                                                           \
            return best;                                                                                             \
        }                                                                                                            \
        while (best == best ? x[at] != best : x[at] == x[at]) {                                                      \
            at++;                                                                                                    \
        }                                                                                                            \
        return x[at];                                                                                                \
    }                                                                                                                \
    attributes PORT_INLINE void columns_f64_##suffix(bool largest, const double *row, int64_t n, double *best)      \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 8 <= n; i += 8) {                                                                                 \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < 8; lane++) {                                                                   \
                best[i + lane] = first_of(largest, row[i + lane], best[i + lane]);                                   \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            best[i] = first_of(largest, row[i], best[i]);                                                            \
        }                                                                                                            \
    }                                                                                                                \
    attributes static void best_columns_f64_##suffix(bool largest, const double *row, int64_t n, double *best)      \
    {                                                                                                                \
        if (largest) {                                                                                               \
            columns_f64_##suffix(true, row, n, best);                                                                \
        } else {                                                                                                     \
            columns_f64_##suffix(false, row, n, best);                                                               \
        }                                                                                                            \
    }
DOUBLES(ref, )
#if PORT_HAVE_AVX2
DOUBLES(avx2, PORT_TARGET_AVX2)
DOUBLES(avx512, PORT_TARGET_AVX512)
#endif

double
port_first_best_f64(bool largest, const double *x, int64_t n)
{
    return PORT_PICK_MAP(first_best_f64, port_cpu_level_found())(largest, x, n);
}

void
port_best_columns_f64(bool largest, int64_t r, const double *row, int64_t n, double *best)
{
    if (r == 0) {
        memcpy(best, row, (size_t)n * sizeof *best);
        return;
    }
    PORT_PICK_MAP(best_columns_f64, port_cpu_level_found())(largest, row, n, best);
}
