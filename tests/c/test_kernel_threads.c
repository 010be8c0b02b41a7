/* test_kernel_threads.c -- kernels on several threads: what they compute is what one thread computes that goes over the same parts. */
#include "kernels/kernels.h"

#include "check.h"

#define MAX_TENSORS 6
#define THREADS 4

/* Tensors are written as their dtype and sizes: "f 300 70" is F32, d F64, b BF16, i I64 (places below 24), "-" none. */
typedef struct kernel_case {
    const char *op, *variant, *in[MAX_TENSORS], *out[3];
    const void *params;
} kernel_case;

typedef struct operands {
    port_view views[MAX_TENSORS + 3];
    int32_t num_in, num_out;
    size_t bytes[MAX_TENSORS + 3];
} operands;

static uint32_t random_state = 1;

static float
next_number(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / (float)(1 << 23) - 1.0f;
}

static void
fill(port_view *view)
{
    for (int64_t i = 0, n = port_view_elems(view); i < n; i++) {
        float v = next_number();
        switch (view->dtype) {
        case PORT_F32: ((float *)view->data)[i] = v; break;
        case PORT_F64: ((double *)view->data)[i] = (double)v; break;
        case PORT_BF16: ((uint16_t *)view->data)[i] = port_f32_to_bf16(v); break;
        default: ((int64_t *)view->data)[i] = (int64_t)((v + 1.0f) * 12.0f); break;
        }
    }
}

static void
make(operands *o, const char *text, int32_t at)
{
    port_view *view = &o->views[at];
    *view = (port_view){.dtype = text[0] == 'f' ? PORT_F32 : (text[0] == 'd' ? PORT_F64 : (text[0] == 'b' ? PORT_BF16 : PORT_I64))};
    int64_t shape[PORT_MAX_NDIM];
    int32_t ndim = 0;
    char *rest = (char *)(uintptr_t)(text + 1);
    while (*rest != '\0') {
        shape[ndim++] = strtoll(rest, &rest, 10);
    }
    *view = port_view_contiguous(NULL, view->dtype, ndim, shape);
    o->bytes[at] = (size_t)port_view_elems(view) * port_dtype_size(view->dtype);
    view->data = port_alloc_aligned(o->bytes[at]);
    memset(view->data, 0, o->bytes[at]);
    fill(view);
}

static operands
make_all(const kernel_case *c)
{
    operands o = {.num_in = 0};
    random_state = 1;
    for (; o.num_in < MAX_TENSORS && c->in[o.num_in] != NULL; o.num_in++) {
        if (c->in[o.num_in][0] != '-') {
            make(&o, c->in[o.num_in], o.num_in);
        }
    }
    for (; o.num_out < 3 && c->out[o.num_out] != NULL; o.num_out++) {
        make(&o, c->out[o.num_out], MAX_TENSORS + o.num_out);
    }
    return o;
}

static void
free_all(operands *o)
{
    for (int32_t k = 0; k < MAX_TENSORS + 3; k++) {
        port_free_aligned(o->views[k].data);
    }
}

typedef struct kernel_run {
    const kernel_case *c;
    operands *o;
    bool refused;
} kernel_run;

static void
run_kernel(kernel_run *r)
{
    port_profile profile = {.capability = PORT_CAP_AVX2, .num_threads = THREADS, .mkldnn = true, .onednn_avx512 = true};
    port_kernel_call call = {.num_in = r->o->num_in, .num_out = r->o->num_out, .params = r->c->params,
                             .provider = port_provider_reference(), .profile = &profile};
    for (int32_t k = 0; k < r->o->num_in; k++) {
        call.in[k] = r->o->views[k].data != NULL ? &r->o->views[k] : NULL;
    }
    for (int32_t k = 0; k < r->o->num_out; k++) {
        call.out[k] = &r->o->views[MAX_TENSORS + k];
    }
    const port_kernel_row *row = port_kernel_find(r->c->op, r->o->views[0].dtype, r->c->variant);
    r->refused = row == NULL || (row->check != NULL && row->check(&call, NULL) != PORT_OK);
    if (!r->refused) {
        call.scratch = port_alloc_aligned(row->scratch_bytes != NULL ? row->scratch_bytes(&call) : 1);
        row->run(&call);
        port_free_aligned(call.scratch);
    }
}

