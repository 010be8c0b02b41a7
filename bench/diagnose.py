"""How often the diagnosis is right: faults seeded into models of many architectures by changing the torch code, captured, compared and explained.

    OMP_WAIT_POLICY=PASSIVE python bench/diagnose.py [--models minilm llama ...] [--faults softmax ...] [--levels module layer model] [--each N] [--verbose]

A fault is made with torch code that knows nothing of the generators (diagnose_faults.py), in one module of one model (diagnose_models.py). It is put to
the diagnosis at three levels: the `module` that is wrong, given its outputs; the whole `layer` around it, given the layer's outputs alone; and the
`model`: both runs captured, compared, and the cause of the first divergence taken.

right: an id that is right for the fault is named at the place where it was planted (alone, or among causes that cannot be told apart). wrong: only others
are. unknown: none is. A fault that leaves no trace in the numbers (a bias of 0 left out) is counted apart. Clean ports (other attention, float64) must be
blamed for nothing.
"""
import argparse
import contextlib
import copy
import json
import os
import random
import re
import shutil
import statistics
import tempfile
import time
import types
import warnings
from collections import Counter, defaultdict

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import diagnose_faults_architectures  # noqa: F401  (these add their faults to FAULTS)
import diagnose_faults_fresh
import diagnose_faults_kernels  # noqa: F401
import diagnose_faults_modules  # noqa: F401
import numpy as np
import porting
import torch
from diagnose_faults import FAULTS, list_sites
from diagnose_models import MODELS
from porting.port import flatten

NOT_NAMED = ("unknown", "not-run", "rounding", "none")
LEVELS = ("module", "layer", "model")


