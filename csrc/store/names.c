/* names.c -- full names: a table made when the first one is asked for, and suggestions for unknown ones. */
#include "reader.h"

#include "structure.h"

#define SUGGEST_NAMES 20000 /* no more are looked at for a suggestion */
#define SUGGEST_BYTES 256   /* nor names longer than this */

static bool
add_name(const port_reader *reader, read_names *names, const char *text, size_t size, uint32_t tensor)
{
    (void)reader;
    bool added;
    uint32_t id = port_strings_add(&names->table, text, size, &added);
    if (id == PORT_NO_STRING) {
        return false;
    }
    if (added) { /* of two records with the same full name the first one counts */
        names->tensors[id] = tensor;
    }
    return true;
}

static bool
add_call(const port_reader *reader, read_names *names, const read_call *call, port_text *text)
{
    const read_string *module = &reader->strings.items[call->module];
    const read_leaf *leaves = reader->leaves.items + reader->strings.items[call->structure].leaves_at;
    for (uint32_t i = 0; i < call->count; i++) {
        text->size = 0;
        port_full_name(text, module->text, module->size, call->call, call->phase, leaves[i].path, leaves[i].size);
        if (text->failed || !add_name(reader, names, text->data, text->size, reader->ids.items[call->ids_at + i])) {
            return false;
        }
    }
    return true;
}

static size_t
count_modules(const port_reader *reader, port_strings *seen)
{
    for (size_t i = 0; i < reader->calls.count; i++) {
        bool added;
        if (reader->calls.items[i].phase != PORT_PHASE_TAP &&
            port_strings_add(seen, (const char *)&reader->calls.items[i].module, 4, &added) == PORT_NO_STRING) {
            return SIZE_MAX;
        }
    }
    return seen->count;
}

static bool
make_names(const port_reader *reader, read_names *names)
{
    port_text text = {0};
    port_strings modules = {0};
    names->tensors = port_alloc((reader->ids.count + reader->bound.count) * sizeof *names->tensors);
    bool ok = names->tensors != NULL;
    for (size_t i = 0; ok && i < reader->namings.count; i++) {
        const read_naming *naming = &reader->namings.items[i];
        if (naming->is_call) {
            ok = add_call(reader, names, &reader->calls.items[naming->index], &text);
        } else {
            const read_pair *pair = &reader->bound.items[naming->index];
            const read_string *name = &reader->strings.items[pair->first];
            ok = add_name(reader, names, name->text, name->size, pair->second);
        }
    }
    if (ok) {
        names->num_modules = count_modules(reader, &modules);
        ok = names->num_modules != SIZE_MAX;
    }
    port_strings_free(&modules);
    port_text_free(&text);
    if (!ok) {
        port_strings_free(&names->table);
        port_free(names->tensors);
        *names = (read_names){0};
    }
    names->made = ok;
    return ok;
}

port_status
port_reader_make_names(const port_reader *constant, port_error *err)
{
    port_reader *reader = (port_reader *)(uintptr_t)constant; /* the table is a cache; the lock guards its making */
    pthread_mutex_lock(&reader->names_lock);
    bool ok = reader->names.made || make_names(reader, &reader->names);
    pthread_mutex_unlock(&reader->names_lock);
    return ok ? PORT_OK : port_fail(err, PORT_E_NOMEM, "no memory for the names of %s", reader->path);
}

size_t
port_reader_num_names(const port_reader *reader)
{
    return port_reader_make_names(reader, NULL) == PORT_OK ? reader->names.table.count : 0;
}

const char *
port_reader_name(const port_reader *reader, size_t i)
{
    return i < port_reader_num_names(reader) ? reader->names.table.items[i].text : NULL;
}

/* Levenshtein distance, or `limit` if it is not smaller. Both texts have at most SUGGEST_BYTES bytes. */
static size_t
distance(const char *a, size_t n, const char *b, size_t m, size_t limit)
{
    uint16_t row[SUGGEST_BYTES + 1];
    if ((n > m ? n - m : m - n) >= limit) {
        return limit;
    }
    for (size_t j = 0; j <= m; j++) {
        row[j] = (uint16_t)j;
    }
    for (size_t i = 1; i <= n; i++) {
        uint16_t diagonal = row[0], best = row[0] = (uint16_t)i;
        for (size_t j = 1; j <= m; j++) {
            uint16_t change = (uint16_t)(diagonal + (a[i - 1] != b[j - 1]));
            uint16_t gap = (uint16_t)((row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1);
            diagonal = row[j];
            row[j] = change < gap ? change : gap;
            best = row[j] < best ? row[j] : best;
        }
        if (best >= limit) {
            return limit;
        }
    }
    return row[m] < limit ? row[m] : limit;
}

/* The nearest name, or NULL if none is near. */
static const char *
suggest(const port_reader *reader, const char *name, size_t size)
{
    const char *best = NULL;
    size_t limit = size / 2 + 2;
    size_t count = reader->names.table.count < SUGGEST_NAMES ? reader->names.table.count : SUGGEST_NAMES;
    if (size > SUGGEST_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const port_string *candidate = &reader->names.table.items[i];
        if (candidate->size <= SUGGEST_BYTES) {
            size_t d = distance(name, size, candidate->text, candidate->size, limit);
            if (d < limit) {
                limit = d;
                best = candidate->text;
            }
        }
    }
    return best;
}

/* Looks for the name with the alias of a shared module, which is its beginning, replaced by the module's first path. */
static uint32_t
find_alias(const port_reader *reader, const char *name, size_t size)
{
    uint32_t found = PORT_NO_STRING;
    port_text text = {0};
    for (size_t i = 0; i < reader->aliases.count && found == PORT_NO_STRING; i++) {
        const read_string *alias = &reader->strings.items[reader->aliases.items[i].first];
        const read_string *module = &reader->strings.items[reader->aliases.items[i].second];
        if (alias->size >= size || memcmp(name, alias->text, alias->size) != 0 ||
            (name[alias->size] != '.' && name[alias->size] != '@')) {
            continue;
        }
        text.size = 0;
        port_text_put(&text, module->text, module->size);
        port_text_put(&text, name + alias->size, size - alias->size);
        if (!text.failed) {
            found = port_strings_find(&reader->names.table, text.data, text.size);
        }
    }
    port_text_free(&text);
    return found;
}

port_status
port_reader_find(const port_reader *reader, const char *name, port_view *view, port_error *err)
{
    port_status status = port_reader_make_names(reader, err);
    if (status != PORT_OK) {
        return status;
    }
    size_t size = strlen(name);
    uint32_t id = port_strings_find(&reader->names.table, name, size);
    if (id == PORT_NO_STRING) {
        id = find_alias(reader, name, size);
    }
    if (id != PORT_NO_STRING) {
        *view = port_reader_tensor(reader, reader->names.tensors[id]);
        return PORT_OK;
    }
    const char *near = suggest(reader, name, size);
    return near != NULL ? port_fail(err, PORT_E_NAME, "Layer not found: %.300s (%zu modules); did you mean %.300s?", name,
                                    reader->names.num_modules, near)
                        : port_fail(err, PORT_E_NAME, "Layer not found: %.300s (%zu modules)", name, reader->names.num_modules);
}
