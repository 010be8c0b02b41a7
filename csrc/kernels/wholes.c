/* wholes.c -- see wholes.h. */
#include "wholes.h"
#include "vecmath.h"

enum { LANES = 64 };

/* A pass over the elements where both operands, the first or the second goes on. */
#define PASS(condition, type_a, of_a, of_b, expression)                                                              \
    for (; i + LANES <= n && (condition); i += LANES) {                                                              \
        PORT_INDEPENDENT                                                                                             \
        for (int lane = 0; lane < LANES; lane++) {                                                                   \
            type_a u = (of_a), v = (of_b);                                                                           \
            y[i + lane] = (__typeof__(y[0]))(expression);                                                            \
        }                                                                                                            \
    }
/* at: an element as the expression sees it. */
#define BODY(function, type, to, at, expression, attributes)                                                         \
    attributes static void function(int64_t n, const type *a, int64_t a_step, const type *b, int64_t b_step, to *y)  \
    {                                                                                                                \
        const type first_a = at(a[0]), first_b = at(b[0]);                                                           \
        int64_t i = 0;                                                                                               \
        PASS(a_step != 0 && b_step != 0, type, at(a[i + lane]), at(b[i + lane]), expression)                         \
        PASS(a_step != 0, type, at(a[i + lane]), first_b, expression)                                                \
        PASS(b_step != 0, type, first_a, at(b[i + lane]), expression)                                                \
        for (; i < n; i++) {                                                                                         \
            type u = a_step != 0 ? at(a[i]) : first_a, v = b_step != 0 ? at(b[i]) : first_b;                         \
            y[i] = (to)(expression);                                                                                 \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define BUILDS(name, type, to, at, expression)                                                                       \
    BODY(name##_ref, type, to, at, expression, )                                                                     \
    BODY(name##_avx2, type, to, at, expression, PORT_TARGET_AVX2)                                                    \
    BODY(name##_avx512, type, to, at, expression, PORT_TARGET_AVX512)
#else
#define BUILDS(name, type, to, at, expression) BODY(name##_ref, type, to, at, expression, )
#endif
#define AS_IS(value) (value)
#define TRUTH(value) ((uint8_t)((value) != 0))

/* Wraps without being undefined. */
#define UNSIGNED(value) ((__typeof__(_Generic((value), int64_t: (uint64_t)0, default: (uint32_t)0)))(value))

#define OF(name, suffix, from_dtype, from, to_dtype, to)                                                             \
    if (n > 0 && from_of == from_dtype && to_of == to_dtype) {                                                       \
        PORT_PICK_MAP(name##_##suffix, level)                                                                        \
        (n, (const from *)(const void *)a, a_step, (const from *)(const void *)b, b_step, (to *)(void *)y);          \
        return true;                                                                                                 \
    }
#define OF_BOOL(name) OF(name, bool, PORT_BOOL, uint8_t, PORT_BOOL, uint8_t)
#define WHOLE(name, cases)                                                                                           \
    bool port_whole_##name(port_dtype from_of, port_dtype to_of, int32_t level, int64_t n, const char *a, int64_t a_step, const char *b, \
                           int64_t b_step, char *y)                                                                  \
    {                                                                                                                \
        (void)level;                                                                                                 \
        cases return false;                                                                                          \
    }
#define COMPARE(name, expression)                                                                                    \
    BUILDS(name##_i64, int64_t, uint8_t, AS_IS, expression)                                                          \
    BUILDS(name##_i32, int32_t, uint8_t, AS_IS, expression)                                                          \
    BUILDS(name##_u8, uint8_t, uint8_t, AS_IS, expression)                                                           \
    BUILDS(name##_bool, uint8_t, uint8_t, TRUTH, expression)                                                         \
    WHOLE(name, OF(name, i64, PORT_I64, int64_t, PORT_BOOL, uint8_t) OF(name, i32, PORT_I32, int32_t, PORT_BOOL, uint8_t) \
                    OF(name, u8, PORT_U8, uint8_t, PORT_BOOL, uint8_t) OF_BOOL(name))
#define NUMBER_BUILDS(name, expression)                                                                              \
    BUILDS(name##_i64, int64_t, int64_t, AS_IS, expression)                                                          \
    BUILDS(name##_i32, int32_t, int32_t, AS_IS, expression)                                                          \
    BUILDS(name##_u8, uint8_t, uint8_t, AS_IS, expression)
#define OF_NUMBERS(name)                                                                                             \
    OF(name, i64, PORT_I64, int64_t, PORT_I64, int64_t) OF(name, i32, PORT_I32, int32_t, PORT_I32, int32_t)          \
        OF(name, u8, PORT_U8, uint8_t, PORT_U8, uint8_t)
#define NUMBERS(name, expression)                                                                                    \
    NUMBER_BUILDS(name, expression)                                                                                  \
    WHOLE(name, OF_NUMBERS(name))
#define BITS(name, expression)                                                                                       \
    NUMBER_BUILDS(name, expression)                                                                                  \
    BUILDS(name##_bool, uint8_t, uint8_t, TRUTH, expression)                                                         \
    WHOLE(name, OF_NUMBERS(name) OF_BOOL(name))

COMPARE(eq, u == v)
COMPARE(ne, u != v)
COMPARE(lt, u < v)
COMPARE(le, u <= v)
COMPARE(gt, u > v)
COMPARE(ge, u >= v)
COMPARE(logical_and, (u != 0) & (v != 0))
COMPARE(logical_or, (u != 0) | (v != 0))
COMPARE(logical_xor, (u != 0) != (v != 0))
NUMBERS(add, UNSIGNED(u) + UNSIGNED(v))
NUMBERS(sub, UNSIGNED(u) - UNSIGNED(v))
NUMBERS(mul, UNSIGNED(u) * UNSIGNED(v))
BITS(maximum, u > v ? u : v)
BITS(minimum, u < v ? u : v)
BITS(bitwise_and, u & v)
BITS(bitwise_or, u | v)
BITS(bitwise_xor, u ^ v)

/* Wide enough for one element of any of the dtypes. */
static const int64_t zero = 0, ones = -1;

bool
port_whole_logical_not(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y)
{
    return port_whole_eq(from, to, level, n, x, 1, (const char *)&zero, 0, y);
}

bool
port_whole_neg(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y)
{
    return from != PORT_BOOL && port_whole_sub(from, to, level, n, (const char *)&zero, 0, x, 1, y);
}

bool
port_whole_bitwise_not(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y)
{
    return port_whole_bitwise_xor(from, to, level, n, x, 1, (const char *)&ones, 0, y);
}

/* ---------------------------------------------------------------- where */

#define SELECT_PASS(type, going_on, of_a, of_b)                                                                      \
    for (; i + LANES <= n && (going_on); i += LANES) {                                                               \
        PORT_INDEPENDENT                                                                                             \
        for (int lane = 0; lane < LANES; lane++) {                                                                   \
            type mask = (type)-(type)(condition[i + lane] != 0);                                                     \
            y[i + lane] = (type)(((of_a) & mask) | ((of_b) & (type)~mask));                                          \
        }                                                                                                            \
    }
#define SELECT(function, type, attributes)                                                                           \
    attributes static void function(int64_t n, const uint8_t *condition, const type *a, int64_t a_step, const type *b, int64_t b_step, type *y) \
    {                                                                                                                \
        const type first_a = a[0], first_b = b[0];                                                                   \
        int64_t i = 0;                                                                                               \
        SELECT_PASS(type, a_step != 0 && b_step != 0, a[i + lane], b[i + lane])                                      \
        SELECT_PASS(type, a_step != 0, a[i + lane], first_b)                                                         \
        SELECT_PASS(type, b_step != 0, first_a, b[i + lane])                                                         \
        for (; i < n; i++) {                                                                                         \
            y[i] = condition[i] != 0 ? a[i * a_step] : b[i * b_step];                                                \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define SELECTS(name, type)                                                                                          \
    SELECT(name##_ref, type, )                                                                                       \
    SELECT(name##_avx2, type, PORT_TARGET_AVX2)                                                                      \
    SELECT(name##_avx512, type, PORT_TARGET_AVX512)
#else
#define SELECTS(name, type) SELECT(name##_ref, type, )
#endif
SELECTS(select_1, uint8_t)
SELECTS(select_4, uint32_t)
SELECTS(select_8, uint64_t)

#define RUN_SELECT(name, type)                                                                                       \
    PORT_PICK_MAP(name, port_cpu_level_found())                                                                      \
    (n, (const uint8_t *)condition, (const type *)(const void *)a, a_step, (const type *)(const void *)b, b_step, (type *)(void *)y)

void
port_whole_where(size_t bytes, int64_t n, const char *condition, const char *a, int64_t a_step, const char *b, int64_t b_step, char *y)
{
    if (n == 0) {
        return;
    }
    if (bytes == 1) {
        RUN_SELECT(select_1, uint8_t);
    } else if (bytes == 4) {
        RUN_SELECT(select_4, uint32_t);
    } else {
        RUN_SELECT(select_8, uint64_t);
    }
}
