"""All 2^32 float32 inputs of the unary kernels and of casts against torch: ``python tests/kernels/exhaustive.py [op ...] [--step N]``.

Prints the number of unequal results per op and exits 1 if there is one. With --step N every N-th input. NaN equals NaN.
"gelu mkldnn" is what oneDNN computes; ONEDNN_MAX_CPU_ISA=AVX2 chooses its other code. "to f16" is a cast; all 2^16 values of the
narrower types are cast back too ("from f16").
The full run takes minutes per op.
"""
import argparse
import sys
import time

import numpy as np
import torch
from test_kernels import ONEDNN, array, ours, reference

OPS = {"exp": {}, "log": {}, "sin": {}, "cos": {}, "tanh": {}, "erf": {}, "sqrt": {}, "rsqrt": {}, "reciprocal": {}, "sigmoid": {}, "silu": {}, "gelu": {},
       "gelu tanh": {"approximate": "tanh"}, "gelu mkldnn": {}, "relu": {}, "floor": {}, "ceil": {}, "round": {}, "abs": {}, "neg": {}, "square": {}, "sign": {}, "trunc": {}, "log1p": {}, "expm1": {},
       "hardswish": {}, "hardsigmoid": {}, "mish": {}, "softplus": {}, "elu": {}, "leaky_relu": {}}
NARROW = {"bf16": torch.bfloat16, "f16": torch.float16, "e5m2": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn}
CASTS = {f"to {name}": dtype for name, dtype in NARROW.items()}
BLOCK = 1 << 22


def call_of(op: str) -> tuple[str, dict]:
    """The ATen op behind a name of OPS or CASTS, and its arguments."""
    return ("aten._to_copy.default", {"dtype": CASTS[op]}) if op in CASTS else (f"aten.{op.split()[0]}.default", OPS[op])


def differing(expected: np.ndarray, actual: np.ndarray) -> int:
    """Elements with other bits, but for NaN in the place of NaN."""
    bits = {1: np.uint8, 2: np.uint16, 4: np.uint32}[actual.dtype.itemsize]
    differ = expected.view(bits) != actual.view(bits)
    return int((differ & ~(np.isnan(expected.astype(np.float32)) & np.isnan(actual.astype(np.float32)))).sum()) if differ.any() else 0


def unequal_from(name: str) -> int:
    """Values of a narrower type that widen to another float32 than torch's."""
    dtype = NARROW[name]
    count = 1 << (8 * dtype.itemsize)
    x = torch.from_numpy(np.arange(count, dtype=np.uint16 if dtype.itemsize == 2 else np.uint8)).view(dtype)
    keywords = {"dtype": torch.float32}
    return differing(array(reference("aten._to_copy.default", [x], keywords)), ours("aten._to_copy.default", [x], keywords))


def unequal(op: str, step: int = 1, start: int = 0) -> int:
    """Results that differ from torch's over the bit patterns start, start + step, ... below 2^32; prints the first input of each block that has one."""
    (aten, keywords), count = call_of(op), 0
    mkldnn = op.endswith("mkldnn")
    with torch.backends.mkldnn.flags(enabled=mkldnn):
        for first in range(start, 1 << 32, BLOCK * step):
            bits = np.arange(first, min(first + BLOCK * step, 1 << 32), step, dtype=np.uint64).astype(np.uint32)
            x = torch.from_numpy(bits.view(np.float32))
            expected, actual = array(reference(aten, [x], keywords)), ours(aten, [x], keywords, mkldnn=ONEDNN if mkldnn else False)
            wrong = differing(expected, actual)
            if wrong:
                at = next(i for i in range(len(bits)) if differing(expected[i : i + 1], actual[i : i + 1]))
                print(f"{op}: {wrong} unequal from 0x{first:08x} on, first {x[at].item()!r} (0x{bits[at]:08x}): torch {expected[at]!r}, C {actual[at]!r}", flush=True)
            count += wrong
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*")
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    known = [*OPS, *CASTS, *(f"from {name}" for name in NARROW)]
    unknown = [op for op in options.ops if op not in known]
    if unknown or options.step < 1:
        parser.error(f"no op is called {unknown[0]!r}; there are {', '.join(known)}" if unknown else "--step: expected a positive number")
    total = 0
    for op in options.ops or known:
        started = time.monotonic()
        wrong = unequal_from(op.removeprefix("from ")) if op.startswith("from ") else unequal(op, options.step)
        total += wrong
        print(f"{op:12} {wrong} unequal   {time.monotonic() - started:.0f} s", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
