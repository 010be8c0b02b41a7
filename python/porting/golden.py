"""The float64 run of a recorded call: how accurate a result is, and how far the module amplifies rounding.

The same ops run on the same inputs with every narrower float widened, so that what the result differs from is the rounding of the run that
was captured. What this file does not do: judge (tolerance.py), or decide when such a run is worth its time (judging.py).
"""
from __future__ import annotations

import json
import math
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _core
from ._core import PortingError
from .program import Program, _profile, feeds_of, find_interval, lay_out
from .tolerance import UNIT_ROUNDOFF, row_rms

#: Dtypes of PROGRAM.md that a float64 run widens, and their NumPy names.
NARROW = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

#: A module that amplifies rounding more than this is discontinuous (a choice fell otherwise): no tolerance is made of it.
MAX_KAPPA = 1024.0


def widened(arg: Any) -> Any:
    """An argument of a recorded op with float64 in the place of narrower floating dtypes."""
    if isinstance(arg, dict):
        if isinstance(arg.get("dtype"), str) and arg["dtype"] in NARROW:
            return {"dtype": "F64"}
        return {k: widened(v) for k, v in arg.items()}
    return [widened(a) for a in arg] if isinstance(arg, list) else arg


def widen_value(value: Any) -> Any:
    """Recorded metadata [dtype, shape, strides, offset] with float64 in the place of a narrower float."""
    return ["F64", *value[1:]] if value[0] in NARROW else value


def widen_array(array: np.ndarray) -> np.ndarray:
    """The array in float64 with the same strides in elements, if it is a narrower float; else as it is."""
    if array.dtype.name not in NARROW.values():
        return array
    return lay_out(array.astype(np.float64), [stride // array.itemsize for stride in array.strides])


_wide: weakref.WeakKeyDictionary[Program, _core.Program] = weakref.WeakKeyDictionary()


def wide_core(program: Program) -> _core.Program:
    """The program in float64, parsed once."""
    if program not in _wide:
        entry = dict(program._entry)
        entry["values"] = [widen_value(value) for value in program.values]
        entry["ops"] = [[op[0], widened(op[1]), widened(op[2]), *op[3:]] for op in program.ops]
        _wide[program] = _core.Program(json.dumps(entry).encode())
    return _wide[program]


def golden_run(capture: Any, call: Any, inputs: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Leaf path to float64 array: what one captured call returns in float64.

    Parameters
    ----------
    inputs : leaf path to array, in the place of captured inputs (`program.run_call`)

    Returns an empty dict where that cannot be had: no program, an op without a float64 kernel, too little memory.
    """
    try:
        program, interval, root_call = find_interval(capture, call)
        core = wide_core(program)
        feeds = {value: widen_array(array) for value, array in feeds_of(capture, call, program, interval, inputs).items()}
        made = {v for op in program.ops[interval.begin : interval.end] for v in op[3] if isinstance(v, int)}
        wanted = {path: v for path, v in interval.outputs.items() if path in call.outputs and v in made}
        if not wanted:
            return {}
        profile = {**_profile(capture.environment), "mkldnn": False}
        arrays = core.run(interval.begin, interval.end, feeds, list(wanted.values()), symbols=program.call_symbols.get(root_call, []), **profile)
    except (PortingError, ValueError, KeyError, MemoryError):
        return {}
    return dict(zip(wanted, arrays))


def rms_units(x: np.ndarray, golden: np.ndarray, unit: float) -> float:
    """rms(x - golden) in units of `unit` * rms(golden), over elements that are finite in both; NaN if finite ones meet others."""
    with np.errstate(all="ignore"):
        error = x.astype(np.float64) - golden
        same = (x == golden) | (np.isnan(x) & np.isnan(golden))
    error = np.where(same, 0.0, error)
    finite = golden[np.isfinite(golden)]
    if not np.isfinite(error).all() or not finite.size:
        return math.nan
    size = math.sqrt(float(np.mean(finite * finite)))
    return math.sqrt(float(np.mean(error * error))) / (unit * size) if size > 0 else (0.0 if not error.any() else math.inf)


def condition_factor(reference: np.ndarray, golden: np.ndarray) -> np.ndarray | None:
    """kappa = max(1, rms|reference - golden| / (u rms)) of each row: how many roundings of its result the reference's own arithmetic amounts to.

    The greater of the row's and the whole tensor's, so that a row that came out right by luck is not judged by that. Shape (..., 1). None if
    it says nothing: other shapes, numbers that are finite on one side only, or more than MAX_KAPPA over the whole tensor.
    """
    unit = UNIT_ROUNDOFF.get(reference.dtype.name)
    if unit is None or reference.shape != golden.shape or reference.size == 0 or reference.dtype.kind == "c":
        return None
    kappa = rms_units(reference, golden, unit)
    if not kappa <= MAX_KAPPA:
        return None
    size = np.atleast_1d(row_rms(golden))
    with np.errstate(all="ignore"):
        error = np.atleast_1d(row_rms(np.where(reference == golden, 0.0, reference.astype(np.float64) - golden)))
    rows = np.divide(error, unit * size, out=np.zeros_like(error), where=size > 0)
    return np.clip(rows, max(1.0, kappa), MAX_KAPPA)


def accuracy(reference: np.ndarray, actual: np.ndarray, golden: np.ndarray) -> dict[str, float] | None:
    """Who is nearer to float64: rms errors in units of u * rms, and the port's over the reference's (which counts as one unit at least)."""
    unit = UNIT_ROUNDOFF.get(reference.dtype.name)
    if unit is None or not reference.shape == actual.shape == golden.shape or reference.size == 0:
        return None
    theirs, ours = rms_units(reference, golden, unit), rms_units(actual, golden, unit)
    return {"reference": theirs, "port": ours, "ratio": ours / max(theirs, 1.0)}
