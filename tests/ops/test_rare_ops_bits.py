"""Ops that few models use, every bit against torch, over their modes and dtypes: grids, bags, histograms, batch norms, halves."""

from __future__ import annotations

import math

import pytest
import torch
from porting import _core
from porting.ops_table import promise
from porting.providers import load_torch_provider
from test_rounding_like_torch import BF16, F16, F32, F64, made, unequal

load_torch_provider()
FLOATS = pytest.mark.parametrize("dtype", (F32, F64, BF16, F16), ids=str)


def same(op, *args, **named):
    """The results of an op, ours and torch's, must be equal in every bit."""
    overload = torch.ops.aten
    for part in op.split("."):
        overload = getattr(overload, part)
    theirs = overload(*(a.clone(memory_format=torch.preserve_format) if isinstance(a, torch.Tensor) else a for a in args), **named)
    theirs = [theirs] if isinstance(theirs, torch.Tensor) else theirs
    ours = made(f"aten.{op}", *args, **named)
    assert len(ours) == len(theirs)
    for mine, wanted in zip(ours, theirs):
        assert unequal(mine, wanted) == 0, (op, [list(a.shape) if isinstance(a, torch.Tensor) else a for a in args], named)


@FLOATS
@pytest.mark.parametrize("spatial", (2, 3))
def test_grids_in_every_mode(spatial, dtype):
    torch.manual_seed(0)
    for shape in ((5, 7), (1, 1), (30, 41)):
        x = torch.randn(2, 3, *([4] if spatial == 3 else []), *shape).to(dtype)
        grid = (torch.rand(2, *([2] if spatial == 3 else []), 5, 9, spatial) * 3 - 1.5).to(dtype)
        grid.view(-1)[:8] = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -7.0, 1.0, -1.0, 0.0]).to(dtype)
        for mode in range(3 if spatial == 2 else 2):
            for padding in range(3):
                for corners in (True, False):
                    same(f"grid_sampler_{spatial}d.default", x, grid, mode, padding, corners)


def test_a_grid_rounded_once_would_be_seen():
    torch.manual_seed(0)
    x, grid = torch.randn(1, 3, 9, 9).to(BF16), (torch.rand(1, 5, 9, 2) * 2 - 1).to(BF16)
    once = torch.grid_sampler_2d(x.float(), grid.float(), 0, 0, False).to(BF16)
    assert unequal(once, torch.grid_sampler_2d(x, grid, 0, 0, False)) > 20


@FLOATS
@pytest.mark.parametrize("op", ("_embedding_bag", "_embedding_bag_forward_only"))
def test_bags(op, dtype):
    torch.manual_seed(0)
    weight, index, scale = torch.randn(5, 37).to(dtype), torch.tensor([0, 2, 1, 4, 2, 3]), torch.randn(6).to(dtype)
    for mode in (0, 1, 2):
        for last, offset in ((False, torch.tensor([0, 2, 2])), (True, torch.tensor([0, 2, 2, 6]))):
            for padding in (-1, 2):
                for scales in (None, scale) if mode == 0 else (None,):
                    same(f"{op}.default", weight, index, offset, False, mode, False, scales, last, padding)
    same(f"{op}.default", weight.t().contiguous().t(), index, torch.tensor([0, 2]), False, 1)


def test_a_bag_of_bf16_rounded_to_even_would_be_seen():
    torch.manual_seed(0)
    weight, index = torch.randn(50, 64).to(BF16), torch.arange(50)
    even = torch.stack([weight.float()[k : k + 2].sum(0) for k in range(0, 50, 2)]).to(BF16)
    assert unequal(even, torch._embedding_bag(weight, index, torch.arange(0, 50, 2))[0]) > 20


@FLOATS
def test_histograms_count_in_the_dtype(dtype):
    torch.manual_seed(0)
    for bins in (1, 7, 100):
        for low, high in ((0, 0), (-10, 10), (-1.3, 2.7), (5, 6)):
            for n in (0, 5, 3000):
                same("histc.default", (torch.randn(n) * 3).to(dtype), bins, low, high)


