/* io.c -- files behind a table of operations; whole reads, whole writes, atomic replacement. */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int
system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags | O_CLOEXEC, mode);
}

static int64_t
system_size(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return info.st_size;
}

static void *
system_map(int fd, size_t size)
{
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    return map != MAP_FAILED ? map : NULL;
}

const port_io_ops port_io_system = {
    .open = system_open,
    .close = close,
    .pread = pread,
    .pwritev = pwritev,
    .truncate = ftruncate,
    .sync = fsync,
    .rename = rename,
    .mkdir = mkdir,
    .size = system_size,
    .map = system_map,
};

const port_io_ops *port_io = &port_io_system;

port_status
port_io_open(const char *path, int flags, int *fd, port_error *err)
{
    do {
        *fd = port_io->open(path, flags | O_NONBLOCK, 0666); /* so that a FIFO in the place of a file does not wait for a writer */
    } while (*fd < 0 && errno == EINTR);
    return *fd >= 0 ? PORT_OK : port_fail_errno(err, errno, "cannot open %s", path);
}

port_status
port_io_write(int fd, struct iovec *pieces, int count, uint64_t at, const char *path, port_error *err)
{
    while (count > 0) {
        ssize_t done = port_io->pwritev(fd, pieces, count, (off_t)at);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return port_fail_errno(err, errno, "cannot write to %s at byte %llu", path, (unsigned long long)at);
        }
        at += (uint64_t)done;
        size_t left = (size_t)done;
        while (count > 0 && left >= pieces->iov_len) {
            left -= pieces->iov_len;
            pieces++;
            count--;
        }
        if (count > 0) {
            if (done == 0) {
                return port_fail_errno(err, ENOSPC, "cannot write to %s at byte %llu", path, (unsigned long long)at);
            }
            pieces->iov_base = (char *)pieces->iov_base + left;
            pieces->iov_len -= left;
        }
    }
    return PORT_OK;
}

port_status
port_io_size(int fd, const char *path, uint64_t *size, port_error *err)
{
    int64_t n = port_io->size(fd);
    if (n < 0) {
        return port_fail_errno(err, errno, "cannot tell the size of %s", path);
    }
    *size = (uint64_t)n;
    return PORT_OK;
}

port_status
port_io_map(int fd, uint64_t size, const char *path, void **map, port_error *err)
{
    *map = port_io->map(fd, (size_t)size);
    if (*map == NULL) {
        return port_fail_errno(err, errno, "cannot map %s", path);
    }
    return PORT_OK;
}

static port_status
read_all(int fd, char *out, size_t size, const char *path, port_error *err)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = port_io->pread(fd, out + at, size - at, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return port_fail_errno(err, errno, "cannot read %s", path);
        }
        if (n == 0) {
            return port_fail(err, PORT_E_TRUNCATED, "%s became shorter while it was read", path);
        }
        at += (size_t)n;
    }
    return PORT_OK;
}

port_status
port_io_read_file(const char *path, uint64_t max_bytes, char **data, size_t *size, port_error *err)
{
    int fd = -1;
    uint64_t bytes = 0;
    *data = NULL;
    port_status status = port_io_open(path, O_RDONLY, &fd, err);
    if (status != PORT_OK) {
        return status;
    }
    status = port_io_size(fd, path, &bytes, err);
    if (status == PORT_OK && bytes > max_bytes) {
        status = port_fail(err, PORT_E_FORMAT, "%s has %llu bytes; at most %llu are possible", path,
                           (unsigned long long)bytes, (unsigned long long)max_bytes);
    }
    if (status == PORT_OK) {
        *data = port_alloc((size_t)bytes + 1);
        status = *data != NULL ? read_all(fd, *data, (size_t)bytes, path, err)
                               : port_fail(err, PORT_E_NOMEM, "no memory to read %s", path);
    }
    port_io->close(fd);
    if (status != PORT_OK) {
        port_free(*data);
        *data = NULL;
        return status;
    }
    (*data)[bytes] = '\0';
    *size = (size_t)bytes;
    return PORT_OK;
}

port_status
port_io_replace_file(const char *path, const void *data, size_t size, port_error *err)
{
    size_t path_bytes = strlen(path);
    char *temporary = port_alloc(path_bytes + 5);
    if (temporary == NULL) {
        return port_fail(err, PORT_E_NOMEM, "no memory to write %s", path);
    }
    memcpy(temporary, path, path_bytes);
    memcpy(temporary + path_bytes, ".tmp", 5);
    int fd = -1;
    unlink(temporary); /* left by a process that died, or a link to somebody's file: that one must not be written */
    port_status status = port_io_open(temporary, O_WRONLY | O_CREAT | O_EXCL, &fd, err);
    if (status == PORT_OK) {
        struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
        status = port_io_write(fd, &piece, size > 0 ? 1 : 0, 0, temporary, err);
        if (status == PORT_OK && port_io->sync(fd) != 0) {
            status = port_fail_errno(err, errno, "cannot write %s to the disk", temporary);
        }
        if (port_io->close(fd) != 0 && status == PORT_OK) {
            status = port_fail_errno(err, errno, "cannot close %s", temporary);
        }
        if (status == PORT_OK && port_io->rename(temporary, path) != 0) {
            status = port_fail_errno(err, errno, "cannot rename %s to %s", temporary, path);
        }
        if (status != PORT_OK) {
            unlink(temporary);
        }
    }
    port_free(temporary);
    return status;
}

char *
port_path_join(const char *directory, const char *name)
{
    size_t n = strlen(directory), m = strlen(name);
    char *path = port_alloc(n + m + 2);
    if (path != NULL) {
        memcpy(path, directory, n);
        path[n] = '/';
        memcpy(path + n + 1, name, m + 1);
    }
    return path;
}
