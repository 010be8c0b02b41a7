/* registry.c -- the ops that have handlers. */
#include "compose.h"

static const op_row *const families[] = {op_view_rows,   op_pointwise_rows, op_create_rows, op_move_rows,
                                         op_reduce_rows, op_matmul_rows,    op_index_rows,  op_norm_rows,      op_conv_rows,
                                         op_scatter_rows, op_sort_rows, op_image_rows, op_activation_rows, op_data_rows,
                                         op_special_rows, op_composed_rows, op_scan_rows, op_unique_rows,
                                         op_sample_rows, op_rnn_rows, op_window_rows, op_train_rows,
                                         op_rearrange_rows, op_complex_rows, op_fused_rows, op_linalg_rows};
#define NUM_FAMILIES (sizeof families / sizeof families[0])

/* "add.Tensor" against "add", "Tensor". */
static bool
name_is(const char *row, const char *op, size_t op_len, const char *overload)
{
    if (strncmp(row, op, op_len) != 0) {
        return false;
    }
    row += op_len;
    return *row == '\0' ? strcmp(overload, "default") == 0 : (*row == '.' && strcmp(row + 1, overload) == 0);
}

static const op_row *
find_row(const char *op, size_t op_len, const char *overload)
{
    for (size_t f = 0; f < NUM_FAMILIES; f++) {
        for (const op_row *row = families[f]; row->name != NULL; row++) {
            if (name_is(row->name, op, op_len, overload)) {
                return row;
            }
        }
    }
    return NULL;
}

const op_row *
op_find(const char *name, bool *in_place)
{
    *in_place = false;
    if (strncmp(name, "aten.", 5) != 0) {
        return NULL;
    }
    const char *op = name + 5, *dot = strchr(op, '.');
    size_t op_len = dot != NULL ? (size_t)(dot - op) : strlen(op);
    const char *overload = dot != NULL ? dot + 1 : "default";
    const op_row *row = find_row(op, op_len, overload);
    *in_place = row != NULL && (row->flags & OP_WRITES) != 0;
    if (row == NULL && op_len > 1 && op[op_len - 1] == '_') {
        row = find_row(op, op_len - 1, overload);
        row = row != NULL && (row->flags & OP_IN_PLACE) != 0 ? row : NULL;
        *in_place = true;
    }
    return row;
}

bool
port_op_signature(const char *name, const char **signature, const char **kernel)
{
    bool in_place;
    const op_row *row = op_find(name, &in_place);
    if (row == NULL) {
        return false;
    }
    *signature = row->signature;
    *kernel = row->run == run_composed ? NULL : row->kernel;
    return true;
}

bool
port_op_known_name(size_t i, char *name, size_t name_bytes)
{
    for (size_t f = 0; f < NUM_FAMILIES; f++) {
        for (const op_row *row = families[f]; row->name != NULL; row++) {
            const char *dot = strchr(row->name, '.');
            int op_len = (int)(dot != NULL ? (size_t)(dot - row->name) : strlen(row->name));
            for (int form = 0; form <= ((row->flags & OP_IN_PLACE) != 0); form++) {
                if (i-- == 0) {
                    snprintf(name, name_bytes, "aten.%.*s%s%s", op_len, row->name, form ? "_" : "",
                             dot != NULL ? dot : ".default");
                    return true;
                }
            }
        }
    }
    return false;
}
