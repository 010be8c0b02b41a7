"""From *that* a module is wrong to *why*: single-change hypotheses of its program, run in C and ranked by what they explain.

    diagnosis = porting.explain("model.layers.0.mlp", port_output, capture=activations)
    diagnosis.cause, diagnosis.detail        # "activation", "port computes tanh GELU, reference erf GELU"

A cause is named only if the port is reproduced to rounding level under it; else the cause is "unknown", and `ruled_out` says what was tried.
"""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# they register their generators, in this order
from . import (  # noqa: F401, I001
    arguments,
    attention,
    constants,
    fit,
    flash,
    inner,
    layout,
    moments,
    norms,
    others,
    outputs,
    rotary,
    rounding,
    stored,
    structure,
    weights,
)
from .case import Case, Op
from .hypothesis import Generator, Hypothesis, edited, generator, generators, overridden, transformed
from .rank import LEVEL, SURE, Judge, Ranked, decide

__all__ = ["Case", "Diagnosis", "Hypothesis", "Op", "diagnose", "edited", "generator", "overridden", "transformed"]


@dataclass(repr=False)
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
    not_run : hypotheses that could not be run, or for which there was no time
    op : where inside the module: number and name of the op of its program at which the cause is made, "" if it is at none
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
    op: str = ""

    def __repr__(self) -> str:  # hundreds of hypotheses are no answer at a prompt
        return f"<Diagnosis {self}>"

    def __str__(self) -> str:
        text = f"{self.module}: {self.cause}: {self.detail}"
        if self.op:
            text += f"\n  inside {self.module}: {self.op}"
        for other in self.also:
            text += f"\n  or, equally: {other.cause}: {other.detail}"
        if self.cause in ("unknown", "partly-wrong"):
            text += f"\n  ruled out: {', '.join(self.ruled_out)}"
        return text

    def _repr_html_(self) -> str:
        from ..report.notebook import diagnosis_html

        return diagnosis_html(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "module": self.module, "cause": self.cause, "detail": self.detail, "explained": self.explained, "residual": self.residual,
            "also": [r.to_dict() for r in self.also], "ranked": [r.to_dict() for r in self.ranked[:20]], "ruled_out": self.ruled_out, "not_run": self.not_run, "op": self.op,
        }  # fmt: skip


BUDGET_S = 10.0  # for the whole diagnosis
FITS_SHARE = 0.3  # of it is kept for numbers fitted to the port, where nothing explains it before
GRACE_S = 0.3  # after the end, to say what there was no time for
RIVALS_S = 2.0  # for the rest, once something explains the port
EQUAL_S = 0.7  # for the rest, once something gives the port's own bits


