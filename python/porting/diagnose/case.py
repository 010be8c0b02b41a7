"""What a diagnosis works on: one module's program, the values it was fed with, and what the port returned.

A `Case` runs the program as recorded or changed. Two kinds of change serve all generators:

- an *edit* of the program (another constant, another op, an op left out), made with a `Draft`;
- an *override* of values (a weight transposed, an operand rounded to bf16): the ops after the value are run again with it.

No torch here. Does not judge: see rank.py.
"""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import _core
from ..widening import widen_array, widen_value, widened

Array = np.ndarray
SLOW_S = 0.02
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def is_float(x: Array) -> bool:
    """True for floating arrays, bf16 (which NumPy does not count among them) included."""
    return x.dtype.name in UNITS


def copied(arg: Any) -> Any:
    """An argument with its lists and dicts copied; what they hold cannot change."""
    if isinstance(arg, dict):
        return {k: copied(v) for k, v in arg.items()}
    return [copied(a) for a in arg] if isinstance(arg, list) else arg


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
    fixed: list[int] | None = field(default=None, repr=False, compare=False)  # `inputs` of an op that will not be changed

    @property
    def base(self) -> str:
        """`aten.add.Tensor` -> `add`."""
        return self.name.split(".")[1] if self.name.startswith("aten.") else self.name

    @property
    def inputs(self) -> list[int]:
        if self.fixed is not None:
            return self.fixed
        return [v for a in [*self.args, *self.kwargs.values()] for v in value_ids(a)]

    def copy(self) -> Op:
        """The op with arguments of its own, to be changed."""
        return Op(self.name, copied(self.args), copied(self.kwargs), list(self.outputs), self.result)

    def same(self, other: Op) -> bool:
        return self is other or self.name == other.name and self.outputs == other.outputs and self.args == other.args and self.kwargs == other.kwargs

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
class Compiled:
    """A parsed program. given : (value, its number) of what it is fed with; fetched : of what it makes that is wanted; passed : wanted values that it is given."""

    program: Any
    num_ops: int
    given: list[tuple[int, int]]
    fetched: list[tuple[int, int]]
    passed: list[int]


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
    leaves : value number -> name of the module's input
    positions : number of each op in the module's program; inner : [begin, end) and name of the modules inside, in these numbers
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
    positions: list[int] = field(default_factory=list)
    inner: list[tuple[int, int, str]] = field(default_factory=list)
    _memory: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.values = list(self.values)
        self.ops, self.outputs = out_of_place(self.values, self.ops, self.outputs)
        for op in self.ops:
            op.fixed = op.inputs
        self.positions = self.positions or list(range(len(self.ops)))

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
        if "users" not in self._memory:
            users: dict[int, list[int]] = {}
            for i, op in enumerate(self.ops):
                for v in dict.fromkeys(op.inputs):
                    users.setdefault(v, []).append(i)
            self._memory["users"] = users
        return list(self._memory["users"].get(value, ()))

    def dtype(self, value: int) -> str:
        return self.values[value][0]

    def is_floating(self, value: int) -> bool:
        return self.dtype(value) in ("F32", "F16", "BF16", "F64")

    @property
    def changed(self) -> set[int]:
        """Values that an op changes in place."""
        if "changed" not in self._memory:
            self._memory["changed"] = {v for op in self.ops for v in op.outputs if v is not None and op.base not in VIEWS and v in op.inputs}
        return self._memory["changed"]

    @property
    def in_place(self) -> bool:
        """True if an op changes a value in place: the program is then always run from its beginning."""
        return bool(self.changed)

    @property
    def shared(self) -> set[int]:
        """Values that share memory with one that is changed in place: they cannot be overridden."""
        if "shared" not in self._memory:
            groups = aliases(self.ops)
            self._memory["shared"] = {v for value in self.changed for v in groups.get(value, {value})}
        return self._memory["shared"]

    def place(self, index: int) -> str:
        """How a sentence names the op at `index`: number in the module, name, shape of its result, and the module inside that it belongs to."""
        op, number = self.ops[index], self.positions[index]
        inside = [(end - begin, name) for begin, end, name in self.inner if begin <= number < end]
        made = op.outputs[0] if op.outputs else None
        shape = " " + "x".join(map(str, self.values[made][1])) if made is not None and self.values[made][1] else ""
        return f"op {number} {op.name.rpartition('.')[0] or op.name}{shape}" + (f" in {min(inside)[1]}" if inside else "")

    # ------------------------------------------------------------ running

    def _compile(self, values: list, ops: list[Op], wanted: Sequence[int], wide: bool = False) -> Compiled:
        if wide:
            values = [widen_value(v) for v in values]
            ops = [Op(op.name, widened(op.args), widened(op.kwargs), op.outputs, op.result) for op in ops]
        made, used = set(), set(wanted)
        for op in ops:
            made.update(v for v in op.outputs if v is not None)
            used.update(op.inputs)
        numbers = {v: n for n, v in enumerate(sorted(used | made))}
        rows = [[op.name, renumbered(op.args, numbers), renumbered(op.kwargs, numbers), [numbers.get(v) for v in op.outputs],
                 *([] if op.result is None else [op.result])] for op in ops]  # fmt: skip
        program = _core.Program(json.dumps({"values": [values[v] for v in numbers], "ops": rows}).encode())
        given = [(v, n) for v, n in numbers.items() if v in used and (v not in made or v in self.changed)]
        return Compiled(program, len(ops), given, [(v, numbers[v]) for v in wanted if v in made], [v for v in wanted if v not in made])

    def _execute(self, compiled: Compiled, feeds: Mapping[int, Array], wide: bool = False) -> dict[int, Array]:
        given = {n: widen_array(feeds[v]) if wide else feeds[v] for v, n in compiled.given if v in feeds}
        arrays = compiled.program.run(0, compiled.num_ops, given, [n for _, n in compiled.fetched], **self.profile)
        result = dict(zip((v for v, _ in compiled.fetched), arrays, strict=True))
        result.update({v: widen_array(feeds[v]) if wide else feeds[v] for v in compiled.passed if v in feeds})
        return result

    def _run(self, values: list, ops: list[Op], feeds: Mapping[int, Array], wanted: Sequence[int], wide: bool = False) -> dict[int, Array]:
        return self._execute(self._compile(values, ops, wanted, wide), feeds, wide)

    def choose_provider(self) -> None:
        """Takes the plain products in the place of a library's where they are faster: on few rows, on a machine that is busy."""
        wanted = list(dict.fromkeys(self.outputs.values()))
        started = time.thread_time()
        self.intermediates()
        self._run(self.values, self.ops, self.feeds, wanted)
        took = time.thread_time() - started
        if took < SLOW_S or self.profile.get("provider") != "auto":
            return
        kept, self.profile = self.profile, {**self.profile, "provider": "reference"}
        times = []
        for profile in (kept, self.profile):
            self.profile = profile
            started = time.thread_time()
            self._run(self.values, self.ops, self.feeds, wanted)
            times.append(time.thread_time() - started)
        self.profile = kept if times[0] <= times[1] else self.profile

    def _leaves(self, values: Mapping[int, Array]) -> dict[str, Array]:
        known = {**self.feeds, **values}  # a module may hand on what it was given, or a constant
        return {leaf: known[v] for leaf, v in self.outputs.items() if leaf in self.actual and v in known}

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
        """Outputs of an edited program; wide: computed in float64. What the edit leaves as it was is not computed again."""
        wanted = sorted({draft.outputs[leaf] for leaf in self.actual if leaf in draft.outputs})
        ops, feeds = draft.ops, {**self.feeds, **draft.feeds}
        if not self.in_place and (ops is not self.ops and not wide):
            ops, feeds = needed(ops, wanted, draft.feeds, self.same(draft)), {**self.intermediates(), **draft.feeds}
            made = {v for op in ops for v in op.outputs if v is not None}
            feeds = {v: a for v, a in feeds.items() if v not in made}
            ops = [Op("aten.reshape.default", op.args, op.kwargs, op.outputs) if op.name in ("aten.view.default", "aten._unsafe_view.default") else op for op in ops]
        values = self._run(draft.values, ops, feeds, wanted, wide)
        known = {**feeds, **values}
        return {leaf: known[v] for leaf, v in draft.outputs.items() if leaf in self.actual and v in known}

    def run_override(self, override: Mapping[int, Array], wide: bool = False) -> dict[str, Array]:
        """Outputs when these values had been others. The ops after each value see the new one. wide: those ops in float64."""
        key = ("override", wide, tuple(sorted(override)))
        if key not in self._memory:
            self._memory[key] = self._compile(self.values, self.after(override), self.wanted(), wide)
        compiled = self._memory[key]
        return self._leaves(self._execute(compiled, {**self.intermediates(), **override}, wide))

    def wanted(self) -> list[int]:
        return sorted({v for leaf, v in self.outputs.items() if leaf in self.actual})

    def after(self, override: Iterable[int]) -> list[Op]:
        """The ops that see a change of these values and that an output depends on."""
        override = set(override)
        if override & self.shared:
            raise ValueError("an op changes the value in place")
        overridden = {v for v in override if v in self.producers}
        first = min((self.producers[v] for v in overridden), default=0) if len(overridden) == len(override) and not self.in_place else 0
        stale = set(override)
        ops = []
        for op in self.ops[first:]:
            if (stale.isdisjoint(op.inputs) and not self.in_place) or (op.outputs and all(v is None or v in overridden for v in op.outputs)):
                continue
            stale.update(v for v in op.outputs if v is not None)
            if overridden.isdisjoint(op.outputs):
                ops.append(op)
            else:
                ops.append(Op(op.name, op.args, op.kwargs, [None if v in overridden else v for v in op.outputs], op.result, op.fixed))
        if self.in_place:
            return ops
        return needed(ops, self.wanted(), override, set())

    def same(self, draft: Draft) -> set[int]:
        """Values that have the recorded content in the draft too: made by an op that the edit did not touch, from such values."""
        known = set(self.feeds) - set(draft.feeds)
        if "recorded" not in self._memory:
            self._memory["recorded"] = {op.outputs[0]: op for op in self.ops if op.outputs and op.outputs[0] is not None}
        recorded = self._memory["recorded"]
        for op in draft.ops:
            old = recorded.get(op.outputs[0]) if op.outputs else None
            if old is not None and op.same(old) and known.issuperset(old.inputs):
                known.update(v for v in op.outputs if v is not None)
        return known

    def draft(self) -> Draft:
        """A copy of the program to be changed."""
        return Draft(list(self.values), Ops(self.ops), dict(self.outputs))


