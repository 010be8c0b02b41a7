"""Layout and convolution: axes moved or left, heads split or merged in another order, chunks exchanged, strides, padding, kernels."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .case import Case, Draft, Op
from .hypothesis import Hypothesis, edited, generator, overridden
from .weights import simple

MOVES = ("transpose", "permute")


def ints(arg: Any) -> list[int]:
    """A list of numbers as a program or Python writes it."""
    return list(arg["list"] if isinstance(arg, dict) else arg)


@generator
def axes_left(case: Case) -> Iterator[Hypothesis]:
    """A transpose that the port leaves out: the numbers in memory's order under the shape that the reference has."""
    values = case.intermediates
    for op in case.ops:
        if op.base not in MOVES or not case.is_floating(op.outputs[0]):
            continue
        source, made = op.inputs[0], op.outputs[0]
        before, after = case.values[source][1], case.values[made][1]
        if len([n for n in before if n > 1]) < 2 or source in case.parameters:
            continue
        cause = "head-order" if len(before) == 4 else "axes-order"
        words = f"{'x'.join(map(str, before))} for {'x'.join(map(str, after))}"
        yield overridden(
            case, cause, f"port does not move the axes ({op.base} {words}): it reads the numbers in the order of memory",
            lambda s=source, m=made, a=tuple(after): {m: np.ascontiguousarray(values()[s]).reshape(a)},
        )  # fmt: skip
        if before == after:
            yield edited(case, cause, f"port leaves out {op.base} of {words}", lambda d, m=made, s=source, o=op: d.drop(place_of(d, o), s))


def place_of(draft: Draft, op: Op) -> int:
    return next(i for i, o in enumerate(draft.ops) if o.outputs == op.outputs)


@generator
def splits(case: Case) -> Iterator[Hypothesis]:
    """The last dimension split in another order: (heads, size) for (size, heads), on the way in and on the way out."""
    for op in case.ops:
        if op.base not in ("view", "_unsafe_view", "reshape"):
            continue
        source, made = op.inputs[0], op.outputs[0]
        if not case.is_floating(made) or source in case.parameters:
            continue
        before, after = case.values[source][1], case.values[made][1]
        if len(after) == len(before) + 1 and after[:-2] == before[:-1] and min(after[-2:]) > 1:
            yield overridden(
                case, "head-order", f"port splits the last dimension as {after[-1]}x{after[-2]}, reference as {after[-2]}x{after[-1]}",
                lambda s=source, m=made, a=after: {m: swapped_split(case.intermediates()[s], a)},
            )  # fmt: skip
        if len(after) == len(before) + 2 and after[:-3] == before[:-1] and min(after[-3:]) > 1:
            for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
                split = [after[len(before) - 1 + k] for k in order]
                yield overridden(
                    case, "split-order", f"port splits the last dimension as {'x'.join(map(str, split))}, reference as {'x'.join(map(str, after[-3:]))}",
                    lambda s=source, m=made, o=order, p=split: {m: split_otherwise(case.intermediates()[s], o, p)},
                )  # fmt: skip
        if len(before) == len(after) + 1 and before[:-2] == after[:-1] and min(before[-2:]) > 1:
            yield overridden(
                case, "head-order", f"port merges the last dimensions as {before[-1]}x{before[-2]}, reference as {before[-2]}x{before[-1]}",
                lambda s=source, m=made, a=after: {m: np.ascontiguousarray(case.intermediates()[s].swapaxes(-1, -2)).reshape(a)},
            )  # fmt: skip


def split_otherwise(x: np.ndarray, order: tuple[int, ...], split: list[int]) -> np.ndarray:
    """The last dimension split as `split`, its parts then put where the reference has them."""
    lead = x.ndim - 1
    parts = np.ascontiguousarray(x).reshape(*x.shape[:-1], *split)
    return np.ascontiguousarray(parts.transpose(*range(lead), *(lead + k for k in np.argsort(order))))


def swapped_split(x: np.ndarray, after: list[int]) -> np.ndarray:
    return np.ascontiguousarray(np.ascontiguousarray(x).reshape(*after[:-2], after[-1], after[-2]).swapaxes(-1, -2))


