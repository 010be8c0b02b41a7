"""Attention of torch's fast paths, with masks: softmax without what is masked, multi-head attention and the encoder layer, every bit against torch."""

from __future__ import annotations

import pytest
import torch
from porting import PortingError
from porting.providers import load_torch_provider
from test_rounding_like_torch import BF16, F16, F32, F64, made, unequal

load_torch_provider()
ATEN = torch.ops.aten
DTYPES = pytest.mark.parametrize("dtype", (F32, F16, BF16, F64), ids=str)


def scores(dtype):
    torch.manual_seed(0)
    x, mask = (3 * torch.randn(3, 2, 37, 37)).to(dtype), torch.rand(3, 2, 37, 37) < 0.3
    mask[0, 0, 0] = True  # a row that sees nothing
    x[0, 0, 1, 3], x[0, 0, 2], x[0, 0, 3, 5] = torch.inf, -torch.inf, torch.nan
    return x, mask


@DTYPES
def test_softmax_without_what_is_masked(dtype):
    x, mask = scores(dtype)
    for arguments in [(x, mask, d, 2) for d in (-1, 0, 1)] + [(x, mask[0, 0], -1, 0), (x, mask[:, 0, 1], -1, 1), (x[0, 0, 5, 0], mask[0, 0, 5, 0], 0, 2)]:
        assert unequal(made("aten._masked_softmax.default", *arguments)[0], ATEN._masked_softmax(*arguments)) == 0
    hidden = x.masked_fill(mask, -torch.inf).softmax(-1)
    assert unequal(hidden, ATEN._masked_softmax(x, mask, -1, 2)) > 100  # a softmax with vectors and other sums would be seen


def test_scores_that_torch_writes_to_other_places_are_refused():
    x, mask = scores(F32)
    with pytest.raises(PortingError, match="scores that are not row-major"):
        made("aten._masked_softmax.default", x.mT, mask, -1, 2)
    assert unequal(made("aten._masked_softmax.default", x[..., :5], mask[..., :5], -1, 2)[0], ATEN._masked_softmax(x[..., :5], mask[..., :5], -1, 2)) == 0


@pytest.mark.parametrize("dtype", (F32, F16, BF16), ids=str)
@pytest.mark.parametrize("masked", (None, 0, 1))
def test_multi_head_attention(masked, dtype):
    """7 tokens in heads of 16, whose products a library rounds as their operands lie; 40 in heads of 8."""
    for T, E, H in ((7, 64, 4), (40, 16, 2)):
        torch.manual_seed(0)
        layer = torch.nn.MultiheadAttention(E, H).to(dtype)
        x = torch.randn(2, T, E).to(dtype)
        mask = None if masked is None else torch.rand(*((T, T), (2, T))[masked]) < 0.2
        arguments = [x, x, x, E, H, layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias, mask, True, True, masked]
        arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        with torch.no_grad():
            theirs = ATEN._native_multi_head_attention(*arguments)
        ours = made("aten._native_multi_head_attention.default", *arguments)
        assert [unequal(o, t) for o, t in zip(ours, theirs, strict=True)] == [0, 0]
