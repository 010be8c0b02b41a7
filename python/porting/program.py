"""Recorded programs (docs/PROGRAM.md): which ops a captured module call executed, and running them in C.

It does not judge: `check` compares what `run_call` returns with what the capture holds. No torch here.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from . import _core
from ._core import FormatError, PortingError, UnsupportedError
from .profiles import AS_CAPTURED, Settings, settings
from .widening import NARROW, lay_out, rounded_once, wide_core, widen_array

if TYPE_CHECKING:
    from .capture import Call, Capture

__all__ = ["Interval", "NoProgramError", "Program", "RunResult", "kind_of", "load", "run_call"]


class NoProgramError(PortingError):
    """A captured call cannot be run: nothing was recorded for it, or what was recorded cannot be run alone. The text says why."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """The ops [begin, end) that one call of a module executed. `inputs`, `outputs`: leaf path to value number; `captured`:
    value number to the tensor's name in the capture; `reason`: why it cannot be run alone, or None."""

    name: str
    call: int
    begin: int
    end: int
    inputs: dict[str, int]
    outputs: dict[str, int]
    captured: dict[int, str]
    reason: str | None


class Program:
    """One entry of program.json: what some calls of a root module executed.

    Attributes
    ----------
    root, calls : name of the root module and the numbers of its calls.
    values : list of [dtype name, shape, strides, storage offset].
    ops : list of [name, args, kwargs, outputs(, result)].
    intervals : the module calls, outer ones before inner ones.
    parameters, constants : value number to name.
    reason : why nothing was recorded, or None.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        try:
            self.root = str(entry["root"])
            self.calls = [int(c) for c in entry["calls"]]
            self.values: list[Any] = list(entry["values"])
            self.ops: list[Any] = list(entry["ops"])
            self.parameters = {int(v): str(n) for v, n in entry["parameters"].items()}
            self.constants = {int(v): str(n) for v, n in entry["constants"].items()}
            self.symbols = [str(s) for s in entry.get("symbols", ())]
            self.call_symbols = {int(c): [int(x) for x in s] for c, s in entry.get("call_symbols", {}).items()}
            self.reason: str | None = entry.get("reason")
            self.intervals = [_interval(m, len(self.ops), len(self.values)) for m in entry["modules"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"program.json: a program is malformed: {type(error).__name__}: {error}") from error
        self._entry = entry
        self._core: _core.Program | None = None
        self._uses: list[tuple[int, ...]] | None = None
        self.sources: dict[Any, Any] = {}  # of whole.py: what its intervals use
        self._external: dict[tuple[int, int], list[int]] = {}
        self._by_module: dict[str, list[Interval]] = {}
        for interval in sorted(self.intervals, key=lambda i: i.call):
            self._by_module.setdefault(interval.name, []).append(interval)

    def __repr__(self) -> str:
        return f"<Program of {self.root or 'the root'}: {len(self.calls)} calls, {len(self.ops)} ops, {len(self.intervals)} module calls>"

    @property
    def core(self) -> _core.Program:
        """The parsed program of the C core; FormatError if it refuses the text."""
        if self._core is None:
            self._core = _core.Program(json.dumps(self._entry).encode())
        return self._core

    def of_module(self, name: str) -> list[Interval]:
        """The intervals of one module in the order of its calls."""
        return self._by_module.get(name, [])

    def op_names(self, interval: Interval) -> list[str]:
        return [str(op[0]) for op in self.ops[interval.begin : interval.end]]

    def external(self, interval: Interval) -> list[int]:
        """The values that the interval's ops use before they make them, in the order of use."""
        place = interval.begin, interval.end
        if place not in self._external:
            self._external[place] = self._find_external(interval)
        return self._external[place]

    def unused(self, interval: Interval, values: Iterable[int]) -> list[int]:
        """Those of the values that the interval's ops neither make nor use: constants, parameters and inputs that a module hands on."""
        known = set(self.external(interval))
        for op in self.ops[interval.begin : interval.end]:
            known.update(v for v in op[3] if isinstance(v, int))
        return list(dict.fromkeys(value for value in values if value not in known))

    def uses(self, op: int) -> tuple[int, ...]:
        """The values that an op takes, in the order of its arguments."""
        if self._uses is None:
            self._uses = [tuple(values_in((op[1], op[2]))) for op in self.ops]
        return self._uses[op]

    def _find_external(self, interval: Interval) -> list[int]:
        made: set[int] = set()
        found: dict[int, None] = {}
        for number in range(interval.begin, interval.end):
            for value in self.uses(number):
                if value not in made:
                    found[value] = None
            made.update(v for v in self.ops[number][3] if isinstance(v, int) and v not in found)
        return list(found)


