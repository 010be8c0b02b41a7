"""What may not be named: clean ports, faults that nothing covers, two faults at once; and the list of causes."""
import re
from pathlib import Path

import porting
import pytest
import torch
from diagnose_tools import (
    IMAGE,
    Attention,
    Block,
    Gated,
    PostBlock,
    Q,
    RMSNorm,
    X,
    causes,
    changed,
    drawn,
    half_rope,
    noise,
    why,
)
from test_faults import CASES
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
NOT_A_CAUSE = ("none", "rounding", "unknown", "partly-wrong")


def doubled(module):
    """The port that computes in float64 and rounds once."""
    def port(x):
        return module.double()(x.double()).float()

    return port


def reordered(module):
    """A linear layer that sums from the other end, in blocks."""
    def port(x):
        x, w = x.flip(-1), module.weight.flip(-1)
        return sum(x[..., i : i + 8] @ w[:, i : i + 8].t() for i in range(0, x.shape[-1], 8)) + module.bias

    return port


def eager(module):
    return changed(module, fused=False)


MODULES = {
    "linear": (lambda: nn.Linear(24, 24), X), "layer_norm": (lambda: nn.LayerNorm(24), X), "rms_norm": (RMSNorm, X), "block": (Block, X), "post": (PostBlock, X),
    "gated": (Gated, noise(5, 16)), "conv": (lambda: nn.Conv2d(8, 6, 3, padding=1), IMAGE), "batch_norm": (lambda: nn.BatchNorm2d(8), IMAGE),
    "group_norm": (lambda: nn.GroupNorm(2, 8), IMAGE), "attention": (lambda: Attention(causal=True), Q), "softmax": (lambda: nn.Softmax(-1), X), "gelu": (nn.GELU, X),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MODULES))
def test_a_port_in_float64_is_not_blamed(name):
    make, x = MODULES[name]
    module = drawn(make())
    with torch.no_grad():
        actual = doubled(drawn(make()))(x)
    assert why(module, actual, x).cause in ("none", "rounding")


def test_another_order_of_summation_is_not_blamed():
    module = drawn(nn.Linear(24, 24))
    assert why(module, reordered(module), X).cause == "rounding"


@pytest.mark.parametrize("options", [{"causal": True}, {"masked": 2}, {"rope": half_rope, "groups": 2}])
def test_eager_attention_for_fused_is_not_blamed(options):
    module = drawn(Attention(**options), scale=1.0)
    assert why(module, eager(module), Q).cause in ("none", "rounding")


def test_the_module_itself_is_equal():
    module = drawn(Gated())
    assert why(module, module, noise(5, 16)).cause == "none"


UNKNOWN = {
    "sine of the result": (Block, X, lambda m: lambda x: torch.sin(3 * m(x))),
    "noise": (lambda: nn.Linear(24, 24), X, lambda m: lambda x: m(x) + 0.1 * noise(2, 6, 24, seed=9)),
    "other weights": (Gated, noise(5, 16), lambda m: drawn(Gated(), seed=7)),
    "a mean over a wrong set": (RMSNorm, X, lambda m: lambda x: m.weight * x * torch.rsqrt(x[..., ::3].pow(2).mean(-1, keepdim=True) + m.eps)),
    "two faults: eps and weight": (RMSNorm, X * 0.1, lambda m: changed(m, eps=1e-3, weight=m.weight.flip(0) ** 2)),
    "two faults: activation and transposed": (lambda: Gated(16, 16), noise(5, 16), lambda m: lambda x: F.linear(F.gelu(F.linear(x, m.gate.weight.t())) * m.up(x), m.down.weight)),
    "two faults: scale and head order": (lambda: Attention(causal=True), Q, lambda m: changed(m, scale=0.1, merge=False)),
    "another random activation": (nn.SiLU, X, lambda m: lambda x: x * torch.sigmoid(x + torch.sin(5 * x))),
    "a decayed mask": (Attention, Q, lambda m: changed(m, fused=False, attend=lambda q, k, v, t: torch.softmax(q @ k.mT * m.scale - 0.3 * torch.arange(t), -1) @ v)),
    "random convolution": (lambda: nn.Conv2d(8, 6, 3), IMAGE, lambda m: drawn(nn.Conv2d(8, 6, 3), seed=5)),
}


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_what_no_generator_covers_is_unknown(name):
    make, x, break_it = UNKNOWN[name]
    module = drawn(make())
    diagnosis = why(module, break_it(module), x)
    assert diagnosis.cause in ("unknown", "partly-wrong"), str(diagnosis)
    assert diagnosis.ruled_out


