"""`porting probe`: what it says of sums whose order is known, of torch under several capabilities, and of recipes that do not fit."""
import json
import os
import subprocess
import sys

import numpy as np
import porting
import pytest
import torch
from porting.probe import Probe, _Prober, cached, for_manifest, lanes_of, order_of, tree_row


def in_lanes(lanes, peel=0, halves=True):
    """A sum whose order is known: the first `peel` terms go to lane 0, the rest in turn to the lanes, which are joined by halves or in order."""

    def sums(rows):
        found = []
        for row in rows:
            total = np.zeros(lanes, np.float32)
            for x in row[:peel]:
                total[0] += x
            for k, x in enumerate(row[peel:]):
                total[k % lanes] += x
            while halves and len(total) > 1:
                total = total[: len(total) // 2] + total[len(total) // 2 :]
            for x in total[1:]:
                total[0] = total[0] + x
            found.append(total[0])
        return np.array(found, np.float32)

    return sums


def blocked(size):
    def sums(rows):
        found = []
        for row in rows:
            total = np.float32(0)
            for start in range(0, len(row), size):
                part = np.float32(0)
                for x in row[start : start + size]:
                    part += x
                total = part if start == 0 else total + part
            found.append(total)
        return np.array(found, np.float32)

    return sums


@pytest.mark.parametrize("sums,n,words", [
    (in_lanes(8, halves=False), 96, "8 running sums, joined to one"),
    (in_lanes(4), 64, "4 running sums, joined to 2, joined to one"),
    (in_lanes(4, peel=4), 64, "4 running sums, joined to 2, joined to one; the first 4 terms apart"),
    (in_lanes(1), 40, "one after the other"),
    (blocked(24), 100, "one after the other in blocks of 24"),
    (lambda rows: np.sort(rows, axis=1)[:, ::-1].sum(axis=1, dtype=np.float64).astype(np.float32), 64, "neither lanes nor blocks that are known"),
])  # fmt: skip
def test_orders_that_are_known(sums, n, words):
    with np.errstate(invalid="ignore"):
        assert order_of(sums, n) == words


def test_rows_of_a_tree():
    sizes = tree_row(in_lanes(4, halves=False), 16)
    assert list(sizes[[4, 8, 12]]) == [2, 3, 4] and sizes[1] == 8 and sizes[3] == 16 and lanes_of(sizes) == [4]


ASK = "import json, porting; print(json.dumps(porting.probe(again=True).to_json()))"


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The probe's answers in processes whose torch runs with other capabilities."""
    folder = str(tmp_path_factory.mktemp("cache"))
    found = {}
    for capability in ("default", "avx2", "avx512"):
        env = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "XDG_CACHE_HOME": folder}
        found[capability] = json.loads(subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True).stdout)
    assert len(os.listdir(os.path.join(folder, "porting"))) == len({answer["capability"] for answer in found.values()})
    return found


def test_capabilities_answer_differently(answers):
    facts = {name: answer["facts"] for name, answer in answers.items()}
    assert facts["default"]["vector loop"] == "no vector functions" and facts["default"]["silu's exp from"] == "libm"
    assert facts["avx2"]["vector loop"] == "16 elements at a time, then one by one" and facts["avx2"]["silu's exp from"] == "SLEEF"
    assert facts["default"]["fma"] == "product and sum rounded each" and facts["avx2"]["fma"] == "product and sum contracted"
    if answers["avx512"]["capability"] == "avx512":
        assert facts["avx512"]["vector loop"] == "32 elements at a time, then one by one"
    for name, answer in answers.items():
        assert answer["facts"]["sum order"] == "32 running sums, joined to 8, joined to one"
        assert answer["unfit"] == [] and answer["fitting"] == answer["capability"], name


