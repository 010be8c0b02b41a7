"""Proposals: found by values, never taken for granted, and none where the values do not say it."""
import numpy as np
import porting
import pytest
import torch
from porting.interop.layout import parse
from porting.interop.propose import propose_layout, propose_pairs

RNG = np.random.default_rng(5)
CUBE = RNG.standard_normal((6, 6, 6)).astype(np.float32)  # shapes tell nothing
X = RNG.standard_normal((2, 5, 24)).astype(np.float32)
HEADS = X.reshape(2, 5, 4, 6).transpose(0, 2, 1, 3)
PAIRS = X.reshape(2, 5, 4, 2, 3).swapaxes(3, 4).reshape(2, 5, 24)
NAMES = ("port", "ref")


@pytest.mark.parametrize(("port", "ref"), [
    (CUBE.transpose(2, 0, 1), CUBE), (CUBE.transpose(0, 2, 1), CUBE), (HEADS, X), (X, HEADS), (X[:1].reshape(1, 1, 5, 24), X[:1]), (X.swapaxes(1, 2), X),
    (X.reshape(2, 5, 4, 6).swapaxes(2, 3).reshape(2, 5, 24), X), (PAIRS, X), (X, PAIRS), (X.reshape(10, 24), X), (X.reshape(10, 24).T, HEADS),
    (X.astype(np.float16).swapaxes(0, 1), X), (X.swapaxes(1, 2) * np.float32(1.01), X),
])
def test_the_layout_that_the_values_say_is_proposed_and_fits(port, ref):
    port = np.ascontiguousarray(port)
    proposal = propose_layout(port, ref, NAMES)
    assert proposal is not None and not proposal.also, proposal
    found, = parse(proposal.layout).apply([port], [ref.shape])
    assert np.abs(found.astype(np.float64) - ref).max() <= 0.011 * np.abs(ref).max()
    exact = np.array_equal(found, ref)
    assert (proposal.equal == 1.0) == exact and (proposal.close == 1.0) == exact


@pytest.mark.parametrize(("port", "ref"), [
    (RNG.standard_normal((6, 6, 6)).astype(np.float32), CUBE),  # another tensor
    (CUBE, CUBE), (CUBE + np.float32(0.001), CUBE),  # nothing to propose
    (np.zeros_like(HEADS), X), (np.full_like(X, np.nan), X), (X[::-1].swapaxes(1, 2).copy(), X),
    (np.arange(24).reshape(2, 12), np.arange(24).reshape(12, 2)),  # integers
    (X, X[:, :4]),
])
def test_nothing_is_proposed_where_no_layout_fits(port, ref):
    assert propose_layout(port, ref, NAMES) is None


def test_values_that_do_not_decide_are_said():
    symmetric = CUBE + CUBE.transpose(1, 0, 2)
    proposal = propose_layout(np.ascontiguousarray(symmetric.transpose(2, 0, 1)), symmetric, NAMES)
    found, = parse(proposal.layout).apply([np.ascontiguousarray(symmetric.transpose(2, 0, 1))], [symmetric.shape])
    assert np.array_equal(found, symmetric)
    both_ways = RNG.standard_normal((3, 1)).astype(np.float32) + np.zeros((1, 3), np.float32)  # rows of one value each
    assert propose_layout(np.stack([both_ways, both_ways.T]), np.stack([both_ways.T, both_ways]), NAMES) is not None
    assert propose_layout(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), NAMES) is None


def test_pairs_are_found_by_value_and_told_apart_by_name():
    reference = {f"layers.{i}.out.0": RNG.standard_normal((4, 9)).astype(np.float32) for i in range(20)}
    reference["copy.7.out.0"] = reference["layers.7.out.0"]
    reference["mask.out.0"] = np.zeros((4, 9), np.float32)
    port = {"h7": reference["layers.7.out.0"], "layer_9": reference["layers.9.out.0"].T.copy(), "zeros": np.zeros((4, 9), np.float32),
            "other": RNG.standard_normal((4, 9)).astype(np.float32)}
    found = {p.port: p for p in propose_pairs(port, port, reference, reference)}
    assert set(found) == {"h7", "layer_9"}
    assert {found["h7"].ref, *found["h7"].also} == {"layers.7.out.0", "copy.7.out.0"}
    assert found["layer_9"].ref == "layers.9.out.0" and found["layer_9"].layout is not None and not found["layer_9"].also


