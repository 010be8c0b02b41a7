/* strings.h -- texts with numbers: each distinct text has one id, counted up from 0. Private to csrc/store/. */
#ifndef PORT_STRINGS_H
#define PORT_STRINGS_H

#include "../core/core.h"

#define PORT_NO_STRING UINT32_MAX

typedef struct port_string {
    const char *text; /* a NUL follows; lives as long as the table */
    uint32_t size;
    uint32_t hash;
    uint32_t user[2]; /* the owner's notes; 0 at first */
} port_string;

/* Starts as {0}. */
typedef struct port_strings {
    port_string *items;
    uint32_t count, capacity;
    uint32_t *slots; /* id + 1; 0 is free. A power of two, at most half full */
    uint32_t num_slots;
    char *block; /* where texts are copied to; the first bytes hold the pointer to the block before */
    size_t block_used, block_size;
} port_strings;

void port_strings_free(port_strings *strings);
/* The id of the text, or PORT_NO_STRING. */
uint32_t port_strings_find(const port_strings *strings, const char *text, size_t size);
/* Adds the text if it is new. Returns its id, or PORT_NO_STRING if there is no memory (then nothing has changed). */
uint32_t port_strings_add(port_strings *strings, const char *text, size_t size, bool *added);

#endif /* PORT_STRINGS_H */
