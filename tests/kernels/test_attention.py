"""aten._scaled_dot_product_flash_attention_for_cpu in C. Its bits under every capability are in test_gemm.py's sweep; here are
other BLAS and own loops, half types, masks that torch takes only elsewhere, and the faults that the bound must refuse."""
import pytest
import torch
from matmul_tools import UNIT, VARIANTS, call, reference, same_bits, tensor
from porting import _core

FLASH = "_scaled_dot_product_flash_attention_for_cpu"
BOUND = {torch.float32: 16, torch.bfloat16: 2, torch.float16: 2}  # in u * s; 2.4 and 1.0 were measured


def exact(q, k, v, mask=None, scale=None, causal=False):
    """Attention in float64, and its condition scale sum p |v| (1 + scale max sum |q k|)."""
    q, k, v = q.double(), k.double(), v.double()
    scale = q.shape[3] ** -0.5 if scale is None else scale
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = scale * q @ k.transpose(2, 3)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[2:], dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    weights = torch.softmax(scores, 3).nan_to_num(0)
    size = 1 + scale * (q.abs() @ k.abs().transpose(2, 3)).amax(3, keepdim=True)
    return weights @ v, (weights @ v.abs()) * size


def error(actual, q, k, v, **options):
    golden, scale = exact(q, k, v, **options)
    unit = UNIT[q.dtype]  # half types: the weights are rounded to them, too
    return ((actual.double() - golden).abs() / (unit * scale).clamp(min=2.0**-149)).max().item()


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return [torch.randn(2, 4, 40, 24), torch.randn(2, 4, 33, 24), torch.randn(2, 4, 33, 24)]


@pytest.mark.parametrize("provider, variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_variant_stays_inside_the_bound(qkv, dtype, provider, variant):
    q, k, v = (t.to(dtype) for t in qkv)
    mask = torch.randn(2, 1, 40, 33).masked_fill(torch.rand(2, 1, 40, 33) < 0.3, -torch.inf).to(dtype)
    options = {"provider": provider, "variant": variant}
    assert error(call(FLASH, q, k, v, **options)[0], q, k, v) <= BOUND[q.dtype]
    assert error(call(FLASH, q, k, v, attn_mask=mask, **options)[0], q, k, v, mask=mask) <= BOUND[q.dtype]
    assert error(call(FLASH, q, k, v, 0.0, True, scale=0.5, **options)[0], q, k, v, scale=0.5, causal=True) <= BOUND[q.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_bound_refuses_wrong_attention(qkv, dtype):
    q, k, v = (t.to(dtype) for t in qkv)
    keep = torch.rand(2, 1, 40, 33) < 0.7
    mask = torch.zeros(2, 1, 40, 33, dtype=dtype).masked_fill(~keep, -torch.inf)

    def run(q=q, k=k, v=v, **kwargs):
        return call(FLASH, q, k, v, provider="reference", **kwargs)[0]

    assert error(run(attn_mask=mask), q, k, v, mask=mask) <= BOUND[q.dtype]
    wrong = {
        "no mask": run(),
        "mask as 0 and 1": run(attn_mask=keep.to(dtype)),
        "mask inverted": run(attn_mask=torch.zeros_like(mask).masked_fill(keep, -torch.inf)),
        "scale missing": run(attn_mask=mask, scale=1.0),
        "one key dropped": run(k=k[:, :, :-1], v=v[:, :, :-1], attn_mask=mask[..., :-1]),
        "heads swapped": run(q=q.flip(1), attn_mask=mask),
        "not divided by the sum": run(attn_mask=mask) * 1.05,
    }
    assert [name for name, result in wrong.items() if error(result, q, k, v, mask=mask) <= BOUND[q.dtype]] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_as_accurate_as_torchs(qkv, dtype):
    q, k, v = (t.to(dtype) for t in qkv)
    expected, actual = reference(FLASH, q, k, v), call(FLASH, q, k, v)
    assert [t.dtype for t in actual] == [t.dtype for t in expected] == [dtype, torch.float32]
    assert error(actual[0], q, k, v) <= 1.5 * error(expected[0], q, k, v)
    assert error(actual[0] * (1 + 4 * UNIT[dtype]), q, k, v) > 1.5 * error(expected[0], q, k, v)


@pytest.mark.parametrize("variant", [None, "ref", "chain"])
def test_a_bool_mask_keeps_where_it_is_true(qkv, variant):
    """torch turns it into 0 and -inf before this op; here it may come as it is."""
    keep = torch.rand(40, 33) < 0.6
    keep[7] = False
    added = torch.zeros(40, 33).masked_fill(~keep, -torch.inf)
    expected = call(FLASH, *qkv, attn_mask=added, variant=variant)
    for e, a in zip(expected, call(FLASH, *qkv, attn_mask=keep, variant=variant)):
        assert same_bits(e, a)
    assert not same_bits(expected[0], call(FLASH, *qkv, attn_mask=~keep, variant=variant)[0])
    assert expected[0][:, :, 7].abs().max() == 0 and expected[1][:, :, 7].abs().max() == 0


def test_grouped_queries_share_keys(qkv):
    q, k, v = qkv
    k, v = k[:, :2], v[:, :2]
    repeated = [t.repeat_interleave(2, 1) for t in (k, v)]
    expected = reference(FLASH, q, *repeated)
    for e, a in zip(expected, call(FLASH, q, k, v)):
        assert same_bits(e, a)
    assert not same_bits(expected[0], call(FLASH, q, *(t.repeat(1, 2, 1, 1) for t in (k, v)))[0])


def test_head_sizes_need_not_be_dense(qkv):
    """torch's kernel reads such views wrongly, and torch never calls it with them; ours reads them."""
    odd = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in qkv]
    assert odd[0].stride(3) != 1
    assert error(call(FLASH, *odd)[0], *qkv) <= BOUND[torch.float32]


def test_nothing_to_attend_to_gives_zero(qkv):
    q, k, v = qkv
    y, lse = call(FLASH, q, k[:, :, :0], v[:, :, :0])
    assert y.shape == q.shape and not y.any() and not lse.any()
    assert call(FLASH, q[:, :, :0], k, v)[0].shape == (2, 4, 0, 24)


def test_the_result_lies_in_memory_as_torchs(qkv):
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in qkv)
    expected = reference(FLASH, q, k, v)[0]
    values = _core.call_op(f"aten.{FLASH}.default", [t.numpy() for t in (q, k, v)], provider="torch")[0]
    assert tensor(values).shape == expected.shape


