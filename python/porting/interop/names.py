"""Name maps: how the tensors of a port are called, and what the reference calls them.

A map is a TOML file, the name of a convention (`zml`, `llama.cpp`, `flax`, `onnx`, `nnef`: TOML files beside this one), a mapping of patterns to names,
or a list of these. docs/NAMES.md is for who writes one:

    base = "llama.cpp"                            # what no row below takes

    [[rewrite]]                                   # everywhere in every name, in order
    pattern = '/'
    with = '.'

    [[name]]                                      # the first that fits counts
    port = 'ffn_out-(\\d+)'                        # the whole name, a regular expression
    ref = 'model.layers.\\1.mlp.out.0'             # as the capture writes it; without the root's name where that is clear
    layout = "s c -> 1 s c"

    [[name]]
    module = 'blk\\.(\\d+)\\.attn_q'                 # a module's path; .in.0, .out.0, .weight and a call's number are kept
    ref = 'model.layers.\\1.self_attn.q_proj'

What it does not know: whether values agree (`compare`), and what else could be meant (`propose.py`).
"""
from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .._core import PortingError
from ..naming import full_name, split_name, splits, suggest
from .layout import Layout, LayoutError, parse

CONVENTIONS = ("flax", "llama.cpp", "nnef", "onnx", "zml")
_KEYS = {"port", "module", "ref", "layout", "optional", "innermost", "model_types"}
#: What may follow a module's path in a full name: a phase and a leaf, a parameter of the module, or nothing.
_REST = re.compile(r"(?:@\d+)?(?:\.(?:in|out)(?:\..*)?)?$|\.(?:weight|bias)$", re.DOTALL)


class NamesError(PortingError, ValueError):
    """A name map that cannot be read, or does not fit the port."""


@dataclass(frozen=True)
class Rule:
    """One row: patterns of the port's names (or of a module's path in them) and the reference's names.

    layouts : texts, of which the first counts that fits the shapes. where : the file and the number of the row, for messages.
    optional : it may match nothing, and applies only where the reference has such names, no row before it has found them, and a layout fits.
    innermost : it applies only to modules that contain no others. model_types : only for these (the
    `model_type` of the reference's configuration); () for all.
    """

    patterns: tuple[re.Pattern[str], ...]
    refs: tuple[str, ...]
    is_module: bool
    layouts: tuple[str, ...]
    optional: bool
    where: str
    model_types: tuple[str, ...] = ()
    innermost: bool = False

    def match(self, name: str, which: int = 0) -> tuple[re.Match[str], str] | None:
        """(the match, what follows it) if the row is about this name."""
        pattern = self.patterns[which]
        if not self.is_module:
            match = pattern.fullmatch(name)
            return (match, "") if match is not None else None
        for end in [i for i, c in enumerate(name) if c in ".@"] + [len(name)]:
            if _REST.fullmatch(name, end):
                match = pattern.fullmatch(name, 0, end)
                if match is not None:
                    return match, name[end:]
        return None


@dataclass(frozen=True)
class Source:
    """Where one of the reference's tensors is in the port.

    names : of the port's tensors, several if the reference's is made of them. which, refs : the reference's names that this layout gives, and which of them this is.
    """

    names: tuple[str, ...]
    layout: Layout | None = None
    which: int = 0
    refs: tuple[str, ...] = ()


@dataclass
class NameMap:
    """Rows in order, and what is rewritten before them."""

    rules: list[Rule] = field(default_factory=list)
    rewrites: list[tuple[re.Pattern[str], str]] = field(default_factory=list)
    title: str = "names"

    def rewritten(self, name: str) -> str:
        for pattern, text in self.rewrites:
            name = pattern.sub(text, name)
        return name

    def module(self, path: str, capture: Any) -> str:
        """The reference's path of one of the port's modules; itself if no row is about it. Only rows with `module` are asked."""
        path = self.rewritten(path)
        for rule in self.rules:
            found = rule.match(path) if rule.is_module else None
            if found is not None and not found[1]:
                wanted = found[0].expand(rule.refs[0])
                there = next((name for name in (wanted, *_ending_with(capture, wanted)) if name in capture.modules), None)
                if not rule.optional or there is not None:
                    return there or wanted
        return path


def _ending_with(capture: Any, path: str) -> list[str]:
    """Modules that "*.path" or "path" may mean: with the root before it, or anything, the shortest first."""
    tail = "." + path.removeprefix("*.")
    if path.startswith("*."):
        return sorted((name for name in capture.modules if f".{name}".endswith(tail)), key=len)
    return [f"{root}.{path}" for root in capture.roots if root]


