"""Constants of the program: eps, scales, exponents, bounds, offsets."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _core
from .case import Case, Draft, Op
from .hypothesis import Hypothesis, edited, generator, overridden

EPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 0.0)
ACTIVATIONS = ("gelu", "silu", "relu", "tanh", "sigmoid", "leaky_relu", "elu", "hardswish", "hardsigmoid", "mish", "softplus")
EPS_ARGUMENT = {"native_layer_norm": 4, "native_group_norm": 7, "native_batch_norm": 7}


def is_number(arg: Any) -> bool:
    return isinstance(arg, (int, float)) and not isinstance(arg, bool)


def show(x: float) -> str:
    return f"{x:.6g}"


def set_arg(case: Case, index: int, place: int, value: Any, cause: str, detail: str) -> Hypothesis:
    """The hypothesis that argument `place` of op `index` is `value`."""

    def change(draft: Draft) -> None:
        args = draft.ops[index].args
        args.extend([0.0] * (place + 1 - len(args)))
        args[place] = value

    return edited(case, cause, detail, change)


def is_eps(case: Case, index: int, op: Op) -> bool:
    """An added constant that is small and is followed by a root or a division."""
    if op.base != "add" or len(op.args) < 2 or not is_number(op.args[1]) or not 0 <= op.args[1] < 0.1:
        return False
    users = [case.ops[i] for i in case.users(op.outputs[0])]
    return any(u.base in ("rsqrt", "sqrt", "div", "pow", "reciprocal", "log") for u in users)


@generator
def eps(case: Case) -> Iterator[Hypothesis]:
    """The usual values of eps, and eps outside of the root."""
    for i, op in enumerate(case.ops):
        place = EPS_ARGUMENT.get(op.base, 1 if is_eps(case, i, op) else None)
        if place is None or place >= len(op.args):
            continue
        old = float(op.args[place])
        for new in EPS:
            if not math.isclose(new, old, rel_tol=1e-3):
                yield set_arg(case, i, place, new, "eps", f"port behaves as eps={show(new)}, reference has {show(old)}")
        if op.base == "add":
            yield from eps_outside(case, i, op, old)


def eps_outside(case: Case, index: int, op: Op, old: float) -> Iterator[Hypothesis]:
    """1/(sqrt(v) + eps) where the reference has 1/sqrt(v + eps)."""
    user = next((i for i in case.users(op.outputs[0]) if case.ops[i].base == "rsqrt"), None)
    if user is None:
        return

    def change(draft: Draft) -> None:
        out, source = op.outputs[0], op.args[0]
        made = case.ops[user].outputs[0]
        root = draft.insert(index, "aten.sqrt.default", [source], {}, out)
        draft.ops[index + 1].args[0] = {"v": root}
        draft.ops[user + 1] = Op("aten.reciprocal.default", [{"v": out}], {}, [made])

    yield edited(case, "eps-outside-root", f"port adds eps={show(old)} after the square root, reference before it", change)


def to_softmax(case: Case, value: int) -> bool:
    """True if nothing but a softmax comes of the value, through elementwise ops: attention.py speaks of its factors."""
    for _ in range(12):
        users = [case.ops[i] for i in case.users(value)]
        if len(users) != 1:
            return False
        if users[0].base in ("_softmax", "_safe_softmax", "softmax"):
            return True
        if users[0].base not in ("add", "mul", "div", "tanh", "view", "_unsafe_view", "masked_fill", "_to_copy"):
            return False
        value = users[0].outputs[0]
    return False


@generator
def scales(case: Case) -> Iterator[Hypothesis]:
    """Factors: missing, doubled, halved, their square, root and reciprocal; also the scale of attention."""
    for i, op in enumerate(case.ops):
        if op.base in ("mul", "div") and len(op.args) > 1 and is_number(op.args[1]) and case.is_floating(op.outputs[0]) and not to_softmax(case, op.outputs[0]):
            for label, new in factor_variants(float(op.args[1])):
                yield set_arg(case, i, 1, new, "scale", f"port {'multiplies' if op.base == 'mul' else 'divides'} by {show(new)} ({label}), reference by {show(float(op.args[1]))}")
        if op.base in ("addmm", "baddbmm") and op.kwargs:
            yield edited(case, "scale", "port leaves out alpha and beta of the product", lambda d, i=i: d.ops[i].kwargs.clear())


@generator
def temperatures(case: Case) -> Iterator[Hypothesis]:
    """What goes into a softmax, mask, cap and position bias included, times a factor."""
    for i, op in enumerate(case.ops):
        if op.base in ("_softmax", "_safe_softmax", "softmax") and case.is_floating(op.inputs[0]):
            for t in (2.0, 0.5, math.sqrt(2), 1 / math.sqrt(2)):
                yield edited(case, "scale", f"port multiplies what the softmax takes by {show(t)}", lambda d, i=i, t=t: warmer(d, i, t))


def warmer(draft: Draft, index: int, factor: float) -> None:
    op = draft.ops[index]
    scaled = draft.insert(index, "aten.mul.Tensor", [op.args[0], factor], {}, op.inputs[0])
    draft.ops[index + 1] = Op(op.name, [{"v": scaled}, *op.args[1:]], op.kwargs, op.outputs)


def factor_variants(old: float) -> Iterator[tuple[str, float]]:
    """The usual ways to get a factor wrong."""
    rows = [("factor missing", 1.0), ("doubled", 2 * old), ("halved", old / 2), ("squared", old * old), ("negated", -old)]
    if old > 0:
        rows.append(("square root", math.sqrt(old)))
    if old != 0:
        rows.append(("reciprocal", 1 / old))
    if old > 0:
        rows.append(("1/sqrt", 1 / math.sqrt(old)))
    seen = {old}
    for label, new in rows:
        if not any(math.isclose(new, s, rel_tol=1e-9) for s in seen):
            seen.add(new)
            yield label, new


def one_plus(case: Case, op: Op) -> str:
    """The name of the parameter that the op adds 1 to, widened first or not; "" if it does not."""
    if op.base != "add" or len(op.inputs) != 1 or len(op.args) < 2 or op.args[1] != 1.0:
        return ""
    value = op.inputs[0]
    made = case.producers.get(value)
    if made is not None and case.ops[made].base == "_to_copy":
        value = case.ops[made].inputs[0]
    return case.parameters.get(value, "")


@generator
def added(case: Case) -> Iterator[Hypothesis]:
    """Added constants: missing, off by one, other sign; exponents."""
    for i, op in enumerate(case.ops):
        if op.base in ("add", "sub", "rsub") and len(op.args) > 1 and is_number(op.args[1]) and not is_eps(case, i, op):
            old = op.args[1]
            for new in (0, -old, old + 1, old - 1) if not one_plus(case, op) else (-old,):  # 1 + w: norms.py
                if new != old:
                    yield set_arg(case, i, 1, type(old)(new), "offset", f"port adds {show(new)}, reference {show(old)} ({op.base})")
        if op.base == "pow" and len(op.args) > 1 and is_number(op.args[1]):
            for new in (1.0, 2.0, 3.0, 0.5):
                if new != op.args[1]:
                    yield set_arg(case, i, 1, new, "exponent", f"port raises to the power {show(new)}, reference to {show(op.args[1])}")
        if op.base in ("clamp", "clamp_min", "clamp_max", "hardtanh"):
            yield edited(case, "clamp-missing", f"port does not clamp ({op.base})", lambda d, i=i, op=op: d.drop(i, op.inputs[0]))


@generator
def activation(case: Case) -> Iterator[Hypothesis]:
    """Another activation of the family in the place of the recorded one, which may be one op or written out in several."""
    yield from written_out(case)
    for i, op in enumerate(case.ops):
        if op.base not in ACTIVATIONS:
            continue
        old = activation_name(op)
        if op.base == "gelu" and op.outputs[0] not in case.shared:
            detail = f"port computes tanh GELU with a square for the cube, reference {old}"
            yield overridden(case, "activation", detail, lambda op=op: {op.outputs[0]: square_gelu(case.intermediates()[op.inputs[0]])})
        for new, make in ACTIVATION_EDITS.items():
            if new != old and (op.base, new) != ("relu", "ReLU6"):  # a bound, below
                yield edited(case, "activation", f"port computes {new}, reference {old}", lambda d, i=i, make=make: make(d, i))
        slope = "leaky_relu" if op.base in ("relu", "leaky_relu") else None
        for new in (0.01, 0.1, 0.2, 0.3) if slope else ():
            if op.base == "relu" or not math.isclose(new, float(op.args[1]) if len(op.args) > 1 else 0.01):
                yield edited(case, "slope", f"port has the slope {new} below 0", lambda d, i=i, n=new: leaky(d, i, n))
        for top in (1.0, 6.0) if op.base == "relu" else ():
            yield edited(case, "clamp-added", f"port cuts the ReLU off at {top:g}", lambda d, i=i, t=top: clamped(d, i, t))
        if op.base not in ("tanh", "sigmoid"):
            yield edited(case, "activation", f"port computes no activation, reference {old}", lambda d, i=i, op=op: d.drop(i, op.inputs[0]))
        elif not to_softmax(case, op.outputs[0]):  # else a cap, of which attention.py speaks
            yield edited(case, "op-missing", f"port leaves out {old}", lambda d, i=i, op=op: d.drop(i, op.inputs[0]))


def activation_name(op: Op) -> str:
    if op.base == "gelu":
        return "tanh GELU" if op.kwargs.get("approximate") == "tanh" else "erf GELU"
    return {"silu": "SiLU", "relu": "ReLU", "elu": "ELU", "leaky_relu": "leaky ReLU"}.get(op.base, op.base)


def leaky(draft: Draft, index: int, slope: float) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op("aten.leaky_relu.default", [op.args[0], slope], {}, op.outputs)


def clamped(draft: Draft, index: int, top: float) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op("aten.clamp.default", [op.args[0], 0.0, top], {}, op.outputs)


def squared_relu(draft: Draft, index: int) -> None:
    op = draft.ops[index]
    kept = draft.insert(index, "aten.relu.default", op.args[:1], {}, op.outputs[0])
    draft.ops[index + 1] = Op("aten.mul.Tensor", [{"v": kept}, {"v": kept}], {}, op.outputs)


FORMULAS = {
    "erf GELU": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "tanh GELU": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick GELU": lambda x: x / (1 + np.exp(-1.702 * x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
}


def square_gelu(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**2)))).astype(x.dtype)


def erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_core.call_op("aten.erf.default", [np.ascontiguousarray(x, dtype=np.float64)]))


def written_out(case: Case) -> Iterator[Hypothesis]:
    """Activations written in several ops, found by their numbers: a product whose value is the activation of an earlier value of its shape."""
    if not any(op.base in ("tanh", "erf", "sigmoid", "exp") for op in case.ops):
        return
    values = case.intermediates()
    for i, op in enumerate(case.ops):
        if op.base not in ("mul", "div") or not case.is_floating(op.outputs[0]):
            continue
        out = op.outputs[0]
        for x in earlier(case, out):
            name = which_formula(values[x], values[out])
            if name is None:
                continue
            for new, make in ACTIVATION_EDITS.items():
                if new != name:
                    detail = f"port computes {new}, reference {name} (written out)"
                    yield edited(case, "activation", detail, lambda d, i=i, x=x, make=make: replaced(d, i, x, make))
            yield edited(case, "activation", f"port computes no activation, reference {name} (written out)", lambda d, i=i, x=x: d.drop(i, x))
            break


def earlier(case: Case, value: int) -> list[int]:
    """Values of the same shape at most eight steps before, with a transcendental op between."""
    found, level = [], {value}
    seen_function = False
    for _ in range(10):
        ops = [case.ops[case.producers[v]] for v in level if v in case.producers]
        seen_function = seen_function or any(op.base in ("tanh", "erf", "sigmoid", "exp") for op in ops)
        level = {u for op in ops if op.base not in ("mm", "addmm", "bmm", "native_layer_norm") for u in op.inputs if case.values[u][1] == case.values[value][1]}
        found += [u for u in level if seen_function and u not in found]
    return found


def which_formula(x: np.ndarray, y: np.ndarray) -> str | None:
    wide, want = x.astype(np.float64), y.astype(np.float64)
    for name, formula in FORMULAS.items():
        with np.errstate(all="ignore"):
            if np.allclose(formula(wide), want, rtol=1e-5, atol=1e-6 * (np.abs(want).max() if want.size else 0)) and want.size > 1:
                return name
    return None


def replaced(draft: Draft, index: int, x: int, make: Any) -> None:
    op = draft.ops[index]
    draft.ops[index] = Op("aten.relu.default", [{"v": x}], {}, op.outputs)
    make(draft, index)


def unary(name: str, **kwargs: Any) -> Any:
    def change(draft: Draft, index: int) -> None:
        op = draft.ops[index]
        draft.ops[index] = Op(name, op.args[:1], kwargs, op.outputs)

    return change


def gated_sigmoid(factor: float) -> Any:
    """x * sigmoid(factor * x): quick GELU, and SiLU with another slope."""

    def change(draft: Draft, index: int) -> None:
        op = draft.ops[index]
        x, made = op.args[0], op.outputs[0]
        scaled = draft.insert(index, "aten.mul.Tensor", [x, factor], {}, made)
        gate = draft.insert(index + 1, "aten.sigmoid.default", [{"v": scaled}], {}, made)
        draft.ops[index + 2] = Op("aten.mul.Tensor", [x, {"v": gate}], {}, op.outputs)

    return change


ACTIVATION_EDITS = {
    "erf GELU": unary("aten.gelu.default"),
    "tanh GELU": unary("aten.gelu.default", approximate="tanh"),
    "quick GELU": gated_sigmoid(1.702),
    "SiLU": unary("aten.silu.default"),
    "ReLU": unary("aten.relu.default"),
    "ReLU6": lambda draft, index: clamped(draft, index, 6.0),
    "squared ReLU": lambda draft, index: squared_relu(draft, index),
    "tanh": unary("aten.tanh.default"),
    "sigmoid": unary("aten.sigmoid.default"),
    "leaky ReLU": unary("aten.leaky_relu.default"),
    "ELU": lambda draft, index: draft.ops.__setitem__(index, Op("aten.elu.default", [draft.ops[index].args[0], 1.0], {}, draft.ops[index].outputs)),
    "hardswish": unary("aten.hardswish.default"),
    "mish": unary("aten.mish.default"),
    "softplus": unary("aten.softplus.default"),
    "hardsigmoid": unary("aten.hardsigmoid.default"),
}
