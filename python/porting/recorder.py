"""Notes the ATen ops that a model executes, as the programs of docs/PROGRAM.md.

`Recorder` is a dispatch mode. It sees every op after autograd and autocast have acted, writes down its name, its arguments and
which values it made, runs it, and hands its result on untouched. Values are numbered by the identity of the tensor object;
only weak references are held, so nothing lives longer than it would have.

What it does not do: it stores no intermediate tensors (the capture has the modules' inputs and outputs; an `OpKeeper` that it is given is told of every op's), it runs no torch op,
and it never raises into the model: a call that cannot be recorded becomes a program with a `reason` and no modules.
It does not see what happens outside the dispatcher: `Tensor.numpy()` sharing memory, `Tensor.data =`, `tolist()`.
Nor that a batch norm in training changes its running statistics: the op's schema does not say so. In eval mode it does not.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from .keeping import UNINITIALISED, OpKeeper
from .merging import DATA_DEPENDENT, depends_on_data
from .patterns import Pattern, as_pattern, dtype_name, pattern_of
from .sharing import Shared

__all__ = ["FORMAT", "RANDOM", "Op", "Pattern", "Recorder", "pattern_of", "skip_compilation"]

FORMAT = {"format": "porting.program", "version": 1}

_MEMORY_FORMATS = {
    torch.contiguous_format: "contiguous", torch.channels_last: "channels_last",
    torch.preserve_format: "preserve", torch.channels_last_3d: "channels_last_3d",
}  # fmt: skip
_PLAIN = frozenset((int, bool, str, type(None)))
_TENSORS = frozenset((torch.Tensor, torch.nn.Parameter))
_NO_ARGUMENTS: dict[str, Any] = {}
_VECTOR_BYTES = 16  # what a library's small products look at: parameters read from files (safetensors) need not begin there
_Cache = type(functools.lru_cache(lambda: None))
_OUTSIDE = -1  # "made at op" of a value that no op made

# Shares memory with its argument although its schema does not say so.
_UNDECLARED_VIEWS = frozenset(("aten._unsafe_view.default",))


# ---------------------------------------------------------------- what is known about an op


#: Ops that draw numbers. What they drew in the recorded call stands in the program as a constant.
RANDOM = frozenset("""rand rand_like randn randn_like randint randint_like randperm normal bernoulli multinomial uniform_ normal_ bernoulli_ random_
    exponential_ cauchy_ geometric_ log_normal_ poisson binomial _standard_gamma _sample_dirichlet native_dropout uniform exponential random""".split())
#: Ops that change a tensor's shape or strides in place: recorded as the view, which is a value of its own from there on.
_RESHAPING = {f"aten.{op}_.{overload}": f"aten.{op}.{'int' if op == 'transpose' else overload}" for op, overload in (
    ("transpose", "default"), ("t", "default"), ("squeeze", "default"), ("squeeze", "dim"), ("squeeze", "dims"), ("unsqueeze", "default"),
    ("as_strided", "default"), ("detach", "default"))}  # fmt: skip


class Op:
    """One overload: how it is named and which of its arguments it changes or aliases."""

    __slots__ = ("name", "skip", "composite", "writes", "view_of", "data_dependent", "indexes", "random", "stored", "reshapes")

    def __init__(self, func: Any) -> None:
        self.name = str(func)
        self.skip = False
        self.composite = False
        self.writes: tuple[int | str, ...] = ()
        self.view_of: int | None = None
        self.data_dependent = False
        self.indexes = False
        self.random = False
        self.stored = True  # where tensors of ops are kept: its results are
        self.reshapes = self.name in _RESHAPING
        schema = getattr(func, "_schema", None)
        if schema is None:  # a higher-order operator
            self.name = f"higher_order.{getattr(func, '_name', self.name)}"
            return
        self.skip = schema.name.startswith("profiler::")
        self.data_dependent = schema.name.removeprefix("aten::") in DATA_DEPENDENT
        self.indexes = schema.name == "aten::index"  # by a mask, perhaps
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        full = func.name()
        self.composite = has(full, "CompositeImplicitAutograd") and not has(full, "CPU") and not has(full, "CUDA")
        writes: list[int | str] = []
        for i, argument in enumerate(schema.arguments):
            alias = argument.alias_info
            if alias is None:
                continue
            if alias.is_write:
                writes.append(argument.name if argument.kwarg_only else i)
            elif self.view_of is None and any(r.alias_info is not None for r in schema.returns):
                self.view_of = i
        self.writes = tuple(writes)
        self.random = schema.name.removeprefix("aten::") in RANDOM
        self.skip = self.skip or (self.random and not writes)  # its result is then a constant of the program
        if self.name in _UNDECLARED_VIEWS:
            self.view_of = 0
        if self.reshapes:
            self.name, self.writes, self.view_of, writes = _RESHAPING[self.name], (), 0, []
        self.stored = bool(writes) or (self.view_of is None and schema.name.removeprefix("aten::") not in UNINITIALISED)


# ---------------------------------------------------------------- one root call


class _Value(int):
    """The number of a value among the arguments of an op. While a call runs, ops are tuples of plain values and of these: the
    garbage collector stops looking at such tuples, while it would walk lists and dicts again and again."""

    __slots__ = ()


class _Interval:
    """A module call that has begun: what it was given, and how it got the values that it did not make."""

    __slots__ = ("name", "call", "begin", "inputs", "leaves", "sources", "captured", "reason", "seen", "kept")

    def __init__(self, name: str, call: int, begin: int) -> None:
        self.name = name
        self.call = call
        self.begin = begin
        self.inputs: dict[str, int] = {}
        self.leaves: set[int] = set()
        self.sources: set[int] = set()  # outside values that it has used
        self.captured: dict[int, str] = {}
        self.reason: str | None = None
        self.seen: set[int] = set()  # values for which this and all outer intervals are settled
        self.kept: list[tuple[str, int]] = []  # tensors of its ops: leaf path and id


class _Recording:
    """The program of one root call while it is being made."""

    def __init__(self, root: str, call: int, pattern: Pattern | None) -> None:
        self.root = root
        self.call = call
        self.pattern = pattern
        self.ids: dict[int, int] = {}  # id of a tensor object -> value; only true if `weak` says that it is that object
        self.values: list[tuple[Any, ...]] = []
        self.references: list[_Value] = []
        self.made: list[int] = []
        self.base: list[int] = []  # a value that shares its memory: the first known
        self.weak: list[weakref.ref] = []
        self.storages: dict[int, int] = {}
        self.changes: dict[int, tuple[int, int]] = {}  # base -> (number of in-place ops, the last one)
        self.ops: list[tuple[Any, ...]] = []
        self.parameters: dict[int, str] = {}
        self.constants: dict[int, tuple[str, int]] = {}  # value -> (name, number of changes when it was stored)
        self.stored: dict[tuple[int, int], str] = {}  # (value, number of changes) -> name
        self.known: dict[int, int] = {}  # value -> number of changes of its memory that its kept content has seen
        self.modules: list[dict[str, Any]] = []
        self.stack: list[_Interval] = [_Interval("", 0, 0)]
        self.begin = 0
        self.seen = self.stack[0].seen
        self.data_dependent = False
        self.reason: str | None = None
        self.depth = 0  # root calls inside this one


class Recorder(TorchDispatchMode):
    """Records root calls: `begin` ... (`enter`, ops, `exit`)* ... `end`. `begin` switches it on and `end` or `abandon` off.

    Parameters
    ----------
    store_constant : stores a tensor in the capture and returns its name. Equal tensors should give equal names: calls whose
        constants have different names are not taken for the same program.
    parameter_name : the path of a parameter or buffer, else None.
    log : is given every change of `programs()` when it happens, as a line of program.jsonl (docs/PROGRAM.md).
    keeper : is told of every op's tensors. Then every call is recorded; calls that share a program are found equal to it.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the whole compiler at the first op; see skip_compilation

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # compiled parts of a model stay compiled

    def __init__(
        self,
        store_constant: Callable[[torch.Tensor], str],
        parameter_name: Callable[[torch.Tensor], str | None],
        keeper: OpKeeper | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        super().__init__()
        self._log = log or (lambda line: None)
        self._keeper = keeper
        self._store_constant = store_constant
        self._parameter_name = parameter_name
        self._known_ops: dict[Any, Op] = {}
        self._encodings: dict[Any, Any] = {}
        self._recording: _Recording | None = None
        self._active = False
        self._programs: list[dict[str, Any]] = []
        self._patterns: dict[Hashable, Shared] = {}
        self._parameter_versions: dict[str, int] = {}

    # ------------------------------------------------------------ root calls

    def wants(self, pattern: Hashable) -> bool:
        """Whether a call of this pattern (`pattern_of`; None: never shared) has to be recorded."""
        shared = self._patterns.get(as_pattern(pattern))
        return shared is None or shared.wants or self._keeper is not None

    def begin(self, root: str, call: int, pattern: Hashable = None) -> bool:
        """Start of a root call. Switches recording on and returns True; or, if the pattern's program is complete, lets that
        program stand for this call too and returns False (`end` may be called all the same). A root call inside
        a root call is part of the outer one."""
        if self._recording is not None:
            self._recording.depth += 1
            return True
        key = as_pattern(pattern)
        if key is not None and not self.wants(key):
            shared = self._patterns[key]
            shared.attach(call, key)
            self._log({"attach": shared.place, "call": call, "symbols": list(key.symbols)})
            return False
        self._recording = _Recording(root, call, key)
        self._switch_on()
        return True

    def end(self) -> dict[str, Any] | None:
        """End of a root call: its program is kept, and returned as it was recorded; None where the call was part of another."""
        recording = self._recording
        if recording is None:
            return None
        if recording.depth:
            recording.depth -= 1
            return None
        self._stop(recording)
        program = _finish(recording)
        self._keep(recording, program)
        return program

    def _keep(self, recording: _Recording, program: dict[str, Any]) -> None:
        pattern = recording.pattern
        if pattern is None:
            self._add_program(program)
            return
        shared = self._patterns.get(pattern)
        if shared is None:
            shared = self._patterns[pattern] = Shared(len(self._programs))
        wanted = shared.wants
        if shared.add(program, recording.data_dependent) is not None:
            self._add_program(program)
        elif wanted:
            self._log({"replace": shared.place, "program": shared.program})
        else:
            self._log({"attach": shared.place, "call": recording.call, "symbols": list(pattern.symbols)})

    def _add_program(self, program: dict[str, Any]) -> None:
        self._programs.append(program)
        self._log({"program": program})

    def abandon(self) -> None:
        """The root call ended with an exception: the modules that had returned before it keep their programs."""
        recording = self._recording
        if recording is None:
            return
        if recording.depth:
            recording.depth -= 1
            return
        self._stop(recording)
        if recording.modules:
            self._add_program(_finish(recording))

    def _stop(self, recording: _Recording) -> None:
        self._end_calls(recording, 1)
        self._switch_off()
        self._recording = None
        recording.ids.clear()
        recording.weak.clear()

    def programs(self) -> list[dict[str, Any]]:
        """The programs so far, in the form of docs/PROGRAM.md, in the order of their first calls."""
        return list(self._programs)

    def __enter__(self) -> Recorder:
        return self  # begin() has switched it on

    def __exit__(self, *exc: object) -> None:
        return None

    def _switch_on(self) -> None:
        super().__enter__()
        self._active = True

    def _switch_off(self) -> None:
        if not self._active:
            return
        self._active = False
        above = []  # modes that the model entered and did not leave
        while torch._C._len_torch_dispatch_stack() and torch.utils._python_dispatch._get_current_dispatch_mode() is not self:
            above.append(torch.utils._python_dispatch._pop_mode())
        super().__exit__(None, None, None)
        for mode in reversed(above):
            torch.utils._python_dispatch._push_mode(mode)

    def _fail(self, recording: _Recording, reason: str) -> None:
        if recording.reason is None:
            recording.reason = reason

    # ------------------------------------------------------------ module boundaries

    def enter(self, module: str, call: int, leaves: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Call number `call` of `module` begins with these input tensors (leaf path, tensor)."""
        recording = self._recording
        if recording is None:
            return
        interval = _Interval(module, call, len(recording.ops))
        try:
            for path, tensor in leaves:
                value = self._find(recording, tensor)
                if value is None:
                    value = self._add_value(recording, tensor, _OUTSIDE, None)
                if self._keeper is not None:
                    self._keeper.first_seen(recording, value)
                interval.inputs[path] = value
            interval.leaves.update(interval.inputs.values())
        except Exception as error:
            self._fail(recording, f"{module}: inputs not recorded: {error}")
        recording.stack.append(interval)
        recording.begin = interval.begin
        recording.seen = interval.seen

    def exit(self, module: str, call: int, leaves: Iterable[tuple[str, torch.Tensor]]) -> None:
        """That call returned these tensors. Calls inside it that never returned (an exception that the model caught) are left out."""
        recording = self._recording
        if recording is None:
            return
        stack = recording.stack
        depth = len(stack) - 1
        while depth > 0 and (stack[depth].name != module or stack[depth].call != call):
            depth -= 1
        if depth == 0:
            return
        self._end_calls(recording, depth)
        del stack[depth + 1 :]
        interval = stack[-1]
        recording.begin, recording.seen = interval.begin, interval.seen
        outputs = {}
        try:
            for path, tensor in leaves:
                # A tensor that no op made, that is nobody's parameter and that no cache kept came from outside the dispatcher: left out.
                if self._find(recording, tensor) is not None or self._parameter_name(tensor) is not None or _is_kept(tensor):
                    outputs[path] = int(self._use(recording, tensor))
        except Exception as error:
            self._fail(recording, f"{module}: outputs not recorded: {error}")
        stack.pop()
        recording.begin, recording.seen = stack[-1].begin, stack[-1].seen
        entry: dict[str, Any] = {
            "name": module, "call": call, "begin": interval.begin, "end": len(recording.ops),
            "inputs": interval.inputs, "outputs": outputs,
        }  # fmt: skip
        if interval.captured:
            entry["captured"] = {str(v): name for v, name in interval.captured.items()}
        if interval.reason:
            entry["reason"] = interval.reason
        recording.modules.append(entry)

    def _end_calls(self, recording: _Recording, depth: int) -> None:
        """The open calls from `depth` on have ended: what was kept of their ops is recorded."""
        if self._keeper is not None:
            for interval in reversed(recording.stack[depth:]):
                self._keeper.end_call(interval)

    # ------------------------------------------------------------ ops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        op = self._known_ops.get(func)
        if op is None:
            op = self._known_ops[func] = Op(func)
        if op.composite and not any(isinstance(a, torch.Tensor) and a.is_nested for a in args):
            # Inference mode lets a composite op come here. Its own C++ kernel is run with this mode still on; nested tensors have others.
            with _Again(self):
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **(kwargs or {}))
        recording = self._recording
        if recording is None or recording.reason is not None or op.skip:
            return func(*args, **kwargs) if kwargs else func(*args)
        try:
            ids, weak = recording.ids, recording.weak
            encoded = []
            for a in args:
                kind = type(a)
                if kind in _TENSORS:
                    value = ids.get(id(a))
                    if value is None or weak[value]() is not a:
                        value = self._add_value(recording, a, _OUTSIDE, None)
                    if recording.made[value] < recording.begin and value not in recording.seen:
                        self._reach(recording, value, a)
                    encoded.append(recording.references[value])
                elif kind in _PLAIN:
                    encoded.append(a)
                else:
                    encoded.append(self._encode(recording, a))
            named = tuple([(k, self._encode(recording, a)) for k, a in kwargs.items()]) if kwargs else ()
            if self._keeper is not None and recording.changes:
                tensors = [t for t in _flatten_result((args, tuple(kwargs.values()) if kwargs else ())) if isinstance(t, torch.Tensor)]
                self._keeper.before(recording, op.name, [(int(self._use(recording, t)), t) for t in tensors])
            if op.writes:
                self._note_changes(recording, op, args, kwargs or _NO_ARGUMENTS)
        except Exception as error:
            self._fail(recording, f"{op.name}: arguments not recorded: {error}")
        result = func(*args, **kwargs) if kwargs else func(*args)
        if recording.reason is None:
            try:
                self._add_op(recording, op, tuple(encoded), named, result)
            except Exception as error:
                self._fail(recording, f"{op.name}: results not recorded: {error}")
        return result

    def _add_drawn(self, recording: _Recording, changed: _Value, result: torch.Tensor) -> None:
        """An op that fills its argument with random numbers is recorded as a copy of what it drew."""
        with _disable_current_modes():
            drawn = result.detach().clone()
        value = self._add_value(recording, drawn, _OUTSIDE, None)
        self._reach(recording, value, drawn)
        recording.ops.append(("aten.copy_.default", (changed, recording.references[value]), (), (int(changed),)))
        if self._keeper is not None:
            self._keeper.after(recording, len(recording.ops) - 1, "aten.copy_.default", True, iter([(0, int(changed), result)]))

    def _add_op(self, recording: _Recording, op: Op, encoded: tuple, named: tuple, result: Any) -> None:
        number = len(recording.ops)
        if op.data_dependent or op.indexes and depends_on_data("index", _dtypes_in(recording, encoded[1:])):
            recording.data_dependent = True
        if op.random:
            self._add_drawn(recording, encoded[0], result)
            return
        base = None
        if op.view_of is not None and op.view_of < len(encoded):
            reference = encoded[op.view_of]
            if type(reference) is _Value:
                base = recording.base[reference]
        if isinstance(result, torch.Tensor):
            value = None if op.reshapes else self._find(recording, result)
            if value is None:
                value = self._add_value(recording, result, number, base)
            elif not op.writes and any(e is recording.references[value] for e in encoded):
                return  # it returned its argument itself (lift_fresh)
            recording.ops.append((op.name, encoded, named, (value,)))
            if self._keeper is not None:
                self._keeper.after(recording, number, op.name, op.stored, iter([(0, value, result)]))
            return
        outputs: list[int | None] = []
        scalars: list[Any] = []
        for item in _flatten_result(result):
            if isinstance(item, torch.Tensor):
                value = self._find(recording, item)
                outputs.append(self._add_value(recording, item, number, base) if value is None else value)
            else:
                outputs.append(None)
                if item is not None:
                    scalars.append(self._encode(recording, item))
        if not any(v is not None for v in outputs):
            outputs = []  # the op returns nothing, or Python values
        if scalars and not outputs:
            answer = scalars[0] if len(scalars) == 1 else tuple(scalars)
            recording.ops.append((op.name, encoded, named, (), answer))
        else:
            recording.ops.append((op.name, encoded, named, tuple(outputs)))
        if self._keeper is not None:
            made = ((i, v, t) for i, (v, t) in enumerate(zip(outputs, _flatten_result(result))) if v is not None)
            self._keeper.after(recording, number, op.name, op.stored, made)

    # ------------------------------------------------------------ arguments

    def _encode(self, recording: _Recording, a: Any) -> Any:
        kind = type(a)
        if kind in _PLAIN:
            return a
        if kind in _TENSORS or isinstance(a, torch.Tensor):
            return self._use(recording, a)
        if kind is float:
            return a if a - a == 0.0 else {"float": "nan" if a != a else "inf" if a > 0 else "-inf"}
        if kind is list or kind is tuple or isinstance(a, (list, tuple)):
            return tuple([x if type(x) in _PLAIN else self._encode(recording, x) for x in a])
        try:
            return self._encodings[a]
        except (KeyError, TypeError):
            pass
        encoded = _encode_other(a)
        if isinstance(a, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
            self._encodings[a] = encoded
        return encoded

    def _find(self, recording: _Recording, tensor: torch.Tensor) -> int | None:
        value = recording.ids.get(id(tensor))
        return value if value is not None and recording.weak[value]() is tensor else None

    def _use(self, recording: _Recording, tensor: torch.Tensor) -> _Value:
        value = self._find(recording, tensor)
        if value is None:
            value = self._add_value(recording, tensor, _OUTSIDE, None)
        if recording.made[value] < recording.begin and value not in recording.seen:
            self._reach(recording, value, tensor)
        return recording.references[value]

    def _add_value(self, recording: _Recording, tensor: torch.Tensor, made: int, base: int | None) -> int:
        value = len(recording.values)
        if tensor.layout is torch.strided:
            recording.values.append((tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()))
            if made == _OUTSIDE:
                storage = tensor.untyped_storage()._cdata
                base = recording.storages.get(storage)
                if base is None or not _is_reachable(recording, base):  # the address of freed memory comes again
                    base = recording.storages[storage] = value
                name = self._current_parameter_name(tensor)
                if name is not None:
                    recording.parameters[value] = name
                    lead = (self._address(tensor) - tensor.storage_offset() * tensor.element_size()) % 64
                    if lead % _VECTOR_BYTES:
                        recording.values[value] += (lead,)
        else:  # without strides there are no kernels: the ops are reported by name
            recording.values.append((tensor.dtype, tuple(tensor.shape), (), 0))
        recording.references.append(_Value(value))
        recording.made.append(made)
        recording.weak.append(weakref.ref(tensor))
        recording.ids[id(tensor)] = value
        recording.base.append(value if base is None else base)
        return value

    def _address(self, parameter: torch.Tensor) -> int:
        return parameter.data_ptr()

    def _current_parameter_name(self, tensor: torch.Tensor) -> str | None:
        """The parameter's name, unless it has been changed in place since it was first used (its stored value is another)."""
        name = self._parameter_name(tensor)
        if name is not None and not tensor.is_inference():
            version = tensor._version
            if self._parameter_versions.setdefault(name, version) != version:
                return None
        return name

    # ------------------------------------------------------------ values from outside an interval

    def _reach(self, recording: _Recording, value: int, tensor: torch.Tensor) -> None:
        """Settles for every open interval how it gets a value that it did not make and uses now for the first time."""
        recording.seen.add(value)
        made = recording.made[value]
        base = recording.base[value]
        count, last = recording.changes.get(base, (0, _OUTSIDE))
        for interval in reversed(recording.stack):
            if made >= interval.begin or value in interval.sources or interval is recording.stack[0]:
                break
            interval.sources.add(value)
            if last >= interval.begin:
                interval.reason = "a tensor is changed in place and then used through another view of the same memory"
            elif value in interval.leaves or (value in recording.parameters and not count):
                continue
            elif made == _OUTSIDE:
                self._settle_constant(recording, interval, value, tensor, count)
            else:
                interval.captured[value] = self._store(recording, value, tensor, count)

    def _settle_constant(self, recording: _Recording, interval: _Interval, value: int, tensor: torch.Tensor, count: int) -> None:
        constant = recording.constants.get(value)
        name = self._store(recording, value, tensor, count)
        if constant is None and value not in recording.parameters:
            recording.constants[value] = (name, count)
        elif constant is None or constant[1] != count:
            interval.captured[value] = name

    def _store(self, recording: _Recording, value: int, tensor: torch.Tensor, count: int) -> str:
        name = recording.stored.get((value, count))
        if name is None:
            with _disable_current_modes():
                name = recording.stored[value, count] = self._store_constant(tensor)
        return name

    def _note_changes(self, recording: _Recording, op: Op, args: Any, kwargs: dict[str, Any]) -> None:
        """Before an op that changes arguments: parameters are stored as they still are, and intervals that would see the
        change through a second view that they were fed separately are marked."""
        for place in op.writes:
            tensors = kwargs.get(place) if isinstance(place, str) else args[place] if place < len(args) else None
            for tensor in tensors if isinstance(tensors, (list, tuple)) else (tensors,):
                if not isinstance(tensor, torch.Tensor):
                    continue
                value = int(self._use(recording, tensor))
                base = recording.base[value]
                count, _ = recording.changes.get(base, (0, _OUTSIDE))
                if not count:
                    self._keep_parameters(recording, base)
                for interval in recording.stack[1:]:
                    if sum(recording.base[v] == base for v in interval.sources) > 1:
                        interval.reason = "a tensor is changed in place that is also used through another view from outside"
                recording.changes[base] = (count + 1, len(recording.ops))

    def _keep_parameters(self, recording: _Recording, base: int) -> None:
        for value in [v for v in recording.parameters if recording.base[v] == base and v not in recording.constants]:
            tensor = recording.weak[value]()
            if tensor is not None:
                recording.constants[value] = (self._store(recording, value, tensor, 0), 0)


def skip_compilation(*functions: Any) -> None:
    """A compiler that is tracing the model must not trace these, nor what they call. torch's own way imports the whole compiler
    at the first call."""
    for function in functions:
        function._torchdynamo_disable = True  # not as a part of another function
        try:
            frames = torch._C._dynamo.eval_frame
            skip = frames._FrameAction.SKIP
            frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
        except (AttributeError, TypeError):  # another version of torch: programs of compiled models may then have a reason
            return


skip_compilation(Recorder.__torch_dispatch__)


class _Again:
    """Puts the mode back on the stack while a composite op runs its parts."""

    __slots__ = ("mode",)

    def __init__(self, mode: TorchDispatchMode) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        torch._C._push_on_torch_dispatch_stack(self.mode)

    def __exit__(self, *exc: object) -> None:
        torch._C._pop_torch_dispatch_stack(None)


def _is_reachable(recording: _Recording, base: int) -> bool:
    """Whether a tensor that is known to share this value's memory is still there. If none is, nothing known can see a change of it."""
    weak = recording.weak
    return weak[base]() is not None or any(b == base and weak[v]() is not None for v, b in enumerate(recording.base))


def _has_compiled() -> bool:
    """Whether a part of a model was compiled in this process."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    return frames is not None and bool(getattr(frames, "FRAME_COMPILE_COUNTER", True))


def _is_kept(tensor: torch.Tensor) -> bool:
    """Whether a `functools` cache holds this tensor, which no op of the recorded call made: an earlier run did, and it is a constant now.
    Memory that is not torch's own (numpy's), and what a compiled part of the model may have made unseen, is not taken for it."""
    if tensor.layout is not torch.strided or _has_compiled() or not tensor.untyped_storage().resizable():
        return False
    return any(type(owner) is _Cache for owner in gc.get_referrers(tensor))


def _flatten_result(result: Any) -> Iterable[Any]:
    if isinstance(result, (list, tuple)):
        for item in result:
            yield from _flatten_result(item)
    else:
        yield result


def _dtypes_in(recording: _Recording, arguments: Any) -> Iterable[str]:
    """The dtypes of the values among encoded arguments."""
    return (dtype_name(recording.values[a][0]) for a in _flatten_result(arguments) if type(a) is _Value)


def _encode_other(a: Any) -> Any:
    if isinstance(a, torch.dtype):
        return {"dtype": dtype_name(a)}
    if isinstance(a, torch.device):
        return {"device": str(a)}
    if isinstance(a, torch.layout):
        return {"layout": str(a).removeprefix("torch.")}
    if isinstance(a, torch.memory_format):
        return {"memory_format": _MEMORY_FORMATS[a]}
    if isinstance(a, complex):
        return {"complex": [repr(a.real), repr(a.imag)]}
    if isinstance(a, (int, float)):  # subclasses, for instance enums
        return int(a) if isinstance(a, int) else float(a)
    return {"opaque": type(a).__name__}


# ---------------------------------------------------------------- finished programs


def _finish(recording: _Recording) -> dict[str, Any]:
    symbols = list(recording.pattern.symbols) if recording.pattern is not None else []
    program: dict[str, Any] = {
        "root": recording.root, "calls": [recording.call], "symbols": ["kv"] * len(symbols), "recorded_symbols": symbols,
        "call_symbols": {str(recording.call): symbols} if symbols else {},
    }  # fmt: skip
    if recording.reason is not None:
        return {**program, "reason": recording.reason, "values": [], "ops": [], "parameters": {}, "constants": {}, "modules": []}
    program["values"] = [[dtype_name(d), list(shape), list(strides), *offsets] for d, shape, strides, *offsets in recording.values]
    program["ops"] = [
        [name, [_to_json(a) for a in args], {k: _to_json(a) for k, a in named}, list(outputs), *(_to_json(a) for a in answer)]
        for name, args, named, outputs, *answer in recording.ops
    ]
    # A parameter that the call changes is fed as it was before: from the constants.
    program["parameters"] = {str(v): name for v, name in recording.parameters.items() if v not in recording.constants}
    program["constants"] = {str(v): name for v, (name, _) in recording.constants.items()}
    program["modules"] = sorted(recording.modules, key=lambda m: (m["begin"], -m["end"]))
    return program


def _to_json(argument: Any) -> Any:
    kind = type(argument)
    if kind is _Value:
        return {"v": int(argument)}
    if kind is tuple:
        return {"list": [_to_json(a) for a in argument]}
    return argument
