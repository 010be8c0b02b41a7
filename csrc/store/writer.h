/* writer.h -- the writer's inside, shared by writer.c (what is stored) and create.c (life and death). Private to csrc/store/. */
#ifndef PORT_WRITER_H
#define PORT_WRITER_H

#include "journal.h"
#include "queue.h"
#include "store.h"
#include "strings.h"

#include <stdatomic.h>

/* One stored tensor, as far as finding equal ones needs it. */
typedef struct stored_tensor {
    port_hash128 hash;
    uint64_t dims_at; /* in dims: shape, then strides */
    uint8_t dtype, ndim;
} stored_tensor;

struct port_writer {
    char *path, *directory; /* of the capture; of this rank */
    uint64_t segment_bytes;
    uint32_t rank;
    bool owns_manifest; /* made the capture's directory; every other rank leaves MANIFEST.json alone */
    pid_t pid;            /* of the process that made it: a forked child must not write */
    pthread_mutex_t lock; /* producers take turns; everything below is under it */
    atomic_bool closed; /* written under the lock, read without */
    bool finished;
    port_queue queue;
    port_text records; /* STRING records that no item has taken along yet, then those of the present call */
    uint64_t num_waiting_records;
    port_strings strings, calls;
    stored_tensor *tensors;
    uint32_t num_tensors, capacity_tensors;
    int64_t *dims;
    uint64_t num_dims, capacity_dims;
    uint32_t *slots; /* tensor id + 1; 0 is free */
    uint32_t num_slots;
    /* The open segment. */
    uint32_t segment, segment_tensors; /* the file is created by its first tensor */
    uint64_t segment_end; /* in the file */
    uint64_t header_bytes;
    uint32_t num_pads;
    port_text header, entry;
    char *manifest; /* the last one set, or NULL */
    size_t manifest_bytes;
    uint64_t num_records;
    port_writer_stats stats;
};

/* Takes the lock after the checks that every call makes. PORT_WOULD_BLOCK with PORT_NOWAIT if another thread has it. */
port_status port_writer_enter(port_writer *writer, unsigned flags, port_error *err);
void port_writer_leave(port_writer *writer);

/* Begins the call's own record, after all its texts were interned; send finishes it and puts the item in the queue with
 * all records that wait. If that fails the record is dropped and the STRING records go on waiting. */
size_t port_writer_begin(port_writer *writer, record_kind kind);
port_status port_writer_send(port_writer *writer, size_t place, queue_item item, unsigned flags, port_error *err);

/* segments.c: where the next tensor goes. Seals the open segment if it is full. */
typedef struct segment_place {
    uint64_t offset; /* in the file */
    uint32_t num_pads;
} segment_place;
port_status port_segment_plan(port_writer *writer, const char *key, size_t key_bytes, const port_view *tensor, uint64_t bytes,
                              unsigned flags, segment_place *place, port_error *err);
/* Takes the planned tensor into the header. Cannot fail. */
void port_segment_commit(port_writer *writer, segment_place place, uint64_t bytes);
/* Seals the open segment, if there is one. */
port_status port_segment_seal(port_writer *writer, unsigned flags, port_error *err);

#endif /* PORT_WRITER_H */
