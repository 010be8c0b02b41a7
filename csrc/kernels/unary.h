/* unary.h -- the loop over elements of one tensor, for families of functions y[i] = f(x[i]). Private to csrc/kernels/. */
#ifndef PORT_UNARY_H
#define PORT_UNARY_H

#include "halves.h"
#include "levels.h"
#include "wholes.h"

typedef struct unary_context {
    const port_kernel_call *call;
    const struct unary_op *op;
    int32_t level;         /* of the row: which builds of the maps may run; same bits, faster */
    port_compute compute;
} unary_context;

/* is_vector: the reference is in its vector loop, not in the scalar rest of it. */
typedef void (*unary_f32)(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y);
typedef void (*unary_f64)(const unary_context *context, int64_t n, const double *x, double *y);
typedef void (*unary_i64)(const unary_context *context, int64_t n, const int64_t *x, int64_t *y);
/* n elements of the vector loop, dense bf16 or f16, in one go: the bits of f32 rounded once. False: there is no such way, nothing is done. */
typedef bool (*unary_half)(const unary_context *context, int64_t n, const char *x, char *y);

typedef struct unary_op {
    unary_f32 f32; /* also bf16 and f16, converted before and rounded once after */
    unary_f64 f64;
    unary_i64 i64; /* BOOL and all integers */
    unary_half half; /* NULL: f32 alone */
    port_whole_map1 whole; /* dense I64, I32, U8 and BOOL in one go; NULL: i64 alone */
} unary_op;

void port_unary_run(const port_kernel_call *call, const unary_op *op, int32_t level);
/* The same where the reference cuts the loop so that each thread gets `grain` elements or more. */
void port_unary_run_with_grain(const port_kernel_call *call, const unary_op *op, int32_t level, int64_t grain);
/* y = function(x) as the reference calls MKL's vector math; false (and nothing done) if it has no such function for this dtype. */
bool port_vml_run(const unary_context *context, port_vms function, int64_t n, const float *x, float *y);
port_status port_unary_check(const port_kernel_call *call, port_error *err);

/* True where the reference runs its vector functions: in the vector loop, if it was compiled for avx2 or more. */
static inline bool
port_has_vector_functions(const unary_context *context, bool is_vector)
{
    return is_vector && context->call->profile->capability != PORT_CAP_DEFAULT;
}

/* PORT_UNARY_EACH(type, suffix, name, expression in v): the function name_suffix of a unary_op, for f64 and i64. */
#define PORT_UNARY_EACH(type, suffix, name, expression)                                                              \
    static void name##_##suffix(const unary_context *context, int64_t n, const type *x, type *y)                     \
    {                                                                                                                \
        (void)context;                                                                                               \
        for (int64_t i = 0; i < n; i++) {                                                                            \
            type v = x[i];                                                                                           \
            y[i] = (expression);                                                                                     \
        }                                                                                                            \
    }
/* The same for an expression that a compiler makes vectors of: built once for each level of the CPU. */
#define PORT_UNARY_VECTORS(type, suffix, name, expression)                                                           \
    PORT_INLINE type name##_##suffix##_of(type v)                                                                    \
    {                                                                                                                \
        return (type)(expression);                                                                                   \
    }                                                                                                                \
    PORT_UNARY_BUILDS(type, name##_##suffix)                                                                         \
    static void name##_##suffix(const unary_context *context, int64_t n, const type *x, type *y)                     \
    {                                                                                                                \
        (void)context;                                                                                               \
        PORT_PICK_MAP(name##_##suffix, port_cpu_level_found())(n, x, y);                                             \
    }
#define PORT_UNARY_BUILD(type, name, suffix, attributes)                                                             \
    attributes static void name##_##suffix(int64_t n, const type *x, type *y)                                        \
    {                                                                                                                \
        int64_t i = 0;                                                                                               \
        for (; i + 16 <= n; i += 16) {                                                                               \
            PORT_INDEPENDENT                                                                                         \
            for (int lane = 0; lane < 16; lane++) {                                                                  \
                y[i + lane] = name##_of(x[i + lane]);                                                                \
            }                                                                                                        \
        }                                                                                                            \
        for (; i < n; i++) {                                                                                         \
            y[i] = name##_of(x[i]);                                                                                  \
        }                                                                                                            \
    }
#if PORT_HAVE_AVX2
#define PORT_UNARY_BUILDS(type, name)                                                                                \
    PORT_UNARY_BUILD(type, name, ref, )                                                                              \
    PORT_UNARY_BUILD(type, name, avx2, PORT_TARGET_AVX2)                                                             \
    PORT_UNARY_BUILD(type, name, avx512, PORT_TARGET_AVX512)
#else
#define PORT_UNARY_BUILDS(type, name) PORT_UNARY_BUILD(type, name, ref, )
#endif
/* name_f32 by MKL's vector function of that name: its own bits with high accuracy; without it `fallback`, within 1 ulp. */
#define PORT_UNARY_VML(name, fallback)                                                                               \
    static void name##_f32(const unary_context *context, bool is_vector, int64_t n, const float *x, float *y)        \
    {                                                                                                                \
        const port_provider *provider = context->call->provider;                                                     \
        (void)is_vector;                                                                                             \
        if (port_vml_run(context, provider == NULL ? NULL : provider->vms_##name, n, x, y)) {                        \
            return;                                                                                                  \
        }                                                                                                            \
        fallback;                                                                                                    \
    }
/* name_half, for a function that halves take whatever the profile. */
#define PORT_UNARY_HALF(name, function)                                                                              \
    PORT_HALF_MAP(name, function(v))                                                                                 \
    static bool name##_half(const unary_context *context, int64_t n, const char *x, char *y)                         \
    {                                                                                                                \
        return name##_halves(context->call->in[0]->dtype, context->level, n, x, y, 0.0f, 0.0f);                      \
    }
/* name_half, where the reference runs its vector functions. */
#define PORT_UNARY_VECTOR_HALF(name)                                                                                   \
    static bool name##_half(const unary_context *context, int64_t n, const char *x, char *y)                         \
    {                                                                                                                \
        return port_has_vector_functions(context, true) &&                                                          \
               name##_halves(context->call->in[0]->dtype, context->level, n, x, y, 0.0f, 0.0f);                      \
    }
#define PORT_LIBM_LOOP(function)                                                                                     \
    for (int64_t i = 0; i < n; i++) {                                                                                \
        y[i] = function(x[i]);                                                                                       \
    }
/* name_run, which has one build for all levels. */
#define PORT_UNARY_RUN(name, f32, f64, i64)                                                                          \
    static void name##_run(const port_kernel_call *call)                                                             \
    {                                                                                                                \
        static const unary_op op = {f32, f64, i64, NULL, NULL};                                      \
        port_unary_run(call, &op, 0);                                                                                \
    }

#endif /* PORT_UNARY_H */
