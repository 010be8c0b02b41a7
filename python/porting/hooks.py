"""The collector: writes what goes in and out of every module of a PyTorch model into a capture.

    output, activations = porting.ActivationCollector(pipeline, "run.capture")("a prompt")

    with porting.ActivationCollector(model, "run.capture"):
        model(**inputs)

It puts a forward pre-hook and a forward hook on every selected module. They return None, never raise into the model and
are taken off on every way out. Inputs are copied before forward runs, outputs when it has returned, so that what happens to
the tensors later can't reach back. docs/DESIGN.md section 4 has the promises, docs/FORMAT.md section 6 the names.

What it does not do: it sees no tensor that stays inside a module's forward (`tap` names those), and it stores nothing that
has no dense values in memory (meta, sparse, quantised tensors): these are listed in the capture's notes.
"""

from __future__ import annotations

import contextvars
import datetime
import itertools
import json
import os
import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch

from . import _core, capture as captures, structure
from .environment import fingerprint
from .modules import Slot, checkpoint_of, describe_model, describe_module, find_roots, is_compiled, make_slots
from .naming import prefix as name_prefix
from .recorder import Recorder, pattern_of
from .selection import Filter, Selection, describe
from .tensors import DTYPE_NUMBERS, DroppedError, dense, dtype_name, is_direct, is_lazy, is_leaf

LEVELS = ("module",)
BUDGET_BYTES = 256 * 1024 * 1024
WEIGHTS_BYTES = 2 * 1000**3  # parameters below this are stored with weights="auto"
MAX_FORMS = 4096  # forms of values remembered per module and phase: a scalar that changes every step makes new ones
MAX_KNOWN = 16384  # cache tensors remembered by identity

_active: contextvars.ContextVar[tuple[_Run, ...]] = contextvars.ContextVar("porting_active", default=())


class _StopRun(BaseException):
    """Ends the model's run at the second step of its root. Not an Exception: models catch those."""


# ------------------------------------------------------------------------------------------ one run


class _Form:
    """What is known about all values with the same tokens: leaf paths, the text of the structure, which leaves are kept."""

    __slots__ = ("paths", "text", "kept", "tree")

    def __init__(self, paths: list[str], text: str, kept: list[int], tree: Any) -> None:
        self.paths, self.text, self.kept, self.tree = paths, text, kept, tree


