"""Assertions for tests of ports: `assert_close` with torch.testing's arguments, `assert_with_pcc` with TT-NN's, `test_layer` for one module.

Arrays may be NumPy's or torch's, in any mix; torch is not imported. NaN is close to nothing, unless `equal_nan` says so for NaN on both sides.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._core import PortingError
from .compare import cause_of_callable, check_layout_used, open_reference, rows_of_call, under_reference_names
from .interop.layout import parse
from .interop.propose import Search
from .likeness import likeness
from .pair import compare_arrays, in_one_dtype
from .port import as_array, run_port
from .providers import use_provider
from .report import Report, Row
from .report.text import clean, describe
from .tolerance import TORCH_TOLERANCES, UNIT_ROUNDOFF, Tolerance, resolve

__all__ = ["ParityError", "assert_close", "assert_with_pcc", "test_layer"]


class ParityError(PortingError, AssertionError):
    """A port does not agree. `report` is the Report behind it, or None; `diagnosis` says why, or is None."""

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report
        self.diagnosis = report.cause if report is not None else None


@dataclass(frozen=True)
class _Options:
    """What assert_close was asked for."""

    rtol: float | None
    atol: float | None
    equal_nan: bool
    check_dtype: bool
    check_device: bool
    check_layout: bool
    check_stride: bool
    allow_subclasses: bool
    judge: Tolerance | None


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None, atol: float | None = None,
                 equal_nan: bool = False, check_device: bool = True, check_dtype: bool = True, check_layout: bool = True,
                 check_stride: bool = False, tol: str | Tolerance | None = None, msg: str | Callable[[str], str] | None = None,
                 layout: str | None = None) -> None:
    """Raise ParityError, an AssertionError, unless |actual - expected| <= atol + rtol * |expected| for every element.

    Parameters
    ----------
    actual, expected : arrays, tensors, numbers, or sequences and mappings of them with the same structure
    allow_subclasses : whether the two may be of different, related classes. A NumPy array and a torch tensor are compared in any case
    rtol, atol : both or neither; the default is torch.testing's for the dtype (the looser one if two dtypes are compared), 0 for integers
    equal_nan : whether NaN on both sides is close
    check_device, check_layout : whether two torch tensors must be on the same device and of the same layout
    check_dtype : whether the dtypes must be equal
    check_stride : whether the strides (in elements) must be equal
    tol : a preset or Tolerance in the place of rtol and atol; see `porting.Tolerance`
    msg : the message, or a function of the one made here
    layout : how the axes of `actual` become those of `expected` ("NHWC -> NCHW": docs/NAMES.md), where both are one array

    Raises
    ------
    ParityError : with the number of mismatched elements, the greatest differences, where they are and what was allowed, the two values there,
        the band that `tol="auto"` gives it, and what it looks like (a scale, an offset, another order), where it looks like anything
    ValueError : only one of rtol and atol, or tol beside them; a layout that cannot be read, or does not fit (LayoutError)

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
    options = _Options(rtol, atol, equal_nan, check_dtype, check_device, check_layout, check_stride, allow_subclasses, judge)
    problems = _differences(_laid_out(actual, expected, layout), expected, "", options)
    if problems:
        text = "\n\n".join(problems)
        raise ParityError(msg(text) if callable(msg) else msg if msg is not None else text)


def assert_with_pcc(expected_pytorch_result: Any, actual_pytorch_result: Any, pcc: float = 0.9999, *, layout: str | None = None) -> tuple[bool, float]:
    """TT-NN's assertion: the Pearson correlation of two tensors is at least pcc; and, unlike there, their difference looks like noise.

    A correlation alone accepts what is scaled or moved, NaN or constant on both sides, and any error beside larger elements. Here the error must
    also be as small as noise of that correlation, overall, in each row and channel and in each element (docs/REPORT.md, `pcc`).
    Another dtype is not an error: numbers are compared.

    Parameters
    ----------
    expected_pytorch_result, actual_pytorch_result : tensors or arrays of one shape
    pcc : least correlation, above 0 and at most 1 (1: the same numbers)
    layout : how the axes of the actual one become those of the expected one ("NHWC -> NCHW": docs/NAMES.md)

    Returns
    -------
    (True, the correlation) : 1.0 for equal tensors, constant ones too

    Raises
    ------
    ParityError : an AssertionError that says what was found, and where
    ValueError : a pcc outside of its range
    """
    if not 0 < pcc <= 1:
        raise ValueError(f"pcc must be above 0 and at most 1, got {pcc}")
    e, a = as_array(expected_pytorch_result, "expected"), as_array(_laid_out(actual_pytorch_result, expected_pytorch_result, layout), "actual")
    if e.shape != a.shape:
        raise ParityError(f"The values for attribute 'shape' do not match: {_shape(a)} != {_shape(e)}.")
    if pcc == 1 and e.dtype.kind in "biu" and a.dtype.kind in "biu" and (text := _mismatch(a, e, 0.0, 0.0, False)):
        raise ParityError(text)  # float64 makes neighbours beyond 2**53 one number
    if e.dtype != a.dtype or e.dtype.kind in "biu":
        e, a = (x if x.dtype.kind == "c" else x.astype(np.float64) for x in (e, a))
    if (e.dtype.kind == "c") != (a.dtype.kind == "c"):
        raise ParityError(f"The values for attribute 'dtype' do not match: {a.dtype} != {e.dtype}.")
    text = _judged(a, e, Tolerance.exact() if pcc == 1 else Tolerance.pcc(pcc))
    if text:
        raise ParityError(text)
    found = _core.compare(*(x.view(np.float32) if x.dtype.kind == "c" else x for x in map(np.ascontiguousarray, (e, a))), basic=True)
    return True, 1.0 if found["num_unequal"] == 0 else float(found["pcc"])


