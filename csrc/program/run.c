/* run.c -- executes an interval of a program: feeds, ops in order, results, and the memory of values nobody needs any more.
 *
 * After every op its results are held against the recorded dtype and shape: a program that was recorded for other sizes
 * is refused where it first differs, instead of going on with literal sizes that no longer mean anything. */
#include "fuse.h"

#include <math.h>

typedef struct run_state {
    const port_program *program;
    const port_run_options *options;
    int64_t begin, end;
    bool check_shapes;
    port_tensor **values;  /* by number; NULL: not there */
    int64_t *last_use;     /* op after which a value is dead; `end` for one that is fetched */
    const fuse_group **fused; /* by op - begin: the group that runs it, NULL: it runs by itself. NULL if nothing is fused */
    op_call sizes;         /* only to evaluate symbols */
    size_t num_expected;   /* expectations that have been looked at */
    port_error *err;
} run_state;

static int64_t
num_steps(const run_state *run)
{
    return run->options->only != NULL ? (int64_t)run->options->num_only : run->end - run->begin;
}

static int64_t
op_of_step(const run_state *run, int64_t step)
{
    return run->options->only != NULL ? run->options->only[step] : run->begin + step;
}

static void
drop_value(run_state *run, int64_t v)
{
    if (run->values[v] != NULL) {
        buffer_release(run->values[v]->buffer);
        port_free(run->values[v]);
        run->values[v] = NULL;
    }
}

static port_status
set_value(run_state *run, int64_t v, const port_tensor *tensor)
{
    port_tensor *copy = port_alloc(sizeof *copy);
    if (copy == NULL) {
        return port_fail(run->err, PORT_E_NOMEM, "no memory for a tensor");
    }
    tensor->buffer->refs++;
    drop_value(run, v);
    *copy = *tensor;
    run->values[v] = copy;
    return PORT_OK;
}

/* ------------------------------------------------------------------ feeds */

static void
recorded_layout(const run_state *run, const value_info *info, int64_t *shape, int64_t *strides)
{
    for (int32_t d = 0; d < info->ndim; d++) {
        shape[d] = eval_int(&run->sizes, &info->shape[d]);
        strides[d] = info->has_strides ? eval_int(&run->sizes, &info->strides[d]) : 0;
    }
}

static bool
same_strides(int32_t ndim, const int64_t *shape, const int64_t *a, const int64_t *b)
{
    for (int32_t d = 0; d < ndim; d++) {
        if (shape[d] == 0) {
            return true;
        }
        if (shape[d] != 1 && a[d] != b[d]) {
            return false;
        }
    }
    return true;
}

/* True if two elements may lie in the same place. */
static bool
places_are_shared(const port_tensor *t)
{
    bool taken[PORT_MAX_NDIM] = {false};
    int64_t reach = 0; /* of the dimensions taken so far, which have the smaller strides */
    for (int32_t k = 0; k < t->ndim; k++) {
        int32_t best = -1;
        for (int32_t d = 0; d < t->ndim; d++) {
            if (!taken[d] && t->shape[d] > 1 && (best < 0 || t->strides[d] < t->strides[best])) {
                best = d;
            }
        }
        if (best < 0) {
            return false;
        }
        if (t->strides[best] <= reach) {
            return true;
        }
        taken[best] = true;
        reach += (t->shape[best] - 1) * t->strides[best];
    }
    return false;
}

/* Lays the fed elements out as they lay when the program was recorded: kernels and views depend on it. Leaves the tensor
 * as it is where that is not possible (elements that shared memory then and differ now). */
