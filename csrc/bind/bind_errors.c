/* bind_errors.c -- the exceptions, and the only way from a port_error to one of them. */
#include "bind.h"

static PyObject *
new_exception(PyObject *module, const char *name, const char *doc, PyObject *base, PyObject *second)
{
    PyObject *bases = second != NULL ? PyTuple_Pack(2, base, second) : PyTuple_Pack(1, base);
    if (bases == NULL) {
        return NULL;
    }
    char full[64];
    snprintf(full, sizeof full, "porting.%s", name);
    PyObject *type = PyErr_NewExceptionWithDoc(full, doc, bases, NULL);
    Py_DECREF(bases);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

/* KeyError prints the repr of its argument; a sentence should be read as one. */
static PyObject *
sentence_str(PyObject *Py_UNUSED(ignored), PyObject *self)
{
    PyObject *args = PyObject_GetAttrString(self, "args");
    if (args == NULL) {
        return NULL;
    }
    PyObject *text = PyTuple_GET_SIZE(args) > 0 ? PyObject_Str(PyTuple_GET_ITEM(args, 0)) : PyUnicode_FromString("");
    Py_DECREF(args);
    return text;
}

static PyMethodDef sentence_def = {"__str__", sentence_str, METH_O, NULL};

static int
give_sentence_str(PyObject *type)
{
    PyObject *function = PyCFunction_New(&sentence_def, NULL);
    PyObject *method = function != NULL ? PyInstanceMethod_New(function) : NULL;
    int result = method != NULL ? PyObject_SetAttrString(type, "__str__", method) : -1;
    Py_XDECREF(function);
    Py_XDECREF(method);
    return result;
}

int
bind_errors_init(PyObject *module, core_state *state)
{
    state->porting_error = new_exception(module, "PortingError", "Base of porting's own errors.", PyExc_Exception, NULL);
    if (state->porting_error == NULL) {
        return -1;
    }
    PyObject *base = state->porting_error;
    const struct {
        PyObject **slot;
        const char *name, *doc;
        PyObject *second;
    } rows[] = {
        {&state->format_error, "FormatError", "Not a capture, truncated, corrupt, or of a later version.", PyExc_ValueError},
        {&state->name_error, "LayerNotFoundError", "No tensor, module or op of this name.", PyExc_KeyError},
        {&state->shape_error, "ShapeError", "Shapes do not fit.", PyExc_ValueError},
        {&state->dtype_error, "DtypeError", "Dtypes do not fit.", PyExc_TypeError},
        {&state->unsupported_error, "UnsupportedError", "There is no kernel for this op or dtype.", PyExc_NotImplementedError},
        {&state->closed_error, "ClosedError", "The object was closed before.", PyExc_ValueError},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].slot = new_exception(module, rows[i].name, rows[i].doc, base, rows[i].second);
        if (*rows[i].slot == NULL) {
            return -1;
        }
    }
    return give_sentence_str(state->name_error);
}

/* The message may name files whose names are not UTF-8, and may have been cut inside a character. */
static PyObject *
message_of(const port_error *err)
{
    return PyUnicode_DecodeUTF8(err->message, (Py_ssize_t)strlen(err->message), "replace");
}

static void
raise_os_error(const port_error *err, const char *path)
{
    PyObject *type = err->status == PORT_E_EXISTS ? PyExc_FileExistsError : PyExc_OSError;
    int code = err->status == PORT_E_EXISTS ? 17 /* EEXIST */ : err->os_errno;
    PyObject *text = message_of(err), *name = path != NULL ? PyUnicode_DecodeFSDefault(path) : Py_NewRef(Py_None);
    PyObject *value = text != NULL && name != NULL ? PyObject_CallFunction(type, "iOO", code, text, name) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(name);
    if (value != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(value), value);
        Py_DECREF(value);
    }
}

PyObject *
bind_raise(core_state *state, const port_error *err, const char *path)
{
    PyObject *type = state->porting_error;
    switch (err->status) {
    case PORT_E_NOMEM: type = PyExc_MemoryError; break;
    case PORT_E_IO:
    case PORT_E_EXISTS: raise_os_error(err, path); return NULL;
    case PORT_E_FORMAT:
    case PORT_E_TRUNCATED:
    case PORT_E_CORRUPT:
    case PORT_E_VERSION: type = state->format_error; break;
    case PORT_E_NAME: type = state->name_error; break;
    case PORT_E_SHAPE: type = state->shape_error; break;
    case PORT_E_DTYPE: type = state->dtype_error; break;
    case PORT_E_VALUE: type = PyExc_ValueError; break;
    case PORT_E_UNSUPPORTED: type = state->unsupported_error; break;
    case PORT_E_CLOSED: type = state->closed_error; break;
    case PORT_OK: break;
    }
    PyObject *text = message_of(err);
    if (text != NULL) {
        PyErr_SetObject(type, text);
        Py_DECREF(text);
    }
    return NULL;
}
