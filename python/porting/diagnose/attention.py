"""Attention: masks, scale, softmax, grouped heads; for the fused op and for products around a softmax alike.

An attention is found in the program and brought to one form: logits, an additive mask, what is done with the probabilities. Hypotheses compute other
probabilities from these in float64 and put them in the place of the recorded ones; the ops after them run as recorded.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .case import Case, Op, is_float
from .constants import factor_variants, is_number, show
from .hypothesis import Hypothesis, generator, overridden

HIDDEN = -1e4  # an addend below this hides a position
SOFTCAPS = (15.0, 20.0, 30.0, 50.0, 100.0)


@dataclass
class Attention:
    """One attention. T queries, S keys; arrays in float64.

    index : its op. logits() : (.., T, S) products of q and k, not scaled. scale : factor. cap : tanh cap or 0. mask() : additive, broadcastable to the logits, or None
    override(p) : values to put in place for probabilities p. head, heads : their size and number, 0 if they are not known.
    sink() : logits (.., 1) that take part in the softmax beside the keys' and are dropped after it, or None.
    """

    index: int
    logits: Callable[[], np.ndarray]
    scale: float
    cap: float
    mask: Callable[[], np.ndarray | None]
    override: Callable[[np.ndarray], dict[int, np.ndarray]]
    head: int = 0
    heads: int = 0
    sink: Callable[[], np.ndarray | None] = lambda: None


def additive(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask.astype(np.float64)


def repeated(k: np.ndarray, heads: int) -> np.ndarray:
    """(B, G, S, D) -> (B, H, S, D)."""
    return k if k.shape[1] == heads else np.repeat(k, heads // k.shape[1], axis=1)


def fused(case: Case, index: int) -> Attention:
    op = case.ops[index]
    q, k, v = op.inputs[:3]
    shape, heads = case.values[q][1], case.values[q][1][1]
    scale = float(op.kwargs["scale"]) if is_number(op.kwargs.get("scale")) else 1 / math.sqrt(shape[-1])
    t, s = shape[-2], case.values[k][1][-2]

    def wide(value: int) -> np.ndarray:
        return repeated(case.intermediates()[value].astype(np.float64), heads)

    def mask() -> np.ndarray | None:
        given = op.kwargs.get("attn_mask") or (op.args[5] if len(op.args) > 5 and isinstance(op.args[5], dict) else None)
        found = additive(case.intermediates()[given["v"]]) if given else None
        if len(op.args) > 4 and op.args[4]:
            causal = np.where(np.tri(t, s, dtype=bool), 0.0, -np.inf)
            found = causal if found is None else found + causal
        return found

    out = op.outputs[0]
    return Attention(
        index, lambda: wide(q) @ wide(k).swapaxes(-1, -2), scale, 0.0, mask,
        lambda p: {out: (p @ wide(v)).astype(case.intermediates()[out].dtype)}, shape[-1], heads,
    )  # fmt: skip


def written_out(case: Case, index: int) -> Attention | None:
    """Back from a softmax over the last dimension: additions of masks, factors, a tanh cap, to the product of q and k."""
    op = case.ops[index]
    rank = len(case.values[op.inputs[0]][1])
    if rank < 2 or op.args[1] not in (-1, rank - 1):
        return None
    masks: list[Callable[[], np.ndarray]] = []
    scale, cap, head, value, sink = 1.0, 0.0, 0, op.inputs[0], None
    for _ in range(16):
        made = case.producers.get(value)
        step = case.ops[made] if made is not None else None
        if step is None:
            return None
        if step.base == "cat" and len(step.inputs) == 2 and sink is None and case.values[step.inputs[1]][1][-1:] == [1]:
            value, sink = step.inputs
        elif step.base == "sub" and len(step.inputs) == 2 and is_greatest_of(case, step.inputs[1], step.inputs[0]):
            value = step.inputs[0]
        elif step.base in ("bmm", "mm", "baddbmm"):
            head = case.values[step.inputs[-2]][1][-1]
            break
        elif step.base in ("view", "_unsafe_view", "_to_copy", "clone", "expand", "reshape", "unsqueeze", "squeeze"):
            value = step.inputs[0]
        elif step.base in ("mul", "div") and len(step.inputs) == 1 and is_number(step.args[1]):
            factor = float(step.args[1]) if step.base == "mul" else 1 / float(step.args[1])
            before_tanh = case.producers.get(step.inputs[0])
            if before_tanh is not None and case.ops[before_tanh].base == "tanh":
                cap = factor
            elif not (cap and math.isclose(factor * cap, 1.0, rel_tol=1e-6)):
                scale *= factor
            value = step.inputs[0]
        elif step.base == "tanh":
            value = step.inputs[0]
        elif step.base in ("add", "masked_fill", "where"):
            found = mask_of(case, step)
            if found is None:
                return None
            masks.append(found[0])
            value = found[1]
        else:
            return None
    shape = list(case.values[op.inputs[0]][1])
    shape[-1] -= sink is not None
    product = value

    def mask() -> np.ndarray | None:
        total = None
        for one in masks:
            total = one() if total is None else total + one()
        return total

    out = op.outputs[0]

    def override(p: np.ndarray) -> dict[int, np.ndarray]:
        if sink is not None and p.shape[-1] == shape[-1]:  # the sink's column is dropped, whatever it is
            p = np.concatenate([p, np.zeros_like(p[..., :1])], axis=-1)
        return {out: p.astype(case.intermediates()[out].dtype).reshape(case.values[out][1])}

    return Attention(
        index, lambda: case.intermediates()[product].astype(np.float64).reshape(shape), scale, cap, mask, override, head, shape[1] if rank == 4 else 0,
        lambda: None if sink is None else case.intermediates()[sink].astype(np.float64).reshape(*shape[:-1], 1),
    )  # fmt: skip


def mask_of(case: Case, step: Op) -> tuple[Callable[[], np.ndarray], int] | None:
    """(what an op adds to the logits, the value that it adds it to); None if it is no mask."""
    if step.base == "add" and len(step.inputs) == 2:
        a, b = (logit_like(case, v) for v in step.inputs)
        if a == b:
            return None
        value, other = step.inputs if a else reversed(step.inputs)
        return lambda: additive(case.intermediates()[other]), value
    if step.base == "masked_fill" and len(step.inputs) == 2:
        return lambda: np.where(case.intermediates()[step.inputs[1]], -np.inf, 0.0), step.inputs[0]
    if step.base == "where" and len(step.inputs) == 3:
        return lambda: np.where(case.intermediates()[step.inputs[0]], 0.0, -np.inf), step.inputs[1]
    return None


def is_greatest_of(case: Case, value: int, of: int) -> bool:
    """True for the maximum that is subtracted before an exponential: a softmax is the same without."""
    made = case.producers.get(value)
    return made is not None and case.ops[made].base in ("amax", "max") and case.ops[made].inputs[0] == of


def logit_like(case: Case, value: int) -> bool:
    """True if the value comes from a product of two computed matrices through elementwise ops."""
    for _ in range(12):
        made = case.producers.get(value)
        if made is None:
            return False
        op = case.ops[made]
        if op.base in ("bmm", "mm", "baddbmm"):
            return True
        if op.base not in ("view", "_unsafe_view", "mul", "div", "add", "tanh", "_to_copy", "clone", "masked_fill"):
            return False
        value = op.inputs[0]
    return False


def find_attentions(case: Case) -> list[Attention]:
    if "attentions" not in case._memory:
        found: list[Attention] = []
        for i, op in enumerate(case.ops):
            if op.base.startswith("_scaled_dot_product"):
                found.append(fused(case, i))
            elif op.base in ("_softmax", "_safe_softmax", "softmax"):
                one = written_out(case, i)
                if one is not None:
                    found.append(one)
        case._memory["attentions"] = found
    return case._memory["attentions"]


# ---------------------------------------------------------------- probabilities under a hypothesis


def softmax(x: np.ndarray, axis: int = -1, sink: np.ndarray | float | None = None) -> np.ndarray:
    """In float64; rows that are all -inf give NaN as torch does. sink: one more logit that takes part and is dropped."""
    with np.errstate(all="ignore"):
        top = x.max(axis=axis, keepdims=True)
        if sink is not None:
            top = np.maximum(top, sink)
        e = np.exp(x - top)
        total = e.sum(axis=axis, keepdims=True)
        return e / (total if sink is None else total + np.exp(sink - top))


def capped(x: np.ndarray, cap: float) -> np.ndarray:
    return cap * np.tanh(x / cap) if cap else x


def probabilities(a: Attention, *, mask: np.ndarray | None | str = "own", scale: float | None = None, cap: float | None = None,
                  sink: np.ndarray | float | None | str = "own", axis: int = -1) -> np.ndarray:
    x = capped(a.logits() * (a.scale if scale is None else scale), a.cap if cap is None else cap)
    m = a.mask() if isinstance(mask, str) else mask
    return softmax(x if m is None else masked(x, m), axis, a.sink() if isinstance(sink, str) else sink)


def masked(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """x + m; in float32 where m has large finite numbers, that round x away, as they do in a port."""
    large = np.isfinite(m) & (m <= HIDDEN) & (m > -1e29)
    return x + m if not large.any() else (x.astype(np.float32) + m.astype(np.float32)).astype(np.float64)


def into_softmax(a: Attention) -> np.ndarray:
    """What goes into the softmax, in float32 with a finite number for -inf."""
    x, m, sink = capped(a.logits() * a.scale, a.cap), a.mask(), a.sink()
    x = np.maximum(x if m is None else x + m, -1e30)
    return (x if sink is None else np.concatenate([x, sink], axis=-1)).astype(np.float32)


def changed(case: Case, a: Attention, cause: str, detail: str, compute: Callable[[], np.ndarray], coarse: bool = False) -> Hypothesis:
    return overridden(case, cause, detail, lambda: a.override(compute()), coarse)


@generator
def masks(case: Case) -> Iterator[Hypothesis]:
    """Mask absent, one where there is none, moved by one, too weak, the other way round; padding or causality or window ignored."""
    for a in find_attentions(case):
        m = a.mask()
        shape = a.logits().shape
        t, s = shape[-2:]
        causal = np.where(np.tri(t, s, s - t, dtype=bool), 0.0, -np.inf)
        if m is None:
            yield from unmasked_variants(case, a, causal)
            continue
        hidden = np.broadcast_to(m <= HIDDEN, np.broadcast_shapes(m.shape, shape[-2:]))
        if not hidden.any():
            if not np.any(m):
                yield from unmasked_variants(case, a, causal)
            else:
                yield changed(case, a, "bias-missing", "port leaves out what the reference adds to the logits (a position bias)", lambda a=a: probabilities(a, mask=None))
                if m.shape[-1] == m.shape[-2] > 1:
                    detail = "port has queries and keys of the position bias exchanged"
                    yield changed(case, a, "mask-transposed", detail, lambda a=a, m=m: probabilities(a, mask=m.swapaxes(-1, -2)))
                yield changed(case, a, "bias-doubled", "port adds the position bias to the logits twice", lambda a=a, m=m: probabilities(a, mask=2 * m))
                if t > 1:
                    yield changed(case, a, "mask-causal", "port is causal, reference attends to all positions", lambda a=a, c=causal, m=m: probabilities(a, mask=m + c))
            continue
        yield from hidden_variants(case, a, m, hidden, causal)


def unmasked_variants(case: Case, a: Attention, causal: np.ndarray) -> Iterator[Hypothesis]:
    """A mask where the reference has none."""
    t, s = causal.shape
    if t == 1:
        return
    yield changed(case, a, "mask-causal", "port is causal, reference attends to all positions", lambda: probabilities(a, mask=causal))
    if t == s:
        yield changed(case, a, "mask-diagonal", "port hides each position from itself", lambda: probabilities(a, mask=np.where(np.eye(t, dtype=bool), -np.inf, 0.0)))
        for words, hides in windows(t):
            yield changed(case, a, "window-added", f"port {words}, reference to all", lambda h=hides: probabilities(a, mask=np.where(h, -np.inf, 0.0)))


def windows(t: int) -> Iterator[tuple[str, np.ndarray]]:
    """(words, what is hidden) for T x T attentions that see a part of what is before and after."""
    away = np.arange(t)[:, None] - np.arange(t)[None, :]
    for width in range(1, min(t, 17)):
        yield f"attends to positions at most {width - 1} away", np.abs(away) >= width
        if width > 1:
            yield f"attends to the last {width} positions and all later ones", away >= width


def hidden_variants(case: Case, a: Attention, m: np.ndarray, hidden: np.ndarray, causal: np.ndarray) -> Iterator[Hypothesis]:
    """Other masks than one that hides positions."""
    t, s = causal.shape
    rest = np.where(hidden, 0.0, np.where(np.isfinite(m), m, 0.0))
    later = np.broadcast_to(np.isinf(causal), hidden.shape)
    is_causal = t > 1 and bool(hidden[later].all())

    def with_hidden(h: np.ndarray, value: float = -np.inf) -> np.ndarray:
        return hiding(rest, h, value)

    def one(cause: str, detail: str, mask: np.ndarray | None) -> Hypothesis:
        return changed(case, a, cause, detail, lambda: probabilities(a, mask=mask))

    def beside(cause: str, detail: str, also: np.ndarray) -> Iterator[Hypothesis]:
        """What the reference hides, and more. A query that then sees nothing attends to what the port hid, to all alike, or gives NaN."""
        total = hidden | also
        if (total.all(-1) & ~hidden.all(-1)).any():
            yield one(cause, detail, rest + np.where(hidden, -3e38, np.where(also, -1e30, 0.0)))
            yield one(cause, detail, with_hidden(total, -1e30))
        yield one(cause, detail, with_hidden(total))

    yield one("mask-absent", "port attends to later positions, reference is causal" if is_causal else "port ignores the attention mask", rest if rest.any() else None)
    columns = hidden.all(axis=-2, keepdims=True) if t > 1 else hidden & False
    if is_causal:
        if (hidden & ~later).any():
            yield one("mask-padding-ignored" if columns.any() else "window-ignored",
                      "port is causal but ignores the padding" if columns.any() else "port attends to all earlier positions, reference to a window of them",
                      with_hidden(later))  # fmt: skip
            if columns.any():
                yield one("mask-causality-ignored", "port hides the padding but attends to later positions", with_hidden(columns | np.zeros_like(hidden)))
        for shift, detail in ((1, "port lets each position see the next one (mask off by one)"), (-1, "port hides each position from itself (mask off by one)")):
            moved = ~np.tri(t, s, s - t + shift, dtype=bool)
            if shift < 0:
                moved[0, 0] = False
            yield one("mask-off-by-one", detail, with_hidden(moved | (hidden & ~later if shift > 0 else hidden)))
        if s == t or not (hidden & ~later).any():
            for width in range(1, min(s, 33)):
                window = later | (np.arange(s)[None, :] <= np.arange(s - t, s)[:, None] - width)
                if not np.array_equal(window | hidden, hidden):
                    yield from beside("window-added", f"port attends to the last {width} positions, reference to all earlier ones", window)
        if t == s > 2 and (hidden & ~later).any():
            for by, words in ((-1, "next"), (1, "last")):  # a window and all, or padding with it
                own = (np.arange(t) == (t - 1 if by < 0 else 0))[:, None]
                yield one("mask-off-by-one", f"port has for each position the mask of the {words} one", with_hidden(np.where(own, hidden, np.roll(hidden, by, axis=-2))))
        limit = window_of(hidden)
        if limit is not None:
            for by in (1, -1):
                window = later | (np.arange(s)[None, :] <= np.arange(s - t, s)[:, None] - (limit + by))
                yield one("window-off-by-one", f"port's window has {limit + by} positions, reference's {limit}", with_hidden(window))
    else:
        if columns.any() and (hidden & ~columns).any():
            yield one("window-ignored", "port hides the padding but attends to all positions, reference to a window of them", with_hidden(columns | np.zeros_like(hidden)))
        if t > 1:
            yield from beside("mask-causal", "port is causal beside the reference's mask", later)
        for words, hides in windows(t) if t == s and t > 1 else ():
            yield from beside("window-added", f"port {words}, reference to all", hides)
        for shift in (1, -1):
            yield one("mask-off-by-one", f"port has the mask moved by {shift:+d} position", with_hidden(np.roll(hidden, shift, axis=-1)))
    if hidden.shape[-1] == hidden.shape[-2] and t > 1 and not is_causal:
        yield from beside("mask-diagonal", "port hides each position from itself", np.eye(t, dtype=bool))
    yield from weakened_variants(case, a, hidden, rest)


def hiding(rest: np.ndarray, hidden: np.ndarray, value: float = -np.inf) -> np.ndarray:
    """A mask: `rest`, and `value` where something is hidden."""
    return rest + np.where(hidden, value, 0.0)


def weakened_variants(case: Case, a: Attention, hidden: np.ndarray, rest: np.ndarray) -> Iterator[Hypothesis]:
    """A mask the other way round, in one of two senses; one that hides too little; one that is applied elsewhere."""

    def one(cause: str, detail: str, mask: np.ndarray) -> Hypothesis:
        return changed(case, a, cause, detail, lambda: probabilities(a, mask=mask))

    if hidden.shape[-1] == hidden.shape[-2] > 1 and not np.array_equal(hidden, hidden.swapaxes(-1, -2)):
        yield one("mask-transposed", "port has queries and keys of the mask exchanged", hiding(rest, hidden.swapaxes(-1, -2), -1e30))
    yield one("mask-weak", "port adds 0 and 1 for the mask in the place of 0 and -inf", rest + np.where(hidden, 0.0, 1.0))
    yield one("mask-weak", "port adds 1 where the reference adds -inf", hiding(rest, hidden, 1.0))
    for value in (-1.0, -10.0, -100.0):
        yield one("mask-weak", f"port adds {value:g} where the reference hides a position", hiding(rest, hidden, value))
    for value in (-1e30, -1e4):  # a row that sees nothing: all alike, or as if there were no mask
        yield one("mask-inverted", "port has the mask the other way round", hiding(rest, ~hidden, value))
    yield changed(case, a, "mask-after-softmax", "port sets hidden probabilities to 0 after the softmax", lambda: np.where(hidden, 0.0, probabilities(a, mask=rest)))
    multiplied = np.where(hidden, 0.0, 1.0)
    yield changed(case, a, "mask-multiplied", "port multiplies the logits by the mask where the reference hides", lambda: softmax(a.logits() * a.scale * multiplied, sink=a.sink()))


def window_of(hidden: np.ndarray) -> int | None:
    """How many positions, itself included, the last query sees, if the mask is a causal window; else None."""
    flat = hidden.reshape(-1, *hidden.shape[-2:])[0]
    t, s = flat.shape
    width = int((~flat[-1]).sum())
    expected = ~((np.arange(s)[None, :] <= np.arange(s - t, s)[:, None]) & (np.arange(s)[None, :] > np.arange(s - t, s)[:, None] - width))
    return width if width < s and np.array_equal(flat, expected) else None


@generator
def logits(case: Case) -> Iterator[Hypothesis]:
    """Scale absent, squared, of another size; softcap ignored or added; a sink; softmax over another axis, in half, absent."""
    for a in find_attentions(case):
        rows = list(factor_variants(a.scale))
        if a.head:
            rows += [("1/sqrt(head size)", 1 / math.sqrt(a.head)), ("1/head size", 1 / a.head), ("sqrt(head size)", math.sqrt(a.head)),
                     ("divided by sqrt(head size) once more", a.scale / math.sqrt(a.head)), ("times sqrt(head size)", a.scale * math.sqrt(a.head))]
        if a.head and a.heads:
            rows.append(("1/sqrt(hidden size)", 1 / math.sqrt(a.head * a.heads)))
        for label, new in rows:
            if not math.isclose(new, a.scale, rel_tol=1e-9) and (a.scale != 1.0 or label != "factor missing"):
                yield changed(case, a, "attention-scale", f"port scales q.k by {show(new)} ({label}), reference by {show(a.scale)}",
                              lambda a=a, n=new: probabilities(a, scale=n))  # fmt: skip
        if a.cap:
            yield changed(case, a, "softcap-missing", f"port does not cap the logits, reference at {show(a.cap)}", lambda a=a: probabilities(a, cap=0.0))
        for cap in SOFTCAPS:
            if cap != a.cap:
                detail = f"port caps the logits at {show(cap)}, reference {f'at {show(a.cap)}' if a.cap else 'does not'}"
                yield changed(case, a, "softcap", detail, lambda a=a, c=cap: probabilities(a, cap=c))
        if a.sink() is None:
            yield changed(case, a, "sink", "port has one more logit of 0 in the softmax (a sink)", lambda a=a: probabilities(a, sink=0.0))
        yield from softmax_variants(case, a)


def softmax_variants(case: Case, a: Attention) -> Iterator[Hypothesis]:
    shape = a.logits().shape
    for axis in range(len(shape) - 1):
        if shape[axis] > 1:
            words = {1: "queries", 2: "heads", 3: "the batch"}[len(shape) - 1 - axis] if len(shape) <= 4 else f"dimension {axis}"
            yield changed(case, a, "softmax-axis", f"port computes the softmax over {words}, reference over the keys", lambda a=a, x=axis: probabilities(a, axis=x))
    out = case.ops[a.index].outputs[0]
    if case.dtype(out) == "F32":
        for label, dtype in (("bf16", ml_dtypes.bfloat16), ("f16", np.float16)):
            for what, places in SOFTMAX_ROUNDINGS.items():
                yield changed(case, a, "softmax-precision", f"port has the {what} {label}", lambda a=a, t=dtype, s=places: softmax_in(a, t, s), coarse=True)
    yield changed(case, a, "softmax-missing", "port leaves out the softmax", lambda a=a: a.logits() * a.scale)


#: What is rounded: the products of q and k before the scale, scaled and capped, with mask and position bias, the result.
SOFTMAX_ROUNDINGS = {"result of the softmax in": "p", "logits in": "m", "softmax in": "mp", "products of q and k in": "q", "scaled products of q and k in": "s",
                     "products of q and k, logits and softmax in": "qsmp"}  # fmt: skip


def softmax_in(a: Attention, dtype: type, places: str) -> np.ndarray:
    """Probabilities with some of the SOFTMAX_ROUNDINGS to a narrow format."""

    def rounded(x: np.ndarray, place: str) -> np.ndarray:
        return x.astype(np.float32).astype(dtype).astype(np.float64) if place in places else x

    m = a.mask()
    with np.errstate(over="ignore"):
        x = rounded(capped(rounded(a.logits(), "q") * a.scale, a.cap), "s")
        return rounded(softmax(rounded(x if m is None else x + m, "m"), sink=a.sink()), "p")


# ---------------------------------------------------------------- heads


@generator
def heads(case: Case) -> Iterator[Hypothesis]:
    """Grouped heads tiled for repeated, in the fused op, in a repetition written out, and wherever keys or values stand more than once."""
    for op in case.ops:
        if op.base.startswith("_scaled_dot_product"):
            h, g = case.values[op.inputs[0]][1][1], case.values[op.inputs[1]][1][1]
            if h != g and h % g == 0:
                one = fused(case, case.ops.index(op))
                yield overridden(case, "gqa-order", order_text(h, g), lambda op=op, a=one, h=h, g=g: tiled(case, op, a, h, g))
    copies = repetitions(case)
    if copies:
        h, g = next(iter(copies.values()))
        yield overridden(case, "gqa-order", order_text(h, g), lambda c=copies: {v: retiled(case.intermediates()[v], *hg) for v, hg in c.items()})
    for v, (h, g) in copies.items() if len(copies) > 1 else ():
        yield overridden(case, "gqa-order", order_text(h, g) + " (in one of keys and values)", lambda v=v, h=h, g=g: {v: retiled(case.intermediates()[v], h, g)})


def order_text(h: int, g: int) -> str:
    return f"port gives head i the key group i % {g}, reference i // {h // g}"


def tiled(case: Case, op: Op, a: Attention, h: int, g: int) -> dict[int, np.ndarray]:
    """The fused attention with head i on group i % g."""
    values = case.intermediates()
    q, k, v = (values[x].astype(np.float64) for x in op.inputs[:3])
    order = np.arange(h) % g
    x = q @ k[:, order].swapaxes(-1, -2) * a.scale
    m = a.mask()
    out = op.outputs[0]
    return {out: (softmax(x if m is None else x + m) @ v[:, order]).astype(values[out].dtype)}


def repetitions(case: Case, least_groups: int = 2) -> dict[int, tuple[int, int]]:
    """(B, G, n, S, D) expanded from (B, G, 1, S, D) and viewed as (B, G n, S, D): value -> (heads, groups)."""
    found = {}
    for op in case.ops:
        if op.base not in ("view", "_unsafe_view", "reshape") or len(case.values[op.outputs[0]][1]) != 4:
            continue
        made = case.producers.get(op.inputs[0])
        while made is not None and case.ops[made].base in ("clone", "contiguous"):
            made = case.producers.get(case.ops[made].inputs[0])
        if made is None or case.ops[made].base != "expand":
            continue
        before, after = case.values[case.ops[made].inputs[0]][1], case.values[case.ops[made].outputs[0]][1]
        if len(before) == 5 and before[2] == 1 and after[2] > 1 and before[1] >= least_groups:
            found[op.outputs[0]] = (after[1] * after[2], before[1])
    return found


def retiled(x: np.ndarray, h: int, g: int) -> np.ndarray:
    return np.ascontiguousarray(x[:, np.arange(g) * (h // g)][:, np.arange(h) % g])


@generator
def exchanged_operands(case: Case) -> Iterator[Hypothesis]:
    """q, k and v of the fused op in each other's places."""
    for a in find_attentions(case):
        op = case.ops[a.index]
        if not op.base.startswith("_scaled_dot_product"):
            continue
        for i, j, names in ((0, 1, "q and k"), (1, 2, "k and v"), (0, 2, "q and v")):
            x, y = op.inputs[i], op.inputs[j]
            if x != y and case.values[x][1] == case.values[y][1] and is_float(case.intermediates()[x]):
                yield Hypothesis(
                    "operands-exchanged", f"port exchanges {names} of the attention",
                    lambda wide, n=a.index, i=i, j=j: exchanged_inputs(case, n, i, j, wide),
                )  # fmt: skip


def exchanged_inputs(case: Case, index: int, i: int, j: int, wide: bool) -> dict[str, np.ndarray]:
    draft = case.draft()
    args = draft.ops[index].args
    args[i], args[j] = args[j], args[i]
    return case.run_edited(draft, wide)
