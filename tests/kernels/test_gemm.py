"""aten.mm, addmm, bmm, baddbmm in C: the same bits as torch with torch's own BLAS, inside the rounding bound with any other."""
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from matmul_tools import CAPABILITY, VARIANTS, call, matrices, product_error, reference, same_bits, stacks
from porting import _core
from porting.environment import cpu

# A dot product of K terms in u * sum |a b|: 2.5 to 9.3 were measured for K from 64 to 4096 (docs/NUMERICS.md).
BOUND = 12
HAS_PAIRS = "avx512_bf16" in cpu()["flags"] and "amx_bf16" not in cpu()["flags"]
CAPABILITIES = ("default", "avx2", "avx512")[: _core.show_config()["cpu_level"] + 1]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_bits_are_torchs_under_every_capability(capability):
    env = dict(os.environ, ATEN_CPU_CAPABILITY=capability)
    script = os.path.join(os.path.dirname(__file__), "matmul_sweep.py")
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["capability"] == capability
    assert all(result["cases"][kind] >= n for kind, n in {"gemm": 1000, "bmm": 400, "attention": 300, "chain": 180, "half": 500, "half without oneDNN": 500}.items())
    assert result["different"] == []


def test_bits_tell_a_dropped_term_a_doubled_bias_and_a_zero_sign():
    x, w, bias = torch.randn(7, 65), torch.randn(33, 65), torch.randn(33)
    expected = reference("addmm", bias, x, w.t())
    assert same_bits(expected, call("addmm", bias, x, w.t()))
    assert not same_bits(expected, call("addmm", bias, x[:, :-1], w[:, :-1].t()))
    assert not same_bits(expected, call("addmm", 2 * bias, x, w.t()))
    assert not same_bits(torch.zeros(1), -torch.zeros(1))
    assert not same_bits(torch.tensor([1.0]), torch.tensor([torch.nan]))


