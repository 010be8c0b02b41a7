"""What the C core makes of torch's own samples: every ATen op that torch.testing's operator database reaches, over all its arguments.

    python bench/opinfo.py [--ops add logsumexp ...] [--dtypes float32 bfloat16 ...] [--limit 60] [--only wrong] [--json out.json]
    python bench/opinfo.py --sizes 9 33 70 --layout transposed --special --threads 3      the same samples of other sizes and strides

Each sample is run by torch; every ATen op that this dispatches is run again by `_core.call_op` on the same operands, and compared. One process
for each operator of the database, so that a crash is a row. Per ATen overload the table counts calls that came out

exact   all bits (any NaN stands for any other)        near     within what the op's label allows (`porting ops`)
unkept  further off, but within torch.testing's tolerance for the dtype; in `--strict` runs the exit status is 1 for such and for wrong ones
wrong   otherwise                                      refused  an error was raised; `unknown`: there is no handler at all
foreign the sample says what a call alone cannot: as_strided of a view, which counts from the storage's begin
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import sys
import warnings
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import ml_dtypes
import numpy as np
import torch
from porting import _core, ops_table
from porting.providers import load_torch_provider
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip
FORMATS = {
    torch.contiguous_format: "contiguous", torch.preserve_format: "preserve", torch.channels_last: "channels_last",
    torch.channels_last_3d: "channels_last_3d",
}  # fmt: skip
RANDOM = ("rand", "normal", "bernoulli", "multinomial", "uniform", "exponential", "cauchy", "geometric", "poisson", "dropout", "random",
          "empty", "resize", "_gamma", "dirichlet", "log_normal", "rrelu_with_noise", "binomial")  # fmt: skip


CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
PROFILE = {"capability": CAPABILITY if CAPABILITY in ("avx2", "avx512") else "default", "mkldnn": torch.backends.mkldnn.is_available()}


# How many of an op's results torch defines: the rest is memory that it keeps for gradients.
DEFINED = {"_ctc_loss": 1, "mkldnn_rnn_layer": 3}


class Foreign(Exception):
    """An argument that no capture can hold: another dtype, a sparse tensor."""


def encode(a: Any) -> Any:
    if isinstance(a, torch.Tensor):
        if a.dtype not in NAMES or a.layout != torch.strided:
            raise Foreign(f"{a.dtype} {a.layout}")
        a = a.detach().resolve_conj().resolve_neg()
        return a.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if a.dtype == torch.bfloat16 else a.numpy()
    if isinstance(a, torch.dtype):
        if a not in NAMES:
            raise Foreign(str(a))
        return {"dtype": NAMES[a]}
    if isinstance(a, torch.device):
        return {"device": str(a)}
    if isinstance(a, torch.memory_format):
        return {"memory_format": FORMATS[a]}
    if isinstance(a, torch.layout):
        return {"layout": str(a).removeprefix("torch.")}
    return [encode(x) for x in a] if isinstance(a, (list, tuple)) else a


def decode(a: Any) -> torch.Tensor:
    a = np.asarray(a)
    return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype == ml_dtypes.bfloat16 else torch.from_numpy(a)


def keeps(label: ops_table.Label, got: torch.Tensor, want: torch.Tensor) -> bool | None:
    """Whether a result whose bits differ is within the op's label. None: what it allows depends on the operands (u s), or on both parts."""
    if label.kind != "BOUND" or not (want.dtype.is_floating_point or want.dtype.is_complex):
        return False
    if label.unit != "ulp" or want.dtype.is_complex:
        return None
    steps = {2: torch.int16, 4: torch.int32, 8: torch.int64}[want.element_size()]
    places = [torch.where((b := t.contiguous().view(steps).to(torch.int64)) < 0, torch.iinfo(steps).min - b, b) for t in (got, want)]
    allowed = ((places[0] - places[1]).abs() <= label.ulp) | ((got - want).abs() <= label.atol) | (got.isnan() & want.isnan())
    return bool(allowed.all())


