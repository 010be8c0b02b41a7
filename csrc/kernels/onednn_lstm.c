/* onednn_lstm.c -- one layer of an LSTM over all steps, with the bits of oneDNN's AVX-512 code, which PyTorch calls while mkldnn is on.
 *
 *     i, f, g, o = w @ x[t] + r @ h + bias                      x (T, B, I), w (4H, I), r (4H, H), bias (4H)
 *     c = sigmoid(f) * c + sigmoid(i) * tanh(g),  h = sigmoid(o) * tanh(c) = y[t]      h, c (B, H), y (T, B, H)
 *
 * Where I = H a gate is one chain of fused multiply-adds from 0 over x and then h, else, and of several steps of one sequence, whose x it multiplies
 * all at once, one chain over each, which are added; the bias comes last. Of c the second product is fused. Sigmoid and tanh are those of oneDNN's eltwise injector (Intel, Apache-2.0), restated for one lane, constants
 * and order of operations: sigmoid by an exp of -|x|, tanh by one of 32 polynomials of degree 6, chosen by exponent and first bit of the mantissa. */
#include "exp_onednn.h"
#include "loops.h"

#define STEP 64 /* gates that are computed together */

enum { TANH_PIECES = 32, TANH_DEGREE = 6 };

/* Coefficient of degree `row` in each piece, of |x| less the begin of the piece. */
static const float tanh_pieces[TANH_DEGREE + 1][TANH_PIECES] = {
    {0.0f, 0x1.7ffffep-12f, 0x1.fffffep-12f, 0x1.7ffffcp-11f, 0x1.fffff6p-11f, 0x1.7fffeep-10f, 0x1.ffffd6p-10f,
     0x1.7fffb8p-9f, 0x1.ffff56p-9f, 0x1.7ffeep-8f, 0x1.fffd56p-8f, 0x1.7ffb8p-7f, 0x1.fff556p-7f, 0x1.7fee02p-6f,
     0x1.ffd55ap-6f, 0x1.7fb81p-5f, 0x1.ff559ap-5f, 0x1.7ee102p-4f, 0x1.fd5992p-4f, 0x1.7b8ffap-3f, 0x1.f597eap-3f,
     0x1.6ef53ep-2f, 0x1.d9353ep-2f, 0x1.45323ep-1f, 0x1.85efacp-1f, 0x1.cf6f98p-1f, 0x1.ed9506p-1f, 0x1.fd77d2p-1f,
     0x1.ffa818p-1f, 0x1.fffe64p-1f, 0x1.fffff8p-1f, 0x1p0f},
    {0x1p0f, 0x1.00003p0f, 0x1.ffffdp-1f, 0x1.ffffb4p-1f, 0x1.ffffb8p-1f, 0x1.ffffb8p-1f, 0x1.ffff58p-1f, 0x1.fffeep-1f,
     0x1.fffdd8p-1f, 0x1.fffb8p-1f, 0x1.fff7dap-1f, 0x1.ffee08p-1f, 0x1.ffdfeap-1f, 0x1.ffb794p-1f, 0x1.ff7ffep-1f,
     0x1.fee082p-1f, 0x1.fe0136p-1f, 0x1.fb86d8p-1f, 0x1.f8155p-1f, 0x1.ee697p-1f, 0x1.e149bcp-1f, 0x1.be3fbp-1f,
     0x1.92a926p-1f, 0x1.3173d8p-1f, 0x1.ae0d96p-2f, 0x1.72160cp-3f, 0x1.21623ep-4f, 0x1.4340a6p-7f, 0x1.5effb6p-10f,
     0x1.998346p-16f, 0x1.b8ce66p-21f, 0.0f},
    {0.0f, -0x1.9c1fe2p-3f, 0x1.4b6362p-5f, 0x1.d6db56p-5f, 0x1.3f63aap-6f, -0x1.7fe0dep-10f, 0x1.0f67ecp-7f,
     -0x1.7f8378p-9f, 0x1.3eb242p-10f, -0x1.7e0de4p-8f, -0x1.61e804p-8f, -0x1.8fb73cp-7f, -0x1.e7abcep-7f,
     -0x1.44b7b4p-6f, -0x1.f94fp-6f, -0x1.81c0f8p-5f, -0x1.fb5606p-5f, -0x1.7c941ep-4f, -0x1.f6294ap-4f,
     -0x1.6d991ap-3f, -0x1.d7a204p-3f, -0x1.3fcf8ap-2f, -0x1.741e2p-2f, -0x1.840d5p-2f, -0x1.47871p-2f, -0x1.4efac4p-3f,
     -0x1.16f2cp-4f, -0x1.413e92p-7f, -0x1.5a8994p-10f, -0x1.8ddd58p-16f, -0x1.c75482p-19f, 0.0f},
    {0.0f, 0x1.675d2cp12f, -0x1.29d64p9f, -0x1.a1c05cp9f, -0x1.2a569cp7f, -0x1.5a5eacp-2f, -0x1.2c5c04p5f,
     -0x1.697ab4p-2f, -0x1.34b348p3f, -0x1.a5ea0ep-2f, -0x1.41a658p1f, 0x1.a1ea0cp-4f, -0x1.54ebc4p-1f, -0x1.f2a1c6p0f,
     -0x1.a8e668p-2f, -0x1.013718p-2f, -0x1.6c8a64p-2f, -0x1.2c34b6p-2f, -0x1.36c758p-2f, -0x1.41a964p-2f,
     -0x1.0514eep-2f, -0x1.6f0c24p-3f, -0x1.84121p-4f, 0x1.5a72aep-5f, 0x1.a8dd12p-4f, 0x1.67ec52p-4f, 0x1.58bcf6p-5f,
     0x1.a40806p-8f, 0x1.b3bf5cp-11f, 0x1.e15e8ap-17f, 0x1.598028p-17f, 0.0f},
    {0.0f, -0x1.303436p26f, 0x1.fdba7ap21f, 0x1.6200f8p22f, 0x1.fdbb38p18f, 0x1.4aaf6ap4f, 0x1.fdc654p15f,
     0x1.4aafeap5f, 0x1.fe79c8p12f, 0x1.4aac82p6f, 0x1.dc10cep9f, -0x1.7b8334p7f, 0x1.22a428p6f, 0x1.5e9f5ap8f,
     0x1.21fd1p3f, -0x1.1336eap3f, 0x1.9151b8p0f, -0x1.7d5deap0f, -0x1.6cb55ap-3f, 0x1.9b2ca4p-1f, 0x1.bf411ep-4f,
     0x1.69d37p-3f, 0x1.5a0f4cp-3f, 0x1.8c6acep-4f, 0x1.b5d6fp-6f, -0x1.a2ea6ep-6f, -0x1.250538p-6f, -0x1.875732p-9f,
     -0x1.68e3bap-12f, -0x1.755ab4p-18f, -0x1.175f8ep-16f, 0.0f},
    {0.0f, 0x1.ed11aap38f, -0x1.a0b8e4p33f, -0x1.1f31c6p34f, -0x1.a0b992p29f, -0x1.2c5714p15f, -0x1.a0c3acp25f,
     -0x1.2c57bep15f, -0x1.a166fep21f, -0x1.2c5474p15f, -0x1.84410cp17f, 0x1.34e29cp15f, -0x1.d9c3e2p12f,
     -0x1.1c7b2p15f, -0x1.d75294p8f, 0x1.c18848p8f, -0x1.3e8aa4p5f, 0x1.42f99p5f, 0x1.bcfb88p1f, -0x1.1ba802p3f,
     0x1.2d6c04p-2f, -0x1.34da5ep-5f, -0x1.727106p-5f, -0x1.ce8d04p-5f, -0x1.62002cp-5f, -0x1.c3c4d2p-13f,
     0x1.46492ap-8f, 0x1.ed01aap-11f, 0x1.662e78p-14f, 0x1.53bdd4p-20f, 0x1.b87e54p-17f, 0.0f},
    {0.0f, -0x1.32bda2p50f, 0x1.050bd4p44f, 0x1.659ad2p44f, 0x1.050c4ap39f, 0x1.93323ep24f, 0x1.051314p34f,
     0x1.933366p23f, 0x1.0580f8p29f, 0x1.932ec8p22f, 0x1.e59044p23f, -0x1.8181c2p21f, 0x1.2827c8p18f, 0x1.624448p20f,
     0x1.26989cp13f, -0x1.185aaep13f, 0x1.90722p8f, -0x1.90e5a2p8f, -0x1.0d793cp4f, 0x1.64b786p5f, -0x1.5ff494p-1f,
     0x1.344078p-4f, -0x1.a8b486p-7f, -0x1.c11fdcp-10f, 0x1.0044bap-6f, 0x1.3fa3bep-9f, -0x1.6d73a2p-11f,
     -0x1.3bca88p-13f, -0x1.3e201ep-17f, -0x1.11c5dap-23f, -0x1.0bfd9p-18f, 0.0f},
};

