"""torch.special's rare functions beside torch: inside their domain, at poles and ends, and degrees that would take for ever."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from porting import _core

ENDS = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-8, 0.5, -0.5, 8.0, -8.0, 30.0, 2.0])


def pair(op: str, *args) -> tuple[torch.Tensor, torch.Tensor]:
    overload = torch.ops.aten
    for part in op.split("."):
        overload = getattr(overload, part)
    made = _core.call_op(f"aten.{op}", [a.numpy() if isinstance(a, torch.Tensor) else a for a in args], {})
    return torch.from_numpy(np.asarray(made)), overload(*args)


@pytest.mark.parametrize("name", "i0e i1 i1e erfcx log_ndtr ndtri modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 "
                         "scaled_modified_bessel_k0 scaled_modified_bessel_k1 bessel_j0 bessel_j1 bessel_y0 bessel_y1 spherical_bessel_j0".split())  # fmt: skip
def test_functions_of_one_number(name):
    torch.manual_seed(0)
    x = torch.cat([ENDS, torch.randn(200) * 3, torch.rand(100), torch.randn(50) * 15])
    ours, theirs = pair(f"special_{name}.default", x)
    torch.testing.assert_close(ours, theirs, rtol=4e-6, atol=4e-6, equal_nan=True)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours + 1e-4 * (1 + ours.abs()), theirs, rtol=4e-6, atol=4e-6, equal_nan=True)


@pytest.mark.parametrize("op", ("igamma", "igammac", "special_zeta"))
def test_functions_of_two_numbers_at_all_ends(op):
    torch.manual_seed(0)
    a = torch.cat([ENDS.repeat(len(ENDS)), torch.rand(300) * 20])
    b = torch.cat([ENDS.repeat_interleave(len(ENDS)), torch.rand(300) * 20])
    ours, theirs = pair(f"{op}.default", a, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert not torch.allclose(ours.nan_to_num(), pair(f"{op}.default", b, a)[1].nan_to_num())


def test_degrees_that_are_no_numbers_or_too_great_come_to_an_end():
    x = torch.tensor([0.3, 0.3, 0.3, 0.3, 1.0, -1.0])
    n = torch.tensor([3e38, math.inf, math.nan, -2.0, 7.0, 7.0])
    for name in ("chebyshev_polynomial_t", "legendre_polynomial_p"):
        ours, theirs = pair(f"special_{name}.default", x, n)
        torch.testing.assert_close(ours, theirs)
    ours, theirs = pair("special_chebyshev_polynomial_u.default", torch.tensor([0.3, -0.7]), torch.tensor(1e6))
    assert ours.isfinite().all()
    with pytest.raises(_core.PortingError, match="degree"):
        pair("special_laguerre_polynomial_l.default", torch.tensor([0.3]), torch.tensor([1e9]))


@pytest.mark.parametrize("name, x", [("shifted_chebyshev_polynomial_t", 1e-17), ("shifted_chebyshev_polynomial_w", 1e-17), ("chebyshev_polynomial_u", 1 + 2.0**-40)])
def test_great_degrees_at_the_ends_of_an_interval_come_to_an_end(name, x):
    """Where an argument only rounds to the end, or lies just beyond it, hardly anything grows; torch is not asked for that."""
    with pytest.raises(_core.PortingError, match=r"a polynomial of degree 2e\+08"):
        _core.call_op(f"aten.special_{name}.default", [np.array([x]), np.array([2e8])], {})
    for one, degree in ((x, 1e3), (0.3, 2e8), (0.0, 2e8), (3.0, 2e8), (1.00001, 2e8)):
        ours, theirs = pair(f"special_{name}.default", torch.tensor([one], dtype=torch.float64), torch.tensor([degree], dtype=torch.float64))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True)
    ours, theirs = pair(f"special_{name}.default", torch.tensor([1 + 2.0**-23]), torch.tensor([2e8]))
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_kaiser_windows():
    for length, periodic, beta in ((40, False, 8.0), (41, True, 14.0), (2, False, 1.0)):
        ours = torch.from_numpy(_core.call_op("aten.kaiser_window.beta", [length, periodic, beta], {}))
        torch.testing.assert_close(ours, torch.kaiser_window(length, periodic, beta), rtol=4e-6, atol=4e-6)
        assert not torch.allclose(ours, torch.kaiser_window(length, not periodic, beta))


def test_gammas_of_great_orders_are_neither_cut_short_nor_without_digits():
    a = torch.tensor([1e3, 2e4, 1e5, 2e5, 1e6, 1e8, 1e9, 1e10, 1e12], dtype=torch.float64).repeat_interleave(5)
    x = a + torch.tensor([-3.0, -0.4, 0.0, 0.001, 2.5], dtype=torch.float64).repeat(9) * a.sqrt()
    for dtype, digits in ((torch.float64, 1e-9), (torch.float32, 4e-6)):
        for op in ("igamma", "igammac"):
            ours, theirs = pair(f"{op}.default", a.to(dtype), x.to(dtype))  # in float the reference has few digits, and ours the same
            torch.testing.assert_close(ours, theirs, rtol=digits, atol=digits)
            assert not torch.allclose(ours, pair(f"{op}.default", a.to(dtype), (x + a.sqrt()).to(dtype))[1])
    ours, theirs = pair("igamma.default", torch.tensor([1e6, 1e300, 1e300], dtype=torch.float64), torch.tensor([0.5, 1e-300, 1.7e308], dtype=torch.float64))
    torch.testing.assert_close(ours, theirs)


def test_quantiles_as_far_out_as_numbers_go():
    p = torch.tensor([5e-324, 1e-322, 1e-310, 2e-308, 1e-300, 1e-289, 1e-100], dtype=torch.float64)
    ours, theirs = pair("special_ndtri.default", p)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0.0)
    assert theirs.isfinite().all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("name", "chebyshev_polynomial_t chebyshev_polynomial_u hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l "
                         "legendre_polynomial_p".split())  # fmt: skip
def test_polynomials_beyond_the_greatest_number_are_none(name, dtype):
    x = torch.tensor([2.0, 2.0, -2.0, 20.0, -20.0, 1e5, -1e6, 3.0, 2.0], dtype=dtype)
    n = torch.tensor([5.0, 2000.0, 2001.0, 900.0, 500.0, 400.0, 900.0, 4.0, 60.0], dtype=dtype)
    ours, theirs = pair(f"special_{name}.default", x, n)
    torch.testing.assert_close(ours, theirs, rtol=4e-6, atol=4e-6, equal_nan=True)
    assert theirs.isnan().any() and theirs.isfinite().any()
