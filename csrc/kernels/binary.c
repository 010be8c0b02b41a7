/* binary.c -- elementwise functions of two tensors, where, clamp: y[i] = f(a[i], b[i]).
 *
 * Operands are broadcast by stride 0 and have one dtype. Records as in unary.c: f32 (also bf16, f16: computed in f32,
 * rounded once), f64, i64. Comparisons compute 0 or 1 in the operands' type and are stored as BOOL.
 * Formulas: PyTorch's BinaryOpsKernel (BSD-3-Clause; restated), see docs/NUMERICS.md. */
#include "binary.h"
#include "../core/plane.h"
#include "halves.h"

/* ---------------------------------------------------------------- the loop */

typedef struct binary_row {
    const char *a, *b;
    char *y;
    int64_t a_stride, b_stride, y_stride;
} binary_row;

static binary_row
row_advance(binary_row row, int64_t n)
{
    row.a += n * row.a_stride;
    row.b += n * row.b_stride;
    row.y += n * row.y_stride;
    return row;
}

/* n <= PORT_BLOCK elements of an operand as f32: where they are, or loaded into `room`. A number stays one. */
static const float *
operand_f32(port_dtype dtype, const char *from, int64_t stride, int64_t n, float *room)
{
    if (dtype == PORT_F32 && (stride == 4 || stride == 0)) {
        return (const float *)(const void *)from;
    }
    port_load_f32(dtype, from, stride, stride == 0 ? 1 : n, room);
    return room;
}

static void
binary_row_f32(const binary_context *context, bool is_vector, binary_row row, int64_t n)
{
    port_dtype from = context->call->in[0]->dtype, to = context->call->out[0]->dtype;
    bool y_direct = to == PORT_F32 && row.y_stride == 4;
    bool direct = from == PORT_F32 && y_direct && (row.a_stride == 4 || row.a_stride == 0) &&
                  (row.b_stride == 4 || row.b_stride == 0);
    _Alignas(64) float in_a[PORT_BLOCK], in_b[PORT_BLOCK], out[PORT_BLOCK];
    int64_t step = direct ? n : PORT_BLOCK;
    for (int64_t i = 0; i < n; i += step) {
        int64_t m = n - i < step ? n - i : step;
        binary_row at = row_advance(row, i);
        const float *a = operand_f32(from, at.a, at.a_stride, m, in_a), *b = context->number;
        b = b == NULL ? operand_f32(from, at.b, at.b_stride, m, in_b) : b;
        context->op->f32(context, is_vector, m, a, at.a_stride != 0, b, at.b_stride != 0 && context->number == NULL,
                         y_direct ? (float *)(void *)at.y : out);
        if (!y_direct) {
            port_store_f32(to, out, m, at.y, at.y_stride);
        }
    }
}

/* n elements of an operand as `inner`, F64 or I64: where they are, or loaded into `room`. */
static const void *
operand_wide(port_dtype inner, port_dtype dtype, const char *from, int64_t stride, int64_t n, void *room)
{
    if (dtype == inner && stride == 8) {
        return from;
    }
    if (inner == PORT_F64) {
        port_load_f64(dtype, from, stride, n, room);
    } else {
        port_load_i64(dtype, from, stride, n, room);
    }
    return room;
}

static void
binary_row_wide(const binary_context *context, binary_row row, int64_t n)
{
    port_dtype from = context->call->in[0]->dtype, to = context->call->out[0]->dtype;
    port_dtype inner = context->compute == PORT_COMPUTE_F64 ? PORT_F64 : PORT_I64;
    bool y_direct = to == inner && row.y_stride == 8, direct = from == inner && y_direct && row.a_stride == 8 && row.b_stride == 8;
    _Alignas(64) int64_t room[3][PORT_BLOCK];
    for (int64_t i = 0, m = direct ? n : PORT_BLOCK; i < n; i += m) {
        m = n - i < m ? n - i : m;
        binary_row at = row_advance(row, i);
        const void *a = operand_wide(inner, from, at.a, at.a_stride, m, room[0]), *b = operand_wide(inner, from, at.b, at.b_stride, m, room[1]);
        void *y = y_direct ? (void *)at.y : room[2];
        if (inner == PORT_F64) {
            context->op->f64(context, m, a, b, y);
        } else {
            context->op->i64(context, m, a, b, y);
        }
        if (!y_direct && inner == PORT_F64) {
            port_store_f64(to, (const double *)y, m, at.y, at.y_stride);
        } else if (!y_direct) {
            port_store_i64(to, (const int64_t *)y, m, at.y, at.y_stride);
        }
    }
}

