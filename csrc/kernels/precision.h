/* precision.h -- steps of arithmetic in double that are rounded as the reference's are in its dtype. Private to csrc/. A sum, difference, product,
 * quotient or root of two F32 numbers in double, rounded to F32, is that of F32. */
#ifndef PORT_PRECISION_H
#define PORT_PRECISION_H

#include <math.h>
#include <stdbool.h>

/* How the reference computes: in F32, each step rounded, or in F64; a product and its sum rounded once (avx2 and up). */
typedef struct port_precision {
    bool is_f32, fused;
} port_precision;

static inline double
port_step(port_precision p, double v)
{
    return p.is_f32 ? (double)(float)v : v;
}

/* a b + c */
static inline double
port_fused_step(port_precision p, double a, double b, double c)
{
    if (!p.fused) {
        return port_step(p, port_step(p, a * b) + c);
    }
    return p.is_f32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

#endif /* PORT_PRECISION_H */
