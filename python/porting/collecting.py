"""What the collector does while the model runs: the hooks, the calls that are open, what is stored.

A forward pre-hook and a forward hook are put on every selected module. They return None, never raise into the model and
are taken off on every way out. Inputs are copied before forward runs, outputs when it has returned, so that what happens to
the tensors later can't reach back.

A call that ends with an exception never comes to its forward hook. Which calls are still open is told by the Python frames
that called the hooks: those of an open call are below the frames of every call inside it. Only their ids are kept.

What it does not do: it sees no tensor that stays inside a module's forward (`tap` names those; level="op" keeps every op's), and it stores nothing that
has no dense values in memory (meta, sparse, quantised tensors): these are listed in the capture's notes. Cached keys
and values that are the same objects, at the same place and version as at the last hook are not read again: a change through
`.data` or NumPy, which counts no version, is not seen there.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import sys
import threading
import warnings
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from . import _core, naming, structure
from .forms import Form, make_form
from .keeping import OpKeeper
from .modules import Slot, is_compiled
from .recorder import Recorder, pattern_of, skip_compilation
from .selection import Selection
from .tensors import DTYPE_NUMBERS, PLAIN_TENSORS, DroppedError, dense, dispatch_keys, is_direct, is_leaf
from .weights import Weights

if TYPE_CHECKING:
    from .size_tracing import SizeTracer

MAX_FORMS = 4096  # forms of values remembered per module and phase: a scalar that changes every step makes new ones
MAX_SNAPSHOTS = 64  # caches remembered
LONE = "lone"  # key of the form of one plain tensor and nothing else

_version_of = operator.attrgetter("_version")


class StopRun(BaseException):
    """Ends the model's run at the second step of its root. Not an Exception: models catch those."""


class Inert:
    """A hook that does nothing: what copies of a module that is being captured have in place of ours."""

    def __call__(self, *args: Any) -> None:
        return None


class _Hook:
    """A hook of a run on a module. Copied or pickled with its module it is inert: the copy is not being captured."""

    __slots__ = ("run", "slot")

    def __init__(self, run: Run, slot: Slot) -> None:
        self.run, self.slot = run, slot

    def __reduce__(self) -> tuple[Any, ...]:
        return Inert, ()


class _Before(_Hook):
    __slots__ = ()

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.run.before(self.slot, args, kwargs)


class _After(_Hook):
    __slots__ = ()

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.run.after(self.slot, output)


class _Frame:
    """One call of a module that has begun."""

    __slots__ = ("slot", "call", "step", "caller", "below", "records")

    def __init__(self, slot: Slot, call: int, step: int, caller: int, below: int) -> None:
        self.slot = slot
        self.call = call
        self.step = step
        self.caller = caller  # id of the Python frame that called the hook: the forward hook is called from it too
        self.below = below  # of the frame below it: that one calls forward hooks after an exception
        self.records = False  # the recorder was switched on by this call


class _Values:
    """The leaves of a value on their way to the store; `cached` are ranges inside cache objects: (begin, end, id of it)."""

    __slots__ = ("leaves", "cached", "lost")

    def __init__(self, leaves: Any, cached: Any = (), lost: Any = ()) -> None:
        self.leaves, self.cached, self.lost = leaves, cached, lost


def _tracer(*how: Any) -> SizeTracer:
    from .size_tracing import SizeTracer  # it loads torch's symbolic sizes

    return SizeTracer(*how)


