/* dense.c -- see dense.h. Written with intrinsics: what a compiler makes of 16-bit elements goes through memory and stalls there. */
#include "dense.h"

/* ---------------------------------------------------------------- one element, without a branch */

static inline float
float_of_bf16(uint32_t bits)
{
    return port_f32_of_bits((int32_t)(bits << 16));
}

static inline float
float_of_f16(uint32_t bits)
{
    uint32_t magnitude = bits & 0x7fff;
    uint32_t special = -(uint32_t)(magnitude >= 0x7c00) & 0x38000000u; /* infinity and NaN: the exponent goes on to 255 */
    float normal = port_f32_of_bits((int32_t)((magnitude << 13) + 0x38000000u + special));
    float subnormal = (float)(int32_t)magnitude * 0x1p-24f;
    float value = port_select(magnitude < 0x400, subnormal, normal);
    return port_f32_of_bits(port_f32_bits(value) | (int32_t)((bits & 0x8000) << 16));
}

static inline uint32_t
f16_of_float(float value)
{
    uint32_t bits = (uint32_t)port_f32_bits(value), magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - 0x38000000u + 0xfff + ((magnitude >> 13) & 1)) >> 13; /* to nearest, ties to even */
    float shifted = port_f32_of_bits((int32_t)magnitude) + 0.5f; /* whose last bit is the smallest subnormal */
    uint32_t subnormal = (uint32_t)port_f32_bits(shifted) - 0x3f000000u;
    uint32_t nan = 0x7e00 | ((magnitude & 0x7fffffu) >> 13);
    uint32_t is_small = -(uint32_t)(magnitude < 0x38800000u), is_large = -(uint32_t)(magnitude >= 0x477ff000u);
    uint32_t is_nan = -(uint32_t)(magnitude > 0x7f800000u);
    uint32_t result = (subnormal & is_small) | (normal & ~is_small);
    result = (0x7c00 & is_large) | (result & ~is_large);
    result = (nan & is_nan) | (result & ~is_nan);
    return result | (bits >> 16 & 0x8000);
}

static inline uint32_t
bf16_of_float(float value)
{
    uint32_t bits = (uint32_t)port_f32_bits(value), is_nan = -(uint32_t)((bits & 0x7fffffffu) > 0x7f800000u);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (0x7fc0 & is_nan) | (rounded & ~is_nan);
}

static inline uint32_t
bool_of_float(float value)
{
    return value != 0.0f;
}

/* ---------------------------------------------------------------- 16 elements */

#if PORT_HAVE_AVX2
/* The processor's own conversion sets the quiet bit of a NaN; where there is one, these keep its bits. */
PORT_TARGET_AVX2 static inline __m256i
f32_of_f16_nan_8_avx2(__m128i halves, __m256 converted)
{
    __m256i bits = _mm256_cvtepu16_epi32(halves), magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff));
    __m256i sign = _mm256_slli_epi32(_mm256_xor_si256(bits, magnitude), 16);
    __m256i nan = _mm256_or_si256(sign, _mm256_add_epi32(_mm256_slli_epi32(magnitude, 13), _mm256_set1_epi32(0x70000000)));
    __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7c00));
    return _mm256_blendv_epi8(_mm256_castps_si256(converted), nan, is_nan);
}

PORT_TARGET_AVX2 static inline void
f32_of_f16_16_avx2(const char *from, char *to)
{
    __m256i halves = PORT_LOAD_256(from);
    __m128i low = _mm256_castsi256_si128(halves), high = _mm256_extracti128_si256(halves, 1);
    __m256 first = _mm256_cvtph_ps(low), second = _mm256_cvtph_ps(high);
    if (__builtin_expect(_mm256_movemask_ps(_mm256_cmp_ps(first, second, _CMP_UNORD_Q)) != 0, 0)) {
        PORT_STORE_256(to, f32_of_f16_nan_8_avx2(low, first));
        PORT_STORE_256(to + 32, f32_of_f16_nan_8_avx2(high, second));
        return;
    }
    PORT_STORE_256(to, _mm256_castps_si256(first));
    PORT_STORE_256(to + 32, _mm256_castps_si256(second));
}

PORT_TARGET_AVX512 static inline void
f32_of_f16_16_avx512(const char *from, char *to)
{
    __m512 converted = _mm512_cvtph_ps(PORT_LOAD_256(from));
    if (__builtin_expect(_mm512_cmp_ps_mask(converted, converted, _CMP_UNORD_Q) != 0, 0)) {
        f32_of_f16_16_avx2(from, to);
        return;
    }
    PORT_STORE_512(to, _mm512_castps_si512(converted));
}

