/* exec.h -- what the executor's files share: tensors on counted buffers, one op's call, the table of ops.
 * Private to csrc/program/.
 *
 * An op's handler reads bound arguments (their types were checked against the row's signature), makes tensors with
 * tensor_new, launches kernels, and hands results over with emit. It frees nothing: all tensors of a call belong to it.
 */
#ifndef PORT_EXEC_H
#define PORT_EXEC_H

#include "../kernels/kernels.h"
#include "program.h"

#define OP_MAX_ARGS 20
#define OP_MAX_OPERANDS 8

typedef struct port_buffer {
    char *data;
    uint64_t size_bytes;
    int64_t refs;
    void *memory; /* what holds data; NULL: borrowed from a feed, and copied before the first write */
    int64_t origin_bytes; /* of a feed: where data lay in its storage when recorded; as_strided counts from the storage */
} port_buffer;

typedef struct port_tensor {
    port_buffer *buffer;
    int64_t offset_bytes;
    port_dtype dtype;
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM];
    int64_t strides[PORT_MAX_NDIM]; /* elements, >= 0 */
} port_tensor;

typedef struct op_temp {
    port_tensor tensor;
    struct op_temp *next;
} op_temp;

typedef struct op_row op_row;

typedef struct op_call {
    const op_row *row;
    const char *name; /* "aten.add_.Tensor" */
    bool in_place;
    int32_t num_args;
    port_arg args[OP_MAX_ARGS]; /* in the signature's order, defaults filled in */
    port_tensor *const *values; /* by value number; NULL: not there (yet) */
    int64_t num_values;
    const port_run_options *options;
    op_temp *temps;
    port_tensor *out; /* hold references to their buffers */
    size_t num_out, capacity_out;
    bool kernel_ran, variant_ran;
    bool wide; /* its first output was recorded as F64: see default_dtype */
    const port_tensor *target; /* where an op may make its result (tensor_for_result); or NULL */
    const port_tensor *written; /* whose memory the result goes into: of an op in place, or with out=; or NULL */
    port_view rounded[3]; /* operands of the kernel that is being launched, where the options round them */
    port_error *err;
} op_call;

/* How an op's output dtype follows from its inputs' common dtype. */
typedef enum op_mode {
    MODE_SAME = 0,   /* the common dtype */
    MODE_FLOAT,      /* integers become F32 */
    MODE_COMPARE,    /* computed in the common dtype, BOOL comes out */
    MODE_INTEGRAL,   /* refuses floating dtypes */
    MODE_KEEP        /* integers pass through unchanged (floor of an integer) */
} op_mode;

struct op_row {
    const char *name;      /* "add.Tensor"; without a dot the default overload */
    const char *signature; /* see args.c */
    port_status (*run)(op_call *call);
    const char *kernel; /* for the generic handlers */
    op_mode mode;
    int32_t flags;
};
#define OP_IN_PLACE 1 /* aten.<op>_ exists: the result is copied into the first argument */
#define OP_SWAP 2     /* operands change places (rsub) */
#define OP_NO_BOOL 4  /* torch refuses BOOL */
#define OP_CHANGES 16 /* changes arguments besides its results (running statistics): not reordered with what reads them */
#define OP_OPAQUE 32  /* its last result is a library's workspace, whose size and content say nothing: neither checked nor kept */
#define OP_WRITES 8   /* the row itself is an in-place form whose overload has another name than its functional one */

/* Families, each ended by a row whose name is NULL. */
extern const op_row op_view_rows[], op_pointwise_rows[], op_create_rows[], op_move_rows[], op_reduce_rows[], op_matmul_rows[],
    op_index_rows[], op_norm_rows[], op_conv_rows[], op_scatter_rows[], op_sort_rows[], op_image_rows[], op_activation_rows[], op_data_rows[],
    op_special_rows[], op_composed_rows[], op_scan_rows[], op_unique_rows[],
    op_sample_rows[], op_grid_rows[], op_bag_rows[], op_batch_rows[], op_copy_rows[], op_rnn_rows[], op_window_rows[], op_train_rows[], op_rearrange_rows[], op_complex_rows[], op_fused_rows[], op_linalg_rows[], op_fft_rows[], op_loss_rows[], op_line_rows[], op_rare_rows[], op_function_rows[], op_triple_rows[];

