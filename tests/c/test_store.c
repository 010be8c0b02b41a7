/* test_store.c -- a capture written and read through porting.h: names, equal tensors, bad arguments, small budgets. */
#include "store_fixture.h"

#include "check.h"

#include <pthread.h>
#include <sys/wait.h>

static port_writer *
new_writer(const char *path, uint64_t budget_bytes, uint64_t segment_bytes)
{
    port_writer *writer = NULL;
    port_error err;
    port_writer_options options = {.budget_bytes = budget_bytes, .segment_bytes = segment_bytes};
    port_status status = port_writer_create(path, &options, &writer, &err);
    if (status != PORT_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(2);
    }
    return writer;
}

static void
public_api_alone(void)
{
    const char *path = fixture_path("public");
    port_writer *writer = NULL;
    port_error err;
    float data[6] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[2] = {2, 3};
    port_view view = port_view_contiguous(data, PORT_F32, 2, shape), found;
    CHECK(port_writer_create(path, NULL, &writer, &err) == PORT_OK);
    CHECK(port_writer_add(writer, "a.out.0", &view, &err) == PORT_OK);
    CHECK(port_writer_add(writer, "b.out.0", &view, &err) == PORT_OK);
    data[0] = 9;
    CHECK(port_writer_add(writer, "a.out.0", &view, &err) == PORT_E_EXISTS);
    CHECK(port_writer_add(writer, "", &view, &err) == PORT_E_VALUE);
    CHECK(port_writer_add(writer, "__metadata__", &view, &err) == PORT_E_VALUE);
    CHECK(port_writer_add(writer, "bad\xff", &view, &err) == PORT_E_VALUE);
    view.ndim = PORT_MAX_NDIM + 1;
    CHECK(port_writer_add(writer, "c", &view, &err) == PORT_E_VALUE);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    view.ndim = 2;
    CHECK(port_writer_add(writer, "d", &view, &err) == PORT_E_CLOSED);
    port_writer_free(writer);
    CHECK(port_writer_create(path, NULL, &writer, &err) == PORT_E_EXISTS && writer == NULL);
    CHECK(port_writer_create(fixture_path("no/such/parent"), NULL, &writer, &err) == PORT_E_IO && err.os_errno == 2);

    port_reader *reader = NULL;
    CHECK(port_reader_open(path, &reader, &err) == PORT_OK);
    CHECK(port_reader_finished(reader) && port_reader_num_names(reader) == 2 && port_reader_num_tensors(reader) == 1);
    CHECK(strcmp(port_reader_name(reader, 1), "b.out.0") == 0 && port_reader_name(reader, 2) == NULL);
    CHECK(port_reader_find(reader, "b.out.0", &found, &err) == PORT_OK);
    CHECK(found.ndim == 2 && found.shape[1] == 3 && ((const float *)found.data)[0] == 1.0f);
    CHECK(port_reader_find(reader, "c.out.0", &found, &err) == PORT_E_NAME && strstr(err.message, "did you mean") != NULL);
    CHECK(port_reader_find(reader, "something else altogether", &found, &err) == PORT_E_NAME);
    CHECK(strstr(err.message, "did you mean") == NULL);
    port_reader_free(reader);
    port_reader_free(NULL);
    port_writer_free(NULL);
}

static void
calls_and_names(void)
{
    static const char *expected[] = {"m.0.in.0", "m.0.in.cache.1", "m.0@1.out.0", "m.0@1.out.cache.1", "changed"};
    const char *path = fixture_path("calls");
    port_writer *writer = new_writer(path, 0, 0);
    port_error err;
    CHECK(fixture_fill(writer, &err) == PORT_OK);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    port_writer_free(writer);
    port_reader *reader = NULL;
    CHECK(port_reader_open(path, &reader, &err) == PORT_OK);
    CHECK(port_reader_num_names(reader) == 5 && port_reader_num_calls(reader) == 2 && port_reader_num_notes(reader) == 1);
    for (size_t i = 0; i < 5; i++) {
        CHECK(strcmp(port_reader_name(reader, i), expected[i]) == 0);
    }
    port_view view;
    CHECK(port_reader_find(reader, "shared@1.out.cache.1", &view, &err) == PORT_OK); /* through the alias */
    CHECK(view.shape[0] == 6 && view.strides[0] == 4 && ((const float *)view.data)[1] == 3.0f);
    port_tensor_info info = port_reader_info(reader, 1);
    CHECK(info.strides[0] == 1 && info.strides[1] == 6 && strcmp(info.key, "m.0.in.0#2") == 0);
    CHECK(port_reader_find(reader, "m.0.in.0", &view, &err) == PORT_OK && ((const float *)view.data)[0] == 0.0f);
    CHECK(port_reader_find(reader, "changed", &view, &err) == PORT_OK && ((const float *)view.data)[0] == -1.0f);
    port_reader_free(reader);
    uint64_t count = 0;
    CHECK(port_capture_verify(path, &count, &err) == PORT_OK && count == 4);
}

