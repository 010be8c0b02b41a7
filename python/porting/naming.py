"""Full names of tensors (docs/FORMAT.md section 6): how they are written, split and guessed.

A full name is ``<module>[@<call>].<in|out>.<leaf path>``; an op's tensor has ``op`` in the middle and its number, name and place as
leaf path; a tap's is its own name. Nothing here knows a capture: resolving
a name against what was captured is `capture.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

PHASES = ("in", "out", "tap", "op")  # the index is the number in a CALL record
_OP_LEAF = re.compile(r"\d+\..+\.(in|out)\.\d+$")


def prefix(module: str, call: int, phase: str) -> str:
    """What stands before the leaf path: ``"layers.0@2.in."``; for a tap its name, with no dot at the end."""
    base = f"{module}@{call}" if call else module
    if phase == "tap":
        return base
    return f"{base}.{phase}." if base else f"{phase}."


def full_name(module: str, call: int, phase: str, leaf: str) -> str:
    """The full name of one leaf of a module's inputs or outputs, or of a tap.

    Parameters
    ----------
    module : path as in ``named_modules()`` (``""`` is the root of a bare module), or the name of a tap
    call : 0, 1, ... per module
    phase : "in", "out", "tap" or "op"
    leaf : dotted path below the phase; "" for a tap that is a single tensor

    Examples
    --------
    >>> full_name("layers.0.mlp", 0, "in", "0"), full_name("layers.0", 2, "out", "1.0"), full_name("", 0, "out", "logits")
    ('layers.0.mlp.in.0', 'layers.0@2.out.1.0', 'out.logits')
    >>> full_name("rope.cos", 1, "tap", "")
    'rope.cos@1'
    """
    if phase not in PHASES:
        raise ValueError(f"phase is one of {', '.join(PHASES)}, got {phase!r}")
    if phase == "tap":
        return prefix(module, call, phase) + (f".{leaf}" if leaf else "")
    return prefix(module, call, phase) + leaf


def split_call(text: str) -> tuple[str, int]:
    """``"layers.0@2"`` -> ``("layers.0", 2)``; without a call number it is call 0."""
    base, at, number = text.rpartition("@")
    if at and number.isdecimal():
        return base, int(number)
    return text, 0


def splits(name: str) -> Iterable[tuple[str, int, str, str]]:
    """Every way to read `name` as (module, call, phase, leaf), the longest module path first."""
    parts = name.split(".")
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] in ("in", "out", "op"):
            module, call = split_call(".".join(parts[:i]))
            yield module, call, parts[i], ".".join(parts[i + 1 :])


def split_name(name: str, modules: Collection[str] = ()) -> tuple[str, int, str, str]:
    """The inverse of `full_name`: (module, call, phase, leaf). A name without ``.in.`` or ``.out.`` is a tap's.

    Modules and keys may themselves be called "in" or "out"; `modules` (those that exist) decides then. Without it
    the longest module path is taken.

    Examples
    --------
    >>> split_name("layers.0@2.out.1.0")
    ('layers.0', 2, 'out', '1.0')
    >>> split_name("gate.out.out.in.x", modules={"gate.out"})
    ('gate.out', 0, 'out', 'in.x')
    >>> split_name("layers.0@2.op.3.aten.mm.default.out.0")
    ('layers.0', 2, 'op', '3.aten.mm.default.out.0')
    """
    first = None
    for split in splits(name):
        if split[0] in modules:
            return split
        if split[2] == "op" and _OP_LEAF.match(split[3]):
            return split
        if first is None and split[3] and split[2] != "op":
            first = split
    return first or (*split_call(name), "tap", "")


def suggest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of the candidates that `name` was probably meant to be, best first."""
    import difflib

    candidates = list(dict.fromkeys(candidates))
    tail = [c for c in candidates if c.endswith("." + name)]
    if len(candidates) > 2000:  # the matcher is quadratic: keep those that share the end or the beginning
        parts = name.split(".")
        near = [c for c in candidates if c.split(".")[-1] == parts[-1] or c.split(".")[0] == parts[0]]
        candidates = near[:2000] or candidates[:2000]
    close = difflib.get_close_matches(name, candidates, n=count, cutoff=0.6)
    return list(dict.fromkeys(sorted(tail, key=len)[:count] + close))[:count]
