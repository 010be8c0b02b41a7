"""The whole program of a root call in C: from the model's inputs and parameters to what it returns, with every module call on the way.

One pass shows of most module calls at once what running each alone would show (`shown_exact`), and what becomes of the model's inputs when no
captured value is given on the way (`run`). Nothing here judges.
"""
from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import LayerNotFoundError, PortingError, UnsupportedError
from .capture import open as open_capture
from .naming import split_name
from .port import as_array
from .profiles import AS_CAPTURED, Settings, settings
from .program import NoProgramError, Program, execute, feeds_of
from .providers import use_provider
from .roots import RootCall, by_parameter, root_calls

if TYPE_CHECKING:
    from .capture import Call, Capture
    from .program import Interval

__all__ = ["WholeRun", "outputs_of_calls", "run", "shown_exact"]


@dataclasses.dataclass(frozen=True)
class WholeRun:
    """What a root call computed in C from its inputs and parameters alone.

    outputs : leaf path to array, of the root. tensors : full name to array, of what else was asked for. root, number : of the call.
    provider : of matrix products.
    """

    outputs: dict[str, np.ndarray]
    tensors: dict[str, np.ndarray]
    root: str
    number: int
    provider: str


def run(capture: Any, call: int = 0, *, root: str | None = None, inputs: Mapping[str, np.ndarray] | None = None, fetch: Iterable[str] = (),
        profile: str = AS_CAPTURED, provider: str = "auto") -> WholeRun:
    """Run one captured call of the model in C, from its inputs and parameters alone.

    Parameters
    ----------
    capture : path or Capture
    call : number of the root module's call
    root : name of the root, where there are several; None: the first
    inputs : leaf path, or parameter name, to an array of the captured shape and dtype, in the place of the captured input
    fetch : full names of further tensors to return, as the run has them: inputs and outputs of modules, and results of ops
        ("model.layers.0.mlp.op.3.aten.mm.default.out.0", which need not be in the capture)
    profile, provider : as `check` has them

    Raises
    ------
    NoProgramError, UnsupportedError : it cannot be run: nothing was recorded, a tensor is missing, an op has no kernel
    LayerNotFoundError : a name in `fetch` is none of this call's
    """
    if not isinstance(call, int):
        raise PortingError(f"run: call is the number of a captured call, got {type(call).__name__}; arrays of your own go into inputs={{name: array}}")
    chosen, _ = use_provider(provider)
    opened = capture if hasattr(capture, "call_list") else open_capture(capture)
    try:
        found = _root_call(opened, call, root)
        ways = settings(profile, opened.environment, provider)
        names, points = list(fetch), _points(found)
        unknown = [name for name in names if _point(found, points, name) is None]
        if unknown:
            raise LayerNotFoundError(f"{unknown[0]}: no tensor of call {call} of {found.program.root or 'the root'} that its program makes")
        interval, own = found.own
        wanted = {path: value for path, value in interval.outputs.items() if path in own.outputs}
        at = {name: _point(found, points, name) for name in names}
        feeds = _feeds(found, [*wanted.values(), *(value for value, _ in at.values())], inputs)
        tensors = {name: np.array(feeds[value]) for name, (value, op) in at.items() if op < interval.begin and value in feeds}
        others = [name for name in at if name not in tensors]
        arrays = _run(found, feeds, [*wanted.values(), *(at[name][0] for name in others)], [-1] * len(wanted) + [at[name][1] for name in others], ways)
        tensors.update(zip(others, arrays[len(wanted):]))
        return WholeRun(dict(zip(wanted, arrays)), {name: tensors[name] for name in names}, found.program.root, call, chosen)
    finally:
        if opened is not capture:
            opened.close()


def _root_call(capture: Capture, number: int, root: str | None) -> RootCall:
    name = capture.root if root is None else capture.resolve_module(root)
    for found in root_calls(capture):
        if found.program.root == name and found.number == number:
            if found.own is None:
                raise NoProgramError(f"call {number} of {name or 'the root'} was not captured, or did not return: it cannot be run as a whole")
            return found
    reasons = {program.reason for program in capture.programs if program.reason}
    raise NoProgramError(f"no program was recorded for call {number} of {name or 'the root'}{': ' if reasons else ''}{'; '.join(reasons)}")


def _feeds(root: RootCall, asked: Iterable[int], inputs: Mapping[str, np.ndarray] | None = None) -> dict[int, np.ndarray]:
    interval, call = root.own
    given = {}
    if inputs is not None and not isinstance(inputs, Mapping):
        raise PortingError(f"run: inputs is a mapping of {', '.join(by_parameter(call, leaf) for leaf in interval.inputs)} to arrays, got {type(inputs).__name__}")
    for key, array in (inputs or {}).items():
        leaf = next((leaf for leaf in interval.inputs if leaf == key or by_parameter(call, leaf) == key), None)
        if leaf is None:
            raise LayerNotFoundError(f"{root.program.root or 'the root'} has no input {key}; it has {', '.join(by_parameter(call, l) for l in interval.inputs)}")
        given[leaf] = as_array(array, f"input {key}")
    return feeds_of(root.capture, call, root.program, interval, given or None, asked=asked)


def _run(root: RootCall, feeds: Mapping[int, np.ndarray], values: Sequence[int], at: Sequence[int], ways: Settings, **options: Any) -> Any:
    program, (interval, _) = root.program, root.own
    missing = program.core.missing(interval.begin, interval.end)
    if missing:
        raise UnsupportedError(f"{program.root or 'the root'}: no kernel for {', '.join(sorted(set(missing)))}")
    try:
        return execute(program, interval.begin, interval.end, feeds, list(values), ways, fetch_at=list(at), symbols=root.symbols, **options)
    except ValueError as error:
        if root.recorded:
            raise
        raise NoProgramError(f"the program that was recorded in call {program.calls[0]} of {program.root or 'the root'} does not stand for call"
                             f" {root.number}: {error}. Capture with program='all'") from error


