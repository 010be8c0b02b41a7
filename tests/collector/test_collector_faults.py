"""One test for each fault of the collectors that people copy around; each is named after its fault."""
import collections
import dataclasses
import re

import numpy as np
import pytest
import torch
import transformers as tf
from plain_hooks import PlainHooks, differences, num_hooks, same_bits
from porting import ActivationCollector, LayerNotFoundError
from transformers.modeling_outputs import BaseModelOutput

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))


def net(*layers):
    return torch.nn.Sequential(*layers)


def capture(model, *args, **kwargs):
    return ActivationCollector(model)(*args, **kwargs)[1]


def test_a_bare_module_is_captured():
    linear = torch.nn.Linear(4, 5)
    output, acts = ActivationCollector(linear)(X)
    assert list(acts) == ["in.0", "out.0"]
    assert same_bits(acts["in.0"], X) and same_bits(acts["out.0"], output)


def test_in_place_relu_does_not_change_the_recorded_output():
    model = net(torch.nn.Linear(4, 5), torch.nn.ReLU(inplace=True))
    expected = model[0](X).detach()
    acts = capture(model, X)
    assert (expected < 0).any()
    assert same_bits(acts["0.out.0"], expected) and same_bits(acts["1.in.0"], expected)
    assert same_bits(acts["1.out.0"], expected.relu())
    assert acts.tensor_id("1.in.0") != acts.tensor_id("1.out.0")


def test_inputs_are_read_before_forward():
    class Spoils(torch.nn.Module):
        def forward(self, x):
            x.mul_(0)
            return x + 1

    acts = capture(Spoils(), X.clone())
    assert same_bits(acts["in.0"], X)


class Named(torch.nn.Module):
    def forward(self, first, second=None, *more, scale=1.0, **further):
        return first if second is None else first + second


def test_kwargs_keep_their_names_and_the_order_of_the_signature():
    y = X + 1
    acts = capture(Named(), second=y, first=X)
    assert same_bits(acts["in.0"], X) and same_bits(acts["in.1"], y)
    assert same_bits(acts["in.second"], y) and same_bits(acts["in.first"], X)
    assert acts.call("").input_names == {"0": "first", "1": "second"}
    assert list(acts.call("").arguments) == ["first", "second"]


def test_variadic_and_further_arguments_have_places():
    acts = capture(Named(), X, X + 1, X + 2, X + 3, zeta=X + 5, alpha=X + 4, scale=X + 9)
    assert acts.call("").input_names == {
        "0": "first", "1": "second", "2": "more.0", "3": "more.1", "4": "scale", "5": "alpha", "6": "zeta"}
    assert [float(a[0, 0] - X[0, 0]) for a in acts.inputs("").values()] == pytest.approx([0, 1, 2, 3, 9, 4, 5], abs=1e-5)
    arguments = acts.call("").arguments
    assert list(arguments) == ["first", "second", "more", "scale", "alpha", "zeta"] and len(arguments["more"]) == 2
    assert same_bits(acts["in.more.1"], X + 3)


def test_none_does_not_shift_the_numbers():
    class Masked(torch.nn.Module):
        def forward(self, x, mask, y):
            return x + y

    acts = capture(Masked(), X, None, X + 1)
    assert [n for n in acts if n.startswith("in.")] == ["in.0", "in.2"]
    assert acts.call("").arguments["mask"] is None


