/* writer.c -- what is stored: tensors once by content, texts once, and records in the order of the calls.
 *
 * Whatever can fail happens before a table changes; the last step that can fail is handing the item to the queue. A STRING
 * record whose call then failed stays in `records` and goes along with the next item, so ids in the journal have no gaps. */
#include "writer.h"

#include "structure.h"

#include <unistd.h>

#define MAX_TEXT_BYTES (RECORD_MAX_BYTES - 64)

/* Notes on strings (port_string.user). */
#define NOTE_LEAVES 0 /* of a structure: number of leaves + 1 */
#define NOTE_USES 1   /* bit 0: used as a key; bit 1: bound by a NAME; the rest: last suffix that was tried */
#define USED_AS_KEY 1u
#define BOUND 2u
#define SUFFIX_ONE 4u
#define NOTE_WRITTEN 0 /* of an entry of writer->calls */

static port_status
no_memory(const port_writer *writer, port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory to go on writing %s", writer->path);
}

port_status
port_writer_enter(port_writer *writer, unsigned flags, port_error *err)
{
    if (getpid() != writer->pid) {
        return port_fail(err, PORT_E_CLOSED, "%s is written by process %ld; a forked child cannot write it", writer->path,
                         (long)writer->pid);
    }
    if ((flags & PORT_NOWAIT) == 0) {
        pthread_mutex_lock(&writer->lock);
    } else if (pthread_mutex_trylock(&writer->lock) != 0) {
        return PORT_WOULD_BLOCK;
    }
    if (writer->closed) {
        pthread_mutex_unlock(&writer->lock);
        return port_fail(err, PORT_E_CLOSED, "%s was closed before", writer->path);
    }
    port_status status = port_queue_error(&writer->queue, err);
    if (status != PORT_OK) {
        pthread_mutex_unlock(&writer->lock);
    }
    return status;
}

void
port_writer_leave(port_writer *writer)
{
    pthread_mutex_unlock(&writer->lock);
}

size_t
port_writer_begin(port_writer *writer, record_kind kind)
{
    return port_record_begin(&writer->records, kind);
}

port_status
port_writer_send(port_writer *writer, size_t place, queue_item item, unsigned flags, port_error *err)
{
    port_text *records = &writer->records;
    port_record_finish(records, place);
    port_status status;
    if (records->failed) {
        records->failed = false;
        status = no_memory(writer, err);
    } else {
        item.records = records->data;
        item.records_bytes = records->size;
        status = port_queue_put(&writer->queue, item, (flags & PORT_NOWAIT) != 0, err);
    }
    if (status != PORT_OK) {
        records->size = place;
        return status;
    }
    writer->num_records += writer->num_waiting_records + 1;
    writer->num_waiting_records = 0;
    records->size = 0;
    return PORT_OK;
}

/* The id of a text; a new one gets its STRING record. */
static port_status
intern(port_writer *writer, const char *what, const char *text, size_t size, uint32_t *id, port_error *err)
{
    *id = port_strings_find(&writer->strings, text, size);
    if (*id != PORT_NO_STRING) {
        return PORT_OK;
    }
    if (size > MAX_TEXT_BYTES || !port_utf8_valid(text, size)) {
        return port_fail(err, PORT_E_VALUE, "%s: expected UTF-8 text of less than 2^28 bytes without NUL characters", what);
    }
    bool added;
    if (!port_text_reserve(&writer->records, RECORD_HEAD_BYTES + 4 + size)) {
        writer->records.failed = false;
        return no_memory(writer, err);
    }
    *id = port_strings_add(&writer->strings, text, size, &added);
    if (*id == PORT_NO_STRING) {
        return no_memory(writer, err);
    }
    size_t place = port_record_begin(&writer->records, RECORD_STRING);
    port_put_u32(&writer->records, *id);
    port_text_put(&writer->records, text, size);
    port_record_finish(&writer->records, place);
    writer->num_waiting_records++;
    return PORT_OK;
}

/* ------------------------------------------------------------------ tensors */

