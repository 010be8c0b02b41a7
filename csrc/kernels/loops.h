/* loops.h -- the one strided loop that every kernel over elements or reductions uses. Private to csrc/kernels/.
 *
 * It walks operands in the order in which PyTorch's TensorIterator does (BSD-3-Clause; restated here): dimensions sorted
 * by stride, merged where they are contiguous, and cut into one range per thread of the reference. The order is part of the answer: the
 * last elements of each contiguous run are computed by scalar functions, the rest by vector functions with other bits,
 * and sums depend on it altogether.
 *
 * Not here: dtype promotion, broadcasting, allocation; the caller has done them. */
#ifndef PORT_LOOPS_H
#define PORT_LOOPS_H

#include "kernels.h"

#define PORT_ITER_MAX_OPERANDS 4
#define PORT_GRAIN_SIZE 32768 /* elements below which the reference does not cut a loop */
#define PORT_BLOCK 512        /* elements that are converted at a time when a loop is strided or of another dtype */

typedef struct port_iter {
    int32_t num_operands, ndim; /* dimension 0 is the innermost; ndim is 0 only for a scalar */
    int64_t shape[PORT_MAX_NDIM];
    int64_t strides[PORT_MAX_NDIM][PORT_ITER_MAX_OPERANDS]; /* bytes */
    int64_t elem_bytes[PORT_ITER_MAX_OPERANDS];
    char *data[PORT_ITER_MAX_OPERANDS];
    bool is_reduction; /* operand 0 is the output and has stride 0 in reduced dimensions */
} port_iter;

/* One piece of the loop: size1 rows of size0 elements. strides: num_operands inner ones, then num_operands outer ones, in bytes. */
typedef void (*port_loop_fn)(void *context, char *const *data, const int64_t *strides, int64_t size0, int64_t size1);

/* An iteration over operands (output first) of one shape; stride 0 broadcasts. */
port_iter port_iter_elementwise(int32_t num_operands, const port_view *const *operands);
/* The same for out reduced from x: out has x's ndim, size 1 at the dimensions whose bit is set in `dims`. */
port_iter port_iter_reduction(const port_view *out, const port_view *x, uint32_t dims);
/* Merges neighbouring dimensions that one stride can walk. */
void port_iter_merge_dims(port_iter *iter);
int64_t port_iter_elems(const port_iter *iter);

/* Elements [begin, end), as the reference's serial loop over a range. */
void port_iter_range(const port_iter *iter, int64_t begin, int64_t end, port_loop_fn loop, void *context);
/* All elements, cut as num_threads threads of the reference would where each gets `grain` elements or more; the ranges run side by side, so that the loop may only read the context. */
void port_iter_for_each_grain(const port_iter *iter, int64_t grain, int32_t num_threads, port_loop_fn loop, void *context);
/* The same with the reference's usual grain. */
void port_iter_for_each(const port_iter *iter, int32_t num_threads, port_loop_fn loop, void *context);
/* The same, one range after the other: for loops that call a library which has threads of its own. */
void port_iter_for_each_serial(const port_iter *iter, int32_t num_threads, port_loop_fn loop, void *context);

/* The sum of lanes: by halves (count a power of 2), which spoils acc, or one after the other. */
float port_add_lanes(float *acc, int64_t count, bool halving);

/* n elements of any dtype, stride in bytes, into row-major f32, f64 or i64 and back. Floats to integers as C converts them;
 * to BOOL: not equal to 0. The f32 forms are for F32, BF16, F16 and F8; f64 for F64 as well; i64 for BOOL and integers. */
void port_load_f32(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, float *to);
void port_store_f32(port_dtype dtype, const float *from, int64_t n, char *to, int64_t stride_bytes);
void port_load_f64(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, double *to);
void port_store_f64(port_dtype dtype, const double *from, int64_t n, char *to, int64_t stride_bytes);
void port_load_i64(port_dtype dtype, const char *from, int64_t stride_bytes, int64_t n, int64_t *to);
void port_store_i64(port_dtype dtype, const int64_t *from, int64_t n, char *to, int64_t stride_bytes);

