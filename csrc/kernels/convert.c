/* convert.c -- elements of one dtype that lie side by side as another (dense.h), for every pair of BOOL, the integers, F32 and F64: torch's
 * conversion. Integers wrap, floats lose what stands after the point (what I64 cannot hold is its least number, and for I32, I16 and I8 what
 * I32 cannot hold is the least of those), and to BOOL it is "not 0". */
#include "dense.h"

enum { LANES = 64 };

/* v as an integer without a branch: port_int_of_double. */
PORT_INLINE int64_t
whole_of(double v)
{
    bool fits = (v >= -0x1p63) & (v < 0x1p63);
    int64_t bits, least, mask = -(int64_t)fits;
    const double limit = -0x1p63;
    memcpy(&bits, &v, sizeof bits);
    memcpy(&least, &limit, sizeof least);
    bits = (bits & mask) | (least & ~mask);
    memcpy(&v, &bits, sizeof v);
    return (int64_t)v;
}

/* v as the reference's loops make it an I32, and by that an I16 or I8: what no I32 holds, NaN among them, is the least one. */
PORT_INLINE int64_t
narrow_of(double v)
{
    int64_t whole = whole_of(v), mask = -(int64_t)((whole >= INT32_MIN) & (whole <= INT32_MAX));
    return (whole & mask) | (INT32_MIN & ~mask);
}

/* from_to_to: n elements, each as the expression in v says. */
#define BUILD(name, from_type, to_type, expression, attributes)                                                      \
    attributes static void name(int64_t n, const char *x, char *y)                                                   \
    {                                                                                                                \
        const from_type *from = (const from_type *)(const void *)x;                                                  \
        to_type *to = (to_type *)(void *)y;                                                                          \
        int64_t i = 0;                                                                                               \
        for (; i + LANES <= n; i += LANES) {                                                                         \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < LANES; lane++) {                                                               \
                const from_type v = from[i + lane];                                                                  \
                to[i + lane] = (to_type)(expression);                                                                \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            const from_type v = from[i];                                                                             \
            to[i] = (to_type)(expression);                                                                           \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define PAIR(from, from_type, to, to_type, expression)                                                               \
    BUILD(from##_to_##to##_ref, from_type, to_type, expression, )                                                    \
    BUILD(from##_to_##to##_avx2, from_type, to_type, expression, PORT_TARGET_AVX2)                                   \
    BUILD(from##_to_##to##_avx512, from_type, to_type, expression, PORT_TARGET_AVX512)
#define LEVELS_OF(name) {name##_ref, name##_avx2, name##_avx512}
#else
#define PAIR(from, from_type, to, to_type, expression) BUILD(from##_to_##to##_ref, from_type, to_type, expression, )
#define LEVELS_OF(name) {name##_ref}
#endif

/* number: v among integers; narrow: among those of up to 32 bits but for U8; value: v as it is. */
#define TO_ALL(from, type, number, narrow, value)                                                                          \
    PAIR(from, type, truth, uint8_t, v != 0)                                                                         \
    PAIR(from, type, u8, uint8_t, number)                                                                            \
    PAIR(from, type, i8, int8_t, narrow)                                                                             \
    PAIR(from, type, i16, int16_t, narrow)                                                                           \
    PAIR(from, type, i32, int32_t, narrow)                                                                           \
    PAIR(from, type, i64, int64_t, number)                                                                           \
    PAIR(from, type, f32, float, value)                                                                              \
    PAIR(from, type, f64, double, value)
TO_ALL(truth, uint8_t, v != 0, v != 0, v != 0)
TO_ALL(u8, uint8_t, v, v, v)
TO_ALL(i8, int8_t, v, v, v)
TO_ALL(i16, int16_t, v, v, v)
TO_ALL(i32, int32_t, v, v, v)
TO_ALL(i64, int64_t, v, v, v)
TO_ALL(f32, float, whole_of((double)v), narrow_of((double)v), v)
TO_ALL(f64, double, whole_of(v), narrow_of(v), v)

typedef void (*conversion)(int64_t n, const char *x, char *y);
enum { KINDS = 8, LEVELS = PORT_HAVE_AVX2 ? 3 : 1 };

static int
kind_of(port_dtype dtype)
{
    switch (dtype) {
    case PORT_BOOL: return 0;
    case PORT_U8: return 1;
    case PORT_I8: return 2;
    case PORT_I16: return 3;
    case PORT_I32: return 4;
    case PORT_I64: return 5;
    case PORT_F32: return 6;
    case PORT_F64: return 7;
    default: return -1;
    }
}

#define FROM(from)                                                                                                   \
    {                                                                                                                \
        LEVELS_OF(from##_to_truth), LEVELS_OF(from##_to_u8), LEVELS_OF(from##_to_i8), LEVELS_OF(from##_to_i16), LEVELS_OF(from##_to_i32), \
            LEVELS_OF(from##_to_i64), LEVELS_OF(from##_to_f32), LEVELS_OF(from##_to_f64)                             \
    }

bool
port_dense_convert(port_dtype from, port_dtype to, int64_t n, const char *x, char *y)
{
    static const conversion table[KINDS][KINDS][LEVELS] = {FROM(truth), FROM(u8), FROM(i8), FROM(i16), FROM(i32), FROM(i64), FROM(f32), FROM(f64)};
    int from_kind = kind_of(from), to_kind = kind_of(to), level = port_cpu_level_found();
    if (from_kind < 0 || to_kind < 0) {
        return false;
    }
    table[from_kind][to_kind][level < LEVELS ? level : LEVELS - 1](n, x, y);
    return true;
}
