"""C against torch eager: single ops, the MLP block, whole programs of SmolLM2, with the same number of threads.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python bench/ops.py [op ...] [--part ops mlp smollm2 fusion] [--rows 512] [--cols 1536] [--repeats 8] [--rounds 9]
                                                                  [--clock processor|wall]

Both sides are called in turn (torch, ours, ours, torch; then the other way round), each call on the next of several sets of operands, which together take more
memory than a core's cache keeps. A reading is torch's time divided by ours, of each side the lower quartile of a round: what else the machine does only adds to a
time. The rounds go over all rows, on fresh operands each: so a burst of other work falls on one reading of some rows. Printed are milliseconds of both, the median of
a row's readings (above 1: ours is faster) and their quartiles. In part fusion ours op by op stands in the place of torch.
Programs must give the bits of the model's forward before they are timed. A row whose upper quartile is below its aim is named at the end as slower, and the exit
code is then 1; one whose median alone is below is named apart. Ours allocates its result per call,
as torch does, and lays it out as torch does. Processor time is of all threads together,
and others on the machine hardly show in it; what several threads save shows on the wall's clock alone.
"""
import argparse
import gc
import os
import random
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ml_dtypes
import programs
import torch
from porting import _core, providers

NAMES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16", torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8",
         torch.bool: "bool"}
CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}
ROTATED = 5  # sets of operands; odd, so that each side comes to all of them