def _interval(entry: Mapping[str, Any], num_ops: int, num_values: int) -> Interval:
    inputs = {str(p): int(v) for p, v in entry["inputs"].items()}
    outputs = {str(p): int(v) for p, v in entry["outputs"].items()}
    captured = {int(v): str(n) for v, n in entry.get("captured", {}).items()}
    begin, end = int(entry["begin"]), int(entry["end"])
    if not 0 <= begin <= end <= num_ops:
        raise ValueError(f"module {entry['name']!r}: ops [{begin}, {end}) of {num_ops}")
    for value in (*inputs.values(), *outputs.values(), *captured):
        if not 0 <= value < num_values:
            raise ValueError(f"module {entry['name']!r}: value {value} of {num_values}")
    return Interval(str(entry["name"]), int(entry["call"]), begin, end, inputs, outputs, captured, entry.get("reason"))


def values_in(argument: Any) -> Iterator[int]:
    if isinstance(argument, dict):
        if "v" in argument:
            yield argument["v"]
        else:
            for inner in argument.values():
                yield from values_in(inner)
    elif isinstance(argument, (list, tuple)):
        for inner in argument:
            yield from values_in(inner)


def load(path: str | os.PathLike[str]) -> list[Program]:
    """The programs of a program.json, or where that was never written of the program.jsonl beside it; an empty list if there is neither.
    FormatError if it is not one."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return _load_lines(f"{os.fspath(path)}l")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{os.fspath(path)}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "porting.program":
        raise FormatError(f"{os.fspath(path)}: not a file of recorded programs")
    if document.get("version") != 1:
        raise FormatError(f"{os.fspath(path)}: version {document.get('version')!r}; this porting reads version 1")
    programs = document.get("programs")
    if not isinstance(programs, list) or not all(isinstance(p, dict) for p in programs):
        raise FormatError(f"{os.fspath(path)}: 'programs' is not a list of objects")
    return [Program(p) for p in programs]


def _load_lines(path: str) -> list[Program]:
    """The programs of a program.jsonl, up to its last whole line."""
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    entries: list[dict[str, Any]] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if "attach" in line:
                entry = entries[_place(line["attach"], entries)]
                entry["calls"].append(int(line["call"]))
                if line["symbols"]:
                    entry["call_symbols"][str(int(line["call"]))] = line["symbols"]
            elif "replace" in line:
                entries[_place(line["replace"], entries)] = dict(line["program"])
            else:
                entries.append(dict(line["program"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"{path}: line {number}: {type(error).__name__}: {error}") from error
    return [Program(entry) for entry in entries]


def _place(place: Any, entries: list[Any]) -> int:
    if not isinstance(place, int) or not 0 <= place < len(entries):
        raise ValueError(f"program {place} of {len(entries)}")
    return place


# ---------------------------------------------------------------- running a captured call


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a module call computed in C.

    Attributes
    ----------
    outputs : leaf path to array, for each captured output leaf that the program makes.
    missing : leaf path to the reason, for the captured output leaves that it does not make.
    values : the extra values asked for, by number, as they stand after the call.
    ops : names of the ops in order.
    program, interval, provider : what was run, and with which provider of matrix products.
    """

    outputs: dict[str, np.ndarray]
    missing: dict[str, str]
    values: dict[int, np.ndarray]
    ops: list[str]
    program: Program
    interval: Interval
    provider: str


def _label(call: Call) -> str:
    return f"{call.module or 'the root'}{f'@{call.number}' if call.number else ''}"


