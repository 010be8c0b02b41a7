"""Puts ports into the running model: `with porting.graft(pipe, {"model.model.layers.*.mlp": my_mlp}) as grafted: pipe(prompt)`.

While the block runs, the modules that the patterns name return what the ports make of their inputs. Each call is compared with what the module itself returns
for the same inputs, and each call of a root with what the whole model returns without the ports; `grafted.report` holds both.

What a port cannot do is keep state: the module itself runs too, on the model's own arguments, and so keeps the caches; the port gets copies. Gradients do not go through a port.
This file imports torch; nothing that only reads captures needs it.
"""
from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from . import structure
from ._core import PortingError
from .compare import check_layout_used, match_leaves, module_matches, row_of
from .interop.names import LaidOutPort
from .live import Forwards, copied, leaves_of, with_leaves
from .modules import Parameters, find_roots
from .naming import full_name, suggest
from .pair import compare_arrays
from .port import as_array, run_port, to_torch
from .report import Report, Row
from .tensors import is_leaf
from .tolerance import UNIT_ROUNDOFF, Tolerance, classify, condition_scale, resolve

ROOT = "root"  # kind of the rows of a root's outputs


class _Names:
    """What `module_matches` and layouts ask of a capture."""

    def __init__(self, root: str, module: Any = None) -> None:
        self.root = root
        config = getattr(module, "config", None)
        self.manifest = {"model": {"roots": {root: {"config": config.to_dict()}}}} if hasattr(config, "to_dict") else {}


class _Target:
    """A module that a port stands in for."""

    def __init__(self, names: list[str], module: torch.nn.Module, port: Callable[..., Any]) -> None:
        self.names, self.module, self.port = names, module, port
        self.parameters = Parameters(module)
        self.num_calls = 0

    @property
    def name(self) -> str:
        return self.names[0]


