"""`porting capture script.py`: the script runs as if nothing watched it, and every root that it calls is captured."""
import os
import subprocess
import sys

import numpy as np
import porting
import pytest
import torch
from cli_model import MODEL


def write(folder, text, name="script.py"):
    (folder / name).write_text(text, encoding="utf-8")
    return name


def test_names_and_values_are_those_of_the_run(tmp_path, run_porting):
    write(tmp_path, MODEL + """
import sys
assert sys.argv == ["script.py", "--size", "3"], sys.argv
import os, pickle
assert __name__ == "__main__" and __file__ == os.path.abspath("script.py") and sys.path[0] == os.getcwd()
assert type(pickle.loads(pickle.dumps(model))) is Model
x = torch.randn(2, int(sys.argv[2]), 8)
with torch.no_grad():
    y = model(x)
    model(y)
torch.save({"x": x, "y": y}, "truth.pt")
print("the script's own words")
""")
    done = run_porting("capture", "-o", "run.capture", "script.py", "--size", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the script's own words\n"
    import torch

    truth = torch.load(tmp_path / "truth.pt")
    capture = porting.open(tmp_path / "run.capture")
    np.testing.assert_array_equal(capture["in.0"], truth["x"].numpy())
    np.testing.assert_array_equal(capture["out.0"], truth["y"].numpy())
    np.testing.assert_array_equal(capture["layers.0@1.in.0"], truth["y"].numpy())
    assert len(capture.calls("layers.1.fc")) == 2 and list(capture.steps) == [0, 1]
    plain = subprocess.run([sys.executable, "script.py", "--size", "3"], cwd=tmp_path, capture_output=True)
    again = torch.load(tmp_path / "truth.pt")
    assert plain.returncode == 0 and all(torch.equal(truth[k], again[k]) for k in truth), "watching must not change a bit"


def test_several_roots_get_captures_of_their_own(tmp_path, run_porting):
    write(tmp_path, MODEL + """
with torch.no_grad():
    y = model(torch.randn(1, 2, 8))
    torch.nn.functional.relu(y)
    torch.nn.Linear(8, 2)(y)
    torch.nn.Linear(8, 3)(y)
    model(y)
""")
    done = run_porting("capture", "-o", "run.capture", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    captures = {p.name: porting.open(p) for p in tmp_path.glob("*.capture")}
    assert sorted(captures) == ["run.Linear.capture", "run.Linear2.capture", "run.capture"]
    assert captures["run.Linear.capture"]["out.0"].shape == (1, 2, 2)
    assert captures["run.Linear2.capture"]["out.0"].shape == (1, 2, 3)
    assert list(captures["run.capture"].steps) == [0, 1]
    assert all(c.finished for c in captures.values())
    assert "Linear -> run.Linear.capture" in done.stderr


def test_a_part_that_is_called_first_by_its_owner_belongs_to_the_owner(tmp_path, run_porting):
    write(tmp_path, MODEL + """
class Owner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = model
    def forward(self, x):
        return self.encoder(x)
    def generate(self, x):
        return self(self.encoder(x))
with torch.no_grad():
    Owner().generate(torch.randn(1, 2, 8))
""")
    done = run_porting("capture", "-o", "run.capture", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    capture = porting.open(tmp_path / "run.capture")
    assert len(capture.calls("encoder")) == 2 and len(capture.calls("encoder.layers.0.fc")) == 2
    assert len(list(tmp_path.glob("*.capture"))) == 1


def test_options_reach_the_collector(tmp_path, run_porting):
    write(tmp_path, MODEL + """
with torch.no_grad():
    for i in range(4):
        print("call", i, flush=True)
        model(torch.randn(1, 2, 8))
""")
    done = run_porting("capture", "-o", "a.capture", "--stop-after-first-step", "--include", r"fc$", "--include", "norm", "--exclude",
                       "^layers.1", "--program", "none", "--weights", "none", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "call 0\ncall 1\n"
    capture = porting.open(tmp_path / "a.capture")
    assert sorted(capture) == [f"layers.0.{m}.{p}.0" for m in ("fc", "norm") for p in ("in", "out")]
    assert not (tmp_path / "a.capture/program.json").exists()
    done = run_porting("capture", "--max-layers", "1", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    capture = porting.open(tmp_path / "script.capture")
    assert "layers.0.out.0" in capture and "layers.1.out.0" not in capture


def test_a_script_that_raises_keeps_its_traceback_and_its_capture(tmp_path, run_porting):
    write(tmp_path, MODEL + """
def hook(module, args):
    if args[0].shape[1] == 7:
        raise KeyError("seven")
model.layers[1].register_forward_pre_hook(hook)
with torch.no_grad():
    model(torch.randn(1, 2, 8))
    model(torch.randn(1, 7, 8))
""")
    done = run_porting("capture", "-o", "run.capture", "script.py", cwd=tmp_path)
    assert done.returncode == 1
    plain = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert plain.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n") and "KeyError: 'seven'" in done.stderr
    assert "runner.py" not in done.stderr and "runpy" not in done.stderr
    lines = [line for line in plain.stderr.splitlines() if 'script.py"' in line]
    assert [os.path.basename(line) for line in done.stderr.splitlines() if 'script.py"' in line] == list(map(os.path.basename, lines))
    capture = porting.open(tmp_path / "run.capture")
    assert {"out.0", "layers.0.out.0", "layers.0@1.out.0"} <= set(capture) and "layers.1@1.out.0" not in capture


@pytest.mark.parametrize("ending, code, words", [
    ("sys.exit(3)", 3, ""),
    ("sys.exit('no luck')", 1, "no luck"),
    ("sys.exit()", 0, ""),
    ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
])
def test_the_exit_code_is_the_scripts(tmp_path, run_porting, ending, code, words):
    write(tmp_path, MODEL + f"import sys\nmodel(torch.randn(1, 2, 8))\n{ending}\n")
    done = run_porting("capture", "-o", "run.capture", "script.py", cwd=tmp_path)
    assert done.returncode == code and words in done.stderr
    capture = porting.open(tmp_path / "run.capture")
    assert capture.finished and "out.0" in capture


def test_nothing_captured_is_trouble(tmp_path, run_porting):
    write(tmp_path, "print('hello')\n")
    done = run_porting("capture", "script.py", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "hello\n"
    assert "called no torch.nn.Module" in done.stderr
    write(tmp_path, MODEL + "model(torch.randn(1, 2, 8))\nprint('done')\n")
    done = run_porting("capture", "--include", "attention", "script.py", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "done\n"
    assert "Model was not captured: no module is selected" in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["missing.py"], "missing.py: no such script"),
    (["."], "expected a Python script, got a folder"),
    (["-o", "there", "script.py"], "there: exists already"),
    (["--include", "(", "script.py"], "'(' is not a regular expression"),
])
def test_mistakes_are_told_before_the_script_runs(tmp_path, run_porting, arguments, words):
    write(tmp_path, "print('ran')\n")
    (tmp_path / "there").mkdir()
    done = run_porting("capture", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("output, words", [("script.py/run.capture", "script.py is not a folder"), ("/proc/nowhere/run.capture", "cannot be made in /proc")])
def test_a_place_that_cannot_be_written_is_refused_before_the_script_runs(tmp_path, run_porting, output, words):
    write(tmp_path, "open('ran', 'w').close()")
    done = run_porting("capture", "-o", output, "script.py", cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists() and [p.name for p in tmp_path.iterdir()] == ["script.py"]
    with pytest.raises(OSError, match=words):
        porting.ActivationCollector(torch.nn.Linear(2, 2), tmp_path / output)


def test_folders_of_a_capture_are_made(tmp_path, run_porting):
    write(tmp_path, MODEL + "model(torch.randn(1, 2, 8))")
    assert run_porting("capture", "-o", "new/folders/run.capture", "script.py", cwd=tmp_path).returncode == 0
    assert len(porting.open(tmp_path / "new" / "folders" / "run.capture")) > 2
