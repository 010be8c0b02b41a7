"""Faults made with torch code that knows nothing of the generators: each must be named, alone or among causes that give the same numbers."""
import copy
import math

import pytest
import torch
from diagnose_tools import causes, drawn, noise, why
from torch import nn
from torch.nn import functional as F

CASES = []


def fault(cause, make, *inputs):
    """Registers a port, made from the reference module, that has the fault."""

    def register(port):
        CASES.append(pytest.param(cause, make, port, inputs, id=f"{cause}-{port.__name__}"))
        return port

    return register


def changed(module, **values):
    """A copy of the module with other attributes or parameters ("0.weight" as "0__weight")."""
    other = copy.deepcopy(module)
    for name, value in values.items():
        *path, leaf = name.split("__")
        owner = other.get_submodule(".".join(path))
        setattr(owner, leaf, nn.Parameter(value.contiguous(), requires_grad=False) if isinstance(getattr(owner, leaf), nn.Parameter) else value)
    return other


# ---------------------------------------------------------------- modules


class RMSNorm(nn.Module):
    def __init__(self, n=24, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(dtype)


class NewGelu(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, n=24, norm=None):
        super().__init__()
        self.norm = norm or nn.LayerNorm(n)
        self.fc = nn.Linear(n, n)

    def forward(self, x):
        return x + torch.tanh(self.fc(self.norm(x)))


class PostBlock(Block):
    def forward(self, x):
        return self.norm(x + self.fc(x))


class Gated(nn.Module):
    def __init__(self, n=16, m=40):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(n, m, bias=False), nn.Linear(n, m, bias=False), nn.Linear(m, n, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def tables(positions, size, base=10000.0):
    angles = positions[:, None].double() * base ** (-torch.arange(0, size, 2).double() / size)
    return angles.cos().float(), angles.sin().float()


def half_rope(x, cos, sin):
    size = 2 * cos.shape[-1]
    a, b, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def pair_rope(x, cos, sin):
    size = 2 * cos.shape[-1]
    a, b = x[..., :size:2], x[..., 1:size:2]
    return torch.cat([torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2), x[..., size:]], -1)


class Attention(nn.Module):
    """Written out or fused, causal or not, with grouped heads and rotary embeddings as wanted."""

    def __init__(self, heads=4, groups=4, size=8, fused=True, causal=False, rope=None, rotary=8, cap=0.0, masked=None, start=0, window=0):
        super().__init__()
        self.h, self.g, self.d, self.fused, self.causal, self.rope, self.rotary, self.cap = heads, groups, size, fused, causal, rope, rotary, cap
        n = heads * size
        self.q, self.k, self.v, self.o = nn.Linear(n, n), nn.Linear(n, groups * size), nn.Linear(n, groups * size), nn.Linear(n, n)
        self.masked, self.start, self.window, self.base, self.scale = masked, start, window, 10000.0, size**-0.5
        self.order, self.merge, self.axis, self.sign, self.sink, self.soft = "repeat", True, -1, 1, False, torch.float32

    def mask(self, t):
        seen = torch.ones(t, t, dtype=torch.bool)
        if self.causal:
            seen = seen.tril()
        if self.window:
            seen = seen & torch.ones(t, t, dtype=torch.bool).triu(1 - self.window)
        if self.masked:
            seen = seen & (torch.arange(t) < t - self.masked)
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, -1, self.d).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.rope is not None:
            cos, sin = tables(torch.arange(t) + self.start, self.rotary, self.base)
            q, k = self.rope(q, cos, self.sign * sin), self.rope(k, cos, self.sign * sin)
        if self.g != self.h:
            n = self.h // self.g
            k, v = (self.repeat(y, n) for y in (k, v))
        y = self.attend(q, k, v, t)
        y = y.transpose(1, 2) if self.merge else y
        return self.o(y.reshape(b, t, -1))

    def repeat(self, y, n):
        b, g, t, d = y.shape
        return y[:, :, None].expand(b, g, n, t, d).reshape(b, g * n, t, d) if self.order == "repeat" else y.repeat(1, n, 1, 1)

    def attend(self, q, k, v, t):
        if self.fused:
            plain_causal = self.causal and not self.masked and not self.window
            mask = None if plain_causal or not (self.masked or self.window) else self.mask(t)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plain_causal, scale=self.scale)
        logits = q @ k.transpose(-1, -2) * self.scale
        if self.cap:
            logits = torch.tanh(logits / self.cap) * self.cap
        if self.causal or self.masked or self.window:
            logits = logits + self.mask(t)
        if self.sink:
            return (logits.exp() / (1 + logits.exp().sum(-1, keepdim=True))) @ v
        return torch.softmax(logits.to(self.soft), self.axis).float() @ v


