"""Calls of root modules: which recorded program stands for each, and which captured module calls its intervals are.

A program names the module calls of the call that it was recorded in; here they are those of any call it stands for. It runs nothing.
"""
from __future__ import annotations

import bisect
import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

from .program import Interval, Program, steps_of_root

if TYPE_CHECKING:
    from .capture import Call, Capture

__all__ = ["RootCall", "by_parameter", "root_calls"]


@dataclasses.dataclass(frozen=True)
class RootCall:
    """One call of a root module that a program stands for.

    calls : the captured module calls inside it (its own, too) with their intervals of the program; those that cannot be told are left out.
    """

    capture: Capture
    program: Program
    number: int
    step: int
    calls: tuple[tuple[Interval, Call], ...]

    @property
    def symbols(self) -> list[int]:
        """What the program's symbols stand for in this call."""
        return self.program.call_symbols.get(self.number, [])

    @property
    def recorded(self) -> bool:
        """Whether it is the call that the program was recorded in."""
        return self.number == self.program.calls[0]

    @cached_property
    def own(self) -> tuple[Interval, Call] | None:
        """The root module's own call, None if it was not captured or did not return."""
        return next(((i, c) for i, c in self.calls if i.name == self.program.root and c.number == self.number), None)

    @cached_property
    def input_names(self) -> dict[str, str]:
        """Leaf path of an input to the same with the name of forward's parameter, of the root's own call."""
        assert self.own is not None
        call = self.own[1]
        return {leaf: by_parameter(call, leaf) for leaf in call.inputs}

    @cached_property
    def _owners(self) -> list[int]:
        owners = [-1] * len(self.program.ops)
        for place, (interval, _) in enumerate(self.calls):  # inner ones come after outer ones
            owners[interval.begin : interval.end] = [place] * (interval.end - interval.begin)
        return owners

    def owner(self, op: int) -> tuple[Interval, Call] | None:
        """The innermost captured module call that executed an op."""
        place = self._owners[op]
        return self.calls[place] if place >= 0 else None


def by_parameter(call: Call, leaf: str) -> str:
    """The leaf path with the parameter's name in the place of its number."""
    place, dot, rest = leaf.partition(".")
    return f"{call.input_names.get(place, place)}{dot}{rest}"


def root_calls(capture: Capture) -> list[RootCall]:
    """Every root call that was recorded, in order of steps."""
    numbers: dict[tuple[str, int], list[int]] = {}
    calls = {}
    for call in capture.call_list:
        bisect.insort(numbers.setdefault((call.module, call.step), []), call.number)
        calls[call.module, call.number] = call
    found = []
    for program in capture.programs:
        if program.reason:
            continue
        places = {id(interval): place for name in {i.name for i in program.intervals} for place, interval in enumerate(program.of_module(name))}
        steps = steps_of_root(capture, program.root)
        for number in program.calls:
            step = steps.get(number, number)
            inside = []
            for interval in program.intervals:
                if number == program.calls[0]:
                    actual = interval.call
                else:
                    mates = numbers.get((interval.name, step), [])
                    if len(mates) != len(program.of_module(interval.name)):
                        continue
                    actual = mates[places[id(interval)]]
                call = calls.get((interval.name, actual))
                if call is not None and call.step == step:
                    inside.append((interval, call))
            found.append(RootCall(capture, program, number, step, tuple(inside)))
    return sorted(found, key=lambda root: (root.step, root.number))