static port_status
lay_out(run_state *run, const port_view *fed, const int64_t *strides, uint64_t lead_bytes, port_tensor *tensor)
{
    port_tensor laid = *tensor;
    uint64_t dense_bytes = (uint64_t)tensor_elems(tensor) * port_dtype_size(tensor->dtype);
    uint64_t bytes;
    if (!layout_extent(laid.dtype, laid.ndim, laid.shape, strides, &bytes) || !layout_is_affordable(bytes, dense_bytes)) {
        return PORT_OK;
    }
    for (int32_t d = 0; d < laid.ndim; d++) {
        laid.strides[d] = strides[d] >= 0 ? strides[d] : 1; /* negative: of a dimension of size 1, which a symbol may give */
    }
    port_status status = buffer_new(bytes, lead_bytes, true, &laid.buffer, run->err);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(&laid);
    copy_view(NULL, &to, fed);
    bool kept = true;
    if (places_are_shared(&laid)) {
        char *a = port_alloc((size_t)dense_bytes), *b = port_alloc((size_t)dense_bytes);
        kept = a != NULL && b != NULL;
        if (kept) {
            port_view_gather(fed, a);
            port_view_gather(&to, b);
            kept = memcmp(a, b, (size_t)dense_bytes) == 0;
        }
        port_free(a);
        port_free(b);
    }
    buffer_release(kept ? tensor->buffer : laid.buffer);
    if (kept) {
        *tensor = laid;
    }
    return PORT_OK;
}

static port_status
check_feed(run_state *run, const port_feed *feed, const int64_t *shape)
{
    const value_info *info = &run->program->values[feed->value];
    char a[200], b[200];
    if (feed->view.dtype != info->dtype) {
        return port_fail(run->err, PORT_E_DTYPE, "value %lld was recorded as %s, got %s", (long long)feed->value,
                         port_dtype_name(info->dtype), port_dtype_name(feed->view.dtype));
    }
    bool same = feed->view.ndim == info->ndim;
    for (int32_t d = 0; same && run->check_shapes && d < info->ndim; d++) {
        same = feed->view.shape[d] == shape[d];
    }
    return same ? PORT_OK
                : port_fail(run->err, PORT_E_SHAPE, "value %lld was recorded with shape %s, got %s", (long long)feed->value,
                            shape_text(info->ndim, shape, a, sizeof a),
                            shape_text(feed->view.ndim, feed->view.shape, b, sizeof b));
}

static port_status
take_feed(run_state *run, const port_feed *feed)
{
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    if (feed->value < 0 || feed->value >= run->program->num_values) {
        return port_fail(run->err, PORT_E_VALUE, "value %lld is fed, the program has %lld values", (long long)feed->value,
                         (long long)run->program->num_values);
    }
    if (run->values[feed->value] != NULL) {
        return port_fail(run->err, PORT_E_VALUE, "value %lld is fed twice", (long long)feed->value);
    }
    const value_info *info = &run->program->values[feed->value];
    recorded_layout(run, info, shape, strides);
    port_status status = check_feed(run, feed, shape);
    port_tensor tensor;
    if (status != PORT_OK || (status = tensor_from_view(&feed->view, &tensor, run->err)) != PORT_OK) {
        return status;
    }
    int64_t offset = eval_int(&run->sizes, &info->offset), size = (int64_t)port_dtype_size(info->dtype);
    int64_t begins = info->lead_bytes % size == 0 ? info->lead_bytes : 0; /* the alignment, too, decides the bits of a library's products */
    uint64_t lead_bytes = ((uint64_t)offset * (uint64_t)size + (uint64_t)begins) % 64;
    bool fits = info->has_strides && memcmp(shape, tensor.shape, (size_t)tensor.ndim * sizeof shape[0]) == 0;
    if (fits && same_strides(tensor.ndim, shape, strides, tensor.strides) && (uintptr_t)tensor.buffer->data % 64 == lead_bytes) {
        for (int32_t d = 0; d < tensor.ndim; d++) { /* strides of dimensions of size 1 are free, and torch looks at them */
            tensor.strides[d] = strides[d] >= 0 ? strides[d] : tensor.strides[d];
        }
    } else if (fits) {
        status = lay_out(run, &feed->view, strides, lead_bytes, &tensor);
    }
    if (status == PORT_OK && !__builtin_mul_overflow(offset, size, &offset)) {
        tensor.buffer->origin_bytes = offset;
    }
    if (status == PORT_OK) {
        status = set_value(run, feed->value, &tensor);
    }
    buffer_release(tensor.buffer);
    return status;
}

/* ------------------------------------------------------------------ ops */