/* The threads are taken by the loop that this is a part of: the kernel has one. */
static void
run_alone(void *context, int64_t i)
{
    if (i == 0) {
        run_kernel(context);
    }
}

static bool
same_outputs(const operands *a, const operands *b)
{
    bool same = true;
    for (int32_t k = MAX_TENSORS; k < MAX_TENSORS + a->num_out; k++) {
        same = same && memcmp(a->views[k].data, b->views[k].data, a->bytes[k]) == 0;
    }
    return same;
}

#define REDUCED(DIMS) &(const port_reduce_params){.dims = (DIMS), .correction = 1.0}
static const port_onednn_conv_params conv = {
    .conv = {.stride = {1, 1, 1}, .padding = {1, 1, 0}, .dilation = {1, 1, 1}, .groups = 2}};
static const port_conv_params own_conv = {.stride = {1, 1, 1}, .padding = {1, 1, 0}, .dilation = {1, 1, 1}, .groups = 1};
static const port_conv_params transposed = {
    .stride = {2, 2, 1}, .padding = {1, 1, 0}, .dilation = {1, 1, 1}, .groups = 1, .transposed = true};
static const port_pool_params window = {.kernel = {3, 3, 1}, .stride = {2, 2, 1}, .padding = {1, 1, 0}, .dilation = {1, 1, 1}};

