"""Good calls of every op with one thing in them changed: each ends in arrays or in one sentence. Unlike the calls of fuzz_ops.py these are
right but for that one thing, so they get past all checks before it. Run as a process of its own by test_fuzz_ops.py:

    python tests/fuzz/fuzz_cases.py SECONDS SEED TRACE [OP]
    python tests/fuzz/fuzz_cases.py SECONDS SEED TRACE OP ROUND  # one call again, with its arguments
"""
import sys
from pathlib import Path

import fuzz_ops
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "program"))
from op_cases_more import CASES  # noqa: E402
from test_ops import for_call_op  # noqa: E402

NUMBERS = [*fuzz_ops.INTS, 0, 1, 2, 3, 7, 64, 2**24, 2**30, 2**33, 2**39, 2**59]
SIZES = [0, 1, 2, 3, 65, 2**20, 2**28, 2**31, 2**39, 2**40, 2**60]


def changed_array(rng, x):
    """The same array with another shape, other strides, another dtype, or one other element."""
    if x.size > 40_000:  # it was changed before
        return x
    turn = rng.random()
    if turn < 0.35 and x.ndim:  # another size; what does not fit into memory is nothing in another dimension, or repeats itself
        shape, d = list(x.shape), rng.randrange(x.ndim)
        shape[d] = rng.choice(SIZES)
        if np.prod(shape, dtype=float) <= 40_000:
            return np.resize(x, shape) if x.size else huge(lambda: np.zeros(shape, x.dtype), x)
        if x.ndim > 1 and rng.random() < 0.6:
            shape[rng.choice([k for k in range(x.ndim) if k != d])] = 0
            return huge(lambda: np.zeros(shape, x.dtype), x)
        shape[d] = rng.choice([2**12, 2**58]) if x.size < 2**8 else 1  # what is looked at again and again takes its time
        return huge(lambda: np.broadcast_to(x[:1] if d == 0 else np.take(x, [0], d), shape), x) if x.size else x
    if turn < 0.45:
        return x[None] if rng.random() < 0.5 or not x.ndim else x[0] if len(x) else x
    if turn < 0.6 and x.ndim:
        return np.flip(x, rng.randrange(x.ndim)) if rng.random() < 0.5 else x.transpose(rng.sample(range(x.ndim), x.ndim))
    if turn < 0.75:
        with np.errstate(all="ignore"):
            dtype = np.dtype(rng.choice(fuzz_ops.DTYPES))
            return huge(lambda: x.astype(dtype), x)
    x = x.copy()
    if x.size and x.dtype.kind in "iu":
        x.flat[rng.randrange(x.size)] = rng.choice([n for n in NUMBERS if np.iinfo(x.dtype).min <= n <= np.iinfo(x.dtype).max])
    elif x.size and x.dtype.kind == "f":
        with np.errstate(all="ignore"):
            x.flat[rng.randrange(x.size)] = rng.choice(fuzz_ops.FLOATS)
    return x


def huge(make, instead):
    """NumPy has limits of its own."""
    try:
        return make()
    except (ValueError, MemoryError):
        return instead


def changed(rng, a):
    if isinstance(a, np.ndarray):
        return changed_array(rng, a)
    if isinstance(a, list) and a and rng.random() < 0.8:
        k = rng.randrange(len(a))
        return [*a[:k], changed(rng, a[k]), *a[k + 1:]]
    if isinstance(a, list):
        return rng.choice([[], a * 2, [*a, 1], a[:-1]])
    if isinstance(a, (bool, dict, str)):
        return rng.choice([not a if isinstance(a, bool) else a, None, 1, "none"])
    if isinstance(a, int):
        return rng.choice(NUMBERS)
    if isinstance(a, float):
        return rng.choice(fuzz_ops.FLOATS)
    return rng.choice([*NUMBERS, *fuzz_ops.FLOATS, True, []])


class Caller(fuzz_ops.Caller):
    def arguments(self, op):
        rng = self.rng
        args, kwargs = rng.choice(CASES[op])
        args, kwargs = [for_call_op(a) for a in args], {k: for_call_op(a) for k, a in kwargs.items()}
        given = [n for n, *_ in (p[1:] for p in fuzz_ops.parts_of(op))][len(args):]
        for _ in range(rng.choice([1, 1, 1, 2])):
            turn = rng.random()
            if given and turn < 0.3:  # an argument that has a default
                name = rng.choice(given)
                kind = next(p[0] for p in fuzz_ops.parts_of(op) if p[1] == name)
                kwargs[name] = changed(rng, kwargs[name]) if name in kwargs else self.value(kind)
            elif args:
                k = rng.randrange(len(args))
                args[k] = changed(rng, args[k])
        return args, kwargs


if __name__ == "__main__":
    fuzz_ops.main(Caller)
