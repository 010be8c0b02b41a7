"""level="stats": statistics, hash and sketch in the place of tensors, against NumPy; what they can say of two runs, and what they refuse."""
import math
import shutil
import struct
import subprocess
import sys

import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, FormatError, PortingError, compare
from porting.summaries import Summary

RNG = np.random.default_rng(0)


def arrays():
    x = RNG.standard_normal((3, 5, 700)).astype("f4")
    special = x.copy()
    special.flat[[3, 70, 9000]] = [np.nan, np.inf, -np.inf]
    yield from {"f4": x, "special": special, "f8": x.astype("f8"), "f2": x.astype("f2"), "i8": RNG.integers(-9, 9, (7, 130)), "u1": RNG.integers(0, 9, 5000).astype("u1"),
                "bool": x > 0, "c8": (x + 1j * x[::-1]).astype("c8"), "strided": x[:, ::2].T, "negative": x[::-1], "scalar": np.float32(2.5), "empty": x[:0],
                "all nan": np.full(9, np.nan, "f4"), "nothing finite": np.array([np.inf, np.nan])}.items()


@pytest.mark.parametrize("name, array", list(arrays()))
def test_statistics_are_numpys(name, array):
    array = np.asarray(array)
    found = Summary.of(array)
    values = np.ascontiguousarray(array).reshape(-1)
    values = (values.view("f4") if values.dtype.kind == "c" else values).astype("f8")
    finite = values[np.isfinite(values)]
    assert found.shape == array.shape and found.num_nan == np.isnan(values).sum() and found.num_inf == np.isinf(values).sum()
    assert found.hash == porting._core.hash128(np.ascontiguousarray(array).tobytes())
    expected = (finite.min(), finite.max(), finite.mean(), math.sqrt((finite**2).mean())) if finite.size else (math.nan,) * 4
    assert np.allclose((found.min, found.max, found.mean, found.rms), expected, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert len(found.sketch) == 16 and abs(sum(abs(s) for s in found.sketch)) <= np.abs(finite).sum() * (1 + 1e-12)


def test_bf16():
    import ml_dtypes

    x = RNG.standard_normal(3000).astype(ml_dtypes.bfloat16)
    assert Summary.of(x).dtype == "BF16" and Summary.of(x).max == float(x.astype("f8").max())


def test_a_sketch_tells_how_far_apart_tensors_are():
    x = RNG.standard_normal(20000).astype("f4")
    for size in (1e-5, 1e-2, 1.0):
        estimates = [Summary.of(x).relative_distance(Summary.of((x + size * RNG.standard_normal(20000)).astype("f4"))) for _ in range(8)]
        assert 0.6 * size < np.mean(estimates) < 1.6 * size
    swapped = x.copy()
    swapped[[5, 10000]] = x[[10000, 5]]
    same, other = Summary.of(x), Summary.of(swapped)
    assert (same.min, same.max) == (other.min, other.max) and same.hash != other.hash and any("sketch" in text for text in same.differences(other))
    assert same.differences(Summary.of(x.copy())) == [] and same.relative_distance(same) == 0.0


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
        self.act = torch.nn.GELU()
        self.last = torch.nn.Linear(8, 3)

    def forward(self, x, cache=None):
        return {"y": self.last(self.act(self.first(x))), "kept": x.to(torch.bfloat16), "many": [x > 0, x.T]}


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """(statistics, all of it, all of it with a faulty activation) of the same run."""
    folder = tmp_path_factory.mktemp("stats")
    torch.manual_seed(0)
    model, x = Model(), torch.randn(4, 6)
    opened = []
    with torch.no_grad():
        for name, level in (("stats", "stats"), ("all", "module"), ("wrong", "module"), ("wrong stats", "stats")):
            model.act = torch.nn.GELU(approximate="tanh" if "wrong" in name else "none")
            output, capture = ActivationCollector(model, folder / name, level=level)(x)
            if name == "stats":
                assert torch.equal(output["y"], model(x)["y"])
            opened.append(capture)
    yield opened
    for capture in opened:
        capture.close()


def test_what_is_kept(captures):
    stats, whole, *_ = captures
    assert list(stats) == list(whole) and stats.level == "stats" and whole.level == "module"
    for name in whole:
        assert stats.stats(name) == whole.stats(name) == Summary.of(whole[name])
        assert stats.stats(name).hash == whole.info(name)[4]
    assert not len(stats.parameters) and stats.manifest["parameters"]["entries"]["first.weight"]["hash"]
    assert "(statistics)" in repr(stats.call("act").outputs)
    assert porting.verify(stats.path) == 7


def test_comparing_by_statistics(captures):
    stats, whole, wrong, wrong_stats = captures
    for reference, port in ((stats, whole), (whole, stats), (stats, stats), (stats, {name: whole[name] for name in whole})):
        report = compare(reference, port)
        assert report.passed and report.num_exact == report.num_calls == 4, report.to_text()
    for reference, port in ((stats, wrong), (whole, wrong_stats), (stats, wrong_stats)):
        report = compare(reference, port)
        assert not report.passed and report.first_divergence.name == "act.out.0"
        assert "max " in report.first_divergence.reason and "of its size away" in report.first_divergence.reason
        assert [row.inputs_differ for row in report.rows if row.module == "last"] == [True]
        assert "statistics were compared" in report.to_text() and "FAILED" in report.to_text()
        assert report.to_json()
    lacking = {name: whole[name] for name in whole if not name.startswith("last")}
    assert {row.status for row in compare(stats, lacking).rows} == {"compared", "missing"}
    other = {**lacking, "act.out.0": whole["act.out.0"].T, "first.out.0": whole["first.out.0"].astype("f8")}
    assert {row.status for row in compare(stats, other).rows} == {"compared", "missing", "shape", "dtype"}


def test_what_needs_tensors_is_refused(captures, tmp_path):
    stats, whole, *_ = captures
    for needs in (lambda: stats["act.out.0"], lambda: stats.outputs("act")["0"], lambda: porting.check(stats), lambda: compare(stats, whole, tol="close"),
                  lambda: compare(whole, stats, tol="allclose"), lambda: compare(stats, {"act": torch.nn.GELU()}), lambda: compare(stats, whole, level="op"),
                  lambda: compare(stats, whole, mode="both"), lambda: stats.to_torch(), lambda: stats.save(tmp_path / "x.npz"),
                  lambda: porting.test_layer(torch.nn.GELU(), stats, "act")):
        with pytest.raises(PortingError, match='holds statistics, not tensors .level="stats".: .* needs tensors'):
            needs()


def test_weights_are_kept_if_asked_for(tmp_path):
    model = Model()
    _, capture = ActivationCollector(model, tmp_path / "a", level="stats", weights=True)(torch.randn(2, 6))
    with capture:
        assert np.array_equal(capture.parameters["first.weight"], model.first.weight.detach().numpy())


@pytest.mark.parametrize("what", ["version", "dtype", "length", "shape", "zeros"])
def test_bytes_that_are_no_statistics(what):
    data = bytearray(porting._core.summarize(np.ones((2, 3), "f4")))
    if what == "shape":
        data[8:16] = struct.pack("<q", -2)
    else:
        place = {"version": 0, "dtype": 1, "zeros": 5}.get(what)
        data = data[:-1] if place is None else data[:place] + b"\xff" + data[place + 1:]
    with pytest.raises(FormatError, match="a place: "):
        Summary.from_bytes(data, "a place")


def test_the_command_line(captures, tmp_path):
    def porting_(*args):
        return subprocess.run([sys.executable, "-m", "porting", *map(str, args)], capture_output=True, text=True, check=False)

    stats, whole, wrong, _ = (capture.path for capture in captures)
    assert "rms " in porting_("ls", stats).stdout and "hash " in porting_("show", stats, "act.out.0").stdout
    assert "act.out.0" in porting_("show", stats, "act").stdout
    assert porting_("compare", stats, whole).returncode == 0 and porting_("compare", stats, wrong).returncode == 1
    refused = porting_("check", stats)
    assert refused.returncode == 2 and "a check needs tensors" in refused.stderr
    script = tmp_path / "script.py"
    script.write_text("import torch\ntorch.nn.Linear(2, 2)(torch.ones(1, 2))\n")
    assert porting_("capture", "-o", tmp_path / "a", "--level", "stats", script).returncode == 0
    with porting.open(tmp_path / "a") as capture:
        assert capture.level == "stats"
    shutil.rmtree(tmp_path / "a")
