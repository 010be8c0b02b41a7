"""What each kernel is asked: for every op of the kernel table the ATen op and the operands. What it promises: porting.ops_table.

Not here: gemm, bmm and sdpa_flash, which have their own tests.
"""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

TORCH = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16, "BOOL": torch.bool, "U8": torch.uint8,
         "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
FLOATS = ("F32", "F64", "BF16", "F16")
INTS = ("U8", "I8", "I16", "I32", "I64")
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e-45, 3e38, -3e38, 1.0, -1.0, 88.7, -103.5, 20.5, -20.5, 0.5, 2.5]
SHAPES = [(0,), (1,), (7,), (8,), (9,), (513,), (33, 17), (3, 5, 70)]


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as NumPy sees it, with its strides."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    if tensor.dtype == torch.float8_e4m3fn:
        return tensor.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
    if tensor.dtype == torch.float8_e5m2:
        return tensor.view(torch.uint8).numpy().view(ml_dtypes.float8_e5m2)
    return tensor.numpy()


def values(shape, dtype, special=True) -> torch.Tensor:
    """Random values of this shape with NaN, infinities, zeros and subnormals strewn in."""
    torch_dtype = TORCH[dtype]
    count = int(np.prod(shape))
    if torch_dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if not torch_dtype.is_floating_point:
        return torch.randint(0 if dtype == "U8" else -50, 50, shape).to(torch_dtype)
    flat = torch.randn(count) * 3
    if special and count >= 20:
        flat[torch.randperm(count)[:len(SPECIAL)]] = torch.tensor(SPECIAL)
    return flat.reshape(shape).to(torch_dtype)


def layouts(dtype, special=True):
    """Tensors of many shapes and strides."""
    for shape in SHAPES:
        yield f"{shape}", values(shape, dtype, special)
    yield "transposed", values((33, 40), dtype, special).t()
    yield "every second", values((513, 2), dtype, special)[:, 0]
    yield "slice", values((20, 64), dtype, special)[:, 3:50]
    yield "number", values((1,), dtype, special)[0]
    yield "permuted", values((6, 5, 70), dtype, special).permute(2, 0, 1)
    yield "long", values((70001,), dtype, special)


@dataclass
class Case:
    """One op of the kernel table. ``arguments(x)`` gives (args, kwargs) of the ATen op for the tensor x."""
    aten: str
    dtypes: tuple[str, ...]
    arguments: Callable[[torch.Tensor], list[tuple[list[Any], dict[str, Any]]]] = lambda x: [([x], {})]
    special: bool = True
    row_major: bool = False  # call_op lays strided arrays out anew, and the order of a sum depends on strides


def other(x):
    """Operands for a binary op: same shape, a row, a number."""
    name = next(key for key, value in TORCH.items() if value == x.dtype)
    result = [([x, values(tuple(x.shape), name)], {})]
    if x.dim() > 1:
        result.append(([x, values((x.shape[-1],), name)], {}))
        result.append(([x, values((x.shape[0],) + (1,) * (x.dim() - 1), name)], {}))
    return result


def positive_other(x):
    """As other, without zeros, by which integers cannot be divided."""
    divisor = torch.randint(1, 40, tuple(x.shape)).to(x.dtype)
    return [([torch.nan_to_num(x, 0.0, 0.0, 0.0).clamp(-1000, 1000) if x.dtype.is_floating_point else x, divisor], {})]


def dims(x, keepdim=True):
    return [([x, [d], keepdim], {}) for d in range(x.dim())] + [([x, list(range(x.dim())), keepdim], {})]


def one_dim(x):
    return [([x, d], {}) for d in range(x.dim())]


def filled(x, *arguments):
    """Only where x has elements."""
    return [(list(a), {}) for a in arguments] if x.numel() else []


UNARY = {name: FLOATS + INTS for name in ("neg", "abs", "square", "relu", "sign")} | {name: FLOATS + INTS for name in ("floor", "ceil", "round")}
CASES: dict[str, Case] = {name: Case(f"aten.{name}.default", dtypes + (("BOOL",) if name == "sign" else ())) for name, dtypes in UNARY.items()}
CASES |= {name: Case(f"aten.{name}.default", FLOATS, row_major=True) for name in
          ("exp", "log", "sin", "cos", "tanh", "sigmoid", "silu", "erf", "rsqrt", "sqrt", "reciprocal")}
