/* journal.h -- framing of journal records (docs/FORMAT.md, section 4). Private to csrc/store/. */
#ifndef PORT_JOURNAL_H
#define PORT_JOURNAL_H

#include "../formats/json.h"

#define JOURNAL_HEAD_BYTES 16
#define RECORD_HEAD_BYTES 16
#define RECORD_MAX_BYTES (1u << 28) /* of payload */
#define JOURNAL_VERSION 1

typedef enum record_kind {
    RECORD_STRING = 1,
    RECORD_TENSOR = 2,
    RECORD_CALL = 3,
    RECORD_NAME = 4,
    RECORD_ALIAS = 5,
    RECORD_NOTE = 6,
    RECORD_SEAL = 7,
    RECORD_END = 8,
    RECORD_OPTIONAL = 128 /* unknown kinds from here on may be skipped */
} record_kind;

/* Writes the 16 bytes at the start of a journal. */
void port_journal_head(char out[JOURNAL_HEAD_BYTES], uint32_t rank);

/* A record is put together in a port_text: begin (returns its place), any port_put_*, finish. If text->failed is set
 * afterwards, the text must be cut back to the place. */
size_t port_record_begin(port_text *text, record_kind kind);
void port_record_finish(port_text *text, size_t place);
void port_put_u32(port_text *text, uint32_t value);
void port_put_u64(port_text *text, uint64_t value);

/* Reading. A payload is walked with a cursor that goes bad instead of past its end. */
typedef struct port_cursor {
    const unsigned char *at, *end;
    bool bad;
} port_cursor;

uint8_t port_get_u8(port_cursor *cursor);
uint32_t port_get_u32(port_cursor *cursor);
uint64_t port_get_u64(port_cursor *cursor);

/* The record at byte `at` of a journal of `size` bytes. scratch is reused from call to call.
 * Returns: PORT_OK (*kind, *payload, *next: where the following one starts);
 *          TRUNCATED (cut short, also: at == size), CORRUPT (checksum or frame), NOMEM. */
port_status port_record_read(const unsigned char *journal, uint64_t size, uint64_t at, port_text *scratch, int *kind,
                             port_cursor *payload, uint64_t *next, port_error *err);

#endif /* PORT_JOURNAL_H */
