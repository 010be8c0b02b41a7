"""Whole programs: chained checks, porting.run, the pass that shows most modules at once, and generation in C."""
import json
import os
import sys

import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, LayerNotFoundError, PortingError, check
from porting.profiles import settings
from porting.program import NoProgramError, run_call
from porting.providers import use_provider
from porting.roots import root_calls
from porting.whole import outputs_of_calls, shown_exact
from transformers import LlamaConfig, LlamaForCausalLM

EXAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "examples")


def llama(seed=0, **options):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                        vocab_size=50, eos_token_id=None, **options)).eval()


def llama_run(model, tokens=4, **options):
    return model.generate(torch.arange(14).reshape(2, 7), attention_mask=torch.tensor([[1] * 7, [0, 0] + [1] * 5]), max_new_tokens=tokens,
                          do_sample=False, pad_token_id=0, **options)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A left-padded batch: a prefill and three decode steps."""
    use_provider("auto")  # torch's own products, as check takes them
    path = tmp_path_factory.mktemp("whole") / "a"
    with ActivationCollector(llama(), path) as collector:
        llama_run(collector._model)
    with collector.capture as opened:
        yield opened


def with_wrong_norm(capture, monkeypatch, name="layers.1.input_layernorm.weight"):
    """The capture with one parameter changed: C computes something else from that norm on."""
    full = next(n for n in capture.parameters if n.endswith(name))
    real = type(capture.parameters).__getitem__
    monkeypatch.setattr(type(capture.parameters), "__getitem__",
                        lambda self, key: real(self, key) * np.float32(1.01) if key == full else real(self, key))


def test_a_chained_check_is_bit_for_bit(capture):
    report = check(capture, mode="chained")
    assert report.passed and report.coverage == 1.0 and report.num_exact == report.num_calls == check(capture).num_exact, report.to_text()
    assert report.environment["mode"] == "chained"
    with pytest.raises(ValueError, match="mode is"):
        check(capture, mode="both")


def test_a_chained_check_shows_what_an_error_becomes(capture, monkeypatch):
    with_wrong_norm(capture, monkeypatch)
    isolated, chained = check(capture, include="*"), check(capture, mode="chained")
    assert isolated.first_divergence.module == chained.first_divergence.module == "model.layers.1.input_layernorm"
    names = {row.module for row in isolated.rows if not row.passed}
    assert names == {"model.layers.1.input_layernorm", "model.layers.1", "model", ""}, "alone only the norm and what contains it are wrong"
    after = {row.module for row in chained.rows if row.band != "exact"}
    assert {"model.layers.1.mlp.gate_proj", "lm_head", "model.norm"} <= after and "model.layers.0.mlp" not in after


def test_one_run_of_the_whole_shows_only_what_it_shows(capture, monkeypatch):
    ways = settings("as-captured", capture.environment)
    everything = {(call.module, call.number) for call in capture.call_list}
    assert set().union(*(shown_exact(root, ways) for root in root_calls(capture))) == everything
    with_wrong_norm(capture, monkeypatch)
    shown = set().union(*(shown_exact(root, ways) for root in root_calls(capture)))
    wrong = {module for module, _ in everything - shown}
    assert wrong == {"model.layers.1.input_layernorm", "model.layers.1", "model", ""}, "modules after it are run on the captured values"


def test_run_gives_what_is_asked_for(capture):
    names = ["model.layers.0.mlp@1.in.0", "model.layers.1.self_attn@1.out.0", "@1.in.0"]
    found = porting.run(capture, 1, fetch=names)
    assert list(found.tensors) == names and all(np.array_equal(found.tensors[name], capture[name]) for name in names)
    call = capture.call("", 1)
    assert found.outputs.keys() == call.outputs.keys() and all(np.array_equal(a, call.outputs[leaf]) for leaf, a in found.outputs.items())
    op = next(name for name in range(100) if root_calls(capture)[0].program.ops[name][0] == "aten.embedding.default")
    assert porting.run(capture, fetch=[f"model.embed_tokens.op.{op - 0}.aten.embedding.default.out.0"]).tensors
    ids = call.arguments["input_ids"]
    other = porting.run(capture, 1, inputs={"input_ids": (ids + 1) % 50})
    assert not np.array_equal(other.outputs["logits"], found.outputs["logits"])
    with pytest.raises(LayerNotFoundError, match="no tensor of call 1"):
        porting.run(capture, 1, fetch=["model.layers.0.mlp.out.0"])
    with pytest.raises(LayerNotFoundError, match="has no input ids; it has input_ids"):
        porting.run(capture, 1, inputs={"ids": ids})
    with pytest.raises(PortingError, match="call is the number of a captured call, got ndarray; arrays of your own go into inputs="):
        porting.run(capture, np.asarray(ids))
    with pytest.raises(PortingError, match="inputs is a mapping of input_ids.* to arrays, got list"):
        porting.run(capture, 1, inputs=[ids])
    with pytest.raises(NoProgramError, match="expected int64 .2, 1., got int64 .2, 2.: a program runs at the sizes it was recorded at; porting.Engine runs other sizes if"):
        porting.run(capture, 1, inputs={"input_ids": np.zeros((2, 2), "i8")})
    with pytest.raises(NoProgramError, match="no program was recorded for call 9"):
        porting.run(capture, 9)


def test_outputs_of_all_calls_are_those_of_single_runs(capture):
    root = root_calls(capture)[1]
    found = outputs_of_calls(root, settings("as-captured", capture.environment))
    for call in capture.calls("model.layers.1.mlp"):
        if call.step == root.step:
            assert np.array_equal(found[call.module, call.number]["0"], run_call(capture, call).outputs["0"])


# ---------------------------------------------------------------- generation


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "a"
    with ActivationCollector(llama(), path, include="^$") as collector:
        llama_run(collector._model, 3)
    with collector.capture as opened:
        yield porting.Engine(opened)


def generate(engine, tokens):
    sys.path.insert(0, EXAMPLES)
    try:
        import generate as example
    finally:
        sys.path.remove(EXAMPLES)
    takes = set(engine.capture.call("").input_names.values())
    mask = np.array([[1] * 7, [0, 0] + [1] * 5])
    return example.generate(engine, np.arange(14).reshape(2, 7), mask, tokens, -1, takes)


def test_text_generated_in_c_is_bit_for_bit_the_same(engine):
    expected = llama_run(llama(), 24, return_dict_in_generate=True, output_logits=True)
    tokens, logits = generate(engine, 24)
    assert np.array_equal(tokens, expected.sequences[:, 7:].numpy())
    assert all(np.array_equal(a.view("u4"), b.numpy().view("u4")) for a, b in zip(logits, expected.logits, strict=True))
    other = llama_run(llama(seed=1), 24, return_dict_in_generate=True, output_logits=True)
    assert not np.array_equal(tokens, other.sequences[:, 7:].numpy())


def test_arguments_that_were_not_recorded_are_refused(engine):
    ids, positions, mask = np.arange(14).reshape(2, 7), np.tile(np.arange(7), (2, 1)), np.array([[1] * 7, [0, 0] + [1] * 5])
    step = engine(input_ids=ids, position_ids=positions, attention_mask=mask)
    given = {"input_ids": ids[:, :1], "position_ids": positions[:, :1] + 7, "attention_mask": np.ones((2, 8), "i8"),
             "past_key_values": step.part("past_key_values")}
    with pytest.raises(NoProgramError, match="position_ids is not given"):
        engine(input_ids=ids, attention_mask=mask)
    with pytest.raises(NoProgramError, match="token_type_ids is given, which it has not"):
        engine(input_ids=ids, position_ids=positions, attention_mask=mask, token_type_ids=ids)
    with pytest.raises(NoProgramError, match=r"input_ids is \[2, 6\], expected \[2, 7\]"):
        engine(input_ids=ids[:, :6], position_ids=positions[:, :6], attention_mask=mask[:, :6])
    with pytest.raises(NoProgramError, match=r"input_ids is int32 \[2, 7\]"):
        engine(input_ids=ids.astype("i4"), position_ids=positions, attention_mask=mask)
    with pytest.raises(NoProgramError, match=r"attention_mask is \[2, 9\], expected \[2, kv \+ 1\]"):
        engine(**{**given, "attention_mask": np.ones((2, 9), "i8")})
    cache = {leaf: a[:, :, :5] if leaf == "1.key" else a for leaf, a in given["past_key_values"].items()}
    with pytest.raises(NoProgramError, match=r"past_key_values.1.key is .*with kv 7"):
        engine(**{**given, "past_key_values": cache})
    padded = {**given, "attention_mask": np.array([[1] * 8, [0, 0] + [1] * 6])}
    assert engine(**padded)["logits"].shape == (2, 1, 50)


def test_one_decode_step_stands_for_its_own_length_only(tmp_path):
    with ActivationCollector(llama(), tmp_path / "a", include="^$") as collector:
        llama_run(collector._model, 2)
    with collector.capture as opened:
        engine = porting.Engine(opened)
        with pytest.raises(NoProgramError, match="only one length of the cache was recorded: capture two decode steps"):
            generate(engine, 4)
        assert generate(engine, 2)[0].shape == (2, 2)


def test_a_capture_without_programs_makes_no_engine(tmp_path):
    _, opened = ActivationCollector(torch.nn.Linear(2, 2), tmp_path / "a", program=False)(torch.ones(1, 2))
    with opened, pytest.raises(NoProgramError, match="has no program of a whole call of the root: none was recorded"):
        porting.Engine(opened)


# ---------------------------------------------------------------- single ops and expectations, in the core


def test_what_the_core_refuses_of_single_ops_and_expectations():
    program = {"values": [["F32", [2], [1], 0]] * 4, "parameters": {}, "constants": {}, "modules": [],
               "ops": [["aten.neg.default", [{"v": 0}], {}, [1]], ["aten.exp.default", [{"v": 1}], {}, [2]], ["aten.neg.default", [{"v": 0}], {}, [3]]],
               "root": "", "calls": [0]}
    core = porting._core.Program(json.dumps(program).encode())
    x, y = np.array([1, 2], "f4"), np.array([5, 6], "f4")
    assert np.array_equal(core.run(0, 3, {0: x}, [3], only=[2])[0], -x)
    with pytest.raises(ValueError, match="value 2 is asked for"):
        core.run(0, 3, {0: x}, [2], only=[0, 2])
    for only in ([2, 0], [0, 0], [3], [-1]):
        with pytest.raises(ValueError, match="cannot be run alone: expected ascending ops"):
            core.run(0, 3, {0: x}, [3], only=only)
    with pytest.raises(ValueError, match="values cannot be asked for, or expected, in between"):
        core.run(0, 3, {0: x}, [1], only=[0], fetch_at=[0])
    assert core.run(0, 3, {0: x}, [], expects=[(0, -1, x), (1, 0, -x), (1, 0, y), (2, 1, y), (3, 2, -x.astype("f8"))])[1] == [True, True, False, False, False]
    for expects in ([(1, 1, x), (1, 0, x)], [(4, 0, x)], [(-1, 0, x)], [(0, 3, x)], [(0, -2, x)]):
        with pytest.raises(ValueError, match="expectations come in the order of ops"):
            core.run(0, 3, {0: x}, [], expects=expects)
    values, answers = core.run(0, 3, {0: x}, [2], expects=[(1, 0, np.zeros(2, "f4"))], restore=True)
    assert answers == [False] and np.array_equal(values[0], np.ones(2, "f4"))
    with pytest.raises(TypeError):
        core.run(0, 3, {0: x}, [], expects=[(0, 0)])


class HandsOn(torch.nn.Module):
    """Returns, besides what it makes, an input and tensors of its own that no op touches."""

    def __init__(self):
        super().__init__()
        self.scale, self.window = torch.nn.Parameter(torch.randn(3)), torch.tensor([4, 5])
        self.inner = torch.nn.Identity()

    def forward(self, x, positions):
        self.inner(self.window)
        return {"y": x * 2, "positions": positions, "scale": self.scale, "window": self.window}


def test_what_no_op_touches_is_handed_on(tmp_path):
    torch.manual_seed(0)
    model, x, positions = HandsOn(), torch.randn(2, 3), torch.arange(3)
    with ActivationCollector(model, tmp_path / "a") as collector, torch.no_grad():
        model(x, positions)
    with collector.capture as capture:
        report = check(capture, mode="chained")
        assert report.passed and report.num_calls == report.num_exact == 2, report.to_text()
        other = np.array([7, 8, 9])
        for found in (porting.run(capture, inputs={"positions": other}).outputs, porting.Engine(capture)(x=x.numpy(), positions=other)):
            np.testing.assert_array_equal(found["positions"], other)
            np.testing.assert_array_equal(found["window"], [4, 5])
            np.testing.assert_array_equal(found["scale"], model.scale.detach().numpy())
        assert porting.run(capture, fetch=["inner.out.0"]).tensors["inner.out.0"].tolist() == [4, 5]