class _Call:
    """The inputs of one call, in the form in which `run_port` takes a captured one."""

    def __init__(self, target: _Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names, values = target.parameters.bind(args, kwargs)
        self.module, self.number = target.name, target.num_calls
        self.outputs: dict[str, np.ndarray] = {}  # the module's own, when it has run
        self.inputs: dict[str, np.ndarray] = {}
        self.arguments: dict[str, Any] = {}
        self.input_names = {str(place): name for place, name in enumerate(names)}
        for place, (name, value) in enumerate(zip(names, values)):
            leaves, tree = structure.flatten(value, is_leaf, "")
            paths = [f"{place}.{path}" if path else str(place) for path, _ in leaves]
            arrays = [np.array(as_array(leaf)) for _, leaf in leaves]
            self.inputs.update(zip(paths, arrays))
            self.arguments[name] = structure.rebuild(tree, arrays)

    def full_name(self, phase: str, leaf: str) -> str:
        return full_name(self.module, self.number, phase, leaf)


class Graft:
    """What `porting.graft` gives: a context manager. After the block, and in it, `report` says how far the ports are from the modules.

    Attributes
    ----------
    report : Report: a row for each output of each call of a grafted module (on the inputs that the call had), and one for each output of each root call (kind "root"): there
        the reference is the same call without any port. Rows of kind "root" whose reason names a token say whether the greatest logit is the same. `report.cause` is the
        diagnosis of the first call that a port got wrong, made when the report is first asked for
    modules : the paths of the grafted modules, each by its first name
    """

    def __init__(self, model: Any, ports: Mapping[str, Callable[..., Any]], *, tol: str | Tolerance = "auto", compare_root: bool = True,
                 explain: bool = True, layout: str | Mapping[str, str] | None = None) -> None:
        if not isinstance(ports, Mapping) or not ports or not all(callable(port) for port in ports.values()):
            raise PortingError("graft takes a mapping of module patterns to callables, such as {'model.model.layers.*.mlp': my_mlp}")
        self._roots = find_roots(model, None)
        self._tol = resolve(tol)
        if layout is not None:
            names = _Names(*next(iter(self._roots.items())))
            laid_out = {id(port): LaidOutPort(port, layout, names) for port in ports.values()}
            ports = {pattern: laid_out[id(port)] for pattern, port in ports.items()}
        self._laid_out = list(ports.values()) if layout is not None else []
        self._targets = _targets(self._roots, ports)
        self._compare_root = compare_root
        self._forwards = Forwards()
        self._local = threading.local()
        self._rows: list[Row] = []
        self._num_calls = 0
        self._explain = explain
        self._suspect: tuple[_Target, Any, dict[str, np.ndarray], Any] | None = None  # the first call that diverged: its arguments, what the port returned, the verdict
        self._cause: Any = None
        self._steps = dict.fromkeys(self._roots, 0)

    @property
    def modules(self) -> list[str]:
        return [target.name for target in self._targets]

    @property
    def report(self) -> Report:
        warnings = [] if self._num_calls else ["no grafted module was called"]
        try:
            check_layout_used(self._laid_out if self._num_calls else ())
        except PortingError as error:
            warnings.append(str(error))
        report = Report(list(self._rows), self._num_calls, what="compare", tolerance=self._tol.name, environment={"mode": "graft"}, warnings=warnings)
        if self._suspect is not None and self._cause is None:
            self._cause = self._diagnosis(*self._suspect)
        report.cause = self._cause
        return report

    def _diagnosis(self, target: _Target, arguments: Any, found: dict[str, np.ndarray], verdict: Any) -> Any:
        from .diagnose import Diagnosis, in_accord
        from .diagnose.explain import explain_run

        try:
            with self._without_ports(), torch.no_grad():
                return in_accord(replace(explain_run(target.module, found, *arguments), module=target.name), verdict)
        except (PortingError, ValueError) as error:
            return Diagnosis(target.name, "not-run", str(error), 0.0, float("inf"))

    # ------------------------------------------------------------ in and out

    def __enter__(self) -> Graft:
        if self._forwards:
            raise PortingError("these ports are grafted already")
        try:
            for target in self._targets:
                self._forwards.replace(target.module, self._grafted(target, target.module.forward))
            if self._compare_root:
                for name, root in self._roots.items():
                    self._forwards.replace(root, self._watched(name, root, root.forward))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> bool:
        self.close()
        return False

    def close(self) -> None:
        """Puts every module's own forward back. May be called twice."""
        self._forwards.close()

    # ------------------------------------------------------------ what runs in the place of forward

    def _grafted(self, target: _Target, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)  # models ask for the signature of a forward
        def forward(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._local, "off", 0):
                return original(*args, **kwargs)
            call = _Call(target, args, kwargs)
            arguments = copied((args, kwargs)) if self._explain and self._suspect is None else None  # before the module changes its caches
            with self._without_ports():
                expected = original(*args, **kwargs)
            number = target.num_calls
            target.num_calls += 1
            with torch.no_grad():
                return self._answer(target, number, call, expected, arguments)

        return forward

    def _watched(self, name: str, root: torch.nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._local, "off", 0) or getattr(self._local, "inside", False):
                return original(*args, **kwargs)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                copies = copied((args, kwargs))
                with self._without_ports():
                    expected = original(*copies[0], **copies[1])
            self._local.inside = True
            try:
                output = original(*args, **kwargs)
            finally:
                self._local.inside = False
            self._compare_roots(name, root, expected, output)
            return output

        return forward

    def _without_ports(self) -> _Off:
        return _Off(self._local)

    # ------------------------------------------------------------ comparing

    def _answer(self, target: _Target, number: int, call: _Call, expected: Any, arguments: Any) -> Any:
        """What the model gets: the port's outputs in the form, dtype and device of the module's own."""
        where = f"{target.name} call {number}"
        originals = leaves_of(expected)
        call.outputs = {leaf: as_array(tensor) for leaf, tensor in originals.items()}
        try:
            with self._without_ports():  # a port may call the module that it stands for
                found = run_port(target.port, call)
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"porting.graft: in the port of {where}")
            raise
        if not originals:
            raise PortingError(f"{where}: the module returned no tensor, so that there is nothing for a port to return")
        matched = match_leaves(list(originals), found)
        if not matched:
            raise PortingError(f"{where}: the port returned {'output ' + ', '.join(found) if found else 'no tensor'}, expected the module's output {', '.join(originals)}")
        self._num_calls += 1
        step = max(self._steps.values(), default=0)
        at = {"module": target.name, "call": number, "step": step}
        class_name = type(target.module).__name__
        weights = {name: as_array(p) for name in ("weight", "bias") if isinstance(p := getattr(target.module, name, None), torch.Tensor)}
        kind = classify(class_name, weights)
        tensors: dict[str, torch.Tensor] = {}
        for leaf, original in originals.items():
            name, e = full_name(target.name, number, "out", leaf), as_array(original)
            if leaf not in matched:
                reason = f"the port returned no tensor for it; it returned {', '.join(found)}. The module's own is used"
                self._rows.append(Row(name, kind=kind, status="missing", reason=reason, shape=e.shape, dtype=e.dtype.name, **at))
                continue
            a, note = _converted(matched[leaf], e, f"{where}, output {leaf}")
            scale, terms = condition_scale(kind, e, list(call.inputs.values()), weights, class_name)
            row = row_of(compare_arrays(e, a, tol=self._tol.of(at["module"]), kind=kind, scale=scale, terms=terms), name=name, kind=kind, **at)
            self._rows.append(replace(row, reason=row.reason + note))
            if not row.passed and arguments is not None and self._suspect is None:
                self._suspect = target, arguments, matched, row.verdict
            tensors[leaf] = to_torch(a).to(original.device)
        return with_leaves(expected, lambda path, tensor: tensors.get(path, tensor))

    def _compare_roots(self, name: str, root: torch.nn.Module, expected: Any, output: Any) -> None:
        step = self._steps[name]
        self._steps[name] += 1
        ours, theirs = leaves_of(expected), leaves_of(output)
        depth = 64 * sum(1 for _ in root.modules())
        for leaf, e in ours.items():
            if leaf not in theirs:
                continue
            expected_array, actual = as_array(e), as_array(theirs[leaf])
            found = compare_arrays(expected_array, actual, tol=self._tol, kind="composite", terms=depth)
            row = row_of(found, name=full_name(name, step, "out", leaf), module=name, call=step, step=step, kind=ROOT)
            self._rows.append(replace(row, reason=row.reason + _choice(leaf, expected_array, actual)))
        self._num_calls += bool(ours)


