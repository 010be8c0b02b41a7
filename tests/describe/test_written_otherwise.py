"""Facts do not hang on how a line was written: the same function in other ops has the same facts, another function in the same ops has others."""
import porting
import pytest
import torch
import torch.nn.functional as F

SIZE = 32


class Written(torch.nn.Module):
    """A module of a function of (weight, bias, matrix, x)."""

    def __init__(self, function):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.rand(SIZE, generator=generator) + 0.5)
        self.bias = torch.nn.Parameter(torch.rand(SIZE, generator=generator) * 0.2 + 0.1)
        self.matrix = torch.nn.Parameter(torch.randn(SIZE, SIZE, generator=generator) / 6)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def rms(x, axis=-1):
    return x * torch.rsqrt(x.pow(2).mean(axis, keepdim=True) + 1e-6)


def facts_of(function, x=None):
    x = torch.randn(3, 7, SIZE, generator=torch.Generator().manual_seed(5)) if x is None else x
    with torch.no_grad():
        return porting.describe(Written(function), x)


def value_of(function, name, x=None):
    found = facts_of(function, x)[name]
    assert len(found) == 1, found
    return found[0].value, found[0].verified


@pytest.mark.parametrize("function, value, verified", [
    (lambda m, x: rms(x) * m.weight, "weight", True),
    (lambda m, x: rms(x) * (1 + m.weight), "1 + weight", True),
    (lambda m, x: torch.addcmul(y := rms(x), y, m.weight), "1 + weight", None),
    (lambda m, x: (y := rms(x)) + y * m.weight, "1 + weight", True),
    (lambda m, x: F.layer_norm(x, (SIZE,), 1 + m.weight, m.bias), "1 + weight", True),
    (lambda m, x: F.layer_norm(x, (SIZE,), m.weight, m.bias), "weight", True),
    (lambda m, x: F.layer_norm(x, (SIZE,)) * m.weight + m.bias, "weight", True),
    (lambda m, x: rms(x) * m.weight * 0.5, "0.5 weight", None),
    (lambda m, x: rms(x) * torch.exp(m.weight), "computed from weight", None),
])  # fmt: skip
def test_what_a_norm_multiplies_by(function, value, verified):
    found = value_of(function, "norm weight")
    assert found[0] == value and verified in (None, found[1])


def test_a_weight_of_ones_is_there_and_not_verified():
    ones = facts_of(lambda m, x: F.layer_norm(x, (SIZE,), m.weight * 0 + 1, m.bias))["norm weight"]
    assert not any(fact.verified for fact in ones)


@pytest.mark.parametrize("function, value", [
    (lambda m, x: rms(x) * m.weight, "RMSNorm"),
    (lambda m, x: rms(x, 1) * m.weight, "RMSNorm over dimension 1 of 3"),
    (lambda m, x: rms(x, (0, 1, 2)) * m.weight, "RMSNorm over dimensions 0, 1, 2 of 3"),
    (lambda m, x: F.layer_norm(x, (7, SIZE)), "LayerNorm over the last 2 dimensions"),
])  # fmt: skip
def test_over_what_a_norm_goes(function, value):
    found = facts_of(function)
    assert found["norm"][0].value == value, found.to_text()
    assert not found["rope kind"], "adding an eps turns nothing"


def test_all_eps_of_a_module_are_named():
    def twice(m, x):
        return F.layer_norm(F.layer_norm(x, (SIZE,), eps=1e-2), (SIZE,), m.weight, eps=1e-6)

    assert value_of(twice, "norm eps")[0] == "0.01, 1e-06"


@pytest.mark.parametrize("function, value, verified", [
    (lambda m, x: F.linear(x, m.matrix), "no", True),
    (lambda m, x: F.linear(x, m.matrix, m.bias), "yes", True),
    (lambda m, x: x @ m.matrix + m.bias, "yes", True),
    (lambda m, x: (x @ m.matrix.T).add_(m.bias), "yes", True),
    (lambda m, x: F.linear(x, m.matrix * 0.5, m.bias), "yes", True),
    (lambda m, x: F.linear(x, m.matrix, m.bias * 0), "yes", False),
    (lambda m, x: F.linear(x, m.matrix) + F.linear(x, m.matrix, m.bias), "in 1 of 2 products", True),
    (lambda m, x: x @ m.matrix + x, "no", True),
])  # fmt: skip
def test_biases(function, value, verified):
    assert value_of(function, "bias") == (value, verified)


@pytest.mark.parametrize("function, value", [
    (lambda m, i: F.embedding(i, m.matrix), "as looked up"),
    (lambda m, i: F.embedding(i, m.matrix) * 4.0, "times a factor"),
    (lambda m, i: F.embedding(i, m.matrix) / 4.0, "times a factor"),
    (lambda m, i: -F.embedding(i, m.matrix), "times a factor"),
    (lambda m, i: (F.embedding(i, m.matrix) + m.bias) * 4.0, "times a factor"),
    (lambda m, i: F.embedding(i, m.matrix) + m.bias, "as looked up"),
    (lambda m, i: F.embedding(i, m.matrix * 4.0), "looked up in a table that is computed"),
])  # fmt: skip
def test_scales_of_embeddings(function, value):
    assert value_of(function, "embedding scale", torch.arange(2, 20).reshape(2, 9))[0] == value


@pytest.mark.parametrize("function, value, verified", [
    (lambda m, x: x * torch.sigmoid(x), "SiLU", True),
    (lambda m, x: x * torch.sigmoid(1.5 * x), "a formula with sigmoid", False),
    (lambda m, x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.05 * x**3))), "a formula with tanh", False),
    (lambda m, x: x[..., :16] * torch.sigmoid(x[..., 16:]), "sigmoid", True),
    (lambda m, x: F.leaky_relu(x), "leaky ReLU", True),
    (lambda m, x: F.leaky_relu(x, 0.2), "leaky ReLU (slope 0.2)", True),
    (lambda m, x: F.elu(x, 2.0), "ELU (alpha 2)", True),
    (lambda m, x: F.softplus(x, 2.0), "softplus (beta 2)", True),
    (lambda m, x: F.relu(x) ** 2, "ReLU (squared)", True),
])  # fmt: skip
def test_activations(function, value, verified):
    assert value_of(function, "activation") == (value, verified)
