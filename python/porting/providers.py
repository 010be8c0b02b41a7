"""Where the C kernels get matrix products and vector math from.

A provider is a set of functions: ``reference`` (own loops, always there), ``openblas`` (built in unless PORTING_BLAS=none) and
``torch``: the functions that an installed PyTorch uses itself, called by address from its library, so that what they
compute has the same bits as PyTorch's own result. ``auto`` takes torch if it was loaded, else openblas, else reference.

This module finds the library and the functions; it does not import torch and does not change any process-wide setting.
"""
import ctypes
import importlib.metadata
import importlib.util
import math
import os
import struct
import sys
from dataclasses import dataclass

from . import _core

# VML's high accuracy, flush-denormals-off and ignore-errors modes, as PyTorch passes them.
VMS_MODE = 0x2 | 0x140000 | 0x100

_VECTOR_MATH = {
    "vms_exp": ("vmsExp", math.exp), "vms_log": ("vmsLn", math.log), "vms_tanh": ("vmsTanh", math.tanh),
    "vms_erf": ("vmsErf", math.erf), "vms_sin": ("vmsSin", math.sin), "vms_cos": ("vmsCos", math.cos),
    "vms_sqrt": ("vmsSqrt", math.sqrt), "vms_log2": ("vmsLog2", math.log2), "vms_log10": ("vmsLog10", math.log10),
    "vms_tan": ("vmsTan", math.tan), "vms_atan": ("vmsAtan", math.atan), "vms_acos": ("vmsAcos", math.acos),
    "vms_asin": ("vmsAsin", math.asin),
}
_TRANSFORMS = {
    "dfti_create_1d": "DftiCreateDescriptor_s_1d", "dfti_create_md": "DftiCreateDescriptor_s_md", "dfti_set_value": "DftiSetValue",
    "dfti_commit": "DftiCommitDescriptor", "dfti_forward": "DftiComputeForward", "dfti_backward": "DftiComputeBackward",
    "dfti_release": "DftiFreeDescriptor",
}
_LAPACK = ("gemv", "getrf", "getrs", "potrf", "geqrf", "orgqr", "syevd", "gesdd")
_SYMBOLS = {
    "sgemm": "sgemm_", "dgemm": "dgemm_", "sgemm_batch": "sgemm_batch_", "dgemm_batch": "dgemm_batch_", "strsm": "strsm_",
    "sdot": "sdot_", "ddot": "ddot_", **{real + name: f"{real}{name}_" for name in _LAPACK for real in "sd"},
    "set_num_threads_local": "MKL_Set_Num_Threads_Local", **{name: symbol for name, (symbol, _) in _VECTOR_MATH.items()},
    **_TRANSFORMS,
}
_loaded = None  # the TorchProvider of this process; its library must stay loaded, since C keeps the addresses


@dataclass(frozen=True)
class TorchProvider:
    """What `load_torch_provider` found: the library's path, the functions in use, and the reason for each that is not."""

    path: str
    functions: tuple[str, ...]
    missing: dict[str, str]
    library: ctypes.CDLL

    def __str__(self):
        text = f"torch provider from {self.path}: {', '.join(self.functions)}"
        return text + "".join(f"; no {name} ({reason})" for name, reason in self.missing.items())


def torch_library_path():
    """Path of the libtorch_cpu of this interpreter's torch (of the imported one if it is imported), or None."""
    module = sys.modules.get("torch")
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    origin = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    if origin is None:
        return None
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = os.path.join(os.path.dirname(origin), "lib", name)
        if os.path.exists(path):
            return path
    return None


