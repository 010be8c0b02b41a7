/* rows.c -- all kernel families, the choice of a row, and what this CPU can run. */
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const port_kernel_row *const families[] = {
    port_unary_rows, port_gelu_rows,    port_rsqrt_rows, port_binary_rows, port_divide_rows, port_cast_rows, port_reduce_rows, port_scan_rows,
    port_softmax_rows, port_norm_rows,
    port_indexing_rows, port_gemm_rows,   port_attention_rows, port_attention_f64_rows,
    port_convolution_rows, port_scatter_rows, port_topk_rows, port_pool_rows, port_resize_rows, port_activation_rows, port_channel_norm_rows,
    port_vector_norm_rows, port_triangular_rows, port_onednn_convolution_rows,
    port_onednn_deconvolution_rows, port_onednn_lstm_rows, port_special_rows, port_triple_rows, port_products_rows, port_lapack_rows, NULL,
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

/* Asked once, as everything of the CPU: CPUID takes microseconds in a virtual machine. */
bool
port_cpu_has_avx512_bf16(void)
{
    static atomic_int asked = -1;
    int found = atomic_load_explicit(&asked, memory_order_relaxed);
    if (found < 0) {
        found = 0;
#if defined(__x86_64__)
        unsigned a, b, c, d;
        bool amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1u << 22)) != 0; /* AMX-BF16 */
        found = port_cpu_has_avx512() && !amx && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 5)) != 0;
#endif
        atomic_store_explicit(&asked, found, memory_order_relaxed);
    }
    return found != 0;
}

static atomic_int level_found = -1, level_detected = -1;

int32_t
port_cpu_level_found(void)
{
    int32_t level = atomic_load_explicit(&level_found, memory_order_relaxed);
    return level >= 0 ? level : port_cpu_level();
}

#if defined(__x86_64__)
/* Conversions of half floats, which not every compiler's builtin knows by name; avx2 says that the registers may be used. */
static bool
has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

/* The level of the CPU, before anything is disabled. Asked once: CPUID is slow in a virtual machine. */
static int32_t
detect_level(void)
{
    int32_t level = atomic_load_explicit(&level_detected, memory_order_relaxed);
    if (level >= 0) {
        return level;
    }
    level = 0;
#if defined(__x86_64__)
    /* gcc's and clang's builtins read CPUID and XGETBV, so that a kernel which hides the registers is believed. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        level = port_cpu_has_avx512() ? 2 : 1;
    }
#endif
    atomic_store_explicit(&level_detected, level, memory_order_relaxed);
    return level;
}

int32_t
port_cpu_level(void)
{
    int32_t level = detect_level();
    const char *disabled = getenv("PORTING_DISABLE_CPU");
    if (disabled != NULL && strstr(disabled, "avx2") != NULL) {
        level = 0;
    } else if (disabled != NULL && strstr(disabled, "avx512") != NULL && level > 1) {
        level = 1;
    }
    atomic_store_explicit(&level_found, level, memory_order_relaxed);
    return level;
}

/* ---------------------------------------------------------------- finding a row: a table of all rows by op and dtype */

typedef struct found_rows {
    const port_kernel_row *const *rows; /* of one op and dtype, in the order of the families */
    size_t count;
} found_rows;

#define MAX_ROWS 4096 /* far above what there is; a test asks for every row */

static struct {
    pthread_once_t once;
    const port_kernel_row *rows[MAX_ROWS]; /* sorted */
    size_t count;
} sorted = {.once = PTHREAD_ONCE_INIT};

static int
compare_key(const port_kernel_row *row, const char *op, port_dtype dtype)
{
    return row->dtype != dtype ? (row->dtype < dtype ? -1 : 1) : strcmp(row->op, op);
}

static int
compare_rows(const void *a, const void *b)
{
    const port_kernel_row *const *left = a, *const *right = b;
    int order = compare_key(*left, (*right)->op, (*right)->dtype);
    if (order != 0) {
        return order;
    }
    return *left < *right ? -1 : *left > *right; /* rows of one op and dtype stand in one family */
}

static void
sort_rows(void)
{
    size_t count = 0;
    for (size_t f = 0; families[f] != NULL; f++) {
        for (const port_kernel_row *row = families[f]; row->op != NULL && count < MAX_ROWS; row++) {
            sorted.rows[count++] = row;
        }
    }
    qsort(sorted.rows, count, sizeof *sorted.rows, compare_rows);
    sorted.count = count;
}

static found_rows
find_rows(const char *op, port_dtype dtype)
{
    pthread_once(&sorted.once, sort_rows);
    size_t low = 0, high = sorted.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_key(sorted.rows[middle], op, dtype) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    found_rows found = {.rows = sorted.rows + low};
    while (low + found.count < sorted.count && compare_key(found.rows[found.count], op, dtype) == 0) {
        found.count++;
    }
    return found;
}

const port_kernel_row *
port_kernel_find(const char *op, port_dtype dtype, const char *variant)
{
    const port_kernel_row *best = NULL;
    int32_t level = port_cpu_level();
    found_rows found = find_rows(op, dtype);
    for (size_t k = 0; k < found.count; k++) {
        const port_kernel_row *row = found.rows[k];
        if (row->cpu_level > level) {
            continue;
        }
        if (variant != NULL ? strcmp(row->variant, variant) == 0 : (best == NULL || row->cpu_level > best->cpu_level)) {
            best = row;
        }
    }
    return best;
}
