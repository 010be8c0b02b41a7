/* bag_ops.c -- bags of embeddings: sums, means or maxima of the rows of a table that each bag names. Sums run in F32
 * (F64), in order. Where torch has FBGEMM sum (no padding index, dense rows), a scaled row is added by fma, and BF16
 * comes of F32 by adding half a step; a mean divides the rounded sum.
 * Source: at::native EmbeddingBag.cpp (BSD-3-Clause; restated). */
#include "exec.h"
#include "floats.h"

enum { BAG_SUM = 0, BAG_MEAN, BAG_MAX };

typedef struct bag_inputs {
    port_dtype dtype; /* of weight and scale */
    bool fast;        /* sums are the library's */
    const void *weight, *scale;
    const int64_t *index, *offset;
    int64_t rows, width, num, bags, offsets, mode, padding;
} bag_inputs;

/* The elements of one bag, in order. Gives how many there were. */
static int64_t
fill_bag(const bag_inputs *in, int64_t bag, double *to, int64_t *places)
{
    int64_t begin = in->offset[bag], end = bag + 1 < in->bags ? in->offset[bag + 1] : in->num, count = 0;
    port_dtype wide = in->dtype == PORT_F64 ? PORT_F64 : PORT_F32;
    memset(to, 0, (size_t)in->width * sizeof *to);
    for (int64_t k = begin; k < end; k++) {
        if (in->index[k] == in->padding) {
            continue;
        }
        double scale = in->scale != NULL ? float_load(in->dtype, in->scale, k) : 1.0;
        for (int64_t d = 0; d < in->width; d++) {
            double v = float_load(in->dtype, in->weight, in->index[k] * in->width + d);
            if (in->mode == BAG_MAX) {
                bool more = count == 0 || v > to[d];
                places[d] = more ? in->index[k] : places[d];
                to[d] = more ? v : to[d];
            } else if (in->fast && in->scale != NULL) {
                to[d] = float_fma(wide, scale, v, to[d]);
            } else {
                to[d] = float_rounded(wide, to[d] + float_rounded(wide, v * scale));
            }
        }
        count++;
    }
    return count;
}

/* A sum as the library stores it: BF16 from F32 by adding half a step, whatever the last bit. */
static void
store_sum(const bag_inputs *in, char *out, int64_t at, double sum)
{
    float narrow = (float)sum;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    if (in->fast && in->dtype == PORT_BF16 && in->mode != BAG_MAX) {
        ((uint16_t *)out)[at] = (uint16_t)((bits + 0x8000u) >> 16);
    } else {
        float_store(in->dtype, out, at, sum);
    }
}

/* Bag b in the result's row. */
static int64_t
write_bag(const bag_inputs *in, int64_t b, double *room, char *out, int64_t *places)
{
    int64_t count = fill_bag(in, b, room, places + b * in->width);
    for (int64_t d = 0, at = b * in->width; d < in->width; d++, at++) {
        store_sum(in, out, at, room[d]);
        if (in->mode == BAG_MEAN && count > 0) {
            double sum = float_load(in->dtype, out, at);
            float_store(in->dtype, out, at, sum / float_rounded(in->dtype, (double)count));
        }
    }
    return count;
}

