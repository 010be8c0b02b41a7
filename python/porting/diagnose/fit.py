"""Constants that are none of the usual ones: the value of one constant is fitted to the port, and named only if it then explains everything."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import Case
from .constants import EPS_ARGUMENT, is_eps, is_number, show
from .hypothesis import Hypothesis, Outputs, edited

ROUNDS = 4
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


def solve(case: Case, index: int, place: int, old: float) -> float | None:
    """The constant that comes nearest, by Newton steps on the least squares; None if the first step explains less than a tenth."""
    target = flat(case.actual, case)
    step = max(abs(old) * 1e-2, 1e-4)

    def run(value: float) -> np.ndarray:
        draft = case.draft()
        draft.ops[index].args[place] = value
        return flat(case.run_edited(draft), case)

    value, best = old, run(old)
    start = float(np.sum(np.square(target - best)))
    if not np.isfinite(start):
        return None
    for n in range(ROUNDS):
        slope = (run(value + step) - best) / step
        size = float(slope @ slope)
        if not np.isfinite(size) or size == 0:
            return None
        value += float(slope @ (target - best)) / size
        if not np.isfinite(value):
            return None
        best = run(value)
        left = float(np.sum(np.square(target - best)))
        if not np.isfinite(left) or (n == 0 and left > 0.9 * start):
            return None
        step = abs(value) * 1e-2 or 1e-12
    return value


def flat(outputs: Outputs, case: Case) -> np.ndarray:
    return np.concatenate([outputs[leaf].astype(np.float64).ravel() for leaf in case.actual]) if case.actual else np.zeros(0)
