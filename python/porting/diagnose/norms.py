"""Normalisations, fused or written out: kind, axis, groups, statistics, folding, and their place beside the residual."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .case import Case, Draft, Op, swapped
from .constants import one_plus, show
from .hypothesis import Hypothesis, edited, generator, overridden

FUSED = ("native_layer_norm", "native_group_norm", "native_batch_norm")


@dataclass(frozen=True)
class Norm:
    """A normalisation in the program: ops [first, last], input x, result out, number of its eps; weight: the parameter or None."""

    first: int
    last: int
    x: int
    out: int
    eps: float
    fused: bool


def find_norms(case: Case) -> list[Norm]:
    """Fused norms, and x * rsqrt(mean(x^2) + eps) written out, with casts and the weight that follow."""
    found = []
    for i, op in enumerate(case.ops):
        if op.base in FUSED:
            found.append(Norm(i, i, op.inputs[0], op.outputs[0], float(op.args[4 if op.base == "native_layer_norm" else 7]), True))
        elif op.base in ("rsqrt", "sqrt"):
            rms = rms_norm(case, i)
            if rms is not None:
                found.append(rms)
    return found


def only_user(case: Case, value: int, bases: tuple[str, ...]) -> int | None:
    users = [i for i in case.users(value) if case.ops[i].base in bases]
    return users[0] if len(users) == 1 else None


def made_by(case: Case, value: int, *bases: str) -> int | None:
    i = case.producers.get(value)
    return i if i is not None and case.ops[i].base in bases else None


def rms_norm(case: Case, root: int) -> Norm | None:
    """The written-out root mean square norm around the rsqrt op `root`."""
    add = made_by(case, case.ops[root].inputs[0], "add")
    if add is None or len(case.ops[add].inputs) != 1:
        return None
    mean = made_by(case, case.ops[add].inputs[0], "mean")
    square = made_by(case, case.ops[mean].inputs[0], "pow", "mul") if mean is not None else None
    if square is None:
        return None
    x = case.ops[square].inputs[0]
    scale = only_user(case, case.ops[root].outputs[0], ("mul", "div"))
    if scale is None or x not in case.ops[scale].inputs:
        return None
    last = scale
    for _ in range(2):
        value = case.ops[last].outputs[0]
        cast = only_user(case, value, ("_to_copy",))
        if cast is not None:
            last, value = cast, case.ops[cast].outputs[0]
        weight = only_user(case, value, ("mul",))
        if weight is None or not any(case.source(v) in case.parameters or v in weights_of(case) for v in case.ops[weight].inputs):
            break
        last = weight
    return Norm(square, last, x, case.ops[last].outputs[0], float(case.ops[add].args[1]), False)


def weights_of(case: Case) -> set[int]:
    """Parameters, and what elementwise ops alone make of one (1 + w, w in float32)."""
    found = set(case.parameters)
    for op in case.ops:
        if op.inputs and all(v in found for v in op.inputs) and len(op.outputs) == 1 and op.base in ("add", "_to_copy", "rsub", "mul"):
            found.add(op.outputs[0])
    return found


# ---------------------------------------------------------------- what a norm computes


@generator
def kinds(case: Case) -> Iterator[Hypothesis]:
    """Mean not subtracted, or subtracted; unbiased variance; another axis; weight or bias ignored."""
    for i, op in enumerate(case.ops):
        if op.base == "native_layer_norm":
            yield from layer_norm_variants(case, i, op)
    for norm in find_norms(case):
        if norm.fused:
            continue
        yield edited(case, "mean-subtracted", "port subtracts the mean, reference divides by the root mean square alone", lambda d, n=norm: subtract_mean(d, n))
        size = case.values[norm.x][1][-1]
        mean = next(i for i in range(norm.first, norm.last) if case.ops[i].base == "mean")
        if size > 1:
            yield edited(
                case, "variance-unbiased", f"port divides the sum of squares by {size - 1}, reference by {size}",
                lambda d, i=mean, n=size: d.ops.insert(i + 1, scaled_in_place(d, i, n / (n - 1))),
            )  # fmt: skip
        yield edited(case, "norm-missing", "port leaves out the normalisation", lambda d, n=norm: d.replace_uses(n.out, n.x, n.last + 1))


def scaled_in_place(draft: Draft, index: int, factor: float) -> Op:
    """The op that scales what op `index` makes; that op then makes a new value."""
    out = draft.ops[index].outputs[0]
    inner = draft.new_value(out)
    draft.ops[index].outputs = [inner, *draft.ops[index].outputs[1:]]
    return Op("aten.mul.Scalar", [{"v": inner}, factor], {}, [out])


def subtract_mean(draft: Draft, norm: Norm) -> None:
    shape = draft.values[norm.x][1]
    mean = draft.new_value(norm.x, shape=[*shape[:-1], 1])
    moved = draft.new_value(norm.x)
    draft.ops[norm.first : norm.first] = [
        Op("aten.mean.dim", [{"v": norm.x}, {"list": [-1]}, True], {}, [mean]), Op("aten.sub.Tensor", [{"v": norm.x}, {"v": mean}], {}, [moved]),
    ]  # fmt: skip
    rest = draft.ops[norm.last + 3 :]
    draft.ops = draft.ops[: norm.last + 3]
    outputs = dict(draft.outputs)
    draft.replace_uses(norm.x, moved, norm.first + 2)
    draft.ops += rest
    draft.outputs = outputs


def layer_norm_variants(case: Case, index: int, op: Op) -> Iterator[Hypothesis]:
    if op.args[2] is not None:
        yield edited(case, "weight-ignored", "port ignores the norm's weight", lambda d: d.ops[index].args.__setitem__(2, None))
    if op.args[3] is not None:
        yield edited(case, "bias-missing", "port ignores the norm's bias", lambda d: d.ops[index].args.__setitem__(3, None))
    dims = op.args[1]["list"] if isinstance(op.args[1], dict) else op.args[1]
    if len(dims) == 1:
        yield edited(case, "mean-not-subtracted", "port divides by the root mean square, without subtracting the mean", lambda d: as_rms(d, index))
        n = case.values[op.inputs[0]][1][-1]
        if n > 1:
            yield edited(case, "variance-unbiased", f"port divides the variance by {n - 1}, reference by {n}", lambda d: unbiased(d, index, n))
            detail = f"port divides by the unbiased deviation plus eps={show(op.args[4])}, reference by the root of the biased variance plus eps"
            yield edited(case, "variance-unbiased", detail, lambda d: by_deviation(d, index, n / (n - 1)))
        detail = f"port adds eps={show(op.args[4])} after the square root, reference before it"
        yield edited(case, "eps-outside-root", detail, lambda d: by_deviation(d, index, 1.0))
        yield edited(case, "root-missing", "port divides by the variance, reference by its root", lambda d: by_variance(d, index))
        for label, root in ROOTS.items():
            detail = f"port uses a {label} in the norm"
            yield edited(case, "approximate-rsqrt", detail, lambda d, r=root: with_rsqrt(case, d, index, r), coarse=True)
    if op.args[2] is not None and op.args[3] is not None:
        yield edited(case, "op-order", "port adds the norm's bias before it multiplies by the weight, reference after", lambda d: bias_first(d, index))
    if op.args[2] is not None:
        yield edited(case, "weight-plus-one", "port multiplies by 1 + the norm's weight", lambda d: one_more(d, index))
    shape = case.values[op.inputs[0]][1]
    for axes in [(a,) for a in range(len(shape) - len(dims)) if shape[a] > 1] + [tuple(range(1, len(shape)))]:
        if axes != tuple(range(len(shape) - len(dims), len(shape))):
            words = f"dimension {axes[0]}" if len(axes) == 1 else f"dimensions {axes[0]} to {axes[-1]}"
            yield edited(case, "norm-axis", f"port normalises over {words}, reference over the last {len(dims)}", lambda d, a=axes: over_axes(d, index, list(a)))


def chain(draft: Draft, index: int, op: Op, value: int, steps: list[tuple[str, list]]) -> None:
    """The op at `index` replaced by steps on `value`, the last of which makes its result."""
    ops = []
    for n, (name, others) in enumerate(steps):
        made = op.outputs[0] if n == len(steps) - 1 else draft.new_value(op.outputs[0])
        ops.append(Op(name, [{"v": value}, *others], {}, [made]))
        value = made
    draft.ops[index : index + 1] = ops


def affine(op: Op) -> list[tuple[str, list]]:
    return [(name, [op.args[place]]) for place, name in ((2, "aten.mul.Tensor"), (3, "aten.add.Tensor")) if op.args[place] is not None]


def normalise(draft: Draft, index: int, axes: list[int], centre: bool) -> tuple[int, int, int]:
    """Inserts the ops before x * rsqrt(..): (index of the replaced op, centred x, scale)."""
    op = draft.ops[index]
    x, out = op.args[0], op.outputs[0]
    shape = [1 if i in [a % len(draft.values[out][1]) for a in axes] else n for i, n in enumerate(draft.values[out][1])]
    if centre:
        mean = draft.new_value(out, shape=shape)
        draft.ops.insert(index, Op("aten.mean.dim", [x, {"list": axes}, True], {}, [mean]))
        x = {"v": draft.insert(index + 1, "aten.sub.Tensor", [x, {"v": mean}], {}, out)}
        index += 2
    square = draft.insert(index, "aten.mul.Tensor", [x, x], {}, out)
    mean = draft.new_value(out, shape=shape)
    draft.ops.insert(index + 1, Op("aten.mean.dim", [{"v": square}, {"list": axes}, True], {}, [mean]))
    moved = draft.insert(index + 2, "aten.add.Scalar", [{"v": mean}, op.args[4]], {}, mean)
    scale = draft.insert(index + 3, "aten.rsqrt.default", [{"v": moved}], {}, mean)
    return index + 4, x["v"], scale


def as_rms(draft: Draft, index: int) -> None:
    """y = x * rsqrt(mean(x^2) + eps) * weight + bias."""
    op = draft.ops[index]
    place, x, scale = normalise(draft, index, [-1], False)
    chain(draft, place, op, x, [("aten.mul.Tensor", [{"v": scale}]), *affine(op)])


def over_axes(draft: Draft, index: int, axes: list[int]) -> None:
    op = draft.ops[index]
    place, x, scale = normalise(draft, index, axes, True)
    chain(draft, place, op, x, [("aten.mul.Tensor", [{"v": scale}]), *affine(op)])


def unbiased(draft: Draft, index: int, n: int) -> None:
    """Variance times n / (n - 1): eps times the reciprocal, and the result times its root."""
    op = draft.ops[index]
    eps = op.args[4] * (n - 1) / n
    inner = draft.new_value(op.outputs[0])
    plain = Op(op.name, [op.args[0], op.args[1], None, None, eps], {}, [inner, *op.outputs[1:]])
    draft.ops.insert(index, plain)
    chain(draft, index + 1, op, inner, [("aten.mul.Scalar", [((n - 1) / n) ** 0.5]), *affine(op)])


def by_deviation(draft: Draft, index: int, factor: float) -> None:
    """y = (x - mean) / (sqrt(factor * variance) + eps) * weight + bias."""
    op = draft.ops[index]
    place, x, scale = normalise(draft, index, [-1], True)
    eps_at, root_at = place - 2, place - 1
    variance, eps = draft.ops[eps_at].args[0]["v"], op.args[4]
    moved, made = draft.ops[eps_at].outputs[0], draft.ops[root_at].outputs[0]
    scaled, root = draft.new_value(moved), draft.new_value(moved)
    draft.ops[eps_at : root_at + 1] = [
        Op("aten.mul.Scalar", [{"v": variance}, factor], {}, [scaled]), Op("aten.sqrt.default", [{"v": scaled}], {}, [root]),
        Op("aten.add.Scalar", [{"v": root}, eps], {}, [moved]), Op("aten.reciprocal.default", [{"v": moved}], {}, [made]),
    ]  # fmt: skip
    chain(draft, place + 2, op, x, [("aten.mul.Tensor", [{"v": scale}]), *affine(op)])


def by_variance(draft: Draft, index: int) -> None:
    """y = (x - mean) / (variance + eps) * weight + bias."""
    op = draft.ops[index]
    place, x, scale = normalise(draft, index, [-1], True)
    draft.ops[place - 1].name = "aten.reciprocal.default"
    chain(draft, place, op, x, [("aten.mul.Tensor", [{"v": scale}]), *affine(op)])


def with_rsqrt(case: Case, draft: Draft, index: int, root: Callable[[np.ndarray], np.ndarray]) -> None:
    """The norm with an approximate reciprocal square root, computed from the values of the reference."""
    op = draft.ops[index]
    x = case.intermediates()[op.inputs[0]].astype(np.float64)
    moved = (x.var(axis=-1, keepdims=True) + op.args[4]).astype(np.float32)
    place, centred, scale = normalise(draft, index, [-1], True)
    draft.feeds[scale] = root(moved)
    del draft.ops[place - 1]
    chain(draft, place - 1, op, centred, [("aten.mul.Tensor", [{"v": scale}]), *affine(op)])


def twelve_bit_rsqrt(x: np.ndarray, steps: int) -> np.ndarray:
    """1/sqrt(x) with 12 bits; the hardware's table differs between makers, its relative error is up to 1.5 * 2^-12."""
    y = (1 / np.sqrt(x.astype(np.float64))).astype(np.float32)
    bits = y.view(np.uint32)
    return newton_steps(x, ((bits + 0x800) & np.uint32(0xFFFFF000)).view(np.float32), steps)


