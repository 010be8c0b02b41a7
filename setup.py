"""Builds porting._core from csrc/. Everything else is in pyproject.toml.

OpenBLAS comes from the build-time package scipy-openblas32. Its shared library is copied into the package (porting/.libs), so
that the installed package does not need the build environment. PORTING_BLAS=none builds without it.
PORTING_WERROR=1 turns warnings into errors, PORTING_SANITIZE=1 builds with ASan and UBSan.
"""
import glob
import os
import shutil
import sys

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wundef", "-Wvla", "-Wstrict-prototypes"]
FLAGS = ["-std=c11", "-O2", "-ffp-contract=off", "-fvisibility=hidden", "-fno-math-errno", "-D_GNU_SOURCE", *WARNINGS]


def openblas():
    """The scipy_openblas32 module, or None if the build is to go without a BLAS."""
    wanted = os.environ.get("PORTING_BLAS", "openblas")
    if wanted == "none":
        return None
    if wanted != "openblas":
        sys.exit(f"PORTING_BLAS={wanted!r}: expected 'openblas' or 'none'")
    try:
        import scipy_openblas32
    except ImportError:
        sys.exit("scipy-openblas32 is needed to build with OpenBLAS: install it, or set PORTING_BLAS=none")
    return scipy_openblas32


class BuildExt(build_ext):
    """Adds OpenBLAS, copies its library beside the extension."""

    def build_extension(self, ext):
        blas = openblas()
        if blas is not None:
            library = os.path.join(blas.get_lib_dir(), f"lib{blas.get_library()}.so")
            ext.define_macros.append(("PORT_OPENBLAS", "1"))
            ext.include_dirs.append(blas.get_include_dir())
            ext.extra_link_args += [library, "-Wl,-rpath,$ORIGIN/.libs"]
            target = os.path.join(os.path.dirname(self.get_ext_fullpath(ext.name)), ".libs")
            os.makedirs(target, exist_ok=True)
            shutil.copy(library, target)
        super().build_extension(ext)


flags = list(FLAGS)
links = []
if os.environ.get("PORTING_WERROR"):
    flags.append("-Werror")
if os.environ.get("PORTING_SANITIZE"):
    flags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g", "-O1"]
    links += ["-fsanitize=address,undefined"]

setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "porting._core",
            sources=sorted(glob.glob("csrc/**/*.c", recursive=True)),
            depends=sorted(glob.glob("csrc/**/*.h", recursive=True)) + ["setup.py"],
            include_dirs=["csrc"],
            extra_compile_args=[*flags, "-isystem", numpy.get_include()],
            extra_link_args=links,
            libraries=["m", "pthread"],
        )
    ],
)
