/* segments.c -- where tensors go in the segments, and the safetensors headers that say so.
 *
 * The header's text grows with each tensor, so it is known exactly when it would no longer fit in the space that was reserved.
 * Segments of one capture reserve more and more: a small capture stays small, a long one has few segments. */
#include "writer.h"

#include "../formats/safetensors.h"

#define ALIGNMENT_BYTES 64
#define FIRST_HEADER_BYTES (128u * 1024)
#define LAST_HEADER_BYTES (8u * 1024 * 1024)

static const char header_start[] = "{\"__metadata__\":{\"format\":\"pt\",\"porting.capture\":\"1\"}";

static uint64_t
round_up(uint64_t value)
{
    return (value + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
}

/* Begins a segment in memory; at least `needed` bytes of entries will fit. */
static void
begin_segment(port_writer *writer, uint64_t needed)
{
    unsigned doublings = writer->segment < 6 ? writer->segment : 6;
    uint64_t bytes = (uint64_t)FIRST_HEADER_BYTES << doublings;
    bytes = bytes < LAST_HEADER_BYTES ? bytes : LAST_HEADER_BYTES;
    needed += sizeof header_start + 1;
    writer->header_bytes = round_up((bytes > needed ? bytes : needed) + 8) - 8;
    writer->segment_end = writer->header_bytes + 8;
    writer->header.size = 0;
}

port_status
port_segment_plan(port_writer *writer, const char *key, size_t key_bytes, const port_view *tensor, uint64_t bytes,
                  unsigned flags, segment_place *place, port_error *err)
{
    for (;;) {
        bool fresh = writer->segment_tensors == 0;
        uint64_t at = fresh ? 0 : writer->segment_end - writer->header_bytes - 8;
        uint64_t begin = round_up(at);
        *place = (segment_place){.num_pads = writer->num_pads};
        port_text *entry = &writer->entry;
        entry->size = 0;
        if (begin > at) {
            char pad[32];
            int n = snprintf(pad, sizeof pad, "__pad__.%u", place->num_pads++);
            int64_t gap = (int64_t)(begin - at);
            port_text_put(entry, ",", 1);
            port_st_put_entry(entry, pad, (size_t)n, PORT_U8, 1, &gap, at, begin);
        }
        port_text_put(entry, ",", 1);
        port_st_put_entry(entry, key, key_bytes, tensor->dtype, tensor->ndim, tensor->shape, begin, begin + bytes);
        if (!fresh && (begin + bytes > writer->segment_bytes || writer->header.size + entry->size + 1 > writer->header_bytes)) {
            port_status status = port_segment_seal(writer, flags, err);
            if (status != PORT_OK) {
                return status;
            }
            continue;
        }
        if (fresh && !entry->failed) {
            begin_segment(writer, entry->size);
            port_text_puts(&writer->header, header_start);
        }
        place->offset = writer->header_bytes + 8 + begin;
        if (entry->failed || !port_text_reserve(&writer->header, entry->size + 1)) {
            entry->failed = writer->header.failed = false;
            return port_fail(err, PORT_E_NOMEM, "no memory for the header of segment %u", writer->segment);
        }
        return PORT_OK;
    }
}

void
port_segment_commit(port_writer *writer, segment_place place, uint64_t bytes)
{
    port_text_put(&writer->header, writer->entry.data, writer->entry.size); /* reserved by the plan */
    writer->num_pads = place.num_pads;
    writer->segment_end = place.offset + bytes;
    writer->segment_tensors++;
}

port_status
port_segment_seal(port_writer *writer, unsigned flags, port_error *err)
{
    if (writer->segment_tensors == 0) {
        return PORT_OK;
    }
    char *header = port_alloc((size_t)writer->header_bytes);
    if (header == NULL) {
        return port_fail(err, PORT_E_NOMEM, "no memory for the header of segment %u", writer->segment);
    }
    memset(header, ' ', (size_t)writer->header_bytes);
    memcpy(header, writer->header.data, writer->header.size);
    header[writer->header.size] = '}';
    size_t place = port_writer_begin(writer, RECORD_SEAL);
    port_put_u32(&writer->records, writer->segment);
    port_put_u64(&writer->records, writer->segment_end);
    queue_item item = {.kind = ITEM_SEAL, .segment = writer->segment, .data = header, .data_bytes = writer->header_bytes};
    port_status status = port_writer_send(writer, place, item, flags, err);
    if (status != PORT_OK) {
        port_free(header);
        return status;
    }
    writer->segment++;
    writer->segment_tensors = 0;
    return PORT_OK;
}
