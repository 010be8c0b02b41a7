"""The verdict on what one module call returned, given the inputs it had: scale, float64 run, and the reference run again on a port's inputs.

Costs are paid when they are needed: nothing for equal bits, a condition scale for others, a float64 run only where the tolerance depends on it.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ._core import PortingError
from .golden import MAX_KAPPA, accuracy, condition_factor, golden_run
from .pair import Comparison, bits_equal, compare_arrays, with_picture
from .program import Interval, NoProgramError, Program, RunResult, feeds_of, find_interval, kind_of, run_call
from .tolerance import CONDITIONED_AMBER as AMBER
from .tolerance import EXACT_KINDS, UNIT_ROUNDOFF, Tolerance, classify, condition_scale

#: What a tolerance with bands judges by its own rounding, where no closer scale is known.
_BY_GOLDEN = frozenset({"composite", "attention", "linear"})


class CallJudge:
    """Judges the outputs of one captured call.

    Parameters
    ----------
    capture, call : the reference and one of its calls
    tol : Tolerance
    provider : where matrix products of the runs in C come from
    kind : what the module computes (docs/DESIGN.md); None: by its class, and by its program where that says no more than "composite"
    terms : ops of a composite, for the wide bound where no float64 run is possible
    inputs : leaf path to array: the inputs that the call had, where they are not the captured ones
    """

    def __init__(self, capture: Any, call: Any, tol: Tolerance, *, provider: str = "auto", kind: str | None = None, terms: int | None = None,
                 inputs: Mapping[str, np.ndarray] | None = None) -> None:
        self.capture, self.call, self.tol, self.provider, self.terms, self.inputs = capture, call, tol.of(call.module), provider, terms, inputs
        self.kind = kind or kind_of_call(capture, call)
        self._golden: dict[str, np.ndarray] | None = None

    @property
    def golden(self) -> dict[str, np.ndarray]:
        """Leaf path to float64 array, computed when first asked for; empty if that is not possible."""
        if self._golden is None:
            self._golden = golden_run(self.capture, self.call, self.inputs)
        return self._golden

    def judge(self, leaf: str, expected: np.ndarray, actual: np.ndarray, explain: bool = True) -> tuple[Comparison, dict[str, float] | None]:
        """(what the pair measured, who is nearer to float64 if a float64 run was made).

        expected : what the reference returns for the call's inputs. actual : what the port returned for them. explain : whether a float64
        run is worth its time where it cannot change the verdict any more.
        """
        found, golden = self._judge(leaf, expected, actual, explain)
        return with_picture(self.unless_noise(leaf, expected, actual, found), expected, actual), golden

    def unless_noise(self, leaf: str, expected: np.ndarray, actual: np.ndarray, found: Comparison, chained: bool = False) -> Comparison:
        """`found`, or that it passes: under `auto` a difference inside the reference's own noise is nobody's fault. chained : of a result of all modules before it."""
        noise = getattr(self.capture, "noise", None)
        if noise is None or self.tol.rule != "bands" or found.status != "compared" or found.passed or self.kind in EXACT_KINDS:
            return found
        reason = noise.covers(self.call.module, leaf, expected, actual, chained=chained)
        if reason is None:
            return found
        verdict = replace(found.verdict, band="amber", passed=True, reason=f"{reason}; {found.verdict.reason}")
        return replace(found, verdict=verdict, reason=verdict.reason)

    def _judge(self, leaf: str, expected: np.ndarray, actual: np.ndarray, explain: bool) -> tuple[Comparison, dict[str, float] | None]:
        kind, tol = self.kind, self.tol
        if bits_equal(expected, actual):
            return compare_arrays(expected, actual, tol=tol, kind=kind), None
        scale, terms = self._condition(leaf, expected)
        options: dict[str, Any] = {"tol": tol, "kind": kind, "scale": scale, "terms": terms}
        by_golden = kind in _BY_GOLDEN and scale is None and tol.rule in ("bands", "green") and expected.dtype.name in UNIT_ROUNDOFF
        found = compare_arrays(expected, actual, kappa=1.0, **options) if by_golden else compare_arrays(expected, actual, **options)
        if found.status != "compared" or found.band in ("exact", "green") or (not by_golden and found.passed):
            return found, None
        hopeless = not by_golden or not found.metrics["max_err_scale"] <= AMBER * MAX_KAPPA
        if tol.rule not in ("bands", "green") or (hopeless and not explain):
            return (compare_arrays(expected, actual, **options) if by_golden else found), None
        golden = self.golden.get(leaf)
        if by_golden:
            kappa = condition_factor(expected, golden) if golden is not None else None
            found = compare_arrays(expected, actual, kappa=kappa, **options)
        return found, accuracy(expected, actual, golden) if golden is not None else None

    def condition(self, leaf: str, expected: np.ndarray) -> tuple[np.ndarray | None, int | None, np.ndarray | float | None]:
        """(condition scale, terms, kappa) that a tolerance with bands judges one output by; see `Tolerance.scale_of`."""
        scale, terms = self._condition(leaf, expected)
        golden = self.golden.get(leaf) if self.kind in _BY_GOLDEN and scale is None else None
        return scale, terms, condition_factor(expected, golden) if golden is not None else None

    def _condition(self, leaf: str, expected: np.ndarray) -> tuple[np.ndarray | None, int | None]:
        """(condition scale, terms) of one output as the call's inputs, parameters and program tell it."""
        kind = self.kind
        if expected.dtype.name not in UNIT_ROUNDOFF or kind in EXACT_KINDS or expected.dtype.kind == "c":
            return None, None
        inputs = {**self.call.inputs, **{path: x for path, x in (self.inputs or {}).items() if path in self.call.inputs}}
        class_name = class_name_of(self.capture, self.call.module)
        scale, terms = condition_scale(kind, expected, list(inputs.values()), own_parameters(self.capture, self.call.module), class_name)
        if kind == "composite":
            terms = self.terms
        elif kind == "linear" and scale is None:
            scale, terms = linear_condition(self.capture, self.call, leaf, self.provider, self.inputs)
        return scale, terms


