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
add("unsafe_split.Tensor", [one(rand(5, 4), 2), one(rand(5, 4), 3, -1)])
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
                                for v in (float("-inf"), 0, 2.5)] + [one(rand(3, 4, dtype=I64), _mask, 7)]
         + [one(torch.arange(12).reshape(3, 4).to(d), _mask, v) for d, v in ((I64, 0.0), (I64, -2.7), (BOOL, 0.5))])  # fmt: skip
in_place("masked_fill.Tensor", [one(rand(3, 4), _mask, torch.tensor(2.5)), one(rand(3, 4, dtype=F64), _mask[0], torch.tensor(3)),
                                one(torch.arange(12).reshape(3, 4), _mask, torch.tensor(1.5))])  # fmt: skip

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
add("arange.start_step", [one(0, 64, 2, dtype=F32), one(10, 0, -3), one(0.0, 1.0, 0.1), one(0, 64, 2, dtype=I64),
                          one(0, 8, 1.0, dtype=I64), one(-5, 9, 2.5, dtype=I64), one(0.9, 7.9, 1.5, dtype=I32)])
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
    + [one(rand(2, 3, 4), [3, 4], rand(3, 4), None, 1e-6)] + [one(torch.ones(2, 3, 0, dtype=d), [0], None, None, 1e-5) for d in (F32, F64, torch.bfloat16)])  # fmt: skip
add("layer_norm", [one(x, [x.shape[-1]], rand(x.shape[-1], dtype=x.dtype)) for x in _norm_inputs])
add("rms_norm", [one(x, [x.shape[-1]], w, e) for x in _norm_inputs for w in (None, rand(x.shape[-1], dtype=x.dtype)) for e in (None, 1e-6)])

# ---------------------------------------------------------------- activations and other functions of elements
for name in ("hardswish", "hardsigmoid", "mish"):
    in_place(name, unary())
for name in ("expm1", "tan", "atan", "sinh", "cosh", "exp2"):
    in_place(name, unary((*FLOATS, I64), low=-1.2, high=1.2))
for name in ("log1p", "log2", "log10"):
    in_place(name, unary(FLOATS, low=0.25) + unary((U8,)))
for name in ("acos", "asin"):
    in_place(name, unary(FLOATS, low=-1.0, high=1.0))
in_place("trunc", unary((*FLOATS, I64, I32)))
add("softplus", unary() + [one(x, 2.5) for x in layouts()] + [one(x, 1, 1.5) for x in layouts()])
in_place("elu", unary() + [one(x, 0.7) for x in layouts()] + [one(x, 1.6732632423543772, 1.0507009873554805) for x in layouts()]
         + [one(x, 1, 1, 0.5) for x in layouts()])  # fmt: skip
in_place("leaky_relu", unary() + [one(x, 0.2) for x in layouts()])
add("log_sigmoid_forward", [one(rand(3, 4)), one(rand(40))])
_divisors = [one(rand(3, 4, dtype=d), rand(3, 4, dtype=d).abs() + 1) for d in (*FLOATS, *INTS)] + [one(rand(3, 4), rand(4)), one(rand(3, 4), -2.5)]
in_place("fmod.Tensor", _divisors[:-1])
in_place("fmod.Scalar", [one(rand(3, 4, dtype=d), n) for d in (F32, F64, I64) for n in (2, -3)])
add("floor_divide", _divisors[:-1] + [one(rand(3, 4, dtype=I64) * 7, torch.tensor(-3)), one(rand(3, 4), torch.tensor(0.0)),
                                        one(7.5, torch.arange(1, 13) / 7)])  # fmt: skip
add("floor_divide_.Tensor", _divisors[:-1])
add("floor_divide.Scalar", [one(rand(3, 4, dtype=d), n) for d in (F32, I64) for n in (2, -3)])
in_place("div.Tensor_mode", [one(*a, rounding_mode=m) for a, _ in _divisors for m in ("floor", "trunc")] + [one(rand(3, 4), rand(3, 4), rounding_mode=None)])
in_place("div.Scalar_mode", [one(rand(3, 4, dtype=d), 3, rounding_mode=m) for d in (F32, I64) for m in ("floor", "trunc")])
in_place("atan2", binary((F32, F64)))
in_place("logical_xor", binary((BOOL, F32, I64)))
for name in ("bitwise_left_shift.Tensor", "bitwise_right_shift.Tensor"):
    in_place(name, [one(rand(3, 4, dtype=d).abs(), index(5, 3, 4, dtype=d)) for d in (I64, I32, U8)])
