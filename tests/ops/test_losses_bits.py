"""Losses and norms that have loops of their own, every bit against torch: ctc with sequences of many lengths, margins, halves with F32 parameters."""

from __future__ import annotations

import pytest
import torch
from porting import _core
from test_rare_ops_bits import same
from test_rounding_like_torch import BF16, F16, F32, F64, made, unequal


@pytest.mark.parametrize("dtype", (F32, F64), ids=str)
def test_ctc_of_sequences_of_many_lengths(dtype):
    torch.manual_seed(0)
    for T, B, C, S in ((12, 3, 6, 4), (50, 4, 20, 17), (1, 1, 2, 0)):
        probs = torch.randn(B, T, C, dtype=dtype).log_softmax(-1).transpose(0, 1)
        labels, steps, counts = torch.randint(1, C, (B, S)), torch.randint(T // 2, T + 1, (B,)), torch.randint(0, S + 1, (B,))
        steps[0], counts[0] = 0, 0
        args = probs, labels, steps, counts
        theirs, ours = torch.ops.aten._ctc_loss.Tensor(*args), made("aten._ctc_loss.Tensor", *args)
        assert unequal(ours[0], theirs[0]) == 0 and ours[1].shape == theirs[1].shape
        for b in range(B):  # what is beyond a sequence's end torch leaves as it was
            kept = slice(0, int(steps[b])), slice(0, 2 * int(counts[b]) + 1)
            assert unequal(ours[1][b][kept], theirs[1][b][kept]) == 0
        together = torch.cat([labels[b, : counts[b]] for b in range(B)])
        ours = made("aten._ctc_loss.default", probs, together, steps.tolist(), counts.tolist())
        assert unequal(ours[0], theirs[0]) == 0


def test_ctc_refuses_labels_and_lengths_that_are_not_there():
    probs, labels = torch.randn(5, 2, 4), torch.tensor([[1, 2], [3, 1]])
    for args, word in (((probs, labels + 3, [5, 5], [2, 2]), "class"), ((probs, labels, [6, 5], [2, 2]), "steps"), ((probs, labels, [5, 5], [3, 2]), "labels"),
                       ((probs, labels, [5, 5], [2, 2], 4), "blank"), ((probs, labels, [5], [2, 2]), "lengths"), ((probs, -labels, [5, 5], [2, 2]), "class")):  # fmt: skip
        with pytest.raises((_core.PortingError, ValueError), match=word):
            made("aten._ctc_loss.default", *args)


@pytest.mark.parametrize("dtype", (F32, F64), ids=str)
def test_margins(dtype):
    torch.manual_seed(0)
    for n, c in ((1, 1), (5, 7), (33, 20)):
        x, weight = torch.randn(n, c, dtype=dtype), torch.rand(c, dtype=dtype)
        for reduction in (0, 1, 2):
            for p in (1, 2):
                for w in (None, weight):
                    same("multi_margin_loss.default", x, torch.randint(0, c, (n,)), p, 0.7, w, reduction)
            same("multilabel_margin_loss_forward.default", x, torch.randint(-1, c, (n, c)), reduction)


def test_margins_summed_in_the_other_type_would_be_seen():
    torch.manual_seed(0)
    x, target = torch.randn(33, 20), torch.randint(0, 20, (33,))
    wide = torch.ops.aten.multi_margin_loss(x.double(), target, 1, 0.7, None, 0).float()
    assert unequal(wide, torch.ops.aten.multi_margin_loss(x, target, 1, 0.7, None, 0)) > 0


@pytest.mark.parametrize("dtype", (BF16, F16), ids=str)
def test_layer_norms_of_halves_with_parameters_in_float(dtype):
    torch.manual_seed(0)
    for cols in (16, 48, 256, 768):
        x = torch.randn(20, cols).to(dtype) * 3 + 1
        for weight, bias in ((torch.randn(cols), torch.randn(cols)), (torch.randn(cols), None), (None, torch.randn(cols))):
            same("native_layer_norm.default", x, [cols], weight, bias, 1e-5)
    rounded = torch.native_layer_norm(x, [cols], weight, bias.to(dtype).float(), 1e-5)
    assert unequal(rounded[0], torch.native_layer_norm(x, [cols], weight, bias, 1e-5)[0]) > 0


@pytest.mark.parametrize("dtype", (F32, BF16), ids=str)
def test_an_lstm_run_with_gradients_keeps_no_workspace(tmp_path, dtype):
    """Under autograd torch returns a workspace of some size; a recording of it still runs."""
    import porting

    torch.manual_seed(0)
    model, x = torch.nn.LSTM(6, 5, 2, bidirectional=True).to(dtype), torch.randn(4, 2, 6).to(dtype)
    with porting.ActivationCollector(model, tmp_path / "capture"):
        model(x)
    report = porting.check(tmp_path / "capture")
    assert report.passed and report.num_calls == 1, report.to_text()