def verdict(name: str, dtype: str, mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> tuple[str, str]:
    """dtype: of the first floating operand, or of a complex one, by which labels go; "": of each result."""
    if len(mine) != len(theirs):
        return "wrong", f"{len(mine)} results, torch has {len(theirs)}"
    worst = "exact", ""
    for k, (got, want) in enumerate(zip(mine, theirs)):
        if got.dtype != want.dtype or got.shape != want.shape:
            return "wrong", f"result {k}: {got.dtype}{list(got.shape)}, torch has {want.dtype}{list(want.shape)}"
        want = want.resolve_conj().resolve_neg()
        flat = (torch.view_as_real(got), torch.view_as_real(want)) if want.dtype.is_complex else (got, want)
        number = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        if want.dtype.is_floating_point or want.dtype.is_complex:
            bits = [t.contiguous().view(number[t.element_size()]) for t in flat]
            same = (bits[0] == bits[1]) | (flat[0].isnan() & flat[1].isnan())
        else:
            same = got == want
        if same.all():
            continue
        label = ops_table.promise(name, dtype or NAMES[want.dtype])
        kept = keeps(label, got, want)
        if not kept:
            try:
                torch.testing.assert_close(got, want, equal_nan=True)
            except AssertionError as error:
                return "wrong", f"result {k}: " + " ".join(str(error).split())[:160]
        if kept is False:
            worst = ("unkept", f"result {k}: {label}")
        elif worst[0] != "unkept":
            worst = "near", ""
    return worst


class Sweep(TorchDispatchMode):
    """Runs each dispatched op a second time in C."""

    def __init__(self, known: set[str], limit: int) -> None:
        super().__init__()
        self.known, self.limit = known, limit
        self.counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.examples: dict[str, dict[str, str]] = collections.defaultdict(dict)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(func)
        dtype = next((str(a.dtype) for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)), "")
        key = f"{name} {dtype.removeprefix('torch.')}"
        skip = not name.startswith("aten.") or any(r in name for r in RANDOM) or sum(self.counts[key].values()) >= self.limit
        if skip:
            return func(*args, **kwargs)
        with _disable_current_modes():
            before = tree_map(lambda a: copied(a) if isinstance(a, torch.Tensor) and a.layout == torch.strided and not a.is_conj() else a, (args, kwargs))
        result = func(*args, **kwargs)
        with _disable_current_modes():
            self.compare(key, name, before, args, kwargs, result)
        return result

    def compare(self, key: str, name: str, before: Any, args: Any, kwargs: Any, result: Any) -> None:
        theirs = [result] if isinstance(result, torch.Tensor) else list(result) if isinstance(result, (list, tuple)) else []
        if isinstance(result, (bool, int, float, complex)) and args and isinstance(args[0], torch.Tensor):
            theirs = [torch.tensor(result, dtype=args[0].dtype if "scalar" in name else None)]
        theirs = [t for x in theirs for t in (x if isinstance(x, (list, tuple)) else [x]) if isinstance(t, torch.Tensor)]
        try:
            if any(t.dtype not in NAMES or t.layout != torch.strided for t in theirs):
                return
            named = {k: encode(v) for k, v in before[1].items()}
            given = encode(list(before[0]))
        except (Foreign, TypeError, RuntimeError):
            return
        if name.startswith("aten.as_strided") and isinstance(args[0], torch.Tensor) and args[0].storage_offset() != 0:
            self.note(key, "foreign", f"of a view that begins at {args[0].storage_offset()}", before)
            return
        if name not in self.known:
            self.note(key, "unknown", "", before)
            return
        computed = [NAMES[a.dtype] for a in tree_leaves(before) if isinstance(a, torch.Tensor) and (a.dtype.is_floating_point or a.dtype.is_complex)]
        floating = "C64" if "C64" in computed else next(iter(computed), "")
        try:
            made = _core.call_op(name, given, named, **PROFILE)
            made = [decode(m) for m in (made if isinstance(made, tuple) else [made])]
            if isinstance(result, tuple) and any(r is None for r in result):  # a result that torch leaves out
                made = [m for m, r in zip(made, result) if r is not None]
            defined = slice(0, DEFINED.get(name.split(".")[1]))
            if "_polynomial_" in name:  # of NaN, above the first degree: memory that torch has not set
                unset = torch.broadcast_to(torch.as_tensor(before[0][0]).isnan() & (torch.as_tensor(before[0][1]) >= 2), theirs[0].shape)
                made, theirs = ([t[0].masked_fill(unset, torch.nan)] for t in (made, theirs))
            outcome, why = verdict(name, floating, made[defined], theirs[defined])
        except Exception as error:
            outcome, why = "refused", str(error)
        self.note(key, outcome, why, before)

    def note(self, key: str, outcome: str, why: str, before: Any) -> None:
        self.counts[key][outcome] += 1
        if outcome not in self.examples[key] or len(self.examples[key][outcome]) > 600:
            self.examples[key][outcome] = f"{describe(before[0])} {describe(before[1])}: {why}"


def copied(t: torch.Tensor) -> torch.Tensor:
    """The same view of a copy of its memory: a clone would close the gaps between elements."""
    with torch.no_grad():
        return torch.empty(0, dtype=t.dtype).set_(t.untyped_storage().clone(), t.storage_offset(), t.size(), t.stride())


def describe(a: Any) -> str:
    if isinstance(a, torch.Tensor):
        return f"{NAMES.get(a.dtype, a.dtype)}{list(a.shape)}/{list(a.stride())}"
    if isinstance(a, (list, tuple)):
        return "(" + ", ".join(describe(x) for x in a) + ")"
    if isinstance(a, dict):
        return "{" + ", ".join(f"{k}={describe(v)}" for k, v in a.items()) + "}"
    return str(a)


