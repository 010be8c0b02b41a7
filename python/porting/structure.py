"""Nested Python values as a flat list of leaves and a tree (docs/FORMAT.md section 6), and back.

A value is walked once, into *tokens*: a flat tuple in which every leaf is the same mark, so that two values of the same
form have equal tokens. The collector walks thousands of values per run and meets few forms; paths and JSON are made
once per form (`describe`). Nothing here knows torch: `is_leaf` says what a tensor is.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

MAX_DEPTH = 32  # deeper than any real value; stops what is unbounded
MAX_TEXT = 1000  # characters kept of an opaque object's repr
KEY_VALUE = ("key", "value")
KEY_VALUE_LAYERS = (
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "StaticLayer",
)  # their other attributes are sizes, flags
PLAIN = (type(None), bool, int, str, float)


class _Mark:
    """A token that is not a value of the user's. Compared by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


LEAF = _Mark("LEAF")
LIST = _Mark("LIST")  # then the number of items, then these
TUPLE = _Mark("TUPLE")  # the same
DICT = _Mark("DICT")  # then the keys as text, then the values
OBJECT = _Mark("OBJECT")  # then the class's name, the fields' names, the values
VALUE = _Mark("VALUE")  # then the type, the value (a float as text: nan is not equal to itself, 0.0 is to -0.0)
OPAQUE = _Mark("OPAQUE")  # then the class's name, the repr


class Walker:
    """Walks values. `is_leaf(value) -> bool` says what is stored.

    After `walk(value)`: `tokens` (list), `leaves` (list), `cached` (begin, end and the object's id, of leaves that sit inside a cache object) and
    `lost` (reasons, for what was cut off: cycles, depth).
    """

    __slots__ = ("is_leaf", "tokens", "leaves", "cached", "lost", "_open")

    def __init__(self, is_leaf: Callable[[Any], bool]) -> None:
        self.is_leaf = is_leaf
        self.reset()

    def reset(self) -> None:
        self.tokens: list[Hashable] = []
        self.leaves: list[Any] = []
        self.cached: list[tuple[int, int, int]] = []
        self.lost: list[str] = []
        self._open: set[int] = set()

    def walk(self, value: Any) -> None:
        kind = type(value)
        if self.is_leaf(value):
            self.tokens.append(LEAF)
            self.leaves.append(value)
        elif kind is int and not -(2**63) <= value < 2**63:  # the store reads integers of 64 bits
            self.tokens += (OPAQUE, "int", repr(value))
        elif kind in PLAIN:
            self.tokens += (VALUE, kind, repr(value) if kind is float else value)
        elif id(value) in self._open or len(self._open) >= MAX_DEPTH:
            why = "contains itself" if id(value) in self._open else f"nested deeper than {MAX_DEPTH}"
            self.lost.append(f"{kind.__name__} {why}")
            self.tokens += (OPAQUE, kind.__name__, why)
        else:
            self._open.add(id(value))
            try:
                self._walk_inside(value, kind)
            finally:
                self._open.discard(id(value))

    def _walk_inside(self, value: Any, kind: type) -> None:
        if isinstance(value, (list, tuple)):
            self._walk_sequence(value, kind)
        elif isinstance(value, Mapping):
            # ModelOutput and its like are mappings with a class of their own; plain dicts and UserDicts are not
            keys = list(value)
            names = tuple(unique([valid_text(str(key)).replace("\0", "?") for key in keys]))
            if dataclasses.is_dataclass(value):
                self.tokens += (OBJECT, kind.__name__, names)
            else:
                self.tokens += (DICT, names)
            for key in keys:
                self.walk(value[key])
        elif is_cache(value):
            self._walk_cache(value, kind)
        elif isinstance(value, (int, float, str)) and not isinstance(value, enum.Enum):
            plain = next(t for t in (bool, int, float, str) if isinstance(value, t))
            self.walk(plain(value))
        elif isinstance(value, (set, frozenset)):
            self._walk_fields(value, kind, {str(i): item for i, item in enumerate(value)})
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
            self._walk_fields(value, kind, fields)
        else:
            self._walk_fields(value, kind, data_attributes(value), opaque_if_empty=True)

    def _walk_sequence(self, value: Any, kind: type) -> None:
        names = getattr(kind, "_fields", None)
        if isinstance(value, tuple) and names is not None:
            self.tokens += (OBJECT, kind.__name__, tuple(names))
        else:
            self.tokens += (TUPLE if isinstance(value, tuple) else LIST, len(value))
        for item in value:
            self.walk(item)

    def _walk_cache(self, value: Any, kind: type) -> None:
        """Caches as transformers makes them: `.layers`, each with `.keys` and `.values`; or two caches in one."""
        start = len(self.leaves)
        both = getattr(value, "self_attention_cache", None)
        if both is not None:
            self.tokens += (OBJECT, kind.__name__, ("self_attention_cache", "cross_attention_cache"))
            self.walk(both)
            self.walk(value.cross_attention_cache)
        else:
            layers = list(value.layers)
            self.tokens += (OBJECT, kind.__name__, tuple(map(str, range(len(layers)))))
            if not self._walk_equal_layers(layers):
                for layer in layers:
                    self._walk_cache_layer(layer)
            self.cached.append((start, len(self.leaves), id(value)))

    def _walk_equal_layers(self, layers: list[Any]) -> bool:
        """All layers at once if they are of one known kind and full: a decode step passes them to every module."""
        kinds = set(map(type, layers))
        name = next(iter(kinds)).__name__ if len(kinds) == 1 else ""
        if name not in KEY_VALUE_LAYERS:
            return False
        leaves = [field for layer in layers for field in (layer.keys, layer.values)]
        if not all(map(self.is_leaf, leaves)):
            return False
        self.tokens += (OBJECT, name, KEY_VALUE, LEAF, LEAF) * len(layers)
        self.leaves += leaves
        return True

    def _walk_cache_layer(self, layer: Any) -> None:
        known = type(layer).__name__ in KEY_VALUE_LAYERS
        fields = (
            {} if known else {name: field for name, field in attributes_of(layer).items() if holds(field, self.is_leaf)}
        )
        fields.pop("keys", None)
        fields.pop("values", None)
        self.tokens += (OBJECT, type(layer).__name__, (*KEY_VALUE, *fields))
        self.walk(layer.keys)
        self.walk(layer.values)
        for field in fields.values():
            self.walk(field)

    def _walk_fields(self, value: Any, kind: type, fields: dict[str, Any], opaque_if_empty: bool = False) -> None:
        """An object by its fields; one of no known form that holds no leaf anywhere becomes its repr."""
        start, num_leaves = len(self.tokens), len(self.leaves)
        self.tokens += (OBJECT, kind.__name__, tuple(fields))
        for field in fields.values():
            self.walk(field)
        if opaque_if_empty and len(self.leaves) == num_leaves:
            del self.tokens[start:]
            self.tokens += (OPAQUE, kind.__name__, short_repr(value))


