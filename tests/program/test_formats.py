"""Memory formats that ops hand on: a result of other strides makes a later op sum in another order, so whole modules must be bit-equal."""
from __future__ import annotations

import porting
import pytest
import torch
import torch.nn.functional as F
from porting.hooks import ActivationCollector
from porting.providers import load_torch_provider
from torch import nn


class TwoSteps(nn.Module):
    """What leaves a channels-last image of (N, H, W, C), and a convolution whose order of sums that format decides."""

    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x):
        return self.last(self.make(x))

    def make(self, x):
        return self.first(x.permute(0, 3, 1, 2))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


CASES = {
    "one pixel": (lambda: TwoSteps(nn.Conv2d(48, 64, 2, stride=2), nn.Sequential(nn.Upsample(8), nn.Conv2d(64, 2, 1))), (2, 2, 2, 48)),
    "cat": (lambda: TwoSteps(Function(lambda x: torch.cat([x, x * 2], 1)), nn.Conv2d(128, 2, 1)), (2, 8, 8, 64)),
    "pad": (lambda: TwoSteps(Function(lambda x: F.pad(x, (1, 0, 0, 2))), nn.Conv2d(64, 2, 1)), (2, 8, 8, 64)),
}


@pytest.mark.parametrize("name", CASES)
def test_formats_are_handed_on(name, tmp_path):
    load_torch_provider()
    torch.manual_seed(0)
    make, shape = CASES[name]
    model, x = make(), torch.randn(shape)
    with torch.no_grad():
        _, capture = ActivationCollector(model, tmp_path / "c", program="all")(x)
        between = model.make(x)
        rows = torch.empty(between.shape).copy_(between)
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            assert not torch.equal(model.last(rows), model.last(between))  # the format can be seen
    with capture:
        report = porting.check(capture, provider="torch")
        assert report.num_exact == report.num_calls > 2, [(row.module, row.band) for row in report.rows]
