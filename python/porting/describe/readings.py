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
from ..diagnose.hypothesis import Hypothesis, overridden, transformed
from . import flow

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
    name += norm_axes(case, norm)
    yield Reading("norm", name, of_cause(kinds, "mean-subtracted", "mean-not-subtracted", "variance-unbiased", "norm-groups", "statistics-ignored", "batch-statistics"))
    eps = list(dict.fromkeys(n.eps for n in found))
    yield Reading("norm eps", ", ".join(map(constants.show, eps)), [h for one in eps for h in nearest_eps(case, one)], same_arithmetic=True)
    weight, bias = norm_parameters(case, norm)
    scales += [h for h in weights.one_weight(case) if norm.fused]
    variants = of_cause([*scales, *kinds], "weight-plus-one", "weight-ignored")
    yield Reading("norm weight", weight, variants if not weight.startswith("none") else [], "nothing is multiplied" if weight == "none" else "")
    if bias is not None:
        yield Reading("norm bias", bias, of_cause([*kinds, *scales], "bias-missing") if bias == "yes" else [shifted(case)])
    yield Reading("norm cast", *cast_reading(case, norm), same_arithmetic=True)


def norm_axes(case: Case, norm: norms.Norm) -> str:
    """ " over ..." where a norm takes its moments of something else than the last axis; else ""."""
    op = case.ops[norm.first]
    rank = len(case.values[norm.x][1])
    if op.base == "native_layer_norm":
        count = len(listed(op.args[1]))
        return "" if count == 1 else f" over the last {count} dimensions"
    if norm.fused:
        return ""
    mean = next(case.ops[i] for i in range(norm.first, norm.last + 1) if case.ops[i].base == "mean")
    axes = listed(mean.args[1]) if len(mean.args) > 1 and mean.args[1] is not None else []
    axes = sorted(axis % rank for axis in axes or range(rank))
    return "" if axes == [rank - 1] else f" over dimension{'s' * (len(axes) > 1)} {', '.join(map(str, axes))} of {rank}"


def listed(arg: Any) -> list[Any]:
    found = arg["list"] if isinstance(arg, dict) else arg
    return list(found) if isinstance(found, (list, tuple)) else [found]


def norm_parameters(case: Case, norm: norms.Norm) -> tuple[str, str | None]:
    """What the normalised values are multiplied by ("weight", "1 + weight", "none", ...), and whether a bias is added; None: not known."""
    op = case.ops[norm.first]
    if norm.fused:
        places = (2, 3) if op.base == "native_layer_norm" else (1, 2)
        weight, bias = (op.args[p] if p < len(op.args) else None for p in places)
        after = flow.affine_end(case, norm.out) if op.base == "native_layer_norm" and len(listed(op.args[1])) == 1 else None
        words, added = "none" if weight is None else argument_words(case, weight), "none" if bias is None else "yes"
        if after is None or after.error == 0.0:  # what follows is no part of it, or nothing does
            return words, added
        return product_words(case, norm, after.factor, weight), "yes" if after.moved.any() else added
    scale = next(i for i in range(norm.first, norm.last + 1) if case.ops[i].base in ("mul", "div") and case.ops[i].inputs[0] != case.ops[norm.first].outputs[0]
                 and norm.x in case.ops[i].inputs and i != norm.first)  # fmt: skip
    whole = flow.affine_end(case, case.ops[scale].outputs[0])
    if whole is not None:
        return product_words(case, norm, whole.factor, None), "yes" if whole.moved.any() else "none"
    for i in range(scale + 1, norm.last + 1):
        if case.ops[i].base == "mul" and len(case.users(case.ops[scale].outputs[0])) == 1:
            for v in case.ops[i].inputs:
                if flow.made_of(case, v) and v in flow.constants(case):
                    return argument_words(case, {"v": v}), None
    return "none found in the ops beside it", None


def argument_words(case: Case, arg: Any) -> str:
    """What a weight that is handed to an op is."""
    factor = np.asarray(case.intermediates()[arg["v"]], dtype=np.float64).ravel()
    return "weight" if case.source(arg["v"]) in case.parameters else described_factor(case, factor, flow.made_of(case, arg["v"]))


def product_words(case: Case, norm: norms.Norm, factor: np.ndarray, weight: Any) -> str:
    """What the whole of a norm multiplies by: the factor behind it times the weight inside."""
    if weight is not None:
        factor = factor * np.asarray(case.intermediates()[weight["v"]], dtype=np.float64).ravel()
    return described_factor(case, factor, list(case.parameters.values()))


