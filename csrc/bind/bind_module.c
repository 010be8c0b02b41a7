/* bind_module.c -- porting._core: multi-phase init, all state in one struct. */
#include "bind.h"

static PyModuleDef core_module;

core_state *
bind_state(PyObject *module)
{
    return PyModule_GetState(module);
}

core_state *
bind_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module != NULL ? PyModule_GetState(module) : NULL;
}

static int
add_dtypes(PyObject *module)
{
    PyObject *names = PyTuple_New(PORT_NUM_DTYPES);
    if (names == NULL) {
        return -1;
    }
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        PyObject *name = PyUnicode_FromString(port_dtype_name((port_dtype)i));
        if (name == NULL) {
            Py_DECREF(names);
            return -1;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    int result = PyModule_AddObjectRef(module, "DTYPES", names);
    Py_DECREF(names);
    return result;
}

static int
core_exec(PyObject *module)
{
    core_state *state = bind_state(module);
    if (bind_errors_init(module, state) < 0 || bind_array_init(module, state) < 0 || add_dtypes(module) < 0 ||
        bind_store_init(module, state) < 0 || bind_compare_init(module, state) < 0 ||
        bind_program_init(module, state) < 0) {
        return -1;
    }
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = bind_state(module);
    PyObject *objects[] = {state->porting_error, state->format_error, state->name_error, state->shape_error,
                           state->dtype_error, state->unsupported_error, state->closed_error,
                           (PyObject *)state->writer_type, (PyObject *)state->reader_type,
                           (PyObject *)state->program_type, (PyObject *)state->mapping_type};
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        Py_VISIT(objects[i]);
    }
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        Py_VISIT(state->numpy_dtypes[i]);
    }
    return 0;
}

static int
core_clear(PyObject *module)
{
    core_state *state = bind_state(module);
    Py_CLEAR(state->porting_error);
    Py_CLEAR(state->format_error);
    Py_CLEAR(state->name_error);
    Py_CLEAR(state->shape_error);
    Py_CLEAR(state->dtype_error);
    Py_CLEAR(state->unsupported_error);
    Py_CLEAR(state->closed_error);
    Py_CLEAR(state->writer_type);
    Py_CLEAR(state->reader_type);
    Py_CLEAR(state->program_type);
    Py_CLEAR(state->mapping_type);
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        Py_CLEAR(state->numpy_dtypes[i]);
    }
    return 0;
}

static void
core_free(void *module)
{
    core_clear(module);
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, core_exec}, {0, NULL}};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "porting._core",
    .m_doc = "The C core of porting.",
    .m_size = sizeof(core_state),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