for name in ("__rshift__.Scalar", "__lshift__.Scalar"):
    add(name, [one(rand(3, 4, dtype=d).abs(), 2) for d in (I64, I32)])
in_place("clamp.Tensor", [one(rand(3, 4, dtype=d), lo, hi) for d in (F32, BF16, I64) for lo, hi in
                          ((rand(4, dtype=d), rand(4, dtype=d)), (None, rand(3, 4, dtype=d)), (rand(3, 1, dtype=d), None))])  # fmt: skip
in_place("clamp_min.Tensor", [one(rand(3, 4, dtype=d), rand(4, dtype=d)) for d in (F32, I64)])
in_place("clamp_max.Tensor", [one(rand(3, 4, dtype=d), rand(4, dtype=d)) for d in (F32, I64)])
add("glu", [one(rand(3, 4, dtype=d), d2) for d in FLOATS for d2 in (-1,)] + [one(rand(6, 5), 0), one(rand(2, 40, 3), 1), one(rand(4, 6).t(), 0)])
_masked = torch.where(rand(4, 6) > 1, rand(4, 6), torch.tensor(float("-inf")))
_masked[1] = float("-inf")
add("_safe_softmax", [one(_masked, -1), one(_masked, 0), one(_masked.t(), 0), one(rand(3, 4, dtype=BF16), -1), one(rand(3, 4, dtype=F64), 0)])
for name in ("addcmul", "addcdiv"):
    in_place(name, [one(rand(3, 4), rand(3, 4, low=0.5), rand(4, low=0.5), **k) for k in ({}, {"value": 0.3})])
in_place("lerp.Scalar", [one(rand(3, 4), rand(4), w) for w in (0.3, 0.7)])
in_place("lerp.Tensor", [one(rand(3, 4), rand(4), rand(3, 4))])
add("_weight_norm_interface", [one(rand(4, 3, 5), rand(4, 1, 1), 0), one(rand(4, 3, 5), rand(1, 1, 5), 2)])
_complex = torch.complex(rand(3, 4), rand(3, 4))
add("polar", [one(rand(3, 4, low=0.5), rand(3, 4)), one(rand(4, 3).t(), rand(3, 4))])
add("view_as_real", [one(_complex), one(_complex.t()), one(_complex[:, 1])])
add("view_as_complex", [one(rand(3, 4, 2)), one(rand(4, 3, 2).transpose(0, 1)), one(rand(2))])
CASES["aten.mul.Tensor"] += [one(_complex, _complex[0]), one(_complex.t(), rand(4, 3)), one(rand(3, 1), _complex)]
CASES["aten.add.Tensor"] += [one(_complex, _complex[0])]

# ---------------------------------------------------------------- more reductions
for name in ("std",):
    add(name, [one(rand(5, 6)), one(rand(5, 6, dtype=F64), False)])
    add(f"{name}.dim", [one(x, d, u, k) for x in _two(FLOATS) for d in ([0], [-1]) for u in (True, False) for k in (True, False)])
for name in ("std.correction", "std_mean.correction"):
    add(name, [one(x, d, correction=c, keepdim=k) for x in _two((F32, F64)) for d in ([0], [-1]) for c in (0, 1) for k in (True, False)])
add("aminmax", [one(x) for x in _two((F32, I64))] + [one(x, dim=d, keepdim=k) for x in _two((F32, I64)) for d in (0, -1) for k in (True, False)])
add("linalg_vector_norm", [one(x, o, d, k) for x in _two((F32, F64)) for o in (2, 1, float("inf")) for d, k in _keep if d != []]
    + [one(rand(3, 4, dtype=BF16)), one(rand(50), 2), one(rand(3, 40), 2, [-1], True, dtype=F64)])  # fmt: skip

# ---------------------------------------------------------------- writing by index
_src, _idx = rand(3, 4), index(5, 3, 4)
_unique = torch.stack([torch.randperm(5, generator=_generator)[:3] for _ in range(4)], 1)  # of repeated places torch may write any
in_place("scatter.src", [one(rand(5, 4, dtype=d), 0, _unique, rand(3, 4, dtype=d)) for d in (*FLOATS, I64, BOOL)] + [one(rand(4, 5).t(), 0, _unique, _src)])
in_place("scatter.value", [one(rand(5, 4, dtype=d), 0, _idx, v) for d in (F32, BF16, I64) for v in (1, 0)] + [one(rand(5, dtype=F32), 0, index(5, 2), 2.5),
                                                                                                             one(rand(5, 4), -1, index(4, 5, 2), 0)])
