/* attention.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_attention_rows[] = {
    {.op = NULL},
};