class Ops(list):
    """Ops of a draft: those of the case, each copied when it is first taken out by its index."""

    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        if isinstance(index, slice):
            return Ops(found)
        if found.fixed is not None:
            found = self[index] = found.copy()
        return found


def renumbered(arg: Any, numbers: Mapping[int, int]) -> Any:
    """An argument with other numbers for its values."""
    if isinstance(arg, dict):
        if "v" in arg:
            return {"v": numbers[arg["v"]]}
        return {k: renumbered(v, numbers) for k, v in arg.items()}
    return [renumbered(a, numbers) for a in arg] if isinstance(arg, list) else arg


def swapped(arg: Any, old: int, new: int) -> Any:
    """An argument with value `new` where it has `old`."""
    if isinstance(arg, dict):
        if arg.get("v") == old:
            return {"v": new}
        return {"list": swapped(arg["list"], old, new)} if "list" in arg else arg
    return [swapped(a, old, new) for a in arg] if isinstance(arg, list) else arg


def needed(ops: list[Op], wanted: Sequence[int], given: Mapping[int, Array], known: set[int]) -> list[Op]:
    """The ops that `wanted` depends on, but for those whose results are given or known."""
    live = set(wanted) - known
    kept = []
    for op in reversed(ops):
        if any(v in live for v in op.outputs):
            kept.append(op)
            live.update(v for v in op.inputs if v not in known and v not in given)
    return kept[::-1]


