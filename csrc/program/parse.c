/* parse.c -- one program of program.json into a graph. The text is not trusted: every number is checked here once,
 * so that the executor may index with it. What is well-formed but has no kernel (a foreign dtype)
 * is kept and refused by name when its op is run. */
#include "../formats/json.h"
#include "fuse.h"

#include <math.h>
#include <stddef.h>

#define ARENA_BLOCK_BYTES 65536

struct arena {
    struct arena *next;
    size_t used, size_bytes;
    max_align_t data[];
};

typedef struct parser {
    port_program *program;
    const port_json_value *symbols;
    port_error *err;
    int64_t op_idx; /* -1 outside ops */
} parser;

static void *
take(parser *p, size_t count, size_t item_bytes)
{
    uint64_t bytes;
    arena *block = p->program->memory;
    if (!port_mul_u64(count, item_bytes, &bytes) || bytes > PTRDIFF_MAX / 2) {
        port_fail(p->err, PORT_E_NOMEM, "no memory for the program");
        return NULL;
    }
    bytes = (bytes + sizeof(max_align_t)) / sizeof(max_align_t) * sizeof(max_align_t);
    if (block == NULL || block->size_bytes - block->used < bytes) {
        size_t size = bytes > ARENA_BLOCK_BYTES ? (size_t)bytes : ARENA_BLOCK_BYTES;
        block = port_calloc(1, sizeof *block + size);
        if (block == NULL) {
            port_fail(p->err, PORT_E_NOMEM, "no memory for the program");
            return NULL;
        }
        block->size_bytes = size;
        block->next = p->program->memory;
        p->program->memory = block;
    }
    char *out = (char *)block->data + block->used;
    block->used += (size_t)bytes;
    return out;
}

static const char *
take_text(parser *p, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = take(p, bytes, 1);
    if (copy != NULL) {
        memcpy(copy, text, bytes);
    }
    return copy;
}

static port_status
bad(parser *p, const port_json_value *value, const char *what)
{
    size_t at = value != NULL ? value->begin : 0;
    return p->op_idx >= 0 ? port_fail(p->err, PORT_E_FORMAT, "program: op %lld: %s (byte %zu)", (long long)p->op_idx, what, at)
                          : port_fail(p->err, PORT_E_FORMAT, "program: %s (byte %zu)", what, at);
}

#define NEED(CONDITION, VALUE, WHAT)          \
    do {                                      \
        if (!(CONDITION)) {                   \
            return bad(p, (VALUE), (WHAT));   \
        }                                     \
    } while (0)

static bool
is_kind(const port_json_value *value, port_json_kind kind)
{
    return value != NULL && value->kind == kind;
}

/* {"sym": [b, [[a, "kv"], ...]]} */
static port_status
parse_sym(parser *p, const port_json_value *sym, port_arg *arg)
{
    NEED(is_kind(sym, JSON_ARRAY) && sym->count == 2 && sym->as.items[0].kind == JSON_INT && sym->as.items[1].kind == JSON_ARRAY,
         sym, "sym must be [integer, [[factor, name], ...]]");
    const port_json_value *terms = &sym->as.items[1];
    port_arg *items = take(p, 2 * terms->count, sizeof *items);
    if (items == NULL) {
        return PORT_E_NOMEM;
    }
    for (size_t k = 0; k < terms->count; k++) {
        const port_json_value *term = &terms->as.items[k];
        NEED(term->kind == JSON_ARRAY && term->count == 2 && term->as.items[0].kind == JSON_INT &&
                 term->as.items[1].kind == JSON_STRING, term, "a term of sym must be [factor, name]");
        size_t s = 0;
        while (p->symbols != NULL && s < p->symbols->count &&
               strcmp(p->symbols->as.items[s].as.text, term->as.items[1].as.text) != 0) {
            s++;
        }
        NEED(p->symbols != NULL && s < p->symbols->count, term, "sym names a symbol that the program does not have");
        items[2 * k] = (port_arg){.kind = PORT_ARG_INT, .i = term->as.items[0].as.integer};
        items[2 * k + 1] = (port_arg){.kind = PORT_ARG_INT, .i = (int64_t)s};
    }
    *arg = (port_arg){.kind = PORT_ARG_SYM, .i = sym->as.items[0].as.integer, .items = items,
                      .num_items = 2 * (int64_t)terms->count};
    return PORT_OK;
}

