"""Whole programs, recorded from torch by the mode below and run in C: views, in-place ops through views, feeds that are
laid out otherwise, symbols, intervals, liveness."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from porting import _core
from test_ops import NAMES, array, check, for_call_op
from torch.utils._python_dispatch import TorchDispatchMode


class Tape(TorchDispatchMode):
    """Writes down every ATen op: values by identity, results held so that identities stay."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[list] = []
        self.ops: list[list] = []
        self.known: dict[int, int] = {}
        self.held: list[torch.Tensor] = []

    def value(self, t: torch.Tensor) -> int:
        if id(t) not in self.known:
            self.known[id(t)] = len(self.values)
            self.held.append(t)
            self.values.append([NAMES[t.dtype], list(t.shape), list(t.stride()), t.storage_offset()])
        return self.known[id(t)]

    def encode(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            return {"v": self.value(a)}
        if isinstance(a, (list, tuple)):
            return {"list": [self.encode(x) for x in a]}
        if isinstance(a, float) and not np.isfinite(a):
            return {"float": str(a)}
        return for_call_op(a)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        entry = [func.name().replace("::", "."), [self.encode(a) for a in args], {k: self.encode(a) for k, a in (kwargs or {}).items()}]
        entry[0] += "" if entry[0].count(".") == 2 else ".default"
        result = func(*args, **(kwargs or {}))
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        self.ops.append([*entry, [self.value(r) for r in results if isinstance(r, torch.Tensor)]])
        return result

    def program(self, **more: Any) -> _core.Program:
        return _core.Program(json.dumps({"values": self.values, "ops": self.ops, **more}).encode())


def record(function: Callable, *inputs: torch.Tensor) -> tuple[Tape, dict[int, np.ndarray], torch.Tensor]:
    tape = Tape()
    fed = [array(x.clone(memory_format=torch.preserve_format)) for x in inputs]
    feeds = {tape.value(x): f for x, f in zip(inputs, fed)}
    with torch.no_grad(), tape:
        out = function(*inputs)
    return tape, feeds, out


def views_and_writes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    a = x.t().clone()
    a[1] += 2
    a[:, 1:3].mul_(y[0, 0]).add_(1)
    b = a.unsqueeze(0).expand(2, -1, -1)
    c = torch.cat([b, b * 2], dim=1).permute(2, 0, 1)
    c[0].zero_()
    parts = c.split(2, dim=2)
    parts[0].copy_(parts[1].neg())
    return (c + y.sum()).masked_fill_(c > 1.5, -1.0)


def writes_to_an_input(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x[0].fill_(7)
    x.view(-1)[::3].sub_(y.view(-1)[0])
    return x.relu_() + y


def attention(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    q, k, v = (x @ w).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q @ k.transpose(-1, -2) / 2.0) + torch.full((5, 5), float("-inf")).triu(1)
    return torch.nn.functional.gelu((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 8))


def embed(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    h = torch.nn.functional.embedding(ids, table) + table[torch.arange(ids.shape[1])]
    h = torch.nn.functional.layer_norm(h, (table.shape[1],))
    return torch.where((ids == 3)[..., None], h.mean(-1, keepdim=True), h).cumsum(1)[:, ids[0].argmax()]


G = torch.Generator().manual_seed(5)
PROGRAMS = [
    (views_and_writes, (torch.randn(3, 4, generator=G), torch.randn(2, 2, generator=G))),
    (writes_to_an_input, (torch.randn(4, 6, generator=G), torch.randn(6, generator=G))),
    (views_and_writes, (torch.randn(4, 3, generator=G).t(), torch.randn(2, 2, generator=G))),
    (attention, (torch.randn(2, 5, 8, generator=G), torch.randn(8, 24, generator=G))),
    (attention, (torch.randn(5, 2, 8, generator=G).transpose(0, 1), torch.randn(24, 8, generator=G).t())),
    (embed, (torch.randint(0, 7, (2, 5), generator=G), torch.randn(7, 16, generator=G))),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program_against_torch(number: int) -> None:
    function, inputs = PROGRAMS[number]
    tape, feeds, out = record(function, *(x.clone(memory_format=torch.preserve_format) for x in inputs))
    program = tape.program()
    before = {v: a.copy() for v, a in feeds.items()}
    assert program.missing(0, program.num_ops) == []
    (mine,) = program.run(0, program.num_ops, feeds, [tape.value(out)], check_strides=True)
    check("aten.mm", mine, out)  # rounds on the way
    for v, a in feeds.items():
        assert np.array_equal(a, before[v]), "a feed was changed"
    # Row-major copies, as a capture holds them, must do as well: the executor lays them out as recorded.
    plain = {v: np.ascontiguousarray(a) for v, a in feeds.items()}
    (again,) = program.run(0, program.num_ops, plain, [tape.value(out)], check_strides=True)
    assert np.array_equal(mine, again, equal_nan=True)


def test_every_value_can_be_fetched_when_it_is_made() -> None:
    function, inputs = PROGRAMS[3]
    tape, feeds, _ = record(function, *inputs)
    made = [(v, at) for at, op in enumerate(tape.ops) for v in op[3]]
    program = tape.program()
    got = program.run(0, program.num_ops, feeds, [v for v, _ in made], fetch_at=[at for _, at in made])
    for (v, _), mine in zip(made, got):
        check("aten.mm", mine, tape.held[v])
    # An interval in the middle, fed with what the ops before it made.
    fed = {v: array(t) for v, t in enumerate(tape.held)}
    last = tape.ops[6][3][0]
    used = {a["v"] for a in tape.ops[6][1] if isinstance(a, dict) and "v" in a}
    (mine,) = program.run(6, 7, {v: fed[v] for v in used}, [last])
    check("aten.mm", mine, tape.held[last])


def test_other_sizes_are_refused() -> None:
    tape, feeds, out = record(lambda x: x.t().neg(), torch.randn(3, 4, generator=G))
    program = tape.program()
    with pytest.raises(_core.ShapeError, match=r"value 0 was recorded with shape \(3, 4\), got \(4, 3\)"):
        program.run(0, 2, {0: np.zeros((4, 3), np.float32)}, [2])
    with pytest.raises(_core.DtypeError, match="F32, got F64"):
        program.run(0, 2, {0: np.zeros((3, 4))}, [2])
    with pytest.raises(ValueError, match="neither make nor get"):
        program.run(0, 1, feeds, [2])
    with pytest.raises(ValueError, match="nothing has made or fed"):
        program.run(1, 2, feeds, [2])


def test_a_returned_number_that_changed_is_refused() -> None:
    values = [["I64", [], [], 0], ["F32", [3], [1], 0]]
    ops = [["aten._local_scalar_dense.default", [{"v": 0}], {}, [], 3], ["aten.zeros.default", [{"list": [3]}], {}, [1]]]
    program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
    assert program.run(0, 2, {0: np.array(3)}, [1])[0].shape == (3,)
    with pytest.raises(ValueError, match="returned 3 when the program was recorded and 4 now"):
        program.run(0, 2, {0: np.array(4)}, [1])


def test_symbols_stand_for_other_lengths() -> None:
    kv = lambda b: {"sym": [b, [[1, "kv"]]]}  # noqa: E731
    values = [["F32", [2, kv(0)], [kv(0), 1], 0], ["F32", [2, 1], [1, 1], 0], ["F32", [2, kv(1)], [kv(1), 1], 0],
              ["F32", [2, 2], [kv(1), 1], kv(-1)]]  # fmt: skip
    ops = [["aten.cat.default", [{"list": [{"v": 0}, {"v": 1}]}, -1], {}, [2]],
           ["aten.slice.Tensor", [{"v": 2}, 1, kv(-1), kv(1)], {}, [3]]]  # fmt: skip
    program = _core.Program(json.dumps({"values": values, "ops": ops, "symbols": ["kv"], "recorded_symbols": [4]}).encode())
    one = np.full((2, 1), 9, np.float32)
    for n in (4, 7):
        x = np.arange(2 * n, dtype=np.float32).reshape(2, n)
        (out,) = program.run(0, 2, {0: x, 1: one}, [3], symbols=[n], check_strides=True)
        assert np.array_equal(out, np.concatenate([x, one], 1)[:, -2:])
    with pytest.raises(_core.ShapeError):
        program.run(0, 2, {0: x, 1: one}, [3], symbols=[5])
    with pytest.raises(ValueError, match="2 symbols are given, the program has 1"):
        program.run(0, 2, {0: x, 1: one}, [3], symbols=[7, 7])


def test_as_strided_counts_from_the_recorded_storage() -> None:
    storage = torch.arange(30.0)
    tape, _, out = record(lambda x: x.as_strided((2, 2), (3, 1), 6), storage[4:20])
    (mine,) = tape.program().run(0, 1, {0: array(storage[4:20].clone())}, [tape.value(out)])
    assert np.array_equal(mine, array(out))


@pytest.mark.parametrize("fed", (True, False))
def test_as_strided_scatter_counts_from_the_storage(fed: bool) -> None:
    storage, part = torch.arange(30.0), torch.tensor([100.0, 200.0])
    values = [["F32", [30], [1], 0], ["F32", [16], [1], 4], ["F32", [2], [1], 0], ["F32", [16], [1], 4]]
    seen = set()
    for offset in (None, 4, 5, 17, *(() if fed else (0, 2, 26))):
        ops = [] if fed else [["aten.slice.Tensor", [{"v": 0}, 0, 4, 20], {}, [1]]]
        ops.append(["aten.as_strided_scatter.default", [{"v": 1}, {"v": 2}, {"list": [2]}, {"list": [2]}, offset], {}, [3]])
        program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
        feeds = {1: array(storage[4:20].clone())} if fed else {0: array(storage)}
        (mine,) = program.run(0, len(ops), {**feeds, 2: array(part)}, [3])
        assert np.array_equal(mine, array(torch.as_strided_scatter(storage[4:20], part, (2,), (2,), offset))), offset
        seen.add(mine.tobytes())
    assert len(seen) >= 3


@pytest.mark.parametrize(("op", "other"), (("copy_", True), ("add_", True), ("relu_", False)))
def test_writing_to_what_repeats_itself_is_refused(op: str, other: bool) -> None:
    x, y = torch.randn(1, 4), torch.randn(3, 4)
    feeds = {0: array(x), 2: array(y)}
    overload = {"copy_": "default", "add_": "Tensor", "relu_": "default"}[op]
    for rows in (1, 3):
        values = [["F32", [1, 4], [4, 1], 0], ["F32", [rows, 4], [0, 1], 0], ["F32", [3, 4], [4, 1], 0], ["F32", [rows, 4], [4, 1], 0],
                  ["F32", [rows, 4], [0, 1], 0]]
        ops = [["aten.expand.default", [{"v": 0}, {"list": [rows, 4]}], {}, [1]], ["aten.slice.Tensor", [{"v": 2}, 0, 0, rows], {}, [3]],
               [f"aten.{op}.{overload}", [{"v": 1}, *([{"v": 3}] if other else [])], {}, [4]]]
        program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
        write = lambda: getattr(x.clone().expand(rows, 4), op)(*([y[:rows]] if other else []))  # noqa: B023, E731
        if rows == 1:
            assert np.array_equal(program.run(0, 3, feeds, [4])[0], array(write()))
            continue
        with pytest.raises(RuntimeError, match="single memory location"):
            write()
        with pytest.raises(ValueError, match="repeats itself along dimension 0"):
            program.run(0, 3, feeds, [4])


def test_results_written_into_turned_views_of_their_operands() -> None:
    """Integers go through floor as they are: what is written is the memory that is written to."""
    values = [["I64", [3, 3], [3, 1], 0], ["I64", [3, 3], [1, 3], 0], ["I64", [3, 3], [1, 3], 0]]
    x = np.arange(9).reshape(3, 3)
    for op in ("floor", "trunc", "clone"):
        ops = [["aten.t.default", [{"v": 0}], {}, [1]], [f"aten.{op}.out", [{"v": 0}], {"out": {"v": 1}}, [2]]]
        made, changed = _core.Program(json.dumps({"values": values, "ops": ops}).encode()).run(0, 2, {0: x}, [2, 0])
        assert np.array_equal(made, x) and np.array_equal(changed, x.T)


def test_refusals_of_call_op() -> None:
    x = np.ones((2, 3), np.float32)
    cases = [
        ("aten.bernoulli.default", [x], {}, _core.UnsupportedError, "no handler"),
        ("aten.neg.default", [x, 1], {}, ValueError, "at most 1 positional"),
        ("aten.neg.default", [x], {"out": x}, _core.UnsupportedError, "not known here"),
        ("aten.add.Tensor", [x, x, 2], {}, ValueError, "at most 2 positional"),
        ("aten.add.Tensor", [x, x], {"alpha": "2"}, _core.UnsupportedError, "expected a number, got a string"),
        ("aten.add.Tensor", [x, np.ones((2, 2), np.float32)], {}, _core.ShapeError, "do not broadcast"),
        ("aten.mm.default", [x, x], {}, _core.ShapeError, "do not multiply"),
        ("aten.embedding.default", [x, np.array([2])], {}, ValueError, "2"),
        ("aten.clone.default", [x], {"memory_format": {"memory_format": "channels_last"}}, _core.ShapeError, "channels last needs 4"),
        ("aten.add_.Tensor", [np.ones(3, np.int64), 0.5], {}, _core.DtypeError, "cannot be written into I64"),
        ("aten._to_copy.default", [x], {"device": {"device": "cuda"}}, _core.UnsupportedError, "device"),
    ]  # fmt: skip
    for name, args, kwargs, error, text in cases:
        with pytest.raises(error, match=text):
            _core.call_op(name, args, kwargs)
    with pytest.raises(ValueError, match="provider"):
        _core.call_op("aten.neg.default", [x], provider="nonsense")
    with pytest.raises(ValueError, match="variant"):
        _core.call_op("aten.neg.default", [x], variant="nonsense")
    assert np.array_equal(_core.call_op("aten.neg.default", [x], variant="ref", provider="reference"), -x)
