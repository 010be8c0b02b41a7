"""Attention that a model writes out, head by head: the same bits as torch's and as op by op, on one and on several threads; and what must
not run so."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from porting import _core, providers
from test_run import Tape, record

CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
functional = torch.nn.functional
generator = torch.Generator().manual_seed(5)
LOWEST = torch.finfo(torch.float32).min


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).to(dtype)


def causal(T: int, S: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((1, 1, T, S), torch.finfo(dtype).min, dtype=dtype).triu(1)


def heads(B: int, H: int, T: int, D: int) -> torch.Tensor:
    """As a projection's result is cut into heads."""
    return normal(B, T, H * D).view(B, T, H, D).transpose(1, 2)


def repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    B, G, S, D = x.shape
    return x[:, :, None].expand(B, G, times, S, D).reshape(B, G * times, S, D)


def grouped(q, k, v, mask):
    k, v = repeated(k, 3), repeated(v, 3)
    weights = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
    weights = weights + mask[:, :, :, : k.shape[-2]]
    weights = functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    weights = functional.dropout(weights, p=0.1, training=False)
    return torch.matmul(weights, v).transpose(1, 2).contiguous()


def divided(q, k, v, mask):
    weights = torch.matmul(q, k.transpose(-1, -2)) / torch.full([], q.shape[-1] ** 0.5)
    weights = torch.where(mask, weights, torch.full([], LOWEST))
    return torch.matmul(functional.softmax(weights, dim=3).clone(), v)


def biased_in_place(q, k, v, bias):
    scores = torch.matmul(q, k.transpose(3, 2))
    scores += bias
    return torch.matmul(functional.softmax(scores.float(), dim=-1).type_as(scores), v)


def flat(q, k, v, hidden):
    scores = torch.bmm(q, k.transpose(1, 2)).view(2, 3, q.shape[1], k.shape[1]).masked_fill(hidden, -float("inf"))
    return torch.bmm(functional.softmax(scores.view(6, q.shape[1], k.shape[1]), dim=-1), v)


def bare(q, k, v):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)), dim=-1), v)


def padded(B: int, S: int) -> torch.Tensor:
    """(B, 1, 1, S) False where a key is padding."""
    return (torch.arange(S) < torch.arange(S - B, S)[:, None])[:, None, None]


