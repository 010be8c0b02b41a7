"""Other values, functions and arguments in the place of an op's own: the changes that mean something in any program, whatever it computes.

They come last of what is tried: where one of them gives the same numbers as a cause with a meaning, that cause is named.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .case import Case, Draft, Op
from .constants import is_number
from .hypothesis import Hypothesis, edited, generator, overridden
from .structure import same_meta, where

NEAREST = 10  # candidates for the place of one operand

#: Functions that are taken for one another, beside the activations: op -> [(op, arguments after the first)].
FUNCTIONS: dict[str, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "rsqrt": (("reciprocal", ()), ("sqrt", ())), "sqrt": (("rsqrt", ()), ("square", ())), "reciprocal": (("neg", ()),), "exp": (("softplus", ()), ("expm1", ()), ("exp2", ())),
    "softplus": (("exp", ()), ("relu", ()), ("silu", ())), "sigmoid": (("tanh", ()), ("hardsigmoid", ()), ("relu", ())), "tanh": (("sigmoid", ()), ("hardtanh", (-1.0, 1.0))),
    "_softmax": (("sigmoid", ()), ("exp", ())), "log": (("log2", ()), ("log10", ()), ("log1p", ())), "log1p": (("log", ()),), "cos": (("sin", ()),), "sin": (("cos", ()),),
    "abs": (("relu", ()),), "floor": (("ceil", ()), ("round", ()), ("trunc", ())), "round": (("floor", ()), ("trunc", ())), "erf": (("tanh", ()),),
    "square": (("abs", ()),), "expm1": (("exp", ()),),
}  # fmt: skip
MEANING = {"rsqrt": "root-missing", "sqrt": "root-missing"}
REDUCTIONS = {"mean": ("amax",), "amax": ("mean", "amin"), "sum": ("mean",)}


@generator
def functions(case: Case) -> Iterator[Hypothesis]:
    """Another function of the same numbers: reciprocal for rsqrt, sigmoid for softmax, ceil for floor."""
    for i, op in enumerate(case.ops):
        if not op.outputs or op.outputs[0] is None or not case.is_floating(op.outputs[0]):
            continue
        for other, rest in FUNCTIONS.get(op.base, ()):
            cause = MEANING.get(op.base, "op-other")
            yield edited(case, cause, f"port computes {other} where the reference has {where(case, op)}", lambda d, i=i, n=other, r=rest: renamed(d, i, n, r))
        if op.base == "exp":
            for words, change in (("1 + x", lambda x: 1 + x), ("the reciprocal", lambda x: np.exp(-x))):
                yield overridden(case, "op-other", f"port computes {words} where the reference has {where(case, op)}", lambda v=op.outputs[0], x=op.inputs[0], c=change: {v: c(case.intermediates()[x])})
        if op.base in ("max_pool2d_with_indices", "avg_pool2d"):
            other = "mean" if op.base.startswith("max") else "greatest"
            yield edited(case, "op-other", f"port takes the {other} of each window where the reference has {where(case, op)}", lambda d, i=i: other_pool(d, i))
        for other in REDUCTIONS.get(op.base, ()) if len(op.args) > 2 else ():
            yield edited(case, "op-other", f"port takes {other} where the reference has {where(case, op)}", lambda d, i=i, n=other: reduced(d, i, n))


def renamed(draft: Draft, index: int, name: str, rest: tuple[Any, ...]) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op(f"aten.{name}.default", [op.args[0], *rest], {}, op.outputs[:1])


def other_pool(draft: Draft, index: int) -> None:
    op = draft.ops[index]
    if op.base == "avg_pool2d":
        places = draft.new_value(op.outputs[0], dtype="I64")
        draft.ops[index] = Op("aten.max_pool2d_with_indices.default", op.args[:4], {}, [op.outputs[0], places])
    else:
        draft.ops[index] = Op("aten.avg_pool2d.default", op.args[:4], {}, op.outputs[:1])


def reduced(draft: Draft, index: int, name: str) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op(f"aten.{name}.{'dim' if name == 'mean' else 'default'}", op.args[:3], {}, op.outputs[:1])


@generator
def settings(case: Case) -> Iterator[Hypothesis]:
    """Arguments that are numbers or switches: shifts, diagonals, ranges, padding, corners, divisors, the greatest for the least."""
    for i, op in enumerate(case.ops):
        for cause, detail, change in variants(case, op):
            yield edited(case, cause, f"port {detail} ({where(case, op) if op.outputs and op.outputs[0] is not None else op.base})", lambda d, i=i, c=change: c(d.ops[i]))


Variant = tuple[str, str, Callable[[Op], Any]]


def set_arg(place: int, value: Any, fill: Any = 0) -> Callable[[Op], Any]:
    def change(op: Op) -> None:
        op.args.extend([fill] * (place + 1 - len(op.args)))
        op.args[place] = value

    return change


def variants(case: Case, op: Op) -> Iterator[Variant]:
    base, args = op.base, op.args
    if base == "roll":
        shifts = args[1]["list"] if isinstance(args[1], dict) else [args[1]]
        yield "roll-shift", f"rolls by {[-s for s in shifts]}, reference by {shifts}", set_arg(1, {"list": [-s for s in shifts]})
        for by in (1, -1):
            yield "roll-shift", f"rolls by {[s + by for s in shifts]}, reference by {shifts}", set_arg(1, {"list": [s + by for s in shifts]})
    elif base in ("tril", "triu"):
        old = args[1] if len(args) > 1 else 0
        for by in (1, -1):
            yield "mask-off-by-one", f"has the diagonal {old + by} in {base}, reference {old}", set_arg(1, old + by)
    elif base == "arange" and op.name == "aten.arange.start":
        for by in (1, -1):
            yield "position-offset", f"counts from {args[0] + by}, reference from {args[0]}", lambda o, by=by: o.args.__setitem__(slice(0, 2), [o.args[0] + by, o.args[1] + by])
    elif base == "arange" and op.name == "aten.arange.default" and is_number(args[0]):
        def moved(o: Op, by: int) -> None:
            o.name, o.args = "aten.arange.start", [by, o.args[0] + by]

        for by in (1, -1):
            yield "position-offset", f"counts from {by}, reference from 0", lambda o, by=by: moved(o, by)
    elif base == "topk":
        largest = args[3] if len(args) > 3 else True
        yield "top-k", f"takes the {'least' if largest else 'greatest'}, reference the {'greatest' if largest else 'least'}", lambda o, v=not largest: largest_of(o, v)
    elif base in ("avg_pool2d", "avg_pool1d", "avg_pool3d"):
        old = args[5] if len(args) > 5 else True
        if not isinstance(old, dict) and any(args[3]["list"] if len(args) > 3 and isinstance(args[3], dict) else [0]):
            yield "pool-divisor", f"{'leaves the padding out of' if old else 'counts the padding in'} the mean", lambda o, v=not old: pool_divisor(o, v)
    elif base.startswith("upsample_") and len(args) > 2 and isinstance(args[2], bool):
        yield "align-corners", f"has align_corners={not args[2]}, reference {args[2]}", set_arg(2, not args[2])
    elif base in ("var", "std", "var_mean", "std_mean"):
        old = op.kwargs.get("correction", 1)
        yield "variance-unbiased", f"divides by n - {0 if old else 1}, reference by n - {old}", lambda o, v=0 if old else 1: o.kwargs.update(correction=v)
    elif base == "constant_pad_nd":
        pads = args[1]["list"]
        turned = [p for a, b in zip(pads[::2], pads[1::2]) for p in (b, a)]
        if turned != pads:
            yield "padding", f"pads {turned}, reference {pads}", set_arg(1, {"list": turned})
        for value in (0.0, 1.0):
            if is_number(args[2] if len(args) > 2 else 0) and (args[2] if len(args) > 2 else 0) != value:
                yield "padding", f"pads with {value:g}", set_arg(2, value)
    elif base == "div" and op.kwargs.get("rounding_mode"):
        old = op.kwargs["rounding_mode"]
        yield "op-other", f"rounds to {'trunc' if old == 'floor' else 'floor'}, reference to {old}", lambda o, v="trunc" if old == "floor" else "floor": o.kwargs.update(rounding_mode=v)


def largest_of(op: Op, value: bool) -> None:
    op.args.extend([-1] * (3 - len(op.args)))
    op.args[3:4] = [value]


def pool_divisor(op: Op, value: bool) -> None:
    defaults: list[Any] = [None, None, {"list": []}, {"list": [0]}, False]
    op.args.extend(defaults[len(op.args) :])
    op.args[5:6] = [value]


# ---------------------------------------------------------------- another operand


TAKERS = ("add", "sub", "mul", "div", "mm", "addmm", "bmm", "baddbmm", "native_layer_norm", "native_group_norm", "native_batch_norm", "convolution", "cat", "_softmax", "rms_norm",
          "silu", "gelu", "relu", "sigmoid", "tanh", "pow", "mean", "where", "masked_fill")  # fmt: skip


@generator
def operands(case: Case) -> Iterator[Hypothesis]:
    """Another value of the same shape, computed before, where the op takes one: a branch that begins at the wrong place, a gate used twice."""
    for i, op in enumerate(case.ops):
        if op.base not in TAKERS and not op.base.startswith("_scaled_dot_product"):
            continue
        for v in dict.fromkeys(op.inputs):
            if not case.is_floating(v) or case.source(v) in case.parameters or not case.values[v][1]:
                continue
            for u in candidates(case, i, v):
                detail = f"port gives {where(case, op)} {called(case, u)}, reference {called(case, v)}"
                yield edited(case, "wrong-operand", detail, lambda d, i=i, v=v, u=u: d.swap(i, v, u))


def candidates(case: Case, index: int, value: int) -> list[int]:
    """Values of the same shape and dtype that are there before the op, nearest first; one of each memory."""
    found: dict[int, int] = {}
    for op in reversed(case.ops[:index]):
        for u in op.outputs:
            if u is not None and u != value and same_meta(case, u, value) and case.source(u) != case.source(value):
                found.setdefault(case.source(u), u)
    for u in case.leaves:
        if u != value and same_meta(case, u, value) and u != case.source(value):
            found.setdefault(u, u)
    return list(found.values())[:NEAREST]


def called(case: Case, value: int) -> str:
    """An input's name, or the op that made the value, with its number."""
    source = case.source(value)
    if source in case.leaves:
        return case.leaves[source]
    made = case.producers.get(source)
    return f"what {case.place(made)} makes" if made is not None else case.parameters.get(source, f"value {source}")


