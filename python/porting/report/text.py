"""The report for a terminal: a table that stays readable with 10,000 rows, the first divergence, and one line that sums it up."""
from __future__ import annotations

import collections
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Report, Row

_SEVERITY = {"exact": 0, "green": 1, "amber": 2, "red": 3}
_WORDS = {"exact": "bit-exact", "green": "rounding", "amber": "amber", "red": "DIFFERENT"}
_ULP_NAN = 2**64 - 1
_MAX_PROBLEMS = 20
_LACKS = {"missing": "missing from the port", "dropped": "did not return or could not be captured", "unsupported": "with an op without a kernel",
          "no program": "without a usable program", "failed": "ended with an error"}


def summary(report: Report) -> str:
    """`271 of 271 module calls checked, 250 bit-exact, 21 within bound (worst err/(u s) 3.1), 0 failed; coverage 100 %`"""
    verb = "checked" if report.what == "check" else "compared"
    within = report.num_checked - report.num_exact - report.num_failed - report.num_empty
    worst = "" if report.worst_err_scale is None else f" (worst err/(u s) {report.worst_err_scale:.3g})"
    failed = report.num_failed
    parts = [f"{report.num_checked} of {counted(report.num_calls, report.unit)} {verb}", f"{report.num_exact} bit-exact",
             f"{max(within, 0)} within bound" + (worst if not failed else ""), f"{failed} failed"]
    if report.num_empty:
        parts.append(f"{report.num_empty} without a tensor to compare")
    extra = sum(row.status == "extra" for row in report.rows)
    if extra:
        parts.append(f"{counted(extra, 'tensor')} that the reference does not have")
    return ", ".join(parts) + f"; coverage {_percent(report.coverage)}"


def counted(n: int, noun: str) -> str:
    """"1 tensor", "2 tensors"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def why_failed(report: Report) -> str:
    """See `Report.why_failed`."""
    if not report.num_compared:
        return _why_nothing(report)
    if report.passed or report.first_divergence is not None:
        return ""
    if report.ledger is not None and report.ledger.problems:
        return "of the ledger: " + clean(report.ledger.problems[0]) + (f", and {len(report.ledger.problems) - 1} more" if report.ledger.problems[1:] else "")
    lacking: dict[str, set[tuple[str, int]]] = {}
    for row in report.rows:
        if not row.passed and row.status in _LACKS:
            lacking.setdefault(row.status, set()).add((row.module, row.call))
    calls = len(set().union(*lacking.values()))
    what = "coverage is required, and " if report.what == "compare" else ""
    verb = "checked" if report.what == "check" else "compared"
    return f"{what}{counted(calls, report.unit)} could not be {verb}: " + ", ".join(f"{len(c)} {_LACKS[s]}" for s, c in lacking.items())


def _why_nothing(report: Report) -> str:
    """Why no tensor was compared: for a check the most frequent reason, since each call has one of its own."""
    if report.first_divergence is not None:
        return "nothing was compared: what the port has is of another shape or dtype"
    if report.what != "check":
        return "nothing was compared: the port has no tensor under a name of the reference"
    reasons = collections.Counter(clean(row.reason) for row in report.rows if row.reason and row.status != "empty")
    if not reasons:
        return "nothing was checked: no captured call returned a tensor"
    (reason, _), = reasons.most_common(1)
    return "nothing could be checked: " + reason


def _percent(share: float) -> str:
    """Never "100 %" for less than all, nor "0 %" for more than nothing."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"


def render(report: Report, *, all_rows: bool = False) -> str:
    """The whole text. all_rows: one line per tensor; otherwise modules that differ only in their numbers share a line."""
    lines = _table([_row_cells(row) for row in report.rows]) if all_rows else _table(_group_cells(report.rows))
    lines += _problems(report)
    lines += [f"warning: {clean(text)}" for text in report.notices]
    if report.ledger is not None:
        lines += [clean(text) for text in [*report.ledger.problems, report.ledger.said()]]
    facts = report.environment or {}
    known = [f"{key} {clean(facts[key])}" for key in ("profile", "reference", "provider") if facts.get(key)]
    if known:
        lines.append("; ".join(known))
    lines.append(("passed: " if report.passed else "FAILED: ") + summary(report))
    if report.why_failed:
        lines.append("failed because " + report.why_failed)
    return "\n".join(lines)


def clean_lines(text: str) -> list[str]:
    """Lines of a text that may hold names from a file, each made safe for a terminal."""
    return [clean(line) for line in text.splitlines()]


# ---------------------------------------------------------------- the table