def graft(model: Any, ports: Mapping[str, Callable[..., Any]], *, tol: str | Tolerance = "auto", compare_root: bool = True,
          explain: bool = True, layout: str | Mapping[str, str] | None = None) -> Graft:
    """Run a model with ports in the place of some of its modules.

    Parameters
    ----------
    model : a torch.nn.Module, a Hugging Face pipeline or another object that holds modules
    ports : shell patterns of module paths (`"model.model.layers.*.mlp"`, with or without the root's name) to callables. A callable is called as
        `porting.test_layer` calls it: with NumPy arrays, or torch tensors if it is a module or marked `wants_torch`
    tol : preset name or Tolerance, for the rows of `report`
    compare_root : whether each call of a root is run once more without the ports, on a copy of its arguments, to see what they do to the answer
    explain : whether the first call that a port got wrong is diagnosed (`report.cause`); its arguments are kept for that
    layout : how the ports' axes become the modules', as `porting.test_layer` has it; the ports get their inputs in their own layout

    Returns
    -------
    Graft : a context manager. In the block the ports are there; on every way out the modules' own forwards are back. `report` holds what was found

    Raises
    ------
    PortingError : a pattern names no module; two patterns name one; a port's module is inside another's. In the block: the port's output has another shape

    Notes
    -----
    What a port returns takes the dtype and the device of what the module returned. Outputs that it does not return (the second of a tuple) are the module's own, and
    a row says so. A module with several paths (tied) is grafted once, for all of them.
    """
    return Graft(model, ports, tol=tol, compare_root=compare_root, explain=explain, layout=layout)


class _Off:
    """While it is entered, in this thread, every module is itself."""

    def __init__(self, local: threading.local) -> None:
        self._local = local

    def __enter__(self) -> None:
        self._local.off = getattr(self._local, "off", 0) + 1

    def __exit__(self, *error: object) -> None:
        self._local.off -= 1


def _targets(roots: Mapping[str, torch.nn.Module], ports: Mapping[str, Callable[..., Any]]) -> list[_Target]:
    """The modules that the patterns name, in the order of named_modules(). Raises PortingError for patterns that cannot be followed."""
    paths: dict[int, list[str]] = {}
    modules: dict[int, torch.nn.Module] = {}
    root_of: dict[int, str] = {}
    for root_name, root in roots.items():
        for path, module in root.named_modules(prefix=root_name, remove_duplicate=False):
            paths.setdefault(id(module), []).append(path)
            modules.setdefault(id(module), module)
            root_of.setdefault(id(module), root_name)
    chosen: dict[int, str] = {}
    for pattern in ports:
        hits = [key for key, names in paths.items() if any(module_matches(name, pattern, _Names(root_of[key])) for name in names)]
        if not hits:
            near = suggest(pattern, [name for names in paths.values() for name in names])
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise PortingError(f"no module matches {pattern!r}{hint}")
        for key in hits:
            before = chosen.setdefault(key, pattern)
            if before != pattern and ports[before] is not ports[pattern]:
                raise PortingError(f"{paths[key][0]} is matched by {before!r} and by {pattern!r}: one port can stand in for it")
    for key, pattern in chosen.items():
        if isinstance(modules[key], torch.jit.ScriptModule):
            raise PortingError(f"{paths[key][0]} is a script module: its forward cannot be replaced")
        inner = next((k for m in modules[key].modules() if (k := id(m)) != key and k in chosen), None)
        if inner is not None:
            raise PortingError(f"{paths[inner][0]} ({chosen[inner]!r}) is inside {paths[key][0]} ({pattern!r}), which a port stands in for: it would never be called")
    return [_Target(paths[key], modules[key], ports[chosen[key]]) for key in paths if key in chosen]


def _converted(a: np.ndarray, e: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """(the port's array in the dtype of the module's output, what was done to it). Raises PortingError where that cannot be."""
    if a.shape != e.shape:
        raise PortingError(f"{where}: the port returned shape {list(a.shape)}, the module {list(e.shape)}: the model cannot go on with it")
    if a.dtype == e.dtype:
        return a, ""
    if {a.dtype.name, e.dtype.name} <= UNIT_ROUNDOFF.keys():
        return a.astype(e.dtype), f"; the port returned {a.dtype.name}, rounded to {e.dtype.name}"
    raise PortingError(f"{where}: the port returned {a.dtype.name}, the module {e.dtype.name}")


def _choice(leaf: str, expected: np.ndarray, actual: np.ndarray) -> str:
    """Of logits: whether the greatest of the last position is the same."""
    if leaf.rpartition(".")[2] != "logits" or expected.shape != actual.shape or expected.ndim < 2 or not expected.size:
        return ""
    same = expected[..., -1, :].argmax(-1) == actual[..., -1, :].argmax(-1)
    return f"; the greatest logit of the last position is {'the same' if np.all(same) else 'another one'}"
