"""`porting.parity`: right ports pass under every kind of input, and each fault is refused that a comfortable test would let through."""
import numpy as np
import porting
import porting.parity as _  # noqa: F401
import pytest
import torch
from porting.parity import INPUTS, Draw, ParityCase, randomize, run_case
from porting.tolerance import resolve


def rms_norm(dim, eps):
    return torch.nn.RMSNorm(dim, eps=eps)


def rms_norm_port(norm, *, weight=True, eps=None, dtype=np.float64):
    w = norm.weight.detach().numpy()
    epsilon = norm.eps if eps is None else eps

    def forward(x):
        x = x.astype(dtype)
        y = x / np.sqrt((x * x).mean(-1, keepdims=True, dtype=dtype) + dtype(epsilon))
        return (y * w if weight else y).astype(np.float32)

    return forward


@porting.parity(ref=rms_norm, port=rms_norm_port, sweep={"dim": [1, 7, 64], "eps": [1e-6, 1e-5]}, inputs="normal,large,tiny,denormal,zeros,mixed")
def test_rms_norm(draw, dim, eps):
    return draw(2, 3, dim)


@porting.parity(ref=torch.nn.Linear, port=lambda linear: lambda x: (x.astype(np.float64) @ linear.weight.detach().double().numpy().T + (
    0 if linear.bias is None else linear.bias.detach().double().numpy())).astype(np.float32),
    sweep={"in_features": [1, 33], "out_features": [5], "bias": [True, False]}, inputs=["normal", "mixed"])
def test_linear(draw, in_features, out_features, bias):
    return {"input": draw(4, in_features)}


@porting.parity(ref=lambda approximate: lambda x: torch.nn.functional.gelu(x, approximate=approximate), sweep={"approximate": ["none", "tanh"]},
                port=lambda function: porting.port.wants_torch(lambda x: function(x.double()).float()))
def test_a_function(draw, approximate):
    return draw(5, 9)


class TestInAClass:
    @porting.parity(ref=torch.nn.Embedding, port=lambda e: lambda ids: e.weight.detach().numpy()[ids],
                    sweep={"num_embeddings": [11], "embedding_dim": [3]}, inputs="normal", tol="exact")
    def test_embedding(self, draw, num_embeddings, embedding_dim):
        assert isinstance(self, TestInAClass)
        return draw.integers(num_embeddings, 2, 6)


def outcome(ref, port, inputs, hyper, shape=(2, 5, 16), init="random_all", tol="strict"):
    """The text of the failure, or None."""
    try:
        run_case(lambda draw, **_: draw(*shape), ref, port, ParityCase(hyper, inputs), init, resolve(tol), 0)
    except porting.ParityError as error:
        return str(error)
    return None


def test_a_forgotten_weight_hides_behind_ones():
    def port(norm):
        return rms_norm_port(norm, weight=False)

    hyper = {"dim": 16, "eps": 1e-6}
    assert outcome(rms_norm, port, "normal", hyper, init="default") is None
    text = outcome(rms_norm, port, "normal", hyper)
    assert text.startswith("dim=16-eps=1e-06-normal:") and "Greatest absolute difference" in text and "Cause: " in text


def test_a_wrong_eps_shows_where_inputs_are_tiny():
    def port(norm):
        return rms_norm_port(norm, eps=1e-12)

    hyper = {"dim": 16, "eps": 1e-6}
    assert outcome(rms_norm, port, "large", hyper) is None
    text = outcome(rms_norm, port, "tiny", hyper)
    assert "Band: red" in text and "eps" in text


def test_an_exponent_that_overflows_shows_where_inputs_are_large():
    def naive(module):
        def forward(x):
            with np.errstate(all="ignore"):
                e = np.exp(x)
                return e / e.sum(-1, keepdims=True, dtype=np.float32)

        return forward

    def softmax():
        return torch.nn.Softmax(-1)

    assert outcome(softmax, naive, "normal", {}) is None
    assert "NaN" in outcome(softmax, naive, "large", {})


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_flushed_denormals_and_nonfinite_inputs():
    def flushing(module):
        return lambda x: np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), np.maximum(x, 0))

    assert outcome(torch.nn.ReLU, flushing, "normal", {}) is None
    assert "Unequal elements" in outcome(torch.nn.ReLU, flushing, "denormal", {})

    def forgetful(module):
        return lambda x: np.nan_to_num(np.maximum(x, 0))

    assert outcome(torch.nn.ReLU, lambda module: lambda x: np.maximum(x, 0), "nonfinite", {}) is None
    assert "on one side only" in outcome(torch.nn.ReLU, forgetful, "nonfinite", {})


def test_a_port_that_raises_is_a_failure():
    def port(module):
        def forward(x):
            raise RuntimeError("kernel not found")

        return forward

    assert "the port raised RuntimeError: kernel not found" in outcome(torch.nn.ReLU, port, "normal", {})


def test_no_parameter_is_degenerate():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU(), torch.nn.LayerNorm(4))
    randomize(module, torch.Generator().manual_seed(0))
    values = [t.flatten() for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()]
    assert len(values) == 9
    for value in values:
        assert not (value == 0).any() and not (value == 1).any() and value.unique().numel() == value.numel()
    assert (module[1].running_var > 0).all() and module[1].num_batches_tracked == 0


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_inputs_are_what_they_are_called(kind, dtype):
    draw = Draw(kind, torch.Generator().manual_seed(1))
    x = draw(50, 20, dtype=dtype)
    size, limits = x.double().abs(), torch.finfo(dtype)
    assert x.dtype == dtype and x.shape == (50, 20)
    assert torch.isfinite(x).all() == (kind != "nonfinite")
    assert (kind == "zeros") == bool((size == 0).all())
    if kind == "denormal":
        assert 0.9 < (size < limits.tiny).double().mean() and (size > 0).any()
    if kind in ("large", "tiny"):
        assert (size.median() > 100) if kind == "large" else (limits.tiny < size.median() < 1e-2)


@pytest.mark.parametrize("arguments, sentence", [
    ({"inputs": "normal,huge"}, "got huge"),
    ({"inputs": ""}, "inputs: expected"),
    ({"init": "ones"}, "init: expected"),
    ({"sweep": {"dim": []}}, "dim has no values"),
    ({"tol": "loose"}, "no tolerance"),
])
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        porting.parity(ref=rms_norm, port=rms_norm_port, **arguments)


def test_a_test_that_does_not_take_draw_is_refused():
    with pytest.raises(ValueError, match="takes draw first"):
        porting.parity(ref=rms_norm, port=rms_norm_port)(lambda x: x)


def test_a_port_in_another_layout():
    def swapped(norm):
        return lambda x: rms_norm_port(norm)(x.swapaxes(1, 2)).swapaxes(1, 2)

    def failure(port, **words):
        try:
            run_case(lambda draw, **_: draw(2, 5, 16), rms_norm, port, ParityCase({"dim": 16, "eps": 1e-6}, "normal"), "random_all", resolve("strict"), 0, **words)
        except (porting.ParityError, porting.PortingError) as error:
            return str(error)
        return None

    assert failure(swapped, layout="b c t -> b t c") is None
    assert failure(swapped) is not None
    assert "has 5 axes" in failure(rms_norm_port, layout="a b c d e -> a b c e d")