ROWS = ["_to_copy", "mul", "div", "add", "add_", "where", "masked_fill", "_softmax"]
CASES = {  # name: (function, inputs, ops of the group that are more than views)
    "grouped": (grouped, lambda: (heads(2, 6, 130, 32), heads(2, 2, 130, 32), heads(2, 2, 130, 32), causal(130, 140)), "mul add _softmax"),
    "grouped, halves": (grouped, lambda: tuple(x.bfloat16() for x in (heads(1, 3, 100, 16), heads(1, 1, 100, 16), heads(1, 1, 100, 16), causal(100, 100, torch.bfloat16))),
                        "mul add _to_copy _softmax _to_copy"),
    "divided, where": (divided, lambda: (heads(3, 4, 111, 24), heads(3, 4, 97, 24), heads(3, 4, 97, 40), padded(3, 97)), "div where _softmax"),
    "in place": (biased_in_place, lambda: (heads(2, 4, 128, 64), heads(2, 4, 65, 64), heads(2, 4, 65, 64), normal(1, 4, 128, 65)), "add_ _softmax"),
    "three dimensions": (flat, lambda: (normal(6, 99, 16), normal(6, 99, 16), normal(6, 99, 16), torch.rand(3, 99, 1, generator=generator) < 0.1), "masked_fill _softmax"),
    "a row for each block": (bare, lambda: (heads(1, 2, 17, 16), heads(1, 2, 33000, 16), heads(1, 2, 33000, 16)), "_softmax"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def torch_provider():
    providers.load_torch_provider()


def taped(function, inputs, threads=1):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return record(function, *inputs)
    finally:
        torch.set_num_threads(before)


def names_of(program: _core.Program, group: tuple[int, ...]) -> list[str]:
    return [program.op_name(k).split(".")[1] for k in group]


def bits(x) -> bytes:
    return x.contiguous().view(torch.uint8).numpy().tobytes() if isinstance(x, torch.Tensor) else x.tobytes()


def same_bits(tape: Tape, feeds: dict, options: dict) -> list[np.ndarray]:
    """The last value as fused, op by op, and beside every other; returns all of them."""
    program, last = tape.program(), tape.ops[-1][3][0]
    (fused,) = program.run(0, program.num_ops, feeds, [last], **options)
    (single,) = program.run(0, program.num_ops, feeds, [last], only=range(program.num_ops), **options)
    every = program.run(0, program.num_ops, feeds, [op[3][0] for op in tape.ops], fetch_at=list(range(program.num_ops)), **options)
    assert bits(fused) == bits(single) == bits(every[-1])
    return every


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(name, threads):
    function, inputs, rows = CASES[name]
    tape, feeds, expected = taped(function, inputs(), threads)
    program = tape.program()
    (group,) = program.fusions
    names = names_of(program, group)
    assert (names[0], names[-1]) == ("bmm", "bmm") and [n for n in names if n in ROWS] == rows.split()
    options = {"capability": CAPABILITY, "num_threads": threads, "provider": "torch"}
    every = same_bits(tape, feeds, options)
    if expected.dtype == torch.float32:  # torch's products of halves are oneDNN's
        assert bits(every[-1]) == bits(expected)
    assert {bits(x) for x in feeds.values()} == {bits(tape.held[v]) for v in feeds}, "feeds are left alone"


@pytest.mark.parametrize("options", [{"capability": "default"}, {"capability": "avx2", "num_threads": 2}, {"variant": "ref"}, {"variant": "chain", "num_threads": 2},
                                     {"provider": "reference"}, {"operands": "bf16"}])  # fmt: skip
@pytest.mark.parametrize("name", ["grouped", "grouped, halves"])
def test_other_kernels_and_profiles(name, options):
    function, inputs, _ = CASES[name]
    tape, feeds, _ = taped(function, inputs())
    same_bits(tape, feeds, {"provider": "torch", **options})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["grouped", "grouped, halves", "divided, where"])
def test_a_group_does_run_as_one(name, threads):
    """What is recorded wrongly inside of a group is refused by the group, where it runs; else by the op."""
    function, inputs, _ = CASES[name]
    tape, feeds, _ = taped(function, inputs())
    wrong = next(op for op in tape.ops if op[0] in ("aten.add.Tensor", "aten.where.self"))[3][0]
    tape.values[wrong][0] = "F64"
    program, last = tape.program(), tape.ops[-1][3][0]
    options = {"capability": CAPABILITY, "num_threads": threads, "provider": "torch"}
    with pytest.raises(_core.PortingError, match="among .* ops that run together"):
        program.run(0, program.num_ops, feeds, [last], **options)
    with pytest.raises(_core.PortingError, match=f"value {wrong} was recorded as F64"):
        program.run(0, program.num_ops, feeds, [last], only=range(program.num_ops), **options)


def chain(dtype: str, sizes: list[list[int]], bias: list[int]) -> tuple[list, list]:
    """Values and ops of attention on q, k, v and a bias: sizes of q, k, v, of the scores, and of the scores with the bias."""

    def dense(shape: list[int]) -> list:
        return [dtype, shape, [int(np.prod([max(n, 1) for n in shape[d + 1 :]], dtype=object)) for d in range(len(shape))], 0]

    q, k, v, scores, biased = sizes
    values = [dense(x) for x in (q, k, v, bias, scores, biased, biased, scores, [*q[:2], v[2]])]
    ops = [["aten.bmm.default", [{"v": 0}, {"v": 1}], {}, [4]], ["aten.add.Tensor", [{"v": 4}, {"v": 3}], {}, [5]],
           ["aten._softmax.default", [{"v": 5}, -1, False], {}, [6]], ["aten.view.default", [{"v": 6}, {"list": scores}], {}, [7]],
           ["aten.bmm.default", [{"v": 7}, {"v": 2}], {}, [8]]]  # fmt: skip
    return values, ops


@pytest.mark.parametrize(("biased", "bias", "fused"), [([4, 99, 98], [98], True), ([1, 4, 99, 98], [1, 1, 99, 98], True), ([2, 2, 99, 98], [2, 1, 99, 98], False)])
def test_a_bias_that_cannot_make_the_recorded_shape(biased, bias, fused):
    """(4, T, S) and (2, 1, T, S) make (2, 4, T, S), whatever a program says."""
    sizes = [[4, 99, 16], [4, 16, 98], [4, 98, 16], [4, 99, 98], biased]
    values, ops = chain("F32", sizes, bias)
    program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
    assert bool(program.fusions) == fused
    feeds = {k: normal(*shape).numpy() for k, shape in enumerate([*sizes[:3], bias])}
    if fused:
        assert program.run(0, 5, feeds, [8])[0].tobytes() == program.run(0, 5, feeds, [8], only=range(5))[0].tobytes()
    else:
        with pytest.raises(_core.PortingError, match="recorded with shape"):
            program.run(0, 5, feeds, [8])


def test_a_dimension_that_no_op_adds():
    """(4, T, S) and (S) make no (1, 4, T, S)."""
    sizes = [[4, 99, 16], [4, 16, 98], [4, 98, 16], [4, 99, 98], [1, 4, 99, 98]]
    values, ops = chain("F32", sizes, [98])
    program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
    feeds = {k: normal(*shape).numpy() for k, shape in enumerate([*sizes[:3], [98]])}
    assert program.fusions
    for only in (None, range(5)):
        with pytest.raises(_core.PortingError, match="recorded"):
            program.run(0, 5, feeds, [8], only=only)


def test_scores_larger_than_memory_are_not_fused():
    """2^61 scores of 8 bytes for each head: their number fits 64 bits, their bytes do not."""
    T, S = 2**30, 2**31
    values, ops = chain("F64", [[2, T, 1], [2, 1, S], [2, S, 0], [2, T, S], [2, T, S]], [1])
    assert _core.Program(json.dumps({"values": values, "ops": ops}).encode()).fusions == []


def test_items_of_a_stack_have_their_own_bits():
    """What the fusion rests on: from 16 on, and with a thread for each item, a product in a stack is the product by itself."""
    rng = np.random.default_rng(11)

    def product(a, b, threads):
        return _core.call_op("aten.bmm.default", [a, b], provider="torch", capability=CAPABILITY, num_threads=threads)

    for _ in range(25):
        B, (M, K, N) = rng.integers(3, 9), rng.integers(16, 140, 3)
        a, b = rng.standard_normal((B, M, K), np.float32), rng.standard_normal((B, N, K), np.float32).transpose(0, 2, 1)
        b = b if rng.random() < 0.5 else np.ascontiguousarray(b)
        items = [product(a[i : i + 1], b[i : i + 1], 1) for i in range(B)]
        for threads in (1, 2, 3):
            whole = product(a, b, threads)
            assert all(whole[i : i + 1].tobytes() == item.tobytes() for i, item in enumerate(items)), (B, M, K, N, threads)
        assert whole[:1].tobytes() != items[1].tobytes()


def used_twice(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3)) + mask
    return torch.matmul(functional.softmax(scores, dim=-1), v) + scores.amax()


