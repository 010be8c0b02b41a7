/* alloc.c -- memory behind one switch, so that a test can make the n-th allocation fail. */
#include "core.h"

#include <stdatomic.h>

#define ALIGNMENT_BYTES 64

static atomic_size_t num_calls;
static atomic_size_t fail_after; /* 0: never */

static bool
allowed(void)
{
    size_t n = atomic_fetch_add_explicit(&num_calls, 1, memory_order_relaxed) + 1;
    size_t limit = atomic_load_explicit(&fail_after, memory_order_relaxed);
    return limit == 0 || n < limit;
}

size_t
port_alloc_fail_after(size_t n)
{
    size_t seen = atomic_exchange(&num_calls, 0);
    atomic_store(&fail_after, n);
    return seen;
}

void *
port_alloc(size_t size_bytes)
{
    return allowed() ? malloc(size_bytes > 0 ? size_bytes : 1) : NULL;
}

void *
port_calloc(size_t count, size_t size_bytes)
{
    return allowed() ? calloc(count > 0 ? count : 1, size_bytes > 0 ? size_bytes : 1) : NULL;
}

void *
port_realloc(void *memory, size_t size_bytes)
{
    return allowed() ? realloc(memory, size_bytes > 0 ? size_bytes : 1) : NULL;
}

void
port_free(void *memory)
{
    free(memory);
}

void *
port_alloc_aligned(size_t size_bytes)
{
    if (!allowed() || size_bytes > SIZE_MAX - ALIGNMENT_BYTES) {
        return NULL;
    }
    size_t rounded = (size_bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    return aligned_alloc(ALIGNMENT_BYTES, rounded > 0 ? rounded : ALIGNMENT_BYTES);
}

void
port_free_aligned(void *memory)
{
    free(memory);
}
