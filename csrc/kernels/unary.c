/* unary.c -- elementwise functions of one tensor: y[i] = f(x[i]).
 *
 * Each op is a record of up to three functions over rows of n elements: f32 (also bf16 and f16, converted
 * before and rounded once after), f64 and i64 (BOOL and all integers). The f32 function is told whether the reference is in its vector loop or in
 * the scalar rest of it: the two use different exponentials.
 *
 * Which formula PyTorch uses where (BSD-3-Clause; restated): docs/NUMERICS.md. Source of the vector functions: vecmath.h. */
#include "unary.h"

/* ---------------------------------------------------------------- the loop */

static void
unary_row_f32(const unary_context *context, bool is_vector, const char *x, int64_t x_stride, char *y, int64_t y_stride, int64_t n)
{
    port_dtype from = context->call->in[0]->dtype, to = context->call->out[0]->dtype;
    bool direct = from == PORT_F32 && to == PORT_F32 && x_stride == 4 && y_stride == 4;
    if (direct) {
        context->op->f32(context, is_vector, n, (const float *)(const void *)x, (float *)(void *)y);
        return;
    }
    _Alignas(64) float in[PORT_BLOCK], out[PORT_BLOCK];
    for (int64_t i = 0; i < n; i += PORT_BLOCK) {
        int64_t m = n - i < PORT_BLOCK ? n - i : PORT_BLOCK;
        port_load_f32(from, x + i * x_stride, x_stride, m, in);
        context->op->f32(context, is_vector, m, in, out);
        port_store_f32(to, out, m, y + i * y_stride, y_stride);
    }
}

/* Elements lie as they are where they are dense and of the type of computation, else they come in blocks. */
static void
unary_row_wide(const unary_context *context, const char *x, int64_t x_stride, char *y, int64_t y_stride, int64_t n)
{
    port_dtype from = context->call->in[0]->dtype, to = context->call->out[0]->dtype;
    port_dtype inner = context->compute == PORT_COMPUTE_F64 ? PORT_F64 : PORT_I64;
    bool x_direct = from == inner && x_stride == 8, y_direct = to == inner && y_stride == 8;
    _Alignas(64) union {
        double f64[PORT_BLOCK];
        int64_t i64[PORT_BLOCK];
    } in, out;
    for (int64_t i = 0, m = x_direct && y_direct ? n : PORT_BLOCK; i < n; i += m) {
        m = n - i < m ? n - i : m;
        const void *of = x_direct ? (const void *)(x + i * x_stride) : &in;
        void *into = y_direct ? (void *)(y + i * y_stride) : &out;
        if (inner == PORT_F64) {
            if (!x_direct) {
                port_load_f64(from, x + i * x_stride, x_stride, m, in.f64);
            }
            context->op->f64(context, m, of, into);
        } else {
            if (!x_direct) {
                port_load_i64(from, x + i * x_stride, x_stride, m, in.i64);
            }
            context->op->i64(context, m, of, into);
        }
        if (!y_direct && inner == PORT_F64) {
            port_store_f64(to, out.f64, m, y + i * y_stride, y_stride);
        } else if (!y_direct) {
            port_store_i64(to, out.i64, m, y + i * y_stride, y_stride);
        }
    }
}

/* The reference takes two vectors at a time from a contiguous row and computes what is left one by one. */
static void
unary_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const unary_context *context = opaque;
    const port_view *x = context->call->in[0];
    int64_t step = 2 * port_profile_lanes(context->call->profile, x->dtype);
    bool contiguous = strides[0] == (int64_t)port_dtype_size(context->call->out[0]->dtype) &&
                      strides[1] == (int64_t)port_dtype_size(x->dtype);
    int64_t bulk = contiguous ? size0 - size0 % step : 0;
    unary_half half = x->dtype == context->call->out[0]->dtype ? context->op->half : NULL;
    for (int64_t row = 0; row < size1; row++) {
        char *to = data[0] + row * strides[2];
        const char *from = data[1] + row * strides[3];
        if (contiguous && context->op->whole != NULL &&
            context->op->whole(x->dtype, context->call->out[0]->dtype, port_cpu_level_found(), size0, from, to)) {
            continue;
        }
        if (context->compute != PORT_COMPUTE_F32) {
            unary_row_wide(context, from, strides[1], to, strides[0], size0);
            continue;
        }
        if (bulk > 0 && (half == NULL || !half(context, bulk, from, to))) {
            unary_row_f32(context, true, from, strides[1], to, strides[0], bulk);
        }
        if (bulk < size0) {
            unary_row_f32(context, false, from + bulk * strides[1], strides[1], to + bulk * strides[0], strides[0],
                          size0 - bulk);
        }
    }
}

