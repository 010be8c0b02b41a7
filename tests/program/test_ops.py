"""Every op that the executor knows against torch, over the arguments of op_cases: dtype, shape, strides and values.

Each case runs twice in C: by itself (`call_op`), and as a program of one op whose values carry torch's shapes and strides.
Values must be equal bit for bit where nothing is computed, and where every rounding is fixed; else within a few units in
the last place: the kernels' own tests say how near they are.
"""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from op_cases_more import CASES
from porting import _core, ops_table, providers

NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
    torch.complex64: "C64",
}  # fmt: skip
FORMATS = {torch.contiguous_format: "contiguous", torch.preserve_format: "preserve", torch.channels_last: "channels_last"}
ROUNDING = {torch.float64: 1e-13, torch.float32: 4e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# Ops that compute and whose every rounding IEEE or torch's documentation fixes: not one bit may differ, but a NaN's.
EXACT = set("""add sub rsub mul div neg abs square sign relu clamp clamp_min clamp_max hardtanh maximum minimum max min amax amin
    floor ceil round arange reciprocal _to_copy copy hardswish hardsigmoid trunc leaky_relu fmod floor_divide aminmax scatter scatter_add
    scatter_reduce index_add max_pool2d_with_indices max_pool3d_with_indices""".split())
# Ops that compute and round on the way. All others only move elements: not one bit may differ, not even of a NaN.
ROUNDED = set("""_log_softmax _scaled_dot_product_flash_attention_for_cpu _softmax addmm baddbmm bmm cos cumsum erf exp gelu layer_norm linear
    log log_softmax mean mm native_layer_norm pow prod remainder rms_norm rsqrt sigmoid silu sin softmax sqrt sum tanh var
    var_mean std std_mean mish expm1 log1p log2 log10 exp2 tan atan sinh cosh acos asin softplus elu log_sigmoid_forward atan2 glu
    _safe_softmax addcmul addcdiv lerp _weight_norm_interface polar linalg_vector_norm convolution linspace avg_pool1d avg_pool2d
    avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    grid_sampler_2d linalg_solve_triangular mv addmv dot vdot addbmm linalg_lu_factor_ex linalg_lu_solve _linalg_solve_ex _linalg_det
    _linalg_slogdet linalg_cholesky_ex linalg_qr
    native_batch_norm _native_batch_norm_legit_no_training native_group_norm""".split())
# Only the library of the torch provider computes them; with it not one bit may differ.
LIBRARY = set("_linalg_eigh _linalg_svd linalg_pinv".split())
FUSED = {"linalg_cross", "polygamma", *(op for op in ops_table.HANDLERS if "polynomial" in op)}  # exact under torch's capability; here programs run under `default`
# The ops that have no kernel of their own promise for themselves.
EXACT |= {op for op, label in ops_table.HANDLERS.items() if label.kind == "EXACT"} - FUSED
ROUNDED |= {op for op, label in ops_table.HANDLERS.items() if label.kind != "EXACT"} | FUSED


def array(t: torch.Tensor) -> np.ndarray:
    """The tensor's own memory and strides."""
    t = t.detach()
    return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()


def tensor(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype == ml_dtypes.bfloat16 else torch.from_numpy(a)


def for_call_op(a: Any) -> Any:
    if isinstance(a, torch.Tensor):
        return array(a)
    if isinstance(a, torch.dtype):
        return {"dtype": NAMES[a]}
    if isinstance(a, torch.device):
        return {"device": str(a)}
    if isinstance(a, torch.memory_format):
        return {"memory_format": FORMATS[a]}
    if isinstance(a, torch.layout):
        return {"layout": str(a).removeprefix("torch.")}
    return [for_call_op(x) for x in a] if isinstance(a, list) else a


class OneOp:
    """A program of one op, recorded from its arguments and torch's results."""

    def __init__(self, name: str, args: list, kwargs: dict[str, Any]) -> None:
        self.name, self.values, self.feeds = name, [], {}
        self.tensors: list[torch.Tensor] = []
        self.args = [self.encode(a) for a in args]
        self.kwargs = {k: self.encode(a) for k, a in kwargs.items()}

    def value(self, t: torch.Tensor) -> int:
        self.values.append([NAMES[t.dtype], list(t.shape), list(t.stride()), t.storage_offset()])
        return len(self.values) - 1

    def encode(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            v = self.value(a)
            self.feeds[v] = array(a)
            return {"v": v}
        if isinstance(a, list):
            return {"list": [self.encode(x) for x in a]}
        if isinstance(a, float) and not np.isfinite(a):
            return {"float": str(a)}
        if isinstance(a, complex):
            return {"complex": [repr(a.real), repr(a.imag)]}
        return for_call_op(a)

    def run(self, results: list[torch.Tensor], **options: Any) -> list[np.ndarray]:
        if self.name.split(".")[1].endswith("_"):
            outputs = [self.args[0]["v"]]
        else:
            outputs = [None if r is None else self.value(r) for r in results]
        program = {"values": self.values, "ops": [[self.name, self.args, self.kwargs, outputs]]}
        fetched = [v for v in outputs if v is not None]
        return _core.Program(json.dumps(program).encode()).run(0, 1, self.feeds, fetched, check_strides=True, **options)


def torch_results(name: str, args: list, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    op = reduce(getattr, name.split("."), torch.ops)
    if name.split(".")[1].endswith("_"):
        args = [args[0].as_strided(args[0].size(), args[0].stride()).clone(memory_format=torch.preserve_format), *args[1:]]
    if "batch_norm" in name:  # it renews running statistics, whatever its schema says
        args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    with torch.no_grad():
        result = op(*args, **kwargs)
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (bool, int, float)):
        return [torch.tensor(result, dtype=args[0].dtype if name == "aten._local_scalar_dense.default" else None)]
    return [] if result is None else list(result)


def bits(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


def check(name: str, mine: np.ndarray, theirs: torch.Tensor) -> None:
    got = tensor(mine)
    assert got.dtype == theirs.dtype and got.shape == theirs.shape, (name, got.dtype, got.shape, theirs.dtype, theirs.shape)
    if theirs.dtype.is_complex:
        torch.testing.assert_close(got, theirs, rtol=4e-6, atol=4e-6, equal_nan=True)
        return
    op = name.split(".")[1].rstrip("_")
    if op in ROUNDED and theirs.dtype.is_floating_point:
        rounding = ROUNDING[theirs.dtype]
        torch.testing.assert_close(got, theirs, rtol=rounding, atol=rounding, equal_nan=True)
        return
    same = bits(got) == bits(theirs)
    if op in EXACT and theirs.dtype.is_floating_point:
        same |= got.isnan() & theirs.isnan()
    assert same.all(), f"{got}\nexpected {theirs}"


def fits_in_place(name: str, args: list, kwargs: dict[str, Any]) -> bool:
    if any(size > 1 and stride == 0 for size, stride in zip(args[0].shape, args[0].stride())):
        return False
    try:
        torch_results(name, args, kwargs)
    except RuntimeError:
        return False
    return True


def is_in_place(name: str) -> bool:
    return name.split(".")[1].endswith("_")


@pytest.mark.parametrize("name", sorted(CASES))
def test_op_against_torch(name: str) -> None:
    done = 0
    for args, kwargs in CASES[name]:
        if is_in_place(name) and (not isinstance(args[0], torch.Tensor) or not fits_in_place(name, args, kwargs)):
            continue
        before = [a.clone() for a in args if isinstance(a, torch.Tensor)]
        theirs = torch_results(name, args, kwargs)
        where = f"{name}{[describe(a) for a in args]}{kwargs}"
        options = {"provider": providers.use_provider("torch")[0]} if name.split(".")[1] in LIBRARY else {}
        alone = _core.call_op(name, [for_call_op(a) for a in args], {k: for_call_op(a) for k, a in kwargs.items()}, **options)
        alone = list(alone) if isinstance(alone, tuple) else [alone]
        assert len(alone) == len(theirs), where
        alone = [a for a, expected in zip(alone, theirs) if expected is not None]  # a result that torch leaves out
        for results in (alone, OneOp(name, args, kwargs).run(theirs, **options)):
            for mine, expected in zip(results, (t for t in theirs if t is not None)):
                try:
                    check(name, mine, expected)
                except AssertionError as error:
                    raise AssertionError(f"{where}\n{error}") from error
        for a, b in zip((a for a in args if isinstance(a, torch.Tensor)), before):
            assert torch.equal(a, b) or a.isnan().any(), f"{where}: an argument was changed"
        done += 1
    assert done > 0, f"no case of {name} ran"


def describe(a: Any) -> str:
    return f"{NAMES[a.dtype]}{list(a.shape)}/{list(a.stride())}" if isinstance(a, torch.Tensor) else str(a)


def test_labels_name_ops_that_are_there() -> None:
    assert set(ops_table.HANDLERS) <= {name.split(".")[1].rstrip("_") for name in _core.known_ops()}


def test_every_known_op_has_cases() -> None:
    known = _core.known_ops()
    assert len(set(known)) == len(known)
    assert sorted(CASES) == sorted(known)


def test_a_move_that_changes_one_bit_is_refused() -> None:
    zero, nan = torch.tensor([0.0, 1.0]), torch.tensor([float("nan"), 1.0])
    for name, wrong, right in [("clone", array(-zero), zero), ("cat", array(-nan), nan), ("neg", array(zero), -zero)]:
        with pytest.raises(AssertionError):
            check(f"aten.{name}.default", wrong, right)
        check(f"aten.{name}.default", array(right), right)
    check("aten.neg.default", array(-nan[:1]), nan[:1])
    check("aten.exp.default", np.float32([1.000001]), torch.tensor([1.0]))
