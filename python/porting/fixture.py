"""One module call as a folder that can be sent to somebody: `porting fixture CAPTURE MODULE -o DIR`.

    inputs.safetensors, expected.safetensors, parameters.safetensors     the tensors, under their names in the capture
    reference.capture/                                                   the same and the module's own program, as a capture
    program.json                                                         that program, to read
    main.c, Makefile                                                     a C port to fill in, which compares itself through csrc/porting.h
    check.py                                                             runs porting.check, then a Python port to fill in
    README.md                                                            what is what, and how to run it

It reads the capture and writes files; it runs nothing and needs no torch.
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from . import _core, naming
from .export import raw_bytes
from .judging import CallJudge, class_name_of
from .places import check_place
from .program import NoProgramError, find_interval
from .tolerance import UNIT_ROUNDOFF, Tolerance

_TEMPLATES = ("main.c", "Makefile", "check.py", "README.md")


def make_fixture(capture: Any, module: str, directory: str | os.PathLike[str], *, call: int = 0) -> dict[str, Any]:
    """Writes the fixture of one captured call.

    Parameters
    ----------
    capture : an opened Capture. module : its path, or a unique part as `Capture.resolve_module` takes it. call : number of its call
    directory : the folder to create

    Returns
    -------
    dict : {"path", "module", "call", "bytes", "program": number of ops, or None and "reason" why there is no program}

    Raises
    ------
    LayerNotFoundError : no such module or call. FileExistsError : the folder is there already. PortingError : the call did not return a tensor
    """
    found = capture.call(module, call)
    if not len(found.outputs):
        raise _core.PortingError(f"{found.module or 'the root'} call {call} returned no tensor that was captured: there is nothing to compare with")
    directory = os.path.abspath(os.fspath(directory))
    if os.path.lexists(directory):
        raise FileExistsError(17, "exists already: give another folder", directory)
    check_place(directory, folder=True)
    os.makedirs(directory)
    try:
        return _write(capture, found, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _write(capture: Any, call: Any, directory: str) -> dict[str, Any]:
    program, reason = None, None
    try:
        program = slice_program(capture, call)
    except NoProgramError as error:
        reason = str(error)
    parameters = _parameter_names(capture, call.module, program)
    inputs = {call.full_name("in", leaf): array for leaf, array in call.inputs.items()}
    expected = {call.full_name("out", leaf): array for leaf, array in call.outputs.items()}
    values = {name: capture.parameters[name] for name in parameters}
    for name, tensors in (("inputs", inputs), ("expected", expected), ("parameters", values)):
        write_safetensors(tensors, os.path.join(directory, f"{name}.safetensors"))
    limits = write_capture(capture, call, program, parameters, os.path.join(directory, "reference.capture"))
    if program is not None:
        with open(os.path.join(directory, "program.json"), "w", encoding="utf-8") as file:
            json.dump(_document(program), file, indent=1)
    _write_templates(capture, call, values, limits, reason, directory)
    size = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(directory) for name in names)
    return {"path": directory, "module": call.module, "call": call.number, "bytes": size, "program": None if program is None else len(program["ops"]),
            "reason": reason}


# ---------------------------------------------------------------- the program of one call


def _renumbered(argument: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(argument, dict):
        if "v" in argument:
            return {"v": numbers[argument["v"]]}
        return {key: _renumbered(value, numbers) for key, value in argument.items()}
    return [_renumbered(value, numbers) for value in argument] if isinstance(argument, (list, tuple)) else argument


def _values_of(argument: Any) -> list[int]:
    if isinstance(argument, dict):
        return [argument["v"]] if "v" in argument else [v for value in argument.values() for v in _values_of(value)]
    return [v for value in argument for v in _values_of(value)] if isinstance(argument, (list, tuple)) else []


def slice_program(capture: Any, call: Any) -> dict[str, Any]:
    """The program of one call alone, in the form of docs/PROGRAM.md, its values numbered from 0. Raises NoProgramError."""
    program, interval, root_call = find_interval(capture, call)
    ops = program.ops[interval.begin: interval.end]
    used: dict[int, None] = dict.fromkeys([*interval.inputs.values(), *interval.outputs.values()])
    for op in ops:
        used.update(dict.fromkeys([*_values_of(op[1]), *_values_of(op[2]), *(v for v in op[3] if isinstance(v, int))]))
    numbers = {old: new for new, old in enumerate(sorted(used))}
    entry = {
        "root": call.module, "calls": [call.number], "values": [program.values[old] for old in numbers],
        "ops": [[op[0], _renumbered(op[1], numbers), _renumbered(op[2], numbers), [numbers.get(v) for v in op[3]], *op[4:]] for op in ops],
        "parameters": {str(numbers[v]): name for v, name in program.parameters.items() if v in numbers},
        "constants": {str(numbers[v]): name for v, name in program.constants.items() if v in numbers},
        "modules": [{"name": call.module, "call": call.number, "begin": 0, "end": len(ops),
                     "inputs": {leaf: numbers[v] for leaf, v in interval.inputs.items()},
                     "outputs": {leaf: numbers[v] for leaf, v in interval.outputs.items()},
                     "captured": {str(numbers[v]): name for v, name in interval.captured.items() if v in numbers}}],
    }  # fmt: skip
    if program.symbols:
        entry["symbols"] = program.symbols
        entry["recorded_symbols"] = program._entry.get("recorded_symbols", [])
        entry["call_symbols"] = {str(call.number): program.call_symbols.get(root_call, [])}
    return entry


def _document(program: dict[str, Any]) -> dict[str, Any]:
    return {"format": "porting.program", "version": 1, "programs": [program]}


def _parameter_names(capture: Any, module: str, program: dict[str, Any] | None) -> list[str]:
    """Stored parameters that the program uses, and those below the module's path."""
    used = dict.fromkeys(program["parameters"].values()) if program is not None else {}
    prefix = f"{module}." if module else ""
    used.update(dict.fromkeys(name for name in capture.parameters if name.startswith(prefix)))
    return [name for name in used if name in capture.parameters]