void
port_unary_run_with_grain(const port_kernel_call *call, const unary_op *op, int32_t level, int64_t grain)
{
    unary_context context = {call, op, level, port_compute_of(call->in[0]->dtype)};
    const port_view *operands[2] = {call->out[0], call->in[0]};
    port_iter iter = port_iter_elementwise(2, operands);
    port_iter_for_each_grain(&iter, grain, call->profile->num_threads, unary_loop, &context);
}

void
port_unary_run(const port_kernel_call *call, const unary_op *op, int32_t level)
{
    port_unary_run_with_grain(call, op, level, PORT_GRAIN_SIZE);
}

/* The same for an op that the reference has not built for AVX-512: its rests are those of avx2. */
static void
run_as_avx2(const port_kernel_call *call, const unary_op *op, int32_t level)
{
    port_profile profile = *call->profile;
    port_kernel_call as_avx2 = *call;
    profile.capability = profile.capability > PORT_CAP_AVX2 ? PORT_CAP_AVX2 : profile.capability;
    as_avx2.profile = &profile;
    port_unary_run(&as_avx2, op, level);
}

/* The same for an op whose f32 function calls the provider, which has threads of its own. */
static void
run_library(const port_kernel_call *call, const unary_op *op, int32_t level)
{
    unary_context context = {call, op, level, port_compute_of(call->in[0]->dtype)};
    const port_view *operands[2] = {call->out[0], call->in[0]};
    port_iter iter = port_iter_elementwise(2, operands);
    port_iter_for_each_serial(&iter, call->profile->num_threads, unary_loop, &context);
}

port_status
port_unary_check(const port_kernel_call *call, port_error *err)
{
    return port_check_same_shape("unary op", call, 1, err);
}

/* ---------------------------------------------------------------- functions of one element */

