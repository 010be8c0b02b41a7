"""Rounding points: a weight, an operand or a result in a narrower format."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from .attention import changed, find_attentions, into_softmax
from .case import VIEWS, Case, Draft, Op
from .hypothesis import Hypothesis, edited, generator, overridden, transformed
from .norms import ROOTS
from .structure import name_of, where

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu", "linear", "matmul")


def bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(x.dtype)


def f16(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(x.dtype)


def tf32(x: np.ndarray) -> np.ndarray:
    """10 bits of mantissa, to nearest even, as tensor cores take them."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def e4m3(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(x.dtype)


def blocks(x: np.ndarray, size: int) -> np.ndarray | None:
    """Rows of `size` along the last axis, or None if it does not divide."""
    return x.reshape(-1, size) if x.ndim and x.shape[-1] % size == 0 and x.size else None


def symmetric(levels: int, size: int, scale_f16: bool) -> Callable[[np.ndarray], np.ndarray | None]:
    """Blocks of `size` with one scale: max |x| goes to `levels`. size 0: the whole tensor; -1: each row."""

    def quantise(x: np.ndarray) -> np.ndarray | None:
        if x.ndim == 0 or x.size == 0:
            return None
        rows = x.reshape(1, -1) if size == 0 else x.reshape(-1, x.shape[-1]) if size == -1 else blocks(x, size)
        if rows is None:
            return None
        step = np.abs(rows).max(axis=1, keepdims=True) / np.float32(levels)
        inverse = np.where(step > 0, 1 / np.where(step > 0, step, 1), 0).astype(np.float32)
        if scale_f16:
            step = f16(step)
        return (np.round(rows * inverse) * step).astype(np.float32).reshape(x.shape)

    return quantise


def q4_0(x: np.ndarray) -> np.ndarray | None:
    """ggml's q4_0: blocks of 32, the value of greatest magnitude goes to -8."""
    rows = blocks(x, 32)
    if rows is None:
        return None
    top = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    step = top / np.float32(-8)
    inverse = np.where(step != 0, 1 / np.where(step != 0, step, 1), 0).astype(np.float32)
    q = np.minimum(15, np.floor(rows * inverse + np.float32(8.5)))
    return ((q - 8) * f16(step)).astype(np.float32).reshape(x.shape)


def q4_1(x: np.ndarray) -> np.ndarray | None:
    """ggml's q4_1: blocks of 32, 16 steps from the least to the greatest."""
    rows = blocks(x, 32)
    if rows is None:
        return None
    low, top = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (top - low) / np.float32(15)
    inverse = np.where(step > 0, 1 / np.where(step > 0, step, 1), 0).astype(np.float32)
    q = np.minimum(15, np.floor((rows - low) * inverse + np.float32(0.5)))
    return (q * f16(step) + f16(low)).astype(np.float32).reshape(x.shape)


def uint8(axis: int | None) -> Callable[[np.ndarray], np.ndarray | None]:
    """256 steps from the least (at most 0) to the greatest, 0 among them; axis None: the whole tensor; else each row along it."""

    def quantise(x: np.ndarray) -> np.ndarray:
        low = np.minimum(x.min(axis=axis, keepdims=True), 0)
        step = (np.maximum(x.max(axis=axis, keepdims=True), 0) - low) / np.float32(255)
        step = np.where(step > 0, step, 1).astype(np.float32)
        zero = np.round(-low / step)
        return ((np.clip(np.round(x / step) + zero, 0, 255) - zero) * step).astype(np.float32)

    return quantise


def by_columns(x: np.ndarray) -> np.ndarray | None:
    """int8 with one scale for each column."""
    found = symmetric(127, -1, False)(np.ascontiguousarray(x.T)) if x.ndim == 2 else None
    return None if found is None else np.ascontiguousarray(found.T)


def by_first(x: np.ndarray) -> np.ndarray | None:
    """int8 with one scale for each slice of the first axis: an output channel of a convolution."""
    found = symmetric(127, -1, False)(np.ascontiguousarray(x).reshape(x.shape[0], -1)) if x.ndim > 2 else None
    return None if found is None else found.reshape(x.shape)


def e5m2(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.float8_e5m2).astype(x.dtype)


