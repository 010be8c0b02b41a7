"""Faults of attention, positions, layouts and convolutions: each must be named, alone or among causes that give the same numbers."""
import copy

import pytest
import torch
from diagnose_tools import (
    IDS,
    IMAGE,
    Block,
    Faults,
    PostBlock,
    Q,
    X,
    attention,
    causes,
    changed,
    drawn,
    half_rope,
    layers,
    linear,
    noise,
    pair_rope,
    tables,
    why,
)  # fmt: skip
from torch import nn
from torch.nn import functional as F

CASES = Faults()
fault = CASES.fault

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
            return rope(x, *tables(torch.arange(x.shape[-2]) + (len(calls) % 2 == 0), m.rotary))

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


# ---------------------------------------------------------------- transposed convolution


def upward(groups=1):
    return lambda: drawn(nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=groups))


@fault("kernel-flipped", upward(), IMAGE)
def up_flipped(m):
    return changed(m, weight=m.weight.flip(2, 3))


@fault("kernel-transposed", upward(), IMAGE)
def up_transposed(m):
    return changed(m, weight=m.weight.transpose(2, 3))


@fault("bias-missing", upward(), IMAGE)
def up_bias(m):
    return changed(m, bias=torch.zeros(6))


@fault("padding", upward(), IMAGE)
def up_cut_at_the_end(m):
    return lambda x: F.conv_transpose2d(x, m.weight, m.bias, 2, 0)[:, :, :-2, :-2]


@fault("groups-order", upward(2), IMAGE)
def up_groups(m):
    return lambda x: m(x.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2))


@fault("operand-precision", upward(), IMAGE)
def up_bf16(m):
    return lambda x: F.conv_transpose2d(x.bfloat16().float(), m.weight.bfloat16().float(), m.bias, 2, 1)


# ---------------------------------------------------------------- rotary embedding as a product of complex numbers


class Complex(nn.Module):
    def __init__(self, n=32, h=4):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(n, n, bias=False) for _ in range(4))
        self.h, self.sign, self.base = h, 1, 10000.0

    def turn(self, x):
        angles = torch.arange(x.shape[1])[:, None] * self.base ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
        turn = torch.polar(torch.ones_like(angles), self.sign * angles)[None, :, None]
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(3)

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.h, -1)) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (self.turn(q), self.turn(k), v)), is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


@fault("rope-sign", lambda: drawn(Complex()), Q)
def complex_sign(m):
    return changed(m, sign=-1)


@fault("rope-base", lambda: drawn(Complex()), Q)
def complex_base(m):
    return changed(m, base=777.0)


@fault("rope-interleaved", lambda: drawn(Complex()), Q)
def complex_as_halves(m):
    other = changed(m)
    other.turn = lambda x: half_rope(x.transpose(1, 2), *tables(torch.arange(x.shape[1]), x.shape[-1])).transpose(1, 2)
    return other


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    torch.manual_seed(0)
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), f"{diagnosis}\n" + "\n".join(map(str, diagnosis.ranked[:4])) + "\n" + "\n".join(diagnosis.not_run[:10])
