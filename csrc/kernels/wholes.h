/* wholes.h -- functions of I64, I32, U8 and BOOL that lie side by side, by whole vectors, for binary.c and unary.c; totals of integers and truths, for
 * sum.c and reduce.c. Private to csrc/kernels/.
 * The same values at every level of the CPU as one element at a time. */
#ifndef PORT_WHOLES_H
#define PORT_WHOLES_H

#include "kernels.h"

/* n elements y[i] = f(a[i], b[i]); a_step, b_step: 1, or 0 where the operand is one number. False: there is no such way for these dtypes,
 * nothing is done. */
typedef bool (*port_whole_map)(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *a, int64_t a_step, const char *b,
                               int64_t b_step, char *y);

bool port_whole_eq(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *a, int64_t a_step, const char *b, int64_t b_step, char *y);
#define PORT_WHOLE_LIKE_EQ(name) extern __typeof__(port_whole_eq) port_whole_##name
PORT_WHOLE_LIKE_EQ(ne);
PORT_WHOLE_LIKE_EQ(lt);
PORT_WHOLE_LIKE_EQ(le);
PORT_WHOLE_LIKE_EQ(gt);
PORT_WHOLE_LIKE_EQ(ge);
PORT_WHOLE_LIKE_EQ(logical_and);
PORT_WHOLE_LIKE_EQ(logical_or);
PORT_WHOLE_LIKE_EQ(logical_xor);
PORT_WHOLE_LIKE_EQ(add); /* not of BOOL, as the next two */
PORT_WHOLE_LIKE_EQ(sub);
PORT_WHOLE_LIKE_EQ(mul);
PORT_WHOLE_LIKE_EQ(maximum);
PORT_WHOLE_LIKE_EQ(minimum);
PORT_WHOLE_LIKE_EQ(bitwise_and);
PORT_WHOLE_LIKE_EQ(bitwise_or);
PORT_WHOLE_LIKE_EQ(bitwise_xor);

/* The same of one operand. */
typedef bool (*port_whole_map1)(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y);
bool port_whole_logical_not(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y);
bool port_whole_neg(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y); /* not of BOOL */
bool port_whole_bitwise_not(port_dtype from, port_dtype to, int32_t level, int64_t n, const char *x, char *y);

/* n elements of `bytes` (1, 4 or 8), each from a or b as the condition says; steps in elements, 1 or 0. */
void port_whole_where(size_t bytes, int64_t n, const char *condition, const char *a, int64_t a_step, const char *b, int64_t b_step, char *y);

/* The sum of n integers that lie side by side, which wraps; of BOOL, or with `truths` of any dtype, how many are not 0. */
int64_t port_whole_total(port_dtype dtype, bool truths, int64_t n, const char *x);
/* The same of n columns: totals[i] += x[i], or 1 where x[i] is not 0. */
void port_whole_totals(port_dtype dtype, bool truths, int64_t n, const char *x, int64_t *totals);

#endif /* PORT_WHOLES_H */
