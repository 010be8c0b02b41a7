"""Every op with a handler, and whole programs, called with what no model would give them: an answer or a sentence, never a crash.

The fuzzers run as processes of their own, so that a crash is a failure with the seed that led to it. PORTING_FUZZ_SECONDS (default 6)
bounds the time of each, PORTING_FUZZ_SEED (default 0) chooses what is tried.
"""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from porting import _core

HERE = Path(__file__).resolve().parent
SECONDS, SEED = os.environ.get("PORTING_FUZZ_SECONDS", "6"), os.environ.get("PORTING_FUZZ_SEED", "0")
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


@pytest.mark.parametrize("fuzzer", ["fuzz_ops.py", "fuzz_cases.py", "fuzz_programs.py"])
def test_no_call_crashes(fuzzer, tmp_path):
    trace = tmp_path / "trace"
    run = subprocess.run([sys.executable, HERE / fuzzer, SECONDS, SEED, trace], check=False, capture_output=True, text=True, timeout=120 + 3 * float(SECONDS))
    at = trace.read_text(encoding="utf-8").strip() if trace.exists() else "nothing was tried"
    assert run.returncode == 0, f"{at}\n{run.stderr[-3000:]}"
    print(run.stdout)


def test_a_crash_is_told_with_its_place(tmp_path):
    """A process that dies as a crash would is a failure, and the trace says where it was."""
    script = tmp_path / "crash.py"
    script.write_text("import os, sys\nopen(sys.argv[1], 'w').write('seed 0, op, round 7')\nos.abort()\n", encoding="utf-8")
    run = subprocess.run([sys.executable, script, tmp_path / "trace"], check=False, capture_output=True, timeout=60)
    assert run.returncode != 0 and (tmp_path / "trace").read_text(encoding="utf-8").endswith("round 7")


def test_calls_reach_the_kernels():
    """Fuzzing that is refused at the door finds nothing: of 600 calls of common ops more than 100 give arrays, and some are refused."""
    import fuzz_ops

    ops = ["add.Tensor", "sum.dim_IntList", "_softmax.default", "cat.default", "clone.default", "sort.default"]
    good = sum(fuzz_ops.call(SEED, f"aten.{op}", k) for op in ops for k in range(100))
    assert 100 < good < 600


def test_signatures_fit_what_binds_them():
    """csrc/program/args.c cuts longer names, and knows no more than 20 arguments."""
    import fuzz_ops

    for op in _core.known_ops():
        parts = fuzz_ops.parts_of(op)
        assert len(parts) <= 20 and all(len(name) < 32 for _, name, _, _ in parts), op
        assert len({name for _, name, _, _ in parts}) == len(parts), op


def test_every_kernel_can_be_found():
    """The table of kernels holds all rows: one that it had no room for could not be run."""
    rows = {(op, dtype) for op, dtype, variant, _ in _core.kernel_rows() if variant == "ref"}
    assert len(rows) > 500 and len(_core.kernel_rows()) < 4096
    x = np.ones(3, np.float32)
    for op in ("exp", "neg", "relu"):
        assert (op, "F32") in rows and _core.call_op(f"aten.{op}.default", [x], variant="ref").shape == (3,)


def test_threads_that_no_machine_has():
    x = np.ones(40000, np.float32)
    for threads in (0, -1, 4097, 2**31 - 1):
        with pytest.raises(ValueError, match="expected at least 1 and at most 4096"):
            _core.call_op("aten.gelu.default", [x], num_threads=threads)
    one, many = (_core.call_op("aten.gelu.default", [x], num_threads=threads) for threads in (1, 4096))
    np.testing.assert_allclose(one, many, rtol=1e-6)
