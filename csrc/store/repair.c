/* repair.c -- makes an unfinished capture a finished one, and checks a whole capture. */
#include "reader.h"

#include "../core/io.h"
#include "../formats/safetensors.h"
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>

static port_status
no_memory(const port_reader *reader, port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory to repair %s", reader->path);
}

/* The header of a segment from the journal's records; *pads counts the gaps of all segments so far. */
static port_status
build_header(const port_reader *reader, uint32_t number, uint32_t *pads, port_text *out, port_error *err)
{
    const read_segment *segment = &reader->segments.items[number];
    uint64_t base = segment->header_bytes + 8, at = 0;
    port_text_puts(out, "{\"__metadata__\":{\"format\":\"pt\",\"porting.capture\":\"1\"}");
    for (size_t i = 0; i < reader->tensors.count; i++) {
        const read_tensor *t = &reader->tensors.items[i];
        if (t->segment != number) {
            continue;
        }
        uint64_t begin = t->offset - base;
        if (begin > at) {
            char pad[32];
            int n = snprintf(pad, sizeof pad, "__pad__.%u", (*pads)++);
            int64_t gap = (int64_t)(begin - at);
            port_text_put(out, ",", 1);
            port_st_put_entry(out, pad, (size_t)n, PORT_U8, 1, &gap, at, begin);
        }
        port_text_put(out, ",", 1);
        port_st_put_entry(out, reader->strings.items[t->key].text, reader->strings.items[t->key].size, (port_dtype)t->dtype,
                          t->ndim, reader->dims.items + t->dims_at, begin, begin + t->bytes);
        at = begin + t->bytes;
    }
    port_text_puts(out, "}");
    if (out->failed) {
        return no_memory(reader, err);
    }
    if (out->size > segment->header_bytes) {
        return port_fail(err, PORT_E_CORRUPT, "%s: the header of %zu bytes does not fit in the %llu reserved", segment->path,
                         out->size, (unsigned long long)segment->header_bytes);
    }
    while (!out->failed && out->size < segment->header_bytes) {
        port_text_put(out, " ", 1);
    }
    return out->failed ? no_memory(reader, err) : PORT_OK;
}

static port_status
truncate_file(int fd, const char *path, uint64_t size, port_error *err)
{
    return port_io->truncate(fd, (off_t)size) == 0 ? PORT_OK : port_fail_errno(err, errno, "cannot cut %s", path);
}

/* Cuts the segment after its last tensor and writes its header. Done again it changes nothing. */
static port_status
seal_segment(const port_reader *reader, uint32_t number, uint32_t *pads, port_error *err)
{
    const read_segment *segment = &reader->segments.items[number];
    port_text header = {0};
    int fd = -1;
    port_status status = build_header(reader, number, pads, &header, err);
    if (status == PORT_OK && segment->sealed_bytes == 0) {
        status = port_io_open(segment->path, O_RDWR | O_NOFOLLOW, &fd, err);
        if (status == PORT_OK) {
            status = truncate_file(fd, segment->path, segment->used, err);
        }
        if (status == PORT_OK) {
            struct iovec piece = {.iov_base = header.data, .iov_len = header.size};
            status = port_io_write(fd, &piece, 1, 8, segment->path, err);
        }
    }
    if (fd >= 0) {
        port_io->close(fd);
    }
    port_text_free(&header);
    return status;
}

/* Cuts the journal after the last good record and appends SEAL (if need be) and END. */
static port_status
end_journal(const port_reader *reader, port_error *err)
{
    port_text records = {0};
    uint64_t count = reader->num_records;
    size_t num_segments = reader->segments.count;
    int fd = -1;
    if (num_segments > 0 && reader->segments.items[num_segments - 1].sealed_bytes == 0) {
        size_t place = port_record_begin(&records, RECORD_SEAL);
        port_put_u32(&records, (uint32_t)num_segments - 1);
        port_put_u64(&records, reader->segments.items[num_segments - 1].used);
        port_record_finish(&records, place);
        count++;
    }
    size_t place = port_record_begin(&records, RECORD_END);
    port_put_u64(&records, count);
    port_record_finish(&records, place);
    char *path = port_path_join(reader->directory, "journal.bin");
    port_status status = path != NULL && !records.failed ? PORT_OK : no_memory(reader, err);
    if (status == PORT_OK) {
        status = port_io_open(path, O_RDWR | O_NOFOLLOW, &fd, err);
    }
    if (status == PORT_OK) {
        status = truncate_file(fd, path, reader->good_bytes, err);
    }
    if (status == PORT_OK) {
        struct iovec piece = {.iov_base = records.data, .iov_len = records.size};
        status = port_io_write(fd, &piece, 1, reader->good_bytes, path, err);
    }
    if (fd >= 0) {
        port_io->close(fd);
    }
    port_free(path);
    port_text_free(&records);
    return status;
}

