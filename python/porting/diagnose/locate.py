"""Whose fault is the first divergence: the module's own, or the code around it.

The first output that diverges need not belong to the module that is wrong: if its inputs diverge already, while no output before them does, then
the ops between the modules made the error (a residual left out, a mask built wrongly). The blame then goes to the innermost enclosing call whose
inputs still agree. Where the port shows tensors of the modules inside that call, the ops between the last that agree and the first that does not are diagnosed
by themselves.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._core import PortingError
from ..port import as_array
from ..program import Interval, Program, find_interval
from . import Diagnosis, diagnose
from .case import UNITS, Case, Op, needed
from .explain import case_of_call

CLOSE = 64  # units of rounding of the dtype, relative to the rms: tensors this near are taken for equal but for rounding


def close(expected: np.ndarray, actual: np.ndarray) -> bool:
    """True if two arrays agree but for rounding carried along."""
    if expected.shape != actual.shape:
        return False
    unit = UNITS.get(expected.dtype.name)
    if unit is None or actual.dtype.name not in UNITS:
        return bool(np.array_equal(expected, actual))
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((e == a) | (np.isnan(e) & np.isnan(a)), 0, e - a)
    if not error.any():
        return True
    if not np.isfinite(error).all():
        return False
    finite = e[np.isfinite(e)]
    return bool(np.sqrt(np.mean(error * error)) <= CLOSE * unit * np.sqrt(np.mean(finite * finite)) if finite.size else False)


def port_leaves(port: Mapping[str, Any], call: Any, phase: str, translate: Any) -> dict[str, np.ndarray]:
    """The port's tensors of one phase of a call, by leaf path, as far as it has them."""
    found = {}
    for path in call.inputs if phase == "in" else call.outputs:
        name = translate(call.full_name(phase, path))
        if name in port:
            found[path] = as_array(port[name])
    return found


def agrees(call: Any, port: Mapping[str, Any], translate: Any) -> bool:
    """True if the port gave the call the reference's inputs. Inputs that the port does not have say nothing."""
    theirs = port_leaves(port, call, "in", translate)
    return all(close(call.inputs[path], array) for path, array in theirs.items())


def encloses(outer: Any, call: Any) -> bool:
    return outer.step == call.step and outer.module != call.module and (outer.module == "" or call.module.startswith(outer.module + "."))


def blamed(calls: list[Any], call: Any, port: Mapping[str, Any], translate: Any) -> Any:
    """The call to blame for the divergence of `call`: itself, or the innermost enclosing one whose inputs agree. None if no inputs agree."""
    if agrees(call, port, translate):
        return call
    place = next(i for i, c in enumerate(calls) if c is call or (c.module == call.module and c.number == call.number))
    for outer in reversed(calls[:place]):
        if encloses(outer, call) and agrees(outer, port, translate):
            return outer
    return None


def first_cause(capture: Any, port: Mapping[str, Any], row: Any, translate: Any = lambda name: name) -> Diagnosis | None:
    """The diagnosis of the first divergence of a report.

    Parameters
    ----------
    capture : the reference. port : mapping of full names to arrays (a capture is one)
    row : the report's first divergence
    translate : a reference's name as the port writes it

    Returns None if the port does not hold what it takes: the outputs of the call to blame.
    """
    call = next((c for c in capture.call_list if c.module == row.module and c.number == row.call), None)
    if call is None:
        return None
    judged_alone = row.local_metrics is not None  # on its own inputs: what diverges is its own arithmetic
    blame = call if judged_alone else blamed(capture.call_list, call, port, translate)
    if blame is None:
        return None
    outputs = port_leaves(port, blame, "out", translate)
    if not outputs:
        return None
    try:
        case = case_of_call(capture, blame, outputs, port_leaves(port, blame, "in", translate))
        inside = first_inside(capture, blame, case, port, translate)
        cases = [case] if inside is None else [case, inside] if handed_over(inside) else [inside, case]
        found = [diagnose(cases[0])]
        if found[0].cause in NOT_NAMED and len(cases) > 1:
            found.append(diagnose(cases[1]))
        named = next((d for d in found if d.cause not in NOT_NAMED), found[-1] if len(found) == 1 or cases[1] is case else found[0])
        if named.cause in NOT_NAMED and inside is not None:
            named.op = f"{next(iter(inside.actual))} is the first tensor inside that differs; before it: {between(inside)}"
        return named
    except PortingError as error:
        return Diagnosis(blame.module or "the root", "not-run", str(error), 0.0, float("inf"))


