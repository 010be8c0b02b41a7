"""The bits of ops that hang on how an operand, or the memory that a result goes into, lies: the same as torch's."""

from __future__ import annotations

import functools

import pytest
import torch
from bits import equal_bits, in_c, in_torch
from porting import providers

_generator = torch.Generator().manual_seed(11)
randn = functools.partial(torch.randn, generator=_generator)


def columns(t: torch.Tensor) -> torch.Tensor:
    """The same matrices, column by column in memory."""
    return t.mT.contiguous().mT


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def differ(name: str, args: list, **kwargs) -> list[int]:
    """The results whose bits differ; each side changes its own copy of the first operand."""
    provider, _ = providers.use_provider("torch")
    in_place = name.split(".")[1].endswith("_")
    ours, torchs = (args[0].clone(memory_format=torch.preserve_format) if in_place else args[0] for _ in range(2))
    mine = in_c(name, [ours, *args[1:]], kwargs, provider=provider, mkldnn=True)
    theirs = in_torch(name, [torchs, *args[1:]], kwargs)
    return [k for k, (got, want) in enumerate(zip(mine, theirs, strict=True)) if not equal_bits(got, want)]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_products_into_columns(threads: int, dtype: torch.dtype) -> None:
    for M, K, N in ((2, 2, 3), (5, 5, 10), (8, 16, 24), (17, 40, 33)):
        for a, b in ((randn(3, M, K), randn(3, K, N)), (columns(randn(3, M, K)), columns(randn(3, K, N)))):
            for scales in ({}, {"beta": 0.2, "alpha": 0.6}):
                c, stack, (a, b) = columns(randn(M, N).to(dtype)), columns(randn(3, M, N).to(dtype)), (a.to(dtype), b.to(dtype))
                assert not differ("aten.addmm_.default", [c, a[0], b[0]], **scales), (M, K, N, scales)
                assert not differ("aten.addbmm_.default", [c, a, b], **scales), (M, K, N, scales)
                assert not differ("aten.baddbmm_.default", [stack, a, b], **scales), (M, K, N, scales)


def test_rows_and_columns_are_told_apart() -> None:
    """That these sizes tell them apart is what makes the test above one: the same numbers into rows are other bits."""
    unlike = 0
    for M, K, N in ((2, 2, 3), (5, 5, 10), (8, 16, 24), (17, 40, 33)):
        c, a, b = randn(M, N), randn(M, K), randn(K, N)
        unlike += not equal_bits(columns(c).addmm_(a, b), c.clone().addmm_(a, b))
    assert unlike > 0


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.complex64), ids=str)
def test_traces(dtype: torch.dtype) -> None:
    for n in (0, 1, 3, 5, 17, 40, 100, 1000):
        x = randn(n, n + 1).to(dtype)
        for matrix in (x, columns(x), x[:, ::2]):
            assert not differ("aten.trace.default", [matrix]), (n, matrix.stride())
    assert int(in_c("aten.trace.default", [torch.tensor([[2, 9], [9, -5]])])[0]) == -3


def test_batches_of_no_more_elements_than_threads(threads: int) -> None:
    for n in (2, 3):
        for channels in (1, 5, 16, 17, 40):
            for _ in range(5):
                x = randn(n, channels) * 9
                assert not differ("aten.native_batch_norm.default", [x, None, None, None, None, True, 0.5, 1e-5]), (n, channels)


@pytest.mark.parametrize(
    ("dtype", "param"),
    [(torch.float64, torch.float64), *((half, param) for half in (torch.bfloat16, torch.float16) for param in (half, torch.float32))], ids=str,
)  # fmt: skip
def test_statistics_of_batches(threads: int, dtype: torch.dtype, param: torch.dtype) -> None:
    for shape in ((2, 40), (3, 64), (3, 8, 1), (6, 3, 33), (2, 5, 7, 9), (1, 16, 12, 11), (2, 20, 24, 24)):
        for _ in range(3):
            x, weight, bias = (randn(shape) * 3 + 1).to(dtype), randn(shape[1]).to(param), randn(shape[1]).to(param)
            for laid in (x, x.contiguous(memory_format=torch.channels_last)) if x.ndim == 4 else (x,):
                assert not differ("aten.native_batch_norm.default", [laid, weight, bias, None, None, True, 0.1, 1e-5]), (shape, laid.stride())


@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16), ids=str)
def test_batches_of_halves_with_gaps(threads: int, half: torch.dtype) -> None:
    """Means in the parameters' dtype, and no result is -0. Inverses beside F32 parameters are near only."""
    for shape in ((4, 3, 50), (2, 5, 7, 9), (2, 20, 24, 24)):
        x, weight = torch.repeat_interleave(randn(shape) * 3 + 1, 2, -1).to(half)[..., ::2], randn(shape[1])
        assert not differ("aten.native_batch_norm.default", [x, weight.to(half), None, None, None, True, 0.1, 1e-5]), shape
        assert 1 not in differ("aten.native_batch_norm.default", [x, weight, None, None, None, True, 0.1, 1e-5]), shape


def test_the_order_of_a_batch_is_seen() -> None:
    """Statistics that are summed up in another order, or in double, are told from torch's."""
    x, weight = (randn(2, 20, 24, 24) * 3 + 1).half(), torch.ones(20)
    _, mean, inverse = torch.ops.aten.native_batch_norm(x, weight, None, None, None, True, 0.1, 1e-5)
    _, other_mean, other_inverse = torch.ops.aten.native_batch_norm(x.double(), None, None, None, None, True, 0.1, 1e-5)
    assert not equal_bits(mean, other_mean.float()) and not equal_bits(inverse, other_inverse.float())
    last = torch.ops.aten.native_batch_norm(x.contiguous(memory_format=torch.channels_last), weight, None, None, None, True, 0.1, 1e-5)
    assert not equal_bits(inverse, last[2])
