"""Several tensors of the reference in one of the port's: q, k and v, or gate and up, end to end along an axis or head by head. Told by the values.

What it does not do: find them where an axis is also moved, or where the port's tensor holds more than the reference has.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .propose import FITS, Proposal, _error, _sample_fits, _shares, _side

MAX_TRIES = 20000  # pairs of tensors that are looked at
MOST_PARTS = 8
_PROBES = 16
_AXES = "abcefg"  # d, h and z are the parts of heads
_PARTS = "xyzuvwst"


def fused(port: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> list[Proposal]:
    """For each of the port's tensors the reference's that it is made of, if all of it is accounted for.

    port, reference : name to array, of those that have no counterpart yet. Each of the reference's is proposed once at most.
    """
    found, taken, tries = [], set(), 0
    by_ndim: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, array in reference.items():
        by_ndim.setdefault(len(_dims(array)), []).append((name, array))
    for name, array in port.items():
        others = [(ref, one) for ref, one in by_ndim.get(len(_dims(array)), ()) if ref not in taken and _axis(array, one) is not None]
        tries += len(others)
        if tries > MAX_TRIES:
            break
        proposal = next((p for p in (_end_to_end(name, array, others), _by_heads(name, array, others)) if p is not None), None)
        if proposal is not None:
            taken.update(proposal.refs)
            found.append(proposal)
    return found


def _dims(array: np.ndarray) -> tuple[int, ...]:
    return tuple(n for n in array.shape if n != 1)


def _axis(port: np.ndarray, ref: np.ndarray) -> int | None:
    """The only axis (axes of length one left out) in which the two differ, the port's being the longer; None if they differ otherwise."""
    given, wanted = _dims(port), _dims(ref)
    other = [i for i, (a, b) in enumerate(zip(given, wanted)) if a != b]
    return other[0] if len(other) == 1 and given[other[0]] > wanted[other[0]] and len(given) <= len(_AXES) else None


def _places(port: np.ndarray, ref: np.ndarray, axis: int) -> Iterator[tuple[int, float]]:
    """(where the reference's tensor begins along the axis of the port's, relative error) of every place where it fits."""
    rng = np.random.default_rng(0)
    long, short = np.moveaxis(port.reshape(_dims(port)), axis, -1), np.moveaxis(ref.reshape(_dims(ref)), axis, -1)
    rows = tuple(rng.integers(0, n, _PROBES) for n in long.shape[:-1])
    at = rng.integers(0, short.shape[-1], _PROBES)
    wanted = short[(*rows, at)].astype(np.float64)
    starts = np.arange(long.shape[-1] - short.shape[-1] + 1)
    with np.errstate(all="ignore"):
        seen = long[tuple(r[:, None] for r in rows) + (starts[None] + at[:, None],)].astype(np.float64)
        near = np.abs(seen - wanted[:, None]) <= 0.25 * (np.abs(wanted) + np.median(np.abs(wanted)))[:, None]
    for start in starts[near.mean(0) >= 0.9]:
        view = long[..., start:start + short.shape[-1]]
        error = _error(short, view) if _sample_fits(short, view, rng) else np.inf
        if error <= FITS:
            yield int(start), error


def _end_to_end(name: str, array: np.ndarray, others: list[tuple[str, np.ndarray]]) -> Proposal | None:
    """One after the other along an axis: "b s q+k+v -> b s q, b s k, b s v"."""
    for axis, n in enumerate(_dims(array)):
        begins: dict[int, tuple[float, str, np.ndarray]] = {}
        for ref, one in others:
            if _axis(array, one) == axis:
                for start, error in _places(array, one, axis):
                    if start not in begins or error < begins[start][0]:
                        begins[start] = (error, ref, one)
        parts: list[tuple[str, np.ndarray]] = []
        end = 0
        while end < n and end in begins and len(parts) < MOST_PARTS:
            parts.append(begins[end][1:])
            end += _dims(begins[end][2])[axis]
        if end == n and len({ref for ref, _ in parts}) == len(parts) > 1:
            names = list(_PARTS[:len(parts)])
            left = _worded(array, axis, "+".join(names))
            text = f"{left} -> {', '.join(_worded(one, axis, part) for part, (_, one) in zip(names, parts))}"
            return _proposal(name, array, parts, text)
    return None


def _by_heads(name: str, array: np.ndarray, others: list[tuple[str, np.ndarray]]) -> Proposal | None:
    """Head by head, each with a part of every tensor: "b s (h=9 z d) -> b s (h d)"."""
    dims = _dims(array)
    for axis, n in enumerate(dims):
        for count in range(2, MOST_PARTS + 1):
            fitting = [(ref, one) for ref, one in others if n % count == 0 and _axis(array, one) == axis and _dims(one)[axis] == n // count]
            for heads in (h for h in range(2, n // count + 1) if (n // count) % h == 0) if len(fitting) >= count else ():
                view = array.reshape(*dims[:axis], heads, count, n // count // heads, *dims[axis + 1:])
                parts = []
                for which in range(count):
                    part = view.take(which, axis + 1).reshape(*dims[:axis], n // count, *dims[axis + 1:])
                    fits = [(ref, one) for ref, one in fitting if ref not in {r for r, _ in parts} and _fits(one, part)]
                    if not fits:
                        break
                    parts.append(fits[0])
                if len(parts) == count:
                    left = _worded(array, axis, f"(h={heads} z d)" if n // count > heads else f"(h={heads} z)")
                    return _proposal(name, array, parts, f"{left} -> {_worded(parts[0][1], axis, '(h d)' if n // count > heads else 'h')}")
    return None


def _fits(ref: np.ndarray, part: np.ndarray) -> bool:
    expected = ref.reshape(part.shape)
    return _sample_fits(expected, part, np.random.default_rng(0)) and _error(expected, part) <= FITS


def _worded(array: np.ndarray, axis: int, words: str) -> str:
    """One side of a layout: letters for the axes, the words for one of them, 1 for those of length one."""
    side = _side(array.shape, list(_AXES), _dims(array)).split(" ")
    place = [i for i, n in enumerate(array.shape) if n != 1][axis]
    side[place] = words
    return " ".join(side)


def _proposal(name: str, array: np.ndarray, parts: list[tuple[str, np.ndarray]], text: str) -> Proposal | None:
    """The proposal of a layout, measured as the layout itself takes the port's tensor apart."""
    from .layout import LayoutError, parse

    refs = [one for _, one in parts]
    try:
        found = parse(text).apply([array], [one.shape for one in refs])
    except LayoutError:
        return None
    e, a = (np.concatenate([np.ravel(x) for x in arrays]) for arrays in (refs, found))
    names = tuple(ref for ref, _ in parts)
    return Proposal(name, names[0], text, *_shares(e, a), _error(e, a), (), names)
