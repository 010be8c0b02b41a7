"""`porting.parity`: one layer, all its hyper-parameters, inputs that hurt: a strict test against the torch layer in the same process.

    @porting.parity(ref=lambda dim, eps: torch.nn.RMSNorm(dim, eps=eps), port=my_rms_norm,
                    sweep={"dim": [1, 7, 64], "eps": [1e-6, 1e-5]})
    def test_rms_norm(draw, dim, eps):
        return draw(2, 5, dim)

makes one pytest test of each combination of hyper-parameters and kind of input. Parameters are random, none of them 0 or 1 or all alike,
since a weight of ones hides a port that forgets it. It needs pytest and torch, and no plugin.
"""
from __future__ import annotations

import dataclasses
import inspect
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .tolerance import Tolerance, resolve

#: Kinds of input: size of the standard normal numbers, as a power of the dtype's own range where that matters.
INPUTS = ("normal", "large", "tiny", "denormal", "zeros", "mixed", "nonfinite")
INITS = ("random_all", "default")


@dataclasses.dataclass(frozen=True)
class ParityCase:
    """One test: hyper-parameters and kind of input."""

    hyper: dict[str, Any]
    inputs: str

    @property
    def name(self) -> str:
        return "-".join([*(f"{key}={_short(value)}" for key, value in self.hyper.items()), self.inputs])


def _short(value: Any) -> str:
    text = getattr(value, "__name__", None) or str(value)
    return "".join(c for c in text.replace("torch.", "") if c.isalnum() or c in "._+-") or type(value).__name__


