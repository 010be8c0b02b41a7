/* compare_avx512.c -- the passes of compare_lanes.h, 16 elements at a time. */
#include "compare_blocks.h"

#include <float.h>
#include <math.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define LANES 16
#define LANES_TABLE compare_kernels_avx512
#define LANES_FN __attribute__((target("avx512f,avx512dq,avx2,fma,popcnt")))
#define LANES_INLINE __attribute__((target("avx512f,avx512dq,avx2,fma,popcnt"), always_inline)) inline

#define VD __m512d
#define VD_SET(x) _mm512_set1_pd(x)
#define VD_LOAD(p) _mm512_loadu_pd(p)
#define VD_STORE(p, v) _mm512_storeu_pd(p, v)
#define VD_FROM_F32(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define VD_ADD(a, b) _mm512_add_pd(a, b)
#define VD_SUB(a, b) _mm512_sub_pd(a, b)
#define VD_MUL(a, b) _mm512_mul_pd(a, b)
#define VD_FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define VD_MAX(a, b) _mm512_max_pd(a, b)
#define VD_MIN(a, b) _mm512_min_pd(a, b)
#define VD_DIV(a, b) _mm512_div_pd(a, b)
#define VD_MASK __mmask8
#define VD_EQUAL(a, b) _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ)
#define VD_LESS(a, b) _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ)
#define VD_BLEND(a, b, mask) _mm512_mask_blend_pd(mask, a, b)
#define VD_COUNT(mask) __builtin_popcount((unsigned)(mask))
#define VD_COUNT_BOTH(m, n) __builtin_popcount((unsigned)(m) & (unsigned)(n))
#define VD_ABS(a) _mm512_abs_pd(a)
#define VD_BITS_NOT_LESS(a, b) (unsigned)_mm512_cmp_pd_mask(a, b, _CMP_GE_OQ)

#define VF __m512
#define VF_MASK __mmask16
#define VF_SET(x) _mm512_set1_ps(x)
#define VF_LOAD(p) _mm512_loadu_ps(p)
#define VF_STORE(p, v) _mm512_storeu_ps(p, v)
#define VF_SUB(a, b) _mm512_sub_ps(a, b)
#define VF_DIV(a, b) _mm512_div_ps(a, b)
#define VF_MIN(a, b) _mm512_min_ps(a, b)
#define VF_MAX(a, b) _mm512_max_ps(a, b)
#define VF_ABS(a) _mm512_abs_ps(a)
#define VF_EQUAL(a, b) _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ)
#define VF_LESS(a, b) _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)
#define VF_BLEND(a, b, mask) _mm512_mask_blend_ps(mask, a, b)
#define VF_BITS(mask) (unsigned)(mask)
#define VF_COUNT(mask) __builtin_popcount(VF_BITS(mask))
#define VF_COUNT_BOTH(m, n) __builtin_popcount((unsigned)(m) & (unsigned)(n))
#define VF_NEITHER(m, n) (~((unsigned)(m) | (unsigned)(n)) & 0xffffu)
#define VF_LOW(v) _mm512_cvtps_pd(_mm512_castps512_ps256(v))
#define VF_HIGH(v) _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))
#define VF_FROM_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p)))

#define VI __m512i
#define VI_SET(x) _mm512_set1_epi32(x)
#define VI_LOAD(p) _mm512_loadu_si512((const void *)(p))
#define VI_STORE(p, v) _mm512_storeu_si512((void *)(p), v)
#define VI_ADD(a, b) _mm512_add_epi32(a, b)
#define VI_SUB(a, b) _mm512_sub_epi32(a, b)
#define VI_AND(a, b) _mm512_and_si512(a, b)
#define VI_OR(a, b) _mm512_or_si512(a, b)
#define VI_XOR(a, b) _mm512_xor_si512(a, b)
#define VI_MIN(a, b) _mm512_min_epi32(a, b)
#define VI_MAX(a, b) _mm512_max_epi32(a, b)
#define VI_MAXU(a, b) _mm512_max_epu32(a, b)
#define VI_SIGN(a) _mm512_srai_epi32(a, 31)
#define VI_SHIFT_RIGHT(a, n) _mm512_sra_epi32(a, _mm_cvtsi32_si128(n))
#define VI_COUNT_EQUAL(a, b) __builtin_popcount((unsigned)_mm512_cmpeq_epi32_mask(a, b))
/* Lanes of 64 bits. */
#define VL_SET(x) _mm512_set1_epi64(x)
#define VL_ADD(a, b) _mm512_add_epi64(a, b)
#define VL_SUB(a, b) _mm512_sub_epi64(a, b)
#define VL_MAX(a, b) _mm512_max_epi64(a, b)
#define VL_MIN(a, b) _mm512_min_epi64(a, b)
#define VL_MAXU(a, b) _mm512_max_epu64(a, b)
#define VL_SIGN(a) _mm512_srai_epi64(a, 63)
#define VL_UPPER(a) _mm512_srli_epi64(a, 32)
#define VI_FROM_U16(p) _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p))), 16)

#include "compare_lanes.h"

bool
compare_have_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && compare_have_avx2();
}

#else

const compare_kernels compare_kernels_avx512 = {0};

bool
compare_have_avx512(void)
{
    return false;
}

#endif