enum { TILE = PORT_PLANE_TILE, TILE_COLS = 128 }; /* rows and columns that are turned at a time */

/* Rows of f32 whose operands lie across: an operand whose rows are dense the other way is turned tile by tile, so that each of its cache
 * lines is read once. No row has a vector loop here, and so no element cares which piece it is in. */
static void
binary_turned(const binary_context *context, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    _Alignas(64) float room[2][TILE][TILE_COLS];
    for (int64_t r = 0; r < size1; r += TILE) {
        int64_t rows = size1 - r < TILE ? size1 - r : TILE;
        for (int64_t c = 0; c < size0; c += TILE_COLS) {
            int64_t cols = size0 - c < TILE_COLS ? size0 - c : TILE_COLS;
            binary_row row[TILE];
            for (int64_t i = 0; i < rows; i++) {
                row[i] = row_advance((binary_row){data[1] + (r + i) * strides[4], data[2] + (r + i) * strides[5],
                                                  data[0] + (r + i) * strides[3], strides[1], strides[2], strides[0]}, c);
            }
            for (int k = 0; k < 2; k++) {
                const char *from = k == 0 ? row[0].a : row[0].b;
                int64_t across = strides[1 + k], along = strides[4 + k];
                if (along != 4 || across == 4 || across == 0) {
                    continue;
                }
                port_copy_plane((char *)room[k], sizeof(room[k][0]), 4, from, across, rows, cols, 4);
                for (int64_t i = 0; i < rows; i++) {
                    *(k == 0 ? &row[i].a : &row[i].b) = (const char *)room[k][i];
                    *(k == 0 ? &row[i].a_stride : &row[i].b_stride) = 4;
                }
            }
            for (int64_t i = 0; i < rows; i++) {
                binary_row_f32(context, false, row[i], cols);
            }
        }
    }
}

/* Whether binary_turned is for a piece: f32 written densely, from an operand that is dense along the other dimension. */
static bool
lies_across(const port_kernel_call *call, const int64_t *strides, int64_t size0, int64_t size1)
{
    bool across = false;
    for (int k = 1; k <= 2; k++) {
        across |= strides[k] != 4 && strides[k] != 0 && strides[3 + k] == 4;
    }
    return across && size0 >= TILE && size1 >= TILE && call->in[0]->dtype == PORT_F32;
}

/* The reference's vector loop wants contiguous operands, one of which may be a broadcast scalar. */
static void
binary_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    binary_context own = *(const binary_context *)opaque;
    const binary_context *context = &own; /* other ranges may run beside this one */
    int64_t in_bytes = (int64_t)port_dtype_size(context->call->in[0]->dtype);
    bool y_dense = strides[0] == (int64_t)port_dtype_size(context->call->out[0]->dtype);
    bool a_dense = strides[1] == in_bytes, b_dense = strides[2] == in_bytes;
    bool vector = y_dense && ((a_dense && b_dense) || (a_dense && strides[2] == 0) || (b_dense && strides[1] == 0));
    bool hoisted = vector && !b_dense;
    own.b_hoisted = hoisted;
    bool is_narrow = context->alpha != 1.0 || context->op->only_avx2;
    int64_t step = 2 * (is_narrow ? 32 / in_bytes : port_profile_lanes(context->call->profile, context->call->in[0]->dtype));
    int64_t bulk = vector ? size0 - size0 % step : 0;
    port_dtype dtype = context->call->in[0]->dtype;
    bool in_halves = context->alpha == 1.0 && dtype == context->call->out[0]->dtype;
    if (!vector && lies_across(context->call, strides, size0, size1)) {
        binary_turned(context, data, strides, size0, size1);
        return;
    }
    for (int64_t r = 0; r < size1; r++) {
        binary_row row = {data[1] + r * strides[4], data[2] + r * strides[5], data[0] + r * strides[3],
                          strides[1],               strides[2],               strides[0]};
        if (vector && context->op->whole != NULL && context->alpha_int == 1 &&
            context->op->whole(dtype, context->call->out[0]->dtype, port_cpu_level_found(), size0, row.a, a_dense, row.b, b_dense, row.y)) {
            continue;
        }
        if (context->compute != PORT_COMPUTE_F32) {
            own.b_hoisted = false;
            own.in_vectors = true;
            binary_row_wide(context, row, bulk);
            own.b_hoisted = hoisted;
            own.in_vectors = false;
            binary_row_wide(context, row_advance(row, bulk), size0 - bulk);
            continue;
        }
        bool done = false;
        if (bulk > 0 && in_halves && context->number != NULL && context->op->half_by_number != NULL) {
            done = context->op->half_by_number(dtype, context->level, bulk, row.a, row.y, *context->number, 0.0f);
        } else if (bulk > 0 && in_halves && context->number == NULL && context->op->half != NULL) {
            done = context->op->half(dtype, context->level, bulk, row.a, a_dense, row.b, b_dense, row.y);
        }
        if (bulk > 0 && !done) {
            binary_row_f32(context, true, row, bulk);
        }
        if (bulk < size0) {
            binary_row_f32(context, false, row_advance(row, bulk), size0 - bulk);
        }
    }
}

