/* fuse_attention.c -- attention that a model writes out, run head by head, so that the scores of one head stay in the cache.
 *
 *     scores (N, T, S) = bmm(q, k)      N heads of all batches; k (N, D, S)
 *     scale, mask, softmax over the keys, casts, and views between them
 *     out (N, T, E) = bmm(scores, v)
 *
 * A group is such a chain: each value is used by the next op only, in between nothing is changed in place but the chain's own values,
 * and all of them are N dense matrices of T rows and S columns, whatever their other dimensions are called.
 *
 * The bits are those of the single ops. Each head's products are whole, because their bits depend on their sizes, and only where an item
 * of a stack has the same bits by itself (port_bmm_is_itemwise). What is between them knows no neighbour beyond its row: the ops are
 * arithmetic rounded once for each element, and softmax along rows; so they run on a few rows at a time, in the memory of the scores.
 * Masks and other operands are broadcast as ever. */
#include "fuse.h"

#define LOOK_AHEAD 64    /* ops from one of the chain to the next */
#define ROWS_ELEMS 32768 /* of the rows that run together */
#define LEAST_ELEMS 8192 /* of the scores of a head: with less the ops are cheaper than running them often */
#define MAX_OPERANDS 4   /* of one op */

/* ------------------------------------------------------------------ finding groups */

typedef enum step_kind { STEP_NONE, STEP_VIEW, STEP_ROWS, STEP_PRODUCT } step_kind;

