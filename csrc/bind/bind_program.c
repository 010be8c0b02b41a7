/* bind_program.c -- Python types and functions of this area (see _core.pyi). */
#include "bind.h"

int
bind_program_init(PyObject *module, core_state *state)
{
    (void)module;
    (void)state;
    return 0;
}
