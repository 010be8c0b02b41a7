/* index.c -- model.safetensors.index.json: which file holds each key, and which key holds each name's bytes. */
#include "reader.h"

#include "../core/io.h"

static void
put_entry(port_text *out, bool *first, const char *key, size_t key_bytes)
{
    port_text_puts(out, *first ? "\n" : ",\n");
    *first = false;
    port_text_put_json(out, key, key_bytes);
    port_text_puts(out, ": ");
}

port_status
port_capture_write_index(const port_reader *reader, port_error *err)
{
    port_status status = port_reader_make_names(reader, err);
    if (status != PORT_OK) {
        return status;
    }
    port_text out = {0};
    uint64_t total = 0;
    for (size_t i = 0; i < reader->tensors.count; i++) {
        total += reader->tensors.items[i].bytes;
    }
    port_text_puts(&out, "{\"metadata\": {\"total_size\": ");
    port_text_put_u64(&out, total);
    port_text_puts(&out, ", \"aliases\": {");
    bool first = true;
    for (uint32_t i = 0; i < reader->names.table.count; i++) {
        const port_string *name = &reader->names.table.items[i];
        const read_string *key = &reader->strings.items[reader->tensors.items[reader->names.tensors[i]].key];
        if (name->size != key->size || memcmp(name->text, key->text, key->size) != 0) {
            put_entry(&out, &first, name->text, name->size);
            port_text_put_json(&out, key->text, key->size);
        }
    }
    port_text_puts(&out, "}}, \"weight_map\": {");
    first = true;
    for (size_t i = 0; i < reader->tensors.count; i++) {
        const read_tensor *t = &reader->tensors.items[i];
        char file[48];
        snprintf(file, sizeof file, "\"rank%05u/seg-%05u.safetensors\"", reader->rank, t->segment);
        put_entry(&out, &first, reader->strings.items[t->key].text, reader->strings.items[t->key].size);
        port_text_puts(&out, file);
    }
    port_text_puts(&out, "}}\n");
    char *path = port_path_join(reader->path, "model.safetensors.index.json");
    if (out.failed || path == NULL) {
        status = port_fail(err, PORT_E_NOMEM, "no memory for the index of %s", reader->path);
    } else {
        status = port_io_replace_file(path, out.data, out.size, err);
    }
    port_free(path);
    port_text_free(&out);
    return status;
}
