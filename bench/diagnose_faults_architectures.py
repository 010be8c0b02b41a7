"""Faults of bench/diagnose.py that belong to architectures: fused projections, positions, relative biases, experts, state spaces, images.

Importing this file adds them to `diagnose_faults.FAULTS`.
"""
import inspect
import math

import torch
import torch.nn.functional as F
from diagnose_faults import BF16, in_embedding, patch, weights
from diagnose_faults_attention import hidden, rotary, with_base
from diagnose_faults_modules import replaced

HEADS = 4

# ---------------------------------------------------------------- fused projections


def thirds(site):
    return len(site.shapes[0]) == 3 and site.shapes[0][-1] == 3 * 64


@patch("split", "split-order", "rows-permuted", when=thirds)
def qkv_head_by_head(f, x, size, dim=0):
    return tuple(part.flatten(-2) for part in x.unflatten(-1, (HEADS, 3, -1)).unbind(-2))


@patch("chunk", "split-order", "head-order", when=lambda s: len(s.shapes[0]) == 4 and s.shapes[0][1] == HEADS)
def qkv_stacked(f, x, n, dim=0):
    flat = x.transpose(1, 2).flatten(-2)
    return tuple(part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in f(flat, n, -1))


@weights("k_weight_permuted_back", "rows-permuted")
def k_permuted_back(model):
    return [(n.rpartition(".")[0], {n: p.data.view(-1, 8, 2, p.shape[1]).transpose(1, 2).reshape(p.shape)}) for n, p in model.named_parameters()
            if p.dim() == 2 and n.endswith(("k_proj.weight", "key.weight")) and p.shape[0] % 16 == 0]


@weights("two_layers_exchanged", "wrong-layer")
def two_layers(model):
    parameters = dict(model.named_parameters())
    return [(n.rpartition(".")[0], {n: parameters[n.replace(".1.", ".0.")].data}) for n, p in parameters.items()
            if ".1." in n and p.dim() == 2 and n.replace(".1.", ".0.") in parameters and parameters[n.replace(".1.", ".0.")].shape == p.shape]


# ---------------------------------------------------------------- positions

