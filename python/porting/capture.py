"""Reads a capture: `porting.open("run.capture")`.

A `Capture` is a read-only mapping of full names (docs/FORMAT.md section 6) to NumPy arrays that are views of the mapped file.
Beside it stand the calls in the order in which they happened, with arguments and results put together again as Python values,
the parameters and the recorded programs. It writes nothing and needs no torch (`to_torch` does).
"""

from __future__ import annotations

import builtins
import dataclasses
import json
import os
import shutil
import warnings
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, naming, noise, structure, tree
from ._core import ClosedError, FormatError, LayerNotFoundError, PortingError
from .summaries import Summary

if TYPE_CHECKING:
    import torch

    from .program import Program

PHASES = naming.PHASES
INTERNAL = ("param:", "const:")  # NAME records that are not activations


def open(path: str | os.PathLike[str]) -> Capture:
    """Opens a capture for reading. Use it in a ``with`` block, or call `Capture.close`.

    Raises
    ------
    FileNotFoundError : there is no such path
    FormatError : it is not a capture, or a corrupt one

    Warns
    -----
    RuntimeWarning : the capture was never finished; it says how much was recovered. All of that can be read.
    """
    return Capture(path)


@dataclasses.dataclass(frozen=True)
class ModuleInfo:
    """A module of the captured model."""

    name: str
    class_name: str
    aliases: tuple[str, ...]
    calls: tuple[int, ...]  # numbers of its captured calls
    training: bool | None = None
    extra_repr: str = ""


class _Structure:
    """A parsed structure text; calls of one form share it."""

    def __init__(self, text: str) -> None:
        try:
            value = json.loads(text)
            self.leaves = tuple(value["leaves"])
            self.tree = value["tree"]
            self.names: dict[str, str] = value.get("names", {})
            if not all(isinstance(leaf, str) for leaf in self.leaves) or not isinstance(self.names, dict):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise FormatError(
                f"the structure of a call is not of the form of docs/FORMAT.md section 6: {text[:80]}"
            ) from None
        self.places = {name: place for place, name in self.names.items()}

    @cached_property
    def keys(self) -> list[str]:
        """Names of the outermost items, if these have names."""
        tree = self.tree if isinstance(self.tree, dict) else {}
        return list(tree.get("fields", tree.get("dict", {})))

    def find(self, leaf: str) -> str | None:
        """The leaf path that `leaf` means: itself, with a parameter's name for its place, or a number for a key."""
        if leaf in self.leaves:
            return leaf
        parts = leaf.split(".")
        for end in range(len(parts), 0, -1):
            place = self.places.get(".".join(parts[:end]))
            if place is not None:
                candidate = ".".join([place, *parts[end:]])
                return candidate if candidate in self.leaves else None
        if not self.names and parts[0].isdecimal() and int(parts[0]) < len(self.keys):
            candidate = ".".join([self.keys[int(parts[0])], *parts[1:]])
            return candidate if candidate in self.leaves else None
        return None


class _Record:
    """One phase of one call: the structure and the ids of its leaves."""

    __slots__ = ("form", "ids")

    def __init__(self, form: _Structure, ids: tuple[int, ...]) -> None:
        self.form, self.ids = form, ids


class _Leaves(Mapping[str, np.ndarray]):
    """Leaf path to array, each made when it is asked for. Parameter names and places work too."""

    def __init__(self, capture: Capture, record: _Record | None) -> None:
        self._capture = capture
        self._ids = dict(zip(record.form.leaves, record.ids)) if record is not None else {}
        self._form = record.form if record is not None else None

    def __getitem__(self, leaf: str) -> np.ndarray:
        path = self._form.find(leaf) if self._form is not None else None
        if path is None:
            raise LayerNotFoundError(f"no leaf {leaf!r} here; there are {', '.join(self._ids) or 'none'}")
        return self._capture._array(self._ids[path])

    def __contains__(self, leaf: object) -> bool:
        return isinstance(leaf, str) and self._form is not None and self._form.find(leaf) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{leaf!r}: {self._capture._describe(i)}' for leaf, i in self._ids.items())}}}"


