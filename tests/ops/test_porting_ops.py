"""`porting.ops`: functions with torch's names and arguments, against torch, bit for bit where the table says so."""
import inspect
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import porting
import pytest
import torch
import torch.nn.functional as F
from porting import _core, ops, ops_table

RNG = np.random.default_rng(0)


def tensor(*shape, dtype=torch.float32):
    return torch.from_numpy(RNG.standard_normal(shape)).to(dtype)


def same(expected, actual):
    if isinstance(expected, (tuple, list)):
        assert len(expected) == len(actual)
        for a, b in zip(expected, actual):
            same(a, b)
        return
    assert isinstance(actual, torch.Tensor) and actual.dtype == expected.dtype and actual.shape == expected.shape
    assert torch.equal(torch.nan_to_num(expected.double(), 77.0), torch.nan_to_num(actual.double(), 77.0)) if expected.dtype.is_floating_point \
        else torch.equal(expected, actual)


X, Y, W, B = tensor(5, 70), tensor(5, 70), tensor(33, 70), tensor(33)
Q, K = tensor(2, 4, 9, 16), tensor(2, 2, 9, 16)
I = torch.from_numpy(RNG.integers(0, 5, (3, 4)))
IMAGE, KERNEL = tensor(2, 4, 9, 9), tensor(6, 2, 3, 3)

