"""compare() on captures of whole ports: who is blamed when errors are carried along, and how sharply composites are judged."""
import copy
import json
import types

import numpy as np
import porting.capture
import pytest
import torch
import transformers
from porting import _core, demo
from porting.compare import compare
from porting.golden import accuracy, condition_factor, golden_run
from porting.hooks import ActivationCollector
from porting.judging import CallJudge, run_on_inputs
from porting.pair import bits_equal
from porting.program import NoProgramError, run_call
from porting.tolerance import Tolerance

SMALL = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=101)


def tiny(kind, **options):
    torch.manual_seed(1)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **options)).eval()


MODELS = {
    "llama": lambda: tiny("llama", num_key_value_heads=2, **SMALL),
    "bert": lambda: tiny("bert", **SMALL),
    "gpt2": lambda: tiny("gpt2", n_embd=64, n_layer=3, n_head=4, vocab_size=101),
    "minilm": lambda: demo.minilm_pipeline().model.eval(),
}


class Pair:
    """A model, its inputs (one row padded) and its capture."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.model = MODELS[name]().requires_grad_(False)
        torch.manual_seed(0)
        mask = torch.ones(2, 17, dtype=torch.long)
        mask[1, 12:] = 0
        self.inputs = {"input_ids": torch.randint(0, self.model.config.vocab_size, (2, 17)), "attention_mask": mask}
        self.reference = self.capture(self.model, "reference")

    def capture(self, model, name, **options):
        with torch.no_grad():
            ActivationCollector(model, self.folder / name, **options)(**self.inputs)[1].close()
        return self.folder / name

    def port(self, *changes):
        """The capture of a changed copy, and the last change's module."""
        broken = copy.deepcopy(self.model)
        planted = [change(broken) for change in changes]
        name = "-".join(change.__name__ for change in changes)
        path = self.folder / name
        return (path if path.exists() else self.capture(broken, name)), planted[-1]


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request, tmp_path_factory):
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Pair("llama", tmp_path_factory.mktemp("llama-alone"))


# ---------------------------------------------------------------- ports


def float64_linears(model):
    """No fault: every Linear in float64, rounded once, as another BLAS may be."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = types.MethodType(lambda self, x: torch.nn.functional.linear(
                x.double(), self.weight.double(), None if self.bias is None else self.bias.double()).float(), module)


def other_sums(model):
    """No fault: every Linear summed in two halves of K."""
    def halves(self, x):
        k = x.shape[-1] // 2
        y = x[..., :k] @ self.weight[:, :k].T + x[..., k:] @ self.weight[:, k:].T
        return y if self.bias is None else y + self.bias

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = types.MethodType(halves, module)


def eager_attention(model):
    """No fault: two products and a softmax for the fused kernel."""
    model.set_attn_implementation("eager")


def last_norm(model):
    names = [name for name, _ in model.named_modules() if name.endswith(("input_layernorm", "attention.output.LayerNorm", "ln_2"))]
    return names[-1], model.get_submodule(names[-1])


def wrong_eps(model):
    """eps 1e-5 for the reference's 1e-6 or 1e-12 (or the other way round) deep in the model."""
    name, module = last_norm(model)
    attribute = "variance_epsilon" if hasattr(module, "variance_epsilon") else "eps"
    setattr(module, attribute, 1e-5 if getattr(module, attribute) != 1e-5 else 1e-6)
    return name


def bad_channel(model):
    """One row of one weight is 0.1 % off."""
    name = [n for n, m in model.named_modules() if n.endswith(("mlp.up_proj", "intermediate.dense", "mlp.c_fc"))][1]
    module = model.get_submodule(name)
    weight = module.weight.detach().clone()
    (weight[:, 3] if "c_fc" in name else weight[3]).mul_(1.001)
    module.weight = torch.nn.Parameter(weight, requires_grad=False)
    return name


def wrong_scale(model):
    """Attention's scale is 1 % off in the second layer."""
    name = [n for n, _ in model.named_modules() if n.endswith(("self_attn", "attention.self", ".attn"))][1]
    module = model.get_submodule(name)
    module.scaling = module.scaling * 1.01
    return name


def shifted_mask(model):
    """In one layer every query sees one key less (or more) than it should."""
    name = [n for n, _ in model.named_modules() if n.endswith(("self_attn", "attention.self", ".attn"))][1]
    module = model.get_submodule(name)
    inner = module.forward

    def forward(*args, **kwargs):
        kept = torch.nn.functional.scaled_dot_product_attention

        def shifted(q, k, v, attn_mask=None, is_causal=False, **options):
            keep = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril() if is_causal or attn_mask is None else attn_mask
            keep = keep.clone()
            keep[..., 1] = False
            return kept(q, k, v, attn_mask=keep, **options)

        torch.nn.functional.scaled_dot_product_attention = shifted
        try:
            return inner(*args, **kwargs)
        finally:
            torch.nn.functional.scaled_dot_product_attention = kept

    module.forward = forward
    return name


