"""Proposals: which tensor of a port is probably which of the reference's, and in which layout, told by the values.

A proposal changes no verdict. It is a sentence and a row for a name map, for a person to accept. Tensors of the reference that lie in one of the
port's (a fused QKV, gate and up) are found end to end, or head by head (`fused.py`). What it does not do: find layouts that reorder more than the factors of one axis.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from .._core import PortingError
from ..pair import bits_equal
from ..port import as_array
from ..tolerance import UNIT_ROUNDOFF, typical_size

MAX_PAIRS = 20000  # pairs of tensors whose values are looked at
MAX_SEARCHES = 300  # pairs for which all layouts are tried
SAME_MOMENTS = 2e-3  # relative: moments of the same values in another order, rounded to 8 bits at worst
MAX_ELEMS = 1 << 27  # elements that are read for it
MAX_LAYOUTS = 24  # tensors for which a layout is looked for
MAX_AXES = 6
CLOSE = 1e-4  # "close" of the tolerances: of the element's size and its row's
FITS = 0.1  # relative rms error below which values are called the same: quantised ports are a few percent off
_SAMPLE = 64
_LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Proposal:
    """A pair that fits. port, ref : names. layout : the text that makes the port's tensor the reference's, None if it is that already.

    equal, close : shares of the elements that are bit-equal, and within 1e-4 of their size and their row's. error : relative rms error. also :
    other layouts, or other tensors of the reference, that fit as well: then values do not decide. refs : all names, if the port's tensor is several of the reference's.
    """

    port: str
    ref: str
    layout: str | None
    equal: float
    close: float
    error: float
    also: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()

    def __str__(self) -> str:
        theirs = f"{', '.join(self.refs[:-1])} and {self.refs[-1]}" if self.refs else self.ref
        what = f"layout {self.layout!r} makes the port's {self.port} {theirs}" if self.layout else f"the port's {self.port} has the values of {self.ref}"
        if self.layout and self.port == self.ref:
            what = f"layout {self.layout!r} makes the port's tensor {self.ref}"
        fit = f"{_share(self.equal)} of the elements bit-equal, {_share(self.close)} within {CLOSE:g}, relative error {self.error:.2g}"
        also = f"; {', '.join(self.also)} would fit as well: the values do not tell them apart" if self.also else ""
        return f"{what}: {fit}{also}"

    def to_toml(self) -> str:
        """The row of a name map that accepts it."""
        import re

        lines = ["[[name]]", f"port = '{re.escape(self.port)}'", f"ref = {list(self.refs)}" if self.refs else f"ref = '{self.ref}'"]
        return "\n".join(lines + ([f'layout = "{self.layout}"'] if self.layout else []))

    def to_dict(self) -> dict[str, Any]:
        return {"port": self.port, "ref": self.ref, "layout": self.layout, "equal": self.equal, "close": self.close, "error": self.error,
                "also": list(self.also), "refs": list(self.refs), "toml": self.to_toml()}


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{min(max(100 * share, 0.1), 99.9):.1f} %"


# ---------------------------------------------------------------- layouts


def propose_layout(port: np.ndarray, ref: np.ndarray, names: tuple[str, str]) -> Proposal | None:
    """The layout that makes the port's array the reference's, by the values; None if none does, or it is that already.

    A permutation of the axes, one of which may be taken apart or merged. For equal shapes it must fit much better than no layout.
    """
    if port.size != ref.size or port.size < 2 or ref.dtype.name not in UNIT_ROUNDOFF or port.dtype.name not in UNIT_ROUNDOFF:
        return None
    if "c" in (port.dtype.kind, ref.dtype.kind) or (ref.reshape(-1) == ref.reshape(-1)[0]).all():  # one value throughout says nothing
        return None
    plain = _error(ref, port.reshape(ref.shape)) if port.shape == ref.shape else math.inf
    if plain <= FITS / 10:
        return None
    found: dict[str, tuple[float, np.ndarray]] = {}
    for text, view in _candidates(port, ref):
        if text not in found:
            error = _error(ref, view)
            if error <= FITS and error <= plain / 10:
                found[text] = (error, view)
    if not found:
        return None
    best = min(error for error, _ in found.values())
    equal_ones = [text for text, (error, _) in found.items() if error <= 2 * best + 1e-12]
    text = min(equal_ones, key=lambda t: (t.count("="), len(t)))
    view = found[text][1]
    others = tuple(repr(t) for t in equal_ones if t != text and not bits_equal(np.ascontiguousarray(found[t][1]), np.ascontiguousarray(view)))
    return Proposal(names[0], names[1], text, *_shares(ref, view), best, others[:4])


def _candidates(port: np.ndarray, ref: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(text, the port's array in that layout) of every layout whose shape fits and which a sample of the elements does not refute."""
    given = tuple(n for n in port.shape if n != 1)
    wanted = tuple(n for n in ref.shape if n != 1)
    if max(len(given), len(wanted)) > MAX_AXES - 1:
        return
    rng = np.random.default_rng(0)
    tried = set()
    for atoms, wants_sizes in _factors(given, wanted):
        for order in itertools.permutations(range(len(atoms))):
            moved = tuple(atoms[i] for i in order)
            key = (atoms, order)
            if key in tried or not _groups(moved, wanted):
                continue
            tried.add(key)
            view = port.reshape(atoms).transpose(order)
            if _sample_fits(ref.reshape(moved), view, rng):
                yield _text(port.shape, atoms, order, ref.shape, wants_sizes), view.reshape(ref.shape)


