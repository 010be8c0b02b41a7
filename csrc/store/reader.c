/* reader.c -- opening a capture: one pass over the journal.
 *
 * Where reading stops, and what that means (docs/FORMAT.md, section 4):
 *   - A record whose frame or checksum does not hold ends an unfinished capture. In a finished one it is damage.
 *     A capture is finished if its journal ends with an END record, or if its manifest says so.
 *   - A record with a good checksum and impossible content was never written by a writer: that is refused in any case.
 *   - A tensor whose bytes are missing ends an unfinished capture: what comes after may speak of it. */
#include "reader.h"

#include "../core/io.h"
#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define END_BYTES (RECORD_HEAD_BYTES + 8)

static port_status
no_memory(const char *path, port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory to open %s", path);
}

static port_status
read_manifest(port_reader *reader, port_error *err)
{
    char *path = port_path_join(reader->path, "MANIFEST.json");
    if (path == NULL) {
        return no_memory(reader->path, err);
    }
    char *text;
    size_t size;
    port_error why;
    port_status status = port_io_read_file(path, MANIFEST_MAX_BYTES, &text, &size, &why);
    if (status == PORT_E_IO && (why.os_errno == ENOENT || why.os_errno == ENOTDIR)) {
        int fd = port_io->open(reader->path, O_RDONLY, 0);
        if (fd < 0) {
            status = port_fail_errno(err, errno, "cannot open %s", reader->path);
        } else {
            port_io->close(fd);
            status = port_fail(err, PORT_E_FORMAT, "%s is not a capture: it has no MANIFEST.json", reader->path);
        }
    } else if (status == PORT_OK) {
        status = port_manifest_check(text, size, &reader->manifest_finished, &why);
        if (status == PORT_E_FORMAT) {
            status = port_fail(err, PORT_E_FORMAT, "%s is not a capture's manifest: %.400s", path, why.message);
        } else if (status != PORT_OK && err != NULL) {
            *err = why;
        }
        port_free(text);
    } else if (err != NULL) {
        *err = why;
    }
    port_free(path);
    return status;
}

/* The number of a directory called rank00000; -1 for every other name. */
static int32_t
rank_of(const char *name)
{
    int32_t rank = 0;
    if (strlen(name) != 9 || memcmp(name, "rank", 4) != 0) {
        return -1;
    }
    for (int i = 4; i < 9; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return -1;
        }
        rank = 10 * rank + (name[i] - '0');
    }
    return rank;
}

static port_status
find_rank(port_reader *reader, port_error *err)
{
    DIR *directory = opendir(reader->path);
    if (directory == NULL) {
        return port_fail_errno(err, errno, "cannot read the directory %s", reader->path);
    }
    int32_t found = -1, count = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        int32_t rank = rank_of(entry->d_name);
        if (rank >= 0) {
            found = rank;
            count++;
        }
    }
    closedir(directory);
    if (count == 0) {
        return port_fail(err, PORT_E_FORMAT, "%s is not a capture: it has no rank00000", reader->path);
    }
    if (count > 1) {
        return port_fail(err, PORT_E_UNSUPPORTED, "%s holds the ranks of %d processes; only captures of one can be read",
                         reader->path, count);
    }
    char name[16];
    snprintf(name, sizeof name, "rank%05u", (unsigned)found % 100000u);
    reader->rank = (uint32_t)found;
    reader->directory = port_path_join(reader->path, name);
    return reader->directory != NULL ? PORT_OK : no_memory(reader->path, err);
}

/* True if the journal's last bytes are a whole END record. */
static bool
ends_with_end(const unsigned char *journal, uint64_t size)
{
    uint32_t frame[2];
    uint64_t checksum;
    unsigned char joined[16];
    if (size < JOURNAL_HEAD_BYTES + END_BYTES) {
        return false;
    }
    const unsigned char *record = journal + size - END_BYTES;
    memcpy(frame, record, 8);
    memcpy(&checksum, record + 8, 8);
    memcpy(joined, record, 8);
    memcpy(joined + 8, record + RECORD_HEAD_BYTES, 8);
    return frame[0] == 8 && frame[1] == RECORD_END && port_hash(joined, sizeof joined).low == checksum;
}

static port_status
check_head(const port_reader *reader, const unsigned char *journal, port_error *err)
{
    char expected[JOURNAL_HEAD_BYTES];
    uint32_t version, rank;
    port_journal_head(expected, reader->rank);
    memcpy(&version, journal + 8, 4);
    memcpy(&rank, journal + 12, 4);
    if (memcmp(journal, expected, 8) != 0) {
        return port_fail(err, PORT_E_FORMAT, "%s/journal.bin is not a journal", reader->directory);
    }
    if (version != JOURNAL_VERSION) {
        return port_fail(err, PORT_E_VERSION, "%s/journal.bin has version %u; this program reads %d", reader->directory, version,
                         JOURNAL_VERSION);
    }
    if (rank != reader->rank) {
        return port_fail(err, PORT_E_CORRUPT, "%s/journal.bin belongs to rank %u", reader->directory, rank);
    }
    return PORT_OK;
}

