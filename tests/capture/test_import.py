"""`import porting` is light, and what is public is there."""
import subprocess
import sys

import porting
import pytest


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_neither_torch_nor_numpy():
    loaded = run("import sys; before = set(sys.modules); import porting; print(sorted(set(sys.modules) - before))")
    for heavy in ("torch", "numpy", "transformers", "porting._core", "porting.hooks", "porting.capture"):
        assert f"'{heavy}'" not in loaded
    assert "'porting'" in loaded


def test_import_takes_less_than_60_ms():
    code = "import time; t = time.process_time(); import porting; print(time.process_time() - t)"  # what others do at the time does not count
    assert min(float(run(code)) for _ in range(5)) < 0.060


def test_reading_a_capture_needs_no_torch():
    loaded = run("import porting, sys; porting.open, porting.LayerNotFoundError, porting.Capture; print('torch' in sys.modules)")
    assert loaded.strip() == "False"


@pytest.mark.parametrize("name", porting.__all__)
def test_everything_public_is_there(name):
    value = getattr(porting, name)
    assert callable(value) and name in dir(porting)
    assert getattr(porting, name) is value


def test_functions_are_not_hidden_by_the_modules_of_the_same_name():
    code = "import porting, porting.check, porting.compare; from porting.check import check; " \
           "print(callable(porting.check), callable(porting.compare), porting.check is check)"
    assert run(code).strip() == "True True True"


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'porting' has no attribute 'nothing'"):
        porting.nothing


def test_version_is_a_text():
    assert isinstance(porting.__version__, str)
