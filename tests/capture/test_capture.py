"""Reading a capture: names, calls, modules, notes; what is refused and how."""
import copy
import gc
import json
import os
import pickle
import shutil
import warnings

import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, FormatError, LayerNotFoundError, _core


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(4, 4)
        self.out = torch.nn.Linear(4, 4)

    def forward(self, hidden_states, attention_mask=None, extra=None):
        return self.out(self.q_proj(hidden_states) * attention_mask), {"probabilities": hidden_states}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(Attention() for _ in range(2))
        self.unused = torch.nn.Tanh()

    def forward(self, x):
        for layer in self.layers:
            x, _ = layer(x, extra=None, attention_mask=x.abs())
        return x


class Pipeline:
    def __init__(self):
        torch.manual_seed(5)
        self.model = Model()

    def __call__(self, x):
        return [self.model(x), self.model(x * 2)]


X = torch.arange(8.0).view(2, 4) / 8


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "run.capture"
    ActivationCollector(Pipeline(), path)(X)[1].close()
    return path


@pytest.fixture
def acts(path):
    with porting.open(path) as capture:
        yield capture


def test_mapping(acts):
    names = list(acts)
    assert len(acts) == len(names) == len(set(names)) and all(n in acts for n in names)
    assert all(isinstance(a, np.ndarray) and not a.flags.writeable for a in acts.values())
    with pytest.raises(ValueError):
        acts["model.in.0"][0, 0] = 1
    assert (acts["model@1.in.0"] == X.numpy() * 2).all()
    assert 3 not in acts and "nothing" not in acts


@pytest.mark.parametrize("name, full", [
    ("model.layers.1.in.0", "model.layers.1.in.0"),
    ("layers.1.in.0", "model.layers.1.in.0"),
    ("layers.1.in.hidden_states", "model.layers.1.in.0"),
    ("model.layers.1.in.attention_mask", "model.layers.1.in.1"),
    ("layers.1@1.in.attention_mask", "model.layers.1@1.in.1"),
    ("layers.1.out.1.probabilities", "model.layers.1.out.1.probabilities"),
    ("layers.0.out.out.0", "model.layers.0.out.out.0"),
    ("layers.0.out.in.input", "model.layers.0.out.in.0"),
    ("out.0", "model.out.0"),
    ("in.x", "model.in.0"),
])
def test_names_are_resolved(acts, name, full):
    assert acts.resolve(name) == full and full in list(acts)
    assert acts.tensor_id(name) == acts.tensor_id(full) and np.array_equal(acts[name], acts[full])


@pytest.mark.parametrize("name, suggestion", [
    ("model.layers.1.in.7", "model.layers.1.in.0"),
    ("layers.5.in.0", "model.layers.0.in.0"),
    ("model.layers.1.in.atention_mask", "model.layers.1.in.1"),
    ("model.layers.0.q_prj.out.0", "model.layers.0.q_proj.out.0"),
    ("model.layers.1@7.in.0", "model.layers.1@1.in.0"),
    ("", None),
])
def test_an_unknown_name_is_one_sentence_with_suggestions(acts, name, suggestion):
    with pytest.raises(LayerNotFoundError) as caught:
        acts[name]
    text = str(caught.value)
    assert text.startswith(f"Layer not found: {name} (9 modules)")
    assert suggestion is None or f"did you mean {suggestion}" in text or suggestion in text
    assert isinstance(caught.value, KeyError)


def test_a_prefix_that_is_ambiguous_is_refused():
    class Two:
        def __init__(self):
            self.a, self.b = torch.nn.Sequential(torch.nn.Tanh()), torch.nn.Sequential(torch.nn.Tanh())

        def __call__(self, x):
            return self.b(self.a(x))

    acts = ActivationCollector(Two())(X)[1]
    with pytest.raises(LayerNotFoundError, match=r"0.in.0 is ambiguous: a.0.in.0, b.0.in.0"):
        acts["0.in.0"]
    with pytest.raises(LayerNotFoundError, match="Layer 0 is ambiguous: a.0, b.0"):
        acts.calls("0")
    assert acts["b.0.in.0"].shape == (2, 4)