static bool
is_one_of(const char *name, const char *const *names)
{
    while (*names != NULL && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

static step_kind
kind_of(const op_info *op)
{
    static const char *const views[] = {"view", "_unsafe_view", "reshape", "expand", "alias", "detach", "clone", NULL};
    static const char *const casts[] = {"_to_copy", NULL};
    static const char *const rows[] = {"mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar", "add.Tensor", "sub.Tensor", "where.self",
                                       "masked_fill.Scalar", "masked_fill.Tensor", "_softmax", "softmax.int", NULL};
    if (op->row == NULL || op->num_outputs != 1 || op->outputs[0] < 0 || op->returned.kind != PORT_ARG_NONE) {
        return STEP_NONE;
    }
    const char *name = op->row->name;
    if (op->in_place) { /* with named arguments: alpha, or a tensor that is written to */
        return op->num_named == 0 && is_one_of(name, rows) ? STEP_ROWS : STEP_NONE;
    }
    if (strcmp(name, "bmm") == 0) {
        bool tensors = op->num_args == 2 && op->args[0].kind == PORT_ARG_TENSOR && op->args[1].kind == PORT_ARG_TENSOR;
        return tensors && op->num_named == 0 ? STEP_PRODUCT : STEP_NONE;
    }
    if (is_one_of(name, views)) {
        return STEP_VIEW;
    }
    return is_one_of(name, casts) || (op->num_named == 0 && is_one_of(name, rows)) ? STEP_ROWS : STEP_NONE;
}

typedef struct use_count {
    int64_t value;
    int32_t uses;
} use_count;

static void
count_use(int64_t v, void *context)
{
    use_count *c = context;
    c->uses += v == c->value;
}

static int32_t
uses_of(const op_info *op, int64_t v)
{
    use_count c = {v, 0};
    op_for_each_input(op, count_use, &c);
    return c.uses;
}

/* The first op after op_idx that uses value v; -1 if none does soon, or if the value is made anew before. */
static int64_t
next_user(const fuse_search *s, int64_t op_idx, int64_t v)
{
    for (int64_t k = op_idx + 1; k < s->num_ops && k <= op_idx + LOOK_AHEAD; k++) {
        const op_info *op = &s->ops[k];
        if (uses_of(op, v) > 0) {
            return k;
        }
        for (size_t i = 0; i < op->num_outputs; i++) {
            if (op->outputs[i] == v) {
                return -1;
            }
        }
    }
    return -1;
}

/* N matrices of T rows and S columns. */
typedef struct stack_size {
    int64_t N, T, S;
} stack_size;

static bool
is_stack(const port_program *program, const port_run_options *options, int64_t v, stack_size *size, int64_t *shape)
{
    const value_info *info = &program->values[v];
    const op_call sizes = {.options = options};
    int64_t count = 1, step = 1, elems;
    uint64_t bytes;
    if (info->ndim < 2 || !info->has_strides || !dtype_is_float(info->dtype)) {
        return false;
    }
    for (int32_t d = info->ndim - 1; d >= 0; d--) {
        shape[d] = eval_int(&sizes, &info->shape[d]);
        bool dense = shape[d] == 1 || eval_int(&sizes, &info->strides[d]) == step;
        if (shape[d] < 1 || !dense || __builtin_mul_overflow(step, shape[d], &step)) {
            return false;
        }
        count *= d < info->ndim - 2 ? shape[d] : 1;
    }
    if (!port_shape_bytes(info->dtype, info->ndim, shape, &elems, &bytes)) {
        return false;
    }
    *size = (stack_size){count, shape[info->ndim - 2], shape[info->ndim - 1]};
    return true;
}

typedef struct view_shape {
    int32_t ndim;
    int64_t sizes[PORT_MAX_NDIM];
} view_shape;

/* Whether a view's arguments ask for this shape, and it can be had from that one. */
static bool
views_as(const op_info *op, const port_run_options *options, const view_shape *from, const view_shape *to)
{
    const op_call sizes = {.options = options};
    if (op->num_args == 1) { /* alias, detach, clone */
        return from->ndim == to->ndim && memcmp(from->sizes, to->sizes, (size_t)to->ndim * sizeof to->sizes[0]) == 0;
    }
    const port_arg *list = &op->args[1];
    bool expands = strcmp(op->row->name, "expand") == 0;
    int32_t added = to->ndim - from->ndim;
    bool fits = op->num_args == 2 && op->num_named == 0 && list->kind == PORT_ARG_LIST && list->num_items == to->ndim && (!expands || added >= 0);
    int32_t open = 0; /* sizes of -1: one of a view's, any that an expansion keeps */
    for (int32_t d = 0; fits && d < to->ndim; d++) {
        bool sized = list->items[d].kind == PORT_ARG_INT || list->items[d].kind == PORT_ARG_SYM;
        int64_t asked = sized ? eval_int(&sizes, &list->items[d]) : 0;
        open += asked == -1;
        fits = (asked == to->sizes[d] || (asked == -1 && (expands ? d >= added : open == 1))) &&
               (!expands || to->sizes[d] == (d < added ? 1 : from->sizes[d - added]));
    }
    return fits;
}

/* Whether an op on rows can make this shape of that one: broadcasting adds no more than dimensions of size 1 in front. */
static bool
adds_only_ones(const view_shape *from, const view_shape *to)
{
    int32_t added = to->ndim - from->ndim;
    bool fits = added >= 0 && memcmp(from->sizes, to->sizes + added, (size_t)from->ndim * sizeof to->sizes[0]) == 0;
    for (int32_t d = 0; fits && d < added; d++) {
        fits = to->sizes[d] == 1;
    }
    return fits;
}

/* Whether all values of a group but the last are stacks of one size, large enough. */
static bool
is_attention(const port_program *program, const fuse_group *group, const port_run_options *options, stack_size *size)
{
    view_shape from, to;
    stack_size own;
    if (!is_stack(program, options, program->ops[group->ops[0]].outputs[0], size, from.sizes) || size->N < 2 || size->T * size->S < LEAST_ELEMS) {
        return false;
    }
    from.ndim = program->values[program->ops[group->ops[0]].outputs[0]].ndim;
    for (int32_t k = 1; k + 1 < group->num_ops; k++) {
        const op_info *op = &program->ops[group->ops[k]];
        to.ndim = program->values[op->outputs[0]].ndim;
        if (!is_stack(program, options, op->outputs[0], &own, to.sizes) || own.N != size->N || own.T != size->T || own.S != size->S ||
            !(kind_of(op) == STEP_VIEW ? views_as(op, options, &from, &to) : adds_only_ones(&from, &to))) {
            return false;
        }
        from = to;
    }
    return true;
}

typedef struct dtype_check {
    const port_program *program;
    int64_t value;
    bool fits;
} dtype_check;

static void
check_dtype(int64_t v, void *context)
{
    dtype_check *c = context;
    bool known = v >= 0 && v < c->program->num_values;
    c->fits = c->fits && known && (c->program->values[v].dtype == c->program->values[c->value].dtype || c->program->values[v].dtype == PORT_BOOL);
}

/* Whether an op makes rows of v's rows, each by itself. */
static bool
keeps_rows(const fuse_search *s, const op_info *op, int64_t v)
{
    dtype_check c = {s->program, v, true};
    op_for_each_input(op, check_dtype, &c);
    if (!c.fits || uses_of(op, v) != 1 || (op->in_place && op->outputs[0] != v)) {
        return false;
    }
    if (strstr(op->row->name, "softmax") == NULL) {
        return true;
    }
    bool given = op->num_args >= 2 && op->args[1].kind == PORT_ARG_INT;
    return given && (op->args[1].i == -1 || op->args[1].i == s->program->values[v].ndim - 1);
}

/* Follows the chain from a product to the next one. False if there is none. */
static bool
follow(const fuse_search *s, int64_t first, fuse_group *group)
{
    int64_t v = s->ops[first].outputs[0], at = first, own_changes = 0;
    int32_t changed = 0, rows = 0; /* how often v was changed in place; ops that make rows */
    *group = (fuse_group){.attention = true, .head = -1, .num_ops = 1, .ops = {first}};
    while (group->num_ops < FUSE_MAX_OPS) {
        int64_t next = next_user(s, at, v);
        const op_info *op = next >= 0 ? &s->ops[next] : NULL;
        step_kind kind = op != NULL && s->changes[next] - s->changes[first] == own_changes ? kind_of(op) : STEP_NONE;
        group->ops[group->num_ops++] = next;
        if (kind == STEP_PRODUCT) {
            bool same = s->program->values[v].dtype == s->program->values[s->ops[first].outputs[0]].dtype;
            return rows > 0 && same && s->users[v] == changed + 1 && op->args[0].i == v && op->args[1].i != v;
        }
        if (kind == STEP_NONE || (kind == STEP_ROWS && !keeps_rows(s, op, v)) || (!op->in_place && s->users[v] != changed + 1)) {
            return false;
        }
        rows += kind == STEP_ROWS;
        own_changes += op->in_place;
        changed = op->in_place ? changed + 1 : 0;
        v = op->outputs[0];
        at = next;
    }
    return false;
}

void
fuse_find_attention(fuse_search *s)
{
    const port_run_options recorded = {.num_symbols = s->program->num_symbols, .symbols = s->program->recorded_symbols};
    fuse_group group;
    stack_size size;
    for (int64_t k = 0; k < s->num_ops; k++) {
        if (s->group[k] >= 0 || kind_of(&s->ops[k]) != STEP_PRODUCT || !follow(s, k, &group) || !is_attention(s->program, &group, &recorded, &size)) {
            continue;
        }
        for (int32_t i = 0; i < group.num_ops; i++) {
            s->group[group.ops[i]] = s->num_groups;
        }
        s->groups[s->num_groups++] = group;
    }
}

/* ------------------------------------------------------------------ running one */

typedef struct attention {
    const fuse_call *call;
    const op_info *first, *last;
    const port_tensor *q, *k, *v, *out;
    stack_size size;
    port_chunks chunks; /* of heads, one for each thread */
} attention;

/* One thread's work: its memory for a head's scores, and what its values stand for just now. */
typedef struct head {
    const attention *a;
    const fuse_part *part;
    port_buffer *memory;
    port_tensor scores, rows; /* all of the head's, and some of them */
    port_tensor operands[MAX_OPERANDS];
    port_buffer buffers[MAX_OPERANDS];
    int32_t num_operands;
    int64_t item, row, num_rows;
    /* of the op that runs: the chain's value, its result's shape as recorded, and the head's place in that */
    int64_t value, shape[PORT_MAX_NDIM], place[PORT_MAX_NDIM];
    int32_t ndim;
} head;

/* What an op on these rows sees of an operand that is broadcast to its result. */
static port_tensor *
rows_of_operand(head *h, const port_tensor *t)
{
    port_tensor *seen = &h->operands[h->num_operands];
    port_buffer *buffer = &h->buffers[h->num_operands++];
    int64_t offset = t->offset_bytes, bytes = (int64_t)port_dtype_size(t->dtype);
    *seen = *t;
    for (int32_t d = 0; d < t->ndim - 1; d++) {
        int32_t at = d + h->ndim - t->ndim;
        if (t->shape[d] != 1) {
            offset += (at < h->ndim - 2 ? h->place[at] : h->row) * t->strides[d] * bytes;
            seen->shape[d] = at < h->ndim - 2 ? 1 : h->num_rows;
        }
    }
    *buffer = (port_buffer){.data = t->buffer->data + offset, .size_bytes = t->buffer->size_bytes - (uint64_t)offset, .refs = 1};
    seen->buffer = buffer;
    seen->offset_bytes = 0;
    return seen;
}

static void
see_operand(int64_t v, void *context)
{
    head *h = context;
    if (v != h->value) {
        h->part->values[v] = rows_of_operand(h, h->a->call->values[v]);
    }
}

/* The head's matrix of a stack of three dimensions. */
static port_tensor *
matrix_of(head *h, const port_tensor *t)
{
    h->ndim = 3;
    h->place[0] = h->item;
    h->row = 0;
    h->num_rows = t->shape[1];
    return rows_of_operand(h, t);
}

/* Gives the rows the leading dimensions of value v. */
static void
shape_rows(const head *h, port_tensor *rows, int64_t v)
{
    const value_info *info = &h->a->call->program->values[v];
    rows->ndim = info->ndim;
    for (int32_t d = 0; d < info->ndim; d++) {
        rows->shape[d] = d < info->ndim - 2 ? 1 : (d == info->ndim - 2 ? h->num_rows : h->a->size.S);
    }
    dense_strides(rows->ndim, rows->shape, rows->strides);
}

/* Runs one op on the rows `from`, which become those of its result: in the memory of the scores if the dtype fits, else in other. */
static port_status
run_row_op(head *h, int64_t op_idx, port_tensor *from)
{
    const fuse_call *f = h->a->call;
    const op_info *op = &f->program->ops[op_idx];
    int64_t to = op->outputs[0], elems = h->num_rows * h->a->size.S;
    port_dtype dtype = f->program->values[to].dtype;
    port_tensor made = h->rows;
    stack_size unused;
    port_status status = PORT_OK;
    if (dtype != made.dtype) {
        made.dtype = dtype;
        made.offset_bytes = 0;
        status = buffer_new((uint64_t)elems * port_dtype_size(dtype), 0, false, &made.buffer, h->part->err);
    } else {
        made.buffer->refs++;
    }
    if (status != PORT_OK) {
        return status;
    }
    h->ndim = f->program->values[to].ndim;
    h->num_operands = 0;
    is_stack(f->program, f->options, to, &unused, h->shape);
    for (int64_t d = h->ndim - 3, rest = h->item; d >= 0; d--) {
        h->place[d] = rest % h->shape[d];
        rest /= h->shape[d];
    }
    op_for_each_input(op, see_operand, h);
    h->part->values[h->value] = from;
    shape_rows(h, &made, to);
    status = fuse_run_op(f, h->part, op_idx, &made, elems, NULL);
    buffer_release(from->buffer);
    *from = made;
    return status;
}

/* Runs what is between the products on some rows. */
static port_status
run_rows(head *h, int64_t row, int64_t num_rows)
{
    const fuse_call *f = h->a->call;
    port_status status = PORT_OK;
    h->row = row;
    h->num_rows = num_rows;
    h->rows = h->scores;
    h->rows.offset_bytes += row * h->a->size.S * (int64_t)port_dtype_size(h->scores.dtype);
    h->value = h->a->first->outputs[0];
    port_tensor now = h->rows;
    now.buffer->refs++;
    for (int32_t k = 1; k + 1 < f->group->num_ops && status == PORT_OK; k++) {
        const op_info *op = &f->program->ops[f->group->ops[k]];
        shape_rows(h, &now, h->value);
        status = kind_of(op) == STEP_ROWS ? run_row_op(h, f->group->ops[k], &now) : PORT_OK;
        h->value = op->outputs[0];
    }
    buffer_release(now.buffer);
    return status;
}

static port_status
run_head(head *h)
{
    const attention *a = h->a;
    const stack_size *size = &a->size;
    const op_info *first = a->first, *last = a->last;
    int64_t bytes = (int64_t)port_dtype_size(a->q->dtype), elems = size->T * size->S, block = ROWS_ELEMS / size->S;
    const int64_t shape[3] = {1, size->T, size->S};
    h->scores = (port_tensor){.buffer = h->memory, .offset_bytes = h->item * elems * bytes % 64, .dtype = a->q->dtype, .ndim = 3};
    memcpy(h->scores.shape, shape, sizeof shape);
    dense_strides(3, h->scores.shape, h->scores.strides);
    h->num_operands = 0;
    h->part->values[first->args[0].i] = matrix_of(h, a->q);
    h->part->values[first->args[1].i] = matrix_of(h, a->k);
    port_status status = fuse_run_op(a->call, h->part, a->call->group->ops[0], &h->scores, elems, NULL);
    block = block > 0 ? block : 1;
    for (int64_t row = 0; row < size->T && status == PORT_OK; row += block) {
        status = run_rows(h, row, size->T - row < block ? size->T - row : block);
    }
    if (status != PORT_OK) {
        return status;
    }
    h->num_operands = 0;
    h->part->values[last->args[1].i] = matrix_of(h, a->v);
    h->part->values[last->args[0].i] = &h->scores;
    const port_tensor *target = matrix_of(h, a->out);
    return fuse_run_op(a->call, h->part, a->call->op_idx, target, tensor_elems(target), NULL);
}

static port_status
run_heads(const void *context, int64_t k, const fuse_part *part)
{
    const attention *a = context;
    head *h = port_calloc(1, sizeof *h);
    uint64_t bytes = (uint64_t)(a->size.T * a->size.S) * port_dtype_size(a->q->dtype) + 64;
    port_status status = h != NULL ? buffer_new(bytes, 0, false, &h->memory, part->err) : port_fail(part->err, PORT_E_NOMEM, "no memory for a head");
    int64_t end = (k + 1) * a->chunks.size < a->size.N ? (k + 1) * a->chunks.size : a->size.N;
    for (int64_t i = k * a->chunks.size; i < end && status == PORT_OK; i++) {
        h->a = a;
        h->part = part;
        h->item = i;
        status = run_head(h);
    }
    buffer_release(h != NULL ? h->memory : NULL);
    port_free(h);
    return status;
}

/* ------------------------------------------------------------------ whether it may run */

typedef struct operand_check {
    const attention *a;
    int64_t value; /* the chain's own */
    int32_t ndim, count;
    const int64_t *shape;
    bool fits;
} operand_check;

static void
check_operand(int64_t v, void *context)
{
    operand_check *c = context;
    const port_tensor *t = v != c->value ? c->a->call->values[v] : NULL;
    if (v == c->value) {
        return;
    }
    c->fits = c->fits && t != NULL && t->dtype == c->a->call->program->values[v].dtype && t->ndim <= c->ndim && c->count++ < MAX_OPERANDS;
    for (int32_t d = 0; c->fits && d < t->ndim; d++) {
        c->fits = t->shape[d] == 1 || t->shape[d] == c->shape[c->ndim - t->ndim + d];
    }
}

static bool
operands_fit(const attention *a)
{
    const fuse_call *f = a->call;
    int64_t shape[PORT_MAX_NDIM], v = a->first->outputs[0];
    stack_size size;
    bool fits = true;
    for (int32_t k = 1; k + 1 < f->group->num_ops && fits; k++) {
        const op_info *op = &f->program->ops[f->group->ops[k]];
        operand_check c = {a, v, f->program->values[op->outputs[0]].ndim, 0, shape, is_stack(f->program, f->options, op->outputs[0], &size, shape)};
        if (kind_of(op) == STEP_ROWS) {
            op_for_each_input(op, check_operand, &c);
        }
        fits = c.fits;
        v = op->outputs[0];
    }
    return fits;
}

/* Whether (count, rows, cols) is the shape of t, a stack of a dtype. */
static bool
is_of_shape(const port_tensor *t, port_dtype dtype, int64_t count, int64_t rows, int64_t cols)
{
    return t != NULL && t->dtype == dtype && t->ndim == 3 && t->shape[0] == count && t->shape[1] == rows && t->shape[2] == cols;
}

port_status
fuse_run_attention(const fuse_call *f, port_tensor *result, bool *done)
{
    const op_info *ops = f->program->ops;
    attention a = {.call = f, .first = &ops[f->group->ops[0]], .last = &ops[f->op_idx], .out = result};
    a.q = f->values[a.first->args[0].i];
    a.k = f->values[a.first->args[1].i];
    a.v = f->values[a.last->args[1].i];
    if (!f->as_recorded || f->options->operands != PORT_OPERANDS_EXACT || a.q == NULL || a.v == NULL || a.q->ndim != 3 || a.v->ndim != 3 ||
        !is_attention(f->program, f->group, f->options, &a.size)) {
        return PORT_OK;
    }
    int64_t D = a.q->shape[2], E = a.v->shape[2], N = a.size.N, T = a.size.T, S = a.size.S;
    port_dtype dtype = f->program->values[a.first->outputs[0]].dtype;
    int32_t threads = f->options->profile.num_threads;
    a.chunks = port_chunks_of(N, 1, threads < FUSE_MAX_PARTS ? threads : FUSE_MAX_PARTS);
    if (!is_of_shape(a.q, dtype, N, T, D) || !is_of_shape(a.k, dtype, N, D, S) || !is_of_shape(a.v, dtype, N, S, E) ||
        f->program->values[a.last->outputs[0]].dtype != dtype || !operands_fit(&a) ||
        !port_bmm_is_itemwise(f->options->provider, dtype, (const int64_t[]){N, T, D, S}, &f->options->profile) ||
        !port_bmm_is_itemwise(f->options->provider, dtype, (const int64_t[]){N, T, S, E}, &f->options->profile)) {
        return PORT_OK;
    }
    int64_t elems;
    uint64_t bytes;
    *result = (port_tensor){.dtype = dtype, .ndim = 3, .shape = {N, T, E}};
    if (!port_shape_bytes(dtype, 3, result->shape, &elems, &bytes)) {
        return PORT_OK;
    }
    dense_strides(3, result->shape, result->strides);
    port_status status = buffer_new(bytes, 0, false, &result->buffer, f->err);
    if (status != PORT_OK) {
        return status;
    }
    *done = true;
    return fuse_run_parts(f, a.chunks.count, run_heads, &a);
}
