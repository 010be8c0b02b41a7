"""One call captured with sizes=True as a program for other sizes: torch's bits, or a refusal."""
import json
import math

import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, FormatError, sizes
from porting.program import NoProgramError

SEEDS = torch.Generator().manual_seed(5)


def engine_of(model, path, **kwargs):
    with torch.no_grad(), ActivationCollector(model, path, include="^$", sizes=True) as collector:
        model(**kwargs)
    return porting.Engine(collector.capture)


def run(engine, model, **kwargs):
    """(what porting gives, what torch gives), by leaf path; the first is None where it refuses."""
    with torch.no_grad(), ActivationCollector(model, include="^$", program=False) as collector:
        model(**kwargs)
    try:
        found = engine(**{name: value.numpy() for name, value in kwargs.items() if isinstance(value, torch.Tensor)})
    except NoProgramError:
        found = None
    return found, {leaf: array.copy() for leaf, array in collector.capture.calls("")[0].outputs.items()}


def same(found, expected):
    return found is not None and found.keys() == expected.keys() and all(found[leaf].tobytes() == array.tobytes() for leaf, array in expected.items())


def ids(*shape):
    return torch.randint(0, 60, shape, generator=SEEDS)


def scattered(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=SEEDS)
    return model.eval()


def llama(attention):
    from transformers import LlamaConfig, LlamaForCausalLM

    return scattered(LlamaForCausalLM(LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40,
                                                  vocab_size=60, attn_implementation=attention)))  # fmt: skip


def bert():
    from transformers import BertConfig, BertModel

    return scattered(BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, vocab_size=60, max_position_embeddings=40)))


def gpt2():
    from transformers import GPT2Config, GPT2Model

    return scattered(GPT2Model(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=60, n_positions=40)))


def t5():
    from transformers import T5Config, T5Model

    return scattered(T5Model(T5Config(d_model=32, d_kv=8, d_ff=40, num_layers=1, num_heads=4, vocab_size=60)))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_decoder_runs_at_other_batches_and_lengths(tmp_path, attention):
    model = llama(attention)
    engine = engine_of(model, tmp_path / "a", input_ids=ids(1, 5))
    for shape in ((1, 9), (3, 5), (3, 9), (2, 32), (4, 4)):  # 4 and 32 are heads and channels, too
        assert same(*run(engine, model, input_ids=ids(*shape))), shape
    found, _ = run(engine, model, input_ids=ids(2, 6))
    _, other = run(engine, model, input_ids=ids(2, 6))
    assert not same(found, other), "the comparison sees other inputs"
    with pytest.raises(NoProgramError, match=r"takes input_ids \[1, n0\]: it stands where \(n0 != 1\), which modeling_llama.py:\d+ asked; that is not so with n0 \(input_ids\[1\]\) 1"):
        engine(input_ids=ids(1, 1).numpy())


def test_a_length_equal_to_heads_and_channels_is_told_apart(tmp_path):
    model = llama("sdpa")
    engine = engine_of(model, tmp_path / "a", input_ids=ids(4, 32))
    for shape in ((2, 32), (4, 7), (3, 9)):
        assert same(*run(engine, model, input_ids=ids(*shape))), shape


@pytest.mark.parametrize("build", [bert, gpt2, t5])
def test_masks_and_positions_follow(tmp_path, build):
    model = build()

    def inputs(batch, length):
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, : length // 3] = 0
        return {"input_ids": ids(batch, length), "attention_mask": mask, **({"decoder_input_ids": ids(batch, 4)} if build is t5 else {})}

    engine = engine_of(model, tmp_path / "a", **inputs(2, 6))
    for batch, length in ((2, 10), (5, 6), (3, 8)):
        assert same(*run(engine, model, **inputs(batch, length))), (batch, length)
    with pytest.raises(NoProgramError, match=r"traced in call 0 takes .*attention_mask \[.*\]: (attention_mask is \[2, 9\], expected|it stands where .*\(attention_mask\[1\]\) 9)"):
        engine(**{name: t.numpy() for name, t in {**inputs(2, 10), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}.items()})