in_place("scatter.reduce", [one(rand(5, 4), 0, _idx, _src, reduce=r) for r in ("add", "multiply")])
in_place("scatter.value_reduce", [one(rand(5, 4), 0, _idx, 2.5, reduce=r) for r in ("add", "multiply")])
in_place("scatter_add", [one(rand(5, 4, dtype=d), 0, _idx, rand(3, 4, dtype=d)) for d in (*FLOATS, I64)] + [one(rand(5, 4), 1, index(4, 5, 6), rand(5, 6))])
in_place("scatter_reduce.two", [one(rand(5, 4), 0, _idx, _src, r) for r in ("sum", "prod", "amax", "amin")])
in_place("index_add", [one(rand(5, 4, dtype=d), 0, index(5, 3), rand(3, 4, dtype=d)) for d in (*FLOATS, I64)] + [one(rand(4, 5), 1, index(5, 3), rand(4, 3))])
in_place("index_copy", [one(rand(5, 4, dtype=d), 0, torch.tensor([3, 0, 2]), rand(3, 4, dtype=d)) for d in (F32, I64)])
in_place("index_fill.int_Scalar", [one(rand(5, 4, dtype=d), 0, index(5, 3), 2) for d in (F32, I64, BOOL)] + [one(rand(4, 5), -1, index(5, 2), 0.5)])
in_place("index_fill.int_Tensor", [one(rand(5, 4), 0, index(5, 3), torch.tensor(2.5))])
in_place("masked_scatter", [one(rand(3, 4, dtype=d), _mask, rand(14, dtype=d)) for d in (F32, BF16, I64)] + [one(rand(4, 3).t(), _mask[:1], rand(12))])
_put = [(rand(5, 4), [index(5, 3)], rand(3, 4)), (rand(5, 4), [None, torch.tensor([2, 0])], rand(5, 2)), (rand(5, 4), [rand(5, 4) > 0], torch.tensor(2.5)),
        (rand(5, 4, 6), [torch.tensor([1, 4, 2]), None, torch.tensor([0, 5, 3])], rand(3, 4)), (rand(4, 5).t(), [torch.tensor([1, 4])], rand(4)),
        (rand(5, dtype=I64), [torch.tensor([-1])], torch.tensor([7])), (rand(5, 4), [rand(5, dtype=BOOL)], rand(1, 4))]  # fmt: skip
_put[0][1][0] = torch.tensor([4, 1, 3])
in_place("index_put", [one(*p) for p in _put] + [one(rand(5, 4), [index(5, 9)], rand(9, 4), True)])
add("_unsafe_index_put", [one(*p) for p in _put[:2]])

# ---------------------------------------------------------------- order
_distinct = lambda *s: torch.randperm(reduce_size(s), generator=_generator).reshape(s).to(F32) / 7  # noqa: E731


def reduce_size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


add("topk", [one(x, k, d, largest) for x in (_distinct(5, 7), _distinct(7, 5).t(), _distinct(5, 7).to(F64), torch.randperm(30).reshape(5, 6))
             for k in (1, 3) for d in (0, -1) for largest in (True, False)] + [one(_distinct(9), 4)])  # fmt: skip
CASES["aten.topk.default"] += [one(_distinct(9), 9, -1, True, False), one(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), 5, -1, False, False)]
for name in ("sort", "argsort"):
    add(name, [one(x, d, r) for x in (_distinct(5, 7), _distinct(7, 5).t(), torch.randperm(30).reshape(5, 6)) for d in (0, -1) for r in (True, False)])
    add(f"{name}.stable", [one(x, stable=True, dim=d, descending=r) for x in (_distinct(5, 7), index(3, 4, 9)) for d in (0, -1) for r in (True, False)])
_edges = torch.tensor([-2.0, -1.0, 0.0, 0.5, 2.0])
add("searchsorted.Tensor", [one(_edges, x, right=r, out_int32=i) for x in (rand(3, 4), _edges) for r in (True, False) for i in (True, False)])
add("bucketize.Tensor", [one(x, _edges, right=r) for x in (rand(3, 4), _edges, rand(3, 4, dtype=I64)) for r in (True, False)])

