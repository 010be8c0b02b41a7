"""Norms whose statistics are those of other numbers: half of the elements, all but a tail, another row's, divided by another count."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .case import Case
from .constants import show
from .fit import flat, is_one, newton
from .hypothesis import Hypothesis, generator, overridden
from .norms import find_norms

Rows = Callable[[np.ndarray], np.ndarray]
Moments = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(axis=-1, keepdims=True)
    return mean, np.square(x - mean).mean(axis=-1, keepdims=True)


def uncentred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(x[..., :1]), np.square(x).mean(axis=-1, keepdims=True)


def choices(n: int, moments: Moments, centre: bool) -> Iterator[tuple[str, Moments]]:
    """(words, mean and variance of x) for rows of n elements."""
    for m in sorted({n // 2, n // 4, n - 1, *(n - t for t in (1, 2, 4, 8, 16, 32)), *(n // b * b for b in (16, 32, 64, 128, 256, 512, 1024))}, reverse=True):
        if 1 < m < n:
            yield f"the first {m} of {n} elements", lambda x, m=m: moments(x[..., :m])
    if n > 3:
        yield f"the elements from {n // 2} on", lambda x: moments(x[..., n // 2 :])
        yield "all elements but the first", lambda x: moments(x[..., 1:])
    for c in sorted({n + 1, 2 * n, 1 << (n - 1).bit_length(), *(-(-n // b) * b for b in (32, 64, 128, 256, 1024))}):
        if c > n:
            yield f"as many as {c} elements for {n}", lambda x, c=c: tuple(s * n / c for s in moments(x))
    for words, rows in (("the first row for all", lambda s: np.broadcast_to(s[..., :1, :], s.shape)), ("the last row for all", lambda s: np.broadcast_to(s[..., -1:, :], s.shape)),
                        ("the row before", lambda s: np.roll(s, 1, axis=-2)), ("the row after", lambda s: np.roll(s, -1, axis=-2)),
                        ("the very first row for all", lambda s: np.broadcast_to(s.reshape(-1, 1)[0], s.shape)),
                        ("the mean over all rows", lambda s: np.broadcast_to(s.mean(), s.shape))):  # fmt: skip
        yield words, lambda x, r=rows: tuple(r(s) if s.ndim > 1 else s for s in moments(x))
    if centre:
        yield "the mean, but the squares about zero", lambda x: (x.mean(axis=-1, keepdims=True), np.square(x).mean(axis=-1, keepdims=True))
        yield "the mean absolute deviation", lambda x: (moments(x)[0], np.square(np.abs(x - moments(x)[0]).mean(axis=-1, keepdims=True)))
        yield "the mean of the row before", lambda x: (np.roll(moments(x)[0], 1, axis=-2) if x.ndim > 1 else moments(x)[0], moments(x)[1])
        yield "the greatest distance from the mean", lambda x: (moments(x)[0], np.square(np.abs(x - moments(x)[0]).max(axis=-1, keepdims=True)))
    else:
        yield "the mean of the absolute values", lambda x: (0 * x[..., :1], np.square(np.abs(x).mean(axis=-1, keepdims=True)))
        yield "the greatest absolute value", lambda x: (0 * x[..., :1], np.square(np.abs(x).max(axis=-1, keepdims=True)))


def layer_norms(case: Case) -> Iterator[tuple[int, Moments, bool, Callable[[Moments], dict[int, np.ndarray]]]]:
    """(elements of a row, its right moments, whether a mean is subtracted, override for other moments) of each norm over the last dimension."""
    for norm in find_norms(case):
        op = case.ops[norm.first]
        if norm.fused and (op.base != "native_layer_norm" or len(op.args[1]["list"] if isinstance(op.args[1], dict) else op.args[1]) != 1):
            continue
        if {norm.x, norm.out} & case.shared:
            continue

        def fused(moments: Moments, op=op, norm=norm) -> dict[int, np.ndarray]:
            values = case.intermediates()
            x = values[norm.x].astype(np.float64)
            mean, var = moments(x)
            y = (x - mean) / np.sqrt(var + norm.eps)
            for place, v in ((2, lambda y, w: y * w), (3, lambda y, b: y + b)):
                if isinstance(op.args[place], dict):
                    y = v(y, values[op.args[place]["v"]].astype(np.float64))
            return {norm.out: y.astype(values[norm.out].dtype)}

        def written(moments: Moments, norm=norm) -> dict[int, np.ndarray]:
            values = case.intermediates()
            mean = next(o for o in case.ops[norm.first : norm.last] if o.base == "mean").outputs[0]
            return {mean: np.ascontiguousarray(moments(values[norm.x].astype(np.float64))[1]).reshape(values[mean].shape).astype(values[mean].dtype)}

        if not norm.fused and not any(o.base == "mean" for o in case.ops[norm.first : norm.last]):
            continue
        yield case.values[norm.x][1][-1], centred if norm.fused else uncentred, norm.fused, fused if norm.fused else written


@generator
def statistics(case: Case) -> Iterator[Hypothesis]:
    """Mean and variance of other elements, of another row, divided by another count."""
    for n, moments, centre, override in layer_norms(case):
        for words, change in choices(n, moments, centre):
            yield overridden(case, "norm-statistics", f"port normalises with {words}", lambda c=change, o=override: o(c))


def divisors(case: Case) -> Iterator[Hypothesis]:
    """The sums of a norm divided by any other count. Not registered: it runs last."""
    for n, moments, _, override in layer_norms(case):
        def run(share: float, m: Moments = moments, o: Callable = override) -> np.ndarray:
            return flat(case.run_override(o(lambda x: tuple(s * share for s in m(x)))), case)

        share = newton(case, run, 1.0)
        if share is not None and not is_one(share) and share > 0:
            detail = f"port divides the sums of the norm by {show(n / share)}, reference by {n}"
            yield overridden(case, "norm-statistics", detail, lambda s=share, m=moments, o=override: o(lambda x: tuple(v * s for v in m(x))))


FITS = (divisors,)
