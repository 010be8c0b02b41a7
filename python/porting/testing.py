"""Assertions for tests of ports: `assert_close` with torch.testing's arguments, and `test_layer` for one captured module.

Arrays may be NumPy's or torch's, in any mix; torch is not imported. NaN is close to nothing, unless `equal_nan` says so for NaN on both sides.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._core import PortingError
from .compare import cause_of_callable, open_reference, rows_of_call
from .pair import compare_arrays
from .port import as_array
from .providers import use_provider
from .report import Report, Row
from .report.text import clean, describe
from .tolerance import TORCH_TOLERANCES, Tolerance, resolve

__all__ = ["ParityError", "assert_close", "test_layer"]


class ParityError(PortingError, AssertionError):
    """A port does not agree. `report` is the Report behind it, or None; `diagnosis` says why, or is None."""

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report
        self.diagnosis = report.cause if report is not None else None


def assert_close(actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False,
                 check_dtype: bool = True, tol: str | Tolerance | None = None, msg: str | Callable[[str], str] | None = None) -> None:
    """Raise ParityError, an AssertionError, unless |actual - expected| <= atol + rtol * |expected| for every element.

    Parameters
    ----------
    actual, expected : arrays, tensors, numbers, or sequences and mappings of them with the same structure
    rtol, atol : both or neither; the default is torch.testing's for the dtype (the looser one if two dtypes are compared), 0 for integers
    equal_nan : whether NaN on both sides is close
    check_dtype : whether the dtypes must be equal
    tol : a preset or Tolerance in the place of rtol and atol; see `porting.Tolerance`
    msg : the message, or a function of the one made here

    Raises
    ------
    ParityError : with the number of mismatched elements, the greatest differences and where they are, and what was allowed
    ValueError : only one of rtol and atol, or tol beside them

    Examples
    --------
    >>> assert_close(np.float32([1, 2]), np.float32([1, 2.0000002]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError(f"both 'rtol' and 'atol' must be given or neither, got no {'rtol' if rtol is None else 'atol'}")
    if tol is not None and rtol is not None:
        raise ValueError("tol takes the place of rtol and atol: give one or the other")
    if any(not value >= 0 for value in (rtol, atol) if value is not None):
        raise ValueError(f"rtol and atol must be numbers that are not negative, got {rtol} and {atol}")
    judge = resolve(tol) if tol is not None else None
    problems = _differences(actual, expected, "", rtol, atol, equal_nan, check_dtype, judge)
    if problems:
        text = "\n\n".join(problems)
        raise ParityError(msg(text) if callable(msg) else msg if msg is not None else text)


def _differences(actual: Any, expected: Any, where: str, rtol: float | None, atol: float | None, equal_nan: bool, check_dtype: bool,
                 judge: Tolerance | None) -> list[str]:
    """All that is wrong below this place, one text each."""
    options = (rtol, atol, equal_nan, check_dtype, judge)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if set(actual) != set(expected):
            missing, extra = sorted(map(str, set(expected) - set(actual))), sorted(map(str, set(actual) - set(expected)))
            return [f"The keys of the mappings do not match!{_at(where)}\nMissing keys: {missing}\nAdditional keys: {extra}"]
        return [text for key in expected for text in _differences(actual[key], expected[key], f"{where}[{key!r}]", *options)]
    if _is_sequence(expected) and _is_sequence(actual):
        if len(actual) != len(expected):
            return [f"The length of the sequences do not match: {len(actual)} != {len(expected)}{_at(where)}"]
        return [text for i, pair in enumerate(zip(actual, expected)) for text in _differences(*pair, f"{where}[{i}]", *options)]
    if expected is None or actual is None:
        return [] if expected is actual else [f"None mismatch: {_name(actual)} is not {_name(expected)}{_at(where)}"]
    if isinstance(expected, str) or isinstance(actual, str):
        return [] if expected == actual else [f"Object comparison failed: {actual!r} != {expected!r}{_at(where)}"]
    text = _pair(as_array(actual, "actual" + where), as_array(expected, "expected" + where), *options)
    return [text + _at(where)] if text else []


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _at(where: str) -> str:
    return f"\n\nThe failure occurred for item {where}" if where else ""


def _pair(a: np.ndarray, e: np.ndarray, rtol: float | None, atol: float | None, equal_nan: bool, check_dtype: bool,
          judge: Tolerance | None) -> str:
    """What is wrong with one pair, "" if nothing is."""
    if a.shape != e.shape:
        return f"The values for attribute 'shape' do not match: {_shape(a)} != {_shape(e)}."
    if check_dtype and a.dtype != e.dtype:
        return f"The values for attribute 'dtype' do not match: {a.dtype} != {e.dtype}."
    if judge is not None:
        return _judged(a.astype(e.dtype) if a.dtype != e.dtype else a, e, judge)
    if rtol is None or atol is None:
        rtols, atols = zip(*(TORCH_TOLERANCES.get(x.dtype.name, (0.0, 0.0)) for x in (a, e)))
        rtol, atol = max(rtols), max(atols)
    return _mismatch(a, e, rtol, atol, equal_nan)


def _shape(x: np.ndarray) -> str:
    return f"[{', '.join(map(str, x.shape))}]"


def _judged(a: np.ndarray, e: np.ndarray, judge: Tolerance) -> str:
    result = compare_arrays(e, a, tol=judge)
    if result.passed:
        return ""
    row = Row("Tensor-likes", "", 0, None, "values", result.status, result.verdict, result.metrics, result.reason, result.shape, result.dtype)
    return "Tensor-likes are not close!\n\n" + "\n".join(describe(row))


def _wide(x: np.ndarray) -> np.ndarray:
    """float64 or complex128 of any dtype, for subtraction."""
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _mismatch(a: np.ndarray, e: np.ndarray, rtol: float, atol: float, equal_nan: bool) -> str:
    """torch.testing's text for two arrays of one shape; "" if they are close."""
    with np.errstate(all="ignore"):
        wa, we = _wide(a), _wide(e)
        difference = np.abs(wa - we)
        exact_integers = a.dtype.kind in "biu" and e.dtype.kind in "biu"
        equal = (a == e) if exact_integers else (wa == we)
        allowed = atol + rtol * np.abs(we)
        close = equal if rtol == 0 and atol == 0 else equal | (np.isfinite(difference) & (difference <= allowed))
        if equal_nan:
            close = close | (np.isnan(wa) & np.isnan(we))
    close = np.asarray(close)
    if close.all():
        return ""
    count, total = int((~close).sum()), close.size
    exactly = rtol == 0 and atol == 0
    with np.errstate(all="ignore"):
        relative = difference / np.abs(we)
    lines = [f"{'Scalars' if close.ndim == 0 else 'Tensor-likes'} are not {'equal' if exactly else 'close'}!", ""]
    if close.ndim:
        lines.append(f"Mismatched elements: {count} / {total} ({count / total:.1%})")
    for word, values, bound in (("absolute", difference, atol), ("relative", relative, rtol)):
        value, index = _greatest(np.asarray(values), close)
        lines.append(f"Greatest {word} difference: {value} at index {index}" + ("" if exactly else f" (up to {bound} allowed)"))
    nans = [int(np.isnan(x).sum()) for x in (wa, we)]
    if any(nans):
        lines.append(f"NaN: {nans[0]} in actual, {nans[1]} in expected" + (" (equal_nan is off)" if not equal_nan and nans[0] == nans[1] else ""))
    return "\n".join(lines)


def _greatest(values: np.ndarray, skip: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The greatest value and its index; NaN counts as the greatest of all."""
    flat = np.where(skip, -1.0, values).ravel()
    flat_index = int(np.argmax(np.where(np.isnan(flat), np.inf, flat))) if not np.isnan(flat).any() else int(np.argmax(np.isnan(flat)))
    return float(flat[flat_index]), tuple(int(i) for i in np.unravel_index(flat_index, values.shape))


# ---------------------------------------------------------------- one layer


def test_layer(port: Callable[..., Any], activations: Any, name: str, *, tol: str | Tolerance = "auto", call: int | None = None) -> Report:
    """Run a port of one module on the captured inputs and compare every output.

    Parameters
    ----------
    port : callable or torch.nn.Module; NumPy arrays are passed positionally in order of place (torch tensors to a module, by name)
    activations : a Capture, or the path of one
    name : path of the module
    tol : preset name or Tolerance
    call : number of the call; None: all of them

    Returns
    -------
    Report : if everything agrees

    Raises
    ------
    ParityError : what differs: which tensor, how many elements, where, by how much, and what was allowed
    LayerNotFoundError : no such module, with suggestions
    """
    judge = resolve(tol)
    with contextlib.ExitStack() as opened:
        capture = open_reference(activations, opened)
        calls = [c for c in capture.calls(name) if call is None or c.number == call]
        if not calls:
            have = [c.number for c in capture.calls(name)]
            raise PortingError(f"{name} has no captured call" + (f" {call}; it has {have}" if have else ""))
        chosen, warning = use_provider("auto")
        rows = [row for one in calls for row in rows_of_call(capture, one, port, judge, chosen)]
        report = Report(rows, len(calls), what="compare", tolerance=judge.name, environment={"provider": chosen}, warnings=[warning] if warning else [])
        report.cause = cause_of_callable(capture, report, lambda module: port)
    if not report.passed:
        raise ParityError(_layer_message(name, report), report)
    return report


test_layer.__test__ = False  # not a test itself, wherever it is imported


def _layer_message(name: str, report: Report) -> str:
    bad = [row for row in report.rows if not row.passed]
    lines = [f"{clean(name)}: {len(bad)} of {len(report.rows)} outputs do not agree (tol={report.tolerance})"]
    for row in bad[:8]:
        lines += describe(row)
        if row.verdict is not None:
            lines.append(f"    band: {row.verdict.band}")
    if len(bad) > 8:
        lines.append(f"... and {len(bad) - 8} more")
    if report.cause is not None:
        lines += [f"why: {clean(line)}" if i == 0 else clean(line) for i, line in enumerate(str(report.cause).split("\n"))]
    if not bad:
        lines.append("nothing was compared: the module returned no tensor")
    return "\n".join(lines)
