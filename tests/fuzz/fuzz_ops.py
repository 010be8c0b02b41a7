"""Random calls of every op with a handler: each ends in arrays or in one sentence. Run as a process of its own by test_fuzz_ops.py:

    python tests/fuzz/fuzz_ops.py SECONDS SEED TRACE [OP]
    python tests/fuzz/fuzz_ops.py SECONDS SEED TRACE OP ROUND  # one call again, with its arguments

Each call follows from its seed, op and round, which are written to the file TRACE before it: a crash can be run again. Most
arguments are of the kind that the signature wants, so that calls reach the handlers' own checks, and kernels.
"""
import faulthandler
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
from porting import _core

DTYPES = ["f4", "f4", "f4", "f4", "f8", "f2", "i8", "i8", "i4", "i2", "i1", "u1", "?", "c8", "u2"]
SIZES = [0, 1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 16, 17, 33]
INTS = [-(2**63), -(2**62), -(2**31), -2, -1, 2**31 - 1, 2**31, 2**32 + 1, 2**40, 2**61, 2**62, 2**63 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-5, 3e38, 1e300, -1e300, float("inf"), float("-inf"), float("nan")]
DTYPE_NAMES = ["F32", "F32", "F64", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "C64"]
WORDS = ["", "none", "floor", "trunc", "tanh", "mean", "sum", "linear", "ij", "xy", "reflect", "constant", "strange"]
EXPECTED = (_core.PortingError, ValueError, TypeError, MemoryError, OverflowError)
MEMORY_BYTES = 1 << 30  # what a call may ask for beyond what the process has


def parts_of(op):
    signature, _ = _core.op_signature(op)
    named, parts = False, []
    for part in signature.split(","):
        part = part.strip()
        if part == "*":
            named = True
        elif part:
            kind, name = part.split()
            name, _, default = name.partition("=")
            parts.append((kind, name, default != "" or "=" in part, named))
    return parts


class Caller:
    """The arguments of one call: tensors of it share shapes, so that many calls fit together."""

    def __init__(self, rng):
        self.rng = rng
        self.shape = [rng.choice(SIZES[1:]) for _ in range(rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6]))]
        self.dtype = rng.choice(DTYPES)
        self.wild = rng.random() < 0.3  # otherwise nothing is huge, and shapes go together more often

    def size(self):
        return self.rng.choice(self.shape) if self.shape and self.rng.random() < 0.7 else self.rng.choice(SIZES)

    def number(self):
        rng = self.rng
        if self.wild and rng.random() < 0.2:
            return rng.choice(INTS)
        return self.size() if rng.random() < 0.3 else rng.randint(-2, 4)

    def shape_near(self):
        rng, shape = self.rng, list(self.shape)
        turn = rng.random()
        if turn < 0.45:
            return shape
        if turn < 0.6:
            return [self.size()]
        if turn < 0.7 and shape:
            shape[rng.randrange(len(shape))] = self.size()
            return shape
        if turn < 0.8:
            return shape[rng.randint(0, len(shape)):]
        if turn < 0.85:
            return [1 if rng.random() < 0.4 else n for n in shape]
        if turn < 0.9:
            return shape[::-1]
        return [self.size() for _ in range(rng.randint(0, 4))]

    def array(self):
        rng = self.rng
        shape = self.shape_near()
        while np.prod(shape, dtype=float) > 40_000:
            shape.pop()
        dtype = np.dtype(self.dtype if rng.random() < 0.7 else rng.choice(DTYPES))
        steps = [rng.choice([1, 1, 1, 1, -1, 2, -3]) if rng.random() < 0.4 else 1 for _ in shape]
        whole = [n * abs(s) for n, s in zip(shape, steps)]
        low, high = rng.choice([(0, 3), (-3, 4), (0, 200)])
        draw = np.random.default_rng(rng.getrandbits(32))
        x = draw.integers(low, high, whole) if dtype.kind in "iu?" else draw.standard_normal(whole) * rng.choice([1, 100])
        x = x.astype(dtype)
        if x.size and rng.random() < 0.1 and dtype.kind in "fi":
            special = FLOATS
            if dtype.kind == "i":
                least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
                special = [n for n in (-(2**63), 2**63 - 1, 2**31, -100, 127) if least <= n <= most]
            with np.errstate(all="ignore"):
                x.flat[rng.randrange(x.size)] = rng.choice(special)
        x = x[tuple(slice(None, None, s) for s in steps)]
        turn = rng.random()
        if turn < 0.1 and x.ndim > 1:
            order = list(range(x.ndim))
            rng.shuffle(order)
            x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        elif turn < 0.17 and x.ndim:
            d = rng.randrange(x.ndim)
            x = np.broadcast_to(x[tuple(slice(0, 1) if k == d else slice(None) for k in range(x.ndim))], x.shape) if x.shape[d] else x
        return x

    def value(self, kind):
        rng = self.rng
        if kind.endswith("?") and rng.random() < 0.4:
            return None
        kind = kind[0]
        if kind == "T" or (kind == "N" and rng.random() < 0.6):
            return self.array()
        if kind in "NC" and rng.random() < 0.2:
            return complex(rng.choice(FLOATS), rng.choice(FLOATS))
        if kind in "NSC":
            return rng.choice([self.number(), rng.choice(FLOATS), rng.random() < 0.5])
        if kind in "LO":
            return [None if kind == "O" and rng.random() < 0.3 else self.array() for _ in range(rng.choice([0, 1, 2, 2, 3, 4, 9]))]
        if kind == "I":
            return self.number()
        if kind == "A":
            if rng.random() < 0.1:
                return self.number()
            return [self.number() for _ in range(rng.choice([0, 1, 1, 2, 2, 2, 3, 4, len(self.shape), 10]))]
        if kind == "F":
            return rng.choice(FLOATS) if rng.random() < 0.5 else rng.random()
        if kind == "B":
            return rng.random() < 0.5
        if kind == "D":
            return {"dtype": rng.choice(DTYPE_NAMES)}
        if kind == "s":
            return rng.choice(WORDS)
        if kind == "m":
            return {"memory_format": rng.choice(["contiguous_format", "preserve_format", "channels_last", "channels_last_3d"])}
        return None

    def arguments(self, op):
        rng = self.rng
        args, kwargs = [], {}
        for kind, name, has_default, named in parts_of(op):
            if has_default and rng.random() < 0.4:
                named = True
                if rng.random() < 0.6:
                    continue
            value = self.value(kind if rng.random() > 0.01 else rng.choice(["T", "N", "L", "I", "A", "S", "F", "B", "D", "s", "T?"]))
            if named or kwargs:
                kwargs[name] = value
            else:
                args.append(value)
        if rng.random() < 0.02:
            args = args[: rng.randint(0, len(args))] + [self.number()] * rng.randint(0, 2)
        return args, kwargs

    def options(self):
        rng = self.rng
        return {"num_threads": rng.choice([1, 1, 2, 7]), "capability": rng.choice(["default", "avx2", "avx512"]),
                "mkldnn": rng.choice([True, False, "avx2", "avx512", "avx512_bf16"]), "provider": rng.choice(["auto", "reference"]),
                "operands": rng.choice([None] * 9 + ["tf32", "bf16", "f16", "q8_0"]),
                "variant": rng.choice([None] * 4 + ["ref"])}


