"""The float64 run of a recorded call: how accurate a result is, and how far the module amplifies rounding.

The same ops run on the same inputs with every narrower float widened, so that what the result differs from is the rounding of the run that
was captured. What this file does not do: judge (tolerance.py), or decide when such a run is worth its time (judging.py).
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._core import PortingError
from .profiles import settings
from .program import feeds_of, find_interval
from .tolerance import UNIT_ROUNDOFF, row_rms
from .widening import wide_core, widen_array

#: A module that amplifies rounding more than this is discontinuous (a choice fell otherwise): no tolerance is made of it.
MAX_KAPPA = 1024.0


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
        options = settings("golden", capture.environment).options
        arrays = core.run(interval.begin, interval.end, feeds, list(wanted.values()), symbols=program.call_symbols.get(root_call, []), **options)
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
    if unit is None or not unit > UNIT_ROUNDOFF["float64"] or reference.shape != golden.shape or reference.size == 0 or reference.dtype.kind == "c":
        return None  # a float64 run says nothing of one that is float64 itself: both round alike
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
    if unit is None or not unit > UNIT_ROUNDOFF["float64"] or not reference.shape == actual.shape == golden.shape or reference.size == 0:
        return None  # none is nearer to a run that rounds as the reference does
    theirs, ours = rms_units(reference, golden, unit), rms_units(actual, golden, unit)
    return {"reference": theirs, "port": ours, "ratio": ours / max(theirs, 1.0)}
