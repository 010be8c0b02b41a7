"""What `describe` returns: facts, each with the evidence that it was checked against captured bits, or the reason why not."""
from __future__ import annotations

import dataclasses
from html import escape
from typing import Any

from ..report.text import clean


@dataclasses.dataclass(frozen=True)
class Fact:
    """One line of a description.

    Attributes
    ----------
    name, value : "norm eps", "1e-05".
    where : the modules it is true of; numbers of layers as *.
    verified : whether running it in C gave the captured bits in every call, and no neighbouring variant did.
    evidence : "bit-equal over 61 calls; nearest of 3 variants, 'subtracts the mean', differs by 812 ulp", or why it is not verified.
    calls : module calls that were compared.
    variant, ulp : the neighbouring variant that came nearest and how far it was, over outputs of at least 1/1024 of the largest; "" and 0 without one.
    num_variants : how many were run.
    """

    name: str
    value: str
    where: str
    verified: bool
    evidence: str
    calls: int = 0
    variant: str = ""
    ulp: int = 0
    num_variants: int = 0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Description:
    """The facts of one captured model. `source`: the capture; `model`: the root's class."""

    source: str
    model: str
    facts: tuple[Fact, ...]

    def __getitem__(self, name: str) -> list[Fact]:
        """The facts of this name."""
        return [fact for fact in self.facts if fact.name == name]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"source": self.source, "model": self.model, "facts": [fact.to_json() for fact in self.facts]}

    def to_text(self) -> str:
        """Name, value and place of each fact; below it how it was verified, or why it was not."""
        known = sum(fact.verified for fact in self.facts)
        lines = [f"{self.model}: {len(self.facts)} facts, {known} verified ({self.source})"]
        width = max((len(fact.name) for fact in self.facts), default=0)
        for fact in self.facts:
            lines.append(f"{fact.name.ljust(width)}  {fact.value}  [{fact.where}]")
            lines.append(f"{' ' * width}    {'verified' if fact.verified else 'not verified'}: {fact.evidence}")
        return "\n".join(clean(line) for line in lines)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Description of {self.model}: {len(self.facts)} facts>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(f.name)}</td><td><b>{escape(f.value)}</b></td><td>{escape(f.where)}</td>"
            f"<td>{'verified' if f.verified else '<i>not verified</i>'}: {escape(f.evidence)}</td></tr>" for f in self.facts)  # fmt: skip
        return f"<table><tr><th>fact</th><th>value</th><th>where</th><th>evidence</th></tr>{rows}</table>"


def merged(facts: list[Fact]) -> list[Fact]:
    """Verified facts of one name and value in one line, their places beside each other, with the variant that came nearest in any of them."""
    found: dict[tuple[str, ...], Fact] = {}
    for fact in facts:
        key = (fact.name, fact.value) if fact.verified and fact.variant else (fact.name, fact.value, fact.evidence)
        old = found.get(key)
        if old is None:
            found[key] = fact
            continue
        nearest = min(old, fact, key=lambda one: one.ulp)
        found[key] = dataclasses.replace(nearest, where=old.where if fact.where in old.where.split(", ") else f"{old.where}, {fact.where}", calls=old.calls + fact.calls)
    return [dataclasses.replace(fact, evidence=evidence_of(fact)) if fact.verified and fact.variant else fact for fact in found.values()]


def evidence_of(fact: Fact) -> str:
    """What speaks for a verified fact."""
    far = "gives NaN" if fact.ulp >= 2**63 else f"differs by {fact.ulp:,} ulp"
    which = f"nearest of {fact.num_variants} variants" if fact.num_variants > 1 else "variant"
    return f"bit-equal over {fact.calls} call{'s' if fact.calls != 1 else ''}; {which} '{fact.variant}' {far}"
