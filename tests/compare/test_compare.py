"""compare() and test_layer() on captures of real models: every form of a port, and everything a port can lack."""
import json

import numpy as np
import porting.capture
import pytest
import torch
from porting import PortingError, _core
from porting.compare import compare, compare_arrays, match_prefix, row_of
from porting.hooks import ActivationCollector
from porting.port import open_files, wants_torch
from porting.report import Report
from porting.testing import ParityError
from porting.testing import test_layer as layer_test
from safetensors.numpy import save_file


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, 2 * width)
        self.act = torch.nn.GELU()
        self.down = torch.nn.Linear(2 * width, width)

    def forward(self, x, scale=1.0, offset=None):
        y = x + scale * self.down(self.act(self.up(self.norm(x))))
        return {"hidden": y if offset is None else y + offset, "pair": (y.mean(-1), None)}


class Model(torch.nn.Module):
    def __init__(self, width=48, depth=3):
        super().__init__()
        self.embed = torch.nn.Embedding(50, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))
        self.head = torch.nn.Linear(width, 50, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, scale=0.5)["hidden"]
        return self.head(x)


def run(model, path, ids):
    with torch.no_grad():
        ActivationCollector(model.eval(), path, program=False)(ids)[1].close()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("compare")
    model, ids = Model(), torch.randint(0, 50, (2, 7))
    path = run(model, folder / "reference", ids)
    return model, ids, porting.capture.open(path), folder


def outputs(capture):
    return {call.full_name("out", leaf): np.array(array) for call in capture.call_list for leaf, array in call.outputs.items()}


def test_a_capture_of_the_same_model_is_bit_exact(made):
    model, ids, reference, folder = made
    report = compare(reference, run(model, folder / "same", ids))
    assert report.passed and report.num_exact == report.num_calls == 18 and report.coverage == 1 and report.first_divergence is None
    assert "18 of 18 module calls compared, 18 bit-exact" in report.summary and report.to_text().splitlines()[-1].startswith("passed: ")


@pytest.mark.parametrize("mode", ["isolated", "chained"])
def test_the_first_divergence_is_the_broken_module(made, mode):
    model, ids, reference, folder = made
    model.blocks[1].norm.eps = 1e-2
    try:
        report = compare(reference, run(model, folder / f"eps-{mode}", ids), mode=mode)
    finally:
        model.blocks[1].norm.eps = 1e-5
    assert not report.passed and report.first_divergence.module == "blocks.1.norm" and report.last_good.module == "blocks.0"
    later = [row for row in report.rows if row.module.startswith("blocks.2.")]
    assert later and all(row.inputs_differ for row in later)
    text = report.to_text()
    assert "first divergence: blocks.1.norm.out.0 (layer_norm)" in text and "last good before it: blocks.0" in text
    facts = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert facts["first_divergence"] == "blocks.1.norm.out.0" and facts["passed"] is False and len(facts["rows"]) == len(report.rows)
    assert facts["rows"][0]["metrics"]["num_elems"] > 0


def test_a_clean_port_that_rounds_differently_passes_chained_and_isolated(made):
    model, ids, reference, folder = made
    wide = Model().double()
    wide.load_state_dict(model.state_dict())
    with torch.no_grad():
        ActivationCollector(wide.eval(), folder / "wide", program=False)(ids)[1].close()
    with porting.capture.open(folder / "wide") as other:
        port = {name: other[name].astype("f4") if other[name].dtype == np.float64 else other[name] for name in other if not name.startswith("param:")}
    report = compare(reference, port, mode="chained")
    assert report.passed, report.to_text()
    assert 0 < report.worst_err_scale < 100 and report.num_exact < report.num_calls


@pytest.mark.parametrize("form", ["safetensors", "npz", "npy", "folder", "mapping", "torch"])
def test_files_and_mappings(made, form, tmp_path):
    _, _, reference, _ = made
    arrays = outputs(reference)
    assert compare(reference, written(arrays, form, tmp_path / "good")).passed
    arrays["blocks.2.down.out.0"][0, 3, 5] += 1
    report = compare(reference, written(arrays, form, tmp_path / "bad"))
    assert not report.passed and report.first_divergence.name == "blocks.2.down.out.0" and report.num_failed == 1
    assert report.first_divergence.worst_index == (0, 3, 5)


