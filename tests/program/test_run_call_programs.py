"""Reading program.json, classifying what a module computes, laying arrays out as the run had them."""

import copy
import json

import numpy as np
import pytest
import torch
from porting._core import FormatError
from porting.program import Program, kind_of, lay_out, load
from porting.recorder import Recorder
from torch import nn


def record(module, *args):
    names = {id(t): n for n, t in [*module.named_parameters(), *module.named_buffers()]}
    recorder = Recorder(lambda t: "const:0", lambda t: names.get(id(t)))
    leaves = [(str(i), a) for i, a in enumerate(args)]
    with torch.no_grad():
        recorder.begin("", 0)
        recorder.enter("", 0, leaves)
        out = module(*args)
        recorder.exit("", 0, [("0", out if isinstance(out, torch.Tensor) else out[0])])
        recorder.end()
    return recorder.programs()


def write(path, programs):
    path.write_text(json.dumps({"format": "porting.program", "version": 1, "programs": programs}))
    return path


def test_load_round_trip(tmp_path):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    (program,) = load(write(tmp_path / "program.json", record(module, torch.randn(2, 4))))
    (interval,) = program.intervals
    assert program.op_names(interval) == ["aten.t.default", "aten.addmm.default", "aten.relu.default"]
    assert {program.parameters.get(v, "in") for v in program.external(interval)} == {"0.weight", "0.bias", "in"}
    assert interval.inputs.keys() == interval.outputs.keys() == {"0"}
    assert load(tmp_path / "absent.json") == []


def test_in_place_op_on_an_input_keeps_it_external():
    (entry,) = record(nn.ReLU(inplace=True), torch.randn(2, 4))
    program = Program(entry)
    (interval,) = program.intervals
    assert program.external(interval) == [interval.inputs["0"]] == [interval.outputs["0"]]


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"format": "porting.program", "version": 2, "programs": []}',
                                  '{"format": "porting.program", "version": 1, "programs": {}}',
                                  '{"format": "porting.program", "version": 1, "programs": [3]}', "[" * 100000])  # fmt: skip
def test_what_is_no_program_file_is_refused(tmp_path, text):
    (tmp_path / "program.json").write_text(text)
    with pytest.raises(FormatError):
        load(tmp_path / "program.json")


DAMAGES = {
    "no root": lambda p: p.pop("root"),
    "no ops": lambda p: p.pop("ops"),
    "values a number": lambda p: p.update(values=3),
    "calls text": lambda p: p.update(calls=["x"]),
    "interval outside": lambda p: p["modules"][0].update(end=99),
    "interval reversed": lambda p: p["modules"][0].update(begin=2, end=1),
    "value outside": lambda p: p["modules"][0].update(outputs={"0": 10**6}),
    "negative value": lambda p: p["modules"][0].update(inputs={"0": -1}),
    "parameters a list": lambda p: p.update(parameters=[]),
    "modules of numbers": lambda p: p.update(modules=[1]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_malformed_programs_are_refused(damage):
    (entry,) = record(nn.Linear(4, 3), torch.randn(2, 4))
    Program(copy.deepcopy(entry))
    damage(entry)
    with pytest.raises(FormatError, match="program.json"):
        Program(entry)


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Eager(nn.Module):
    def forward(self, q):
        return torch.softmax(q @ q.transpose(-1, -2) * 0.3, -1) @ q


class Heads(nn.Module):
    def forward(self, x):
        return x.view(2, -1, 2, 4).transpose(1, 2).contiguous()


class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(0.79 * (x + 0.044 * torch.pow(x, 3.0))))


class Fused(nn.Module):
    def forward(self, q):
        return nn.functional.scaled_dot_product_attention(q, q, q)


X = torch.randn(2, 3, 8)
KINDS = [
    (nn.Linear(8, 4), X, "linear"), (nn.Linear(8, 4, bias=False), X, "linear"), (nn.Conv1d(3, 3, 2), X, "linear"),
    (nn.Embedding(9, 4), torch.tensor([[1, 2]]), "embedding"), (nn.LayerNorm(8), X, "layer_norm"), (RMSNorm(), X, "rms_norm"),
    (nn.RMSNorm(8), X, "rms_norm"), (nn.GELU(), X, "activation"), (nn.SiLU(), X, "activation"), (NewGELU(), X, "activation"),
    (nn.Softmax(-1), X, "softmax"), (Eager(), X, "attention"), (Fused(), X[None], "attention"), (Heads(), X, "move"),
    (nn.Dropout().eval(), X, "move"), (nn.Identity(), X, "move"), (nn.Sequential(nn.Linear(8, 8), nn.GELU()), X, "composite"),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), X, "composite"),
]  # fmt: skip


@pytest.mark.parametrize("module, x, kind", KINDS, ids=[f"{type(m).__name__}-{k}-{i}" for i, (m, _, k) in enumerate(KINDS)])
def test_kind_of(module, x, kind):
    (entry,) = record(module.train(isinstance(module, nn.TransformerEncoderLayer)), x)
    program = Program(entry)
    assert kind_of(program, program.intervals[-1], type(module).__name__) == kind


@pytest.mark.parametrize("make", [lambda a: a, lambda a: np.swapaxes(a, 0, 2), lambda a: a[:, ::2], lambda a: a[:, :1],
                                  lambda a: np.broadcast_to(a[:1], a.shape)])  # fmt: skip
def test_lay_out_restores_strides(make):
    strided = make(np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4))
    strides = [0 if n == 1 else s // 4 for n, s in zip(strided.shape, strided.strides)]
    again = lay_out(np.ascontiguousarray(strided), strides)
    assert np.array_equal(again, strided)
    assert all(n == 1 or a == b for n, a, b in zip(again.shape, again.strides, strided.strides))


def test_lay_out_refuses_strides_that_would_need_much_memory():
    array = np.ones((2, 2), np.float32)
    for strides in ([1 << 40, 1], [-1, 1], [1]):
        assert lay_out(array, strides) is array
