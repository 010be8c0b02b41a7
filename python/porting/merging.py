"""Two recordings of the same ops at different sizes as one program with a symbol for what grows.

Programs here are dicts in the form of docs/PROGRAM.md. No torch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["DATA_DEPENDENT", "depends_on_data", "merge"]

#: Ops whose result decides what the model does next; a program with one of them stands only for calls that were recorded.
DATA_DEPENDENT = frozenset(
    ("nonzero", "unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "bincount", "argwhere", "equal",
     "repeat_interleave")
)  # fmt: skip


def depends_on_data(name: str, dtypes: Iterable[str]) -> bool:
    """Whether an op's result is as large as the data say. `name`: "index"; `dtypes`: of the tensors that it takes after its first."""
    return name in DATA_DEPENDENT or (name == "index" and any(dtype in ("BOOL", "U8") for dtype in dtypes))


class Lengths(NamedTuple):
    """The symbol's name and its value in both recordings, as lists of one; of none where there is no symbol."""

    name: str
    first: list[int]
    second: list[int]


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
    lengths = Lengths(*first["symbols"][:1] or [""], first["recorded_symbols"], second["recorded_symbols"])
    try:
        return [_merge_op(a, b, lengths) for a, b in zip(first["ops"], second["ops"])]
    except _Differ:
        return None


def _merge_op(a: list, b: list, lengths: Lengths) -> list:
    if a[0] != b[0] or a[3] != b[3] or len(a) != len(b):
        raise _Differ
    return [a[0], _merge_value(a[1], b[1], lengths), _merge_value(a[2], b[2], lengths), a[3],
            *(_merge_value(x, y, lengths) for x, y in zip(a[4:], b[4:]))]  # fmt: skip


def _merge_value(a: Any, b: Any, lengths: Lengths) -> Any:
    if type(a) is dict and "sym" in a and type(b) is int:
        offset, factors = a["sym"]
        if offset + sum(factor * lengths.second[0] for factor, _ in factors) != b:
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


def _fit(a: int, b: int, lengths: Lengths) -> dict[str, Any]:
    """The line through both points, as {"sym": [offset, [[factor, name]]]}."""
    if len(lengths.first) != 1 or lengths.first == lengths.second:
        raise _Differ
    x, y = lengths.first[0], lengths.second[0]
    factor, rest = divmod(b - a, y - x)
    if rest:
        raise _Differ
    return {"sym": [a - factor * x, [[factor, lengths.name]]]}
