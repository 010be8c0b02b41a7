"""Every kernel as a function: `porting.ops.softmax(x, dim=-1)`, with torch's names and torch's order of arguments.

NumPy arrays come back as NumPy arrays, torch tensors as torch tensors; torch is never imported. What a function computes is what torch computes on
this machine, bit for bit where `porting ops` says EXACT: under the capability, threads and mkldnn flag of the torch that is loaded, else of this
CPU with one thread. `profile=` chooses another way (docs/NUMERICS.md section 8). Nothing approximate is ever chosen unasked: `rsqrt(x, mode="newton1")`.

The functions are made from one table: the signatures of the C core's handlers, and below them those that torch writes differently.
"""
from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core, ops_table
from ._core import DtypeError, ShapeError, UnsupportedError
from .environment import CAPABILITIES
from .port import as_array, to_torch
from .profiles import settings
from .providers import use_provider
from .widening import rounded_once, widen_array

#: Handlers that are no functions of torch's: of views and copies NumPy has its own, and what creates memory needs none of ours.
_LEFT_OUT = frozenset(
    "alias as_strided clone contiguous convolution copy detach empty empty_like empty_strided lift_fresh log_sigmoid_forward max_pool2d_with_indices"
    " max_pool3d_with_indices native_batch_norm native_group_norm native_layer_norm new_empty new_full new_ones new_zeros scalar_tensor"
    " unsafe_split view view_as constant_pad_nd grid_sampler_2d".split()
)
_NEEDS_TENSOR = frozenset({("max.other", "other"), ("min.other", "other")})  # max(x, 1) is the maximum along dimension 1
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
           "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}  # fmt: skip
_WORDS = {"T": "array", "N": "array or number", "L": "list of arrays", "O": "list of arrays or None", "I": "int", "A": "int or ints", "S": "number", "C": "number", "F": "float",
          "B": "bool", "D": "dtype", "s": "str"}  # fmt: skip
RSQRT_MODES = ("ieee", "correct", "rsqrtss", "newton1", "newton2", "vml")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument of a handler. kind: a letter of csrc/program/args.c; default: inspect.Parameter.empty if it has to be given."""

    kind: str
    name: str
    optional: bool
    named_only: bool
    default: Any


@dataclasses.dataclass(frozen=True)
class Form:
    """One overload: its ATen name, its arguments, the kernel it launches or None."""

    aten: str
    parameters: tuple[Parameter, ...]
    kernel: str | None


# ---------------------------------------------------------------- signatures


def _default(text: str) -> Any:
    plain = {"None": None, "True": True, "False": False, "[]": []}
    if text in plain:
        return plain[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse(signature: str) -> tuple[Parameter, ...]:
    """The arguments of a signature in the core's form; those that only say where memory lies are left out."""
    found, named = [], False
    for part in signature.split(","):
        words = part.split()
        if words and words[0] == "*":
            named = True
            words = words[1:]
        if not words:
            continue
        kind, (name, _, default) = words[0], words[1].partition("=")
        if kind[0] not in "myvp":
            has = "=" in words[1]
            found.append(Parameter(kind[0], "input" if name == "self" else name, "?" in kind, named, _default(default) if has else inspect.Parameter.empty))
    return tuple(found)


@functools.cache
def _forms() -> dict[str, tuple[Form, ...]]:
    """Name of a function to its overloads, of all handlers that are not left out."""
    found: dict[str, list[Form]] = {}
    for aten in _core.known_ops():
        _, base, overload = aten.split(".")
        if base.startswith("_") or base.endswith("_") or base in _LEFT_OUT:
            continue
        signature, kernel = _core.op_signature(aten)
        found.setdefault(base, []).append(Form(aten, parse(signature), kernel))
    return {name: tuple(sorted(forms, key=lambda form: not form.aten.endswith(".default"))) for name, forms in found.items()}