def test_images_of_other_sizes(tmp_path):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)).eval()  # fmt: skip
    engine = engine_of(model, tmp_path / "a", input=torch.rand(1, 3, 24, 20))
    for shape in ((1, 3, 32, 20), (3, 3, 24, 20), (2, 3, 33, 41)):
        assert same(*run(engine, model, input=torch.rand(*shape))), shape
    with pytest.raises(NoProgramError, match=r"input is \[2, 4, 24, 20\], expected \[n0, 3, n1, n2\]"):
        engine(input=np.zeros((2, 4, 24, 20), "f4"))


def test_a_vision_transformer_keeps_its_image_size(tmp_path):
    from transformers import ViTConfig, ViTModel

    model = scattered(ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=40, image_size=16, patch_size=8)))
    engine = engine_of(model, tmp_path / "a", pixel_values=torch.rand(1, 3, 16, 16))
    assert same(*run(engine, model, pixel_values=torch.rand(3, 3, 16, 16)))
    with pytest.raises(NoProgramError, match=r"expected \[1, 3, 16, 16\]"):
        engine(pixel_values=np.zeros((1, 3, 24, 24), "f4"))


class Python(torch.nn.Module):
    """What a model may do with sizes and data in Python."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.mask = torch.linspace(0, 1, 6)
        self.seen = {}

    def forward(self, x):
        n = x.shape[0]
        return getattr(self, self.how)(x, n)

    def branch(self, x, n):
        return x * 2 if n == 6 else x * 3

    def ordered(self, x, n):
        return x.relu() if n > 4 else x.sigmoid()

    def quotient(self, x, n):
        return x * (1.0 / n)

    def root(self, x, n):
        return x * math.sqrt(n)

    def halves(self, x, n):
        return x[: n // 2] * 2

    def product(self, x, n):
        return torch.arange(2 * n * n).view(n, -1).sum(1) + x.sum()

    def baked(self, x, n):
        return x + self.mask

    def constant(self, x, n):
        return x + torch.tensor([float(n)])

    def tensor(self, x, n):
        return x + torch.tensor(n)

    def array(self, x, n):
        return x + torch.from_numpy(np.arange(n, dtype="f4"))

    def listed(self, x, n):
        return x + torch.tensor([float(i) for i in range(n)])

    def loop(self, x, n):
        for _ in range(n):
            x = x + 1
        return x

    def rows(self, x, n):
        return torch.stack([row * 2 for row in x])

    def text(self, x, n):
        return x * (2 if str(n) == "6" else 3)

    def kept(self, x, n):
        return x * self.seen.setdefault(n, float(n))

    def asked(self, x, n):
        return x * 2 if x.max().item() > 0 else x * 3

    def number(self, x, n):
        return x * int(x.abs().max().item() * 4)

    def data(self, x, n):
        return x[x > 0] * 2

    def random(self, x, n):
        return x + torch.rand(n)

    def caught(self, x, n):
        try:
            return x + self.mask
        except RuntimeError:
            return x * 3


FOLLOWS = {"branch": (), "ordered": (8, 9), "quotient": (2, 4, 5, 7, 9, 49), "root": (), "halves": (4, 5, 7, 8, 9, 12, 49), "product": (2, 5, 7), "baked": (), "constant": (), "tensor": (),
           "array": (), "listed": (), "loop": (), "rows": (), "text": (), "kept": (), "asked": (2, 7, 9), "number": (2, 7, 9), "data": (), "random": (), "caught": ()}  # fmt: skip


@pytest.mark.parametrize("how", FOLLOWS)
def test_python_on_sizes_is_followed_or_refused(tmp_path, how):
    """Never other numbers than torch's; and where the sizes are followed, at the sizes named."""
    model = Python(how)
    engine = engine_of(model, tmp_path / "a", x=torch.linspace(0.5, 1, 6))
    accepted = set()
    for n in (1, 2, 3, 4, 5, 7, 8, 9, 12, 49):
        x = torch.linspace(0.25, 1, n)
        try:
            with torch.no_grad():
                expected = model(x=x)
        except RuntimeError:  # torch itself refuses
            expected = None
        try:
            found = engine(x=x.numpy())["0"]
        except NoProgramError as error:
            assert "sizes" in str(error) or "it stands where" in str(error) or "expected" in str(error) or "does not stand" in str(error) or "cannot run" in str(error)
            continue
        assert expected is not None and found.tobytes() == expected.numpy().tobytes(), n
        accepted.add(n)
    assert accepted.issuperset(FOLLOWS[how])
    assert FOLLOWS[how] or not accepted, "sizes that Python took as plain numbers are the captured ones"


