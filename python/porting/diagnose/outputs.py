"""What can be said of the output alone: scaled, moved, permuted, partly wrong, some other tensor."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import Case, is_float
from .hypothesis import Hypothesis, generator, transformed

CAUSES = frozenset({"output-zero", "output-negated", "output-scaled", "output-offset", "output-moved", "output-permuted", "axes-exchanged", "other-tensor", "batch-rows-alike"})


@generator
def simple(case: Case) -> Iterator[Hypothesis]:
    """Zero, negated, another factor or offset fitted from the data, neighbouring positions."""
    yield transformed(case, "output-zero", "port returns zeros", np.zeros_like)
    yield transformed(case, "output-negated", "port returns the negative", np.negative)
    leaf, e, a = main_output(case)
    if leaf is None or e.size < 2:
        return
    ee = float(np.vdot(e, e))
    if ee > 0:
        factor = float(np.vdot(e, a)) / ee
        if not np.isfinite(factor):  # NaN or infinities in the port: nothing can be fitted to them
            return
        if abs(factor - 1.0) > 1e-4:  # nearer to 1 than any format rounds a constant: another small change, such as one of eps
            yield transformed(case, "output-scaled", f"port's output is {factor:.6g} times the reference's", lambda y: y * np.float32(factor))
    offset = float((a - e).mean())
    if not np.isfinite(offset):
        return
    yield transformed(case, "output-offset", f"port's output is the reference's plus {offset:.6g}", lambda y: y + np.float32(offset))
    if e.ndim > 2 and len(e) > 1:
        detail = f"port returns the first row of the batch for each of the {len(e)}"
        yield transformed(case, "batch-rows-alike", detail, lambda y, n=e.ndim: np.ascontiguousarray(np.broadcast_to(y[:1], y.shape)) if y.ndim == n else y)
    for axis in range(e.ndim):
        if e.shape[axis] > 1:
            for by in (1, -1):
                yield transformed(case, "output-moved", f"port's output is moved by {by:+d} along axis {axis}", lambda y, s=by, x=axis: np.roll(y, s, axis=x) if y.ndim > x else y)


def main_output(case: Case) -> tuple[str | None, np.ndarray, np.ndarray]:
    """The largest floating output: its leaf, reference and actual in float64."""
    best: tuple[str | None, np.ndarray, np.ndarray] = (None, np.zeros(0), np.zeros(0))
    for leaf, e in case.reference().items():
        a = case.actual[leaf]
        if e.shape == a.shape and e.size > best[1].size and is_float(e):
            best = (leaf, e.astype(np.float64), a.astype(np.float64))
    return best


@generator
def permuted(case: Case) -> Iterator[Hypothesis]:
    """A permutation along one axis that makes the slices match, found by their nearest neighbours."""
    leaf, e, a = main_output(case)
    if leaf is None or not (np.isfinite(e).all() and np.isfinite(a).all()):
        return
    for axis in range(e.ndim):
        n = e.shape[axis]
        if not 1 < n <= 4096:
            continue
        x = np.moveaxis(e, axis, 0).reshape(n, -1)
        y = np.moveaxis(a, axis, 0).reshape(n, -1)
        cost = (y * y).sum(1)[:, None] - 2 * y @ x.T + (x * x).sum(1)[None, :]
        order = cost.argmin(axis=1)
        if len(set(order.tolist())) == n and (order != np.arange(n)).any():
            moved = int((order != np.arange(n)).sum())
            yield transformed(
                case, "output-permuted", f"port's output has {moved} of {n} slices of axis {axis} in another order: {summary(order)}",
                lambda v, o=order, x=axis: np.take(v, o, axis=x) if v.ndim > x and v.shape[x] == len(o) else v,
            )  # fmt: skip


def summary(order: np.ndarray) -> str:
    shown = ", ".join(map(str, order[:8].tolist()))
    return f"[{shown}{', ...' if len(order) > 8 else ''}]"


@generator
def axes_exchanged(case: Case) -> Iterator[Hypothesis]:
    """Two axes of equal length exchanged, or the data of the transposed array under the same shape."""
    leaf, e, _ = main_output(case)
    if leaf is None:
        return
    for i in range(e.ndim):
        for j in range(i + 1, e.ndim):
            if e.shape[i] == e.shape[j] > 1:
                yield transformed(case, "axes-exchanged", f"port's output has axes {i} and {j} exchanged", lambda y, i=i, j=j: y.swapaxes(i, j) if y.ndim > j else y)
            elif e.shape[i] > 1 and e.shape[j] > 1:
                yield transformed(
                    case, "axes-exchanged", f"port wrote axes {i} and {j} in the other order under the same shape",
                    lambda y, i=i, j=j: np.ascontiguousarray(y.swapaxes(i, j)).reshape(y.shape) if y.ndim > j else y,
                )  # fmt: skip


@generator
def another_tensor(case: Case) -> Iterator[Hypothesis]:
    """The output is some other tensor of the capture: an input returned unchanged, a neighbour's output."""
    leaf, e, a = main_output(case)
    if leaf is None:
        return
    shape = case.actual[leaf].shape
    probe = np.unravel_index(int(np.argmax(np.abs(a))), shape) if a.size else ()
    for name, array in case.others().items():
        if array.shape == shape and array.dtype == case.actual[leaf].dtype and array.size and np.isclose(float(array[probe]), float(a[probe]), rtol=1e-4) and not np.array_equal(array, case.expected[leaf]):
            yield Hypothesis("other-tensor", f"port's output is the reference's {name}", lambda wide, leaf=leaf, x=array: {**case.reference(), leaf: x})


@generator
def dropout(case: Case) -> Iterator[Hypothesis]:
    """Some elements zero, the rest times 1 / (1 - p): of the output, or of what is added to the residual last."""
    leaf, e, a = main_output(case)
    if leaf is None or e.size < 8:
        return
    yield from kept(case, leaf, e, a, None)
    made = case.producers.get(case.outputs[leaf])
    if made is not None and case.ops[made].base == "add" and len(case.ops[made].inputs) == 2:
        for v in case.ops[made].inputs:
            rest = case.intermediates()[v].astype(np.float64)
            if rest.shape == e.shape:
                yield from kept(case, leaf, e - rest, a - rest, rest)


def kept(case: Case, leaf: str, e: np.ndarray, a: np.ndarray, rest: np.ndarray | None) -> Iterator[Hypothesis]:
    """The hypothesis that a is e with elements dropped, if the numbers look so."""
    size = np.abs(e).max()
    solid = np.abs(e) > 1e-3 * size
    dropped = solid & (np.abs(a) <= 1e-5 * size)
    share = dropped.sum() / max(solid.sum(), 1)
    left = solid & ~dropped
    if not 0.005 < share < 0.98 or not left.any():
        return
    factor = float(np.median(a[left] / e[left]))
    if factor < 1.004 or abs(1 - 1 / factor - share) > 5 * np.sqrt(share * (1 - share) / solid.sum()) + 1e-3:
        return
    mask = np.where(np.abs(a) <= np.abs(e * factor) * 0.5, 0.0, factor)
    whole = (e * mask if rest is None else rest + e * mask).astype(case.actual[leaf].dtype)
    p = 1 - 1 / factor
    detail = f"port drops {share:.0%} of the elements and multiplies the rest by {factor:.4g}: dropout of p = {p:.3g} is left on"
    yield Hypothesis("dropout", detail, lambda wide: {**case.reference(), leaf: whole})
