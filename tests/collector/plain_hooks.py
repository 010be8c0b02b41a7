"""The oracle of the collector's tests: what `register_forward_hook` and `clone()` see, written without the collector's code."""
import dataclasses
import inspect
import io
from collections.abc import Mapping

import numpy as np
import torch


def tensors_in(value):
    """The tensors of a nested value, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in tensors_in(item)]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in tensors_in(item)]
    if hasattr(value, "self_attention_cache"):
        return tensors_in(value.self_attention_cache) + tensors_in(value.cross_attention_cache)
    if hasattr(value, "layers") and hasattr(value, "update"):
        return [t for layer in value.layers for t in tensors_in((layer.keys, layer.values))]
    if dataclasses.is_dataclass(value):
        return [t for field in dataclasses.fields(value) for t in tensors_in(getattr(value, field.name))]
    return []


def in_order(module, args, kwargs):
    """The given arguments in the order of forward's signature; further keyword arguments after them, sorted by name."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    extra = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is p.VAR_KEYWORD]
    values = [v for k, v in bound.items() if k not in extra]
    return values + [v for k in extra for _, v in sorted(bound.get(k, {}).items())]


class PlainHooks:
    """`seen[path]` is a list of calls, each (inputs, outputs): lists of clones."""

    def __init__(self, model, prefix=""):
        self.seen = {}
        self.handles = []
        self.open = []
        for path, module in model.named_modules(prefix=prefix):
            self.handles.append(module.register_forward_pre_hook(self.before(path), with_kwargs=True))
            self.handles.append(module.register_forward_hook(self.after, with_kwargs=True))

    def before(self, path):
        def hook(module, args, kwargs):
            entry = [clones(in_order(module, args, kwargs)), None]
            self.seen.setdefault(path, []).append(entry)
            self.open.append(entry)

        return hook

    def after(self, module, args, kwargs, output):
        self.open.pop()[1] = clones(output)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()


def clones(value):
    return [t.detach().clone() for t in tensors_in(value)]


def same_bits(array, tensor):
    """True if shape, dtype and every bit agree."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = {"float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}.get(str(tensor.dtype)[6:], str(tensor.dtype)[6:])
    if array.shape != tuple(tensor.shape) or array.dtype.name != name:
        return False
    data = tensor.contiguous().flatten()
    return np.ascontiguousarray(array).tobytes() == (data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")


def differences(capture, seen):
    """Where a capture is not what plain hooks saw; [] if it is the same, bit for bit, and has nothing more."""
    found = []
    for path, calls in seen.items():
        captured = capture.calls(path)
        if len(captured) != len(calls):
            found.append(f"{path}: {len(captured)} calls, not {len(calls)}")
            continue
        for call, (inputs, outputs) in zip(captured, calls):
            for phase, leaves, expected in (("in", call.inputs, inputs), ("out", call.outputs, outputs)):
                if len(leaves) != len(expected):
                    found.append(f"{call} {phase}: {list(leaves)} for {len(expected)} tensors")
                found += [f"{call.full_name(phase, leaf)} differs"
                          for leaf, tensor in zip(leaves, expected) if not same_bits(leaves[leaf], tensor)]
    found += [f"{path} was captured but not called" for path in {c.module for c in capture.call_list} - set(seen)]
    return found


def bits(value):
    """All bits of a nested output."""
    stream = io.BytesIO()
    for tensor in tensors_in(value):
        stream.write(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        stream.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return stream.getvalue()


def randomise(model, seed=0):
    """Every parameter and floating buffer gets random values: nothing may hide behind ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + (0.5 if tensor.dim() == 1 else 0.0))
    return model.eval()


def num_hooks(model):
    """Number of hooks on all modules of a model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called) for m in model.modules())
