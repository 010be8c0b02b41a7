"""Faults that kernels make: tails, tiles, slots, statistics of other rows, elements lost; and what is seen in tensors inside, computed back from the output."""
import math

import pytest
import torch
from diagnose_tools import (
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
    why,
)
from torch import nn
from torch.nn import functional as F

CASES = Faults()
fault = CASES.fault
G = noise(5, 16)
WIDE = noise(9, 32)


def linear(n=24, m=24):
    return lambda: drawn(nn.Linear(n, m))


@fault("columns-ignored", linear(), X)
def last_eight_not_summed(m):
    return lambda x: F.linear(x[..., :-8], m.weight[:, :-8], m.bias)


@fault("columns-ignored", linear(), X)
def some_in_the_middle_not_summed(m):
    return lambda x: F.linear(x * ~torch.isin(torch.arange(24), torch.tensor([5, 6, 7])), m.weight, m.bias)


@fault("columns-doubled", linear(), X)
def some_summed_twice(m):
    return lambda x: F.linear(x * (1.0 + torch.isin(torch.arange(24), torch.tensor([3, 4]))), m.weight, m.bias)


@fault("row-stride", linear(), X)
def rows_one_further_apart(m):
    def port(x):
        flat = m.weight.flatten()
        return F.linear(x, flat[(torch.arange(24)[:, None] * 23 + torch.arange(24)).clamp(max=len(flat) - 1)], m.bias)

    return port


@fault("weight-tiles", linear(32, 64), WIDE)
def tiles_read_as_rows(m):
    return lambda x: F.linear(x, m.weight.view(4, 16, 2, 16).transpose(1, 2).reshape(64, 32), m.bias)


@fault("weight-broadcast", linear(), X)
def first_bias_for_all(m):
    return lambda x: F.linear(x, m.weight) + m.bias[0]


@fault("weight-function", lambda: drawn(RMSNorm()), X)
def scale_twice(m):
    return lambda x: m(x) * m.weight


@fault("quantisation-scale", linear(32, 24), WIDE)
def scale_of_the_next_row(m):
    step = m.weight.abs().amax(1, keepdim=True) / 127
    return lambda x: F.linear(x, torch.round(m.weight / step) * step.roll(-1, 0), m.bias)


@fault("offset", linear(), X)
def zero_point_one_off(m):
    return lambda x: F.linear(x + 0.031, m.weight, m.bias)


@fault("elements-lost", linear(), X)
def elements_not_written(m):
    return lambda x: m(x) * (torch.rand(2, 6, 24, generator=torch.Generator().manual_seed(3)) > 0.08)


@fault("result-wrapped", linear(), X)
def range_left(m):
    return lambda x: (m(x) + 1.2) % 2.4 - 1.2


@fault("norm-statistics", lambda: drawn(nn.LayerNorm(24)), X)
def statistics_of_half(m):
    def port(x):
        half = x[..., :12]
        return (x - half.mean(-1, keepdim=True)) / torch.sqrt(half.var(-1, keepdim=True, unbiased=False) + m.eps) * m.weight + m.bias

    return port


@fault("norm-statistics", lambda: drawn(RMSNorm()), X)
def statistics_of_the_first_row(m):
    return lambda x: m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps)[..., :1, :]


def attending(change):
    """A port of the written-out attention: change(q, k, v, logits) gives the result of the heads."""

    def break_it(m):
        return changed(m, fused=False, attend=lambda q, k, v, t: change(m, q, k, v, q @ k.mT * m.scale + (m.mask(t) if m.causal or m.masked else 0)))

    return break_it


def register(cause, name, change, **options):
    port = attending(change)
    port.__name__ = name
    fault(cause, attention(**options), Q)(port)


register("keys-ignored", "last_keys_left_out", lambda m, q, k, v, x: torch.softmax(x[..., :4], -1) @ v[..., :4, :])
register("softmax-normalisation", "not_divided", lambda m, q, k, v, x: (x - x.amax(-1, keepdim=True)).exp() @ v, causal=True)
register("cache-offset", "values_one_slot_late", lambda m, q, k, v, x: torch.softmax(x, -1) @ v.roll(1, -2), causal=True)
register("cache-stale", "last_slot_empty", lambda m, q, k, v, x: torch.softmax(q @ F.pad(k[..., :-1, :], (0, 0, 0, 1)).mT * m.scale, -1) @ F.pad(v[..., :-1, :], (0, 0, 0, 1)))
register("dropout", "probabilities_dropped", lambda m, q, k, v, x: (torch.manual_seed(8), F.dropout(torch.softmax(x, -1), 0.2, True) @ v)[1], causal=True)
register("part-zero", "one_head_zero", lambda m, q, k, v, x: torch.softmax(x, -1) @ v * (torch.arange(4) != 2)[:, None, None])
register("part-moved", "one_head_of_another", lambda m, q, k, v, x: (torch.softmax(x, -1) @ v)[:, [0, 1, 1, 3]])
register("mask-flipped", "padding_at_the_other_end", lambda m, q, k, v, x: torch.softmax((q @ k.mT * m.scale)[..., 2:], -1) @ v[..., 2:, :], masked=2)


@fault("rope-precision", attention(rope=half_rope, causal=True), Q)
def angles_in_bf16(m):
    def rope(x, cos, sin):
        angles = torch.atan2(sin, cos).bfloat16().float()
        return half_rope(x, angles.cos(), angles.sin())

    return changed(m, rope=rope)


def mild_blocks():
    """Two blocks of which the second leaves one answer to what it was given."""
    blocks = drawn(nn.Sequential(Block(), Block()))
    blocks[1].fc.weight.data *= 0.3
    return blocks


@fault("dropout", mild_blocks, X)
def dropout_inside(m):
    torch.manual_seed(2)
    drop = F.dropout(torch.ones(2, 6, 24), 0.25, True)
    return lambda x: m[1](x + torch.tanh(m[0].fc(m[0].norm(x))) * drop)


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), str(diagnosis)
    assert math.isfinite(diagnosis.residual) and diagnosis.explained > 0.5


def test_the_channel_inside_is_said_where_a_product_loses_something():
    """One wrong row of `up` is found behind `down`, that makes 16 numbers of 40; what is wrong with it is not known."""
    module = drawn(Gated())
    up = module.up.weight.clone()
    up[7, 3] += 2.0
    diagnosis = why(module, changed(module, up__weight=up), G)
    assert diagnosis.cause == "partly-wrong" and "channel 7 of 40" in diagnosis.detail and diagnosis.op


def test_noise_inside_has_no_place():
    """What is wrong everywhere is not said to lie in a part."""
    module = drawn(Gated())
    wrong = changed(module, up__weight=module.up.weight + 0.2 * noise(40, 16, seed=6))
    assert why(module, wrong, G).cause == "unknown"


def test_a_port_with_attention_of_its_own_is_not_blamed():
    module = attention(causal=True)()
    assert why(module, changed(module, fused=False), Q).cause in ("none", "rounding")
    assert isinstance(module, Attention)