def find_interval(capture: Capture, call: Call) -> tuple[Program, Interval, int]:
    """The program of a captured call, its interval there and the number of the root call that it belongs to.

    Raises NoProgramError if nothing usable was recorded for the call.
    """
    reasons: list[str] = []
    for program in capture.programs:
        root_call = _root_call(capture, program, call)
        if root_call is None:
            continue
        if program.reason:
            reasons.append(program.reason)
            continue
        intervals = program.of_module(call.module)
        if root_call == program.calls[0]:
            found = [i for i in intervals if i.call == call.number]
        else:
            # Call numbers are those of the recorded call; the order within the root call is the same.
            mates = [c.number for c in capture.calls(call.module) if c.step == call.step]
            if len(mates) != len(intervals):
                if intervals:
                    reasons.append(f"{len(mates)} calls in step {call.step}, {len(intervals)} in the program that stands for it")
                continue
            found = [intervals[sorted(mates).index(call.number)]]
        if found:
            if found[0].reason:
                raise NoProgramError(f"{_label(call)}: {found[0].reason}")
            return program, found[0], root_call
    if not capture.programs:
        reasons.append("the capture holds no programs (it was made with program=False, or it is unfinished)")
    raise NoProgramError(f"{_label(call)}: {'; '.join(reasons) or f'no program was recorded for it in step {call.step}'}")


def _root_call(capture: Capture, program: Program, call: Call) -> int | None:
    """Number of the root call of this program that `call` is part of."""
    steps = steps_of_root(capture, program.root)
    for number in program.calls:
        if steps.get(number, number) == call.step and (call.module != program.root or call.number == number):
            return number
    return None


def steps_of_root(capture: Capture, root: str) -> dict[int, int]:
    """Call number to step of a root; empty if the root itself was not captured (then both are equal)."""
    try:
        return {c.number: c.step for c in capture.calls(root)}
    except KeyError:
        return {}


def run_call(
    capture: Capture,
    call: Call,
    *,
    provider: str = "auto",
    profile: str = AS_CAPTURED,
    variant: str | None = None,
    fetch: Iterable[int] = (),
    inputs: Mapping[str, np.ndarray] | None = None,
) -> RunResult:
    """Run the program of one captured module call in C, on its captured inputs or on others.

    Parameters
    ----------
    capture, call : an opened capture and one of its calls.
    provider : where matrix products come from: ``"auto"``, ``"reference"``, ``"openblas"``, ``"torch"``.
    profile : how it is computed (docs/NUMERICS.md): ``"as-captured"``, ``"golden"``, ``"strict"``, ``"tf32"``, ``"bf16"``, ``"f16"``, ``"q8_0"``.
    variant : kernel variant, None for the profile's own choice.
    fetch : further values of the program to return.
    inputs : leaf path to array, in the place of captured inputs; the full name of a captured tensor (`Interval.captured`) is a key too.
        Those not named are the captured ones.

    Raises
    ------
    UnsupportedError : ops without a kernel, by name.
    NoProgramError : nothing was recorded for the call, or it cannot be run alone, or not on these inputs; with the reason.
    """
    program, interval, root_call = find_interval(capture, call)
    chosen = settings(profile, capture.environment, provider)
    core = wide_core(program) if chosen.wide else program.core
    without_kernel = core.missing(interval.begin, interval.end)
    if without_kernel:
        raise UnsupportedError(f"{_label(call)}: no kernel for {', '.join(sorted(set(without_kernel)))}")
    feeds = feeds_of(capture, call, program, interval, inputs)
    unused = set(program.unused(interval, interval.outputs.values()))

    missing: dict[str, str] = {}
    given: dict[str, np.ndarray] = {}
    wanted: dict[str, int] = {}
    for path in call.outputs:
        value = interval.outputs.get(path)
        if value is None:
            missing[path] = "no recorded op made it"
        elif value in unused:
            given[path] = _source(capture, call, program, interval, value, inputs)
        else:
            wanted[path] = value
    if missing and not wanted and not given:
        raise NoProgramError(f"{_label(call)}: no recorded op made its outputs {', '.join(missing)}")

    extra = list(fetch)
    fetches = [*wanted.values(), *extra]
    arrays: Sequence[np.ndarray] = []
    if fetches:
        try:
            arrays = execute(program, interval.begin, interval.end, feeds, fetches, chosen, symbols=program.call_symbols.get(root_call, []),
                             **({} if variant is None else {"variant": variant}))
        except ValueError as error:  # a shape, or a number that the model read out of a tensor, is another one here
            if root_call == program.calls[0]:
                raise
            raise NoProgramError(
                f"{_label(call)}: the program that was recorded in call {program.calls[0]} of {program.root or 'the root'} does not stand for"
                f" this call: {error}. Capture with program='all'"
            ) from error
    made = dict(zip(wanted, arrays))
    outputs = {path: made[path] if path in made else given[path] for path in call.outputs if path not in missing}
    values = dict(zip(extra, arrays[len(wanted) :]))
    return RunResult(outputs, missing, values, program.op_names(interval), program, interval, provider)