CASES = {
    "softmax": (lambda o: o.softmax(X, dim=-1), lambda: torch.softmax(X, dim=-1)),
    "softmax, first": (lambda o: o.softmax(X, 0), lambda: torch.softmax(X, 0)),
    "softmax, cast": (lambda o: o.softmax(X.half(), -1, dtype=torch.float32), lambda: torch.softmax(X.half(), -1, dtype=torch.float32)),
    "log_softmax": (lambda o: o.log_softmax(X, dim=-1), lambda: torch.log_softmax(X, dim=-1)),
    "gelu": (lambda o: o.gelu(X), lambda: F.gelu(X)),
    "gelu tanh": (lambda o: o.gelu(X, approximate="tanh"), lambda: F.gelu(X, approximate="tanh")),
    "silu": (lambda o: o.silu(X), lambda: F.silu(X)),
    "layer_norm": (lambda o: o.layer_norm(X, (70,), Y[0], Y[1], 1e-6), lambda: F.layer_norm(X, (70,), Y[0], Y[1], 1e-6)),
    "layer_norm, plain": (lambda o: o.layer_norm(X, 70), lambda: F.layer_norm(X, (70,))),
    "rms_norm": (lambda o: o.rms_norm(X, (70,), Y[0], eps=1e-6), lambda: F.rms_norm(X, (70,), Y[0], eps=1e-6)),
    "group_norm": (lambda o: o.group_norm(IMAGE, 2, B[:4].clone(), B[4:8].clone()), lambda: F.group_norm(IMAGE, 2, B[:4].clone(), B[4:8].clone())),
    "batch_norm": (lambda o: o.batch_norm(IMAGE, B[:4].clone(), B[:4].square(), eps=1e-3), lambda: F.batch_norm(IMAGE, B[:4].clone(), B[:4].square(), eps=1e-3)),
    "linear": (lambda o: o.linear(X, W, B), lambda: F.linear(X, W, B)),
    "linear, 3 dimensions": (lambda o: o.linear(tensor_of(X, 1, 5, 70), W), lambda: F.linear(tensor_of(X, 1, 5, 70), W)),
    "matmul": (lambda o: o.matmul(X, W.T), lambda: torch.matmul(X, W.T)),
    "matmul, stacks": (lambda o: o.matmul(Q, Q.transpose(-1, -2)), lambda: torch.matmul(Q, Q.transpose(-1, -2))),
    "matmul, stack by matrix": (lambda o: o.matmul(Q, Q[0, 0].T), lambda: torch.matmul(Q, Q[0, 0].T)),
    "mm": (lambda o: o.mm(X, W.T), lambda: torch.mm(X, W.T)),
    "addmm": (lambda o: o.addmm(B, X, W.T, beta=0.5, alpha=2), lambda: torch.addmm(B, X, W.T, beta=0.5, alpha=2)),
    "attention": (lambda o: o.scaled_dot_product_attention(Q, Q, Q, is_causal=True), lambda: F.scaled_dot_product_attention(Q, Q, Q, is_causal=True)),
    "attention, groups": (lambda o: o.scaled_dot_product_attention(Q, K, K, enable_gqa=True, scale=0.3),
                          lambda: F.scaled_dot_product_attention(Q, K, K, enable_gqa=True, scale=0.3)),
    "attention, mask": (lambda o: o.scaled_dot_product_attention(Q, Q, Q, attn_mask=torch.ones(9, 9).tril().bool()),
                        lambda: F.scaled_dot_product_attention(Q, Q, Q, attn_mask=torch.ones(9, 9).tril().bool())),
    "embedding": (lambda o: o.embedding(I, X), lambda: F.embedding(I, X)),
    "conv2d": (lambda o: o.conv2d(IMAGE, KERNEL, stride=2, padding=(1, 0), groups=2), lambda: F.conv2d(IMAGE, KERNEL, stride=2, padding=(1, 0), groups=2)),
    "conv1d": (lambda o: o.conv1d(IMAGE[:, :, 0].clone(), KERNEL[:, :, 0][:, [0, 1, 0, 1]]), lambda: F.conv1d(IMAGE[:, :, 0].clone(), KERNEL[:, :, 0][:, [0, 1, 0, 1]])),
    "max_pool2d": (lambda o: o.max_pool2d(IMAGE, 3, 2, 1), lambda: F.max_pool2d(IMAGE, 3, 2, 1)),
    "avg_pool2d": (lambda o: o.avg_pool2d(IMAGE, 3), lambda: F.avg_pool2d(IMAGE, 3)),
    "pad": (lambda o: o.pad(X, (1, 2), value=7.0), lambda: F.pad(X, (1, 2), value=7.0)),
    "logsigmoid": (lambda o: o.logsigmoid(X), lambda: F.logsigmoid(X)),
    "to": (lambda o: o.to(X, torch.bfloat16), lambda: X.to(torch.bfloat16)),
    "add": (lambda o: o.add(X, Y, alpha=0.3), lambda: torch.add(X, Y, alpha=0.3)),
    "add a number": (lambda o: o.add(X, 2), lambda: torch.add(X, 2)),
    "mul, promoted": (lambda o: o.mul(X.half(), Y), lambda: torch.mul(X.half(), Y)),
    "pow": (lambda o: o.pow(X.abs(), 1.7), lambda: torch.pow(X.abs(), 1.7)),
    "pow of a number": (lambda o: o.pow(2.5, X), lambda: torch.pow(2.5, X)),
    "where": (lambda o: o.where(X > 0, X, 0.0), lambda: torch.where(X > 0, X, 0.0)),
    "clamp": (lambda o: o.clamp(X, min=-0.5), lambda: torch.clamp(X, min=-0.5)),
    "sum": (lambda o: o.sum(X), lambda: torch.sum(X)),
    "sum, dim": (lambda o: o.sum(X, 1, keepdim=True), lambda: torch.sum(X, 1, keepdim=True)),
    "mean": (lambda o: o.mean(X, dim=(0, 1)), lambda: torch.mean(X, dim=(0, 1))),
    "var": (lambda o: o.var(X, -1, correction=0), lambda: torch.var(X, -1, correction=0)),
    "std": (lambda o: o.std(X, -1), lambda: torch.std(X, -1)),
    "max": (lambda o: o.max(X), lambda: torch.max(X)),
    "max, dim": (lambda o: o.max(X, 1), lambda: tuple(torch.max(X, 1))),
    "max, other": (lambda o: o.max(X, Y), lambda: torch.max(X, Y)),
    "argmax": (lambda o: o.argmax(X, dim=1), lambda: torch.argmax(X, dim=1)),
    "cumsum": (lambda o: o.cumsum(X, 1), lambda: torch.cumsum(X, 1)),
    "topk": (lambda o: o.topk(X, 3), lambda: tuple(torch.topk(X, 3))),
    "sort": (lambda o: o.sort(X, descending=True), lambda: tuple(torch.sort(X, descending=True))),
    "gather": (lambda o: o.gather(X, 1, I[:, :4]), lambda: torch.gather(X, 1, I[:, :4])),
    "cat": (lambda o: o.cat([X, Y], dim=1), lambda: torch.cat([X, Y], dim=1)),
    "masked_fill": (lambda o: o.masked_fill(X, X > 0, -1.0), lambda: torch.masked_fill(X, X > 0, -1.0)),
    "eq": (lambda o: o.eq(I, 2), lambda: torch.eq(I, 2)),
    "isin": (lambda o: o.isin(I, I[0]), lambda: torch.isin(I, I[0])),
    "half": (lambda o: o.mul(X.bfloat16(), Y.bfloat16()), lambda: torch.mul(X.bfloat16(), Y.bfloat16())),
}  # fmt: skip