# ---------------------------------------------------------------- binding


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or (hasattr(value, "detach") and hasattr(value, "numpy")) or (
        hasattr(value, "__array__") and not isinstance(value, (list, tuple)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _fits(form: Form, parameter: Parameter, value: Any) -> bool:
    kind = parameter.kind
    if value is None:
        return parameter.optional
    if kind == "N":
        return _is_tensor(value) or (_is_number(value) and (form.aten.removeprefix("aten."), parameter.name) not in _NEEDS_TENSOR)
    tests: dict[str, Callable[[], bool]] = {
        "T": lambda: _is_tensor(value), "S": lambda: _is_number(value), "C": lambda: _is_number(value), "F": lambda: _is_number(value), "B": lambda: isinstance(value, bool),
        "I": lambda: _is_int(value), "A": lambda: _is_int(value) or (isinstance(value, (list, tuple)) and all(map(_is_int, value))),
        "L": lambda: isinstance(value, (list, tuple)) and all(map(_is_tensor, value)),
        "O": lambda: isinstance(value, (list, tuple)) and all(v is None or _is_tensor(v) for v in value),
        "s": lambda: isinstance(value, str), "D": lambda: _dtype_name(value) is not None,
    }  # fmt: skip
    return tests[kind]()


def _bind(form: Form, args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """(positional, named) arguments of the handler, or None if they do not fit it."""
    places = [p for p in form.parameters if not p.named_only]
    if len(args) > len(places):
        return None
    given = dict(zip((p.name for p in places), args))
    if set(given) & set(keywords) or set(keywords) - {p.name for p in form.parameters}:
        return None
    given.update(keywords)
    positional, named = [], {}
    for p in form.parameters:
        value = given.get(p.name, p.default)
        if value is inspect.Parameter.empty:
            if not p.optional:
                return None
            value = None
        if p.name in given and not _fits(form, p, value):
            return None
        if p.named_only:
            if p.name in given:
                named["self" if p.name == "input" else p.name] = value
        else:
            positional.append(value)
    return positional, named


def _dtype_name(dtype: Any) -> str | None:
    """safetensors' name of a torch or NumPy dtype or of a dtype's name; None if it is none."""
    text = str(dtype).removeprefix("torch.")
    if text in _DTYPES or text in _DTYPES.values():
        return _DTYPES.get(text, text)
    try:
        return _DTYPES.get(np.dtype(dtype).name)
    except TypeError:
        return None


# ---------------------------------------------------------------- calling


def _state() -> dict[str, Any]:
    """How the torch of this process computes, if one is loaded; else as it would on this CPU with one thread."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        name = torch.backends.cpu.get_cpu_capability()
        mkldnn = bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
        return {"capability": CAPABILITIES.get(name, "default"), "num_threads": torch.get_num_threads(), "mkldnn": mkldnn}
    features = set(_core.show_config()["cpu_features"])
    level = "avx512" if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= features else "avx2" if {"avx2", "fma"} <= features else "default"
    wanted = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()
    order = ("default", "avx2", "avx512")
    return {"capability": min(wanted, level, key=order.index) if wanted in order else level, "num_threads": 1, "mkldnn": True}


def _converted(value: Any, wide: bool) -> Any:
    if _is_tensor(value):
        array = as_array(value)
        return widen_array(array) if wide else array
    if isinstance(value, (list, tuple)):
        return [_converted(v, wide) for v in value]
    return int(value) if isinstance(value, np.integer) else value


def run(aten: str, args: Sequence[Any], keywords: Mapping[str, Any] | None = None, *, profile: str | None = None, variant: str | None = None,
        provider: str = "auto") -> Any:
    """One ATen op on arrays or tensors; what comes back is of the kind of the first tensor given."""
    keywords = keywords or {}
    use_provider(provider)
    chosen = settings(profile, {}, provider) if profile in ("golden", "strict") else None
    if chosen is not None:
        options = chosen.options
    else:
        options = {**_state(), "provider": provider}
        if profile is not None:
            settings(profile, {}, provider)  # refuses a name that is none
            options["operands"] = None if profile == "as-captured" else profile
    if variant is not None:
        options["variant"] = variant
    named = {k: {"dtype": _dtype_name(v)} if k == "dtype" and v is not None else v for k, v in keywords.items()}

    def call(wide: bool) -> Any:
        try:
            return _core.call_op(aten, [_converted(a, wide) for a in args], {k: _converted(v, wide) for k, v in named.items()}, **options)
        except UnsupportedError:
            if options.get("variant") not in ("golden", "strict"):  # asked for by a profile, where an op has no such kernel its own one stands
                raise
            return _core.call_op(aten, [_converted(a, wide) for a in args], {k: _converted(v, wide) for k, v in named.items()}, **{**options, "variant": "ref"}
                                 if not wide else {k: v for k, v in options.items() if k != "variant"})  # fmt: skip

    found = call(False)
    if chosen is not None and chosen.wide:
        found = _each(lambda narrow, wide: rounded_once(wide, narrow.dtype), found, call(True))
    tensors = [a for value in (*args, *keywords.values()) for a in (value if isinstance(value, (list, tuple)) else [value]) if _is_tensor(a)]
    return _each(to_torch, found) if tensors and hasattr(tensors[0], "detach") else found


def _each(function: Callable, value: Any, *others: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(function(*parts) for parts in zip(value, *others))
    return function(value, *others)


def _call(name: str, args: tuple[Any, ...], keywords: dict[str, Any], profile: str | None) -> Any:
    forms = _forms()[name]
    for form in forms:
        bound = _bind(form, args, keywords)
        if bound is not None:
            return run(form.aten, *bound, profile=profile)
    given = ", ".join([*(type(a).__name__ for a in args), *(f"{k}={type(v).__name__}" for k, v in keywords.items())])
    raise TypeError(f"{name}({given}) fits none of its forms: {'; '.join(_words(name, form) for form in forms)}")


def _words(name: str, form: Form) -> str:
    parts, star = [], False
    for p in form.parameters:
        if p.named_only and not star:
            parts.append("*")
            star = True
        parts.append(p.name + (f"={p.default!r}" if p.default is not inspect.Parameter.empty else "=None" if p.optional else ""))
    return f"{name}({', '.join(parts)})"


def _promise(kernels: Sequence[str | None]) -> str:
    """What the kernels of a function promise, per dtype."""
    rows = [row for row in ops_table.rows() if row.op in kernels and not any((row.op, v) in ops_table.NAMED for v in row.variants)]
    return ", ".join(f"{row.dtype} {row.label}" for row in rows)


def _generic(name: str) -> Callable:
    forms = _forms()[name]

    def function(*args: Any, profile: str | None = None, **keywords: Any) -> Any:
        return _call(name, args, keywords, profile)

    kinds = {p.name: _WORDS[p.kind] + (" or None" if p.optional else "") for form in reversed(forms) for p in form.parameters}
    lines = [f"As torch.{name}. {'Forms' if len(forms) > 1 else 'Form'}: {'; '.join(_words(name, form) for form in forms)}.", "", "Parameters", "----------"]
    lines += [f"{argument} : {words}" for argument, words in kinds.items()]
    lines += ["profile : None (as torch on this machine), 'golden', 'strict', or operands of products in 'tf32', 'bf16', 'f16', 'q8_0'", "",
              "Shapes broadcast and dtypes are promoted as in torch. Arrays come back as arrays, torch tensors as torch tensors.",
              "Raises TypeError for arguments that fit no form, ShapeError, DtypeError, UnsupportedError for a dtype without a kernel."]  # fmt: skip
    promise = str(ops_table.HANDLERS.get(name, "")) or _promise([form.kernel for form in forms])
    function.__doc__ = "\n".join([*lines, *(["", f"Bits: {promise}."] if promise else [])])
    function.__name__ = function.__qualname__ = name
    return function


# ---------------------------------------------------------------- those that torch writes differently

_special: dict[str, Callable] = {}


def _function(*kernels: str) -> Callable[[Callable], Callable]:
    """Puts a function into the table and completes its docstring."""

    def add(function: Callable) -> Callable:
        name = function.__name__.rstrip("_")
        function.__name__ = function.__qualname__ = name
        function._kernels = kernels  # type: ignore[attr-defined]
        _special[name] = function
        return function

    return add


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape)


def _need(name: str, argument: str, value: Any, *ndims: int) -> None:
    if not _is_tensor(value):
        raise TypeError(f"{name}: {argument} is {type(value).__name__}, expected an array")
    if ndims and len(_shape(value)) not in ndims:
        raise ShapeError(f"{name}: {argument} has shape {_shape(value)}, expected {' or '.join(map(str, ndims))} dimensions")


@_function("softmax")
def softmax(input: Any, dim: int, dtype: Any = None, *, profile: str | None = None) -> Any:
    """exp(x) / sum of exp(x) along `dim`. input : any shape. dtype : cast to it first. Returns the shape of input."""
    _need("softmax", "input", input)
    return run("aten._softmax.default", [_cast(input, dtype), dim, False], profile=profile)


@_function("log_softmax")
def log_softmax(input: Any, dim: int, dtype: Any = None, *, profile: str | None = None) -> Any:
    """log of softmax along `dim`. input : any shape. dtype : cast to it first. Returns the shape of input."""
    _need("log_softmax", "input", input)
    return run("aten._log_softmax.default", [_cast(input, dtype), dim, False], profile=profile)


def _cast(value: Any, dtype: Any) -> Any:
    if dtype is None:
        return value
    if _dtype_name(dtype) is None:
        raise DtypeError(f"{dtype!r} is no dtype; there are {', '.join(_DTYPES)}")
    return run("aten._to_copy.default", [value], {"dtype": dtype})


@_function("cast")
def to(input: Any, dtype: Any) -> Any:
    """Another dtype, as torch converts it. input : any shape. dtype : of torch, of NumPy, or a name ("bfloat16")."""
    _need("to", "input", input)
    return _cast(input, dtype)


@_function("gelu")
def gelu(input: Any, *, approximate: str = "none", profile: str | None = None) -> Any:
    """x times the normal distribution function, by erf ("none") or its tanh formula ("tanh"). input : any shape."""
    _need("gelu", "input", input)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is {approximate!r}, expected 'none' or 'tanh'")
    return run("aten.gelu.default", [input], {"approximate": approximate}, profile=profile)


@_function("rsqrt")
def rsqrt(input: Any, mode: str = "ieee", *, profile: str | None = None) -> Any:
    """1 / sqrt(x). input : any shape; modes other than "ieee" float32 only.

    mode : "ieee" (square root and quotient rounded each, as torch computes it), "correct" (rounded once), "rsqrtss" (this CPU's approximation),
    "newton1", "newton2" (one and two Newton steps from it), "vml" (the quotient of MKL's square root)
    """
    _need("rsqrt", "input", input)
    if mode not in RSQRT_MODES:
        raise ValueError(f"rsqrt: mode is {mode!r}, expected one of {', '.join(RSQRT_MODES)}")
    if mode == "vml":
        return run("aten.reciprocal.default", [run("aten.sqrt.default", [input], provider="torch")], profile=profile)
    if mode != "ieee" and profile is not None:
        raise ValueError(f"rsqrt: mode {mode!r} is a way of its own; it cannot be combined with profile {profile!r}")
    return run("aten.rsqrt.default", [input], profile=profile, variant=None if mode == "ieee" else mode)


@_function("layer_norm")
def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *, profile: str | None = None) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias. input : (..., *normalized_shape). weight, bias : normalized_shape or None."""
    _need("layer_norm", "input", input)
    shape = [normalized_shape] if _is_int(normalized_shape) else list(normalized_shape)
    return run("aten.layer_norm.default", [input, shape, weight, bias, float(eps)], profile=profile)


@_function("rms_norm")
def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None, *, profile: str | None = None) -> Any:
    """x / sqrt(mean of squares + eps) * weight. input : (..., *normalized_shape). weight : normalized_shape or None. eps None: that of the dtype."""
    _need("rms_norm", "input", input)
    shape = [normalized_shape] if _is_int(normalized_shape) else list(normalized_shape)
    return run("aten.rms_norm.default", [input, shape, weight, eps], profile=profile)


@_function("group_norm")
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *, profile: str | None = None) -> Any:
    """Layer norm over groups of channels. input : (N, C, ...), C a multiple of num_groups. weight, bias : (C,) or None."""
    _need("group_norm", "input", input, 2, 3, 4, 5)
    n, c, *space = _shape(input)
    if num_groups < 1 or c % num_groups:
        raise ShapeError(f"group_norm: {c} channels cannot be divided into {num_groups} groups")
    return run("aten.native_group_norm.default", [input, weight, bias, n, c, int(np.prod(space)), num_groups, float(eps)], profile=profile)[0]


@_function("batch_norm")
def batch_norm(input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5, *, profile: str | None = None) -> Any:  # fmt: skip
    """(x - running_mean) / sqrt(running_var + eps) * weight + bias per channel. input : (N, C, ...), the others (C,). Inference only."""
    _need("batch_norm", "input", input)
    if training:
        raise UnsupportedError("batch_norm: training changes the running statistics, which a function cannot; use training=False")
    return run("aten._native_batch_norm_legit_no_training.default", [input, weight, bias, running_mean, running_var, float(momentum), float(eps)], profile=profile)[0]


@_function("gemm")
def linear(input: Any, weight: Any, bias: Any = None, *, profile: str | None = None) -> Any:
    """x @ weight.T + bias. input : (..., K). weight : (N, K). bias : (N,) or None. Returns (..., N)."""
    _need("linear", "input", input)
    _need("linear", "weight", weight, 2)
    return run("aten.linear.default", [input, weight, bias], profile=profile)


@_function("gemm", "bmm")
def matmul(input: Any, other: Any, *, profile: str | None = None) -> Any:
    """The product of matrices. input : (..., M, K). other : (K, N) or (..., K, N) with the same leading dimensions. Returns (..., M, N)."""
    _need("matmul", "input", input, *range(2, 9))
    _need("matmul", "other", other, *range(2, 9))
    a, b = _shape(input), _shape(other)
    left, right = as_array(input), as_array(other)  # NumPy's reshape keeps strides where torch's does: the order of a sum follows them
    if len(b) == 2:
        made = run("aten.mm.default", [left.reshape(int(np.prod(a[:-1])), a[-1]), right], profile=profile)
    elif a[:-2] != b[:-2]:
        raise ShapeError(f"matmul: leading dimensions of {a} and {b} differ; expand one of them first")
    else:
        count = int(np.prod(a[:-2]))
        made = run("aten.bmm.default", [left.reshape(count, *a[-2:]), right.reshape(count, *b[-2:])], profile=profile)
    made = made.reshape(*a[:-1], b[-1])
    return to_torch(made) if hasattr(input, "detach") else made


@_function("sdpa_flash")
def scaled_dot_product_attention(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, *,
                                 scale: float | None = None, enable_gqa: bool = False, profile: str | None = None) -> Any:  # fmt: skip
    """softmax(q k^T scale + mask) v, as torch's flash kernel computes it on the CPU.

    query : (B, H, T, D). key, value : (B, H, S, D); with enable_gqa (B, G, S, D), H a multiple of G. attn_mask : bool (False hides) or float (added),
    broadcast to (B, H, T, S). scale : 1 / sqrt(D) by default. Returns (B, H, T, D)
    """
    name = "scaled_dot_product_attention"
    for argument, array in (("query", query), ("key", key), ("value", value)):
        _need(name, argument, array, 4)
    if dropout_p:
        raise UnsupportedError(f"{name}: dropout_p is {dropout_p}; what is dropped is random, which no kernel here is")
    if is_causal and attn_mask is not None:
        raise ValueError(f"{name}: attn_mask and is_causal cannot both be given")
    heads, groups = _shape(query)[1], _shape(key)[1]
    if heads != groups and not enable_gqa:
        raise ShapeError(f"{name}: query has {heads} heads, key {groups}; enable_gqa=True lets groups of heads share keys")
    if attn_mask is not None and as_array(attn_mask).dtype == bool:
        kind = as_array(query).dtype
        attn_mask = np.where(as_array(attn_mask), np.zeros((), kind), np.asarray(-np.inf, kind))
    args = [query, key, value, 0.0, is_causal]
    return run("aten._scaled_dot_product_flash_attention_for_cpu.default", args, {"attn_mask": attn_mask, "scale": scale}, profile=profile)[0]


@_function("embedding")
def embedding(input: Any, weight: Any, padding_idx: int | None = None, *, profile: str | None = None) -> Any:
    """Rows of a table. input : integers of any shape, 0 to V - 1. weight : (V, D). Returns (*input.shape, D). padding_idx says nothing here."""
    _need("embedding", "input", input)
    _need("embedding", "weight", weight, 2)
    return run("aten.embedding.default", [weight, input, -1 if padding_idx is None else padding_idx], profile=profile)


def _convolution(name: str, space: int) -> Callable:
    def function(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
                 profile: str | None = None) -> Any:  # fmt: skip
        _need(name, "input", input, space + 2)
        _need(name, "weight", weight, space + 2)
        sizes = []
        for argument, value in (("stride", stride), ("padding", padding), ("dilation", dilation)):
            sizes.append([value] * space if _is_int(value) else list(value) if isinstance(value, (list, tuple)) else None)
            if sizes[-1] is None or len(sizes[-1]) != space:
                raise TypeError(f"{name}: {argument} is {value!r}, expected an int or {space} of them")
        return run("aten.convolution.default", [input, weight, bias, *sizes, False, [0] * space, groups], profile=profile)

    function.__name__ = name
    function.__doc__ = (f"Cross-correlation over {space} dimension{'s' if space > 1 else ''}. input : (N, C, ...). weight : (O, C / groups, ...)."
                        " bias : (O,) or None. Returns (N, O, ...)")  # fmt: skip
    return _function("convolution")(function)


conv1d, conv2d, conv3d = (_convolution(f"conv{n}d", n) for n in (1, 2, 3))


@_function("max_pool")
def max_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *, profile: str | None = None) -> Any:
    """The largest of each window. input : (N, C, H, W). stride None: that of the window."""
    _need("max_pool2d", "input", input, 3, 4)
    return run("aten.max_pool2d_with_indices.default", [input, kernel_size, [] if stride is None else stride, padding, dilation, ceil_mode], profile=profile)[0]


@_function()
def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Elements added before and after the last dimensions. pad : pairs, from the last dimension on; negative ones cut off. mode : "constant" only."""
    _need("pad", "input", input)
    if mode != "constant":
        raise ValueError(f"pad: mode is {mode!r}, expected 'constant'; reflection_pad2d and replication_pad2d are functions of their own")
    return run("aten.constant_pad_nd.default", [input, list(pad), 0.0 if value is None else value])


@_function("log_sigmoid")
def logsigmoid(input: Any, *, profile: str | None = None) -> Any:
    """log(1 / (1 + exp(-x))). input : any shape."""
    _need("logsigmoid", "input", input)
    return run("aten.log_sigmoid_forward.default", [input], profile=profile)[0]


# ---------------------------------------------------------------- the table


@functools.cache
def table() -> dict[str, Callable]:
    """Name to function, of everything that is here."""
    found = {name: _generic(name) for name in _forms()}
    for name, function in _special.items():
        promise = _promise(function._kernels)  # type: ignore[attr-defined]
        if promise and "Bits:" not in (function.__doc__ or ""):
            function.__doc__ = f"{function.__doc__}\n\nBits: {promise}."
        found[name] = function
    return found


def __getattr__(name: str) -> Callable:
    found = None if name.startswith("_") else table().get(name)
    if found is None:
        if name.startswith("__"):
            raise AttributeError(name)
        from .naming import suggest

        near = suggest(name, list(table()))
        near = near if isinstance(near, str) else ", ".join(near or ())
        raise AttributeError(f"porting.ops has no function {name}{f'; did you mean {near}?' if near else ''}")
    return found  # not kept among the globals: they would hide Python's sum, max and any from this file


def __dir__() -> list[str]:
    return sorted(table())


__all__ = ["table"]  # the functions are found by name: dir(porting.ops) lists them
