/* test_recovery.c -- journals cut at every byte, with every bit flipped, segments cut short; repair and verify. */
#include "store_fixture.h"

#include "check.h"

#include <fcntl.h>

/* Writes the fixture's capture; returns the journal. */
static char *
write_capture(const char *path, bool close, size_t *journal_bytes)
{
    port_writer *writer = NULL;
    char *journal = NULL;
    port_error err = {.message = ""};
    CHECK(port_writer_create(path, NULL, &writer, &err) == PORT_OK && fixture_fill(writer, &err) == PORT_OK);
    CHECK((close ? port_writer_close(writer, &err) : port_writer_abort(writer, &err)) == PORT_OK);
    port_writer_free(writer);
    char *file = port_path_join(path, "rank00000/journal.bin");
    CHECK(port_io_read_file(file, 1 << 20, &journal, journal_bytes, &err) == PORT_OK);
    port_free(file);
    return journal;
}

static void
put_journal(const char *path, const char *journal, size_t size)
{
    char *file = port_path_join(path, "rank00000/journal.bin");
    fixture_write(file, journal, size);
    port_free(file);
}

static void
cut_journals_give_a_prefix(void)
{
    const char *path = fixture_path("cut");
    size_t size, names_before = 0, tensors_before = 0;
    char *journal = write_capture(path, false, &size);
    for (size_t cut = 0; cut <= size; cut++) {
        port_reader *reader = NULL;
        port_error err;
        put_journal(path, journal, cut);
        port_status status = port_reader_open(path, &reader, &err);
        CHECK(status == (cut < 16 ? PORT_E_TRUNCATED : PORT_OK));
        if (status == PORT_OK) {
            size_t names = port_reader_num_names(reader), tensors = port_reader_num_tensors(reader);
            CHECK(!port_reader_finished(reader) && names >= names_before && tensors >= tensors_before);
            CHECK(port_reader_recovery(reader).dropped_bytes < cut);
            for (size_t i = 0; i < names; i++) {
                port_view view;
                CHECK(port_reader_find(reader, port_reader_name(reader, i), &view, &err) == PORT_OK);
            }
            names_before = names;
            tensors_before = tensors;
            port_reader_free(reader);
        }
    }
    CHECK(names_before == 5 && tensors_before == 4);
    port_free(journal);
}

static void
flipped_bits_are_refused(void)
{
    const char *path = fixture_path("flip");
    size_t size;
    char *journal = write_capture(path, true, &size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        port_reader *reader = NULL;
        journal[bit / 8] = (char)(journal[bit / 8] ^ (1 << bit % 8));
        put_journal(path, journal, size);
        CHECK(port_reader_open(path, &reader, NULL) != PORT_OK && reader == NULL);
        journal[bit / 8] = (char)(journal[bit / 8] ^ (1 << bit % 8));
    }
    put_journal(path, journal, size - 1);
    port_reader *reader = NULL;
    CHECK(port_reader_open(path, &reader, NULL) == PORT_E_TRUNCATED);
    char *longer = port_calloc(1, size + 40);
    memcpy(longer, journal, size);
    put_journal(path, longer, size + 40);
    CHECK(port_reader_open(path, &reader, NULL) == PORT_E_CORRUPT);
    put_journal(path, journal, size);
    CHECK(port_reader_open(path, &reader, NULL) == PORT_OK);
    port_reader_free(reader);
    port_free(longer);
    port_free(journal);
}