static port_status parse_arg(parser *p, const port_json_value *value, port_arg *arg);

static port_status
parse_list(parser *p, const port_json_value *list, port_arg *arg)
{
    NEED(is_kind(list, JSON_ARRAY), list, "list must be an array");
    port_arg *items = take(p, list->count, sizeof *items);
    if (items == NULL) {
        return PORT_E_NOMEM;
    }
    for (size_t k = 0; k < list->count; k++) {
        port_status status = parse_arg(p, &list->as.items[k], &items[k]);
        if (status != PORT_OK) {
            return status;
        }
    }
    *arg = (port_arg){.kind = PORT_ARG_LIST, .i = (int64_t)list->count, .items = items, .num_items = (int64_t)list->count};
    return PORT_OK;
}

static port_status
parse_memory_format(parser *p, const port_json_value *value, const char *text, port_arg *arg)
{
    static const char *const names[] = {"contiguous", "preserve", "channels_last", "channels_last_3d"};
    for (int k = 0; k < 4; k++) {
        if (strcmp(text, names[k]) == 0) {
            *arg = (port_arg){.kind = PORT_ARG_MEMORY_FORMAT, .i = k};
            return PORT_OK;
        }
    }
    return bad(p, value, "unknown memory_format");
}

/* Two numbers as text, which JSON has no form for where they are not finite. */
static port_status
parse_complex(parser *p, const port_json_value *list, port_arg *arg)
{
    double parts[2];
    NEED(is_kind(list, JSON_ARRAY) && list->count == 2, list, "complex must be two numbers as strings");
    for (int32_t k = 0; k < 2; k++) {
        const port_json_value *part = &list->as.items[k];
        char *end = NULL;
        NEED(part->kind == JSON_STRING && part->count > 0 && strlen(part->as.text) == part->count, part, "complex must be two numbers as strings");
        parts[k] = strtod(part->as.text, &end);
        NEED(*end == '\0', part, "complex must be two numbers as strings");
    }
    *arg = (port_arg){.kind = PORT_ARG_COMPLEX, .d = parts[0], .imag = parts[1]};
    return PORT_OK;
}

static port_status
parse_tagged(parser *p, const port_json_value *value, port_arg *arg)
{
    NEED(value->count == 1, value, "an argument that is an object has one member");
    const char *tag = value->as.members[0].key;
    const port_json_value *content = &value->as.members[0].value;
    if (strcmp(tag, "v") == 0) {
        NEED(content->kind == JSON_INT && content->as.integer >= 0 && content->as.integer < p->program->num_values, content,
             "v must be the number of a value");
        *arg = (port_arg){.kind = PORT_ARG_TENSOR, .i = content->as.integer};
        return PORT_OK;
    }
    if (strcmp(tag, "list") == 0) {
        return parse_list(p, content, arg);
    }
    if (strcmp(tag, "sym") == 0) {
        return parse_sym(p, content, arg);
    }
    if (strcmp(tag, "complex") == 0) {
        return parse_complex(p, content, arg);
    }
    if (content->kind != JSON_STRING || strlen(content->as.text) != content->count) {
        *arg = (port_arg){.kind = PORT_ARG_OTHER};
        return PORT_OK;
    }
    const char *text = take_text(p, content->as.text);
    if (text == NULL) {
        return PORT_E_NOMEM;
    }
    *arg = (port_arg){.kind = PORT_ARG_OTHER, .text = text};
    if (strcmp(tag, "dtype") == 0) {
        port_dtype dtype = port_dtype_from_name(text);
        if (dtype != PORT_NUM_DTYPES) {
            *arg = (port_arg){.kind = PORT_ARG_DTYPE, .i = dtype};
        }
    } else if (strcmp(tag, "device") == 0) {
        arg->kind = PORT_ARG_DEVICE;
    } else if (strcmp(tag, "layout") == 0) {
        arg->kind = PORT_ARG_LAYOUT;
    } else if (strcmp(tag, "memory_format") == 0) {
        return parse_memory_format(p, content, text, arg);
    } else if (strcmp(tag, "float") == 0) {
        double number = strcmp(text, "inf") == 0 ? HUGE_VAL : (strcmp(text, "-inf") == 0 ? -HUGE_VAL : (double)NAN);
        NEED(number == number || strcmp(text, "nan") == 0, content, "float must be inf, -inf or nan");
        *arg = (port_arg){.kind = PORT_ARG_FLOAT, .d = number};
    }
    return PORT_OK;
}

