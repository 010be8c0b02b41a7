"""The commands that look at captures and judge them: what they print, and their exit codes."""
import json
import shutil

import numpy as np
import porting
import pytest
from cli_model import MODEL
from porting.cli import commands


def good(done):
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(done, *words):
    """Exit code 2 and one sentence that holds the words."""
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    return done.stderr


def test_ls_lists_names_dtypes_shapes(captured, run_porting):
    lines = good(run_porting("ls", "run.capture", cwd=captured)).splitlines()
    capture = porting.open(captured / "run.capture")
    assert [line.split()[0] for line in lines] == list(capture)
    line = next(line for line in lines if line.startswith("layers.0.fc.in.0 "))
    assert line.split(maxsplit=2)[1:] == ["float32", "(2, 3, 8)"]
    assert [line.split()[0] for line in good(run_porting("ls", "run.capture", "layers.?.norm.out.*", cwd=captured)).splitlines()] == [
        "layers.0.norm.out.0", "layers.1.norm.out.0", "layers.0.norm@1.out.0", "layers.1.norm@1.out.0"]
    rows = json.loads(good(run_porting("ls", "run.capture", "norm.out", "--json", cwd=captured)))
    assert {"name": "layers.1.norm.out.0", "dtype": "float32", "shape": [2, 3, 8], "bytes": 192} in rows and len(rows) == 4
    names = [line.split()[0] for line in good(run_porting("ls", "run.capture", "*.0.fc.in.0", cwd=captured)).splitlines()]
    assert names == ["layers.0.fc.in.0", "layers.0.fc@1.in.0"]
    assert good(run_porting("ls", "run.capture", "layers.0.fc@1.in.*", cwd=captured)).split()[0] == "layers.0.fc@1.in.0"
    of_any_root = good(run_porting("ls", "run.capture", "*.layers.0.fc.in.0", cwd=captured))  # the root has no name: "*." is for that, too
    assert [line.split()[0] for line in of_any_root.splitlines()] == names
    refused(run_porting("ls", "run.capture", "*.layer.0.fc.in.0", cwd=captured), "none of", "did you mean layers.0.fc.in.0")
    refused(run_porting("ops", "no_such_op", cwd=captured), "no kernel's name matches no_such_op")
    modules = good(run_porting("ls", "--modules", "run.capture", cwd=captured))
    assert "layers.0.fc" in modules and "2 calls" in modules


def test_show_tells_a_tensors_facts(captured, run_porting):
    facts = json.loads(good(run_porting("show", "run.capture", "layers.0.fc.out.0", "-n", "3", "--json", cwd=captured)))
    array = porting.open(captured / "run.capture")["layers.0.fc.out.0"]
    assert facts["shape"] == [2, 3, 8] and facts["nan"] == 0
    assert facts["first"] == array.reshape(-1)[:3].astype(float).tolist()
    assert facts["mean"] == pytest.approx(array.astype(float).mean()) and facts["max"] == array.max()
    assert "float32" in good(run_porting("show", "run.capture", "layers.0.fc.out.0", cwd=captured))


def test_show_tells_a_modules_calls(captured, run_porting):
    text = good(run_porting("show", "run.capture", "layers.0", cwd=captured))
    assert "Block, 2 calls" in text and "hidden" in text and "layers.0@1.out.0" in text
    facts = json.loads(good(run_porting("show", "run.capture", "layers.0", "--json", cwd=captured)))
    assert [call["step"] for call in facts["calls"]] == [0, 1]
    assert facts["calls"][1]["inputs"][0]["shape"] == [2, 5, 8]


