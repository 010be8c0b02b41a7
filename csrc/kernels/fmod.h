/* fmod.h -- the rest of a division as the vector functions give it that PyTorch's CPU kernels call. Private to csrc/kernels/.
 *
 * For ordinary operands it is the true rest. Where the divisor is subnormal or its reciprocal is, where the quotient is beyond what
 * the steps reach, and for infinite operands it is what the steps leave: NaN, or a number that is no rest at all.
 * The algorithm is SLEEF's xfmodf and xfmod (Naoki Shibata and contributors, Boost Software License 1.0), restated for one lane. */
#ifndef PORT_FMOD_H
#define PORT_FMOD_H

#include <float.h>

#include "vecmath.h"

/* PORT_FMOD(name, type, least, shift, steps, bits, fused): |quotient| is estimated from below and its product taken off, in a value of two
 * parts, until what is left is below the divisor. SLEEF's f64 estimates 1 and 2 exactly, its f32 only 1; its f64 leaves the low part out. */
#define PORT_FMOD(name, type, least, shift, steps, bits, fused)                                                      \
    PORT_INLINE type name##_below(type x) /* the next number towards 0; of infinity the largest one */               \
    {                                                                                                                \
        bits n;                                                                                                      \
        memcpy(&n, &x, sizeof(n));                                                                                   \
        n -= x != 0;                                                                                                 \
        memcpy(&x, &n, sizeof(n));                                                                                   \
        return x;                                                                                                    \
    }                                                                                                                \
    static inline type name(type x, type y)                                                                          \
    {                                                                                                                \
        bool is_double = sizeof(type) == 8, tiny = (type)fabs((double)y) < (least);                                  \
        type up = tiny ? (type)(shift) : 1, whole = (type)fabs((double)x) * up, d = (type)fabs((double)y) * up;      \
        type part = name##_below(1 / d), hi = whole, lo = 0;                                                         \
        for (int i = 0; i < (steps); i++) {                                                                          \
            type q = (type)trunc((double)(type)(name##_below(hi) * part));                                           \
            q = is_double && hi >= d && 3 * d > hi ? 2 : q;                                                          \
            q = hi >= d && d + d > hi ? 1 : q;                                                                       \
            type product = q * -d, rounded = fused(q, -d, -product), sum = hi + product, back = sum - hi;            \
            type low = ((hi - (sum - back)) + (product - back)) + (lo + rounded);                                    \
            hi = sum + low;                                                                                          \
            lo = (sum - hi) + low;                                                                                   \
            if (hi < d) {                                                                                            \
                break;                                                                                               \
            }                                                                                                        \
        }                                                                                                            \
        type rest = hi + lo == d ? 0 : (is_double ? hi : hi + lo) * (1 / up);                                        \
        return d == 0 ? (type)NAN : whole < d ? x : (type)(signbit(x) ? -rest : rest);                               \
    }

PORT_FMOD(port_fmod_f32, float, FLT_MIN, 0x1p25, 8, int32_t, fmaf)
PORT_FMOD(port_fmod_f64, double, DBL_MIN, 0x1p54, 21, int64_t, fma)

#endif /* PORT_FMOD_H */
