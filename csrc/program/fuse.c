/* fuse.c -- trees of pointwise ops, run block by block, so that what passes between them stays in the cache.
 *
 * A group is a tree of pointwise ops: each but the last makes one value that only another op of the group uses. It
 * runs where its last op stands. No op in between changes anything in place, so that its operands are still what they
 * were. A group of a product and what is done to its result (linear and activation) leaves the product whole, whose
 * bits depend on the call, and works in its memory.
 *
 * The bits are those of the single ops: operands are dense and of one shape, or one number, and then the reference
 * walks them as one row, cut into one range per thread; a block begins at a multiple of two vectors from the beginning
 * of its range, so the vector loop and its rest fall on the same elements. What does not fit that (broadcasts, other
 * strides, few elements) runs op by op, as does a group of which a value inside is asked for. */
#include "fuse.h"

#define FUSE_BLOCK 16384 /* elements: a multiple of two vectors of any dtype; three f32 operands take 192 KiB */
#define FUSE_MAX_TENSORS 16
#define TREE_MAX_OPS 8

/* ------------------------------------------------------------------ finding groups */

static bool
calls_library(const op_row *row)
{
    static const char *const names[] = {"exp", "log", "tanh", "sin", "cos", "sqrt", "erf", "pow_scalar"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (row->kernel != NULL && strcmp(row->kernel, names[k]) == 0) {
            return true;
        }
    }
    return false;
}

static bool
is_of(const op_row *row, const op_row *family)
{
    while (family->name != NULL && family != row) {
        family++;
    }
    return family->name != NULL;
}

static bool
has_complex_number(const op_info *op)
{
    for (size_t k = 0; k < op->num_args; k++) {
        if (op->args[k].kind == PORT_ARG_COMPLEX) {
            return true;
        }
    }
    return false;
}

static bool
is_pointwise(const op_info *op)
{
    return op->row != NULL && !op->in_place && op->num_outputs == 1 && op->outputs[0] >= 0 &&
           op->returned.kind == PORT_ARG_NONE && is_of(op->row, op_pointwise_rows) && !calls_library(op->row) && !has_complex_number(op);
}

typedef struct flat_check {
    const port_program *program;
    const value_info *out;
    bool flat;
} flat_check;

static bool
recorded_dense(const value_info *info)
{
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    for (int32_t d = 0; d < info->ndim; d++) {
        if (info->shape[d].kind != PORT_ARG_INT || !info->has_strides || info->strides[d].kind != PORT_ARG_INT) {
            return false;
        }
        shape[d] = info->shape[d].i;
    }
    dense_strides(info->ndim, shape, strides);
    for (int32_t d = 0; d < info->ndim; d++) {
        if (shape[d] != 1 && strides[d] != info->strides[d].i) {
            return false;
        }
    }
    return true;
}

static void
check_flat(int64_t v, void *context)
{
    flat_check *c = context;
    const value_info *info = v >= 0 && v < c->program->num_values ? &c->program->values[v] : NULL;
    if (info == NULL || (info->ndim > 0 && info->ndim != c->out->ndim) || !recorded_dense(info)) {
        c->flat = false;
        return;
    }
    for (int32_t d = 0; d < info->ndim; d++) {
        c->flat = c->flat && c->out->shape[d].kind == PORT_ARG_INT && info->shape[d].i == c->out->shape[d].i;
    }
}

/* As recorded, every operand is dense and of the result's shape, or a number. */
static bool
is_flat(const port_program *program, const op_info *op)
{
    int64_t v = op->outputs[0];
    flat_check c = {program, v < program->num_values ? &program->values[v] : NULL, true};
    if (c.out == NULL || c.out->ndim == 0 || !recorded_dense(c.out)) {
        return false;
    }
    op_for_each_input(op, check_flat, &c);
    return c.flat;
}

static void
note_user(int64_t v, void *context)
{
    fuse_search *s = context;
    if (v >= 0 && v < s->num_values && s->user[v] != s->op_idx) {
        s->user[v] = s->op_idx;
        s->users[v]++;
    }
}

