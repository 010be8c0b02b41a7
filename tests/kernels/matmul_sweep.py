"""Compares products and attention in C with torch, bit for bit, in a process of its own: torch reads
ATEN_CPU_CAPABILITY once, when it starts. Prints one JSON object: what was compared and what differed.

python matmul_sweep.py
"""
import itertools
import json
import random

import torch
from matmul_tools import CAPABILITY, call, matrices, reference, same_bits, stacks

SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 33, 513)
FLASH = "_scaled_dot_product_flash_attention_for_cpu"


def gemm_cases(rng):
    """(name, op, args, kwargs) over sizes, layouts, addends and scalars."""
    for dtype, _ in itertools.product((torch.float32, torch.float64), range(12)):
        m, n, k = (rng.choice(SIZES) for _ in range(3))
        pairs = list(itertools.product(matrices(m, k, dtype), matrices(k, n, dtype)))
        for (a_layout, a), (b_layout, b) in rng.sample(pairs, 5):
            name = f"{dtype} {m}x{k} {a_layout} @ {k}x{n} {b_layout}"
            yield name, "mm", (a, b), {}
            yield name + " + bias", "addmm", (torch.randn(n, dtype=dtype), a, b), {}
            yield name + " scaled", "addmm", (torch.randn(m, n, dtype=dtype), a, b), {"beta": 1.7, "alpha": 0.3}
            yield name + " beta 0", "addmm", (torch.full((n,), torch.nan, dtype=dtype), a, b), {"beta": 0, "alpha": 2}
    for m, k in ((1, 1), (5, 1), (1, 2)):
        for (a_layout, a), (b_layout, b) in itertools.product(matrices(m, k, torch.float32), matrices(k, 1, torch.float32)):
            for _ in range(4):  # a column: the layout of a copy shows in few results only
                yield f"{m}x{k} {a_layout} @ {k}x1 {b_layout} scaled", "addmm", (torch.randn(m, 1), a, b), {"beta": 1.7, "alpha": 0.3}
    for special in (torch.nan, torch.inf, -torch.inf):
        a, b = torch.randn(7, 65), torch.randn(65, 33)
        a[2, 3], b[5, 6] = special, special
        yield f"with {special}", "mm", (a, b), {}
    for k, n in ((384, 384), (384, 1536), (1536, 384), (576, 576), (576, 192), (576, 1536), (1536, 576)):
        for m in (1, 2, 3, 4, 12):
            x, w = torch.randn(m, k), torch.randn(n, k)
            yield f"linear {m} {k} {n}", "mm", (x, w.t()), {}
            yield f"linear {m} {k} {n} + bias", "addmm", (torch.randn(n), x, w.t()), {}


def bmm_cases(rng):
    for dtype, _ in itertools.product((torch.float32, torch.float64), range(12)):
        batch = rng.choice((0, 1, 2, 5))
        m, n, k = (rng.choice((0, 1, 2, 5, 8, 13, 64, 129)) for _ in range(3))
        pairs = list(itertools.product(stacks(batch, m, k, dtype), stacks(batch, k, n, dtype)))
        for (a_layout, a), (b_layout, b) in rng.sample(pairs, 4):
            name = f"{dtype} {batch}x({m}x{k} {a_layout} @ {k}x{n} {b_layout})"
            yield name, "bmm", (a, b), {}
            yield name + " scaled", "baddbmm", (torch.randn(batch, m, n, dtype=dtype), a, b), {"beta": 1.7, "alpha": 0.3}
            yield name + " beta 0", "baddbmm", (torch.full((batch, m, n), torch.nan, dtype=dtype), a, b), {"beta": 0}


def heads(batch, num_heads, length, size, as_model):
    """(B, H, T, D), as Hugging Face models pass it (a transposed view) or dense."""
    if as_model:
        return torch.randn(batch, length, num_heads, size).transpose(1, 2)
    return torch.randn(batch, num_heads, length, size)


