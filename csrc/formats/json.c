/* json.c -- recursive descent over the text, with an explicit limit of depth.
 *
 * The children of an array or object are first pushed on a stack that all levels share; when the closing bracket comes
 * they are moved into the arena in one piece. So they lie side by side, and nothing is allocated twice. */
#include "json.h"

#include <locale.h>
#include <math.h>

#define MAX_NUMBER_BYTES 512 /* longer ones are no number that anybody meant */
#define CHUNK_BYTES (16 * 1024)
#define SORT_MEMBERS 8 /* objects with more members get a sorted order for look-ups */

typedef struct chunk {
    struct chunk *next;
    size_t used, capacity;
} chunk;

struct port_json {
    chunk *chunks;
    port_json_value root;
};

typedef struct parser {
    const char *text;
    size_t at, size;
    int depth;
    port_json *json;
    port_json_member *stack; /* children of all open arrays and objects; keys unused in arrays */
    size_t stack_count, stack_capacity;
    port_error *err;
} parser;

static port_status parse_value(parser *p, port_json_value *out);

static port_status
refuse(parser *p, size_t at, const char *what)
{
    port_fail(p->err, PORT_E_FORMAT, "not valid JSON: %s at byte %zu", what, at);
    if (p->err != NULL) {
        p->err->offset = at;
    }
    return PORT_E_FORMAT;
}

static port_status
no_memory(port_error *err)
{
    return port_fail(err, PORT_E_NOMEM, "no memory for the JSON tree");
}

static void *
arena_alloc(port_json *json, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    chunk *c = json->chunks;
    if (c == NULL || c->capacity - c->used < size) {
        size_t capacity = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        size_t head = (sizeof(chunk) + 15) & ~(size_t)15;
        c = port_alloc(head + capacity);
        if (c == NULL) {
            return NULL;
        }
        *c = (chunk){.next = json->chunks, .used = head, .capacity = head + capacity};
        json->chunks = c;
    }
    void *memory = (char *)c + c->used;
    c->used += size;
    return memory;
}

/* ------------------------------------------------------------------ UTF-8 */

