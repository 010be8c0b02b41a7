"""The port's own tensors inside a module, computed back from its output, and what can be seen in them.

Between the output and a place inside lie ops that can be undone: additions of what is known, factors, views, products with a matrix that loses nothing. As far as these reach, the
difference of the port is known at the place itself; one that is confined to few slices of it (a head, a channel, some positions) is found even behind a product that
loses something. What is seen there (zeros, a factor, slices of another, elements dropped, a bound) becomes a hypothesis, judged as any other by what it leaves at the output.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .arguments import called
from .case import UNITS, Case
from .constants import is_number, show
from .hypothesis import Hypothesis, edited, overridden
from .outputs import main_output
from .parts import head_counts, spans

RESHAPES = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "clone", "contiguous", "_to_copy", "alias", "detach")
DEPTH = 24  # ops undone
WORST = 1e4  # a product that makes errors greater than so is not undone
MOST = 0.5  # slices that differ are a part if they are at most so many
MOST_ROWS = 1024  # tried one by one
LARGEST = 4096  # columns of a matrix that is inverted


@dataclass
class Inner:
    """Value `value` as the port must have had it: `found`, where the program has `right`; float64. noise : what rounding may have done to an element of it."""

    value: int
    right: np.ndarray
    found: np.ndarray
    noise: np.ndarray | float

    @property
    def differs(self) -> np.ndarray:
        """True where the port differs by more than rounding."""
        d = np.abs(self.found - self.right)
        return d > np.maximum(30 * self.noise, 1e-3 * np.sqrt(np.mean(d * d)))


def inner_values(case: Case) -> list[Inner]:
    """The output and every value before it that can be computed back from it, nearest to the output first. Computed once."""
    if "inner" not in case._memory:
        case._memory["inner"] = list(walk(case))
    return case._memory["inner"]


def walk(case: Case) -> Iterator[Inner]:
    leaf, e, a = main_output(case)
    if leaf is None or not np.isfinite(a).all() or not np.isfinite(e).all() or not e.size:
        return
    unit = UNITS.get(case.expected[leaf].dtype.name, 0.0) * float(np.sqrt(np.mean(e * e)))
    waiting = [(Inner(case.outputs[leaf], e, a, 2 * unit), 0)]
    seen = set()
    while waiting:
        one, depth = waiting.pop(0)
        if one.value in seen:
            continue
        seen.add(one.value)
        yield one
        index = case.producers.get(one.value)
        if index is not None and depth < DEPTH:
            waiting += [(before, depth + 1) for before in undone(case, index, one)]


def undone(case: Case, index: int, after: Inner) -> Iterator[Inner]:
    """The inputs of an op, computed back from its result; each on its own, the others being right."""
    op, values = case.ops[index], case.intermediates()
    if not op.inputs or op.outputs[0] != after.value:
        return
    x = op.inputs[0]
    d = after.found - after.right

    def inner(value: int, change: np.ndarray, noise: np.ndarray | float) -> Inner:
        right = values[value].astype(np.float64)
        return Inner(value, right, right + change, noise)

    def noise(reshaped: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | float:
        return after.noise if np.ndim(after.noise) == 0 else reshaped(np.asarray(after.noise))

    if op.base in RESHAPES and values[x].size == d.size and case.is_floating(x):
        shape = values[x].shape
        yield inner(x, d.reshape(shape), noise(lambda n: np.broadcast_to(n, d.shape).reshape(shape)))
    elif op.base in ("transpose", "permute", "t"):
        rank = d.ndim
        if op.base == "permute":
            order = [k % rank for k in (op.args[1]["list"] if isinstance(op.args[1], dict) else op.args[1])]
        else:
            i, j = (0, 1) if op.base == "t" else (op.args[1] % rank, op.args[2] % rank)
            order = list(range(rank))
            order[i], order[j] = j, i
        back = np.argsort(order)
        yield inner(x, d.transpose(back), noise(lambda n: np.broadcast_to(n, d.shape).transpose(back)))
    elif op.base in ("add", "sub") and not op.kwargs:
        for place, v in enumerate(op.inputs):
            if values[v].shape != d.shape or not case.is_floating(v) or v in case.parameters:
                continue
            if len(case.users(v)) > 1 and v in case.producers and len(op.inputs) == 2:
                found = solved(case, v)
                if found is not None:
                    yield found
            else:
                yield inner(v, -d if op.base == "sub" and place else d, after.noise)
    elif op.base in ("mul", "div") and case.is_floating(op.outputs[0]):
        yield from unscaled(case, index, after, inner)
    elif op.base in ("mm", "addmm") and not op.kwargs:
        yield from unmultiplied(case, index, after, inner)


ITERATIONS, WINDOW, SOLVE_S = 60, 12, 1.2


def solved(case: Case, value: int) -> Inner | None:
    """A value that is added to what is computed of it, row by row, as in y = h + mlp(norm(h)): h from y by Anderson's iteration; None if that does not settle."""
    leaf, e, target = main_output(case)
    right = case.intermediates()[value].astype(np.float64)
    if leaf is None or right.shape != target.shape or value in case.shared:
        return None
    width = right.shape[-1]
    unit = UNITS.get(case.expected[leaf].dtype.name, 0.0) * float(np.sqrt(np.mean(e * e)))
    end = time.thread_time() + SOLVE_S
    h, states, errors = right, [], []
    best, least = h, np.inf
    for _ in range(ITERATIONS):
        made = case.run_override({value: np.ascontiguousarray(h).astype(case.intermediates()[value].dtype)})[leaf]
        error = target - made.astype(np.float64)
        size = float(np.sqrt(np.mean(error * error)))
        if not np.isfinite(size) or time.thread_time() > end:
            break
        if size < least:
            best, least = h, size
        if size < 1.5 * unit:
            break
        states, errors = [*states[-WINDOW:], h.reshape(-1, width)], [*errors[-WINDOW:], error.reshape(-1, width)]
        h = anderson(states, errors).reshape(right.shape)
    return Inner(value, right, best, 4 * max(least, unit)) if least < 8 * unit else None


