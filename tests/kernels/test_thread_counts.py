"""Results that depend on the number of threads, and some that do not: what torch gives with 1, 2 and 3, bit for bit."""
import pytest
import torch
from porting import _core, providers

CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
PROVIDER = "torch" if providers.load_torch_provider() else "auto"


def inputs():
    """(300, 701), so that each thread gets a part: around 0 and far from it, row-major, transposed and every second column."""
    torch.manual_seed(0)
    x = torch.randn(300, 701)
    return {"dense": x, "far": x * 0.01 + 1000, "transposed": torch.randn(701, 300).t(), "strided": torch.randn(300, 1402)[:, ::2]}


def cases():
    for dims in ([0, 1], [0], [1]):
        yield "sum.dim_IntList", [dims], {}
        yield "mean.dim", [dims], {}
        yield "amax.default", [dims], {}
        yield "var.correction", [dims], {"correction": 1}
        yield "std.correction", [dims], {"correction": 0}
        yield "var_mean.correction", [dims], {"correction": 1}
        for order in (1, 2, 3, float("-inf")):
            yield "linalg_vector_norm.default", [order, dims], {}
    for dim in (0, 1):
        yield "cumsum.default", [dim], {}
        yield "argmin.default", [dim], {}
        yield "sort.default", [dim], {}
        yield "topk.default", [5, dim], {}


def both(name, x, arguments, keywords, threads):
    """What torch gives, and what ours gives with so many threads, as lists of tensors."""
    packet, overload = name.split(".")
    expected = getattr(getattr(torch.ops.aten, packet), overload)(x, *arguments, **keywords)
    made = _core.call_op(f"aten.{name}", [x.numpy(), *arguments], keywords, provider=PROVIDER, capability=CAPABILITY, num_threads=threads)
    expected, made = ([v] if not isinstance(v, (tuple, list)) else list(v) for v in (expected, made))
    return expected, [torch.from_numpy(v.copy()) for v in made]


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_torch_with_so_many_threads(threads, set_threads):
    set_threads(threads)
    for layout, x in inputs().items():
        for name, arguments, keywords in cases():
            expected, made = both(name, x, arguments, keywords, threads)
            assert len(expected) == len(made)
            for one, other in zip(expected, made):
                assert torch.equal(one, other), (name, arguments, layout)


def test_another_number_is_seen(set_threads):
    set_threads(2)
    for name, arguments in (("sum.dim_IntList", [[0, 1]]), ("linalg_vector_norm.default", [3, [0, 1]])):
        (expected,), (made,) = both(name, inputs()["dense"], arguments, {}, 3)
        assert not torch.equal(expected, made)


@pytest.mark.parametrize("name", ["var.correction", "std.correction"])
def test_strict_variance_does_not_depend_on_the_batch(name):
    x = inputs()["far"]
    options = {"provider": "reference", "variant": "strict"}
    many = _core.call_op(f"aten.{name}", [x.numpy(), [1]], {}, **options)
    alone, as_captured = (_core.call_op(f"aten.{name}", [x[:1].numpy(), [1]], {}, **chosen) for chosen in (options, {"provider": "reference"}))
    assert alone[0] == many[0] and alone[0] != as_captured[0]
