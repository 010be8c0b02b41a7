"""What is said of an attention is true of every layer that it is said of, however heads are copied, masks are made and scales are spread."""
import porting
import pytest
import torch
import torch.nn.functional as F

POSITIONS, HEADS, GROUPS, SIZE = 12, 4, 2, 8


class Attention(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.q, self.k, self.v = (torch.nn.Linear(32, n * SIZE, bias=False) for n in (HEADS, GROUPS, GROUPS))

    def forward(self, x, mask):
        q, k, v = (f(x).view(*x.shape[:2], -1, SIZE).transpose(1, 2) for f in (self.q, self.k, self.v))
        times = HEADS // GROUPS
        k, v = (t.repeat(1, times, 1, 1) if self.kind == "tiled" else t.repeat_interleave(times, 1) for t in (k, v))
        if self.kind == "spread":
            weights = ((q * SIZE**-0.25) @ (k * SIZE**-0.25).transpose(-1, -2)).masked_fill(~mask, -1e9).softmax(-1)
            return (weights @ v).transpose(1, 2).flatten(2)
        if self.kind == "alpha":
            logits = torch.baddbmm(torch.zeros(1, 1, 1), q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2), alpha=0.25).view(-1, HEADS, *mask.shape)
            return (logits.masked_fill(~mask, -1e9).softmax(-1) @ v).transpose(1, 2).flatten(2)
        q = q * 0.5 if self.kind == "scaled" else q
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Layers(torch.nn.Module):
    def __init__(self, masks, kind="plain"):
        super().__init__()
        self.layers = torch.nn.ModuleList(Attention(kind) for _ in masks)
        self.masks = masks

    def forward(self, x):
        for layer, mask in zip(self.layers, self.masks, strict=True):
            x = x + layer(x, mask)
        return x


AT = torch.arange(POSITIONS)
CAUSAL = AT[:, None] >= AT


def window(width):
    return CAUSAL & (AT[:, None] - AT < width)


def facts_of(masks, kind="plain"):
    torch.manual_seed(0)
    with torch.no_grad():
        return porting.describe(Layers(masks, kind), torch.randn(2, POSITIONS, 32) * 2)


def test_layers_of_one_class_with_windows_of_their_own():
    found = {fact.value: fact for fact in facts_of([window(4), CAUSAL, window(6), window(4)])["sliding window"]}
    assert {value: fact.where for value, fact in found.items()} == {"4": "layers.0, layers.3", "none within 12 positions": "layers.1", "6": "layers.2"}
    assert all(fact.verified for fact in found.values())


@pytest.mark.parametrize("kind, heads, scale", [
    ("plain", "4 query heads on 2 key and value heads", "0.353553"), ("tiled", "4 query heads on 2 key and value heads, head i on i % 2", "0.353553"),
    ("scaled", "4 query heads on 2 key and value heads", "0.176777"), ("spread", "4 query heads on 2 key and value heads", "0.353553"),
    ("alpha", "4 query heads on 2 key and value heads", "0.25"),
])  # fmt: skip
def test_heads_and_scale(kind, heads, scale):
    found = facts_of([CAUSAL], kind)
    assert [fact.value for fact in found["attention heads"]] == [heads]
    assert [fact.value for fact in found["attention scale"]] == [scale]


PADDED = torch.ones(2, 1, 1, POSITIONS, dtype=torch.bool)
PADDED[1, ..., -3:] = False
LEFT = CAUSAL & PADDED.flip(-1)


@pytest.mark.parametrize("mask, value", [
    (CAUSAL, "causal"), (window(5), "causal"), (CAUSAL & PADDED, "causal and padding"), (PADDED, "padding"), (torch.ones_like(CAUSAL), "none: all positions"),
    (LEFT | ~LEFT.any(-1, keepdim=True), "causal and padding"), (CAUSAL & (AT[:, None] // 4 == AT // 4), "causal, hidden in a pattern of its own"),
    (CAUSAL & ((AT[:, None] - AT) % 2 == 0), "causal, hidden in a pattern of its own"), (CAUSAL | (AT < 4), "hidden in a pattern of its own"),
    ((AT[:, None] - AT).abs() < 3, "hidden in a pattern of its own"), (CAUSAL.T, "hidden in a pattern of its own"),
])  # fmt: skip
def test_masks(mask, value):
    found = facts_of([mask])
    assert [fact.value for fact in found["attention mask"]] == [value], found.to_text()
    assert bool(found["sliding window"]) == (value == "causal")


class Functions(torch.nn.Module):
    """Two layers of one class with other settings."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.GELU(), torch.nn.GELU(approximate="tanh")])
        self.tables = torch.nn.ModuleList([torch.nn.Embedding(20, 8), torch.nn.Embedding(30, 8)])

    def forward(self, i):
        x = self.tables[0](i) + self.tables[1](i)
        return self.layers[1](self.layers[0](x))


def test_settings_by_keyword_and_sizes_of_parameters_are_told_apart():
    with torch.no_grad():
        found = porting.describe(Functions(), torch.arange(12).reshape(2, 6))
    assert {fact.value for fact in found["activation"]} == {"erf GELU", "tanh GELU"}
    assert {fact.value for fact in found["embedding"]} == {"20 rows of 8", "30 rows of 8"}


def test_a_router_is_no_attention():
    router = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Softmax(-1))
    with torch.no_grad():
        found = porting.describe(router, torch.randn(3, 8))
        assert not found["attention scale"] and not found["attention mask"]

    class Gate(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    with torch.no_grad():
        assert not porting.describe(Gate(8, 4), torch.randn(3, 8))["attention scale"]