static void
note_ops(fuse_search *s)
{
    int64_t changes = 0;
    for (int64_t v = 0; v < s->num_values; v++) {
        s->maker[v] = s->user[v] = -1;
    }
    for (s->op_idx = 0; s->op_idx < s->num_ops; s->op_idx++) {
        const op_info *op = &s->ops[s->op_idx];
        s->group[s->op_idx] = -1;
        s->changes[s->op_idx] = changes;
        changes += op->row == NULL || op->in_place || (op->row->flags & OP_CHANGES) != 0;
        op_for_each_input(op, note_user, s);
        for (size_t k = 0; k < op->num_outputs; k++) {
            if (op->outputs[k] >= 0) {
                s->maker[op->outputs[k]] = s->op_idx;
            }
        }
    }
}

/* Takes the maker of an operand into the group of op_idx, with all that belongs to it, or as its head. */
static void
join_maker(int64_t v, void *context)
{
    fuse_search *s = context;
    int64_t maker = v >= 0 && v < s->num_values ? s->maker[v] : -1;
    fuse_group *into = &s->groups[s->group[s->op_idx]];
    if (maker < 0 || maker >= s->op_idx || s->users[v] != 1 || s->changes[maker] != s->changes[s->op_idx]) {
        return;
    }
    const op_info *op = &s->ops[maker];
    if (s->group[maker] >= 0 && s->groups[s->group[maker]].attention) {
        return;
    }
    if (s->group[maker] < 0 || s->group[maker] == s->group[s->op_idx]) {
        bool product = op->row != NULL && op->num_outputs == 1 && is_of(op->row, op_matmul_rows);
        into->head = product && into->head < 0 ? maker : into->head;
        return;
    }
    fuse_group *from = &s->groups[s->group[maker]];
    if (from->num_ops + into->num_ops > TREE_MAX_OPS) {
        return;
    }
    for (int32_t k = 0; k < from->num_ops; k++) {
        s->group[from->ops[k]] = s->group[s->op_idx];
        into->ops[into->num_ops++] = from->ops[k];
    }
    into->head = into->head < 0 ? from->head : into->head;
    from->num_ops = 0;
}

