"""Faults of bench/diagnose.py that kernels make: tails and tiles left out, stale and uninitialised numbers, wrong strides, statistics of other elements, formats.

Importing this file adds them to `diagnose_faults.FAULTS`.
"""
import torch
import torch.nn.functional as F
from diagnose_faults import BF16, F16, has_bias, in_conv, in_layer, in_linear, patch
from diagnose_faults_attention import attend, attention
from diagnose_faults_modules import eps_of, gain, is_rms, replaced

# ---------------------------------------------------------------- products: tiles, tails, strides


def garbage(y, seed=11):
    """What a buffer may hold that nobody wrote: numbers of the size of the right ones."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y.dtype) * y.float().std()


def at_rows(y, rows):
    """True at these positions, broadcastable to y."""
    return torch.isin(torch.arange(y.shape[-2]), torch.tensor(rows))[:, None]


def of_tokens(site):
    return len(site.shapes[0]) == 3 and site.shapes[0][1] > 8


PLACE = ("partly-wrong", "part-zero", "part-scaled", "part-moved")
in_linear("last_columns_ignored", ("columns-ignored",), lambda x, w, b: F.linear(x[..., :-8], w[:, :-8], b))
in_linear("first_column_ignored", ("columns-ignored",), lambda x, w, b: F.linear(x[..., 1:], w[:, 1:], b))
in_linear("columns_from_a_tile_on_twice", ("columns-ignored", "columns-doubled"), lambda x, w, b: F.linear(x, w, b) + F.linear(x[..., -16:], w[:, -16:]))
in_linear("tail_rows_garbage", PLACE, lambda x, w, b: torch.where(at_rows(x, [x.shape[-2] - 1, x.shape[-2] - 2]), garbage(F.linear(x, w, b)), F.linear(x, w, b)), of_tokens)
in_linear("rows_stale", PLACE, lambda x, w, b: torch.where(at_rows(x, [3, 7]), F.linear(x.roll(1, 0) * 0.7, w, b), F.linear(x, w, b)), of_tokens)
in_linear("last_tile_zero", (*PLACE, "weight-zero", "output-zero"), lambda x, w, b: F.linear(x, w, b) * (torch.arange(w.shape[0]) < w.shape[0] // 16 * 16 - 16), lambda s: s.shapes[1][0] >= 48)
in_linear("one_row_scaled", (*PLACE, "scale", "columns-scaled"), lambda x, w, b: F.linear(x, torch.cat([w[:5], 1.5 * w[5:6], w[6:]]), b))
in_linear("two_rows_exchanged", ("rows-permuted", "output-permuted", *PLACE), lambda x, w, b: F.linear(x, w[[1, 0, *range(2, len(w))]], b))
in_linear("elements_lost", ("elements-lost", *PLACE), lambda x, w, b: F.linear(x, w, b) * (torch.rand(F.linear(x, w).shape, generator=torch.Generator().manual_seed(3)) > 0.05))
in_linear("row_stride_one_more", ("row-stride",), lambda x, w, b: F.linear(with_stride(x, x.shape[-1] + 1), w, b), of_tokens)
in_linear("weight_stride_one_less", ("row-stride",), lambda x, w, b: F.linear(x, with_stride(w, w.shape[-1] - 1), b))
in_linear("saturated", ("clamp-added",), lambda x, w, b: F.linear(x, w, b).clamp(-0.8, 0.8))
in_linear("bias_of_every_row_the_first", ("weight-broadcast",), lambda x, w, b: F.linear(x, w) + b[0], has_bias)
in_linear("bias_scaled", ("scale", "op-order"), lambda x, w, b: F.linear(x, w) + 4 * b, has_bias)
in_linear("previous_position", ("output-moved", "part-moved", "cache-offset"), lambda x, w, b: F.linear(x.roll(1, -2), w, b), of_tokens)
in_linear("one_weight_corrupt", PLACE, lambda x, w, b: F.linear(x, corrupt(w), b))
in_linear("absolute", ("op-other", "weight-sign"), lambda x, w, b: F.linear(x, w.abs(), b))


def with_stride(x, stride):
    """The numbers of x read with another step from row to row."""
    flat = x.reshape(-1)
    rows = x.numel() // x.shape[-1]
    index = (torch.arange(rows)[:, None] * stride + torch.arange(x.shape[-1])).clamp(max=flat.numel() - 1)
    return flat[index].view(x.shape)


def corrupt(w):
    w = w.clone()
    w[4, 9] += 3.0
    return w


# ---------------------------------------------------------------- formats


def in_groups(x, size, levels, zero):
    """Groups of `size` along rows: signed levels, or with a zero point."""
    rows = x.reshape(-1, size)
    low = rows.amin(1, keepdim=True) if zero else torch.zeros(len(rows), 1)
    step = ((rows.amax(1, keepdim=True) - low) / levels if zero else rows.abs().amax(1, keepdim=True) / levels).clamp(min=1e-30)
    return (torch.round((rows - low) / step) * step + low).reshape(x.shape)


NF4 = torch.tensor([-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0, 0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0])


def nf4(x):
    rows = x.reshape(-1, 32)
    top = rows.abs().amax(1, keepdim=True).clamp(min=1e-30)
    return (NF4[((rows / top)[..., None] - NF4).abs().argmin(-1)] * top).reshape(x.shape)


def by_16(site):
    return site.shapes[1][-1] % 32 == 0


in_linear("int4_groups_of_16", ("operand-precision",), lambda x, w, b: F.linear(x, in_groups(w, 16, 15, True), b), by_16)
in_linear("int6_rows", ("operand-precision",), lambda x, w, b: F.linear(x, in_groups(w, w.shape[1], 31, False), b))
in_linear("nf4", ("operand-precision",), lambda x, w, b: F.linear(x, nf4(w), b), by_16)
in_linear("truncated_bf16_weight", ("operand-precision",), lambda x, w, b: F.linear(x, (w.contiguous().view(torch.int32) & -65536).view(torch.float32), b))
in_linear("bf16_in_and_out", ("operand-precision", "result-precision", "computed-in-half"), lambda x, w, b: BF16(F.linear(BF16(x), BF16(w), b)))
in_linear("f16_input_only_for_bias", ("operand-precision",), lambda x, w, b: F.linear(x, w) + BF16(b), has_bias)
attention("out_bf16", ("result-precision", "computed-in-half", "softmax-precision", "operand-precision"), {"out": BF16})
attention("values_f16_fixed_point", ("operand-precision", "softmax-precision", "result-precision"), {"p": lambda p: torch.round(p * 255) / 255})


@patch("add", "result-precision", "operand-precision", when=in_layer)
def residual_kept_in_bf16(f, a, b):
    return f(a, b).bfloat16().to(a.dtype)


@patch("silu", "activation", "constant", "scale", "op-other")
def silu_of_other_slope(f, x, *rest, **named):
    return x * torch.sigmoid(1.2 * x)


@patch("gelu", "activation", "constant")
def gelu_without_its_cube(f, x, *rest, **named):
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * x))


@patch("silu", "approximate-exp")
def silu_fast_exp(f, x, *rest, **named):
    e = (12102203.0 * -x.float() + 1064866805.0).clamp(0, 2.0**31 - 129).to(torch.int32).view(torch.float32)
    return (x / (1 + e)).to(x.dtype)


# ---------------------------------------------------------------- norms: statistics of other elements


def normalised(x, of, count, eps, rows=lambda s: s):
    """Layer norm whose statistics come of the elements `of` x, divided by `count`."""
    mean = rows(of.sum(-1, keepdim=True) / count)
    var = rows(((of - of.mean(-1, keepdim=True)) ** 2).sum(-1, keepdim=True) / count)
    return (x - mean) * torch.rsqrt(var + eps)


def layer_norm_fault(name, causes, formula):
    def change(f, x, shape, weight=None, bias=None, eps=1e-5):
        y = formula(x, eps) * weight
        return y if bias is None else y + bias

    change.__name__ = name
    patch("layer_norm", *causes, when=lambda s: len(s.shapes[0]) >= 3)(change)


STATISTICS = ("norm-statistics", "norm-axis")
layer_norm_fault("layer_norm_of_the_first_half", STATISTICS, lambda x, eps: normalised(x, x[..., : x.shape[-1] // 2], x.shape[-1] // 2, eps))
layer_norm_fault("layer_norm_tail_ignored", STATISTICS, lambda x, eps: normalised(x, x[..., :-8], x.shape[-1] - 8, eps))
layer_norm_fault("layer_norm_divided_by_more", (*STATISTICS, "scale", "output-scaled"), lambda x, eps: normalised(x, x, x.shape[-1] + 16, eps))
layer_norm_fault("layer_norm_first_row_for_all", STATISTICS, lambda x, eps: normalised(x, x, x.shape[-1], eps, lambda s: s[..., :1, :].expand_as(s)))
layer_norm_fault("layer_norm_of_previous_row", STATISTICS, lambda x, eps: normalised(x, x, x.shape[-1], eps, lambda s: s.roll(1, -2)))
layer_norm_fault("layer_norm_variance_about_zero", ("mean-not-subtracted", "norm-statistics"), lambda x, eps: (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))
layer_norm_fault("layer_norm_absolute_deviation", ("norm-statistics", "exponent"), lambda x, eps: (x - x.mean(-1, keepdim=True)) / ((x - x.mean(-1, keepdim=True)).abs().mean(-1, keepdim=True) + eps))


def rms_fault(name, causes, formula):
    @replaced(name, *causes, when=is_rms)
    def change(module, inner, x):
        wide = x.float()
        return (gain(module) * formula(wide, eps_of(module))).to(x.dtype)


rms_fault("rms_of_the_first_half", STATISTICS, lambda x, eps: x * torch.rsqrt(x[..., : x.shape[-1] // 2].pow(2).mean(-1, keepdim=True) + eps))
rms_fault("rms_divided_by_more", (*STATISTICS, "scale", "output-scaled"), lambda x, eps: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / (2 * x.shape[-1]) + eps))
rms_fault("rms_as_length", (*STATISTICS, "scale", "sum-for-mean"), lambda x, eps: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps))
rms_fault("rms_first_row_for_all", STATISTICS, lambda x, eps: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)[..., :1, :] + eps))
rms_fault("rms_square_in_f16", ("operand-precision", "result-precision", "computed-in-half"), lambda x, eps: x * torch.rsqrt(F16(F16(x) ** 2).mean(-1, keepdim=True) + eps))


@patch("batch_norm", "weight-plus-one")
def batch_norm_weight_plus_one(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, var, weight + 1, bias, False, momentum, eps)


@patch("batch_norm", "root-missing", "statistics-ignored")
def batch_norm_deviation_given(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, var * var, weight, bias, False, momentum, 0.0)


@patch("batch_norm", "weights-exchanged", "wrong-weight")
def batch_norm_mean_for_bias(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, bias, var, weight, mean, False, momentum, eps)


@patch("group_norm", "norm-groups", "norm-axis")
def group_norm_by_turns(f, x, groups, weight=None, bias=None, eps=1e-5):
    y = f(x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2), groups, None, None, eps)
    y = y.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return y * weight[:, None, None] + bias[:, None, None]


@patch("group_norm", "norm-axis", "norm-groups")
def group_norm_over_channels(f, x, groups, weight=None, bias=None, eps=1e-5):
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, eps).movedim(-1, 1)


# ---------------------------------------------------------------- attention kernels


def no_rescale(x, axis):
    """A softmax over blocks of 4 keys whose earlier blocks are not scaled again when the greatest logit grows."""
    top, parts, total = torch.full_like(x[..., :1], -torch.inf), [], 0
    for i in range(0, x.shape[-1], 4):
        block = x[..., i : i + 4]
        top = torch.maximum(top, block.amax(-1, keepdim=True)).clamp(min=-1e30)
        parts.append(torch.exp(block - top))
        total = total + parts[-1].sum(-1, keepdim=True)
    return torch.cat(parts, -1) / total


def halves(x):
    return (torch.arange(x.shape[-1]) < x.shape[-1] // 4 * 4).float()


attention("blocks_not_rescaled", ("softmax-blocks",), {"softmax": no_rescale})
attention("last_keys_ignored", ("keys-ignored", "mask-padding-ignored"), {"logits": lambda x: x + torch.where(torch.arange(x.shape[-1]) < x.shape[-1] // 4 * 4, 0.0, -1e30)})
attention("last_queries_zero", (*PLACE, "output-zero", "addend-missing"), {"out": lambda y: y * (torch.arange(y.shape[-2]) < y.shape[-2] // 4 * 4)[:, None]})
attention("one_head_of_another", (*PLACE, "head-order"), {"out": lambda y: torch.cat([y[:, :1], y[:, :1], y[:, 2:]], 1)})
attention("base_two", ("attention-scale", "scale"), {"softmax": lambda x, axis: torch.softmax(x * 0.6931472, axis)})
attention("not_normalised", ("softmax-normalisation",), {"softmax": lambda x, axis: torch.exp(x - x.amax(axis, keepdim=True))})
attention("padding_counted_in_the_sum", ("sink", "softmax-normalisation"), {"softmax": lambda x, axis: torch.exp(x - x.amax(axis, keepdim=True)) / (torch.exp(x - x.amax(axis, keepdim=True)).sum(axis, keepdim=True) + torch.exp(-x.amax(axis, keepdim=True)) * 5)})
attention("probabilities_dropped", ("dropout",), {"p": lambda p: (torch.manual_seed(8), F.dropout(p, 0.1, True))[1]})
attention("scale_of_hidden", ("attention-scale", "scale"), {"scale": 0.5})
attention("position_bias_scaled", ("scale", "op-order", "position-bias"), {"mask": lambda m: torch.where(m < -1e4, m, m / 4)}, "mask")


def keys_moved(name, causes, change):
    """Registers a change of q, k, v of the fused op."""

    def fused(f, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        return attend(*change(q, k, v), attn_mask, is_causal, scale, {})

    fused.__name__ = name
    patch("scaled_dot_product_attention", *causes, when=lambda s: s.shapes[0][-2] > 4)(fused)


CACHE = ("cache-offset", "output-moved")
keys_moved("cache_one_slot_late", CACHE, lambda q, k, v: (q, k.roll(1, -2), v.roll(1, -2)))
keys_moved("cache_values_one_slot_late", CACHE, lambda q, k, v: (q, k, v.roll(1, -2)))
keys_moved("cache_last_slot_empty", (*CACHE, "cache-stale"), lambda q, k, v: (q, F.pad(k[..., :-1, :], (0, 0, 0, 1)), F.pad(v[..., :-1, :], (0, 0, 0, 1))))
keys_moved("values_of_next_head", ("head-order", "gqa-order", "rows-permuted"), lambda q, k, v: (q, k, v.roll(1, 1)))
keys_moved("keys_of_first_head", ("head-order", "gqa-order"), lambda q, k, v: (q, k[:, :1].expand_as(k), v[:, :1].expand_as(v)))

in_conv("depthwise_next_channel", ("rows-permuted", "groups-order"), lambda f, x, w, b, s, p, d, g: f(x, w.roll(1, 0), b, s, p, d, g), lambda s: s.shapes[1][1] == 1 and s.shapes[1][0] > 1)
in_conv("channels_exchanged", ("weight-transposed", "weight-layout"), lambda f, x, w, b, s, p, d, g: f(x, w.transpose(0, 1), b, s, p, d, g), lambda s: s.shapes[1][0] == s.shapes[1][1] and min(s.shapes[1]) > 1)
in_conv("border_not_written", PLACE, lambda f, x, w, b, s, p, d, g: f(x, w, b, s, p, d, g) * (torch.arange(f(x, w, b, s, p, d, g).shape[-1]) > 0))
