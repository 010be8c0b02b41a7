/* compose.c -- ops that torch itself makes of other ops: a row's formula is run, statement by statement, by the
 * handlers there are.
 *
 * A formula is statements, then the results:
 *     "m = amax(self, dim, true); e = exp(sub.Tensor(self, m)) ... -> y"
 * A statement is `names = op(arguments)`; calls do not nest. An argument is the name of one of the op's arguments or
 * of an earlier result, a number, true, false, None, a list [..], 'text', or x.dtype; `key=` names it. A later
 * statement may give a name anew. Before a statement stand conditions under which it runs: `?name:` that argument was
 * given (not None, false or empty), `!name:` it was not, `?name=2:` it is that number (`!name=2:` another), `%name:`
 * it is a tensor of integers or BOOL, `~name:` it is not.
 * A formula that begins with ^ computes halves in F32 and rounds its results once, as torch's kernels of one loop do.
 *
 * Formulas are part of the program text: they are not checked more than is needed to find a mistake in the tests. */
#include "compose.h"

#include <ctype.h>
#include <math.h>

#define MAX_NAMES 40
#define MAX_TENSORS 48
#define MAX_ITEMS 64
#define NAME_BYTES 56

typedef struct scope {
    op_call *call;
    const char *at;
    int32_t num_names, num_tensors, num_items;
    bool idle; /* the statement is passed over: its names need not be there */
    char names[MAX_NAMES][NAME_BYTES];
    port_arg args[MAX_NAMES];
    port_tensor *tensors[MAX_TENSORS];
    port_arg items[MAX_ITEMS]; /* of the statement's lists */
} scope;

static port_status
mistake(scope *s, const char *what)
{
    return fail_op(s->call, PORT_E_UNSUPPORTED, "its formula is wrong (%s) at \"%.40s\"", what, s->at);
}

static void
skip_blanks(scope *s)
{
    while (*s->at == ' ') {
        s->at++;
    }
}

static bool
accept(scope *s, char wanted)
{
    skip_blanks(s);
    if (*s->at != wanted) {
        return false;
    }
    s->at++;
    return true;
}

/* A name, with its overload after a dot if `dotted`. Empty: there is none. */
static void
read_name(scope *s, bool dotted, char *name)
{
    size_t n = 0;
    skip_blanks(s);
    while (isalnum((unsigned char)*s->at) || *s->at == '_' || (dotted && *s->at == '.')) {
        if (n + 1 < NAME_BYTES) {
            name[n++] = *s->at;
        }
        s->at++;
    }
    name[n] = '\0';
}

static port_arg *
find(scope *s, const char *name)
{
    for (int32_t k = 0; k < s->num_names; k++) {
        if (strcmp(s->names[k], name) == 0) {
            return &s->args[k];
        }
    }
    return NULL;
}

static port_status
define(scope *s, const char *name, port_arg arg)
{
    port_arg *old = find(s, name);
    if (old != NULL) {
        *old = arg;
        return PORT_OK;
    }
    if (s->num_names == MAX_NAMES || name[0] == '\0') {
        return mistake(s, "names");
    }
    strcpy(s->names[s->num_names], name);
    s->args[s->num_names++] = arg;
    return PORT_OK;
}

static port_status
define_tensor(scope *s, const char *name, const port_tensor *tensor)
{
    if (s->num_tensors == MAX_TENSORS) {
        return mistake(s, "tensors");
    }
    port_tensor *held;
    port_status status = tensor_alias(s->call, tensor, &held);
    if (status != PORT_OK) {
        return status;
    }
    s->tensors[s->num_tensors] = held;
    return define(s, name, (port_arg){.kind = PORT_ARG_TENSOR, .i = s->num_tensors++});
}

/* ------------------------------------------------------------------ arguments */

static port_status read_arg(scope *s, port_arg *arg);

static port_status
read_list(scope *s, port_arg *arg)
{
    port_arg items[8];
    int64_t count = 0;
    while (!accept(s, ']')) {
        if (count == 8) {
            return mistake(s, "list");
        }
        port_status status = read_arg(s, &items[count++]);
        if (status != PORT_OK) {
            return status;
        }
        accept(s, ',');
    }
    if (s->num_items + count > MAX_ITEMS) {
        return mistake(s, "items");
    }
    *arg = (port_arg){.kind = PORT_ARG_LIST, .items = &s->items[s->num_items], .num_items = count};
    memcpy(&s->items[s->num_items], items, (size_t)count * sizeof items[0]);
    s->num_items += (int32_t)count;
    return PORT_OK;
}

