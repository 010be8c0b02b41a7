/* triples.c -- functions of one to three elements and of numbers: y[i] = f(u[i], v[i], w[i]; p, q, r). In the reference's vectors a product and
 * a sum are one fma; but for that an element's place shows in softshrink alone.
 *     addcmul     u + p v w                            threshold   q where u <= p, else u
 *     addcdiv     u + p v / w                          hardshrink  0 where |u| <= p, else u
 *     lerp        u + w (v - u), from the nearer end;  softshrink  u - p where u > p, u + p where u < -p, else 0
 *                 w is p where there is no tensor      prelu       u where u > 0, else v u
 *     smooth_l1   d^2 / 2 / p where d = |u - v| < p, else d - p / 2
 *     huber       d^2 / 2 where d <= p, else p (d - p / 2)
 *     nan_to_num  p of a NaN, q and r of the infinities, else u
 * Source: at::native PointwiseOpsKernel.cpp, LerpKernel.cpp, Activation.cpp, BinaryOpsKernel.cpp, UnaryOpsKernel.cpp (BSD-3-Clause; restated). */
#include "levels.h"

enum { LANES = 32, MAX_IN = 3 };
/* What the reference's loop takes at a time in an op of which avx2 has the widest build: two vectors of 32 bytes, under each capability. */
enum { PASS_BYTES = 64 };

/* step: elements, 1, or 0 where an operand is one number. */
#define OPERANDS(type, real)                                                                                         \
    typedef struct triple_##type {                                                                                   \
        const real *from[MAX_IN];                                                                                    \
        int64_t step[MAX_IN];                                                                                        \
        real *y, p, q, r;                                                                                            \
    } triple_##type;                                                                                                 \
    typedef real real_##type;
OPERANDS(f32, float)
OPERANDS(f64, double)

typedef struct triple_op {
    /* n elements at a level of the CPU. vector: as the reference's vectors compute them, else as its loop over single elements. */
    void (*f32)(int32_t level, bool vector, int64_t n, const triple_f32 *t);
    void (*f64)(int32_t level, bool vector, int64_t n, const triple_f64 *t);
    bool by_place; /* what a dense row has beyond its last whole pass is computed as single elements; else nothing is */
} triple_op;

typedef struct triple_context {
    const port_kernel_call *call;
    const triple_op *op;
    int32_t level;
} triple_context;

/* ---------------------------------------------------------------- the loop */

/* n elements of a row; at[0] is the output. Operands lie as they are where that is dense, else they come in blocks; what is not there is read as
 * the number p. */
