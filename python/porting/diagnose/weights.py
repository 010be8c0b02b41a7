"""Weights: transposed, permuted, exchanged, a neighbouring layer's, dropped or doubled."""
from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .arguments import called
from .case import Case
from .hypothesis import Hypothesis, generator, overridden


def simple(case: Case, cause: str, detail: str, value: int, change) -> Hypothesis:
    found = overridden(case, cause, detail, lambda: {value: np.ascontiguousarray(change(case.feeds[value]))})
    found.reorder = change
    return found


@generator
def one_weight(case: Case) -> Iterator[Hypothesis]:
    """One parameter transposed, zero, doubled, or with its rows, columns or heads in another order."""
    for v, name in case.parameters.items():
        if not case.is_floating(v):
            continue
        shape = case.values[v][1]
        if len(shape) == 2 and shape[0] == shape[1]:
            yield simple(case, "weight-transposed", f"port has {name} transposed", v, lambda w: w.T)
        if len(shape) == 2 and shape[0] != shape[1]:
            yield simple(case, "weight-reshaped", f"port reads {name} column by column as if it were row by row", v, lambda w: w.T.reshape(w.shape))
        if len(shape) == 1:
            yield simple(case, "bias-missing" if name.endswith("bias") else "weight-zero", f"port has zeros for {name}", v, np.zeros_like)
            if not name.endswith("bias"):
                yield simple(case, "weight-ignored", f"port has ones for {name}", v, np.ones_like)
            yield simple(case, "bias-doubled" if name.endswith("bias") else "weight-doubled", f"port has twice {name}", v, lambda w: 2 * w)
            yield simple(case, "weight-sign", f"port has {name} negated", v, lambda w: -w)
            if shape[0] > 1:
                yield simple(case, "weight-broadcast", f"port has the first number of {name} for all", v, lambda w: np.full_like(w, w[0]))
                yield simple(case, "weight-broadcast", f"port has the mean of {name} for all", v, lambda w: np.full_like(w, w.mean()))
        if len(shape) >= 1 and shape[0] > 1:
            yield simple(case, "rows-permuted", f"port has the rows of {name} in reverse order", v, lambda w: w[::-1])
            for shift in (1, -1):
                yield simple(case, "rows-permuted", f"port has the rows of {name} moved by {shift}", v, lambda w, s=shift: np.roll(w, s, axis=0))
        if len(shape) == 2 and shape[1] > 1:
            yield simple(case, "columns-permuted", f"port has the columns of {name} in reverse order", v, lambda w: w[:, ::-1])
            for shift in (1, -1):
                yield simple(case, "columns-permuted", f"port has the columns of {name} moved by {shift}", v, lambda w, s=shift: np.roll(w, s, axis=1))
        if len(shape) >= 2:
            yield simple(case, "weight-zero", f"port has zeros for {name}", v, np.zeros_like)
            yield simple(case, "weight-doubled", f"port has twice {name}", v, lambda w: w + w)
            yield simple(case, "weight-sign", f"port has {name} negated", v, lambda w: -w)
            yield simple(case, "weight-sign", f"port has the absolute values of {name}", v, np.abs)
        for hypothesis in head_orders(case, v, name):
            yield hypothesis
            bias = next((b for b, other in case.parameters.items() if other == name.removesuffix("weight") + "bias" and case.values[b][1] == shape[:1]), None)
            if bias is not None and name.endswith("weight"):
                yield with_bias(case, hypothesis, v, bias)
        yield from column_orders(case, v, name)


def with_bias(case: Case, of_weight: Hypothesis, weight: int, bias: int) -> Hypothesis:
    """The same order of rows for the bias that belongs to a weight."""

    def override() -> dict[int, np.ndarray]:
        numbers = np.broadcast_to(np.arange(case.values[weight][1][0], dtype=np.float64)[:, None], case.values[weight][1])
        order = of_weight.reorder(numbers)[:, 0].astype(int)
        return {weight: np.ascontiguousarray(case.feeds[weight][order]), bias: np.ascontiguousarray(case.feeds[bias][order])}

    return overridden(case, of_weight.cause, of_weight.detail + ", and those of its bias", override)