def attention(**options):
    return lambda: drawn(Attention(**options), scale=1.0)


def layers(*make):
    return lambda: drawn(nn.Sequential(*[m() for m in make]))


X = noise(2, 6, 24)
Q = noise(2, 7, 32)
IMAGE = noise(2, 8, 9, 9)
IDS = torch.randint(2, 30, (2, 7), generator=torch.Generator().manual_seed(3))


# ---------------------------------------------------------------- constants and activations

for name, make in {"layer": lambda: nn.LayerNorm(24), "rms": RMSNorm, "torch_rms": lambda: nn.RMSNorm(24, eps=1e-5)}.items():
    def port(m):
        return changed(m, eps=1e-3)

    port.__name__ = name
    fault("eps", lambda make=make: drawn(make()), X * 0.1)(port)


@fault("eps", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def batch_eps(m):
    return changed(m, eps=1e-3)


@fault("eps", lambda: drawn(nn.GroupNorm(2, 8)), IMAGE)
def group_eps(m):
    return changed(m, eps=1e-3)


@fault("eps", lambda: drawn(RMSNorm()), X)
def unusual_eps(m):
    return changed(m, eps=7e-3)


@fault("eps-outside-root", lambda: drawn(RMSNorm(eps=1e-3)), X)
def outside(m):
    return lambda x: m.weight * (x / (x.pow(2).mean(-1, keepdim=True).sqrt() + m.eps))


@fault("eps-outside-root", lambda: drawn(RMSNorm(eps=1e-4)), X * 0.1)
def outside_small(m):
    return lambda x: m.weight * (x / (x.pow(2).mean(-1, keepdim=True).sqrt() + m.eps))


for make, other in ((nn.GELU, nn.SiLU), (NewGelu, nn.GELU), (NewGelu, nn.SiLU), (nn.GELU, lambda: nn.GELU("tanh")), (nn.ReLU, nn.GELU), (nn.SiLU, nn.Mish), (nn.LeakyReLU, nn.ReLU), (nn.Hardswish, nn.SiLU)):
    def port(m, other=other):
        return other()

    port.__name__ = f"{make.__name__}_{other.__name__}"
    fault("activation", make, X)(port)


@fault("slope", nn.ReLU, X)
def relu_slope(m):
    return nn.LeakyReLU(0.2)


@fault("clamp-added", nn.ReLU, 5 * X)
def relu6(m):
    return nn.ReLU6()


@fault("constant", lambda: nn.LeakyReLU(0.3), X)
def leaky_slope(m):
    return nn.LeakyReLU(0.17)


class Scaled(nn.Module):
    def __init__(self, factor=3.0):
        super().__init__()
        self.factor, self.fc = factor, nn.Linear(24, 24)

    def forward(self, x):
        return torch.tanh(self.fc(x) * self.factor + 1)


@fault("scale", lambda: drawn(Scaled()), X)
def no_factor(m):
    return changed(m, factor=1.0)


@fault("scale", lambda: drawn(Scaled()), X)
def odd_factor(m):
    return changed(m, factor=2.7)


@fault("offset", lambda: drawn(Scaled()), X)
def no_offset(m):
    return lambda x: torch.tanh(m.fc(x) * m.factor)


# ---------------------------------------------------------------- norms and structure


@fault("mean-not-subtracted", lambda: drawn(nn.LayerNorm(24)), X)
def as_rms(m):
    return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps) * m.weight + m.bias


