/* copy_ops.c -- the forms of views that end in _copy: what the view shows, in memory of its own, row-major. */
#include "exec.h"

/* The name of the view whose copy the row is: "permute_copy" is "aten.permute.default". A copy can have any shape. */
static void
view_name(const char *row, char *name, size_t name_bytes)
{
    const char *end = strstr(row, "_copy"), *dot = strchr(row, '.');
    if (strcmp(row, "view_copy") == 0) {
        snprintf(name, name_bytes, "aten.reshape.default");
        return;
    }
    snprintf(name, name_bytes, "aten.%.*s%s", (int)(end - row), row, dot != NULL ? dot : ".default");
}

/* Arguments that may be given by position: all before a `*` in the signature. */
static size_t
num_positional(const op_call *call)
{
    size_t count = 0;
    for (const char *at = call->row->signature; *at != '\0' && *at != '*'; at++) {
        count += *at == ',';
    }
    return strchr(call->row->signature, '*') != NULL ? count : (size_t)call->num_args;
}

static port_status
run_view_copy(op_call *call)
{
    char name[64];
    view_name(call->row->name, name, sizeof name);
    op_call view = {.name = name, .values = call->values, .num_values = call->num_values, .options = call->options, .err = call->err};
    port_status status = op_call_run(&view, call->args, num_positional(call), NULL, 0);
    for (size_t k = 0; status == PORT_OK && k < view.num_out; k++) {
        const port_tensor *seen = &view.out[k];
        port_tensor *copy;
        status = tensor_new(call, seen->dtype, seen->ndim, seen->shape, NULL, &copy);
        if (status == PORT_OK) {
            port_view to = tensor_view(copy), from = tensor_view(seen);
            copy_view(call, &to, &from);
            status = emit(call, copy);
        }
    }
    op_call_end(&view);
    return status;
}

#define COPY(NAME, SIGNATURE) {NAME, SIGNATURE, run_view_copy, NULL, MODE_SAME, 0}

const op_row op_copy_rows[] = {
    COPY("alias_copy", "T self"),
    COPY("detach_copy", "T self"),
    COPY("view_copy", "T self, A size"),
    COPY("view_copy.dtype", "T self, D dtype"),
    COPY("transpose_copy.int", "T self, I dim0, I dim1"),
    COPY("t_copy", "T self"),
    COPY("permute_copy", "T self, A dims"),
    COPY("unsqueeze_copy", "T self, I dim"),
    COPY("squeeze_copy", "T self"),
    COPY("squeeze_copy.dim", "T self, I dim"),
    COPY("squeeze_copy.dims", "T self, A dim"),
    COPY("expand_copy", "T self, A size, *, B implicit=False"),
    COPY("slice_copy.Tensor", "T self, I dim=0, I? start=None, I? end=None, I step=1"),
    COPY("narrow_copy", "T self, I dim, I start, I length"),
    COPY("select_copy.int", "T self, I dim, I index"),
    COPY("unbind_copy.int", "T self, I dim=0"),
    COPY("split_copy.Tensor", "T self, I split_size, I dim=0"),
    COPY("split_with_sizes_copy", "T self, A split_sizes, I dim=0"),
    COPY("as_strided_copy", "T self, A size, A stride, I? storage_offset=None"),
    COPY("diagonal_copy", "T self, I offset=0, I dim1=0, I dim2=1"),
    COPY("unfold_copy", "T self, I dimension, I size, I step"),
    {.name = NULL},
};
