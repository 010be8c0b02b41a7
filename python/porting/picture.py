"""Where two tensors differ: a small picture of the error and the worst elements, for reports.

One pass in C. The picture's cells hold the greatest error of what falls on them, as one character each on a logarithmic scale, so that
a report over thousands of tensors stays small.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _core

ROWS, COLS, WORST = 24, 64, 8
#: One character for each octave below the greatest error, which is the last.
LEVELS = "0123456789abcdefghijklmnopqrstuvwxy"


def picture(expected: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
    """What a report shows of two real arrays of one shape that differ.

    Returns {"rows", "cols": of the picture, "cells": one character each, row-major; "top": the greatest finite error; "worst": list of (flat index,
    expected, actual), the worst first}. The array is taken as a matrix, its last axis against all others. A character is "." for no error, "z" for NaN
    or infinity on one side, else one of LEVELS: "y" is the greatest, "x" half of it, and so on down to "0" for all that is smaller.
    """
    e, a = (np.require(x, requirements="CA") for x in (expected, actual))
    cols = e.shape[-1] if e.ndim else 1
    rows = e.size // cols
    cells, worst = _core.error_map(e, a, min(rows, ROWS), min(cols, COLS), WORST)
    finite = cells[np.isfinite(cells)]
    top = float(finite.max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.nan_to_num(np.log2(cells / top) if top else np.full(cells.shape, -np.inf), nan=0.0, posinf=0.0, neginf=-1e3)
    level = np.clip(len(LEVELS) - 1 + np.round(below), 0, len(LEVELS) - 1).astype(int)
    text = np.array(list(LEVELS))[level]
    text[cells == 0] = "."
    text[np.isinf(cells)] = "z"
    flat_e, flat_a = e.reshape(-1), a.reshape(-1)
    return {"rows": cells.shape[0], "cols": cells.shape[1], "cells": "".join(text.reshape(-1)), "top": top,
            "worst": [(int(i), _number(flat_e[i]), _number(flat_a[i])) for i in worst]}


def _number(value: Any) -> float | int | str:
    if np.asarray(value).dtype.kind in "biu":
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)
