"""Run every captured module's program in C on the captured inputs, and compare with the captured outputs.

One call at a time: memory stays at what the largest module needs. It says which of porting's own kernels give PyTorch's
bits on this machine; ports are judged by `compare`.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import _core
from ._core import PortingError, UnsupportedError
from .compare import empty_row, in_order_of_return, module_matches, open_reference, row_of
from .judging import CallJudge, class_name_of
from .program import NoProgramError, find_interval, kind_of, run_call
from .profiles import AS_CAPTURED, Settings, settings
from .providers import use_provider
from .report import Report, Row
from .tolerance import Tolerance, resolve


def check(capture: Any, *, tol: str | Tolerance = "auto", profile: str = AS_CAPTURED, provider: str = "auto", include: str | Sequence[str] | None = None,
          progress: Callable[[int, int, str], None] | None = None) -> Report:
    """Check every module call of a capture.

    Parameters
    ----------
    capture : path or Capture
    tol : preset name or Tolerance
    profile : how the programs are computed (docs/NUMERICS.md): "as-captured", "golden" (float64, rounded once), "strict" (the same bits on every
        machine), or with operands of products rounded to "tf32", "bf16", "f16" or "q8_0". `environment["profile"]` says which it was, and
        `warnings` what of it this machine cannot give
    provider : where matrix products come from: "reference", "openblas", "torch", or "auto": an installed torch's own, which give its
        bits (found and loaded without importing it), else openblas's, else own loops. `environment["provider"]` says which it was
    include : shell pattern or patterns of module paths; others are left out of the report and of its coverage
    progress : called with (calls done, calls in all, module)

    Returns
    -------
    Report : one row per output tensor. A call whose program has an op without a kernel is a row "unsupported" that names it; one without
        a recorded program is "no program"; neither counts as covered. A call that returned no tensor is "empty".

    Raises PortingError or OSError if the capture cannot be opened, if `include` names no module, or if there is no such profile or provider.
    """
    tol = resolve(tol)
    settings(profile, {}, provider)  # a wrong name is refused before anything is opened
    chosen, warning = use_provider(provider)
    patterns = [include] if isinstance(include, str) else list(include) if include is not None else None
    with contextlib.ExitStack() as opened:
        capture = open_reference(capture, opened)
        calls = [c for c in in_order_of_return(capture.call_list)
                 if patterns is None or any(module_matches(c.module, p, capture) for p in patterns)]
        if patterns is not None and not calls:
            raise PortingError(f"no captured module matches {', '.join(map(repr, patterns))}")
        ways = settings(profile, capture.environment, provider)
        chosen = "reference" if profile == "strict" else chosen
        rows: list[Row] = []
        for i, call in enumerate(calls):
            if progress is not None:
                progress(i, len(calls), call.module)
            rows.extend(_rows_of(capture, call, tol, chosen, ways))
        if progress is not None:
            progress(len(calls), len(calls), "")
        warnings = [*([warning] if warning else []), *ways.warnings, *_warnings(capture)]
        return Report(rows, len(calls), what="check", tolerance=tol.name, environment=_environment(capture, chosen, ways),
                      warnings=warnings)


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
