/* binary.h -- the loop over elements of two tensors, for families of functions y[i] = f(a[i], b[i]). Private to
 * csrc/kernels/. */
#ifndef PORT_BINARY_H
#define PORT_BINARY_H

#include "levels.h"
#include "wholes.h"

typedef struct binary_context {
    const port_kernel_call *call;
    const struct binary_op *op;
    port_compute compute;
    double alpha;
    int64_t alpha_int;
    int32_t level;  /* of the row: which builds of the maps may run; same bits, faster */
    const float *number; /* what stands for b, or NULL */
    bool b_hoisted; /* b is one number for the row (of doubles: and this is the row's rest): the compiler of the reference hoists alpha * b */
    bool in_vectors; /* of doubles: these elements are the row's vectors, not its rest */
} binary_context;

/* a_step, b_step: 1, or 0 where the operand is one number for all n. */
typedef struct binary_op {
    void (*f32)(const binary_context *context, bool is_vector, int64_t n, const float *a, int64_t a_step,
                const float *b, int64_t b_step, float *y);
    void (*f64)(const binary_context *context, int64_t n, const double *a, const double *b, double *y);
    void (*i64)(const binary_context *context, int64_t n, const int64_t *a, const int64_t *b, int64_t *y);
    /* n dense elements of bf16 or f16 in one go, with alpha 1: the bits of f32 rounded once. False: there is no such way, nothing is done
     * (halves.h). NULL: f32 alone. */
    bool (*half)(port_dtype dtype, int32_t level, int64_t n, const char *a, int64_t a_step, const char *b, int64_t b_step, char *y);
    /* The same where b is the number p. */
    bool (*half_by_number)(port_dtype dtype, int32_t level, int64_t n, const char *a, char *y, float p, float q);
    port_whole_map whole; /* n dense elements of I64, I32, U8 or BOOL in one go, with alpha 1; NULL: i64 alone */
    bool only_avx2; /* the reference has no build for avx512, as for a + alpha * b */
} binary_op;

void port_binary_run(const port_kernel_call *call, const binary_op *op, int32_t level);
port_status port_binary_check(const port_kernel_call *call, port_error *err);

/* PORT_BINARY_EACH(type, suffix, name, expression in u and v): the function name_suffix of a binary_op, for f64 and i64. */
#define PORT_BINARY_EACH(type, suffix, name, expression)                                                             \
    static void name##_##suffix(const binary_context *context, int64_t n, const type *a, const type *b, type *y)     \
    {                                                                                                                \
        (void)context;                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            type u = a[i], v = b[i];                                                                                 \
            y[i] = (type)(expression);                                                                               \
        }                                                                                                            \
    }
/* The same for an expression that a compiler makes vectors of: built once for each level of the CPU. */
#define PORT_BINARY_VECTORS(type, suffix, name, expression)                                                          \
    PORT_INLINE type name##_##suffix##_of(type u, type v)                                                            \
    {                                                                                                                \
        return (type)(expression);                                                                                   \
    }                                                                                                                \
    PORT_BINARY_BUILDS(type, name##_##suffix)                                                                        \
    static void name##_##suffix(const binary_context *context, int64_t n, const type *a, const type *b, type *y)     \
    {                                                                                                                \
        (void)context;                                                                                               \
        PORT_PICK_MAP(name##_##suffix, port_cpu_level_found())(n, a, b, y);                                          \
    }
#define PORT_BINARY_BUILD(type, name, suffix, attributes)                                                            \
    attributes static void name##_##suffix(int64_t n, const type *a, const type *b, type *y)                         \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 16 <= n; i += 16) {                                                                               \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < 16; lane++) {                                                                  \
                y[i + lane] = name##_of(a[i + lane], b[i + lane]);                                                   \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = name##_of(a[i], b[i]);                                                                            \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define PORT_BINARY_BUILDS(type, name)                                                                               \
    PORT_BINARY_BUILD(type, name, ref, )                                                                             \
    PORT_BINARY_BUILD(type, name, avx2, PORT_TARGET_AVX2)                                                            \
    PORT_BINARY_BUILD(type, name, avx512, PORT_TARGET_AVX512)
#else
#define PORT_BINARY_BUILDS(type, name) PORT_BINARY_BUILD(type, name, ref, )
#endif
/* name_run, which has one build of its own for all levels; of integers, with whole runs of them. */
#define PORT_BINARY_RUN_WHOLE(name)                                                                                  \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const binary_op op = {.i64 = name##_i64, .whole = port_whole_##name};                                 \
        port_binary_run(call, &op, 0);                                                                               \
    }
#define PORT_BINARY_RUN(name, f32, f64, i64)                                                                         \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const binary_op op = {f32, f64, i64, NULL, NULL, NULL, false};                                        \
        port_binary_run(call, &op, 0);                                                                               \
    }

#endif /* PORT_BINARY_H */
