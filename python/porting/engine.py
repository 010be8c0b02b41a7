"""A captured model as a function that runs in C: recorded programs on new inputs, for instance token after token.

    engine = porting.Engine("run.capture")
    step = engine(input_ids=ids, position_ids=positions, past_key_values=cache)
    step["logits"], step.part("past_key_values")

What it does not do: trace. It runs what was recorded. A call captured with `sizes=True` stands for all sizes that meet the conditions under which it was
traced (docs/PROGRAM.md). Without that the program of a decode step stands for every length of the cache once two steps were captured; two calls with inputs of two sizes (a batch of 1 and one of 3, prompts of 5 and 9 tokens) give a program for all sizes on
the line through both. Other sizes are refused. Branches that Python took when it was recorded are taken again; a number that the model read out of a
tensor is compared with the recorded one.
"""
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import PortingError, UnsupportedError
from .any_size import AnySize
from .capture import open as open_capture
from .lengths import DifferentProgramsError, between
from .profiles import AS_CAPTURED, Settings, settings
from .program import NoProgramError, Program, execute, feed, feeds_of
from .providers import use_provider
from .roots import RootCall, root_calls
from .sizes import load as load_traced

if TYPE_CHECKING:
    from .capture import Capture

__all__ = ["Engine", "Step"]

#: A size: a number, or (offset, factor) of the program's symbol.
Size = int | tuple[int, int]
#: How many recordings are tried in pairs for what they have in common.
_MAX_RECORDINGS = 6


class Step(dict[str, np.ndarray]):
    """What the model returned: leaf path to array."""

    def part(self, name: str) -> dict[str, np.ndarray]:
        """The leaves below a name, without it: ``part("past_key_values")`` is {"0.key": ..., "0.value": ...}."""
        return {leaf[len(name) + 1:]: array for leaf, array in self.items() if leaf.startswith(f"{name}.")}


class Engine:
    """Runs a captured model in C. No torch.

    Parameters
    ----------
    capture : path or Capture, with the model's programs and parameters; open as long as the engine is used
    root : name of the root module, where there are several; None: the first
    profile, provider : as `check` has them

    Raises
    ------
    NoProgramError : the capture has no program of a whole call of the root, or not its parameters
    UnsupportedError : ops without a kernel, by name
    """

    def __init__(self, capture: Any, *, root: str | None = None, profile: str = AS_CAPTURED, provider: str = "auto") -> None:
        self.provider, _ = use_provider(provider)
        self.capture: Capture = capture if hasattr(capture, "call_list") else open_capture(capture)
        self.root = self.capture.root if root is None else self.capture.resolve_module(root)
        self._ways = settings(profile, self.capture.environment, provider)
        by_program: dict[Program, list[RootCall]] = {}
        for call in root_calls(self.capture):
            if call.program.root == self.root and call.own is not None:
                by_program.setdefault(call.program, []).append(call)
        self._recorded = [_Recorded(calls, self._ways) for calls in by_program.values()]
        if not self._recorded:
            reasons = sorted({program.reason for program in self.capture.programs if program.reason})
            raise NoProgramError(f"{self.capture.path} has no program of a whole call of {self.root or 'the root'}: {'; '.join(reasons) or 'none was recorded'}")
        self._traced: list[AnySize] | None = None
        self._between: list[_Recorded] | None = None
        self._apart: list[str] = []

    def __call__(self, **arguments: Any) -> Step:
        """Runs the program that was recorded for such arguments.

        Parameters
        ----------
        arguments : arrays by the names of forward's parameters; for one that holds several tensors (a cache) a mapping of leaf paths
            ({"0.key": ...}, as `Step.part` gives it). All tensors that the captured call had, and no others. What was no tensor is as captured.

        Raises
        ------
        NoProgramError : no program was recorded for arguments of these names, dtypes and sizes, nor two whose sizes are on a line with
            these; or the model read another number out of a tensor
        """
        given = dict(_flatten(arguments))
        misfits = []
        for candidate in self._candidates():
            sizes, why = candidate.fit(given)
            if sizes is not None:
                return Step(candidate.run(given, sizes))
            misfits.append(f"{candidate}: {why}")
        misfits += self._apart
        if len(self._recorded) == 1 and not self._recorded[0].first.symbols and not self._traced:
            misfits.append("Which numbers follow the sizes one call does not say: capture it with sizes=True, or one of another size, too")
        raise NoProgramError(f"{self.root or 'the root'}: no recorded program takes these arguments. {'. '.join(misfits)}")

    def _candidates(self) -> Iterator[_Recorded | AnySize]:
        """What was recorded, then what was traced, then what two recordings of different sizes have in common; that is found out when it is first needed."""
        yield from self._recorded
        if self._traced is None:
            self._traced = list(self._find_traced())
        yield from self._traced
        if self._between is None:
            self._between = []
            some = [recorded.first for recorded in self._recorded if not recorded.first.symbols][:_MAX_RECORDINGS]
            for first, second in itertools.combinations(some, 2):
                try:
                    self._between.append(_common(first, second, self._ways))
                except DifferentProgramsError as error:
                    self._apart.append(f"Calls {first.number} and {second.number} give no program for other sizes: {error}")
        yield from self._between

    def _find_traced(self) -> Iterator[AnySize]:
        for traced in load_traced(self.capture.path):
            call = next((recorded.first for recorded in self._recorded if traced.root == self.root and recorded.first.number == traced.call), None)
            if call is not None and traced.reason is None:
                yield AnySize(traced, call, self._ways)
            elif call is not None:
                self._apart.append(f"Call {traced.call} was traced and gives no program for other sizes: {traced.reason}")


