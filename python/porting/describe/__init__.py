"""The facts of a captured model, each verified by running it in C: `porting.describe(capture)`, `porting describe`.

A fact is read from the recorded program, never from a configuration. It is called verified if the program gave the captured bits in every call it
speaks of, and if each neighbouring variant that was run (another eps, another activation, the other layout of pairs) did not.
"""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import _core
from .._core import PortingError
from ..compare import open_reference
from ..diagnose.attention import HIDDEN
from ..diagnose.case import Case
from ..diagnose.explain import case_of_call
from ..diagnose.hypothesis import Hypothesis
from ..diagnose.weights import simple
from ..graph import innermost
from ..judging import class_name_of
from ..pair import bits_equal
from ..profiles import AS_CAPTURED, settings
from ..program import find_interval, run_call
from ..providers import use_provider
from . import readings
from .checkpoint import is_checkpoint, load
from .facts import Description, Fact, merged
from .readings import Reading

__all__ = ["Description", "Fact", "describe"]

MAX_OPS = 400  # of a module whose variants are run: larger ones are not verified
ORDER = ("embedding", "embedding scale", "tied weights", "norm", "norm eps", "norm weight", "norm bias", "norm cast", "attention heads", "head size",
         "attention scale", "attention mask", "sliding window", "logit softcap", "rope kind", "rope size", "rope base", "activation")  # fmt: skip
OPS_WITH_SETTINGS = frozenset({"mean", "sum", "var", "pow", "_softmax", "softmax"})  # whose integers are no sizes
CONTAINERS = frozenset({"ModuleList", "ModuleDict", "Sequential", "ParameterList", "ParameterDict"})


@dataclasses.dataclass
class Group:
    """Calls of modules that do the same: equal class, equal path but for numbers, equal ops of their own."""

    where: str
    calls: list[Any] = dataclasses.field(default_factory=list)
    equal: tuple[int, int, str] | None = None  # calls compared, calls bit-equal, why the first other one is not


def describe(source: Any, *inputs: Any, **keywords: Any) -> Description:
    """The facts of a model.

    Parameters
    ----------
    source : path of a capture, an opened Capture, a torch module, or a folder with a checkpoint of Transformers (which is run on a counter's tokens or image)
    inputs, keywords : of a module: what it is called with. It is captured once, into a temporary folder

    Returns
    -------
    Description : prints as text; `.facts`, `[name]`, `.to_json()`

    Raises PortingError or OSError if the capture cannot be opened, and NoProgramError if nothing of it was recorded.
    """
    with contextlib.ExitStack() as opened:
        if is_checkpoint(source):
            if inputs or keywords:
                raise PortingError("inputs are for a model that is to be captured; for a checkpoint they are made")
            source, keywords = load(source)
        if not isinstance(source, (str, os.PathLike)) and callable(source):
            folder = opened.enter_context(tempfile.TemporaryDirectory())
            return describe(_captured(source, inputs, keywords, os.path.join(folder, "capture")))
        if inputs or keywords:
            raise PortingError("inputs are for a model that is to be captured; a capture has its own")
        return _Describer(open_reference(source, opened)).run()


def _captured(model: Any, inputs: tuple[Any, ...], keywords: Mapping[str, Any], path: str) -> Any:
    import torch

    from ..hooks import ActivationCollector

    with torch.no_grad(), ActivationCollector(model, path, weights=True):
        model(*inputs, **keywords)
    return path


