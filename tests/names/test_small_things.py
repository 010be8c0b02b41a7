"""Words of the command line in any order, tracebacks of ports, ranks and their manifest, what dir() shows."""
import json
import traceback
from pathlib import Path

import numpy as np
import porting
import pytest
import torch
from porting import _core
from porting.cli import main


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("small") / "ref.capture")
    with torch.no_grad():
        _, opened = porting.ActivationCollector(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh()), path)(torch.randn(2, 3))
    with opened:
        yield opened


def test_options_may_stand_before_a_pattern(capture, capsys):
    for words in (["ls", capture.path, "--parameters", "weight"], ["ls", capture.path, "weight", "--parameters"], ["ls", "--parameters", capture.path, "weight"]):
        assert main(words) == 0
        assert capsys.readouterr().out.split()[0] == "param:0.weight"
    assert main(["ls", capture.path, "--modules", "--json", "1"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["1"]
    with pytest.raises(SystemExit):
        main(["ls", capture.path, "--parameters", "weight", "too many"])
    assert main(["show", "-n", "2", capture.path, "0.out.0"]) == 0


def test_a_port_that_raises_keeps_its_traceback(capture):
    def broken(x):
        return inner(x)

    def inner(x):
        raise ZeroDivisionError("in the port")

    with pytest.raises(porting.ParityError, match="the port raised ZeroDivisionError: in the port") as caught:
        porting.test_layer(broken, capture, "1")
    assert isinstance(caught.value.__cause__, ZeroDivisionError) and "in inner" in "".join(traceback.format_exception(caught.value.__cause__))
    with pytest.raises(porting.ParityError) as caught:
        porting.test_layer(lambda x: x, capture, "1")
    assert caught.value.__cause__ is None


def manifest(name):
    return json.dumps({"format": "porting.capture", "version": 1, "finished": False, "creator": name})


def test_another_rank_leaves_the_manifest_of_the_first_alone(tmp_path):
    path = str(tmp_path / "run.capture")
    first = _core.Writer(path)
    first.set_manifest(manifest("first"))
    second = _core.Writer(path, rank=1)
    file = Path(path, "MANIFEST.json")
    assert json.loads(file.read_text())["creator"] == "first"
    second.set_manifest(manifest("second"))
    second.put(np.zeros(3, np.float32), "x")
    second.close(manifest("second"))
    assert json.loads(file.read_text()) == {**json.loads(manifest("first")), "finished": False}
    first.set_manifest(manifest("later"))
    assert json.loads(file.read_text())["creator"] == "later"
    first.abort()
    alone = _core.Writer(str(tmp_path / "alone.capture"), rank=1)
    alone.put(np.zeros(3, np.float32), "x")
    alone.close(manifest("alone"))
    assert json.loads(Path(tmp_path, "alone.capture", "MANIFEST.json").read_text()) == {**json.loads(manifest("alone")), "finished": True}


def test_dir_shows_what_is_public():
    shown = set(dir(porting))
    assert set(porting.__all__) <= shown and {"compare", "graft", "measure_noise", "__version__"} <= shown
    assert not {"sys", "types", "importlib", "Any", "TYPE_CHECKING", "_HOME", "annotations"} & shown


def test_what_names_nothing_gets_the_nearest_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ModuleDict({"mlp": torch.nn.Linear(4, 4)})["mlp"])
    root = torch.nn.ModuleDict({"layers": model})
    root.forward = lambda x: root["layers"](x)
    with torch.no_grad():
        _, capture = porting.ActivationCollector(root, tmp_path / "c")(torch.randn(2, 4))
    for pattern, nearest in (("layer.1", "layers.1"), ("layer.*", "layers.*")):
        report = porting.compare(capture, {pattern: model[1]})
        assert not report.passed and report.rows[0].reason == f"no module of the reference matches {pattern!r}; did you mean {nearest}?"
    assert "did you mean" not in porting.compare(capture, {"zzzzzzzz": model[1]}).rows[0].reason
    with pytest.raises(porting.PortingError, match=r"expected a TOML file or one of flax, llama\.cpp, nnef, onnx, zml, got a folder"):
        porting.compare(capture, {"a": np.zeros(3)}, names=str(tmp_path))
    with pytest.raises(porting.PortingError, match="no provider is called abacus; there are auto, .*torch"):
        porting.compare(capture, {"layers.1": model[1]}, provider="abacus")
    capture.close()
