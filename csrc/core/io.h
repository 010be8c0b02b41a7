/* io.h -- files behind a table of operations, so that a test can make the n-th call fail. Private to csrc/. */
#ifndef PORT_IO_H
#define PORT_IO_H

#include "core.h"

#include <sys/types.h>
#include <sys/uio.h>

/* Each behaves like the system call of its name: -1 (map: NULL) and errno on failure. */
typedef struct port_io_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *out, size_t size, off_t at);
    ssize_t (*pwritev)(int fd, const struct iovec *pieces, int count, off_t at);
    int (*truncate)(int fd, off_t size);
    int (*sync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*mkdir)(const char *path, mode_t mode);
    int64_t (*size)(int fd); /* of a regular file; anything else is EINVAL */
    void *(*map)(int fd, size_t size); /* read-only; released with munmap */
} port_io_ops;

/* The real ones, and those in use. Tests alone change the latter, before any thread runs. */
extern const port_io_ops port_io_system;
extern const port_io_ops *port_io;

/* All of these say the path in their error. IO unless noted. */
port_status port_io_open(const char *path, int flags, int *fd, port_error *err);
/* Writes all pieces at the offset; `pieces` is used up (changed) on the way. */
port_status port_io_write(int fd, struct iovec *pieces, int count, uint64_t at, const char *path, port_error *err);
/* The size of the open file. */
port_status port_io_size(int fd, const char *path, uint64_t *size, port_error *err);
/* Maps size > 0 bytes read-only. */
port_status port_io_map(int fd, uint64_t size, const char *path, void **map, port_error *err);
/* Reads a whole file of at most max_bytes into memory from port_alloc; a NUL follows. FORMAT if it is larger, NOMEM. */
port_status port_io_read_file(const char *path, uint64_t max_bytes, char **data, size_t *size, port_error *err);
/* Replaces a file atomically: writes path.tmp, fsync, rename. */
port_status port_io_replace_file(const char *path, const void *data, size_t size, port_error *err);

/* "a/b" in memory from port_alloc, or NULL if there is none. */
char *port_path_join(const char *directory, const char *name);

#endif /* PORT_IO_H */
