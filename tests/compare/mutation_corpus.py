"""Ports that are right and ports that are wrong, made by seed: op x shape x dtype x input, the reference always real torch.

A right port computes the same in another order, with other libraries, in other pieces, or in float64 rounded once. A wrong one is a right port with one
fault. `judge` hands a pair to `auto` with what porting knows of a module of that kind: its condition scale, or a float64 run.
"""
import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from porting.golden import condition_factor
from porting.pair import compare_arrays
from porting.port import as_array
from porting.tolerance import condition_scale, linear_scale

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
INPUTS = ("normal", "shifted", "outliers", "tiny", "large")


@dataclass
class Case:
    """One reference with its right and wrong ports. compute: the same in the dtype of its arguments."""

    name: str
    kind: str
    arguments: tuple[torch.Tensor, ...]
    compute: Callable[..., torch.Tensor]
    scale: Any = None
    terms: int | None = None
    right: dict[str, torch.Tensor] = field(default_factory=dict)
    wrong: dict[str, torch.Tensor] = field(default_factory=dict)
    amplifies: bool = False  # judged by a float64 run, as composites and attention are

    def __post_init__(self):
        self.reference = self.compute(*self.arguments)
        self.expected = as_array(self.reference)
        self.golden = self.compute(*(x.double() for x in self.arguments)).numpy()
        self.right = {**others(self), **self.right}


def others(case):
    """What torch gives in another mood: one thread, without oneDNN, one row at a time, in float64."""
    found = {"float64 rounded once": torch.from_numpy(case.golden).to(case.reference.dtype)}
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as undo:
        undo.callback(torch.set_num_threads, threads)
        torch.set_num_threads(2 if threads == 1 else 1)
        found["other threads"] = case.compute(*case.arguments)
    with torch.backends.mkldnn.flags(enabled=False):
        found["no oneDNN"] = case.compute(*case.arguments)
    x, *rest = case.arguments
    if x.shape[0] > 1 and case.kind != "attention":
        found["row by row"] = torch.cat([case.compute(x[i:i + 1], *rest) for i in range(x.shape[0])])
    elif case.kind == "attention":
        found["head by head"] = torch.cat([case.compute(*(t[:, h:h + 1] for t in case.arguments)) for h in range(x.shape[1])], 1)
    if x.dtype in (torch.bfloat16, torch.float16):
        found["f32 rounded once"] = case.compute(*(t.float() for t in case.arguments)).to(x.dtype)
    return found


def judge(case, port, tol="auto"):
    """compare_arrays with what CallJudge would know."""
    actual = as_array(port) if isinstance(port, torch.Tensor) else port
    if not case.amplifies:
        return compare_arrays(case.expected, actual, tol=tol, kind=case.kind, scale=case.scale, terms=case.terms)
    found = compare_arrays(case.expected, actual, tol=tol, kind=case.kind, terms=case.terms, kappa=1.0)
    if found.status != "compared" or found.passed or tol not in ("auto", "strict"):
        return found
    return compare_arrays(case.expected, actual, tol=tol, kind=case.kind, terms=case.terms, kappa=condition_factor(case.expected, case.golden))


