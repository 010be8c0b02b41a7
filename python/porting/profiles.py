"""Profiles: how recorded programs are computed, by a name that a user chooses (docs/NUMERICS.md, section 8).

A profile says which kernels run, with which parameters of the reference. What this machine cannot keep to is said in a warning
that belongs into the report. Nothing is run here.
"""
from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Mapping
from typing import Any

from . import providers
from ._core import PortingError
from .environment import cpu
from .probe import sentences

AS_CAPTURED = "as-captured"
OPERANDS = ("tf32", "bf16", "f16", "q8_0")

#: Name to what a report says of it.
PROFILES = {
    AS_CAPTURED: "as the reference ran",
    "golden": "float64 throughout, each output rounded once; dot products that cancel in twice that precision",
    "strict": "one fixed order of every sum: the same bits on every CPU, with any number of threads, any batch, with and without a BLAS",
    **{name: f"as the reference ran, float32 operands of products rounded to {name}" for name in OPERANDS},
}
_CAPABILITIES = ("default", "avx2", "avx512")
_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a profile comes to for one capture on this machine.

    Attributes
    ----------
    profile : its name.
    options : keyword arguments of `_core.Program.run` and `_core.call_op`.
    wide : whether the program and what it is fed with are widened to float64 (widening.py).
    text : name and parameters, as a report prints them.
    warnings : sentences: what of the profile this machine or this capture cannot give, and what was taken in its place.
    """

    profile: str
    options: dict[str, Any]
    wide: bool
    text: str
    warnings: tuple[str, ...] = ()


def settings(profile: str, environment: Mapping[str, Any], provider: str = "auto") -> Settings:
    """What the profile of this name means for a capture with this environment.

    Parameters
    ----------
    profile : a name in PROFILES
    environment : of the manifest (`environment.fingerprint`)
    provider : where products and vector math come from: "auto", "reference", "openblas", "torch"

    Raises PortingError for a name that is no profile's (it lists them), and for `strict` with a library as provider.
    """
    if profile not in PROFILES:
        raise PortingError(f"no profile is called {profile!r}; there are {', '.join(PROFILES)}")
    plain = {"capability": "default", "num_threads": 1, "mkldnn": False}
    text = f"{profile}: {PROFILES[profile]}"
    if profile == "golden":
        return Settings(profile, {"provider": provider, "variant": "golden", **plain}, True, text)
    if profile == "strict":
        if provider not in ("auto", "reference"):
            raise PortingError(f"the profile strict multiplies matrices itself; the provider {provider} cannot be used with it")
        return Settings(profile, {"provider": "reference", "variant": "strict", **plain}, False, text)
    options, warnings = _as_captured(environment)
    state = _torch_state(environment)
    if state:
        mkldnn = "on" if options["mkldnn"] else "off"
        text += f" (torch {state.get('version', '?')}, capability {options['capability']}, {options['num_threads']} threads, mkldnn {mkldnn})"
    if profile in OPERANDS:
        options["operands"] = profile
    return Settings(profile, {"provider": provider, **options}, False, text, (*warnings, *_cannot_keep(environment, provider)))


def _torch_state(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    state = environment.get("torch")
    return state if isinstance(state, Mapping) else {}


def _as_captured(environment: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters of the captured run, and where others had to be taken in their place."""
    torch_state = _torch_state(environment)
    state = {**environment, **torch_state}
    capability, threads = state.get("capability"), state.get("num_threads")
    mkldnn = state.get("mkldnn", state.get("mkldnn_enabled", True)) and state.get("mkldnn_available", True)
    warnings = []
    if not torch_state and capability is None:
        warnings.append("the capture does not say how its torch ran; the capability 'default' with one thread was taken")
    elif capability not in _CAPABILITIES:
        warnings.append(f"the reference ran with the CPU capability {capability!r}, which no profile imitates; 'default' was taken")
    elif state.get("flush_denormal"):
        warnings.append("the reference flushed subnormal numbers to zero; the kernels do not")
    other, doubts = sentences(environment)
    warnings += doubts
    capability = other or capability
    return {
        "capability": capability if capability in _CAPABILITIES else "default",
        "num_threads": threads if isinstance(threads, int) and threads > 0 else 1,
        "mkldnn": _onednn(environment) if mkldnn else False,
    }, warnings


def _onednn(environment: Mapping[str, Any]) -> bool | str:
    """Which code oneDNN took in the captured run: by its CPU and ONEDNN_MAX_CPU_ISA; True (as here) where neither is recorded."""
    variables = environment.get("variables")
    variables = variables if isinstance(variables, Mapping) else {}
    limit = str(variables.get("ONEDNN_MAX_CPU_ISA") or variables.get("DNNL_MAX_CPU_ISA") or "").upper()
    if limit.startswith("AVX2"):
        return "avx2"
    flags = _cpu_of(environment)[1]
    if not flags:
        return True
    if not _AVX512 <= flags:
        return "avx2"
    pairs = "avx512_bf16" in flags and "amx_bf16" not in flags and limit not in ("AVX512_CORE", "AVX512_CORE_VNNI")
    return "avx512_bf16" if pairs else "avx512"


def _cpu_of(environment: Mapping[str, Any]) -> tuple[str, set[str]]:
    """(vendor, instruction sets) of the captured run's CPU; "" and no sets where they are not recorded."""
    found = environment.get("cpu")
    found = found if isinstance(found, Mapping) else {}
    flags = found.get("flags")
    return str(found.get("vendor") or ""), set(map(str, flags)) if isinstance(flags, list) else set()


@functools.cache
def _this_machine() -> tuple[str, frozenset[str], str]:
    """(vendor, instruction sets, C library) of this machine."""
    found = cpu()
    return str(found.get("vendor") or ""), frozenset(found.get("flags") or ()), " ".join(platform.libc_ver()).strip()


def _level(flags: set[str] | frozenset[str]) -> str:
    return "AVX-512" if _AVX512 <= flags else "AVX2" if "avx2" in flags else "no AVX2"


def _cannot_keep(environment: Mapping[str, Any], provider: str) -> list[str]:
    """What decides the bits of the library functions that the reference called, and is another here."""
    state = _torch_state(environment)
    if not state:
        return []
    vendor, flags = _cpu_of(environment)
    my_vendor, my_flags, my_libc = _this_machine()
    found = []
    if flags and my_flags and _level(flags) != _level(my_flags):
        found.append(f"it ran on a CPU with {_level(flags)}, this one has {_level(my_flags)}")
    elif vendor and my_vendor and vendor != my_vendor:
        found.append(f"it ran on a CPU of {vendor}, this one is of {my_vendor}")
    libc = environment.get("libc")
    if isinstance(libc, str) and my_libc and libc != my_libc:
        found.append(f"it ran with {libc}, here is {my_libc}")
    version = str(state.get("version", ""))
    if provider in ("auto", "torch"):
        installed = providers.torch_version()
        if installed is None:
            found.append("its torch is not installed here")
        elif version and installed.split("+")[0] != version.split("+")[0]:
            found.append(f"it ran torch {version}, installed is {installed}")
    if not found:
        return []
    return [f"this machine cannot keep to the reference's bits in products and vector math ({'; '.join(found)}): its own functions were taken in"
            " their place, and differences within the bound say nothing"]
