"""Pointwise ops that run together: the same bits as torch's and as op by op, on one and on several threads; and what must not be fused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from porting import _core
from test_run import record

CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
functional = torch.nn.functional
generator = torch.Generator().manual_seed(3)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).to(dtype)


def gated(gate, up):
    return functional.silu(gate) * up


def long_chain(x, y):
    return torch.where(x > 0, functional.gelu(x * 0.5 + y, approximate="tanh"), (x - y).sigmoid()).neg()


def linear_gelu(x, w, b):
    return functional.gelu(torch.addmm(b, x, w.t()))


def gated_mlp(x, gate, up, down):
    return (functional.silu(x.mm(gate)) * x.mm(up)).mm(down)


CASES = {  # name: (function, inputs, ops of each fusion)
    "gated": (gated, lambda: (normal(257, 273), normal(257, 273)), [["silu", "mul"]]),
    "gated, halves": (gated, lambda: (normal(70001, dtype=torch.bfloat16), normal(70001, dtype=torch.bfloat16)), [["silu", "mul"]]),
    "one more than two blocks": (gated, lambda: (normal(32769), normal(32769)), [["silu", "mul"]]),
    "long": (long_chain, lambda: (normal(100, 1001), normal(100, 1001)), [["gt", "mul", "add", "gelu", "sub", "sigmoid", "where", "neg"]]),
    "linear and gelu": (linear_gelu, lambda: (normal(300, 64), normal(128, 64), normal(128)), [["addmm", "gelu"]]),
    "gated MLP": (gated_mlp, lambda: (normal(300, 64), normal(64, 128), normal(64, 128), normal(128, 64)), [["mm", "silu", "mul"]]),
}


@pytest.fixture(autouse=True)
def torch_provider():
    from porting import providers

    providers.load_torch_provider()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(name, threads):
    function, inputs, expected_groups = CASES[name]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tape, feeds, expected = record(function, *inputs())
    finally:
        torch.set_num_threads(before)
    program = tape.program()
    assert [[program.op_name(k).split(".")[1] for k in group] for group in program.fusions] == expected_groups
    options = {"capability": CAPABILITY, "num_threads": threads, "provider": "torch"}
    last = tape.ops[-1][3][0]
    (fused,) = program.run(0, program.num_ops, feeds, [last], **options)
    every = [op[3][0] for op in tape.ops]
    single = program.run(0, program.num_ops, feeds, every, **options)
    assert fused.tobytes() == single[-1].tobytes()
    assert fused.tobytes() == expected.contiguous().view(torch.uint8).numpy().tobytes()
    for value, array in zip(every, single):
        assert array.tobytes() == tape.held[value].contiguous().view(torch.uint8).numpy().tobytes(), "a value inside of a group that was asked for"


def test_not_across_a_change_in_place():
    """silu may not wait for mul: its operand is changed in between."""

    def function(x, y):
        gate = functional.silu(x)
        x.add_(1.0)
        return gate * y

    tape, feeds, expected = record(function, normal(40000), normal(40000))
    program = tape.program()
    assert program.fusions == []
    (made,) = program.run(0, program.num_ops, feeds, [tape.ops[-1][3][0]], capability=CAPABILITY, provider="torch", num_threads=torch.get_num_threads())
    assert made.tobytes() == expected.numpy().tobytes()


def test_not_across_running_statistics_that_a_norm_renews():
    """What reads them before the norm may not wait until after it, although the norm is no in-place op by its name."""

    def function(x, mean, var):
        before = mean * 2.0
        torch.ops.aten.native_batch_norm(x, None, None, mean, var, True, 0.5, 1e-5)
        return before + 1.0

    mean = normal(64)
    tape, feeds, expected = record(function, normal(8, 64), mean.clone(), torch.ones(64))
    program = tape.program()
    assert program.fusions == []
    (made,) = program.run(0, program.num_ops, feeds, [tape.ops[-1][3][0]], capability=CAPABILITY)
    assert made.tobytes() == expected.numpy().tobytes() == (mean * 2.0 + 1.0).numpy().tobytes()


def test_a_value_used_twice_is_kept():
    def function(x, y):
        gate = functional.silu(x)
        return gate * y, gate.sum()

    tape, _, _ = record(lambda x, y: function(x, y)[0], normal(40000), normal(40000))
    assert tape.program().fusions == []


@pytest.mark.parametrize("after", [0, 1, 2, -1])
def test_an_operand_asked_for_where_it_dies(after):
    """The group may not work in the memory of an operand that is asked for right after it."""
    tape, feeds, expected = record(lambda x: functional.silu(x.clone()).neg(), normal(40000))
    program = tape.program()
    assert program.fusions == [(1, 2)]
    asked = [tape.ops[0][3][0], tape.ops[-1][3][0]]
    copy, made = program.run(0, 3, feeds, asked, fetch_at=[after, -1], capability=CAPABILITY, num_threads=torch.get_num_threads())
    assert copy.tobytes() == feeds[0].tobytes()
    assert made.tobytes() == expected.numpy().tobytes()


def test_broadcasts_run_op_by_op():
    tape, feeds, expected = record(lambda x, w: functional.silu(x) * w, normal(400, 100), normal(100))
    program = tape.program()
    assert program.fusions == []
    (made,) = program.run(0, 2, feeds, [tape.ops[-1][3][0]], capability=CAPABILITY, num_threads=torch.get_num_threads())
    assert made.tobytes() == expected.numpy().tobytes()


def test_feeds_are_not_written_to():
    x, y = normal(40000), normal(40000)
    tape, feeds, _ = record(gated, x, y)
    before = {value: array.copy() for value, array in feeds.items()}
    tape.program().run(0, 2, feeds, [tape.ops[-1][3][0]], capability=CAPABILITY)
    assert all(np.array_equal(before[value], array) for value, array in feeds.items())


def test_an_interval_that_begins_inside():
    tape, feeds, expected = record(gated, normal(40000), normal(40000))
    gate = tape.ops[0][3][0]
    inner = {value: array for value, array in feeds.items() if value != tape.ops[0][1][0]["v"]}
    inner[gate] = tape.held[gate].numpy()
    (made,) = tape.program().run(1, 2, inner, [tape.ops[-1][3][0]], capability=CAPABILITY, num_threads=torch.get_num_threads())
    assert made.tobytes() == expected.numpy().tobytes()


def test_a_wrong_recording_is_refused():
    """A chain whose recorded dtype is another one than comes out."""
    tape, feeds, _ = record(gated, normal(40000), normal(40000))
    tape.values[tape.ops[0][3][0]][0] = "F64"
    with pytest.raises(_core.PortingError, match="recorded"):
        tape.program().run(0, 2, feeds, [tape.ops[-1][3][0]], capability=CAPABILITY)