def described_factor(case: Case, factor: np.ndarray, names: list[str]) -> str:
    arrays = {name: case.feeds[v] for v, name in case.parameters.items() if name in names and v in case.feeds and case.is_floating(v)}
    unit = max([flow.UNITS.get(a.dtype.name, 2.0**-24) for a in arrays.values()], default=2.0**-24)
    return flow.factor_words(factor, list(arrays), arrays, unit)


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
    here = {constants.activation_name(case.ops[i]) for i in own if case.ops[i].base in constants.ACTIVATIONS and not caps_logits(case, i)}
    elsewhere = {op.base for i, op in enumerate(case.ops) if i not in own}
    written = not elsewhere & {"tanh", "erf", "sigmoid", "exp", *constants.ACTIVATIONS}
    for name, variants in names.items():
        if name in here or (written and name in constants.FORMULAS):
            if name in ("tanh", "sigmoid") and (set(names) & set(constants.FORMULAS)):
                continue  # a part of one that is written out
            places = [i for i in sorted(own) if case.ops[i].base in constants.ACTIVATIONS and constants.activation_name(case.ops[i]) == name]
            if name in ("tanh", "sigmoid") and any(flow.gates_itself(case, i) for i in places):
                yield Reading("activation", f"a formula with {name}", needs="it is multiplied by what it was made from, and the whole is none of the usual functions")
                continue
            more = "; ".join(dict.fromkeys(text for i in places if (text := activation_numbers(case, i))))
            yield Reading("activation", name + (f" ({more})" if more else ""), variants)


def caps_logits(case: Case, index: int) -> bool:
    """Whether a tanh is the cap of attention's logits, which is a fact of its own."""
    return case.ops[index].base == "tanh" and constants.to_softmax(case, case.ops[index].outputs[0])


def activation_numbers(case: Case, index: int) -> str:
    """What an activation has beside its name: numbers other than torch's own, and a square of its result."""
    op = case.ops[index]
    named = {"leaky_relu": (("slope", 0.01),), "elu": (("alpha", 1.0), ("scale", 1.0), ("input scale", 1.0)), "softplus": (("beta", 1.0), ("threshold", 20.0))}
    given = op.args[1:]
    words = [f"{word} {constants.show(float(x))}" for (word, usual), x in zip(named.get(op.base, ()), given) if isinstance(x, (int, float)) and x != usual]
    users = [case.ops[i] for i in case.users(op.outputs[0])]
    if users and all((u.base == "pow" and u.args[1:] == [2]) or (u.base == "mul" and u.inputs == [op.outputs[0]] * 2) for u in users):
        words.append("squared")
    return ", ".join(words)


# ---------------------------------------------------------------- attention


def attention_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    fixed = flow.constants(case)  # a softmax over a product with a parameter is a router's, or a classifier's
    found = [a for a in attention.find_attentions(case) if a.index in own and fixed.isdisjoint(flow.operands(case, a.index))]
    if not found:
        return
    a = found[0]
    heads, groups, size = head_counts(case, a)
    if heads:
        swapped = of_cause(attention.heads(case), "gqa-order") if groups != heads else []
        swapped += [h for h in weights.one_weight(case) if f"within the dimensions (heads of {size})" in h.detail][:3]
        words = f"{heads} query heads on {groups} key and value heads" if groups != heads else f"{heads}, each with its own keys and values"
        words += key_order(case, a, heads, groups)
        yield Reading("attention heads", words, swapped, "" if swapped else "no variant of the order of heads can be run in this module alone")
        yield Reading("head size", str(size), swapped, "" if swapped else "no variant of the order of heads can be run in this module alone")
    whole = a.scale * flow.product_factor(case, a.index) * math.prod(factor_before(case, v) for v in flow.operands(case, a.index))
    yield Reading("attention scale", constants.show(whole), of_cause(attention.logits(case), "attention-scale"))
    if a.cap:
        yield Reading("logit softcap", constants.show(a.cap), of_cause(attention.logits(case), "softcap-missing", "softcap"))
    yield from mask_readings(case, a)


def head_counts(case: Case, a: attention.Attention) -> tuple[int, int, int]:
    """(heads, key and value heads, head size); zeros where the shapes do not say. Keys that several heads share are counted once, however they were copied."""
    keys = flow.heads_of_keys(case, a.index)
    if keys is None:
        return 0, 0, 0
    heads, array = keys
    return heads, len(flow.distinct_heads(array)), array.shape[-1]


