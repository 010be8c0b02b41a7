"""One op in torch and in C, and whether the results have the same bits: for tests of what promises all of them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np
import torch
from porting import _core

BITS = {
    torch.float32: torch.int32, torch.float64: torch.int64, torch.int32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16,
}  # fmt: skip


def capability() -> str:
    """The one that torch runs under."""
    name = torch.backends.cpu.get_cpu_capability().lower()
    return name if name in ("avx2", "avx512") else "default"


def in_torch(name: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> list[torch.Tensor]:
    result = reduce(getattr, name.split("."), torch.ops)(*args, **(kwargs or {}))
    return [result] if isinstance(result, torch.Tensor) else list(result)


def _array(t: torch.Tensor) -> np.ndarray:
    return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()


def _tensor(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype == ml_dtypes.bfloat16 else torch.from_numpy(a)


def in_c(name: str, args: list[Any], kwargs: dict[str, Any] | None = None, provider: str = "torch", **options: Any) -> list[torch.Tensor]:
    arrays = [_array(a) if isinstance(a, torch.Tensor) else a for a in args]
    result = _core.call_op(name, arrays, kwargs or {}, provider=provider,
                           **{"num_threads": torch.get_num_threads(), "capability": capability(), **options})  # fmt: skip
    return [_tensor(np.asarray(r)) for r in (result if isinstance(result, tuple) else (result,))]


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return torch.equal(a.contiguous().view(BITS[a.dtype]), b.contiguous().view(BITS[b.dtype]))
