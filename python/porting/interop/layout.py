"""Layouts: how the axes of a port's tensor become the reference's, said in one line.

    b s (h d) -> b h s d                   heads taken apart and moved: the port's on the left, the reference's on the right
    NHWC -> NCHW                           a word of capitals is its letters
    s c -> 1 s c                           an axis of length one, dropped or put in
    ... i o -> ... o i                     any axes before
    b s (h=9 d) -> b s (d h)               a length that the shapes do not tell
    b s q+k+v -> b s q, b s k, b s v       one tensor that is several, end to end along an axis
    b s (h qkv d) -> b s (h d)             one tensor that is several, along an axis that is on the left alone
    b s q, b s k, b s v -> b s q+k+v       several tensors that are one

A layout moves elements and computes nothing. What it does not know: names of tensors (`names.py`), and which layout would fit (`propose.py`).
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._core import PortingError

_TOKEN = re.compile(r"\s*(->|\.\.\.|[(),+=]|[A-Za-z_][A-Za-z0-9_]*|\d+|\S)")
_DOTS = "..."

Atom = tuple[str, ...]  # one axis, or the parts that lie end to end along one
Dim = tuple[Atom, ...]  # what one dimension of a tensor is made of; () is a dimension of length one
Side = tuple[Dim, ...]


class LayoutError(PortingError, ValueError):
    """A layout that cannot be read, or does not fit a tensor."""


@dataclass(frozen=True)
class Layout:
    """A parsed layout. lefts, rights : the sides, one for each tensor. sizes : lengths that the text gives."""

    text: str
    lefts: tuple[Side, ...]
    rights: tuple[Side, ...]
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def inverse(self) -> Layout:
        """The way back. Raises LayoutError where one side is several tensors."""
        if len(self.lefts) > 1 or len(self.rights) > 1 or self.taken_apart:
            raise LayoutError(f"layout {self.text!r} joins or parts tensors: it has no way back")
        left, arrow, right = self.text.partition("->")
        return Layout(f"{right.strip()} {arrow} {left.strip()}", self.rights, self.lefts, self.sizes)

    @property
    def taken_apart(self) -> str | None:
        """The axis that is on the left alone and tells several of the reference's tensors apart; None if there is none."""
        if len(self.lefts) > 1 or len(self.rights) > 1:
            return None
        alone = _names(self.lefts[0]) - _names(self.rights[0])
        return next(iter(alone), None)

    @property
    def ndim(self) -> int | None:
        """Axes of the (first) tensor on the left; None if it has dots."""
        return None if _has_dots(self.lefts[0]) else len(self.lefts[0])

    def apply(self, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...] | None]) -> list[np.ndarray]:
        """The port's arrays in the reference's layout.

        Parameters
        ----------
        arrays : one for each tensor on the left
        shapes : of the reference's tensors, as far as they are known: they tell the lengths that the arrays do not

        Raises
        ------
        LayoutError : the arrays do not have the axes of the left, or lengths cannot be told or contradict each other
        """
        if len(arrays) != len(self.lefts):
            raise LayoutError(f"layout {self.text!r} takes {len(self.lefts)} tensors, got {len(arrays)}")
        lefts, rights, sizes = self.lengths([a.shape for a in arrays], shapes)
        atoms = [a.reshape([_length(atom, sizes) for dim in side for atom in dim]) for a, side in zip(arrays, lefts)]
        if len(arrays) > 1:
            return [self._join(atoms, lefts, rights[0], sizes)]
        return [self._part(atoms[0], lefts[0], right, i, sizes) for i, right in enumerate(rights)]

    def lengths(self, given: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, ...] | None]) -> tuple[list[Side], list[Side], dict[str, int]]:
        """(the sides without dots, the length of every axis), from the shapes of the port's and the reference's tensors.

        Raises LayoutError as `apply` does, without any data: whether a layout fits.
        """
        apart = self.taken_apart
        rights = self.rights * len(shapes) if len(self.rights) == 1 and (apart or len(shapes) == 1) else self.rights
        if len(rights) != len(shapes):
            raise LayoutError(f"layout {self.text!r} gives {len(rights)} tensors, {len(shapes)} are named")
        lefts, sides = self._without_dots(given, shapes, rights)
        known = {**dict(self.sizes), **({apart: len(shapes)} if apart else {})}
        return lefts, sides, self._solve(lefts, given, sides, shapes, known)

    def _part(self, array: np.ndarray, left: Side, right: Side, which: int, sizes: Mapping[str, int]) -> np.ndarray:
        """One tensor of the right, from the only one of the left in its atoms."""
        here = [atom for dim in left for atom in dim]
        wanted = [atom for dim in right for atom in dim]
        for axis in range(len(here) - 1, -1, -1):
            atom = here[axis]
            if atom in wanted:
                continue
            part = next((name for name in atom if (name,) in wanted), None) if len(atom) > 1 else None
            if part is not None:
                begin = sum(sizes[name] for name in atom[: atom.index(part)])
                array = array[(slice(None),) * axis + (slice(begin, begin + sizes[part]),)]
                here[axis] = (part,)
            else:
                array = array[(slice(None),) * axis + (which,)]
                del here[axis]
        array = array.transpose([here.index(atom) for atom in wanted])
        return array.reshape([math.prod(_length(atom, sizes) for atom in dim) for dim in right])

    def _join(self, arrays: list[np.ndarray], lefts: Sequence[Side], right: Side, sizes: Mapping[str, int]) -> np.ndarray:
        """The only tensor of the right, from several of the left in their atoms."""
        wanted = [atom for dim in right for atom in dim]
        axis = next(i for i, atom in enumerate(wanted) if len(atom) > 1)
        pieces = {}
        for array, left in zip(arrays, lefts):
            here = [atom for dim in left for atom in dim]
            part = next(name for name in wanted[axis] if (name,) in here)
            pieces[part] = array.transpose([here.index((part,) if i == axis else atom) for i, atom in enumerate(wanted)])
        joined = np.concatenate([pieces[name] for name in wanted[axis]], axis)
        return joined.reshape([math.prod(_length(atom, sizes) for atom in dim) for dim in right])

    def _without_dots(self, given: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, ...] | None],
                      rights: Sequence[Side]) -> tuple[list[Side], list[Side]]:
        """The sides with the dots replaced by as many axes as the tensors have there."""
        counts = set()
        for shape, side in zip(given, self.lefts):
            count = len(shape) - len(side) + _has_dots(side)
            if count < 0 or (count and not _has_dots(side)):
                raise LayoutError(f"layout {self.text!r} does not fit: the left has {len(side)} axes, the port's tensor is {list(shape)}")
            if _has_dots(side):
                counts.add(count)
        if len(counts) > 1:
            raise LayoutError(f"layout {self.text!r} does not fit: the dots stand for {' and '.join(map(str, sorted(counts)))} axes")
        dots = tuple(((f"{_DOTS}{i}",),) for i in range(counts.pop() if counts else 0))

        def replaced(side: Side) -> Side:
            return tuple(d for dim in side for d in (dots if dim == ((_DOTS,),) else (dim,)))

        sides = [replaced(side) for side in rights]
        for side, shape in zip(sides, shapes):
            if shape is not None and len(side) != len(shape):
                raise LayoutError(f"layout {self.text!r} does not fit: the right has {len(side)} axes, the reference's tensor is {list(shape)}")
        return [replaced(side) for side in self.lefts], sides

    def _solve(self, lefts: Sequence[Side], left_shapes: Sequence[tuple[int, ...]], rights: Sequence[Side],
               right_shapes: Sequence[tuple[int, ...] | None], known: dict[str, int]) -> dict[str, int]:
        """The length of every axis, from the lengths of the dimensions that it is in."""
        equations = [(dim, n, "port") for side, shape in zip(lefts, left_shapes) for dim, n in zip(side, shape)]
        sides = [(dim, n, "reference") for side, shape in zip(rights, right_shapes) if shape is not None for dim, n in zip(side, shape)]
        # What one side alone tells comes first: then a contradiction is said of the reference's shape.
        for these in (equations, equations + sides):
            before = -1
            while before != len(known):
                before = len(known)
                for dim, n, whose in these:
                    self._solve_one(dim, n, whose, known)
        missing = sorted({name for side in (*lefts, *rights) for dim in side for atom in dim for name in atom if name not in known})
        if missing:
            raise LayoutError(f"layout {self.text!r}: the length of {', '.join(missing)} cannot be told from the shapes; write {missing[0]}=N in it")
        return known

    def _solve_one(self, dim: Dim, n: int, whose: str, known: dict[str, int]) -> None:
        unknown = [(atom, name) for atom in dim for name in atom if name not in known]
        if len(unknown) > 1:
            return
        if not unknown:
            if math.prod(_length(atom, known) for atom in dim) != n:
                lengths = ", ".join(f"{name}={known[name]}" for atom in dim for name in atom) or "1"
                raise LayoutError(f"layout {self.text!r} does not fit: {_dim_text(dim)} of the {whose}'s tensor is {n}, which is not {lengths}")
            return
        (atom, name), = unknown
        rest = math.prod(_length(other, known) for other in dim if other != atom)
        if rest == 0 or n % rest:
            raise LayoutError(f"layout {self.text!r} does not fit: {_dim_text(dim)} of the {whose}'s tensor is {n}, no multiple of {rest}")
        size = n // rest - sum(known[other] for other in atom if other != name)
        if size < 0:
            raise LayoutError(f"layout {self.text!r} does not fit: {_dim_text(dim)} of the {whose}'s tensor is {n}, too short for its parts")
        known[name] = size


