/* data_ops.c -- ops that move elements about, and those whose result's size follows from values: nonzero, repeat_interleave, roll,
 * flip, windows (im2col), paddings that reflect or replicate, and small things made of numbers (eye). */
#include "compose.h"
#include "floats.h"
#include "numbers.h"

#include <math.h>

/* ------------------------------------------------------------------ sizes that follow from values */

static port_status
run_nonzero(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    port_tensor *out;
    port_status status = tensor_cast(call, x, PORT_BOOL, &dense);
    if (status != PORT_OK || (status = tensor_contiguous(call, dense, &dense)) != PORT_OK) {
        return status;
    }
    const char *bits = tensor_view(dense).data;
    int64_t n = tensor_elems(dense), count = 0;
    for (int64_t i = 0; i < n; i++) {
        count += bits[i] != 0;
    }
    /* torch makes it (ndim, count) and transposes. */
    int64_t shape[2] = {count, x->ndim}, strides[2] = {1, count > 0 ? count : 1};
    if ((status = tensor_new(call, PORT_I64, 2, shape, strides, &out)) != PORT_OK) {
        return status;
    }
    int64_t *to = (int64_t *)tensor_view(out).data;
    for (int64_t i = 0; i < n; i++) {
        if (bits[i] != 0) {
            int64_t rest = i;
            for (int32_t d = x->ndim - 1; d >= 0; d--) {
                to[d * count] = rest % x->shape[d];
                rest /= x->shape[d];
            }
            to++;
        }
    }
    return emit(call, out);
}

