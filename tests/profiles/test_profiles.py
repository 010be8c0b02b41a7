"""Profiles: what each promises, against torch, exact sums and gguf; and what a report says where one cannot be kept."""
import json
import math
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import porting
import pytest
import torch
from porting import _core, ops_table, profiles
from porting.port import as_array
from porting.program import run_call
from porting.providers import load_torch_provider
from porting.widening import rounded_once

load_torch_provider()


class Block(torch.nn.Module):
    """What a model is made of: norms, attention, a gated MLP, functions, sums over several dimensions."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(48)
        self.qkv = torch.nn.Linear(48, 144)
        self.out = torch.nn.Linear(48, 48, bias=False)
        self.up = torch.nn.Linear(48, 101)
        self.down = torch.nn.Linear(101, 48)
        self.act = torch.nn.GELU()

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        x = x + self.out(torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c))
        scores = torch.softmax(q @ k.transpose(-1, -2), -1)
        x = x + self.down(self.act(self.up(x))) * torch.sigmoid(x).mean(-1, keepdim=True) + scores.sum((1, 2, 3)).view(b, 1, 1)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) + torch.tanh(x).sum(1, keepdim=True).exp() * 1e-3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Block().eval()


@pytest.fixture(scope="module")
def captures(tmp_path_factory, model):
    """Captures of a batch of four and of each of its rows alone."""
    folder = tmp_path_factory.mktemp("profiles")
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 9, 48), dtype=np.float32))
    found = []
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        for name, part in (("all", x), *((f"row{i}", x[i : i + 1].clone()) for i in range(4))):
            with porting.ActivationCollector(model, folder / name):
                model(part)
            found.append(porting.open(folder / name))
    yield found
    for capture in found:
        capture.close()


def run_root(capture, profile):
    return run_call(capture, capture.call(""), profile=profile).outputs


def only(arrays):
    (array,) = arrays.values()
    return array


# ---------------------------------------------------------------- strict

HASHES = """
import hashlib, sys
if sys.argv[2] == "torch":
    from porting.providers import load_torch_provider
    load_torch_provider()
import porting
from porting.program import run_call
digest = hashlib.sha256()
with porting.open(sys.argv[1]) as capture:
    for call in capture.call_list:
        for array in run_call(capture, call, profile=sys.argv[3]).outputs.values():
            digest.update(array.tobytes())
