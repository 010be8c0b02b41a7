/* manifest.c -- MANIFEST.json: the little of it that the core itself needs. */
#include "manifest.h"

#include <time.h>

void
port_manifest_minimal(port_text *text, bool finished)
{
    char created[40];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
    port_text_puts(text, "{\"format\": \"porting.capture\", \"version\": 1, \"finished\": ");
    port_text_puts(text, finished ? "true" : "false");
    port_text_puts(text, ", \"world_size\": 1, \"created\": \"");
    port_text_puts(text, created);
    port_text_puts(text, "\", \"creator\": \"porting\"}\n");
}

static port_status
check_tree(const port_json_value *root, bool *finished, port_error *err)
{
    const char *format;
    int64_t version;
    bool says_finished;
    port_status status = port_json_need(root, JSON_OBJECT, "manifest", err);
    if (status == PORT_OK) {
        status = port_json_text(port_json_get(root, "format"), "manifest.format", &format, err);
    }
    if (status == PORT_OK && strcmp(format, "porting.capture") != 0) {
        status = port_fail(err, PORT_E_FORMAT, "manifest.format: expected porting.capture, got %.100s", format);
    }
    if (status == PORT_OK) {
        status = port_json_int(port_json_get(root, "version"), 1, INT64_MAX, "manifest.version", &version, err);
    }
    if (status == PORT_OK && version > MANIFEST_VERSION) {
        status = port_fail(err, PORT_E_VERSION, "the capture has format version %lld; this program reads up to %d",
                           (long long)version, MANIFEST_VERSION);
    }
    if (status == PORT_OK) {
        status = port_json_bool(port_json_get(root, "finished"), "manifest.finished", &says_finished, err);
    }
    if (status == PORT_OK && finished != NULL) {
        *finished = says_finished;
    }
    return status;
}

port_status
port_manifest_check(const char *text, size_t size, bool *finished, port_error *err)
{
    port_json *json;
    port_status status = port_json_parse(text, size, &json, err);
    if (status == PORT_OK) {
        status = check_tree(port_json_root(json), finished, err);
    }
    port_json_free(json);
    return status;
}

port_status
port_manifest_with_finished(const char *text, size_t size, bool finished, port_text *out, port_error *err)
{
    port_json *json;
    port_status status = port_json_parse(text, size, &json, err);
    if (status == PORT_OK) {
        status = check_tree(port_json_root(json), NULL, err);
    }
    if (status == PORT_OK) {
        const port_json_value *value = port_json_get(port_json_root(json), "finished");
        port_text_put(out, text, value->begin);
        port_text_puts(out, finished ? "true" : "false");
        port_text_put(out, text + value->end, size - value->end);
        if (out->failed) {
            status = port_fail(err, PORT_E_NOMEM, "no memory for a manifest of %zu bytes", size);
        }
    }
    port_json_free(json);
    return status;
}
