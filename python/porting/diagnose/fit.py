"""Constants and factors that are none of the usual ones: one number is fitted to the port, and named only if it then explains everything."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from .arguments import called
from .attention import Attention, changed, find_attentions, probabilities
from .case import VIEWS, Case, Draft
from .constants import EPS_ARGUMENT, erf, is_eps, is_number, show
from .hypothesis import Generator, Hypothesis, Outputs, edited, overridden
from .rotary import find_rotations, first_position, lead, rotate, speeds

ROUNDS = 6
SIMPLE = ("mul", "div", "add", "sub", "rsub", "pow", "leaky_relu", "clamp", "clamp_min", "clamp_max", "hardtanh", "elu")


def fitted(case: Case) -> Iterator[Hypothesis]:
    """Every constant of the program, each by itself. Not registered: it runs last, after all that has a name."""
    for i, op in enumerate(case.ops):
        if op.base.startswith("_scaled_dot_product") or not op.outputs or op.outputs[0] is None or not case.is_floating(op.outputs[0]):
            continue
        places = [EPS_ARGUMENT[op.base]] if op.base in EPS_ARGUMENT else [p for p in (1, 2) if op.base in SIMPLE and p < len(op.args) and is_number(op.args[p])]
        for place in places:
            if place >= len(op.args):
                continue
            old = float(op.args[place])
            cause = "eps" if op.base in EPS_ARGUMENT or is_eps(case, i, op) else {"mul": "scale", "div": "scale", "pow": "exponent"}.get(op.base, "constant")
            value = solve(case, i, place, old)
            if value is not None:
                words = f"port behaves as if the constant of {op.base} were {show(value)}, reference has {show(old)}"
                yield edited(case, cause, words, lambda d, i=i, p=place, v=value: d.ops[i].args.__setitem__(p, v))


def factors(case: Case) -> Iterator[Hypothesis]:
    """A factor on what one op makes, or on one parameter: a scale that is none of the program's constants."""
    values = case.intermediates()
    seen = set()
    for v in [*case.parameters, *(op.outputs[0] for op in case.ops if op.outputs and op.outputs[0] is not None and op.base not in VIEWS)]:
        if not case.is_floating(v) or v in case.shared or values[v].size == 0:
            continue

        def run(factor: float, v: int = v) -> np.ndarray:
            return flat(case.run_override({v: times(values[v], factor)}), case)

        factor = newton(case, run, 1.0)
        if factor is None or is_one(factor) or round(factor, 6) in seen:
            continue
        name = case.parameters.get(v) or f"the result of {case.place(case.producers[v])}"
        yield overridden(case, "scale", f"port has {name} times {show(factor)}", lambda v=v, f=factor: {v: times(values[v], f)})


def offsets(case: Case) -> Iterator[Hypothesis]:
    """A constant added to what one op takes: a zero point that is off."""
    values = case.intermediates()
    places = [(i, v) for i, op in enumerate(case.ops) for v in op.inputs if op.base in ("mm", "addmm", "bmm", "convolution", "mul")]
    for i, v in dict.fromkeys(places):
        if not case.is_floating(v) or v in case.shared or not values[v].size or not np.isfinite(values[v]).all():
            continue

        def change(draft: Draft, by: float, i: int = i, v: int = v) -> None:
            draft.feed(i, v, (values[v].astype(np.float64) + by).astype(values[v].dtype))

        def run(by: float, change: Callable = change) -> np.ndarray:
            draft = case.draft()
            change(draft, by)
            return flat(case.run_edited(draft), case)

        by = newton(case, run, 0.0)
        if by is not None and abs(by) > 1e-4 * float(np.abs(values[v]).max()):
            detail = f"port adds {show(by)} to {called(case, v)} for {case.place(i)}"
            yield edited(case, "offset", detail, lambda d, b=by, change=change: change(d, b))