PORT_INLINE float
onednn_tanh(float x)
{
    float magnitude = fabsf(x);
    uint32_t bits = (uint32_t)port_f32_bits(magnitude);
    uint32_t piece = (bits - 0x39800000u) >> 22 & (TANH_PIECES - 1);
    float rest = magnitude - port_f32_of_bits((int32_t)(bits & 0xffc00000u));
    float value = tanh_pieces[TANH_DEGREE][piece];
    for (int degree = TANH_DEGREE - 1; degree >= 0; degree--) {
        value = fmaf(value, rest, tanh_pieces[degree][piece]);
    }
    value = port_select(magnitude >= 0x1.205966p3f, 1.0f, value);
    return port_sign_of(port_select(magnitude < 0x1.bb67aep-12f, magnitude, value), x);
}

PORT_INLINE float
onednn_sigmoid(float x)
{
    float power = port_exp_onednn(-fabsf(x)), value = power / (power + 1.0f);
    return port_select(signbit(x) != 0, value, 1.0f - value);
}

typedef struct lstm_plan {
    int64_t T, B, I, H;
    int64_t gates; /* 4H in whole steps */
    bool one; /* chain over x and h */
} lstm_plan;

static lstm_plan
plan_of(const port_kernel_call *call)
{
    const port_view *x = call->in[0], *r = call->in[2];
    lstm_plan plan = {.T = x->shape[0], .B = x->shape[1], .I = x->shape[2], .H = r->shape[1]};
    plan.gates = (4 * plan.H + STEP - 1) / STEP * STEP;
    plan.one = plan.I == plan.H && (plan.B > 1 || plan.T == 1);
    return plan;
}

