"""Ops of NaN, infinities, zeros of both signs, subnormal and huge numbers: torch's bits, where any NaN stands for any other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bits import capability, in_c, in_torch
from porting import providers

_generator = torch.Generator().manual_seed(5)
WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}
DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    providers.use_provider("torch")


def specials(dtype: torch.dtype) -> torch.Tensor:
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    return torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -3.0, tiny / 4, -tiny, huge, -huge], dtype=dtype)


def any_bits(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of every size, special values among them."""
    whole = WHOLE[dtype]
    numbers = torch.randint(torch.iinfo(whole).min, torch.iinfo(whole).max, (count,), dtype=whole, generator=_generator).view(dtype)
    values = specials(dtype)
    numbers[::3] = values[torch.randint(len(values), numbers[::3].shape, generator=_generator)]
    return numbers


def unequal(name: str, args: list[Any], kwargs: dict[str, Any] | None = None, **options: Any) -> int:
    """How many elements differ in more than a NaN's bits."""
    count = 0
    for got, want in zip(in_c(name, args, kwargs, **options), in_torch(name, args, kwargs), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        if want.is_floating_point():
            count += int(((got.view(WHOLE[got.dtype]) != want.contiguous().view(WHOLE[got.dtype])) & ~(got.isnan() & want.isnan())).sum())
        else:
            count += int((got != want).sum())
    return count


@DTYPES
@pytest.mark.parametrize("name", ("fmod", "remainder"))
def test_rests_in_vectors_and_behind_them(name: str, dtype: torch.dtype) -> None:
    """torch's vector function gives NaN for quotients beyond its steps, libm's in the rest of a row the true rest."""
    a, b = any_bits(4099, dtype), any_bits(4099, dtype)
    b[1::4] = a[1::4] * torch.rand(a[1::4].shape, dtype=dtype, generator=_generator)
    for operands in ((a, b), (a[::2], b[::2]), (a, b[4]), (a, torch.tensor(torch.finfo(dtype).smallest_normal / 8, dtype=dtype))):
        assert unequal(f"aten.{name}.Tensor", list(operands)) == 0
    if capability() != "default":
        assert unequal(f"aten.{name}.Tensor", [a, b], capability="default") > 0  # what tells the two apart is in the operands
