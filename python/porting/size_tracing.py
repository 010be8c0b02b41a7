"""Which numbers of a recorded program follow the sizes of its inputs: the call once more, on tensors that have sizes and no data.

The sizes are torch's symbolic ones. The model's own Python runs on them, so that every number that it makes of a size is an expression, and
every question that it, or torch below it, asks of one (is there more than one token? are these equal?) is noted with its answer: these are
the conditions under which the program stands. What cannot be expressed is fixed at the recorded size, which is a condition, too.
At the recorded sizes the program has to be the recorded one, op by op.

The call runs on copies of the model and its arguments that hold no data. What it asks of data is answered as in the recorded call; the program
keeps that answer, and running it compares. Nothing here raises into the model: a call that cannot be traced gives a reason.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch._dynamo.source import ConstantSource
from torch._guards import SLoc
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._python_dispatch import _disable_current_modes

from . import structure
from .recorder import RANDOM, Op, Recorder
from .size_texts import Texts
from .sizes import MAX_SIZE, Traced
from .tensors import is_leaf

if TYPE_CHECKING:
    from .modules import Slot

__all__ = ["SizeTracer"]

_ANSWERED = frozenset(("aten._local_scalar_dense.default", "aten.equal.default"))
_LIFTS = frozenset(("aten.lift_fresh.default", "aten.lift_fresh_copy.default"))
_NOT_THE_MODEL = tuple(os.path.join(os.path.dirname(file), "") for file in (torch.__file__, __file__))
_SYMBOLIC = frozenset((torch.SymInt, torch.SymFloat, torch.SymBool))


class _NotTraceableError(Exception):
    pass


class SizeTracer:
    """Traces root calls: `before` with the arguments of one, `after` when it has returned and was recorded.

    Parameters
    ----------
    store_constant, parameter_name : as the recorder has them
    """

    def __init__(self, store_constant: Callable[[torch.Tensor], str], parameter_name: Callable[[torch.Tensor], str | None]) -> None:
        self._store_constant = store_constant
        self._parameter_name = parameter_name
        self._ready: list[_Twin] = []
        self._reason: str | None = None
        self.entries: list[dict[str, Any]] = []  # of sizes.json

    def before(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of `slot` begins that is recorded: copies are made now, before it changes its arguments or itself."""
        self._ready, self._reason = [], None
        try:
            with _disable_current_modes():
                for wide in (False, True):
                    twin = _Twin(slot, args, kwargs, self._parameter_name, wide)
                    if not wide or twin.is_wide:
                        self._ready.append(twin)
        except Exception as error:  # whatever the classes of a model do when they are copied
            self._reason = f"the model or its arguments cannot be copied: {_sentence(error)}"

    def after(self, call: int, recorded: dict[str, Any] | None) -> None:
        """That call returned; `recorded` is its program, None if it has none."""
        twins, self._ready = self._ready, []
        if recorded is None or "reason" in recorded:
            return
        reason = self._reason
        for twin in twins:
            try:
                with _disable_current_modes(), _as_real(), _silent():
                    self.entries.append(twin.trace(call, recorded, self._store_constant))
            except Exception as error:  # the model's own, on tensors without data; torch's, for an op that has no shape rule
                reason = reason or _sentence(error)
                break  # what is not the recorded program at the recorded sizes says nothing about others
        if not any(entry["call"] == call and entry["root"] == recorded["root"] for entry in self.entries):
            self.entries.append({"root": recorded["root"], "call": call, "reason": reason})


@functools.lru_cache(1024)
def _has_kernel(func: Any) -> bool:
    return not hasattr(func, "_schema") or torch._C._dispatch_has_kernel(func.name())


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = "" if isinstance(error, _NotTraceableError) else f"{type(error).__name__}: "
    return f"{name}{text[:240]}{'...' if len(text) > 240 else ''}"


@contextlib.contextmanager
def _as_real() -> Iterator[None]:
    """transformers' models take another path for tensors without data than for real ones. They are asked for the real one."""
    names = sys.modules.get("transformers.utils.import_utils")
    with mock.patch.object(names, "is_fake_tensor", lambda tensor: False) if hasattr(names, "is_fake_tensor") else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What torch logs about ops without a symbolic shape rule stands in the reason."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class _Sizes(ShapeEnv):
    """Symbolic sizes. Who asks about one is the innermost line that is not torch's."""

    def _get_sloc(self, framework_loc: str | None = None) -> SLoc:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_MODEL):
            frame = frame.f_back
        return SLoc(framework_loc, f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else None)


