/* safetensors.c -- the header of a safetensors file: every field is checked before it is used. */
#include "safetensors.h"

static port_status
bad(port_error *err, const char *name, const char *what)
{
    return port_fail(err, PORT_E_CORRUPT, "safetensors header: tensor %.200s: %s", name, what);
}

static port_status
parse_entry(const port_json_member *member, uint64_t data_bytes, port_st_entry *entry, port_error *err)
{
    const port_json_value *shape = port_json_get(&member->value, "shape");
    const port_json_value *offsets = port_json_get(&member->value, "data_offsets");
    const char *dtype = NULL;
    *entry = (port_st_entry){.name = member->key};
    if (port_json_text(port_json_get(&member->value, "dtype"), "dtype", &dtype, NULL) != PORT_OK ||
        (entry->dtype = port_dtype_from_name(dtype)) == PORT_NUM_DTYPES) {
        return bad(err, entry->name, "its dtype is missing or unknown");
    }
    if (port_json_need(shape, JSON_ARRAY, "shape", NULL) != PORT_OK || shape->count > PORT_MAX_NDIM) {
        return bad(err, entry->name, "its shape is missing or has more than 16 dimensions");
    }
    entry->ndim = (int32_t)shape->count;
    for (int32_t d = 0; d < entry->ndim; d++) {
        if (port_json_int(&shape->as.items[d], 0, INT64_MAX, "shape", &entry->shape[d], NULL) != PORT_OK) {
            return bad(err, entry->name, "its shape holds something else than sizes");
        }
    }
    int64_t begin, end, elems;
    uint64_t bytes;
    if (port_json_need(offsets, JSON_ARRAY, "data_offsets", NULL) != PORT_OK || offsets->count != 2 ||
        port_json_int(&offsets->as.items[0], 0, INT64_MAX, "begin", &begin, NULL) != PORT_OK ||
        port_json_int(&offsets->as.items[1], begin, INT64_MAX, "end", &end, NULL) != PORT_OK) {
        return bad(err, entry->name, "its data_offsets are not two growing numbers");
    }
    if ((uint64_t)end > data_bytes) {
        return bad(err, entry->name, "its data ends after the file");
    }
    if (!port_shape_bytes(entry->dtype, entry->ndim, entry->shape, &elems, &bytes) || bytes != (uint64_t)(end - begin)) {
        return bad(err, entry->name, "its shape and data_offsets do not fit");
    }
    entry->begin = (uint64_t)begin;
    entry->end = (uint64_t)end;
    return PORT_OK;
}

static int
compare_entries(const void *a, const void *b)
{
    const port_st_entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return x->end < y->end ? -1 : x->end > y->end;
}

static port_status
parse_entries(const port_json_value *root, uint64_t data_bytes, port_st_header *header, port_error *err)
{
    header->entries = port_alloc(root->count * sizeof *header->entries);
    if (header->entries == NULL) {
        return port_fail(err, PORT_E_NOMEM, "no memory for %zu tensors of a safetensors header", root->count);
    }
    for (size_t i = 0; i < root->count; i++) {
        const port_json_member *member = &root->as.members[i];
        if (strcmp(member->key, "__metadata__") == 0) {
            continue;
        }
        port_status status = parse_entry(member, data_bytes, &header->entries[header->count], err);
        if (status != PORT_OK) {
            return status;
        }
        header->count++;
    }
    qsort(header->entries, header->count, sizeof *header->entries, compare_entries);
    uint64_t at = 0;
    for (size_t i = 0; i < header->count; i++) {
        if (header->entries[i].begin != at) {
            return bad(err, header->entries[i].name, "there is a hole or an overlap before its data");
        }
        at = header->entries[i].end;
    }
    if (at != data_bytes) {
        return port_fail(err, PORT_E_CORRUPT, "safetensors header: the tensors end at byte %llu of %llu of the data",
                         (unsigned long long)at, (unsigned long long)data_bytes);
    }
    return PORT_OK;
}

port_status
port_st_parse(const void *file, uint64_t size, port_st_header *header, port_error *err)
{
    *header = (port_st_header){0};
    uint64_t header_size;
    if (size < 8) {
        return port_fail(err, PORT_E_TRUNCATED, "a safetensors file has at least 8 bytes, this one %llu", (unsigned long long)size);
    }
    memcpy(&header_size, file, 8);
    if (header_size > PORT_SAFETENSORS_MAX_HEADER || header_size > size - 8) {
        return port_fail(err, PORT_E_CORRUPT, "safetensors header of %llu bytes in a file of %llu",
                         (unsigned long long)header_size, (unsigned long long)size);
    }
    header->data_offset = 8 + header_size;
    port_status status = port_json_parse((const char *)file + 8, (size_t)header_size, &header->json, err);
    if (status == PORT_OK) {
        status = port_json_need(port_json_root(header->json), JSON_OBJECT, "safetensors header", err);
    }
    if (status == PORT_OK) {
        status = parse_entries(port_json_root(header->json), size - header->data_offset, header, err);
    }
    if (status != PORT_OK) {
        port_st_free(header);
    }
    return status;
}

void
port_st_free(port_st_header *header)
{
    port_free(header->entries);
    port_json_free(header->json);
    *header = (port_st_header){0};
}

const port_st_entry *
port_st_find(const port_st_header *header, const char *name)
{
    /* The JSON object knows its keys in order; its offsets lead to the sorted entry. */
    const port_json_value *value = port_json_get(port_json_root(header->json), name);
    const port_json_value *offsets = port_json_get(value, "data_offsets");
    if (offsets == NULL || offsets->kind != JSON_ARRAY || offsets->count != 2) {
        return NULL;
    }
    uint64_t begin = (uint64_t)offsets->as.items[0].as.integer;
    size_t low = 0, high = header->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (header->entries[middle].begin < begin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < header->count && header->entries[low].begin == begin; low++) {
        if (strcmp(header->entries[low].name, name) == 0) {
            return &header->entries[low];
        }
    }
    return NULL;
}

void
port_st_put_entry(port_text *text, const char *name, size_t name_bytes, port_dtype dtype, int32_t ndim,
                  const int64_t *shape, uint64_t begin, uint64_t end)
{
    port_text_put_json(text, name, name_bytes);
    port_text_puts(text, ":{\"dtype\":\"");
    port_text_puts(text, port_dtype_name(dtype));
    port_text_puts(text, "\",\"shape\":[");
    for (int32_t d = 0; d < ndim; d++) {
        if (d > 0) {
            port_text_put(text, ",", 1);
        }
        port_text_put_i64(text, shape[d]);
    }
    port_text_puts(text, "],\"data_offsets\":[");
    port_text_put_u64(text, begin);
    port_text_put(text, ",", 1);
    port_text_put_u64(text, end);
    port_text_puts(text, "]}");
}
