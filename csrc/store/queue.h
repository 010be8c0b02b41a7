/* queue.h -- the ring between the threads that capture and the one thread that writes. Private to csrc/store/.
 *
 * Producers take turns (the writer's lock); one thread consumes. An item is a head, journal records, and the bytes of a
 * tensor, all in one piece of the ring. The thread writes in order: tensor bytes to the segment, then the records to the journal. */
#ifndef PORT_QUEUE_H
#define PORT_QUEUE_H

#include "../core/io.h"
#include "store.h"

#include <pthread.h>

typedef enum item_kind {
    ITEM_SKIP,    /* fills the ring up to its end */
    ITEM_RECORDS, /* journal records alone */
    ITEM_TENSOR,  /* bytes for a segment, then records */
    ITEM_SEAL     /* header for a segment, then records */
} item_kind;

typedef struct queue_item {
    uint64_t item_bytes; /* with everything that belongs to it; a multiple of 64 */
    uint32_t kind;
    uint32_t segment;
    uint64_t header_bytes; /* ITEM_TENSOR: reserved for the header when the segment is created */
    uint64_t offset;       /* ITEM_TENSOR: where in the file; the gap before it is filled with zeros */
    const void *data;      /* ITEM_TENSOR: in the ring, or the caller's; ITEM_SEAL: the header, from port_alloc, freed by the thread */
    uint64_t data_bytes;
    const void *records;   /* complete journal records: in the ring, or the caller's */
    uint64_t records_bytes;
} queue_item;

/* What the thread is at. */
typedef enum queue_state { QUEUE_BUSY, QUEUE_NAPPING, QUEUE_ASLEEP } queue_state;

typedef struct port_queue {
    char *memory;
    size_t capacity;
    pthread_mutex_t lock;
    pthread_cond_t to_thread, to_producers;
    pthread_t thread;
    uint64_t head, tail; /* bytes put in and taken out so far; the place in the ring is the rest modulo capacity */
    uint64_t peak;
    unsigned num_waiting; /* producers that wait for the tail to move */
    queue_state state;
    bool urgent, stop;
    port_error error; /* the first thing that went wrong in the thread; status PORT_OK before */
    /* The thread's own: */
    const char *directory; /* rank directory, borrowed */
    int journal_fd, segment_fd;
    uint64_t journal_bytes, segment_end;
    uint32_t segment;
    char *segment_path;
} port_queue;

/* Maps the ring and starts the thread; the queue takes journal_fd over on success. */
port_status port_queue_start(port_queue *queue, uint64_t budget_bytes, const char *directory, int journal_fd,
                             uint64_t journal_bytes, port_error *err);
/* Lets the thread write what waits, and ends it. Frees the ring and closes the files. */
void port_queue_stop(port_queue *queue, port_error *err);
/* After a fork, in the child: frees memory and closes files without touching the thread or the locks. */
void port_queue_forget(port_queue *queue);

/* Puts one item in: head, records and the tensor's data are copied into the ring. What is too large for it is written
 * straight from the caller's memory, and the call returns when that is done.
 * Returns: PORT_OK; what the thread met; PORT_WOULD_BLOCK with nowait. */
port_status port_queue_put(port_queue *queue, queue_item item, bool nowait, port_error *err);
/* Waits until the thread has written everything that was put in before. */
port_status port_queue_flush(port_queue *queue, port_error *err);
/* What the thread met so far. */
port_status port_queue_error(port_queue *queue, port_error *err);

/* thread.c: the thread's function; argument the queue. */
void *port_queue_run(void *queue);

/* "seg-00000.safetensors" in memory from port_alloc, below directory. */
char *port_segment_path(const char *directory, uint32_t segment);

#endif /* PORT_QUEUE_H */
