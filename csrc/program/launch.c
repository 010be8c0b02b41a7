/* launch.c -- from an op to a kernel row: choice of the variant, check, scratch. */
#include "exec.h"

static const port_kernel_row *
find_row(const op_call *call, const char *kernel, port_dtype dtype, bool *is_variant)
{
    const char *variant = call->options->variant;
    const port_kernel_row *row = variant != NULL ? port_kernel_find(kernel, dtype, variant) : NULL;
    *is_variant = row != NULL;
    if (row == NULL) {
        row = port_kernel_find(kernel, dtype, variant != NULL ? "ref" : NULL);
    }
    return row;
}

bool
kernel_exists(const op_call *call, const char *kernel, port_dtype dtype)
{
    bool is_variant;
    return find_row(call, kernel, dtype, &is_variant) != NULL;
}

/* Kernels that only move elements take a complex number for the double that has its bits. */
static bool
moves_only(const char *kernel)
{
    static const char *const names[] = {"where", "gather", "index_select", "index", "embedding"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (strcmp(kernel, names[k]) == 0) {
            return true;
        }
    }
    return false;
}

static port_status
launch_as_f64(op_call *call, const char *kernel, const port_view *const *in, int32_t num_in, const port_view *const *out, int32_t num_out,
              const void *params)
{
    port_view views[PORT_KERNEL_MAX_IN + PORT_KERNEL_MAX_OUT];
    const port_view *ins[PORT_KERNEL_MAX_IN], *outs[PORT_KERNEL_MAX_OUT];
    for (int32_t k = 0; k < num_in + num_out; k++) {
        const port_view *view = k < num_in ? in[k] : out[k - num_in], **slot = k < num_in ? &ins[k] : &outs[k - num_in];
        *slot = view;
        if (view != NULL && view->dtype == PORT_C64) {
            views[k] = *view;
            views[k].dtype = PORT_F64;
            *slot = &views[k];
        }
    }
    return launch(call, kernel, PORT_F64, ins, num_in, outs, num_out, params);
}

/* False: there is nothing to do, although a dimension beside the empty one may be longer than anybody can wait for. */
static bool
makes_elements(const port_kernel_call *call)
{
    bool any = false;
    for (int32_t k = 0; k < call->num_out; k++) {
        any = any || (call->out[k] != NULL && port_view_elems(call->out[k]) > 0);
    }
    return any;
}

port_status
launch(op_call *call, const char *kernel, port_dtype dtype, const port_view *const *in, int32_t num_in,
       const port_view *const *out, int32_t num_out, const void *params)
{
    bool is_variant;
    const port_kernel_row *row = find_row(call, kernel, dtype, &is_variant);
    if (num_in > PORT_KERNEL_MAX_IN || num_out > PORT_KERNEL_MAX_OUT) {
        return fail_unsupported(call, "%d inputs are more than the kernel %s takes", num_in, kernel);
    }
    if (row == NULL && dtype == PORT_C64 && moves_only(kernel)) {
        return launch_as_f64(call, kernel, in, num_in, out, num_out, params);
    }
    if (row == NULL) {
        return fail_unsupported(call, "there is no kernel %s for %s", kernel, port_dtype_name(dtype));
    }
    port_kernel_call k = {.num_in = num_in, .num_out = num_out, .params = params, .provider = call->options->provider,
                          .profile = &call->options->profile};
    for (int32_t i = 0; i < num_in; i++) {
        k.in[i] = in[i];
    }
    for (int32_t i = 0; i < num_out; i++) {
        k.out[i] = out[i];
    }
    port_status status = PORT_OK;
    if (call->options->operands != PORT_OPERANDS_EXACT && (status = round_operands(call, kernel, k.in)) != PORT_OK) {
        return status;
    }
    if (row->check != NULL) {
        port_error inner = {.message = ""};
        status = row->check(&k, &inner);
        if (status != PORT_OK) {
            return fail_op(call, status, "%s", inner.message);
        }
    }
    bool writes = makes_elements(&k);
    if (writes && dtype == PORT_F32 && call->options->variant == NULL && strcmp(kernel, "gemm") == 0) {
        row = own_gemm_row(row, &k);
    }
    size_t scratch_bytes = writes && row->scratch_bytes != NULL ? row->scratch_bytes(&k) : 0;
    if (scratch_bytes > 0) {
        k.scratch = port_alloc_aligned(scratch_bytes);
        if (k.scratch == NULL) {
            return port_fail(call->err, PORT_E_NOMEM, "%s: no memory for %zu bytes of scratch", call->name, scratch_bytes);
        }
    }
    if (writes) {
        row->run(&k);
    }
    port_free_aligned(k.scratch);
    call->kernel_ran = true;
    call->variant_ran = call->variant_ran || is_variant;
    return PORT_OK;
}

port_status
launch_tensors(op_call *call, const char *kernel, port_dtype dtype, const port_tensor *const *in, int32_t num_in,
               const port_tensor *const *out, int32_t num_out, const void *params)
{
    port_view views[PORT_KERNEL_MAX_IN + PORT_KERNEL_MAX_OUT];
    const port_view *ins[PORT_KERNEL_MAX_IN], *outs[PORT_KERNEL_MAX_OUT];
    if (num_in > PORT_KERNEL_MAX_IN || num_out > PORT_KERNEL_MAX_OUT) {
        return fail_unsupported(call, "%d inputs are more than the kernel %s takes", num_in, kernel);
    }
    for (int32_t i = 0; i < num_in + num_out; i++) {
        const port_tensor *t = i < num_in ? in[i] : out[i - num_in];
        const port_view **slot = i < num_in ? &ins[i] : &outs[i - num_in];
        *slot = NULL;
        if (t != NULL) {
            views[i] = tensor_view(t);
            *slot = &views[i];
        }
    }
    return launch(call, kernel, dtype, ins, num_in, outs, num_out, params);
}
