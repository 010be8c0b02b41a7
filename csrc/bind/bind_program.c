/* bind_program.c -- Python types and functions of this area (see _core.pyi). */
#include "bind_program.h"

int
bind_program_init(PyObject *module, core_state *state)
{
    return bind_op_init(module, state);
}