def torch_version():
    """The version of this interpreter's torch, which is not imported; None without one."""
    module = sys.modules.get("torch")
    if module is not None:
        return str(getattr(module, "__version__", "")) or None
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def load_torch_provider(path=None):
    """Make PyTorch's own matrix products and vector math available to the kernels, without importing torch.

    Parameters
    ----------
    path : str, optional
        The library to use instead of the installed torch's libtorch_cpu.

    Returns
    -------
    TorchProvider
        Path, functions in use, and for each function that is not in use the reason. Each function was called once with a
        known answer before it was taken.

    Raises
    ------
    UnsupportedError
        No torch is installed, its library cannot be loaded, or it has no usable matrix product.
    """
    global _loaded
    path = torch_library_path() if path is None else os.fspath(path)
    if path is None:
        raise _core.UnsupportedError("the torch provider needs an installed PyTorch with lib/libtorch_cpu.so; none was found")
    if _loaded is not None and os.path.realpath(_loaded.path) == os.path.realpath(path):
        return _loaded
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise _core.UnsupportedError(f"the torch provider's library cannot be loaded: {error}") from None
    addresses, missing = {}, {}
    for name, symbol in _SYMBOLS.items():
        function = getattr(library, symbol, None)
        if function is None:
            missing[name] = f"the library has no function {symbol}"
        elif not _gives_known_answer(name, function, library):
            missing[name] = f"{symbol} gave a wrong answer to a known question"
        else:
            addresses[name] = ctypes.cast(function, ctypes.c_void_p).value
    if "sgemm" not in addresses:
        raise _core.UnsupportedError(f"{path} cannot be the torch provider: {missing['sgemm']}")
    for name, address in addresses.items():
        _core.set_torch_provider(name, address)
    _loaded = TorchProvider(path, tuple(addresses), missing, library)
    return _loaded


def use_provider(name):
    """Make a provider ready: for "auto" the installed torch's is loaded, quietly, if there is one.

    Parameters
    ----------
    name : "auto", "reference", "openblas" or "torch"

    Returns
    -------
    (name, warning)
        Which provider the name stands for now, and a sentence or None: an installed torch could not be used.

    Raises
    ------
    UnsupportedError
        "torch" was asked for and cannot be had.
    PortingError
        There is no such provider.
    """
    warning = None
    if name == "torch" or (name == "auto" and torch_library_path() is not None):
        try:
            load_torch_provider()
        except _core.UnsupportedError as error:
            if name == "torch":
                raise
            warning = f"the installed torch's matrix products cannot be used: {error}"
    available = list(_core.providers())
    if name == "auto":
        return next(known for known in ("torch", "openblas", "reference") if known in available), warning
    if name not in available:
        raise _core.PortingError(f"no provider is called {name}; there are auto, {', '.join(dict.fromkeys([*available, 'torch']))}")
    return name, warning


def show_config():
    """What this build and this process can use: the C core's facts, the torch provider's, and what "auto" chooses.

    Makes "auto" ready as `use_provider` does, so that what it says is what a check would use. Does not import torch.

    Returns
    -------
    dict
        `_core.show_config()` with ``auto`` (a provider's name), ``torch library`` (path or None), ``torch functions`` (in use);
        ``torch missing`` (function: reason) if there are any, and ``warning`` if the installed torch cannot be used.
    """
    chosen, warning = use_provider("auto")
    facts = dict(_core.show_config())
    facts["providers"] = list(_core.providers())
    facts["auto"] = chosen
    facts["torch library"] = _loaded.path if _loaded is not None else torch_library_path()
    facts["torch functions"] = list(_loaded.functions) if _loaded is not None else []
    if _loaded is not None and _loaded.missing:
        facts["torch missing"] = dict(_loaded.missing)
    if warning is not None:
        facts["warning"] = warning
    return facts


# ---------------------------------------------------------------- known answers


def _gives_known_answer(name, function, library):
    if name in _TRANSFORMS:
        return _transforms_are_right(library)
    if name in _VECTOR_MATH:
        return _vector_math_is_right(function, _VECTOR_MATH[name][1])
    if name == "set_num_threads_local":
        return _thread_setting_is_right(function)
    if name == "strsm":
        return _solution_is_right(function)
    real = ctypes.c_float if name.startswith("s") else ctypes.c_double
    if name[1:] in _SYSTEMS:
        return _SYSTEMS[name[1:]](function, real)
    return _batch_is_right(function, real) if name.endswith("_batch") else _product_is_right(function, real)


# Column-major a (2, 3), b (3, 2) and start c (2, 2); c = 2 a b + 3 c in whole numbers, so that every order of summation
# agrees. The fifth element of c must stay.
_A = [1, 4, 2, 5, 3, 6]
_B = [7, 9, 11, 8, 10, 12]
_C = [1, 2, 3, 4, 99]
_EXPECTED = [119, 284, 137, 320, 99]


def _sizes():
    return [ctypes.byref(ctypes.c_int(value)) for value in (2, 2, 3)], ctypes.byref(ctypes.c_int(2)), \
        ctypes.byref(ctypes.c_int(3))