def anderson(states: list[np.ndarray], errors: list[np.ndarray]) -> np.ndarray:
    """The next state of h <- h + error, mixed from those before so that each row's error would be least."""
    h, f = states[-1], errors[-1]
    if len(states) == 1:
        return h + f
    df = np.stack([f - g for g in errors[:-1]], axis=2)
    dh = np.stack([h - g for g in states[:-1]], axis=2)
    square = df.swapaxes(1, 2) @ df
    square += 1e-13 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(square.shape[1]) + 1e-300 * np.eye(square.shape[1])
    weights = np.linalg.solve(square, df.swapaxes(1, 2) @ f[:, :, None])
    return h + f - ((dh + df) @ weights)[:, :, 0]


def unscaled(case: Case, index: int, after: Inner, inner: Callable[..., Inner]) -> Iterator[Inner]:
    op, values = case.ops[index], case.intermediates()
    d = after.found - after.right
    for place, v in enumerate(op.inputs):
        if values[v].shape != d.shape or v in case.parameters or not case.is_floating(v) or (op.base == "div" and place):
            continue
        other = float(op.args[1]) if len(op.inputs) == 1 and is_number(op.args[1]) else values[op.inputs[1 - place]].astype(np.float64) if len(op.inputs) == 2 else None
        if other is None:
            continue
        factor = np.asarray(1 / other if op.base == "div" else other)
        small = 1e-3 * float(np.abs(factor).max(initial=0))
        safe = np.where(np.abs(factor) > small, factor, np.inf)
        if small and np.mean(np.isinf(safe)) < 0.2:
            yield inner(v, d / safe, after.noise / np.abs(factor).clip(small))


def unmultiplied(case: Case, index: int, after: Inner, inner: Callable[..., Inner]) -> Iterator[Inner]:
    """x of x W + b: solved where W loses nothing, else looked for in one head or one to three channels of x."""
    op, values = case.ops[index], case.intermediates()
    x, w = op.inputs[-2:]
    if x == w or x in case.parameters or not case.is_floating(x):
        return
    weight = values[w].astype(np.float64)
    d = after.found - after.right
    noise = float(np.max(after.noise, initial=0))
    k, n = weight.shape
    if k > LARGEST or n > LARGEST or not np.isfinite(weight).all():
        return
    if k <= n:
        inverse = np.linalg.pinv(weight)
        gain = np.sqrt((inverse * inverse).sum(axis=0))
        if gain.max() * np.abs(weight).max() < WORST:
            yield inner(x, d @ inverse, noise * gain)
            return
    change = in_few(d, weight, noise, head_counts(case))
    if change is not None:
        yield inner(x, change, noise / max(float(np.sqrt((weight * weight).sum(axis=1)).mean()), 1e-30))