class _Twin:
    """A model and the arguments of a call, without data.

    wide : inputs whose first dimension is 1 (a batch of one) get a symbol for it, as if it were 2: torch's rules for a size of 1 are others. Else sizes of
        0 and 1 stay as they are.
    """

    def __init__(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any], parameter_name: Callable[[torch.Tensor], str | None], wide: bool) -> None:
        self.sizes = _Sizes(duck_shape=False, specialize_zero_one=False, allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        self.mode = FakeTensorMode(shape_env=self.sizes, allow_non_fake_inputs=True)
        self.mode.cache_enabled = False  # what torch asked when it found a shape it does not ask again when it has it
        self.slot, self.wide, self.is_wide = slot, wide, False
        self.names: dict[int, tuple[str, torch.Tensor]] = {}  # by id of a tensor without data: the parameter's path, and itself
        memo: dict[int, Any] = {}
        for tensor in (*slot.module.parameters(), *slot.module.buffers()):
            memo[id(tensor)] = twin = self._without_data(tensor)
            name = parameter_name(tensor)
            if name is not None:
                self.names[id(twin)] = name, tensor
        self.hints: dict[str, list[int]] = {}
        for path, leaf in _leaves(slot, args, kwargs):
            if not isinstance(leaf, torch.Tensor):
                raise _NotTraceableError(f"its input {path} is no tensor of torch")
            self.hints[path] = self._hints(leaf)
            memo[id(leaf)] = self._input(path, leaf)
        self.args, self.kwargs, self.module = copy.deepcopy((args, kwargs, slot.module), memo)
        self._alive = memo  # what `names` has the ids of

    def _without_data(self, tensor: torch.Tensor) -> torch.Tensor:
        twin = self.mode.from_tensor(tensor, static_shapes=True)
        if isinstance(tensor, torch.nn.Parameter) and not isinstance(twin, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, requires_grad=tensor.requires_grad)
        return twin

    def _hints(self, leaf: torch.Tensor) -> list[int]:
        """The sizes that the twin of an input has while it is traced."""
        hints = list(leaf.shape)
        if self.wide and leaf.ndim and hints[0] == 1 and leaf.is_contiguous():
            hints[0], self.is_wide = 2, True
        return hints

    def _input(self, path: str, leaf: torch.Tensor) -> torch.Tensor:
        hints = self.hints[path]
        model = leaf.detach() if hints == list(leaf.shape) else torch.empty(hints, dtype=leaf.dtype, device=leaf.device)
        follows = [DimDynamic.DYNAMIC if size > 1 else DimDynamic.STATIC for size in hints]
        twin = self.mode.from_tensor(model, source=ConstantSource(f"input_{len(self.hints)}"),
                                     symbolic_context=StatelessSymbolicContext(dynamic_sizes=follows))  # fmt: skip
        for size in twin.shape:
            if isinstance(size, torch.SymInt):  # else a slice to the end is none: its end is a large number
                self.sizes.constrain_symbol_range(size.node.expr, compiler_min=0, compiler_max=MAX_SIZE)
        return twin.requires_grad_(leaf.requires_grad) if leaf.requires_grad else twin

    def trace(self, call: int, recorded: dict[str, Any], store_constant: Callable[[torch.Tensor], str]) -> dict[str, Any]:
        """The entry of sizes.json. Raises _NotTraceableError, or what the model does."""
        name = self.slot.name
        answers = [(op[0], op[4]) for op in recorded["ops"] if len(op) > 4]
        recorder = _SizeRecorder(self.names, answers, store_constant)
        leaves = _leaves(self.slot, self.args, self.kwargs)
        with self.mode, _interpolations():
            recorder.begin(name, call)
            try:
                recorder.enter(name, call, leaves)
                output = self.module(*self.args, **self.kwargs)
                walker = structure.Walker(is_leaf)
                walker.walk(output)
                recorder.exit(name, call, [(path, leaf) for path, leaf in zip(structure.tree_of(tuple(walker.tokens), "0")[0], walker.leaves) if isinstance(leaf, torch.Tensor)])
            finally:
                recorder.end()
        program = recorder.programs()[0]
        if "reason" in program:
            raise _NotTraceableError(program["reason"])
        entry = Texts(self.sizes, {path: leaf.shape for path, leaf in leaves}).entry(program)
        entry["same"] = not self.wide
        if not self.wide:
            traced = Traced(entry)
            sizes = traced.bind(self.hints)
            traced.check(sizes)
            _refuse_other(traced.at(sizes), recorded)
        return entry


def _leaves(slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """(leaf path, leaf) of a call's arguments, as the collector names them."""
    _, arguments = slot.parameters.bind(args, kwargs)
    walker = structure.Walker(is_leaf)
    walker.tokens += (structure.DICT, slot.parameters.places(len(arguments)))
    for value in arguments:
        walker.walk(value)
    return list(zip(structure.tree_of(tuple(walker.tokens), "0")[0], walker.leaves))


def _padded(tensor: torch.Tensor, pad: list[Any], value: Any = 0) -> torch.Tensor:
    sizes = list(tensor.shape)
    for place in range(len(pad) // 2):
        sizes[-1 - place] += pad[2 * place] + pad[2 * place + 1]
    return _of_sizes(tensor, sizes)


def _resized(tensor: torch.Tensor, sizes: list[Any], *others: Any) -> torch.Tensor:
    return _of_sizes(tensor, [*tensor.shape[:2], *sizes])


def _of_sizes(tensor: torch.Tensor, sizes: list[Any]) -> torch.Tensor:
    """A tensor like another, of other sizes: channels last if that is."""
    channels_last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.new_empty(sizes).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _batched(added: torch.Tensor, first: torch.Tensor, second: torch.Tensor, **scales: Any) -> torch.Tensor:
    return first.new_empty((first.shape[0], first.shape[1], second.shape[2]))


@contextlib.contextmanager
def _interpolations() -> Iterator[None]:
    """Interpolations to sizes that vary: torch's forms with lists of sizes or factors take no symbols, those with sizes alone, which they come to, do."""
    with contextlib.ExitStack() as stack:
        for name in dir(torch._C._nn):
            if name.lstrip("_").startswith("upsample_"):
                stack.enter_context(mock.patch.object(torch._C._nn, name, _interpolation(name, getattr(torch._C._nn, name))))
        yield


def _interpolation(name: str, usual: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def interpolate(tensor: torch.Tensor, sizes: Any, *others: Any, **named: Any) -> torch.Tensor:
        if not any(isinstance(size, torch.SymInt) for size in (*tensor.shape, *(sizes or ()))) or named or len(others) != 1 + ("linear" in name or "cubic" in name):
            return usual(tensor, sizes, *others, **named)
        *flags, factors = others
        if sizes is None:
            sizes = [size * int(factor) if float(factor).is_integer() else math.floor(float(int(size)) * factor) for size, factor in zip(tensor.shape[2:], factors)]
        return getattr(torch.ops.aten, name).default(tensor, list(sizes), *flags, *(factors or [None] * (tensor.ndim - 2)))

    return interpolate


def _masked(tensor: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(torch.broadcast_shapes(tensor.shape, mask.shape))


#: Shape rules of ops whose own take no symbols.
_RULES: dict[str, Callable[..., torch.Tensor]] = {
    "aten.constant_pad_nd.default": _padded, "aten.baddbmm.default": _batched, "aten.masked_scatter.default": _masked,
    **{f"aten.{name}.default": _resized for name in ("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
                                                     "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")},
}  # fmt: skip


class _SizeRecorder(Recorder):
    """Records ops on tensors without data. Sizes among their arguments stay torch's symbols.

    names : id of a parameter without data to its path and the parameter itself. answers : (op, what it returned in the recorded call) of those that ask for data.
    """

    def __init__(self, names: dict[int, tuple[str, torch.Tensor]], answers: list[tuple[str, Any]], store_constant: Callable[[torch.Tensor], str]) -> None:
        super().__init__(lambda tensor: store_constant(self._with_data(tensor)), lambda tensor: names[id(tensor)][0] if id(tensor) in names else None)
        self._names = names
        self._answers = answers
        self._constants: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by id: a tensor without data, the one that it was made of

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if not _has_kernel(func):  # asks what a tensor is ("prim.device", "aten.size"), does nothing with it
            return func(*args)
        if name in _LIFTS:
            result = func(*args)
            self._constants[id(result)] = result, args[0]
            return result
        if name.split(".")[1:2] and name.split(".")[1] in RANDOM:
            raise _NotTraceableError(f"{name} draws random numbers")
        instead = self._answer(name, args) if name in _ANSWERED else _RULES.get(name)
        if instead is not None:
            self._known_ops[instead] = self._known_ops.setdefault(func, Op(func))
        try:
            return super().__torch_dispatch__(instead or func, types, args, kwargs)
        except RuntimeError as error:
            if "concrete integers" in str(error):
                raise _NotTraceableError(f"torch knows no shape of {name} for sizes that vary") from error
            raise

    def _answer(self, name: str, args: Any) -> Callable[..., Any]:
        """Stands for an op that asks for data: it has what the recorded call got."""
        asked, value = self._answers.pop(0) if self._answers else ("nothing", None)
        if asked != name or not isinstance(value, (bool, int, float)):
            raise _NotTraceableError(f"{name} asks for data where the recorded call asked for {asked}")
        if name == "aten.equal.default" or args[0].dtype is torch.bool:
            value = bool(value)
        return lambda *args: value

    def _encode(self, recording: Any, a: Any) -> Any:
        return a if type(a) in _SYMBOLIC else super()._encode(recording, a)

    def _address(self, parameter: torch.Tensor) -> int:
        return self._names[id(parameter)][1].data_ptr()

    def _with_data(self, tensor: torch.Tensor) -> torch.Tensor:
        while id(tensor) in self._constants:
            tensor = self._constants[id(tensor)][1]
        if isinstance(tensor, FakeTensor):
            changed = self._names.get(id(tensor))
            raise _NotTraceableError(f"it changes {changed[0]} in place" if changed else "a tensor of it comes from no op, input or parameter")
        return tensor


# ---------------------------------------------------------------- is it the recorded program


def _refuse_other(found: dict[str, Any], recorded: dict[str, Any]) -> None:
    """_NotTraceableError, with the first difference, if a program is not the recorded one. Values may have other numbers, and either may have slices that
    are the whole tensor: torch leaves these out where it knows the size."""
    numbers: dict[int, int] = {}  # of the recorded values in the program found
    mine, same = _without_wholes(found)
    theirs, recorded_same = _without_wholes(recorded)
    for place, (a, b) in enumerate(zip(mine, theirs)):
        if a[0] != b[0]:
            raise _NotTraceableError(f"op {place} is {a[0]} on tensors without data and {b[0]} in the recorded call")
        if len(a) != len(b) or not _same_tree(a[1:3] + a[4:], b[1:3] + b[4:], numbers) or not _same_values(a[3], b[3], numbers):
            raise _NotTraceableError(f"the arguments of op {place} {a[0]} are not those of the recorded call")
    if len(mine) != len(theirs):
        raise _NotTraceableError(f"it has {len(mine)} ops on tensors without data and {len(theirs)} in the recorded call")
    for value, other in numbers.items():
        a, b = found["values"][other], recorded["values"][value]
        if a[:2] != b[:2]:
            raise _NotTraceableError(f"a tensor of it is {a[0]} {a[1]} on tensors without data and {b[0]} {b[1]} in the recorded call")
        for kind in ("parameters", "constants"):
            if found[kind].get(str(other)) != recorded[kind].get(str(value)):
                raise _NotTraceableError(f"it uses {found[kind].get(str(other))} on tensors without data and {recorded[kind].get(str(value))} in the recorded call")
    root = next(module for module in recorded["modules"] if module["name"] == recorded["root"] and module["call"] == recorded["calls"][0])
    outputs = found["modules"][0]["outputs"]
    for leaf, value in root["outputs"].items():
        value = recorded_same.get(value, value)
        if leaf not in outputs or numbers.get(value, value) != same.get(outputs[leaf], outputs[leaf]):
            raise _NotTraceableError(f"its output {leaf} is another tensor on tensors without data than in the recorded call")


def _without_wholes(program: dict[str, Any]) -> tuple[list[Any], dict[int, int]]:
    """(the ops but slices that are the whole tensor, the values that these make: what they are slices of)."""
    same: dict[int, int] = {}
    ops = []
    for name, args, kwargs, outputs, *answer in program["ops"]:
        args, kwargs = _renamed(args, same), _renamed(kwargs, same)
        if name in ("aten.slice.Tensor", "aten.alias.default") and program["values"][outputs[0]][1] == program["values"][args[0]["v"]][1]:
            same[outputs[0]] = args[0]["v"]
        else:
            ops.append([name, args, kwargs, [same.get(value, value) for value in outputs], *answer])
    return ops, same


def _renamed(tree: Any, numbers: dict[int, int]) -> Any:
    if isinstance(tree, dict):
        return {"v": numbers.get(tree["v"], tree["v"])} if tree.keys() == {"v"} else {key: _renamed(item, numbers) for key, item in tree.items()}
    return [_renamed(item, numbers) for item in tree] if isinstance(tree, list) else tree


def _same_tree(a: Any, b: Any, numbers: dict[int, int]) -> bool:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return numbers.setdefault(b["v"], a["v"]) == a["v"] if a.keys() == {"v"} else all(_same_tree(item, b[key], numbers) for key, item in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same_tree(x, y, numbers) for x, y in zip(a, b))
    return repr(a) == repr(b)  # 0.0 and -0.0 differ, and 1 and True


def _same_values(a: list[int | None], b: list[int | None], numbers: dict[int, int]) -> bool:
    return len(a) == len(b) and all(x is y if x is None or y is None else numbers.setdefault(y, x) == x for x, y in zip(a, b))