void
port_binary_run(const port_kernel_call *call, const binary_op *op, int32_t level)
{
    binary_context context = {call, op, port_compute_of(call->in[0]->dtype), 1.0, 1, level, NULL, false, false};
    const port_binary_params *params = call->params;
    if (params != NULL && params->alpha.kind != PORT_SCALAR_NONE) {
        context.alpha = params->alpha.d;
        context.alpha_int = params->alpha.i;
    }
    float number = params != NULL ? (float)params->number.d : 0.0f;
    if (params != NULL && params->number.kind != PORT_SCALAR_NONE) {
        context.number = &number;
    }
    const port_view *operands[3] = {call->out[0], call->in[0], call->in[1]};
    port_iter iter = port_iter_elementwise(3, operands);
    port_iter_for_each(&iter, call->profile->num_threads, binary_loop, &context);
}

port_status
port_binary_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("binary op", call, 2, err);
    if (status == PORT_OK && call->in[0]->dtype != call->in[1]->dtype) {
        return port_fail(err, PORT_E_DTYPE, "binary op: operands are %s and %s, expected one dtype",
                         port_dtype_name(call->in[0]->dtype), port_dtype_name(call->in[1]->dtype));
    }
    return status;
}

/* ---------------------------------------------------------------- functions of two elements */

#define OP_F32(name, expression)                                                                                     \
    PORT_INLINE float name##_of(float u, float v)                                                                    \
    {                                                                                                                \
        return (float)(expression);                                                                                  \
    }                                                                                                                \
    F32_MAP(name, name##_of)
#define F32_MAP(name, function)                                                                                      \
    PORT_DEFINE_MAP2(name##_map, function)                                                                           \
    static void name##_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, \
                           const float *b, int64_t b_step, float *y)                                                 \
    {                                                                                                                \
        (void)is_vector;                                                                                             \
        PORT_PICK_MAP(name##_map, context->level)(n, a, a_step, b, b_step, y);                                       \
    }
#define OP_ALL(name, expression)                                                                                     \
    OP_F32(name, expression)                                                                                         \
    PORT_BINARY_VECTORS(double, f64, name, expression)                                                               \
    PORT_BINARY_VECTORS(int64_t, i64, name, expression)

/* a + alpha * b: one fma with avx2 and up. In the rest of a row with one b the reference's compiler made its own vectors of 4 with a product
 * computed once, from the second element on. Of halves alpha is one, and outside vectors the product is rounded to one as well. */
PORT_INLINE float
sum_of(float u, float v)
{
    return u + v;
}

PORT_INLINE float
difference_of(float u, float v)
{
    return u - v;
}

PORT_DEFINE_MAP2(sum_map, sum_of)
PORT_DEFINE_MAP2(difference_map, difference_of)
PORT_HALF_MAP2(sum, u + v)
PORT_HALF_MAP2(difference, u - v)

static void
add_scaled_f32(const binary_context *context, bool is_vector, float alpha, int64_t n, const float *a, int64_t a_step,
               const float *b, int64_t b_step, float *y)
{
    port_dtype dtype = context->call->in[0]->dtype;
    bool fused = context->call->profile->capability != PORT_CAP_DEFAULT && (is_vector || dtype == PORT_F32);
    int64_t hoisted = context->b_hoisted && !is_vector ? (n - 1) / 4 * 4 : 0;
    alpha = port_rounded(dtype, alpha);
    for (int64_t i = 0; i < n; i++) {
        float u = a[i * a_step], v = b[i * b_step];
        y[i] = fused && (i < 1 || i > hoisted) ? fmaf(v, alpha, u) : u + port_rounded(dtype, alpha * v);
    }
}

static void
add_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b,
        int64_t b_step, float *y)
{
    if (context->alpha == 1.0) {
        PORT_PICK_MAP(sum_map, context->level)(n, a, a_step, b, b_step, y);
    } else {
        add_scaled_f32(context, is_vector, (float)context->alpha, n, a, a_step, b, b_step, y);
    }
}

static void
sub_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b,
        int64_t b_step, float *y)
{
    if (context->alpha == 1.0) {
        PORT_PICK_MAP(difference_map, context->level)(n, a, a_step, b, b_step, y);
    } else {
        add_scaled_f32(context, is_vector, -(float)context->alpha, n, a, a_step, b, b_step, y);
    }
}