def truncated_bf16(x: np.ndarray) -> np.ndarray:
    """The upper half of float32, with nothing rounded."""
    return (np.ascontiguousarray(x, dtype=np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def with_zero(levels: int, size: int) -> Callable[[np.ndarray], np.ndarray | None]:
    """Blocks of `size` with a scale and a least value of their own: `levels` steps."""

    def quantise(x: np.ndarray) -> np.ndarray | None:
        rows = blocks(x, size)
        if rows is None:
            return None
        low = rows.min(axis=1, keepdims=True)
        step = (rows.max(axis=1, keepdims=True) - low) / np.float32(levels)
        step = np.where(step > 0, step, 1).astype(np.float32)
        return (np.round((rows - low) / step) * step + low).astype(np.float32).reshape(x.shape)

    return quantise


#: The 16 quantiles of a normal distribution that nf4 knows.
NF4 = np.array([-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0, 0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0])


def nf4(size: int) -> Callable[[np.ndarray], np.ndarray | None]:
    def quantise(x: np.ndarray) -> np.ndarray | None:
        rows = blocks(x, size)
        if rows is None:
            return None
        top = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-30))
        middle = (NF4[1:] + NF4[:-1]) / 2
        return (NF4[np.searchsorted(middle, rows / top)].astype(np.float32) * top).astype(np.float32).reshape(x.shape)

    return quantise


FORMATS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "bf16": bf16, "f16": f16, "tf32": tf32, "f8 e4m3": e4m3, "q8_0": symmetric(127, 32, True), "q4_0": q4_0,
    "int8 per tensor": symmetric(127, 0, False), "int8 per row": symmetric(127, -1, False), "q4_1": q4_1, "int8 per column": by_columns,
    "int8 per output channel": by_first, "uint8 per tensor": uint8(None), "uint8 per row": uint8(-1), "f8 e5m2": e5m2, "int4 per row": symmetric(7, -1, False),
    "int4 in blocks of 32": symmetric(7, 32, True), "int4 in blocks of 128": symmetric(7, 128, True), "int8 of 128 steps per tensor": symmetric(128, 0, False),
    "bf16 cut off": truncated_bf16, "nf4 in blocks of 64": nf4(64), "nf4 in blocks of 32": nf4(32), "int4 with a zero in groups of 128": with_zero(15, 128),
    "int4 with a zero in groups of 64": with_zero(15, 64), "int4 with a zero in groups of 32": with_zero(15, 32), "int4 with a zero in groups of 16": with_zero(15, 16),
    "q5_0": symmetric(15, 32, True), "int6 per row": symmetric(31, -1, False), "int4 in blocks of 64": symmetric(7, 64, False), "int8 with a zero in groups of 128": with_zero(255, 128),
}  # fmt: skip
ACTIVATION_FORMATS = ("int8 per row", "int8 per tensor", "q8_0", "uint8 per tensor", "uint8 per row", "f8 e4m3")
PAIRS = (("q8_0", "q8_0"), ("q4_0", "q8_0"), ("q4_1", "q8_0"), ("int8 per row", "int8 per row"), ("int8 per tensor", "int8 per tensor"),
         ("int8 per row", "int8 per tensor"), ("int8 per tensor", "uint8 per tensor"), ("f8 e4m3", "f8 e4m3"))  # fmt: skip
HALVES = ("bf16", "f16")


def is_f32(case: Case, value: int) -> bool:
    return case.dtype(value) == "F32"


@generator
def operands(case: Case) -> Iterator[Hypothesis]:
    """Weights and activations of products in a narrower format, one operand or both. An activation is rounded for this product alone, and for all that use it."""
    for i, op in enumerate(case.ops):
        if op.base not in PRODUCTS:
            continue
        sources = [v for v in dict.fromkeys(operand(case, op, v) for v in op.inputs) if is_f32(case, v) and len(case.values[v][1]) > 1]
        weights = [v for v in sources if v in case.parameters]
        others = [v for v in sources if v not in case.parameters]
        for label, rounding in FORMATS.items():
            for v in sources:
                if label not in (*HALVES, "tf32", *ACTIVATION_FORMATS) and v not in case.parameters:
                    continue
                yield rounded(case, "operand-precision", f"port has {name_of(case, v)} in {label} for {where(case, op)}", {v: rounding})
            if label in (*HALVES, "tf32") and len(sources) > 1:
                yield rounded(case, "operand-precision", f"port takes both operands of {where(case, op)} in {label}", dict.fromkeys(sources, rounding))
        pairs = [*PAIRS, *((label, label) for label in (*HALVES, "tf32"))]
        if len(weights) == 1 and len(others) == 1:
            for a, b in PAIRS:
                detail = f"port has {name_of(case, weights[0])} in {a} and {name_of(case, others[0])} in {b} for {where(case, op)}"
                yield rounded(case, "operand-precision", detail, {weights[0]: FORMATS[a], others[0]: FORMATS[b]})
        if len(others) == 1 and len(readers(case, case.source(others[0]))) > 1:
            yield from for_one_use(case, i, op, others[0], weights, pairs)


