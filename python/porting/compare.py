"""Compare a port with a reference capture, tensor by tensor in order of execution.

What it does not do: run the reference (that is `check`), or say why something differs.
"""
from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._core import PortingError
from .port import as_array, open_port, run_port
from .report import Report, Row
from .tolerance import EXACT_KINDS, UNIT_ROUNDOFF, Tolerance, Verdict, classify, condition_scale, resolve

# ---------------------------------------------------------------- one pair


@dataclass(frozen=True)
class Comparison:
    """What one pair measured. status : "compared", "shape" or "dtype"; verdict and metrics are None where the shapes differ."""

    status: str
    verdict: Verdict | None
    metrics: dict[str, Any] | None
    reason: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def passed(self) -> bool:
        return self.status == "compared" and self.verdict is not None and self.verdict.passed

    @property
    def band(self) -> str | None:
        return self.verdict.band if self.verdict is not None else None


def compare_arrays(expected: Any, actual: Any, *, tol: str | Tolerance = "auto", kind: str | None = None,
                   scale: np.ndarray | float | None = None, terms: int | None = None) -> Comparison:
    """Measure two tensors and judge the difference.

    Parameters
    ----------
    expected, actual : NumPy or torch tensors; another shape or dtype is a result, not an error
    tol : preset name or Tolerance
    kind : what the module computes (docs/DESIGN.md): decides what rounding may do. None: "composite", or "linear" if scale is given
    scale : condition scale s, broadcastable to the shape, or a number
    terms : terms of each sum (K)
    """
    tol = resolve(tol)
    e, a = as_array(expected, "expected"), as_array(actual, "actual")
    kind = kind or ("composite" if scale is None else "linear")
    kind = kind if e.dtype.name in UNIT_ROUNDOFF or kind in EXACT_KINDS else "integer"
    about = {"shape": e.shape, "dtype": e.dtype.name}
    if e.shape != a.shape:
        hint = " (the same number of elements, in another layout)" if e.size == a.size and e.size else ""
        return Comparison("shape", None, None, f"shape {list(a.shape)}, expected {list(e.shape)}{hint}", **about)
    both_float = e.dtype.name in UNIT_ROUNDOFF and a.dtype.name in UNIT_ROUNDOFF and "c" not in (e.dtype.kind, a.dtype.kind)
    if e.dtype != a.dtype and not both_float:
        return Comparison("dtype", None, None, f"dtype {a.dtype.name}, expected {e.dtype.name}", **about)
    pe, pa = _parts(e), _parts(a)
    if scale is not None and pe is not e:
        scale = np.asarray(scale)[..., None] if np.ndim(scale) else scale
    s, u = tol.scale_of(pe, kind=kind, terms=terms, scale=scale)
    metrics = _core.compare(pe, pa, s, u)
    metrics.update(tol.extra_metrics(pe, pa))
    if e.dtype != a.dtype:
        reason = f"dtype {a.dtype.name}, expected {e.dtype.name}; as numbers they differ by at most {metrics['max_abs']:.3g}"
        return Comparison("dtype", None, metrics, reason, **about)
    verdict = tol.judge(metrics, kind=kind, dtype=pe.dtype, terms=terms, scale=scale)
    return Comparison("compared", verdict, metrics, verdict.reason, **about)


def _parts(x: np.ndarray) -> np.ndarray:
    """Complex arrays as (..., 2) real ones; others as they are."""
    return x if x.dtype != np.complex64 else np.ascontiguousarray(x).reshape(x.shape).view(np.float32).reshape(*x.shape, 2)


def row_of(result: Comparison, *, name: str, module: str, call: int, step: int | None, kind: str, inputs_differ: bool = False) -> Row:
    """The row of a report for one compared pair."""
    reason = result.reason + ("; its inputs differ from the reference's too" if inputs_differ and not result.passed else "")
    return Row(name, module, call, step, kind, result.status, result.verdict, result.metrics, reason, result.shape, result.dtype, inputs_differ)


# ---------------------------------------------------------------- what the reference says of a call


def in_order_of_return(calls: Iterable[Any]) -> list[Any]:
    """Calls in the order in which they returned, from their order of entry: a module returns after those inside it.

    So the first divergence is the innermost module, not the root that contains it.
    """
    ordered: list[Any] = []
    stack: list[Any] = []
    for call in calls:
        while stack and not _inside(call, stack[-1]):
            ordered.append(stack.pop())
        stack.append(call)
    ordered.extend(reversed(stack))
    return ordered


