/* safetensors.h -- the header of a safetensors file: read and write. Private to csrc/.
 *
 *     u64 header_size, header_size bytes of JSON, data
 *     {"__metadata__": {...}, name: {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the start of the data. The entries, sorted by offset, cover the data without holes or overlaps. */
#ifndef PORT_SAFETENSORS_H
#define PORT_SAFETENSORS_H

#include "json.h"

#define PORT_SAFETENSORS_MAX_HEADER 100000000 /* as in the safetensors package */

typedef struct port_st_entry {
    const char *name; /* lives as long as the header */
    port_dtype dtype;
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM];
    uint64_t begin, end;
} port_st_entry;

typedef struct port_st_header {
    uint64_t data_offset; /* of the data in the file */
    size_t count;
    port_st_entry *entries; /* sorted by begin */
    port_json *json;
} port_st_header;

/* Parses and checks the header of a file of size bytes, of which at least the header must be in memory.
 * Returns: PORT_OK; FORMAT, TRUNCATED, CORRUPT (holes, overlaps, sizes that do not fit), NOMEM. Free on PORT_OK only. */
port_status port_st_parse(const void *file, uint64_t size, port_st_header *header, port_error *err);
void port_st_free(port_st_header *header);
/* The entry of this name, or NULL. */
const port_st_entry *port_st_find(const port_st_header *header, const char *name);

/* Appends `"name":{...}` (no comma). */
void port_st_put_entry(port_text *text, const char *name, size_t name_bytes, port_dtype dtype, int32_t ndim,
                       const int64_t *shape, uint64_t begin, uint64_t end);

#endif /* PORT_SAFETENSORS_H */
