"""A recorded program in words: what one call of a module executed, op by op.

Does not run anything. No torch here.
"""
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from html import escape
from typing import Any

from ._core import FormatError
from .capture import Capture
from .compare import open_reference
from .judging import class_name_of
from .program import Interval, Program, find_interval
from .report.text import clean

DEVICE_WORDS = frozenset({"device", "layout"})  # keyword arguments that say where a tensor lies: only the CPU's are recorded


@dataclasses.dataclass(frozen=True)
class Step:
    """One op. `module`: path of the innermost module that executed it; `arguments`: its arguments in words; `outputs`: value numbers;
    `fusion`: number of the group of ops that the executor runs together (docs/PROGRAM.md), None if it runs by itself."""

    index: int
    op: str
    module: str
    arguments: str
    outputs: tuple[int, ...]
    fusion: int | None = None


@dataclasses.dataclass(frozen=True)
class Graph:
    """The program of one module call.

    Attributes
    ----------
    module, class_name, call, step : whose call it is.
    steps : the ops in order.
    values : value number to (name, dtype, shape) of everything that appears; a shape that depends on a symbol is that of the recording.
    inputs, outputs : leaf path to value number.
    parameters, constants : value number to name, as far as these ops use them; constants are tensors that no op made.
    """

    module: str
    class_name: str
    call: int
    step: int
    steps: tuple[Step, ...]
    values: Mapping[int, tuple[str, str, tuple[int, ...]]]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    parameters: Mapping[int, str]
    constants: Mapping[int, str]

    def to_text(self) -> str:
        """Inputs, ops under the modules that executed them, outputs; one line each."""
        title = f"{self.module or 'the root'}{f' ({self.class_name})' if self.class_name else ''}, call {self.call} in step {self.step}:"
        lines = [f"{title} {len(self.steps)} ops, {len(self.parameters)} parameters, {len(self.constants)} constants"]
        rows = [(f"  {self.values[v][0]}", self._form(v), "input") for v in self.inputs.values()]
        module = self.module
        for step in self.steps:
            if step.module != module:
                module = step.module
                rows.append((f"{module or 'the root'}:", "", ""))
            made = ", ".join(self.values[v][0] for v in step.outputs) or "-"
            rows.append((f"  {made}", ", ".join(self._form(v) for v in step.outputs[:1]), f"{step.op}({step.arguments}){f'  [fused {step.fusion}]' if step.fusion else ''}"))
        rows += [(f"  {self.values[v][0]}", self._form(v), f"is out.{path}") for path, v in self.outputs.items()]
        names, forms = (min(max(len(row[i]) for row in rows if row[1]), 40) for i in (0, 1)) if rows else (0, 0)
        lines += [f"{name.ljust(names)}  {form.ljust(forms)}  {what}".rstrip() for name, form, what in rows]
        return "\n".join(clean(line) for line in lines)

    def _form(self, value: int) -> str:
        _, dtype, shape = self.values[value]
        return f"{dtype} {shape}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""

        def value(v: int) -> dict[str, Any]:
            name, dtype, shape = self.values[v]
            return {"value": v, "name": name, "dtype": dtype, "shape": list(shape)}

        return {
            "module": self.module, "class": self.class_name, "call": self.call, "step": self.step,
            "inputs": {path: value(v) for path, v in self.inputs.items()},
            "ops": [{"index": s.index, "op": s.op, "module": s.module, "arguments": s.arguments, "outputs": [value(v) for v in s.outputs],
                     **({"fusion": s.fusion} if s.fusion else {})} for s in self.steps],
            "outputs": {path: value(v) for path, v in self.outputs.items()},
            "parameters": [value(v) for v in self.parameters], "constants": [value(v) for v in self.constants],
        }  # fmt: skip

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Graph of {self.module or 'the root'}: {len(self.steps)} ops>"

    def _repr_html_(self) -> str:
        return f'<pre style="overflow-x:auto;max-height:40em;line-height:1.3">{escape(self.to_text())}</pre>'


