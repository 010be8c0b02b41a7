"""Every preset and assert against ports that are known to be wrong, and ports that only round differently.

A tolerance that passes a wrong port is worthless, one that refuses a right port is switched off: both are failures here.
"""
import ml_dtypes
import numpy as np
import pytest
import torch
from porting.compare import compare_arrays
from porting.testing import ParityError, assert_close
from porting.tolerance import Tolerance, condition_scale, layer_norm_scale, linear_scale, resolve, softmax_scale

F4 = np.float32


def torch_out(function, *arrays):
    with torch.no_grad():
        return function(*(torch.from_numpy(x) for x in arrays)).numpy()


def make_linear(rng, rows=16, K=576, N=192):
    x, w, b = (rng.standard_normal(s).astype(F4) for s in ((rows, K), (N, K), (N,)))
    clean = {
        "float64 rounded once": (x.astype("f8") @ w.T.astype("f8") + b).astype(F4),
        "left to right": np.cumsum(x[:, None, :] * w[None], -1, dtype=F4)[..., -1] + b,
        "blocked": sum((x[:, k:k + 64] @ w[:, k:k + 64].T for k in range(0, K, 64)), np.zeros((rows, N), F4)) + b,
        "backwards": x[:, ::-1] @ w[:, ::-1].T + b,
    }
    wrong = {"bias dropped": clean["blocked"] - b, "neighbouring weight": x @ np.roll(w, 1, 0).T + b,
             "bf16 weights": x @ w.astype(ml_dtypes.bfloat16).astype(F4).T + b}
    return torch_out(torch.nn.functional.linear, x, w, b), {"kind": "linear", "scale": linear_scale(x, w, b), "terms": K}, clean, wrong


def make_layer_norm(rng, rows=16, C=384):
    x = (rng.standard_normal((rows, C)) * 3 + 0.5).astype(F4)
    g, b = (rng.standard_normal(C).astype(F4) for _ in range(2))

    def norm(dtype, eps=1e-5, ddof=0, mean=True):
        v = x.astype(dtype)
        m = v.mean(-1, keepdims=True) * (1 if mean else 0)
        return ((v - m) / np.sqrt(v.var(-1, ddof=ddof, keepdims=True) + dtype(eps)) * g + b).astype(F4)

    slow = np.cumsum(x, -1, dtype=F4)[:, -1:] / F4(C)
    naive = (x - slow) / np.sqrt(np.cumsum((x - slow) ** 2, -1, dtype=F4)[:, -1:] / F4(C) + F4(1e-5)) * g + b
    reference = torch_out(lambda *t: torch.nn.functional.layer_norm(t[0], (C,), t[1], t[2]), x, g, b)
    wrong = {"eps": norm(np.float64, 1e-3), "unbiased variance": norm(np.float64, ddof=1), "mean kept": norm(np.float64, mean=False)}
    return reference, {"kind": "layer_norm", "scale": layer_norm_scale(x, g, b), "terms": C}, \
        {"float64 rounded once": norm(np.float64), "numpy f32": norm(F4), "left to right": naive}, wrong


def make_rms_norm(rng, rows=16, C=4096):
    x, g = rng.standard_normal((rows, C)).astype(F4), rng.standard_normal(C).astype(F4)

    def norm(dtype, eps=1e-6):
        v = x.astype(dtype)
        return (v / np.sqrt((v * v).mean(-1, keepdims=True) + dtype(eps)) * g).astype(F4)

    naive = x * (1 / np.sqrt(np.cumsum(x * x, -1, dtype=F4)[:, -1:] / F4(C) + F4(1e-6))) * g
    reference = torch_out(lambda a, b: torch.nn.functional.rms_norm(a, (C,), b, 1e-6), x, g)
    return reference, {"kind": "rms_norm", "scale": np.abs(reference), "terms": C}, \
        {"float64 rounded once": norm(np.float64), "left to right": naive}, {"eps": norm(np.float64, 1e-5), "1 + weight": norm(np.float64) / g * (1 + g)}


