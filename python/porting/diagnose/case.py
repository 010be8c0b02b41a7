"""What a diagnosis works on: one module's program, the values it was fed with, and what the port returned.

A `Case` runs the program as recorded or changed. Two kinds of change serve all generators:

- an *edit* of the program (another constant, another op, an op left out), made with a `Draft`;
- an *override* of values (a weight transposed, an operand rounded to bf16): the ops after the value are run again with it.

No torch here. Does not judge: see rank.py.
"""
from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import _core
from ..golden import widen_array, widen_value, widened

Array = np.ndarray


def value_ids(arg: Any) -> list[int]:
    """Numbers of the values inside an argument of PROGRAM.md's form."""
    if isinstance(arg, dict):
        if "v" in arg:
            return [arg["v"]]
        return value_ids(arg["list"]) if "list" in arg else []
    if isinstance(arg, list):
        return [v for item in arg for v in value_ids(item)]
    return []


@dataclass
class Op:
    """One recorded op. `args` and `kwargs` are in PROGRAM.md's form."""

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    outputs: list[int | None]
    result: Any = None

    @property
    def base(self) -> str:
        """`aten.add.Tensor` -> `add`."""
        return self.name.split(".")[1] if self.name.startswith("aten.") else self.name

    @property
    def inputs(self) -> list[int]:
        return [v for a in [*self.args, *self.kwargs.values()] for v in value_ids(a)]

    def to_json(self) -> list[Any]:
        row = [self.name, self.args, self.kwargs, self.outputs]
        return row if self.result is None else [*row, self.result]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> Op:
        return cls(row[0], list(row[1]), dict(row[2]), list(row[3]), row[4] if len(row) > 4 else None)


VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "permute", "unsqueeze", "squeeze", "expand", "slice", "select", "detach", "alias",
    "lift_fresh", "split", "split_with_sizes", "unbind", "as_strided", "_reshape_alias",
}  # fmt: skip


