/* args.c -- binds an op's arguments to its row's signature and reads them.
 *
 * A signature is torch's schema in short: "T self, N other, *, S alpha=1". The letters:
 *     T tensor   N tensor or number (of run_binary also complex)   L list of tensors   O list of tensors or None   I int   A list of ints (or one)
 *     S number   C number, also complex   F float   B bool   D dtype   s string   m memory format
 *     y layout, v device, p pin_memory: only what the CPU has; read here and never looked at again
 * A ? after the letter allows None; what follows = is the default (None, True, False, a number, [] or a word); after
 * `*,` come arguments that have to be named. Whatever does not fit is refused: an argument that a handler does not
 * know must not be dropped in silence.
 */
#include "exec.h"

#include <ctype.h>

typedef struct part {
    char type;
    bool optional, named_only, has_default;
    char name[32], text[24]; /* text: of the default */
} part;

/* Reads the next part of a signature. False at its end. */
static bool
next_part(const char **cursor, bool *named_only, part *out)
{
    const char *s = *cursor;
    while (*s == ' ' || *s == ',') {
        s++;
    }
    if (*s == '*') {
        *named_only = true;
        *cursor = s + 1;
        return next_part(cursor, named_only, out);
    }
    if (*s == '\0') {
        return false;
    }
    memset(out, 0, sizeof *out);
    out->type = *s++;
    out->named_only = *named_only;
    if (*s == '?') {
        out->optional = true;
        s++;
    }
    s += *s == ' ';
    for (size_t n = 0; isalnum((unsigned char)*s) || *s == '_'; s++) {
        if (n + 1 < sizeof out->name) {
            out->name[n++] = *s;
        }
    }
    if (*s == '=') {
        out->has_default = true;
        s++;
        for (size_t n = 0; *s != '\0' && *s != ','; s++) {
            if (n + 1 < sizeof out->text) {
                out->text[n++] = *s;
            }
        }
    }
    *cursor = s;
    return true;
}

bool
signature_next_name(const char **cursor, char *name, size_t name_bytes)
{
    bool named_only = false;
    part p;
    if (!next_part(cursor, &named_only, &p)) {
        return false;
    }
    snprintf(name, name_bytes, "%s", p.name);
    return true;
}

static port_arg
default_arg(const part *p)
{
    const char *text = p->text;
    if (strcmp(text, "None") == 0) {
        return (port_arg){.kind = PORT_ARG_NONE};
    }
    if (strcmp(text, "[]") == 0) {
        return (port_arg){.kind = PORT_ARG_LIST};
    }
    if (strcmp(text, "True") == 0 || strcmp(text, "False") == 0) {
        return (port_arg){.kind = PORT_ARG_BOOL, .i = text[0] == 'T', .d = text[0] == 'T' ? 1.0 : 0.0};
    }
    if (p->type == 's') {
        return (port_arg){.kind = PORT_ARG_STRING, .text = strcmp(text, "none") == 0 ? "none" : ""};
    }
    double value = strtod(text, NULL);
    if (strpbrk(text, ".e") != NULL) {
        return (port_arg){.kind = PORT_ARG_FLOAT, .d = value};
    }
    return (port_arg){.kind = PORT_ARG_INT, .i = (int64_t)value, .d = value};
}

static bool
is_int(const port_arg *arg)
{
    return arg->kind == PORT_ARG_INT || arg->kind == PORT_ARG_SYM;
}

static bool
is_number(const port_arg *arg)
{
    return is_int(arg) || arg->kind == PORT_ARG_FLOAT || arg->kind == PORT_ARG_BOOL;
}

static bool
is_tensor(const op_call *call, const port_arg *arg)
{
    return arg->kind == PORT_ARG_TENSOR && arg->i >= 0 && arg->i < call->num_values && call->values[arg->i] != NULL;
}

static bool
is_list(const op_call *call, const port_arg *arg, char type)
{
    if (arg->kind != PORT_ARG_LIST) {
        return false;
    }
    for (int64_t k = 0; k < arg->num_items; k++) {
        const port_arg *item = &arg->items[k];
        bool fits = type == 'A' ? is_int(item) : (is_tensor(call, item) || (type == 'O' && item->kind == PORT_ARG_NONE));
        if (!fits) {
            return false;
        }
    }
    return true;
}

static const char *
describe(const port_arg *arg)
{
    static const char *const names[] = {"None", "a tensor", "an int", "a float", "a bool", "a string", "a list",
                                        "a dtype", "a device", "a layout", "a memory format", "an int", "something unknown", "a complex number"};
    return (size_t)arg->kind < sizeof names / sizeof names[0] ? names[arg->kind] : "something unknown";
}

