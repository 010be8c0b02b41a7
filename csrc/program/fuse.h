/* fuse.h -- groups of ops that run together: trees of pointwise ops (fuse.c), attention that a model writes out (fuse_attention.c).
 * Private to csrc/program/. */
#ifndef PORT_FUSE_H
#define PORT_FUSE_H

#include "../kernels/loops.h"
#include "graph.h"

/* ------------------------------------------------------------------ finding groups */

/* What the search knows of each value, and of each op. */
typedef struct fuse_search {
    const port_program *program;
    const op_info *ops;
    int64_t num_ops, num_values, op_idx;
    int64_t *maker;   /* of a value: the op that made it, -1 */
    int64_t *user;    /* the last op that uses it */
    int64_t *users;   /* how many ops use it */
    int64_t *changes; /* of an op: ops before it that change something in place */
    int32_t *group;   /* of an op: its place in `groups`, -1 */
    fuse_group *groups;
    int32_t num_groups;
} fuse_search;

/* Finds the groups of a parsed program. */
port_status fuse_find(port_program *program, port_error *err);

/* Adds the groups of attention. */
void fuse_find_attention(fuse_search *s);

/* ------------------------------------------------------------------ running one */

#define FUSE_MAX_PARTS 64

typedef struct fuse_call {
    const port_program *program;
    const fuse_group *group;
    const port_run_options *options;
    port_tensor *const *values;
    const int64_t *last_use;
    int64_t op_idx; /* the group's last op */
    bool as_recorded; /* every value has the shape that the program says */
    port_error *err;
} fuse_call;

/* Runs a group. *done: `result` holds a reference to the last op's value. Not done and PORT_OK: its operands do not
 * allow it, nothing has happened, and its ops are to be run one by one. Returns: as port_program_run. */
port_status fuse_run(const fuse_call *call, port_tensor *result, bool *done);
/* The same for one kind; done and not PORT_OK: result holds a buffer that the caller releases. */
port_status fuse_run_attention(const fuse_call *call, port_tensor *result, bool *done);

/* What one thread works with on a part of a group: everything that it writes is its own. */
typedef struct fuse_part {
    const port_run_options *options; /* with one thread */
    port_tensor **values;            /* by number; all NULL at first */
    port_error *err;
} fuse_part;

/* Runs at most FUSE_MAX_PARTS parts on the profile's threads. Returns: the first failure. */
port_status fuse_run_parts(const fuse_call *call, int64_t count, port_status (*run)(const void *context, int64_t k, const fuse_part *part),
                           const void *context);

/* Runs one op of a group on part->values, of which n elements of the recorded dtype must come out. They are put into `target`, or,
 * if that is NULL, `made` holds a reference to them and is the op's value. An in-place op does not change its argument. */
port_status fuse_run_op(const fuse_call *call, const fuse_part *part, int64_t op_idx, const port_tensor *target, int64_t n, port_tensor *made);

#endif /* PORT_FUSE_H */
