"""Rotary embeddings, positions and embedding tables.

A rotation is found by what it does, not by the ops it is written in: a value whose pairs of numbers have the lengths of an earlier value's pairs.
So halves, neighbours, partial rotations, complex products and fused forms are all one thing, and the angles are read from the numbers.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from .case import UNITS, Case
from .hypothesis import Hypothesis, generator, overridden

BASES = (10000.0, 500000.0, 1000000.0, 100000.0, 160000.0, 5000000.0, 250000.0, 8000000.0, 150000.0)
MATCH = 1e-4


@dataclass
class Rotation:
    """y = x with its first `size` numbers rotated in pairs. angles: (T, size / 2), the sign included; neighbours: pairs (2i, 2i + 1), else (i, i + size / 2)."""

    x: int
    y: int
    size: int
    neighbours: bool
    angles: np.ndarray
    axis: int  # of positions
    noise: float = 0.0  # of the angles, at most: they are read from rounded numbers
    gain: float = 1.0  # tables that are scaled make the pairs longer, too


def to_pairs(x: np.ndarray, neighbours: bool) -> np.ndarray:
    """(.., size) as complex (.., size / 2)."""
    half = x.shape[-1] // 2
    return x[..., ::2] + 1j * x[..., 1::2] if neighbours else x[..., :half] + 1j * x[..., half:]


def from_pairs(z: np.ndarray, neighbours: bool) -> np.ndarray:
    if neighbours:
        return np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], -1)
    return np.concatenate([z.real, z.imag], axis=-1)


def find_rotations(case: Case) -> list[Rotation]:
    """Every rotation in the program: for each value that ends one, the nearest earlier value of its shape that it rotates."""
    if "rotations" in case._memory:
        return case._memory["rotations"]
    found: list[Rotation] = []
    if any(op.base in ("mul", "cat", "stack", "index_put") for op in case.ops):
        values = case.intermediates()
        for op in case.ops:
            if op.base not in ("add", "cat", "view", "_unsafe_view", "sub", "clone", "reshape") or not op.outputs or op.outputs[0] is None:
                continue
            y = op.outputs[0]
            shape = case.values[y][1]
            if len(shape) < 3 or shape[-1] % 2 or not case.is_floating(y) or any(r.y == case.source(y) for r in found):
                continue
            for x in ancestors(case, y):
                one = rotation(values[x], values[y], x, y) if values.get(x) is not None and x != y else None
                if one is not None:
                    found = [r for r in found if not (r.y == x)]
                    found.append(one)
                    break
    case._memory["rotations"] = found
    return found


def ancestors(case: Case, value: int) -> list[int]:
    """Up to four values of the same shape that this one is computed from, nearest first, at most 14 ops back."""
    shape, found, level, seen = case.values[value][1], [], [value], {value}
    for _ in range(14):
        below = []
        for v in level:
            made = case.producers.get(v)
            for u in case.ops[made].inputs if made is not None else ():
                if u not in seen:
                    seen.add(u)
                    below.append(u)
                    if case.values[u][1] == shape and case.is_floating(u):
                        found.append(u)
        level = below
        if len(seen) > 60:
            break
    return found[:4]


def rotation(x: np.ndarray, y: np.ndarray, x_number: int, y_number: int) -> Rotation | None:
    """The rotation that takes x to y, or None. The axis of positions is the one along which the angles differ."""
    noise = 4 * UNITS.get(y.dtype.name, 0.0)
    match = max(MATCH, noise)
    x, y = x.astype(np.float64), y.astype(np.float64)
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if np.allclose(x, y, rtol=1e-6, atol=1e-7):
        return None
    same = np.isclose(x, y, rtol=0, atol=1e-7 * np.abs(x).max()).all(axis=tuple(range(x.ndim - 1)))
    moved = np.flatnonzero(~same)
    if not moved.size:
        return None
    sizes = dict.fromkeys(s for s in (int(moved[-1]) + 1, x.shape[-1]) if s % 2 == 0)
    for size in sizes:
        for neighbours in (False, True):
            a, b = to_pairs(x[..., :size], neighbours), to_pairs(y[..., :size], neighbours)
            gain = float(np.sqrt(np.sum(np.abs(b) ** 2) / max(np.sum(np.abs(a) ** 2), 1e-300)))
            if not 0.25 < gain < 4.0:
                continue
            a *= gain
            scale = np.abs(a).max()
            if np.abs(np.abs(a) - np.abs(b)).max() > match * scale:
                continue
            if np.abs(a - b).max() <= match * scale:
                continue  # a turn too small to be told from none, such as that of adding an eps
            turn = b * a.conj()
            for axis in range(x.ndim - 2, 0, -1):
                total = turn.sum(axis=tuple(i for i in range(x.ndim - 1) if i != axis))
                angles = np.angle(total)
                shape = [1] * x.ndim
                shape[axis], shape[-1] = angles.shape
                if np.abs(a * np.exp(1j * angles.reshape(shape)) - b).max() <= match * scale:
                    return Rotation(x_number, y_number, size, neighbours, angles, axis, noise, gain if abs(gain - 1) > match else 1.0)
    return None


def rotate(r: Rotation, x: np.ndarray, angles: np.ndarray, neighbours: bool | None = None, size: int | None = None, after: bool | None = None) -> np.ndarray:
    """x rotated by (T, size / 2) angles; after: how the rotated pairs are laid out, if not as they were."""
    neighbours = r.neighbours if neighbours is None else neighbours
    size = size or r.size
    shape = [1] * x.ndim
    shape[r.axis], shape[-1] = angles.shape
    z = to_pairs(x[..., :size].astype(np.float64), neighbours) * np.exp(1j * angles.reshape(shape)) * r.gain
    return np.ascontiguousarray(np.concatenate([from_pairs(z, neighbours if after is None else after), x[..., size:].astype(np.float64)], axis=-1)).astype(x.dtype)


def speeds(r: Rotation) -> np.ndarray | None:
    """Angle per position of each pair, from positions 0 and 1, made better by those further off; None for one position."""
    if len(r.angles) < 2:
        return None
    step = np.angle(np.exp(1j * (r.angles[1] - r.angles[0])))
    n = 2
    while n < len(r.angles):
        step = step + np.angle(np.exp(1j * (r.angles[n] - r.angles[0] - n * step))) / n
        n *= 2
    return step


def first_position(r: Rotation) -> float:
    """The position of the first row: from the slowest pair, that has not gone round."""
    step = speeds(r)
    if step is None or not np.abs(step).max():
        return 0.0
    usable = np.flatnonzero(np.abs(step) > max(1e-6, 2 * r.noise))
    return float(np.round(r.angles[0, usable[-1]] / step[usable[-1]])) if len(usable) else 0.0


@generator
def rotary(case: Case) -> Iterator[Hypothesis]:
    """Layout, direction, absence, offset of positions, base, partial and whole; on q, on k, on both."""
    found = find_rotations(case)
    groups = [found] + ([[one] for one in found] if len(found) > 1 else [])
    for group in groups if found else ():
        which = "" if group is found else f" (only the one of {case.values[group[0].y][1]})"

        def changed(cause: str, detail: str, formula: Callable, group: list[Rotation] = group, which: str = which) -> Hypothesis:
            return overridden(case, cause, detail + which, lambda: {r.y: formula(r, case.intermediates()[r.x]) for r in group})

        here, there = ("neighbouring pairs", "the two halves") if not group[0].neighbours else ("the two halves", "neighbouring pairs")
        yield changed("rope-interleaved", f"port rotates {here}, reference {there}", lambda r, x: rotate(r, x, r.angles, not r.neighbours))
        yield changed("rope-interleaved", f"port rotates {here} with the tables of {there}", lambda r, x: mixed_tables(r, x))
        yield changed("rope-interleaved", f"port rotates {there} with the tables of {here}", lambda r, x: other_tables(r, x))
        yield changed("rope-interleaved", f"port leaves the result laid out as {here}", lambda r, x: rotate(r, x, r.angles, after=not r.neighbours))
        yield changed("rope-sign", "port rotates in the other direction", lambda r, x: rotate(r, x, -r.angles))
        yield changed("rope-sign", "port exchanges sine and cosine", lambda r, x: rotate(r, x, np.pi / 2 - r.angles))
        shape = case.values[group[0].y][1]
        if len(shape) == 4 and shape[1] > 1 and group[0].axis == 2:
            for words, kept in (("the first head", lambda n: np.arange(n) == 0), ("the first half of the heads", lambda n: np.arange(n) < n // 2), ("all heads but the last", lambda n: np.arange(n) < n - 1)):
                yield changed("rope-absent", f"port rotates {words} alone", lambda r, x, k=kept: np.where(k(x.shape[1])[:, None, None], rotate(r, x, r.angles), x))
        yield changed("rope-sign", "port negates neither half of each pair: the sine is added to both", lambda r, x: not_negated(r, x))
        for label, dtype in (("bf16", ml_dtypes.bfloat16), ("f16", np.float16)):
            detail = f"port has the angles of the rotary embedding in {label}"
            yield changed("rope-precision", detail, lambda r, x, t=dtype: rotate(r, x, unwrapped(r).astype(t).astype(np.float64)))
            yield changed("rope-precision", detail, lambda r, x, t=dtype: rotate(r, x, r.angles.astype(t).astype(np.float64)))
        yield changed("rope-absent", "port does not apply the rotary embedding", lambda r, x: x)
        if group[0].gain != 1:
            yield changed("rope-scaling", f"port leaves out the factor {group[0].gain:.6g} of the rotary tables", lambda r, x: rotate(replace(r, gain=1.0), x, r.angles))
        yield changed("rope-twice", "port applies the rotary embedding twice", lambda r, x: rotate(r, x, 2 * r.angles))
        yield from positions(case, group, changed)


@generator
def rotated_values(case: Case) -> Iterator[Hypothesis]:
    """The values of attention rotated as the keys are."""
    found = find_rotations(case)
    for op in case.ops if found else ():
        if not op.base.startswith("_scaled_dot_product"):
            continue
        key, value = op.inputs[1:3]
        for r in found:
            if case.source(r.y) == case.source(key) and case.values[key][1] == case.values[value][1]:
                detail = "port applies the rotary embedding to the values too"
                axis = next(a for a in range(1, len(case.values[value][1]) - 1) if case.values[value][1][a] == len(r.angles))
                yield overridden(case, "rope-on-values", detail, lambda r=r, v=value, a=axis: {v: rotate(replace(r, axis=a), case.intermediates()[v], r.angles)})
                break


def mixed_tables(r: Rotation, x: np.ndarray) -> np.ndarray:
    """x * cos + other_half(x) * sin with the tables of one layout and the pairs of the other."""
    full = np.concatenate([r.angles, r.angles], axis=-1) if not r.neighbours else np.repeat(r.angles, 2, axis=-1)
    shape = [1] * x.ndim
    shape[r.axis], shape[-1] = full.shape
    part = x[..., : r.size].astype(np.float64)
    turned = from_pairs(1j * to_pairs(part, not r.neighbours), not r.neighbours)
    return np.concatenate([r.gain * (part * np.cos(full.reshape(shape)) + turned * np.sin(full.reshape(shape))), x[..., r.size :]], axis=-1).astype(x.dtype)


def other_tables(r: Rotation, x: np.ndarray) -> np.ndarray:
    """The pairs as they are, with tables in the order of the other layout."""
    full = np.repeat(r.angles, 2, axis=-1) if not r.neighbours else np.concatenate([r.angles, r.angles], axis=-1)
    return with_tables(r, x, np.cos(full), np.sin(full))


def not_negated(r: Rotation, x: np.ndarray) -> np.ndarray:
    """x cos + (the other of each pair) sin."""
    full = np.concatenate([r.angles, r.angles], axis=-1) if not r.neighbours else np.repeat(r.angles, 2, axis=-1)
    sign = from_pairs(np.full(r.size // 2, -1 + 1j), r.neighbours)
    return with_tables(r, x, np.cos(full), np.sin(full) * sign)


def with_tables(r: Rotation, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """x cos + i x sin with tables (T, size) of any content."""
    shape = [1] * x.ndim
    shape[r.axis], shape[-1] = cos.shape
    part = x[..., : r.size].astype(np.float64)
    turned = from_pairs(1j * to_pairs(part, r.neighbours), r.neighbours)
    return np.concatenate([part * cos.reshape(shape) + turned * sin.reshape(shape), x[..., r.size :]], axis=-1).astype(x.dtype)


def unwrapped(r: Rotation) -> np.ndarray:
    """Angles as position times speed, not brought into one turn."""
    step = speeds(r)
    return r.angles if step is None else (first_position(r) + np.arange(len(r.angles)))[:, None] * step


def positions(case: Case, group: list[Rotation], changed: Callable) -> Iterator[Hypothesis]:
    """Other positions, other speeds."""
    step = speeds(group[0])
    if step is None:
        return
    start = first_position(group[0])
    for by in (1, -1):
        yield changed("rope-offset", f"port's positions are {by:+d} against the reference's", lambda r, x, by=by: rotate(r, x, r.angles + by * speeds(r)))
    if start:
        yield changed("rope-offset", "port counts positions from 0, not from where the cache ends", lambda r, x: rotate(r, x, np.arange(len(r.angles))[:, None] * speeds(r)))
    n = len(group[0].angles)
    yield changed("rope-reversed", "port has the positions in reverse order", lambda r, x: rotate(r, x, r.angles[::-1]))
    yield changed("rope-offset", "port uses position 0 everywhere", lambda r, x: rotate(r, x, np.repeat(r.angles[:1], len(r.angles), 0)))
    at = start + np.arange(n)
    for words, chosen in (("halved and cut to whole numbers", at // 2), ("one slot later, the first twice", np.maximum(at - 1, start)), ("turned by one slot", start + np.roll(np.arange(n), 1)),
                          ("turned back by one slot", start + np.roll(np.arange(n), -1)), *((f"the remainder by {m}", at % m) for m in (4, 8, 16, 32, 64, 128, 256) if m <= at[-1])):  # fmt: skip
        yield changed("rope-offset", f"port's positions are {words}", lambda r, x, c=chosen: rotate(r, x, r.angles + (c - at)[:, None] * speeds(r)))
    for base in BASES:
        detail = f"port's rotary base is {base:g}"
        yield changed("rope-base", detail, lambda r, x, b=base, at=at: rotate(r, x, np.sign(lead(r)) * at[:, None] * b ** (-np.arange(r.size // 2) * 2 / r.size)))
    for factor in (2.0, 4.0, 8.0, 0.5, 0.25):
        detail = f"port's angles are {factor:g} times the reference's (scaling of positions)"
        yield changed("rope-scaling", detail, lambda r, x, f=factor, at=at: rotate(r, x, f * at[:, None] * speeds(r)))
    width = case.values[group[0].y][1][-1]
    if group[0].size < width:
        yield changed("rope-partial", f"port rotates all {width} numbers, reference {group[0].size}",
                      lambda r, x, w=width, at=at: rotate(r, x, at[:, None] * speeds_for(r, w), size=w))  # fmt: skip
    for share in (2, 4):
        size = width // share
        if size % 2 == 0 and size and size < group[0].size:
            yield changed("rope-partial", f"port rotates {size} of {width} numbers, reference {group[0].size}",
                          lambda r, x, w=size, at=at: rotate(r, x, at[:, None] * speeds_for(r, w), size=w))  # fmt: skip
            yield changed("rope-partial", f"port rotates {size} of {width} numbers with the tables for {group[0].size}",
                          lambda r, x, w=size: rotate(r, x, r.angles[:, : w // 2], size=w))  # fmt: skip
            yield changed("rope-partial", f"port rotates the first {size // 2} of {group[0].size // 2} pairs, reference all",
                          lambda r, x, w=size: rotate(r, x, np.where(np.arange(r.size // 2) < w // 2, r.angles, 0.0)))  # fmt: skip


def lead(r: Rotation) -> float:
    step = speeds(r)
    return float(step[0]) if step is not None else 1.0


def speeds_for(r: Rotation, size: int) -> np.ndarray:
    """Speeds of another rotated width with the same base."""
    step = np.abs(speeds(r))
    if len(step) < 2 or step[1] <= 0:
        return np.ones(size // 2) * step[0]
    base = (step[0] / step[-1]) ** (len(step) / (len(step) - 1)) if step[-1] > 0 else 1e4
    return np.sign(lead(r)) * base ** (-np.arange(size // 2) * 2 / size)


# ---------------------------------------------------------------- tables of angles


def is_frequencies(x: np.ndarray) -> bool:
    """A falling row that starts at 1, as frequencies of rotations do."""
    return x.ndim == 1 and 1 < x.size <= 512 and x.dtype.kind == "f" and abs(float(x[0]) - 1) < 1e-3 and bool((np.diff(x) < 0).all()) and float(x[-1]) > 0


@generator
def frequencies(case: Case) -> Iterator[Hypothesis]:
    """A module that makes the tables of angles: another base, scaling ignored or added."""
    for v, x in case.feeds.items():
        if not is_frequencies(x):
            continue
        n = x.size
        i = np.arange(n) / n
        pure = float(x[1]) ** (np.arange(n))
        if not np.allclose(pure, x, rtol=1e-3):
            yield overridden(case, "rope-scaling", "port ignores the scaling of the rotary frequencies", lambda v=v, p=pure, t=x.dtype: {v: p.astype(t)})
            factor = float(np.round(pure[-1] / x[-1], 3))
            for whole in range(n + 1):
                detail = f"port scales all but the first {whole} of {n} rotary frequencies by 1/{factor:g}, with nothing between"
                yield overridden(case, "rope-scaling", detail, lambda v=v, p=pure, w=whole, f=factor, t=x.dtype: {v: np.where(np.arange(len(p)) < w, p, p / f).astype(t)})
        for base in BASES:
            yield overridden(case, "rope-base", f"port's rotary base is {base:g}", lambda v=v, b=base, i=i, t=x.dtype: {v: (b**-i).astype(t)})
        for factor in (2.0, 4.0, 8.0, 16.0, 32.0, 0.5, 0.25, 0.125):
            yield overridden(case, "rope-scaling", f"port's rotary frequencies are {factor:g} times the reference's", lambda v=v, f=factor, x=x: {v: (x * f).astype(x.dtype)})


@generator
def position_inputs(case: Case) -> Iterator[Hypothesis]:
    """Whole numbers that the module is given, as positions are: moved, from 0, ignored."""
    for v in case.feeds:
        x = case.feeds[v]
        if x.dtype.kind != "i" or x.size == 0 or any(case.ops[i].base == "embedding" for i in case.users(v)):
            continue
        name = case.leaves.get(v, "a constant")
        for by in (1, -1):
            yield overridden(case, "position-offset", f"port has {name} moved by {by:+d}", lambda v=v, by=by: {v: case.feeds[v] + by})
        for words, change in (("halved", lambda x: x // 2), ("in reverse order", lambda x: x[..., ::-1]), ("turned by one", lambda x: np.roll(x, 1, axis=-1)),
                              *((f"as the remainder by {m}", lambda x, m=m: x % m) for m in (8, 16, 32, 64, 128, 256) if m <= x.max())):  # fmt: skip
            if x.ndim:
                yield overridden(case, "position-offset", f"port has {name} {words}", lambda v=v, c=change: {v: np.ascontiguousarray(c(case.feeds[v]))})
        yield overridden(case, "position-offset", f"port ignores {name}: 0 everywhere", lambda v=v: {v: np.zeros_like(case.feeds[v])})
        counted = np.broadcast_to(np.arange(x.shape[-1], dtype=x.dtype), x.shape) if x.ndim else x
        if x.ndim and not np.array_equal(counted, x):
            yield overridden(case, "position-offset", f"port counts {name} from 0", lambda v=v, c=counted: {v: np.ascontiguousarray(c)})


# ---------------------------------------------------------------- embeddings


@generator
def embeddings(case: Case) -> Iterator[Hypothesis]:
    """Indices off by one or two, ignored, and the embedding's scale."""
    for op in case.ops:
        if op.base != "embedding":
            continue
        table, index = op.inputs[:2]
        rows, width = case.values[table][1]
        for by in (1, -1, 2, -2):
            yield overridden(case, "embedding-offset", f"port looks up index {by:+d}", lambda by=by, i=index, n=rows: {i: np.clip(case.intermediates()[i] + by, 0, n - 1)})
        if int(case.intermediates()[index].max(initial=0)) == rows - 1:
            yield overridden(case, "embedding-offset", "port looks up index +1, the first after the last", lambda i=index, n=rows: {i: (case.intermediates()[i] + 1) % n})
        highest = int(case.intermediates()[index].max(initial=0))
        for words, change in (*((f"index modulo {m}", lambda x, m=m: x % m) for m in (16, 32, 64, 128, 256, 512, 1024, 32768, 65536) if m <= highest), ("indices in reverse order", lambda x: x[..., ::-1]),
                              ("transposed indices", lambda x: x.swapaxes(-1, -2) if x.ndim > 1 and x.shape[-1] == x.shape[-2] else x)):  # fmt: skip
            cause = "embedding-wrapped" if words.startswith("index") else "axes-order" if words.startswith("transposed") else "embedding-offset"
            yield overridden(case, cause, f"port looks up {words}", lambda i=index, c=change: {i: np.ascontiguousarray(c(case.intermediates()[i]))})
        yield overridden(case, "embedding-ignored", "port looks up index 0 everywhere", lambda i=index: {i: np.zeros_like(case.intermediates()[i])})
        for label, factor in (("sqrt of the width", width**0.5), ("1/sqrt of the width", width**-0.5)):
            yield overridden(
                case, "embedding-scale", f"port multiplies the embedding by {factor:.6g} ({label})",
                lambda o=op.outputs[0], f=factor: {o: (case.intermediates()[o] * np.float32(f))},
            )  # fmt: skip
