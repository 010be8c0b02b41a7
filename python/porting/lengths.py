"""Two captured calls of a model at different sizes as one program for every size on the line through both.

A number among the arguments of an op follows the inputs' size if it differs between the two; one that is equal in both doesn't. That is
all that is known: a branch that Python would take at some third size alone is not seen. It runs nothing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .merging import depends_on_data, merge
from .program import Program, base_name, values_in

if TYPE_CHECKING:
    from .program import Interval
    from .roots import RootCall

__all__ = ["DifferentProgramsError", "between"]

_NAME = "n"


class DifferentProgramsError(ValueError):
    """Two calls did not execute the same ops but for sizes on a line; the text says where they part."""


def between(first: RootCall, second: RootCall) -> tuple[RootCall, RootCall]:
    """Both calls, as calls of one program whose symbol `n` is the first size of the inputs that differs.

    DifferentProgramsError: there is no such program.
    """
    sizes = _sizes(first, second)
    entries = [_entry(root, size) for root, size in zip((first, second), sizes)]
    _same_tensors(first, second, entries[0], entries[1], "constants")
    _same_tensors(first, second, entries[0]["modules"][0], entries[1]["modules"][0], "captured")
    # One that returned a number (a fifth entry) is compared when it runs.
    depends = next((op[0] for op in entries[0]["ops"] if len(op) == 4 and depends_on_data(base_name(op[0]), (entries[0]["values"][v][0] for v in values_in(op[1][1:])))), None)
    if depends is not None:
        raise DifferentProgramsError(f"sizes in it depend on the data ({depends})")
    ops = merge(*entries)
    if ops is None:
        raise DifferentProgramsError(_first_difference(*entries))
    program = Program({**entries[0], "ops": ops, "calls": [first.number, second.number],
                       "call_symbols": {str(first.number): [sizes[0]], str(second.number): [sizes[1]]}})  # fmt: skip
    return _of_program(first, program), _of_program(second, program)


def _own(root: RootCall) -> tuple[Interval, Any]:
    assert root.own is not None
    return root.own


def _sizes(first: RootCall, second: RootCall) -> tuple[int, int]:
    mine, theirs = _own(first)[1].inputs, _own(second)[1].inputs
    if mine.keys() != theirs.keys() or any(a.dtype != theirs[leaf].dtype or a.ndim != theirs[leaf].ndim for leaf, a in mine.items()):
        raise DifferentProgramsError("their inputs are not alike")
    pairs = [(x, y) for leaf, a in mine.items() for x, y in zip(a.shape, theirs[leaf].shape) if x != y]
    if not pairs:
        raise DifferentProgramsError("their inputs have the same sizes")
    return pairs[0]


def _entry(root: RootCall, size: int) -> dict[str, Any]:
    interval, _ = _own(root)
    module = {"name": interval.name, "call": 0, "begin": interval.begin, "end": interval.end, "inputs": interval.inputs, "outputs": interval.outputs,
              "captured": {str(v): name for v, name in interval.captured.items()}}  # fmt: skip
    return {"root": root.program.root, "calls": [root.number], "symbols": [_NAME], "recorded_symbols": [size], "values": root.program.values,
            "ops": root.program.ops, "parameters": {str(v): n for v, n in root.program.parameters.items()},
            "constants": {str(v): n for v, n in root.program.constants.items()}, "modules": [module]}  # fmt: skip


def _same_tensors(first: RootCall, second: RootCall, mine: dict[str, Any], theirs: dict[str, Any], kind: str) -> None:
    """Gives equal content the same name; DifferentProgramsError if some is not equal."""
    a, b = mine[kind], theirs[kind]
    if a.keys() != b.keys():
        raise DifferentProgramsError("other values come from outside their ops")
    for value, name in a.items():
        x, y = first.capture[name], second.capture[b[value]]
        if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
            raise DifferentProgramsError(f"a tensor that neither is an input nor was computed by its ops is another one: {name} and {b[value]}")
    theirs[kind] = dict(a)


def _first_difference(a: dict[str, Any], b: dict[str, Any]) -> str:
    for number, (x, y) in enumerate(zip(a["ops"], b["ops"])):
        if x[0] != y[0]:
            return f"op {number} is {x[0]} in one and {y[0]} in the other"
        if merge({**a, "ops": [x]}, {**b, "ops": [y]}) is None:
            return f"the arguments of op {number} {x[0]} differ by more than sizes on a line"
    return f"one has {len(a['ops'])} ops, the other {len(b['ops'])}"


def _of_program(root: RootCall, program: Program) -> RootCall:
    return dataclasses.replace(root, program=program, calls=((program.intervals[0], _own(root)[1]),))