# ---------------------------------------------------------------- values decide the shape, elements move
add("nonzero", [one(x) for d in (F32, I64, BOOL) for x in (rand(3, 4, dtype=d), rand(4, 3, dtype=d).t(), rand(5, dtype=d), rand(2, 0, dtype=d))])
add("repeat_interleave.Tensor", [one(torch.tensor([2, 0, 3])), one(torch.tensor([1, 2], dtype=I32)), one(torch.tensor([], dtype=I64))])
add("masked_select", [one(x, _mask) for x in (rand(3, 4), rand(4, 3).t(), rand(4), rand(3, 4, dtype=I64))])
add("roll", [one(rand(4, 5), [1], [0]), one(rand(4, 5), [-2, 3], [0, 1]), one(rand(5, 4).t(), [7], [-1]), one(rand(2, 3, 4, dtype=I64), [1, 1], [1, 2])])
add("flip", [one(rand(4, 5), [0]), one(rand(4, 5), [0, 1]), one(rand(5, 4).t(), [-1])])
for _n, _pad in ((1, [2, 1]), (2, [1, 2, 0, 3]), (3, [1, 0, 2, 1, 1, 1])):
    _sizes = [2, 3, 4, 5, 6][: _n + 2]
    add(f"reflection_pad{_n}d", [one(rand(*_sizes), _pad), one(rand(*_sizes[1:]), _pad)])
    add(f"replication_pad{_n}d", [one(rand(*_sizes), _pad), one(rand(*_sizes[1:]), _pad)])
add("im2col", [one(rand(2, 3, 6, 5), [3, 2], [1, 1], [0, 0], [1, 1]), one(rand(2, 3, 6, 5), [3, 3], [1, 2], [1, 2], [2, 1]), one(rand(3, 6, 5), [2, 2], [1, 1], [0, 0], [2, 2])])
add("eye", [one(3), one(0), one(3, dtype=I64)])
add("eye.m", [one(3, 5), one(5, 3, dtype=BOOL)])
for name in ("_is_all_true", "_is_any_true"):
    add(name, [one(torch.ones(3, 4, dtype=BOOL)), one(_mask), one(_mask.t()), one(torch.zeros(0, dtype=BOOL)), one(torch.zeros(2, dtype=BOOL))])
for name in ("tril_indices", "triu_indices"):
    add(name, [one(4, 4), one(3, 5, 1), one(5, 3, -1), one(2, 2, dtype=I32)])
add("linspace", [one(0, 1, 7), one(-2.5, 3, 10), one(1, 5, 1), one(0.0, 1.0, 0), one(0, 1, 9, dtype=F64)])

# ---------------------------------------------------------------- frames
_images = [rand(2, 4, 8, 9), rand(2, 4, 8, 9).contiguous(memory_format=torch.channels_last), rand(1, 4, 8, 9, dtype=F64), rand(2, 4, 8, 9, dtype=BF16)]
_w, _w1, _w3 = rand(6, 4, 3, 3, low=-1.0, high=1.0), rand(6, 4, 3, low=-1.0, high=1.0), rand(2, 3, 2, 2, 2)
_conv = lambda x, w, b, n, s=1, p=0, d=1, t=False, o=0, g=1: one(x, w.to(x.dtype), b, [s] * n, [p] * n, [d] * n, t, [o] * n, g)  # noqa: E731
add("convolution", [
    *[_conv(x, _w, b, 2, **k) for x in (*_images[:2], rand(1, 4, 8, 9, dtype=F64)) for b in (None, rand(6, dtype=x.dtype))
      for k in ({}, {"s": 2, "p": 1}, {"d": 2, "p": 2})],
    *[_conv(rand(2, 4, 12), _w1, b, 1, **k) for b in (None, rand(6)) for k in ({}, {"s": 2, "p": 1}, {"d": 2})],
    _conv(rand(1, 3, 4, 5, 6), _w3, rand(2), 3, p=1), _conv(rand(2, 4, 7, 7), rand(4, 1, 3, 3), rand(4), 2, p=1, g=4),
    _conv(rand(2, 4, 7, 7), rand(6, 2, 1, 1), None, 2, g=2), _conv(rand(2, 4, 5, 5), rand(4, 3, 2, 2), rand(3), 2, s=2, t=True),
    _conv(rand(2, 4, 5, 5), rand(4, 2, 3, 3), rand(4), 2, s=2, p=1, o=1, t=True, g=2), _conv(rand(1, 4, 9), rand(4, 3, 4), None, 1, s=2, p=1, t=True),
])  # fmt: skip
add("max_pool2d_with_indices", [one(x, [3, 2], *a) for x in _images for a in ((), ([2, 2], [1, 1]), ([2, 1], [1, 0], [2, 1]), ([2, 2], [0, 0], [1, 1], True))]
    + [one(rand(4, 8, 9), [2, 2])])  # fmt: skip
