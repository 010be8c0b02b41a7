"""The diagnosis of one op, by itself: its program is the op with its operands, as a capture with level="op" holds them."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import PortingError
from ..op_level import CapturedOp, Lookup, OpRuns, ops_of
from ..port import as_array
from ..profiles import AS_CAPTURED, settings
from ..providers import use_provider
from . import Diagnosis, diagnose
from .case import Case, Op
from .explain import actual_leaves, other_tensors, resolve

if TYPE_CHECKING:
    from ..capture import Capture


def find_op(capture: Capture, name: str, call: int = 0) -> tuple[OpRuns, CapturedOp] | None:
    """The captured op of a label ("model.layers.0.mlp.op.3.aten.mm.default") in call `call` of its module, or of the full name of one of its tensors."""
    if ".aten." not in name or not any(len(c.leaf_ids("op")) for c in capture.call_list):
        return None
    for runs, op in ops_of(capture):
        if (op.label == name and op.call.number == call) or any(op.call.full_name("op", leaf) == name for leaf in op.outputs):
            return runs, op
    return None


def case_of_op(runs: OpRuns, op: CapturedOp, actual: Any, lookup: Lookup | None = None) -> Case:
    """The op on what it was given, in the captured run or, with `lookup`, in the port's, and the port's results of it.

    actual : array, sequence or dict of leaf path to array. Raises ShapeError, and what `OpRuns.operands` raises.
    """
    use_provider("auto")
    capture, program = runs.capture, op.root.program
    operands = runs.operands(op, lookup)
    symbols = dict(zip(program.symbols, op.root.symbols, strict=False))
    parameters = {v: name.removeprefix("param:") for v, name in operands.names.items() if name.startswith("param:")}
    leaves = actual_leaves(actual, op.call, op.call.op_tensors, list(op.outputs), "op")
    return Case(
        module=op.label,
        values=resolve(program.values, symbols),
        ops=[Op.from_json(resolve(program.ops[number], symbols)) for number in operands.only],
        feeds=operands.feeds,
        parameters=parameters,
        outputs={leaf: v for leaf, v in op.outputs.items() if leaf in leaves},
        expected={leaf: op.call.op_tensors[leaf] for leaf in leaves},
        actual=leaves,
        profile=settings(AS_CAPTURED, capture.environment).options,
        neighbours=capture.parameters,
        others=lambda: other_tensors(capture, op.call),
        leaves={v: name for v, name in operands.names.items() if v not in parameters},
        positions=[number - op.interval.begin for number in operands.only],
    )


def cause_of_op(capture: Capture, port: Mapping[str, Any], row: Any, translate: Any) -> Diagnosis | None:
    """The diagnosis of the op of a row of `compare(level="op")`, on the operands that the port had. None if the port holds no result of it."""
    found = find_op(capture, row.name)
    if found is None:
        return None
    runs, op = found

    def lookup(name: str) -> np.ndarray | None:
        return as_array(port[translate(name)]) if translate(name) in port else None

    actual = {leaf: lookup(op.call.full_name("op", leaf)) for leaf in op.outputs}
    try:
        case = case_of_op(runs, op, {leaf: a for leaf, a in actual.items() if a is not None}, lookup)
        case.expected = {**case.expected, **case.reference()}  # of the port's own operands
        return diagnose(case)
    except PortingError as error:
        return Diagnosis(op.label, "not-run", str(error), 0.0, float("inf"))