def _inside(call: Any, outer: Any) -> bool:
    if call.step != outer.step or call.module == outer.module:
        return False
    return outer.module == "" or call.module.startswith(outer.module + ".")


def own_parameters(capture: Any, module: str) -> dict[str, np.ndarray]:
    """The module's own "weight" and "bias", as far as they were stored."""
    prefix = f"{module}." if module else ""
    return {leaf: capture.parameters[prefix + leaf] for leaf in ("weight", "bias") if prefix + leaf in capture.parameters}


def class_name_of(capture: Any, module: str) -> str:
    """The class of a module, "" if the capture does not say."""
    info = capture.modules.get(module)
    return (info.class_name or "") if info is not None else ""


def output_context(capture: Any, call: Any, expected: np.ndarray, kind: str | None = None,
                   ) -> tuple[str, np.ndarray | None, int | None]:
    """(kind, condition scale, terms) of one output of a captured call. kind : what the program says, None: go by the class."""
    class_name = class_name_of(capture, call.module)
    parameters = own_parameters(capture, call.module)
    kind = kind or classify(class_name, parameters)
    if expected.dtype.name not in UNIT_ROUNDOFF or kind in EXACT_KINDS or expected.dtype.kind == "c":
        return kind, None, None
    inputs = list(call.inputs.values())
    scale, terms = condition_scale(kind, expected, inputs, parameters, class_name)
    return kind, scale, terms


# ---------------------------------------------------------------- a whole port


def compare(ref: Any, port: Any, *, tol: str | Tolerance = "auto", mode: str = "isolated", require_coverage: bool = True,
            explain: bool = True, progress: Callable[[int, int, str], None] | None = None) -> Report:
    """Compare a port with a capture of the reference.

    Parameters
    ----------
    ref : path of a capture, or a Capture
    port : a path or Capture of a capture; a folder or file of .npz, .npy or .safetensors; a mapping of full names to arrays; or a mapping
        of module patterns (``"model.layers.*.mlp"``) to callables, which are run on the captured inputs
    tol : preset name or Tolerance
    mode : "isolated": the port had the reference's inputs at every module. "chained": it had its own from the first module on, so
        that errors are carried along and each tensor is judged as the result of all before it, unless its inputs are bit-equal
    require_coverage : whether what the port lacks fails the report; what it has too many is a row and fails nothing. What must be there: every output in the
        capture; for callables every output of the modules that the patterns name (a pattern that matches none is missing)
    explain : whether the first divergence is diagnosed (report.cause; for ports that are captures or files)
    progress : called with (calls done, calls in all, module)

    A report passes if at least one tensor was compared, all compared ones pass, and coverage is as required.
    Raises PortingError or OSError for what can't be opened, ValueError for an unknown mode.
    """
    if mode not in ("isolated", "chained"):
        raise ValueError(f"mode is 'isolated' or 'chained', got {mode!r}")
    tol = resolve(tol)
    with contextlib.ExitStack() as opened:
        capture = open_reference(ref, opened)
        if not isinstance(port, Mapping):
            given, port = port, open_port(port)
            if port is not given and hasattr(port, "close"):
                opened.callback(port.close)
        calls = in_order_of_return(capture.call_list)
        if _is_callables(port):
            if mode == "chained":
                raise ValueError("callables are run on the captured inputs: mode 'chained' needs the outputs of a whole run")
            rows = _rows_of_callables(capture, calls, port, tol, progress)
        else:
            rows = _rows_of_names(capture, calls, port, tol, mode, progress)
        report = Report(list(rows), len(calls), what="compare", missing_fails=require_coverage, tolerance=tol.name,
                        environment=_environment(capture, port, mode))
        if explain and not _is_callables(port):
            report.cause = _cause(capture, port, report)
        return report


def _cause(capture: Any, port: Mapping[str, Any], report: Report) -> Any:
    """The diagnosis of the first divergence, None if there is none or nothing to diagnose with."""
    row = report.first_divergence
    if row is None or row.status != "compared":
        return None
    from .diagnose.locate import first_cause

    return first_cause(capture, port, row, match_prefix(capture, port))


