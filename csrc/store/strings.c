/* strings.c -- open addressing over ids; the texts lie in blocks that never move. */
#include "strings.h"

#define BLOCK_BYTES (64 * 1024)

void
port_strings_free(port_strings *strings)
{
    for (char *block = strings->block; block != NULL;) {
        char *before;
        memcpy(&before, block, sizeof before);
        port_free(block);
        block = before;
    }
    port_free(strings->items);
    port_free(strings->slots);
    *strings = (port_strings){0};
}

static uint32_t
find_hashed(const port_strings *strings, const char *text, size_t size, uint32_t hash)
{
    if (strings->num_slots == 0) {
        return PORT_NO_STRING;
    }
    uint32_t mask = strings->num_slots - 1;
    for (uint32_t i = hash & mask; strings->slots[i] != 0; i = (i + 1) & mask) {
        const port_string *item = &strings->items[strings->slots[i] - 1];
        if (item->hash == hash && item->size == size && memcmp(item->text, text, size) == 0) {
            return strings->slots[i] - 1;
        }
    }
    return PORT_NO_STRING;
}

uint32_t
port_strings_find(const port_strings *strings, const char *text, size_t size)
{
    return find_hashed(strings, text, size, (uint32_t)port_hash(text, size).low);
}

static bool
grow_slots(port_strings *strings)
{
    uint32_t num_slots = strings->num_slots > 0 ? 2 * strings->num_slots : 256;
    uint32_t *slots = port_calloc(num_slots, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (uint32_t id = 0; id < strings->count; id++) {
        uint32_t i = strings->items[id].hash & (num_slots - 1);
        while (slots[i] != 0) {
            i = (i + 1) & (num_slots - 1);
        }
        slots[i] = id + 1;
    }
    port_free(strings->slots);
    strings->slots = slots;
    strings->num_slots = num_slots;
    return true;
}

static bool
grow_items(port_strings *strings)
{
    uint32_t capacity = strings->capacity > 0 ? 2 * strings->capacity : 128;
    port_string *items = port_realloc(strings->items, capacity * sizeof *items);
    if (items == NULL) {
        return false;
    }
    strings->items = items;
    strings->capacity = capacity;
    return true;
}

/* Room for the text and a NUL; NULL if there is no memory. */
static char *
reserve_text(port_strings *strings, size_t size)
{
    if (strings->block == NULL || strings->block_size - strings->block_used < size + 1) {
        size_t needed = sizeof(char *) + size + 1;
        size_t block_size = needed > BLOCK_BYTES ? needed : BLOCK_BYTES;
        char *block = port_alloc(block_size);
        if (block == NULL) {
            return NULL;
        }
        memcpy(block, &strings->block, sizeof(char *));
        strings->block = block;
        strings->block_size = block_size;
        strings->block_used = sizeof(char *);
    }
    return strings->block + strings->block_used;
}

uint32_t
port_strings_add(port_strings *strings, const char *text, size_t size, bool *added)
{
    uint32_t hash = (uint32_t)port_hash(text, size).low;
    uint32_t id = find_hashed(strings, text, size, hash);
    *added = id == PORT_NO_STRING;
    if (id != PORT_NO_STRING) {
        return id;
    }
    if (size >= UINT32_MAX || strings->count >= UINT32_MAX / 4 ||
        (strings->count >= strings->num_slots / 2 && !grow_slots(strings)) ||
        (strings->count == strings->capacity && !grow_items(strings))) {
        return PORT_NO_STRING;
    }
    char *copy = reserve_text(strings, size);
    if (copy == NULL) {
        return PORT_NO_STRING;
    }
    if (size > 0) {
        memcpy(copy, text, size);
    }
    copy[size] = '\0';
    strings->block_used += size + 1;
    id = strings->count++;
    strings->items[id] = (port_string){.text = copy, .size = (uint32_t)size, .hash = hash};
    uint32_t i = hash & (strings->num_slots - 1);
    while (strings->slots[i] != 0) {
        i = (i + 1) & (strings->num_slots - 1);
    }
    strings->slots[i] = id + 1;
    return id;
}
