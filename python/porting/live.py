"""Values and modules of a running model: copies, the tensors in a result, and forwards that are replaced for a while."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from . import structure
from .tensors import is_leaf


def copied(value: Any) -> Any:
    """A deep copy. Tensors that autograd made cannot be copied, their values can."""
    leaves, _ = structure.flatten(value, is_leaf, "")
    return copy.deepcopy(value, {id(leaf): leaf.detach().clone() for _, leaf in leaves if isinstance(leaf, torch.Tensor)})


def leaves_of(value: Any) -> dict[str, torch.Tensor]:
    """Leaf path to tensor of what a module returned, by the rules of docs/FORMAT.md section 6; caches are not looked into."""
    return {path or "0": leaf for path, leaf in _walk(value, "")}


def _walk(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    for key, item in items_of(value):
        yield from _walk(item, f"{path}.{key}" if path else str(key))


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """Key and item of a mapping, a tuple or list, or a dataclass; nothing for others."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        return list(zip(value._fields, value)) if hasattr(value, "_fields") else list(enumerate(value))
    if hasattr(value, "__dataclass_fields__"):
        return [(name, getattr(value, name)) for name in value.__dataclass_fields__]
    return []


def with_leaves(value: Any, new_leaf: Callable[[str, torch.Tensor], Any], path: str = "") -> Any:
    """`value` with new_leaf(path, tensor) in the place of each tensor, of the same classes; itself where nothing is new."""
    if isinstance(value, torch.Tensor):
        return new_leaf(path or "0", value)
    items = items_of(value)
    new = {key: with_leaves(item, new_leaf, f"{path}.{key}" if path else str(key)) for key, item in items}
    if all(new[key] is item for key, item in items):
        return value
    if isinstance(value, (tuple, list)):
        return type(value)(*new.values()) if hasattr(value, "_fields") else type(value)(new.values())
    changed = copy.copy(value)  # a mapping, a model output or another dataclass
    for key, item in new.items():
        if isinstance(value, Mapping):
            changed[key] = item
        else:
            object.__setattr__(changed, key, item)
    return changed


class Forwards:
    """Forwards of modules that are replaced until `close`, which may be called twice."""

    def __init__(self) -> None:
        self._before: list[tuple[torch.nn.Module, bool, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._before)

    def replace(self, module: torch.nn.Module, forward: Callable[..., Any]) -> None:
        self._before.append((module, "forward" in module.__dict__, module.__dict__.get("forward")))
        module.__dict__["forward"] = forward

    def close(self) -> None:
        while self._before:
            module, had, before = self._before.pop()
            if had:
                module.__dict__["forward"] = before
            else:
                module.__dict__.pop("forward", None)