def test_parameters_are_listed_and_shown(captured, run_porting, tmp_path):
    lines = good(run_porting("ls", "run.capture", "fc.weight", "--parameters", cwd=captured)).splitlines()
    assert [line.split()[0] for line in lines] == ["param:layers.0.fc.weight", "param:layers.1.fc.weight"]
    for name in ("layers.0.fc.weight", "param:layers.0.fc.weight"):
        facts = json.loads(good(run_porting("show", "run.capture", name, "--json", cwd=captured)))
        assert facts["name"] == "param:layers.0.fc.weight" and facts["shape"] == [8, 8]
    bare = tmp_path / "bare.capture"
    assert run_porting("capture", "-o", bare, "--weights", "none", captured / "script.py", cwd=tmp_path).returncode == 0
    for arguments in (["ls", "bare.capture", "--parameters"], ["show", "bare.capture", "layers.0.fc.weight"]):
        refused(run_porting(*arguments, cwd=tmp_path), "made without weights (weights=False / --weights none)")
    done = run_porting("check", "bare.capture", cwd=tmp_path)
    assert "nothing could be checked: " in done.stderr and "made without weights" in done.stderr and "the port" not in done.stdout
    assert done.returncode == 2 and "weight, but the capture was made without weights" in done.stdout, done.stdout


@pytest.mark.parametrize("array, expected", [
    (np.array([1.0, np.nan, -np.inf, 0.0], np.float32), {"nan": 1, "inf": 1, "zeros": 1, "min": 0.0, "max": 1.0, "mean": 0.5}),
    (np.array([[2, -3]], np.int64), {"nan": 0, "inf": 0, "zeros": 0, "min": -3, "max": 2, "first": [2, -3]}),
    (np.array([True, False]), {"first": [True, False]}),
    (np.zeros((0, 4), np.float32), {"elements": 0}),
    (np.float32(7).reshape(()), {"shape": [], "first": [7.0]}),
])
def test_facts_of_odd_tensors(array, expected):
    facts = commands.tensor_facts(array, 4)
    assert {key: facts[key] for key in expected} == expected
    json.dumps(facts, allow_nan=False)


def test_facts_of_half_floats():
    import ml_dtypes

    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16):
        facts = commands.tensor_facts(np.array([0.5, -2, 0], dtype), 3)
        assert facts["first"] == [0.5, -2.0, 0.0] and facts["min"] == -2.0 and facts["zeros"] == 1


def test_check_passes_a_capture_and_says_so(captured, run_porting, tmp_path):
    done = run_porting("check", "run.capture", "--html", tmp_path / "r.html", cwd=captured)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    report = json.loads(good(run_porting("check", "run.capture", "--json", "--provider", "reference", "--include", "*.fc", cwd=captured)))
    assert report["passed"] is True and {row["module"] for row in report["rows"]} == {"layers.0.fc", "layers.1.fc"}


def test_compare_tells_same_from_different(captured, run_porting, tmp_path):
    assert run_porting("compare", "run.capture", "run.capture", "--require-coverage", cwd=captured).returncode == 0
    for mode in ("isolated", "chained", "both"):
        assert run_porting("compare", "run.capture", "run.capture", "--mode", mode, cwd=captured).returncode == 0
    assert run_porting("compare", "run.capture", "run.capture", "--mode", "sideways", cwd=captured).returncode == 2
    arrays = dict(porting.open(captured / "run.capture"))
    np.savez(tmp_path / "same.npz", **arrays)
    assert run_porting("compare", "run.capture", tmp_path / "same.npz", cwd=captured).returncode == 0
    wrong = dict(arrays)
    wrong["layers.1.fc.out.0"] = wrong["layers.1.fc.out.0"] * np.float32(1.01)
    np.savez(tmp_path / "wrong.npz", **wrong)
    done = run_porting("compare", "run.capture", tmp_path / "wrong.npz", "--html", tmp_path / "wrong.html", cwd=captured)
    assert done.returncode == 1 and "layers.1.fc" in done.stdout, done.stdout + done.stderr
    assert "layers.1.fc.out.0" in (tmp_path / "wrong.html").read_text(encoding="utf-8")
    np.savez(tmp_path / "part.npz", **{"layers.1.fc.out.0": arrays["layers.1.fc.out.0"]})
    assert run_porting("compare", "run.capture", tmp_path / "part.npz", cwd=captured).returncode == 0
    assert run_porting("compare", "run.capture", tmp_path / "part.npz", "--require-coverage", cwd=captured).returncode == 1
    np.savez(tmp_path / "other.npz", unrelated=np.zeros(3, np.float32))
    done = run_porting("compare", "run.capture", tmp_path / "other.npz", cwd=captured)
    assert done.returncode == 2 and "no tensor in common" in done.stderr


