/* bind.h -- shared by the binding files: the only part of csrc/ that may include Python.h. */
#ifndef PORT_BIND_H
#define PORT_BIND_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/core.h"

typedef struct core_state {
    PyObject *porting_error, *format_error, *name_error, *shape_error, *dtype_error, *unsupported_error, *closed_error;
    PyTypeObject *writer_type, *reader_type, *program_type, *mapping_type;
    PyObject *numpy_dtypes[PORT_NUM_DTYPES]; /* filled on first use; bf16 and f8 import ml_dtypes */
} core_state;

core_state *bind_state(PyObject *module);
core_state *bind_state_of_type(PyTypeObject *type);

/* bind_errors.c: sets the Python exception of a failed core call and returns NULL. path (may be NULL) is the file name of OSError. */
PyObject *bind_raise(core_state *state, const port_error *err, const char *path);

/* Each area adds its functions and types to the module; -1 with an exception on failure. */
int bind_errors_init(PyObject *module, core_state *state);
int bind_array_init(PyObject *module, core_state *state);
int bind_store_init(PyObject *module, core_state *state);
int bind_compare_init(PyObject *module, core_state *state);
int bind_program_init(PyObject *module, core_state *state);

/* bind_array.c: the only file that includes NumPy headers. */
/* Fills view from an array (any strides, native byte order); the view borrows from the array. -1 with an exception. */
int bind_view_from_array(core_state *state, PyObject *array, port_view *view);
/* A read-only array over borrowed memory that keeps `owner` (borrowed reference, increfed) alive. */
PyObject *bind_array_over(core_state *state, const port_view *view, PyObject *owner);
/* A new array that takes `memory` (from port_alloc_aligned) over, also on failure. */
PyObject *bind_array_take(core_state *state, const port_view *view, void *memory);
/* True if obj is a NumPy array. */
int bind_is_array(PyObject *obj);

#endif /* PORT_BIND_H */