def attention_cases(_):
    shapes = [(2, 3, 7, 7, 16), (1, 9, 1, 12, 64), (1, 9, 11, 11, 64), (2, 12, 9, 9, 32), (1, 2, 33, 40, 64), (1, 2, 40, 33, 64),
              (1, 2, 200, 200, 32), (1, 1, 770, 520, 8), (1, 2, 1, 513, 64), (1, 2, 5, 1030, 64), (2, 2, 2, 1, 8),
              (1, 1, 13, 29, 5), (1, 1, 1, 1, 1)]
    for shape, as_model in itertools.product(shapes, (False, True)):
        batch, num_heads, queries, keys, size = shape
        q = 3 * heads(batch, num_heads, queries, size, as_model)
        k, v = (heads(batch, num_heads, keys, size, as_model) for _ in "kv")
        name = f"{shape}{' transposed' if as_model else ''}"
        yield name, FLASH, (q, k, v), {}
        yield name + " scaled", FLASH, (q, k, v), {"scale": 0.3}
        yield name + " causal", FLASH, (q, k, v, 0.0, True), {}
        hidden = torch.rand(1, 1, queries, keys) < 0.3
        yield name + " -inf", FLASH, (q, k, v), {"attn_mask": torch.zeros(1, 1, queries, keys).masked_fill(hidden, -torch.inf)}
        full = torch.randn(batch, num_heads, queries, keys)
        full[:, :, queries // 2] = -torch.inf  # a query that sees nothing
        yield name + " full", FLASH, (q, k, v), {"attn_mask": full}
        lowest = torch.full((batch, 1, queries, keys), torch.finfo(torch.float32).min).triu(1)
        yield name + " lowest", FLASH, (q, k, v), {"attn_mask": lowest}
    q, k, v = (torch.randn(1, 2, 5, 24) for _ in "qkv")
    for at, special in itertools.product(((0, 1, 2, 3), (0, 1, 4, 0)), (torch.nan, torch.inf)):
        broken = k.clone()
        broken[at] = special
        yield f"key with {special}", FLASH, (q, broken, v), {}
        yield f"masked key with {special}", FLASH, (q, broken, v), {"attn_mask": torch.zeros(5, 5)}


def chain_cases(rng):
    """Own loops in the order of the library: from 4 rows and 12 columns on, and linear layers on fewer rows (decoding)."""
    for m, n, k in itertools.product((1, 2, 3), (12, 64, 576), (4, 64, 100, 576, 1536)):
        x, w = torch.randn(m, k), torch.randn(n, k)
        yield f"{m} {k} {n}", "mm", (x, w.t()), {}
        yield f"{m} {k} {n} + bias", "addmm", (torch.randn(n), x, w.t()), {}
    for m, n in ((4, 12), (5, 13), (7, 49), (12, 192), (64, 100), (11, 576)):
        for k in (1, 5, 64, 192, 193, 383, 384, 400, 576, 1536):
            x, w = torch.randn(m, k), torch.randn(n, k)
            yield f"{m} {k} {n}", "mm", (x, w.t()), {}
            yield f"{m} {k} {n} row-major", "mm", (x, w.t().contiguous()), {}
            yield f"{m} {k} {n} + bias", "addmm", (torch.randn(n), x, w.t()), {}


def half_cases(rng):
    """Halves in their four orders: layouts choose three, oneDNN (bfloat16, more than 4,096 multiplications) the fourth, in blocks of two lengths."""
    sizes = [tuple(rng.choice((1, 2, 3, 8, 9, 17, 33, 100)) for _ in "mn") + (rng.choice((1, 2, 3, 7, 16, 65, 130, 577)),) for _ in range(20)]
    sizes += [(m, 12, 1201) for m in (1, 2, 16)] + [(60, 30, 1024), (30, 60, 2049), (100, 1, 1100), (1, 60, 1100)]
    for (m, n, k), dtype in itertools.product(sizes, (torch.float16, torch.bfloat16)):
        pairs = list(itertools.product(matrices(m, k, dtype), matrices(k, n, dtype)))
        for (a_layout, a), (b_layout, b) in rng.sample(pairs, 3):
            name = f"{dtype} {m}x{k} {a_layout} @ {k}x{n} {b_layout}"
            yield name, "mm", (a, b), {}
            yield name + " + bias", "addmm", (torch.randn(n).to(dtype), a, b), {}
            if n > 1 or a.stride(0) != 1:  # else the reference multiplies another operand by alpha first
                yield name + " scaled", "addmm", (torch.randn(m, n).to(dtype), a, b), {"beta": 1.7, "alpha": 0.3}
    for _, dtype in itertools.product(range(12), (torch.float16, torch.bfloat16)):
        batch, m, n, k = rng.choice((1, 2, 5)), *(rng.choice((1, 2, 5, 8, 13, 64)) for _ in range(3))
        pairs = list(itertools.product(stacks(batch, m, k, dtype), stacks(batch, k, n, dtype)))
        for (a_layout, a), (b_layout, b) in rng.sample(pairs, 3):
            name = f"{dtype} {batch}x({m}x{k} {a_layout} @ {k}x{n} {b_layout})"
            yield name, "bmm", (a, b), {}
            yield name + " + c", "baddbmm", (torch.randn(batch, m, n).to(dtype), a, b), {"alpha": 0.3}
    shapes = ((1, 2, 1, 13, 16), (2, 3, 17, 17, 64), (1, 2, 40, 33, 8), (1, 2, 200, 528, 32))  # blocks of fewer rows (but one) or keys go another way in the library
    for shape, dtype, as_model in itertools.product(shapes, (torch.float16, torch.bfloat16), (False, True)):
        batch, num_heads, queries, keys, size = shape
        q, k, v = (heads(batch, num_heads, length, size, as_model).to(dtype) * 2 for length in (queries, keys, keys))
        mask = torch.randn(batch, 1, queries, keys).to(dtype)
        mask[:, :, queries // 2] = -torch.inf
        for arguments, options in (((), {}), ((0.0, True), {}), ((), {"attn_mask": mask}), ((), {"attn_mask": mask.float(), "scale": 0.3})):
            yield f"{dtype} {shape}{' transposed' if as_model else ''} {list(options)}", FLASH, (q, k, v, *arguments), options


CASES = {"gemm": gemm_cases, "bmm": bmm_cases, "attention": attention_cases, "chain": chain_cases, "half": half_cases, "half without oneDNN": half_cases}


def compare(kind, threads):
    """Number of cases, and the names of those that differ."""
    options = {"provider": "reference", "variant": "chain"} if kind == "chain" else {"provider": "torch"}
    torch.set_num_threads(threads)
    torch.manual_seed(threads)
    num_cases, different = 0, []
    for name, op, args, kwargs in CASES[kind](random.Random(threads)):
        with torch.backends.mkldnn.flags(enabled="without oneDNN" not in kind):
            expected, actual = reference(op, *args, **kwargs), call(op, *args, **options, **kwargs)
        pairs = [(expected, actual)] if isinstance(expected, torch.Tensor) else list(zip(expected, actual))
        num_cases += 1
        if not all(same_bits(e, a) for e, a in pairs):
            different.append(f"{kind}, {threads} threads: {op} {name}")
    return num_cases, different


def main():
    cases, different = {}, []
    for kind, threads in itertools.product(CASES, (1, 2)):
        if (kind, threads) != ("chain", 2):  # with two threads the library cuts rows into another order
            num_cases, names = compare(kind, threads)
            cases[kind] = cases.get(kind, 0) + num_cases
            different += names
    print(json.dumps({"capability": CAPABILITY, "cases": cases, "different": different}))


if __name__ == "__main__":
    main()
