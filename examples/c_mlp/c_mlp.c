/* c_mlp.c -- a port of one module without Python: the gated MLP of a Llama model, over csrc/porting.h and libm.
 *
 *     y = down(silu(gate(x)) * up(x))        x, y: (..., C) f32; gate, up: (H, C); down: (C, H); no biases
 *
 * Reads the inputs of every call of the module and its three weights from a capture, computes the outputs with the
 * loops below, and writes them under the same names as a capture of its own. `porting compare CAPTURE PORT` judges it.
 */
#include "porting.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct mlp {
    port_view gate, up, down; /* (H, C), (H, C), (C, H) f32 */
    bool broken;              /* gelu in the place of silu, to see that it is found */
} mlp;

/* y[t,o] = sum_c x[t,c] * weight[o,c]        x: (T, C), weight: (O, C), y: (T, O) */
static void
linear(const float *x, const float *weight, float *y, int64_t T, int64_t C, int64_t O)
{
    for (int64_t t = 0; t < T; t++) {
        for (int64_t o = 0; o < O; o++) {
            double sum = 0.0; /* products of two floats are exact in double: one rounding, at the end */
            for (int64_t c = 0; c < C; c++) {
                sum += (double)x[t * C + c] * (double)weight[o * C + c];
            }
            y[t * O + o] = (float)sum;
        }
    }
}

static float
activation(float x, bool broken)
{
    return broken ? 0.5f * x * (1.0f + erff(x * 0.70710678f)) : x / (1.0f + expf(-x));
}

/* y: (T, C) from x: (T, C); scratch holds 2 * T * H floats. */
static void
mlp_forward(const mlp *m, const float *x, float *y, float *scratch, int64_t T)
{
    const int64_t H = m->gate.shape[0], C = m->gate.shape[1];
    float *gate = scratch, *up = scratch + T * H;
    linear(x, m->gate.data, gate, T, C, H);
    linear(x, m->up.data, up, T, C, H);
    for (int64_t i = 0; i < T * H; i++) {
        gate[i] = activation(gate[i], m->broken) * up[i];
    }
    linear(gate, m->down.data, y, T, H, C);
}

/* The weight "param:<module>.<leaf>.weight", which must be a matrix of f32. */
static bool
find_weight(const port_reader *reader, const char *module, const char *leaf, port_view *view)
{
    char name[512];
    port_error err;
    snprintf(name, sizeof name, "param:%s.%s.weight", module, leaf);
    if (port_reader_find(reader, name, view, &err) != PORT_OK) {
        fprintf(stderr, "c_mlp: %s\n", err.message);
        return false;
    }
    if (view->dtype != PORT_F32 || view->ndim != 2) {
        fprintf(stderr, "c_mlp: %s: expected a matrix of F32, got %d dimensions of %s\n", name, view->ndim,
                port_dtype_name(view->dtype));
        return false;
    }
    return true;
}

static bool
find_mlp(const port_reader *reader, const char *module, mlp *m)
{
    if (!find_weight(reader, module, "gate_proj", &m->gate) || !find_weight(reader, module, "up_proj", &m->up) ||
        !find_weight(reader, module, "down_proj", &m->down)) {
        return false;
    }
    const int64_t H = m->gate.shape[0], C = m->gate.shape[1];
    if (m->up.shape[0] != H || m->up.shape[1] != C || m->down.shape[0] != C || m->down.shape[1] != H) {
        fprintf(stderr, "c_mlp: %s: the shapes of gate_proj, up_proj and down_proj do not fit together\n", module);
        return false;
    }
    return true;
}

/* Computes one call of the module and stores its output under `name`. */
static bool
run_call(const mlp *m, const port_view *x, port_writer *writer, const char *name)
{
    const int64_t H = m->gate.shape[0], C = m->gate.shape[1], elems = port_view_elems(x);
    if (x->dtype != PORT_F32 || x->ndim < 1 || x->shape[x->ndim - 1] != C) {
        fprintf(stderr, "c_mlp: the input for %s is not F32 with %lld channels\n", name, (long long)C);
        return false;
    }
    const int64_t T = C > 0 ? elems / C : 0;
    float *y = malloc((size_t)(elems + 1) * sizeof *y), *scratch = malloc((size_t)(2 * T * H + 1) * sizeof *scratch);
    port_error err = {.message = "out of memory"};
    port_status status = PORT_E_NOMEM;
    if (y != NULL && scratch != NULL) {
        mlp_forward(m, x->data, y, scratch, T);
        port_view out = port_view_contiguous(y, PORT_F32, x->ndim, x->shape);
        status = port_writer_add(writer, name, &out, &err);
    }
    if (status != PORT_OK) {
        fprintf(stderr, "c_mlp: %s: %s\n", name, err.message);
    }
    free(scratch);
    free(y);
    return status == PORT_OK;
}

/* Every call of the module that the capture holds: <module>.in.0, <module>@1.in.0, ... Returns calls, or -1. */
static int
run_calls(const port_reader *reader, const mlp *m, const char *module, port_writer *writer)
{
    for (int call = 0;; call++) {
        char in[512], out[512], number[16] = "";
        if (call > 0) {
            snprintf(number, sizeof number, "@%d", call);
        }
        snprintf(in, sizeof in, "%s%s.in.0", module, number);
        snprintf(out, sizeof out, "%s%s.out.0", module, number);
        port_view x;
        port_error err;
        port_status status = port_reader_find(reader, in, &x, &err);
        if (status == PORT_E_NAME && call > 0) {
            return call;
        }
        if (status != PORT_OK) {
            fprintf(stderr, "c_mlp: %s\n", err.message);
            return -1;
        }
        if (!run_call(m, &x, writer, out)) {
            return -1;
        }
    }
}

int
main(int argc, char **argv)
{
    mlp m = {.broken = argc > 1 && strcmp(argv[1], "--break") == 0};
    char **args = argv + 1 + m.broken;
    const int num_args = argc - 1 - m.broken;
    if (num_args < 2 || num_args > 3) {
        fprintf(stderr, "usage: c_mlp [--break] CAPTURE PORT [MODULE]\n");
        return 2;
    }
    const char *module = num_args == 3 ? args[2] : "model.layers.0.mlp";
    port_reader *reader = NULL;
    port_writer *writer = NULL;
    port_error err;
    int calls = -1;
    if (port_reader_open(args[0], &reader, &err) != PORT_OK) {
        fprintf(stderr, "c_mlp: %s\n", err.message);
        goto done;
    }
    if (!find_mlp(reader, module, &m)) {
        goto done;
    }
    if (port_writer_create(args[1], NULL, &writer, &err) != PORT_OK) {
        fprintf(stderr, "c_mlp: %s\n", err.message);
        goto done;
    }
    calls = run_calls(reader, &m, module, writer);
    if (calls >= 0 && port_writer_close(writer, &err) != PORT_OK) {
        fprintf(stderr, "c_mlp: %s\n", err.message);
        calls = -1;
    }
    if (calls >= 0) {
        printf("%s: %d calls of %s -> %s\n", m.broken ? "broken" : "ported", calls, module, args[1]);
    }
done:
    port_writer_free(writer);
    port_reader_free(reader);
    return calls < 0 ? 2 : 0;
}
