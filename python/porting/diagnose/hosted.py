"""Ops that the C core has no kernel for and that are not written in other ops, because what they do depends on their operands' numbers: computed here.

Mixtures of experts sort their tokens by expert and multiply each group by its own matrix. In NumPy, in the dtype of the operands (bf16 in float32).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def grouped_mm(take: Callable[[Any], Any], args: list[Any], kwargs: dict[str, Any]) -> np.ndarray:
    """(S, K) x (E, K, N) -> (S, N): rows up to offsets[e] by matrix e."""
    a, b = take(args[0]), take(args[1])
    offsets = take(args[2] if len(args) > 2 else kwargs.get("offs"))
    if a.ndim != 2 or b.ndim != 3 or offsets is None:
        raise ValueError("a grouped product of this form is not run")
    wide = np.float64 if a.dtype == np.float64 else np.float32
    out = np.zeros((a.shape[0], b.shape[2]), wide)
    start = 0
    for e, end in enumerate(offsets.tolist()):
        out[start:end] = a[start:end].astype(wide) @ b[e].astype(wide)
        start = end
    bias = take(args[3]) if len(args) > 3 else None
    return (out if bias is None else out + bias).astype(a.dtype)


def histc(take: Callable[[Any], Any], args: list[Any], kwargs: dict[str, Any]) -> np.ndarray:
    """Counts in equal bins; numbers outside are left out."""
    x = take(args[0])
    bins, low, high = [*args[1:], *(100, 0, 0)[len(args) - 1 :]][:3]
    if low == high:
        low, high = float(x.min()), float(x.max())
    return np.histogram(x.astype(np.float64), bins=int(bins), range=(low, high))[0].astype(x.dtype)


HOSTED: dict[str, Callable[..., np.ndarray]] = {"aten._grouped_mm.default": grouped_mm, "aten.histc.default": histc}


def run(name: str, args: list[Any], kwargs: dict[str, Any], values: dict[int, np.ndarray]) -> np.ndarray:
    """What the op makes of these values. Arguments in PROGRAM.md's form."""

    def take(arg: Any) -> Any:
        return values[arg["v"]] if isinstance(arg, dict) and "v" in arg else arg

    return np.ascontiguousarray(HOSTED[name](take, args, kwargs))
