"""The model that the plugin's tests capture, and its port in NumPy: right, and with one fault."""
import torch


class Block(torch.nn.Module):
    """x + down(gelu(up(norm(x))))"""

    def __init__(self, width):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, 2 * width)
        self.act = torch.nn.GELU()
        self.down = torch.nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(self.act(self.up(self.norm(x))))


class Model(torch.nn.Module):
    """Embedding, two blocks, a head."""

    def __init__(self, width=24, words=50):
        super().__init__()
        self.embed = torch.nn.Embedding(words, width)
        self.blocks = torch.nn.ModuleList([Block(width), Block(width)])
        self.head = torch.nn.Linear(width, words)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make_model():
    torch.manual_seed(11)
    return Model().eval()


def capture_to(path, model, calls=2):
    import porting

    with porting.ActivationCollector(model, path, program="all"), torch.no_grad():
        for call in range(calls):
            model(torch.arange(7 + call)[None] % 50)
    return str(path)


# What the pytester projects import, as text: a port of the linear layers and norms on NumPy arrays.
NUMPY_PORT = '''
import numpy as np
import porting

capture = porting.open({path!r})
P = capture.parameters

def linear(name):
    w, b = (P[f"{{name}}.{{leaf}}"].astype(np.float64) for leaf in ("weight", "bias"))
    return lambda x: (x @ w.T + b).astype(np.float32)

def norm(name, eps=1e-5):
    w, b = P[f"{{name}}.weight"], P[f"{{name}}.bias"]
    def forward(x):
        x = x.astype(np.float64)
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return (y * w + b).astype(np.float32)
    return forward

def build():
    names = ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"]
    return {{"blocks.0.norm": norm("blocks.0.norm"), "blocks.1.norm": norm("blocks.1.norm"), **{{name: linear(name) for name in names}}}}

def build_wrong():
    return {{**build(), "blocks.1.norm": norm("blocks.1.norm", eps=1e-3)}}

def build_unmatched():
    return {{**build(), "blocks.7.up": linear("blocks.0.up")}}

def build_raising():
    def broken(x):
        raise RuntimeError("no such kernel")
    return {{"head": broken}}

def build_error():
    raise RuntimeError("weights are elsewhere")

def build_number():
    return 3
'''