/* F32_OP, F64_OP, I64_OP(name, expression in v): y[i] = expression. */
#define F32_OP(name, expression)                                                                                     \
    F32_ALONE(name, expression)                                                                                      \
    PORT_UNARY_HALF(name, name##_of)
/* The same, not for halves by themselves. */
#define F32_ALONE(name, expression)                                                                                  \
    PORT_INLINE float name##_of(float v)                                                                             \
    {                                                                                                                \
        return (expression);                                                                                         \
    }                                                                                                                \
    F32_MAP(name, name##_of)
/* The same for a function that is there already. */
#define F32_MAP(name, function)                                                                                      \
    PORT_DEFINE_MAP(name##_map, function)                                                                            \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        (void)is_vector;                                                                                             \
        PORT_PICK_MAP(name##_map, context->level)(n, x, y);                                                          \
    }
#define F64_OP(name, expression) PORT_UNARY_EACH(double, f64, name, expression)
#define F64_VECTORS(name, expression) PORT_UNARY_VECTORS(double, f64, name, expression)
#define I64_VECTORS(name, expression) PORT_UNARY_VECTORS(int64_t, i64, name, expression)

/* floorf, whose vector form compilers do not take because it might trap: the nearest integer (of the sign of v if it is 0), less 1 if that
 * is above v. */
PORT_INLINE float
floor_of_f32(float v)
{
    float nearest = rintf(v);
    return nearest - port_select(nearest > v, 1.0f, 0.0f);
}

PORT_INLINE double
floor_of_f64(double v)
{
    double nearest = rint(v);
    return nearest - (double)(nearest > v);
}

/* Signs of halves are bits: (x & keep) ^ flip of four elements at a time. */
#define SIGN_BITS(suffix, attributes)                                                                                \
    attributes static void sign_bits_##suffix(int64_t n, const char *x, uint64_t keep, uint64_t flip, char *y)       \
    {                                                                                                                \
        for (int64_t at = 0; at < 2 * n; at += 64) {                                                                 \
            uint64_t bits[8];                                                                                        \
            memcpy(bits, x + at, sizeof(bits));                                                                      \
            for (int k = 0; k < 8; k++) {                                                                            \
                bits[k] = (bits[k] & keep) ^ flip;                                                                   \
            }                                                                                                        \
            memcpy(y + at, bits, sizeof(bits));                                                                      \
        }                                                                                                            \
    }
SIGN_BITS(ref, )
#if PORT_HAVE_AVX2
SIGN_BITS(avx2, PORT_TARGET_AVX2)
SIGN_BITS(avx512, PORT_TARGET_AVX512)
#endif
#define SIGN_HALF(name, keep, flip)                                                                                  \
    static bool name##_half(const unary_context *context, int64_t n, const char *x, char *y)                         \
    {                                                                                                                \
        port_dtype dtype = context->call->in[0]->dtype;                                                              \
        if ((dtype != PORT_BF16 && dtype != PORT_F16) || n % 32 != 0) {                                              \
            return false;                                                                                            \
        }                                                                                                            \
        PORT_PICK_MAP(sign_bits, context->level)(n, x, keep, flip, y);                                               \
        return true;                                                                                                 \
    }
F32_ALONE(neg, -v)
SIGN_HALF(neg, UINT64_MAX, 0x8000800080008000u)
F64_VECTORS(neg, -v)
I64_VECTORS(neg, (int64_t)(0 - (uint64_t)v))
F32_ALONE(abs, fabsf(v))
SIGN_HALF(abs, 0x7fff7fff7fff7fffu, 0)
F64_VECTORS(abs, fabs(v))
I64_VECTORS(abs, v < 0 ? (int64_t)(0 - (uint64_t)v) : v)
F32_OP(relu, port_select(v < 0.0f, 0.0f, v))
F64_VECTORS(relu, v < 0.0 ? 0.0 : v)
I64_VECTORS(relu, v > 0 ? v : 0)
F32_OP(rsqrt_once, 1.0f / sqrtf(v))
F64_VECTORS(rsqrt, 1.0 / sqrt(v))

/* v as the half that the call computes in; of F32 itself. */
static float
in_half(const unary_context *context, float v)
{
    switch (context->call->in[0]->dtype) {
    case PORT_BF16: return port_bf16_to_f32(port_f32_to_bf16(v));
    case PORT_F16: return port_f16_to_f32(port_f32_to_f16(v));
    default: return v;
    }
}

/* In the reference's scalar rest the root of a half is a half. */
static void
rsqrt_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    if (is_vector || context->call->in[0]->dtype == PORT_F32) {
        rsqrt_once_f32(context, is_vector, n, x, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = 1.0f / in_half(context, sqrtf(x[i]));
    }
}

F32_OP(reciprocal, 1.0f / v)
F64_VECTORS(reciprocal, 1.0 / v)
F32_OP(floor, floor_of_f32(v))
F64_VECTORS(floor, floor_of_f64(v))
I64_VECTORS(floor, v)
F32_OP(ceil, -floor_of_f32(-v))
F64_VECTORS(ceil, -floor_of_f64(-v))
I64_VECTORS(ceil, v)
F32_OP(round, rintf(v))
F64_VECTORS(round, rint(v))
I64_VECTORS(round, v)
F32_OP(sign, (float)(v > 0.0f) - (float)(v < 0.0f))
F64_VECTORS(sign, (double)(v > 0.0) - (double)(v < 0.0))
I64_VECTORS(sign, (v > 0) - (v < 0))
F32_OP(square, v *v)
F64_VECTORS(square, v *v)
I64_VECTORS(square, (int64_t)((uint64_t)v * (uint64_t)v))
F32_ALONE(logical_not, port_select(v == 0.0f, 1.0f, 0.0f))
F64_VECTORS(logical_not, v == 0.0 ? 1.0 : 0.0)
I64_VECTORS(logical_not, v == 0)

static void
bitwise_not_i64(const unary_context *context, int64_t n, const int64_t *x, int64_t *y)
{
    bool is_bool = context->call->in[0]->dtype == PORT_BOOL;
    for (int64_t i = 0; i < n; i++) {
        y[i] = is_bool ? x[i] == 0 : ~x[i];
    }
}

/* ---------------------------------------------------------------- exp, log, ... */

PORT_DEFINE_MAP(exp_map, port_exp_u10)
PORT_DEFINE_MAP(log_map, port_log_u10)
PORT_DEFINE_MAP(tanh_map, port_tanh_u10)
PORT_DEFINE_MAP(sqrt_map, sqrtf)
PORT_UNARY_HALF(exp, port_exp_u10)
PORT_UNARY_HALF(log, port_log_u10)
PORT_UNARY_HALF(tanh, port_tanh_u10)
PORT_UNARY_HALF(sqrt, sqrtf)

/* For half floats the reference converts and calls its vector functions, not MKL. */
bool
port_vml_run(const unary_context *context, port_vms function, int64_t n, const float *x, float *y)
{
    const long long high_accuracy = 0x2 | 0x140000 | 0x100; /* VML_HA, denormals kept, errors ignored: as ATen calls it */
    if (function == NULL || context->call->in[0]->dtype != PORT_F32) {
        return false;
    }
    for (int64_t i = 0; i < n; i += 1 << 30) {
        int64_t m = n - i < 1 << 30 ? n - i : 1 << 30;
        function((int)m, x + i, y + i, high_accuracy);
    }
    return true;
}

PORT_UNARY_VML(exp, PORT_PICK_MAP(exp_map, context->level)(n, x, y))
PORT_UNARY_VML(log, PORT_PICK_MAP(log_map, context->level)(n, x, y))
PORT_UNARY_VML(tanh, PORT_PICK_MAP(tanh_map, context->level)(n, x, y))
PORT_UNARY_VML(sin, PORT_LIBM_LOOP(sinf))
PORT_UNARY_VML(cos, PORT_LIBM_LOOP(cosf))
PORT_UNARY_VML(sqrt, PORT_PICK_MAP(sqrt_map, context->level)(n, x, y))
PORT_UNARY_VML(erf, PORT_LIBM_LOOP(erff))
F64_OP(exp, exp(v))
F64_OP(log, log(v))
F64_OP(tanh, tanh(v))
F64_OP(sin, sin(v))
F64_OP(cos, cos(v))
F64_VECTORS(sqrt, sqrt(v))
F64_OP(erf, erf(v))

/* ---------------------------------------------------------------- pow with a number, clamp */

PORT_INLINE float
cube_of(float v)
{
    return v * v * v;
}

PORT_INLINE float
inverse_square_of(float v)
{
    return 1.0f / (v * v);
}

PORT_DEFINE_MAP(cube_map, cube_of)
PORT_DEFINE_MAP(inverse_square_map, inverse_square_of)
PORT_DEFINE_MAP2(pow_map, port_pow_u10)

/* In BF16 the reference rounds the square on its way to the cube and to its inverse. */
static void
pow_bf16(const unary_context *context, float exponent, int64_t n, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        float square = in_half(context, x[i] * x[i]);
        y[i] = exponent == 3.0f ? square * x[i] : 1.0f / square;
    }
}

/* The reference's scalar rest raises to the exponent as a double. */
static void
pow_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    const port_pow_params *params = context->call->params;
    float exponent = (float)params->exponent.d;
    if (exponent == 2.0f) {
        PORT_PICK_MAP(square_map, context->level)(n, x, y);
    } else if (context->call->in[0]->dtype == PORT_BF16 && (exponent == 3.0f || exponent == -2.0f)) {
        pow_bf16(context, exponent, n, x, y);
    } else if (exponent == 3.0f) {
        PORT_PICK_MAP(cube_map, context->level)(n, x, y);
    } else if (exponent == -2.0f) {
        PORT_PICK_MAP(inverse_square_map, context->level)(n, x, y);
    } else if (port_has_vector_functions(context, is_vector)) {
        PORT_PICK_MAP(pow_map, context->level)(n, x, 1, &exponent, 0, y);
    } else {
        for (int64_t i = 0; i < n; i++) {
            y[i] = is_vector ? powf(x[i], exponent) : (float)pow((double)x[i], params->exponent.d);
        }
    }
}

PORT_HALF_MAP(cube, cube_of(v))
PORT_HALF_MAP(raised, port_pow_u10(v, p))

static bool
pow_half(const unary_context *context, int64_t n, const char *x, char *y)
{
    float exponent = (float)((const port_pow_params *)context->call->params)->exponent.d;
    port_dtype dtype = context->call->in[0]->dtype;
    if (exponent == 2.0f) {
        return square_half(context, n, x, y);
    }
    if (exponent == 3.0f && dtype == PORT_F16) {
        return cube_halves(dtype, context->level, n, x, y, 0.0f, 0.0f);
    }
    return exponent != 3.0f && exponent != -2.0f && port_has_vector_functions(context, true) && raised_halves(dtype, context->level, n, x, y, exponent, 0.0f);
}

static void
pow_f64(const unary_context *context, int64_t n, const double *x, double *y)
{
    const port_pow_params *params = context->call->params;
    double exponent = params->exponent.d;
    for (int64_t i = 0; i < n; i++) {
        double v = x[i];
        if (exponent == 2.0) {
            y[i] = v * v;
        } else if (exponent == 3.0) {
            y[i] = v * v * v;
        } else {
            y[i] = exponent == -2.0 ? 1.0 / (v * v) : pow(v, exponent);
        }
    }
}

static void
pow_i64(const unary_context *context, int64_t n, const int64_t *x, int64_t *y)
{
    const port_pow_params *params = context->call->params;
    for (int64_t i = 0; i < n; i++) {
        y[i] = port_int_pow(x[i], params->exponent.i);
    }
}

F32_OP(copy, v)
F64_VECTORS(copy, v)
F32_OP(one, port_select(v != v, 1.0f, 1.0f))
F64_VECTORS(one, v != v ? 1.0 : 1.0)

/* torch rewrites some exponents into other ops before it comes to `by_pow`. */
static void
pow_scalar_by(const port_kernel_call *call, int32_t level, const unary_op *by_pow)
{
    static const unary_op by_sqrt = {sqrt_f32, sqrt_f64, pow_i64, sqrt_half, NULL}, by_rsqrt = {rsqrt_f32, rsqrt_f64, pow_i64, rsqrt_once_half, NULL},
                          by_division = {reciprocal_f32, reciprocal_f64, pow_i64, reciprocal_half, NULL},
                          by_copy = {copy_f32, copy_f64, pow_i64, copy_half, NULL}, by_one = {one_f32, one_f64, pow_i64, one_half, NULL};
    double exponent = ((const port_pow_params *)call->params)->exponent.d;
    const unary_op *op = by_pow;
    if (call->in[0]->dtype != PORT_F16) { /* which torch leaves to pow */
        op = exponent == 0.5 ? &by_sqrt : op;
        op = exponent == -0.5 ? &by_rsqrt : op;
        op = exponent == -1.0 ? &by_division : op;
    }
    op = exponent == 1.0 ? &by_copy : op;
    op = exponent == 0.0 ? &by_one : op;
    if (op == &by_sqrt) {
        run_library(call, op, level);
    } else {
        port_unary_run(call, op, level);
    }
}

static void
pow_scalar_any(const port_kernel_call *call, int32_t level)
{
    static const unary_op by_pow = {pow_f32, pow_f64, pow_i64, pow_half, NULL};
    pow_scalar_by(call, level, &by_pow);
}

/* The variant "strict": every element as in the scalar rest, wherever it stands. */
static void
pow_strict_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    (void)is_vector;
    pow_f32(context, false, n, x, y);
}

