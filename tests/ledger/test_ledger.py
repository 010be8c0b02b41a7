"""porting.lock: what is worse fails with a sentence, what is better is kept only on demand, what is loosened keeps its reason. And tolerances by module."""
import dataclasses
import math

import numpy as np
import porting
import porting.capture
import pytest
import torch
from porting import PortingError
from porting.cli import main
from porting.hooks import ActivationCollector
from porting.ledger import Entry, read, write


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc, self.act = torch.nn.LayerNorm(16), torch.nn.Linear(16, 16), torch.nn.GELU()

    def forward(self, x):
        return self.act(self.fc(self.norm(x)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    torch.manual_seed(0)
    with torch.no_grad():
        ActivationCollector(Model().eval(), folder / "run.capture")(torch.randn(4, 16))[1].close()
    return folder / "run.capture"


def port_of(capture, **error):
    """The captured outputs, those of one module times 1 + error."""
    with porting.open(capture) as opened:
        arrays = {name: np.array(opened[name]) for name in opened if ".out." in f".{name}"}
    for module, size in error.items():
        name = next(n for n in arrays if n.startswith(f"{module}.out"))
        arrays[name] = (arrays[name] * np.float32(1 + size)).astype("f4")
    return arrays


def run(capture, ledger, *, update=False, loosen=None, **error):
    return porting.compare(capture, port_of(capture, **error), ledger=ledger, update_ledger=update, loosen=loosen, explain=False)


def test_a_run_that_is_worse_fails_and_says_what_was_and_is(made, tmp_path):
    lock = tmp_path / "porting.lock"
    with pytest.raises(PortingError, match="no such ledger"):
        run(made, lock)
    first = run(made, lock, update=True, fc=2e-7)
    assert first.passed and first.ledger.updated and set(first.ledger.added) == {"", "norm", "fc", "act"}
    assert {name: entry.band for name, entry in read(lock).items()} == {"": "exact", "norm": "exact", "fc": "green", "act": "exact"}
    before = lock.read_text()
    again = run(made, lock, fc=2e-7)
    assert again.passed and not again.ledger.problems and lock.read_text() == before
    worse = run(made, lock, fc=2e-7, act=2e-7)
    assert all(row.passed for row in worse.rows)  # rounding: the tolerance accepts it, the ledger does not
    assert not worse.passed and worse.ledger.problems == [worse.ledger.problems[0]]
    assert worse.ledger.problems[0].startswith("act was exact, and is green, err/(u s) ")
    assert "of the ledger: act was exact" in worse.why_failed and "act was exact" in worse.to_text() and '"problems"' in worse.to_json()
    assert lock.read_text() == before
    grown = run(made, lock, fc=2e-6)  # the same band, a greater error
    assert not grown.passed and grown.ledger.problems[0].startswith("fc was green, err/(u s) ")


def test_update_only_tightens(made, tmp_path):
    lock = tmp_path / "porting.lock"
    run(made, lock, update=True, fc=2e-7, act=2e-7)
    mixed = run(made, lock, update=True, norm=2e-7)  # fc and act better, norm worse
    assert not mixed.passed and mixed.ledger.updated and mixed.ledger.tightened == ["act", "fc"]
    assert {name: entry.band for name, entry in read(lock).items()} == {"": "exact", "norm": "exact", "fc": "exact", "act": "exact"}
    assert not run(made, lock, update=True, norm=2e-7).passed


def test_a_module_that_is_gone_fails(made, tmp_path):
    lock = tmp_path / "porting.lock"
    run(made, lock, update=True)
    arrays = {name: array for name, array in port_of(made).items() if not name.startswith("fc.")}
    report = porting.compare(made, arrays, ledger=lock, require_coverage=False, explain=False)
    assert not report.passed and report.ledger.problems == ["fc was exact, and was not compared in this run"]


def test_loosening_needs_a_reason_and_keeps_it(made, tmp_path):
    lock = tmp_path / "porting.lock"
    run(made, lock, update=True)
    for loosen, words in (({"fc": " "}, "needs a reason"), ({"nothing": "x"}, "neither the ledger nor this run")):
        with pytest.raises(PortingError, match=words):
            run(made, lock, loosen=loosen, fc=2e-7)
    assert run(made, lock, loosen={"fc": "the new kernel sums in \"blocks\""}, fc=2e-7).passed
    entry = read(lock)["fc"]
    assert entry.band == "green" and entry.why == ('the new kernel sums in "blocks"',)
    assert not run(made, lock, fc=2e-7, act=2e-7).passed  # the others are as they were
    run(made, lock, loosen={"fc": "again"}, fc=2e-6)
    run(made, lock, update=True)
    assert read(lock)["fc"].why == ('the new kernel sums in "blocks"', "again") and read(lock)["fc"].band == "exact"
    with pytest.raises(ValueError, match="need ledger"):
        porting.compare(made, port_of(made), update_ledger=True)


def test_on_the_command_line(made, tmp_path, capsys):
    lock, port = str(tmp_path / "porting.lock"), str(tmp_path / "port.npz")
    np.savez(port, **port_of(made, fc=2e-7))
    assert main(["compare", str(made), port, "--ledger", lock]) == 2 and "no such ledger" in capsys.readouterr().err
    assert main(["compare", str(made), port, "--ledger", lock, "--update"]) == 0
    np.savez(port, **port_of(made, fc=2e-7, act=2e-7))
    capsys.readouterr()
    assert main(["compare", str(made), port, "--ledger", lock]) == 1 and "act was exact, and is green" in capsys.readouterr().out
    for wrong in (["--update"], ["--ledger", lock, "--loosen", "act"], ["--ledger", lock, "--why", "x"]):
        assert main(["compare", str(made), port, *wrong]) == 2
    assert main(["compare", str(made), port, "--ledger", lock, "--loosen", "act", "--why", "tables"]) == 0
    assert main(["check", str(made), "--ledger", str(tmp_path / "own.lock"), "--update"]) == 0
    assert main(["check", str(made), "--ledger", str(tmp_path / "own.lock")]) == 0


ENTRIES = [Entry("b", "green", 3, 2.0, "auto", ("why\n\"so\"",)), Entry("a\x7f\u00e9\\", "exact", 0, None, "close"), Entry("", "red", 2**64 - 1, math.inf, "auto"),
           Entry("c", "amber", 9, 1e-20, "auto"), Entry("d", "green", 1, 123456789.0, "auto")]


def test_the_file_is_stable_and_sorted(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    write(first, ENTRIES)
    write(second, reversed(ENTRIES))
    assert first.read_text() == second.read_text()
    back = read(first)
    assert list(back) == sorted(back) and back["b"] == ENTRIES[0] and back["a\x7f\u00e9\\"] == ENTRIES[1] and back[""].err == math.inf
    write(second, back.values())
    assert first.read_text() == second.read_text()


@pytest.mark.parametrize("text", ["x = [", "version = 2", "", "version = 1\nmodule = 3", "version = 1\n[[module]]\nname = 'x'", "version = 1\nmodule = [1]",
                                  "version = 1\n[[module]]\nname = 'x'\nband = 'good'\nmax_ulp = 1\ntol = 'auto'", "\x00", "version = 1\n[[module]]\nname = 'x'\n"
                                  "band = 'green'\nmax_ulp = 1\ntol = 'auto'\nerr = nan", "version = 1" + 2 * "\n[[module]]\nname='x'\nband='exact'\nmax_ulp=0\ntol='auto'"])
def test_what_is_no_ledger_gets_a_sentence(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(PortingError) as caught:
        read(tmp_path / "lock")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("change, worse", [({"band": "exact", "err": None}, False), ({"band": "amber"}, True), ({"err": 2.001}, False), ({"err": 2.5}, True), ({"err": 1.0}, False),
                                           ({"err": math.nan}, True), ({"tol": "close", "max_ulp": 3}, False), ({"tol": "close", "max_ulp": 4}, True)])
def test_what_worse_means(change, worse):
    assert dataclasses.replace(ENTRIES[0], **change).worse_than(ENTRIES[0]) == worse


# ---------------------------------------------------------------- tolerances by module


def table(tmp_path, text):
    path = tmp_path / "tolerances.toml"
    path.write_text(text)
    return path


def test_the_first_entry_that_fits_decides(made, tmp_path):
    path = table(tmp_path, 'default = "exact"\n[[module]]\nmatch = "f?"\ntol = "close"\n[[module]]\nmatch = "fc"\ntol = "exact"\n[[module]]\nmatch = "*.lost"\ntol = "strict"')
    good = porting.compare(made, port_of(made, fc=2e-5), tol=path, explain=False)
    assert good.passed and good.tolerance == "tolerances.toml"
    said = {row.module: row.tolerance for row in good.rows}
    assert said["fc"] == "close (tolerances.toml: f?)" and said["act"] == "exact (tolerances.toml: default)"
    assert [w for w in good.warnings if "no module is judged" in w] == [w for w in good.notices if "'fc'" in w or "'*.lost'" in w] and len(good.warnings) == 2
    bad = porting.compare(made, port_of(made, act=2e-7), tol=str(path), explain=False)
    assert not bad.passed and bad.first_divergence.module == "act" and "by exact (tolerances.toml: default)" in bad.to_text()
    assert porting.compare(made, port_of(made, act=2e-7), explain=False).passed
    assert porting.check(made, tol=path).passed and '"tolerance": "close (tolerances.toml: f?)"' in porting.check(made, tol=path).to_json()


@pytest.mark.parametrize("text, words", [
    ('default = "nearly"', "default"), ('other = 1', "'other'"), ('[[module]]\nmatch = "a"', r"\[\[module\]\] 1"), ('[[module]]\nmatch = "a"\ntol = "loose"', "no tolerance"),
    ('[[module]]\nmatch = 3\ntol = "close"', "both texts"), ('[module]\nmatch = "a"', "entries"), ("default = [", "not a TOML file"), ('default = "t.toml"', "name of a tolerance"),
    ('[[module]]\nmatch = "a"\ntol = "close"\n[[module]]\nmatch = "a"\ntol = "auto"', "twice"),
])
def test_a_table_that_is_wrong_gets_a_sentence(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        porting.check("nowhere", tol=table(tmp_path, text))


def test_a_table_that_is_not_there():
    with pytest.raises(OSError):
        porting.check("nowhere", tol="no-such.toml")


def test_modules_that_get_other_inputs_are_one_problem(made, tmp_path):
    lock = tmp_path / "porting.lock"
    with porting.open(made) as opened:
        arrays = {name: np.array(opened[name]) for name in opened}
    porting.compare(made, arrays, ledger=lock, update_ledger=True, explain=False)
    arrays["act.in.0"] = arrays["act.in.0"] + np.float32(0.125)
    arrays["act.out.0"] = torch.nn.functional.gelu(torch.from_numpy(arrays["act.in.0"])).numpy()
    problems = porting.compare(made, arrays, ledger=lock, explain=False).ledger.problems
    assert [p for p in problems if p.startswith("worse on inputs that differ") and "act" in p] and not [p for p in problems if p.startswith("act was")]
    arrays["act.out.0"] = arrays["act.out.0"] * 1.5
    assert [p for p in porting.compare(made, arrays, ledger=lock, explain=False).ledger.problems if p.startswith("act was exact")]
