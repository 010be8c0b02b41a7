/* gelu.c -- sigmoid, silu and gelu: y[i] = f(x[i]) with an exponential or an error function in it.
 *     sigmoid  1 / (1 + e^-x)     silu  x sigmoid(x)     gelu  x / 2 (1 + erf(x / sqrt(2))), or its approximation by tanh
 * Which formula PyTorch uses where (BSD-3-Clause; restated): docs/NUMERICS.md. Source of the vector functions: vecmath.h;
 * of gelu with mkldnn on: gelu_onednn.h. */
#include "gelu_onednn.h"
#include "unary.h"

PORT_INLINE float
sigmoid_u10(float v)
{
    return 1.0f / (1.0f + port_exp_u10(0.0f - v));
}

PORT_INLINE float
silu_u10(float v)
{
    return v / (1.0f + port_exp_u10(0.0f - v));
}

PORT_INLINE float
gelu_erf_as(float v)
{
    return v * 0.5f * (1.0f + port_erf_as(v * 0.70710678118654752440f));
}

#define GELU_BETA ((float)(1.41421356237309504880 * 1.12837916709551257390 * 0.5))
#define GELU_KAPPA 0.044715f

PORT_INLINE float
gelu_tanh_u10(float v)
{
    float inner = GELU_BETA * fmaf(GELU_KAPPA, v * v * v, v);
    return 0.5f * v * (1.0f + port_tanh_u10(inner));
}

#if PORT_HAVE_AVX2
/* AVX-512 has an exponential in fewer steps. */
PORT_TARGET_AVX512 static inline __m512
sigmoid_16(__m512 v)
{
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, port_exp_u10_16(_mm512_sub_ps(_mm512_setzero_ps(), v))));
}

PORT_TARGET_AVX512 static inline __m512
silu_16(__m512 v)
{
    return _mm512_div_ps(v, _mm512_add_ps(_mm512_set1_ps(1.0f), port_exp_u10_16(_mm512_sub_ps(_mm512_setzero_ps(), v))));
}
#endif
PORT_DEFINE_MAP_OWN_16(sigmoid_map, sigmoid_u10, sigmoid_16)
PORT_DEFINE_MAP_OWN_16(silu_map, silu_u10, silu_16)
PORT_DEFINE_MAP(gelu_erf_map, gelu_erf_as)
PORT_DEFINE_MAP(gelu_tanh_map, gelu_tanh_u10)

PORT_HALF_MAP_OWN_16(sigmoid, sigmoid_u10(v), sigmoid_16)
PORT_HALF_MAP_OWN_16(silu, silu_u10(v), silu_16)
PORT_HALF_MAP(gelu_erf, gelu_erf_as(v))
PORT_HALF_MAP(gelu_tanh, gelu_tanh_u10(v))
PORT_UNARY_VECTOR_HALF(sigmoid)
PORT_UNARY_VECTOR_HALF(silu)
PORT_UNARY_VECTOR_HALF(gelu_erf)
PORT_UNARY_VECTOR_HALF(gelu_tanh)

static void
sigmoid_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    if (port_has_vector_functions(context, is_vector)) {
        PORT_PICK_MAP(sigmoid_map, context->level)(n, x, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = 1.0f / (1.0f + expf(-x[i]));
    }
}