def weights_used_twice(q, k, v, mask):
    weights = functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-1)
    return torch.matmul(weights, v) * weights.mean()


def over_queries(q, k, v, mask):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-2), v)


def over_queries_by_number(q, k, v, mask):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=2), v)


def wider_mask(q, k, v, mask):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask.expand(3, -1, -1, -1), dim=-1), v)


def in_double(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3)) + mask.double()
    return torch.matmul(functional.softmax(scores, dim=-1).float(), v)


def transposed_weights(q, k, v, mask):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-1).transpose(2, 3), v)


def swapped_heads(q, k, v, mask):
    return torch.matmul(functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-1).transpose(0, 1), v.transpose(0, 1))


def changed_in_between(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3)) + mask
    q.add_(1.0)
    return torch.matmul(functional.softmax(scores, dim=-1), v)


def changed_through_a_view(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3))
    scores[0].mul_(2.0)
    return torch.matmul(functional.softmax(scores + mask, dim=-1), v)


def dropped(q, k, v, mask):
    weights = functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-1)
    return torch.matmul(torch.ops.aten.native_dropout(weights, 0.0, False)[0], v)


def second_factor(q, k, v, mask):
    return torch.matmul(v.transpose(2, 3), functional.softmax(torch.matmul(q, k.transpose(2, 3)) + mask, dim=-1))


