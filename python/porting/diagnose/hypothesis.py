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
    """

    cause: str
    detail: str
    compute: Callable[[bool], Outputs]


Generator = Callable[[Case], Iterable[Hypothesis]]
_generators: list[Generator] = []


def generator(function: Generator) -> Generator:
    """Decorator: registers a generator of hypotheses. It is called with each case and yields `Hypothesis` objects."""
    _generators.append(function)
    return function


def generators() -> tuple[Generator, ...]:
    return tuple(_generators)


def edited(case: Case, cause: str, detail: str, change: Callable[[Draft], Any]) -> Hypothesis:
    """A hypothesis that edits the program: `change` gets a draft."""

    def compute(wide: bool) -> Outputs:
        draft = case.draft()
        change(draft)
        return case.run_edited(draft, wide)

    return Hypothesis(cause, detail, compute)


def overridden(case: Case, cause: str, detail: str, override: Callable[[], Mapping[int, np.ndarray]]) -> Hypothesis:
    """A hypothesis that replaces values: `override` gives the new ones."""
    return Hypothesis(cause, detail, lambda wide: case.run_override(override(), wide))


def transformed(case: Case, cause: str, detail: str, change: Callable[[np.ndarray], np.ndarray]) -> Hypothesis:
    """A hypothesis about the finished outputs: `change` is applied to each floating output."""

    def compute(wide: bool) -> Outputs:
        outputs = (case.golden() if wide else None) or case.reference()
        return {k: change(v) if is_float(v) else v for k, v in outputs.items()}

    return Hypothesis(cause, detail, compute)
