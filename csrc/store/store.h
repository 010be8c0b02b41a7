/* store.h -- what the binding and the tests need of the store beyond porting.h. Private to csrc/. */
#ifndef PORT_STORE_H
#define PORT_STORE_H

#include "../core/core.h"

/* ------------------------------------------------------------------ writing */

/* With PORT_NOWAIT a call that would have to wait (for another thread, or for room) returns PORT_WOULD_BLOCK, has done
 * nothing that a second call without the flag would do again, and leaves err alone. */
#define PORT_NOWAIT 1u
#define PORT_WOULD_BLOCK ((port_status)1)

typedef enum port_phase { PORT_PHASE_IN = 0, PORT_PHASE_OUT = 1, PORT_PHASE_TAP = 2, PORT_PHASE_OP = 3 } port_phase;

typedef struct port_writer_stats {
    uint64_t num_tensors, num_deduplicated; /* stored; found equal to one stored before */
    uint64_t bytes_stored, bytes_seen;      /* of tensors: stored; given, equal ones included */
    uint64_t peak_waiting_bytes;            /* most that the ring ever held */
} port_writer_stats;

/* All functions may be called from any thread. Texts: UTF-8 without NUL, sizes in bytes.
 * Returns, unless noted: PORT_OK; VALUE; IO (what the writing thread met before); CLOSED (also in a forked child); NOMEM. */

/* Stores the tensor, or finds an equal one. key: its name in the segment if it is new; "#2", ... is added if the key is taken. */
port_status port_writer_put(port_writer *writer, const port_view *tensor, const char *key, size_t key_bytes, unsigned flags,
                            uint32_t *id, port_error *err);
/* Binds a full name to a stored tensor. EXISTS: the name was bound before. */
port_status port_writer_name(port_writer *writer, const char *name, size_t name_bytes, uint32_t id, unsigned flags,
                             port_error *err);
typedef struct port_call_record {
    const char *module, *structure;
    size_t module_bytes, structure_bytes;
    uint32_t call, step, phase, count;
    const uint32_t *tensor_ids;
} port_call_record;
/* VALUE also: the structure is no JSON of docs/FORMAT.md, has another number of leaves, or this module, call and phase were written before. */
port_status port_writer_call(port_writer *writer, const port_call_record *record, unsigned flags, port_error *err);
port_status port_writer_alias(port_writer *writer, const char *alias, size_t alias_bytes, const char *module,
                              size_t module_bytes, unsigned flags, port_error *err);
/* text: a JSON object. */
port_status port_writer_note(port_writer *writer, const char *text, size_t size, unsigned flags, port_error *err);
/* Replaces MANIFEST.json now. "finished" is set to false: it becomes true at close. */
port_status port_writer_set_manifest(port_writer *writer, const char *text, size_t size, port_error *err);
/* Waits until all that was stored before is in the files. */
port_status port_writer_flush(port_writer *writer, port_error *err);
/* port_writer_close with a manifest to write (NULL: the last one set, or a minimal one). After VALUE, which says that it is
 * none, the writer is still open. */
port_status port_writer_finish(port_writer *writer, const char *manifest, size_t size, port_error *err);
/* Ends the thread after it has written what waits. The capture stays unfinished. */
port_status port_writer_abort(port_writer *writer, port_error *err);
bool port_writer_closed(const port_writer *writer);
port_writer_stats port_writer_get_stats(port_writer *writer);
const char *port_writer_path(const port_writer *writer);

/* ------------------------------------------------------------------ reading */

typedef struct port_tensor_info {
    port_dtype dtype;
    int32_t ndim;
    const int64_t *shape, *strides; /* strides as the captured process saw them */
    uint64_t bytes, offset;
    port_hash128 hash;
    uint32_t segment;
    const char *key;
} port_tensor_info;

typedef struct port_call_info {
    uint32_t module, structure; /* string ids */
    uint32_t call, step, phase, count;
    const uint32_t *tensor_ids;
} port_call_info;

typedef struct port_recovery {
    uint64_t records, dropped_bytes;
    char reason[256];
} port_recovery;

size_t port_reader_num_tensors(const port_reader *reader);
/* id must be < num_tensors. All memory is borrowed until the reader is freed. */
port_tensor_info port_reader_info(const port_reader *reader, uint32_t id);
port_view port_reader_tensor(const port_reader *reader, uint32_t id);
size_t port_reader_num_strings(const port_reader *reader);
const char *port_reader_string(const port_reader *reader, uint32_t id, size_t *size);
size_t port_reader_num_calls(const port_reader *reader);
port_call_info port_reader_call(const port_reader *reader, size_t i);
/* Names by NAME records alone. */
size_t port_reader_num_bound(const port_reader *reader);
void port_reader_bound(const port_reader *reader, size_t i, const char **name, uint32_t *id);
size_t port_reader_num_aliases(const port_reader *reader);
void port_reader_alias(const port_reader *reader, size_t i, const char **alias, const char **module);
size_t port_reader_num_notes(const port_reader *reader);
const char *port_reader_note(const port_reader *reader, size_t i);
/* What an unfinished capture lost. */
port_recovery port_reader_recovery(const port_reader *reader);

/* ------------------------------------------------------------------ whole captures */

/* Makes an unfinished capture a finished one: cuts the journal after the last good record, seals, writes index, END and
 * manifest. *recovery says what was kept. A finished capture is left as it is. */
port_status port_capture_repair(const char *path, port_recovery *recovery, port_error *err);
/* Hashes every tensor again and checks the header of each segment against the journal.
 * Returns: PORT_OK and the number of tensors; CORRUPT names the first bad one. */
port_status port_capture_verify(const char *path, uint64_t *num_tensors, port_error *err);

#endif /* PORT_STORE_H */
