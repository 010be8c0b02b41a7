/* thread.c -- the thread that writes: tensor bytes to the segment, then the records that name them to the journal.
 *
 * Items are gathered into batches straight from the ring, without copying. A batch is written in two calls: all its
 * tensor bytes, then all its records. So at any moment each record in the journal speaks of bytes that are in a file.
 * After an error the thread goes on taking items out and drops them, so that nobody waits for room forever. */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#define BATCH_PIECES 128
#define BATCH_BYTES (4u * 1024 * 1024)
#define ENOUGH_BYTES (256u * 1024) /* no nap when this much waits */
#define NAP_NS 4000000

typedef struct batch {
    struct iovec data[BATCH_PIECES + 2], records[BATCH_PIECES + 2];
    int num_data, num_records;
    uint64_t data_at, data_bytes, records_bytes;
} batch;

static port_status
write_batch(port_queue *queue, batch *b, port_error *err)
{
    port_status status = PORT_OK;
    if (b->num_data > 0) {
        status = port_io_write(queue->segment_fd, b->data, b->num_data, b->data_at, queue->segment_path, err);
    }
    if (status == PORT_OK && b->num_records > 0) {
        status = port_io_write(queue->journal_fd, b->records, b->num_records, queue->journal_bytes, queue->directory, err);
        queue->journal_bytes += b->records_bytes;
    }
    b->num_data = b->num_records = 0;
    b->data_bytes = b->records_bytes = 0;
    return status;
}

/* Creates the segment with an empty header: "{}" and spaces. */
static port_status
open_segment(port_queue *queue, const queue_item *item, port_error *err)
{
    port_free(queue->segment_path);
    queue->segment_path = port_segment_path(queue->directory, item->segment);
    char *header = port_alloc((size_t)item->header_bytes + 8);
    if (queue->segment_path == NULL || header == NULL) {
        port_free(header);
        return port_fail(err, PORT_E_NOMEM, "no memory to create segment %u", item->segment);
    }
    port_status status = port_io_open(queue->segment_path, O_WRONLY | O_CREAT | O_EXCL, &queue->segment_fd, err);
    if (status == PORT_OK) {
        memcpy(header, &item->header_bytes, 8);
        memset(header + 8, ' ', (size_t)item->header_bytes);
        memcpy(header + 8, "{}", 2);
        struct iovec piece = {.iov_base = header, .iov_len = (size_t)item->header_bytes + 8};
        status = port_io_write(queue->segment_fd, &piece, 1, 0, queue->segment_path, err);
    }
    port_free(header);
    queue->segment = item->segment;
    queue->segment_end = item->header_bytes + 8;
    return status;
}

static port_status
add_tensor(port_queue *queue, batch *b, const queue_item *item, port_error *err)
{
    static char zeros[64];
    port_status status = PORT_OK;
    if (queue->segment_fd < 0) {
        status = open_segment(queue, item, err);
        if (status != PORT_OK) {
            return status;
        }
    }
    if (b->num_data == 0) {
        b->data_at = queue->segment_end;
    }
    uint64_t gap = item->offset - queue->segment_end;
    if (gap > 0) {
        b->data[b->num_data++] = (struct iovec){.iov_base = zeros, .iov_len = (size_t)gap};
    }
    if (item->data_bytes > 0) {
        b->data[b->num_data++] = (struct iovec){.iov_base = (void *)(uintptr_t)item->data, .iov_len = item->data_bytes};
    }
    b->data_bytes += gap + item->data_bytes;
    queue->segment_end = item->offset + item->data_bytes;
    return PORT_OK;
}

static port_status
seal_segment(port_queue *queue, batch *b, const queue_item *item, port_error *err)
{
    port_status status = write_batch(queue, b, err);
    if (status == PORT_OK) {
        struct iovec piece = {.iov_base = (void *)(uintptr_t)item->data, .iov_len = item->data_bytes};
        status = port_io_write(queue->segment_fd, &piece, 1, 8, queue->segment_path, err);
    }
    if (port_io->close(queue->segment_fd) != 0 && status == PORT_OK) {
        status = port_fail_errno(err, errno, "cannot close %s", queue->segment_path);
    }
    queue->segment_fd = -1;
    return status;
}

static port_status
add_item(port_queue *queue, batch *b, const queue_item *item, port_error *err)
{
    port_status status = PORT_OK;
    if (item->kind == ITEM_TENSOR) {
        status = add_tensor(queue, b, item, err);
    } else if (item->kind == ITEM_SEAL) {
        status = seal_segment(queue, b, item, err);
    }
    if (status == PORT_OK && item->records_bytes > 0) {
        b->records[b->num_records++] =
            (struct iovec){.iov_base = (void *)(uintptr_t)item->records, .iov_len = item->records_bytes};
        b->records_bytes += item->records_bytes;
    }
    return status;
}

/* Writes items from `tail` on until a batch is full or `head` is reached; returns where it stopped.
 * With `drop` set, or after an error, items are only released. */
static uint64_t
take_batch(port_queue *queue, uint64_t tail, uint64_t head, bool drop, port_error *err)
{
    batch b;
    b.num_data = b.num_records = 0;
    b.data_at = b.data_bytes = b.records_bytes = 0;
    port_status status = PORT_OK;
    while (tail < head && b.num_data < BATCH_PIECES && b.num_records < BATCH_PIECES && b.data_bytes < BATCH_BYTES) {
        queue_item item;
        memcpy(&item, queue->memory + tail % queue->capacity, sizeof item);
        if (!drop && status == PORT_OK) {
            status = add_item(queue, &b, &item, err);
        }
        if (item.kind == ITEM_SEAL) {
            port_free((void *)(uintptr_t)item.data);
        }
        tail += item.item_bytes;
    }
    if (!drop && status == PORT_OK) {
        write_batch(queue, &b, err);
    }
    return tail;
}

/* The lock is held. False: stop, and nothing waits. */
static bool
wait_for_items(port_queue *queue)
{
    while (queue->head == queue->tail && !queue->stop) {
        queue->urgent = false;
        queue->state = QUEUE_ASLEEP;
        pthread_cond_wait(&queue->to_thread, &queue->lock);
    }
    if (!queue->urgent && !queue->stop && queue->head - queue->tail < ENOUGH_BYTES) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += NAP_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        queue->state = QUEUE_NAPPING;
        while (queue->state == QUEUE_NAPPING && !queue->stop &&
               pthread_cond_timedwait(&queue->to_thread, &queue->lock, &until) == 0) {
        }
    }
    queue->state = QUEUE_BUSY;
    return queue->head != queue->tail;
}

void *
port_queue_run(void *argument)
{
    port_queue *queue = argument;
    port_error error = {.status = PORT_OK};
    pthread_mutex_lock(&queue->lock);
    while (wait_for_items(queue)) {
        uint64_t head = queue->head, tail = queue->tail;
        pthread_mutex_unlock(&queue->lock);
        tail = take_batch(queue, tail, head, error.status != PORT_OK, &error);
        pthread_mutex_lock(&queue->lock);
        queue->tail = tail;
        if (queue->error.status == PORT_OK && error.status != PORT_OK) {
            queue->error = error;
        }
        if (queue->num_waiting > 0) {
            pthread_cond_broadcast(&queue->to_producers);
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}