def _length(atom: Atom, sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] for name in atom)


def _names(side: Side) -> set[str]:
    return {name for dim in side for atom in dim for name in atom}


def _has_dots(side: Side) -> bool:
    return ((_DOTS,),) in side


def _dim_text(dim: Dim) -> str:
    words = ["+".join(atom) for atom in dim]
    return words[0] if len(words) == 1 else f"({' '.join(words)})"


# ---------------------------------------------------------------- reading


@lru_cache(maxsize=512)
def parse(text: str) -> Layout:
    """The Layout that `text` says.

    Raises
    ------
    LayoutError : it cannot be read, or the two sides do not have the same axes

    Examples
    --------
    >>> import numpy as np
    >>> heads, = parse("b s (h d) -> b h s d").apply([np.arange(24).reshape(1, 2, 12)], [(1, 3, 2, 4)])
    >>> heads.shape, heads[0, 1, 0].tolist()
    ((1, 3, 2, 4), [4, 5, 6, 7])
    """
    if not isinstance(text, str):
        raise LayoutError(f'a layout is a text such as "b s (h d) -> b h s d", got {text!r}')
    left, arrow, right = text.partition("->")
    if not arrow or "->" in right:
        raise LayoutError(f'layout {text!r}: expected one "->" between the port\'s axes and the reference\'s')
    sizes: dict[str, int] = {}
    lefts, rights = (tuple(_read_side(part, text, sizes) for part in side.split(",")) for side in (left, right))
    if len(lefts) > 1 and len(rights) > 1:
        raise LayoutError(f"layout {text!r}: one side may be several tensors, not both")
    layout = Layout(text, lefts, rights, tuple(sizes.items()))
    _check(layout)
    return layout


