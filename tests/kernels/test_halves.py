"""bf16 and f16: every value of both through the functions that compute them in one pass, and rows around the length up to which they are widened as a whole."""
import pytest
import torch
from kernel_cases import array
from porting import _core, ops_table
from test_kernels import LEVEL, distance, ours, reference

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
UNARY = ("neg", "abs", "relu", "rsqrt", "reciprocal", "floor", "ceil", "round", "sign", "square", "exp", "log", "tanh", "sqrt", "sigmoid", "silu", "gelu")
BY_NUMBER = {"mul": ("aten.mul.Tensor", (0.1, -3, 7e4)), "div": ("aten.div.Tensor", (0.1, -3, 7e-6)), "pow_scalar": ("aten.pow.Tensor_Scalar", (2, 3, 1, 0, 0.5))}


def every_value(dtype: str) -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(DTYPES[dtype])


def variants(op: str, dtype: str) -> list[str]:
    return [variant for name, of, variant, level in _core.kernel_rows() if (name, of) == (op, dtype) and level <= LEVEL and variant in ("ref", "avx2", "avx512")]


def agree(op: str, dtype: str, aten: str, arguments: list, keywords: dict) -> int:
    """Compares each variant with torch, as the label promises, and with "ref", bit for bit; their number."""
    with torch.backends.mkldnn.flags(enabled=False):
        expected = reference(aten, arguments, keywords)
    made = {variant: ours(aten, arguments, keywords, variant=variant) for variant in variants(op, dtype)}
    for variant, actual in made.items():
        allowed = ops_table.label(op, dtype, variant).ulp
        assert distance(expected, actual) <= allowed, (op, dtype, variant, arguments[1:], keywords)
        assert distance(torch.from_numpy(made["ref"].view("int16")).view(DTYPES[dtype]), actual) == 0, (op, dtype, variant, arguments[1:], keywords)
    return len(made)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", UNARY)
def test_every_value(op, dtype):
    assert agree(op, dtype, f"aten.{op}.default", [every_value(dtype)], {}) == 1 + LEVEL


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_with_numbers(dtype):
    x = every_value(dtype)
    for op, (aten, numbers) in BY_NUMBER.items():
        for number in numbers:
            assert agree(op, dtype, aten, [x, number], {}) == 1 + LEVEL
    assert agree("clamp", dtype, "aten.clamp.default", [x, -2.5, 3], {}) == 1 + LEVEL
    assert agree("gelu", dtype, "aten.gelu.default", [x], {"approximate": "tanh"}) == 1 + LEVEL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "maximum", "minimum"])
def test_every_value_with_others(op, dtype):
    """Dense beside dense, and one number on either side."""
    x = every_value(dtype)
    aten = f"aten.{op}.default" if op in ("maximum", "minimum") else f"aten.{op}.Tensor"
    others = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    for arguments in ([x, others], [x.reshape(64, 1024), others[:64].reshape(64, 1)], [others[:64].reshape(64, 1), x.reshape(64, 1024)]):
        assert agree(op, dtype, aten, arguments, {}) == 1 + LEVEL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [15, 64, 1537, 8192, 8193])
def test_rows(dtype, cols):
    """Up to 8192 elements a row is widened as a whole, beyond block by block."""
    x = torch.randn(3, cols, generator=torch.Generator().manual_seed(cols)).to(DTYPES[dtype])
    x[1, cols // 2] = float("nan")
    for op, aten, arguments in (("sum", "aten.sum.dim_IntList", [[1]]), ("mean", "aten.mean.dim", [[1]]), ("softmax", "aten._softmax.default", [1, False]),
                                ("log_softmax", "aten._log_softmax.default", [1, False])):
        assert agree(op, dtype, aten, [x, *arguments], {}) >= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [16, 512, 528, 1536, 2064])
def test_layer_norm(dtype, cols):
    """Whole vectors of 16 in chunks of 16 vectors: less than four, four, more, and a rest."""
    generator = torch.Generator().manual_seed(cols)
    x, weight, bias = (torch.randn(shape, generator=generator).to(DTYPES[dtype]) for shape in ((5, cols), (cols,), (cols,)))
    expected = torch.ops.aten.native_layer_norm.default(x, [cols], weight, bias, 1e-5)
    for variant in variants("layer_norm", dtype):
        for e, a in zip(expected, ours("aten.native_layer_norm.default", [x, [cols], weight, bias, 1e-5], {}, variant=variant)):
            assert distance(e, a) == 0, variant


def test_one_bit_is_seen():
    x = every_value("BF16")
    changed = array(x).copy()
    changed.view("int16")[0x3f80] ^= 1
    assert distance(x, changed) > 0