static port_status
read_named(scope *s, port_arg *arg)
{
    char name[NAME_BYTES];
    read_name(s, true, name);
    char *dot = strstr(name, ".dtype");
    if (dot != NULL) {
        *dot = '\0';
    }
    port_arg *found = find(s, name);
    if (found != NULL) {
        *arg = *found;
        if (dot != NULL && found->kind != PORT_ARG_TENSOR) {
            return s->idle ? PORT_OK : mistake(s, "dtype");
        }
        if (dot != NULL) {
            *arg = (port_arg){.kind = PORT_ARG_DTYPE, .i = s->tensors[found->i]->dtype};
        }
        return PORT_OK;
    }
    static const struct {
        const char *name;
        port_arg arg;
    } words[] = {{"true", {.kind = PORT_ARG_BOOL, .i = 1, .d = 1.0}},
                 {"false", {.kind = PORT_ARG_BOOL}},
                 {"None", {.kind = PORT_ARG_NONE}},
                 {"inf", {.kind = PORT_ARG_FLOAT, .d = (double)INFINITY}},
                 {"F32", {.kind = PORT_ARG_DTYPE, .i = PORT_F32}},
                 {"F64", {.kind = PORT_ARG_DTYPE, .i = PORT_F64}},
                 {"I64", {.kind = PORT_ARG_DTYPE, .i = PORT_I64}},
                 {"I32", {.kind = PORT_ARG_DTYPE, .i = PORT_I32}},
                 {"U8", {.kind = PORT_ARG_DTYPE, .i = PORT_U8}},
                 {"BOOL", {.kind = PORT_ARG_DTYPE, .i = PORT_BOOL}}};
    for (size_t k = 0; k < sizeof words / sizeof words[0]; k++) {
        if (strcmp(words[k].name, name) == 0) {
            *arg = words[k].arg;
            return PORT_OK;
        }
    }
    *arg = (port_arg){.kind = PORT_ARG_NONE};
    return s->idle ? PORT_OK : mistake(s, name);
}

static port_status
read_arg(scope *s, port_arg *arg)
{
    skip_blanks(s);
    if (accept(s, '[')) {
        return read_list(s, arg);
    }
    if (accept(s, '\'')) {
        const char *text = strncmp(s->at, "tanh'", 5) == 0    ? "tanh"
                           : strncmp(s->at, "floor'", 6) == 0 ? "floor"
                                                              : "trunc";
        s->at = strchr(s->at, '\'') + 1;
        *arg = (port_arg){.kind = PORT_ARG_STRING, .text = text};
        return PORT_OK;
    }
    if (*s->at == '-' || isdigit((unsigned char)*s->at)) {
        char *end;
        double value = strtod(s->at, &end);
        bool is_float =
            memchr(s->at, '.', (size_t)(end - s->at)) != NULL || memchr(s->at, 'e', (size_t)(end - s->at)) != NULL;
        bool infinite = value - value != 0.0;
        s->at = end;
        *arg = (port_arg){.kind = is_float || infinite ? PORT_ARG_FLOAT : PORT_ARG_INT, .i = infinite ? 0 : (int64_t)value, .d = value};
        return PORT_OK;
    }
    return read_named(s, arg);
}

/* True if a word and `=` come next: the name of an argument. */
static bool
read_key(scope *s, char *key)
{
    const char *start = s->at;
    read_name(s, false, key);
    if (key[0] != '\0' && *s->at == '=') {
        s->at++;
        return true;
    }
    s->at = start;
    return false;
}

/* ------------------------------------------------------------------ statements */

static port_status
run_inner(scope *s, const char *op, const port_arg *args, size_t num_args, const port_named_arg *named,
          size_t num_named, char targets[][NAME_BYTES], int32_t num_targets)
{
    char name[NAME_BYTES + 16];
    snprintf(name, sizeof name, "aten.%s%s", op, strchr(op, '.') == NULL ? ".default" : "");
    op_call inner = {.name = name,
                     .values = s->tensors,
                     .num_values = s->num_tensors,
                     .options = s->call->options,
                     .err = s->call->err};
    port_status status = op_call_run(&inner, args, num_args, named, num_named);
    for (int32_t k = 0; status == PORT_OK && k < num_targets; k++) {
        status = (size_t)k < inner.num_out ? define_tensor(s, targets[k], &inner.out[k]) : mistake(s, "results");
    }
    s->call->kernel_ran = s->call->kernel_ran || inner.kernel_ran;
    s->call->variant_ran = s->call->variant_ran || inner.variant_ran;
    op_call_end(&inner);
    return status;
}

/* op(arguments); the names before it are known. */
static port_status
run_statement(scope *s, char targets[][NAME_BYTES], int32_t num_targets)
{
    char op[NAME_BYTES];
    port_arg args[OP_MAX_ARGS];
    port_named_arg named[OP_MAX_ARGS];
    char keys[OP_MAX_ARGS][NAME_BYTES];
    size_t num_args = 0, num_named = 0;
    read_name(s, true, op);
    if (!accept(s, '(')) {
        return mistake(s, "call");
    }
    s->num_items = 0;
    while (!accept(s, ')')) {
        port_arg arg;
        skip_blanks(s);
        if (num_args == OP_MAX_ARGS || num_named == OP_MAX_ARGS || *s->at == '\0') {
            return mistake(s, "arguments");
        }
        bool keyed = read_key(s, keys[num_named]);
        port_status status = read_arg(s, &arg);
        if (status != PORT_OK) {
            return status;
        }
        if (keyed) {
            named[num_named] = (port_named_arg){keys[num_named], arg};
            num_named++;
        } else {
            args[num_args++] = arg;
        }
        accept(s, ',');
    }
    return s->idle ? PORT_OK : run_inner(s, op, args, num_args, named, num_named, targets, num_targets);
}

