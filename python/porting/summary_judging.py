"""Comparing by statistics, where a capture holds no tensors (level="stats"): the same hash is the same tensor, anything else differs.

How far rounding may go cannot be said without tensors, so that a tensor of another hash is refused, whatever the difference is; by which
statistic it differs is in the row's reason.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .port import as_array
from .report import Row
from .summaries import Summary
from .tolerance import Tolerance, Verdict


def rows_of_summaries(capture: Any, calls: list[Any], port: Mapping[str, Any], progress: Callable[[int, int, str], None] | None) -> Iterator[Row]:
    """One row per output of a call of the reference, in the order of `calls`."""
    from .compare import empty_row, match_prefix

    given = {name for name in port if not name.startswith(("param:", "const:"))}
    translate = match_prefix({call.full_name("out", leaf) for call in calls for leaf in call.leaf_ids("out")}, given)

    def of_port(name: str) -> Summary | None:
        name = translate(name)
        if name not in given:
            return None
        return port.stats(name) if hasattr(port, "stats") else Summary.of(as_array(port[name]))

    for i, call in enumerate(calls):
        if progress is not None:
            progress(i, len(calls), call.module)
        leaves = call.leaf_ids("out")
        if not leaves:
            yield empty_row(call)
            continue
        differ = [leaf for leaf in call.leaf_ids("in") if _differs(capture.stats(call.full_name("in", leaf)), of_port(call.full_name("in", leaf)))]
        for leaf in leaves:
            name = call.full_name("out", leaf)
            yield _row(name, call, capture.stats(name), of_port(name), bool(differ))
    if progress is not None:
        progress(len(calls), len(calls), "")


def _differs(expected: Summary, actual: Summary | None) -> bool:
    return actual is not None and (expected.hash, expected.dtype, expected.shape) != (actual.hash, actual.dtype, actual.shape)


def _row(name: str, call: Any, expected: Summary, actual: Summary | None, inputs_differ: bool) -> Row:
    about = {"name": name, "module": call.module, "call": call.number, "step": call.step, "kind": "", "shape": expected.shape, "dtype": expected.dtype,
             "inputs_differ": inputs_differ}
    if actual is None:
        return Row(**about, status="missing", reason="the port has no tensor of this name")
    if actual.shape != expected.shape:
        return Row(**about, status="shape", reason=f"shape {list(actual.shape)}, expected {list(expected.shape)}")
    if actual.dtype != expected.dtype:
        return Row(**about, status="dtype", reason=f"dtype {actual.dtype}, expected {expected.dtype}")
    if actual.hash == expected.hash:
        verdict = Verdict("exact", True, "the same hash", "the same hash: equal, bit for bit")
    else:
        by = expected.differences(actual) or ["the hash alone (every statistic is the same)"]
        carried = "; its inputs differ, too: whether it only carries that needs tensors" if inputs_differ else ""
        verdict = Verdict("red", False, "the same hash", f"differs by {', '.join(by)}{carried}")
    return Row(**about, status="compared", verdict=verdict, reason=verdict.reason)


def refuse_what_needs_tensors(capture: Any, port: Any, tol: Tolerance, mode: str, level: str, callables: bool) -> None:
    """Raises PortingError for what statistics cannot say."""
    holder = capture if capture.level == "stats" else port
    if callables:
        capture.require_tensors("running a port on captured inputs")
    if level == "op":
        holder.require_tensors("comparing ops")
    if mode == "both":
        holder.require_tensors('the mode "both"')
    if tol.name not in ("auto", "exact"):
        holder.require_tensors(f"the tolerance {tol.name!r}")