def parity(*, ref: Callable[..., Any], port: Callable[[Any], Callable[..., Any]], sweep: Mapping[str, Sequence[Any]] | None = None,
           init: str | Callable[[Any, Any], None] = "random_all", inputs: str | Sequence[str] = "normal,large,tiny,denormal,zeros",
           tol: str | Tolerance = "strict", seed: int = 0, layout: str | Mapping[str, str] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: a parametrised pytest test of a port against a torch layer.

    Parameters
    ----------
    ref : ``ref(**hyper)`` makes the reference: a torch.nn.Module, or a function of tensors
    port : ``port(reference)`` makes the port of it, when the reference's parameters have got their values: a callable on NumPy arrays, a
        torch.nn.Module, or a function marked by `porting.port.wants_torch` (see `test_layer`)
    sweep : hyper-parameter to values; every combination is tested
    init : "random_all": every parameter and buffer random, none degenerate; "default": as torch made them; or a function
        ``(module, generator)`` that sets them
    inputs : kinds of input, a sequence or text with commas: normal; large (softmax saturates, exp overflows); tiny (eps decides); denormal; zeros;
        mixed (sizes from tiny to large in one row); nonfinite (a few NaN and infinities)
    tol : preset or Tolerance
    seed : of parameters and inputs
    layout : how the port's axes become the reference's, as `test_layer` has it: the port gets its inputs in its own layout

    The decorated function gets `draw` and the hyper-parameters and returns the layer's inputs: a tensor, a tuple of positional arguments, or a
    dict of keyword arguments. ``draw(*shape, dtype=torch.float32)`` gives the tensor of this kind of input;
    ``draw.integers(high, *shape)`` indices, ``draw.generator`` a torch.Generator for what else is needed.

    The test fails with a `ParityError` that says which elements differ, by how much, what was allowed, and the cause as far as `explain` knows it.
    Raises ValueError for an unknown init or kind of input, an empty sweep, or a decorated function that does not take `draw`.
    """
    kinds = [kind.strip() for kind in inputs.split(",")] if isinstance(inputs, str) else list(inputs)
    unknown = [kind for kind in kinds if kind not in INPUTS]
    if unknown or not kinds:
        raise ValueError(f"inputs: expected some of {', '.join(INPUTS)}, got {', '.join(unknown) or 'none'}")
    if isinstance(init, str) and init not in INITS:
        raise ValueError(f"init: expected {' or '.join(INITS)} or a function, got {init!r}")
    axes = {name: list(values) for name, values in (sweep or {}).items()}
    empty = [name for name, values in axes.items() if not values]
    if empty:
        raise ValueError(f"sweep: {empty[0]} has no values: nothing would be tested")
    tolerance = resolve(tol)
    cases = [ParityCase(dict(zip(axes, values)), kind) for values in itertools.product(*axes.values()) for kind in kinds]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        import pytest

        taken = list(inspect.signature(function).parameters)
        method = taken[:1] == ["self"]
        if taken[method: method + 1] != ["draw"]:
            raise ValueError(f"{function.__name__}: a test of parity takes draw first and then its hyper-parameters, got ({', '.join(taken)})")

        def run(case: ParityCase, *owner: Any) -> None:
            __tracebackhide__ = True
            run_case(lambda draw, **hyper: function(*owner, draw, **hyper), ref, port, case, init, tolerance, seed, layout)

        if method:

            def test(self: Any, porting_case: ParityCase) -> None:
                __tracebackhide__ = True
                run(porting_case, self)
        else:

            def test(porting_case: ParityCase) -> None:  # type: ignore[misc]
                __tracebackhide__ = True
                run(porting_case)

        test.__name__, test.__qualname__, test.__doc__ = function.__name__, function.__qualname__, function.__doc__
        test.__module__ = function.__module__
        return pytest.mark.parametrize("porting_case", cases, ids=[case.name for case in cases])(test)

    return decorate


def run_case(make_inputs: Callable[..., Any], ref: Callable[..., Any], port: Callable[[Any], Any], case: ParityCase,
             init: str | Callable[[Any, Any], None], tol: Tolerance, seed: int, layout: str | Mapping[str, str] | None = None) -> None:
    """One combination: reference and port on the same inputs. Raises ParityError if they do not agree."""
    __tracebackhide__ = True
    import torch

    from .compare import check_layout_used, under_reference_names
    from .hooks import ActivationCollector
    from .modules import function_module
    from .testing import ParityError
    from .trial import judge_call

    generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(case.name.encode()))
    made = ref(**case.hyper)
    module = (made if isinstance(made, torch.nn.Module) else function_module(made)).eval()
    if callable(init):
        init(module, generator)
    elif init == "random_all":
        randomize(module, generator)
    with torch.no_grad():
        given = make_inputs(Draw(case.inputs, generator), **case.hyper)
        args, kwargs = ((), given) if isinstance(given, dict) else (given if isinstance(given, tuple) else (given,), {})
        answerer = port(made)
        _, capture = ActivationCollector(module, program="all", weights=True)(*args, **kwargs)
    try:
        call = capture.calls(capture.root)[0]
        answerer = under_reference_names({"": answerer}, capture, None, layout)[""]
        outcome = judge_call(capture, call, answerer, tol)
        check_layout_used([answerer])
        if not outcome.passed:
            raise ParityError(f"{case.name}:\n{outcome.text(outcome.cause())}")
    finally:
        capture.close()


# ---------------------------------------------------------------- numbers


class Draw:
    """Draws inputs of one kind. `generator` is the torch.Generator behind it."""

    def __init__(self, kind: str, generator: Any) -> None:
        self.kind, self.generator = kind, generator

    def __call__(self, *shape: int, dtype: Any = None) -> Any:
        """A tensor of this kind. dtype : floating (default float32)."""
        import torch

        dtype = torch.float32 if dtype is None else dtype
        if not dtype.is_floating_point:
            raise TypeError(f"draw makes floating tensors, got {dtype}; draw.integers(high, *shape) makes indices")
        limits = torch.finfo(dtype)
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        if self.kind == "zeros":
            x = torch.zeros_like(x)
        elif self.kind in ("large", "tiny", "denormal"):
            x = x * {"large": min(3e3, limits.max / 64), "tiny": max(1e-4, limits.tiny * 16), "denormal": limits.tiny / 8}[self.kind]
        elif self.kind == "mixed":
            x = x * 10 ** (torch.rand(shape, generator=self.generator, dtype=torch.float64) * 6 - 4)
        elif self.kind == "nonfinite" and x.numel():
            flat = x.view(-1)
            for value in (float("nan"), float("inf"), -float("inf")):
                flat[int(torch.randint(x.numel(), (), generator=self.generator))] = value
        return x.to(dtype)

    def integers(self, high: int, *shape: int) -> Any:
        """Indices from 0 to high - 1, int64."""
        import torch

        return torch.randint(high, shape, generator=self.generator)


def randomize(module: Any, generator: Any) -> None:
    """Gives every floating parameter, and every running mean and variance, random values of which none is degenerate: not 0, not 1, not all alike.

    Matrices are scaled so that outputs keep the size of inputs; vectors lie between 0.25 and 1.75 with both signs; what is called
    var is positive. Other buffers (masks, tables of positions) stay as they are.
    """
    import torch

    done: set[int] = set()
    with torch.no_grad():
        buffers = [(name, tensor) for name, tensor in module.named_buffers() if any(word in name.rpartition(".")[2] for word in ("mean", "var"))]
        for name, tensor in [*module.named_parameters(), *buffers]:
            if not tensor.is_floating_point() or tensor.data_ptr() in done or tensor.numel() == 0:
                continue
            done.add(tensor.data_ptr())
            leaf = name.rpartition(".")[2]
            if tensor.ndim >= 2:
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / (tensor[0].numel() ** 0.5)
            else:
                values = 0.25 + 1.5 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                if "var" not in leaf and tensor.ndim:
                    values = values * torch.where(torch.rand(tensor.shape, generator=generator) < 0.5, -1.0, 1.0)
            tensor.copy_(values.to(tensor.dtype))
