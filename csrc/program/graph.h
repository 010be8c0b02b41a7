/* graph.h -- a parsed program. Private to csrc/program/. Nothing here changes after parsing: runs may go in parallel. */
#ifndef PORT_GRAPH_H
#define PORT_GRAPH_H

#include "exec.h"

typedef struct value_info {
    port_dtype dtype; /* PORT_NUM_DTYPES: one that no kernel knows */
    int32_t ndim;
    bool has_strides;       /* false for a tensor that is not strided */
    const port_arg *shape;  /* ndim, INT or SYM */
    const port_arg *strides; /* ndim */
    port_arg offset;
    int64_t lead_bytes; /* where its storage began after a multiple of 64 */
} value_info;

typedef struct op_info {
    const char *name;
    const op_row *row; /* NULL: there is no handler */
    bool in_place;
    const port_arg *args;
    size_t num_args;
    const port_named_arg *named;
    size_t num_named;
    const int64_t *outputs; /* value numbers; -1: nothing */
    size_t num_outputs;
    port_arg returned; /* kind NONE: no Python value was returned */
} op_info;

/* Ops that run together where the last of them stands (fuse.h), ascending. */
#define FUSE_MAX_OPS (PORT_FUSION_MAX_OPS - 1)
typedef struct fuse_group {
    bool attention; /* its first and last op are products of stacks */
    int64_t head; /* a product before them in whose memory they may work; -1: none */
    int32_t num_ops;
    int64_t ops[FUSE_MAX_OPS];
} fuse_group;

typedef struct arena arena;

struct port_program {
    arena *memory;
    int64_t num_values, num_ops, num_symbols;
    const value_info *values;
    const op_info *ops;
    const int64_t *recorded_symbols;
    fuse_group *groups;
    int64_t num_groups;
    bool sym_shapes; /* shapes of values hold symbols: they are right for any symbols, not for the recorded ones only */
};

/* Calls visit for every tensor argument of the op, also inside lists. */
void op_for_each_input(const op_info *op, void (*visit)(int64_t value, void *context), void *context);

/* Whether the op's first output was recorded as F64 (op_call.wide). */
static inline bool
recorded_wide(const port_program *program, const op_info *op)
{
    return op->num_outputs > 0 && op->outputs[0] >= 0 && program->values[op->outputs[0]].dtype == PORT_F64;
}

#endif /* PORT_GRAPH_H */
