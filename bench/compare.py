"""How fast two tensors are compared, beside torch.testing.assert_close and np.allclose.

    OMP_WAIT_POLICY=PASSIVE python bench/compare.py [--rounds 15] [--threads 2] [--pairs 1000]

One process, every call on another pair of a pool that is larger than the caches, the contestants in rotating order within each round; medians of
wall time and of the CPU time of all threads, which other work on the machine disturbs less. `measure` is every metric of `port_compare` with
percentiles and the histogram of ulp, `basic` the same without these two, `verdict` is `compare_arrays` with tol="auto" (row sizes, metrics
and judgement), `assert` is `porting.assert_close`. Torch is given tolerances that hold, so that nobody writes an error text. Elements per second of
`basic` times the bytes of both tensors is compared with what reading them alone takes (np.add.reduce over both as integers).

The last line is a report over --pairs pairs of 1 MB: judged, made into rows, and written as text.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ml_dtypes
import numpy as np
import porting
import torch
from porting import _core
from porting.compare import row_of
from porting.pair import compare_arrays
from porting.report import Report

SIZES = {"64 KB": 2**14, "1 MB": 2**18, "16 MB": 2**22}
POOL_BYTES = 96 * 2**20


def pool(elems, dtype, equal, rng):
    """Pairs of arrays (rows, 1024) and their tensors, more bytes than the caches hold."""
    count = max(3, POOL_BYTES // (2 * elems * dtype.itemsize))
    pairs = []
    for _ in range(min(count, 400)):
        e = rng.standard_normal((elems // 1024, 1024), dtype=np.float32)
        a = e if equal else e * (1 + np.float32(1e-6) * rng.standard_normal(e.shape, dtype=np.float32))
        e, a = e.astype(dtype), a.astype(dtype).copy()
        both = [torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if dtype.name == "bfloat16" else torch.from_numpy(x) for x in (e, a)]
        pairs.append((e, a, *both))
    return pairs


def contestants(dtype):
    rtol = {"float32": 1e-4, "float64": 1e-4}.get(dtype.name, 2e-2)
    ways = {
        "measure": lambda e, a, te, ta: _core.compare(e, a),
        "basic": lambda e, a, te, ta: _core.compare(e, a, basic=True),
        "verdict": lambda e, a, te, ta: compare_arrays(e, a),
        "assert": lambda e, a, te, ta: porting.assert_close(a, e, rtol=rtol, atol=1e-5),
        "torch assert_close": lambda e, a, te, ta: torch.testing.assert_close(ta, te, rtol=rtol, atol=1e-5),
        "np.allclose": lambda e, a, te, ta: np.allclose(a, e, rtol=rtol, atol=1e-5),
        "read both": lambda e, a, te, ta: (np.add.reduce(e.view("u1").reshape(-1).view("u8")), np.add.reduce(a.reshape(-1).view("u8"))),
    }
    if dtype.name in ("bfloat16", "float16"):
        del ways["np.allclose"]  # it knows no bfloat16, and halves are converted first
    return ways


def race(pairs, ways, rounds):
    """Name to (median ms of wall time, of CPU time)."""
    found = {name: [] for name in ways}
    names, turn = list(ways), 0
    for round_number in range(rounds + 1):  # the first warms up
        for k in range(len(names)):
            name = names[(k + round_number) % len(names)]
            pair = pairs[turn % len(pairs)]
            turn += 1
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name](*pair)
            if round_number:
                found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(1e3 * statistics.median(column) for column in zip(*times)) for name, times in found.items()}


def show(title, times):
    ours = times["basic"], times["assert"]
    print(f"\n{title}")
    for name, (wall, cpu) in times.items():
        against = "" if name in ("measure", "basic", "read both") else \
            f"   basic is {wall / ours[0][0]:6.1f} times faster, assert {wall / ours[1][0]:6.1f} times"
        print(f"  {name:20} {wall:9.3f} ms wall {cpu:9.3f} ms CPU{against}")


def report(num_pairs, rng):
    pairs = pool(2**18, np.dtype("f4"), False, rng)
    begin = time.perf_counter()
    rows = [row_of(compare_arrays(*pairs[i % len(pairs)][:2]), name=f"model.layers.{i}.out", module=f"model.layers.{i}", call=0, step=0, kind="composite")
            for i in range(num_pairs)]
    found = Report(rows, num_pairs, what="compare", tolerance="auto")
    text = found.to_text()
    seconds = time.perf_counter() - begin
    print(f"\nreport over {num_pairs} pairs of 1 MB (f32, all different): {seconds:.2f} s, {text.count(chr(10)) + 1} lines, passed: {found.passed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))), help="torch's; the comparison uses every processor")
    parser.add_argument("--pairs", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    print(f"torch {torch.__version__} with {torch.get_num_threads()} threads, numpy {np.__version__} with 1, "
          f"porting with up to {len(os.sched_getaffinity(0))} (from 2 MB of f32), OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}")
    for name, elems in SIZES.items():
        for equal in (False, True):
            show(f"f32, {name}, {'equal' if equal else 'unequal'}", race(pool(elems, np.dtype("f4"), equal, rng), contestants(np.dtype("f4")), args.rounds))
    for dtype in (np.dtype(ml_dtypes.bfloat16), np.dtype("f2"), np.dtype("f8")):
        show(f"{dtype.name}, 2^18 elements, unequal", race(pool(2**18, dtype, False, rng), contestants(dtype), args.rounds))
    report(args.pairs, rng)


if __name__ == "__main__":
    main()