static port_status
parse_arg(parser *p, const port_json_value *value, port_arg *arg)
{
    switch (value->kind) {
    case JSON_NULL: *arg = (port_arg){.kind = PORT_ARG_NONE}; return PORT_OK;
    case JSON_BOOL: *arg = (port_arg){.kind = PORT_ARG_BOOL, .i = value->as.boolean, .d = value->as.boolean}; return PORT_OK;
    case JSON_INT:
        *arg = (port_arg){.kind = PORT_ARG_INT, .i = value->as.integer, .d = (double)value->as.integer};
        return PORT_OK;
    case JSON_FLOAT: *arg = (port_arg){.kind = PORT_ARG_FLOAT, .d = value->as.number}; return PORT_OK;
    case JSON_STRING:
        NEED(strlen(value->as.text) == value->count, value, "a string holds a NUL");
        *arg = (port_arg){.kind = PORT_ARG_STRING, .text = take_text(p, value->as.text)};
        return arg->text != NULL ? PORT_OK : PORT_E_NOMEM;
    case JSON_ARRAY: return bad(p, value, "a list argument is written {\"list\": [...]}");
    default: return parse_tagged(p, value, arg);
    }
}

/* Sizes or strides: integers or sym. */
static port_status
parse_ints(parser *p, const port_json_value *list, const port_arg **out)
{
    port_arg arg;
    NEED(is_kind(list, JSON_ARRAY) && list->count <= PORT_MAX_NDIM, list, "sizes and strides are arrays of at most 16 integers");
    port_status status = parse_list(p, list, &arg);
    if (status != PORT_OK) {
        return status;
    }
    for (int64_t d = 0; d < arg.num_items; d++) {
        NEED(arg.items[d].kind == PORT_ARG_INT || arg.items[d].kind == PORT_ARG_SYM, list, "sizes and strides are integers");
        NEED(arg.items[d].kind == PORT_ARG_SYM || arg.items[d].i >= 0, list, "a size or stride is negative");
        p->program->sym_shapes = p->program->sym_shapes || arg.items[d].kind == PORT_ARG_SYM;
    }
    *out = arg.items;
    return PORT_OK;
}

static port_status
parse_value(parser *p, const port_json_value *json, value_info *value)
{
    NEED(is_kind(json, JSON_ARRAY) && (json->count == 4 || json->count == 5) && json->as.items[0].kind == JSON_STRING, json,
         "a value is [dtype, shape, strides, storage offset] or has a fifth entry, where its storage began");
    const port_json_value *shape = &json->as.items[1], *strides = &json->as.items[2];
    value->dtype = port_dtype_from_name(json->as.items[0].as.text);
    port_status status = parse_ints(p, shape, &value->shape);
    if (status == PORT_OK) {
        status = parse_ints(p, strides, &value->strides);
    }
    if (status == PORT_OK) {
        status = parse_arg(p, &json->as.items[3], &value->offset);
    }
    if (status != PORT_OK) {
        return status;
    }
    value->ndim = (int32_t)shape->count;
    value->has_strides = strides->count == shape->count;
    NEED(value->has_strides || strides->count == 0, strides, "a value has as many strides as sizes");
    NEED((value->offset.kind == PORT_ARG_INT && value->offset.i >= 0) || value->offset.kind == PORT_ARG_SYM, &json->as.items[3],
         "a storage offset is an integer >= 0");
    if (json->count == 5) {
        const port_json_value *lead = &json->as.items[4];
        NEED(lead->kind == JSON_INT && lead->as.integer >= 0 && lead->as.integer < 64, lead, "a storage begins 0 to 63 bytes after a multiple of 64");
        value->lead_bytes = lead->as.integer;
    }
    return PORT_OK;
}