static int
compare_ops(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static void
find_groups(fuse_search *s)
{
    note_ops(s);
    fuse_find_attention(s);
    for (s->op_idx = 0; s->op_idx < s->num_ops; s->op_idx++) {
        if (s->group[s->op_idx] >= 0 || !is_pointwise(&s->ops[s->op_idx]) || !is_flat(s->program, &s->ops[s->op_idx])) {
            continue;
        }
        s->group[s->op_idx] = s->num_groups;
        s->groups[s->num_groups++] = (fuse_group){.head = -1, .num_ops = 1, .ops = {s->op_idx}};
        op_for_each_input(&s->ops[s->op_idx], join_maker, s);
    }
    int32_t kept = 0;
    for (int32_t g = 0; g < s->num_groups; g++) {
        fuse_group group = s->groups[g];
        if (group.num_ops > 1 || (group.num_ops == 1 && group.head >= 0)) {
            qsort(group.ops, (size_t)group.num_ops, sizeof group.ops[0], compare_ops);
            s->groups[kept++] = group;
        }
    }
    s->num_groups = kept;
}

port_status
fuse_find(port_program *program, port_error *err)
{
    fuse_search s = {
        .program = program, .ops = program->ops, .num_ops = program->num_ops, .num_values = program->num_values};
    size_t ops = (size_t)s.num_ops, values = (size_t)s.num_values;
    s.maker = port_alloc(values * sizeof *s.maker);
    s.user = port_alloc(values * sizeof *s.user);
    s.users = port_calloc(values, sizeof *s.users);
    s.changes = port_alloc(ops * sizeof *s.changes);
    s.group = port_alloc(ops * sizeof *s.group);
    s.groups = port_calloc(ops, sizeof *s.groups);
    port_status status = PORT_OK;
    if (s.maker == NULL || s.user == NULL || s.users == NULL || s.changes == NULL || s.group == NULL ||
        s.groups == NULL) {
        status = port_fail(err, PORT_E_NOMEM, "no memory for %lld ops", (long long)s.num_ops);
        port_free(s.groups);
    } else {
        find_groups(&s);
        program->groups = s.groups;
        program->num_groups = s.num_groups;
    }
    port_free(s.maker);
    port_free(s.user);
    port_free(s.users);
    port_free(s.changes);
    port_free(s.group);
    return status;
}

int64_t
port_program_num_fusions(const port_program *program)
{
    return program->num_groups;
}

int32_t
port_program_fusion(const port_program *program, int64_t fusion_idx, int64_t ops[PORT_FUSION_MAX_OPS])
{
    if (fusion_idx < 0 || fusion_idx >= program->num_groups) {
        return 0;
    }
    const fuse_group *group = &program->groups[fusion_idx];
    int32_t count = 0;
    if (group->head >= 0) {
        ops[count++] = group->head;
    }
    for (int32_t k = 0; k < group->num_ops; k++) {
        ops[count++] = group->ops[k];
    }
    qsort(ops, (size_t)count, sizeof ops[0], compare_ops);
    return count;
}

/* ------------------------------------------------------------------ running one */

/* The tensors that a group takes from outside. */
typedef struct fuse_operands {
    const fuse_call *call;
    int32_t count;
    int64_t values[FUSE_MAX_TENSORS];
    const port_tensor *full; /* one of those that have all the elements */
    bool fits;
} fuse_operands;

static bool
is_inside(const fuse_call *call, int64_t v)
{
    for (int32_t k = 0; k + 1 < call->group->num_ops; k++) {
        if (call->program->ops[call->group->ops[k]].outputs[0] == v) {
            return true;
        }
    }
    return false;
}

static void
note_operand(int64_t v, void *context)
{
    fuse_operands *o = context;
    const port_tensor *t = v >= 0 && v < o->call->program->num_values ? o->call->values[v] : NULL;
    if (is_inside(o->call, v)) {
        return;
    }
    for (int32_t k = 0; k < o->count; k++) {
        if (o->values[k] == v) {
            return;
        }
    }
    if (t == NULL || o->count == FUSE_MAX_TENSORS || t->dtype == PORT_C64 ||
        (t->ndim > 0 && !tensor_is_contiguous(t))) {
        o->fits = false;
        return;
    }
    o->values[o->count++] = v;
    if (t->ndim == 0) {
        return;
    }
    bool same = o->full == NULL || (o->full->ndim == t->ndim &&
                                    memcmp(o->full->shape, t->shape, (size_t)t->ndim * sizeof t->shape[0]) == 0);
    o->fits = o->fits && same;
    o->full = o->full == NULL ? t : o->full;
}

/* The operand whose memory nobody needs any more, to work in; NULL if there is none. */
static const port_tensor *
dead_operand(const fuse_operands *o, port_dtype dtype)
{
    for (int32_t k = 0; k < o->count; k++) {
        const port_tensor *t = o->call->values[o->values[k]];
        uint64_t bytes = (uint64_t)tensor_elems(t) * port_dtype_size(t->dtype);
        if (t->ndim > 0 && t->dtype == dtype && o->call->last_use[o->values[k]] <= o->call->op_idx &&
            t->buffer->refs == 1 && t->buffer->memory != NULL && t->buffer->size_bytes == bytes) {
            return t;
        }
    }
    return NULL;
}

/* One range of the elements, which one thread works on: everything that it writes is its own. */
typedef struct fuse_range {
    const fuse_operands *operands;
    const port_tensor *out;
    fuse_part part;
    port_tensor tensors[FUSE_MAX_TENSORS], made[TREE_MAX_OPS];
    port_buffer buffers[FUSE_MAX_TENSORS + 1];
} fuse_range;

/* Elements [begin, begin + n) of a tensor, as one row in a buffer that is borrowed from it. */
static port_tensor
slice_of(const port_tensor *t, int64_t begin, int64_t n, port_buffer *buffer)
{
    int64_t bytes = (int64_t)port_dtype_size(t->dtype);
    begin = t->ndim == 0 ? 0 : begin;
    n = t->ndim == 0 ? 1 : n;
    *buffer = (port_buffer){.data = t->buffer->data + t->offset_bytes + begin * bytes, .size_bytes = (uint64_t)(n * bytes), .refs = 1};
    return (port_tensor){.buffer = buffer, .dtype = t->dtype, .ndim = t->ndim > 0, .shape = {n}, .strides = {1}};
}

/* Whether an op came out as its n elements were recorded, and in the shape of its target. */
static bool
came_out(const op_call *call, port_dtype recorded, int64_t n)
{
    const port_tensor *out = &call->out[0], *target = call->target;
    return call->num_out == 1 && out->dtype == recorded && tensor_elems(out) == n &&
           (target == NULL || (out->ndim == target->ndim && memcmp(out->shape, target->shape, (size_t)out->ndim * sizeof *out->shape) == 0));
}

port_status
fuse_run_op(const fuse_call *f, const fuse_part *part, int64_t op_idx, const port_tensor *target, int64_t n, port_tensor *made)
{
    const op_info *op = &f->program->ops[op_idx];
    op_call call = {.row = op->row, .name = op->name, .values = part->values, .num_values = f->program->num_values,
                    .options = part->options, .target = target, .err = part->err, .wide = recorded_wide(f->program, op)};
    port_status status = op_call_run(&call, op->args, op->num_args, op->named, op->num_named);
    if (status == PORT_OK && !came_out(&call, f->program->values[op->outputs[0]].dtype, n)) {
        status = fail_op(&call, PORT_E_SHAPE, "it came out otherwise than it was recorded, among %d ops that run together",
                         f->group->num_ops);
    }
    if (status == PORT_OK && target != NULL && call.out[0].buffer != target->buffer) {
        port_view to = tensor_view(target), from = tensor_view(&call.out[0]);
        copy_view(&call, &to, &from);
    } else if (status == PORT_OK && target == NULL) {
        *made = call.out[0];
        made->buffer->refs++;
        part->values[op->outputs[0]] = made;
    }
    op_call_end(&call);
    return status;
}

static port_status
run_block(fuse_range *r, int64_t begin, int64_t n)
{
    const fuse_operands *o = r->operands;
    const fuse_group *group = o->call->group;
    port_status status = PORT_OK;
    for (int32_t k = 0; k < o->count; k++) {
        r->tensors[k] = slice_of(o->call->values[o->values[k]], begin, n, &r->buffers[k]);
        r->part.values[o->values[k]] = &r->tensors[k];
    }
    port_tensor target = slice_of(r->out, begin, n, &r->buffers[FUSE_MAX_TENSORS]);
    for (int32_t k = 0; k < group->num_ops && status == PORT_OK; k++) {
        status = fuse_run_op(o->call, &r->part, group->ops[k], k + 1 == group->num_ops ? &target : NULL, n, &r->made[k]);
    }
    for (int32_t k = 0; k < group->num_ops; k++) {
        if (r->made[k].buffer != NULL) {
            buffer_release(r->made[k].buffer);
            r->made[k].buffer = NULL;
        }
    }
    return status;
}

typedef struct fuse_job {
    const fuse_call *call;
    port_status (*run)(const void *context, int64_t k, const fuse_part *part);
    const void *context;
    port_run_options options;
    port_status status[FUSE_MAX_PARTS]; /* of each part */
    port_error errors[FUSE_MAX_PARTS];
} fuse_job;

static void
run_part(void *context, int64_t k)
{
    fuse_job *job = context;
    port_tensor **values = port_calloc((size_t)job->call->program->num_values, sizeof *values);
    fuse_part part = {&job->options, values, &job->errors[k]};
    job->status[k] = values != NULL ? job->run(job->context, k, &part) : port_fail(part.err, PORT_E_NOMEM, "no memory for a chain of ops");
    port_free(values);
}

port_status
fuse_run_parts(const fuse_call *f, int64_t count, port_status (*run)(const void *context, int64_t k, const fuse_part *part), const void *context)
{
    fuse_job job = {.call = f, .run = run, .context = context, .options = *f->options};
    job.options.profile.num_threads = 1;
    port_parallel(count, f->options->profile.num_threads, run_part, &job);
    for (int64_t k = 0; k < count; k++) {
        if (job.status[k] != PORT_OK) {
            if (f->err != NULL) {
                *f->err = job.errors[k];
            }
            return job.status[k];
        }
    }
    return PORT_OK;
}

typedef struct tree_job {
    const fuse_operands *operands;
    const port_tensor *out;
    int64_t elems;
    port_chunks chunks;
} tree_job;

static port_status
run_range(const void *context, int64_t k, const fuse_part *part)
{
    const tree_job *job = context;
    fuse_range *r = port_calloc(1, sizeof *r);
    if (r == NULL) {
        return port_fail(part->err, PORT_E_NOMEM, "no memory for a chain of ops");
    }
    *r = (fuse_range){.operands = job->operands, .out = job->out, .part = *part};
    int64_t begin = k * job->chunks.size, end = begin + job->chunks.size;
    end = end < job->elems ? end : job->elems;
    port_status status = PORT_OK;
    while (status == PORT_OK && begin < end) {
        int64_t n = end - begin < 2 * FUSE_BLOCK ? end - begin : FUSE_BLOCK; /* never a last block of one element */
        status = run_block(r, begin, n);
        begin += n;
    }
    port_free(r);
    return status;
}

/* Ranges as each of the ops would cut them; a count of 0 if they differ. */
static port_chunks
common_chunks(const fuse_call *f, int64_t n)
{
    int32_t num_threads = f->options->profile.num_threads;
    port_chunks chunks = port_chunks_of(n, PORT_GRAIN_SIZE, num_threads);
    for (int32_t k = 0; k < f->group->num_ops; k++) {
        const op_row *row = f->program->ops[f->group->ops[k]].row;
        port_chunks own = chunks;
        if (row->kernel != NULL && strcmp(row->kernel, "gelu") == 0) {
            own = port_chunks_of(n, port_gelu_grain(n, num_threads), num_threads);
        }
        if (own.count != chunks.count || own.size != chunks.size || chunks.count > FUSE_MAX_PARTS) {
            return (port_chunks){0, 0};
        }
    }
    return chunks;
}

static port_status
run_tree(const fuse_call *f, port_tensor *result, bool *done)
{
    fuse_operands o = {.call = f, .fits = true};
    for (int32_t k = 0; k < f->group->num_ops; k++) {
        op_for_each_input(&f->program->ops[f->group->ops[k]], note_operand, &o);
    }
    const op_info *last = &f->program->ops[f->group->ops[f->group->num_ops - 1]];
    port_dtype dtype = f->program->values[last->outputs[0]].dtype;
    int64_t n = o.fits && o.full != NULL && dtype < PORT_NUM_DTYPES ? tensor_elems(o.full) : 0;
    tree_job job = {.operands = &o, .out = result, .elems = n, .chunks = common_chunks(f, n)};
    if (n <= FUSE_BLOCK || job.chunks.count == 0) {
        return PORT_OK;
    }
    const port_tensor *dead = dead_operand(&o, dtype);
    *result = *o.full;
    result->dtype = dtype;
    dense_strides(result->ndim, result->shape, result->strides);
    port_status status = PORT_OK;
    if (dead != NULL) {
        *result = *dead;
        dead->buffer->refs++;
    } else {
        status = buffer_new((uint64_t)n * port_dtype_size(dtype), 0, false, &result->buffer, f->err);
        result->offset_bytes = 0;
    }
    if (status != PORT_OK) {
        return status;
    }
    *done = true;
    return fuse_run_parts(f, job.chunks.count, run_range, &job);
}

port_status
fuse_run(const fuse_call *f, port_tensor *result, bool *done)
{
    *done = false;
    port_status status = f->group->attention ? fuse_run_attention(f, result, done) : run_tree(f, result, done);
    if (status != PORT_OK && *done) {
        buffer_release(result->buffer);
    }
    return status;
}
