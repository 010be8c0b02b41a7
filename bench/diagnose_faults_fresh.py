"""Faults of bench/diagnose.py that were written last, before any generator was changed for them: their first try says how the diagnosis does on what it has not seen.

Importing this file adds them to `diagnose_faults.FAULTS`.
"""
import torch
import torch.nn.functional as F
from diagnose_faults import F16, FAULTS, has_bias, in_conv, in_linear, patch, weights
from diagnose_faults_attention import attention, hidden, rotary
from diagnose_faults_kernels import PLACE, keys_moved, of_tokens
from diagnose_faults_modules import eps_of, gain, is_rms, replaced

BEFORE = len(FAULTS)

# ---------------------------------------------------------------- products


def by_tiles(site):
    return site.shapes[1][0] % 32 == 0 and site.shapes[1][1] % 32 == 0


def faces_exchanged(w):
    """The second and third 16x16 face of each 32x32 tile in each other's place."""
    t = w.reshape(w.shape[0] // 32, 2, 16, w.shape[1] // 32, 2, 16)
    t = t.permute(0, 3, 1, 4, 2, 5).clone()
    t[:, :, 0, 1], t[:, :, 1, 0] = t[:, :, 1, 0].clone(), t[:, :, 0, 1].clone()
    return t.permute(0, 2, 4, 1, 3, 5).reshape(w.shape)


def still_tiled(w):
    """Tiles of 32x32, one after the other, read as if they were rows."""
    return w.reshape(w.shape[0] // 32, 32, w.shape[1] // 32, 32).permute(0, 2, 1, 3).reshape(w.shape)


def scale_of_next(w, size):
    rows = w.reshape(-1, size)
    step = rows.abs().amax(1, keepdim=True) / 127
    return (torch.round(rows / step) * step.roll(-1, 0)).reshape(w.shape)


def split_sums(x, w, b):
    """Two halves of the sum, each kept in f16."""
    n = x.shape[-1] // 2
    y = F16(x[..., :n] @ w[:, :n].t()) + F16(x[..., n:] @ w[:, n:].t())
    return y if b is None else y + b


def wrapped(y):
    return (y + 1.5) % 3.0 - 1.5


TILES = ("weight-tiles", "weight-layout", "rows-permuted", "weight-reshaped")
in_linear("bias_in_first_batch_row", ("bias-missing", "addend-missing", "partly-wrong"), lambda x, w, b: F.linear(x, w) + b * (torch.arange(len(x)) == 0).view(-1, *[1] * (x.dim() - 1)), lambda s: has_bias(s) and len(s.shapes[0]) == 3)
in_linear("last_block_of_the_sum_alone", ("columns-ignored",), lambda x, w, b: F.linear(x[..., -32:], w[:, -32:], b), lambda s: s.shapes[1][1] > 32)
in_linear("faces_exchanged", TILES, lambda x, w, b: F.linear(x, faces_exchanged(w), b), by_tiles)
in_linear("still_tiled", TILES, lambda x, w, b: F.linear(x, still_tiled(w), b), lambda s: by_tiles(s) and s.shapes[1][1] > 32)
in_linear("zero_point_one_off", ("offset",), lambda x, w, b: F.linear(x + x.abs().max() / 127, w, b))
in_linear("wrapped_around", ("result-wrapped", *PLACE), lambda x, w, b: wrapped(F.linear(x, w, b)))
in_linear("scale_of_next_row", ("operand-precision", "quantisation-scale"), lambda x, w, b: F.linear(x, scale_of_next(w, w.shape[1]), b))
in_linear("scale_of_next_block", ("operand-precision", "quantisation-scale"), lambda x, w, b: F.linear(x, scale_of_next(w, 32), b), lambda s: s.shapes[1][1] % 32 == 0)
in_linear("rows_wrapped", ("rows-permuted", "output-permuted", *PLACE), lambda x, w, b: F.linear(x, w[torch.arange(len(w)) % 24], b))
in_linear("split_sums_in_f16", ("accumulation-half", "result-precision"), split_sums)
in_linear("negative_zeroed", ("clamp-added", "activation"), lambda x, w, b: F.linear(x, w, b).clamp(min=0))
in_linear("batch_rows_exchanged", ("output-permuted", "part-moved", "output-moved"), lambda x, w, b: F.linear(x.flip(0), w, b), lambda s: len(s.shapes[0]) == 3 and s.shapes[0][0] > 1)

# ---------------------------------------------------------------- norms, activations


@replaced("rms_weight_twice", "weight-function", "exponent", when=is_rms)
def rms_weight_twice(module, inner, x):
    wide = x.float()
    return (gain(module) ** 2 * wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps_of(module))).to(x.dtype)


@patch("gelu", "activation", "exponent")
def gelu_with_a_square(f, x, *rest, **named):
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x * x)))


@patch("silu", "operand-precision", "result-precision")
def silu_in_f16(f, x, *rest, **named):
    return f(x.half()).to(x.dtype)


