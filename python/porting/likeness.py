"""What a wrong array looks like, from the two arrays alone: zeros, a scale, an offset, another order, one bad channel.

A hint for the text of a failed assertion. It does not know what was computed: the causes that name an operation are found by `diagnose`.
"""
from __future__ import annotations

import itertools

import numpy as np

_SAMPLE = 1 << 16  # elements that sorting looks at


def likeness(expected: np.ndarray, actual: np.ndarray) -> str:
    """One sentence about two real arrays of one shape that differ, "" if nothing simple explains it.

    A scale or an offset is only named if it leaves a thousandth of the error at most.
    """
    if expected.shape != actual.shape or expected.dtype.kind == "c" or expected.size < 4:
        return ""
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(e) & np.isfinite(a)
    if not finite.all():
        return _not_finite(e, a)
    error = float(np.sum((a - e) ** 2))
    if error == 0 or not np.isfinite(error):
        return ""
    return _whole(e, a, error) or _order(e, a, error) or _place(e, a, error)


def _not_finite(e: np.ndarray, a: np.ndarray) -> str:
    bad = ~np.isfinite(a) & np.isfinite(e)
    if bad.all():
        return "every element is NaN or infinite"
    if a.ndim >= 2 and bad.any():
        rows = bad.reshape(-1, a.shape[-1]).all(-1)
        if rows.any() and bad.sum() == rows.sum() * a.shape[-1]:
            return f"{rows.sum()} of {rows.size} rows are NaN or infinite throughout"
    return ""


def _whole(e: np.ndarray, a: np.ndarray, error: float) -> str:
    """The whole array by one rule."""
    if not a.any():
        return "every element is 0"
    if (a == a.flat[0]).all():
        return f"every element is {a.flat[0]:.6g}"
    if np.array_equal(a, -e):
        return "every sign is turned"
    square = float(np.sum(e * e))
    scale = float(np.sum(e * a)) / square if square else 0.0
    if float(np.sum((a - scale * e) ** 2)) <= 1e-3 * error:
        return f"it is {scale:.6g} times what is expected"
    offset = float(np.mean(a - e))
    if float(np.sum((a - e - offset) ** 2)) <= 1e-3 * error:
        return f"it is what is expected {'+' if offset >= 0 else '-'} {abs(offset):.6g}"
    if e.std() > 0:
        scale = float(np.mean((e - e.mean()) * (a - a.mean())) / e.var())
        offset = float(a.mean() - scale * e.mean())
        if float(np.sum((a - scale * e - offset) ** 2)) <= 1e-3 * error:
            return f"it is {scale:.6g} times what is expected {'+' if offset >= 0 else '-'} {abs(offset):.6g}"
    return ""


def _order(e: np.ndarray, a: np.ndarray, error: float) -> str:
    """The same numbers elsewhere."""
    close = 1e-3 * error
    for axis, step in itertools.product(range(e.ndim), (1, -1)):
        if e.shape[axis] > 2 and float(np.sum((a - np.roll(e, step, axis)) ** 2)) <= close:
            return f"it is what is expected moved by {step} along axis {axis}"
    for axis in range(e.ndim):
        if float(np.sum((a - np.flip(e, axis)) ** 2)) <= close:
            return f"it is what is expected turned around along axis {axis}"
    for i, k in itertools.combinations(range(e.ndim), 2):
        if e.shape[i] == e.shape[k] and float(np.sum((a - e.swapaxes(i, k)) ** 2)) <= close:
            return f"it is what is expected with axes {i} and {k} exchanged"
        if e.ndim <= 4 and float(np.sum((a.reshape(-1) - e.swapaxes(i, k).reshape(-1)) ** 2)) <= close:
            return f"it is what is expected with axes {i} and {k} exchanged in memory"
    if e.size <= _SAMPLE and float(np.sum((np.sort(a, None) - np.sort(e, None)) ** 2)) <= close:
        return "it holds the expected numbers in another order"
    return ""


def _place(e: np.ndarray, a: np.ndarray, error: float) -> str:
    """The error is all in one row or channel."""
    for axis in range(e.ndim):
        if e.shape[axis] < 3:
            continue
        along = np.sum((a - e) ** 2, tuple(k for k in range(e.ndim) if k != axis))
        worst = int(np.argmax(along))
        if along[worst] >= 0.999 * error:
            return f"the error is all at index {worst} of axis {axis} (of {e.shape[axis]})"
    return ""
