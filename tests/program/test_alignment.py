"""Parameters that do not begin at a multiple of 16 bytes, as those that are mapped from a safetensors file: products of few rows have other bits then."""
import json

import numpy as np
import porting
import pytest
import torch
from porting import _core
from porting.program import Program, run_call
from porting.providers import load_torch_provider


def misaligned(layer, bytes_off):
    """The layer with a weight that begins so many bytes after a multiple of 64."""
    count = layer.weight.numel()
    memory = torch.empty(count + 32)
    first = (-memory.data_ptr() // 4) % 16 + bytes_off // 4
    storage = torch.frombuffer(memory.numpy().data, dtype=torch.float32, count=count, offset=4 * first)  # a storage of its own
    weight = storage.view(layer.weight.shape)
    weight.copy_(layer.weight.detach())
    layer.weight = torch.nn.Parameter(weight)
    assert layer.weight.data_ptr() % 64 == bytes_off
    return layer


@pytest.mark.parametrize("bytes_off,recorded", [(24, True), (4, True), (32, False)])
def test_one_row_by_a_misaligned_weight(tmp_path, bytes_off, recorded):
    load_torch_provider()
    torch.manual_seed(0)
    layer = misaligned(torch.nn.Linear(384, 384), bytes_off)
    with torch.no_grad(), porting.ActivationCollector(layer, tmp_path / "c", weights=True):
        expected = layer(torch.randn(1, 384)).numpy()
    with porting.open(tmp_path / "c") as capture:
        program = capture.programs[0]
        rows = [row for row in program.values if len(row) == 5]
        assert [row[4] for row in rows] == ([bytes_off] if recorded else [])
        assert np.array_equal(run_call(capture, capture.call("")).outputs["0"], expected)
        if recorded:  # without the entry the bits are another alignment's
            plain = Program({**program._entry, "values": [row[:4] for row in program.values]})
            capture.programs[0] = plain
            assert capture.programs[0] is plain
            assert not np.array_equal(run_call(capture, capture.call("")).outputs["0"], expected)


@pytest.mark.parametrize("lead", [64, -1, 1.5, "4", None, [4]])
def test_a_beginning_that_is_none_is_refused(lead):
    text = json.dumps({"values": [["F32", [2], [1], 0, lead]], "ops": []}).encode()
    with pytest.raises(porting.FormatError, match="0 to 63 bytes"):
        _core.Program(text)
    with pytest.raises(porting.FormatError, match="fifth entry"):
        _core.Program(json.dumps({"values": [["F32", [2], [1], 0, 4, 4]], "ops": []}).encode())


def test_a_beginning_between_elements_is_ignored():
    entry = {"values": [["F32", [2], [1], 0, 6], ["F32", [2], [1], 0]], "ops": [["aten.neg.default", [{"v": 0}], {}, [1]]]}
    (y,) = _core.Program(json.dumps(entry).encode()).run(0, 1, {0: np.array([1, 2], np.float32)}, [1])
    assert list(y) == [-1, -2]