/* Bytes of the code point at s (1 to 4), or 0 if it is not valid: overlong, a surrogate, or beyond U+10FFFF. */
static size_t
utf8_length(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
               (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : n;
}

bool
port_utf8_valid(const void *text, size_t size)
{
    const unsigned char *s = text;
    for (size_t i = 0; i < size;) {
        size_t n = s[i] != 0 ? utf8_length(s + i, size - i) : 0;
        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}

static size_t
utf8_encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* ------------------------------------------------------------------ strings */

static bool
parse_hex4(const parser *p, size_t at, uint32_t *out)
{
    if (p->size - at < 4) {
        return false;
    }
    uint32_t value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = p->text[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                                : 16;
        if (digit == 16) {
            return false;
        }
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

/* p->at stands after "\u". */
static port_status
parse_unicode_escape(parser *p, char **to)
{
    uint32_t code, second;
    if (!parse_hex4(p, p->at, &code)) {
        return refuse(p, p->at, "\\u without four hexadecimal digits");
    }
    if (code >= 0xdc00 && code < 0xe000) {
        return refuse(p, p->at, "half of a surrogate pair");
    }
    p->at += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        if (p->size - p->at < 6 || p->text[p->at] != '\\' || p->text[p->at + 1] != 'u' ||
            !parse_hex4(p, p->at + 2, &second) || second < 0xdc00 || second >= 0xe000) {
            return refuse(p, p->at, "half of a surrogate pair");
        }
        p->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
    }
    *to += utf8_encode(code, *to);
    return PORT_OK;
}

static port_status
parse_escape(parser *p, char **to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    char c = p->at < p->size ? p->text[p->at] : '\0';
    if (c == 'u') {
        p->at++;
        return parse_unicode_escape(p, to);
    }
    const char *found = c != '\0' ? strchr(from, c) : NULL;
    if (found == NULL) {
        return refuse(p, p->at, "an unknown escape");
    }
    p->at++;
    *(*to)++ = into[found - from];
    return PORT_OK;
}

/* p->at stands on the opening quote. The result is never longer than its escaped form. */
static port_status
parse_string(parser *p, const char **text, size_t *bytes)
{
    size_t begin = p->at++;
    size_t end = p->at;
    while (end < p->size && p->text[end] != '"') {
        end += p->text[end] == '\\' && end + 1 < p->size ? 2 : 1;
    }
    if (end >= p->size) {
        return refuse(p, begin, "a string without an end");
    }
    char *out = arena_alloc(p->json, end - p->at + 1);
    if (out == NULL) {
        return no_memory(p->err);
    }
    char *to = out;
    while (p->at < end) {
        unsigned char c = (unsigned char)p->text[p->at];
        if (c == '\\') {
            p->at++;
            port_status status = parse_escape(p, &to);
            if (status != PORT_OK) {
                return status;
            }
            continue;
        }
        size_t n = c >= 0x20 ? utf8_length((const unsigned char *)p->text + p->at, end - p->at) : 0;
        if (n == 0) {
            return refuse(p, p->at, c < 0x20 ? "a control character in a string" : "bytes that are not UTF-8");
        }
        memcpy(to, p->text + p->at, n);
        to += n;
        p->at += n;
    }
    p->at++;
    *to = '\0';
    *text = out;
    *bytes = (size_t)(to - out);
    return PORT_OK;
}

/* ------------------------------------------------------------------ numbers */

static double
parse_double(const char *text)
{
    /* Python programs may set a locale with a decimal comma. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c_locale == (locale_t)0) {
        return strtod(text, NULL);
    }
    double value = strtod_l(text, NULL, c_locale);
    freelocale(c_locale);
    return value;
}

static bool
skip_digits(parser *p)
{
    size_t begin = p->at;
    while (p->at < p->size && p->text[p->at] >= '0' && p->text[p->at] <= '9') {
        p->at++;
    }
    return p->at > begin;
}

static bool
accept(parser *p, const char *any_of)
{
    if (p->at < p->size && p->text[p->at] != '\0' && strchr(any_of, p->text[p->at]) != NULL) {
        p->at++;
        return true;
    }
    return false;
}

static port_status
parse_number(parser *p, port_json_value *out)
{
    size_t begin = p->at;
    bool negative = accept(p, "-");
    size_t digits = p->at;
    if (!skip_digits(p) || (p->text[digits] == '0' && p->at - digits > 1)) {
        return refuse(p, begin, "a malformed number");
    }
    size_t digits_end = p->at;
    bool point = accept(p, ".");
    if (point && !skip_digits(p)) {
        return refuse(p, begin, "a malformed number");
    }
    bool exponent = accept(p, "eE");
    if (exponent) {
        accept(p, "+-");
        if (!skip_digits(p)) {
            return refuse(p, begin, "a malformed number");
        }
    }
    if (!point && !exponent) {
        int64_t value = 0;
        for (size_t i = digits; i < digits_end; i++) {
            int64_t digit = p->text[i] - '0';
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, negative ? -digit : digit, &value)) {
                return refuse(p, begin, "an integer that does not fit in 64 bits");
            }
        }
        out->kind = JSON_INT;
        out->as.integer = value;
        return PORT_OK;
    }
    char copy[MAX_NUMBER_BYTES + 1];
    if (p->at - begin > MAX_NUMBER_BYTES) {
        return refuse(p, begin, "a number of more than 512 characters");
    }
    memcpy(copy, p->text + begin, p->at - begin);
    copy[p->at - begin] = '\0';
    out->kind = JSON_FLOAT;
    out->as.number = parse_double(copy);
    return isfinite(out->as.number) ? PORT_OK : refuse(p, begin, "a number beyond the range of a double");
}

/* ------------------------------------------------------------------ arrays and objects */

static void
skip_space(parser *p)
{
    while (accept(p, " \t\n\r")) {
    }
}

static port_status
push(parser *p, const port_json_member *member)
{
    if (p->stack_count == p->stack_capacity) {
        size_t capacity = p->stack_capacity > 0 ? 2 * p->stack_capacity : 64;
        port_json_member *stack = port_realloc(p->stack, capacity * sizeof *stack);
        if (stack == NULL) {
            return no_memory(p->err);
        }
        p->stack = stack;
        p->stack_capacity = capacity;
    }
    p->stack[p->stack_count++] = *member;
    return PORT_OK;
}

static int
compare_keys(const void *a, const void *b, void *members)
{
    const port_json_member *m = members;
    return strcmp(m[*(const uint32_t *)a].key, m[*(const uint32_t *)b].key);
}

/* Refuses duplicate keys; long objects get their members' order by key. */
static port_status
index_members(parser *p, port_json_value *object)
{
    port_json_member *members = (port_json_member *)(uintptr_t)object->as.members;
    if (object->count > UINT32_MAX) {
        return refuse(p, object->begin, "an object with more than 2^32 members");
    }
    if (object->count <= SORT_MEMBERS) {
        for (size_t i = 1; i < object->count; i++) {
            for (size_t k = 0; k < i; k++) {
                if (strcmp(members[i].key, members[k].key) == 0) {
                    return refuse(p, members[i].value.begin, "a second value for the same key");
                }
            }
        }
        return PORT_OK;
    }
    uint32_t *order = arena_alloc(p->json, object->count * sizeof *order);
    if (order == NULL) {
        return no_memory(p->err);
    }
    for (size_t i = 0; i < object->count; i++) {
        order[i] = (uint32_t)i;
    }
    qsort_r(order, object->count, sizeof *order, compare_keys, members);
    for (size_t i = 1; i < object->count; i++) {
        if (compare_keys(&order[i - 1], &order[i], members) == 0) {
            return refuse(p, members[order[i]].value.begin, "a second value for the same key");
        }
    }
    object->order = order;
    return PORT_OK;
}

/* Moves the children above `base` from the stack into the arena. */
static port_status
finish_container(parser *p, size_t base, port_json_value *out)
{
    out->count = p->stack_count - base;
    p->stack_count = base;
    if (out->kind == JSON_OBJECT) {
        port_json_member *members = arena_alloc(p->json, out->count * sizeof *members);
        if (members == NULL) {
            return no_memory(p->err);
        }
        if (out->count > 0) {
            memcpy(members, p->stack + base, out->count * sizeof *members);
        }
        out->as.members = members;
        return index_members(p, out);
    }
    port_json_value *items = arena_alloc(p->json, out->count * sizeof *items);
    if (items == NULL) {
        return no_memory(p->err);
    }
    for (size_t i = 0; i < out->count; i++) {
        items[i] = p->stack[base + i].value;
    }
    out->as.items = items;
    return PORT_OK;
}

static port_status
parse_key(parser *p, port_json_member *member)
{
    skip_space(p);
    size_t at = p->at;
    if (at >= p->size || p->text[at] != '"') {
        return refuse(p, at, "something else where a key in quotes is expected");
    }
    port_status status = parse_string(p, &member->key, &member->key_bytes);
    if (status != PORT_OK) {
        return status;
    }
    if (strlen(member->key) != member->key_bytes) {
        return refuse(p, at, "a key with a NUL character");
    }
    skip_space(p);
    return accept(p, ":") ? PORT_OK : refuse(p, p->at, "something else where ':' is expected");
}

static port_status
parse_container(parser *p, port_json_value *out)
{
    bool object = p->text[p->at++] == '{';
    const char *close = object ? "}" : "]";
    out->kind = object ? JSON_OBJECT : JSON_ARRAY;
    if (++p->depth > PORT_JSON_MAX_DEPTH) {
        return refuse(p, p->at - 1, "more than 128 levels of nesting");
    }
    size_t base = p->stack_count;
    skip_space(p);
    bool more = !accept(p, close);
    while (more) {
        port_json_member member = {0};
        port_status status = object ? parse_key(p, &member) : PORT_OK;
        if (status == PORT_OK) {
            skip_space(p);
            status = parse_value(p, &member.value);
        }
        if (status == PORT_OK) {
            status = push(p, &member);
        }
        if (status != PORT_OK) {
            return status;
        }
        skip_space(p);
        more = accept(p, ",");
        if (!more && !accept(p, close)) {
            return refuse(p, p->at, object ? "something else where ',' or '}' is expected"
                                           : "something else where ',' or ']' is expected");
        }
    }
    p->depth--;
    return finish_container(p, base, out);
}

static port_status
parse_word(parser *p, port_json_value *out)
{
    static const struct {
        const char *word;
        port_json_kind kind;
        bool value;
    } words[] = {{"null", JSON_NULL, false}, {"true", JSON_BOOL, true}, {"false", JSON_BOOL, false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].word);
        if (p->size - p->at >= n && memcmp(p->text + p->at, words[i].word, n) == 0) {
            p->at += n;
            out->kind = words[i].kind;
            out->as.boolean = words[i].value;
            return PORT_OK;
        }
    }
    return refuse(p, p->at, p->at < p->size ? "no JSON value" : "the text ends too early");
}

static port_status
parse_value(parser *p, port_json_value *out)
{
    memset(out, 0, sizeof *out);
    out->begin = p->at;
    char c = p->at < p->size ? p->text[p->at] : '\0';
    port_status status;
    if (c == '{' || c == '[') {
        status = parse_container(p, out);
    } else if (c == '"') {
        out->kind = JSON_STRING;
        status = parse_string(p, &out->as.text, &out->count);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        status = parse_number(p, out);
    } else {
        status = parse_word(p, out);
    }
    out->end = p->at;
    return status;
}

port_status
port_json_parse(const void *text, size_t size, port_json **json, port_error *err)
{
    *json = NULL;
    parser p = {.text = text, .size = size, .err = err};
    p.json = port_calloc(1, sizeof *p.json);
    if (p.json == NULL) {
        return no_memory(err);
    }
    skip_space(&p);
    port_status status = parse_value(&p, &p.json->root);
    if (status == PORT_OK) {
        skip_space(&p);
        if (p.at < size) {
            status = refuse(&p, p.at, "something after the value");
        }
    }
    port_free(p.stack);
    if (status != PORT_OK) {
        port_json_free(p.json);
        return status;
    }
    *json = p.json;
    return PORT_OK;
}

void
port_json_free(port_json *json)
{
    if (json == NULL) {
        return;
    }
    for (chunk *c = json->chunks; c != NULL;) {
        chunk *next = c->next;
        port_free(c);
        c = next;
    }
    port_free(json);
}

/* ------------------------------------------------------------------ looking at the tree */

const port_json_value *
port_json_root(const port_json *json)
{
    return &json->root;
}

const port_json_value *
port_json_get(const port_json_value *value, const char *key)
{
    if (value == NULL || value->kind != JSON_OBJECT) {
        return NULL;
    }
    const port_json_member *members = value->as.members;
    if (value->order == NULL) {
        for (size_t i = 0; i < value->count; i++) {
            if (strcmp(members[i].key, key) == 0) {
                return &members[i].value;
            }
        }
        return NULL;
    }
    size_t low = 0, high = value->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const port_json_member *member = &members[value->order[middle]];
        int order = strcmp(member->key, key);
        if (order == 0) {
            return &member->value;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static const char *
kind_name(port_json_kind kind)
{
    switch (kind) {
    case JSON_NULL: return "null";
    case JSON_BOOL: return "a boolean";
    case JSON_INT: return "an integer";
    case JSON_FLOAT: return "a float";
    case JSON_STRING: return "a string";
    case JSON_ARRAY: return "an array";
    case JSON_OBJECT: return "an object";
    }
    return "nothing";
}

const char *
port_json_kind_name(const port_json_value *value)
{
    return value != NULL ? kind_name(value->kind) : "nothing";
}

static port_status
unexpected(const port_json_value *value, const char *expected, const char *where, port_error *err)
{
    if (value == NULL) {
        return port_fail(err, PORT_E_FORMAT, "%s: expected %s, but there is nothing", where, expected);
    }
    port_fail(err, PORT_E_FORMAT, "%s: expected %s, got %s (byte %zu)", where, expected, kind_name(value->kind), value->begin);
    if (err != NULL) {
        err->offset = value->begin;
    }
    return PORT_E_FORMAT;
}

port_status
port_json_need(const port_json_value *value, port_json_kind kind, const char *where, port_error *err)
{
    return value != NULL && value->kind == kind ? PORT_OK : unexpected(value, kind_name(kind), where, err);
}

port_status
port_json_int(const port_json_value *value, int64_t low, int64_t high, const char *where, int64_t *out, port_error *err)
{
    port_status status = port_json_need(value, JSON_INT, where, err);
    if (status != PORT_OK) {
        return status;
    }
    if (value->as.integer < low || value->as.integer > high) {
        port_fail(err, PORT_E_FORMAT, "%s: expected an integer from %lld to %lld, got %lld (byte %zu)", where, (long long)low,
                  (long long)high, (long long)value->as.integer, value->begin);
        if (err != NULL) {
            err->offset = value->begin;
        }
        return PORT_E_FORMAT;
    }
    *out = value->as.integer;
    return PORT_OK;
}

port_status
port_json_double(const port_json_value *value, const char *where, double *out, port_error *err)
{
    if (value == NULL || (value->kind != JSON_INT && value->kind != JSON_FLOAT)) {
        return unexpected(value, "a number", where, err);
    }
    *out = value->kind == JSON_INT ? (double)value->as.integer : value->as.number;
    return PORT_OK;
}

port_status
port_json_bool(const port_json_value *value, const char *where, bool *out, port_error *err)
{
    port_status status = port_json_need(value, JSON_BOOL, where, err);
    if (status == PORT_OK) {
        *out = value->as.boolean;
    }
    return status;
}

port_status
port_json_text(const port_json_value *value, const char *where, const char **out, port_error *err)
{
    port_status status = port_json_need(value, JSON_STRING, where, err);
    if (status != PORT_OK) {
        return status;
    }
    if (strlen(value->as.text) != value->count) {
        return unexpected(value, "a string without a NUL character", where, err);
    }
    *out = value->as.text;
    return PORT_OK;
}
