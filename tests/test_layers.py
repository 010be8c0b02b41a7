"""The dependency law of docs/DESIGN.md section 2, read from the includes and imports of every source file."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "porting"

C_LAYERS = ["core", "formats", "store", "compare", "kernels", "program", "bind"]

# Each module may import those of its own line and of the lines above it. A package stands for all its modules.
PYTHON_LAYERS = [
    {"_core", "_version"},
    {"merging", "naming", "ops_table", "sizes", "structure", "tree", "summaries"},
    {"providers", "tolerance", "likeness", "overrides", "picture", "places", "selection", "tensors", "environment", "noise", "profiles", "widening", "probe"},
    {"patterns", "modules", "forms", "keeping", "live", "sharing", "size_texts"},
    {"recorder"},
    {"size_tracing"},
    {"program", "roots", "capture", "export", "weights"},
    {"collecting"},
    {"hooks", "noising"},
    {"report"},
    {"any_size", "compare", "port", "diagnose", "engine", "lengths", "interop", "golden", "ops", "graph", "judging", "ledger", "op_judging", "op_level", "pair", "describe", "whole", "summary_judging"},
    {"check", "graft", "testing", "trial"},
    {"parity", "fixture"},
    {"runner", "demo", "noise_script", "cli", "pytest_plugin", "__main__"},
]
TORCH_AT_IMPORT = {"graft", "live", "noising", "hooks", "keeping", "patterns", "collecting", "weights", "recorder", "modules", "tensors", "sharing", "size_texts", "size_tracing"}  # may be loaded only by who asks for them
TORCH_IN_FUNCTIONS = TORCH_AT_IMPORT | {"capture", "export", "environment", "runner", "demo", "testing", "port", "parity", "probe", "describe"}  # to_torch(), running models


def strip_comments(text):
    """C source without comments; strings stay whole and newlines are kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\')', re.S)
    return pattern.sub(lambda m: m.group(1) or "\n" * m.group().count("\n") or " ", text)


def c_violations(path, text):
    """The sentences that say what in the C file `path` (relative to csrc/) breaks the law."""
    layer = path.parts[0] if len(path.parts) > 1 else "porting.h"
    allowed = set() if layer == "porting.h" else set(C_LAYERS[: C_LAYERS.index(layer) + 1])
    found = []
    code = strip_comments(text)
    for kind, name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', code, re.M):
        if name == "Python.h" and layer != "bind":
            found.append(f"{path}: Python.h outside bind/")
        elif name.startswith("numpy/") and str(path) not in ("bind/bind_array.c", "bind/bind.h"):
            found.append(f"{path}: {name} outside bind/bind_array.c")
        elif kind == '"' and name != "Python.h" and not name.startswith("numpy/"):
            parts = Path(name).parts
            target = next((p for p in parts if p in C_LAYERS), None)
            if target is None and parts[-1] != "porting.h":
                target = layer  # a header of its own directory
                if not (CSRC / path.parent / name).exists() and path.parent != Path("."):
                    found.append(f"{path}: includes {name}, which is in no layer")
            if target is not None and target not in allowed:
                found.append(f"{path}: includes {name}, but {layer} may use only {sorted(allowed)}")
    if layer == "kernels":
        for name in re.findall(r"\b(malloc|calloc|realloc|port_alloc\w*|port_calloc|fopen|open|read|write|printf|abort|exit)"
                               r"[ \t]*\(", code):
            found.append(f"{path}: calls {name}: kernels never allocate and never do I/O")
    return found


def python_layer(module):
    """The place of a module of the package in PYTHON_LAYERS, or None if it has none."""
    return next((i for i, names in enumerate(PYTHON_LAYERS) if module.split(".")[0] in names), None)