def test_oneDNN_is_told_apart(tmp_path):
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "XDG_CACHE_HOME": str(tmp_path)}
    found = json.loads(subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True).stdout)
    assert found["facts"]["gelu's erf from"] == "oneDNN's AVX2 formula"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_answers_are_kept_and_asked_again(own_cache, monkeypatch):
    assert cached() is None
    first = porting.probe()
    assert cached() == first and Probe.from_json(json.loads(json.dumps(first.to_json()))) == first
    monkeypatch.setattr(_Prober, "run", lambda self: pytest.fail("asked again"))
    assert porting.probe() == first
    (kept,) = (own_cache / "cache" / "porting").iterdir()
    kept.write_text('{"torch": 1}')
    assert cached() is None
    with pytest.raises(BaseException, match="asked again"):
        porting.probe()


def captured(folder):
    model = torch.nn.Softmax(-1)
    with torch.no_grad(), porting.ActivationCollector(model, folder):
        model(torch.randn(3, 40))
    return folder


def test_captures_carry_the_answers(own_cache):
    with porting.open(captured(own_cache / "c")) as capture:
        assert Probe.from_json(capture.environment["probe"]) == porting.probe()
        assert porting.check(capture).warnings == []


def test_a_recipe_that_does_not_fit_is_reported(own_cache, monkeypatch, capsys):
    """A reference that computes softmax otherwise: the probe names it, the manifest carries it, the report warns."""
    from porting.cli import main

    real = _Prober.ours

    def other(self, name, *args, **options):
        found = real(self, name, *args, **options)
        return np.nextafter(found, np.float32(2)) if name == "_softmax.default" else found

    monkeypatch.setattr(_Prober, "ours", other)
    assert main(["probe"]) == 1
    text = capsys.readouterr().out
    assert "24 of 25 give torch's bits" in text and "softmax: " in text and "BOUND here, not EXACT" in text
    assert main(["probe", "--json"]) == 1 and json.loads(capsys.readouterr().out)["unfit"] == ["softmax"]
    with porting.open(captured(own_cache / "c")) as capture:
        report = porting.check(capture)
    assert any("1 of 25 recipes do not fit (softmax)" in text and "BOUND" in text for text in report.warnings) and "BOUND" in report.to_text()
    assert "BOUND" in json.dumps(report.to_json())


def test_the_capability_that_fits_is_taken(own_cache, monkeypatch):
    """A torch that says avx512 and computes as avx2 does (a wheel without those kernels)."""
    truth = porting.probe()
    said = "default" if truth.capability != "default" else "avx2"
    lying = Probe(truth.torch, said, truth.num_threads, truth.mkldnn, truth.facts, truth.recipes, truth.capability)
    monkeypatch.setattr("porting.hooks.for_manifest", lying.to_json)
    with porting.open(captured(own_cache / "c")) as capture:
        report = porting.check(capture)
        assert any(f"but computed as {truth.capability!r} does" in text for text in report.warnings)
        assert f"capability {truth.capability}" in report.environment["profile"]


@pytest.mark.parametrize("value", [{"failed": "no reason"}, {"torch": "2"}, {"recipes": 3}])
def test_damaged_answers_are_a_warning(own_cache, monkeypatch, value):
    monkeypatch.setattr("porting.hooks.for_manifest", lambda: value)
    with porting.open(captured(own_cache / "c")) as capture:
        assert len(porting.check(capture).warnings) == 1


def test_a_capture_never_fails_for_the_probe(own_cache, monkeypatch):
    monkeypatch.setattr(_Prober, "run", lambda self: 1 / 0)
    assert for_manifest() == {"failed": "ZeroDivisionError: division by zero"}
    monkeypatch.setenv("PORTING_PROBE", "0")
    assert for_manifest() is None
    with porting.open(captured(own_cache / "c")) as capture:
        assert "probe" not in capture.environment


def test_autocast_and_modes_of_the_user_do_not_reach_it(own_cache):
    plain = porting.probe(again=True).facts
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        assert porting.probe(again=True).facts == plain
