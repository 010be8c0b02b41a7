"""A run that is killed with SIGKILL: the root calls that had returned can be run again, with the programs written so far."""
import json
import os
import signal
import subprocess
import sys

import porting
import pytest

SCRIPT = """
import sys, time, torch, porting
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                                     vocab_size=50, eos_token_id=None)).eval()
model.model.norm.register_forward_hook(lambda *a: stop())
calls = 0
def stop():
    global calls
    calls += 1
    if calls == 5:
        run.writer.flush()
        print("now", flush=True)
        time.sleep(60)
collector = porting.ActivationCollector(model, sys.argv[1], level=sys.argv[2])
with collector:
    run = collector._run
    model.generate(torch.arange(6)[None], max_new_tokens=8, do_sample=False, pad_token_id=0)
"""


@pytest.fixture(scope="module", params=["module", "op"])
def killed(request, tmp_path_factory):
    """A capture whose process was killed in the fifth call of its root."""
    path = tmp_path_factory.mktemp("killed") / "run.capture"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), request.param], stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not (path / "program.json").exists()
    return path


def test_the_calls_that_returned_are_run_again(killed):
    with pytest.warns(RuntimeWarning, match="never finished"), porting.open(killed) as capture:
        assert [program.calls[:4] for program in capture.programs] in ([[0], [1, 2, 3]], [[0], [1, 2, 3, 4]])
        report = porting.check(capture)
        whole = [row for row in report.rows if row.step < 4]
        assert whole and all(row.status == "compared" and row.passed for row in whole), report.to_text()
        last = [row for row in report.rows if row.step == 4]  # killed inside: what had returned may be run, the root did not return
        assert {row.status for row in last} <= {"compared", "no program", "dropped"} and not report.passed
        assert [row.status for row in last if row.module == capture.root] == ["dropped"] and all(row.passed for row in last if row.status == "compared")
        assert porting.run(capture, 3).outputs["logits"].shape == (1, 1, 50)


def test_programs_that_are_cut_short_or_wrong(killed, tmp_path):
    from porting import FormatError
    from porting.program import load

    lines = (killed / "program.jsonl").read_bytes().splitlines(keepends=True)
    assert [next(iter(json.loads(line))) for line in lines][:4] == ["program", "program", "replace", "attach"]
    (tmp_path / "program.jsonl").write_bytes(b"".join(lines[:4])[:-3])
    assert [program.calls for program in load(tmp_path / "program.json")] == [[0], [1, 2]]
    for wrong in (b"{}\n", b"[]\n", b"no\n", b'{"attach": 2, "call": 1, "symbols": []}\n', b'{"attach": -1, "call": 1, "symbols": []}\n', b'{"replace": 0}\n'):
        (tmp_path / "program.jsonl").write_bytes(b"".join(lines[:2]) + wrong)
        with pytest.raises(FormatError, match="program.jsonl: line 3"):
            load(tmp_path / "program.json")


def test_a_repaired_capture_keeps_them(killed):
    porting.repair(str(killed))
    with porting.open(killed) as capture:
        assert capture.finished and len(capture.programs) == 2 and porting.check(capture, include="model.layers.0.mlp").num_exact >= 4


def test_a_closed_capture_has_one_file(tmp_path):
    import torch

    _, capture = porting.ActivationCollector(torch.nn.Linear(3, 3), tmp_path / "a")(torch.randn(2, 3))
    capture.close()
    assert (tmp_path / "a" / "program.json").exists() and not (tmp_path / "a" / "program.jsonl").exists()