static void
bad_calls(void)
{
    port_writer *writer = new_writer(fixture_path("bad"), 0, 0);
    port_error err;
    uint32_t ids[2] = {0, 7}, id;
    const char *structure = "{\"leaves\":[\"0\"]}";
    float one = 1;
    port_view view = port_view_contiguous(&one, PORT_F32, 0, NULL);
    CHECK(port_writer_put(writer, &view, "k", 1, 0, &id, &err) == PORT_OK && id == 0);
    port_call_record record = {.module = "m", .module_bytes = 1, .structure = structure, .structure_bytes = strlen(structure),
                               .count = 1, .tensor_ids = ids};
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_OK);
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_E_VALUE); /* the same call again */
    record.call = 1;
    record.count = 2;
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_E_VALUE); /* two tensors, one leaf */
    record.count = 1;
    record.tensor_ids = ids + 1;
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_E_VALUE); /* no tensor 7 */
    record.tensor_ids = ids;
    record.phase = 4;
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_E_VALUE);
    record.phase = 1;
    record.structure = "{\"leaves\":[0]}";
    record.structure_bytes = 14;
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_E_VALUE);
    record.structure = structure;
    record.structure_bytes = strlen(structure);
    CHECK(port_writer_call(writer, &record, 0, &err) == PORT_OK);
    CHECK(port_writer_note(writer, "[]", 2, 0, &err) == PORT_E_VALUE && port_writer_note(writer, "{}", 2, 0, &err) == PORT_OK);
    CHECK(port_writer_set_manifest(writer, "{}", 2, &err) == PORT_E_VALUE);
    CHECK(port_writer_name(writer, "x", 1, 1, 0, &err) == PORT_E_VALUE);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    port_writer_free(writer);
    port_reader *reader = NULL;
    CHECK(port_reader_open(fixture_path("bad"), &reader, &err) == PORT_OK && port_reader_num_calls(reader) == 2);
    port_reader_free(reader);
}

/* Four threads through a ring of 64 KiB, with tensors smaller and larger than it, into segments of 256 KiB. */
typedef struct thread_task {
    port_writer *writer;
    uint32_t number;
    uint32_t ids[50];
    bool ok;
} thread_task;

static int64_t
task_elems(uint32_t k)
{
    return k % 10 == 9 ? 40000 : 10 + (int64_t)k * 37;
}

static void
task_values(uint32_t number, uint32_t k, uint32_t *out)
{
    for (int64_t i = 0; i < task_elems(k); i++) {
        out[i] = number * 1000003u + k * 10007u + (uint32_t)i;
    }
}

static void *
run_task(void *argument)
{
    thread_task *task = argument;
    static _Thread_local uint32_t values[40000];
    task->ok = true;
    for (uint32_t k = 0; k < 50; k++) {
        int64_t shape[1] = {task_elems(k)};
        task_values(task->number, k, values);
        port_view view = port_view_contiguous(values, PORT_U32, 1, shape);
        task->ok = task->ok && port_writer_put(task->writer, &view, "same key", 8, 0, &task->ids[k], NULL) == PORT_OK;
    }
    return NULL;
}

static void
many_threads_small_budget(void)
{
    const char *path = fixture_path("threads");
    static uint32_t values[40000];
    thread_task tasks[4];
    pthread_t threads[4];
    port_error err;
    port_writer *writer = new_writer(path, 1, 256 * 1024);
    for (uint32_t t = 0; t < 4; t++) {
        tasks[t] = (thread_task){.writer = writer, .number = t};
        pthread_create(&threads[t], NULL, run_task, &tasks[t]);
    }
    for (uint32_t t = 0; t < 4; t++) {
        pthread_join(threads[t], NULL);
        CHECK(tasks[t].ok);
    }
    CHECK(port_writer_get_stats(writer).peak_waiting_bytes <= 64 * 1024);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    port_writer_free(writer);
    port_reader *reader = NULL;
    CHECK(port_reader_open(path, &reader, &err) == PORT_OK && port_reader_num_tensors(reader) == 200);
    for (uint32_t t = 0; t < 4; t++) {
        for (uint32_t k = 0; k < 50; k++) {
            port_view view = port_reader_tensor(reader, tasks[t].ids[k]);
            task_values(t, k, values);
            CHECK(view.shape[0] == task_elems(k) && memcmp(view.data, values, 4 * (size_t)view.shape[0]) == 0);
        }
    }
    port_reader_free(reader);
    uint64_t count = 0;
    CHECK(port_capture_verify(path, &count, &err) == PORT_OK && count == 200);
}

static void
a_forked_child_cannot_write(void)
{
    const char *path = fixture_path("fork");
    port_writer *writer = new_writer(path, 0, 0);
    port_error err;
    CHECK(fixture_fill(writer, &err) == PORT_OK);
    pid_t child = fork();
    if (child == 0) {
        float one = 1;
        port_view view = port_view_contiguous(&one, PORT_F32, 0, NULL);
        bool refused = port_writer_add(writer, "child", &view, NULL) == PORT_E_CLOSED &&
                       port_writer_close(writer, NULL) == PORT_E_CLOSED;
        port_writer_free(writer);
        _exit(refused ? 0 : 1);
    }
    int how = -1;
    waitpid(child, &how, 0);
    CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    CHECK(port_writer_close(writer, &err) == PORT_OK);
    port_writer_free(writer);
    port_reader *reader = NULL;
    CHECK(port_reader_open(path, &reader, &err) == PORT_OK && port_reader_num_names(reader) == 5);
    port_reader_free(reader);
}

int
main(void)
{
    fixture_start();
    public_api_alone();
    calls_and_names();
    bad_calls();
    many_threads_small_budget();
    a_forked_child_cannot_write();
    fixture_end();
    return CHECK_REPORT();
}
