"""What a capture made with level="stats" keeps of a tensor (docs/FORMAT.md section 10), and how two of these differ.

Equal hashes say that two tensors are the same, bit for bit. Of different ones statistics tell in what and about how far they differ;
whether that is rounding or a fault needs the tensors. No torch here.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import numpy as np

from . import _core
from ._core import DTYPES, FormatError

__all__ = ["Summary"]

_BUCKETS = 16


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of one tensor.

    dtype : safetensors' name. hash : of its bytes, as `Capture.info` gives it. min, max, mean, rms : of the finite elements, NaN if there are
    none; complex elements count as two. sketch : 16 signed sums; the distance of two sketches estimates that of the tensors.
    """

    dtype: str
    shape: tuple[int, ...]
    hash: str
    num_nan: int
    num_inf: int
    min: float
    max: float
    mean: float
    rms: float
    sketch: tuple[float, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Summary:
        """Of an array, computed in C."""
        return cls.from_bytes(_core.summarize(array), "an array")

    @classmethod
    def from_bytes(cls, data: Any, where: str) -> Summary:
        """From its stored form.

        Raises
        ------
        FormatError : it is not of that form; `where` says what is spoken of
        """
        data = bytes(data)
        version, dtype, ndim = data[:3] if len(data) >= 8 else (0, 0, 0)
        if version != 1 or dtype >= len(DTYPES) or any(data[3:8]) or len(data) != 8 * (9 + ndim + _BUCKETS):
            raise FormatError(f"{where}: expected statistics in the form of docs/FORMAT.md section 10, got {len(data)} bytes that are none")
        numbers = struct.unpack_from(f"<{ndim}q4Q{4 + _BUCKETS}d", data, 8)
        shape, (low, high, nan, inf), rest = numbers[:ndim], numbers[ndim : ndim + 4], numbers[ndim + 4 :]
        if min(shape, default=0) < 0:
            raise FormatError(f"{where}: its statistics have the shape {list(shape)}")
        return cls(DTYPES[dtype], tuple(shape), f"{high:016x}{low:016x}", nan, inf, *rest[:4], tuple(rest[4:]))

    @property
    def num_elems(self) -> int:
        return math.prod(self.shape)

    def relative_distance(self, other: Summary) -> float:
        """About how far `other` is from this: root of the squared distance over this one's squares, by the sketches (their error is about a
        third of it); NaN where that says nothing."""
        parts = self.num_elems * (2 if self.dtype == "C64" else 1) - self.num_nan - self.num_inf
        size = self.rms * math.sqrt(parts) if parts > 0 else math.nan
        distance = math.dist(self.sketch, other.sketch)
        return distance / size if size > 0 else math.nan

    def differences(self, other: Summary) -> list[str]:
        """By which statistics `other` differs from this, in words; empty if none does."""
        found = []
        for what, mine, theirs in (("NaN", self.num_nan, other.num_nan), ("infinities", self.num_inf, other.num_inf)):
            if mine != theirs:
                found.append(f"{theirs} {what}, expected {mine}")
        for what in ("min", "max", "mean", "rms"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs and not (math.isnan(mine) and math.isnan(theirs)):
                found.append(f"{what} {theirs:.9g}, expected {mine:.9g}")
        if self.sketch != other.sketch:
            distance = self.relative_distance(other)
            found.append("sketch" + (f" (about {distance:.2g} of its size away)" if math.isfinite(distance) else ""))
        return found

    def facts(self) -> dict[str, Any]:
        """As `porting show` prints it."""
        return {"dtype": self.dtype, "shape": list(self.shape), "elements": self.num_elems, "nan": self.num_nan, "inf": self.num_inf, "min": self.min,
                "max": self.max, "mean": self.mean, "rms": self.rms, "hash": self.hash}