static void
stop_here(port_reader *reader, uint64_t at, const char *reason)
{
    reader->recovery.records = reader->num_records;
    reader->recovery.dropped_bytes = reader->journal_bytes - at;
    snprintf(reader->recovery.reason, sizeof reader->recovery.reason, "%.250s", reason);
}

/* Adds where it was to an error that speaks of a record. */
static port_status
at_record(const port_reader *reader, uint64_t at, port_status status, const port_error *why, port_error *err)
{
    if (status == PORT_E_NOMEM || status == PORT_E_IO) {
        if (err != NULL) {
            *err = *why;
        }
        return status;
    }
    port_fail(err, status, "%s/journal.bin, record at byte %llu: %.500s", reader->directory, (unsigned long long)at, why->message);
    if (err != NULL) {
        err->offset = at;
    }
    return status;
}

static port_status
scan(port_reader *reader, const unsigned char *journal, bool lenient, port_error *err)
{
    uint64_t size = reader->journal_bytes, at = JOURNAL_HEAD_BYTES;
    bool strict = !lenient && (reader->manifest_finished || ends_with_end(journal, size));
    port_text scratch = {0};
    port_error why;
    port_status status = PORT_OK;
    while (!reader->finished && at < size) {
        int kind;
        port_cursor payload;
        uint64_t next;
        status = port_record_read(journal, size, at, &scratch, &kind, &payload, &next, &why);
        bool framed = status == PORT_OK;
        if (framed) {
            status = port_reader_decode(reader, kind, &payload, &why);
        }
        if (status != PORT_OK) {
            bool cut = (!framed && status != PORT_E_NOMEM) || status == PORT_E_TRUNCATED;
            if (cut && !strict) {
                stop_here(reader, at, why.message);
                status = PORT_OK;
            } else {
                status = at_record(reader, at, status, &why, err);
            }
            break;
        }
        reader->num_records += kind != RECORD_END;
        at = next;
    }
    port_text_free(&scratch);
    reader->good_bytes = at;
    if (status != PORT_OK) {
        return status;
    }
    if (reader->finished && at != size) {
        return port_fail(err, PORT_E_CORRUPT, "%s/journal.bin goes on after its END record", reader->directory);
    }
    if (!reader->finished && strict) {
        return port_fail(err, PORT_E_TRUNCATED, "%s/journal.bin has no END record, but the manifest says that the capture is "
                         "finished: it was cut or damaged; `porting repair` keeps what is left", reader->directory);
    }
    if (!reader->finished && reader->recovery.reason[0] == '\0') {
        stop_here(reader, at, "the capture was not closed");
    }
    return PORT_OK;
}

static port_status
read_journal(port_reader *reader, bool lenient, port_error *err)
{
    int fd = -1;
    void *map = NULL;
    char *path = port_path_join(reader->directory, "journal.bin");
    if (path == NULL) {
        return no_memory(reader->path, err);
    }
    port_error why;
    port_status status = port_io_open(path, O_RDONLY, &fd, &why);
    if (status != PORT_OK) {
        if (why.os_errno == ENOENT) {
            status = port_fail(err, PORT_E_FORMAT, "%s is not a capture: %s is missing", reader->path, path);
        } else if (err != NULL) {
            *err = why;
        }
        port_free(path);
        return status;
    }
    status = port_io_size(fd, path, &reader->journal_bytes, err);
    if (status == PORT_OK && reader->journal_bytes < JOURNAL_HEAD_BYTES) {
        status = port_fail(err, PORT_E_TRUNCATED, "%s has %llu bytes, not even a head", path,
                           (unsigned long long)reader->journal_bytes);
    }
    if (status == PORT_OK) {
        status = port_io_map(fd, reader->journal_bytes, path, &map, err);
    }
    if (status == PORT_OK) {
        status = check_head(reader, map, err);
    }
    if (status == PORT_OK) {
        status = scan(reader, map, lenient, err);
    }
    if (map != NULL) {
        munmap(map, (size_t)reader->journal_bytes);
    }
    port_io->close(fd);
    port_free(path);
    return status;
}

