"""Where torch rounds on the way: halves, factors, divisions to whole numbers, norms. Ops by themselves, every bit against torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from porting import _core

CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
PROFILE = {"capability": CAPABILITY if CAPABILITY in ("avx2", "avx512") else "default", "mkldnn": torch.backends.mkldnn.is_available()}
BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


def given(a):
    if isinstance(a, torch.Tensor):
        return a.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if a.dtype == BF16 else a.numpy()
    return {"dtype": {BF16: "BF16", F16: "F16", F32: "F32", F64: "F64"}[a]} if isinstance(a, torch.dtype) else a


def made(name, *args, **named):
    results = _core.call_op(name, [given(a) for a in args], {k: given(a) for k, a in named.items()}, num_threads=torch.get_num_threads(), **PROFILE)
    made = [np.asarray(r) for r in (results if isinstance(results, tuple) else [results])]
    return [torch.from_numpy(r.view(np.int16)).view(BF16) if r.dtype == ml_dtypes.bfloat16 else torch.from_numpy(r) for r in made]


def unequal(ours, theirs):
    """How many elements differ in a bit; a NaN is a NaN."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    differs = (ours != theirs) | (ours.signbit() != theirs.signbit()) if theirs.is_floating_point() else ours != theirs
    return int((differs & ~(ours.isnan() & theirs.isnan())).sum())


def pairs(dtype):
    """Operands in every layout for which torch has another loop, with rests of every length behind its vectors."""
    torch.manual_seed(0)
    rand = lambda *shape: (4 * torch.randn(*shape)).to(dtype)  # noqa: E731
    yield from ((rand(70, 67), rand(70, 67)), (rand(70, 67), rand(67)), (rand(70, 67), rand(70, 1)), (rand(67, 70).t(), rand(70, 67)))
    yield from ((rand(200)[::2], rand(100)), (rand(5, 1000), rand(1, 1)), (rand(1), rand(999)), (rand(1), rand(1)))
    yield from ((rand(n), rand(1)[0]) for n in range(960, 993))
    yield torch.tensor([0.0, -0.0, 1, torch.inf, torch.nan, -1, 5] * 20).to(dtype), torch.tensor([0.0, 3, -0.0, torch.inf, 2, -torch.inf, 0] * 20).to(dtype)


@pytest.mark.parametrize("dtype", (BF16, F16, F32, F64), ids=str)
@pytest.mark.parametrize("op", ("add", "sub", "rsub"))
def test_a_factor_is_rounded_and_fused_as_in_torch(op, dtype):
    for a, b in pairs(dtype):
        for alpha in (0.3, -3.125):
            assert unequal(made(f"aten.{op}.Tensor", a, b, alpha=alpha)[0], getattr(torch, op)(a, b, alpha=alpha)) == 0, (a.shape, b.shape, alpha)
    a = torch.randn(1003).to(dtype)
    assert unequal(made(f"aten.{op}.Scalar", a, 0.37, -3.125)[0], getattr(torch, op)(a, 0.37, alpha=-3.125)) == 0


@pytest.mark.parametrize("dtype", (BF16, F16), ids=str)
def test_a_factor_rounded_once_would_be_seen(dtype):
    a, b = next(pairs(dtype))
    assert unequal((a.float() + 0.3 * b.float()).to(dtype), torch.add(a, b, alpha=0.3)) > 100


@pytest.mark.parametrize("dtype", (BF16, F16, F32, F64), ids=str)
@pytest.mark.parametrize("mode", ("trunc", "floor"))
def test_whole_quotients_are_torchs(mode, dtype):
    for a, b in pairs(dtype):
        assert unequal(made("aten.div.Tensor_mode", a, b, rounding_mode=mode)[0], torch.div(a, b, rounding_mode=mode)) == 0, (a.shape, b.shape)
    a = (8 * torch.randn(65541)).to(dtype)
    for b in (0.37, 3, torch.randn(65541).to(dtype)):
        name = "aten.div." + ("Tensor_mode" if isinstance(b, torch.Tensor) else "Scalar_mode")
        assert unequal(made(name, a, b, rounding_mode=mode)[0], torch.div(a, b, rounding_mode=mode)) == 0


def test_a_quotient_not_rounded_to_a_half_would_be_seen():
    torch.manual_seed(0)
    a, b = (8 * torch.randn(65541)).to(BF16), torch.randn(65541).to(BF16)
    assert unequal((a.float() / b.float()).trunc().to(BF16), torch.div(a, b, rounding_mode="trunc")) > 100


@pytest.mark.parametrize("columns", (1, 2, 5, 17, 64, 67))
def test_layer_norm_with_either_or_no_weights(columns):
    torch.manual_seed(0)
    x, w, b = torch.randn(100, columns), torch.randn(columns), torch.randn(columns)
    for dtype in (F32,) if columns > 1 else (F32, BF16, F16):
        for weight, bias in ((None, None), (w, None), (None, b), (w, b)):
            args = (x.to(dtype), [columns], *(t if t is None else t.to(dtype) for t in (weight, bias)), 1e-5)
            for ours, theirs in zip(made("aten.native_layer_norm.default", *args), torch.native_layer_norm(*args)):
                assert unequal(ours, theirs) == 0, (dtype, weight is None, bias is None)


