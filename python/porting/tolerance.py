"""What a difference between two tensors may be, and why.

A `Tolerance` looks at what the one pass over two tensors measured (`_core.compare`) and gives a `Verdict`. The default, `auto`, allows
what rounding explains and no more: per element

    c * u * s  +  r * u_out * |e|  +  smallest subnormal

where u is the unit roundoff of the accumulator, u_out that of the stored dtype, r the number of roundings to it in the two
implementations, c a constant measured for the kind of module, and s the condition scale: how large the terms are that the
result was made of (for a dot product the sum of |w * x|, not the result itself, which may have cancelled). docs/NUMERICS.md holds the measurements.

Every rule is written as `error <= bound`, so that NaN passes none of them. Nothing here reads captures or runs modules.
"""
from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from . import _core


@lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype) -> str:
    """`dtype.name`, which NumPy makes anew each time."""
    return dtype.name


BANDS = ("exact", "green", "amber", "red")

#: Unit roundoff by NumPy's dtype name: half the distance from 1 to the next number.
UNIT_ROUNDOFF = {
    "float64": 2.0**-53, "float32": 2.0**-24, "complex64": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8,
    "float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3,
}
SMALLEST_SUBNORMAL = {
    "float64": 2.0**-1074, "float32": 2.0**-149, "complex64": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133,
    "float8_e4m3fn": 2.0**-9, "float8_e5m2": 2.0**-16,
}
#: (rtol, atol) as torch.testing.assert_close has them; every other dtype is (0, 0).
TORCH_TOLERANCES = {
    "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7), "complex64": (1.3e-6, 1e-5),
}
#: Kinds whose outputs are copies, choices or integers: nothing is rounded, so nothing may differ.
EXACT_KINDS = frozenset({"constant", "embedding", "move", "mask", "integer"})


@dataclass(frozen=True)
class _Kind:
    """The constants of one kind of module in docs/NUMERICS.md, section Tolerance."""

    c: float
    growth: float  # amber reaches growth * sqrt(terms), where that is more than twice c
    roundings: int  # to the stored dtype, in both implementations together
    scale: str


_KINDS = {
    "linear": _Kind(12, 4, 2, "s = sum|w x| + |b|"),
    "attention": _Kind(16, 4, 8, "s = sum p |v| (1 + scale max sum|q k|)"),
    "layer_norm": _Kind(16, 0.5, 4, "s = (|x| + |mean| + std) / std * |weight| + |bias|"),
    "rms_norm": _Kind(8, 0.5, 4, "s = |e|"),
    "softmax": _Kind(16, 0.5, 2, "s = p (1 + max - x)"),
    "activation": _Kind(16, 0, 4, "s = |x| or |e|"),
    "composite": _Kind(64, 0, 8, "s = rms of the row + |e|"),  # rows of fewer than 8 elements: `_item_rms`
    "conditioned": _Kind(20, 0, 2, "s = rms of the row + |e|"),  # a composite or attention whose float64 run gave kappa
}
#: Amber of "conditioned"; and (green, amber) where the stored type is a half one, in which every op rounds.
CONDITIONED_AMBER = 40.0
_CONDITIONED_HALF = (8.0, 16.0)
#: A product is summed in float32 and rounded to a half type at its end, which moves as many numbers to 0 as away from it: a greater share that moved one way is a fault.
MOST_ONE_WAY = 0.3
#: Nothing is computed in a type coarser than this: an f8 result was rounded to f8 once, and the constants multiply the roundoff of what computed it.
_COARSEST = 2.0**-8


@dataclass(frozen=True)
class Verdict:
    """What a tolerance says of one tensor.

    band : "exact" (bit-equal, but for the sign of zero), "green" (rounding), "amber" (rounding that has grown), "red" (anything else).
    passed : whether the tolerance accepts it. allowed : what would have been accepted. reason : what was found.
    """

    band: str
    passed: bool
    allowed: str
    reason: str

    @property
    def beyond_rounding(self) -> bool:
        """Whether bands refused it: more than the rounding that they allow. (Other rules refuse what is rounding, too.)"""
        return self.band == "red" and self.allowed.startswith("err <=")


