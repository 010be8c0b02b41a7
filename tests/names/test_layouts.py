"""Layouts: what they move, compared with NumPy's own transposes, and what they refuse."""
import importlib.util
import itertools

import numpy as np
import pytest
from porting.interop.layout import LayoutError, parse

X = np.random.default_rng(1).standard_normal((2, 5, 24)).astype(np.float32)
IMAGE = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(("text", "given", "expected"), [
    ("b s (h d) -> b h s d", X, X.reshape(2, 5, 4, 6).transpose(0, 2, 1, 3)),
    ("b h s d -> b s (h d)", X.reshape(2, 5, 4, 6).transpose(0, 2, 1, 3), X),
    ("NHWC -> NCHW", IMAGE.transpose(0, 2, 3, 1), IMAGE),
    ("N C H W -> N H W C", IMAGE, IMAGE.transpose(0, 2, 3, 1)),
    ("s c -> 1 s c", X[0], X[:1]),
    ("1 1 s c -> s c", X[:1][None], X[0]),
    ("(b s) c -> b s c", X.reshape(10, 24), X),
    ("... i o -> ... o i", X, X.swapaxes(1, 2)),
    ("b s (h=4 d) -> b s (d h)", X, X.reshape(2, 5, 4, 6).swapaxes(2, 3).reshape(2, 5, 24)),
    ("b s (h=4 d two=2) -> b s (h two d)", X, X.reshape(2, 5, 4, 3, 2).swapaxes(3, 4).reshape(2, 5, 24)),
    ("a -> a", np.arange(3), np.arange(3)),
    ("1 a -> a 1 1", np.arange(3)[None], np.arange(3)[:, None, None]),
])
def test_a_layout_moves_what_numpy_moves(text, given, expected):
    layout = parse(text)
    found, = layout.apply([given], [expected.shape])
    assert found.shape == expected.shape and np.array_equal(found, expected)
    back, = layout.inverse.apply([found], [given.shape])
    assert np.array_equal(back, given)


def test_one_tensor_that_is_several():
    q, k, v = np.split(X, [12, 18], -1)
    found = parse("b s q+k+v -> b s q, b s k, b s v").apply([X], [q.shape, k.shape, v.shape])
    assert all(np.array_equal(a, e) for a, e in zip(found, (q, k, v)))
    joined, = parse("b s q, b s k, b s v -> b s q+k+v").apply([q, k, v], [X.shape])
    assert np.array_equal(joined, X)
    interleaved = parse("b s (h=2 qkv d) -> b h s d").apply([X], [(2, 2, 5, 4)] * 3)
    apart = X.reshape(2, 5, 2, 3, 4)
    assert all(np.array_equal(interleaved[i], apart[:, :, :, i].transpose(0, 2, 1, 3)) for i in range(3))
    heads, rest = parse("b s (h=2 q+r) -> b s (h q), b s (h r)").apply([X], [(2, 5, 16), (2, 5, 8)])
    assert np.array_equal(heads, X.reshape(2, 5, 2, 12)[..., :8].reshape(2, 5, 16))
    assert np.array_equal(rest, X.reshape(2, 5, 2, 12)[..., 8:].reshape(2, 5, 8))


def test_all_permutations_agree_with_einops_if_it_is_there():
    """Every permutation and one merge, against einops where it is installed, else against NumPy."""
    einops = importlib.util.find_spec("einops")
    for order in itertools.permutations("abcd"):
        text = f"a b c d -> {' '.join(order)}"
        expected = IMAGE.transpose(["abcd".index(c) for c in order])
        if einops is not None:
            import einops

            expected = einops.rearrange(IMAGE, text)
        found, = parse(text).apply([IMAGE], [expected.shape])
        assert np.array_equal(found, expected), text


@pytest.mark.parametrize(("text", "words"), [
    ("b s c", 'expected one "->"'),
    ("a -> b -> c", 'expected one "->"'),
    ("b s (h d -> b h s d", "is not closed"),
    ("b s h) -> b s h", "')' is not expected"),
    ("b b -> b", "axis b is there twice"),
    ("b s -> b s c", "the right has c"),
    ("b s c -> b", "the left has c, s"),
    ("b ? -> b", "'?' is not expected"),
    ("b=x -> b", "one length after b="),
    ("a, b -> a, b", "one side may be several"),
    ("b q+k+v -> b q, b k", "one axis with as many parts"),
    ("b q+ -> b q", "expected an axis after +"),
    ("b q+k -> b q k", "one axis on one side only"),
    ("... -> ... ...", "the dots are there twice"),
    (7, "a layout is a text"),
])
def test_what_cannot_be_read_is_refused_with_the_reason(text, words):
    with pytest.raises(LayoutError) as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "given", "wanted", "words"), [
    ("b s (h d) -> b h s d", (2, 24), (2, 4, 5, 6), "the left has 3 axes"),
    ("b s (h d) -> b h s d", (2, 5, 24), (2, 5, 24), "the right has 4 axes"),
    ("b s (h d) -> b h s d", (2, 5, 24), (2, 5, 5, 6), "which is not h=5, d=6"),
    ("b s (h=5 d) -> b h s d", (2, 5, 24), (2, 5, 5, 4), "no multiple of 5"),
    ("b s (h d) -> b s (d h)", (2, 5, 24), (2, 5, 24), "write d=N"),
    ("b s (h=4 d) -> b h s d", (2, 5, 24), (2, 6, 5, 4), "which is not h=4"),
    ("1 s c -> s c", (2, 5, 24), (5, 24), "of the port's tensor is 2"),
    ("b q+k -> b q, b k", (2, 24), ((2, 20), (2, 5)), "which is not"),
])
def test_what_does_not_fit_is_refused_with_the_reason(text, given, wanted, words):
    shapes = list(wanted) if isinstance(wanted[0], tuple) else [wanted]
    with pytest.raises(LayoutError) as caught:
        parse(text).apply([np.zeros(given)], shapes)
    assert words in str(caught.value)


def test_a_layout_without_a_way_back_says_so():
    with pytest.raises(LayoutError, match="no way back"):
        _ = parse("b q+k -> b q, b k").inverse
