/* fuse.h -- groups of pointwise ops that run together. Private to csrc/program/. */
#ifndef PORT_FUSE_H
#define PORT_FUSE_H

#include "../kernels/loops.h"
#include "graph.h"

/* Finds the groups of a parsed program. */
port_status fuse_find(port_program *program, port_error *err);

typedef struct fuse_call {
    const port_program *program;
    const fuse_group *group;
    const port_run_options *options;
    port_tensor *const *values;
    const int64_t *last_use;
    int64_t op_idx; /* the group's last op */
    port_error *err;
} fuse_call;

/* Runs a group. *done: `result` holds a reference to the last op's value. Not done and PORT_OK: its operands do not
 * allow it, nothing has happened, and its ops are to be run one by one. Returns: as port_program_run. */
port_status fuse_run(const fuse_call *call, port_tensor *result, bool *done);

#endif /* PORT_FUSE_H */
