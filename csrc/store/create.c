/* create.c -- the life of a writer: create, manifest, flush, close, abort, free.
 *
 * Closing, in this order: seal the last segment, index, manifest (not finished yet), END record, manifest (finished). So a
 * journal with END has all that a finished capture has, and a manifest that says "finished" has a journal with END. */
#include "reader.h"
#include "writer.h"

#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_BUDGET_BYTES (256u * 1024 * 1024)
#define DEFAULT_SEGMENT_BYTES (1024u * 1024 * 1024)
#define MAX_RANK 99999u

static port_status
no_memory(const char *path, port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory to write %s", path);
}

static port_status
write_manifest(const port_writer *writer, const char *text, size_t size, port_error *err)
{
    char *path = port_path_join(writer->path, "MANIFEST.json");
    if (path == NULL) {
        return no_memory(writer->path, err);
    }
    port_status status = port_io_replace_file(path, text, size, err);
    port_free(path);
    return status;
}

/* The text at fault is the caller's, not a file's. */
static port_status
as_value_error(port_error *err)
{
    if (err != NULL) {
        err->status = PORT_E_VALUE;
    }
    return PORT_E_VALUE;
}

/* Writes the manifest with "finished" set; text NULL: the one that was set last, or a minimal one. Keeps it. */
static port_status
put_manifest(port_writer *writer, const char *text, size_t size, bool finished, port_error *err)
{
    port_text out = {0};
    port_status status = PORT_OK;
    if (text == NULL && writer->manifest == NULL) {
        port_manifest_minimal(&out, finished);
        status = out.failed ? no_memory(writer->path, err) : PORT_OK;
    } else {
        text = text != NULL ? text : writer->manifest;
        size = text != writer->manifest ? size : writer->manifest_bytes;
        status = port_manifest_with_finished(text, size, finished, &out, err);
        if (status == PORT_E_FORMAT || status == PORT_E_VERSION) {
            status = as_value_error(err);
        }
    }
    if (status == PORT_OK && writer->owns_manifest) { /* another rank's describes the run */
        status = write_manifest(writer, out.data, out.size, err);
    }
    if (status == PORT_OK) {
        port_free(writer->manifest);
        writer->manifest = out.data;
        writer->manifest_bytes = out.size;
        return PORT_OK;
    }
    port_text_free(&out);
    return status;
}

/* ------------------------------------------------------------------ create */

static port_status
make_directory(const char *path, bool may_exist, bool *is_new, port_error *err)
{
    *is_new = port_io->mkdir(path, 0777) == 0;
    if (*is_new || (may_exist && errno == EEXIST)) {
        return PORT_OK;
    }
    if (errno == EEXIST) {
        return port_fail(err, PORT_E_EXISTS, "%s is there already; a capture is never written over something else", path);
    }
    return port_fail_errno(err, errno, "cannot create the directory %s", path);
}

/* Creates the journal with its head. */
static port_status
make_journal(const port_writer *writer, int *fd, port_error *err)
{
    char head[JOURNAL_HEAD_BYTES];
    port_journal_head(head, writer->rank);
    char *path = port_path_join(writer->directory, "journal.bin");
    if (path == NULL) {
        return no_memory(writer->path, err);
    }
    port_status status = port_io_open(path, O_WRONLY | O_CREAT | O_EXCL, fd, err);
    if (status == PORT_OK) {
        struct iovec piece = {.iov_base = head, .iov_len = sizeof head};
        status = port_io_write(*fd, &piece, 1, 0, path, err);
    }
    port_free(path);
    return status;
}

/* Takes away what a failed create has left, without needing memory. */
static void
remove_files(const port_writer *writer)
{
    const char *directories[] = {writer->directory, writer->path};
    const char *files[] = {"journal.bin", "MANIFEST.json"};
    for (int i = 0; i < 2; i++) {
        int fd = open(directories[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            unlinkat(fd, files[i], 0);
            close(fd);
            rmdir(directories[i]);
        }
    }
}

static void
free_writer(port_writer *writer)
{
    port_text *texts[] = {&writer->records, &writer->header, &writer->entry};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        port_text_free(texts[i]);
    }
    port_strings_free(&writer->strings);
    port_strings_free(&writer->calls);
    port_free(writer->tensors);
    port_free(writer->dims);
    port_free(writer->slots);
    port_free(writer->manifest);
    port_free(writer->path);
    port_free(writer->directory);
    port_free(writer);
}

