"""Measures how far a model is from itself: it runs again with another number of threads and in another batch, and what changes is kept in its capture.

    porting.measure_noise(model, {"input_ids": ids}, "run.capture")

What it does not do: change what was captured. Modules whose result is not the same when they run again with the same settings (dropout, state) are left out.
"""
from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from . import capture as captures
from .live import Forwards, copied, leaves_of, with_leaves
from .modules import find_roots, make_slots
from .noise import Noise, measure, spread_name
from .selection import Selection

MAX_CALLS = 2  # of each module that are run again: the prompt and a step
LARGE = 16.0  # units of rounding: a spread in another batch beyond this is believed only where rows of the batch are apart


def measure_noise(model: Any, inputs: Any, capture: Any, *, modules: Any = None) -> Noise:
    """Run the reference again under other settings and store in its capture how far it is from itself.

    Parameters
    ----------
    model : what was captured: a module, a pipeline, a callable. It runs three times
    inputs : what it is called with: a mapping of keyword arguments, a tuple of positional ones, or a single argument
    capture : the Capture that was made of it with these inputs, or its path
    modules : as `ActivationCollector` has it

    Returns
    -------
    Noise : spreads by `<module>.out.<leaf>`. With it in the capture, `tol="auto"` accepts a port that is at most `noise.FACTOR` times as far from the
        reference as that is from itself

    Notes
    -----
    Settings: another number of threads; the batch doubled, and its first row alone, where a module's inputs allow it. `porting capture --noise` also runs a script
    with another ATEN_CPU_CAPABILITY.
    """
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    if isinstance(capture, captures.Capture):
        return measure_noise_of(model, args, kwargs, capture, modules)
    with captures.open(capture) as opened:
        return measure_noise_of(model, args, kwargs, opened, modules)


def measure_noise_of(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], capture: captures.Capture, modules: Any) -> Noise:
    """`measure_noise` for the arguments of a call."""
    meter = Meter(find_roots(model, modules), MAX_CALLS)
    given = copied((args, kwargs))
    with meter:
        model(*args, **kwargs)
    meter.noise.merge(_chained(model, *given, modules, capture))
    return store(meter.noise, capture)


def store(noise: Noise, capture: captures.Capture) -> Noise:
    """Adds spreads to those that a capture has."""
    if capture.noise is not None:
        noise.merge(capture.noise)
    noise.write(capture.path)
    capture.__dict__.pop("noise", None)  # a cached property: read anew
    return noise


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def other_threads() -> int:
    """Another number of threads than torch has now, of those that this machine can make use of."""
    return 1 if torch.get_num_threads() > 1 else 2


def _chained(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], modules: Any, capture: captures.Capture) -> Noise:
    """The whole model once more, with another number of threads, against the capture."""
    from .hooks import ActivationCollector

    setting = f"{other_threads()} threads" if other_threads() > 1 else "1 thread"
    with tempfile.TemporaryDirectory(prefix="porting-") as folder:
        collector = ActivationCollector(model, f"{folder}/again.capture", program=False, weights=False, modules=modules)
        with threads(other_threads()):
            _, again = collector(*args, **kwargs)
        with again:
            return difference(capture, again, setting)


def difference(capture: captures.Capture, again: captures.Capture, setting: str) -> Noise:
    """Spreads of the whole run, from a second capture of it. Calls after a choice that fell otherwise say nothing and are not counted."""
    noise = Noise(settings=[setting])
    for call in capture.call_list:
        if call.module not in again.modules or call.number not in again.modules[call.module].calls:
            continue
        theirs = again.call(call.module, call.number)
        for leaf, expected in call.outputs.items():
            if leaf in theirs.outputs:
                noise.add("chained", spread_name(call.module, leaf), measure(expected, theirs.outputs[leaf], expected.dtype.name, setting))
    return noise


