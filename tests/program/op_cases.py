"""Arguments for every ATen op that the executor knows: what `test_ops` runs in torch and in C.

CASES maps an op's name to a list of (args, kwargs). Tensors are torch's; everything else is what the op takes.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

F32, F64, F16, BF16 = torch.float32, torch.float64, torch.float16, torch.bfloat16
I64, I32, I16, I8, U8, BOOL = torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool
FLOATS = (F32, F64, BF16, F16)
INTS = (I64, I32, I16, I8, U8)

_generator = torch.Generator().manual_seed(20240607)


def rand(*shape: int, dtype: torch.dtype = F32, low: float = -3.0, high: float = 3.0) -> torch.Tensor:
    if dtype == BOOL:
        return torch.randint(0, 2, shape, generator=_generator).bool()
    if not dtype.is_floating_point:
        return torch.randint(0 if dtype == U8 else -9, 10, shape, generator=_generator).to(dtype)
    return (torch.rand(shape, generator=_generator, dtype=F64) * (high - low) + low).to(dtype)


def index(high: int, *shape: int, dtype: torch.dtype = I64) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=_generator).to(dtype)


def layouts(dtype: torch.dtype = F32, **kw: Any) -> list[torch.Tensor]:
    """The same sizes in many memory orders: row-major, permuted, sliced, expanded, empty, scalar, channels last."""
    return [
        rand(3, 4, dtype=dtype, **kw),
        rand(4, 3, dtype=dtype, **kw).t(),
        rand(2, 3, 5, dtype=dtype, **kw).permute(2, 0, 1),
        rand(4, 6, dtype=dtype, **kw)[::2, 1:5],
        rand(3, 1, dtype=dtype, **kw).expand(3, 4),
        rand(dtype=dtype, **kw),
        rand(0, 3, dtype=dtype, **kw),
        rand(2, 3, 2, 4, dtype=dtype, **kw).contiguous(memory_format=torch.channels_last),
        rand(1, 17, 1, dtype=dtype, **kw).transpose(0, 2),
    ]


def one(*args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    return list(args), kwargs


def unary(dtypes=FLOATS, **kw: Any) -> list:
    return [one(x) for d in dtypes for x in layouts(d, **kw)]


PAIRS_OF_SHAPES = [
    ((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1)), ((), (3, 4)), ((3, 4), ()), ((), ()), ((0, 3), (1, 3)),
]  # fmt: skip


def binary(dtypes, mixed=(), low: float = -3.0) -> list:
    cases = [one(rand(*a, dtype=d, low=low), rand(*b, dtype=d, low=low)) for d in dtypes for a, b in PAIRS_OF_SHAPES]
    for a, b in zip(layouts(dtypes[0], low=low), layouts(dtypes[0], low=low)):
        cases.append(one(a, b))
        cases.append(one(a, b.contiguous()))
        cases.append(one(a.contiguous(), b))
    for da, db in mixed:
        for a, b in (((3, 4), (4,)), ((), (3, 4)), ((3, 4), ()), ((), ())):
            cases.append(one(rand(*a, dtype=da, low=low), rand(*b, dtype=db, low=low)))
    return cases


MIXED_ALL = [p for p in itertools.permutations((F32, F64, BF16, F16, I64, I32, U8, BOOL), 2)]
MIXED_INTS = [p for p in itertools.permutations((I64, I32, I8, U8, BOOL), 2)]
NUMBERS = (2, -1, 2.5, 0.1, True)


def with_number(dtypes=(*FLOATS, I64, I32), numbers=NUMBERS) -> list:
    return [one(rand(*shape, dtype=d), n) for d in dtypes for n in numbers for shape in ((3, 4), ())] + [
        one(x, numbers[0]) for x in layouts()
    ]


def like(cases: list, **kwargs: Any) -> list:
    return [(a, {**k, **kwargs}) for a, k in cases]


CASES: dict[str, list] = {}


def add(name: str, cases: list) -> None:
    CASES[f"aten.{name}" if "." in name else f"aten.{name}.default"] = cases


def in_place(name: str, cases: list) -> None:
    """Both forms. The in-place one takes those cases whose result fits into the first argument (torch decides)."""
    add(name, cases)
    op, _, overload = name.partition(".")
    add(f"{op}_.{overload or 'default'}", cases)


# ---------------------------------------------------------------- views
for name in ("alias", "detach", "lift_fresh", "squeeze"):
    add(name, [one(x) for x in layouts()] + [one(rand(1, 3, 1))])
add("view", [one(rand(3, 4), [2, 6]), one(rand(3, 4), [-1]), one(rand(2, 6, 5)[:, :3], [2, 3, 5, 1]), one(rand(0, 3), [3, 0]),
             one(rand(), [1, 1]), one(rand(1), []), one(rand(4, 6).t(), [2, 3, 4]), one(rand(2, 3, 4), [6, -1]),
             one(rand(2, 1, 4).transpose(0, 1), [1, 8])])  # fmt: skip
add("_unsafe_view", [one(rand(3, 4), [2, 6]), one(rand(3, 4), [-1])])
add("reshape", [one(rand(3, 4), [2, 6]), one(rand(3, 4).t(), [2, 6]), one(rand(3, 1).expand(3, 4), [12])])
add("_reshape_alias", [one(rand(3, 4), [2, 6], [6, 1])])
add("view_as", [one(rand(3, 4), rand(2, 6))])
add("view.dtype", [one(rand(3, 4), I32), one(rand(3, 4, dtype=BF16), I16)])
add("transpose.int", [one(x, 0, -1) for x in layouts()] + [one(rand(2, 3, 4), 1, 2)])
add("t", [one(rand(3, 4)), one(rand(3)), one(rand())])
add("permute", [one(rand(2, 3, 4), [2, 0, 1]), one(rand(2, 3, 4), [0, -1, 1])])
add("unsqueeze", [one(x, d) for x in layouts() for d in (0, -1)] + [one(rand(2, 3), 1)])
add("squeeze.dim", [one(rand(1, 3, 1), d) for d in (0, 1, -1)] + [one(rand(), 0)])
add("squeeze.dims", [one(rand(1, 3, 1, 1), [0, 2]), one(rand(1, 3, 1), [1])])
add("expand", [one(rand(3, 1), [3, 4]), one(rand(3, 1), [2, -1, 4]), one(rand(), [2, 2]), one(rand(1, 0), [3, 0])])
add("slice.Tensor", [one(rand(5, 6), 0, 1, 4), one(rand(5, 6), 1, -3, 9223372036854775807), one(rand(5, 6), 1, 0, 6, 2),
                     one(rand(5, 6)), one(rand(5, 6), -1, 4, 2), one(rand(5, 6), 0, None, -1)])  # fmt: skip
add("narrow", [one(rand(5, 6), 1, 2, 3), one(rand(5, 6), 0, -2, 2)])
add("select.int", [one(rand(5, 6), 0, -1), one(rand(5, 6), 1, 2), one(rand(3), 0, 0)])
add("unbind.int", [one(rand(3, 4), 0), one(rand(3, 4), -1)])
add("split.Tensor", [one(rand(5, 4), 2), one(rand(5, 4), 3, -1), one(rand(0, 4), 2)])
add("chunk", [one(rand(5, 4), 2), one(rand(5, 4), 3, 1), one(rand(5, 4), 9)])
add("split_with_sizes", [one(rand(5, 4), [2, 3]), one(rand(5, 4), [0, 1, 3], 1)])
add("as_strided", [one(rand(12), [2, 3], [1, 4]), one(rand(12), [2, 2], [3, 1], 2), one(rand(12), [3, 3], [1, 1])])
add("diagonal", [one(rand(3, 4)), one(rand(3, 4), 1), one(rand(2, 3, 4), -1, 1, 2), one(rand(3, 4), 9)])
add("unfold", [one(rand(7), 0, 3, 2), one(rand(3, 7), 1, 2, 1)])

# ---------------------------------------------------------------- pointwise
for name in ("neg", "square"):
    in_place(name, unary((*FLOATS, *INTS)))
in_place("abs", unary((*FLOATS, *INTS)))
in_place("sign", unary((*FLOATS, *INTS, BOOL)))
in_place("relu", unary((*FLOATS, I64, I32)))
in_place("bitwise_not", unary((*INTS, BOOL)))
in_place("logical_not", unary((*FLOATS, *INTS, BOOL)))
for name in ("exp", "sin", "cos", "tanh", "sigmoid", "erf"):
    in_place(name, unary((*FLOATS, I64, BOOL)))
for name in ("log", "rsqrt", "sqrt", "reciprocal"):
    in_place(name, unary((*FLOATS,), low=0.25) + unary((U8,)))
for name in ("floor", "ceil", "round"):
    in_place(name, unary((*FLOATS, I64, I32)))
in_place("silu", unary())
in_place("gelu", unary() + like(unary((F32, BF16)), approximate="tanh"))
POW_NUMBERS = [
    *[one(x, e) for d in FLOATS for x in layouts(d, low=0.25) for e in (2, 3, 0.5, -0.5, -1, -2, 1.7, 0)],
    *[one(rand(3, 4, dtype=d), e) for d in (I64, I32) for e in (0, 1, 2, 3, 2.0, 0.5)],
]
add("pow.Tensor_Scalar", POW_NUMBERS)
add("pow_.Scalar", POW_NUMBERS)
in_place("clamp", [one(x, lo, hi) for d in (*FLOATS, I64) for x in layouts(d) for lo, hi in ((-1, 1), (None, 0), (0.5, None))])
in_place("clamp_min", [one(x, 0) for d in (*FLOATS, I64) for x in layouts(d)] + [one(rand(3, dtype=I64), 0.5)])
in_place("clamp_max", [one(x, 1) for d in (*FLOATS, I64) for x in layouts(d)])
in_place("hardtanh", [one(x) for x in layouts()] + [one(x, -2, 2.0) for x in layouts()])
for name in ("add", "sub"):
    kinds = (*FLOATS, *INTS) + ((BOOL,) if name == "add" else ())
    mixed = [p for p in MIXED_ALL if name == "add" or BOOL not in p]
    numbers = with_number(numbers=NUMBERS if name == "add" else NUMBERS[:-1])
    in_place(f"{name}.Tensor", binary(kinds, mixed) + numbers + like(binary((F32, I64)), alpha=2) + like(binary((F32, F64, BF16)), alpha=0.5))
    in_place(f"{name}.Scalar", numbers + [one(rand(3, 4), 2, 3)])
add("rsub.Tensor", binary((F32, I64)) + like(binary((F32,)), alpha=2))
add("rsub.Scalar", with_number((*FLOATS, I64), (2, 2.5, -1)) + [one(rand(3, 4), 1.5, 2)])
in_place("mul.Tensor", binary((*FLOATS, *INTS, BOOL), MIXED_ALL) + with_number())
in_place("mul.Scalar", with_number())
in_place("div.Tensor", binary((*FLOATS, I64), [p for p in MIXED_ALL if BOOL not in p], low=0.5) + with_number())
in_place("div.Scalar", with_number(numbers=(2, 2.5, 0.1)))
add("maximum", binary((*FLOATS, *INTS, BOOL), MIXED_ALL))
add("minimum", binary((*FLOATS, *INTS, BOOL), MIXED_ALL))
add("max.other", binary((F32, I64)))
add("min.other", binary((F32, I64)))
for name in ("pow.Tensor_Tensor", "pow_.Tensor"):
    add(name, binary((F32, F64), low=0.5) + [one(rand(3, dtype=I64), torch.tensor([0, 1, 2]))])
add("pow.Scalar", [one(2.0, rand(3, 4)), one(3, rand(3, 4)), one(2, torch.tensor([0, 1, 2]))])
in_place("remainder.Tensor", binary((F32, F64), low=0.5) + [one(rand(3, 4, dtype=d), rand(3, 4, dtype=d).abs() + 1) for d in INTS])
in_place("remainder.Scalar", with_number((F32, F64, I64), (2, 2.5, -3)))
for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    in_place(f"{name}.Tensor", binary((BOOL, *INTS), MIXED_INTS))
    in_place(f"{name}.Scalar", with_number((I64, I32), (3, True))[:-9])
for name in ("logical_and", "logical_or"):
    in_place(name, binary((BOOL, F32, I64), [(F32, I64), (BOOL, F32)]))
for name in ("eq", "ne", "lt", "le", "gt", "ge"):
    in_place(f"{name}.Tensor", binary((*FLOATS, *INTS, BOOL), MIXED_ALL))
    in_place(f"{name}.Scalar", with_number() + [one(torch.tensor([0.1, 0.2], dtype=BF16), 0.1)])
_mask = rand(3, 4, dtype=BOOL)
add("where.self", [one(m, a, b) for m in (_mask, _mask.t().contiguous().t(), rand(4, dtype=BOOL), rand(dtype=BOOL))
                   for a, b in ((rand(3, 4), rand(4)), (rand(), rand(3, 4, dtype=F64)), (rand(4, 3).t(), rand(3, 1)),
                                (rand(3, 4, dtype=I64), rand(dtype=F32)), (rand(3, 4, dtype=BF16), rand(3, 4, dtype=BF16)),
                                (rand(3, 4, dtype=BOOL), rand(4, dtype=BOOL)))])  # fmt: skip
add("where.ScalarOther", [one(_mask, rand(3, 4), 2.5), one(_mask, rand(3, 4, dtype=I64), 1.5), one(_mask, rand(4, dtype=BF16), 1)])
add("where.ScalarSelf", [one(_mask, 2.5, rand(3, 4)), one(_mask, 0, rand(3, 4, dtype=I64))])
add("where.Scalar", [one(_mask, 2.5, 1.0), one(_mask, 1, 0)])
in_place("masked_fill.Scalar", [one(x, m, v) for x in (rand(3, 4), rand(4, 3).t(), rand(3, 4, dtype=BF16)) for m in (_mask, _mask[:1])
                                for v in (float("-inf"), 0, 2.5)] + [one(rand(3, 4, dtype=I64), _mask, 7)])  # fmt: skip
in_place("masked_fill.Tensor", [one(rand(3, 4), _mask, torch.tensor(2.5)), one(rand(3, 4, dtype=F64), _mask[0], torch.tensor(3))])

# ---------------------------------------------------------------- making
_dtypes = [{}] + [{"dtype": d} for d in (F32, F64, BF16, F16, I64, I32, U8, BOOL)]
for name in ("zeros", "ones"):
    add(name, [one([2, 3], **k) for k in _dtypes] + [one([]), one([0, 2]), one([3], device=torch.device("cpu"), pin_memory=False)])
add("empty.memory_format", [one([2, 0]), one([0], dtype=I64)])
add("empty_strided", [one([2, 0], [1, 1])])
add("full", [one([2, 3], v, **k) for v in (2, 1.5, True) for k in _dtypes if k.get("dtype") != BOOL] + [one([2], float("-inf"))])
add("scalar_tensor", [one(v, **k) for v in (2, 1.5, True) for k in _dtypes])
for name in ("new_zeros", "new_ones"):
    add(name, [one(rand(2, dtype=d), [3, 2], **k) for d in (F32, I64, BOOL) for k in _dtypes])
add("new_empty", [one(rand(2), [0, 2])])
add("new_full", [one(rand(2, dtype=d), [3, 2], 3, **k) for d in (F32, I64) for k in _dtypes])
for name in ("zeros_like", "ones_like"):
    add(name, [one(x, **k) for x in layouts() for k in ({}, {"dtype": I64}, {"memory_format": torch.contiguous_format})])
add("empty_like", [one(rand(0, 3)), one(rand(0, 3), dtype=I64)])
add("full_like", [one(x, 1.5, **k) for x in layouts() for k in ({}, {"dtype": F64}, {"memory_format": torch.preserve_format})])
add("arange", [one(5), one(5.5), one(0), one(5, dtype=F32), one(4, dtype=I32), one(3, dtype=BF16)])
add("arange.start", [one(2, 7), one(1.5, 6), one(2, 7, dtype=F32), one(-3, 3, device=torch.device("cpu"))])
add("arange.start_step", [one(0, 64, 2, dtype=F32), one(10, 0, -3), one(0.0, 1.0, 0.1), one(0, 64, 2, dtype=I64)])
in_place("zero", [one(x) for d in (F32, I64, BOOL) for x in layouts(d)[:4]])
in_place("fill.Scalar", [one(x, v) for d in (F32, BF16, I64) for x in layouts(d)[:4] for v in (2, -1)])
in_place("fill.Tensor", [one(x, torch.tensor(v)) for d in (F32, I64) for x in layouts(d)[:4] for v in (2, -1)])

# ---------------------------------------------------------------- moving
add("clone", [one(x, **k) for d in (F32, BF16, I64, BOOL) for x in layouts(d) for k in ({}, {"memory_format": torch.contiguous_format})])
add("_to_copy", [one(x, dtype=to) for d in (F32, F64, BF16, F16, I64, I32, U8, BOOL) for to in (F32, F64, BF16, F16, I64, I32, BOOL)
                 for x in layouts(d, low=0.0)[:4]] + [one(rand(3, 4).t(), device=torch.device("cpu"), dtype=F64, non_blocking=False)])  # fmt: skip
add("contiguous", [one(x) for x in layouts()])
in_place("copy", [one(rand(3, 4), rand(4)), one(rand(4, 3).t(), rand(3, 4, dtype=F64)), one(rand(3, dtype=I64), rand(3)),
                  one(rand(3, 4, dtype=BF16), rand(3, 4)), one(rand(2, dtype=BOOL), rand(2))])  # fmt: skip
add("cat", [one([rand(2, 3), rand(4, 3)]), one([rand(2, 3), rand(2, 1)], -1), one([rand(0), rand(2, 3)]), one([rand(3, 2).t()] * 2, 1),
            one([rand(2, 3), rand(2, 3, dtype=F64)]), one([rand(2, dtype=I64), rand(2)]), one([rand(2, 0), rand(2, 3)], 1)])  # fmt: skip
add("stack", [one([rand(2, 3)] * 3), one([rand(2, 3), rand(3, 2).t()], -1), one([rand(), rand()]), one([rand(2, 3)] * 2, 1)])
add("repeat", [one(rand(3, 4), [2, 1]), one(rand(4, 3).t(), [2, 3, 2]), one(rand(3), [0]), one(rand(), [2, 2])])
add("constant_pad_nd", [one(rand(3, 4), [1, 2]), one(rand(3, 4), [0, 1, 2, 0], 1.5), one(rand(3, 4), [-1, 1]), one(rand(3, 4), [0, -2, -1, 3])])
for name in ("tril", "triu"):
    in_place(name, [one(x, k) for x in (rand(4, 5), rand(5, 4).t(), rand(2, 3, 3), rand(3, 3, dtype=BOOL)) for k in (0, 1, -2, 9, -9)])

# ---------------------------------------------------------------- reductions
_reducible = [x for x in layouts() if x.numel()]
add("sum", [one(x, **k) for d in (*FLOATS, *INTS, BOOL) for x in layouts(d) for k in ({}, {"dtype": F64}, {"dtype": F32})])
_dims = [[0], [-1], [0, 1], [], None]
_two = lambda dtypes: [rand(3, 4, dtype=d) for d in dtypes] + [rand(4, 3).t(), rand(2, 3, 5).permute(2, 0, 1)]  # noqa: E731
_keep = [(d, k) for d in _dims for k in (False, True)]
add("sum.dim_IntList", [one(x, d, k) for x in _two((*FLOATS, *INTS, BOOL)) for d, k in _keep] + [one(rand(3, 4), [1], dtype=F64)])
add("mean", [one(x) for d in FLOATS for x in layouts(d)] + [one(rand(3, dtype=I64), dtype=F32)])
add("mean.dim", [one(x, d, k) for x in _two(FLOATS) for d, k in _keep] + [one(rand(3, 64), [-1], True)])
add("prod", [one(x) for d in (F32, F64, I64, BOOL) for x in layouts(d)])
add("prod.dim_int", [one(x, d, k) for x in _two((F32, F64, I64)) for d in (0, -1) for k in (False, True)])
for name in ("any", "all"):
    add(name, [one(x) for d in (BOOL, F32, I64, U8) for x in layouts(d)])
    add(f"{name}.dim", [one(x, d, k) for x in _two((BOOL, F32, I64, U8)) for d in (0, -1) for k in (False, True)])
    add(f"{name}.dims", [one(x, d, k) for x in _two((BOOL, I64)) for d, k in _keep if d != []])
for name in ("max", "min"):
    add(name, [one(x) for d in (*FLOATS, I64, BOOL) for x in layouts(d) if x.numel()])
    add(f"{name}.dim", [one(x, d, k) for x in _two((*FLOATS, I64)) for d in (0, -1) for k in (False, True)])
for name in ("amax", "amin"):
    add(name, [one(x, d, k) for x in _two((*FLOATS, I64, BOOL)) for d, k in _keep if d is not None])
for name in ("argmax", "argmin"):
    add(name, [one(x, d, k) for x in [rand(5, 7), rand(7, 5).t(), rand(4, 6, dtype=F64), rand(5, 7, dtype=BF16)] for d in (0, -1, None)
               for k in (False, True)] + [one(rand())])  # fmt: skip
for name in ("var", "var_mean"):
    add(name, [one(rand(5, 6)), one(rand(5, 6, dtype=F64), False)])
    add(f"{name}.dim", [one(x, d, u, k) for x in _two(FLOATS) for d in ([0], [-1]) for u in (True, False) for k in (True, False)])
    add(f"{name}.correction", [one(x, d, correction=c, keepdim=k) for x in _two((F32, F64)) for d in ([0], [-1], None) for c in (0, 1, None)
                               for k in (True, False)])  # fmt: skip
in_place("cumsum", [one(x, d) for x in _two((*FLOATS, I64, I32, BOOL)) for d in (0, -1)] + [one(rand(3, 4, dtype=I32), 0, dtype=F32)])
for name in ("_softmax", "_log_softmax"):
    add(name, [one(x, d, False) for x in _two(FLOATS) for d in (0, -1)] + [one(rand(), 0, False), one(rand(2, 300), -1, False)])
for name in ("softmax.int", "log_softmax.int"):
    add(name, [one(x, d) for x in _two(FLOATS) for d in (0, -1)] + [one(rand(3, 4, dtype=BF16), -1, F32)])

# ---------------------------------------------------------------- products
_products = [(rand(3, 5, dtype=d), rand(5, 4, dtype=d)) for d in FLOATS] + [(rand(5, 3).t(), rand(4, 5).t()), (rand(1, 5), rand(5, 4))]
add("mm", [one(a, b) for a, b in _products] + [one(rand(0, 5), rand(5, 4)), one(rand(3, 0), rand(0, 4))])
in_place("addmm", [one(c.to(a.dtype), a, b, **k) for a, b in _products for c in (rand(4), rand(a.shape[0], 4), rand(1, 1))
                   for k in ({}, {"alpha": 0.5, "beta": 2}, {"beta": 0})])  # fmt: skip
_stacks = [(rand(2, 3, 5, dtype=d), rand(2, 5, 4, dtype=d)) for d in FLOATS] + [(rand(3, 2, 5).transpose(0, 1), rand(2, 4, 5).mT)]
add("bmm", [one(a, b) for a, b in _stacks] + [one(rand(2, 1, 3), rand(2, 3, 1))])
in_place("baddbmm", [one(c.to(a.dtype), a, b, **k) for a, b in _stacks for c in (rand(4), rand(2, 3, 4)) for k in ({}, {"alpha": 0.5, "beta": 2})])
add("linear", [one(x, rand(4, 5, dtype=x.dtype), b) for x in (rand(5), rand(3, 5), rand(2, 3, 5), rand(3, 5, dtype=F64))
               for b in (None, rand(4, dtype=x.dtype))])  # fmt: skip
_q, _k, _v = rand(2, 4, 5, 8), rand(2, 4, 7, 8), rand(2, 4, 7, 8)
add("_scaled_dot_product_flash_attention_for_cpu", [
    one(_q, _k, _v), one(_q, _k, _v, scale=0.3), one(_q, _k[:, :, :5], _v[:, :, :5], 0.0, True), one(_q, _k, _v, attn_mask=rand(1, 1, 5, 7)),
    one(_q.transpose(1, 2).contiguous().transpose(1, 2), _k, _v, attn_mask=rand(2, 1, 5, 7)),
])  # fmt: skip

# ---------------------------------------------------------------- indices
add("embedding", [one(rand(9, 4, dtype=d), index(9, *s, dtype=t)) for d in FLOATS for s in ((3,), (2, 3), ()) for t in (I64, I32)]
    + [one(rand(4, 9).t(), index(9, 3), 0)])  # fmt: skip
add("gather", [one(rand(5, 4, dtype=d), 0, index(5, 2, 3)) for d in (*FLOATS, I64, BOOL)] + [one(rand(4, 5).t(), -1, index(4, 5, 6))])
add("index_select", [one(rand(5, 4, dtype=d), 0, index(5, 3)) for d in (*FLOATS, I64, BOOL)] + [one(rand(4, 5).t(), 1, index(4, 2, dtype=I32))])
add("isin.Tensor_Tensor", [one(rand(3, 4, dtype=d), rand(n, dtype=d), invert=i) for d in (I64, I32, U8) for n in (0, 1, 5) for i in (True, False)]
    + [one(rand(3, 4, dtype=F32), rand(2, dtype=I64)), one(rand(dtype=I64), rand(3, dtype=I64))])  # fmt: skip
_indices = [
    (rand(5, 4, dtype=F32), [index(5, 3)]), (rand(5, 4), [None, index(4, 3)]), (rand(5, 4), [index(5, 3, 1), index(4, 2)]),
    (rand(5, 4, 6), [index(5, 3), None, index(6, 3)]), (rand(5, 4, 6), [None, index(4, 2, 3), index(6, 3)]),
    (rand(5, 4, dtype=I64), [torch.tensor(-2)]), (rand(5, 4), [rand(5, 4, dtype=BOOL)]), (rand(5, 4), [rand(5, dtype=BOOL)]),
    (rand(6, 4, 5).permute(2, 1, 0), [index(5, 3)]), (rand(6, 4, 5).permute(2, 1, 0), [None, None, index(6, 3)]),
    (rand(5, 4, dtype=BOOL), [index(5, 0)]), (rand(5, 4, dtype=BF16), [index(5, 3, dtype=I32)]),
]  # fmt: skip
add("index.Tensor", [one(x, i) for x, i in _indices])
add("_unsafe_index.Tensor", [one(x, i) for x, i in _indices[:3]])
add("_local_scalar_dense", [one(rand(dtype=d)) for d in (F32, I64, BOOL)] + [one(rand(1, 1))])

# ---------------------------------------------------------------- norms
_norm_inputs = [rand(3, 5, 16), rand(16, 3).t(), rand(2, 64, dtype=F64), rand(4, 300)]
add("native_layer_norm", [one(x, [x.shape[-1]], w, b, 1e-5) for x in _norm_inputs
                          for w, b in ((None, None), (rand(x.shape[-1], dtype=x.dtype), rand(x.shape[-1], dtype=x.dtype)))]
    + [one(rand(2, 3, 4), [3, 4], rand(3, 4), None, 1e-6)])  # fmt: skip
add("layer_norm", [one(x, [x.shape[-1]], rand(x.shape[-1], dtype=x.dtype)) for x in _norm_inputs])
add("rms_norm", [one(x, [x.shape[-1]], w, e) for x in _norm_inputs for w in (None, rand(x.shape[-1], dtype=x.dtype)) for e in (None, 1e-6)])
