"""The program's structure: an op left out, another in its place, operands in the other order, another axis."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import VIEWS, Case, Draft, Op
from .constants import is_number
from .hypothesis import Hypothesis, edited, generator, overridden

OTHER_OP = {
    "add": ("sub", "mul"), "sub": ("add",), "mul": ("add",), "div": ("mul",), "cos": ("sin",), "sin": ("cos",), "amax": ("amin",), "maximum": ("minimum",),
    "minimum": ("maximum",), "bitwise_and": ("bitwise_or",), "bitwise_or": ("bitwise_and",), "ge": ("gt",), "gt": ("ge",), "le": ("lt",), "lt": ("le",),
}  # fmt: skip


def contiguous(shape: list[int]) -> list[int]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.insert(0, step)
        step *= max(n, 1)
    return strides


def same_meta(case: Case, a: int, b: int) -> bool:
    return case.values[a][0] == case.values[b][0] and case.values[a][1] == case.values[b][1]


def where(case: Case, op: Op) -> str:
    """How a sentence names an op: with the shape it makes."""
    return f"{op.base} {'x'.join(map(str, case.values[op.outputs[0]][1])) or 'scalar'}"


@generator
def left_out(case: Case) -> Iterator[Hypothesis]:
    """An op whose result has the shape of one of its inputs is missing: a residual, a bias, a negation, a norm, a cast."""
    for i, op in enumerate(case.ops):
        if len([v for v in op.outputs if v is not None]) < 1 or op.outputs[0] is None or op.base in VIEWS:
            continue
        for v in dict.fromkeys(op.inputs):
            if op.base in ("add", "mul", "div") and len(op.inputs) == 2 and len(set(op.inputs)) == 2 and (op.base != "div" or v == op.inputs[0]) and spreads(case, v, op.outputs[0]):
                lost = next(u for u in op.inputs if u != v)
                cause = "addend-missing" if op.base == "add" else "op-missing"
                detail = f"port leaves out {name_of(case, lost)} in {where(case, op)}"
                yield overridden(case, cause, detail, lambda v=v, o=op.outputs[0]: {o: np.ascontiguousarray(np.broadcast_to(case.intermediates()[v], case.values[o][1]))})
            if v == op.outputs[0] or not same_meta(case, v, op.outputs[0]):
                continue
            if op.base == "add" and len(op.inputs) == 2:
                lost = next((u for u in op.inputs if u != v), v)
                yield edited(case, "addend-missing", f"port leaves out the addend {name_of(case, lost)} ({where(case, op)})", lambda d, i=i, v=v: d.drop(i, v))
            else:
                cause = "norm-missing" if "norm" in op.base else "softmax-missing" if "softmax" in op.base else "op-missing"
                yield edited(case, cause, f"port leaves out {where(case, op)}", lambda d, i=i, v=v: d.drop(i, v))
        if op.base == "addmm":
            yield edited(case, "bias-missing", f"port leaves out the bias {name_of(case, op.inputs[0])}", lambda d, i=i: drop_bias(d, i))
            yield edited(case, "bias-doubled", f"port adds the bias {name_of(case, op.inputs[0])} twice", lambda d, i=i: d.ops[i].kwargs.update(beta=2))


def spreads(case: Case, v: int, made: int) -> bool:
    """True if v is smaller than what is made of it, of the same dtype, and computed."""
    return case.values[v][0] == case.values[made][0] and case.values[v][1] != case.values[made][1] and case.source(v) not in case.parameters and case.is_floating(v)


def drop_bias(draft: Draft, index: int) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op("aten.mm.default", op.args[1:3], {}, op.outputs)


PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "convolution", "embedding")


@generator
def results(case: Case) -> Iterator[Hypothesis]:
    """What a product makes is zero, or that of the first row of the batch for all of them."""
    for i, op in enumerate(case.ops):
        if op.base not in PRODUCTS and not op.base.startswith("_scaled_dot_product"):
            continue
        out = op.outputs[0]
        yield overridden(case, "output-zero", f"port has zeros for {case.place(i)}", lambda v=out: {v: np.zeros_like(case.intermediates()[v])})
        for v in (out, *(case.ops[j].outputs[0] for j in case.users(out) if case.ops[j].base in ("view", "_unsafe_view"))):
            if v is not None and len(case.values[v][1]) > 2 and case.values[v][1][0] > 1:
                detail = f"port has in {case.place(i)} the first row of the batch for each of the {case.values[v][1][0]}"
                yield overridden(case, "batch-rows-alike", detail, lambda v=v: {v: alike(case.intermediates()[v])})


def alike(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(x[:1], x.shape))


def name_of(case: Case, value: int) -> str:
    """A parameter's or input's name, or the op that made the value."""
    value = case.source(value)
    if value in case.parameters:
        return case.parameters[value]
    if value in case.leaves:
        return case.leaves[value]
    made = case.producers.get(value)
    return f"from {case.ops[made].base}" if made is not None else f"value {value}"


@generator
def other_op(case: Case) -> Iterator[Hypothesis]:
    """Another op in its place; operands exchanged; an addend doubled."""
    for i, op in enumerate(case.ops):
        for other in OTHER_OP.get(op.base, ()):
            name = op.name.replace(f"aten.{op.base}.", f"aten.{other}.")
            if len(op.args) > 1 and is_number(op.args[1]):
                continue  # constants.py
            yield edited(case, "op-other", f"port computes {other} where the reference has {where(case, op)}", lambda d, i=i, n=name: setattr(d.ops[i], "name", n))
        if op.base in ("sub", "div") and len(op.inputs) == 2 and same_meta(case, *op.inputs):
            yield edited(case, "operands-exchanged", f"port exchanges the operands of {where(case, op)}", lambda d, i=i: d.ops[i].args.reverse())
        if op.base == "add" and len(op.inputs) == 2:
            for place in (0, 1):
                lost = op.inputs[place]
                detail = f"port adds {name_of(case, lost)} twice ({where(case, op)})"
                yield edited(case, "addend-doubled", detail, lambda d, i=i, p=place: scale_addend(d, i, p, 2.0))
                # before a norm, which knows no scale, the other addend halved is the same but for eps
                detail = f"port adds half of {name_of(case, lost)} ({where(case, op)})"
                if case.is_floating(lost):
                    yield edited(case, "scale", detail, lambda d, i=i, p=place: scale_addend(d, i, p, 0.5))


def scale_addend(draft: Draft, index: int, place: int, factor: float) -> None:
    op = draft.ops[index]
    scaled = draft.insert(index, "aten.mul.Tensor", [op.args[place], factor], {}, op.args[place]["v"])
    op.args[place] = {"v": scaled}


ELEMENTWISE = {"mul", "add", "sub", "div", "relu", "gelu", "silu", "tanh", "sigmoid", "neg", "pow", "exp", "sqrt", "rsqrt", "clamp", "_to_copy", "hardswish", "leaky_relu", "elu",
               "native_batch_norm", "native_layer_norm", "native_group_norm", "rms_norm", "mish", "softplus", "square"}  # fmt: skip


@generator
def order(case: Case) -> Iterator[Hypothesis]:
    """Two ops in the other order: a scale before or after an addition, an activation before or after a norm, or after a gate for before it."""
    for j, second in enumerate(case.ops):
        for source in dict.fromkeys(second.inputs) if second.base in ELEMENTWISE else ():
            i = case.producers.get(source)
            first = case.ops[i] if i is not None else None
            if first is None or first.base not in ELEMENTWISE or first.base == second.base or first.outputs[0] != source or case.users(source) != [j]:
                continue
            if second.outputs[0] is None or not same_meta(case, first.inputs[0], source) or not same_meta(case, source, second.outputs[0]) or source in case.outputs.values():
                continue
            if any(v in case.producers and case.producers[v] > j for v in first.inputs[1:]):
                continue
            yield edited(case, "op-order", f"port computes {second.base} before {first.base}, reference after", lambda d, i=i, j=j, v=source: exchange(d, i, j, v))


def exchange(draft: Draft, i: int, j: int, between: int) -> None:
    """second(first(x), ..) becomes first(second(x, ..))."""
    first, second = draft.ops[i], draft.ops[j]
    end = second.outputs[0]
    draft.swap(j, between, first.inputs[0])
    second.outputs = [between, *second.outputs[1:]]
    first.args[0] = {"v": between}
    first.outputs = [end, *first.outputs[1:]]
    draft.ops.insert(j + 1, first)
    del draft.ops[i]


@generator
def axis(case: Case) -> Iterator[Hypothesis]:
    """A reduction or softmax over another axis; concatenation in the other order; mean for sum."""
    for i, op in enumerate(case.ops):
        if op.base in ("_softmax", "_log_softmax", "cumsum") and is_number(op.args[1]):
            shape = case.values[op.outputs[0]][1]
            for dim in range(len(shape)):
                if dim != op.args[1] % len(shape) and shape[dim] > 1:
                    yield edited(case, "axis", f"port computes {op.base} over dimension {dim}, reference over {op.args[1]}", lambda d, i=i, dim=dim: set_dim(d, i, dim))
        if op.base in ("mean", "sum", "amax") and len(op.args) > 2 and op.args[2] is True:
            shape, dims = case.values[op.inputs[0]][1], op.args[1]["list"] if isinstance(op.args[1], dict) else [op.args[1]]
            for dim in range(len(shape)):
                if len(dims) == 1 and dim != dims[0] % len(shape) and shape[dim] > 1:
                    cause = "norm-axis" if op.base == "mean" else "axis"
                    detail = f"port takes the {op.base} over dimension {dim}, reference over {dims[0]}"
                    yield edited(case, cause, detail, lambda d, i=i, dim=dim: reduce_over(d, i, dim))
        if op.base == "mean" and case.is_floating(op.outputs[0]):
            yield edited(case, "sum-for-mean", "port sums where the reference takes the mean", lambda d, i=i: setattr(d.ops[i], "name", "aten.sum.dim_IntList"))
        if op.base in ("cat", "stack") and len(set(op.inputs)) > 1:
            for words, order in orders(len(op.inputs)):
                yield edited(case, "cat-order", f"port concatenates {words} ({where(case, op)})", lambda d, i=i, order=order: reorder(d, i, order))


def orders(n: int) -> Iterator[tuple[str, list[int]]]:
    """Other orders of n things: (words, order)."""
    yield "in the other order", list(range(n))[::-1]
    if 2 < n <= 6:
        yield "with the first one last", [*range(1, n), 0]
        yield "with the last one first", [n - 1, *range(n - 1)]
        for a in range(n):
            for b in range(a + 1, n):
                order = list(range(n))
                order[a], order[b] = b, a
                if order != list(range(n))[::-1]:
                    yield f"with {a} and {b} exchanged", order


def reorder(draft: Draft, index: int, order: list[int]) -> None:
    parts = draft.ops[index].args[0]["list"]
    parts[:] = [parts[k] for k in order]


def reduce_over(draft: Draft, index: int, dim: int) -> None:
    """Another dimension for a reduction that keeps it; what is computed of the result has its shape."""
    op = draft.ops[index]
    old = draft.values[op.outputs[0]][1]
    shape = [1 if i == dim else n for i, n in enumerate(draft.values[op.inputs[0]][1])]
    op.args[1] = {"list": [dim]}
    changed = {op.outputs[0]}
    for later in [op, *draft.ops[index + 1 :]]:
        made = later.outputs[0] if later.outputs else None
        if made is not None and (later is op or changed.intersection(later.inputs) and draft.values[made][1] == old):
            draft.values[made] = [draft.values[made][0], shape, contiguous(shape), 0]
            changed.add(made)


def set_dim(draft: Draft, index: int, dim: int) -> None:
    draft.ops[index].args[1] = dim
