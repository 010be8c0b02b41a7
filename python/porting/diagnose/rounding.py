"""Rounding points: a weight, an operand or a result in a narrower format."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

from .case import VIEWS, Case
from .hypothesis import Hypothesis, generator, overridden, transformed
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


FORMATS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "bf16": bf16, "f16": f16, "tf32": tf32, "f8 e4m3": e4m3, "q8_0": symmetric(127, 32, True), "q4_0": q4_0,
    "int8 per tensor": symmetric(127, 0, False), "int8 per row": symmetric(127, -1, False),
}  # fmt: skip
HALVES = ("bf16", "f16")


def is_f32(case: Case, value: int) -> bool:
    return case.dtype(value) == "F32"


@generator
def operands(case: Case) -> Iterator[Hypothesis]:
    """Weights and activations of products in a narrower format, one operand or both."""
    if case.in_place:
        return
    for op in case.ops:
        if op.base not in PRODUCTS:
            continue
        sources = [v for v in dict.fromkeys(case.source(v) for v in op.inputs) if is_f32(case, v) and len(case.values[v][1]) > 1]
        for label, rounding in FORMATS.items():
            for v in sources:
                if label not in (*HALVES, "tf32") and v not in case.parameters:
                    continue
                yield rounded(case, "operand-precision", f"port has {name_of(case, v)} in {label} for {where(case, op)}", {v: rounding})
            if label in (*HALVES, "tf32") and len(sources) > 1:
                yield rounded(case, "operand-precision", f"port takes both operands of {where(case, op)} in {label}", dict.fromkeys(sources, rounding))


def rounded(case: Case, cause: str, detail: str, how: dict[int, Callable]) -> Hypothesis:
    def override() -> dict[int, np.ndarray]:
        changed = {}
        for v, rounding in how.items():
            array = rounding(case.intermediates()[v])
            if array is None:
                raise ValueError("format does not fit the shape")
            changed[v] = array
        return changed

    return overridden(case, cause, detail, override)


@generator
def results(case: Case) -> Iterator[Hypothesis]:
    """One op's result rounded to half; the module's input or output in half."""
    for label in HALVES:
        yield transformed(case, "result-precision", f"port returns its output rounded to {label}", FORMATS[label])
    if case.in_place:
        return
    for v, leaf in case.leaves.items():
        if is_f32(case, v):
            for label in HALVES:
                yield rounded(case, "operand-precision", f"port takes its input {leaf} in {label}", {v: FORMATS[label]})
    for op in case.ops:
        v = op.outputs[0] if op.outputs else None
        if v is None or op.base in VIEWS or not is_f32(case, v) or v in case.outputs.values():
            continue
        for label in HALVES:
            yield rounded(case, "result-precision", f"port rounds the result of {where(case, op)} to {label}", {v: FORMATS[label]})


@generator
def all_half(case: Case) -> Iterator[Hypothesis]:
    """Every weight in half; every floating value in half, op by op."""
    weights = [v for v in case.parameters if is_f32(case, v)]
    if len(weights) > 1 and not case.in_place:
        for label in HALVES:
            yield rounded(case, "operand-precision", f"port has all its weights in {label}", dict.fromkeys(weights, FORMATS[label]))


@generator
def approximate_rsqrt(case: Case) -> Iterator[Hypothesis]:
    """The processor's 12-bit reciprocal square root, raw and with one Newton step, for the IEEE one."""
    if case.in_place:
        return
    for op in case.ops:
        if op.base != "rsqrt":
            continue
        source, made = op.inputs[0], op.outputs[0]
        for label, steps in (("raw 12-bit rsqrt", 0), ("12-bit rsqrt with one Newton step", 1)):
            def override(source: int = source, made: int = made, steps: int = steps) -> dict[int, np.ndarray]:
                x = case.intermediates()[source]
                return {made: twelve_bit_rsqrt(x, steps)}

            yield overridden(case, "approximate-rsqrt", f"port uses a {label}", override)


def twelve_bit_rsqrt(x: np.ndarray, steps: int) -> np.ndarray:
    """1/sqrt(x) with 12 bits; the hardware's table differs between makers, its relative error is up to 1.5 * 2^-12."""
    y = (1 / np.sqrt(x.astype(np.float64))).astype(np.float32)
    bits = y.view(np.uint32)
    y = ((bits + 0x800) & np.uint32(0xFFFFF000)).view(np.float32)
    for _ in range(steps):
        y = y * (np.float32(1.5) - np.float32(0.5) * x * y * y)
    return y
