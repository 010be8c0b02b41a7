"""check(): every module of a real captured model in C; what cannot be run is said and never passes."""
import json
import os
import subprocess
import sys

import numpy as np
import porting.capture
import pytest
import torch
from porting import PortingError
from porting.check import check
from porting.hooks import ActivationCollector
from porting.judging import linear_condition
from transformers import LlamaConfig, LlamaForCausalLM


class Extras(torch.nn.Module):
    """A module with None outputs, integers, a module that is called twice, and a convolution."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.LayerNorm(6)
        self.nothing = Nothing()
        self.pick = Pick()

    def forward(self, x):
        y = self.norm(self.norm(self.conv(x)))
        self.nothing(y)
        return y, self.pick(y)


class Nothing(torch.nn.Module):
    def forward(self, x):
        return None


class Pick(torch.nn.Module):
    def forward(self, x):
        return x.argmax(-1)


class Strange(torch.nn.Module):
    """An op that has no kernel."""

    def __init__(self):
        super().__init__()
        self.good = torch.nn.Linear(8, 8)
        self.bad = Airy()

    def forward(self, x):
        return self.bad(self.good(x))


class Airy(torch.nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)


def capture(model, path, *args, **options):
    with torch.no_grad():
        _, activations = ActivationCollector(model.eval(), path, **options)(*args)
    activations.close()
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                         vocab_size=101, attn_implementation="sdpa"))
    return capture(model, tmp_path_factory.mktemp("llama") / "a", torch.randint(0, 101, (2, 9)))


def test_every_module_of_a_llama(llama):
    seen = []
    report = check(llama, progress=lambda *at: seen.append(at))
    assert report.passed, report.to_text()
    assert report.coverage == 1.0 and report.num_checked == report.num_calls == len({(r.module, r.call) for r in report.rows})
    assert {r.status for r in report.rows} == {"compared"}
    assert report.num_exact > report.num_calls // 3
    assert seen[-1][0] == seen[-1][1] == report.num_calls and len(seen) == report.num_calls + 1
    kinds = {r.module.rsplit(".", 1)[-1]: r.kind for r in report.rows}
    assert kinds["q_proj"] == "linear" and kinds["embed_tokens"] == "embedding" and kinds["input_layernorm"] == "rms_norm"
    order = [r.module for r in report.rows]
    assert order.index("model.layers.0.mlp") < order.index("model.layers.0") < order.index("model.layers.1.mlp") < order.index("model")
    text = report.to_text()
    assert f"{report.num_calls} of {report.num_calls} module calls checked" in text and "coverage 100 %" in text
    assert "torch 2" in text and "capability" in text and "reference" in text
    assert len(text.splitlines()) < 40 < len(report.to_text(all_rows=True).splitlines()) + 20
    json.loads(report.to_json(), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


def test_without_a_library_it_stays_within_bound(llama):
    report = check(llama, provider="reference", include=["model.layers.0*"])
    assert report.passed and all(r.module.startswith("model.layers.0") for r in report.rows)
    assert report.num_calls == len({(r.module, r.call) for r in report.rows})


def test_include_that_names_nothing(llama):
    with pytest.raises(PortingError, match="no captured module matches 'encoder"):
        check(llama, include="encoder.*")


def test_a_changed_weight_is_found_where_it_is(tmp_path):
    """One stored weight of the second linear layer is overwritten: the captured outputs are no longer what the program gives."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 4), torch.nn.ReLU())
    path = capture(model, tmp_path / "a", torch.randn(5, 16))
    assert check(path).passed
    with porting.capture.open(path) as reference:
        info = reference.info("param:2.weight")
        segment, offset = (info.segment, info.offset) if hasattr(info, "segment") else info[5:7]
    with open(path / "rank00000" / f"seg-{segment:05d}.safetensors", "r+b") as file:
        file.seek(offset)
        value = np.frombuffer(file.read(4), "f4") * np.float32(1.001)
        file.seek(offset)
        file.write(value.tobytes())
    report = check(path)
    assert not report.passed and report.first_divergence.module == "2" and report.last_good.module == "1"
    assert report.num_failed == 2 and "first divergence: 2.out.0" in report.to_text()  # the layer and the root, not the ReLU after it


