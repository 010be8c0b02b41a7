"""Where the output is wrong: only some rows, heads, channels or positions, the rest being right but for rounding."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .case import Case

MOST = 0.5  # a part is what is wrong only if it is at most this share of the slices


@dataclass(frozen=True)
class Part:
    """A part of one output. `where`: "head 3"; `mask`: True in it, broadcastable to the output; `count`, `total`: slices."""

    where: str
    mask: np.ndarray
    count: int
    total: int


def head_counts(case: Case) -> list[int]:
    """Numbers of heads that the program's 4-dimensional values have, the second or third dimension of one that is split from the last."""
    found: dict[int, None] = {}
    for op in case.ops:
        for v in op.outputs:
            shape = case.values[v][1] if v is not None else []
            if len(shape) == 4:
                for n in shape[1:3]:
                    if n > 1:
                        found[n] = None
    return list(found)


def spans(numbers: np.ndarray) -> str:
    """"3", "1 and 4", "2 to 5", "0, 2, 7 and 4 more"."""
    n = [int(i) for i in numbers]
    if len(n) == 1:
        return str(n[0])
    if n == list(range(n[0], n[-1] + 1)):
        return f"{n[0]} to {n[-1]}" if len(n) > 2 else f"{n[0]} and {n[1]}"
    return ", ".join(map(str, n[:3])) + (f" and {len(n) - 3} more" if len(n) > 3 else "")


def axis_name(case: Case, shape: tuple[int, ...], axis: int) -> tuple[str, str]:
    """(one, many) of what the slices along an axis are called."""
    convolution = any(op.base in ("convolution", "native_batch_norm", "native_group_norm") for op in case.ops)
    channel = 1 if convolution and len(shape) >= 3 else len(shape) - 1
    if axis == channel:
        return "channel", "channels"
    if axis == 0 and len(shape) >= 3:
        return "batch row", "batch rows"
    if len(shape) == 3 and not convolution:
        return "position", "positions"
    if len(shape) == 4 and not convolution:
        return ("head", "heads") if shape[1] in head_counts(case) and axis == 1 else ("position", "positions")
    return ("row", "rows") if len(shape) == 2 else (f"slice of axis {axis}", f"slices of axis {axis}")


def find_part(case: Case, leaf: str, error: np.ndarray, level: float, peak: float) -> Part | None:
    """The smallest set of slices, along one axis or among the heads of the last one, that holds all that is wrong.

    error : in units of rounding. A slice is wrong if its rms is above `level` or an element above `peak`. None if most slices are.
    """
    if not (np.abs(error) > peak).any():
        return None

    def wrong(errors: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return (np.sqrt(np.mean(errors * errors, axis=axes)) > level) | (np.abs(errors).max(axis=axes) > peak)

    best: Part | None = None
    shape = error.shape
    for axis, n in enumerate(shape):
        if n < 2:
            continue
        bad = wrong(error, tuple(i for i in range(len(shape)) if i != axis))
        best = better(best, bad, lambda b, axis=axis, n=n: b.reshape([n if i == axis else 1 for i in range(len(shape))]), axis_name(case, shape, axis))
    for heads in head_counts(case) if len(shape) in (2, 3) else ():
        if shape[-1] % heads == 0 and shape[-1] // heads > 1:
            bad = wrong(error.reshape(-1, heads, shape[-1] // heads), (0, 2))
            best = better(best, bad, lambda b, w=shape[-1] // heads: np.repeat(b, w), ("head", "heads"))
    return best


def better(best: Part | None, bad: np.ndarray, mask, names: tuple[str, str]) -> Part | None:
    count = int(bad.sum())
    if count > MOST * bad.size or best is not None and best.count / best.total < count / bad.size:
        return best
    if best is not None and best.count / best.total == count / bad.size and best.total <= bad.size:
        return best
    return Part(f"{names[count > 1]} {spans(np.flatnonzero(bad))} of {bad.size}", mask(bad), count, bad.size)