class _Describer:
    def __init__(self, capture: Any) -> None:
        self.capture = capture
        use_provider("auto")
        self.facts: list[Fact] = []

    def run(self) -> Description:
        groups = self._groups()
        if not groups:
            find_interval(self.capture, self.capture.call_list[0])  # says why nothing was recorded
        for group in groups.values():
            self._describe_group(group)
        self._tied(groups)
        self._unused()
        order = {name: i for i, name in enumerate(ORDER)}
        facts = sorted(merged(self.facts), key=lambda fact: order.get(fact.name, len(order)))
        return Description(str(self.capture.path), class_name_of(self.capture, self.capture.root) or "the model", tuple(facts))

    # ------------------------------------------------------------ what is alike

    def _groups(self) -> dict[str, Group]:
        found: dict[str, Group] = {}
        for call in self.capture.call_list:
            try:
                program, interval, _ = find_interval(self.capture, call)
            except PortingError:
                continue
            inner = innermost(program, interval)
            own = [program.ops[interval.begin + i][:3] for i, name in enumerate(inner) if name == interval.name]
            if not own or not call.outputs:
                continue
            shapes = [program.values[v][1] for v in program.external(interval) if v in program.parameters]
            where = re.sub(r"(?<![^.])\d+(?![^.])", "*", call.module)
            key = json.dumps([class_name_of(self.capture, call.module), where, [settings_of(op) for op in own], shapes])
            found.setdefault(key, Group(where or "the root")).calls.append(call)
        return {f"{key} {i}": part for key, group in found.items() for i, part in enumerate(by_masks(group))}

    def _describe_group(self, group: Group) -> None:
        call = max(group.calls, key=lambda c: sum(a.size for a in c.outputs.values()))
        program, interval, _ = find_interval(self.capture, call)
        own = {i for i, name in enumerate(innermost(program, interval)) if name == interval.name}
        if interval.end - interval.begin > MAX_OPS:
            own_names = {program.ops[interval.begin + i][0].split(".")[1] for i in own}
            if own_names & {"native_layer_norm", "rsqrt", "_softmax", "gelu", "silu"} or any("scaled_dot" in name for name in own_names):
                self.facts.append(Fact("functions", "norms, activations or attention outside of modules of their own", group.where, False,
                                       f"its module has {interval.end - interval.begin} ops; variants are run up to {MAX_OPS}", 0))  # fmt: skip
            return
        try:
            case = case_of_call(self.capture, call, dict(call.outputs), None)
            found = list(self._readings(case, own))
        except (PortingError, ValueError, KeyError, MemoryError) as error:
            self.facts.append(Fact("module", class_name_of(self.capture, call.module), group.where, False, f"its program cannot be run: {error}"))
            return
        for reading in found:
            self.facts.append(self._verified(group, case, reading))

    def _readings(self, case: Case, own: set[int]) -> Iterator[Reading]:
        options = settings(AS_CAPTURED, self.capture.environment).options
        yield from readings.embedding_readings(case, own)
        yield from readings.norm_readings(case, own)
        yield from readings.attention_readings(case, own)
        yield from readings.rotary_readings(case, own)
        yield from readings.frequency_readings(case, own, options)
        yield from readings.activation_readings(case, own)
        yield from readings.linear_readings(case, own)

    # ------------------------------------------------------------ evidence

    def _verified(self, group: Group, case: Case, reading: Reading) -> Fact:
        """The reading as a fact, after its calls and its variants were run in C."""
        calls, equal, why = self._bit_equal(group)
        base = f"bit-equal over {calls} call{'s' if calls != 1 else ''}"
        if equal < calls:
            return self._fact(group, reading, False, f"{equal} of {calls} calls are bit-equal: {why}", calls)
        if reading.check is not None:
            verified, text = reading.check()
            return self._fact(group, reading, verified, f"{base}; {text}", calls)
        if not reading.variants:
            return self._fact(group, reading, False, reading.needs or "there is no neighbouring variant to rule out", calls)
        apart = [(text, far) for h in reading.variants if (far := distance(case, h)) is not None for text in [variant_text(h)]]
        if not apart:
            return self._fact(group, reading, False, f"{base}, but no variant could be run on these inputs", calls)
        name, (ulp, units) = min(apart, key=lambda pair: pair[1][1])
        if ulp == 0:
            return self._fact(group, reading, False, f"{base}, but the variant '{name}' gives the same bits on these inputs", calls)
        if units < 1 and not reading.same_arithmetic:
            return self._fact(group, reading, False, f"{base}, but the variant '{name}' differs by rounding alone on these inputs", calls)
        return Fact(reading.name, reading.value, group.where, True, "", calls, name, ulp, len(apart))

    def _fact(self, group: Group, reading: Reading, verified: bool, evidence: str, calls: int) -> Fact:
        return Fact(reading.name, reading.value, group.where, verified, evidence, calls)

    def _bit_equal(self, group: Group) -> tuple[int, int, str]:
        """(calls run, calls whose outputs are the captured bits, what the first other one says)."""
        if group.equal is None:
            equal, why = 0, ""
            for call in group.calls:
                try:
                    made = run_call(self.capture, call).outputs
                    far = [leaf for leaf, expected in call.outputs.items() if leaf in made and not bits_equal(expected, made[leaf])]
                    text = f"{call.full_name('out', far[0])} differs" if far else ""
                except (PortingError, ValueError, MemoryError) as error:
                    far, text = [""], str(error)
                equal += not far
                why = why or text
            group.equal = (len(group.calls), equal, why)
        return group.equal

    # ------------------------------------------------------------ parameters and modules

    def _tied(self, groups: Mapping[str, Group]) -> None:
        """Products with another module's table of embeddings, and last products that could have one and do not."""
        tables = self._embedding_tables()
        last = {id(program): _last_weight(program) for program in self.capture.programs}
        for group in groups.values():
            call = group.calls[0]
            program, interval, _ = find_interval(self.capture, call)
            inner = innermost(program, interval)
            own = [program.ops[interval.begin + i] for i, name in enumerate(inner) if name == interval.name]
            if not any(op[0].split(".")[1] in ("mm", "addmm", "linear") for op in own) or interval.end - interval.begin > MAX_OPS:
                continue
            for value in program.external(interval):
                name = program.parameters.get(value, "")
                if name in tables and not name.startswith(f"{call.module}.") and not self._is_root_name(call.module, name):
                    self._tied_fact(group, f"yes: multiplies by {name}", value, lambda w: np.roll(w, 1, axis=0), "has the rows moved by one")
                elif name and value == last[id(program)] and tuple(program.values[value][1]) in tables.values():
                    table = next(n for n, shape in tables.items() if shape == tuple(program.values[value][1]))
                    if table in self.capture.parameters:
                        self._tied_fact(group, f"no: {name} is not {table}", value, lambda w, t=table: self.capture.parameters[t], f"has {table}")

    def _is_root_name(self, module: str, name: str) -> bool:
        return not module or name.startswith(module + ".")

    def _tied_fact(self, group: Group, value: str, number: int, change: Callable[[np.ndarray], np.ndarray], words: str) -> None:
        case = case_of_call(self.capture, group.calls[0], dict(group.calls[0].outputs), None)
        hypothesis = simple(case, "tied-weight", f"port {words}", number, change)
        self.facts.append(self._verified(group, case, Reading("tied weights", value, [hypothesis])))

    def _embedding_tables(self) -> dict[str, tuple[int, ...]]:
        """Parameter name to shape of everything that an embedding looks up in."""
        found = {}
        for program in self.capture.programs:
            for op in program.ops:
                if op[0].startswith("aten.embedding.") and isinstance(op[1][0], dict):
                    name = program.parameters.get(op[1][0].get("v"))
                    if name is not None:
                        found[name] = tuple(program.values[op[1][0]["v"]][1])
        return found

    def _unused(self) -> None:
        """Parameters that no recorded op takes, and modules that were never called."""
        programs = self.capture.programs
        reason = next((p.reason for p in programs if p.reason), None) or ("" if programs else "no program was recorded")
        runs = sum(len(p.calls) for p in programs)
        used = {name for p in programs for name in _used_parameters(p)}
        entries = self.capture.manifest.get("parameters", {}).get("entries", {})
        tensors = {entries[name]["tensor"] for name in used if name in entries and entries[name].get("tensor")}
        unused = [name for name, entry in entries.items()
                  if name not in used and (entry.get("same_as") or name) not in used and not (entry.get("tensor") in tensors and entry.get("same_as"))]
        if entries:
            value = ", ".join(unused) if unused else "none"
            evidence = reason or f"the ops recorded of {runs} call{'s' if runs != 1 else ''} of the root take {len(used)} of {len(entries)} parameters and buffers"
            self.facts.append(Fact("never used parameters", value, "the whole model", not reason, evidence, runs))
        idle = [name for name, info in self.capture.modules.items() if not self.capture.calls(name) and info.class_name not in CONTAINERS]
        total = len(self.capture.modules)
        evidence = f"{total} modules were watched during {runs} call{'s' if runs != 1 else ''} of the root"
        self.facts.append(Fact("never called modules", ", ".join(idle) if idle else "none", "the whole model", self.capture.finished, evidence
                               if self.capture.finished else "the capture was never finished", runs))  # fmt: skip


