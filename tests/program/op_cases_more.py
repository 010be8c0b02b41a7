"""Arguments for the ops that few models use; the helpers and the others are in op_cases."""

from __future__ import annotations

import math

import torch
from op_cases import (
    BF16,
    BOOL,
    CASES,
    F16,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    INTS,
    U8,
    add,
    binary,
    in_place,
    index,
    layouts,
    like,
    one,
    rand,
    unary,
)

INF, NAN = math.inf, math.nan
_odd = torch.tensor([[0.0, -0.0, INF, -INF, NAN, 1.0], [-1.0, 1e-40, -1e-45, 0.5, -2.5, 3e38]])
_image = lambda *s: rand(*s).contiguous(memory_format=torch.channels_last)  # noqa: E731
_complex = torch.complex(rand(3, 4), rand(3, 4))

# ---------------------------------------------------------------- what elements are, functions of elements
for name in ("isnan", "isinf", "isposinf", "isneginf", "signbit"):
    add(name, [one(_odd), one(_odd.t()), one(_odd.to(BF16)), one(_odd.double())] + ([one(rand(3, 4, dtype=I64))] if name != "signbit" else []))
add("count_nonzero", [one(x, *d) for x in (_odd, rand(3, 4, dtype=I64), rand(3, 4, dtype=BOOL)) for d in ((), (0,), (-1,))])
add("count_nonzero.dim_IntList", [one(_odd, [0]), one(rand(2, 3, 4, dtype=I64), [0, 2])])
add("equal", [one(_odd[:1, :3], _odd[:1, :3].clone()), one(rand(3, 4), rand(3, 4)), one(index(9, 3), index(9, 3))])
add("allclose", [one(rand(3, 4), rand(3, 4)), one(_odd, _odd, equal_nan=True), one(_odd, _odd), one(_odd[0, :3], _odd[0, :3] + 1e-9)])
in_place("frac", unary())
in_place("sgn", unary((*FLOATS, I64)) + [one(_complex)])
for name in ("deg2rad", "rad2deg"):
    in_place(name, unary((F32, F64, I64)))
in_place("ldexp.Tensor", [one(rand(3, 4), index(5, 3, 4)), one(rand(3, 4), index(5, 4, dtype=I32))])
CASES["aten.ldexp_.default"] = CASES.pop("aten.ldexp_.Tensor")
for name in ("acosh", "asinh", "atanh", "erfc", "erfinv", "lgamma", "digamma", "i0", "sinc"):
    in_place(name, unary(FLOATS, **({"low": 1.1} if name == "acosh" else {"low": 0.1, "high": 0.9})) + unary((U8,) if name in ("sinc", "erfc", "i0") else ()))
in_place("copysign.Tensor", binary((*FLOATS, I64)) + [one(_odd, -_odd)])
in_place("copysign.Scalar", [one(x, v) for x in (_odd, rand(3, 4)) for v in (-1.0, 2)])
in_place("hypot", binary((F32, F64)))
in_place("nextafter", binary((F32, F64)) + [one(_odd, torch.tensor(0.0))])
for name in ("logaddexp", "logaddexp2"):
    add(name, binary((F32, F64)) + [one(_odd, _odd)])
in_place("xlogy.Tensor", binary((F32, F64), low=0.1) + [one(torch.zeros(3), torch.tensor([0.0, NAN, INF]))])
add("xlogy.Scalar_Self", [one(2.0, rand(3, 4, low=0.1))])
in_place("xlogy.Scalar_Other", [one(rand(3, 4), 2.0), one(rand(3, 4), 3)])
for name in ("fmax", "fmin"):
    add(name, binary((*FLOATS, *INTS)) + [one(_odd, rand(2, 6)), one(rand(2, 6), _odd)])
in_place("heaviside", [one(x, v) for x, v in ((_odd, rand(2, 6)), (rand(3, 4, dtype=I64), rand(4, dtype=I64)), (rand(3, 4, dtype=F64), rand(dtype=F64)))])
for name in ("gcd", "lcm"):
    in_place(name, [one(rand(3, 4, dtype=d), rand(4, dtype=d)) for d in INTS])
add("remainder.Scalar_Tensor", [one(7, rand(3, 4, dtype=I64).abs() + 1), one(7.5, rand(3, 4, low=0.5))])
add("floor_divide_.Scalar", [one(rand(3, 4), 0.7), one(rand(3, 4, dtype=I64), 3)])
for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    add(f"{name}.Scalar_Tensor", [one(6, rand(3, 4, dtype=d)) for d in (I64, I32)])
for name, sign in (("bitwise_left_shift", "lshift"), ("bitwise_right_shift", "rshift")):
    _shifts = [one(index(99, 3, 4), index(5, 3, 4)), one(index(99, 3, dtype=I32), index(5, 3, dtype=I32))]
    add(f"{name}.Scalar_Tensor", [one(37, index(5, 3, 4))])
    in_place(f"{name}.Tensor_Scalar", [one(index(99, 3, 4), 2)])
    add(f"__{sign}__.Tensor", _shifts)
    add(f"__i{sign}__.Tensor", _shifts)
    add(f"__i{sign}__.Scalar", [one(index(99, 3, 4), 2)])
in_place("celu", unary() + [one(x, 0.7) for x in layouts()])
in_place("nan_to_num", [one(_odd.to(d)) for d in FLOATS] + [one(_odd, 1.0, 2.0, -3.0), one(rand(3, 4, dtype=I64))])
in_place("round.decimals", [one(x, decimals=n) for x in (rand(3, 4), rand(3, 4, dtype=F64) * 100) for n in (0, 1, 3, -1)])
add("hardshrink", [one(_odd), one(rand(3, 4), 1.5), one(rand(3, 4, dtype=BF16))])
add("softshrink", [one(_odd), one(rand(3, 4), 1.5), one(rand(3, 4, dtype=BF16)), one(rand(4, 3, dtype=F64).t())])
in_place("threshold", [one(_odd, 0.1, 5.0), one(rand(3, 4, dtype=I64), 2, 7), one(rand(3, 4, dtype=BF16), 0, -1.0)])
add("_prelu_kernel", [one(rand(2, 3, 4, dtype=d), rand(3, 1, dtype=d)) for d in FLOATS] + [one(_odd, rand(1, 1))])
in_place("logit", [one(rand(3, 4, dtype=d, low=0.1, high=0.9)) for d in (F32, F64, F16)] + [one(rand(3, 4, low=-0.5, high=1.5), 1e-6), one(rand(3, 4), 0.2)])
CASES["aten.add.Tensor"] += like(binary((F16,)), alpha=0.5) + [one(_complex, 2), one(_complex, _complex[0], alpha=2)]
CASES["aten.sub.Tensor"] += [one(_complex, _complex[0]), one(_complex, 1.5)]
CASES["aten.mul.Tensor"] += [one(_complex, 2), one(_complex, index(9, 4))]
CASES["aten.div.Tensor"] += [one(_complex, _complex[0]), one(_complex, 3)]
for name in ("addcmul", "addcdiv"):
    CASES[f"aten.{name}.default"] += [one(rand(3, 4, dtype=d), rand(4, dtype=d), rand(3, 4, dtype=d, low=0.5), value=0.5) for d in (F64, BF16, F16)]