@generator
def sinks(case: Case) -> Iterator[Hypothesis]:
    """A column that stands beside the logits in a softmax and is dropped after it, left out."""
    for i, op in enumerate(case.ops):
        if op.base != "cat" or len(op.inputs) != 2 or not case.is_floating(op.outputs[0]):
            continue
        made, extra = op.outputs[0], op.inputs[1]
        if case.values[extra][1][-1:] != [1] or case.values[made][1][-1] < 2 or not any(o.base == "_softmax" for o in case.ops[i : i + 6]):
            continue

        def without(made: int = made) -> dict[int, Any]:
            x = case.intermediates()[made].copy()
            x[..., -1] = -3e38 if x.dtype.name != "float16" else -6e4
            return {made: x}

        yield overridden(case, "sink", "port leaves the sink out of the softmax", without)



# ---------------------------------------------------------------- experts


@generator
def interpolations(case: Case) -> Iterator[Hypothesis]:
    """A bilinear interpolation that takes the nearest, or counts from the corners of the pixels."""
    for op in case.ops:
        if op.base != "upsample_bilinear2d":
            continue
        x, out = op.inputs[0], op.outputs[0]
        for words, at, nearest in (("the nearest number, cut to whole ones", lambda i, f: i / f, True), ("the nearest number, of the middle", lambda i, f: np.floor((i + 0.5) / f), True),
                                   ("neighbours of i / factor, with no half of a pixel", lambda i, f: i / f, False)):  # fmt: skip
            yield overridden(case, "interpolation", f"port takes {words}", lambda x=x, o=out, a=at, n=nearest: {o: resampled(case.intermediates()[x], case.values[o][1][2:], a, n)})