PORT_BINARY_VECTORS(double, f64, sum, u + v)
PORT_BINARY_VECTORS(double, f64, difference, u - v)

static void
add_scaled_f64(const binary_context *context, double alpha, int64_t n, const double *a, const double *b, double *y)
{
    bool fused = context->call->profile->capability != PORT_CAP_DEFAULT;
    int64_t hoisted = context->b_hoisted ? (n - 1) / 2 * 2 : 0; /* as above, vectors of 2 */
    for (int64_t i = 0; i < n; i++) {
        y[i] = fused && (i < 1 || i > hoisted) ? fma(b[i], alpha, a[i]) : a[i] + alpha * b[i];
    }
}

static void
add_f64(const binary_context *context, int64_t n, const double *a, const double *b, double *y)
{
    if (context->alpha == 1.0) {
        sum_f64(context, n, a, b, y);
    } else {
        add_scaled_f64(context, context->alpha, n, a, b, y);
    }
}

static void
sub_f64(const binary_context *context, int64_t n, const double *a, const double *b, double *y)
{
    if (context->alpha == 1.0) {
        difference_f64(context, n, a, b, y);
    } else {
        add_scaled_f64(context, -context->alpha, n, a, b, y);
    }
}

/* Unsigned arithmetic wraps, and its low bits are right for every narrower type. */
PORT_BINARY_EACH(int64_t, i64, add, (uint64_t)u + (uint64_t)context->alpha_int * (uint64_t)v)
PORT_BINARY_EACH(int64_t, i64, sub, (uint64_t)u - (uint64_t)context->alpha_int * (uint64_t)v)
OP_F32(mul, u *v)
PORT_HALF_MAP2(mul, mul_of(u, v))
PORT_HALF_MAP(mul_number, mul_of(v, p))
PORT_BINARY_VECTORS(double, f64, mul, u *v)
PORT_BINARY_VECTORS(int64_t, i64, mul, (uint64_t)u * (uint64_t)v)
OP_F32(div, u / v)
PORT_HALF_MAP2(div, div_of(u, v))
PORT_HALF_MAP(div_number, div_of(v, p))
PORT_BINARY_VECTORS(double, f64, div, u / v)
OP_F32(maximum, port_select((u != u) | (v != v), u + v, port_select(u > v, u, v)))
PORT_HALF_MAP2(maximum, maximum_of(u, v))
PORT_BINARY_VECTORS(double, f64, maximum, u != u || v != v ? u + v : (u > v ? u : v))
PORT_BINARY_VECTORS(int64_t, i64, maximum, u > v ? u : v)
OP_F32(minimum, port_select((u != u) | (v != v), u + v, port_select(u < v, u, v)))
PORT_HALF_MAP2(minimum, minimum_of(u, v))
PORT_BINARY_VECTORS(double, f64, minimum, u != u || v != v ? u + v : (u < v ? u : v))
PORT_BINARY_VECTORS(int64_t, i64, minimum, u < v ? u : v)
OP_ALL(eq, u == v)
OP_ALL(ne, u != v)
OP_ALL(lt, u < v)
OP_ALL(le, u <= v)
OP_ALL(gt, u > v)
OP_ALL(ge, u >= v)
OP_ALL(logical_and, (u != 0) & (v != 0))
OP_ALL(logical_or, (u != 0) | (v != 0))
OP_ALL(logical_xor, (u != 0) != (v != 0))
PORT_BINARY_VECTORS(int64_t, i64, bitwise_and, u &v)
PORT_BINARY_VECTORS(int64_t, i64, bitwise_or, u | v)
PORT_BINARY_VECTORS(int64_t, i64, bitwise_xor, u ^ v)