print(digest.hexdigest())
"""


def digest_of(capture, library, profile="strict", **variables):
    env = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", HASHES, str(capture.path), library, profile], capture_output=True, text=True, env=env, check=True)
    return done.stdout.strip()


def test_strict_is_the_same_everywhere(captures):
    ways = [("none", {}), ("none", {"PORTING_DISABLE_CPU": "avx2", "OMP_NUM_THREADS": "1"}),
            ("torch", {"PORTING_DISABLE_CPU": "avx512", "OMP_NUM_THREADS": "2"}), ("torch", {"OPENBLAS_NUM_THREADS": "1"})]
    assert len({digest_of(captures[0], library, **variables) for library, variables in ways}) == 1
    # the same question tells two libraries apart where the profile does not forbid them
    assert len({digest_of(captures[0], library, "as-captured") for library in ("none", "torch")}) == 2


def test_strict_does_not_see_the_batch(captures):
    whole = only(run_root(captures[0], "strict"))
    for i, row in enumerate(captures[1:]):
        assert np.array_equal(only(run_root(row, "strict")).view(np.int32)[0], whole.view(np.int32)[i])
    loose = only(run_root(captures[0], "as-captured"))
    assert any(not np.array_equal(only(run_root(row, "as-captured"))[0], loose[i]) for i, row in enumerate(captures[1:]))


@pytest.mark.parametrize("dim", [0, 1, (0, 2), None])
def test_strict_sums_do_not_see_layout_or_neighbours(dim):
    x = np.random.default_rng(2).standard_normal((70, 33, 11), dtype=np.float32)
    name, args = ("aten.sum.default", []) if dim is None else ("aten.sum.dim_IntList", [[dim] if isinstance(dim, int) else list(dim)])
    strict = {"variant": "strict", "provider": "reference"}
    expected = _core.call_op(name, [x, *args], **strict)
    exact = x.astype(np.float64).sum(axis=dim)
    assert np.array_equal(expected, exact.astype(np.float32)) or np.abs(expected - exact).max() <= 1e-6
    other = np.asfortranarray(x)
    assert np.array_equal(_core.call_op(name, [other, *args], **strict), expected)
    if dim == 0:
        assert np.array_equal(_core.call_op(name, [np.ascontiguousarray(x[:, 5:6]), *args], **strict), expected[5:6])
    mean = _core.call_op(name.replace("sum", "mean").replace("dim_IntList", "dim"), [x, *args], **strict)
    assert np.allclose(mean, x.astype(np.float64).mean(axis=dim), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype,unit", [(torch.float32, 2.0**-24), (torch.float64, 2.0**-53), (torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_strict_sums_keep_their_label(dtype, unit):
    x = torch.from_numpy(np.random.default_rng(9).standard_normal((3, 700))).to(dtype)
    exact = np.array([math.fsum(row) for row in x.double().numpy()])
    scale = x.double().abs().sum(1).numpy()
    for op, size in (("sum", 1), ("mean", 700)):
        y = _core.call_op(f"aten.{op}.{'dim_IntList' if op == 'sum' else 'dim'}", [as_array(x), [1]], variant="strict").astype(np.float64)
        assert (np.abs(y * size - exact) <= ops_table.label(op, "F32", "strict").ulp * unit * scale).all()
    if dtype == torch.float32:
        assert np.array_equal(_core.call_op("aten.sum.dim_IntList", [x.numpy(), [1]], variant="strict"), exact.astype(np.float32))


def test_strict_refuses_a_library(captures):
    with pytest.raises(porting.PortingError, match="multiplies matrices itself"):
        porting.check(captures[0], profile="strict", provider="openblas")


# ---------------------------------------------------------------- golden


def test_golden_is_nearer_than_the_reference(captures, model):
    x = torch.from_numpy(captures[0].call("").inputs["0"].copy())
    with torch.no_grad():
        exact = Block().double().eval()
        exact.load_state_dict(model.state_dict())
        exact = exact(x.double()).numpy()
    golden, plain = only(run_root(captures[0], "golden")), only(run_root(captures[0], "as-captured"))
    assert golden.dtype == plain.dtype == np.float32
    rounded = exact.astype(np.float32)
    assert (golden != rounded).mean() < 1e-3
    assert np.abs(golden - exact).max() < 0.5 * np.abs(plain - exact).max()
    assert (plain != rounded).mean() > 0.1


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_golden_products_that_cancel(beta):
    """Sums of products whose terms are 1e17 times their sum: float64 alone has no digit right, math.fsum has all."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((3, 40)) * 10.0 ** rng.integers(0, 9, (3, 40))
    b = rng.standard_normal((40, 5)) * 10.0 ** rng.integers(0, 9, (40, 5))
    a = np.concatenate([a, a], 1).astype(np.float32).astype(np.float64)
    b = np.concatenate([b, -b], 0).astype(np.float32).astype(np.float64)
    a[:, -1] += a[:, -1] * 2.0**-20
    c = np.zeros((3, 5)) + beta
    exact = np.array([[math.fsum([c[i, j], *(a[i] * b[:, j])]) for j in range(5)] for i in range(3)])  # products of float32 are exact
    name, args = ("aten.addmm.default", [c, a, b]) if beta else ("aten.mm.default", [a, b])
    golden = _core.call_op(name, args, variant="golden")
    assert np.array_equal(golden.astype(np.float32), exact.astype(np.float32))
    assert not np.array_equal(_core.call_op(name, args, variant="ref").astype(np.float32), exact.astype(np.float32))
    stacked = _core.call_op("aten.bmm.default", [a[None], b[None]], variant="golden")
    assert np.array_equal(stacked.astype(np.float32)[0], (exact - beta).astype(np.float32)) or beta


