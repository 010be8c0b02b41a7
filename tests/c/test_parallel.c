/* test_parallel.c -- loops on several threads: every part once, also where loops meet; and blocks of memory that are used again. */
#include "core/core.h"

#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARTS 1000

typedef struct counts {
    atomic_int done[PARTS];
} counts;

static void
count_part(void *context, int64_t i)
{
    atomic_fetch_add(&((counts *)context)->done[i], 1);
}

static bool
each_once(int64_t parts, int32_t num_threads)
{
    counts c = {0};
    port_parallel(parts, num_threads, count_part, &c);
    bool right = true;
    for (int64_t i = 0; i < PARTS; i++) {
        right = right && atomic_load(&c.done[i]) == (i < parts);
    }
    return right;
}

static void *
many_loops(void *wrong)
{
    for (int k = 0; k < 300; k++) {
        if (!each_once(k % 7, 1 + k % 5)) {
            atomic_fetch_add((atomic_int *)wrong, 1);
        }
    }
    return NULL;
}

/* A part that asks for threads itself gets none, and does the work. */
static void
nested_part(void *context, int64_t i)
{
    (void)i;
    if (!each_once(9, 4)) {
        atomic_fetch_add((atomic_int *)context, 1);
    }
}

static void
test_loops(void)
{
    for (int32_t num_threads = -1; num_threads < 6; num_threads++) {
        CHECK(each_once(0, num_threads) && each_once(1, num_threads) && each_once(2, num_threads) && each_once(PARTS, num_threads));
    }
    atomic_int wrong = 0;
    port_parallel(8, 3, nested_part, &wrong);
    CHECK(atomic_load(&wrong) == 0);
    pthread_t threads[4];
    for (int t = 0; t < 4; t++) {
        CHECK(pthread_create(&threads[t], NULL, many_loops, &wrong) == 0);
    }
    for (int t = 0; t < 4; t++) {
        pthread_join(threads[t], NULL);
    }
    CHECK(atomic_load(&wrong) == 0);
}

static void
test_fork(void)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(each_once(PARTS, 4) ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void
test_blocks(void)
{
    char *first = port_alloc_aligned((size_t)1 << 20);
    CHECK(first != NULL && (uintptr_t)first % 64 == 0);
    memset(first, 7, (size_t)1 << 20);
    port_free_aligned(first);
    char *second = port_alloc_aligned(((size_t)1 << 20) - 1000), *third = port_alloc_aligned((size_t)1 << 20);
    CHECK(second != NULL && third != NULL && second != third && (uintptr_t)second % 64 == 0 && (uintptr_t)third % 64 == 0);
    memset(second, 1, ((size_t)1 << 20) - 1000);
    memset(third, 2, (size_t)1 << 20);
    CHECK(second[1000] == 1 && third[1000] == 2);
    port_free_aligned(second);
    port_free_aligned(third);
    char *blocks[80]; /* more than are kept */
    for (size_t b = 0; b < 80; b++) {
        blocks[b] = port_alloc_aligned((20 + b) << 10);
        CHECK(blocks[b] != NULL);
    }
    for (size_t b = 0; b < 80; b++) {
        port_free_aligned(blocks[b]);
    }
    port_free_aligned(NULL);
    CHECK(port_alloc_aligned(SIZE_MAX - 10) == NULL);
}

int
main(void)
{
    test_loops();
    test_fork();
    test_blocks();
    return CHECK_REPORT();
}
