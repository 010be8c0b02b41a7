"""Reductions, scans and scatters of rows and columns as wide as whole vectors and blocks, against torch: all bits, in every dtype and layout."""
import ml_dtypes
import numpy as np
import pytest
import torch
from porting import _core, providers

PROVIDER = "torch" if providers.load_torch_provider() else "auto"
CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WHOLES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
SIZES = ((7, 5), (33, 130), (90, 1100), (2, 33000), (5, 6, 70))


def array(value):
    if isinstance(value, list):
        return [array(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()


def elements(shape: tuple[int, ...], dtype: torch.dtype, special: bool) -> torch.Tensor:
    """Floats around 1, so that long products stay finite; with `special` around 0, with zeros of both signs, infinities and NaN."""
    if dtype == torch.bool:
        return torch.rand(shape) < (0.5 if special else 0.999)
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        return torch.randint(limits.min // 2, limits.max // 2, shape).to(dtype)
    x = torch.randn(shape) if special else 1 + 0.05 * torch.randn(shape)
    for share, value in ((0.05, 0.0), (0.05, -0.0), (0.001, float("inf")), (0.001, float("nan"))) if special else ():
        x[torch.rand(shape) < share] = value
    return x.to(dtype)


def layouts(x: torch.Tensor):
    yield x
    yield x.transpose(0, -1).contiguous().transpose(0, -1)
    yield torch.stack([x, x], -1)[..., 0]


def tensors(dtype: torch.dtype):
    for shape in SIZES:
        for special in (False, True):
            yield from layouts(elements(shape, dtype, special))


def unequal(expected: torch.Tensor, actual: np.ndarray) -> int:
    """Elements that differ in a bit; every NaN is the same."""
    actual = torch.from_numpy(np.array(actual).view(np.int16)).view(torch.bfloat16) if expected.dtype == torch.bfloat16 else torch.from_numpy(np.array(actual))
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    if not expected.dtype.is_floating_point:
        return int((expected != actual).sum())
    same = (expected == actual) & (torch.signbit(expected) == torch.signbit(actual)) | expected.isnan() & actual.isnan()
    return int((~same).sum())


def check(aten: str, arguments: list, keywords: dict | None = None) -> None:
    name, overload = aten.split(".")
    expected = getattr(getattr(torch.ops.aten, name), overload)(*arguments, **keywords or {})
    actual = _core.call_op(f"aten.{aten}", [array(a) for a in arguments], keywords or {}, provider=PROVIDER, capability=CAPABILITY,
                           num_threads=torch.get_num_threads())  # fmt: skip
    expected, actual = ([v] if not isinstance(v, (tuple, list)) else list(v) for v in (expected, actual))
    assert len(expected) == len(actual)
    for one, other in zip(expected, actual):
        assert unequal(one, other) == 0, (aten, [(a.dtype, a.shape, a.stride()) if isinstance(a, torch.Tensor) else a for a in arguments])


def test_one_changed_bit_is_seen():
    x = torch.randn(5, 7)
    assert unequal(x, x.numpy()) == 0
    changed = x.numpy().copy()
    changed.view(np.int32)[3, 2] ^= 1
    assert unequal(x, changed) == 1
    assert unequal(torch.tensor([0.0]), np.array([-0.0], np.float32)) == 1


@pytest.mark.parametrize("aten", ["prod.dim_int", "cumprod.default", "cummax.default", "cummin.default", "any.dim", "all.dim"])
@pytest.mark.parametrize("dtype", FLOATS + WHOLES)
def test_along_each_dimension(aten, dtype):
    torch.manual_seed(0)
    for x in tensors(dtype):
        for dim in range(x.dim()):
            check(aten, [x, dim])


@pytest.mark.parametrize("dtype", WHOLES)
def test_sums_of_integers(dtype):
    torch.manual_seed(0)
    for x in tensors(dtype):
        for dims in ([0], [x.dim() - 1], [0, x.dim() - 1]):
            check("sum.dim_IntList", [x, dims])
            check("amax.default", [x, dims])
            check("amin.default", [x, dims])


@pytest.mark.parametrize("aten", ["amax.default", "amin.default"])
def test_extremes_of_doubles(aten):
    torch.manual_seed(0)
    for x in (laid for shape in ((7, 5), (33, 130), (9, 1100)) for special in (False, True) for laid in layouts(elements(shape, torch.float64, special))):
        for numbers in (x, x.nan_to_num(), x.abs().mul(-1.0 if aten == "amax.default" else 1.0)):
            for dims in ([0], [1], []):
                check(aten, [numbers, dims])


@pytest.mark.parametrize("dtype", FLOATS[:2])
def test_norms(dtype):
    torch.manual_seed(0)
    for x in tensors(dtype):
        for dims in ([0], [x.dim() - 1], None):
            check("linalg_vector_norm.default", [x, 2, dims])


@pytest.mark.parametrize("dtype", FLOATS)
def test_log_sums(dtype):
    torch.manual_seed(0)
    for x in (elements((33, 130), dtype, special) for special in (False, True)):
        for dim in (0, 1):
            check("logcumsumexp.default", [x, dim])


@pytest.mark.parametrize("dtype", FLOATS + WHOLES)
def test_scatters(dtype):
    torch.manual_seed(0)
    for shape in SIZES:
        x, source = elements(shape, dtype, True), elements(shape, dtype, True)
        for dim in range(len(shape)):
            index = torch.randint(0, shape[dim], shape)
            check("scatter_add.default", [x, dim, index, source])
            check("scatter.value", [x, dim, index, 1])
            check("index_add.default", [x, dim, index.select(1 - min(dim, 1), 0) if len(shape) == 2 else torch.randint(0, shape[dim], (shape[dim],)), source])
            if dtype != torch.bool:
                for reduce in ("amax", "amin", "prod", "sum"):
                    check("scatter_reduce.two", [x, dim, index, source, reduce])


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", FLOATS + WHOLES)
def test_index_put(dtype, accumulate):
    torch.manual_seed(0)
    whole = elements((9, 16, 40), dtype, True)
    for x in (whole, whole.transpose(0, 2).contiguous().transpose(0, 2)):
        first, second, third = (torch.randperm(size)[:5] for size in x.shape)
        for indices in ([first], [first - 9], [first.int()], [first[:, None], second], [first, second, third], [None, second], [None, second, third],
                        [first, None, third], [None, None, third], [torch.rand(x.shape) < 0.3], [torch.rand(9, 16) < 0.3], [first[:0]]):  # fmt: skip
            places = x[tuple(slice(None) if index is None else index for index in indices)]
            check("index_put.default", [x, indices, elements(tuple(places.shape), dtype, True), accumulate])
            check("index_put.default", [x, indices, elements((1,) * places.dim(), dtype, False), accumulate])


@pytest.mark.parametrize("dtype", FLOATS + WHOLES)
def test_gathers(dtype):
    torch.manual_seed(0)
    for x in (laid for shape in ((33, 130), (2, 1100), (5, 6, 70)) for laid in layouts(elements(shape, dtype, True))):
        for dim in range(x.dim()):
            index = torch.randint(0, x.shape[dim], x.shape)
            for laid in layouts(index):
                check("gather.default", [x, dim, laid])
            check("gather.default", [x, dim, index[..., :1].expand(index.shape)])
            check("index_select.default", [x, dim, index.flatten()[:700]])
        check("take.default", [x, torch.randint(-x.numel(), x.numel(), (3, 700))])
        check("take.default", [x, torch.randint(-x.numel(), x.numel(), (300, 4)).t()])


@pytest.mark.parametrize("dtype", FLOATS + WHOLES)
def test_indexing(dtype):
    torch.manual_seed(0)
    for x in layouts(elements((5, 3, 20), dtype, True)):
        first, second, third = (torch.randint(-size, size, (2, 530)) for size in x.shape)
        for indices in ([first], [first[:, :1], second], [first.int()], [first.t(), second.t(), third.t()], [None, second], [None, None, third[0]],
                        [first[0], None, third[0, :20, None]], [None, second[0], third[0]], [first[:, :3], second[:, :3]], [first[:, :1]],
                        [first[0, 0], second[0, 0]], [first[:0]]):  # fmt: skip
            check("index.Tensor", [x, indices])
    for x in layouts(elements((3, 4, 700), dtype, True)):
        for mask in (torch.rand(x.shape) < 0.4, torch.rand(x.shape).transpose(0, 2).contiguous().transpose(0, 2) < 0.4, torch.rand(3, 4) < 0.4,
                     torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)):  # fmt: skip
            check("index.Tensor", [x, [mask]])
            check("index_put.default", [x, [mask], elements((), dtype, False)])
        check("index.Tensor", [x, [(torch.rand(3, 4) * 3).byte()]])
        check("index.Tensor", [x, [None, torch.rand(4, 700) < 0.4]])


@pytest.mark.parametrize("at", [0, 70, 199])
@pytest.mark.parametrize("narrow", [False, True])
def test_places_that_are_not_there_are_refused(at, narrow):
    def call(aten: str, *arguments) -> None:
        _core.call_op(f"aten.{aten}", list(arguments), {})

    x, index = np.zeros((1, 5), np.float32), np.full((1, 200), 4, np.int32 if narrow else np.int64)
    calls = {-1: (lambda: call("gather", x, 1, index), lambda: call("index_select", x, 1, index[0])),
             -6: (lambda: call("index.Tensor", x, [None, index]), *(() if narrow else (lambda: call("take", x, index),)))}  # fmt: skip
    for below, kinds in calls.items():
        for run in kinds:
            index[0, at] = 4
            run()
            for bad in (5, below, *((2**31 - 1, -(2**31)) if narrow else (2**63 - 1, -(2**63)))):
                index[0, at] = bad
                with pytest.raises(ValueError, match=f"index {bad} at place {at} is outside of {below + 1}..4"):
                    run()


def test_index_put_refuses_places_that_are_not_there():
    x = torch.zeros(4, 5)
    for bad in (4, -5):
        with pytest.raises(ValueError, match=f"index {bad} at place 1 is outside of -4..3"):
            _core.call_op("aten.index_put.default", [x.numpy(), [np.array([0, bad])], np.ones((2, 5), np.float32)], {})
    with pytest.raises(ValueError, match="the values do not broadcast"):
        _core.call_op("aten.index_put.default", [x.numpy(), [np.array([0, 1])], np.ones((3, 5), np.float32)], {})


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_negative_log_likelihood(dtype, reduction):
    torch.manual_seed(0)
    for shape in ((6,), (5, 9), (700, 33), (3000, 7), (3, 48, 40, 40)):
        x = elements(shape, dtype, True).nan_to_num(1.0, 2.0, -2.0)
        classes = shape[1] if len(shape) > 1 else shape[0]
        target = torch.randint(0, classes, (shape[0], *shape[2:]) if len(shape) > 1 else ())
        if target.dim():
            target.view(-1)[::7] = -100
        for seen in (x, x.transpose(0, -1).contiguous().transpose(0, -1)) if len(shape) > 1 else (x,):
            for weight in (None, torch.rand(classes).to(dtype)):
                check(f"nll_loss{'2d' if len(shape) == 4 else ''}_forward.default", [seen, target, weight, reduction, -100])
