"""The bits of norms in double and of halves: the same as torch's."""

from __future__ import annotations

import functools

import pytest
import torch
from bits import capability, equal_bits, in_c, in_torch
from porting import providers

_generator = torch.Generator().manual_seed(12)
randn = functools.partial(torch.randn, generator=_generator)
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
BATCH_NORM = "aten._native_batch_norm_legit_no_training.default"


def same(name: str, args: list) -> bool:
    provider, _ = providers.use_provider("torch")
    return all(equal_bits(ours, theirs) for ours, theirs in zip(in_c(name, args, provider=provider), in_torch(name, args), strict=True))


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last), ids=str)
def test_batch_norm_of_f16_with_its_own_parameters(layout):
    x = (randn(4, 256, 29, 31) * 3).to(F16).contiguous(memory_format=layout)
    weight, bias, mean, var = (randn(256).to(F16) for _ in range(4))
    var = var.abs() + 0.125
    wide = [t.float() for t in (weight, bias, mean, var)]
    for parameters in ([weight, bias, mean, var], [None, bias, mean, var], wide):
        assert same(BATCH_NORM, [x, *parameters, 0.1, 1e-5])
    assert same("aten.native_batch_norm.default", [x, weight, bias, mean.clone(), var.clone(), False, 0.1, 1e-5])
    assert not equal_bits(in_torch(BATCH_NORM, [x, weight, bias, mean, var, 0.1, 1e-5])[0], in_torch(BATCH_NORM, [x, *wide, 0.1, 1e-5])[0])  # seen


COLUMNS = (1, 3, 4, 5, 63, 64, 65, 128, 129, 300, 1025, 5001)


def test_norms_of_rows_of_doubles():
    for cols in COLUMNS:
        for shift in (0, 1000):
            x, weight, bias = randn(3, cols, dtype=F64) * 3 + shift, randn(cols, dtype=F64), randn(cols, dtype=F64)
            for w, b in ((weight, bias), (weight, None), (None, None)):
                assert same("aten.native_layer_norm.default", [x, [cols], w, b, 1e-5]), cols
                assert same("aten.rms_norm.default", [x, [cols], w, 1e-6]), cols


def test_means_of_doubles_in_another_order_are_told_apart():
    x = randn(30, 5001, dtype=F64)
    mean = in_torch("aten.native_layer_norm.default", [x, [5001], None, None, 1e-5])[1]
    assert not equal_bits(mean, x.mean(1, keepdim=True))


@pytest.mark.parametrize(("layout", "dtype"), ((torch.contiguous_format, F32), (torch.contiguous_format, F64), (torch.channels_last, F32)), ids=str)
def test_group_norms(layout, dtype):
    for channels, groups, size in ((12, 4, (3, 3)), (64, 4, (5, 17)), (18, 1, (7, 8)), (40, 5, (33, 34)), (16, 2, (1, 1))):
        for shift in (0, 1000):
            x = (randn(3, channels, *size, dtype=dtype) + shift).contiguous(memory_format=layout)
            weight, bias = randn(channels, dtype=dtype), randn(channels, dtype=dtype)
            for w, b in ((weight, bias), (None, bias), (None, None)):
                assert same("aten.native_group_norm.default", [x, w, b, 3, channels, size[0] * size[1], groups, 1e-5]), (channels, size)


@pytest.mark.parametrize("dtype", (F16, BF16), ids=str)
def test_norms_of_halves_with_a_rest_behind_the_vectors(dtype):
    """Statistics are kept in F32 where the parameters are: there a rest that was fused, or not, shows (the last test says so)."""
    for cols in (1, 5, 15, 16, 17, 31, 33, 300, 1025):
        x = (randn(4, cols) * 3 + 5).to(dtype)
        for kept in (dtype, F32):
            weight, bias = randn(cols).to(kept), randn(cols).to(kept)
            assert same("aten.native_layer_norm.default", [x, [cols], weight, bias, 1e-5]), cols
    for channels, groups, size in ((12, 4, (3, 3)), (64, 4, (7, 33)), (18, 1, (5, 2)), (40, 5, (33, 3))):
        x = (randn(3, channels, *size) * 3 + 5).to(dtype)
        for kept in (dtype, F32):
            weight, bias = randn(channels).to(kept), randn(channels).to(kept)
            assert same("aten.native_group_norm.default", [x, weight, bias, 3, channels, size[0] * size[1], groups, 1e-5]), (channels, size)


def test_rests_of_f16_and_bf16_are_told_apart():
    x = torch.randint(-8, 9, (64, 15), generator=_generator).to(F32) / 4 + 5  # exact in both
    rstds = [in_torch("aten.native_layer_norm.default", [x.to(dtype), [15], torch.ones(15), torch.zeros(15), 1e-5])[2] for dtype in (F16, BF16)]
    assert equal_bits(x.to(F16).to(F32), x.to(BF16).to(F32)) and (capability() == "default") == equal_bits(*rstds)
