"""The pytest plugin, run by pytest's own pytester on captures of small random models."""
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import porting
import porting.diagnose.locate  # noqa: F401  (pytester forgets what is imported inside its runs)
import porting.hooks  # noqa: F401
import porting.pytest_plugin  # noqa: F401
import porting.report.html  # noqa: F401
import porting.report.jsonout  # noqa: F401
import porting.trial  # noqa: F401
import pytest
import torch
from plugin_ports import NUMPY_PORT, capture_to, make_model

pytest_plugins = ["pytester"]

INSTALLED = any(point.value == "porting.pytest_plugin" for point in importlib.metadata.entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "porting.pytest_plugin")
SOURCES = str(Path(porting.__file__).resolve().parents[1])


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return capture_to(tmp_path_factory.mktemp("reference") / "model.capture", make_model())


@pytest.fixture
def project(pytester, capture, monkeypatch):
    """A folder with my_port.py. run(*arguments) runs pytest there, in this process; run.subprocess in one of its own."""
    pytester.makepyfile(my_port=NUMPY_PORT.format(path=capture))
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    pytester.syspathinsert(SOURCES)
    sys.modules.pop("my_port", None)

    def run(*arguments, process=False):
        runner = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
        return runner(*PLUGIN, "-p", "no:cacheprovider", *arguments)

    run.pytester = pytester
    run.reference = f"--porting-ref={capture}"
    return run


def names(result):
    return [line.split()[0] for line in result.outlines if line.startswith("porting::") and line.split()[1:2] in (["PASSED"], ["FAILED"])]


def test_a_right_port_passes_one_test_per_call_bottom_up(project):
    result = project(project.reference, "--porting-port=my_port:build", "-v")
    result.assert_outcomes(passed=14)
    expected = [f"blocks.{i}.{leaf}" for i in (0, 1) for leaf in ("norm", "up", "down")] + ["head"]
    assert names(result) == [f"porting::{n}" for n in expected] + [f"porting::{n}@1" for n in expected]
    result.stdout.fnmatch_lines(["passed: 14 of 14 module calls compared*"])
    assert result.ret == 0