CASES["aten.addcmul.default"] += [one(rand(3, 4, dtype=I64), rand(4, dtype=I64), rand(3, 4, dtype=I64), value=2)]
CASES["aten.lerp.Scalar"] += [one(rand(3, 4, dtype=d), rand(3, 4, dtype=d), w) for d in (F64, BF16, F16) for w in (0.25, 0.75)]
CASES["aten.lerp.Tensor"] += [one(rand(3, 4, dtype=d), rand(3, 4, dtype=d), rand(4, dtype=d)) for d in (F64, BF16)]
CASES["aten.hardtanh.default"] += [one(rand(3, 4, dtype=I64), -2.5, 2.5)]

# ---------------------------------------------------------------- losses
for name, more in (("mse_loss", ()), ("smooth_l1_loss", (0.7,)), ("huber_loss", (0.7,)), ("soft_margin_loss", ())):
    add(name, [one(rand(3, 4, dtype=d), rand(3, 4, dtype=d), r, *more) for d in (F32, F64) for r in (0, 1, 2)] + [one(rand(4, 3).t(), rand(3, 4))])
_probability = lambda *s: rand(*s, low=0.05, high=0.95)  # noqa: E731
add("binary_cross_entropy", [one(_probability(3, 4), _probability(3, 4), w, r) for w in (None, rand(4)) for r in (0, 1, 2)])
add("binary_cross_entropy_with_logits", [one(rand(3, 4), _probability(3, 4), w, p, r) for w in (None, rand(4)) for p in (None, rand(4)) for r in (0, 1, 2)])
add("nll_loss_forward", [one(rand(n, 5, dtype=d), index(5, n), w, r, i) for n in (3, 70) for d in (F32, F64) for w in (None, rand(5, dtype=d)) for r in (0, 1, 2)
                         for i in (-100, 2)] + [one(rand(5), index(5), None, 1, -100)])  # fmt: skip
add("nll_loss2d_forward", [one(rand(2, 5, 3, 4), index(5, 2, 3, 4), w, r, 2) for w in (None, rand(5)) for r in (0, 1, 2)])

# ---------------------------------------------------------------- reductions, scans, ranks
add("logsumexp", [one(x, d, k) for x in (rand(3, 4), rand(4, 3, dtype=F64).t(), rand(2, 3, 4, dtype=BF16)) for d in ([0], [-1], [0, 1]) for k in (True, False)]
    + [one(torch.tensor([[-INF, -INF], [INF, 1.0]]), [1]), one(rand(3, 4, dtype=I64), [0])])  # fmt: skip
add("nansum", [one(_odd[:, 3:], [1]), one(rand(3, 4)), one(_odd[:, 4:5], None, True), one(rand(3, 4), [0], dtype=F64)])
add("trace", [one(rand(3, 4)), one(rand(4, 3, dtype=I64))])
add("dist", [one(rand(3, 4), rand(3, 4), p) for p in (2, 1, 0, 3.5, INF, -INF)])
add("norm.Scalar", [one(rand(3, 4), p) for p in (2, 1, 0.5)])
add("norm.ScalarOpt_dim", [one(rand(3, 4), p, [1], k) for p in (None, 2, 1) for k in (True, False)])
add("norm.ScalarOpt_dtype", [one(rand(3, 4), p, dtype=F64) for p in (None, 1)])
add("norm.ScalarOpt_dim_dtype", [one(rand(3, 4), p, [0], True, dtype=F64) for p in (None, 1)])
CASES["aten.linalg_vector_norm.default"] += [one(rand(3, 4, dtype=d), p, [1]) for d in (F32, F64) for p in (0, 0.5, 3, -1, -INF)] + [one(_complex)]
CASES["aten.sum.dim_IntList"] += [one(_complex, [0]), one(_complex, [-1], True)]
CASES["aten.mean.dim"] += [one(_complex, [0])]
_lines = [rand(3, 5), rand(5, 3).t(), rand(3, 5, dtype=F64), rand(3, 5, dtype=I64), rand(2, 3, 4, dtype=BF16), rand(), torch.tensor([[1.0, NAN, 3.0], [2.0, 2.0, -INF]])]
for name in ("cummax", "cummin"):
    add(name, [one(x, d) for x in _lines for d in (0, -1)])
in_place("cumprod", [one(x, d) for x in _lines[:6] for d in (0, -1)] + [one(rand(3, 4, dtype=I32), 0, dtype=F32)])
add("logcumsumexp", [one(x, d) for x in (*_lines[:3], torch.tensor([-INF, -INF, 1.0, INF])) for d in (0, -1)])
_ranked = [torch.randperm(35).reshape(5, 7).float(), torch.randperm(35).reshape(7, 5).t(), torch.randperm(12).reshape(3, 4).double()]
add("kthvalue", [one(x, k, d, keep) for x in _ranked for k in (1, 3) for d in (0, -1) for keep in (True, False)])
for name in ("median", "nanmedian"):
    add(name, [one(x) for x in (*_ranked, rand(3, 4, dtype=I64), torch.tensor([1.0, NAN, 3.0, 2.0]))])
    add(f"{name}.dim", [one(x, d, k) for x in (*_ranked, torch.tensor([[1.0, NAN, 3.0, 2.0]])) for d in (0, -1) for k in (True, False)])