static const kernel_case cases[] = {
    {"sum", NULL, {"f 90 701"}, {"f 1 701"}, REDUCED(1)},
    {"sum", NULL, {"f 90 701"}, {"f 90 1"}, REDUCED(2)},
    {"sum", NULL, {"f 90 701"}, {"f 1 1"}, REDUCED(3)},
    {"mean", NULL, {"b 90 701"}, {"b 90 1"}, REDUCED(2)},
    {"prod", NULL, {"f 90 701"}, {"f 1 701"}, REDUCED(1)},
    {"amax", NULL, {"f 90 701"}, {"f 90 1"}, REDUCED(2)},
    {"argmin", NULL, {"f 90 701"}, {"i 1 701"}, REDUCED(1)},
    {"var", NULL, {"f 90 701"}, {"f 90 1"}, REDUCED(2)},
    {"cumsum", NULL, {"f 90 701"}, {"f 90 701"}, REDUCED(2)},
    {"vector_norm", NULL, {"f 90 701"}, {"f 1 701"}, &(const port_vector_norm_params){.order = 2.0, .dims = 1}},
    {"weight_norm", NULL, {"f 90 701", "f 701"}, {"f 90 701", "f 701"}, &(const port_weight_norm_params){.rows = false}},
    {"softmax", NULL, {"f 90 701"}, {"f 90 701"}, &(const port_softmax_params){.dim = 1}},
    {"layer_norm", NULL, {"b 90 704", "b 704", "b 704"}, {"b 90 704", "f 90", "f 90"}, &(const port_norm_params){1, 1e-5}},
    {"rms_norm", NULL, {"b 90 704", "b 704"}, {"b 90 704"}, &(const port_norm_params){1, 1e-6}},
    {"batch_norm", NULL, {"f 3 8 40 50", "f 8", "f 8", "f 8", "f 8"}, {"f 3 8 40 50"}, &(const port_batch_norm_params){.eps = 2.0}},
    {"group_norm", NULL, {"f 3 8 40 50", "f 8", "f 8"}, {"f 3 8 40 50", "f 3 2", "f 3 2"}, &(const port_group_params){2, 1e-5, false}},
    {"group_norm", NULL, {"f 3 8 40 50", "f 8", "f 8"}, {"f 3 8 40 50", "f 3 2", "f 3 2"}, &(const port_group_params){2, 1e-5, true}},
    {"max_pool", NULL, {"f 3 8 40 50"}, {"f 3 8 20 25", "i 3 8 20 25"}, &window},
    {"avg_pool", NULL, {"f 3 8 40 50"}, {"f 3 8 20 25"}, &window},
    {"topk", NULL, {"f 24 501"}, {"f 24 9", "i 24 9"}, &(const port_topk_params){true, PORT_TOPK_ORDERED}},
    {"ranked", NULL, {"f 24 501"}, {"f 24 1", "i 24 1"}, &(const port_ranked_params){.kind = PORT_RANK_MODE}},
    {"embedding", NULL, {"f 24 501", "i 200"}, {"f 200 501"}, NULL},
    {"index", NULL, {"f 24 501", "i 200"}, {"f 200 501"}, &(const port_index_params){1, {0}, 0}},
    {"gather", NULL, {"f 24 501", "i 24 501"}, {"f 24 501"}, &(const port_dim_params){1}},
    {"index_select", NULL, {"f 24 501", "i 200"}, {"f 200 501"}, &(const port_dim_params){0}},
    {"scatter", NULL, {"i 24 501", "i 24 501"}, {"i 24 501"}, &(const port_scatter_params){1, PORT_SCATTER_SET}},
    {"scatter", NULL, {"i 9000 5", "i 9000 5"}, {"i 24 5"}, &(const port_scatter_params){0, PORT_SCATTER_SET}}, /* places meet: the last one stays */
    {"gemm", "chain", {"b 20 300", "b 300 200", "-"}, {"b 20 200"}, &(const port_gemm_params){1.0, 0.0}},
    {"gemm", "chain", {"f 20 300", "f 300 700", "-"}, {"f 20 700"}, &(const port_gemm_params){1.0, 0.0}}, /* parts are columns */
    {"gemm", "chain", {"f 700 300", "f 300 50", "f 700 50"}, {"f 700 50"}, &(const port_gemm_params){1.0, 1.0}}, /* rows */
    {"gemm", "ref", {"d 20 300", "d 300 200", "-"}, {"d 20 200"}, &(const port_gemm_params){1.0, 0.0}},
    {"sdpa_flash", "chain", {"f 1 5 70 16", "f 1 5 90 16", "f 1 5 90 16", "-"}, {"f 1 5 70 16", "f 1 5 70"}, &(const port_sdpa_params){true, 0.25}},
    {"sdpa_flash", NULL, {"d 1 5 70 16", "d 1 5 90 16", "d 1 5 90 16", "-"}, {"d 1 5 70 16"}, &(const port_sdpa_params){true, 0.25}},
    {"onednn_convolution", NULL, {"f 2 8 15 15", "f 200 4 3 3", "f 200"}, {"f 2 200 15 15"}, &conv},
    {"onednn_deconvolution", NULL, {"f 2 16 15 15", "f 16 20 3 3", "f 20"}, {"f 2 20 29 29"}, &transposed},
    {"convolution", "chain", {"f 3 8 15 15", "f 70 8 3 3", "f 70"}, {"f 3 70 15 15"}, &own_conv},
};

int
main(void)
{
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        operands several = make_all(&cases[k]), one = make_all(&cases[k]), untouched = make_all(&cases[k]);
        kernel_run parallel = {.c = &cases[k], .o = &several}, alone = {.c = &cases[k], .o = &one};
        run_kernel(&parallel);
        port_parallel(2, 2, run_alone, &alone);
        bool right = !parallel.refused && !alone.refused && same_outputs(&several, &one) && !same_outputs(&several, &untouched);
        if (!right) {
            fprintf(stderr, "case %zu: %s\n", k, cases[k].op);
        }
        CHECK(right);
        free_all(&several);
        free_all(&one);
        free_all(&untouched);
    }
    return CHECK_REPORT();
}