/* ---- registry.c */
/* The row of "aten.<op>.<overload>", or NULL. *in_place: it is the in-place form, or one that writes into out= arguments. */
const op_row *op_find(const char *name, bool *in_place);
/* Whether an overload writes its results into out= arguments: all that its row's signature does not name, in order. */
bool op_writes_out(const char *name);

/* ---- args.c */
port_status bind_args(op_call *call, const port_arg *args, size_t num_args, const port_named_arg *named, size_t num_named);
/* The next argument's name in a row's signature; false at its end. */
bool signature_next_name(const char **cursor, char *name, size_t name_bytes);
int64_t eval_int(const op_call *call, const port_arg *arg);
port_scalar eval_scalar(const op_call *call, const port_arg *arg);
bool arg_given(const op_call *call, int32_t idx);
const port_tensor *arg_tensor(const op_call *call, int32_t idx); /* NULL: None */
const port_tensor *item_tensor(const op_call *call, int32_t idx, int64_t item);
int64_t arg_int(const op_call *call, int32_t idx);
int64_t arg_len(const op_call *call, int32_t idx); /* of a list; 1 for a single int in its place */
int64_t arg_int_at(const op_call *call, int32_t idx, int64_t item); /* INT64_MIN if the list is shorter */
bool arg_bool(const op_call *call, int32_t idx);
double arg_double(const op_call *call, int32_t idx, double if_none);
port_scalar arg_scalar(const op_call *call, int32_t idx);
port_dtype arg_dtype(const op_call *call, int32_t idx, port_dtype if_none);
const char *arg_text(const op_call *call, int32_t idx, const char *if_none);
/* Wraps a negative dimension; VALUE if it is out of range. A scalar counts as one dimension. */
port_status wrap_dim(const op_call *call, int64_t dim, int32_t ndim, int32_t *out);

/* ---- tensor.c */
/* lead_bytes < 64: where the data begins after a multiple of 64. */
port_status buffer_new(uint64_t size_bytes, uint64_t lead_bytes, bool zeroed, port_buffer **buffer, port_error *err);
void buffer_release(port_buffer *buffer);
port_status buffer_make_writable(port_buffer *buffer, port_error *err);
port_view tensor_view(const port_tensor *tensor);
int64_t tensor_elems(const port_tensor *tensor);
bool tensor_is_contiguous(const port_tensor *tensor);
bool tensor_is_dense(const port_tensor *tensor); /* torch's non-overlapping and dense */
bool tensor_in_bounds(const port_tensor *tensor);
/* Bytes from the first element to the end of the last. False if a stride is negative, nothing is there, or it overflows. */
bool layout_extent(port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides, uint64_t *extent_bytes);
/* True if memory with gaps is worth its price against a row-major copy. */
bool layout_is_affordable(uint64_t extent_bytes, uint64_t dense_bytes);
void dense_strides(int32_t ndim, const int64_t *shape, int64_t *strides); /* row-major, as torch counts empty dimensions */
void preserve_strides(const port_tensor *like, int64_t *strides);         /* memory_format=preserve */
/* A new tensor of this call, row-major if strides is NULL. Memory is not initialised. */
port_status tensor_new(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides,
                       port_tensor **out);
/* The call's target if it is of this dtype, shape and layout, else a new one: for the tensor that will be the result as it is. */
port_status tensor_for_result(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int64_t *strides,
                              port_tensor **out);
