/* window_ops.c -- windows for spectra: hann, hamming, bartlett, blackman, as torch forms them from arange. */
#include "compose.h"

#define WAVE                                                                                                           \
    "y = arange(n, dtype=dtype); y = mul.Scalar(y, step); y = cos(y); y = mul.Scalar(y, minus); y = add.Scalar(y, "    \
    "alpha); "
#define CUT "?cut: y = slice.Tensor(y, 0, 0, length) -> y"

/* name(window_length, [periodic, [alpha, [beta]]], dtype...): a periodic window is one longer, without its last
 * element. */
static port_status
run_window(op_call *call)
{
    const char *name = call->row->name;
    int64_t length = arg_int(call, 0);
    bool has_flag = strstr(name, "periodic") != NULL, periodic = !has_flag || arg_bool(call, 1),
         hann = strncmp(name, "hann", 4) == 0;
    double alpha = hann ? 0.5 : 0.54, beta = hann ? 0.5 : 0.46;
    int32_t dtype_idx = 1 + has_flag;
    if (strstr(name, "alpha") != NULL) {
        alpha = arg_double(call, 2, alpha);
        dtype_idx++;
    }
    if (strstr(name, "beta") != NULL) {
        beta = arg_double(call, 3, beta);
        dtype_idx++;
    }
    port_dtype dtype = arg_dtype(call, dtype_idx, default_dtype(call));
    if (length < 0 || length > INT32_MAX || (dtype != PORT_F32 && dtype != PORT_F64)) {
        return fail_unsupported(call, "a window of %lld elements of %s", (long long)length, port_dtype_name(dtype));
    }
    int64_t n = length + (periodic && length > 1);
    const double pi = 3.14159265358979323846;
    bool bartlett = strncmp(name, "bartlett", 8) == 0, blackman = strncmp(name, "blackman", 8) == 0;
    double step = (bartlett ? 2.0 : (blackman ? pi : 2.0 * pi)) / (double)(n - 1);
    int64_t half = ((n - 1) >> 1) + 1;
    const port_named_arg extra[] = {
        {"n", {.kind = PORT_ARG_INT, .i = n, .d = (double)n}},
        {"length", {.kind = PORT_ARG_INT, .i = length, .d = (double)length}},
        {"step", {.kind = PORT_ARG_FLOAT, .d = step}},
        {"minus", {.kind = PORT_ARG_FLOAT, .d = -beta}},
        {"alpha", {.kind = PORT_ARG_FLOAT, .d = alpha}},
        {"half", {.kind = PORT_ARG_INT, .i = half, .d = (double)half}},
        {"cut", {.kind = PORT_ARG_BOOL, .i = n != length, .d = n != length}},
        {"dtype", {.kind = PORT_ARG_DTYPE, .i = dtype}},
    };
    const char *formula = WAVE CUT;
    if (length < 2) {
        formula = "y = ones([length], dtype=dtype) -> y";
    } else if (bartlett) {
        formula = "y = arange(n, dtype=dtype); y = mul.Scalar(y, step); h = slice.Tensor(y, 0, half); h = "
                  "mul_.Scalar(h, -1); h = add_.Scalar(h, 2); " CUT;
    } else if (blackman) {
        formula = "w = arange(n, dtype=dtype); w = mul.Scalar(w, step); a = mul.Scalar(w, 4); a = cos(a); a = "
                  "mul.Scalar(a, 0.08); b = mul.Scalar(w, 2); "
                  "b = cos(b); b = mul.Scalar(b, 0.5); y = sub.Tensor(a, b); y = add.Scalar(y, 0.42); " CUT;
    }
    return run_formula(call, formula, extra, sizeof extra / sizeof extra[0]);
}

#define FACTORY ", *, D? dtype=None, y layout=None, v device=None, p pin_memory=None"
#define WINDOW(NAME)                                                                                                  \
    {NAME "_window", "I window_length" FACTORY, run_window, NULL, MODE_SAME, 0},                                      \
        {NAME "_window.periodic", "I window_length, B periodic" FACTORY, run_window, NULL, MODE_SAME, 0}

const op_row op_window_rows[] = {
    WINDOW("hann"),
    WINDOW("hamming"),
    WINDOW("bartlett"),
    WINDOW("blackman"),
    {"hamming_window.periodic_alpha", "I window_length, B periodic, F alpha" FACTORY, run_window, NULL, MODE_SAME, 0},
    {"hamming_window.periodic_alpha_beta", "I window_length, B periodic, F alpha, F beta" FACTORY, run_window, NULL,
     MODE_SAME, 0},
    {.name = NULL},
};