def operands(rows: int, cols: int) -> dict:
    """Per op the ATen name and a function that makes its operands: a list of arguments with tensors of (rows, cols), and keywords."""
    bf16, f16, f32 = torch.bfloat16, torch.float16, torch.float32
    numbers = torch.randn(2 * rows * cols)

    def x(dtype: torch.dtype = f32, shape: tuple[int, int] = (rows, cols)) -> torch.Tensor:
        begin = random.randrange(rows * cols)
        return numbers[begin : begin + rows * cols].reshape(shape).to(dtype, copy=True)

    def columns(dtype: torch.dtype = f32) -> torch.Tensor:
        return torch.randn(cols).to(dtype)

    unary = ("neg", "abs", "relu", "square", "floor", "sign", "exp", "log", "sin", "cos", "tanh", "erf", "sqrt", "rsqrt", "reciprocal", "sigmoid", "silu", "gelu")
    cases = {name: (f"aten.{name}.default", lambda: ([x()], {})) for name in unary}
    cases["gelu tanh"] = ("aten.gelu.default", lambda: ([x()], {"approximate": "tanh"}))
    cases |= {name: (f"aten.{name}.Tensor", lambda: ([x(), x()], {})) for name in ("add", "sub", "mul", "div", "lt", "eq")}
    cases |= {name: (f"aten.{name}.default", lambda: ([x(), x()], {})) for name in ("maximum", "minimum")}
    cases["add row"] = ("aten.add.Tensor", lambda: ([x(), columns()], {}))
    cases["mul column"] = ("aten.mul.Tensor", lambda: ([x(), torch.randn(rows, 1)], {}))
    cases["mul number"] = ("aten.mul.Tensor", lambda: ([x(), 0.125], {}))
    cases["add transposed"] = ("aten.add.Tensor", lambda: ([x(), x(shape=(cols, rows)).t()], {}))
    cases["where"] = ("aten.where.self", lambda: ([x() > 0, x(), x()], {}))
    cases["pow 2"] = ("aten.pow.Tensor_Scalar", lambda: ([x(), 2], {}))
    cases["pow 2.5"] = ("aten.pow.Tensor_Scalar", lambda: ([x().abs(), 2.5], {}))
    cases["clamp"] = ("aten.clamp.default", lambda: ([x(), -1, 1], {}))
    for source, target in ((f32, bf16), (bf16, f32), (f32, f16), (f16, f32)):
        cases[f"{NAMES[source]} to {NAMES[target]}"] = ("aten._to_copy.default", lambda source=source, target=target: ([x(source)], {"dtype": target}))
    cases["clone transposed"] = ("aten.clone.default", lambda: ([x(shape=(cols, rows)).t()], {"memory_format": torch.contiguous_format}))
    cases["sum last"] = ("aten.sum.dim_IntList", lambda: ([x(), [1]], {}))
    cases["sum first"] = ("aten.sum.dim_IntList", lambda: ([x(), [0]], {}))
    cases["mean last"] = ("aten.mean.dim", lambda: ([x(), [1], True], {}))
    cases["amax"] = ("aten.amax.default", lambda: ([x(), [1]], {}))
    cases["argmax"] = ("aten.argmax.default", lambda: ([x(), 1], {}))
    cases["var"] = ("aten.var.correction", lambda: ([x(), [1]], {"correction": 1}))
    cases["std all"] = ("aten.std.correction", lambda: ([x(), None], {"correction": 1}))
    cases["cumsum"] = ("aten.cumsum.default", lambda: ([x(), 1], {}))
    cases["amax first"] = ("aten.amax.default", lambda: ([x(), [0]], {}))
    cases["amax all"] = ("aten.amax.default", lambda: ([x(), []], {}))
    for along, dims in (("last", [1]), ("first", [0])):
        cases[f"amax f64 {along}"] = ("aten.amax.default", lambda dims=dims: ([x(torch.float64), dims], {}))
    cases["argmax first"] = ("aten.argmax.default", lambda: ([x(), 0], {}))
    cases["prod first"] = ("aten.prod.dim_int", lambda: ([x(), 0], {}))
    cases["sum i64"] = ("aten.sum.default", lambda: ([torch.randint(0, 9, (rows, cols))], {}))
    cases["sum bool"] = ("aten.sum.default", lambda: ([x() > 0], {}))
    for name in ("addcmul", "addcdiv"):
        cases[name] = (f"aten.{name}.default", lambda: ([x(), x(), x()], {}))
    cases["lerp"] = ("aten.lerp.Scalar", lambda: ([x(), x(), 0.3], {}))
    cases["lerp tensor"] = ("aten.lerp.Tensor", lambda: ([x(), x(), x()], {}))
    for name, arguments in (("threshold", (0.1, 0.5)), ("hardshrink", ()), ("softshrink", ()), ("elu", ()), ("nan_to_num", ()), ("isnan", ()), ("isinf", ())):
        cases[name] = (f"aten.{name}.default", lambda arguments=arguments: ([x(), *arguments], {}))
    cases["prelu"] = ("aten._prelu_kernel.default", lambda: ([x(), columns()], {}))
    cases["smooth_l1"] = ("aten.smooth_l1_loss.default", lambda: ([x(), x()], {}))
    cases["pow tensors"] = ("aten.pow.Tensor_Tensor", lambda: ([x().abs(), x()], {}))
    for name in ("remainder", "fmod"):
        cases[name] = (f"aten.{name}.Tensor", lambda: ([x(), x()], {}))
    cases["add alpha"] = ("aten.add.Tensor", lambda: ([x(), x()], {"alpha": 0.3}))
    cases["mul complex"] = ("aten.mul.Tensor", lambda: ([torch.complex(x(), x()), torch.complex(x(), x())], {}))
    cases["mul f64"] = ("aten.mul.Tensor", lambda: ([x(torch.float64), x(torch.float64)], {}))
    cases["add i32"] = ("aten.add.Tensor", lambda: ([x().to(torch.int32), x().to(torch.int32)], {}))
    cases["add u8"] = ("aten.add.Tensor", lambda: ([torch.randint(0, 99, (rows, cols), dtype=torch.uint8) for _ in range(2)], {}))
    cases["where bf16"] = ("aten.where.self", lambda: ([x() > 0, x(bf16), x(bf16)], {}))
    for source, target in ((torch.int64, f32), (torch.bool, f32), (torch.int32, bf16), (f32, torch.float64), (torch.float64, f32), (torch.uint8, f32)):
        title = f"{NAMES[source]} to {NAMES[target]}"
        cases[title] = ("aten._to_copy.default", lambda source=source, target=target: ([x().abs().to(source)], {"dtype": target}))
    for name in ("lt", "add", "mul", "bitwise_and"):
        cases[f"{name} i64"] = (f"aten.{name}.Tensor", lambda: ([torch.randint(0, 9, (rows, cols)), torch.randint(0, 9, (rows, cols))], {}))
    for name in ("eq.Tensor", "logical_and.default", "bitwise_or.Tensor"):
        cases[f"{name.split('.')[0]} bool"] = (f"aten.{name}", lambda: ([x() > 0, x() > 0], {}))
    for name in ("logical_not", "bitwise_not"):
        cases[f"{name} bool"] = (f"aten.{name}.default", lambda: ([x() > 0], {}))
    cases["where i64"] = ("aten.where.self", lambda: ([x() > 0, torch.randint(0, 9, (rows, cols)), torch.randint(0, 9, (rows, cols))], {}))
    cases["where bool"] = ("aten.where.self", lambda: ([x() > 0, x() > 0, x() > 0], {}))
    cases["masked_fill row"] = ("aten.masked_fill.Scalar", lambda: ([x(), columns() > 0, -1e9], {}))
    cases["nansum"] = ("aten.nansum.default", lambda: ([x(), [1]], {}))
    cases["any"] = ("aten.any.dim", lambda: ([x() > 9, 1], {}))
    for along, dims in (("last", [1]), ("first", [0])):
        cases[f"vector_norm {along}"] = ("aten.linalg_vector_norm.default", lambda dims=dims: ([x(), 2, dims], {}))
    cases["scatter_add"] = ("aten.scatter_add.default", lambda: ([x(), 1, torch.randint(0, cols, (rows, cols)), x()], {}))
    cases["index_put"] = ("aten.index_put.default", lambda: ([x(), [torch.randint(0, rows, (rows,))], x()], {}))
    cases["index_put mask"] = ("aten.index_put.default", lambda: ([x(), [x() > 0], torch.tensor(0.5)], {}))
    cases["gather"] = ("aten.gather.default", lambda: ([x(), 1, torch.randint(0, cols, (rows, cols))], {}))
    cases["index two"] = ("aten.index.Tensor", lambda: ([x(), [torch.randint(0, size, (rows * cols // 4,)) for size in (rows, cols)]], {}))
    cases["index mask"] = ("aten.index.Tensor", lambda: ([x(), [x() > 0]], {}))
    cases["take"] = ("aten.take.default", lambda: ([x(), torch.randint(0, rows * cols, (rows, cols))], {}))
    cases["nll_loss"] = ("aten.nll_loss_forward.default", lambda: ([x(), torch.randint(0, cols, (rows,)), None, 1, -100], {}))
    for name in ("cumprod", "cummax", "cummin", "logcumsumexp"):
        cases[name] = (f"aten.{name}.default", lambda: ([x(), 1], {}))
    cases["fft"] = ("aten._fft_r2c.default", lambda: ([x(), [1], 0, True], {}))
    for name in ("leaky_relu", "hardswish", "softplus", "mish", "log1p"):
        cases[name] = (f"aten.{name}.default", lambda: ([x().abs()], {}))
    cases["full_like"] = ("aten.full_like.default", lambda: ([x(), 0.5], {}))
    cases["index_add"] = ("aten.index_add.default", lambda: ([x(), 0, torch.randint(0, rows, (rows,)), x()], {}))
    for layout, suffix in ((torch.contiguous_format, ""), (torch.channels_last, " channels-last")):

        def frames(layout: torch.memory_format = layout) -> torch.Tensor:
            return x(shape=(4, 64, 64, rows * cols // (4 * 64 * 64))).contiguous(memory_format=layout)

        def channels(frames=frames) -> list:
            return [frames(), *(torch.rand(64) for _ in range(4))]

        cases[f"max_pool{suffix}"] = ("aten.max_pool2d_with_indices.default", lambda frames=frames: ([frames(), [3, 3], [2, 2], [1, 1]], {}))
        cases[f"avg_pool{suffix}"] = ("aten.avg_pool2d.default", lambda frames=frames: ([frames(), [2, 2], [2, 2]], {}))
        for name in ("bilinear", "bicubic"):
            cases[f"{name}{suffix}"] = (f"aten.upsample_{name}2d.default", lambda frames=frames: ([frames(), [96, 96], False], {}))
        cases[f"nearest{suffix}"] = ("aten.upsample_nearest2d.default", lambda frames=frames: ([frames(), [96, 96]], {}))
        cases[f"adaptive_avg_pool{suffix}"] = ("aten._adaptive_avg_pool2d.default", lambda frames=frames: ([frames(), [7, 7]], {}))
        cases[f"adaptive_avg_pool to one{suffix}"] = ("aten._adaptive_avg_pool2d.default", lambda frames=frames: ([frames(), [1, 1]], {}))
        for mode, name in enumerate(("linear", "nearest", "cubic")):
            cases[f"grid_sample {name}{suffix}"] = (
                "aten.grid_sampler_2d.default",
                lambda frames=frames, mode=mode: ([frames(), torch.rand(4, 32, 32, 2) * 2.2 - 1.1, mode, 0, False], {}),
            )
        cases[f"group_norm{suffix}"] = (
            "aten.native_group_norm.default",
            lambda channels=channels: ([*channels()[:3], 4, 64, rows * cols // (4 * 64), 8, 1e-5], {}),
        )
        cases[f"batch_norm{suffix}"] = (
            "aten._native_batch_norm_legit_no_training.default",
            lambda channels=channels: ([*channels(), 0.1, 1e-5], {}),
        )
    cases["bilinear large"] = ("aten.upsample_bilinear2d.default", lambda: ([x(shape=(4, 3, 256, rows * cols // (12 * 256))), [384, 384], False], {}))
    cases["linear1d"] = ("aten.upsample_linear1d.default", lambda: ([x(shape=(4, rows // 4, cols)), [2 * cols], False], {}))
    cases["trilinear"] = ("aten.upsample_trilinear3d.default", lambda: ([x(shape=(4, 16, 16, 16, rows * cols // (4 * 16**3))), [24, 24, 72], False], {}))
    cases["softmax first"] = ("aten._softmax.default", lambda: ([x(), 0, False], {}))
    cases["embedding"] = ("aten.embedding.default", lambda: ([x(), torch.randint(0, rows, (rows,))], {}))
    for dtype in (f32, bf16, f16):
        suffix = "" if dtype == f32 else f" {NAMES[dtype]}"
        cases[f"softmax{suffix}"] = ("aten._softmax.default", lambda dtype=dtype: ([x(dtype), 1, False], {}))
        cases[f"log_softmax{suffix}"] = ("aten._log_softmax.default", lambda dtype=dtype: ([x(dtype), 1, False], {}))
        cases[f"layer_norm{suffix}"] = ("aten.native_layer_norm.default", lambda dtype=dtype: ([x(dtype), [cols], columns(dtype), columns(dtype), 1e-5], {}))
        cases[f"rms_norm{suffix}"] = ("aten.rms_norm.default", lambda dtype=dtype: ([x(dtype), [cols], columns(dtype), 1e-6], {}))
        if dtype == f32:
            continue
        for name in ("add", "mul"):
            cases[f"{name}{suffix}"] = (f"aten.{name}.Tensor", lambda dtype=dtype: ([x(dtype), x(dtype)], {}))
        cases[f"mul row{suffix}"] = ("aten.mul.Tensor", lambda dtype=dtype: ([x(dtype), columns(dtype)], {}))
        cases[f"mul number{suffix}"] = ("aten.mul.Tensor", lambda dtype=dtype: ([x(dtype), 0.125], {}))
        for name in ("neg", "relu", "sigmoid", "silu", "gelu", "tanh"):
            cases[f"{name}{suffix}"] = (f"aten.{name}.default", lambda dtype=dtype: ([x(dtype)], {}))
        cases[f"gelu tanh{suffix}"] = ("aten.gelu.default", lambda dtype=dtype: ([x(dtype)], {"approximate": "tanh"}))
        cases[f"mean last{suffix}"] = ("aten.mean.dim", lambda dtype=dtype: ([x(dtype), [1], True], {}))
    return cases


def as_arguments(value):
    """torch's arguments as call_op takes them."""
    if isinstance(value, torch.Tensor):
        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, list) and any(isinstance(item, torch.Tensor) for item in value):
        return [as_arguments(item) for item in value]
    if isinstance(value, torch.dtype):
        return {"dtype": NAMES[value].upper()}
    if isinstance(value, torch.memory_format):
        return {"memory_format": "contiguous"}
    return value


def sides_of(aten: str, sets: list[tuple[list, dict]], options: dict) -> tuple:
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


def seconds_of(run, clock) -> float:
    begin = clock()
    run()
    return clock() - begin


class Row:
    """One case: `make` gives its two sides, as sides_of does; `readings` are pairs of seconds, of torch and ours, one for each round."""

    def __init__(self, name: str, make, aim: float = 1.0) -> None:
        self.name, self.make, self.aim = name, make, aim
        self.readings: list[tuple[float, float]] = []

    def read(self, repeats: int, clock) -> None:
        """Adds a reading of 2 * repeats calls of each side; two more of each, which come first, do not count."""
        sides = self.make()
        times: tuple[list, list] = ([], [])
        for call in range(4 * (repeats + 1)):
            side = (0, 1, 1, 0, 1, 0, 0, 1)[call % 8]
            taken = seconds_of(sides[side](call), clock)
            if call >= 4:
                times[side].append(taken)
        self.readings.append(tuple(statistics.quantiles(of_side, n=4, method="inclusive")[0] for of_side in times))

    def quartiles(self) -> list[float]:
        """Of torch's time divided by ours."""
        ratios = [theirs / ours for theirs, ours in self.readings]
        return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3

    def __str__(self) -> str:
        theirs, ours = (statistics.median(times) * 1e3 for times in zip(*self.readings))
        low, median, high = self.quartiles()
        return f"{self.name:34} {theirs:9.3f} {ours:9.3f} {median:6.2f}   {low:.2f} to {high:.2f}"


def read_part(title: str, rows: list[Row], choice: argparse.Namespace, sides: tuple[str, str]) -> list[Row]:
    """Reads all rows in rounds and prints them."""
    gc.disable()
    for _ in range(choice.rounds):
        for row in rows:
            with torch.no_grad():
                row.read(choice.repeats, CLOCKS[choice.clock])
            gc.collect()
    gc.enable()
    print(f"\n{title:34} {sides[0]:>9} {sides[1]:>9} {'ratio':>6}   quartiles")
    for row in rows:
        print(row)
    return rows


def op_part(choice: argparse.Namespace, options: dict) -> list[Row]:
    rows = []
    for name, (aten, make) in operands(choice.rows, choice.cols).items():
        if not choice.ops or name in choice.ops or name.split()[0] in choice.ops:
            rows.append(Row(name, lambda aten=aten, make=make: sides_of(aten, [make() for _ in range(ROTATED)], options)))
    return read_part(f"op, {choice.rows} x {choice.cols}", rows, choice, ("torch ms", "ours ms"))


def program_part(title: str, cases, aims: dict[str, float], choice: argparse.Namespace, fusion: bool = False) -> tuple[list[Row], list[str]]:
    """The rows, and what was not timed because its bits are others. With `fusion` of ours op by op and fused, instead of torch and ours."""
    rows, wrong = [], []
    for name, case in cases:
        unequal = case.check()
        if unequal:
            wrong.append(f"{name}: {unequal} elements differ from torch, not timed")
        else:
            rows.append(Row(name, lambda case=case: (case.op_by_op if fusion else case.torch, case.ours), aims.get(name, 1.0)))
    return read_part(title, rows, choice, ("single ms", "fused ms") if fusion else ("torch ms", "ours ms")), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*")
    parser.add_argument("--part", nargs="+", choices=("ops", "mlp", "smollm2", "fusion"), default=("ops", "mlp"))
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--cols", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="processor")
    parser.add_argument("--threads", type=int, default=int(os.environ["OMP_NUM_THREADS"]))
    parser.add_argument("--capability", default=CAPABILITY[torch.backends.cpu.get_cpu_capability()])
    choice = parser.parse_args()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(0)
    random.seed(0)
    provider = "torch" if providers.load_torch_provider() else "auto"
    options = {"provider": provider, "capability": choice.capability, "num_threads": choice.threads, "mkldnn": True}
    print(f"threads: torch {torch.get_num_threads()}, ours {choice.threads}; provider {provider}, {choice.capability}, "
          f"{choice.rounds} rounds of {2 * choice.repeats} calls of each side, {choice.clock} time")  # fmt: skip
    rows: list[Row] = []
    wrong: list[str] = []
    if "ops" in choice.part or choice.ops:
        rows += op_part(choice, options)
    if "mlp" in choice.part and not choice.ops:
        aims = {name: 1.15 for name in ("batch 1", "batch 1024")}
        made, differing = program_part("MLP 512 -> 2048 -> 512, gelu (erf)", programs.mlp_cases(options), aims, choice)
        rows, wrong = rows + made, wrong + differing
    if "smollm2" in choice.part and not choice.ops:
        made, differing = program_part("SmolLM2-135M, whole forward", programs.smollm2_cases(options), {}, choice)
        rows, wrong = rows + made, wrong + differing
    if "fusion" in choice.part and not choice.ops:
        made, differing = program_part("C op by op, and with fusions", programs.fusion_cases(options), {}, choice, fusion=True)
        rows, wrong = rows + made, wrong + differing
    slower = [row for row in rows if row.quartiles()[2] < row.aim]
    undecided = [row for row in rows if row.quartiles()[1] < row.aim <= row.quartiles()[2]]
    print("\nslower than the aim: " + ("; ".join(wrong + [f"{row.name}: {row.quartiles()[1]:.2f}, aim {row.aim:.2f}" for row in slower]) or "none"))
    print("below the aim by less than the spread: " + ("; ".join(f"{row.name}: {row.quartiles()[1]:.2f}" for row in undecided) or "none"))
    return 1 if slower or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
