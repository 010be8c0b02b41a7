"""Runs that are not the plain case: hooks of the user's, gradients, threads, copies, compilers, nested collectors."""
import copy
import io
import pickle
import sys
import threading
import types

import pytest
import torch
from plain_hooks import PlainHooks, bits, differences, num_hooks, same_bits
from porting import ActivationCollector
from porting.weights import Weights

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))


def mlp():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(8, 4)))


class Interrupts(torch.nn.Module):
    """Ends with `error` inside an inner module while `armed`."""

    def __init__(self, error):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Tanh())
        self.inner.append(Fuse(error))

    def forward(self, x):
        return self.inner(x) * 2


class Fuse(torch.nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error, self.armed = error, True

    def forward(self, x):
        if self.armed:
            raise self.error
        return x + 1


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_calls_that_were_left_by_an_exception_are_closed(kind, held):
    model = Interrupts(kind("mine"))
    kept = []
    with ActivationCollector(model, program="all") as collector:
        for _ in range(2):
            try:
                model(X)
            except BaseException as error:
                if held:
                    kept.append(error)  # its traceback keeps the frames of the call
        model.inner[1].armed = False
        lone = model.inner[0](X)  # outside of any root call
        output = model(X)
    acts = collector.capture
    assert [(c.number, c.step, c.returned) for c in acts.calls("")] == [(0, 0, False), (1, 1, False), (2, 2, True)]
    assert [(c.step, c.returned) for c in acts.calls("inner.0")] == [(0, True), (1, True), (2, True), (2, True)]
    assert same_bits(acts["@2.out.0"], output) and same_bits(acts["inner.0@2.out.0"], lone)
    assert [p.calls for p in acts.programs if p.root == ""][-1] == [2]
    last = [p for p in acts.programs if p.root == ""][-1]
    assert sorted((i.name, i.call) for i in last.intervals) == [("", 2), ("inner", 2), ("inner.0", 3), ("inner.1", 2)]
    assert len(kept) == (2 if held else 0)


def test_after_an_exception_outside_a_root_nothing_is_recorded_on():
    model = Interrupts(ValueError("mine"))
    with ActivationCollector(model, program="all") as collector:
        assert not torch._C._len_torch_dispatch_stack()
        with pytest.raises(ValueError):
            model.inner(X)
        assert not torch._C._len_torch_dispatch_stack()
    assert [(c.module, c.returned) for c in collector.capture.call_list] == [("inner", False), ("inner.0", True), ("inner.1", False)]


class CatchesInside(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fuse = Fuse(KeyboardInterrupt())
        self.after = torch.nn.Tanh()

    def forward(self, x):
        try:
            self.fuse(x)
        except KeyboardInterrupt:
            return self.after(x)


def test_an_interrupt_that_the_model_catches_closes_only_the_call_that_it_left():
    model = CatchesInside()
    output, acts = ActivationCollector(model, program="all")(X)
    assert [(c.module, c.step, c.returned) for c in acts.call_list] == [("", 0, True), ("fuse", 0, False), ("after", 0, True)]
    assert same_bits(acts["out.0"], output) and {i.name for i in acts.programs[0].intervals} == {"", "after"}


def test_a_hook_of_the_users_that_raises_leaves_the_outer_call_open():
    class Twice(torch.nn.Module):
        def forward(self, x, depth=1):
            if depth:
                with pytest.raises(ZeroDivisionError):
                    self(x, depth=0)
            return x + depth

    def refuse(module, args, kwargs):
        if kwargs.get("depth") == 0:
            raise ZeroDivisionError

    model = Twice()
    model.register_forward_pre_hook(refuse, with_kwargs=True)  # runs before ours, so that the inner call is never seen
    output, acts = ActivationCollector(model)(X)
    assert [c.returned for c in acts.calls("")] == [True] and same_bits(acts["out.0"], output)


def test_user_hooks_that_change_inputs_and_outputs():
    model = mlp().eval()
    model[0].register_forward_pre_hook(lambda m, args: (args[0] * 3,))
    model[0].register_forward_hook(lambda m, args, output: output - 1)
    model[2].register_forward_pre_hook(lambda m, args, kwargs: ((args[0].abs(),), kwargs), with_kwargs=True)
    model[2].register_forward_hook(lambda m, args, kwargs, output: (output, {"twice": output * 2}), with_kwargs=True)
    with PlainHooks(model) as plain:
        expected = model(X)
    output, acts = ActivationCollector(model)(X)
    assert bits(output) == bits(expected) and differences(acts, plain.seen) == []
    assert same_bits(acts["2.out.1.twice"], expected[1]["twice"]) and (acts["2.in.0"] >= 0).all()
    assert same_bits(acts["0.in.0"], X * 3) and not same_bits(acts["0.in.0"], X)


@pytest.mark.parametrize("program", [False, "all"])
def test_dropout_draws_the_same_numbers(program):
    model = mlp().train()
    torch.manual_seed(11)
    expected, state = model(X), torch.get_rng_state()
    torch.manual_seed(11)
    output, acts = ActivationCollector(model, program=program)(X)
    assert bits(output) == bits(expected) and torch.equal(torch.get_rng_state(), state)
    assert same_bits(acts["out.0"], expected) and not same_bits(acts["1.out.0"], torch.from_numpy(acts["1.in.0"].copy()))


@pytest.mark.parametrize("program", [False, "all"])
def test_gradients_are_the_same(program):
    model = mlp().eval()
    x = X.clone().requires_grad_()
    model(x).square().sum().backward()
    expected = [x.grad.clone(), *(p.grad.clone() for p in model.parameters())]
    model.zero_grad()
    x.grad = None
    with ActivationCollector(model, program=program) as collector:
        output = model(x)
        assert output.requires_grad and output.grad_fn is not None
        output.square().sum().backward()
        model[0](x.view(3, 4)[1:])  # a view that requires gradients
    assert [bits(t) for t in (x.grad, *(p.grad for p in model.parameters()))] == [bits(t) for t in expected]
    assert same_bits(collector.capture["out.0"], output) and same_bits(collector.capture["0@1.in.0"], x[1:])


@pytest.mark.parametrize("program", [False, "all"])
@pytest.mark.parametrize("state", [torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)])
def test_inference_mode_and_autocast(program, state):
    model = mlp().eval()
    with state():
        with PlainHooks(model) as plain:
            expected = model(X)
        output, acts = ActivationCollector(model, program=program)(X)
        assert bits(output) == bits(expected) and output.is_inference() == expected.is_inference()
        assert differences(acts, plain.seen) == []


def test_a_copy_or_a_pickle_of_a_hooked_model_works_and_is_not_captured():
    model = mlp().eval()
    with ActivationCollector(model) as collector:
        copied = copy.deepcopy(model)
        pickled = pickle.loads(pickle.dumps(model))
        stream = io.BytesIO()
        torch.save(model, stream)
        stream.seek(0)
        loaded = torch.load(stream, weights_only=False)
        expected = model(X)
        for other in (copied, pickled, loaded):
            assert torch.equal(other(X + 1), model.eval()(X + 1)) and other is not model
            del other
    acts = collector.capture
    assert len(acts.calls("")) == 4 and acts.notes == [] and same_bits(acts["out.0"], expected)
    assert num_hooks(model) == 0 and torch.equal(copied(X), expected)


def test_nested_collectors_are_both_complete():
    model = mlp().eval()
    with PlainHooks(model) as plain:
        model(X)
    with ActivationCollector(model, program="all") as outer:
        with ActivationCollector(model, program="all") as inner:
            output = model(X)
    for acts in (outer.capture, inner.capture):
        assert differences(acts, plain.seen) == [] and same_bits(acts["out.0"], output)
        assert sorted(i.name for i in acts.programs[0].intervals) == ["", "0", "1", "2", "2.0", "2.1"] and acts.notes == []
        assert any(op[0] == "aten.addmm.default" for op in acts.programs[0].ops)
    assert num_hooks(model) == 0 and not torch._C._len_torch_dispatch_stack()


@pytest.mark.parametrize("program", [False, "all"])
def test_two_threads_in_one_model(program):
    model = mlp().eval()
    inputs = [torch.randn(2, 4, generator=torch.Generator().manual_seed(i)) for i in range(40)]
    expected = [model(x) for x in inputs]
    outputs = [None] * len(inputs)

    def work(first):
        for i in range(first, len(inputs), 2):
            outputs[i] = model(inputs[i])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ActivationCollector(model, program=program) as collector:
            threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    acts = collector.capture
    assert [bits(o) for o in outputs] == [bits(e) for e in expected] and acts.notes == []
    assert sorted(c.outputs["0"].tobytes() for c in acts.calls("")) == sorted(e.detach().numpy().tobytes() for e in expected)
    by_input = {x.numpy().tobytes(): e for x, e in zip(inputs, expected)}
    assert all(same_bits(c.outputs["0"], by_input[c.inputs["input"].tobytes() if "input" in c.inputs else c.inputs["0"].tobytes()])
               for c in acts.calls(""))
    for step in acts.steps:  # the calls of a step belong together, whichever thread made them
        calls = {c.module: c for c in acts.call_list if c.step == step}
        assert len(calls) == 6 and calls["0"].inputs["0"].tobytes() == calls[""].inputs["0"].tobytes()


def test_what_a_zero_tensor_stands_for_is_stored():
    class Zero(torch.nn.Module):
        def forward(self, x):
            return torch._efficientzerotensor((2, 3)), x

    acts = ActivationCollector(Zero(), program=False)(X)[1]
    assert same_bits(acts["out.0"], torch.zeros(2, 3)) and same_bits(acts["out.1"], X) and acts.notes == []


def test_an_output_that_is_a_generator_still_gives_its_items():
    class Gives(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.step = torch.nn.Tanh()

        def forward(self, x):
            for _ in range(2):
                x = self.step(x)
                yield x

    model = Gives()
    with ActivationCollector(model) as collector:
        items = list(model(X))
    acts = collector.capture
    assert torch.equal(items[1], X.tanh().tanh()) and same_bits(acts["step@1.out.0"], items[1])
    assert [c.returned for c in acts.call_list] == [True] * 3


def test_generate_with_hidden_states():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                         vocab_size=40, max_position_embeddings=32)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    options = {"input_ids": torch.tensor([[1, 5, 9]]), "max_new_tokens": 3, "do_sample": False, "output_hidden_states": True,
               "return_dict_in_generate": True, "pad_token_id": 0, "eos_token_id": None}
    with PlainHooks(model) as plain:
        expected = model.generate(**options)
    output, acts = ActivationCollector(model.generate)(**options)
    assert bits(output.sequences) == bits(expected.sequences) and bits(output.hidden_states) == bits(expected.hidden_states)
    assert differences(acts, plain.seen) == [] and acts.steps == range(3)
    assert same_bits(acts["out.hidden_states.1"], expected.hidden_states[0][1])


def test_only_what_changed_in_a_cache_is_read_again():
    from transformers import DynamicCache

    class Layer(torch.nn.Module):
        def forward(self, index, cache):
            if index >= 0:
                cache.update(torch.full((1, 1, 1, 4), float(index)), torch.full((1, 1, 1, 4), -float(index)), index)

    model = torch.nn.ModuleList([Layer() for _ in range(4)])
    cache = DynamicCache()
    for i in range(4):
        cache.update(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), i)
    with ActivationCollector(model, program=False) as collector, PlainHooks(model) as plain:
        for step in range(3):
            for i, layer in enumerate(model):
                layer(i if step < 2 else -1, cache)
        cache.layers[1].keys[0, 0, 0, 0] = 5  # in place
        cache.layers[2].values = cache.layers[2].values.clone()  # equal, elsewhere
        cache.layers.pop()
        model[0](-1, cache)
        cache.update(torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4), 3)
        model[0](-1, cache)
    acts = collector.capture
    assert differences(acts, plain.seen) == []
    ids = [list(c.leaf_ids("in").values()) for c in acts.calls("0")]
    assert [a == b for a, b in zip(ids[3], ids[2])] == [True] * 2 + [False] + [True] * 3 and len(ids[4]) == 8