static port_status
check_output(run_state *run, const op_info *op, int64_t v, const port_tensor *made)
{
    const value_info *info = &run->program->values[v];
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    char a[200], b[200];
    if (made->dtype != info->dtype) {
        return port_fail(run->err, PORT_E_DTYPE, "%s: value %lld was recorded as %s and came out as %s", op->name, (long long)v,
                         port_dtype_name(info->dtype), port_dtype_name(made->dtype));
    }
    recorded_layout(run, info, shape, strides);
    bool same = made->ndim == info->ndim;
    for (int32_t d = 0; same && run->check_shapes && d < info->ndim; d++) {
        same = made->shape[d] == shape[d];
    }
    if (!same) {
        return port_fail(run->err, PORT_E_SHAPE, "%s: value %lld was recorded with shape %s and came out with %s", op->name,
                         (long long)v, shape_text(info->ndim, shape, a, sizeof a),
                         shape_text(made->ndim, made->shape, b, sizeof b));
    }
    if (run->options->check_strides && run->check_shapes && info->has_strides &&
        !same_strides(made->ndim, shape, strides, made->strides)) {
        return port_fail(run->err, PORT_E_SHAPE, "%s: value %lld was recorded with strides %s and came out with %s", op->name,
                         (long long)v, shape_text(info->ndim, strides, a, sizeof a),
                         shape_text(made->ndim, made->strides, b, sizeof b));
    }
    return PORT_OK;
}

/* A Python number that the op returned went into the program as a literal: it must still be the same. */
static port_status
check_returned(run_state *run, const op_info *op, const op_call *call)
{
    if (op->returned.kind == PORT_ARG_NONE || call->num_out != 1) {
        return PORT_OK;
    }
    if (tensor_elems(&call->out[0]) != 1) {
        return port_fail(run->err, PORT_E_VALUE, "%s: it returned a number when the program was recorded, and now a tensor of %lld "
                         "elements", op->name, (long long)tensor_elems(&call->out[0]));
    }
    port_scalar recorded = eval_scalar(&run->sizes, &op->returned);
    port_view view = tensor_view(&call->out[0]), number;
    double now = 0.0;
    bool same;
    if (view.dtype == PORT_I64 || view.dtype == PORT_BOOL) {
        int64_t i = view.dtype == PORT_BOOL ? *(const uint8_t *)view.data != 0 : *(const int64_t *)view.data;
        same = recorded.kind == PORT_SCALAR_FLOAT ? recorded.d == (double)i : recorded.i == i;
        now = (double)i;
    } else {
        port_kernel_call cast = {.num_in = 1, .num_out = 1, .in = {&view}, .out = {&number},
                                 .provider = run->options->provider, .profile = &run->options->profile};
        const port_kernel_row *row = port_kernel_find("cast", view.dtype, "ref");
        number = port_view_contiguous(&now, PORT_F64, 0, NULL);
        if (row == NULL) {
            return port_fail(run->err, PORT_E_UNSUPPORTED, "%s: there is no kernel cast for %s", op->name, port_dtype_name(view.dtype));
        }
        row->run(&cast);
        same = now == recorded.d || (now != now && recorded.d != recorded.d) || fabs(now - recorded.d) <= 1e-3 * fabs(recorded.d);
    }
    return same ? PORT_OK
                : port_fail(run->err, PORT_E_VALUE, "%s: it returned %g when the program was recorded and %g now: the program does "
                            "not stand for these inputs", op->name, recorded.d, now);
}

static port_status
take_outputs(run_state *run, const op_info *op, const op_call *call)
{
    port_status status = check_returned(run, op, call);
    if (status != PORT_OK || op->num_outputs == 0) {
        return status;
    }
    if (op->num_outputs != call->num_out) {
        return port_fail(run->err, PORT_E_VALUE, "%s: the program names %zu results, there are %zu", op->name, op->num_outputs,
                         call->num_out);
    }
    size_t kept = op->num_outputs - ((call->row->flags & OP_OPAQUE) != 0);
    for (size_t k = 0; k < kept && status == PORT_OK; k++) {
        if (op->outputs[k] >= 0) {
            status = check_output(run, op, op->outputs[k], &call->out[k]);
            if (status == PORT_OK) {
                status = set_value(run, op->outputs[k], &call->out[k]);
            }
        }
    }
    return status;
}

typedef struct release_context {
    run_state *run;
    int64_t op_idx;
} release_context;

static void
release_if_dead(int64_t v, void *context)
{
    release_context *c = context;
    if (c->run->last_use[v] <= c->op_idx) {
        drop_value(c->run, v);
    }
}

