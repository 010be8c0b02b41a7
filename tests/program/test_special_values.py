"""Ops of NaN, infinities, zeros of both signs, subnormal and huge numbers: torch's bits, where any NaN stands for any other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bits import capability, in_c, in_torch
from porting import _core, providers

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
    for operands in ((a, b), (a[:29], b[:29]), (a[::2], b[::2]), (a, b[4]), (a, torch.tensor(torch.finfo(dtype).smallest_normal / 8, dtype=dtype))):
        assert unequal(f"aten.{name}.Tensor", list(operands)) == 0
    if capability() != "default":
        assert unequal(f"aten.{name}.Tensor", [a, b], capability="default") > 0  # what tells the two apart is in the operands


POLYNOMIALS = [name for name in _core.known_ops() if "polynomial" in name and name.endswith(".default")]


@DTYPES
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str, dtype: torch.dtype) -> None:
    """Inside the interval and beyond it, at its ends and next to them, of degrees that are none."""
    x = torch.cat((1.5 * torch.randn(400, dtype=dtype, generator=_generator), torch.rand(200, dtype=dtype, generator=_generator)))
    last = torch.finfo(dtype).eps / 2
    x = torch.cat((x, torch.tensor([0.5, 1 - last, last - 1, last, 1e20], dtype=dtype), specials(dtype))).nan_to_num(1.0, math.inf, -math.inf)
    for n in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 31, 128, 129, 513, -1, -0.5, 0.7, 1e30, math.inf, -math.inf, math.nan):
        assert unequal(name, [x, torch.full_like(x, n)]) == 0, n
    assert unequal(name, [torch.full((3,), math.nan, dtype=dtype), torch.tensor([0.0, 1.0, -1.0], dtype=dtype)]) == 0


def test_polynomials_in_fused_steps() -> None:
    x, n = torch.randn(400, generator=_generator), torch.full((400,), 40.0)
    if capability() != "default":
        assert unequal("aten.special_hermite_polynomial_h.default", [x, n], capability="default") > 0


def poles(dtype: torch.dtype) -> torch.Tensor:
    """Numbers about 0 and next to it, where zeta and polygamma have poles, with whole ones among them."""
    small = torch.tensor([1e-30, -0.5, -2.5, 2.0, 3.0, -4.0, 100.0, 1e20], dtype=dtype)
    return torch.cat((5 * torch.randn(600, dtype=dtype, generator=_generator), 10 * torch.rand(600, dtype=dtype, generator=_generator), small, specials(dtype)))


@DTYPES
def test_zeta(dtype: torch.dtype) -> None:
    q = poles(dtype)[:, None].clamp_(min=-1e5)  # torch never comes to an end far below 0
    x = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 6.7, 40.0, math.inf, math.nan], dtype=dtype)
    assert unequal("aten.special_zeta.default", [x.expand(len(q), -1).contiguous(), q.expand(-1, len(x)).contiguous()]) == 0


@DTYPES
@pytest.mark.parametrize("n", (1, 2, 3, 9, 40))
def test_polygamma(n: int, dtype: torch.dtype) -> None:
    x = poles(dtype)
    assert unequal("aten.polygamma.default", [n, x if n == 1 else x.clamp_(min=-1e5)]) == 0


@DTYPES
def test_products_of_nothing(dtype: torch.dtype) -> None:
    """beta times the addend, -0 too."""
    c, a, b = specials(dtype).repeat(3, 1), torch.empty(3, 0, dtype=dtype), torch.empty(0, len(specials(dtype)), dtype=dtype)
    for scales in ({}, {"beta": 0.2, "alpha": 0.6}, {"beta": 0}):
        assert unequal("aten.addmm.default", [c, a, b], scales) == 0
        assert unequal("aten.baddbmm.default", [c.repeat(2, 1, 1), a.repeat(2, 1, 1), b.repeat(2, 1, 1)], scales) == 0
        assert unequal("aten.addmv.default", [c[0], b.t(), a[0]], scales) == 0


@DTYPES
def test_distances_of_order_0(dtype: torch.dtype) -> None:
    x, y = torch.randn(4, 3, 5, dtype=dtype, generator=_generator), torch.randn(4, 6, 5, dtype=dtype, generator=_generator)
    x[0, 0, 1], x[1, 0], y[1, 2], y[2, 0] = math.nan, math.inf, math.inf, x[2, 0]
    assert unequal("aten._cdist_forward.default", [x, y, 0.0, 1]) == 0


@DTYPES
@pytest.mark.parametrize("whole", ("U8", "I8", "I16", "I32", "I64", "BOOL"))
def test_floats_that_integers_do_not_hold(whole: str, dtype: torch.dtype) -> None:
    x = torch.cat((torch.tensor([3e9, -3e9, 3000000005.0, 1e19, -1e19, 300.0, -1.5, 70000.0], dtype=dtype), specials(dtype), any_bits(30, dtype)))
    names = {"U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "BOOL": torch.bool}
    for operand in (x, x[:3], torch.stack((x, x), -1)[:, 0]):
        want = operand.to(names[whole])
        got = in_c("aten._to_copy.default", [operand], {"dtype": {"dtype": whole}})[0]
        assert torch.equal(got, want), (got, want)


@DTYPES
@pytest.mark.parametrize("keys", (1, 6, 8, 9))
def test_attention_to_nothing_but_nan(keys: int, dtype: torch.dtype) -> None:
    """Rows of NaN that fill no vector see no key, others are NaN."""
    q, k, v = (torch.randn(1, 2, n, 8, dtype=dtype, generator=_generator) for n in (3, keys, keys))
    q[0, 0, 1, 3], v[0, 0, 0, 2] = math.nan, math.inf
    for args in ([q, k, v, 0.0, False], [q, k, v, 0.0, True]):
        name = "aten._scaled_dot_product_flash_attention_for_cpu.default"
        for got, want in zip(in_c(name, args), in_torch(name, args), strict=True):
            torch.testing.assert_close(got, want, equal_nan=True)


NEAR = {torch.float32: 4e-6, torch.float64: 1e-9}


@DTYPES
@pytest.mark.parametrize("order", ("0", "1"))
def test_bessel_functions_far_out(order: str, dtype: torch.dtype) -> None:
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    x = torch.tensor([0.0, -0.0, tiny / 4, tiny, 1e-20, 1e-9, 0.5, 29.0, 31.0, 300.0, 1e5, 1e10, huge, math.inf, math.nan, -2.0], dtype=dtype)
    for name in (f"special_scaled_modified_bessel_k{order}", f"special_modified_bessel_k{order}", f"special_modified_bessel_i{order}"):
        got, want = in_c(f"aten.{name}.default", [x])[0], in_torch(f"aten.{name}.default", [x])[0]
        torch.testing.assert_close(got, want, equal_nan=True, rtol=NEAR[dtype], atol=0.0)
    small = x[x < 1e-8]
    got, want = in_c(f"aten.special_bessel_y{order}.default", [small])[0], in_torch(f"aten.special_bessel_y{order}.default", [small])[0]
    torch.testing.assert_close(got, want, equal_nan=True, rtol=NEAR[dtype], atol=0.0)


@DTYPES
@pytest.mark.parametrize("name", ("igamma", "igammac"))
def test_incomplete_gamma_of_large_and_tiny(name: str, dtype: torch.dtype) -> None:
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    values = torch.tensor([0.0, tiny / 4, tiny, 1e-20, 0.5, 2.0, 30.0, 300.0, 1e5, 1.01e5, 1e6, 3e6, 3.01e6, 1e10, huge, math.inf, math.nan, -2.0], dtype=dtype)
    a, x = torch.cartesian_prod(values, values).unbind(-1)
    near = torch.tensor([1e4] if dtype == torch.float32 else [1e4, 2e6, 1e8, 1e10], dtype=dtype)  # torch's steps in F32 lose digits beyond
    a, x = torch.cat((a, near, near)), torch.cat((x, near + near.sqrt(), near - 2 * near.sqrt()))
    got, want = in_c(f"aten.{name}.default", [a.contiguous(), x.contiguous()])[0], in_torch(f"aten.{name}.default", [a.contiguous(), x.contiguous()])[0]
    torch.testing.assert_close(got, want, equal_nan=True, rtol=0.0, atol=4e-6)


@pytest.mark.parametrize("shape", ((4, 4, 4), (16, 16, 16), (32, 32, 1), (16, 16, 4)), ids=str)
@pytest.mark.parametrize("last", (False, True), ids=("rows", "channels last"))
def test_weights_that_are_not_finite_in_the_padding(shape: tuple[int, int, int], last: bool) -> None:
    """oneDNN leaves out what meets padding, whose zeros would make NaN of infinity; what is unfolded multiplies it."""
    channels, out, groups = shape
    x, w = torch.randn(2, channels, 12, 12, generator=_generator), torch.randn(out, channels // groups, 3, 3, generator=_generator)
    w[0, 0, 0, 0], w[1, 0, 1, 2], w[-1, -1, 2, 1] = math.nan, math.inf, -math.inf
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    args = [x, w, torch.randn(out, generator=_generator), [1, 1], [1, 1], [1, 1], False, [0, 0], groups]
    for mkldnn in (True, False):
        with torch.backends.mkldnn.flags(enabled=mkldnn):
            assert unequal("aten.convolution.default", args, mkldnn=mkldnn) == 0


@DTYPES
@pytest.mark.parametrize("name", ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"))
def test_a_dimension_that_keeps_its_size_is_not_resized(name: str, dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 10, 6, dtype=dtype, generator=_generator)
    x[0, 0, 1, 3], x[0, 1, 4, 0] = math.nan, math.inf
    for size, scales in (((10, 6), (None, 0.5)), ((8, 6), (0.8, 1.3)), ((10, 4), (2.0, None)), ((10, 1), (None, None))):
        for args in ([x, size, False, *scales], [x, size, True, *scales]):
            got, want = in_c(f"aten.{name}.default", args)[0], in_torch(f"aten.{name}.default", args)[0]
            torch.testing.assert_close(got, want, equal_nan=True)