def settings_of(op: Any) -> list[Any]:
    """An op's name and those of its arguments that make it another function: all but tensors and, of most ops, sizes."""
    name, args, kwargs = op
    base = name.split(".")[1] if name.startswith("aten.") else name
    whole = args if base in OPS_WITH_SETTINGS else [a for a in args if isinstance(a, (bool, float, str))]
    numbers = {key: value for key, value in kwargs.items() if isinstance(value, (bool, float, str, int))}
    groups = args[6:7] if base == "native_group_norm" else []
    return [name, [a for a in whole if not (isinstance(a, dict) and "v" in a)], groups, numbers]


def by_masks(group: Group) -> list[Group]:
    """The group in parts whose modules are given the same masks: layers of one class may see through different windows.

    Each module is told by its largest call, so that the steps of a generation stay together. Parts say which modules they are of.
    """
    largest: dict[str, Any] = {}
    for call in group.calls:
        if call.module not in largest or _size(call) > _size(largest[call.module]):
            largest[call.module] = call
    if len(largest) < 2:
        return [group]
    parts: dict[str, list[str]] = {}
    for module, call in largest.items():
        masks = [(leaf, x.shape, hashlib.blake2b(np.ascontiguousarray(x).view(np.uint8).tobytes()).hexdigest()) for leaf, x in call.inputs.items() if is_mask(x)]
        parts.setdefault(repr(masks), []).append(module)
    if len(parts) == 1:
        return [group]
    return [Group(", ".join(modules), [call for call in group.calls if call.module in modules]) for modules in parts.values()]