add("mode", [one(index(3, 4, 9), d, k) for d in (0, -1) for k in (True, False)] + [one(index(4, 7).float())])
# Equal elements, of which the place shows how the reference selects: values, zeros of both signs and NaN.
_equal = [index(n, 2, k).to(d) for n, k in ((2, 7), (4, 33), (9, 300)) for d in (F32, BF16, I64, U8)]
_equal += [torch.where(index(3, 2, 40) == 0, NAN, index(4, 2, 40) * torch.where(index(2, 2, 40) == 0, -0.0, 1.0)).to(d) for d in (F32, F64, F16)]
CASES["aten.kthvalue.default"] += [one(x, k, d) for x in _equal for k, d in ((1, -1), (3, 1), (7, 1), (2, 0))]
for name in ("median", "nanmedian"):
    CASES[f"aten.{name}.default"] += [one(x) for x in _equal] + [one(x.t().contiguous().t()) for x in _equal]
    CASES[f"aten.{name}.dim"] += [one(x, 1) for x in _equal]
CASES["aten.mode.default"] += [one(x, 1) for x in (*_equal, index(2, 3, 9, dtype=BOOL))]
for largest in (True, False):
    CASES["aten.topk.default"] += [one(x, k, 1, largest, sorted) for x in _equal for k in (1, 5, 7) for sorted in (True, False)]
    CASES["aten.sort.default"] += [one(x, 1, largest) for x in _equal] + [one(index(90, 33000), 0, largest)]
    CASES["aten.sort.stable"] += [one(x, stable=s, dim=1, descending=largest) for x in _equal for s in (True, False)]
_repeated = [index(4, 3, 5), index(3, 9).float(), torch.tensor([], dtype=I64), index(2, 4, 3, dtype=BOOL)]
add("_unique2", [one(x, True, i, c) for x in _repeated for i in (True, False) for c in (True, False)])
add("unique_dim", [one(index(2, 6, 3), d, True, True, True) for d in (0, 1)] + [one(index(2, 5, 2, 2).float(), 0)])
add("unique_consecutive", [one(x, i, c) for x in (index(2, 9), index(2, 3, 3).float()) for i in (True, False) for c in (True, False)]
    + [one(index(2, 6, 1), True, True, 0)])  # fmt: skip
add("bincount", [one(index(5, 9)), one(index(5, 9), None, 8), one(index(5, 9), rand(9)), one(index(5, 9, dtype=I32), rand(9, dtype=F64))])
add("histc", [one(rand(40), 10), one(rand(40), 7, -1, 2), one(rand(4, 5, dtype=F64), 5), one(torch.ones(3), 4)])

# ---------------------------------------------------------------- products
add("mv", [one(rand(3, 5, dtype=d), rand(5, dtype=d)) for d in (F32, F64, BF16, I64)])
add("dot", [one(rand(5, dtype=d), rand(5, dtype=d)) for d in (F32, F64, I64)])
add("vdot", [one(rand(5), rand(5))])
_scales = ({}, {"alpha": 0.5, "beta": 2}, {"beta": 0})
in_place("addmv", [one(c, rand(3, 5), rand(5), **k) for c in (rand(3), rand()) for k in _scales])
in_place("addr", [one(c, rand(3), rand(5), **k) for c in (rand(3, 5), rand(5)) for k in _scales])
in_place("addbmm", [one(rand(3, 4), rand(2, 3, 5), rand(2, 5, 4), **k) for k in _scales])
CASES["aten.addbmm.default"] = [*CASES["aten.addbmm.default"], one(rand(4), rand(2, 3, 5), rand(2, 5, 4))]
add("linalg_cross", [one(rand(4, 3), rand(4, 3)), one(rand(3, 4), rand(3, 4), dim=0)])
add("_cdist_forward", [one(rand(2, 3, 5), rand(2, 4, 5), p, None) for p in (2.0, 1.0, 3.0, 0.0, INF)])
add("_euclidean_dist", [one(rand(3, 5), rand(4, 5))])
add("conv_tbc", [one(rand(7, 2, 4), rand(3, 4, 6), rand(6), p) for p in (0, 1)])
add("_int_mm", [one(index(9, 20, 8).to(torch.int8), index(9, 8, 16).to(torch.int8))])
add("_weight_int8pack_mm", [one(rand(4, 32, dtype=BF16), index(9, 16, 32).to(torch.int8), rand(16, dtype=BF16))])
add("_grouped_mm", [one(rand(9, 16, dtype=d), rand(3, 16, 8, dtype=d), torch.tensor([2, 2, 9], dtype=I32)) for d in (F32, BF16)])
CASES["aten.mm.default"] += [one(rand(3, 5, dtype=I64), rand(5, 4, dtype=I64)), one(_complex, _complex.t())]
CASES["aten.bmm.default"] += [one(rand(2, 3, 5, dtype=I32), rand(2, 5, 4, dtype=I32))]
CASES["aten.addmm.default"] += [one(rand(4, dtype=I64), rand(3, 5, dtype=I64), rand(5, 4, dtype=I64), alpha=2, beta=3)]

# ---------------------------------------------------------------- elements that change places
add("slice_scatter", [one(rand(5, 6), rand(2, 6), 0, 1, 3), one(rand(5, 6), rand(5, 3), 1, 0, 6, 2), one(rand(6, 5).t(), rand(5, 1), 1, -1)])
add("select_scatter", [one(rand(5, 6), rand(6), 0, 2), one(rand(5, 6), rand(5), -1, -1)])
add("diagonal_scatter", [one(rand(4, 4), rand(4)), one(rand(4, 5), rand(4), 1)])
add("as_strided_scatter", [one(rand(12), rand(2, 3), [2, 3], [6, 2], 1)])
_shuffled = [rand(2, 8, 3, 5), rand(8, 4, 3), _image(2, 8, 3, 5), rand(1, 2, 4, 2, 3, dtype=I64)]
add("pixel_shuffle", [one(x, 2) for x in _shuffled])
add("pixel_unshuffle", [one(rand(2, 3, 4, 6), 2), one(rand(3, 6, 4), 2), one(_image(1, 2, 6, 9), 3)])
for name in ("channel_shuffle", "native_channel_shuffle"):
    add(name, [one(rand(2, 6, 3, 4), g) for g in (1, 2, 3)])
