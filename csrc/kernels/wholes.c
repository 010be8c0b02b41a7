/* wholes.c -- see wholes.h. */
#include "wholes.h"
#include "loops.h"
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

/* ---------------------------------------------------------------- totals */

/* name_row and name_columns: n elements of `type`, each counted as of(element). A row is summed in lanes of `lane_type`, which hold `rounds` elements. */
#define TOTAL_ROW(function, type, of, lane_type, rounds, attributes)                                                 \
    attributes static int64_t function(int64_t n, const type *x)                                                     \
    {                                                                                                                \
        uint64_t total = 0;                                                                                          \
        int64_t i = 0;                                                                                               \
        while (i + LANES <= n) {                                                                                     \
            const int64_t end = n - i > (rounds) * (int64_t)LANES ? i + (rounds) * (int64_t)LANES : n;               \
            lane_type lanes[LANES] = {0};                                                                            \
            for (; i + LANES <= end; i += LANES) {                                                                   \
                for (int lane = 0; lane < LANES; lane++) {                                                           \
                    lanes[lane] = (lane_type)(lanes[lane] + (lane_type)of(x[i + lane]));                             \
                }                                                                                                    \
            }                                                                                                        \
            for (int lane = 0; lane < LANES; lane++) {                                                               \
                total += (uint64_t)(int64_t)lanes[lane];                                                             \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            total += (uint64_t)(int64_t)of(x[i]);                                                                    \
        }                                                                                                            \
        return (int64_t)total;                                                                                       \
    }
#define TOTAL_COLUMNS(function, type, of, attributes)                                                                \
    attributes static void function(int64_t n, const type *x, int64_t *totals)                                       \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + LANES <= n; i += LANES) {                                                                         \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < LANES; lane++) {                                                               \
                totals[i + lane] = (int64_t)((uint64_t)totals[i + lane] + (uint64_t)(int64_t)of(x[i + lane]));       \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            totals[i] = (int64_t)((uint64_t)totals[i] + (uint64_t)(int64_t)of(x[i]));                                \
        }                                                                                                            \
    }
#define TOTAL_BUILD(name, level, type, of, lane_type, rounds, attributes)                                            \
    TOTAL_ROW(name##_row_##level, type, of, lane_type, rounds, attributes)                                           \
    TOTAL_COLUMNS(name##_columns_##level, type, of, attributes)
#if PORT_HAVE_AVX2
#define TOTALS(name, type, of, lane_type, rounds)                                                                    \
    TOTAL_BUILD(name, ref, type, of, lane_type, rounds, )                                                            \
    TOTAL_BUILD(name, avx2, type, of, lane_type, rounds, PORT_TARGET_AVX2)                                           \
    TOTAL_BUILD(name, avx512, type, of, lane_type, rounds, PORT_TARGET_AVX512)
#else
#define TOTALS(name, type, of, lane_type, rounds) TOTAL_BUILD(name, ref, type, of, lane_type, rounds, )
#endif
#define IS_SET(value) ((value) != 0)
#define IS_NUMBER(value) ((__typeof__(value))((value) + (value)) != 0) /* the bits of a float that is no zero of either sign */
enum { SMALL_ROUNDS = 1 << 15, BYTE_ROUNDS = 255, LONG_ROUNDS = 1 << 30 };
TOTALS(total_u8, uint8_t, AS_IS, int32_t, SMALL_ROUNDS)
TOTALS(total_i8, int8_t, AS_IS, int32_t, SMALL_ROUNDS)
TOTALS(total_i16, int16_t, AS_IS, int32_t, SMALL_ROUNDS)
TOTALS(total_i32, int32_t, AS_IS, int64_t, LONG_ROUNDS)
TOTALS(total_i64, uint64_t, AS_IS, uint64_t, LONG_ROUNDS)
TOTALS(set_1, uint8_t, IS_SET, uint8_t, BYTE_ROUNDS)
TOTALS(set_2, uint16_t, IS_SET, uint16_t, BYTE_ROUNDS)
TOTALS(set_4, uint32_t, IS_SET, uint32_t, LONG_ROUNDS)
TOTALS(set_8, uint64_t, IS_SET, uint64_t, LONG_ROUNDS)
TOTALS(number_2, uint16_t, IS_NUMBER, uint16_t, BYTE_ROUNDS)
TOTALS(number_4, uint32_t, IS_NUMBER, uint32_t, LONG_ROUNDS)
TOTALS(number_8, uint64_t, IS_NUMBER, uint64_t, LONG_ROUNDS)

/* One of the functions above for the dtype, called with n, the elements and what follows. */
#define PICK_TOTAL(name, kind, type, ...) PORT_PICK_MAP(name##_##kind, port_cpu_level_found())(n, (const type *)(const void *)x __VA_ARGS__)
#define EACH_TOTAL(kind, run, ...)                                                                                   \
    if (port_dtype_is_float(dtype)) {                                                                                \
        switch (port_dtype_size(dtype)) {                                                                            \
        case 2: run(PICK_TOTAL(number_2, kind, uint16_t, __VA_ARGS__));                                              \
        case 4: run(PICK_TOTAL(number_4, kind, uint32_t, __VA_ARGS__));                                              \
        default: run(PICK_TOTAL(number_8, kind, uint64_t, __VA_ARGS__));                                             \
        }                                                                                                            \
    }                                                                                                                \
    switch (truths ? PORT_BOOL : dtype) {                                                                            \
    case PORT_U8: run(PICK_TOTAL(total_u8, kind, uint8_t, __VA_ARGS__));                                             \
    case PORT_I8: run(PICK_TOTAL(total_i8, kind, int8_t, __VA_ARGS__));                                              \
    case PORT_I16: run(PICK_TOTAL(total_i16, kind, int16_t, __VA_ARGS__));                                           \
    case PORT_I32: run(PICK_TOTAL(total_i32, kind, int32_t, __VA_ARGS__));                                           \
    case PORT_I64: run(PICK_TOTAL(total_i64, kind, uint64_t, __VA_ARGS__));                                          \
    default: break;                                                                                                  \
    }                                                                                                                \
    switch (port_dtype_size(dtype)) {                                                                                \
    case 1: run(PICK_TOTAL(set_1, kind, uint8_t, __VA_ARGS__));                                                      \
    case 2: run(PICK_TOTAL(set_2, kind, uint16_t, __VA_ARGS__));                                                     \
    case 4: run(PICK_TOTAL(set_4, kind, uint32_t, __VA_ARGS__));                                                     \
    default: run(PICK_TOTAL(set_8, kind, uint64_t, __VA_ARGS__));                                                    \
    }
#define AND_GIVE(call) return (call)
#define AND_LEAVE(call)                                                                                              \
    call;                                                                                                            \
    return

int64_t
port_whole_total(port_dtype dtype, bool truths, int64_t n, const char *x)
{
    EACH_TOTAL(row, AND_GIVE, )
}

void
port_whole_totals(port_dtype dtype, bool truths, int64_t n, const char *x, int64_t *totals)
{
    EACH_TOTAL(columns, AND_LEAVE, , totals)
}
