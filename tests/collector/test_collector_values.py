"""Tensors of every kind that can sit in a module's arguments, and how a capture of them is stored."""
import json
import os

import numpy as np
import porting
import pytest
import torch
from plain_hooks import same_bits
from porting import ActivationCollector


class Returns(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x=None):
        return self.value


class Tagged(torch.Tensor):
    """A subclass without a dispatch of its own."""


def base():
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3)) * 3


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
KINDS = {
    **{str(d)[6:]: (lambda d=d: base().abs().to(d)) for d in DTYPES},
    "transposed": lambda: base().transpose(0, 2),
    "sliced": lambda: base()[1:, ::2, 1:4],
    "expanded": lambda: base()[:1].expand(7, 6, 5),
    "channels last": lambda: base().view(2, 2, 6, 5).to(memory_format=torch.channels_last),
    "empty": lambda: base()[:, :0],
    "scalar": lambda: base()[0, 0, 0],
    "requires grad": lambda: base().requires_grad_(),
    "parameter": lambda: torch.nn.Parameter(base()),
    "subclass": lambda: base().as_subclass(Tagged),
    "conjugate": lambda: torch.complex(base(), base() + 1).conj(),
    "imaginary part of a conjugate": lambda: torch.complex(base(), base() + 1).conj().imag,
    "nan and inf": lambda: torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inference", [False, True])
def test_every_kind_of_tensor_is_stored_as_it_is(kind, inference):
    with torch.inference_mode(inference):
        tensor = KINDS[kind]()
        acts = ActivationCollector(Returns(tensor))(tensor)[1]
    assert same_bits(acts["in.0"], tensor) and same_bits(acts["out.0"], tensor)
    assert acts.tensor_id("in.0") == acts.tensor_id("out.0") and acts.notes == []
    strides = acts.info("out.0")[2]
    if tensor.numel():
        assert strides == tuple(0 if n == 1 else s for n, s in zip(tensor.shape, tensor.resolve_conj().resolve_neg().stride()))


def fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(3)


LOST = {
    "meta": (lambda: torch.empty(3, device="meta"), "a meta tensor has no values"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "a sparse tensor (sparse_coo)"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a quantised tensor (torch.qint8)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor has no single shape"),
    "complex128": (lambda: torch.ones(3, dtype=torch.complex128), "dtype complex128 is not one of"),
    "fake": (fake, ""),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_has_no_values_is_listed_with_the_reason(kind):
    make, reason = LOST[kind]
    value = make()
    good = torch.ones(2)
    output, acts = ActivationCollector(Returns((good, value, good + 1)), program=False)(good)
    assert output[1] is value
    assert list(acts.outputs("")) == ["0", "2"] and same_bits(acts["out.2"], good + 1)
    assert [(n["kind"], n["where"]) for n in acts.notes] == [("dropped", "out.1")]
    assert acts.notes[0]["reason"].startswith(reason)
    assert acts.call("").result[1].class_name == "Tensor"


def test_numpy_arrays_are_tensors_too():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    acts = ActivationCollector(Returns({"a": array, "text": np.array(["x"])}))(array[::-1])[1]
    assert (acts["in.0"] == array[::-1]).all() and (acts["out.a"] == array).all()


def test_a_value_that_contains_itself_is_cut_and_noted():
    loop = [torch.ones(2)]
    loop.append(loop)
    acts = ActivationCollector(Returns(loop))()[1]
    assert list(acts.outputs("")) == ["0"] and "contains itself" in acts.notes[0]["reason"]


HARD = {
    "large integer": 2**70,
    "text with NUL and half a surrogate pair": "\0\ud800x",
    "keys with NUL and half a surrogate pair": {"\0k": torch.ones(2), "\ud800": torch.zeros(2), "": torch.ones(3)},
    "deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[torch.ones(2)]]]]]]]]]]]]]]]]]]]]]]]]]]],
    "long": ["x" * 100000, list(range(5000))],
}


@pytest.mark.parametrize("kind", HARD)
def test_values_that_are_hard_to_write_down_lose_no_tensor(kind):
    acts = ActivationCollector(Returns(HARD[kind]))(torch.ones(1))[1]
    assert acts.notes == [] and len(acts.outputs("")) == {"keys with NUL and half a surrogate pair": 3, "deep": 1}.get(kind, 0)
    acts.call("").result


def test_an_output_that_does_its_work_later_is_warned_about():
    model = Returns(1)
    with pytest.warns(RuntimeWarning, match="without calling any of its modules"):
        output, acts = ActivationCollector(lambda: (model() for _ in range(2)), modules=model)()
    assert len(acts) == 0 and list(output) == [1, 1] and acts.notes[0]["reason"] == "no module was called"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_script_modules_are_noted_as_not_captured():
    model = torch.nn.Sequential(torch.jit.script(torch.nn.Sequential(torch.nn.Tanh())), torch.nn.Tanh())
    output, acts = ActivationCollector(model)(torch.ones(3))
    assert torch.equal(output, torch.ones(3).tanh().tanh()) and same_bits(acts["1.out.0"], output)
    assert [(n["kind"], n["where"]) for n in acts.notes] == [("warning", "0"), ("warning", "0.0")]
    assert "script modules take no hooks" in acts.notes[0]["reason"]


def test_equal_tensors_are_stored_once_and_changed_ones_again():
    x = torch.randn(50)
    model = torch.nn.Sequential(Returns(x), torch.nn.Identity())
    with ActivationCollector(model) as collector:
        model(x.clone())
        x.data.add_(1)  # no version counter moves
        model(x)
    acts = collector.capture
    assert acts.tensor_id("in.0") == acts.tensor_id("1.out.0") != acts.tensor_id("@1.in.0") == acts.tensor_id("1@1.out.0")


def test_a_cache_that_is_changed_in_place_is_read_again():
    from transformers import LlamaConfig, StaticCache

    cache = StaticCache(LlamaConfig(num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, hidden_size=4), max_cache_len=4)
    cache.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4), 0)

    class Updates(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Returns(None)

        def forward(self, cache):
            self.inner(cache)
            cache.layers[0].keys[:, :, 2] = 7
            self.inner(cache)

    acts = ActivationCollector(Updates())(cache)[1]
    before, after = acts["inner.in.0.0.key"], acts["inner@1.in.0.0.key"]
    assert (before[0, 0, 2] == 0).all() and (after[0, 0, 2] == 7).all()
    assert acts.tensor_id("inner.in.0.0.value") == acts.tensor_id("inner@1.in.0.0.value")


def test_parameters_are_stored_as_they_were_before_the_run():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).train()
    before = {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    acts = ActivationCollector(model)(torch.randn(8, 4))[1]
    assert set(acts.parameters) == set(before)
    assert all(same_bits(acts.parameters[n], t) for n, t in before.items())
    assert {n["where"] for n in acts.notes} == {"param:0.running_mean", "param:0.running_var", "param:0.num_batches_tracked"}
    entry = acts.manifest["parameters"]["entries"]["1.weight"]
    assert entry["dtype"] == "F32" and entry["shape"] == [2, 4] and entry["hash"] == acts.info("param:1.weight")[4]


def test_parameters_that_are_not_stored_are_named():
    model = torch.nn.Linear(4, 2)
    acts = ActivationCollector(model, weights=False)(torch.ones(4))[1]
    assert not acts.manifest["parameters"]["stored"] and list(acts.manifest["parameters"]["entries"]) == ["weight", "bias"]
    assert len(acts.parameters) == 0
    with pytest.raises(porting.LayerNotFoundError, match="parameter weight was not stored in .*weights=True"):
        acts.parameters["weight"]


def test_buffers_that_are_not_persistent_are_stored():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("table", torch.randn(3), persistent=False)
    assert same_bits(ActivationCollector(model)(torch.ones(2))[1].parameters["table"], model.table)


def test_the_manifest_says_what_decides_the_bits_and_not_whose_machine_it_was():
    acts = ActivationCollector(torch.nn.Linear(4, 2))(torch.ones(4))[1]
    environment = acts.environment
    assert environment["torch"]["version"] == torch.__version__ and environment["torch"]["num_threads"] == torch.get_num_threads()
    assert environment["torch"]["capability"] in ("default", "avx2", "avx512")
    assert environment["cpu"]["flags"] and environment["versions"]["numpy"] == np.__version__
    del environment["torch"]["config"]  # where torch was built
    text = json.dumps(acts.manifest)
    for private in (os.uname().nodename, os.path.expanduser("~"), os.getcwd()):
        assert private not in text


def test_flush_denormal_is_seen():
    from porting.environment import fingerprint

    assert fingerprint()["torch"]["flush_denormal"] is False
    torch.set_flush_denormal(True)
    try:
        assert fingerprint()["torch"]["flush_denormal"] is True
    finally:
        torch.set_flush_denormal(False)


def test_functional_transforms_do_not_break_the_run():
    model = torch.nn.Linear(4, 2)
    x = torch.randn(3, 4)
    with ActivationCollector(model, program=False) as collector:
        output = torch.vmap(model)(x)
    assert torch.equal(output, torch.vmap(model)(x))
    assert [n["where"] for n in collector.capture.notes] == ["in.0", "out.0"]