def test_none_integers_and_second_calls(tmp_path):
    torch.manual_seed(0)
    report = check(capture(Extras(), tmp_path / "a", torch.randn(2, 3, 6, 6)))
    status = {(r.module, r.call): r for r in report.rows}
    assert status["nothing", 0].status == "empty" and "nothing to compare" in status["nothing", 0].reason
    assert ("norm", 1) in status and status["norm", 0].kind == "layer_norm"
    assert report.num_empty == 1 and "1 without a tensor to compare" in report.summary
    for row in report.rows:
        assert row.status in ("compared", "empty", "unsupported") and (row.status != "compared" or row.passed), row


def test_an_op_without_a_kernel_is_named_and_never_passes(tmp_path):
    torch.manual_seed(0)
    report = check(capture(Strange(), tmp_path / "a", torch.randn(3, 8)))
    rows = {r.module: r for r in report.rows}
    assert rows["good"].status == "compared" and rows["good"].passed
    for name in ("bad", ""):
        assert rows[name].status == "unsupported" and "airy_ai" in rows[name].reason and not rows[name].passed
    assert not report.passed and report.coverage == pytest.approx(1 / 3) and report.first_divergence is None
    assert "unsupported" in report.to_text() and "FAILED" in report.to_text()
    assert report.to_text().splitlines()[-1] == "failed because 2 module calls could not be checked: 2 with an op without a kernel"


def test_without_a_program_nothing_is_covered(tmp_path):
    torch.manual_seed(0)
    report = check(capture(torch.nn.Linear(4, 4), tmp_path / "a", torch.randn(3, 4), program=False))
    assert not report.passed and report.coverage == 0 and {r.status for r in report.rows} == {"no program"}
    last = report.to_text().splitlines()[-1]
    assert last == f"failed because nothing could be checked: {report.rows[0].reason}" and "no program" in last, last


def test_the_scale_of_a_linear_module_from_its_program(llama):
    reference = porting.capture.open(llama)
    call = reference.calls("model.layers.0.mlp.down_proj")[0]
    scale, terms = linear_condition(reference, call, "0", "auto")
    x, w = call.inputs["0"], reference.parameters["model.layers.0.mlp.down_proj.weight"]
    assert terms == 128 and scale == pytest.approx(np.abs(x).astype("f8") @ np.abs(w).T.astype("f8"), rel=1e-5)
    reference.close()


def test_paths_that_are_no_capture(tmp_path):
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nowhere")
    with pytest.raises(PortingError):
        check(tmp_path)
    with pytest.raises(PortingError, match="path of one"):
        check(3)


IN_A_PROCESS = """
import sys
import porting
assert "porting.providers" not in sys.modules and "ctypes" not in sys.modules, "import porting looked for a provider"
report = porting.check(sys.argv[1], include=sys.argv[2])
print(report.environment["provider"], report.passed, "torch" in sys.modules, *report.warnings)
"""


def in_a_process(path, include, **environment):
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, str(path), include], env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchs_own_products_are_taken_without_a_word(llama, tmp_path):
    """An installed torch is found and used but not imported; a broken one is a warning; without one there is neither."""
    assert in_a_process(llama, "*q_proj") == "torch True False"
    broken = tmp_path / "broken" / "torch"
    (broken / "lib").mkdir(parents=True)
    (broken / "__init__.py").write_text("")
    (broken / "lib" / "libtorch_cpu.so").write_bytes(b"not a library")
    paths = os.pathsep.join([str(broken.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    said = in_a_process(llama, "*q_proj", PYTHONPATH=paths)
    assert said.startswith(("openblas True False", "reference True False")) and "torch's matrix products cannot be used" in said
    (broken / "lib" / "libtorch_cpu.so").unlink()
    assert in_a_process(llama, "*q_proj", PYTHONPATH=paths) in ("openblas True False", "reference True False")


def test_a_provider_that_is_not_there(llama):
    assert check(llama, provider="reference", include="*q_proj").environment["provider"] == "reference"
    with pytest.raises(PortingError, match="no provider is called mkl; there are auto, "):
        check(llama, provider="mkl")