@generator
def chunks(case: Case) -> Iterator[Hypothesis]:
    """The parts of a split in each other's places; parts interleaved number by number or head by head."""
    for op in case.ops:
        if op.base not in ("split", "split_with_sizes", "chunk", "unbind"):
            continue
        parts = [v for v in op.outputs if v is not None]
        if len(parts) < 2 or not case.is_floating(parts[0]):
            continue
        yield from exchanged_parts(case, op.base, parts)
        same = all(case.values[p][1] == case.values[parts[0]][1] for p in parts)
        source = op.inputs[0]
        shape = case.values[source][1]
        if not same or op.base == "unbind" or case.values[parts[0]][1][-1] == shape[-1]:
            continue
        n, width = len(parts), shape[-1] // len(parts)
        sizes = dict.fromkeys([1, *(h for h in (4, 8, 16, 32, 64, 80, 96, 128) if width % h == 0 and h < width), *head_sizes(case, parts)])
        for size in sizes:
            detail = f"port takes the {n} parts in turns of {size} numbers, reference one after the other"
            yield overridden(case, "split-order", detail, lambda p=parts, s=source, z=size: interleaved(case.intermediates()[s], p, z))


def head_sizes(case: Case, parts: list[int]) -> list[int]:
    """Last dimensions of the views of the parts."""
    return [case.values[case.ops[i].outputs[0]][1][-1] for p in parts for i in case.users(p) if case.ops[i].base in ("view", "reshape")]


def exchanged_parts(case: Case, base: str, parts: list[int]) -> Iterator[Hypothesis]:
    for i, a in enumerate(parts):
        for j, b in enumerate(parts[i + 1 :], i + 1):
            if case.values[a][1] == case.values[b][1]:
                yield overridden(
                    case, "split-order", f"port exchanges parts {i} and {j} of {base}",
                    lambda a=a, b=b: {a: case.intermediates()[b], b: case.intermediates()[a]},
                )  # fmt: skip


def interleaved(x: np.ndarray, parts: list[int], size: int) -> dict[int, np.ndarray]:
    n = len(parts)
    view = x.reshape(*x.shape[:-1], -1, n, size)
    return {p: np.ascontiguousarray(view[..., i, :]).reshape(*x.shape[:-1], -1) for i, p in enumerate(parts)}


@generator
def slices(case: Case) -> Iterator[Hypothesis]:
    """A slice, or a selected element, that begins one further or one before; two slices of one value exchanged."""
    halves: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for op in case.ops:
        if op.base not in ("slice", "select") or not case.is_floating(op.outputs[0]) or op.inputs[0] in case.parameters:
            continue
        source, made = op.inputs[0], op.outputs[0]
        axis = (op.args[1] if len(op.args) > 1 else 0) % max(len(case.values[source][1]), 1)
        if case.values[source][1] == case.values[made][1]:
            continue
        halves.setdefault((source, tuple(case.values[made][1])), []).append(made)
        for by in (1, -1):
            yield overridden(
                case, "slice-offset", f"port's {op.base} of dimension {axis} is {by:+d} against the reference's",
                lambda s=source, m=made, o=op, by=by: {m: other_slice(case.intermediates()[s], o, by, case.values[m][1])},
            )  # fmt: skip
    for same in halves.values():
        if len(same) == 2:
            a, b = same
            yield overridden(case, "split-order", "port exchanges two slices of one value", lambda a=a, b=b: {a: case.intermediates()[b], b: case.intermediates()[a]})


def other_slice(x: np.ndarray, op: Op, by: int, shape: list[int]) -> np.ndarray:
    axis = (op.args[1] if len(op.args) > 1 else 0) % x.ndim
    n = x.shape[axis]
    start = op.args[2] if len(op.args) > 2 and op.args[2] is not None else 0
    start = start + n if start < 0 else start
    if op.base == "select":
        return np.ascontiguousarray(np.take(x, (start + by) % n, axis=axis))
    step = op.args[4] if len(op.args) > 4 else 1
    return np.ascontiguousarray(np.take(x, (start + by + step * np.arange(shape[axis])) % n, axis=axis))


# ---------------------------------------------------------------- convolution


