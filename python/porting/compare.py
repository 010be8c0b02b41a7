"""Compare a port with a reference capture, tensor by tensor in order of execution.

A module whose inputs differ in the port is judged on those inputs, by the reference's program run in C on them: errors that it only
carries are not its own. What this file does not do: check the kernels (that is `check`), or say why something differs.
"""
from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._core import PortingError
from .interop.layout import LayoutError
from .interop.names import LaidOutPort, MappedPort, NamesError, flat_names, load
from .interop.propose import Search, propose_pairs
from .judging import CallJudge, run_on_inputs
from .ledger import expect, finish
from .naming import suggest
from .op_judging import rows_of_compare
from .op_level import ops_of
from .pair import Comparison, bits_equal, compare_arrays, in_one_dtype, with_picture
from .port import as_array, open_port, run_port
from .profiles import AS_CAPTURED, settings
from .program import find_interval
from .providers import use_provider
from .report import Report, Row
from .summary_judging import refuse_what_needs_tensors, rows_of_summaries
from .tolerance import EXACT_KINDS, UNIT_ROUNDOFF, Tolerance, resolve

__all__ = ["Comparison", "compare", "compare_arrays", "match_prefix", "open_reference", "row_of", "rows_of_call"]

MODES = ("isolated", "chained", "both")
PARAMETER = "parameter"  # kind of the row of a weight
MOST_HINTS = 20  # rows that get a similar name: looking for one is slow


def row_of(result: Comparison, *, name: str, module: str, call: int, step: int | None, kind: str, inputs_differ: bool = False,
           golden: Mapping[str, float] | None = None) -> Row:
    """The row of a report for one compared pair."""
    reason = result.reason + ("; its inputs differ from the reference's too" if inputs_differ and not result.passed else "")
    return Row(name, module, call, step, kind, result.status, result.verdict, result.metrics, reason, result.shape, result.dtype, inputs_differ,
               golden=golden, picture=result.picture)


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


# ---------------------------------------------------------------- a whole port


