/* alloc.c -- memory behind one switch, so that a test can make the n-th allocation fail; large blocks are kept for the next user.
 *
 * A run of a program asks for the same blocks over and over, and fresh memory costs a page fault every 4 KiB: more than most
 * kernels do with it. So freed aligned blocks of 16 KiB and more stay here, up to 128 MiB, and go to the next request of nearly that
 * size. A line before the memory holds its size. Not under AddressSanitizer, which has to see every free.
 *
 * Large blocks begin on a page. Where a result begins one line further into its page than an operand does, loads of the operand wait for stores that
 * only look like theirs, and loops over elements take a third longer; other libraries' large blocks begin a little behind a page's start.
 *
 * Blocks from 1 MiB on ask for huge pages: translating the addresses of small ones takes a tenth of what an op over elements takes. They are
 * mapped by themselves, so that no other memory of the process gets such pages with them. */
#include "core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#define ALIGNMENT_BYTES 64
#define PAGE_BYTES 4096
#define LARGE_BYTES ((size_t)64 << 10)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define KEPT_BLOCKS 64
#define KEPT_LEAST_BYTES ((size_t)16 << 10)
#define KEPT_TOTAL_BYTES ((size_t)128 << 20)
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_BLOCKS 0
#endif
#endif
#ifndef KEEPS_BLOCKS
#define KEEPS_BLOCKS 1
#endif
#if defined(MADV_HUGEPAGE) && defined(__x86_64__) && KEEPS_BLOCKS
#define MAPS_BLOCKS 1
#else
#define MAPS_BLOCKS 0
#endif

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

typedef union block {
    size_t size_bytes; /* behind this line */
    char line[ALIGNMENT_BYTES];
} block;

/* What lies before the memory: the line, and of large blocks all of a page. */
static size_t
head_bytes(size_t size_bytes)
{
    return size_bytes >= LARGE_BYTES ? PAGE_BYTES : sizeof(block);
}

/* Of a block and what lies before it: whole pages, and a huge one for what fills half of it; 0: not to be mapped. */
static size_t
mapped_bytes(size_t size_bytes)
{
    size_t pages = (size_bytes + 2 * PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    size_t huge = (pages + HUGE_PAGE_BYTES / 2) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if (!MAPS_BLOCKS || huge == 0) {
        return 0;
    }
    return huge > pages ? huge : pages;
}

/* So many bytes from a huge page's start on; NULL where there are none. */
static char *
map_huge(size_t size_bytes)
{
#if MAPS_BLOCKS
    char *mapped = mmap(NULL, size_bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return NULL;
    }
    size_t before = -(uintptr_t)mapped % HUGE_PAGE_BYTES;
    if (before > 0) {
        munmap(mapped, before);
    }
    munmap(mapped + before + size_bytes, HUGE_PAGE_BYTES - before); /* never nothing: before is less */
    madvise(mapped + before, size_bytes, MADV_HUGEPAGE);             /* refused: small pages, the same memory */
    return mapped + before;
#else
    (void)size_bytes;
    return NULL;
#endif
}

static block *
block_new(size_t size_bytes)
{
    size_t head = head_bytes(size_bytes), mapped = mapped_bytes(size_bytes);
    char *memory = mapped > 0 ? map_huge(mapped) : aligned_alloc(head, (size_bytes + 2 * head - 1) / head * head);
    if (memory == NULL) {
        return NULL;
    }
    block *made = (block *)(void *)(memory + head) - 1;
    made->size_bytes = size_bytes;
    return made;
}

static void
block_free(block *freed)
{
    char *memory = (char *)(freed + 1) - head_bytes(freed->size_bytes);
    size_t mapped = mapped_bytes(freed->size_bytes);
    if (mapped > 0) {
        munmap(memory, mapped);
    } else {
        free(memory);
    }
}

static struct {
    pthread_mutex_t lock; /* only ever tried: who finds it taken (also by a thread that fork left behind) does without */
    size_t count, total_bytes;
    block *blocks[KEPT_BLOCKS];
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The smallest kept block that is large enough and at most a quarter larger; NULL if there is none. */
static block *
take_kept(size_t size_bytes)
{
    block *found = NULL;
    if (!KEEPS_BLOCKS || size_bytes < KEPT_LEAST_BYTES || pthread_mutex_trylock(&kept.lock) != 0) {
        return NULL;
    }
    size_t best = KEPT_BLOCKS, best_bytes = size_bytes + size_bytes / 4 + 1;
    for (size_t k = 0; k < kept.count; k++) {
        size_t bytes = kept.blocks[k]->size_bytes;
        if (bytes >= size_bytes && bytes < best_bytes) {
            best = k, best_bytes = bytes;
        }
    }
    if (best < KEPT_BLOCKS) {
        found = kept.blocks[best];
        kept.total_bytes -= found->size_bytes;
        kept.blocks[best] = kept.blocks[--kept.count];
    }
    pthread_mutex_unlock(&kept.lock);
    return found;
}

/* The oldest blocks go first when there is no room. */
static void
keep(block *freed)
{
    if (!KEEPS_BLOCKS || freed->size_bytes < KEPT_LEAST_BYTES || freed->size_bytes > KEPT_TOTAL_BYTES / 2 ||
        pthread_mutex_trylock(&kept.lock) != 0) {
        block_free(freed);
        return;
    }
    while (kept.count == KEPT_BLOCKS || kept.total_bytes + freed->size_bytes > KEPT_TOTAL_BYTES) {
        kept.total_bytes -= kept.blocks[0]->size_bytes;
        block_free(kept.blocks[0]);
        memmove(kept.blocks, kept.blocks + 1, --kept.count * sizeof kept.blocks[0]);
    }
    kept.blocks[kept.count++] = freed;
    kept.total_bytes += freed->size_bytes;
    pthread_mutex_unlock(&kept.lock);
}

void *
port_alloc_aligned(size_t size_bytes)
{
    if (!allowed() || size_bytes > SIZE_MAX - 4 * HUGE_PAGE_BYTES) {
        return NULL;
    }
    size_t rounded = (size_bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    rounded = rounded > 0 ? rounded : ALIGNMENT_BYTES;
    block *made = take_kept(rounded);
    if (made == NULL) {
        made = block_new(rounded);
    }
    return made != NULL ? made + 1 : NULL;
}

void
port_free_aligned(void *memory)
{
    if (memory != NULL) {
        keep((block *)memory - 1);
    }
}