# ---------------------------------------------------------------- reading


def load(names: Any) -> NameMap:
    """The NameMap of a TOML file, a convention's name, a mapping of patterns to names, a NameMap, or a list of them (the first that fits a name counts).

    Raises
    ------
    NamesError : it cannot be read; the message says which row and why
    FileNotFoundError : neither a convention nor a file
    """
    if isinstance(names, NameMap):
        return names
    if isinstance(names, Mapping):
        return NameMap(_rules([{"port": port, "ref": ref} for port, ref in names.items()], "names", ()), [], "names")
    if isinstance(names, (str, os.PathLike)):
        return _read(os.fspath(names), ())
    if isinstance(names, Sequence) and names:
        parts = [load(part) for part in names]
        return NameMap([r for p in parts for r in p.rules], [r for p in parts for r in p.rewrites], ", ".join(p.title for p in parts))
    raise NamesError(f"names takes a TOML file, one of {', '.join(CONVENTIONS)}, or a mapping of patterns to names, got {names!r:.80}")


def _read(path: str, inside: tuple[str, ...]) -> NameMap:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    file = os.path.join(os.path.dirname(__file__), f"{path}.toml") if path in CONVENTIONS else path
    if path in inside:
        raise NamesError(f"{path}: is its own base")
    if os.path.isdir(file):
        raise NamesError(f"{path}: expected a TOML file or one of {', '.join(CONVENTIONS)}, got a folder")
    if not os.path.exists(file):
        near = suggest(path, CONVENTIONS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(2, f"neither a file nor one of the conventions {', '.join(CONVENTIONS)}{hint}", path)
    try:
        with open(file, "rb") as stream:
            table = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NamesError(f"{path}: not a TOML file: {error}") from None
    unknown = set(table) - {"base", "layout", "rewrite", "name"}
    if unknown:
        raise NamesError(f"{path}: expected base, layout, [[rewrite]] and [[name]], got {', '.join(sorted(unknown))}")
    rewrites = []
    for i, row in enumerate(_rows(table, "rewrite", path)):
        where = f"{path}, rewrite {i + 1}"
        if set(row) != {"pattern", "with"} or not all(isinstance(text, str) for text in row.values()):
            raise NamesError(f"{where}: expected the texts pattern and with, got {', '.join(row) or 'nothing'}")
        pattern = _pattern(row["pattern"], where)
        _check_template(row["with"], pattern, where)
        rewrites.append((pattern, row["with"]))
    layouts = _texts(table["layout"], path) if "layout" in table else ()
    own = NameMap(_rules(_rows(table, "name", path), path, layouts), rewrites, os.path.basename(path))
    if "base" not in table:
        return own
    if not isinstance(table["base"], str):
        raise NamesError(f"{path}: base is one of {', '.join(CONVENTIONS)} or a file, got {table['base']!r}")
    base_path = table["base"] if table["base"] in CONVENTIONS else os.path.join(os.path.dirname(file), table["base"])
    base = _read(base_path, (*inside, path))
    return NameMap(own.rules + base.rules, own.rewrites + base.rewrites, own.title)


def _rows(table: dict[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    rows = table.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NamesError(f"{path}: {key} is written as [[{key}]], once for each row")
    return rows


def _rules(rows: list[dict[str, Any]], path: str, layouts: tuple[str, ...]) -> list[Rule]:
    return [_rule(row, f"{path}, row {i + 1}", layouts) for i, row in enumerate(rows)]


def _rule(row: dict[str, Any], where: str, default: tuple[str, ...]) -> Rule:
    unknown = set(row) - _KEYS
    if unknown:
        raise NamesError(f"{where}: unknown key {', '.join(sorted(unknown))}; a row has port or module, ref, layout, optional, innermost, model_types")
    if ("port" in row) == ("module" in row) or "ref" not in row:
        raise NamesError(f"{where}: expected ref, and one of port (a whole name) and module (a module's path)")
    is_module, optional = "module" in row, row.get("optional", False)
    given = _texts(row["module"] if is_module else row["port"], where)
    refs = _texts(row["ref"], where)
    patterns = tuple(_pattern(text, where) for text in given)
    for ref in refs:
        _check_template(ref, patterns[0], where)
    layouts = _texts(row["layout"], where) if "layout" in row else () if is_module else default
    if not layouts and max(len(given), len(refs)) > 1:
        raise NamesError(f'{where}: several tensors on one side need a layout, such as "b s q+k+v -> b s q, b s k, b s v"')
    if is_module and (layouts or max(len(given), len(refs)) > 1):
        raise NamesError(f"{where}: a row with module takes one path to one path, and no layout: that is a tensor's")
    for text in layouts:
        _check_layout(text, len(given), len(refs), where)
    if not isinstance(optional, bool):
        raise NamesError(f"{where}: optional is true or false, got {optional!r}")
    if not isinstance(row.get("innermost", False), bool):
        raise NamesError(f"{where}: innermost is true or false, got {row['innermost']!r}")
    model_types = _texts(row["model_types"], where) if "model_types" in row else ()
    return Rule(patterns, refs, is_module, layouts, optional, where, model_types, row.get("innermost", False))


_FACT = re.compile(r"=\s*([A-Za-z_]\w*)")


def _check_layout(text: str, num_given: int, num_refs: int, where: str) -> None:
    try:
        layout = parse(_FACT.sub("", text))
    except LayoutError as error:
        raise NamesError(f"{where}: {error}") from None
    num_rights = num_refs if len(layout.rights) == 1 and layout.taken_apart else len(layout.rights)
    if (len(layout.lefts), num_rights) != (num_given, num_refs):
        raise NamesError(f"{where}: its layout {text!r} is of {len(layout.lefts)} tensors to {num_rights}, the row names {num_given} and {num_refs}")


def with_facts(text: str, capture: Any) -> Layout:
    """The layout of a text in which lengths may be words: those of the reference's configuration (`h=num_attention_heads`).

    Raises LayoutError if the configuration has no such number.
    """

    def number(match: re.Match[str]) -> str:
        value = config_of(capture).get(match[1])
        if not isinstance(value, int):
            raise LayoutError(f"layout {text!r}: the reference's configuration has no number {match[1]}")
        return f"={value}"

    return parse(_FACT.sub(number, text))


def config_of(capture: Any) -> dict[str, Any]:
    """The configuration of the reference's (first) root module, {} if it has none."""
    roots = capture.manifest.get("model", {}).get("roots", {})
    config = next(iter(roots.values()), {}).get("config") if isinstance(roots, dict) else None
    return config if isinstance(config, dict) else {}


def _texts(value: Any, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise NamesError(f"{where}: expected a text or a list of texts, got {value!r:.80}")
    return tuple(texts)


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise NamesError(f"{where}: {text!r} is not a regular expression: {error}") from None


def _check_template(template: str, pattern: re.Pattern[str], where: str) -> None:
    """A replacement with a group that the pattern does not have is a mistake of the file, whatever the port holds."""
    for group in re.findall(r"\\(?:(\d+)|g<(\w+)>)", template):
        number, name = group
        known = int(number) <= pattern.groups if number else (name in pattern.groupindex or (name.isdecimal() and int(name) <= pattern.groups))
        if not known:
            raise NamesError(f"{where}: {template!r} asks for group {number or name}, which {pattern.pattern!r} does not have")
    if re.search(r"\\[A-Za-fh-z]", template):
        raise NamesError(f"{where}: {template!r} is not a replacement: \\1, \\2, ... and \\g<name> are what a pattern's groups caught")


# ---------------------------------------------------------------- a port under the reference's names


class MappedPort(Mapping[str, np.ndarray]):
    """A port's arrays under the names, and in the layout, of the reference.

    Parameters
    ----------
    port : full name to array, as the port calls them
    capture : the reference
    names : NameMap or None
    layout : a text for every tensor with as many axes as its left side, or a mapping of shell patterns of the reference's names to texts; None

    Attributes
    ----------
    sources : reference's full name to Source. dangling : (port's name, what the map makes of it) where the reference has no such name.

    Raises
    ------
    NamesError : two tensors of the port are sent to one of the reference, a row is never used or never reached, a layout fits nothing
    """

    def __init__(self, port: Mapping[str, Any], capture: Any, names: NameMap | None, layout: str | Mapping[str, str] | None = None) -> None:
        self.port, self.capture = port, capture
        self.names = names if names is not None else NameMap()
        self.sources: dict[str, Source] = {}
        self.dangling: list[tuple[str, str]] = []
        self._takers: dict[str, str] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], dict[int, str]] = {}
        if hasattr(port, "path"):
            self.path = port.path
        used: set[str] = set()
        shadowed: dict[str, str] = {}
        for name in sorted(port, key=self._first_row):  # of two names for one tensor that rows may send there, the earlier row's
            self._place(name, used, shadowed)
        self._finish_groups()
        self._check_used(used, shadowed)
        if layout is not None:
            self._lay_out(layout)

    # ------------------------------------------------------------ finding the names

    def _first_row(self, name: str) -> int:
        """The number of the first row whose pattern a name fits, whatever the reference has."""
        text = self.names.rewritten(name)
        rules = self.names.rules
        return next((i for i, rule in enumerate(rules) if any(rule.match(text, which) for which in range(len(rule.patterns)))), len(rules))

    def _place(self, name: str, used: set[str], shadowed: dict[str, str]) -> None:
        """Finds what the map makes of one of the port's names."""
        text = self.names.rewritten(name)
        for place, rule in enumerate(self.names.rules):
            if rule.model_types and self._model_type not in rule.model_types:
                continue
            for which in range(len(rule.patterns)):
                found = rule.match(text, which)
                if found is None:
                    continue
                refs = tuple(found[0].expand(ref) + found[1] for ref in rule.refs)
                full = [self.find(ref) for ref in refs]
                if rule.optional and (any(ref is None or ref in self._takers for ref in full) or not self._fits(rule, name, full)):
                    continue
                if rule.innermost and any(ref is not None and self._contains_modules(ref) for ref in full):
                    continue
                used.add(rule.where)
                for later in self.names.rules[place + 1:]:
                    if not later.optional and any(later.match(text, i) for i in range(len(later.patterns))):
                        shadowed.setdefault(later.where, rule.where)
                self._take(name, rule, which, refs, full)
                return
        own = self.find(text)
        own = name if own is None or own in self._takers else own
        self._claim(own, name, "its own name")
        self.sources[own] = Source((name,), None, 0, (own,))

    def _fits(self, rule: Rule, name: str, refs: Sequence[str]) -> bool:
        return not rule.layouts or len(rule.patterns) > 1 or self._layout(rule, (name,), refs) is not None

    def _layout(self, rule: Rule, names: tuple[str, ...], refs: Sequence[str]) -> Layout | None:
        """The first of a row's layouts that fits the shapes; None if none does."""
        given = [np.shape(self.port[name]) for name in names]
        for text in rule.layouts:
            try:
                layout = with_facts(text, self.capture)
                layout.lengths(given, [self._shape(ref) for ref in refs])
            except LayoutError:
                continue
            return layout
        return None

    def find(self, ref: str) -> str | None:
        """The reference's full name that a row means: with "*." for whatever stands before, "~." with lists of modules
        left out and letters of any case; "param:..." for a parameter; None if there is none, with "~." also if there are two."""
        if ref.startswith("~."):
            return self._find_called(ref[2:])
        heads = self._heads if ref.startswith("*.") else ("",)
        ref = ref.removeprefix("*.")
        is_parameter = ref.startswith("param:")
        for head in heads:
            text = head + ref.removeprefix("param:")
            found = None if is_parameter else self.capture.find(text)
            if found is None:
                found = next((f"param:{p}" for p in (text, *(f"{root}.{text}" for root in self.capture.roots if root)) if p in self._parameters), None)
            if found is not None:
                return found
        return None

    def _find_called(self, text: str) -> str | None:
        """The full name that is meant if a module is called as `_called` has it."""
        for module, call, phase, leaf in splits(text):
            path = self._called.get(module.lower())
            found = self.capture.find(full_name(path, call, phase, leaf)) if path is not None else None
            if found is not None:
                return found
        return None

    @cached_property
    def _called(self) -> dict[str, str | None]:
        """Path of a module in small letters, without the root's name and without the lists on the way, to its path; None where it is that of two."""
        lists = {path for path, info in self.capture.modules.items() if info.class_name in ("ModuleList", "ModuleDict")}
        found: dict[str, str | None] = {}
        for path in self.capture.modules:
            parts = path.split(".")
            kept = [part for k, part in enumerate(parts) if ".".join(parts[:k + 1]) not in lists]
            root = next((r for r in self.capture.roots if r and (path == r or path.startswith(f"{r}."))), "")
            for key in {".".join(kept).lower(), ".".join(kept[root.count(".") + 1 if root else 0:]).lower()}:
                found[key] = path if found.get(key, path) == path else None
        return found

    def _contains_modules(self, ref: str) -> bool:
        """Whether the module of a full name has modules inside."""
        inside = split_name(ref, self.capture.modules)[0]
        return inside in self._outer

    @cached_property
    def _outer(self) -> frozenset[str]:
        """The paths of all modules that contain others."""
        return frozenset(".".join(path.split(".")[:k]) for path in self.capture.modules if path for k in range(path.count(".") + 1))

    @cached_property
    def _heads(self) -> tuple[str, ...]:
        """What may stand before a name: the beginnings of module paths without a number in them, the shortest first."""
        heads = {""}
        for module in self.capture.modules:
            parts = module.split(".")
            for k in range(1, min(len(parts), 4) + 1):
                if any(part.isdecimal() for part in parts[:k]):
                    break
                heads.add(".".join(parts[:k]) + ".")
        return tuple(sorted((head for head in heads if head != "."), key=lambda head: (head.count("."), head)))

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(self.capture.parameters)

    @cached_property
    def _model_type(self) -> str:
        return str(config_of(self.capture).get("model_type", ""))

    def _take(self, name: str, rule: Rule, which: int, refs: tuple[str, ...], found: list[str | None]) -> None:
        absent = next((ref for ref, full in zip(refs, found) if full is None), None)
        if absent is not None:
            self.dangling.append((name, absent))
            return
        full = tuple(ref for ref in found if ref is not None)
        if len(rule.patterns) > 1:
            members = self._groups.setdefault((rule.where, full), {})
            if which in members:
                raise NamesError(f"{rule.where}: {members[which]} and {name} of the port are both part {which + 1} of {full[0]}")
            members[which] = name
            return
        layout = self._layout(rule, (name,), full) or with_facts(rule.layouts[0], self.capture) if rule.layouts else None
        for i, ref in enumerate(full):
            self._claim(ref, name, rule.where)
            self.sources[ref] = Source((name,), layout, i, full)

    def _claim(self, ref: str, name: str, where: str) -> None:
        before = self._takers.get(ref)
        if before is not None:
            raise NamesError(f"{self.names.title}: {before} and {name} of the port are both sent to {ref} ({name} by {where})")
        self._takers[ref] = name

    def _finish_groups(self) -> None:
        rules = {rule.where: rule for rule in self.names.rules}
        for (where, full), members in self._groups.items():
            rule = rules[where]
            lacking = [rule.patterns[i].pattern for i in range(len(rule.patterns)) if i not in members]
            if lacking:
                raise NamesError(f"{where}: the port has {', '.join(members.values())} for {full[0]}, but nothing that fits {lacking[0]}")
            names = tuple(members[i] for i in range(len(rule.patterns)))
            self._claim(full[0], names[0], where)
            layout = self._layout(rule, names, full) or with_facts(rule.layouts[0], self.capture)
            self.sources[full[0]] = Source(names, layout, 0, full)

    def _check_used(self, used: set[str], shadowed: Mapping[str, str]) -> None:
        for rule in self.names.rules:
            if rule.optional or rule.where in used:
                continue
            words = rule.patterns[0].pattern
            if rule.where in shadowed:
                raise NamesError(f"{rule.where}: {words} is never reached: {shadowed[rule.where]} takes what it matches")
            near = suggest(re.sub(r"\\d[+*]?|[\\()^$?+*\[\]]", "", words), list(self.port), 1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise NamesError(f"{rule.where}: {words} matches none of the port's {len(self.port)} names{hint} (optional = true if that is meant)")

    # ------------------------------------------------------------ layouts by option

    def _lay_out(self, layout: str | Mapping[str, str]) -> None:
        texts = {"*": layout} if isinstance(layout, str) else dict(layout)
        parsed = {pattern: parse(text) for pattern, text in texts.items()}
        used = set()
        for ref, source in self.sources.items():
            if source.layout is not None:
                continue
            found = layout_of(ref, parsed, isinstance(layout, str), lambda source=source: np.ndim(self.port[source.names[0]]), self.capture)
            if found is not None:
                used.add(found[0])
                self.sources[ref] = Source(source.names, found[1], 0, (ref,))
        for pattern, one in parsed.items():
            if pattern not in used:
                what = f"no tensor of the port has {one.ndim} axes" if isinstance(layout, str) else f"no tensor of the port has a name like {pattern}"
                raise NamesError(f"layout {one.text!r}: {what}")

    # ------------------------------------------------------------ the arrays

    def __getitem__(self, name: str) -> np.ndarray:
        source = self.sources[name]
        if source.layout is None:
            return self.port[source.names[0]]
        from ..port import as_array

        shapes = [self._shape(ref) for ref in source.refs]
        return source.layout.apply([as_array(self.port[given], given) for given in source.names], shapes)[source.which]

    def _shape(self, name: str) -> tuple[int, ...] | None:
        """Of one of the reference's tensors; None if it has no such name (then the port's own tells what there is to tell)."""
        return tuple(self.capture[name].shape) if name in self._known else None

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.capture) | {f"param:{name}" for name in self._parameters}

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def close(self) -> None:
        if hasattr(self.port, "close"):
            self.port.close()

    def origin(self, name: str) -> str:
        """How the port has what the reference calls `name`: "" if by the same name and layout."""
        source = self.sources.get(name)
        if source is None or (source.names == (name,) and source.layout is None):
            return ""
        words = " and ".join(source.names)
        return f"the port's {words}" + (f", {source.layout.text}" if source.layout is not None else "")


def layout_of(ref: str, parsed: Mapping[str, Layout], by_axes: bool, ndim: Any, capture: Any) -> tuple[str, Layout] | None:
    """(pattern, layout) that an option `layout=` has for one of the reference's names; ndim() is asked if it goes by the number of axes."""
    for pattern, layout in parsed.items():
        if by_axes:
            if layout.ndim is None or layout.ndim == ndim():
                return pattern, layout
        elif fits(ref, pattern, capture):
            return pattern, layout
    return None


def fits(name: str, pattern: str, capture: Any) -> bool:
    """Whether a shell pattern names a tensor, with or without the name of the root before it, and with any number of the call."""
    plain = re.sub(r"@\d+(?=\.|$)", "", name)
    root = getattr(capture, "root", "") or ""
    short = plain[len(root) + 1:] if root and plain.startswith(root + ".") else plain
    return any(fnmatch.fnmatchcase(text, pattern) for text in (name, plain, short))


def flat_names(port: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested mapping, as JAX has its trees, with one name for each array: keys joined by "/", items of tuples numbered."""
    found: dict[str, Any] = {}
    for key, value in port.items():
        name = f"{before}{key}"
        if isinstance(value, (tuple, list)) and any(hasattr(item, "shape") or isinstance(item, (Mapping, tuple, list)) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, Mapping):
            found.update(flat_names(value, f"{name}/"))
        else:
            found[name] = value
    return found


# ---------------------------------------------------------------- callables


class LaidOutPort:
    """A callable that keeps its tensors in another layout: gets the captured inputs in its own, its outputs come back in the reference's.

    layout : as `porting.compare` takes it, the port's axes on the left. It goes for inputs, by their names, as for outputs. `used` says whether it was for any.
    """

    def __init__(self, function: Any, layout: str | Mapping[str, str], capture: Any) -> None:
        self.function, self.capture = function, capture
        self.by_axes = isinstance(layout, str)
        self.parsed = {pattern: with_facts(text, capture) for pattern, text in ({"*": layout} if isinstance(layout, str) else layout).items()}
        self.used: set[str] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def _of(self, name: str, ndim: int, own_axes: bool) -> Layout | None:
        """The layout for a tensor of `ndim` axes in the port's layout (own_axes) or in the reference's."""
        for pattern, layout in self.parsed.items():
            one = layout if own_axes else layout.inverse
            if (one.ndim is None or one.ndim == ndim) if self.by_axes else fits(name, pattern, self.capture):
                self.used.add(pattern)
                return one
        return None

    def is_for(self, call: Any) -> None:
        """Marks as used what is for any of a captured call's tensors, by the reference's axes: nothing is run."""
        for phase, leaves in (("in", call.inputs), ("out", call.outputs)):
            for leaf, array in leaves.items():
                self._of(call.full_name(phase, leaf), array.ndim, False)

    def run_call(self, call: Any) -> dict[str, np.ndarray]:
        """What the callable returns for one captured call, in the reference's layout."""
        from ..compare import match_leaves
        from ..port import run_port

        found = match_leaves(list(call.outputs), run_port(self.function, _CallInLayout(call, self)))
        for leaf, array in found.items():
            one = self._of(call.full_name("out", leaf), array.ndim, True)
            if one is not None:
                found[leaf], = one.apply([array], [call.outputs[leaf].shape])
        return found


class _CallInLayout:
    """A captured call whose inputs are in a port's layout."""

    def __init__(self, call: Any, port: LaidOutPort) -> None:
        self.input_names, self.arguments = call.input_names, call.arguments
        self.inputs: dict[str, np.ndarray] = {}
        for leaf, array in call.inputs.items():
            one = port._of(call.full_name("in", leaf), array.ndim, False)
            self.inputs[leaf] = array if one is None else np.ascontiguousarray(one.apply([array], [None])[0])