/* The view as the journal sees it: strides are 0 where they mean nothing. */
static port_status
check_tensor(const port_view *tensor, port_view *out, uint64_t *bytes, port_error *err)
{
    int64_t elems;
    if (tensor->ndim < 0 || tensor->ndim > PORT_MAX_NDIM) {
        return port_fail(err, PORT_E_VALUE, "the tensor has %d dimensions; at most %d are possible", tensor->ndim, PORT_MAX_NDIM);
    }
    if (!port_shape_bytes(tensor->dtype, tensor->ndim, tensor->shape, &elems, bytes)) {
        return port_fail(err, PORT_E_VALUE, "the tensor's dtype (%d) or shape is not valid", (int)tensor->dtype);
    }
    if (tensor->data == NULL && elems > 0) {
        return port_fail(err, PORT_E_VALUE, "the tensor has %lld elements but no data", (long long)elems);
    }
    *out = *tensor;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        if (tensor->shape[d] == 1 || elems == 0) {
            out->strides[d] = 0;
        }
    }
    return PORT_OK;
}

static uint32_t
find_equal(const port_writer *writer, const port_view *tensor, port_hash128 hash)
{
    if (writer->num_slots == 0) {
        return UINT32_MAX;
    }
    size_t dims_bytes = (size_t)tensor->ndim * sizeof(int64_t);
    uint32_t mask = writer->num_slots - 1;
    for (uint32_t i = (uint32_t)hash.low & mask; writer->slots[i] != 0; i = (i + 1) & mask) {
        const stored_tensor *t = &writer->tensors[writer->slots[i] - 1];
        if (t->hash.low == hash.low && t->hash.high == hash.high && t->dtype == tensor->dtype && t->ndim == tensor->ndim &&
            memcmp(&writer->dims[t->dims_at], tensor->shape, dims_bytes) == 0 &&
            memcmp(&writer->dims[t->dims_at + t->ndim], tensor->strides, dims_bytes) == 0) {
            return writer->slots[i] - 1;
        }
    }
    return UINT32_MAX;
}