@dataclass
class Case:
    """One module call of the reference and the port's answer to it.

    Parameters
    ----------
    values : recorded metadata, [dtype, shape, strides, offset] per value number
    ops : the module's ops in order
    feeds : value number -> array, for every value the ops use and do not make
    parameters : value number -> parameter name, for those feeds that are parameters
    outputs : leaf path -> value number (fed or made)
    expected, actual : leaf path -> array: the reference's outputs and the port's
    profile : keyword arguments for `_core.Program.run` (provider, capability, num_threads, mkldnn, symbols)
    neighbours : name of a parameter -> array, all parameters of the capture (for wrong-layer hypotheses)
    others : name -> array of captured tensors of the same step (for "equal to another tensor")
    """

    module: str
    values: list[list[Any]]
    ops: list[Op]
    feeds: dict[int, Array]
    parameters: dict[int, str]
    outputs: dict[str, int]
    expected: dict[str, Array]
    actual: dict[str, Array]
    profile: dict[str, Any] = field(default_factory=dict)
    neighbours: Mapping[str, Array] = field(default_factory=dict)
    others: Callable[[], Mapping[str, Array]] = dict
    leaves: dict[int, str] = field(default_factory=dict)
    _memory: dict[str, Any] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------ structure

    @property
    def producers(self) -> dict[int, int]:
        """Value number -> index of the op that made it first."""
        if "producers" not in self._memory:
            made: dict[int, int] = {}
            for i, op in enumerate(self.ops):
                for v in op.outputs:
                    if v is not None:
                        made.setdefault(v, i)
            self._memory["producers"] = made
        return self._memory["producers"]

    def source(self, value: int) -> int:
        """The value that this one is a view of, followed through view ops."""
        while value in self.producers and self.ops[self.producers[value]].base in VIEWS:
            value = self.ops[self.producers[value]].inputs[0]
        return value

    def users(self, value: int) -> list[int]:
        return [i for i, op in enumerate(self.ops) if value in op.inputs]

    def dtype(self, value: int) -> str:
        return self.values[value][0]

    def is_floating(self, value: int) -> bool:
        return self.dtype(value) in ("F32", "F16", "BF16", "F64")

    @property
    def in_place(self) -> bool:
        """True if an op changes a value it did not make: overrides are then not possible."""
        return any(v in op.inputs for op in self.ops for v in op.outputs if v is not None and op.base not in VIEWS)

    # ------------------------------------------------------------ running

    def _run(self, values: list, ops: list[Op], feeds: Mapping[int, Array], wanted: Sequence[int], wide: bool = False) -> dict[int, Array]:
        if wide:
            feeds = {v: widen_array(a) for v, a in feeds.items()}
            values = [widen_value(v) for v in values]
            ops = [Op(op.name, widened(op.args), widened(op.kwargs), op.outputs, op.result) for op in ops]
        made = {v for op in ops for v in op.outputs if v is not None}
        used = {v for op in ops for v in op.inputs} | set(wanted)
        text = json.dumps({"values": values, "ops": [op.to_json() for op in ops]}).encode()
        program = _core.Program(text)
        fetched = [v for v in wanted if v in made]
        arrays = program.run(0, len(ops), {v: feeds[v] for v in used if v in feeds}, fetched, **self.profile)
        result = dict(zip(fetched, arrays, strict=True))
        result.update({v: feeds[v] for v in wanted if v not in made})
        return result

    def _leaves(self, values: Mapping[int, Array]) -> dict[str, Array]:
        return {leaf: values[v] for leaf, v in self.outputs.items() if leaf in self.actual}

    def reference(self) -> dict[str, Array]:
        """The module's outputs as the unchanged program computes them in C."""
        return self._leaves(self.intermediates())

    def intermediates(self) -> dict[int, Array]:
        """Every value of the unchanged program, computed once."""
        if "intermediates" not in self._memory:
            made = {v for op in self.ops for v in op.outputs if v is not None}
            wanted = sorted(made | set(self.outputs.values()))
            values = dict(self.feeds)
            values.update(self._run(self.values, self.ops, self.feeds, wanted))
            self._memory["intermediates"] = values
        return self._memory["intermediates"]

    def golden(self) -> dict[str, Array] | None:
        """The outputs in float64, or None where an op has no float64 kernel."""
        if "golden" not in self._memory:
            try:
                self._memory["golden"] = self.run_edited(self.draft(), wide=True)
            except _core.PortingError:
                self._memory["golden"] = None
        return self._memory["golden"]

    def run_edited(self, draft: Draft, wide: bool = False) -> dict[str, Array]:
        """Outputs of an edited program; wide: computed in float64."""
        wanted = sorted({draft.outputs[leaf] for leaf in self.actual if leaf in draft.outputs})
        values = self._run(draft.values, draft.ops, {**self.feeds, **draft.feeds}, wanted, wide)
        return {leaf: values[v] for leaf, v in draft.outputs.items() if leaf in self.actual}

    def run_override(self, override: Mapping[int, Array], wide: bool = False) -> dict[str, Array]:
        """Outputs when these values had been others. The ops after each value see the new one. wide: those ops in float64."""
        overridden = {v for v in override if v in self.producers}
        first = min((self.producers[v] for v in overridden), default=0) if len(overridden) == len(override) else 0
        ops = []
        for i, op in enumerate(self.ops):
            if i < first or (op.outputs and all(v is None or v in overridden for v in op.outputs)):
                continue
            outputs = [None if v in overridden else v for v in op.outputs]
            ops.append(Op(op.name, op.args, op.kwargs, outputs, op.result))
        feeds = {**self.intermediates(), **override}
        made = {v for op in ops for v in op.outputs if v is not None}
        feeds = {v: a for v, a in feeds.items() if v not in made}
        wanted = sorted({v for leaf, v in self.outputs.items() if leaf in self.actual})
        return self._leaves(self._run(self.values, ops, feeds, wanted, wide))

    def draft(self) -> Draft:
        return Draft(copy.deepcopy(self.values), copy.deepcopy(self.ops), dict(self.outputs))


@dataclass
class Draft:
    """A copy of a case's program that may be changed."""

    values: list[list[Any]]
    ops: list[Op]
    outputs: dict[str, int]
    feeds: dict[int, Array] = field(default_factory=dict)

    def new_value(self, like: int, dtype: str | None = None, shape: Sequence[int] | None = None) -> int:
        meta = copy.deepcopy(self.values[like])
        if dtype is not None:
            meta[0] = dtype
        if shape is not None:
            strides, step = [], 1
            for n in reversed(shape):
                strides.insert(0, step)
                step *= max(n, 1)
            meta[1:3] = [list(shape), strides]
        self.values.append(meta)
        return len(self.values) - 1

    def replace_uses(self, old: int, new: int, start: int = 0) -> None:
        """Every op from `start` on, and the outputs, use `new` where they used `old`."""

        def swap(arg: Any) -> Any:
            if isinstance(arg, dict):
                if arg.get("v") == old:
                    return {"v": new}
                return {"list": swap(arg["list"])} if "list" in arg else arg
            return [swap(a) for a in arg] if isinstance(arg, list) else arg

        for op in self.ops[start:]:
            op.args = [swap(a) for a in op.args]
            op.kwargs = {k: swap(a) for k, a in op.kwargs.items()}
        self.outputs = {leaf: new if v == old else v for leaf, v in self.outputs.items()}

    def insert(self, index: int, name: str, args: list[Any], kwargs: dict[str, Any], like: int) -> int:
        """A new op before op `index`; returns the value it makes."""
        value = self.new_value(like)
        self.ops.insert(index, Op(name, args, kwargs, [value]))
        return value

    def drop(self, index: int, keep: int) -> None:
        """Leaves op `index` out: its first output is `keep` from then on."""
        made = self.ops[index].outputs[0]
        del self.ops[index]
        assert made is not None
        self.replace_uses(made, keep, index)
