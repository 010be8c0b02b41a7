"""Which calls of a root module execute the same ops: the pattern of a call, from the shapes and the form of its inputs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import Any

import torch

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16", torch.int32: "I32",
    torch.uint32: "U32", torch.int64: "I64", torch.uint64: "U64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}  # fmt: skip


def dtype_name(dtype: torch.dtype) -> str:
    """safetensors' name of a dtype, torch's where it has none."""
    return DTYPES.get(dtype) or str(dtype).removeprefix("torch.")


class Pattern:
    """What makes two calls of a root module alike. Equal patterns have equal keys; the symbols' values are not part of it."""

    __slots__ = ("key", "symbols")

    def __init__(self, key: Hashable, symbols: tuple[int, ...] = ()) -> None:
        self.key = key
        self.symbols = symbols

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Pattern(symbols={self.symbols})"


def as_pattern(pattern: Hashable) -> Pattern | None:
    return pattern if isinstance(pattern, Pattern) or pattern is None else Pattern(pattern)


_CACHE_LEAF = re.compile(r"(?:^|\.)\d+\.(?:key|value)$")


def _normal(value: Any, lengths: dict[int, tuple[str, int]]) -> Hashable:
    """A hashable form of nested plain data in which integers that count the cache are symbols."""
    if isinstance(value, dict):
        if value.keys() == {"$"}:  # a leaf of a structure tree, by its place
            return ("$", value["$"])
        return ("dict", tuple((str(k), _normal(v, lengths)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(_normal(v, lengths) for v in value))
    if type(value) is int:
        return lengths.get(value, value)
    if isinstance(value, (bool, float, str, bytes, type(None))):
        return (type(value).__name__, repr(value))
    return (type(value).__name__, re.sub(r"0x[0-9a-fA-F]+", "", repr(value)))


def pattern_of(root_leaves: Iterable[tuple[str, torch.Tensor]], non_tensor_args: Any = None) -> Pattern:
    """The pattern of a root call: two calls with equal patterns are expected to execute the same ops.

    Parameters
    ----------
    root_leaves : (leaf path, tensor) of the call's inputs. Cache leaves end in `<layer>.key` or `<layer>.value`.
    non_tensor_args : everything else that tells calls apart: nested dicts, lists and plain values, for instance the name of
        the root, its training flag and the structure tree of its arguments.

    Shapes, strides, dtypes and the autograd, inference and autocast state count. If the call has a non-empty cache, the cached
    length `kv` (second last dimension of the first cache leaf) is a symbol: the same dimension of cache leaves and the last
    dimension of other leaves may be `kv` plus new tokens.
    """
    leaves = list(root_leaves)
    kv = 0
    new: set[int] = set()
    for path, tensor in leaves:
        if not _CACHE_LEAF.search(path):
            if tensor.dim() >= 2:
                new.add(tensor.shape[1])
        elif not kv and tensor.dim() >= 3:
            kv = tensor.shape[-2]
    lengths: dict[int, tuple[str, int]] = {kv: ("kv", 0), **{kv + n: ("kv", n) for n in new}} if kv else {}
    described = []
    for path, tensor in leaves:
        shape: list[Hashable] = list(tensor.shape)
        if kv and shape:
            cache = _CACHE_LEAF.search(path) is not None and len(shape) >= 3
            place = -2 if cache else -1
            if cache or shape[place] != kv:
                shape[place] = lengths.get(tensor.shape[place], shape[place])
        strides = "contiguous" if tensor.is_contiguous() else ("strided" if kv else tensor.stride())
        described.append((path, dtype_name(tensor.dtype), str(tensor.device), tuple(shape), strides))
    state = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    return Pattern((tuple(described), _normal(non_tensor_args, lengths), state), (kv,) if kv else ())
