"""What one module computes, read from its recorded program: values, and the variants that would have been something else.

A reading makes no judgement: `describe` runs the variants in C and compares them with the captured bits. The variants are the hypotheses of
diagnose/, so what `porting.explain` finds in a port and what is ruled out here are the same things.
"""
from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .. import _core
from ..diagnose import attention, constants, norms, rotary, rounding, weights
from ..diagnose.case import Case, Op
from ..diagnose.hypothesis import Hypothesis, transformed

NORM_NAMES = {"native_layer_norm": "LayerNorm", "native_group_norm": "GroupNorm", "native_batch_norm": "BatchNorm"}
HALVES = ("BF16", "F16")


@dataclasses.dataclass
class Reading:
    """A fact that is to be verified. `variants`: hypotheses any of which would make it wrong; `needs`: why none can be, where there are none;
    `same_arithmetic`: the variants run the recorded ops, so that any other bit tells them apart; `check`: computed directly, in the place of variants: (the recorded bits were reproduced, what was compared)."""

    name: str
    value: str
    variants: list[Hypothesis] = dataclasses.field(default_factory=list)
    needs: str = ""
    same_arithmetic: bool = False
    check: Callable[[], tuple[bool, str]] | None = None


def of_cause(found: Iterable[Hypothesis], *causes: str, limit: int = 6) -> list[Hypothesis]:
    return [h for h in found if h.cause in causes][:limit]


# ---------------------------------------------------------------- norms


def norm_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    """Kind, eps, weight, bias, and where half floats are widened."""
    found = [n for n in norms.find_norms(case) if n.first in own]
    if not found:
        return
    norm = found[0]
    op = case.ops[norm.first]
    kinds, scales = list(norms.kinds(case)), list(norms.weights_of_norms(case))
    name = NORM_NAMES.get(op.base, "RMSNorm") if norm.fused else "RMSNorm"
    centred = case.producers.get(case.source(norm.x))
    if not norm.fused and centred is not None and case.ops[centred].base == "sub":
        name = "LayerNorm (written out)"
    if op.base == "native_group_norm":
        name += f" in {op.args[6]} groups"
        kinds += norms.groups(case)
    if op.base == "native_batch_norm":
        kinds += norms.batch_norms(case)
    yield Reading("norm", name, of_cause(kinds, "mean-subtracted", "mean-not-subtracted", "variance-unbiased", "norm-groups", "statistics-ignored", "batch-statistics"))
    yield Reading("norm eps", constants.show(norm.eps), nearest_eps(case, norm.eps), same_arithmetic=True)
    weight, bias = norm_parameters(case, norm)
    scales += [h for h in weights.one_weight(case) if norm.fused]
    variants = of_cause([*scales, *kinds], "weight-plus-one", "weight-ignored")
    yield Reading("norm weight", weight, variants if weight != "none" else [], "nothing is multiplied" if weight == "none" else "")
    if norm.fused:
        yield Reading("norm bias", bias, of_cause([*kinds, *scales], "bias-missing") if bias == "yes" else [shifted(case)])
    yield Reading("norm cast", *cast_reading(case, norm), same_arithmetic=True)


def norm_parameters(case: Case, norm: norms.Norm) -> tuple[str, str]:
    """Whether there is a weight (also as 1 + weight) and a bias."""
    op = case.ops[norm.first]
    if norm.fused:
        places = (2, 3) if op.base == "native_layer_norm" else (1, 2)
        weight, bias = (op.args[p] if p < len(op.args) else None for p in places)
        return "none" if weight is None else "weight", "none" if bias is None else "yes"
    for i in range(norm.first, norm.last + 1):
        if case.ops[i].base == "mul":
            for v in case.ops[i].inputs:
                made = case.producers.get(v)
                if made is not None and case.ops[made].base == "add" and len(case.ops[made].args) > 1 and case.ops[made].args[1] == 1.0:
                    return "1 + weight", "none"
                if case.source(v) in case.parameters:
                    return "weight", "none"
    return "none", "none"


def nearest_eps(case: Case, eps: float) -> list[Hypothesis]:
    """The usual values of eps next to this one."""
    found = [(float(m[1]), h) for h in constants.eps(case) if h.cause == "eps" and (m := re.search(r"eps=([\d.e+-]+),", h.detail))]
    return [h for _, h in sorted(found, key=lambda pair: abs(math.log(max(pair[0], 1e-30) / max(eps, 1e-30))))][:4]


