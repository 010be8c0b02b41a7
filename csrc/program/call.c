/* call.c -- one op: bind, run, write back in place; and the way in without a program. */
#include "exec.h"

#define MAX_THREADS 4096 /* the number may come from a file, and libraries are told it */

static bool
can_cast(port_dtype from, port_dtype to)
{
    if (from == PORT_C64 || to == PORT_C64) {
        return to == PORT_C64;
    }
    if (dtype_is_float(from)) {
        return dtype_is_float(to);
    }
    return !dtype_is_integral(from) || to != PORT_BOOL;
}

static bool
are_same_elements(const port_tensor *a, const port_tensor *b)
{
    bool same = a->buffer == b->buffer && a->offset_bytes == b->offset_bytes;
    for (int32_t d = 0; d < a->ndim && same; d++) {
        same = a->shape[d] == 1 || a->strides[d] == b->strides[d];
    }
    return same;
}

/* Refuses to write a tensor of which several elements are one, as torch does. *from, of the same shape and dtype, becomes a copy if it lies in
 * the same memory. */
static port_status
part_from_memory(op_call *call, const port_tensor *to, const port_tensor **from)
{
    for (int32_t d = 0; d < to->ndim && tensor_elems(to) > 0; d++) {
        if (to->shape[d] > 1 && to->strides[d] == 0) {
            return fail_op(call, PORT_E_VALUE, "the tensor to change repeats itself along dimension %d", d);
        }
    }
    port_tensor *apart;
    port_status status = PORT_OK;
    if ((*from)->buffer == to->buffer && (status = tensor_new(call, to->dtype, to->ndim, to->shape, NULL, &apart)) == PORT_OK) {
        port_view copy = tensor_view(apart), view = tensor_view(*from);
        copy_view(call, &copy, &view);
        *from = apart;
    }
    return status;
}

/* Result k goes into the memory of `to`, which is the result from now on. */
static port_status
write_result(op_call *call, size_t k, const port_tensor *to)
{
    const port_tensor *made = &call->out[k], *result;
    if (made->ndim != to->ndim || memcmp(made->shape, to->shape, (size_t)to->ndim * sizeof to->shape[0]) != 0) {
        char a[200], b[200];
        return fail_op(call, PORT_E_SHAPE, "the result has shape %s, the tensor to change has %s",
                       shape_text(made->ndim, made->shape, a, sizeof a), shape_text(to->ndim, to->shape, b, sizeof b));
    }
    if (!can_cast(made->dtype, to->dtype)) {
        return fail_op(call, PORT_E_DTYPE, "a result of %s cannot be written into %s", port_dtype_name(made->dtype),
                       port_dtype_name(to->dtype));
    }
    port_status status = tensor_cast(call, made, to->dtype, &result);
    bool moved = status == PORT_OK && !are_same_elements(to, result);
    status = moved ? part_from_memory(call, to, &result) : status;
    if (status != PORT_OK || (status = buffer_make_writable(to->buffer, call->err)) != PORT_OK) {
        return status;
    }
    if (moved) {
        port_view place = tensor_view(to), from = tensor_view(result);
        copy_view(call, &place, &from);
    }
    to->buffer->refs++;
    buffer_release(call->out[k].buffer);
    call->out[k] = *to;
    return PORT_OK;
}

/* The one mechanism behind every aten.<op>_: the result goes into the first argument. */
static port_status
write_back(op_call *call)
{
    if (call->num_out != 1) {
        return fail_unsupported(call, "it has %zu results, an in-place op has one", call->num_out);
    }
    return write_result(call, 0, arg_tensor(call, 0));
}

static bool
names_argument(const op_row *row, const char *wanted)
{
    const char *cursor = row->signature;
    char name[64];
    while (signature_next_name(&cursor, name, sizeof name)) {
        if (strcmp(name, wanted) == 0) {
            return true;
        }
    }
    return false;
}

/* The one mechanism behind every overload with out=: it runs as the functional one, and its results go into the tensors
 * that the functional one does not know. An `out` of another dtype may change what torch computes in: refused. */