def open_reference(ref: Any, opened: contextlib.ExitStack) -> Any:
    if isinstance(ref, (str, os.PathLike)):
        from .capture import open as open_capture

        capture = open_capture(ref)
        opened.callback(capture.close)
        return capture
    if not hasattr(ref, "call_list"):
        raise PortingError(f"the reference must be a capture or the path of one, got {type(ref).__name__}")
    return ref


def _is_callables(port: Mapping[str, Any]) -> bool:
    if not port or hasattr(port, "call_list"):
        return False
    values = [value for value in port.values() if callable(value)] if isinstance(port, dict) else []
    if values and len(values) != len(port):
        raise PortingError("the port mixes arrays and callables; give one mapping of each kind")
    return bool(values)


def _environment(capture: Any, port: Any, mode: str) -> dict[str, Any]:
    facts = {"reference": str(getattr(capture, "path", "")), "mode": mode}
    if hasattr(port, "path"):
        facts["port"] = str(port.path)
    return facts


# ------------------------------------------------------------ by names


def match_prefix(expected: Iterable[str], given: Iterable[str]) -> Callable[[str], str]:
    """How names of the reference are written in the port: as they are, or without (or with) a leading part such as "model.".

    The way that matches the most names is taken; PortingError if two ways match equally many different ones.
    """
    expected, given = set(expected), set(given)
    if len(expected & given) == min(len(expected), len(given)):
        return str

    def heads(names: set[str]) -> set[str]:
        return {".".join(name.split(".")[:k]) + "." for name in names for k in (1, 2, 3) if name.count(".") >= k}

    ways: list[tuple[int, str, str]] = [(len(expected & given), "", "")]
    for head in heads(expected):
        hits = sum(name[len(head):] in given for name in expected if name.startswith(head))
        ways.append((hits, head, ""))
    for head in heads(given):
        hits = sum(head + name in given for name in expected)
        ways.append((hits, "", head))
    ways.sort(key=lambda way: (-way[0], len(way[1]) + len(way[2])))
    best, cut, added = ways[0]
    if best and (cut or added):
        rivals = {way[1:] for way in ways if way[0] == best}
        if len(rivals) > 1:
            names = ", ".join(sorted(f"without {c!r}" if c else f"with {a!r}" if a else "as they are" for c, a in rivals)[:4])
            raise PortingError(f"the port's names fit the reference's in more than one way ({names}); write them as the reference does")

    def translate(name: str) -> str:
        return name[len(cut):] if cut and name.startswith(cut) else added + name

    return translate


def _rows_of_names(capture: Any, calls: list[Any], port: Mapping[str, Any], tol: Tolerance, mode: str,
                   progress: Callable[[int, int, str], None] | None) -> Iterator[Row]:
    given = [name for name in port if not name.startswith(("param:", "const:"))]
    outputs = {call.full_name("out", leaf) for call in calls for leaf in call.outputs}
    inputs = {call.full_name("in", leaf) for call in calls for leaf in call.inputs}
    translate = match_prefix(outputs, given)
    known = set(given)
    used = {translate(name) for name in outputs | inputs}
    for i, call in enumerate(calls):
        if progress is not None:
            progress(i, len(calls), call.module)
        differ, carried = _inputs_of_port(call, port, known, translate, mode)
        if not len(call.outputs):
            yield empty_row(call)
        for leaf in call.outputs:
            name = call.full_name("out", leaf)
            expected = call.outputs[leaf]
            kind, scale, terms = output_context(capture, call, expected)
            judged = kind
            floating = expected.dtype.kind not in "biu"
            if carried and (kind not in EXACT_KINDS or (differ and floating)):  # the result of all modules before it
                judged, scale, terms = "composite", None, 64 * (i + 1)
            if translate(name) not in known:
                yield Row(name, call.module, call.number, call.step, kind, "missing", reason="the port has no tensor of this name",
                          shape=expected.shape, dtype=expected.dtype.name)
                continue
            result = compare_arrays(expected, port[translate(name)], tol=tol, kind=judged, scale=scale, terms=terms)
            yield row_of(result, name=name, module=call.module, call=call.number, step=call.step, kind=kind, inputs_differ=differ)
    taps = set(getattr(capture, "taps", ()))
    for name in given:
        if name not in used and name not in taps:
            yield from _extra(name, taps)
    if progress is not None:
        progress(len(calls), len(calls), "")


def _extra(name: str, taps: set[str]) -> Iterator[Row]:
    from .naming import split_name

    module, call, phase, _ = split_name(name)
    if phase == "out" or (phase == "tap" and module not in taps):
        yield Row(name, module, call, None, "", "extra", reason="the reference has no tensor of this name")