def _product_is_right(function, real):
    function.restype, function.argtypes = None, None
    (m, n, k), two, three = _sizes()
    a, b, c = (real * 6)(*_A), (real * 6)(*_B), (real * 5)(*_C)
    function(b"n", b"n", m, n, k, ctypes.byref(real(2)), a, two, b, three, ctypes.byref(real(3)), c, two)
    if list(c) != _EXPECTED:
        return False
    transposed = (real * 6)(*(_A[row + 2 * column] for row in range(2) for column in range(3)))
    c = (real * 5)(*_C)
    function(b"t", b"n", m, n, k, ctypes.byref(real(2)), transposed, three, b, three, ctypes.byref(real(3)), c, two)
    return list(c) == _EXPECTED


def _batch_is_right(function, real):
    function.restype, function.argtypes = None, None
    (m, n, k), two, three = _sizes()
    a, b = (real * 6)(*_A), (real * 6)(*_B)
    results = [(real * 5)(*_C), (real * 5)(*_C)]
    pointers = ctypes.c_void_p * 2
    at = ctypes.addressof
    function(b"n", b"n", m, n, k, ctypes.byref(real(2)), pointers(at(a), at(a)), two, pointers(at(b), at(b)), three,
             ctypes.byref(real(3)), pointers(*map(at, results)), two, ctypes.byref(ctypes.c_int(1)), two)
    return all(list(c) == _EXPECTED for c in results)


def _solution_is_right(function):
    """[[2, .], [3, 4]] x = 2 b for b = [[1, 3], [7, 9]], whose other triangle must not be read."""
    function.restype, function.argtypes = None, None
    a, b = (ctypes.c_float * 4)(2, 3, 99, 4), (ctypes.c_float * 5)(1, 7, 3, 9, 99)
    two = ctypes.byref(ctypes.c_int(2))
    function(b"l", b"l", b"n", b"n", two, two, ctypes.byref(ctypes.c_float(2)), a, two, b, two)
    return list(b) == [1, 2.75, 3, 2.25, 99]


def _by_address(function, *arguments):
    """Calls a Fortran function: ints by address, text and arrays as they are."""
    function.restype, function.argtypes = None, None
    function(*(ctypes.byref(ctypes.c_int(a)) if isinstance(a, int) else a for a in arguments))


def _near(array, expected):
    return all(abs(got - want) <= 1e-5 for got, want in zip(array, expected, strict=True))


def _dot_is_right(function, real):
    function.restype, function.argtypes = real, None
    two, one = ctypes.byref(ctypes.c_int(2)), ctypes.byref(ctypes.c_int(1))
    return function(two, (real * 2)(3, 5), one, (real * 3)(7, 99, 11), two) == 76


def _gemv_is_right(function, real):
    y = (real * 3)(1, 2, 99)
    _by_address(function, b"n", 2, 3, ctypes.byref(real(2)), (real * 6)(*_A), 2, (real * 3)(7, 9, 11), 1, ctypes.byref(real(3)), y, 1)
    return list(y) == [119, 284, 99]


def _lu_is_right(function, real):
    """[[2, 1], [4, 4]]: the rows change places."""
    a, pivots, info = (real * 5)(2, 4, 1, 4, 99), (ctypes.c_int * 3)(-1, -1, 99), ctypes.c_int(-1)
    _by_address(function, 2, 2, a, 2, pivots, ctypes.byref(info))
    return list(a) == [4, 0.5, 4, -1, 99] and list(pivots) == [2, 2, 99] and info.value == 0


def _lu_solution_is_right(function, real):
    x, info = (real * 3)(4, 12, 99), ctypes.c_int(-1)
    _by_address(function, b"n", 2, 1, (real * 4)(4, 0.5, 4, -1), 2, (ctypes.c_int * 2)(2, 2), x, 2, ctypes.byref(info))
    return list(x) == [1, 2, 99] and info.value == 0


def _cholesky_is_right(function, real):
    """[[4, .], [2, 5]], whose other triangle must not be touched."""
    a, info = (real * 5)(4, 2, 77, 5, 99), ctypes.c_int(-1)
    _by_address(function, b"l", 2, a, 2, ctypes.byref(info))
    return list(a) == [2, 1, 77, 2, 99] and info.value == 0


def _qr_is_right(function, real):
    """One column, (3, 4)."""
    a, tau, work, info = (real * 3)(3, 4, 99), (real * 1)(), (real * 64)(), ctypes.c_int(-1)
    _by_address(function, 2, 1, a, 2, tau, work, 64, ctypes.byref(info))
    return _near(a, [-5, 0.5, 99]) and _near(tau, [1.6]) and info.value == 0