def draw(rng, shape, inputs, dtype):
    """One array of inputs: ordinary, with a mean, with a few large channels, or far from 1."""
    x = rng.standard_normal(shape)
    if inputs == "shifted":
        x = x + 2
    elif inputs == "outliers":
        x[..., :: max(2, shape[-1] // 3)] *= 30
    elif inputs == "tiny":
        x *= 2.0**-12 if dtype == torch.float16 else 2.0**-40
    elif inputs == "large":
        x *= 16 if dtype == torch.float16 else 2.0**20
    return torch.from_numpy(x).to(dtype)


def in_pieces(x, w, size):
    """x w^T with f32 sums of `size` products at a time (float64 for float64)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    x, w = x.to(wide), w.to(wide)
    return sum((x[..., k:k + size] @ w[..., k:k + size].mT for k in range(0, x.shape[-1], size)), torch.zeros((), dtype=wide))


def linear(rng, rows, size, inputs, dtype):
    x, w, b = draw(rng, (rows, size), inputs, dtype), draw(rng, (size + 3, size), "normal", dtype), draw(rng, (size + 3,), inputs, dtype)
    case = Case("linear", "linear", (x, w, b), F.linear, linear_scale(as_array(x), as_array(w), as_array(b)), size)
    wide = torch.promote_types(dtype, torch.float32)
    case.right |= {
        "blocks of 16": (in_pieces(x, w, 16) + b.to(wide)).to(dtype), "backwards": (in_pieces(x.flip(-1), w.flip(-1), size) + b.to(wide)).to(dtype),
        "left to right": (torch.cumsum(x.to(wide)[:, None] * w.to(wide), -1)[..., -1] + b.to(wide)).to(dtype),
        "other BLAS": torch.from_numpy(x.to(wide).numpy() @ w.to(wide).numpy().T + b.to(wide).numpy()).to(dtype),
        "turned": (w.to(wide) @ x.to(wide).mT).mT.add(b.to(wide)).to(dtype),
    }
    case.wrong |= {"next weight": F.linear(x, w.roll(1, 0), b), "weight scaled": F.linear(x, w * 1.25, b), "one term lost": F.linear(
        torch.cat([x[:, :-1], torch.zeros_like(x[:, :1])], 1), w, b)}
    case.wrong["bias dropped"] = F.linear(x, w)
    if dtype == torch.float32:
        case.wrong["bf16 weights"] = F.linear(x, w.bfloat16().float(), b)
    return case


def conv(rng, rows, size, inputs, dtype):
    x, w = draw(rng, (rows, 4, size), inputs, dtype), draw(rng, (6, 4, 5), "normal", dtype)
    wide = torch.promote_types(dtype, torch.float32)
    case = Case("conv", "linear", (x, w), lambda x, w: F.conv1d(x, w, padding=2), F.conv1d(x.to(wide).abs(), w.to(wide).abs(), padding=2).numpy(), 20)
    patches = F.pad(x, (2, 2)).to(wide).unfold(-1, 5, 1)
    case.right["as a product"] = torch.einsum("bclk,ock->bol", patches, w.to(wide)).to(dtype)
    case.wrong |= {"kernel turned": F.conv1d(x, w.flip(-1), padding=2), "moved": F.conv1d(F.pad(x, (1, 3)), w),
                   "next channel": F.conv1d(x, w.roll(1, 1), padding=2)}
    return case


def norm_input(rng, rows, size, inputs, dtype):
    return draw(rng, (rows, size), inputs, dtype), draw(rng, (size,), "normal", dtype), draw(rng, (size,), "normal", dtype)


def layer_norm(rng, rows, size, inputs, dtype):
    x, w, b = norm_input(rng, rows, size, inputs, dtype)
    eps = 0.0 if inputs == "tiny" else 1e-5

    def compute(x, w, b, eps=eps):
        return F.layer_norm(x, (x.shape[-1],), w, b, eps)

    case = Case("layer_norm", "layer_norm", (x, w, b), compute)
    case.scale, case.terms = condition_scale("layer_norm", case.expected, [as_array(x)], {"weight": as_array(w), "bias": as_array(b)})
    wide = torch.promote_types(dtype, torch.float32)
    v = x.to(wide)
    mean = torch.cumsum(v, -1)[:, -1:] / size
    d = v - mean
    deviation = torch.sqrt(torch.cumsum(d * d, -1)[:, -1:] / size + eps)
    case.right |= {"left to right": (d / deviation * w.to(wide) + b.to(wide)).to(dtype),
                   "reciprocal": (d * (1 / deviation) * w.to(wide) + b.to(wide)).to(dtype)}
    case.wrong |= {"no mean": (v / torch.sqrt((v * v).mean(-1, keepdim=True) + eps) * w.to(wide) + b.to(wide)).to(dtype) if inputs == "shifted" else
                   compute(x, w.roll(1), b), "weight left out": compute(x, torch.ones_like(w), b), "bias left out": compute(x, w, 0 * b)}
    if dtype in (torch.float32, torch.float64) and inputs != "large":
        case.wrong["unbiased"] = (d / torch.sqrt((d * d).sum(-1, keepdim=True) / (size - 1) + eps) * w + b).to(dtype)
    return case


def rms_norm(rng, rows, size, inputs, dtype):
    x, w, _ = norm_input(rng, rows, size, inputs, dtype)
    eps = 0.0 if inputs == "tiny" else 1e-6

    def compute(x, w, eps=eps):
        return F.rms_norm(x, (x.shape[-1],), w, eps)

    case = Case("rms_norm", "rms_norm", (x, w), compute)
    case.scale, case.terms = condition_scale("rms_norm", case.expected, [as_array(x)], {"weight": as_array(w)})
    wide = torch.promote_types(dtype, torch.float32)
    v = x.to(wide)
    case.right["left to right"] = (v * (1 / torch.sqrt(torch.cumsum(v * v, -1)[:, -1:] / size + eps)) * w.to(wide)).to(dtype)
    case.wrong |= {"1 + weight": compute(x, 1 + w), "next weight": compute(x, w.roll(1)), "mean taken off": compute(x - x.mean(-1, keepdim=True), w)}
    if dtype == torch.float32 and inputs in ("normal", "shifted"):
        case.wrong["eps"] = compute(x, w, 1e-3)
    return case


def softmax(rng, rows, size, inputs, dtype):
    x = draw(rng, (rows, size), "shifted" if inputs in ("tiny", "large") else inputs, dtype) * 3
    case = Case("softmax", "softmax", (x,), lambda x: torch.softmax(x, -1))
    case.scale, case.terms = condition_scale("softmax", case.expected, [as_array(x)], {})
    wide = torch.promote_types(dtype, torch.float32)
    v = x.to(wide)
    top = v.max(-1, keepdim=True).values
    powers = torch.exp(v - top)
    blocks = [torch.exp(part - top).sum(-1, keepdim=True) for part in v.split(7, -1)]
    case.right |= {"left to right": (powers * (1 / torch.cumsum(powers, -1)[:, -1:])).to(dtype), "in blocks": (powers / sum(blocks)).to(dtype),
                   "base 2": (torch.exp2((v - top) * 1.4426950408889634) / torch.exp2((v - top) * 1.4426950408889634).sum(-1, keepdim=True)).to(dtype)}
    case.wrong |= {"other axis": torch.softmax(x, 0), "scaled": torch.softmax(x * 1.0625, -1), "one left out": F.pad(torch.softmax(x[:, :-1], -1), (0, 1))}
    return case


def activation(function, name, wrong):
    def make(rng, rows, size, inputs, dtype):
        x = draw(rng, (rows, size), "normal" if inputs in ("tiny", "large") else inputs, dtype)
        case = Case(name, "activation", (x,), function)
        case.scale, case.terms = condition_scale("activation", case.expected, [as_array(x)], {}, name)
        case.wrong |= {"other function": wrong(x), "of 1.01 x": function(x * 1.0625)}
        return case
    make.__name__ = name
    return make


def attention(rng, rows, size, inputs, dtype):
    B, H, T, D = 1, 2, rows + 4, max(8, size // 8)
    q, k, v = (draw(rng, (B, H, T, D), "normal" if inputs in ("tiny", "large") else inputs, dtype) for _ in range(3))
    q, k = q / 2, k / 2

    def compute(q, k, v, scale=D**-0.5, causal=True):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    def blocked(q, k, v, size=5):
        """Online softmax over blocks of keys, sums in f32 or better."""
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (t.to(wide) for t in (q, k, v))
        top, total, out = torch.full((B, H, T, 1), -torch.inf, dtype=wide), torch.zeros((B, H, T, 1), dtype=wide), torch.zeros_like(q)
        mask = torch.ones(T, T, dtype=torch.bool).tril()
        for at in range(0, T, size):
            scores = (q @ k[:, :, at:at + size].mT * D**-0.5).masked_fill(~mask[:, at:at + size], -torch.inf)
            new = torch.maximum(top, scores.max(-1, keepdim=True).values)
            weights, fade = torch.exp(scores - new), torch.exp(top - new)
            total, out, top = total * fade + weights.sum(-1, keepdim=True), out * fade + weights @ v[:, :, at:at + size], new
        return (out / total).to(dtype)

    case = Case("attention", "attention", (q, k, v), compute, terms=T, amplifies=True)
    case.right |= {"blocked": blocked(q, k, v), "blocked by 3": blocked(q, k, v, 3)}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        if dtype in (torch.float32, torch.float64):  # in half types it rounds its scores: another algorithm
            case.right["unfused"] = compute(q, k, v)
    case.wrong |= {"no mask": compute(q, k, v, causal=False), "keys of the next head": compute(q, k.roll(1, 1), v),
                   "values moved": compute(q, k, v.roll(1, 2))}
    if inputs != "outliers":  # scores so large choose one key, whatever they are multiplied by
        case.wrong["no scale"] = compute(q, k, v, 1.0)
    return case


def mlp(rng, rows, size, inputs, dtype):
    x = draw(rng, (rows, size), "normal" if inputs in ("tiny", "large") else inputs, dtype)
    w1, w2 = (draw(rng, shape, "normal", dtype) / size**0.5 for shape in ((2 * size, size), (size, 2 * size)))

    def compute(x, w1, w2, act=F.gelu, residual=True):
        out = F.linear(act(F.linear(x, w1)), w2)
        return x + out if residual else out

    case = Case("mlp", "composite", (x, w1, w2), compute, terms=4, amplifies=True)
    wide = torch.promote_types(dtype, torch.float32)
    if dtype in (torch.float32, torch.float64):
        hidden = F.gelu(in_pieces(x, w1, 16).to(dtype))
        case.right |= {"blocks of 16": x + in_pieces(hidden, w2, 16).to(dtype), "backwards": x + in_pieces(hidden.flip(-1), w2.flip(-1), 2 * size).to(dtype)}
    case.wrong |= {"no residual": compute(x, w1, w2, residual=False), "tanh": compute(x, w1, w2, torch.tanh), "hidden turned": compute(x, w1.flip(0), w2)}
    if dtype == torch.float32:
        case.wrong["bf16 weights"] = compute(x, w1.bfloat16().to(wide), w2)
    return case


MAKERS = [linear, conv, layer_norm, rms_norm, softmax, activation(F.gelu, "gelu", F.silu), activation(F.silu, "silu", torch.sigmoid),
          activation(torch.tanh, "tanh", torch.sigmoid), attention, mlp]
SHAPES = [(4, 16), (3, 33), (8, 64), (2, 384)]


def cases(shapes=SHAPES, dtypes=tuple(DTYPES), inputs=("normal", "outliers"), seeds=(0,)):
    """Every op x shape x dtype x input, each from a seed of its own name."""
    for maker in MAKERS:
        for rows, size in shapes:
            for dtype in dtypes:
                for word in inputs:
                    for seed in seeds:
                        name = f"{maker.__name__} ({rows}, {size}) {dtype} {word} #{seed}"
                        case = maker(np.random.default_rng(zlib.crc32(name.encode())), rows, size, word, DTYPES[dtype])
                        case.name = name
                        yield case


def faults(case):
    """Name to a wrong port: those of the op, and what may happen to any output."""
    e = case.reference
    rng = np.random.default_rng(zlib.crc32(case.name.encode()) + 1)
    spread = e.double().std().item()
    found = dict(case.wrong)
    i, k = (int(n) for n in rng.choice(e.shape[-2], 2, replace=False))
    swapped = e.clone()
    swapped[..., [i, k], :] = e[..., [k, i], :]
    channel, element, row = e.clone(), e.clone(), e.clone()
    sizes = (e.double() ** 2).reshape(-1, e.shape[-1]).sum(0)
    channel[..., int(sizes.argsort()[e.shape[-1] // 2])] = 0  # a smaller one may be less than the noise that a preset allows
    flat = int(np.argmax(np.abs(as_array(e).astype("f8"))))
    element.view(-1)[flat] *= -1
    rows = (e.double() ** 2).reshape(-1, *e.shape[-2:]).sum((0, 2))
    row[..., int(rows.argsort()[e.shape[-2] // 2]), :] *= 1.5
    found |= {
        "zeros": torch.zeros_like(e), "NaN": torch.full_like(e, torch.nan), "3x + 7": 3 * e + 7, "two rows swapped": swapped, "one channel 0": channel,
        "one sign": element, "one row scaled": row, "offset": e + spread, "constant": torch.full_like(e, e.double().mean().item()), "moved": e.roll(1, -1),
        "noise": (e.double() + spread / 4 * torch.from_numpy(rng.standard_normal(e.shape))).to(e.dtype), "signs": -e,
    }
    # A fault that changes nothing (rows that are equal, a sign of 0) is none.
    return {name: port for name, port in found.items() if not torch.equal(port, e)}