def doubled_by_itself(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3)) + mask
    return torch.matmul(functional.softmax(scores + scores, dim=-1), v)


def no_rows_between(q, k, v, mask):
    return torch.matmul(torch.matmul(q, k.transpose(2, 3)), v)


NEARLY = [used_twice, weights_used_twice, over_queries, over_queries_by_number, wider_mask, in_double, transposed_weights, swapped_heads, changed_in_between,
          changed_through_a_view, dropped, second_factor, doubled_by_itself, no_rows_between]  # fmt: skip


@pytest.mark.parametrize("function", NEARLY)
def test_what_is_nearly_attention_is_not_fused(function):
    B = 1 if function is wider_mask else 2
    inputs = (heads(B, 2, 100, 100), heads(B, 2, 100, 100), heads(3 if function is wider_mask else 2, 2, 100, 100), normal(1, 1, 100, 100))
    tape, feeds, expected = taped(function, inputs)
    program = tape.program()
    assert not any(names_of(program, group).count("bmm") == 2 for group in program.fusions)
    if function is not dropped:
        every = same_bits(tape, feeds, {"capability": CAPABILITY, "num_threads": 1, "provider": "torch"})
        assert bits(every[-1]) == bits(expected)


def test_small_heads_run_op_by_op():
    tape, _, _ = taped(grouped, (heads(2, 6, 30, 32), heads(2, 2, 30, 32), heads(2, 2, 30, 32), causal(30, 30)))
    assert tape.program().fusions == []


@pytest.mark.parametrize("what", ["scores", "weights", "both"])
def test_weights_that_are_asked_for(what):
    """As with output_attentions=True, right after they were made or at the end."""
    tape, feeds, expected = taped(*((grouped, CASES["grouped"][1]())))
    program, last = tape.program(), tape.ops[-1][3][0]
    by_name = {op[0].split(".")[1]: op[3][0] for op in tape.ops}
    asked = {"scores": ["mul"], "weights": ["_softmax"], "both": ["add", "_softmax"]}[what]
    options = {"capability": CAPABILITY, "num_threads": 1, "provider": "torch"}
    for at in (None, [next(k for k, op in enumerate(tape.ops) if op[3][0] == by_name[name]) for name in asked] + [-1]):
        *weights, made = program.run(0, program.num_ops, feeds, [by_name[name] for name in asked] + [last], fetch_at=at, **options)
        assert bits(made) == bits(expected)
        assert [bits(w) for w in weights] == [bits(tape.held[by_name[name]]) for name in asked]


