"""The report as JSON; docs/REPORT.md says what each key means. Numbers are finite: NaN and infinities are strings."""
from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Report, Row

VERSION = 1


def render(report: Report) -> str:
    """JSON text of `to_dict`."""
    return json.dumps(to_dict(report), ensure_ascii=False, allow_nan=False, indent=1)


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain dicts, lists, strings and finite numbers."""
    first = report.first_divergence
    good = report.last_good
    return {
        "format": "porting.report", "version": VERSION, "what": report.what, "unit": report.unit, "passed": report.passed, "tolerance": report.tolerance,
        "summary": report.summary, "why_failed": report.why_failed, "coverage": report.coverage,
        "num_calls": report.num_calls, "num_checked": report.num_checked, "num_exact": report.num_exact, "num_failed": report.num_failed,
        "num_empty": report.num_empty, "num_compared": report.num_compared, "missing_fails": report.missing_fails,
        "worst_err_scale": plain(report.worst_err_scale),
        "first_divergence": None if first is None else first.name, "last_good": None if good is None else good.name,
        "cause": None if report.cause is None else plain(report.cause.to_dict()),
        "proposals": [plain(proposal.to_dict()) for proposal in report.proposals], "warnings": [str(text) for text in report.notices], "environment": plain(report.environment),
        "ledger": None if report.ledger is None else plain(vars(report.ledger)),
        "rows": [_row(row) for row in report.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "name": row.name, "module": row.module, "call": row.call, "step": row.step, "kind": row.kind, "status": row.status,
        "passed": row.passed, "band": row.band, "allowed": None if verdict is None else verdict.allowed, "reason": row.reason,
        "shape": plain(row.shape), "dtype": row.dtype, "worst_index": plain(row.worst_index),
        "inputs_differ": row.inputs_differ, "metrics": plain(row.metrics),
        "local_metrics": plain(row.local_metrics), "amplification": plain(row.amplification), "golden": plain(row.golden),
        "chained": None if row.chained is None else plain(vars(row.chained)), "tolerance": row.tolerance,
        "worst": [] if row.picture is None else [{"index": plain(row.index_of(i)), "expected": plain(e), "actual": plain(a)} for i, e, a in row.picture["worst"]],
    }


def plain(value: Any) -> Any:
    """`value` as what JSON can say. Integers stay exact, numbers that are not finite become "nan", "inf", "-inf"."""
    if hasattr(value, "item") and not isinstance(value, (int, float, str)):
        value = value.item() if getattr(value, "size", 1) == 1 else value.tolist()
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)