static bool
grow_slots(port_writer *writer)
{
    uint32_t num_slots = writer->num_slots > 0 ? 2 * writer->num_slots : 1024;
    uint32_t *slots = port_calloc(num_slots, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (uint32_t id = 0; id < writer->num_tensors; id++) {
        uint32_t i = (uint32_t)writer->tensors[id].hash.low & (num_slots - 1);
        while (slots[i] != 0) {
            i = (i + 1) & (num_slots - 1);
        }
        slots[i] = id + 1;
    }
    port_free(writer->slots);
    writer->slots = slots;
    writer->num_slots = num_slots;
    return true;
}

/* Makes room for one more tensor in all tables. */
static bool
reserve_tensor(port_writer *writer)
{
    if (writer->num_tensors == writer->capacity_tensors) {
        uint32_t capacity = writer->capacity_tensors > 0 ? 2 * writer->capacity_tensors : 512;
        stored_tensor *tensors = port_realloc(writer->tensors, capacity * sizeof *tensors);
        if (tensors == NULL) {
            return false;
        }
        writer->tensors = tensors;
        writer->capacity_tensors = capacity;
    }
    if (writer->num_dims + 2 * PORT_MAX_NDIM > writer->capacity_dims) {
        uint64_t capacity = writer->capacity_dims > 0 ? 2 * writer->capacity_dims : 4096;
        int64_t *dims = port_realloc(writer->dims, capacity * sizeof *dims);
        if (dims == NULL) {
            return false;
        }
        writer->dims = dims;
        writer->capacity_dims = capacity;
    }
    return writer->num_tensors < writer->num_slots / 2 || grow_slots(writer);
}

static void
commit_tensor(port_writer *writer, const port_view *tensor, port_hash128 hash, uint64_t bytes)
{
    uint32_t id = writer->num_tensors++;
    size_t ndim = (size_t)tensor->ndim;
    writer->tensors[id] = (stored_tensor){.hash = hash, .dims_at = writer->num_dims, .dtype = (uint8_t)tensor->dtype,
                                          .ndim = (uint8_t)ndim};
    memcpy(&writer->dims[writer->num_dims], tensor->shape, ndim * sizeof(int64_t));
    memcpy(&writer->dims[writer->num_dims + ndim], tensor->strides, ndim * sizeof(int64_t));
    writer->num_dims += 2 * ndim;
    uint32_t mask = writer->num_slots - 1, i = (uint32_t)hash.low & mask;
    while (writer->slots[i] != 0) {
        i = (i + 1) & mask;
    }
    writer->slots[i] = id + 1;
    writer->stats.num_tensors++;
    writer->stats.bytes_stored += bytes;
}

/* A key that no tensor of this capture has yet: the given one, or with "#2", "#3", ... */
static port_status
unique_key(port_writer *writer, const char *key, size_t key_bytes, uint32_t *id, port_error *err)
{
    port_status status = intern(writer, "key", key, key_bytes, id, err);
    if (status != PORT_OK || (writer->strings.items[*id].user[NOTE_USES] & USED_AS_KEY) == 0) {
        return status;
    }
    uint32_t first = *id;
    uint32_t suffix = writer->strings.items[first].user[NOTE_USES] / SUFFIX_ONE;
    suffix = suffix > 1 ? suffix : 1;
    port_text text = {0};
    do {
        text.size = 0;
        port_text_put(&text, key, key_bytes);
        port_text_put(&text, "#", 1);
        port_text_put_u64(&text, ++suffix);
        status = text.failed ? no_memory(writer, err) : intern(writer, "key", text.data, text.size, id, err);
    } while (status == PORT_OK && (writer->strings.items[*id].user[NOTE_USES] & USED_AS_KEY) != 0);
    if (status == PORT_OK) {
        uint32_t *uses = &writer->strings.items[first].user[NOTE_USES];
        *uses = *uses % SUFFIX_ONE + (suffix - 1) * SUFFIX_ONE; /* tried again if this tensor is not stored in the end */
    }
    port_text_free(&text);
    return status;
}

static port_status
store_new(port_writer *writer, const port_view *tensor, const void *data, uint64_t bytes, port_hash128 hash, const char *key,
          size_t key_bytes, unsigned flags, port_error *err)
{
    uint32_t key_id;
    segment_place at;
    port_status status = unique_key(writer, key, key_bytes, &key_id, err);
    if (status == PORT_OK && !reserve_tensor(writer)) {
        status = no_memory(writer, err);
    }
    if (status == PORT_OK) {
        const port_string *name = &writer->strings.items[key_id];
        status = port_segment_plan(writer, name->text, name->size, tensor, bytes, flags, &at, err);
    }
    if (status != PORT_OK) {
        return status;
    }
    port_text *records = &writer->records;
    size_t place = port_writer_begin(writer, RECORD_TENSOR);
    port_put_u32(records, writer->num_tensors);
    port_put_u32(records, writer->segment);
    port_put_u64(records, at.offset);
    port_put_u64(records, bytes);
    port_put_u64(records, hash.low);
    port_put_u64(records, hash.high);
    port_put_u32(records, key_id);
    const unsigned char tail[4] = {(unsigned char)tensor->dtype, (unsigned char)tensor->ndim, 0, 0};
    port_text_put(records, tail, sizeof tail);
    port_text_put(records, tensor->shape, (size_t)tensor->ndim * sizeof(int64_t));
    port_text_put(records, tensor->strides, (size_t)tensor->ndim * sizeof(int64_t));
    queue_item item = {.kind = ITEM_TENSOR, .segment = writer->segment, .header_bytes = writer->header_bytes,
                       .offset = at.offset, .data = data, .data_bytes = bytes};
    status = port_writer_send(writer, place, item, flags, err);
    if (status == PORT_OK) {
        port_segment_commit(writer, at, bytes);
        commit_tensor(writer, tensor, hash, bytes);
        writer->strings.items[key_id].user[NOTE_USES] |= USED_AS_KEY;
    }
    return status;
}

static port_status
check_key(const char *key, size_t key_bytes, port_error *err)
{
    bool pad = key_bytes >= 8 && memcmp(key, "__pad__.", 8) == 0;
    bool metadata = key_bytes == 12 && memcmp(key, "__metadata__", 12) == 0;
    if (key_bytes == 0 || pad || metadata) {
        return port_fail(err, PORT_E_VALUE, "a tensor cannot have the key '%.*s'", (int)(key_bytes < 100 ? key_bytes : 100), key);
    }
    return PORT_OK;
}

port_status
port_writer_put(port_writer *writer, const port_view *tensor, const char *key, size_t key_bytes, unsigned flags, uint32_t *id,
                port_error *err)
{
    port_view view;
    uint64_t bytes;
    port_status status = check_tensor(tensor, &view, &bytes, err);
    if (status == PORT_OK) {
        status = check_key(key, key_bytes, err);
    }
    if (status != PORT_OK) {
        return status;
    }
    void *gathered = NULL; /* as large as the tensor, outside the budget, and only while this call lasts */
    if (!port_view_is_contiguous(tensor)) {
        gathered = port_alloc_aligned((size_t)bytes);
        if (gathered == NULL) {
            return port_fail(err, PORT_E_NOMEM, "no memory to gather a tensor of %llu bytes", (unsigned long long)bytes);
        }
        port_view_gather(tensor, gathered);
    }
    const void *data = gathered != NULL ? gathered : tensor->data;
    port_hash128 hash = port_hash(bytes > 0 ? data : "", (size_t)bytes);
    status = port_writer_enter(writer, flags, err);
    if (status == PORT_OK) {
        *id = find_equal(writer, &view, hash);
        if (*id == UINT32_MAX) {
            *id = writer->num_tensors;
            status = store_new(writer, &view, data, bytes, hash, key, key_bytes, flags, err);
        } else {
            writer->stats.num_deduplicated++;
        }
        if (status == PORT_OK) {
            writer->stats.bytes_seen += bytes;
        }
        port_writer_leave(writer);
    }
    if (gathered != NULL) {
        port_free_aligned(gathered);
    }
    return status;
}

/* ------------------------------------------------------------------ names, calls, notes */

static port_status
send_records(port_writer *writer, size_t place, unsigned flags, port_error *err)
{
    return port_writer_send(writer, place, (queue_item){.kind = ITEM_RECORDS}, flags, err);
}

static port_status
check_id(const port_writer *writer, uint32_t id, port_error *err)
{
    return id < writer->num_tensors
               ? PORT_OK
               : port_fail(err, PORT_E_VALUE, "there is no tensor %u; %u are stored", id, writer->num_tensors);
}

static port_status
name_locked(port_writer *writer, const char *name, size_t name_bytes, uint32_t id, unsigned flags, port_error *err)
{
    uint32_t name_id;
    port_status status = check_id(writer, id, err);
    if (status == PORT_OK && name_bytes == 0) {
        status = port_fail(err, PORT_E_VALUE, "a tensor's name cannot be empty");
    }
    if (status == PORT_OK) {
        status = intern(writer, "name", name, name_bytes, &name_id, err);
    }
    if (status != PORT_OK) {
        return status;
    }
    if ((writer->strings.items[name_id].user[NOTE_USES] & BOUND) != 0) {
        return port_fail(err, PORT_E_EXISTS, "the name %.200s has been written before", writer->strings.items[name_id].text);
    }
    size_t place = port_writer_begin(writer, RECORD_NAME);
    port_put_u32(&writer->records, name_id);
    port_put_u32(&writer->records, id);
    status = send_records(writer, place, flags, err);
    if (status == PORT_OK) {
        writer->strings.items[name_id].user[NOTE_USES] |= BOUND;
    }
    return status;
}

port_status
port_writer_name(port_writer *writer, const char *name, size_t name_bytes, uint32_t id, unsigned flags, port_error *err)
{
    port_status status = port_writer_enter(writer, flags, err);
    if (status == PORT_OK) {
        status = name_locked(writer, name, name_bytes, id, flags, err);
        port_writer_leave(writer);
    }
    return status;
}

/* The leaves of a structure are counted once for each distinct text. */
static port_status
check_structure(port_writer *writer, uint32_t structure, uint32_t count, port_error *err)
{
    port_string *string = &writer->strings.items[structure];
    if (string->user[NOTE_LEAVES] == 0) {
        port_json *json;
        const port_json_value *leaves;
        port_status status = port_structure_parse(string->text, string->size, &json, &leaves, err);
        if (status != PORT_OK) {
            if (err != NULL && status == PORT_E_FORMAT) {
                err->status = PORT_E_VALUE;
            }
            return status == PORT_E_FORMAT ? PORT_E_VALUE : status;
        }
        string->user[NOTE_LEAVES] = (uint32_t)leaves->count + 1;
        port_json_free(json);
    }
    if (string->user[NOTE_LEAVES] != count + 1) {
        return port_fail(err, PORT_E_VALUE, "the structure has %u leaves, but %u tensors are given", string->user[NOTE_LEAVES] - 1,
                         count);
    }
    return PORT_OK;
}

static port_status
call_locked(port_writer *writer, const port_call_record *record, unsigned flags, port_error *err)
{
    uint32_t module, structure;
    bool added = false;
    port_status status = intern(writer, "module", record->module, record->module_bytes, &module, err);
    if (status == PORT_OK) {
        status = intern(writer, "structure", record->structure, record->structure_bytes, &structure, err);
    }
    if (status == PORT_OK) {
        status = check_structure(writer, structure, record->count, err);
    }
    for (uint32_t i = 0; status == PORT_OK && i < record->count; i++) {
        status = check_id(writer, record->tensor_ids[i], err);
    }
    if (status != PORT_OK) {
        return status;
    }
    const uint32_t identity[3] = {module, record->call, record->phase};
    uint32_t seen = port_strings_add(&writer->calls, (const char *)identity, sizeof identity, &added);
    if (seen == PORT_NO_STRING) {
        return no_memory(writer, err);
    }
    if (writer->calls.items[seen].user[NOTE_WRITTEN] != 0) {
        return port_fail(err, PORT_E_VALUE, "call %u of '%.200s', phase %u, has been written before", record->call,
                         writer->strings.items[module].text, record->phase);
    }
    port_text *records = &writer->records;
    size_t place = port_writer_begin(writer, RECORD_CALL);
    port_put_u32(records, module);
    port_put_u32(records, record->call);
    port_put_u32(records, record->step);
    port_put_u32(records, record->phase); /* u8 and three zeros */
    port_put_u32(records, structure);
    port_put_u32(records, record->count);
    port_text_put(records, record->tensor_ids, record->count * sizeof(uint32_t));
    status = send_records(writer, place, flags, err);
    if (status == PORT_OK) {
        writer->calls.items[seen].user[NOTE_WRITTEN] = 1;
    }
    return status;
}

port_status
port_writer_call(port_writer *writer, const port_call_record *record, unsigned flags, port_error *err)
{
    if (record->phase > PORT_PHASE_OP) {
        return port_fail(err, PORT_E_VALUE, "phase: expected 0 (in), 1 (out), 2 (tap) or 3 (op), got %u", record->phase);
    }
    if (record->count > RECORD_MAX_BYTES / 8) {
        return port_fail(err, PORT_E_VALUE, "a call of %u tensors is too large for a record", record->count);
    }
    port_status status = port_writer_enter(writer, flags, err);
    if (status == PORT_OK) {
        status = call_locked(writer, record, flags, err);
        port_writer_leave(writer);
    }
    return status;
}

static port_status
alias_locked(port_writer *writer, const char *alias, size_t alias_bytes, const char *module, size_t module_bytes,
             unsigned flags, port_error *err)
{
    uint32_t alias_id, module_id;
    port_status status = intern(writer, "alias", alias, alias_bytes, &alias_id, err);
    if (status == PORT_OK) {
        status = intern(writer, "module", module, module_bytes, &module_id, err);
    }
    if (status == PORT_OK) {
        size_t place = port_writer_begin(writer, RECORD_ALIAS);
        port_put_u32(&writer->records, alias_id);
        port_put_u32(&writer->records, module_id);
        status = send_records(writer, place, flags, err);
    }
    return status;
}

port_status
port_writer_alias(port_writer *writer, const char *alias, size_t alias_bytes, const char *module, size_t module_bytes,
                  unsigned flags, port_error *err)
{
    port_status status = port_writer_enter(writer, flags, err);
    if (status == PORT_OK) {
        status = alias_locked(writer, alias, alias_bytes, module, module_bytes, flags, err);
        port_writer_leave(writer);
    }
    return status;
}

port_status
port_writer_note(port_writer *writer, const char *text, size_t size, unsigned flags, port_error *err)
{
    port_json *json;
    port_status status = port_json_parse(text, size, &json, err);
    if (status == PORT_OK) {
        status = port_json_need(port_json_root(json), JSON_OBJECT, "note", err);
    }
    port_json_free(json);
    if (status == PORT_E_FORMAT || size > MAX_TEXT_BYTES) {
        return port_fail(err, PORT_E_VALUE, "a note must be a JSON object of less than 2^28 bytes");
    }
    if (status == PORT_OK) {
        status = port_writer_enter(writer, flags, err);
    }
    if (status == PORT_OK) {
        size_t place = port_writer_begin(writer, RECORD_NOTE);
        port_text_put(&writer->records, text, size);
        status = send_records(writer, place, flags, err);
        port_writer_leave(writer);
    }
    return status;
}

port_status
port_writer_add(port_writer *writer, const char *name, const port_view *tensor, port_error *err)
{
    uint32_t id, name_id;
    size_t name_bytes = strlen(name);
    port_status status = port_writer_enter(writer, 0, err);
    if (status != PORT_OK) {
        return status;
    }
    name_id = port_strings_find(&writer->strings, name, name_bytes);
    bool exists = name_id != PORT_NO_STRING && (writer->strings.items[name_id].user[NOTE_USES] & BOUND) != 0;
    port_writer_leave(writer);
    if (exists) {
        return port_fail(err, PORT_E_EXISTS, "the name %.200s has been written before", name);
    }
    status = port_writer_put(writer, tensor, name, name_bytes, 0, &id, err);
    return status == PORT_OK ? port_writer_name(writer, name, name_bytes, id, 0, err) : status;
}
