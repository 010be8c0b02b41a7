"""Run every captured module's program in C on the captured inputs, and compare with the captured outputs.

One run of the whole program first: of every module that it gave the captured inputs, and that gave the captured outputs, nothing else needs to be run. The others
run alone. Nothing is copied for that: memory stays at what the program needs, and the largest module. It says which of porting's own kernels give PyTorch's
bits on this machine; ports are judged by `compare`.
"""
from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from . import _core
from ._core import PortingError, UnsupportedError
from .compare import against_all_before, empty_row, in_order_of_return, module_matches, open_reference, row_of
from .judging import CallJudge, class_name_of
from .ledger import expect, finish
from .op_judging import rows_of_check
from .op_level import ops_of
from .pair import bits_equal, compare_with_itself
from .profiles import AS_CAPTURED, Settings, settings
from .program import NoProgramError, find_interval, kind_of, run_call
from .providers import use_provider
from .report import Report, Row
from .roots import root_calls
from .tolerance import Tolerance, resolve
from .whole import outputs_of_calls, shown_exact

LEVELS = ("module", "op")
MODES = ("isolated", "chained")


def check(capture: Any, *, tol: str | Tolerance = "auto", profile: str = AS_CAPTURED, provider: str = "auto", include: str | Sequence[str] | None = None,
          level: str = "module", mode: str = "isolated", progress: Callable[[int, int, str], None] | None = None,
          ledger: str | os.PathLike[str] | None = None, update_ledger: bool = False, loosen: Mapping[str, str] | None = None) -> Report:
    """Check every module call of a capture, or every op.

    Parameters
    ----------
    capture : path or Capture
    tol : preset name or Tolerance, or the path of a TOML file with tolerances by module (docs/REPORT.md)
    profile : how the programs are computed (docs/NUMERICS.md): "as-captured", "golden" (float64, rounded once), "strict" (the same bits on every
        machine), or with operands of products rounded to "tf32", "bf16", "f16" or "q8_0". `environment["profile"]` says which it was, and
        `warnings` what of it this machine cannot give
    provider : where matrix products come from: "reference", "openblas", "torch", or "auto": an installed torch's own, which give its
        bits (found and loaded without importing it), else openblas's, else own loops. `environment["provider"]` says which it was
    include : shell pattern or patterns of module paths; others are left out of the report and of its coverage
    level : "module", or "op": each op alone, on what it was given, in a capture that was made with level="op"
    mode : "isolated": each module on its captured inputs. "chained": each call of the root from its inputs and parameters alone, so that a module
        gets what the modules before it computed in C, and is judged as the result of all of them (docs/REPORT.md, 3a)
    progress : called with (calls done, calls in all, module)
    ledger : a file with the best verdict that each module has reached (docs/REPORT.md): one that is worse now, or gone, fails the report
    update_ledger : write to it what became better; loosen : module to reason: its entry becomes what this run found

    Returns
    -------
    Report : one row per output tensor. A call whose program has an op without a kernel is a row "unsupported" that names it; one without
        a recorded program is "no program"; neither counts as covered. A call that returned no tensor is "empty".

    Raises PortingError or OSError if the capture cannot be opened, if `include` names no module, or if there is no such profile or provider.
    """
    if level not in LEVELS:
        raise ValueError(f"level is one of {', '.join(map(repr, LEVELS))}, got {level!r}")
    if mode not in MODES or (mode == "chained" and level != "module"):
        raise ValueError(f"mode is 'isolated' or, with level 'module' only, 'chained'; got {mode!r} with level {level!r}")
    tol = resolve(tol)
    expect(ledger, update_ledger, loosen)
    settings(profile, {}, provider)  # a wrong name is refused before anything is opened
    chosen, warning = use_provider(provider)
    patterns = [include] if isinstance(include, str) else list(include) if include is not None else None
    with contextlib.ExitStack() as opened, _seldom_collecting():
        capture = open_reference(capture, opened)
        capture.require_tensors("a check")
        calls = [c for c in in_order_of_return(capture.call_list)
                 if patterns is None or any(module_matches(c.module, p, capture) for p in patterns)]
        if patterns is not None and not calls:
            raise PortingError(f"no captured module matches {', '.join(map(repr, patterns))}")
        ways = settings(profile, capture.environment, provider)
        chosen = "reference" if profile == "strict" else chosen
        rows: list[Row] = []
        warnings = [*([warning] if warning else []), *ways.warnings, *_warnings(capture)]
        make_work = _ops if level == "op" else _modules if mode == "isolated" else _chained
        work = make_work(capture, calls, tol, chosen, ways)
        for i, (module, rows_of) in enumerate(work):
            if progress is not None:
                progress(i, len(work), module)
            rows.extend(rows_of())
        if progress is not None:
            progress(len(work), len(work), "")
        report = Report(rows, len(work), what="check", unit="op" if level == "op" else "module call", tolerance=tol.name,
                        environment={**_environment(capture, chosen, ways), "mode": mode}, warnings=warnings)
        return finish(report, tol, ledger, update_ledger, loosen)


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Python looks for cycles among all the process's objects after every few hundred new ones: a fifth of a check, which makes many and no cycles."""
    before = gc.get_threshold()
    if before[0] != 0:
        gc.set_threshold(max(before[0], 100_000), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _modules(capture: Any, calls: list[Any], tol: Tolerance, provider: str, ways: Settings) -> list[tuple[str, Callable[[], Any]]]:
    """(module, what makes its rows) of every call. One run of the whole program shows at once for most of them that they give the captured
    bits; the others are run alone."""
    shown, kinds = set(), {}
    if len(calls) > 1:
        for root in root_calls(capture):
            shown |= shown_exact(root, ways)
            for interval, call in root.calls:
                kinds[call.module, call.number] = root.program, interval
    exact = _ExactRows(capture, tol)
    return [(c.module, partial(exact.rows_of, c, *kinds[c.module, c.number]) if (c.module, c.number) in shown and len(c.outputs)
             else partial(_rows_of, capture, c, tol, provider, ways)) for c in calls]


def _chained(capture: Any, calls: list[Any], tol: Tolerance, provider: str, ways: Settings) -> list[tuple[str, Callable[[], Any]]]:
    """(module, what makes its rows) of every call, judged on what one run of the whole program gives."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    reasons: dict[tuple[str, int], tuple[str, str]] = {}
    intervals = {}
    for root in root_calls(capture):
        intervals.update({(call.module, call.number): (root.program, interval) for interval, call in root.calls})
        try:
            if root.own is None:
                raise NoProgramError(f"call {root.number} of {root.program.root or 'the root'} was not captured as a whole")
            found.update(outputs_of_calls(root, ways))
        except UnsupportedError as error:
            reasons.update({(call.module, call.number): ("unsupported", str(error)) for _, call in root.calls})
        except (PortingError, ValueError, MemoryError) as error:
            status = "no program" if isinstance(error, NoProgramError) else "failed"
            reasons.update({(call.module, call.number): (status, str(error)) for _, call in root.calls})
    exact = _ExactRows(capture, tol)
    places = {(call.module, call.number): place for place, call in enumerate(in_order_of_return(capture.call_list))}

    def rows_of(call: Any) -> Iterator[Row]:
        key = call.module, call.number
        if not len(call.outputs):
            yield empty_row(call)
            return
        if key not in found:
            yield from _not_run(call, *reasons.get(key, ("no program", "no whole program was recorded for it")), "")
            return
        kind = exact.kind_of(call, *intervals[key])
        for leaf, tensor in call.leaf_ids("out").items():
            expected, actual = call.outputs[leaf], found[key].get(leaf)
            at = {"name": call.full_name("out", leaf), "module": call.module, "call": call.number, "step": call.step, "kind": kind}
            if actual is None:
                yield Row(**at, status="no program", reason="no recorded op made it", shape=expected.shape, dtype=expected.dtype.name)
            elif bits_equal(expected, actual):
                yield row_of(exact.compared(tensor, kind, expected, call.module), **at)
            else:
                yield row_of(against_all_before(kind, expected, actual, 64 * (places[key] + 1), tol.of(call.module)), **at)

    return [(call.module, partial(rows_of, call)) for call in calls]


class _ExactRows:
    """Rows of calls that gave the captured bits. What a pair of equal tensors measures is the same for each place where that tensor is."""

    def __init__(self, capture: Any, tol: Tolerance) -> None:
        self.capture, self.tol = capture, tol
        self._kinds: dict[int, str] = {}
        self._compared: dict[tuple[int, str, Tolerance], Any] = {}

    def rows_of(self, call: Any, program: Any, interval: Any) -> Iterator[Row]:
        kind = self.kind_of(call, program, interval)
        for leaf, tensor in call.leaf_ids("out").items():
            compared = self.compared(tensor, kind, self.capture.tensor_by_id(tensor), call.module)
            yield row_of(compared, name=call.full_name("out", leaf), module=call.module, call=call.number, step=call.step, kind=kind)

    def kind_of(self, call: Any, program: Any, interval: Any) -> str:
        """What the call computes; calls that share an interval share the answer."""
        if id(interval) not in self._kinds:
            self._kinds[id(interval)] = kind_of(program, interval, class_name_of(self.capture, call.module))
        return self._kinds[id(interval)]

    def compared(self, tensor: int, kind: str, expected: Any, module: str) -> Any:
        """A captured tensor (id and array) against itself."""
        key = tensor, kind, self.tol.of(module)
        if key not in self._compared:
            self._compared[key] = compare_with_itself(expected, key[2], kind)
        return self._compared[key]


def _ops(capture: Any, calls: list[Any], tol: Tolerance, provider: str, ways: Settings) -> list[tuple[str, Callable[[], Any]]]:
    """(label, what makes its rows) of every captured op of these calls."""
    wanted = {(call.module, call.number) for call in calls}
    return [(op.label, partial(rows_of_check, runs, op, tol.of(op.call.module), ways)) for runs, op in ops_of(capture) if (op.call.module, op.call.number) in wanted]


def _rows_of(capture: Any, call: Any, tol: Tolerance, provider: str, ways: Settings) -> Iterator[Row]:
    at = {"module": call.module, "call": call.number, "step": call.step}
    if not len(call.outputs):
        yield empty_row(call)
        return
    try:
        result = run_call(capture, call, provider=provider, profile=ways.profile)
    except UnsupportedError as error:
        yield from _not_run(call, "unsupported", str(error), _kind(capture, call))
        return
    except NoProgramError as error:
        yield from _not_run(call, "no program", str(error), _kind(capture, call))
        return
    except (PortingError, ValueError, MemoryError) as error:
        yield from _not_run(call, "failed", f"running its program failed: {error}", _kind(capture, call))
        return
    kind = kind_of(result.program, result.interval, class_name_of(capture, call.module))
    judge = CallJudge(capture, call, tol, provider=provider, kind=kind, terms=len(result.ops))
    for leaf in call.outputs:
        name, expected = call.full_name("out", leaf), call.outputs[leaf]
        if leaf not in result.outputs:
            yield Row(name, kind=kind, status="no program", reason=result.missing.get(leaf, "no recorded op made it"), shape=expected.shape,
                      dtype=expected.dtype.name, **at)
            continue
        compared, golden = judge.judge(leaf, expected, result.outputs[leaf])
        yield row_of(compared, name=name, kind=kind, golden=golden, **at)


def _kind(capture: Any, call: Any) -> str:
    """What a call that could not be run computes, "" if nothing was recorded."""
    try:
        program, interval, _ = find_interval(capture, call)
        return kind_of(program, interval, class_name_of(capture, call.module))
    except PortingError:
        return ""


def _not_run(call: Any, status: str, reason: str, kind: str) -> Iterator[Row]:
    for leaf in call.outputs:
        expected = call.outputs[leaf]
        yield Row(call.full_name("out", leaf), call.module, call.number, call.step, kind, status, reason=reason, shape=expected.shape,
                  dtype=expected.dtype.name)


# ---------------------------------------------------------------- where it ran


def _environment(capture: Any, provider: str, ways: Settings) -> dict[str, Any]:
    """How the reference ran, and with what the check did."""
    return {"reference": str(capture.path), "provider": provider, "cpu_level": _core.show_config().get("cpu_level"),
            "profile": ways.text}


def _warnings(capture: Any) -> list[str]:
    """What keeps the check from seeing all of the reference."""
    found: list[str] = []
    if not capture.finished:
        found.append("the capture was never finished: what came after its last whole record is not checked")
    dropped = [note for note in capture.notes if isinstance(note, dict) and note.get("kind") == "dropped"]
    if dropped:
        first = f"{dropped[0].get('where', '')}: {dropped[0].get('reason', '')}"
        what = "1 thing could not be captured and is not checked:" if len(dropped) == 1 else \
            f"{len(dropped)} things could not be captured and are not checked, first"
        found.append(f"{what} {first}")
    return found