static port_status
read_bags(op_call *call, bag_inputs *in)
{
    const port_tensor *weight = arg_tensor(call, 0), *index = arg_tensor(call, 1), *offset = arg_tensor(call, 2),
                      *scale = arg_tensor(call, 6);
    if (weight->ndim != 2 || index->ndim != 1 || offset->ndim != 1 || !dtype_is_integral(index->dtype) ||
        !dtype_is_integral(offset->dtype) || !dtype_is_float(weight->dtype) ||
        (scale != NULL && (tensor_elems(scale) != index->shape[0] || scale->dtype != weight->dtype))) {
        return fail_unsupported(call, "a weight of %s in %d dimensions, or indices or scales of another shape or dtype",
                                port_dtype_name(weight->dtype), weight->ndim);
    }
    bool dense = weight->strides[1] == 1 && (scale == NULL || scale->strides[0] == 1);
    port_status status;
    if ((status = tensor_contiguous(call, weight, &weight)) != PORT_OK ||
        (status = tensor_cast(call, index, PORT_I64, &index)) != PORT_OK ||
        (status = tensor_contiguous(call, index, &index)) != PORT_OK ||
        (status = tensor_cast(call, offset, PORT_I64, &offset)) != PORT_OK ||
        (status = tensor_contiguous(call, offset, &offset)) != PORT_OK ||
        (scale != NULL && (status = tensor_contiguous(call, scale, &scale)) != PORT_OK)) {
        return status;
    }
    *in = (bag_inputs){.dtype = weight->dtype,
                       .fast = weight->dtype != PORT_F64 && dense && arg_int(call, 8) < 0,
                       .weight = tensor_view(weight).data,
                       .scale = scale != NULL ? tensor_view(scale).data : NULL,
                       .index = (const int64_t *)tensor_view(index).data,
                       .offset = (const int64_t *)tensor_view(offset).data,
                       .rows = weight->shape[0],
                       .width = weight->shape[1],
                       .num = index->shape[0],
                       .bags = offset->shape[0] - (arg_bool(call, 7) ? 1 : 0),
                       .offsets = offset->shape[0],
                       .mode = arg_int(call, 4),
                       .padding = arg_int(call, 8)};
    for (int64_t k = 0; k < in->num; k++) {
        if (in->index[k] < 0 || in->index[k] >= in->rows) {
            return fail_op(call, PORT_E_VALUE, "index %lld is %lld, the weight has %lld rows", (long long)k,
                           (long long)in->index[k], (long long)in->rows);
        }
    }
    for (int64_t k = 0; k < offset->shape[0]; k++) {
        if (in->offset[k] < (k > 0 ? in->offset[k - 1] : 0) || in->offset[k] > in->num) {
            return fail_op(call, PORT_E_VALUE, "offset %lld is %lld", (long long)k, (long long)in->offset[k]);
        }
    }
    if (in->bags < 0) {
        return fail_op(call, PORT_E_SHAPE, "include_last_offset needs at least one offset, got none");
    }
    return in->mode < 0 || in->mode > BAG_MAX
               ? fail_op(call, PORT_E_VALUE, "expected a mode from 0 to %d, got %lld", BAG_MAX, (long long)in->mode)
               : PORT_OK;
}

/* _embedding_bag(weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset,
 * padding_idx): the bags; then which bag an index is in, the bags' sizes and the places of maxima, which only a
 * backward pass reads. */
static port_status
run_embedding_bag(op_call *call)
{
    bag_inputs in;
    port_tensor *out, *where, *sizes, *places, *room;
    port_status status = read_bags(call, &in);
    if (status != PORT_OK) {
        return status;
    }
    bool all_offsets = in.mode == BAG_SUM && strcmp(call->row->name, "_embedding_bag") != 0;
    int64_t shape[2] = {in.bags, in.width};
    if ((status = tensor_new(call, in.dtype, 2, shape, NULL, &out)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, 1, &in.width, NULL, &room)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, 1, &in.num, NULL, &where)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, 1, all_offsets ? &in.offsets : &in.bags, NULL, &sizes)) != PORT_OK ||
        (status = tensor_new(call, PORT_I64, 2, shape, NULL, &places)) != PORT_OK) {
        return status;
    }
    int64_t *size = (int64_t *)tensor_view(sizes).data, *bag_of = (int64_t *)tensor_view(where).data;
    memset(tensor_view(places).data, 0, (size_t)places->buffer->size_bytes);
    memset(bag_of, 0, (size_t)where->buffer->size_bytes);
    memset(size, 0, (size_t)sizes->buffer->size_bytes);
    for (int64_t b = 0; b < in.bags; b++) {
        size[b] = write_bag(&in, b, (double *)tensor_view(room).data, tensor_view(out).data,
                            (int64_t *)tensor_view(places).data);
        for (int64_t k = in.offset[b]; k < (b + 1 < in.bags ? in.offset[b + 1] : in.num); k++) {
            bag_of[k] = b;
        }
    }
    if (in.mode == BAG_SUM) { /* no backward pass asks for the sizes, and the library not for the bags either */
        memset(size, 0, (size_t)sizes->buffer->size_bytes);
        where->shape[0] = in.fast ? 0 : where->shape[0];
    }
    if ((status = emit(call, out)) != PORT_OK || (status = emit(call, where)) != PORT_OK ||
        (status = emit(call, sizes)) != PORT_OK) {
        return status;
    }
    return emit(call, in.mode == BAG_MAX ? places : sizes);
}

#define BAG "T weight, T indices, T offsets, B scale_grad_by_freq=False, I mode=0, B sparse=False, T? per_sample_weights=None, " \
            "B include_last_offset=False, I padding_idx=-1"

const op_row op_bag_rows[] = {
    {"_embedding_bag", BAG, run_embedding_bag, NULL, MODE_SAME, 0},
    {"_embedding_bag_forward_only", BAG, run_embedding_bag, NULL, MODE_SAME, 0},
    {.name = NULL},
};
