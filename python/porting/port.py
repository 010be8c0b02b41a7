"""Ports: whatever turns a module's inputs into outputs, seen as arrays under the names of the capture.

Two forms: *named arrays* that another process wrote (a capture, .npz, .npy and .safetensors files, a mapping), and *callables* that
are run here on the captured inputs. This file brings both to NumPy arrays; it compares nothing. torch is used if the port uses it, and never imported.
"""
from __future__ import annotations

import functools
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._core import DtypeError, FormatError, PortingError

# ---------------------------------------------------------------- arrays


def as_array(value: Any, what: str = "value") -> np.ndarray:
    """A NumPy array of a NumPy or torch tensor, a NumPy scalar, a Python number or a nested list of them.

    bf16 and f8 torch tensors become ml_dtypes arrays. Memory is shared where it can be. Raises DtypeError for what is no tensor.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "detach") and hasattr(value, "numpy"):
        array = _from_torch(value)
    elif isinstance(value, (bool, int, float, complex, np.generic)) or (isinstance(value, (list, tuple)) and value is not None):
        array = np.asarray(value)
    elif hasattr(value, "__array__"):  # JAX and others
        array = np.asarray(value)
    else:
        raise DtypeError(f"{what} is no tensor: expected an array or a torch tensor, got {type(value).__name__}")
    if array.dtype.kind in "OSUMm":
        raise DtypeError(f"{what} is no tensor: its dtype is {array.dtype}")
    if array.dtype == np.complex128:
        raise DtypeError(f"{what} is complex128; complex64 is the only complex dtype")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _from_torch(tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    names = {"torch.bfloat16": ("bfloat16", torch.uint16), "torch.float8_e4m3fn": ("float8_e4m3fn", torch.uint8),
             "torch.float8_e5m2": ("float8_e5m2", torch.uint8)}
    if str(tensor.dtype) in names:
        import ml_dtypes

        name, raw = names[str(tensor.dtype)]
        return tensor.contiguous().view(raw).numpy().view(getattr(ml_dtypes, name))
    return tensor.numpy()


def to_torch(array: np.ndarray) -> Any:
    """A torch tensor with a copy of the array's data: the port may change it."""
    import torch

    raw = {"bfloat16": (np.uint16, torch.bfloat16), "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn), "float8_e5m2": (np.uint8, torch.float8_e5m2)}
    if array.dtype.name in raw:
        unsigned, dtype = raw[array.dtype.name]
        return torch.from_numpy(np.array(array).view(unsigned)).view(dtype)
    return torch.from_numpy(np.array(array))


def flatten(value: Any, path: str = "") -> dict[str, np.ndarray]:
    """Leaf path to array of what a module or callable returned, by the rules of docs/FORMAT.md section 6.

    A single tensor is "0"; tuples and lists are numbered; mappings, dataclasses and objects with `_fields` use their keys. None is left out.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, (tuple, list)) and not _is_numbers(value):
        items = zip(value._fields, value) if hasattr(value, "_fields") and not path else enumerate(value)
    elif hasattr(value, "__dataclass_fields__"):
        items = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
    else:
        return {path or "0": as_array(value, f"output {path or '0'}")}
    found: dict[str, np.ndarray] = {}
    for key, item in items:
        if item is not None and not isinstance(item, str):
            found.update(flatten(item, f"{path}.{key}" if path else str(key)))
    return found


def _is_numbers(value: Any) -> bool:
    return bool(value) and all(isinstance(item, (bool, int, float, complex)) for item in value)


# ---------------------------------------------------------------- callables


def wants_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: this port is given torch tensors instead of NumPy arrays. (A torch.nn.Module always is.)"""

    @functools.wraps(function)
    def port(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    port.wants_torch = True  # type: ignore[attr-defined]
    return port


def _is_module(port: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(port, torch.nn.Module)


def place_values(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Place to value, in order: a tensor, or a tuple or dict of tensors where the place held a nested value."""
    grouped: dict[str, dict[str, Any]] = {}
    for path, array in leaves.items():
        place, _, rest = path.partition(".")
        grouped.setdefault(place, {})[rest] = array
    return {place: _nest(group) for place, group in sorted(grouped.items(), key=lambda item: _place_order(item[0]))}


def _place_order(place: str) -> tuple[int, int, str]:
    return (0, int(place), "") if place.isdecimal() else (1, 0, place)


def _nest(group: dict[str, Any]) -> Any:
    if list(group) == [""]:
        return group[""]
    inner: dict[str, dict[str, Any]] = {}
    for path, array in group.items():
        key, _, rest = path.partition(".")
        inner.setdefault(key, {})[rest] = array
    values = {key: _nest(item) for key, item in inner.items()}
    return tuple(values[key] for key in sorted(values, key=int)) if all(key.isdecimal() for key in values) else values


def run_port(port: Callable[..., Any], call: Any) -> dict[str, np.ndarray]:
    """What the port returns for the inputs of one captured call: leaf path to array.

    A function whose parameters are named as the reference's gets the captured arguments by name. Any other gets them positionally in
    order of place, None and numbers in theirs; what no tensor is in is left out if it takes fewer. Arrays are NumPy's. A torch.nn.Module, or
    a port marked by `wants_torch`, gets torch tensors; a module gets those by the names of its parameters where it has them, with the
    numbers, strings and None that were captured too. A port with a method `run_call(call)` runs the call by itself.
    """
    if hasattr(port, "run_call"):
        return port.run_call(call)
    torch_tensors = _is_module(port) or getattr(port, "wants_torch", False)
    leaves = {path: to_torch(array) if torch_tensors else array for path, array in call.inputs.items()}
    places = place_values(leaves)
    if _is_module(port):
        args, kwargs = _module_arguments(port, places, call)
    else:
        args, kwargs = _function_arguments(port, places, call)
    if not torch_tensors:
        return flatten(port(*args, **kwargs))
    import torch

    with torch.no_grad():
        return flatten(port(*args, **kwargs))


def _function_arguments(port: Callable[..., Any], places: dict[str, Any], call: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional or keyword arguments for a function."""
    names = call.input_names
    arguments = call.arguments
    values = {place: places[place] if place in places else arguments.get(name) for place, name in names.items()}
    values.update({place: value for place, value in places.items() if place not in values})
    order = sorted(values, key=_place_order)
    try:
        parameters = list(inspect.signature(port).parameters.values())
    except (TypeError, ValueError):
        return [values[place] for place in order if place in places], {}
    by_name = {names[place]: values[place] for place in order if place in names}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if named and len(by_name) == len(order) and all(name in by_name for name in needed) and any(p.name in by_name for p in named):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = {p.name for p in named}
        return [], {name: value for name, value in by_name.items() if takes_any or name in known}
    room = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(order) <= room:
        return [values[place] for place in order], {}
    given = [place for place in order if place in places]
    if len(given) > room:
        words = ", ".join(names.get(place, place) for place in order)
        raise PortingError(f"the port takes {room} arguments, the call had {words}; give its parameters the reference's names to choose among them")
    return [values[place] for place in given], {}


def _module_arguments(port: Any, places: dict[str, Any], call: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments for a module's forward."""
    parameters = inspect.signature(port.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = call.input_names
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for place, value in places.items():
        name = names.get(place)
        if name in parameters and parameters[name].kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            kwargs[name] = value
        elif not kwargs:
            args.append(value)
        elif takes_any and name:
            kwargs[name] = value
    arguments = call.arguments
    for name, value in kwargs.items():
        if "Cache" in str(getattr(arguments.get(name), "class_name", "")):
            kwargs[name] = _cache(value)
    for name, value in arguments.items():
        plain = value is None or isinstance(value, (bool, int, float, str))
        if name not in kwargs and name in parameters and plain and not (args and list(parameters).index(name) < len(args)):
            kwargs[name] = value
    return args, kwargs


def _cache(layers: Any) -> Any:
    """A transformers DynamicCache of captured keys and values: the object itself was not kept, what it held was."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for i, layer in enumerate(layers if isinstance(layers, tuple) else ()):
        if isinstance(layer, dict) and {"key", "value"} <= layer.keys():
            cache.update(layer["key"], layer["value"], i)
    return cache


# ---------------------------------------------------------------- files

SUFFIXES = (".npz", ".npy", ".safetensors")


class NamedArrays(Mapping[str, np.ndarray]):
    """Arrays by name from files, loaded when asked for. `name in port` and iteration read no data."""

    def __init__(self, loaders: dict[str, Callable[[], np.ndarray]]) -> None:
        self._loaders = loaders

    def __getitem__(self, name: str) -> np.ndarray:
        return self._loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


def open_files(path: str | os.PathLike[str]) -> NamedArrays:
    """Arrays of a .npz, .npy or .safetensors file, or of all such files in a folder.

    A .npy file holds the tensor that its file name (without .npy) names; the others hold names of their own. Raises FormatError
    (not such a file, or the same name twice), FileNotFoundError.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(2, "no such file or folder", path)
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(SUFFIXES))
        if not files:
            raise FormatError(f"{path}: neither a capture nor a folder with .npz, .npy or .safetensors files")
    loaders: dict[str, Callable[[], np.ndarray]] = {}
    for file in files:
        for name, loader in _names_of(file):
            if name in loaders:
                raise FormatError(f"{file}: {name} is in another file of this folder too")
            loaders[name] = loader
    return NamedArrays(loaders)


def _names_of(file: str) -> list[tuple[str, Callable[[], np.ndarray]]]:
    if file.endswith(".npy"):
        return [(os.path.basename(file)[:-4], lambda: _load_npy(file))]
    if file.endswith(".npz"):
        return _npz_names(file)
    if file.endswith(".safetensors"):
        return _safetensors_names(file)
    raise FormatError(f"{file}: expected a name that ends with {', '.join(SUFFIXES)}")


def _load_npy(file: str) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{file}: not a .npy file of numbers: {error}") from None


def _npz_names(file: str) -> list[tuple[str, Callable[[], np.ndarray]]]:
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise FormatError(f"{file}: not a .npz file: {error}") from None

    def load(name: str) -> np.ndarray:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return archive[name]
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise FormatError(f"{file}: {name}: {error}") from None

    return [(name, lambda name=name: load(name)) for name in names]


_SAFETENSORS = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
                "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8"}
_EXTENDED = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def _safetensors_names(file: str) -> list[tuple[str, Callable[[], np.ndarray]]]:
    size = os.path.getsize(file)
    try:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= size - 8:
                raise ValueError(f"its header of {length} bytes does not fit in {size}")
            header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        names = []
        for name, entry in header.items():
            if name == "__metadata__" or name.startswith("__pad__."):
                continue
            names.append((name, _safetensors_loader(file, 8 + length, size, name, entry)))
        return names
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{file}: not a safetensors file: {error}") from None


def _safetensors_loader(file: str, start: int, size: int, name: str, entry: Any) -> Callable[[], np.ndarray]:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name}: shape and offsets must be integers that are not negative")
    kind = entry["dtype"]
    if kind in _EXTENDED:
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, _EXTENDED[kind]))
    elif kind in _SAFETENSORS:
        dtype = np.dtype(_SAFETENSORS[kind])
    else:
        raise ValueError(f"{name}: unknown dtype {kind!r}")
    if end - begin != math.prod(shape) * dtype.itemsize or start + end > size:
        raise ValueError(f"{name}: {kind} {list(shape)} does not fit its bytes {begin} to {end}")

    def load() -> np.ndarray:
        raw = np.memmap(file, np.uint8, "r", start + begin, (end - begin,)) if end > begin else np.empty(0, np.uint8)
        return np.asarray(raw).view(dtype).reshape(shape)

    return load


def open_port(port: Any) -> Mapping[str, Any] | Any:
    """A path as a capture (a directory with MANIFEST.json) or as files; everything else as it is. Raises PortingError, OSError."""
    if isinstance(port, (str, os.PathLike)):
        if os.path.isdir(port) and (os.path.exists(os.path.join(port, "MANIFEST.json")) or os.path.isdir(os.path.join(port, "rank00000"))):
            from .capture import open as open_capture

            return open_capture(port)
        return open_files(port)
    if isinstance(port, Mapping):
        return port
    raise PortingError("expected a capture, a folder, a file, a mapping of names to arrays or of module patterns to callables,"
                       f" got {type(port).__name__}")
