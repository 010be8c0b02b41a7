"""The LSTM layer that oneDNN runs as one op: all bits where it runs its AVX-512 code, near elsewhere."""
from __future__ import annotations

import pytest
import torch
from porting import _core
from test_kernels import ONEDNN, ours

NAME = "aten.mkldnn_rnn_layer.default"
SIZES = [(1, 1, 16, 16), (5, 1, 16, 16), (4, 3, 16, 16), (3, 1, 7, 33), (2, 2, 300, 65), (1, 1, 1, 1), (7, 2, 160, 160)]  # T, B, I, H


def arguments(T, B, I, H, reverse, biased):
    torch.manual_seed(0)
    weights = [torch.randn(4 * H, I) / 4, torch.randn(4 * H, H) / 4, torch.randn(4 * H), torch.randn(4 * H)]
    if not biased:
        weights[2:] = [torch.zeros(4 * H)] * 2
    states = [torch.randn(B, H) * 3, torch.randn(B, H) * 3]
    return [torch.randn(T, B, I) * 4, *weights, *states, reverse, [], 2, H, 1, biased, False, False, False]


def unequal(given, expected, **options):
    got = ours(NAME, given, {}, **{"mkldnn": ONEDNN} | options)
    return [int((torch.from_numpy(g).reshape(e.shape) != e).sum()) for g, e in zip(got[:3], expected[:3])]


@pytest.mark.parametrize("biased", (True, False))
@pytest.mark.parametrize("reverse", (True, False))
@pytest.mark.parametrize("sizes", SIZES)
def test_layer(sizes, reverse, biased):
    given = arguments(*sizes, reverse, biased)
    with torch.no_grad():
        expected = torch.ops.aten.mkldnn_rnn_layer.default(*given)
    if ONEDNN is True and _core.show_config()["cpu_level"] == 2:
        assert unequal(given, expected) == [0, 0, 0]
        assert unequal(given, expected, variant="ref") == [0, 0, 0]
        wrong = arguments(*sizes, reverse, biased)
        wrong[1] = wrong[1].nextafter(torch.tensor(torch.inf))
        assert sizes[2] == 1 or any(unequal(wrong, expected))
    for got, e in zip(ours(NAME, given, {}, mkldnn=ONEDNN), expected[:3]):
        torch.testing.assert_close(torch.from_numpy(got).reshape(e.shape), e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", range(5))
def test_gates_at_their_ends(gate):
    """Saturated gates, zeros of both signs, NaN and infinities: in one gate, or (4) in all."""
    values = torch.tensor([0.0, -0.0, 1e-30, 3e-4, 4.2e-4, 9.0, 9.02, -9.1, 87.0, -87.4, 88.8, 200.0, torch.inf, -torch.inf, torch.nan, -torch.nan])
    H = len(values)
    given = arguments(1, 1, 1, H, False, True)
    bias = [values if gate in (k, 4) else torch.full((H,), 0.5) for k in range(4)]
    given[0], given[3], given[4] = torch.zeros(1, 1, 1), torch.cat(bias), torch.zeros(4 * H)
    given[5:7] = [torch.zeros(1, H), torch.ones(1, H)]
    with torch.no_grad():
        expected = torch.ops.aten.mkldnn_rnn_layer.default(*given)
    if ONEDNN is True and _core.show_config()["cpu_level"] == 2:
        for got, e in zip(ours(NAME, given, {}, mkldnn=ONEDNN), expected[:3]):
            got = torch.from_numpy(got).reshape(e.shape)
            assert ((got.view(torch.int32) == e.view(torch.int32)) | (got.isnan() & e.isnan())).all(), (got, e)
