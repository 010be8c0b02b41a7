"""Traced programs: programs whose numbers are expressions of the inputs' sizes, with the conditions under which they stand (docs/PROGRAM.md).

`size_tracing` writes them while the model is there. Here they are read, and made into programs for given sizes. No torch; it runs nothing.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ._core import FormatError, PortingError

__all__ = ["FILE", "FORMAT", "MAX_SIZE", "MisfitError", "Traced", "evaluate", "load", "with_sizes"]

FILE = "sizes.json"
FORMAT = {"format": "porting.sizes", "version": 1}

MAX_SIZE = 2**31 - 1  # of a dimension of an input of a traced program
_MAX_TEXT = 4096
_MAX_EXPONENT = 8
_LARGEST = 2**256  # far above every size: what is larger is no number of a program
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Div: operator.truediv, ast.Pow: operator.pow, ast.USub: operator.neg, ast.Not: operator.not_,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "ceil": math.ceil, "floor": math.floor, "trunc": math.trunc, "float": float}


class MisfitError(PortingError, ValueError):
    """A traced program does not stand for these inputs; the text says which of its conditions they do not meet."""


class Condition(NamedTuple):
    """What must be true of the sizes, as an expression, and the line of the model that asked ("" where it is not known)."""

    text: str
    where: str


# ---------------------------------------------------------------- expressions


def evaluate(text: str, sizes: Mapping[str, int]) -> Any:
    """The value of an expression, a number or a truth value.

    FormatError: it is none, or has a name that is no size. MisfitError: it has no value at these sizes (a division by zero).
    """
    try:
        return _value(_parsed(text), sizes)
    except RecursionError as error:
        raise FormatError(f"{FILE}: {text[:80]!r} is nested too deeply") from error
    except (ArithmeticError, OverflowError) as error:
        raise MisfitError(f"{text} has no value at {', '.join(f'{name} {size}' for name, size in sizes.items())}: {error}") from error


@functools.lru_cache(65536)
def _parsed(text: str) -> ast.expr:
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise FormatError(f"{FILE}: an expression is text of at most {_MAX_TEXT} characters")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormatError(f"{FILE}: {text[:80]!r} is no expression") from error


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return node.value
    if isinstance(node, ast.Name) and node.id in sizes:
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, sizes), _value(node.right, sizes)
        if not isinstance(node.op, ast.Pow) or isinstance(right, int) and 0 <= right <= _MAX_EXPONENT:
            value = _OPERATORS[type(node.op)](left, right)
            if abs(value) > _LARGEST:
                raise OverflowError("too large")
            return value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand, sizes))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
        return _OPERATORS[type(node.ops[0])](_value(node.left, sizes), _value(node.comparators[0], sizes))
    if isinstance(node, ast.BoolOp):
        values = (bool(_value(value, sizes)) for value in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and node.args and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_value(argument, sizes) for argument in node.args))
    raise FormatError(f"{FILE}: {ast.unparse(node)[:80]!r} is no expression of sizes")


def with_sizes(tree: Any, sizes: Mapping[str, int]) -> Any:
    """Nested lists and dicts with the values of the expressions in the place of every {"size": text}."""
    if isinstance(tree, dict):
        if tree.keys() == {"size"}:
            return evaluate(tree["size"], sizes)
        return {key: with_sizes(item, sizes) for key, item in tree.items()}
    if isinstance(tree, list):
        return [with_sizes(item, sizes) for item in tree]
    return tree


# ---------------------------------------------------------------- traced programs


class Traced:
    """One entry of sizes.json: what a root call executes at all sizes that meet some conditions.

    Attributes
    ----------
    root, call : of the call that it was traced from.
    reason : why there is no program for other sizes, or None.
    symbols : names of the sizes in its expressions, each with the input (leaf path) and the dimension that it is.
    conditions : what must be true of them.
    same : whether at the recorded sizes it was found to be the recorded program, op by op.
    shapes : leaf path of an input to its shape, in numbers and expressions.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        try:
            self.root, self.call = str(entry["root"]), int(entry["call"])
            self.reason: str | None = entry.get("reason")
            self.entry = entry
            if self.reason is not None:
                return
            self.symbols = {str(name): (str(leaf), int(place)) for name, (leaf, place) in entry["symbols"].items()}
            self.names: Mapping[str, str] = {}  # what to call the leaves, where that is not their path
            self.conditions = [Condition(str(text), str(where)) for text, where in entry["conditions"]]
            self.same = bool(entry["same"])
            module = entry["program"]["modules"][0]
            self.inputs = {str(leaf): int(value) for leaf, value in module["inputs"].items()}
            values = entry["program"]["values"]
            self.shapes = {leaf: list(values[value][1]) for leaf, value in self.inputs.items()}
            if not all(0 <= place < len(self.shapes[leaf]) for leaf, place in self.symbols.values()):
                raise ValueError("a size of no dimension")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FormatError(f"{FILE}: a program is malformed: {type(error).__name__}: {error}") from error

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """The sizes in inputs of these shapes (by leaf path, all of them), whether or not they meet the conditions.

        MisfitError: an input has other dimensions than the expressions for it say.
        """
        for leaf, expected in self.shapes.items():
            if len(shapes[leaf]) != len(expected):
                raise MisfitError(f"{self._called(leaf)} is {list(shapes[leaf])}, expected {self.text_of(leaf)}")
        sizes = {name: int(shapes[leaf][place]) for name, (leaf, place) in self.symbols.items()}
        for leaf, expected in self.shapes.items():
            if list(shapes[leaf]) != with_sizes(expected, sizes):
                raise MisfitError(f"{self._called(leaf)} is {list(shapes[leaf])}, expected {self.text_of(leaf)}{f' with {self._text(sizes)}' if sizes else ''}")
        return sizes

    def check(self, sizes: Mapping[str, int]) -> None:
        """MisfitError: a condition is not met; the text says which, and which line of the model asked."""
        if max(sizes.values(), default=0) > MAX_SIZE:
            raise MisfitError(f"a dimension is larger than {MAX_SIZE}")
        for condition in self.conditions:
            if not evaluate(condition.text, sizes):
                where = f"{condition.where} asked" if condition.where else "it was asked"
                raise MisfitError(f"it stands where {condition.text}, which {where}; that is not so with {self._text(sizes)}")

    def at(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The program at these sizes, as an entry of program.json."""
        try:
            return with_sizes(self.entry["program"], sizes)
        except RecursionError as error:
            raise FormatError(f"{FILE}: a program is nested too deeply") from error

    def _called(self, leaf: str) -> str:
        return self.names.get(leaf, leaf)

    def _text(self, sizes: Mapping[str, int]) -> str:
        return ", ".join(f"{name} ({self._called(leaf)}[{place}]) {sizes[name]}" for name, (leaf, place) in self.symbols.items())

    def text_of(self, leaf: str) -> str:
        """The shape of an input: "[2, n0, 64]"."""
        return f"[{', '.join(str(size['size'] if isinstance(size, dict) else size) for size in self.shapes[leaf])}]"


def load(folder: str) -> list[Traced]:
    """The traced programs of a capture; none if there is no file of them. FormatError if it is not one."""
    path = os.path.join(folder, FILE)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT["format"]:
        raise FormatError(f"{path}: not a file of traced programs")
    if document.get("version") != FORMAT["version"]:
        raise FormatError(f"{path}: version {document.get('version')!r}; this porting reads version {FORMAT['version']}")
    programs = document.get("programs")
    if not isinstance(programs, list) or not all(isinstance(entry, dict) for entry in programs):
        raise FormatError(f"{path}: 'programs' is not a list of objects")
    return [Traced(entry) for entry in programs]