class Run:
    """One capture while it is written: the hooks, the writer, the recorder and what they remember."""

    def __init__(
        self, slots: list[Slot], selection: Selection, writer: _core.Writer, program: str | bool, stop: bool,
        level: str = "module", sizes: bool = False,
    ) -> None:
        self.slots = slots
        self.selection = selection
        self.writer = writer
        self.stop = stop
        self.stopped = False
        self.failure: OSError | None = None  # the writer's: nothing more can be stored
        self.weights = Weights(slots, self._put, writer.name, self.note)
        self._only_summaries = level == "stats"
        keeper = OpKeeper(self._put_op, self._store_ops) if level == "op" else None
        self.recorder = Recorder(self._store_constant, self.weights.name_of, keeper, self._log_program) if program else None
        self.tracer = _tracer(self._store_constant, self.weights.name_of) if sizes else None
        self._recorded_step = 0
        self._selected = {slot.name for slot in slots if slot.selected}
        self._op_texts: dict[tuple[str, ...], str] = {}
        self.share_programs = program == "once"
        self._recorder_lock = threading.Lock()  # held by the call that is being recorded
        self._recording_thread = 0  # dispatch modes belong to a thread
        self._local = threading.local()
        self._handles: list[Any] = []
        self._places: list[tuple[Any, int]] = []  # the modules' dictionaries of hooks, and our key in each
        self._num_troubles = 0
        self._noted: set[tuple[str, str]] = set()
        self._direct_keys: set[int] = set()  # dispatch keys of tensors that were found to be direct
        self._snapshots: dict[int, tuple[list[Any], list[int], list[int], list[int]]] = {}
        self._constants: dict[int, str] = {}
        self._taps: dict[str, itertools.count] = {}

    # -------------------------------------------------------------- hooks on and off

    def attach(self) -> None:
        for slot in self.slots:
            if isinstance(slot.module, torch.jit.ScriptModule):
                self.note("warning", slot.name, "not captured: script modules take no hooks")
                continue
            if is_compiled(slot.module):
                self.note("warning", slot.name, "compiled: the modules inside may not be seen")
            if slot.selected or slot.is_root:
                module = slot.module
                before = module.register_forward_pre_hook(_Before(self, slot), with_kwargs=True)
                self._handles.append(before)
                self._places.append((module._forward_pre_hooks, before.id))
                after = module.register_forward_hook(_After(self, slot), with_kwargs=True, always_call=True)
                self._handles.append(after)
                self._places.append((module._forward_hooks, after.id))

    def detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._places.clear()
        if self.recorder is not None:
            self.recorder.abandon()
        self._snapshots.clear()

    def _go_last(self) -> None:
        """Hooks that were added after ours may change inputs or outputs: ours are moved behind them, for the calls to come."""
        for hooks, key in self._places:
            if next(reversed(hooks), key) != key and key in hooks:
                hooks.move_to_end(key)

    # -------------------------------------------------------------- the hooks

    def before(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.stopped:
            return
        caller = sys._getframe(2)
        stack = self._stack()
        while stack and not _is_inside(caller, stack[-1].caller):
            self._discard(stack, len(stack) - 1)
        begins_step = slot.is_root and not (stack and any(frame.slot.is_root for frame in stack))
        if begins_step and self.stop and slot.num_steps:
            self.stopped = True
            raise StopRun
        try:
            if begins_step:
                step = slot.num_steps
                slot.num_steps += 1
                self._go_last()
            else:
                step = stack[-1].step if stack else slot.root.num_steps
            frame = _Frame(slot, next(slot.calls), step, id(caller), id(caller.f_back))
            slot.num_calls = frame.call + 1
            stack.append(frame)
            if self.failure is None:
                self._enter(frame, args, kwargs, begins_step)
        except Exception as error:
            self._trouble(error, f"the inputs of {slot.name or 'the root'}")

    def after(self, slot: Slot, output: Any) -> None:
        if self.stopped:
            return
        try:
            stack = self._stack()
            place = id(sys._getframe(2))
            for i in range(len(stack) - 1, -1, -1):
                frame = stack[i]
                if frame.slot is slot and frame.caller == place:
                    self._discard(stack, i + 1)  # they ended with an exception that forward caught
                    stack.pop()
                    self._exit(frame, output)
                    return
                if frame.slot is slot and frame.below == place:  # called after an exception
                    self._discard(stack, i)
                    return
        except Exception as error:
            self._trouble(error, f"the outputs of {slot.name or 'the root'}")

    def _stack(self) -> list[_Frame]:
        try:
            return self._local.stack
        except AttributeError:
            self._local.stack = []
            return self._local.stack

    def _discard(self, stack: list[_Frame], first: int) -> None:
        """Calls from `first` on have ended with exceptions."""
        while len(stack) > first:
            frame = stack.pop()
            if frame.records and self.recorder is not None:
                self._recording_thread = 0
                self.recorder.abandon()
                self._recorder_lock.release()

    def _enter(self, frame: _Frame, args: tuple[Any, ...], kwargs: dict[str, Any], begins_step: bool) -> None:
        slot = frame.slot
        if not kwargs and len(args) == 1 and type(args[0]) in PLAIN_TENSORS:
            form, values = slot.forms[0].get(LONE), _Values(args)
            if form is None:
                tokens = (structure.DICT, ("0",), structure.LEAF)
                form = self._form(slot, 0, LONE, tokens, slot.parameters.bind(args, kwargs)[0])
        else:
            names, arguments = slot.parameters.bind(args, kwargs)
            walker = structure.Walker(is_leaf)
            walker.tokens += (structure.DICT, slot.parameters.places(len(arguments)))
            for value in arguments:
                walker.walk(value)
            form = self._form(slot, 0, (names, *walker.tokens), walker.tokens, names)
            values = _Values(walker.leaves, walker.cached, walker.lost)
        if slot.selected:
            self._store(frame, 0, values, form)
        if self.recorder is not None:
            self._record_entry(frame, values.leaves, form, begins_step)
            if self.tracer is not None and frame.records:
                self.tracer.before(slot, args, kwargs)

    def _record_entry(self, frame: _Frame, leaves: Any, form: Form, begins_step: bool) -> None:
        recorder, slot = self.recorder, frame.slot
        me = threading.get_ident()
        # Outside a root call too: generation with an encoder runs the encoder before the model's first step.
        begins = (begins_step or len(self._stack()) == 1) and self._recording_thread != me
        if not begins and self._recording_thread != me:
            return
        tensors = [leaf for leaf in zip(form.paths, leaves) if isinstance(leaf[1], torch.Tensor)]
        if begins:
            if not self._recorder_lock.acquire(blocking=False):
                return  # a call in another thread is being recorded
            frame.records = True
            described = (slot.name, slot.module.training, form.tree)
            pattern = pattern_of(tensors, described) if self.share_programs else None
            if not recorder.begin(slot.name, frame.call, pattern):
                frame.records = False
                self._recorder_lock.release()
                return
            self._recording_thread = me
            self._recorded_step = frame.step
        recorder.enter(slot.name, frame.call, tensors)

    def _exit(self, frame: _Frame, output: Any) -> None:
        slot = frame.slot
        try:
            if self.failure is not None:
                return
            if type(output) in PLAIN_TENSORS:
                form, values = slot.forms[1].get(LONE), _Values((output,))
                if form is None:
                    form = self._form(slot, 1, LONE, (structure.LEAF,))
            else:
                walker = structure.Walker(is_leaf)
                walker.walk(output)
                form = self._form(slot, 1, tuple(walker.tokens), walker.tokens)
                values = _Values(walker.leaves, walker.cached, walker.lost)
            recorder = self.recorder
            if recorder is not None and self._recording_thread == threading.get_ident():
                tensors = [leaf for leaf in zip(form.paths, values.leaves) if isinstance(leaf[1], torch.Tensor)]
                recorder.exit(slot.name, frame.call, tensors)
        finally:
            if frame.records:
                self._recording_thread = 0
                program = self.recorder.end()
                if self.tracer is not None:
                    self.tracer.after(frame.call, program)
                self._recorder_lock.release()
        if slot.selected:
            self._store(frame, 1, values, form)

    # -------------------------------------------------------------- storing

    def _form(self, slot: Slot, phase: int, key: Any, tokens: Any, names: tuple[str, ...] | None = None) -> Form:
        forms = slot.forms[phase]
        form = forms.get(key)
        if form is None:
            prefix = naming.prefix(slot.name, 0, naming.PHASES[phase])
            form = make_form(self.selection, prefix, tuple(tokens), names)
            if len(forms) >= MAX_FORMS:
                forms.clear()
            forms[key] = form
        return form

    def _store(self, frame: _Frame, phase: int, values: _Values, form: Form) -> None:
        name = frame.slot.name
        for reason in values.lost:
            self._note_dropped(naming.prefix(name, 0, naming.PHASES[phase]).rstrip("."), reason)
        dropped = self._send(name, frame.call, frame.step, phase, values, form)
        for path, reason in dropped.items():
            self._note_dropped(naming.full_name(name, 0, naming.PHASES[phase], path), reason)

    def _send(self, name: str, call: int, step: int, phase: int, values: _Values, form: Form) -> dict[str, str]:
        """Stores the leaves that are kept and records the call. Returns why others could not be kept, by their paths."""
        leaves, cached, text, paths = values.leaves, values.cached, form.text, form.kept_paths
        if len(paths) != len(leaves):
            leaves = [leaves[i] for i in form.kept]
            cached = [(bisect_left(form.kept, begin), bisect_left(form.kept, end), cache) for begin, end, cache in cached]
        items: list[Any] = []
        held: list[Any] = []  # copies that the items point to
        fresh: list[Any] = []
        end = 0
        for first, last, cache in cached:
            self._add_items(items, held, leaves[end:first])
            fresh.append((first, last, cache, self._add_cached(items, held, leaves[first:last], cache)))
            end = last
        self._add_items(items, held, leaves[end:] if end else leaves)
        dropped: dict[int, str] = {}
        if held:
            self._put_arrays(items, dropped, (name, call, phase), paths)
            if dropped:
                text, paths = form.without(dropped)
                items = [item for i, item in enumerate(items) if i not in dropped]
        if self._only_summaries:
            prefix = naming.prefix(name, call, naming.PHASES[phase])
            items = [self.writer.put_summary(*item, f"{prefix}{path}") if isinstance(item, tuple) else item for item, path in zip(items, paths)]
        ids = self.writer.call_tensors(name, call, step, phase, text, paths, items)
        if dropped:
            return {form.kept_paths[i]: reason for i, reason in dropped.items()}
        for first, last, cache, snapshot in fresh:
            if snapshot is not None:
                if len(self._snapshots) >= MAX_SNAPSHOTS:
                    self._snapshots.clear()
                self._snapshots[cache] = (*snapshot, ids[first:last])
        return {}

    def _add_items(self, items: list[Any], held: list[Any], leaves: Any) -> None:
        """Appends what the writer takes for each leaf, and to `held` what must live until it has: also arrays and errors."""
        direct = self._direct_keys
        for leaf in leaves:
            number = None
            if type(leaf) in PLAIN_TENSORS and dispatch_keys(leaf).raw_repr() in direct:
                number = DTYPE_NUMBERS.get(leaf.dtype)
            if number is not None:
                items.append((leaf.data_ptr(), number, leaf.shape, leaf.stride()))
            elif isinstance(leaf, torch.Tensor):
                try:
                    items.append(self._memory(leaf, held))
                except DroppedError as error:
                    held.append(error)
                    items.append(error)
            else:
                held.append(leaf)
                items.append(leaf)

    def _memory(self, tensor: torch.Tensor, held: list[Any]) -> tuple[Any, ...]:
        """(pointer, dtype, shape, strides) of a tensor's values.

        Raises
        ------
        DroppedError : it has none that can be kept
        """
        try:
            if not is_direct(tensor):
                tensor = dense(tensor)
                held.append(tensor)
                return tensor.data_ptr(), DTYPE_NUMBERS[tensor.dtype], tensor.shape, tensor.stride()
            memory = tensor.data_ptr(), DTYPE_NUMBERS[tensor.dtype], tensor.shape, tensor.stride()
        except RuntimeError as error:  # functorch's wrappers look like plain tensors
            raise DroppedError(f"its values cannot be read: {str(error).splitlines()[0]}") from None
        self._direct_keys.add(dispatch_keys(tensor).raw_repr())
        return memory

    def _put_arrays(
        self, items: list[Any], dropped: dict[int, str], where: tuple[str, int, int], paths: tuple[str, ...]
    ) -> None:
        """Replaces arrays by their ids, and notes in `dropped` which items are none, by their place."""
        name, call, phase = where
        for i, item in enumerate(items):
            if isinstance(item, DroppedError):
                dropped[i] = str(item)
            elif not isinstance(item, (int, tuple)):
                try:
                    kept = np.frombuffer(_core.summarize(item), np.uint8) if self._only_summaries else item
                    items[i] = self.writer.put(kept, naming.full_name(name, call, naming.PHASES[phase], paths[i]))
                except TypeError as error:
                    dropped[i] = str(error)

    def _add_cached(self, items: list[Any], held: list[Any], leaves: list[Any], cache: int) -> Any:
        """`_add_items` for what sits in a cache. A decode step passes every layer's keys and values to every module: tensors
        that are the same objects, at the same place and at the same version as last time are not read again.

        Returns what has to be remembered of them, but for their ids; None: nothing new, or it cannot be.
        """
        try:
            versions = list(map(_version_of, leaves))
            pointers = list(map(torch.Tensor.data_ptr, leaves))
        except (RuntimeError, AttributeError, TypeError, NotImplementedError):  # without versions (inference mode), no memory
            self._add_items(items, held, leaves)
            return None
        known = self._snapshots.get(cache)
        if known is None:
            self._add_items(items, held, leaves)
            return [weakref.ref(leaf) for leaf in leaves], versions, pointers
        references, old_versions, old_pointers, ids = known
        same = list(map(operator.is_, leaves, [reference() for reference in references]))
        if versions == old_versions and pointers == old_pointers and all(same) and len(same) == len(leaves):
            items += ids
            return None
        references = references[: len(leaves)]
        for i, leaf in enumerate(leaves):
            if i < len(same) and same[i] and versions[i] == old_versions[i] and pointers[i] == old_pointers[i]:
                items.append(ids[i])
                continue
            self._add_items(items, held, (leaf,))
            references[i : i + 1] = [weakref.ref(leaf)]
        return references, versions, pointers

    def _put(self, tensor: torch.Tensor, key: str) -> int:
        held: list[Any] = []
        return self.writer.put_pointer(*self._memory(tensor, held), key)

    def _store_constant(self, tensor: torch.Tensor) -> str:
        """For the recorder: a tensor that is neither an input nor a parameter. Equal tensors get the same name."""
        name = f"const:{len(self._constants)}"
        tensor_id = self._put(tensor, name)
        if tensor_id not in self._constants:
            self._constants[tensor_id] = name
            self.writer.name(name, tensor_id)
        return self._constants[tensor_id]

    def _put_op(self, tensor: torch.Tensor, module: str, call: int, leaf: str) -> int | None:
        """For the keeper: stores a tensor that an op made or took."""
        if module not in self._selected or not self.selection.takes_tensor(naming.full_name(module, 0, "op", leaf)):
            return None
        if self.failure is not None:
            return None
        try:
            with _disable_current_modes():
                return self._put(tensor, naming.full_name(module, call, "op", leaf))
        except DroppedError as error:
            self._note_dropped(naming.full_name(module, 0, "op", leaf), str(error))
        except OSError as error:
            self._trouble(error, naming.full_name(module, call, "op", leaf))
        return None

    def _store_ops(self, module: str, call: int, leaves: Sequence[str], ids: Sequence[int]) -> None:
        """For the keeper: the record of the ops of one module call."""
        leaves = tuple(leaves)
        text = self._op_texts.get(leaves)
        if text is None:
            if len(self._op_texts) >= MAX_FORMS:
                self._op_texts.clear()
            text = structure.to_json(leaves, {"list": [{"$": i} for i in range(len(leaves))]})
            self._op_texts[leaves] = text
        try:
            self.writer.call(module, call, self._recorded_step, 3, text, ids)
        except Exception as error:
            self._trouble(error, f"the ops of {module or 'the root'}")

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
            lone = walker.tokens[0] is structure.LEAF
            form = make_form(self.selection, name if lone else f"{name}.", tuple(walker.tokens), lone="")
            values = _Values(walker.leaves, walker.cached, walker.lost)
            for reason in [*walker.lost, *self._send(name, call, step, 2, values, form).values()]:
                self._note_dropped(name, reason)
        except Exception as error:
            self._trouble(error, f"the tap {name!r}")

    def _log_program(self, line: dict[str, Any]) -> None:
        """For the recorder: what it knows so far is in a file, in case that the capture is never closed."""
        if self.failure is not None:
            return
        try:
            with open(os.path.join(self.writer.path, "program.jsonl"), "ab", buffering=0) as file:
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            self._trouble(error, "a recorded program")

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
        self._num_troubles += 1
        if self._num_troubles == 1:
            try:
                warnings.warn(f"porting: {reason}. The model's run is not affected.", RuntimeWarning, stacklevel=2)
            except Warning:  # warnings are errors here; the note remains
                return


skip_compilation(_Before.__call__, _After.__call__, Run.before, Run.after)


def _is_inside(frame: FrameType | None, outer: int) -> bool:
    """True if one of the frames below `frame` has the id `outer`."""
    while frame is not None:
        frame = frame.f_back
        if id(frame) == outer:
            return True
    return False
