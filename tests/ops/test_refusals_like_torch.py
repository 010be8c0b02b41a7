"""What torch refuses is refused, with a sentence, and what lies next to it is computed: sizes, dtypes and numbers that do not fit an op."""

from __future__ import annotations

import pytest
import torch
from porting import _core
from test_rare_ops_bits import same
from test_rounding_like_torch import BF16, F16, F32, F64, made, unequal

DTYPES = {torch.int8: "I8", torch.uint8: "U8", torch.int64: "I64"}


def refused(op, *args, word, **named):
    """Refused by torch, and here with that word."""
    overload = torch.ops.aten
    for part in op.split("."):
        overload = getattr(overload, part)
    with pytest.raises((RuntimeError, IndexError)):
        overload(*args, **named)
    named = {key: {"dtype": DTYPES[value]} if value in DTYPES else value for key, value in named.items()}
    with pytest.raises((_core.PortingError, ValueError), match=word):
        made(f"aten.{op}", *args, **named)


def complexes(*shape):
    return torch.complex(torch.randn(shape), torch.randn(shape))


def test_ctc_of_no_steps_has_no_losses():
    labels = torch.tensor([[1], [1]])
    refused("_ctc_loss.default", torch.zeros(0, 2, 3), labels, [0, 0], [0, 0], word="none of them 0")
    theirs = torch.ops.aten._ctc_loss(torch.zeros(1, 2, 3), labels, [0, 1], [0, 1])
    assert unequal(made("aten._ctc_loss.default", torch.zeros(1, 2, 3), labels, [0, 1], [0, 1])[0], theirs[0]) == 0


@pytest.mark.parametrize("shape, target", (((2, 3), [[0], [1]]), ((3,), [[1]])), ids=str)
def test_classes_of_margins_are_one_row(shape, target):
    x, target = torch.randn(shape), torch.tensor(target)
    refused("multi_margin_loss.default", x, target, word="classes as I64")
    same("multi_margin_loss.default", x, target.flatten())
    refused("multi_margin_loss.default", x, target.flatten(), 1, 1, torch.randn(1, 3), word="weights")


def test_labels_of_margins_have_the_shape_of_the_scores():
    x, target = torch.randn(2, 3), torch.tensor([[0, 2, -1], [1, -1, 2]])
    same("multilabel_margin_loss_forward.default", x, target, 1)
    for other in (target.flatten(), target.reshape(3, 2)):
        refused("multilabel_margin_loss_forward.default", x, other, 1, word="of the same shape")
    refused("multilabel_margin_loss_forward.default", x[:1], target[0], 1, word="of the same shape")
    refused("multilabel_margin_loss_forward.default", x[0], target[:1], 1, word="of the same shape")
    refused("multilabel_margin_loss_forward.default", x, target - (target < 0).long(), 1, word="is class -2 of 3")


def test_group_norm_takes_parameters_of_one_dtype():
    rest = 2, 4, 3, 2, 1e-5
    for dtype in (F64, F32, BF16, F16):
        x = torch.randn(2, 4, 3).to(dtype)
        for weight in (F64, F32, BF16, F16):
            for bias in (F64, F32, BF16, F16):
                if weight != bias or weight not in (dtype, F32 if dtype in (BF16, F16) else dtype):
                    refused("native_group_norm.default", x, torch.randn(4).to(weight), torch.randn(4).to(bias), *rest, word="weight or bias")
        ours = made("aten.native_group_norm.default", x, torch.ones(4, dtype=dtype), None, *rest)
        assert [y.dtype for y in ours] == [dtype] * 3


def test_an_addend_of_complex_products_broadcasts_to_them():
    a, b = complexes(2, 3), complexes(3, 4)
    for beta in (0, 1):
        refused("addmm.default", complexes(5, 2, 4), a, b, beta=beta, word="cannot be added")
        refused("addmm.default", complexes(3, 4), a, b, beta=beta, word="cannot be added")
        refused("baddbmm.default", complexes(5, 1, 2, 4), a[None], b[None], beta=beta, word="cannot be added")
        refused("addmm.default", torch.randn(3, 4), torch.randn(2, 3), torch.randn(3, 4), beta=beta, word="cannot be added")
    torch.testing.assert_close(made("aten.addmm.default", complexes(4) * 0, a, b)[0], a @ b)


def test_sums_of_complex_numbers_have_no_other_dtype():
    x = complexes(3, 4)
    for op in ("sum.default", "mean.default"):
        with pytest.raises(_core.PortingError, match="another dtype"):
            made(f"aten.{op}", x, dtype=F32)
    same("sum.default", x[0, :2], dtype=None)


def test_complex_numbers_are_true_in_either_part():
    x = torch.tensor([0j, 1j, 1 + 0j, -0.0 + 0j, complex(0, float("nan"))] * 3).reshape(5, 3).t()
    assert torch.equal(made("aten._to_copy.default", x, dtype={"dtype": "BOOL"})[0], x.to(torch.bool))
    made("aten._assert_async.default", torch.tensor(1j))
    with pytest.raises(ValueError, match="does not hold"):
        made("aten._assert_async.default", torch.tensor(0j))


def test_squares_of_complex_numbers_are_products():
    for x in (*(complexes(n) for n in range(40)), complexes(7, 33).t(), torch.randn(5), torch.tensor([1, 2, 3])):
        for two in (2, 2 + 0j):
            if x.is_complex() or two == 2 + 0j:
                same("pow.Tensor_Scalar", x, two)
    powers = torch.pow(complexes(5), 2 + 1e-7j), made("aten.pow.Tensor_Scalar", complexes(5), 2 + 1e-7j)[0]
    assert powers[0].dtype == powers[1].dtype == torch.complex64


