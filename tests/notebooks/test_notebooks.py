"""Every notebook runs from top to bottom, offline, on the two packaged models; their own assertions say what must come out."""
import os
from pathlib import Path

import nbclient
import nbformat
import porting
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(notebook, folder):
    """Runs the cells in a kernel that sees the sources under test; raises CellExecutionError."""
    sources = str(Path(porting.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": sources, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                   "TMPDIR": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute(env=environment)


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "stored without outputs"
    done = execute(notebook, tmp_path)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in outputs) or path.stem.startswith("03")
    assert any("image/png" in output.get("data", {}) for output in outputs), "the plot was drawn"


def test_a_cell_that_fails_fails_the_test(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import porting\nassert porting.compare is None")])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute(notebook, tmp_path)
