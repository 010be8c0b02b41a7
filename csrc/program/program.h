/* program.h -- recorded ATen programs and their execution with C kernels. Private to csrc/.
 *
 * A program is the flat list of ops that one call of a root module executed (docs/PROGRAM.md). Any interval of it
 * can be run: a module's program is the interval between its entry and its exit. Values are numbered; an interval
 * is fed with the values it uses but does not make, and asked for those it makes.
 */
#ifndef PORT_PROGRAM_H
#define PORT_PROGRAM_H

#include "../kernels/kernel.h"

typedef struct port_program port_program;

/* Parses one program (the JSON of docs/PROGRAM.md). Trusts nothing. Returns: PORT_OK; FORMAT, NOMEM, VALUE. */
port_status port_program_parse(const char *json, size_t size_bytes, port_program **program, port_error *err);
void port_program_free(port_program *program);
int64_t port_program_num_ops(const port_program *program);
int64_t port_program_num_values(const port_program *program);
const char *port_program_op_name(const port_program *program, int64_t op_idx);
/* True if there is a handler for the op (whatever its dtypes). */
bool port_program_op_known(const port_program *program, int64_t op_idx);

/* Ops that a run executes together unless a value between them is asked for (fuse.h). */
#define PORT_FUSION_MAX_OPS 17
int64_t port_program_num_fusions(const port_program *program);
/* Puts the ops of fusion fusion_idx into `ops`, ascending, and returns how many there are; 0 if there is no such fusion. */
int32_t port_program_fusion(const port_program *program, int64_t fusion_idx, int64_t ops[PORT_FUSION_MAX_OPS]);

typedef struct port_feed {
    int64_t value; /* value number */
    port_view view;
} port_feed;

/* What float32 operands of products are rounded to first (operands.c). */
typedef enum port_operand_format {
    PORT_OPERANDS_EXACT = 0, PORT_OPERANDS_TF32, PORT_OPERANDS_BF16, PORT_OPERANDS_F16, PORT_OPERANDS_Q8_0
} port_operand_format;
/* What a value is expected to hold at one point of the run. */
typedef struct port_expect {
    int64_t value;
    int64_t at;     /* right after this op; begin - 1: before the first */
    port_view view; /* borrowed */
    bool restore;   /* if it is not the same, but of that dtype and shape: go on with the expected content */
    bool same;      /* out: dtype, shape and every bit agree. False also if there was no such value */
} port_expect;

typedef struct port_run_options {
    const port_provider *provider;
    port_profile profile;
    const char *variant; /* kernel variant, NULL: best */
    port_operand_format operands;
    int64_t num_symbols; /* values of the program's symbols (docs/PROGRAM.md), in order */
    const int64_t *symbols;
    bool check_strides; /* also refuse an output whose strides are not the recorded ones (tests) */
    const int64_t *only; /* ascending: of [begin, end) only these ops run; NULL: all. Then fetch_at and expects must not be given */
    size_t num_only;
    port_expect *expects; /* in ascending order of `at`; nothing is copied for them */
    size_t num_expects;
} port_run_options;

typedef struct port_result {
    port_view view; /* row-major, but of port_op_run as the op lays it out where it is dense; memory belongs to the result */
    void *memory;   /* port_free_aligned */
} port_result;

/* Runs ops [begin, end).
 * feeds: borrowed, or copied if an op writes to them in place, or if they do not lie as recorded: with other strides, or at
 *          another distance from a multiple of 64 bytes than the storage offset and the storage's beginning give.
 * fetches: value numbers; results[i] is a row-major copy of value fetches[i] as it stands *after the interval*
 *          unless fetch_at[i] >= 0, which asks for the value right after op fetch_at[i].
 * Returns: PORT_OK; UNSUPPORTED (op, dtype: the message names them), SHAPE, DTYPE, VALUE, NOMEM. Never crashes on
 * a malformed program: every index and shape is checked. */
port_status port_program_run(const port_program *program, int64_t begin, int64_t end, const port_feed *feeds,
                             size_t num_feeds, const int64_t *fetches, const int64_t *fetch_at, size_t num_fetches,
                             const port_run_options *options, port_result *results, port_error *err);

/* ------------------------------------------------------------------ one op, without a program */

typedef enum port_arg_kind {
    PORT_ARG_NONE = 0,
    PORT_ARG_TENSOR, /* i: place in the tensors given */
    PORT_ARG_INT,
    PORT_ARG_FLOAT,
    PORT_ARG_BOOL,
    PORT_ARG_STRING,        /* text */
    PORT_ARG_LIST,          /* i items */
    PORT_ARG_DTYPE,         /* i: port_dtype */
    PORT_ARG_DEVICE,        /* text */
    PORT_ARG_LAYOUT,        /* text */
    PORT_ARG_MEMORY_FORMAT, /* i: port_memory_format */
    PORT_ARG_SYM,           /* i + sum of items, which are pairs of INT: factor, number of the symbol; num_items counts both */
    PORT_ARG_OTHER,         /* something that no op here takes (a foreign dtype) */
    PORT_ARG_COMPLEX        /* d + imag i */
} port_arg_kind;

typedef enum port_memory_format {
    PORT_FORMAT_CONTIGUOUS = 0,
    PORT_FORMAT_PRESERVE,
    PORT_FORMAT_CHANNELS_LAST,
    PORT_FORMAT_CHANNELS_LAST_3D
} port_memory_format;

typedef struct port_arg {
    port_arg_kind kind;
    int64_t i;
    double d;                     /* FLOAT; also the value of INT and BOOL */
    const char *text;
    const struct port_arg *items; /* LIST, SYM */
    int64_t num_items;
    double imag; /* COMPLEX */
} port_arg;

typedef struct port_named_arg {
    const char *name;
    port_arg arg;
} port_named_arg;

typedef struct port_op_inputs {
    const port_arg *args;
    size_t num_args;
    const port_named_arg *named;
    size_t num_named;
    const port_view *tensors; /* read only: an in-place op changes a copy, and gives that back */
    size_t num_tensors;
} port_op_inputs;

/* Runs the op `name` ("aten.gelu.default"). Out: *results, an array of *num_results (free each memory and the array
 * with port_results_free). An argument `variant` without a kernel of that name is UNSUPPORTED here.
 * Returns: as port_program_run; NAME for a name that is no ATen op's. */
port_status port_op_run(const char *name, const port_op_inputs *inputs, const port_run_options *options,
                        port_result **results, size_t *num_results, port_error *err);
void port_results_free(port_result *results, size_t num_results);

/* Arguments of the op `name` as args.c writes them, and the kernel that its generic handler launches (NULL: several, or none).
 * False if it has no handler. The strings are constants. */
bool port_op_signature(const char *name, const char **signature, const char **kernel);

/* The i-th op with a handler, "aten.add.Tensor"; false if i is out of range. In-place forms are listed too. */
bool port_op_known_name(size_t i, char *name, size_t name_bytes);

#endif /* PORT_PROGRAM_H */
