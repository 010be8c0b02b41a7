"""Kernels against torch eager, op by op: median CPU time of interleaved runs, one thread each, operands rotated through more memory than a cache keeps.

    python bench/ops.py [op ...] [--rows 512] [--cols 1536] [--repeats 15] [--capability avx512]

Prints milliseconds of both and torch's time divided by ours (above 1: ours is faster). Set OMP_WAIT_POLICY=PASSIVE before the start; torch runs
with one thread because the kernels do. Ours allocates its result per call, as torch does.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ml_dtypes  # noqa: E402
import torch  # noqa: E402

from porting import _core, providers  # noqa: E402

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


def measure(aten: str, sets: list[tuple[list, dict]], repeats: int, options: dict) -> tuple[float, float]:
    """Median seconds of torch's op and of ours."""
    overload = torch.ops
    for part in aten.split("."):
        overload = getattr(overload, part)
    ours = [([as_arguments(a) for a in arguments], {k: as_arguments(v) for k, v in keywords.items()}) for arguments, keywords in sets]
    times: tuple[list, list] = ([], [])
    for repeat in range(repeats):
        arguments, keywords = sets[repeat % len(sets)]
        begin = time.thread_time()
        overload(*arguments, **keywords)
        middle = time.thread_time()
        _core.call_op(aten, *ours[repeat % len(sets)], **options)
        times[0].append(middle - begin)
        times[1].append(time.thread_time() - middle)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--cols", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--capability", default=CAPABILITY[torch.backends.cpu.get_cpu_capability()])
    choice = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    provider = "torch" if providers.load_torch_provider() else "auto"
    options = dict(provider=provider, capability=choice.capability, num_threads=1, mkldnn=True)
    rows = [operands(choice.rows, choice.cols) for _ in range(ROTATED)]
    print(f"{'op':18} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}   ({choice.rows} x {choice.cols}, provider {provider}, {choice.capability})")
    for name, (aten, _, _) in rows[0].items():
        if choice.ops and name not in choice.ops and name.split()[0] not in choice.ops:
            continue
        torch_s, ours_s = measure(aten, [row[name][1:] for row in rows], choice.repeats, options)
        print(f"{name:18} {torch_s * 1e3:9.3f} {ours_s * 1e3:9.3f} {torch_s / ours_s:6.2f}", flush=True)


if __name__ == "__main__":
    main()