def written(arrays, form, path):
    path.mkdir()
    if form == "safetensors":
        save_file(arrays, path / "x.safetensors")
        return path / "x.safetensors"
    if form == "npz":
        np.savez(path / "x.npz", **arrays)
        return str(path / "x.npz")
    if form in ("npy", "folder"):
        for i, (name, array) in enumerate(arrays.items()):
            if form == "npy" or i % 2:
                np.save(path / f"{name}.npy", array)
        if form == "folder":
            save_file(dict(list(arrays.items())[::2]), path / "x.safetensors")
        return path
    return {name: torch.from_numpy(array) for name, array in arrays.items()} if form == "torch" else arrays


def test_what_is_missing_extra_reshaped_or_of_another_dtype_is_a_row(made):
    _, _, reference, _ = made
    port = outputs(reference)
    del port["blocks.0.act.out.0"]
    port["blocks.0.act.output.0"] = np.ones(3)
    port["blocks.1.up.out.0"] = port["blocks.1.up.out.0"].reshape(14, 96)
    port["blocks.1.act.out.0"] = port["blocks.1.act.out.0"].astype("f2")
    port["blocks.2.out.hidden"] = port["blocks.2.out.hidden"].astype("i4")
    rows = {row.name: row for row in compare(reference, port).rows}
    assert rows["blocks.0.act.out.0"].status == "missing" and rows["blocks.0.act.output.0"].status == "extra"
    assert rows["blocks.1.up.out.0"].status == "shape" and "in another layout" in rows["blocks.1.up.out.0"].reason
    assert rows["blocks.1.act.out.0"].status == "dtype" and rows["blocks.1.act.out.0"].metrics["max_abs"] > 0
    assert rows["blocks.2.out.hidden"].status == "dtype" and "int32, expected float32" in rows["blocks.2.out.hidden"].reason
    report = compare(reference, port)
    assert not report.passed and report.first_divergence.name == "blocks.1.up.out.0" and report.num_checked == report.num_calls - 1


def test_coverage_is_part_of_passing(made):
    _, _, reference, _ = made
    port = {name: array for name, array in outputs(reference).items() if ".down." in name}
    report = compare(reference, port)
    assert not report.passed and report.coverage == pytest.approx(3 / 18) and report.first_divergence is None and report.num_failed == 0
    assert "missing" in report.to_text() and "16.7 %" in report.summary
    assert report.to_text().splitlines()[-1] == "failed because coverage is required, and 15 module calls could not be compared: 15 missing from the port"
    assert json.loads(report.to_json())["why_failed"] == report.why_failed
    assert compare(reference, port, require_coverage=False).passed
    extra = compare(reference, {**port, "nobody.out.0": np.ones(2)})
    assert not extra.passed and "1 tensor that the reference does not have" in extra.summary
    assert compare(reference, port, require_coverage=False).why_failed == ""
    for nothing in ({}, {"x.out.0": np.ones(3)}):
        empty = compare(reference, nothing, require_coverage=False)
        assert not empty.passed and "nothing was compared" in empty.to_text()


def test_nan_of_the_reference_is_said_and_nan_of_the_port_gets_no_numbers(made):
    _, _, reference, _ = made
    port = outputs(reference)
    port["blocks.1.up.out.0"] = np.full_like(port["blocks.1.up.out.0"], np.nan)
    text = compare(reference, port).to_text()
    assert "elements differ, no element is finite on both sides" in text and "(nan times" not in text and "greatest absolute error 0" not in text
    with_nan = np.ones((2, 8), np.float32)
    with_nan[1, 2:] = np.nan
    found = {"blocks.0.up.out.0": with_nan, "blocks.1.up.out.0": with_nan, "blocks.2.up.out.0": np.ones((2, 8), np.float32)}
    rows = [row_of(compare_arrays(x, x), name=name, kind="linear", module=name[:-6], call=0, step=0) for name, x in found.items()]
    report = Report(rows, 3)
    lines = report.to_text().splitlines()
    assert report.passed and lines[1].endswith("2 bit-exact, 12 NaN; 1 bit-exact")
    assert "warning: 2 tensors that passed hold NaN where the reference has NaN" in lines
    assert Report(rows[2:], 1).notices == [] and Report(rows[:1], 1).to_text().splitlines()[1].endswith("  bit-exact, 6 NaN")


def test_a_prefix_is_resolved_if_that_is_unambiguous(made):
    _, _, reference, _ = made
    arrays = outputs(reference)
    assert compare(reference, {f"model.{name}": array for name, array in arrays.items()}).passed
    inner = {name.removeprefix("blocks."): array for name, array in arrays.items() if name.startswith("blocks.")}
    assert compare(reference, inner, require_coverage=False).passed
    with pytest.raises(PortingError, match="more than one way .* 1 of its 1; .*another model's"):
        compare(reference, {"down.out.0": arrays["blocks.0.down.out.0"]})
    assert match_prefix(["a.b.out.0"], ["b.out.0"])("a.c.out.1") == "c.out.1"


