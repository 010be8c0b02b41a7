"""Module calls of real captures, run in C and compared with what torch returned in the captured run."""

import numpy as np
import porting
import pytest
import torch
import transformers
from porting import UnsupportedError
from porting.program import NoProgramError, run_call
from torch import nn


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + ("norm" in name.lower()))
    return model.eval()


def tokens(*shape, seed=1):
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


def capture_of(model, path, run, **options):
    with torch.no_grad(), porting.ActivationCollector(model, path, **options):
        run()
    return porting.open(path)


def agrees(call, result):
    assert not result.missing and result.outputs.keys() == set(call.outputs)
    for leaf, actual in result.outputs.items():
        expected = call.outputs[leaf]
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, call.full_name("out", leaf)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=call.full_name("out", leaf))


def run_all(capture):
    for call in capture.call_list:
        if len(call.outputs):
            agrees(call, run_call(capture, call))
    return len(capture.call_list)


@pytest.fixture(scope="module")
def llama_capture(tmp_path_factory):
    config = transformers.LlamaConfig(vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, intermediate_size=96)  # fmt: skip
    model = randomise(transformers.LlamaForCausalLM(config))
    path = tmp_path_factory.mktemp("llama") / "run.capture"
    with capture_of(model, path, lambda: model.generate(tokens(2, 5), max_new_tokens=6, do_sample=False)) as capture:
        yield capture


def test_generation(llama_capture):
    assert [(p.calls, p.symbols) for p in llama_capture.programs] == [([0], []), ([1, 2, 3, 4, 5], ["kv"])]
    assert run_all(llama_capture) > 150


def test_result_names_its_ops_and_gives_the_values_asked_for(llama_capture):
    call = llama_capture.calls("model.layers.0.mlp")[3]
    result = run_call(llama_capture, call, provider="reference")
    assert result.provider == "reference" and "aten.silu.default" in result.ops
    silu = next(op for op in result.program.ops[result.interval.begin : result.interval.end] if op[0] == "aten.silu.default")
    again = run_call(llama_capture, call, provider="reference", fetch=silu[3])
    gate = llama_capture.calls("model.layers.0.mlp.act_fn")[3].outputs["0"]
    np.testing.assert_allclose(again.values[silu[3][0]], gate, rtol=1e-4, atol=1e-6)


def test_a_wrong_weight_is_seen(llama_capture):
    call = llama_capture.calls("model.layers.0.mlp")[0]
    program = run_call(llama_capture, call).program
    names = {name: value for value, name in program.parameters.items()}
    up, gate = names["model.layers.0.mlp.up_proj.weight"], names["model.layers.0.mlp.gate_proj.weight"]
    right = dict(program.parameters)
    program.parameters.update({up: right[gate], gate: right[up]})
    try:
        with pytest.raises(AssertionError, match="model.layers.0.mlp.out"):
            agrees(call, run_call(llama_capture, call))
    finally:
        program.parameters.update(right)


def test_encoder_that_runs_before_the_first_step(tmp_path):
    config = transformers.T5Config(vocab_size=97, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0)
    model = randomise(transformers.T5ForConditionalGeneration(config))
    with capture_of(model, tmp_path / "c", lambda: model.generate(tokens(2, 7), max_new_tokens=4, do_sample=False)) as capture:
        assert [p.root for p in capture.programs][:2] == ["encoder", ""]
        assert run_all(capture) > 150


class Branches(nn.Module):
    def forward(self, t):
        return t * 2 if (t.sum() > 0).item() else t * 3


def test_branch_that_the_shared_program_did_not_take(tmp_path):
    model = Branches()

    def run():
        for sign in (1, 1, 1, -1):
            model(torch.full((3,), float(sign)))

    with capture_of(model, tmp_path / "c", run) as capture:
        (program,) = capture.programs
        assert program.calls == [0, 1, 2, 3]
        for call in capture.calls("")[:3]:
            agrees(call, run_call(capture, call))
        with pytest.raises(NoProgramError, match="@3: .* does not stand for this call: .*_local_scalar_dense.*program='all'"):
            run_call(capture, capture.calls("")[3])
    with capture_of(model, tmp_path / "all", run, program="all") as capture:
        assert run_all(capture) == 4


class Hidden(nn.Module):
    """The inner module reads what the outer one left in an attribute, and a counter changes in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.inner = Inner(self)

    def forward(self, t):
        self.count.add_(1)
        self.note = t + self.count
        return self.inner(t)


class Inner(nn.Module):
    def __init__(self, owner):
        super().__init__()
        self.owner = [owner]
        self.plain = torch.tensor([3.0, 5.0])

    def forward(self, t):
        return t * self.owner[0].note + self.plain


def test_tensors_reached_through_attributes(tmp_path):
    model = Hidden()
    with capture_of(model, tmp_path / "c", lambda: [model(torch.tensor([float(i), 2.0])) for i in range(3)]) as capture:
        assert run_all(capture) == 6


def test_no_program_says_why(tmp_path, llama_capture):
    model = nn.Linear(3, 3)
    with capture_of(model, tmp_path / "c", lambda: model(torch.ones(1, 3)), program=False) as capture:
        with pytest.raises(NoProgramError, match="program=False"):
            run_call(capture, capture.calls("")[0])
    programs = llama_capture.programs
    first = programs.pop(0)
    try:
        with pytest.raises(NoProgramError, match="lm_head: no program was recorded for it in step 0"):
            run_call(llama_capture, llama_capture.calls("lm_head")[0])
        agrees(llama_capture.calls("lm_head")[1], run_call(llama_capture, llama_capture.calls("lm_head")[1]))
    finally:
        programs.insert(0, first)


def test_op_without_kernel_is_named(tmp_path):
    class Custom(nn.Module):
        def forward(self, t):
            return torch.special.airy_ai(t) + 1

    model = Custom()
    with capture_of(model, tmp_path / "c", lambda: model(torch.ones(3))) as capture:
        with pytest.raises(UnsupportedError, match=r"aten\.special_airy_ai\.default"):
            run_call(capture, capture.calls("")[0])


def test_modules_that_returned_before_an_exception_can_be_run(tmp_path):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)

        def forward(self, t):
            self.first(t)
            raise ZeroDivisionError("the model's own")

    model = Fails()
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        with porting.ActivationCollector(model, tmp_path / "c"):
            model(torch.ones(1, 3))
    with porting.open(tmp_path / "c") as capture:
        (call,) = capture.calls("first")
        agrees(call, run_call(capture, call))


def test_layout_of_inputs_is_that_of_the_run(tmp_path):
    class Flattens(nn.Module):
        def forward(self, t):
            return t.as_strided((6,), (1,)) * 2  # reads memory in its own order

    model = Flattens()
    with capture_of(model, tmp_path / "c", lambda: model(torch.arange(6.0).reshape(2, 3).t())) as capture:
        assert run_all(capture) == 1