class Call:
    """One call of a module.

    Attributes
    ----------
    module, number, step : path of the module, which of its calls, number of the root's call that it was part of
    returned : False if the call ended with an exception, or the capture ended inside it
    """

    def __init__(self, capture: Capture, module: str, number: int, step: int) -> None:
        self._capture = capture
        self.module = module
        self.number = number
        self.step = step
        self._records: list[_Record | None] = [None, None]
        self._ops: _Record | None = None

    @property
    def returned(self) -> bool:
        return self._records[1] is not None

    @property
    def inputs(self) -> Mapping[str, np.ndarray]:
        """Leaf path to array, as they were before forward ran."""
        return _Leaves(self._capture, self._records[0])

    @property
    def outputs(self) -> Mapping[str, np.ndarray]:
        """Leaf path to array, as they were when the module returned."""
        return _Leaves(self._capture, self._records[1])

    @property
    def op_tensors(self) -> Mapping[str, np.ndarray]:
        """What its own ops made, by leaf path (``"3.aten.mm.default.out.0"``); empty unless captured with level="op"."""
        return _Leaves(self._capture, self._ops)

    @property
    def arguments(self) -> dict[str, Any]:
        """Parameter name to value, for all that were given. Objects are `structure.Record`, others `structure.Opaque`."""
        value = self._rebuild(0)
        return {} if value is None else value

    @property
    def result(self) -> Any:
        """What the module returned, put together again."""
        return self._rebuild(1)

    @property
    def input_names(self) -> dict[str, str]:
        """Place ("0") to parameter name."""
        record = self._records[0]
        return dict(record.form.names) if record is not None else {}

    def full_name(self, phase: str, leaf: str) -> str:
        """The full name of one of its leaves."""
        return naming.full_name(self.module, self.number, phase, leaf)

    def leaf_ids(self, phase: str) -> dict[str, int]:
        """Leaf path to tensor id. Equal tensors have equal ids."""
        record = self.record(phase)
        return dict(zip(record.form.leaves, record.ids)) if record is not None else {}

    def record(self, phase: str) -> _Record | None:
        """The record of one phase: "in", "out" or "op"."""
        return self._ops if phase == "op" else self._records[PHASES.index(phase)]

    def _rebuild(self, phase: int) -> Any:
        record = self._records[phase]
        if record is None:
            return None
        ids = record.ids

        def leaf(i: Any) -> np.ndarray:
            if not isinstance(i, int) or not 0 <= i < len(ids):
                raise FormatError(f"{self}: the structure names leaf {i!r} of {len(ids)}")
            return self._capture._array(ids[i])

        try:
            return structure.rebuild(record.form.tree, leaf)
        except (ValueError, TypeError, AttributeError) as error:
            raise FormatError(f"{self}: {error}") from None

    def __repr__(self) -> str:
        return f"Call({self.module or '(root)'}@{self.number}, step {self.step})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(self.full_name(phase, leaf))}</td><td>{escape(self._capture._describe(i))}</td></tr>"
            for phase in PHASES[:2] for leaf, i in self.leaf_ids(phase).items()
        )  # fmt: skip
        return f"<div>{escape(repr(self))}</div><table>{rows}</table>"