PORT_DEFINE_MAP2(pow_map, port_pow_u10)

OP_F32(atan2, atan2f(u, v))
PORT_BINARY_EACH(double, f64, atan2, atan2(u, v))

PORT_BINARY_EACH(int64_t, i64, shift_left, v < 0 || v > 63 ? 0 : (int64_t)((uint64_t)u << v))
PORT_BINARY_EACH(int64_t, i64, shift_right, u >> (v < 0 || v > 63 ? 63 : v))

static void
pow_f32(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step, const float *b,
        int64_t b_step, float *y)
{
    if (is_vector && context->call->profile->capability != PORT_CAP_DEFAULT) {
        PORT_PICK_MAP(pow_map, context->level)(n, a, a_step, b, b_step, y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = powf(a[i * a_step], b[i * b_step]);
    }
}

PORT_BINARY_EACH(double, f64, pow, pow(u, v))

/* A negative exponent gives what torch gives: 1 and -1 keep their powers, everything else is 0. */
static void
pow_i64(const binary_context *context, int64_t n, const int64_t *a, const int64_t *b, int64_t *y)
{
    (void)context;
    for (int64_t i = 0; i < n; i++) {
        y[i] = port_int_pow(a[i], b[i]);
    }
}

/* ---------------------------------------------------------------- where */

static void
where_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    size_t bytes = *(const size_t *)opaque;
    int64_t step = (int64_t)bytes;
    bool dense = bytes != 2 && strides[0] == step && strides[1] == 1 && (strides[2] == step || strides[2] == 0) && (strides[3] == step || strides[3] == 0);
    for (int64_t r = 0; r < size1; r++) {
        char *y = data[0] + r * strides[4];
        const char *condition = data[1] + r * strides[5], *a = data[2] + r * strides[6], *b = data[3] + r * strides[7];
        if (dense) {
            port_whole_where(bytes, size0, condition, a, strides[2] != 0, b, strides[3] != 0, y);
        }
        for (int64_t i = 0; i < size0 && !dense; i++) {
            char value[8];
            memcpy(value, *condition != 0 ? a : b, bytes);
            memcpy(y, value, bytes);
            y += strides[0], condition += strides[1], a += strides[2], b += strides[3];
        }
    }
}

static port_status
where_check(const port_kernel_call *call, port_error *err)
{
    port_status status = port_check_same_shape("where", call, 3, err);
    if (status != PORT_OK) {
        return status;
    }
    port_dtype dtype = call->out[0]->dtype;
    if (call->in[0]->dtype != PORT_BOOL || call->in[1]->dtype != dtype || call->in[2]->dtype != dtype) {
        return port_fail(err, PORT_E_DTYPE, "where: expected BOOL, %s, %s, got %s, %s, %s", port_dtype_name(dtype),
                         port_dtype_name(dtype), port_dtype_name(call->in[0]->dtype), port_dtype_name(call->in[1]->dtype),
                         port_dtype_name(call->in[2]->dtype));
    }
    return PORT_OK;
}

static void
where_run(const port_kernel_call *call)
{
    const port_view *operands[4] = {call->out[0], call->in[0], call->in[1], call->in[2]};
    port_iter iter = port_iter_elementwise(4, operands);
    size_t bytes = port_dtype_size(call->out[0]->dtype);
    port_iter_for_each(&iter, call->profile->num_threads, where_loop, &bytes);
}