/* repeat_interleave.Tensor(repeats): i repeated repeats[i] times. */
static port_status
run_repeat_interleave(op_call *call)
{
    const port_tensor *repeats = arg_tensor(call, 0);
    port_dtype dtype = repeats->dtype;
    port_tensor *out;
    const port_tensor *result;
    int64_t total = 0;
    if (repeats->ndim != 1 || (dtype != PORT_I64 && dtype != PORT_I32)) {
        return fail_op(call, PORT_E_VALUE, "repeats must be integers of one dimension");
    }
    port_status status = tensor_cast(call, repeats, PORT_I64, &repeats);
    if (status != PORT_OK || (status = tensor_contiguous(call, repeats, &repeats)) != PORT_OK) {
        return status;
    }
    const int64_t *times = (const int64_t *)tensor_view(repeats).data;
    for (int64_t i = 0; i < repeats->shape[0]; i++) {
        if (times[i] < 0 || __builtin_add_overflow(total, times[i], &total)) {
            return fail_op(call, PORT_E_VALUE, "repeats[%lld] is %lld", (long long)i, (long long)times[i]);
        }
    }
    if ((status = tensor_new(call, PORT_I64, 1, &total, NULL, &out)) != PORT_OK) {
        return status;
    }
    int64_t *to = (int64_t *)tensor_view(out).data;
    for (int64_t i = 0; i < repeats->shape[0]; i++) {
        for (int64_t k = 0; k < times[i]; k++) {
            *to++ = i;
        }
    }
    status = tensor_cast(call, out, dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* masked_select(self, mask): what stands where the mask is true, in row-major order. */
static port_status
run_masked_select(op_call *call)
{
    op_operand both[2] = {{.tensor = arg_tensor(call, 0)}, {.tensor = arg_tensor(call, 1)}};
    op_plan plan;
    port_tensor *x, *mask, *out;
    port_dtype dtype = both[0].tensor->dtype;
    size_t size = port_dtype_size(dtype);
    if (both[1].tensor->dtype != PORT_BOOL) {
        return fail_op(call, PORT_E_DTYPE, "the mask must be BOOL, got %s", port_dtype_name(both[1].tensor->dtype));
    }
    port_status status = plan_pointwise(call, both, 2, &plan);
    if (status != PORT_OK || (status = tensor_new(call, dtype, plan.ndim, plan.shape, NULL, &x)) != PORT_OK ||
        (status = tensor_new(call, PORT_BOOL, plan.ndim, plan.shape, NULL, &mask)) != PORT_OK) {
        return status;
    }
    port_view x_to = tensor_view(x), x_from = view_broadcast(both[0].tensor, plan.ndim, plan.shape);
    port_view mask_to = tensor_view(mask), mask_from = view_broadcast(both[1].tensor, plan.ndim, plan.shape);
    copy_view(call, &x_to, &x_from);
    copy_view(call, &mask_to, &mask_from);
    const char *bits = mask_to.data;
    int64_t n = tensor_elems(x), count = 0;
    for (int64_t i = 0; i < n; i++) {
        count += bits[i] != 0;
    }
    if ((status = tensor_new(call, dtype, 1, &count, NULL, &out)) != PORT_OK) {
        return status;
    }
    char *to = tensor_view(out).data;
    for (int64_t i = 0; i < n; i++) {
        if (bits[i] != 0) {
            memcpy(to, (const char *)x_to.data + (size_t)i * size, size);
            to += size;
        }
    }
    return emit(call, out);
}

/* ------------------------------------------------------------------ places from places */

/* Where in dimension d of x the result's element at `place` of that dimension comes from. */
typedef int64_t (*place_map)(const op_call *call, const port_tensor *x, int32_t d, int64_t place);

typedef struct map_job {
    const port_tensor *x, *out;
    const int64_t *offsets[PORT_MAX_NDIM]; /* in x, in bytes, for each place of each dimension of out */
} map_job;

/* Rows of the result, by their number. */
static void
map_rows(const void *opaque, int64_t begin, int64_t end)
{
    const map_job *job = opaque;
    const port_tensor *out = job->out;
    int64_t size = (int64_t)port_dtype_size(out->dtype);
    int32_t last = out->ndim - 1;
    for (int64_t r = begin; r < end; r++) {
        const char *from = tensor_view(job->x).data;
        char *to = tensor_view(out).data;
        for (int64_t d = last - 1, rest = r; d >= 0; rest /= out->shape[d--]) {
            from += job->offsets[d][rest % out->shape[d]];
            to += rest % out->shape[d] * out->strides[d] * size;
        }
        const int64_t *offsets = job->offsets[last];
        for (int64_t j = 0; j < out->shape[last]; j++, to += out->strides[last] * size) {
            if (size == 4) {
                memcpy(to, from + offsets[j], 4);
            } else {
                memcpy(to, from + offsets[j], (size_t)size);
            }
        }
    }
}

/* x has dimensions. */
static port_status
emit_mapped(op_call *call, const port_tensor *x, const int64_t *shape, const int64_t *strides, place_map map)
{
    port_tensor *out;
    int64_t *offsets, places = 0, size = (int64_t)port_dtype_size(x->dtype);
    port_status status = tensor_new(call, x->dtype, x->ndim, shape, strides, &out);
    if (status != PORT_OK || tensor_elems(out) == 0) {
        return status == PORT_OK ? emit(call, out) : status;
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        places += shape[d];
    }
    if ((status = new_integers(call, places, &offsets)) != PORT_OK) {
        return status;
    }
    map_job job = {.x = x, .out = out};
    for (int32_t d = 0; d < x->ndim; d++) {
        for (int64_t place = 0; place < shape[d]; place++) {
            offsets[place] = map(call, x, d, place) * x->strides[d] * size;
        }
        job.offsets[d] = offsets;
        offsets += shape[d];
    }
    int64_t cols = shape[x->ndim - 1];
    port_deal(tensor_elems(out) / cols, cols, call->options->profile.num_threads, map_rows, &job);
    return emit(call, out);
}

/* roll(self, shifts, dims): dims given. */
static int64_t
rolled(const op_call *call, const port_tensor *x, int32_t d, int64_t place)
{
    int64_t size = x->shape[d];
    for (int64_t k = 0; k < arg_len(call, 2); k++) {
        int64_t dim = arg_int_at(call, 2, k);
        if (dim + (dim < 0 ? x->ndim : 0) == d) {
            int64_t to = (place - arg_int_at(call, 1, k) % size) % size;
            place = to < 0 ? to + size : to;
        }
    }
    return place;
}

static port_status
need_dims(op_call *call, int32_t idx, const port_tensor *x)
{
    for (int64_t k = 0; k < arg_len(call, idx); k++) {
        int32_t d;
        port_status status = wrap_dim(call, arg_int_at(call, idx, k), x->ndim, &d);
        if (status != PORT_OK) {
            return status;
        }
    }
    return x->ndim > 0 ? PORT_OK : fail_unsupported(call, "a tensor without dimensions");
}

static port_status
run_roll(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (arg_len(call, 1) != arg_len(call, 2)) {
        if (arg_len(call, 2) != 0 || arg_len(call, 1) != 1) {
            return fail_op(call, PORT_E_VALUE, "%lld shifts for %lld dimensions", (long long)arg_len(call, 1), (long long)arg_len(call, 2));
        }
        port_arg shape[PORT_MAX_NDIM];
        for (int32_t d = 0; d < x->ndim; d++) {
            shape[d] = (port_arg){.kind = PORT_ARG_INT, .i = x->shape[d]};
        }
        const port_named_arg extra[1] = {{"shape", {.kind = PORT_ARG_LIST, .items = shape, .num_items = x->ndim}}};
        return run_formula(call, "y = reshape(self, [-1]); y = roll(y, shifts, [0]); y = view(y, shape) -> y", extra, 1);
    }
    port_status status = need_dims(call, 2, x);
    return status == PORT_OK ? emit_mapped(call, x, x->shape, NULL, rolled) : status;
}

static int64_t
flipped(const op_call *call, const port_tensor *x, int32_t d, int64_t place)
{
    for (int64_t k = 0; k < arg_len(call, 1); k++) {
        int64_t dim = arg_int_at(call, 1, k);
        if (dim + (dim < 0 ? x->ndim : 0) == d) {
            return x->shape[d] - 1 - place;
        }
    }
    return place;
}

static port_status
run_flip(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t strides[PORT_MAX_NDIM];
    preserve_strides(x, strides);
    port_status status = need_dims(call, 1, x);
    return status == PORT_OK ? emit_mapped(call, x, x->shape, strides, flipped) : status;
}

/* Padding of a dimension of the last ones, innermost first: (left, right, top, bottom, ...). */
static int64_t
pad_before(const op_call *call, const port_tensor *x, int32_t d)
{
    return d < x->ndim - (int32_t)(arg_len(call, 1) / 2) ? 0 : arg_int_at(call, 1, 2 * (x->ndim - 1 - d));
}

static int64_t
reflected(const op_call *call, const port_tensor *x, int32_t d, int64_t place)
{
    int64_t last = x->shape[d] - 1, at = place - pad_before(call, x, d);
    at = at < 0 ? -at : at;
    return at > last ? 2 * last - at : at;
}

static int64_t
replicated(const op_call *call, const port_tensor *x, int32_t d, int64_t place)
{
    int64_t last = x->shape[d] - 1, at = place - pad_before(call, x, d);
    return at < 0 ? 0 : (at > last ? last : at);
}

static port_status
run_padding(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool reflects = call->row->name[2] == 'f';
    int32_t padded = (int32_t)(arg_len(call, 1) / 2);
    int64_t shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    if (padded > x->ndim || x->ndim < 1 || arg_len(call, 1) % 2 != 0) {
        return fail_op(call, PORT_E_VALUE, "%lld paddings for %d dimensions", (long long)arg_len(call, 1), x->ndim);
    }
    memcpy(shape, x->shape, sizeof shape);
    for (int32_t k = 0; k < padded; k++) {
        int32_t d = x->ndim - 1 - k;
        int64_t left = arg_int_at(call, 1, 2 * k), right = arg_int_at(call, 1, 2 * k + 1), most = reflects ? x->shape[d] - 1 : INT32_MAX;
        bool fits = left >= -x->shape[d] && right >= -x->shape[d] && left <= most && right <= most && x->shape[d] > 0;
        if (!fits || x->shape[d] + left + right < 1) {
            return fail_op(call, PORT_E_VALUE, "a padding of %lld and %lld for a size of %lld", (long long)left, (long long)right,
                           (long long)x->shape[d]);
        }
        shape[d] += left + right;
    }
    format_strides(x->ndim, shape, tensor_suggests_channels_last(x), strides);
    return emit_mapped(call, x, shape, strides, reflects ? reflected : replicated);
}

/* ------------------------------------------------------------------ windows */

/* im2col(self (N, C, H, W), kernel, dilation, padding, stride) -> (N, C * kernel, positions). */
static port_status
run_im2col(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    int64_t kernel[2], dilation[2], padding[2], stride[2], out_size[2];
    bool batched = x->ndim == 4;
    if (x->ndim != 3 && x->ndim != 4) {
        return fail_op(call, PORT_E_SHAPE, "expected 3 or 4 dimensions, got %d", x->ndim);
    }
    int64_t N = batched ? x->shape[0] : 1, C = x->shape[x->ndim - 3];
    for (int32_t k = 0; k < 2; k++) {
        kernel[k] = arg_int_at(call, 1, arg_len(call, 1) > 1 ? k : 0);
        dilation[k] = arg_int_at(call, 2, arg_len(call, 2) > 1 ? k : 0);
        padding[k] = arg_int_at(call, 3, arg_len(call, 3) > 1 ? k : 0);
        stride[k] = arg_int_at(call, 4, arg_len(call, 4) > 1 ? k : 0);
        int64_t size = x->shape[x->ndim - 2 + k];
        if (kernel[k] < 1 || dilation[k] < 1 || padding[k] < 0 || stride[k] < 1 || kernel[k] > INT32_MAX || dilation[k] > INT32_MAX ||
            padding[k] > INT32_MAX || size + 2 * padding[k] < dilation[k] * (kernel[k] - 1) + 1) {
            return fail_op(call, PORT_E_VALUE, "a window that does not fit");
        }
        out_size[k] = (size + 2 * padding[k] - dilation[k] * (kernel[k] - 1) - 1) / stride[k] + 1;
    }
    int64_t taps = kernel[0] * kernel[1], shape[3] = {N}, places;
    if (__builtin_mul_overflow(C, taps, &shape[1]) || __builtin_mul_overflow(out_size[0], out_size[1], &places)) {
        return fail_op(call, PORT_E_SHAPE, "more windows than memory has");
    }
    shape[2] = places;
    int64_t H = x->shape[x->ndim - 2], W = x->shape[x->ndim - 1];
    size_t size = port_dtype_size(x->dtype);
    port_tensor *out;
    port_status status = tensor_contiguous(call, x, &dense);
    if (status != PORT_OK ||
        (status = tensor_new(call, x->dtype, batched ? 3 : 2, batched ? shape : shape + 1, NULL, &out)) != PORT_OK) {
        return status;
    }
    const char *read = tensor_view(dense).data;
    char *write = tensor_view(out).data;
    memset(write, 0, (size_t)tensor_elems(out) * size);
    for (int64_t i = 0; i < N * C * taps; i++) {
        int64_t tap = i % taps, plane = i / taps;
        for (int64_t p = 0; p < places; p++) {
            int64_t h = p / out_size[1] * stride[0] - padding[0] + tap / kernel[1] * dilation[0];
            int64_t w = p % out_size[1] * stride[1] - padding[1] + tap % kernel[1] * dilation[1];
            if (h >= 0 && h < H && w >= 0 && w < W) {
                memcpy(write + (size_t)(i * places + p) * size, read + (size_t)((plane * H + h) * W + w) * size, size);
            }
        }
    }
    return emit(call, out);
}

/* ------------------------------------------------------------------ made of numbers */

/* eye(n), eye.m(n, m). */
static port_status
run_eye(op_call *call)
{
    bool two = strcmp(call->row->name, "eye.m") == 0;
    int64_t shape[2] = {arg_int(call, 0), arg_int(call, two ? 1 : 0)};
    port_tensor *out, *line;
    port_status status = tensor_new(call, arg_dtype(call, two ? 2 : 1, default_dtype(call)), 2, shape, NULL, &out);
    if (status != PORT_OK || (status = tensor_alias(call, out, &line)) != PORT_OK) {
        return status;
    }
    memset(out->buffer->data, 0, (size_t)out->buffer->size_bytes);
    line->ndim = 1;
    line->shape[0] = shape[0] < shape[1] ? shape[0] : shape[1];
    line->strides[0] = shape[1] + 1;
    status = line->shape[0] > 0 ? tensor_fill(call, line, (port_scalar){PORT_SCALAR_INT, 1, 1.0}) : PORT_OK;
    return status == PORT_OK ? emit(call, out) : status;
}

/* True if every element of a BOOL tensor is true: the program's next op reads it as a Python bool. */
static port_status
run_is_all_true(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *dense;
    bool any = strcmp(call->row->name, "_is_any_true") == 0;
    port_tensor *out;
    if (x->dtype != PORT_BOOL) {
        return fail_op(call, PORT_E_DTYPE, "expected BOOL, got %s", port_dtype_name(x->dtype));
    }
    port_status status = tensor_contiguous(call, x, &dense);
    if (status != PORT_OK || (status = tensor_new(call, PORT_BOOL, 0, NULL, NULL, &out)) != PORT_OK) {
        return status;
    }
    const char *bits = tensor_view(dense).data;
    bool result = !any;
    for (int64_t i = 0, n = tensor_elems(dense); i < n && result != any; i++) {
        result = bits[i] != 0;
    }
    *(uint8_t *)tensor_view(out).data = result;
    return emit(call, out);
}

static int64_t
between(int64_t v, int64_t most)
{
    return v < 0 ? 0 : (v > most ? most : v);
}

/* tril_indices, triu_indices (row, col, offset): (2, count), row by row. */
static port_status
run_triangle_indices(op_call *call)
{
    int64_t rows = arg_int(call, 0), cols = arg_int(call, 1), offset = arg_int(call, 2);
    bool lower = strcmp(call->row->name, "tril_indices") == 0;
    offset = offset < -INT32_MAX ? -INT32_MAX : (offset > INT32_MAX ? INT32_MAX : offset); /* beyond every size */
    if (rows < 0 || cols < 0 || rows > INT32_MAX || cols > INT32_MAX) {
        return fail_op(call, PORT_E_VALUE, "%lld rows and %lld columns", (long long)rows, (long long)cols);
    }
    int64_t edge = offset + lower; /* in row r the columns before r + edge are lower: none of the first rows', all of the last rows' */
    int64_t first = between(-edge, rows), last = between(cols - edge, rows);
    int64_t below = (rows - last) * cols + (last - first) * (first + last - 1 + 2 * edge) / 2;
    int64_t shape[2] = {2, lower ? below : rows * cols - below}, k = 0;
    port_tensor *out;
    const port_tensor *result;
    port_status status = tensor_new(call, PORT_I64, 2, shape, NULL, &out);
    if (status != PORT_OK) {
        return status;
    }
    int64_t *to = (int64_t *)tensor_view(out).data, end = lower ? rows : last;
    for (int64_t r = lower ? first : 0; r < end && shape[1] > 0; r++) {
        int64_t cut = between(r + edge, cols);
        for (int64_t c = lower ? 0 : cut; c < (lower ? cut : cols); c++, k++) {
            to[k] = r;
            to[shape[1] + k] = c;
        }
    }
    status = tensor_cast(call, out, arg_dtype(call, 3, PORT_I64), &result);
    return status == PORT_OK ? emit(call, result) : status;
}

#define FACTORY ", *, D? dtype=None, y layout=None, v device=None, p pin_memory=None"

const op_row op_data_rows[] = {
    {"nonzero", "T self", run_nonzero, NULL, 0, 0},
    {"repeat_interleave.Tensor", "T repeats, *, I? output_size=None", run_repeat_interleave, NULL, 0, 0},
    {"masked_select", "T self, T mask", run_masked_select, NULL, 0, 0},
    {"roll", "T self, A shifts, A dims=[]", run_roll, NULL, 0, 0},
    {"flip", "T self, A dims", run_flip, NULL, 0, 0},
    {"reflection_pad1d", "T self, A padding", run_padding, NULL, 0, 0},
    {"reflection_pad2d", "T self, A padding", run_padding, NULL, 0, 0},
    {"reflection_pad3d", "T self, A padding", run_padding, NULL, 0, 0},
    {"replication_pad1d", "T self, A padding", run_padding, NULL, 0, 0},
    {"replication_pad2d", "T self, A padding", run_padding, NULL, 0, 0},
    {"replication_pad3d", "T self, A padding", run_padding, NULL, 0, 0},
    {"im2col", "T self, A kernel_size, A dilation, A padding, A stride", run_im2col, NULL, 0, 0},
    {"eye", "I n" FACTORY, run_eye, NULL, 0, 0},
    {"eye.m", "I n, I m" FACTORY, run_eye, NULL, 0, 0},
    {"_is_all_true", "T self", run_is_all_true, NULL, 0, 0},
    {"_is_any_true", "T self", run_is_all_true, NULL, 0, 0},
    {"tril_indices", "I row, I col, I offset=0" FACTORY, run_triangle_indices, NULL, 0, 0},
    {"triu_indices", "I row, I col, I offset=0" FACTORY, run_triangle_indices, NULL, 0, 0},
    {.name = NULL},
};
