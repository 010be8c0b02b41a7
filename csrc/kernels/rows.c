/* rows.c -- all kernel families, the choice of a row, and what this CPU can run. */
#include "kernels.h"

static const port_kernel_row *const families[] = {
    port_unary_rows,    port_binary_rows, port_cast_rows,      port_reduce_rows,        port_softmax_rows, port_norm_rows,
    port_indexing_rows, port_gemm_rows,   port_attention_rows, port_attention_f64_rows,
    port_convolution_rows, port_scatter_rows, port_topk_rows, port_pool_rows, port_activation_rows, port_channel_norm_rows,
    port_vector_norm_rows, port_triangular_rows, NULL,
};

const port_kernel_row *const *
port_kernel_families(void)
{
    return families;
}

bool
port_cpu_has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

int32_t
port_cpu_level(void)
{
    int32_t level = 0;
#if defined(__x86_64__)
    /* gcc's and clang's builtins read CPUID and XGETBV, so that a kernel which hides the registers is believed. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        level = port_cpu_has_avx512() ? 2 : 1;
    }
#endif
    const char *disabled = getenv("PORTING_DISABLE_CPU");
    if (disabled != NULL && strstr(disabled, "avx2") != NULL) {
        return 0;
    }
    if (disabled != NULL && strstr(disabled, "avx512") != NULL && level > 1) {
        return 1;
    }
    return level;
}

const port_kernel_row *
port_kernel_find(const char *op, port_dtype dtype, const char *variant)
{
    const port_kernel_row *best = NULL;
    int32_t level = port_cpu_level();
    for (size_t f = 0; families[f] != NULL; f++) {
        for (const port_kernel_row *row = families[f]; row->op != NULL; row++) {
            if (row->dtype != dtype || strcmp(row->op, op) != 0 || row->cpu_level > level) {
                continue;
            }
            if (variant != NULL ? strcmp(row->variant, variant) == 0 : (best == NULL || row->cpu_level > best->cpu_level)) {
                best = row;
            }
        }
    }
    return best;
}
