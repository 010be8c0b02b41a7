"""The C example: built as its README says, run on the capture of a tiny random Llama, judged by `porting compare`."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import porting
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The built example."""
    build = tmp_path_factory.mktemp("c_mlp")
    command = ["make", "-s", "-C", str(ROOT / "examples/c_mlp"), f"BUILD={build}", "CFLAGS=-O2 -Werror"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(build / "c_mlp")


def porting_command(*args):
    return subprocess.run([sys.executable, "-m", "porting", *args], capture_output=True, text=True)


def test_the_port_passes(program, llama_capture, tmp_path):
    port = str(tmp_path / "port.capture")
    done = subprocess.run([program, llama_capture, port], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 calls of model.layers.0.mlp" in done.stdout
    written, reference = porting.open(port), porting.open(llama_capture)
    assert list(written) == ["model.layers.0.mlp.out.0"] + [f"model.layers.0.mlp@{k}.out.0" for k in (1, 2, 3)]
    for name in written:
        np.testing.assert_allclose(written[name], reference[name], rtol=2e-5, atol=2e-6)
    judged = porting_command("compare", llama_capture, port)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_a_wrong_activation_is_refused(program, llama_capture, tmp_path):
    port = str(tmp_path / "broken.capture")
    assert subprocess.run([program, "--break", llama_capture, port], capture_output=True).returncode == 0
    judged = porting_command("compare", llama_capture, port)
    assert judged.returncode == 1, judged.stdout + judged.stderr
    assert "model.layers.0.mlp" in judged.stdout


def test_an_incomplete_port_fails_where_coverage_is_required(program, llama_capture, tmp_path):
    port = str(tmp_path / "port.capture")
    assert subprocess.run([program, llama_capture, port], capture_output=True).returncode == 0
    assert porting_command("compare", llama_capture, port, "--require-coverage").returncode == 1


@pytest.mark.parametrize("arguments, sentence", [
    (["nowhere.capture", "out.capture"], "nowhere.capture"),
    (["CAPTURE", "out.capture", "model.layers.9.mlp"], "model.layers.9.mlp"),
    (["CAPTURE", "out.capture", "model.layers.0.self_attn"], "gate_proj"),
    (["CAPTURE", "CAPTURE"], "llama.capture"),
    (["CAPTURE"], "usage"),
])
def test_bad_arguments_get_one_sentence(program, llama_capture, tmp_path, arguments, sentence):
    arguments = [llama_capture if a == "CAPTURE" else a for a in arguments]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and len(done.stderr.strip().splitlines()) == 1
