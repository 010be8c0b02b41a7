"""Factorisations, systems of equations and products with vectors: torch's bits with its library, near them without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bits import equal_bits, in_c, in_torch
from porting import _core, providers

SIZES = [(1, 1), (3, 3), (16, 16), (40, 40), (7, 4), (33, 65), (2, 5, 5), (3, 2, 9, 6)]


def layouts(shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """The same sizes row-major, column-major and with gaps."""
    generator = torch.Generator().manual_seed(sum(shape))
    make = lambda *s: torch.randn(s, generator=generator, dtype=dtype)  # noqa: E731
    return [make(*shape), make(*shape).mT.contiguous().mT, make(*shape[:-1], 2 * shape[-1])[..., ::2]]


def symmetric(x: torch.Tensor) -> torch.Tensor:
    return x @ x.mT + torch.eye(x.shape[-2], dtype=x.dtype)


def calls(x: torch.Tensor):
    """Every op on a matrix, with the arguments that fit it. (name, args, kwargs, needs the library)."""
    yield "aten.linalg_lu_factor_ex.default", [x], {}, False
    yield "aten.linalg_qr.default", [x, "reduced"], {}, False
    yield "aten.linalg_qr.default", [x, "complete"], {}, False
    yield "aten.geqrf.default", [x], {}, False
    if x.shape[-2] >= x.shape[-1]:
        yield "aten.linalg_householder_product.default", list(torch.geqrf(x)), {}, False
    yield "aten._linalg_svd.default", [x, True], {}, True
    yield "aten._linalg_svd.default", [x, False, False], {}, True
    if x.ndim == 2:
        yield "aten.mv.default", [x, x[0].contiguous()], {}, False
        yield "aten.addmv.default", [x[:, 0], x, x[0]], {"beta": 0.5, "alpha": 2}, False
        yield "aten.dot.default", [x[0], x[-1]], {}, False
    s = symmetric(x)
    for upper in (True, False):
        yield "aten.linalg_cholesky_ex.default", [s], {"upper": upper}, False
    yield "aten._linalg_eigh.default", [s, "U"], {}, True
    if x.shape[-1] == x.shape[-2]:
        a = x + 2 * x.shape[-1] * torch.eye(x.shape[-1], dtype=x.dtype)
        for name in ("linalg_inv_ex", "_linalg_det", "_linalg_slogdet"):
            yield f"aten.{name}.default", [a], {}, False
        yield "aten._linalg_solve_ex.default", [a, x], {}, False
        yield "aten._linalg_solve_ex.default", [a, x[..., :2].mT], {"left": False}, False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_bits_with_the_library_and_bounds_without(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    provider, _ = providers.use_provider("torch")
    done = set()
    for x in layouts(shape, dtype):
        for name, args, kwargs, library in calls(x):
            where = f"{name} {tuple(x.shape)}/{x.stride()} {kwargs}"
            theirs = in_torch(name, args, kwargs)
            mine = in_c(name, args, kwargs, provider)
            product = "det" in name and x.shape[-1] > 16  # of more factors than one vector
            for got, want in zip(mine, theirs, strict=True):
                if not product:
                    assert equal_bits(got, want), where
            if library:
                with pytest.raises(_core.UnsupportedError, match="only the torch provider's library"):
                    in_c(name, args, kwargs, "reference")
                continue
            for got, want in zip(in_c(name, args, kwargs, "reference"), theirs, strict=True):
                bound = 3e-4 if dtype == torch.float32 else 1e-12
                torch.testing.assert_close(got, want, rtol=bound, atol=bound * float(want.abs().max()) if want.numel() else 0.0, msg=where)
            done.add(name)
    assert len(done) >= 3


def test_a_wrong_bit_is_seen() -> None:
    x = torch.eye(3)
    assert equal_bits(x, x.clone()) and not equal_bits(x, x.index_fill(0, torch.tensor([1]), 1e-30))
    assert not equal_bits(x, x.double())


@pytest.mark.parametrize("provider", ["reference", "torch"])
def test_what_cannot_be_solved_is_told(provider: str) -> None:
    provider, _ = providers.use_provider(provider)
    singular, indefinite = torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    assert in_c("aten.linalg_inv_ex.default", [singular], {}, provider)[1] == 2
    infos = in_c("aten.linalg_cholesky_ex.default", [indefinite], {}, provider)[1]
    assert infos.tolist() == [0, 2]
    with pytest.raises((_core.PortingError, ValueError), match=r"linalg.cholesky failed for matrix 1: LAPACK's info is 2"):
        _core.call_op("aten._linalg_check_errors.default", [infos.numpy(), "linalg.cholesky"], {"is_matrix": False})


@pytest.mark.parametrize("name", ["_linalg_eigh", "_linalg_svd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_has_no_decomposition(name: str, value: float) -> None:
    provider, _ = providers.use_provider("torch")
    stack = torch.eye(4).repeat(2, 1, 1)
    assert in_c(f"aten.{name}.default", [stack], {}, provider)[0].isfinite().all()
    stack[1] = value
    with pytest.raises(torch.linalg.LinAlgError):
        in_torch(f"aten.{name}.default", [stack], {})
    with pytest.raises(ValueError, match="matrix 1 has no decomposition"):
        in_c(f"aten.{name}.default", [stack], {}, provider)


@pytest.mark.parametrize(("name", "args", "message"), [
    ("linalg_inv_ex", [torch.ones(2, 3)], "expected square matrices"),
    ("_linalg_det", [torch.ones(3)], "got a tensor of 1 dimensions"),
    ("_linalg_solve_ex", [torch.eye(3), torch.ones(4, 2)], "do not fit"),
    ("linalg_lu_solve", [torch.eye(2), torch.tensor([1, 3], dtype=torch.int32), torch.ones(2, 1)], "pivot 1 is 3, there are 2 rows"),
    ("linalg_lu_solve", [torch.eye(2), torch.tensor([1], dtype=torch.int32), torch.ones(2, 1)], "do not fit"),
    ("linalg_qr", [torch.ones(2, 2), "r2"], "the mode is r2"),
    ("linalg_cholesky_ex", [torch.ones(2, 2, dtype=torch.int64)], "matrices of I64"),
    ("mv", [torch.ones(2, 2), torch.ones(3)], "expected a matrix"),
    ("addmv", [torch.ones(3), torch.ones(2, 2), torch.ones(2)], "does not broadcast"),
    ("dot", [torch.ones(2), torch.ones(3)], "two vectors of one length"),
    ("addbmm", [torch.ones(2, 2), torch.ones(2, 2, 2), torch.ones(3, 2, 2)], "as many matrices"),
])  # fmt: skip
def test_bad_operands_are_refused(name: str, args: list[Any], message: str) -> None:
    with pytest.raises((_core.PortingError, ValueError), match=message):
        in_c(f"aten.{name}.default", args, {}, "reference")