def diagnose(case: Case, *, budget_s: float = BUDGET_S) -> Diagnosis:
    """Runs every generator on the case and decides. Raises what running the unchanged program raises.

    budget_s : seconds of this thread's processor time after which no further hypothesis is begun, so that a busy machine changes nothing;
        those left are in `not_run`.
    """
    started = time.thread_time()
    end = started + budget_s
    if all(case.actual[leaf].dtype == e.dtype and np.array_equal(case.actual[leaf].view(np.uint8), e.view(np.uint8)) for leaf, e in dense(case)):
        return Diagnosis(case.module, "none", "the port's outputs are bit-equal to the reference's", 1.0, 0.0)
    case.choose_provider()
    judge = Judge(case)
    whole = judge.measure(judge.reference)
    residual = whole.residual
    if whole.equal:
        return Diagnosis(case.module, "none", "the port's outputs are equal to the reference's", 1.0, 0.0)
    if residual <= LEVEL:
        return only_rounding(case, judge, residual, end)
    ranked, not_run = run_all(case, judge, generators(), started + (1 - FITS_SHARE) * budget_s)
    named = simplest(decide(ranked))
    if not named or named[0].residual > SURE or named[0].cause in outputs.CAUSES:  # one number fitted to the port may say more, or leave less
        makers = fit.FITS if named else (*inner.FITS, *flash.FITS, *moments.FITS, *fit.FITS)
        refined, _ = run_all(case, judge, makers, min(end, time.thread_time() + RIVALS_S) if named else end)
        ranked = sorted([*ranked, *refined], key=order_of)
        named = simplest(decide(ranked))
    ruled_out = sorted({r.cause for r in ranked} - {r.cause for r in named})
    if named:
        first = named[0]
        return Diagnosis(case.module, first.cause, first.detail, first.explained, first.residual, named[1:], ranked, ruled_out, not_run, place_of(case, first))
    part = judge.part
    if part is not None:
        detail = f"everything but {part.where} is right; there no single change explains the difference of {residual:.3g} units"
        return Diagnosis(case.module, "partly-wrong", detail, 0.0, residual, [], ranked, ruled_out, not_run)
    if not np.isfinite(residual):
        return Diagnosis(case.module, "unknown", f"no single change explains it: {not_finite(case)}", 0.0, residual, [], ranked, ruled_out, not_run)
    best = f"; nearest: {ranked[0].detail}, which leaves {ranked[0].residual:.3g} units" if ranked and ranked[0].explained > 0.5 else ""
    return Diagnosis(case.module, "unknown", f"no single change explains the difference of {residual:.3g} units{best}", 0.0, residual, [], ranked, ruled_out, not_run)


def not_finite(case: Case) -> str:
    """Where the port is not finite and the reference is, or the other way round, in words."""
    count = {"the port": [0, 0], "the reference": [0, 0]}
    for leaf, e in dense(case):
        a = case.actual[leaf]
        if a.shape == e.shape and e.dtype.kind != "b":
            fa, fe = (np.isfinite(x.astype(np.float64) if x.dtype.kind != "c" else x) for x in (a, e))
            for side, wrong in (("the port", fe & ~fa), ("the reference", fa & ~fe)):
                count[side] = [count[side][0] + int(wrong.sum()), count[side][1] + wrong.size]
    side = max(count, key=lambda name: count[name][0])
    if not count[side][0]:
        return "one side has NaN where the other has infinity, or infinities of the other sign"
    other = "the reference" if side == "the port" else "the port"
    return f"{side} has NaN or infinity in {count[side][0]:,} of {count[side][1]:,} elements where {other} has numbers"


ROLES = (("rope-", "rotary embedding"), ("mask-", "attention"), ("window-", "attention"), ("attention-", "attention"), ("softmax-", "attention"), ("gqa-", "attention"))


def place_of(case: Case, named: Ranked) -> str:
    """"op 12 aten.mul 1x9x11x64 in self_attn.q_norm", with what the op is part of where the cause says it; "" in a module of one op."""
    index = named.op()
    if index is None or not 0 <= index < len(case.ops) or len(case.ops) < 2:
        return ""
    role = next((f" ({words})" for start, words in ROLES if named.cause.startswith(start)), "")
    return case.place(index) + role


def dense(case: Case) -> list[tuple[str, np.ndarray]]:
    """Expected outputs of the leaves that the port returned; both sides made contiguous, for comparing bytes."""
    for leaf in case.actual:
        case.actual[leaf], case.expected[leaf] = np.ascontiguousarray(case.actual[leaf]), np.ascontiguousarray(case.expected[leaf])
    return [(leaf, case.expected[leaf]) for leaf in case.actual]


def in_accord(diagnosis: Any, verdict: Any) -> Any:
    """The diagnosis, which does not call "rounding" what a verdict with bands refused as more than that: a small fault. Others (None, a sentence) as they are."""
    if verdict is not None and verdict.beyond_rounding and getattr(diagnosis, "cause", "") == "rounding":
        detail = f"a small fault ({diagnosis.residual:.2g} units of rounding, {verdict.reason}): no single change explains it"
        return replace(diagnosis, cause="unknown", detail=detail)
    return diagnosis


