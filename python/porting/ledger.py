"""The ledger (`porting.lock`): the best verdict that each module has reached, so that a later run that is worse is told.

A TOML file with one entry for each module, sorted by name, so that a diff shows what changed:

    [[module]]
    name = "model.layers.0.mlp"
    band = "green"
    err = 3.125        # the greatest err/(u s); not there where nothing but bits was looked at
    max_ulp = 41
    tol = "auto"

An entry is only ever made better. One that is made worse on purpose keeps the reason (`why`). What this file does not do: judge tensors.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._core import PortingError
from .overrides import read_toml
from .places import make_way
from .report import Report
from .tolerance import BANDS

HEADER = "# The best verdict that each module has reached. A run that is worse fails: `porting check|compare --ledger FILE`.\n" \
         "# --update makes entries better, never worse; --loosen NAME --why TEXT makes one worse and keeps the reason.\n"
#: How much err/(u s) may grow without being worse: sums of the same numbers end differently in their last bits.
SLACK = 1.01


@dataclass(frozen=True)
class Entry:
    """What one module has reached: the worst of its outputs over all its calls."""

    name: str
    band: str
    max_ulp: int
    err: float | None
    tol: str
    why: tuple[str, ...] = ()

    def said(self) -> str:
        """"green, err/(u s) 3.12, max 41 ulp"."""
        measured = "" if self.err is None else f", err/(u s) {self.err:.3g}"
        return self.band if self.band == "exact" else f"{self.band}{measured}, max {self.max_ulp} ulp"

    def worse_than(self, other: Entry) -> bool:
        """Another band decides; within one, err/(u s) where both runs measured it by the same tolerance, else the distance in ulp."""
        mine, theirs = BANDS.index(self.band), BANDS.index(other.band)
        if mine != theirs or self.band == "exact":
            return mine > theirs
        if self.err is not None and other.err is not None and self.tol == other.tol:
            return not self.err <= other.err * SLACK
        return self.max_ulp > other.max_ulp


@dataclass
class Outcome:
    """What a run says to its ledger. problems : sentences, one for each module that is worse or gone. tightened, added : modules that are better
    than their entry, or have none yet. updated : whether the file was written."""

    path: str
    problems: list[str] = field(default_factory=list)
    tightened: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    updated: bool = False

    def said(self) -> str:
        """One line for a terminal."""
        parts = [f"{len(self.problems)} worse or gone", f"{len(self.tightened)} better", f"{len(self.added)} new"]
        note = "" if self.updated or not (self.tightened or self.added) else " (--update keeps them)"
        return f"ledger {self.path}: {', '.join(parts)}{', written' if self.updated else note}"


def entries_of(report: Report) -> dict[str, Entry]:
    """Module to what it reached in this run; modules without a compared tensor are not there."""
    found: dict[str, Entry] = {}
    for row in report.rows:
        if row.status != "compared" or row.band is None:
            continue
        metrics = row.judged_metrics or {}
        ratio = metrics.get("max_err_scale", -1.0)
        err = float(ratio) if row.band != "exact" and ratio >= 0 else None
        own = Entry(row.module, row.band, int(metrics.get("max_ulp", 0)), err, row.tolerance or report.tolerance)
        before = found.get(row.module)
        found[row.module] = own if before is None else _worst(before, own)
    return found


def _worst(a: Entry, b: Entry) -> Entry:
    worst = b if BANDS.index(b.band) > BANDS.index(a.band) else a
    errs = [x.err for x in (a, b) if x.err is not None and x.band == worst.band]
    ulps = [x.max_ulp for x in (a, b) if x.band == worst.band]
    return Entry(worst.name, worst.band, max(ulps), max(errs, default=None), worst.tol)


# ---------------------------------------------------------------- the file


def read(path: str | os.PathLike[str]) -> dict[str, Entry]:
    """Module to entry. Raises PortingError with a sentence for a file that is no ledger, OSError if it cannot be read."""
    name = os.fspath(path)
    try:
        table = read_toml(path)
    except ValueError as error:
        raise PortingError(str(error)) from None
    if table.get("version") != 1 or not isinstance(table.get("module", []), list):
        raise PortingError(f"{name}: not a ledger: expected version = 1 and [[module]] entries")
    found: dict[str, Entry] = {}
    for i, raw in enumerate(table.get("module", []), 1):
        entry = _entry(raw, f"{name}: [[module]] {i}")
        if entry.name in found:
            raise PortingError(f"{name}: {entry.name!r} stands there twice")
        found[entry.name] = entry
    return found


def _entry(raw: Any, where: str) -> Entry:
    fields = {"name": str, "band": str, "max_ulp": int, "err": (int, float), "tol": str, "why": list}
    if not isinstance(raw, dict):
        raise PortingError(f"{where}: expected a table")
    for key, value in raw.items():
        if key not in fields or not isinstance(value, fields[key]) or isinstance(value, bool):
            raise PortingError(f"{where}: {key} = {value!r} is not what a ledger holds")
    if not {"name", "band", "max_ulp", "tol"} <= raw.keys() or raw["band"] not in BANDS:
        raise PortingError(f"{where}: expected name, band ({', '.join(BANDS)}), max_ulp and tol")
    err = raw.get("err")
    if err is not None and not err >= 0:
        raise PortingError(f"{where}: err = {err} is no size of an error")
    return Entry(raw["name"], raw["band"], raw["max_ulp"], None if err is None else float(err), raw["tol"], tuple(map(str, raw.get("why", ()))))


def write(path: str | os.PathLike[str], entries: Iterable[Entry]) -> None:
    """The file, whole or not at all."""
    lines = [HEADER, "version = 1\n"]
    for entry in sorted(entries, key=lambda e: e.name):
        lines.append(f"\n[[module]]\nname = {_text(entry.name)}\nband = {_text(entry.band)}\n")
        if entry.err is not None:
            lines.append(f"err = {entry.err:.6g}\n" if math.isfinite(entry.err) and "." in f"{entry.err:.6g}" else f"err = {_float(entry.err)}\n")
        lines.append(f"max_ulp = {min(entry.max_ulp, 2**63 - 1)}\ntol = {_text(entry.tol)}\n")
        if entry.why:
            lines.append(f"why = [{', '.join(map(_text, entry.why))}]\n")
    make_way(path)
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    partial.write_text("".join(lines), encoding="utf-8")
    os.replace(partial, target)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's


def _float(value: float) -> str:
    return "inf" if math.isinf(value) else "nan" if math.isnan(value) else f"{value:.6g}" if "e" in f"{value:.6g}" else f"{value:.6g}.0"


# ---------------------------------------------------------------- a run


def expect(path: str | os.PathLike[str] | None, update: bool, loosen: Mapping[str, str] | None) -> None:
    """What can be said of a ledger before the run. Raises PortingError for a file that is no ledger or is not there, ValueError if there is no file to change."""
    if path is None:
        if update or loosen:
            raise ValueError("update_ledger and loosen need ledger, the file that they change")
    elif os.path.exists(path):
        read(path)
    elif not (update or loosen):
        raise PortingError(f"{os.fspath(path)}: no such ledger; --update (update_ledger=True) writes one")

def apply(report: Report, path: str | os.PathLike[str], *, update: bool = False, loosen: Mapping[str, str] | None = None,
          partial: bool = False) -> Outcome:
    """Put a report to its ledger; `report.ledger` is what it says.

    Parameters
    ----------
    path : the file; with update or loosen it may not exist yet
    update : write what became better, and modules that had no entry
    loosen : module to reason: its entry becomes what this run found (or goes, if the run lacks it), and keeps the reason
    partial : whether the run covers a part of the model only, so that what it lacks is not gone

    Raises PortingError for a file that is no ledger or is not there, a module that is unknown, or a reason that is empty.
    """
    loosen = dict(loosen or {})
    name = os.fspath(path)
    expect(path, update, loosen)
    old = read(path) if os.path.exists(path) else {}
    found = entries_of(report)
    outcome, new = Outcome(name), dict(old)
    for module, why in loosen.items():
        if not why.strip():
            raise PortingError(f"loosening {module} needs a reason that says why it may be worse")
        if module not in old and module not in found:
            raise PortingError(f"{name}: cannot loosen {module!r}: neither the ledger nor this run knows such a module")
        kept = old[module].why if module in old else ()
        new.pop(module, None)
        if module in found:
            new[module] = _with_why(found[module], (*kept, why))
    downstream = {row.module for row in report.rows if row.inputs_differ} - {row.module for row in report.rows if not row.passed}
    carried = []
    for module, entry in new.items():
        if module in loosen:
            continue
        shown = module or "the root"
        if module not in found:
            if not partial:
                outcome.problems.append(f"{shown} was {entry.said()}, and was not compared in this run")
        elif found[module].worse_than(entry) and module in downstream:
            carried.append(shown)
        elif found[module].worse_than(entry):
            outcome.problems.append(f"{shown} was {entry.said()}, and is {found[module].said()}")
        elif entry.worse_than(found[module]):
            outcome.tightened.append(module)
    if carried:
        outcome.problems.append(f"worse on inputs that differ, their own arithmetic right: {', '.join(carried)}")
    outcome.added = [module for module in found if module not in new]
    if update:
        new.update({module: _with_why(found[module], new[module].why) for module in outcome.tightened})
        new.update({module: found[module] for module in outcome.added})
    if new != old or (update and not os.path.exists(path)):
        write(path, new.values())
        outcome.updated = True
    report.ledger = outcome
    return outcome


def _with_why(entry: Entry, why: tuple[str, ...]) -> Entry:
    return Entry(entry.name, entry.band, entry.max_ulp, entry.err, entry.tol, why)


def finish(report: Report, tol: Any, ledger: str | os.PathLike[str] | None, update: bool, loosen: Mapping[str, str] | None) -> Report:
    """The last steps of `check` and `compare`: which entry of a table judged each row, and what the ledger says."""
    judge(report, tol)
    if ledger is not None:
        apply(report, ledger, update=update, loosen=loosen)
    return report


def judge(report: Report, tol: Any) -> None:
    """Say which entry of a table of tolerances judged each row, and which entries judged none."""
    for row in report.rows:
        if row.verdict is not None:
            row.tolerance = tol.said_of(row.module)
    report.warnings = [*report.warnings, *tol.unused(row.module for row in report.rows)]
