/* journal.c -- framing of journal records: size, kind, checksum. */
#include "journal.h"

static const char magic[8] = {'P', 'O', 'R', 'T', 'J', 'R', 'N', 'L'};

void
port_journal_head(char out[JOURNAL_HEAD_BYTES], uint32_t rank)
{
    uint32_t version = JOURNAL_VERSION;
    memcpy(out, magic, 8);
    memcpy(out + 8, &version, 4);
    memcpy(out + 12, &rank, 4);
}

void
port_put_u32(port_text *text, uint32_t value)
{
    port_text_put(text, &value, sizeof value);
}

void
port_put_u64(port_text *text, uint64_t value)
{
    port_text_put(text, &value, sizeof value);
}

/* While a record is put together its frame stands in the 8 bytes before the payload, so that both lie side by side for
 * the checksum; finish moves it 8 bytes to the front and puts the checksum in its place. */
size_t
port_record_begin(port_text *text, record_kind kind)
{
    size_t place = text->size;
    const unsigned char head[RECORD_HEAD_BYTES] = {[12] = (unsigned char)kind};
    port_text_put(text, head, sizeof head);
    return place;
}

void
port_record_finish(port_text *text, size_t place)
{
    if (text->failed) {
        return;
    }
    char *record = text->data + place;
    uint32_t size = (uint32_t)(text->size - place - RECORD_HEAD_BYTES);
    memcpy(record + 8, &size, 4);
    uint64_t checksum = port_hash(record + 8, 8 + (size_t)size).low;
    memcpy(record, record + 8, 8);
    memcpy(record + 8, &checksum, 8);
}

static void
get(port_cursor *cursor, void *out, size_t size)
{
    if ((size_t)(cursor->end - cursor->at) < size) {
        cursor->bad = true;
        memset(out, 0, size);
        return;
    }
    memcpy(out, cursor->at, size);
    cursor->at += size;
}

uint8_t
port_get_u8(port_cursor *cursor)
{
    uint8_t value;
    get(cursor, &value, sizeof value);
    return value;
}

uint32_t
port_get_u32(port_cursor *cursor)
{
    uint32_t value;
    get(cursor, &value, sizeof value);
    return value;
}

uint64_t
port_get_u64(port_cursor *cursor)
{
    uint64_t value;
    get(cursor, &value, sizeof value);
    return value;
}

port_status
port_record_read(const unsigned char *journal, uint64_t size, uint64_t at, port_text *scratch, int *kind,
                 port_cursor *payload, uint64_t *next, port_error *err)
{
    if (size - at < RECORD_HEAD_BYTES) {
        return port_fail(err, PORT_E_TRUNCATED, "the journal ends at byte %llu inside a record", (unsigned long long)size);
    }
    const unsigned char *record = journal + at;
    uint32_t payload_bytes;
    uint64_t checksum;
    memcpy(&payload_bytes, record, 4);
    memcpy(&checksum, record + 8, 8);
    if (payload_bytes > RECORD_MAX_BYTES || record[5] != 0 || record[6] != 0 || record[7] != 0) {
        return port_fail(err, PORT_E_CORRUPT, "journal byte %llu is no start of a record", (unsigned long long)at);
    }
    if (payload_bytes > size - at - RECORD_HEAD_BYTES) {
        return port_fail(err, PORT_E_TRUNCATED, "the journal ends at byte %llu inside the record at byte %llu",
                         (unsigned long long)size, (unsigned long long)at);
    }
    scratch->size = 0;
    port_text_put(scratch, record, 8);
    port_text_put(scratch, record + RECORD_HEAD_BYTES, payload_bytes);
    if (scratch->failed) {
        scratch->failed = false;
        return port_fail(err, PORT_E_NOMEM, "no memory for a journal record of %u bytes", payload_bytes);
    }
    if (port_hash(scratch->data, scratch->size).low != checksum) {
        return port_fail(err, PORT_E_CORRUPT, "the checksum of the journal record at byte %llu does not hold",
                         (unsigned long long)at);
    }
    *kind = record[4];
    payload->at = (const unsigned char *)scratch->data + 8;
    payload->end = payload->at + payload_bytes;
    payload->bad = false;
    *next = at + RECORD_HEAD_BYTES + payload_bytes;
    return PORT_OK;
}