def laid_out(t: Any, layout: str, special: bool) -> Any:
    """The same tensor in another layout: `transposed` (last dimension first in memory), `stepped` (every second element of a row), `offset` (not at
    the begin of its memory). special: every eleventh element is subnormal, infinite, NaN or a zero."""
    if not isinstance(t, torch.Tensor) or t.layout != torch.strided or t.ndim == 0 or t.dtype not in NAMES:
        return t
    made = t.clone(memory_format=torch.contiguous_format)
    if special and made.dtype.is_floating_point:
        tiny = torch.finfo(made.dtype).smallest_normal
        values = torch.tensor([tiny / 4, -tiny / 8, torch.inf, torch.nan, -0.0, -torch.inf], dtype=torch.float64).to(made.dtype)
        flat = made.view(-1)
        flat[5::11] = values.repeat(flat[5::11].numel() // 6 + 1)[: flat[5::11].numel()]
    if layout == "transposed":
        return made.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "stepped":
        return torch.stack((made, torch.zeros_like(made)), -1).flatten(-2)[..., ::2]
    return torch.cat((made.new_zeros(3), made.view(-1)))[3:].view(made.shape) if layout == "offset" else made


def sweep_one(info, dtypes: list[torch.dtype], options: argparse.Namespace, connection) -> None:
    limit = options.limit
    torch.set_num_threads(options.threads)
    PROFILE["num_threads"] = options.threads
    if options.sizes:
        for module in [m for name, m in sys.modules.items() if name.startswith("torch.testing._internal") and hasattr(m, "S")]:
            module.S, module.M, module.L = options.sizes  # each has names of its own for them
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    load_torch_provider()
    sweep = Sweep(set(_core.known_ops()), limit)
    for dtype in dtypes:
        if dtype not in info.supported_dtypes("cpu"):
            continue
        torch.manual_seed(0)
        try:
            for n, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
                if n >= limit:
                    break
                if options.layout != "as-is" or options.special:
                    sample = sample.transform(lambda t: laid_out(t, options.layout, options.special))
                for form in (info.op, info.inplace_variant):
                    if form is None:
                        continue
                    given = sample.input.clone() if isinstance(sample.input, torch.Tensor) and form is info.inplace_variant else sample.input
                    try:
                        with torch.no_grad(), sweep:
                            form(given, *sample.args, **sample.kwargs)
                    except Exception:  # torch refuses this sample in this form
                        continue
        except Exception:  # the samples cannot be made here
            continue
    connection.send(({k: dict(v) for k, v in sweep.counts.items()}, {k: dict(v) for k, v in sweep.examples.items()}))
    connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ops", nargs="*", help="names in torch's operator database; default: all")
    parser.add_argument("--dtypes", nargs="*", default=["float32"])
    parser.add_argument("--limit", type=int, default=60, help="samples of an operator, and calls of an overload within it")
    parser.add_argument("--sizes", type=int, nargs=3, help="of the samples' dimensions, instead of 5, 10 and 20")
    parser.add_argument("--layout", choices=("as-is", "transposed", "stepped", "offset"), default="as-is", help="of the samples' tensors")
    parser.add_argument("--special", action="store_true", help="put subnormals, infinities, NaN and zeros of both signs into them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="for one operator")
    parser.add_argument("--only", choices=("wrong", "unkept", "refused", "unknown", "near"), help="rows with such calls alone")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a call was wrong, broke its label or ended the process")
    parser.add_argument("--json", help="write the counts and examples there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    examples: dict[str, dict[str, str]] = collections.defaultdict(dict)
    context = multiprocessing.get_context("fork")
    ended = 0
    for info in op_db:
        if options.ops and info.name not in options.ops:
            continue
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=sweep_one, args=(info, [getattr(torch, d) for d in options.dtypes], options, send))
        process.start()
        send.close()
        try:
            if not receive.poll(options.seconds):
                raise TimeoutError
            got, seen = receive.recv()
        except (EOFError, TimeoutError) as error:
            process.kill()
            process.join()
            ended += isinstance(error, EOFError)
            print(f"{info.name}: {'out of time' if isinstance(error, TimeoutError) else f'ended with code {process.exitcode}'}", flush=True)
            continue
        process.join()
        for key, row in got.items():
            counts[key].update(row)
            for outcome, text in seen.get(key, {}).items():
                if outcome in ("wrong", "unkept") and outcome not in examples[key]:  # a sweep of all takes long: at once
                    print(f"{outcome}: {key}: [{info.name}] {text}"[:300], flush=True)
                examples[key].setdefault(outcome, f"[{info.name}] {text}")
    print_table(counts, examples, options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"counts": counts, "examples": examples}, file, indent=1)
    return int(options.strict and (ended > 0 or any(row.get("wrong") or row.get("unkept") for row in counts.values())))


def print_table(counts, examples, options) -> None:
    outcomes = ("exact", "near", "unkept", "wrong", "refused", "unknown", "foreign")
    print(f"{'op':60s} {' '.join(f'{o:>7s}' for o in outcomes)}")
    for key in sorted(counts):
        row = counts[key]
        if options.only and not row.get(options.only):
            continue
        print(f"{key:60s} {' '.join(f'{row.get(o, 0):7d}' for o in outcomes)}")
        for outcome in ("unkept", "wrong", "refused"):
            if row.get(outcome):
                print(f"      {outcome}: {examples[key].get(outcome, '')[:300]}")
    total = collections.Counter()
    for row in counts.values():
        total.update(row)
    print(f"\n{len(counts)} pairs of op and dtype, {sum(total.values())} calls: " + ", ".join(f"{total[o]} {o}" for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
