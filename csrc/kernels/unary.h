/* unary.h -- the loop over elements of one tensor, for families of functions y[i] = f(x[i]). Private to csrc/kernels/. */
#ifndef PORT_UNARY_H
#define PORT_UNARY_H

#include "loops.h"

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

typedef struct unary_op {
    unary_f32 f32; /* also bf16 and f16, converted before and rounded once after */
    unary_f64 f64;
    unary_i64 i64; /* BOOL and all integers */
} unary_op;

void port_unary_run(const port_kernel_call *call, const unary_op *op, int32_t level);
/* y = function(x) as the reference calls MKL's vector math; false (and nothing done) if it has no such function for this dtype. */
bool port_vml_run(const unary_context *context, port_vms function, int64_t n, const float *x, float *y);
port_status port_unary_check(const port_kernel_call *call, port_error *err);

#endif /* PORT_UNARY_H */
