/* floats.h -- elements of any floating dtype as double, for handlers that round as the dtype does at every step: a sum,
 * product or quotient of two elements rounded to double and then to the dtype is rounded once. Private to csrc/program/. */
#ifndef PORT_FLOATS_H
#define PORT_FLOATS_H

#include "../core/core.h"

#include <math.h>

static inline double
float_rounded(port_dtype dtype, double v)
{
    switch (dtype) {
    case PORT_F32: return (double)(float)v;
    case PORT_BF16: return (double)port_bf16_to_f32(port_f32_to_bf16((float)v));
    case PORT_F16: return (double)port_f16_to_f32(port_f32_to_f16((float)v));
    default: return v;
    }
}

static inline double
float_load(port_dtype dtype, const void *data, int64_t i)
{
    switch (dtype) {
    case PORT_F32: return (double)((const float *)data)[i];
    case PORT_BF16: return (double)port_bf16_to_f32(((const uint16_t *)data)[i]);
    case PORT_F16: return (double)port_f16_to_f32(((const uint16_t *)data)[i]);
    default: return ((const double *)data)[i];
    }
}

static inline void
float_store(port_dtype dtype, void *data, int64_t i, double v)
{
    switch (dtype) {
    case PORT_F32: ((float *)data)[i] = (float)v; break;
    case PORT_BF16: ((uint16_t *)data)[i] = port_f32_to_bf16((float)v); break;
    case PORT_F16: ((uint16_t *)data)[i] = port_f32_to_f16((float)v); break;
    default: ((double *)data)[i] = v;
    }
}

/* a * b + c in F32 or F64, rounded once. */
static inline double
float_fma(port_dtype dtype, double a, double b, double c)
{
    return dtype == PORT_F64 ? fma(a, b, c) : (double)fmaf((float)a, (float)b, (float)c);
}

#endif /* PORT_FLOATS_H */
