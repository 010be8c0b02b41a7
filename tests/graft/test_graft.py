"""Ports in the running model: what they do to the answer, what the report says, and that nothing of them is left."""
import copy
import gc

import numpy as np
import porting
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def make_llama():
    torch.manual_seed(7)
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    return LlamaForCausalLM(config).eval()


class Pipe:
    """What a pipeline is to us: an object that holds a module."""

    def __init__(self, model):
        self.model = model

    def __call__(self, ids):
        return self.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)


def numpy_mlp(model, layer, scale=1.0):
    mlp = model.model.layers[layer].mlp
    gate, up, down = (p.weight.detach().numpy().astype(np.float64) for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def port(x):
        g = x @ gate.T
        return ((g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T * scale).astype(np.float32)

    return port


IDS = torch.arange(5)[None]


def test_a_right_port_changes_nothing_and_a_wrong_one_is_told_and_seen():
    model = make_llama()
    pipe = Pipe(model)
    answer = pipe(IDS)
    with porting.graft(pipe, {"model.model.layers.1.mlp": numpy_mlp(model, 1)}) as grafted:
        assert torch.equal(pipe(IDS), answer)
    report = grafted.report
    mlp = [row for row in report.rows if row.kind != "root"]
    roots = [row for row in report.rows if row.kind == "root" and row.name.endswith("logits")]
    assert report.passed and len(mlp) == 4 and [row.call for row in mlp] == [0, 1, 2, 3] and {row.band for row in mlp} <= {"exact", "green", "amber"}
    assert len(roots) == 4 and all("the greatest logit of the last position is the same" in row.reason for row in roots)
    assert grafted.modules == ["model.model.layers.1.mlp"]

    with porting.graft(pipe, {"model.layers.1.mlp": numpy_mlp(model, 1, scale=-40.0)}) as grafted:
        assert not torch.equal(pipe(IDS), answer)
    report = grafted.report
    assert not report.passed and report.first_divergence.name == "model.model.layers.1.mlp.out.0"
    assert any("another one" in row.reason for row in report.rows if row.kind == "root")
    assert torch.equal(pipe(IDS), answer)


def test_every_module_is_itself_again_whatever_happens():
    model = make_llama()
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    expected = model(IDS).logits

    def fails(x):
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"), porting.graft(model, {"*.mlp": fails}):
        model(IDS)
    with pytest.raises(KeyboardInterrupt), porting.graft(model, {"*.mlp": lambda x: x}):
        raise KeyboardInterrupt
    grafted = porting.graft(model, {"*.mlp": lambda x: np.zeros_like(x)})
    with grafted, pytest.raises(porting.PortingError, match="grafted already"):
        grafted.__enter__()
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    own = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = own  # an instance's own forward, as accelerate has it
    with porting.graft(model, {"*.mlp": lambda x: np.zeros_like(x)}) as grafted:
        assert not torch.equal(model(IDS).logits, expected)
    assert model.model.layers[0].mlp.__dict__["forward"] is own and torch.equal(model(IDS).logits, expected)
    del grafted
    gc.collect()


@pytest.mark.parametrize(("ports", "words"), [
    ({"model.layers.9.mlp": abs}, r"no module matches 'model.layers.9.mlp'; did you mean model.layers.\d.mlp"),
    ({"*.mlp": abs, "model.layers.0.mlp": round}, "is matched by"),
    ({"model.layers.0": abs, "*.gate_proj": round}, "is inside model.layers.0"),
    ({}, "takes a mapping"), ({"*.mlp": 3}, "takes a mapping"), (None, "takes a mapping"),
])
def test_what_cannot_be_grafted_is_refused_with_the_reason(ports, words):
    with pytest.raises(porting.PortingError, match=words):
        porting.graft(make_llama(), ports)


def test_tuples_dicts_dtypes_and_what_a_port_leaves_out():
    class Two(torch.nn.Module):
        def forward(self, x):
            return x * 2, x.sum(-1), None

    class Named(torch.nn.Module):
        def forward(self, x):
            return {"a": x + 1, "b": (x, x - 1)}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.named = Two(), Named()
            self.again = self.two

        def forward(self, x):
            first, second, nothing = self.two(x)
            assert nothing is None
            third, _, _ = self.again(first)
            named = self.named(third)
            return named["a"] + named["b"][1] + second[:, None]

    x = torch.randn(3, 4).bfloat16()
    model = Model()
    expected = model(x)
    ports = {"two": lambda x: x.astype(np.float32) * 2, "named": lambda x: {"a": x + 1, "b": (x, x - 1)}}
    with porting.graft(model, ports) as grafted:
        assert torch.equal(model(x), expected)
    rows = [row for row in grafted.report.rows if row.kind != "root"]
    assert [(row.name, row.status) for row in rows] == [
        ("two.out.0", "compared"), ("two.out.1", "missing"), ("two@1.out.0", "compared"), ("two@1.out.1", "missing"),
        ("named.out.a", "compared"), ("named.out.b.0", "compared"), ("named.out.b.1", "compared")]
    assert "the port returned float32, rounded to bfloat16" in rows[0].reason and "The module's own is used" in rows[1].reason
    with pytest.raises(porting.PortingError, match=r"two call 0, output 0: the port returned shape \[4, 3\], the module \[3, 4\]"), \
            porting.graft(model, {"two": lambda x: x.T}):
        model(x)
    with pytest.raises(porting.PortingError, match="returned int64"), porting.graft(model, {"two": lambda x: np.zeros((3, 4), np.int64)}):
        model(x)


def test_a_module_as_port_gets_tensors_and_the_cache_stays_the_models():
    model, other = make_llama(), make_llama()
    pipe = Pipe(model)
    answer = pipe(IDS)
    with porting.graft(model, {"model.layers.1.self_attn": other.model.layers[1].self_attn}, compare_root=False) as grafted:
        assert torch.equal(pipe(IDS), answer)
    assert grafted.report.passed or {row.status for row in grafted.report.rows} == {"compared", "missing"}
    assert not any(row.kind == "root" for row in grafted.report.rows)
    with torch.no_grad():
        other.model.layers[1].self_attn.q_proj.weight.mul_(1.5)
    with porting.graft(model, {"model.layers.1.self_attn": other.model.layers[1].self_attn}) as grafted:
        pipe(IDS)
    assert grafted.report.first_divergence.module == "model.layers.1.self_attn"


def test_a_block_in_which_nothing_ran_does_not_pass():
    with porting.graft(make_llama(), {"*.mlp": abs}) as grafted:
        pass
    assert not grafted.report.passed and "no grafted module was called" in str(grafted.report)


def test_a_port_may_call_the_module_that_it_stands_for():
    """Or a copy made while it is grafted; it gets the module's own forward, not itself without end."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())

    def halved(x):
        return model[0](torch.as_tensor(x)) * 0.5

    ports = {"itself": model[0], "wrapped": lambda x: model[0](torch.as_tensor(x)), "copied": lambda x: copy.deepcopy(model[0])(torch.as_tensor(x))}
    with torch.no_grad():
        for name, port in ports.items():
            with porting.graft(model, {"0": port}) as grafted:
                model(torch.randn(3, 8))
            assert grafted.report.passed, name
        with porting.graft(model, {"0": halved}) as grafted:
            model(torch.randn(3, 8))
    assert not grafted.report.passed


def test_the_first_wrong_call_is_diagnosed():
    model = make_llama()
    half = {"*.layers.1.mlp": numpy_mlp(model, 1, scale=0.5)}
    for explain in (True, False):
        with porting.graft(Pipe(model), half, explain=explain) as grafted:
            model.generate(IDS, max_new_tokens=2, do_sample=False, pad_token_id=0)
        cause = grafted.report.cause
        if not explain:
            assert cause is None
            continue
        assert (cause.cause, cause.module) in {(name, "model.model.layers.1.mlp") for name in ("scale", "output-scaled")} and "0.5" in cause.detail
        assert "output-scaled" in {cause.cause, *(other.cause for other in cause.also)}  # the values do not tell them apart
    with porting.graft(Pipe(model), {"*.layers.1.mlp": numpy_mlp(model, 1)}) as grafted:
        model(IDS)
    assert grafted.report.passed and grafted.report.cause is None

    wrong = copy.deepcopy(model.model.layers[2].self_attn)  # called with a cache: the module is run again on the one before the call
    wrong.scaling *= 3
    with porting.graft(Pipe(model), {"*.layers.2.self_attn": wrong}) as grafted:
        model.generate(IDS, max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert grafted.report.cause.cause in ("attention-scale", "scale") and grafted.report.cause.residual < 6, grafted.report.cause


def test_a_grafted_port_keeps_its_own_layout():
    """The port holds (channels, tokens); the layout brings its inputs and outputs there and back, and says so where it is for nothing."""
    model = make_llama()
    mlp = model.model.layers[0].mlp

    def port(x):
        assert x.shape[1] == 32
        return numpy_mlp(model, 0)(x.swapaxes(1, 2)).swapaxes(1, 2)

    with torch.no_grad(), porting.graft(model, {"*.layers.0.mlp": port}, layout="b c t -> b t c") as grafted:
        model(IDS)
    assert grafted.report.passed and not grafted.report.warnings
    with torch.no_grad(), porting.graft(model, {"*.layers.0.mlp": mlp}, layout={"*.up_prjo.*": "b c t -> b t c"}) as grafted:
        model(IDS)
    assert "has a name like *.up_prjo.*" in grafted.report.warnings[0]
    with torch.no_grad(), pytest.raises(AssertionError), porting.graft(model, {"*.layers.0.mlp": port}):
        model(IDS)
