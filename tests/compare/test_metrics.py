"""`_core.compare` against an oracle in plain numpy and Python integers, over every dtype."""
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from porting import _core

FLOATS = {
    "F16": np.dtype("f2"), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype("f4"), "F64": np.dtype("f8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
INTS = [np.dtype(code) for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")]
SIZES = st.sampled_from([0, 1, 7, 8, 9, 31, 1023, 1024, 1025, 2055])


def ordered(x):
    """Python integers in the order of the values; -0 and 0 are the same."""
    if x.dtype.kind in "biu":
        return [int(v) for v in x.ravel()]
    bits = x.ravel().view(f"u{x.dtype.itemsize}")
    top = 8 * x.dtype.itemsize - 1
    return [-(int(b) & ((1 << top) - 1)) if int(b) >> top else int(b) for b in bits]


@np.errstate(all="ignore")
def oracle(e, a):
    """What one pass must find, by definition; a dict with the fields it speaks of."""
    e64, a64 = e.ravel().astype("f8"), a.ravel().astype("f8")
    nan_e, nan_a = np.isnan(e64), np.isnan(a64)
    inf_e, inf_a = np.isinf(e64), np.isinf(a64)
    same = (nan_e & nan_a) | (e.ravel() == a.ravel())
    finite = ~(nan_e | nan_a | inf_e | inf_a)
    ulps = [abs(p - q) for p, q in zip(ordered(e), ordered(a))]
    ulps = [0 if s else 2**64 - 1 if n else u for s, n, u in zip(same, nan_e != nan_a, ulps)]
    if e.dtype.kind in "iu":
        error = np.array([abs(int(p) - int(q)) for p, q in zip(e.ravel(), a.ravel())], "f8")
    else:
        error = np.abs(a64 - e64)
    nonzero = finite & (e64 != 0)
    rel = error[nonzero] / np.abs(e64[nonzero])
    bad = ~same & ~finite
    found = {
        "num_elems": e.size, "num_unequal": int((~same).sum()),
        "num_nan_expected": int(nan_e.sum()), "num_nan_actual": int(nan_a.sum()), "num_nan_mismatch": int((nan_e != nan_a).sum()),
        "num_inf_expected": int(inf_e.sum()), "num_inf_actual": int(inf_a.sum()),
        "num_inf_mismatch": int(((inf_e | inf_a) & ~(e64 == a64)).sum()),
        "first_nonfinite_mismatch": int(np.argmax(bad)) if bad.any() else -1,
        "max_abs": float(error[finite].max(initial=0)), "max_rel": float(rel.max(initial=0)),
        "num_rel_inf": int((finite & (e64 == 0) & (error > 0)).sum()),
        "max_ulp": max(ulps, default=0),
    }
    found["max_abs_idx"] = int(np.flatnonzero(finite & (error == found["max_abs"]))[0]) if finite.any() else -1
    found["max_ulp_idx"] = ulps.index(found["max_ulp"]) if found["max_ulp"] else -1
    return found, error[finite], e64[finite], a64[finite], np.array(ulps, object)


def check_pair(e, a):
    m = _core.compare(e, a)
    found, error, fe, fa, ulps = oracle(e, a)
    for key, value in found.items():
        assert m[key] == value, (key, m[key], value)
    assert sum(m["ulp_histogram"]) == e.size
    assert m["ulp_histogram"][0] == sum(1 for u in ulps if u == 0)
    with np.errstate(all="ignore"):
        if error.size and np.isfinite(error).all() and np.isfinite(np.square(fe)).all() and np.isfinite(np.square(fa)).all():
            assert m["mean_abs"] == pytest.approx(math.fsum(error) / error.size, rel=1e-11, abs=0)
            assert m["sum_sq_error"] == pytest.approx(math.fsum(error**2), rel=1e-11)
            assert m["sum_sq_expected"] == pytest.approx(math.fsum(fe**2), rel=1e-11)
            check_percentile(m["p99_abs"], error, 0.99)
            check_percentile(m["p999_abs"], error, 0.999)
    return m


def check_percentile(edge, error, share):
    exact = np.sort(error)[math.ceil(share * error.size) - 1]
    assert exact <= edge <= exact * (1 + 1 / 16) + 5e-324, (edge, exact)


def random_floats(rng, dtype, size):
    """Any bit pattern (NaN, infinities, subnormals) or an ordinary number, near 1 or over many octaves."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8).view(dtype)
    x = rng.standard_normal(size) * (2.0 ** rng.integers(-30, 30, size) if kind == 1 else 1)
    with np.errstate(over="ignore"):
        return x.astype(dtype)


@pytest.mark.parametrize("name", FLOATS)
@settings(deadline=None, max_examples=40)
@given(size=SIZES, seed=st.integers(0, 2**32 - 1))
def test_floats_against_the_oracle(name, size, seed):
    rng = np.random.default_rng(seed)
    e = random_floats(rng, FLOATS[name], size)
    a = random_floats(rng, FLOATS[name], size)
    keep = rng.random(size) < rng.choice([0, 0.5, 1])
    check_pair(e, np.where(keep, e, a).astype(e.dtype))


@pytest.mark.parametrize("dtype", INTS, ids=str)
@settings(deadline=None, max_examples=20)
@given(size=SIZES, seed=st.integers(0, 2**32 - 1))
def test_integers_against_the_oracle(dtype, size, seed):
    rng = np.random.default_rng(seed)
    e, a = (rng.integers(0, 2, size).astype(bool) if dtype == bool else
            rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8).view(dtype) for _ in range(2))
    check_pair(e, np.where(rng.random(size) < 0.5, e, a).astype(dtype))


def test_int64_extremes_do_not_overflow():
    low, high = np.iinfo("i8").min, np.iinfo("i8").max
    m = _core.compare(np.array([low, 0, high]), np.array([high, 0, low]))
    assert m["max_ulp"] == 2**64 - 1 and m["max_abs"] == float(2**64) and m["num_unequal"] == 2
    m = _core.compare(np.array([high]), np.array([high - 1]))
    assert m["max_abs"] == 1.0 and m["max_ulp"] == 1  # the same number as float64


@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
def test_zero_has_no_sign(dtype):
    m = _core.compare(np.zeros(9, dtype), -np.zeros(9, dtype))
    assert m["num_unequal"] == 0 and m["max_ulp"] == 0 and m["ulp_histogram"][0] == 9


def test_subnormals_are_counted_across_zero():
    tiny = np.float32(1e-45)
    e, a = np.full(16, -tiny), np.full(16, tiny)
    m = _core.compare(e, a)
    assert m["max_ulp"] == 2 and m["ulp_histogram"][33] == 16 and m["mean_signed_ulp"] == 2


def test_nan_and_infinity_come_first():
    e = np.array([1, np.nan, np.inf, -np.inf, np.nan, 2], "f4")
    a = np.array([1, np.nan, -np.inf, -np.inf, 3, np.inf], "f4")
    m = _core.compare(e, a)
    assert (m["num_nan_expected"], m["num_nan_actual"], m["num_nan_mismatch"]) == (2, 1, 1)
    assert (m["num_inf_expected"], m["num_inf_actual"], m["num_inf_mismatch"]) == (2, 3, 2)
    assert m["num_unequal"] == 3 and m["first_nonfinite_mismatch"] == 2 and m["max_ulp"] == 2**64 - 1
    assert m["max_abs"] == 0 and m["ulp_histogram"][33] == 3


def test_all_nan_on_both_sides_is_counted_not_hidden():
    x = np.full(33, np.nan, "f4")
    m = _core.compare(x, x.copy())
    assert m["num_unequal"] == 0 and m["num_nan_expected"] == m["num_nan_actual"] == 33
    assert m["max_abs_idx"] == -1 and math.isnan(m["pcc"]) and math.isnan(m["max_expected"])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1)])
def test_scalars_and_empty(shape):
    e = np.ones(shape, "f4")
    assert _core.compare(e, e.copy())["num_unequal"] == 0
    assert _core.compare(e, np.asarray(e + 1))["num_unequal"] == e.size


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_strided_views_measure_as_their_copies(seed):
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((5, 37, 13)).astype("f4")
    a = (e + 1e-3 * rng.standard_normal(e.shape)).astype("f4")
    axes = rng.permutation(3)
    cut = tuple(slice(None, None, int(rng.choice([1, 2, -1, -3]))) for _ in range(3))
    e2, a2 = e.transpose(axes)[cut], a.transpose(axes)[cut]
    scale = np.abs(e2) + 1
    assert _core.compare(e2, a2, scale) == _core.compare(e2.copy(), a2.copy(), scale.copy())
    wide = np.broadcast_to(e2[:1], (4, *e2.shape[1:]))
    assert _core.compare(wide, wide + np.float32(1)) == _core.compare(wide.copy(), wide + np.float32(1))


def test_unaligned_memory():
    raw = bytes(1) + np.arange(100, dtype="f4").tobytes()
    e = np.frombuffer(raw, "f4", offset=1)
    assert not e.flags.aligned
    assert _core.compare(e, np.arange(100, dtype="f4"))["num_unequal"] == 0


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 9, 1000, 5000]), offset=st.sampled_from([0.0, 1e3, 1e7]))
def test_correlations_against_float64(seed, size, offset):
    rng = np.random.default_rng(seed)
    e = (rng.standard_normal(size) + offset).astype("f4")
    a = (e + rng.standard_normal(size) * rng.choice([1e-3, 1.0])).astype("f4")
    m = _core.compare(e, a)
    x, y = e.astype("f8"), a.astype("f8")
    assert m["cosine"] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-12)
    dx, dy = x - x.mean(), y - y.mean()
    if (dx == 0).all() or (dy == 0).all():
        assert math.isnan(m["pcc"])
    else:
        assert m["pcc"] == pytest.approx(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), abs=1e-9)
    assert m["mean_error"] == pytest.approx((y - x).mean(), abs=1e-12 * max(1, offset))


def test_correlation_is_undefined_for_constants():
    flat, line = np.full(3000, 3.3, "f4"), np.arange(3000, dtype="f4")
    assert math.isnan(_core.compare(flat, line)["pcc"]) and math.isnan(_core.compare(line, flat)["pcc"])
    assert math.isnan(_core.compare(np.zeros(9, "f4"), line[:9])["cosine"])
    assert _core.compare(line, line * 3 + 7)["pcc"] == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(size=SIZES, seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["f4", "f8"]), out=st.sampled_from(["f4", "f2", "f8"]))
def test_error_over_scale(size, seed, kind, out):
    rng = np.random.default_rng(seed)
    e = rng.standard_normal(size).astype(out)
    a = np.where(rng.random(size) < 0.3, e, e + rng.standard_normal(size) * 1e-2).astype(out)
    scale = np.abs(rng.standard_normal(size)).astype(kind)
    m = _core.compare(e, a, scale, 2.0**-20)
    ratio = np.abs(a.astype("f8") - e) / (2.0**-20 * scale.astype("f8"))
    if size:
        assert m["max_err_scale"] == pytest.approx(ratio.max(), rel=1e-14)
        assert ratio[m["max_err_scale_idx"]] == ratio.max()
        assert _core.compare(e, a, 3.0)["max_err_scale"] == pytest.approx(m["max_abs"] / (2.0**-24 * 3), rel=1e-14)
    assert _core.compare(e, a)["max_err_scale"] == -1


def test_no_scale_left_makes_any_error_infinite():
    e = np.zeros(20, "f4")
    assert _core.compare(e, e, np.zeros(20))["max_err_scale"] == 0
    assert _core.compare(e, e + np.float32(1e-30), np.zeros(20))["max_err_scale"] == math.inf


def test_two_floating_dtypes_count_in_the_narrower():
    e = np.array([1.0, 1.001, 2.0, -3.0], "f4")
    a = np.array([1.0, 1.0, 2.015625, -3.0], ml_dtypes.bfloat16)
    m = _core.compare(e, a)
    assert m["num_unequal"] == 2 and m["max_ulp"] == 1 and m["max_ulp_idx"] == 2
    assert _core.compare(a, e)["max_ulp"] == 1


def test_complex_counts_its_parts():
    e = (np.arange(6) + 1j).astype("c8")
    a = e.copy()
    a[4] += 2j
    m = _core.compare(e, a)
    assert m["num_elems"] == 12 and m["num_unequal"] == 1 and m["max_abs"] == 2 and m["max_abs_idx"] == 9
    assert _core.compare(e[::2], a[::2])["max_abs_idx"] == 5


@pytest.mark.parametrize("e, a, scale, error, words", [
    (np.ones((2, 3), "f4"), np.ones((3, 2), "f4"), None, _core.ShapeError, "shape [2, 3]"),
    (np.ones(3, "f4"), np.ones(3, "i4"), None, _core.DtypeError, "I32"),
    (np.ones(3, "i8"), np.ones(3, "i4"), None, _core.DtypeError, "I64"),
    (np.ones(3, "f4"), np.ones(3, "f4"), np.array([1, -1, 1.0]), ValueError, "element 1"),
    (np.ones(3, "f4"), np.ones(3, "f4"), np.array([1, 1, np.nan]), ValueError, "element 2"),
    (np.ones(3, "f4"), np.ones(3, "f4"), -1.5, ValueError, "not negative"),
    (np.ones(3, "f4"), np.ones(3, "f4"), math.nan, ValueError, "not negative"),
    (np.ones(3, "f4"), np.ones(3, "f4"), np.ones(4), _core.ShapeError, "scale"),
    (np.ones(3, "f4"), np.ones(3, "f4"), np.ones(3, "i4"), _core.DtypeError, "scale"),
    (np.ones(3, "c16"), np.ones(3, "c16"), None, _core.DtypeError, "complex"),
    ([1.0], np.ones(1), None, TypeError, "NumPy array"),
])
def test_bad_input_gets_a_sentence(e, a, scale, error, words):
    with pytest.raises(error) as caught:
        _core.compare(e, a, scale)
    assert words in str(caught.value)


# ---------------------------------------------------------------- sizes of rows, and where the error is


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([1, 2, 7]), cols=st.sampled_from([1, 2, 7, 8, 33, 1024, 1500]), name=st.sampled_from(sorted(FLOATS)))
def test_sizes_of_rows_against_numpy(seed, rows, cols, name):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, cols)) * rng.choice([1, 0], (rows, cols), p=[0.8, 0.2])).astype(FLOATS[name])
    if rng.random() < 0.5:
        x[0, rng.integers(cols)] = np.nan
    wide = np.where(np.isfinite(x.astype("f8")), x.astype("f8"), 0)
    assert _core.row_sizes(x, "rms") == pytest.approx(np.sqrt(np.mean(wide**2, -1)), rel=1e-12)
    medians = [np.sort(np.abs(row[row != 0])) for row in wide]
    assert _core.row_sizes(x, "median").tolist() == [m[(len(m) - 1) // 2] if len(m) else 0.0 for m in medians]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([1, 3, 40]), cols=st.sampled_from([1, 7, 64, 1100]), name=st.sampled_from([*sorted(FLOATS), "i"]))
def test_the_map_of_errors_against_numpy(seed, rows, cols, name):
    rng = np.random.default_rng(seed)
    dtype = FLOATS.get(name, np.dtype("i4"))
    e = (rng.standard_normal((rows, cols)) * 9).astype(dtype)
    a = np.where(rng.random(e.shape) < 0.7, e, (rng.standard_normal(e.shape) * 9).astype(dtype)).astype(dtype)
    if name != "i" and rng.random() < 0.5:
        a[-1, -1] = np.nan
    height, width = min(rows, int(rng.integers(1, 24))), min(cols, int(rng.integers(1, 64)))
    cells, worst = _core.error_map(e, a, height, width, 8)
    with np.errstate(invalid="ignore"):
        error = np.abs(a.astype("f8") - e.astype("f8"))
    error = np.where(np.isnan(error), np.inf, error)
    wanted = np.zeros((height, width))
    np.maximum.at(wanted, (np.arange(rows)[:, None] * height // rows, np.arange(cols)[None] * width // cols), error)
    assert np.array_equal(cells, wanted)
    order = np.argsort(-error.ravel(), kind="stable")[:8]
    assert worst.tolist() == [int(i) for i in order if error.ravel()[i] > 0]


@pytest.mark.parametrize("call, error", [
    (lambda x: _core.row_sizes(x, "mode"), ValueError), (lambda x: _core.row_sizes(x.T, "rms"), ValueError), (lambda x: _core.row_sizes(x.astype("c8"), "rms"), ValueError),
    (lambda x: _core.error_map(x, x, 0, 1, 1), ValueError), (lambda x: _core.error_map(x, x, 4, 1, 1), ValueError), (lambda x: _core.error_map(x, x[:2], 1, 1, 1), _core.ShapeError),
    (lambda x: _core.error_map(x, x.T.copy().T, 1, 1, 1), ValueError), (lambda x: _core.error_map(x, x, 1, 1, -1), ValueError), (lambda x: _core.row_sizes([1.0], "rms"), TypeError),
])
def test_rows_and_maps_refuse_bad_input(call, error):
    with pytest.raises(error):
        call(np.ones((3, 5), "f4"))
