"""A capture's tensors as one file: .safetensors, .npz or .pt. Nothing is held in memory but one tensor at a time (.pt: all)."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import DTYPES, DtypeError
from .places import check_place, make_way

if TYPE_CHECKING:
    from .capture import Capture

SUFFIXES = (".safetensors", ".npz", ".pt")
NPZ_DTYPES = frozenset(DTYPES) - {"BF16", "F8_E4M3", "F8_E5M2"}


def save(capture: Capture, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Writes every tensor of the capture under its full name. See `Capture.save`."""
    target = os.fspath(path)
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{target}: the file's name must end in {', '.join(SUFFIXES)}, which says how it is written")
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(f"{target} exists already: give another name, or overwrite=True")
    check_place(target)
    make_way(target)
    write = {".safetensors": write_safetensors, ".npz": write_npz, ".pt": write_pt}[suffix]
    partial = f"{target}.{os.getpid()}.new"
    try:
        write(capture, partial)
        os.replace(partial, target)
    except OSError as error:
        if error.filename != partial:
            raise
        raise type(error)(error.errno, error.strerror, target) from None
    finally:
        if os.path.lexists(partial):
            os.remove(partial)


def write_safetensors(capture: Capture, path: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in capture:
        dtype, shape, _, size, *_ = capture.info(name)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in capture:
            file.write(raw_bytes(capture[name]))


def raw_bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array in row-major order."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def write_npz(capture: Capture, path: str) -> None:
    for name in capture:
        dtype = capture.info(name)[0]
        if dtype not in NPZ_DTYPES:
            raise DtypeError(f"{name} is {dtype}, which .npz files cannot hold: save as .safetensors or .pt")
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name in capture:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(capture[name]), allow_pickle=False)


def write_pt(capture: Capture, path: str) -> None:
    import torch

    torch.save(capture.to_torch(), path)