@fault("mean-subtracted", lambda: drawn(RMSNorm()), X)
def as_layer(m):
    return lambda x: F.layer_norm(x, (24,), m.weight, None, m.eps)


@fault("mean-subtracted", lambda: drawn(Block(norm=RMSNorm())), X)
def as_layer_inside(m):
    return lambda x: x + torch.tanh(m.fc(F.layer_norm(x, (24,), m.norm.weight, None, m.norm.eps)))


@fault("variance-unbiased", lambda: drawn(nn.LayerNorm(24)), X)
def unbiased(m):
    return lambda x: (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + m.eps) * m.weight + m.bias


@fault("variance-unbiased", lambda: drawn(RMSNorm()), X)
def unbiased_rms(m):
    return lambda x: m.weight * x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / 23 + m.eps)


@fault("norm-axis", lambda: drawn(nn.LayerNorm(24)), X)
def other_axis(m):
    return lambda x: F.layer_norm(x.transpose(1, 2), (6,), None, None, m.eps).transpose(1, 2) * m.weight + m.bias


@fault("norm-axis", lambda: drawn(RMSNorm()), X)
def rms_other_axis(m):
    return lambda x: m.weight * x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + m.eps)


@fault("norm-missing", lambda: drawn(Block()), X)
def norm_missing(m):
    return lambda x: x + torch.tanh(m.fc(x))


@fault("norm-missing", lambda: drawn(Block(norm=RMSNorm())), X)
def rms_missing(m):
    return lambda x: x + torch.tanh(m.fc(x))


@fault("norm-groups", lambda: drawn(nn.GroupNorm(2, 8)), IMAGE)
def one_group(m):
    return lambda x: F.group_norm(x, 1, m.weight, m.bias, m.eps)


@fault("norm-groups", lambda: drawn(nn.GroupNorm(2, 8)), IMAGE)
def instance(m):
    return lambda x: F.group_norm(x, 8, m.weight, m.bias, m.eps)


@fault("weight-ignored", lambda: drawn(RMSNorm()), X)
def rms_weight(m):
    return changed(m, weight=torch.ones(24))


@fault("weight-ignored", lambda: drawn(nn.LayerNorm(24)), X)
def layer_weight(m):
    return changed(m, weight=torch.ones(24))


@fault("weight-plus-one", lambda: drawn(RMSNorm()), X)
def plus_one(m):
    return changed(m, weight=m.weight + 1)


@fault("weight-plus-one", lambda: drawn(Block(norm=RMSNorm())), X)
def plus_one_inside(m):
    return changed(m, norm__weight=m.norm.weight + 1)


@fault("residual-placement", lambda: drawn(Block()), X)
def residual_after(m):
    return lambda x: m.norm(x) + torch.tanh(m.fc(m.norm(x)))


@fault("residual-placement", lambda: drawn(PostBlock()), X)
def norm_before(m):
    return lambda x: x + m.norm(m.fc(x))


@fault("residual-placement", lambda: drawn(Block(norm=RMSNorm())), X)
def residual_after_rms(m):
    return lambda x: m.norm(x) + torch.tanh(m.fc(m.norm(x)))


@fault("addend-missing", lambda: drawn(Block()), X)
def residual_dropped(m):
    return lambda x: torch.tanh(m.fc(m.norm(x)))


@fault("addend-doubled", lambda: drawn(Block()), X)
def residual_doubled(m):
    return lambda x: x + m(x)


@fault("addend-missing", lambda: drawn(PostBlock()), X)
def residual_dropped_post(m):
    return lambda x: m.norm(m.fc(x))


@fault("addend-doubled", lambda: drawn(PostBlock()), X)
def residual_doubled_post(m):
    return lambda x: m.norm(2 * x + m.fc(x))


@fault("op-order", lambda: drawn(Scaled()), X)
def add_first(m):
    return lambda x: torch.tanh((m.fc(x) + 1) * m.factor)


@fault("op-missing", lambda: drawn(Block()), X)
def no_tanh(m):
    return lambda x: x + m.fc(m.norm(x))


