"""One pair of tensors: measured in one pass and judged by a tolerance.

What it does not know: where the tensors come from, and what the module computed beyond its kind.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import _core
from .picture import picture
from .port import as_array
from .tolerance import EXACT_KINDS, UNIT_ROUNDOFF, Tolerance, Verdict, dtype_name, resolve


@dataclass(frozen=True)
class Comparison:
    """What one pair measured. status : "compared", "shape" or "dtype"; verdict and metrics are None where the shapes differ."""

    status: str
    verdict: Verdict | None
    metrics: dict[str, Any] | None
    reason: str
    shape: tuple[int, ...]
    dtype: str
    picture: dict[str, Any] | None = None  # where they differ, if they do (picture.py)

    @property
    def passed(self) -> bool:
        return self.status == "compared" and self.verdict is not None and self.verdict.passed

    @property
    def band(self) -> str | None:
        return self.verdict.band if self.verdict is not None else None


def compare_arrays(expected: Any, actual: Any, *, tol: str | Tolerance = "auto", kind: str | None = None,
                   scale: np.ndarray | float | None = None, terms: int | None = None,
                   kappa: np.ndarray | float | None = None) -> Comparison:
    """Measure two tensors and judge the difference.

    Parameters
    ----------
    expected, actual : NumPy or torch tensors; another shape or dtype is a result, not an error
    tol : preset name or Tolerance
    kind : what the module computes (docs/DESIGN.md): decides what rounding may do. None: "composite", or "linear" if scale is given
    scale : condition scale s, broadcastable to the shape, or a number
    terms : terms of each sum (K)
    kappa : how far a composite or attention amplifies rounding (golden.condition_factor)
    """
    tol = resolve(tol)
    e, a = as_array(expected, "expected"), as_array(actual, "actual")
    kind = kind or ("composite" if scale is None else "linear")
    name, other = dtype_name(e.dtype), dtype_name(a.dtype)
    kind = kind if name in UNIT_ROUNDOFF or kind in EXACT_KINDS else "integer"
    about = {"shape": e.shape, "dtype": name}
    if e.shape != a.shape:
        hint = " (the same number of elements, in another layout)" if e.size == a.size and e.size else ""
        return Comparison("shape", None, None, f"shape {list(a.shape)}, expected {list(e.shape)}{hint}", **about)
    both_float = name in UNIT_ROUNDOFF and other in UNIT_ROUNDOFF and "c" not in (e.dtype.kind, a.dtype.kind)
    if e.dtype != a.dtype and not both_float:
        return Comparison("dtype", None, None, f"dtype {other}, expected {name}", **about)
    pe, pa = _parts(e), _parts(a)
    if bits_equal(e, a):  # no scale is needed to see that
        metrics = {**_core.compare(pe, pa), "max_err_scale": 0.0}
    else:
        if scale is not None and pe is not e:
            scale = np.asarray(scale)[..., None] if np.ndim(scale) else scale
        base, slope, u = tol.scale_parts(pe, kind=kind, terms=terms, scale=scale, kappa=kappa)
        metrics = _core.compare(pe, pa, base if base is None or not np.ndim(base) else np.broadcast_to(base, pe.shape), u, slope)
        metrics.update(tol.extra_metrics(pe, pa, kind))
    if e.dtype != a.dtype:
        reason = f"dtype {other}, expected {name}; as numbers they differ by at most {metrics['max_abs']:.3g}"
        return Comparison("dtype", None, metrics, reason, **about)
    verdict = tol.judge(metrics, kind=kind, dtype=pe.dtype, terms=terms, scale=scale, kappa=kappa)
    return Comparison("compared", verdict, metrics, verdict.reason, **about)


def with_picture(found: Comparison, expected: Any, actual: Any) -> Comparison:
    """The same, with where the two differ, if they do: what a report shows and no verdict needs."""
    if found.status != "compared" or not found.metrics or not found.metrics["num_unequal"]:
        return found
    return replace(found, picture=picture(_parts(as_array(expected)), _parts(as_array(actual))))


def compare_with_itself(array: np.ndarray, tol: Tolerance, kind: str) -> Comparison:
    """`compare_arrays` of an array and its equal, which has been found so already."""
    parts = _parts(array)
    name = dtype_name(array.dtype)
    kind = kind if name in UNIT_ROUNDOFF or kind in EXACT_KINDS else "integer"
    metrics = {**_core.compare(parts, parts), "max_err_scale": 0.0}
    verdict = tol.judge(metrics, kind=kind, dtype=parts.dtype)
    return Comparison("compared", verdict, metrics, verdict.reason, array.shape, name)


def in_one_dtype(e: np.ndarray, a: np.ndarray, exactly: bool) -> tuple[np.ndarray, np.ndarray] | str:
    """(expected, actual) as numbers of one dtype, the expected's where that changes nothing but a rounding; or why they are not the same numbers.

    exactly : no rounding either: floats of two widths become those of the wider one.
    """
    if e.dtype == a.dtype:
        return e, a
    if e.dtype.name in UNIT_ROUNDOFF and a.dtype.name in UNIT_ROUNDOFF and "c" not in (e.dtype.kind, a.dtype.kind):
        return (e.astype(np.float64), a.astype(np.float64)) if exactly else (e, a.astype(e.dtype))
    with np.errstate(all="ignore"):
        if a.dtype.kind == "c" and (a.imag != 0).any():
            return f"The values are complex, with imaginary parts: {a.dtype.name}, expected {e.dtype.name}."
        numbers = a.real if a.dtype.kind == "c" else a
        found = numbers.astype(e.dtype)
        back = found.real if found.dtype.kind == "c" else found
        same = (back == numbers) & ((back < 0) == (numbers < 0)) | ((back != back) & (numbers != numbers))
        if same.all():
            return e, found
    if e.dtype.kind in "biu" and numbers.dtype.kind in "biu":
        return f"{int((~same).sum())} of {a.size} values are no {e.dtype.name}, such as {numbers[~same].flat[0]}."
    if e.dtype.kind == "c":
        return "The values have more digits than complex64." if exactly else (e, found)
    return e.astype(np.float64), numbers.astype(np.float64)


def bits_equal(e: np.ndarray, a: np.ndarray) -> bool:
    """True if shape, dtype and every bit agree."""
    if e.shape != a.shape or e.dtype != a.dtype:
        return False
    if e.dtype.kind not in "biu":
        if e.dtype.itemsize > 8:
            return bool(np.array_equal(e, a))
        raw = _RAW[e.dtype.itemsize]
        e, a = e.view(raw), a.view(raw)
    if e.size > _FIRST and e.flags.c_contiguous and a.flags.c_contiguous:  # what differs mostly does so at once
        e, a = e.reshape(-1), a.reshape(-1)
        return bool((e[:_FIRST] == a[:_FIRST]).all() and (e == a).all())
    return bool((e == a).all())


_RAW = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_FIRST = 1024


def _parts(x: np.ndarray) -> np.ndarray:
    """Complex arrays as (..., 2) real ones; others as they are."""
    return x if x.dtype != np.complex64 else np.ascontiguousarray(x).reshape(x.shape).view(np.float32).reshape(*x.shape, 2)
