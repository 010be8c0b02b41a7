/* structure.c -- leaf paths and full names. */
#include "structure.h"

#include "store.h"

port_status
port_structure_parse(const char *text, size_t size, port_json **json, const port_json_value **leaves, port_error *err)
{
    port_status status = port_json_parse(text, size, json, err);
    if (status != PORT_OK) {
        return status;
    }
    *leaves = port_json_get(port_json_root(*json), "leaves");
    status = port_json_need(*leaves, JSON_ARRAY, "structure.leaves", err);
    for (size_t i = 0; status == PORT_OK && i < (*leaves)->count; i++) {
        const char *path;
        status = port_json_text(&(*leaves)->as.items[i], "structure.leaves", &path, err);
    }
    if (status != PORT_OK) {
        port_json_free(*json);
        *json = NULL;
    }
    return status;
}

void
port_full_name(port_text *out, const char *module, size_t module_bytes, uint32_t call, uint32_t phase, const char *leaf,
               size_t leaf_bytes)
{
    size_t begin = out->size;
    port_text_put(out, module, module_bytes);
    if (call > 0) {
        port_text_put(out, "@", 1);
        port_text_put_u64(out, call);
    }
    if (phase != PORT_PHASE_TAP) {
        const char *middle = phase == PORT_PHASE_IN ? ".in." : phase == PORT_PHASE_OUT ? ".out." : ".op.";
        port_text_puts(out, out->size == begin ? middle + 1 : middle);
        port_text_put(out, leaf, leaf_bytes);
    } else if (leaf_bytes > 0) {
        port_text_put(out, ".", 1);
        port_text_put(out, leaf, leaf_bytes);
    }
}