@generator
def convolution(case: Case) -> Iterator[Hypothesis]:
    """Padding at one side, of another kind; dilation with the padding that keeps the shape; groups in another order."""
    for i, op in enumerate(case.ops):
        if op.base != "convolution":
            continue
        if op.args[6]:
            yield from crops(case, i, op)
            yield from group_orders(case, op, op.inputs[0])
            continue
        x, weight = op.inputs[0], op.inputs[1]
        n = len(case.values[x][1]) - 2
        stride, padding, dilation = ((a * n if len(a) == 1 else a) for a in (ints(op.args[3]), ints(op.args[4]), ints(op.args[5])))
        yield from paddings(case, i, op, x, padding)
        kernel = case.values[weight][1][2:]
        size, made = case.values[x][1][2:], case.values[op.outputs[0]][1][2:]
        for s in (1, 2, 3, 4):
            for d in (1, 2, 3, 4):  # what must be added to the input's size for the output's
                need = [(o - 1) * s + (k - 1) * d + 1 - m for o, k, m in zip(made, kernel, size)]
                if ([s] * n, [d] * n) != (stride, dilation) and all(need_ >= 0 for need_ in need) and max(need) <= 2 * max(kernel) * d:
                    cause = "dilation" if [s] * n == stride else "stride"
                    pads = [(p - p // 2, p // 2) if p % 2 == 0 else (p // 2, p - p // 2) for p in need]
                    if any(k > 1 for k in kernel) or cause == "stride":
                        yield edited(
                            case, cause, f"port has stride {s} and dilation {d}, reference {stride[0]} and {dilation[0]}, padded to the same shape",
                            lambda q, i=i, s=s, d=d, n=n, pads=pads: strided(q, i, [s] * n, [d] * n, pads),
                        )  # fmt: skip
                    elif [s] * n != stride and [d] * n == dilation and min(need) < 0:
                        yield edited(
                            case, "stride", f"port has stride {s}, reference {stride[0]}; its output is cut to the same shape",
                            lambda q, i=i, s=s, x=x, pads=padding, need=need: cut(case, q, i, x, s, pads, need),
                        )  # fmt: skip
        yield from group_orders(case, op, x)


def crops(case: Case, index: int, op: Op) -> Iterator[Hypothesis]:
    """A transposed convolution whose whole result is cut at other sides."""
    made = op.outputs[0]
    n = len(case.values[made][1]) - 2
    padding = ints(op.args[4]) * (n if len(ints(op.args[4])) == 1 else 1)
    for words, starts in (("at the end alone", [0] * n), ("at the beginning alone", [2 * p for p in padding]), ("one more at the beginning", [p + 1 for p in padding]),
                          ("one less at the beginning", [p - 1 for p in padding])):  # fmt: skip
        if starts != padding and all(0 <= s <= 2 * p for s, p in zip(starts, padding)):
            yield edited(case, "padding", f"port cuts the transposed convolution {words}, reference at both sides", lambda d, s=starts: cropped(d, index, padding, s))


def cropped(draft: Draft, index: int, padding: list[int], starts: list[int]) -> None:
    op = draft.ops[index]
    made = op.outputs[0]
    shape = list(draft.values[made][1])
    whole = [*shape[:2], *(m + 2 * p for m, p in zip(shape[2:], padding))]
    value = draft.new_value(made, shape=whole)
    op.outputs, op.args[4] = [value], {"list": [0] * len(padding)}
    for k, start in enumerate(starts):
        whole[2 + k] = shape[2 + k]
        part = draft.new_value(made, shape=whole)
        draft.ops.insert(index + 1 + k, Op("aten.slice.Tensor", [{"v": value}, 2 + k, start, start + shape[2 + k]], {}, [part]))
        value = part
    draft.ops.insert(index + 1 + len(starts), Op("aten.clone.default", [{"v": value}], {"memory_format": {"memory_format": "contiguous"}}, [made]))


def cut(case: Case, draft: Draft, index: int, x: int, stride: int, padding: list[int], need: list[int]) -> None:
    """Another stride on as much of the padded input as makes the output's shape."""
    source = case.intermediates()[x]
    wide = np.pad(source, [(0, 0), (0, 0), *((p, p) for p in padding)])
    wide = wide[(slice(None), slice(None), *(slice(0, m + k) for m, k in zip(source.shape[2:], need)))]
    draft.feed(index, x, np.ascontiguousarray(wide))
    op = draft.ops[index]
    op.args[3], op.args[4] = {"list": [stride] * len(padding)}, {"list": [0] * len(padding)}


def strided(draft: Draft, index: int, stride: list[int], dilation: list[int], pads: list[tuple[int, int]]) -> None:
    padded(draft, index, pads)
    op = draft.ops[index + 1]
    op.args[3], op.args[5] = {"list": stride}, {"list": dilation}


def padded(draft: Draft, index: int, pads: list[tuple[int, int]]) -> None:
    """Explicit zeros before the convolution, which then pads nothing."""
    op = draft.ops[index]
    x = op.args[0]["v"]
    shape = draft.values[x][1]
    wider = draft.new_value(x, shape=[*shape[:2], *(m + a + b for m, (a, b) in zip(shape[2:], pads))])
    draft.ops.insert(index, Op("aten.constant_pad_nd.default", [{"v": x}, {"list": [p for pair in reversed(pads) for p in pair]}, 0.0], {}, [wider]))
    op.args[0] = {"v": wider}
    op.args[4] = {"list": [0] * len(pads)}


def paddings(case: Case, index: int, op: Op, x: int, padding: list[int]) -> Iterator[Hypothesis]:
    if not any(padding):
        return
    seen = set()
    for words, share in (("after the input alone", 0.0), ("before the input alone (causal)", 1.0)):
        pads = [(round(2 * p * share), 2 * p - round(2 * p * share)) for p in padding]
        yield edited(case, "padding", f"port pads {words}, reference at both sides", lambda d, pads=pads: padded(d, index, pads))
        seen.add(tuple(pads))
    for by in (1, -1):
        pads = [(p + by, p - by) for p in padding]
        if all(min(pair) >= 0 for pair in pads) and tuple(pads) not in seen:
            yield edited(case, "padding", f"port pads {by:+d} before and {-by:+d} after the input against the reference", lambda d, pads=pads: padded(d, index, pads))
    for mode in ("reflect", "edge", "wrap"):
        words = {"reflect": "mirrored", "edge": "the border's", "wrap": "circular"}[mode]
        yield edited(case, "padding", f"port pads with {words} values, reference with zeros", lambda d, m=mode: padded_with(case, d, index, x, padding, m))


def padded_with(case: Case, draft: Draft, index: int, x: int, padding: list[int], mode: str) -> None:
    source = case.intermediates()[x]
    wider = np.pad(source, [(0, 0), (0, 0), *((p, p) for p in padding)], mode=mode)
    value = draft.new_value(x, shape=list(wider.shape))
    draft.feeds[value] = np.ascontiguousarray(wider)
    draft.ops[index].args[0] = {"v": value}
    draft.ops[index].args[4] = {"list": [0] * len(padding)}


def group_orders(case: Case, op: Op, x: int) -> Iterator[Hypothesis]:
    groups = op.args[8]
    channels = case.values[x][1][1]
    if groups > 1 and groups < channels:
        yield overridden(
            case, "groups-order", "port gives each group every n-th channel, reference channels that lie together",
            lambda: {x: shuffled(case.intermediates()[x], groups)},
        )  # fmt: skip
        out = op.outputs[0]
        yield overridden(
            case, "groups-order", "port writes the groups' channels in turns, reference one group after the other",
            lambda: {out: shuffled(case.intermediates()[out], groups)},
        )  # fmt: skip


def shuffled(x: np.ndarray, groups: int) -> np.ndarray:
    return np.ascontiguousarray(x.reshape(x.shape[0], -1, groups, *x.shape[2:]).swapaxes(1, 2)).reshape(x.shape)


@generator
def kernels(case: Case) -> Iterator[Hypothesis]:
    """A convolution's weight flipped, its spatial axes exchanged, its channel axes exchanged or read in another layout."""
    for v, name in case.parameters.items():
        shape = case.values[v][1]
        if len(shape) < 3 or not any(case.ops[i].base == "convolution" for i in case.users(v)):
            continue
        spatial = tuple(range(2, len(shape)))
        if any(n > 1 for n in shape[2:]):
            yield simple(case, "kernel-flipped", f"port has the kernel of {name} flipped", v, lambda w, s=spatial: np.flip(w, s))
            for axis in spatial if len(spatial) > 1 else ():
                yield simple(case, "kernel-flipped", f"port has the kernel of {name} flipped along axis {axis}", v, lambda w, a=axis: np.flip(w, a))
        if len(shape) == 4 and shape[2] == shape[3] > 1:
            yield simple(case, "kernel-transposed", f"port has height and width of {name} exchanged", v, lambda w: w.swapaxes(2, 3))
        if shape[0] == shape[1] > 1:
            yield simple(case, "weight-transposed", f"port has the channel axes of {name} exchanged", v, lambda w: w.swapaxes(0, 1))
        orders = [tuple(np.roll(range(len(shape)), k)) for k in range(1, len(shape))] + [(0, *spatial, 1), (*spatial, 1, 0)]
        for order in dict.fromkeys(orders):
            text = "".join("OIHWD"[a] for a in order)
            yield simple(case, "weight-layout", f"port reads {name} as if it lay in the order {text}", v, lambda w, o=order: np.ascontiguousarray(w).reshape([w.shape[a] for a in o]).transpose(np.argsort(o)))
            yield simple(case, "weight-layout", f"port has {name} written in the order {text} under the shape of the reference", v, lambda w, o=order: np.ascontiguousarray(w.transpose(o)).reshape(w.shape))