_HEAD = ("module", "kind", "tensors", "elements", "max ulp", "err/(u s)", "verdict")


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    cells = [_HEAD, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    left = (True, True, False, False, False, False, True)
    return ["  ".join(c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(row, widths, left)).rstrip() for row in cells] + [""]


def _row_cells(row: Row) -> tuple[str, ...]:
    m = {**(row.metrics or {}), "max_err_scale": (row.judged_metrics or {}).get("max_err_scale")}
    return (clean(row.name), clean(row.kind), "1", _count(m.get("num_elems")), _ulp(m.get("max_ulp")), _ratio(m.get("max_err_scale")), _verdict(row) + _nan(row.num_nan))


def _verdict(row: Row) -> str:
    if row.status == "empty":
        return "no tensor"
    word = _WORDS[row.band] if row.status == "compared" and row.band else row.status
    if row.local_metrics is not None and row.passed:
        word = "carried" if row.band == "green" else f"{word}, carried"
    return word if row.chained is None else f"{word} / chained {_WORDS[row.chained.band]}"


def _nan(count: int) -> str:
    return f", {count} NaN" if count else ""


def _group_cells(rows: Any) -> list[tuple[str, ...]]:
    """Modules whose paths differ only in numbers (model.layers.3.mlp, model.layers.4.mlp), and their calls, share a line."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((re.sub(r"(?<![^.])\d+(?![^.])", "*", row.module), row.kind), []).append(row)
    cells = []
    for (path, kind), members in groups.items():
        modules = {row.module for row in members}
        label = next(iter(modules)) if len(modules) == 1 else path
        metrics = [row.metrics for row in members if row.status == "compared" and row.metrics]
        judged = [row.judged_metrics for row in members if row.status == "compared" and row.judged_metrics]
        cells.append((clean(label) or "(root)", clean(kind), str(len(members)), _count(sum(m["num_elems"] for m in metrics)),
                      _ulp(max((m["max_ulp"] for m in metrics), default=None)),
                      _ratio(max((m["max_err_scale"] for m in judged), default=None)), _group_verdict(members)))
    return cells


def _group_verdict(members: list[Row]) -> str:
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in sorted(members, key=lambda r: -_SEVERITY.get(r.band or "", 4)):
        groups.setdefault((_verdict(row), row.num_nan > 0), []).append(row)
    words = {key: key[0] + _nan(sum(row.num_nan for row in rows)) for key, rows in groups.items()}
    if len(groups) == 1:
        return next(iter(words.values()))
    return ("; " if any(nan for _, nan in groups) else ", ").join(f"{len(rows)} {words[key]}" for key, rows in groups.items())


def clean(text: Any) -> str:
    """Text from a file, without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _ulp(n: int | None) -> str:
    if n is None:
        return "-"
    if n >= _ULP_NAN:
        return "NaN"
    return str(n) if n < 10**6 else f"{n:.1e}"


def _ratio(x: float | None) -> str:
    if x is None or x < 0:
        return "-"
    return "0" if x == 0 else f"{x:.3g}" if math.isfinite(x) else str(x)


# ---------------------------------------------------------------- what needs attention


def describe(row: Row) -> list[str]:
    """A row that needs attention, in two or three lines."""
    kind = f" ({clean(row.kind)})" if row.kind else ""
    lines = [f"{clean(row.name)}{kind}: {clean(row.reason or row.status)}"]
    m = row.judged_metrics
    if row.status == "compared" and m is not None and row.verdict is not None:
        where = f" at {row.worst_index}" if row.worst_index is not None else ""
        sizes = (f"greatest absolute error {m['max_abs']:.6g}{where}, relative {m['max_rel']:.3g}, max {_ulp(m['max_ulp'])} ulp,"
                 f" pcc {m['pcc']:.6g}") if m["max_abs_idx"] >= 0 else "no element is finite on both sides"
        lines.append(f"    {m['num_unequal']} of {m['num_elems']} elements differ, {sizes}")
        lines.append(f"    allowed: {row.verdict.allowed}" + (f"; by {clean(row.tolerance)}" if row.tolerance else ""))
    if row.golden is not None and math.isfinite(row.golden["ratio"]):
        lines.append(f"    against float64: reference {row.golden['reference']:.3g} u, port {row.golden['port']:.3g} u"
                     f" ({row.golden['ratio']:.3g} times the reference's error)")
    return lines


def _problems(report: Report) -> list[str]:
    lines: list[str] = []
    first = report.first_divergence
    if first is not None:
        lines += ["first divergence: " + describe(first)[0], *describe(first)[1:]]
        good = report.last_good
        if good is not None:
            lines.append(f"    last good before it: {clean(good.name)}")
        if report.cause is not None:
            lines += ["cause: " + line if i == 0 else line for i, line in enumerate(clean_lines(str(report.cause)))]
        lines.append("")
    rest = [row for row in report.rows if row is not first and not row.passed]
    carried = [row for row in rest if row.inputs_differ]
    if carried and first is not None:
        lines += [f"{counted(len(carried), 'tensor')} after it {'differ' if len(carried) > 1 else 'differs'} too, of calls whose inputs differ", ""]
        rest = [row for row in rest if not row.inputs_differ]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rest, key=lambda r: r.status != "compared"):
        groups.setdefault((row.status, row.name if row.status == "compared" else row.reason), []).append(row)
    for done, ((status, _), rows) in enumerate(groups.items()):
        if done == _MAX_PROBLEMS:
            lines.append(f"... and {sum(map(len, list(groups.values())[done:]))} more")
            break
        again = f" (and {len(rows) - 1} more like it)" if len(rows) > 1 else ""
        word = "different" if status == "compared" else status
        lines.append(f"{word}: {clean(rows[0].name) or '(root)'}: {clean(rows[0].reason)}{again}")
    lines += [f"proposed: {clean(proposal)}" for proposal in report.proposals[:_MAX_PROBLEMS]]
    if len(report.proposals) > _MAX_PROBLEMS:
        lines.append(f"... and {len(report.proposals) - _MAX_PROBLEMS} more proposals")
    return lines + [""] if groups or report.proposals else lines
