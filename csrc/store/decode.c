/* decode.c -- the payload of each kind of record: nothing is believed that was not checked. */
#include "reader.h"

#include "../core/io.h"
#include "queue.h"
#include "structure.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define MAX_HEADER_BYTES 100000000u

bool
port_array_reserve(void *array, size_t item_bytes, size_t more)
{
    ARRAY(char) *a = array; /* all arrays have the same layout */
    if (more <= a->capacity - a->count) {
        return true;
    }
    size_t capacity = a->capacity > 0 ? a->capacity : 64;
    while (capacity - a->count < more) {
        if (capacity > SIZE_MAX / 2 / item_bytes) {
            return false;
        }
        capacity *= 2;
    }
    void *items = port_realloc(a->items, capacity * item_bytes);
    if (items == NULL) {
        return false;
    }
    a->items = items;
    a->capacity = capacity;
    return true;
}

const char *
port_reader_keep(port_reader *reader, const void *text, size_t size)
{
    if (reader->blocks.count == 0 || reader->blocks.size - reader->blocks.used < size + 1) {
        size_t block_bytes = size + 1 > 65536 ? size + 1 : 65536;
        if (!array_reserve(&reader->blocks, 1)) {
            return NULL;
        }
        char *block = port_alloc(block_bytes);
        if (block == NULL) {
            return NULL;
        }
        reader->blocks.items[reader->blocks.count++] = block;
        reader->blocks.used = 0;
        reader->blocks.size = block_bytes;
    }
    char *copy = reader->blocks.items[reader->blocks.count - 1] + reader->blocks.used;
    if (size > 0) {
        memcpy(copy, text, size);
    }
    copy[size] = '\0';
    reader->blocks.used += size + 1;
    return copy;
}

static port_status
no_memory(const port_reader *reader, port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory to open %s", reader->path);
}

static port_status
corrupt(port_error *err, const char *what)
{
    return port_fail(err, PORT_E_CORRUPT, "%s", what);
}

static port_status
check_string(const port_reader *reader, uint32_t id, const char *what, port_error *err)
{
    return id < reader->strings.count
               ? PORT_OK
               : port_fail(err, PORT_E_CORRUPT, "%s is string %u, but only %zu strings came before", what, id, reader->strings.count);
}

static port_status
check_tensor_id(const port_reader *reader, uint32_t id, port_error *err)
{
    return id < reader->tensors.count
               ? PORT_OK
               : port_fail(err, PORT_E_CORRUPT, "tensor %u is named, but only %zu tensors came before", id, reader->tensors.count);
}

static port_status
decode_string(port_reader *reader, port_cursor *c, port_error *err)
{
    uint32_t id = port_get_u32(c);
    size_t size = (size_t)(c->end - c->at);
    if (c->bad || id != reader->strings.count) {
        return corrupt(err, "the ids of strings do not count up");
    }
    if (!port_utf8_valid(c->at, size)) {
        return corrupt(err, "a string is not UTF-8, or holds a NUL character");
    }
    const char *text = array_reserve(&reader->strings, 1) ? port_reader_keep(reader, c->at, size) : NULL;
    if (text == NULL) {
        return no_memory(reader, err);
    }
    reader->strings.items[reader->strings.count++] = (read_string){.text = text, .size = (uint32_t)size};
    c->at = c->end;
    return PORT_OK;
}

/* ------------------------------------------------------------------ segments and tensors */

static port_status
map_segment(port_reader *reader, read_segment *segment, port_error *err)
{
    int fd = -1;
    port_error opened;
    port_status status = port_io_open(segment->path, O_RDONLY, &fd, &opened);
    if (status != PORT_OK) {
        if (opened.os_errno == ENOENT) {
            return port_fail(err, PORT_E_TRUNCATED, "%s is missing", segment->path);
        }
        if (err != NULL) {
            *err = opened;
        }
        return status;
    }
    status = port_io_size(fd, segment->path, &segment->size, err);
    if (status == PORT_OK && segment->size < 8) {
        status = port_fail(err, PORT_E_TRUNCATED, "%s has %llu bytes, not even a header", segment->path,
                           (unsigned long long)segment->size);
    }
    if (status == PORT_OK) {
        status = port_io_map(fd, segment->size, segment->path, &segment->map, err);
    }
    port_io->close(fd);
    if (status != PORT_OK) {
        return status;
    }
    memcpy(&segment->header_bytes, segment->map, 8);
    if (segment->header_bytes > MAX_HEADER_BYTES || segment->header_bytes % 64 != 56) {
        return port_fail(err, PORT_E_CORRUPT, "%s: a header of %llu bytes is not possible", segment->path,
                         (unsigned long long)segment->header_bytes);
    }
    segment->used = segment->header_bytes + 8;
    if (segment->size < segment->used) {
        return port_fail(err, PORT_E_TRUNCATED, "%s has %llu bytes; its header alone has %llu", segment->path,
                         (unsigned long long)segment->size, (unsigned long long)segment->used);
    }
    (void)reader;
    return PORT_OK;
}