PORT_TARGET_AVX2 static inline void
f16_of_f32_16_avx2(const char *from, char *to)
{
    for (int half = 0; half < 2; half++) {
        __m256 value = _mm256_castsi256_ps(PORT_LOAD_256(from + 32 * half));
        _mm_storeu_si128((__m128i *)(void *)(to + 16 * half), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    }
}

PORT_TARGET_AVX512 static inline void
f16_of_f32_16_avx512(const char *from, char *to)
{
    PORT_STORE_256(to, _mm512_cvtps_ph(_mm512_castsi512_ps(PORT_LOAD_512(from)), _MM_FROUND_TO_NEAREST_INT));
}

PORT_TARGET_AVX2 static inline __m128i
bool_of_f32_8_avx2(const char *from)
{
    __m256 value = _mm256_castsi256_ps(PORT_LOAD_256(from));
    __m256i truth = _mm256_castps_si256(_mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_NEQ_UQ));
    return _mm_packs_epi32(_mm256_castsi256_si128(truth), _mm256_extracti128_si256(truth, 1));
}

PORT_TARGET_AVX2 static inline void
bool_of_f32_16_avx2(const char *from, char *to)
{
    __m128i truth = _mm_packs_epi16(bool_of_f32_8_avx2(from), bool_of_f32_8_avx2(from + 32));
    _mm_storeu_si128((__m128i *)(void *)to, _mm_and_si128(truth, _mm_set1_epi8(1)));
}

PORT_TARGET_AVX512 static inline void
bool_of_f32_16_avx512(const char *from, char *to)
{
    __mmask16 truth = _mm512_cmp_ps_mask(_mm512_castsi512_ps(PORT_LOAD_512(from)), _mm512_setzero_ps(), _CMP_NEQ_UQ);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_maskz_set1_epi8(truth, 1));
}
#endif

/* ---------------------------------------------------------------- n elements */

#define ONE_BY_ONE(from_type, to_type, one)                                                                          \
    for (; i < n; i++) {                                                                                             \
        from_type v;                                                                                                 \
        memcpy(&v, from + i * (int64_t)sizeof(v), sizeof(v));                                                        \
        to_type result = (to_type)one(v);                                                                            \
        memcpy(to + i * (int64_t)sizeof(result), &result, sizeof(result));                                           \
    }
/* Four at a time without vectors of a level: what a compiler makes of the arrays is right for the baseline. */
#define DENSE_REF(name, from_type, to_type, one)                                                                     \
    static void name##_ref(int64_t n, const char *from, char *to)                                                    \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 4 <= n; i += 4) {                                                                                 \
            from_type in[4];                                                                                         \
            to_type out[4];                                                                                          \
            memcpy(in, from + i * (int64_t)sizeof(from_type), sizeof(in));                                           \
            for (int lane = 0; lane < 4; lane++) {                                                                   \
                out[lane] = (to_type)one(in[lane]);                                                                  \
            }                                                                                                        \
            memcpy(to + i * (int64_t)sizeof(to_type), out, sizeof(out));                                             \
        }                                                                                                            \
        ONE_BY_ONE(from_type, to_type, one)                                                                          \
    }
#define DENSE_LEVEL(name, suffix, attributes, from_type, to_type, one)                                               \
    attributes static void name##_##suffix(int64_t n, const char *from, char *to)                                    \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 16 <= n; i += 16) {                                                                               \
            name##_16_##suffix(from + i * (int64_t)sizeof(from_type), to + i * (int64_t)sizeof(to_type));            \
        }                                                                                                            \
        ONE_BY_ONE(from_type, to_type, one)                                                                          \
    }
#define DENSE_PICK(name)                                                                                             \
    void port_dense_##name(int64_t n, const char *from, char *to)                                                    \
    {                                                                                                                \
        PORT_PICK_MAP(name, port_cpu_level_found())(n, from, to);                                                    \
    }
#if PORT_HAVE_AVX2
#define DENSE(name, from_type, to_type, one)                                                                         \
    DENSE_REF(name, from_type, to_type, one)                                                                         \
    DENSE_LEVEL(name, avx2, PORT_TARGET_AVX2, from_type, to_type, one)                                               \
    DENSE_LEVEL(name, avx512, PORT_TARGET_AVX512, from_type, to_type, one)                                           \
    DENSE_PICK(name)
#else
#define DENSE(name, from_type, to_type, one) DENSE_REF(name, from_type, to_type, one) DENSE_PICK(name)
#endif

DENSE(f32_of_bf16, uint16_t, float, float_of_bf16)
DENSE(f32_of_f16, uint16_t, float, float_of_f16)
DENSE(bf16_of_f32, float, uint16_t, bf16_of_float)
DENSE(f16_of_f32, float, uint16_t, f16_of_float)
DENSE(bool_of_f32, float, uint8_t, bool_of_float)