/* Lanes of one vector of the reference in elements of `dtype`: 32 bytes, 64 with avx512. */
int64_t port_profile_lanes(const port_profile *profile, port_dtype dtype);

static inline bool
port_dtype_is_float(port_dtype dtype)
{
    return dtype == PORT_F32 || dtype == PORT_F64 || dtype == PORT_BF16 || dtype == PORT_F16;
}

/* A value as an element of a half dtype holds it; of any other dtype as it is. */
static inline float
port_rounded(port_dtype dtype, float x)
{
    if (dtype == PORT_BF16) {
        return port_bf16_to_f32(port_f32_to_bf16(x));
    }
    return dtype == PORT_F16 ? port_f16_to_f32(port_f32_to_f16(x)) : x;
}

/* Kernels compute in one of three types. */
typedef enum port_compute { PORT_COMPUTE_F32, PORT_COMPUTE_F64, PORT_COMPUTE_I64 } port_compute;

static inline port_compute
port_compute_of(port_dtype dtype)
{
    if (dtype == PORT_F64) {
        return PORT_COMPUTE_F64;
    }
    return dtype == PORT_F32 || dtype == PORT_BF16 || dtype == PORT_F16 || dtype == PORT_F8_E4M3 || dtype == PORT_F8_E5M2
               ? PORT_COMPUTE_F32
               : PORT_COMPUTE_I64;
}

/* Checks that operands are there, have this many in and out, and the shape of out[0]. */
port_status port_check_same_shape(const char *op, const port_kernel_call *call, int32_t num_in, port_error *err);

/* Rows of one op: every float dtype; every integer dtype and BOOL; in one variant. */
#define PORT_ROW(op_name, type, variant_name, level, checker, runner)                                                \
    {.op = op_name, .dtype = type, .variant = variant_name, .cpu_level = level, .check = checker, .run = runner}
#define PORT_FLOAT_ROWS(op_name, variant_name, level, checker, runner)                                               \
    PORT_ROW(op_name, PORT_F32, variant_name, level, checker, runner),                                               \
        PORT_ROW(op_name, PORT_F64, variant_name, level, checker, runner),                                           \
        PORT_ROW(op_name, PORT_BF16, variant_name, level, checker, runner),                                          \
        PORT_ROW(op_name, PORT_F16, variant_name, level, checker, runner)
#define PORT_INT_ROWS(op_name, variant_name, level, checker, runner)                                                 \
    PORT_ROW(op_name, PORT_U8, variant_name, level, checker, runner),                                                \
        PORT_ROW(op_name, PORT_I8, variant_name, level, checker, runner),                                            \
        PORT_ROW(op_name, PORT_I16, variant_name, level, checker, runner),                                           \
        PORT_ROW(op_name, PORT_I32, variant_name, level, checker, runner),                                           \
        PORT_ROW(op_name, PORT_I64, variant_name, level, checker, runner)
#define PORT_BOOL_ROW(op_name, variant_name, level, checker, runner)                                                 \
    PORT_ROW(op_name, PORT_BOOL, variant_name, level, checker, runner)

/* Whether all tensors are F32 and row-major, those that are NULL left out: what one kernel's loops take for granted. Errors: DTYPE, SHAPE. */
static inline port_status
port_row_major_f32(const port_view *const *tensors, int32_t count, const char *kernel, port_error *err)
{
    for (int32_t k = 0; k < count; k++) {
        if (tensors[k] != NULL && !port_view_is_contiguous(tensors[k])) {
            return port_fail(err, PORT_E_SHAPE, "%s: expected row-major tensors", kernel);
        }
    }
    for (int32_t k = 0; k < count; k++) {
        if (tensors[k] != NULL && tensors[k]->dtype != PORT_F32) {
            return port_fail(err, PORT_E_DTYPE, "%s: expected F32", kernel);
        }
    }
    return PORT_OK;
}

#endif /* PORT_LOOPS_H */
