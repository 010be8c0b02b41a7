"""What the commands do that look at captures and judge them. Each takes the parsed arguments and returns the exit code."""
import contextlib
import fnmatch
import json
import math
import os
import re
import sys
import warnings

import numpy as np

from .. import _core
from .._core import LayerNotFoundError, PortingError
from ..places import check_place, make_way


def _print_json(value):
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1)
    print()


def _print_columns(rows, right=()):
    """Rows of strings as aligned text; `right` names the columns that are aligned to the right."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


@contextlib.contextmanager
def _warnings_as_sentences():
    """Python's warnings as a command's own words: one line each on stderr, without the place in the source."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print("porting:", " ".join(str(warning.message).split()), file=sys.stderr)


def _open(path):
    """The capture, with a word on stderr if it was never finished."""
    from ..capture import open as open_capture

    with _warnings_as_sentences():
        return open_capture(path)


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _fits(pattern):
    """A predicate on names: shell pattern if it has any of *?[, else a part of the name. "*." at its start stands for nothing, too."""
    if pattern is None:
        return lambda name: True
    if any(c in pattern for c in "*?["):
        patterns = {pattern, pattern.removeprefix("*.")}
        return re.compile("|".join(map(fnmatch.translate, sorted(patterns)))).match
    return lambda name: pattern in name


def _fits_any_call(pattern):
    """`_fits`, on the name as it is or without the numbers of calls in it ("mlp@1.in.0" fits "*.mlp.in.0")."""
    fits = _fits(pattern)
    return lambda name: fits(name) or fits(re.sub(r"@\d+(?=\.|$)", "", name))


# ---------------------------------------------------------------- looking


def ls(args):
    """`porting ls`: names, dtypes, shapes; or modules and their calls."""
    with contextlib.closing(_open(args.capture)) as capture:
        fits = _fits_any_call(args.pattern)
        parameters = [f"param:{name}" for name in capture.parameters] if args.parameters else ()
        if args.parameters and not parameters:
            raise LayerNotFoundError(f"{args.capture}: no parameters are stored: {capture.parameters.why_absent or 'the model has none'}")
        names = parameters or capture
        rows = _module_rows(capture, fits) if args.modules else _tensor_rows(capture, names, fits)
        if not rows and args.pattern is not None:
            from ..naming import suggest

            known = list(capture.modules) if args.modules else list(names)
            near = suggest(args.pattern, known)
            near = near if isinstance(near, str) else ", ".join(near or ())
            hint = f"; did you mean {near}?" if near else ""
            raise LayerNotFoundError(f"{args.capture}: none of {len(known)} names matches {args.pattern}{hint}")
        if args.json:
            _print_json(rows)
        elif args.modules:
            _print_columns([(row["name"] or "(root)", row["class"], f"{row['calls']} calls") for row in rows])
        else:
            _print_columns([(row["name"], row["dtype"], _shape(row["shape"]), *_statistics(row)) for row in rows])
    return 0


def _statistics(row):
    """What is known of a tensor of which only statistics were kept."""
    if "rms" not in row:
        return ("",) * 4
    text = [f"{key} {row[key]:.6g}" if isinstance(row[key], float) else f"{key} {row[key]}" for key in ("rms", "min", "max")]
    return *text, ", ".join(f"{row[key]} {key}" for key in ("nan", "inf") if row[key])


def _tensor_rows(capture, names, fits):
    rows = []
    for name in names:
        if fits(name) and capture.level == "stats" and not name.startswith("param:"):
            facts = capture.stats(name).facts()
            rows.append({"name": name, **{key: _plain(facts[key]) for key in ("dtype", "shape", "rms", "min", "max", "nan", "inf")}})
        elif fits(name):
            array = capture[name]
            rows.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "bytes": int(array.nbytes)})
    return rows


