"""Two calls of different sizes as one program for other sizes."""
import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector
from porting.program import NoProgramError

SEEDS = torch.Generator().manual_seed(3)


def bert():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=60, max_position_embeddings=40))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=SEEDS)
    return model.eval()


def sentence(batch, length):
    ids = torch.randint(0, 60, (batch, length), generator=SEEDS)
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def engine_of(model, path, *arguments):
    with torch.no_grad(), ActivationCollector(model, path, include="^$") as collector:
        for kwargs in arguments:
            model(**kwargs)
    return porting.Engine(collector.capture)


def same(step, expected):
    return all(np.array_equal(step[name].view("u4"), tensor.detach().numpy().view("u4")) for name, tensor in expected.items())


def test_two_lengths_stand_for_others(tmp_path):
    model = bert()
    engine = engine_of(model, tmp_path / "a", sentence(2, 5), sentence(2, 9))
    with torch.no_grad():
        for length in (3, 7, 9, 16, 33):
            given = sentence(2, length)
            step = engine(**{name: tensor.numpy() for name, tensor in given.items()})
            expected = model(**given)
            assert same(step, expected), length
            assert not same(step, model(given["input_ids"].flip(1), given["attention_mask"]))
    with pytest.raises(NoProgramError, match=r"The program of calls 0, 1 takes input_ids \[2, n\], attention_mask \[2, n\]: input_ids is \[3, 7\], expected \[2, n\] with n 7"):
        engine(**{name: tensor.numpy() for name, tensor in sentence(3, 7).items()})


def test_two_batches_stand_for_others(tmp_path):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, 5)).eval()
    engine = engine_of(model, tmp_path / "a", {"input": torch.rand(1, 3, 9, 9)}, {"input": torch.rand(4, 3, 9, 9)})
    image = torch.rand(7, 3, 9, 9)
    assert np.array_equal(engine(input=image.numpy())["0"], model(image).detach().numpy())
    with pytest.raises(NoProgramError, match=r"input is \[2, 3, 11, 9\], expected \[n, 3, 9, 9\]"):
        engine(input=np.zeros((2, 3, 11, 9), "f4"))


class Branches(torch.nn.Module):
    """What it computes depends on the length by more than a line."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        n = x.shape[0]
        if self.how == "op":
            return x.relu() if n > 4 else x.sigmoid()
        if self.how == "float":
            return x * (1.0 / n)
        if self.how == "halves":
            return x.view(-1)[: n // 2] * 2
        if self.how == "data":
            return x[x > 0].sum().reshape(1)
        return x + torch.tensor([float(n)])


@pytest.mark.parametrize(("how", "why"), [
    ("op", "op 0 is aten.sigmoid.default in one and aten.relu.default in the other"),
    ("float", r"the arguments of op 0 aten.mul.Tensor differ by more than sizes on a line"),
    ("halves", r"the arguments of op 1 aten.slice.Tensor differ by more than sizes on a line"),
    ("data", r"sizes in it depend on the data .aten.index.Tensor."),
    ("constant", "a tensor that neither is an input nor was computed by its ops is another one"),
])
def test_calls_that_differ_by_more_are_no_program(tmp_path, how, why):
    x = torch.linspace(-1, 1, 7)
    engine = engine_of(Branches(how), tmp_path / "a", {"x": x[:4].clone()}, {"x": x.clone()})
    with pytest.raises(NoProgramError, match=f"Calls 0 and 1 give no program for other sizes: .*({why})"):
        engine(x=np.zeros(6, "f4"))
    assert engine(x=x.numpy())["0"].shape, "what was recorded still runs"


def test_one_call_says_what_is_needed(tmp_path):
    engine = engine_of(torch.nn.Linear(3, 2), tmp_path / "a", {"input": torch.ones(2, 3)})
    with pytest.raises(NoProgramError, match="one call does not say: capture it with sizes=True, or one of another size, too"):
        engine(input=np.ones((5, 3), "f4"))


class Twice(torch.nn.Module):
    def forward(self, x):
        return x * 2.0


def test_a_common_program_that_gives_other_values_is_refused(tmp_path, monkeypatch):
    engine = engine_of(Twice(), tmp_path / "a", {"x": torch.ones(4)}, {"x": torch.ones(7)})
    monkeypatch.setattr("porting.lengths.merge", lambda a, b: [[a["ops"][0][0], [a["ops"][0][1][0], 3.0], {}, a["ops"][0][3]]])
    with pytest.raises(NoProgramError, match="run at the sizes of call 1, what they have in common gives other values than that call's own program"):
        engine(x=np.ones(5, "f4"))
    monkeypatch.undo()
    assert np.array_equal(porting.Engine(engine.capture)(x=np.ones(5, "f4"))["0"], np.full(5, 2, "f4"))


def test_calls_that_select_by_a_mask_share_no_program(tmp_path):
    """How many are selected depends on the data: each call keeps its own program."""
    x = torch.linspace(-1, 1, 7)
    for how, programs in (("data", 2), ("op", 1)):
        engine = engine_of(Branches(how), tmp_path / how, {"x": x.clone()}, {"x": x.flip(0) + 0.5})
        assert len(engine.capture.programs) == programs
