/* bind_reader.c -- porting._core.Reader. Arrays borrow the mapped file and keep the reader alive. */
#include "bind_store.h"

typedef struct reader_object {
    PyObject_HEAD
    port_reader *reader;
} reader_object;

static PyObject *
reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", NULL};
    PyObject *path_argument;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Reader", names, &path_argument)) {
        return NULL;
    }
    PyObject *path = bind_path(path_argument);
    reader_object *self = path != NULL ? (reader_object *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        Py_XDECREF(path);
        return NULL;
    }
    port_error err;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_reader_open(PyBytes_AS_STRING(path), &self->reader, &err);
    Py_END_ALLOW_THREADS
    if (status != PORT_OK) {
        bind_raise(bind_state_of_type(type), &err, PyBytes_AS_STRING(path));
        Py_CLEAR(self);
    }
    Py_DECREF(path);
    return (PyObject *)self;
}

static void
reader_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    port_reader_free(((reader_object *)self)->reader);
    type->tp_free(self);
    Py_DECREF(type);
}

static port_reader *
reader_of(PyObject *self)
{
    return ((reader_object *)self)->reader;
}

/* Reads a tensor id; false with an exception. */
static bool
id_of(PyObject *self, PyObject *argument, uint32_t *id)
{
    Py_ssize_t value = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (value == -1 && PyErr_Occurred() != NULL) {
        return false;
    }
    size_t count = port_reader_num_tensors(reader_of(self));
    if (value < 0 || (size_t)value >= count) {
        PyErr_Format(PyExc_IndexError, "there is no tensor %zd; the capture has %zu", value, count);
        return false;
    }
    *id = (uint32_t)value;
    return true;
}

static PyObject *
reader_tensor(PyObject *self, PyObject *argument)
{
    uint32_t id;
    if (!id_of(self, argument, &id)) {
        return NULL;
    }
    port_view view = port_reader_tensor(reader_of(self), id);
    return bind_array_over(bind_state_of_type(Py_TYPE(self)), &view, self);
}

static PyObject *
dims_tuple(const int64_t *dims, int32_t ndim)
{
    PyObject *tuple = PyTuple_New(ndim);
    for (int32_t d = 0; tuple != NULL && d < ndim; d++) {
        PyObject *item = PyLong_FromLongLong(dims[d]);
        if (item == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, d, item);
    }
    return tuple;
}

static PyObject *
reader_info(PyObject *self, PyObject *argument)
{
    uint32_t id;
    if (!id_of(self, argument, &id)) {
        return NULL;
    }
    port_tensor_info info = port_reader_info(reader_of(self), id);
    PyObject *shape = dims_tuple(info.shape, info.ndim);
    PyObject *strides = shape != NULL ? dims_tuple(info.strides, info.ndim) : NULL;
    PyObject *hash = strides != NULL ? bind_hash_text(info.hash) : NULL;
    PyObject *result = hash != NULL ? Py_BuildValue("sOOKOIKs", port_dtype_name(info.dtype), shape, strides,
                                                    (unsigned long long)info.bytes, hash, (unsigned int)info.segment,
                                                    (unsigned long long)info.offset, info.key)
                                    : NULL;
    Py_XDECREF(shape);
    Py_XDECREF(strides);
    Py_XDECREF(hash);
    return result;
}

/* The string with this id as a shared object; `cache` is a list of Nones at first. Borrowed. */
static PyObject *
shared_string(const port_reader *reader, PyObject *cache, uint32_t id)
{
    PyObject *string = PyList_GET_ITEM(cache, id);
    if (string == NULL) {
        size_t size;
        const char *text = port_reader_string(reader, id, &size);
        string = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, NULL);
        if (string != NULL) {
            PyList_SET_ITEM(cache, id, string);
        }
    }
    return string;
}

static PyObject *
call_tuple(const port_reader *reader, PyObject *cache, size_t i)
{
    port_call_info call = port_reader_call(reader, i);
    PyObject *module = shared_string(reader, cache, call.module);
    PyObject *structure = module != NULL ? shared_string(reader, cache, call.structure) : NULL;
    PyObject *ids = structure != NULL ? PyTuple_New((Py_ssize_t)call.count) : NULL;
    for (uint32_t k = 0; ids != NULL && k < call.count; k++) {
        PyObject *id = PyLong_FromUnsignedLong(call.tensor_ids[k]);
        if (id == NULL) {
            Py_CLEAR(ids);
            break;
        }
        PyTuple_SET_ITEM(ids, k, id);
    }
    if (ids == NULL) {
        return NULL;
    }
    return Py_BuildValue("OIIION", module, (unsigned int)call.call, (unsigned int)call.step, (unsigned int)call.phase, structure,
                         ids);
}

static PyObject *
reader_calls(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const port_reader *reader = reader_of(self);
    size_t count = port_reader_num_calls(reader);
    PyObject *cache = PyList_New((Py_ssize_t)port_reader_num_strings(reader)); /* slots are NULL until used */
    PyObject *list = cache != NULL ? PyList_New((Py_ssize_t)count) : NULL;
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *call = call_tuple(reader, cache, i);
        if (call == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, call);
    }
    Py_XDECREF(cache);
    return list;
}

