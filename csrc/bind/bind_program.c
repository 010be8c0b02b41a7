/* bind_program.c -- porting._core.Program: a parsed program and its runs on arrays. */
#include "bind_program.h"

typedef struct {
    PyObject_HEAD
    port_program *program;
} ProgramObject;

static PyObject *
Program_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"json_text", NULL};
    Py_buffer text;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:Program", keywords, &text)) {
        return NULL;
    }
    core_state *state = bind_state_of_type(type);
    port_error err = {.message = ""};
    port_program *program = NULL;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_program_parse(text.buf, (size_t)text.len, &program, &err);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&text);
    if (state == NULL || status != PORT_OK) {
        port_program_free(program);
        return state == NULL ? NULL : bind_raise(state, &err, NULL);
    }
    ProgramObject *self = (ProgramObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        port_program_free(program);
        return NULL;
    }
    self->program = program;
    return (PyObject *)self;
}

static void
Program_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    port_program_free(((ProgramObject *)self)->program);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
Program_op_name(PyObject *self, PyObject *arg)
{
    const port_program *program = ((ProgramObject *)self)->program;
    long long op_idx = PyLong_AsLongLong(arg);
    if (op_idx == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const char *name = port_program_op_name(program, op_idx);
    if (name == NULL) {
        return PyErr_Format(PyExc_IndexError, "op %lld: the program has %lld", op_idx, (long long)port_program_num_ops(program));
    }
    return PyUnicode_FromString(name);
}

static PyObject *
Program_missing(PyObject *self, PyObject *args)
{
    const port_program *program = ((ProgramObject *)self)->program;
    long long begin, end;
    if (!PyArg_ParseTuple(args, "LL", &begin, &end)) {
        return NULL;
    }
    if (begin < 0 || end < begin || end > port_program_num_ops(program)) {
        return PyErr_Format(PyExc_ValueError, "ops %lld to %lld: the program has %lld", begin, end,
                            (long long)port_program_num_ops(program));
    }
    PyObject *list = PyList_New(0);
    for (long long k = begin; list != NULL && k < end; k++) {
        if (port_program_op_known(program, k)) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(port_program_op_name(program, k));
        int there = name != NULL ? PySequence_Contains(list, name) : -1;
        if (there < 0 || (there == 0 && PyList_Append(list, name) < 0)) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    return list;
}

/* ------------------------------------------------------------------ run */

typedef struct run_request {
    PyObject *items; /* list of (number, array), keeps the arrays */
    port_feed *feeds;
    int64_t *fetches, *fetch_at, *symbols, *only;
    Py_ssize_t num_feeds, num_fetches, num_fetch_at, num_symbols, num_only, num_expects;
    PyObject *expected; /* tuple of (value, op, array), keeps the arrays */
    port_expect *expects;
    uint64_t feed_bytes;
} run_request;

static void
request_end(run_request *request)
{
    PyMem_Free(request->feeds);
    PyMem_Free(request->fetches);
    PyMem_Free(request->fetch_at);
    PyMem_Free(request->symbols);
    PyMem_Free(request->only);
    PyMem_Free(request->expects);
    Py_XDECREF(request->expected);
    Py_XDECREF(request->items);
}

static int
read_ints(PyObject *sequence, int64_t **out, Py_ssize_t *count)
{
    PyObject *items = PySequence_Tuple(sequence); /* not the caller's list: __index__ may change that */
    if (items == NULL) {
        return -1;
    }
    *count = PyTuple_GET_SIZE(items);
    *out = PyMem_Calloc((size_t)(*count > 0 ? *count : 1), sizeof **out);
    for (Py_ssize_t k = 0; *out != NULL && k < *count; k++) {
        (*out)[k] = PyLong_AsLongLong(PyTuple_GET_ITEM(items, k));
        if ((*out)[k] == -1 && PyErr_Occurred()) {
            Py_DECREF(items);
            return -1;
        }
    }
    Py_DECREF(items);
    if (*out == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int
read_feeds(core_state *state, PyObject *mapping, run_request *request)
{
    request->items = PyMapping_Items(mapping);
    if (request->items == NULL) {
        return -1;
    }
    request->num_feeds = PyList_GET_SIZE(request->items);
    request->feeds = PyMem_Calloc((size_t)(request->num_feeds > 0 ? request->num_feeds : 1), sizeof *request->feeds);
    if (request->feeds == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t k = 0; k < request->num_feeds; k++) {
        PyObject *pair = PyList_GET_ITEM(request->items, k); /* borrowed */
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "feeds must be a mapping from value numbers to arrays");
            return -1;
        }
        request->feeds[k].value = PyLong_AsLongLong(PyTuple_GET_ITEM(pair, 0));
        if ((request->feeds[k].value == -1 && PyErr_Occurred()) ||
            bind_view_from_array(state, PyTuple_GET_ITEM(pair, 1), &request->feeds[k].view) < 0) {
            return -1;
        }
        request->feed_bytes += (uint64_t)port_view_elems(&request->feeds[k].view) * port_dtype_size(request->feeds[k].view.dtype);
    }
    return 0;
}

static int
read_expects(core_state *state, PyObject *sequence, bool restore, run_request *request)
{
    request->expected = PySequence_Tuple(sequence);
    if (request->expected == NULL) {
        return -1;
    }
    request->num_expects = PyTuple_GET_SIZE(request->expected);
    request->expects = PyMem_Calloc((size_t)(request->num_expects > 0 ? request->num_expects : 1), sizeof *request->expects);
    if (request->expects == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t k = 0; k < request->num_expects; k++) {
        PyObject *item = PyTuple_GET_ITEM(request->expected, k); /* borrowed */
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 3) {
            PyErr_SetString(PyExc_TypeError, "expects must be a sequence of (value, op, array)");
            return -1;
        }
        request->expects[k].restore = restore;
        request->expects[k].value = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 0));
        request->expects[k].at = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 1));
        if (PyErr_Occurred() || bind_view_from_array(state, PyTuple_GET_ITEM(item, 2), &request->expects[k].view) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
with_answers(PyObject *list, const run_request *request)
{
    PyObject *answers = list != NULL ? PyList_New(request->num_expects) : NULL;
    for (Py_ssize_t k = 0; answers != NULL && k < request->num_expects; k++) {
        PyList_SET_ITEM(answers, k, PyBool_FromLong(request->expects[k].same));
    }
    PyObject *both = answers != NULL ? PyTuple_Pack(2, list, answers) : NULL;
    Py_XDECREF(list);
    Py_XDECREF(answers);
    return both;
}

static PyObject *
take_results(core_state *state, port_result *results, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *array = NULL;
        if (list != NULL) {
            array = bind_array_take(state, &results[k].view, results[k].memory); /* also takes it on failure */
        } else {
            port_free_aligned(results[k].memory);
        }
        if (list != NULL && array == NULL) {
            Py_CLEAR(list);
        } else if (list != NULL) {
            PyList_SET_ITEM(list, k, array);
        }
    }
    return list;
}

