"""What all values of one form have in common: leaf paths, the text of their structure, which of their leaves are kept.

A run calls thousands of modules and meets few forms; everything here is made once for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import structure
from .selection import Selection


class Form:
    """The form of a value.

    `paths` are those of all its leaves, `kept` the numbers of those that are stored, `kept_paths` their paths, `text` is the
    structure of a CALL record, `tree` the same before it became text.
    """

    __slots__ = ("paths", "text", "kept", "kept_paths", "tree")

    def __init__(self, paths: list[str], text: str, kept: list[int], tree: Any) -> None:
        self.paths, self.text, self.kept, self.tree = paths, text, kept, tree
        self.kept_paths = tuple([paths[i] for i in kept])

    def without(self, dropped: Mapping[int, str]) -> tuple[str, tuple[str, ...]]:
        """(text, paths) if some more of the leaves could not be kept; `dropped` says why, by the leaf's number."""
        places = {i: n for n, i in enumerate(self.kept)}
        opaque = {places[i]: reason for i, reason in dropped.items()}
        kept = [n for n in range(len(self.kept)) if n not in opaque]
        tree = structure.without_leaves(self.tree, opaque, {old: new for new, old in enumerate(kept)})
        value = json.loads(self.text)
        paths = [value["leaves"][n] for n in kept]
        return structure.to_json(paths, tree, value.get("names")), tuple(paths)


def make_form(
    selection: Selection, prefix: str, tokens: tuple[Any, ...], names: tuple[str, ...] | None = None, lone: str = "0"
) -> Form:
    """The form of tokens (see `structure`); the leaves that the user's filter excludes become opaque.

    Parameters
    ----------
    prefix : what stands before a leaf's path in its full name
    names : of a call's arguments, which are keyed by their place in the tokens
    lone : path of a value that is itself a leaf
    """
    paths, tree = structure.tree_of(tokens, lone)
    opaque = {i: "excluded" for i, path in enumerate(paths) if not selection.takes_tensor(prefix + path)}
    kept = [i for i in range(len(paths)) if i not in opaque]
    if opaque:
        tree = structure.without_leaves(tree, opaque, {old: new for new, old in enumerate(kept)})
    places: dict[str, str] = {}
    if names is not None:
        places, tree = _input_tree(tree, names)
    return Form(paths, structure.to_json([paths[i] for i in kept], tree, places), kept, tree)


def _input_tree(tree: dict[str, Any], names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Any]]:
    """(names by place, tree keyed by parameter) from a tree keyed by place; items of *args come together in one tuple."""
    arguments: dict[str, Any] = {}
    for place, name in enumerate(names):
        base, dot, item = name.rpartition(".")
        if dot:
            arguments.setdefault(base, {"tuple": []})["tuple"].append(tree["dict"][str(place)])
        else:
            arguments[name if name not in arguments else f"{name}#2"] = tree["dict"][str(place)]
    return {str(place): name for place, name in enumerate(names)}, {"dict": arguments}