def test_calls_modules_and_steps(acts):
    assert acts.root == "model" and acts.roots == ["model"] and acts.steps == range(2) and acts.finished and acts.recovery is None
    assert [c.module for c in acts.call_list][:4] == ["model", "model.layers.0", "model.layers.0.q_proj", "model.layers.0.out"]
    assert [(c.number, c.step) for c in acts.calls("layers.0")] == [(0, 0), (1, 1)]
    assert acts.calls("model.unused") == [] and acts.modules["model.unused"].calls == ()
    assert list(acts.modules)[:3] == ["model", "model.layers", "model.layers.0"]
    info = acts.modules["model.layers.0.q_proj"]
    assert (info.class_name, info.calls, info.training) == ("Linear", (0, 1), True) and "in_features=4" in info.extra_repr
    call = acts.call("layers.1", 1)
    assert repr(call) == "Call(model.layers.1@1, step 1)" and call.full_name("out", "0") == "model.layers.1@1.out.0"
    assert list(call.inputs) == ["0", "1"] and list(call.arguments) == ["hidden_states", "attention_mask", "extra"]
    assert call.arguments["extra"] is None and call.input_names == {"0": "hidden_states", "1": "attention_mask", "2": "extra"}
    assert np.array_equal(call.inputs["attention_mask"], call.arguments["attention_mask"])
    assert np.array_equal(call.result[1]["probabilities"], call.inputs["0"])
    assert acts.inputs("layers.1", 1).keys() == call.inputs.keys() and acts.outputs("layers.1")["0"].shape == (2, 4)
    assert repr(acts.outputs("layers.1")) == "{'0': F32[2, 4], '1.probabilities': F32[2, 4]}"
    with pytest.raises(LayerNotFoundError, match="model.layers.1 has no captured call 2; it has 2"):
        acts.call("layers.1", 2)
    with pytest.raises(LayerNotFoundError, match="no leaf '5' here; there are 0, 1"):
        call.inputs["5"]
    with pytest.raises(LayerNotFoundError, match=r"Layer not found: layers.9 \(9 modules\); did you mean model.layers"):
        acts.calls("layers.9")


def test_programs_are_read(acts):
    assert len(acts.programs) >= 1 and acts.programs[0].root == "model"


def test_representations(acts):
    assert repr(acts) == f"Capture({acts.path!r}, 7 modules, 14 calls, {len(acts)} tensors)"
    page = acts._repr_html_()
    assert "14 calls of 7 modules in 2 steps" in page and "q_proj" in page and "Linear, 2 calls" in page


def test_a_capture_is_not_pickled_or_copied(acts):
    with pytest.raises(TypeError, match="cannot be pickled: pass its path"):
        pickle.dumps(acts)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.copy(acts)


def test_closing(path):
    acts = porting.open(path)
    array = acts["model.in.0"]
    acts.close()
    acts.close()
    assert (array == X.numpy()).all()
    with pytest.raises(porting.ClosedError, match="has been closed"):
        acts["model.in.0"]
    assert repr(acts) == f"Capture({str(path)!r}, closed)"


def test_arrays_outlive_the_capture_and_its_files(path, tmp_path):
    shutil.copytree(path, tmp_path / "copy")
    array = porting.open(tmp_path / "copy")["model.in.0"]
    shutil.rmtree(tmp_path / "copy")
    gc.collect()
    assert (array == X.numpy()).all()


@pytest.mark.parametrize("spoil, error, text", [
    (lambda p: shutil.rmtree(p), FileNotFoundError, "there is no such capture"),
    (lambda p: (shutil.rmtree(p), p.write_text("x")), FormatError, "is not a capture: a capture is a directory"),
    (lambda p: (shutil.rmtree(p), p.mkdir()), FormatError, "it has no MANIFEST.json"),
    (lambda p: (p / "MANIFEST.json").write_text("{"), FormatError, "MANIFEST.json"),
    (lambda p: (p / "MANIFEST.json").write_text("[]"), FormatError, "MANIFEST.json"),
    (lambda p: (p / "MANIFEST.json").write_text('{"format": "porting.capture", "environment": 3}'), FormatError, "MANIFEST.json"),
    (lambda p: (p / "rank00000" / "journal.bin").write_bytes(b"PORTJRNL"), FormatError, "journal"),
])
def test_what_is_not_a_capture_is_refused(path, tmp_path, spoil, error, text):
    shutil.copytree(path, target := tmp_path / "spoiled.capture")
    with porting.open(target):
        pass
    spoil(target)
    with pytest.raises(error, match=text) as caught:
        porting.open(target)
    assert str(target) in str(caught.value)