def test_x_stops_at_the_first_divergence_and_says_why(project):
    result = project(project.reference, "--porting-port=my_port:build_wrong", "-x")
    result.assert_outcomes(passed=3, failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines([
        "blocks.1.norm.out.0 is not the reference's (layer_norm, float32 ?1, 7, 24?)*",
        "Unequal elements: * / 168 (*%)",
        "Greatest absolute difference: * at index (0, *): * in the port, * in the reference",
        "Greatest relative difference: * at index (0, *): * in the port, * in the reference",
        "Band: red. Allowed: *",
        "Cause: blocks.1.norm: eps: *",
        "first divergence: blocks.1.norm.out.0*",
    ])
    assert "0.001" in next(line for line in text.splitlines() if line.startswith("Cause:"))
    assert "Traceback" not in text and result.ret == 1


def test_a_port_that_is_a_module_is_tested_everywhere(project, capture):
    project.pytester.makepyfile(torch_port=f"""
        import sys, torch
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from plugin_ports import make_model
        def build():
            return make_model()
        def build_wrong():
            model = make_model()
            model.blocks[1].act = torch.nn.GELU(approximate="tanh")
            return model
        def build_part():
            model = make_model()
            del model.blocks[1]
            return model
    """)
    sys.modules.pop("torch_port", None)
    project(project.reference, "--porting-port=torch_port:build").assert_outcomes(passed=26)
    result = project(project.reference, "--porting-port=torch_port:build_wrong", "-k", "call0")
    result.assert_outcomes(passed=10, failed=3, deselected=13)
    result.stdout.fnmatch_lines(["Cause: blocks.1.act: activation: *tanh*", "Cause: blocks.1.act, inside it, diverges before it"])
    result = project(project.reference, "--porting-port=torch_port:build_part", "-k", "norm and call0")
    result.assert_outcomes(passed=1, failed=1, deselected=24)
    result.stdout.fnmatch_lines(["blocks.1.norm.out.0 could not be compared*the port has no module of this name"])


def test_a_port_that_is_another_capture_or_a_file(project, capture, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.blocks[0].up.weight.copy_(model.blocks[0].up.weight.flip(0))
    wrong = capture_to(tmp_path / "wrong.capture", model)
    project(project.reference, f"--porting-port={capture}").assert_outcomes(passed=26)
    with porting.open(wrong) as opened:
        opened.save(tmp_path / "wrong.safetensors")
    for path in (wrong, tmp_path / "wrong.safetensors"):
        result = project(project.reference, f"--porting-port={path}", "-x")
        result.assert_outcomes(passed=2, failed=1)
        result.stdout.fnmatch_lines(["blocks.0.up.out.0 is not the reference's*", "Greatest absolute *in the port*", "Cause: blocks.0.up: rows-permuted: *"])


@pytest.mark.parametrize("factory, sentence", [
    ("my_port:build_error", "*RuntimeError: weights are elsewhere*"),
    ("my_port:build_number", "*my_port:build_number returned int; expected a mapping*"),
    ("my_port:nothing", "*my_port has no function nothing*"),
    ("nowhere:build", "*there is no module nowhere*"),
    ("nowhere", "*expected MODULE:FACTORY or an existing path, got nowhere*"),
    ("gone.py:build", "*there is no file gone.py*"),
])
def test_a_port_that_cannot_be_had_is_one_failed_test(project, factory, sentence):
    result = project(project.reference, f"--porting-port={factory}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([sentence])


def test_a_port_that_raises_and_a_pattern_that_names_nothing(project):
    result = project(project.reference, "--porting-port=my_port.py:build_raising")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*head.out.0 could not be compared*the port raised RuntimeError: no such kernel"])
    result = project(project.reference, "--porting-port=my_port:build_unmatched", "-k", "blocks.7")
    result.assert_outcomes(failed=1, deselected=14)
    result.stdout.fnmatch_lines(["*no module of the reference matches 'blocks.7.up'; did you mean blocks.*.up*"])


@pytest.mark.parametrize("arguments, sentence", [
    (["--porting-port=my_port:build"], "*--porting-port needs --porting-ref=CAPTURE*"),
    (["--porting-ref=gone.capture"], "*gone.capture is not a capture: there is no such directory*"),
    (["REF", "--porting-port=my_port:build", "--porting-tol=loose"], "*no tolerance 'loose'*"),
    (["REF", "--porting-port=my_port:build", "--porting-report=x.pdf"], "*ends with .html, .json, .txt, got x.pdf*"),
    (["REF", "--porting-report=my_port.py/x.html", "--porting-port=my_port:build"], "*--porting-report: *cannot be made: *my_port.py is not a folder*"),
    (["REF", "--porting-names=gone.toml"], "*--porting-names: *neither a file nor one of the conventions*"),
    (["REF", "--porting-names=."], "*--porting-names: *expected a TOML file or one of *, got a folder*"),
    (["REF", "--porting-layout=a b", "--porting-layout=b a"], "*--porting-layout: with more than one, each is PATTERN=LAYOUT*"),
    (["REF", "--porting-ledger=gone.lock"], "*--porting-ledger: *gone.lock: no such ledger*"),
    (["REF", "--porting-report=x.html"], "*--porting-report needs --porting-port*"),
])
def test_wrong_options_are_refused_before_anything_runs(project, arguments, sentence):
    result = project(*(project.reference if word == "REF" else word for word in arguments))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (result.stderr if "ERROR" in result.stderr.str() else result.stdout).fnmatch_lines([sentence])


def test_the_tolerance_and_the_report(project):
    loose = project(project.reference, "--porting-port=my_port:build_wrong", "--porting-tol=approximate", "--porting-report=out.json")
    loose.assert_outcomes(passed=14)
    exact = project(project.reference, "--porting-port=my_port:build", "--porting-tol=exact", "--porting-report=out.html")
    assert exact.parseoutcomes()["failed"] > 3
    folder = project.pytester.path
    report = json.loads((folder / "out.json").read_text())
    assert (report["tolerance"], report["num_calls"], report["num_checked"], report["passed"]) == ("approximate", 14, 14, True)
    assert "blocks.1.norm" in (folder / "out.html").read_text()


def test_it_works_under_xdist(project):
    result = project(project.reference, "--porting-port=my_port:build_wrong", "-n", "2", "--porting-report=out.json", process=True)
    result.assert_outcomes(passed=12, failed=2)
    report = json.loads((project.pytester.path / "out.json").read_text())
    assert (report["num_calls"], report["num_checked"], report["num_failed"]) == (14, 14, 2)
    assert report["first_divergence"] == "blocks.1.norm.out.0"
    assert [row["name"] for row in report["rows"]][:2] == ["blocks.0.norm.out.0", "blocks.0.up.out.0"]
    assert report["cause"]["cause"] == "eps"


def test_the_fixtures(project):
    project.pytester.makepyfile("""
        import pytest, porting, my_port
        def test_capture(porting_ref, porting_port, porting_tol):
            assert "blocks.0.up.in.0" in porting_ref and "head" in porting_port and porting_tol.name == "strict"
        def test_layer_right(porting_layer):
            assert porting_layer(my_port.linear("head"), "head").passed
        def test_layer_wrong(porting_layer):
            with pytest.raises(porting.ParityError):
                porting_layer(my_port.linear("blocks.0.up"), "head")
    """)
    chosen = ("-m", "not porting", "--porting-tol=strict")
    project(project.reference, "--porting-port=my_port:build", *chosen).assert_outcomes(passed=3, deselected=14)
    result = project()
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*the fixture porting_ref needs --porting-ref=CAPTURE*"])


def test_without_its_options_it_changes_nothing_and_imports_nothing(project):
    project.pytester.makepyfile("""
        import sys
        def test_alone():
            assert not {"torch", "numpy", "porting._core"} & set(sys.modules)
    """)
    result = project("--strict-markers", process=True)
    result.assert_outcomes(passed=1)
    assert "porting" not in "".join(line for line in result.outlines if not line.startswith(("plugins:", "rootdir:")))


def test_the_entry_point_names_the_plugin():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    settings = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["pytest11"] == {"porting": "porting.pytest_plugin"}


def test_a_ledger_fails_the_session(project, pytester, capture):
    """Every test passes; a module that is worse than the ledger says fails the session all the same, with its sentence."""
    from porting.ledger import apply, read, write

    ledger = pytester.path / "porting.lock"
    arguments = ("--porting-ref", str(capture), "--porting-port", "my_port:build", "--porting-ledger", "porting.lock", "--porting-tol", "close")
    done = project(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR and "no such ledger" in done.stderr.str()
    report = porting.compare(capture, str(capture), tol="close", explain=False)
    apply(report, ledger, update=True)
    done = project(*arguments, "-k", "norm")  # a part only: what did not run is not gone
    assert "not compared in this run" not in done.stdout.str()
    entries = read(ledger)
    done = project(*arguments)
    assert done.ret == 1 and " was exact, and is " in done.stdout.str()
    write(ledger, [e.__class__(e.name, "red", e.max_ulp, e.err, e.tol) for e in entries.values() if e.name == "blocks.0.norm"])
    assert project(*arguments).ret == 0  # nothing is worse than red


def test_a_layout_is_for_callables_modules_and_files(project, capture, tmp_path):
    """The same transposed port passes with its layout and fails without; a layout that is for nothing is told."""
    project.pytester.makepyfile(laid_out="""
        import numpy as np
        from my_port import build as right
        def build():
            return {name: (lambda port: lambda x: np.ascontiguousarray(port(x.swapaxes(-1, -2)).swapaxes(-1, -2)))(port) for name, port in right().items()}
        def fixture_port(x):
            return right()["blocks.0.norm"](x.swapaxes(-1, -2)).swapaxes(-1, -2)
    """)
    project.pytester.makepyfile(test_layer_in_layout="""
        def test_it(porting_layer):
            from laid_out import fixture_port
            porting_layer(fixture_port, "blocks.0.norm")
    """)
    layout = "--porting-layout=b c t -> b t c"
    project(project.reference, "--porting-port=laid_out:build", layout).assert_outcomes(passed=15)
    project(project.reference, "--porting-port=laid_out:build", "-k", "norm").assert_outcomes(failed=4, deselected=11)
    result = project(project.reference, "--porting-port=laid_out:build", "--porting-layout=*.nrom.out.0=b c t -> b t c", "-k", "port")
    result.stdout.fnmatch_lines(["*layout 'b c t -> b t c': no tensor of the calls that were run has a name like [*].nrom.out.0*"])
    with porting.open(capture) as opened:
        arrays = {name: array.swapaxes(-1, -2).copy() if name.split(".out.")[0].split("@")[0].endswith("norm") else array
                  for name, array in opened.items() if ".out." in name or name.startswith(("out.", "@"))}
    np.savez(tmp_path / "port.npz", **{name: array for name, array in arrays.items() if "norm" in name})
    for words, failed in (((layout,), 0), ((), 4)):
        done = project(project.reference, f"--porting-port={tmp_path / 'port.npz'}", "-k", "porting and norm", *words)
        done.assert_outcomes(passed=4 - failed, failed=failed, deselected=23)
