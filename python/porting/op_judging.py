"""The verdict on single ops: each run again in C on what it was given, in the captured run (`check`) or in a port's (`compare`).

A row's module is the module and the op ("model.layers.0.mlp.op.3.aten.mm.default"): the first divergence of a composite is then an op.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._core import PortingError, UnsupportedError
from .golden import accuracy, condition_factor
from .judging import dot_length
from .op_level import CapturedOp, Operands, OpRuns
from .pair import Comparison, bits_equal, compare_arrays, compare_with_itself, with_picture
from .port import as_array
from .profiles import Settings
from .program import Interval, NoProgramError, kind_of
from .report import Row
from .tolerance import EXACT_KINDS, UNIT_ROUNDOFF, Tolerance, dtype_name


def _alone(op: CapturedOp) -> Interval:
    return Interval(op.label, op.call.number, op.number, op.number + 1, {}, {}, {}, None)


def kind_of_op(op: CapturedOp) -> str:
    """What an op computes, in the words of docs/DESIGN.md."""
    return kind_of(op.root.program, _alone(op))


class OpJudge:
    """Judges the results of one op on given operands."""

    def __init__(self, runs: OpRuns, op: CapturedOp, operands: Operands, kind: str, tol: Tolerance, ways: Settings) -> None:
        self.runs, self.op, self.operands, self.kind, self.tol, self.ways = runs, op, operands, kind, tol, ways
        self._golden: dict[str, np.ndarray] | None = None

    def judge(self, leaf: str, expected: np.ndarray, actual: np.ndarray) -> tuple[Comparison, dict[str, float] | None]:
        """As `CallJudge.judge`: what the pair measured, and who is nearer to float64 if that was computed."""
        kind, tol = self.kind, self.tol
        if bits_equal(expected, actual):
            return compare_with_itself(expected, tol, kind), None
        banded = tol.rule in ("bands", "green") and kind not in EXACT_KINDS and dtype_name(expected.dtype) in UNIT_ROUNDOFF and expected.dtype.kind != "c"
        if not banded:
            return compare_arrays(expected, actual, tol=tol, kind=kind), None
        if kind == "linear":
            scale = self._absolute_run(leaf)
            if scale is not None:
                terms = dot_length(self.op.root.program, _alone(self.op))
                return compare_arrays(expected, actual, tol=tol, kind=kind, scale=scale, terms=terms), None
        golden = self.golden.get(leaf)
        kappa = condition_factor(expected, golden) if golden is not None else None
        found = compare_arrays(expected, actual, tol=tol, kind=kind if kind in ("attention", "softmax", "layer_norm") else "composite", kappa=kappa)
        return found, accuracy(expected, actual, golden) if golden is not None else None

    @property
    def golden(self) -> dict[str, np.ndarray]:
        """Leaf path to what the op gives in float64; empty if it cannot run there."""
        if self._golden is None:
            self._golden = self.runs.run_wide(self.op, self.operands)
        return self._golden

    def _absolute_run(self, leaf: str) -> np.ndarray | None:
        feeds = {v: np.abs(a) if a.dtype.name in UNIT_ROUNDOFF else a for v, a in self.operands.feeds.items()}
        try:
            result = self.runs.run(self.op, Operands(feeds, self.operands.only, self.operands.names, True, ()), self.ways)
        except (PortingError, ValueError, MemoryError):
            return None
        return np.abs(result[leaf].astype(np.float64))


def _at(op: CapturedOp, leaf: str, kind: str) -> dict[str, Any]:
    return {"name": op.call.full_name("op", leaf), "module": op.label, "call": op.call.number, "step": op.call.step, "kind": kind}


def _about(expected: np.ndarray) -> dict[str, Any]:
    return {"shape": expected.shape, "dtype": dtype_name(expected.dtype)}


def rows_of_check(runs: OpRuns, op: CapturedOp, tol: Tolerance, ways: Settings) -> Iterator[Row]:
    """One row per captured result: the op in C on its captured inputs against it."""
    kind, status = kind_of_op(op), ""
    try:
        operands = runs.operands(op)
        found = runs.run(op, operands, ways)
    except UnsupportedError as error:
        status, why = "unsupported", str(error)
    except NoProgramError as error:
        status, why = "no program", str(error)
    except (PortingError, ValueError, MemoryError) as error:
        status, why = "failed", f"running it failed: {error}"
    if not status:
        judge = OpJudge(runs, op, operands, kind, tol, ways)
    for leaf in op.outputs:
        expected = op.call.op_tensors[leaf]
        if status:
            yield Row(**_at(op, leaf, kind), status=status, reason=why, **_about(expected))
            continue
        compared, golden = judge.judge(leaf, expected, found[leaf])
        yield Row(**_at(op, leaf, kind), status=compared.status, verdict=compared.verdict, metrics=compared.metrics, reason=compared.reason,
                  golden=golden, **_about(expected))


def rows_of_compare(runs: OpRuns, op: CapturedOp, port: Mapping[str, np.ndarray], translate: Callable[[str], str], tol: Tolerance, ways: Settings,
                    isolated: bool) -> Iterator[Row]:
    """One row per captured result: the port's tensor of that name against it; `isolated`: against the reference's op on the port's own inputs,
    where these are not the reference's."""
    kind = kind_of_op(op)

    def lookup(name: str) -> np.ndarray | None:
        name = translate(name)
        return as_array(port[name]) if name in port else None

    operands, local, why = None, {}, ""
    try:
        operands = runs.operands(op, lookup if isolated else None)
        if operands.given:
            local = runs.run(op, operands, ways)
    except (PortingError, ValueError, MemoryError) as error:
        why = str(error)
    differ = operands is not None and operands.given
    judge = OpJudge(runs, op, operands, kind, tol, ways) if operands is not None else None
    for leaf in op.outputs:
        expected, actual = op.call.op_tensors[leaf], lookup(op.call.full_name("op", leaf))
        at = {**_at(op, leaf, kind), "inputs_differ": differ}
        if actual is None:
            yield Row(**at, status="missing", reason="the port has no tensor of this name", **_about(expected))
            continue
        whole = compare_arrays(expected, actual, tol=tol, kind=kind)
        if whole.status != "compared":
            yield Row(**at, status=whole.status, metrics=whole.metrics, reason=whole.reason, **_about(expected))
            continue
        whole = with_picture(whole, expected, actual)
        if leaf in local:
            compared, golden = judge.judge(leaf, local[leaf], actual)
            verdict, reason = compared.verdict, compared.reason
            if compared.passed and not bits_equal(expected, actual):
                reason = f"carried: inputs differ, own arithmetic right ({reason})"
                band = "green" if verdict.band == "exact" else verdict.band  # exact is said of the reference's own bits
                verdict = dataclasses.replace(verdict, band=band, reason=reason)
            yield Row(**at, status="compared", verdict=verdict, metrics=whole.metrics, reason=reason, golden=golden, local_metrics=compared.metrics, picture=whole.picture,
                      **_about(expected))
        else:
            compared, golden = judge.judge(leaf, expected, actual) if judge is not None else (whole, None)
            reason = compared.reason + (f"; not judged on the port's own inputs: {why}" if why and not compared.passed else "")
            yield Row(**at, status="compared", verdict=compared.verdict, metrics=compared.metrics, reason=reason, golden=golden, picture=whole.picture,
                      **_about(expected))