def test_what_does_not_fit_is_refused_in_one_sentence(qkv):
    q, k, v = qkv
    with pytest.raises(_core.ShapeError):
        call(FLASH, q, k[:, :3], v[:, :3])
    with pytest.raises(_core.ShapeError):
        call(FLASH, q, k, v, attn_mask=torch.zeros(40, 32))
    with pytest.raises(_core.DtypeError):
        call(FLASH, q, k.double(), v)
    with pytest.raises(_core.DtypeError):
        call(FLASH, q, k, v, attn_mask=torch.zeros(40, 33, dtype=torch.float64))


def math_attention(q, k, v, **options):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)


def f64_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("kind", ["none", "bool", "f32", "f64", "causal"])
@pytest.mark.parametrize("groups", [4, 2])
def test_float64_is_torchs_math_attention(qkv, kind, groups):
    """The float64 rows against torch's composite attention in float64; one mask element or the scale changed is far outside."""
    q, k, v = (t.double() for t in qkv)
    k, v = k[:, :groups], v[:, :groups].transpose(2, 3).contiguous().transpose(2, 3)
    keep = torch.rand(2, 1, 40, 33) < 0.7
    added = torch.randn(2, 1, 40, 33, dtype=torch.float64)
    options = {"none": {}, "bool": {"attn_mask": keep}, "f32": {"attn_mask": added.float().double()}, "f64": {"attn_mask": added},
               "causal": {"is_causal": True}}[kind]
    ours = {**options, "attn_mask": added.float()} if kind == "f32" else {"attn_mask": options["attn_mask"]} if "attn_mask" in options else {}
    expected = math_attention(q, k, v, enable_gqa=groups != 4, **options)
    y, lse = call(FLASH, q, k, v, 0.0, kind == "causal", **ours)
    assert y.dtype == lse.dtype == torch.float64 and f64_error(y, expected) < 1e-14
    scores = q @ k.repeat_interleave(4 // groups, 1).transpose(2, 3) / 24**0.5
    if kind == "none":
        assert f64_error(lse, torch.logsumexp(scores, 3)) < 1e-14
    assert f64_error(call(FLASH, q, k, v, 0.0, kind == "causal", scale=0.2042, **ours)[0], expected) > 1e-6
    if kind == "bool":
        flipped = keep.clone()
        flipped[1, 0, 7, 3] ^= True
        assert f64_error(call(FLASH, q, k, v, attn_mask=flipped)[0], expected) > 1e-6


def test_float64_rows_that_see_nothing_are_zero_and_nan_stays(qkv):
    q, k, v = (t.double() for t in qkv)
    keep = torch.ones(1, 1, 40, 33, dtype=torch.bool)
    keep[..., 3, :] = False
    y, lse = call(FLASH, q, k, v, attn_mask=keep)
    assert not y[:, :, 3].any() and not lse[:, :, 3].any() and y[:, :, 4].all()
    q[0, 0, 5, 0] = torch.nan
    y = call(FLASH, q, k, v)[0]
    assert y[0, 0, 5].isnan().all() and not y[0, 0, 4].isnan().any() and not y[1].isnan().any()
