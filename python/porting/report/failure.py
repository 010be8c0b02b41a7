"""What a failed test says of one tensor, in the words of torch.testing: how many elements differ, where most, by how much, what was allowed."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .text import clean

if TYPE_CHECKING:
    from . import Row

_ULP_NAN = 2**64 - 1


def failure(row: Row, expected: Any = None, actual: Any = None, cause: Any = None) -> str:
    """The text of a row that was not accepted.

    Parameters
    ----------
    row : the row; one of status "compared" gets the measured differences, others their reason
    expected, actual : the two arrays, of equal shape, for the values at the worst elements; None: only the indices are said
    cause : a Diagnosis or a sentence, or None
    """
    what = f"{row.dtype} {list(row.shape)}" if row.shape is not None else "no tensor"
    kind = f"{row.kind}, " if row.kind else ""
    if row.status == "compared" and row.metrics is not None and row.verdict is not None:
        lines = [f"{clean(row.name)} is not the reference's ({clean(kind + what)}): {clean(row.reason)}", ""]
        lines += _differences(row, expected, actual)
        lines.append(f"Band: {row.verdict.band}. Allowed: {row.verdict.allowed}")
    else:
        lines = [f"{clean(row.name)} could not be compared ({clean(kind + what)}): {row.status}: {clean(row.reason)}"]
    if row.inputs_differ:
        lines.append("Its inputs differ from the reference's too.")
    if cause is not None:
        lines += ["Cause: " + clean(text) if i == 0 else clean(text) for i, text in enumerate(str(cause).splitlines())]
    return "\n".join(lines)


def _differences(row: Row, expected: Any, actual: Any) -> list[str]:
    m = row.metrics or {}
    total = m["num_elems"]
    lines = [f"Unequal elements: {m['num_unequal']} / {total} ({m['num_unequal'] / total if total else 0:.1%})"]
    for word, key in (("absolute", "max_abs"), ("relative", "max_rel")):
        if m[f"{key}_idx"] >= 0:
            lines.append(f"Greatest {word} difference: {m[key]:.9g} {_place(row, m[f'{key}_idx'], expected, actual)}")
    if m["max_ulp_idx"] >= 0:
        ulp = "NaN against a number" if m["max_ulp"] >= _ULP_NAN else f"{m['max_ulp']} ulp"
        lines.append(f"Greatest distance: {ulp} {_place(row, m['max_ulp_idx'], expected, actual)}")
    for word in ("nan", "inf"):
        if m[f"num_{word}_mismatch"]:
            name = "NaN" if word == "nan" else "Infinity"
            lines.append(f"{name}: {m[f'num_{word}_actual']} in the port, {m[f'num_{word}_expected']} in the reference,"
                         f" {m[f'num_{word}_mismatch']} on one side only, first {_place(row, m['first_nonfinite_mismatch'], expected, actual)}")
    return lines


def _place(row: Row, flat: int, expected: Any, actual: Any) -> str:
    """`at index (0, 3, 4): 1.25 in the port, 1.5 in the reference`"""
    shape = row.shape or ()
    flat = flat // 2 if row.dtype == "complex64" else flat
    index = tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()
    text = f"at index {index}"
    if expected is None or actual is None or np.shape(expected) != shape or np.shape(actual) != shape:
        return text
    return f"{text}: {_value(actual[index])} in the port, {_value(expected[index])} in the reference"


def _value(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.9g}" if isinstance(value, float) else str(value)
