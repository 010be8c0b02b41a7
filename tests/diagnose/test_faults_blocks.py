"""Faults several ops away from the output of a block: other orders, other operands, factors and functions that the reference's program has not."""
import math

import pytest
import torch
from diagnose_tools import (
    IMAGE,
    Attention,
    Block,
    Faults,
    Gated,
    Q,
    RMSNorm,
    X,
    attention,
    causes,
    changed,
    drawn,
    half_rope,
    noise,
    tables,
    why,
)
from torch import nn
from torch.nn import functional as F

CASES = Faults()
fault = CASES.fault
G = noise(5, 16)


@fault("residual-placement", lambda: drawn(Block()), X)
def pre_norm_as_post_norm(m):
    return lambda x: m.norm(x + torch.tanh(m.fc(x)))


@fault("residual-placement", lambda: drawn(Block(norm=RMSNorm())), X)
def pre_norm_as_post_norm_rms(m):
    return lambda x: m.norm(x + torch.tanh(m.fc(x)))


@fault("scale", lambda: drawn(Block()), X)
def residual_scaled(m):
    return lambda x: 0.5 * x + torch.tanh(m.fc(m.norm(x)))


@fault("scale", lambda: drawn(Block()), X)
def logits_scaled(m):
    return lambda x: x + torch.tanh(0.7 * m.fc(m.norm(x)))


@fault("op-order", lambda: drawn(Gated()), G)
def activation_after_the_gate(m):
    return lambda x: m.down(F.silu(m.gate(x) * m.up(x)))


@fault("wrong-weight", lambda: drawn(Gated()), G)
def gate_twice(m):
    return lambda x: m.down(F.silu(m.gate(x)) * m.gate(x))


@fault("result-precision", lambda: drawn(Gated(32, 64)), noise(5, 32))
def one_product_in_bf16(m):
    return lambda x: m.down(F.silu(F.linear(x.bfloat16(), m.gate.weight.bfloat16()).float()) * m.up(x))


@fault("result-precision", lambda: drawn(Gated(32, 64)), noise(5, 32))
def activation_in_f16(m):
    return lambda x: m.down(F.silu(m.gate(x).half()).float() * m.up(x))


@fault("operand-precision", lambda: drawn(Gated(32, 64)), noise(5, 32))
def one_product_of_bf16_inputs(m):
    return lambda x: m.down(F.silu(m.gate(x.bfloat16().float())) * m.up(x))


@fault("rope-on-values", attention(causal=True, rope=half_rope), Q)
def values_rotated(m):
    other = changed(m)
    other.attend = lambda q, k, v, t: m.attend(q, k, half_rope(v, *tables(torch.arange(t), 8)), t)
    return other


@fault("rope-base", attention(causal=True, rope=half_rope), Q)
def odd_base(m):
    return changed(m, base=777.0)


@fault("attention-scale", attention(causal=True), Q)
def odd_scale(m):
    return changed(m, scale=0.43)


@fault("softcap", attention(causal=True, fused=False), Q)
def odd_cap(m):
    return changed(m, cap=7.0)


@fault("wrong-operand", attention(), Q)
def keys_as_values(m):
    return changed(m, v=m.k)


class Fused(nn.Module):
    """q, k and v from one product, with norms of q and k."""

    def __init__(self):
        super().__init__()
        self.qkv, self.qn, self.kn, self.o = nn.Linear(32, 96), RMSNorm(8), RMSNorm(8), nn.Linear(32, 32)
        self.split = lambda y: y.unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.split(self.qkv(x))
        return self.o(F.scaled_dot_product_attention(self.qn(q), self.kn(k), v).transpose(1, 2).flatten(2))


@fault("split-order", lambda: drawn(Fused()), Q)
def head_by_head(m):
    return changed(m, split=lambda y: y.unflatten(-1, (4, 3, 8)).permute(3, 0, 2, 1, 4))


@fault("norm-missing", lambda: drawn(Fused()), Q)
def no_norm_of_keys(m):
    return changed(m, kn=nn.Identity())


def vision():
    return drawn(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)))


@fault("op-order", vision, IMAGE)
def relu_before_the_norm(m):
    return lambda x: m[3:](m[1](m[2](m[0](x))))


@fault("op-other", vision, IMAGE)
def mean_for_greatest(m):
    return lambda x: m[4:](F.avg_pool2d(m[:3](x), 2))


@fault("columns-permuted", vision, IMAGE)
def channels_last_flattened(m):
    return lambda x: m[5](m[:4](x).permute(0, 2, 3, 1).flatten(1))


