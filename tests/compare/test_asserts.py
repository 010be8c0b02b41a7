"""assert_close against torch.testing itself: the same verdict, the same numbers in the message."""
import re

import ml_dtypes
import numpy as np
import porting
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


# ---------------------------------------------------------------- torch's other arguments


@pytest.mark.parametrize("pair, options", [
    (pair, options) for pair in ("strides", "dtypes", "layouts", "parameter", "same")
    for options in ({}, {"check_stride": True}, {"check_dtype": False, "check_stride": True}, {"check_layout": False}, {"allow_subclasses": False})
    if pair != "layouts" or "check_stride" not in options])  # a sparse tensor has no strides
def test_attributes_are_judged_as_torch_does(pair, options):
    e = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    a = {"strides": e.t().contiguous().t(), "dtypes": e.double(), "layouts": e.to_sparse(), "parameter": torch.nn.Parameter(e.clone()), "same": e.clone()}[pair]
    try:
        theirs = torch_says(a, e, **options)
    except TypeError as error:  # torch's word for classes that may not be compared
        theirs = str(error)
    mine = ours(a, e, **options)
    assert (theirs is None) == (mine is None), (theirs, mine)


def test_another_device_is_told_and_can_be_allowed():
    class Elsewhere(np.ndarray):
        device, layout = "cuda:0", "strided"

    class Here(Elsewhere):
        device = "cpu"

    e, a = np.ones(3, "f4").view(Here), np.ones(3, "f4").view(Elsewhere)
    assert "'device' do not match: cuda:0 != cpu" in ours(a, e)
    assert ours(a, e, check_device=False) is None and ours(np.asarray(a), e) is None


@pytest.mark.parametrize("wrong, words", [
    (lambda e: 0 * e, "every element is 0"), (lambda e: 3 * e + 7, "it is 3 times what is expected + 7"), (lambda e: e * np.float32(1.5), "1.5 times"),
    (lambda e: -e, "every sign is turned"), (lambda e: e - 2, "what is expected - 2"), (lambda e: np.roll(e, 1, 0), "moved by 1 along axis 0"),
    (lambda e: e[:, ::-1].copy(), "turned around along axis 1"), (lambda e: e.T.copy(), "axes 0 and 1 exchanged"),
    (lambda e: np.where(np.arange(16) == 3, e + 1, e), "index 3 of axis 1 (of 16)"), (lambda e: e + np.sin(np.arange(16) ** 2)[:, None] / 9 * e ** 2, None),
])
def test_a_failure_says_values_band_and_likeness(wrong, words):
    e = np.random.default_rng(7).standard_normal((16, 16)).astype("f4")
    a = np.asarray(wrong(e), "f4")
    text = ours(a, e)
    assert "Values there: " in text and "\nBand: red (" in text
    assert ("It looks like this" in text) == (words is not None) and (words or "") in text
    assert (words or "") in ours(a, e, tol="auto")


def test_a_bound_that_is_just_met_is_close():
    e = np.full(64, 1.0, "f8")
    for factor in (1.0, 1 + 1e-13, 1 - 1e-13):
        a = e + 2.0**-10 * factor
        assert (ours(a, e, rtol=0, atol=2.0**-10) is None) == (torch_says(torch.from_numpy(a), torch.from_numpy(e), rtol=0, atol=2.0**-10) is None)


# ---------------------------------------------------------------- TT-NN's


def with_pcc(e, a, pcc=0.9999):
    try:
        return porting.assert_with_pcc(e, a, pcc)
    except AssertionError as error:
        return str(error)


def test_pcc_of_good_ports():
    e = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    passed, found = with_pcc(e, (e.bfloat16().float()))
    assert passed is True and f"{found:.6f}" > "0.9999" and found < 1
    assert with_pcc(e, e.bfloat16())[0] is True  # another dtype
    assert with_pcc(e.bfloat16(), (e * (1 + 2.0**-9 * torch.randn_like(e))).bfloat16(), 0.999)[0] is True
    assert with_pcc(e, e.clone()) == (True, 1.0) and with_pcc(torch.ones(9), torch.ones(9)) == (True, 1.0)
    assert with_pcc(e, e.clone(), 1) == (True, 1.0) and "bit" in with_pcc(e, e * (1 + 1e-6), 1)
    assert with_pcc(np.arange(9), torch.arange(9)) == (True, 1.0)


@pytest.mark.parametrize("wrong, words", [
    (lambda e: e * 3, "a scale or an offset"), (lambda e: e + 7, "a scale or an offset"), (lambda e: 3 * e + 7, "a scale or an offset"),
    (lambda e: torch.zeros_like(e), "constant"), (lambda e: torch.full_like(e, torch.nan), "NaN"), (lambda e: e * 1.01, "a wrong scale"),
    (lambda e: e[:, :-1], "'shape'"), (lambda e: torch.where(torch.arange(256) == 3, -e, e), None), (lambda e: e + 0.1 * torch.randn_like(e), None),
    (lambda e: e.index_fill(0, torch.tensor([5]), 0.0), None),
])
def test_pcc_refuses_what_correlates_and_is_wrong(wrong, words):
    torch.manual_seed(2)
    e = torch.randn(64, 256)
    text = with_pcc(e, wrong(e))
    assert isinstance(text, str) and (words or "") in text


def test_pcc_refuses_constants_nan_and_what_outliers_hide():
    two = torch.full((8, 64), 2.0)
    assert "undefined" in with_pcc(two, two + 0.5)
    nan = torch.full((8, 8), torch.nan)
    assert "NaN on both sides" in with_pcc(nan, nan.clone())
    e = torch.randn(32, 512, generator=torch.Generator().manual_seed(3))
    a = e + torch.randn(e.shape, generator=torch.Generator().manual_seed(4))
    e[:, 17] = a[:, 17] = 1e5
    assert torch.corrcoef(torch.stack([e.flatten(), a.flatten()]))[0, 1] > 0.999999
    assert isinstance(with_pcc(e, a), str)
    for bad in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="at most 1"):
            porting.assert_with_pcc(e, e, bad)


def test_neighbouring_integers_beyond_the_numbers_of_float64_are_apart():
    great = 2**53
    with pytest.raises(porting.ParityError, match="difference: 1.0"):
        porting.assert_close(np.array([great + 1]), np.array([great]), rtol=0.0, atol=0.5)
    porting.assert_close(np.array([great + 1]), np.array([great]), rtol=0.0, atol=1.0)


def test_asserts_take_the_layout_of_the_actual_array():
    expected = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    actual = expected.transpose(0, 2, 3, 1)
    porting.assert_close(actual, expected, layout="NHWC -> NCHW")
    assert porting.assert_with_pcc(expected, actual, 0.9999, layout="NHWC -> NCHW") == (True, 1.0)
    for layout in (None, "NWHC -> NCHW"):
        with pytest.raises(porting.ParityError):
            porting.assert_close(actual, expected, layout=layout)
        with pytest.raises(porting.ParityError):
            porting.assert_with_pcc(expected, actual, 0.9999, layout=layout)
    with pytest.raises(ValueError, match="->"):
        porting.assert_close(actual, expected, layout="NHWC NCHW")
