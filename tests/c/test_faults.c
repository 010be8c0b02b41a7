/* test_faults.c -- the n-th allocation fails, the n-th I/O call fails, n = 1, 2, ... until all goes well. Whatever fails, the
 * call says so with the right status, nothing leaks or crashes, and what was committed before stays readable. */
#include "store_fixture.h"

#include "check.h"

#include <errno.h>
#include <stdatomic.h>

/* ------------------------------------------------------------------ I/O calls that fail on demand */

static atomic_int io_calls, io_fail_at; /* 0: never */
static bool io_short;                   /* writes go through in small pieces */

static bool
io_fails(void)
{
    int n = atomic_fetch_add(&io_calls, 1) + 1;
    if (atomic_load(&io_fail_at) != 0 && n == atomic_load(&io_fail_at)) {
        errno = ENOSPC;
        return true;
    }
    return false;
}

static int
fault_open(const char *path, int flags, mode_t mode)
{
    return io_fails() ? -1 : port_io_system.open(path, flags, mode);
}

static ssize_t
fault_pread(int fd, void *out, size_t size, off_t at)
{
    return io_fails() ? -1 : port_io_system.pread(fd, out, io_short && size > 3 ? 3 : size, at);
}

static ssize_t
fault_pwritev(int fd, const struct iovec *pieces, int count, off_t at)
{
    if (io_fails()) {
        return -1;
    }
    if (io_short && pieces[0].iov_len > 1) {
        struct iovec less = {.iov_base = pieces[0].iov_base, .iov_len = pieces[0].iov_len / 2};
        return port_io_system.pwritev(fd, &less, 1, at);
    }
    return port_io_system.pwritev(fd, pieces, count, at);
}

static int
fault_truncate(int fd, off_t size)
{
    return io_fails() ? -1 : port_io_system.truncate(fd, size);
}

static int
fault_sync(int fd)
{
    return io_fails() ? -1 : port_io_system.sync(fd);
}

static int
fault_rename(const char *from, const char *to)
{
    return io_fails() ? -1 : port_io_system.rename(from, to);
}

static int
fault_mkdir(const char *path, mode_t mode)
{
    return io_fails() ? -1 : port_io_system.mkdir(path, mode);
}

static int64_t
fault_size(int fd)
{
    return io_fails() ? -1 : port_io_system.size(fd);
}

static void *
fault_map(int fd, size_t size)
{
    return io_fails() ? NULL : port_io_system.map(fd, size);
}

static port_io_ops fault_ops = {
    .open = fault_open, .pread = fault_pread, .pwritev = fault_pwritev, .truncate = fault_truncate, .sync = fault_sync,
    .rename = fault_rename, .mkdir = fault_mkdir, .size = fault_size, .map = fault_map,
};

/* ------------------------------------------------------------------ what is done under faults */

/* Creates, fills and closes; the first failure's status. */
static port_status
write_all(const char *path, port_error *err)
{
    port_writer *writer = NULL;
    port_status status = port_writer_create(path, NULL, &writer, err);
    if (status == PORT_OK) {
        status = fixture_fill(writer, err);
    }
    if (writer != NULL) {
        port_error at_close;
        port_status closed = port_writer_close(writer, &at_close);
        if (status == PORT_OK && closed != PORT_OK) {
            status = closed;
            *err = at_close;
        }
    }
    port_writer_free(writer);
    return status;
}

static port_status
read_all(const char *path, port_error *err)
{
    port_reader *reader = NULL;
    port_view view;
    port_status status = port_reader_open(path, &reader, err);
    if (status == PORT_OK) {
        status = port_reader_find(reader, "m.0@1.out.0", &view, err);
    }
    port_reader_free(reader);
    return status;
}

static port_status
verify_all(const char *path, port_error *err)
{
    uint64_t count;
    return port_capture_verify(path, &count, err);
}

static port_status
repair_all(const char *path, port_error *err)
{
    port_recovery recovery;
    return port_capture_repair(path, &recovery, err);
}

/* If anything was left behind, it opens without faults, and repair makes it whole. */
static void
check_left_behind(const char *path)
{
    port_error err = {.message = ""};
    port_reader *reader = NULL;
    struct stat info;
    if (stat(path, &info) != 0) {
        return;
    }
    port_status status = port_reader_open(path, &reader, &err);
    CHECK(status == PORT_OK);
    if (status != PORT_OK) {
        fprintf(stderr, "  %s\n", err.message);
    }
    port_reader_free(reader);
    CHECK(repair_all(path, &err) == PORT_OK && verify_all(path, &err) == PORT_OK);
}

