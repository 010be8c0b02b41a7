"""All 2^32 float32 inputs of the unary kernels against torch: ``python tests/kernels/exhaustive.py [op ...] [--step N]``.

Prints the number of unequal results per op and exits 1 if there is one. With --step N every N-th input. NaN equals NaN.
"gelu mkldnn" is what oneDNN computes; ONEDNN_MAX_CPU_ISA=AVX2 chooses its other code.
The full run takes minutes per op.
"""
import argparse
import sys

import numpy as np
import torch

from test_kernels import ONEDNN, ours, reference

OPS = {"exp": {}, "log": {}, "sin": {}, "cos": {}, "tanh": {}, "erf": {}, "sqrt": {}, "rsqrt": {}, "reciprocal": {}, "sigmoid": {}, "silu": {}, "gelu": {},
       "gelu tanh": {"approximate": "tanh"}, "gelu mkldnn": {}, "relu": {}, "floor": {}, "ceil": {}, "round": {}, "abs": {}, "neg": {}, "square": {}}
BLOCK = 1 << 22


def unequal(op: str, step: int = 1, start: int = 0) -> int:
    """Results that differ from torch's over the bit patterns start, start + step, ... below 2^32."""
    aten, keywords, count = f"aten.{op.split()[0]}.default", OPS[op], 0
    mkldnn = op.endswith("mkldnn")
    with torch.backends.mkldnn.flags(enabled=mkldnn):
        for first in range(start, 1 << 32, BLOCK * step):
            bits = np.arange(first, min(first + BLOCK * step, 1 << 32), step, dtype=np.uint64).astype(np.uint32)
            x = torch.from_numpy(bits.view(np.float32))
            expected, actual = reference(aten, [x], keywords).numpy(), ours(aten, [x], keywords, mkldnn=ONEDNN if mkldnn else False)
            differ = expected.view(np.uint32) != actual.view(np.uint32)
            count += int((differ & ~(np.isnan(expected) & np.isnan(actual))).sum())
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", default=list(OPS))
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    total = 0
    for op in options.ops or OPS:
        wrong = unequal(op, options.step)
        total += wrong
        print(f"{op:12} {wrong} unequal", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