def test_numbers_are_rounded_once():
    half = 1 + 2.0**-8  # between two bfloat16: to even
    x = np.array([half, half + 2.0**-40, half - 2.0**-40, -half - 2.0**-40, np.inf, np.nan, 3e39, 0.0, 1.0])
    import ml_dtypes

    y = rounded_once(x, np.dtype(ml_dtypes.bfloat16)).astype(np.float64)
    assert list(y[:5]) == [1.0, 1 + 2.0**-7, 1.0, -1 - 2.0**-7, np.inf] and np.isnan(y[5]) and y[6] == np.inf and list(y[7:]) == [0.0, 1.0]
    assert float(x[1:2].astype(np.float32).astype(ml_dtypes.bfloat16)[0]) == 1.0  # what rounding twice would have given


# ---------------------------------------------------------------- rounded operands


def to_tf32(x):
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def to_q8_0(x):
    import gguf

    quantised = gguf.quants.quantize(x.contiguous().numpy(), gguf.GGMLQuantizationType.Q8_0)
    return torch.from_numpy(gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType.Q8_0))


ROUNDINGS = {"tf32": to_tf32, "bf16": lambda x: x.bfloat16().float(), "f16": lambda x: x.half().float(), "q8_0": to_q8_0}


@pytest.mark.parametrize("profile", list(ROUNDINGS))
def test_operands_are_rounded_as_torch_rounds_them(profile, tmp_path):
    layer = torch.nn.Linear(96, 40)
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((7, 96), dtype=np.float32))
    with torch.no_grad():
        with porting.ActivationCollector(layer, tmp_path / "c"):
            layer(x)
        w = ROUNDINGS[profile](layer.weight.detach())
        expected = torch.nn.functional.linear(ROUNDINGS[profile](x), w, layer.bias).numpy()
        plain = layer(x).numpy()
    with porting.open(tmp_path / "c") as capture:
        actual = only(run_root(capture, profile))
        report = porting.check(capture, profile=profile)
    assert np.array_equal(actual, expected) and not np.array_equal(actual, plain)
    assert not report.passed and profile in report.environment["profile"]


def test_operands_that_are_not_rounded():
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((5, 7)), rng.standard_normal((7, 3))
    assert np.array_equal(_core.call_op("aten.mm.default", [a, b], operands="bf16"), _core.call_op("aten.mm.default", [a, b]))
    x = rng.standard_normal((5, 7), dtype=np.float32)
    assert np.array_equal(_core.call_op("aten.exp.default", [x], operands="bf16"), _core.call_op("aten.exp.default", [x]))
    odd = np.array([[np.nan, np.inf, -np.inf, 0.0]], np.float32)
    for name in ("tf32", "bf16", "f16"):
        same = _core.call_op("aten.mm.default", [odd.T.copy(), np.ones((1, 1), np.float32)], operands=name)
        assert np.array_equal(same, odd.T, equal_nan=True)
    with pytest.raises(porting.UnsupportedError, match="blocks"):
        _core.call_op("aten.convolution.default", [np.ones((1, 2, 4, 4), np.float32), np.ones((2, 2, 3, 3), np.float32), None,
                                                   [1, 1], [0, 0], [1, 1], False, [0, 0], 1], operands="q8_0")
    images, weights = rng.standard_normal((2, 16, 8, 8), dtype=np.float32), rng.standard_normal((16, 16, 3, 3), dtype=np.float32)
    for transposed in (False, True):
        rest = [None, [1, 1], [0, 0], [1, 1], transposed, [0, 0], 1]
        for mkldnn in (False, True):  # oneDNN's kernels too
            made, exact = (_core.call_op("aten.convolution.default", [images, weights, *rest], mkldnn=mkldnn, operands=o) for o in ("bf16", None))
            narrow = [t.astype(ml_dtypes.bfloat16).astype(np.float32) for t in (images, weights)]
            assert np.array_equal(made, _core.call_op("aten.convolution.default", [*narrow, *rest], mkldnn=mkldnn)) and not np.array_equal(made, exact)
    with pytest.raises(ValueError, match="expected None, 'tf32'"):
        _core.call_op("aten.mm.default", [a, b], operands="fp4")