/* A second tensor of this call on the same memory, for a handler to change its shape. */
port_status tensor_alias(op_call *call, const port_tensor *tensor, port_tensor **out);
/* The same of another shape with as many elements; the tensor must be contiguous. */
port_status tensor_reshaped(op_call *call, const port_tensor *tensor, int32_t ndim, const int64_t *shape, port_tensor **out);
port_status emit(op_call *call, const port_tensor *tensor);
/* Of a tensor's or a view's shape and strides. */
void swap_dims(int64_t *shape, int64_t *strides, int32_t a, int32_t b);
/* Same dtype and shape; to does not overlap itself or from. On the threads of the call's profile; without a call on one. */
void copy_view(const op_call *call, const port_view *to, const port_view *from);
/* Row-major copy, or the tensor itself if it is that already. */
port_status tensor_contiguous(op_call *call, const port_tensor *tensor, const port_tensor **out);
/* Of another dtype, same shape, strides preserved; or the tensor itself. */
port_status tensor_cast(op_call *call, const port_tensor *tensor, port_dtype dtype, const port_tensor **out);
port_status tensor_fill(op_call *call, const port_tensor *tensor, port_scalar value);
port_status scalar_to_tensor(op_call *call, port_scalar value, port_dtype dtype, const port_tensor **out);
/* view with stride 0 where the tensor is to be repeated; the shapes must be known to fit. */
port_view view_broadcast(const port_tensor *tensor, int32_t ndim, const int64_t *shape);
const char *shape_text(int32_t ndim, const int64_t *shape, char *text, size_t text_bytes);
port_status fail_unsupported(op_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
port_status fail_op(op_call *call, port_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- operands.c */
/* Puts rounded copies, tensors of this call, in the place of a product's factors. Does nothing for other kernels. */
port_status round_operands(op_call *call, const char *kernel, const port_view **in);

/* ---- views.c */
/* torch's rule for viewing strided memory in another shape; false if that needs a copy. */
bool view_strides(const port_tensor *old, int32_t ndim, const int64_t *shape, int64_t *strides);

/* ---- formats.c */
bool tensor_suggests_channels_last(const port_tensor *tensor); /* of 4 or 5 dimensions; torch's suggest_memory_format */
void format_strides(int32_t ndim, const int64_t *shape, bool channels_last, int64_t *strides);
/* Strides of a copy of `like` in a port_memory_format; SHAPE if channels last wants other dimensions. */
port_status strides_of_format(op_call *call, const port_tensor *like, int64_t format, int64_t *strides);
/* The tensor itself if it is dense in that format, else a copy. */
port_status tensor_in_format(op_call *call, const port_tensor *tensor, bool channels_last, const port_tensor **out);

/* ---- promote.c */
bool dtype_is_float(port_dtype dtype);
bool dtype_is_integral(port_dtype dtype); /* without BOOL */
/* PORT_NUM_DTYPES if torch has no common dtype. */
port_dtype promote_dtypes(port_dtype a, port_dtype b);

/* What numbers and integers become where an op makes floats of them: torch's default dtype. A program in float64 (a golden run, or a
 * model run under set_default_dtype) says so by what it recorded; only ops that no floating tensor goes into may ask. */
port_dtype default_dtype(const op_call *call);

typedef struct op_operand {
    const port_tensor *tensor; /* NULL: the scalar */
    port_scalar scalar;
} op_operand;

/* ATen's result_type over tensors with dimensions, tensors without, and Python scalars. */
port_dtype result_type(const op_operand *operands, int32_t num_operands);
/* Broadcast shape and the strides that TensorIterator gives a fresh output. */
typedef struct op_plan {
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
} op_plan;
port_status plan_pointwise(op_call *call, const op_operand *operands, int32_t num_operands, op_plan *plan);

/* ---- pointwise_ops.c: handlers of rows whose kernel is a function of the elements of one or two operands */
port_status run_unary(op_call *call);
port_status run_binary(op_call *call);
port_status run_activation(op_call *call);
/* Runs a kernel over operands that are brought to `dtype` and the plan's shape; the result is cast to out_dtype. */
port_status run_planned(op_call *call, const char *kernel, const op_operand *operands, int32_t num_operands, const op_plan *plan, port_dtype dtype,
                        port_dtype out_dtype, bool compares, const void *params);

/* ---- sort_ops.c */
/* x with dimension d moved to the end, as dense rows. */
port_status tensor_as_rows(op_call *call, const port_tensor *x, int32_t d, port_tensor **rows);
/* Emits rows (.., k) as a tensor of x's shape with size k at dimension d; row-major, or with x's strides. */
port_status emit_rows(op_call *call, const port_tensor *rows, const port_tensor *x, int32_t d, bool like_x);

/* ---- matmul_ops.c */
/* The shape of a stack of matrices `of`, over the batch dimensions that both broadcast to; false if they do not fit. */
bool stack_shape(const port_tensor *of, const port_tensor *other, int32_t *ndim, int64_t *shape, int64_t *count);
/* The number by which a product of so many terms multiplies its addend: of none, rounded to the dtype. */
double factor_of_addend(port_dtype dtype, int64_t terms, double beta);
/* A new stack of matrices of that shape with the tensor's content, column-major if `columns`, and the same as one dimension
 * of `count` matrices. */
port_status copy_stack(op_call *call, const port_tensor *t, bool columns, int32_t ndim, const int64_t *shape, int64_t count,
                       port_tensor **whole, port_tensor **stack);

/* ---- activation_ops.c */
port_status run_complex_binary(op_call *call); /* add, sub, mul, div of C64 with C64, real tensors and numbers */

/* ---- complex_ops.c */
port_status run_complex_unary(op_call *call);
/* x as F32 with a last dimension of 2. */
port_status tensor_as_pairs(op_call *call, const port_tensor *x, port_tensor **out);
/* From or to C64, not both. */
port_status tensor_cast_complex(op_call *call, const port_tensor *tensor, port_dtype dtype, const port_tensor **out);

/* ---- launch.c */
bool kernel_exists(const op_call *call, const char *kernel, port_dtype dtype);
/* Finds the kernel row, checks, gives scratch, runs. in[i] may be NULL. */
port_status launch(op_call *call, const char *kernel, port_dtype dtype, const port_view *const *in, int32_t num_in,
                   const port_view *const *out, int32_t num_out, const void *params);
/* The same for tensors as they are. */
port_status launch_tensors(op_call *call, const char *kernel, port_dtype dtype, const port_tensor *const *in, int32_t num_in,
                           const port_tensor *const *out, int32_t num_out, const void *params);

/* ---- own_gemm.c
 * The row to run in the place of gemm's for F32: that of own loops where they were asked and have the library's bits, else `row`. */
const port_kernel_row *own_gemm_row(const port_kernel_row *row, const port_kernel_call *call);

/* ---- call.c */
/* Binds, runs (call->row, or the row of call->name if that is NULL), and for an in-place op copies the result into the first argument. On success call->out is filled; the
 * caller gives it back with op_call_end, also after a failure. */
port_status op_call_run(op_call *call, const port_arg *args, size_t num_args, const port_named_arg *named, size_t num_named);
void op_call_end(op_call *call);
port_status options_check(const port_run_options *options, port_error *err);
/* Makes a tensor of a fed view: borrowed if its elements are aligned and its strides >= 0, else a copy. The copy keeps the
 * strides, which decide the bits of products, and is row-major where they are negative or reach too far. */
port_status tensor_from_view(const port_view *view, port_tensor *tensor, port_error *err);
/* A row-major result, or, with keep_strides, one as dense as the tensor. Takes the tensor's memory where nobody else holds it (the tensor
 * then may only be released), else copies. */
port_status result_from_tensor(port_tensor *tensor, bool keep_strides, port_result *result, port_error *err);

#endif /* PORT_EXEC_H */
