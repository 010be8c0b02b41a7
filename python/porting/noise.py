"""How far the reference is from itself: spreads that were measured when it ran again under other settings (docs/FORMAT.md section 9).

`measure` says how far two results are apart, `Noise` reads and writes what was measured, `Noise.covers` says whether a port's difference is no greater.
What it does not do: run anything (`noising.py`).
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ._core import FormatError
from .tolerance import UNIT_ROUNDOFF, row_rms

FILE = "noise.json"
FACTOR = 4.0  # a port may be this many times as far from the reference as the reference was from itself: few other orders of summing were seen
MAX_RELATIVE = 1e-2  # a spread whose relative rms error is greater is no rounding: a choice fell otherwise, and it excuses nothing
WAYS = ("isolated", "chained")


@dataclass(frozen=True)
class Spread:
    """The greatest difference that was seen. max_ulp : in units of the spacing at the reference's value. max_abs. err : greatest |a - e| / (u (|e| + rms of its
    row)). rms : rms |a - e| / (u rms e). relative : the same without u. setting : where it was seen."""

    max_ulp: float
    max_abs: float
    err: float
    rms: float
    relative: float
    setting: str = ""

    def greater(self, other: Spread | None) -> Spread:
        """Each number the greater one; the setting of the greater err."""
        if other is None:
            return self
        first, second = (self, other) if self.err >= other.err else (other, self)
        return Spread(*(max(getattr(first, k), getattr(second, k)) for k in ("max_ulp", "max_abs", "err", "rms", "relative")), first.setting)


def measure(expected: np.ndarray, actual: np.ndarray, dtype: str, setting: str = "") -> Spread | None:
    """The spread of two arrays of one shape; None for what has none: other shapes, no float dtype, no elements, or NaN and infinities at other places.

    dtype : NumPy's name of the dtype in which the values were (they may be given as float64).
    """
    u = UNIT_ROUNDOFF.get(dtype)
    if u is None or expected.shape != actual.shape or expected.size == 0 or expected.dtype.kind == "c" or actual.dtype.kind == "c":
        return None
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (e == a) | (np.isnan(e) & np.isnan(a))
        error = np.where(same, 0.0, np.abs(a - e))
        if not np.isfinite(error).all():
            return None
        finite = np.where(np.isfinite(e), e, 0.0)
        size = np.abs(finite) + row_rms(e)
        err = np.divide(error, u * size, out=np.zeros_like(error), where=size > 0)
        spacing = 2 * u * np.exp2(np.floor(np.log2(np.maximum(np.abs(finite), np.finfo(np.float32).tiny))))
        total = math.sqrt(float(np.mean(finite * finite)))
    relative = math.sqrt(float(np.mean(error * error))) / total if total > 0 else (0.0 if not error.any() else math.inf)
    if not math.isfinite(relative):
        return None
    return Spread(float((error / spacing).max()), float(error.max()), float(err.max()), relative / u, relative, setting)


@dataclass
class Noise:
    """Spreads by `<module>.out.<leaf>`, over all calls that were measured. isolated : the module alone on the inputs it had. chained : the whole model
    again, differences carried along. settings : under which the reference ran again. skipped : modules that were not measured, and why."""

    isolated: dict[str, Spread] = field(default_factory=dict)
    chained: dict[str, Spread] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, way: str, name: str, spread: Spread | None) -> None:
        if spread is not None and spread.relative <= MAX_RELATIVE:
            table = getattr(self, way)
            table[name] = spread.greater(table.get(name))

    def merge(self, other: Noise) -> None:
        for way in WAYS:
            for name, spread in getattr(other, way).items():
                self.add(way, name, spread)
        self.settings += [setting for setting in other.settings if setting not in self.settings]
        self.skipped.update(other.skipped)

    def covers(self, module: str, leaf: str, expected: np.ndarray, actual: np.ndarray, *, chained: bool = False) -> str | None:
        """A sentence if the port's difference is inside the reference's own, in its greatest element and over all; None if it is not, or nothing was measured."""
        spread = (self.chained if chained else self.isolated).get(spread_name(module, leaf))
        if spread is None or expected.dtype != actual.dtype:
            return None
        found = measure(expected, actual, expected.dtype.name)
        if found is None or not (found.err <= FACTOR * spread.err and found.rms <= FACTOR * spread.rms):
            return None
        return f"inside the reference's own noise ({found.max_ulp:.3g} ulp; with {spread.setting} the reference differs from itself by {spread.max_ulp:.3g} ulp)"

    def to_json(self) -> str:
        tables = {way: {name: asdict(spread) for name, spread in getattr(self, way).items()} for way in WAYS}
        return json.dumps({"format": "porting.noise", "version": 1, "settings": self.settings, "skipped": self.skipped, **tables}, ensure_ascii=False,
                          allow_nan=False, indent=1)

    def write(self, capture: str) -> None:
        """Puts the file into a capture's directory, in one step."""
        path = os.path.join(capture, FILE)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(self.to_json())
        os.replace(f"{path}.new", path)


def spread_name(module: str, leaf: str) -> str:
    return f"{module}.out.{leaf}" if module else f"out.{leaf}"


def load(path: str) -> Noise | None:
    """What a file says; None if there is none. Raises FormatError for a file of another form."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return from_dict(json.load(file))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{path}: not a file of spreads (docs/FORMAT.md section 9): {error}") from None


def from_dict(value: Any) -> Noise:
    """Raises ValueError, TypeError or KeyError for another form."""
    if not isinstance(value, Mapping) or value.get("format") != "porting.noise" or value.get("version") != 1:
        raise ValueError('expected "format": "porting.noise", "version": 1')
    noise = Noise(settings=[str(s) for s in value.get("settings", [])], skipped={str(k): str(v) for k, v in dict(value.get("skipped", {})).items()})
    for way in WAYS:
        for name, entry in dict(value.get(way, {})).items():
            numbers = [float(entry[key]) for key in ("max_ulp", "max_abs", "err", "rms", "relative")]
            if not all(0 <= number < math.inf for number in numbers):
                raise ValueError(f"{name}: expected finite numbers that are not negative, got {numbers}")
            noise.add(way, str(name), Spread(*numbers, str(entry.get("setting", ""))))
    return noise
