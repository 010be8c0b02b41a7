/* gelu_onednn.h -- x * Phi(x) as oneDNN's elementwise kernels compute it, which PyTorch calls for gelu (erf) while mkldnn is on.
 * Private to csrc/kernels/.
 *
 * Constants and order of operations are those of oneDNN's eltwise injector (Intel, Apache-2.0), restated here for one lane. oneDNN
 * chooses by CPU, not by ATEN_CPU_CAPABILITY:
 *   avx512  erf(x / sqrt 2) by one of 25 polynomials of degree 5, chosen by exponent and two bits of the mantissa of |x|
 *   avx2    Abramowitz and Stegun 7.1.26 with an exp of its own
 * Every element has the same formula: there is no vector loop and rest. */
#ifndef PORT_GELU_ONEDNN_H
#define PORT_GELU_ONEDNN_H

#include "exp_onednn.h"
#include "halves.h"

enum { PORT_GELU_PIECES = 32, PORT_GELU_DEGREE = 5 }; /* 25 are used; 32 fill two vectors of 16 */

/* Coefficient of |x|^row in each piece. Piece 23 is erf = 1, piece 24 erf = |x| * 0 + 1 for what is larger still (and NaN). */
static const float port_gelu_pieces[PORT_GELU_DEGREE + 1][PORT_GELU_PIECES] = {
    {-0x1.e59728p-50f, 0x1.04ef24p-26f, 0x1.039818p-24f, 0x1.a47a94p-23f, 0x1.35889ap-21f, 0x1.e6db1p-20f,
     0x1.dd0452p-18f, 0x1.714776p-16f, 0x1.cf4426p-15f, 0x1.800676p-13f, 0x1.54b43ap-11f, 0x1.c6b0c6p-10f,
     0x1.f051e4p-9f, 0x1.116296p-7f, 0x1.a2bda6p-7f, -0x1.a0646cp-9f, -0x1.1b1cbcp-4f, -0x1.1579b2p-2f,
     -0x1.183344p-1f, -0x1.99665p-2f, 0x1.2ed9dap-3f, 0x1.8e1b32p-1f, 0x1.f5765p-1f, 0x1p0f, 0.0f},
    {0x1.988454p-1f, 0x1.98843ep-1f, 0x1.98840ep-1f, 0x1.988396p-1f, 0x1.988276p-1f, 0x1.987f5ap-1f,
     0x1.98745ep-1f, 0x1.985a8p-1f, 0x1.9828d4p-1f, 0x1.978682p-1f, 0x1.95a118p-1f, 0x1.91f19ep-1f, 0x1.8bf58ep-1f,
     0x1.809c0ep-1f, 0x1.77301ep-1f, 0x1.91bfe6p-1f, 0x1.f16436p-1f, 0x1.760e08p0f, 0x1.033864p1f, 0x1.ca6dacp0f,
     0x1.02663cp0f, 0x1.d90d08p-3f, 0x1.31f26cp-6f, 0.0f, 0x1p0f},
    {-0x1.42e7e8p-19f, 0x1.6bc99ep-17f, 0x1.e5ff12p-16f, 0x1.18477cp-14f, 0x1.2ea6b8p-13f, 0x1.56556p-12f,
     0x1.c1f5b6p-11f, 0x1.f372cp-10f, 0x1.dca922p-9f, 0x1.149d8ap-7f, 0x1.4b5518p-6f, 0x1.4271b2p-5f,
     0x1.0e6fa8p-4f, 0x1.bf6ccp-4f, 0x1.1e4f56p-3f, 0x1.280096p-4f, -0x1.1dfbd6p-3f, -0x1.3b2d86p-1f,
     -0x1.13b6bp0f, -0x1.db312ep-1f, -0x1.ed3f7p-2f, -0x1.89f15p-4f, -0x1.bcc844p-8f, 0.0f, 0.0f},
    {-0x1.103432p-3f, -0x1.108aep-3f, -0x1.10c736p-3f, -0x1.11306ep-3f, -0x1.11e812p-3f, -0x1.13572ap-3f,
     -0x1.16cdap-3f, -0x1.1c8014p-3f, -0x1.249bfp-3f, -0x1.37bc04p-3f, -0x1.5e3392p-3f, -0x1.92637ep-3f,
     -0x1.d0bf78p-3f, -0x1.1392bep-2f, -0x1.2d9794p-2f, -0x1.008954p-2f, -0x1.0aa1e4p-3f, 0x1.9fad42p-4f,
     0x1.29904cp-2f, 0x1.f268bep-3f, 0x1.d9d922p-4f, 0x1.48cadp-6f, 0x1.43c014p-10f, 0.0f, 0.0f},
    {-0x1.7ac3b6p-11f, 0x1.e12f46p-12f, 0x1.b08bb8p-11f, 0x1.63f46ap-10f, 0x1.19df7p-9f, 0x1.ca756cp-9f,
     0x1.95ca4ep-8f, 0x1.442e24p-7f, 0x1.d8b08p-7f, 0x1.814e06p-6f, 0x1.3b9832p-5f, 0x1.c6cadap-5f, 0x1.2ab20ep-4f,
     0x1.7f322p-4f, 0x1.aa7ed2p-4f, 0x1.6fb9dep-4f, 0x1.c73d7cp-5f, -0x1.ddbc9p-11f, -0x1.457cd2p-5f,
     -0x1.0839e2p-5f, -0x1.c9eb56p-7f, -0x1.12f464p-9f, -0x1.d7e7p-14f, 0.0f, 0.0f},
    {0x1.6fb018p-6f, 0x1.36c0ap-6f, 0x1.2f1a22p-6f, 0x1.25d0ap-6f, 0x1.1a0b16p-6f, 0x1.0908a8p-6f, 0x1.d9ac46p-7f,
     0x1.990496p-7f, 0x1.54f26ap-7f, 0x1.c1672p-8f, 0x1.0ca358p-9f, -0x1.465ea6p-9f, -0x1.a85f4p-8f,
     -0x1.58a6ccp-7f, -0x1.92593cp-7f, -0x1.54f54cp-7f, -0x1.aaba08p-8f, -0x1.0474ecp-10f, 0x1.20555p-9f,
     0x1.c4b4fcp-10f, 0x1.63ef24p-11f, 0x1.7086eap-14f, 0x1.1376b4p-18f, 0.0f, 0.0f},
};