def key_order(case: Case, a: attention.Attention, heads: int, groups: int) -> str:
    """ ", ..." where query heads that share keys do not stand beside each other; else ""."""
    keys = flow.heads_of_keys(case, a.index)
    if keys is None or groups in (1, heads) or keys[1].shape[1] == groups:  # an op that repeats them itself does so in blocks
        return ""
    order = [next(g for g, same in enumerate(flow.distinct_heads(keys[1])) if i in same) for i in range(heads)]
    if order == [i * groups // heads for i in range(heads)]:
        return ""
    return f", head i on i % {groups}" if order == [i % groups for i in range(heads)] else f", in the order {order}"


def factor_before(case: Case, value: int) -> float:
    """What q or k was multiplied by in this module before their product, rotations between left out."""
    rotated = {case.source(r.y): r.x for r in rotary.find_rotations(case)}
    fixed = flow.constants(case)
    factor = 1.0
    for _ in range(24):
        value = rotated.get(case.source(value), value)
        made = case.producers.get(value)
        op = case.ops[made] if made is not None else None
        if op is None or not op.inputs:
            break
        if op.base in ("mul", "div") and op.args[0] != op.args[1]:
            number = flow.scalar(case, op.args[1], fixed)
            if number is None or not math.isfinite(number) or number == 0:
                break
            factor *= number if op.base == "mul" else 1 / number
        elif op.base not in flow.SAME:
            break
        value = op.inputs[0]
    return factor


def mask_readings(case: Case, a: attention.Attention) -> Iterator[Reading]:
    mask = a.mask()
    t, s = a.logits().shape[-2:]
    variants = [h for h in attention.masks(case) if h.cause.startswith(("mask", "window"))]
    hidden = np.broadcast_to(mask <= attention.HIDDEN, np.broadcast_shapes(mask.shape, (t, s))) if mask is not None else np.zeros((t, s), bool)
    later = ~np.tri(t, s, s - t, dtype=bool)
    if t == 1:
        yield Reading("attention mask", "one query", needs="the captured call has a single query")
        return
    hidden = hidden.reshape(-1, t, s)
    if t == s:  # queries that are padding are often let see all, so that their softmax is no NaN: of no matter
        hidden = hidden | (hidden[:, -1] & ~hidden.any(axis=2))[:, :, None]
    window = attention.window_of(hidden) if hidden.any() and (hidden == hidden[0]).all() else None
    if window is not None:
        yield Reading("attention mask", "causal", of_cause(variants, "mask-absent", "mask-causality-ignored"))
        yield Reading("sliding window", str(window), of_cause(variants, "window-off-by-one", "mask-absent"))
    elif later.any() and hidden[:, later].all():
        kind = pattern(hidden, later)
        yield Reading("attention mask", f"causal{kind}", of_cause(variants, "mask-absent", "mask-causality-ignored", "mask-off-by-one"))
        if not kind:
            yield Reading("sliding window", f"none within {s} positions", of_cause(variants, "window-added"))
    else:
        kind = pattern(hidden, np.zeros_like(later)).removeprefix(" and ").removeprefix(", ")
        yield Reading("attention mask", kind or "none: all positions", of_cause(variants, "mask-absent", "mask-causal"))


def pattern(hidden: np.ndarray, ruled: np.ndarray) -> str:
    """What a mask (N, T, S) hides beside the (T, S) that are ruled out: "", " and padding" (the same positions from all), or something else.

    Queries that are padding themselves may see all or nothing: what they see is of no matter.
    """
    if (hidden == ruled).all():
        return ""
    padding = hidden[:, -1] if ruled.any() else hidden.all(axis=1)
    if not ruled.any() and hidden.shape[1] == hidden.shape[2] and not padding.any():
        padding = (hidden | hidden.all(axis=2)[:, :, None]).all(axis=1)
    expected = ruled | padding[:, None, :]
    same = (hidden == expected).all(axis=2)
    if hidden.shape[1] == hidden.shape[2]:
        same |= padding & (hidden == hidden[:, :, :1]).all(axis=2)
    return " and padding" if padding.any() and same.all() else ", hidden in a pattern of its own"


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
    factors = list(flow.multiplied(case, op.outputs[0], flow.constants(case)))
    if case.source(op.inputs[0]) in case.parameters:
        value = "times a factor" if math.prod(factors) != 1.0 else "as looked up"
    else:
        value = "looked up in a table that is computed"
    yield Reading("embedding scale", value, of_cause(hypotheses, "embedding-scale"))


def linear_readings(case: Case, own: set[int]) -> Iterator[Reading]:
    """Whether products with parameters have something added that is the same for all inputs."""
    fixed = flow.constants(case)
    products = [i for i in sorted(own) if case.ops[i].base in ("addmm", "mm", "linear", "convolution", "bmm", "baddbmm")
                and any(v in fixed and flow.made_of(case, v) for v in case.ops[i].inputs)]
    if not products:
        return
    added = [flow.addends(case, i, fixed) for i in products]
    if not all(known for _, known in added):
        yield Reading("bias", "not told", needs="something that depends on the inputs is added inside a product")
        return
    found = list(dict.fromkeys(v for values, _ in added for v in values))
    missing = of_cause(weights.one_weight(case), "bias-missing")
    named = {case.source(v) for v in found}
    missing = missing if found and named <= set(case.parameters) else [without(case, v) for v in found]
    count = sum(bool(values) for values, _ in added)
    value = "no" if not count else "yes" if count == len(products) else f"in {count} of {len(products)} products"
    yield Reading("bias", value, missing or [shifted(case)])


def without(case: Case, value: int) -> Hypothesis:
    """What zeros in the place of an addend make of the outputs."""
    return overridden(case, "bias-missing", "port leaves out what is added", lambda: {value: np.zeros_like(case.intermediates()[value])})