def compare(ref: Any, port: Any, *, tol: str | Tolerance = "auto", mode: str = "isolated", names: Any = None,
            layout: str | Mapping[str, str] | None = None, require_coverage: bool = True, explain: bool = True, provider: str = "auto",
            level: str = "module", progress: Callable[[int, int, str], None] | None = None,
            ledger: str | os.PathLike[str] | None = None, update_ledger: bool = False, loosen: Mapping[str, str] | None = None) -> Report:
    """Compare a port with a capture of the reference.

    Parameters
    ----------
    ref : path of a capture, or a Capture
    port : a torch.nn.Module with the reference's names; a path or Capture of a capture; a folder or file of .npz, .npy or .safetensors; a mapping of full names to arrays; or a mapping
        of module patterns (``"model.layers.*.mlp"``) to callables, which are run on the captured inputs
    tol : preset name or Tolerance, or the path of a TOML file with tolerances by module (docs/REPORT.md)
    mode : which inputs a module is judged on.
        "isolated": each on the inputs it had. Where the port's own inputs of a call are there and are not the reference's, the reference's
        program runs in C on them, and the verdict compares with that: a module that only carries an error passes (its reason begins
        with "carried"), and `first_divergence` is the module whose own arithmetic is wrong. Where that cannot be done (no program, an op
        without a kernel, inputs that the port does not hold) such a call is judged as in "chained". Outputs without inputs are
        taken for results of the reference's inputs.
        "chained": against the reference's outputs throughout, errors carried along included; a tensor whose inputs differ is judged as the
        result of all modules before it. What a model returns in the end, and nothing about whose error it is.
        "both": judged as "isolated", with the verdict of "chained" in a column of its own (`Row.chained`)
    names : what the reference calls the port's tensors, where that is not the same: a TOML file, a convention ("llama.cpp", "flax", "zml", "onnx", "nnef"), a mapping of regular
        expressions to names, or a list of these (docs/NAMES.md). With it parameters that the port holds are compared, too
    layout : how the port's axes become the reference's: "NHWC -> NCHW" for every tensor with that many axes, or a mapping of shell patterns of
        the reference's names to such texts. Callables get their inputs in the port's layout
    require_coverage : whether what the port lacks fails the report; what it has too many is a row and fails nothing. What must be there: every output in the
        capture; for callables every output of the modules that the patterns name (a pattern that matches none is missing)
    explain : whether the first divergence is diagnosed (report.cause)
    provider : where matrix products of runs in C come from, as `check` has it
    level : "module", or "op": op by op, where both hold tensors of ops (captured with level="op") under the same names; modes "isolated" and
        "chained" then mean the same of ops
    progress : called with (calls done, calls in all, module)
    ledger, update_ledger, loosen : as `check` has them

    A report passes if at least one tensor was compared, all compared ones pass, and coverage is as required. `report.proposals` says which names and
    layouts the values suggest for what was not found or does not agree; nothing of it is taken for granted.
    Raises PortingError or OSError for what can't be opened or a name map that does not fit, ValueError for an unknown mode.
    """
    if level not in ("module", "op"):
        raise ValueError(f"level is 'module' or 'op', got {level!r}")
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(map(repr, MODES))}, got {mode!r}")
    tol = resolve(tol)
    expect(ledger, update_ledger, loosen)
    with contextlib.ExitStack() as opened:
        capture = open_reference(ref, opened)
        if not isinstance(port, Mapping):
            given, port = port, _submodules(port, capture, names) or open_port(port)
            if port is not given and hasattr(port, "close"):
                opened.callback(port.close)
        port = under_reference_names(port, capture, names, layout)
        search = Search()
        calls = in_order_of_return(capture.call_list)
        if "stats" in (capture.level, getattr(port, "level", "")):
            refuse_what_needs_tensors(capture, port, tol, mode, level, _is_callables(port))
            return Report(list(rows_of_summaries(capture, calls, port, progress)), len(calls), what="compare", missing_fails=require_coverage,
                          tolerance="the same hash", environment=_environment(capture, port, mode),
                          warnings=["statistics were compared, not tensors: what differs by rounding alone is refused as well"])
        chosen, warning = use_provider(provider)
        if level == "op":
            rows, count = _rows_of_ops(capture, port, tol, mode, chosen, progress)
            report = Report(rows, count, what="compare", unit="op", missing_fails=require_coverage, tolerance=tol.name,
                            environment={**_environment(capture, port, mode), "provider": chosen}, warnings=[warning] if warning else [])
            if explain:
                report.cause = _cause(capture, port, report)
            return finish(report, tol, ledger, update_ledger, loosen)
        if _is_callables(port):
            if mode != "isolated":
                raise ValueError(f"callables are run on the captured inputs: mode {mode!r} needs the outputs of a whole run")
            rows = list(_rows_of_callables(capture, calls, port, tol, chosen, progress, search))
            check_layout_used(port.values())
        else:
            named = _NamedPort(capture, calls, port, tol, mode, chosen)
            rows = list(named.rows(progress))
            named.propose(rows, search)
            search.ended += named.without_inputs()
            search.ended += named.warnings(rows) if mode != "chained" else []
        report = Report(rows, len(calls), what="compare", missing_fails=require_coverage, tolerance=tol.name, proposals=search.found,
                        environment={**_environment(capture, port, mode), "provider": chosen}, warnings=[*([warning] if warning else []), *search.ended])
        if explain and _is_callables(port):
            report.cause = cause_of_callable(capture, report, lambda module: next(port[p] for p in port if module_matches(module, p, capture)))
        elif explain:
            report.cause = _cause(capture, port, report)
        return finish(report, tol, ledger, update_ledger, loosen)


def cause_of_callable(capture: Any, report: Report, port_of: Callable[[str], Callable[..., Any]]) -> Any:
    """The diagnosis of the first divergence of a port that is callables, run once more for it; None if there is nothing to diagnose."""
    row = report.first_divergence
    if row is None or row.status != "compared":
        return None
    call = next(c for c in capture.calls(row.module) if c.number == row.call)
    from .diagnose import Diagnosis, in_accord
    from .diagnose.explain import explain

    try:
        return in_accord(explain(call, match_leaves(list(call.outputs), run_port(port_of(row.module), call)), capture=capture), row.verdict)
    except (PortingError, ValueError) as error:
        return Diagnosis(row.module or "the root", "not-run", str(error), 0.0, float("inf"))