rotary("of_exponent_halved", ("rope-base",), lambda f, q, k, c, s: with_base(f, q, k, c, s, 100.0))
rotary("floor_of_half", ("rope-offset", "rope-scaling", "position-offset"), lambda f, q, k, c, s: f(q, k, c[:, torch.arange(c.shape[1]) // 2], s[:, torch.arange(c.shape[1]) // 2]))
rotary("angles_in_bf16", ("operand-precision", "result-precision", "rope-precision"), lambda f, q, k, c, s: f(q, k, *of_angles(BF16(torch.atan2(s.float(), c.float())), c)))
rotary("offset_of_k", ("rope-offset",), lambda f, q, k, c, s: (f(q, k, c, s)[0], f(q, k, c.roll(1, 1), s.roll(1, 1))[1]))
rotary("wrapped", ("rope-offset",), lambda f, q, k, c, s: f(q, k, c[:, torch.arange(c.shape[1]) % 8], s[:, torch.arange(c.shape[1]) % 8]))
rotary("sine_of_neighbours", ("rope-interleaved",), lambda f, q, k, c, s: f(q, k, torch.repeat_interleave(c[..., : c.shape[-1] // 2], 2, -1), torch.repeat_interleave(s[..., : s.shape[-1] // 2], 2, -1)))
rotary("halves_not_negated", ("rope-sign", "op-missing"), lambda f, q, k, c, s: tuple(x * c.unsqueeze(1) + torch.cat([x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1) * s.unsqueeze(1) if x.shape[-1] == c.shape[-1] else x * 1 for x in (q, k)))


def of_angles(angles, like):
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def is_rotary(model, name, module):
    return type(module).__name__.endswith("RotaryEmbedding") and "position_ids" in inspect.signature(module.forward).parameters


@replaced("positions_halved", "position-offset", "rope-scaling", when=is_rotary)
def positions_halved(module, inner, x, position_ids, *rest, **named):
    return inner(x, position_ids // 2, *rest, **named)


@replaced("positions_of_the_other_end", "position-offset", "rope-reversed", "output-permuted", when=is_rotary)
def positions_reversed(module, inner, x, position_ids, *rest, **named):
    return inner(x, position_ids.flip(-1), *rest, **named)


@replaced("scaling_without_smoothing", "rope-scaling", when=lambda model, n, m: is_rotary(model, n, m) and getattr(m, "rope_type", "") == "llama3")
def scaling_without_smoothing(module, inner, x, position_ids, *rest, **named):
    kept = module.inv_freq
    pure = 10000.0 ** (-torch.arange(len(kept)) / len(kept))
    module.inv_freq = torch.where(2 * math.pi / pure < 16 / 4.0, pure, pure / 8.0)
    try:
        return inner(x, position_ids, *rest, **named)
    finally:
        module.inv_freq = kept


in_embedding("two_later", ("embedding-offset",), lambda i, w: F.embedding((i + 2).clamp(max=len(w) - 1), w), lambda s: s.shapes[1][0] > 16)
in_embedding("wrapped", ("embedding-offset", "embedding-wrapped", "partly-wrong"), lambda i, w: F.embedding(i % 64, w), lambda s: s.shapes[1][0] == 96)
in_embedding("reversed", ("embedding-offset", "output-moved", "axes-exchanged", "output-permuted"), lambda i, w: F.embedding(i.flip(-1), w))
in_embedding("column_major", ("weight-reshaped", "weight-transposed"), lambda i, w: F.embedding(i, w.t().reshape(w.shape)), lambda s: s.shapes[1][0] > 4)

# ---------------------------------------------------------------- relative positions


def of_buckets(site):
    return "relative" in site.module and len(site.shapes[0]) == 2


in_embedding("buckets_transposed", ("mask-transposed", "axes-exchanged", "axes-order"), lambda i, w: F.embedding(i.t().contiguous(), w), of_buckets)
in_embedding("buckets_of_negatives", ("embedding-offset", "partly-wrong"), lambda i, w: F.embedding(torch.where(i >= len(w) // 2, i - 1, i), w), of_buckets)
in_embedding("buckets_cut_off", ("embedding-offset", "clamp-added", "embedding-wrapped", "partly-wrong"), lambda i, w: F.embedding(torch.where(i < len(w) // 2, i.clamp(max=6), i.clamp(max=len(w) // 2 + 6)), w), of_buckets)


def is_bloom(model, name, module):
    return type(module).__name__ == "BloomAttention"


def with_alibi(name, causes, change):
    @replaced(name, *causes, when=is_bloom)
    def forward(module, inner, hidden_states, residual, alibi, *rest, **named):
        return inner(hidden_states, residual, change(alibi.clone()), *rest, **named)


with_alibi("alibi_slopes_of_eight_heads", ("position-bias", "scale"), lambda a: a * (2.0 ** torch.arange(HEADS)).repeat(len(a) // HEADS)[:, None, None])
with_alibi("alibi_sign", ("position-bias", "scale"), lambda a: -a)
with_alibi("alibi_heads_reversed", ("position-bias", "head-order"), lambda a: a.view(-1, HEADS, *a.shape[1:]).flip(1).reshape(a.shape))
with_alibi("alibi_absent", ("position-bias", "bias-missing", "addend-missing", "scale"), lambda a: a * 0)


@patch("matmul", "attention-scale", "scale", when=lambda s: "ttention" in s.module and len(s.shapes[0]) == 4 and s.number == 0)
def product_scaled(f, a, b):
    return f(a, b) / 4


@patch("iadd", "bias-missing", "addend-missing", "op-missing", when=lambda s: "ttention" in s.module and len(s.shapes[0]) == 4)
def position_bias_missing(f, a, b):
    return a + torch.where(hidden(b), b, 0.0)


# ---------------------------------------------------------------- experts


@patch("topk", "top-k", "experts")
def experts_only_the_first(f, x, k, *rest, **named):
    values, indices = f(x, k, *rest, **named)
    return torch.cat([values[..., :1], 0 * values[..., 1:]], -1), indices


@patch("topk", "top-k", "experts")
def experts_weights_alike(f, x, k, *rest, **named):
    values, indices = f(x, k, *rest, **named)
    return torch.full_like(values, 1 / k), indices


@patch("topk", "top-k", "experts", "rows-permuted")
def experts_next(f, x, k, *rest, **named):
    values, indices = f(x, k, *rest, **named)
    return values, (indices + 1) % x.shape[-1]


@patch("topk", "top-k", "experts", "op-order")
def experts_softmax_after(f, x, k, *rest, **named):
    values, indices = f(x, k, *rest, **named)
    return torch.softmax(values.log() if (values >= 0).all() else values, -1), indices


def is_shared(model, name, module):
    return name.endswith("shared_expert")


@replaced("shared_expert_ignored", "addend-missing", "output-zero", "op-missing", "weight-zero", when=is_shared)
def shared_expert_ignored(module, inner, x):
    return torch.zeros_like(inner(x))


@patch("sigmoid", "op-missing", "op-other", "activation", "scale", when=lambda s: "mlp" in s.module and s.shapes[0][-1] == 1)
def shared_gate_open(f, x):
    return torch.ones_like(x)


# ---------------------------------------------------------------- state spaces


def in_mixer(site):
    return "mixer" in site.module


@patch("mul", "addend-missing", "op-missing", "weight-zero", when=lambda s: in_mixer(s) and len(s.shapes) == 2 and s.shapes[1] is not None and len(s.shapes[1]) == 3 and s.shapes[1][0] == s.shapes[1][2] == 1)
def skip_missing(f, a, b):
    return torch.zeros_like(f(a, b))


@patch("split", "split-order", when=lambda s: in_mixer(s))
def state_parts_exchanged(f, x, size, dim=0):
    a, *rest = f(x, size, dim)
    return (a, *rest[::-1])


@patch("mul", "op-missing", "wrong-operand", when=lambda s: in_mixer(s) and len(s.shapes) == 2 and s.shapes[1] is not None and len(s.shapes[1]) == 4)
def step_missing(f, a, b):
    return b.expand(f(a, b).shape).clone()


@patch("exp", "op-other", "op-missing", "approximate-exp", when=in_mixer)
def decay_linear(f, x):
    return 1 + x


@patch("softplus", "activation", "op-other", "exponent")
def softplus_as_exp(f, x, *rest, **named):
    return torch.exp(x)


@patch("conv1d", "padding", "output-moved", "slice-offset", when=in_mixer)
def convolution_one_late(f, x, *rest, **named):
    return f(x, *rest, **named).roll(1, -1)


@patch("silu", "op-missing", "activation", when=in_mixer)
def mixer_silu_missing(f, x, *rest, **named):
    return x.clone()


# ---------------------------------------------------------------- images


@patch("flatten", "axes-order", "axes-exchanged", "output-permuted", when=lambda s: len(s.shapes[0]) == 4 and s.shapes[0][2] == s.shapes[0][3] > 1)
def patches_column_by_column(f, x, *rest, **named):
    return f(x.transpose(2, 3), *rest, **named)


@patch("cat", "cat-order", "output-moved", "output-permuted", when=lambda s: "embeddings" in s.module)
def class_token_last(f, tensors, dim=0, **named):
    return f(tuple(tensors)[::-1], named.get("dim", dim))


@patch("cat", "cat-order", when=lambda s: s.module.endswith("downsample"))
def merged_in_another_order(f, tensors, dim=0, **named):
    a, b, c, d = tensors
    return f((a, c, b, d), named.get("dim", dim))


@patch("avg_pool2d", "pool-divisor")
def pool_without_padding(f, x, kernel, stride=None, padding=0, *rest, **named):
    return f(x, kernel, stride, padding, count_include_pad=False)


@patch("interpolate", "align-corners")
def interpolated_with_corners(f, x, size=None, scale_factor=None, mode="nearest", align_corners=None, **named):
    return f(x, size, scale_factor, mode, align_corners=not align_corners)


@patch("interpolate", "interpolation")
def interpolated_nearest(f, x, size=None, scale_factor=None, mode="nearest", align_corners=None, **named):
    return f(x, size, scale_factor, "nearest")


@patch("pixel_shuffle", "axes-order", "head-order", "output-permuted", "split-order")
def pixels_shuffled_otherwise(f, x, n):
    b, c, h, w = x.shape
    return x.view(b, n, n, c // n // n, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // n // n, h * n, w * n)


@patch("max_pool2d", "padding", "op-other")
def pool_padded_with_zeros(f, x, kernel, stride=None, padding=0, *rest, **named):
    x = F.pad(x, (padding,) * 4)
    return f(x, kernel, stride, 0)


@patch("conv_transpose2d", "kernel-flipped")
def transposed_flipped(f, x, w, *rest, **named):
    return f(x, w.flip(2, 3), *rest, **named)