static PyObject *
execute(ProgramObject *self, core_state *state, long long begin, long long end, const run_request *request,
        const port_run_options *options)
{
    port_error err = {.message = ""};
    port_result *results = PyMem_Calloc((size_t)(request->num_fetches > 0 ? request->num_fetches : 1), sizeof *results);
    if (results == NULL) {
        return PyErr_NoMemory();
    }
    port_status status;
    if (request->feed_bytes >= BIND_RELEASE_GIL_BYTES || (uint64_t)end - (uint64_t)begin > 8) {
        Py_BEGIN_ALLOW_THREADS
        status = port_program_run(self->program, begin, end, request->feeds, (size_t)request->num_feeds, request->fetches,
                                  request->fetch_at, (size_t)request->num_fetches, options, results, &err);
        Py_END_ALLOW_THREADS
    } else {
        status = port_program_run(self->program, begin, end, request->feeds, (size_t)request->num_feeds, request->fetches,
                                  request->fetch_at, (size_t)request->num_fetches, options, results, &err);
    }
    PyObject *list = status == PORT_OK ? take_results(state, results, request->num_fetches) : bind_raise(state, &err, NULL);
    PyMem_Free(results);
    return list;
}

static PyObject *
Program_run(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"begin", "end", "feeds", "fetches", "fetch_at", "provider", "variant", "capability",
                               "num_threads", "mkldnn", "symbols", "check_strides", "operands", "only", "expects", "restore", NULL};
    const char *provider = "auto", *variant = NULL, *operands = NULL, *capability = "default";
    long long begin, end;
    PyObject *feeds, *fetches, *fetch_at = Py_None, *symbols = NULL, *only = Py_None, *expects = Py_None, *list = NULL;
    int num_threads = 1, mkldnn = 1 + (int)port_cpu_has_avx512(), check_strides = 0, restore = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "LLOO|$OszsiO&OpzOOp:run", keywords, &begin, &end, &feeds, &fetches, &fetch_at,
                                     &provider, &variant, &capability, &num_threads, bind_mkldnn, &mkldnn, &symbols, &check_strides,
                                     &operands, &only, &expects, &restore)) {
        return NULL;
    }
    core_state *state = bind_state_of_type(Py_TYPE(self));
    port_run_options options;
    if (state == NULL || bind_run_options(provider, variant, operands, capability, num_threads, mkldnn, &options) < 0) {
        return NULL;
    }
    run_request request = {0};
    if (read_feeds(state, feeds, &request) < 0 ||
        read_ints(fetches, &request.fetches, &request.num_fetches) < 0 ||
        (fetch_at != Py_None && read_ints(fetch_at, &request.fetch_at, &request.num_fetch_at) < 0) ||
        (symbols != NULL && read_ints(symbols, &request.symbols, &request.num_symbols) < 0) ||
        (only != Py_None && read_ints(only, &request.only, &request.num_only) < 0) ||
        (expects != Py_None && read_expects(state, expects, restore != 0, &request) < 0)) {
        goto done;
    }
    if (fetch_at != Py_None && request.num_fetch_at != request.num_fetches) {
        PyErr_Format(PyExc_ValueError, "fetch_at has %zd entries, fetches has %zd", request.num_fetch_at, request.num_fetches);
        goto done;
    }
    options.symbols = request.symbols;
    options.num_symbols = request.num_symbols;
    options.check_strides = check_strides != 0;
    options.only = request.only;
    options.num_only = (size_t)request.num_only;
    options.expects = request.expects;
    options.num_expects = (size_t)request.num_expects;
    list = execute((ProgramObject *)self, state, begin, end, &request, &options);
    if (expects != Py_None) {
        list = with_answers(list, &request);
    }