static port_status
run_op(run_state *run, int64_t op_idx)
{
    const op_info *op = &run->program->ops[op_idx];
    op_call call = {.row = op->row, .in_place = op->in_place, .name = op->name, .values = run->values,
                    .num_values = run->program->num_values, .options = run->options, .err = run->err,
                    .wide = recorded_wide(run->program, op)};
    port_status status = op_call_run(&call, op->args, op->num_args, op->named, op->num_named);
    if (status == PORT_OK) {
        status = take_outputs(run, op, &call);
    }
    op_call_end(&call);
    return status;
}

static const fuse_group *
group_of(const run_state *run, int64_t op_idx)
{
    return run->fused != NULL ? run->fused[op_idx - run->begin] : NULL;
}

/* Where an op runs: in a group, that is at its last op. */
static int64_t
place_of(const run_state *run, int64_t op_idx)
{
    const fuse_group *group = group_of(run, op_idx);
    return group != NULL ? group->ops[group->num_ops - 1] : op_idx;
}

static port_status
run_group(run_state *run, const fuse_group *group, int64_t op_idx)
{
    fuse_call call = {.program = run->program, .group = group, .options = run->options, .values = run->values, .last_use = run->last_use,
                      .op_idx = op_idx, .as_recorded = run->check_shapes, .err = run->err};
    const op_info *last = &run->program->ops[op_idx];
    port_tensor result;
    bool done;
    port_status status = fuse_run(&call, &result, &done);
    for (int32_t k = 0; !done && k < group->num_ops && status == PORT_OK; k++) {
        status = run_op(run, group->ops[k]);
    }
    if (status != PORT_OK || !done) {
        return status;
    }
    status = check_output(run, last, last->outputs[0], &result);
    if (status == PORT_OK) {
        status = set_value(run, last->outputs[0], &result);
    }
    buffer_release(result.buffer);
    return status;
}

/* One step: an op, or at the last one of a group all of it, or before that nothing. */
static port_status
run_step(run_state *run, int64_t op_idx)
{
    const fuse_group *group = group_of(run, op_idx);
    if (group == NULL) {
        return run_op(run, op_idx);
    }
    return place_of(run, op_idx) == op_idx ? run_group(run, group, op_idx) : PORT_OK;
}

static void
release_of(run_state *run, const op_info *op, int64_t op_idx)
{
    release_context context = {run, op_idx};
    op_for_each_input(op, release_if_dead, &context);
    for (size_t k = 0; k < op->num_outputs; k++) {
        if (op->outputs[k] >= 0) {
            release_if_dead(op->outputs[k], &context);
        }
    }
}

static void
release_after(run_state *run, int64_t op_idx)
{
    const fuse_group *group = group_of(run, op_idx);
    if (group == NULL) {
        release_of(run, &run->program->ops[op_idx], op_idx);
    }
    for (int32_t k = 0; group != NULL && place_of(run, op_idx) == op_idx && k < group->num_ops; k++) {
        release_of(run, &run->program->ops[group->ops[k]], op_idx);
    }
}

static void
note_use(int64_t v, void *context)
{
    release_context *c = context;
    c->run->last_use[v] = c->op_idx > c->run->last_use[v] ? c->op_idx : c->run->last_use[v];
}

static void
find_last_uses(run_state *run)
{
    release_context context = {run, 0};
    for (int64_t step = 0; step < num_steps(run); step++) {
        int64_t op_idx = op_of_step(run, step);
        context.op_idx = place_of(run, op_idx);
        op_for_each_input(&run->program->ops[op_idx], note_use, &context);
    }
    for (size_t k = 0; k < run->options->num_expects; k++) {
        context.op_idx = run->options->expects[k].at;
        note_use(run->options->expects[k].value, &context);
    }
}

/* Marks the ops of the interval right after which another value than their own result is asked for: it may be an operand of theirs. */
static void
note_early_fetches(const run_state *run, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches, bool *asked_after)
{
    for (size_t k = 0; fetch_at != NULL && k < num_fetches; k++) {
        if (fetch_at[k] >= 0) {
            const op_info *op = &run->program->ops[fetch_at[k]];
            bool own = op->num_outputs > 0 && op->outputs[0] == fetches[k];
            asked_after[fetch_at[k] - run->begin] = asked_after[fetch_at[k] - run->begin] || !own;
        }
    }
}