def call(seed, op, k, make=Caller):
    """True if the call gave arrays, False if it was refused."""
    caller = make(random.Random(f"{seed}/{op}/{k}"))
    args, kwargs = caller.arguments(op)
    try:
        made = _core.call_op(op, args, kwargs, **caller.options())
    except EXPECTED as error:
        if not str(error) and not isinstance(error, MemoryError):
            raise AssertionError(f"{op}: refused without a word") from error
        return False
    for array in made if isinstance(made, (tuple, list)) else [made]:
        try:
            np.asarray(array).tobytes()  # every byte can be read
        except MemoryError:  # a second one does not fit into what this process may take
            np.count_nonzero(array)
    return True


def fuzz(make, seconds, seed, trace, only=None):
    ops = [only] if only else sorted(_core.known_ops())
    random.Random(seed).shuffle(ops)
    sanitized = "libasan" in os.environ.get("LD_PRELOAD", "")
    if not sanitized:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    faulthandler.enable()
    signal.alarm(0)
    end, file = time.monotonic() + seconds, os.open(trace, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    counts = {True: 0, False: 0}
    answered, slowest, k = set(), (0.0, ""), 0
    while k == 0 or time.monotonic() < end:
        for op in ops:
            os.pwrite(file, f"seed {seed}, {op}, round {k}".ljust(120).encode(), 0)
            began = time.monotonic()
            signal.alarm(300 if sanitized else 30)
            good = call(seed, op, k, make)
            signal.alarm(0)
            slowest = max(slowest, (time.monotonic() - began, f"{op} in round {k}"))
            counts[good] += 1
            if good:
                answered.add(op)
            if k and time.monotonic() > end:
                break
        k += 1
    print(f"{k} rounds of {len(ops)} ops: {counts[True]} answers by {len(answered)} ops, {counts[False]} refusals; "
          f"slowest {slowest[0]:.2f} s ({slowest[1]})")
    if seconds > 100:
        print("never answered:", sorted(set(ops) - answered))


def main(make):
    seconds, seed, trace, *rest = sys.argv[1:]
    if len(rest) < 2:
        fuzz(make, float(seconds), seed, trace, *rest)
        return
    op, k = rest  # one call again, with its arguments
    caller = make(random.Random(f"{seed}/{op}/{k}"))
    args, kwargs = caller.arguments(op)
    show = lambda v: [show(x) for x in v] if isinstance(v, list) else f"{v.dtype}{v.shape}/{v.strides}" if isinstance(v, np.ndarray) else repr(v)
    print(op, [show(a) for a in args], {n: show(v) for n, v in kwargs.items()}, caller.options(), flush=True)
    print(call(seed, op, k, make))


if __name__ == "__main__":
    main(Caller)