def test_what_was_read_out_of_the_data_is_compared(tmp_path):
    engine = engine_of(Python("asked"), tmp_path / "a", x=torch.ones(6))
    assert np.array_equal(engine(x=np.ones(9, "f4"))["0"], np.full(9, 2, "f4"))
    with pytest.raises(NoProgramError, match="traced in call 0 .*cannot run on these arguments"):
        engine(x=np.full(9, -1, "f4"))


def test_the_model_is_as_before(tmp_path):
    model = Python("kept")
    engine_of(model, tmp_path / "a", x=torch.ones(6))
    assert model.seen == {6: 6.0} and type(model.mask) is torch.Tensor and not model._forward_hooks
    assert torch.equal(model(torch.ones(5)), torch.full((5,), 5.0))


@pytest.mark.parametrize("text", ["__import__('os')", "n0.real", "n9", "n0 ** 9", "(" * 300 + "n0" + ")" * 300, "-" * 4000 + "n0", "", "1 if n0 else 2", "lambda: 0", "n0(1)", "[1][0]", "'a'"])
def test_other_text_is_no_expression(text):
    with pytest.raises(FormatError, match="sizes.json"):
        sizes.evaluate(text, {"n0": 3})


def test_expressions():
    given = {"n0": 7, "n1": 3}
    for text, value in (("n0*n1 + 1", 22), ("(n0 + 3)//2 % 4", 1), ("max(n0, 2*n1)", 7), ("ceil(n0 / 2)", 4), ("(n0 >= 2) and not (n1 == 4)", True), ("-n0", -7), ("n1**2", 9), ("1.0 / float(n1)", 1 / 3)):
        assert sizes.evaluate(text, given) == value
    with pytest.raises(sizes.MisfitError, match="n0 // .* has no value at n0 7, n1 3"):
        sizes.evaluate("n0 // (n1 - 3)", given)
    with pytest.raises(sizes.MisfitError, match="too large"):
        sizes.evaluate("(" * 30 + "n0" + "**8)" * 30, given)


def change(entry, how):
    program = entry["program"]
    if how == "a size of no dimension":
        entry["symbols"]["n0"][1] = 7
    elif how == "no such input":
        entry["symbols"]["n0"][0] = "9"
    elif how == "no values":
        program["values"] = []
    elif how == "no program":
        del entry["program"]
    elif how == "a float for a size":
        program["values"][-1][1] = [{"size": "n0 / 2"}]
    elif how == "another op":
        program["ops"][0][0] = "aten.relu.default"
        entry["same"] = False
    elif how == "no condition":
        entry["conditions"] = [["nobody", ""]]


@pytest.mark.parametrize("how", ["a size of no dimension", "no such input", "no values", "no program", "a float for a size", "no condition", "another op"])
def test_malformed_files_are_refused(tmp_path, how):
    engine = engine_of(Python("ordered"), tmp_path / "a", x=torch.linspace(-1, 1, 6))
    assert np.array_equal(engine(x=np.linspace(-1, 1, 9, dtype="f4"))["0"], np.maximum(np.linspace(-1, 1, 9, dtype="f4"), 0))
    path = tmp_path / "a" / sizes.FILE
    document = json.loads(path.read_text())
    change(document["programs"][0], how)
    if how == "another op":
        document["programs"][0]["program"]["ops"][0][0] = "aten.sigmoid.default"
    path.write_text(json.dumps(document))
    with pytest.raises((FormatError, NoProgramError), match="sizes.json|program.json|run on the captured inputs it does not give|cannot run|are integers"):
        porting.Engine(engine.capture)(x=np.linspace(-1, 1, 9, dtype="f4"))


def test_a_file_of_another_kind_or_version_is_refused(tmp_path):
    for text, why in (("{", "not JSON"), ('{"format": "other"}', "not a file of traced programs"), (json.dumps({**sizes.FORMAT, "version": 2, "programs": []}), "version 2"),
                      (json.dumps({**sizes.FORMAT, "programs": 3}), "not a list")):  # fmt: skip
        (tmp_path / sizes.FILE).write_text(text)
        with pytest.raises(FormatError, match=why):
            sizes.load(tmp_path)


def test_sizes_need_programs():
    with pytest.raises(ValueError, match="sizes=True traces recorded programs"):
        ActivationCollector(torch.nn.ReLU(), sizes=True, program=False)
