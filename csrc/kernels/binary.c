/* binary.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_binary_rows[] = {
    {.op = NULL},
};