def in_few(d: np.ndarray, weight: np.ndarray, noise: float, heads: list[int]) -> np.ndarray | None:
    """The change of x in one head, or in at most three channels, that makes d = change W; None if there is none."""
    k = weight.shape[0]
    allowed = max(6 * noise * np.sqrt(d.size), 1e-5 * float(np.linalg.norm(d)))
    left, taken = d, []
    for _ in range(3):
        gain = np.square(left @ weight.T).sum(axis=0) / np.maximum(np.square(weight).sum(axis=1), 1e-300)
        taken.append(int(np.argmax(gain)))
        part, *_ = np.linalg.lstsq(weight[taken].T, d.T, rcond=None)
        left = d - part.T @ weight[taken]
        if np.linalg.norm(left) <= allowed:
            return spread(part.T, taken, k)
    for h in heads:
        size = k // h
        if k % h or not 1 < size < weight.shape[1]:
            continue
        for i in range(h):
            rows = list(range(i * size, (i + 1) * size))
            part, *_ = np.linalg.lstsq(weight[rows].T, d.T, rcond=None)
            if np.linalg.norm(d - part.T @ weight[rows]) <= allowed:
                return spread(part.T, rows, k)
    return None


def spread(part: np.ndarray, rows: list[int], k: int) -> np.ndarray:
    whole = np.zeros((len(part), k))
    whole[:, rows] = part
    return whole


# ---------------------------------------------------------------- what is seen


def seen(case: Case) -> Iterator[Hypothesis]:
    """What the port's inner tensors look like: elements dropped, cut off, zeros, factors, slices of another; last, the place alone. Not registered: it runs last."""
    places = []
    for one in inner_values(case):
        if one.value in case.shared or not np.isfinite(one.found).all() or one.value not in case.producers:
            continue
        yield from dropped(case, one)
        yield from cut_off(case, one)
        for words, mask in slices(case, one):
            yield from of_slices(case, one, words, mask)
            places.append((one, words, mask))
        yield from reordered(case, one)
        yield from wrapped(case, one)
    for one, words, mask in reversed(places):
        yield put(case, one, "partly-wrong", f"everything but {words} of {called(case, one.value)} is right", np.where(mask, one.found, one.right))


def put(case: Case, one: Inner, cause: str, detail: str, array: np.ndarray) -> Hypothesis:
    dtype = case.intermediates()[one.value].dtype
    return overridden(case, cause, detail, lambda: {one.value: np.ascontiguousarray(array).astype(dtype)})


def dropped(case: Case, one: Inner) -> Iterator[Hypothesis]:
    """Some elements 0, the rest all times one factor (dropout), or as they were (lost)."""
    size = float(np.abs(one.right).max(initial=0))
    if one.right.size < 16 or not size:
        return
    fuzz = np.maximum(40 * one.noise, 1e-6 * size)
    solid = np.abs(one.right) > 20 * fuzz
    zero = solid & (np.abs(one.found) <= fuzz)
    share = zero.sum() / max(solid.sum(), 1)
    rest = solid & ~zero
    if not 0.004 < share < 0.9 or not rest.any() or solid.mean() < 0.3:
        return
    factor = float(np.median(one.found[rest] / one.right[rest]))
    agree = np.abs(one.found - factor * one.right) <= fuzz * 2 + 1e-4 * np.abs(one.right)
    if not agree[rest].mean() > 0.99:
        return
    array = np.where(np.abs(one.found) <= 0.5 * np.abs(one.right * factor), 0.0, one.right * factor)
    where = called(case, one.value)
    if factor > 1.004 and abs(1 - 1 / factor - share) < 5 * np.sqrt(share * (1 - share) / solid.sum()) + 1e-3:
        yield put(case, one, "dropout", f"port drops {share:.0%} of the elements of {where} and multiplies the rest by {factor:.4g}: dropout of p = {1 - 1 / factor:.3g} is left on", array)
    elif abs(factor - 1) < 1e-4 and share < 0.5 and not confined(zero):
        yield put(case, one, "elements-lost", f"port has 0 in {int(zero.sum())} scattered elements of {where}, the rest is right", array)


def confined(mask: np.ndarray) -> bool:
    """True if the elements lie in at most half of the slices of one axis: a part, not scattered."""
    return any(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)).mean() <= MOST for axis in range(mask.ndim) if mask.shape[axis] > 1)