def tensor_of(x, *shape):
    return x.reshape(shape).contiguous()


@pytest.mark.parametrize("name", list(CASES))
def test_against_torch(name):
    ours, theirs = CASES[name]
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled="conv" not in name):
        same(theirs(), ours(ops))


def single():
    """Functions of one tensor."""
    return [n for n, f in ops.table().items() if n in ops._forms() and any(len(form.parameters) == 1 and form.parameters[0].kind == "T" for form in ops._forms()[n])
            and hasattr(torch, n) and n not in ("nonzero", "view_as_complex", "view_as_real", "unbind", "zero")]  # fmt: skip


def test_every_function_of_one_tensor():
    assert len(single()) > 30
    x = X.abs().clamp(0.05, 0.95)
    for name in single():
        x_of = (x > 0.5) if name == "bitwise_not" else x + 1 if name == "acosh" else x
        expected = getattr(torch, name)(x_of)
        actual = getattr(ops, name)(x_of)
        promise = ops_table.HANDLERS.get(name) or ops_table.label((ops._forms()[name][0].kernel or name), "F32")
        if promise.kind == "BOUND":
            assert torch.allclose(expected, actual, rtol=promise.ulp * 2.0**-23, atol=promise.atol), name
        else:
            same(expected, actual)


def test_arrays_stay_arrays():
    x = X.numpy()
    y = ops.softmax(x, dim=-1)
    assert type(y) is np.ndarray and np.array_equal(y, torch.softmax(X, -1).numpy())
    half = x.astype(ml_dtypes.bfloat16)
    assert ops.mul(half, 2.0).dtype == half.dtype and isinstance(ops.topk(x, 2), tuple)
    assert ops.to(x, "bfloat16").dtype == half.dtype and ops.to(x, np.float16).dtype == np.float16


def test_rsqrt_modes():
    x = X.abs() + 0.01
    same(torch.rsqrt(x), ops.rsqrt(x))
    exact = (1 / np.sqrt(x.double().numpy())).astype(np.float32)
    assert np.array_equal(ops.rsqrt(x.numpy(), mode="correct"), exact) and not np.array_equal(ops.rsqrt(x.numpy()), exact)
    far = {mode: np.abs(ops.rsqrt(x.numpy(), mode=mode) / exact - 1).max() for mode in ops.RSQRT_MODES}
    assert far["rsqrtss"] > 1e-5 > far["newton1"] and far["newton2"] < 4e-7 and far["vml"] < 4e-7
    same(torch.reciprocal(torch.sqrt(x)), ops.rsqrt(x, mode="vml"))


