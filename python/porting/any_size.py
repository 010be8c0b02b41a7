"""A traced program (sizes.py) on inputs of any sizes that meet its conditions. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ._core import PortingError, UnsupportedError
from .compare import compare_arrays
from .profiles import Settings
from .program import NoProgramError, Program, execute, feed, feeds_of
from .sizes import MisfitError, Traced

if TYPE_CHECKING:
    from .roots import RootCall

__all__ = ["AnySize"]

_MAX_PROGRAMS = 16


class AnySize:
    """The program that was traced in a captured call. It is made anew for sizes that it has not run at.

    A program that was traced for several rows, in a call of one row, may have other ops than the recorded one, which round otherwise. It has to come close to what
    was captured for that row before it stands for anything.
    """

    def __init__(self, traced: Traced, call: RootCall, ways: Settings) -> None:
        self.traced, self.call, self.ways = traced, call, ways
        self.named = traced.names = call.input_names
        self._programs: dict[tuple[int, ...], Program] = {}
        self._doubt: str | None = None if traced.same else "not checked yet"

    def __str__(self) -> str:
        some = list(self.traced.shapes)
        shown = ", ".join(f"{self.named[leaf]} {self.traced.text_of(leaf)}" for leaf in some[:6])
        return f"The program traced in call {self.traced.call} takes {shown}{f' and {len(some) - 6} more' if len(some) > 6 else ''}"

    def fit(self, given: Mapping[str, np.ndarray]) -> tuple[dict[str, int] | None, str]:
        """(the sizes in arrays by the names of forward's parameters, "") or (None, why it does not stand for them)."""
        leaves = {name: leaf for leaf, name in self.named.items()}
        lacking, extra = [n for n in leaves if n not in given], [n for n in given if n not in leaves]
        if lacking or extra:
            return None, f"{lacking[0]} is not given" if lacking else f"{extra[0]} is given, which it has not"
        recorded = self.call.own[1].inputs
        for name, leaf in leaves.items():
            if given[name].dtype != recorded[leaf].dtype:
                return None, f"{name} is {given[name].dtype.name}, expected {recorded[leaf].dtype.name}"
        try:
            sizes = self.traced.bind({leaf: given[name].shape for leaf, name in self.named.items()})
            self.traced.check(sizes)
            self._check()
        except MisfitError as error:
            return None, str(error)
        return sizes, ""

    def run(self, given: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Leaf path to array of what it returns. NoProgramError: it cannot run on these arrays."""
        program = self._at(sizes)
        interval, own = program.intervals[0], self.call.own[1]
        outputs = {leaf: interval.outputs[leaf] for leaf in own.outputs if leaf in interval.outputs}
        feeds = feeds_of(self.call.capture, own, program, interval, without=self.traced.inputs.values(), asked=outputs.values())
        for leaf, name in self.named.items():
            feed(feeds, self.traced.inputs[leaf], name, given[name])
        try:
            used = {*program.external(interval), *outputs.values()}
            arrays = execute(program, interval.begin, interval.end, {v: a for v, a in feeds.items() if v in used}, list(outputs.values()), self.ways)
        except (PortingError, ValueError) as error:
            if isinstance(error, UnsupportedError):
                raise
            raise NoProgramError(f"the program traced in call {self.traced.call} of {program.root or 'the root'} cannot run on these arguments: {error}") from error
        return dict(zip(outputs, arrays))

    def _at(self, sizes: Mapping[str, int]) -> Program:
        key = tuple(sizes[name] for name in self.traced.symbols)
        if key not in self._programs:
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs.clear()
            program = Program(self.traced.at(sizes))
            missing = program.core.missing(program.intervals[0].begin, program.intervals[0].end)
            if missing:
                raise UnsupportedError(f"{program.root or 'the root'}: no kernel for {', '.join(sorted(set(missing)))}")
            self._programs[key] = program
        return self._programs[key]

    def _check(self) -> None:
        """MisfitError if at the captured sizes it does not give what was captured, within the tolerance "auto"."""
        if self._doubt == "not checked yet":
            own = self.call.own[1]
            try:
                found = self.run({name: own.inputs[leaf] for leaf, name in self.named.items()}, self.traced.bind({leaf: own.inputs[leaf].shape for leaf in self.named}))
                other = next((leaf for leaf, array in found.items() if not compare_arrays(own.outputs[leaf], array, tol="auto").verdict.passed), None)
                self._doubt = None if other is None else f"its output {other} is not what was captured"
            except PortingError as error:
                self._doubt = str(error)
        if self._doubt is not None:
            raise MisfitError(f"run on the captured inputs it does not give what the model gave: {self._doubt}")