@FLOATS
def test_outer_products_logits_and_neighbours(dtype):
    torch.manual_seed(0)
    x, y = (torch.rand(5, 200) * 8 - 4).to(dtype), torch.randn(5, 200).to(dtype)
    y[0, :9] = x[0, :9]
    x[1, :7] = torch.tensor([0.0, -0.0, math.inf, math.nan, -math.inf, 1e-45, 65504.0]).to(dtype)
    same("nextafter.default", x, y)
    for eps in (None, 1e-3, 0.2) if dtype != F64 else ():
        same("logit.default", torch.rand(5, 200).to(dtype), eps)
    for op in ("addcmul", "addcdiv"):
        same(f"{op}.default", x, y, x.flip(0), value=0.3)
    for weight in (0.2, 0.7):
        same("lerp.Scalar", x, y, weight)
    same("lerp.Tensor", x, y, y.flip(0))
    for beta, alpha in ((1, 1), (0.6, 0.2), (0, 0.3)):
        if dtype in (BF16, F16):
            same("addr.default", torch.randn(50, 70).to(dtype), torch.randn(50).to(dtype), torch.randn(70).to(dtype), beta=beta, alpha=alpha)


def test_outer_products_of_bool():
    torch.manual_seed(0)
    some = lambda *shape: torch.rand(*shape) < 0.5  # noqa: E731
    for beta, alpha in ((1, 1), (3, 2), (0, 1), (True, False), (0, 0)):
        same("addr.default", some(5, 7), some(5), some(7), beta=beta, alpha=alpha)


def laid_out(x):
    yield x
    yield x.transpose(0, -1).contiguous().transpose(0, -1)
    if x.ndim == 4:
        yield x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("shape", ((4, 3, 5, 7), (2, 40, 8, 8), (33, 17), (2, 6, 33), (2, 4, 3, 3, 3)), ids=str)
def test_batch_norms(shape, training):
    torch.manual_seed(0)
    weight, bias, mean, var = torch.rand(shape[1]), torch.randn(shape[1]), torch.randn(shape[1]), torch.rand(shape[1])
    for x in laid_out(torch.randn(shape) * 2 + 1):
        for eps in (1e-5, 0.5):
            same("native_batch_norm.default", x, weight, bias, mean, var, training, 0.1, eps)
            same("native_batch_norm.default", x, None, None, mean, var, training, 0.1, eps)
            same("_native_batch_norm_legit.no_stats", x, None, bias, True, 0.1, eps)
    for x in laid_out((torch.randn(shape) * 2 + 1).to(BF16)):
        same("_native_batch_norm_legit.no_stats", x, weight.to(BF16), bias.to(BF16), True, 0.1, 1e-5)


def test_statistics_that_were_not_rounded_would_be_seen():
    torch.manual_seed(0)
    x = (torch.randn(4, 3, 5, 7) * 2 + 1).to(BF16)
    once = torch.nn.functional.batch_norm(x.float(), None, None, training=True).to(BF16)
    assert unequal(once, torch.nn.functional.batch_norm(x, None, None, training=True)) > 20


def test_norms_of_a_number():
    torch.manual_seed(0)
    for _ in range(30):
        for dims in ([0], [-1], None):
            same("linalg_vector_norm.default", 3 * torch.randn(()), 3, dims)


def test_a_power_and_its_root_are_not_the_size():
    torch.manual_seed(0)
    x = 3 * torch.randn(200)
    assert sum(torch.linalg.vector_norm(v, 3, 0) != v.abs() for v in x) > 5


def test_distances_of_points():
    torch.manual_seed(0)
    for points, width in ((5, 2), (30, 7), (4, 300)):
        for batch in ((), (3,), (2, 3)):
            x, y = torch.randn(*batch, points, width), torch.randn(*batch, 40, width)
            same("_euclidean_dist.default", x, y)
            if points * width < 300:
                same("_cdist_forward.default", x, y, 2.0, None)


def test_lines_of_every_dtype():
    for dtype in (F32, F64, BF16, F16):
        for start, end in ((0, 10), (-2.0, 3.0), (0.1, 1.0), (5, 0)):
            for steps in (0, 1, 2, 5, 33, 100):
                same("linspace.default", start, end, steps, dtype=dtype)


@pytest.mark.parametrize("dtype", (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool), ids=str)
def test_extremes_of_integers(dtype):
    torch.manual_seed(0)
    draw = lambda *shape: (torch.rand(*shape) * (2 if dtype == torch.bool else 100)).to(dtype)  # noqa: E731
    x, index = draw(10, 5), torch.randint(0, 10, (5, 5))
    for op in ("max", "min"):
        same(f"{op}.dim", x, 0)
    for reduce in ("amax", "amin"):
        for include in (True, False):
            same("scatter_reduce.two", x, 0, index, draw(5, 5), reduce, include_self=include)
    if dtype != torch.bool:
        same("max_pool2d_with_indices.default", draw(2, 3, 9, 8), [3, 3], [2, 2], [1, 1])
    if dtype == torch.uint8:
        same("upsample_nearest2d.default", draw(2, 3, 9, 8), [5, 17])
        same("_upsample_nearest_exact2d.default", draw(2, 3, 9, 8), [5, 17])


