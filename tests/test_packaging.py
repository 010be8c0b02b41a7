"""What somebody gets who installs the package: built in isolation from a copy of the tracked files, used from elsewhere.

The builds fetch numpy and OpenBLAS as `pip install .` does, so they need a package index (or pip's cache of it).
"""
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy
import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

import porting

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "porting"


def run(*command, **kwargs):
    kwargs.setdefault("cwd", "/")
    environment = {**os.environ, "PYTHONPATH": "", **kwargs.pop("env", {})}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment, **kwargs)


def pip(python, *arguments, **kwargs):
    """Runs pip; skips the test, with pip's words, if no package index can be reached."""
    done = run(python, "-m", "pip", "--disable-pip-version-check", *arguments, **kwargs)
    text = done.stdout + done.stderr
    if done.returncode and ("Temporary failure in name resolution" in text or "Network is unreachable" in text):
        pytest.skip("building in isolation needs a package index: " + text.strip().splitlines()[-1])
    assert done.returncode == 0, text
    return done


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what a clone would hold: tracked and new files, nothing that was built."""
    target = tmp_path_factory.mktemp("sources")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    if listed.returncode:  # not a checkout: an unpacked archive
        ignore = shutil.ignore_patterns("*.so", "*.o", "*.a", ".venv*", "build", "__pycache__", ".libs", "out")
        shutil.copytree(ROOT, target, dirs_exist_ok=True, ignore=ignore)
        return target
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name.split("/")[0] in ("csrc", "python") or "/" not in name:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, target / name)
    return target


def make_environment(path):
    """A fresh virtual environment that also sees this one's packages. Returns its interpreter."""
    venv.create(path, with_pip=True, symlinks=True)
    site = next(path.glob("lib/python*/site-packages"))
    (site / "_outer.pth").write_text(str(Path(numpy.__file__).parents[1]) + "\n", encoding="utf-8")
    return path / "bin" / "python"


USE = """
import sys, numpy as np, porting._core as core, porting
metrics = core.compare(np.ones(3, np.float32), np.full(3, 2, np.float32))
assert metrics["max_abs"] == 1.0, metrics
out = core.call_op("aten.mm.default", [np.eye(3, dtype=np.float32), np.arange(9, dtype=np.float32).reshape(3, 3)], provider="PROVIDER")
assert (out == np.arange(9).reshape(3, 3)).all()
import importlib.resources as r
print(core.__file__)
print(*sorted(p.name for p in r.files("porting.report").iterdir()))
print(*{line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line and "numpy" not in line})
"""


def test_a_wheel_built_in_isolation_brings_its_blas_and_its_pages(sources, tmp_path):
    pip(sys.executable, "wheel", sources, "--no-deps", "--wheel-dir", tmp_path, env={"PORTING_BLAS": "openblas"})
    wheel = next(tmp_path.glob("porting-*.whl"))
    python = make_environment(tmp_path / "env")
    pip(python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    shutil.rmtree(sources / "build", ignore_errors=True)  # nothing of the build may be needed
    used = run(python, "-c", USE.replace("PROVIDER", "openblas"))
    assert used.returncode == 0, used.stderr
    extension, pages, blas = used.stdout.splitlines()
    assert str(tmp_path / "env") in extension
    assert {"report.html.jinja", "report.css", "report.js"} <= set(pages.split())
    assert blas.startswith(str(tmp_path / "env")), "OpenBLAS must come from the package itself"
    helped = run(tmp_path / "env/bin/porting", "--help")
    assert helped.returncode == 0 and "compare" in helped.stdout


def test_an_editable_install_without_a_blas_works(sources, tmp_path):
    python = make_environment(tmp_path / "env")
    pip(python, "install", "--no-deps", "--ignore-installed", "-e", sources, env={"PORTING_BLAS": "none"})
    used = run(python, "-c", USE.replace("PROVIDER", "reference"))
    assert used.returncode == 0, used.stderr
    assert str(sources) in used.stdout and "openblas" not in used.stdout


def test_a_wrong_choice_of_blas_is_refused(tmp_path):
    done = run(sys.executable, "setup.py", "build_ext", "--build-temp", tmp_path, "--build-lib", tmp_path, cwd=ROOT,
               env={"PORTING_BLAS": "mkl"})
    assert done.returncode != 0
    assert "PORTING_BLAS='mkl': expected 'openblas' or 'none'" in done.stderr


def test_every_file_of_the_package_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {".".join(["porting", *p.parent.relative_to(PACKAGE).parts]) for p in PACKAGE.rglob("__init__.py")}
    assert folders == set(settings["packages"])
    patterns = settings["package-data"]["porting"]
    loose = [p.relative_to(PACKAGE) for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".so")]
    assert [str(p) for p in loose if not any(p.match(pattern) for pattern in patterns)] == []


def import_facts(code):
    """Runs `code` in a fresh interpreter: (fastest of five times of `import porting` in ms, names of loaded modules).

    Processor time, which does not count what else the machine is doing."""
    script = ("import sys, time; t = time.process_time(); import porting; t = time.process_time() - t; "
              f"{code}; print(t * 1000); print(*sys.modules)")
    times = []
    for _ in range(5):
        done = run(sys.executable, "-c", script, env={"PYTHONPATH": str(Path(porting.__file__).resolve().parents[1])})
        assert done.returncode == 0, done.stderr
        milliseconds, modules = done.stdout.splitlines()
        times.append(float(milliseconds))
    return min(times), modules.split()


def test_import_is_fast_and_needs_no_torch():
    milliseconds, modules = import_facts("pass")
    assert not {"torch", "transformers", "rich", "jinja2"} & set(modules)
    assert milliseconds < 60


def test_the_command_line_needs_no_torch():
    _, modules = import_facts("from porting import cli; cli.build_parser()")
    assert "torch" not in modules
    _, modules = import_facts("import porting.capture, porting.compare, porting.check, porting.report")
    assert "torch" not in modules
