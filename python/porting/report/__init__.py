"""What a check or a comparison found: rows in order of execution, and the few numbers that people ask for.

A `Row` is one tensor that was compared, or one thing that could not be. A `Report` judges no numbers, it counts what the verdicts say.
"""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..tolerance import Verdict

#: Why a row has no verdict; "compared" rows have one. "empty": the call returned no tensor, so there is nothing to compare.
STATUSES = ("compared", "missing", "extra", "shape", "dtype", "unsupported", "no program", "failed", "dropped", "empty")


@dataclass
class Row:
    """One tensor, or one module call that could not be compared.

    name : full name ("model.layers.0.mlp.out.0"); the module's with "@call" where there is no tensor. module, call, step : where.
    kind : what the module computes (docs/DESIGN.md). status : one of STATUSES. verdict, metrics : of a compared tensor, else None
    (a row of status "dtype" may have metrics). inputs_differ : the port's own inputs of this call are there and are not the reference's. reason : one sentence; for a compared row the verdict's. shape, dtype : of the reference.
    golden : {"reference", "port", "ratio"}: rms errors against a float64 run in units of u * rms, and how many times less accurate the port
    is; None if no such run was made. local_metrics : against the reference's program run on the port's own inputs, where the verdict is
    about that (then `metrics`, against the reference's output, hold what was carried along, too). amplification : relative error of the output
    over that of the inputs. chained : in mode "both", the verdict against the reference's outputs.
    tolerance : which entry of a table of tolerances judged it, None where there is no table. picture : where the two differ and the worst
    elements (picture.py), of what the verdict is about; None if they are equal.
    """

    name: str
    module: str
    call: int
    step: int | None
    kind: str
    status: str
    verdict: Verdict | None = None
    metrics: dict[str, Any] | None = None
    reason: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    inputs_differ: bool = False
    golden: Mapping[str, float] | None = None
    local_metrics: dict[str, Any] | None = None
    amplification: float | None = None
    chained: Verdict | None = None
    tolerance: str | None = None
    picture: dict[str, Any] | None = None

    @property
    def judged_metrics(self) -> dict[str, Any] | None:
        """What the verdict is about: on the port's own inputs where it was judged on them, else against the reference's output."""
        return self.local_metrics if self.local_metrics is not None else self.metrics

    @property
    def band(self) -> str | None:
        """The verdict's band, None if there is none."""
        return self.verdict.band if self.verdict is not None else None

    @property
    def passed(self) -> bool:
        """True for a compared tensor that its tolerance accepts, and for a call that returned no tensor."""
        return self.status == "empty" or (self.status == "compared" and self.verdict is not None and self.verdict.passed)

    @property
    def num_nan(self) -> int:
        """NaN on both sides of a compared tensor that passed."""
        return (self.judged_metrics or {}).get("num_nan_expected", 0) if self.status == "compared" and self.passed else 0

    @property
    def worst_index(self) -> tuple[int, ...] | None:
        """Where the greatest absolute error is, as an index into the reference; None if there is no finite pair."""
        flat = (self.judged_metrics or {}).get("max_abs_idx", -1)
        return None if flat < 0 else self.index_of(flat)

    def index_of(self, flat: int) -> tuple[int, ...] | None:
        """A flat index of the metrics as an index into the reference; None for a scalar."""
        if not self.shape:
            return None
        if self.dtype == "complex64":
            flat //= 2
        index = []
        for size in reversed(self.shape):
            index.append(flat % size)
            flat //= size
        return tuple(reversed(index))