def cast_reading(case: Case, norm: norms.Norm) -> tuple[str, list[Hypothesis], str]:
    """Where the norm leaves the model's dtype and where it returns to it."""
    dtype = case.dtype(norm.x)
    if norm.fused:
        return f"none: {dtype.lower()} goes in and out", [], "the op is fused: what it computes in is its kernel's matter"
    casts = [(i, op) for i, op in enumerate(case.ops) if op.base == "_to_copy" and case.is_floating(op.inputs[0])]
    if not casts:
        rounded = [h for h in rounding.results(case) if h.cause == "result-precision" and "rounds the result of" in h.detail]
        return f"none: {dtype.lower()} throughout", rounded[:4], ""
    scale = next(i for i in range(norm.first, norm.last + 1) if case.ops[i].base in ("rsqrt", "sqrt"))
    back = [i for i, op in casts if i > scale and case.dtype(op.outputs[0]) in HALVES]
    weight = [i for i in range(scale, len(case.ops)) if case.ops[i].base == "mul" and any(case.source(v) in norms.weights_of(case) for v in case.ops[i].inputs)]
    where = "before the weight" if back and weight and back[0] < weight[0] else "after the weight" if back and weight else "at the end"
    narrow = case.dtype(case.ops[back[0]].outputs[0]).lower() if back else "no half"
    return f"float32 inside, back to {narrow} {where}", of_cause(rounding.casts(case), "cast-order", "cast-missing"), ""


def shifted(case: Case) -> Hypothesis:
    """What a constant bias would have made of the outputs."""
    return transformed(case, "bias", "port adds a bias of 0.1", lambda x: (x + np.asarray(0.1, x.dtype)).astype(x.dtype))


# ---------------------------------------------------------------- activations


def activation_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    names: dict[str, list[Hypothesis]] = {}
    for h in constants.activation(case):
        found = re.search(r"reference (.+?)(?: \(written out\))?$", h.detail)
        if h.cause == "activation" and found:
            names.setdefault(found[1], []).append(h)
    here = {constants.activation_name(case.ops[i]) for i in own if case.ops[i].base in constants.ACTIVATIONS}
    elsewhere = {op.base for i, op in enumerate(case.ops) if i not in own}
    written = not elsewhere & {"tanh", "erf", "sigmoid", "exp", *constants.ACTIVATIONS}
    for name, variants in names.items():
        if name in here or (written and name in constants.FORMULAS):
            if name in ("tanh", "sigmoid") and (set(names) & set(constants.FORMULAS)):
                continue  # a part of one that is written out
            yield Reading("activation", name, variants)


# ---------------------------------------------------------------- attention


def attention_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    found = [a for a in attention.find_attentions(case) if a.index in own]
    if not found:
        return
    a = found[0]
    heads, groups, size = head_counts(case, a)
    if heads:
        swapped = of_cause(attention.heads(case), "gqa-order") if groups != heads else []
        swapped += [h for h in weights.one_weight(case) if f"within the dimensions (heads of {size})" in h.detail][:3]
        words = f"{heads} query heads on {groups} key and value heads" if groups != heads else f"{heads}, each with its own keys and values"
        yield Reading("attention heads", words, swapped, "" if swapped else "no variant of the order of heads can be run in this module alone")
        yield Reading("head size", str(size), swapped, "" if swapped else "no variant of the order of heads can be run in this module alone")
    yield Reading("attention scale", constants.show(a.scale), of_cause(attention.logits(case), "attention-scale"))
    if a.cap:
        yield Reading("logit softcap", constants.show(a.cap), of_cause(attention.logits(case), "softcap-missing", "softcap"))
    yield from mask_readings(case, a)


def head_counts(case: Case, a: attention.Attention) -> tuple[int, int, int]:
    """(heads, key and value heads, head size); zeros where the shapes do not say."""
    op = case.ops[a.index]
    copies = attention.repetitions(case, 1)
    if op.base.startswith("_scaled_dot_product"):
        q, k = (case.values[v][1] for v in op.inputs[:2])
        groups = k[1] if k[1] != q[1] else next(iter(copies.values()), (q[1], q[1]))[1]
        return q[1], groups, q[-1]
    shape = case.values[op.inputs[0]][1]
    value = case.source(op.inputs[0])
    for _ in range(12):
        made = case.producers.get(value)
        if made is None:
            return 0, 0, 0
        if case.ops[made].base in ("bmm", "baddbmm"):
            size = case.values[case.ops[made].inputs[-2]][1][-1]
            return (shape[1], next(iter(copies.values()), (shape[1], shape[1]))[1], size) if len(shape) == 4 else (0, 0, 0)
        value = case.source(next((v for v in case.ops[made].inputs if attention.logit_like(case, v)), case.ops[made].inputs[0]))
    return 0, 0, 0


