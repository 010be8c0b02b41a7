"""Paths that take several outputs at once (columns, channels side by side, one output in parts, dense rows of an index), with torch's bits on its threads."""

import ml_dtypes
import numpy as np
import pytest
import torch
from porting import _core, providers

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
OPTIONS = {"provider": "torch" if providers.load_torch_provider() else "auto", "capability": torch.backends.cpu.get_cpu_capability().lower(), "mkldnn": True}


def array_of(value):
    if not isinstance(value, torch.Tensor):
        return value
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()


def bits(x: np.ndarray) -> np.ndarray:
    """As integers, every NaN as the same one."""
    x = np.ascontiguousarray(x)
    whole = x.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize])
    return whole if x.dtype.kind in "biu" else np.where(np.isnan(x.astype(np.float32)), whole.dtype.type(0x7FC0), whole)


def same_as_torch(aten: str, arguments: list) -> None:
    packet, overload = aten.split(".")
    expected = getattr(getattr(torch.ops.aten, packet), overload)(*arguments)
    actual = _core.call_op(f"aten.{aten}", [array_of(a) for a in arguments], {}, num_threads=torch.get_num_threads(), **OPTIONS)
    for theirs, ours in zip(expected if isinstance(expected, tuple) else (expected,), actual if isinstance(actual, tuple) else (actual,), strict=True):
        assert theirs.shape == ours.shape
        assert np.array_equal(bits(array_of(theirs.contiguous())), bits(ours)), aten


