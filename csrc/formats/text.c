/* text.c -- a text that grows, with a sticky failure, and JSON strings in it. */
#include "json.h"

void
port_text_free(port_text *text)
{
    port_free(text->data);
    *text = (port_text){0};
}

bool
port_text_reserve(port_text *text, size_t more)
{
    if (text->failed) {
        return false;
    }
    if (more <= text->capacity - text->size) {
        return true;
    }
    size_t capacity = text->capacity > 0 ? text->capacity : 256;
    while (capacity - text->size < more) {
        if (capacity > SIZE_MAX / 2) {
            text->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *data = port_realloc(text->data, capacity);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void
port_text_put(port_text *text, const void *bytes, size_t size)
{
    if (size > 0 && port_text_reserve(text, size)) {
        memcpy(text->data + text->size, bytes, size);
        text->size += size;
    }
}

void
port_text_puts(port_text *text, const char *string)
{
    port_text_put(text, string, strlen(string));
}

void
port_text_put_u64(port_text *text, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    port_text_put(text, digits + at, sizeof digits - at);
}

void
port_text_put_i64(port_text *text, int64_t value)
{
    if (value < 0) {
        port_text_put(text, "-", 1);
        port_text_put_u64(text, 0 - (uint64_t)value);
    } else {
        port_text_put_u64(text, (uint64_t)value);
    }
}

void
port_text_put_json(port_text *text, const char *string, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    port_text_put(text, "\"", 1);
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)string[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        port_text_put(text, string + plain, i - plain);
        plain = i + 1;
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        if (c == '"' || c == '\\') {
            escape[1] = (char)c;
            port_text_put(text, escape, 2);
        } else {
            port_text_put(text, escape, 6);
        }
    }
    port_text_put(text, string + plain, size - plain);
    port_text_put(text, "\"", 1);
}