/* ---------------------------------------------------------------- rows */

#define RUN_ALL(name) RUN_FLOATS(name, name##_i64, NULL, NULL, port_whole_##name)
#define RUN_FLOATS(name, i64, half, by_number, whole)                                                                \
    static void name##_any(const port_kernel_call *call, int32_t level)                                              \
    {                                                                                                                \
        static const binary_op op = {name##_f32, name##_f64, i64, half, by_number, whole, false};                    \
        port_binary_run(call, &op, level);                                                                           \
    }                                                                                                                \
    PORT_RUN_LEVELS(name, name##_any)
#define FLOATS(name) PORT_LEVEL_ROWS(name, port_binary_check)

RUN_FLOATS(add, add_i64, sum_halves, NULL, port_whole_add)
RUN_FLOATS(sub, sub_i64, difference_halves, NULL, port_whole_sub)
RUN_FLOATS(mul, mul_i64, mul_halves, mul_number_halves, port_whole_mul)
RUN_FLOATS(div, NULL, div_halves, div_number_halves, NULL)
RUN_FLOATS(pow, pow_i64, NULL, NULL, NULL)
RUN_FLOATS(maximum, maximum_i64, maximum_halves, NULL, port_whole_maximum)
RUN_FLOATS(minimum, minimum_i64, minimum_halves, NULL, port_whole_minimum)
PORT_BINARY_RUN(atan2, atan2_f32, atan2_f64, NULL)
PORT_BINARY_RUN(shift_left, NULL, NULL, shift_left_i64)
PORT_BINARY_RUN(shift_right, NULL, NULL, shift_right_i64)
RUN_ALL(logical_xor)
RUN_ALL(eq)
RUN_ALL(ne)
RUN_ALL(lt)
RUN_ALL(le)
RUN_ALL(gt)
RUN_ALL(ge)
RUN_ALL(logical_and)
RUN_ALL(logical_or)
PORT_BINARY_RUN_WHOLE(bitwise_and)
PORT_BINARY_RUN_WHOLE(bitwise_or)
PORT_BINARY_RUN_WHOLE(bitwise_xor)

#define INTS(name) PORT_INT_ROWS(#name, "ref", 0, port_binary_check, name##_run)
#define BOOLS(name) PORT_BOOL_ROW(#name, "ref", 0, port_binary_check, name##_run)

const port_kernel_row port_binary_rows[] = {
    FLOATS(add),
    INTS(add),
    BOOLS(add),
    FLOATS(sub),
    INTS(sub),
    FLOATS(mul),
    INTS(mul),
    BOOLS(mul),
    FLOATS(div),
    FLOATS(pow),
    INTS(pow),
    FLOATS(maximum),
    INTS(maximum),
    BOOLS(maximum),
    FLOATS(minimum),
    INTS(minimum),
    BOOLS(minimum),
    PORT_FLOAT_ROWS("atan2", "ref", 0, port_binary_check, atan2_run),
    INTS(shift_left),
    INTS(shift_right),
    FLOATS(logical_xor),
    INTS(logical_xor),
    BOOLS(logical_xor),
    INTS(bitwise_and),
    BOOLS(bitwise_and),
    INTS(bitwise_or),
    BOOLS(bitwise_or),
    INTS(bitwise_xor),
    BOOLS(bitwise_xor),
    FLOATS(logical_and),
    INTS(logical_and),
    BOOLS(logical_and),
    FLOATS(logical_or),
    INTS(logical_or),
    BOOLS(logical_or),
    FLOATS(eq),
    INTS(eq),
    BOOLS(eq),
    FLOATS(ne),
    INTS(ne),
    BOOLS(ne),
    FLOATS(lt),
    INTS(lt),
    BOOLS(lt),
    FLOATS(le),
    INTS(le),
    BOOLS(le),
    FLOATS(gt),
    INTS(gt),
    BOOLS(gt),
    FLOATS(ge),
    INTS(ge),
    BOOLS(ge),
    PORT_FLOAT_ROWS("where", "ref", 0, where_check, where_run),
    PORT_INT_ROWS("where", "ref", 0, where_check, where_run),
    PORT_BOOL_ROW("where", "ref", 0, where_check, where_run),
    {.op = NULL},
};
