"""The profile strict, function by function: what one item of a batch gives does not depend on the others, on their number or on where it lies."""
import numpy as np
import pytest
from porting import ops, ops_table

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 37, 19), dtype=np.float32)
W, B = RNG.standard_normal((23, 19), dtype=np.float32), RNG.standard_normal(19, dtype=np.float32)
IMAGE, KERNEL = RNG.standard_normal((5, 6, 11, 11), dtype=np.float32), RNG.standard_normal((8, 6, 3, 3), dtype=np.float32)
Q = RNG.standard_normal((5, 4, 21, 16), dtype=np.float32)

PER_ITEM = {
    "linear": (X, lambda x: ops.linear(x, W, W[:, 0].copy(), profile="strict")),
    "matmul": (X, lambda x: ops.matmul(x, x.swapaxes(-1, -2), profile="strict")),
    "softmax": (X, lambda x: ops.softmax(x, -1, profile="strict")),
    "softmax, dim 1": (X, lambda x: ops.softmax(x, 1, profile="strict")),
    "log_softmax": (X, lambda x: ops.log_softmax(x, 1, profile="strict")),
    "layer_norm": (X, lambda x: ops.layer_norm(x, 19, B, B, profile="strict")),
    "rms_norm": (X, lambda x: ops.rms_norm(x, 19, B, 1e-6, profile="strict")),
    "group_norm": (IMAGE, lambda x: ops.group_norm(x, 3, profile="strict")),
    "batch_norm": (IMAGE, lambda x: ops.batch_norm(x, B[:6].copy(), B[:6] ** 2, profile="strict")),
    "conv2d": (IMAGE, lambda x: ops.conv2d(x, KERNEL, stride=2, profile="strict")),
    "avg_pool2d": (IMAGE, lambda x: ops.avg_pool2d(x, 3, profile="strict")),
    "attention": (Q, lambda x: ops.scaled_dot_product_attention(x, x, x, is_causal=True, profile="strict")),
    "sum": (X, lambda x: ops.sum(x, 1, profile="strict")), "sum, last": (X, lambda x: ops.sum(x, -1, profile="strict")),
    "mean": (X, lambda x: ops.mean(x, (1, 2), profile="strict")), "var": (X, lambda x: ops.var(x, 1, profile="strict")),
    "norm": (X, lambda x: ops.linalg_vector_norm(x, 2, [1], profile="strict")), "norm, last": (X, lambda x: ops.linalg_vector_norm(x, 2, [-1], profile="strict")),
    "prod": (X, lambda x: ops.prod(x, 1, profile="strict")), "cumsum": (X, lambda x: ops.cumsum(x, 1, profile="strict")),
    "pow": (X, lambda x: ops.pow(np.abs(x), 1.7, profile="strict")), "add": (X, lambda x: ops.add(x, x, alpha=0.3, profile="strict")),
    "gelu tanh": (X, lambda x: ops.gelu(x, approximate="tanh", profile="strict")),
}  # fmt: skip


def same(a, b):
    return np.array_equal(a.view(np.int32) if a.dtype == np.float32 else a, b.view(np.int32) if b.dtype == np.float32 else b)


@pytest.mark.parametrize("name", list(PER_ITEM))
def test_an_item_alone_is_the_item_among_others(name):
    x, function = PER_ITEM[name]
    whole = function(x)
    for i in (0, 3):
        assert same(function(x[i : i + 1].copy())[0], whole[i])
    assert same(function(np.ascontiguousarray(x[:, ::-1])[:, ::-1]), whole)
    assert same(function(np.concatenate([x, x]))[5:], whole)


def is_elementwise(function, x):
    """Whether it takes one dimension and returns one array of the same shape."""
    try:
        found = function(x)
    except ValueError:  # the diagonal of a row, the trace of one
        return False
    return isinstance(found, np.ndarray) and found.shape == x.shape


def functions_of_one_tensor():
    return [name for name, forms in ops._forms().items() if name not in ("nonzero", "bitwise_not", "view_as_complex", "view_as_real", "unbind", "t", "t_copy")
            and any(len(form.parameters) == 1 and form.parameters[0].kind == "T" for form in forms) and name not in FOLDS]  # fmt: skip


FOLDS = ("sum", "mean", "prod", "max", "min", "any", "all", "var", "std", "var_mean", "std_mean", "argmax", "argmin", "amax", "amin", "aminmax")


def test_functions_of_one_element_do_not_see_its_neighbours():
    x = np.abs(X).clip(0.05, 0.95)
    names = [name for name in functions_of_one_tensor() if is_elementwise(getattr(ops, name), x.reshape(-1))]
    assert len(names) > 25
    for name in names:
        function = getattr(ops, name)
        whole = function(x, profile="strict").reshape(-1)
        for n in (1, 7, 16, 33, 70):
            assert same(np.atleast_1d(function(x.reshape(-1)[:n].copy(), profile="strict")), whole[:n]), f"{name}, {n} elements"
        assert same(function(np.repeat(x.reshape(-1), 2)[::2], profile="strict"), whole), f"{name}, strided"


def test_strict_powers_keep_their_label():
    x = np.abs(X)
    for exponent in (1.7, -0.3, 2.0, 0.5, -2.0):
        y = ops.pow(x, exponent, profile="strict")
        assert (np.abs(y / x.astype(np.float64) ** exponent - 1) <= ops_table.label("pow_scalar", "F32", "strict").ulp * 2.0**-23).all(), exponent
        assert np.array_equal(y, ops.pow(x, exponent)) == (exponent in (2.0, -2.0))  # 0.5 is MKL's square root there


def test_the_question_can_be_answered_otherwise():
    """Without the profile some of the same functions do see it: the rest of a vector loop, the small path of a product."""
    whole = ops.linear(X[0], W)
    assert not all(same(ops.linear(X[0, i : i + 1].copy(), W)[0], whole[i]) for i in range(37))