static const char *
wanted(char type)
{
    static const struct {
        char type;
        const char *text;
    } rows[] = {{'T', "a tensor"}, {'N', "a tensor or a number"}, {'L', "a list of tensors"}, {'I', "an int"},
                {'O', "a list of tensors or None"}, {'A', "a list of ints"}, {'S', "a number"}, {'C', "a number"}, {'F', "a float"},
                {'B', "a bool"}, {'D', "a dtype"}, {'s', "a string"}, {'m', "a memory format"}, {'y', "layout strided"},
                {'v', "device cpu"}, {'p', "pin_memory False"}};
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        if (rows[k].type == type) {
            return rows[k].text;
        }
    }
    return "nothing";
}

static bool
fits(const op_call *call, const part *p, const port_arg *arg)
{
    bool none = arg->kind == PORT_ARG_NONE;
    if (none && p->optional) {
        return true;
    }
    switch (p->type) {
    case 'T': return is_tensor(call, arg);
    case 'N': return is_tensor(call, arg) || is_number(arg) || (arg->kind == PORT_ARG_COMPLEX && call->row->run == run_binary);
    case 'C': return is_number(arg) || arg->kind == PORT_ARG_COMPLEX;
    case 'L':
    case 'O': return is_list(call, arg, p->type);
    case 'A': return is_int(arg) || is_list(call, arg, 'A');
    case 'I': return is_int(arg);
    case 'S': return is_number(arg);
    case 'F': return arg->kind == PORT_ARG_FLOAT || is_int(arg);
    case 'B': return arg->kind == PORT_ARG_BOOL;
    case 'D': return arg->kind == PORT_ARG_DTYPE;
    case 's': return arg->kind == PORT_ARG_STRING;
    case 'm': return none || arg->kind == PORT_ARG_MEMORY_FORMAT;
    case 'y': return none || (arg->kind == PORT_ARG_LAYOUT && strcmp(arg->text, "strided") == 0);
    case 'v': return none || (arg->kind == PORT_ARG_DEVICE && strncmp(arg->text, "cpu", 3) == 0);
    case 'p': return none || (arg->kind == PORT_ARG_BOOL && arg->i == 0);
    default: return false;
    }
}

/* A value that the program uses before it makes it and that was not fed: the first one's number, or -1. */
static int64_t
absent_value(const op_call *call, const port_arg *arg)
{
    if (arg->kind == PORT_ARG_TENSOR) {
        return is_tensor(call, arg) ? -1 : arg->i;
    }
    int64_t absent = -1;
    for (int64_t k = 0; arg->kind == PORT_ARG_LIST && absent < 0 && k < arg->num_items; k++) {
        absent = absent_value(call, &arg->items[k]);
    }
    return absent;
}

static port_status
take_named(op_call *call, const part *p, const port_named_arg *named, size_t num_named, port_arg *arg, size_t *used)
{
    for (size_t k = 0; k < num_named; k++) {
        if (strcmp(named[k].name, p->name) == 0) {
            if (arg->kind != (port_arg_kind)-1) {
                return fail_op(call, PORT_E_VALUE, "argument %s is given twice", p->name);
            }
            *arg = named[k].arg;
            ++*used;
        }
    }
    return PORT_OK;
}

port_status
bind_args(op_call *call, const port_arg *args, size_t num_args, const port_named_arg *named, size_t num_named)
{
    const char *cursor = call->row->signature;
    bool named_only = false;
    part p;
    size_t place = 0, used = 0;
    call->num_args = 0;
    while (next_part(&cursor, &named_only, &p)) {
        port_arg arg = {.kind = (port_arg_kind)-1};
        if (!p.named_only && place < num_args) {
            arg = args[place++];
        }
        port_status status = take_named(call, &p, named, num_named, &arg, &used);
        if (status != PORT_OK) {
            return status;
        }
        if (arg.kind == (port_arg_kind)-1) {
            if (!p.has_default) {
                return fail_op(call, PORT_E_VALUE, "argument %s is missing", p.name);
            }
            arg = default_arg(&p);
        } else if (absent_value(call, &arg) >= 0) {
            return fail_op(call, PORT_E_VALUE, "argument %s is value %lld, which nothing has made or fed", p.name,
                           (long long)absent_value(call, &arg));
        } else if (!fits(call, &p, &arg)) {
            return fail_unsupported(call, "argument %s: expected %s%s, got %s", p.name, wanted(p.type),
                                    p.optional ? " or None" : "", describe(&arg));
        }
        call->args[call->num_args++] = arg;
    }
    if (place < num_args) {
        return fail_op(call, PORT_E_VALUE, "at most %zu positional arguments are known, got %zu", place, num_args);
    }
    if (used < num_named) {
        return fail_unsupported(call, "one of its %zu named arguments is not known here (first: %s)", num_named, named[0].name);
    }
    return PORT_OK;
}