def aliases(ops: list[Op]) -> dict[int, set[int]]:
    """Value -> the values that may share its memory, itself included, for those that have views or are one."""
    groups: dict[int, set[int]] = {}
    for op in ops:
        if op.base in VIEWS and op.inputs:
            joined = {v for v in (op.inputs[0], *op.outputs) if v is not None}
            for v in list(joined):
                joined |= groups.get(v, set())
            for v in joined:
                groups[v] = joined
    return groups


def out_of_place(values: list[list[Any]], ops: list[Op], outputs: dict[str, int]) -> tuple[list[Op], dict[str, int]]:
    """The program with in-place ops written out of place, where nothing sees the change but through the value itself."""
    if not any(op.base.endswith("_") and not op.base.endswith("__") for op in ops):
        return ops, outputs
    groups, last, born = aliases(ops), {}, {}
    for i, op in enumerate(ops):
        last.update(dict.fromkeys(op.inputs, i))
        for v in op.outputs:
            born.setdefault(v, i)
    last.update(dict.fromkeys(outputs.values(), len(ops)))
    known = set(_core.known_ops())
    now: dict[int, int] = {}
    changed = []

    def latest(arg: Any) -> Any:
        if isinstance(arg, dict):
            return {"v": now.get(arg["v"], arg["v"])} if "v" in arg else {k: latest(v) for k, v in arg.items()}
        return [latest(a) for a in arg] if isinstance(arg, list) else arg

    for i, op in enumerate(ops):
        target = op.outputs[0] if len(op.outputs) == 1 else None
        plain = op.name.replace(f"aten.{op.base}.", f"aten.{op.base.rstrip('_')}.")
        args, kwargs, made = latest(op.args), latest(op.kwargs), list(op.outputs)
        if target is not None and op.base.endswith("_") and target in op.inputs and plain in known and not any(
            last.get(v, -1) > i and born.get(v, -1) < i for v in groups.get(target, ()) if v != target
        ):
            values.append(values[target])
            now[target] = len(values) - 1
            made = [len(values) - 1]
            changed.append(Op(plain, args, kwargs, made, op.result))
        else:
            changed.append(Op(op.name, args, kwargs, made, op.result))
    return changed, {leaf: now.get(v, v) for leaf, v in outputs.items()}