@fault("statistics-ignored", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def no_mean(m):
    return changed(m, running_mean=torch.zeros(8))


@fault("statistics-ignored", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def no_variance(m):
    return changed(m, running_var=torch.ones(8))


@fault("batch-statistics", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def training(m):
    return copy.deepcopy(m).train()


@fault("root-missing", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def by_variance(m):
    return lambda x: m((x - m.running_mean.view(1, -1, 1, 1)) / (m.running_var + m.eps).view(1, -1, 1, 1).sqrt() + m.running_mean.view(1, -1, 1, 1))


@fault("fold", layers(lambda: nn.Conv2d(8, 8, 3), lambda: nn.BatchNorm2d(8)), IMAGE)
def unscaled_bias(m):
    conv, norm = m
    f = norm.weight / (norm.running_var + norm.eps).sqrt()
    return changed(m, **{"0__weight": conv.weight * f.view(-1, 1, 1, 1), "0__bias": conv.bias + norm.bias - norm.running_mean * f})[0]


@fault("fold", layers(lambda: nn.Conv2d(8, 8, 3), lambda: nn.BatchNorm2d(8)), IMAGE)
def wrong_axis(m):
    conv, norm = m
    f = norm.weight / (norm.running_var + norm.eps).sqrt()
    return changed(m, **{"0__weight": conv.weight * f.view(1, -1, 1, 1), "0__bias": (conv.bias - norm.running_mean) * f + norm.bias})[0]


# ---------------------------------------------------------------- weights


def linear():
    return drawn(nn.Linear(24, 24))


@fault("weight-transposed", linear, X)
def transposed(m):
    return changed(m, weight=m.weight.t())


@fault("weight-transposed", lambda: drawn(Gated(16, 16)), noise(3, 16))
def up_transposed(m):
    return changed(m, up__weight=m.up.weight.t())


@fault("weight-reshaped", lambda: drawn(nn.Linear(24, 32)), X)
def reshaped(m):
    return changed(m, weight=m.weight.t().reshape(32, 24))


@fault("bias-missing", linear, X)
def no_bias(m):
    return changed(m, bias=torch.zeros(24))


@fault("bias-doubled", linear, X)
def two_biases(m):
    return changed(m, bias=2 * m.bias)


@fault("rows-permuted", linear, X)
def rows_rolled(m):
    return changed(m, weight=m.weight.roll(1, 0))


@fault("rows-permuted", attention(), Q)
def heads_inside(m):
    return changed(m, q__weight=m.q.weight.view(4, 8, 32).transpose(0, 1).reshape(32, 32))


@fault("columns-permuted", linear, X)
def columns_reversed(m):
    return changed(m, weight=m.weight.flip(1))


@fault("weights-exchanged", lambda: drawn(Gated()), noise(3, 16))
def gate_and_up(m):
    return changed(m, gate__weight=m.up.weight, up__weight=m.gate.weight)


@fault("weights-exchanged", attention(), Q)
def q_and_k(m):
    return changed(m, q__weight=m.k.weight, k__weight=m.q.weight)


@fault("wrong-weight", lambda: drawn(Gated()), noise(3, 16))
def gate_twice(m):
    return changed(m, up__weight=m.gate.weight)


@fault("weight-sign", linear, X)
def negated_weight(m):
    return changed(m, weight=-m.weight)


@fault("weight-doubled", linear, X)
def doubled_weight(m):
    return changed(m, weight=2 * m.weight)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 24)
        self.layers = nn.ModuleList([nn.Linear(24, 24) for _ in range(4)])
        self.head = nn.Linear(24, 30, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


@fault("wrong-layer", lambda: drawn(Stack()), IDS)
def next_layer(m):
    return changed(m, layers__1__weight=m.layers[2].weight)


@fault("wrong-layer", lambda: drawn(Stack()), IDS)
def far_layer(m):
    return changed(m, layers__3__weight=m.layers[0].weight)


@fault("wrong-layer", lambda: drawn(Stack()), IDS)
def weights_of_next(m):
    return changed(m, layers__1__weight=m.layers[2].weight, layers__1__bias=m.layers[2].bias)


@fault("tied-weight", lambda: drawn(Stack()), IDS)
def tied(m):
    return changed(m, head__weight=m.embed.weight)


class Scoring(nn.Module):
    def __init__(self):
        super().__init__()
        self.lm_head, self.embed_tokens = nn.Linear(24, 30, bias=False), nn.Embedding(30, 24)

    def forward(self, ids):
        return self.lm_head(self.embed_tokens(ids))


@fault("tied-weight", lambda: drawn(Scoring()), IDS)
def embedding_of_head(m):
    return changed(m, embed_tokens__weight=m.lm_head.weight)


# ---------------------------------------------------------------- rounding points


def half(x, dtype=torch.bfloat16):
    return x.to(dtype).float()


for dtype in (torch.bfloat16, torch.float16):
    def weight_in(m, dtype=dtype):
        return changed(m, weight=half(m.weight, dtype))

    def result_in(m, dtype=dtype):
        return lambda x: half(m(x), dtype)

    def both_in(m, dtype=dtype):
        return lambda x: F.linear(half(x, dtype), half(m.weight, dtype), m.bias)

    def probabilities_in(m, dtype=dtype):
        return changed(m, soft=dtype)

    for port, cause, make, x in ((weight_in, "operand-precision", linear, X), (result_in, "result-precision", linear, X), (both_in, "operand-precision", linear, X),
                                 (probabilities_in, "softmax-precision", attention(fused=False), Q)):  # fmt: skip
        port.__name__ += str(dtype)[6:]
        fault(cause, make, x)(port)


@fault("accumulation-half", lambda: drawn(nn.Linear(64, 8, bias=False)), noise(5, 64))
def sums_in_half(m):
    def port(x):
        total = torch.zeros(5, 8, dtype=torch.float16)
        for k in range(64):
            total = (total.float() + x[:, k : k + 1] * m.weight[:, k]).half()
        return total.float()

    return port


@fault("accumulation-half", lambda: drawn(nn.Linear(64, 8, bias=False)), noise(5, 64))
def sums_in_blocks(m):
    def port(x):
        total = torch.zeros(5, 8)
        for k in range(0, 64, 16):
            total = half(total + x[:, k : k + 16] @ m.weight[:, k : k + 16].t())
        return total

    return port


def int8(w, axis):
    step = w.abs().amax(axis, keepdim=True) / 127 if axis is not None else w.abs().max() / 127
    return torch.round(w / step) * step


def wide_linear():
    return drawn(nn.Linear(64, 32))


for label, axis in (("per_row", 1), ("per_tensor", None)):
    def port(m, axis=axis):
        return changed(m, weight=int8(m.weight, axis))

    port.__name__ = f"int8_{label}"
    fault("operand-precision", wide_linear, noise(5, 64))(port)


@fault("operand-precision", wide_linear, noise(5, 64))
def dynamic_int8(m):
    return lambda x: F.linear(int8(x, -1), int8(m.weight, 1), m.bias)


@fault("operand-precision", wide_linear, noise(5, 64))
def blocks_q8(m):
    w = m.weight.view(32, 2, 32)
    d = w.abs().amax(-1, keepdim=True) / 127
    return changed(m, weight=(torch.round(w / d) * half(d, torch.float16)).view(32, 64))


@fault("operand-precision", wide_linear, noise(5, 64))
def blocks_q4(m):
    w = m.weight.view(-1, 32)
    d = w.gather(1, w.abs().argmax(1, keepdim=True)) / -8
    q = (w / d + 8.5).floor().clamp(max=15)
    return changed(m, weight=((q - 8) * half(d, torch.float16)).view(32, 64))


@fault("operand-precision", wide_linear, noise(5, 64))
def blocks_q4_1(m):
    w = m.weight.view(-1, 32)
    low = w.amin(1, keepdim=True)
    d = (w.amax(1, keepdim=True) - low) / 15
    return changed(m, weight=(((w - low) / d + 0.5).floor().clamp(max=15) * half(d, torch.float16) + half(low, torch.float16)).view(32, 64))


@fault("operand-precision", linear, X)
def tensor_cores(m):
    def tf32(x):
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    return lambda x: F.linear(tf32(x), tf32(m.weight), m.bias)


@fault("computed-in-half", lambda: drawn(Gated()), noise(9, 16))
def all_bf16(m):
    return lambda x: copy.deepcopy(m).bfloat16()(x.bfloat16()).float()


# ---------------------------------------------------------------- attention and positions

MASKED = {"fused": attention(causal=True), "written": attention(causal=True, fused=False)}
for label, make in MASKED.items():
    def mask_absent(m):
        return changed(m, causal=False)

    def scale_missing(m):
        return changed(m, scale=1.0)

    def scale_squared(m):
        return changed(m, scale=m.scale**2)

    def head_merge(m):
        return changed(m, merge=False)

    def window(m):
        return changed(m, window=3)

    def off_by_one(m):
        other = copy.deepcopy(m)
        other.fused = False
        other.mask = lambda t: torch.where(torch.ones(t, t).tril(1) > 0, 0.0, -torch.inf)
        return other

    def weak(m):
        other = copy.deepcopy(m)
        other.fused = False
        other.mask = lambda t: torch.where(torch.ones(t, t).tril() > 0, 0.0, -10.0)
        return other

    def axis(m):
        return changed(m, fused=False, axis=-2)

    def sink(m):
        return changed(m, fused=False, sink=True)

    def softcap(m):
        return changed(m, fused=False, cap=30.0)

    for cause, port in {"mask-absent": mask_absent, "attention-scale": scale_missing, "head-order": head_merge, "window-added": window, "mask-off-by-one": off_by_one,
                        "mask-weak": weak, "softmax-axis": axis, "sink": sink, "softcap": softcap}.items():  # fmt: skip
        port.__name__ += f"_{label}"
        fault(cause, make, Q)(port)
    scale_squared.__name__ += f"_{label}"
    fault("attention-scale", make, Q)(scale_squared)

for label, fused in (("fused", True), ("written", False)):
    def padding_ignored(m):
        return changed(m, masked=None)

    def window_ignored(m):
        return changed(m, window=0)

    def window_one_more(m):
        return changed(m, window=4)

    def all_ignored(m):
        return changed(m, masked=None)

    def causal_added(m):
        return changed(m, causal=True)

    def tiled(m):
        return changed(m, order="tile")

    for cause, port, options in (("mask-padding-ignored", padding_ignored, {"causal": True, "masked": 2}), ("window-ignored", window_ignored, {"causal": True, "window": 3}),
                                 ("window-off-by-one", window_one_more, {"causal": True, "window": 3}), ("mask-absent", all_ignored, {"masked": 2}),
                                 ("mask-causal", causal_added, {}), ("gqa-order", tiled, {"groups": 2})):  # fmt: skip
        port.__name__ += f"_{label}"
        fault(cause, attention(fused=fused, **options), Q)(port)


@fault("softcap-missing", attention(fused=False, cap=5.0), 3 * Q)
def cap_ignored(m):
    return changed(m, cap=0.0)


@fault("softcap-missing", attention(fused=False, cap=2.0, causal=True), Q)
def cap_ignored_causal(m):
    return changed(m, cap=0.0)


ROPES = {"half": half_rope, "pairs": pair_rope}
for label, rope in ROPES.items():
    other = pair_rope if rope is half_rope else half_rope

    def layout(m, other=other):
        return changed(m, rope=other)

    def absent(m):
        return changed(m, rope=None)

    def sign(m):
        return changed(m, sign=-1)

    def offset(m):
        return changed(m, start=1)

    def base(m):
        return changed(m, base=500000.0)

    def query_alone(m, rope=rope):
        return changed(m, rope=lambda x, c, s: rope(x, c, s) if x.shape[1] == 4 else x)

    def whole(m):
        return changed(m, rotary=8)

    def one_position_on(m, rope=rope):
        # equal offsets of q and k cancel: only the keys' positions are wrong
        other = copy.deepcopy(m)
        calls = []

        def moved(x, c, s):
            calls.append(1)
            return rope(x, *tables(torch.arange(x.shape[-2]) + (len(calls) % 2 == 0), m.rotary)) if x.shape[1] != 4 or True else x

        other.rope = moved
        return other

    for cause, port, options in (("rope-interleaved", layout, {}), ("rope-absent", absent, {}), ("rope-sign", sign, {}), ("rope-base", base, {}),
                                 ("rope-partial", whole, {"rotary": 4}), ("rope-offset", one_position_on, {}), ("rope-absent", query_alone, {"groups": 2})):  # fmt: skip
        port.__name__ += f"_{label}"
        fault(cause, attention(rope=rope, **options), Q)(port)


class Angles(nn.Module):
    """Tables of angles from positions, as models make them."""

    def __init__(self, base=10000.0, scaled=1.0):
        super().__init__()
        self.register_buffer("inv_freq", base ** (-torch.arange(0, 16, 2).float() / 16) / torch.tensor([1.0] * 4 + [scaled] * 4))

    def forward(self, positions):
        angles = positions[:, :, None].float() * self.inv_freq[None, None, :]
        both = torch.cat([angles, angles], -1)
        return both.cos(), both.sin()


POSITIONS = torch.arange(5, 12)[None]


@fault("rope-base", lambda: Angles().eval(), POSITIONS)
def table_base(m):
    return Angles(base=1000000.0)


@fault("rope-scaling", lambda: Angles(scaled=8.0).eval(), POSITIONS)
def scaling_ignored(m):
    return Angles()


@fault("rope-scaling", lambda: Angles().eval(), POSITIONS)
def linear_scaling(m):
    return changed(m, inv_freq=m.inv_freq / 4)


@fault("position-offset", lambda: Angles().eval(), POSITIONS)
def cache_ignored(m):
    return lambda p: m(p - 5)


@fault("position-offset", lambda: Angles().eval(), POSITIONS)
def one_further(m):
    return lambda p: m(p + 1)


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.types = nn.Embedding(40, 16), nn.Embedding(2, 16)

    def forward(self, ids, types):
        return self.words(ids) + self.types(types)


TYPES = (torch.arange(7) > 3).long().expand(2, 7).contiguous()


@fault("embedding-offset", lambda: drawn(nn.Embedding(40, 16)), IDS)
def index_off(m):
    return lambda ids: m(ids + 1)


@fault("embedding-offset", lambda: drawn(nn.Embedding(40, 16)), IDS)
def index_off_by_two(m):
    return lambda ids: m(ids + 2)


@fault("embedding-ignored", lambda: drawn(Embeddings()), IDS, TYPES)
def types_ignored(m):
    return lambda ids, types: m(ids, 0 * types)


@fault("embedding-scale", lambda: drawn(nn.Embedding(40, 16)), IDS)
def scaled_embedding(m):
    return lambda ids: m(ids) * 4.0


@fault("embedding-scale", lambda: drawn(Embeddings()), IDS, TYPES)
def scaled_words(m):
    return lambda ids, types: m.words(ids) * 4.0 + m.types(types)


# ---------------------------------------------------------------- layout and convolution


@fault("axes-exchanged", lambda: drawn(nn.Linear(24, 6)), noise(6, 24))
def axes(m):
    return lambda x: m(x).t()


@fault("output-permuted", lambda: drawn(nn.Linear(24, 6)), noise(5, 24))
def permuted(m):
    return lambda x: m(x)[:, [2, 0, 1, 5, 4, 3]]


@fault("head-order", attention(), Q)
def merged_in_place(m):
    return changed(m, merge=False)


@fault("head-order", attention(fused=False), Q)
def split_the_other_way(m):
    other = copy.deepcopy(m)

    def forward(x):
        b, t, _ = x.shape
        q = m.q(x).view(b, t, 8, 4).permute(0, 3, 1, 2)
        k, v = (f(x).view(b, t, 4, 8).transpose(1, 2) for f in (m.k, m.v))
        return m.o(m.attend(q, k, v, t).transpose(1, 2).reshape(b, t, -1))

    other.forward = forward
    return other


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (y.reshape(b, t, 4, 8).transpose(1, 2) for y in self.split(self.qkv(x)))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, 32))

    def split(self, y):
        return y.split(32, -1)


@fault("split-order", lambda: drawn(Fused()), Q)
def kvq(m):
    return changed(m, split=lambda y: y.split(32, -1)[::-1])


@fault("split-order", lambda: drawn(Fused()), Q)
def head_by_head(m):
    return changed(m, split=lambda y: y.view(2, 7, 4, 3, 8).unbind(3))


def conv(**options):
    return lambda: drawn(nn.Conv2d(8, 8, 3, **options))


@fault("kernel-flipped", conv(), IMAGE)
def flipped(m):
    return changed(m, weight=m.weight.flip(2, 3))


@fault("kernel-flipped", lambda: drawn(nn.Conv1d(8, 4, 3)), noise(2, 8, 11))
def flipped_1d(m):
    return changed(m, weight=m.weight.flip(2))


@fault("kernel-transposed", conv(), IMAGE)
def spatial_transposed(m):
    return changed(m, weight=m.weight.transpose(2, 3))


@fault("weight-transposed", conv(), IMAGE)
def channels_transposed(m):
    return changed(m, weight=m.weight.transpose(0, 1))


@fault("weight-layout", lambda: drawn(nn.Conv2d(8, 4, 3)), IMAGE)
def hwio(m):
    return changed(m, weight=m.weight.permute(2, 3, 1, 0).reshape(4, 8, 3, 3))


@fault("padding", conv(padding=1), IMAGE)
def reflected(m):
    return lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), m.weight, m.bias)


