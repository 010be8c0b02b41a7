"""Layers of torch.nn that Transformers' models seldom have, captured and run again: every call must be checked."""

from __future__ import annotations

from pathlib import Path

import porting
import pytest
import torch


class Packed(torch.nn.Module):
    """A recurrent layer over sequences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.GRU(6, 5, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3, 1]))
        return torch.nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]


class Spectrum(torch.nn.Module):
    """A signal to its spectrum and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(16)
        spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
        return torch.istft(spectrum * spectrum.abs(), 16, 4, window=window) + torch.fft.irfft(torch.fft.rfft(x), 64)


class Reshaped(torch.nn.Module):
    """In-place changes of shape, which no kernel ever sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x * 2).unsqueeze_(0).transpose_(1, 2)
        return y.squeeze_(0).t_() + torch.nn.functional.adaptive_avg_pool2d(x.view(1, 4, 4, 4).contiguous(memory_format=torch.channels_last), 1).sum()


class Into(torch.nn.Module):
    """Results that are written into tensors, and into parts of them."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, values, places = torch.zeros(8, 16), torch.empty(8, 3), torch.empty(8, 3, dtype=torch.int64)
        torch.add(x, 1, out=y[:, ::2])
        torch.mul(x, x, out=y[:, 1::2])
        torch.topk(x, 3, out=(values, places))
        torch.sum(y, 1, out=values[:, 0])
        return y, values + places


class Systems(torch.nn.Module):
    """Equations, determinants and decompositions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x @ x.mT + torch.eye(8)
        y = torch.linalg.inv(a) + torch.linalg.solve(a, x) + torch.cholesky_solve(x, torch.linalg.cholesky(a))
        return y * torch.linalg.det(a) + torch.linalg.eigvalsh(a) + torch.linalg.svdvals(x) + torch.logdet(a) + torch.linalg.qr(x)[1] @ x[0]


def rnn(kind: type, **kw: object) -> torch.nn.Module:
    return kind(6, 5, bidirectional=True, num_layers=2, **kw).eval()


LAYERS = {
    "lstm": (lambda: rnn(torch.nn.LSTM), (4, 3, 6)),
    "lstm, batch first": (lambda: rnn(torch.nn.LSTM, batch_first=True), (3, 4, 6)),
    "gru, batch first": (lambda: rnn(torch.nn.GRU, batch_first=True), (3, 4, 6)),
    "rnn": (lambda: rnn(torch.nn.RNN), (4, 3, 6)),
    "packed": (lambda: Packed().eval(), (4, 3, 6)),
    "encoder": (lambda: torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval(), (2, 5, 8)),
    "training": (lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.3)).train(), (5, 3, 7)),
    "spectrum": (lambda: Spectrum().eval(), (2, 64)),
    "reshaped": (lambda: Reshaped().eval(), (8, 8)),
    "into": (lambda: Into().eval(), (8, 8)),
    "systems": (lambda: Systems().eval(), (8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_call_is_checked(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    with torch.no_grad():
        _, capture = porting.ActivationCollector(make(), str(tmp_path / "capture"), program="all")(torch.randn(shape))
    with capture:
        report = porting.check(capture)
        assert report.num_calls > 0 and report.num_checked == report.num_calls and report.num_failed == 0, str(report)


def test_a_wrong_gate_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = torch.nn.LSTM(6, 5)
    with torch.no_grad():
        _, capture = porting.ActivationCollector(layer, str(tmp_path / "capture"), program="all")(torch.randn(4, 3, 6))
        layer.bias_ih_l0[5] += 0.01
    with capture:
        assert not porting.compare(capture, {"model": layer}).passed


def test_nested_tensors_leave_the_run_unchanged(tmp_path: Path) -> None:
    """torch packs padded rows of its own encoder into one nested tensor; what has no shape cannot be captured, and says so."""
    torch.manual_seed(0)
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x, hidden = torch.randn(3, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=hidden)
        output, capture = porting.ActivationCollector(encoder, str(tmp_path / "capture"), program="all")(x, src_key_padding_mask=hidden)
    with capture:
        assert torch.equal(output, expected)
        report = porting.check(capture)
        assert not report.passed and "nested tensor" in str(report)
