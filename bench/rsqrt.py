"""How far the ways to compute 1 / sqrt(x) lie apart: ``python bench/rsqrt.py``.

Per variant of the kernel rsqrt, over all float32 in [1, 4) (two octaves are all there is: the others repeat them): how far it is from torch.rsqrt in
ulp, relatively, the share of results that differ, and how far from the correctly rounded value. Then how far each carries: the largest difference
of an RMS norm's output at the sizes that residual streams reach. "rsqrtss" and the Newton steps from it are this CPU's.
"""
import numpy as np
import torch
from porting import _core


def rsqrt(x: np.ndarray, variant: str) -> np.ndarray:
    return _core.call_op("aten.rsqrt.default", [x], variant=variant)


def rms_norm(x: torch.Tensor, variant: str) -> np.ndarray:
    """Rows of x divided by their root mean square, with this rsqrt."""
    scale = rsqrt((x.square().mean(-1, keepdim=True) + 1e-6).numpy(), variant)
    return x.numpy() * scale


def main() -> None:
    x = np.arange(0x3F800000, 0x40800000, dtype=np.uint32).view(np.float32)  # [1, 4)
    expected = torch.rsqrt(torch.from_numpy(x)).numpy()
    exact = 1 / np.sqrt(x.astype(np.float64))
    correct = rsqrt(x, "correct")
    rows = torch.randn(256, 576, generator=torch.Generator().manual_seed(0)) * 100
    norm = rms_norm(rows, "ieee")
    weight = 1024 / np.abs(norm).max()
    print(f"{'variant':9} {'max ulp':>8} {'max relative':>13} {'differ':>8} {'ulp to correct':>15} {'error in ulp':>13} {'RMS norm, largest 1024':>23}")
    for variant in ("ieee", "correct", "newton2", "newton1", "rsqrtss"):
        y = rsqrt(x, variant)
        apart = np.abs(y.view(np.int32).astype(np.int64) - expected.view(np.int32))
        relative = np.max(np.abs(y.astype(np.float64) - expected) / expected)
        to_correct = np.abs(y.view(np.int32).astype(np.int64) - correct.view(np.int32)).max()
        error = np.max(np.abs(y.astype(np.float64) - exact) / np.spacing(correct).astype(np.float64))
        carried = np.max(np.abs(rms_norm(rows, variant).astype(np.float64) - norm)) * weight
        print(f"{variant:9} {apart.max():8d} {relative:13.2e} {np.mean(apart > 0):8.1%} {to_correct:15d} {error:13.2f} {carried:23.2e}")


if __name__ == "__main__":
    main()
