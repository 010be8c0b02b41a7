/* gemm.c -- see kernels.h. */
#include "kernels.h"

const port_kernel_row port_gemm_rows[] = {
    {.op = NULL},
};
