"""Attention and positions: masks, grouped heads, merge order, rotary embeddings, embedding offsets."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .case import Case, Op
from .hypothesis import Hypothesis, edited, generator, overridden

SDPA = "_scaled_dot_product_flash_attention_for_cpu"


@generator
def masks(case: Case) -> Iterator[Hypothesis]:
    """Mask absent, causal for full and back, moved by one, too weak, added as 0 and 1."""
    for i, op in enumerate(case.ops):
        if op.base != SDPA:
            continue
        causal = len(op.args) > 4 and bool(op.args[4])
        t, s = case.values[op.inputs[0]][1][-2], case.values[op.inputs[1]][1][-2]
        mask = op.kwargs.get("attn_mask")
        if t > 1 and mask is None:
            detail = "port attends to later positions, reference is causal" if causal else "port is causal, reference attends to all positions"
            yield edited(case, "mask-absent" if causal else "mask-causal", detail, lambda d, i=i, c=causal: set_causal(d.ops[i], not c))
        if causal:
            yield from causal_variants(case, i, op, t, s)
        if mask is not None:
            yield edited(case, "mask-absent", "port ignores the attention mask", lambda d, i=i: d.ops[i].kwargs.pop("attn_mask"))
            yield from mask_variants(case, mask["v"])


def set_causal(op: Op, causal: bool) -> None:
    op.args = [*op.args[:3], op.args[3] if len(op.args) > 3 else 0.0, causal]


def causal_variants(case: Case, index: int, op: Op, t: int, s: int) -> Iterator[Hypothesis]:
    """A causal mask that lets one position more or less through."""
    for shift, detail in ((1, "port lets each position see the next one (mask off by one)"), (-1, "port hides each position from itself (mask off by one)")):
        def change(draft, shift: int = shift) -> None:
            mask = np.where(np.tri(t, s, shift, dtype=bool), 0, -np.inf).astype(np.float32)
            if shift < 0:
                mask[0, 0] = 0
            value = draft.new_value(op.inputs[0], shape=[t, s])
            draft.feeds[value] = mask
            set_causal(draft.ops[index], False)
            draft.ops[index].kwargs["attn_mask"] = {"v": value}

        yield edited(case, "mask-off-by-one", detail, change)


def mask_variants(case: Case, value: int) -> Iterator[Hypothesis]:
    if case.in_place:
        return

    def mask() -> np.ndarray:
        m = case.intermediates()[value]
        return np.where(m, 0, -np.inf).astype(np.float32) if m.dtype == bool else m

    def changed(cause: str, detail: str, change) -> Hypothesis:
        return overridden(case, cause, detail, lambda: {value: np.ascontiguousarray(change(mask()))})

    if case.dtype(value) != "F32":
        return
    yield changed("mask-weak", "port adds 0 and 1 for the mask in the place of 0 and -inf", lambda m: (m >= 0).astype(np.float32))
    yield changed("mask-weak", "port adds -1 in the place of -inf", lambda m: np.where(m < -1e4, np.float32(-1), m))
    yield changed("mask-weak", "port adds -10 in the place of -inf", lambda m: np.where(m < -1e4, np.float32(-10), m))
    yield changed("mask-inverted", "port has the mask the other way round", lambda m: np.where(m < -1e4, np.float32(0), np.float32(-1e30)))
    for shift in (1, -1):
        yield changed("mask-off-by-one", f"port has the mask moved by {shift} position", lambda m, s=shift: np.roll(m, s, axis=-1))


@generator
def heads(case: Case) -> Iterator[Hypothesis]:
    """Grouped heads tiled for repeated; heads merged in the wrong order; q and k exchanged."""
    if case.in_place:
        return
    for op in case.ops:
        if op.base != SDPA:
            continue
        q, k, v = op.inputs[:3]
        h, g = case.values[q][1][1], case.values[k][1][1]
        if h != g:
            yield from tiled(case, op, h, g)
        out = op.outputs[0]
        shape = case.values[out][1]
        if shape[2] > 1 and shape[1] > 1:
            yield overridden(
                case, "head-merge-order", "port merges the heads without bringing them beside the dimensions first",
                lambda out=out, s=shape: {out: merge_wrongly(case.intermediates()[out], s)},
            )  # fmt: skip


def tiled(case: Case, op: Op, h: int, g: int) -> Iterator[Hypothesis]:
    """Head i uses group i % g; the recorded op uses i // (h / g)."""

    def change(draft) -> None:
        order = [i % g for i in range(h)]
        place = next(i for i, o in enumerate(draft.ops) if o.outputs == op.outputs)
        for which in (1, 2):
            old = op.inputs[which]
            n = len(order)
            shape = list(case.values[old][1])
            shape[1] = n
            value = draft.new_value(old, shape=shape)
            copies = {"list": [draft.ops[place].args[which]] * (n // g)}
            draft.ops.insert(place, Op("aten.cat.default", [copies, 1], {}, [value]))
            place += 1
            draft.ops[place].args[which] = {"v": value}

    if h % g == 0:
        yield edited(case, "gqa-order", f"port gives head i the key group i % {g}, reference i // {h // g}", change)


def merge_wrongly(y: np.ndarray, shape: list[int]) -> np.ndarray:
    """(B, H, T, D) read as if it were (B, T, H, D)."""
    b, h, t, d = shape
    return np.ascontiguousarray(np.ascontiguousarray(y).reshape(b, t, h, d).swapaxes(1, 2))


# ---------------------------------------------------------------- rotary embeddings


@dataclass
class Rotary:
    """x * cos + rotate_half(x) * sin, found in the program."""

    out: int
    x: int
    cos: int
    sin: int
    half: int


def find_rotary(case: Case) -> list[Rotary]:
    """All applications of a half-split rotary embedding: add(mul(x, cos), mul(cat(neg(slice x), slice x), sin))."""
    made = {v: op for op in case.ops for v in op.outputs if v is not None}
    found = []
    for op in case.ops:
        if op.base != "add" or len(op.inputs) != 2:
            continue
        left, right = (made.get(v) for v in op.inputs)
        if left is None or right is None or left.base != "mul" or right.base != "mul" or len(left.inputs) != 2 or len(right.inputs) != 2:
            continue
        cat = made.get(right.inputs[0])
        if cat is None or cat.base != "cat" or len(cat.inputs) != 2:
            continue
        neg = made.get(cat.inputs[0])
        if neg is not None and neg.base == "neg" and case.source(neg.inputs[0]) == case.source(left.inputs[0]):
            half = case.values[cat.inputs[0]][1][-1]
            found.append(Rotary(op.outputs[0], left.inputs[0], left.inputs[1], right.inputs[1], half))
    return found


def rotate_half(x: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    return np.concatenate([-x[..., half:], x[..., :half]], axis=-1)


def rotate_pairs(x: np.ndarray) -> np.ndarray:
    return np.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)


def pairs_of(table: np.ndarray) -> np.ndarray:
    """cos or sin (.., D), equal halves, as (.., D) with each value twice in a row."""
    return np.repeat(table[..., : table.shape[-1] // 2], 2, axis=-1)


def step_angles(cos: np.ndarray, sin: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """The tables moved by `by` positions, from the difference of the first two positions. Needs two positions."""
    angle = np.arctan2(sin.astype(np.float64), cos.astype(np.float64))
    step = angle[..., 1:2, :] - angle[..., 0:1, :]
    moved = angle + by * step
    return np.cos(moved).astype(np.float32), np.sin(moved).astype(np.float32)


ROTARY_VARIANTS = {
    ("rope-interleaved", "port rotates neighbouring pairs, reference the two halves"): lambda x, c, s: x * pairs_of(c) + rotate_pairs(x) * pairs_of(s),
    ("rope-sign", "port rotates in the other direction"): lambda x, c, s: x * c - rotate_half(x) * s,
    ("rope-absent", "port does not apply the rotary embedding"): lambda x, c, s: x,
    ("rope-interleaved", "port pairs neighbours but keeps the half-split tables"): lambda x, c, s: x * c + rotate_pairs(x) * s,
}


@generator
def rotary(case: Case) -> Iterator[Hypothesis]:
    """Rotary layout, direction, absence, position offset; on q, on k, on both."""
    found = find_rotary(case) if not case.in_place else []
    groups = [found] + ([[one] for one in found] if len(found) > 1 else [])
    for group in groups:
        which = "" if group is found or not group else f" (only {name_by_heads(case, group[0])})"
        for (cause, detail), formula in ROTARY_VARIANTS.items():
            if group:
                yield overridden(case, cause, detail + which, lambda g=group, f=formula: apply_rotary(case, g, f))
        for by in (1, -1):
            if group and case.values[group[0].cos][1][-2] > 1:
                yield overridden(
                    case, "rope-offset", f"port's positions are {by:+d} against the reference's{which}",
                    lambda g=group, by=by: apply_rotary(case, g, lambda x, c, s: plain(x, *step_angles(c, s, by))),
                )  # fmt: skip


def name_by_heads(case: Case, one: Rotary) -> str:
    return f"the one with {case.values[one.out][1][1]} heads" if len(case.values[one.out][1]) == 4 else "one of them"


def plain(x: np.ndarray, c: np.ndarray, s: np.ndarray) -> np.ndarray:
    return x * c + rotate_half(x) * s


def apply_rotary(case: Case, group: list[Rotary], formula) -> dict[int, np.ndarray]:
    values = case.intermediates()
    return {r.out: np.ascontiguousarray(formula(values[r.x], values[r.cos], values[r.sin])).astype(values[r.out].dtype) for r in group}


# ---------------------------------------------------------------- embeddings


@generator
def embeddings(case: Case) -> Iterator[Hypothesis]:
    """Indices off by one or two, ignored, and the embedding's scale."""
    if case.in_place:
        return
    for op in case.ops:
        if op.base != "embedding":
            continue
        table, index = op.inputs[:2]
        rows, width = case.values[table][1]
        for by in (1, -1, 2, -2):
            yield overridden(case, "embedding-offset", f"port looks up index {by:+d}", lambda by=by, i=index, n=rows: {i: np.clip(case.intermediates()[i] + by, 0, n - 1)})
        yield overridden(case, "embedding-ignored", "port looks up index 0 everywhere", lambda i=index: {i: np.zeros_like(case.intermediates()[i])})
        for label, factor in (("sqrt of the width", width**0.5), ("1/sqrt of the width", width**-0.5)):
            yield overridden(
                case, "embedding-scale", f"port multiplies the embedding by {factor:.6g} ({label})",
                lambda o=op.outputs[0], f=factor: {o: (case.intermediates()[o] * np.float32(f))},
            )  # fmt: skip
