/* indexing.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_indexing_rows[] = {
    {.op = NULL},
};