static void
allocations_fail_while_writing(void)
{
    const char *path = fixture_path("alloc");
    port_status status = PORT_E_NOMEM;
    size_t n = 0;
    while (status != PORT_OK && n < 2000) {
        port_error err = {.message = ""};
        port_alloc_fail_after(++n);
        status = write_all(path, &err);
        port_alloc_fail_after(0);
        CHECK(status == PORT_OK || status == PORT_E_NOMEM);
        check_left_behind(path);
        fixture_remove(path);
    }
    CHECK(status == PORT_OK && n > 20);
}

/* One allocation fails; the writer goes on, and what it says it stored is there. */
static void
a_writer_survives_a_failed_allocation(void)
{
    const char *path = fixture_path("survive");
    for (size_t n = 1; n < 40; n++) {
        port_writer *writer = NULL;
        port_reader *reader = NULL;
        port_error err = {.message = ""};
        CHECK(port_writer_create(path, NULL, &writer, &err) == PORT_OK);
        port_alloc_fail_after(n);
        port_status first = fixture_fill(writer, &err);
        port_alloc_fail_after(0);
        CHECK(first == PORT_OK || first == PORT_E_NOMEM);
        float value = 42;
        port_view view = port_view_contiguous(&value, PORT_F32, 0, NULL), found;
        port_status second = port_writer_add(writer, "after", &view, &err);
        CHECK(second == PORT_OK || second == PORT_E_NOMEM); /* NOMEM: it was the thread that failed */
        CHECK((port_writer_close(writer, &err) == PORT_OK) == (second == PORT_OK));
        port_writer_free(writer);
        CHECK(port_reader_open(path, &reader, &err) == PORT_OK);
        CHECK(second != PORT_OK || port_reader_find(reader, "after", &found, &err) == PORT_OK);
        port_reader_free(reader);
        fixture_remove(path);
    }
}

static void
allocations_fail_while_reading(void)
{
    port_status (*const work[])(const char *, port_error *) = {read_all, verify_all, repair_all};
    const char *path = fixture_path("read");
    port_error err = {.message = ""};
    CHECK(write_all(path, &err) == PORT_OK);
    for (size_t k = 0; k < sizeof work / sizeof work[0]; k++) {
        port_status status = PORT_E_NOMEM;
        size_t n = 0;
        while (status != PORT_OK && n < 1000) {
            port_alloc_fail_after(++n);
            status = work[k](path, &err);
            port_alloc_fail_after(0);
            CHECK(status == PORT_OK || status == PORT_E_NOMEM);
        }
        CHECK(status == PORT_OK && n > 5);
    }
}

static void
io_fails_everywhere(void)
{
    const char *path = fixture_path("io");
    port_io = &fault_ops;
    for (int pieces = 0; pieces < 2; pieces++) {
        io_short = pieces != 0;
        port_status status = PORT_E_IO;
        int n = 0;
        while (status != PORT_OK && n < 1000) {
            port_error err = {.message = ""};
            atomic_store(&io_calls, 0);
            atomic_store(&io_fail_at, ++n);
            status = write_all(path, &err);
            atomic_store(&io_fail_at, 0);
            CHECK(status == PORT_OK || (status == PORT_E_IO && err.os_errno == ENOSPC));
            check_left_behind(path);
            fixture_remove(path);
        }
        CHECK(status == PORT_OK && n > 15);
    }
    io_short = false;
}

static void
io_fails_while_repairing(void)
{
    const char *path = fixture_path("repair");
    port_status status = PORT_E_IO;
    int n = 0;
    while (status != PORT_OK && n < 200) {
        port_writer *writer = NULL;
        port_error err = {.message = ""};
        CHECK(port_writer_create(path, NULL, &writer, &err) == PORT_OK && fixture_fill(writer, &err) == PORT_OK);
        port_writer_free(writer); /* without close */
        atomic_store(&io_calls, 0);
        atomic_store(&io_fail_at, ++n);
        status = repair_all(path, &err);
        atomic_store(&io_fail_at, 0);
        CHECK(status == PORT_OK || (status == PORT_E_IO && err.os_errno == ENOSPC));
        check_left_behind(path); /* a repair that failed can be repeated */
        port_reader *reader = NULL;
        CHECK(port_reader_open(path, &reader, &err) == PORT_OK && port_reader_num_names(reader) == 5);
        port_reader_free(reader);
        fixture_remove(path);
    }
    CHECK(status == PORT_OK && n > 8);
}

int
main(void)
{
    fault_ops.close = port_io_system.close;
    fixture_start();
    allocations_fail_while_writing();
    a_writer_survives_a_failed_allocation();
    allocations_fail_while_reading();
    io_fails_everywhere();
    io_fails_while_repairing();
    fixture_end();
    return CHECK_REPORT();
}