static port_status
lstm_check(const port_kernel_call *call, port_error *err)
{
    const port_view *x = call->in[0], *w = call->in[1], *r = call->in[2], *bias = call->in[3];
    const port_view *y = call->out[0], *h = call->out[1], *c = call->out[2];
    bool fits = call->params != NULL && x->ndim == 3 && w->ndim == 2 && r->ndim == 2 && bias->ndim == 1 && y->ndim == 3 && h->ndim == 2 && c->ndim == 2;
    int64_t H = fits ? r->shape[1] : 0;
    if (!fits || H < 1 || H > INT32_MAX || x->shape[2] > INT32_MAX || w->shape[0] != 4 * H || w->shape[1] != x->shape[2] || r->shape[0] != 4 * H ||
        bias->shape[0] != 4 * H || y->shape[0] != x->shape[0] || y->shape[1] != x->shape[1] || y->shape[2] != H ||
        h->shape[0] != x->shape[1] || h->shape[1] != H || c->shape[0] != x->shape[1] || c->shape[1] != H) {
        return port_fail(err, PORT_E_SHAPE, "onednn_lstm: the tensors do not fit");
    }
    return port_row_major_f32((const port_view *[]){x, w, r, bias, y, h, c}, 7, "onednn_lstm", err);
}

/* The weights, gates innermost within STEP of them; and the gates of one row. */
static size_t
lstm_scratch_bytes(const port_kernel_call *call)
{
    lstm_plan plan = plan_of(call);
    return (size_t)(plan.gates * (plan.I + plan.H + plan.B)) * sizeof(float) + 64;
}

/* to[step][k][gate], as w (4H, terms) has it transposed. */
static void
pack_weights(const lstm_plan *plan, const float *w, int64_t terms, float *to)
{
    for (int64_t gate = 0; gate < plan->gates; gate++) {
        float *column = to + gate / STEP * terms * STEP + gate % STEP;
        for (int64_t k = 0; k < terms; k++) {
            column[k * STEP] = gate < 4 * plan->H ? w[gate * terms + k] : 0.0f;
        }
    }
}

/* sums[gate] += the terms of x, each fused. */
PORT_INLINE void
run_chain(const float *restrict weights, const float *restrict x, int64_t terms, float *restrict sums)
{
    for (int64_t k = 0; k < terms; k++) {
        for (int64_t gate = 0; gate < STEP; gate++) {
            sums[gate] = fmaf(x[k], weights[k * STEP + gate], sums[gate]);
        }
    }
}

/* STEP gates of one row, without the bias. */
PORT_INLINE void
run_gates(const lstm_plan *plan, const float *w, const float *r, const float *x, const float *h, float *made)
{
    float sums[2][STEP] = {{0.0f}};
    run_chain(w, x, plan->I, sums[0]);
    run_chain(r, h, plan->H, sums[plan->one ? 0 : 1]);
    for (int64_t gate = 0; gate < STEP; gate++) {
        made[gate] = sums[0][gate] + sums[1][gate];
    }
}

