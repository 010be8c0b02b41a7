/* test_safetensors.c -- headers that are taken, and headers that are refused. */
#include "formats/safetensors.h"

#include "check.h"

static char file[1024];

/* A file with this header and data_bytes of data; returns its size. */
static uint64_t
make(const char *header, uint64_t data_bytes)
{
    uint64_t n = strlen(header);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    return 8 + n + data_bytes;
}

static void
good_header(void)
{
    port_text text = {0};
    const int64_t shape[2] = {2, 3}, empty[1] = {0};
    port_text_puts(&text, "{\"__metadata__\":{\"a\":\"b\"},");
    port_st_put_entry(&text, "b\"x", 3, PORT_BF16, 2, shape, 24, 36);
    port_text_puts(&text, ",");
    port_st_put_entry(&text, "a", 1, PORT_F32, 2, shape, 0, 24);
    port_text_puts(&text, ",");
    port_st_put_entry(&text, "none", 4, PORT_I64, 1, empty, 24, 24);
    port_text_put(&text, "}   ", 5);
    port_st_header header;
    port_error err;
    uint64_t size = make(text.data, 36);
    CHECK(port_st_parse(file, size, &header, &err) == PORT_OK);
    CHECK(header.count == 3 && strcmp(header.entries[0].name, "a") == 0 && strcmp(header.entries[1].name, "none") == 0);
    CHECK(header.data_offset == size - 36);
    const port_st_entry *entry = port_st_find(&header, "b\"x");
    CHECK(entry != NULL && entry->dtype == PORT_BF16 && entry->shape[1] == 3 && entry->begin == 24);
    CHECK(port_st_find(&header, "none") == &header.entries[1] && port_st_find(&header, "c") == NULL);
    CHECK(port_st_find(&header, "__metadata__") == NULL);
    port_st_free(&header);
    port_text_free(&text);
}

static void
refused_headers(void)
{
    static const char *bad[] = {
        "[]",
        "{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]}}",
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
        "{}",
        "{",
    };
    port_st_header header;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        port_status status = port_st_parse(file, make(bad[i], 4), &header, NULL);
        CHECK(status == PORT_E_CORRUPT || status == PORT_E_FORMAT);
    }
    uint64_t size = make("{}", 0);
    CHECK(port_st_parse(file, size, &header, NULL) == PORT_OK);
    port_st_free(&header);
    CHECK(port_st_parse(file, 7, &header, NULL) == PORT_E_TRUNCATED);
    CHECK(port_st_parse(file, 9, &header, NULL) == PORT_E_CORRUPT);
    memset(file, 0xff, 8);
    CHECK(port_st_parse(file, 1000, &header, NULL) == PORT_E_CORRUPT);
}

int
main(void)
{
    good_header();
    refused_headers();
    return CHECK_REPORT();
}
