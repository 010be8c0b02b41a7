"""What the tests of matrix products and attention share: calls of both sides, bit equality, and the bound of a dot product."""
import ml_dtypes
import numpy as np
import torch
from porting import _core, providers

providers.load_torch_provider()
CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
VARIANTS = [("torch", None), ("openblas", None), ("reference", None), ("reference", "ref"), ("reference", "chain")]
VARIANTS = [(name, variant) for name, variant in VARIANTS if name in _core.providers()]
UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def array(tensor):
    """The tensor's memory as a NumPy array of the same strides; half types through ml_dtypes."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def tensor(values):
    """A copy of an array as a tensor."""
    if values.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(values.copy())


def call(op, *args, provider="torch", variant=None, mkldnn=None, **kwargs):
    """The op in C, with the profile of this process; `mkldnn` in the place of its flag."""
    result = _core.call_op(f"aten.{op}.default", [array(a) for a in args], {name: array(a) for name, a in kwargs.items()},
                           provider=provider, variant=variant, capability=CAPABILITY, num_threads=torch.get_num_threads(),
                           mkldnn=torch.backends.mkldnn.enabled if mkldnn is None else mkldnn)
    return tuple(map(tensor, result)) if isinstance(result, tuple) else tensor(result)


def reference(op, *args, **kwargs):
    return getattr(torch.ops.aten, op).default(*args, **kwargs)


def same_bits(expected, actual):
    """Equal shape, dtype and values; NaN equals NaN, -0 does not equal 0."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return False
    number = ~torch.isnan(expected)
    if not torch.equal(number, ~torch.isnan(actual)):
        return False
    expected, actual = expected[number], actual[number]
    return torch.equal(expected, actual) and torch.equal(torch.signbit(expected), torch.signbit(actual))


def product_error(actual, a, b, c=None, alpha=1.0, beta=1.0):
    """max |actual - exact| in units of what rounding explains: u * sum |a b| (+ one rounding to a half type)."""
    exact = alpha * (a.double() @ b.double())
    scale = abs(alpha) * (a.double().abs() @ b.double().abs())
    if c is not None and beta != 0:
        exact, scale = exact + beta * c.double(), scale + abs(beta) * c.double().abs()
    half = actual.dtype in (torch.float16, torch.bfloat16)
    unit = UNIT[torch.float32] if half else UNIT[actual.dtype]
    error = (actual.double() - exact).abs()
    if half:  # the one rounding to the half type is no error of the product
        error = (error - UNIT[actual.dtype] * exact.abs() - 2.0**-24).clamp(min=0)
    quotient = error / (unit * scale).clamp(min=torch.finfo(torch.float64).tiny)
    return quotient.max().item() if quotient.numel() else 0.0


def matrices(rows, cols, dtype):
    """The same kind of matrix in every layout that ATen tells apart; none so thin in its memory that a call would copy it."""
    yield "row-major", torch.randn(rows, cols, dtype=torch.float64).to(dtype)
    yield "column-major", torch.randn(cols, rows, dtype=torch.float64).to(dtype).t()
    yield "padded", torch.randn(rows, cols + (5 if cols > 8 else 1), dtype=torch.float64).to(dtype)[:, :cols]
    yield "strided", torch.randn(rows, 2 * cols, dtype=torch.float64).to(dtype)[:, ::2]
    yield "expanded", torch.randn(1, cols, dtype=torch.float64).to(dtype).expand(rows, cols)
    if rows == 1:
        yield "a row of no layout", torch.randn(4, 2 * cols, dtype=torch.float64).to(dtype)[::4, ::2]


def stacks(batch, rows, cols, dtype):
    """The same for stacks of matrices."""
    yield "row-major", torch.randn(batch, rows, cols, dtype=dtype)
    yield "column-major", torch.randn(batch, cols, rows, dtype=dtype).transpose(1, 2)
    yield "heads", torch.randn(rows, batch, cols, dtype=dtype).transpose(0, 1)
    yield "strided", torch.randn(batch, rows, 2 * cols, dtype=dtype)[:, :, ::2]
    yield "expanded", torch.randn(1, rows, cols, dtype=dtype).expand(batch, rows, cols)
