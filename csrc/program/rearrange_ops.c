/* rearrange_ops.c -- elements that change places: pixel_shuffle, channel_shuffle, rot90, diagonals and blocks, reading
 * and writing by flat index, overlapping windows added up (col2im), maxima of adaptive windows and their way back
 * (max_unpool). */
#include "compose.h"

#include <math.h>

/* x as it would be with other sizes and strides over the same elements: a copy in the format that x suggests. */
static port_status
emit_restrided(op_call *call, const port_tensor *x, int32_t ndim, const int64_t *shape, const int64_t *strides,
               int32_t out_ndim, const int64_t *out_shape)
{
    port_tensor *made;
    port_status status = tensor_new(call, x->dtype, out_ndim, out_shape, NULL, &made);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(made), from = tensor_view(x);
    from.ndim = to.ndim = ndim;
    memcpy(from.shape, shape, (size_t)ndim * sizeof *shape);
    memcpy(from.strides, strides, (size_t)ndim * sizeof *strides);
    memcpy(to.shape, shape, (size_t)ndim * sizeof *shape);
    dense_strides(ndim, shape, to.strides);
    copy_view(call, &to, &from);
    const port_tensor *result = made;
    if (out_ndim == 4 && tensor_suggests_channels_last(x)) {
        status = tensor_in_format(call, made, true, &result);
    }
    return status == PORT_OK ? emit(call, result) : status;
}

/* pixel_shuffle(self, r): (.., C r r, H, W) to (.., C, H r, W r); pixel_unshuffle back. */
static port_status
run_pixel_shuffle(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t r = arg_int(call, 1), shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM], out[PORT_MAX_NDIM];
    bool back = strcmp(call->row->name, "pixel_unshuffle") == 0;
    int32_t lead = x->ndim - 3;
    if (lead < 0 || x->ndim + 2 > PORT_MAX_NDIM || r < 1 || r > 1 << 15 || x->shape[lead] > INT32_MAX ||
        (back ? x->shape[lead + 1] % r != 0 || x->shape[lead + 2] % r != 0 : x->shape[lead] % (r * r) != 0)) {
        return fail_op(call, PORT_E_SHAPE, "sizes that a factor of %lld does not divide", (long long)r);
    }
    if (back && tensor_elems(x) == 0) {
        return run_formula(call, "y = clone(self) -> y", NULL, 0); /* of its own shape: so the reference has it */
    }
    int64_t C = x->shape[lead], H = x->shape[lead + 1], W = x->shape[lead + 2];
    static const int64_t nothing[3] = {0};
    const int64_t *s = tensor_elems(x) > 0 ? x->strides + lead : nothing; /* those of an empty tensor may be anything */
    memcpy(shape, x->shape, sizeof shape);
    memcpy(strides, x->strides, sizeof strides);
    memcpy(out, x->shape, sizeof out);
    if (back) {
        int64_t sizes[5] = {C, r, r, H / r, W / r}, steps[5] = {s[0], s[1], s[2], s[1] * r, s[2] * r},
                to[3] = {C * r * r, H / r, W / r};
        memcpy(shape + lead, sizes, sizeof sizes);
        memcpy(strides + lead, steps, sizeof steps);
        memcpy(out + lead, to, sizeof to);
    } else {
        int64_t sizes[5] = {C / r / r, H, r, W, r}, steps[5] = {s[0] * r * r, s[1], s[0] * r, s[2], s[0]},
                to[3] = {C / r / r, H * r, W * r};
        memcpy(shape + lead, sizes, sizeof sizes);
        memcpy(strides + lead, steps, sizeof steps);
        memcpy(out + lead, to, sizeof to);
    }
    return emit_restrided(call, x, x->ndim + 2, shape, strides, x->ndim, out);
}

/* channel_shuffle(self, groups): (N, groups, C / groups, ..) with its two dimensions of channels changed over. */
static port_status
run_channel_shuffle(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t groups = arg_int(call, 1), shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    if (x->ndim < 3 || x->ndim == PORT_MAX_NDIM || groups < 1 || x->shape[1] % groups != 0) {
        return fail_op(call, PORT_E_SHAPE, "%lld groups of channels", (long long)groups);
    }
    shape[0] = x->shape[0];
    strides[0] = x->strides[0];
    shape[1] = x->shape[1] / groups;
    strides[1] = x->strides[1];
    shape[2] = groups;
    strides[2] = x->strides[1] * shape[1];
    memcpy(shape + 3, x->shape + 2, (size_t)(x->ndim - 2) * sizeof *shape);
    memcpy(strides + 3, x->strides + 2, (size_t)(x->ndim - 2) * sizeof *strides);
    return emit_restrided(call, x, x->ndim + 1, shape, strides, x->ndim, x->shape);
}