def test_a_part_is_said_as_such():
    module = drawn(nn.Linear(24, 24))
    wrong = changed(module, weight=module.weight.t())
    with torch.no_grad():
        actual = module(noise(12, 24))
        actual[3] = wrong(noise(12, 24))[3]
    diagnosis = why(module, actual, noise(12, 24))
    assert diagnosis.cause == "weight-transposed" and diagnosis.detail.startswith("in row 3 of 12 only")


def documented():
    text = (ROOT / "docs" / "CAUSES.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}


def written():
    """Ids that stand in the generators' source, where a hypothesis is made."""
    sources = (ROOT / "python" / "porting" / "diagnose").glob("*.py")
    words = {word for source in sources for word in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source.read_text())}
    return words - {"--"}


def test_every_cause_is_documented():
    assert written() - documented() == set()


def test_every_documented_cause_can_be_named():
    text = "".join(p.read_text() for p in (ROOT / "python" / "porting" / "diagnose").glob("*.py"))
    assert [name for name in documented() if f'"{name}"' not in text] == []


def test_all_that_is_ranked_is_documented():
    known = documented()
    for case in CASES[:40:8]:
        cause, make, port, inputs = case.values
        module = make()
        assert {r.cause for r in why(module, port(module), *inputs).ranked} <= known


def test_bfloat16_modules():
    """A fault in a bf16 module is named; a cast in another place is rounding, and is told as a fact."""
    module = drawn(RMSNorm(), scale=1.0).bfloat16()
    x = X.bfloat16()
    assert why(module, changed(module, weight=(module.weight + 1)), x).cause == "weight-plus-one"

    def cast_last(x):
        wide = x.float()
        return (module.weight.float() * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.eps))).bfloat16()

    diagnosis = why(module, cast_last, x)
    assert diagnosis.cause == "rounding" and "cast-order" in [r.cause for r in diagnosis.also]


def test_test_layer_says_why(tmp_path):
    module = drawn(nn.Sequential(nn.Linear(24, 24), nn.LayerNorm(24)))
    with torch.no_grad(), porting.ActivationCollector(module, tmp_path / "c"):
        module(X)
    port = changed(module, **{"1__bias": torch.zeros(24)})[1]
    with porting.open(tmp_path / "c") as capture, pytest.raises(porting.ParityError, match="bias-missing") as failure:
        porting.test_layer(port, capture, "1")
    assert failure.value.diagnosis.cause == "bias-missing"
    report = porting.compare(tmp_path / "c", {"1": port})
    assert report.cause.cause == "bias-missing"
    report.to_html(tmp_path / "r.html")
    assert "bias-missing" in (tmp_path / "r.html").read_text()


def test_the_op_inside_is_named(tmp_path):
    """A composite's fault is carried down to the op; with the port's tensors inside, to the ops between those that agree."""
    model = drawn(nn.Sequential(Block(), Block(), PostBlock()))
    wrong = changed(model)
    wrong[1].forward = lambda x: torch.tanh(wrong[1].fc(wrong[1].norm(x)))
    for name, module in (("reference", model), ("port", wrong)):
        with torch.no_grad(), porting.ActivationCollector(module, tmp_path / name):
            module(X)
    cause = porting.compare(tmp_path / "reference", tmp_path / "port").cause
    assert (cause.module, cause.cause) == ("1", "addend-missing") and cause.op.startswith("op 6 aten.add 2x6x24")
    assert "inside 1: op 6" in str(cause) and cause.to_dict()["op"] == cause.op
    # a fault before a module inside, of a kind that nothing names: told by the ops between
    wrong[1].forward = lambda x: x + torch.tanh(wrong[1].fc(torch.sin(3 * wrong[1].norm(x))))
    with torch.no_grad(), porting.ActivationCollector(wrong, tmp_path / "other"):
        wrong(X)
    cause = porting.compare(tmp_path / "reference", tmp_path / "other").cause
    assert (cause.module, cause.cause) == ("1", "unknown") and "1.fc.in.0 is the first tensor inside that differs" in cause.op


