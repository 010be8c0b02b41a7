"""Runs an unmodified Python script and captures every model that it calls: `porting capture script.py`.

While the script runs, `torch.nn.Module.__call__` is watched. A module that is called from outside of any other module is a root
and gets a collector of its own before its first call begins, so that nothing of it is missed. If the call comes from a
method of a larger module (`generate` of an encoder-decoder calls the encoder by itself), that larger module is the root.
The first root is captured into the directory that was asked for, each further one beside it, with its class in the name.

What it does not do: follow the script into other processes, and see models that never go through `Module.__call__`.
"""
import builtins
import importlib.machinery
import io
import os
import sys
import threading
import traceback
import types

from .places import check_place

_mains = []
MAX_ROOTS = 16  # a script that calls more roots is told which were not captured


class RootCapture:
    """One root and where it is captured: `.class_name`, `.path`, `.collector` (None once closed)."""

    def __init__(self, class_name, path, collector):
        self.class_name = class_name
        self.path = path
        self.collector = collector


class Watch:
    """Gives every root a collector while it is switched on (`with Watch(...):`).

    Parameters
    ----------
    path : str
        Capture of the first root.
    options : dict
        Keyword arguments of `ActivationCollector`.

    Attributes
    ----------
    captures : list of RootCapture
    troubles : list of str
        A sentence for each root that could not be captured.
    """

    def __init__(self, path, options):
        self.path = path
        self.options = options
        self.captures = []
        self.troubles = []
        self._seen = {}  # id -> module, kept alive so that an id is not used twice
        self._lock = threading.Lock()
        self._depth = threading.local()
        self._enabled = False
        self._original = None

    def __enter__(self):
        import torch

        original = self._original = torch.nn.Module.__call__
        depth = self._depth

        def __call__(module, *args, **kwargs):
            level = getattr(depth, "level", 0)
            if level == 0 and self._enabled:
                self._meet(module, sys._getframe(1))
            depth.level = level + 1
            try:
                return original(module, *args, **kwargs)
            finally:
                depth.level = level

        self._enabled = True
        torch.nn.Module.__call__ = self._wrapper = __call__
        os.register_at_fork(after_in_child=self._disable)
        return self

    def __exit__(self, *error):
        import torch

        self._enabled = False
        if torch.nn.Module.__call__ is self._wrapper:
            torch.nn.Module.__call__ = self._original
        return False

    def _disable(self):
        """A child process has no thread that writes."""
        self._enabled = False

    def _meet(self, module, frame):
        """Called with every module that is called from outside of any other."""
        if id(module) in self._seen:
            return
        with self._lock:
            if id(module) in self._seen:
                return
            root = outermost_owner(module, frame)
            for part in root.modules():
                self._seen[id(part)] = part
            self._seen[id(module)] = module
            try:
                self._adopt(root)
            except Exception as error:  # the script's run is never changed: said at the end
                self.troubles.append(f"{type(root).__name__} was not captured: {' '.join(str(error).split())}")

    def _adopt(self, root):
        from .hooks import ActivationCollector

        name = type(root).__name__
        if len(self.captures) >= MAX_ROOTS:
            raise ValueError(f"a script may have {MAX_ROOTS} roots")
        path = self._next_path(name)
        collector = ActivationCollector(root, path, **self.options)
        collector.__enter__()
        self.captures.append(RootCapture(name, path, collector))

    def _next_path(self, class_name):
        if not self.captures:
            return self.path
        stem, extension = os.path.splitext(self.path)
        path, number = f"{stem}.{class_name}{extension}", 2
        while os.path.lexists(path) or any(path == c.path for c in self.captures):
            path, number = f"{stem}.{class_name}{number}{extension}", number + 1
        return path

    def close(self, error=None):
        """Closes every collector; `error` is what ended the script, or None. What goes wrong is added to the troubles."""
        for capture in self.captures:
            collector, capture.collector = capture.collector, None
            try:
                if error is None:
                    collector.close()
                else:
                    collector.__exit__(type(error), error, error.__traceback__)
            except Exception as trouble:
                self.troubles.append(f"{capture.path}: {' '.join(str(trouble).split())}")


def outermost_owner(module, frame):
    """The largest module that contains `module` and is `self` in a frame from `frame` outwards; `module` itself if none is."""
    import torch

    best, best_size = module, 0
    while frame is not None:
        owner = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames[:1] else None
        if isinstance(owner, torch.nn.Module) and owner is not best:
            parts = list(owner.modules())
            if len(parts) > best_size and any(part is module for part in parts):
                best, best_size = owner, len(parts)
        frame = frame.f_back
    return best


def run_script(script, arguments, path, options, watch=None):
    """Run `script` as `python script.py arguments...` would and capture its models.

    Parameters
    ----------
    script : str
    arguments : list of str
    path : str
        The capture to create; must not exist.
    options : dict
        Keyword arguments of `ActivationCollector`.
    watch : Watch, optional
        What meets the roots, if it is not one of `path` and `options`.

    Returns
    -------
    (int, Watch)
        The exit code that Python would have given, and what was captured. The script's traceback has been printed.

    Raises
    ------
    FileExistsError : `path` exists. FileNotFoundError, IsADirectoryError : `script` is no file. ImportError : no torch.
    """
    if os.path.lexists(path):
        raise FileExistsError(17, "exists already; choose another name with -o, or remove it", path)
    check_place(path, folder=True)
    if os.path.isdir(script):
        raise IsADirectoryError(21, "expected a Python script, got a folder", script)
    if not os.path.exists(script):
        raise FileNotFoundError(2, "no such script", script)
    try:
        from . import hooks
    except ImportError as error:
        raise ImportError(f"capturing needs torch in this environment: {error}") from error
    watch = watch or Watch(os.path.abspath(path), options)
    saved = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    error = None
    try:
        with watch:
            try:
                _run_main(os.path.abspath(script))
                _join_threads()
            except BaseException as raised:
                error = raised
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = saved
    if error is None or isinstance(error, (SystemExit, hooks.StopRun)):
        watch.close()
    else:
        watch.close(error)
    return _exit_code(error, script, hooks.StopRun), watch


def _run_main(path):
    """Runs a file as the module __main__. Unlike runpy.run_path it leaves sys.argv[0] and the module's globals alone."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None,
                         __loader__=importlib.machinery.SourceFileLoader("__main__", path))
    _mains.append(main)  # what the script left behind (threads, atexit functions) still needs its globals
    sys.modules["__main__"] = main
    with io.open_code(path) as file:
        source = file.read()
    exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def _join_threads():
    """What Python does at the end of a script: other threads may still run models."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _exit_code(error, script, stop):
    """The exit code of a script that ended with `error`; prints what Python would print."""
    if error is None or isinstance(error, stop):
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    sys.stdout.flush()
    _hide_own_frames(error, set())
    if sys.excepthook is sys.__excepthook__:
        traceback.print_exception(type(error), error, error.__traceback__)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _hide_own_frames(error, done):
    """Takes the frames of this file out of the traceback of an exception and of those behind it."""
    if error is None or id(error) in done:
        return
    done.add(id(error))
    kept = []
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name != __file__:
            kept.append(step)
        step = step.tb_next
    following = None
    for step in reversed(kept):
        following = types.TracebackType(following, step.tb_frame, step.tb_lasti, step.tb_lineno)
    error.__traceback__ = following
    _hide_own_frames(error.__cause__, done)
    _hide_own_frames(error.__context__, done)