def _inputs_of_port(call: Any, port: Mapping[str, Any], known: set[str], translate: Callable[[str], str], mode: str) -> tuple[bool, bool]:
    """(whether the port's inputs of this call differ, whether they carry an error along)."""
    present = [(leaf, translate(call.full_name("in", leaf))) for leaf in call.inputs]
    present = [(leaf, name) for leaf, name in present if name in known]
    differ = False
    for leaf, name in present:
        e, a = as_array(call.inputs[leaf]), as_array(port[name])
        if e.shape != a.shape or e.dtype != a.dtype or _core.compare(e, a)["num_unequal"]:
            differ = True
            break
    return differ, mode == "chained" and (differ or not present)


def empty_row(call: Any) -> Row:
    name = f"{call.module}@{call.number}" if call.number else call.module
    if getattr(call, "returned", True):
        return Row(name, call.module, call.number, call.step, "", "empty", reason="the call returned no tensor: nothing to compare")
    return Row(name, call.module, call.number, call.step, "", "dropped", reason="the call did not return, or its outputs were not captured")


# ------------------------------------------------------------ by callables


def _rows_of_callables(capture: Any, calls: list[Any], port: Mapping[str, Callable[..., Any]], tol: Tolerance,
                       progress: Callable[[int, int, str], None] | None) -> Iterator[Row]:
    unused = set(port)
    for i, call in enumerate(calls):
        if progress is not None:
            progress(i, len(calls), call.module)
        pattern = next((p for p in port if module_matches(call.module, p, capture)), None)
        if pattern is None:
            continue
        unused.discard(pattern)
        yield from rows_of_call(capture, call, port[pattern], tol)
    for pattern in unused:
        yield Row(pattern, pattern, 0, None, "", "missing", reason=f"no module of the reference matches {pattern!r}")
    if progress is not None:
        progress(len(calls), len(calls), "")


def module_matches(module: str, pattern: str, capture: Any) -> bool:
    """Whether a shell pattern names the module, with or without the name of the root before it."""
    if module == pattern or fnmatch.fnmatchcase(module, pattern):
        return True
    root = getattr(capture, "root", "") or ""
    return bool(root) and module.startswith(root + ".") and fnmatch.fnmatchcase(module[len(root) + 1:], pattern)


def rows_of_call(capture: Any, call: Any, function: Callable[..., Any], tol: Tolerance) -> Iterator[Row]:
    """Run the port on the captured inputs of one call and compare every output."""
    at = {"module": call.module, "call": call.number, "step": call.step}
    if not len(call.outputs):
        yield empty_row(call)
        return
    try:
        found = run_port(function, call)
    except Exception as error:  # the port's own failure is a finding, whatever it is
        for leaf in call.outputs:
            yield Row(call.full_name("out", leaf), kind="", status="failed", reason=f"the port raised {type(error).__name__}: {error}", **at)
        return
    matched = match_leaves(list(call.outputs), found)
    for leaf in call.outputs:
        name, expected = call.full_name("out", leaf), call.outputs[leaf]
        kind, scale, terms = output_context(capture, call, expected)
        if leaf not in matched:
            reason = f"the port returned no tensor for it; it returned {', '.join(found) or 'none'}"
            yield Row(name, kind=kind, status="missing", reason=reason, shape=expected.shape, dtype=expected.dtype.name, **at)
            continue
        result = compare_arrays(expected, matched[leaf], tol=tol, kind=kind, scale=scale, terms=terms)
        yield row_of(result, name=name, kind=kind, **at)
    used = {id(array) for array in matched.values()}
    for leaf, array in found.items():
        if id(array) not in used:
            yield Row(call.full_name("out", leaf), kind="", status="extra", reason="the reference returned no such tensor", **at)


def match_leaves(expected: list[str], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reference leaf to the port's array: by leaf path; a single tensor, or a plain tuple of as many, goes by order."""
    by_name = {leaf: found[leaf] for leaf in expected if leaf in found}
    if len(by_name) == len(expected):
        return by_name
    numbered = all(leaf.split(".")[0].isdecimal() for leaf in found)
    if numbered and len(found) == len(expected):
        return dict(zip(expected, found.values()))
    if not by_name and len(found) == 1:
        return {expected[0]: next(iter(found.values()))}
    return by_name