def test_a_report_proposes_and_does_not_pass(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh())
    with torch.no_grad():
        _, capture = porting.ActivationCollector(model, str(tmp_path / "ref.capture"))(torch.randn(6, 6))
    with capture:
        port = {name: np.ascontiguousarray(capture[name].T) for name in ("0.out.0", "1.out.0")}
        report = porting.compare(capture, port, require_coverage=False, explain=False)
        assert not report.passed and report.proposals and "layout 'a b -> b a' would make 100 % of it agree" in report.first_divergence.reason
        assert "proposed: layout 'a b -> b a'" in str(report)
        assert porting.compare(capture, port, require_coverage=False, layout="a b -> b a").passed
        with pytest.raises(porting.ParityError, match="would make 100 % of it agree"):
            porting.test_layer(lambda x: np.tanh(x).T, capture, "1")
        porting.test_layer(lambda x: np.tanh(x), capture, "1", layout="a b -> b a")  # gets it transposed, gives it transposed
        with pytest.raises(porting.ParityError):
            porting.test_layer(lambda x: np.tanh(x).T, capture, "1", layout="a b -> b a")
        with pytest.raises(porting.PortingError, match="has 3 axes"):
            porting.test_layer(lambda x: np.tanh(x), capture, "1", layout="a b c -> b a c")


FUSED = [
    ("end to end", lambda q, k, v: np.concatenate([q, k, v], -1), "a b x+y+z -> a b x, a b y, a b z"),
    ("in another order, without the batch", lambda q, k, v: np.concatenate([v, k, q], -1)[0], "a x+y+z -> 1 a x, 1 a y, 1 a z"),
    ("head by head", lambda q, k, v: np.concatenate([x.reshape(1, 6, 4, 3, 8)[:, :, :, i] for x in (np.stack([q.reshape(1, 6, 4, 8), k.reshape(1, 6, 4, 8), v.reshape(1, 6, 4, 8)], 3),)
                                                     for i in range(3)], -1).reshape(1, 6, 96), "a b (h=4 z d) -> 1 b (h d)"),
]


@pytest.mark.parametrize("how, fuse, layout", FUSED, ids=[row[0] for row in FUSED])
def test_a_fused_tensor_is_taken_apart(tmp_path, how, fuse, layout):
    """The row that is proposed, used as it is, makes all three bit-equal; a tensor that is none of them is not drawn in."""
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (torch.nn.Linear(32, 32) for _ in range(4))

        def forward(self, x):
            return self.o(torch.softmax(self.q(x) @ self.k(x).mT, -1) @ self.v(x))

    torch.manual_seed(1)
    with torch.no_grad():
        _, capture = porting.ActivationCollector(torch.nn.ModuleList([Attention()])[0], tmp_path / "c")(torch.randn(1, 6, 32))
    q, k, v = (np.array(capture[f"{name}.out.0"]) for name in "qkv")
    port = {"fused": fuse(q, k, v), "o.out.0": np.array(capture["o.out.0"]), "out.0": np.array(capture["out.0"])}
    report = porting.compare(capture, port)
    found = next(p for p in report.proposals if p.port == "fused")
    assert sorted(found.refs) == ["k.out.0", "q.out.0", "v.out.0"] and found.equal == 1.0 and not report.passed
    assert len(found.layout.split(",")) == (1 if how == "head by head" else 3)
    assert "fused has its values" in next(row.reason for row in report.rows if row.name == "k.out.0")
    (tmp_path / "names.toml").write_text(found.to_toml())
    assert porting.compare(capture, port, names=str(tmp_path / "names.toml")).passed
    port["fused"] = port["fused"] + np.float32(3)
    assert not [p for p in porting.compare(capture, port).proposals if p.port == "fused"]
    capture.close()


def test_a_search_that_was_ended_is_a_warning(tmp_path, monkeypatch):
    from porting.interop import propose

    with torch.no_grad():
        _, capture = porting.ActivationCollector(torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4))), tmp_path / "c")(torch.randn(8, 8))
    port = {name: np.array(array.T) for name, array in capture.items() if ".out." in name}
    def ended(port):  # such a dump of outputs alone is also told how it is judged
        return [text for text in porting.compare(capture, port, require_coverage=False).warnings if "more may fit" in text]

    assert not ended(port)
    monkeypatch.setattr(propose, "MAX_LAYOUTS", 2)
    monkeypatch.setattr(propose.Search.__init__, "__defaults__", (2,))
    assert ended(port) == ["layouts were looked for in the first 2 refused tensors only: more may fit"]
    monkeypatch.setattr(propose, "MAX_PAIRS", 1)
    renamed = {f"t{i}": np.array(capture[name]) for i, name in enumerate(port)}
    assert ended(renamed) and all(text.startswith("the search for names by values was ended early") for text in ended(renamed))
    capture.close()