def graph(capture: Capture | str, module: str = "", call: int = 0) -> Graph:
    """The recorded program of one module call, to be read.

    Parameters
    ----------
    capture : path or Capture
    module : path of the module; "" is the root
    call : number of its call

    Raises NoProgramError (nothing was recorded, with the reason) and LayerNotFoundError (no such module or call, with the nearest name).
    """
    with contextlib.ExitStack() as opened:
        capture = open_reference(capture, opened)
        found = capture.call(module, call)
        program, interval, _ = find_interval(capture, found)
        return _graph(program, interval, found.module, class_name_of(capture, found.module), found.number, found.step)


def _graph(program: Program, interval: Interval, module: str, class_name: str, number: int, step: int) -> Graph:
    external = program.external(interval)
    inputs = {path: v for path, v in interval.inputs.items() if v in external or v in interval.outputs.values()}
    leaves = {v: f"in.{path}" for path, v in reversed(inputs.items())}
    parameters = {v: program.parameters[v] for v in external if v in program.parameters and v not in leaves}
    constants = {v: name for v in external if v not in leaves and v not in parameters
                 for name in [interval.captured.get(v) or program.constants.get(v)] if name is not None}  # fmt: skip
    names = {**constants, **parameters, **leaves}
    inner = innermost(program, interval)
    fused = {op: number for number, ops in enumerate(_fusions(program, interval), 1) for op in ops}
    steps, seen = [], dict.fromkeys([*inputs.values(), *names])
    for index in range(interval.begin, interval.end):
        name, args, kwargs, outputs, *_ = program.ops[index]
        made = tuple(v for v in outputs if isinstance(v, int))
        seen.update(dict.fromkeys(made))
        words = [_word(a, names) for a in args]
        words += [f"{key}={_word(a, names)}" for key, a in kwargs.items() if key not in DEVICE_WORDS]
        steps.append(Step(index, name.removeprefix("aten.").removesuffix(".default"), inner[index - interval.begin], ", ".join(words), made, fused.get(index)))
    values = {v: (names.get(v, f"%{v}"), program.values[v][0], tuple(program.values[v][1])) for v in {**seen, **dict.fromkeys(interval.outputs.values())}}
    return Graph(module, class_name, number, step, tuple(steps), values, inputs, interval.outputs, parameters, constants)


def _fusions(program: Program, interval: Interval) -> list[tuple[int, ...]]:
    """The groups of ops inside the interval that run together unless a value between them is asked for; none of a program that C refuses."""
    try:
        return [ops for ops in program.core.fusions if interval.begin <= min(ops) and max(ops) < interval.end]
    except FormatError:
        return []


def innermost(program: Program, interval: Interval) -> list[str]:
    """For each op of the interval the path of the innermost module whose call it is part of."""
    found = [interval.name] * (interval.end - interval.begin)
    inside = [i for i in program.intervals if interval.begin <= i.begin and i.end <= interval.end and i is not interval]
    for one in sorted(inside, key=lambda i: i.begin - i.end):  # longest first: inner ones overwrite outer ones
        if one.end - one.begin < interval.end - interval.begin or _is_inside(one.name, interval.name):
            found[one.begin - interval.begin : one.end - interval.begin] = [one.name] * (one.end - one.begin)
    return found


def _is_inside(name: str, outer: str) -> bool:
    return name != outer and (not outer or name.startswith(outer + "."))


def _word(arg: Any, names: Mapping[int, str]) -> str:
    """An argument of docs/PROGRAM.md's form as one would write it."""
    if isinstance(arg, dict):
        if "v" in arg:
            return names.get(arg["v"], f"%{arg['v']}")
        if "list" in arg:
            return _word(arg["list"], names)
        if "sym" in arg:
            base, terms = arg["sym"]
            words = [f"{name}" if factor == 1 else f"{factor}*{name}" for factor, name in terms]
            return " + ".join([*words, *([str(base)] if base else [])]) or "0"
        return ", ".join(str(value) for value in arg.values())
    if isinstance(arg, list):
        return f"[{', '.join(_word(a, names) for a in arg)}]"
    return repr(arg) if isinstance(arg, str) else str(arg)