def mask_readings(case: Case, a: attention.Attention) -> Iterator[Reading]:
    mask = a.mask()
    t, s = a.logits().shape[-2:]
    variants = [h for h in attention.masks(case) if h.cause.startswith(("mask", "window"))]
    hidden = np.broadcast_to(mask <= attention.HIDDEN, np.broadcast_shapes(mask.shape, (t, s))) if mask is not None else np.zeros((t, s), bool)
    later = ~np.tri(t, s, s - t, dtype=bool)
    if t == 1:
        yield Reading("attention mask", "one query", needs="the captured call has a single query")
        return
    window = attention.window_of(hidden) if hidden.any() else None
    if window is not None:
        yield Reading("attention mask", "causal", of_cause(variants, "mask-absent", "mask-causality-ignored"))
        yield Reading("sliding window", str(window), of_cause(variants, "window-off-by-one", "mask-absent"))
    elif (hidden & later).all(axis=tuple(range(hidden.ndim - 2)))[later].all() and later.any():
        padded = bool((hidden & ~later).any())
        yield Reading("attention mask", "causal and padding" if padded else "causal", of_cause(variants, "mask-absent", "mask-causality-ignored", "mask-off-by-one"))
        if not padded:
            yield Reading("sliding window", f"none within {s} positions", of_cause(variants, "window-added"))
    else:
        yield Reading("attention mask", "padding" if hidden.any() else "none: all positions", of_cause(variants, "mask-absent", "mask-causal"))


# ---------------------------------------------------------------- rotary embeddings


def rotary_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    found = [r for r in rotary.find_rotations(case) if case.producers.get(r.y) in own]
    if not found:
        return
    r = found[0]
    width = case.values[r.y][1][-1]
    for a in attention.find_attentions(case)[:1]:
        width = head_counts(case, a)[2] or width
    hypotheses = list(rotary.rotary(case))
    kind = "interleaved (pairs 2i, 2i+1)" if r.neighbours else "half (pairs i, i + size/2)"
    other = [h for h in hypotheses if "leaves the result" not in h.detail]  # q and k laid out otherwise alike give the same products
    yield Reading("rope kind", kind, of_cause(other, "rope-interleaved", "rope-sign", limit=3))
    yield Reading("rope size", f"{r.size} of {width} numbers of a head", of_cause(hypotheses, "rope-absent", "rope-partial"))


def frequency_readings(case: Case, own: set[int], options: dict[str, Any]) -> Iterator[Reading]:
    """The base of the rotation, from the table of frequencies that the module is given: made again in C, bit for bit."""
    for value, x in case.feeds.items():
        if not rotary.is_frequencies(x) or not own.intersection(case.users(value)):
            continue
        guess = float(x[-1]) ** (-x.size / (x.size - 1))
        bases = [b for b in dict.fromkeys((float(f"{guess:.1g}"), float(f"{guess:.2g}"), float(f"{guess:.3g}"), *rotary.BASES)) if abs(b / guess - 1) < 0.02]
        same = next((b for b in bases if np.array_equal(inverse_frequencies(b, x.size, options), x)), None)
        if same is None:
            yield Reading("rope base", f"about {guess:.4g}", needs="the table of frequencies is that of no plain base: it is scaled, or made otherwise")
            continue

        def check(base: float = same, x: np.ndarray = x) -> tuple[bool, str]:
            other = min((b for b in rotary.BASES if b != base), key=lambda b: abs(math.log(b / base)))
            far = int(_core.compare(x, inverse_frequencies(other, x.size, options))["max_ulp"])
            return far > 0, f"its {x.size} frequencies bit-equal; base {other:g} differs by {far:,} ulp"

        yield Reading("rope base", f"{same:g}", check=check)
        return


def inverse_frequencies(base: float, size: int, options: dict[str, Any]) -> np.ndarray:
    """1 / base^(2i / d) as PyTorch computes it in float32, d = 2 size."""
    def run(name: str, *args: Any, **kwargs: Any) -> np.ndarray:
        return _core.call_op(f"aten.{name}", list(args), kwargs, **{k: v for k, v in options.items() if k != "variant"})

    steps = run("div.Tensor", np.arange(0, 2 * size, 2).astype(np.float32), float(2 * size))
    return run("mul.Tensor", run("reciprocal.default", run("pow.Scalar", base, steps)), 1.0)


# ---------------------------------------------------------------- embeddings, products


def embedding_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    tables = [case.ops[i] for i in own if case.ops[i].base == "embedding"]
    if not tables:
        return
    op: Op = tables[0]
    rows, width = case.values[op.inputs[0]][1]
    hypotheses = list(rotary.embeddings(case))
    yield Reading("embedding", f"{rows} rows of {width}", of_cause(hypotheses, "embedding-offset", limit=1))
    users = [case.ops[i] for i in case.users(op.outputs[0])]
    factor = next((u for u in users if u.base == "mul" and len(u.args) > 1), None)
    value = "times a factor" if factor is not None else "as looked up"
    yield Reading("embedding scale", value, of_cause(hypotheses, "embedding-scale"))


def linear_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    products = [case.ops[i] for i in own if case.ops[i].base in ("addmm", "mm", "linear", "convolution", "bmm", "baddbmm")]
    names = [case.parameters[v] for op in products for v in (case.source(x) for x in op.inputs) if v in case.parameters]
    if not products or not names:
        return
    missing = of_cause(weights.one_weight(case), "bias-missing")
    yield Reading("bias", "yes" if missing else "no", missing or [shifted(case)])
