/* exp_onednn.h -- the exp of oneDNN's eltwise injector (Intel, Apache-2.0), restated for one lane. Private to csrc/kernels/. */
#ifndef PORT_EXP_ONEDNN_H
#define PORT_EXP_ONEDNN_H

#include "vecmath.h"

/* e^x for x <= 0: 2 * 2^(n-1) * p(r), 0 below ln FLT_MIN. */
PORT_INLINE float
port_exp_onednn(float x)
{
    float near = port_select(x < -0x1.5d58ap6f, -0x1.5d58ap6f, x);
    float n = floorf(near * 0x1.715476p0f + 0.5f);
    float r = fmaf(-n, 0x1.62e43p-1f, near);
    float p = 0x1.0f9f9cp-7f;
    p = fmaf(p, r, 0x1.573a1ap-5f);
    p = fmaf(p, r, 0x1.555a8p-3f);
    p = fmaf(p, r, 0x1.fffdc6p-2f);
    p = fmaf(p, r, 0x1.fffff6p-1f);
    p = fmaf(p, r, 1.0f);
    float scale = port_select(x < -0x1.5d58ap6f, 0.0f, port_pow2i(port_round_to_int(n) - 1));
    return p * scale * 2.0f;
}

#endif /* PORT_EXP_ONEDNN_H */
