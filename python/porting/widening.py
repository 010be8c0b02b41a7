"""Recorded programs and arrays in float64, and back: what golden runs and hypotheses about rounding are made of.

No torch here. Nothing is run.
"""
from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _core

#: Dtypes of PROGRAM.md that a float64 run widens, and their NumPy names.
NARROW = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def lay_out(array: np.ndarray, strides: Sequence[int]) -> np.ndarray:
    """A copy of the array with these strides (in elements; 0 for dimensions of size 1), or the array itself if it has them already
    or if they would need far more memory than its elements do."""
    if array.size == 0 or len(strides) != array.ndim:
        return array
    item = array.dtype.itemsize
    if all(n == 1 or s * item == own for n, s, own in zip(array.shape, strides, array.strides)):
        return array
    span = 1 + sum((n - 1) * s for n, s in zip(array.shape, strides))
    if min(strides) < 0 or span > 4 * array.size + 1024:
        return array
    memory = np.zeros(span, array.dtype)
    view = np.lib.stride_tricks.as_strided(memory, array.shape, [s * item for s in strides])
    view[...] = array
    return view


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


_wide: weakref.WeakKeyDictionary[Any, _core.Program] = weakref.WeakKeyDictionary()


def wide_core(program: Any) -> _core.Program:
    """A `program.Program` in float64, parsed once."""
    if program not in _wide:
        entry = dict(program._entry)
        entry["values"] = [widen_value(value) for value in program.values]
        entry["ops"] = [[op[0], widened(op[1]), widened(op[2]), *op[3:]] for op in program.ops]
        _wide[program] = _core.Program(json.dumps(entry).encode())
    return _wide[program]


def rounded_once(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A float64 array in a narrower floating dtype, each number rounded once to nearest even; others as they are."""
    if array.dtype != np.float64 or dtype == np.float64:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.name != "bfloat16":
            return array.astype(dtype)
        narrow = array.astype(np.float32)  # to odd, so that the second rounding sees on which side of a tie the number lay
        bits = narrow.view(np.uint32)
        inexact = (narrow.astype(np.float64) != array) & np.isfinite(narrow)
        bits -= inexact & (np.abs(narrow.astype(np.float64)) > np.abs(array))
        bits |= inexact
        return narrow.astype(dtype)