/* Chooses the groups that lie in the interval, of whose inner values none is asked for or fed, and which may work in the memory of an
 * operand that dies there: none that is asked for right after the group. */
static port_status
choose_groups(run_state *run, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches)
{
    const port_program *program = run->program;
    if (run->options->only != NULL || run->options->num_expects > 0 || program->num_groups == 0 || run->end == run->begin) {
        return PORT_OK;
    }
    bool *wanted = port_calloc((size_t)program->num_values, sizeof *wanted);
    bool *asked_after = port_calloc((size_t)(run->end - run->begin), sizeof *asked_after);
    run->fused = port_calloc((size_t)(run->end - run->begin), sizeof *run->fused);
    if (wanted == NULL || asked_after == NULL || run->fused == NULL) {
        port_free(wanted);
        port_free(asked_after);
        return port_fail(run->err, PORT_E_NOMEM, "no memory for %lld values", (long long)program->num_values);
    }
    for (size_t k = 0; k < num_fetches; k++) {
        wanted[fetches[k]] = true;
    }
    note_early_fetches(run, fetches, fetch_at, num_fetches, asked_after);
    for (int64_t g = 0; g < program->num_groups; g++) {
        const fuse_group *group = &program->groups[g];
        int64_t last = group->ops[group->num_ops - 1];
        bool whole = group->ops[0] >= run->begin && last < run->end && !asked_after[last - run->begin];
        for (int32_t k = 0; whole && k + 1 < group->num_ops; k++) {
            int64_t v = program->ops[group->ops[k]].outputs[0];
            whole = !wanted[v] && run->values[v] == NULL;
        }
        for (int32_t k = 0; whole && k < group->num_ops; k++) {
            run->fused[group->ops[k] - run->begin] = group;
        }
    }
    port_free(wanted);
    port_free(asked_after);
    return PORT_OK;
}

/* ------------------------------------------------------------------ expectations */

static bool
holds(const port_tensor *tensor, const port_view *expected, bool *no_memory)
{
    bool same = tensor != NULL && tensor->dtype == expected->dtype && tensor->ndim == expected->ndim;
    for (int32_t d = 0; same && d < expected->ndim; d++) {
        same = tensor->shape[d] == expected->shape[d];
    }
    size_t bytes = same ? (size_t)tensor_elems(tensor) * port_dtype_size(tensor->dtype) : 0;
    if (!same || bytes == 0) {
        return same;
    }
    const port_view view = tensor_view(tensor), *sides[2] = {&view, expected};
    void *copies[2] = {NULL, NULL};
    const void *data[2];
    for (int k = 0; k < 2; k++) {
        data[k] = sides[k]->data;
        if (!port_view_is_contiguous(sides[k])) {
            data[k] = copies[k] = port_alloc(bytes);
            *no_memory = *no_memory || copies[k] == NULL;
        }
        if (copies[k] != NULL) {
            port_view_gather(sides[k], copies[k]);
        }
    }
    same = !*no_memory && memcmp(data[0], data[1], bytes) == 0;
    port_free(copies[0]);
    port_free(copies[1]);
    return same;
}

static port_status
look_at_expectations(run_state *run, int64_t op_idx)
{
    const port_run_options *options = run->options;
    bool no_memory = false;
    size_t first = run->num_expected;
    for (; run->num_expected < options->num_expects && options->expects[run->num_expected].at <= op_idx; run->num_expected++) {
        port_expect *expect = &options->expects[run->num_expected];
        expect->same = holds(run->values[expect->value], &expect->view, &no_memory);
        if (no_memory) {
            return port_fail(run->err, PORT_E_NOMEM, "no memory to compare value %lld", (long long)expect->value);
        }
        if (expect->restore && !expect->same && run->values[expect->value] != NULL) {
            drop_value(run, expect->value);
            port_status status = take_feed(run, &(port_feed){expect->value, expect->view});
            if (status != PORT_OK) {
                return status;
            }
        }
    }
    for (size_t k = first; k < run->num_expected; k++) { /* the others are released after their last use by an op */
        release_if_dead(options->expects[k].value, &(release_context){run, op_idx});
    }
    return PORT_OK;
}