def make_softmax(rng, rows=64, C=128):
    x = (rng.standard_normal((rows, C)) * 4).astype(F4)

    def softmax(dtype, v):
        e = np.exp((v - v.max(-1, keepdims=True)).astype(dtype))
        return (e / e.sum(-1, keepdims=True)).astype(F4)

    reference = torch_out(lambda t: torch.softmax(t, -1), x)
    exp = np.exp(x - x.max(-1, keepdims=True))
    clean = {"float64 rounded once": softmax(np.float64, x), "numpy f32": softmax(F4, x),
             "left to right": exp * (1 / np.cumsum(exp, -1, dtype=F4)[:, -1:])}
    return reference, {"kind": "softmax", "scale": softmax_scale(x, reference), "terms": C}, clean, \
        {"half exponent": softmax(np.float16, x), "scaled": softmax(F4, x * F4(1.001))}


def make_gelu(rng, rows=16, C=512):
    x = (rng.standard_normal((rows, C)) * 2).astype(F4)
    reference = torch_out(torch.nn.functional.gelu, x)
    erf = torch.special.erfc(-torch.from_numpy(x).double() / 2**0.5).numpy() / 2
    scale, terms = condition_scale("activation", reference, [x], {}, "GELU")
    clean = {"float64 rounded once": (x * erf).astype(F4), "f32 steps": (x * F4(0.5) * (1 + torch.erf(torch.from_numpy(x * F4(2**-0.5))).numpy()))}
    wrong = {"tanh": torch_out(lambda t: torch.nn.functional.gelu(t, approximate="tanh"), x),
             "quick": (x / (1 + np.exp(-1.702 * x.astype("f8")))).astype(F4)}
    return reference, {"kind": "activation", "scale": scale, "terms": terms}, clean, wrong


def make_attention(rng, B=2, H=4, T=24, D=32):
    q, k, v = (rng.standard_normal((B, H, T, D)).astype(F4) for _ in range(3))
    causal = np.triu(np.full((T, T), -np.inf), 1)

    def attend(dtype, mask=causal, scale=D**-0.5):
        s = (q.astype(dtype) @ k.astype(dtype).swapaxes(-1, -2)) * dtype(scale) + mask.astype(dtype)
        e = np.exp(s - s.max(-1, keepdims=True))
        return ((e @ v.astype(dtype)) / e.sum(-1, keepdims=True)).astype(F4)

    reference = torch_out(lambda a, b, c: torch.nn.functional.scaled_dot_product_attention(a, b, c, is_causal=True), q, k, v)
    off_by_one = np.triu(np.full((T, T), -np.inf), 2)
    return reference, {"kind": "attention", "terms": T}, {"float64 rounded once": attend(np.float64), "numpy f32": attend(F4)}, \
        {"no mask": attend(F4, 0 * np.nan_to_num(causal)), "mask off by one": attend(F4, off_by_one), "no scale": attend(F4, scale=1.0)}


MAKERS = {"linear": make_linear, "layer_norm": make_layer_norm, "rms_norm": make_rms_norm, "softmax": make_softmax, "gelu": make_gelu,
          "attention": make_attention}
PRESETS = ["auto", "strict", "exact", "close", "approximate", "allclose", "ulp(64)", "pcc(0.99)", "pcc(0.999)", "pcc(0.9999)"]
ROUNDING = ["auto", "close", "approximate", "pcc(0.999)"]  # must accept whatever only rounds