def head_orders(case: Case, value: int, name: str) -> Iterator[Hypothesis]:
    """Rows of a projection regrouped: (heads, 2, half) for (heads, half, 2), as converters between rope layouts do."""
    shape = case.values[value][1]
    for head in dict.fromkeys((*head_sizes(case), 8, 16, 32, 64, 80, 96, 128)):
        if len(shape) == 2 and head % 2 == 0 and shape[0] % head == 0 and shape[0] >= head:
            h = shape[0] // head
            yield simple(
                case, "rows-permuted", f"port has the rows of {name} in interleaved rotary order (heads of {head})", value,
                lambda w, h=h, head=head: w.reshape(h, 2, head // 2, -1).swapaxes(1, 2).reshape(w.shape),
            )  # fmt: skip
            yield simple(
                case, "rows-permuted", f"port has the rows of {name} in half-split rotary order (heads of {head})", value,
                lambda w, h=h, head=head: w.reshape(h, head // 2, 2, -1).swapaxes(1, 2).reshape(w.shape),
            )  # fmt: skip
            if h > 1:
                yield simple(
                    case, "rows-permuted", f"port has the heads of {name} within the dimensions (heads of {head})", value,
                    lambda w, h=h, head=head: w.reshape(h, head, -1).swapaxes(0, 1).reshape(w.shape),
                )  # fmt: skip


                yield simple(
                    case, "rows-permuted", f"port has the heads of {name} in reverse order (heads of {head})", value,
                    lambda w, h=h, head=head: w.reshape(h, head, -1)[::-1].reshape(w.shape),
                )  # fmt: skip
            for n, words in ((3, "q, k and v"), (2, "the two parts")) if h > 1 else ():
                if h % n == 0 and h > n:
                    yield simple(
                        case, "split-order", f"port has {words} in {name} head by head (heads of {head}), reference one after the other", value,
                        lambda w, h=h, head=head, n=n: w.reshape(n, h // n, head, -1).swapaxes(0, 1).reshape(w.shape),
                    )  # fmt: skip
                    yield simple(
                        case, "split-order", f"port takes {words} in {name} one after the other, reference head by head (heads of {head})", value,
                        lambda w, h=h, head=head, n=n: w.reshape(h // n, n, head, -1).swapaxes(0, 1).reshape(w.shape),
                    )  # fmt: skip


def column_orders(case: Case, value: int, name: str) -> Iterator[Hypothesis]:
    """Columns of the projection after attention, or of a product after a convolution, regrouped: number by number for head by head."""
    shape = case.values[value][1]
    for head in dict.fromkeys((*head_sizes(case), 8, 16, 32, 64, 80, 96, 128)):
        if len(shape) == 2 and shape[1] % head == 0 and shape[1] > head > 1:
            h = shape[1] // head
            for a, b, words in ((h, head, "number by number"), (head, h, "head by head")):
                yield simple(
                    case, "columns-permuted", f"port has the columns of {name} {words} ({h} of {head})", value,
                    lambda w, a=a, b=b: w.reshape(-1, a, b).swapaxes(1, 2).reshape(w.shape),
                )  # fmt: skip
            yield simple(
                case, "columns-permuted", f"port has the columns of {name} with the heads in reverse order ({h} of {head})", value,
                lambda w, h=h, head=head: w.reshape(-1, h, head)[:, ::-1].reshape(w.shape),
            )  # fmt: skip


def head_sizes(case: Case) -> list[int]:
    """Last dimensions of the program's 4-dimensional values, but for empty ones: sizes of heads."""
    return [s[-1] for s in {tuple(case.values[v][1]) for op in case.ops for v in op.outputs if v is not None} if len(s) == 4 and s[-1]]


@generator
def strides(case: Case) -> Iterator[Hypothesis]:
    """The rows of a weight, or of what a product takes, read with another step: one number more or less, or the next multiple of a tile."""
    taken = [(v, name) for v, name in case.parameters.items()]
    taken += [(op.inputs[-2], called(case, op.inputs[-2])) for op in case.ops if op.base in ("mm", "addmm") and op.inputs[-2] not in case.parameters and case.source(op.inputs[-2]) not in case.shared]
    for v, name in dict.fromkeys(taken):
        shape = case.values[v][1]
        if len(shape) != 2 or min(shape) < 2 or not case.is_floating(v):
            continue
        k = shape[1]
        for step in dict.fromkeys((k + 1, k - 1, *(-(-k // b) * b for b in (16, 32, 64, 128)), shape[0])):
            if step != k:
                yield overridden(case, "row-stride", f"port reads the rows of {name} {step} numbers apart, reference {k}", lambda v=v, s=step: {v: with_step(case.intermediates()[v], s)})


def with_step(x: np.ndarray, step: int) -> np.ndarray:
    flat = np.ascontiguousarray(x).reshape(-1)
    index = np.arange(x.shape[0])[:, None] * step + np.arange(x.shape[1])
    return flat[np.minimum(index, flat.size - 1)]


@generator
def product_tails(case: Case) -> Iterator[Hypothesis]:
    """Products that leave out what does not fill a tile: the last numbers that they sum, the last channels that they make."""
    for op in case.ops:
        if op.base not in ("mm", "addmm") or op.outputs[0] in case.shared or op.inputs[-1] not in case.producers and op.inputs[-1] not in case.parameters:
            continue
        w, out = op.inputs[-1], op.outputs[0]
        k, n = case.values[w][1]
        for t in dict.fromkeys((1, 4, 8, 16, 32, k % 16, k % 32, k % 64, k % 128)):
            if 0 < t < k and case.source(w) in case.parameters:
                detail = f"port sums only the last {t} of the {k} numbers of {called(case, out)[5:-6]}"
                yield overridden(case, "columns-ignored", detail, lambda w=w, t=t: {w: np.where((np.arange(case.values[w][1][0]) < case.values[w][1][0] - t)[:, None], 0, case.intermediates()[w])})
                detail = f"port leaves out the last {t} of the {k} numbers that {called(case, out)[5:-6]} sums"
                yield overridden(case, "columns-ignored", detail, lambda w=w, t=t: {w: np.where((np.arange(case.values[w][1][0]) < case.values[w][1][0] - t)[:, None], case.intermediates()[w], 0)})
        if k > 1 and case.source(w) in case.parameters:
            detail = f"port leaves out the first of the {k} numbers that {called(case, out)[5:-6]} sums"
            yield overridden(case, "columns-ignored", detail, lambda w=w, k=k: {w: np.where((np.arange(k) > 0)[:, None], case.intermediates()[w], 0)})
        yield overridden(case, "clamp-added", f"port has 0 for all that is negative in {called(case, out)}", lambda o=out: {o: np.maximum(case.intermediates()[o], 0)})
        for t in dict.fromkeys((1, 4, 8, 16, 32, n % 16, n % 32, n % 64, n % 128)):
            if 0 < t < n:
                detail = f"port has zeros in the last {t} of {n} channels of {called(case, out)}"
                yield overridden(case, "part-zero", detail, lambda o=out, t=t, n=n: {o: np.where(np.arange(n) < n - t, case.intermediates()[o], 0)})


@generator
def swapped_neighbours(case: Case) -> Iterator[Hypothesis]:
    """Two single rows, or two halves, of a parameter exchanged."""
    for v, name in case.parameters.items():
        n = case.values[v][1][0] if case.values[v][1] else 0
        if n > 1 and n % 2 == 0 and case.is_floating(v):
            yield simple(case, "rows-permuted", f"port has the two halves of {name} exchanged", v, lambda w, n=n: np.concatenate([w[n // 2 :], w[: n // 2]]))
            yield simple(case, "rows-permuted", f"port has the rows of {name} in turns from its two halves", v, lambda w, n=n: w.reshape(2, n // 2, -1).swapaxes(0, 1).reshape(w.shape))
            yield simple(case, "rows-permuted", f"port has even rows of {name} before odd ones", v, lambda w, n=n: w.reshape(n // 2, 2, -1).swapaxes(0, 1).reshape(w.shape))


@generator
def exchanged(case: Case) -> Iterator[Hypothesis]:
    """Two parameters of equal shape exchanged (gate and up, q and k), or one used for both."""
    items = [(v, n) for v, n in case.parameters.items() if case.is_floating(v)]
    for i, (a, a_name) in enumerate(items):
        for b, b_name in items[i + 1 :]:
            if case.values[a][1] != case.values[b][1]:
                continue
            yield overridden(case, "weights-exchanged", f"port has {a_name} and {b_name} exchanged", lambda a=a, b=b: {a: case.feeds[b], b: case.feeds[a]})
            yield overridden(case, mistaken(a_name, b_name), f"port has {b_name} in the place of {a_name}", lambda a=a, b=b: {a: case.feeds[b]})
            yield overridden(case, mistaken(a_name, b_name), f"port has {a_name} in the place of {b_name}", lambda a=a, b=b: {b: case.feeds[a]})


def mistaken(name: str, other: str) -> str:
    """What it is to have one parameter for another: by the names, that differ in the layer's number or more."""
    if re.sub(r"\d+", "*", other) == re.sub(r"\d+", "*", name):
        return "wrong-layer"
    return "tied-weight" if any(word in name + other for word in ("embed", "lm_head", "wte")) else "wrong-weight"


@generator
def wrong_layer(case: Case) -> Iterator[Hypothesis]:
    """A parameter, or all parameters of a layer, of a neighbouring layer."""
    for step in (-1, 1):
        layers: dict[str, dict[int, str]] = {}
        for v, name in case.parameters.items():
            other = neighbour(name, step)
            if other is None or other not in case.neighbours or case.neighbours[other].shape != tuple(case.values[v][1]):
                continue
            layers.setdefault(re.split(r"(?<=\d)\.", name)[0], {})[v] = other
            if other not in case.parameters.values():
                yield overridden(case, "wrong-layer", f"port has {other} in the place of {name}", lambda v=v, o=other: {v: case.neighbours[o]})
        for together in [*layers.values(), *in_pairs(layers)]:
            if len(together) > 1:
                yield overridden(
                    case, "wrong-layer", f"port has the weights of {', '.join(together.values())}", lambda t=together: {v: case.neighbours[o] for v, o in t.items()}
                )


def in_pairs(layers: dict[str, dict[int, str]]) -> Iterator[dict[int, str]]:
    """The parameters of each module, and of each two that lie side by side: keys and values, gate and up."""
    for parameters in layers.values():
        modules: dict[str, dict[int, str]] = {}
        for v, other in parameters.items():
            modules.setdefault(other.rpartition(".")[0], {})[v] = other
        names = [name for name in modules if len(modules) > 1]
        for i, name in enumerate(names):
            yield modules[name]
            for second in names[i + 1 :]:
                if second.rpartition(".")[0] == name.rpartition(".")[0] and len(modules[second]) == len(modules[name]) and len(modules) > 2:
                    yield {**modules[name], **modules[second]}
                    yield {v: other for v, other in {**modules[name], **modules[second]}.items() if other.endswith("weight")}


def neighbour(name: str, step: int) -> str | None:
    """`layers.3.fc.weight` -> `layers.4.fc.weight`."""
    match = re.search(r"(?:^|\.)(\d+)\.", name)
    if match is None or int(match[1]) + step < 0:
        return None
    return f"{name[: match.start(1)]}{int(match[1]) + step}{name[match.end(1) :]}"
