"""What becomes of a value inside a module: what is joined to it, what it is multiplied by, and what is made of parameters alone.

A name such as "weight" or "no bias" must not hang on how a line was written, so these are followed through the program or measured by running its end on
other numbers. What this file does not do: name facts (`readings.py`).
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._core import PortingError
from ..diagnose import attention
from ..diagnose.case import VIEWS, Case

POINTWISE = frozenset({"add", "sub", "rsub", "mul", "div", "neg", "pow", "square", "_to_copy", "clone", "reciprocal"})
SAME = VIEWS | {"_to_copy", "clone", "reshape"}
UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def constants(case: Case) -> set[int]:
    """Values that are made of parameters and recorded constants alone, whatever the module is given."""
    found = {v for v in case.feeds if v not in case.leaves} | set(case.parameters)
    for op in case.ops:
        if all(v in found for v in op.inputs) and not op.base.startswith(("rand", "bernoulli", "normal")):
            found.update(v for v in op.outputs if v is not None)
    return found


def made_of(case: Case, value: int) -> list[str]:
    """Names of the parameters that a value is computed from, in order of the program's values."""
    level, seen = [value], set()
    while level:
        v = level.pop()
        if v not in seen:
            seen.add(v)
            made = case.producers.get(v)
            level += case.ops[made].inputs if made is not None else []
    return [case.parameters[v] for v in sorted(seen) if v in case.parameters]


def addends(case: Case, product: int, fixed: set[int]) -> tuple[list[int], bool]:
    """(constants that are added to what the op `product` makes, inside the op or to its result; whether all that is added is known to be one or none)."""
    op = case.ops[product]
    place = {"addmm": 0, "baddbmm": 0, "linear": 2, "convolution": 2}.get(op.base)
    inside = op.args[place] if place is not None and place < len(op.args) else None
    found = []
    if isinstance(inside, dict) and "v" in inside:
        found.append(inside["v"])
    value = op.outputs[0]
    for _ in range(8):
        users = case.users(value)
        if len(users) != 1:
            break
        user = case.ops[users[0]]
        if user.base in ("add", "sub", "rsub"):
            found += [v for v in user.inputs if v != value and v in fixed]
            break
        if user.base not in SAME:
            break
        value = user.outputs[0]
    return found, all(v in fixed for v in found)


def multiplied(case: Case, value: int, fixed: set[int]) -> Iterator[float]:
    """The numbers that a value is multiplied by on its way through sums and copies, while it has one user. NaN: by more than one number."""
    for _ in range(12):
        users = case.users(value)
        if len(users) != 1:
            return
        op = case.ops[users[0]]
        if op.base in ("mul", "div"):
            other = next((a for a in op.args if not (isinstance(a, dict) and a.get("v") == value)), None)
            number = scalar(case, other, fixed)
            if number is None or not op.args or (op.base == "div" and op.args[0] != {"v": value}):
                return
            yield number if op.base == "mul" else 1.0 / number if number else float("inf")
        elif op.base in ("neg", "rsub") or (op.base == "sub" and op.args[0] != {"v": value}):
            yield -1.0
        elif op.base not in SAME and op.base not in ("add", "sub"):
            return
        value = op.outputs[0]


def scalar(case: Case, arg: object, fixed: set[int]) -> float | None:
    """A number, or a constant of one element, or NaN for a constant of more; None for anything else."""
    if isinstance(arg, (int, float)) and not isinstance(arg, bool):
        return float(arg)
    value = arg.get("v") if isinstance(arg, dict) else None
    if value is None or value not in fixed:
        return None
    array = case.intermediates().get(value)
    if array is None or array.dtype.kind == "c":
        return None
    wide = np.asarray(array, dtype=np.float64)
    return float(wide.ravel()[0]) if wide.size and (wide == wide.ravel()[0]).all() else float("nan")


@dataclass(frozen=True)
class Affine:
    """out = factor * n + moved for a value n of the program, by channel of the last axis; error : relative, of the captured n."""

    factor: np.ndarray
    moved: np.ndarray
    error: float


def affine_end(case: Case, value: int) -> Affine | None:
    """What the rest of the program does to a value, where that is a factor and an addend for each channel: measured on zeros and ones.

    None if the module does not return one such tensor, or does something else with it.
    """
    outputs = [v for v in case.outputs.values() if case.is_floating(v)]
    if len(outputs) != 1 or case.values[outputs[0]][1] != case.values[value][1] or value in case.shared:
        return None
    out = outputs[0]
    given = case.intermediates()[value]
    if out == value:
        width = given.shape[-1]
        return Affine(np.ones(width), np.zeros(width), 0.0)
    try:
        zeros, ones = (one_output(case, value, np.full_like(given, n)) for n in (0, 1))
    except (PortingError, ValueError, KeyError):
        return None
    n, expected = given.astype(np.float64), case.intermediates()[out].astype(np.float64)
    factor, moved = (x.reshape(-1, n.shape[-1]) for x in (ones - zeros, zeros))
    if factor.shape[0] == 0 or (factor != factor[0]).any() or (moved != moved[0]).any():
        return None
    size = max(float(np.abs(expected).max(initial=0.0)), 1e-300)
    error = float(np.abs(factor[0] * n + moved[0] - expected).max(initial=0.0)) / size
    if not error <= 64 * UNITS.get(case.intermediates()[out].dtype.name, 2.0**-24):
        return None
    return Affine(factor[0], moved[0], error)