@dataclass(frozen=True)
class Tolerance:
    """A rule for accepting a difference. Made by the class methods; all of them are values that can be compared and printed.

    Which to take: `auto` if the port computes in the reference's dtype; `exact` if the same bits are promised; `approximate` if
    it works in half precision or with quantised weights. `allclose`, `ulp` and `pcc` are for people who need those words.
    """

    name: str
    rule: str
    rtol: float | None = None
    atol: float | None = None
    limit: float = math.nan

    # ------------------------------------------------------------ the presets

    @classmethod
    def auto(cls) -> Tolerance:
        """Green and amber pass: rounding, also where it grew with the square root of the number of terms."""
        return cls("auto", "bands")

    @classmethod
    def strict(cls) -> Tolerance:
        """Only green passes: at most the constant measured for this kind of module."""
        return cls("strict", "green")

    @classmethod
    def exact(cls) -> Tolerance:
        """Every bit, except that 0 and -0 are equal and so are two NaN."""
        return cls("exact", "exact")

    @classmethod
    def close(cls) -> Tolerance:
        """Each element within 1e-4 of its own size plus its row's typical size: other algorithms in f32."""
        return cls("close", "typical", limit=1e-4)

    @classmethod
    def approximate(cls) -> Tolerance:
        """Each element within 2e-2 of its own size plus its row's typical size: half precision, tables, good quantisation."""
        return cls("approximate", "typical", limit=2e-2)

    @classmethod
    def allclose(cls, rtol: float | None = None, atol: float | None = None) -> Tolerance:
        """|a - e| <= atol + rtol * |e|, as numpy and torch say it. Without numbers: torch's for the dtype.

        Raises ValueError if only one is given, or one is negative or NaN.
        """
        if (rtol is None) != (atol is None):
            raise ValueError(f"both rtol and atol must be given or neither, got no {'rtol' if rtol is None else 'atol'}")
        for name, value in (("rtol", rtol), ("atol", atol)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be a number that is not negative, got {value}")
        words = "allclose" if rtol is None else f"allclose(rtol={rtol:g}, atol={atol:g})"
        return cls(words, "allclose", rtol=rtol, atol=atol)

    @classmethod
    def ulp(cls, n: int) -> Tolerance:
        """At most n representable values apart. Strict near zero, where a cancelled sum may be thousands of ulp off and right."""
        if not n >= 0:
            raise ValueError(f"ulp(n) needs n >= 0, got {n}")
        return cls(f"ulp({n:g})", "ulp", limit=n)

    @classmethod
    def pcc(cls, x: float) -> Tolerance:
        """Pearson correlation of at least x, *and* an error that looks like noise.

        A correlation alone accepts a wrong scale or offset and whatever hides behind a few large elements. So the error must also be
        small in norm (at most sqrt(2 (1 - x)) of the reference's), in each row and channel, and no scale or offset may explain it.
        """
        if not 0 < x < 1:
            raise ValueError(f"pcc(x) needs 0 < x < 1, got {x}")
        return cls(f"pcc({x:g})", "pcc", limit=x)

    # ------------------------------------------------------------ of a module

    def of(self, module: str) -> Tolerance:
        """The tolerance that judges a module: this one. A table of overrides (overrides.py) says another for some."""
        return self

    def said_of(self, module: str) -> str | None:
        """Which entry of a table of overrides judges a module; None where there is no table."""
        return None

    def unused(self, modules: Iterable[str]) -> list[str]:
        """Sentences about the entries of a table that judge none of these modules."""
        return []

    # ------------------------------------------------------------ what to measure

    def scale_of(self, expected: np.ndarray, *, kind: str, terms: int | None = None, scale: np.ndarray | float | None = None,
                 kappa: np.ndarray | float | None = None) -> tuple[np.ndarray | float | None, float]:
        """(scale of every element, unit roundoff) of `scale_parts`, for programs that take one array."""
        base, slope, u = self.scale_parts(expected, kind=kind, terms=terms, scale=scale, kappa=kappa)
        if base is None:
            return None, u
        return _finite(np.broadcast_to(base + slope * _absolute(expected), expected.shape)), u

    def scale_parts(self, expected: np.ndarray, *, kind: str, terms: int | None = None, scale: np.ndarray | float | None = None,
                    kappa: np.ndarray | float | None = None) -> tuple[np.ndarray | float | None, float, float]:
        """(base, slope, unit roundoff) to hand to `_core.compare`, so that its max_err_scale is what `judge` needs: an element's
        scale is base + slope |e|.

        base broadcasts to the shape: mostly one number for each row. None: this rule needs no scale.

        expected : the reference, real. kind : docs/DESIGN.md. terms : K of a dot product, ops of a composite.
        scale : the condition scale s, if known. Without it the row's rms is taken (of short rows those around it too).
        kappa : how far a composite or attention amplifies rounding: an array that broadcasts to the shape, if a float64 run said so
            (golden.py), or 1, which it is at least.
        """
        dtype = expected.dtype.name
        judged_by_bands = self.rule in ("bands", "green")
        if dtype not in UNIT_ROUNDOFF or expected.size == 0 or self.rule in ("exact", "ulp") or (judged_by_bands and kind in EXACT_KINDS):
            return None, 0.0, 0.0
        if self.rule == "allclose":
            rtol, atol = self._rtol_atol(dtype)
            return atol, rtol, 1.0
        if self.rule in ("typical", "pcc"):
            return typical_size(expected), 1.0, 1.0
        kind = _judged_as(kind, scale, kappa)
        row = _KINDS.get(kind, _KINDS["composite"])
        c, u = self._constants(kind, dtype, terms)
        slope = (2 if _is_stored_only(dtype) else row.roundings) * UNIT_ROUNDOFF[dtype] / (c * u)
        tiny = SMALLEST_SUBNORMAL[dtype] / (c * u)
        if kind == "conditioned":
            if np.ndim(kappa):
                return _finite(kappa * (row_rms(expected) + _absolute(expected)) + tiny), slope, u
            return kappa * row_rms(expected) + tiny, slope + kappa, u
        if scale is None:
            return _item_rms(expected) + tiny, slope + 1.0, u
        return _finite(np.asarray(scale, np.float64)) + tiny, slope, u

    def extra_metrics(self, expected: np.ndarray, actual: np.ndarray, kind: str) -> dict[str, float]:
        """What only some rules need beside the one pass: for pcc the worst channel's and row's squared error over its squared norm; for bands, where
        one rounding to a half type ends the module, the share of numbers whose sizes moved one way."""
        if self.rule in ("bands", "green") and kind == "linear" and expected.dtype.name in ("bfloat16", "float16"):
            return {"moved_one_way": _one_way(expected, actual)}
        if self.rule != "pcc" or expected.dtype.name not in UNIT_ROUNDOFF or expected.ndim < 2 or expected.size == 0:
            return {}
        return {"worst_slice_nmse": _worst_slice(expected.reshape(-1, expected.shape[-1]), actual.reshape(-1, actual.shape[-1]))}

    def _rtol_atol(self, dtype: str) -> tuple[float, float]:
        if self.rtol is None or self.atol is None:
            return TORCH_TOLERANCES.get(dtype, (0.0, 0.0))
        return self.rtol, self.atol

    def _constants(self, kind: str, dtype: str, terms: int | None) -> tuple[float, float]:
        """(c, u): the constant of the kind and the roundoff it multiplies."""
        u_out = min(UNIT_ROUNDOFF[dtype], _COARSEST)
        if kind == "conditioned":
            return (_CONDITIONED_HALF[0] if u_out > 2.0**-24 else _KINDS[kind].c), u_out
        if kind in ("composite", "attention") and u_out > 2.0**-24:
            return (16.0 if kind == "composite" else 8.0), u_out  # every op inside rounds to the half type
        c = _KINDS.get(kind, _KINDS["composite"]).c
        if kind == "composite" and terms is not None and terms > 64:
            c *= 1.25 ** math.log2(terms / 64)  # the ladder: 1.25 times for each doubling of depth
        return c, min(u_out, 2.0**-24)

    def _amber(self, kind: str, dtype: str, terms: int | None, c: float) -> float:
        if _is_stored_only(dtype):
            return c  # twice it would be two steps: all of them, at three or two bits
        if kind == "conditioned":
            return _CONDITIONED_HALF[1] if UNIT_ROUNDOFF[dtype] > 2.0**-24 else CONDITIONED_AMBER
        if kind == "composite" and UNIT_ROUNDOFF[dtype] <= 2.0**-24:
            return 8 * c  # what a sum of 4,096 terms inside it may leave beside a smaller result
        grown = _KINDS.get(kind, _KINDS["composite"]).growth * math.sqrt(terms or 0)
        return max(2 * c, grown if UNIT_ROUNDOFF[dtype] <= 2.0**-24 else 0.0)

    # ------------------------------------------------------------ the verdict

    def greatest_accepted(self, kind: str, dtype: str, *, terms: int | None = None, scale: Any = None, kappa: Any = None) -> float:
        """The greatest err/(u s) that bands accept, for a program that judges by numbers alone."""
        kind = _judged_as(kind, scale, kappa)
        c, _ = self._constants(kind, dtype, terms)
        return float(c if self.rule == "green" else self._amber(kind, dtype, terms, c))

    def judge(self, metrics: dict[str, Any], *, kind: str, dtype: Any, terms: int | None = None, scale: Any = None,
              kappa: np.ndarray | float | None = None) -> Verdict:
        """The verdict on what `_core.compare` measured with the scale of `scale_parts`.

        Parameters
        ----------
        metrics : dict of `_core.compare`
        kind : what the module computes; "composite" if nothing closer is known
        dtype : dtype of the expected array, or its NumPy name
        terms : terms of a sum (K), or ops of a composite; None if unknown
        scale : None if the condition scale was not known and the row's rms stood in for it
        kappa : what `scale_parts` was given
        """
        dtype = dtype if isinstance(dtype, str) else dtype_name(np.dtype(dtype))
        kind = _judged_as(kind, scale, kappa)
        refused = self._never(metrics)
        if refused is not None:
            return refused
        note = _nan_note(metrics)
        if metrics["num_unequal"] == 0:
            words = "bit-equal" if metrics["num_elems"] else "no elements"
            return Verdict("exact", True, self._allowed(kind, dtype, terms, scale, kappa), words + note)
        if self.rule == "exact" or dtype not in UNIT_ROUNDOFF or (kind in EXACT_KINDS and self.rule in ("bands", "green")):
            why = "the same bits" if self.rule == "exact" else "the same bits: nothing is rounded here"
            return Verdict("red", False, why, _unequal(metrics) + note)
        if metrics["num_elems"] == metrics["num_nan_expected"] + metrics["num_inf_expected"]:
            return Verdict("red", False, "finite values to compare", "the reference has no finite value" + note)
        band, found = self._band(metrics, kind, dtype, terms)
        passed = band in ("exact", "green") or (band == "amber" and self.rule != "green")
        return Verdict(band, passed, self._allowed(kind, dtype, terms, scale, kappa), found + note)

    def _never(self, m: dict[str, Any]) -> Verdict | None:
        """What no tolerance accepts."""
        where = f", first at flat index {m['first_nonfinite_mismatch']}"
        if m["num_nan_mismatch"]:
            return Verdict("red", False, "NaN only where the reference has NaN", f"{m['num_nan_mismatch']} of {m['num_elems']} elements are"
                           f" NaN on one side only (reference {m['num_nan_expected']}, port {m['num_nan_actual']}){where}")
        if m["num_inf_mismatch"]:
            return Verdict("red", False, "infinity only where the reference has the same", f"{m['num_inf_mismatch']} of {m['num_elems']}"
                           f" elements are infinite on one side only or of the other sign{where}")
        if m["num_elems"] and m["num_nan_expected"] == m["num_elems"]:
            return Verdict("red", False, "numbers to compare", f"all {m['num_elems']} elements are NaN on both sides: this shows nothing")
        return None

    def _band(self, m: dict[str, Any], kind: str, dtype: str, terms: int | None) -> tuple[str, str]:
        if self.rule == "ulp":
            return ("green" if m["max_ulp"] <= self.limit else "red"), f"max {m['max_ulp']} ulp"
        if self.rule == "pcc":
            return self._band_pcc(m)
        ratio = m["max_err_scale"] if m["max_err_scale"] >= 0 else math.nan  # measured without a scale: nothing can pass
        if self.rule in ("allclose", "typical"):
            limit = 1.0 if self.rule == "allclose" else self.limit
            words = f"{ratio:.3g} times the bound" if self.rule == "allclose" else f"max error {ratio:.3g} of the element's and its row's size"
            return ("green" if ratio <= limit else "red"), words
        c, _ = self._constants(kind, dtype, terms)
        amber = self._amber(kind, dtype, terms, c)
        found = f"max err/({'kappa ' if kind == 'conditioned' else ''}u s) {ratio:.3g}"
        if dtype not in ("float64", "float32", "complex64"):
            found += f", {m['num_unequal'] / m['num_elems']:.2%} of the elements moved, mean {m['mean_signed_ulp']:+.2g} ulp"
        moved = m.get("moved_one_way", 0.0)
        if abs(moved) > MOST_ONE_WAY and ratio <= amber:
            return "red", found + f": the sizes of {abs(moved):.0%} of the numbers are too {'great' if moved > 0 else 'small'} (cut instead of rounded, or a factor?)"
        if ratio <= c:
            return "green", found + ": rounding"
        if ratio <= amber:
            return "amber", found + ": rounding that has grown"
        if kind == "linear" and terms and not ratio <= terms:
            return "red", found + f": no order of summing {terms} terms explains it"
        return "red", found + ": more than rounding explains"

    def _band_pcc(self, m: dict[str, Any]) -> tuple[str, str]:
        x, pcc, n = self.limit, m["pcc"], m["num_elems"]
        allowed = 2 * (1 - x)  # nmse of noise that lowers the correlation to x
        nmse = m["nmse"]
        found = f"pcc {pcc:.6g}, relative error {math.sqrt(nmse) if nmse >= 0 else math.nan:.3g}"
        if not pcc >= x:
            undefined = " (undefined: a side is constant)" if math.isnan(pcc) else ""
            return "red", found + undefined
        if not nmse <= allowed:
            return "red", found + f": correlated, but {math.sqrt(nmse / allowed):.3g} times the norm of such noise (a scale or an offset?)"
        if not m.get("worst_slice_nmse", 0.0) <= 4 * allowed:
            return "red", found + f": one row or channel is off by {math.sqrt(m['worst_slice_nmse']):.3g} of its norm"
        if not m["max_err_scale"] <= 10 * math.sqrt(allowed):
            return "red", found + f": one element is off by {m['max_err_scale']:.3g} of its size, hidden by larger ones"
        if n >= 64 and nmse > 2.0**-40:
            # the part of the squared error that the best scale, or the mean difference, removes
            along = (m["sum_sq_actual"] - m["sum_sq_error"] - m["sum_sq_expected"]) / 2
            scale_share = along * along / (m["sum_sq_expected"] * m["sum_sq_error"])
            offset_share = n * m["mean_error"] ** 2 / m["sum_sq_error"]
            for share, word in ((scale_share, "scale"), (offset_share, "offset")):
                if not share <= 0.5:
                    return "red", found + f": a wrong {word} explains {share:.0%} of it"
        return "green", found

    def _allowed(self, kind: str, dtype: str, terms: int | None, scale: Any, kappa: Any) -> str:
        """The sentence that says what this tolerance accepts for such a tensor."""
        if self.rule == "exact" or dtype not in UNIT_ROUNDOFF or (kind in EXACT_KINDS and self.rule in ("bands", "green")):
            return "the same bits"
        if self.rule == "allclose":
            rtol, atol = self._rtol_atol(dtype)
            return f"|a - e| <= {atol:g} + {rtol:g} |e|"
        if self.rule == "ulp":
            return f"at most {self.limit:g} ulp"
        if self.rule == "typical":
            return f"|a - e| <= {self.limit:g} (|e| + typical size of its row)"
        if self.rule == "pcc":
            return f"pcc >= {self.limit:g} with an error that is noise"
        c, u = self._constants(kind, dtype, terms)
        amber = self._amber(kind, dtype, terms, c)
        if kind == "conditioned":
            most = c if self.rule == "green" else amber
            known = f"{np.max(kappa):.3g} (the reference's own rounding, by a float64 run)" if np.ndim(kappa) else "1, the least it can be"
            return f"err <= {most:.4g} kappa u s, green to {c:.4g}; kappa = {known}; u = 2^{math.log2(u):.0f}, {_KINDS[kind].scale}"
        row = _KINDS.get(kind, _KINDS["composite"])
        of = row.scale if scale is not None or kind == "composite" else "s = rms of the row + |e|"
        most = c if self.rule == "green" else amber
        reach = f" (K = {terms})" if terms and row.growth else ""
        return f"err <= {most:.4g} u s{reach}, green to {c:.4g}; u = 2^{math.log2(u):.0f}, {of}"


def _one_way(expected: np.ndarray, actual: np.ndarray) -> float:
    """The share of a half type's numbers that became greater in size, less those that became smaller: of different pairs, since equal numbers are
    rounded alike. 0 where there are few."""
    every = max(1, expected.size // 65536)
    e, a = (np.ascontiguousarray(x).reshape(-1)[::every].view(np.uint16) for x in (expected, actual))
    largest = 0x7F80 if expected.dtype.name == "bfloat16" else 0x7C00
    sizes = [(x & 0x7FFF).astype(np.int64) for x in (e, a)]
    fair = ((e ^ a) < 0x8000) & (sizes[0] < largest) & (sizes[1] < largest) & (sizes[0] >= largest // 4)
    pairs = np.unique(sizes[0][fair] << 16 | sizes[1][fair])
    return float(np.mean(np.sign((pairs & 0xFFFF) - (pairs >> 16)))) if pairs.size >= 128 else 0.0


def _is_stored_only(dtype: str) -> bool:
    """Whether numbers of the dtype are only ever rounded to, never computed with: f8."""
    return UNIT_ROUNDOFF[dtype] > _COARSEST


def _judged_as(kind: str, scale: Any, kappa: float | None = None) -> str:
    """A dot product or attention whose terms are unknown has no scale of its own: its row's rms stands in, with a composite's constants.

    (An attention module mostly holds its projections too, and its result is a mean that may be smaller than what was averaged.)
    Where a float64 run measured how far rounding is amplified, that takes the place of the composite's wide constants.
    """
    if kind in ("linear", "attention", "composite") and scale is None:
        return "composite" if kappa is None else "conditioned"
    return kind


PRESETS = {"auto": Tolerance.auto, "exact": Tolerance.exact, "strict": Tolerance.strict, "close": Tolerance.close,
           "approximate": Tolerance.approximate, "allclose": Tolerance.allclose}


def resolve(tol: str | os.PathLike[str] | Tolerance) -> Tolerance:
    """A Tolerance, or the preset of that name; also "ulp(4)", "pcc(0.999)" and "allclose(1e-3, 1e-5)" as text, or the path of a TOML file
    with tolerances by module (overrides.py). Raises ValueError, OSError for a file that cannot be read."""
    if isinstance(tol, Tolerance):
        return tol
    if isinstance(tol, os.PathLike) or (isinstance(tol, str) and tol.endswith(".toml")):
        from .overrides import load_tolerances

        return load_tolerances(tol)
    if isinstance(tol, str):
        if tol in PRESETS:
            return PRESETS[tol]()
        word, bracket, rest = tol.strip().partition("(")
        if bracket and rest.endswith(")") and word in ("ulp", "pcc", "allclose"):
            try:
                numbers = [float(text.rpartition("=")[2]) for text in rest[:-1].split(",")]
            except ValueError:
                raise ValueError(f"tolerance {tol!r}: expected numbers in the brackets, got {rest[:-1]!r}") from None
            try:
                return getattr(Tolerance, word)(*numbers)
            except TypeError:
                raise ValueError(f"tolerance {tol!r}: wrong number of numbers") from None
    raise ValueError(f"no tolerance {tol!r}: expected one of {', '.join(PRESETS)}, ulp(N), pcc(X), allclose(RTOL, ATOL), a .toml file or a Tolerance")


# ---------------------------------------------------------------- sizes


def _absolute(x: np.ndarray) -> np.ndarray:
    return np.abs(x.astype(np.float64))


def _finite(scale: np.ndarray | float) -> np.ndarray | float:
    """Scales where the reference is NaN or infinite are never used; `_core.compare` wants numbers all the same."""
    return np.nan_to_num(scale, nan=0.0, posinf=0.0, copy=False) if isinstance(scale, np.ndarray) and scale.flags.writeable \
        else np.nan_to_num(scale, nan=0.0, posinf=0.0)


def row_rms(x: np.ndarray) -> np.ndarray:
    """Root mean square along the last axis, of the finite elements, keeping the axis; shape (..., 1), () for a scalar."""
    return _row_sizes(x, "rms")


def _item_rms(x: np.ndarray) -> np.ndarray:
    """`row_rms`, but rows of fewer than 8 elements, whose size one of them may decide, as those of an image that is one pixel wide, are taken
    together with their neighbours: as many of the last axes as have 8 elements, never the first. Broadcasts to x."""
    first, elems = x.ndim - 1, x.shape[-1] if x.ndim else 1
    while first > 1 and elems < 8:
        first -= 1
        elems *= x.shape[first]
    if first >= x.ndim - 1:
        return row_rms(x)
    return row_rms(x.reshape(*x.shape[:first], elems)).reshape(*x.shape[:first], *(1,) * (x.ndim - first))


def typical_size(x: np.ndarray) -> np.ndarray:
    """Median of |x| over the elements of each row that are finite and not 0; over the whole tensor if rows are short. Broadcasts to x.

    A median, so that a few large elements do not excuse an error in all the others.
    """
    if np.atleast_1d(x).shape[-1] < 8:
        size = _absolute(x)
        kept = size[np.isfinite(size) & (size > 0)]
        return np.float64(np.median(kept) if kept.size else 0.0)
    return _row_sizes(x, "median")


def _row_sizes(x: np.ndarray, kind: str) -> np.ndarray:
    sizes = _core.row_sizes(np.require(x, requirements="CA"), kind)
    return sizes.reshape(*x.shape[:-1], 1) if x.ndim else sizes.reshape(())


def _worst_slice(expected: np.ndarray, actual: np.ndarray) -> float:
    """The greatest squared error of a row or column over its squares, of what is finite on both sides; shape (rows, columns).

    A slice with less than a quarter of the median's squares is taken for one with a quarter: noise that is the same everywhere reaches
    four times the permitted share there, which is the limit, and is not the slice's fault. And of many
    short slices of pure noise the worst is far from the mean: each is divided by what that amounts to (Laurent and Massart's bound on
    chi squared, for one false alarm in a thousand tensors), and multiplied by what a single long one may be.
    """
    rows, cols = expected.shape
    squares, errors = (np.zeros(rows), np.zeros(cols)), (np.zeros(rows), np.zeros(cols))
    step = max(1, 16384 // cols)  # float64 copies that stay in the cache
    with np.errstate(all="ignore"):
        for at in range(0, rows, step):
            e, a = expected[at:at + step].astype(np.float64), actual[at:at + step].astype(np.float64)
            a -= e
            if not np.isfinite(a.sum()) or not np.isfinite(e.sum()):
                bad = ~(np.isfinite(e) & np.isfinite(a))
                e[bad] = a[bad] = 0
            for total, x in ((squares, e), (errors, a)):
                x *= x
                total[0][at:at + step] = x.sum(1)
                total[1][:] += x.sum(0)
        worst = 0.0
        for error, square, length in zip(errors, squares, (cols, rows)):
            if length < 2:
                continue  # single elements have a bound of their own
            middle = np.median(square[square > 0]) if (square > 0).any() else 0.0
            t = math.log(1000 * len(square)) / length
            luck = (3 + 1 + 2 * math.sqrt(t) + 2 * t) / 4
            worst = max(worst, float(np.nanmax(error / np.maximum(square, middle / 4), initial=0.0)) / luck)
    return worst


def _nan_note(m: dict[str, Any]) -> str:
    parts = [f"{m[key]} {word} on both sides" for key, word in (("num_nan_expected", "NaN"), ("num_inf_expected", "infinite")) if m[key]]
    return f" ({', '.join(parts)})" if parts else ""


def _unequal(m: dict[str, Any]) -> str:
    return f"{m['num_unequal']} of {m['num_elems']} elements differ, max {m['max_ulp']} ulp"


# ---------------------------------------------------------------- condition scales


def linear_scale(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """sum_k |x[..., k] w[n, k]| + |b[n]|: the size of the terms of F.linear. x (..., K), weight (N, K), bias (N,); f32 sums are enough here."""
    s = np.matmul(np.abs(x.astype(np.float32)), np.abs(weight.astype(np.float32)).T)
    return s if bias is None else s + np.abs(bias.astype(np.float32))


def layer_norm_scale(x: np.ndarray, weight: np.ndarray | None = None, bias: np.ndarray | None = None, num_axes: int = 1) -> np.ndarray:
    """(|x| + |mean| + std) / std * |weight| + |bias| over the last num_axes axes of x."""
    wide = x.astype(np.float64)
    axes = tuple(range(x.ndim - num_axes, x.ndim))
    mean, std = wide.mean(axes, keepdims=True), wide.std(axes, keepdims=True)
    with np.errstate(all="ignore"):
        s = (np.abs(wide) + np.abs(mean) + std) / std
    s = np.where(std > 0, s, 1.0)  # a constant row gives the bias
    s = s if weight is None else s * np.abs(weight.astype(np.float64))
    return s if bias is None else s + np.abs(bias.astype(np.float64))


def softmax_scale(x: np.ndarray, p: np.ndarray, axis: int = -1) -> np.ndarray:
    """p (1 + max - x): the exponent's own rounding is relative to its argument. x, p: the same shape."""
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        s = p.astype(np.float64) * (1 + wide.max(axis, keepdims=True) - wide)
    return np.where(np.isfinite(s), s, 0.0)


#: Activations whose error is relative to the result; the others' is relative to the argument.
_RELATIVE_ACTIVATIONS = ("silu", "sigmoid", "tanh", "relu", "swish", "exp", "softplus")


def condition_scale(kind: str, expected: np.ndarray, inputs: list[np.ndarray], parameters: dict[str, np.ndarray],
                    name: str = "") -> tuple[np.ndarray | None, int | None]:
    """(s, terms) of one output of a module, as far as its inputs and parameters tell; (None, terms) where they do not.

    inputs : arrays in order of place. parameters : by their name in the module ("weight", "bias").
    name : class or op name, which tells one activation from another.
    """
    x = inputs[0] if inputs else None
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if x is None or x.dtype.name not in UNIT_ROUNDOFF or x.dtype.kind == "c":
        return None, None
    if kind == "linear" and weight is not None and weight.ndim == 2 and x.ndim >= 1:
        transposed = "conv1d" in name.lower()  # transformers' Conv1D keeps (in, out)
        if not transposed and x.shape[-1] == weight.shape[1] and expected.shape == (*x.shape[:-1], weight.shape[0]):
            return linear_scale(x, weight, bias), weight.shape[1]
        if transposed and x.shape[-1] == weight.shape[0] and expected.shape == (*x.shape[:-1], weight.shape[1]):
            return linear_scale(x, weight.T, bias), weight.shape[0]
    if x.shape != expected.shape or x.ndim == 0:
        return None, None
    if kind == "rms_norm":
        return _absolute(expected), x.shape[-1]
    if kind == "layer_norm":
        axes = weight.ndim if weight is not None else 1
        if any(p is not None and p.shape != x.shape[x.ndim - axes:] for p in (weight, bias)):
            return None, None  # over other dimensions than the last
        return layer_norm_scale(x, weight, bias, axes), math.prod(x.shape[x.ndim - axes:])
    if kind == "softmax":
        return softmax_scale(x, expected), x.shape[-1]
    if kind == "activation":
        relative = any(word in name.lower() for word in _RELATIVE_ACTIVATIONS) and "gelu" not in name.lower() and "hard" not in name.lower()
        if not relative:
            return _absolute(expected) + _absolute(x), None
        # 1 + exp(-x) overflows where the result is below |x| over the greatest number: such a result is 0 in one arithmetic and not in another.
        u = min(UNIT_ROUNDOFF[expected.dtype.name], 2.0**-24)
        greatest = float(np.finfo(np.float64 if u < 2.0**-24 else np.float32).max)
        return _absolute(expected) + _absolute(x) / greatest / (_KINDS["activation"].c * u), None
    return None, None


def classify(class_name: str, parameters: dict[str, np.ndarray]) -> str:
    """The kind of a module by its class name, where no recorded program says it better."""
    name = class_name.lower()
    weight = parameters.get("weight")
    if weight is not None and weight.ndim == 2 and name in ("linear", "conv1d", "nondynamicallyquantizablelinear"):
        return "linear"
    if name == "embedding":
        return "embedding"
    if name == "layernorm" and weight is not None:
        return "layer_norm"
    if name.endswith("rmsnorm"):
        return "rms_norm"
    if name == "softmax":
        return "softmax"
    if name in ("identity", "dropout", "flatten", "unflatten"):
        return "move"
    if name in ("relu", "gelu", "silu", "sigmoid", "tanh", "softplus", "mish", "elu", "leakyrelu", "hardswish", "hardsigmoid") or name.endswith(
            ("activation", "geluactivation", "siluactivation")):
        return "activation"
    return "composite"
