"""Random ops: the program takes what was drawn when it was recorded, and computes everything else."""
import numpy as np
import porting
import pytest
import torch
from porting.hooks import ActivationCollector


class Noisy(torch.nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(x).uniform_(1, 2) if self.in_place else torch.randn_like(x)
        return self.linear(x) * noise


@pytest.mark.parametrize("in_place", (False, True))
@pytest.mark.parametrize("program", ("once", "all"))
def test_drawn_numbers_are_constants(tmp_path, in_place, program):
    model = Noisy(in_place).eval()
    inputs = [torch.randn(3, 4) for _ in range(2)]
    with torch.no_grad(), ActivationCollector(model, tmp_path / "run.capture", program=program) as collector:
        for x in inputs:
            model(x)
    with collector.capture as capture:
        names = {name for p in capture.programs for name, *_ in p.ops}
        assert not any("randn" in name or "uniform" in name for name in names)
        assert "aten.mul.Tensor" in names and any(p.constants for p in capture.programs)
        report = porting.check(capture)
        assert report.num_checked == report.num_calls == 4 and report.passed
        first, second = (np.asarray(capture.outputs("", call)["0"]) for call in range(2))
        assert not np.array_equal(first, second)
