"""Products of F32 that own loops may make in the library's place (csrc/program/own_gemm.c): torch's bits before, while and after it is asked."""
import numpy as np
import pytest
import torch
from porting import _core, providers

CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
CALLS = 4  # it is asked at the third
SIZES = [(16, 32, 16), (17, 33, 191), (24, 33, 385), (35, 33, 600), (45, 33, 1000), (64, 300, 384), (85, 77, 193), (300, 65, 383), (64, 2048, 512)]


@pytest.fixture(autouse=True)
def need_library():
    assert providers.load_torch_provider(), "torch's library was not found in the process"


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def products(M, N, K, threads, bias=True, transposed=True, variant=None, calls=CALLS):
    """torch's product, and ours of as many calls, as bits; a NaN and infinities among the operands."""
    torch.manual_seed(M * N + K)
    x, w = torch.randn(M, K), torch.randn(N, K).t() if transposed else torch.randn(K, N)
    x[1, 2], x[3, K // 2], x[5, 7], x[5, K - 1] = float("nan"), -float("nan"), float("inf"), -float("inf")
    operands = [torch.randn(N), x, w] if bias else [x, w]
    expected = (torch.addmm if bias else torch.mm)(*operands)
    options = {"provider": "torch", "capability": CAPABILITY, "num_threads": threads} | ({"variant": variant} if variant else {})
    name = "aten.addmm.default" if bias else "aten.mm.default"
    made = [_core.call_op(name, [t.numpy() for t in operands], **options) for _ in range(calls)]
    return expected.numpy().view(np.int32), [np.asarray(m).view(np.int32) for m in made]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bias, transposed", [(True, True), (False, True), (True, False)])
def test_all_calls_have_the_bits_of_torch(threads, bias, transposed, set_threads):
    set_threads(threads)
    for sizes in SIZES:
        expected, made = products(*sizes, threads, bias, transposed)
        assert [int((m != expected).sum()) for m in made] == [0] * CALLS, (sizes, threads)


def test_own_loops_have_the_bits_of_the_library_in_one_thread(set_threads):
    set_threads(1)
    for sizes in SIZES:
        expected, (made,) = products(*sizes, 1, variant="chain", calls=1)
        assert (made == expected).all(), sizes


def test_own_loops_would_be_wrong_where_the_library_cuts_rows(set_threads):
    """What the second check above refuses: with three threads the library gives some rows of these to another path."""
    set_threads(3)
    differ = 0
    for sizes in SIZES:
        expected, (made,) = products(*sizes, 3, variant="chain", calls=1)
        differ += int((made != expected).sum())
    assert differ > 0


def test_operands_that_lie_elsewhere(set_threads):
    """Rows that are parts of longer ones, places off a line's start, and several threads of ours: the same bits."""
    set_threads(1)
    torch.manual_seed(0)
    memory = torch.randn(400 * 700)
    for offset, long in ((0, 320), (1, 300), (7, 333)):
        x, w, bias = memory[offset:].as_strided((70, 300), (long, 1)), memory[3:].as_strided((300, 100), (1, 311)), memory[offset : offset + 100]
        expected = torch.addmm(bias, x, w).numpy().view(np.int32)
        for threads in (1, 2, 3):
            made = _core.call_op("aten.addmm.default", [bias.numpy(), x.numpy(), w.numpy()], variant="chain", num_threads=threads)
            assert (np.asarray(made).view(np.int32) == expected).all(), (offset, threads)