def damages(e, rng):
    """Name to a port's output that no preset may accept."""
    flat = e.reshape(-1, e.shape[-1])
    swapped = flat.copy()
    swapped[[0, len(flat) // 2]] = swapped[[len(flat) // 2, 0]]
    spoiled = e.copy()
    spoiled[..., np.argsort((flat.astype("f8") ** 2).sum(0))[e.shape[-1] // 2]] = 0  # one of ordinary size
    one_nan = e.copy()
    one_nan.flat[e.size // 3] = np.nan
    one_inf = e.copy()
    one_inf.flat[-1] = np.inf
    return {
        "zeros": np.zeros_like(e), "NaN": np.full_like(e, np.nan), "3x+7": 3 * e + 7, "1.1 x": F4(1.1) * e, "offset": e + F4(e.std()),
        "two rows swapped": swapped.reshape(e.shape), "one channel zero": spoiled, "one NaN": one_nan, "one infinity": one_inf,
        "sign": -e, "noise": (e + rng.standard_normal(e.shape) * e.std()).astype(F4), "shifted": np.roll(e, 1, -1),
        "constant": np.full_like(e, e.mean()), "wrong dtype": e.astype(np.float64), "wrong shape": e[..., :-1], "transposed": e.swapaxes(-1, -2),
        "half precision of another scale": (e.astype(np.float16) * np.float16(1.25)).astype(F4),
    }


@pytest.fixture(scope="module", params=MAKERS)
def case(request):
    return MAKERS[request.param](np.random.default_rng(11))


@pytest.mark.parametrize("tol", PRESETS)
def test_wrong_ports_are_refused(case, tol):
    reference, context, _, _ = case
    passed = [name for name, bad in damages(reference, np.random.default_rng(5)).items() if compare_arrays(reference, bad, tol=tol, **context).passed]
    assert passed == []


@pytest.mark.parametrize("tol", ["auto", "strict", "exact"])
def test_wrong_algorithms_are_refused(case, tol):
    reference, context, _, wrong = case
    assert [name for name, bad in wrong.items() if compare_arrays(reference, bad, tol=tol, **context).passed] == []


@pytest.mark.parametrize("tol", ROUNDING)
def test_ports_that_only_round_are_accepted(case, tol):
    reference, context, clean, _ = case
    blamed = {name: compare_arrays(reference, good, tol=tol, **context).reason for name, good in clean.items()
              if not compare_arrays(reference, good, tol=tol, **context).passed}
    assert blamed == {}


@pytest.mark.parametrize("tol", PRESETS)
def test_the_same_bits_always_pass(case, tol):
    reference, context, _, _ = case
    found = compare_arrays(reference, reference.copy(), tol=tol, **context)
    assert found.passed and found.band == "exact"


def test_exact_refuses_one_bit(case):
    reference, context, _, _ = case
    bad = reference.copy()
    bad.flat[7] = np.nextafter(bad.flat[7], F4(np.inf))
    assert not compare_arrays(reference, bad, tol="exact", **context).passed
    assert compare_arrays(reference, bad, tol="auto", **context).band == "green"


@pytest.mark.parametrize("tol", PRESETS)
def test_all_nan_on_both_sides_shows_nothing(tol):
    x = np.full((4, 16), np.nan, F4)
    found = compare_arrays(x, x.copy(), tol=tol)
    assert not found.passed and "NaN on both sides" in found.reason


def test_some_nan_on_both_sides_is_said():
    x = np.ones((4, 16), F4)
    x[1, 3] = np.nan
    found = compare_arrays(x, x.copy(), tol="auto")
    assert found.band == "exact" and "1 NaN on both sides" in found.reason


@pytest.mark.parametrize("tol", [t for t in PRESETS if t != "approximate"] + ["approximate"])
def test_an_outlier_hides_nothing(tol):
    rng = np.random.default_rng(3)
    e = rng.standard_normal((32, 512)).astype(F4)
    e[:, 17] = 1e5
    a = e + rng.standard_normal(e.shape).astype(F4)
    a[:, 17] = e[:, 17]
    assert np.corrcoef(e.ravel(), a.ravel())[0, 1] > 0.9999999
    assert not compare_arrays(e, a, tol=tol).passed


@pytest.mark.parametrize("tol", PRESETS)
@pytest.mark.parametrize("dtype", ["f4", "bfloat16", "f2"])
def test_one_bad_channel_of_4096(tol, dtype):
    rng = np.random.default_rng(4)
    e = rng.standard_normal((16, 4096)).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    for values in (rng.standard_normal(16), np.zeros(16), -e[:, 1234].astype("f8"), e[:, 1235], e[::-1, 1234]):
        a = e.copy()
        a[:, 1234] = values
        assert not compare_arrays(e, a, tol=tol).passed


@pytest.mark.parametrize("tol", PRESETS)
def test_signs_that_cancel(tol):
    """Errors that add up to nothing: each row's and the whole's mean error is 0, and so is its projection on the reference."""
    rng = np.random.default_rng(9)
    e = rng.standard_normal((32, 256)).astype(F4)
    error = rng.standard_normal((32, 128)).astype(F4) / 2
    both = np.concatenate([error, -error], -1)
    assert abs(both.sum(-1)).max() < 1e-4
    assert not compare_arrays(e, e + both, tol=tol).passed
    assert not compare_arrays(both, -both, tol=tol).passed  # the same mean, the same size


@pytest.mark.parametrize("x", [0.99, 0.999, 0.9999])
@pytest.mark.parametrize("shape", [(2, 4096), (256, 32), (64, 64), (1, 100), (3, 5, 48)])
def test_pcc_does_not_blame_noise_for_a_small_or_short_slice(x, shape):
    """White noise of two fifths of what x allows, over channels of which some are nearly 0: nobody's fault."""
    blamed = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        e = (rng.standard_normal(shape) * np.where(rng.random(shape[-1]) < 1 / 16, 0.01, 1.0)).astype(F4)
        noise = rng.standard_normal(shape) * np.sqrt(0.4 * 2 * (1 - x) * np.mean(e.astype("f8") ** 2))
        found = compare_arrays(e, (e + noise).astype(F4), tol=Tolerance.pcc(x))
        blamed += [found.reason] if not found.passed else []
    assert blamed == []


@pytest.mark.parametrize("tol", PRESETS)
def test_constant_against_constant(tol):
    e = np.full((8, 64), 2.0, F4)
    assert not compare_arrays(e, e + F4(0.5), tol=tol).passed
    assert not compare_arrays(np.zeros_like(e), e, tol=tol).passed


@pytest.mark.parametrize("x", [0.9, 0.99, 0.999, 0.9999])
def test_pcc_accepts_noise_and_nothing_else(x):
    rng = np.random.default_rng(6)
    e = rng.standard_normal((64, 256)).astype(F4)
    noise = rng.standard_normal(e.shape) * np.sqrt(2 * (1 - x)) * 0.7
    assert compare_arrays(e, (e + noise).astype(F4), tol=Tolerance.pcc(x)).passed
    shift = np.sqrt(2 * (1 - x)) * 0.7
    assert not compare_arrays(e, (e * (1 + shift)).astype(F4), tol=Tolerance.pcc(x)).passed
    assert not compare_arrays(e, (e + shift).astype(F4), tol=Tolerance.pcc(x)).passed


@pytest.mark.parametrize("dtype", [np.dtype(ml_dtypes.bfloat16), np.dtype("f2")], ids=["bf16", "f16"])
def test_half_outputs(dtype):
    rng = np.random.default_rng(8)
    x, w = (rng.standard_normal(s).astype(dtype) for s in ((16, 256), (64, 256)))
    exact = x.astype("f8") @ w.astype("f8").T
    context = {"kind": "linear", "scale": linear_scale(x, w), "terms": 256}
    reference = exact.astype(dtype)
    blocked = sum(x[:, k:k + 32].astype(F4) @ w[:, k:k + 32].astype(F4).T for k in range(0, 256, 32)).astype(dtype)
    assert compare_arrays(reference, blocked, **context).passed
    coarse = (exact * 1.02).astype(dtype)
    assert not compare_arrays(reference, coarse, **context).passed
    in_half = np.zeros((16, 64), dtype)
    for k in range(256):
        in_half = (in_half + (x[:, k:k + 1] * w[None, :, k]).astype(dtype)).astype(dtype)
    assert not compare_arrays(reference, in_half, **context).passed  # accumulated in the half type


@pytest.mark.parametrize("kind", ["embedding", "move"])
def test_copies_must_be_bit_equal(kind):
    e = np.random.default_rng(1).standard_normal((4, 9)).astype(F4)
    assert compare_arrays(e, e.copy(), kind=kind).band == "exact"
    found = compare_arrays(e, np.nextafter(e, F4(9)), kind=kind)
    assert not found.passed and "same bits" in found.verdict.allowed


def test_integers_and_booleans_must_be_equal():
    e = np.arange(12).reshape(3, 4)
    assert compare_arrays(e, e.copy()).passed
    assert not compare_arrays(e, e + (e == 5), tol="approximate").passed
    assert not compare_arrays(e > 3, e > 4).passed


def test_infinities_of_a_mask_are_equal_and_counted():
    e = np.where(np.tri(6, dtype=bool), F4(0), F4(-np.inf))
    found = compare_arrays(e, e.copy())
    assert found.band == "exact" and "infinite on both sides" in found.reason
    assert not compare_arrays(e, np.where(np.tri(6, dtype=bool), F4(0), F4(-3e38))).passed
    assert not compare_arrays(e, -e).passed


def test_red_says_that_no_summation_order_explains_it(case):
    reference, context, _, _ = case
    found = compare_arrays(reference, 3 * reference + 7, **context)
    assert found.band == "red" and "err <=" in found.verdict.allowed and "err/(u s)" in found.reason
    if context["kind"] == "linear":
        assert f"no order of summing {context['terms']} terms" in found.reason


# ---------------------------------------------------------------- assert_close


def test_assert_close_refuses_the_wrong_and_accepts_what_torch_accepts(case):
    reference, _, clean, _ = case
    for name, bad in damages(reference, np.random.default_rng(5)).items():
        with pytest.raises(AssertionError):
            assert_close(bad, reference)
            pytest.fail(f"{name} was accepted")
    for good in clean.values():
        torch_says = True
        try:
            torch.testing.assert_close(torch.from_numpy(np.array(good)), torch.from_numpy(reference))
        except AssertionError:
            torch_says = False
        if torch_says:
            assert_close(good, reference)
        else:
            with pytest.raises(ParityError):
                assert_close(good, reference)


# ---------------------------------------------------------------- names and arguments


@pytest.mark.parametrize("text", PRESETS + ["allclose(1e-3, 1e-5)", "allclose(rtol=1e-3, atol=0)"])
def test_resolve_knows_its_names(text):
    tol = resolve(text)
    assert resolve(tol) is tol and isinstance(tol, Tolerance)


@pytest.mark.parametrize("bad", ["", "looser", "pcc", "pcc(2)", "pcc(nan)", "ulp(-1)", "allclose(1e-3)", "pcc(0.9, 1, 2, 3)", "ulp(x)", 3, None])
def test_resolve_refuses_others_with_a_sentence(bad):
    with pytest.raises(ValueError) as caught:
        resolve(bad)
    assert len(str(caught.value)) > 15


def test_resolve_says_which_brackets_hold_no_numbers():
    with pytest.raises(ValueError, match=r"tolerance 'ulp\(x\)': expected numbers in the brackets, got 'x'"):
        resolve("ulp(x)")


def test_a_measurement_without_scale_never_passes_a_bound():
    from porting import _core

    e = np.ones(9, F4)
    metrics = _core.compare(e, e + F4(1e-7))
    assert not Tolerance.auto().judge(metrics, kind="linear", dtype="float32", terms=9).passed


def test_a_dot_product_of_unknown_terms_is_judged_by_its_row():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((8, 2048)).astype(F4), rng.standard_normal((32, 2048)).astype(F4)
    e, a = (x.astype("f8") @ w.T.astype("f8")).astype(F4), np.cumsum(x[:, None] * w[None], -1, dtype=F4)[..., -1]
    assert compare_arrays(e, a, kind="linear").passed
    assert not compare_arrays(e, e * F4(1.001), kind="linear").passed