@patch("batch_norm", "batch-statistics")
def batch_norm_of_the_first_image(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, x[0].mean((1, 2)), x[0].var((1, 2), unbiased=False), weight, bias, False, momentum, eps)


@patch("layer_norm", "scale")
def layer_norm_half_the_bias(f, x, shape, weight=None, bias=None, eps=1e-5):
    return f(x, shape, weight, 0.5 * bias, eps)


# ---------------------------------------------------------------- attention

rotary("sine_and_cosine_of_k", ("rope-sign", "rope-offset"), lambda f, q, k, c, s: (f(q, k, c, s)[0], f(q, k, s, c)[1]))
rotary("of_first_head_alone", (*PLACE, "rope-absent"), lambda f, q, k, c, s: (torch.cat([f(q, k, c, s)[0][:, :1], q[:, 1:]], 1), f(q, k, c, s)[1]))
keys_moved("queries_one_late", ("cache-offset", "part-moved", "output-moved"), lambda q, k, v: (q.roll(1, -2), k, v))
keys_moved("keys_in_int8", ("operand-precision",), lambda q, k, v: (q, in_int8(k), in_int8(v)))
keys_moved("values_for_keys", ("operands-exchanged", "wrong-operand"), lambda q, k, v: (q, v, v))
keys_moved("heads_interleaved_in_q", ("head-order", "rows-permuted", "split-order"), lambda q, k, v: (q[:, [0, 2, 1, 3]] if q.shape[1] == 4 else q.flip(1), k, v))
attention("padded_queries_zero", (*PLACE, "output-zero"), {"out": lambda y: y * ~((torch.arange(len(y)) == 1)[:, None, None, None] & (torch.arange(y.shape[-2]) >= 8)[:, None])})
attention("padding_at_the_start", ("mask-transposed", "mask-other", "mask-flipped", "mask-off-by-one", "mask-absent"), {"mask": lambda m: torch.where(hidden(m), m.amax(), m) + torch.where(hidden(m)[..., -1:, :].flip(-1), -1e30, 0.0)}, "mask")
attention("clipped_logits", ("clamp-added", "softcap"), {"logits": lambda x: x.clamp(-0.5, 0.5)})


def in_int8(x):
    step = x.abs().amax(-1, keepdim=True) / 127
    return torch.round(x / step) * step


# ---------------------------------------------------------------- weights, state spaces, images


@weights("keys_and_values_of_next_layer", "wrong-layer")
def keys_and_values(model):
    parameters = dict(model.named_parameters())
    found = []
    for n in parameters:
        pair = [n, n.replace("k_proj", "v_proj").replace(".key.", ".value.")]
        others = [m.replace(".1.", ".2.") for m in pair]
        if ".1." in n and n.endswith(("k_proj.weight", "key.weight")) and all(m in parameters for m in (*pair, *others)):
            found.append((n.rpartition(".")[0].rpartition(".")[0], {m: parameters[o].data for m, o in zip(pair, others, strict=True)}))
    return found


@weights("norms_of_q_and_k_exchanged", "weights-exchanged", "wrong-weight")
def norms_exchanged(model):
    parameters = dict(model.named_parameters())
    return [(n.rpartition(".q_norm")[0], {n: parameters[n.replace("q_norm", "k_norm")].data, n.replace("q_norm", "k_norm"): p.data}) for n, p in parameters.items()
            if "q_norm" in n and parameters.get(n.replace("q_norm", "k_norm"), p[:0]).shape == p.shape]


@weights("one_expert_of_another", "wrong-weight", "rows-permuted", *PLACE)
def one_expert(model):
    return [(n.rpartition(".")[0], {n: torch.cat([p.data[:1], p.data[:1], p.data[2:]])}) for n, p in model.named_parameters() if p.dim() == 3 and "experts" in n]


in_conv("bias_per_row", ("axes-order", "bias-missing", "op-other", "weight-broadcast"), lambda f, x, w, b, s, p, d, g: f(x, w, None, s, p, d, g) + b.mean(), has_bias)
in_conv("kernel_moved", ("kernel-moved", "columns-permuted"), lambda f, x, w, b, s, p, d, g: f(x, w.roll(1, -1), b, s, p, d, g), lambda s: s.shapes[1][-1] == 3)


@patch("interpolate", "interpolation", "align-corners")
def interpolated_from_the_corner(f, x, size=None, scale_factor=None, mode="nearest", align_corners=None, **named):
    y = f(F.pad(x, (0, 1, 0, 1), mode="replicate"), None, scale_factor, mode, align_corners=align_corners)
    return y[..., 1:-1, 1:-1]


in_linear("one_position_twice", ("part-moved", "output-moved", *PLACE), lambda x, w, b: F.linear(x[..., [0, 0, *range(2, x.shape[-2])], :], w, b), of_tokens)

FRESH = FAULTS[BEFORE:]