def _factors(given: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Ways to take the port's axes apart: not at all, into factors of which the reference's axes are made, one axis in two, one around a 2."""
    yield given, False
    for order in itertools.permutations(wanted):  # the reference has more axes: the port's are products of them
        if _groups(order, given):
            yield order, False
    for axis, n in enumerate(given):
        before, after = given[:axis], given[axis + 1:]
        for a in range(2, n // 2 + 1):
            if n % a == 0 and len(given) < MAX_AXES - 1:
                yield (*before, a, n // a, *after), True
                if (n // a) % 2 == 0 and n // a > 2:  # halves and pairs within heads: rope
                    yield (*before, a, n // a // 2, 2, *after), True
                    yield (*before, a, 2, n // a // 2, *after), True


def _groups(atoms: Sequence[int], dims: Sequence[int]) -> bool:
    """Whether consecutive atoms multiply to the dims, in order."""
    i = 0
    for n in dims:
        product = 1
        while product < n and i < len(atoms):
            product *= atoms[i]
            i += 1
        if product != n:
            return False
    return i == len(atoms)


def _text(given: tuple[int, ...], atoms: tuple[int, ...], order: tuple[int, ...], wanted: tuple[int, ...], wants_sizes: bool) -> str:
    """The layout's text, with the lengths that the shapes do not tell."""
    left = _side(given, [_LETTERS[i] for i in range(len(atoms))], atoms)
    right = _side(wanted, [_LETTERS[i] for i in order], [atoms[i] for i in order])
    if wants_sizes:
        from .layout import LayoutError, parse

        for letter in ("", *_LETTERS[:len(atoms)]):  # the fewest that are needed, from the left
            text = f"{left} -> {right}"
            try:
                parse(text).lengths([given], [wanted])
                return text
            except LayoutError:
                following = _LETTERS[_LETTERS.index(letter) + 1] if letter else _LETTERS[0]
            grouped = [i for i, c in enumerate(left) if c == following]
            if grouped and left[:grouped[0]].count("(") > left[:grouped[0]].count(")"):
                left = left.replace(following, f"{following}={atoms[_LETTERS.index(following)]}", 1)
    return f"{left} -> {right}"


def _side(dims: tuple[int, ...], letters: list[str], atoms: Sequence[int]) -> str:
    words, i = [], 0
    for n in dims:
        if n == 1:
            words.append("1")
            continue
        group, product = [], 1
        while product < n:
            product *= atoms[i]
            group.append(letters[i])
            i += 1
        words.append(group[0] if len(group) == 1 else f"({' '.join(group)})")
    return " ".join(words)


def _sample_fits(ref: np.ndarray, view: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether most of some elements agree roughly: what no wrong permutation of varied values does."""
    index = tuple(rng.integers(0, n, _SAMPLE) for n in ref.shape)
    with np.errstate(all="ignore"):
        e, a = ref[index].astype(np.float64), view[index].astype(np.float64)
        size = np.abs(e)
        middle = np.median(size[np.isfinite(size)]) if np.isfinite(size).any() else 0.0
        near = (np.abs(a - e) <= 0.25 * (size + middle)) | (a == e) | (np.isnan(a) & np.isnan(e))
    return bool(near.mean() >= 0.9)


def _error(ref: np.ndarray, view: np.ndarray) -> float:
    """Relative rms error; infinite where one side alone is not finite."""
    with np.errstate(all="ignore"):
        e, a = ref.astype(np.float64), view.astype(np.float64)
        difference = np.where((e == a) | (np.isnan(e) & np.isnan(a)), 0.0, a - e)
        size = float(np.sum(np.where(np.isfinite(e), e, 0.0) ** 2))
        error = float(np.sum(difference ** 2))
    return math.sqrt(error / size) if size > 0 and math.isfinite(error) else math.inf


def _shares(ref: np.ndarray, view: np.ndarray) -> tuple[float, float]:
    """(share of bit-equal elements, share within CLOSE of the element's and its row's size)."""
    with np.errstate(all="ignore"):
        equal = (ref == view) | (np.isnan(ref) & np.isnan(view))
        e = ref.astype(np.float64)
        close = equal | (np.abs(view.astype(np.float64) - e) <= CLOSE * (np.abs(e) + typical_size(ref)))
    return float(equal.mean()), float(close.mean())


# ---------------------------------------------------------------- pairs of tensors


def propose_pairs(port: Mapping[str, Any], unmatched: Iterable[str], reference: Mapping[str, Any], missing: Iterable[str],
                  ended: list[str] | None = None) -> list[Proposal]:
    """For each of the port's tensors that has no counterpart the one of the reference's whose values it has, if there is one.

    unmatched : names of the port that no name of the reference is for. missing : names of the reference that the port lacks.
    Only tensors of varied floats are looked at; among equal ones the most similar name is proposed, with the others in `also`.
    ended : gets a sentence if not everything could be looked at.
    """
    from .fused import fused

    theirs, read = _prints(port, unmatched, 0)
    ours, read = _prints(reference, missing, read)
    by_size: dict[int, list[tuple[str, tuple[float, ...]]]] = {}
    for name, (size, moments) in ours.items():
        by_size.setdefault(size, []).append((name, moments))
    found, pairs, searches = [], 0, 0
    for name, (size, moments) in theirs.items():
        fitting = []
        for ref, other in by_size.get(size, ()):
            if pairs < MAX_PAIRS and all(abs(x - y) <= FITS * max(abs(x), abs(y), 1e-300) for x, y in zip(moments, other)):
                pairs += 1
                one = _plain_pair(as_array(port[name]), as_array(reference[ref]), (name, ref))
                if one is not None:
                    fitting.append(one)
        for ref, other in by_size.get(size, ()) if not fitting else ():
            if searches < MAX_SEARCHES and all(abs(x - y) <= SAME_MOMENTS * max(abs(x), abs(y), 1e-300) for x, y in zip(moments, other)):
                searches += 1
                one = propose_layout(as_array(port[name]), as_array(reference[ref]), (name, ref))
                if one is not None:
                    fitting.append(one)
        if fitting:
            found.append(_best(fitting))
    done = {name for one in found for name in (one.port, one.ref)}
    found += fused({name: as_array(port[name]) for name in theirs if name not in done}, {name: as_array(reference[name]) for name in ours if name not in done})
    if ended is not None and (read > MAX_ELEMS or pairs >= MAX_PAIRS or searches >= MAX_SEARCHES):
        ended.append(f"the search for names by values was ended early ({min(read, MAX_ELEMS):,} elements read, {pairs:,} pairs and {searches} layouts looked at): more may fit")
    return found


def _plain_pair(port: np.ndarray, ref: np.ndarray, names: tuple[str, str]) -> Proposal | None:
    """The proposal of a pair whose elements stand in the same order, but for axes of length one."""
    dims = tuple(n for n in port.shape if n != 1)
    if dims != tuple(n for n in ref.shape if n != 1) or len(dims) > len(_LETTERS):
        return None
    view = port.reshape(ref.shape)
    error = _error(ref, view) if _sample_fits(ref, view, np.random.default_rng(0)) else math.inf
    if error > FITS:
        return None
    layout = None if port.shape == ref.shape else _text(port.shape, dims, tuple(range(len(dims))), ref.shape, False)
    return Proposal(*names, layout, *_shares(ref, view), error)


def _best(fitting: list[Proposal]) -> Proposal:
    """The one of the least error; among those of the same error that of the most similar name, the others named beside it."""
    least = min(p.error for p in fitting)
    rivals = [p for p in fitting if p.error <= 2 * least + 1e-12]
    rivals.sort(key=lambda p: -SequenceMatcher(None, p.port, p.ref).ratio())
    best = rivals[0]
    also = best.also + tuple(p.ref for p in rivals[1:5])
    return Proposal(best.port, best.ref, best.layout, best.equal, best.close, best.error, also)


def _prints(arrays: Mapping[str, Any], names: Iterable[str], read: int) -> tuple[dict[str, tuple[int, tuple[float, ...]]], int]:
    """(name to (size, moments that no order of the elements changes), elements read)."""
    found = {}
    for name in names:
        if read > MAX_ELEMS:
            break
        try:
            array = as_array(arrays[name])
        except PortingError:
            continue
        if array.size < 8 or array.dtype.name not in UNIT_ROUNDOFF or array.dtype.kind == "c":
            continue
        read += array.size
        wide = np.abs(array.astype(np.float64))
        wide = wide[np.isfinite(wide)]
        if wide.size and wide.max() > wide.min():
            found[name] = (array.size, (float(wide.mean()), float(np.sqrt((wide * wide).mean())), float((wide ** 4).mean() ** 0.25)))
    return found, read


class Search:
    """Looks for layouts for the rows of one report, as long as its budget lasts, and says in a row's reason what it found."""

    def __init__(self, budget: int = MAX_LAYOUTS) -> None:
        self.found: list[Proposal] = []
        self._budget = budget
        self.looked: list[str] = []
        self.ended: list[str] = []  # sentences about what was not looked at

    def look(self, row: Any, expected: np.ndarray, actual: np.ndarray, name: str = "") -> None:
        """For a row that was refused: is it only the layout? name : the port's, where it is another one."""
        refused = row.status == "shape" or (row.status == "compared" and not row.passed)
        if not refused or expected.size != actual.size:
            return
        if self._budget <= 0:
            self.ended = self.ended or [f"layouts were looked for in the first {len(self.looked)} refused tensors only: more may fit"]
            return
        self.looked.append(row.name)
        self._budget -= 1
        proposal = propose_layout(actual, expected, (name or row.name, row.name))
        if proposal is not None:
            self.found.append(proposal)
            row.reason += f"; layout {proposal.layout!r} would make {_share(proposal.close)} of it agree"