def rsqrt_by_bits(x: np.ndarray, steps: int) -> np.ndarray:
    """1/sqrt(x) from half the exponent, taken off the bits of x."""
    return newton_steps(x, (np.uint32(0x5F3759DF) - (np.ascontiguousarray(x).view(np.uint32) >> np.uint32(1))).view(np.float32), steps)


def newton_steps(x: np.ndarray, y: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        y = y * (np.float32(1.5) - np.float32(0.5) * x * y * y)
    return y


ROOTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw 12-bit rsqrt": lambda x: twelve_bit_rsqrt(x, 0),
    "12-bit rsqrt with one Newton step": lambda x: twelve_bit_rsqrt(x, 1),
    "rsqrt by the exponent's bits with one Newton step": lambda x: rsqrt_by_bits(x, 1),
    "rsqrt by the exponent's bits with two Newton steps": lambda x: rsqrt_by_bits(x, 2),
}


def bias_first(draft: Draft, index: int) -> None:
    op = draft.ops[index]
    inner = draft.new_value(op.outputs[0])
    draft.ops.insert(index, Op(op.name, [op.args[0], op.args[1], None, None, op.args[4]], {}, [inner, *op.outputs[1:]]))
    chain(draft, index + 1, op, inner, [("aten.add.Tensor", [op.args[3]]), ("aten.mul.Tensor", [op.args[2]])])