# ---------------------------------------------------------------- where a tensor is in a run


def _points(root: RootCall) -> dict[str, tuple[int, int]]:
    """Full name to (value, op after which it is that), of every module call inside."""
    points = {}
    for interval, call in root.calls:
        for phase, leaves, op in (("in", interval.inputs, interval.begin - 1), ("out", interval.outputs, interval.end - 1)):
            for leaf, value in leaves.items():
                points.setdefault(call.full_name(phase, leaf), (value, op))
    return points


def _point(root: RootCall, points: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int] | None:
    if name in points:
        return points[name]
    module, number, phase, leaf = split_name(name)
    parts = leaf.split(".")
    if phase != "op" or len(parts) < 4 or parts[-2] != "out" or not parts[0].isdecimal() or not parts[-1].isdecimal():
        return None
    for interval, call in root.calls:
        op = interval.begin + int(parts[0])
        if (call.module, call.number) == (module, number) and op < interval.end and root.program.ops[op][0] == ".".join(parts[1:-2]):
            outputs, place = root.program.ops[op][3], int(parts[-1])
            return (outputs[place], op) if place < len(outputs) and isinstance(outputs[place], int) else None
    return None


# ---------------------------------------------------------------- one pass for all module calls


def shown_exact(root: RootCall, ways: Settings) -> set[tuple[str, int]]:
    """Module calls (module, number) of which one run of the whole program shows that their programs give the captured bits on the
    captured inputs: all that they used had these bits when they began, what they returned had them when they ended, and nothing inside was put
    right. A module that comes out different is put right, so that those after it are still run on the captured values.

    Empty if the root cannot be run; what is not in it has to be run alone.
    """
    if root.own is None or ways.wide:
        return set()
    try:
        expects: list[tuple[int, int, np.ndarray]] = []
        claims = []
        for interval, call in root.calls:
            first = len(expects)
            wanted = _expected_of(root, interval, call)
            if wanted is not None:
                expects += wanted
                claims.append((interval, call, range(first, len(expects))))
        if not claims:
            return set()
        order = sorted(range(len(expects)), key=lambda k: expects[k][1])
        _, answers = _run(root, _feeds(root, [value for value, _, _ in expects]), [], [], ways, expects=[expects[k] for k in order], restore=True)
    except (PortingError, ValueError, KeyError, MemoryError):
        return set()
    same = [False] * len(expects)
    for k, answer in zip(order, answers):
        same[k] = answer
    put_right = sorted(expects[k][1] for k in range(len(expects)) if not same[k])
    return {(call.module, call.number) for interval, call, places in claims
            if all(same[k] for k in places) and bisect.bisect_left(put_right, interval.begin) == bisect.bisect_left(put_right, interval.end)}


def _expected_of(root: RootCall, interval: Interval, call: Call) -> list[tuple[int, int, np.ndarray]] | None:
    """What a module call's inputs and outputs have to be; None if one run of the whole cannot show it."""
    if interval.reason or not call.returned or any(path not in interval.outputs for path in call.leaf_ids("out")):
        return None
    capture, found, before = root.capture, [], interval.begin - 1
    ids = call.leaf_ids("in")
    for value, paths, name in _sources(root.program, interval):
        if paths:
            leaf = next((ids[path] for path in paths if path in ids), None)
            if leaf is None:
                return None
            found.append((value, before, capture.tensor_by_id(leaf)))
        else:
            found.append((value, before, capture[name]))
    for path, tensor in call.leaf_ids("out").items():
        found.append((interval.outputs[path], interval.end - 1, capture.tensor_by_id(tensor)))
    return found


def _sources(program: Program, interval: Interval) -> list[tuple[int, list[str], str]]:
    """(value, paths of the inputs that it is, else name of the captured tensor or constant) of all that an interval uses; a parameter is
    fed as it is: one that is changed in the call is a constant."""
    key = interval.begin, interval.end, interval.name, interval.call
    if key not in program.sources:
        found = []
        for value in program.external(interval):
            paths = [path for path, number in interval.inputs.items() if number == value]
            name = interval.captured.get(value) or program.constants.get(value)
            if paths or name or value not in program.parameters:
                found.append((value, paths, name or ""))
        program.sources[key] = found
    return program.sources[key]


def outputs_of_calls(root: RootCall, ways: Settings) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """(module, number) to its outputs by leaf path, of every module call, as one run of the whole gives them; the captured array itself where
    the bits are the same. A leaf that the program does not make is left out.

    Raises NoProgramError, UnsupportedError, ValueError where it cannot be run.
    """
    points = [(call, path, interval.outputs[path], interval.end - 1) for interval, call in root.calls
              for path in call.outputs if path in interval.outputs]
    points.sort(key=lambda point: point[3])
    feeds = _feeds(root, [value for _, _, value, _ in points])
    _, same = _run(root, feeds, [], [], ways, expects=[(value, op, call.outputs[path]) for call, path, value, op in points])
    others = [point for point, is_same in zip(points, same) if not is_same]
    arrays = iter(_run(root, feeds, [p[2] for p in others], [max(p[3], root.own[0].begin) for p in others], ways) if others else ())
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for (call, path, *_), is_same in zip(points, same):
        found.setdefault((call.module, call.number), {})[path] = call.outputs[path] if is_same else next(arrays)
    return found