@pytest.mark.parametrize("provider, variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_variant_stays_inside_the_rounding_bound(provider, variant, dtype):
    torch.manual_seed(0)
    sizes = [(0, 7, 8), (7, 0, 8), (7, 8, 0), (1, 1, 1), (1, 9, 513), (8, 1, 9), (9, 8, 7), (5, 513, 64), (33, 40, 513)]
    for m, n, k in sizes:
        for (_, a), (_, b) in itertools.product(matrices(m, k, dtype), matrices(k, n, dtype)):
            bias = torch.randn(n, dtype=torch.float64).to(dtype)
            options = {"provider": provider, "variant": variant}
            assert product_error(call("mm", a, b, **options), a, b) <= BOUND
            actual = call("addmm", bias, a, b, beta=1.5, alpha=0.5, **options)
            assert product_error(actual, a, b, bias, 0.5, 1.5) <= BOUND


@pytest.mark.parametrize("provider, variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stacks_stay_inside_the_rounding_bound(provider, variant, dtype):
    torch.manual_seed(1)
    for batch, m, n, k in [(0, 3, 3, 3), (2, 3, 4, 5), (3, 1, 9, 64), (2, 33, 17, 129)]:
        for (_, a), (_, b) in itertools.product(stacks(batch, m, k, dtype), stacks(batch, k, n, dtype)):
            options = {"provider": provider, "variant": variant}
            assert product_error(call("bmm", a, b, **options), a, b) <= BOUND
            c = torch.randn(batch, m, n, dtype=dtype)
            assert product_error(call("baddbmm", c, a, b, beta=2, alpha=0.5, **options), a, b, c, 0.5, 2.0) <= BOUND


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_bound_refuses_wrong_products(dtype):
    torch.manual_seed(2)
    a, b, bias = (torch.randn(*shape, dtype=torch.float64).to(dtype) for shape in ((12, 64), (64, 64), (64,)))
    right = call("addmm", bias, a, b, provider="reference")
    assert product_error(right, a, b, bias) <= BOUND
    wrong = {
        "a term dropped": call("addmm", bias, a[:, :-1], b[:-1], provider="reference"),
        "no bias": call("mm", a, b, provider="reference"),
        "bias twice": call("addmm", bias, a, b, beta=2, provider="reference"),
        "a square weight transposed": call("addmm", bias, a, b.t(), provider="reference"),
        "rows swapped": right[torch.arange(12) ^ 1],
    }
    passed = [name for name, result in wrong.items() if product_error(result, a, b, bias) <= BOUND]
    assert passed == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_once(dtype):
    """One step from torch in few places: a second rounding would move many."""
    torch.manual_seed(3)
    a, b = torch.randn(64, 576).to(dtype), torch.randn(576, 64).to(dtype)
    expected, actual = reference("mm", a, b), call("mm", a, b, provider="reference")
    assert (expected != actual).float().mean() < 0.01
    twice = sum(call("mm", a[:, k:k + 64], b[k:k + 64], provider="reference") for k in range(0, 576, 64))
    assert (expected != twice).float().mean() > 0.1


@pytest.mark.parametrize("mkldnn, others", [("avx512_bf16", ["avx512", False]), (False, ["avx512_bf16"])])
def test_orders_of_bfloat16_are_told_apart(mkldnn, others):
    """Terms of 2^60 and -2^60 swallow what was added between them, which is another term in each order."""
    a, b = torch.ones(8, 1040, dtype=torch.bfloat16), torch.zeros(1040, 64, dtype=torch.bfloat16)
    for j in range(64):
        b[16 * j, j], b[16 * j + 9, j], b[16 * j + 2 : 16 * j + 9, j] = 2.0**60, -(2.0**60), 1
    with torch.backends.mkldnn.flags(enabled=bool(mkldnn)):
        expected = reference("mm", a, b.t().contiguous().t())
    right, *wrong = (call("mm", a, b.t().contiguous().t(), mkldnn=way) for way in (mkldnn, *others))
    if not mkldnn or HAS_PAIRS:
        assert same_bits(expected, right)
    assert not any(same_bits(right, other) for other in wrong)


@pytest.mark.parametrize("variant", ["ref", "chain"])
def test_own_loops_pass_on_what_is_not_finite(variant):
    a, b = torch.ones(5, 70), torch.ones(70, 40)
    a[1, 2], a[3, 4], b[6, 7] = torch.nan, torch.inf, -torch.inf
    actual = call("mm", a, b, provider="reference", variant=variant)
    assert same_bits(reference("mm", a, b), actual)
    assert not same_bits(reference("mm", a, b), actual.nan_to_num(0))


@pytest.mark.parametrize("variant", [None, "ref", "chain"])
def test_beta_zero_ignores_the_addend_and_no_terms_give_it(variant):
    a, b, nothing = torch.randn(4, 8), torch.randn(8, 16), torch.full((16,), torch.nan)
    actual = call("addmm", nothing, a, b, beta=0, provider="reference", variant=variant)
    assert product_error(actual, a, b) <= BOUND
    bias = torch.randn(16)
    empty = call("addmm", bias, a[:, :0], b[:0], beta=3, provider="reference", variant=variant)
    assert same_bits(reference("addmm", bias, a[:, :0], b[:0], beta=3), empty)


def test_own_orders_do_not_depend_on_the_cpu():
    """The reference and chain variants give the same bits with AVX-512, with AVX2 and with neither."""
    script = (
        "import hashlib, torch\n"
        "from matmul_tools import call\n"
        "torch.manual_seed(0)\n"
        "a, b = torch.randn(9, 400), torch.randn(400, 75)\n"
        "q = torch.randn(1, 2, 9, 32)\n"
        "for variant in ('ref', 'chain'):\n"
        "    y = call('mm', a, b, provider='reference', variant=variant)\n"
        "    z = call('_scaled_dot_product_flash_attention_for_cpu', q, q, q, provider='reference', variant=variant)[0]\n"
        "    print(hashlib.sha256(y.numpy().tobytes() + z.numpy().tobytes()).hexdigest())\n"
    )
    printed = set()
    for disabled in ("", "avx512", "avx2"):  # three processes
        env = dict(os.environ, PORTING_DISABLE_CPU=disabled, PYTHONPATH=os.pathsep.join(sys.path), ATEN_CPU_CAPABILITY="avx2")
        printed.add(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1
    ref, chain = printed.pop().split()
    assert ref != chain


def test_what_does_not_fit_is_refused_in_one_sentence():
    a = torch.randn(3, 4)
    with pytest.raises(_core.ShapeError, match="3, 4"):
        call("mm", a, a)
    with pytest.raises(_core.DtypeError):
        call("mm", a, a.t().double())
    with pytest.raises(_core.UnsupportedError):
        call("mm", a.bool(), a.t().bool())


def test_this_process_runs_under_a_known_capability():
    assert CAPABILITY in ("default", "avx2", "avx512")
