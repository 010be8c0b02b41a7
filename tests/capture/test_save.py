"""A capture as .safetensors, .npz and .pt, and as torch tensors."""
import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector


class Returns(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def capture_of(*tensors):
    return ActivationCollector(Returns(list(tensors)), program=False)(torch.arange(6.0).view(2, 3).T)[1]


COMMON = [torch.randn(2, 3), torch.arange(5), torch.ones(3, dtype=torch.bool), torch.zeros(0, 4), torch.tensor(1.5, dtype=torch.float64),
          torch.tensor([1 + 2j, -3j], dtype=torch.complex64), torch.randn(4).half()]
HALF = [torch.randn(5).bfloat16(), torch.randn(5).to(torch.float8_e4m3fn), torch.randn(5).to(torch.float8_e5m2)]


def as_saved(path):
    if path.suffix == ".npz":
        return {k: torch.from_numpy(v) for k, v in np.load(path, allow_pickle=False).items()}
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    from safetensors.torch import load_file

    return load_file(path)


def expected(acts, tensors):
    return {"in.0": torch.arange(6.0).view(2, 3).T, **{f"out.{i}": t for i, t in enumerate(tensors)}}


def check_equal(found, wanted):
    assert list(found) == list(wanted) or set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert torch.equal(found[name].contiguous().flatten().view(torch.uint8) if tensor.numel() else found[name],
                           tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor), name


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
@pytest.mark.parametrize("half", [False, True])
def test_saved_files_hold_every_tensor(tmp_path, suffix, half):
    tensors = COMMON + (HALF if half else [])
    acts = capture_of(*tensors)
    path = tmp_path / f"activations{suffix}"
    if half and suffix == ".npz":
        with pytest.raises(porting.DtypeError, match="out.7 is BF16, which .npz files cannot hold"):
            acts.save(path)
        assert list(tmp_path.iterdir()) == []
        return
    acts.save(path)
    check_equal(as_saved(path), expected(acts, tensors))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_existing_files_and_other_endings_are_refused(tmp_path):
    acts = capture_of(*COMMON)
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="a.safetensors exists already: give another name, or overwrite=True"):
        acts.save(path)
    assert path.read_text() == "mine"
    acts.save(path, overwrite=True)
    check_equal(as_saved(path), expected(acts, COMMON))
    for name in ("a.h5", "a", "a.pth"):
        with pytest.raises(ValueError, match="must end in .safetensors, .npz, .pt"):
            acts.save(tmp_path / name)


def test_to_torch_shares_nothing_with_the_file(tmp_path):
    acts = capture_of(*COMMON, *HALF)
    tensors = acts.to_torch()
    check_equal(tensors, expected(acts, COMMON + HALF))
    before = acts["out.0"].copy()
    tensors["out.0"].add_(1)
    assert (acts["out.0"] == before).all()
    torch.save(tensors, tmp_path / "x.pt")
    assert set(torch.load(tmp_path / "x.pt")) == set(acts)
