"""Ops that the C core has no kernel for, written in ops that it has: convolution as a product, norms and activations as arithmetic.

Equal to the op but for rounding, which is all a diagnosis needs. An op that stands here and has a kernel is run by its kernel.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core
from .hosted import HOSTED


def contiguous(shape: list[int]) -> list[int]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.insert(0, step)
        step *= max(n, 1)
    return strides


class Writer:
    """Appends ops and the values they make."""

    def __init__(self, values: list[list[Any]], make: Callable[..., Any]) -> None:
        self.values = values
        self.make = make
        self.ops: list[Any] = []

    def __call__(self, name: str, args: list[Any], shape: list[int], like: int, **kwargs: Any) -> int:
        self.values.append([self.values[like][0], list(shape), contiguous(shape), 0])
        self.ops.append(self.make(f"aten.{name}", args, kwargs, [len(self.values) - 1]))
        return len(self.values) - 1

    def shape(self, value: int) -> list[int]:
        return list(self.values[value][1])


def ints(arg: Any) -> list[int]:
    return list(arg["list"] if isinstance(arg, dict) else arg)


def v(number: int) -> dict[str, int]:
    return {"v": number}


def listed(numbers: list[int]) -> dict[str, list[int]]:
    return {"list": list(numbers)}


def dense(w: Writer, x: int) -> int:
    return w("clone.default", [v(x)], w.shape(x), x, memory_format={"memory_format": "contiguous"})


def windows(w: Writer, x: int, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], out: list[int], fill: Any, groups: int = 1) -> int:
    """(N, C, *S) -> (N, G, C / G, *K, *OUT): the window of every output position."""
    if any(padding):
        shape = w.shape(x)
        padded = [*shape[:2], *(n + 2 * p for n, p in zip(shape[2:], padding))]
        x = w("constant_pad_nd.default", [v(x), listed([p for q in reversed(padding) for p in (q, q)]), fill], padded, x)
    x = dense(w, x)
    shape, steps = w.shape(x), contiguous(w.shape(x))
    for n, k, s, d, o in zip(shape[2:], kernel, stride, dilation, out):
        if (o - 1) * s + (k - 1) * d >= n:
            raise ValueError("the windows reach beyond the padded input")
    size = [shape[0], groups, shape[1] // groups, *kernel, *out]
    strides = [steps[0], steps[1] * (shape[1] // groups), steps[1], *(d * s for d, s in zip(dilation, steps[2:])), *(t * s for t, s in zip(stride, steps[2:]))]
    return dense(w, w("as_strided.default", [v(x), listed(size), listed(strides), 0], size, x))


def per_channel(w: Writer, value: int, ndim: int) -> int:
    shape = [1, w.shape(value)[0], *[1] * (ndim - 2)]
    return w("view.default", [v(value), listed(shape)], shape, value)


def finish(w: Writer, value: int, op: Any) -> None:
    """The last op makes the value that the replaced op made."""
    w.ops[-1].outputs = [op.outputs[0]]
    assert value == len(w.values) - 1


def convolution(w: Writer, op: Any) -> None:
    x, weight = op.args[0]["v"], op.args[1]["v"]
    bias = op.args[2]["v"] if op.args[2] is not None else None
    stride, padding, dilation, groups = ints(op.args[3]), ints(op.args[4]), ints(op.args[5]), op.args[8]
    if op.args[6]:
        raise _core.UnsupportedError("aten.convolution.default with transposed=True has no kernel")
    made, kernel = w.shape(op.outputs[0]), w.shape(weight)
    batch, spatial = made[0], made[2:]
    stride, padding, dilation = (a * len(spatial) if len(a) == 1 else a for a in (stride, padding, dilation))
    if w.shape(x)[1] % groups or kernel[0] % groups or w.shape(x)[1] // groups != kernel[1]:
        raise ValueError("the groups do not fit the weight")
    columns = windows(w, x, kernel[2:], stride, padding, dilation, spatial, 0.0, groups)
    inner = kernel[1] * product(kernel[2:])
    columns = w("view.default", [v(columns), listed([batch * groups, inner, product(spatial)])], [batch * groups, inner, product(spatial)], x)
    shape = [1, groups, kernel[0] // groups, inner]
    matrix = w("view.default", [v(dense(w, weight)), listed(shape)], shape, x)
    shape = [batch, *shape[1:]]
    matrix = dense(w, w("expand.default", [v(matrix), listed(shape)], shape, x))
    shape = [batch * groups, *shape[2:]]
    matrix = w("view.default", [v(matrix), listed(shape)], shape, x)
    value = w("bmm.default", [v(matrix), v(columns)], [batch * groups, kernel[0] // groups, product(spatial)], x)
    value = w("view.default", [v(value), listed(made)], made, x)
    if bias is not None:
        value = w("add.Tensor", [v(value), v(per_channel(w, bias, len(made)))], made, x)
    finish(w, value, op)


def product(numbers: list[int]) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


def batch_norm(w: Writer, op: Any) -> None:
    x = op.args[0]["v"]
    weight, bias, mean, var = (a["v"] if a is not None else None for a in op.args[1:5])
    if op.args[5] or mean is None or var is None:
        raise _core.UnsupportedError("aten.native_batch_norm.default in training has no kernel")
    eps, shape = op.args[7], w.shape(x)
    root = w("rsqrt.default", [v(w("add.Scalar", [v(var), eps], w.shape(var), var))], w.shape(var), var)
    value = w("sub.Tensor", [v(x), v(per_channel(w, mean, len(shape)))], shape, x)
    for name, other in (("mul.Tensor", root), ("mul.Tensor", weight), ("add.Tensor", bias)):
        if other is not None:
            value = w(name, [v(value), v(per_channel(w, other, len(shape)))], shape, x)
    finish(w, value, op)


def group_norm(w: Writer, op: Any) -> None:
    x, groups, eps = op.args[0]["v"], op.args[6], op.args[7]
    shape = w.shape(x)
    rows = [shape[0] * groups, product(shape[1:]) // groups]
    flat = w("view.default", [v(dense(w, x)), listed(rows)], rows, x)
    mean = w("mean.dim", [v(flat), listed([-1]), True], [rows[0], 1], x)
    moved = w("sub.Tensor", [v(flat), v(mean)], rows, x)
    var = w("mean.dim", [v(w("mul.Tensor", [v(moved), v(moved)], rows, x)), listed([-1]), True], [rows[0], 1], x)
    root = w("rsqrt.default", [v(w("add.Scalar", [v(var), eps], [rows[0], 1], x))], [rows[0], 1], x)
    value = w("view.default", [v(w("mul.Tensor", [v(moved), v(root)], rows, x)), listed(shape)], shape, x)
    for name, other in (("mul.Tensor", op.args[1]), ("add.Tensor", op.args[2])):
        if other is not None:
            value = w(name, [v(value), v(per_channel(w, other["v"], len(shape)))], shape, x)
    finish(w, value, op)


def pool(w: Writer, op: Any) -> None:
    x, kernel = op.args[0]["v"], ints(op.args[1])
    stride = ints(op.args[2]) if len(op.args) > 2 and op.args[2] and ints(op.args[2]) else kernel
    padding = ints(op.args[3]) if len(op.args) > 3 else [0]
    largest = op.name.startswith("aten.max")
    if len(op.args) > 4:
        raise _core.UnsupportedError(f"{op.name} with these arguments has no kernel")
    made = w.shape(op.outputs[0])
    n = len(made) - 2
    kernel, stride, padding = (a * n if len(a) == 1 else a for a in (kernel, stride, padding))
    found = windows(w, x, kernel, stride, padding, [1] * n, made[2:], {"float": "-inf"} if largest else 0.0)
    shape = [made[0], made[1], product(kernel), *made[2:]]
    found = w("view.default", [v(found), listed(shape)], shape, x)
    value = w("amax.default", [v(found), listed([2])], made, x) if largest else w("mean.dim", [v(found), listed([2])], made, x)
    finish(w, value, op)


def activation(w: Writer, op: Any) -> None:
    x = op.args[0]["v"]
    shape = w.shape(x)

    def f(name: str, *args: Any) -> int:
        return w(name, [v(a.n) if isinstance(a, Value) else a for a in args], shape, x)

    finish(w, ACTIVATIONS[op.base](f, Value(x), [a for a in op.args[1:]]), op)


class Value:
    """A value number, apart from plain integers."""

    def __init__(self, n: int) -> None:
        self.n = n


def leaky(f: Any, x: Value, args: list[Any]) -> int:
    slope = args[0] if args else 0.01
    low = f("mul.Scalar", Value(f("clamp_max.default", x, 0.0)), slope)
    return f("add.Tensor", Value(f("clamp_min.default", x, 0.0)), Value(low))


def elu(f: Any, x: Value, args: list[Any]) -> int:
    low = f("sub.Scalar", Value(f("exp.default", Value(f("clamp_max.default", x, 0.0)))), 1.0)
    low = f("mul.Scalar", Value(low), args[0] if args else 1.0)
    return f("add.Tensor", Value(f("clamp_min.default", x, 0.0)), Value(low))


def hard_sigmoid(f: Any, x: Value, args: list[Any]) -> int:
    return f("div.Scalar", Value(f("clamp.default", Value(f("add.Scalar", x, 3.0)), 0.0, 6.0)), 6.0)


def softplus(f: Any, x: Value, args: list[Any]) -> int:
    tail = f("exp.default", Value(f("neg.default", Value(f("abs.default", x)))))
    return f("add.Tensor", Value(f("relu.default", x)), Value(f("log.default", Value(f("add.Scalar", Value(tail), 1.0)))))


ACTIVATIONS: dict[str, Callable[[Any, Value, list[Any]], int]] = {
    "leaky_relu": leaky, "elu": elu, "hardsigmoid": hard_sigmoid, "softplus": softplus,
    "hardswish": lambda f, x, a: f("mul.Tensor", x, Value(hard_sigmoid(f, x, a))),
    "mish": lambda f, x, a: f("mul.Tensor", x, Value(f("tanh.default", Value(softplus(f, x, a))))),
}  # fmt: skip

WRITTEN: dict[str, Callable[[Writer, Any], None]] = {
    "convolution": convolution, "native_batch_norm": batch_norm, "native_group_norm": group_norm, "max_pool2d_with_indices": pool, "avg_pool2d": pool,
    "avg_pool1d": pool, **dict.fromkeys(ACTIVATIONS, activation),
}  # fmt: skip
KNOWN = frozenset(_core.known_ops())


def can_run(name: str) -> bool:
    """True if the op has a kernel, is written in ops that have, or is computed here."""
    return name in KNOWN or name in HOSTED or name.split(".")[1:2] and name.split(".")[1] in WRITTEN


def decomposed(values: list[list[Any]], ops: list[Any], make: Callable[..., Any]) -> list[Any]:
    """The ops with those that have no kernel written out. `values` grows by what they make in between."""
    if all(op.name in KNOWN or op.base not in WRITTEN for op in ops):
        return ops
    found = []
    for op in ops:
        if op.name in KNOWN or op.base not in WRITTEN:
            found.append(op)
            continue
        writer = Writer(values, make)
        WRITTEN[op.base](writer, op)
        found += writer.ops
    return found
