/* bind_writer.c -- porting._core.Writer.
 *
 * A small tensor is stored with the GIL held and without waiting; if that would block, or if there is much to copy and
 * hash, the GIL is released around the call. */
#include "bind_store.h"

#include "../store/structure.h"
#include "../compare/summary.h"

#define NOGIL_BYTES 65536
#define STACK_IDS 64

typedef struct writer_object {
    PyObject_HEAD
    port_writer *writer;
    PyObject *path; /* str */
} writer_object;

static core_state *
state_of(PyObject *self)
{
    return bind_state_of_type(Py_TYPE(self));
}

static PyObject *
raise_error(PyObject *self, const port_error *err)
{
    return bind_raise(state_of(self), err, port_writer_path(((writer_object *)self)->writer));
}

static bool
check_count(const char *name, Py_ssize_t given, Py_ssize_t expected)
{
    if (given != expected) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", name, expected, given);
        return false;
    }
    return true;
}

/* Borrowed UTF-8 of a str. */
static const char *
text_of(PyObject *obj, const char *what, Py_ssize_t *size)
{
    if (!PyUnicode_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s: expected str, got %.100s", what, Py_TYPE(obj)->tp_name);
        return NULL;
    }
    return PyUnicode_AsUTF8AndSize(obj, size);
}

static bool
u32_of(PyObject *obj, const char *what, uint32_t *out)
{
    unsigned long value = PyLong_AsUnsignedLong(obj);
    if (PyErr_Occurred() != NULL || value > UINT32_MAX) {
        if (PyErr_Occurred() == NULL || PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Format(PyExc_ValueError, "%s: expected an integer from 0 to 2^32 - 1, got %R", what, obj);
        }
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* An O& converter: the K format would cut a number that does not fit. */
static int
read_u64(PyObject *obj, void *out)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(obj);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return 0;
    }
    *(uint64_t *)out = value;
    return 1;
}

