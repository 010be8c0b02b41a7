"""Which hypothesis explains the port: residuals in units of rounding, and the decision.

The unit is what rounding does to this very module: the greater of u * rms(expected), u of the output's dtype, and the rms distance between the
reference and its float64 run (4 u * rms where an op has no float64 kernel). A residual is at rounding level if its rms is at most LEVEL units and
no element is off by more than PEAK units.

A hypothesis that rounds to a narrow format (`coarse`) reproduces another run of itself up to the sums that lie next to a tie, which differ by a whole step: what
it leaves is at rounding level too if its rms is at most FLIPS of the whole difference, which no other rounding comes near, or if all of it lies in few rows: at least
ROWS of those that differ are right.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .._core import PortingError
from .case import UNITS, Case, is_float
from .hypothesis import Hypothesis, Outputs
from .parts import Part, find_part

LEVEL = 6.0
PEAK = 64.0
CLEARLY = 4.0
SURE = 2.0  # what two runs of one function leave, but for rare ones
NEAR = 1e3
NEARLY = 1e-6
FLIPS = 0.05
ROWS = 0.75
MOST_OF_IT = 0.8  # of the squared difference


@dataclass
class Ranked:
    """One hypothesis with what it left unexplained."""

    cause: str
    detail: str
    explained: float  # share of the squared difference that it removes
    residual: float  # in units of rounding; inf if not finite or of another shape
    equal: bool  # every bit of the port reproduced
    op: Callable[[], int | None] = field(default=lambda: None, repr=False)  # number in the case of the op it is made at
    rms: float = np.inf  # what is left, in units: root mean square,
    peak: float = np.inf  # and the worst element
    coarse: bool = False
    fitted: bool = False

    def to_dict(self) -> dict[str, object]:
        return {"cause": self.cause, "detail": self.detail, "explained": self.explained, "residual": self.residual, "equal": self.equal}


@dataclass
class Left:
    """What outputs leave of the port: share of the squared difference that they explain; root mean square and worst element of the rest, in units."""

    explained: float = 0.0
    rms: float = np.inf
    peak: float = np.inf
    equal: bool = False

    @property
    def residual(self) -> float:
        """One number for both: at rounding level up to LEVEL."""
        return max(self.rms, self.peak * LEVEL / PEAK)


def difference(actual: np.ndarray, got: np.ndarray) -> np.ndarray:
    """actual - got in float64; equal infinities and two NaN differ by 0."""
    a, b = actual.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)


def all_nan(outputs: Outputs) -> bool:
    """Whether no element of any output is a number."""
    return all(x.dtype.kind not in "biu" and np.isnan(x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)).all() for x in outputs.values())


class Judge:
    """Measures hypotheses of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.reference = case.reference()
        self.units = self.units_of(self.reference, case.golden())
        self.difference = 0.0
        self.part: Part | None = None
        self.silent = all_nan(case.actual) and not all_nan(self.reference)  # anything that spreads NaN would explain it
        for leaf, e in self.reference.items():
            if e.shape != case.actual[leaf].shape:
                self.difference = np.inf
                continue
            d = difference(case.actual[leaf], e)
            self.difference += float(np.sum(np.square(d[np.isfinite(d)])))  # where one alone is finite a hypothesis has to be right, too
            if len(self.reference) == 1 and np.isfinite(d).all():
                self.part = find_part(case, leaf, d / self.units[leaf], LEVEL, PEAK)

    @staticmethod
    def units_of(outputs: Outputs, golden: Outputs | None) -> dict[str, float]:
        """What rounding does to each output: the greater of u * rms and the rms distance to the float64 run."""
        units = {}
        for leaf, e in outputs.items():
            e64 = e.astype(np.float64)
            finite = e64[np.isfinite(e64)]
            rms = float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0
            u = UNITS.get(e.dtype.name, 0.0)
            noise = 4 * u * rms if golden is None else 0.0
            if golden is not None and e.size and golden[leaf].shape == e.shape:
                d = difference(e, golden[leaf])
                noise = float(np.sqrt(np.mean(np.square(d[np.isfinite(d)])))) if np.isfinite(d).any() else 0.0
            units[leaf] = max(x for x in (u * rms, noise, 1e-45) if np.isfinite(x))
        return units

    def measure(self, outputs: Outputs, units: dict[str, float] | None = None) -> Left:
        """What the outputs leave of the port."""
        left, rms, peak, equal = 0.0, 0.0, 0.0, True
        if self.silent:
            return Left()
        for leaf, actual in self.case.actual.items():
            got = outputs.get(leaf)
            if got is None or got.shape != actual.shape:
                return Left()
            d = difference(actual, got)
            equal = equal and not d.any()
            if not np.isfinite(d).all():
                return Left()
            if d.size:
                unit = (units or self.units)[leaf]
                rms, peak = max(rms, float(np.sqrt(np.mean(d * d))) / unit), max(peak, float(np.abs(d).max()) / unit)
                left += float(np.sum(d * d))
        explained = 1.0 - left / self.difference if self.difference > 0 and np.isfinite(self.difference) else float(left == 0)
        return Left(explained, rms, peak, equal)

    def rows_right(self, outputs: Outputs) -> float:
        """Share of the slices along the last axis that are right under a hypothesis, of those that are not right as they are; the least of all outputs."""
        least = 1.0
        for leaf, actual in self.case.actual.items():
            if not actual.ndim or not actual.size:
                return 0.0

            def right(got: np.ndarray, leaf: str = leaf, actual: np.ndarray = actual) -> np.ndarray:
                d = difference(actual, got)
                return np.sqrt(np.mean(d * d, axis=-1)) <= LEVEL * self.units[leaf]

            wrong = ~right(self.reference[leaf])
            least = min(least, float(right(outputs[leaf])[wrong].mean())) if wrong.any() else least
        return least

    def rank(self, hypothesis: Hypothesis) -> list[Ranked]:
        """Runs the hypothesis: what it leaves, and what it leaves if it holds for the wrong part of the output alone.

        One that comes near is measured against the rounding of its own arithmetic, which may be larger than the reference's.
        """
        outputs = hypothesis.compute(False)
        found = [self.judged(hypothesis, outputs, None)]
        if self.part is not None and found[0].residual > LEVEL:
            leaf = next(iter(self.reference))
            if outputs[leaf].shape == self.reference[leaf].shape:
                mixed = {leaf: np.where(self.part.mask, outputs[leaf], self.reference[leaf])}
                found.append(self.judged(hypothesis, mixed, self.part))
        return found

    def judged(self, hypothesis: Hypothesis, outputs: Outputs, part: Part | None) -> Ranked:
        left = self.measure(outputs)
        if not left.equal and not hypothesis.coarse and (left.residual < NEAR or left.explained > 1 - NEARLY) and any(is_float(x) for x in outputs.values()):
            try:
                units = self.units_of(outputs, hypothesis.compute(True)) if part is None and left.explained > MOST_OF_IT else self.units
            except (PortingError, ValueError):
                units = self.units
            left = self.measure(outputs, {leaf: max(units[leaf], self.units[leaf]) for leaf in units})
        residual = left.residual
        if hypothesis.coarse and residual > LEVEL and left.explained > MOST_OF_IT:
            share = float(np.sqrt(max(1 - left.explained, 0.0)))
            if share <= FLIPS or self.rows_right(outputs) >= ROWS:
                residual = LEVEL * min(share / FLIPS, 1.0)
        detail = hypothesis.detail if part is None else f"in {part.where} only: {hypothesis.detail}"
        return Ranked(hypothesis.cause, detail, left.explained, residual, left.equal, hypothesis.op, left.rms, left.peak, hypothesis.coarse, hypothesis.fitted)


def decide(ranked: list[Ranked]) -> list[Ranked]:
    """The causes that may be named: at rounding level, and nothing else clearly as good. Several if they cannot be told apart."""
    ranked = [r for r in ranked if r.equal or r.explained > MOST_OF_IT]
    if not ranked or not (ranked[0].equal or ranked[0].residual <= LEVEL):
        return []
    best = ranked[0]
    if best.equal:
        return [r for r in ranked if r.equal or r.residual <= SURE]
    return [r for r in ranked if r.residual <= LEVEL and r.residual <= max(CLEARLY * best.residual, SURE)]
