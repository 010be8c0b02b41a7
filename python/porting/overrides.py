"""Tolerances by module, from a TOML file.

    default = "auto"

    [[module]]
    match = "*.rotary_emb"
    tol = "close"

`match` is a shell pattern of module paths, with or without the name of the root before it; the first entry that fits decides. `tol` is what
`tolerance.resolve` takes. What this file does not do: judge (tolerance.py).
"""
from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .tolerance import Tolerance, resolve


@dataclass(frozen=True)
class ToleranceTable(Tolerance):
    """A tolerance that is another one for some modules; by itself it is the default. rules : (pattern, Tolerance), the first that fits decides."""

    rules: tuple[tuple[str, Tolerance], ...] = ()
    default_name: str = "auto"

    def rule_for(self, module: str) -> tuple[str, Tolerance] | None:
        """(pattern, Tolerance) of the entry that decides for a module, None if the default does."""
        return next((rule for rule in self.rules if _fits(module, rule[0])), None)

    def of(self, module: str) -> Tolerance:
        rule = self.rule_for(module)
        return rule[1] if rule is not None else Tolerance(self.default_name, self.rule, self.rtol, self.atol, self.limit)

    def said_of(self, module: str) -> str:
        rule = self.rule_for(module)
        return f"{rule[1].name} ({self.name}: {rule[0]})" if rule is not None else f"{self.default_name} ({self.name}: default)"

    def unused(self, modules: Iterable[str]) -> list[str]:
        used = {(self.rule_for(module) or ("",))[0] for module in set(modules)}
        return [f"{self.name}: no module is judged by the entry {pattern!r}: none fits, or an earlier entry takes all that do"
                for pattern, _ in self.rules if pattern not in used]


def _fits(module: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module.partition(".")[2], pattern)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table of a TOML file. Raises ValueError with a sentence for what is none, OSError for what cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)}: not a TOML file: {error}") from None


def load_tolerances(path: str | os.PathLike[str]) -> ToleranceTable:
    """The tolerances of a file. Raises ValueError with a sentence that says what is wrong where, OSError if it cannot be read."""
    name = os.fspath(path)
    table = read_toml(path)
    extra = sorted(set(table) - {"default", "module"})
    entries = table.get("module", [])
    if extra:
        raise ValueError(f"{name}: unknown key {extra[0]!r}; expected default and [[module]]")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name}: expected [[module]] entries, each with match and tol")
    default = _tolerance(table.get("default", "auto"), f"{name}: default")
    rules = []
    for i, entry in enumerate(entries, 1):
        where = f"{name}: [[module]] {i}"
        if set(entry) != {"match", "tol"} or not isinstance(entry["match"], str) or not entry["match"]:
            raise ValueError(f"{where}: expected match and tol, both texts, got {', '.join(entry) or 'nothing'}")
        if entry["match"] in (pattern for pattern, _ in rules):
            raise ValueError(f"{where}: {entry['match']!r} stands there twice")
        rules.append((entry["match"], _tolerance(entry["tol"], where)))
    return ToleranceTable(os.path.basename(name), default.rule, default.rtol, default.atol, default.limit, tuple(rules), default.name)


def _tolerance(text: Any, where: str) -> Tolerance:
    try:
        if not isinstance(text, str) or text.endswith(".toml"):
            raise ValueError(f"expected the name of a tolerance, got {text!r}")
        return resolve(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