/* One list of all that the reader has of a kind; `item` makes the i-th, NULL with an exception set if it cannot. */
static PyObject *
list_of(const port_reader *reader, size_t count, PyObject *(*item)(const port_reader *, size_t i))
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *made = item(reader, i);
        if (made == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, made);
    }
    return list;
}

static PyObject *
name_item(const port_reader *reader, size_t i)
{
    const char *name;
    uint32_t id;
    port_reader_bound(reader, i, &name, &id);
    return Py_BuildValue("sI", name, (unsigned int)id);
}

static PyObject *
alias_item(const port_reader *reader, size_t i)
{
    const char *alias, *module;
    port_reader_alias(reader, i, &alias, &module);
    return Py_BuildValue("ss", alias, module);
}

static PyObject *
note_item(const port_reader *reader, size_t i)
{
    return PyUnicode_FromString(port_reader_note(reader, i));
}

static PyObject *
full_name_item(const port_reader *reader, size_t i)
{
    return PyUnicode_FromString(port_reader_name(reader, i));
}

static PyObject *
reader_names(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return list_of(reader_of(self), port_reader_num_bound(reader_of(self)), name_item);
}

static PyObject *
reader_aliases(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return list_of(reader_of(self), port_reader_num_aliases(reader_of(self)), alias_item);
}

static PyObject *
reader_notes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return list_of(reader_of(self), port_reader_num_notes(reader_of(self)), note_item);
}

static PyObject *
reader_find(PyObject *self, PyObject *argument)
{
    Py_ssize_t size;
    const char *name = PyUnicode_AsUTF8AndSize(argument, &size);
    if (name == NULL) {
        return NULL;
    }
    if (strlen(name) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError, "a name cannot hold a NUL character");
        return NULL;
    }
    core_state *state = bind_state_of_type(Py_TYPE(self));
    port_view view;
    port_error err;
    if (port_reader_find(reader_of(self), name, &view, &err) != PORT_OK) {
        return bind_raise(state, &err, NULL);
    }
    return bind_array_over(state, &view, self);
}

static PyObject *
reader_full_names(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return list_of(reader_of(self), port_reader_num_names(reader_of(self)), full_name_item);
}

static PyObject *
reader_get_finished(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(port_reader_finished(reader_of(self)));
}

static PyObject *
reader_get_recovery(PyObject *self, void *Py_UNUSED(closure))
{
    if (port_reader_finished(reader_of(self))) {
        Py_RETURN_NONE;
    }
    port_recovery recovery = port_reader_recovery(reader_of(self));
    PyObject *reason = PyUnicode_DecodeUTF8(recovery.reason, (Py_ssize_t)strlen(recovery.reason), "replace");
    if (reason == NULL) {
        return NULL;
    }
    return Py_BuildValue("{sKsKsN}", "records", (unsigned long long)recovery.records, "dropped_bytes",
                         (unsigned long long)recovery.dropped_bytes, "reason", reason);
}

static PyObject *
reader_get_num_tensors(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(port_reader_num_tensors(reader_of(self)));
}

static PyMethodDef reader_methods[] = {
    {"tensor", reader_tensor, METH_O,
     "tensor($self, tensor_id, /)\n--\n\nRead-only view of the mapped file; keeps it mapped."},
    {"info", reader_info, METH_O,
     "info($self, tensor_id, /)\n--\n\n(dtype name, shape, recorded strides, bytes, hash, segment, offset, key)"},
    {"calls", reader_calls, METH_NOARGS,
     "calls($self)\n--\n\n[(module, call, step, phase, structure JSON, tensor ids)], in order of writing."},
    {"names", reader_names, METH_NOARGS, "names($self)\n--\n\n[(name, tensor id)] of the NAME records."},
    {"aliases", reader_aliases, METH_NOARGS, "aliases($self)\n--\n\n[(alias, module)]."},
    {"notes", reader_notes, METH_NOARGS, "notes($self)\n--\n\nThe notes' JSON texts."},
    {"find", reader_find, METH_O,
     "find($self, name, /)\n--\n\nThe tensor with this full name. Raises LayerNotFoundError with the nearest name."},
    {"full_names", reader_full_names, METH_NOARGS, "full_names($self)\n--\n\nEvery full name, in order of writing."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_getset[] = {
    {"finished", reader_get_finished, NULL, "True if the capture was closed in order.", NULL},
    {"recovery", reader_get_recovery, NULL, "What an unfinished capture lost; None if it is finished.", NULL},
    {"num_tensors", reader_get_num_tensors, NULL, "Number of tensors.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {Py_tp_doc, "Reader(path)\n--\n\nAn opened capture."},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "porting._core.Reader",
    .basicsize = sizeof(reader_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};

int
bind_reader_init(PyObject *module, core_state *state)
{
    state->reader_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    return state->reader_type != NULL ? PyModule_AddType(module, state->reader_type) : -1;
}
