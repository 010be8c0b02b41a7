/* registry.c -- the ops that have handlers. */
#include "compose.h"

static const op_row *const families[] = {op_view_rows,   op_pointwise_rows, op_create_rows, op_move_rows,
                                         op_reduce_rows, op_matmul_rows,    op_index_rows,  op_norm_rows,      op_conv_rows,
                                         op_scatter_rows, op_sort_rows, op_image_rows, op_activation_rows, op_data_rows,
                                         op_special_rows, op_composed_rows, op_scan_rows, op_unique_rows,
                                         op_sample_rows, op_grid_rows, op_bag_rows, op_batch_rows, op_copy_rows, op_rnn_rows, op_window_rows, op_train_rows,
                                         op_rearrange_rows, op_complex_rows, op_fused_rows, op_linalg_rows, op_fft_rows, op_loss_rows, op_line_rows, op_rare_rows, op_function_rows, op_triple_rows};
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

/* Overloads with out= whose names do not follow from the functional one's by the rule below. */
static const struct {
    const char *name, *functional;
} out_forms[] = {
    {"max.out", "other"}, {"min.out", "other"}, {"max.unary_out", "default"}, {"min.unary_out", "default"}, {"max.dim_max", "dim"},
    {"min.dim_min", "dim"}, {"sum.IntList_out", "dim_IntList"}, {"prod.int_out", "dim_int"}, {"mean.out", "dim"},
    {"mean.dtype_out", "default"}, {"var.out", "dim"}, {"std.out", "dim"}, {"all.out", "dim"}, {"any.out", "dim"},
    {"all.all_out", "default"}, {"any.all_out", "default"}, {"norm.out", "ScalarOpt_dim"}, {"norm.dtype_out", "ScalarOpt_dim_dtype"},
    {"div.out_mode", "Tensor_mode"}, {"xlogy.OutTensor", "Tensor"}, {"xlogy.OutScalar_Self", "Scalar_Self"},
    {"xlogy.OutScalar_Other", "Scalar_Other"}, {"topk.values", "default"}, {"sort.values", "default"}, {"sort.values_stable", "stable"},
    {"kthvalue.values", "default"}, {"mode.values", "default"}, {"median.dim_values", "dim"}, {"nanmedian.dim_values", "dim"},
};

/* The row of an overload with out=: "Scalar_out" is "Scalar", "out" the default one or "Tensor". */
static const op_row *
find_out_form(const char *op, size_t op_len, const char *overload)
{
    for (size_t k = 0; k < sizeof out_forms / sizeof out_forms[0]; k++) {
        if (strncmp(out_forms[k].name, op, op_len) == 0 && out_forms[k].name[op_len] == '.' &&
            strcmp(out_forms[k].name + op_len + 1, overload) == 0) {
            return find_row(op, op_len, out_forms[k].functional);
        }
    }
    size_t len = strlen(overload);
    char functional[64];
    if (strcmp(overload, "out") == 0) {
        const op_row *row = find_row(op, op_len, "default");
        return row != NULL ? row : find_row(op, op_len, "Tensor");
    }
    if (len <= 4 || len >= sizeof functional || strcmp(overload + len - 4, "_out") != 0) {
        return NULL;
    }
    memcpy(functional, overload, len - 4);
    functional[len - 4] = '\0';
    return find_row(op, op_len, functional);
}

/* "aten.add.out": "add.out", how long "add" is, and "out"; without an overload "default". False if it is no ATen op. */
static bool
split_name(const char *name, const char **op, size_t *op_len, const char **overload)
{
    if (strncmp(name, "aten.", 5) != 0) {
        return false;
    }
    *op = name + 5;
    const char *dot = strchr(*op, '.');
    *op_len = dot != NULL ? (size_t)(dot - *op) : strlen(*op);
    *overload = dot != NULL ? dot + 1 : "default";
    return true;
}

const op_row *
op_find(const char *name, bool *in_place)
{
    const char *op, *overload;
    size_t op_len;
    *in_place = false;
    if (!split_name(name, &op, &op_len, &overload)) {
        return NULL;
    }
    const op_row *row = find_row(op, op_len, overload);
    *in_place = row != NULL && (row->flags & OP_WRITES) != 0;
    if (row == NULL && op_len > 1 && op[op_len - 1] == '_') {
        row = find_row(op, op_len - 1, overload);
        row = row != NULL && (row->flags & OP_IN_PLACE) != 0 ? row : NULL;
        *in_place = true;
    }
    if (row == NULL && (row = find_out_form(op, op_len, overload)) != NULL) {
        *in_place = true;
    }
    return row;
}

bool
op_writes_out(const char *name)
{
    const char *op, *overload;
    size_t op_len;
    return split_name(name, &op, &op_len, &overload) && find_row(op, op_len, overload) == NULL && find_out_form(op, op_len, overload) != NULL;
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
    *kernel = row->run == run_composed || row->run == run_logit ? NULL : row->kernel;
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