def one_more(draft: Draft, index: int) -> None:
    weight = draft.ops[index].args[2]
    more = draft.insert(index, "aten.add.Scalar", [weight, 1.0], {}, weight["v"])
    draft.ops[index + 1].args[2] = {"v": more}


@generator
def weights_of_norms(case: Case) -> Iterator[Hypothesis]:
    """A scale that is ignored, and one of 1 + w."""
    for i, op in enumerate(case.ops):
        if op.base != "mul" or len(op.inputs) != 2:
            continue
        for place, v in enumerate(op.inputs):
            if v in case.parameters and len(case.values[v][1]) == 1:
                other = op.inputs[1 - place]
                yield edited(case, "weight-ignored", f"port does not multiply by {case.parameters[v]}", lambda d, i=i, o=other: d.drop(i, o))
                yield edited(case, "weight-plus-one", f"port multiplies by 1 + {case.parameters[v]}", lambda d, i=i, p=place: plus_one(d, i, p))
    for i, op in enumerate(case.ops):
        if op.base in ("native_batch_norm", "native_group_norm") and isinstance(op.args[1], dict):
            yield edited(case, "weight-plus-one", "port multiplies by 1 + the norm's weight", lambda d, i=i, v=op.args[1]["v"]: d.feed(i, v, case.intermediates()[v] + 1))
        name = one_plus(case, op)
        if name:
            yield edited(case, "weight-plus-one", f"port multiplies by {name}, reference by 1 + {name}", lambda d, i=i, v=op.inputs[0]: d.drop(i, v))
            yield edited(case, "weight-plus-one", f"port adds 1 to {name} twice, reference once", lambda d, i=i: d.ops[i].args.__setitem__(1, 2.0))


