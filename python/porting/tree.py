"""The modules of a capture as a tree: `capture.modules` prints as one, and shows as one that folds in a notebook."""
from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

_OPEN_DEPTH = 2  # deeper levels are folded


class ModuleTree(dict[str, Any]):
    """Module path to what is known of it, in the order of named_modules(). A dict that shows itself as a tree."""

    def children(self) -> dict[str, list[str]]:
        """Path to the paths of the modules right inside it, by the nearest enclosing path that is there; "" also stands for no module."""
        found: dict[str, list[str]] = {}
        for name in self:
            if name:
                found.setdefault(self._parent(name), []).append(name)
        return found

    def _parent(self, name: str) -> str:
        while name:
            name = name.rpartition(".")[0]
            if name in self:
                return name
        return ""

    def _walk(self, children: dict[str, list[str]], name: str, depth: int) -> Iterator[tuple[str, int]]:
        stack = [(name, depth)]
        while stack:
            name, depth = stack.pop()
            yield name, depth
            stack += [(child, depth + 1) for child in reversed(children.get(name, []))]

    def __str__(self) -> str:
        """One indented line per module: the last part of its path, its class, its calls."""
        children, lines = self.children(), []
        tops = [""] if "" in self else children.get("", [])
        for top in tops:
            for name, depth in self._walk(children, top, 0):
                lines.append("  " * depth + self._label(name))
        return "\n".join(lines)

    def _label(self, name: str) -> str:
        info = self[name]
        parent = self._parent(name)
        short = name[len(parent) + 1:] if parent else name
        calls = "" if len(info.calls) == 1 else f", {len(info.calls)} calls"
        extra = f": {info.extra_repr}" if getattr(info, "extra_repr", "") else ""
        return f"{short or '(root)'} ({info.class_name}{calls}){extra}"

    def _repr_html_(self) -> str:
        children = self.children()
        parts: list[str] = []
        tops = [""] if "" in self else children.get("", [])
        open_at: list[int] = []
        for top in tops:
            for name, depth in self._walk(children, top, 0):
                while open_at and open_at[-1] >= depth:
                    open_at.pop()
                    parts.append("</div></details>")
                label = escape(self._label(name))
                if children.get(name):
                    state = " open" if depth < _OPEN_DEPTH else ""
                    parts.append(f'<details{state}><summary>{label}</summary><div style="margin-left:1.2em">')
                    open_at.append(depth)
                else:
                    parts.append(f'<div style="margin-left:1em">{label}</div>')
        parts += ["</div></details>"] * len(open_at)
        return f'<div style="font-family:monospace;text-align:left">{"".join(parts)}</div>'