def operand(case: Case, op: Op, value: int) -> int:
    """Where an operand is rounded: a weight as it is stored, the rows of a matrix product as they come, else before all views."""
    source = case.source(value)
    return value if op.base in ("mm", "addmm") and source not in case.parameters else source


def readers(case: Case, value: int) -> list[int]:
    """Ops that read a value, through views of it or as it is."""
    found, line = [], [value]
    while line:
        for i in case.users(line.pop()):
            if case.ops[i].base in VIEWS:
                line += [v for v in case.ops[i].outputs if v is not None]
            else:
                found.append(i)
    return found


def for_one_use(case: Case, index: int, op: Op, other: int, weights: list[int], pairs: list[tuple[str, str]]) -> Iterator[Hypothesis]:
    """The activation rounded for one product, where others use it too; with the weight as it is or in a format of its own."""
    direct = next(v for v in op.inputs if operand(case, op, v) == other)

    def change(draft: Draft, of_weight: str | None, of_other: str) -> None:
        values = case.intermediates()
        array = FORMATS[of_other](np.ascontiguousarray(values[direct]))
        if array is None:
            raise ValueError("format does not fit the shape")
        draft.feed(index, direct, array)
        for v in op.inputs if of_weight else ():
            if case.source(v) in weights:
                narrow = FORMATS[of_weight](np.ascontiguousarray(values[case.source(v)]))
                if narrow is None:
                    raise ValueError("format does not fit the shape")
                draft.feed(index, v, as_viewed(narrow, values[case.source(v)], values[v]))

    for label in (*HALVES, "tf32", *ACTIVATION_FORMATS):
        detail = f"port has {name_of(case, other)} in {label} for {where(case, op)} alone"
        yield edited(case, "operand-precision", detail, lambda d, b=label: change(d, None, b))
    for a, b in pairs if len(weights) == 1 else ():
        detail = f"port has {name_of(case, weights[0])} in {a} and {name_of(case, other)} in {b} for {where(case, op)} alone"
        yield edited(case, "operand-precision", detail, lambda d, a=a, b=b: change(d, a, b))


def as_viewed(changed: np.ndarray, source: np.ndarray, view: np.ndarray) -> np.ndarray:
    """The changed source as the view shows it: transposed, or under another shape."""
    if view.shape == source.shape:
        return changed
    if view.shape == source.shape[::-1]:
        return np.ascontiguousarray(changed.T)
    return changed.reshape(view.shape)


def rounded(case: Case, cause: str, detail: str, how: dict[int, Callable], coarse: bool = False) -> Hypothesis:
    def override() -> dict[int, np.ndarray]:
        changed = {}
        for v, rounding in how.items():
            with np.errstate(all="ignore"):  # masks hold infinities
                array = rounding(case.intermediates()[v])
            if array is None:
                raise ValueError("format does not fit the shape")
            changed[v] = array
        return changed

    return overridden(case, cause, detail, override, coarse)


@generator
def results(case: Case) -> Iterator[Hypothesis]:
    """One op's result rounded to half; the module's input or output in half."""
    for label in HALVES:
        yield transformed(case, "result-precision", f"port returns its output rounded to {label}", FORMATS[label])
    for v, leaf in case.leaves.items():
        if is_f32(case, v):
            for label in HALVES:
                yield rounded(case, "operand-precision", f"port takes its input {leaf} in {label}", {v: FORMATS[label]})
    for op in case.ops:
        v = op.outputs[0] if op.outputs else None
        if v is None or op.base in VIEWS or not is_f32(case, v) or v in case.outputs.values():
            continue
        for label in HALVES:
            yield rounded(case, "result-precision", f"port rounds the result of {where(case, op)} to {label}", {v: FORMATS[label]}, coarse=True)


