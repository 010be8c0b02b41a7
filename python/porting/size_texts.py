"""torch's symbolic sizes as the expressions of sizes.json (docs/PROGRAM.md).

What has no exact counterpart there is fixed at the size that it was traced at. Reals are taken over only where no order of operations is lost: a quotient of
two numbers, not sums and products. It traces nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions

__all__ = ["Texts", "UnknownFormError", "text_of"]

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_RELATIONS = {sympy.Eq: "==", sympy.Ne: "!=", sympy.Lt: "<", sympy.Le: "<=", sympy.Gt: ">", sympy.Ge: ">="}
_CALLS = {
    sympy.Max: "max", sympy.Min: "min", functions.Max: "max", functions.Min: "min", functions.CeilToInt: "ceil", functions.FloorToInt: "floor",
    functions.TruncToInt: "trunc", functions.ToFloat: "float", functions.Identity: "",
}  # fmt: skip
_BINARY = {
    functions.FloorDiv: "//", functions.CleanDiv: "//", functions.Mod: "%", functions.PythonMod: "%", functions.IntTrueDiv: "/", functions.FloatTrueDiv: "/",
    functions.PowByNatural: "**",
}  # fmt: skip


class UnknownFormError(ValueError):
    """An expression has no counterpart."""


def text_of(expression: Any, names: Mapping[sympy.Symbol, str]) -> str:
    """An expression as text. `names`: of its symbols. UnknownFormError: it has no exact counterpart."""
    kind = type(expression)
    if expression.is_Integer:
        return str(int(expression))
    if expression.is_Float:
        return repr(float(expression))
    if kind is sympy.Symbol and expression in names:
        return names[expression]
    if kind in _RELATIONS:
        return f"({text_of(expression.lhs, names)} {_RELATIONS[kind]} {text_of(expression.rhs, names)})"
    if kind in (sympy.And, sympy.Or):
        return f"({f' {str(kind.__name__).lower()} '.join(sorted(text_of(part, names) for part in expression.args))})"
    if kind is sympy.Not:
        return f"(not {text_of(expression.args[0], names)})"
    if kind in (sympy.Add, sympy.Mul) and all(part.is_integer for part in expression.args):
        return f"({(' + ' if kind is sympy.Add else '*').join(text_of(part, names) for part in expression.args)})"
    if kind is sympy.Pow and expression.base.is_integer and expression.exp.is_Integer and 0 <= expression.exp <= 8:
        return f"({text_of(expression.base, names)}**{int(expression.exp)})"
    if kind in _CALLS:
        return f"{_CALLS[kind]}({', '.join(text_of(part, names) for part in expression.args)})"
    if kind in _BINARY and len(expression.args) == 2:
        return f"({text_of(expression.args[0], names)} {_BINARY[kind]} {text_of(expression.args[1], names)})"
    raise UnknownFormError(f"{expression} has no counterpart")


class Texts:
    """The symbols of one trace and their names.

    Parameters
    ----------
    sizes : the trace's ShapeEnv, when it is over
    shapes : leaf path of an input to its symbolic shape
    """

    def __init__(self, sizes: Any, shapes: Mapping[str, Any]) -> None:
        self._sizes = sizes
        self._names: dict[sympy.Symbol, str] = {}
        self._fixed: dict[sympy.Symbol, sympy.Integer] = {}
        self._meaning: dict[str, list[Any]] = {}
        for path, shape in shapes.items():
            for place, size in enumerate(shape):
                symbol = self._expression(size) if isinstance(size, torch.SymInt) else None
                if isinstance(symbol, sympy.Symbol) and symbol not in self._names:
                    name = f"n{len(self._names)}"
                    self._names[symbol], self._meaning[name] = name, [path, place]

    def _expression(self, size: Any) -> Any:
        return self._sizes.replace(size.node.expr).xreplace(self._fixed)

    def entry(self, program: dict[str, Any]) -> dict[str, Any]:
        """The entry of sizes.json for a program whose numbers may be symbolic."""
        while True:
            fixed = len(self._fixed)
            found, conditions = self._number(program), self._conditions()
            if len(self._fixed) == fixed:
                break
        used = {name: self._meaning[name] for symbol, name in self._names.items() if symbol not in self._fixed}
        return {"root": program["root"], "call": program["calls"][0], "symbols": used, "conditions": conditions, "program": found}

    def _number(self, tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: self._number(item) for key, item in tree.items()}
        if isinstance(tree, (list, tuple)):
            return [self._number(item) for item in tree]
        if not isinstance(tree, _SYMBOLIC):
            return tree
        expression = self._expression(tree)
        try:
            if expression.free_symbols:
                return {"size": text_of(expression, self._names)}
        except UnknownFormError:
            self._fix(expression)
            expression = self._expression(tree)
        return _constant(tree, expression)

    def _conditions(self) -> list[list[str]]:
        found: dict[str, str] = {}
        for guard in self._sizes.guards:
            expression = self._sizes.replace(guard.expr).xreplace(self._fixed)
            if expression.free_symbols:
                try:
                    found.setdefault(text_of(expression, self._names), guard.sloc.maybe_user_loc or "")
                except UnknownFormError:
                    self._fix(expression)
        return [[text, where] for text, where in found.items()]

    def _fix(self, expression: Any) -> None:
        """Its symbols keep the sizes that they were traced at. (One that is the size of no input says where an input lies in memory. The program has that.)"""
        for symbol in expression.free_symbols:
            self._fixed[symbol] = sympy.Integer(self._sizes.backed_var_to_val[symbol])


def _constant(size: Any, expression: Any) -> Any:
    if isinstance(size, torch.SymBool):
        return bool(expression)
    return int(expression) if isinstance(size, torch.SymInt) else float(expression)
