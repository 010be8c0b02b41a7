/* core.h -- what every part of the C core shares: errors, memory, checked arithmetic, cursors, float conversion.
 * Private to csrc/. Depends on porting.h alone. */
#ifndef PORT_CORE_H
#define PORT_CORE_H

#include "../porting.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fills err (may be NULL) and returns status, so that a check reads `return port_fail(err, PORT_E_SHAPE, "...", ...)`. */
port_status port_fail(port_error *err, port_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a failed system call: adds strerror(os_errno). */
port_status port_fail_errno(port_error *err, int os_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* malloc/calloc/realloc/free behind one switch, so that tests can make the n-th call fail. */
void *port_alloc(size_t size_bytes);
void *port_calloc(size_t count, size_t size_bytes);
void *port_realloc(void *memory, size_t size_bytes);
void port_free(void *memory);
/* 64-byte aligned; released with port_free_aligned. Size 0 gives a valid pointer. */
void *port_alloc_aligned(size_t size_bytes);
void port_free_aligned(void *memory);
/* Tests: the n-th allocation from now (1-based) and all after it fail; 0 switches it off. Returns calls counted so far. */
size_t port_alloc_fail_after(size_t n);

/* part(context, i) for every i < count, each once, on up to num_threads threads (this one among them), in any order. Parts must not
 * write what others read. Returns when all are done. */
void port_parallel(int64_t count, int32_t num_threads, void (*part)(void *context, int64_t i), void *context);

/* How many parts [0, n) is cut into, and how long each but the last is: one for each thread, where each gets `grain` or more. */
typedef struct port_chunks {
    int64_t count, size;
} port_chunks;
port_chunks port_chunks_of(int64_t n, int64_t grain, int32_t num_threads);
/* At most num_parts parts of work of which each of the n reads or writes `elems` elements (or takes as long), none so small that it
 * is not worth a thread. */
port_chunks port_chunks_by_elems(int64_t n, int64_t elems, int32_t num_parts);
/* range(context, begin, end) for [0, n) in such parts, side by side: for work of which each of the n is done by itself, so that no cut
 * shows in the results. */
typedef void (*port_range_fn)(const void *context, int64_t begin, int64_t end);
void port_deal(int64_t n, int64_t elems, int32_t num_threads, port_range_fn range, const void *context);

/* Checked arithmetic: false on overflow, *out untouched. */
static inline bool
port_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) {
        return false;
    }
    *out = r;
    return true;
}

static inline bool
port_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) {
        return false;
    }
    *out = r;
    return true;
}

/* The number without what stands after the point; what does not fit gives INT64_MIN, as x86 converts it. */
static inline int64_t
port_int_of_double(double value)
{
    return value >= -9223372036854775808.0 && value < 9223372036854775808.0 ? (int64_t)value : INT64_MIN;
}

/* Elements and bytes of a shape; false if negative or if it does not fit in int64. */
bool port_shape_bytes(port_dtype dtype, int32_t ndim, const int64_t *shape, int64_t *elems, uint64_t *bytes);
bool port_view_is_contiguous(const port_view *view);
/* Copies any strided view into row-major memory of port_view_elems * size bytes. */
void port_view_gather(const port_view *view, void *out);

/* 16-bit and 8-bit floats <-> f32. To-half conversions round to nearest even; e4m3fn saturates as torch does
 * (also infinity, to 448 with the sign; NaN stays NaN). */
float port_f16_to_f32(uint16_t bits);
uint16_t port_f32_to_f16(float value);
float port_bf16_to_f32(uint16_t bits);
uint16_t port_f32_to_bf16(float value);
float port_f8e4m3_to_f32(uint8_t bits);
uint8_t port_f32_to_f8e4m3(float value);
float port_f8e5m2_to_f32(uint8_t bits);
uint8_t port_f32_to_f8e5m2(float value);

/* XXH3, 128 bit, seed 0 (Yann Collet's published algorithm). */
typedef struct port_hash128 {
    uint64_t low, high;
} port_hash128;
port_hash128 port_hash(const void *data, size_t size_bytes);
/* The same bits without vector instructions, for the tests. */
port_hash128 port_hash_ref(const void *data, size_t size_bytes);

#endif /* PORT_CORE_H */