CASES |= {name: Case(f"aten.{name}.Tensor", FLOATS + INTS, other) for name in ("add", "sub", "mul")}
CASES["add"].dtypes += ("BOOL",)
CASES["mul"].dtypes += ("BOOL",)
CASES |= {name: Case(f"aten.{name}.default", FLOATS + INTS + ("BOOL",), other) for name in ("maximum", "minimum", "logical_and", "logical_or")}
CASES |= {name: Case(f"aten.{name}.Tensor", FLOATS + INTS + ("BOOL",), other) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
CASES |= {name: Case(f"aten.{name}.Tensor", INTS + ("BOOL",), other) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")}
CASES |= {
    "logical_not": Case("aten.logical_not.default", FLOATS + INTS + ("BOOL",)),
    "bitwise_not": Case("aten.bitwise_not.default", INTS + ("BOOL",)),
    "div": Case("aten.div.Tensor", FLOATS, other),
    "remainder": Case("aten.remainder.Tensor", FLOATS + INTS, positive_other),
    "gelu": Case("aten.gelu.default", FLOATS, lambda x: [([x], {}), ([x], {"approximate": "tanh"})], row_major=True),
    "pow_scalar": Case("aten.pow.Tensor_Scalar", FLOATS + INTS,
                       lambda x: [([x, e], {}) for e in ((2, 3, 0.5, -0.5, -1, -2, 1, 0, 2.5) if x.dtype.is_floating_point else (0, 1, 2, 3))], row_major=True),
    "pow": Case("aten.pow.Tensor_Tensor", FLOATS, lambda x: [([x.abs(), torch.full_like(x, 1.7)], {})], row_major=True),
    "clamp": Case("aten.clamp.default", FLOATS + INTS, lambda x: [([x, 1, 20], {}), ([x, None, 3], {}), ([x, 2, None], {})]),
    "where": Case("aten.where.self", FLOATS + INTS + ("BOOL",), lambda x: [([torch.rand(tuple(x.shape)) < 0.5, x, x.flip(0) if x.dim() else x], {})]),
    "sum": Case("aten.sum.dim_IntList", FLOATS + INTS + ("BOOL",), dims, special=False, row_major=True),
    "mean": Case("aten.mean.dim", FLOATS, dims, special=False, row_major=True),
    "amax": Case("aten.amax.default", FLOATS + INTS + ("BOOL",), lambda x: dims(x) if x.numel() else []),
    "amin": Case("aten.amin.default", FLOATS + INTS + ("BOOL",), lambda x: dims(x) if x.numel() else []),
    "argmax": Case("aten.argmax.default", FLOATS + INTS, lambda x: one_dim(x) if x.numel() else []),
    "argmin": Case("aten.argmin.default", FLOATS + INTS, lambda x: one_dim(x) if x.numel() else []),
    "any": Case("aten.any.dim", FLOATS + INTS + ("BOOL",), one_dim),
    "all": Case("aten.all.dim", FLOATS + INTS + ("BOOL",), one_dim),
    "cumsum": Case("aten.cumsum.default", FLOATS + INTS + ("BOOL",), one_dim, special=False),
    "cumprod": Case("aten.cumprod.default", FLOATS + INTS + ("BOOL",), one_dim),
    "cummax": Case("aten.cummax.default", FLOATS + INTS + ("BOOL",), one_dim),
    "cummin": Case("aten.cummin.default", FLOATS + INTS + ("BOOL",), one_dim),
    "softmax": Case("aten._softmax.default", FLOATS, lambda x: [([x, d, False], {}) for d in range(x.dim())] if x.numel() else [], special=False),
    "log_softmax": Case("aten._log_softmax.default", FLOATS, lambda x: [([x, d, False], {}) for d in range(x.dim())] if x.numel() else [], special=False),
}


def rows_of(x):
    """x as rows for a normalisation: at least one dimension, with elements."""
    return x.reshape(-1, x.shape[-1]).contiguous() if x.dim() and x.numel() else None


def layer_norm_arguments(x):
    """One column of half floats is left out: it is 0 times 1 / sqrt(eps), all rounding error in torch's formula for them."""
    rows = rows_of(x)
    if rows is None or (x.element_size() == 2 and rows.shape[1] == 1):
        return []
    cols = rows.shape[1]
    weight, bias = torch.randn(cols).to(x.dtype), torch.randn(cols).to(x.dtype)
    return [([rows, [cols], w, b, eps], {}) for w, b in ((weight, bias), (weight, None), (None, None)) for eps in (1e-12, 1e-5)]


def rms_norm_arguments(x):
    rows = rows_of(x)
    return [] if rows is None else [([rows, [rows.shape[1]], torch.randn(rows.shape[1]).to(x.dtype), 1e-6], {})]


def embedding_arguments(x):
    if x.dim() != 2 or not x.numel():
        return []
    return [([x, torch.randint(0, x.shape[0], shape)], {}) for shape in ((0,), (5,), (2, 3))]


def gather_arguments(x):
    return [([x, d, torch.randint(0, x.shape[d], tuple(x.shape))], {}) for d in range(x.dim())] if x.numel() else []


def index_select_arguments(x):
    return [([x, d, torch.randint(0, x.shape[d], (9,))], {}) for d in range(x.dim())] if x.numel() else []


def index_arguments(x):
    if x.dim() < 2 or not x.numel():
        return []
    first, second = torch.randint(-x.shape[0], x.shape[0], (4, 1)), torch.randint(0, x.shape[1], (3,))
    return [([x, [first]], {}), ([x, [None, second]], {}), ([x, [first, second]], {})]


EVERY = FLOATS + INTS + ("BOOL",)
EIGHT = ("F8_E4M3", "F8_E5M2")
FINITE = dict(special=False)


def cast_arguments(x):
    targets = list(TORCH.values()) if not x.dtype.is_floating_point else [TORCH[n] for n in FLOATS + EIGHT]
    return [([x], {"dtype": target}) for target in targets]


CASES |= {
    "layer_norm": Case("aten.native_layer_norm.default", FLOATS, layer_norm_arguments, special=False),
    "rms_norm": Case("aten.rms_norm.default", FLOATS, rms_norm_arguments, special=False),
    "embedding": Case("aten.embedding.default", FLOATS, embedding_arguments),
    "gather": Case("aten.gather.default", EVERY, gather_arguments),
    "index_select": Case("aten.index_select.default", EVERY, index_select_arguments),
    "index": Case("aten.index.Tensor", EVERY, index_arguments),
    "isin": Case("aten.isin.Tensor_Tensor", FLOATS + INTS, lambda x: [([x, x.flatten()[:3].contiguous()], k) for k in ({}, {"invert": True})]),
    "cast": Case("aten._to_copy.default", EVERY + EIGHT, cast_arguments),
    "fill": Case("aten.full_like.default", EVERY + EIGHT, lambda x: [([x, v], {}) for v in (0, 1, *((2.5, -0.3) if x.dtype.is_floating_point else ()))]),
    "arange": Case("aten.arange.start_step", FLOATS + INTS, lambda x: [([0, 50, 3], {"dtype": x.dtype}), ([3, 90, 2], {"dtype": x.dtype})]),
    "prod": Case("aten.prod.dim_int", EVERY, one_dim, special=False),
    "var": Case("aten.var.correction", FLOATS, lambda x: [([x, [d]], {"correction": 1, "keepdim": True}) for d in range(x.dim()) if x.shape[d] > 1], special=False),
}
CASES["pow"].dtypes += INTS
CASES |= {name: Case(f"aten.{name}.default", FLOATS, row_major=True)
          for name in ("hardswish", "hardsigmoid", "mish", "log1p", "expm1", "log2", "log10", "exp2", "atan", "acos", "asin")}
CASES |= {name: Case(f"aten.{name}.default", FLOATS, lambda x: [([x.clamp(-1.5, 1.5)], {})], special=False) for name in ("tan", "sinh", "cosh")}
CASES |= {
    "trunc": Case("aten.trunc.default", FLOATS),
    "softplus": Case("aten.softplus.default", FLOATS, lambda x: [([x], {}), ([x, 2.5, 3], {})], row_major=True),
    "elu": Case("aten.elu.default", FLOATS, lambda x: [([x], {}), ([x, 1.67, 1.05, 0.5], {})], row_major=True),
    "leaky_relu": Case("aten.leaky_relu.default", FLOATS, lambda x: [([x], {}), ([x, 0.2], {})]),
    "log_sigmoid": Case("aten.log_sigmoid_forward.default", FLOATS, special=False, row_major=True),
    "exp_minus_abs": Case("aten.log_sigmoid_forward.default", FLOATS, special=False, row_major=True),
    "vector_norm": Case("aten.linalg_vector_norm.default", ("F32", "F64"),
                        lambda x: [([x, o, [d]], {}) for o in (2, 1, float("inf")) for d in range(x.dim())] if x.numel() else [], special=False),
    "std": Case("aten.std.correction", FLOATS, lambda x: [([x, [d]], {"correction": 1, "keepdim": True}) for d in range(x.dim()) if x.shape[d] > 1], special=False),
    "fmod": Case("aten.fmod.Tensor", FLOATS + INTS, positive_other),
    "floor_divide": Case("aten.floor_divide.default", FLOATS + INTS, positive_other),
    "trunc_divide": Case("aten.div.Tensor_mode", FLOATS + INTS, lambda x: [(a, {"rounding_mode": "trunc"}) for a, _ in positive_other(x)]),
    "atan2": Case("aten.atan2.default", FLOATS, other, special=False),
    "logical_xor": Case("aten.logical_xor.default", FLOATS + INTS + ("BOOL",), other),
    "shift_left": Case("aten.bitwise_left_shift.Tensor", INTS, lambda x: [([x.abs(), torch.randint(0, 6, tuple(x.shape)).to(x.dtype)], {})]),
    "shift_right": Case("aten.bitwise_right_shift.Tensor", INTS, lambda x: [([x.abs(), torch.randint(0, 6, tuple(x.shape)).to(x.dtype)], {})]),
}
CASES |= {name: Case(f"aten.{name}.default", FLOATS, lambda x: [([x], {})], row_major=True) for name in ("asinh", "erfc", "i0")}
CASES |= {name: Case(f"aten.{name}.default", FLOATS, lambda x: [([(x.clamp(-3, 3) / 4).abs() + 0.1], {})], special=False) for name in ("atanh", "erfinv", "lgamma", "digamma", "sinc")}
CASES["acosh"] = Case("aten.acosh.default", FLOATS, lambda x: [([x.abs() + 1.1], {})], special=False)
CASES |= {name: Case(f"aten.{name}.default", FLOATS, other, special=False) for name in ("hypot", "logaddexp", "logaddexp2")}
CASES |= {
    "copysign": Case("aten.copysign.Tensor", FLOATS, other),
    "nextafter": Case("aten.nextafter.default", FLOATS, other),
    "xlogy": Case("aten.xlogy.Tensor", FLOATS, lambda x: [([x, y.abs() + 0.1], {}) for (_, y), _ in other(x)], special=False),
    "fmax": Case("aten.fmax.default", FLOATS + INTS + ("BOOL",), other),
    "fmin": Case("aten.fmin.default", FLOATS + INTS + ("BOOL",), other),
    "heaviside": Case("aten.heaviside.default", FLOATS + INTS + ("BOOL",), other),
    "gcd": Case("aten.gcd.default", INTS, other),
    "lcm": Case("aten.lcm.default", INTS, other),
}


def three(x):
    """Operands for an op of three: same shape, with the second a row, with the third a number."""
    return [([x, y, (x.flip(0) if x.dim() else x) * 0.25], {"value": value}) for (_, y), _ in other(x) for value in (1, 0.3)]


CASES |= {name: Case(f"aten.{name}.default", FLOATS, three) for name in ("addcmul", "addcdiv")}
CASES |= {
    "lerp": Case("aten.lerp.Scalar", FLOATS, lambda x: [([x, y, w], {}) for (_, y), _ in other(x) for w in (0.3, 0.5, -2)]),
    "threshold": Case("aten.threshold.default", FLOATS, lambda x: [([x, t, 0.7], {}) for t in (0.5, 0.1, -0.2)]),
    "hardshrink": Case("aten.hardshrink.default", ("F32", "F64"), lambda x: [([x, lambd], {}) for lambd in (0.5, 0.1)]),
    "softshrink": Case("aten.softshrink.default", FLOATS, lambda x: [([x, lambd], {}) for lambd in (0.5, 0.1, 0)], row_major=True),
    "prelu": Case("aten._prelu_kernel.default", FLOATS, lambda x: [a for a in other(x) if a[0][1].dim() == x.dim()]),
    "smooth_l1": Case("aten.smooth_l1_loss.default", ("F32", "F64", "BF16"), lambda x: [([x, y, 0, beta], {}) for (_, y), _ in other(x) for beta in (1.0, 0.3)]),
    "huber": Case("aten.huber_loss.default", ("F32", "F64", "F16"), lambda x: [([x, y, 0, delta], {}) for (_, y), _ in other(x) for delta in (1.0, 0.3)]),
    "nan_to_num": Case("aten.nan_to_num.default", FLOATS, lambda x: [([x], {}), ([x, 0.1, 2.5, -1000.0], {})]),
}