@dataclass
class Report:
    """Rows of a whole model in order of execution.

    rows : list of Row. num_calls : calls of modules in the reference. unit : what is counted, "module call" or "op". what : "check" or
    "compare". missing_fails : whether a tensor that
    the port does not have, or has too many, fails the report. ledger : what the ledger says (ledger.Outcome), None if there is none. environment : facts about how it was made. warnings : sentences. proposals : names and
    layouts that the values suggest (`interop.propose.Proposal`); they change no verdict.
    """

    rows: Sequence[Row]
    num_calls: int
    what: str = "compare"
    missing_fails: bool = True
    environment: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    tolerance: str = "auto"
    cause: Any = None
    proposals: Sequence[Any] = ()
    unit: str = "module call"
    ledger: Any = None

    @cached_property
    def _by_call(self) -> dict[tuple[str, int], list[Row]]:
        calls: dict[tuple[str, int], list[Row]] = {}
        for row in self.rows:
            if row.status != "extra" and row.kind != "parameter":
                calls.setdefault((row.module, row.call), []).append(row)
        return calls

    @cached_property
    def num_checked(self) -> int:
        """Module calls of which every output was compared (or that returned no tensor)."""
        return sum(all(row.status in ("compared", "shape", "dtype", "empty") for row in rows) for rows in self._by_call.values())

    @cached_property
    def num_exact(self) -> int:
        """Module calls of which every output is bit-equal; calls without a tensor are not among them."""
        return sum(all(row.band == "exact" for row in rows) for rows in self._by_call.values())

    @property
    def num_empty(self) -> int:
        """Module calls that returned no tensor."""
        return sum(all(row.status == "empty" for row in rows) for rows in self._by_call.values())

    @cached_property
    def num_failed(self) -> int:
        """Module calls with an output that was compared and refused (also: another shape or dtype)."""
        return sum(any(self._refused(row) for row in rows) for rows in self._by_call.values())

    @property
    def coverage(self) -> float:
        """Share of the reference's module calls that were checked, 0 to 1."""
        return self.num_checked / self.num_calls if self.num_calls else 0.0

    @cached_property
    def worst_err_scale(self) -> float | None:
        """The greatest err/(u s) among compared tensors that are not bit-equal, None if there is none."""
        measured = [row.judged_metrics for row in self.rows if row.status == "compared" and row.band != "exact"]
        found = [metrics["max_err_scale"] for metrics in measured if metrics and metrics["max_err_scale"] >= 0]
        return max(found, default=None)

    @property
    def num_compared(self) -> int:
        """Tensors that were compared."""
        return sum(row.status == "compared" for row in self.rows)

    def _refused(self, row: Row) -> bool:
        return row.status in ("shape", "dtype") or (row.status == "compared" and not row.passed)

    @cached_property
    def passed(self) -> bool:
        """True if at least one tensor was compared, none was refused, nothing that had to be there is missing, and the ledger agrees."""
        if self.num_compared == 0 or any(self._refused(row) for row in self.rows) or (self.ledger is not None and self.ledger.problems):
            return False
        return not self.missing_fails or all(row.passed for row in self.rows if row.status != "extra")

    @cached_property
    def first_divergence(self) -> Row | None:
        """The first row in order of execution that was compared and refused; None if there is none."""
        return next((row for row in self.rows if self._refused(row)), None)

    @property
    def last_good(self) -> Row | None:
        """The last compared row before the first divergence, of another module call, that passed."""
        first = self.first_divergence
        good = None
        for row in self.rows:
            if row is first:
                return good
            if row.status == "compared" and (row.module, row.call) != (first.module if first else None, first.call if first else None):
                good = row
        return None

    @property
    def why_failed(self) -> str:
        """Why a report failed that compared nothing or refused no tensor, as the rest of a sentence; else ""."""
        from .text import why_failed

        return why_failed(self)

    @property
    def num_nan(self) -> int:
        """Tensors that passed and hold NaN, at the same places in the reference and the port."""
        return sum(row.num_nan > 0 for row in self.rows)

    @property
    def notices(self) -> list[str]:
        """`warnings`, and what the rows themselves warn of: NaN that the reference holds too."""
        from .text import counted

        if not self.num_nan:
            return list(self.warnings)
        holding = f"{counted(self.num_nan, 'tensor')} that passed hold{'s' if self.num_nan == 1 else ''}"
        return [*self.warnings, f"{holding} NaN where the reference has NaN"]

    @property
    def summary(self) -> str:
        """One line: calls checked, exact, within bound, failed, not covered, coverage."""
        from .text import summary

        return summary(self)

    def to_text(self, *, all_rows: bool = False) -> str:
        """The report for a terminal. all_rows: every tensor in order of execution; otherwise groups and what needs attention."""
        from .text import render

        return render(self, all_rows=all_rows)

    def to_json(self) -> str:
        """The report as JSON text (docs/REPORT.md)."""
        from .jsonout import render

        return render(self)

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> str:
        """Write the report as one self-contained HTML file, in a folder that is made if it is not there; returns its path."""
        from .html import write

        return write(self, path, **options)

    def plot(self, ax: Any = None, *, metric: str = "max_err_scale") -> Any:
        """Errors along depth, with matplotlib (extra `notebook`); returns the axes. See `report.notebook.plot`."""
        from .notebook import plot

        return plot(self, ax, metric=metric)

    def explore(self) -> Any:
        """A widget that filters and sorts the rows (extra `notebook`: anywidget)."""
        from .notebook import explore

        return explore(self)

    def _repr_html_(self) -> str:
        from .notebook import html

        return html(self)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Report: {self.summary}>"
