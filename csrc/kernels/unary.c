/* unary.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_unary_rows[] = {
    {.op = NULL},
};
