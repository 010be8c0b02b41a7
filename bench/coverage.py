"""Which module calls of many models porting can re-run in C, and with which bits.

    OMP_WAIT_POLICY=PASSIVE python bench/coverage.py --builder models.py [--names a b ...] [--mkldnn off] [--jobs 2] [--json out.json]

The builder is a Python file of the user's with `names() -> list[str]` and `build(name) -> (model, keyword arguments)`. Each model is built, run
once under `ActivationCollector(program="all")` and checked with the provider torch, in a process of its own: a crash or a model that takes
longer than --limit seconds is a row, not the end.

calls     module calls that the capture holds, the root's included; a call that returned no tensor counts as checked
checked   every output was computed in C and compared      exact     ... and is bit-equal
bound     ... or within the tolerance "auto"               failed    an output was refused
missing   ops of the model without a handler, by name. full: everything checked, nothing failed.
"""

import argparse
import collections
import contextlib
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import porting
import torch
from porting import ops_table
from porting.hooks import ActivationCollector
from porting.providers import load_torch_provider

NUMBERS = ("calls", "checked", "exact", "bound", "failed")


def load_builder(path):
    spec = importlib.util.spec_from_file_location("builder", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec.loader.exec_module(module)
    return module


def missing_ops(capture):
    return sorted({name for program in capture.programs for name, *_ in program.ops if not ops_table.has_handler(name)})


def problems_of(report):
    """One line for each different reason why a call was not checked or was refused, with its number of rows."""
    reasons = collections.Counter()
    for row in report.rows:
        if not row.passed:
            reasons[f"{row.status}: {row.kind}: {row.reason}"[:400]] += 1
    return dict(reasons.most_common(40))


def one(builder, name, options, folder):
    """The row of one model."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = builder.build(name)
        path = os.path.join(folder, "capture")
        begin = time.perf_counter()
        torch.manual_seed(0)
        with reference_flags(options), torch.no_grad():
            _, capture = ActivationCollector(model, path, program="all")(**inputs)
        middle = time.perf_counter()
        with capture:
            report = porting.check(capture, provider="torch")
            calls = collections.defaultdict(list)
            for row in report.rows:
                calls[row.module, row.call].append(row)
            dropped = [note for note in capture.notes if isinstance(note, dict) and note.get("kind") == "dropped"]
            inexact = collections.Counter(row.kind for row in report.rows if row.status == "compared" and row.band != "exact")
            return {
                "name": name,
                "calls": report.num_calls,
                "checked": report.num_checked,
                "exact": report.num_exact + report.num_empty,
                "bound": sum(all(row.passed for row in rows) for rows in calls.values()),
                "failed": report.num_failed,
                "missing": missing_ops(capture),
                "inexact": dict(inexact),
                "problems": problems_of(report),
                "notes": sorted({f"{note.get('where', '')}: {note.get('reason', '')}"[:300] for note in dropped}),
                "capture_s": round(middle - begin, 2),
                "check_s": round(time.perf_counter() - middle, 2),
            }


def reference_flags(options):
    """The setting of oneDNN that the reference runs under."""
    return contextlib.nullcontext() if options.mkldnn == "on" else torch.backends.mkldnn.flags(enabled=False)


def child(work, builder, name, options, folder, connection):
    try:
        load_torch_provider()  # not in the parent: what has started threads cannot be forked
        row = work(builder, name, options, folder)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        row = {"name": name, "error": f"{type(error).__name__}: {str(error)[:400]} ({os.path.basename(where.filename)}:{where.lineno})"}
    connection.send(row)
    connection.close()


class Running:
    """One model in a process of its own; `work` makes its row."""

    def __init__(self, context, work, builder, name, options):
        self.name, self.deadline = name, time.monotonic() + options.limit
        self.folder = tempfile.TemporaryDirectory(prefix="porting-coverage-")
        self.receive, send = context.Pipe(duplex=False)
        self.process = context.Process(target=child, args=(work, builder, name, options, self.folder.name, send))
        self.process.start()
        send.close()

    def poll(self):
        """The row when there is one, else None."""
        row = None
        if self.receive.poll(0.02):
            try:
                row = self.receive.recv()
            except EOFError:
                self.process.join()
                row = {"name": self.name, "error": f"the process ended with code {self.process.exitcode}"}
        elif time.monotonic() > self.deadline:
            self.process.kill()
            row = {"name": self.name, "error": "out of time"}
        if row is not None:
            self.process.join()
            self.receive.close()
            self.folder.cleanup()
        return row


def run_all(work, print_row, builder, names, options):
    context = multiprocessing.get_context("fork")  # torch is imported once; this process computes nothing
    waiting, running, rows = list(names), [], []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            running.append(Running(context, work, builder, waiting.pop(0), options))
        for item in list(running):
            row = item.poll()
            if row is not None:
                running.remove(item)
                rows.append(row)
                print_row(row)
                if options.json:
                    with open(options.json, "w") as file:
                        json.dump(rows, file, indent=1)
    return rows


def print_row(row):
    if "error" in row:
        print(f"{row['name']:28s} ERROR {row['error']}", flush=True)
        return
    numbers = " ".join(f"{row[key]:6d}" for key in NUMBERS)
    print(f"{row['name']:28s} {numbers}  {row['capture_s']:5.1f} {row['check_s']:5.1f}  {' '.join(row['missing'])[:120]}", flush=True)


def print_totals(rows):
    good = [row for row in rows if "error" not in row]
    total = {key: sum(row[key] for row in good) for key in NUMBERS}
    calls = max(total["calls"], 1)
    full = [row for row in good if row["checked"] == row["calls"] and row["failed"] == 0]
    print(f"\n{len(rows)} models, {len(rows) - len(good)} did not run, {len(full)} full; {total['calls']} module calls")
    for key in NUMBERS[1:]:
        print(f"  {key:8s} {total[key]:7d}  {100 * total[key] / calls:6.2f} %")
    missing = collections.Counter(op for row in good for op in row["missing"])
    print(f"\n{len(missing)} ops missing, by the number of models that use them")
    for op, count in missing.most_common():
        print(f"  {count:4d}  {op}")
    inexact = collections.Counter()
    for row in good:
        inexact.update(row["inexact"])
    print("\ntensors compared and not bit-equal, by what their module computes")
    for kind, count in inexact.most_common():
        print(f"  {count:5d}  {kind}")
    print("\nwhy calls were refused or not checked (first line of each model)")
    for row in good:
        for reason, count in list(row["problems"].items())[:3]:
            print(f"  {row['name']} ({count}): {reason[:200]}")


def parsed_options(about):
    """The options of a script that runs models of a builder."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--builder", required=True, help="Python file with names() and build(name)")
    parser.add_argument("--names", nargs="*", help="models to run; default: all")
    parser.add_argument("--slice", help="A:B:C of the names, to run a part")
    parser.add_argument("--mkldnn", choices=("on", "off"), default="on", help="oneDNN in the reference; default on, as users run it")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one model")
    parser.add_argument("--json", help="write the rows there, anew after each model")
    return parser.parse_args()


def chosen_names(builder, options):
    names = options.names or builder.names()
    return names[slice(*(int(part) if part else None for part in options.slice.split(":")))] if options.slice else names


def main():
    options = parsed_options(__doc__.split("\n")[0])
    builder = load_builder(options.builder)
    names = chosen_names(builder, options)
    print(f"{'model':28s} {' '.join(f'{key:>6s}' for key in NUMBERS)}  capture check s  ops missing")
    rows = run_all(one, print_row, builder, names, options)
    print_totals(rows)


if __name__ == "__main__":
    main()