int64_t
eval_int(const op_call *call, const port_arg *arg)
{
    if (arg->kind != PORT_ARG_SYM) {
        return arg->i;
    }
    uint64_t sum = (uint64_t)arg->i; /* wraps instead of undefined behaviour; a nonsense size is refused where it is used */
    for (int64_t k = 0; k + 1 < arg->num_items; k += 2) {
        int64_t symbol = arg->items[k + 1].i;
        int64_t value = symbol < call->options->num_symbols ? call->options->symbols[symbol] : 0;
        sum += (uint64_t)arg->items[k].i * (uint64_t)value;
    }
    return (int64_t)sum;
}

port_scalar
eval_scalar(const op_call *call, const port_arg *arg)
{
    switch (arg->kind) {
    case PORT_ARG_BOOL: return (port_scalar){PORT_SCALAR_BOOL, arg->i, (double)arg->i};
    case PORT_ARG_FLOAT: return (port_scalar){PORT_SCALAR_FLOAT, 0, arg->d};
    case PORT_ARG_INT:
    case PORT_ARG_SYM: {
        int64_t i = eval_int(call, arg);
        return (port_scalar){PORT_SCALAR_INT, i, (double)i};
    }
    default: return (port_scalar){PORT_SCALAR_NONE, 0, 0.0};
    }
}

bool
arg_given(const op_call *call, int32_t idx)
{
    return call->args[idx].kind != PORT_ARG_NONE;
}

const port_tensor *
arg_tensor(const op_call *call, int32_t idx)
{
    const port_arg *arg = &call->args[idx];
    return arg->kind == PORT_ARG_TENSOR ? call->values[arg->i] : NULL;
}

const port_tensor *
item_tensor(const op_call *call, int32_t idx, int64_t item)
{
    const port_arg *arg = &call->args[idx].items[item];
    return arg->kind == PORT_ARG_TENSOR ? call->values[arg->i] : NULL;
}

int64_t
arg_int(const op_call *call, int32_t idx)
{
    return eval_int(call, &call->args[idx]);
}

int64_t
arg_len(const op_call *call, int32_t idx)
{
    const port_arg *arg = &call->args[idx];
    return arg->kind == PORT_ARG_LIST ? arg->num_items : (arg->kind == PORT_ARG_NONE ? 0 : 1);
}

int64_t
arg_int_at(const op_call *call, int32_t idx, int64_t item)
{
    const port_arg *arg = &call->args[idx];
    if (arg->kind == PORT_ARG_LIST && item >= arg->num_items) {
        return INT64_MIN; /* of a list that is too short: no size, place or dimension */
    }
    return eval_int(call, arg->kind == PORT_ARG_LIST ? &arg->items[item] : arg);
}

bool
arg_bool(const op_call *call, int32_t idx)
{
    return call->args[idx].i != 0;
}

double
arg_double(const op_call *call, int32_t idx, double if_none)
{
    return arg_given(call, idx) ? eval_scalar(call, &call->args[idx]).d : if_none;
}

port_scalar
arg_scalar(const op_call *call, int32_t idx)
{
    return eval_scalar(call, &call->args[idx]);
}

port_dtype
arg_dtype(const op_call *call, int32_t idx, port_dtype if_none)
{
    return arg_given(call, idx) ? (port_dtype)call->args[idx].i : if_none;
}

const char *
arg_text(const op_call *call, int32_t idx, const char *if_none)
{
    return arg_given(call, idx) ? call->args[idx].text : if_none;
}

port_status
wrap_dim(const op_call *call, int64_t dim, int32_t ndim, int32_t *out)
{
    int64_t n = ndim > 0 ? ndim : 1;
    if (dim < -n || dim >= n) {
        return fail_op((op_call *)call, PORT_E_VALUE, "dimension %lld is out of range for a tensor of %d dimensions",
                       (long long)dim, ndim);
    }
    *out = (int32_t)(dim < 0 ? dim + n : dim);
    return PORT_OK;
}