static port_status
parse_outputs(parser *p, const port_json_value *json, op_info *op)
{
    NEED(is_kind(json, JSON_ARRAY), json, "outputs must be an array");
    int64_t *outputs = take(p, json->count, sizeof *outputs);
    if (outputs == NULL) {
        return PORT_E_NOMEM;
    }
    for (size_t k = 0; k < json->count; k++) {
        const port_json_value *v = &json->as.items[k];
        NEED(v->kind == JSON_NULL || (v->kind == JSON_INT && v->as.integer >= 0 && v->as.integer < p->program->num_values), v,
             "an output is the number of a value or null");
        outputs[k] = v->kind == JSON_NULL ? -1 : v->as.integer;
    }
    op->outputs = outputs;
    op->num_outputs = json->count;
    return PORT_OK;
}

static port_status
parse_op(parser *p, const port_json_value *json, op_info *op)
{
    NEED(is_kind(json, JSON_ARRAY) && (json->count == 4 || json->count == 5), json,
         "an op is [name, args, kwargs, outputs] or has the returned value as a fifth entry");
    const port_json_value *items = json->as.items, *kwargs = &items[2];
    NEED(items[0].kind == JSON_STRING && items[0].count > 0 && items[0].count < 200 && strlen(items[0].as.text) == items[0].count,
         &items[0], "an op's name is a string of 1 to 199 bytes");
    NEED(kwargs->kind == JSON_OBJECT, kwargs, "kwargs must be an object");
    port_arg args;
    port_status status = parse_list(p, &items[1], &args);
    op->name = take_text(p, items[0].as.text);
    op->row = op->name != NULL ? op_find(op->name, &op->in_place) : NULL;
    port_named_arg *named = take(p, kwargs->count, sizeof *named);
    if (status != PORT_OK || op->name == NULL || named == NULL) {
        return status != PORT_OK ? status : PORT_E_NOMEM;
    }
    op->args = args.items;
    op->num_args = (size_t)args.num_items;
    for (size_t k = 0; k < kwargs->count && status == PORT_OK; k++) {
        named[k].name = take_text(p, kwargs->as.members[k].key);
        status = named[k].name != NULL ? parse_arg(p, &kwargs->as.members[k].value, &named[k].arg) : PORT_E_NOMEM;
    }
    op->named = named;
    op->num_named = kwargs->count;
    if (status == PORT_OK) {
        status = parse_outputs(p, &items[3], op);
    }
    return status == PORT_OK && json->count == 5 ? parse_arg(p, &items[4], &op->returned) : status;
}

static port_status
parse_symbols(parser *p, const port_json_value *root)
{
    const port_json_value *names = port_json_get(root, "symbols"), *numbers = port_json_get(root, "recorded_symbols");
    if (names == NULL || names->kind == JSON_NULL) {
        return PORT_OK;
    }
    NEED(names->kind == JSON_ARRAY && names->count <= 64, names, "symbols must be an array of at most 64 names");
    for (size_t k = 0; k < names->count; k++) {
        NEED(names->as.items[k].kind == JSON_STRING, names, "symbols must be names");
    }
    NEED(names->count == 0 || (is_kind(numbers, JSON_ARRAY) && numbers->count == names->count), numbers,
         "recorded_symbols must have one integer for each symbol");
    int64_t *values = take(p, names->count, sizeof *values);
    if (values == NULL) {
        return PORT_E_NOMEM;
    }
    for (size_t k = 0; k < names->count; k++) {
        NEED(numbers->as.items[k].kind == JSON_INT, numbers, "recorded_symbols must be integers");
        values[k] = numbers->as.items[k].as.integer;
    }
    p->symbols = names;
    p->program->num_symbols = (int64_t)names->count;
    p->program->recorded_symbols = values;
    return PORT_OK;
}

