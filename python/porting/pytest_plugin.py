"""The pytest plugin: every captured module call is a test of a port.

    pytest --porting-ref run.capture --porting-port my_port:build

`build()` returns a mapping of module patterns to callables, a torch.nn.Module with the reference's module names, a mapping of full
names to arrays, or the path of a capture or of files. The tests stand in the order in which the modules returned, so `-x` stops at
the innermost module that diverges first, and its failure says why. docs/PYTEST.md is for users.

Without its options the plugin does nothing: it imports neither torch nor NumPy, adds no test and changes no other.
"""
from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .places import check_place, make_way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .capture import Capture
    from .report import Report
    from .trial import Outcome

REPORT_SUFFIXES = (".html", ".json", ".txt")
MOST_CAUSES = 5  # diagnoses in one process: each runs the module some hundred times
_PLAN = pytest.StashKey["Plan"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("porting", "compare a port with a captured PyTorch model")
    group.addoption("--porting-ref", metavar="CAPTURE", help="the reference: a directory that `porting capture` wrote")
    group.addoption("--porting-port", metavar="MODULE:FACTORY",
                    help="what FACTORY() returns is tested, one test per captured module call; also FILE.py:FACTORY, or the path of a capture or of files")
    group.addoption("--porting-names", metavar="MAP", action="append", help="what the reference calls the port's tensors: a TOML file, llama.cpp, flax, zml, onnx or nnef")
    group.addoption("--porting-layout", metavar="[PATTERN=]LAYOUT", action="append",
                    help='how the port\'s axes become the reference\'s, such as "NHWC -> NCHW" (docs/NAMES.md)')
    group.addoption("--porting-tol", metavar="T", default="auto", help="auto, strict, exact, close, approximate, ulp(N), pcc(X), allclose(RTOL, ATOL), or a TOML file")
    group.addoption("--porting-ledger", metavar="FILE", help="fail if a module is worse than FILE (porting.lock) says it has been")
    group.addoption("--porting-report", metavar="FILE", help=f"write the report; the ending says how: {', '.join(REPORT_SUFFIXES)}")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "porting: a test of a port, one for each captured module call")
    config.addinivalue_line("markers", "parity: a test made by porting.parity")
    ref, port, report = (config.getoption(f"--porting-{name}") for name in ("ref", "port", "report"))
    if ref is None:
        for name, value in (("port", port), ("report", report)):
            if value is not None:
                raise pytest.UsageError(f"--porting-{name} needs --porting-ref=CAPTURE: what to compare with")
        return
    if not os.path.isdir(_from_start(config, ref)):
        raise pytest.UsageError(f"--porting-ref: {ref} is not a capture: there is no such directory")
    if report is not None:
        if port is None:
            raise pytest.UsageError("--porting-report needs --porting-port=MODULE:FACTORY: what to report on")
        if not report.endswith(REPORT_SUFFIXES):
            raise pytest.UsageError(f"--porting-report: expected a file that ends with {', '.join(REPORT_SUFFIXES)}, got {report}")
        try:
            check_place(_from_start(config, report))
        except OSError as error:
            raise pytest.UsageError(f"--porting-report: {report}: {error.strerror}") from None
    from .tolerance import resolve

    try:
        resolve(config.getoption("--porting-tol"))
    except (ValueError, OSError) as error:
        raise pytest.UsageError(f"--porting-tol: {error}") from None
    _check_maps(config)


def _check_maps(config: pytest.Config) -> None:
    """Name maps, layouts and the ledger, as far as they can be looked at before the port is there."""
    from ._core import PortingError
    from .interop.layout import read_words
    from .interop.names import load
    from .ledger import expect

    ledger = config.getoption("--porting-ledger")
    for option, look in (("--porting-names", lambda: load(_names(config)) if _names(config) else None),
                         ("--porting-layout", lambda: read_words(config.getoption("--porting-layout"), "--porting-layout")),
                         ("--porting-ledger", lambda: expect(None if ledger is None else _from_start(config, ledger), False, None))):
        try:
            look()
        except (PortingError, ValueError) as error:
            raise pytest.UsageError(str(error) if str(error).startswith(option) else f"{option}: {error}") from None
        except OSError as error:
            raise pytest.UsageError(f"{option}: {error.filename}: {error.strerror}") from None


