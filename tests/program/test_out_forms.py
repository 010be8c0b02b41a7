"""Overloads with out=: they run as the functional op, whose result goes into a tensor that was given."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from porting import _core


def pairs() -> list[tuple[str, str]]:
    """Each overload with out= of torch whose functional overload has a handler: (its name, the functional one's)."""
    overloads = collections.defaultdict(dict)
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("aten::"):
            overloads[schema.name[6:]][schema.overload_name or "default"] = schema
    written = lambda a: a.alias_info is not None and a.alias_info.is_write and a.kwarg_only  # noqa: E731
    known, found = set(_core.known_ops()), []
    for op, forms in overloads.items():
        for name, schema in forms.items():
            given = [(a.name, str(a.type)) for a in schema.arguments if not written(a)]
            if len(given) == len(schema.arguments):
                continue
            alike = [n for n, s in forms.items() if f"aten.{op}.{n}" in known and [(a.name, str(a.type)) for a in s.arguments] == given]
            found += [(f"aten.{op}.{name}", f"aten.{op}.{n}") for n in alike[:1]]
    return found


def test_every_form_is_found_by_its_functional_op() -> None:
    wrong, unknown = [], []
    for name, functional in pairs():
        try:
            same = _core.op_signature(name)[0] == _core.op_signature(functional)[0]
            wrong += [] if same else [name]
        except ValueError:
            unknown.append(name)
    assert not wrong
    assert len(unknown) <= 12, unknown  # losses and factorisations, whose tensors have names of their own
    assert len(pairs()) > 300


CALLS = [
    ("add.out", lambda x: [x, x * 2], {"alpha": 3}, [(torch.float32, (4, 6))]),
    ("exp.out", lambda x: [x], {}, [(torch.float32, (4, 6))]),
    ("cat.out", lambda x: [[x, x]], {}, [(torch.float32, (8, 6))]),
    ("sum.IntList_out", lambda x: [x, [1]], {}, [(torch.float32, (4,))]),
    ("max.dim_max", lambda x: [x, 1], {}, [(torch.float32, (4,)), (torch.int64, (4,))]),
    ("pow.Tensor_Scalar_out", lambda x: [x, 2], {}, [(torch.float32, (4, 6))]),
    ("topk.values", lambda x: [x, 2], {}, [(torch.float32, (4, 2)), (torch.int64, (4, 2))]),
    ("mul.out", lambda x: [x, x], {}, [(torch.float32, (4, 6))]),
    ("mm.out", lambda x: [x, x.t()], {}, [(torch.float32, (4, 4))]),
]


def convert(a):
    return [convert(x) for x in a] if isinstance(a, list) else a.numpy() if isinstance(a, torch.Tensor) else a


@pytest.mark.parametrize(("name", "make", "kwargs", "outs"), CALLS, ids=[c[0] for c in CALLS])
def test_the_result_goes_into_the_tensor(name: str, make, kwargs, outs) -> None:
    args = make(torch.arange(24.0).reshape(4, 6) / 7 - 1)
    op, overload = name.split(".")
    function = getattr(getattr(torch.ops.aten, op), overload)
    names = [a.name for a in function._schema.arguments if a.kwarg_only and a.alias_info is not None and a.alias_info.is_write]
    theirs = {n: torch.full(shape, 9, dtype=dtype) for n, (dtype, shape) in zip(names, outs, strict=True)}
    mine = {n: t.numpy().copy() for n, t in theirs.items()}
    function(*args, **kwargs, **theirs)
    results = _core.call_op(f"aten.{name}", convert(args), {**kwargs, **mine})
    for got, want in zip(results if isinstance(results, tuple) else (results,), theirs.values(), strict=True):
        assert got.dtype == want.numpy().dtype
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-6, atol=0)
        assert not (got == 9).all()


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"out": np.zeros((2, 3), np.float32)}, r"the result has shape \(4, 6\), the tensor to change has \(2, 3\)"),
    ({"out": np.zeros((4, 6), np.float64)}, "a result of F32 to be written into F64"),
    ({"out": np.zeros((4, 6), np.float32), "more": np.zeros(2, np.float32)}, "it has 1 results and 2 tensors"),
    ({"out": 3}, "argument out is not known here, and no tensor to write into"),
    ({}, "it has 1 results and 0 tensors"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(kwargs, message: str) -> None:
    x = np.ones((4, 6), np.float32)
    with pytest.raises((_core.PortingError, ValueError), match=message):
        _core.call_op("aten.add.out", [x, x], kwargs)


def test_an_overload_that_only_looks_like_one_is_unknown() -> None:
    for name in ("aten.add.no_such_out", "aten.no_such_op.out", "aten.topk.value", "aten.out.out"):
        with pytest.raises(ValueError, match="no op with a handler"):
            _core.op_signature(name)