@pytest.mark.parametrize("name", ["all.npz", "all.safetensors", "all.pt"])
def test_export_writes_what_others_read(captured, run_porting, tmp_path, name):
    good(run_porting("export", "run.capture", tmp_path / name, cwd=captured))
    if name.endswith("npz"):
        read = dict(np.load(tmp_path / name))
    elif name.endswith("safetensors"):
        from safetensors.numpy import load_file

        read = load_file(tmp_path / name)
    else:
        import torch

        read = {key: value.numpy() for key, value in torch.load(tmp_path / name).items()}
    refused(run_porting("export", "run.capture", tmp_path / name, cwd=captured), "exists already", "or --overwrite")
    good(run_porting("export", "run.capture", tmp_path / name, "--overwrite", cwd=captured))
    capture = porting.open(captured / "run.capture")
    capture.save(tmp_path / "new" / "folders" / name)
    sizes = [file.stat().st_size for file in (tmp_path / "new" / "folders" / name, tmp_path / name)]
    assert abs(sizes[0] - sizes[1]) <= (64 if name.endswith("pt") else 0)  # torch.save writes a hash in decimal, of 19 digits or fewer
    with pytest.raises(NotADirectoryError, match=f"cannot be made: .*{name} is not a folder: '.*{name}/x/{name}'$"):
        capture.save(tmp_path / name / "x" / name)
    assert set(read) == set(capture)
    assert all(np.array_equal(read[key], capture[key]) for key in read)


def test_verify_finds_a_changed_byte(captured, run_porting, tmp_path):
    good(run_porting("verify", "run.capture", cwd=captured))
    shutil.copytree(captured / "run.capture", tmp_path / "bad.capture")
    segment = next((tmp_path / "bad.capture").glob("rank00000/seg-*"))
    data = bytearray(segment.read_bytes())
    data[-5] ^= 1
    segment.write_bytes(data)
    refused(run_porting("verify", "bad.capture", cwd=tmp_path), "bad.capture")


