"""softmax, log_softmax and prod, every bit against torch: along each dimension, widths around the vectors, rows beyond what is widened as a
whole, more elements than one thread's share, under each capability and several threads."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch
from test_rounding_like_torch import BF16, F16, F32, F64, made, unequal

SHAPES = ([1], [7], [16], [33], [9, 15], [3, 8, 17], [2, 31, 33], [70, 64], [5, 65, 70], [2, 9001], [9001, 3], [300, 3, 130], [2, 130, 300])


def same(name, x, *args):
    """Ours and torch's, of the same strides."""
    op, overload = name.split(".")
    wanted = getattr(getattr(torch.ops.aten, op), overload)(x, *args)
    assert unequal(made(f"aten.{name}", x, *args)[0], wanted) == 0, (name, list(x.shape), x.stride(), args)


@pytest.mark.parametrize("dtype", (F32, BF16, F16), ids=str)
@pytest.mark.parametrize("op", ("_softmax", "_log_softmax"))
def test_every_dimension(op, dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        x = (torch.randn(shape) * 3).to(dtype)
        for dim in range(len(shape)):
            same(f"{op}.default", x, dim, False)
            same(f"{op}.default", x.transpose(0, -1), dim, False)
        x.view(-1)[::13] = -torch.inf
        x.view(-1)[x.numel() // 2] = torch.nan
        same(f"{op}.default", x, 0, False)


@pytest.mark.parametrize("dtype", (F32, F64, BF16, F16), ids=str)
def test_every_dimension_of_products(dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        x = (torch.randn(shape, dtype=F64) * 0.1 + 1).to(dtype)
        for layout in (x, x.transpose(0, -1), x[..., ::2]):
            same("prod.default", layout)
            for dim in range(len(shape)):
                same("prod.dim_int", layout, dim)


def test_a_product_of_halves_rounded_once_would_be_seen():
    x = (torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 0.1 + 1).to(BF16)
    assert unequal(x.float().prod(1).to(BF16), x.prod(1)) > 20


def test_sums_in_one_order_for_all_would_be_seen():
    """F32's order on halves, rounded once, is not what torch computes."""
    torch.manual_seed(0)
    x = (torch.randn(70, 65) * 3).to(BF16)
    for op, dim in (("_softmax", 0), ("_log_softmax", 1)):
        once = getattr(torch.ops.aten, op)(x.float(), dim, False).to(BF16)
        assert unequal(once, getattr(torch.ops.aten, op)(x, dim, False)) > 20
        assert unequal(made(f"aten.{op}.default", x, dim, False)[0], getattr(torch.ops.aten, op)(x, dim, False)) == 0


@pytest.mark.parametrize("dtype", (F32, F64, BF16, F16), ids=str)
def test_every_dimension_of_sums_that_do_not_merge(dtype):
    torch.manual_seed(0)
    for shape in ([3, 5, 7], [20, 40, 70], [2, 3, 40, 33]):
        x = (torch.randn(shape) * 3).to(dtype)
        for layout in (x[..., :-1], x[:, 1:], x.transpose(0, 1), x.transpose(0, -1)[:, 1:], x.transpose(1, -1)[::2, :, 1:-1]):
            same("sum.default", layout)
            same("mean.default", layout)
            for dims in itertools.combinations(range(len(shape)), 2):
                same("sum.dim_IntList", layout, list(dims))
                same("mean.dim", layout, list(dims))


def test_sums_of_halves_rounded_after_each_row_would_be_seen():
    x = (torch.randn(20, 30, 50, generator=torch.Generator().manual_seed(0)) * 3).to(BF16)[..., :-1]
    rounded = torch.zeros(20, dtype=BF16)
    for row in x.sum(2).unbind(1):
        rounded += row
    assert unequal(rounded, x.sum((1, 2))) > 10
    assert unequal(made("aten.sum.dim_IntList", x, [1, 2])[0], x.sum((1, 2))) == 0


@pytest.mark.parametrize("capability,threads", [("default", 3), ("avx2", 2), ("avx512", 3)])
def test_under_other_settings(capability, threads):
    """The reference chooses its code when it starts, so each setting has its own process."""
    environment = dict(os.environ, ATEN_CPU_CAPABILITY=capability, OMP_NUM_THREADS=str(threads))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "test_every_dimension"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.fixture(params=(1, 2, 3))
def threads(request):
    """Of some products of BF16 the library gives each thread a share of the terms."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def halves(*shape, turned=False):
    """Random BF16; turned: its last two dimensions lie by columns."""
    shape = shape[:-2] + shape[:-3:-1] if turned else shape
    x = torch.randn(shape).bfloat16()
    return x.transpose(-1, -2) if turned else x


@pytest.mark.parametrize(("M", "N", "K"), ((64, 64, 2048), (2, 1000, 2048), (17, 33, 191), (2, 2, 3)))
def test_products_of_bf16_into_columns_and_gaps(M, N, K, threads):
    """Into memory of these layouts the reference asks for the product itself, else for its transpose: other bits."""
    torch.manual_seed(1)
    unlike = 0
    for turned in (False, True):
        for _ in range(3):
            a, b = halves(M, K, turned=turned), halves(K, N, turned=turned)
            for size, strides in ((M * N, (N, 1)), (M * N, (1, M)), (2 * M * N, (2 * N, 2)), (2 * M * N, (1, 2 * M))):
                ours, theirs = (torch.zeros(size, dtype=BF16).as_strided((M, N), strides) for _ in range(2))
                torch.mm(a, b, out=theirs)
                assert unequal(made("aten.mm.out", a, b, out=ours)[0], theirs) == 0, strides
                unlike += not torch.equal(theirs, torch.mm(a, b))
    assert unlike > 0 or (M, N, K) != (64, 64, 2048)


@pytest.mark.parametrize(("M", "N", "K"), ((1000, 1, 2048), (64, 64, 4096), (48, 96, 2048)))
def test_products_of_bf16_that_are_cut_along_their_terms(M, N, K, threads):
    """Of a single column, which is made as a row; of a transposed matrix, of which each thread may sum its share."""
    torch.manual_seed(2)
    for repeat in range(8):
        a, b = halves(M, K, turned=N > 1), halves(K, N, turned=repeat % 2 > 0)
        same("mm.default", a, b)
        same("addmm.default", halves(M, N), a, b)


@pytest.mark.parametrize("count", (1, 2))
def test_stacks_of_bf16_into_columns_and_gaps(count, threads):
    """Into memory whose rows are not dense oneDNN sums by plain loops, and new memory gets other bits."""
    torch.manual_seed(3)
    unlike = 0
    for turned in (False, True):
        a, b = halves(count, 64, 2048, turned=turned), halves(count, 2048, 64)
        same("bmm.default", a, b)
        same("bmm.default", a, b[..., :1].contiguous())
        for strides in ((4096, 1, 64), (8192, 128, 2), (8192, 128, 1)):
            ours, theirs = (torch.zeros(8192 * count, dtype=BF16).as_strided((count, 64, 64), strides) for _ in range(2))
            torch.bmm(a, b, out=theirs)
            assert unequal(made("aten.bmm.out", a, b, out=ours)[0], theirs) == 0, strides
            unlike += not torch.equal(theirs, torch.bmm(a, b))
            ours.copy_(theirs)
            theirs.baddbmm_(a, b, beta=0.5, alpha=3)
            assert unequal(made("aten.baddbmm_.default", ours, a, b, beta=0.5, alpha=3)[0], theirs) == 0, strides
    assert unlike > 0