static PyObject *
writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "budget_bytes", "segment_bytes", "rank", NULL};
    PyObject *path_argument;
    uint64_t budget = 0, segment = 0, rank = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&O&O&:Writer", names, &path_argument, read_u64, &budget, read_u64, &segment,
                                     read_u64, &rank)) {
        return NULL;
    }
    PyObject *path = bind_path(path_argument);
    writer_object *self = path != NULL ? (writer_object *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        Py_XDECREF(path);
        return NULL;
    }
    port_writer_options options = {.budget_bytes = budget, .segment_bytes = segment,
                                   .rank = rank < UINT32_MAX ? (uint32_t)rank : UINT32_MAX};
    port_error err;
    port_status status = PORT_OK;
    self->path = PyUnicode_DecodeFSDefault(PyBytes_AS_STRING(path));
    if (self->path != NULL) {
        Py_BEGIN_ALLOW_THREADS
        status = port_writer_create(PyBytes_AS_STRING(path), &options, &self->writer, &err);
        Py_END_ALLOW_THREADS
        if (status != PORT_OK) {
            bind_raise(bind_state_of_type(type), &err, PyBytes_AS_STRING(path));
        }
    }
    Py_DECREF(path);
    if (self->writer == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
writer_dealloc(PyObject *obj)
{
    writer_object *self = (writer_object *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    port_writer *writer = self->writer;
    self->writer = NULL;
    Py_BEGIN_ALLOW_THREADS
    port_writer_free(writer);
    Py_END_ALLOW_THREADS
    Py_XDECREF(self->path);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* Stores a view; -1 with an exception. */
static int
put_text(writer_object *self, const port_view *view, const char *key, size_t key_bytes, uint32_t *id)
{
    port_error err;
    port_status status = PORT_WOULD_BLOCK;
    int64_t elems = port_view_elems(view);
    if (elems >= 0 && elems <= NOGIL_BYTES / 8) {
        status = port_writer_put(self->writer, view, key, key_bytes, PORT_NOWAIT, id, &err);
    }
    if (status == PORT_WOULD_BLOCK) {
        Py_BEGIN_ALLOW_THREADS
        status = port_writer_put(self->writer, view, key, key_bytes, 0, id, &err);
        Py_END_ALLOW_THREADS
    }
    if (status != PORT_OK) {
        raise_error((PyObject *)self, &err);
        return -1;
    }
    return 0;
}

static int
put_view(writer_object *self, const port_view *view, PyObject *key, uint32_t *id)
{
    Py_ssize_t key_bytes;
    const char *text = text_of(key, "key", &key_bytes);
    return text != NULL ? put_text(self, view, text, (size_t)key_bytes, id) : -1;
}

static PyObject *
writer_put(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    port_view view;
    uint32_t id;
    if (!check_count("put", count, 2) || bind_view_from_array(state_of(self), args[0], &view) < 0 ||
        put_view((writer_object *)self, &view, args[1], &id) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(id);
}

/* Reads a sequence of ndim integers. */
static int
dims_of(PyObject *obj, const char *what, int64_t *out, Py_ssize_t expected)
{
    PyObject *items = PySequence_Tuple(obj); /* not the caller's list: __index__ may change that */
    if (items == NULL) {
        return -1;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(items);
    if (n > PORT_MAX_NDIM || (expected >= 0 && n != expected)) {
        PyErr_Format(PyExc_ValueError, "%s has %zd entries; expected %zd, and at most %d", what, n, expected >= 0 ? expected : n,
                     PORT_MAX_NDIM);
        Py_DECREF(items);
        return -1;
    }
    for (Py_ssize_t d = 0; d < n; d++) {
        out[d] = PyLong_AsLongLong(PyTuple_GET_ITEM(items, d));
        if (out[d] == -1 && PyErr_Occurred() != NULL) {
            Py_DECREF(items);
            return -1;
        }
    }
    Py_DECREF(items);
    return (int)n;
}

/* A view of memory from (pointer, dtype, shape, strides in elements); -1 with an exception. */
static int
view_of_memory(PyObject *const *parts, port_view *view)
{
    *view = (port_view){0};
    unsigned long long pointer = PyLong_AsUnsignedLongLong(parts[0]);
    uint32_t dtype;
    if (PyErr_Occurred() != NULL || !u32_of(parts[1], "dtype", &dtype)) {
        return -1;
    }
    int ndim = dims_of(parts[2], "shape", view->shape, -1);
    if (ndim < 0 || dims_of(parts[3], "strides", view->strides, ndim) < 0) {
        return -1;
    }
    view->data = (void *)(uintptr_t)pointer;
    view->dtype = (port_dtype)dtype;
    view->ndim = ndim;
    int64_t elems;
    uint64_t bytes;
    if (dtype >= PORT_NUM_DTYPES || !port_shape_bytes(view->dtype, ndim, view->shape, &elems, &bytes)) {
        PyErr_Format(PyExc_ValueError, "dtype %R and shape %R are not those of a tensor", parts[1], parts[2]);
        return -1;
    }
    return 0;
}

static PyObject *
writer_put_pointer(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    port_view view;
    uint32_t id;
    if (!check_count("put_pointer", count, 5) || view_of_memory(args, &view) < 0 ||
        put_view((writer_object *)self, &view, args[4], &id) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(id);
}

static PyObject *
writer_put_summary(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    port_view view;
    uint32_t id;
    port_summary summary;
    port_error err;
    port_status status;
    if (!check_count("put_summary", count, 5) || view_of_memory(args, &view) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = port_summarize(&view, &summary, &err);
    Py_END_ALLOW_THREADS
    if (status != PORT_OK) {
        return raise_error(self, &err);
    }
    unsigned char bytes[SUMMARY_MAX_BYTES];
    int64_t size = (int64_t)port_summary_write(&view, &summary, bytes);
    port_view stored = port_view_contiguous(bytes, PORT_U8, 1, &size);
    return put_view((writer_object *)self, &stored, args[4], &id) < 0 ? NULL : PyLong_FromUnsignedLong(id);
}

/* Repeats a call without the GIL if it would have to wait. */
#define WITHOUT_WAITING(status, call_with_flags)      \
    do {                                              \
        unsigned flags = PORT_NOWAIT;                 \
        (status) = (call_with_flags);                 \
        if ((status) == PORT_WOULD_BLOCK) {           \
            flags = 0;                                \
            Py_BEGIN_ALLOW_THREADS                    \
            (status) = (call_with_flags);             \
            Py_END_ALLOW_THREADS                      \
        }                                             \
    } while (0)

static PyObject *
none_or_raise(PyObject *self, port_status status, const port_error *err)
{
    if (status != PORT_OK) {
        return raise_error(self, err);
    }
    Py_RETURN_NONE;
}

static PyObject *
writer_name(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t size;
    uint32_t id;
    port_error err;
    port_status status;
    if (!check_count("name", count, 2) || !u32_of(args[1], "tensor_id", &id)) {
        return NULL;
    }
    const char *name = text_of(args[0], "name", &size);
    if (name == NULL) {
        return NULL;
    }
    port_writer *writer = ((writer_object *)self)->writer;
    WITHOUT_WAITING(status, port_writer_name(writer, name, (size_t)size, id, flags, &err));
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_add(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!check_count("add", count, 2)) {
        return NULL;
    }
    PyObject *put_args[2] = {args[1], args[0]};
    PyObject *id = writer_put(self, put_args, 2);
    if (id == NULL) {
        return NULL;
    }
    PyObject *name_args[2] = {args[0], id};
    PyObject *named = writer_name(self, name_args, 2);
    if (named == NULL) {
        Py_DECREF(id);
        return NULL;
    }
    Py_DECREF(named);
    return id;
}

static PyObject *
send_call(PyObject *self, port_call_record *record, PyObject *ids)
{
    PyObject *items = PySequence_Tuple(ids);
    if (items == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(items);
    uint32_t few[STACK_IDS];
    uint32_t *numbers = n <= STACK_IDS ? few : port_alloc((size_t)n * sizeof *numbers);
    bool ok = numbers != NULL && (size_t)n < UINT32_MAX;
    if (!ok) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; ok && i < n; i++) {
        ok = u32_of(PyTuple_GET_ITEM(items, i), "tensor_ids", &numbers[i]);
    }
    PyObject *result = NULL;
    if (ok) {
        port_error err;
        port_status status;
        record->count = (uint32_t)n;
        record->tensor_ids = numbers;
        port_writer *writer = ((writer_object *)self)->writer;
        WITHOUT_WAITING(status, port_writer_call(writer, record, flags, &err));
        result = none_or_raise(self, status, &err);
    }
    if (numbers != few) {
        port_free(numbers);
    }
    Py_DECREF(items);
    return result;
}

/* The first five arguments of call and call_tensors. */
static bool
record_of(PyObject *const *args, port_call_record *record)
{
    Py_ssize_t module_bytes, structure_bytes;
    if (!u32_of(args[1], "call", &record->call) || !u32_of(args[2], "step", &record->step) ||
        !u32_of(args[3], "phase", &record->phase)) {
        return false;
    }
    record->module = text_of(args[0], "module", &module_bytes);
    record->structure = record->module != NULL ? text_of(args[4], "structure", &structure_bytes) : NULL;
    if (record->structure == NULL) {
        return false;
    }
    record->module_bytes = (size_t)module_bytes;
    record->structure_bytes = (size_t)structure_bytes;
    return true;
}

static PyObject *
writer_call(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    port_call_record record = {0};
    if (!check_count("call", count, 6) || !record_of(args, &record)) {
        return NULL;
    }
    return send_call(self, &record, args[5]);
}

/* One tensor of call_tensors: an id is taken as it is, memory is stored. A new reference to the id; NULL with an exception. */
static PyObject *
store_item(writer_object *self, const port_call_record *record, PyObject *path, PyObject *item, port_text *key)
{
    if (!PyTuple_Check(item)) {
        return Py_NewRef(item);
    }
    port_view view;
    uint32_t id;
    Py_ssize_t path_bytes;
    const char *leaf = text_of(path, "paths", &path_bytes);
    if (PyTuple_GET_SIZE(item) != 4) {
        PyErr_SetString(PyExc_ValueError, "a tensor is an id or (pointer, dtype, shape, strides)");
        return NULL;
    }
    if (leaf == NULL || view_of_memory(&PyTuple_GET_ITEM(item, 0), &view) < 0) {
        return NULL;
    }
    key->size = 0;
    port_full_name(key, record->module, record->module_bytes, record->call, record->phase, leaf, (size_t)path_bytes);
    if (key->failed) {
        return PyErr_NoMemory();
    }
    return put_text(self, &view, key->data, key->size, &id) == 0 ? PyLong_FromUnsignedLong(id) : NULL;
}

static PyObject *
writer_call_tensors(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    port_call_record record = {0};
    if (!check_count("call_tensors", count, 7) || !record_of(args, &record)) {
        return NULL;
    }
    /* Tuples of our own: while the GIL is released, somebody may change a list. */
    PyObject *paths = PySequence_Tuple(args[5]);
    PyObject *items = paths != NULL ? PySequence_Tuple(args[6]) : NULL;
    Py_ssize_t n = items != NULL ? PyTuple_GET_SIZE(items) : 0;
    PyObject *ids = NULL;
    if (items != NULL && PyTuple_GET_SIZE(paths) != n) {
        PyErr_Format(PyExc_ValueError, "%zd paths for %zd tensors", PyTuple_GET_SIZE(paths), n);
    } else if (items != NULL) {
        ids = PyList_New(n);
    }
    port_text key = {0};
    for (Py_ssize_t i = 0; ids != NULL && i < n; i++) {
        PyObject *id = store_item((writer_object *)self, &record, PyTuple_GET_ITEM(paths, i), PyTuple_GET_ITEM(items, i), &key);
        if (id == NULL) {
            Py_CLEAR(ids);
        } else {
            PyList_SET_ITEM(ids, i, id);
        }
    }
    port_text_free(&key);
    Py_XDECREF(paths);
    Py_XDECREF(items);
    PyObject *sent = ids != NULL ? send_call(self, &record, ids) : NULL;
    if (sent == NULL) {
        Py_CLEAR(ids);
    }
    Py_XDECREF(sent);
    return ids;
}

static PyObject *
writer_alias(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t alias_bytes, module_bytes;
    port_error err;
    port_status status;
    if (!check_count("alias", count, 2)) {
        return NULL;
    }
    const char *alias = text_of(args[0], "alias", &alias_bytes);
    const char *module = alias != NULL ? text_of(args[1], "module", &module_bytes) : NULL;
    if (module == NULL) {
        return NULL;
    }
    port_writer *writer = ((writer_object *)self)->writer;
    WITHOUT_WAITING(status,
                    port_writer_alias(writer, alias, (size_t)alias_bytes, module, (size_t)module_bytes, flags, &err));
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_note(PyObject *self, PyObject *argument)
{
    Py_ssize_t size;
    port_error err;
    port_status status;
    const char *text = text_of(argument, "note", &size);
    if (text == NULL) {
        return NULL;
    }
    port_writer *writer = ((writer_object *)self)->writer;
    WITHOUT_WAITING(status, port_writer_note(writer, text, (size_t)size, flags, &err));
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_set_manifest(PyObject *self, PyObject *argument)
{
    Py_ssize_t size;
    port_error err;
    port_status status;
    const char *text = text_of(argument, "manifest", &size);
    if (text == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = port_writer_set_manifest(((writer_object *)self)->writer, text, (size_t)size, &err);
    Py_END_ALLOW_THREADS
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_flush(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    port_error err;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_writer_flush(((writer_object *)self)->writer, &err);
    Py_END_ALLOW_THREADS
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_close(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"manifest", NULL};
    PyObject *manifest = Py_None;
    Py_ssize_t size = 0;
    const char *text = NULL;
    port_error err;
    port_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:close", names, &manifest)) {
        return NULL;
    }
    if (manifest != Py_None) {
        text = text_of(manifest, "manifest", &size);
        if (text == NULL) {
            return NULL;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    status = port_writer_finish(((writer_object *)self)->writer, text, (size_t)size, &err);
    Py_END_ALLOW_THREADS
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    port_error err;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_writer_abort(((writer_object *)self)->writer, &err);
    Py_END_ALLOW_THREADS
    return none_or_raise(self, status, &err);
}

static PyObject *
writer_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(port_writer_closed(((writer_object *)self)->writer));
}

static PyObject *
writer_get_path(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((writer_object *)self)->path);
}

static PyObject *
writer_get_stats(PyObject *self, void *Py_UNUSED(closure))
{
    port_writer_stats stats;
    Py_BEGIN_ALLOW_THREADS
    stats = port_writer_get_stats(((writer_object *)self)->writer);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{sKsKsKsKsK}", "num_tensors", (unsigned long long)stats.num_tensors, "num_deduplicated",
                         (unsigned long long)stats.num_deduplicated, "bytes_stored", (unsigned long long)stats.bytes_stored,
                         "bytes_seen", (unsigned long long)stats.bytes_seen, "peak_waiting_bytes",
                         (unsigned long long)stats.peak_waiting_bytes);
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef writer_methods[] = {
    {"put", FASTCALL(writer_put), METH_FASTCALL,
     "put($self, array, key, /)\n--\n\nStore the tensor (or find an equal one). Returns its id."},
    {"put_pointer", FASTCALL(writer_put_pointer), METH_FASTCALL,
     "put_pointer($self, pointer, dtype, shape, strides, key, /)\n--\n\nThe same for memory that the caller keeps alive during "
     "the call; strides in elements."},
    {"put_summary", FASTCALL(writer_put_summary), METH_FASTCALL,
     "put_summary($self, pointer, dtype, shape, strides, key, /)\n--\n\nStore statistics, hash and sketch in the tensor's place "
     "(docs/FORMAT.md, section 10)."},
    {"add", FASTCALL(writer_add), METH_FASTCALL, "add($self, name, array, /)\n--\n\nput and name."},
    {"name", FASTCALL(writer_name), METH_FASTCALL, "name($self, name, tensor_id, /)\n--\n\nBind a full name to a tensor."},
    {"call", FASTCALL(writer_call), METH_FASTCALL,
     "call($self, module, call, step, phase, structure, tensor_ids, /)\n--\n\nRecord one side of a module's call."},
    {"call_tensors", FASTCALL(writer_call_tensors), METH_FASTCALL,
     "call_tensors($self, module, call, step, phase, structure, paths, tensors, /)\n--\n\nStore the tensors that are "
     "given as (pointer, dtype, shape, strides) under the call's full names, take the ids as they are, and record the call. "
     "Returns all ids."},
    {"alias", FASTCALL(writer_alias), METH_FASTCALL, "alias($self, alias, module, /)\n--\n\nA second path of a shared module."},
    {"note", writer_note, METH_O, "note($self, text, /)\n--\n\nRecord a note: the text of a JSON object."},
    {"set_manifest", writer_set_manifest, METH_O,
     "set_manifest($self, text, /)\n--\n\nReplace MANIFEST.json atomically, now. 'finished' becomes true at close."},
    {"flush", writer_flush, METH_NOARGS,
     "flush($self)\n--\n\nWait until all put so far is in the files; raises what the thread met."},
    {"close", FASTCALL(writer_close), METH_VARARGS | METH_KEYWORDS,
     "close($self, manifest=None)\n--\n\nSeal, index, END, manifest. May be called twice."},
    {"abort", writer_abort, METH_NOARGS,
     "abort($self)\n--\n\nStop; what is committed stays readable, the capture stays unfinished."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef writer_getset[] = {
    {"closed", writer_get_closed, NULL, "True after close or abort.", NULL},
    {"path", writer_get_path, NULL, "The capture directory.", NULL},
    {"stats", writer_get_stats, NULL, "Counts since the start.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_getset, writer_getset},
    {Py_tp_doc, "Writer(path, budget_bytes=0, segment_bytes=0, rank=0)\n--\n\nThe C store. All methods are safe to call from any "
                "thread."},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "porting._core.Writer",
    .basicsize = sizeof(writer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};

int
bind_writer_init(PyObject *module, core_state *state)
{
    state->writer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &writer_spec, NULL);
    return state->writer_type != NULL ? PyModule_AddType(module, state->writer_type) : -1;
}
