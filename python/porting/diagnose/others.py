"""Weights of any other place of the model: the last resort, for there are many."""
from __future__ import annotations

from collections.abc import Iterator

from .case import Case
from .hypothesis import Hypothesis, generator, overridden
from .weights import mistaken, neighbour


@generator
def any_other(case: Case) -> Iterator[Hypothesis]:
    """Any other parameter of the capture with the same shape: a layer further away, the embedding for the head."""
    for v, name in case.parameters.items():
        shape = tuple(case.values[v][1])
        if not case.is_floating(v) or len(shape) < 1:
            continue
        near = {neighbour(name, -1), neighbour(name, 1), name, *case.parameters.values()}
        for other in case.neighbours:
            if other in near or other.rpartition(".")[2] != name.rpartition(".")[2]:
                continue
            array = case.neighbours[other]
            if array.shape == shape:
                cause = mistaken(name, other)
                yield overridden(case, cause, f"port has {other} in the place of {name}", lambda v=v, o=other: {v: case.neighbours[o]})