def plus_one(draft: Draft, index: int, place: int) -> None:
    op = draft.ops[index]
    more = draft.insert(index, "aten.add.Scalar", [op.args[place], 1.0], {}, op.args[place]["v"])
    op.args[place] = {"v": more}


# ---------------------------------------------------------------- groups, batch statistics, folding


@generator
def groups(case: Case) -> Iterator[Hypothesis]:
    """Group norm with another number of groups."""
    for i, op in enumerate(case.ops):
        if op.base != "native_group_norm":
            continue
        channels, old = op.args[4], op.args[6]
        for new in dict.fromkeys((1, channels, 2 * old, old // 2, channels // old, 32)):
            if new and new != old and channels % new == 0:
                yield edited(case, "norm-groups", f"port normalises in {new} groups, reference in {old}", lambda d, i=i, n=new: in_groups(d, i, n))


def in_groups(draft: Draft, index: int, number: int) -> None:
    op = draft.ops[index]
    op.args[6] = number
    for value in op.outputs[1:]:  # mean and rstd, a column per group
        if value is not None:
            dtype, shape, _, offset = draft.values[value]
            draft.values[value] = [dtype, [shape[0], number], [number, 1], offset]


@generator
def batch_norms(case: Case) -> Iterator[Hypothesis]:
    """Running statistics ignored, the batch's own used, variance for its root; a fold into the convolution that forgets something."""
    for op in case.ops:
        if op.base != "native_batch_norm" or op.args[3] is None or op.args[4] is None or op.args[5]:
            continue
        x, mean, var, eps = op.inputs[0], op.args[3]["v"], op.args[4]["v"], float(op.args[7])
        yield overridden(case, "statistics-ignored", "port does not subtract the running mean", lambda m=mean: {m: np.zeros_like(case.feeds[m])})
        yield overridden(case, "statistics-ignored", "port does not divide by the running deviation", lambda v=var: {v: np.ones_like(case.feeds[v])})
        yield overridden(
            case, "root-missing", "port divides by the variance, reference by its root",
            lambda v=var, e=eps: {v: (np.square(case.feeds[v].astype(np.float64) + e) - e).astype(case.feeds[v].dtype)},
        )  # fmt: skip
        yield overridden(
            case, "eps-outside-root", f"port adds eps={show(eps)} after the square root, reference before it",
            lambda v=var, e=eps: {v: (np.square(np.sqrt(case.feeds[v].astype(np.float64)) + e) - e).astype(case.feeds[v].dtype)},
        )  # fmt: skip
        yield overridden(case, "batch-statistics", "port normalises with the batch's own statistics, reference with the running ones", lambda o=op: own_statistics(case, o))
        for words, axes in (("of the first image", None), ("of each image by itself", 0)):
            yield overridden(case, "batch-statistics", f"port normalises with the statistics {words}", lambda o=op, a=axes: of_images(case, o, a))
        yield from folds(case, op, case.producers.get(x))


def own_statistics(case: Case, op: Op) -> dict[int, np.ndarray]:
    x = case.intermediates()[op.inputs[0]]
    axes = (0, *range(2, x.ndim))
    mean, var = op.args[3]["v"], op.args[4]["v"]
    return {mean: x.mean(axis=axes, dtype=np.float64).astype(x.dtype), var: x.astype(np.float64).var(axis=axes).astype(x.dtype)}


def of_images(case: Case, op: Op, each: int | None) -> dict[int, np.ndarray]:
    """The result with the mean and variance of the first image, or of each."""
    values = case.intermediates()
    x = values[op.inputs[0]].astype(np.float64)
    axes = tuple(range(2, x.ndim))
    part = x if each == 0 else x[:1]
    y = (x - part.mean(axis=axes, keepdims=True)) / np.sqrt(part.var(axis=axes, keepdims=True) + float(op.args[7]))
    shape = (1, -1, *(1 for _ in axes))
    for place, merge in ((1, np.multiply), (2, np.add)):
        if isinstance(op.args[place], dict):
            y = merge(y, values[op.args[place]["v"]].astype(np.float64).reshape(shape))
    return {op.outputs[0]: y.astype(values[op.outputs[0]].dtype)}


def folds(case: Case, op: Op, made: int | None) -> Iterator[Hypothesis]:
    """A batch norm folded into the convolution or product before it, with the bias left as it was, or along the input channels."""
    if made is None or case.ops[made].base not in ("convolution", "addmm"):
        return
    conv = case.ops[made]
    place = 2 if conv.base == "convolution" else 0
    weight, bias = (conv.args[1], conv.args[2]) if place == 2 else (conv.args[2], conv.args[0])

    def factor() -> np.ndarray:
        w = case.feeds[op.args[1]["v"]].astype(np.float64) if op.args[1] is not None else 1.0
        return w / np.sqrt(case.feeds[op.args[4]["v"]].astype(np.float64) + float(op.args[7]))

    if bias is not None and bias["v"] in case.feeds:
        b = bias["v"]
        yield overridden(
            case, "fold", "port folds the batch norm into the weight but leaves the convolution's bias unscaled",
            lambda: {b: (case.feeds[b] / factor()).astype(case.feeds[b].dtype)},
        )  # fmt: skip
    w = weight["v"]
    if w in case.feeds and place == 2 and case.feeds[w].shape[0] == case.feeds[w].shape[1]:
        def along_inputs() -> dict[int, np.ndarray]:
            f = factor()
            tail = (1,) * (case.feeds[w].ndim - 2)
            return {w: (case.feeds[w] * f.reshape(1, -1, *tail) / f.reshape(-1, 1, *tail)).astype(case.feeds[w].dtype)}

        yield overridden(case, "fold", "port folds the batch norm along the input channels of the weight", along_inputs)


# ---------------------------------------------------------------- beside the residual


@generator
def placement(case: Case) -> Iterator[Hypothesis]:
    """The residual taken after the norm where the reference takes it before, and a norm before an addition for after it."""
    norms = find_norms(case)
    for i, op in enumerate(case.ops):
        if op.base != "add" or len(op.inputs) != 2:
            continue
        for place, v in enumerate(op.inputs):
            for norm in norms:
                if norm.last < i and case.source(norm.x) == case.source(v) and case.values[norm.out][1] == case.values[v][1]:
                    yield edited(
                        case, "residual-placement", "port takes the residual after the norm, reference before it",
                        lambda d, i=i, p=place, n=norm: d.ops[i].args.__setitem__(p, {"v": n.out}),
                    )  # fmt: skip
                if norm.last < i and norm.out == v and case.values[norm.out][1] == case.values[norm.x][1]:
                    yield edited(
                        case, "residual-placement", "port takes the residual before the norm, reference after it",
                        lambda d, i=i, p=place, n=norm: d.ops[i].args.__setitem__(p, {"v": n.x}),
                    )  # fmt: skip
        for norm in norms:
            if norm.x == op.outputs[0] and norm.first > i:
                for place in (0, 1):
                    yield edited(
                        case, "residual-placement", "port normalises before it adds the residual, reference after",
                        lambda d, i=i, n=norm, p=place: norm_first(d, i, n, p),
                    )  # fmt: skip


@generator
def norm_last(case: Case) -> Iterator[Hypothesis]:
    """x + f(norm(x)) as norm(x + f(x)): a block of the other kind."""
    for i, op in enumerate(case.ops):
        for norm in find_norms(case) if op.base == "add" and len(op.inputs) == 2 else ():
            if norm.last < i and norm.x in (case.source(v) for v in op.inputs) and case.values[op.outputs[0]][1] == case.values[norm.x][1]:
                yield edited(
                    case, "residual-placement", "port normalises what the residual was added to, reference what goes into the branch",
                    lambda d, i=i, n=norm: norm_after(d, i, n),
                )  # fmt: skip


def norm_after(draft: Draft, add: int, norm: Norm) -> None:
    moved = [draft.ops[k].copy() for k in range(norm.first, norm.last + 1)]
    tail = draft.ops[add + 1 :]
    draft.ops = draft.ops[: add + 1]
    outputs = dict(draft.outputs)
    draft.replace_uses(norm.out, norm.x, norm.last + 1)
    draft.outputs = outputs
    op = draft.ops[add]
    made = op.outputs[0]
    total = draft.new_value(made)
    op.outputs = [total]
    names = {norm.x: total}
    for one in moved:
        for old, new in names.items():
            one.args = [swapped(a, old, new) for a in one.args]
        for k, v in enumerate(one.outputs):
            if v is not None:
                names[v] = made if v == norm.out else draft.new_value(v)
                one.outputs[k] = names[v]
    draft.ops += [*moved, *tail]


def norm_first(draft: Draft, add: int, norm: Norm, place: int) -> None:
    """norm(a + b) becomes a + norm(b)."""
    op = draft.ops[add]
    kept, normalised = op.args[place], op.args[1 - place]["v"]
    outputs, tail = dict(draft.outputs), draft.ops[norm.last + 1 :]
    draft.ops = draft.ops[: norm.last + 1]
    draft.replace_uses(norm.x, normalised, norm.first)
    draft.outputs = outputs
    inner = draft.new_value(norm.out)
    last = draft.ops[norm.last]
    last.outputs = [inner, *last.outputs[1:]]
    draft.ops += [Op("aten.add.Tensor", [{"v": inner}, kept], {}, [norm.out]), *tail]