class _Parameters(Mapping[str, np.ndarray]):
    """Parameters and buffers by path. The names are those of the manifest; the values are there if they were stored."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._ids = {name[len("param:") :]: i for name, i in capture._names.items() if name.startswith("param:")}

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._resolve(name)
        if found is None:
            known = self._capture.manifest.get("parameters", {}).get("entries", {})
            if name in known:
                raise LayerNotFoundError(
                    f"parameter {name} was not stored in {self._capture.path}:"
                    f" {self.why_absent or 'it could not be captured'} (collect with weights=True)"
                )
            hint = naming.suggest(name, self._ids)
            raise LayerNotFoundError(f"Parameter not found: {name} ({len(self._ids)} parameters){_did_you_mean(hint)}")
        return self._capture._array(self._ids[found])

    @property
    def why_absent(self) -> str:
        """Why the values of the model's parameters are not there; "" if they were stored."""
        if self._capture.manifest.get("parameters", {}).get("stored") is not False:
            return ""
        if self._capture.level == "stats" and self._capture.manifest.get("options", {}).get("weights") == "auto":
            return 'the capture was made with level="stats", which stores weights only with weights=True (--weights all)'
        if self._capture.manifest.get("options", {}).get("weights") == "auto":
            return "the capture was made without weights (by weights=auto, which stores less than 2 GB)"
        return "the capture was made without weights (weights=False / --weights none)"

    def knows(self, name: str) -> bool:
        """Whether the model had such a parameter or buffer, stored or not."""
        return name in self or name in self._capture.manifest.get("parameters", {}).get("entries", {})

    def _resolve(self, name: str) -> str | None:
        found = [n for n in (name, *(f"{root}.{name}" for root in self._capture.roots if root)) if n in self._ids]
        return found[0] if found and (found[0] == name or len(found) == 1) else None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._resolve(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class Capture(Mapping[str, np.ndarray]):
    """An opened capture: full name to read-only array.

    Names are looked up as they are; then with the prefix of the root module (``layers.0`` for ``model.layers.0``) if that is
    unambiguous; through the other paths of a shared module; with a parameter's name for its place
    (``...self_attn.in.attention_mask``); and with a number for a key (``out.0`` for ``out.logits``).

    Attributes
    ----------
    path : str
    manifest : dict, MANIFEST.json; {} if it is missing or unreadable in an unfinished capture
    environment : dict, what decided the bits of the run
    finished : bool
    recovery : None, or for unfinished captures {"records", "dropped_bytes", "reason"}
    notes : list of dict, what could not be captured and why
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not os.path.lexists(self.path):
            raise FileNotFoundError(f"{self.path}: there is no such capture")
        if not os.path.isdir(self.path):
            raise FormatError(
                f"{self.path} is not a capture: a capture is a directory with MANIFEST.json and rank00000/journal.bin"
            )
        self._reader: _core.Reader | None = _core.Reader(self.path)
        self.finished: bool = self._reader.finished
        self.recovery: dict[str, Any] | None = self._reader.recovery
        self.manifest = self._read_manifest()
        self.environment: dict[str, Any] = self.manifest.get("environment", {})
        self._finalizer: weakref.finalize | None = None
        if not self.finished:
            found = self.recovery or {}
            warnings.warn(
                f"{self.path} was never finished: {found.get('records', 0)} records up to the last whole one are readable, "
                f"{found.get('dropped_bytes', 0)} bytes after it are not ({found.get('reason', 'no END record')}); "
                "`porting repair` makes it an ordinary capture",
                RuntimeWarning,
                stacklevel=3,
            )

    def _read_manifest(self) -> dict[str, Any]:
        file_name = os.path.join(self.path, "MANIFEST.json")
        try:
            with _open_text(file_name) as file:
                manifest = json.load(file)
            if not isinstance(manifest, dict) or manifest.get("format") != "porting.capture":
                raise ValueError('no "format": "porting.capture"')
            for key in ("environment", "model", "options", "parameters"):
                if not isinstance(manifest.get(key, {}), dict):
                    raise ValueError(f'"{key}" is not an object')
        except (OSError, ValueError, RecursionError) as error:
            if self.finished:
                raise FormatError(f"{file_name}: {error}") from None
            return {}
        return manifest

    # -------------------------------------------------------------- closing

    @property
    def _open_reader(self) -> _core.Reader:
        if self._reader is None:
            raise ClosedError(f"{self.path} has been closed")
        return self._reader

    def own(self, folder: str) -> None:
        """Removes `folder` when this object is closed or collected (captures without a path of their own)."""
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, True)

    def close(self) -> None:
        """Ends reading; arrays that were taken before stay valid. A temporary capture is removed. May be called twice."""
        self._reader = None
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a Capture cannot be pickled: pass its path ({self.path}) and open it there, or use to_torch() or save()"
        )

    # -------------------------------------------------------------- calls

    @cached_property
    def _forms(self) -> dict[str, _Structure]:
        return {}

    @cached_property
    def _calls(self) -> tuple[list[Call], dict[str, dict[int, Call]], dict[str, list[tuple[int, int, _Record]]]]:
        """(calls in order of entry, calls by module, taps by name)."""
        in_order: list[Call] = []
        by_module: dict[str, dict[int, Call]] = {}
        taps: dict[str, list[tuple[int, int, _Record]]] = {}
        for module, number, step, phase, text, ids in self._open_reader.calls():
            form = self._forms.get(text)
            if form is None:
                form = self._forms[text] = _Structure(text)
            if len(form.leaves) != len(ids):
                raise FormatError(
                    f"{self.path}: call {number} of {module or '(root)'} has {len(ids)} tensors for {len(form.leaves)} leaves"
                )
            record = _Record(form, ids)
            if phase == 2:
                taps.setdefault(module, []).append((number, step, record))
                continue
            calls = by_module.setdefault(module, {})
            call = calls.get(number)
            if call is None:
                call = calls[number] = Call(self, module, number, step)
                in_order.append(call)
            if phase == 3:
                call._ops = record
            else:
                call._records[phase] = record
        return in_order, by_module, taps

    @property
    def call_list(self) -> list[Call]:
        """All calls, in the order in which they began."""
        return list(self._calls[0])

    def calls(self, module: str) -> list[Call]:
        """The calls of one module, in the order of their numbers; empty if it exists and was never called."""
        return [call for _, call in sorted(self._calls[1].get(self.resolve_module(module), {}).items())]

    def call(self, module: str, number: int = 0) -> Call:
        """One call of a module."""
        name = self.resolve_module(module)
        calls = self._calls[1].get(name, {})
        if number not in calls:
            raise LayerNotFoundError(f"{name or 'the root'} has no captured call {number}; it has {len(calls)}")
        return calls[number]

    def inputs(self, module: str, call: int = 0) -> Mapping[str, np.ndarray]:
        """What a module received: leaf path to array."""
        return self.call(module, call).inputs

    def outputs(self, module: str, call: int = 0) -> Mapping[str, np.ndarray]:
        """What a module returned: leaf path to array."""
        return self.call(module, call).outputs

    @property
    def steps(self) -> range:
        """The steps (calls of the root module) that anything was captured in."""
        return range(max((call.step for call in self._calls[0]), default=-1) + 1)

    @property
    def taps(self) -> list[str]:
        """Names of the tapped values, in the order of their first use."""
        return list(self._calls[2])

    # -------------------------------------------------------------- modules

    @cached_property
    def modules(self) -> tree.ModuleTree:
        """The modules of the model by path (`ModuleInfo`), in the order of named_modules(); prints as a tree."""
        by_module = self._calls[1]
        aliases: dict[str, list[str]] = {}
        for alias, module in self._open_reader.aliases():
            aliases.setdefault(module, []).append(alias)
        listed = [m for m in self.manifest.get("modules", []) if isinstance(m, dict) and isinstance(m.get("name"), str)]
        listed += [{"name": name} for name in by_module if name not in {m["name"] for m in listed}]
        return tree.ModuleTree({
            m["name"]: ModuleInfo(
                m["name"], str(m.get("class", "")), tuple(aliases.get(m["name"], ())), tuple(sorted(by_module.get(m["name"], ()))),
                m.get("training"), str(m.get("extra_repr", "")),
            )
            for m in listed
        })  # fmt: skip

    @cached_property
    def _aliases(self) -> dict[str, str]:
        return dict(self._open_reader.aliases())

    @property
    def roots(self) -> list[str]:
        """Names of the root modules: [""] for a bare module, ["model"] for a pipeline."""
        roots = self.manifest.get("model", {}).get("roots")
        return list(roots) if isinstance(roots, dict) and roots else [""]

    @property
    def root(self) -> str:
        """Name of the (first) root module."""
        return self.roots[0]

    def resolve_module(self, name: str) -> str:
        """The path under which a module's calls are kept: itself, of an alias, or with the root's prefix.

        Raises
        ------
        LayerNotFoundError : there is no such module, or several
        """
        found = self._module_candidates(name)
        if not found:
            raise self._not_found(name, self.modules)
        if len(found) > 1:
            raise LayerNotFoundError(f"Layer {name} is ambiguous: {', '.join(found)}")
        return found[0]

    def _module_candidates(self, name: str) -> list[str]:
        candidates = [name, *(f"{root}.{name}" if name else root for root in self.roots if root)]
        found = [self._aliases.get(c, c) for c in candidates if c in self.modules or c in self._aliases]
        if candidates[0] in self.modules or candidates[0] in self._aliases:
            return found[:1]
        return list(dict.fromkeys(found))

    # -------------------------------------------------------------- tensors by name

    @cached_property
    def _names(self) -> dict[str, int]:
        """NAME records."""
        return dict(self._open_reader.names())

    @cached_property
    def _index(self) -> dict[str, int]:
        """Every full name, in order, to its tensor id."""
        index: dict[str, int] = {}

        def add(record: _Record, prefix: str) -> None:
            for leaf, tensor_id in zip(record.form.leaves, record.ids):
                name = f"{prefix}{leaf}"
                k = 2
                while name in index:  # a tap that is called like a module's leaf
                    name, k = f"{prefix}{leaf}#{k}", k + 1
                index[name] = tensor_id

        in_order, _, taps = self._calls
        for call in in_order:
            for phase in ("in", "op", "out"):
                record = call.record(phase)
                if record is not None:
                    add(record, naming.prefix(call.module, call.number, phase))
        for name, uses in taps.items():
            for number, _, record in uses:
                add(record, naming.prefix(name, number, "tap") + ("" if record.form.leaves == ("",) else "."))
        for name, tensor_id in self._names.items():
            if not name.startswith(INTERNAL):
                index.setdefault(name, tensor_id)
        return index

    def resolve(self, name: str) -> str:
        """The full name that `name` means, in its first form.

        Raises
        ------
        LayerNotFoundError : nothing, or more than one tensor, is meant
        """
        if not isinstance(name, str):
            raise TypeError(f"tensors are looked up by name, got {name!r}")
        found = self._meant(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise LayerNotFoundError(f"{name} is ambiguous: {', '.join(found)}")
        raise self._not_found(name, self._index)

    def find(self, name: str) -> str | None:
        """The full name that `name` means, as `resolve` finds it; None if it is none or more than one tensor's."""
        found = self._meant(name)
        return found[0] if len(found) == 1 else None

    def _meant(self, name: str) -> list[str]:
        """The full names that `name` may mean."""
        if name in self._index or name in self._names:
            return [name]
        found: list[str] = []
        for module, call, phase, leaf in naming.splits(name):
            for candidate in self._module_candidates(module):
                record = self._record(candidate, call, phase)
                path = record.form.find(leaf) if record is not None else None
                if path is not None:
                    found.append(naming.full_name(candidate, call, phase, path))
        found += [n for n in (f"{root}.{name}" for root in self.roots if root) if n in self._index]
        return list(dict.fromkeys(found))

    def _record(self, module: str, call: int, phase: str) -> _Record | None:
        entry = self._calls[1].get(module, {}).get(call)
        return entry.record(phase) if entry is not None else None

    def _not_found(self, name: str, candidates: Mapping[str, Any]) -> LayerNotFoundError:
        near = naming.suggest(name, candidates)
        return LayerNotFoundError(f"Layer not found: {name} ({len(self.modules)} modules){_did_you_mean(near)}")

    def tensor_id(self, name: str) -> int:
        """The id of a tensor. Equal tensors are stored once: equal ids."""
        found = self.resolve(name)
        return self._index[found] if found in self._index else self._names[found]

    def info(self, name: str) -> tuple[str, tuple[int, ...], tuple[int, ...], int, str, int, int, str]:
        """(dtype, shape, strides in the captured process, bytes, hash, segment, offset, key) of a tensor."""
        return self._open_reader.info(self.tensor_id(name))

    @property
    def level(self) -> str:
        """What was kept: "module", "op" or "stats"."""
        return str(self.manifest.get("options", {}).get("level", "module"))

    @cached_property
    def _whole_ids(self) -> frozenset[int]:
        """Tensors that are kept as they are where of others only statistics are: parameters and constants."""
        return frozenset(i for name, i in self._names.items() if name.startswith(INTERNAL))

    def _is_summary(self, tensor_id: int) -> bool:
        return self.level == "stats" and tensor_id not in self._whole_ids

    def require_tensors(self, what: str) -> None:
        """Raises PortingError if only statistics were kept; `what` is what needs the tensors ("a check")."""
        if self.level == "stats":
            raise PortingError(f'{self.path} holds statistics, not tensors (level="stats"): {what} needs tensors, capture with level="module"')

    def stats(self, name: str) -> Summary:
        """Minimum, maximum, mean, rms, NaN, infinities, hash and sketch of a tensor: the stored ones, or computed in C."""
        return self._summary(self.tensor_id(name))

    def _summary(self, tensor_id: int) -> Summary:
        data = self._open_reader.tensor(tensor_id)
        return Summary.from_bytes(data, f"{self.path}, tensor {tensor_id}") if self._is_summary(tensor_id) else Summary.of(data)

    def tensor_by_id(self, tensor_id: int) -> np.ndarray:
        """The tensor with this id (`Call.leaf_ids`); one array for each id."""
        found = self._arrays.get(tensor_id)
        if found is None:
            found = self._arrays[tensor_id] = self._array(tensor_id)
        return found

    @cached_property
    def _arrays(self) -> dict[int, np.ndarray]:
        return {}

    def _array(self, tensor_id: int) -> np.ndarray:
        if self._is_summary(tensor_id):
            self.require_tensors("reading one")
        return self._open_reader.tensor(tensor_id)

    def _describe(self, tensor_id: int) -> str:
        dtype, shape, *_ = self._open_reader.info(tensor_id)
        if self._is_summary(tensor_id):
            summary = self._summary(tensor_id)
            return f"{summary.dtype}{list(summary.shape)} (statistics)"
        return f"{dtype}{list(shape)}"

    def __getitem__(self, name: str) -> np.ndarray:
        return self._array(self.tensor_id(name))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self.resolve(name)
        except LayerNotFoundError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    # -------------------------------------------------------------- the rest

    @cached_property
    def notes(self) -> list[dict[str, Any]]:
        """What could not be captured, and what went wrong: {"kind", "where", "reason"}."""
        found = []
        for text in self._open_reader.notes():
            try:
                note = json.loads(text)
            except ValueError:
                note = None
            found.append(note if isinstance(note, dict) else {"kind": "text", "where": "", "reason": text})
        return found

    @cached_property
    def parameters(self) -> Mapping[str, np.ndarray]:
        """Parameters and buffers by path."""
        return _Parameters(self)

    @cached_property
    def programs(self) -> list[Program]:
        """The recorded programs; empty if none were recorded."""
        from .program import load

        return load(os.path.join(self.path, "program.json"))

    @cached_property
    def noise(self) -> noise.Noise | None:
        """How far the reference was from itself when it ran again (`porting.measure_noise`); None if that was not measured."""
        return noise.load(os.path.join(self.path, noise.FILE))

    def to_torch(self) -> dict[str, torch.Tensor]:
        """Every tensor as a torch tensor, by full name: copies, so that nothing shares memory with the file.
        Names of the same stored tensor share one copy."""
        import torch

        copies: dict[int, torch.Tensor] = {}
        result = {}
        for name, tensor_id in self._index.items():
            if tensor_id not in copies:
                copies[tensor_id] = _to_torch(self._array(tensor_id), self._open_reader.info(tensor_id)[0], torch)
            result[name] = copies[tensor_id]
        return result

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes every tensor under its full name into one file.

        Parameters
        ----------
        path : ends in .safetensors, .npz or .pt
        overwrite : replace an existing file

        Raises
        ------
        ValueError : another ending
        FileExistsError : the file exists
        DtypeError : .npz cannot hold bf16 and f8
        """
        from .export import save

        save(self, path, overwrite)

    def __repr__(self) -> str:
        if self._reader is None:
            return f"Capture({self.path!r}, closed)"
        state = "" if self.finished else ", unfinished"
        return f"Capture({self.path!r}, {len(self._calls[1])} modules, {len(self._calls[0])} calls, {len(self)} tensors{state})"

    def _repr_html_(self) -> str:
        if self._reader is None:
            return f"<div>{escape(repr(self))}</div>"
        notes = f", {len(self.notes)} notes" if self.notes else ""
        steps = f"{len(self.steps)} step{'s' if len(self.steps) != 1 else ''}"
        facts = f"{len(self._calls[0])} calls of {len(self._calls[1])} modules in {steps}, {len(self)} tensors, {len(self.parameters)} parameters{notes}"
        state = "" if self.finished else ", <b>unfinished</b>"
        return f"<div><b>{escape(str(self.path))}</b>: {facts}{state}</div>{self.modules._repr_html_()}"


def _open_text(path: str) -> Any:
    return builtins.open(path, encoding="utf-8")  # the name open is ours here


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {' or '.join(n or '(root)' for n in near)}?" if near else ""


def _to_torch(array: np.ndarray, dtype: str, torch: Any) -> torch.Tensor:
    """A copy as a torch tensor. NumPy's extra dtypes go through unsigned integers of their size."""
    copied = np.array(array, copy=True, order="C")
    if dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
        target = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]
        return torch.from_numpy(copied.view(np.uint16 if dtype == "BF16" else np.uint8)).view(target)
    return torch.from_numpy(copied)