def one_output(case: Case, value: int, array: np.ndarray) -> np.ndarray:
    return next(np.asarray(x, dtype=np.float64) for x in case.run_override({value: np.ascontiguousarray(array)}).values() if x.dtype.kind not in "biu")


def factor_words(factor: np.ndarray, names: list[str], parameters: dict[str, np.ndarray], unit: float) -> str:
    """"weight", "1 + weight", "0.5 weight", "none", or what else a factor by channel is."""
    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((np.abs(a - b) <= 8 * unit * np.maximum(np.abs(a), np.abs(b) + 1)).all())

    for name in names:
        weight = np.asarray(parameters[name], dtype=np.float64).ravel()
        if weight.shape != factor.shape:
            continue
        if same(factor, weight):  # asked before "none": an untrained weight is one, and is there
            return "weight"
        if same(factor, 1 + weight):
            return "1 + weight"
        with np.errstate(all="ignore"):
            ratio = float(np.median(factor[weight != 0] / weight[weight != 0])) if (weight != 0).any() else float("nan")
        if np.isfinite(ratio) and same(factor, ratio * weight):
            return f"{ratio:.6g} weight"
    if same(factor, np.ones_like(factor)):
        return "none"
    if (np.abs(factor - factor[0]) <= 8 * unit * abs(factor[0])).all():
        return f"{factor[0]:.6g} for all channels"
    return f"computed from {', '.join(names)}" if names else "a constant"


def gates_itself(case: Case, index: int) -> bool:
    """Whether what the op makes is multiplied by what it was made from: a part of an activation that is written out."""
    before = pointwise_ancestors(case, case.ops[index].inputs[0])
    value = case.ops[index].outputs[0]
    for _ in range(6):
        users = [case.ops[i] for i in case.users(value)]
        for op in users:
            if op.base == "mul" and any(before & pointwise_ancestors(case, v) for v in op.inputs if v != value):
                return True
        if len(users) != 1 or users[0].base not in POINTWISE:
            return False
        value = users[0].outputs[0]
    return False


def pointwise_ancestors(case: Case, value: int) -> set[int]:
    """The value, and floats of its shape that it is computed from element by element."""
    found, level = set(), [value]
    while level and len(found) < 40:
        v = level.pop()
        if v in found or v in case.parameters:
            continue
        found.add(v)
        made = case.producers.get(v)
        if made is not None and case.ops[made].base in POINTWISE:
            level += [u for u in case.ops[made].inputs if case.values[u][1] == case.values[value][1]]
    return found


def product_of(case: Case, index: int) -> int | None:
    """The op that multiplies q and k of an attention, by the attention's op: itself if it is fused, else the product that a softmax goes back to."""
    op = case.ops[index]
    if op.base.startswith("_scaled_dot_product"):
        return index
    value = op.inputs[0]
    for _ in range(16):
        made = case.producers.get(value)
        if made is None:
            return None
        step = case.ops[made]
        if step.base in ("bmm", "mm", "baddbmm"):
            return made
        value = next((v for v in step.inputs if attention.logit_like(case, v)), step.inputs[0] if step.inputs else -1)
    return None


def operands(case: Case, index: int) -> list[int]:
    """q and k of an attention; [] where they are not found."""
    made = product_of(case, index)
    if made is None:
        return []
    return case.ops[made].inputs[:2] if made == index else case.ops[made].inputs[-2:]


def product_factor(case: Case, index: int) -> float:
    """The alpha of the product of q and k."""
    made = product_of(case, index)
    alpha = case.ops[made].kwargs.get("alpha", 1.0) if made is not None else 1.0
    return float(alpha) if isinstance(alpha, (int, float)) else 1.0


def heads_of_keys(case: Case, index: int) -> tuple[int, np.ndarray] | None:
    """(number of query heads, keys as (B, heads, S, D)); None where the shapes do not say."""
    op, found = case.ops[index], operands(case, index)
    if len(found) < 2:
        return None
    q, k = (case.intermediates().get(v) for v in found)
    if q is None or k is None:
        return None
    if op.base.startswith("_scaled_dot_product"):
        return (q.shape[1], k) if q.ndim == 4 else None
    shape = case.values[op.inputs[0]][1]
    if len(shape) != 4 or k.ndim not in (3, 4) or k.size != shape[0] * shape[1] * k.shape[-1] * k.shape[-2] or k.shape[-1] != shape[-1]:
        return None
    return shape[1], k.reshape(shape[0], shape[1], *k.shape[-2:]).swapaxes(-1, -2)


def distinct_heads(keys: np.ndarray) -> list[list[int]]:
    """Heads of (B, heads, S, D) in groups that have the same keys, in order of the first."""
    groups: dict[bytes, list[int]] = {}
    for i in range(keys.shape[1]):
        groups.setdefault(np.ascontiguousarray(keys[:, i]).tobytes(), []).append(i)
    return list(groups.values())