@generator
def tables(case: Case) -> Iterator[Hypothesis]:
    """Two inputs of one shape in half, as tables of sines and cosines are."""
    wide = [v for v in case.leaves if is_f32(case, v)]
    for i, a in enumerate(wide):
        for b in wide[i + 1 :]:
            if case.values[a][1] == case.values[b][1]:
                for label in (*HALVES, "tf32"):
                    detail = f"port takes its inputs {case.leaves[a]} and {case.leaves[b]} in {label}"
                    yield rounded(case, "operand-precision", detail, {a: FORMATS[label], b: FORMATS[label]})


@generator
def ops_in_half(case: Case) -> Iterator[Hypothesis]:
    """One op with its operands and its result in half, as under autocast; or its operands alone."""
    for i, op in enumerate(case.ops):
        made = op.outputs[0] if op.outputs else None
        if made is None or op.base in VIEWS or op.base in ("_to_copy", "clone", "cat", "copy") or not is_f32(case, made):
            continue
        taken = [v for v in dict.fromkeys(op.inputs) if is_f32(case, v)]
        for label, dtype in zip(HALVES, ("BF16", "F16")) if taken else ():
            detail = f"port computes {where(case, op)} in {label}"
            yield edited(case, "result-precision", detail, lambda d, i=i, t=taken, k=dtype: op_in_half(d, i, t, k, True), coarse=True)
            if op.base == "addmm" and len(taken) > 1:
                detail = f"port computes {where(case, op)} in {label}, but for its bias"
                yield edited(case, "result-precision", detail, lambda d, i=i, t=taken[1:], k=dtype: op_in_half(d, i, t, k, True), coarse=True)
            if op.base not in PRODUCTS:
                yield edited(case, "operand-precision", f"port takes the operands of {where(case, op)} in {label}", lambda d, i=i, t=taken, k=dtype: op_in_half(d, i, t, k, False), coarse=True)
                if len(taken) > 1 and op.inputs[0] == taken[0]:
                    detail = f"port takes the first operand of {where(case, op)} in {label}"
                    yield edited(case, "operand-precision", detail, lambda d, i=i, t=taken[:1], k=dtype: op_in_half(d, i, t, k, False), coarse=True)


def op_in_half(draft: Draft, index: int, taken: list[int], dtype: str, result: bool) -> None:
    """Casts to half and back before op `index` for each value it takes, and after it for its result."""
    op = draft.ops[index]
    for v in taken:
        narrow = draft.new_value(v, dtype=dtype, shape=draft.values[v][1])
        wide = draft.new_value(v, shape=draft.values[v][1])
        draft.ops[index:index] = [cast(v, narrow, dtype), cast(narrow, wide, "F32")]
        index += 2
        draft.swap(index, v, wide)
    if result:
        made = op.outputs[0]
        full, narrow = draft.new_value(made, shape=draft.values[made][1]), draft.new_value(made, dtype=dtype, shape=draft.values[made][1])
        op.outputs = [full, *op.outputs[1:]]
        draft.ops[index + 1 : index + 1] = [cast(full, narrow, dtype), cast(narrow, made, "F32")]


def cast(source: int, made: int, dtype: str) -> Op:
    return Op("aten._to_copy.default", [{"v": source}], {"dtype": {"dtype": dtype}}, [made])


@generator
def all_half(case: Case) -> Iterator[Hypothesis]:
    """Every weight in half; every floating value in half, op by op."""
    weights = [v for v in case.parameters if is_f32(case, v)]
    if len(weights) > 1:
        for label in HALVES:
            yield rounded(case, "operand-precision", f"port has all its weights in {label}", dict.fromkeys(weights, FORMATS[label]))


@generator
def computed_in_half(case: Case) -> Iterator[Hypothesis]:
    """The whole module in half: every operand and every result."""
    if not any(is_f32(case, v) for v in case.outputs.values()):
        return
    for label, dtype in (("bf16", "BF16"), ("f16", "F16")):
        yield Hypothesis("computed-in-half", f"port computes the whole module in {label}", lambda wide, d=dtype: in_half(case, d), coarse=True)