class Meter:
    """While it is entered, the first calls of each module run again, each alone, on copies of what they were given."""

    def __init__(self, roots: Mapping[str, torch.nn.Module], max_calls: int) -> None:
        self.slots = make_slots(roots, Selection(None, None, None, -1))
        self.noise = Noise()
        self._max_calls = max_calls
        self._counts: dict[str, int] = {}
        self._forwards = Forwards()
        self._off = False
        self._batch = 0

    def __enter__(self) -> Meter:
        for slot in self.slots:
            if not isinstance(slot.module, torch.jit.ScriptModule):
                self._forwards.replace(slot.module, self._metered(slot, slot.module.forward))
        return self

    def __exit__(self, *error: object) -> bool:
        self._forwards.close()
        return False

    def _metered(self, slot: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)  # models ask for the signature of a forward
        def forward(*args: Any, **kwargs: Any) -> Any:
            count = self._counts.get(slot.name, 0)
            if self._off or count >= self._max_calls:
                return original(*args, **kwargs)
            self._counts[slot.name] = count + 1
            if slot.is_root:
                first = next(iter(leaves_of((args, kwargs)).values()), None)
                self._batch = first.shape[0] if first is not None and first.dim() else 0
            try:
                kept = copied((args, kwargs))
            except Exception as error:  # an argument of the user's that cannot be copied
                self.noise.skipped[slot.name] = f"its arguments cannot be copied: {type(error).__name__}"
                return original(*args, **kwargs)
            output = original(*args, **kwargs)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self._off = True
                try:
                    self._run_again(slot.name, original, kept, leaves_of(output))
                finally:
                    self._off = False
            return output

        return forward

    def _run_again(self, name: str, original: Callable[..., Any], given: tuple[Any, Any], expected: dict[str, torch.Tensor]) -> None:
        expected = {leaf: tensor.detach().clone() for leaf, tensor in expected.items()}
        same = self._again(original, given)
        if same is None or any(leaf not in same or not _bits_equal(tensor, same[leaf]) for leaf, tensor in expected.items()):
            self.noise.skipped[name] = "it does not give the same result when it runs again"
            return
        count = other_threads()
        with threads(count):
            self._add(name, expected, self._again(original, given), f"{count} threads" if count > 1 else "1 thread")
        apart = functools.cache(lambda: self._rows_apart(original, given))
        if self._batch > 0:
            self._add(name, expected, self._again(original, self._doubled(given)), "the batch doubled", 2 * self._batch, apart)
        if self._batch > 1:
            found = self._again(original, self._batched(given, lambda t: t[:1], lambda c: c.batch_select_indices(torch.tensor([0]))))
            first = {leaf: tensor[:1] for leaf, tensor in expected.items() if tensor.dim() and tensor.shape[0] == self._batch}
            self._add(name, first, found, "the first row alone", apart=apart)

    def _doubled(self, given: tuple[Any, Any]) -> tuple[Any, Any] | None:
        return self._batched(given, lambda t: t.repeat_interleave(2, 0), lambda c: c.batch_repeat_interleave(2))

    def _rows_apart(self, original: Callable[..., Any], given: tuple[Any, Any]) -> bool:
        """Whether no row of the batch has a say in another's result: every second row of a doubled batch is changed, and the others must keep their bits.

        A module that takes a mean over its batch, or a quantile, is another function of another batch; what that changes is no rounding.
        """
        doubled = self._doubled(given)
        if doubled is None:
            return False
        rows = 2 * self._batch

        def changed(_: str, t: torch.Tensor) -> torch.Tensor:
            if not t.dim() or t.shape[0] != rows or t.dtype == torch.bool:
                return t
            t = t.clone()
            t[1::2] = t[1::2].flip(-1) * (-2 if t.is_floating_point() else 1)
            return t

        before = self._again(original, doubled)
        after = self._again(original, tuple(with_leaves(part, changed) for part in doubled))
        if before is None or after is None or before.keys() != after.keys():
            return False

        def kept(t: torch.Tensor) -> torch.Tensor:
            return t[::2] if t.dim() and t.shape[0] == rows else t

        return all(_bits_equal(kept(before[leaf]), kept(after[leaf])) for leaf in before)

    def _again(self, original: Callable[..., Any], given: tuple[Any, Any] | None) -> dict[str, torch.Tensor] | None:
        """What a module returns for such arguments; None if it cannot run on them."""
        if given is None:
            return None
        try:
            args, kwargs = copied(given)
            return leaves_of(original(*args, **kwargs))
        except Exception:  # a module that does not take another batch: this setting says nothing about it
            return None

    def _batched(self, given: tuple[Any, Any], change: Callable[[torch.Tensor], torch.Tensor], change_cache: Callable[[Any], Any]) -> tuple[Any, Any] | None:
        """The arguments with another batch; None if that cannot be made of them."""
        try:
            args, kwargs = copied(given)
            args = with_leaves(args, lambda _, t: change(t) if t.dim() and t.shape[0] == self._batch else t)
            kwargs = with_leaves(kwargs, lambda _, t: change(t) if t.dim() and t.shape[0] == self._batch else t)
            for value in (*args, *kwargs.values()):
                if hasattr(value, "batch_repeat_interleave"):
                    change_cache(value)
        except Exception:  # a cache that cannot be changed so
            return None
        return args, kwargs

    def _add(self, name: str, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor] | None, setting: str, rows: int = 0,
             apart: Callable[[], bool] = lambda: True) -> None:
        """Keep the spreads of a module's leaves. apart : asked about large ones, whether the setting leaves the function what it is."""
        for leaf, tensor in expected.items():
            again = (found or {}).get(leaf)
            if again is None or not tensor.is_floating_point():
                continue
            if rows and again.dim() and again.shape[0] == rows:
                again = again[::2]
            spread = measure(_float64(tensor), _float64(again), str(tensor.dtype).removeprefix("torch."), setting)
            if spread is not None and spread.err > LARGE and not apart():
                self.noise.skipped[name] = f"{setting}: its rows depend on each other, so another batch makes it another function"
                continue
            self.noise.add("isolated", spread_name(name, leaf), spread)
            if spread is not None and setting not in self.noise.settings:
                self.noise.settings.append(setting)


def _bits_equal(e: torch.Tensor, a: torch.Tensor) -> bool:
    return e.shape == a.shape and e.dtype == a.dtype and bool(torch.equal(e.isnan(), a.isnan()) and torch.equal(e.nan_to_num(), a.nan_to_num()))


def _float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