@fault("padding", conv(padding=1, stride=2), IMAGE)
def padded_after(m):
    return lambda x: F.conv2d(F.pad(x, (0, 2, 0, 2)), m.weight, m.bias, stride=2)


@fault("padding", lambda: drawn(nn.Conv1d(8, 4, 3, padding=1)), noise(2, 8, 11))
def causal_conv(m):
    return lambda x: F.conv1d(F.pad(x, (2, 0)), m.weight, m.bias)


@fault("dilation", conv(padding=1), IMAGE)
def dilated(m):
    return lambda x: F.conv2d(x, m.weight, m.bias, padding=2, dilation=2)


@fault("dilation", conv(padding=2, dilation=2), IMAGE)
def not_dilated(m):
    return lambda x: F.conv2d(x, m.weight, m.bias, padding=1)


@fault("stride", conv(stride=2), noise(2, 8, 7, 7))
def not_strided(m):
    return lambda x: F.conv2d(x, m.weight, m.bias, stride=3, padding=1)


@fault("groups-order", conv(groups=4), IMAGE)
def groups_in_turns(m):
    return lambda x: m(x.view(2, 2, 4, 9, 9).transpose(1, 2).reshape(2, 8, 9, 9))


@fault("groups-order", conv(groups=2), IMAGE)
def groups_out_in_turns(m):
    return lambda x: m(x).view(2, 4, 2, 7, 7).transpose(1, 2).reshape(2, 8, 7, 7)


@fault("dropout", linear, noise(8, 24))
def dropout(m):
    return lambda x: F.dropout(m(x), 0.3, training=True)


@fault("dropout", lambda: drawn(Block()), noise(20, 24))
def dropout_in_the_branch(m):
    return lambda x: x + F.dropout(m(x) - x, 0.1, training=True)


@fault("other-tensor", layers(lambda: nn.Linear(24, 24), lambda: nn.Linear(24, 24)), X)
def inner(m):
    return m[0]


@fault("other-tensor", lambda: drawn(PostBlock()), X)
def identity(m):
    return lambda x: x


# ---------------------------------------------------------------- only a part


@fault("partly-wrong", attention(), Q)
def one_channel(m):
    def port(x):
        y = m(x).clone()
        y[..., 5] = torch.sin(37 * y[..., 5])
        return y

    return port


@fault("partly-wrong", linear, noise(12, 24))
def two_rows(m):
    def port(x):
        y = m(x).clone()
        y[[3, 7]] = torch.cos(29 * y[[3, 7]])
        return y

    return port


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    torch.manual_seed(0)
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), f"{diagnosis}\n" + "\n".join(map(str, diagnosis.ranked[:4])) + "\n" + "\n".join(diagnosis.not_run[:10])
