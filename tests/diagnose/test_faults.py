"""Faults made with torch code that knows nothing of the generators: each must be named, alone or among causes that give the same numbers."""
import copy

import pytest
import torch
from diagnose_tools import (
    IDS,
    IMAGE,
    Block,
    Faults,
    Gated,
    NewGelu,
    PostBlock,
    Q,
    RMSNorm,
    X,
    attention,
    causes,
    changed,
    drawn,
    layers,
    linear,
    noise,
    why,
)  # fmt: skip
from torch import nn
from torch.nn import functional as F

CASES = Faults()
fault = CASES.fault

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

    for port, cause, make, given in ((weight_in, "operand-precision", linear, X), (result_in, "result-precision", linear, X), (both_in, "operand-precision", linear, X),
                                     (probabilities_in, "softmax-precision", attention(fused=False), Q)):  # fmt: skip
        port.__name__ += str(dtype)[6:]
        fault(cause, make, given)(port)


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


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    torch.manual_seed(0)
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), f"{diagnosis}\n" + "\n".join(map(str, diagnosis.ranked[:4])) + "\n" + "\n".join(diagnosis.not_run[:10])
