"""Small modules with every parameter drawn at random, and what a port of one may be."""
import copy
import math

import porting
import pytest
import torch
from torch import nn
from torch.nn import functional as F


def drawn(module, seed=0, scale=0.5):
    """The module with no parameter or statistic at a special value, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        if not p.is_floating_point():
            continue
        r = torch.randn(p.shape, generator=generator)
        value = r.abs() + 0.5 if "running_var" in name or (p.dim() == 1 and "weight" in name) else r * (scale if p.dim() < 2 else p[0].numel() ** -0.5)
        p.data.copy_(value)
    return module.eval().requires_grad_(False)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def why(module, port, *inputs):
    """The diagnosis of what `port`, a function or the output itself, returns in the place of the module."""
    with torch.no_grad():
        actual = port(*[x.clone() for x in inputs]) if callable(port) else port
    return porting.explain(module, actual, inputs=inputs)


def causes(diagnosis):
    return [diagnosis.cause, *(r.cause for r in diagnosis.also)]


class Faults(list):
    """The cases of one file, as pytest's parameters."""

    def fault(self, cause, make, *inputs):
        """Registers a port, made from the reference module, that has the fault."""

        def register(port):
            self.append(pytest.param(cause, make, port, inputs, id=f"{cause}-{port.__name__}"))
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


def linear():
    return drawn(nn.Linear(24, 24))