def cut_off(case: Case, one: Inner) -> Iterator[Hypothesis]:
    """All that lies beyond a bound is the bound."""
    low, top = float(one.found.min()), float(one.found.max())
    fuzz = float(np.max(np.minimum(40 * one.noise, 1e-3 * max(-low, top, 1e-30))))
    over, under = one.right > top + 3 * fuzz, one.right < low - 3 * fuzz
    if over.sum() + under.sum() < 3 or (over | under).mean() > 0.9:
        return
    array = np.clip(one.right, low, top)
    if np.mean(np.abs(array - one.found) <= 4 * fuzz + 1e-5 * np.abs(array)) > 0.999:
        bounds = f"{show(low)} and {show(top)}" if over.any() and under.any() else f"{show(top)} above" if over.any() else f"{show(low)} below"
        yield put(case, one, "clamp-added", f"port cuts {called(case, one.value)} off at {bounds}", array)


def slices(case: Case, one: Inner) -> Iterator[tuple[str, np.ndarray]]:
    """(words, mask) of what differs, along each axis where it is confined to at most half of the slices, fewest first."""
    differs = one.differs
    if not differs.any():
        return
    found = []
    shape = differs.shape
    for axis, n in enumerate(shape):
        bad = differs.any(axis=tuple(i for i in range(len(shape)) if i != axis))
        if n > 1 and bad.sum() <= MOST * n:
            mask = bad.reshape([n if i == axis else 1 for i in range(len(shape))])
            heads = next((h for h in head_counts(case) if axis == len(shape) - 1 and n % h == 0 and 1 < n // h and whole_head(bad, h)), 0)
            if heads:
                number = np.flatnonzero(bad.reshape(heads, -1).any(axis=1))
                words = f"head{'s' if len(number) > 1 else ''} {spans(number)} of {heads}"
            else:
                kind = "channel" if axis == len(shape) - 1 and len(shape) < 4 else f"slice of axis {axis}" if bad.sum() == 1 else f"slices of axis {axis}"
                words = f"{kind}{'s' if bad.sum() > 1 and kind == 'channel' else ''} {spans(np.flatnonzero(bad))} of {n}"
            found.append((bad.mean(), words, mask))
    for _, words, mask in sorted(found, key=lambda f: f[0])[:2]:
        yield words, mask


def whole_head(bad: np.ndarray, heads: int) -> bool:
    """True if what is bad is more than one channel and lies in few heads."""
    rows = bad.reshape(heads, -1)
    return bool(bad.sum() > 1 and rows.any(axis=1).mean() <= MOST and rows[rows.any(axis=1)].mean() > 0.8)


def of_slices(case: Case, one: Inner, words: str, mask: np.ndarray) -> Iterator[Hypothesis]:
    """These slices are zero, or the right ones times one factor."""
    where = f"{words} of {called(case, one.value)}"
    yield put(case, one, "part-zero", f"port has zeros in {where}, the rest is right", np.where(mask, 0.0, one.right))
    right, found = (np.where(mask, x, 0.0) for x in (one.right, one.found))
    size = float(np.vdot(right, right))
    factor = float(np.vdot(right, found)) / size if size else 0.0
    if np.isfinite(factor) and abs(factor) > 1e-3 and abs(factor - 1) > 1e-4:
        yield put(case, one, "part-scaled", f"port has {where} times {show(factor)}, the rest is right", np.where(mask, factor * one.right, one.right))


def wrapped(case: Case, one: Inner) -> Iterator[Hypothesis]:
    """What is off is off by multiples of one number: a range that was left and came round."""
    d = one.found - one.right
    differs = one.differs
    if differs.sum() < 3:
        return
    size = np.abs(d[differs])
    span = float(size.min())
    turns = np.round(d / span)
    span = float(np.vdot(turns, d) / np.vdot(turns, turns)) if turns.any() else span
    if turns.any() and np.abs(turns).max() < 100 and np.abs(d - turns * span)[differs].max() < max(1e-4 * span, 100 * float(np.max(one.noise))):
        detail = f"port has {int(differs.sum())} elements of {called(case, one.value)} off by {show(span)} or a multiple, the rest is right: they went over the end of a range"
        yield put(case, one, "result-wrapped", detail, one.right + np.where(differs, turns * span, 0.0))


def reordered(case: Case, one: Inner) -> Iterator[Hypothesis]:
    """Slices along one axis in another order, or taken more than once."""
    made = case.ops[case.producers[one.value]]
    bias = case.intermediates()[made.inputs[0]].astype(np.float64) if made.base == "addmm" and not made.kwargs else 0.0
    for axis in range(one.right.ndim):
        n = one.right.shape[axis]
        if not 1 < n <= 512:
            continue
        x, y = (np.moveaxis(v - bias, axis, 0).reshape(n, -1) for v in (one.right, one.found))
        if x.shape[1] < 2:
            continue
        order = ((y * y).sum(1)[:, None] - 2 * y @ x.T + (x * x).sum(1)[None, :]).argmin(axis=1)
        moved = order != np.arange(n)
        left = np.linalg.norm(y - x[order])
        if moved.any() and left < 0.05 * np.linalg.norm(y - x):
            words = ", ".join(f"{i} is {o}" for i, o in zip(np.flatnonzero(moved)[:6], order[moved][:6], strict=True)) + (", ..." if moved.sum() > 6 else "")
            yield put(case, one, "part-moved", f"port has slices of axis {axis} of {called(case, one.value)} in another order: {words}", np.take(one.right - bias, order, axis=axis) + bias)


# ---------------------------------------------------------------- columns of a product


def columns(case: Case) -> Iterator[Hypothesis]:
    """A product that leaves out some of the numbers it sums, or counts them twice: one factor for each is fitted to the port. Not registered."""
    for one in inner_values(case):
        index = case.producers.get(one.value)
        op = case.ops[index] if index is not None else None
        if op is None or op.base not in ("mm", "addmm") or op.kwargs or op.outputs[0] != one.value:
            continue
        x, w = (case.intermediates()[v].astype(np.float64) for v in op.inputs[-2:])
        k = x.shape[1]
        if not 4 <= k <= 2048 or op.inputs[-2] in case.shared:
            continue
        factors = column_factors(x, w, one.found - one.right)
        if factors is None:
            continue
        off = np.abs(factors) > 0.02
        if not off.any() or off.sum() > MOST * k:
            continue
        value = float(np.median(factors[off]))
        if np.abs(factors[off] - value).max() > 0.1 * max(abs(value), 0.1):
            continue
        value = round(value) if abs(value - round(value)) < 0.02 else round(value, 2) if abs(value - round(value, 2)) < 1e-3 else value
        cause, words = {-1: ("columns-ignored", "leaves out"), 1: ("columns-doubled", "counts twice")}.get(value, ("columns-scaled", f"multiplies by {show(1 + value)}"))
        scaled = np.where(off, 1 + value, 1.0)
        yield edited(
            case, cause, f"port {words} the numbers {spans(np.flatnonzero(off))} of the {k} that {case.place(index)} sums",
            lambda d, i=index, v=op.inputs[-2], s=scaled: d.feed(i, v, (case.intermediates()[v] * s).astype(case.intermediates()[v].dtype)),
        )  # fmt: skip


def column_factors(x: np.ndarray, w: np.ndarray, d: np.ndarray) -> np.ndarray | None:
    """f with x diag(f) w nearest to d, by the normal equations of its K unknowns; None if they say nothing."""
    size = (x.T @ x) * (w @ w.T)
    right = (x * (d @ w.T)).sum(axis=0)
    try:
        found, *_ = np.linalg.lstsq(size, right, rcond=1e-10)
    except np.linalg.LinAlgError:
        return None
    return found if np.linalg.norm(d - (x * found) @ w) < 0.02 * np.linalg.norm(d) else None


def rows(case: Case) -> Iterator[Hypothesis]:
    """One row of a weight zero: each row of each product, if they are not too many. Not registered: it runs last."""
    products = [op for op in case.ops if op.base in ("mm", "addmm") and case.source(op.inputs[-1]) in case.parameters and op.outputs[0] not in case.shared]
    if sum(case.values[op.inputs[-1]][1][1] for op in products) > MOST_ROWS:
        return
    for op in products:
        w = op.inputs[-1]
        for row in range(case.values[w][1][1]):
            detail = f"port has zeros in row {row} of {case.parameters[case.source(w)]}"

            def zeroed(w: int = w, row: int = row) -> dict[int, np.ndarray]:
                array = case.intermediates()[w].copy()
                array[:, row] = 0
                return {w: array}

            yield overridden(case, "weight-zero", detail, zeroed)


FITS = (columns, seen, rows)