static port_status
check_expectations(const run_state *run)
{
    const port_run_options *options = run->options;
    for (size_t k = 0; k < options->num_expects; k++) {
        const port_expect *expect = &options->expects[k];
        if (expect->value < 0 || expect->value >= run->program->num_values || expect->at < run->begin - 1 || expect->at >= run->end ||
            (k > 0 && expect->at < options->expects[k - 1].at)) {
            return port_fail(run->err, PORT_E_VALUE, "value %lld is expected at op %lld: ops %lld to %lld run, expectations come in the order "
                             "of ops", (long long)expect->value, (long long)expect->at, (long long)run->begin, (long long)run->end);
        }
    }
    for (size_t k = 0; options->only != NULL && k < options->num_only; k++) {
        int64_t op = options->only[k];
        if (op < run->begin || op >= run->end || (k > 0 && op <= options->only[k - 1])) {
            return port_fail(run->err, PORT_E_VALUE, "op %lld cannot be run alone: expected ascending ops from %lld to %lld",
                             (long long)op, (long long)run->begin, (long long)run->end);
        }
    }
    return PORT_OK;
}

/* ------------------------------------------------------------------ the run */

static port_status
fail_absent(const run_state *run, int64_t v)
{
    return port_fail(run->err, PORT_E_VALUE, "value %lld is asked for, but ops %lld to %lld neither make nor get it", (long long)v,
                     (long long)run->begin, (long long)run->end);
}

/* A copy for each that asks for a value right after this op. */
static port_status
take_fetches(run_state *run, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches, int64_t op_idx,
             port_result *results)
{
    for (size_t k = 0; fetch_at != NULL && k < num_fetches; k++) {
        if (fetch_at[k] != op_idx) {
            continue;
        }
        port_tensor *tensor = run->values[fetches[k]];
        if (tensor == NULL) {
            return fail_absent(run, fetches[k]);
        }
        tensor->buffer->refs++; /* the run goes on with it */
        port_status status = result_from_tensor(tensor, false, &results[k], run->err);
        tensor->buffer->refs--;
        if (status != PORT_OK) {
            return status;
        }
    }
    return PORT_OK;
}

/* What is asked for after the last op. The last one to ask for a value gets its memory instead of a copy: all else is dropped first. */
static port_status
take_last_fetches(run_state *run, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches, port_result *results)
{
    int64_t *asked = run->last_use; /* which is not needed any more */
    memset(asked, 0, (size_t)run->program->num_values * sizeof *asked);
    for (size_t k = 0; k < num_fetches; k++) {
        bool is_last = fetch_at == NULL || fetch_at[k] < 0;
        if (is_last && run->values[fetches[k]] == NULL) {
            return fail_absent(run, fetches[k]);
        }
        asked[fetches[k]] += is_last;
    }
    for (int64_t v = 0; v < run->program->num_values; v++) {
        if (asked[v] == 0) {
            drop_value(run, v);
        }
    }
    for (size_t k = 0; k < num_fetches; k++) {
        if (fetch_at != NULL && fetch_at[k] >= 0) {
            continue;
        }
        port_tensor *tensor = run->values[fetches[k]];
        bool again = --asked[fetches[k]] > 0;
        tensor->buffer->refs += again;
        port_status status = result_from_tensor(tensor, false, &results[k], run->err);
        tensor->buffer->refs -= again;
        if (status != PORT_OK) {
            return status;
        }
        if (!again) {
            drop_value(run, fetches[k]);
        }
    }
    return PORT_OK;
}