port_status
port_reader_open_as(const char *path, bool lenient, port_reader **out, port_error *err)
{
    *out = NULL;
    port_reader *reader = port_calloc(1, sizeof *reader);
    if (reader == NULL) {
        return no_memory(path, err);
    }
    pthread_mutex_init(&reader->names_lock, NULL);
    size_t path_bytes = strlen(path) + 1;
    reader->path = port_alloc(path_bytes);
    port_status status = reader->path != NULL ? PORT_OK : no_memory(path, err);
    if (status == PORT_OK) {
        memcpy(reader->path, path, path_bytes);
        status = read_manifest(reader, err);
    }
    if (status == PORT_OK) {
        status = find_rank(reader, err);
    }
    if (status == PORT_OK) {
        status = read_journal(reader, lenient, err);
    }
    if (status != PORT_OK) {
        port_reader_free(reader);
        return status;
    }
    *out = reader;
    return PORT_OK;
}

port_status
port_reader_open(const char *path, port_reader **reader, port_error *err)
{
    return port_reader_open_as(path, false, reader, err);
}

void
port_reader_free(port_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    for (size_t i = 0; i < reader->segments.count; i++) {
        munmap(reader->segments.items[i].map, (size_t)reader->segments.items[i].size);
        port_free(reader->segments.items[i].path);
    }
    for (size_t i = 0; i < reader->blocks.count; i++) {
        port_free(reader->blocks.items[i]);
    }
    port_free(reader->blocks.items);
    port_free(reader->strings.items);
    port_free(reader->tensors.items);
    port_free(reader->dims.items);
    port_free(reader->calls.items);
    port_free(reader->ids.items);
    port_free(reader->leaves.items);
    port_free(reader->bound.items);
    port_free(reader->aliases.items);
    port_free(reader->notes.items);
    port_free(reader->namings.items);
    port_free(reader->segments.items);
    port_strings_free(&reader->names.table);
    port_free(reader->names.tensors);
    pthread_mutex_destroy(&reader->names_lock);
    port_free(reader->path);
    port_free(reader->directory);
    port_free(reader);
}

/* ------------------------------------------------------------------ looking at it */

bool
port_reader_finished(const port_reader *reader)
{
    return reader->finished;
}

size_t
port_reader_num_tensors(const port_reader *reader)
{
    return reader->tensors.count;
}

port_tensor_info
port_reader_info(const port_reader *reader, uint32_t id)
{
    const read_tensor *t = &reader->tensors.items[id];
    const int64_t *shape = reader->dims.items + t->dims_at;
    return (port_tensor_info){.dtype = (port_dtype)t->dtype, .ndim = t->ndim, .shape = shape, .strides = shape + t->ndim,
                              .bytes = t->bytes, .offset = t->offset, .hash = t->hash, .segment = t->segment,
                              .key = reader->strings.items[t->key].text};
}

port_view
port_reader_tensor(const port_reader *reader, uint32_t id)
{
    const read_tensor *t = &reader->tensors.items[id];
    char *map = reader->segments.items[t->segment].map;
    return port_view_contiguous(map + t->offset, (port_dtype)t->dtype, t->ndim, reader->dims.items + t->dims_at);
}

size_t
port_reader_num_strings(const port_reader *reader)
{
    return reader->strings.count;
}

const char *
port_reader_string(const port_reader *reader, uint32_t id, size_t *size)
{
    *size = reader->strings.items[id].size;
    return reader->strings.items[id].text;
}

size_t
port_reader_num_calls(const port_reader *reader)
{
    return reader->calls.count;
}

port_call_info
port_reader_call(const port_reader *reader, size_t i)
{
    const read_call *c = &reader->calls.items[i];
    return (port_call_info){.module = c->module, .structure = c->structure, .call = c->call, .step = c->step, .phase = c->phase,
                            .count = c->count, .tensor_ids = reader->ids.items + c->ids_at};
}

size_t
port_reader_num_bound(const port_reader *reader)
{
    return reader->bound.count;
}

void
port_reader_bound(const port_reader *reader, size_t i, const char **name, uint32_t *id)
{
    *name = reader->strings.items[reader->bound.items[i].first].text;
    *id = reader->bound.items[i].second;
}

size_t
port_reader_num_aliases(const port_reader *reader)
{
    return reader->aliases.count;
}

void
port_reader_alias(const port_reader *reader, size_t i, const char **alias, const char **module)
{
    *alias = reader->strings.items[reader->aliases.items[i].first].text;
    *module = reader->strings.items[reader->aliases.items[i].second].text;
}

size_t
port_reader_num_notes(const port_reader *reader)
{
    return reader->notes.count;
}

const char *
port_reader_note(const port_reader *reader, size_t i)
{
    return reader->notes.items[i].text;
}

port_recovery
port_reader_recovery(const port_reader *reader)
{
    return reader->recovery;
}