def _basis_is_right(function, real):
    a, work, info = (real * 3)(-5, 0.5, 99), (real * 64)(), ctypes.c_int(-1)
    _by_address(function, 2, 1, 1, a, 2, (real * 1)(1.6), work, 64, ctypes.byref(info))
    return _near(a, [-0.6, -0.8, 99]) and info.value == 0


def _eigenvalues_are_right(function, real):
    """[[5, .], [2, 2]]: 1 and 6."""
    a, w, work, ints, info = (real * 4)(5, 2, 77, 2), (real * 3)(0, 0, 99), (real * 256)(), (ctypes.c_int * 64)(), ctypes.c_int(-1)
    _by_address(function, b"n", b"l", 2, a, 2, w, work, 256, ints, 64, ctypes.byref(info))
    return _near(w, [1, 6, 99]) and info.value == 0


def _singular_values_are_right(function, real):
    """[[0, 2], [3, 0]]."""
    s, work, ints, info = (real * 3)(0, 0, 99), (real * 512)(), (ctypes.c_int * 16)(), ctypes.c_int(-1)
    _by_address(function, b"n", 2, 2, (real * 4)(0, 3, 2, 0), 2, s, None, 2, None, 2, work, 512, ints, ctypes.byref(info))
    return _near(s, [3, 2, 99]) and info.value == 0


_SYSTEMS = {
    "dot": _dot_is_right, "gemv": _gemv_is_right, "getrf": _lu_is_right, "getrs": _lu_solution_is_right, "potrf": _cholesky_is_right,
    "geqrf": _qr_is_right, "orgqr": _basis_is_right, "syevd": _eigenvalues_are_right, "gesdd": _singular_values_are_right,
}  # fmt: skip


def _vector_math_is_right(function, exact):
    function.restype = None
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong]
    values = [-1.0, -0.5, 0.0, 0.25, 1.0] if exact in (math.acos, math.asin) else [0.25, 0.5, 1.0, 1.75, 2.5]
    answers = (ctypes.c_float * 6)(*[-7.0] * 6)
    function(5, (ctypes.c_float * 5)(*values), answers, VMS_MODE)
    if answers[5] != -7.0:
        return False
    return all(abs(got - exact(value)) <= 2 * _ulp_f32(exact(value)) for value, got in zip(values, answers))


def _ulp_f32(value):
    """Distance from |value| (as f32) to the next larger f32."""
    bits = struct.unpack("<I", struct.pack("<f", abs(value)))[0]
    return struct.unpack("<f", struct.pack("<I", bits + 1))[0] - struct.unpack("<f", struct.pack("<I", bits))[0]


def _transforms_are_right(library):
    """All functions of Fourier transforms together, which need each other: two signals of 4 points, 2 by 2, there and back."""
    create_1d, create_md, set_value, commit, forward, backward, release = (getattr(library, name, None) for name in _TRANSFORMS.values())
    if None in (create_1d, create_md, set_value, commit, forward, backward, release):
        return False
    long, pairs = ctypes.c_long, ctypes.c_float * 9
    signal, answers = (1, 0, 2, 0, 3, 0, 5, 0), {1: (11, 0, -2, 3, -3, 0, -2, -3), 2: (11, 0, -3, 0, -5, 0, 1, 0)}
    for num_dims, answer in answers.items():
        plan, spectrum, back = ctypes.c_void_p(), pairs(*[-7.0] * 9), pairs(*[-7.0] * 9)
        domain = ctypes.c_int(32)
        made = create_1d(ctypes.byref(plan), domain, long(4)) if num_dims == 1 else create_md(ctypes.byref(plan), domain, long(2), (long * 2)(2, 2))
        failed = made or set_value(plan, ctypes.c_int(11), ctypes.c_int(44)) or commit(plan)
        failed = failed or forward(plan, pairs(*signal), spectrum) or backward(plan, spectrum, back)
        if failed or release(ctypes.byref(plan)) or list(spectrum) != [*answer, -7.0] or list(back) != [*(4 * value for value in signal), -7.0]:
            return False
    return True


def _thread_setting_is_right(function):
    function.restype, function.argtypes = ctypes.c_int, [ctypes.c_int]
    before = function(1)
    return function(before) == 1
