/* manifest.h -- MANIFEST.json: the little of it that the core itself needs. Private to csrc/store/. */
#ifndef PORT_MANIFEST_H
#define PORT_MANIFEST_H

#include "../formats/json.h"

#define MANIFEST_VERSION 1
#define MANIFEST_MAX_BYTES (1u << 30)

/* Appends a minimal manifest. */
void port_manifest_minimal(port_text *text, bool finished);
/* Checks a manifest: FORMAT (no JSON object, another format), VERSION. finished (may be NULL): what it says. */
port_status port_manifest_check(const char *text, size_t size, bool *finished, port_error *err);
/* Appends the manifest with "finished" replaced, everything else left as it is. Errors as above, NOMEM. */
port_status port_manifest_with_finished(const char *text, size_t size, bool finished, port_text *out, port_error *err);

#endif /* PORT_MANIFEST_H */