/* The segment of a tensor: the last one, or the next. */
static port_status
find_segment(port_reader *reader, uint32_t number, read_segment **segment, port_error *err)
{
    size_t count = reader->segments.count;
    if (count > 0 && number == count - 1 && reader->segments.items[number].sealed_bytes == 0) {
        *segment = &reader->segments.items[number];
        return PORT_OK;
    }
    if (number != count || (count > 0 && reader->segments.items[count - 1].sealed_bytes == 0)) {
        return port_fail(err, PORT_E_CORRUPT, "a tensor lies in segment %u, which is not open at this place", number);
    }
    if (!array_reserve(&reader->segments, 1)) {
        return no_memory(reader, err);
    }
    read_segment fresh = {.path = port_segment_path(reader->directory, number)};
    if (fresh.path == NULL) {
        return no_memory(reader, err);
    }
    port_status status = map_segment(reader, &fresh, err);
    if (status != PORT_OK) {
        if (fresh.map != NULL) {
            munmap(fresh.map, (size_t)fresh.size);
        }
        port_free(fresh.path);
        return status;
    }
    *segment = &reader->segments.items[number];
    **segment = fresh;
    reader->segments.count++;
    return PORT_OK;
}

static port_status
place_tensor(port_reader *reader, const read_tensor *t, port_error *err)
{
    read_segment *segment = NULL;
    uint64_t end;
    port_status status = find_segment(reader, t->segment, &segment, err);
    if (status != PORT_OK) {
        return status;
    }
    if (t->offset % 64 != 0 || t->offset < segment->used || !port_add_u64(t->offset, t->bytes, &end)) {
        return port_fail(err, PORT_E_CORRUPT, "tensor %zu cannot lie at byte %llu of %s", reader->tensors.count,
                         (unsigned long long)t->offset, segment->path);
    }
    if (end > segment->size) {
        return port_fail(err, PORT_E_TRUNCATED, "%s has %llu bytes, but tensor %zu ends at byte %llu", segment->path,
                         (unsigned long long)segment->size, reader->tensors.count, (unsigned long long)end);
    }
    segment->used = end;
    return PORT_OK;
}

static port_status
decode_tensor(port_reader *reader, port_cursor *c, port_error *err)
{
    uint32_t id = port_get_u32(c);
    read_tensor t = {.segment = port_get_u32(c)};
    t.offset = port_get_u64(c);
    t.bytes = port_get_u64(c);
    t.hash.low = port_get_u64(c);
    t.hash.high = port_get_u64(c);
    t.key = port_get_u32(c);
    t.dtype = port_get_u8(c);
    t.ndim = port_get_u8(c);
    uint16_t zero = (uint16_t)(port_get_u8(c) | port_get_u8(c) << 8);
    if (c->bad || zero != 0 || id != reader->tensors.count) {
        return corrupt(err, "the ids of tensors do not count up");
    }
    if (t.dtype >= PORT_NUM_DTYPES || t.ndim > PORT_MAX_NDIM || (size_t)(c->end - c->at) != 16 * (size_t)t.ndim) {
        return port_fail(err, PORT_E_CORRUPT, "tensor %u has dtype %u and %u dimensions", id, t.dtype, t.ndim);
    }
    port_status status = check_string(reader, t.key, "the key of a tensor", err);
    if (status != PORT_OK) {
        return status;
    }
    if (!array_reserve(&reader->dims, 2 * (size_t)t.ndim + 1) || !array_reserve(&reader->tensors, 1)) {
        return no_memory(reader, err);
    }
    t.dims_at = reader->dims.count;
    int64_t *shape = reader->dims.items + t.dims_at;
    memcpy(shape, c->at, 16 * (size_t)t.ndim); /* both arrays, side by side as in the record */
    c->at = c->end;
    int64_t elems;
    uint64_t bytes;
    if (!port_shape_bytes((port_dtype)t.dtype, t.ndim, shape, &elems, &bytes) || bytes != t.bytes) {
        return port_fail(err, PORT_E_CORRUPT, "the shape of tensor %u does not fit its %llu bytes", id, (unsigned long long)t.bytes);
    }
    status = place_tensor(reader, &t, err);
    if (status == PORT_OK) {
        reader->dims.count += 2 * (size_t)t.ndim;
        reader->tensors.items[reader->tensors.count++] = t;
    }
    return status;
}