def _size(call: Any) -> int:
    return sum(array.size for array in call.outputs.values())


def is_mask(x: np.ndarray) -> bool:
    """A tensor of truth values, or of zeros and what hides."""
    if x.dtype.kind == "b":
        return x.ndim > 0
    if x.ndim < 2 or x.size == 0 or x.dtype.kind in "iuc":
        return False
    wide = x.astype(np.float64)
    return bool(((wide == 0) | (wide <= HIDDEN)).all())


def _last_weight(program: Any) -> int | None:
    """The value of the parameter that the program's last product multiplies by."""
    views: dict[int, int] = {}
    found = None
    for name, args, _, outputs, *_ in program.ops:
        given = [views.get(a["v"], a["v"]) for a in args if isinstance(a, dict) and "v" in a]
        base = name.split(".")[1] if name.startswith("aten.") else name
        if base in ("t", "transpose", "permute", "view") and given and outputs:
            views[outputs[0]] = given[0]
        elif base in ("mm", "addmm", "linear", "bmm"):
            found = next((v for v in reversed(given) if v in program.parameters), found)
    return found


def _used_parameters(program: Any) -> set[str]:
    text = {int(v) for v in re.findall(r'"v": (\d+)', json.dumps([op[1:3] for op in program.ops]))}
    text.update(v for interval in program.intervals for v in interval.outputs.values())
    return {name for v, name in program.parameters.items() if v in text}


# ---------------------------------------------------------------- variants


def variant_text(hypothesis: Hypothesis) -> str:
    """The variant's side of a hypothesis: "computes tanh GELU"."""
    return hypothesis.detail.split(", reference")[0].removeprefix("port ").removeprefix("port's ")


def distance(case: Case, hypothesis: Hypothesis) -> tuple[int, float] | None:
    """(ulp, greatest difference in 16 unit roundoffs of the largest value) between a variant's outputs and the captured ones.

    The ulp are the most over outputs of which one is at least 1/1024 of the largest (near 0 they say nothing); 0 only if all bits are equal.
    Variants may be computed in float64, so less than 1 in the second says that they differ by rounding alone. None: it cannot be run.
    """
    try:
        with np.errstate(all="ignore"):
            made = hypothesis.compute(False)
    except (PortingError, ValueError, KeyError, IndexError, TypeError, ArithmeticError, MemoryError):
        return None
    ulp, units = 0, 0.0
    for leaf, expected in case.expected.items():
        actual = made.get(leaf)
        if actual is None or actual.shape != expected.shape or actual.dtype != expected.dtype:
            continue
        metrics = _core.compare(np.ascontiguousarray(expected), np.ascontiguousarray(actual))
        if metrics["num_nan_mismatch"]:
            return int(metrics["max_ulp"]), float("inf")
        wide = np.abs(expected.astype(np.float64))
        size = wide[np.isfinite(wide)].max(initial=0.0)
        large = np.maximum(wide, np.abs(actual.astype(np.float64))) >= size / 1024
        ulp = max(ulp, int(metrics["max_ulp"] > 0), int(_core.compare(expected[large], actual[large])["max_ulp"]))
        unit = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}.get(expected.dtype.name, 2.0**-53)
        units = max(units, float(metrics["max_abs"]) / (16 * unit * size) if size else 0.0)
    return ulp, units
