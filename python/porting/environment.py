"""What decides the bits of a run on this machine (docs/NUMERICS.md), as JSON for the capture's manifest.

Host name, user name and paths are left out on purpose: captures are sent to other people.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from typing import Any

VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "CUBLAS_WORKSPACE_CONFIG",
)
CAPABILITIES = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}


def known(question: Callable[[], Any]) -> Any:
    """The answer, or None where this version or build of torch has none."""
    try:
        return question()
    except Exception:  # private and version-dependent questions; absence is an answer
        return None


def cpu() -> dict[str, Any]:
    """Vendor, model and the instruction-set flags of the first CPU."""
    found: dict[str, Any] = {"architecture": platform.machine(), "cores": os.cpu_count()}
    wanted = {
        "vendor_id": "vendor",
        "model name": "model",
        "flags": "flags",
        "Features": "flags",
        "microcode": "microcode",
    }
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip() and "flags" in found:
                    break
                field, _, value = line.partition(":")
                if field.strip() in wanted:
                    found[wanted[field.strip()]] = value.strip()
    except OSError:  # not Linux
        found["model"] = platform.processor()
    flags = found.get("flags", "").split()
    found["flags"] = [f for f in flags if re.match(r"(avx|sse|ssse|fma|f16c|amx|asimd|sve|bf16|fp16|i8mm)", f)]
    return found


def libc() -> str | None:
    name, version = platform.libc_ver()
    return f"{name} {version}" if name else None


def versions() -> dict[str, str]:
    """Versions of the packages that were imported; nothing is imported to be asked."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "transformers", "accelerate", "tokenizers", "gguf", "ml_dtypes"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = str(version)
    return found


def torch_state() -> dict[str, Any]:
    """The switches of torch that change results. All are read, none is set."""
    import torch

    return {
        "version": str(torch.__version__),
        "config": torch.__config__.show(),
        "parallel": torch.__config__.parallel_info(),
        "capability": CAPABILITIES.get(
            torch.backends.cpu.get_cpu_capability(), torch.backends.cpu.get_cpu_capability().lower()
        ),
        "num_threads": torch.get_num_threads(),
        "num_interop_threads": torch.get_num_interop_threads(),
        "mkldnn_available": torch.backends.mkldnn.is_available(),
        "mkldnn_enabled": bool(torch.backends.mkldnn.enabled),
        "mkldnn_deterministic": known(lambda: bool(torch.backends.mkldnn.deterministic)),
        "mkldnn_fp32_precision": known(lambda: str(torch.backends.mkldnn.fp32_precision)),
        "fp32_precision": known(lambda: str(torch.backends.fp32_precision)),
        "matmul_precision": known(torch.get_float32_matmul_precision),
        "allow_tf32": known(lambda: bool(torch.backends.cuda.matmul.allow_tf32)),
        "cudnn_allow_tf32": known(lambda: bool(torch.backends.cudnn.allow_tf32)),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "flush_denormal": flushes_denormals(torch),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "sdpa": {
            "flash": known(torch.backends.cuda.flash_sdp_enabled),
            "math": known(torch.backends.cuda.math_sdp_enabled),
            "mem_efficient": known(torch.backends.cuda.mem_efficient_sdp_enabled),
        },
        "devices": [known(lambda i=i: torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())],
    }


def flushes_denormals(torch: Any) -> bool:
    """True if subnormal results become zero. torch has a setter only: halve the smallest normal number and look."""
    import numpy as np

    smallest = torch.from_numpy(np.full(1, np.finfo(np.float32).tiny))
    return bool((smallest * 0.5).numpy().view(np.uint32)[0] == 0)


def fingerprint() -> dict[str, Any]:
    """The environment of this process, for MANIFEST.json.

    Returns
    -------
    dict : JSON values only. ``capability`` ("default", "avx2", "avx512"), ``num_threads`` and ``mkldnn_enabled``, which a check
        needs to run the same kernels, stand in ``torch``; ``versions``, ``cpu``, ``libc``, ``platform`` and ``variables`` beside it.
    """
    return {
        "torch": torch_state(),
        "versions": versions(),
        "cpu": cpu(),
        "libc": libc(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "byteorder": sys.byteorder,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
