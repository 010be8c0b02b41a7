"""C against torch eager: single ops, the MLP block, whole programs of SmolLM2. Median time of interleaved runs, the same number of threads,
operands rotated through more memory than a cache keeps.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python bench/ops.py [op ...] [--part ops mlp smollm2] [--rows 512] [--cols 1536] [--repeats 15] [--rounds 3]
                                                                  [--clock processor|wall]

Prints milliseconds of both and torch's time divided by ours (above 1: ours is faster): the median of the rounds, and their smallest and largest.
Programs must give the bits of the model's forward before they are timed. What is slower than its aim is named at the end, and the exit
code is then 1. Ours allocates its result per call, as torch does. Processor time is of all threads together, and others on the machine hardly
show in it; what several threads save shows on the wall's clock alone.
"""
import argparse
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ml_dtypes
import programs
import torch
from porting import _core, providers

CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}
ROTATED = 4  # sets of operands


def operands(rows: int, cols: int) -> dict[str, tuple[str, list, dict]]:
    """Per op the ATen name, a list of arguments with tensors of (rows, cols), and keywords."""
    def x():
        return torch.randn(rows, cols)

    unary = ("neg", "abs", "relu", "square", "floor", "sign", "exp", "log", "sin", "cos", "tanh", "erf", "sqrt", "rsqrt", "reciprocal", "sigmoid", "silu", "gelu")
    cases = {name: (f"aten.{name}.default", [x()], {}) for name in unary}
    cases["gelu tanh"] = ("aten.gelu.default", [x()], {"approximate": "tanh"})
    cases |= {name: (f"aten.{name}.Tensor", [x(), x()], {}) for name in ("add", "sub", "mul", "div", "lt", "eq")}
    cases |= {name: (f"aten.{name}.default", [x(), x()], {}) for name in ("maximum", "minimum")}
    cases["add row"] = ("aten.add.Tensor", [x(), torch.randn(cols)], {})
    cases["mul column"] = ("aten.mul.Tensor", [x(), torch.randn(rows, 1)], {})
    cases["mul number"] = ("aten.mul.Tensor", [x(), 0.125], {})
    cases["add transposed"] = ("aten.add.Tensor", [x(), torch.randn(cols, rows).t()], {})
    cases["where"] = ("aten.where.self", [x() > 0, x(), x()], {})
    cases["pow 2"] = ("aten.pow.Tensor_Scalar", [x(), 2], {})
    cases["pow 2.5"] = ("aten.pow.Tensor_Scalar", [x().abs(), 2.5], {})
    cases["clamp"] = ("aten.clamp.default", [x(), -1, 1], {})
    cases["f32 to bf16"] = ("aten._to_copy.default", [x()], {"dtype": torch.bfloat16})
    cases["bf16 to f32"] = ("aten._to_copy.default", [x().bfloat16()], {"dtype": torch.float32})
    cases["f32 to f16"] = ("aten._to_copy.default", [x()], {"dtype": torch.float16})
    cases["add bf16"] = ("aten.add.Tensor", [x().bfloat16(), x().bfloat16()], {})
    cases["clone transposed"] = ("aten.clone.default", [torch.randn(cols, rows).t()], {"memory_format": torch.contiguous_format})
    cases["sum last"] = ("aten.sum.dim_IntList", [x(), [1]], {})
    cases["sum first"] = ("aten.sum.dim_IntList", [x(), [0]], {})
    cases["mean last"] = ("aten.mean.dim", [x(), [1], True], {})
    cases["amax"] = ("aten.amax.default", [x(), [1]], {})
    cases["argmax"] = ("aten.argmax.default", [x(), 1], {})
    cases["var"] = ("aten.var.correction", [x(), [1]], {"correction": 1})
    cases["cumsum"] = ("aten.cumsum.default", [x(), 1], {})
    cases["softmax"] = ("aten._softmax.default", [x(), 1, False], {})
    cases["softmax first"] = ("aten._softmax.default", [x(), 0, False], {})
    cases["log_softmax"] = ("aten._log_softmax.default", [x(), 1, False], {})
    cases["layer_norm"] = ("aten.native_layer_norm.default", [x(), [cols], torch.randn(cols), torch.randn(cols), 1e-5], {})
    cases["layer_norm bf16"] = ("aten.native_layer_norm.default", [x().bfloat16(), [cols], torch.randn(cols).bfloat16(), torch.randn(cols).bfloat16(), 1e-5], {})
    cases["rms_norm"] = ("aten.rms_norm.default", [x(), [cols], torch.randn(cols), 1e-6], {})
    cases["embedding"] = ("aten.embedding.default", [x(), torch.randint(0, rows, (rows,))], {})
    return cases