static bool
is_given(const port_arg *arg)
{
    switch (arg->kind) {
    case PORT_ARG_NONE: return false;
    case PORT_ARG_BOOL: return arg->i != 0;
    case PORT_ARG_LIST: return arg->num_items > 0;
    default: return true;
    }
}

static bool
holds(const scope *s, char kind, const port_arg *arg)
{
    if (kind == '?' || kind == '!') {
        return is_given(arg) == (kind == '?');
    }
    bool whole = arg->kind == PORT_ARG_TENSOR && !dtype_is_float(s->tensors[arg->i]->dtype) &&
                 s->tensors[arg->i]->dtype != PORT_C64;
    return whole == (kind == '%');
}

/* The conditions before a statement. */
static port_status
read_conditions(scope *s)
{
    s->idle = false;
    for (skip_blanks(s); *s->at != '\0' && strchr("?!%~", *s->at) != NULL; skip_blanks(s)) {
        char kind = *s->at++, name[NAME_BYTES];
        read_name(s, false, name);
        const port_arg *arg = find(s, name);
        port_arg wanted;
        if (arg == NULL) {
            return mistake(s, "condition");
        }
        bool met = holds(s, kind, arg);
        if (accept(s, '=')) {
            port_status status = read_arg(s, &wanted);
            if (status != PORT_OK) {
                return status;
            }
            met = (arg->d == wanted.d) == (kind == '?');
        }
        if (!accept(s, ':')) {
            return mistake(s, "condition");
        }
        s->idle = s->idle || !met;
    }
    return PORT_OK;
}

static port_status
run_statements(scope *s)
{
    port_status status = PORT_OK;
    while (status == PORT_OK && strncmp(s->at, "->", 2) != 0) {
        char targets[4][NAME_BYTES];
        int32_t num_targets = 0;
        if ((status = read_conditions(s)) != PORT_OK) {
            return status;
        }
        do {
            read_name(s, false, targets[num_targets++]);
        } while (num_targets < 4 && accept(s, ','));
        status = accept(s, '=') ? run_statement(s, targets, num_targets) : mistake(s, "=");
        accept(s, ';');
        skip_blanks(s);
    }
    return status;
}

/* ------------------------------------------------------------------ the op itself */

static bool
is_half(port_dtype dtype)
{
    return dtype == PORT_F16 || dtype == PORT_BF16;
}

/* Defines the op's arguments by the names of its signature. */
static port_status
define_arguments(scope *s, bool in_f32)
{
    const char *cursor = s->call->row->signature;
    char name[NAME_BYTES];
    port_status status = PORT_OK;
    for (int32_t k = 0; status == PORT_OK && signature_next_name(&cursor, name, sizeof name); k++) {
        const port_arg *arg = &s->call->args[k];
        const port_tensor *t = arg_tensor(s->call, k);
        if (t != NULL) {
            status = in_f32 && is_half(t->dtype) ? tensor_cast(s->call, t, PORT_F32, &t) : PORT_OK;
            status = status == PORT_OK ? define_tensor(s, name, t) : status;
        } else if (arg->kind == PORT_ARG_SYM) {
            int64_t i = eval_int(s->call, arg);
            status = define(s, name, (port_arg){.kind = PORT_ARG_INT, .i = i, .d = (double)i});
        } else {
            status = define(s, name, *arg);
        }
    }
    return status;
}

port_status
run_composed(op_call *call)
{
    return run_formula(call, call->row->kernel, NULL, 0);
}

port_status
run_formula(op_call *call, const char *formula, const port_named_arg *extra, int32_t num_extra)
{
    scope *s = port_calloc(1, sizeof *s);
    if (s == NULL) {
        return port_fail(call->err, PORT_E_NOMEM, "%s: no memory for its formula", call->name);
    }
    s->call = call;
    s->at = formula;
    bool in_f32 = accept(s, '^');
    const port_tensor *self = call->num_args > 0 ? arg_tensor(call, 0) : NULL;
    port_status status = define_arguments(s, in_f32);
    for (int32_t k = 0; status == PORT_OK && k < num_extra; k++) {
        status = define(s, extra[k].name, extra[k].arg);
    }
    status = status == PORT_OK ? run_statements(s) : status;
    s->at += 2;
    while (status == PORT_OK) {
        char name[NAME_BYTES];
        read_name(s, false, name);
        const port_arg *arg = find(s, name);
        if (arg == NULL || arg->kind != PORT_ARG_TENSOR) {
            status = mistake(s, name);
            break;
        }
        const port_tensor *result = s->tensors[arg->i];
        if (in_f32 && self != NULL && is_half(self->dtype) && result->dtype == PORT_F32) {
            status = tensor_cast(call, result, self->dtype, &result);
        }
        status = status == PORT_OK ? emit(call, result) : status;
        if (!accept(s, ',')) {
            break;
        }
    }
    port_free(s);
    return status;
}