class Positions(nn.Module):
    """Attention with a learned bias for each distance."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.bias, self.sign, self.scale = nn.Embedding(32, 4), 1, 1.0

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (4, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        at = torch.arange(x.shape[1])
        bias = self.bias((at[None] - at[:, None]) * self.sign + 8).permute(2, 0, 1)
        return (torch.softmax(q @ k.mT * self.scale + bias[None], -1) @ v).transpose(1, 2).flatten(2)


@fault("mask-transposed", lambda: drawn(Positions(), scale=1.0), Q)
def distances_negated(m):
    return changed(m, sign=-1)


@fault("attention-scale", lambda: drawn(Positions()), Q)
def scaled_where_it_is_not(m):
    return changed(m, scale=8**-0.5)


class Router(nn.Module):
    """A mixture of experts: the two best of four, weighted by a softmax."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(16, 4, bias=False), nn.Parameter(torch.zeros(4, 16, 16))

    def forward(self, x):
        p, best = torch.softmax(self.gate(x), -1).topk(2)
        p = p / p.sum(-1, keepdim=True)
        return torch.einsum("tk,tkij,tj->ti", p, self.experts[best], x)


@fault("op-missing", lambda: drawn(Router()), G)
def weights_not_normalised(m):
    def port(x):
        p, best = torch.softmax(m.gate(x), -1).topk(2)
        return torch.einsum("tk,tkij,tj->ti", p, m.experts[best], x)

    return port


@fault("top-k", lambda: drawn(Router()), G)
def least_experts(m):
    def port(x):
        p, best = torch.softmax(m.gate(x), -1).topk(2, largest=False)
        return torch.einsum("tk,tkij,tj->ti", p / p.sum(-1, keepdim=True), m.experts[best], x)

    return port


class Passed(nn.Module):
    """Heads whose rotated part is all of them: the rest, of no size, is put behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)

    def forward(self, x):
        heads = self.first(x).view(5, 1, 2, 8)
        return self.last(torch.tanh(torch.cat([heads[..., :8].neg(), heads[..., 8:] * 2], -1)).reshape(5, 16))


@fault("columns-permuted", lambda: drawn(Passed()), G)
def columns_in_reverse_beside_an_empty_slice(m):
    return changed(m, last__weight=m.last.weight.flip(1))


@fault("addend-missing", lambda: drawn(Block()), X)
def branch_alone(m):
    return lambda x: torch.tanh(m.fc(m.norm(x)))


@fault("columns-ignored", lambda: drawn(Gated()), G)
def first_number_left_out(m):
    return lambda x: m.down(F.silu(m.gate(x)) * F.linear(x[:, 1:], m.up.weight[:, 1:]))


@fault("clamp-added", lambda: drawn(Gated()), G)
def negative_zeroed(m):
    return lambda x: m.down(F.silu(m.gate(x)) * m.up(x).clamp(min=0))


@fault("weight-zero", lambda: drawn(Block()), X)
def one_row_zero(m):
    return changed(m, fc__weight=m.fc.weight * (torch.arange(len(m.fc.weight)) != 5)[:, None])


@fault("weight-broadcast", lambda: drawn(nn.Conv2d(8, 6, 3)), IMAGE)
def mean_of_the_bias(m):
    return lambda x: F.conv2d(x, m.weight) + m.bias.mean()


@fault("weight-plus-one", lambda: drawn(nn.BatchNorm2d(8)), IMAGE)
def batch_norm_of_one_more(m):
    return changed(m, weight=m.weight + 1)


@fault("activation", lambda: drawn(nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 8))), X)
def square_for_the_cube(m):
    return lambda x: m[2]((lambda y: 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y))))(m[0](x)))


@fault("softmax-missing", lambda: drawn(nn.Sequential(nn.Linear(24, 24), nn.Softmax(-1), nn.Linear(24, 8))), X)
def no_softmax(m):
    return lambda x: m[2](m[0](x))


@fault("part-zero", lambda: drawn(nn.Sequential(Attention(causal=True), Block(32)), scale=1.0), Q)
def head_zero_before_a_residual_block(m):
    a = m[0]
    return nn.Sequential(changed(a, v__weight=a.v.weight * (torch.arange(32) // 8 != 2)[:, None], v__bias=a.v.bias * (torch.arange(32) // 8 != 2)), m[1])


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), str(diagnosis)
    assert math.isfinite(diagnosis.residual) and diagnosis.explained > 0.5


def test_two_blocks_of_attention_are_told_apart():
    """The place of a fault is the op of the right one of two equal parts."""
    module = drawn(nn.Sequential(Attention(causal=True), Attention(causal=True)), scale=1.0)
    wrong = changed(module, **{"1__scale": 0.1})
    diagnosis = why(module, wrong, Q)
    assert diagnosis.cause == "attention-scale" and diagnosis.op.endswith("in 1 (attention)")
