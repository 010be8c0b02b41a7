"""assert_close against torch.testing itself: the same verdict, the same numbers in the message."""
import re

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from porting import _core
from porting.port import as_array, flatten
from porting.testing import ParityError, assert_close


def torch_says(actual, expected, **options):
    try:
        torch.testing.assert_close(actual, expected, **options)
    except AssertionError as error:
        return str(error)
    return None


def ours(actual, expected, **options):
    try:
        assert_close(actual, expected, **options)
    except ParityError as error:
        return str(error)
    return None


def numbers(text):
    """Mismatch count, greatest differences and indices of a message."""
    count = re.search(r"Mismatched elements: (\d+) / (\d+) \(([\d.]+)%\)", text)
    greatest = re.findall(r"Greatest (absolute|relative) difference: (\S+) at index (\(.*?\))", text)
    return count and count.groups(), [(kind, float(value), index) for kind, value, index in greatest]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool, torch.complex64], ids=str)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31 - 1), shape=st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (0, 3)]), equal_nan=st.booleans())
def test_the_same_verdict_and_numbers_as_torch(dtype, seed, shape, equal_nan):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    expected = torch.randn(shape).to(dtype) if dtype.is_floating_point or dtype.is_complex else torch.randint(0, 4, shape).to(dtype)
    size = float(rng.choice([0, 1e-8, 1e-6, 1e-2]))
    actual = expected.clone()
    if dtype.is_floating_point or dtype.is_complex:
        actual = expected + (size * torch.randn(shape)).to(dtype)
        if expected.numel() > 3 and rng.random() < 0.3:
            expected.view(-1)[1] = float("nan")
            actual.view(-1)[1 if rng.random() < 0.7 else 2] = float("nan")
        if expected.numel() > 3 and rng.random() < 0.3:
            expected.view(-1)[3] = float("inf")
            actual.view(-1)[3] = float(rng.choice([np.inf, -np.inf, 1.0]))
    elif expected.numel() and size:
        actual.view(-1)[0] = expected.view(-1)[0] == 0
    theirs, mine = torch_says(actual, expected, equal_nan=equal_nan), ours(actual, expected, equal_nan=equal_nan)
    assert (theirs is None) == (mine is None)
    if theirs is not None and dtype in (torch.float32, torch.float64) and not torch.isnan(expected + actual).any() and expected.ndim:
        (count, greatest), (our_count, our_greatest) = numbers(theirs), numbers(mine)
        assert our_count == count
        for (kind, value, _), (our_kind, our_value, _) in zip(greatest, our_greatest):
            assert our_kind == kind and our_value == pytest.approx(value, rel=1e-3, abs=1e-30, nan_ok=True)


@pytest.mark.parametrize("rtol, atol", [(0, 0), (1e-3, 0), (0, 1e-3), (1e-2, 1e-2)])
def test_given_tolerances(rtol, atol):
    e = np.linspace(-2, 2, 101, dtype="f4")
    for factor in (1, 1 + 5e-4, 1 + 2e-3, 1.02):
        a = (e * np.float32(factor)).astype("f4")
        assert (ours(a, e, rtol=rtol, atol=atol) is None) == (torch_says(torch.from_numpy(a), torch.from_numpy(e), rtol=rtol, atol=atol) is None)


def test_the_message_says_how_many_where_and_what_was_allowed():
    e = np.zeros((3, 4), "f4")
    a = e.copy()
    a[1, 2] = 0.5
    text = ours(a, e)
    assert "Tensor-likes are not close!" in text and "Mismatched elements: 1 / 12 (8.3%)" in text
    assert "Greatest absolute difference: 0.5 at index (1, 2) (up to 1e-05 allowed)" in text
    assert "Greatest relative difference: inf at index (1, 2) (up to 1.3e-06 allowed)" in text


def test_nan_is_close_to_nothing():
    nan, one = np.float32([np.nan, 1]), np.float32([1, 1])
    assert ours(nan, one) and ours(one, nan) and ours(nan, nan)
    assert ours(nan, nan, equal_nan=True) is None and ours(nan, one, equal_nan=True)
    assert ours(nan, nan, tol="approximate") is None  # at the same place, one of two: it is counted, not hidden
    assert ours(np.float32([np.nan]), np.float32([np.nan]), tol="approximate")
    assert ours(nan, one, tol="approximate")


def test_attributes_come_first():
    assert "'shape' do not match: [2, 3] != [3, 2]" in ours(np.ones((2, 3)), np.ones((3, 2)))
    assert "'dtype' do not match: float64 != float32" in ours(np.ones(3), np.ones(3, "f4"))
    assert ours(np.ones(3), np.ones(3, "f4"), check_dtype=False) is None


def test_structures():
    good = {"a": [np.ones(2), None, "x"], "b": (torch.ones(3), 2.0)}
    assert ours(good, good) is None
    assert "item ['a'][0]" in ours({**good, "a": [np.zeros(2), None, "x"]}, good)
    assert "Missing keys: ['b']" in ours({"a": good["a"]}, good)
    assert "length" in ours([1.0], [1.0, 2.0])
    assert "None" in ours([None], [np.ones(1)])
    assert ours(["y"], ["x"])


def test_torch_and_numpy_mix():
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16):
        t = torch.randn(5, 3).to(dtype).t()
        array = as_array(t)
        assert array.astype("f4").tolist() == t.float().tolist()
        assert ours(t, array) is None
        assert ours(array, np.roll(array, 1, 0))
    assert ours(torch.ones(2, requires_grad=True), np.ones(2, "f4")) is None


def test_all_failures_are_told():
    text = ours([np.zeros(2), np.ones(2)], [np.ones(2), np.zeros(2)])
    assert text.count("not close") == 2


def test_presets():
    e = np.random.default_rng(0).standard_normal((8, 64)).astype("f4")
    assert ours(e * np.float32(1 + 1e-6), e, tol="close") is None and ours(e * np.float32(1.01), e, tol="close")
    assert "allowed: the same bits" in ours(np.nextafter(e, np.float32(9)), e, tol="exact")
    assert "pcc" in ours(e * 2, e, tol="pcc(0.999)")


def test_msg():
    assert ours(1.0, 2.0, msg="mine") == "mine"
    assert ours(1.0, 2.0, msg=lambda text: "before " + text).startswith("before Scalars are not close!")


@pytest.mark.parametrize("options", [{"rtol": 1e-3}, {"atol": 1e-3}, {"rtol": -1, "atol": 0}, {"rtol": float("nan"), "atol": 0},
                                     {"tol": "auto", "rtol": 0, "atol": 0}, {"tol": "nearly"}])
def test_bad_arguments(options):
    with pytest.raises(ValueError):
        assert_close(np.ones(2), np.ones(2), **options)


@pytest.mark.parametrize("value", [object(), np.array(["a"]), np.ones(2, "c16"), np.array([object()])])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(_core.DtypeError):
        as_array(value)


def test_flatten_names_leaves_as_the_capture_does():
    x = np.ones(2)
    assert list(flatten(x)) == ["0"] and list(flatten((x, None, [x, x]))) == ["0", "2.0", "2.1"]
    assert list(flatten({"logits": x, "cache": ({"key": x},)})) == ["logits", "cache.0.key"]
    assert flatten(None) == {}


def test_ml_dtypes_defaults_are_torchs():
    e = np.ones(4, ml_dtypes.bfloat16)
    assert ours(e, e) is None and "up to 0.016 allowed" in ours(e * 2, e)
