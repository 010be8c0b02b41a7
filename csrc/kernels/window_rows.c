/* window_rows.c -- many windows of floats at a time: their greatest elements and their sums. See window_rows.h.
 * What some vectors of columns come to stays in registers while all rows are read. */
#include "window_rows.h"

/* One vector of columns, and four that take turns: each waits for its own last step. */
#define VECTORS(suffix, lanes, attributes)                                                                                \
    typedef float floats_##suffix __attribute__((vector_size(4 * (lanes))));                                              \
    typedef int32_t ints_##suffix __attribute__((vector_size(4 * (lanes))));                                              \
    typedef struct best_##suffix {                                                                                        \
        floats_##suffix value;                                                                                            \
        ints_##suffix place;                                                                                              \
    } best_##suffix;                                                                                                      \
    attributes PORT_INLINE best_##suffix load_##suffix(const float *best, const int32_t *at)                              \
    {                                                                                                                     \
        best_##suffix b;                                                                                                  \
        memcpy(&b.value, best, sizeof b.value);                                                                           \
        memcpy(&b.place, at, sizeof b.place);                                                                             \
        return b;                                                                                                         \
    }                                                                                                                     \
    attributes PORT_INLINE void store_##suffix(best_##suffix b, float *best, int32_t *at)                                 \
    {                                                                                                                     \
        memcpy(best, &b.value, sizeof b.value);                                                                           \
        memcpy(at, &b.place, sizeof b.place);                                                                             \
    }                                                                                                                     \
    attributes PORT_INLINE best_##suffix greater_##suffix(best_##suffix old, const float *row, int32_t place)             \
    {                                                                                                                     \
        floats_##suffix v;                                                                                                \
        best_##suffix b;                                                                                                  \
        memcpy(&v, row, sizeof v);                                                                                        \
        ints_##suffix better = (v > old.value) | (v != v), here = place - (ints_##suffix){0};                             \
        b.value = (floats_##suffix)(((ints_##suffix)v & better) | ((ints_##suffix)old.value & ~better));                  \
        b.place = (here & better) | (old.place & ~better);                                                                \
        return b;                                                                                                         \
    }                                                                                                                     \
    attributes PORT_INLINE void greatest_one_##suffix(int32_t num, const float *const *rows, const int32_t *places,          \
                                                      int64_t i, float *best, int32_t *at)                                \
    {                                                                                                                     \
        best_##suffix a = load_##suffix(best + i, at + i);                                                                \
        for (int32_t k = 0; k < num; k++) {                                                                               \
            a = greater_##suffix(a, rows[k] + i, places[k]);                                                              \
        }                                                                                                                 \
        store_##suffix(a, best + i, at + i);                                                                              \
    }                                                                                                                     \
    attributes PORT_INLINE floats_##suffix floats_at_##suffix(const float *x)                                             \
    {                                                                                                                     \
        floats_##suffix v;                                                                                                \
        memcpy(&v, x, sizeof v);                                                                                          \
        return v;                                                                                                         \
    }                                                                                                                     \
    attributes PORT_INLINE void sum_one_##suffix(int32_t num, const float *const *rows, int64_t i, float *sums)           \
    {                                                                                                                     \
        floats_##suffix sum = floats_at_##suffix(sums + i);                                                               \
        for (int32_t k = 0; k < num; k++) {                                                                               \
            sum += floats_at_##suffix(rows[k] + i);                                                                       \
        }                                                                                                                 \
        memcpy(sums + i, &sum, sizeof sum);                                                                               \
    }
#define FOURS(suffix, lanes, attributes)                                                                                  \
    attributes PORT_INLINE void greatest_four_##suffix(int32_t num, const float *const *rows, const int32_t *places,         \
                                                       int64_t i, float *best, int32_t *at)                               \
    {                                                                                                                     \
        int64_t j = i + (lanes), k = j + (lanes), l = k + (lanes);                                                        \
        best_##suffix a = load_##suffix(best + i, at + i), b = load_##suffix(best + j, at + j),                           \
                      c = load_##suffix(best + k, at + k), d = load_##suffix(best + l, at + l);                           \
        for (int32_t r = 0; r < num; r++) {                                                                               \
            a = greater_##suffix(a, rows[r] + i, places[r]);                                                              \
            b = greater_##suffix(b, rows[r] + j, places[r]);                                                              \
            c = greater_##suffix(c, rows[r] + k, places[r]);                                                              \
            d = greater_##suffix(d, rows[r] + l, places[r]);                                                              \
        }                                                                                                                 \
        store_##suffix(a, best + i, at + i);                                                                              \
        store_##suffix(b, best + j, at + j);                                                                              \
        store_##suffix(c, best + k, at + k);                                                                              \
        store_##suffix(d, best + l, at + l);                                                                              \
    }                                                                                                                     \
    attributes PORT_INLINE void sum_four_##suffix(int32_t num, const float *const *rows, int64_t i, float *sums)          \
    {                                                                                                                     \
        int64_t j = i + (lanes), k = j + (lanes), l = k + (lanes);                                                        \
        floats_##suffix a = floats_at_##suffix(sums + i), b = floats_at_##suffix(sums + j), c = floats_at_##suffix(sums + k), \
                        d = floats_at_##suffix(sums + l);                                                                 \
        for (int32_t r = 0; r < num; r++) {                                                                               \
            a += floats_at_##suffix(rows[r] + i);                                                                         \
            b += floats_at_##suffix(rows[r] + j);                                                                         \
            c += floats_at_##suffix(rows[r] + k);                                                                         \
            d += floats_at_##suffix(rows[r] + l);                                                                         \
        }                                                                                                                 \
        memcpy(sums + i, &a, sizeof a);                                                                                   \
        memcpy(sums + j, &b, sizeof b);                                                                                   \
        memcpy(sums + k, &c, sizeof c);                                                                                   \
        memcpy(sums + l, &d, sizeof d);                                                                                   \
    }

