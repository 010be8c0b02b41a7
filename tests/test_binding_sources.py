"""Rules of the C API that compilers do not check, read from the sources of csrc/bind/."""
import re
from pathlib import Path

import pytest
from test_layers import strip_comments

BIND = Path(__file__).resolve().parent.parent / "csrc" / "bind"

# Each returns -1 (or 0 for the converters) with an exception set: a call whose result nobody looks at hides it.
CHECKED = """PyModule_AddObjectRef PyModule_AddType PyModule_AddFunctions PyList_Append PyDict_SetItemString PyObject_SetAttrString
    PyArray_SetBaseObject PyObject_GetBuffer PyType_Ready PyDict_SetItem PySequence_SetItem""".split()
# Steals its argument only on success, aborts, forgets errors, or hands out what another thread may free.
FORBIDDEN = {
    "PyModule_AddObject": "steals on success only: use PyModule_AddObjectRef",
    "PySequence_Fast": "gives the caller's list, which __index__ may change: use PySequence_Tuple",
    "PySequence_Fast_GET_ITEM": "see PySequence_Fast",
    "PyErr_Clear": "hides what went wrong",
    "Py_FatalError": "ends the process",
    "PyGILState_Ensure": "is not for subinterpreters, and the core never calls back",
    "PyDict_GetItemString": "forgets errors",
    "malloc": "use port_alloc or PyMem_Malloc",
    "exit": "ends the process",
    "abort": "ends the process",
    "assert": "ends the process",
}
ALLOWED_STATIC = r"(?:const\b|char \*\w+\[\]|Py(?:MethodDef|GetSetDef|Type_Slot|Type_Spec|ModuleDef|ModuleDef_Slot)\b)"


def sentences(name, text):
    """What in the source breaks a rule."""
    code = strip_comments(text)
    code = re.sub(r'"(?:\\.|[^"\\])*"', '""', code)
    found = []
    for call in CHECKED:
        for match in re.finditer(rf"(?:^|[;{{}}])\s*(?:\(void\)\s*)?{call}\s*\(", code):
            found.append(f"{name}: the result of {call} is not looked at: {match.group().split()[-1]}")
    for call, why in FORBIDDEN.items():
        if re.search(rf"(?<![\w.>]){call}\s*\(", code):
            found.append(f"{name}: {call} {why}")
    for block in re.findall(r"Py_BEGIN_ALLOW_THREADS(.*?)Py_END_ALLOW_THREADS", code, re.S):
        plain = re.sub(r"PyBytes_AS_STRING\s*\(", "(", block)  # a pointer into an object that the caller holds
        calls = re.findall(r"(?<!\w)([A-Za-z_]\w*)\s*\(", plain.replace("\\\n", " ").replace("(status)", "status"))
        core = [c for c in calls if c.startswith("port_") or c == "call_with_flags"]
        core += ["call_with_flags"] * len(re.findall(r"\(call_with_flags\)", plain))
        if len(core) != 1:
            found.append(f"{name}: {len(core)} core calls without the GIL: {calls}")
        if re.search(r"\bPy[A-Z]\w*|\bPy_(?!END)\w+|\breturn\b|\bgoto\b", plain):
            found.append(f"{name}: Python, or a way out, without the GIL: {block.strip()[:80]}")
    if code.count("Py_BEGIN_ALLOW_THREADS") != code.count("Py_END_ALLOW_THREADS"):
        found.append(f"{name}: the GIL is not taken back as often as it is given up")
    for line in re.findall(r"^\s*static\s+([^;(){}]*?)\s*(?:=|;)", code, re.M):
        if not re.match(ALLOWED_STATIC, line) and "nothing[8]" not in line:
            found.append(f"{name}: state outside the module's: static {line}")
    for function in re.findall(r"^\w+_dealloc\(.*?^}", code, re.M | re.S):
        if "tp_free" in function and "Py_DECREF(type)" not in function:
            found.append(f"{name}: an instance of a heap type holds its type, which dealloc must release")
    return found


SOURCES = sorted(BIND.glob("*.c"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_rules(path):
    assert sentences(path.name, path.read_text()) == []


def test_there_are_sources():
    assert len(SOURCES) > 5


@pytest.mark.parametrize("bad", [
    "void f(void) { PyModule_AddObjectRef(m, n, o); }",
    "void f(void) { x = 1; PyList_Append(l, o); }",
    "void f(void) { (void)PyArray_SetBaseObject(a, b); }",
    "int f(void) { return PyModule_AddObject(m, n, o); }",
    "void f(void) { PyObject *s = PySequence_Fast(o, 0); }",
    "void f(void) {\nPy_BEGIN_ALLOW_THREADS\nport_a(x); port_b(x);\nPy_END_ALLOW_THREADS\n}",
    "void f(void) {\nPy_BEGIN_ALLOW_THREADS\nport_a(PyTuple_GET_ITEM(x, 0));\nPy_END_ALLOW_THREADS\n}",
    "int f(void) {\nPy_BEGIN_ALLOW_THREADS\nreturn port_a(x);\nPy_END_ALLOW_THREADS\n}",
    "void f(void) {\nPy_BEGIN_ALLOW_THREADS\nport_a(x);\n}",
    "static PyObject *cache;",
    "static int counter = 0;",
    "static void\nx_dealloc(PyObject *o)\n{\n    Py_TYPE(o)->tp_free(o);\n}",
])  # fmt: skip
def test_bad_sources_are_found(bad):
    assert len(sentences("bad.c", bad)) == 1
    assert sentences("good.c", "/* " + bad + " */") == []
