"""Ops whose bits hang on layout, threads or the library: the same as torch's, over the layouts that tell them apart."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bits import capability, equal_bits, in_c, in_torch
from porting import _core, providers
from test_ops import NAMES, array, tensor

Call = tuple[str, list[Any]]
_generator = torch.Generator().manual_seed(5)
randn = functools.partial(torch.randn, generator=_generator)


def transforms() -> Iterator[Call]:
    """Lengths with small and large factors, rows and columns, several dimensions, gaps, repeated rows and columns."""
    for shape, dims in (((5,), [0]), ((3, 97), [1]), ((3, 64), [0]), ((2, 3, 30), [2, 1]), ((4, 5, 6), [0, 1, 2]), ((2, 400, 3), [1]), ((8, 1024), [1])):
        for x in (randn(shape), randn(*shape[:-1], 2 * shape[-1])[..., ::2], randn(shape[::-1]).permute(*reversed(range(len(shape))))):
            for normalization in (0, 1, 2):
                half = torch.ops.aten._fft_r2c(x, dims, 0, True)
                yield "aten._fft_r2c.default", [x, dims, normalization, normalization == 1]
                yield "aten._fft_c2c.default", [torch.complex(x, x + 1), dims, normalization, normalization != 1]
                yield "aten._fft_c2r.default", [half, dims, normalization, shape[dims[-1]]]
    for x in (randn(1, 30, dtype=torch.complex64), randn(4, 1, dtype=torch.complex64)):
        for dims in ([0], [1], [1, 0]):
            yield "aten._fft_c2c.default", [x.expand(4, 30), dims, 0, True]
            yield "aten._fft_r2c.default", [x.real.expand(4, 30), dims, 0, True]


def complex_products() -> Iterator[Call]:
    """Runs of every length up to two vectors: dense, with gaps, by one number, by rows, by real numbers."""
    for n in range(1, 18):
        x, y = randn(3, n, dtype=torch.complex64), randn(3, n, dtype=torch.complex64)
        for other in (y, randn(3, 2 * n, dtype=torch.complex64)[:, ::2], y[0, :1], y[1], y[:, :1], y.mT.contiguous().mT, randn(3, n)):
            yield "aten.mul.Tensor", [x, other]
            yield "aten.mul.Tensor", [other, x[0]]


def batch_norms() -> Iterator[Call]:
    """Training and evaluation, row-major, channels-last, of single elements, and (evaluation) strided."""
    for shape in ((5, 17), (3, 8, 1), (4, 3, 50), (2, 5, 7, 9), (1, 64, 33), (2, 3, 2, 3, 5)):
        affine, C = (torch.rand(shape[1]) + 0.5, randn(shape[1])), shape[1]
        plain = randn(shape) * 3 + 1
        strided = [] if len(shape) == 2 else [plain.transpose(1, 2).contiguous().transpose(1, 2), randn(*shape[:-1], 2 * shape[-1])[..., ::2]]
        if len(shape) == 4:
            yield "aten.native_batch_norm.default", [plain.contiguous(memory_format=torch.channels_last), *affine, None, None, True, 0.1, 1e-5]
        yield "aten.native_batch_norm.default", [plain, None, None, None, None, True, 0.1, 1e-8]
        yield "aten.native_batch_norm.default", [plain, *affine, None, None, True, 0.1, 1e-5]
        for x in (plain, *strided):
            yield "aten.native_batch_norm.default", [x, *affine, randn(C), torch.rand(C) + 0.5, False, 0.1, 1e-5]


def resizes() -> Iterator[Call]:
    """Up and down, one dimension at a time and both, a single row or column, channels-last."""
    for size, to in (((14, 33), (40, 7)), ((33, 4), (5, 24)), ((1, 16), (24, 100)), ((16, 1), (100, 1)), ((7, 7), (16, 5))):
        for x in (randn(2, 3, *size), randn(1, 17, *size).contiguous(memory_format=torch.channels_last)):
            for name in ("upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"):
                yield f"aten.{name}.default", [x, list(to), False, None, None]
                yield f"aten.{name}.default", [x, list(to), True, None, None]
                yield f"aten.{name}.default", [x, list(to), False, to[0] / size[0] + 0.01, to[1] / size[1]]


def logits() -> Iterator[Call]:
    """Dense, with gaps between elements, with gaps between rows, repeated."""
    x = torch.rand(40, 100, generator=_generator)
    for v in (x, x.t(), x[:, ::2], x[:, :37], x[:, :1].expand(40, 100)):
        yield "aten.logit.default", [v]
        yield "aten.logit.default", [v, 0.01]


def convolutions() -> Iterator[Call]:
    """Of one pixel whose strides say channels-last or not, and with one output position for one channel in each group."""
    pixel, weight = randn(2, 512, 1, 1), randn(64, 512, 3, 3)
    for strides in ((512, 1, 512, 512), (512, 1, 1, 1)):
        x = torch.empty_strided((2, 512, 1, 1), strides).copy_(pixel)
        yield "aten.convolution.default", [x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1]
    for C, O, size in ((512, 64, 4), (384, 64, 1), (672, 128, 2)):  # weights of one and of several parts of the cache
        x = torch.empty_strided((2, C, size, size), (C * size * size, 1, C * size, C)).copy_(randn(2, C, size, size))
        yield "aten.convolution.default", [x, randn(O, C, 3, 3), randn(O), [1, 1], [1, 1], [1, 1], False, [0, 0], 1]
    x = randn(2, 1536, 1, 11).contiguous(memory_format=torch.channels_last)  # more channels than one chain takes
    yield "aten.convolution.default", [x, randn(48, 1536, 1, 1), randn(48), [1, 1], [0, 0], [1, 1], False, [0, 0], 1]
    yield "aten.convolution.default", [randn(2, 256, 2, 2), randn(256, 1, 5, 5), None, [2, 2], [2, 2], [1, 1], False, [0, 0], 256]
    yield "aten.convolution.default", [randn(2, 32, 3, 3), randn(32, 1, 7, 7), randn(32), [4, 4], [3, 3], [1, 1], False, [0, 0], 32]
    for x in (randn(4, 1, 32).transpose(1, 2), randn(4, 32, 9), randn(4, 9, 32).transpose(1, 2)):  # a signal of one place; weights of a linear layer
        for weight in (randn(8, 32, 3), randn(8, 3, 32).transpose(1, 2)):
            yield "aten.convolution.default", [x, weight, randn(8), [1], [1], [1], False, [0], 1]


def heads() -> Any:
    """torch's own multi-head attention over one operand: one product for queries, keys and values, and the bias after it."""
    for B, T, E, H in ((3, 7, 8, 2), (4, 33, 64, 4), (2, 17, 40, 1)):
        x = randn(B, T, E)
        yield "aten._native_multi_head_attention.default", [x, x, x, E, H, randn(3 * E, E), randn(3 * E), randn(E, E), randn(E), None, True, False]