def test_attention_takes_rounded_operands():
    q, k, v = (torch.from_numpy(np.random.default_rng(s).standard_normal((1, 2, 6, 32), dtype=np.float32)) for s in (6, 7, 8))
    expected = torch.nn.functional.scaled_dot_product_attention(*(ROUNDINGS["bf16"](t) for t in (q, k, v))).numpy()
    capability = {"DEFAULT": "default", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "avx512")
    profiles_torch = {"provider": "auto", "capability": capability, "num_threads": torch.get_num_threads()}
    actual = _core.call_op("aten._scaled_dot_product_flash_attention_for_cpu.default", [q.numpy(), k.numpy(), v.numpy()], operands="bf16", **profiles_torch)[0]
    assert np.array_equal(actual, expected)


# ---------------------------------------------------------------- what a report says


def test_the_report_names_the_profile(captures, tmp_path):
    for name in ("as-captured", "golden", "strict"):
        report = porting.check(captures[1], profile=name)
        assert report.passed and report.environment["profile"].startswith(f"{name}: ")
        assert f"{name}: " in report.to_text() and f"{name}: " in json.dumps(report.to_json())
        report.to_html(tmp_path / "r.html")
        assert f"{name}: " in (tmp_path / "r.html").read_text()
    assert not porting.check(captures[1]).warnings


def test_unknown_profiles_are_refused(captures):
    with pytest.raises(porting.PortingError, match="no profile is called 'fast'; there are as-captured, golden, strict, tf32, bf16, f16, q8_0"):
        porting.check(captures[1], profile="fast")
    done = subprocess.run([sys.executable, "-m", "porting", "check", str(captures[1].path), "--profile", "fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there are as-captured" in done.stderr


@pytest.mark.parametrize("change,expected", [
    ({"cpu": {"vendor": "v", "flags": ["avx2", "fma"]}}, "a CPU with AVX2, this one has"),
    ({"libc": "glibc 9.99"}, "it ran with glibc 9.99, here is"),
    ({"torch": {"version": "1.0.0", "capability": "avx2", "num_threads": 1}}, "it ran torch 1.0.0, installed is"),
    ({"torch": {"capability": "vsx", "num_threads": 1}}, "the CPU capability 'vsx', which no profile imitates; 'default' was taken"),
])  # fmt: skip
def test_what_cannot_be_kept_stands_in_the_report(captures, monkeypatch, tmp_path, change, expected):
    machine = ("v", frozenset(["avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl"]), profiles._this_machine()[2])
    monkeypatch.setattr(profiles, "_this_machine", lambda: machine)
    environment = {**captures[1].environment, "cpu": {"vendor": "v", "flags": sorted(machine[1])}}
    monkeypatch.setattr(captures[1], "environment", environment)
    assert not porting.check(captures[1]).warnings
    environment.update(change)
    report = porting.check(captures[1])
    assert any(expected in text for text in report.warnings)
    report.to_html(tmp_path / "r.html")
    import html

    for form in (report.to_text(), json.dumps(report.to_json(), ensure_ascii=False), html.unescape((tmp_path / "r.html").read_text())):
        assert expected in form
    assert not any(expected in text for text in porting.check(captures[1], profile="golden").warnings)
