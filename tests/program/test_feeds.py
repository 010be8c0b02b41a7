"""Fed tensors keep what decides the bits of products besides their values: strides, and where they begin in memory.

torch is the oracle; MKL's products with one column, or with fewer than four rows, take other paths for other layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from porting import _core, providers

providers.load_torch_provider()

SHAPES = [(1, 1, 300), (3, 1, 300), (5, 1, 257), (2, 7, 300), (1, 64, 513), (64, 1, 64), (3, 3, 33)]
LAYOUTS = {"dense": lambda r, c: (c, 1), "padded": lambda r, c: (c + 5, 1), "transposed": lambda r, c: (1, r),
           "thin": lambda r, c: (c * 7 + 3, 7), "transposed and padded": lambda r, c: (1, r + 3)}  # fmt: skip
OFFSETS = {"aligned": 0, "unaligned": 1}


def laid(rows: int, cols: int, strides: tuple[int, int], offset: int) -> torch.Tensor:
    size = offset + (rows - 1) * strides[0] + (cols - 1) * strides[1] + 1
    return torch.randn(size, generator=torch.Generator().manual_seed(size)).as_strided((rows, cols), strides, offset)


def pairs(layout: str, offset: int):
    for m, n, k in SHAPES:
        for other in LAYOUTS.values():
            yield laid(m, k, LAYOUTS[layout](m, k), offset), laid(k, n, other(k, n), offset)


def program_of_mm(a: torch.Tensor, b: torch.Tensor) -> _core.Program:
    values = [["F32", list(t.shape), list(t.stride()), t.storage_offset()] for t in (a, b, a @ b)]
    return _core.Program(json.dumps({"values": values, "ops": [["aten.mm.default", [{"v": 0}, {"v": 1}], {}, [2]]]}).encode())


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_of_arrays_as_they_lie(layout: str, offset: str) -> None:
    """call_op on torch's own memory, and on a copy of the same strides that not even its elements are aligned in."""
    for a, b in pairs(layout, OFFSETS[offset]):
        expected = torch.mm(a, b).numpy()
        options = {"provider": "torch", "num_threads": torch.get_num_threads()}
        assert np.array_equal(expected, _core.call_op("aten.mm.default", [a.numpy(), b.numpy()], **options)), (a.stride(), b.stride())
        if offset == "aligned":
            odd = [at_odd_bytes(t) for t in (a, b)]
            assert np.array_equal(expected, _core.call_op("aten.mm.default", odd, **options)), (a.stride(), b.stride())


def at_odd_bytes(t: torch.Tensor) -> np.ndarray:
    size = sum((n - 1) * s for n, s in zip(t.shape, t.stride())) + 1
    memory = np.zeros(4 * size + 1, np.uint8)[1:].view(np.float32)
    array = np.lib.stride_tricks.as_strided(memory, t.shape, [4 * s for s in t.stride()])
    array[...] = t.numpy()
    return array


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_of_feeds_as_they_were_recorded(layout: str, offset: str) -> None:
    """A program gets dense arrays, as captures hold them, and lays them out with the recorded strides and storage offset."""
    for a, b in pairs(layout, OFFSETS[offset]):
        dense = [np.ascontiguousarray(t.numpy()) for t in (a, b)]
        (got,) = program_of_mm(a, b).run(0, 1, dict(enumerate(dense)), [2], provider="torch", num_threads=torch.get_num_threads())
        assert np.array_equal(torch.mm(a, b).numpy(), got), (a.stride(), b.stride())


def test_a_change_in_place_keeps_the_layout_and_the_feed() -> None:
    a, b = laid(3, 300, (305, 1), 1), laid(300, 1, (7, 7), 1)
    values = [["F32", list(t.shape), list(t.stride()), t.storage_offset()] for t in (a, b, a @ b)]
    ops = [["aten.mul_.Scalar", [{"v": 0}, 3.0], {}, [0]], ["aten.mm.default", [{"v": 0}, {"v": 1}], {}, [2]]]
    program = _core.Program(json.dumps({"values": values, "ops": ops}).encode())
    before = a.clone()
    (got,) = program.run(0, 2, {0: a.numpy(), 1: b.numpy()}, [2], provider="torch", num_threads=torch.get_num_threads())
    assert torch.equal(a, before)
    assert np.array_equal(torch.mm(a.mul_(3.0), b).numpy(), got)


def test_elements_that_shared_memory_and_differ_now_stay_apart() -> None:
    program = _core.Program(json.dumps({"values": [["F32", [3, 2], [100, 0], 0]], "ops": []}).encode())
    equal = np.repeat(np.arange(3, dtype=np.float32)[:, None], 2, axis=1)
    different = np.arange(6, dtype=np.float32).reshape(3, 2)
    for fed in (equal, different):
        assert np.array_equal(program.run(0, 0, {0: fed}, [0])[0], fed)