def addends(case: Case) -> Iterator[Hypothesis]:
    """A factor on one addend, in this sum alone: a residual or a branch that is scaled."""
    for i, op in enumerate(case.ops):
        if op.base != "add" or len(set(op.inputs)) != 2:
            continue
        for v in op.inputs:
            if not case.is_floating(v):
                continue

            def change(draft: Draft, factor: float, i: int = i, v: int = v) -> None:
                draft.feed(i, v, times(case.intermediates()[v], factor))

            def run(factor: float, change: Callable = change) -> np.ndarray:
                draft = case.draft()
                change(draft, factor)
                return flat(case.run_edited(draft), case)

            factor = newton(case, run, 1.0)
            if factor is not None and not is_one(factor):
                factor = 0.0 if abs(factor) < 1e-5 else factor
                cause, words = ("scale", f"adds {show(factor)} times") if factor else ("addend-missing", "leaves out the addend")
                yield edited(case, cause, f"port {words} {called(case, v)} ({case.place(i)})", lambda d, f=factor, change=change: change(d, f))


def is_one(factor: float) -> bool:
    """True for a factor that no port multiplies by: nearer to 1 than any format rounds a constant. What it explains is another small change, such as one of eps."""
    return abs(factor - 1.0) < 1e-4


def times(x: np.ndarray, factor: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (x.astype(np.float64) * factor).astype(x.dtype)


def attentions(case: Case) -> Iterator[Hypothesis]:
    """The scale of q.k, and a tanh cap, of any size."""
    for a in find_attentions(case):
        def scaled(s: float, a: Attention = a) -> np.ndarray:
            return flat(case.run_override(a.override(probabilities(a, scale=s))), case)

        scale = newton(case, scaled, a.scale) or nearest(case, scaled, a.scale * np.geomspace(1 / 64, 64, 25))
        if scale is not None:
            yield changed(case, a, "attention-scale", f"port scales q.k by {show(scale)}, reference by {show(a.scale)}", lambda a=a, s=scale: probabilities(a, scale=s))
        caps = np.geomspace(1, 200, 24)
        found = nearest(case, lambda c, a=a: flat(case.run_override(a.override(probabilities(a, cap=c))), case), caps)
        if found is not None:
            words = f"at {show(a.cap)}" if a.cap else "does not"
            yield changed(case, a, "softcap", f"port caps the logits at {show(found)}, reference {words}", lambda a=a, c=found: probabilities(a, cap=c))


SLOPED: dict[str, tuple[tuple[str, float, Callable[[np.ndarray, float], np.ndarray]], ...]] = {
    "silu": (("x sigmoid({} x)", 1.0, lambda x, a: x / (1 + np.exp(-a * x))),),
    "gelu": (("x sigmoid({} x)", 1.702, lambda x, a: x / (1 + np.exp(-a * x))), ("tanh GELU with {} for the factor of its cube", 0.0447, lambda x, a: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + a * x**3)))),
             ("erf GELU of {} x in its gate", 1.0, lambda x, a: 0.5 * x * (1 + erf(a * x / math.sqrt(2))))),
    "sigmoid": (("sigmoid({} x)", 1.0, lambda x, a: 1 / (1 + np.exp(-a * x))),), "tanh": (("tanh({} x)", 1.0, lambda x, a: np.tanh(a * x)),),
    "softplus": (("softplus of slope {}", 1.0, lambda x, a: np.logaddexp(0, a * x) / a),), "exp": (("exp({} x)", 1.0, lambda x, a: np.exp(a * x)),),
}  # fmt: skip


