/* bind_store.h -- shared by the binding of the store. */
#ifndef PORT_BIND_STORE_H
#define PORT_BIND_STORE_H

#include "bind.h"

#include "../store/store.h"

int bind_writer_init(PyObject *module, core_state *state);
int bind_reader_init(PyObject *module, core_state *state);

/* The UTF-8 of a path (str or os.PathLike) as a new bytes object; NULL with an exception. */
PyObject *bind_path(PyObject *path);
/* "low, high" as 32 hex digits. */
PyObject *bind_hash_text(port_hash128 hash);

#endif /* PORT_BIND_STORE_H */