def execute(program: Program, begin: int, end: int, feeds: Mapping[int, np.ndarray], fetches: Sequence[int], ways: Settings, **options: Any) -> Any:
    """`_core.Program.run` of some ops under a profile; `options` are further arguments of it, and override the profile's."""
    core = wide_core(program) if ways.wide else program.core
    fed = {value: widen_array(array) for value, array in feeds.items()} if ways.wide else feeds
    found = core.run(begin, end, fed, fetches, **{**ways.options, **options})
    if not ways.wide:
        return found
    arrays = [rounded_once(array, _dtype_of(program, value)) for value, array in zip(fetches, found[0] if "expects" in options else found)]
    return (arrays, found[1]) if "expects" in options else arrays


def _dtype_of(program: Program, value: int) -> np.dtype:
    """The recorded dtype of a value."""
    name = program.values[value][0]
    return np.dtype(ml_dtypes.bfloat16 if name == "BF16" else NARROW.get(name, "float64"))


def feeds_of(capture: Capture, call: Call, program: Program, interval: Interval,
             inputs: Mapping[str, np.ndarray] | None = None, without: Iterable[int] = (), asked: Iterable[int] = ()) -> dict[int, np.ndarray]:  # fmt: skip
    """Value number to array, for all that the interval's ops use and do not make, and what is `asked` for and no op has, `without` some.
    `inputs` as `run_call` has it."""
    others = set(without)
    needed = [*program.external(interval), *program.unused(interval, asked)]
    return {value: _source(capture, call, program, interval, value, inputs) for value in needed if value not in others}


def feed(feeds: dict[int, np.ndarray], value: int, name: str, array: np.ndarray) -> None:
    """Adds an input to the feeds of a run. NoProgramError: it is the same value as another one, and has other content."""
    known = feeds.setdefault(value, array)
    if known is not array and not np.array_equal(known, array):
        raise NoProgramError(f"{name} was the same tensor as another argument when it was recorded, and is not here")


def _source(capture: Capture, call: Call, program: Program, interval: Interval, value: int,
            inputs: Mapping[str, np.ndarray] | None = None) -> np.ndarray:  # fmt: skip
    """A value that the interval's ops did not make: leaf of the call's inputs, captured tensor, constant or parameter."""
    replaced = _replacement(capture, call, interval, value, inputs) if inputs else None
    if replaced is not None:
        return replaced
    name = source_name(capture, call, program, interval, value)
    return with_strides(capture.parameters[name[len("param:"):]] if name.startswith("param:") else capture[name], capture, name)


def source_name(capture: Capture, call: Call, program: Program, interval: Interval, value: int) -> str:
    """The name of the captured tensor that a value of an interval is which its ops did not make: the full name of a leaf of the call's
    inputs, of a captured tensor or a constant, or "param:" and a parameter's path.

    Raises NoProgramError if that is not in the capture.
    """
    leaves = [path for path, number in interval.inputs.items() if number == value]
    for path in leaves:
        if path in call.inputs:
            return call.full_name("in", path)
    if leaves:
        raise NoProgramError(f"{_label(call)}: its input {leaves[0]} is not in the capture")
    name = interval.captured.get(value) or program.constants.get(value)
    if name is not None:
        if name in capture:
            return name
        raise NoProgramError(f"{_label(call)}: it uses {name}, which is not in the capture")
    name = program.parameters.get(value)
    if name is None:
        raise NoProgramError(f"{_label(call)}: value {value} of its program has no source")
    if name not in capture.parameters:
        why = capture.parameters.why_absent
        raise NoProgramError(f"{_label(call)}: it uses {name}, {f'but {why}' if why else 'which is not in the capture'}")
    return f"param:{name}"


