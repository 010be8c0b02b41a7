"""Which hypothesis explains the port: residuals in units of rounding, and the decision.

The unit is what float32 rounding does to this very module: the greater of u * rms(expected) and the rms distance between the reference and
its float64 run (4 u * rms where an op has no float64 kernel). A residual is at rounding level if its rms is at most LEVEL units and no element is off by more than PEAK units of its own row.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._core import PortingError
from .case import Case
from .hypothesis import Hypothesis, Outputs

U = 2.0**-24
LEVEL = 6.0
PEAK = 64.0
CLEARLY = 4.0
NEAR = 1e3


@dataclass
class Ranked:
    """One hypothesis with what it left unexplained."""

    cause: str
    detail: str
    explained: float  # share of the squared difference that it removes
    residual: float  # in units of rounding; inf if not finite or of another shape
    equal: bool  # every bit of the port reproduced

    def to_dict(self) -> dict[str, object]:
        return {"cause": self.cause, "detail": self.detail, "explained": self.explained, "residual": self.residual, "equal": self.equal}


class Judge:
    """Measures hypotheses of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.reference = case.reference()
        self.units = self.units_of(self.reference, case.golden())
        self.difference = 0.0
        for leaf, e in self.reference.items():
            if e.shape != case.actual[leaf].shape:
                self.difference = np.inf
                continue
            self.difference += float(np.sum(np.square(case.actual[leaf].astype(np.float64) - e.astype(np.float64))))

    @staticmethod
    def units_of(outputs: Outputs, golden: Outputs | None) -> dict[str, float]:
        """What rounding does to each output: the greater of u * rms and the rms distance to the float64 run."""
        units = {}
        for leaf, e in outputs.items():
            e64 = e.astype(np.float64)
            rms = float(np.sqrt(np.mean(np.square(e64)))) if e.size else 0.0
            noise = 4 * U * rms if golden is None else 0.0
            if golden is not None and e.size and golden[leaf].shape == e.shape:
                noise = float(np.sqrt(np.mean(np.square(e64 - golden[leaf]))))
            units[leaf] = max(x for x in (U * rms, noise, 1e-45) if np.isfinite(x))
        return units

    def measure(self, outputs: Outputs, units: dict[str, float] | None = None) -> tuple[float, float, bool]:
        """(share explained, residual in units, bit-equal)."""
        left, worst, equal = 0.0, 0.0, True
        for leaf, actual in self.case.actual.items():
            got = outputs.get(leaf)
            if got is None or got.shape != actual.shape:
                return 0.0, np.inf, False
            equal = equal and np.array_equal(got, actual, equal_nan=got.dtype.kind == "f")
            a, b = actual.astype(np.float64), got.astype(np.float64)
            with np.errstate(invalid="ignore"):
                d = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
            if not np.isfinite(d).all():
                return 0.0, np.inf, False
            if d.size:
                unit = (units or self.units)[leaf]
                worst = max(worst, float(np.sqrt(np.mean(d * d))) / unit, float(np.abs(d).max()) / unit * LEVEL / PEAK)
                left += float(np.sum(d * d))
        explained = 1.0 - left / self.difference if self.difference > 0 and np.isfinite(self.difference) else float(left == 0)
        return explained, worst, equal

    def rank(self, hypothesis: Hypothesis) -> Ranked:
        """Runs the hypothesis. One that comes near is measured against the rounding of its own arithmetic, which may be larger than the reference's."""
        outputs = hypothesis.compute(False)
        explained, residual, equal = self.measure(outputs)
        if not equal and residual < NEAR:
            try:
                units = self.units_of(outputs, hypothesis.compute(True))
            except PortingError:
                units = self.units
            explained, residual, equal = self.measure(outputs, units)
        return Ranked(hypothesis.cause, hypothesis.detail, explained, residual, equal)


def decide(ranked: list[Ranked]) -> list[Ranked]:
    """The causes that may be named: at rounding level, and nothing else clearly as good. Several if they cannot be told apart."""
    if not ranked or not (ranked[0].equal or ranked[0].residual <= LEVEL):
        return []
    best = ranked[0]
    if best.equal:
        return [r for r in ranked if r.equal]
    return [r for r in ranked if r.residual <= LEVEL and r.residual <= max(CLEARLY * best.residual, 1.0)]
