"""The C core. Arrays are NumPy's (bf16 and f8 through ml_dtypes); nothing here knows torch."""
from collections.abc import Buffer, Mapping, Sequence
from typing import Any

import numpy as np

class PortingError(Exception): ...
class FormatError(PortingError, ValueError): ...           # not a capture, truncated, corrupt, version
class LayerNotFoundError(PortingError, KeyError): ...      # unknown name; str() is the sentence, not its repr
class ShapeError(PortingError, ValueError): ...
class DtypeError(PortingError, TypeError): ...
class UnsupportedError(PortingError, NotImplementedError): ...  # an op or dtype without a kernel
class ClosedError(PortingError, ValueError): ...
# PORT_E_VALUE -> ValueError, PORT_E_IO -> OSError(errno, message, filename), PORT_E_EXISTS -> FileExistsError, PORT_E_NOMEM -> MemoryError

DTYPES: tuple[str, ...]  # index = dtype number, safetensors names

class Writer:
    """The C store. All methods are safe to call from any thread; copying and hashing release the GIL above 64 KiB."""
    def __init__(self, path: str, budget_bytes: int = 0, segment_bytes: int = 0, rank: int = 0) -> None: ...
    def put(self, array: np.ndarray, key: str) -> int:
        """Store the tensor (or find an equal one). Returns its id. key: name in the segment if it is new."""
    def put_pointer(self, pointer: int, dtype: int, shape: Sequence[int], strides: Sequence[int], key: str) -> int:
        """The same for memory that the caller keeps alive during the call; strides in elements."""
    def put_summary(self, pointer: int, dtype: int, shape: Sequence[int], strides: Sequence[int], key: str) -> int:
        """Store what `summarize` says of the tensor in its place."""
    def add(self, name: str, array: np.ndarray) -> int: """put + name."""
    def name(self, name: str, tensor_id: int) -> None: ...
    # name: FileExistsError if it was bound before. call: ValueError if the structure's leaves and tensor_ids differ in number, or
    # if this module, call and phase were written before. note: the text of a JSON object.
    def call(self, module: str, call: int, step: int, phase: int, structure: str, tensor_ids: Sequence[int]) -> None: ...
    def call_tensors(self, module: str, call: int, step: int, phase: int, structure: str, paths: Sequence[str],
                     tensors: Sequence[int | tuple[int, int, Sequence[int], Sequence[int]]]) -> list[int]:
        """Stores those given as (pointer, dtype, shape, strides) as put_pointer does, under the call's full names, and
        records the call with these ids and those given. Returns all ids."""
    def alias(self, alias: str, module: str) -> None: ...
    def note(self, text: str) -> None: ...
    def set_manifest(self, text: str) -> None: """Replace MANIFEST.json atomically, now ("finished" is written as false until close)."""
    def flush(self) -> None: """Wait until all put so far is in the files; raises what the thread met."""
    def close(self, manifest: str | None = None) -> None: """Seal, index, END, manifest. May be called twice."""
    def abort(self) -> None: """Stop; what is committed stays readable, the capture stays unfinished."""
    closed: bool
    path: str
    stats: dict[str, int]  # num_tensors, num_deduplicated, bytes_stored, bytes_seen, peak_waiting_bytes

class Reader:
    def __init__(self, path: str) -> None: ...
    finished: bool
    recovery: dict[str, Any] | None       # unfinished: {"records": n, "dropped_bytes": n, "reason": text}
    num_tensors: int
    def tensor(self, tensor_id: int) -> np.ndarray: """Read-only view of the mapped file; keeps it mapped."""
    def info(self, tensor_id: int) -> tuple[str, tuple[int, ...], tuple[int, ...], int, str, int, int, str]:
        """(dtype name, shape, recorded strides, bytes, hash as 32 hex digits, segment, offset, key)"""
    def calls(self) -> list[tuple[str, int, int, int, str, tuple[int, ...]]]:
        """(module, call, step, phase, structure JSON, tensor ids), in order of writing. Strings are shared objects."""
    def names(self) -> list[tuple[str, int]]: ...
    def aliases(self) -> list[tuple[str, str]]: ...
    def notes(self) -> list[str]: ...
    def find(self, name: str) -> np.ndarray:
        """The tensor with this full name (aliases resolve). Raises LayerNotFoundError with the nearest name."""
    def full_names(self) -> list[str]: """Every full name (FORMAT.md section 6), in order of writing; the first of equal ones."""