static void
pow_scalar_strict_run(const port_kernel_call *call)
{
    static const unary_op by_pow = {pow_strict_f32, pow_f64, pow_i64, NULL, NULL};
    pow_scalar_by(call, 0, &by_pow);
}

static port_status
pow_scalar_check(const port_kernel_call *call, port_error *err)
{
    const port_pow_params *params = call->params;
    if (params == NULL || params->exponent.kind == PORT_SCALAR_NONE) {
        return port_fail(err, PORT_E_VALUE, "pow_scalar: the exponent is missing");
    }
    if (!port_dtype_is_float(call->in[0]->dtype) && params->exponent.d < 0.0) {
        return port_fail(err, PORT_E_VALUE, "pow_scalar: integers to negative powers (%g) are not allowed",
                         params->exponent.d);
    }
    return port_check_same_shape("pow_scalar", call, 1, err);
}

/* A NaN stays; a bound that is one does nothing. */
PORT_INLINE float
clamped(float v, float low, float high)
{
    v = port_select(v < low, low, v);
    return port_select(v > high, high, v);
}

PORT_DEFINE_MAP_PQ(clamp_map, clamped)
PORT_HALF_MAP(clamp, clamped(v, p, q))

static void
clamp_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)
{
    (void)is_vector;
    const port_clamp_params *params = context->call->params;
    float low = params->min.kind == PORT_SCALAR_NONE ? -INFINITY : (float)params->min.d;
    float high = params->max.kind == PORT_SCALAR_NONE ? INFINITY : (float)params->max.d;
    PORT_PICK_MAP(clamp_map, context->level)(n, x, low, high, y);
}

