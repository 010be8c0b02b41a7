"""Single ops of a capture that was made with level="op": what each was given, and running it again in C on that.

Inputs are not stored with an op; they are what earlier ops made, inputs of modules, constants and parameters (docs/FORMAT.md section 6,
phase 3). What was not stored because it is a view is made again by running the view. Nothing here judges (op_judging.py).
"""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ._core import FormatError, PortingError, UnsupportedError
from .profiles import Settings, settings
from .program import Interval, NoProgramError, Program, base_name, execute, is_move, source_name, with_strides
from .roots import RootCall, root_calls
from .widening import wide_core, widen_array

if TYPE_CHECKING:
    from .capture import Call, Capture

__all__ = ["CapturedOp", "Operands", "OpRuns", "ops_of"]

_LEAF = re.compile(r"(\d+)\.(.+)\.(in|out)\.(\d+)$")
#: Results that are not stored, and are those of the op run again: what only looks at memory, and memory that nobody has set.
_RERUN = frozenset(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided unfold movedim swapaxes swapdims view_as view_as_real view_as_complex"
    " real imag squeeze_copy view_as_real _reshape_alias _conj adjoint mT mH H lift values indices".split())

#: Finds the array under a full name of the reference; None: the captured one.
Lookup = Callable[[str], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class CapturedOp:
    """One executed op with results in the capture.

    number : in the program. k : in the module call. name : "aten.mm.default". outputs : leaf path to value.
    """

    root: RootCall
    interval: Interval
    call: Call
    number: int
    k: int
    name: str
    outputs: dict[str, int]

    @property
    def label(self) -> str:
        """Module and op, as its tensors' names begin: "model.layers.0.mlp.op.3.aten.mm.default"."""
        return f"{self.call.module}{'.' if self.call.module else ''}op.{self.k}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Operands:
    """What an op runs on.

    feeds : value to array. only : numbers of the ops to run, the op itself last. names : value to the full name (or "param:", "const:") of
    its array. given : whether one of the arrays is not the captured one. lacking : full names for which the lookup had nothing that fits.
    """

    feeds: dict[int, np.ndarray]
    only: list[int]
    names: dict[int, str]
    given: bool
    lacking: tuple[str, ...]


class OpRuns:
    """The ops of one root call, and running them one at a time.

    Raises FormatError if the records of its ops do not fit its program.
    """

    def __init__(self, root: RootCall) -> None:
        self.root = root
        self.program: Program = root.program
        self.capture: Capture = root.capture
        self._stored: dict[int, list[tuple[int, str]]] = {}  # value -> (op from which on it is this, full name)
        self.ops: list[CapturedOp] = []
        for interval, call in root.calls:
            self._read(interval, call)
        self.ops.sort(key=lambda op: op.number)
        for events in self._stored.values():
            events.sort()

    def _read(self, interval: Interval, call: Call) -> None:
        found: dict[int, dict[str, int]] = {}
        for leaf in call.leaf_ids("op"):
            parts = _LEAF.match(leaf)
            number = interval.begin + int(parts[1]) if parts else -1
            if parts is None or not number < interval.end or self.program.ops[number][0] != parts[2]:
                raise FormatError(f"{call.full_name('op', leaf)}: the program has no such op there")
            op = self.program.ops[number]
            values = self.program.uses(number) if parts[3] == "in" else op[3]
            value = values[int(parts[4])] if int(parts[4]) < len(values) else None
            if not isinstance(value, int):
                raise FormatError(f"{call.full_name('op', leaf)}: the op has no such tensor")
            is_out = parts[3] == "out"
            self._stored.setdefault(value, []).append((number + is_out, call.full_name("op", leaf)))
            if is_out:
                found.setdefault(number, {})[leaf] = value
        for number, outputs in found.items():
            self.ops.append(CapturedOp(self.root, interval, call, number, number - interval.begin, self.program.ops[number][0], outputs))

    @cached_property
    def _makers(self) -> dict[int, list[int]]:
        """Value to the ops that made it or changed it in place."""
        makers: dict[int, list[int]] = {}
        for number, op in enumerate(self.program.ops):
            for value in op[3]:
                if isinstance(value, int):
                    makers.setdefault(value, []).append(number)
        return makers

    def operands(self, op: CapturedOp, lookup: Lookup | None = None) -> Operands:
        """What the op was given in the captured run; with `lookup` the arrays that it knows in their place, if they are of the captured
        shape and dtype. Parameters and constants stay the captured ones.

        Raises NoProgramError if a tensor that it used is not in the capture.
        """
        names: dict[int, str] = {}
        only: list[int] = []
        waiting = [(value, op.number) for value in self.program.uses(op.number)]
        while waiting:
            value, at = waiting.pop()
            if value in names:
                continue
            since, name = next((event for event in reversed(self._stored.get(value, ())) if event[0] <= at), (0, None))
            maker = next((number for number in reversed(self._makers.get(value, ())) if number < at), -1)
            if maker in only:
                continue
            if maker >= since and not self._was_given(value, at, maker):  # made after what is stored of it, which is nothing
                if not self._is_rerun(maker):
                    raise NoProgramError(f"{op.label}: it uses what op {maker} of the program ({self.program.ops[maker][0]}) made, which is not in the capture")
                only.append(maker)
                waiting += [(v, maker) for v in self.program.uses(maker)]
            else:
                names[value] = name if name is not None else self._source(op, value, at)
        feeds, given, lacking = {}, False, []
        for value, name in names.items():
            feeds[value], own = self._array(name, lookup)
            given = given or own
            if lookup is not None and not own and not name.startswith(("param:", "const:")) and lookup(name) is None:
                lacking.append(name)
        return Operands(feeds, [*sorted(only), op.number], names, given, tuple(lacking))

    def _was_given(self, value: int, at: int, maker: int) -> bool:
        """Whether a value that another op made came to this one as an input of its module, which is captured."""
        interval, call = self.root.owner(at) or (None, None)
        if interval is None or maker >= interval.begin:
            return False
        return value in interval.captured or any(v == value and path in call.inputs for path, v in interval.inputs.items())

    def _array(self, name: str, lookup: Lookup | None) -> tuple[np.ndarray, bool]:
        """(the array to feed, whether the lookup gave it and it is not the captured one)."""
        captured = self.capture.parameters[name.removeprefix("param:")] if name.startswith("param:") else self.capture[name]
        found = lookup(name) if lookup is not None and not name.startswith(("param:", "const:")) else None
        if found is None or found.shape != captured.shape or found.dtype != captured.dtype:
            return with_strides(captured, self.capture, name), False
        return with_strides(found, self.capture, name), not np.array_equal(found.view(np.uint8) if found.ndim and found.flags.c_contiguous else found,
                                                                           captured.view(np.uint8) if found.ndim and found.flags.c_contiguous else captured)

    def _is_rerun(self, number: int) -> bool:
        name = base_name(self.program.ops[number][0])
        return name in _RERUN or is_move(name)

    def _source(self, op: CapturedOp, value: int, at: int) -> str:
        interval, call = self.root.owner(at) or (op.interval, op.call)
        return source_name(self.capture, call, self.program, interval, value)

    def run(self, op: CapturedOp, operands: Operands, ways: Settings) -> dict[str, np.ndarray]:
        """Leaf path to array: what the op makes in C of these operands, under a profile.

        Raises UnsupportedError without a kernel, ValueError or PortingError if it cannot be run on them.
        """
        only, core = operands.only, self.program.core
        missing = sorted({name for number in only for name in core.missing(number, number + 1)})
        if missing:
            raise UnsupportedError(f"{op.label}: no kernel for {', '.join(missing)}")
        arrays = execute(self.program, only[0], only[-1] + 1, operands.feeds, list(op.outputs.values()), ways, only=only, symbols=self.root.symbols)
        return dict(zip(op.outputs, arrays))

    def run_wide(self, op: CapturedOp, operands: Operands) -> dict[str, np.ndarray]:
        """The same in float64; empty if that is not possible."""
        only, ways = operands.only, settings("golden", self.capture.environment)
        try:
            feeds = {value: widen_array(array) for value, array in operands.feeds.items()}
            arrays = wide_core(self.program).run(only[0], only[-1] + 1, feeds, list(op.outputs.values()), only=only, symbols=self.root.symbols, **ways.options)
        except (PortingError, ValueError, MemoryError):
            return {}
        return dict(zip(op.outputs, arrays))


def ops_of(capture: Capture) -> Iterator[tuple[OpRuns, CapturedOp]]:
    """Every op with results in the capture, in order of execution.

    Raises NoProgramError if the capture has no tensors of ops.
    """
    if not any(len(call.leaf_ids("op")) for call in capture.call_list):
        raise NoProgramError(f"{capture.path} holds no tensors of ops: capture it with level=\"op\" (--level op)")
    for root in root_calls(capture):
        runs = OpRuns(root)
        for op in runs.ops:
            yield runs, op
