"""Random programs of pointwise ops, views and changes in place, and of attention: whatever is asked for on the way, the last value has the same bits; and
the same programs with something in them broken end in arrays or in one sentence. Run as a process of its own by test_fuzz_ops.py:

    python tests/fuzz/fuzz_programs.py SECONDS SEED TRACE
"""
import copy
import faulthandler
import json
import math
import os
import random
import sys
import time

import numpy as np
from porting import _core

UNARY = ["silu", "relu", "neg", "abs", "gelu", "sigmoid", "square"]
BINARY = ["mul.Tensor", "sub.Tensor", "add.Tensor", "maximum"]
IN_PLACE = [("add_.Tensor", 2), ("relu_", 1), ("mul_.Tensor", 2), ("neg_", 1)]
NUMBERS = [-1, 0, 1, 2, 7, 100, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]
EXPECTED = (_core.PortingError, ValueError, TypeError, MemoryError, OverflowError)


def make_program(rng):
    """Values, ops, and the numbers of those that are fed."""
    shape = rng.choice([[130, 130], [40000], [3, 5], [257, 64]])
    dense = [shape[1], 1] if len(shape) == 2 else [1]
    values = [["F32", shape, dense, 0] for _ in range(3)]
    ops = []
    for _ in range(rng.randint(2, 14)):
        like = rng.choice(values)
        same = [v for v, value in enumerate(values) if value[1] == like[1] and value[2] == like[2]]
        x = rng.choice(same[-4:])
        turn, y = rng.random(), rng.choice(same)
        made = copy.deepcopy(values[x])
        if turn < 0.35:
            op, args = rng.choice(UNARY), [{"v": x}]
        elif turn < 0.65:
            op, args = rng.choice(BINARY), [{"v": x}, {"v": y} if rng.random() < 0.8 else rng.choice([2, 0.5])]
        elif turn < 0.75:
            op, count = rng.choice(IN_PLACE)
            args = [{"v": x}, {"v": y}][:count]
        elif turn < 0.85 and len(made[1]) == 2:
            op, args = "t", [{"v": x}]
            made[1], made[2] = made[1][::-1], made[2][::-1]
        elif turn < 0.93:
            start = rng.randint(0, made[1][0] - 1)
            op, args = "slice.Tensor", [{"v": x}, 0, start, made[1][0]]
            made[1][0] -= start
            made[3] += start * made[2][0]
        else:
            op, args = "detach", [{"v": x}]
        if turn < 0.65:
            made[3] = 0
        name = f"aten.{op}" + ("" if "." in op else ".default")
        values.append(made)
        ops.append([name, args, {}, [len(values) - 1]])
    return {"values": values, "ops": ops}, 3