class Steps(torch.nn.Module):
    """Uses one inner module several times per call."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(self.inner(self.inner(x)))


def test_stop_after_first_step_stops_at_the_second_step_of_the_root_not_at_a_reused_module(capsys):
    model = Steps()
    seen = []

    def run():
        for i in range(3):
            seen.append(model(X + i))
        return "done"

    run.model = model
    output, acts = ActivationCollector(run, modules=model, stop_after_first_step=True)()
    assert output is None and len(seen) == 1
    assert [c.number for c in acts.calls("inner")] == [0, 1, 2] and len(acts.calls("")) == 1
    assert acts.finished and acts.notes == [] and capsys.readouterr() == ("", "")
    assert num_hooks(model) == 0


def test_stop_after_first_step_with_one_step_returns_the_output():
    output, acts = ActivationCollector(Steps(), stop_after_first_step=True)(X)
    assert same_bits(acts["out.0"], output)


def test_stop_after_first_step_in_a_with_block():
    model = Steps()
    reached = []
    with ActivationCollector(model, stop_after_first_step=True) as collector:
        model(X)
        model(X)
        reached.append(True)
    assert not reached and len(collector.capture.calls("")) == 1 and num_hooks(model) == 0


def test_stop_after_first_step_passes_the_models_own_handlers():
    model = Steps()

    def run():
        for _ in range(3):
            try:
                model(X)
            except Exception:  # what pipelines do around a step
                raise AssertionError("the stop was taken for an error") from None

    assert ActivationCollector(run, modules={"m": model}, stop_after_first_step=True)()[0] is None


def test_earlier_calls_are_not_overwritten():
    acts = capture(Steps(), X)
    assert [n for n in acts if n.startswith("inner")] == [
        "inner.in.0", "inner.out.0", "inner@1.in.0", "inner@1.out.0", "inner@2.in.0", "inner@2.out.0"]
    assert acts.tensor_id("inner.out.0") == acts.tensor_id("inner@1.in.0") != acts.tensor_id("inner@1.out.0")


class Layers(torch.nn.Module):
    def __init__(self, count=12):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(count))
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def modules_of(model, **options):
    return sorted({c.module for c in ActivationCollector(model, **options)(X)[1].call_list})


@pytest.mark.parametrize("options, expected", [
    ({"include": r"^layers\.1$"}, ["layers.1"]),
    ({"include": [re.compile("norm"), "layers.11"]}, ["layers.11", "norm"]),
    ({"include": lambda path: path.endswith("3")}, ["layers.3"]),
    ({"exclude": "layers"}, ["", "norm"]),
    ({"include": "layers", "exclude": [r"\.\d\d", r"\.[1-9]"]}, ["layers.0"]),
    ({"exclude": lambda path: path != "norm"}, ["norm"]),
])
def test_filters_have_an_effect(options, expected):
    assert modules_of(Layers(), **options) == expected


def test_blacklist_is_matched_on_full_names():
    acts = ActivationCollector(Layers(2), blacklist_regexes=[r".*layers\.\d+\.in\.", "^norm.out.0$"])(X)[1]
    assert list(acts) == ["in.0", "out.0", "layers.0.out.0", "layers.1.out.0", "norm.in.0"]
    assert acts.call("layers.1").arguments["input"].class_name == "Tensor"


@pytest.mark.parametrize("count", [0, 1, 2, 11, 12, 40])
def test_max_layers_is_not_off_by_one(count):
    expected = ["", *(f"layers.{i}" for i in range(min(count, 12))), "norm"]
    assert modules_of(Layers(), max_layers=count) == sorted(expected)
    assert modules_of(Layers(), max_layers=-1) == modules_of(Layers())


def test_a_second_use_returns_its_own_tensors():
    collector = ActivationCollector(Steps())
    _, first = collector(X)
    _, second = collector(X + 1)
    assert same_bits(first["in.0"], X) and same_bits(second["in.0"], X + 1)
    assert first.path != second.path and len(first) == len(second)
    assert [c.number for c in second.calls("inner")] == [0, 1, 2]


def test_a_second_use_with_a_path_is_refused(tmp_path):
    collector = ActivationCollector(Steps(), tmp_path / "run.capture")
    collector(X)
    with pytest.raises(FileExistsError, match="has written .*run.capture already: make a new collector"):
        collector(X)


@dataclasses.dataclass
class Pair:
    left: torch.Tensor
    right: object = None


Point = collections.namedtuple("Point", "x y")


class Plain:
    def __init__(self, tensor):
        self.tensor, self.name = tensor, "plain"


CACHE = tf.DynamicCache()
CACHE.update(X.view(1, 1, 3, 4), X.view(1, 1, 3, 4) + 1, 0)
CACHE.update(X.view(1, 1, 3, 4) + 2, X.view(1, 1, 3, 4) + 3, 1)
VALUES = {
    "list": ([X, X + 1], ["0", "1"]),
    "tuple": ((X, None, X + 1), ["0", "2"]),
    "dict": ({"a": X, 3: [X + 1]}, ["a", "3.0"]),
    "nested": ((X, (X + 1, {"k": X + 2})), ["0", "1.0", "1.1.k"]),
    "namedtuple": (Point(X, X + 1), ["x", "y"]),
    "dataclass": (Pair(X, [X + 1]), ["left", "right.0"]),
    "ModelOutput": (BaseModelOutput(last_hidden_state=X, hidden_states=(X, X + 1)), ["last_hidden_state", "hidden_states.0", "hidden_states.1"]),
    "Cache": (CACHE, ["0.key", "0.value", "1.key", "1.value"]),
    "cache in a tuple": ((X, CACHE), ["0", "1.0.key", "1.0.value", "1.1.key", "1.1.value"]),
    "EncoderDecoderCache": (tf.EncoderDecoderCache(CACHE, tf.DynamicCache()),
                            [f"self_attention_cache.{i}.{k}" for i in (0, 1) for k in ("key", "value")]),
    "object": (Plain(X), ["tensor"]),
    "set": ({X}, ["0"]),
}


class Returns(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, given=None):
        return self.value


@pytest.mark.parametrize("kind", VALUES)
def test_nested_outputs_and_inputs_are_not_dropped(kind):
    value, paths = VALUES[kind]
    model = Returns(value)
    with PlainHooks(model) as plain:
        output, acts = ActivationCollector(model)(X, given=value)
    assert output is value
    assert list(acts.outputs("")) == paths
    assert list(acts.inputs("")) == ["0", *(f"1.{p}" for p in paths)]
    if kind not in ("object", "set"):  # the oracle knows these not
        assert differences(acts, plain.seen) == []
    assert same_bits(acts["out.0"] if kind in ("list", "tuple") else next(iter(acts.outputs("").values())),
                     CACHE.layers[0].keys if "Encoder" in kind or kind == "Cache" else X)


def test_values_are_put_together_again():
    output = BaseModelOutput(last_hidden_state=X, hidden_states=(X, X + 1))
    acts = capture(Returns([output, {"n": 3, "none": None, "nan": float("nan")}, Pair(X)]), X, given=("text", True, 1.5))
    result = acts.call("").result
    assert result[0].class_name == "BaseModelOutput" and same_bits(result[0].hidden_states[1], X + 1)
    assert same_bits(result[0][0], X) and same_bits(result[2].left, X) and result[2].right is None
    assert result[1]["n"] == 3 and result[1]["none"] is None and np.isnan(result[1]["nan"])
    assert acts.call("").arguments["given"] == ("text", True, 1.5)
    with pytest.raises(AttributeError, match="BaseModelOutput has no field"):
        result[0].logits


def test_keyed_outputs_can_be_looked_up_by_place():
    acts = capture(Returns(BaseModelOutput(last_hidden_state=X, hidden_states=(X, X + 1))), X)
    assert acts.tensor_id("out.0") == acts.tensor_id("out.last_hidden_state")
    assert acts.tensor_id("out.1.1") == acts.tensor_id("out.hidden_states.1")
    with pytest.raises(LayerNotFoundError):
        acts["out.2"]


def test_a_module_that_returns_none():
    acts = capture(net(Returns(None)), X)
    assert acts.call("0").result is None and acts.call("0").returned and len(acts.outputs("0")) == 0


def test_shared_modules_have_all_their_names():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = net(torch.nn.Linear(4, 4))
            self.second = self.first

        def forward(self, x):
            return self.second(self.first(x))

    acts = capture(Shared(), X)
    assert [c.number for c in acts.calls("first.0")] == [0, 1] == [c.number for c in acts.calls("second.0")]
    assert acts.modules["first"].aliases == ("second",) and acts.modules["first.0"].aliases == ("second.0",)
    assert acts.tensor_id("second.0@1.out.0") == acts.tensor_id("first.0@1.out.0") == acts.tensor_id("out.0")
    entries = acts.manifest["parameters"]["entries"]
    assert entries["second.0.weight"]["same_as"] == "first.0.weight"
    assert same_bits(acts.parameters["second.0.weight"], torch.from_numpy(acts.parameters["first.0.weight"].copy()))