def resampled(x: np.ndarray, size: list[int], at: Callable[[np.ndarray, float], np.ndarray], nearest: bool) -> np.ndarray:
    """The two last axes at other places: `at(index, factor)` in numbers of the input's pixels."""
    y = x.astype(np.float64)
    for axis, n in ((-2, size[0]), (-1, size[1])):
        m = y.shape[axis]
        place = np.clip(at(np.arange(n), n / m), 0, m - 1)
        low = np.floor(place).astype(int)
        share = 0.0 if nearest else (place - low).reshape((-1, 1) if axis == -2 else (-1,))
        y = np.take(y, low, axis=axis) * (1 - share) + np.take(y, np.minimum(low + 1, m - 1), axis=axis) * share
    return y.astype(x.dtype)


@generator
def experts(case: Case) -> Iterator[Hypothesis]:
    """What is done with the k greatest: other weights for them, another one in their place."""
    for op in case.ops:
        if op.base != "topk" or not is_number(op.args[1]) or op.args[1] < 2 or None in op.outputs[:2]:
            continue
        values, indices = op.outputs[:2]
        count = case.values[op.inputs[0]][1][-1]
        for words, change in WEIGHTS_OF_EXPERTS:
            yield overridden(case, "experts", f"port {words} of the {op.args[1]} greatest of {count}", lambda v=values, c=change: {v: c(case.intermediates()[v].astype(np.float64)).astype(case.intermediates()[v].dtype)})
        for by in (1, -1):
            yield overridden(case, "experts", f"port takes the number {by:+d} beside each of the {op.args[1]} greatest", lambda v=indices, b=by, n=count: {v: (case.intermediates()[v] + b) % n})


def of_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


WEIGHTS_OF_EXPERTS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("takes the first alone", lambda x: np.where(np.arange(x.shape[-1]) == 0, x, 0.0)), ("leaves out the last", lambda x: np.where(np.arange(x.shape[-1]) < x.shape[-1] - 1, x, 0.0)),
    ("gives the same weight to each", lambda x: np.full_like(x, 1 / x.shape[-1])), ("gives weight 1 to each", np.ones_like), ("exchanges the weights", lambda x: x[..., ::-1]),
    ("computes a softmax of the weights", of_softmax), ("divides the weights by their sum", lambda x: x / x.sum(axis=-1, keepdims=True)),
    ("takes the sigmoid of the weights", lambda x: 1 / (1 + np.exp(-x))),
)  # fmt: skip