/* ------------------------------------------------------------------ calls and the rest */

/* Leaf paths of a structure, once for each distinct one. */
static port_status
read_leaves(port_reader *reader, uint32_t structure, port_error *err)
{
    read_string *string = &reader->strings.items[structure];
    if (string->num_leaves > 0) {
        return PORT_OK;
    }
    port_json *json;
    const port_json_value *leaves;
    port_status status = port_structure_parse(string->text, string->size, &json, &leaves, err);
    if (status != PORT_OK) {
        return status == PORT_E_FORMAT ? corrupt(err, "the structure of a call is not valid") : status;
    }
    string->leaves_at = reader->leaves.count;
    if (!array_reserve(&reader->leaves, leaves->count)) {
        status = no_memory(reader, err);
    }
    for (size_t i = 0; status == PORT_OK && i < leaves->count; i++) {
        const port_json_value *leaf = &leaves->as.items[i];
        const char *path = port_reader_keep(reader, leaf->as.text, leaf->count);
        if (path == NULL) {
            status = no_memory(reader, err);
            reader->leaves.count = string->leaves_at;
        } else {
            reader->leaves.items[reader->leaves.count++] = (read_leaf){path, leaf->count};
        }
    }
    if (status == PORT_OK) {
        string->num_leaves = (uint32_t)leaves->count + 1;
    }
    port_json_free(json);
    return status;
}

static port_status
decode_call(port_reader *reader, port_cursor *c, port_error *err)
{
    read_call call = {.module = port_get_u32(c)};
    call.call = port_get_u32(c);
    call.step = port_get_u32(c);
    call.phase = port_get_u32(c); /* u8 and three zeros */
    call.structure = port_get_u32(c);
    call.count = port_get_u32(c);
    if (c->bad || call.phase > PORT_PHASE_OP || (size_t)(c->end - c->at) != 4 * (size_t)call.count) {
        return corrupt(err, "a call has the wrong size or phase");
    }
    port_status status = check_string(reader, call.module, "the module of a call", err);
    if (status == PORT_OK) {
        status = check_string(reader, call.structure, "the structure of a call", err);
    }
    if (status == PORT_OK) {
        status = read_leaves(reader, call.structure, err);
    }
    if (status == PORT_OK && reader->strings.items[call.structure].num_leaves != call.count + 1) {
        status = corrupt(err, "a call has another number of tensors than its structure has leaves");
    }
    if (status == PORT_OK && (!array_reserve(&reader->ids, call.count) || !array_reserve(&reader->calls, 1) ||
                              !array_reserve(&reader->namings, 1))) {
        status = no_memory(reader, err);
    }
    if (status != PORT_OK) {
        return status;
    }
    call.ids_at = reader->ids.count;
    for (uint32_t i = 0; i < call.count; i++) {
        uint32_t id = port_get_u32(c);
        status = check_tensor_id(reader, id, err);
        if (status != PORT_OK) {
            return status;
        }
        reader->ids.items[call.ids_at + i] = id;
    }
    reader->ids.count += call.count;
    reader->namings.items[reader->namings.count++] = (read_naming){(uint32_t)reader->calls.count, true};
    reader->calls.items[reader->calls.count++] = call;
    return PORT_OK;
}