def strewn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers with zeros, ties, infinities and a few NaN."""
    x = torch.randn(*shape).mul(4).round().div(4) 
    for value, part in ((0.0, 0.1), (float("-inf"), 0.02), (float("inf"), 0.002), (float("nan"), 0.002)):
        x[torch.rand(*shape) < part] = value
    return x.to(dtype)


def test_a_wrong_bit_is_seen():
    x = np.array([0.0, np.nan], np.float32)
    assert np.array_equal(bits(x), bits(x.copy())) and not np.array_equal(bits(x), bits(np.array([-0.0, np.nan], np.float32)))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16, torch.float16))
@pytest.mark.parametrize(("shape", "dims"), [((7, 5), [0]), ((100, 37), [0]), ((300, 200), [0]), ((300, 200), [1]), ((3, 50, 40), [0, 2]), ((300, 300), []), ((33,), [0])])
def test_the_sign_of_an_extreme_zero_follows_the_order(shape, dims, dtype):
    torch.manual_seed(0)
    zeros = torch.randint(0, 2, shape).mul(2).sub(1).mul(0.0)
    some = torch.where(torch.rand(shape) < 0.5, zeros, torch.rand(shape))
    for name, sign in (("amax", -1), ("amin", 1)):
        for x in (zeros.to(dtype), (some * sign).to(dtype)):
            same_as_torch(f"{name}.default", [x, dims])
            same_as_torch(f"{name}.default", [x.abs(), dims])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 1), (7, 33), (40, 700), (3, 5, 130)])
def test_extremes_of_columns(shape, dtype):
    torch.manual_seed(0)
    x = strewn(*shape, dtype=DTYPES[dtype])
    for name in ("amax", "amin"):
        same_as_torch(f"{name}.default", [x, [0]])
        same_as_torch(f"{name}.default", [x, [len(shape) - 2]])
    for name in ("argmax", "argmin"):
        same_as_torch(f"{name}.default", [x, 0])
    same_as_torch("max.dim", [x, 0])
    same_as_torch("min.dim", [x, len(shape) - 2])


@pytest.mark.parametrize("with_nan", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_of_everything(dtype, with_nan):
    torch.manual_seed(1)
    for elems in (1, 40, 70_001, 200_000):
        x = strewn(elems, dtype=DTYPES[dtype])
        x = x if with_nan else torch.nan_to_num(x, nan=0.25)
        for name in ("max", "min", "argmax", "argmin"):
            same_as_torch(f"{name}.default", [x])


def test_products_of_columns():
    torch.manual_seed(2)
    for shape in ((9, 1), (6, 515), (4, 3, 40)):
        same_as_torch("prod.dim_int", [torch.randn(*shape), 0])


@pytest.mark.parametrize("channels", [2, 7, 24, 130, 267])
def test_channels_side_by_side(channels):
    torch.manual_seed(3)
    x = strewn(2, channels, 9, 8).contiguous(memory_format=torch.channels_last)
    y = torch.randn(2, channels, 9, 8).contiguous(memory_format=torch.channels_last)
    same_as_torch("max_pool2d_with_indices.default", [x, [3, 3], [2, 2], [1, 1]])
    same_as_torch("max_pool2d_with_indices.default", [x, [2, 3], [1, 2], [1, 0], [2, 1]])
    for z in (x, y):
        same_as_torch("avg_pool2d.default", [z, [3, 2], [2, 2], [1, 1], False, False])
        same_as_torch("_adaptive_avg_pool2d.default", [z, [4, 3]])
        same_as_torch("upsample_nearest2d.default", [z, [13, 17]])
    same_as_torch("upsample_bilinear2d.default", [y, [13, 17], False])
    same_as_torch("upsample_bilinear2d.default", [y, [20, 5], True])


@pytest.mark.parametrize("channels", [4, 24, 300])
def test_norms_of_channels_side_by_side(channels):
    torch.manual_seed(4)
    weight, bias, mean, var = torch.randn(channels), torch.randn(channels), torch.randn(channels), torch.rand(channels) + 0.1
    for shape in ((2, channels, 5, 7), (3, channels, 33, 32)):
        for layout in (torch.channels_last, torch.contiguous_format):
            x = torch.randn(*shape).contiguous(memory_format=layout)
            same_as_torch("_native_batch_norm_legit_no_training.default", [x, weight, bias, mean, var, 0.1, 1e-5])
            for groups in (1, 2, channels):
                same_as_torch("native_group_norm.default", [x, weight, bias, shape[0], channels, shape[2] * shape[3], groups, 1e-5])
                same_as_torch("native_group_norm.default", [x, None, None, shape[0], channels, shape[2] * shape[3], groups, 1e-5])


def test_dense_rows_of_an_index():
    torch.manual_seed(5)
    x, source, index = torch.randn(6, 100), torch.randn(9, 100), torch.randint(0, 6, (9,))
    same_as_torch("index_add.default", [x, 0, index, source])
    same_as_torch("scatter_add.default", [x, 0, index[:, None].expand(9, 100), source])
    same_as_torch("scatter.src", [x, 0, torch.arange(6)[:, None].expand(6, 100), source])


@pytest.mark.parametrize("elems", [1, 15, 17, 70_000])
def test_filled(elems):
    for dtype, value in ((torch.float32, -0.0), (torch.bfloat16, 1.5), (torch.int64, -3), (torch.bool, True), (torch.uint8, 200)):
        same_as_torch("full_like.default", [torch.zeros(elems, dtype=dtype), value])
        same_as_torch("fill.Scalar", [torch.zeros(2 * elems, dtype=dtype)[::2], value])


def whole_operands(dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of one shape, with a row, a column, a number and a transposed one; rows longer than whole vectors and shorter."""

    def x(*shape: int) -> torch.Tensor:
        return torch.randint(0, 2, shape).bool() if dtype == torch.bool else (torch.randint(-3, 4, shape) + torch.randint(0, 2, shape) * 2**40).to(dtype)

    return [(x(3, 203), x(3, 203)), (x(3, 203), x(203)), (x(203), x(3, 203)), (x(3, 203), x(3, 1)), (x(3, 1), x(3, 203)), (x(3, 7), x(3, 7)), (x(70, 65), x(65, 70).t())]


@pytest.mark.parametrize("dtype", (torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool))
def test_integers_and_truths(dtype):
    torch.manual_seed(0)
    names = [f"{name}.Tensor" for name in ("eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or", "bitwise_xor", "mul")]
    names += [f"{name}.default" for name in ("logical_and", "logical_or", "logical_xor", "maximum", "minimum")]
    names += ["add.Tensor", "sub.Tensor"] if dtype != torch.bool else []
    for a, b in whole_operands(dtype):
        for name in names:
            same_as_torch(name, [a, b])
        for name in ("logical_not.default", "bitwise_not.default", "neg.default", "abs.default")[: 2 if dtype == torch.bool else 4]:
            same_as_torch(name, [b])