def is_cache(value: Any) -> bool:
    """True for objects with per-layer keys and values, and for those that join two of these (by form, not by class)."""
    layers = getattr(value, "layers", None)
    if isinstance(layers, list):
        one_of_each = {type(layer): layer for layer in layers}.values()
        if any(type(layer).__name__ not in KEY_VALUE_LAYERS for layer in one_of_each):
            one_of_each = layers
        if all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in one_of_each):
            return not hasattr(value, "forward")
    return (
        is_cache(getattr(value, "self_attention_cache", None) or 0)
        if hasattr(value, "cross_attention_cache")
        else False
    )


def attributes_of(value: Any) -> dict[str, Any]:
    """The instance's own attributes, also those in slots."""
    fields = dict(getattr(value, "__dict__", None) or {})
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                fields[slot] = getattr(value, slot)
    return {str(name): field for name, field in fields.items()}


def data_attributes(value: Any) -> dict[str, Any]:
    """`attributes_of` objects whose attributes are data; {} for modules, classes and functions."""
    if isinstance(value, (type, enum.Enum)) or callable(value) or hasattr(value, "forward"):
        return {}
    return attributes_of(value)


def holds(value: Any, is_leaf: Callable[[Any], bool]) -> bool:
    """True if a leaf is `value` or sits in its items."""
    if isinstance(value, Mapping):
        return any(holds(item, is_leaf) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds(item, is_leaf) for item in value)
    return is_leaf(value)


def short_repr(value: Any) -> str:
    """The repr, shortened, without addresses (they differ between runs)."""
    if type(value).__repr__ is object.__repr__ or callable(value) and not isinstance(value, type):
        name = getattr(value, "__qualname__", None)
        return f"<{name if isinstance(name, str) else type(value).__name__}>"
    try:
        text = repr(value)
    except Exception as error:  # a user's __repr__ may do anything
        text = f"<repr failed: {type(error).__name__}>"
    return re.sub(r" at 0x[0-9a-f]+", "", text[:MAX_TEXT])


def valid_text(text: str) -> str:
    """The text with half surrogate pairs, which UTF-8 has no bytes for, replaced by "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def unique(names: list[str]) -> list[str]:
    """The names with #2, #3, ... after repeated ones."""
    if len(set(names)) == len(names):
        return names
    seen: set[str] = set()
    result = []
    for name in names:
        k, candidate = 1, name
        while candidate in seen:
            k += 1
            candidate = f"{name}#{k}"
        seen.add(candidate)
        result.append(candidate)
    return result


# ------------------------------------------------------------------------------------------ tokens to paths and trees


def tree_of(tokens: tuple[Hashable, ...], lone: str = "0") -> tuple[list[str], Any]:
    """(leaf paths, tree) of tokens. `lone` is the path of a value that is itself a leaf."""
    paths: list[str] = []
    tree, end = _tree_at(tokens, 0, "", paths)
    assert end == len(tokens)
    if tokens[0] is LEAF:
        paths[0] = lone
    return unique(paths), tree