static port_status
run_into_out(op_call *call, const port_arg *args, size_t num_args, const port_named_arg *named, size_t num_named)
{
    port_named_arg known[OP_MAX_ARGS] = {{.name = NULL}};
    const port_tensor *outs[OP_MAX_ARGS];
    size_t num_known = 0, num_outs = 0;
    if (num_named > OP_MAX_ARGS) {
        return fail_unsupported(call, "%zu named arguments", num_named);
    }
    for (size_t k = 0; k < num_named; k++) {
        const port_arg *arg = &named[k].arg;
        if (names_argument(call->row, named[k].name)) {
            known[num_known++] = named[k];
        } else if (arg->kind == PORT_ARG_TENSOR && arg->i >= 0 && arg->i < call->num_values && call->values[arg->i] != NULL) {
            outs[num_outs++] = call->values[arg->i];
        } else {
            return fail_unsupported(call, "argument %.40s is not known here, and no tensor to write into", named[k].name);
        }
    }
    call->in_place = false; /* for its handler */
    port_status status = bind_args(call, args, num_args, known, num_known);
    if (status == PORT_OK) {
        call->written = num_outs == 1 ? outs[0] : NULL;
        status = call->row->run(call);
    }
    if (status == PORT_OK && call->num_out != num_outs) {
        return fail_op(call, PORT_E_VALUE, "it has %zu results and %zu tensors to write them into", call->num_out, num_outs);
    }
    for (size_t k = 0; k < num_outs && status == PORT_OK; k++) {
        status = call->out[k].dtype == outs[k]->dtype
                     ? write_result(call, k, outs[k])
                     : fail_unsupported(call, "a result of %s to be written into %s", port_dtype_name(call->out[k].dtype), port_dtype_name(outs[k]->dtype));
    }
    return status;
}

port_status
op_call_run(op_call *call, const port_arg *args, size_t num_args, const port_named_arg *named, size_t num_named)
{
    if (call->row == NULL) {
        call->row = op_find(call->name, &call->in_place);
    }
    if (call->row == NULL) {
        return port_fail(call->err, PORT_E_UNSUPPORTED, "%s: there is no handler for this op", call->name);
    }
    if (call->in_place && op_writes_out(call->name)) {
        return run_into_out(call, args, num_args, named, num_named);
    }
    port_status status = bind_args(call, args, num_args, named, num_named);
    if (status == PORT_OK && call->in_place && arg_tensor(call, 0) == NULL) {
        status = fail_op(call, PORT_E_VALUE, "the first argument is no tensor: there is nothing to change in place");
    }
    if (status == PORT_OK) {
        call->written = call->in_place ? arg_tensor(call, 0) : NULL;
        status = call->row->run(call);
    }
    if (status == PORT_OK && call->in_place) {
        status = write_back(call);
    }
    return status;
}

static void
release_temps(op_call *call)
{
    while (call->temps != NULL) {
        op_temp *next = call->temps->next;
        buffer_release(call->temps->tensor.buffer);
        port_free(call->temps);
        call->temps = next;
    }
}

void
op_call_end(op_call *call)
{
    for (size_t k = 0; k < call->num_out; k++) {
        buffer_release(call->out[k].buffer);
    }
    port_free(call->out);
    call->out = NULL;
    call->num_out = call->capacity_out = 0;
    release_temps(call);
}

port_status
options_check(const port_run_options *options, port_error *err)
{
    if (options->provider == NULL) {
        return port_fail(err, PORT_E_VALUE, "no provider was given");
    }
    if (options->profile.num_threads < 1 || options->profile.num_threads > MAX_THREADS) {
        return port_fail(err, PORT_E_VALUE, "num_threads is %d; expected at least 1 and at most %d", options->profile.num_threads, MAX_THREADS);
    }
    if (options->variant == NULL) {
        return PORT_OK;
    }
    for (const port_kernel_row *const *family = port_kernel_families(); *family != NULL; family++) {
        for (const port_kernel_row *row = *family; row->op != NULL; row++) {
            if (strcmp(row->variant, options->variant) == 0) {
                return PORT_OK;
            }
        }
    }
    return port_fail(err, PORT_E_VALUE, "no kernel has a variant %.100s", options->variant);
}

port_status
tensor_from_view(const port_view *view, port_tensor *tensor, port_error *err)
{
    int64_t elems;
    uint64_t bytes;
    if (view->ndim < 0 || view->ndim > PORT_MAX_NDIM || !port_shape_bytes(view->dtype, view->ndim, view->shape, &elems, &bytes)) {
        return port_fail(err, PORT_E_VALUE, "a tensor that was given has no possible shape or dtype");
    }
    *tensor = (port_tensor){.dtype = view->dtype, .ndim = view->ndim};
    memcpy(tensor->shape, view->shape, sizeof tensor->shape);
    memcpy(tensor->strides, view->strides, sizeof tensor->strides);
    uint64_t extent = 0;
    bool kept = elems > 0 && layout_extent(view->dtype, view->ndim, view->shape, view->strides, &extent) &&
                layout_is_affordable(extent, bytes);
    for (int32_t d = 0; d < view->ndim; d++) {
        tensor->strides[d] = view->shape[d] == 1 && view->strides[d] < 0 ? 1 : view->strides[d];
    }
    port_status status = PORT_OK;
    if (kept && (uintptr_t)view->data % port_dtype_size(view->dtype) == 0) {
        tensor->buffer = port_calloc(1, sizeof *tensor->buffer);
        if (tensor->buffer == NULL) {
            return port_fail(err, PORT_E_NOMEM, "no memory for a tensor");
        }
        *tensor->buffer = (port_buffer){.data = view->data, .size_bytes = extent, .refs = 1};
    } else if (kept) {
        status = buffer_new(extent, 0, extent > bytes, &tensor->buffer, err);
    } else {
        dense_strides(view->ndim, view->shape, tensor->strides);
        status = buffer_new(bytes, 0, false, &tensor->buffer, err);
    }
    if (status == PORT_OK && tensor->buffer->memory != NULL) {
        port_view to = tensor_view(tensor);
        copy_view(NULL, &to, view);
    }
    if (status == PORT_OK && !tensor_in_bounds(tensor)) {
        buffer_release(tensor->buffer);
        tensor->buffer = NULL;
        return port_fail(err, PORT_E_VALUE, "a tensor that was given has more elements or larger strides than memory has");
    }
    return status;
}