def in_half(case: Case, dtype: str) -> dict[str, np.ndarray]:
    """The program with a narrow dtype in the place of float32; its outputs widened."""
    kind = np.float16 if dtype == "F16" else ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        feeds = {v: a.astype(kind) if a.dtype == np.float32 else a for v, a in case.feeds.items()}
    values = [[dtype, *v[1:]] if v[0] == "F32" else v for v in case.values]
    used = {v for op in case.ops for v in op.inputs} | set(case.outputs.values())
    ops = [Op(op.name, narrowed(op.args, dtype), narrowed(op.kwargs, dtype), [v if v in used else None for v in op.outputs], op.result) for op in case.ops]
    found = case._run(values, ops, feeds, sorted({v for leaf, v in case.outputs.items() if leaf in case.actual}))
    return {leaf: a.astype(case.expected[leaf].dtype) for leaf, a in case._leaves(found).items()}


def narrowed(arg: Any, dtype: str) -> Any:
    if isinstance(arg, dict):
        return {"dtype": dtype} if arg.get("dtype") == "F32" else {k: narrowed(v, dtype) for k, v in arg.items()}
    return [narrowed(a, dtype) for a in arg] if isinstance(arg, list) else arg


@generator
def accumulation(case: Case) -> Iterator[Hypothesis]:
    """Sums of products kept in half, one product or one block of them at a time."""
    for op in case.ops:
        if op.base not in ("mm", "addmm") or not is_f32(case, op.outputs[0]):
            continue
        a, b = op.inputs[-2:]
        k = case.values[a][1][-1]
        for label in HALVES:
            for block in (1, 8, 16, 32, 64, 128, 256):
                if block < k:
                    words = "after every product" if block == 1 else f"after every {block} products"
                    yield overridden(
                        case, "accumulation-half", f"port rounds the sum of {where(case, op)} to {label} {words}",
                        lambda o=op, a=a, b=b, z=block, r=FORMATS[label]: {o.outputs[0]: accumulated(case, o, a, b, z, r)},
                    )  # fmt: skip
            for parts in (2, 4, 8):
                if k % parts == 0 and k > parts:
                    yield overridden(
                        case, "accumulation-half", f"port keeps the {parts} parts of the sum of {where(case, op)} in {label} and adds them in float32",
                        lambda o=op, a=a, b=b, n=parts, r=FORMATS[label]: {o.outputs[0]: in_parts(case, o, a, b, n, r)}, coarse=True,
                    )  # fmt: skip