static bool
clamp_half(const unary_context *context, int64_t n, const char *x, char *y)
{
    const port_clamp_params *params = context->call->params;
    float low = params->min.kind == PORT_SCALAR_NONE ? -INFINITY : (float)params->min.d;
    float high = params->max.kind == PORT_SCALAR_NONE ? INFINITY : (float)params->max.d;
    return clamp_halves(context->call->in[0]->dtype, context->level, n, x, y, low, high);
}

static void
clamp_f64(const unary_context *context, int64_t n, const double *x, double *y)
{
    const port_clamp_params *params = context->call->params;
    double low = params->min.kind == PORT_SCALAR_NONE ? -(double)INFINITY : params->min.d;
    double high = params->max.kind == PORT_SCALAR_NONE ? (double)INFINITY : params->max.d;
    for (int64_t i = 0; i < n; i++) {
        double v = x[i] < low ? low : x[i];
        y[i] = v > high ? high : v;
    }
}

static void
clamp_i64(const unary_context *context, int64_t n, const int64_t *x, int64_t *y)
{
    const port_clamp_params *params = context->call->params;
    int64_t low = params->min.kind == PORT_SCALAR_NONE ? INT64_MIN : params->min.i;
    int64_t high = params->max.kind == PORT_SCALAR_NONE ? INT64_MAX : params->max.i;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = x[i] < low ? low : x[i];
        y[i] = v > high ? high : v;
    }
}