def test_part_of_a_group():
    tape, feeds, expected = taped(grouped, CASES["grouped"][1]())
    program, last = tape.program(), tape.ops[-1][3][0]
    options = {"capability": CAPABILITY, "num_threads": 1, "provider": "torch"}
    begin = next(k for k, op in enumerate(tape.ops) if op[0] == "aten._softmax.default")
    known = {a["v"]: tape.held[a["v"]].contiguous().numpy() for op in tape.ops[begin:] for a in op[1] if isinstance(a, dict) and "v" in a}
    made = {v for op in tape.ops[begin:] for v in op[3]}
    (end,) = program.run(begin, program.num_ops, {v: x for v, x in known.items() if v not in made}, [last], **options)
    assert bits(end) == bits(expected)
    (scores,) = program.run(0, begin, feeds, [tape.ops[begin - 1][3][0]], **options)
    assert bits(scores) == bits(tape.held[tape.ops[begin - 1][3][0]])


def with_symbol(a, size: int):
    """Integers that are multiples of a size become multiples of the symbol."""
    if isinstance(a, (list, tuple)):
        return [with_symbol(x, size) for x in a]
    if isinstance(a, dict):
        return {k: v if k == "v" else with_symbol(v, size) for k, v in a.items()}
    return {"sym": [0, [[a // size, "n"]]]} if type(a) is int and a > 0 and a % size == 0 else a


def test_at_another_number_of_keys():
    S, other = 127, 131
    tape, _, _ = taped(bare, (heads(2, 2, 96, 16), heads(2, 2, S, 16), heads(2, 2, S, 16)))
    for value in tape.values:
        value[1:3] = with_symbol(value[1:3], S)
    for op in tape.ops:
        op[1] = with_symbol(op[1], S)
    inputs = (heads(2, 2, 96, 16), heads(2, 2, other, 16), heads(2, 2, other, 16))
    again, feeds, expected = taped(bare, inputs)
    program, last = tape.program(symbols=["n"], recorded_symbols=[S]), tape.ops[-1][3][0]
    assert [names_of(program, group).count("bmm") for group in program.fusions] == [2]
    options = {"capability": CAPABILITY, "num_threads": 1, "provider": "torch", "symbols": [other]}
    (fused,) = program.run(0, program.num_ops, feeds, [last], **options)
    assert bits(fused) == bits(expected)
    with pytest.raises(_core.PortingError, match="shape"):
        program.run(0, program.num_ops, feeds, [last], **{**options, "symbols": [S]})


@pytest.mark.parametrize("name", ["grouped", "divided, where", "three dimensions"])
def test_a_wrong_program_is_refused_or_the_same(name):
    """Arguments and shapes inside of the group that contradict each other: never another result than op by op."""
    function, inputs, _ = CASES[name]
    tape, feeds, _ = taped(function, inputs())
    (group,) = tape.program().fusions
    last = tape.ops[-1][3][0]
    options = {"capability": CAPABILITY, "num_threads": 1, "provider": "torch"}
    plain = json.dumps({"values": tape.values, "ops": tape.ops})
    refused = same = 0
    for k in group:
        for change in ("shape", "strides", "argument", "operand", "output"):
            wrong = copy.deepcopy(json.loads(plain))
            op, made = wrong["ops"][k], wrong["ops"][k][3][0]
            if change == "shape":
                wrong["values"][made][1][-2:] = wrong["values"][made][1][:-3:-1]
            elif change == "strides":
                wrong["values"][made][2][-1] += 1
            elif change == "argument":
                op[1][1:] = [{"list": [-1, 1, 1]}]
            elif change == "operand":
                op[1][0] = {"v": next(iter(feeds))}
            else:
                op[3][0] = wrong["ops"][k - 1][3][0]
            results = []
            for more in ({}, {"only": range(len(wrong["ops"]))}):
                try:
                    results.append(bits(_core.Program(json.dumps(wrong).encode()).run(0, len(wrong["ops"]), feeds, [last], **more, **options)[0]))
                except (_core.PortingError, ValueError) as error:
                    results.append(None)
                    assert str(error)
            assert results[0] == results[1], (k, change)
            refused, same = refused + (results[0] is None), same + (results[0] is not None)
    assert refused > len(group) and same > 0