def repair(path: str) -> dict[str, int]:
    """Makes an unfinished capture a finished one; {"records", "dropped_bytes"}. Also one whose END record was damaged."""
def verify(path: str) -> int: """Re-hashes every tensor; raises FormatError naming the first bad one. Returns tensors read."""

def compare(expected: np.ndarray, actual: np.ndarray, scale: np.ndarray | float | None = None,
            unit_roundoff: float = 0.0, slope: float = 0.0, basic: bool = False) -> dict[str, Any]:
    """port_metrics as a dict with the struct's field names; ulp_histogram is a list. Indices are flat.

    slope: this times |expected| is added to the scale. basic: faster, without percentiles (NaN) and ulp_histogram (not there).
    """

def error_map(expected: np.ndarray, actual: np.ndarray, rows: int, cols: int, worst: int) -> tuple[np.ndarray, np.ndarray]:
    """Where two row-major real arrays of one shape differ, as a matrix (last axis against all others) on rows x cols cells:
    (greatest |a - e| of each cell, float64 (rows, cols), infinite for NaN on one side; flat indices of the worst elements, int64, at most `worst`).

    Raises ShapeError, or ValueError for more cells than the matrix has rows or columns.
    """

def row_sizes(x: np.ndarray, kind: str) -> np.ndarray:
    """Size of each row of a row-major array of real numbers, along the last axis: float64 (rows,).

    kind: "rms" (root of the mean square, elements that are not finite counted as 0) or "median" (lower median of |x| over what is
    finite and not 0; 0 if nothing is). Raises ValueError for another kind or an array that is not row-major.
    """

def summarize(x: np.ndarray) -> bytes: """Statistics, hash and sketch of an array (docs/FORMAT.md section 10)."""

class Program:
    def __init__(self, json_text: bytes) -> None: """One program of docs/PROGRAM.md."""
    num_ops: int
    num_values: int
    fusions: list[tuple[int, ...]]  # ops that run together unless a value between them is asked for
    def op_name(self, index: int) -> str: ...
    def missing(self, begin: int, end: int) -> list[str]: """Names of ops in [begin, end) that have no handler."""
    def run(self, begin: int, end: int, feeds: Mapping[int, np.ndarray], fetches: Sequence[int], *,
            fetch_at: Sequence[int] | None = None, provider: str = "auto", variant: str | None = None,
            capability: str = "default", num_threads: int = 1, mkldnn: bool | str = True,
            symbols: Sequence[int] = (), check_strides: bool = False, operands: str | None = None, only: Sequence[int] | None = None,
            expects: Sequence[tuple[int, int, np.ndarray]] | None = None, restore: bool = False) -> Any:
        """list[np.ndarray], the fetched values; with expects (list, list[bool]).
        operands: "tf32", "bf16", "f16" or "q8_0": float32 operands of products are rounded to it first.
        only: ascending numbers of the ops that run, of [begin, end); then without fetch_at and expects.
        expects: (value, op, array) in ascending order of ops: does the value hold these bits right after the op (begin - 1: before
        the first)? restore: where it does not, the run goes on with these bits."""

def call_op(name: str, args: Sequence[Any], kwargs: Mapping[str, Any] = {}, *, provider: str = "auto", variant: str | None = None,
            capability: str = "default", num_threads: int = 1, mkldnn: bool | str = True, operands: str | None = None) -> Any:
    """Run one ATen op ("aten.gelu.default") on arrays and Python scalars; an array, or a tuple of arrays, dense and with the strides of torch's where the op makes its own.
    A dtype is {"dtype": "F32"}, likewise device, layout, memory_format. In-place ops return a changed copy.
    mkldnn: True as oneDNN runs on this CPU, "avx2", "avx512" or "avx512_bf16" (AVX-512 with products of pairs of bf16, without AMX) as it ran elsewhere."""
def known_ops() -> list[str]: ...
def op_signature(name: str) -> tuple[str, str | None]:
    """An op's arguments as csrc/program/args.c writes them ("T self, N other, *, S alpha=1") and the kernel it launches, if it is one."""
def kernel_rows() -> list[tuple[str, str, str, int]]: """(op, dtype, variant, cpu_level)"""
def providers() -> list[str]: ...
def set_torch_provider(name: str, address: int) -> None: ...
def show_config() -> dict[str, Any]: """cpu_level, cpu_features, providers, openblas (its config or None), compiler, compiled_for."""
def hash128(data: Buffer) -> str: """XXH3-128 as 32 hex digits, as in the journal."""
