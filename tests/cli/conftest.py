"""Runs the command line as a user does: another process, its own folder."""
import os
import subprocess
import sys
from pathlib import Path

import porting
import pytest
from cli_model import MODEL

PACKAGE_PARENT = str(Path(porting.__file__).resolve().parents[1])  # the package that is tested, installed or not


@pytest.fixture(scope="session")
def run_porting():
    """run_porting(*arguments, cwd=...) -> CompletedProcess with text."""

    def run(*arguments, cwd, **kwargs):
        environment = {**os.environ, "PYTHONPATH": PACKAGE_PARENT, "OMP_NUM_THREADS": "2", "COLUMNS": "100"}
        command = [sys.executable, "-m", "porting", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **kwargs)

    return run

@pytest.fixture(scope="session")
def captured(tmp_path_factory, run_porting):
    """A folder with run.capture: two calls of a model of two blocks, captured from a script."""
    folder = tmp_path_factory.mktemp("captured")
    script = MODEL + "with torch.no_grad():\n    for n in (3, 5):\n        model(torch.randn(2, n, 8))\n"
    (folder / "script.py").write_text(script, encoding="utf-8")
    done = run_porting("capture", "-o", "run.capture", "script.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder
