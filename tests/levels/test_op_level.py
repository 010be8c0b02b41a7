"""level="op": tensors of every op, each op run again in C on what it was given, and a port whose ops are wrong."""
import json
import subprocess
import sys
import warnings

import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, FormatError, PortingError, check, compare
from porting.op_level import OpRuns, ops_of
from porting.roots import root_calls
from transformers import LlamaConfig, LlamaForCausalLM


class Functional(torch.nn.Module):
    """No submodule but one; memory that is changed through views, and memory that nobody set."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8))
        self.last = torch.nn.Linear(8, 3)
        self.wrong = False

    def forward(self, x, state):
        y = torch.empty(4, 8).fill_(0.5)
        y[1:3] = x[1:3]  # y changes through a view of it
        z = y * 2
        turned = z.t()
        z.mul_(self.weight)  # `turned` changes, too
        state.add_(1)  # an input changes in place
        z = z + state
        gain = torch.tanh(turned).t() * (1.01 if self.wrong else 1.0)
        first, second = gain.chunk(2, 1)
        return self.last(torch.cat([first + z[:, :4], second], 1)), z


def inputs():
    torch.manual_seed(1)
    return torch.randn(4, 8), torch.randn(4, 8)


def functional(path, wrong=False, **options):
    torch.manual_seed(0)
    model = Functional().eval()
    model.wrong = wrong
    with torch.no_grad():
        return ActivationCollector(model, path, level="op", **options)(*inputs())


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    output, capture = functional(tmp_path_factory.mktemp("ops") / "a")
    yield output, capture
    capture.close()


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A tiny Llama that generates with a cache: a prefill and three decode steps that share a program."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                         vocab_size=50, eos_token_id=None)).eval()
    path = tmp_path_factory.mktemp("llama") / "a"
    with ActivationCollector(model, path, level="op"):
        model.generate(torch.arange(7)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    return path


def test_the_run_is_as_it_is_without(ops):
    torch.manual_seed(0)
    model = Functional().eval()
    with torch.no_grad():
        expected = model(*inputs())
    assert all(torch.equal(a, b) for a, b in zip(ops[0], expected))


def test_every_op_has_its_tensors_and_views_have_none(ops):
    names = [name for name in ops[1] if ".op." in f".{name}"]
    kinds = [name.split(".")[3] for name in names if name.startswith("op.")]
    assert not {"slice", "t", "split", "empty"} & set(kinds)
    assert {"fill_", "copy_", "mul", "mul_", "add_", "add", "tanh", "cat"} <= set(kinds)
    assert any(name.startswith("last.op.") and name.endswith("addmm.default.out.0") for name in names)
    x, state = (t.numpy() for t in inputs())
    fill = next(name for name in names if "fill_" in name)
    assert np.array_equal(ops[1][fill], np.full((4, 8), 0.5, "f4")), "as it was then, not as it became"
    stored = [name for name in names if ".in." in name]
    assert sorted(name.split(".")[3] for name in stored) == ["mul", "tanh"], "what changed through another tensor, and nothing else"
    assert np.array_equal(ops[1][next(n for n in stored if "mul" in n)][1:3], x[1:3])


def test_every_op_is_checked_on_what_it_was_given(ops):
    report = check(ops[1], level="op")
    assert report.passed and report.coverage == 1.0, report.to_text()
    assert report.num_exact == report.num_calls == len({row.module for row in report.rows}) and "ops checked" in report.summary
    assert check(ops[1]).passed, "modules too"
    with pytest.raises(ValueError, match="level is"):
        check(ops[1], level="layer")


@pytest.mark.parametrize("op", ["mul.Tensor", "tanh", "cat", "addmm", "add_"])
def test_a_wrong_op_of_a_port_is_found_at_that_op(ops, op):
    port = {name: ops[1][name] for name in ops[1]}
    name = next(name for name in port if f".aten.{op}" in name and ".out." in name)
    port[name] = port[name].copy()
    port[name].flat[3] *= 1 + 1e-4
    report = compare(ops[1], port, level="op")
    assert not report.passed and report.first_divergence.name == name
    assert compare(ops[1], {n: ops[1][n] for n in ops[1]}, level="op").num_exact == report.num_calls


def test_a_fault_in_functional_code_is_carried_by_the_ops_after_it(ops, tmp_path):
    _, port = functional(tmp_path / "port", wrong=True)
    with port:
        report = compare(ops[1], port, level="op")
        assert report.first_divergence.module.endswith("aten.mul.Tensor") and report.num_failed == 1, report.to_text()
        carried = [row for row in report.rows if row.reason.startswith("carried")]
        assert carried and all(row.passed and row.inputs_differ for row in carried) and carried[-1].module.startswith("last.op.")
        assert compare(ops[1], port).first_divergence.module == "", "of modules only the root itself can be named"


def test_a_wrong_kernel_is_found_at_its_op(ops, monkeypatch):
    """What C computes is compared, not what was stored: an op that computes something else is refused."""
    real = OpRuns.run

    def wrong(self, op, operands, ways):
        found = real(self, op, operands, ways)
        return {leaf: a * np.float32(1.001) for leaf, a in found.items()} if op.name == "aten.tanh.default" else found

    monkeypatch.setattr(OpRuns, "run", wrong)
    report = check(ops[1], level="op")
    assert [row.module.split(".", 2)[2] for row in report.rows if not row.passed] == ["aten.tanh.default"]


def test_a_model_with_a_cache(generated):
    with porting.open(generated) as capture:
        assert [len(program.calls) for program in capture.programs] == [1, 3], "recorded each time, and found equal"
        report = check(capture, level="op")
        assert report.passed and report.num_exact == report.num_calls > 400, report.to_text()
        cats = [row for row in report.rows if row.module.endswith(f"self_attn.op.{row.module.split('.op.')[1]}") and "aten.cat" in row.module]
        assert {row.step for row in cats} == {0, 1, 2, 3}, "what became of the cache inside a module"
        only = check(capture, level="op", include="model.layers.1.mlp")
        assert only.passed and {row.module.split(".op.")[0] for row in only.rows} == {"model.layers.1.mlp"}


def test_equal_numbers_under_another_program_are_not_taken_for_it(tmp_path):
    """With level="op" a call that would have shared a program is compared with it: one that took another branch has its own."""

    class Branches(torch.nn.Module):
        count = 0

        def forward(self, x):
            self.count += 1
            return x * 2 if self.count != 3 else x + x + 1

    model = Branches()
    with ActivationCollector(model, tmp_path / "a", level="op") as collector:
        for _ in range(4):
            model(torch.ones(3))
    with collector.capture as capture:
        assert [len(program.ops) for program in capture.programs] == [1, 2, 1]
        assert check(capture, level="op").num_exact == 5


def test_filters_leave_ops_out(tmp_path):
    _, capture = functional(tmp_path / "a", blacklist_regexes=r"\.fill_")
    with capture:
        assert not any("fill_" in name for name in capture)
        report = check(capture, level="op")
        lacking = [row for row in report.rows if row.status == "no program"]
        assert lacking and "which is not in the capture" in lacking[0].reason and not report.passed
    _, capture = functional(tmp_path / "b", include="last")
    with capture:
        assert [name.split(".op.")[0] for name in capture if ".op." in name] == ["last"] and check(capture, level="op").num_exact == 1


def test_ops_up_to_an_exception_are_kept(tmp_path):
    class Fails(torch.nn.Module):
        def forward(self, x):
            y = x + 1
            raise RuntimeError(f"no {y.shape}")

    collector = ActivationCollector(Fails(), tmp_path / "a", level="op")
    with pytest.raises(RuntimeError, match="no torch.Size"):
        collector(torch.ones(2))
    with collector.capture as capture:
        assert np.array_equal(capture["op.0.aten.add.Tensor.out.0"], np.full(2, 2, "f4"))


def test_what_has_no_values_is_noted(tmp_path):
    class Sparse(torch.nn.Module):
        def forward(self, x):
            return x.to_sparse().to_dense() + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output, capture = ActivationCollector(Sparse(), tmp_path / "a", level="op")(torch.eye(3))
    with capture:
        assert torch.equal(output, torch.eye(3) + 1)
        assert any(note["kind"] == "dropped" and ".out.0" in note["where"] for note in capture.notes)


def test_options_that_make_no_sense(tmp_path, generated):
    with pytest.raises(ValueError, match='level="op" keeps the tensors of recorded ops'):
        ActivationCollector(torch.nn.Linear(2, 2), level="op", program=False)
    with pytest.raises(ValueError, match="level is"):
        ActivationCollector(torch.nn.Linear(2, 2), level="ops")
    _, plain = ActivationCollector(torch.nn.Linear(2, 2), tmp_path / "plain")(torch.ones(1, 2))
    with plain, porting.open(generated) as capture:
        with pytest.raises(PortingError, match="holds no tensors of ops"):
            check(plain, level="op")
        with pytest.raises(PortingError, match="the port holds no tensor of an op"):
            compare(capture, plain, level="op")
        with pytest.raises(ValueError, match='level "op" compares'):
            compare(capture, capture, level="op", mode="both")


def test_records_that_do_not_fit_the_program(generated, tmp_path):
    import shutil

    shutil.copytree(generated, tmp_path / "a")
    program = json.loads((tmp_path / "a" / "program.json").read_text())
    entry = program["programs"][0]
    k = next(k for k, op in enumerate(entry["ops"]) if op[0] == "aten.mm.default")
    entry["ops"][k][0] = "aten.sub.Tensor"
    (tmp_path / "a" / "program.json").write_text(json.dumps(program))
    with porting.open(tmp_path / "a") as capture, pytest.raises(FormatError, match="aten.mm.default.out.0: the program has no such op there"):
        check(capture, level="op")


def test_names(ops):
    capture = ops[1]
    name = next(name for name in capture if name.startswith("last.op."))
    assert porting.naming.split_name(name)[:3] == ("last", 0, "op") and capture.resolve(name) == name
    leaf = porting.naming.split_name(name)[3]
    assert np.array_equal(capture.call("last").op_tensors[leaf], capture[name])
    found = {op.label: op for _, op in ops_of(capture)}
    assert found[name.rsplit(".out.", 1)[0]].k == 1 and len(root_calls(capture)) == 1


def test_the_command_line(generated):
    def porting_(*args):
        return subprocess.run([sys.executable, "-m", "porting", *map(str, args)], capture_output=True, text=True, check=False)

    listed = porting_("ls", generated, "*layers.0.mlp.op.*")
    assert listed.returncode == 0 and "model.layers.0.mlp.op." in listed.stdout
    name = listed.stdout.split()[0]
    assert "float32" in porting_("show", generated, name).stdout
    checked = porting_("check", generated, "--level", "op", "--include", "*layers.0.*")
    assert checked.returncode == 0 and "ops checked" in checked.stdout, checked.stdout + checked.stderr
    same = porting_("compare", generated, generated, "--level", "op")
    assert same.returncode == 0 and "ops compared" in same.stdout


class Conjugated(torch.nn.Module):
    """A conjugate, which torch only marks, is read by the ops after it."""

    def __init__(self, wrong=False):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        z = torch.view_as_complex(x)
        return torch.view_as_real(z * (z if self.wrong else z.conj()).clone())


def test_conjugates_are_made_again(tmp_path):
    x = torch.randn(5, 3, 2)
    _, capture = ActivationCollector(Conjugated(), tmp_path / "a", level="op")(x)
    _, other = ActivationCollector(Conjugated(wrong=True), tmp_path / "b", level="op")(x)
    with capture, other:
        report = check(capture, level="op", provider="torch")
        assert report.passed and report.num_checked == report.num_calls == report.num_exact, report.to_text()
        assert {row.status for row in report.rows} == {"compared"}
        assert not compare(capture, other).passed