@dataclass
class Draft:
    """A copy of a case's program that may be changed."""

    values: list[list[Any]]
    ops: Ops
    outputs: dict[str, int]
    feeds: dict[int, Array] = field(default_factory=dict)

    def new_value(self, like: int, dtype: str | None = None, shape: Sequence[int] | None = None) -> int:
        meta = list(self.values[like])
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

        for i in range(start, len(self.ops)):
            if old in list.__getitem__(self.ops, i).inputs:
                self.swap(i, old, new)
        self.outputs = {leaf: new if v == old else v for leaf, v in self.outputs.items()}

    def insert(self, index: int, name: str, args: list[Any], kwargs: dict[str, Any], like: int) -> int:
        """A new op before op `index`; returns the value it makes."""
        value = self.new_value(like)
        self.ops.insert(index, Op(name, args, kwargs, [value]))
        return value

    def feed(self, index: int, old: int, array: Array) -> None:
        """Op `index`, and no other, takes `array` in the place of value `old`."""
        new = self.new_value(old, shape=array.shape)
        self.feeds[new] = array
        self.swap(index, old, new)

    def swap(self, index: int, old: int, new: int) -> None:
        """Op `index` takes `new` where it took `old`."""
        op = self.ops[index]
        op.args = [swapped(a, old, new) for a in op.args]
        op.kwargs = {k: swapped(a, old, new) for k, a in op.kwargs.items()}

    def drop(self, index: int, keep: int) -> None:
        """Leaves op `index` out: its first output is `keep` from then on."""
        made = self.ops[index].outputs[0]
        del self.ops[index]
        assert made is not None
        self.replace_uses(made, keep, index)
