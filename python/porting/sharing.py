"""Recordings of one pattern of root calls: when one program stands for all of them, and with which symbols.

Programs here are dicts in the form of docs/PROGRAM.md. It records nothing.
"""

from __future__ import annotations

import copy
from typing import Any

from .patterns import Pattern

__all__ = ["Shared", "merge"]


class Shared:
    """The recordings of one pattern, and whether one of them may stand for all further calls."""

    def __init__(self, place: int) -> None:
        self.place = place  # of the program among all
        self.wants = True
        self.program: dict[str, Any] | None = None
        self.separate = False

    def attach(self, call: int, pattern: Pattern) -> None:
        assert self.program is not None
        self.program["calls"].append(call)
        if pattern.symbols:
            self.program["call_symbols"][str(call)] = list(pattern.symbols)

    def add(self, program: dict[str, Any], data_dependent: bool) -> dict[str, Any] | None:
        """Takes a recorded program; returns it if it stays a program of its own."""
        if self.separate:
            return program
        if self.program is None:
            self.program = program
            if "reason" in program:
                self.wants = False
            elif data_dependent:
                self.separate = True
            else:
                self.wants = bool(program["symbols"] or program["constants"] or _has_results(program)
                                  or any("captured" in m for m in program["modules"]))  # fmt: skip
            return program
        first = self.program
        merged = merge(first, program)
        if merged is None or (not self.wants and merged != first["ops"]):
            self.separate = True
            return program
        first["ops"] = merged
        first["calls"] += program["calls"]
        first["call_symbols"].update(program["call_symbols"])
        # The same length twice says nothing about how the integers grow.
        self.wants = bool(program["symbols"]) and first["recorded_symbols"] == program["recorded_symbols"]
        return None


def _has_results(program: dict[str, Any]) -> bool:
    return any(len(op) > 4 for op in program["ops"])


class _Differ(Exception):
    pass


def merge(first: dict[str, Any], second: dict[str, Any]) -> list | None:
    """The ops of both recordings with symbols for the integers that differ; None if anything else differs."""
    if "reason" in first or "reason" in second:
        return None
    if first["parameters"] != second["parameters"] or first["constants"] != second["constants"]:
        return None
    if len(first["ops"]) != len(second["ops"]) or len(first["modules"]) != len(second["modules"]):
        return None
    for a, b in zip(first["modules"], second["modules"]):
        if {k: v for k, v in a.items() if k != "call"} != {k: v for k, v in b.items() if k != "call"}:
            return None
    if [(v[0], len(v[1])) for v in first["values"]] != [(v[0], len(v[1])) for v in second["values"]]:
        return None
    lengths = (first["recorded_symbols"], second["recorded_symbols"])
    try:
        return [_merge_op(a, b, lengths) for a, b in zip(first["ops"], second["ops"])]
    except _Differ:
        return None


def _merge_op(a: list, b: list, lengths: tuple[list[int], list[int]]) -> list:
    if a[0] != b[0] or a[3] != b[3] or len(a) != len(b):
        raise _Differ
    return [a[0], _merge_value(a[1], b[1], lengths), _merge_value(a[2], b[2], lengths), a[3],
            *(_merge_value(x, y, lengths) for x, y in zip(a[4:], b[4:]))]  # fmt: skip


def _merge_value(a: Any, b: Any, lengths: tuple[list[int], list[int]]) -> Any:
    if type(a) is dict and "sym" in a and type(b) is int:
        offset, factors = a["sym"]
        if offset + sum(factor * lengths[1][0] for factor, _ in factors) != b:
            raise _Differ
        return a
    if type(a) is not type(b):
        raise _Differ
    if isinstance(a, list):
        if len(a) != len(b):
            raise _Differ
        return [_merge_value(x, y, lengths) for x, y in zip(a, b)]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            raise _Differ
        if a.keys() == {"list"} or not a.keys() & {"v", "sym"}:
            return {k: _merge_value(x, b[k], lengths) for k, x in a.items()}
    if type(a) is int and a != b:
        return _fit(a, b, lengths)
    if repr(a) != repr(b):  # 0.0 and -0.0 differ
        raise _Differ
    return copy.copy(a)


def _fit(a: int, b: int, lengths: tuple[list[int], list[int]]) -> dict[str, Any]:
    """The line through both points, as {"sym": [offset, [[factor, "kv"]]]}."""
    if len(lengths[0]) != 1 or lengths[0] == lengths[1]:
        raise _Differ
    x, y = lengths[0][0], lengths[1][0]
    factor, rest = divmod(b - a, y - x)
    if rest:
        raise _Differ
    return {"sym": [a - factor * x, [[factor, "kv"]]]}
