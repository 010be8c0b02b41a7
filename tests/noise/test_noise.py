"""The reference's own noise: measured, stored, and what it excuses and what it does not."""
import json
import os
import re
from pathlib import Path

import numpy as np
import porting
import pytest
import torch
from porting import noise as noises
from porting.cli import main
from porting.noise import FACTOR, Noise, Spread, measure

RNG = np.random.default_rng(0)


class Cancelling(torch.nn.Module):
    """A product less almost all of itself: what is left is as uncertain as the order of its sums makes it."""

    def __init__(self, x):
        super().__init__()
        self.linear = torch.nn.Linear(512, 64)
        with torch.no_grad():
            self.register_buffer("most", (self.linear(x).double() * (1 - 2**-11)).float())

    def forward(self, x):
        return self.linear(x) - self.most


class Model(torch.nn.Module):
    def __init__(self, x):
        super().__init__()
        self.body = Cancelling(x)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        y = self.body(x)
        self.drop.train()
        return y + self.drop(y)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(capture with noise, what float64 makes of the body)."""
    torch.manual_seed(0)
    x = torch.randn(1, 512)
    model = Model(x).eval()
    path = str(tmp_path_factory.mktemp("noise") / "ref.capture")
    with torch.no_grad():
        _, capture = porting.ActivationCollector(model, path, program=False, noise=True)(x)
    body = model.body
    exact = x.double() @ body.linear.weight.double().T + body.linear.bias.double() - body.most.double()
    with capture:
        yield capture, exact.detach().numpy()


def test_spreads_are_stored_beside_the_capture_and_name_their_settings(measured):
    capture, _ = measured
    text = json.loads(Path(capture.path, "noise.json").read_text(encoding="utf-8"))
    assert text["format"] == "porting.noise" and "the batch doubled" in text["settings"] and any("thread" in s for s in text["settings"])
    assert set(text["isolated"]) == {"body.linear.out.0", "body.out.0"}  # what holds dropout does not give the same twice
    assert set(text["skipped"]) == {"drop", ""} and "body.out.0" in text["chained"]
    spread = capture.noise.isolated["body.out.0"]
    assert spread.max_ulp > 500 and spread.err > 512 and spread.setting == "the batch doubled"
    assert capture.noise.isolated["body.linear.out.0"].err < 16
    assert porting.verify(capture.path) > 0


def port_of(exact):
    return lambda x: exact.astype(np.float32)


def test_a_port_inside_the_noise_is_not_blamed_and_would_be_without_it(measured):
    capture, exact = measured
    report = porting.test_layer(port_of(exact), capture, "body")
    row, = report.rows
    assert row.band == "amber" and "inside the reference's own noise (" in row.reason and "ulp" in row.reason
    for tol in ("strict", "exact", "ulp(4)"):
        with pytest.raises(porting.ParityError):
            porting.test_layer(port_of(exact), capture, "body", tol=tol)
    file = os.path.join(capture.path, "noise.json")
    os.rename(file, file + ".away")
    try:
        with porting.open(capture.path) as without, pytest.raises(porting.ParityError):
            assert without.noise is None
            porting.test_layer(port_of(exact), without, "body")
    finally:
        os.rename(file + ".away", file)


@pytest.mark.parametrize("spoil", [
    np.zeros_like, lambda y: y * np.float32(1.01), lambda y: -y, lambda y: y + np.float32(1e-5), lambda y: np.full_like(y, np.nan),
    lambda y: np.concatenate([y[:, :-1], y[:, -1:] * 2], -1), lambda y: y[:, ::-1].copy(),
    lambda y: np.where(np.arange(64) == 5, np.inf, y).astype(np.float32), lambda y: np.roll(y, 1, -1),
])
def test_a_wrong_port_is_refused_noise_or_not(measured, spoil):
    capture, exact = measured
    with pytest.raises(porting.ParityError):
        porting.test_layer(lambda x: spoil(port_of(exact)(x)), capture, "body")


def test_what_covers_and_what_does_not():
    e = RNG.standard_normal((8, 64)).astype(np.float32)
    again = (e.astype(np.float64) * (1 + 1e-5 * RNG.standard_normal(e.shape))).astype(np.float32)
    noise = Noise()
    noise.add("isolated", "m.out.0", measure(e, again, "float32", "1 thread"))
    within = (e.astype(np.float64) * (1 + 1e-5 * RNG.standard_normal(e.shape))).astype(np.float32)
    assert "1 thread" in noise.covers("m", "0", e, within)
    assert noise.covers("m", "0", e, within, chained=True) is None and noise.covers("n", "0", e, within) is None
    assert noise.covers("m", "0", e, (e + 3 * FACTOR * (again - e)).astype(np.float32)) is None
    everywhere = e + np.float32(np.abs(again - e).max()) * np.sign(e)  # no element further than the noise's greatest, but all of them
    assert noise.covers("m", "0", e, everywhere) is None
    one = e.copy()
    one[3, 5] *= np.float32(1.01)
    assert noise.covers("m", "0", e, one) is None and noise.covers("m", "0", e, np.full_like(e, np.nan)) is None
    assert noise.covers("m", "0", e, e[:4]) is None and noise.covers("m", "0", e, within.astype(np.float64)) is None


def test_a_spread_that_is_no_rounding_excuses_nothing():
    e = RNG.standard_normal((8, 64)).astype(np.float32)
    noise = Noise()
    noise.add("isolated", "m.out.0", measure(e, np.roll(e, 1, 0), "float32", "1 thread"))
    noise.add("isolated", "n.out.0", measure(e, np.where(e > 2, np.nan, e), "float32", "1 thread"))
    assert noise.isolated == {} and measure(e.astype(np.int32), e.astype(np.int32), "int32") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "porting.noise", "version": 2}', '{"format": "porting.noise", "version": 1, "isolated": {"m": 3}}',
                                  '{"format": "porting.noise", "version": 1, "isolated": {"m": {"max_ulp": -1, "max_abs": 0, "err": 0, "rms": 0, "relative": 0}}}',
                                  '{"format": "porting.noise", "version": 1, "isolated": {"m": {"max_ulp": NaN, "max_abs": 0, "err": 0, "rms": 0, "relative": 0}}}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "noise.json").write_text(text, encoding="utf-8")
    with pytest.raises(porting.FormatError, match=r"noise\.json: not a file of spreads"):
        noises.load(str(tmp_path / "noise.json"))
    noise = Noise(isolated={"m.out.0": Spread(1.0, 2.0, 3.0, 4.0, 1e-7, "1 thread")}, settings=["1 thread"])
    noise.write(str(tmp_path))
    assert noises.load(str(tmp_path / "noise.json")) == noise


def test_the_with_form_cannot_run_again_and_an_empty_block_is_said(tmp_path):
    model = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match="call form alone"):
        porting.ActivationCollector({"m": model}, noise=True)
    with pytest.warns(RuntimeWarning, match="nothing was captured"), porting.ActivationCollector(model, str(tmp_path / "empty.capture")):
        pass
    with porting.ActivationCollector(model, str(tmp_path / "full.capture")) as collector:
        model(torch.zeros(1, 3))
    assert len(collector.capture) == 2
    found = porting.measure_noise(model, torch.zeros(1, 3), str(tmp_path / "full.capture"))
    assert set(found.isolated) == {"out.0"}
    collector.capture.close()


def test_the_command_measures_a_script_in_processes_of_its_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.py").write_text("import torch\ntorch.manual_seed(0)\nmodel = torch.nn.Sequential(torch.nn.Linear(512, 8), torch.nn.Tanh())\n"
                                     "with torch.no_grad():\n    print(model(torch.randn(1, 512)).sum())\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(porting.__file__)))
    assert main(["capture", "--noise", "-o", "ref.capture", "run.py"]) == 0
    assert "noise: ref.capture: 3 outputs with" in capsys.readouterr().err
    with porting.open("ref.capture") as capture:
        assert set(capture.noise.isolated) == set(capture.noise.chained) == {"0.out.0", "1.out.0", "out.0"}
        assert any(setting.startswith("ATEN_CPU_CAPABILITY=") for setting in capture.noise.settings)


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "REPORT.md").read_text(encoding="utf-8")
    code = re.search(r"own noise\n.*?```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code, "docs/REPORT.md", "exec"), found)
    assert found["capture"].noise.settings[1:] == ["the batch doubled", "the first row alone"]
    found["capture"].close()


class Coupled(torch.nn.Module):
    """Something that is another function of another batch, by less than a percent."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "deviation":
            return x / x.std(0, keepdim=True)
        if self.kind == "variance":
            return x.var(0)
        return x + 0.005 * x.sum(0, keepdim=True) / x.abs().max()


