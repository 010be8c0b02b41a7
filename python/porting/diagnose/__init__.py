"""From *that* a module is wrong to *why*: single-change hypotheses of its program, run in C and ranked by what they explain.

    diagnosis = porting.explain("model.layers.0.mlp", port_output, capture=activations)
    diagnosis.cause, diagnosis.detail        # "activation", "port computes tanh GELU, reference erf GELU"

A cause is named only if the port is reproduced to rounding level under it; else the cause is "unknown", and `ruled_out` says what was tried.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._core import PortingError
from . import attention, constants, outputs, rounding, structure, weights  # noqa: F401  (they register their generators)
from .case import Case, Op
from .hypothesis import Hypothesis, edited, generator, generators, overridden, transformed
from .rank import LEVEL, Judge, Ranked, decide

__all__ = ["Case", "Diagnosis", "Hypothesis", "Op", "diagnose", "edited", "generator", "overridden", "transformed"]


@dataclass
class Diagnosis:
    """Why a port differs.

    Attributes
    ----------
    cause : stable id: "none" (bit-equal), "rounding", "unknown", or a generator's id ("eps", "activation", "weight-transposed", ...)
    detail : a sentence with the values
    explained : share of the squared difference that the cause removes
    residual : what is left, in units of rounding
    also : other hypotheses that explain it equally well (they cannot be told apart on these inputs)
    ranked : all hypotheses tried, best first
    ruled_out : cause ids that were tried and do not explain it
    """

    module: str
    cause: str
    detail: str
    explained: float
    residual: float
    also: list[Ranked] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)
    ruled_out: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.module}: {self.cause}: {self.detail}"
        for other in self.also:
            text += f"\n  or, equally: {other.cause}: {other.detail}"
        if self.cause == "unknown":
            text += f"\n  ruled out: {', '.join(self.ruled_out)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        return {
            "module": self.module, "cause": self.cause, "detail": self.detail, "explained": self.explained, "residual": self.residual,
            "also": [r.to_dict() for r in self.also], "ranked": [r.to_dict() for r in self.ranked[:20]], "ruled_out": self.ruled_out, "not_run": self.not_run,
        }  # fmt: skip


def diagnose(case: Case) -> Diagnosis:
    """Runs every generator on the case and decides. Raises what running the unchanged program raises."""
    judge = Judge(case)
    _, residual, equal = judge.measure(judge.reference)
    if equal:
        return Diagnosis(case.module, "none", "the port's outputs are bit-equal to the reference's", 1.0, 0.0)
    if residual <= LEVEL:
        return Diagnosis(case.module, "rounding", f"the port differs by rounding alone ({residual:.2g} units)", 0.0, residual)
    ranked, not_run = run_all(case, judge)
    named = decide(ranked)
    ruled_out = sorted({r.cause for r in ranked} - {r.cause for r in named})
    if not named:
        best = f"; nearest: {ranked[0].detail}, which leaves {ranked[0].residual:.3g} units" if ranked else ""
        return Diagnosis(case.module, "unknown", f"no single change explains the difference of {residual:.3g} units{best}", 0.0, residual, [], ranked, ruled_out, not_run)
    first = named[0]
    return Diagnosis(case.module, first.cause, first.detail, first.explained, first.residual, named[1:], ranked, ruled_out, not_run)


def run_all(case: Case, judge: Judge) -> tuple[list[Ranked], list[str]]:
    """All hypotheses, best first; and those that could not be run, with the reason."""
    ranked: list[Ranked] = []
    not_run: list[str] = []
    for make in generators():
        for hypothesis in make(case):
            try:
                ranked.append(judge.rank(hypothesis))
            except (PortingError, ValueError) as error:
                not_run.append(f"{hypothesis.cause}: {hypothesis.detail}: {error}")
    ranked.sort(key=lambda r: (not r.equal, r.residual))
    return ranked, not_run