def layer_of(model, name):
    """The block around a module: the innermost enclosing element of a list of blocks that is not the module itself; None if there is none."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        parent = model.get_submodule(".".join(parts[: i - 1])) if i > 1 else model
        if parts[i - 1].isdigit() and isinstance(getattr(parent, "__class__", None), type) and len(list(model.get_submodule(".".join(parts[:i])).children())) > 1:
            return ".".join(parts[:i])
    return None


def choose(sites, seed):
    """One site, from the middle of the model rather than its ends."""
    numbered = [s for s in sites if re.search(r"\.1(\.|$)", s.module)] or sites
    return random.Random(seed).choice(numbered)


def outputs_of(model, inputs, names):
    """What the named modules returned in their first call."""
    found, handles = {}, []
    for name in names:
        def keep(module, args, output, name=name):
            found.setdefault(name, {path: np.array(a) for path, a in flatten(output).items()})

        handles.append(model.get_submodule(name).register_forward_hook(keep))
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def capture(model, inputs, path):
    with torch.no_grad(), porting.ActivationCollector(model, path):
        model(**inputs)
    return path


def trace(call, outputs):
    """The greatest relative rms difference of an output, in units of rounding of its dtype."""
    worst = 0.0
    for leaf, expected in call.outputs.items():
        if leaf in outputs and outputs[leaf].shape == expected.shape and expected.dtype.kind != "i":
            e, a = expected.astype(np.float64), outputs[leaf].astype(np.float64)
            with np.errstate(all="ignore"):
                d = np.where((e == a) | ~np.isfinite(e), 0, e - a)
                size = np.sqrt(np.mean(np.square(e[np.isfinite(e)]))) if np.isfinite(e).any() else 0
            unit = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}.get(expected.dtype.name, 2.0**-24)
            worst = max(worst, float(np.sqrt(np.mean(d * d))) / (unit * size) if size else 0.0) if np.isfinite(d).all() else np.inf
    return worst


def call_of(reference, name):
    calls = reference.calls(name) if name in reference.modules else []
    return calls[0] if calls else None


def explained(reference, name, outputs):
    """(diagnosis or None, seconds of processor time, trace of the fault) at one module, given its outputs alone."""
    call = call_of(reference, name)
    if call is None or not outputs.get(name):
        return None, 0.0, 0.0
    given = {leaf: a for leaf, a in outputs[name].items() if leaf in call.outputs and a.shape == call.outputs[leaf].shape}
    started = time.thread_time()
    try:
        said = porting.explain(call, given, capture=reference)
    except porting.PortingError as error:
        said = types.SimpleNamespace(module=name, cause="not-run", also=[], detail=str(error))
    return said, time.thread_time() - started, trace(call, given)


def verdict(said, fault, place=None):
    named = [said.cause, *(r.cause for r in said.also)]
    if said.cause in NOT_NAMED and not set(named) & set(fault.causes):
        return "unknown"
    if place is not None and said.module not in place and not any(p and said.module.startswith(p + ".") for p in (place[0],)):
        return "elsewhere"
    if not set(named) & set(fault.causes):
        return "wrong" if said.cause != "partly-wrong" else "unknown"
    return "right"


def margins(said, fault):
    """(what the named cause leaves, the least that a cause which is wrong leaves), in units of rounding; None where there is none."""
    ranked = getattr(said, "ranked", [])
    named = {said.detail, *(r.detail for r in said.also)}
    wrong = [r.residual for r in ranked if r.cause not in fault.causes and r.detail not in named and r.explained > 0]
    return (said.residual if said.cause in fault.causes and said.cause not in (*NOT_NAMED, "partly-wrong") else None), min(wrong, default=None)


@contextlib.contextmanager
def planted(model, fault, site):
    with fault.plant(model, site):
        yield


def log_row(log, name, fault, level, outcome, took, said):
    """One diagnosis as a line of JSON: every hypothesis that came near, with what it left."""
    near = [[r.cause, r.detail[:120], r.residual, r.rms, r.peak, r.explained, r.equal, r.coarse] for r in getattr(said, "ranked", []) if r.explained > 0.5]
    row = {"model": name, "fault": fault.name, "accepted": fault.causes, "level": level, "outcome": outcome, "seconds": took, "cause": said.cause, "detail": said.detail,
           "also": [[r.cause, r.detail] for r in said.also], "near": near[:80]}  # fmt: skip
    log.write(json.dumps(row) + "\n")
    log.flush()


def trials(name, model, inputs, reference, faults, levels, folder, rows, verbose, log=None):
    sites = list_sites(model, inputs)
    for fault in faults:
        possible = fault.sites(model, sites)
        if not possible:
            continue
        site = choose(possible, f"{name} {fault.name}")
        layer = layer_of(model, site.module)
        names = [n for n in dict.fromkeys((site.module, layer)) if n is not None]
        try:
            with planted(model, fault, site):
                outputs = outputs_of(model, inputs, names)
                if "model" in levels:
                    path = capture(model, inputs, os.path.join(folder, "port.capture"))
        except Exception as error:
            print(f"  cannot plant {fault.name} in {name} at {site.module}: {type(error).__name__}: {str(error)[:150]}", flush=True)
            continue
        for level in levels:
            if level == "model":
                started = time.thread_time()
                report = porting.compare(reference, path)
                took, said = time.thread_time() - started, report.cause
                if said is None:
                    size = trace(call_of(reference, site.module), outputs.get(site.module, {})) if call_of(reference, site.module) else 0.0
                    outcome = "no trace" if size < 40 else "missed"
                    said = types.SimpleNamespace(cause="-", detail=report.summary, also=[], module="-")
                else:
                    place = [site.module, layer, *(n for n, _ in model.named_modules() if site.module.startswith(n))]
                    outcome = verdict(said, fault, place)
                shutil.rmtree(path)
            else:
                at = site.module if level == "module" else layer
                if at is None or (level == "layer" and layer == site.module):
                    continue
                said, took, size = explained(reference, at, outputs)
                if said is None:
                    continue
                outcome = verdict(said, fault)
                if outcome != "right" and said.cause in ("none", "rounding") and size < 40:
                    outcome = "no trace"
            rows.append((name, fault.name, level, outcome, took, said.cause in fault.causes, *margins(said, fault)))
            if log is not None:
                log_row(log, name, fault, level, outcome, took, said)
            if verbose or outcome not in ("right", "no trace"):
                also = f" (also {', '.join(r.cause for r in said.also)})" if said.also else ""
                print(f"  {outcome}: {name}: {fault.name} at {site.module} #{site.number}, {level}: {said.cause}: {said.detail[:160]}{also}", flush=True)


# ---------------------------------------------------------------- clean ports


def clean_eager(model):
    model.set_attn_implementation("eager")


def clean_double(model):
    """Every linear layer in float64, rounded once."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = types.MethodType(
                lambda self, x: torch.nn.functional.linear(x.double(), self.weight.double(), None if self.bias is None else self.bias.double()).to(x.dtype), module
            )


def clean_blocks(model):
    """Every linear layer summed in blocks of 16, from the other end."""
    def forward(self, x):
        k = self.weight.shape[1]
        total = sum(x[..., i : i + 16].float() @ self.weight[:, i : i + 16].t().float() for i in reversed(range(0, k, 16)))
        return (total if self.bias is None else total + self.bias.float()).to(x.dtype)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = types.MethodType(forward, module)