def test_integers_that_double_does_not_hold_are_refused():
    with pytest.raises(_core.PortingError, match="2\\^53"):
        made("aten.max_pool2d_with_indices.default", torch.tensor([[[2**53 + 1, 3], [4, 5]]]), [2, 2])


def test_pseudo_inverses():
    torch.manual_seed(0)
    for shape in ((4, 4), (7, 3), (3, 7), (2, 5, 5), (2, 3, 4, 6)):
        for dtype in (F32, F64):
            same("linalg_pinv.atol_rtol_tensor", torch.randn(shape).to(dtype))
    for shape in ((4, 4), (2, 5, 5)):
        x = torch.randn(shape)
        same("linalg_pinv.atol_rtol_tensor", x + x.mT, hermitian=True)
    x = torch.randn(5, 4)
    assert unequal(made("aten.linalg_pinv.atol_rtol_tensor", x, rtol=torch.tensor(0.5, dtype=F64))[0], torch.linalg.pinv(x)) > 0


@FLOATS
def test_cross_products_logarithms_and_norms_brought_down(dtype):
    torch.manual_seed(0)
    for shape, dim in (([3, 40], 0), ([7, 3, 5], 1), ([80, 3], 1)):
        a, b = torch.randn(2, *shape).to(dtype)
        same("linalg_cross.default", a, b, dim=dim)
        same("linalg_cross.default", a.t().contiguous().t() if a.ndim == 2 else a, b, dim=dim)
        same("xlogy.Tensor", a, b.abs())
        if dtype != F64:  # norms in double are bounded
            same("renorm.default", a, 2, 0, 1.5)
    x = torch.tensor([0.0, 1, torch.nan, -1, 2]).to(dtype)
    same("xlogy.Tensor", x, x.flip(0))


@pytest.mark.parametrize("dtype", (F32, BF16, F16), ids=str)
def test_interpolation_and_means_of_windows(dtype):
    torch.manual_seed(0)
    for corners in (True, False):
        same("upsample_linear1d.default", torch.randn(2, 3, 9).to(dtype), [31], corners)
        same("upsample_bicubic2d.default", torch.randn(2, 3, 5, 9).to(dtype), [8, 13], corners)
        same("upsample_trilinear3d.default", torch.randn(2, 3, 3, 5, 6).to(dtype), [4, 7, 9], corners)
    for sizes in ([1, 1, 1], [3, 2, 4]):
        same("_adaptive_avg_pool3d.default", torch.randn(2, 3, 5, 6, 7).to(dtype), sizes)


def test_weights_in_full_would_be_seen():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9).to(BF16)
    assert unequal(torch.ops.aten.upsample_linear1d(x.float(), [31], True).to(BF16), torch.ops.aten.upsample_linear1d(x, [31], True)) > 20


@pytest.mark.parametrize(("dtype", "norms"), ((F32, (1e-3, 0.54, 1.2, 4.0, 40.0)), (F64, (1e-3, 0.0468, 0.2, 4.0, 40.0))), ids=str)
def test_exponentials_of_matrices_keep_their_promise_and_need_it(dtype, norms):
    torch.manual_seed(8)
    label, unit, worst = promise("aten.linalg_matrix_exp.default", str(dtype)[6:].replace("float", "F")), torch.finfo(dtype).eps / 2, 0.0
    for size in range(2, 7):
        for norm in norms * 8:
            x = torch.randn(size, size, dtype=dtype)
            x *= norm / x.abs().sum(0).max()
            (mine,), theirs = made("aten.linalg_matrix_exp.default", x), torch.linalg.matrix_exp(x)
            whole = torch.linalg.matrix_exp(x.abs().double()).abs().sum(0).max() * (1 + norm) * unit
            worst = max(worst, float((mine.double() - theirs.double()).abs().max() / whole))
    assert label.kind == "BOUND" and "|e^|A||" in label.unit
    assert 16 < worst <= label.ulp