static port_status
decode_pair(port_reader *reader, port_cursor *c, bool name, port_error *err)
{
    read_pair pair = {.first = port_get_u32(c)};
    pair.second = port_get_u32(c);
    if (c->bad || c->at != c->end) {
        return corrupt(err, "a name or alias has the wrong size");
    }
    port_status status = check_string(reader, pair.first, name ? "a name" : "an alias", err);
    if (status == PORT_OK) {
        status = name ? check_tensor_id(reader, pair.second, err) : check_string(reader, pair.second, "the module of an alias", err);
    }
    if (status != PORT_OK) {
        return status;
    }
    if (!name) {
        if (!array_reserve(&reader->aliases, 1)) {
            return no_memory(reader, err);
        }
        reader->aliases.items[reader->aliases.count++] = pair;
        return PORT_OK;
    }
    if (!array_reserve(&reader->bound, 1) || !array_reserve(&reader->namings, 1)) {
        return no_memory(reader, err);
    }
    reader->namings.items[reader->namings.count++] = (read_naming){(uint32_t)reader->bound.count, false};
    reader->bound.items[reader->bound.count++] = pair;
    return PORT_OK;
}

static port_status
decode_note(port_reader *reader, port_cursor *c, port_error *err)
{
    size_t size = (size_t)(c->end - c->at);
    if (!port_utf8_valid(c->at, size)) {
        return corrupt(err, "a note is not UTF-8, or holds a NUL character");
    }
    const char *text = array_reserve(&reader->notes, 1) ? port_reader_keep(reader, c->at, size) : NULL;
    if (text == NULL) {
        return no_memory(reader, err);
    }
    reader->notes.items[reader->notes.count++] = (read_string){.text = text, .size = (uint32_t)size};
    c->at = c->end;
    return PORT_OK;
}

static port_status
decode_seal(port_reader *reader, port_cursor *c, port_error *err)
{
    uint32_t number = port_get_u32(c);
    uint64_t bytes = port_get_u64(c);
    if (c->bad || c->at != c->end || reader->segments.count == 0 || number != reader->segments.count - 1 ||
        reader->segments.items[number].sealed_bytes != 0) {
        return corrupt(err, "a segment is sealed that is not open");
    }
    read_segment *segment = &reader->segments.items[number];
    if (bytes != segment->used) {
        return port_fail(err, PORT_E_CORRUPT, "segment %u is sealed with %llu bytes, but its tensors end at %llu", number,
                         (unsigned long long)bytes, (unsigned long long)segment->used);
    }
    if (segment->size != bytes) {
        return port_fail(err, PORT_E_CORRUPT, "%s has %llu bytes; it was sealed with %llu", segment->path,
                         (unsigned long long)segment->size, (unsigned long long)bytes);
    }
    segment->sealed_bytes = bytes;
    return PORT_OK;
}

static port_status
decode_end(port_reader *reader, port_cursor *c, port_error *err)
{
    uint64_t records = port_get_u64(c);
    if (c->bad || c->at != c->end || records != reader->num_records) {
        return port_fail(err, PORT_E_CORRUPT, "the END record speaks of %llu records, %llu came before it",
                         (unsigned long long)records, (unsigned long long)reader->num_records);
    }
    size_t count = reader->segments.count;
    if (count > 0 && reader->segments.items[count - 1].sealed_bytes == 0) {
        return corrupt(err, "the capture is finished, but its last segment is not sealed");
    }
    reader->finished = true;
    return PORT_OK;
}

port_status
port_reader_decode(port_reader *reader, int kind, port_cursor *payload, port_error *err)
{
    switch (kind) {
    case RECORD_STRING: return decode_string(reader, payload, err);
    case RECORD_TENSOR: return decode_tensor(reader, payload, err);
    case RECORD_CALL: return decode_call(reader, payload, err);
    case RECORD_NAME: return decode_pair(reader, payload, true, err);
    case RECORD_ALIAS: return decode_pair(reader, payload, false, err);
    case RECORD_NOTE: return decode_note(reader, payload, err);
    case RECORD_SEAL: return decode_seal(reader, payload, err);
    case RECORD_END: return decode_end(reader, payload, err);
    default: break;
    }
    if (kind >= RECORD_OPTIONAL) {
        return PORT_OK;
    }
    return port_fail(err, PORT_E_VERSION, "records of kind %d are not known to this program", kind);
}