def test_profiles():
    x, w = tensor(3, 70).numpy(), tensor(8, 70).numpy()
    exact = (x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.float32)
    assert np.array_equal(ops.linear(x, w, profile="golden"), exact) and not np.array_equal(ops.linear(x, w), exact)
    strict = ops.linear(x, w, profile="strict")
    assert all(np.array_equal(ops.linear(x[i : i + 1], w, profile="strict")[0], strict[i]) for i in range(3))
    rounded = F.linear(torch.from_numpy(x).bfloat16().float(), torch.from_numpy(w).bfloat16().float()).numpy()
    assert np.array_equal(ops.linear(x, w, profile="bf16"), rounded)
    assert np.array_equal(ops.exp(x, profile="golden"), np.exp(x.astype(np.float64)).astype(np.float32))
    assert np.array_equal(ops.exp(x, profile="strict")[1:2], ops.exp(x[1:2], profile="strict"))
    with pytest.raises(porting.PortingError, match="there are as-captured, golden"):
        ops.exp(x, profile="fast")


@pytest.mark.parametrize("call,error,words", [
    (lambda x: ops.softmaxx, AttributeError, "did you mean softmax"),
    (lambda x: ops.add(x, "a"), TypeError, "fits none of its forms: add(input, other, *, alpha=1)"),
    (lambda x: ops.add(x, x, beta=1), TypeError, "beta=int"),
    (lambda x: ops.softmax([1.0], 0), TypeError, "input is list, expected an array"),
    (lambda x: ops.linear(x, x[0]), porting.ShapeError, "weight has shape (70,), expected 2 dimensions"),
    (lambda x: ops.linear(x, x[:, :3]), porting.ShapeError, "an input (..., K) and a weight (N, K)"),
    (lambda x: ops.gelu(x, approximate="fast"), ValueError, "expected 'none' or 'tanh'"),
    (lambda x: ops.rsqrt(x, mode="quake"), ValueError, "ieee, correct, rsqrtss, newton1, newton2, vml"),
    (lambda x: ops.rsqrt(x.astype(np.float64), mode="newton1"), porting.UnsupportedError, "newton1"),
    (lambda x: ops.to(x, "float3"), porting.DtypeError, "no dtype"),
    (lambda x: ops.scaled_dot_product_attention(x, x, x), porting.ShapeError, "query has shape (5, 70), expected 4 dimensions"),
    (lambda x: ops.batch_norm(x, x[0], x[0], training=True), porting.UnsupportedError, "training"),
    (lambda x: ops.pad(x, (1, 1), mode="reflect"), ValueError, "constant"),
    (lambda x: ops.embedding(np.array([9]), x), ValueError, "9"),
])  # fmt: skip
def test_bad_input_gets_one_sentence(call, error, words):
    with pytest.raises(error) as caught:
        call(X.numpy())
    assert words in str(caught.value)


def test_torch_is_not_imported():
    code = ("import sys, numpy as np, porting; x = np.ones((2, 3), np.float32); print(porting.ops.gelu(porting.ops.add(x, 1)).shape,"
            " porting.ops.sum(x), 'torch' in sys.modules, len(dir(porting.ops)) > 150)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.strip() == "(2, 3) 6.0 False True"


def test_help_tells_arguments_and_bits():
    for name in dir(ops):
        text = inspect.getdoc(getattr(ops, name))
        assert text and "input" in text or name not in single(), name
    assert "float32 only" in ops.rsqrt.__doc__ and "Bits: F32 EXACT" in ops.rsqrt.__doc__ and "LIBRARY" in ops.exp.__doc__
    assert "other : array or number" in ops.add.__doc__ and "(..., *normalized_shape)" in ops.layer_norm.__doc__
    assert set(inspect.signature(ops.layer_norm).parameters) >= {"input", "normalized_shape", "weight", "bias", "eps"}


def test_the_table_has_every_handler():
    """A handler that is neither a function here nor left out by name is forgotten."""
    bases = {name.split(".")[1] for name in _core.known_ops()}
    missing = {b for b in bases if not b.startswith("_") and not b.endswith("_")} - set(ops.table()) - ops._LEFT_OUT
    assert not missing and not ops._LEFT_OUT & set(ops._forms())