def _module_rows(capture, fits):
    counts = {}
    for call in capture.call_list:
        counts[call.module] = counts.get(call.module, 0) + 1
    return [{"name": name, "class": info.class_name, "calls": counts.get(name, 0)}
            for name, info in capture.modules.items() if fits(name)]


def show(args):
    """`porting show`: the facts of one tensor or parameter, or the calls of one module."""
    with contextlib.closing(_open(args.capture)) as capture:
        try:
            if capture.level == "stats" and args.name in capture:
                _print_facts({"name": args.name, **capture.stats(args.name).facts()}, 9, args.json)
                return 0
            array = capture[args.name]
        except LayerNotFoundError:
            if _is_module(capture, args.name):
                _show_module(capture, args.name, args.json)
                return 0
            name = args.name.removeprefix("param:")
            if not capture.parameters.knows(name):
                raise
            _show_tensor(f"param:{name}", capture.parameters[name], args.count, args.json)
        else:
            _show_tensor(args.name, array, args.count, args.json)
    return 0


def _is_module(capture, name):
    try:
        return bool(capture.calls(name))
    except LayerNotFoundError:
        return False


def tensor_facts(array, count):
    """What `porting show` says of an array: dtype, shape, statistics in float64 over the finite values, first values."""
    facts = {"dtype": array.dtype.name, "shape": list(array.shape), "elements": int(array.size), "bytes": int(array.nbytes)}
    if array.size == 0:
        return facts
    if array.dtype.kind != "c" and array.dtype != bool:
        wide = array.astype(np.float64) if array.dtype.kind not in "iu" else array
        finite = np.isfinite(wide) if wide.dtype.kind == "f" else np.ones(wide.shape, bool)
        kept = wide[finite]
        facts.update(nan=int(np.isnan(wide).sum()) if wide.dtype.kind == "f" else 0)
        facts.update(inf=int(wide.size - kept.size) - facts["nan"], zeros=int(wide.size - np.count_nonzero(wide)))
        if kept.size:
            facts.update(min=kept.min().item(), max=kept.max().item(), mean=float(kept.mean(dtype=np.float64)),
                         std=float(kept.std(dtype=np.float64)), norm=float(np.sqrt(np.square(kept.astype(np.float64)).sum())))
    first = array.reshape(-1)[: max(count, 0)]
    facts["first"] = [_plain(v) for v in (first.astype(np.float64) if first.dtype.kind == "V" or first.dtype.name.startswith(
        ("bfloat", "float8")) else first).tolist()]
    return facts