CLEAN = [(eager_attention,), (float64_linears, eager_attention), (other_sums,)]
WRONG = [wrong_eps, bad_channel, wrong_scale, shifted_mask]


def refused(report):
    return [row.name for row in report.rows if row.status == "compared" and not row.passed]


@pytest.mark.parametrize("changes", CLEAN, ids=lambda c: "-".join(f.__name__ for f in c))
def test_ports_that_only_round_pass_however_deep(pair, changes):
    path, _ = pair.port(*changes)
    report = compare(pair.reference, path)
    assert report.passed, report.to_text()
    carried = [row for row in report.rows if row.local_metrics is not None]
    assert all(row.reason.startswith("carried: inputs differ, own arithmetic right") for row in carried)
    if pair.name != "gpt2" or eager_attention in changes:  # its products are Conv1D, which the others leave alone
        assert len(carried) > len(report.rows) // 2 and all(row.inputs_differ for row in carried)
        assert any(row.amplification is not None and 0 < row.amplification < 100 for row in carried)


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("rounding", [None, float64_linears])
def test_the_module_whose_own_arithmetic_is_wrong_comes_first(pair, fault, rounding):
    """Alone, and in a port that has rounded otherwise in everything before it."""
    if fault is wrong_eps and pair.name == "gpt2":
        rounding = None
    path, planted = pair.port(*([rounding] if rounding else []), fault)
    report = compare(pair.reference, path, explain=False)
    assert not report.passed and report.first_divergence.module == planted, report.to_text()
    enclosing = {"", *(planted.rsplit(".", k)[0] for k in range(1, planted.count(".") + 1))}
    assert {row.module for row in report.rows if row.status == "compared" and not row.passed} <= {planted, *enclosing}, refused(report)


def test_a_residual_dropped_between_modules_is_the_layer_s(llama):
    def without_residual(model):
        layer = model.layers[1]

        def forward(self, hidden_states, **kwargs):
            attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
            return attended + self.mlp(self.post_attention_layernorm(attended))

        layer.forward = types.MethodType(forward, layer)
        return "layers.1"

    path, planted = llama.port(float64_linears, without_residual)
    report = compare(llama.reference, path)
    assert report.first_divergence.module == planted and report.cause.module == planted and "addend-missing" in str(report.cause)
    assert all(row.passed for row in report.rows if row.module.startswith("layers.1."))


def test_chained_counts_what_is_carried_and_both_shows_it(llama):
    path, planted = llama.port(wrong_scale)
    isolated, chained, both = (compare(llama.reference, path, mode=mode, explain=False) for mode in ("isolated", "chained", "both"))
    assert isolated.first_divergence.module == both.first_divergence.module == planted
    assert chained.first_divergence.module == planted + ".o_proj"  # which returned first, with the error it was given
    assert len(refused(chained)) > len(refused(isolated)) == len(refused(both)) > 0
    assert all(row.chained is None for row in isolated.rows) and all(row.local_metrics is None for row in chained.rows)
    later = next(row for row in both.rows if row.module == "layers.2.mlp")
    assert later.passed and not later.chained.passed and later.metrics["num_unequal"] and later.local_metrics["max_err_scale"] < later.metrics["max_err_scale"]
    assert later.name in refused(chained) and "chained DIFFERENT" in both.to_text()
    facts = {row["name"]: row for row in json.loads(both.to_json())["rows"]}
    assert facts[later.name]["chained"]["passed"] is False and facts[later.name]["amplification"] > 0 and facts[later.name]["passed"]
    with pytest.raises(ValueError, match="'isolated', 'chained', 'both'"):
        compare(llama.reference, path, mode="sideways")


def test_without_a_program_what_is_carried_is_judged_by_the_ladder(llama):
    """Neither blamed for rounding, nor excused for a fault; the reason says why it was not judged alone."""
    plain = llama.capture(llama.model, "plain", program=False)
    clean, _ = llama.port(float64_linears)
    report = compare(plain, clean)
    assert report.passed and all(row.local_metrics is None for row in report.rows)
    wrong, planted = llama.port(bad_channel)
    report = compare(plain, wrong)
    assert report.first_divergence.module == planted
    assert any("not judged on the port's own inputs" in row.reason and "no programs" in row.reason for row in report.rows if not row.passed)


