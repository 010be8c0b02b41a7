/* queue.c -- the producers' side of the ring.
 *
 * Waking a sleeping thread costs more than storing a small tensor, so it is woken once for a burst: it then naps for some
 * milliseconds, in which producers only leave their items, unless much waits or somebody waits for it. When the ring is
 * empty both ends go back to its start: a capture that the disk keeps up with touches little of the ring's memory. */
#include "queue.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIN_CAPACITY (64u * 1024)
#define WAKE_BYTES (256u * 1024) /* a napping thread is woken when this much waits */

static uint64_t
round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

char *
port_segment_path(const char *directory, uint32_t segment)
{
    char name[40];
    snprintf(name, sizeof name, "seg-%05u.safetensors", segment);
    return port_path_join(directory, name);
}

port_status
port_queue_start(port_queue *queue, uint64_t budget_bytes, const char *directory, int journal_fd, uint64_t journal_bytes,
                 port_error *err)
{
    *queue = (port_queue){.directory = directory, .journal_fd = journal_fd, .segment_fd = -1, .segment = UINT32_MAX,
                          .journal_bytes = journal_bytes};
    queue->capacity = (size_t)round_up(budget_bytes > MIN_CAPACITY ? budget_bytes : MIN_CAPACITY, MIN_CAPACITY);
    void *memory = mmap(NULL, queue->capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return port_fail(err, PORT_E_NOMEM, "no memory for a ring of %zu bytes", queue->capacity);
    }
    madvise(memory, queue->capacity, MADV_HUGEPAGE);
    queue->memory = memory;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->to_thread, &monotonic);
    pthread_cond_init(&queue->to_producers, NULL);
    pthread_condattr_destroy(&monotonic);
    int failed = pthread_create(&queue->thread, NULL, port_queue_run, queue);
    if (failed != 0) {
        munmap(queue->memory, queue->capacity);
        return port_fail_errno(err, failed, "cannot start the thread that writes %s", directory);
    }
    return PORT_OK;
}

static void
close_files(port_queue *queue)
{
    if (queue->segment_fd >= 0) {
        port_io->close(queue->segment_fd);
    }
    port_io->close(queue->journal_fd);
    port_free(queue->segment_path);
    munmap(queue->memory, queue->capacity);
}

void
port_queue_stop(port_queue *queue, port_error *err)
{
    pthread_mutex_lock(&queue->lock);
    queue->stop = true;
    pthread_cond_signal(&queue->to_thread);
    pthread_mutex_unlock(&queue->lock);
    pthread_join(queue->thread, NULL);
    if (err != NULL) {
        *err = queue->error;
    }
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->to_thread);
    pthread_cond_destroy(&queue->to_producers);
    close_files(queue);
}

void
port_queue_forget(port_queue *queue)
{
    close_files(queue);
}

/* The lock is held. */
static port_status
error_locked(const port_queue *queue, port_error *err)
{
    if (queue->error.status != PORT_OK && err != NULL) {
        *err = queue->error;
    }
    return queue->error.status;
}

static void
wake_locked(port_queue *queue, bool urgent)
{
    queue->urgent = queue->urgent || urgent;
    bool much = queue->head - queue->tail >= WAKE_BYTES;
    if (queue->state == QUEUE_ASLEEP || (queue->state == QUEUE_NAPPING && (much || queue->urgent))) {
        queue->state = QUEUE_BUSY; /* so that the next producer need not signal again */
        pthread_cond_signal(&queue->to_thread);
    }
}

static void
wait_locked(port_queue *queue)
{
    wake_locked(queue, true);
    queue->num_waiting++;
    pthread_cond_wait(&queue->to_producers, &queue->lock);
    queue->num_waiting--;
}

/* Waits for item_bytes in one piece and returns the place, after filling up the end of the ring if need be.
 * The lock is held. NULL: the thread failed, or with nowait there is no room. */
static char *
room_locked(port_queue *queue, uint64_t item_bytes, bool nowait)
{
    while (queue->error.status == PORT_OK) {
        if (queue->head == queue->tail && queue->head % queue->capacity != 0) {
            queue->head = queue->tail = round_up(queue->head, queue->capacity);
        }
        uint64_t place = queue->head % queue->capacity;
        uint64_t skip = place + item_bytes > queue->capacity ? queue->capacity - place : 0;
        if (queue->head + skip + item_bytes - queue->tail <= queue->capacity) {
            if (skip > 0) {
                queue_item filler = {.item_bytes = skip, .kind = ITEM_SKIP};
                memcpy(queue->memory + place, &filler, sizeof filler);
                queue->head += skip;
            }
            return queue->memory + queue->head % queue->capacity;
        }
        if (nowait) {
            return NULL;
        }
        wait_locked(queue);
    }
    return NULL;
}

port_status
port_queue_put(port_queue *queue, queue_item item, bool nowait, port_error *err)
{
    bool records_in_ring = sizeof item + item.records_bytes <= queue->capacity;
    uint64_t head_bytes = round_up(sizeof item + (records_in_ring ? item.records_bytes : 0), 64);
    bool data_in_ring = item.kind == ITEM_TENSOR && records_in_ring && item.data_bytes <= queue->capacity - head_bytes;
    bool through = !records_in_ring || (item.kind == ITEM_TENSOR && !data_in_ring);
    if (through && nowait) {
        return PORT_WOULD_BLOCK;
    }
    item.item_bytes = data_in_ring ? round_up(head_bytes + item.data_bytes, 64) : head_bytes;
    pthread_mutex_lock(&queue->lock);
    char *place = room_locked(queue, item.item_bytes, nowait);
    if (place == NULL) {
        port_status status = error_locked(queue, err);
        pthread_mutex_unlock(&queue->lock);
        return status != PORT_OK ? status : PORT_WOULD_BLOCK;
    }
    pthread_mutex_unlock(&queue->lock); /* the place is ours: only one producer at a time, and the head has not moved */
    if (records_in_ring && item.records_bytes > 0) {
        item.records = memcpy(place + sizeof item, item.records, item.records_bytes);
    }
    if (data_in_ring && item.data_bytes > 0) {
        item.data = memcpy(place + head_bytes, item.data, item.data_bytes);
    }
    memcpy(place, &item, sizeof item);
    pthread_mutex_lock(&queue->lock);
    queue->head += item.item_bytes;
    uint64_t end = queue->head;
    queue->peak = queue->head - queue->tail > queue->peak ? queue->head - queue->tail : queue->peak;
    wake_locked(queue, through);
    while (through && queue->tail < end) {
        wait_locked(queue);
    }
    port_status status = through ? error_locked(queue, err) : PORT_OK;
    pthread_mutex_unlock(&queue->lock);
    return status;
}

port_status
port_queue_flush(port_queue *queue, port_error *err)
{
    pthread_mutex_lock(&queue->lock);
    uint64_t end = queue->head;
    while (queue->tail < end) {
        wait_locked(queue);
    }
    port_status status = error_locked(queue, err);
    pthread_mutex_unlock(&queue->lock);
    return status;
}

port_status
port_queue_error(port_queue *queue, port_error *err)
{
    pthread_mutex_lock(&queue->lock);
    port_status status = error_locked(queue, err);
    pthread_mutex_unlock(&queue->lock);
    return status;
}