def test_an_unfinished_capture_opens_with_a_warning_that_says_how_much(tmp_path):
    model = Model()
    collector = ActivationCollector(model, tmp_path / "run.capture")
    collector.__enter__()
    model(X)
    collector._run.writer.flush()
    shutil.copytree(tmp_path / "run.capture", tmp_path / "killed.capture")
    collector.close()
    with pytest.warns(RuntimeWarning, match=r"killed.capture was never finished: \d+ records .* are readable"):
        acts = porting.open(tmp_path / "killed.capture")
    assert not acts.finished and "unfinished" in repr(acts) and acts.recovery["records"] > 10
    assert (acts["in.0"] == X.numpy()).all() and acts.manifest["finished"] is False
    assert acts.parameters["layers.0.out.weight"].shape == (4, 4)
    acts.close()
    porting.repair(tmp_path / "killed.capture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert porting.open(tmp_path / "killed.capture").finished


def test_a_capture_of_names_alone(tmp_path):
    """What ports in other languages write."""
    writer = _core.Writer(str(tmp_path / "port.capture"))
    writer.add("layers.0.mlp.out.0", np.arange(3, dtype=np.float32))
    writer.note('{"kind": "warning", "where": "layers.0", "reason": "fast"}')
    writer.close(json.dumps({"format": "porting.capture", "version": 1, "finished": True}))
    acts = porting.open(tmp_path / "port.capture")
    assert list(acts) == ["layers.0.mlp.out.0"] and (acts["layers.0.mlp.out.0"] == [0, 1, 2]).all()
    assert acts.modules == {} and acts.call_list == [] and acts.programs == [] and list(acts.steps) == []
    assert acts.notes == [{"kind": "warning", "where": "layers.0", "reason": "fast"}]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"leaves": ["0"]}', '{"leaves": [0], "tree": {}}', '{"leaves": ["0", "1"], "tree": {}}'])
def test_a_structure_that_is_wrong_is_refused(tmp_path, text):
    writer = _core.Writer(str(tmp_path / "wrong.capture"))
    tensor = writer.put(np.zeros(3, np.float32), "m.in.0")
    try:
        writer.call("m", 0, 0, 0, text, [tensor])
        writer.close(json.dumps({"format": "porting.capture", "version": 1, "finished": True}))
        porting.open(tmp_path / "wrong.capture").call_list
    except (FormatError, ValueError) as error:
        assert any(word in str(error) for word in ("structure", "leaves", "tensors", "not valid JSON"))
    else:
        pytest.fail("it was accepted")


def test_a_tree_with_a_leaf_that_is_not_there_is_refused(tmp_path):
    writer = _core.Writer(str(tmp_path / "wrong.capture"))
    tensor = writer.put(np.zeros(3, np.float32), "m.out.0")
    writer.call("m", 0, 0, 1, '{"leaves":["0"],"tree":{"$":4}}', [tensor])
    writer.close(json.dumps({"format": "porting.capture", "version": 1, "finished": True}))
    call = porting.open(tmp_path / "wrong.capture").call("m")
    assert call.outputs["0"].shape == (3,)
    with pytest.raises(FormatError, match="leaf 4 of 1"):
        call.result


def test_it_is_an_ordinary_directory_of_safetensors(path, acts):
    from safetensors.numpy import load_file

    with open(os.path.join(path, "model.safetensors.index.json"), encoding="utf-8") as file:
        index = json.load(file)
    stored = {}
    for segment in sorted(set(index["weight_map"].values())):
        stored.update(load_file(os.path.join(path, segment)))
    for name in acts:
        key = name if name in index["weight_map"] else index["metadata"]["aliases"][name]
        assert np.array_equal(stored[key], acts[name]), name
