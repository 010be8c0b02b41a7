"""Which modules and tensors a capture takes: include, exclude, blacklist_regexes, max_layers. Knows names only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Filter = str | re.Pattern | Callable[[str], bool] | Sequence[str | re.Pattern] | None


def matcher(rule: Filter, what: str) -> Callable[[str], bool] | None:
    """A predicate on names from a regular expression, several of them (any may match), or a predicate.

    Regular expressions are searched for anywhere in the name; ``^`` and ``$`` tie them to its ends.

    Raises
    ------
    TypeError, ValueError : the rule is of no such form, or not a regular expression
    """
    if rule is None or callable(rule):
        return rule
    rules = [rule] if isinstance(rule, (str, re.Pattern)) else list(rule)
    patterns = []
    for r in rules:
        if not isinstance(r, (str, re.Pattern)):
            raise TypeError(f"{what} takes a regular expression, a list of them or a function of the name, got {r!r}")
        try:
            patterns.append(re.compile(r))
        except re.error as error:
            raise ValueError(f"{what}: {r!r} is not a regular expression: {error}") from None
    return lambda name: any(p.search(name) for p in patterns)


def describe(rule: Filter) -> object:
    """A filter as JSON."""
    if rule is None:
        return None
    if callable(rule):
        return f"<function {getattr(rule, '__name__', type(rule).__name__)}>"
    return [getattr(r, "pattern", r) for r in ([rule] if isinstance(rule, str) or hasattr(rule, "pattern") else rule)]


class Selection:
    """The filters of one collector.

    Parameters
    ----------
    include, exclude : on module paths. A module with several paths (shared) is taken if one of them passes.
    blacklist_regexes : on full names of tensors without call numbers: ``model.layers.0.mlp.in.0``
    max_layers : of everything numbered (``layers.7``: the parts of a path that are numbers), only numbers below it; -1: all
    """

    def __init__(self, include: Filter, exclude: Filter, blacklist_regexes: Filter, max_layers: int) -> None:
        if isinstance(max_layers, bool) or not isinstance(max_layers, int) or max_layers < -1:
            raise ValueError(f"max_layers is a number of layers, or -1 for all, got {max_layers!r}")
        self.max_layers = max_layers
        self._include = matcher(include, "include")
        self._exclude = matcher(exclude, "exclude")
        self._blacklist = matcher(blacklist_regexes, "blacklist_regexes")

    def takes_module(self, paths: Iterable[str]) -> bool:
        return any(self._takes_path(path) for path in paths)

    def _takes_path(self, path: str) -> bool:
        if self.max_layers >= 0 and any(p.isdecimal() and int(p) >= self.max_layers for p in path.split(".")):
            return False
        if self._include is not None and not self._include(path):
            return False
        return self._exclude is None or not self._exclude(path)

    def takes_tensor(self, full_name: str) -> bool:
        return self._blacklist is None or not self._blacklist(full_name)