def clean_norms(model):
    """Every layer norm written out."""
    def forward(self, x):
        wide = x.float()
        y = (wide - wide.mean(-1, keepdim=True)) / torch.sqrt(wide.var(-1, keepdim=True, unbiased=False) + self.eps) * self.weight.float()
        return (y if self.bias is None else y + self.bias.float()).to(x.dtype)

    for module in model.modules():
        if type(module) is torch.nn.LayerNorm:
            module.forward = types.MethodType(forward, module)


CLEAN = (clean_eager, clean_double, clean_blocks, clean_norms)


def clean_trials(name, model, inputs, reference, folder):
    """(number of clean ports, number blamed)."""
    count = blamed = 0
    for apply in CLEAN:
        port = copy.deepcopy(model)
        try:
            apply(port)
        except (ValueError, AttributeError):
            continue
        with tempfile.TemporaryDirectory(dir=folder) as work:
            report = porting.compare(reference, capture(port, inputs, os.path.join(work, "port.capture")))
        count += 1
        if not report.passed and (report.cause is None or report.cause.cause not in ("none", "rounding")):
            blamed += 1
            print(f"  blamed: {name}: {apply.__name__}: {report.cause or report.first_divergence or report.summary}", flush=True)
    return count, blamed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--faults", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--fresh", action="store_true", help="only the faults that were written last")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=LEVELS)
    parser.add_argument("--each", type=int, default=0, help="at most so many faults per model, drawn at random")
    parser.add_argument("--clean", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log", help="a file that gets a line of JSON per diagnosis: what each hypothesis left")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, cleans, blamed = [], 0, 0
    log = open(args.log, "a") if args.log else None
    for name in args.models:
        started = time.time()
        model, inputs = MODELS[name]()
        faults = [f for f in (diagnose_faults_fresh.FRESH if args.fresh else FAULTS) if any(part in f.name for part in args.faults)]
        if args.each and len(faults) > args.each:
            faults = random.Random(name).sample(faults, args.each)
        before = len(rows)
        with tempfile.TemporaryDirectory() as folder:
            with porting.open(capture(model, inputs, os.path.join(folder, "ref.capture"))) as reference:
                trials(name, model, inputs, reference, faults, args.levels, folder, rows, args.verbose, log)
                if args.clean:
                    count, bad = clean_trials(name, model, inputs, reference, folder)
                    cleans, blamed = cleans + count, blamed + bad
        print(f"{name:<14} {dict(Counter(r[3] for r in rows[before:]))} {time.time() - started:.0f} s", flush=True)
    summarise(rows, cleans, blamed)


def summarise(rows, cleans, blamed):
    for level in LEVELS:
        these = [r for r in rows if r[2] == level and r[3] != "no trace"]
        if not these:
            continue
        total, n = Counter(r[3] for r in these), len(these)
        seconds = [r[4] for r in these]
        print(f"{level:<7} {n} faults: {total['right']} named ({total['right'] / n:.1%}; {sum(r[5] for r in these) / n:.1%} first), {total['wrong']} wrongly, "
              f"{total['elsewhere']} elsewhere, {total['unknown']} unknown, {total['missed']} missed; {statistics.median(seconds):.2f} s of processor time (median), {max(seconds):.2f} s (worst)")  # fmt: skip
    right = sorted(r[6] for r in rows if r[3] == "right" and r[6] is not None)
    wrong = sorted(r[7] for r in rows if r[3] == "right" and r[7] is not None)
    if right and wrong:
        print(f"left by the right cause: {np.quantile(right, 0.5):.2g} units (median), {np.quantile(right, 0.99):.2g} (99 of 100), {right[-1]:.2g} (most); "
              f"left by the best wrong one: {wrong[0]:.2g} (least), {np.quantile(wrong, 0.01):.2g} (1 of 100), {np.quantile(wrong, 0.5):.2g} (median)")  # fmt: skip
    by_fault = defaultdict(Counter)
    for r in rows:
        by_fault[r[1]][r[3]] += 1
    worst = sorted(by_fault, key=lambda f: -(sum(by_fault[f].values()) - by_fault[f]["right"] - by_fault[f]["no trace"]))
    print("faults that are not always named: " + (", ".join(f"{f} {dict(by_fault[f])}" for f in worst[:20] if set(by_fault[f]) - {"right", "no trace"}) or "none"))
    traceless = sum(r[3] == "no trace" for r in rows)
    print(f"{traceless} leave no trace in the numbers; {blamed} of {cleans} clean ports blamed")


if __name__ == "__main__":
    main()