static port_status
finish_manifest(const port_reader *reader, port_error *err)
{
    char *text = NULL;
    size_t size = 0;
    port_text out = {0};
    char *path = port_path_join(reader->path, "MANIFEST.json");
    port_status status = path != NULL ? port_io_read_file(path, MANIFEST_MAX_BYTES, &text, &size, err) : no_memory(reader, err);
    if (status == PORT_OK) {
        status = port_manifest_with_finished(text, size, true, &out, err);
    }
    if (status == PORT_OK) {
        status = port_io_replace_file(path, out.data, out.size, err);
    }
    port_text_free(&out);
    port_free(text);
    port_free(path);
    return status;
}

port_status
port_capture_repair(const char *path, port_recovery *recovery, port_error *err)
{
    port_reader *reader;
    uint32_t pads = 0;
    port_status status = port_reader_open_as(path, true, &reader, err);
    if (status != PORT_OK) {
        return status;
    }
    *recovery = reader->recovery;
    if (reader->finished) {
        recovery->records = reader->num_records;
    } else {
        for (size_t i = 0; status == PORT_OK && i < reader->segments.count; i++) {
            status = seal_segment(reader, (uint32_t)i, &pads, err);
        }
        if (status == PORT_OK) {
            status = port_capture_write_index(reader, err);
        }
        if (status == PORT_OK) {
            status = end_journal(reader, err);
        }
    }
    if (status == PORT_OK && !(reader->finished && reader->manifest_finished)) {
        status = finish_manifest(reader, err);
    }
    port_reader_free(reader);
    return status;
}

/* ------------------------------------------------------------------ verify */

static port_status
verify_header(const port_reader *reader, uint32_t number, port_error *err)
{
    const read_segment *segment = &reader->segments.items[number];
    port_st_header header;
    port_error why;
    port_status status = port_st_parse(segment->map, segment->size, &header, &why);
    if (status != PORT_OK) {
        return port_fail(err, status, "%s: %.500s", segment->path, why.message);
    }
    for (size_t i = 0; status == PORT_OK && i < reader->tensors.count; i++) {
        const read_tensor *t = &reader->tensors.items[i];
        const char *key = reader->strings.items[t->key].text;
        if (t->segment != number) {
            continue;
        }
        const port_st_entry *entry = port_st_find(&header, key);
        bool same = entry != NULL && entry->dtype == (port_dtype)t->dtype && entry->ndim == t->ndim &&
                    header.data_offset + entry->begin == t->offset && entry->end - entry->begin == t->bytes;
        for (int32_t d = 0; same && d < t->ndim; d++) {
            same = entry->shape[d] == reader->dims.items[t->dims_at + (uint64_t)d];
        }
        if (!same) {
            status = port_fail(err, PORT_E_CORRUPT, "%s: the header and the journal disagree about tensor %.200s", segment->path, key);
        }
    }
    port_st_free(&header);
    return status;
}

port_status
port_capture_verify(const char *path, uint64_t *num_tensors, port_error *err)
{
    port_reader *reader;
    port_status status = port_reader_open(path, &reader, err);
    if (status != PORT_OK) {
        return status;
    }
    for (size_t i = 0; status == PORT_OK && i < reader->segments.count; i++) {
        if (reader->segments.items[i].sealed_bytes > 0) {
            status = verify_header(reader, (uint32_t)i, err);
        }
    }
    for (size_t i = 0; status == PORT_OK && i < reader->tensors.count; i++) {
        const read_tensor *t = &reader->tensors.items[i];
        const read_segment *segment = &reader->segments.items[t->segment];
        port_hash128 hash = port_hash((const char *)segment->map + t->offset, (size_t)t->bytes);
        if (hash.low != t->hash.low || hash.high != t->hash.high) {
            status = port_fail(err, PORT_E_CORRUPT, "tensor %zu (%.200s) at byte %llu of %s does not have the bytes it was stored with",
                               i, reader->strings.items[t->key].text, (unsigned long long)t->offset, segment->path);
            if (err != NULL) {
                err->offset = t->offset;
            }
        }
    }
    *num_tensors = reader->tensors.count;
    port_reader_free(reader);
    return status;
}
