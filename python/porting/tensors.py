"""torch tensors as memory that the store can copy: which are taken as they are, which are made dense first, which cannot be kept.

Imports torch, as only what captures does besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import _core

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16, "I32": torch.int32,
    "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}  # fmt: skip
DTYPE_NUMBERS: dict[torch.dtype, int] = {TORCH_DTYPES[name]: i for i, name in enumerate(_core.DTYPES)}
dispatch_keys = torch._C._dispatch_keys  # of a tensor; .raw_repr() is a number that says all that is_direct() asks but the dtype
PLAIN_TENSORS = frozenset((torch.Tensor, torch.nn.Parameter, torch.nn.Buffer))


class DroppedError(Exception):
    """A tensor that cannot be kept. The text is the reason, for the capture's notes."""


def is_leaf(value: Any) -> bool:
    """True for what is stored as a tensor: torch's tensors and NumPy's arrays of numbers."""
    return isinstance(value, torch.Tensor) or isinstance(value, np.ndarray) and value.dtype.kind in "biufcV"


def dtype_name(dtype: torch.dtype) -> str:
    number = DTYPE_NUMBERS.get(dtype)
    return str(dtype).removeprefix("torch.") if number is None else _core.DTYPES[number]


def is_lazy(tensor: torch.Tensor) -> bool:
    """True for parameters of lazy modules that have no shape yet."""
    return type(tensor).__name__ in ("UninitializedParameter", "UninitializedBuffer")


def is_direct(tensor: torch.Tensor) -> bool:
    """True if the values are the tensor's own memory on the CPU, as its shape, strides and dtype say."""
    return (
        type(tensor) in PLAIN_TENSORS
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype in DTYPE_NUMBERS
        and not tensor.is_nested
        and not tensor.is_neg()
        and not (tensor.is_complex() and tensor.is_conj())
        and not tensor._is_zerotensor()
    )


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the same values that is_direct().

    No dispatch mode sees the copies made here, and autograd does not.

    Raises
    ------
    DroppedError : there are no such values, or no dtype of the format holds them
    """
    if is_lazy(tensor):
        raise DroppedError("a lazy parameter that has no shape yet")
    if tensor.is_meta:
        raise DroppedError("a meta tensor has no values")
    if tensor.is_quantized:
        raise DroppedError(f"a quantised tensor ({tensor.dtype}); the format has no scales and zero points")
    if tensor.is_nested:
        raise DroppedError("a nested tensor has no single shape")
    if tensor.layout is not torch.strided:
        raise DroppedError(f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})")
    if tensor.dtype not in DTYPE_NUMBERS:
        raise DroppedError(f"dtype {str(tensor.dtype).removeprefix('torch.')} is not one of {', '.join(_core.DTYPES)}")
    try:
        with torch.no_grad(), torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunctionSubclass():
            if type(tensor) not in PLAIN_TENSORS:
                tensor = tensor.as_subclass(torch.Tensor)
            if tensor.device.type != "cpu":
                tensor = tensor.to("cpu")
            if tensor._is_zerotensor():
                tensor = tensor.clone()
            tensor = tensor.resolve_conj().resolve_neg()
            if tensor.numel() and tensor.data_ptr() == 0:
                raise DroppedError("a tensor without memory of its own (fake, or a wrapper around another)")
    except (RuntimeError, NotImplementedError) as error:
        raise DroppedError(f"its values cannot be read: {str(error).splitlines()[0]}") from None
    return tensor