add("max_pool3d_with_indices", [one(rand(2, 3, 4, 6, 5), [2, 2, 2]), one(rand(2, 3, 4, 6, 5), [2, 3, 2], [1, 2, 2], [1, 1, 0])])
add("avg_pool1d", [one(rand(2, 3, 9), [3], [2], [1]), one(rand(2, 3, 9), [2])])
add("avg_pool2d", [one(x, [3, 2], *a) for x in _images for a in ((), ([2, 2], [1, 1]), ([2, 2], [1, 1], True), ([2, 2], [1, 1], False, False), ([2, 2], [0, 0], False, True, 3))])
add("avg_pool3d", [one(rand(2, 3, 4, 6, 5), [2, 2, 2]), one(rand(2, 3, 4, 6, 5), [2, 3, 2], [1, 2, 2], [1, 1, 0], False, False)])
add("_adaptive_avg_pool2d", [one(x, s) for x in _images for s in ([3, 4], [1, 1], [8, 9], [11, 2])] + [one(rand(4, 8, 9), [3, 2])])
add("_adaptive_avg_pool3d", [one(rand(2, 3, 4, 6, 5), [2, 3, 2])])
add("upsample_nearest1d", [one(rand(2, 3, 7), [n]) for n in (3, 7, 15)])
add("upsample_nearest2d", [one(x, s) for x in _images for s in ([16, 18], [5, 4])] + [one(rand(2, 4, 8, 9), [12, 13], 1.5, 1.5)])
add("upsample_nearest3d", [one(rand(1, 2, 3, 4, 5), [6, 4, 7])])
add("_upsample_nearest_exact2d", [one(rand(2, 4, 8, 9), [11, 5])])
add("upsample_linear1d", [one(rand(2, 3, 7), [n], a) for n in (3, 7, 15) for a in (True, False)])
for name in ("upsample_bilinear2d", "upsample_bicubic2d"):
    add(name, [one(x, s, a) for x in _images[:3] for s in ([16, 18], [5, 4], [8, 9]) for a in (True, False)] + [one(rand(2, 4, 8, 9), [12, 13], False, 1.5, 1.5)])
add("upsample_trilinear3d", [one(rand(1, 2, 3, 4, 5), [6, 4, 7], a) for a in (True, False)])
add("grid_sampler_2d", [one(rand(2, 3, 6, 7), rand(2, 4, 5, 2, low=-1.3, high=1.3), 0, 0, a) for a in (True, False)])
_channels = lambda x: [rand(x.shape[1], dtype=x.dtype), rand(x.shape[1], dtype=x.dtype)]  # noqa: E731
_normed = [rand(2, 4, 5, 6), rand(2, 4, 5, 6).contiguous(memory_format=torch.channels_last), rand(3, 4), rand(2, 4, 7, dtype=F64)]
_statistics = lambda x: [rand(4, dtype=x.dtype), rand(4, dtype=x.dtype, low=0.5)]  # noqa: E731
add("native_batch_norm", [one(x, *_channels(x), *_statistics(x), False, 0.1, 1e-5) for x in _normed] + [one(rand(2, 4, 5), None, None, *_statistics(rand(1)), False, 0.1, 1e-3)])
add("_native_batch_norm_legit_no_training", [one(x, *_channels(x), *_statistics(x), 0.1, 1e-5) for x in _normed])
add("native_group_norm", [one(x, w, b, 2, 4, x[0, 0].numel(), g, 1e-5) for x in (rand(2, 4, 5, 6), rand(2, 4, 7), rand(2, 4, 5, dtype=F64)) for g in (1, 2, 4)
                          for w, b in (_channels(x), (None, None))] + [one(torch.ones(2, 4, 0, dtype=d), None, None, 2, 4, 0, 2, 1e-5) for d in (F32, F64)])  # fmt: skip
_triangle = rand(2, 3, 4, 4, low=-0.5, high=0.5) + 2 * torch.eye(4)
add("linalg_solve_triangular", [one(_triangle.tril(), rand(2, 3, 4, 5), upper=False), one(_triangle.triu(), rand(2, 3, 4, 1), upper=True),
                                one(_triangle[0, 0].tril(), rand(4, 3), upper=False, unitriangular=True)])  # fmt: skip