def slopes(case: Case) -> Iterator[Hypothesis]:
    """The one number within an activation."""
    for op in case.ops:
        if op.base not in SLOPED or op.outputs[0] in case.shared or not case.is_floating(op.outputs[0]):
            continue
        x, out = op.inputs[0], op.outputs[0]
        for words, start, formula in SLOPED[op.base]:
            def made(a: float, x: int = x, out: int = out, f: Callable = formula) -> dict[int, np.ndarray]:
                with np.errstate(all="ignore"):
                    return {out: f(case.intermediates()[x].astype(np.float64), a).astype(case.intermediates()[out].dtype)}

            found = newton(case, lambda a, m=made: flat(case.run_override(m(a)), case), start, share=1.0)
            if found is not None:
                found = 0.0 if abs(found) < 1e-4 else found
                yield overridden(case, "activation", f"port computes {words.format(show(found))}, reference {op.base}", lambda a=found, m=made: m(a))


def bases(case: Case) -> Iterator[Hypothesis]:
    """The base of a rotary embedding, of any size."""
    rotations = find_rotations(case)
    if not rotations or speeds(rotations[0]) is None:
        return

    def turned(base: float) -> dict[int, np.ndarray]:
        at = first_position(rotations[0]) + np.arange(len(rotations[0].angles))
        return {r.y: rotate(r, case.intermediates()[r.x], np.sign(lead(r)) * at[:, None] * base ** (-np.arange(r.size // 2) * 2 / r.size)) for r in rotations}

    found = nearest(case, lambda b: flat(case.run_override(turned(float(b))), case), np.geomspace(30, 3e7, 40))
    if found is not None:
        yield overridden(case, "rope-base", f"port's rotary base is {show(found)}", lambda: turned(found))


def nearest(case: Case, run: Callable[[float], np.ndarray], tried: np.ndarray) -> float | None:
    """The best of some positive values, made better by Newton steps; None if it explains less than half."""
    target = flat(case.actual, case)
    start = float(np.sum(np.square(target - flat(case.reference(), case))))
    with np.errstate(all="ignore"):
        left = [float(np.sum(np.square(target - run(float(value))))) for value in tried]
    best = int(np.argmin(np.where(np.isfinite(left), left, np.inf)))
    if not left[best] < 0.5 * start:
        return None
    return newton(case, run, float(tried[best]), share=1.0)


def solve(case: Case, index: int, place: int, old: float) -> float | None:
    """The constant that comes nearest."""

    def run(value: float) -> np.ndarray:
        draft = case.draft()
        draft.ops[index].args[place] = value
        return flat(case.run_edited(draft), case)

    return newton(case, run, old)


def newton(case: Case, run: Callable[[float], np.ndarray], old: float, share: float = 0.9) -> float | None:
    """The value that comes nearest, by Newton steps on the least squares; None if the first step leaves more than `share` of the difference."""
    target = flat(case.actual, case)
    step = max(abs(old) * 1e-2, 1e-4)
    value, best = old, run(old)
    start = left = float(np.sum(np.square(target - best)))
    if not np.isfinite(start):
        return None
    for n in range(ROUNDS):
        slope = (run(value + step) - best) / step
        size = float(slope @ slope)
        if not np.isfinite(size) or size == 0:
            return None
        moved = value + float(slope @ (target - best)) / size
        if not np.isfinite(moved):
            return None
        best, before = run(moved), left
        left = float(np.sum(np.square(target - best)))
        if not np.isfinite(left) or (n == 0 and left > share * start):
            return None
        value, step = moved, abs(moved) * (1e-2 if n == 0 else 1e-3) or 1e-12
        if left > 0.9 * before:
            break
    return value


def flat(outputs: Outputs, case: Case) -> np.ndarray:
    return np.concatenate([outputs[leaf].astype(np.float64).ravel() for leaf in case.actual]) if case.actual else np.zeros(0)


def marked(make: Generator) -> Generator:
    """The generator with its hypotheses said to be fitted."""

    @functools.wraps(make)
    def marking(case: Case) -> Iterator[Hypothesis]:
        for hypothesis in make(case):
            hypothesis.fitted = True
            yield hypothesis

    return marking


FITS = tuple(map(marked, (fitted, slopes, attentions, bases, factors, addends, offsets)))