def input_tree(paths: list[str], tree: dict[str, Any], names: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """(names by place, tree keyed by parameter) from a tree keyed by place; items of *args come together in one tuple."""
    arguments: dict[str, Any] = {}
    for place, name in enumerate(names):
        base, dot, item = name.rpartition(".")
        if dot:
            arguments.setdefault(base, {"tuple": []})["tuple"].append(tree["dict"][str(place)])
        else:
            arguments[name if name not in arguments else f"{name}#2"] = tree["dict"][str(place)]
    return {str(place): name for place, name in enumerate(names)}, {"dict": arguments}


class _Frame:
    """One call of a module that has begun."""

    __slots__ = ("slot", "kwargs", "call", "step", "records")

    def __init__(self, slot: Slot, kwargs: dict[str, Any], call: int, step: int) -> None:
        self.slot = slot
        self.kwargs = kwargs  # made anew by each call: tells which call a forward hook belongs to
        self.call = call
        self.step = step
        self.records = False  # the recorder was switched on by this call


class _Run:
    """One capture while it is written: the hooks, the writer, the recorder and what they remember."""

    def __init__(
        self, slots: list[Slot], selection: Selection, writer: _core.Writer, program: str | bool, stop: bool
    ) -> None:
        self.slots = slots
        self.selection = selection
        self.writer = writer
        self.stop = stop
        self.stopped = False
        self.failure: OSError | None = None  # the writer's: nothing more can be stored
        self.num_troubles = 0
        self.recorder = Recorder(self._store_constant, self._parameter_name) if program else None
        self.share_programs = program == "once"
        self.recording_thread = 0  # dispatch modes belong to a thread
        self._local = threading.local()
        self._handles: list[Any] = []
        self._noted: set[tuple[str, str]] = set()
        self._known: dict[int, tuple[weakref.ref, int, int, int]] = {}
        self._constants: dict[int, str] = {}
        self._parameter_ids: dict[int, str] = {}
        self._marks: dict[str, Any] = {}
        self._taps: dict[str, itertools.count] = {}
        self.recording = False

    # -------------------------------------------------------------- hooks on and off

    def attach(self) -> None:
        for slot in self.slots:
            if isinstance(slot.module, torch.jit.ScriptModule):
                self.note("warning", slot.name, "not captured: script modules take no hooks")
                continue
            if is_compiled(slot.module):
                self.note("warning", slot.name, "compiled: the modules inside may not be seen")
            if slot.selected or slot.is_root:
                self._attach_slot(slot)

    def _attach_slot(self, slot: Slot) -> None:
        def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._before(slot, args, kwargs)

        def after(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._after(slot, kwargs, output)

        def unwind(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._unwind(slot, kwargs)

        module = slot.module
        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True))
        if slot.is_root:  # after an exception too; finds nothing to do if `after` ran
            self._handles.append(module.register_forward_hook(unwind, with_kwargs=True, always_call=True))

    def detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        if self.recorder is not None:
            self.recorder.abandon()
        self._known.clear()

    def _go_last(self) -> None:
        """Hooks that were added after ours may change inputs or outputs: ours are moved behind them, for the calls to come."""
        for handle in self._handles:
            hooks = handle.hooks_dict_ref()
            if hooks and next(reversed(hooks)) != handle.id and handle.id in hooks:
                hooks.move_to_end(handle.id)

    # -------------------------------------------------------------- the hooks

    def _stack(self) -> list[_Frame]:
        try:
            return self._local.stack
        except AttributeError:
            self._local.stack = []
            return self._local.stack

    def _before(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.stopped:
            return
        stack = self._stack()
        begins_step = slot.is_root and not any(frame.slot.is_root for frame in stack)
        if begins_step and self.stop and slot.num_steps:
            self.stopped = True
            raise _StopRun
        try:
            if begins_step:
                step = slot.num_steps
                slot.num_steps += 1
                self._go_last()
            else:
                step = stack[-1].step if stack else slot.root.num_steps
            frame = _Frame(slot, kwargs, next(slot.calls), step)
            slot.num_calls = frame.call + 1
            stack.append(frame)
            self._enter(frame, args, kwargs, begins_step)
        except Exception as error:
            self._trouble(error, f"the inputs of {slot.name or 'the root'}")

    def _after(self, slot: Slot, kwargs: dict[str, Any], output: Any) -> None:
        if self.stopped:
            return
        try:
            frame = self._pop(slot, kwargs)
            if frame is not None:
                self._exit(frame, output)
        except Exception as error:
            self._trouble(error, f"the outputs of {slot.name or 'the root'}")

    def _unwind(self, slot: Slot, kwargs: dict[str, Any]) -> None:
        stack = self._stack()
        for i in range(len(stack) - 1, -1, -1):
            if stack[i].kwargs is kwargs:
                if any(frame.records for frame in stack[i:]) and self.recorder is not None:
                    self.recording = False
                    self.recorder.abandon()
                del stack[i:]
                return

    def _pop(self, slot: Slot, kwargs: dict[str, Any]) -> _Frame | None:
        """The frame of the call that has returned. Frames above it are of calls that ended with an exception inside."""
        stack = self._stack()
        for same in (lambda frame: frame.kwargs is kwargs, lambda frame: frame.slot is slot):
            for i in range(len(stack) - 1, -1, -1):
                if same(stack[i]):
                    frame = stack[i]
                    del stack[i:]
                    return frame
        return None

    def _enter(self, frame: _Frame, args: tuple[Any, ...], kwargs: dict[str, Any], begins_step: bool) -> None:
        if self.failure is not None:
            return
        slot = frame.slot
        names, values = slot.parameters.bind(args, kwargs)
        walker = structure.Walker(is_leaf)
        walker.tokens += (structure.DICT, tuple(map(str, range(len(values)))))
        for value in values:
            walker.walk(value)
        form = self._form(slot, 0, (*names, *walker.tokens), tuple(walker.tokens), names)
        if slot.selected:
            self._store(slot, frame, 0, walker, form)
        recorder = self.recorder
        if recorder is None:
            return
        leaves = list(zip(form.paths, walker.leaves))
        leaves = [leaf for leaf in leaves if isinstance(leaf[1], torch.Tensor)]
        if begins_step and self.recording and self.recording_thread == threading.get_ident():
            recorder.abandon()  # a call outside any step, which ended with an exception
            self.recording = False
        # Outside a root call too: generation with an encoder runs the encoder before the model's first step.
        if not self.recording and (begins_step or len(self._stack()) == 1):
            frame.records = self.recording = True
            self.recording_thread = threading.get_ident()
            described = (slot.name, slot.module.training, form.tree)
            self.recording = recorder.begin(
                slot.name, frame.call, pattern_of(leaves, described) if self.share_programs else None
            )
        if self.recording and self.recording_thread == threading.get_ident():
            recorder.enter(slot.name, frame.call, leaves)

    def _exit(self, frame: _Frame, output: Any) -> None:
        if self.failure is not None:
            self._end_recording(frame)
            return
        slot = frame.slot
        try:
            walker = structure.Walker(is_leaf)
            walker.walk(output)
            tokens = tuple(walker.tokens)
            form = self._form(slot, 1, tokens, tokens)
            recorder = self.recorder
            if recorder is not None and self.recording and self.recording_thread == threading.get_ident():
                leaves = list(zip(form.paths, walker.leaves))
                recorder.exit(slot.name, frame.call, [leaf for leaf in leaves if isinstance(leaf[1], torch.Tensor)])
        finally:
            self._end_recording(frame)
        if slot.selected:
            self._store(slot, frame, 1, walker, form)

    def _end_recording(self, frame: _Frame) -> None:
        if frame.records and self.recorder is not None:
            self.recording = False
            self.recorder.end()

    # -------------------------------------------------------------- storing

    def _form(
        self, slot: Slot, phase: int, key: Hashable, tokens: tuple[Any, ...], names: list[str] | None = None
    ) -> _Form:
        form = slot.forms[phase].get(key)
        if form is None:
            form = self._make_form(name_prefix(slot.name, 0, "out" if phase else "in"), tokens, names)
            if len(slot.forms[phase]) >= MAX_FORMS:
                slot.forms[phase].clear()
            slot.forms[phase][key] = form
        return form

    def _make_form(
        self,
        prefix: str,
        tokens: tuple[Any, ...],
        names: list[str] | None = None,
        lone: str = "0",
        without: Mapping[int, str] = {},
    ) -> _Form:
        """The form of tokens; the leaves in `without`, and those that the user's filter excludes, become opaque."""
        paths, tree = structure.tree_of(tokens, lone)
        opaque = {i: "excluded" for i, path in enumerate(paths) if not self.selection.takes_tensor(prefix + path)}
        opaque.update(without)
        kept = [i for i in range(len(paths)) if i not in opaque]
        if opaque:
            tree = structure.without_leaves(tree, opaque, {old: new for new, old in enumerate(kept)})
        places: dict[str, str] = {}
        if names is not None:
            places, tree = input_tree(paths, tree, names)
        return _Form(paths, structure.to_json([paths[i] for i in kept], tree, places), kept, tree)

    def _store(self, slot: Slot, frame: _Frame, phase: int, walker: structure.Walker, form: _Form) -> None:
        prefix = name_prefix(slot.name, frame.call, "out" if phase else "in")
        for reason in walker.lost:
            self._note_dropped(name_prefix(slot.name, 0, "out" if phase else "in").rstrip("."), reason)
        ids, dropped = self._put_leaves(walker, form, prefix)
        text = form.text
        if dropped:
            first = name_prefix(slot.name, 0, "out" if phase else "in")
            for i, reason in dropped.items():
                self._note_dropped(first + form.paths[i], reason)
            text = self._text_without(form, dropped)
        self.writer.call(slot.name, frame.call, frame.step, phase, text, ids)

    @staticmethod
    def _text_without(form: _Form, dropped: Mapping[int, str]) -> str:
        """The form's text if some more of its leaves could not be kept."""
        places = {i: n for n, i in enumerate(form.kept)}
        opaque = {places[i]: reason for i, reason in dropped.items()}
        kept = [n for n in range(len(form.kept)) if n not in opaque]
        tree = structure.without_leaves(form.tree, opaque, {old: new for new, old in enumerate(kept)})
        value = json.loads(form.text)
        return structure.to_json([value["leaves"][n] for n in kept], tree, value.get("names"))

    def _put_leaves(self, walker: structure.Walker, form: _Form, prefix: str) -> tuple[list[int], dict[int, str]]:
        """Tensor ids of the leaves that are kept, and why others could not be."""
        ids: list[int] = []
        dropped: dict[int, str] = {}
        leaves, paths = walker.leaves, form.paths
        ranges = iter(walker.cached)
        begin, end = next(ranges, (len(leaves), len(leaves)))
        for i in form.kept:
            if i >= end:
                begin, end = next(ranges, (len(leaves), len(leaves)))
            try:
                if begin <= i < end:
                    ids.append(self._put_cached(leaves[i], prefix + paths[i]))
                else:
                    ids.append(self._put(leaves[i], prefix + paths[i]))
            except DroppedError as error:
                dropped[i] = str(error)
        return ids, dropped

    def _put(self, leaf: Any, key: str) -> int:
        if not isinstance(leaf, torch.Tensor):
            try:
                return self.writer.put(leaf, key)
            except TypeError as error:
                raise DroppedError(str(error)) from None
        if not is_direct(leaf):
            leaf = dense(leaf)
        try:
            pointer = leaf.data_ptr()
        except RuntimeError as error:  # functorch's wrappers look like plain tensors
            raise DroppedError(f"its values cannot be read: {str(error).splitlines()[0]}") from None
        return self.writer.put_pointer(pointer, DTYPE_NUMBERS[leaf.dtype], leaf.shape, leaf.stride(), key)

    def _put_cached(self, leaf: Any, key: str) -> int:
        """`_put` for what sits in a cache. A decode step passes every layer's keys and values to every module: a tensor that
        is still alive, at the same place and at the same version is not read again."""
        if not isinstance(leaf, torch.Tensor) or leaf.is_inference():
            return self._put(leaf, key)
        known = self._known.get(id(leaf))
        if known is not None and known[0]() is leaf and known[1] == leaf._version and known[2] == leaf.data_ptr():
            return known[3]
        tensor_id = self._put(leaf, key)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[id(leaf)] = (weakref.ref(leaf), leaf._version, leaf.data_ptr(), tensor_id)
        return tensor_id

    def _store_constant(self, tensor: torch.Tensor) -> str:
        """For the recorder: a tensor that is neither an input nor a parameter. Equal tensors get the same name."""
        name = f"const:{len(self._constants)}"
        tensor_id = self._put(tensor, name)
        if tensor_id not in self._constants:
            self._constants[tensor_id] = name
            self.writer.name(name, tensor_id)
        return self._constants[tensor_id]

    def _parameter_name(self, tensor: torch.Tensor) -> str | None:
        return self._parameter_ids.get(id(tensor))

    def store_tap(self, name: str, value: Any) -> None:
        if self.failure is not None or self.stopped:
            return
        try:
            if not isinstance(name, str) or not name:
                raise TypeError(f"the name of a tap is a text, got {name!r}")
            stack = self._stack()
            step = stack[-1].step if stack else max((s.num_steps for s in self.slots if s.is_root), default=0)
            call = next(self._taps.setdefault(name, itertools.count()))
            walker = structure.Walker(is_leaf)
            walker.walk(value)
            tokens = tuple(walker.tokens)
            form = self._make_form(name if tokens[0] is structure.LEAF else f"{name}.", tokens, lone="")
            ids, dropped = self._put_leaves(
                walker, form, name_prefix(name, call, "tap") + ("" if form.paths == [""] else ".")
            )
            for i, reason in dropped.items():
                self._note_dropped(name, reason)
            self.writer.call(name, call, step, 2, self._text_without(form, dropped) if dropped else form.text, ids)
        except Exception as error:
            self._trouble(error, f"the tap {name!r}")

    # -------------------------------------------------------------- parameters

    def name_parameters(self) -> Iterator[tuple[str, torch.Tensor, str | None]]:
        """(path, tensor, first path of the same tensor if it has one) of every parameter and buffer."""
        for slot in self.slots:
            if slot.is_root:
                for named in (slot.module.named_parameters, slot.module.named_buffers):
                    for name, tensor in named(prefix=slot.name, remove_duplicate=False):
                        first = self._parameter_ids.setdefault(id(tensor), name)
                        yield name, tensor, first if first != name else None

    def store_parameters(self, mode: str | bool) -> dict[str, Any]:
        """Stores them (see `weights`), and returns the manifest's "parameters"."""
        named = list(self.name_parameters())
        total = sum(t.numel() * t.element_size() for _, t, first in named if first is None and not is_lazy(t))
        stored = total < WEIGHTS_BYTES if mode == "auto" else bool(mode)
        entries: dict[str, Any] = {}
        keys: dict[int, str] = {}
        ids: dict[str, int] = {}
        for name, tensor, first in named:
            if first is None:
                self._marks[name] = self._mark(tensor)
            entry: dict[str, Any] = {
                "dtype": dtype_name(tensor.dtype),
                "shape": None,
                "hash": None,
                "tensor": None,
                "same_as": first,
            }
            entries[name] = entry
            try:
                values = tensor if is_direct(tensor) else dense(tensor)
                entry["shape"] = list(values.shape)
                if mode is not False:
                    entry["hash"] = entries[first]["hash"] if first else _hash(values)
                if stored:
                    key = f"param:{name}"
                    ids[name] = ids[first] if first else self._put(values, key)
                    entry["tensor"] = keys.setdefault(ids[name], key)
                    self.writer.name(key, ids[name])
            except DroppedError as error:
                self._note_dropped(f"param:{name}", str(error))
        return {"stored": stored, "checkpoint": None, "entries": entries}

    def note_changed_parameters(self) -> None:
        """Parameters and buffers that the run changed in place: what is stored is how they were before. Norms change their
        buffers without counting it as a new version, so buffers are hashed again."""
        for name, tensor, first in self.name_parameters():
            if first is None and self._marks.get(name) != self._mark(tensor):
                self.note("changed", f"param:{name}", "changed in place by the run; stored as it was before")

    def _mark(self, tensor: torch.Tensor) -> Any:
        """Changes when the tensor's values do, as far as that can be told cheaply."""
        if isinstance(tensor, torch.nn.Parameter) or not is_direct(tensor):
            return None if tensor.is_inference() else tensor._version
        return _hash(tensor)

    # -------------------------------------------------------------- what goes wrong

    def note(self, kind: str, where: str, reason: str) -> None:
        try:
            self.writer.note(json.dumps({"kind": kind, "where": where, "reason": reason}))
        except OSError as error:
            self.failure = self.failure or error
        except _core.ClosedError:
            return

    def _note_dropped(self, where: str, reason: str) -> None:
        if (where, reason) not in self._noted:
            self._noted.add((where, reason))
            self.note("dropped", where, reason)

    def _trouble(self, error: Exception, what: str) -> None:
        """An error inside the collector: noted, and warned about once. The model must not notice."""
        if isinstance(error, OSError) and self.failure is None:
            self.failure = error
            reason = f"nothing after {what} was captured: {error}"
        else:
            reason = f"{what} could not be captured: {type(error).__name__}: {error}"
        self.note("warning", what, reason)
        self.num_troubles += 1
        if self.num_troubles == 1:
            try:
                warnings.warn(f"porting: {reason}. The model's run is not affected.", RuntimeWarning, stacklevel=2)
            except Warning:  # warnings are errors here; the note remains
                return


def _hash(tensor: torch.Tensor) -> str:
    """Hash of a tensor's row-major bytes, as the store computes it."""
    with torch.no_grad(), torch._C._DisableTorchDispatch():
        data = (
            tensor.detach().contiguous().flatten().view(torch.uint8)
            if tensor.numel()
            else torch.empty(0, dtype=torch.uint8)
        )
        return _core.hash128(data.numpy())


# ------------------------------------------------------------------------------------------ the collector


class ActivationCollector:
    """Captures what goes in and out of every module of a model, while the model runs as ever.

    Parameters
    ----------
    model : what is run and looked into: a ``torch.nn.Module``; a Hugging Face pipeline or any object with modules among its
        attributes (each is a root, its attribute's name is the prefix of its names); a bound method of one of these
        (``model.generate``); any callable, if `modules` says what to look into; a mapping of names to modules, for the
        ``with`` form alone.
    path : the capture's directory; must not exist. None: a temporary one that goes when the capture is closed or collected.
    max_layers : only that many entries of everything numbered (``layers.0`` ... ``layers.<max_layers - 1>``); -1: all
    stop_after_first_step : end the run when a root module is called for the second time
    include, exclude : regular expression(s) searched for in module paths, or a function of the path
    blacklist_regexes : the same on full names of tensors (of call 0: ``model.layers.0.mlp.in.0``): these are left out
    level : "module"
    program : record the executed ops: "once" for each pattern of calls, "all" for each call, or False
    weights : store parameters and buffers: True, False, or "auto": if they are less than 2 GB. With False they are not hashed.
    budget_bytes : memory for tensors on their way to disk
    modules : a module, or a mapping of names to modules, if they are not to be found in `model`

    Raises
    ------
    FileExistsError : `path` exists
    ValueError : no module is selected, or an option has no such value
    TypeError : no modules can be found in `model`

    Notes
    -----
    The call form returns ``(output, capture)``; output is None if the run was stopped early. In the ``with`` form the model is
    called by the user, and `capture` is there after the block. If the disk fills up, capturing ends and the model's run
    goes on; then `OSError` is raised, with the model's result as its attribute ``output``; what had been stored is readable.
    The model's own exceptions pass through unchanged, the capture so far is closed and readable.

    The step of a module's call is the number of the root call that it is part of; of a call outside any, the number of the
    root call that comes next.
    """

    def __init__(
        self,
        model: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        max_layers: int = -1,
        stop_after_first_step: bool = False,
        include: Filter = None,
        exclude: Filter = None,
        blacklist_regexes: Filter = None,
        level: str = "module",
        program: str | bool = "once",
        weights: str | bool = "auto",
        budget_bytes: int = BUDGET_BYTES,
        modules: torch.nn.Module | Mapping[str, torch.nn.Module] | None = None,
    ) -> None:
        _one_of("level", level, LEVELS)
        _one_of("program", program, ("once", "all", False))
        _one_of("weights", weights, ("auto", True, False))
        if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes <= 0:
            raise ValueError(f"budget_bytes is a number of bytes above 0, got {budget_bytes!r}")
        self._model = model
        self._selection = Selection(include, exclude, blacklist_regexes, max_layers)
        self._roots = find_roots(model, modules)
        self._path = None if path is None else os.fspath(path)
        self._stop = bool(stop_after_first_step)
        self._program = program
        self._weights = weights
        self._budget_bytes = budget_bytes
        self._options = {
            "max_layers": max_layers, "stop_after_first_step": self._stop, "include": describe(include), "exclude": describe(exclude),
            "blacklist_regexes": describe(blacklist_regexes), "level": level, "program": program, "weights": weights,
            "budget_bytes": budget_bytes,
        }  # fmt: skip
        self._run: _Run | None = None
        self._manifest: dict[str, Any] = {}
        self._opened: captures.Capture | None = None
        self._directory: str | None = None
        self._given: weakref.ref[captures.Capture] | None = None
        self._owner: weakref.finalize | None = None  # removes a temporary capture that nobody has opened
        self._make_slots()
        if self._path is not None and os.path.lexists(self._path):
            raise FileExistsError(f"{self._path} exists already: choose another path for the capture, or remove it")

    # -------------------------------------------------------------- the two forms

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, captures.Capture]:
        """Runs the model. Returns (its output, the capture); the output is None if the run was stopped early."""
        if not callable(self._model):
            raise TypeError(
                f"a {type(self._model).__name__} cannot be called: use `with ActivationCollector(...):` and call its modules"
            )
        output = None
        self.__enter__()
        try:
            output = self._model(*args, **kwargs)
        except _StopRun:
            output = None
        except BaseException as error:
            self._finish(error)
            raise
        if not any(slot.num_calls for slot in self._run.slots):
            self._run.note("warning", "", "no module was called")
            warnings.warn(
                "porting: the model returned without calling any of its modules, so that the capture is empty (an iterator "
                "does its work later: use the with form)",
                RuntimeWarning,
                stacklevel=2,
            )
        try:
            self.close()
        except OSError as error:
            error.output = output
            raise
        capture = self.capture
        if self._path is None:  # the caller's alone: it goes when the caller drops it
            self._opened, self._given = None, weakref.ref(capture)
        return output, capture

    def __enter__(self) -> ActivationCollector:
        if self._run is not None:
            raise RuntimeError("this collector is running already")
        slots = self._make_slots()
        path = self._make_path()
        self._opened, self._given, self._directory = None, None, path
        writer = _core.Writer(path, self._budget_bytes)
        run = _Run(slots, self._selection, writer, self._program, self._stop)
        try:
            self._begin(run)
        except BaseException:
            run.detach()
            writer.abort()
            raise
        self._run = run
        _active.set((*_active.get(), run))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> bool:
        if isinstance(error, _StopRun) and self._run is not None and self._run.stopped:
            self.close()
            return True
        if error is not None:
            self._finish(error)
            return False
        self.close()
        return False

    def close(self) -> None:
        """Takes the hooks off and finishes the capture. May be called twice.

        Raises
        ------
        OSError : what stopped the capture before its end, such as a full disk
        """
        run, self._run = self._run, None
        if run is None:
            return
        run.detach()
        _active.set(tuple(r for r in _active.get() if r is not run))
        try:
            self._end(run)
        except OSError as error:
            run.failure = run.failure or error
        if run.failure is not None:
            run.writer.abort()
            raise run.failure

    @property
    def capture(self) -> captures.Capture:
        """The finished capture, opened.

        Raises
        ------
        RuntimeError : nothing has been captured yet, or the run is still going on
        """
        if self._run is not None:
            raise RuntimeError("the capture is still being written: leave the with block, or call close(), first")
        given = self._given() if self._given is not None else None
        if self._opened is None and given is None:
            if self._directory is None or self._given is not None:
                raise RuntimeError("nothing has been captured yet: call the collector, or use it in a with block")
            self._opened = captures.open(self._directory)
            if self._owner is not None:
                self._owner.detach()
                self._opened.own(os.path.dirname(self._directory))
        return given if self._opened is None else self._opened

    # -------------------------------------------------------------- beginning and end

    def _make_slots(self) -> list[Slot]:
        slots = make_slots(self._roots, self._selection)
        if not any(slot.selected for slot in slots):
            some = ", ".join(repr(slot.name) for slot in slots[:4] + slots[4:][-2:])
            raise ValueError(f"no module is selected by the filters; there are {len(slots)}, such as {some}")
        return slots

    def _make_path(self) -> str:
        if self._path is None:
            folder = tempfile.mkdtemp(prefix="porting-")
            self._owner = weakref.finalize(self, _remove, folder)
            return os.path.join(folder, "run.capture")
        if self._directory is not None:
            raise FileExistsError(
                f"this collector has written {self._path} already: make a new collector with another path, or one without a path, "
                "which can be used again"
            )
        if os.path.lexists(self._path):
            raise FileExistsError(f"{self._path} exists already: choose another path for the capture, or remove it")
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        return self._path

    def _begin(self, run: _Run) -> None:
        """All that is known before the model runs goes into the manifest, for captures that are never closed."""
        self._manifest = {
            "format": "porting.capture",
            "version": 1,
            "finished": False,
            "world_size": 1,
            "created": _now(),
            "creator": f"porting on torch {torch.__version__}",
            "model": describe_model(self._model, self._roots),
            "environment": fingerprint(),
            "options": self._options,
            "modules": [describe_module(slot) for slot in run.slots],
        }
        for slot in run.slots:
            for alias in slot.paths[1:]:
                run.writer.alias(alias, slot.name)
        parameters = run.store_parameters(self._weights)
        parameters["checkpoint"] = checkpoint_of(self._roots)
        self._manifest["parameters"] = parameters
        run.writer.set_manifest(json.dumps(self._manifest))
        run.attach()

    def _end(self, run: _Run) -> None:
        run.note_changed_parameters()
        if run.failure is None and run.recorder is not None:
            programs = {"format": "porting.program", "version": 1, "programs": run.recorder.programs()}
            _write_file(os.path.join(run.writer.path, "program.json"), json.dumps(programs, separators=(",", ":")))
        if run.failure is None:
            run.writer.close(json.dumps({**self._manifest, "finished": True}))

    def _finish(self, error: BaseException) -> None:
        """Ends the capture of a run that failed. The model's exception is the one to be raised, so ours are warnings."""
        run = self._run
        if run is None:
            return
        run.note("exception", "", f"the model raised {type(error).__name__}: {error}")
        try:
            self.close()
        except Exception as trouble:
            warnings.warn(
                f"porting: the capture {run.writer.path} could not be finished: {trouble}", RuntimeWarning, stacklevel=3
            )


def tap(name: str, value: Any) -> Any:
    """Stores a value of functional code in the captures that are being written in this thread or context.

    Parameters
    ----------
    name : its name in the capture; the k-th use of a name is ``name@k``
    value : a tensor, or a nested value with tensors

    Returns
    -------
    `value` itself, always
    """
    for run in _active.get():
        run.store_tap(name, value)
    return value


def _one_of(option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is a or isinstance(value, str) and value == a for a in allowed):
        raise ValueError(f"{option} is {' or '.join(map(repr, allowed))}, got {value!r}")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write_file(path: str, text: str) -> None:
    """Replaces a file in one step."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