def read_words(texts: Sequence[str] | None, option: str) -> str | dict[str, str] | None:
    """What `layout=` takes, from the words of a command line's option: one text for all tensors, or PATTERN=TEXT for some; None if there are none.

    Raises LayoutError for several texts without patterns.
    """
    if not texts:
        return None
    pairs = [re.match(r"([^ =>]+)=(.*->.*)", text, re.DOTALL) for text in texts]
    if len(texts) == 1 and pairs[0] is None:
        return texts[0]
    if None in pairs:
        raise LayoutError(f"{option}: with more than one, each is PATTERN=LAYOUT")
    return {pair[1]: pair[2] for pair in pairs if pair is not None}


def _read_side(text: str, whole: str, sizes: dict[str, int]) -> Side:
    dims: list[Dim] = []
    group: list[Atom] | None = None
    tokens = _words(_TOKEN.findall(text))
    for token in (stream := _Peek(tokens)):
        if token == "(" and group is None:
            group = []
        elif token == ")" and group is not None:
            dims.append(tuple(group))
            group = None
        elif token == _DOTS and group is None:
            dims.append(((_DOTS,),))
        elif token == "1":
            if group is None:
                dims.append(())
        elif token.isidentifier():
            atom = [token]
            _read_size(stream, token, whole, sizes)
            while stream.peek == "+":
                next(stream)
                atom.append(next(stream, ""))
                if not atom[-1].isidentifier():
                    raise LayoutError(f"layout {whole!r}: expected an axis after +, got {atom[-1] or 'the end'}")
                _read_size(stream, atom[-1], whole, sizes)
            dims.append((tuple(atom),)) if group is None else group.append(tuple(atom))
        else:
            raise LayoutError(f"layout {whole!r}: {token!r} is not expected there; axes are words, ( ) merges them, 1 is an axis of length one")
    if group is not None:
        raise LayoutError(f"layout {whole!r}: a ( is not closed")
    return tuple(dims)