static port_status
parse_program(parser *p, const port_json_value *root)
{
    NEED(is_kind(root, JSON_OBJECT), root, "a program is an object");
    const port_json_value *values = port_json_get(root, "values"), *ops = port_json_get(root, "ops");
    NEED(is_kind(values, JSON_ARRAY), values, "values must be an array");
    NEED(is_kind(ops, JSON_ARRAY), ops, "ops must be an array");
    port_status status = parse_symbols(p, root);
    if (status != PORT_OK) {
        return status;
    }
    value_info *value_list = take(p, values->count, sizeof *value_list);
    op_info *op_list = take(p, ops->count, sizeof *op_list);
    if (value_list == NULL || op_list == NULL) {
        return PORT_E_NOMEM;
    }
    p->program->values = value_list;
    p->program->ops = op_list;
    p->program->num_values = (int64_t)values->count;
    p->program->num_ops = (int64_t)ops->count;
    for (size_t k = 0; k < values->count && status == PORT_OK; k++) {
        status = parse_value(p, &values->as.items[k], &value_list[k]);
    }
    for (size_t k = 0; k < ops->count && status == PORT_OK; k++) {
        p->op_idx = (int64_t)k;
        status = parse_op(p, &ops->as.items[k], &op_list[k]);
    }
    return status;
}

port_status
port_program_parse(const char *json, size_t size_bytes, port_program **program, port_error *err)
{
    port_json *tree = NULL;
    port_status status = port_json_parse(json, size_bytes, &tree, err);
    if (status != PORT_OK) {
        return status;
    }
    parser p = {.program = port_calloc(1, sizeof(port_program)), .err = err, .op_idx = -1};
    status = p.program != NULL ? parse_program(&p, port_json_root(tree))
                               : port_fail(err, PORT_E_NOMEM, "no memory for the program");
    port_json_free(tree);
    if (status == PORT_OK) {
        status = fuse_find(p.program, err);
    }
    if (status != PORT_OK) {
        port_program_free(p.program);
        return status;
    }
    *program = p.program;
    return PORT_OK;
}

void
port_program_free(port_program *program)
{
    while (program != NULL && program->memory != NULL) {
        arena *next = program->memory->next;
        port_free(program->memory);
        program->memory = next;
    }
    if (program != NULL) {
        port_free(program->groups);
    }
    port_free(program);
}

int64_t
port_program_num_ops(const port_program *program)
{
    return program->num_ops;
}

int64_t
port_program_num_values(const port_program *program)
{
    return program->num_values;
}

const char *
port_program_op_name(const port_program *program, int64_t op_idx)
{
    return op_idx >= 0 && op_idx < program->num_ops ? program->ops[op_idx].name : NULL;
}

bool
port_program_op_known(const port_program *program, int64_t op_idx)
{
    return op_idx >= 0 && op_idx < program->num_ops && program->ops[op_idx].row != NULL;
}

static void
visit_arg(const port_arg *arg, void (*visit)(int64_t value, void *context), void *context)
{
    if (arg->kind == PORT_ARG_TENSOR) {
        visit(arg->i, context);
    }
    for (int64_t k = 0; arg->kind == PORT_ARG_LIST && k < arg->num_items; k++) {
        visit_arg(&arg->items[k], visit, context);
    }
}

void
op_for_each_input(const op_info *op, void (*visit)(int64_t value, void *context), void *context)
{
    for (size_t k = 0; k < op->num_args; k++) {
        visit_arg(&op->args[k], visit, context);
    }
    for (size_t k = 0; k < op->num_named; k++) {
        visit_arg(&op->named[k].arg, visit, context);
    }
}