static void
short_segments(void)
{
    const char *path = fixture_path("short");
    for (int finished = 0; finished < 2; finished++) {
        size_t size;
        char *journal = write_capture(path, finished, &size);
        char *segment = port_path_join(path, "rank00000/seg-00000.safetensors");
        struct stat info;
        CHECK(stat(segment, &info) == 0);
        CHECK(truncate(segment, info.st_size - 50) == 0); /* the last tensor has 96 bytes */
        port_reader *reader = NULL;
        port_error err;
        port_status status = port_reader_open(path, &reader, &err);
        CHECK(status == (finished ? PORT_E_TRUNCATED : PORT_OK));
        if (status == PORT_OK) {
            CHECK(port_reader_num_tensors(reader) == 3 && port_reader_num_names(reader) == 4);
        }
        port_reader_free(reader);
        CHECK(unlink(segment) == 0);
        status = port_reader_open(path, &reader, &err);
        CHECK(status == (finished ? PORT_E_TRUNCATED : PORT_OK));
        if (status == PORT_OK) {
            CHECK(port_reader_num_tensors(reader) == 0);
        }
        port_reader_free(status == PORT_OK ? reader : NULL);
        port_free(segment);
        port_free(journal);
        fixture_remove(path);
    }
}

static void
repair_finishes(void)
{
    const char *path = fixture_path("repair");
    size_t size;
    char *journal = write_capture(path, false, &size);
    for (size_t cut = 16; cut <= size; cut += 11) { /* again and again on the same files, growing */
        fixture_remove(path);
        port_free(write_capture(path, false, &size));
        put_journal(path, journal, cut);
        port_recovery recovery;
        port_error err = {.message = ""};
        CHECK(port_capture_repair(path, &recovery, &err) == PORT_OK);
        port_reader *reader = NULL;
        uint64_t count = 99;
        CHECK(port_reader_open(path, &reader, &err) == PORT_OK && port_reader_finished(reader));
        CHECK(port_capture_verify(path, &count, &err) == PORT_OK && count == port_reader_num_tensors(reader));
        port_reader_free(reader);
        CHECK(port_capture_repair(path, &recovery, &err) == PORT_OK && recovery.dropped_bytes == 0);
    }
    port_free(journal);
}

static void
repair_of_a_damaged_end(void)
{
    const char *path = fixture_path("end");
    size_t size;
    char *journal = write_capture(path, true, &size);
    port_recovery recovery;
    port_reader *reader = NULL;
    put_journal(path, journal, size - 3);
    CHECK(port_reader_open(path, &reader, NULL) == PORT_E_TRUNCATED);
    CHECK(port_capture_repair(path, &recovery, NULL) == PORT_OK && recovery.dropped_bytes == 21);
    CHECK(port_reader_open(path, &reader, NULL) == PORT_OK && port_reader_finished(reader));
    CHECK(port_reader_num_names(reader) == 5);
    port_reader_free(reader);
    port_free(journal);
}

static void
verify_finds_a_changed_byte(void)
{
    const char *path = fixture_path("verify");
    size_t size;
    port_free(write_capture(path, true, &size));
    char *segment = port_path_join(path, "rank00000/seg-00000.safetensors");
    char *bytes = NULL;
    uint64_t count, header_bytes;
    port_error err;
    CHECK(port_io_read_file(segment, 1 << 24, &bytes, &size, &err) == PORT_OK);
    CHECK(port_capture_verify(path, &count, &err) == PORT_OK);
    memcpy(&header_bytes, bytes, 8);
    bytes[8 + header_bytes + 130]++; /* in the second tensor, which starts 128 bytes into the data */
    fixture_write(segment, bytes, size);
    CHECK(port_capture_verify(path, &count, &err) == PORT_E_CORRUPT && strstr(err.message, "m.0.in.0#2") != NULL);
    bytes[8 + header_bytes + 130]--;
    char *dtype = strstr(bytes + 8, "F32");
    memcpy(dtype, "U32", 3); /* the header and the journal disagree */
    fixture_write(segment, bytes, size);
    CHECK(port_capture_verify(path, &count, &err) == PORT_E_CORRUPT && strstr(err.message, "disagree") != NULL);
    port_free(bytes);
    port_free(segment);
}

int
main(void)
{
    fixture_start();
    cut_journals_give_a_prefix();
    flipped_bits_are_refused();
    short_segments();
    repair_finishes();
    repair_of_a_damaged_end();
    verify_finds_a_changed_byte();
    fixture_end();
    return CHECK_REPORT();
}