# ---------------------------------------------------------------- files


def write_safetensors(tensors: Mapping[str, np.ndarray], path: str) -> None:
    """One .safetensors file. Names as given, data row-major."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        header[name] = {"dtype": dtype_name(array), "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(raw_bytes(array))


_DTYPES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64", "uint64": "U64",
           "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
           "complex64": "C64"}


def dtype_name(array: np.ndarray) -> str:
    """safetensors' name of an array's dtype."""
    return _DTYPES[array.dtype.name]


def with_strides(array: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
    """The same values with the strides (in elements) of the captured process: they can decide the bits that a reference computes. The
    array itself where these would need far more memory than its elements do."""
    if array.size == 0 or array.ndim == 0 or any(s < 0 for s in strides):
        return array
    extent = 1 + sum((n - 1) * s for n, s in zip(array.shape, strides))
    if extent * array.itemsize > 4 * array.nbytes + (16 << 20):
        return array
    memory = np.zeros(extent, array.dtype)
    view = np.lib.stride_tricks.as_strided(memory, array.shape, tuple(s * array.itemsize for s in strides))
    view[...] = array
    return view if np.array_equal(np.asarray(view).view(np.uint8) if view.flags.c_contiguous else np.ascontiguousarray(view).view(np.uint8),
                                  np.ascontiguousarray(array).view(np.uint8)) else array


def write_capture(capture: Any, call: Any, program: dict[str, Any] | None, parameters: list[str], path: str) -> dict[str, tuple[float, float]]:
    """The call as a capture with the module as its root. Returns leaf path of each output to (the greatest err/(u s) that is rounding, u).

    An output's scale s is stored as `scale:<full name>`, where it has one; port_compare takes it.
    """
    structures = {(module, number, phase): text for module, number, _, phase, text, _ in capture._open_reader.calls()}
    writer = _core.Writer(path)
    limits: dict[str, tuple[float, float]] = {}
    stored: dict[str, int] = {}

    def put(name: str, tensor_id: int) -> int:
        strides = capture._open_reader.info(tensor_id)[2]
        return writer.put(with_strides(capture._array(tensor_id), strides), name)

    try:
        for phase, number in (("in", 0), ("out", 1)):
            ids = {leaf: put(call.full_name(phase, leaf), i) for leaf, i in call.leaf_ids(phase).items()}
            stored.update({call.full_name(phase, leaf): i for leaf, i in ids.items()})
            text = structures.get((call.module, call.number, number))
            if text is not None:
                writer.call(call.module, call.number, call.number, number, text, list(ids.values()))
        for name in parameters:
            writer.name(f"param:{name}", put(name, capture.tensor_id(f"param:{name}")))
        for name in _tensors_of(program):
            if name not in stored:
                writer.name(name, put(name, capture.tensor_id(name)))
        for leaf, (scale, unit, limit) in conditions(capture, call).items():
            writer.add(f"scale:{call.full_name('out', leaf)}", scale)
            limits[leaf] = (limit, unit)
        if program is not None:
            with open(os.path.join(path, "program.json"), "w", encoding="utf-8") as file:
                json.dump(_document(program), file)
        writer.close(json.dumps(_manifest(capture, call, parameters)))
    except BaseException:
        writer.abort()
        raise
    return limits


def _tensors_of(program: dict[str, Any] | None) -> list[str]:
    """Names of the tensors of the capture that the program needs besides inputs and parameters."""
    if program is None:
        return []
    return list(dict.fromkeys([*program["constants"].values(), *program["modules"][0]["captured"].values()]))


def _manifest(capture: Any, call: Any, parameters: list[str]) -> dict[str, Any]:
    info = capture.modules.get(call.module)
    class_name = class_name_of(capture, call.module)
    entries = capture.manifest.get("parameters", {}).get("entries", {})
    listed = {name: {**entries[name], "same_as": None} for name in parameters if isinstance(entries.get(name), dict)}
    return {
        "format": "porting.capture", "version": 1, "finished": True, "world_size": 1, "creator": "porting fixture",
        "model": {"class": class_name, "roots": {call.module: {"class": class_name}}},
        "environment": capture.environment, "options": {"fixture_of": capture.manifest.get("model", {}).get("class", "")},
        "modules": [{"name": call.module, "class": class_name, "aliases": [], "training": getattr(info, "training", None),
                     "extra_repr": getattr(info, "extra_repr", ""), "captured": True}],
        "parameters": {"stored": True, "checkpoint": None, "entries": listed},
    }  # fmt: skip


def conditions(capture: Any, call: Any) -> dict[str, tuple[np.ndarray, float, float]]:
    """Leaf path of each floating output to (condition scale of its shape, unit roundoff, greatest err/(u s) that `auto` accepts)."""
    found = {}
    auto = Tolerance.auto()
    judge = CallJudge(capture, call, auto)
    for leaf, expected in call.outputs.items():
        if expected.dtype.name not in UNIT_ROUNDOFF or expected.dtype.kind == "c":
            continue
        scale, terms, kappa = judge.condition(leaf, expected)
        s, u = auto.scale_of(expected, kind=judge.kind, terms=terms, scale=scale, kappa=kappa)
        if s is not None:
            limit = auto.greatest_accepted(judge.kind, expected.dtype.name, terms=terms, scale=scale, kappa=kappa)
            found[leaf] = (np.ascontiguousarray(np.broadcast_to(np.asarray(s, np.float64), expected.shape)), u, limit)
    return found


# ---------------------------------------------------------------- text


def _write_templates(capture: Any, call: Any, parameters: Mapping[str, np.ndarray], limits: Mapping[str, tuple[float, float]], reason: str | None, directory: str) -> None:
    import jinja2

    def tensors(phase: str, leaves: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        names = call.input_names if phase == "in" else {}
        return [{"leaf": leaf, "name": call.full_name(phase, leaf), "what": f"{dtype_name(array)} {list(array.shape)}",
                 "argument": names.get(leaf.split(".")[0], ""), "limit": limits.get(leaf, (-1.0, 0.0))[0], "unit": limits.get(leaf, (-1.0, 0.0))[1]}
                for leaf, array in leaves.items()]  # fmt: skip

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters.update(c=c_string, comment=comment, repr=repr)
    facts = {
        "module": call.module, "label": naming.full_name(call.module, call.number, "out", "").removesuffix(".").removesuffix(".out") or "(root)",
        "class_name": class_name_of(capture, call.module), "call": call.number, "reason": reason,
        "inputs": tensors("in", call.inputs), "outputs": tensors("out", call.outputs),
        "parameters": [{"name": f"param:{name}", "what": f"{dtype_name(array)} {list(array.shape)}"} for name, array in parameters.items()],
    }  # fmt: skip
    folder = resources.files(__package__).joinpath("fixtures")
    for name in _TEMPLATES:
        text = environment.from_string(folder.joinpath(f"{name}.jinja").read_text(encoding="utf-8")).render(facts)
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


def c_string(text: str) -> str:
    """A C string literal of any text: nothing in it can end it."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()) + '"'


def comment(text: Any) -> str:
    """Text for a comment or a page: one line, printable ASCII, nothing that ends a comment or a docstring."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(text)).replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").replace('"', "'")