def imported_modules(tree, package):
    """(name relative to porting or absolute, is_ours, is_inside_a_function) of every import below `tree`."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            below = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    ours = alias.name.split(".")[0] == "porting"
                    yield alias.name.partition(".")[2] if ours else alias.name, ours, inside
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                ours = bool(child.level) or (child.module or "").split(".")[0] == "porting"
                name = ".".join(base + ([child.module] if child.module else [])) if child.level else child.module
                name = name.partition(".")[2] if ours else name
                for alias in child.names:
                    yield f"{name}.{alias.name}".strip(".") if ours else name, ours, inside
            else:
                yield from walk(child, below)

    yield from walk(tree, False)


def python_violations(path, text):
    """The sentences that say what in the Python file `path` (relative to the package) breaks the law."""
    if path == Path("__init__.py"):
        module, layer = "__init__", len(PYTHON_LAYERS)
    else:
        module = path.with_suffix("").parts[0]
        layer = python_layer(module)
    if layer is None:
        return [f"{path}: has no place in the layers"]
    found = []
    package = ["porting", *path.parent.parts]
    for name, ours, inside in imported_modules(ast.parse(text), package):
        if ours:
            target = python_layer(name) if name else None
            if target is not None and target > layer:
                found.append(f"{path}: imports {name}, which stands below it")
            if not inside and name.split(".")[0] in TORCH_AT_IMPORT and module not in TORCH_AT_IMPORT | {"runner"}:
                found.append(f"{path}: imports {name} at import, which needs torch")
        elif name.split(".")[0] in ("torch", "transformers"):
            if module not in TORCH_IN_FUNCTIONS:
                found.append(f"{path}: imports {name}")
            elif not inside and module not in TORCH_AT_IMPORT:
                found.append(f"{path}: imports {name} at import")
    return found


def test_c_sources_include_only_what_stands_above_them():
    files = sorted(p.relative_to(CSRC) for p in CSRC.rglob("*.[ch]"))
    assert len(files) > 20
    assert [s for p in files for s in c_violations(p, (CSRC / p).read_text(encoding="utf-8"))] == []


def long_parts(path, text):
    """Files of more than 800 lines and functions of more than 60: what nobody reads at once. Docstrings of Python do not count."""
    lines, sizes, start = text.splitlines(), [], 0
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                sizes.append((node.name, node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node, clean=False) or "").splitlines())))
    else:
        for k, line in enumerate(lines):
            start = k if line == "{" else start
            if line == "}" and lines[start - 1].endswith(")"):
                sizes.append((lines[start - 1], k - start + 1))
    found = [f"{path}: {name} has {size} lines" for name, size in sizes if size > 60]
    return found + ([f"{path}: {len(lines)} lines"] if len(lines) > 800 else [])


def test_no_function_and_no_file_is_too_long():
    files = [*sorted(CSRC.rglob("*.[ch]")), *sorted(PACKAGE.rglob("*.py"))]
    assert [s for p in files for s in long_parts(p.relative_to(ROOT), p.read_text(encoding="utf-8"))] == []
    c, py = "int\nf(void)\n{\n%s}\n", "def f():\n%s"
    assert long_parts(Path("a.c"), c % ("    g();\n" * 58)) == [] and long_parts(Path("a.py"), py % ("    g()\n" * 59)) == []
    assert long_parts(Path("a.c"), c % ("    g();\n" * 59)) == ["a.c: f(void) has 61 lines"]
    assert long_parts(Path("a.py"), py % ("    g()\n" * 60)) == ["a.py: f has 61 lines"]
    assert long_parts(Path("a.h"), "\n" * 801) == ["a.h: 801 lines"]


def test_python_modules_import_only_what_stands_above_them():
    files = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))
    assert len(files) > 2
    assert [s for p in files for s in python_violations(p, (PACKAGE / p).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("path, text", [
    ("core/x.c", '#include "../store/store.h"\n'),
    ("core/x.c", '#  include  "store/store.h"\n'),
    ("kernels/x.c", "#include <Python.h>\n"),
    ("bind/bind_store.c", "#include <numpy/arrayobject.h>\n"),
    ("kernels/x.c", '#include "nowhere.h"\n'),
    ("kernels/x.c", "void f(void) { free(malloc(3)); }\n"),
    ("porting.h", '#include "core/core.h"\n'),
])
def test_a_c_file_that_breaks_the_law_is_found(path, text):
    assert len(c_violations(Path(path), text)) == 1


@pytest.mark.parametrize("path, text", [
    ("core/x.c", '#include "core.h"\n#include <stdio.h>\n'),
    ("bind/bind_store.c", '#include "../store/store.h"\n#include "bind.h"\n#include <Python.h>\n'),
    ("kernels/x.c", '/* malloc(3) would be wrong */ // #include "../store/store.h"\n#include "../core/core.h"\n'),
])
def test_a_c_file_that_keeps_the_law_passes(path, text):
    assert [s for s in c_violations(Path(path), text) if "in no layer" not in s] == []


@pytest.mark.parametrize("path, text", [
    ("capture.py", "import torch\n"),
    ("compare.py", "def f():\n    import torch\n"),
    ("naming.py", "from . import capture\n"),
    ("naming.py", "def f():\n    from porting.report import Report\n"),
    ("report/html.py", "from ..cli import main\n"),
    ("check.py", "from .hooks import tap\n"),
    ("newcomer.py", "x = 1\n"),
    ("__init__.py", "import torch\n"),
])
def test_a_module_that_breaks_the_law_is_found(path, text):
    assert len(python_violations(Path(path), text)) == 1


@pytest.mark.parametrize("path, text", [
    ("hooks.py", "import torch\nfrom .recorder import Recorder\n"),
    ("capture.py", "from . import naming\ndef to_torch():\n    import torch\n"),
    ("report/html.py", "from .. import tolerance\nfrom . import text\n"),
    ("__init__.py", "def __getattr__(name):\n    from .hooks import tap\n"),
    ("cli/main.py", "def f():\n    from ..runner import run_script\n"),
])
def test_a_module_that_keeps_the_law_passes(path, text):
    assert python_violations(Path(path), text) == []