/* rot90(self, k, dims): flips and a transposition. */
static port_status
run_rot90(op_call *call)
{
    int64_t k = (arg_int(call, 1) % 4 + 4) % 4;
    int64_t given = arg_len(call, 2);
    if (given != 0 && given != 2) {
        return fail_op(call, PORT_E_VALUE, "expected 2 dimensions, got %lld", (long long)given);
    }
    const port_named_arg extra[2] = {{"d0", {.kind = PORT_ARG_INT, .i = given ? arg_int_at(call, 2, 0) : 0}},
                                     {"d1", {.kind = PORT_ARG_INT, .i = given ? arg_int_at(call, 2, 1) : 1}}};
    static const char *const formulas[4] = {
        "y = clone(self) -> y", "y = flip(self, [d1]); y = transpose.int(y, d0, d1) -> y",
        "y = flip(self, [d0, d1]) -> y", "y = flip(self, [d0]); y = transpose.int(y, d0, d1) -> y"};
    return run_formula(call, formulas[k], extra, 2);
}

/* diag_embed(self, offset, dim1, dim2): zeros with the last dimension of self on a diagonal. */
static port_status
run_diag_embed(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t offset = arg_int(call, 1), away = offset < -INT32_MAX ? INT64_MAX : (offset < 0 ? -offset : offset);
    int32_t ndim = x->ndim + 1, d1, d2;
    port_status status = wrap_dim(call, arg_int(call, 2), ndim, &d1);
    if (status != PORT_OK || (status = wrap_dim(call, arg_int(call, 3), ndim, &d2)) != PORT_OK) {
        return status;
    }
    if (x->ndim < 1 || ndim > PORT_MAX_NDIM || d1 == d2 || away > INT32_MAX) {
        return fail_op(call, PORT_E_VALUE, "dimensions %d and %d of %d", d1, d2, ndim);
    }
    int64_t size = x->shape[x->ndim - 1] + away, shape[PORT_MAX_NDIM];
    for (int32_t d = 0, from = 0; d < ndim; d++) {
        shape[d] = d == d1 || d == d2 ? size : x->shape[from++];
    }
    port_tensor *made;
    if ((status = tensor_new(call, x->dtype, ndim, shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    memset(tensor_view(made).data, 0, (size_t)made->buffer->size_bytes);
    port_view to = tensor_view(made), from = tensor_view(x);
    to.data = (char *)to.data +
              (offset < 0 ? away * made->strides[d1] : away * made->strides[d2]) * (int64_t)port_dtype_size(x->dtype);
    to.ndim = x->ndim;
    memcpy(to.shape, x->shape, sizeof to.shape);
    for (int32_t d = 0, k = 0; d < ndim; d++) {
        if (d != d1 && d != d2) {
            to.strides[k++] = made->strides[d];
        }
    }
    to.strides[x->ndim - 1] = made->strides[d1] + made->strides[d2];
    copy_view(call, &to, &from);
    return emit(call, made);
}

/* block_diag(tensors): matrices down the diagonal; fewer dimensions count as one row. */
static port_status
run_block_diag(op_call *call)
{
    int64_t shape[2] = {0, 0}, count = arg_len(call, 0);
    op_operand operands[64];
    if (count < 1 || count > 64) {
        return fail_unsupported(call, "%lld matrices", (long long)count);
    }
    for (int64_t k = 0; k < count; k++) {
        const port_tensor *t = item_tensor(call, 0, k);
        operands[k] = (op_operand){.tensor = t};
        if (t->ndim > 2) {
            return fail_op(call, PORT_E_SHAPE, "matrix %lld has %d dimensions", (long long)k, t->ndim);
        }
        shape[0] += t->ndim == 2 ? t->shape[0] : 1;
        shape[1] += t->ndim > 0 ? t->shape[t->ndim - 1] : 1;
    }
    port_dtype dtype = operands[0].tensor->dtype;
    for (int64_t k = 1; k < count; k++) {
        dtype = promote_dtypes(dtype, operands[k].tensor->dtype);
    }
    port_tensor *made;
    if (dtype >= PORT_NUM_DTYPES) {
        return fail_unsupported(call, "its operands have no common dtype");
    }
    port_status status = tensor_new(call, dtype, 2, shape, NULL, &made);
    if (status != PORT_OK) {
        return status;
    }
    memset(tensor_view(made).data, 0, (size_t)made->buffer->size_bytes);
    int64_t row = 0, col = 0;
    for (int64_t k = 0; k < count; k++) {
        const port_tensor *t = operands[k].tensor;
        if ((status = tensor_cast(call, t, dtype, &t)) != PORT_OK) {
            return status;
        }
        port_view from = tensor_view(t), to = tensor_view(made);
        for (; from.ndim < 2; from.ndim++) {
            from.shape[1] = from.ndim == 1 ? from.shape[0] : 1;
            from.strides[1] = from.ndim == 1 ? from.strides[0] : 1;
            from.shape[0] = 1;
            from.strides[0] = 1;
        }
        to.data = (char *)to.data + (row * shape[1] + col) * (int64_t)port_dtype_size(dtype);
        memcpy(to.shape, from.shape, sizeof to.shape);
        copy_view(call, &to, &from);
        row += from.shape[0];
        col += from.shape[1];
    }
    return emit(call, made);
}

/* Flat places as I64, each inside n; negative ones count from the end. */
static port_status
flat_places(op_call *call, const port_tensor *index, int64_t n, const int64_t **places)
{
    port_tensor *own;
    if (index->dtype != PORT_I64) {
        return fail_op(call, PORT_E_DTYPE, "an index must be I64, got %s", port_dtype_name(index->dtype));
    }
    port_status status = tensor_new(call, PORT_I64, index->ndim, index->shape, NULL, &own);
    if (status != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(own), from = tensor_view(index);
    copy_view(call, &to, &from);
    int64_t *at = (int64_t *)to.data;
    for (int64_t i = 0, count = tensor_elems(own); i < count; i++) {
        if (at[i] < -n || at[i] >= n) {
            return fail_op(call, PORT_E_VALUE, "index %lld is %lld, there are %lld elements", (long long)i,
                           (long long)at[i], (long long)n);
        }
        at[i] += at[i] < 0 ? n : 0;
    }
    *places = at;
    return PORT_OK;
}

/* take(self, index): elements by their place in row-major order. */
static port_status
run_take(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *index = arg_tensor(call, 1);
    port_tensor *made;
    port_status status = index->dtype != PORT_I64
                             ? fail_op(call, PORT_E_DTYPE, "an index must be I64, got %s", port_dtype_name(index->dtype))
                             : tensor_contiguous(call, x, &x);
    if (status != PORT_OK || (status = tensor_new(call, x->dtype, index->ndim, index->shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    port_view flat = tensor_view(x), at = tensor_view(index), y = tensor_view(made);
    flat.ndim = 1;
    flat.shape[0] = tensor_elems(x);
    flat.strides[0] = 1;
    port_index_params params = {.num_indices = 1};
    status = launch(call, "index", x->dtype, (const port_view *const[]){&flat, &at}, 2, (const port_view *const[]){&y}, 1, &params);
    return status == PORT_OK ? emit(call, made) : status;
}

/* put(self, index, source, accumulate): by the scatter kernel over the flat tensor. */
static port_status
run_put(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *index = arg_tensor(call, 1), *source = arg_tensor(call, 2);
    if (source->dtype != x->dtype || tensor_elems(source) != tensor_elems(index)) {
        return fail_op(call, PORT_E_SHAPE, "as many sources as indices, of %s", port_dtype_name(x->dtype));
    }
    int64_t n = tensor_elems(x), count = tensor_elems(index);
    const int64_t *places;
    port_status status = flat_places(call, index, n, &places);
    if (status != PORT_OK) {
        return status;
    }
    port_arg shape[PORT_MAX_NDIM];
    for (int32_t d = 0; d < x->ndim; d++) {
        shape[d] = (port_arg){.kind = PORT_ARG_INT, .i = x->shape[d]};
    }
    const port_named_arg extra[2] = {{"shape", {.kind = PORT_ARG_LIST, .items = shape, .num_items = x->ndim}},
                                     {"n", {.kind = PORT_ARG_INT, .i = count}}};
    return run_formula(call,
                       "x = clone(self); x = contiguous(x); x = view(x, [-1]); c = lt.Scalar(index, 0); m = "
                       "_shape_as_tensor(x); i = add.Tensor(index, m); "
                       "i = where.self(c, i, index); i = reshape(i, [n]); s = reshape(source, [n]); ?accumulate: x = "
                       "index_add(x, 0, i, s); "
                       "!accumulate: x = index_copy(x, 0, i, s); y = view(x, shape) -> y",
                       extra, 2);
}

/* _shape_as_tensor(self): the sizes. */
static port_status
run_shape(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    port_tensor *made;
    int64_t ndim = x->ndim;
    port_status status = tensor_new(call, PORT_I64, 1, &ndim, NULL, &made);
    if (status == PORT_OK && ndim > 0) {
        memcpy(tensor_view(made).data, x->shape, (size_t)ndim * sizeof x->shape[0]);
    }
    return status == PORT_OK ? emit(call, made) : status;
}

/* ------------------------------------------------------------------ windows */

/* Reads two positive numbers, or one for both. */
static port_status
read_two(op_call *call, int32_t idx, int64_t least, int64_t *to)
{
    for (int32_t k = 0; k < 2; k++) {
        int64_t len = arg_len(call, idx);
        to[k] = len >= 1 ? arg_int_at(call, idx, len > 1 ? k : 0) : -1;
        if (to[k] < least || to[k] > INT32_MAX) {
            return fail_op(call, PORT_E_VALUE, "a size, window, stride or padding of %lld", (long long)to[k]);
        }
    }
    return PORT_OK;
}

/* col2im(self, output_size, kernel_size, dilation, padding, stride): (N, C k k, L) to (N, C, H, W); windows add up in
 * order. */
static port_status
run_col2im(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    int64_t size[2], kernel[2], dilation[2], padding[2], stride[2], steps[2];
    bool batched = x->ndim == 3;
    port_tensor *made;
    port_status status;
    if ((status = read_two(call, 1, 1, size)) != PORT_OK || (status = read_two(call, 2, 1, kernel)) != PORT_OK ||
        (status = read_two(call, 3, 1, dilation)) != PORT_OK || (status = read_two(call, 4, 0, padding)) != PORT_OK ||
        (status = read_two(call, 5, 1, stride)) != PORT_OK) {
        return status;
    }
    for (int32_t k = 0; k < 2; k++) {
        int64_t room = size[k] + 2 * padding[k] - dilation[k] * (kernel[k] - 1) - 1;
        steps[k] = room >= 0 ? room / stride[k] + 1 : 0;
    }
    int64_t taps = kernel[0] * kernel[1], places;
    if (__builtin_mul_overflow(steps[0], steps[1], &places) || (x->ndim != 2 && !batched) ||
        !dtype_is_float(x->dtype) || x->shape[x->ndim - 1] != places || x->shape[x->ndim - 2] % taps != 0) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C x %lld, %lld) of floats", (long long)taps,
                       (long long)places);
    }
    int64_t N = batched ? x->shape[0] : 1, C = x->shape[x->ndim - 2] / taps, shape[4] = {N, C, size[0], size[1]};
    port_dtype inner = x->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    const port_tensor *dense;
    if ((status = tensor_cast(call, x, inner, &dense)) != PORT_OK ||
        (status = tensor_contiguous(call, dense, &dense)) != PORT_OK ||
        (status = tensor_new(call, inner, batched ? 4 : 3, batched ? shape : shape + 1, NULL, &made)) != PORT_OK) {
        return status;
    }
    void *to = tensor_view(made).data;
    const void *from = tensor_view(dense).data;
    memset(to, 0, (size_t)made->buffer->size_bytes);
    for (int64_t i = 0; i < N * C * taps; i++) {
        int64_t tap = i % taps, plane = i / taps * size[0] * size[1];
        for (int64_t p = 0; p < places; p++) {
            int64_t h = p / steps[1] * stride[0] - padding[0] + tap / kernel[1] * dilation[0];
            int64_t w = p % steps[1] * stride[1] - padding[1] + tap % kernel[1] * dilation[1];
            if (h < 0 || h >= size[0] || w < 0 || w >= size[1]) {
                continue;
            }
            if (inner == PORT_F32) {
                ((float *)to)[plane + h * size[1] + w] += ((const float *)from)[i * places + p];
            } else {
                ((double *)to)[plane + h * size[1] + w] += ((const double *)from)[i * places + p];
            }
        }
    }
    status = tensor_cast(call, made, x->dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* unfold_backward(grad_in, input_sizes, dim, size, step): windows of one dimension, the last of grad_in, added up
 * where they overlap. */
static port_status
run_unfold_backward(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *result;
    int64_t shape[PORT_MAX_NDIM], size = arg_int(call, 3), step = arg_int(call, 4);
    int32_t ndim = x->ndim - 1, d;
    port_tensor *made;
    if (ndim < 1 || arg_len(call, 1) != ndim || !dtype_is_float(x->dtype) || x->shape[ndim] != size || step < 1 ||
        size < 0) {
        return fail_op(call, PORT_E_SHAPE, "expected windows of %lld floats in the last of %lld dimensions",
                       (long long)size, (long long)arg_len(call, 1) + 1);
    }
    port_status status = wrap_dim(call, arg_int(call, 2), ndim, &d);
    for (int32_t k = 0; status == PORT_OK && k < ndim; k++) {
        shape[k] = arg_int_at(call, 1, k);
        bool fits = k == d ? shape[k] >= size && (x->shape[k] == 0 || (x->shape[k] - 1) <= (shape[k] - size) / step)
                           : shape[k] == x->shape[k];
        if (!fits) {
            return fail_op(call, PORT_E_SHAPE, "dimension %d of size %lld does not hold the windows", k,
                           (long long)shape[k]);
        }
    }
    port_dtype inner = x->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    const port_tensor *wide;
    if (status != PORT_OK || (status = tensor_cast(call, x, inner, &wide)) != PORT_OK ||
        (status = tensor_contiguous(call, wide, &wide)) != PORT_OK ||
        (status = tensor_new(call, inner, ndim, shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    void *to = tensor_view(made).data;
    const void *from = tensor_view(wide).data;
    memset(to, 0, (size_t)made->buffer->size_bytes);
    int64_t after = 1, windows = x->shape[d], n = tensor_elems(wide);
    for (int32_t k = d + 1; k < ndim; k++) {
        after *= shape[k];
    }
    for (int64_t i = 0; i < n; i++) { /* (before, window, after, place in it) */
        int64_t place = i % size, a = i / size % after, w = i / (size * after) % windows,
                before = i / (size * after * windows);
        int64_t at = (before * shape[d] + w * step + place) * after + a;
        if (inner == PORT_F32) {
            ((float *)to)[at] += ((const float *)from)[i];
        } else {
            ((double *)to)[at] += ((const double *)from)[i];
        }
    }
    status = tensor_cast(call, made, x->dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* adaptive_max_pool2d, adaptive_max_pool3d (self, output_size): maxima and their flat places; the last NaN wins. */
static port_status
run_adaptive_max_pool(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : 2, lead = x->ndim - spatial;
    int64_t shape[PORT_MAX_NDIM], in[3] = {1, 1, 1}, out[3] = {1, 1, 1};
    port_tensor *values, *places;
    if (lead < 1 || lead > 2 || !dtype_is_float(x->dtype) || arg_len(call, 1) != spatial) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, ...) of floats and %d sizes", spatial);
    }
    memcpy(shape, x->shape, sizeof shape);
    for (int32_t d = 0; d < spatial; d++) {
        in[3 - spatial + d] = x->shape[lead + d];
        shape[lead + d] = out[3 - spatial + d] = arg_int_at(call, 1, d);
        if (in[3 - spatial + d] < 1 || out[3 - spatial + d] < 0) {
            return fail_op(call, PORT_E_SHAPE, "from %lld to %lld", (long long)x->shape[lead + d],
                           (long long)shape[lead + d]);
        }
    }
    port_status status = tensor_cast(call, x, PORT_F64, &wide);
    if (status != PORT_OK || (status = tensor_contiguous(call, wide, &wide)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, x->ndim, shape, NULL, &values)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, x->ndim, shape, NULL, &places)) != PORT_OK) {
        return status;
    }
    int64_t n = tensor_elems(values), block = out[0] * out[1] * out[2];
    for (int64_t i = 0; i < n; i++) {
        int64_t o[3] = {i / (out[1] * out[2]) % out[0], i / out[2] % out[1], i % out[2]}, begin[3], end[3], best = -1;
        const double *plane = (const double *)tensor_view(wide).data + i / block * in[0] * in[1] * in[2];
        for (int32_t d = 0; d < 3; d++) {
            begin[d] = o[d] * in[d] / out[d];
            end[d] = ((o[d] + 1) * in[d] + out[d] - 1) / out[d];
        }
        for (int64_t a = begin[0]; a < end[0]; a++) {
            for (int64_t b = begin[1]; b < end[1]; b++) {
                for (int64_t c = begin[2]; c < end[2]; c++) {
                    int64_t at = (a * in[1] + b) * in[2] + c;
                    best = best < 0 || plane[at] > plane[best] || plane[at] != plane[at] ? at : best;
                }
            }
        }
        ((double *)tensor_view(values).data)[i] = plane[best];
        ((int64_t *)tensor_view(places).data)[i] = best;
    }
    status = tensor_cast(call, values, x->dtype, &result);
    if (status != PORT_OK || (status = emit(call, result)) != PORT_OK) {
        return status;
    }
    return emit(call, places);
}

/* max_unpool2d, max_unpool3d (self, indices, output_size): every element to its flat place in its plane, zeros
 * elsewhere. */
static port_status
run_max_unpool(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *index = arg_tensor(call, 1);
    int32_t spatial = strstr(call->row->name, "3d") != NULL ? 3 : 2, lead = x->ndim - spatial;
    int64_t shape[PORT_MAX_NDIM], plane = 1, from_plane = 1;
    port_tensor *made;
    if (lead < 1 || lead > 2 || index->dtype != PORT_I64 || index->ndim != x->ndim || arg_len(call, 2) != spatial ||
        memcmp(x->shape, index->shape, (size_t)x->ndim * sizeof x->shape[0]) != 0) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, C, ...), places of the same shape and %d sizes", spatial);
    }
    memcpy(shape, x->shape, sizeof shape);
    for (int32_t d = 0; d < spatial; d++) {
        shape[lead + d] = arg_int_at(call, 2, d);
        from_plane *= x->shape[lead + d];
    }
    port_status status = tensor_contiguous(call, x, &x);
    if (status != PORT_OK || (status = tensor_contiguous(call, index, &index)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, x->ndim, shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    for (int32_t d = 0; d < spatial; d++) {
        plane *= shape[lead + d];
    }
    size_t size = port_dtype_size(x->dtype);
    char *to = tensor_view(made).data;
    memset(to, 0, (size_t)made->buffer->size_bytes);
    for (int64_t i = 0, n = tensor_elems(x); i < n; i++) {
        int64_t at = ((const int64_t *)tensor_view(index).data)[i];
        if (at < 0 || at >= plane) {
            return fail_op(call, PORT_E_VALUE, "place %lld is %lld of %lld", (long long)i, (long long)at,
                           (long long)plane);
        }
        memcpy(to + (size_t)(i / from_plane * plane + at) * size, (const char *)tensor_view(x).data + (size_t)i * size,
               size);
    }
    return emit(call, made);
}

#define ROW(NAME, SIGNATURE, RUN) {NAME, SIGNATURE, RUN, NULL, MODE_SAME, 0}

const op_row op_rearrange_rows[] = {
    ROW("pixel_shuffle", "T self, I upscale_factor", run_pixel_shuffle),
    ROW("pixel_unshuffle", "T self, I downscale_factor", run_pixel_shuffle),
    ROW("channel_shuffle", "T self, I groups", run_channel_shuffle),
    ROW("native_channel_shuffle", "T self, I groups", run_channel_shuffle),
    ROW("rot90", "T self, I k=1, A dims=[]", run_rot90),
    ROW("diag_embed", "T self, I offset=0, I dim1=-2, I dim2=-1", run_diag_embed),
    ROW("block_diag", "L tensors", run_block_diag),
    ROW("take", "T self, T index", run_take),
    {"put", "T self, T index, T source, B accumulate=False", run_put, NULL, MODE_SAME, OP_IN_PLACE},
    ROW("_shape_as_tensor", "T self", run_shape),
    ROW("col2im", "T self, A output_size, A kernel_size, A dilation, A padding, A stride", run_col2im),
    ROW("unfold_backward", "T grad_in, A input_sizes, I dim, I size, I step", run_unfold_backward),
    ROW("adaptive_max_pool2d", "T self, A output_size", run_adaptive_max_pool),
    ROW("adaptive_max_pool3d", "T self, A output_size", run_adaptive_max_pool),
    ROW("max_unpool2d", "T self, T indices, A output_size", run_max_unpool),
    ROW("max_unpool3d", "T self, T indices, A output_size, A stride, A padding", run_max_unpool),
    {.name = NULL},
};