def _cause(capture: Any, port: Mapping[str, Any], report: Report) -> Any:
    """The diagnosis of the first divergence, None if there is none or nothing to diagnose with."""
    row = report.first_divergence
    if row is None or row.status != "compared" or row.kind == PARAMETER:
        return None
    from .diagnose import in_accord
    from .diagnose.locate import first_cause
    from .diagnose.single import cause_of_op

    try:
        return in_accord((cause_of_op if report.unit == "op" else first_cause)(capture, port, row, match_prefix(capture, port)), row.verdict)
    except LayoutError:  # said in the row of the tensor that it does not fit
        return None


def open_reference(ref: Any, opened: contextlib.ExitStack) -> Any:
    if isinstance(ref, (str, os.PathLike)):
        from .capture import open as open_capture

        capture = open_capture(ref)
        opened.callback(capture.close)
        return capture
    if not hasattr(ref, "call_list"):
        raise PortingError(f"the reference must be a capture or the path of one, got {type(ref).__name__}")
    return ref


def _submodules(port: Any, capture: Any, names: Any = None) -> dict[str, Any] | None:
    """The modules of a torch.nn.Module by the names that the reference captured; None if it is no module or has none of them."""
    if not callable(port) or not hasattr(port, "named_modules"):
        return None
    called = {call.module for call in capture.call_list}
    translate = load(names).module if names is not None else lambda name, _: name
    modules = {translate(name, capture): module for name, module in port.named_modules(remove_duplicate=False)}
    found = {name: module for name, module in modules.items()
             if any(module_matches(name_in_reference, name, capture) for name_in_reference in called)}
    if not found:
        raise PortingError(f"the port {type(port).__name__} has no module of the reference's names, such as {next(iter(called), '')!r}")
    return found


def under_reference_names(port: Mapping[str, Any], capture: Any, names: Any, layout: str | Mapping[str, str] | None) -> Mapping[str, Any]:
    """A port as the reference names it and lays it out; itself if neither names nor a layout are given.

    Raises NamesError, LayoutError for a map or layout that cannot be read or does not fit.
    """
    if isinstance(port, MappedPort) or (names is None and layout is None):
        return port
    name_map = None if names is None else load(names)
    if _is_callables(port):
        if name_map is not None:
            port = {name_map.module(name, capture): function for name, function in port.items()}
        return port if layout is None else {name: LaidOutPort(function, layout, capture) for name, function in port.items()}
    if isinstance(port, dict) and any(isinstance(value, (Mapping, tuple)) for value in port.values()):
        port = flat_names(port)
    return MappedPort(port, capture, name_map, layout)


def check_layout_used(ports: Iterable[Any]) -> None:
    """Raises NamesError for a layout of callables that was for none of their tensors."""
    laid_out = [port for port in ports if isinstance(port, LaidOutPort)]
    for pattern, layout in laid_out[0].parsed.items() if laid_out else ():
        if not any(pattern in port.used for port in laid_out):
            raise NamesError(f"layout {layout.text!r}: no tensor of the calls that were run " +
                             (f"has {layout.ndim} axes" if laid_out[0].by_axes else f"has a name like {pattern}"))


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


def against_all_before(kind: str, expected: np.ndarray, actual: np.ndarray, depth: int, tol: Tolerance) -> Comparison:
    """Against the reference's own output, as the result of every module up to this one; depth : 64 for each of them."""
    if kind in EXACT_KINDS and kind != "move":
        return with_picture(compare_arrays(expected, actual, tol=tol, kind=kind), expected, actual)
    return with_picture(compare_arrays(expected, actual, tol=tol, kind="composite", terms=depth), expected, actual)


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
            raise PortingError(f"the port's names fit the reference's in more than one way ({names}), and in the best of them {best} of its "
                               f"{len(given)}; write them as the reference does, or is it another model's?")

    def translate(name: str) -> str:
        return name[len(cut):] if cut and name.startswith(cut) else added + name

    return translate


@dataclass(frozen=True)
class _Inputs:
    """What the port says of one call's inputs.

    arrays : leaf path (or full name of a tensor that the module reached otherwise) to the port's array, of the reference's shape and dtype.
    any : whether the port holds one at all. differ : whether one is not the reference's. error : the greatest relative rms error of those that are floats; None if none of them differs.
    """

    arrays: Mapping[str, np.ndarray]
    any: bool
    differ: bool
    error: float | None


@dataclass(frozen=True)
class _Local:
    """What the reference's program makes of the port's inputs: leaf path to array; empty if it was not run, `why` not.

    stand_ins : inputs for which the captured ones stood in.
    """

    outputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stand_ins: tuple[str, ...] = ()
    why: str = ""


