/* Threads that share a writer and then a reader: nothing is lost, stored twice, or, under -fsanitize=thread, raced for. */
#include "check.h"
#include "store_fixture.h"

#include <pthread.h>

#define NUM_THREADS 4
#define NUM_TENSORS 200
#define ELEMS 64

static port_writer *writer;
static port_reader *reader;
static int num_failed; /* under failed_lock */
static pthread_mutex_t failed_lock = PTHREAD_MUTEX_INITIALIZER;

static void
expect(bool good)
{
    pthread_mutex_lock(&failed_lock);
    num_failed += !good;
    pthread_mutex_unlock(&failed_lock);
}

/* Every thread stores the same tensors, each under a name of its own. */
static void *
write_tensors(void *argument)
{
    int thread = *(const int *)argument;
    const int64_t shape[1] = {ELEMS};
    float data[ELEMS];
    port_error err;
    for (int i = 0; i < NUM_TENSORS; i++) {
        for (int j = 0; j < ELEMS; j++) {
            data[j] = (float)(i * ELEMS + j);
        }
        port_view view = port_view_contiguous(data, PORT_F32, 1, shape);
        char name[40];
        uint32_t id = 0;
        size_t bytes = (size_t)snprintf(name, sizeof name, "t%d.%d", thread, i);
        port_status status = port_writer_put(writer, &view, name, bytes, PORT_NOWAIT, &id, &err);
        if (status == PORT_WOULD_BLOCK) {
            status = port_writer_put(writer, &view, name, bytes, 0, &id, &err);
        }
        expect(status == PORT_OK && port_writer_name(writer, name, bytes, id, 0, &err) == PORT_OK);
        expect(!port_writer_closed(writer) && port_writer_get_stats(writer).bytes_seen > 0);
        if (i % 64 == 0) {
            expect(port_writer_flush(writer, &err) == PORT_OK);
        }
    }
    return NULL;
}

/* One closes while the others ask: they are refused or served, and all see that it is closed in the end. */
static void *
close_it(void *argument)
{
    int thread = *(const int *)argument;
    port_error err;
    if (thread == 0) {
        expect(port_writer_close(writer, &err) == PORT_OK);
    }
    while (!port_writer_closed(writer)) {
        port_status status = port_writer_flush(writer, &err);
        expect(status == PORT_OK || status == PORT_E_CLOSED);
    }
    return NULL;
}

static void *
read_tensors(void *argument)
{
    int thread = *(const int *)argument;
    for (int i = 0; i < NUM_TENSORS; i++) {
        char name[40];
        port_view view;
        port_error err;
        snprintf(name, sizeof name, "t%d.%d", (thread + i) % NUM_THREADS, i);
        bool found = port_reader_find(reader, name, &view, &err) == PORT_OK;
        expect(found && ((const float *)view.data)[1] == (float)(i * ELEMS + 1));
    }
    return NULL;
}

static void
in_threads(void *(*function)(void *))
{
    pthread_t threads[NUM_THREADS];
    int numbers[NUM_THREADS];
    for (int i = 0; i < NUM_THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, function, &numbers[i]) == 0);
    }
    for (int i = 0; i < NUM_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(num_failed == 0);
}

int
main(void)
{
    fixture_start();
    const char *path = fixture_path("c");
    port_writer_options options = {.budget_bytes = 65536, .segment_bytes = 16384};
    port_error err;
    CHECK(port_writer_create(path, &options, &writer, &err) == PORT_OK);
    in_threads(write_tensors);
    port_writer_stats stats = port_writer_get_stats(writer);
    CHECK(stats.num_tensors == NUM_TENSORS && stats.num_deduplicated == NUM_TENSORS * (NUM_THREADS - 1));
    in_threads(close_it);
    port_writer_free(writer);
    CHECK(port_reader_open(path, &reader, &err) == PORT_OK);
    in_threads(read_tensors);
    CHECK(port_reader_num_names(reader) == NUM_TENSORS * NUM_THREADS);
    port_reader_free(reader);
    fixture_end();
    return CHECK_REPORT();
}