/* The piece of |x|: 1 up to where four per octave begin; beyond 5.5425 erf is 1. */
PORT_INLINE int32_t
port_gelu_piece(float magnitude)
{
    int32_t piece = (int32_t)((uint32_t)port_f32_bits(magnitude) + 0xc21fffffu) >> 21;
    piece = piece < 1 ? 1 : piece;
    piece = piece > 24 ? 24 : piece;
    int32_t beyond = -(int32_t)(magnitude > 0x1.62b9dcp2f);
    return (23 & beyond) | (piece & ~beyond);
}

PORT_INLINE float
port_gelu_onednn_avx512(float x)
{
    float magnitude = fabsf(x);
    int32_t piece = port_gelu_piece(magnitude);
    float erf = port_gelu_pieces[5][piece];
    for (int degree = 4; degree >= 0; degree--) {
        erf = fmaf(erf, magnitude, port_gelu_pieces[degree][piece]);
    }
    return x * (port_sign_of(erf, x) + 1.0f) * 0.5f;
}

PORT_INLINE float
port_gelu_onednn_avx2(float x)
{
    float u = x * 0x1.6a09e6p-1f;
    float t = 1.0f / fmaf(0x1.4f740ap-2f, fabsf(u), 1.0f);
    float e = -port_exp_onednn(-(u * u)) * t;
    float r = 0x1.0fb844p0f;
    r = fmaf(r, t, -0x1.7401c6p0f);
    r = fmaf(r, t, 0x1.6be1c6p0f);
    r = fmaf(r, t, -0x1.23531cp-2f);
    r = fmaf(r, t, 0x1.04f20cp-2f);
    float erf = port_sign_of(fmaf(e, r, 1.0f), x);
    float half = x * 0.5f;
    return fmaf(erf, half, half);
}

/* The maps of both; with AVX-512 a lookup is one permutation of two vectors. */
PORT_DEFINE_MAP(port_gelu_onednn_avx2_map, port_gelu_onednn_avx2)
#if PORT_HAVE_AVX2
PORT_TARGET_AVX512 static inline __m512
port_gelu_onednn_avx512_16(__m512 v)
{
    __m512 magnitude = _mm512_abs_ps(v), erf = _mm512_setzero_ps();
    __m512i piece = _mm512_add_epi32(_mm512_castps_si512(magnitude), _mm512_set1_epi32((int)0xc21fffffu));
    piece = _mm512_max_epi32(_mm512_srai_epi32(piece, 21), _mm512_set1_epi32(1));
    piece = _mm512_min_epi32(piece, _mm512_set1_epi32(24));
    __mmask16 beyond = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0x1.62b9dcp2f), _CMP_GT_OQ);
    piece = _mm512_mask_mov_epi32(piece, beyond, _mm512_set1_epi32(23));
#pragma GCC unroll 6
    for (int degree = PORT_GELU_DEGREE; degree >= 0; degree--) {
        __m512 low = _mm512_loadu_ps(port_gelu_pieces[degree]), high = _mm512_loadu_ps(port_gelu_pieces[degree] + 16);
        __m512 factor = _mm512_permutex2var_ps(low, piece, high);
        erf = degree == PORT_GELU_DEGREE ? factor : _mm512_fmadd_ps(erf, magnitude, factor);
    }
    erf = _mm512_xor_ps(erf, _mm512_and_ps(v, _mm512_set1_ps(-0.0f)));
    return _mm512_mul_ps(_mm512_mul_ps(v, _mm512_add_ps(erf, _mm512_set1_ps(1.0f))), _mm512_set1_ps(0.5f));
}
#endif
PORT_DEFINE_MAP_OWN_16(port_gelu_onednn_avx512_map, port_gelu_onednn_avx512, port_gelu_onednn_avx512_16)
PORT_HALF_MAP_OWN_16(port_gelu_onednn, port_gelu_onednn_avx512(v), port_gelu_onednn_avx512_16)

#endif /* PORT_GELU_ONEDNN_H */
