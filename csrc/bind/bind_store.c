/* bind_store.c -- hash128, repair, verify; the types are in bind_writer.c and bind_reader.c. */
#include "bind_store.h"

#define NOGIL_BYTES 65536

PyObject *
bind_path(PyObject *path)
{
    PyObject *bytes = NULL;
    return PyUnicode_FSConverter(path, &bytes) ? bytes : NULL;
}

PyObject *
bind_hash_text(port_hash128 hash)
{
    char text[33];
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)hash.high, (unsigned long long)hash.low);
    return PyUnicode_FromStringAndSize(text, 32);
}

static PyObject *
core_hash128(PyObject *Py_UNUSED(module), PyObject *data)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    port_hash128 hash;
    if (buffer.len > NOGIL_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        hash = port_hash(buffer.buf, (size_t)buffer.len);
        Py_END_ALLOW_THREADS
    } else {
        hash = port_hash(buffer.buf, (size_t)buffer.len);
    }
    PyBuffer_Release(&buffer);
    return bind_hash_text(hash);
}

static PyObject *
core_repair(PyObject *module, PyObject *argument)
{
    PyObject *path = bind_path(argument);
    if (path == NULL) {
        return NULL;
    }
    port_error err;
    port_recovery recovery = {0};
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_capture_repair(PyBytes_AS_STRING(path), &recovery, &err);
    Py_END_ALLOW_THREADS
    PyObject *result = status == PORT_OK
                           ? Py_BuildValue("{sKsK}", "records", (unsigned long long)recovery.records, "dropped_bytes",
                                           (unsigned long long)recovery.dropped_bytes)
                           : bind_raise(bind_state(module), &err, PyBytes_AS_STRING(path));
    Py_DECREF(path);
    return result;
}

static PyObject *
core_verify(PyObject *module, PyObject *argument)
{
    PyObject *path = bind_path(argument);
    if (path == NULL) {
        return NULL;
    }
    port_error err;
    uint64_t num_tensors = 0;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_capture_verify(PyBytes_AS_STRING(path), &num_tensors, &err);
    Py_END_ALLOW_THREADS
    PyObject *result = status == PORT_OK ? PyLong_FromUnsignedLongLong(num_tensors)
                                         : bind_raise(bind_state(module), &err, PyBytes_AS_STRING(path));
    Py_DECREF(path);
    return result;
}

static PyMethodDef store_functions[] = {
    {"hash128", core_hash128, METH_O, "hash128(data)\n--\n\nXXH3-128 of the bytes as 32 hex digits, as in the journal."},
    {"repair", core_repair, METH_O,
     "repair(path)\n--\n\nMakes an unfinished capture a finished one; {'records', 'dropped_bytes'}."},
    {"verify", core_verify, METH_O,
     "verify(path)\n--\n\nRe-hashes every tensor; raises FormatError naming the first bad one. Returns tensors read."},
    {NULL, NULL, 0, NULL},
};

int
bind_store_init(PyObject *module, core_state *state)
{
    if (PyModule_AddFunctions(module, store_functions) < 0 || bind_writer_init(module, state) < 0 ||
        bind_reader_init(module, state) < 0) {
        return -1;
    }
    return 0;
}