def make_attention(rng):
    """The same, of two products of stacks and what may or may not stand between them."""
    N, T, S, D = rng.choice([(2, 96, 100, 16), (4, 128, 64, 20), (2, 17, 520, 33), (6, 20, 30, 3)])
    masks = [[T, S], [S], [N, T, S], [1, 1, S], [N, 1, 1], [2, N // 2, T, S], [1, N // 2, 1, S], [T, 1]]

    def value(*shape):
        values.append(["F32", list(shape), [math.prod(shape[d + 1:]) for d in range(len(shape))], 0])
        return len(values) - 1

    values, ops = [], []
    q, k, v, mask = value(N, T, D), value(N, D, S), value(N, S, D), value(*rng.choice(masks[:4] if rng.random() < 0.5 else masks))
    now = value(N, T, S)
    ops.append(["aten.bmm.default", [{"v": q}, {"v": k}], {}, [now]])
    for _ in range(rng.randint(1, 6)):
        shape, turn = values[now][1], rng.random()
        other = [2, N // 2, T, S] if len(shape) == 3 else [N, T, S]
        fits = len(values[mask][1]) <= len(shape) and all(a in (1, b) for a, b in zip(values[mask][1][::-1], shape[::-1]))
        if turn < 0.25:
            made = value(*other)
            ops.append([f"aten.{rng.choice(['view', '_unsafe_view', 'reshape'])}.default", [{"v": now}, {"list": other}], {}, [made]])
        elif turn < 0.5 and fits:
            made = now if rng.random() < 0.3 else value(*shape)
            ops.append([f"aten.add{'_' if made == now else ''}.Tensor", [{"v": now}, {"v": mask}], {}, [made]])
        elif turn < 0.8:
            made = value(*shape)
            ops.append(["aten._softmax.default", [{"v": now}, rng.choice([-1, -1, len(shape) - 1, -2]), False], {}, [made]])
        elif turn < 0.9:
            made = value(*shape)
            ops.append(["aten.mul.Tensor", [{"v": now}, rng.choice([0.5, {"v": now}, {"v": ops[0][3][0]} if len(shape) == 3 else 2.0])], {}, [made]])
        else:
            made = value(*shape)
            ops.append([f"aten.{rng.choice(['silu', 'clone', 'neg'])}.default", [{"v": now}], {}, [made]])
        now = made
    if len(values[now][1]) == 4:
        made = value(N, T, S)
        ops.append(["aten.view.default", [{"v": now}, {"list": [N, T, S]}], {}, [made]])
        now = made
    ops.append(["aten.bmm.default", [{"v": now}, {"v": v}], {}, [value(N, T, D)]])
    return {"values": values, "ops": ops}, 4


def broken(rng, program):
    """The program with one to three numbers, names or lists changed."""
    program = copy.deepcopy(program)
    ops = program["ops"]
    for _ in range(rng.randint(1, 3)):
        if isinstance(ops, list) and len(ops) > 1 and rng.random() < 0.6:
            one, other = rng.randrange(len(ops)), rng.randrange(len(ops))
            turn = rng.random()
            if turn < 0.4:
                ops[one][1][0] = {"v": rng.randrange(len(program["values"]))}
            elif turn < 0.6:
                ops[one][0] = ops[other][0]
            elif turn < 0.8:
                ops[one], ops[other] = ops[other], ops[one]
            else:
                ops[one][3] = ops[other][3]
            continue
        at, path = program, [({}, 0)]
        while isinstance(at, (list, dict)) and at:
            key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
            path.append((at, key))
            at = at[key]
            if rng.random() < 0.1:
                break
        holder, key = path[-1]
        kind = rng.random()
        if kind < 0.6:
            holder[key] = rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randint(0, 20)
        elif kind < 0.8:
            holder[key] = rng.choice([None, [], {}, "F64", "aten.add_.Tensor", "aten.silu.default", {"v": 3}, {"v": 10**6}, {"list": [{"v": 0}]}, 0.5])
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        break  # paths may end elsewhere now
    return program


def fuzz_good(rng, program, num_fed):
    draw = np.random.default_rng(rng.getrandbits(32))
    feeds = {v: draw.standard_normal(program["values"][v][1]).astype(np.float32) for v in range(num_fed)}
    kept = {v: x.copy() for v, x in feeds.items()}
    parsed = _core.Program(json.dumps(program).encode())
    count, last = len(program["ops"]), len(program["values"]) - 1
    options = {"num_threads": rng.choice([1, 2, 3])}
    outputs = [op[3][0] for op in program["ops"]]
    (whole,) = parsed.run(0, count, feeds, [last], **options)
    each = parsed.run(0, count, feeds, outputs, fetch_at=list(range(count)), **options)
    assert whole.tobytes() == each[-1].tobytes(), "the last value, alone and beside all others"
    some = sorted(rng.sample(range(count), rng.randint(0, count)))
    *_, again = parsed.run(0, count, feeds, [*(outputs[k] for k in some), last], **options)
    assert whole.tobytes() == again.tobytes(), "the last value, beside some others"
    expects = [(outputs[k], k, each[k]) for k in some]
    (again,), same = parsed.run(0, count, feeds, [last], expects=expects, restore=rng.random() < 0.5, **options)
    assert all(same) and whole.tobytes() == again.tobytes(), "every value is what it was"
    if some:
        k = rng.choice(some)
        wrong = [(v, at, x + np.float32(1) if at == k else x) for v, at, x in expects]
        _, same = parsed.run(0, count, feeds, [last], expects=wrong, restore=True, **options)
        assert not same[some.index(k)] or not np.isfinite(each[k]).all(), "a value that is another"
    if some:
        k = rng.choice(some)
        cut = parsed.run(0, k + 1, feeds, [outputs[k]], **options)[0]
        assert cut.tobytes() == each[k].tobytes(), "a value, where the run ends with it"
    assert all(np.array_equal(feeds[v], x) for v, x in kept.items()), "feeds are left alone"


def fuzz_broken(rng, program, num_fed):
    text = json.dumps(broken(rng, program)).encode()
    if rng.random() < 0.05:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1:]
    feeds = {v: np.ones(program["values"][v][1], np.float32) for v in range(num_fed)}
    try:
        parsed = _core.Program(text)
        parsed.fusions  # noqa: B018 -- looking is what is tried
        begin = rng.choice([0, 0, 0, 1, -1, 2**62])
        end = rng.choice([parsed.num_ops] * 3 + [1, 2**62])
        fetches = [rng.choice([parsed.num_values - 1, 0, 3, 2**40, -1]) for _ in range(rng.randint(0, 3))]
        more = {}
        if rng.random() < 0.3:
            more["fetch_at"] = [rng.choice([-1, 0, 1, parsed.num_ops, -(2**62)]) for _ in fetches]
        if rng.random() < 0.3:
            more["only"] = sorted(rng.choice([0, 1, 2, 3, -1, 2**40]) for _ in range(rng.randint(0, 4)))
        if rng.random() < 0.3:
            more["expects"] = [(rng.choice([0, 1, 3, 4, 2**40, -1]), rng.choice([-1, 0, 1, 2, 2**40]), rng.choice(list(feeds.values()))) for _ in range(2)]
            more["restore"] = rng.random() < 0.5
        parsed.run(begin, end, feeds, fetches, symbols=rng.choice([(), (1,), (2**62, -1)]), num_threads=rng.choice([1, 2, 0, 2**31 - 1]), **more)
        return True
    except EXPECTED as error:
        assert str(error) or isinstance(error, MemoryError)
        return False


def main(seconds, seed, trace):
    faulthandler.enable()
    end, file, k, ran = time.monotonic() + seconds, os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), 0, 0
    while k < 5 or time.monotonic() < end:
        os.pwrite(file, f"seed {seed}, program {k}".ljust(120).encode(), 0)
        rng = random.Random(f"{seed}/{k}")
        program, num_fed = rng.choice([make_program, make_program, make_attention])(rng)
        fuzz_good(rng, program, num_fed)
        ran += sum(fuzz_broken(rng, program, num_fed) for _ in range(20))
        k += 1
    print(f"{k} programs, {20 * k} broken ones, {ran} of which still ran")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3])
