/* reader.h -- an opened capture in memory. Private to csrc/store/. */
#ifndef PORT_READER_H
#define PORT_READER_H

#include "journal.h"
#include "store.h"
#include "strings.h"

#include <pthread.h>

typedef struct read_string {
    const char *text; /* a NUL follows; none inside */
    uint32_t size;
    uint32_t num_leaves; /* of a structure that a CALL used: + 1 */
    uint64_t leaves_at;  /* in leaves */
} read_string;

typedef struct read_leaf {
    const char *path;
    size_t size;
} read_leaf;

typedef struct read_tensor {
    uint64_t offset, bytes, dims_at;
    port_hash128 hash;
    uint32_t segment, key;
    uint8_t dtype, ndim;
} read_tensor;

typedef struct read_call {
    uint32_t module, call, step, phase, structure, count;
    uint64_t ids_at;
} read_call;

typedef struct read_pair {
    uint32_t first, second;
} read_pair;

/* What gives full names, in order of writing: calls and NAME records. */
typedef struct read_naming {
    uint32_t index; /* in calls, or in bound */
    bool is_call;
} read_naming;

typedef struct read_segment {
    char *path;
    void *map; /* NULL if the file is empty */
    uint64_t size;        /* of the file when it was opened */
    uint64_t header_bytes;
    uint64_t used;        /* end of the last tensor */
    uint64_t sealed_bytes; /* 0: not sealed */
} read_segment;

#define ARRAY(type)            \
    struct {                   \
        type *items;           \
        size_t count, capacity; \
    }

/* Every full name with its tensor; made when the first name is asked for. */
typedef struct read_names {
    bool made;
    port_strings table;
    uint32_t *tensors; /* by id in table */
    size_t num_tensors;
    size_t num_modules;
} read_names;

struct port_reader {
    char *path, *directory; /* of the capture; of the rank */
    uint32_t rank;
    bool finished, manifest_finished;
    uint64_t journal_bytes, good_bytes; /* size of the journal; up to the end of the last good record */
    uint64_t num_records;
    port_recovery recovery;
    struct {
        char **items;
        size_t count, capacity;
        size_t used, size; /* of the last block */
    } blocks;
    ARRAY(read_string) strings;
    ARRAY(read_tensor) tensors;
    ARRAY(int64_t) dims;
    ARRAY(read_call) calls;
    ARRAY(uint32_t) ids;
    ARRAY(read_leaf) leaves;
    ARRAY(read_pair) bound;
    ARRAY(read_pair) aliases;
    ARRAY(read_string) notes;
    ARRAY(read_naming) namings;
    ARRAY(read_segment) segments;
    pthread_mutex_t names_lock;
    read_names names;
};

/* Makes room for `more` items behind `count`; false if there is no memory. */
bool port_array_reserve(void *array, size_t item_bytes, size_t more);
#define array_reserve(array, more) port_array_reserve((array), sizeof *(array)->items, (more))

/* A copy of the text with a NUL behind it that lives as long as the reader; NULL if there is no memory. */
const char *port_reader_keep(port_reader *reader, const void *text, size_t size);

/* decode.c: takes one record in, after checking it. TRUNCATED: it speaks of bytes that no segment has. */
port_status port_reader_decode(port_reader *reader, int kind, port_cursor *payload, port_error *err);
/* Opens a capture. For repair: `lenient` ends at the first bad record, whatever the manifest says. */
port_status port_reader_open_as(const char *path, bool lenient, port_reader **reader, port_error *err);
/* names.c: makes the table of full names if need be. */
port_status port_reader_make_names(const port_reader *reader, port_error *err);

/* index.c: writes model.safetensors.index.json. */
port_status port_capture_write_index(const port_reader *reader, port_error *err);

#endif /* PORT_READER_H */