def own_parameters(capture: Any, module: str) -> dict[str, np.ndarray]:
    """The module's own "weight" and "bias", as far as they were stored."""
    prefix = f"{module}." if module else ""
    return {leaf: capture.parameters[prefix + leaf] for leaf in ("weight", "bias") if prefix + leaf in capture.parameters}


def class_name_of(capture: Any, module: str) -> str:
    """The class of a module, "" if the capture does not say."""
    info = capture.modules.get(module)
    return (info.class_name or "") if info is not None else ""


def kind_of_call(capture: Any, call: Any) -> str:
    """What a module computes by its class; by its program, if there is one, where the class says no more than "composite"."""
    class_name = class_name_of(capture, call.module)
    kind = classify(class_name, own_parameters(capture, call.module))
    if kind != "composite":
        return kind
    try:
        program, interval, _ = find_interval(capture, call)
    except PortingError:
        return kind
    return kind_of(program, interval, class_name)


def linear_condition(capture: Any, call: Any, leaf: str, provider: str,
                     inputs: Mapping[str, np.ndarray] | None = None) -> tuple[np.ndarray | None, int | None]:
    """(s, K) of an output that is linear in its operands, whatever its form: the same program on their absolute values.

    (None, None) if that cannot be computed, and the caller goes by the size of the row.
    """
    try:
        program, interval, root_call = find_interval(capture, call)
        symbols = program.call_symbols.get(root_call, [])
        feeds = feeds_of(capture, call, program, interval, inputs)
        feeds = {value: np.abs(array) if array.dtype.name in UNIT_ROUNDOFF else array for value, array in feeds.items()}
        scale, = program.core.run(interval.begin, interval.end, feeds, [interval.outputs[leaf]], provider=provider, symbols=symbols)
    except (PortingError, ValueError, KeyError, MemoryError):
        return None, None
    return np.abs(scale.astype(np.float64)), dot_length(program, interval)


def dot_length(program: Program, interval: Interval) -> int | None:
    """K of the interval's matrix product or convolution, by the recorded shapes."""
    for name, args, *_ in program.ops[interval.begin : interval.end]:
        op = name.split(".")[1] if name.count(".") else name
        shapes = [program.values[arg["v"]][1] for arg in args if isinstance(arg, dict) and isinstance(arg.get("v"), int)]
        if op == "convolution" and len(shapes) > 1 and shapes[1]:
            return math.prod(shapes[1][1:])
        if op in ("addmm", "baddbmm", "addmv") and len(shapes) == 3:
            return shapes[1][-1]
        if op in ("mm", "bmm", "mv", "dot", "matmul", "linear", "mkldnn_linear") and shapes and shapes[0]:
            return shapes[0][-1]
    return None


# ---------------------------------------------------------------- on the inputs that a port really had


def run_on_inputs(capture: Any, call: Any, inputs: Mapping[str, np.ndarray], provider: str) -> tuple[RunResult, list[str]]:
    """(what the reference's program of a call makes of a port's inputs, the inputs that it uses and that are the captured ones instead).

    inputs : leaf path (or full name of a tensor that the module reached otherwise) to array of the captured shape and dtype. For those not
        there (a mask that the port holds in another form) the captured one stands in: agreement then still shows that the module is right, but
        disagreement shows nothing.
    Raises PortingError with the reason if it cannot be run: no program, an op without a kernel.
    """
    program, interval, _ = find_interval(capture, call)
    needed = {*program.external(interval), *interval.outputs.values()}
    stand_ins = [path for path, value in interval.inputs.items() if value in needed and path in call.inputs and path not in inputs]
    stand_ins += [name for name in interval.captured.values() if name not in inputs]
    try:
        return run_call(capture, call, provider=provider, inputs=inputs), stand_ins
    except (ValueError, KeyError, MemoryError) as error:
        raise NoProgramError(str(error)) from error
