"""Name maps: conventions and files, on a Llama, a BERT-like module tree and parameters; and all they refuse."""
import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import porting
import pytest
import torch
from porting.cli import main
from porting.interop.names import NamesError, flat_names, load
from transformers import LlamaConfig, LlamaForCausalLM

PASSING = {"require_coverage": False, "explain": False}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    model = LlamaForCausalLM(config).eval()
    path = str(tmp_path_factory.mktemp("llama") / "ref.capture")
    with torch.no_grad():
        _, capture = porting.ActivationCollector(model, path)(torch.arange(6)[None])
    with capture:
        yield capture


def ggml(capture):
    """What llama.cpp's eval callback has: no batch axis, rope's pairs beside each other in Q and K."""
    port = {"inp_embd": capture["model.embed_tokens.out.0"], "result_norm": capture["model.norm.out.0"], "result_output": capture["lm_head.out.0"]}
    names = {"attn_norm": "input_layernorm.out.0", "Vcur": "self_attn.v_proj.out.0", "kqv_out": "self_attn.o_proj.in.0", "ffn_inp": "post_attention_layernorm.in.0",
             "ffn_norm": "post_attention_layernorm.out.0", "ffn_gate": "mlp.gate_proj.out.0", "ffn_up": "mlp.up_proj.out.0", "ffn_out": "mlp.out.0", "l_out": "out.0"}
    for i in range(2):
        port.update({f"{name}-{i}": capture[f"model.layers.{i}.{ref}"] for name, ref in names.items()})
        for name, heads in (("q", 4), ("k", 2)):
            x = capture[f"model.layers.{i}.self_attn.{name}_proj.out.0"]
            port[f"{name.upper()}cur-{i}"] = x.reshape(1, 6, heads, 2, 4).swapaxes(3, 4).reshape(1, 6, heads * 8)
    return {name: np.array(array[0]) for name, array in port.items()}


def test_llama_cpp_names_are_found_and_their_layout_undone(llama):
    port = ggml(llama)
    report = porting.compare(llama, port, names="llama.cpp", **PASSING)
    assert report.passed and report.num_compared == 3 + 2 * 9 and all(row.status in ("compared", "missing") for row in report.rows)
    assert {row.band for row in report.rows if row.status == "compared"} == {"exact"}


@pytest.mark.parametrize(("name", "spoil"), [
    ("Qcur-1", lambda x: x.reshape(6, 4, 4, 2).swapaxes(2, 3).reshape(6, 32)),  # not interleaved
    ("ffn_out-0", lambda x: x * np.float32(1.001)),
    ("result_output", lambda x: x[::-1].copy()),
    ("l_out-1", np.zeros_like),
])
def test_a_wrong_tensor_under_a_convention_is_refused(llama, name, spoil):
    port = ggml(llama)
    port[name] = spoil(port[name])
    report = porting.compare(llama, port, names="llama.cpp", **PASSING)
    assert not report.passed
    assert [name in row.reason for row in report.rows if not row.passed and row.status == "compared"] == [True]


def test_gguf_modules_and_weights(llama):
    port = {"blk.1.ffn_down.out.0": llama["model.layers.1.mlp.down_proj.out.0"], "token_embd.weight": llama.parameters["model.embed_tokens.weight"],
            "blk.0.ffn_gate.weight": llama.parameters["model.layers.0.mlp.gate_proj.weight"]}
    q = llama.parameters["model.layers.0.self_attn.q_proj.weight"]
    port["blk.0.attn_q.weight"] = q.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
    report = porting.compare(llama, port, names="llama.cpp", **PASSING)
    assert report.passed and report.num_compared == 4
    port["blk.0.attn_q.weight"] = q  # as the checkpoint has it: not what GGUF holds
    report = porting.compare(llama, port, names="llama.cpp", **PASSING)
    assert not report.passed and report.first_divergence.name == "param:model.layers.0.self_attn.q_proj.weight"
    assert report.first_divergence.kind == "parameter" and report.num_checked == 1


class SelfAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.norm = torch.nn.Linear(12, 12), torch.nn.LayerNorm(12)

    def forward(self, x):
        return self.norm(self.query(x)), x


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(SelfAttention() for _ in range(2))
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x, image):
        for layer in self.layers:
            x = layer(x)[0]
        return {"hidden": x, "image": self.conv(image)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(4)
    path = str(tmp_path_factory.mktemp("encoder") / "ref.capture")
    with torch.no_grad():
        _, capture = porting.ActivationCollector(Encoder().eval(), path)(torch.randn(2, 5, 12), torch.randn(2, 3, 8, 8))
    with capture:
        yield capture


def flax_tree(capture):
    layer = {f"layers_{i}": {"query": {"__call__": (capture[f"layers.{i}.query.out.0"],)}, "norm": {"__call__": (capture[f"layers.{i}.norm.out.0"],)},
                             "__call__": ((capture[f"layers.{i}.out.0"], capture[f"layers.{i}.out.1"]),)} for i in range(2)}
    weights = {f"layers_{i}": {"query": {"kernel": capture.parameters[f"layers.{i}.query.weight"].T, "bias": capture.parameters[f"layers.{i}.query.bias"]},
                               "norm": {"scale": capture.parameters[f"layers.{i}.norm.weight"]}} for i in range(2)}
    weights["conv"] = {"kernel": capture.parameters["conv.weight"].transpose(2, 3, 1, 0)}
    return {"params": weights, "intermediates": {**layer, "__call__": ({"hidden": capture["out.hidden"]},)}}


def test_flax_trees(encoder):
    tree = flax_tree(encoder)
    assert "intermediates/layers_0/__call__/0/1" in flat_names(tree)
    report = porting.compare(encoder, tree, names="flax", **PASSING)
    assert report.passed and report.num_compared == 7 + 2 * 4 + 1, str(report)
    tree["params"]["layers_1"]["query"]["kernel"] = tree["params"]["layers_1"]["query"]["kernel"].T  # square: only the values tell
    report = porting.compare(encoder, tree, names="flax", **PASSING)
    assert not report.passed and report.first_divergence.name == "param:layers.1.query.weight"


def test_zml_names(encoder):
    port = {"encoder.layers.0.query.out.0": 1, "layers.0.query.in.0": encoder["layers.0.query.in.0"], "layers.1.norm.out": encoder["layers.1.norm.out.0"]}
    del port["encoder.layers.0.query.out.0"]
    port["layers.0.query.out.0"] = encoder["layers.0.query.out.0"]
    report = porting.compare(encoder, port, names="zml", **PASSING)
    assert report.passed and report.num_compared == 2
    port["layers.1.norm.out"] = port["layers.1.norm.out"] + np.float32(1e-3)
    assert not porting.compare(encoder, port, names="zml", **PASSING).passed


def write(folder, text):
    path = folder / "names.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


FUSED = r"""
[[name]]
port = 'qn_(\d)'
ref = ['layers.\1.query.out.0', 'layers.\1.norm.out.0']
layout = "b s q+n -> b s q, b s n"
"""


def test_a_file_with_a_fused_tensor_and_modules_and_a_base(encoder, tmp_path):
    both = [np.concatenate([encoder[f"layers.{i}.query.out.0"], encoder[f"layers.{i}.norm.out.0"]], -1) for i in range(2)]
    port = {"qn_0": both[0], "qn_1": both[1], "body/top/out.0": encoder["layers.1.out.0"], "__call__": encoder["conv.out.0"]}
    path = write(tmp_path, 'base = "flax"\n' + FUSED + r"""
[[name]]
module = 'body\.top'
ref = 'layers.1'

[[name]]
port = '__call__'
ref = 'conv.out.0'
""")
    report = porting.compare(encoder, port, names=path, **PASSING)
    assert report.passed and report.num_compared == 6, str(report)
    port["qn_1"] = np.concatenate([both[1][..., 12:], both[1][..., :12]], -1)  # the two swapped
    report = porting.compare(encoder, port, names=path, **PASSING)
    refused = [row.name for row in report.rows if row.status == "compared" and not row.passed]
    assert refused == ["layers.1.query.out.0", "layers.1.norm.out.0"]


def test_several_tensors_of_the_port_for_one(encoder, tmp_path):
    x = encoder["layers.0.query.out.0"]
    port = {"a.0": x[..., :4], "b.0": x[..., 4:]}
    path = write(tmp_path, "[[name]]\nport = ['a\\.(\\d)', 'b\\.(\\d)']\nref = 'layers.\\1.query.out.0'\nlayout = 's t a, s t b -> s t a+b'\n")
    assert porting.compare(encoder, port, names=path, **PASSING).passed
    del port["b.0"]
    with pytest.raises(NamesError, match="nothing that fits"):
        porting.compare(encoder, port, names=path, **PASSING)


@pytest.mark.parametrize(("text", "words"), [
    ("[[name]]\nport = 'x'", "expected ref"),
    ("[[name]]\nport = 'x'\nmodule = 'y'\nref = 'z'", "one of port"),
    ("[[name]]\nport = 'x('\nref = 'z'", "not a regular expression"),
    ("[[name]]\nport = 'x'\nref = 'z.\\1'", "asks for group 1"),
    ("[[name]]\nport = 'x'\nref = 'z'\nlayout = 'a b'", "row 1: layout"),
    ("[[name]]\nport = 'x'\nref = 'z'\ncolour = 1", "unknown key colour"),
    ("[[name]]\nport = 'x'\nref = ['y', 'z']", "need a layout"),
    ("[[name]]\nport = 'x'\nref = ['y', 'z']\nlayout = 'a -> a'", "is of 1 tensors to 1"),
    ("[[name]]\nmodule = 'x'\nref = 'y'\nlayout = 'a -> a'", "no layout"),
    ("[[name]]\nport = 'x'\nref = 'y'\noptional = 3", "optional is true or false"),
    ("[[rewrite]]\npattern = 'x'", "pattern and with"),
    ("[[row]]\nport = 'x'", "got row"),
    ("name = 3", "written as [[name]]"),
    ("[[name]\n", "not a TOML file"),
    ("base = 'names.toml'", "is its own base"),
    ("base = 3", "base is one of"),
])
def test_files_that_cannot_be_read_are_refused_with_the_reason(tmp_path, text, words):
    with pytest.raises(NamesError, match=re.escape(words)):
        load(write(tmp_path, text))


@pytest.mark.parametrize(("rows", "words"), [
    ({"nothing_like_it": "layers.0.out.0"}, "matches none of the port's 2 names"),
    ({"first": "layers.0.query.out.0", "second": "layers.0.query.out.0"}, "both sent to layers.0.query.out.0"),
    ({"first|second": "layers.0.query.out.0"}, "both sent to"),
    ({"first": "layers.0.query.out.0", "second": "layers.1.query.out.0", "fir.*": "conv.out.0"}, "never reached: names, row 1"),
])
def test_maps_that_do_not_fit_the_port_are_refused_with_the_reason(encoder, rows, words):
    port = {"first": encoder["layers.0.query.out.0"], "second": encoder["layers.1.query.out.0"]}
    with pytest.raises(NamesError, match=re.escape(words)):
        porting.compare(encoder, port, names=rows, **PASSING)


def test_a_row_to_nowhere_is_a_row_of_the_report(encoder):
    port = {"first": encoder["layers.0.query.out.0"], "second": encoder["layers.1.query.out.0"]}
    report = porting.compare(encoder, port, names={"first": "layers.0.query.out.0", "second": "layers.1.qeury.out.0"}, **PASSING)
    extra, = (row for row in report.rows if row.status == "extra")
    assert extra.name == "second" and "layers.1.qeury.out.0, which the reference does not have; did you mean layers.1.query.out.0?" in extra.reason


def test_unknown_conventions_say_which_there_are(encoder):
    with pytest.raises(FileNotFoundError, match=r"flax, llama\.cpp, nnef, onnx, zml; did you mean llama\.cpp"):
        porting.compare(encoder, {"x": 1}, names="lama.cpp")
    with pytest.raises(NamesError, match="names takes"):
        porting.compare(encoder, {"x": 1}, names=3)


def test_a_module_with_other_names(encoder, tmp_path):
    class Port(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = Encoder().layers

    port = Port().eval()
    for i in range(2):
        port.blocks[i].load_state_dict({name.removeprefix(f"layers.{i}."): torch.from_numpy(np.array(x)) for name, x in encoder.parameters.items()
                                        if name.startswith(f"layers.{i}.")})
    path = write(tmp_path, "[[name]]\nmodule = 'blocks\\.(\\d)(.*)'\nref = 'layers.\\1\\2'\n")
    report = porting.compare(encoder, port, names=path, **PASSING)
    assert report.passed and report.num_compared >= 6
    port.blocks[1].norm.eps = 1e-2
    assert not porting.compare(encoder, port, names=path, **PASSING).passed
    functions = {"blocks.1.norm": port.blocks[1].norm}
    assert porting.compare(encoder, functions, names=path, **PASSING).first_divergence.name == "layers.1.norm.out.0"


def test_the_command_takes_names_layouts_and_writes_proposals(encoder, tmp_path, capsys):
    arrays = {"first": encoder["layers.0.query.out.0"].swapaxes(1, 2), "second": encoder["layers.1.query.out.0"].swapaxes(1, 2)}
    np.savez(tmp_path / "port.npz", **arrays)
    port, proposed = str(tmp_path / "port.npz"), str(tmp_path / "proposed.toml")
    assert main(["compare", encoder.path, port, "--propose", proposed]) == 2
    capsys.readouterr()
    assert main(["compare", encoder.path, port, "--names", proposed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_exact"] == 2
    rows = write(tmp_path, "[[name]]\nport = 'first'\nref = 'layers.0.query.out.0'\n[[name]]\nport = 'second'\nref = 'layers.1.query.out.0'\n")
    assert main(["compare", encoder.path, port, "--names", rows]) == 2  # another shape: nothing is compared
    assert main(["compare", encoder.path, port, "--names", rows, "--layout", "b c s -> b s c"]) == 0
    assert main(["compare", encoder.path, port, "--names", rows, "--layout", "*.query.out.0=b c s -> b s c"]) == 0
    assert main(["compare", encoder.path, port, "--names", rows, "--layout", "NCHW -> NHWC"]) == 2
    assert "no tensor of the port has 4 axes" in capsys.readouterr().err


pytest_plugins = ["pytester"]


def test_the_plugin_takes_names(encoder, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(porting.__file__).parent.parent))
    plugin = () if any(e.name == "porting" for e in entry_points(group="pytest11")) else ("-p", "porting.pytest_plugin")
    np.savez(pytester.path / "port.npz", first=encoder["layers.0.query.out.0"], second=encoder["layers.1.query.out.0"])
    write(pytester.path, "[[name]]\nport = 'first'\nref = 'layers.0.query.out.0'\n[[name]]\nport = 'second'\nref = 'layers.1.query.out.0'\n")
    arguments = [f"--porting-ref={encoder.path}", "--porting-port=port.npz", "--porting-names=names.toml", "-k", "query", "-p", "no:cacheprovider", *plugin]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2)
    np.savez(pytester.path / "port.npz", first=encoder["layers.0.query.out.0"], second=encoder["layers.0.query.out.0"])
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1, failed=1)
