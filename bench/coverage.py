"""Which module calls of many models porting can re-run in C, and with which bits.

    OMP_WAIT_POLICY=PASSIVE python bench/coverage.py --builder models.py [--names a b ...] [--dtype bf16] [--mkldnn off] [--jobs 2] [--json out.json]

The builder is a Python file of the user's with `names() -> list[str]` and `build(name) -> (model, keyword arguments)`. Each model is built, run
once under `ActivationCollector(program="all")` and checked with the provider torch, in a process of its own: a crash or a model that takes
longer than --limit seconds is a row, not the end. With --dtype the model is cast as `model.to(dtype)` does it, and so are the floating
tensors among its arguments; what then does not even run without a collector is counted by name, with torch's own message, as refused by torch.

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
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}


def load_builder(path):
    spec = importlib.util.spec_from_file_location("builder", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec.loader.exec_module(module)
    return module


class RefusedByTorch(Exception):
    """The model does not run in the dtype asked for, with or without a collector."""


def cast(value, dtype):
    """The arguments of a model with their floating tensors in `dtype`; containers are walked, everything else is kept."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: cast(item, dtype) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(cast(item, dtype) for item in value)
    return value


def built(builder, name, options):
    """The model and its arguments in the dtype asked for."""
    model, inputs = builder.build(name)
    return (model, inputs) if options.dtype == "f32" else (model.to(DTYPES[options.dtype]), cast(inputs, DTYPES[options.dtype]))


def captured(model, inputs, options, path):
    """The capture of one forward pass; RefusedByTorch where a cast model does not run without a collector either."""
    torch.manual_seed(0)
    with reference_flags(options), torch.no_grad():
        try:
            return ActivationCollector(model, path, program="all")(**inputs)[1]
        except Exception as error:
            if options.dtype == "f32":
                raise
            try:
                model(**inputs)
            except Exception as alone:
                raise RefusedByTorch(f"{type(alone).__name__}: {alone}") from error
            raise


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
        model, inputs = built(builder, name, options)
        begin = time.perf_counter()
        capture = captured(model, inputs, options, os.path.join(folder, "capture"))
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
    except RefusedByTorch as error:
        row = {"name": name, "refused": str(error)[:400]}
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
    if "refused" in row:
        print(f"{row['name']:28s} REFUSED BY TORCH {row['refused']}", flush=True)
        return
    if "error" in row:
        print(f"{row['name']:28s} ERROR {row['error']}", flush=True)
        return
    numbers = " ".join(f"{row[key]:6d}" for key in NUMBERS)
    print(f"{row['name']:28s} {numbers}  {row['capture_s']:5.1f} {row['check_s']:5.1f}  {' '.join(row['missing'])[:120]}", flush=True)


def print_totals(rows):
    refused = [row for row in rows if "refused" in row]
    good = [row for row in rows if "calls" in row]
    total = {key: sum(row[key] for row in good) for key in NUMBERS}
    calls = max(total["calls"], 1)
    full = [row for row in good if row["checked"] == row["calls"] and row["failed"] == 0]
    print(
        f"\n{len(rows)} models, {len(refused)} refused by torch, {len(rows) - len(good) - len(refused)} did not run, {len(full)} full; "
        f"{total['calls']} module calls"
    )
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
    if refused:
        print("\nrefused by torch")
    for row in refused:
        print(f"  {row['name']}: {row['refused'][:200]}")


def parsed_options(about, dtypes=("f32",)):
    """The options of a script that runs models of a builder, in one of `dtypes`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--builder", required=True, help="Python file with names() and build(name)")
    parser.add_argument("--names", nargs="*", help="models to run; default: all")
    parser.add_argument("--slice", help="A:B:C of the names, to run a part")
    parser.add_argument("--mkldnn", choices=("on", "off"), default="on", help="oneDNN in the reference; default on, as users run it")
    parser.add_argument("--dtype", choices=dtypes, default="f32", help="cast model and inputs to it; default f32, as the builder makes them")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one model")
    parser.add_argument("--json", help="write the rows there, anew after each model")
    return parser.parse_args()


def chosen_names(builder, options):
    names = options.names or builder.names()
    return names[slice(*(int(part) if part else None for part in options.slice.split(":")))] if options.slice else names


def main():
    options = parsed_options(__doc__.split("\n")[0], tuple(DTYPES))
    builder = load_builder(options.builder)
    names = chosen_names(builder, options)
    print(f"{'model':28s} {' '.join(f'{key:>6s}' for key in NUMBERS)}  capture check s  ops missing")
    rows = run_all(one, print_row, builder, names, options)
    print_totals(rows)


if __name__ == "__main__":
    main()
