"""Find the layer where a port of a PyTorch model goes wrong, and why.

Everything public is here and is loaded when it is first used: `import porting` loads neither torch nor NumPy.
docs/DESIGN.md says what stands in which module.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

_HOME = {
    "ActivationCollector": "hooks",
    "tap": "hooks",
    "open": "capture",
    "Capture": "capture",
    "check": "check",
    "run": "whole",
    "Engine": "engine",
    "compare": "compare",
    "describe": "describe",
    "graph": "graph",
    "graft": "graft",
    "probe": "probe",
    "measure_noise": "noising",
    "explain": "diagnose.explain",
    "Diagnosis": "diagnose",
    "assert_close": "testing",
    "assert_with_pcc": "testing",
    "test_layer": "testing",
    "ParityError": "testing",
    "parity": "parity",
    "Tolerance": "tolerance",
    "Report": "report",
    "show_config": "providers",
    "repair": "_core",
    "verify": "_core",
    "PortingError": "_core",
    "FormatError": "_core",
    "LayerNotFoundError": "_core",
    "ShapeError": "_core",
    "DtypeError": "_core",
    "UnsupportedError": "_core",
    "ClosedError": "_core",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from . import ops
    from ._core import (
        ClosedError,
        DtypeError,
        FormatError,
        LayerNotFoundError,
        PortingError,
        ShapeError,
        UnsupportedError,
        repair,
        verify,
    )  # fmt: skip
    from .capture import Capture, open
    from .check import check
    from .compare import compare
    from .describe import describe
    from .diagnose import Diagnosis
    from .diagnose.explain import explain
    from .engine import Engine
    from .graft import graft
    from .graph import graph
    from .hooks import ActivationCollector, tap
    from .noising import measure_noise
    from .parity import parity
    from .probe import probe
    from .providers import show_config
    from .report import Report
    from .testing import ParityError, assert_close, assert_with_pcc, test_layer
    from .tolerance import Tolerance
    from .whole import run


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("porting")
        except PackageNotFoundError:  # run from its sources
            return "0+unknown"
    if name == "ops":
        return importlib.import_module("porting.ops")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'porting' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"porting.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"})


class _Package(types.ModuleType):
    """Keeps `porting.check` the function: importing the module porting.check would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, types.ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