def only_rounding(case: Case, judge: Judge, residual: float, end: float) -> Diagnosis:
    """"rounding". If one other place of rounding gives every bit of the port, `also` says which: it is no fault, but it is a fact."""
    ranked, not_run = run_all(case, judge, rounding.GENERATORS, end)
    exact = [r for r in ranked if r.equal]
    detail = f"the port differs by rounding alone ({residual:.2g} units)" + (f"; bit for bit: {exact[0].detail}" if exact else "")
    return Diagnosis(case.module, "rounding", detail, 0.0, residual, exact, ranked, [], not_run)


def simplest(named: list[Ranked]) -> list[Ranked]:
    """Causes that hold for the whole output before those that hold in a part of it; what is said of the output alone only if no cause within
    explains it; a cause with a meaning (a mask absent) before an op that is only said to be missing or another."""
    whole = [r for r in named if not r.detail.startswith("in ")]
    named = whole or named
    return sorted(named, key=lambda r: (r.cause == "partly-wrong", of_weight_in_places(r), r.cause in outputs.CAUSES and r.cause not in PLAIN, r.cause not in PLAIN,
                                        r.cause in GENERIC, r.fitted, r.cause in UNLIKELY))  # fmt: skip


def of_weight_in_places(r: Ranked) -> bool:
    """True for another weight in some positions or batch rows only, which all see the same one: a sign that something else happened there."""
    return r.cause.startswith("weight") and r.detail.startswith(("in position", "in batch"))


PLAIN = {"batch-rows-alike"}  # of the output alone, but all that is to be said
UNLIKELY = {"rope-reversed", "accumulation-half", "scale"}  # as good as a cause that says more, on these numbers
GENERIC = {"op-missing", "op-other", "op-order", "axis", "operands-exchanged", "wrong-operand"}  # a changed op, whatever it means in the module


def order_of(r: Ranked) -> tuple[bool, float]:
    return (not r.equal, r.residual)


def run_all(case: Case, judge: Judge, makers: Iterable[Generator], end: float) -> tuple[list[Ranked], list[str]]:
    """All hypotheses, best first; and those that could not be run, with the reason."""
    ranked: list[Ranked] = []
    not_run: list[str] = []
    explained = False
    lines = {each(make, case, not_run): make.__name__ for make in makers}
    while lines:  # one of each generator in turn, so that none waits for the end of another
        for line in list(lines):
            if time.thread_time() > end + GRACE_S:  # a generator may work for what it yields
                not_run.append(f"all further hypotheses of {', '.join(sorted(set(lines.values())))}: no time left")
                lines.clear()
                break
            hypothesis = next(line, None)
            if hypothesis is None:
                del lines[line]
                continue
            if time.thread_time() > end:
                not_run.append(f"{hypothesis.cause}: {hypothesis.detail}: no time left")
                continue
            try:
                found = judge.rank(hypothesis)
                if any(r.equal and r.cause not in GENERIC and r.cause not in outputs.CAUSES - PLAIN for r in found):
                    end = min(end, time.thread_time() + EQUAL_S)
                elif decide(found) and found[0].cause not in outputs.CAUSES - PLAIN and not explained:
                    explained, end = True, min(end, time.thread_time() + RIVALS_S)
                ranked += found
            except Exception as error:  # a hypothesis that fails is listed, as a generator is: the others go on
                not_run.append(f"{hypothesis.cause}: {hypothesis.detail}: {error}")
    ranked.sort(key=order_of)
    return ranked, not_run


def each(make: Generator, case: Case, not_run: list[str]) -> Iterator[Hypothesis]:
    """What a generator yields. One that fails, as on a program of a form that it did not expect, ends there and is listed: the others go on."""
    try:
        yield from make(case)
    except Exception as error:
        not_run.append(f"generator {make.__module__.rpartition('.')[2]}.{make.__name__}: {type(error).__name__}: {error}")
