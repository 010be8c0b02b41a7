"""Kernels over (N, C, ...) and those that write by index, against torch under its own capability without oneDNN: bits in float32."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from matmul_tools import tensor
from porting import _core
from test_gemm import HAS_PAIRS
from test_kernels import ONEDNN, ours

ATEN = torch.ops.aten


def check(name, arguments, allowed=0.0, named=None):
    """Every element of every result, bit for bit, or within `allowed` of the greatest."""
    overload = ATEN
    for part in name.split(".")[1:]:
        overload = getattr(overload, part)
    with torch.backends.mkldnn.flags(enabled=False):
        expected = overload(*arguments, **(named or {}))
    actual = ours(name, arguments, named or {})
    pairs = zip(expected, actual) if isinstance(expected, tuple) else [(expected, actual)]
    for e, a in pairs:
        a = tensor(a)
        assert a.shape == e.shape and a.dtype == e.dtype
        if allowed == 0.0 or not e.dtype.is_floating_point:
            same = (a == e) | (a.isnan() & e.isnan())
            assert same.all(), f"{name}: {(~same).sum()} of {e.numel()} differ, at most {(a.double() - e.double()).abs().max()}"
        elif e.numel():
            assert (a - e).abs().max() <= allowed * e.abs().max()


CONVOLUTIONS = [  # C, O, kernel, stride, padding, dilation, groups, transposed, sizes
    (3, 16, (8, 8), 8, 0, 1, 1, False, (24, 24)), (16, 24, (3, 3), 1, 1, 1, 1, False, (9, 8)), (16, 16, (3, 3), 2, 1, 1, 16, False, (9, 9)),
    (16, 12, (3, 3), 1, 2, 2, 2, False, (8, 8)), (32, 16, (1, 1), 1, 0, 1, 1, False, (7, 7)), (16, 20, (3,), 1, 1, 1, 1, False, (30,)),
    (16, 16, (16,), 1, 8, 1, 4, False, (20,)), (8, 8, (4,), 1, 3, 1, 8, False, (12,)), (3, 8, (2, 4, 4), 2, 0, 1, 1, False, (4, 12, 12)), (9, 6, (3, 1, 9), 1, 0, 1, 3, False, (3, 1, 9)),
    (16, 8, (2, 2), 2, 0, 1, 1, True, (6, 6)), (16, 8, (4, 4), 2, 1, 1, 2, True, (5, 5)), (16, 8, (4,), 2, 1, 1, 1, True, (9,)),
    (20, 2, (1,), 1, 0, 1, 1, True, (5,)), (48, 8, (1, 7), 4, 0, 2, 1, True, (5, 1)),
]  # fmt: skip


@pytest.mark.parametrize("batch", (1, 2))
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case, batch):
    C, O, kernel, stride, padding, dilation, groups, transposed, sizes = case
    n = len(sizes)
    torch.manual_seed(0)
    x = torch.randn(batch, C, *sizes)
    w = torch.randn(*((C, O // groups) if transposed else (O, C // groups)), *kernel)
    for bias in (None, torch.randn(O)):
        for dtype in (torch.float32, torch.float64):
            for last in (False, True) if n == 2 else (False,):
                laid = x.to(dtype).contiguous(memory_format=torch.channels_last) if last else x.to(dtype)
                arguments = [laid, w.to(dtype), None if bias is None else bias.to(dtype), [stride] * n, [padding] * n, [dilation] * n, transposed, [0] * n, groups]
                check("aten.convolution.default", arguments, 0.0 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_of_halves(case, dtype):
    """Channels that nearly cancel show the order of each sum, and transposed ones where torch rounds in between."""
    C, O, kernel, stride, padding, dilation, groups, transposed, sizes = case
    n = len(sizes)
    torch.manual_seed(0)
    x = torch.randn(2, C, *sizes, dtype=dtype).repeat_interleave(2, 1) * (1 + torch.randn(2, 2 * C, *sizes, dtype=dtype) / 64)
    w = torch.randn(*((C, O // groups) if transposed else (O, C // groups)), *kernel, dtype=dtype).repeat_interleave(2, 0 if transposed else 1)
    (w[1::2] if transposed else w[:, 1::2]).neg_()
    for bias in (None, torch.randn(O, dtype=dtype)):
        for laid in (x, x.contiguous(memory_format=torch.channels_last)) if n == 2 else (x,):
            arguments = [laid, w, bias, [stride] * n, [padding] * n, [dilation] * n, transposed, [0] * n, groups]
            check("aten.convolution.default", arguments)
    with torch.backends.mkldnn.flags(enabled=False):
        expected, widened = (ATEN.convolution.default(*[a.to(t) if isinstance(a, torch.Tensor) else a for a in arguments]) for t in (dtype, torch.float32))
    assert not transposed or kernel in ((1,), (2, 2)) or (widened.to(dtype) != expected).any()  # sums of one term each need no rounding


ONEDNN_CONVOLUTIONS = [  # C, O, kernel, stride, padding, dilation, groups, sizes
    (3, 16, (3, 3), 1, 1, 1, 1, (9, 9)), (3, 64, (8, 8), 8, 0, 1, 1, (24, 24)), (32, 48, (3, 3), 2, 1, 1, 1, (9, 7)), (20, 12, (5, 5), 1, 2, 1, 1, (7, 7)),
    (16, 16, (1, 1), 1, 0, 1, 1, (6, 6)), (300, 20, (1, 1), 1, 0, 1, 1, (5, 5)), (64, 64, (1, 1), 2, 0, 1, 1, (8, 8)), (64, 16, (1, 1), 1, 1, 1, 1, (5, 5)),
    (24, 24, (3, 3), 1, 1, 1, 24, (9, 9)), (32, 32, (3, 3), 1, 1, 1, 2, (8, 8)), (12, 24, (3, 3), 1, 1, 1, 3, (8, 8)), (16, 32, (3, 3), 1, 2, 2, 1, (9, 9)),
    (32, 64, (1, 1), 1, 0, 1, 4, (6, 6)), (17, 33, (2, 2), 2, 0, 1, 1, (8, 8)), (16, 32, (3,), 1, 1, 1, 1, (40,)), (1, 32, (10,), 5, 0, 1, 1, (300,)),
    (32, 32, (4,), 1, 3, 1, 32, (20,)), (64, 32, (1,), 1, 0, 1, 1, (30,)), (600, 24, (3, 3), 1, 1, 1, 1, (4, 5)), (600, 24, (1, 1), 1, 0, 1, 1, (12, 4)),
    (600, 272, (1, 1), 1, 0, 1, 1, (12, 2)), (600, 24, (1, 1), 1, 0, 1, 1, (29, 2)), (600, 24, (1, 1), 1, 0, 1, 1, (10, 4)),
    (256, 24, (1, 1), 1, 0, 1, 1, (32, 32)), (256, 16, (1, 1), 1, 0, 1, 1, (40, 40)), (320, 16, (1, 1), 1, 0, 1, 1, (33, 31)), (96, 40, (1, 1), 2, 0, 1, 1, (7, 7)),
    (96, 64, (1, 1), 1, 0, 1, 2, (8, 8)), (34, 66, (1, 1), 2, 0, 1, 2, (8, 8)), (1100, 144, (1, 1), 1, 0, 1, 1, (14, 14)),
    (3, 32, (2, 14, 14), 2, 0, 1, 1, (2, 14, 14)), (3, 24, (2, 8, 8), 2, 0, 1, 1, (4, 16, 16)), (48, 40, (3, 3, 3), 1, 1, 1, 1, (3, 5, 4)),
    (512, 40, (1, 1, 1), 1, 0, 1, 1, (3, 5, 5)), (32, 32, (3, 3, 3), 1, 1, 1, 2, (4, 4, 4)), (16, 16, (3, 3, 3), 2, 1, 1, 16, (5, 5, 5)),
]  # fmt: skip


@pytest.mark.parametrize("batch", (1, 2, 16))
@pytest.mark.parametrize("case", ONEDNN_CONVOLUTIONS)
def test_convolution_of_onednn(case, batch):
    """With oneDNN on, as users run it: all bits where it runs its AVX-512 code."""
    C, O, kernel, stride, padding, dilation, groups, sizes = case
    n = len(sizes)
    torch.manual_seed(0)
    x, w = torch.randn(batch, C, *sizes), torch.randn(O, C // groups, *kernel)
    exact = ONEDNN is True and _core.show_config()["cpu_level"] == 2
    for bias in (None, torch.randn(O)):
        for laid in (x, x.contiguous(memory_format=torch.channels_last)) if n == 2 else (x,):
            arguments = [laid, w, bias, [stride] * n, [padding] * n, [dilation] * n, False, [0] * n, groups]
            expected = ATEN.convolution.default(*arguments)
            mine = torch.from_numpy(ours("aten.convolution.default", arguments, {}, mkldnn=ONEDNN))
            assert torch.equal(mine, expected) if exact else (mine - expected).abs().max() <= 1e-5 * expected.abs().max()


BF16_CONVOLUTIONS = [  # C, O, kernel, stride, padding, groups, sizes
    (64, 64, (3, 3), 1, 1, 1, (8, 8)), (256, 24, (1, 1), 1, 0, 1, (16, 16)), (512, 8, (1, 1), 1, 0, 1, (32, 32)), (700, 16, (1, 1), 1, 0, 1, (8, 8)),
    (21, 96, (3, 3), 2, 1, 1, (9, 17)), (3, 16, (8, 8), 4, 3, 1, (40, 40)), (48, 32, (3, 3), 1, 1, 2, (8, 8)), (24, 24, (3, 3), 1, 1, 24, (9, 9)),
    (40, 96, (5,), 2, 2, 1, (50,)), (34, 16, (3, 2, 3), 1, 1, 1, (4, 5, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", BF16_CONVOLUTIONS)
def test_convolution_of_onednn_in_bf16(case):
    """All bits with AVX512_BF16, where channels come by pairs. One half of them nearly cancels the other, so that a sum in any other order shows."""
    C, O, kernel, stride, padding, groups, sizes = case
    n, half = len(sizes), C // groups // 2
    torch.manual_seed(0)
    x, w = torch.randn(2, groups, C // groups, *sizes).bfloat16(), torch.randn(O, C // groups, *kernel).bfloat16()
    x[:, :, half : 2 * half] = x[:, :, :half] * (1 + torch.randn(2, groups, half, *sizes).bfloat16() / 64)
    w[:, half : 2 * half] = -w[:, :half]
    x, seen = x.flatten(1, 2), False
    for bias in (None, torch.randn(O, dtype=torch.bfloat16)):
        for laid in (x, x.contiguous(memory_format=torch.channels_last)) if n == 2 else (x,):
            arguments = [laid, w, bias, [stride] * n, [padding] * n, [1] * n, False, [0] * n, groups]
            expected = ATEN.convolution.default(*arguments)
            mine, single = (tensor(ours("aten.convolution.default", arguments, {}, mkldnn=level)) for level in (ONEDNN, "avx512"))
            assert torch.equal(mine, expected) if HAS_PAIRS else (mine - expected).abs().max() <= 0.01 * expected.abs().max()
            seen = seen or not torch.equal(single, expected)
    assert seen or half < 8 or not HAS_PAIRS


@pytest.mark.parametrize("case", [case for case in ONEDNN_CONVOLUTIONS if max(case[2]) > 1])
def test_variants_of_onednns_convolutions_have_the_same_bits(case):
    C, O, kernel, stride, padding, dilation, groups, sizes = case
    n = len(sizes)
    torch.manual_seed(1)
    arguments = [torch.randn(2, C, *sizes), torch.randn(O, C // groups, *kernel), torch.randn(O), [stride] * n, [padding] * n, [dilation] * n, False, [0] * n, groups]
    level = _core.show_config()["cpu_level"]
    variants = ["ref", "avx2", "avx512"][: level + 1]
    assert {v for op, _, v, needs in _core.kernel_rows() if op == "onednn_convolution" and needs <= level} == set(variants)
    expected, *others = (ours("aten.convolution.default", arguments, {}, mkldnn=True, variant=v) for v in variants)
    assert all((expected == other).all() for other in others)
    if C // groups > 16:  # more than one chain: another order shows
        assert (expected != ours("aten.convolution.default", arguments, {}, mkldnn=False)).any()


@pytest.mark.parametrize("threads", (1, 9, 40))
def test_channels_of_a_chain_depend_on_the_threads(threads):
    """1x1 kernels of many channels: other blocks where there are more than eight threads for each image."""
    exact, before = ONEDNN is True and _core.show_config()["cpu_level"] == 2, torch.get_num_threads()
    torch.manual_seed(0)
    for C, O, sizes in ((1024, 16, (14, 14)), (1040, 24, (7, 7)), (336, 40, (32, 32)), (2048, 16, (5, 5))):
        arguments = [torch.randn(1, C, *sizes), torch.randn(O, C, 1, 1), torch.randn(O), [1, 1], [0, 0], [1, 1], False, [0, 0], 1]
        torch.set_num_threads(threads)
        try:
            expected = ATEN.convolution.default(*arguments)
            mine = torch.from_numpy(ours("aten.convolution.default", arguments, {}, mkldnn=ONEDNN))
            torch.set_num_threads(9 if threads == 1 else 2)
            other = torch.from_numpy(ours("aten.convolution.default", arguments, {}, mkldnn=ONEDNN))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(mine, expected) if exact else (mine - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert threads == 40 or C != 1024 or not exact or not torch.equal(other, expected)


UNFOLDED = [  # C, O, kernel, stride, padding, dilation, groups, sizes: what oneDNN's own code refuses
    (16, 64, (3, 3), 1, 6, 6, 1, (1, 1)), (64, 32, (3, 3), 1, 6, 6, 1, (2, 2)), (64, 64, (16,), 2, 8, 1, 4, (4,)), (32, 32, (3,), 1, 27, 27, 1, (384,)),
    (96, 32, (48,), 1, 24, 1, 2, (13,)), (32, 40, (20,), 10, 5, 1, 1, (250,)), (24, 24, (3, 3), 1, 1, 1, 4, (6, 6)), (16, 16, (7, 7), 1, 3, 1, 16, (1, 1)),
]  # fmt: skip
TRANSPOSED = [  # C, O, kernel, stride, padding, output padding, groups, sizes
    (64, 32, (16,), 8, 4, 0, 1, (7,)), (256, 128, (10,), 5, 3, 1, 1, (8,)), (512, 40, (16,), 8, 0, 0, 1, (1,)), (96, 1, (32,), 16, 0, 0, 96, (3,)),
    (200, 48, (2, 2), 2, 0, 0, 1, (4, 4)), (40, 20, (3, 3), 1, 1, 0, 1, (5, 5)), (20, 8, (3, 4, 4), 2, 1, 0, 1, (3, 5, 5)), (32, 8, (3, 3), 2, 1, 0, 1, (5, 9)),
    (16, 8, (8,), 2, 4, 0, 1, (8,)), (3, 2, (3, 4, 5), 2, 1, 1, 1, (4, 3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("batch", (2, 3))
@pytest.mark.parametrize("case", [(False, case) for case in UNFOLDED] + [(True, case) for case in TRANSPOSED])
def test_products_and_transposed_convolutions_of_onednn(case, batch):
    """Products of unfolded images, and transposed convolutions: all bits where oneDNN runs its AVX-512 code."""
    transposed, (C, O, kernel, stride, padding, other, groups, sizes) = case
    n = len(sizes)
    torch.manual_seed(0)
    x, w = torch.randn(batch, C, *sizes), torch.randn(*((C, O) if transposed else (O, C // groups)), *kernel)
    dilation, output_padding = (1, other) if transposed else (other, 0)
    exact = ONEDNN is True and _core.show_config()["cpu_level"] == 2
    for bias in (None, torch.randn(O * groups if transposed else O)):
        arguments = [x, w, bias, [stride] * n, [padding] * n, [dilation] * n, transposed, [output_padding] * n, groups]
        expected = ATEN.convolution.default(*arguments)
        mine = torch.from_numpy(ours("aten.convolution.default", arguments, {}, mkldnn=ONEDNN))
        assert torch.equal(mine, expected) if exact else (mine - expected).abs().max() <= 1e-5 * expected.abs().max()
    wrong = torch.from_numpy(ours("aten.convolution.default", [x, w.roll(1, 0), *arguments[2:]], {}, mkldnn=ONEDNN))
    assert (wrong - expected).abs().max() > 1e-3


def test_convolution_sees_a_wrong_padding():
    x, w = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3)
    mine = ours("aten.convolution.default", [x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1], {})
    assert mine.shape == (1, 4, 6, 6) and not torch.equal(torch.from_numpy(mine), F.conv2d(x, w, padding=1)[:, :, :6, :6])


IMAGES = {"row-major": torch.randn(2, 20, 9, 11), "channels last": torch.randn(2, 20, 9, 11).contiguous(memory_format=torch.channels_last)}


@pytest.mark.parametrize("layout", IMAGES)
def test_pooling(layout):
    x = IMAGES[layout]
    for wide in (x, x.double()):
        for kernel, stride, padding, ceil in (([3, 2], [2, 2], [1, 1], False), ([3, 3], [2, 2], [0, 0], True), ([2, 5], [1, 2], [1, 2], False)):
            check("aten.max_pool2d_with_indices.default", [wide, kernel, stride, padding, [1, 1], ceil])
            check("aten.avg_pool2d.default", [wide, kernel, stride, padding, ceil, False])
            check("aten.avg_pool2d.default", [wide, kernel, stride, padding, ceil, True])
        for sizes in ([3, 4], [5, 5], [9, 11]):
            check("aten._adaptive_avg_pool2d.default", [wide, sizes], 0.0 if wide is x else 1e-15)
    with_nan = x.clone()
    with_nan[0, 0, 4, 4] = float("nan")
    mine = torch.from_numpy(ours("aten.max_pool2d_with_indices.default", [with_nan, [3, 3], [1, 1]], {})[0])
    assert torch.equal(mine.isnan(), F.max_pool2d(with_nan, 3, 1).isnan()) and mine.isnan().any()


def test_resize():
    x = IMAGES["row-major"]
    for sizes in ([18, 22], [5, 6], [9, 11], [13, 40]):
        check("aten.upsample_nearest2d.default", [x, sizes])
        for corners in (True, False):
            check("aten.upsample_bilinear2d.default", [x, sizes, corners])
            check("aten.upsample_bicubic2d.default", [x, sizes, corners], 1e-6)
            check("aten.upsample_bilinear2d.default", [x.double(), sizes, corners], 1e-14)
    check("aten.upsample_linear1d.default", [x[0], [25], False], 3e-7)


@pytest.mark.parametrize("layout", IMAGES)
def test_resize_by_corners_and_by_dimensions(layout):
    """All bits: up to 128 rows and columns, or channels-last, the four corners are one sum; beyond, one dimension after the other."""
    for x in (IMAGES[layout], IMAGES[layout][:, :3]):
        for sizes in ([18, 22], [1, 1], [99, 29], [120, 16]):
            for corners in (True, False):
                x = x.contiguous(memory_format=torch.channels_last) if layout == "channels last" else x.contiguous()
                check("aten.upsample_bilinear2d.default", [x, sizes, corners])
    for channels in (8, 13, 24, 31):  # a vector holds 8 of them
        check("aten.upsample_bilinear2d.default", [torch.randn(2, channels, 4, 5), [7, 11], True])
    mine = torch.from_numpy(ours("aten.upsample_bilinear2d.default", [IMAGES[layout], [18, 22], True], {}))
    assert not torch.equal(mine, ATEN.upsample_bilinear2d.default(IMAGES[layout], [18, 22], False))


@pytest.mark.parametrize("layout", IMAGES)
def test_norms_over_channels(layout):
    x = IMAGES[layout] * 3 + 1
    weight, bias, mean, var = (torch.rand(20) + 0.5 for _ in range(4))
    check("aten.native_batch_norm.default", [x, weight, bias, mean, var, False, 0.1, 1e-5])
    check("aten.native_batch_norm.default", [x, None, None, mean, var, False, 0.1, 1e-5])
    for groups in (1, 4, 20):
        check("aten.native_group_norm.default", [x, weight, bias, 2, 20, 99, groups, 1e-5])
        check("aten.native_group_norm.default", [x.double(), weight.double(), bias.double(), 2, 20, 99, groups, 1e-5], 1e-13)


@pytest.mark.parametrize(("channels", "size", "groups"), [(64, (1, 1), 32), (24, (33, 40), 4), (12, (8, 4), 1)])
def test_group_norm_of_one_pixel_and_of_many(channels, size, groups):
    x = torch.empty(2, channels, *size, memory_format=torch.channels_last).copy_(torch.randn(2, channels, *size) + 0.5)
    weight, bias = torch.randn(channels), torch.randn(channels)
    rest = [2, channels, size[0] * size[1], groups, 1e-5]
    check("aten.native_group_norm.default", [x, weight, bias, *rest])
    rows = torch.from_numpy(ours("aten.native_group_norm.default", [x.contiguous().view(2, channels, -1), weight, bias, *rest], {})[0])
    assert not torch.equal(rows.view(x.shape), ATEN.native_group_norm.default(x, weight, bias, *rest)[0])  # another order of sums, seen


def test_scatter_and_topk():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        x = torch.randint(0, 2 if dtype == torch.bool else 100, (6, 40)).to(dtype)
        places = torch.stack([torch.randperm(6)[:4] for _ in range(40)], 1)
        source = torch.randint(0, 2 if dtype == torch.bool else 100, (4, 40)).to(dtype)
        if dtype != torch.bfloat16:
            check("aten.scatter.src", [x, 0, places, source])
    x, places, source = torch.randn(6, 40), torch.randint(0, 6, (9, 40)), torch.randn(9, 40)
    check("aten.scatter_add.default", [x, 0, places, source])
    for kind in ("sum", "prod", "amax", "amin"):
        check("aten.scatter_reduce.two", [x, 0, places, source, kind])
    for dtype in (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16):
        distinct = torch.randperm(60).to(dtype).reshape(5, 12)
        for largest in (True, False):
            check("aten.topk.default", [distinct, 4, -1, largest])
    with_nan = torch.tensor([[1.0, float("nan"), 3.0, -2.0]])
    values, order = ours("aten.topk.default", [with_nan, 2], {})
    assert order.tolist() == [[1, 2]] and values[0, 1] == 3.0


@pytest.mark.parametrize("n", (1, 3, 4, 17, 40, 65, 129, 1000))
def test_equal_elements_of_topk_come_in_the_librarys_order(n):
    """Also those that need not be sorted: the places decide, for instance, which expert a token meets first."""
    for few in (2, 20, 1 << 20):
        x = torch.randint(0, few, (3, n)).float()
        x[0, n // 2] = float("nan") if few == 20 else 1.0
        for values in (x, torch.arange(n).float().expand(2, n), -torch.arange(n).float().expand(2, n)):
            for k in sorted({1, max(1, n // 64), n // 64 + 1, max(1, n // 2), n}):
                for largest in (True, False):
                    for in_order in (True, False):
                        places = ATEN.topk(values, k, -1, largest, in_order)[1]
                        assert torch.equal(torch.from_numpy(ours("aten.topk.default", [values, k, -1, largest, in_order], {})[1]), places)


@pytest.mark.parametrize("n", (1, 2, 16, 17, 44, 300, 3000))
def test_equal_elements_of_sort_come_in_the_librarys_order(n):
    """Experts gather the tokens that an unstable sort of the experts' numbers orders."""
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.float32, torch.float16):
        x = torch.randint(0, 5, (3, n)).to(dtype)
        x[1, n // 2] = float("nan") if dtype.is_floating_point else 1
        moved = x.t().contiguous()
        for operand, dim in ((x, -1), (moved, 0), (torch.zeros_like(x), 1), (x[0], 0)):
            for down in (False, True):
                check("aten.sort.default", [operand, dim, down])
                for stable in (None, False, True):
                    check("aten.sort.stable", [operand], named={"stable": stable, "dim": dim, "descending": down})
    ties = torch.zeros(40)
    assert not torch.equal(torch.from_numpy(ours("aten.sort.default", [ties], {})[1]), ATEN.sort.stable(ties, stable=True)[1])


@pytest.mark.parametrize("n", (1, 5, 7, 8, 19, 100))
def test_norms(n):
    torch.manual_seed(n)
    for shape, dims in (((40, n), [1]), ((40, n), [0]), ((3, 4, n, 5), [1, 2]), ((2, n, 3, 4), [1]), ((n, 20), [0, 1]), ((4, n, 2), [-1])):
        x = torch.randn(shape)
        for laid in (x, x.transpose(0, -1).contiguous().transpose(0, -1), torch.cat([x, x], -1)[..., : x.shape[-1]]):
            for order in (2, 1, float("inf")):
                check("aten.linalg_vector_norm.default", [laid, order, dims, True])
    v = torch.randn(33, 2, n)
    check("aten._weight_norm_interface.default", [v, torch.randn(33, 1, 1), 0])
    check("aten._weight_norm_interface.default", [v, torch.randn(1, 1, n), 2])
    for dtype in (torch.bfloat16, torch.float16):
        check("aten._weight_norm_interface.default", [v.to(dtype), torch.randn(33, 1, 1, dtype=dtype), 0], 2.0**-8 if 8 < 2 * n < 16 else 0.0)
        check("aten._weight_norm_interface.default", [v.to(dtype), torch.randn(1, 1, n, dtype=dtype), 2])


@pytest.mark.parametrize("upper", (True, False))
@pytest.mark.parametrize("left", (True, False))
def test_triangular_systems(upper, left):
    torch.manual_seed(0)
    for n, k in ((1, 1), (5, 3), (33, 7), (64, 16), (64, 1)):
        a = torch.randn(2, 3, n, n) * 0.1 + torch.eye(n)
        b = torch.randn(2, 3, n, k) if left else torch.randn(2, 3, k, n)
        for laid in (a, a.mT.contiguous().mT, a[:, :1], a[0, 0], torch.cat([a, a], -1)[..., :n]):
            for unit in (True, False):
                expected = torch.linalg.solve_triangular(laid, b, upper=upper, left=left, unitriangular=unit)
                options = {"upper": upper, "left": left, "unitriangular": unit}
                mine = torch.from_numpy(ours("aten.linalg_solve_triangular.default", [laid, b], options))
                assert torch.equal(mine, expected)
                wide = ours("aten.linalg_solve_triangular.default", [laid.double(), b.double()], options)
                assert (torch.from_numpy(wide) - expected).abs().max() < 1e-4
    with pytest.raises(ValueError, match="do not fit"):
        ours("aten.linalg_solve_triangular.default", [torch.eye(3), torch.ones(4, 2)], {"upper": True})


@pytest.mark.parametrize("bad", (6, -1))
def test_an_index_outside_is_refused(bad):
    with pytest.raises(ValueError, match="index is outside"):
        ours("aten.scatter.src", [torch.zeros(6, 2), 0, torch.tensor([[bad, 0]]), torch.ones(1, 2)], {})
