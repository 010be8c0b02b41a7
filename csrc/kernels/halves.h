/* halves.h -- maps over dense bf16 and f16: widened to f32, computed and rounded once, in one pass. Private to csrc/kernels/.
 *
 * PORT_HALF_MAP(name, expression in v, p, q): bool name_halves(dtype, level, n, x, y, p, q), y[i] = expression of v = x[i] and two numbers.
 * PORT_HALF_MAP_OWN_16: the same with 16 lanes by a function of __m512, which has the same bits.
 * PORT_HALF_MAP2(name, expression in u, v): bool name_halves(dtype, level, n, a, a_step, b, b_step, y); a_step and b_step are 1, or 0 (not both)
 * where the operand is one number. y may be an operand.
 * False, and nothing done, where there is no such map: another dtype, no vectors at this level of the CPU, n no multiple of 32.
 *
 * Two vectors are computed at a time. Those of bf16 hold the elements at even and at odd places, which is one instruction each to take apart and put
 * together; an expression does not know where its element stands. A NaN of f16 is made quiet on the way, as storing it does. */
#ifndef PORT_HALVES_H
#define PORT_HALVES_H

#include "dense.h"

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static inline void
widen_bf16_avx2(const char *from, float *first, float *second)
{
    __m256i pairs = PORT_LOAD_256(from);
    PORT_STORE_256(first, _mm256_slli_epi32(pairs, 16));
    PORT_STORE_256(second, _mm256_and_si256(pairs, _mm256_set1_epi32((int32_t)0xffff0000)));
}

PORT_TARGET_AVX2 static inline void
narrow_bf16_avx2(const float *first, const float *second, char *to)
{
    __m256i even = bf16_in_f32_8_avx2(PORT_LOAD_256(first)), odd = bf16_in_f32_8_avx2(PORT_LOAD_256(second));
    PORT_STORE_256(to, _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa));
}