def _laid_out(actual: Any, expected: Any, layout: str | None) -> Any:
    """The actual array in the expected one's layout; itself without a layout. Raises LayoutError."""
    if layout is None:
        return actual
    return parse(layout).apply([as_array(actual, "actual")], [as_array(expected, "expected").shape])[0]


def _differences(actual: Any, expected: Any, where: str, options: _Options) -> list[str]:
    """All that is wrong below this place, one text each."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if set(actual) != set(expected):
            missing, extra = sorted(map(str, set(expected) - set(actual))), sorted(map(str, set(actual) - set(expected)))
            return [f"The keys of the mappings do not match!{_at(where)}\nMissing keys: {missing}\nAdditional keys: {extra}"]
        return [text for key in expected for text in _differences(actual[key], expected[key], f"{where}[{key!r}]", options)]
    if _is_sequence(expected) and _is_sequence(actual):
        if len(actual) != len(expected):
            return [f"The length of the sequences do not match: {len(actual)} != {len(expected)}{_at(where)}"]
        return [text for i, pair in enumerate(zip(actual, expected)) for text in _differences(*pair, f"{where}[{i}]", options)]
    if expected is None or actual is None:
        return [] if expected is actual else [f"None mismatch: {_name(actual)} is not {_name(expected)}{_at(where)}"]
    if isinstance(expected, str) or isinstance(actual, str):
        return [] if expected == actual else [f"Object comparison failed: {actual!r} != {expected!r}{_at(where)}"]
    text = _attributes(actual, expected, options)
    text = text or _pair(as_array(actual, "actual" + where), as_array(expected, "expected" + where), options)
    return [text + _at(where)] if text else []


def _attributes(actual: Any, expected: Any, options: _Options) -> str:
    """What two torch tensors (or two arrays) are beside their values; "" if that agrees, or they are of different kinds."""
    if not options.allow_subclasses and type(actual) is not type(expected):
        return f"The classes do not match: {type(actual).__name__} is not {type(expected).__name__}."
    if not all(hasattr(x, "device") and hasattr(x, "layout") for x in (actual, expected)):
        return ""
    for wanted, name in ((options.check_device, "device"), (options.check_layout, "layout")):
        if wanted and getattr(actual, name) != getattr(expected, name):
            return f"The values for attribute '{name}' do not match: {getattr(actual, name)} != {getattr(expected, name)}."
    return ""


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _at(where: str) -> str:
    return f"\n\nThe failure occurred for item {where}" if where else ""


def _pair(a: np.ndarray, e: np.ndarray, options: _Options) -> str:
    """What is wrong with one pair, "" if nothing is."""
    if a.shape != e.shape:
        return f"The values for attribute 'shape' do not match: {_shape(a)} != {_shape(e)}."
    if options.check_dtype and a.dtype != e.dtype:
        return f"The values for attribute 'dtype' do not match: {a.dtype} != {e.dtype}."
    strides = [tuple(step // x.itemsize for step in x.strides) for x in (a, e)]
    if options.check_stride and strides[0] != strides[1]:
        return f"The values for attribute 'stride()' do not match: {strides[0]} != {strides[1]}."
    if options.judge is not None:
        same = in_one_dtype(e, a, exactly=options.judge.rule == "exact")
        return same if isinstance(same, str) else _judged(same[1], same[0], options.judge)
    rtol, atol = options.rtol, options.atol
    if rtol is None or atol is None:
        rtols, atols = zip(*(TORCH_TOLERANCES.get(x.dtype.name, (0.0, 0.0)) for x in (a, e)))
        rtol, atol = max(rtols), max(atols)
    return "" if _surely_close(a, e, rtol, atol) else _mismatch(a, e, rtol, atol, options.equal_nan)


def _surely_close(a: np.ndarray, e: np.ndarray, rtol: float, atol: float) -> bool:
    """Whether one pass in C sees that all is close; False where that has to be looked at closer: a bound just met, NaN, other dtypes."""
    if a.dtype != e.dtype or e.dtype.name not in TORCH_TOLERANCES or e.dtype.kind == "c" or max(rtol, atol) == math.inf:
        return False
    m = _core.compare(e, a, atol, 1.0, rtol, basic=True)
    if m["num_nan_expected"] or m["num_nan_mismatch"] or m["num_inf_mismatch"]:
        return False
    return m["num_unequal"] == 0 or 0 <= m["max_err_scale"] <= 1 - 1e-12


def _shape(x: np.ndarray) -> str:
    return f"[{', '.join(map(str, x.shape))}]"


def _judged(a: np.ndarray, e: np.ndarray, judge: Tolerance) -> str:
    result = compare_arrays(e, a, tol=judge)
    if result.passed:
        return ""
    row = Row("Tensor-likes", "", 0, None, "values", result.status, result.verdict, result.metrics, result.reason, result.shape, result.dtype)
    looks = likeness(e, a)
    return "Tensor-likes are not close!\n\n" + "\n".join([*describe(row), f"    band: {result.band}", *([f"    it looks like this: {looks}"] if looks else [])])


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
        if exact_integers:  # float64 makes neighbours beyond 2**53 one number
            difference = np.where(equal, 0.0, np.maximum(difference, 1.0))
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
    if close.ndim:
        _, index = _greatest(np.asarray(difference), close)
        lines.append(f"Values there: {_number(a[index])} in actual, {_number(e[index])} in expected")
    return "\n".join([*lines, *_remarks(a, e)])


def _number(value: Any) -> str:
    return f"{value:.9g}" if np.ndim(value) == 0 and not np.iscomplexobj(value) and np.asarray(value).dtype.kind != "b" else str(value)


def _remarks(a: np.ndarray, e: np.ndarray) -> list[str]:
    """How bad it is by the default tolerance, and what it looks like."""
    if e.dtype.name not in UNIT_ROUNDOFF or e.size < 4:
        return []
    found = compare_arrays(e, a.astype(e.dtype))
    lines = [f"Band: {found.band} ({found.reason})"] if found.band is not None else []
    looks = likeness(e, a)
    return [*lines, *([f"It looks like this: {looks}"] if looks else [])]


def _greatest(values: np.ndarray, skip: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The greatest value and its index; NaN counts as the greatest of all."""
    flat = np.where(skip, -1.0, values).ravel()
    flat_index = int(np.argmax(np.where(np.isnan(flat), np.inf, flat))) if not np.isnan(flat).any() else int(np.argmax(np.isnan(flat)))
    return float(flat[flat_index]), tuple(int(i) for i in np.unravel_index(flat_index, values.shape))


