"""Weights as a port stores them: in tiles, with scales of their own, under a function; and mistakes in reading them back."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .case import Case
from .hypothesis import Hypothesis, generator, overridden
from .weights import neighbour, simple

TILE, FACE = 32, 16


def into_tiles(w: np.ndarray, tile: int) -> np.ndarray:
    """(O, I) as (O / tile, I / tile, tile, tile)."""
    return w.reshape(w.shape[0] // tile, tile, w.shape[1] // tile, tile).swapaxes(1, 2)


def from_tiles(t: np.ndarray) -> np.ndarray:
    return t.swapaxes(1, 2).reshape(t.shape[0] * t.shape[2], t.shape[1] * t.shape[3])


def read_as_rows(w: np.ndarray, tile: int) -> np.ndarray:
    """What lies tile after tile, read row after row."""
    return np.ascontiguousarray(into_tiles(w, tile)).reshape(w.shape)


def read_as_tiles(w: np.ndarray, tile: int) -> np.ndarray:
    """What lies row after row, read tile after tile."""
    return from_tiles(np.ascontiguousarray(w).reshape(w.shape[0] // tile, w.shape[1] // tile, tile, tile))


def each_tile(w: np.ndarray, tile: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return from_tiles(change(into_tiles(w, tile)))


def faces_exchanged(t: np.ndarray) -> np.ndarray:
    """The second and the third 16x16 face of each 32x32 tile in each other's place."""
    t = t.copy()
    upper = t[..., :FACE, FACE:].copy()
    t[..., :FACE, FACE:] = t[..., FACE:, :FACE]
    t[..., FACE:, :FACE] = upper
    return t


def faces_in_turn(t: np.ndarray) -> np.ndarray:
    """A tile whose faces lie one after the other, read row by row."""
    faces = np.stack([t[..., :FACE, :FACE], t[..., :FACE, FACE:], t[..., FACE:, :FACE], t[..., FACE:, FACE:]], axis=-3)
    return np.ascontiguousarray(faces).reshape(t.shape)


@generator
def tiles(case: Case) -> Iterator[Hypothesis]:
    """Tiles and faces in another order, or transposed within; what is tiled read as rows, and back; weight read as (O, I) and as (I, O)."""
    for v, name in case.parameters.items():
        shape = case.values[v][1]
        if len(shape) != 2 or not case.is_floating(v):
            continue
        for tile in (32, 16, 8, 4):
            if shape[0] % tile or shape[1] % tile or max(shape) == tile:
                continue
            changes = [("lie tile by tile and are read row by row", lambda w, t=tile: read_as_rows(w, t)), ("lie row by row and are read tile by tile", lambda w, t=tile: read_as_tiles(w, t)),
                       ("are transposed", lambda w, t=tile: each_tile(w, t, lambda x: x.swapaxes(-1, -2)))]  # fmt: skip
            if tile == TILE:
                changes += [("have their second and third face exchanged", lambda w: each_tile(w, TILE, faces_exchanged)), ("have their faces read row by row", lambda w: each_tile(w, TILE, faces_in_turn))]
            for words, change in changes:
                yield simple(case, "weight-tiles", f"port's {tile}x{tile} tiles of {name} {words}", v, change)
                yield simple(case, "weight-tiles", f"port's {tile}x{tile} tiles of {name}, transposed, {words}", v, lambda w, c=change: c(np.ascontiguousarray(w.T)).T)
            if shape[0] // tile == shape[1] // tile > 1:
                yield simple(case, "weight-tiles", f"port has the {tile}x{tile} tiles of {name} column by column", v, lambda w, t=tile: from_tiles(into_tiles(w, t).swapaxes(0, 1)))


@generator
def scales_of_others(case: Case) -> Iterator[Hypothesis]:
    """A quantised weight with the scales of the rows or blocks beside, or one scale for all, or none."""
    for v, name in case.parameters.items():
        shape = case.values[v][1]
        if len(shape) < 2 or case.dtype(v) != "F32":
            continue
        width = int(np.prod(shape[1:]))
        for size in dict.fromkeys((width, 32, 64, 128)):
            if width % size or shape[0] * width // size < 2:
                continue
            for levels in (127, 7):
                for by in (-1, 1):
                    detail = f"port has {name} in {levels * 2 + 1} steps for each {'row' if size == width else f'block of {size}'}, with the scale of the one {'after' if by < 0 else 'before'}"
                    yield simple(case, "quantisation-scale", detail, v, lambda w, z=size, n=levels, b=by: with_scale(w, z, n, lambda s: np.roll(s, b, axis=0)))
                if size == width:
                    yield simple(case, "quantisation-scale", f"port has {name} in {levels * 2 + 1} steps for each row, with the first row's scale", v,
                                 lambda w, z=size, n=levels: with_scale(w, z, n, lambda s: s[:1]))  # fmt: skip


def with_scale(w: np.ndarray, size: int, levels: int, other: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    rows = np.ascontiguousarray(w).reshape(-1, size)
    step = np.abs(rows).max(axis=1, keepdims=True) / np.float32(levels)
    step = np.where(step > 0, step, 1).astype(np.float32)
    return (np.round(rows / step) * other(step)).astype(w.dtype).reshape(w.shape)


FUNCTIONS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("the square", np.square), ("the root", lambda x: np.sqrt(np.abs(x))), ("the reciprocal", lambda x: 1 / x), ("the exponential", np.exp), ("the logarithm", lambda x: np.log(np.abs(x))),
    ("1 minus", lambda x: 1 - x), ("the absolute values", np.abs),
)  # fmt: skip


@generator
def functions(case: Case) -> Iterator[Hypothesis]:
    """A scale or bias applied twice (its square), or stored under a function that is not undone."""
    for v, name in case.parameters.items():
        if len(case.values[v][1]) == 1 and case.is_floating(v):
            for words, change in FUNCTIONS:
                def stored(w: np.ndarray, change: Callable = change) -> np.ndarray:
                    with np.errstate(all="ignore"):
                        return change(w.astype(np.float32)).astype(w.dtype)

                yield simple(case, "weight-function", f"port has {words} of {name}", v, stored)


@generator
def moved_kernels(case: Case) -> Iterator[Hypothesis]:
    """A convolution's kernel moved by one along an axis."""
    for v, name in case.parameters.items():
        shape = case.values[v][1]
        if len(shape) < 3 or not any(case.ops[i].base == "convolution" for i in case.users(v)):
            continue
        for axis in range(2, len(shape)):
            for by in (1, -1) if shape[axis] > 1 else ():
                yield simple(case, "kernel-moved", f"port has the kernel of {name} moved by {by:+d} along axis {axis}", v, lambda w, b=by, x=axis: np.roll(w, b, axis=x))


TOGETHER = (("k_proj", "v_proj"), ("key", "value"), ("k", "v"), ("k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"), ("gate_proj", "up_proj"))


@generator
def layers_of_some(case: Case) -> Iterator[Hypothesis]:
    """Several parameters together of a neighbouring layer, as when a cache is asked for another layer's keys and values."""
    for step in (-1, 1):
        for parts in TOGETHER:
            others = {v: neighbour(name, step) for v, name in case.parameters.items() if len(name.split(".")) > 1 and name.split(".")[-2] in parts}
            if {case.parameters[v].split(".")[-2] for v in others} == set(parts) and all(o in case.neighbours and case.neighbours[o].shape == tuple(case.values[v][1]) for v, o in others.items()):
                yield overridden(case, "wrong-layer", f"port has {', '.join(map(str, others.values()))} in the place of this layer's", lambda t=others: {v: case.neighbours[str(o)] for v, o in t.items()})
