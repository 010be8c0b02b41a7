/* test_json.c -- what the parser takes, what it refuses and where, and the writer's escapes. */
#include "formats/json.h"

#include "check.h"

#include <math.h>

static port_status
parse(const char *text, port_json **json, port_error *err)
{
    return port_json_parse(text, strlen(text), json, err);
}

static void
refused_texts(void)
{
    static const struct {
        const char *text;
        uint64_t offset;
    } bad[] = {
        {"", 0}, {"[1,]", 3}, {"[1 2]", 3}, {"{\"a\" 1}", 5}, {"{a:1}", 1}, {"01", 0}, {"1.", 0}, {"-", 0}, {".5", 0}, {"1e", 0},
        {"NaN", 0}, {"Infinity", 0}, {"nul", 0}, {"truefalse", 4}, {"1 1", 2}, {"\"a", 0}, {"\"\\x\"", 2}, {"\"\\u12g4\"", 3},
        {"\"\\ud800\"", 7}, {"\"\\ud800\\u0041\"", 7}, {"\"\\udc00\"", 3}, {"\"\t\"", 1}, {"\"\xff\"", 1}, {"\"\xc0\xaf\"", 1},
        {"\"\xed\xa0\x80\"", 1}, {"\"\xf4\x90\x80\x80\"", 1}, {"1e999", 0}, {"9223372036854775808", 0}, {"-9223372036854775809", 0},
        {"{\"a\":1,\"a\":2}", 11}, {"[", 1}, {"{\"a\":", 5}, {"// 1", 0}, {"{\"\\u0000\":1}", 1},
        {"{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,\"a\":1}", 59},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        port_json *json = NULL;
        port_error err;
        port_status status = parse(bad[i].text, &json, &err);
        CHECK(status == PORT_E_FORMAT && json == NULL);
        CHECK(err.offset == bad[i].offset);
        if (status != PORT_E_FORMAT || err.offset != bad[i].offset) {
            fprintf(stderr, "  text %s: %s\n", bad[i].text, status == PORT_OK ? "accepted" : err.message);
        }
    }
}

static void
depth_is_limited(void)
{
    char text[2 * PORT_JSON_MAX_DEPTH + 8];
    for (int depth = PORT_JSON_MAX_DEPTH; depth <= PORT_JSON_MAX_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        port_json *json = NULL;
        port_status status = port_json_parse(text, 2 * (size_t)depth, &json, NULL);
        CHECK(status == (depth <= PORT_JSON_MAX_DEPTH ? PORT_OK : PORT_E_FORMAT));
        port_json_free(json);
    }
}

static void
values_come_back(void)
{
    port_json *json = NULL;
    port_error err;
    const char *text = " {\"i\": -9223372036854775808, \"f\": 1.0, \"e\": 5e-324, \"s\": \"x\\u00e9\\ud83d\\ude00\\n\", \"b\": true,"
                       " \"n\": null, \"a\": [1, [], {}, \"\"], \"0\":0,\"1\":1,\"2\":2,\"3\":3} ";
    CHECK(parse(text, &json, &err) == PORT_OK);
    const port_json_value *root = port_json_root(json);
    int64_t i = 0;
    double f = 0;
    bool b = false;
    const char *s = NULL;
    CHECK(port_json_int(port_json_get(root, "i"), INT64_MIN, 0, "i", &i, &err) == PORT_OK && i == INT64_MIN);
    CHECK(port_json_int(port_json_get(root, "i"), 0, 5, "i", &i, &err) == PORT_E_FORMAT && err.offset == 7);
    CHECK(port_json_get(root, "f")->kind == JSON_FLOAT && port_json_get(root, "0")->kind == JSON_INT);
    CHECK(port_json_int(port_json_get(root, "f"), 0, 5, "f", &i, &err) == PORT_E_FORMAT);
    CHECK(port_json_double(port_json_get(root, "e"), "e", &f, &err) == PORT_OK && f > 0 && f < 1e-323);
    CHECK(port_json_double(port_json_get(root, "3"), "3", &f, &err) == PORT_OK && f > 2.5 && f < 3.5);
    CHECK(port_json_text(port_json_get(root, "s"), "s", &s, &err) == PORT_OK && strcmp(s, "x\xc3\xa9\xf0\x9f\x98\x80\n") == 0);
    CHECK(port_json_bool(port_json_get(root, "b"), "b", &b, &err) == PORT_OK && b);
    CHECK(port_json_bool(port_json_get(root, "n"), "n", &b, &err) == PORT_E_FORMAT);
    CHECK(port_json_get(root, "missing") == NULL && port_json_get(port_json_get(root, "a"), "x") == NULL);
    CHECK(port_json_need(NULL, JSON_ARRAY, "x", &err) == PORT_E_FORMAT);
    const port_json_value *a = port_json_get(root, "a");
    CHECK(a->count == 4 && a->as.items[1].kind == JSON_ARRAY && a->as.items[1].count == 0 && a->as.items[2].kind == JSON_OBJECT);
    CHECK(memcmp(text + a->begin, "[1, [], {}, \"\"]", a->end - a->begin) == 0);
    port_json_free(json);
    CHECK(parse("\"a\\u0000b\"", &json, &err) == PORT_OK && port_json_root(json)->count == 3);
    CHECK(port_json_text(port_json_root(json), "s", &s, &err) == PORT_E_FORMAT);
    port_json_free(json);
}

static void
written_strings_parse(void)
{
    char all[256];
    size_t n = 0;
    for (int c = 1; c < 128; c++) {
        all[n++] = (char)c;
    }
    memcpy(all + n, "\xc3\xa9\xf0\x9f\x98\x80", 7);
    n += 6;
    port_text text = {0};
    port_json *json = NULL;
    port_text_put_json(&text, all, n);
    CHECK(!text.failed && port_json_parse(text.data, text.size, &json, NULL) == PORT_OK);
    CHECK(port_json_root(json)->count == n && memcmp(port_json_root(json)->as.text, all, n) == 0);
    port_json_free(json);
    text.size = 0;
    port_text_put_i64(&text, INT64_MIN);
    CHECK(text.size == 20 && memcmp(text.data, "-9223372036854775808", 20) == 0);
    port_text_free(&text);
}

static void
every_allocation_may_fail(void)
{
    const char *text = "{\"a\":[1,2,3,[4,5]],\"b\":{\"c\":\"text\"},\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}";
    port_status status = PORT_E_NOMEM;
    size_t n = 0;
    while (status != PORT_OK && n < 100) {
        port_json *json = NULL;
        port_alloc_fail_after(++n);
        status = parse(text, &json, NULL);
        port_alloc_fail_after(0);
        CHECK(status == PORT_OK || (status == PORT_E_NOMEM && json == NULL));
        port_json_free(json);
    }
    CHECK(status == PORT_OK && n > 2);
}

int
main(void)
{
    refused_texts();
    depth_is_limited();
    values_come_back();
    written_strings_parse();
    every_allocation_may_fail();
    return CHECK_REPORT();
}
