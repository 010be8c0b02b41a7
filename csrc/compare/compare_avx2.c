/* compare_avx2.c -- the passes of compare_lanes.h, 8 elements at a time. */
#include "compare_blocks.h"

#include <float.h>
#include <math.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define LANES 8
#define LANES_TABLE compare_kernels_avx2
#define LANES_FN __attribute__((target("avx2,fma,f16c,popcnt")))
#define LANES_INLINE __attribute__((target("avx2,fma,f16c,popcnt"), always_inline)) inline

#define VD __m256d
#define VD_SET(x) _mm256_set1_pd(x)
#define VD_LOAD(p) _mm256_loadu_pd(p)
#define VD_STORE(p, v) _mm256_storeu_pd(p, v)
#define VD_FROM_F32(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#define VD_ADD(a, b) _mm256_add_pd(a, b)
#define VD_SUB(a, b) _mm256_sub_pd(a, b)
#define VD_MUL(a, b) _mm256_mul_pd(a, b)
#define VD_FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define VD_MAX(a, b) _mm256_max_pd(a, b)
#define VD_MIN(a, b) _mm256_min_pd(a, b)
#define VD_DIV(a, b) _mm256_div_pd(a, b)
#define VD_MASK __m256d
#define VD_EQUAL(a, b) _mm256_cmp_pd(a, b, _CMP_EQ_OQ)
#define VD_LESS(a, b) _mm256_cmp_pd(a, b, _CMP_LT_OQ)
#define VD_BLEND(a, b, mask) _mm256_blendv_pd(a, b, mask)
#define VD_COUNT(mask) __builtin_popcount((unsigned)_mm256_movemask_pd(mask))
#define VD_COUNT_BOTH(m, n) VD_COUNT(_mm256_and_pd(m, n))
#define VD_ABS(a) _mm256_andnot_pd(_mm256_set1_pd(-0.0), a)
#define VD_BITS_NOT_LESS(a, b) (unsigned)_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GE_OQ))

#define VF __m256
#define VF_MASK __m256
#define VF_SET(x) _mm256_set1_ps(x)
#define VF_LOAD(p) _mm256_loadu_ps(p)
#define VF_STORE(p, v) _mm256_storeu_ps(p, v)
#define VF_SUB(a, b) _mm256_sub_ps(a, b)
#define VF_DIV(a, b) _mm256_div_ps(a, b)
#define VF_MIN(a, b) _mm256_min_ps(a, b)
#define VF_MAX(a, b) _mm256_max_ps(a, b)
#define VF_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define VF_EQUAL(a, b) _mm256_cmp_ps(a, b, _CMP_EQ_OQ)
#define VF_LESS(a, b) _mm256_cmp_ps(a, b, _CMP_LT_OQ)
#define VF_BLEND(a, b, mask) _mm256_blendv_ps(a, b, mask)
#define VF_BITS(mask) (unsigned)_mm256_movemask_ps(mask)
#define VF_COUNT(mask) __builtin_popcount(VF_BITS(mask))
#define VF_COUNT_BOTH(m, n) VF_COUNT(_mm256_and_ps(m, n))
#define VF_NEITHER(m, n) _mm256_xor_ps(_mm256_or_ps(m, n), _mm256_castsi256_ps(_mm256_set1_epi32(-1)))
#define VF_LOW(v) _mm256_cvtps_pd(_mm256_castps256_ps128(v))
#define VF_HIGH(v) _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))
#define VF_FROM_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p)))

#define VI __m256i
#define VI_SET(x) _mm256_set1_epi32(x)
#define VI_LOAD(p) _mm256_loadu_si256((const void *)(p))
#define VI_STORE(p, v) _mm256_storeu_si256((void *)(p), v)
#define VI_ADD(a, b) _mm256_add_epi32(a, b)
#define VI_SUB(a, b) _mm256_sub_epi32(a, b)
#define VI_AND(a, b) _mm256_and_si256(a, b)
#define VI_OR(a, b) _mm256_or_si256(a, b)
#define VI_XOR(a, b) _mm256_xor_si256(a, b)
#define VI_MIN(a, b) _mm256_min_epi32(a, b)
#define VI_MAX(a, b) _mm256_max_epi32(a, b)
#define VI_MAXU(a, b) _mm256_max_epu32(a, b)
#define VI_SIGN(a) _mm256_srai_epi32(a, 31)
#define VI_SHIFT_RIGHT(a, n) _mm256_sra_epi32(a, _mm_cvtsi32_si128(n))
#define VI_COUNT_EQUAL(a, b) VF_COUNT(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)))
/* Lanes of 64 bits. */
#define VL_SET(x) _mm256_set1_epi64x(x)
#define VL_ADD(a, b) _mm256_add_epi64(a, b)
#define VL_SUB(a, b) _mm256_sub_epi64(a, b)
#define VL_MAX(a, b) _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b))
#define VL_MIN(a, b) _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b))
#define VL_MAXU(a, b) _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(VI_XOR(a, VL_SET(INT64_MIN)), VI_XOR(b, VL_SET(INT64_MIN))))
#define VL_SIGN(a) _mm256_cmpgt_epi64(_mm256_setzero_si256(), a)
#define VL_UPPER(a) _mm256_srli_epi64(a, 32)
#define VI_FROM_U16(p) _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p))), 16)

#include "compare_lanes.h"

#include <cpuid.h>

bool
compare_have_avx2(void)
{
    unsigned eax, ebx, ecx = 0, edx;
    bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0; /* no name of clang's builtin */
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#else

const compare_kernels compare_kernels_avx2 = {0};

bool
compare_have_avx2(void)
{
    return false;
}

#endif
