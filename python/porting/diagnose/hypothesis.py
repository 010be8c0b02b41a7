"""Hypotheses and the registry of their generators.

A generator looks at a `Case` and yields single changes that would explain a wrong port. It is general: it names no model.
Users add their own with `@porting.diagnose.generator`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .case import Case, Draft, is_float

Outputs = dict[str, np.ndarray]


@dataclass
class Hypothesis:
    """One single change: a stable cause id, a sentence with the values, and how to compute the outputs under it.

    compute(wide): the outputs; with wide the arithmetic after the change is float64, which shows how large rounding is under this hypothesis.
    op(): number of the op in the case that the change is made at; None if it is none.
    coarse: a rounding to a narrow format stands within, so that the last bit of a sum decides about a whole step of it (rank.py).
    reorder: what is done to the one parameter that it changes, if that is all.
    fitted: a number in it was fitted to the port.
    """

    cause: str
    detail: str
    compute: Callable[[bool], Outputs]
    op: Callable[[], int | None] = lambda: None
    coarse: bool = False
    reorder: Callable[[np.ndarray], np.ndarray] | None = None
    fitted: bool = False


Generator = Callable[[Case], Iterable[Hypothesis]]
_generators: list[Generator] = []


def generator(function: Generator) -> Generator:
    """Decorator: registers a generator of hypotheses. It is called with each case and yields `Hypothesis` objects."""
    _generators.append(function)
    return function


def generators() -> tuple[Generator, ...]:
    return tuple(_generators)


def edited(case: Case, cause: str, detail: str, change: Callable[[Draft], Any], coarse: bool = False) -> Hypothesis:
    """A hypothesis that edits the program: `change` gets a draft."""

    def drafted() -> Draft:
        draft = case.draft()
        change(draft)
        return draft

    return Hypothesis(cause, detail, lambda wide: case.run_edited(drafted(), wide), lambda: first_change(case, drafted()), coarse)


def first_change(case: Case, draft: Draft) -> int | None:
    """The first recorded op that the draft has not as it was."""
    kept = {tuple(op.outputs): op for op in draft.ops}
    for i, op in enumerate(case.ops):
        other = kept.get(tuple(op.outputs))
        if other is None or not other.same(op):
            return i
    return None


def overridden(case: Case, cause: str, detail: str, override: Callable[[], Mapping[int, np.ndarray]], coarse: bool = False) -> Hypothesis:
    """A hypothesis that replaces values: `override` gives the new ones."""

    def place() -> int | None:
        values = list(override())
        made = [case.producers[v] for v in values if v in case.producers]
        used = [i for v in values if v not in case.producers for i in case.users(v)]
        return min(made or used, default=None)

    return Hypothesis(cause, detail, lambda wide: case.run_override(override(), wide), place, coarse)


def transformed(case: Case, cause: str, detail: str, change: Callable[[np.ndarray], np.ndarray]) -> Hypothesis:
    """A hypothesis about the finished outputs: `change` is applied to each floating output."""

    def compute(wide: bool) -> Outputs:
        outputs = (case.golden() if wide else None) or case.reference()
        return {k: change(v) if is_float(v) else v for k, v in outputs.items()}

    return Hypothesis(cause, detail, compute)
