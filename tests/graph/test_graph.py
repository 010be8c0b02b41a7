"""`porting graph`: a recorded program in words says what torch executed."""
import json

import porting
import pytest
import torch
from porting.cli import main


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(6, 4)
        self.act = torch.nn.GELU(approximate="tanh")
        self.table = torch.arange(4.0)

    def forward(self, x, scale):
        return self.act(self.up(x)) * scale + self.table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "c"
    model = Gated()
    with torch.no_grad(), porting.ActivationCollector(model, path):
        model(torch.randn(3, 6), 2.5)
        model(torch.randn(3, 6), 2.5)
    return path


def test_the_text_tells_ops_modules_shapes_and_names(folder, capsys):
    assert main(["graph", str(folder)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "the root (Gated), call 0 in step 0: 5 ops, 2 parameters, 1 constants"
    order = [lines.index(line) for line in ("in.0 F32 (3, 6) input", "up:", "act:", "the root:")]
    assert order == sorted(order)
    assert any(line.endswith("F32 (3, 4) addmm(up.bias, in.0, %4)") or "addmm(up.bias, in.0," in line for line in lines[order[1] : order[2]])
    assert "gelu(" in lines[order[2] + 1] and "approximate='tanh'" in lines[order[2] + 1]
    assert any("mul.Tensor(" in line and "2.5)" in line for line in lines[order[3] :])
    assert any(", const:0)" in line for line in lines) and lines[-1].endswith("F32 (3, 4) is out.0")


def test_the_json_and_the_objects_say_the_same(folder, capsys):
    assert main(["graph", str(folder), "up", "--call", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["module"] == "up" and found["call"] == 1 and [op["op"] for op in found["ops"]] == ["t", "addmm"]
    graph = porting.graph(folder, "up", 1)
    assert graph.to_json() == found and [step.op for step in graph.steps] == ["t", "addmm"]
    assert set(graph.parameters.values()) == {"up.weight", "up.bias"} and "<pre" in graph._repr_html_()
    assert porting.graph(folder, "act").steps[0].op == "gelu"


@pytest.mark.parametrize("words,message", [(["upp"], "did you mean up"), (["up", "--call", "7"], "no captured call 7; it has 2")])
def test_what_is_not_there_is_refused(folder, capsys, words, message):
    assert main(["graph", str(folder), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_call_without_a_program_says_why(tmp_path):
    model = Gated()
    with torch.no_grad(), porting.ActivationCollector(model, tmp_path / "c", program=False):
        model(torch.randn(3, 6), 2.5)
    with pytest.raises(porting.PortingError, match="program=False"):
        porting.graph(tmp_path / "c")


def test_ops_that_run_together_are_marked(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.SiLU())
    with torch.no_grad(), porting.ActivationCollector(model, tmp_path / "c"):
        model(torch.randn(16, 64))
    graph = porting.graph(tmp_path / "c")
    groups = [ops for ops in porting.open(tmp_path / "c").programs[0].core.fusions]
    marked = [step.index for step in graph.steps if step.fusion]
    assert marked == sorted(op for ops in groups for op in ops) and ("[fused 1]" in graph.to_text()) == bool(groups)
    assert groups
    alone = porting.graph(tmp_path / "c", "1")
    assert not any(step.fusion for step in alone.steps) and "fused" not in alone.to_text()


class WrittenOut(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(2, 3)) * 0.25, dim=-1), v)


def test_attention_that_runs_together_is_marked(tmp_path):
    model = WrittenOut()
    with torch.no_grad(), porting.ActivationCollector(model, tmp_path / "c"):
        model(*torch.randn(3, 1, 2, 100, 16))
    graph = porting.graph(tmp_path / "c")
    marked = [step.op.partition(".")[0] for step in graph.steps if step.fusion == 1]
    assert marked[0] == marked[-1] == "bmm" and {"mul", "_softmax"} < set(marked)
    assert graph.to_text().count("[fused 1]") == len(marked)


def test_names_cannot_steer_a_terminal(folder):
    graph = porting.graph(folder)
    object.__setattr__(graph, "class_name", "\x1b[2J<b>")
    assert "\x1b" not in graph.to_text() and "<b>" not in graph._repr_html_()