def _replacement(capture: Capture, call: Call, interval: Interval, value: int, inputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The array given for a value, laid out as the captured one was; None if none is given."""
    names = {path: call.full_name("in", path) for path, number in interval.inputs.items() if number == value and path in inputs}
    reached = interval.captured.get(value)
    if not names and reached is not None and reached in inputs:
        names = {reached: reached}
    found = None
    for key, name in names.items():
        array, expected = inputs[key], capture[name]
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise NoProgramError(f"{_label(call)}: input {key}: expected {expected.dtype.name} {list(expected.shape)},"
                                 f" got {array.dtype.name} {list(array.shape)}: a program runs at the sizes it was recorded at; porting.Engine runs other sizes if the capture was made with sizes=True, or has two runs of different sizes")  # fmt: skip
        if found is not None and not np.array_equal(found, array, equal_nan=array.dtype.kind == "f"):
            raise NoProgramError(f"{_label(call)}: the inputs {', '.join(names)} are one tensor in its program, and differ here")
        found = with_strides(array, capture, name)
    return found


def with_strides(array: np.ndarray, capture: Capture, name: str) -> np.ndarray:
    """The array laid out as the run had it: the order in which memory is walked can decide the bits."""
    try:
        info = capture.info(name)
    except KeyError:
        return array
    return lay_out(array, info[2] if isinstance(info, tuple) else info.strides)


# ---------------------------------------------------------------- what a module computes

_MOVES = frozenset(
    "view _unsafe_view reshape _reshape_alias t transpose permute unsqueeze squeeze expand slice select split split_with_sizes chunk unbind"
    " cat stack alias detach clone copy_ contiguous as_strided _to_copy lift_fresh empty empty_like zeros ones full zeros_like"
    " ones_like new_empty new_zeros new_ones full_like arange narrow repeat diagonal flip roll index_copy_ constant_pad_nd"
    " index_select gather".split()
)
_MATMULS = frozenset("addmm mm bmm baddbmm linear matmul mv addmv dot convolution mkldnn_linear mkldnn_rnn_layer".split())
_ACTIVATIONS = frozenset(
    "gelu silu relu tanh sigmoid leaky_relu elu selu softplus mish hardswish hardsigmoid hardtanh clamp clamp_min relu_ silu_"
    " erf log_sigmoid_forward _prelu_kernel threshold glu".split()
)
_POINTWISE = frozenset("add add_ mul mul_ div div_ sub sub_ pow neg rsub".split())


def kind_of(program: Program, interval: Interval, class_name: str = "") -> str:
    """What a module call computes, from its ops: linear, embedding, layer_norm, rms_norm, activation, attention, softmax, move,
    constant (no op at all: the program holds what it returns) or composite. The class's name only separates attention from larger modules that contain it."""
    names = tuple(program.op_names(interval))
    if not names and interval.outputs and all(value in program.constants for value in interval.outputs.values()):
        return "constant"
    return _kind_of_ops(names, "attention" in class_name.lower())


@lru_cache(maxsize=1024)
def _kind_of_ops(names: tuple[str, ...], called_attention: bool) -> str:
    work = [op for op in map(base_name, names) if op not in _MOVES]
    if not work:
        return "move"
    kinds = set(work)
    matmuls = [op for op in work if op in _MATMULS]
    fused = any("scaled_dot_product" in op for op in work)
    softmax = bool(kinds & {"_softmax", "_safe_softmax"})
    activations = kinds & _ACTIVATIONS
    if (fused or (softmax and len(matmuls) >= 2)) and (not activations or called_attention):
        return "attention"
    if len(matmuls) == 1 and kinds <= _MATMULS | {"add", "add_"}:
        return "linear"
    if not matmuls and not fused:
        if kinds == {"embedding"}:
            return "embedding"
        if kinds == {"native_layer_norm"}:
            return "layer_norm"
        if kinds & {"_fused_rms_norm", "rms_norm"} or ("mean" in kinds and kinds & {"rsqrt", "sqrt"} and kinds & {"pow", "mul"}
                                                      and not kinds & {"embedding"} and work.count("mean") == 1):  # fmt: skip
            return "rms_norm"
        if softmax and len(kinds) == 1:
            return "softmax"
        if activations and kinds <= _ACTIVATIONS | _POINTWISE:
            return "activation"
    return "composite"


def is_move(name: str) -> bool:
    """Whether the op called `name` (its base name) only copies or looks at elements."""
    return name in _MOVES


def base_name(name: str) -> str:
    """"addmm" of "aten.addmm.default"."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else name