def in_parts(case: Case, op: Op, a: int, b: int, parts: int, rounding: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A product whose sum is split into parts that are rounded each."""
    x, y = case.intermediates()[a], case.intermediates()[b]
    size = x.shape[1] // parts
    total = sum(rounding(x[:, i * size : (i + 1) * size] @ y[i * size : (i + 1) * size]) for i in range(parts))
    return (total + case.intermediates()[op.inputs[0]] if op.base == "addmm" else total).astype(np.float32)


def accumulated(case: Case, op: Op, a: int, b: int, block: int, rounding: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x, y = case.intermediates()[a], case.intermediates()[b]
    total = np.zeros((x.shape[0], y.shape[1]), np.float32)
    for start in range(0, x.shape[1], block):
        part = x[:, start : start + block, None] * y[None, start : start + block, :] if block == 1 else x[:, start : start + block] @ y[start : start + block]
        total = rounding(total + (part[:, 0] if block == 1 else part))
    if op.base == "addmm":
        total = total + case.intermediates()[op.inputs[0]]
    return total.astype(np.float32)


@generator
def casts(case: Case) -> Iterator[Hypothesis]:
    """In modules that mix dtypes: a weight multiplied before the cast for after it, and back; a widening that is left out."""
    for i, op in enumerate(case.ops):
        if op.base != "_to_copy" or not case.is_floating(op.outputs[0]) or not case.is_floating(op.inputs[0]):
            continue
        source, made = op.inputs[0], op.outputs[0]
        if case.dtype(source) == case.dtype(made):
            continue
        users = [j for j in case.users(made) if case.ops[j].base == "mul" and len(case.ops[j].inputs) == 2]
        if case.dtype(source) == "F32" and len(case.users(made)) == 1 and users:
            yield edited(case, "cast-order", f"port multiplies in float32 and casts to {case.dtype(made).lower()} after it, reference casts before",
                         lambda d, i=i, j=users[0]: cast_after(d, i, j))  # fmt: skip
        before = case.producers.get(source)
        if case.dtype(source) == "F32" and before is not None and case.ops[before].base == "mul" and len(case.ops[before].inputs) == 2 and len(case.users(source)) == 1:
            yield edited(case, "cast-order", f"port casts to {case.dtype(made).lower()} before it multiplies, reference after",
                         lambda d, i=i, j=before: cast_before(d, i, j))  # fmt: skip
        if case.dtype(made) == "F32" and case.dtype(source) in ("BF16", "F16"):
            yield edited(case, "cast-missing", f"port stays in {case.dtype(source).lower()} where the reference computes in float32 ({name_of(case, source)})",
                         lambda d, i=i, s=source: d.drop(i, s))  # fmt: skip


def cast_after(draft: Draft, cast: int, product: int) -> None:
    """mul(cast(x), w) becomes cast(mul(x, w))."""
    a, b = draft.ops[cast], draft.ops[product]
    wide = draft.new_value(a.inputs[0], shape=draft.values[b.outputs[0]][1])
    args = [a.args[0] if arg == {"v": a.outputs[0]} else arg for arg in b.args]
    draft.ops[product : product + 1] = [Op(b.name, args, b.kwargs, [wide]), Op(a.name, [{"v": wide}, *a.args[1:]], a.kwargs, b.outputs)]


def cast_before(draft: Draft, cast: int, product: int) -> None:
    """cast(mul(x, w)) becomes mul(cast(x), cast(w))."""
    a, b = draft.ops[cast], draft.ops[product]
    ops, args = [], []
    for arg in b.args:
        if isinstance(arg, dict) and "v" in arg and draft.values[arg["v"]][0] == "F32":
            narrow = draft.new_value(arg["v"], dtype=draft.values[a.outputs[0]][0])
            ops.append(Op(a.name, [arg, *a.args[1:]], a.kwargs, [narrow]))
            arg = {"v": narrow}
        args.append(arg)
    draft.ops[cast : cast + 1] = [*ops, Op(b.name, args, b.kwargs, a.outputs)]


@generator
def approximate_rsqrt(case: Case) -> Iterator[Hypothesis]:
    """The processor's 12-bit reciprocal square root, raw and with one Newton step, and that by the exponent's bits, for the IEEE one."""
    for op in case.ops:
        if op.base != "rsqrt" or not is_f32(case, op.inputs[0]):
            continue
        source, made = op.inputs[0], op.outputs[0]
        for label, root in ROOTS.items():
            def override(source: int = source, made: int = made, root: Callable[[np.ndarray], np.ndarray] = root) -> dict[int, np.ndarray]:
                return {made: root(case.intermediates()[source])}

            yield overridden(case, "approximate-rsqrt", f"port uses a {label}", override)


@generator
def approximate_exp(case: Case) -> Iterator[Hypothesis]:
    """Schraudolph's exp (the exponent's bits from a product) in a softmax, sigmoid, SiLU or exp."""
    for op in case.ops:
        if op.base in FAST and is_f32(case, op.inputs[0]):
            yield overridden(case, "approximate-exp", f"port uses a fast exp in {where(case, op)}", lambda o=op: {o.outputs[0]: FAST[o.base](case.intermediates()[o.inputs[0]])})
    for a in find_attentions(case):
        if case.ops[a.index].base.startswith("_scaled_dot_product") and is_f32(case, case.ops[a.index].outputs[0]):
            yield changed(case, a, "approximate-exp", f"port uses a fast exp in {where(case, case.ops[a.index])}", lambda a=a: FAST["_softmax"](into_softmax(a)), coarse=True)


def fast_exp(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        bits = np.clip(np.float32(12102203.0) * x + np.float32(1064866805.0), 0, 2**31 - 129)
    return bits.astype(np.int32).view(np.float32)


def fast_softmax(x: np.ndarray) -> np.ndarray:
    e = fast_exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


FAST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "_softmax": fast_softmax, "exp": fast_exp, "sigmoid": lambda x: 1 / (1 + fast_exp(-x)), "silu": lambda x: x / (1 + fast_exp(-x)),
}  # fmt: skip
GENERATORS = (casts, results, operands, all_half, computed_in_half, approximate_rsqrt)