static void
silu_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    if (port_has_vector_functions(context, is_vector)) {
        PORT_PICK_MAP(silu_map, context->level)(n, x, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

PORT_UNARY_EACH(double, f64, sigmoid, 1.0 / (1.0 + exp(-v)))
PORT_UNARY_EACH(double, f64, silu, v / (1.0 + exp(-v)))

static void
gelu_erf_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    if (port_has_vector_functions(context, is_vector)) {
        PORT_PICK_MAP(gelu_erf_map, context->level)(n, x, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * 0.5f * (1.0f + erff(x[i] * 0.70710678118654752440f));
    }
}

static void
gelu_tanh_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    if (port_has_vector_functions(context, is_vector)) {
        PORT_PICK_MAP(gelu_tanh_map, context->level)(n, x, y);
        return;
    }
    bool fused = context->call->profile->capability != PORT_CAP_DEFAULT;
    for (int64_t i = 0; i < n; i++) {
        float cube = x[i] * x[i] * x[i];
        float inner = GELU_BETA * (fused ? fmaf(GELU_KAPPA, cube, x[i]) : x[i] + GELU_KAPPA * cube);
        y[i] = 0.5f * x[i] * (1.0f + tanhf(inner));
    }
}

static void
gelu_onednn_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    (void)is_vector;
    if (context->call->profile->onednn_avx512) {
        PORT_PICK_MAP(port_gelu_onednn_avx512_map, context->level)(n, x, y);
    } else {
        PORT_PICK_MAP(port_gelu_onednn_avx2_map, context->level)(n, x, y);
    }
}

static bool
gelu_onednn_half(const unary_context *context, int64_t n, const char *x, char *y)
{
    return port_gelu_onednn_halves(context->call->in[0]->dtype, context->level, n, x, y, 0.0f, 0.0f);
}

/* What PyTorch hands to oneDNN: more than one element, row-major, of f32, or of bf16 where the CPU has AVX-512. */
static bool
gelu_goes_to_onednn(const port_kernel_call *call)
{
    port_dtype dtype = call->in[0]->dtype;
    bool taken = dtype == PORT_F32 || (dtype == PORT_BF16 && call->profile->onednn_avx512);
    return call->profile->mkldnn && taken && port_view_elems(call->in[0]) > 1 && port_view_is_contiguous(call->in[0]);
}

PORT_UNARY_EACH(double, f64, gelu_erf, v * 0.5 * (1.0 + erf(v * 0.70710678118654752440)))
PORT_UNARY_EACH(double, f64, gelu_tanh, 0.5 * v * (1.0 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v))))

/* The reference deals larger ones to all of its threads. */
int64_t
port_gelu_grain(int64_t n, int32_t num_threads)
{
    return n <= 0x4000 ? PORT_GRAIN_SIZE : (n > num_threads ? n / num_threads : 1);
}

static void
gelu_any(const port_kernel_call *call, int32_t level)
{
    static const unary_op by_erf = {gelu_erf_f32, gelu_erf_f64, NULL, gelu_erf_half, NULL}, by_tanh = {gelu_tanh_f32, gelu_tanh_f64, NULL, gelu_tanh_half, NULL},
                          by_onednn = {gelu_onednn_f32, NULL, NULL, gelu_onednn_half, NULL};
    const port_gelu_params *params = call->params;
    const unary_op *erf_op = gelu_goes_to_onednn(call) ? &by_onednn : &by_erf;
    int64_t grain = port_gelu_grain(port_view_elems(call->in[0]), call->profile->num_threads);
    port_unary_run_with_grain(call, params != NULL && params->tanh_approximation ? &by_tanh : erf_op, level, grain);
}

/* ---------------------------------------------------------------- rows */

#define RUN(name)                                                                                                    \
    static void name##_any(const port_kernel_call *call, int32_t level)                                              \
    {                                                                                                                \
        static const unary_op op = {name##_f32, name##_f64, NULL, name##_half, NULL};                                \
        port_unary_run(call, &op, level);                                                                            \
    }                                                                                                                \
    PORT_RUN_LEVELS(name, name##_any)
RUN(sigmoid)
RUN(silu)
PORT_RUN_LEVELS(gelu, gelu_any)

const port_kernel_row port_gelu_rows[] = {
    PORT_LEVEL_ROWS(sigmoid, port_unary_check),
    PORT_LEVEL_ROWS(silu, port_unary_check),
    PORT_LEVEL_ROWS(gelu, port_unary_check),
    {.op = NULL},
};