def as_arguments(value):
    """torch's arguments as call_op takes them."""
    if isinstance(value, torch.Tensor):
        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, torch.dtype):
        return {"dtype": {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[value]}
    if isinstance(value, torch.memory_format):
        return {"memory_format": "contiguous"}
    return value


def prepare(aten: str, sets: list[tuple[list, dict]], options: dict) -> tuple:
    """Two functions of a number: torch's op and ours on that set of operands, each as something to call."""
    overload = torch.ops
    for part in aten.split("."):
        overload = getattr(overload, part)
    ours = [([as_arguments(a) for a in arguments], {k: as_arguments(v) for k, v in keywords.items()}) for arguments, keywords in sets]

    def theirs_at(k: int):
        arguments, keywords = sets[k % len(sets)]
        return lambda: overload(*arguments, **keywords)

    return theirs_at, lambda k: lambda: _core.call_op(aten, *ours[k % len(sets)], **options)


CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def measure(theirs, ours, repeats: int, clock) -> tuple[float, float]:
    """Median seconds of both sides on that clock, run in turn."""
    times: tuple[list, list] = ([], [])
    for repeat in range(repeats):
        for side, make in enumerate((theirs, ours) if repeat % 2 == 0 else (ours, theirs)):
            run = make(repeat)
            begin = clock()
            run()
            times[side if repeat % 2 == 0 else 1 - side].append(clock() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


class Table:
    """Prints a row per case, and remembers those that miss their aim."""

    def __init__(self, repeats: int, rounds: int, clock: str) -> None:
        self.repeats, self.rounds, self.clock = repeats, rounds, CLOCKS[clock]
        self.missed: list[str] = []

    def head(self, title: str) -> None:
        print(f"\n{title:34} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}   rounds")

    def row(self, name: str, theirs, ours, aim: float = 1.0) -> None:
        with torch.no_grad():
            times = [measure(theirs, ours, self.repeats, self.clock) for _ in range(self.rounds)]
        ratios = sorted(a / b for a, b in times)
        ratio = statistics.median(ratios)
        torch_s, ours_s = (statistics.median(t) for t in zip(*times))
        print(f"{name:34} {torch_s * 1e3:9.3f} {ours_s * 1e3:9.3f} {ratio:6.2f}   {ratios[0]:.2f} to {ratios[-1]:.2f}", flush=True)
        if ratio < aim:
            self.missed.append(f"{name}: {ratio:.2f}, aim {aim:.2f}")


def op_part(table: Table, choice: argparse.Namespace, options: dict) -> None:
    rows = [operands(choice.rows, choice.cols) for _ in range(ROTATED)]
    table.head(f"op, {choice.rows} x {choice.cols}")
    for name, (aten, _, _) in rows[0].items():
        if not choice.ops or name in choice.ops or name.split()[0] in choice.ops:
            table.row(name, *prepare(aten, [row[name][1:] for row in rows], options))


def program_part(table: Table, title: str, cases, aims: dict[str, float]) -> None:
    table.head(title)
    for name, case in cases:
        unequal = case.check()
        if unequal:
            table.missed.append(f"{name}: {unequal} elements differ from torch, not timed")
            continue
        table.row(name, case.torch, case.ours, aims.get(name, 1.0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*")
    parser.add_argument("--part", nargs="+", choices=("ops", "mlp", "smollm2"), default=("ops", "mlp"))
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--cols", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="processor")
    parser.add_argument("--threads", type=int, default=int(os.environ["OMP_NUM_THREADS"]))
    parser.add_argument("--capability", default=CAPABILITY[torch.backends.cpu.get_cpu_capability()])
    choice = parser.parse_args()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(0)
    provider = "torch" if providers.load_torch_provider() else "auto"
    options = {"provider": provider, "capability": choice.capability, "num_threads": choice.threads, "mkldnn": True}
    print(f"threads: torch {torch.get_num_threads()}, ours {choice.threads}; provider {provider}, {choice.capability}, "
          f"{choice.rounds} rounds of {choice.repeats} runs of each side, {choice.clock} time")  # fmt: skip
    table = Table(choice.repeats, choice.rounds, choice.clock)
    if "ops" in choice.part or choice.ops:
        op_part(table, choice, options)
    if "mlp" in choice.part and not choice.ops:
        aims = {name: 1.15 for name in ("batch 1", "batch 1024")}
        program_part(table, "MLP 512 -> 2048 -> 512, gelu (erf)", programs.mlp_cases(options), aims)
    if "smollm2" in choice.part and not choice.ops:
        program_part(table, "SmolLM2-135M, whole forward", programs.smollm2_cases(options), {})
    print("\nslower than the aim: " + ("; ".join(table.missed) or "none"))
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