static port_status
clamp_check(const port_kernel_call *call, port_error *err)
{
    if (call->params == NULL) {
        return port_fail(err, PORT_E_VALUE, "clamp: its bounds are missing");
    }
    return port_check_same_shape("clamp", call, 1, err);
}

/* ---------------------------------------------------------------- rows */

#define RUN_BY(runner, name, f32, f64, i64, half) RUN_WHOLE(runner, name, f32, f64, i64, half, NULL)
#define RUN_WHOLE(runner, name, f32, f64, i64, half, whole)                                                          \
    static void name##_any(const port_kernel_call *call, int32_t level)                                              \
    {                                                                                                                \
        static const unary_op op = {f32, f64, i64, half, whole};                                                     \
        runner(call, &op, level);                                                                                    \
    }                                                                                                                \
    PORT_RUN_LEVELS(name, name##_any)
#define RUN(name, i64, half) RUN_BY(port_unary_run, name, name##_f32, name##_f64, i64, half)
#define RUN_LIBRARY(name, half) RUN_BY(run_library, name, name##_f32, name##_f64, NULL, half)

PORT_RUN_LEVELS(pow_scalar, pow_scalar_any)
RUN(clamp, clamp_i64, clamp_half)
RUN_WHOLE(port_unary_run, neg, neg_f32, neg_f64, neg_i64, neg_half, port_whole_neg)
RUN(abs, abs_i64, abs_half)
RUN(relu, relu_i64, relu_half)
RUN_BY(run_as_avx2, rsqrt, rsqrt_f32, rsqrt_f64, NULL, rsqrt_once_half)
RUN(reciprocal, NULL, reciprocal_half)
RUN(floor, floor_i64, floor_half)
RUN(ceil, ceil_i64, ceil_half)
RUN(round, round_i64, round_half)
RUN(sign, sign_i64, sign_half)
RUN(square, square_i64, square_half)
RUN_WHOLE(port_unary_run, logical_not, logical_not_f32, logical_not_f64, logical_not_i64, NULL, port_whole_logical_not)

RUN_LIBRARY(sin, NULL)
RUN_LIBRARY(cos, NULL)
RUN_LIBRARY(sqrt, sqrt_half)
RUN_LIBRARY(erf, NULL)
RUN_LIBRARY(exp, exp_half)
RUN_LIBRARY(log, log_half)
RUN_LIBRARY(tanh, tanh_half)

static void
bitwise_not_run(const port_kernel_call *call)
{
    static const unary_op op = {.i64 = bitwise_not_i64, .whole = port_whole_bitwise_not};
    port_unary_run(call, &op, 0);
}

#define FLOATS(name) PORT_LEVEL_ROWS(name, port_unary_check)
#define INTS(name) PORT_INT_ROWS(#name, "ref", 0, port_unary_check, name##_run)

const port_kernel_row port_unary_rows[] = {
    PORT_LEVEL_ROWS(pow_scalar, pow_scalar_check),
    PORT_INT_ROWS("pow_scalar", "ref", 0, pow_scalar_check, pow_scalar_run),
    PORT_FLOAT_ROWS("pow_scalar", "strict", 0, pow_scalar_check, pow_scalar_strict_run),
    PORT_LEVEL_ROWS(clamp, clamp_check),
    PORT_INT_ROWS("clamp", "ref", 0, clamp_check, clamp_run),
    FLOATS(neg),
    INTS(neg),
    FLOATS(abs),
    INTS(abs),
    FLOATS(relu),
    INTS(relu),
    FLOATS(rsqrt),
    PORT_ROW("rsqrt", PORT_F32, "ieee", 0, port_unary_check, rsqrt_run),
    FLOATS(reciprocal),
    FLOATS(floor),
    INTS(floor),
    FLOATS(ceil),
    INTS(ceil),
    FLOATS(round),
    INTS(round),
    FLOATS(sign),
    INTS(sign),
    PORT_BOOL_ROW("sign", "ref", 0, port_unary_check, sign_run),
    FLOATS(square),
    INTS(square),
    FLOATS(logical_not),
    INTS(logical_not),
    PORT_BOOL_ROW("logical_not", "ref", 0, port_unary_check, logical_not_run),
    INTS(bitwise_not),
    PORT_BOOL_ROW("bitwise_not", "ref", 0, port_unary_check, bitwise_not_run),
    FLOATS(sin),
    FLOATS(cos),
    FLOATS(sqrt),
    FLOATS(erf),
    FLOATS(exp),
    FLOATS(log),
    FLOATS(tanh),
    {.op = NULL},
};