# ---------------------------------------------------------------- one layer


def test_layer(port: Callable[..., Any], activations: Any, name: str, *, tol: str | Tolerance = "auto", call: int | None = None,
               layout: str | Mapping[str, str] | None = None) -> Report:
    """Run a port of one module on the captured inputs and compare every output.

    Parameters
    ----------
    port : callable or torch.nn.Module; NumPy arrays are passed positionally in order of place (torch tensors to a module, by name)
    activations : a Capture, or the path of one
    name : path of the module
    tol : preset name or Tolerance
    call : number of the call; None: all of them
    layout : how the port's axes become the reference's ("NHWC -> NCHW", or a mapping of patterns of full names to such texts: docs/NAMES.md); the port
        gets its inputs in its own layout

    Returns
    -------
    Report : if everything agrees

    Raises
    ------
    ParityError : what differs: which tensor, how many elements, where, by how much, and what was allowed
    LayerNotFoundError : no such module, with suggestions
    """
    judge = resolve(tol)
    if not callable(port) and not hasattr(port, "run_call"):
        raise TypeError(f"test_layer: port must be a callable or a torch.nn.Module, got {type(port).__name__}")
    with contextlib.ExitStack() as opened:
        capture = open_reference(activations, opened)
        calls = [c for c in capture.calls(name) if call is None or c.number == call]
        if not calls:
            have = [c.number for c in capture.calls(name)]
            raise PortingError(f"{name} has no captured call" + (f" {call}; it has {have}" if have else ""))
        chosen, warning = use_provider("auto")
        port = under_reference_names({name: port}, capture, None, layout)[name]
        search = Search()
        failures: list[Exception] = []
        rows = [row for one in calls for row in rows_of_call(capture, one, _KeepingFailures(port, failures), judge, chosen, search)]
        check_layout_used([port])
        report = Report(rows, len(calls), what="compare", tolerance=judge.name, environment={"provider": chosen}, warnings=[warning] if warning else [],
                        proposals=search.found)
        report.cause = cause_of_callable(capture, report, lambda module: port)
    if not report.passed:
        raise ParityError(_layer_message(name, report), report) from (failures[0] if failures else None)
    return report


class _KeepingFailures:
    """A port that remembers what it raised, so that its traceback is not lost."""

    def __init__(self, port: Any, failures: list[Exception]) -> None:
        self.port, self.failures = port, failures

    def run_call(self, call: Any) -> Any:
        try:
            return run_port(self.port, call)
        except Exception as error:
            self.failures.append(error)
            raise


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