@pytest.mark.parametrize("dtype", (torch.float64, torch.int64, torch.int32, torch.uint8))
def test_a_divisor_of_zero_is_found_where_it_is(dtype):
    x = torch.ones(3, 700, dtype=dtype)
    for place in (0, 699, 700 + 513, 2 * 700 + 699):
        divisor = torch.full((3, 700), 3, dtype=dtype)
        divisor.view(-1)[place] = 0
        for y in (divisor, divisor[:, :].t().contiguous().t()):
            if dtype.is_floating_point:
                same_as_torch("fmod.Tensor", [x, y])
                continue
            with pytest.raises(ValueError, match="an integer divisor is 0"):
                _core.call_op("aten.fmod.Tensor", [array_of(x), array_of(y)], {}, **OPTIONS)
    same_as_torch("fmod.Tensor", [x, torch.full((3, 700), 3, dtype=dtype)])


CONVERTED = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "F32": torch.float32, "F64": torch.float64,
             "BF16": torch.bfloat16, "F16": torch.float16}
EDGES = [0.0, -0.0, 0.5, -0.5, 1.5, 100.25, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 3e-41]


@pytest.mark.parametrize("to", CONVERTED)
@pytest.mark.parametrize("given", CONVERTED.values())
def test_conversions_of_what_lies_side_by_side(given, to):
    """Against torch where the number is in the range of both; of numbers that are not, the same as of elements that lie apart."""
    torch.manual_seed(0)
    for elems in (1, 63, 64, 65, 700):
        x = (torch.rand(elems) * 127 * (torch.rand(elems) < 0.8)).to(given)
        expected = torch.ops.aten._to_copy(x, dtype=CONVERTED[to])
        assert np.array_equal(bits(array_of(expected)), bits(converted(x, to)))
    x = torch.tensor(EDGES * 9, dtype=torch.float64)
    x = (x if given.is_floating_point else torch.randint(-(2**62), 2**62, (len(x),))).to(given)
    apart = torch.stack([x, x], 1)[:, 0]
    assert np.array_equal(bits(converted(x, to)), bits(converted(apart, to)))


def converted(x: torch.Tensor, to: str) -> np.ndarray:
    return _core.call_op("aten._to_copy.default", [array_of(x)], {"dtype": {"dtype": to}}, **OPTIONS)


@pytest.mark.parametrize("dtype", (torch.int64, torch.bool, torch.float32, torch.float16))
def test_where_of_broadcast_operands(dtype):
    torch.manual_seed(0)
    for (a, b), (condition, _) in zip(whole_operands(torch.int64), whole_operands(torch.bool)):
        same_as_torch("where.self", [condition, a.to(dtype), b.to(dtype)])
        same_as_torch("where.self", [condition, a.to(dtype), torch.ones((), dtype=dtype)])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_rests_of_blocks_with_extreme_operands(dtype):
    """Ordinary operands with zeros, infinities, NaN, subnormals and quotients beyond the vector function's steps among them."""
    torch.manual_seed(0)
    x, y = torch.randn(40_003, dtype=dtype) * 1000, torch.randn(40_003, dtype=dtype)
    for operand, values in ((x, (0.0, -0.0, float("inf"), float("nan"), 1e-44, 3e38)), (y, (0.0, float("-inf"), float("nan"), 1e-44, 3e-39, 3e38))):
        for value in values:
            operand[torch.rand(len(operand)) < 0.004] = value
    y[::11] = x[::11] / 7
    for name in ("fmod.Tensor", "remainder.Tensor", "floor_divide.default"):
        same_as_torch(name, [x, y])
        same_as_torch(name, [x[:-1:3], y[1::3]])
        same_as_torch(name, [x, y[4:5]])