def _flatten(arguments: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(value)


@dataclasses.dataclass
class _Leaf:
    """One tensor of a call: its value in the program, dtype, sizes, and those of the recorded call's memory."""

    value: int
    dtype: np.dtype
    sizes: tuple[Size, ...]


class _Recorded:
    """One program and the sizes of inputs that it stands for, as its captured calls show them."""

    def __init__(self, calls: list[RootCall], ways: Settings) -> None:
        self.ways = ways
        first = next((call for call in calls if call.recorded), calls[0])
        other = next((call for call in calls if call.symbols != first.symbols), None)
        self.first, self.numbers = first, [call.number for call in calls]
        self.program, (self.interval, own) = first.program, first.own
        self.symbol = next(iter(self.program.symbols), "")
        missing = self.program.core.missing(self.interval.begin, self.interval.end)
        if missing:
            raise UnsupportedError(f"{self.program.root or 'the root'}: no kernel for {', '.join(sorted(set(missing)))}")
        self.named = named = first.input_names
        self.inputs = {named[leaf]: self._leaf(first, other, "in", leaf) for leaf in own.inputs}
        self.outputs = {leaf: self._leaf(first, other, "out", leaf) for leaf in own.outputs if leaf in self.interval.outputs}
        self.feeds = feeds_of(first.capture, own, self.program, self.interval, without={leaf.value for leaf in self.inputs.values()},
                              asked=[leaf.value for leaf in self.outputs.values()])
        self.used = set(self.program.external(self.interval)) | {leaf.value for leaf in self.outputs.values()}

    def _leaf(self, first: RootCall, other: RootCall | None, phase: str, leaf: str) -> _Leaf:
        (interval, own) = first.own
        array = own.inputs[leaf] if phase == "in" else own.outputs[leaf]
        value = (interval.inputs if phase == "in" else interval.outputs).get(leaf, -1)
        sizes: tuple[Size, ...] = array.shape
        if other is not None:
            theirs = other.own[1].inputs if phase == "in" else other.own[1].outputs
            sizes = tuple(_size(a, b, first.symbols[0], other.symbols[0]) for a, b in zip(array.shape, theirs[leaf].shape))
        return _Leaf(value, array.dtype, sizes)

    def __str__(self) -> str:
        calls = f"call {self.numbers[0]}" if len(self.numbers) == 1 else f"calls {', '.join(map(str, self.numbers[:8]))}"
        some = list(self.inputs.items())
        shown = ", ".join(f"{name} {_text(leaf.sizes, self.symbol)}" for name, leaf in some[:6])
        return f"The program of {calls} takes {shown}{f' and {len(some) - 6} more' if len(some) > 6 else ''}"

    def fit(self, given: Mapping[str, np.ndarray]) -> tuple[list[int] | None, str]:
        """(symbols for these inputs, "") or (None, why it does not stand for them)."""
        lacking, extra = [n for n in self.inputs if n not in given], [n for n in given if n not in self.inputs]
        if lacking or extra:
            return None, f"{lacking[0]} is not given" if lacking else f"{extra[0]} is given, which it has not"
        length = self._length(given)
        for name, leaf in self.inputs.items():
            array = given[name]
            if array.dtype != leaf.dtype or array.ndim != len(leaf.sizes):
                return None, f"{name} is {array.dtype.name} {list(array.shape)}, expected {leaf.dtype.name} {_text(leaf.sizes, self.symbol)}"
            for size, found in zip(leaf.sizes, array.shape):
                if found != _evaluate(size, length):
                    alone = " (only one length of the cache was recorded: capture two decode steps)" if self.first.symbols and not self._grows else ""
                    return None, f"{name} is {list(array.shape)}, expected {_text(leaf.sizes, self.symbol)}{f' with {self.symbol} {length}' if length is not None else ''}{alone}"
        if length is not None and length < 1:
            return None, f"{self.symbol} is {length}, expected at least 1"
        return (self.first.symbols if length is None else [length]), ""

    def _length(self, given: Mapping[str, np.ndarray]) -> int | None:
        """The symbol (the cache's length): what a size that is nothing else says, or any that depends on it; None if none does."""
        found = [(size, n) for name, leaf in self.inputs.items() for size, n in zip(leaf.sizes, given[name].shape) if isinstance(size, tuple)]
        found.sort(key=lambda pair: pair[0] != (0, 1))
        return next(((n - size[0]) // size[1] for size, n in found), None)

    @property
    def _grows(self) -> bool:
        return any(isinstance(size, tuple) for leaf in self.inputs.values() for size in leaf.sizes)

    def run(self, given: Mapping[str, np.ndarray], symbols: list[int]) -> dict[str, np.ndarray]:
        feeds = dict(self.feeds)
        for name, leaf in self.inputs.items():
            if leaf.value in self.used:
                feed(feeds, leaf.value, name, given[name])
        try:
            arrays = execute(self.program, self.interval.begin, self.interval.end, feeds, [leaf.value for leaf in self.outputs.values()], self.ways, symbols=symbols)
        except (PortingError, ValueError) as error:
            raise NoProgramError(f"the program of call {self.numbers[0]} of {self.program.root or 'the root'} cannot run on these arguments: {error}") from error
        for (name, leaf), array in zip(self.outputs.items(), arrays):
            expected = tuple(_evaluate(size, symbols[0] if symbols else None) for size in leaf.sizes)
            if array.shape != expected:
                raise NoProgramError(f"the program of call {self.numbers[0]} of {self.program.root or 'the root'} does not stand for these arguments:"
                                     f" {name} came out as {list(array.shape)}, expected {list(expected)}")
        return dict(zip(self.outputs, arrays))


def _common(first: RootCall, second: RootCall, ways: Settings) -> _Recorded:
    """The program of both calls; DifferentProgramsError also if it does not give at the second's sizes what the second's own gives."""
    calls = between(first, second)
    both = _Recorded(list(calls), ways)
    given = {both.named[leaf]: array for leaf, array in second.own[1].inputs.items()}
    try:
        own, common = _Recorded([second], ways).run(given, []), both.run(given, calls[1].symbols)
    except NoProgramError as error:
        raise DifferentProgramsError(str(error)) from error
    if any(own[leaf].tobytes() != common[leaf].tobytes() for leaf in own):
        raise DifferentProgramsError(f"run at the sizes of call {second.number}, what they have in common gives other values than that call's own program")
    return both


def _size(a: int, b: int, length_a: int, length_b: int) -> Size:
    """The size that is a and b at two lengths of the cache, as a line; a where it is none (then b's length does not fit)."""
    factor, rest = divmod(b - a, length_b - length_a)
    return a if a == b or rest else (a - factor * length_a, factor)


def _evaluate(size: Size, length: int | None) -> int:
    if isinstance(size, int):
        return size
    return size[0] + size[1] * length if length is not None else -1


def _text(sizes: tuple[Size, ...], symbol: str) -> str:
    def one(size: Size) -> str:
        if isinstance(size, int):
            return str(size)
        offset, factor = size
        return (symbol if factor == 1 else f"{factor} {symbol}") + (f" + {offset}" if offset > 0 else f" - {-offset}" if offset else "")

    return f"[{', '.join(map(one, sizes))}]"
