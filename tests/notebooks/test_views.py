"""What captures, module trees, reports and diagnoses show in a notebook, and the plot and the widget of a report."""
from html.parser import HTMLParser

import matplotlib
import numpy as np
import porting
import pytest
import torch
from porting.diagnose.explain import explain
from porting.report import Report, Row
from porting.tree import ModuleTree

matplotlib.use("Agg")
VOID = {"br", "img", "hr", "input"}


class Balanced(HTMLParser):
    """Collects the text, and fails on a tag that is closed wrongly."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.text, self.tags = [], "", []
        self.feed(html)
        self.close()
        assert self.stack == [], f"not closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> where {self.stack} is open"

    def handle_data(self, data):
        self.text += data


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(12)
        self.act = torch.nn.GELU()

    def forward(self, x):
        return self.act(self.norm(x)) + x


def model():
    torch.manual_seed(2)
    net = torch.nn.Sequential(torch.nn.Linear(12, 12), Inner(), Inner(), torch.nn.Linear(12, 4)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return net


def capture(path, net):
    with porting.ActivationCollector(net, path, program="all"), torch.no_grad():
        for seed in range(2):
            net(torch.randn(5, 12, generator=torch.Generator().manual_seed(seed)))
    return porting.open(path)


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    wrong = model()
    wrong[1].act = torch.nn.GELU(approximate="tanh")
    with capture(folder / "ref.capture", model()) as ref, capture(folder / "port.capture", wrong) as port:
        yield ref, port


@pytest.fixture(scope="module")
def report(captures):
    return porting.compare(*captures, mode="chained")


def test_a_capture_and_its_modules(captures):
    ref, _ = captures
    page = Balanced(ref._repr_html_())
    assert "18 calls of 9 modules in 2 steps" in page.text and "ref.capture" in page.text
    tree = Balanced(ref.modules._repr_html_())
    assert [line for line in str(ref.modules).splitlines()][:4] == [
        "(root) (Sequential, 2 calls)", "  0 (Linear, 2 calls): in_features=12, out_features=12, bias=True", "  1 (Inner, 2 calls)",
        "    norm (LayerNorm, 2 calls): (12,), eps=1e-05, elementwise_affine=True, bias=True"]
    assert tree.tags.count("details") == 3 and "act (GELU" in tree.text
    assert ref.modules == dict(ref.modules) and list(ref.modules)[:3] == ["", "0", "1"]
    call = Balanced(ref.call("1.norm", 1)._repr_html_())
    assert "1.norm@1.in.0" in call.text and "F32[5, 12]" in call.text


def test_a_tree_without_a_root_and_with_gaps():
    class Info:
        class_name, calls, extra_repr = "Thing<b>", (0,), ""

    tree = ModuleTree({name: Info() for name in ("model", "model.a.b", "model.a.b.c", "other", "<script>")})
    assert str(tree).splitlines() == ["model (Thing<b>)", "  a.b (Thing<b>)", "    c (Thing<b>)", "other (Thing<b>)", "<script> (Thing<b>)"]
    page = Balanced(tree._repr_html_())
    assert "script" not in page.tags and "b" not in page.tags and "<script>" in page.text
    assert str(ModuleTree()) == "" and Balanced(ModuleTree()._repr_html_()).text == ""


def test_a_report(report):
    page = Balanced(report._repr_html_())
    assert "FAILED" in page.text and "first divergence: 1.act.out.0" in page.text and "last good before it: 1.norm.out.0" in page.text
    assert "activation" in page.text and page.tags.count("tr") == 1 + sum(not row.passed for row in report.rows)


def test_a_report_escapes_what_files_say():
    row = Row("<img src=x onerror=alert(1)>", "<b>", 0, 0, "<i>", "missing", reason="<script>alert(1)</script>")
    page = Balanced(Report([row], 1)._repr_html_())
    assert not {"img", "script", "i"} & set(page.tags) and "<script>" in page.text
    assert Balanced(Report([], 0)._repr_html_()).text.startswith("FAILED")


def test_a_diagnosis(captures):
    ref, port = captures
    diagnosis = explain("1.act", port["1.act.out.0"], capture=ref)
    page = Balanced(diagnosis._repr_html_())
    assert page.text.startswith("activation") and "hypotheses tried" in page.text
    assert page.tags.count("tr") == 1 + min(20, len(diagnosis.ranked))


def test_the_plot(report, tmp_path):
    axes = report.plot()
    points = sum(len(collection.get_offsets()) for collection in axes.collections)
    assert points == sum(row.status == "compared" for row in report.rows) and axes.get_yscale() == "log"
    first = next(i for i, row in enumerate(report.rows) if row is report.first_divergence)
    assert list(axes.lines[0].get_xdata()) == [first, first]
    axes.figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 2000
    assert report.plot(axes, metric="max_abs").get_ylabel() == "max_abs"
    with pytest.raises(ValueError, match="no metric 'colour'"):
        report.plot(metric="colour")
    Report([], 0).plot()


def test_the_widget(report):
    widget = report.explore()
    assert len(widget.rows) == len(report.rows) and widget.selected == ""
    first = widget.rows[[row["name"] for row in widget.rows].index("1.act.out.0")]
    assert first["band"] == "red" and not first["passed"] and first["metrics"]["num_unequal"] > 0
    assert all(isinstance(value, (int, float, str, list, type(None))) for value in first["metrics"].values())
    assert not any(isinstance(v, np.generic) for v in first["metrics"].values())
