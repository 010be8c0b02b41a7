"""Faults that are the same function as another, or nearly: both names are given; and what only a rounding, a scale or a hidden row keeps apart."""
import math

import numpy as np
import pytest
import torch
from diagnose_tools import Block, Faults, PostBlock, X, causes, changed, drawn, half_rope, noise, tables, why
from porting.diagnose.rank import LEVEL, ROWS, Judge
from torch import nn
from torch.nn import functional as F

CASES = Faults()
fault = CASES.fault


@fault("scale", lambda: drawn(PostBlock(norm=nn.LayerNorm(24, eps=1e-12))), X)
@fault("addend-doubled", lambda: drawn(PostBlock(norm=nn.LayerNorm(24, eps=1e-12))), X)
def half_of_the_branch(m):
    """A norm knows no scale: half of one addend is twice the other, but for eps."""
    return lambda x: m.norm(x + 0.5 * m.fc(x))


@fault("scale", lambda: drawn(Block()), X)
def half_of_the_branch_without_a_norm(m):
    return lambda x: x + 0.5 * torch.tanh(m.fc(m.norm(x)))


@fault("activation", lambda: drawn(nn.GELU()), X)
def relu_six(m):
    return F.relu6


@fault("activation", lambda: drawn(nn.Sequential(nn.Linear(24, 24), nn.SiLU())), X)
def squared_relu(m):
    return lambda x: F.relu(m[0](x)) ** 2


class Sink(nn.Module):
    """Attention with a logit per head beside the keys', the greatest subtracted first."""

    def __init__(self):
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(2))

    def forward(self, q, mask):
        b, h, t, d = q.shape
        x = q @ q.transpose(-1, -2) * d**-0.5 + mask
        x = torch.cat([x, self.sink.view(1, -1, 1, 1).expand(b, h, t, 1)], -1)
        x = x - x.amax(-1, keepdim=True)
        return torch.softmax(x, -1)[..., :-1] @ q


HEADS = noise(2, 2, 6, 8)
CAUSAL = torch.zeros(1, 1, 6, 6).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), torch.finfo(torch.float32).min)


@fault("mask-absent", lambda: drawn(Sink(), scale=1.0), HEADS, CAUSAL)
def mask_of_sinks(m):
    return lambda q, mask: m(q, 0 * mask)


@fault("mask-weak", lambda: drawn(Sink(), scale=1.0), HEADS, CAUSAL)
def weak_mask_of_sinks(m):
    return lambda q, mask: m(q, torch.where(mask < -1, -10.0, mask))


@fault("sink", lambda: drawn(Sink(), scale=1.0), HEADS, CAUSAL)
def no_sinks(m):
    return lambda q, mask: torch.softmax(q @ q.transpose(-1, -2) * 8**-0.5 + mask, -1) @ q


class Padded(nn.Module):
    def forward(self, q, mask):
        return torch.softmax(q @ q.transpose(-1, -2) * 8**-0.5 + mask, -1) @ q


PADDING = torch.zeros(2, 1, 1, 6)
PADDING[1, ..., 3:] = torch.finfo(torch.float32).min


@fault("window-added", lambda: drawn(Padded()), HEADS, PADDING)
def a_query_that_sees_nothing(m):
    """Of padding, and of the three positions before: a query at the end has neither."""
    before = torch.ones(6, 6, dtype=torch.bool).tril(-3)
    return lambda q, mask: torch.softmax((q @ q.transpose(-1, -2) * 8**-0.5).masked_fill(before, -1e30) + mask, -1) @ q


class Rotated(nn.Module):
    """q and k rotated by tables that are scaled, as those of long contexts are."""

    def __init__(self, gain=1.0, dtype=torch.float32):
        super().__init__()
        self.gain, self.dtype = gain, dtype

    def forward(self, q, k):
        cos, sin = (self.gain * t.to(self.dtype) for t in tables(torch.arange(q.shape[2]), q.shape[3]))
        return half_rope(q, cos, sin) @ half_rope(k, cos, sin).transpose(-1, -2)


ROTATED = (noise(2, 4, 7, 16), noise(2, 4, 7, 16, seed=2))


@fault("rope-absent", lambda: Rotated(1.35), *ROTATED)
def scaled_tables_absent(m):
    return lambda q, k: q @ k.transpose(-1, -2)


@fault("rope-scaling", lambda: Rotated(1.35), *ROTATED)
def factor_of_the_tables_absent(m):
    return Rotated(1.0)


@fault("rope-sign", lambda: Rotated(dtype=torch.bfloat16), *(x.bfloat16() for x in ROTATED))
def half_in_the_other_direction(m):
    def port(q, k):
        cos, sin = (t.bfloat16() for t in tables(torch.arange(q.shape[2]), q.shape[3]))
        return half_rope(q, cos, -sin) @ half_rope(k, cos, -sin).transpose(-1, -2)

    return port


class Merge(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 8)

    def forward(self, x):
        return self.fc(torch.cat(x.chunk(4, -1)[:1] + x.chunk(4, -1)[1:], -1) * 1.5)


@fault("cat-order", lambda: drawn(Merge()), X)
def four_backwards(m):
    return lambda x: m.fc(torch.cat(x.chunk(4, -1)[::-1], -1) * 1.5)


@fault("batch-rows-alike", lambda: drawn(nn.Linear(24, 24)), noise(2, 5, 24))
def first_row_for_all(m):
    return lambda x: m(x)[:1].expand(2, -1, -1)


class OnePlus(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(24))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps) * (1.0 + self.weight)


@fault("weight-plus-one", lambda: drawn(OnePlus()), X)
def one_added_twice(m):
    return lambda x: F.rms_norm(x, (24,)) * (2 + m.weight)


@pytest.mark.parametrize(("cause", "make", "port", "inputs"), CASES)
def test_the_fault_is_named(cause, make, port, inputs):
    module = make()
    diagnosis = why(module, port(module), *inputs)
    assert cause in causes(diagnosis), str(diagnosis)
    assert math.isfinite(diagnosis.residual) and diagnosis.residual <= LEVEL


def test_a_fitted_number_is_no_better_than_a_cause_with_a_name():
    module = drawn(nn.Linear(24, 24, bias=False))
    diagnosis = why(module, changed(module, weight=2 * module.weight), X)
    assert diagnosis.cause == "weight-doubled"
    diagnosis = why(module, changed(module, weight=0.7 * module.weight), X)
    assert diagnosis.cause == "scale" and "output-scaled" in causes(diagnosis) and "0.7" in diagnosis.detail


class Rows:
    """As much of a case as a judge looks at."""

    def __init__(self, expected, actual):
        self.expected, self.actual, self.ops = {"0": expected}, {"0": actual}, []

    def reference(self):
        return self.expected

    def golden(self):
        return None


def test_rows_that_are_right_are_counted_among_those_that_were_wrong():
    """A step of a narrow format in one row of eight is a tie that fell elsewhere; in half of them it is another function."""
    expected = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    actual = expected * np.float32(1.01)
    actual[1] = expected[1]  # right without any change: these rows say nothing
    judge = Judge(Rows(expected, actual))
    one, half = actual.copy(), actual.copy()
    one[0, 3, 5] += 0.01
    half[0, ::2, 5] += 0.01
    assert judge.rows_right({"0": actual}) == 1.0 and judge.rows_right({"0": expected}) == 0.0
    assert judge.rows_right({"0": one}) == 7 / 8 >= ROWS > judge.rows_right({"0": half}) == 0.5
