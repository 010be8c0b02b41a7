"""Complex numbers as arguments of ops, in calls and in recorded programs; complex products and powers beside torch."""

from __future__ import annotations

import json

import numpy as np
import porting
import pytest
import torch
from porting import _core, ops_table


def call(op: str, *args) -> torch.Tensor:
    return torch.from_numpy(_core.call_op(f"aten.{op}", [a.numpy() if isinstance(a, torch.Tensor) else a for a in args], {}))


def some(*shape: int) -> torch.Tensor:
    return torch.complex(torch.randn(*shape), torch.randn(*shape))


def test_arithmetic_with_complex_numbers_has_torchs_bits():
    torch.manual_seed(0)
    for x in (some(33, 20), torch.randn(33, 20), some(5, 7).t()):
        for op, of in (("add.Tensor", torch.add), ("sub.Tensor", torch.sub), ("mul.Tensor", torch.mul)):
            for number in (1j, 2 - 1.5j):
                ours, theirs = call(op, x, number), of(x, number)
                assert ours.dtype == theirs.dtype == torch.complex64
                assert torch.equal(torch.view_as_real(ours), torch.view_as_real(theirs))
                assert not torch.equal(ours, of(x, number.conjugate()))


def test_vdot_conjugates_its_first_vector():
    torch.manual_seed(0)
    x, y = some(9), some(9)
    torch.testing.assert_close(call("vdot.default", x, y), torch.vdot(x, y))
    assert not torch.allclose(torch.dot(x, y), torch.vdot(x, y))


def test_what_would_be_another_complex_dtype_is_refused():
    for x in (torch.randn(3).double(), torch.randn(3).half()):
        with pytest.raises(_core.PortingError, match="complex"):
            call("mul.Tensor", x, 1j)
    with pytest.raises(_core.PortingError, match="a complex number"):
        call("clamp_min.default", torch.randn(3), 1j)
    with pytest.raises(_core.PortingError, match="a complex operand"):
        call("maximum.default", some(3), some(3))


class Spectral(torch.nn.Module):
    def forward(self, x):
        turned = torch.exp(x * 1j) * 2j + (x * 3 - 1)
        product = (turned * (1 + 2j)).neg() * turned
        return torch.view_as_real(product), (turned.cumsum(0) / 3).real.clone(), turned == product, torch.pow(turned, 1j).abs()


def test_a_model_with_complex_numbers_runs(tmp_path):
    torch.manual_seed(0)
    model = Spectral()
    with porting.ActivationCollector(model, tmp_path / "capture"):
        model(torch.randn(300, 40))
    report = porting.check(tmp_path / "capture")
    assert report.passed and report.num_calls == 1, report.to_text()


@pytest.mark.parametrize("number", (["1.0"], ["1.0", 2], ["1.0", "x"], ["", "1"], "1j", ["1", "2", "3"]), ids=str)
def test_a_complex_number_that_is_none_is_refused(number):
    program = {"values": [["F32", [2], [1], 0], ["C64", [2], [1], 0]], "ops": [["aten.mul.Tensor", [{"v": 0}, {"complex": number}], {}, [1]]]}
    with pytest.raises((_core.FormatError, ValueError), match="complex"):
        _core.Program(json.dumps(program).encode())
    program["ops"][0][1][1] = {"complex": ["0.5", "-2e0"]}
    made = _core.Program(json.dumps(program).encode()).run(0, 1, {0: np.float32([1, 2])}, [1])[0]
    assert made.dtype == np.complex64 and made[1] == 1 - 4j


def test_complex_products_promise_a_bound_and_moves_all_bits():
    assert ops_table.promise("aten.mm.default", "C64").unit == "u s"  # terms may cancel
    assert ops_table.promise("aten.div.Tensor", "C64").kind == "BOUND"
    assert ops_table.promise("aten.mul.Tensor", "C64").kind == ops_table.promise("aten.index.Tensor", "C64").kind == "EXACT"


@pytest.mark.parametrize("strided", ("self", "other"))
def test_products_in_place_of_strided_numbers_are_not_fused(strided):
    torch.manual_seed(0)
    capability = {"AVX2": "avx2", "AVX512": "avx512"}.get(torch.backends.cpu.get_cpu_capability(), "default")
    memory, b = (torch.randn(5, 9, 2 if strided == name else 1, dtype=torch.complex64) for name in ("self", "other"))
    a, b, changed = memory[..., 0], b[..., 0], memory.clone()[..., 0].mul_(b[..., 0])
    for name, theirs in (("mul", a * b), ("mul_", changed)):
        made = _core.call_op(f"aten.{name}.Tensor", [a.numpy(), b.numpy()], {}, capability=capability)
        assert np.array_equal(made, theirs.numpy()), name
    assert capability == "default" or not torch.equal(a * b, changed)