static port_status
check_request(run_state *run, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches)
{
    const port_program *program = run->program;
    port_status status = options_check(run->options, run->err);
    if (status != PORT_OK) {
        return status;
    }
    if (run->options->only != NULL && (fetch_at != NULL || run->options->num_expects > 0)) {
        return port_fail(run->err, PORT_E_VALUE, "single ops are run: values cannot be asked for, or expected, in between");
    }
    if (run->begin < 0 || run->end < run->begin || run->end > program->num_ops) {
        return port_fail(run->err, PORT_E_VALUE, "ops %lld to %lld are asked for, the program has %lld", (long long)run->begin,
                         (long long)run->end, (long long)program->num_ops);
    }
    if (run->options->num_symbols != program->num_symbols) {
        return port_fail(run->err, PORT_E_VALUE, "%lld symbols are given, the program has %lld",
                         (long long)run->options->num_symbols, (long long)program->num_symbols);
    }
    for (size_t k = 0; k < num_fetches; k++) {
        if (fetches[k] < 0 || fetches[k] >= program->num_values) {
            return port_fail(run->err, PORT_E_VALUE, "value %lld is asked for, the program has %lld values", (long long)fetches[k],
                             (long long)program->num_values);
        }
        if (fetch_at != NULL && fetch_at[k] >= 0 && (fetch_at[k] < run->begin || fetch_at[k] >= run->end)) {
            return port_fail(run->err, PORT_E_VALUE, "value %lld is asked for after op %lld, which is not among ops %lld to %lld",
                             (long long)fetches[k], (long long)fetch_at[k], (long long)run->begin, (long long)run->end);
        }
    }
    return PORT_OK;
}

static port_status
run_interval(run_state *run, const port_feed *feeds, size_t num_feeds, const int64_t *fetches, const int64_t *fetch_at,
             size_t num_fetches, port_result *results)
{
    port_status status = PORT_OK;
    for (size_t k = 0; k < num_feeds && status == PORT_OK; k++) {
        status = take_feed(run, &feeds[k]);
    }
    if (status == PORT_OK) {
        status = choose_groups(run, fetches, fetch_at, num_fetches);
    }
    find_last_uses(run);
    for (size_t k = 0; k < num_fetches; k++) {
        int64_t at = fetch_at != NULL && fetch_at[k] >= 0 ? fetch_at[k] : run->end;
        run->last_use[fetches[k]] = at > run->last_use[fetches[k]] ? at : run->last_use[fetches[k]];
    }
    if (status == PORT_OK) {
        status = look_at_expectations(run, run->begin - 1);
    }
    for (int64_t step = 0; step < num_steps(run) && status == PORT_OK; step++) {
        int64_t op = op_of_step(run, step);
        status = run_step(run, op);
        if (status == PORT_OK) {
            status = take_fetches(run, fetches, fetch_at, num_fetches, op, results);
        }
        if (status == PORT_OK) {
            status = look_at_expectations(run, op);
        }
        release_after(run, op);
    }
    return status == PORT_OK ? take_last_fetches(run, fetches, fetch_at, num_fetches, results) : status;
}

port_status
port_program_run(const port_program *program, int64_t begin, int64_t end, const port_feed *feeds, size_t num_feeds,
                 const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches, const port_run_options *options,
                 port_result *results, port_error *err)
{
    port_run_options opt = *options;
    if (opt.num_symbols == 0) {
        opt.num_symbols = program->num_symbols;
        opt.symbols = program->recorded_symbols;
    }
    run_state run = {.program = program, .options = &opt, .begin = begin, .end = end, .err = err, .sizes = {.options = &opt}};
    memset(results, 0, num_fetches * sizeof *results);
    port_status status = check_request(&run, fetches, fetch_at, num_fetches);
    status = status == PORT_OK ? check_expectations(&run) : status;
    if (status != PORT_OK) {
        return status;
    }
    run.check_shapes = program->sym_shapes || program->num_symbols == 0 ||
                       memcmp(opt.symbols, program->recorded_symbols, (size_t)program->num_symbols * sizeof *opt.symbols) == 0;
    run.values = port_calloc((size_t)program->num_values, sizeof *run.values);
    run.last_use = port_alloc((size_t)program->num_values * sizeof *run.last_use);
    if (run.values == NULL || run.last_use == NULL) {
        status = port_fail(err, PORT_E_NOMEM, "no memory for %lld values", (long long)program->num_values);
    }
    for (int64_t v = 0; status == PORT_OK && v < program->num_values; v++) {
        run.last_use[v] = -1;
    }
    if (status == PORT_OK) {
        status = run_interval(&run, feeds, num_feeds, fetches, fetch_at, num_fetches, results);
    }
    for (int64_t v = 0; run.values != NULL && v < program->num_values; v++) {
        drop_value(&run, v);
    }
    port_free(run.values);
    port_free(run.last_use);
    port_free(run.fused);
    for (size_t k = 0; status != PORT_OK && k < num_fetches; k++) {
        port_free_aligned(results[k].memory);
        results[k] = (port_result){0};
    }
    return status;
}
