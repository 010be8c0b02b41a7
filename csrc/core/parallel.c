/* parallel.c -- a few threads that wait for loops whose parts do not depend on each other, and how work is cut into such parts.
 *
 * The threads are started when first needed, sleep between loops and never end. One loop at a time has them: another one that comes
 * meanwhile (from another thread, or from inside a part) runs in its own thread alone, as does any loop where no thread can be
 * started. A child of fork starts without them. */
#include "core.h"

#include <pthread.h>
#include <stdatomic.h>

#define MAX_WORKERS 63

typedef struct loop {
    void (*part)(void *context, int64_t i);
    void *context;
    int64_t count;
    _Atomic int64_t next;
} loop;

static struct {
    pthread_mutex_t owner; /* held by the loop that has the threads */
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t work, done;
    int32_t workers;  /* started */
    int32_t wanted;   /* of them, for this loop */
    int32_t joined, left;
    uint64_t round;
    loop *current;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static void
run_parts(loop *l)
{
    for (int64_t i; (i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed)) < l->count;) {
        l->part(l->context, i);
    }
}

static void *
worker_main(void *unused)
{
    (void)unused;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.round == seen || pool.joined == pool.wanted) {
            seen = pool.round;
            pthread_cond_wait(&pool.work, &pool.lock);
        }
        seen = pool.round;
        pool.joined++;
        loop *l = pool.current;
        pthread_mutex_unlock(&pool.lock);
        run_parts(l);
        pthread_mutex_lock(&pool.lock);
        pool.left++;
        pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* The child of a fork has none of the threads, and locks as they stood. */
static void
forget_threads(void)
{
    static const pthread_mutex_t free_lock = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;
    memcpy(&pool.owner, &free_lock, sizeof free_lock);
    memcpy(&pool.lock, &free_lock, sizeof free_lock);
    memcpy(&pool.work, &fresh, sizeof fresh);
    memcpy(&pool.done, &fresh, sizeof fresh);
    pool.workers = pool.wanted = pool.joined = pool.left = 0;
}

static void
register_fork(void)
{
    pthread_atfork(NULL, NULL, forget_threads);
}

/* Starts threads until there are `wanted`, or as many as the system gives. */
static void
start_workers(int32_t wanted)
{
    pthread_attr_t detached;
    if (pool.workers >= wanted || pthread_attr_init(&detached) != 0) {
        return;
    }
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    while (pool.workers < wanted && pthread_create(&thread, &detached, worker_main, NULL) == 0) {
        pool.workers++;
    }
    pthread_attr_destroy(&detached);
}

void
port_parallel(int64_t count, int32_t num_threads, void (*part)(void *context, int64_t i), void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    loop l = {.part = part, .context = context, .count = count};
    int64_t most = count < num_threads ? count : num_threads;
    int32_t helpers = (int32_t)(most < MAX_WORKERS + 1 ? most : MAX_WORKERS + 1) - 1;
    if (helpers < 1 || pthread_once(&once, register_fork) != 0 || pthread_mutex_trylock(&pool.owner) != 0) {
        run_parts(&l);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    start_workers(helpers);
    pool.wanted = helpers < pool.workers ? helpers : pool.workers;
    pool.joined = pool.left = 0;
    pool.current = &l;
    pool.round++;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    run_parts(&l);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = pool.joined; /* who has not come yet need not */
    while (pool.left < pool.joined) {
        pthread_cond_wait(&pool.done, &pool.lock);
    }
    pool.current = NULL;
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.owner);
}

/* ---------------------------------------------------------------- cutting */

port_chunks
port_chunks_of(int64_t n, int64_t grain, int32_t num_threads)
{
    if (n < grain || num_threads <= 1 || n <= 0) {
        return (port_chunks){1, n};
    }
    int64_t threads = (n + grain - 1) / grain;
    threads = threads < num_threads ? threads : num_threads;
    int64_t size = (n + threads - 1) / threads;
    return (port_chunks){(n + size - 1) / size, size};
}

enum { DEALT_ELEMS = 16384, PARTS_PER_THREAD = 4 }; /* of a part, at least; several, so that a thread that comes late does less */

port_chunks
port_chunks_by_elems(int64_t n, int64_t elems, int32_t num_parts)
{
    return port_chunks_of(n, elems < DEALT_ELEMS ? DEALT_ELEMS / (elems > 0 ? elems : 1) : 1, num_parts);
}

typedef struct dealt_parts {
    port_range_fn range;
    const void *context;
    int64_t n;
    port_chunks chunks;
} dealt_parts;

static void
run_dealt(void *opaque, int64_t i)
{
    const dealt_parts *parts = opaque;
    int64_t begin = i * parts->chunks.size, end = begin + parts->chunks.size;
    parts->range(parts->context, begin, end < parts->n ? end : parts->n);
}

void
port_deal(int64_t n, int64_t elems, int32_t num_threads, port_range_fn range, const void *context)
{
    dealt_parts parts = {range, context, n, port_chunks_by_elems(n, elems, num_threads > 1 ? PARTS_PER_THREAD * num_threads : 1)};
    port_parallel(n > 0 ? parts.chunks.count : 0, num_threads, run_dealt, &parts);
}