@pytest.mark.filterwarnings("error:Dynamo does not know how to trace")
def test_a_compiled_model_computes_the_same_and_says_what_may_be_missing():
    model = mlp().eval()
    expected = model(X)
    compiled = torch.compile(model, backend="eager")
    with ActivationCollector(compiled, program=False) as collector:
        output = compiled(X)
    assert torch.equal(output, expected)
    acts = collector.capture
    assert [n["where"] for n in acts.notes if "compiled: the modules inside may not be seen" in n["reason"]] == [""]
    assert len(acts.calls("")) == 1 and same_bits(acts["out.0"], expected)
    for call in acts.call_list:  # what is there is right
        assert call.module in ("", "_orig_mod") or same_bits(
            call.outputs["0"], model.get_submodule(call.module.removeprefix("_orig_mod."))(torch.from_numpy(call.inputs["0"].copy())))
    assert torch.equal(compiled(X), expected)  # and afterwards too


def test_a_configuration_with_odd_keys_is_kept(tmp_path):
    """Vocabularies in a configuration map every character, NUL too."""

    class Config:
        def to_dict(self):
            return {"vocabulary": {"\0": 1, "a": 2, "\ud800": 3}}

    model = mlp()
    model.config = Config()
    with ActivationCollector(model, tmp_path / "capture")(X)[1] as capture:
        (root,) = capture.manifest["model"]["roots"].values()
        assert root["config"]["vocabulary"] == {"\\0": 1, "a": 2, "\\ud800": 3}


def test_a_replaced_buffer_leaves_its_name_to_nobody():
    """A run may replace a buffer, and the next tensor get the old one's identity."""
    module = torch.nn.BatchNorm1d(3)
    weights = Weights([types.SimpleNamespace(is_root=True, module=module, name="model")], None, None, None)
    list(weights.named())
    before = id(module.running_mean)
    assert weights.name_of(module.running_mean) == "model.running_mean"
    module.running_mean = torch.ones(3)
    made = [torch.ones(3)]
    while id(made[-1]) != before and len(made) < 10000:
        made.append(torch.ones(3))
    assert id(made[-1]) == before and weights.name_of(made[-1]) is None and weights.name_of(module.weight) == "model.weight"
