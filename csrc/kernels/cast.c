/* cast.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_cast_rows[] = {
    {.op = NULL},
};
