"""Keeps the tensors of single ops while a call is recorded: level="op" of the collector (docs/FORMAT.md section 6, phase 3).

The recorder tells of every op before and after it runs. What an op made is stored at once, before anything can change it. Its
inputs are already known, as what earlier ops made, as inputs of modules, constants and parameters, unless memory was changed
in place through another tensor; then the input is stored too. Results of views are not stored: running the view gives them.

What it does not do: number ops and values (the recorder does), or store anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

__all__ = ["OpKeeper", "UNINITIALISED"]

#: Ops whose result is memory as it happened to be.
UNINITIALISED = frozenset("empty empty_like empty_strided empty_permuted new_empty new_empty_strided".split())


class OpKeeper:
    """What is kept of the ops of one recording after another.

    Parameters
    ----------
    put : stores a tensor; (tensor, module, call, leaf path) -> its id, or None if it is not to be kept or could not be
    record : writes what was kept of one module call: (module, call, leaf paths, ids)
    """

    def __init__(
        self,
        put: Callable[[torch.Tensor, str, int, str], int | None],
        record: Callable[[str, int, Sequence[str], Sequence[int]], None],
    ) -> None:
        self._put, self._record = put, record

    def first_seen(self, recording: Any, value: int) -> None:
        """A module's input: its content is captured with the module."""
        recording.known.setdefault(value, _count(recording, value))

    def before(self, recording: Any, name: str, arguments: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Before an op runs: `arguments` are its tensors, by value, in the order in which the program lists them."""
        known, number = recording.known, len(recording.ops)
        for place, (value, tensor) in enumerate(arguments):
            count = _count(recording, value)
            if known.get(value, recording.constants.get(value, ("", 0))[1]) != count:
                if self._keep(recording, number, f"{name}.in.{place}", tensor):
                    known[value] = count

    def after(self, recording: Any, number: int, name: str, stored: bool, results: Iterator[tuple[int, int, torch.Tensor]]) -> None:
        """After op `number` ran: `results` are (place among its outputs, value, tensor). stored: false for views and unset memory."""
        for place, value, tensor in results:
            if stored:
                self._keep(recording, number, f"{name}.out.{place}", tensor)
            recording.known[value] = _count(recording, value)

    def end_call(self, interval: Any) -> None:
        """A module call ended: what was kept of its ops becomes a record."""
        if interval.kept:
            leaves, ids = zip(*interval.kept)
            self._record(interval.name, interval.call, leaves, ids)
            interval.kept.clear()

    def _keep(self, recording: Any, number: int, leaf: str, tensor: torch.Tensor) -> bool:
        interval = recording.stack[-1]
        if interval is recording.stack[0]:
            return False
        path = f"{number - interval.begin}.{leaf}"
        tensor_id = self._put(tensor, interval.name, interval.call, path)
        if tensor_id is not None:
            interval.kept.append((path, tensor_id))
        return tensor_id is not None


def _count(recording: Any, value: int) -> int:
    """How often the memory of a value has been changed in place."""
    return recording.changes.get(recording.base[value], (0, 0))[0]