PORT_TARGET_AVX2 static inline void
widen_f16_avx2(const char *from, float *first, float *second)
{
    __m256i halves = PORT_LOAD_256(from);
    _mm256_storeu_ps(first, _mm256_cvtph_ps(_mm256_castsi256_si128(halves)));
    _mm256_storeu_ps(second, _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
}

PORT_TARGET_AVX2 static inline void
narrow_f16_avx2(const float *first, const float *second, char *to)
{
    __m128i low = _mm256_cvtps_ph(_mm256_loadu_ps(first), _MM_FROUND_TO_NEAREST_INT);
    __m128i high = _mm256_cvtps_ph(_mm256_loadu_ps(second), _MM_FROUND_TO_NEAREST_INT);
    PORT_STORE_256(to, _mm256_set_m128i(high, low));
}

PORT_TARGET_AVX512 static inline void
widen_bf16_avx512(const char *from, float *first, float *second)
{
    __m512i pairs = PORT_LOAD_512(from);
    PORT_STORE_512(first, _mm512_slli_epi32(pairs, 16));
    PORT_STORE_512(second, _mm512_and_si512(pairs, _mm512_set1_epi32((int32_t)0xffff0000)));
}

PORT_TARGET_AVX512 static inline void
narrow_bf16_avx512(const float *first, const float *second, char *to)
{
    __m512i even = bf16_in_f32_16_avx512(PORT_LOAD_512(first)), odd = bf16_in_f32_16_avx512(PORT_LOAD_512(second));
    PORT_STORE_512(to, _mm512_mask_mov_epi16(_mm512_srli_epi32(even, 16), 0xaaaaaaaa, odd));
}

PORT_TARGET_AVX512 static inline void
widen_f16_avx512(const char *from, float *first, float *second)
{
    _mm512_storeu_ps(first, _mm512_cvtph_ps(PORT_LOAD_256(from)));
    _mm512_storeu_ps(second, _mm512_cvtph_ps(PORT_LOAD_256(from + 32)));
}

PORT_TARGET_AVX512 static inline void
narrow_f16_avx512(const float *first, const float *second, char *to)
{
    PORT_STORE_256(to, _mm512_cvtps_ph(_mm512_loadu_ps(first), _MM_FROUND_TO_NEAREST_INT));
    PORT_STORE_256(to + 32, _mm512_cvtps_ph(_mm512_loadu_ps(second), _MM_FROUND_TO_NEAREST_INT));
}

#define PORT_HALF_LANES(lanes, to, value)                                                                            \
    for (int lane = 0; lane < (lanes); lane++) {                                                                     \
        to[lane] = value;                                                                                            \
    }
#define PORT_HALF_MAP_BODY(name, half, suffix, lanes, attributes)                                                    \
    PORT_HALF_MAP_BODY_BY(name, half, suffix, lanes, attributes, PORT_HALF_LANES(lanes, first, name##_half_of(first[lane], p, q)), \
                          PORT_HALF_LANES(lanes, second, name##_half_of(second[lane], p, q)))
#define PORT_HALF_MAP_BODY_OWN_16(name, half, sixteen)                                                               \
    PORT_HALF_MAP_BODY_BY(name, half, avx512, 16, PORT_TARGET_AVX512, _mm512_storeu_ps(first, sixteen(_mm512_loadu_ps(first))), \
                          _mm512_storeu_ps(second, sixteen(_mm512_loadu_ps(second))))
#define PORT_HALF_MAP_BODY_BY(name, half, suffix, lanes, attributes, first_made, second_made)                        \
    attributes static void name##_##half##_##suffix(int64_t n, const char *x, char *y, float p, float q)             \
    {                                                                                                                \
        (void)p, (void)q;                                                                                            \
        for (int64_t at = 0; at < 2 * n; at += 4 * (lanes)) {                                                        \
            float first[lanes], second[lanes];                                                                       \
            widen_##half##_##suffix(x + at, first, second);                                                          \
            first_made;                                                                                              \
            second_made;                                                                                             \
            narrow_##half##_##suffix(first, second, y + at);                                                         \
        }                                                                                                            \
    }
#define PORT_HALF_MAP2_BODY(name, half, suffix, lanes, attributes)                                                   \
    attributes static void name##_##half##_##suffix(int64_t n, const char *a, int64_t a_step, const char *b, int64_t b_step, char *y) \
    {                                                                                                                \
        for (const char *end = y + 2 * n; y < end; y += 4 * (lanes), a += a_step, b += b_step) {                     \
            float a_first[lanes], a_second[lanes], b_first[lanes], b_second[lanes];                                  \
            widen_##half##_##suffix(a, a_first, a_second);                                                           \
            widen_##half##_##suffix(b, b_first, b_second);                                                           \
            PORT_HALF_LANES(lanes, a_first, name##_half_of(a_first[lane], b_first[lane]))                            \
            PORT_HALF_LANES(lanes, a_second, name##_half_of(a_second[lane], b_second[lane]))                         \
            narrow_##half##_##suffix(a_first, a_second, y);                                                          \
        }                                                                                                            \
    }
#define PORT_HALF_BODIES(body, name)                                                                                 \
    body(name, bf16, avx2, 8, PORT_TARGET_AVX2)                                                                      \
    body(name, bf16, avx512, 16, PORT_TARGET_AVX512)                                                                 \
    body(name, f16, avx2, 8, PORT_TARGET_AVX2)                                                                       \
    body(name, f16, avx512, 16, PORT_TARGET_AVX512)
#define PORT_HALF_BODIES_OWN_16(name, sixteen)                                                                       \
    PORT_HALF_MAP_BODY(name, bf16, avx2, 8, PORT_TARGET_AVX2)                                                        \
    PORT_HALF_MAP_BODY_OWN_16(name, bf16, sixteen)                                                                   \
    PORT_HALF_MAP_BODY(name, f16, avx2, 8, PORT_TARGET_AVX2)                                                         \
    PORT_HALF_MAP_BODY_OWN_16(name, f16, sixteen)
#define PORT_HALF_PICK(name)                                                                                         \
    (dtype == PORT_BF16 ? (level > 1 ? name##_bf16_avx512 : name##_bf16_avx2) : (level > 1 ? name##_f16_avx512 : name##_f16_avx2))
#define PORT_HALF_FITS ((dtype == PORT_BF16 || dtype == PORT_F16) && level > 0 && n % 32 == 0)
#else
#define PORT_HALF_BODIES(body, name)
#define PORT_HALF_BODIES_OWN_16(name, sixteen)
#define PORT_HALF_PICK(name) (void)level, (void)
#define PORT_HALF_FITS false
#endif

#define PORT_HALF_MAP_BY(name, expression, bodies)                                                                   \
    PORT_INLINE float name##_half_of(float v, float p, float q)                                                      \
    {                                                                                                                \
        (void)p, (void)q;                                                                                            \
        return (expression);                                                                                         \
    }                                                                                                                \
    bodies                                                                                                           \
    static bool name##_halves(port_dtype dtype, int32_t level, int64_t n, const char *x, char *y, float p, float q)  \
    {                                                                                                                \
        if (!PORT_HALF_FITS) {                                                                                       \
            return false;                                                                                            \
        }                                                                                                            \
        PORT_HALF_PICK(name)(n, x, y, p, q);                                                                         \
        return true;                                                                                                 \
    }
#define PORT_HALF_MAP(name, expression) PORT_HALF_MAP_BY(name, expression, PORT_HALF_BODIES(PORT_HALF_MAP_BODY, name))
#define PORT_HALF_MAP_OWN_16(name, expression, sixteen) PORT_HALF_MAP_BY(name, expression, PORT_HALF_BODIES_OWN_16(name, sixteen))
#define PORT_HALF_MAP2(name, expression)                                                                             \
    PORT_INLINE float name##_half_of(float u, float v)                                                               \
    {                                                                                                                \
        return (expression);                                                                                         \
    }                                                                                                                \
    PORT_HALF_BODIES(PORT_HALF_MAP2_BODY, name)                                                                      \
    static bool name##_halves(port_dtype dtype, int32_t level, int64_t n, const char *a, int64_t a_step, const char *b,  \
                              int64_t b_step, char *y)                                                               \
    {                                                                                                                \
        if (!PORT_HALF_FITS) {                                                                                       \
            return false;                                                                                            \
        }                                                                                                            \
        const int64_t bytes = level > 1 ? 64 : 32;                                                                   \
        char same[64]; /* the operand that is one number */                                                          \
        if (a_step == 0 || b_step == 0) {                                                                            \
            port_half_repeat(a_step == 0 ? a : b, same);                                                             \
        }                                                                                                            \
        PORT_HALF_PICK(name)(n, a_step == 0 ? same : a, a_step * bytes, b_step == 0 ? same : b, b_step * bytes, y);  \
        return true;                                                                                                 \
    }

static inline void
port_half_repeat(const char *from, char to[64])
{
    for (int i = 0; i < 64; i += 2) {
        memcpy(to + i, from, 2);
    }
}

#endif /* PORT_HALVES_H */
