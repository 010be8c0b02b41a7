"""What kernels of attention get wrong: blocks of keys, tails, slots of a cache, the sum of the softmax, heads, a position bias."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .attention import HIDDEN, Attention, capped, changed, find_attentions, probabilities, softmax
from .case import Case
from .constants import show
from .fit import flat, nearest
from .hypothesis import Hypothesis, edited, generator
from .inner import inner_values
from .parts import spans
from .rounding import ACTIVATION_FORMATS, FORMATS

NEVER = -1e30  # hides a key, but not where all are hidden
BLOCKS = (4, 8, 16, 32, 64, 128, 256)


def logits_of(a: Attention) -> np.ndarray:
    x, m = capped(a.logits() * a.scale, a.cap), a.mask()
    return x if m is None else x + np.maximum(m, -3e38)


@generator
def tails(case: Case) -> Iterator[Hypothesis]:
    """Keys that are left out: the last of a block, the first."""
    for a in find_attentions(case):
        s = a.logits().shape[-1]
        for n in dict.fromkeys((1, 2, 3, s % 4, s % 8, s % 16, s % 32, s % 64, s - 4, s - 8, s - 16)):
            if 0 < n < s:
                yield keys_hidden(case, a, np.arange(s) >= s - n, f"port leaves out the last {n} of {s} keys")
        if s > 2:
            yield keys_hidden(case, a, np.arange(s) == 0, "port leaves out the first key")


def keys_hidden(case: Case, a: Attention, keys: np.ndarray, detail: str) -> Hypothesis:
    return changed(case, a, "keys-ignored", detail, lambda: softmax(logits_of(a) + np.where(keys, NEVER, 0.0), sink=a.sink()))


@generator
def sums(case: Case) -> Iterator[Hypothesis]:
    """Softmax over blocks that are not scaled to one maximum; its sum left out, or taken over more than the keys; the scale applied after it."""
    for a in find_attentions(case):
        s = a.logits().shape[-1]
        for size in BLOCKS:
            if size < s:
                for words, parts, total in (("", False, False), (" but the sum", False, True), (", but the sum is not", True, False)):
                    detail = f"port computes the softmax in blocks of {size} keys and does not scale the earlier ones to a new greatest logit{words}"
                    yield changed(case, a, "softmax-blocks", detail, lambda a=a, z=size, p=parts, t=total: in_blocks(logits_of(a), z, p, t))
        yield changed(case, a, "softmax-normalisation", "port does not divide by the sum of the softmax", lambda a=a: exponentials(a))
        for n in dict.fromkeys((2, 3, 4, 5, -s % 4, -s % 8, -s % 16, -s % 32, -s % 64, -s % 128)):
            if n > 1:
                detail = f"port counts {n} keys more, of logit 0, in the sum of the softmax"
                yield changed(case, a, "softmax-normalisation", detail, lambda a=a, n=n: softmax(logits_of(a), sink=float(np.log(n))))
        if a.scale != 1.0:
            yield changed(case, a, "op-order", "port scales after the softmax, reference before it", lambda a=a: a.scale * probabilities(a, scale=1.0))
            yield changed(case, a, "attention-scale", "port scales before and after the softmax", lambda a=a: a.scale * probabilities(a))


def exponentials(a: Attention) -> np.ndarray:
    x = logits_of(a)
    return np.exp(x - x.max(axis=-1, keepdims=True))


def in_blocks(x: np.ndarray, size: int, parts_right: bool, total_right: bool) -> np.ndarray:
    """Probabilities of a running softmax; what is not right is left at the maximum that its block had."""
    top = np.full(x.shape[:-1], -1e30)
    tops = []
    for i in range(0, x.shape[-1], size):
        top = np.maximum(top, x[..., i : i + size].max(axis=-1))
        tops += [top] * min(size, x.shape[-1] - i)
    with np.errstate(over="ignore", invalid="ignore"):
        own = np.exp(x - np.stack(tops, axis=-1))
        whole = np.exp(x - x.max(axis=-1, keepdims=True).clip(-1e30))
        return (whole if parts_right else own) / (whole if total_right else own).sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------- a bias of positions


def other_biases(b: np.ndarray, scale: float, heads: int) -> Iterator[tuple[str, np.ndarray]]:
    """(words, array) for a bias of the logits (.., T, S)."""
    yield "negated", -b
    for c in dict.fromkeys((scale, 1 / scale if scale else 1.0, 2.0, 0.5)):
        if c not in (0.0, 1.0):
            yield f"times {show(c)}", c * b
    yield "of the transposed positions", b.swapaxes(-1, -2) if b.shape[-1] == b.shape[-2] else b * 0
    lead = b.reshape(-1, heads, *b.shape[-2:]) if heads > 1 and b.shape[:-2] and np.prod(b.shape[:-2]) % heads == 0 else None
    if lead is None:
        return
    yield "with the heads in reverse order", lead[:, ::-1].reshape(b.shape)
    for by in (1, -1):
        yield f"of the head {by:+d}", np.roll(lead, by, axis=1).reshape(b.shape)
    yield "of the first head for all", np.broadcast_to(lead[:, :1], lead.shape).reshape(b.shape)
    steps = np.arange(heads)
    for words, slopes in (("2^(-8/n)", 2.0 ** (-8 / heads)), ("1/2", 0.5), ("2", 2.0), ("2^(-4/n)", 2.0 ** (-4 / heads)), ("2^(4/n)", 2.0 ** (4 / heads)), ("2^(8/n)", 2.0 ** (8 / heads))):
        for first in (0, 1):
            factor = (slopes ** (steps + first)).reshape(1, heads, 1, 1)
            yield f"times {words} to the number of the head{', counted from 1' if first else ''}", (lead * factor).reshape(b.shape)


@generator
def biases(case: Case) -> Iterator[Hypothesis]:
    """A position bias (relative, or of the distance) of another size, sign, direction or head; with the mask, if there is one, as it is."""
    for a in find_attentions(case):
        m = a.mask()
        if m is None:
            continue
        hidden = m <= HIDDEN
        rest = np.where(hidden, 0.0, m)
        if not rest.any():
            continue
        heads = a.heads if m.ndim >= 3 and a.heads and m.shape[-3] == a.heads else 0
        yield changed(case, a, "bias-missing", "port leaves out what the reference adds to the logits (a position bias)", lambda a=a, m=m, h=hidden: probabilities(a, mask=np.where(h, m, 0.0)))
        for words, other in other_biases(rest, a.scale, heads):
            yield changed(case, a, "position-bias", f"port's position bias is {words}", lambda a=a, m=m, h=hidden, o=other: probabilities(a, mask=np.where(h, m, o)))
    yield from in_products(case)


def in_products(case: Case) -> Iterator[Hypothesis]:
    """The bias that a product of q and k begins with."""
    for i, op in enumerate(case.ops):
        if op.base != "baddbmm" or op.inputs[0] in case.parameters or not case.is_floating(op.inputs[0]):
            continue
        v = op.inputs[0]
        b = case.intermediates()[v].astype(np.float64)
        full = np.broadcast_to(b, case.values[op.outputs[0]][1])
        heads = next((case.values[o.outputs[0]][1][1] for o in case.ops[i + 1 : i + 6] if o.outputs and o.outputs[0] is not None and len(case.values[o.outputs[0]][1]) == 4), 0)
        alpha = op.kwargs.get("alpha", 1.0)
        cause = [("absent", 0 * full), *other_biases(full, float(alpha) if isinstance(alpha, (int, float)) else 1.0, heads)]
        for words, other in cause:
            def change(draft, i=i, v=v, other=other) -> None:
                draft.feed(i, v, np.ascontiguousarray(other).astype(case.intermediates()[v].dtype))

            yield edited(case, "bias-missing" if words == "absent" else "position-bias", f"port's position bias is {words}", change)


# ---------------------------------------------------------------- keys and values of other slots and heads


def places(case: Case) -> Iterator[tuple[int, dict[str, tuple[int, int]], int]]:
    """(op, {"keys": (value, axis of positions), "values": ..}, heads) of each attention: the fused op, or the products on both sides of a softmax."""
    for a in find_attentions(case):
        op = case.ops[a.index]
        if op.base.startswith("_scaled_dot_product"):
            yield a.index, {"keys": (op.inputs[1], -2), "values": (op.inputs[2], -2), "queries": (op.inputs[0], -2)}, case.values[op.inputs[1]][1][1]


def array_changes(which: str, axis: int) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
    def at_end(x: np.ndarray, filled: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        x = x.copy()
        x[..., -1, :] = filled(x)
        return x

    for by in (1, -1):
        words = "later" if by > 0 else "earlier"
        yield "cache-offset", f"port has {which} one slot {words}", lambda x, b=by: np.roll(x, b, axis=axis)
        yield "cache-offset", f"port has {which} one slot {words}, the first free one 0", lambda x, b=by: shifted(x, b)
    yield "cache-stale", f"port has 0 in the last slot of the {which}", lambda x: at_end(x, lambda y: 0.0)
    yield "cache-stale", f"port has in the last slot of the {which} what is in the one before", lambda x: at_end(x, lambda y: y[..., -2, :])
    yield "cache-stale", f"port has 0 in the first slot of the {which}", lambda x: np.where((np.arange(x.shape[-2]) == 0)[:, None], 0, x)


def shifted(x: np.ndarray, by: int) -> np.ndarray:
    y = np.zeros_like(x)
    if by > 0:
        y[..., by:, :] = x[..., :-by, :]
    else:
        y[..., :by, :] = x[..., -by:, :]
    return y


def head_changes(which: str) -> Iterator[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
    for by in (1, -1):
        yield "head-order", f"port takes the {which} of the head {-by:+d}", lambda x, b=by: np.roll(x, b, axis=1)
    yield "head-order", f"port takes the {which} of the first head for all", lambda x: np.broadcast_to(x[:, :1], x.shape)
    yield "head-order", f"port takes the {which} of the heads in reverse order", lambda x: x[:, ::-1]


@generator
def narrow_caches(case: Case) -> Iterator[Hypothesis]:
    """Keys and values, both, in a narrower format."""
    for index, operands, _ in places(case):
        taken = dict.fromkeys((operands["keys"][0], operands["values"][0]))
        if len(taken) < 2 or any(case.dtype(v) != "F32" for v in taken):
            continue
        for label in ("bf16", "f16", *ACTIVATION_FORMATS, "q4_0", "q4_1"):
            def edit(draft, index=index, taken=taken, label=label) -> None:
                for v in taken:
                    array = FORMATS[label](np.ascontiguousarray(case.intermediates()[v]))
                    if array is None:
                        raise ValueError("format does not fit the shape")
                    draft.feed(index, v, array)

            yield edited(case, "operand-precision", f"port has keys and values of {case.place(index)} in {label}", edit)


@generator
def turned_padding(case: Case) -> Iterator[Hypothesis]:
    """The mask of the padding at the other end of the keys, with the order and without it."""
    for a in find_attentions(case):
        m = a.mask()
        if m is None:
            continue
        hidden = np.broadcast_to(m <= HIDDEN, np.broadcast_shapes(m.shape, a.logits().shape[-2:]))
        columns = hidden.all(axis=-2, keepdims=True)
        if not columns.any():
            continue
        t, s = a.logits().shape[-2:]
        later = ~np.tri(t, s, s - t, dtype=bool) if t > 1 else np.zeros((t, s), dtype=bool)
        ordered = bool(hidden[..., later].all())
        for words, hides in (("at the other end", columns[..., ::-1] | (later & ordered)), ("at the other end, and no order", columns[..., ::-1] | np.zeros_like(hidden))):
            detail = f"port hides the padding {words}"
            yield changed(case, a, "mask-flipped", detail, lambda a=a, m=m, h=hidden, o=hides: probabilities(a, mask=np.where(h, 0.0, m) + np.where(o, NEVER, 0.0)))


@generator
def slots(case: Case) -> Iterator[Hypothesis]:
    """Keys and values in slots moved by one, the last one not written; those of other heads."""
    for index, operands, heads in places(case):
        names = [("keys and values", [operands["keys"], operands["values"]]), *((name, [place]) for name, place in operands.items())]
        for which, taken in names:
            changes = [*array_changes(which, -2), *(head_changes(which) if heads > 1 else ())] if case.values[taken[0][0]][1][-2] > 2 else []
            for cause, detail, change in changes:
                def edit(draft, index=index, taken=taken, change=change) -> None:
                    for v, _ in dict.fromkeys(taken):
                        draft.feed(index, v, np.ascontiguousarray(change(case.intermediates()[v])).astype(case.intermediates()[v].dtype))

                yield edited(case, cause, detail, edit)


# ---------------------------------------------------------------- probabilities read back


def read_back(case: Case) -> Iterator[Hypothesis]:
    """The probabilities that the port must have had, where its attention's result and fewer keys than numbers in a head tell them. Not registered: it runs last."""
    known = {one.value: one for one in inner_values(case)}
    for a in find_attentions(case):
        op = case.ops[a.index]
        one = known.get(op.outputs[0])
        if one is None or not op.base.startswith("_scaled_dot_product"):
            continue
        v = case.intermediates()[op.inputs[2]].astype(np.float64)
        v = v if v.shape[1] == one.found.shape[1] else np.repeat(v, one.found.shape[1] // v.shape[1], axis=1)
        if v.shape[-2] > v.shape[-1]:
            continue
        inverse = np.linalg.pinv(v)
        p, right = one.found @ inverse, probabilities(a)
        noise = float(np.max(one.noise)) * np.sqrt(np.square(inverse).sum(axis=-2)).max()
        yield from of_probabilities(case, a, p, right, noise)


def of_probabilities(case: Case, a: Attention, p: np.ndarray, right: np.ndarray, noise: float) -> Iterator[Hypothesis]:
    """Probabilities with some dropped, or hidden, or of heads in another order."""
    fuzz = max(40 * noise, 1e-6)
    with np.errstate(all="ignore"):
        gone = (np.abs(p) < fuzz) & (right > 10 * fuzz)
        rest = (right > 10 * fuzz) & ~gone
        ratio = p / right
    if not gone.any() or not rest.any():
        return
    factor = float(np.median(ratio[rest]))
    share = gone.sum() / (gone | rest).sum()
    if np.mean(np.abs(ratio[rest] - factor) < 1e-2 * abs(factor) + 4 * fuzz / right[rest]) > 0.98 and factor > 1.004:
        detail = f"port drops {share:.0%} of the probabilities of attention and multiplies the rest by {factor:.4g}: dropout is left on"
        exact = 1 / (1 - round(1 - 1 / factor, 2))
        for f in (factor, exact):
            yield changed(case, a, "dropout", detail, lambda f=f: np.where(p < 0.5 * f * right, 0.0, f * right))
    keys = gone.all(axis=tuple(range(gone.ndim - 2))) if gone.ndim > 2 else gone
    hides = np.broadcast_to(keys, gone.shape) if keys.any() else gone
    columns = np.flatnonzero((hides | (right <= 10 * fuzz)).reshape(-1, hides.shape[-1]).all(axis=0))
    words = f"keys {spans(columns)}" if len(columns) and hides[..., columns].any() else f"{int(hides[(0,) * (hides.ndim - 2)].sum())} pairs of query and key"
    yield changed(case, a, "mask-other", f"port hides {words} that the reference shows", lambda: softmax(logits_of(a) + np.where(hides, NEVER, 0.0), sink=a.sink()))


def clipped(case: Case) -> Iterator[Hypothesis]:
    """The logits cut off at a bound. Not registered: it runs last."""
    for a in find_attentions(case):
        def cut(c: float, a: Attention = a) -> np.ndarray:
            m = a.mask()
            x = np.clip(a.logits() * a.scale, -c, c)
            return softmax(x if m is None else x + np.maximum(m, -3e38))

        def run(c: float, a: Attention = a, cut: Callable = cut) -> np.ndarray:
            return flat(case.run_override(a.override(cut(c))), case)

        found = nearest(case, run, np.geomspace(0.1, 60, 24))
        if found is not None and found > 0:
            yield changed(case, a, "clamp-added", f"port cuts the logits of attention off at {show(found)}", lambda k=cut, c=found: k(c))


def heads_zero(case: Case) -> Iterator[Hypothesis]:
    """Zeros for one head of an attention. Not registered: it runs last."""
    for a in find_attentions(case):
        shape = a.logits().shape
        for head in range(min(shape[1], 64)) if len(shape) == 4 and shape[1] > 1 else ():
            own = (np.arange(shape[1]) == head)[:, None, None]
            yield changed(case, a, "part-zero", f"port has zeros in head {head} of {shape[1]} of attention", lambda a=a, own=own: np.where(own, 0.0, probabilities(a)))


FITS = (read_back, clipped, heads_zero)
