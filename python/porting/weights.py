"""The parameters and buffers of what is captured: their names, which of them are stored, which of them the run changed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import _core
from .modules import Slot
from .tensors import DroppedError, dense, dtype_name, is_direct, is_lazy

AUTO_BYTES = 2 * 1000**3  # parameters below this are stored with weights="auto"


class Weights:
    """The parameters and buffers of the roots among `slots`.

    Parameters
    ----------
    put : stores a tensor under a key and returns its id
    name : binds a full name to an id
    note : writes a note (kind, where, reason)
    """

    def __init__(
        self,
        slots: list[Slot],
        put: Callable[[torch.Tensor, str], int],
        name: Callable[[str, int], None],
        note: Callable[[str, str, str], None],
    ) -> None:
        self._roots = [slot for slot in slots if slot.is_root]
        self._put, self._name, self._note = put, name, note
        self._names: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}  # a run may replace a buffer, and another tensor get its id
        self._marks: dict[str, Any] = {}

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The path of a parameter or buffer; the first one of tied ones."""
        known, name = self._names.get(id(tensor), (None, None))
        return name if known is not None and known() is tensor else None

    def named(self) -> Iterator[tuple[str, torch.Tensor, str | None]]:
        """(path, tensor, first path of the same tensor if it has one) of every parameter and buffer."""
        for slot in self._roots:
            for named in (slot.module.named_parameters, slot.module.named_buffers):
                for name, tensor in named(prefix=slot.name, remove_duplicate=False):
                    first = self.name_of(tensor)
                    if first is None:
                        first = name
                        self._names[id(tensor)] = (weakref.ref(tensor), name)
                    yield name, tensor, first if first != name else None

    def store(self, mode: str | bool, keep: bool = True) -> dict[str, Any]:
        """Stores them (`mode` is the collector's `weights`), and returns the manifest's "parameters". keep: whether "auto" may store any."""
        named = list(self.named())
        total = sum(t.numel() * t.element_size() for _, t, first in named if first is None and not is_lazy(t))
        stored = keep and total < AUTO_BYTES if mode == "auto" else bool(mode)
        entries: dict[str, Any] = {}
        keys: dict[int, str] = {}
        ids: dict[str, int] = {}
        for name, tensor, first in named:
            if first is None:
                self._marks[name] = _mark(tensor)
            entry: dict[str, Any] = {
                "dtype": dtype_name(tensor.dtype), "shape": None, "hash": None, "tensor": None, "same_as": first,
            }  # fmt: skip
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
                    self._name(key, ids[name])
            except DroppedError as error:
                self._note("dropped", f"param:{name}", str(error))
        return {"stored": stored, "checkpoint": None, "entries": entries}

    def note_changes(self) -> None:
        """Parameters and buffers that the run changed in place: what is stored is how they were before."""
        for name, tensor, first in self.named():
            if first is None and self._marks.get(name) != _mark(tensor):
                self._note("changed", f"param:{name}", "changed in place by the run; stored as it was before")


def _mark(tensor: torch.Tensor) -> Any:
    """Changes when the tensor's values do, as far as that can be told cheaply. Batch norms in training change their buffers
    without counting it as a new version, so buffers are hashed."""
    if isinstance(tensor, torch.nn.Parameter) or not is_direct(tensor):
        return None if tensor.is_inference() else tensor._version
    return _hash(tensor)


def _hash(tensor: torch.Tensor) -> str:
    """Hash of a tensor's row-major bytes, as the store computes it."""
    with torch.no_grad(), torch._C._DisableTorchDispatch():
        data = (
            tensor.detach().contiguous().flatten().view(torch.uint8)
            if tensor.numel()
            else torch.empty(0, dtype=torch.uint8)
        )
        return _core.hash128(data.numpy())
