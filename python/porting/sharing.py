"""Recordings of one pattern of root calls: when one program stands for all of them, and with which symbols.

Programs here are dicts in the form of docs/PROGRAM.md. It records nothing.
"""

from __future__ import annotations

from typing import Any

from .merging import merge
from .patterns import Pattern

__all__ = ["Shared"]


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