port_status
result_from_tensor(port_tensor *tensor, bool keep_strides, port_result *result, port_error *err)
{
    int64_t elems;
    uint64_t bytes;
    if (!port_shape_bytes(tensor->dtype, tensor->ndim, tensor->shape, &elems, &bytes)) {
        return port_fail(err, PORT_E_SHAPE, "a result is too large to be copied out");
    }
    port_buffer *buffer = tensor->buffer;
    bool fits = keep_strides ? tensor_is_dense(tensor) : tensor_is_contiguous(tensor);
    if (buffer->refs == 1 && buffer->memory != NULL && buffer->size_bytes == bytes && fits) {
        result->view = tensor_is_contiguous(tensor) ? port_view_contiguous(buffer->data, tensor->dtype, tensor->ndim, tensor->shape)
                                                    : tensor_view(tensor);
        result->memory = buffer->memory;
        buffer->memory = NULL; /* as if it were borrowed: nobody else holds it */
        return PORT_OK;
    }
    void *memory = bytes < (uint64_t)1 << 40 ? port_alloc_aligned((size_t)bytes) : NULL;
    if (memory == NULL) {
        return port_fail(err, PORT_E_NOMEM, "no memory for a result of %llu bytes", (unsigned long long)bytes);
    }
    port_view view = tensor_view(tensor);
    result->memory = memory;
    result->view = port_view_contiguous(memory, tensor->dtype, tensor->ndim, tensor->shape);
    copy_view(NULL, &result->view, &view);
    return PORT_OK;
}

void
port_results_free(port_result *results, size_t num_results)
{
    for (size_t k = 0; results != NULL && k < num_results; k++) {
        port_free_aligned(results[k].memory);
    }
    port_free(results);
}

static port_status
take_results(op_call *call, port_result **results, size_t *num_results)
{
    if (call->options->variant != NULL && call->kernel_ran && !call->variant_ran) {
        return fail_unsupported(call, "no kernel that it uses has a variant %.100s", call->options->variant);
    }
    release_temps(call); /* so that a result has its memory to itself, and need not be copied */
    port_result *made = port_calloc(call->num_out, sizeof *made);
    port_status status = made != NULL ? PORT_OK : port_fail(call->err, PORT_E_NOMEM, "no memory for results");
    for (size_t k = 0; status == PORT_OK && k < call->num_out; k++) {
        status = result_from_tensor(&call->out[k], true, &made[k], call->err);
    }
    if (status != PORT_OK) {
        port_results_free(made, call->num_out);
        return status;
    }
    *results = made;
    *num_results = call->num_out;
    return PORT_OK;
}

port_status
port_op_run(const char *name, const port_op_inputs *inputs, const port_run_options *options, port_result **results,
            size_t *num_results, port_error *err)
{
    op_call call = {.name = name, .options = options, .err = err};
    port_status status = options_check(options, err);
    port_tensor *tensors = port_calloc(inputs->num_tensors, sizeof *tensors);
    port_tensor **values = port_calloc(inputs->num_tensors, sizeof *values);
    if (status == PORT_OK && (tensors == NULL || values == NULL)) {
        status = port_fail(err, PORT_E_NOMEM, "no memory for %zu tensors", inputs->num_tensors);
    }
    for (size_t k = 0; status == PORT_OK && k < inputs->num_tensors; k++) {
        status = tensor_from_view(&inputs->tensors[k], &tensors[k], err);
        values[k] = status == PORT_OK ? &tensors[k] : NULL;
    }
    call.values = values;
    call.num_values = (int64_t)inputs->num_tensors;
    if (status == PORT_OK) {
        status = op_call_run(&call, inputs->args, inputs->num_args, inputs->named, inputs->num_named);
    }
    if (status == PORT_OK) {
        status = take_results(&call, results, num_results);
    }
    op_call_end(&call);
    for (size_t k = 0; tensors != NULL && k < inputs->num_tensors; k++) {
        buffer_release(tensors[k].buffer);
    }
    port_free(values);
    port_free(tensors);
    return status;
}
