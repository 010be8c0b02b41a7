"""Wrong ports that were taken for right ones: numbers that a cast made equal, one f8 step that became all of them, an error between modules."""
import ml_dtypes
import numpy as np
import porting
import pytest
import torch
from porting.diagnose import in_accord
from porting.pair import compare_arrays


@pytest.mark.parametrize(("actual", "expected"), [
    (np.float32([1.9, 2.3]), np.int32([1, 2])), (np.int32([257, 2]), np.int8([1, 2])), (np.int32([7, 2]), np.array([True, True])),
    (np.complex64([1 + 3j, 2]), np.float32([1, 2])), (np.uint64([2**64 - 1]), np.int64([-1])), (np.float64([1 + 1e-9, 2]), np.float32([1, 2])),
    (np.float32([1.001, 2]), np.array([1, 2], ml_dtypes.bfloat16)), (np.float32([np.nan, 2]), np.int32([-(2**31), 2])),
])
def test_a_cast_hides_no_difference(actual, expected):
    with pytest.raises(porting.ParityError):
        porting.assert_close(actual, expected, tol="exact", check_dtype=False)
    with pytest.raises(porting.ParityError, match="dtype"):
        porting.assert_close(expected.astype(actual.dtype), expected, tol="exact")
    porting.assert_close(expected.astype(actual.dtype) if actual.dtype.kind != "u" else np.uint64([1]), expected if actual.dtype.kind != "u" else np.int64([1]),
                         tol="exact", check_dtype=False)


def test_floats_rounded_once_are_close_in_the_narrower_dtype():
    porting.assert_close(np.float32([1.001, 2]), np.array([1, 2], ml_dtypes.bfloat16), tol="auto", check_dtype=False)


def test_a_correlation_of_one_is_the_same_integers():
    great = np.full(8, 2**53)
    assert porting.assert_with_pcc(great, great.copy(), 1) == (True, 1.0)
    with pytest.raises(porting.ParityError):
        porting.assert_with_pcc(great, great + 1, 1)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("kind", ["composite", "attention", "linear", "layer_norm", "rms_norm", "activation"])
def test_f8_allows_one_step(dtype, kind):
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))

    def passes(y):
        return compare_arrays(x.to(dtype), y.to(dtype), kind=kind).passed

    near = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    assert passes(x * (1 + 1e-6 * near)) and passes(x * (1 + 2**-10 * near))
    for wrong in (0 * x, -x, near, 1.5 * x, x.roll(1, 0), x.roll(1, 1)):
        assert not passes(wrong)


class Block(torch.nn.Module):
    def __init__(self, residual=True):
        super().__init__()
        self.norm, self.fc, self.residual = torch.nn.LayerNorm(16), torch.nn.Linear(16, 16), residual

    def forward(self, x):
        return self.fc(self.norm(x)) + (x if self.residual else 0)


def captured(tmp_path, name, residual, x):
    torch.manual_seed(0)
    model = torch.nn.Sequential(Block(residual), Block()).eval()
    with torch.no_grad():
        return porting.ActivationCollector(model, tmp_path / name, program="all", weights=True)(x)[1]


def test_an_error_between_the_modules_that_are_compared_is_said(tmp_path):
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    with captured(tmp_path, "ref", True, x) as ref, captured(tmp_path, "right", True, x) as right, captured(tmp_path, "wrong", False, x) as wrong:
        def leaves(port):
            return {name: np.array(port[name]) for name in port if ".norm." in name or ".fc." in name}

        def said(port):
            return any("between these modules" in text for text in porting.compare(ref, port, require_coverage=False).warnings)

        assert not said(leaves(right)) and said(leaves(wrong))
        assert not said(wrong)  # whole: the block itself is refused
        assert porting.compare(ref, wrong).first_divergence.name == "0.out.0"


def test_a_port_that_was_given_other_inputs_is_said(tmp_path):
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    with captured(tmp_path, "ref", True, x) as ref, captured(tmp_path, "same", True, x.clone()) as same, captured(tmp_path, "other", True, x + 1) as other:
        assert not porting.compare(ref, same).warnings
        assert any("given other inputs" in text for text in porting.compare(ref, other).warnings)
        assert not porting.compare(ref, other, mode="chained").passed


def test_no_small_fault_is_called_rounding():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(64, 64), torch.randn(4, 64)
    with torch.no_grad():
        e, a = linear(x).numpy(), linear.double()(x.double()).float().numpy()
        found = porting.explain(linear.float(), a, inputs=(x,))
    assert found.cause == "rounding"
    right, wrong, exact = compare_arrays(e, a), compare_arrays(e, a, scale=1e-3 * np.abs(e)), compare_arrays(e, a, tol="exact")
    assert right.passed and not wrong.passed and not exact.passed
    assert in_accord(found, wrong.verdict).cause == "unknown" and "a small fault" in in_accord(found, wrong.verdict).detail
    for verdict in (right.verdict, exact.verdict, None):
        assert in_accord(found, verdict) is found
    assert in_accord(None, wrong.verdict) is None


def test_ports_of_torch_tensors_take_their_arguments_by_name(tmp_path):
    block = Block().eval()
    x = torch.randn(4, 16)
    with torch.no_grad(), porting.ActivationCollector(block, tmp_path / "ref", program="all", weights=True)(x)[1] as ref:
        assert porting.test_layer(porting.port.wants_torch(lambda x: block(x)), ref, ref.root).passed
        with pytest.raises(porting.ParityError, match="TypeError"):
            porting.test_layer(porting.port.wants_torch(lambda x, *, much: block(x)), ref, ref.root)


def test_a_weight_with_more_digits_than_the_reference_is_another(tmp_path):
    linear, x = torch.nn.Linear(16, 16).bfloat16().eval(), torch.randn(4, 16).bfloat16()
    with torch.no_grad(), porting.ActivationCollector(linear, tmp_path / "ref", program="all", weights=True)(x)[1] as ref:
        for right, weight in ((True, linear.weight.float()), (False, linear.weight.float() * (1 + 2**-10))):
            report = porting.compare(ref, {"w": weight, "y": np.array(ref["out.0"])}, names={"w": "param:weight", "y": "out.0"}, require_coverage=False)
            assert report.passed == right and any(row.kind == "parameter" for row in report.rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 16])
def test_half_products_that_are_cut_or_scaled_are_no_rounding(tmp_path, dtype, rows):
    torch.manual_seed(rows)
    linear, x = torch.nn.Linear(256, 512).to(dtype).eval(), torch.randn(rows, 256).to(dtype)
    parts = [t.detach().float() for t in (x, linear.weight, linear.bias)]
    wide = torch.nn.functional.linear(*parts)
    cut = wide.view(torch.int32) & ~(0xFFFF if dtype == torch.bfloat16 else 0x1FFF)
    with torch.no_grad(), porting.ActivationCollector(linear, tmp_path / "ref", program="all", weights=True)(x)[1] as ref:
        for right in (torch.nn.functional.linear(*(t.double() for t in parts)).to(dtype), wide.to(dtype)):
            assert porting.compare(ref, {"out.0": right}).passed
        for wrong in (cut.view(torch.float32).to(dtype), (wide * (1 - 2.0 ** (-8 if dtype == torch.bfloat16 else -11))).to(dtype)):
            report = porting.compare(ref, {"out.0": wrong})
            assert not report.passed and "cut instead of rounded" in report.first_divergence.reason