done:
    request_end(&request);
    return list;
}

static PyObject *
Program_num_ops(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(port_program_num_ops(((ProgramObject *)self)->program));
}

static PyObject *
Program_num_values(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(port_program_num_values(((ProgramObject *)self)->program));
}

static PyObject *
Program_fusions(PyObject *self, void *Py_UNUSED(closure))
{
    const port_program *program = ((ProgramObject *)self)->program;
    int64_t count = port_program_num_fusions(program), ops[PORT_FUSION_MAX_OPS];
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (int64_t k = 0; list != NULL && k < count; k++) {
        int32_t num_ops = port_program_fusion(program, k, ops);
        PyObject *group = PyTuple_New(num_ops);
        for (int32_t i = 0; group != NULL && i < num_ops; i++) {
            PyObject *number = PyLong_FromLongLong(ops[i]);
            if (number == NULL) {
                Py_CLEAR(group);
            } else {
                PyTuple_SET_ITEM(group, i, number);
            }
        }
        if (group == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)k, group);
        }
    }
    return list;
}

static PyMethodDef program_methods[] = {
    {"op_name", Program_op_name, METH_O, "op_name(index)\n--\n\nThe name of an op."},
    {"missing", Program_missing, METH_VARARGS, "missing(begin, end)\n--\n\nNames of ops in [begin, end) without a handler."},
    {"run", (PyCFunction)(void (*)(void))Program_run, METH_VARARGS | METH_KEYWORDS,
     "run(begin, end, feeds, fetches, *, fetch_at=None, provider='auto', variant=None, capability='default', num_threads=1, "
     "mkldnn=True, symbols=(), check_strides=False, operands=None, only=None, expects=None, restore=False)\n--\n\nExecute ops [begin, end), "
     "or those in `only`, and return the fetched values. An op that lacks a kernel of the variant runs its reference. check_strides also "
     "refuses results that do not lie as recorded. With expects, [(value, op, array)] in the order of ops: (fetched values, [whether the "
     "value holds these bits right after the op]); restore goes on with the expected bits where it does not."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef program_getset[] = {
    {"num_ops", Program_num_ops, NULL, "Number of ops.", NULL},
    {"num_values", Program_num_values, NULL, "Number of values.", NULL},
    {"fusions", Program_fusions, NULL, "Ops that run together, as a list of tuples of op numbers (docs/PROGRAM.md).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot program_slots[] = {
    {Py_tp_doc, "Program(json_text)\n--\n\nOne recorded program (docs/PROGRAM.md), parsed. Runs may go in parallel."},
    {Py_tp_new, Program_new},
    {Py_tp_dealloc, Program_dealloc},
    {Py_tp_methods, program_methods},
    {Py_tp_getset, program_getset},
    {0, NULL},
};

static PyType_Spec program_spec = {
    .name = "porting._core.Program",
    .basicsize = sizeof(ProgramObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = program_slots,
};

int
bind_program_init(PyObject *module, core_state *state)
{
    state->program_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &program_spec, NULL);
    if (state->program_type == NULL || PyModule_AddObjectRef(module, "Program", (PyObject *)state->program_type) < 0) {
        return -1;
    }
    return bind_op_init(module, state);
}