def test_a_capture_of_a_process_that_died_is_shown_and_repaired(run_porting, tmp_path):
    (tmp_path / "dies.py").write_text(MODEL + "import os, time\nmodel(torch.randn(1, 2, 8))\nmodel(torch.randn(1, 2, 8))\ntime.sleep(2)\nos._exit(9)\n", encoding="utf-8")
    assert run_porting("capture", "-o", "run.capture", "dies.py", cwd=tmp_path).returncode == 9
    done = run_porting("ls", "run.capture", cwd=tmp_path)
    assert done.returncode == 0 and "layers.0.norm.in.0" in done.stdout
    assert "was never finished" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    done = run_porting("compare", "run.capture", "run.capture", cwd=tmp_path)
    assert done.returncode == 0 and [line.startswith("porting: run.capture was never") for line in done.stderr.splitlines()] == [True] * 2
    done = run_porting("repair", "run.capture", "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["records"] > 10, done.stderr
    assert "layers.0.norm.in.0" in good(run_porting("ls", "run.capture", cwd=tmp_path))


def test_a_finished_capture_that_was_cut_short_is_refused_until_it_is_repaired(captured, run_porting, tmp_path):
    shutil.copytree(captured / "run.capture", tmp_path / "cut.capture")
    journal = tmp_path / "cut.capture/rank00000/journal.bin"
    journal.write_bytes(journal.read_bytes()[:-500])
    for command in ("ls", "check", "verify"):
        refused(run_porting(command, "cut.capture", cwd=tmp_path), "cut.capture")
    assert "records kept" in good(run_porting("repair", "cut.capture", cwd=tmp_path))
    assert "layers.0.norm.in.0" in good(run_porting("ls", "cut.capture", cwd=tmp_path))


def test_config_says_what_computes(captured, run_porting):
    facts = json.loads(good(run_porting("config", "--json", cwd=captured)))
    assert "reference" in facts["providers"] and facts["auto"] == "torch" and "sgemm" in facts["torch functions"]
    lines = good(run_porting("config", cwd=captured)).splitlines()
    assert "auto torch" in [" ".join(line.split()) for line in lines] and not any(line.endswith(("{}", "[]")) for line in lines)


@pytest.mark.parametrize("command", [["ls"], ["show", "out.0"], ["check"], ["compare"], ["export", "x.npz"], ["verify"], ["repair"]])
def test_what_is_no_capture_is_refused_in_one_sentence(run_porting, tmp_path, command):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text", encoding="utf-8")
    for path in ("missing", "folder", "file"):
        rest = command[1:] or (["folder"] if command[0] == "compare" else [])
        refused(run_porting(command[0], path, *rest, cwd=tmp_path), path)


def test_an_unknown_option_shows_the_usage_of_its_command(run_porting, tmp_path):
    done = run_porting("check", "run.capture", "--jsn", cwd=tmp_path)
    assert done.returncode == 2 and "usage: porting check " in done.stderr and "porting check: error: unrecognized arguments: --jsn" in done.stderr


def test_an_unknown_name_gets_a_suggestion(captured, run_porting):
    refused(run_porting("show", "run.capture", "layers.0.fcc.out.0", cwd=captured), "did you mean", "layers.0.fc.out.0")
    refused(run_porting("ls", "run.capture", "layers.0.nrm.out.0", cwd=captured), "did you mean")
    refused(run_porting("check", "run.capture", "--include", "attention", cwd=captured), "attention")


@pytest.mark.parametrize("arguments, words", [
    (["export", "run.capture", "x.zip"], ".safetensors, .npz, .pt"),
    (["export", "run.capture", "run.capture/MANIFEST.json/x.npz"], "x.npz: cannot be made: "),
    (["export", "run.capture", "/proc/nowhere/x.npz"], "x.npz: cannot be made in /proc: "),
    (["compare", "run.capture", "missing"], "missing: no such file"),
    (["check", "run.capture", "--html", "run.capture/MANIFEST.json/x.html"], "MANIFEST.json is not a folder"),
    (["check", "run.capture", "--html", "run.capture"], "run.capture: expected the name of a file to write, got a folder"),
    (["check", "run.capture", "--ledger", "gone.lock", "--html", "never.html"], "gone.lock: no such ledger"),
    (["fixture", "run.capture", "layers.0.fc", "-o", "run.capture/MANIFEST.json/f"], "MANIFEST.json is not a folder"),
    (["check", "run.capture", "--tol", "sloppy"], "sloppy"),
    (["check", "run.capture", "--provider", "abacus"], "abacus"),
])
def test_bad_arguments_are_refused_in_one_sentence(captured, run_porting, arguments, words):
    refused(run_porting(*arguments, cwd=captured), words)
    assert not (captured / "never.html").exists()


def test_folders_that_are_not_there_are_made(captured, run_porting, tmp_path):
    html, lock = tmp_path / "reports" / "today" / "r.html", tmp_path / "locks" / "porting.lock"
    good(run_porting("check", "run.capture", "--html", html, "--ledger", lock, "--update", cwd=captured))
    assert html.stat().st_size > 1000 and lock.stat().st_size > 100


def test_debug_shows_where(captured, run_porting):
    done = run_porting("--debug", "ls", "missing", cwd=captured)
    assert done.returncode == 2 and "Traceback" in done.stderr
    done = run_porting("ls", "missing", "--debug", cwd=captured)
    assert done.returncode == 2 and "Traceback" in done.stderr


def test_capture_needs_a_script_alone(run_porting, tmp_path):
    done = run_porting("capture", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.rstrip().endswith("required: script")


def test_an_unknown_command_is_trouble(run_porting, tmp_path):
    done = run_porting("frobnicate", cwd=tmp_path)
    assert done.returncode == 2 and "invalid choice" in done.stderr
