"""The modules that a collector hooks: where they are found, how they are named, what the manifest says of them."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from . import structure
from .selection import Selection
from .tensors import is_lazy

MAX_WAYS = 256  # ways to call a module that are remembered


def find_roots(model: Any, modules: Any) -> dict[str, torch.nn.Module]:
    """The root modules of what the user wants captured, by the prefix of their names ("" for a bare module).

    Raises
    ------
    TypeError : `model` has no modules that could be found; `modules` is not a module or a mapping of them
    """
    given = model if modules is None else modules
    if isinstance(given, torch.nn.Module):
        return {"": given}
    if modules is None and not isinstance(given, Mapping):
        owner = getattr(model, "__self__", None)  # a bound method such as model.generate
        if isinstance(owner, torch.nn.Module):
            return {"": owner}
        given = {}
        for candidate in (model, owner):
            given = {k: v for k, v in structure.attributes_of(candidate).items() if isinstance(v, torch.nn.Module)}
            if given:
                break
    if not isinstance(given, Mapping) or not all(isinstance(m, torch.nn.Module) for m in given.values()):
        raise TypeError(
            f"modules takes a torch.nn.Module or a mapping of names to modules, got {modules if modules is not None else model!r:.100}"
        )
    if not given:
        raise TypeError(
            f"no torch.nn.Module found in {type(model).__name__}: pass a module, a pipeline, an object with modules among its "
            "attributes, or a callable with modules={name: module}"
        )
    roots: dict[str, torch.nn.Module] = {}
    for name, module in given.items():  # a module inside another root is not a root of its own
        inside = any(module is not other and any(module is m for m in other.modules()) for other in given.values())
        if not inside and not any(module is root for root in roots.values()):
            roots[str(name)] = module
    return roots


def function_module(function: Any) -> torch.nn.Module:
    """A function of tensors as a module, so that it can be captured."""

    class Function(torch.nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    return Function()


class Slot:
    """A hooked module: its name, its counters and the forms of its inputs and outputs seen so far."""

    def __init__(self, paths: list[str], module: torch.nn.Module, root: Slot | None, selected: bool) -> None:
        self.name = paths[0]
        self.paths = paths
        self.module = module
        self.root = root or self
        self.is_root = root is None
        self.selected = selected
        self.parameters = Parameters(module)
        self.calls = itertools.count()
        self.num_calls = 0
        self.num_steps = 0  # of a root: how many of its calls have begun that were not inside another root call
        self.forms: tuple[dict[Hashable, Any], dict[Hashable, Any]] = ({}, {})  # of inputs and outputs, by their tokens


def make_slots(roots: Mapping[str, torch.nn.Module], selection: Selection) -> list[Slot]:
    """A slot for every module, in the order of named_modules(); shared modules have one slot with several paths."""
    paths: dict[int, list[str]] = {}
    owners: dict[int, tuple[torch.nn.Module, int]] = {}
    for root_name, root in roots.items():
        for path, module in root.named_modules(prefix=root_name, remove_duplicate=False):
            paths.setdefault(id(module), []).append(path)
            owners.setdefault(id(module), (module, id(root)))
    slots: dict[int, Slot] = {}
    for key, (module, root_id) in owners.items():
        slots[key] = Slot(paths[key], module, slots.get(root_id), selection.takes_module(paths[key]))
    return list(slots.values())


def is_compiled(module: torch.nn.Module) -> bool:
    """True if the modules inside do not run as Python calls, so that their hooks may not be called."""
    return getattr(module, "_compiled_call_impl", None) is not None or type(module).__name__ == "OptimizedModule"


class Parameters:
    """Binds a call's arguments to forward's parameters, without building an inspect.BoundArguments each time."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.positional: list[str] = []
        self.keywords: list[str] = []  # in the order of the signature, positional ones included
        self.variadic = "args"
        self._known: dict[tuple[Any, ...], tuple[tuple[str, ...], list[str]]] = {}  # by (number of args, *names of kwargs)
        self._places: list[tuple[str, ...]] = []
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):  # no signature: by place, keywords by name
            return
        for p in parameters:
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                self.positional.append(p.name)
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                self.keywords.append(p.name)
            if p.kind is p.VAR_POSITIONAL:
                self.variadic = p.name

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, ...], list[Any]]:
        """Names and values of the parameters that were given. Items of *args are named ``args.0``, ``args.1``, ..."""
        given = (len(args), *kwargs)
        known = self._known.get(given)
        if known is None:
            if len(self._known) >= MAX_WAYS:
                self._known.clear()
            known = self._known[given] = self._order(len(args), kwargs)
        names, keywords = known
        return names, [*args, *[kwargs[name] for name in keywords]]

    def _order(self, num_args: int, kwargs: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
        names = self.positional[:num_args]
        names += [f"{self.variadic}.{i}" for i in range(num_args - len(names))]
        keywords = [name for name in self.keywords if name in kwargs]
        keywords += sorted(kwargs.keys() - set(keywords))
        return (*names, *keywords), keywords

    def places(self, count: int) -> tuple[str, ...]:
        """("0", "1", ...), `count` of them."""
        while len(self._places) <= count:
            self._places.append(tuple(map(str, range(len(self._places)))))
        return self._places[count]


# ------------------------------------------------------------------------------------------ what the manifest says


def describe_model(model: Any, roots: Mapping[str, torch.nn.Module]) -> dict[str, Any]:
    """What was captured: classes, roots, configurations. Nothing that says whose machine it was."""
    described: dict[str, Any] = {"class": type(model).__name__, "roots": {}}
    for name, root in roots.items():
        config = getattr(root, "config", None)
        described["roots"][name] = {
            "class": f"{type(root).__module__}.{type(root).__qualname__}",
            "training": root.training,
            "num_parameters": sum(p.numel() for p in root.parameters() if not is_lazy(p)),
            "config": without_paths(config.to_dict()) if callable(getattr(config, "to_dict", None)) else None,
        }
    return described


def without_paths(value: Any) -> Any:
    """JSON of a configuration; texts that are paths of this machine are left out. The format's keys have no NUL and its texts no half of a
    surrogate pair; a vocabulary's may."""
    if isinstance(value, Mapping):
        return {_plain(k).replace("\0", "\\0"): without_paths(v) for k, v in value.items() if k not in ("_name_or_path", "name_or_path")}
    if isinstance(value, (list, tuple)):
        return [without_paths(v) for v in value]
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    if isinstance(value, (bool, int, float, type(None))):
        return value
    text = _plain(value)
    return None if os.path.isabs(text) else text


def _plain(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def checkpoint_of(roots: Mapping[str, torch.nn.Module]) -> str | None:
    """Name of the checkpoint that the model says it came from; the last part only if it is a path."""
    for root in roots.values():
        name = getattr(root, "name_or_path", None) or getattr(getattr(root, "config", None), "_name_or_path", None)
        if isinstance(name, str) and name:
            return os.path.basename(os.path.normpath(name)) if os.path.isabs(name) or os.path.exists(name) else name
    return None


def describe_module(slot: Slot) -> dict[str, Any]:
    try:
        extra = str(slot.module.extra_repr())
    except Exception as error:  # a user's method
        extra = f"<extra_repr failed: {type(error).__name__}>"
    return {
        "name": slot.name,
        "class": type(slot.module).__name__,
        "aliases": slot.paths[1:],
        "training": slot.module.training,
        "extra_repr": extra,
        "captured": slot.selected,
    }
