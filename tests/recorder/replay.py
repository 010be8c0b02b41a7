"""A test's own view of recorded programs: plain hooks that drive a Recorder, and an interpreter that runs programs with torch.

The interpreter shares no code with porting: it calls torch.ops.aten.<op> one by one on what the hooks cloned.
"""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from porting.recorder import Recorder, pattern_of

DTYPES = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
          "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}  # fmt: skip
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last, "preserve": torch.preserve_format}


def leaves_of(value, path=""):
    """(path, tensor) of nested values: mappings, sequences, dataclasses and caches."""
    if isinstance(value, torch.Tensor):
        return [(path or "0", value)]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif hasattr(value, "self_attention_cache"):
        items = [("self", value.self_attention_cache), ("cross", value.cross_attention_cache)]
    elif hasattr(value, "layers") and not isinstance(value, torch.nn.Module):
        items = [(i, {"key": layer.keys, "value": layer.values}) for i, layer in enumerate(value.layers)
                 if getattr(layer, "keys", None) is not None]  # fmt: skip
    else:
        return []
    return [leaf for k, v in items for leaf in leaves_of(v, f"{path}.{k}" if path else str(k))]


def plain_of(value):
    """What is not a tensor in the arguments, for the pattern."""
    if isinstance(value, dict):
        return {k: plain_of(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_of(v) for v in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__


@dataclasses.dataclass
class CallRecord:
    inputs: dict
    outputs: dict


class Harness:
    """Hooks every module of `root`, clones what goes in and out, and drives a Recorder (recorder=None: clones alone)."""

    def __init__(self, root: torch.nn.Module, *, record=True, share=False, restore=True):
        self.root = root
        self.constants: dict[str, torch.Tensor] = {}
        self.parameters = {n: p.detach().clone() for n, p in [*root.named_parameters(), *root.named_buffers()]}
        self._names = {}
        for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
            self._names.setdefault(id(tensor), (name, tensor))
        self.recorder = Recorder(self.store, self.parameter_name) if record else None
        self.share = share
        self.calls: dict[tuple[str, int], CallRecord] = {}
        self.roots: dict[tuple[str, int], list] = {}  # an outermost call -> the calls inside it, in order
        self.counts: dict[str, int] = {}
        self.handles = []
        self.open = []

    def store(self, tensor):
        for name, known in self.constants.items():
            if known.dtype == tensor.dtype and known.shape == tensor.shape and torch.equal(known, tensor):
                return name
        name = f"const:{len(self.constants)}"
        self.constants[name] = tensor.detach().clone()
        return name

    def parameter_name(self, tensor):
        known = self._names.get(id(tensor))
        return known[0] if known is not None and known[1] is tensor else None

    @contextlib.contextmanager
    def quiet(self):
        with torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
            yield

    def before(self, name):
        def hook(module, args, kwargs):
            call = self.counts.get(name, 0)
            self.counts[name] = call + 1
            leaves = leaves_of({**dict(enumerate(args)), **kwargs})
            with self.quiet():
                self.calls[name, call] = CallRecord({p: t.clone() for p, t in leaves}, {})
            outermost = not self.open
            self.open.append((name, call))
            self.roots.setdefault(self.open[0], []).append((name, call))
            if self.recorder is not None:
                if outermost:
                    with self.quiet():
                        pattern = pattern_of(leaves, (name, plain_of(dict(enumerate(args)) | kwargs))) if self.share else None
                    self.recorder.begin(name, call, pattern)
                self.recorder.enter(name, call, leaves)

        return hook

    def after(self, name):
        def hook(module, args, kwargs, output):
            while self.open[-1][0] != name:
                self.open.pop()
            _, call = self.open.pop()
            leaves = leaves_of(output)
            if self.recorder is not None:
                self.recorder.exit(name, call, leaves)
                if not self.open:
                    self.recorder.end()
            with self.quiet():
                self.calls[name, call].outputs = {p: t.clone() for p, t in leaves}

        return hook

    def __enter__(self):
        for name, module in self.root.named_modules():
            self.handles.append(module.register_forward_pre_hook(self.before(name), with_kwargs=True))
            self.handles.append(module.register_forward_hook(self.after(name), with_kwargs=True))
        return self

    def __exit__(self, kind, *_):
        if kind is not None and self.recorder is not None:
            self.recorder.abandon()
        self.open.clear()
        for handle in self.handles:
            handle.remove()


# ---------------------------------------------------------------- the interpreter


def _decode(value, tensors, symbols):
    if isinstance(value, dict):
        (key, inner), = value.items()
        if key == "v":
            return tensors[inner]
        if key == "list":
            return [_decode(x, tensors, symbols) for x in inner]
        if key == "sym":
            return inner[0] + sum(a * symbols[name] for a, name in inner[1])
        return {"dtype": DTYPES.get, "device": torch.device, "float": float, "layout": lambda n: getattr(torch, n),
                "memory_format": FORMATS.get}[key](inner)  # fmt: skip
    return value


def _flat(result):
    if isinstance(result, (list, tuple)):
        return [x for item in result for x in _flat(item)]
    return [result]


def replay(program, module, feeds, symbols=()):
    """Runs the ops of one module entry; `feeds`: value -> tensor. Returns all values."""
    tensors = dict(feeds)
    names = dict(zip(program["symbols"], symbols))
    for name, args, kwargs, outputs, *_ in program["ops"][module["begin"] : module["end"]]:
        namespace, op, overload = name.split(".")
        func = getattr(getattr(getattr(torch.ops, namespace), op), overload)
        result = func(*[_decode(a, tensors, names) for a in args], **{k: _decode(a, tensors, names) for k, a in kwargs.items()})
        if outputs:
            for number, tensor in zip(outputs, _flat(result), strict=True):
                if number is not None:
                    tensors[number] = tensor
    return tensors


def like(shape_strides, tensor):
    """A copy of `tensor` with the strides that the program's value had (they can decide the bits)."""
    _, shape, strides, _ = shape_strides
    if list(tensor.shape) != shape or 0 in strides or tensor.numel() == 0:
        return tensor.clone()
    return torch.empty_strided(shape, strides, dtype=tensor.dtype).copy_(tensor)


def check(harness, *, complete=True):
    """Replays every module call of every recorded root call and compares its outputs bit for bit. Returns the number of calls;
    complete: that must be all calls that the hooks saw."""
    checked = 0
    for program in harness.recorder.programs():
        assert "reason" not in program, program["reason"]
        for root_call in program["calls"]:
            order: dict[str, list[int]] = {}
            for name, call in harness.roots[program["root"], root_call]:
                order.setdefault(name, []).append(call)
            places: dict[str, int] = {}
            for module in sorted(program["modules"], key=lambda m: m["call"]):
                name = module["name"]
                place = places[name] = places.get(name, -1) + 1
                record = harness.calls[name, order[name][place]]
                check_call(harness, program, module, record, program["call_symbols"].get(str(root_call), ()))
                checked += 1
    assert checked and (not complete or checked == len(harness.calls))
    return checked


def check_call(harness, program, module, record, symbols=()):
    assert "reason" not in module, module
    feeds = {int(v): harness.parameters[name].clone() for v, name in program["parameters"].items()}
    feeds |= {int(v): harness.constants[name].clone() for v, name in program["constants"].items()}
    feeds |= {int(v): harness.constants[name].clone() for v, name in module.get("captured", {}).items()}
    feeds |= {v: like(program["values"][v], record.inputs[path]) for path, v in module["inputs"].items()}
    with torch.no_grad():
        values = replay(program, module, feeds, symbols)
    for path, expected in record.outputs.items():
        assert path in module["outputs"], (module["name"], path)
        actual = values[module["outputs"][path]]
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, (module["name"], path)
        assert same_bits(actual, expected), (module["name"], module["call"], path)


def same_bits(a, b):
    def raw(t):
        return t.detach().contiguous().flatten().view(torch.uint8)

    return a.shape == b.shape and a.dtype == b.dtype and bool((raw(a) == raw(b)).all())


def randomise(model, seed=0):
    """Every parameter and floating buffer gets random values, so that no term of the arithmetic is trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and "inv_freq" not in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + ("norm" in name.lower() or "var" in name))
                if "var" in name:
                    tensor.abs_().add_(0.1)
    return model.eval()