# ---------------------------------------------------------------- down to the op


NOT_NAMED = ("none", "rounding", "unknown", "partly-wrong", "not-run")


def handed_over(case: Case) -> bool:
    """True if the part is no op at all: a module returned what the reference did, and the next one was given something else."""
    return len(case.ops) == 1 and case.ops[0].base == "clone" and case.ops[0].outputs[0] == len(case.values) - 1


def between(case: Case) -> str:
    """"ops 12 to 19"."""
    first, last = min(case.positions, default=0), max(case.positions, default=0)
    return f"op {first}" if first == last else f"ops {first} to {last}"


def captured_call(capture: Any, program: Program, interval: Interval, step: Any) -> Any:
    """The captured call that an interval of the program stands for in this step, or None."""
    if interval.name not in capture.modules:
        return None
    mates = sorted((c for c in capture.calls(interval.name) if c.step == step), key=lambda c: c.number)
    intervals = program.of_module(interval.name)
    return mates[intervals.index(interval)] if len(mates) == len(intervals) else None


def seen_inside(capture: Any, call: Any, port: Mapping[str, Any], translate: Any) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """What the port shows of the inside of a call: (value in its program, name, the reference's tensor, the port's) of the modules within."""
    program, outer, _ = find_interval(capture, call)
    for interval in program.intervals:
        if interval is outer or not (outer.begin <= interval.begin and interval.end <= outer.end) or interval.name == outer.name:
            continue
        inner = captured_call(capture, program, interval, call.step)
        for phase, numbers, leaves in (("in", interval.inputs, inner.inputs), ("out", interval.outputs, inner.outputs)) if inner is not None else ():
            for path, value in numbers.items():
                name = translate(inner.full_name(phase, path)) if path in leaves else ""
                if name in port:
                    array = as_array(port[name])
                    if array.shape == leaves[path].shape and array.dtype == leaves[path].dtype:
                        yield value, inner.full_name(phase, path), leaves[path], array


def first_inside(capture: Any, call: Any, case: Case, port: Mapping[str, Any], translate: Any) -> Case | None:
    """The part of a case that leads to the first tensor inside it that differs, from those that agree; None if the port shows nothing of the inside."""
    recorded = len(find_interval(capture, call)[0].values)
    if case.in_place or len(case.values) > recorded:
        return None
    right: dict[int, tuple[str, np.ndarray]] = {}
    wrong: dict[int, tuple[str, np.ndarray, np.ndarray]] = {}
    for value, name, expected, actual in seen_inside(capture, call, port, translate):
        if value in case.producers and expected.size:
            if close(expected, actual):
                right.setdefault(value, (name, actual))
            else:
                wrong.setdefault(value, (name, expected, actual))
    first = min(wrong, key=lambda v: case.producers[v], default=None)
    if first is None:
        return None
    if first in right:
        name, expected, actual = wrong[first]
        values = [*case.values, case.values[first]]
        return dataclasses.replace(
            case, values=values, ops=[Op("aten.clone.default", [{"v": first}], {}, [len(values) - 1])], feeds={first: right[first][1]}, parameters={},
            outputs={name: len(values) - 1}, expected={name: expected}, actual={name: actual}, leaves={first: right[first][0]},
            positions=[case.positions[case.producers[first]]], _memory={},
        )  # fmt: skip
    end = case.producers[first]
    given = {v: array for v, (_, array) in right.items() if case.producers[v] < end}
    ops = needed(case.ops[: end + 1], [first], given, set())
    kept = {id(op) for op in ops}
    used = {v for op in ops for v in op.inputs}
    name, expected, actual = wrong[first]
    return dataclasses.replace(
        case, ops=ops, feeds={v: a for v, a in {**case.feeds, **given}.items() if v in used},
        parameters={v: n for v, n in case.parameters.items() if v in used}, outputs={name: first}, expected={name: expected}, actual={name: actual},
        leaves={**{v: n for v, n in case.leaves.items() if v in used}, **{v: right[v][0] for v in given if v in used}},
        positions=[i for i, op in zip(case.positions, case.ops) if id(op) in kept], _memory={},
    )  # fmt: skip