class _NamedPort:
    """A port that is tensors under the names of the reference."""

    def __init__(self, capture: Any, calls: list[Any], port: Mapping[str, Any], tol: Tolerance, mode: str, provider: str) -> None:
        self.capture, self.calls, self.port, self.tol, self.mode, self.provider = capture, calls, port, tol, mode, provider
        self.given = [name for name in port if not name.startswith(("param:", "const:"))]
        self.outputs = {call.full_name("out", leaf) for call in calls for leaf in call.outputs}
        self.inputs = {call.full_name("in", leaf) for call in calls for leaf in call.inputs}
        self.translate = match_prefix(self.outputs, self.given)
        self.known = set(self.given)
        self.refused = False  # whether a tensor was: only the first is worth explaining
        self.blind = 0  # tensors refused of calls of which the port holds no input
        self.num_judged = 0
        self.far: list[str] = []  # what passed on the port's own inputs and is further from the reference than rounding that is carried along
        self.given_others: list[str] = []  # root calls of which the port's inputs are not the reference's
        self.origin = port.origin if isinstance(port, MappedPort) else lambda name: ""

    def rows(self, progress: Callable[[int, int, str], None] | None) -> Iterator[Row]:
        if isinstance(self.port, MappedPort):
            yield from self._parameter_rows()
        for i, call in enumerate(self.calls):
            if progress is not None:
                progress(i, len(self.calls), call.module)
            if not len(call.outputs):
                yield empty_row(call)
                continue
            yield from self._rows_of(call, 64 * (i + 1))
        taps = set(getattr(self.capture, "taps", ()))
        dangling = dict(getattr(self.port, "dangling", ()))
        for name in self.unused():
            if name not in taps:
                yield from _extra(name, taps)
        for name, ref in dangling.items():
            near = suggest(ref, self.outputs, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield Row(name, ref, 0, None, "", "extra", reason=f"names sends it to {ref}, which the reference does not have{hint}")
        if progress is not None:
            progress(len(self.calls), len(self.calls), "")

    def warnings(self, rows: list[Row]) -> list[str]:
        """Sentences about errors that are no compared module's, where each module was judged on its own inputs."""
        if self.given_others:
            return [f"the port was given other inputs than the reference ({', '.join(self.given_others[:3])}): every module was judged on the inputs that it had"]
        whole = {(row.module, row.step) for row in rows if row.status == "compared" and row.module in self.capture.roots}
        if self.refused or not self.far or whole:
            return []
        return [f"{self.far[0]}{f' and {len(self.far) - 1} more' if self.far[1:] else ''} came out further from the reference than rounding explains, and no module that was compared is to blame: "
                "the port's inputs are others, or what lies between these modules is wrong and was not compared (the model's own output would show it, or mode='chained')"]

    def unused(self) -> list[str]:
        """The port's names that no name of the reference is for."""
        used = {self.translate(name) for name in self.outputs | self.inputs}
        return [name for name in self.given if name not in used]

    def _parameter_rows(self) -> Iterator[Row]:
        """The weights that a name map found: nothing is computed in them, so nothing may differ."""
        for name in self.port:
            path = name.removeprefix("param:")
            if path == name or path not in self.capture.parameters:
                continue
            expected = self.capture.parameters[path]
            at = {"name": name, "module": path.rpartition(".")[0], "call": 0, "step": None, "kind": PARAMETER}
            actual = self._fetch(name)
            if isinstance(actual, LayoutError):
                yield Row(**at, status="shape", reason=str(actual), shape=expected.shape, dtype=expected.dtype.name)
                continue
            if actual.dtype != expected.dtype and {actual.dtype.name, expected.dtype.name} <= UNIT_ROUNDOFF.keys():
                expected, actual = in_one_dtype(expected, actual, exactly=True)  # what was rounded on one side only is another weight
            yield self._with_origin(row_of(compare_arrays(expected, actual, tol=self.tol.of(at["module"]), kind="move"), **at))

    def without_inputs(self) -> list[str]:
        """What to do if tensors were refused that may only carry the errors of modules before them."""
        if self.mode == "chained" or not self.blind or self.num_judged < 2:
            return []
        tensors = "1 refused tensor is" if self.blind == 1 else f"{self.blind:,} refused tensors are"
        return [f"{tensors} of calls whose inputs the port does not hold, judged as made from the reference's inputs; if the port ran as a whole, "
                'let it write its inputs too, or compare in mode "chained"']

    def _fetch(self, name: str) -> np.ndarray | LayoutError:
        """The port's array, or why its layout does not fit."""
        try:
            return as_array(self.port[name], name)
        except LayoutError as error:
            return error

    def _with_origin(self, row: Row) -> Row:
        """A row that was refused says which of the port's tensors it is about."""
        origin = "" if row.passed else self.origin(self.translate(row.name))
        return dataclasses.replace(row, reason=f"{row.reason} ({origin})") if origin else row

    def propose(self, rows: list[Row], search: Search) -> None:
        """Names and layouts that the values suggest, and names that look alike, in the reasons of the rows they are about."""
        for row in rows:
            if row.status in ("shape", "compared") and not row.passed and row.kind != PARAMETER:
                actual = self._fetch(self.translate(row.name))
                if not isinstance(actual, LayoutError):
                    source = getattr(self.port, "sources", {}).get(self.translate(row.name))
                    search.look(row, self.capture[row.name], actual, source.names[0] if source is not None and len(source.names) == 1 else "")
        unused = self.unused()
        missing = {row.name: row for row in rows if row.status == "missing"}
        if not unused or not (missing or self.inputs):
            return
        pairs = propose_pairs(self.port, unused, self.capture, missing, search.ended)
        rest = [name for name in unused if name not in {pair.port for pair in pairs}]
        pairs += propose_pairs(self.port, rest, self.capture, sorted(name for name in self.inputs if self.translate(name) not in self.known), search.ended)
        search.found += pairs
        by_value = {**{pair.port: " and ".join(pair.refs or (pair.ref,)) for pair in pairs}, **{ref: pair.port for pair in pairs for ref in pair.refs or (pair.ref,)}}
        hints = 0
        for row in rows:
            if row.status in ("missing", "extra") and row.name in by_value:
                row.reason += f"; {by_value[row.name]} {'have' if ' and ' in by_value[row.name] else 'has'} its values"
            elif (row.name in missing or row.status == "extra") and hints < MOST_HINTS:
                hints += 1
                near = suggest(row.name, unused if row.status == "missing" else missing, 1)
                row.reason += f"; did you mean {near[0]}?" if near and "did you mean" not in row.reason else ""

    def _rows_of(self, call: Any, depth: int) -> Iterator[Row]:
        """depth : terms of the ladder, for what carries the errors of all modules before it."""
        theirs = self._inputs_of(call)
        if theirs.differ and call.module in self.capture.roots:
            self.given_others.append(f"{call.module or 'root'} call {call.number}")
        local = self._run_on(call, theirs) if theirs.differ and self.mode != "chained" else _Local()
        judge = CallJudge(self.capture, call, self.tol, provider=self.provider, inputs=theirs.arrays if local.outputs else None)
        for leaf in call.outputs:
            name, expected = call.full_name("out", leaf), call.outputs[leaf]
            at = {"name": name, "module": call.module, "call": call.number, "step": call.step, "kind": judge.kind}
            if self.translate(name) not in self.known:
                yield Row(**at, status="missing", reason="the port has no tensor of this name", shape=expected.shape, dtype=expected.dtype.name)
                continue
            actual = self._fetch(self.translate(name))
            if isinstance(actual, LayoutError):
                yield Row(**at, status="shape", reason=str(actual), shape=expected.shape, dtype=expected.dtype.name)
                continue
            row = self._with_origin(self._row_of(judge, leaf, expected, actual, depth, theirs, local, at))
            self.refused = self.refused or not row.passed
            self.num_judged += 1
            self.blind += row.status == "compared" and not row.passed and not theirs.any
            yield row

    def _row_of(self, judge: CallJudge, leaf: str, expected: np.ndarray, actual: np.ndarray, depth: int, theirs: _Inputs, local: _Local,
                at: dict[str, Any]) -> Row:
        """One tensor that the port has, judged as the mode says."""
        row, why = None, local.why
        if leaf in local.outputs:
            row = self._local_row(judge, leaf, local.outputs[leaf], expected, actual, depth, theirs, at)
            if local.stand_ins and not row.passed:
                row, why = None, f"the port does not hold its input {local.stand_ins[0]} in the reference's form"
        if row is None and (theirs.differ or (not theirs.any and self.mode == "chained")):
            found = judge.unless_noise(leaf, expected, actual, against_all_before(judge.kind, expected, actual, depth, judge.tol), chained=True)
            row = row_of(found, inputs_differ=theirs.differ, **at)
            if why and not row.passed:
                row = dataclasses.replace(row, reason=f"{row.reason}; not judged on the port's own inputs: {why}")
        if row is None:
            found, golden = judge.judge(leaf, expected, actual, not self.refused)
            row = row_of(found, golden=golden, **at)
        if self.mode == "both":
            carried = theirs.differ or not theirs.any
            whole = against_all_before(judge.kind, expected, actual, depth, judge.tol)
            row.chained = judge.unless_noise(leaf, expected, actual, whole, chained=True).verdict if carried else row.verdict
        return row

    def _run_on(self, call: Any, theirs: _Inputs) -> _Local:
        try:
            result, stand_ins = run_on_inputs(self.capture, call, theirs.arrays, self.provider)
        except PortingError as error:
            return _Local(why=str(error))
        return _Local(result.outputs, tuple(stand_ins))

    def _local_row(self, judge: CallJudge, leaf: str, local: np.ndarray, expected: np.ndarray, actual: np.ndarray, depth: int, theirs: _Inputs,
                   at: dict[str, Any]) -> Row:
        """The verdict on a module's own arithmetic, with what its output is off by all told."""
        whole = against_all_before(at["kind"], expected, actual, depth, judge.tol)
        if whole.status != "compared":
            return row_of(whole, inputs_differ=True, **at)
        found, golden = judge.judge(leaf, local, actual, not self.refused)
        verdict, reason = found.verdict, found.reason
        if verdict is None:  # its own shape or dtype depends on the inputs
            return row_of(whole, inputs_differ=True, **at)
        if verdict.passed:
            reason = f"carried: inputs differ, own arithmetic right ({reason})"
            if not whole.passed:
                self.far.append(at["name"])
            if verdict.band == "exact" and whole.band != "exact":  # exact is said of the reference's own bits
                verdict = dataclasses.replace(verdict, band="green")
        else:
            reason += "; on the port's own inputs, which differ from the reference's"
        return Row(**at, status="compared", verdict=dataclasses.replace(verdict, reason=reason), metrics=whole.metrics, reason=reason,
                   shape=expected.shape, dtype=expected.dtype.name, inputs_differ=True, golden=golden, local_metrics=found.metrics, picture=found.picture,
                   amplification=_ratio(_relative_error(whole.metrics), theirs.error))

    def _inputs_of(self, call: Any) -> _Inputs:
        names = {leaf: call.full_name("in", leaf) for leaf in call.inputs}
        wanted = {leaf: (call.inputs[leaf], self.translate(name)) for leaf, name in names.items()}
        wanted.update({name: (self.capture[name], self.translate(name)) for name in self._reached(call)})
        fetched = {key: self._fetch(name) for key, (_, name) in wanted.items() if name in self.known}
        arrays = {key: array for key, array in fetched.items() if not isinstance(array, LayoutError)}
        fitting, differ, errors = {}, False, []
        for key, a in arrays.items():
            e = as_array(wanted[key][0])
            if e.shape != a.shape or e.dtype != a.dtype:
                differ = True
                continue
            fitting[key] = a
            metrics = None if bits_equal(e, a) else _core.compare(e, a)
            if metrics is not None and metrics["num_unequal"]:
                differ = True
                errors.append(_relative_error(metrics) if e.dtype.name in UNIT_ROUNDOFF else None)
        return _Inputs(fitting, bool(arrays), differ, max((x for x in errors if x is not None), default=None))

    def _reached(self, call: Any) -> list[str]:
        """Captured tensors that the call's ops use though they are not among its inputs."""
        try:
            return [name for name in find_interval(self.capture, call)[1].captured.values() if name in self.capture]
        except PortingError:
            return []


def _rows_of_ops(capture: Any, port: Any, tol: Tolerance, mode: str, provider: str,
                 progress: Callable[[int, int, str], None] | None) -> tuple[list[Row], int]:
    """(rows, number of ops in the reference) of level "op"."""
    if mode == "both" or _is_callables(port):
        raise ValueError('level "op" compares tensors of ops, in mode "isolated" or "chained"')
    ops = list(ops_of(capture))
    names = {op.call.full_name("op", leaf) for _, op in ops for leaf in op.outputs}
    given = [name for name in port if not name.startswith(("param:", "const:"))]
    translate = match_prefix(names, given)
    if not any(translate(name) in port for name in names):
        raise PortingError('the port holds no tensor of an op under a name of the reference: capture it with level="op" (--level op)')
    ways = settings(AS_CAPTURED, capture.environment, provider)
    rows: list[Row] = []
    for i, (runs, op) in enumerate(ops):
        if progress is not None:
            progress(i, len(ops), op.label)
        rows.extend(rows_of_compare(runs, op, port, translate, tol.of(op.call.module), ways, mode == "isolated"))
    if progress is not None:
        progress(len(ops), len(ops), "")
    return rows, len(ops)


def _relative_error(metrics: Mapping[str, Any] | None) -> float | None:
    """Root of the squared error over the reference's squares, None if that is no number."""
    nmse = (metrics or {}).get("nmse", math.nan)
    return math.sqrt(nmse) if nmse >= 0 and math.isfinite(nmse) else None


def _ratio(out: float | None, given: float | None) -> float | None:
    return out / given if out is not None and given else None


def _extra(name: str, taps: set[str]) -> Iterator[Row]:
    from .naming import split_name

    module, call, phase, _ = split_name(name)
    if phase == "out" or (phase == "tap" and module not in taps):
        yield Row(name, module, call, None, "", "extra", reason="the reference has no tensor of this name")


def empty_row(call: Any) -> Row:
    name = f"{call.module}@{call.number}" if call.number else call.module
    if getattr(call, "returned", True):
        return Row(name, call.module, call.number, call.step, "", "empty", reason="the call returned no tensor: nothing to compare")
    return Row(name, call.module, call.number, call.step, "", "dropped", reason="the call did not return, or its outputs were not captured")


# ------------------------------------------------------------ by callables


def _rows_of_callables(capture: Any, calls: list[Any], port: Mapping[str, Callable[..., Any]], tol: Tolerance, provider: str,
                       progress: Callable[[int, int, str], None] | None, search: Search | None = None) -> Iterator[Row]:
    unused = set(port)
    for i, call in enumerate(calls):
        if progress is not None:
            progress(i, len(calls), call.module)
        pattern = next((p for p in port if module_matches(call.module, p, capture)), None)
        if pattern is None:
            continue
        unused.discard(pattern)
        yield from rows_of_call(capture, call, port[pattern], tol, provider, search)
    for pattern in unused:
        yield Row(pattern, pattern, 0, None, "", "missing", reason=no_such_module(pattern, capture))
    if progress is not None:
        progress(len(calls), len(calls), "")


def no_such_module(pattern: str, capture: Any) -> str:
    """The sentence about a pattern of modules that matches none, with the nearest that the reference has."""
    near = suggest(pattern.replace("*", "0"), [call.module for call in capture.call_list], 1)
    if near and "*" in pattern:
        near = [".".join("*" if part.isdecimal() else part for part in near[0].split("."))]
    return f"no module of the reference matches {pattern!r}{f'; did you mean {near[0]}?' if near else ''}"


def module_matches(module: str, pattern: str, capture: Any) -> bool:
    """Whether a shell pattern names the module, with or without the name of the root before it."""
    if module == pattern or fnmatch.fnmatchcase(module, pattern):
        return True
    root = getattr(capture, "root", "") or ""
    return bool(root) and module.startswith(root + ".") and fnmatch.fnmatchcase(module[len(root) + 1:], pattern)


def rows_of_call(capture: Any, call: Any, function: Callable[..., Any], tol: Tolerance, provider: str = "auto",
                 search: Search | None = None) -> Iterator[Row]:
    """Run the port on the captured inputs of one call and compare every output. search : looks for a layout where one does not agree."""
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
    judge = CallJudge(capture, call, tol, provider=provider)
    for leaf in call.outputs:
        name, expected = call.full_name("out", leaf), call.outputs[leaf]
        kind = judge.kind
        if leaf not in matched:
            reason = f"the port returned no tensor for it; it returned {', '.join(found) or 'none'}"
            yield Row(name, kind=kind, status="missing", reason=reason, shape=expected.shape, dtype=expected.dtype.name, **at)
            continue
        result, golden = judge.judge(leaf, expected, matched[leaf])
        row = row_of(result, name=name, kind=kind, golden=golden, **at)
        if search is not None:
            search.look(row, expected, matched[leaf])
        yield row
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
