/* structure.h -- the structure of a call (docs/FORMAT.md, section 6): here only its leaf paths matter. Private to csrc/store/. */
#ifndef PORT_STRUCTURE_H
#define PORT_STRUCTURE_H

#include "../formats/json.h"

/* Parses a structure and checks its leaves: an array of texts.
 * Out:     *json owns *leaves (its member "leaves").  Returns: PORT_OK, FORMAT, NOMEM. */
port_status port_structure_parse(const char *text, size_t size, port_json **json, const port_json_value **leaves,
                                 port_error *err);

/* Appends the full name of a leaf: module, "@call" if call > 0, ".in." / ".out.", path; taps without phase. */
void port_full_name(port_text *out, const char *module, size_t module_bytes, uint32_t call, uint32_t phase, const char *leaf,
                    size_t leaf_bytes);

#endif /* PORT_STRUCTURE_H */