class _Peek:
    """An iterator that shows what comes next."""

    def __init__(self, items: list[str]) -> None:
        self._items, self._i = items, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._i == len(self._items):
            raise StopIteration
        self._i += 1
        return self._items[self._i - 1]

    @property
    def peek(self) -> str:
        return self._items[self._i] if self._i < len(self._items) else ""


def _words(tokens: list[str]) -> list[str]:
    """Words of capitals taken for their letters: NCHW is N C H W."""
    return [word for token in tokens for word in (token if len(token) > 1 and token.isalpha() and token.isupper() else (token,))]


def _read_size(stream: _Peek, name: str, whole: str, sizes: dict[str, int]) -> None:
    if stream.peek != "=":
        return
    next(stream)
    number = next(stream, "")
    if not number.isdecimal() or sizes.setdefault(name, int(number)) != int(number):
        raise LayoutError(f"layout {whole!r}: expected one length after {name}=, got {number or 'the end'}")


def _check(layout: Layout) -> None:
    """Both sides have the same axes, each once; but for the one that tells several tensors apart."""
    whole = layout.text
    for side in (*layout.lefts, *layout.rights):
        seen = [name for dim in side for atom in dim for name in atom]
        twice = next((name for name in seen if seen.count(name) > 1), None)
        if twice is not None:
            raise LayoutError(f"layout {whole!r}: {'the dots are' if twice == _DOTS else f'axis {twice} is'} there twice on one side")
    one, many = (layout.lefts[0], layout.rights) if len(layout.lefts) == 1 else (layout.rights[0], layout.lefts)
    sums = [atom for dim in one for atom in dim if len(atom) > 1]
    if len(many) == 1:
        _check_pair(layout, one, many[0], sums)
        return
    names = _names(one)
    if len(sums) != 1 or len(sums[0]) != len(many):
        raise LayoutError(f"layout {whole!r}: one tensor that is {len(many)} needs one axis with as many parts, such as q+k+v")
    for side in many:
        parts = [name for name in sums[0] if name in _names(side)]
        if len(parts) != 1 or _names(side) != (names - set(sums[0])) | set(parts):
            raise LayoutError(f"layout {whole!r}: each of the {len(many)} tensors has one of {', '.join(sums[0])} and all other axes")


def _check_pair(layout: Layout, left: Side, right: Side, sums: list[Atom]) -> None:
    there = {atom for dim in left for atom in dim}
    here = {atom for dim in right for atom in dim}
    alone = _names(left) - _names(right)
    if _names(right) - _names(left):
        raise LayoutError(f"layout {layout.text!r}: the right has {', '.join(sorted(_names(right) - _names(left)))}, which the left does not")
    if len(alone) > 1 or (alone and (any(set(atom) & alone for atom in sums) or _DOTS in alone)):
        raise LayoutError(f"layout {layout.text!r}: the left has {', '.join(sorted(alone))}, which the right does not"
                          " (one axis may be on the left alone: the one that tells several tensors apart)")
    if here != {atom for atom in there if not set(atom) & alone}:
        raise LayoutError(f"layout {layout.text!r}: {' and '.join('+'.join(a) for a in sums)} is one axis on one side only")
