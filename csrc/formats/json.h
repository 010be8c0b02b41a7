/* json.h -- a strict JSON parser into a tree, and a writer of JSON text. Private to csrc/.
 *
 * The text is not trusted: UTF-8 is checked, nesting is limited, duplicate keys, comments, trailing commas, NaN, lone
 * surrogates and anything after the value are refused. Errors name the byte offset (also in err->offset).
 * A number without point and exponent is a JSON_INT and must fit in int64; every other one is a JSON_FLOAT and must be finite.
 *
 *     port_json *json;
 *     if (port_json_parse(text, size, &json, err) != PORT_OK) ...
 *     const port_json_value *ops = port_json_get(port_json_root(json), "ops");      NULL: not there, or no object
 *     if (port_json_need(ops, JSON_ARRAY, "ops", err) != PORT_OK) ...               FORMAT: "ops: expected an array, got ..."
 *     for (size_t i = 0; i < ops->count; i++) { const port_json_value *op = &ops->as.items[i]; ... }
 *     port_json_free(json);
 */
#ifndef PORT_JSON_H
#define PORT_JSON_H

#include "../core/core.h"

#define PORT_JSON_MAX_DEPTH 128 /* arrays and objects inside each other */

typedef enum port_json_kind {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,
    JSON_FLOAT,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} port_json_kind;

typedef struct port_json_value port_json_value;
typedef struct port_json_member port_json_member;

struct port_json_value {
    port_json_kind kind;
    size_t begin, end; /* the value's bytes in the text: [begin, end) */
    size_t count;      /* items, members, or bytes of a string */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *text;               /* UTF-8 without escapes; a NUL follows, and there may be NULs inside */
        const port_json_value *items;   /* JSON_ARRAY: count of them, in order */
        const port_json_member *members; /* JSON_OBJECT: count of them, in the order of the text */
    } as;
    const uint32_t *order; /* private: members sorted by key */
};

struct port_json_member {
    const char *key; /* NUL-terminated */
    size_t key_bytes;
    port_json_value value;
};

typedef struct port_json port_json;

/* Parses size bytes of text (no NUL needed; not used after the call).
 * Out:     *json owns every value; free with port_json_free.
 * Returns: PORT_OK, FORMAT (with the offset), NOMEM.  Memory: at most about 100 bytes for each byte of text. */
port_status port_json_parse(const void *text, size_t size, port_json **json, port_error *err);
void port_json_free(port_json *json);
/* The value that the text holds; lives as long as json. */
const port_json_value *port_json_root(const port_json *json);

/* The member called key of an object. NULL if there is none, if value is NULL or not an object, so that look-ups can be chained. */
const port_json_value *port_json_get(const port_json_value *value, const char *key);
/* "null", "a boolean", "an integer", ... ; "nothing" for NULL. */
const char *port_json_kind_name(const port_json_value *value);

/* PORT_OK if value is of this kind; else FORMAT and a sentence `where: expected ..., got ... (byte N)`. value may be NULL. */
port_status port_json_need(const port_json_value *value, port_json_kind kind, const char *where, port_error *err);
/* Typed getters with the same errors. *out is untouched on failure. */
port_status port_json_int(const port_json_value *value, int64_t low, int64_t high, const char *where, int64_t *out,
                          port_error *err);
/* A JSON_FLOAT, or a JSON_INT as a double. */
port_status port_json_double(const port_json_value *value, const char *where, double *out, port_error *err);
port_status port_json_bool(const port_json_value *value, const char *where, bool *out, port_error *err);
/* A string without NULs inside; *out lives as long as the tree. */
port_status port_json_text(const port_json_value *value, const char *where, const char **out, port_error *err);

/* True if the bytes are valid UTF-8 without NUL. */
bool port_utf8_valid(const void *text, size_t size);

/* ------------------------------------------------------------------ writing */

/* A text that grows. Starts as {0}. After a failed allocation `failed` is set and further calls do nothing:
 * check it once, at the end. Free with port_text_free. */
typedef struct port_text {
    char *data; /* not NUL-terminated */
    size_t size, capacity;
    bool failed;
} port_text;

void port_text_free(port_text *text);
/* Makes room for `more` bytes; false (and failed) if there is no memory. */
bool port_text_reserve(port_text *text, size_t more);
void port_text_put(port_text *text, const void *bytes, size_t size);
void port_text_puts(port_text *text, const char *string);
void port_text_put_u64(port_text *text, uint64_t value);
void port_text_put_i64(port_text *text, int64_t value);
/* The string in quotes, escaped. UTF-8 goes through as it is. */
void port_text_put_json(port_text *text, const char *string, size_t size);

#endif /* PORT_JSON_H */
