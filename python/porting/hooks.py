"""The collector: writes what goes in and out of every module of a PyTorch model into a capture.

    output, activations = porting.ActivationCollector(pipeline, "run.capture")("a prompt")

    with porting.ActivationCollector(model, "run.capture"):
        model(**inputs)

Here is what a user holds: options, the two forms, the beginning and the end of a capture. What happens while the model runs is
in `collecting`. docs/DESIGN.md section 4 has the promises, docs/FORMAT.md section 6 the names.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import json
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import torch

from . import _core
from . import capture as captures
from . import sizes as size_file
from .collecting import Run, StopRun
from .environment import fingerprint
from .live import copied
from .modules import Slot, checkpoint_of, describe_model, describe_module, find_roots, make_slots
from .places import check_place, make_way
from .probe import for_manifest
from .selection import Filter, Selection, describe

LEVELS = ("module", "op", "stats")
BUDGET_BYTES = 256 * 1024 * 1024

_active: contextvars.ContextVar[tuple[Run, ...]] = contextvars.ContextVar("porting_active", default=())


class ActivationCollector:
    """Captures what goes in and out of every module of a model, while the model runs as ever.

    Parameters
    ----------
    model : what is run and looked into: a ``torch.nn.Module``; a Hugging Face pipeline or any object with modules among its
        attributes (each is a root, its attribute's name is the prefix of its names); a bound method of one of these
        (``model.generate``); any callable, if `modules` says what to look into; a mapping of names to modules, for the
        ``with`` form alone.
    path : the capture's directory; must not exist. None: a temporary one that goes when the capture is closed or collected.
    max_layers : only that many entries of everything numbered (``layers.0`` ... ``layers.<max_layers - 1>``); -1: all
    stop_after_first_step : end the run when a root module is called for the second time
    include, exclude : regular expression(s) searched for in module paths, or a function of the path
    blacklist_regexes : the same on full names of tensors (of call 0: ``model.layers.0.mlp.in.0``): these are left out
    level : "module": what goes in and out of every module. "op": also what every ATen op inside them makes (`...op.<k>.<aten name>.out.<i>`)
        "stats": of what goes in and out of modules only statistics, a hash and a sketch (`Capture.stats`), no tensors
    program : record the executed ops: "once" for each pattern of calls, "all" for each call, or False
    weights : store parameters and buffers: True, False, or "auto": if they are less than 2 GB (with level="stats": hashes only). With False they are not hashed.
    budget_bytes : memory for tensors on their way to disk
    modules : a module, or a mapping of names to modules, if they are not to be found in `model`
    sizes : find out which numbers in the recorded programs follow the inputs' sizes, so that `porting.Engine` runs other sizes: each call that is recorded runs
        once more, a batch of one twice, on copies of the model and its inputs that have sizes and no data (about 3 ms for each op)
    noise : after the capture run the model again under other settings and store how far it is from itself (`porting.measure_noise`); the call form only

    Raises
    ------
    FileExistsError : `path` exists
    ValueError : no module is selected, or an option has no such value
    TypeError : no modules can be found in `model`

    Notes
    -----
    The call form returns ``(output, capture)``; output is None if the run was stopped early. In the ``with`` form the model is
    called by the user, and `capture` is there after the block. If the disk fills up, capturing ends and the model's run
    goes on; then `OSError` is raised, with the model's result as its attribute ``output``; what had been stored is readable.
    The model's own exceptions pass through unchanged, the capture so far is closed and readable.

    The step of a module's call is the number of the root call that it is part of; of a call outside any, the number of the
    root call that comes next.
    """

    def __init__(
        self,
        model: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        max_layers: int = -1,
        stop_after_first_step: bool = False,
        include: Filter = None,
        exclude: Filter = None,
        blacklist_regexes: Filter = None,
        level: str = "module",
        program: str | bool = "once",
        weights: str | bool = "auto",
        budget_bytes: int = BUDGET_BYTES,
        modules: torch.nn.Module | Mapping[str, torch.nn.Module] | None = None,
        sizes: bool = False,
        noise: bool = False,
    ) -> None:
        _one_of("level", level, LEVELS)
        _one_of("program", program, ("once", "all", False))
        _one_of("weights", weights, ("auto", True, False))
        if level == "op" and program is False:
            raise ValueError('level="op" keeps the tensors of recorded ops: it needs program="once" or "all", got False')
        if sizes and program is False:
            raise ValueError('sizes=True traces recorded programs: it needs program="once" or "all", got False')
        if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes <= 0:
            raise ValueError(f"budget_bytes is a number of bytes above 0, got {budget_bytes!r}")
        if noise and not callable(model):
            raise ValueError("noise=True runs the model again, which the call form alone can do: call the collector, or use porting.measure_noise")
        self._model, self._modules, self._noise = model, modules, bool(noise)
        self._selection = Selection(include, exclude, blacklist_regexes, max_layers)
        self._roots = find_roots(model, modules)
        self._path = None if path is None else os.fspath(path)
        self._stop = bool(stop_after_first_step)
        self._program = program
        self._weights = weights
        self._budget_bytes = budget_bytes
        self._options = {
            "max_layers": max_layers, "stop_after_first_step": self._stop, "include": describe(include), "exclude": describe(exclude),
            "blacklist_regexes": describe(blacklist_regexes), "level": level, "program": program, "weights": weights,
            "budget_bytes": budget_bytes, "sizes": bool(sizes),
        }  # fmt: skip
        self._run: Run | None = None
        self._manifest: dict[str, Any] = {}
        self._opened: captures.Capture | None = None
        self._directory: str | None = None
        self._given: weakref.ref[captures.Capture] | None = None
        self._owner: weakref.finalize | None = None  # removes a temporary capture that nobody has opened
        self._make_slots()
        if self._path is not None and os.path.lexists(self._path):
            raise FileExistsError(f"{self._path} exists already: choose another path for the capture, or remove it")
        if self._path is not None:
            check_place(self._path, folder=True)

    # -------------------------------------------------------------- the two forms

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, captures.Capture]:
        """Runs the model. Returns (its output, the capture); the output is None if the run was stopped early."""
        if not callable(self._model):
            raise TypeError(
                f"a {type(self._model).__name__} cannot be called: use `with ActivationCollector(...):` and call its modules"
            )
        output = None
        inputs = copied((args, kwargs)) if self._noise else None
        self.__enter__()
        try:
            output = self._model(*args, **kwargs)
        except StopRun:
            output = None
        except BaseException as error:
            self._finish(error)
            raise
        if not any(slot.num_calls for slot in self._run.slots):
            self._run.note("warning", "", "no module was called")
            warnings.warn(
                "porting: the model returned without calling any of its modules, so that the capture is empty (an iterator "
                "does its work later: use the with form)",
                RuntimeWarning,
                stacklevel=2,
            )
        try:
            self.close()
        except OSError as error:
            error.output = output
            raise
        capture = self.capture
        if inputs is not None:
            from .noising import measure_noise_of

            measure_noise_of(self._model, *inputs, capture, self._modules)
        if self._path is None:  # the caller's alone: it goes when the caller drops it
            self._opened, self._given = None, weakref.ref(capture)
        return output, capture

    def __enter__(self) -> ActivationCollector:
        if self._run is not None:
            raise RuntimeError("this collector is running already")
        slots = self._make_slots()
        path = self._make_path()
        self._opened, self._given, self._directory = None, None, path
        writer = _core.Writer(path, self._budget_bytes)
        run = Run(slots, self._selection, writer, self._program, self._stop, self._options["level"], self._options["sizes"])
        try:
            self._begin(run)
        except BaseException:
            run.detach()
            writer.abort()
            raise
        self._run = run
        _active.set((*_active.get(), run))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> bool:
        if isinstance(error, StopRun) and self._run is not None and self._run.stopped:
            self.close()
            return True
        if error is not None:
            self._finish(error)
            return False
        run = self._run
        if run is not None and not any(slot.num_calls for slot in run.slots):
            run.note("warning", "", "no module was called")
            warnings.warn("porting: nothing was captured: none of the model's modules was called in the with block", RuntimeWarning, stacklevel=2)
        self.close()
        return False

    def close(self) -> None:
        """Takes the hooks off and finishes the capture. May be called twice.

        Raises
        ------
        OSError : what stopped the capture before its end, such as a full disk
        """
        run, self._run = self._run, None
        if run is None:
            return
        run.detach()
        _active.set(tuple(r for r in _active.get() if r is not run))
        try:
            self._end(run)
        except OSError as error:
            run.failure = run.failure or error
        if run.failure is not None:
            run.writer.abort()
            raise run.failure

    @property
    def capture(self) -> captures.Capture:
        """The finished capture, opened.

        Raises
        ------
        RuntimeError : nothing has been captured yet, or the run is still going on
        """
        if self._run is not None:
            raise RuntimeError("the capture is still being written: leave the with block, or call close(), first")
        given = self._given() if self._given is not None else None
        if self._opened is None and given is None:
            if self._directory is None or self._given is not None:
                raise RuntimeError("nothing has been captured yet: call the collector, or use it in a with block")
            self._opened = captures.open(self._directory)
            if self._owner is not None:
                self._owner.detach()
                self._opened.own(os.path.dirname(self._directory))
        return given if self._opened is None else self._opened

    # -------------------------------------------------------------- beginning and end

    def _make_slots(self) -> list[Slot]:
        slots = make_slots(self._roots, self._selection)
        if not any(slot.selected for slot in slots):
            some = ", ".join(repr(slot.name) for slot in slots[:4] + slots[4:][-2:])
            raise ValueError(f"no module is selected by the filters; there are {len(slots)}, such as {some}")
        return slots

    def _make_path(self) -> str:
        if self._path is None:
            folder = tempfile.mkdtemp(prefix="porting-")
            self._owner = weakref.finalize(self, _remove, folder)
            return os.path.join(folder, "run.capture")
        if self._directory is not None:
            raise FileExistsError(
                f"this collector has written {self._path} already: make a new collector with another path, or one without a path, "
                "which can be used again"
            )
        if os.path.lexists(self._path):
            raise FileExistsError(f"{self._path} exists already: choose another path for the capture, or remove it")
        make_way(self._path)
        return self._path

    def _begin(self, run: Run) -> None:
        """All that is known before the model runs goes into the manifest, for captures that are never closed."""
        self._manifest = {
            "format": "porting.capture",
            "version": 1,
            "finished": False,
            "world_size": 1,
            "created": _now(),
            "creator": f"porting on torch {torch.__version__}",
            "model": describe_model(self._model, self._roots),
            "environment": fingerprint(),
            "options": self._options,
            "modules": [describe_module(slot) for slot in run.slots],
        }
        for slot in run.slots:
            for alias in slot.paths[1:]:
                run.writer.alias(alias, slot.name)
        parameters = run.weights.store(self._weights, keep=self._options["level"] != "stats")
        parameters["checkpoint"] = checkpoint_of(self._roots)
        self._manifest["parameters"] = parameters
        run.writer.set_manifest(json.dumps(self._manifest))
        run.attach()

    def _end(self, run: Run) -> None:
        run.weights.note_changes()
        if run.failure is None and run.recorder is not None:
            programs = {"format": "porting.program", "version": 1, "programs": run.recorder.programs()}
            _write_file(os.path.join(run.writer.path, "program.json"), json.dumps(programs, separators=(",", ":")))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(run.writer.path, "program.jsonl"))
        if run.failure is None and run.tracer is not None:
            _write_file(os.path.join(run.writer.path, size_file.FILE), json.dumps({**size_file.FORMAT, "programs": run.tracer.entries}, separators=(",", ":")))
        if run.failure is None:
            answers = for_manifest()  # here, so that no run starts later for it
            if answers is not None:
                self._manifest["environment"]["probe"] = answers
            run.writer.close(json.dumps({**self._manifest, "finished": True}))

    def _finish(self, error: BaseException) -> None:
        """Ends the capture of a run that failed. The model's exception is the one to be raised, so ours are warnings."""
        run = self._run
        if run is None:
            return
        run.note("exception", "", f"the model raised {type(error).__name__}: {error}")
        try:
            self.close()
        except Exception as trouble:
            warnings.warn(
                f"porting: the capture {run.writer.path} could not be finished: {trouble}", RuntimeWarning, stacklevel=3
            )


def tap(name: str, value: Any) -> Any:
    """Stores a value of functional code in the captures that are being written in this thread or context.

    Parameters
    ----------
    name : its name in the capture; the k-th use of a name is ``name@k``
    value : a tensor, or a nested value with tensors

    Returns
    -------
    `value` itself, always
    """
    for run in _active.get():
        run.store_tap(name, value)
    return value


def _one_of(option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is a or isinstance(value, str) and value == a for a in allowed):
        raise ValueError(f"{option} is {' or '.join(map(repr, allowed))}, got {value!r}")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write_file(path: str, text: str) -> None:
    """Replaces a file in one step."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
