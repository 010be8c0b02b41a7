"""The diagnosis of single ops: of a capture with level="op", by name and in a comparison op by op."""
import numpy as np
import porting
import pytest
import torch
from porting import ActivationCollector, compare
from torch.nn import functional as F


class Functional(torch.nn.Module):
    """Ops that no module inside surrounds."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(16, 16)
        self.change = {}

    def forward(self, x):
        y = F.gelu(self.inner(x), **self.change.get("gelu", {}))
        y = F.layer_norm(y, (16,), eps=self.change.get("eps", 1e-5)) * self.change.get("factor", 0.5)
        p = F.softmax((y @ x.transpose(1, 2)) / self.change.get("root", 4.0), -1)
        return p @ x


def captured(path, **change):
    torch.manual_seed(3)
    model, x = Functional().eval(), torch.randn(2, 5, 16)
    model.change = change
    with torch.no_grad():
        return ActivationCollector(model, path, level="op")(x)[1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with captured(tmp_path_factory.mktemp("ops") / "a") as capture:
        yield capture


FAULTS = {
    "gelu": ({"gelu": {"approximate": "tanh"}}, "activation", "aten.gelu.default"), "eps": ({"eps": 1e-2}, "eps", "aten.native_layer_norm.default"),
    "factor": ({"factor": 0.25}, "scale", "aten.mul.Tensor"), "fitted": ({"factor": 0.3}, "scale", "aten.mul.Tensor"), "root": ({"root": 16.0}, "scale", "aten.div.Tensor"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["isolated", "chained"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_first_wrong_op_has_a_cause(reference, tmp_path, fault, mode):
    change, cause, op = FAULTS[fault]
    with captured(tmp_path / "port", **change) as port:
        report = compare(reference, port, level="op", mode=mode)
    assert report.first_divergence.module.endswith(op) and report.cause.module == report.first_divergence.module
    assert cause in (report.cause.cause, *(r.cause for r in report.cause.also)), str(report.cause)
    assert report.cause.cause in report.to_text()


def test_a_right_port_has_none(reference, tmp_path):
    with captured(tmp_path / "port") as port:
        report = compare(reference, port, level="op")
        assert report.passed and report.cause is None
        assert compare(reference, port, level="op", explain=False).cause is None


def test_it_is_diagnosed_on_what_the_port_gave_it(reference):
    """A wrong op whose operands are the port's own: those of the reference would say another number."""
    port = {name: np.array(reference[name]) for name in reference}
    given, made = (next(n for n in port if f".aten.{op}" in n) for op in ("native_layer_norm", "mul.Tensor"))
    port[given] = port[given] + np.float32(0.125)
    port[made] = port[given] * np.float32(0.25)
    rows = {row.name: row for row in compare(reference, port, level="op").rows}
    assert not rows[made].passed
    del port[next(n for n in port if f"{given.rpartition('.out')[0]}.out" in n)]  # no longer the first that diverges
    port[made] = reference[given] * np.float32(0.25)
    cause = compare(reference, port, level="op").cause
    assert cause.module.endswith("mul.Tensor") and "0.25" in cause.detail and cause.residual == 0


def test_an_op_is_explained_by_its_name(reference, tmp_path):
    name = next(n for n in reference if "aten.gelu" in n)
    label = name.rpartition(".out.")[0]
    with captured(tmp_path / "port", gelu={"approximate": "tanh"}) as port:
        wrong = np.array(port[name])
    for given in (name, label):
        said = porting.explain(given, wrong, capture=reference)
        assert (said.cause, said.module) == ("activation", label)
        assert porting.explain(given, reference[name], capture=reference).cause == "none"
    with pytest.raises(porting.PortingError, match=r"expected shape \(2, 5, 16\), got \(2, 5\)"):
        porting.explain(label, wrong[..., 0], capture=reference)
    with pytest.raises(KeyError, match="op.99"):
        porting.explain("op.99.aten.gelu.default", wrong, capture=reference)


def test_a_wrong_parameter_is_named_at_its_product(reference, tmp_path):
    torch.manual_seed(3)
    model, x = Functional().eval(), torch.randn(2, 5, 16)
    with torch.no_grad():
        model.inner.weight.copy_(model.inner.weight.t().clone())
        port = ActivationCollector(model, tmp_path / "port", level="op")(x)[1]
    with port:
        cause = compare(reference, port, level="op").cause
    assert cause.cause == "weight-transposed" and "inner.weight" in cause.detail and cause.module.startswith("inner.op.")