def test_a_value_changed_in_place_is_left_alone():
    """An op in place on a memory that a view shows: the faults around it are named all the same."""
    class Scatter(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(24, 24)

        def forward(self, x):
            y = x * 2
            y[..., :4] += 1
            return self.fc(torch.tanh(y))

    module = drawn(Scatter())
    assert "weight-transposed" in [why(module, changed(module, fc__weight=module.fc.weight.t()), X).cause]
    assert why(module, lambda x: module.fc(torch.sigmoid(torch.cat([2 * x[..., :4] + 1, 2 * x[..., 4:]], -1))), X).cause == "activation"


def test_a_program_by_itself(tmp_path):
    """A recorded program is a reference too, with its capture or with its parameters given."""
    module = drawn(Block())
    with torch.no_grad(), porting.ActivationCollector(module, tmp_path / "c"):
        module(X)
    with torch.no_grad():
        actual = changed(module, norm__weight=module.norm.weight + 1)(X)
    with porting.open(tmp_path / "c") as capture:
        program = capture.programs[0]
        assert porting.explain(program, actual, inputs={"0": X}, capture=capture).cause == "weight-plus-one"
        assert porting.explain(program, module(X), inputs={"0": X}, capture=capture).cause == "none"
        given = {"0": X, **{name: capture.parameters[name] for name in capture.parameters}}
        assert porting.explain(program, actual, inputs=given).cause == "weight-plus-one"
        with pytest.raises(porting.PortingError, match="needs 'norm.weight'"):
            porting.explain(program, actual, inputs={"0": X})
        with pytest.raises(porting.ShapeError, match="expected shape"):
            porting.explain(program, actual[:1], inputs=given)


def own_generator():
    """The example of docs/CAUSES.md, as it stands there."""
    text = (ROOT / "docs" / "CAUSES.md").read_text()
    return text.partition("## A generator of one's own")[2].partition("```python\n")[2].partition("```")[0]


def test_the_documented_generator_works():
    """It is named where it is right, and not where it is wrong."""
    from porting.diagnose import hypothesis

    kept = list(hypothesis._generators)
    try:
        exec(own_generator(), {})
        module = drawn(nn.Sequential(nn.Linear(24, 24), nn.Tanh()))
        assert why(module, lambda x: torch.tanh(module(x)), X).cause == "tanh-twice"
        other = why(module, lambda x: torch.sin(module[0](x)), X)
        assert other.cause != "tanh-twice" and "tanh-twice" in {r.cause for r in other.ranked}
    finally:
        hypothesis._generators[:] = kept
    assert why(module, lambda x: torch.tanh(module(x)), X).cause != "tanh-twice"


def test_a_generator_that_fails_is_listed():
    from porting.diagnose import generator, hypothesis

    kept = list(hypothesis._generators)
    try:
        @generator
        def failing(case):
            raise KeyError("no such op")
            yield

        module = drawn(nn.Linear(24, 24))
        found = why(module, changed(module, weight=module.weight.t()), X)
        assert found.cause == "weight-transposed" and any("failing: KeyError" in line for line in found.not_run)
    finally:
        hypothesis._generators[:] = kept


def test_an_output_that_is_nan_is_no_scaled_or_shifted_one():
    norm, x = drawn(torch.nn.LayerNorm(16)), noise(4, 16)
    for bad in (float("nan"), float("inf")):
        diagnosis = why(norm, lambda x, bad=bad: norm(x) * bad, x)
        assert not {"output-scaled", "output-offset"} & set(causes(diagnosis)), diagnosis
    assert "output-scaled" in causes(why(norm, lambda x: norm(x) * 1.25, x))


def test_an_output_of_nan_alone_is_explained_by_nothing_that_spreads_nan():
    """The square root of what has negative numbers is NaN in every row, and so is anything: it names no cause."""
    norm, x = torch.nn.RMSNorm(32, eps=1e-6), noise(4, 32)
    found = porting.explain(norm, torch.full((4, 32), float("nan")), inputs=x)
    assert found.cause == "unknown" and "128 of 128 elements" in found.detail, found
    assert porting.explain(norm, torch.nn.functional.rms_norm(x, (32,), eps=1e-2), inputs=x).cause == "eps"


def test_explain_takes_what_a_user_has(tmp_path):
    """A function of tensors, NumPy inputs, the path of a capture, a program with a tuple; one that does not fit gets a sentence."""
    gelu, x = torch.nn.functional.gelu, torch.randn(2, 5, 8)
    assert porting.explain(lambda x: gelu(x), gelu(x, approximate="tanh"), inputs=x.numpy()).cause == "activation"
    assert porting.explain(torch.nn.GELU(), gelu(x), inputs={"input": x.numpy()}).cause == "none"
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(8)
    with torch.no_grad():
        porting.ActivationCollector(torch.nn.Sequential(norm), tmp_path / "norm.capture")(x)[1].close()
    wrong = torch.nn.functional.layer_norm(x, (8,), eps=1e-2)
    assert porting.explain("0", wrong, capture=tmp_path / "norm.capture").cause == "eps"
    with porting.open(tmp_path / "norm.capture") as capture:
        assert porting.explain(capture.programs[0], wrong, inputs=(x.numpy(),), capture=capture).cause == "eps"
        with pytest.raises(porting.PortingError, match="2 inputs given, the program of the root has 1: 0"):
            porting.explain(capture.programs[0], wrong, inputs=(x, x), capture=capture)
    half = wrong.clone()
    half[1] = float("nan")
    found = porting.explain(norm, half, inputs=x)
    assert found.cause == "unknown" and "the port has NaN or infinity in 40 of 80 elements where the reference has numbers" in found.detail
