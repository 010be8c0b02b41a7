/* bind_program.h -- shared by the binding files of programs and single ops. */
#ifndef PORT_BIND_PROGRAM_H
#define PORT_BIND_PROGRAM_H

#include "../program/program.h"
#include "bind.h"

/* Options in Python's form, mkldnn as bind_mkldnn gives it; `variant` points into a Python string that the caller keeps. -1 with an exception. */
int bind_run_options(const char *provider, const char *variant, const char *operands, const char *capability, int num_threads, int mkldnn,
                     port_run_options *options);
/* A converter ("O&") for the argument mkldnn: False 0, "avx2" 1, "avx512" 2 by the code that oneDNN ran, True as on this CPU. */
int bind_mkldnn(PyObject *obj, void *address);
/* bind_op.c: the functions that need no program. */
int bind_op_init(PyObject *module, core_state *state);

#define BIND_RELEASE_GIL_BYTES 16384 /* below this a call is shorter than giving the GIL up and back */

#endif /* PORT_BIND_PROGRAM_H */