def _plain(value):
    if isinstance(value, complex):
        return str(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _show_tensor(name, array, count, as_json):
    _print_facts({"name": name, **tensor_facts(array, count)}, 9 if array.dtype.name in ("float32", "float64") else 5, as_json)


def _print_facts(facts, digits, as_json):
    """The facts of one tensor; digits of its first values."""
    if as_json:
        _print_json({key: _plain(value) for key, value in facts.items()})
        return
    facts["shape"] = _shape(facts["shape"])
    if "first" in facts:
        facts["first"] = "  ".join(f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in facts["first"])
    _print_columns([(key, f"{value:.9g}" if isinstance(value, float) else str(value)) for key, value in facts.items()])


def _leaf_rows(capture, call, phase):
    for leaf in call.leaf_ids(phase):
        name = call.full_name(phase, leaf)
        facts = capture.stats(name).facts() if capture.level == "stats" else {"dtype": capture[name].dtype.name, "shape": list(capture[name].shape)}
        yield {"name": name, "parameter": _parameter_name(call, leaf) if phase == "in" else "", "dtype": facts["dtype"], "shape": facts["shape"]}


def _parameter_name(call, leaf):
    """The parameter of forward() that a leaf of the inputs belongs to, or ""."""
    names = call.input_names or {}
    place = leaf.split(".")[0]
    return names.get(place, names.get(int(place), "") if place.isdigit() else "") if isinstance(names, dict) else ""


def _show_module(capture, name, as_json):
    calls = capture.calls(name)
    module = calls[0].module
    info = capture.modules.get(module)
    facts = {"name": module, "class": info.class_name if info else None, "aliases": list(info.aliases) if info else [], "calls": []}
    for call in calls:
        facts["calls"].append({"call": call.number, "step": call.step, "inputs": list(_leaf_rows(capture, call, "in")),
                               "outputs": list(_leaf_rows(capture, call, "out"))})
    if as_json:
        _print_json(facts)
        return
    print(f"{module or '(root)'}: {facts['class'] or 'unknown class'}, {len(calls)} calls")
    if facts["aliases"]:
        print("also known as " + ", ".join(facts["aliases"]))
    for call in facts["calls"]:
        print(f"call {call['call']}, step {call['step']}")
        _print_columns([(f"  {row['name']}", row["parameter"], row["dtype"], _shape(row["shape"]))
                        for row in call["inputs"] + call["outputs"]])


def config(args):
    """`porting config`: kernels, providers, CPU features."""
    from ..providers import show_config

    facts = show_config()
    if args.json:
        _print_json(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            facts[key] = "; ".join(f"{name}: {reason}" for name, reason in value.items())
        elif isinstance(value, (list, tuple)):
            facts[key] = ", ".join(map(str, value)) or "none"
    _print_columns([(str(key), str(value)) for key, value in facts.items()])
    return 0


# ---------------------------------------------------------------- judging


@contextlib.contextmanager
def _progress(description):
    """A callable (done, total, name="") that draws a bar on stderr if that is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total, *_: bar.update(task, completed=done, total=total)


def _check_places(*paths):
    """Refuses files that could not be written, before the long work."""
    for path in paths:
        if path is not None:
            check_place(path)


def _finish(report, args, nothing):
    """Prints the report, writes the HTML file, and says what the exit code is."""
    if args.html is not None:
        report.to_html(args.html)
    if args.json:
        text = report.to_json()
        print(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, indent=1))
    else:
        print(report.to_text(all_rows=args.all))
        if args.html is not None:
            print(f"report: {os.path.abspath(args.html)}")
    if not any(row.status == "compared" for row in report.rows):
        print(f"porting: {nothing}", file=sys.stderr)
        return 2
    return 0 if report.passed else 1


def check(args):
    """`porting check`: every module's program in C on the captured inputs."""
    from ..check import check as run_check

    _check_places(args.html)
    with contextlib.closing(_open(args.capture)) as capture, _progress("checking") as progress:
        report = run_check(capture, tol=args.tol, profile=args.profile, provider=args.provider, include=args.include, level=args.level,
                           mode=args.mode, progress=progress, **_ledger(args))
    return _finish(report, args, f"{args.capture}: {report.why_failed}")


def compare(args):
    """`porting compare`: a port's tensors against a capture's."""
    from ..compare import compare as run_compare
    from ..interop.layout import read_words

    _check_places(args.html, args.propose)
    layout = read_words(args.layout, "--layout")
    with contextlib.closing(_open(args.reference)) as reference:
        if not os.path.exists(args.port):
            raise FileNotFoundError(2, "no such file or folder", args.port)
        with _warnings_as_sentences():
            report = run_compare(reference, args.port, tol=args.tol, mode=args.mode, provider=args.provider, names=args.names, layout=layout,
                                 level=args.level, require_coverage=args.require_coverage, **_ledger(args))
        if args.propose is not None:
            make_way(args.propose)
            with open(args.propose, "w", encoding="utf-8") as file:
                file.write(f"# Suggested by the values of {os.path.basename(args.port)}; look through it before you use it with --names.\n\n")
                file.write("\n\n".join(proposal.to_toml() for proposal in report.proposals) + "\n")
        return _finish(report, args, f"{args.port}: has no tensor in common with {args.reference}")


def _ledger(args):
    """What --ledger, --update, --loosen and --why say, as arguments."""
    if args.ledger is None and (args.update or args.loosen is not None):
        raise PortingError("--update and --loosen need --ledger FILE")
    if (args.loosen is None) != (args.why is None):
        raise PortingError("--loosen NAME and --why TEXT belong together: a module that may be worse needs a reason")
    _check_places(args.ledger)
    return {"ledger": args.ledger, "update_ledger": args.update, "loosen": None if args.loosen is None else {args.loosen: args.why}}


# ---------------------------------------------------------------- keeping


def export(args):
    """`porting export`: all tensors in one file of another format."""
    known = (".safetensors", ".npz", ".pt")
    if not args.file.endswith(known):
        raise PortingError(f"{args.file}: expected a name that ends with {', '.join(known)}")
    _check_places(args.file)
    if os.path.lexists(args.file) and not args.overwrite:
        raise FileExistsError(f"{args.file} exists already: give another name, or --overwrite")
    with contextlib.closing(_open(args.capture)) as capture:
        capture.save(args.file, overwrite=args.overwrite)
        print(f"{len(capture)} tensors -> {args.file}")
    return 0


def fixture(args):
    """`porting fixture`: one module call as a folder that can be sent to somebody."""
    from ..fixture import make_fixture

    with contextlib.closing(_open(args.capture)) as capture:
        facts = make_fixture(capture, args.module, args.output, call=args.call)
    if args.json:
        _print_json(facts)
        return 0
    ops = f"{facts['program']} ops" if facts["program"] is not None else f"no program ({facts['reason']})"
    print(f"{facts['module'] or '(root)'} call {facts['call']}: {facts['bytes']:,} bytes, {ops} -> {facts['path']}")
    return 0


def verify(args):
    """`porting verify`: every tensor against its checksum."""
    count = _core.verify(args.capture)
    if args.json:
        _print_json({"tensors": count})
    else:
        print(f"{args.capture}: {count} tensors read, all as their checksums say")
    return 0


def repair(args):
    """`porting repair`: an unfinished capture becomes a finished one."""
    facts = _core.repair(args.capture)
    if args.json:
        _print_json(dict(facts))
    else:
        print(f"{args.capture}: {facts['records']} records kept, {facts['dropped_bytes']} bytes dropped")
    return 0


def demo(args):
    """`porting demo`: two real models, captured and checked, three faults found."""
    from ..demo import main as run_demo

    return run_demo(args.output)


def graph(args):
    """`porting graph`: the recorded program of one module call."""
    from ..graph import graph as read_graph

    with contextlib.closing(_open(args.capture)) as capture:
        found = read_graph(capture, args.module, args.call)
    if args.json:
        _print_json(found.to_json())
    else:
        print(found.to_text())
    return 0


def describe(args):
    """`porting describe`: the facts of a captured model."""
    from ..describe import describe as tell
    from ..describe.checkpoint import is_checkpoint

    if is_checkpoint(args.source):
        found = tell(args.source)
    else:
        with contextlib.closing(_open(args.source)) as capture:
            found = tell(capture)
    if args.json:
        _print_json(found.to_json())
    else:
        print(found.to_text())
    return 0


def probe(args):
    """`porting probe`: what the installed torch computes here; 1 if a kernel does not give its bits."""
    from ..probe import probe as ask

    found = ask(args.again)
    if args.json:
        _print_json(found.to_json())
    else:
        print(found.to_text())
    return 1 if found.unfit else 0


def ops(args):
    """`porting ops`: what each kernel promises."""
    from .. import ops_table

    fits = _fits(args.pattern)
    rows = [row for row in ops_table.as_text() if fits(row[0])]
    if not rows:
        raise PortingError(f"no kernel's name matches {args.pattern}; `porting ops` lists them all")
    if args.json:
        _print_json([dict(zip(("op", "dtype", "variants", "label"), row)) for row in rows])
    else:
        _print_columns([("op", "dtype", "variants", "label"), *rows])
    return 0