/* The parts of create that leave files behind; *made says that there are some. */
static port_status
make_files(port_writer *writer, uint64_t budget_bytes, bool *made, port_error *err)
{
    int journal_fd = -1;
    bool shared = writer->rank > 0; /* the other ranks write into the same directory */
    port_status status = make_directory(writer->path, shared, &writer->owns_manifest, err);
    if (status != PORT_OK) {
        return status;
    }
    *made = !shared;
    status = put_manifest(writer, NULL, 0, false, err);
    if (status == PORT_OK) {
        bool is_new;
        status = make_directory(writer->directory, false, &is_new, err);
    }
    if (status == PORT_OK) {
        status = make_journal(writer, &journal_fd, err);
    }
    if (status == PORT_OK) {
        status = port_queue_start(&writer->queue, budget_bytes, writer->directory, journal_fd, JOURNAL_HEAD_BYTES, err);
    }
    if (status != PORT_OK && journal_fd >= 0) {
        port_io->close(journal_fd);
    }
    return status;
}

port_status
port_writer_create(const char *path, const port_writer_options *options, port_writer **out, port_error *err)
{
    *out = NULL;
    port_writer_options defaults = {0};
    options = options != NULL ? options : &defaults;
    if (path[0] == '\0' || options->rank > MAX_RANK) {
        return port_fail(err, PORT_E_VALUE, path[0] == '\0' ? "the path of a capture cannot be empty"
                                                            : "a rank is at most 99999");
    }
    uint64_t budget_bytes = options->budget_bytes > 0 ? options->budget_bytes : DEFAULT_BUDGET_BYTES;
    if (budget_bytes > (uint64_t)1 << 46) {
        return port_fail(err, PORT_E_VALUE, "a budget of %llu bytes is too large", (unsigned long long)budget_bytes);
    }
    port_writer *writer = port_calloc(1, sizeof *writer);
    if (writer == NULL) {
        return no_memory(path, err);
    }
    char rank[16];
    bool made = false;
    snprintf(rank, sizeof rank, "rank%05u", options->rank % (MAX_RANK + 1));
    size_t path_bytes = strlen(path) + 1;
    writer->pid = getpid();
    writer->rank = options->rank;
    writer->segment_bytes = options->segment_bytes > 0 ? options->segment_bytes : DEFAULT_SEGMENT_BYTES;
    writer->path = port_alloc(path_bytes);
    writer->directory = port_path_join(path, rank);
    port_status status = writer->path != NULL && writer->directory != NULL ? PORT_OK : no_memory(path, err);
    if (status == PORT_OK) {
        memcpy(writer->path, path, path_bytes);
        status = make_files(writer, budget_bytes, &made, err);
    }
    if (status != PORT_OK) {
        if (made) {
            remove_files(writer);
        }
        free_writer(writer);
        return status;
    }
    pthread_mutex_init(&writer->lock, NULL);
    *out = writer;
    return PORT_OK;
}

/* ------------------------------------------------------------------ while it is open */

port_status
port_writer_set_manifest(port_writer *writer, const char *text, size_t size, port_error *err)
{
    port_status status = port_writer_enter(writer, 0, err);
    if (status == PORT_OK) {
        status = put_manifest(writer, text, size, false, err);
        port_writer_leave(writer);
    }
    return status;
}

port_status
port_writer_flush(port_writer *writer, port_error *err)
{
    port_status status = port_writer_enter(writer, 0, err);
    if (status == PORT_OK) {
        status = port_queue_flush(&writer->queue, err);
        port_writer_leave(writer);
    }
    return status;
}

bool
port_writer_closed(const port_writer *writer)
{
    return writer->closed;
}

port_writer_stats
port_writer_get_stats(port_writer *writer)
{
    if (getpid() != writer->pid) {
        return writer->stats; /* of the moment of the fork: the lock may be in any state, and nobody writes here */
    }
    pthread_mutex_lock(&writer->lock);
    port_writer_stats stats = writer->stats;
    stats.peak_waiting_bytes = writer->queue.peak;
    pthread_mutex_unlock(&writer->lock);
    return stats;
}