def test_callables_run_on_the_captured_inputs(made):
    model, _, reference, _ = made
    weights = {name: array for name, array in reference.parameters.items()}

    def linear(name):
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return lambda x: (x.astype("f8") @ w.T.astype("f8") + b).astype("f4")

    report = compare(reference, {"blocks.0.up": linear("blocks.0.up"), "blocks.*.act": wants_torch(torch.nn.functional.gelu),
                                 "blocks.1": model.blocks[1]})
    assert report.passed, report.to_text()
    assert [r.module for r in report.rows] == ["blocks.0.up", "blocks.0.act", "blocks.1.act", "blocks.1", "blocks.1", "blocks.2.act"]
    assert report.coverage == pytest.approx(5 / 18)
    wrong = compare(reference, {"blocks.*.up": linear("blocks.0.up")})
    assert not wrong.passed and wrong.first_divergence.module == "blocks.1.up" and wrong.last_good.module == "blocks.0.up"


@pytest.mark.parametrize("port, status, words", [
    ({"encoder.*": len}, "missing", "no module of the reference matches"),
    ({"blocks.0.up": lambda x: 1 / 0}, "failed", "ZeroDivisionError"),
    ({"blocks.0.up": lambda x: None}, "missing", "returned no tensor"),
    ({"blocks.0.up": lambda x: x}, "shape", "expected [2, 7, 96]"),
    ({"blocks.0": lambda x: {"hidden": x}}, "missing", "it returned hidden"),
    ({"blocks.0.up": lambda x: "text"}, "failed", "no tensor"),
])
def test_callables_that_fail(made, port, status, words):
    report = compare(made[2], port)
    assert not report.passed and any(row.status == status and words in row.reason for row in report.rows), report.to_text(all_rows=True)


def test_an_extra_output_is_a_row(made):
    model, _, reference, _ = made
    report = compare(reference, {"blocks.0.norm": wants_torch(lambda x: (model.blocks[0].norm(x), x))})
    assert [row.status for row in report.rows] == ["compared", "extra"] and report.passed


@pytest.mark.parametrize("bad, error, words", [
    ({"port": 3}, PortingError, "expected a capture"),
    ({"port": "/nowhere/at/all"}, FileNotFoundError, "no such"),
    ({"port": {"a": len, "b": np.ones(1)}}, PortingError, "mixes"),
    ({"port": {}, "mode": "sideways"}, ValueError, "isolated"),
    ({"port": {"blocks.0": len}, "mode": "both"}, ValueError, "callables"),
    ({"port": {"blocks.0": len}, "mode": "chained"}, ValueError, "callables"),
    ({"port": {}, "tol": "loose"}, ValueError, "no tolerance"),
])
def test_bad_arguments_get_a_sentence(made, bad, error, words):
    with pytest.raises(error, match=words):
        compare(made[2], **bad)


def test_files_that_are_not_what_they_say(tmp_path):
    good = tmp_path / "good.safetensors"
    save_file({"a.out.0": np.arange(6, dtype="f4").reshape(2, 3), "empty": np.zeros((0, 3), "f4")}, good)
    arrays = open_files(good)
    assert arrays["a.out.0"].tolist() == [[0, 1, 2], [3, 4, 5]] and arrays["empty"].shape == (0, 3)
    data = good.read_bytes()
    for i, bad in enumerate((b"", data[:20], data[:-1], b"\xff" * 64, (5).to_bytes(8, "little") + b"[1,2]", data.replace(b'"F32"', b'"F99"'),
                             data.replace(b"[2,3]", b"[2,9]"), data.replace(b"[2,3]", b"[-2,-3]"[:5]))):
        file = tmp_path / f"{i}.safetensors"
        file.write_bytes(bad)
        with pytest.raises(_core.FormatError, match="not a safetensors file"):
            open_files(file)
    for name in ("x.npz", "x.npy"):
        (tmp_path / name).write_bytes(b"not this")
    with pytest.raises(_core.FormatError):
        open_files(tmp_path / "x.npz")
    with pytest.raises(_core.FormatError):
        open_files(tmp_path / "x.npy")["x"]
    with pytest.raises(_core.FormatError, match="ends with"):
        (tmp_path / "x.bin").write_bytes(b"")
        open_files(tmp_path / "x.bin")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(_core.FormatError):
        open_files(tmp_path / "object.npy")["object"]


