"""`porting.explain`: from a captured module call, or a torch module with inputs, to a `Case` and its `Diagnosis`."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops_table
from .. import program as programs
from .._core import PortingError, ShapeError
from ..capture import open as open_capture
from ..port import as_array, to_torch
from ..profiles import AS_CAPTURED, settings
from ..providers import use_provider
from . import Diagnosis, diagnose
from .case import Case, Op, is_float

if TYPE_CHECKING:
    from ..capture import Call, Capture


def explain(reference: Any, actual: Any, *, inputs: Any = None, capture: Capture | str | os.PathLike[str] | None = None, call: int = 0) -> Diagnosis:
    """Why a port of one module differs from the reference.

    Parameters
    ----------
    reference : a captured module's name or, in a capture with level="op", an op's ("layers.0.mlp.op.3.aten.mm.default"; then `capture` is
        needed), a captured `Call`, a torch module or a function that computes with torch
        (then `inputs` is needed: a tuple of positional arguments or a dict of keyword arguments), or a `porting.program.Program` (then `inputs` is a
        tuple of its root's inputs, or a dict: leaf path of the program's root to array, and parameter or constant name to array; `capture` gives those
        that are not in it).
    actual : what the port returned for the same inputs: an array (the module's only output), a sequence in the order of the module's
        outputs, or a dict of leaf path to array. Torch tensors are taken too.
    inputs : for a torch module: its inputs. For a captured module: dict of leaf path to array with the inputs that the port really got,
        if they are not the captured ones.
    capture : the capture that `reference` names a module of, or its path.
    call : number of the call.

    Raises
    ------
    UnsupportedError, NoProgramError : the module's program cannot be run.
    ShapeError : an output has another shape than the reference's; the sentence names both.
    """
    if isinstance(capture, (str, os.PathLike)):
        with contextlib.closing(open_capture(capture)) as opened:
            return explain(reference, actual, inputs=inputs, capture=opened, call=call)
    if isinstance(reference, str):
        if capture is None:
            raise ValueError(f"explain({reference!r}, ...): a module's name needs capture=")
        if reference not in capture.modules:
            from .single import case_of_op, find_op

            op = find_op(capture, reference, call)
            if op is not None:
                return diagnose(case_of_op(*op, actual))
        found = next((c for c in capture.calls(reference) if c.number == call), None)
        if found is None:
            raise PortingError(f"{reference} has no call {call} in the capture")
        return diagnose(case_of_call(capture, found, actual, inputs))
    if hasattr(reference, "outputs") and hasattr(reference, "module") and capture is not None:
        return diagnose(case_of_call(capture, reference, actual, inputs))
    if isinstance(reference, programs.Program):
        return diagnose(case_of_program(reference, actual, _by_path(reference, inputs), capture))
    if callable(reference) and inputs is not None:
        return explain_module(reference, actual, inputs)
    raise TypeError(
        f"explain: reference is a captured module's name with capture=, a torch module or a Program with inputs=; got {type(reference).__name__}"
        + (" without inputs=" if callable(reference) else "")
    )


def _by_path(program: programs.Program, inputs: Any) -> Mapping[str, Any]:
    """Inputs of a program's root by leaf path, from a mapping or in the order of its leaves."""
    if inputs is None or isinstance(inputs, Mapping):
        return inputs or {}
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    paths = [path for interval in programs_of_root(program) for path in interval.inputs]
    if len(given) > len(paths):
        raise PortingError(f"explain: {len(given)} inputs given, the program of {program.root or 'the root'} has {len(paths)}: {', '.join(paths) or 'none'}")
    return dict(zip(paths, given, strict=False))


def programs_of_root(program: programs.Program) -> list[programs.Interval]:
    """The entry of the program's root, none if it has none."""
    return list(program.of_module(program.root))[:1]


def explain_module(module: Any, actual: Any, inputs: Any) -> Diagnosis:
    """Captures one run of the module and diagnoses against it."""
    if isinstance(inputs, Mapping):
        return explain_run(module, actual, (), {name: _tensor(value) for name, value in inputs.items()})
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    return explain_run(module, actual, tuple(map(_tensor, given)), {})


def _tensor(value: Any) -> Any:
    return to_torch(value) if isinstance(value, np.ndarray) else value


def explain_run(module: Any, actual: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Diagnosis:
    """`explain_module` for the arguments of one call."""
    from ..hooks import ActivationCollector
    from ..modules import find_roots, function_module

    try:
        find_roots(module, None)
    except TypeError:  # a function
        module = function_module(module)
    _, capture = ActivationCollector(module, program="all", weights=True)(*args, **kwargs)
    try:
        return diagnose(case_of_call(capture, capture.calls(capture.root)[0], actual, None))
    finally:
        capture.close()


def actual_leaves(actual: Any, call: Call, expected: Mapping[str, np.ndarray], paths: list[str], phase: str = "out") -> dict[str, np.ndarray]:
    """The port's tensors by the leaf paths of a phase of the captured call; `paths` are those that it may give."""
    leaves = by_leaf(actual, call.module, paths)
    for path, array in leaves.items():
        if array.shape != expected[path].shape:
            raise ShapeError(f"{call.full_name(phase, path)}: expected shape {expected[path].shape}, got {array.shape}")
    return leaves


def by_leaf(actual: Any, module: str, paths: list[str]) -> dict[str, np.ndarray]:
    """What a port returned, by the leaf paths of the reference's outputs: by name or by order."""
    if isinstance(actual, Mapping):
        leaves = {str(k): as_array(v) for k, v in actual.items()}
        unknown = [k for k in leaves if k not in paths]
        if unknown:
            raise PortingError(f"{module}: no output {unknown[0]!r}; the captured outputs are {', '.join(paths)}")
    else:
        given = list(actual) if isinstance(actual, (list, tuple)) else [actual]
        if len(given) > len(paths):
            raise PortingError(f"{module}: {len(given)} outputs given, {len(paths)} captured")
        leaves = {p: as_array(v) for p, v in zip(paths, given, strict=False)}
    return leaves


def resolve(arg: Any, names: Mapping[str, int]) -> Any:
    """A symbolic integer as the number it is in this call."""
    if isinstance(arg, dict):
        if "sym" in arg:
            return arg["sym"][0] + sum(factor * names[name] for factor, name in arg["sym"][1])
        return {k: resolve(v, names) for k, v in arg.items()}
    return [resolve(a, names) for a in arg] if isinstance(arg, list) else arg


def case_of_call(capture: Capture, call: Call, actual: Any, inputs: Mapping[str, Any] | None) -> Case:
    """The program of the call with its feeds; the port's own inputs replace the captured ones where given."""
    use_provider("auto")
    program, interval, root_call = programs.find_interval(capture, call)
    missing = program.core.missing(interval.begin, interval.end)
    if missing:
        raise programs.UnsupportedError(f"{call.module}: no kernel for {', '.join(sorted(set(missing)))}")
    symbols = dict(zip(program.symbols, program.call_symbols.get(root_call, []), strict=False))
    external = program.external(interval)
    leaves = {v: f"in.{p}" for p, v in interval.inputs.items() if v in external}
    outputs = {p: v for p, v in interval.outputs.items() if p in call.outputs}
    feeds = {v: programs._source(capture, call, program, interval, v) for v in {*external, *(v for v in outputs.values() if v in interval.inputs.values())}}
    for path, value in (inputs or {}).items():
        number = interval.inputs.get(path)
        if number in feeds:
            feeds[number] = as_array(value)
    return Case(
        module=call.module or "the root",
        values=resolve(program.values, symbols),
        ops=[Op.from_json(resolve(op, symbols)) for op in program.ops[interval.begin : interval.end]],
        feeds=feeds,
        parameters={v: n for v, n in program.parameters.items() if v in external and v not in leaves},
        outputs=outputs,
        expected=dict(call.outputs),
        actual={p: a for p, a in actual_leaves(actual, call, call.outputs, list(call.outputs)).items() if p in outputs},
        profile=settings(AS_CAPTURED, capture.environment).options,
        neighbours=capture.parameters,
        others=lambda: other_tensors(capture, call),
        leaves=leaves,
        inner=inner_modules(program, interval),
    )


def case_of_program(program: programs.Program, actual: Any, inputs: Mapping[str, Any], capture: Capture | None) -> Case:
    """A recorded program by itself: its root's outputs for these inputs are what the port's are held against."""
    use_provider("auto")
    interval = next(iter(programs_of_root(program)), None)
    if interval is None or program.reason or interval.reason:
        raise programs.NoProgramError(f"{program.root or 'the root'}: {program.reason or (interval and interval.reason) or 'the program has no entry for its root'}")
    symbols = dict(zip(program.symbols, program.call_symbols.get(program.calls[0], []), strict=False))
    external = program.external(interval)
    names = {v: path for path, v in interval.inputs.items()}
    feeds = {}
    for v in dict.fromkeys([*external, *(v for v in interval.outputs.values() if v in names)]):
        name = names.get(v) or interval.captured.get(v) or program.constants.get(v) or program.parameters.get(v) or f"value {v}"
        if name in inputs:
            feeds[v] = as_array(inputs[name])
        elif capture is not None and v not in names and (name in capture.parameters or name in capture):
            feeds[v] = capture.parameters[name] if name in capture.parameters else capture[name]
        else:
            raise PortingError(f"explain: the program of {program.root or 'the root'} needs {name!r}; give it in inputs={'' if v in names else ', or the capture'}")
    missing = {op[0] for op in program.ops[interval.begin : interval.end] if not ops_table.has_handler(op[0])}
    if missing:
        raise programs.UnsupportedError(f"{program.root or 'the root'}: no kernel for {', '.join(sorted(missing))}")
    profile = settings(AS_CAPTURED, capture.environment).options if capture is not None else {"provider": "auto"}
    case = Case(
        module=program.root or "the root", values=resolve(program.values, symbols),
        ops=[Op.from_json(resolve(op, symbols)) for op in program.ops[interval.begin : interval.end]],
        feeds=feeds, parameters={v: n for v, n in program.parameters.items() if v in external and v not in names}, outputs=dict(interval.outputs), expected={},
        actual=by_leaf(actual, program.root, list(interval.outputs)), profile=profile,
        neighbours=capture.parameters if capture is not None else inputs_of(inputs),
        leaves={v: f"in.{p}" for v, p in names.items() if v in external}, inner=inner_modules(program, interval),
    )  # fmt: skip
    case.outputs = {leaf: v for leaf, v in case.outputs.items() if leaf in case.actual}
    case.expected = case.reference()
    for leaf, array in case.actual.items():
        if array.shape != case.expected[leaf].shape:
            raise ShapeError(f"{case.module}: output {leaf}: expected shape {case.expected[leaf].shape}, got {array.shape}")
    return case


def inputs_of(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: as_array(value) for name, value in inputs.items()}


def inner_modules(program: programs.Program, interval: programs.Interval) -> list[tuple[int, int, str]]:
    """[begin, end) of the modules inside, counted from the first op of the interval, with their names."""
    return [(i.begin - interval.begin, i.end - interval.begin, i.name) for i in program.intervals
            if interval.begin <= i.begin and i.end <= interval.end and i.begin < i.end and i.name != interval.name]


def other_tensors(capture: Capture, call: Call) -> dict[str, np.ndarray]:
    """Captured floating tensors of the same step, for 'the output is some other tensor'."""
    found: dict[str, np.ndarray] = {}
    for other in capture.call_list:
        if other.step != call.step:
            continue
        for phase, leaves in (("in", other.inputs), ("out", other.outputs)):
            if other is call and phase == "out":
                continue
            for path, array in leaves.items():
                if is_float(array):
                    found[other.full_name(phase, path)] = array
    return found