@pytest.mark.parametrize("kind, batch", [("deviation", 64), ("variance", 64), ("sum", 4), ("sum", 1)])
def test_what_a_module_takes_over_its_batch_is_no_noise(tmp_path, kind, batch):
    """A spread by another batch excuses a port only where the batch is no argument of the function."""
    torch.manual_seed(2)
    x = torch.randn(batch, 16)
    with torch.no_grad():
        _, capture = porting.ActivationCollector(torch.nn.Sequential(Coupled(kind)), tmp_path / "c", noise=True)(x)
    assert capture.noise.isolated["0.out.0"].err < 64 and "depend on each other" in capture.noise.skipped["0"]
    expected = {"0.out.0": np.array(capture["0.out.0"]), "out.0": np.array(capture["out.0"])}
    assert porting.compare(capture, expected).passed
    wrong = {name: x * np.float32(1 + 1 / 512) for name, x in expected.items()}
    assert not porting.compare(capture, wrong).passed


def test_rows_that_are_apart_keep_a_large_spread(tmp_path):
    """Sums that cancel differ much in another batch, and nothing but the order of the sums does that."""
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(512, 8), torch.nn.Tanh())
    with torch.no_grad():
        x = torch.randn(3, 512)
        model[0].bias.copy_(-model[0](x)[0])  # the first row comes out near 0
        _, capture = porting.ActivationCollector(model, tmp_path / "c", noise=True)(x)
    assert not capture.noise.skipped and set(capture.noise.settings) >= {"the batch doubled", "the first row alone"}