def _tree_at(tokens: tuple[Any, ...], i: int, path: str, paths: list[str]) -> tuple[Any, int]:
    mark = tokens[i]
    if mark is LEAF:
        paths.append(path)
        return {"$": len(paths) - 1}, i + 1
    if mark is VALUE:
        kind, value = tokens[i + 1], tokens[i + 2]
        if kind is float:
            number = float(value)
            return ({"value": number} if math.isfinite(number) else {"float": value}), i + 3
        return {"value": value}, i + 3
    if mark is OPAQUE:
        return {"opaque": tokens[i + 1], "repr": tokens[i + 2]}, i + 3
    below = f"{path}." if path else ""
    if mark is LIST or mark is TUPLE:
        items, count, i = [], tokens[i + 1], i + 2
        for k in range(count):
            item, i = _tree_at(tokens, i, f"{below}{k}", paths)
            items.append(item)
        return {"list" if mark is LIST else "tuple": items}, i
    fields: dict[str, Any] = {}
    names, i = (tokens[i + 1], i + 2) if mark is DICT else (tokens[i + 2], i + 3)
    start = i
    for name in names:
        fields[name], i = _tree_at(tokens, i, f"{below}{name}", paths)
    if mark is DICT:
        return {"dict": fields}, i
    return {"object": tokens[start - 2], "fields": fields}, i


def without_leaves(tree: Any, opaque: Mapping[int, str], places: Mapping[int, int]) -> Any:
    """The tree with some leaves replaced by the reason they are missing, the others renumbered by `places`."""
    if "$" in tree:
        i = tree["$"]
        return {"opaque": "Tensor", "repr": opaque[i]} if i in opaque else {"$": places[i]}
    for form in ("list", "tuple"):
        if form in tree:
            return {form: [without_leaves(item, opaque, places) for item in tree[form]]}
    for form in ("dict", "fields"):
        if form in tree:
            return {**tree, form: {key: without_leaves(item, opaque, places) for key, item in tree[form].items()}}
    return tree


def to_json(paths: list[str], tree: Any, names: dict[str, str] | None = None) -> str:
    """The text of a CALL record's structure."""
    value: dict[str, Any] = {"leaves": paths}
    if names:
        value["names"] = names
    value["tree"] = tree
    return valid_text(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def flatten(value: Any, is_leaf: Callable[[Any], bool], lone: str = "0") -> tuple[list[tuple[str, Any]], Any]:
    """The leaves of a nested value with their dotted paths, and the tree that puts it together again.

    Examples
    --------
    >>> flatten([b"x", {"key": b"y"}, None], lambda v: isinstance(v, bytes))[0]
    [('0', b'x'), ('1.key', b'y')]
    """
    walker = Walker(is_leaf)
    walker.walk(value)
    paths, tree = tree_of(tuple(walker.tokens), lone)
    return list(zip(paths, walker.leaves)), tree


class Record(dict):
    """An object of the captured run, rebuilt: its fields as items, as attributes, and by number as tuples have them."""

    def __init__(self, class_name: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.class_name = class_name

    def __getattr__(self, name: str) -> Any:
        try:
            return dict.__getitem__(self, name)
        except KeyError:
            raise AttributeError(f"{self.class_name} has no field {name!r}; it has {', '.join(self)}") from None

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, (int, slice)) else dict.__getitem__(self, key)

    def __repr__(self) -> str:
        return f"{self.class_name}({', '.join(f'{k}={v!r}' for k, v in self.items())})"


class Opaque:
    """Stands for an object that had neither tensors nor a JSON form."""

    def __init__(self, class_name: str, text: str) -> None:
        self.class_name, self.text = class_name, text

    def __repr__(self) -> str:
        return f"Opaque({self.class_name}: {self.text})"


def rebuild(tree: Any, leaves: Callable[[int], Any] | list[Any], _depth: int = 0) -> Any:
    """The value that a tree describes. `leaves` is a list, or a function that gets leaf i.

    Raises
    ------
    ValueError : the tree is not of the form of docs/FORMAT.md section 6
    """
    if not isinstance(tree, dict) or _depth > 4 * MAX_DEPTH:
        raise ValueError(f"not a structure tree: {str(tree)[:80]}")
    if "$" in tree:
        return leaves[tree["$"]] if isinstance(leaves, list) else leaves(tree["$"])
    if "value" in tree:
        return tree["value"]
    if "float" in tree:
        return float(tree["float"])
    if "list" in tree:
        return [rebuild(item, leaves, _depth + 1) for item in tree["list"]]
    if "tuple" in tree:
        return tuple(rebuild(item, leaves, _depth + 1) for item in tree["tuple"])
    if "dict" in tree:
        return {key: rebuild(item, leaves, _depth + 1) for key, item in tree["dict"].items()}
    if "object" in tree:
        fields = {key: rebuild(item, leaves, _depth + 1) for key, item in tree["fields"].items()}
        return Record(tree["object"], fields)
    if "opaque" in tree:
        return Opaque(tree["opaque"], tree.get("repr", ""))
    raise ValueError(f"not a structure tree: {str(tree)[:80]}")