add("rot90", [one(rand(3, 4), k, [0, 1]) for k in (-1, 0, 1, 2, 3, 5)] + [one(rand(2, 3, 4), 1, [1, 2])])
add("diag_embed", [one(rand(2, 3), *a) for a in ((), (1,), (-2,), (0, 0, 2), (1, 2, 0))])
add("block_diag", [one([rand(2, 3), rand(4), rand(), rand(1, 2)]), one([rand(2, 2, dtype=I64), rand(1, 1)])])
add("take", [one(rand(3, 4), index(12, 5)), one(rand(4, 3).t(), torch.tensor([[0, -1], [5, 2]]))])
in_place("put", [one(rand(3, 4), torch.tensor([3, -1, 5]), rand(3)), one(rand(3, 4), index(12, 5), rand(5), True)])
add("_shape_as_tensor", [one(rand(3, 4)), one(rand())])
add("unsafe_split_with_sizes", [one(rand(5, 4), [2, 3]), one(rand(5, 4), [0, 1, 3], 1)])
add("col2im", [one(rand(2, 12, 12), [4, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
                                                                               one(rand(12, 9), [5, 5], [2, 2], [1, 1], [1, 1], [2, 2])])
add("unfold_backward", [one(rand(2, 5, 3), [2, 11], 1, 3, 2), one(rand(4, 3, 2), [5, 3], 0, 2, 1), one(rand(2, 3, 4, dtype=F64), [2, 12], -1, 4, 4)])
for _n in (2, 3):
    _pooled = rand(2, 3, 7, 6, 5)[:, :, : 7 if _n == 3 else 1].reshape(2, 3, *([7, 6, 5] if _n == 3 else [6, 5]))
    add(f"adaptive_max_pool{_n}d", [one(_pooled, [3] * _n), one(_pooled[0], [1] * _n), one(_pooled.double(), [4] * _n)])
_peaks, _places = torch.ops.aten.max_pool2d_with_indices(rand(2, 3, 8, 6), [2, 2])
add("max_unpool2d", [one(_peaks, _places, [8, 6])])
_peaks, _places = torch.ops.aten.max_pool3d_with_indices(rand(1, 2, 4, 8, 6), [2, 2, 2])
add("max_unpool3d", [one(_peaks, _places, [4, 8, 6], [2, 2, 2], [0, 0, 0])])
in_place("index_reduce", [one(rand(5, 4), 0, torch.tensor([0, 3, 3]), rand(3, 4), r, include_self=s) for r in ("prod", "mean", "amax", "amin") for s in (True, False)])
CASES["aten.scatter_reduce.two"] += [one(rand(5, 4), 0, index(5, 3, 4), rand(3, 4), r, include_self=s) for r in ("sum", "prod", "amax", "amin", "mean")
                                     for s in (True, False)] + [one(rand(5, 4, dtype=I64), 0, index(5, 3, 4), rand(3, 4, dtype=I64), "mean")]
CASES["aten.index_add.default"] += [one(rand(5, 4), 0, index(5, 3), rand(3, 4), alpha=2)]
CASES["aten.roll.default"] += [one(rand(3, 4), [5])]
CASES["aten.reflection_pad2d.default"] += [one(rand(1, 3, 4, 4), [-1, 1, -2, 1])]
CASES["aten.clone.default"] += [one(rand(2, 3, 4, 5), memory_format=torch.channels_last)]
CASES["aten._to_copy.default"] += [one(rand(2, 3, 4, 5), dtype=F64, memory_format=torch.channels_last), one(rand(3, 4), dtype=torch.complex64), one(_complex, dtype=torch.complex64)]
CASES["aten.contiguous.default"] += [one(rand(2, 3, 4, 5), memory_format=torch.channels_last)]

# ---------------------------------------------------------------- images
_grids = [one(rand(2, 3, 6, 7, dtype=d), rand(2, 4, 5, 2, dtype=d, low=-1.3, high=1.3), m, p, a) for d in (F32, F64) for m in (0, 1, 2) for p in (0, 1, 2)
          for a in (True, False)]  # fmt: skip
CASES["aten.grid_sampler_2d.default"] += _grids
add("grid_sampler_3d", [one(rand(2, 3, 4, 6, 5), rand(2, 3, 4, 5, 3, low=-1.3, high=1.3), m, p, a) for m in (0, 1) for p in (0, 1, 2) for a in (True, False)])
for name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
    add(name, [one(x, s, False) for x in (rand(2, 3, 8, 9), _image(2, 3, 8, 9), rand(1, 2, 8, 9, dtype=F64)) for s in ([16, 18], [5, 4], [8, 9], [3, 20])])
add("_upsample_nearest_exact1d", [one(rand(2, 3, 7), [n]) for n in (3, 7, 15)])
add("_upsample_nearest_exact3d", [one(rand(1, 2, 3, 4, 5), [6, 4, 7])])

# ---------------------------------------------------------------- norms in training
_affine = lambda d=F32: [rand(3, dtype=d), rand(3, dtype=d)]  # noqa: E731
_running = lambda: [rand(3), rand(3, low=0.5)]  # noqa: E731
CASES["aten.native_batch_norm.default"] += [one(x, *a, *_running(), True, 0.1, 1e-5) for x in (rand(4, 3, 5), rand(2, 3, 4, 5), rand(6, 3)) for a in (_affine(), (None, None))]
add("_native_batch_norm_legit", [one(rand(4, 3, 5), *_affine(), *_running(), t, 0.1, 1e-5) for t in (True, False)])
add("_native_batch_norm_legit.no_stats", [one(rand(4, 3, 5), *_affine(), True, 0.1, 1e-5), one(rand(4, 3, 5), None, None, True, 0.1, 1e-5)])
add("_batch_norm_with_update", [one(rand(4, 3, 5), *_affine(), *_running(), 0.1, 1e-5)])

# ---------------------------------------------------------------- sequences
_lstm = lambda reverse, biases: one(rand(4, 2, 6), *(rand(20, n, low=-0.5, high=0.5) for n in (6, 5)), *(rand(20) if biases else torch.zeros(20) for _ in range(2)),  # noqa: E731
                                    rand(2, 5), rand(2, 5), reverse, [], 2, 5, 1, biases, False, False, False)
add("mkldnn_rnn_layer", [_lstm(r, True) for r in (True, False)])
add("_pack_padded_sequence", [one(rand(4, 3, 6), torch.tensor([4, 2, 1]), False), one(rand(3, 4, 6), torch.tensor([4, 4, 1]), True)])
for name in ("_embedding_bag", "_embedding_bag_forward_only"):
    add(name, [one(rand(10, 4), index(10, 7), torch.tensor([0, 3, 3]), False, m, False, None, False, p) for m in (0, 1, 2) for p in (-1, 2)]
        + [one(rand(10, 4), index(10, 7), torch.tensor([0, 3, 7]), False, 0, False, rand(7), True)])  # fmt: skip
_small = lambda *s: rand(*s, low=-0.5, high=0.5)  # noqa: E731
_encoder = [_small(24, 8), _small(24), _small(8, 8), _small(8)]
add("_native_multi_head_attention", [one(*[q] * 3, 8, 2, *_encoder, m, True, average, t) for q in (rand(2, 5, 8),)
                                     for m, t in ((None, None), (torch.rand(2, 5) > 2, 1), (torch.eye(5).bool(), 0)) for average in (True, False)])  # fmt: skip
_ffn = [_small(8), _small(8), _small(8), _small(8), _small(16, 8), _small(16), _small(8, 16), _small(8)]
add("_transformer_encoder_layer_fwd", [one(rand(2, 5, 8), 8, 2, *_encoder, g, f, 1e-5, *_ffn) for g in (True, False) for f in (True, False)])
add("_trilinear", [one(rand(4, 3), rand(5, 3, 6), rand(4, 6), [1, 3], [0], [1, 2], [2, 3])])

# ---------------------------------------------------------------- windows and spectra
for name in ("hann", "hamming", "bartlett", "blackman"):
    add(f"{name}_window", [one(n) for n in (0, 1, 2, 7, 40)] + [one(7, dtype=F64)])
    add(f"{name}_window.periodic", [one(n, p) for n in (0, 1, 2, 7, 40) for p in (True, False)])
add("hamming_window.periodic_alpha", [one(9, True, 0.6)])
add("hamming_window.periodic_alpha_beta", [one(9, False, 0.6, 0.3)])
add("complex", [one(rand(3, 4), rand(3, 4)), one(rand(4, 3).t(), rand(4))])
add("angle", [one(_complex), one(_odd), one(rand(3, 4, dtype=I64))])
for name in ("_conj", "_conj_physical"):
    add(name, [one(_complex)])
in_place("conj_physical", [one(_complex), one(rand(3, 4))])
for name in ("abs", "neg", "exp", "sqrt", "log", "sin", "cos", "tanh", "reciprocal", "square"):
    CASES[f"aten.{name}.default"] += [one(_complex), one(_complex.t())]
_waves = [rand(3, 16), rand(3, 15), rand(2, 7, 6)]
add("_fft_r2c", [one(x, d, n, h) for x in _waves for d in ([x.dim() - 1], [0, x.dim() - 1]) for n in (0, 1, 2) for h in (True, False)])
add("_fft_c2c", [one(torch.complex(x, x.flip(0)), d, n, f) for x in _waves for d in ([0], [x.dim() - 1, 0]) for n in (0, 1, 2) for f in (True, False)])
add("_fft_c2r", [one(torch.fft.rfft(x), [x.dim() - 1], n, x.shape[-1]) for x in _waves for n in (0, 1, 2)] + [one(torch.fft.rfft2(rand(4, 6)), [0, 1], 2, 6)])
for name in ("index.Tensor", "gather", "index_select", "where.self"):
    _moved = {"index.Tensor": one(_complex, [index(3, 2)]), "gather": one(_complex, 0, index(3, 2, 4)), "index_select": one(_complex, 1, index(4, 3)),
              "where.self": one(rand(3, 4, dtype=BOOL), _complex, _complex.flip(0))}[name]  # fmt: skip
    add(name, [*CASES[f"aten.{name}" if "." in name else f"aten.{name}.default"], _moved])

# ---------------------------------------------------------------- rows of sequences, tensors without dimensions
CASES["aten.unique_consecutive.default"] += [one(index(2, 9), i, c, 0) for i in (True, False) for c in (True, False)]
_edges, _sought = rand(3, 9).sort()[0], rand(3, 4)
CASES["aten.searchsorted.Tensor"] += [one(_edges, _sought, right=r, out_int32=r) for r in (True, False)]
CASES["aten.searchsorted.Tensor"] += [one(_edges[0], _sought, side=s) for s in ("left", "right")]
CASES["aten.searchsorted.Tensor"] += [one(e.flip(-1), _sought, sorter=e.flip(-1).argsort(-1)) for e in (_edges, _edges * 2)]
CASES["aten.searchsorted.Tensor"] += [one(torch.tensor([2**60, 2**60 + 1, 2**60 + 2]), torch.tensor([2**60 + 1]), right=r) for r in (True, False)]
add("searchsorted.Scalar", [one(_edges[0], v, right=r) for v in (0.5, 0, -3) for r in (True, False)])
add("bucketize.Scalar", [one(v, _edges[0], right=r) for v in (0.5, 0, -3) for r in (True, False)])
CASES["aten.gather.default"] += [one(torch.tensor(2.5), 0, torch.tensor(0)), one(torch.tensor(2.5), -1, torch.tensor([0, 0])), one(rand(5), 0, torch.tensor(3)),
                                 one(rand(5), 0, torch.zeros(2, 0, dtype=U8))]  # fmt: skip
CASES["aten.index_select.default"] += [one(torch.tensor(2.5), 0, torch.tensor([0])), one(torch.tensor(7), -1, torch.tensor(0))]
CASES["aten.index_reduce.default"] += [one(torch.tensor(2.5), 0, torch.tensor([0]), torch.tensor(1.5), r, include_self=i) for r in ("mean", "amax") for i in (True, False)]
CASES["aten.unfold.default"] += [one(torch.tensor(2.5), 0, n, 1) for n in (0, 1)]
CASES["aten.polar.default"] += [one(rand(3, 1, low=0.1), rand(4)), one(rand(5, low=0.1), rand())]

for name in ("alias", "detach", "view", "view.dtype", "transpose.int", "t", "permute", "unsqueeze", "squeeze", "squeeze.dim", "squeeze.dims", "expand",
             "slice.Tensor", "narrow", "select.int", "unbind.int", "split.Tensor", "split_with_sizes", "as_strided", "diagonal", "unfold"):
    _op, _, _overload = name.partition(".")
    add(f"{_op}_copy.{_overload or 'default'}", CASES[f"aten.{_op}.{_overload or 'default'}"][:12])
add("special_entr", unary(low=-0.5) + [one(_odd), one(rand(3, 4, dtype=I64))])
add("special_xlog1py", [one(rand(3, 4, dtype=d), rand(4, low=-0.5).to(d)) for d in FLOATS] + [one(_odd, _odd), one(torch.zeros(3), torch.tensor([0.0, NAN, INF]))])
in_place("renorm", [one(rand(3, 4, 5, dtype=d), p, k, 1.5) for d in FLOATS for p, k in ((2, 0), (1, 1), (2, -1))])
add("embedding_renorm_", [one(rand(7, 5, dtype=d), index(6, 2, 3), 1.5, p) for d in (F32, F64) for p in (2.0, 1.0)])

# ---------------------------------------------------------------- linear algebra
_square = [rand(4, 4) + 3 * torch.eye(4), (rand(5, 5, dtype=F64) + 3 * torch.eye(5)).t(), rand(2, 3, 4, 4) + 3 * torch.eye(4), torch.zeros(0, 0), rand(1, 1) + 2]
_definite = [x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype) for x in _square]
_oblong = [rand(5, 3), rand(3, 5, dtype=F64), rand(2, 4, 3), rand(6, 6).t(), rand(0, 3), rand(3, 0)]
add("linalg_lu_factor_ex", [one(x) for x in _square + _oblong])
add("_linalg_det", [one(x) for x in _square])
add("_linalg_slogdet", [one(x) for x in _square])
add("linalg_inv_ex", [one(x) for x in _square])
add("_linalg_solve_ex", [one(x, rand(*x.shape[:-1], 2, dtype=x.dtype)) for x in _square] + [one(x, rand(*x.shape[:-1], dtype=x.dtype)) for x in _square[:3]]
    + [one(x, rand(*x.shape[:-2], 2, x.shape[-1], dtype=x.dtype), left=False) for x in _square] + [one(_square[2], rand(4, 3))])  # fmt: skip
_factored = [torch.linalg.lu_factor(x) for x in _square]
add("linalg_lu_solve", [one(f, p, rand(*f.shape[:-1], 2, dtype=f.dtype), left=True, adjoint=a) for f, p in _factored for a in (True, False)]
    + [one(f, p, rand(*f.shape[:-2], 2, f.shape[-1], dtype=f.dtype), left=False, adjoint=a) for f, p in _factored for a in (True, False)])  # fmt: skip
add("linalg_cholesky_ex", [one(x, upper=u) for x in _definite for u in (True, False)])
add("cholesky", [one(x, u) for x in _definite for u in (True, False)])
add("cholesky_solve", [one(rand(*x.shape[:-1], 2, dtype=x.dtype), torch.linalg.cholesky(x, upper=u), u) for x in _definite for u in (True, False)])
add("cholesky_inverse", [one(torch.linalg.cholesky(x, upper=u), u) for x in _definite for u in (True, False)])
add("linalg_qr", [one(x, mode) for x in _oblong for mode in ("reduced", "complete", "r")])
add("_linalg_eigh", [one(x, t, v) for x in _definite for t in ("L", "U") for v in (True, False)])
add("_linalg_svd", [one(x, f, v) for x in _oblong for f in (True, False) for v in (True, False)])
add("linalg_pinv.atol_rtol_tensor", [one(x) for x in (_square[0], *_oblong[:4])] + [one(rand(4, 3), atol=torch.tensor(0.5), rtol=torch.tensor(0.1)), one(rand(2, 3, 4, 6)), one(_definite[0], hermitian=True)])
add("_linalg_check_errors", [one(torch.zeros(3, dtype=I32), "linalg.inv", is_matrix=False), one(torch.tensor(0, dtype=I32), "linalg.inv", is_matrix=True)])
CASES["aten.addmv.default"] += [one(c, index(9, 3, 5), index(9, 5), beta=b, alpha=a) for c in (index(9, 3), index(9)) for b, a in ((0.2, 0.6), (2, 3.7), (0, 1))]
CASES["aten.addbmm.default"] += [one(index(9, 3, 4), index(9, 2, 3, 5), index(9, 2, 5, 4), beta=b, alpha=a) for b, a in ((0.6, 0.2), (2, 3))]
CASES["aten.addbmm.default"] += [one(rand(3, 4), rand(0, 3, 5), rand(0, 5, 4), beta=b) for b in (0, 2)] + [one(rand(1, dtype=d), rand(7, 5, 9, dtype=d), rand(7, 9, 6, dtype=d))
                                                                                                     for d in (F64, BF16)]  # fmt: skip
CASES["aten.mv.default"] += [one(rand(5, 3).t(), rand(5)), one(rand(4, 10)[:, ::2], rand(10)[::2]), one(rand(0, 3), rand(3)), one(rand(3, 0), rand(0))]
CASES["aten.linalg_vector_norm.default"] += [one(rand(3, 40), p, [d]) for p in (3, 0.5, -1, -2.5, 4) for d in (0, 1)]
for name in ("var_mean", "std_mean"):
    CASES[f"aten.{name}.correction"] += [one(rand(0)), one(rand(3, 0), [1], correction=0)]
    CASES[f"aten.{name}.correction"] += [one(rand(5, 5, 5), [0, 2], correction=1), one(rand(7, 9, dtype=F64).t(), [0], correction=0)]
_half = lambda *t: [a.to(BF16) for a in t]  # noqa: E731
CASES["aten.native_batch_norm.default"] += [one(rand(4, 3, 5, dtype=BF16), *p, t, 0.1, 1e-5) for t in (True, False)
                                            for p in ([*_half(*_affine()), *_half(*_running())], [*_affine(), *_running()])]  # fmt: skip
CASES["aten._native_batch_norm_legit.no_stats"] += [one(rand(4, 3, 5, dtype=BF16), None, None, True, 0.1, 1e-5)]

# ---------------------------------------------------------------- losses that are loops, lines, grids, assertions
_probs = rand(7, 2, 5).log_softmax(-1)
_labels = torch.tensor([[1, 1, 4], [2, 3, 1]])
add("_ctc_loss", [one(p, t, [7, 7], [3, 3], *b) for p in (_probs, _probs.double(), _probs.transpose(0, 1).contiguous().transpose(0, 1))
                  for t in (_labels, _labels.int().flatten()) for b in ((), (0, True))] + [one(_probs, _labels, [7, 7], [3, 3], 4)])  # fmt: skip
add("_ctc_loss.Tensor", [one(_probs, _labels, torch.tensor([7, 7]), torch.tensor([3, 3], dtype=d)) for d in (I64, I32)])
_scores = [rand(5, 7), rand(5, 7, dtype=F64), rand(7, 5).t()]
add("multi_margin_loss", [one(x, index(7, 5), p, 0.7, w, r) for x in _scores for p in (1, 2) for w in (None, rand(7).to(x.dtype)) for r in (0, 1, 2)] + [one(rand(7), index(7))])
add("multilabel_margin_loss_forward", [one(x, index(8, 5, 7) - 1, r) for x in _scores for r in (0, 1, 2)] + [one(rand(7), index(8, 7) - 1, 0)])
_ends = ((0, 3), (0.5, -2.25), (1.1, 4.7), (-1, 2))
_lines = [(a, b, n, k) for a, b in _ends for n in (0, 1, 2, 5, 30) for k in ({}, *({"dtype": d} for d in (*FLOATS, I64, I32)))]
add("logspace", [one(a, b, n, base, **k) for a, b, n, k in _lines for base in (10.0, 0.5)] + [one(0, 1, 5)])
for name in ("linspace", "logspace"):
    for overload, of in (("Tensor_Tensor", (torch.tensor, torch.tensor)), ("Tensor_Scalar", (torch.tensor, float)), ("Scalar_Tensor", (float, torch.tensor))):
        add(f"{name}.{overload}", [one(of[0](a), of[1](b), n, **k) for a, b, n, k in _lines])
_members = (index(5, 3, 4), rand(3, 4).round(), rand(4, 3).round().to(BF16).t())
add("isin.Tensor_Scalar", [one(x, v, invert=i) for x in _members for v in (2, 0.1, 1.0) for i in (True, False)])
add("isin.Scalar_Tensor", [one(v, x, invert=i) for x in _members for v in (2, 0.1, 1.0) for i in (True, False)])
add("affine_grid_generator", [one(rand(2, n - 2, n - 1, dtype=d), [2, 3, 4, 7, 1][:n], a) for n in (4, 5) for d in (F32, F64) for a in (True, False)])
_masks = rand(2, 4, 5, 5) > 0.5
add("_masked_softmax", [one(x, m, *t) for x in (rand(2, 4, 5, 5), rand(2, 4, 5, 5, dtype=BF16))
                        for m, *t in ((_masks, 3, 2), (_masks, 1, 2), (_masks[0, 0], 3, 0), (_masks[:, 0, 0], 3, 1), (_masks,))])  # fmt: skip
add("_pdist_forward", [one(rand(6, 9, dtype=d), p) for d in (F32, F64) for p in (0.0, 1.0, 2.0, 3.5, INF)] + [one(rand(1, 3))])
in_place("mvlgamma", [one(x, p) for x in layouts(low=3.0, high=9.0) for p in (1, 5)] + [one(rand(3, 4, dtype=F64, low=3.0), 2)])
add("frexp.Tensor", [one(x) for d in FLOATS for x in (*layouts(d), _odd.to(d))])
add("nonzero_static", [one(x, size=n, **f) for x in (_odd, rand(3, 4, dtype=BOOL), rand(), rand(4, 3, dtype=I64).t()) for n, f in ((0, {}), (3, {}), (20, {"fill_value": 7}))])
add("_assert_async", [one(torch.tensor(v)) for v in (True, 2, 0.5)])
add("_assert_async.msg", [one(torch.tensor([True]), "the mask is empty")])
CASES["aten.native_layer_norm.default"] += [one(rand(3, 32, dtype=d), [32], w, b, 1e-5) for d in (BF16, F16) for w in (rand(32), None) for b in (rand(32), None)]
CASES["aten.native_group_norm.default"] += [one(rand(2, 4, 5, dtype=d), rand(4), rand(4), 2, 4, 5, 2, 1e-5) for d in (BF16, F16)]
CASES["aten.mkldnn_rnn_layer.default"] += [one(*a[:-1], True) for a, _ in CASES["aten.mkldnn_rnn_layer.default"]]
CASES["aten.mkldnn_rnn_layer.default"] += [one(*(x.to(BF16) if isinstance(x, torch.Tensor) else x for x in a)) for a, _ in CASES["aten.mkldnn_rnn_layer.default"][:1]]

# ---------------------------------------------------------------- complex numbers
_also = torch.where(rand(3, 4) > 0, _complex, _complex.flip(0))
for name in ("tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "rsqrt", "sigmoid", "silu", "log2", "log10", "isnan"):
    CASES[f"aten.{name}.default"] += [one(_complex), one(_complex.t())]
for name in ("add", "sub", "mul", "div"):
    CASES[f"aten.{name}.Tensor"] += [one(x, n) for x in (_complex, rand(3, 4), rand(3, 4, dtype=BF16)) for n in (1j, 2 - 1.5j)]
    CASES[f"aten.{name}.Scalar"] += [one(x, n) for x in (_complex, rand(3, 4)) for n in (1j, complex(NAN, 2))]
CASES["aten.rsub.Scalar"] += [one(_complex, 1j), one(rand(3, 4), 2 - 1j)]
CASES["aten.pow.Tensor_Scalar"] += [one(_complex, e) for e in (2, 3, 0.5, -1, 1j)] + [one(rand(3, 4), 1j)]
CASES["aten.pow.Scalar"] += [one(2.0, _complex), one(1j, rand(3, 4)), one(1j, _complex)]
CASES["aten.pow.Tensor_Tensor"] += [one(_complex, _also), one(rand(3, 4), _complex), one(_complex, rand(4))]
for name in ("eq", "ne"):
    CASES[f"aten.{name}.Tensor"] += [one(_complex, _also), one(_complex, rand(4))]
    CASES[f"aten.{name}.Scalar"] += [one(_complex, 0), one(_complex, 1 + 1j)]
_pairs = lambda *s: torch.complex(rand(*s), rand(*s))  # noqa: E731
CASES["aten.addmm.default"] += [one(_pairs(5), _pairs(3, 4), _pairs(4, 5)), one(_pairs(3, 5), _pairs(4, 3).t(), _pairs(4, 5), beta=2, alpha=0.5)]
CASES["aten.baddbmm.default"] += [one(_pairs(2, 3, 5), _pairs(2, 3, 4), _pairs(2, 4, 5), beta=b) for b in (0, 1)]
CASES["aten.addmv.default"] += [one(_pairs(3), _pairs(3, 4), _pairs(4))]
for name in ("dot", "vdot"):
    CASES[f"aten.{name}.default"] += [one(_pairs(9), _pairs(9))]
CASES["aten.cumsum.default"] += [one(_complex, d) for d in (0, -1)]
CASES["aten.sum.default"] += [one(_complex[0, 0])]

# ---------------------------------------------------------------- functions of torch.special, windows made of them
_wide = (F32, F64)
for name in ("i0e", "i1", "i1e", "modified_bessel_i0", "modified_bessel_i1", "erfcx", "log_ndtr", "spherical_bessel_j0", "bessel_j0", "bessel_j1"):
    add(f"special_{name}", unary((F32,) if name.startswith("bessel") else _wide) + [one(_odd[:, :2])])
for name in ("modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "bessel_y0", "bessel_y1"):
    add(f"special_{name}", unary((F32,) if name.startswith("bessel") else _wide, low=0.1) + [one(torch.tensor([0.0, -1.0, NAN]))])
add("special_ndtri", unary(_wide, low=0.001, high=0.999) + [one(torch.tensor([0.0, 1.0, -1.0, 2.0, NAN, 1e-30]))])
in_place("polygamma", [one(n, x) for n in (0, 1, 2, 3) for x in layouts(low=0.2)] + [one(2, rand(3, 4, dtype=F64, low=0.2)), one(1, -rand(5, low=0.1, high=0.9))])
CASES["aten.polygamma_.default"] = [one(x, n) for (n, x), _ in CASES["aten.polygamma_.default"]]
for name in ("igamma", "igammac"):
    in_place(name, binary(_wide, low=0.1) + [one(rand(40, low=0.1, high=30.0), rand(40, low=0.1, high=30.0))])
    CASES[f"aten.{name}.default"] += [one(torch.tensor([0.0, 0.0, 1.0, -1.0, INF, NAN, 2.0]), torch.tensor([0.0, 1.0, 0.0, 1.0, 3.0, 2.0, INF]))]
add("special_zeta", binary(_wide, low=1.1) + [one(torch.tensor([1.0, 0.5, 2.0, 3.0, NAN]), torch.tensor([2.0, 2.0, -1.0, -0.5, 1.0]))])
add("special_zeta.self_scalar", [one(2.5, rand(3, 4, low=0.1)), one(2, rand(4, 3, low=0.1).t())])
add("special_zeta.other_scalar", [one(rand(3, 4, low=1.1), 1.5)])
for name in ("chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
             "laguerre_polynomial_l", "legendre_polynomial_p", *(f"shifted_chebyshev_polynomial_{k}" for k in "tuvw")):  # fmt: skip
    _place = {"low": 0.1, "high": 0.9} if "shifted" in name else {"low": -0.9, "high": 0.9}
    add(f"special_{name}", [one(rand(4, 7, dtype=d, **_place), torch.tensor([-1, 0, 1, 2, 3, 4, 5], dtype=d)) for d in _wide] + [one(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([4.0, 3.0, 2.0]))])
    add(f"special_{name}.n_scalar", [one(rand(3, 4, **_place), n) for n in (0, 1, 3)])
    add(f"special_{name}.x_scalar", [one(0.5, torch.tensor([0.0, 1.0, 2.0, 4.0]))])
add("kaiser_window", [one(n) for n in (0, 1, 2, 7, 40)] + [one(9, dtype=F64)])
add("kaiser_window.periodic", [one(n, p) for n in (0, 1, 2, 9) for p in (True, False)])
add("kaiser_window.beta", [one(n, p, 8.0) for n in (1, 9) for p in (True, False)])

# ---------------------------------------------------------------- reflectors, exponentials of matrices
add("geqrf", [one(x) for x in _oblong])
_reflectors = [torch.geqrf(x) for x in (rand(5, 3), rand(4, 4, dtype=F64), rand(2, 6, 3))]
add("linalg_householder_product", [one(*r) for r in _reflectors] + [one(_reflectors[0][0], _reflectors[0][1][:2])])
add("linalg_matrix_exp", [one(x) for x in (rand(4, 4, low=-0.5, high=0.5), rand(3, 3, dtype=F64, low=-1, high=1), rand(2, 3, 3, low=-0.3, high=0.3).mT, rand(1, 1), rand(0, 0), torch.zeros(2, 2))])

# ---------------------------------------------------------------- last, as the numbers of what is above hang on the order: more of some ops
_first = [one(n, x) for d in (*FLOATS, I64) for n in (2, 0.3333) for x in (rand(3, 4, dtype=d, low=0.5), rand(dtype=d, low=0.5), rand(4, 40, dtype=d, low=0.5).t())]
for name in ("add", "sub", "mul", "div"):  # torch.mul(2.0, x): the number comes as it is, in the place of a tensor
    CASES[f"aten.{name}.Tensor"] += _first + (like(_first[:24], alpha=0.5) if name in ("add", "sub") else [])
for d in (BF16, F16):  # rounded once after seven terms, or after each of seven
    _terms, _places = rand(7, 6, 7, dtype=d), index(2, 7, 7)
    for suffix in ("", "_"):
        CASES[f"aten.scatter_add{suffix}.default"] += [one(rand(2, 7, dtype=d), 0, _places, _terms[:, 0])]
        CASES[f"aten.scatter_reduce{suffix}.two"] += [one(rand(2, 7, dtype=d), 0, _places, _terms[:, 0], r) for r in ("sum", "prod")]
        CASES[f"aten.index_add{suffix}.default"] += [one(rand(*(2 if k == dim else n for k, n in enumerate((7, 6, 7))), dtype=d), dim, index(2, 6 if dim == 1 else 7),
                                                         _terms) for dim in (0, 1, 2)] + [one(rand(2, dtype=d), 0, index(2, 7), _terms[0, 0])]  # fmt: skip
CASES["aten.trace.default"] += [one(rand(0, 3)), *(one(rand(40, 50, dtype=d)) for d in FLOATS)]