PORT_INLINE void
run_cell(const lstm_plan *plan, const float *gates, const float *bias, float *h, float *c, float *y)
{
    int64_t H = plan->H;
    for (int64_t k = 0; k < H; k++) {
        float in = onednn_sigmoid(gates[k] + bias[k]), kept = onednn_sigmoid(gates[H + k] + bias[H + k]);
        float value = onednn_tanh(gates[2 * H + k] + bias[2 * H + k]), out = onednn_sigmoid(gates[3 * H + k] + bias[3 * H + k]);
        c[k] = fmaf(in, value, c[k] * kept);
        h[k] = y[k] = onednn_tanh(c[k]) * out;
    }
}

typedef struct lstm_step {
    const lstm_plan *plan;
    const float *w, *r, *x, *h;
    float *gates;
    void (*run)(const lstm_plan *plan, const float *w, const float *r, const float *x, const float *h, float *made);
} lstm_step;

/* Units are STEP gates of one row each. */
static void
step_range(const void *opaque, int64_t begin, int64_t end)
{
    const lstm_step *step = opaque;
    const lstm_plan *plan = step->plan;
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t first = unit / plan->B * STEP, b = unit % plan->B;
        step->run(plan, step->w + first * plan->I, step->r + first * plan->H, step->x + b * plan->I, step->h + b * plan->H,
                  step->gates + b * plan->gates + first);
    }
}

static void
gates_ref(const lstm_plan *plan, const float *w, const float *r, const float *x, const float *h, float *made)
{
    run_gates(plan, w, r, x, h, made);
}

static void
cell_ref(const lstm_plan *plan, const float *gates, const float *bias, float *h, float *c, float *y)
{
    run_cell(plan, gates, bias, h, c, y);
}

#if PORT_HAVE_AVX2
PORT_TARGET_AVX2 static void
gates_avx2(const lstm_plan *plan, const float *w, const float *r, const float *x, const float *h, float *made)
{
    run_gates(plan, w, r, x, h, made);
}

PORT_TARGET_AVX2 static void
cell_avx2(const lstm_plan *plan, const float *gates, const float *bias, float *h, float *c, float *y)
{
    run_cell(plan, gates, bias, h, c, y);
}
#endif

static void
lstm_run(const port_kernel_call *call, bool avx2)
{
    lstm_plan plan = plan_of(call);
    const port_lstm_params *params = call->params;
    const float *x = call->in[0]->data, *bias = call->in[3]->data;
    float *y = call->out[0]->data, *h = call->out[1]->data, *c = call->out[2]->data;
    float *w = call->scratch, *r = w + plan.gates * plan.I, *gates = r + plan.gates * plan.H;
    lstm_step step = {.plan = &plan, .w = w, .r = r, .h = h, .gates = gates, .run = gates_ref};
    void (*cell)(const lstm_plan *, const float *, const float *, float *, float *, float *) = cell_ref;
#if PORT_HAVE_AVX2
    step.run = avx2 ? gates_avx2 : gates_ref;
    cell = avx2 ? cell_avx2 : cell_ref;
#endif
    (void)avx2;
    pack_weights(&plan, call->in[1]->data, plan.I, w);
    pack_weights(&plan, call->in[2]->data, plan.H, r);
    for (int64_t k = 0; k < plan.T; k++) {
        int64_t t = params->reverse ? plan.T - 1 - k : k;
        step.x = x + t * plan.B * plan.I;
        port_deal(plan.B * (plan.gates / STEP), (plan.I + plan.H) * STEP / 8, call->profile->num_threads, step_range, &step);
        for (int64_t b = 0; b < plan.B; b++) {
            cell(&plan, gates + b * plan.gates, bias, h + b * plan.H, c + b * plan.H, y + (t * plan.B + b) * plan.H);
        }
    }
}

static void
lstm_run_ref(const port_kernel_call *call)
{
    lstm_run(call, false);
}

#if PORT_HAVE_AVX2
static void
lstm_run_avx2(const port_kernel_call *call)
{
    lstm_run(call, true);
}
#endif

const port_kernel_row port_onednn_lstm_rows[] = {
#if PORT_HAVE_AVX2
    {"onednn_lstm", PORT_F32, "avx2", 1, lstm_check, lstm_scratch_bytes, lstm_run_avx2},
#endif
    {"onednn_lstm", PORT_F32, "ref", 0, lstm_check, lstm_scratch_bytes, lstm_run_ref},
    {.op = NULL},
};