/* Fours of vectors, vectors, a half and a quarter of one, then single columns. */
#define ROWS(suffix, lanes, half, half_lanes, quarter, attributes)                                                        \
    FOURS(suffix, lanes, attributes)                                                                                      \
    attributes static void greatest_rows_##suffix(int32_t num, const float *const *rows, const int32_t *places, int64_t n,   \
                                                  float *best, int32_t *at)                                               \
    {                                                                                                                     \
        int64_t i = 0;                                                                                                    \
        for (; i + 4 * (lanes) <= n; i += 4 * (lanes)) {                                                                  \
            greatest_four_##suffix(num, rows, places, i, best, at);                                                       \
        }                                                                                                                 \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                          \
            greatest_one_##suffix(num, rows, places, i, best, at);                                                        \
        }                                                                                                                 \
        for (; i + (half_lanes) <= n; i += (half_lanes)) {                                                                \
            greatest_one_##half(num, rows, places, i, best, at);                                                          \
        }                                                                                                                 \
        for (; i + 4 <= n; i += 4) {                                                                                      \
            greatest_one_##quarter(num, rows, places, i, best, at);                                                       \
        }                                                                                                                 \
        for (; i < n; i++) {                                                                                              \
            for (int32_t k = 0; k < num; k++) {                                                                           \
                float v = rows[k][i];                                                                                     \
                if (v > best[i] || v != v) {                                                                              \
                    best[i] = v;                                                                                          \
                    at[i] = places[k];                                                                                    \
                }                                                                                                         \
            }                                                                                                             \
        }                                                                                                                 \
    }                                                                                                                     \
    attributes static void sum_rows_##suffix(int32_t num, const float *const *rows, int64_t n, float *sums)               \
    {                                                                                                                     \
        int64_t i = 0;                                                                                                    \
        for (; i + 4 * (lanes) <= n; i += 4 * (lanes)) {                                                                  \
            sum_four_##suffix(num, rows, i, sums);                                                                        \
        }                                                                                                                 \
        for (; i + (lanes) <= n; i += (lanes)) {                                                                          \
            sum_one_##suffix(num, rows, i, sums);                                                                         \
        }                                                                                                                 \
        for (; i + (half_lanes) <= n; i += (half_lanes)) {                                                                \
            sum_one_##half(num, rows, i, sums);                                                                           \
        }                                                                                                                 \
        for (; i + 4 <= n; i += 4) {                                                                                      \
            sum_one_##quarter(num, rows, i, sums);                                                                        \
        }                                                                                                                 \
        for (; i < n; i++) {                                                                                              \
            for (int32_t k = 0; k < num; k++) {                                                                           \
                sums[i] += rows[k][i];                                                                                    \
            }                                                                                                             \
        }                                                                                                                 \
    }
VECTORS(ref, 4, )
ROWS(ref, 4, ref, 4, ref, )
#if PORT_HAVE_AVX2
VECTORS(avx2_4, 4, PORT_TARGET_AVX2)
VECTORS(avx2, 8, PORT_TARGET_AVX2)
ROWS(avx2, 8, avx2, 8, avx2_4, PORT_TARGET_AVX2)
VECTORS(avx512_4, 4, PORT_TARGET_AVX512)
VECTORS(avx512_8, 8, PORT_TARGET_AVX512)
VECTORS(avx512, 16, PORT_TARGET_AVX512)
ROWS(avx512, 16, avx512_8, 8, avx512_4, PORT_TARGET_AVX512)
#endif

void
port_greatest_rows(int32_t num, const float *const *rows, const int32_t *places, int64_t n, float *best, int32_t *at)
{
    PORT_PICK_MAP(greatest_rows, port_cpu_level_found())(num, rows, places, n, best, at);
}

void
port_sum_rows(int32_t num, const float *const *rows, int64_t n, float *sums)
{
    PORT_PICK_MAP(sum_rows, port_cpu_level_found())(num, rows, n, sums);
}