@pytest.mark.parametrize("columns", (16, 48, 128, 4096))
@pytest.mark.parametrize("dtype", (BF16, F16), ids=str)
def test_layer_norm_of_halves_in_whole_vectors(columns, dtype):
    torch.manual_seed(0)
    x, w, b = torch.randn(max(2, 16384 // columns), columns).to(dtype), torch.randn(columns).to(dtype), torch.randn(columns).to(dtype)
    for weight, bias in ((None, None), (w, None), (None, b), (w, b)):
        args = (x, [columns], weight, bias, 1e-5)
        for ours, theirs in zip(made("aten.native_layer_norm.default", *args), torch.native_layer_norm(*args)):
            assert unequal(ours, theirs) == 0, (weight is None, bias is None)


@pytest.mark.parametrize(("shape", "format"), [((50, 2), torch.contiguous_format)] + [
    (shape, format) for shape in ((5, 8, 1, 1), (5, 8, 3, 4), (2, 8, 40, 40)) for format in (torch.contiguous_format, torch.channels_last)])
def test_group_norm_with_either_or_no_weights(shape, format):
    torch.manual_seed(0)
    x, w, b = torch.randn(shape).contiguous(memory_format=format), torch.randn(shape[1]), torch.randn(shape[1])
    for weight, bias in ((None, None), (w, None), (None, b), (w, b)):
        args = (x, weight, bias, shape[0], shape[1], x[0, 0].numel(), 2, 1e-5)
        for ours, theirs in zip(made("aten.native_group_norm.default", *args), torch.native_group_norm(*args)):
            assert unequal(ours, theirs) == 0, (weight is None, bias is None)


@pytest.mark.parametrize("dtype", (BF16, F16), ids=str)
@pytest.mark.parametrize(("start", "step"), ((0, 1), (0.3, 0.7), (-3.7, 0.31), (-5, 3)))
def test_a_range_of_halves(dtype, start, step):
    for count in (5, 31, 33, 100, 1001, 10000):
        theirs = torch.arange(start, start + step * count, step, dtype=dtype)
        assert unequal(made("aten.arange.start_step", start, start + step * count, step, dtype=dtype)[0], theirs) == 0, count


@pytest.mark.parametrize("dtype", (BF16, F16, F32), ids=str)
@pytest.mark.parametrize("op", ("addmm", "baddbmm", "addbmm", "addmv"))
def test_products_of_no_terms_multiply_the_addend_by_a_rounded_number(op, dtype):
    torch.manual_seed(0)
    rand = lambda *shape: torch.randn(*shape).to(dtype)  # noqa: E731
    sizes = {"addmm": ((5, 40), (5, 0), (0, 40)), "baddbmm": ((2, 5, 40), (2, 5, 0), (2, 0, 40)), "addbmm": ((5, 40), (0, 5, 3), (0, 3, 40)),
             "addmv": ((200,), (200, 0), (0,))}[op]  # fmt: skip
    operands = [rand(*shape) for shape in sizes]
    for beta in (0.2, 1.1, 0):
        assert unequal(made(f"aten.{op}.default", *operands, beta=beta, alpha=0.6)[0], getattr(torch, op)(*operands, beta=beta, alpha=0.6)) == 0
    if dtype != F32:  # the number in full would be seen
        assert unequal((operands[0].float() * 1.1).to(dtype), getattr(torch, op)(*operands, beta=1.1)) > 10


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("dtype", (BF16, F16, F32), ids=str)
@pytest.mark.parametrize("reduce", ("mean", "prod"))
def test_halves_reduced_by_index_are_rounded_at_every_step(reduce, dtype):
    """Sums and products of lines, and the counts, which no longer grow from 256 of BF16 on."""
    torch.manual_seed(0)
    x, index = torch.randn(5, 6, 5).to(dtype), torch.randint(0, 4, (900,))
    source = (1 + torch.randn(5, 900, 5) / 30).to(dtype)
    for keep in (True, False):
        theirs = torch.index_reduce(x, 1, index, source, reduce, include_self=keep)
        assert unequal(made("aten.index_reduce.default", x, 1, index, source, reduce, include_self=keep)[0], theirs) == 0
        if dtype != F32:
            once = torch.index_reduce(x.float(), 1, index, source.float(), reduce, include_self=keep).to(dtype)
            assert unequal(once, theirs) > 20


@pytest.mark.parametrize("dtype", (BF16, F16), ids=str)
def test_means_in_halves_are_those_of_a_copy_in_float(dtype):
    """What has gaps, or repeats, has none in the copy, and numbers of another dtype are not rounded to halves before they are added."""
    torch.manual_seed(0)
    x = (3 * torch.randn(70, 3, 1030)).to(dtype)
    for laid in (x, x.repeat_interleave(2, -1)[..., ::2], x[:1].expand(70, 3, 1030), x.transpose(0, 2).repeat_interleave(2, -1)[..., ::2]):
        for dims in ([0], [1], [2], [0, 2], [1, 2]):
            assert unequal(made("aten.mean.dim", laid, dims)[0], laid.mean(dims)) == 0, (laid.stride(), dims)
    wide = torch.randn(40, 33)
    for given in (wide, wide.double(), wide.to(F16 if dtype == BF16 else BF16)):
        assert unequal(made("aten.mean.dim", given, [1], dtype=dtype)[0], given.mean(1, dtype=dtype)) == 0, given.dtype
    assert unequal(wide.to(dtype).mean(1), wide.mean(1, dtype=dtype)) > 0