def test_a_port_in_files_with_its_inputs_is_judged_on_them(llama):
    with porting.capture.open(llama.port(float64_linears, bad_channel)[0]) as port:
        arrays = {name: np.array(port[name]) for name in port}
    report = compare(llama.reference, arrays, explain=False)
    assert report.first_divergence.module == "layers.1.mlp.up_proj" and report.first_divergence.local_metrics is not None
    arrays["layers.2.mlp.down_proj.in.0"] = arrays["layers.2.mlp.down_proj.in.0"].astype("f8")  # a form that cannot be fed: no blame from it
    rows = {row.name: row for row in compare(llama.reference, arrays, explain=False).rows}
    assert rows["layers.2.mlp.down_proj.out.0"].local_metrics is None and rows["layers.2.mlp.down_proj.out.0"].inputs_differ


# ---------------------------------------------------------------- running on other inputs


def test_a_call_runs_on_other_inputs(llama):
    with porting.capture.open(llama.reference) as reference:
        call = reference.calls("layers.1.mlp")[0]
        x = call.inputs["0"] * np.float32(1.5)
        expected = llama.model.layers[1].mlp(torch.from_numpy(x)).numpy()
        found = run_call(reference, call, inputs={"0": x}).outputs["0"]
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max() and not np.allclose(found, call.outputs["0"], rtol=1e-3)
        assert bits_equal(run_call(reference, call, inputs={}).outputs["0"], run_call(reference, call).outputs["0"])
        with pytest.raises(NoProgramError, match=r"input 0: expected float32 \[2, 17, 64\], got float32 \[17, 64\]"):
            run_call(reference, call, inputs={"0": x[0]})
        with pytest.raises(NoProgramError, match="expected float32 .* got float64"):
            run_call(reference, call, inputs={"0": x.astype("f8")})
        result, stand_ins = run_on_inputs(reference, call, {}, "auto")
        assert stand_ins == ["0"] and list(result.outputs) == ["0"]


# ---------------------------------------------------------------- float64


def test_the_float64_run_is_torchs_in_float64(pair):
    wide = copy.deepcopy(pair.model).double()
    with torch.no_grad():
        expected = wide(**pair.inputs).last_hidden_state.numpy()
    with porting.capture.open(pair.reference) as reference:
        call = reference.calls("")[0]
        golden = golden_run(reference, call)["last_hidden_state"]
        assert golden.dtype == np.float64 and np.abs(golden - expected).max() < 3e-6 * np.abs(expected).max()  # constants of the f32 run stay f32's
        kappa = condition_factor(call.outputs["last_hidden_state"], golden)
        assert kappa.shape == (2, 17, 1) and 1 < kappa.max() < 100
        assert condition_factor(call.outputs["last_hidden_state"] * np.float32(1.01), golden) is None  # no rounding is as large as that
        facts = accuracy(call.outputs["last_hidden_state"], golden.astype("f4"), golden)
        assert facts["port"] < 1 < facts["reference"] and facts["ratio"] < 1
        assert accuracy(golden.astype("f4"), call.outputs["last_hidden_state"], golden)["ratio"] > 1


@pytest.mark.parametrize("provider", _core.providers())
def test_a_composite_is_judged_by_its_own_rounding(pair, provider):
    """Other BLAS stay green or amber at every module; the same error times 20 does not, and the report says whose it is."""
    with porting.capture.open(pair.reference) as reference:
        for call in reference.call_list:
            judge = CallJudge(reference, call, Tolerance.auto(), provider=provider)
            if judge.kind not in ("composite", "attention"):
                continue
            for leaf, actual in run_call(reference, call, provider=provider).outputs.items():
                expected = call.outputs[leaf]
                if expected.dtype != np.float32 or leaf not in judge.golden:
                    continue
                found, _ = judge.judge(leaf, expected, actual)
                assert found.passed, (call.module, found.reason)
                kappa = condition_factor(expected, judge.golden[leaf])
                size = np.sqrt(np.mean(np.square(expected.astype("f8")), -1, keepdims=True)) + np.abs(expected)
                at = np.unravel_index(np.argmax(size), size.shape)
                wrong = expected.copy()
                wrong[at] += np.float32(100 * 2.0**-24 * (kappa * size)[at])
                found, golden = judge.judge(leaf, expected, wrong)
                assert not found.passed and "kappa = " in found.verdict.allowed and golden["port"] > 0, (call.module, found.reason)


def test_equal_bits_need_no_scale():
    x = np.float32([1, np.nan, -np.inf, 0])
    assert bits_equal(x, x.copy()) and not bits_equal(x, np.float32([1, np.nan, -np.inf, 1e-45])) and not bits_equal(x, x.astype("f8"))
    assert bits_equal(np.float32(3)[None], np.float32([3])) and not bits_equal(x, x[:2]) and bits_equal(x[::2], x[::2].copy())
    assert not bits_equal(np.float32([0.0]), np.float32([-0.0])) and not bits_equal(np.zeros((3, 4), np.float32).T, -np.zeros((3, 4), np.float32).T)