def _names(config: pytest.Config) -> list[str]:
    """The words of --porting-names: conventions as they are, files from where pytest was started."""
    from .interop.names import CONVENTIONS

    return [name if name in CONVENTIONS or not os.path.exists(_from_start(config, name)) else _from_start(config, name)
            for name in config.getoption("--porting-names") or ()]


def pytest_unconfigure(config: pytest.Config) -> None:
    plan = config.stash.get(_PLAN, None)
    if plan is not None:
        plan.close()


def _from_start(config: pytest.Config, path: str) -> str:
    """A path as the user meant it: from where pytest was started."""
    return os.path.normpath(os.path.join(config.invocation_params.dir, path))


# ---------------------------------------------------------------- what is tested


def load_port(config: pytest.Config, text: str) -> Any:
    """What MODULE:FACTORY, or the path, names. Raises PortingError with one sentence; what FACTORY raises comes through."""
    from ._core import PortingError

    path = _from_start(config, text)
    if os.path.exists(path):
        return path
    module_name, colon, factory_name = text.rpartition(":")
    if not colon or not module_name or not factory_name:
        raise PortingError(f"--porting-port: expected MODULE:FACTORY or an existing path, got {text}")
    start = str(config.invocation_params.dir)
    if start not in sys.path:
        sys.path.insert(0, start)
    if module_name.endswith(".py"):
        file = _from_start(config, module_name)
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        if not os.path.isfile(file) or spec is None or spec.loader is None:
            raise PortingError(f"--porting-port: there is no file {module_name}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the port's own import
            raise PortingError(f"--porting-port: there is no module {error.name} in {start} or on sys.path") from None
    factory: Any = module
    for name in factory_name.split("."):
        factory = getattr(factory, name, None)
    if not callable(factory):
        raise PortingError(f"--porting-port: {module_name} has no function {factory_name}")
    return factory()


class Plan:
    """The opened reference, the port and the calls to test: made once in each process that runs tests."""

    def __init__(self, config: pytest.Config) -> None:
        from .capture import open as open_capture
        from .compare import in_order_of_return
        from .interop.layout import read_words
        from .tolerance import resolve

        self.port_text: str = config.getoption("--porting-port") or ""
        self.tol = resolve(config.getoption("--porting-tol"))
        self.capture: Capture = open_capture(_from_start(config, config.getoption("--porting-ref")))
        self.layout = read_words(config.getoption("--porting-layout"), "--porting-layout")
        self.port: Any = None
        self.form = "module"
        self.error: BaseException | None = None
        self.calls: list[Any] = []
        self.unmatched: list[str] = []
        self.failed: list[Any] = []  # calls that did not agree, in this process
        self.num_causes = 0
        self._named: tuple[Report, Any] | None = None
        if self.port_text:
            try:
                self._load(config, in_order_of_return(self.capture.call_list))
            except Exception as error:  # becomes the one test that fails
                self.error = error

    def _load(self, config: pytest.Config, calls: list[Any]) -> None:
        from collections.abc import Mapping

        from ._core import PortingError
        from .compare import _is_callables, module_matches, under_reference_names
        from .interop.names import load
        from .port import open_port

        self.names = load(_names(config)) if _names(config) else None
        self.port = load_port(config, self.port_text)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(self.port, torch.nn.Module):
            own = self.port.named_modules(remove_duplicate=False)
            modules = {name if self.names is None else self.names.module(name, self.capture): module for name, module in own}
            self.modules = under_reference_names(modules, self.capture, None, self.layout)
            self._check_layout(calls)
            self.calls, self.form = calls, "module"
            return
        if not isinstance(self.port, (str, os.PathLike, Mapping)):
            raise PortingError(f"--porting-port: {self.port_text} returned {type(self.port).__name__}; expected a mapping of module patterns to"
                               " callables, a torch.nn.Module, a mapping of names to arrays, or a path")
        self.port = open_port(self.port)
        self.form = "callables" if _is_callables(self.port) else "names"
        self.port = under_reference_names(self.port, self.capture, self.names, self.layout)
        if self.form == "callables":
            self.unmatched = [p for p in self.port if not any(module_matches(c.module, p, self.capture) for c in calls)]
            calls = [c for c in calls if any(module_matches(c.module, p, self.capture) for p in self.port)]
            self._check_layout(calls)
        self.calls = calls

    def _check_layout(self, calls: list[Any]) -> None:
        """A layout that is for none of the calls' tensors is told before any of them runs."""
        from .compare import check_layout_used

        for call in calls if self.layout is not None else ():
            port = self._function(call.module)
            if port is not None:
                port.is_for(call)
        check_layout_used(self.modules.values() if self.form == "module" else self.port.values())

    def close(self) -> None:
        self.capture.close()
        if hasattr(self.port, "call_list"):
            self.port.close()

    def judge(self, call: Any) -> Outcome:
        """Puts one call to the port."""
        from .report import Row
        from .trial import Outcome, judge_call

        if self.form == "names":
            return self._judge_named(call)
        port = self._function(call.module)
        if port is not None:
            return judge_call(self.capture, call, port, self.tol)
        rows = [Row(call.full_name("out", leaf), call.module, call.number, call.step, "", "missing", reason="the port has no module of this name",
                    shape=array.shape, dtype=array.dtype.name) for leaf, array in call.outputs.items()]
        return Outcome(self.capture, call, rows)

    def _function(self, module: str) -> Any:
        from .compare import module_matches

        if self.form == "callables":
            return next((self.port[p] for p in self.port if module_matches(module, p, self.capture)), None)
        if module in self.modules:
            return self.modules[module]
        for root in self.capture.roots:
            if root and (module == root or module.startswith(root + ".")):
                return self.modules.get(module[len(root) + 1:])
        return None

    def _judge_named(self, call: Any) -> Outcome:
        """The rows of a port that is arrays under names: compared as a whole, once."""
        from .compare import compare, match_prefix
        from .trial import Outcome

        if self._named is None:
            self._named = (compare(self.capture, self.port, tol=self.tol), match_prefix(self.capture, self.port))
        report, translate = self._named
        rows = [row for row in report.rows if row.status != "extra" and (row.module, row.call) == (call.module, call.number)]
        found = {}
        for leaf, expected in call.outputs.items():
            name = translate(call.full_name("out", leaf))
            if name in self.port and self.port[name].shape == expected.shape:
                found[leaf] = self.port[name]
        return Outcome(self.capture, call, rows, found)

    def cause(self, outcome: Outcome) -> Any:
        """Why a call diverges: a Diagnosis, a sentence, or None where there is nothing to diagnose."""
        call = outcome.call
        inside = next((c for c in self.failed if c.step == call.step and _encloses(call.module, c.module)), None)
        if inside is not None:
            return f"{inside.module}, inside it, diverges before it"
        first = self._named[0].first_divergence if self._named is not None else None
        if self._named is not None and first is not None and (first.module, first.call) == (call.module, call.number):
            return self._named[0].cause
        if any(row.inputs_differ for row in outcome.rows):
            return "not asked: the port's inputs of this call are not the reference's"
        if self.num_causes >= MOST_CAUSES:
            return f"not asked: the first {MOST_CAUSES} failures are diagnosed"
        self.num_causes += 1
        return outcome.cause()


def _encloses(outer: str, inner: str) -> bool:
    return outer != inner and (outer == "" or inner.startswith(outer + "."))


def plan_of(config: pytest.Config) -> Plan:
    """The plan of this process; made when it is first needed."""
    if _PLAN not in config.stash:
        config.stash[_PLAN] = Plan(config)
    return config.stash[_PLAN]


# ---------------------------------------------------------------- the tests


class CaptureNode(pytest.Collector):
    """Collects the calls of the reference that the port is asked for."""

    def collect(self) -> Iterator[pytest.Item]:
        plan = plan_of(self.config)
        if plan.error is not None:
            yield PortItem.from_parent(self, name="port", error=plan.error)
            return
        for pattern in plan.unmatched:
            from ._core import PortingError
            from .compare import no_such_module

            yield PortItem.from_parent(self, name=pattern, error=PortingError(f"{plan.capture.path}: {no_such_module(pattern, plan.capture)}"))
        for place, call in enumerate(plan.calls):
            name = (call.module or "(root)") + (f"@{call.number}" if call.number else "")
            item = CallItem.from_parent(self, name=name, place=place)
            item.extra_keyword_matches.update((f"call{call.number}", f"step{call.step}"))  # -k does not take @
            yield item


class PortItem(pytest.Item):
    """The test that fails if the port could not be loaded, or one of its patterns names nothing."""

    def __init__(self, *, error: BaseException, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error
        self.add_marker("porting")

    def runtest(self) -> None:
        raise self.error

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        from ._core import PortingError

        return str(excinfo.value) if isinstance(excinfo.value, (PortingError, OSError)) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[str, None, str]:
        return "porting", None, f"porting {self.name}"  # not the end of the node's id: pytest would write :: for its dots


class CallItem(pytest.Item):
    """One captured module call. It passes if the port's outputs are the reference's, as the tolerance says."""

    def __init__(self, *, place: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.place = place
        self.finding: dict[str, Any] | None = None
        self.add_marker("porting")

    def runtest(self) -> None:
        from .testing import ParityError

        plan = plan_of(self.config)
        call = plan.calls[self.place]
        outcome = plan.judge(call)
        cause = None
        try:
            if not outcome.passed:
                cause = plan.cause(outcome)
                plan.failed.append(call)
                raise ParityError(outcome.text(cause))
        finally:
            for row in outcome.rows:
                row.tolerance = plan.tol.said_of(row.module) if row.verdict is not None else None
            self.finding = {"place": self.place, "num_calls": len(plan.calls), "tolerance": plan.tol.name, "rows": [plain_row(r) for r in outcome.rows],
                            "cause": cause.to_dict() if hasattr(cause, "to_dict") else None, "reference": plan.capture.path, "port": plan.port_text}

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        from .testing import ParityError

        return str(excinfo.value) if isinstance(excinfo.value, ParityError) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[str, None, str]:
        return "porting", None, f"porting {self.name}"  # not the end of the node's id: pytest would write :: for its dots


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--porting-ref") is None or config.getoption("--porting-port") is None:
        return
    node = CaptureNode.from_parent(session, name="porting", nodeid="porting", path=Path(_from_start(config, config.getoption("--porting-ref"))))
    report = node.ihook.pytest_make_collect_report(collector=node)
    node.ihook.pytest_collectreport(report=report)  # so that it is counted, or its error shown
    items[:0] = report.result  # first: -x must not stop at another test before


# ---------------------------------------------------------------- the report, also from the processes of xdist


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if isinstance(item, CallItem) and report.when == "call" and item.finding is not None:
        report.porting = item.finding  # plain values: they travel from xdist's workers
    return report


class Findings:
    """Gathers what the tests found, in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.findings: list[dict[str, Any]] = []
        self.report: Any = None
        self.ledger_error = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if hasattr(report, "porting"):
            self.findings.append(report.porting)

    @pytest.hookimpl(tryfirst=True)  # before the exit status is shown
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Puts what ran to the ledger: a module that is worse fails the session, though no test did."""
        if not self.findings:
            return
        self.report = report_of(self.findings)
        ledger = self.config.getoption("--porting-ledger")
        if ledger is None:
            return
        from ._core import PortingError
        from .ledger import apply

        try:
            apply(self.report, _from_start(self.config, ledger), partial=len(self.findings) < self.findings[0]["num_calls"])
            worse = bool(self.report.ledger.problems)
        except (PortingError, OSError) as error:
            self.ledger_error, worse = str(error), True
        if worse and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.findings:
            return
        from .report.text import clean, describe

        report = self.report if self.report is not None else report_of(self.findings)
        terminalreporter.section(f"porting: {self.findings[0]['port']} against {os.path.basename(self.findings[0]['reference'])}")
        terminalreporter.line(("passed: " if report.passed else "FAILED: ") + report.summary)
        if report.why_failed:
            terminalreporter.line("failed because " + report.why_failed)
        if self.ledger_error:
            terminalreporter.line("ledger: " + clean(self.ledger_error))
        for text in [*report.ledger.problems, report.ledger.said()] if report.ledger is not None else ():
            terminalreporter.line(clean(text))
        first = report.first_divergence
        if first is not None:
            terminalreporter.line("first divergence: " + "\n".join(describe(first)))
            for i, line in enumerate(str(report.cause).splitlines() if report.cause is not None else ()):
                terminalreporter.line(clean(line) if i else "cause: " + clean(line))
        target = self.config.getoption("--porting-report")
        if target is not None:
            terminalreporter.line("report: " + write_report(report, _from_start(self.config, target)))


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("--porting-port") is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Findings(config), "porting-findings")


def plain_row(row: Any) -> dict[str, Any]:
    """A row as plain values, which travel between processes."""
    return {name: _plain(getattr(row, name)) for name in type(row).__dataclass_fields__}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):  # a Verdict
        return [_plain(getattr(value, name)) for name in value.__dataclass_fields__]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def report_of(findings: list[dict[str, Any]]) -> Report:
    """The Report of all tests that ran, in the order of the reference's execution."""
    from .diagnose import Diagnosis
    from .diagnose.rank import Ranked
    from .report import Report, Row
    from .tolerance import Verdict

    findings = sorted(findings, key=lambda finding: finding["place"])
    rows, cause = [], None
    for finding in findings:
        for fields in finding["rows"]:
            again = {"shape": None if fields["shape"] is None else tuple(fields["shape"])}
            again.update((name, Verdict(*value)) for name, value in fields.items() if name in ("verdict", "chained") and value is not None)
            rows.append(Row(**{**fields, **again}))
        if cause is None and finding["cause"] is not None:
            cause = dict(finding["cause"])
    if cause is not None:
        for name in ("also", "ranked"):
            cause[name] = [Ranked(**ranked) for ranked in cause[name]]
        cause = Diagnosis(**cause)
    first = findings[0]
    return Report(rows, first["num_calls"], what="compare", tolerance=first["tolerance"], cause=cause,
                  environment={"reference": first["reference"], "port": first["port"], "mode": "isolated"})


def write_report(report: Report, path: str) -> str:
    """Writes the report as its ending says; returns the path."""
    make_way(path)
    if path.endswith(".html"):
        return report.to_html(path)
    text = report.to_json() if path.endswith(".json") else report.to_text(all_rows=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return path


# ---------------------------------------------------------------- fixtures


def _required(request: pytest.FixtureRequest, name: str, what: str) -> Plan:
    if request.config.getoption(f"--porting-{name}") is None:
        pytest.fail(f"the fixture {request.fixturename} needs --porting-{name}={what}", pytrace=False)
    return plan_of(request.config)


@pytest.fixture(scope="session")
def porting_ref(request: pytest.FixtureRequest) -> Capture:
    """The opened capture of --porting-ref."""
    return _required(request, "ref", "CAPTURE").capture


@pytest.fixture(scope="session")
def porting_port(request: pytest.FixtureRequest) -> Any:
    """What the factory of --porting-port returned (a path is opened)."""
    plan = _required(request, "port", "MODULE:FACTORY")
    if plan.error is not None:
        raise plan.error
    return plan.port


@pytest.fixture(scope="session")
def porting_tol(request: pytest.FixtureRequest) -> Any:
    """The Tolerance of --porting-tol."""
    from .tolerance import resolve

    return resolve(request.config.getoption("--porting-tol"))


@pytest.fixture(scope="session")
def porting_layer(request: pytest.FixtureRequest, porting_ref: Capture, porting_tol: Any) -> Any:
    """A function `(port, module name, call=None)`: porting.test_layer on the capture of --porting-ref with --porting-tol and --porting-layout."""
    from .testing import test_layer

    def layer(port: Any, name: str, *, call: int | None = None) -> Report:
        return test_layer(port, porting_ref, name, tol=porting_tol, call=call, layout=plan_of(request.config).layout)

    return layer