def test_outputs_without_inputs_are_said_to_be_judged_as_of_the_references_inputs(made):
    """A whole run that wrote its outputs alone may carry errors: the report says how to let it be judged."""
    capture = made[2]
    carried = {name: array * np.float32(1 + 1e-5) if array.dtype == np.float32 else array for name, array in outputs(capture).items()}
    report = compare(capture, carried)
    said = [text for text in report.warnings if "whose inputs the port does not hold" in text]
    assert not report.passed and len(said) == 1 and 'compare in mode "chained"' in said[0]
    with_inputs = {name: capture[name] for name in capture} | {"head.out.0": capture["head.out.0"] * np.float32(2)}
    for port, mode in ((with_inputs, "isolated"), (carried, "chained"), (outputs(capture), "isolated")):
        assert not any("inputs the port does not hold" in text for text in compare(capture, port, mode=mode).warnings)


def test_a_layer_that_is_no_callable_is_refused_at_once(made):
    capture = made[2]
    with pytest.raises(TypeError, match="port must be a callable or a torch.nn.Module, got int"):
        layer_test(3, capture, "head")


def test_layer_says_what_is_wrong(made):
    model, _, reference, _ = made
    assert layer_test(model.blocks[0].up, reference, "blocks.0.up", tol="exact").num_exact == 1
    assert layer_test(model.blocks[2], reference.path, "blocks.2").passed
    with pytest.raises(ParityError) as caught:
        layer_test(model.blocks[1].up, reference, "blocks.0.up")
    text = str(caught.value)
    for part in ("blocks.0.up.out.0", "elements differ", "at (", "ulp", "band: red", "allowed: err <="):
        assert part in text
    assert isinstance(caught.value, AssertionError) and caught.value.report.num_failed == 1
    with pytest.raises(ParityError, match=r"shape \[2, 7, 48\], expected \[2, 7, 96\]"):
        layer_test(lambda x: x, reference, "blocks.0.up")
    with pytest.raises(ParityError, match="raised ZeroDivisionError"):
        layer_test(lambda x: 1 // 0, reference, "blocks.0.up")
    with pytest.raises(_core.LayerNotFoundError):
        layer_test(lambda x: x, reference, "blocks.0.upp")
    with pytest.raises(PortingError, match="no captured call 7"):
        layer_test(lambda x: x, reference, "blocks.0.up", call=7)


def test_names_cannot_steer_a_terminal(made):
    _, _, reference, _ = made
    report = compare(reference, {**outputs(reference), "\x1b[31mred.out.0": np.ones(1)})
    assert "\x1b" not in report.to_text() and "\\x1b" in report.to_text(all_rows=True)


def test_a_thousand_rows_stay_readable(made):
    _, _, reference, _ = made
    row = compare(reference, outputs(reference)).rows[3]
    import dataclasses

    rows = [dataclasses.replace(row, name=f"layers.{i}.mlp.out.0", module=f"layers.{i}.mlp", call=0) for i in range(1000)]
    report = Report(rows, 1000)
    assert report.passed and len(report.to_text().splitlines()) < 8 and "layers.*.mlp" in report.to_text()
    assert len(report.to_text(all_rows=True).splitlines()) > 1000


def test_a_whole_module_is_a_port(made):
    model, _, reference, _ = made
    report = compare(reference, model)
    assert report.passed and report.coverage == 1.0, report.to_text()
    other = Model()
    report = compare(reference, other)
    assert not report.passed and report.num_failed > 0
    assert not compare(reference, torch.nn.Linear(2, 2)).passed


class Gate(torch.nn.Module):
    """An argument that may be None stands before one that may not be mistaken for it."""

    def forward(self, x, mask=None, bias=None):
        return (x if mask is None else x * mask) + (0 if bias is None else bias)


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Gate()

    def forward(self, x, bias):
        return self.gate(x, None, bias)


def test_functions_get_arguments_by_name_or_place_with_none_in_its_place(tmp_path):
    model = Gated().eval()
    path = tmp_path / "gated.capture"
    ActivationCollector(model, path)(torch.randn(3, 4), torch.randn(4))[1].close()
    with porting.capture.open(path) as acts:
        layer_test(lambda x, mask=None, bias=None: (x if mask is None else x * mask) + bias, acts, "gate")
        layer_test(lambda a, b, c: a + c if b is None else a * b, acts, "gate")
        layer_test(lambda a, b: a + b, acts, "gate")
        layer_test(lambda bias, x: x + bias, acts, "gate")
        with pytest.raises(ParityError):
            layer_test(lambda x, mask=None, bias=None: x, acts, "gate")
        with pytest.raises((PortingError, ParityError), match="takes 1 arguments, the call had x, mask, bias"):
            layer_test(lambda a: a, acts, "gate")
