/* store_fixture.h -- temporary directories and whole files for the C tests of the store. */
#ifndef PORT_STORE_FIXTURE_H
#define PORT_STORE_FIXTURE_H

#include "core/io.h"
#include "store/store.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char fixture_root[256];

static int
fixture_remove_one(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info;
    (void)flag;
    (void)walk;
    return remove(path);
}

static inline void
fixture_remove(const char *path)
{
    nftw(path, fixture_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes a fresh directory below TMPDIR. */
static inline const char *
fixture_start(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(fixture_root, sizeof fixture_root, "%s/port-test-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(fixture_root) == NULL) {
        perror(fixture_root);
        exit(2);
    }
    return fixture_root;
}

static inline void
fixture_end(void)
{
    fixture_remove(fixture_root);
}

/* "root/name" in one of a few static buffers. */
static inline const char *
fixture_path(const char *name)
{
    static char paths[4][512];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", fixture_root, name);
    return paths[next];
}

static inline void
fixture_write(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(2);
    }
}

/* A small capture: five tensors (one empty, one strided), two calls, a name, an alias, a note. */
static inline port_status
fixture_fill(port_writer *writer, port_error *err)
{
    static const char structure[] = "{\"leaves\":[\"0\",\"cache.1\"],\"names\":{},\"tree\":{\"tuple\":[{\"$\":0},{\"$\":1}]}}";
    float values[24];
    for (int i = 0; i < 24; i++) {
        values[i] = (float)i * 0.5f;
    }
    const int64_t shape[2] = {4, 6}, none[1] = {0};
    port_view whole = port_view_contiguous(values, PORT_F32, 2, shape), empty = port_view_contiguous(NULL, PORT_I8, 1, none);
    port_view turned = {.data = values, .dtype = PORT_F32, .ndim = 2, .shape = {6, 4}, .strides = {1, 6}};
    uint32_t ids[2], other;
    port_call_record in = {.module = "m.0", .module_bytes = 3, .structure = structure, .structure_bytes = sizeof structure - 1,
                           .phase = PORT_PHASE_IN, .count = 2, .tensor_ids = ids};
    port_status status = port_writer_put(writer, &whole, "m.0.in.0", 8, 0, &ids[0], err);
    if (status == PORT_OK) {
        status = port_writer_put(writer, &turned, "m.0.in.0", 8, 0, &ids[1], err);
    }
    if (status == PORT_OK) {
        status = port_writer_call(writer, &in, 0, err);
    }
    port_call_record again = in;
    again.call = again.step = 1;
    again.phase = PORT_PHASE_OUT;
    if (status == PORT_OK) {
        status = port_writer_call(writer, &again, 0, err);
    }
    if (status == PORT_OK) {
        status = port_writer_put(writer, &empty, "empty", 5, 0, &other, err);
    }
    if (status == PORT_OK) {
        status = port_writer_alias(writer, "shared", 6, "m.0", 3, 0, err);
    }
    if (status == PORT_OK) {
        status = port_writer_note(writer, "{\"kind\":\"warning\"}", 18, 0, err);
    }
    values[0] = -1.0f;
    if (status == PORT_OK) {
        status = port_writer_add(writer, "changed", &whole, err);
    }
    return status;
}

#endif /* PORT_STORE_FIXTURE_H */