#define ROW(type, DTYPE)                                                                                             \
    static void row_##type(const triple_context *context, bool vector, char *const *at, const int64_t *strides, int64_t n) \
    {                                                                                                                \
        const int64_t size = (int64_t)sizeof(real_##type);                                                           \
        const port_triple_params *params = context->call->params;                                                    \
        port_dtype dtype = context->call->in[0]->dtype;                                                              \
        _Alignas(64) real_##type room[MAX_IN + 1][PORT_BLOCK];                                                       \
        triple_##type t = {.p = (real_##type)params->p, .q = (real_##type)params->q, .r = (real_##type)params->r};   \
        bool direct = dtype == DTYPE && strides[0] == size, dense = direct;                                          \
        for (int32_t k = 0; k < context->call->num_in; k++) {                                                        \
            dense = dense && (strides[1 + k] == size || strides[1 + k] == 0);                                        \
        }                                                                                                            \
        for (int64_t i = 0, m = dense ? n : PORT_BLOCK; i < n; i += m) {                                             \
            m = n - i < m ? n - i : m;                                                                               \
            for (int32_t k = 0; k < MAX_IN; k++) {                                                                   \
                int64_t stride = k < context->call->num_in ? strides[1 + k] : 0;                                     \
                t.from[k] = k < context->call->num_in ? (const real_##type *)(const void *)(at[1 + k] + i * stride) : &t.p; \
                t.step[k] = stride != 0;                                                                             \
                if (k < context->call->num_in && (dtype != DTYPE || (stride != size && stride != 0))) {              \
                    port_load_##type(dtype, (const char *)t.from[k], stride, stride == 0 ? 1 : m, room[k]);          \
                    t.from[k] = room[k];                                                                             \
                }                                                                                                    \
            }                                                                                                        \
            t.y = direct ? (real_##type *)(void *)(at[0] + i * strides[0]) : room[MAX_IN];                           \
            context->op->type(context->level, vector, m, &t);                                                        \
            if (!direct) {                                                                                           \
                port_store_##type(dtype, room[MAX_IN], m, at[0] + i * strides[0], strides[0]);                       \
            }                                                                                                        \
        }                                                                                                            \
    }
ROW(f32, PORT_F32)
ROW(f64, PORT_F64)

static void
triple_loop(void *opaque, char *const *data, const int64_t *strides, int64_t size0, int64_t size1)
{
    const triple_context *context = opaque;
    port_dtype dtype = context->call->in[0]->dtype;
    int32_t count = 1 + context->call->num_in;
    int64_t bulk = size0;
    for (int32_t k = 0; k < count && context->op->by_place; k++) {
        bulk = strides[k] == (int64_t)port_dtype_size(dtype) ? bulk - bulk % (PASS_BYTES / (int64_t)port_dtype_size(dtype)) : 0;
    }
    bool vector = context->op->by_place || context->call->profile->capability != PORT_CAP_DEFAULT;
    for (int64_t row = 0; row < size1; row++) {
        for (int32_t part = 0; part < 2; part++) {
            char *at[1 + MAX_IN];
            for (int32_t k = 0; k < count; k++) {
                at[k] = data[k] + row * strides[count + k] + (part == 0 ? 0 : bulk * strides[k]);
            }
            int64_t n = part == 0 ? bulk : size0 - bulk;
            if (dtype == PORT_F64) {
                row_f64(context, vector && part == 0, at, strides, n);
            } else {
                row_f32(context, vector && part == 0, at, strides, n);
            }
        }
    }
}

static void
triple_run(const port_kernel_call *call, const triple_op *op, int32_t level)
{
    triple_context context = {call, op, call->in[0]->dtype == PORT_F64 ? port_cpu_level_found() : level};
    const port_view *operands[1 + MAX_IN] = {call->out[0]};
    memcpy(&operands[1], call->in, (size_t)call->num_in * sizeof operands[0]);
    port_iter iter = port_iter_elementwise(1 + call->num_in, operands);
    port_iter_for_each(&iter, call->profile->num_threads, triple_loop, &context);
}

static port_status
triple_check(const port_kernel_call *call, int32_t least, int32_t most, port_error *err)
{
    if (call->params == NULL || call->num_in < least || call->num_in > most) {
        return port_fail(err, PORT_E_VALUE, "function of elements and numbers: expected %d to %d inputs and numbers, got %d inputs", least, most, call->num_in);
    }
    port_status status = port_check_same_shape("function of elements and numbers", call, call->num_in, err);
    for (int32_t k = 0; status == PORT_OK && k < call->num_in; k++) {
        if (call->in[k]->dtype != call->out[0]->dtype) {
            return port_fail(err, PORT_E_DTYPE, "function of elements and numbers: input %d is %s, the output %s", k,
                             port_dtype_name(call->in[k]->dtype), port_dtype_name(call->out[0]->dtype));
        }
    }
    return status;
}

/* ---------------------------------------------------------------- the functions */

/* One build of the loop. An operand that is one number is read from a block of equal ones, so that one loop does for all. */
#define PASS(type, name, is_vector)                                                                                  \
    for (; vector == is_vector && n >= LANES; n -= LANES, y += LANES, u += step[0], v += step[1], w += step[2]) {    \
        PORT_INDEPENDENT                                                                                             \
        for (int lane = 0; lane < LANES; lane++) {                                                                   \
            y[lane] = name##_of_##type(is_vector, u[lane], v[lane], w[lane], p, q, r);                               \
        }                                                                                                            \
    }
#define BUILD(type, name, suffix, attributes)                                                                        \
    attributes static void name##_##type##_##suffix(bool vector, int64_t n, const triple_##type *t)                  \
    {                                                                                                                \
        real_##type same[MAX_IN][LANES], *y = t->y;                                                                  \
        const real_##type *in[MAX_IN], p = t->p, q = t->q, r = t->r;                                                 \
        int64_t step[MAX_IN];                                                                                        \
        for (int k = 0; k < MAX_IN; k++) {                                                                           \
            for (int lane = 0; lane < LANES && t->step[k] == 0; lane++) {                                            \
                same[k][lane] = t->from[k][0];                                                                       \
            }                                                                                                        \
            in[k] = t->step[k] == 0 ? same[k] : t->from[k];                                                          \
            step[k] = t->step[k] * LANES;                                                                            \
        }                                                                                                            \
        const real_##type *u = in[0], *v = in[1], *w = in[2];                                                        \
        PASS(type, name, true)                                                                                       \
        PASS(type, name, false)                                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            y[i] = name##_of_##type(vector, u[i], v[i], w[i], p, q, r);                                              \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define BUILDS(type, name)                                                                                           \
    BUILD(type, name, ref, )                                                                                         \
    BUILD(type, name, avx2, PORT_TARGET_AVX2)                                                                        \
    BUILD(type, name, avx512, PORT_TARGET_AVX512)
#else
#define BUILDS(type, name) BUILD(type, name, ref, )
#endif
#define OF(type, name, expression)                                                                                   \
    PORT_INLINE real_##type name##_of_##type(bool vector, real_##type u, real_##type v, real_##type w, real_##type p, real_##type q, real_##type r) \
    {                                                                                                                \
        (void)vector, (void)v, (void)w, (void)p, (void)q, (void)r;                                                   \
        return (expression);                                                                                         \
    }                                                                                                                \
    BUILDS(type, name)                                                                                               \
    static void name##_##type(int32_t level, bool vector, int64_t n, const triple_##type *t)                         \
    {                                                                                                                \
        PORT_PICK_MAP(name##_##type, level)(vector, n, t);                                                           \
    }
#define OP(name, least, most, by_place, expression)                                                                  \
    OF(f32, name, expression)                                                                                        \
    OF(f64, name, expression)                                                                                        \
    static void name##_any(const port_kernel_call *call, int32_t level)                                              \
    {                                                                                                                \
        static const triple_op op = {name##_f32, name##_f64, by_place};                                              \
        triple_run(call, &op, level);                                                                                \
    }                                                                                                                \
    PORT_RUN_LEVELS(name, name##_any)                                                                                \
    static port_status name##_check(const port_kernel_call *call, port_error *err)                                   \
    {                                                                                                                \
        return triple_check(call, least, most, err);                                                                 \
    }

/* For the two types of the expressions. */
#define PICK(condition, yes, no) _Generic(u, float: port_select, double: port_select_f64)(condition, yes, no)
#define SIZE(value) _Generic(u, float: fabsf, double: fabs)(value)
#define FMA(a, b, c) _Generic(u, float: fmaf, double: fma)(a, b, c)
#define NUMBER(value) ((__typeof__(u))(value))
#define NEAR (SIZE(w) < NUMBER(0.5))
#define APART SIZE(u - v)

OP(addcmul, 3, 3, false, vector ? FMA(p * v, w, u) : u + p * v * w)
OP(addcdiv, 3, 3, false, u + p * v / w)
OP(lerp, 2, 3, false,
   vector ? FMA(PICK(NEAR, w, w - NUMBER(1)), v - u, PICK(NEAR, u, v)) : PICK(NEAR, w, w - NUMBER(1)) * (v - u) + PICK(NEAR, u, v))
OP(threshold, 1, 1, false, PICK(u <= p, q, u))
OP(hardshrink, 1, 1, false, PICK(SIZE(u) <= p, NUMBER(0), u))
OP(softshrink, 1, 1, true, PICK(u > p, u - p, PICK(u < -p, u + p, PICK(vector & (u == u), NUMBER(0), u * NUMBER(0)))))
OP(prelu, 2, 2, false, PICK(u > NUMBER(0), u, v *u))
OP(smooth_l1, 2, 2, false, PICK(APART < p, APART *NUMBER(0.5) * APART / p, APART - NUMBER(0.5) * p))
OP(huber, 2, 2, false, PICK(APART <= p, APART *NUMBER(0.5) * APART, p *(APART - NUMBER(0.5) * p)))
OP(nan_to_num, 1, 1, false, PICK(u != u, p, PICK(u == NUMBER(INFINITY), q, PICK(u == NUMBER(-INFINITY), r, u))))

#define LEVELS(name) PORT_LEVEL_ROWS(name, name##_check)
/* Not for all halves. */
#define ONE_ROW(name, dtype) PORT_ROW(#name, dtype, "ref", 0, name##_check, name##_run)
#if PORT_HAVE_AVX2
#define ROWS_BY_LEVEL(name, dtype)                                                                                   \
    ONE_ROW(name, dtype), PORT_ROW(#name, dtype, "avx2", 1, name##_check, name##_run_avx2),                             \
        PORT_ROW(#name, dtype, "avx512", 2, name##_check, name##_run_avx512)
#else
#define ROWS_BY_LEVEL(name, dtype) ONE_ROW(name, dtype)
#endif
#define WIDE(name) ONE_ROW(name, PORT_F64), ROWS_BY_LEVEL(name, PORT_F32)

const port_kernel_row port_triple_rows[] = {
    LEVELS(addcmul), LEVELS(addcdiv), LEVELS(lerp), LEVELS(threshold), WIDE(hardshrink), LEVELS(softshrink), LEVELS(prelu), WIDE(smooth_l1),
    ROWS_BY_LEVEL(smooth_l1, PORT_BF16), WIDE(huber), ROWS_BY_LEVEL(huber, PORT_F16), LEVELS(nan_to_num),
    {.op = NULL},
};
