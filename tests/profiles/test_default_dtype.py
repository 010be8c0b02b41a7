"""Floats that come of numbers and integers alone: float32 as captured, float64 in a golden run and under set_default_dtype."""
import numpy as np
import porting
import pytest
import torch

MADE = {
    "full": lambda: torch.full((4,), 0.1),
    "full mask": lambda: torch.full((4, 4), float("-inf")).triu(1)[3],
    "zeros": lambda: torch.zeros(4),
    "ones": lambda: torch.ones(4),
    "empty": lambda: torch.empty(4).fill_(0.1),
    "eye": lambda: torch.eye(4)[1],
    "linspace": lambda: torch.linspace(0, 1, 4),
    "arange": lambda: torch.arange(0, 0.4, 0.1),
    "scalar": lambda: torch.scalar_tensor(0.1),
    "integers divided": lambda: torch.arange(4) / 3,
    "integers times a number": lambda: torch.arange(4) * 0.1,
    "cosine of integers": lambda: torch.arange(4).cos(),
    "rope": lambda: 1e4 ** (torch.arange(4) / 4),
}


class Adds(torch.nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return x + self.made()


def captured(path, name, dtype):
    with torch.no_grad():
        return porting.ActivationCollector(Adds(MADE[name]), path)(torch.zeros(4, dtype=dtype))[1]


@pytest.mark.parametrize("name", MADE)
def test_golden(tmp_path, name):
    capture = captured(tmp_path / "a.capture", name, torch.float32)
    report = porting.check(capture, profile="golden")
    assert report.passed and report.num_compared == 1, report
    torch.set_default_dtype(torch.float64)
    try:
        wide = MADE[name]().numpy()
    finally:
        torch.set_default_dtype(torch.float32)
    golden = porting.compare(capture, {"out.0": wide.astype(np.float32) + np.zeros(4, np.float32)})
    assert golden.rows[0].metrics["max_ulp"] == report.rows[0].metrics["max_ulp"]  # the same distance from the reference: float64 rounded once
    assert porting.check(capture, tol="exact").passed


@pytest.mark.parametrize("name", MADE)
def test_default_dtype_of_the_run(tmp_path, name):
    torch.set_default_dtype(torch.float64)
    try:
        capture = captured(tmp_path / "a.capture", name, torch.float64)
    finally:
        torch.set_default_dtype(torch.float32)
    report = porting.check(capture, tol="ulp(2)")
    assert report.passed and report.num_compared == 1, report  # float32 on the way would be 2^29 ulp off