const char *
port_writer_path(const port_writer *writer)
{
    return writer->path;
}

/* ------------------------------------------------------------------ close */

static port_status
write_index(const port_writer *writer, port_error *err)
{
    port_reader *reader;
    port_error local; /* of a refusal that is none of the caller's */
    port_status status = port_reader_open_as(writer->path, true, &reader, &local);
    if (status == PORT_E_UNSUPPORTED) { /* several ranks: an index of one would leave the others out */
        return PORT_OK;
    }
    if (status != PORT_OK && err != NULL) {
        *err = local;
    }
    if (status == PORT_OK) {
        status = port_capture_write_index(reader, err);
        port_reader_free(reader);
    }
    return status;
}

/* Everything up to and with the END record. The lock is held. */
static port_status
end_locked(port_writer *writer, const char *manifest, size_t size, port_error *err)
{
    port_status status = port_queue_error(&writer->queue, err);
    if (status == PORT_OK) {
        status = port_segment_seal(writer, 0, err);
    }
    if (status == PORT_OK) {
        status = port_queue_flush(&writer->queue, err);
    }
    if (status == PORT_OK && writer->rank == 0) { /* other ranks' directories may still grow */
        status = write_index(writer, err);
    }
    if (status == PORT_OK && manifest != NULL) {
        status = put_manifest(writer, manifest, size, false, err);
    }
    if (status == PORT_OK) {
        size_t place = port_writer_begin(writer, RECORD_END);
        port_put_u64(&writer->records, writer->num_records + writer->num_waiting_records);
        status = port_writer_send(writer, place, (queue_item){.kind = ITEM_RECORDS}, 0, err);
    }
    if (status == PORT_OK) {
        status = port_queue_flush(&writer->queue, err);
    }
    return status;
}

static port_status
enter_to_close(port_writer *writer, bool *closed, port_error *err)
{
    if (getpid() != writer->pid) {
        return port_fail(err, PORT_E_CLOSED, "%s is written by process %ld; a forked child cannot close it", writer->path,
                         (long)writer->pid);
    }
    pthread_mutex_lock(&writer->lock);
    *closed = writer->closed;
    writer->closed = true;
    return PORT_OK;
}

port_status
port_writer_finish(port_writer *writer, const char *manifest, size_t size, port_error *err)
{
    bool closed = true;
    port_status status = manifest != NULL ? port_manifest_check(manifest, size, NULL, err) : PORT_OK;
    if (status != PORT_OK) { /* nothing is closed yet: the caller may try again with a better one */
        return status == PORT_E_NOMEM ? status : as_value_error(err);
    }
    status = enter_to_close(writer, &closed, err);
    if (status != PORT_OK) {
        return status;
    }
    if (!closed) {
        status = end_locked(writer, manifest, size, err);
        port_queue_stop(&writer->queue, NULL);
        if (status == PORT_OK) {
            status = put_manifest(writer, NULL, 0, true, err);
        }
    }
    pthread_mutex_unlock(&writer->lock);
    return status;
}

port_status
port_writer_close(port_writer *writer, port_error *err)
{
    return port_writer_finish(writer, NULL, 0, err);
}

port_status
port_writer_abort(port_writer *writer, port_error *err)
{
    bool closed = true;
    port_error met = {.status = PORT_OK};
    port_status status = enter_to_close(writer, &closed, err);
    if (status != PORT_OK) {
        return status;
    }
    if (!closed) {
        port_queue_stop(&writer->queue, &met);
    }
    pthread_mutex_unlock(&writer->lock);
    if (met.status != PORT_OK && err != NULL) {
        *err = met;
    }
    return met.status;
}

void
port_writer_free(port_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (getpid() == writer->pid) {
        port_writer_abort(writer, NULL);
        pthread_mutex_destroy(&writer->lock);
    } else if (!writer->closed) {
        port_queue_forget(&writer->queue); /* the locks may be in any state */
    }
    free_writer(writer);
}
