/* dense.h -- conversions of elements that lie side by side, by whole vectors. Private to csrc/kernels/.
 *
 * n elements of `from` into `to`, which are not the same memory; no alignment is asked. The same values as dtype.c's functions give,
 * at every level of the CPU. */
#ifndef PORT_DENSE_H
#define PORT_DENSE_H

#include "kernels.h"
#include "vecmath.h"

void port_dense_f32_of_bf16(int64_t n, const char *from, char *to);
void port_dense_f32_of_f16(int64_t n, const char *from, char *to);
void port_dense_bf16_of_f32(int64_t n, const char *from, char *to);
void port_dense_f16_of_f32(int64_t n, const char *from, char *to);
/* 1 where an element is not 0 (NaN is not), else 0. */
void port_dense_bool_of_f32(int64_t n, const char *from, char *to);

/* Between any two of BOOL, the integers, F32 and F64 (the same one too). False: there is no such way, nothing is done. */
bool port_dense_convert(port_dtype from, port_dtype to, int64_t n, const char *x, char *y);

/* 16 elements, for loops that convert on the way. */
#if PORT_HAVE_AVX2
#define PORT_LOAD_256(from) _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define PORT_STORE_256(to, value) _mm256_storeu_si256((__m256i *)(void *)(to), value)
#define PORT_LOAD_512(from) _mm512_loadu_si512((const void *)(from))
#define PORT_STORE_512(to, value) _mm512_storeu_si512((void *)(to), value)

PORT_TARGET_AVX2 static inline void
f32_of_bf16_16_avx2(const char *from, char *to)
{
    __m256i bits = PORT_LOAD_256(from);
    PORT_STORE_256(to, _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(bits)), 16));
    PORT_STORE_256(to + 32, _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(bits, 1)), 16));
}

PORT_TARGET_AVX512 static inline void
f32_of_bf16_16_avx512(const char *from, char *to)
{
    PORT_STORE_512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(PORT_LOAD_256(from)), 16));
}

/* bf16 in the upper halves of the lanes, whatever in the lower ones. */
PORT_TARGET_AVX2 static inline __m256i
bf16_in_f32_8_avx2(__m256i bits)
{
    __m256 value = _mm256_castsi256_ps(bits);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), is_nan);
}

PORT_TARGET_AVX512 static inline __m512i
bf16_in_f32_16_avx512(__m512i bits)
{
    __m512 value = _mm512_castsi512_ps(bits);
    __m512i rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    rounded = _mm512_mask_add_epi32(rounded, _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000)), rounded, _mm512_set1_epi32(1));
    return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
}

PORT_TARGET_AVX2 static inline void
bf16_of_f32_16_avx2(const char *from, char *to)
{
    __m256i low = _mm256_srli_epi32(bf16_in_f32_8_avx2(PORT_LOAD_256(from)), 16);
    __m256i high = _mm256_srli_epi32(bf16_in_f32_8_avx2(PORT_LOAD_256(from + 32)), 16);
    PORT_STORE_256(to, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8)); /* packing takes the halves in turn */
}

PORT_TARGET_AVX512 static inline void
bf16_of_f32_16_avx512(const char *from, char *to)
{
    PORT_STORE_256(to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bf16_in_f32_16_avx512(PORT_LOAD_512(from)), 16)));
}
#endif

#endif /* PORT_DENSE_H */
