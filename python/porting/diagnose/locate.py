"""Whose fault is the first divergence: the module's own, or the code around it.

The first output that diverges need not belong to the module that is wrong: if its inputs diverge already, while no output before them does, then
the ops between the modules made the error (a residual left out, a mask built wrongly). The blame then goes to the innermost enclosing call whose
inputs still agree.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import PortingError
from .explain import case_of_call
from . import Diagnosis, diagnose

CLOSE = 64 * 2.0**-24  # relative to the rms: inputs this near are taken for equal but for rounding


def close(expected: np.ndarray, actual: np.ndarray) -> bool:
    """True if two arrays agree but for rounding carried along."""
    if expected.shape != actual.shape:
        return False
    if np.array_equal(expected, actual, equal_nan=expected.dtype.kind == "f"):
        return True
    if expected.dtype.kind != "f":
        return False
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((e == a) | (np.isnan(e) & np.isnan(a)), 0, e - a)
    if not np.isfinite(error).all():
        return False
    finite = e[np.isfinite(e)]
    return bool(np.sqrt(np.mean(error * error)) <= CLOSE * np.sqrt(np.mean(finite * finite)) if finite.size else False)


def port_leaves(port: Mapping[str, Any], call: Any, phase: str, translate: Any) -> dict[str, np.ndarray]:
    """The port's tensors of one phase of a call, by leaf path, as far as it has them."""
    found = {}
    for path in call.inputs if phase == "in" else call.outputs:
        name = translate(call.full_name(phase, path))
        if name in port:
            found[path] = np.asarray(port[name])
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
        inputs = port_leaves(port, blame, "in", translate)
        return diagnose(case_of_call(capture, blame, outputs, inputs))
    except PortingError as error:
        return Diagnosis(blame.module or "the root", "not-run", str(error), 0.0, float("inf"))
