"""Whole programs against the model that they were recorded from: the parts `mlp`, `smollm2` and `fusion` of bench/ops.py.

Each case is a model, its inputs, and the root's program recorded from them; one side is the model's forward in torch eager, the other the program run
in C on the same tensors. The outputs must be equal bit for bit before anything is timed.
"""
import tempfile
from pathlib import Path

import numpy as np
import torch
from porting import demo, program
from porting.capture import open as open_capture
from porting.hooks import ActivationCollector

PROMPT_TOKENS = 64


class MLP(torch.nn.Module):
    """down(gelu(up(x))), the block of a BERT-like layer."""

    def __init__(self, hidden: int, expansion: int) -> None:
        super().__init__()
        self.up = torch.nn.Linear(hidden, expansion * hidden)
        self.down = torch.nn.Linear(expansion * hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


class EagerAttention(torch.nn.Module):
    """Attention as eager models of Transformers write it out: keys and values repeated for the heads of a group, scale, mask, softmax."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        weights = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5 + mask
        weights = torch.nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
        return torch.matmul(weights, v).transpose(1, 2).contiguous()


class Hidden(torch.nn.Module):
    """A model of which only the last hidden state comes out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs) -> torch.Tensor:
        return self.model(**inputs).last_hidden_state


class Logits(torch.nn.Module):
    """A causal language model of which only the logits come out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs) -> torch.Tensor:
        return self.model(**inputs).logits


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a line of the cache, as torch's own tensors do."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Case:
    """A model, the sets of inputs it is called with in turn, and its recorded program.

    Parameters
    ----------
    model : torch.nn.Module with one tensor as its output.
    calls : list of dict of keyword arguments; the program is recorded from the first one.
    fresh : function that makes such arguments usable once more (a cache is extended in place), or None.
    turning : leaf path of the input that differs from call to call to its keyword.
    """

    def __init__(self, model, calls, options, fresh=None, turning=None):
        self.model, self.calls, self.fresh, self.turning = model, calls, fresh or (lambda call: call), turning or {}
        self.options = options
        with tempfile.TemporaryDirectory(prefix="porting-bench-") as folder, torch.no_grad():
            path = Path(folder) / "capture"
            with ActivationCollector(model, path, include=r"^$", weights=True):
                model(**self.fresh(calls[0]))
            self._take(open_capture(path))

    def _take(self, capture):
        call = capture.calls("")[0]
        recorded, self.interval, _ = program.find_interval(capture, call)
        self.core = recorded.core
        feeds = program.feeds_of(capture, call, recorded, self.interval)
        self.feeds = {value: aligned(array) for value, array in feeds.items()}
        self.fetches = list(self.interval.outputs.values())[:1]
        self.symbols = recorded.call_symbols.get(recorded.calls[0], [])

    def torch(self, k: int):
        """The call's arguments are made before the clock starts; what is returned runs it."""
        call = self.fresh(self.calls[k % len(self.calls)])
        return lambda: self.model(**call)

    def ours(self, k: int, **more):
        call = self.calls[k % len(self.calls)]
        feeds = dict(self.feeds)
        for path, keyword in self.turning.items():
            feeds[self.interval.inputs[path]] = call[keyword].numpy()
        return lambda: self.core.run(self.interval.begin, self.interval.end, feeds, self.fetches, symbols=self.symbols, **self.options, **more)

    def op_by_op(self, k: int):
        """The same without fusions."""
        return self.ours(k, only=range(self.interval.begin, self.interval.end))

    def check(self) -> int:
        """Number of elements of ours, fused and op by op, that differ from torch's over all sets of inputs."""
        differ = 0
        with torch.no_grad():
            for k in range(len(self.calls)):
                expected = self.torch(k)().numpy()
                for (made,) in (self.ours(k)(), self.op_by_op(k)()):
                    differ += int((expected.view(np.int32) != made.view(np.int32)).sum())
        return differ


def mlp_cases(options, hidden=512, expansion=4, sizes=(1, 64, 1024)):
    """Name to Case for each batch size; four inputs in turn."""
    model = MLP(hidden, expansion).eval()
    for batch in sizes:
        calls = [{"x": torch.randn(batch, hidden)} for _ in range(4)]
        yield f"batch {batch}", Case(model, calls, options, turning={"0": "x"})


def smollm2_cases(options):
    """Prefill of 64 tokens and one decode step after them, with eager attention and with sdpa."""
    from transformers import DynamicCache

    model = demo.smollm2_pipeline().model.eval()
    tokens = torch.randint(0, 49152, (1, PROMPT_TOKENS + 1))
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        wrapped = Logits(model)
        yield f"prefill of {PROMPT_TOKENS}, {attention}", Case(wrapped, [{"input_ids": tokens[:, :-1], "use_cache": False}], options)
        with torch.no_grad():
            filled = model(input_ids=tokens[:, :-1], use_cache=True).past_key_values
        layers = [(layer.keys.clone(), layer.values.clone()) for layer in filled.layers]

        def fresh(call, layers=layers):
            cache = DynamicCache()
            for number, (keys, values) in enumerate(layers):
                cache.update(keys.clone(), values.clone(), number)
            return {**call, "past_key_values": cache}

        yield f"decode after {PROMPT_TOKENS}, {attention}", Case(wrapped, [{"input_ids": tokens[:, -1:], "use_cache": True}], options, fresh)


def fusion_cases(options):
    """What fusions are for: attention written out at (batch, heads, groups of them, tokens, head size), MLPs, and a whole forward with eager attention."""
    for B, H, G, T, D in ((8, 12, 12, 128, 32), (4, 12, 12, 197, 64), (1, 9, 3, 256, 64), (1, 9, 3, 512, 64), (1, 9, 3, 1024, 64), (2, 4, 4, 2048, 64)):
        mask = torch.full((B, 1, T, T), torch.finfo(torch.float32).min).triu(1)
        calls = [{name: torch.randn(B, T, n, D).transpose(1, 2) for name, n in (("q", H), ("k", G), ("v", G))} | {"mask": mask}]
        yield f"attention {B}x{H}, {T} tokens, {D}", Case(EagerAttention(), calls, options)
    for name, case in mlp_cases(options, sizes=(64, 1024)):
        yield f"MLP, {name}", case
    model = demo.minilm_pipeline().model.eval()
    model.set_attn_implementation("eager")
    ids = torch.randint(1000, 20000, (8, 128))
    yield "MiniLM, 8 x 128 tokens, eager", Case(Hidden(model), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], options)