@pytest.mark.parametrize("dtype", (torch.int8, torch.uint8), ids=str)
def test_values_that_integers_do_not_hold_are_not_written(dtype):
    x, mask, info = torch.zeros(3, dtype=dtype), torch.tensor([True, False, True]), torch.iinfo(dtype)
    for value in (info.max + 0.5, info.min - 0.5, float("nan"), 1e300):
        refused("masked_fill.Scalar", x, mask, value, word="cannot be written")
        refused("masked_fill.Tensor", x, mask, torch.tensor(value, dtype=F64), word="cannot be written")
    for value in (info.max - 0.5, float(info.max), float(info.min), 0.9):
        same("masked_fill.Scalar", x, mask, value)
    refused("masked_fill.Tensor", x, mask, torch.tensor(1j), word="C64")


@pytest.mark.parametrize("op", ("linspace.default", "logspace.default"))
def test_lines_end_where_their_dtype_does(op):
    for dtype, end in ((torch.int8, 300), (torch.uint8, 300), (F16, 1e300), (BF16, 1e300)):
        refused(op, 0, end, 5, dtype=dtype, word="does not hold")
    same(op, 0, 1e4, 1, dtype=F16)
    same(op, 0, 2, 5, dtype=F16)
    assert made(f"aten.{op}", 0, 2, 3, dtype={"dtype": "I8"})[0].tolist() == getattr(torch, op.split(".")[0])(0, 2, 3, dtype=torch.int8).tolist()


def test_masks_of_attention_are_square():
    x, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5) > 0.5
    refused("_masked_softmax.default", x, mask[0, 0], -1, 0, word="expected a BOOL mask")
    refused("_masked_softmax.default", x, mask[:, 0, 0], -1, 1, word="expected a BOOL mask")
    torch.testing.assert_close(made("aten._masked_softmax.default", x[..., :4], mask[0, 0, :, :4], -1, 0)[0],
                               torch.ops.aten._masked_softmax(x[..., :4].contiguous(), mask[0, 0, :, :4].contiguous(), -1, 0), equal_nan=True)  # fmt: skip


def test_truth_has_no_gamma_function():
    refused("mvlgamma.default", torch.tensor([True]), 1, word="BOOL")
    made("aten.mvlgamma.default", torch.tensor([3]), 1)


def test_places_are_not_written_where_a_tensor_has_gaps():
    dense, source = torch.randn(3, 3), torch.randn(2, 2)
    for x in (dense, dense.mT):
        theirs = torch.ops.aten.as_strided_scatter(x, source, (2, 2), (1, 2), 0)
        assert unequal(made("aten.as_strided_scatter.default", x, source, [2, 2], [1, 2], 0)[0], theirs) == 0
    with pytest.raises(_core.PortingError, match="gaps"):
        made("aten.as_strided_scatter.default", torch.randn(3, 6)[:, ::2], source, [2, 2], [1, 2], 0)


def test_exponentials_of_matrices_of_halves_are_refused():
    made("aten.linalg_matrix_exp.default", torch.eye(3))
    with pytest.raises(_core.PortingError, match="F32 or F64"):
        made("aten.linalg_matrix_exp.default", torch.eye(3, dtype=torch.bfloat16))


def test_cross_products_are_of_three_numbers():
    x = torch.randn(3, 4, 3)
    refused("linalg_cross.default", x, x, dim=1, word="3 numbers along dimension 1")
    refused("linalg_cross.default", x, x[0], word="as many")
    refused("linalg_cross.default", x, x, dim=3, word="out of range")
    same("linalg_cross.default", x, x.flip(1), dim=0)
    same("linalg_cross.default", x[:1], x.flip(1), dim=2)


def test_traces_are_of_matrices_of_numbers():
    refused("trace.default", torch.randn(2, 3, 4), word="expected a matrix of numbers")
    refused("trace.default", torch.randn(3, 4) > 0, word="expected a matrix of numbers")
    same("trace.default", torch.randn(0, 4))


@pytest.mark.parametrize("spatial", (2, 3))
def test_means_of_windows_are_divided_by_some_number(spatial):
    x, sides = torch.randn(1, 2, *[4] * spatial), [2] * spatial
    refused(f"avg_pool{spatial}d.default", x, sides, sides, [0], False, True, 0, word="divisor_override is 0")
    for divisor in (None, -3, 5):
        same(f"avg_pool{spatial}d.default", x, sides, sides, [0], False, True, divisor)


def test_attention_over_turned_views_of_one_tensor():
    torch.manual_seed(0)
    x = torch.randn(3, 3, 8)
    rest = 8, 2, torch.randn(24, 8), torch.randn(24), torch.randn(8, 8), torch.randn(8)
    for key, value in ((x.transpose(0, 1), x.transpose(0, 1)), (x, x.transpose(0, 1)), (x.flip(0), x)):
        ours, theirs = made("aten._native_multi_head_attention.default", x, key, value, *rest)[0], torch._native_multi_head_attention(x, key, value, *rest)[0]
        torch.testing.assert_close(ours, theirs)
        assert not torch.allclose(ours, torch._native_multi_head_attention(x, x, x, *rest)[0])
