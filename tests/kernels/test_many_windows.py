"""Pooling, interpolation and sampling where many outputs are made at a time: rows longer than a stretch, strides, edges, views, with torch's bits on its threads."""

import pytest
import torch
from porting import _core
from test_wide_paths import array_of, same_as_torch, strewn

LAST = torch.channels_last


def layouts(x: torch.Tensor) -> list[torch.Tensor]:
    """Row-major, channels-last, every other column, a part of channels-last, rows and columns exchanged."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    more = torch.cat([x, x], 1).contiguous(memory_format=LAST)
    return [x, x.contiguous(memory_format=LAST), wide[..., ::2], more[:, : x.shape[1]], x.transpose(2, 3).contiguous().transpose(2, 3)]


POOLS = [  # kernel, stride, padding, dilation, ceil
    ([3, 3], [2, 2], [1, 1], [1, 1], False), ([3, 3], [1, 1], [1, 1], [1, 1], True), ([2, 5], [1, 3], [1, 2], [2, 1], False),
    ([1, 20], [1, 1], [0, 10], [1, 1], False), ([5, 4], [3, 7], [2, 2], [1, 3], True), ([7, 1], [1, 4], [3, 0], [1, 1], False),
]  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 5, 9, 70), (1, 3, 8, 300), (1, 66, 8, 21)])
def test_pools_of_any_window(shape):
    torch.manual_seed(0)
    for x in (strewn(*shape), torch.randn(shape), torch.full(shape, -torch.inf)):
        for laid in layouts(x):
            for kernel, stride, padding, dilation, ceil in POOLS:
                same_as_torch("max_pool2d_with_indices.default", [laid, kernel, stride, padding, dilation, ceil])
                for counted in (True, False):
                    same_as_torch("avg_pool2d.default", [laid, kernel, stride, padding, ceil, counted])
            same_as_torch("avg_pool2d.default", [laid, [3, 3], [2, 2], [1, 1], True, True, 5])


def test_pools_of_volumes_and_lines():
    torch.manual_seed(1)
    for x in (strewn(2, 5, 6, 7, 19), torch.randn(1, 20, 5, 6, 9).contiguous(memory_format=torch.channels_last_3d)):
        same_as_torch("max_pool3d_with_indices.default", [x, [3, 3, 3], [2, 2, 2], [1, 1, 1]])
        same_as_torch("max_pool3d_with_indices.default", [x, [2, 3, 2], [1, 1, 1], [1, 0, 1], [1, 2, 1], True])
        same_as_torch("avg_pool3d.default", [x, [3, 2, 3], [1, 2, 1], [1, 1, 1], False, False])
    for columns in (3, 20, 400):
        same_as_torch("avg_pool1d.default", [torch.randn(2, 7, columns), [3], [2], [1], True])


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 9])
def test_adaptive_sums_of_four_channels(channels):
    torch.manual_seed(2)
    x = strewn(2, channels, 11, 13)
    for sizes in ([1, 1], [4, 5], [11, 13], [2, 20]):
        for laid in (x, x[:, :, ::2]):
            same_as_torch("_adaptive_avg_pool2d.default", [laid, sizes])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_interpolation_of_any_layout(dtype):
    torch.manual_seed(3)
    for shape in ((2, 5, 9, 12), (1, 19, 6, 7), (1, 2, 5, 300), (1, 266, 4, 3)):
        x = torch.randn(shape, dtype=dtype)
        for laid in layouts(x):
            for sizes in ([13, 17], [5, 4], [9, 300], [150, 8]):
                for corners in (True, False):
                    same_as_torch("upsample_bicubic2d.default", [laid, sizes, corners])
                    if dtype == torch.float32:
                        same_as_torch("upsample_bilinear2d.default", [laid, sizes, corners])
                same_as_torch("upsample_nearest2d.default", [laid, sizes])
                same_as_torch("_upsample_nearest_exact2d.default", [laid, sizes])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_places_just_below_a_whole_one_count_as_it(dtype):
    torch.manual_seed(5)
    for inside, outside in (((4, 3), [6, 7]), ((16, 7), [48, 63]), ((13, 31), [23, 43]), ((10, 34), [78, 58])):
        x = torch.randn(2, 5, *inside, dtype=dtype)
        for laid in (x, x.contiguous(memory_format=LAST)):
            for name in ("upsample_bicubic2d.default", "upsample_bilinear2d.default"):
                same_as_torch(name, [laid, outside, False])
                same_as_torch(name, [laid, outside, False, 1.4, 1.1])  # places beyond the last


def test_interpolation_of_volumes_and_lines():
    torch.manual_seed(4)
    for channels in (2, 12):
        x = torch.randn(2, channels, 4, 5, 6)
        for laid in (x, x.contiguous(memory_format=torch.channels_last_3d)):
            for sizes in ([7, 9, 20], [4, 2, 6], [3, 5, 280]):
                same_as_torch("upsample_trilinear3d.default", [laid, sizes, False])
                same_as_torch("upsample_nearest3d.default", [laid, sizes])
    for columns in (5, 33, 700):
        same_as_torch("upsample_linear1d.default", [torch.randn(2, 3, 41), [columns], True])
        same_as_torch("upsample_nearest1d.default", [torch.randn(2, 3, 41), [columns]])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_corners_of_volumes_are_one_sum_where_channels_lie_side_by_side(dtype):
    torch.manual_seed(6)
    for shape in ((2, 3, 4, 3, 5), (2, 5, 4, 3, 5), (1, 19, 2, 4, 3), (2, 8, 1, 1, 1)):
        x = torch.randn(shape, dtype=dtype)
        last = x.contiguous(memory_format=torch.channels_last_3d)
        for laid in (x, last, last[..., ::2]):
            for corners in (True, False):
                same_as_torch("upsample_trilinear3d.default", [laid, [6, 3, 9], corners])


def test_few_channels_of_halves_are_one_sum_too():
    torch.manual_seed(7)
    for channels in (5, 12):
        for size in ([6, 7], [60, 90]):
            x = torch.randn(2, channels, 4, 3, 2 * channels).bfloat16()
            for laid, name in ((x.contiguous(memory_format=torch.channels_last_3d), "trilinear3d"), (x[:, :, 0].contiguous(memory_format=LAST), "bilinear2d")):
                for part in (laid, laid[..., ::2]):
                    same_as_torch(f"upsample_{name}.default", [part, [5, *size][-part.dim() + 2 :], False])


@pytest.mark.parametrize("mode", (0, 1, 2))
def test_places_beyond_a_block(mode):
    torch.manual_seed(5)
    x = strewn(3, 6, 9, 11)
    for laid in layouts(x):
        for places in ((1, 1), (5, 7), (4, 33)):
            grid = torch.rand(3, *places, 2) * 2.6 - 1.3
            grid.view(-1)[:1] = torch.nan
            for padding in (0, 1, 2):
                same_as_torch("grid_sampler_2d.default", [laid, grid, mode, padding, False])
                same_as_torch("grid_sampler_2d.default", [laid, grid / 2, mode, padding, True])


def test_another_window_would_be_seen():
    x = torch.randn(1, 3, 9, 40)
    mine = _core.call_op("aten.avg_pool2d.default", [array_of(x), [3, 3], [2, 2], [1, 1]], {})
    assert not torch.equal(torch.from_numpy(mine), torch.ops.aten.avg_pool2d(x, [3, 3], [2, 2], [1, 1], False, False))


def test_a_result_lies_as_that_of_torch():
    """Channels side by side where torch has them so, row-major where not."""
    x = torch.randn(2, 16, 6, 5)
    for laid in (x, x.contiguous(memory_format=LAST)):
        for name, arguments in (("avg_pool2d", [[2, 2]]), ("upsample_nearest2d", [[7, 8]]), ("neg", []), ("relu", [])):
            expected = getattr(torch.ops.aten, name).default(laid, *arguments)
            mine = _core.call_op(f"aten.{name}.default", [array_of(laid), *arguments], {})
            assert [stride // mine.itemsize for stride in mine.strides] == list(expected.stride())
    mine = _core.call_op("aten.permute.default", [array_of(x), [0, 2, 3, 1]], {})
    assert mine.flags.c_contiguous and mine.flags.writeable