def bilinear_layers() -> Iterator[Call]:
    """Of one row and of many, with one feature in and out, and products that go to the library."""
    for N, O, I, J in ((4, 5, 3, 7), (1, 4, 5, 7), (3, 1, 1, 6), (6, 3, 9, 1), (33, 17, 40, 24), (5, 3, 64, 64)):
        yield "aten._trilinear.default", [randn(N, I), randn(O, I, J), randn(N, J), [1, 3], [0], [1, 2], [2, 3]]
        yield "aten._trilinear.default", [randn(I, N).t(), randn(O, J, I).mT, randn(N, 2 * J)[:, ::2], [1, 3], [0], [1, 2], [2, 3]]


def numbers_first() -> Iterator[Call]:
    """`torch.add(0.3333, x, alpha=0.6667)` hands its number on as it is, in the place of a tensor."""
    for x in (randn(77), randn(9, 40).t(), randn(())):
        for name in ("add", "sub", "mul", "div"):
            yield f"aten.{name}.Tensor", [0.3333, x]
        yield "aten.add.Tensor", [0.3333, x, {"alpha": 0.6667}]
        yield "aten.sub.Tensor", [2, x, {"alpha": 0.6667}]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("calls", [bilinear_layers, numbers_first, heads, transforms, complex_products, batch_norms, resizes, logits, convolutions])
def test_the_bits_are_torchs(calls: Any, threads: int) -> None:
    provider, _ = providers.use_provider("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name, args in calls():
            named = args.pop() if isinstance(args[-1], dict) else {}
            theirs = in_torch(name, args, named)
            for got, want in zip(in_c(name, args, named, provider=provider, mkldnn=True), theirs, strict=True):
                assert equal_bits(got, want), f"{name} {[(tuple(a.shape), a.stride()) if isinstance(a, torch.Tensor) else a for a in args]}"
    finally:
        torch.set_num_threads(before)


def test_a_wrong_bit_is_seen() -> None:
    """What an unfused product, another normalization and a transform in double give is told from torch's."""
    x, y = randn(2, 8, dtype=torch.complex64)[:, :7], randn(2, 8, dtype=torch.complex64)[:, :7]
    want = in_torch("aten.mul.Tensor", [x, y])[0]
    unfused = torch.complex(x.real * y.real - x.imag * y.imag, x.real * y.imag + x.imag * y.real)
    assert not equal_bits(unfused, want) and equal_bits(want, want.clone())
    signal = randn(8, 97)
    want = in_torch("aten._fft_r2c.default", [signal, [1], 0, True])[0]
    assert not equal_bits(torch.fft.rfft(signal.double()).to(torch.complex64), want)
    assert not equal_bits(in_c("aten._fft_r2c.default", [signal, [1], 1, True])[0], want)


def test_without_the_library_transforms_are_near() -> None:
    for name, args in transforms():
        got, want = in_c(name, args, provider="reference")[0], in_torch(name, args)[0]
        torch.testing.assert_close(got, want, rtol=4e-6, atol=4e-6 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_running_statistics_are_renewed_as_torch_does(dtype: torch.dtype) -> None:
    x, running = (randn(4, 6, 5) * 2 + 1).to(dtype), [randn(6).to(dtype), (torch.rand(6) + 0.5).to(dtype)]
    theirs = [r.clone() for r in running]
    results = in_torch("aten.native_batch_norm.default", [x, None, None, *theirs, True, 0.37, 1e-5])
    tensors = [x, *running, *results]
    arguments = [{"v": 0}, None, None, {"v": 1}, {"v": 2}, True, 0.37, 1e-5]
    program = {"values": [[NAMES[t.dtype], list(t.shape), list(t.stride()), 0] for t in tensors],
               "ops": [["aten.native_batch_norm.default", arguments, {}, [3, 4, 5]]]}  # fmt: skip
    feeds = {k: array(t) for k, t in enumerate(tensors[:3])}
    mine = _core.Program(json.dumps(program).encode()).run(0, 1, feeds, [1, 2], num_threads=torch.get_num_threads(), capability=capability())
    for got, want, before in zip(mine, theirs, running, strict=True):
        assert equal_bits(tensor(got).float(), want.float()) and not equal_bits(want.float(), before.float())
