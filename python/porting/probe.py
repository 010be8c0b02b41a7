"""What the installed torch computes on this machine, found by experiment: `porting probe`, `porting.probe()`.

Three kinds of questions, none of which trusts a version or a CPU's name:

- *trees*: a sum of ones, one M = 2^60 and one -M loses every one that is added to M before -M is; what is left tells how many terms are joined below
  the node that joins the two. Over all pairs that is the tree of the summation: lanes, blocks, peeled terms
  (Xie, Gao, Zhang, Mao, Pu, Chen: FPRev, 2024).
- *sources*: which of several known formulas gives the bits of exp, erf, gelu, and whether a product and a sum are contracted to an fma.
- *recipes*: whether the kernels of this package give torch's bits on small inputs under the profile that torch says it runs in. Where one does
  not, what it computes is within its bound here, not exact: `unfit` names it, captures carry it in the manifest, reports say so.

Takes well under a second; kept per torch build, CPU and settings in the user's cache. torch is imported when it is asked.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import _core
from .environment import CAPABILITIES, VARIABLES, cpu
from .providers import use_provider

M = np.float32(2.0**60)
LEVELS = ("default", "avx2", "avx512")


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes
    ----------
    torch : version. capability, num_threads, mkldnn : what torch says it runs with.
    facts : question to answer ("sum order": "32 running sums, joined to 8, joined to one").
    recipes : name to (unequal elements, elements) between torch and this package's kernels.
    fitting : the capability under which most recipes fit: the claimed one unless that fails where another does not.
    seconds : how long it took.
    """

    torch: str
    capability: str
    num_threads: int
    mkldnn: bool
    facts: dict[str, str]
    recipes: dict[str, tuple[int, int]]
    fitting: str
    seconds: float = 0.0

    @property
    def unfit(self) -> list[str]:
        """Names of the recipes that do not give torch's bits here."""
        return [name for name, (unequal, _) in self.recipes.items() if unequal]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the manifest holds them."""
        return {**dataclasses.asdict(self), "recipes": {name: list(counts) for name, counts in self.recipes.items()}, "unfit": self.unfit}

    @classmethod
    def from_json(cls, value: Any) -> Probe:
        """A probe that was written with `to_json`; ValueError if it is none."""
        try:
            recipes = {str(name): (int(unequal), int(total)) for name, (unequal, total) in value["recipes"].items()}
            facts = {str(name): str(answer) for name, answer in value["facts"].items()}
            return cls(str(value["torch"]), str(value["capability"]), int(value["num_threads"]), bool(value["mkldnn"]), facts, recipes,
                       str(value["fitting"]), float(value.get("seconds", 0.0)))  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not the result of a probe: {type(error).__name__}: {error}") from error

    def to_text(self) -> str:
        """The answers, and which recipes fit."""
        lines = [f"torch {self.torch}, capability {self.capability}, {self.num_threads} threads, mkldnn {'on' if self.mkldnn else 'off'}"]
        width = max(map(len, self.facts), default=0)
        lines += [f"  {name.ljust(width)}  {answer}" for name, answer in self.facts.items()]
        lines.append(f"recipes: {len(self.recipes) - len(self.unfit)} of {len(self.recipes)} give torch's bits here")
        lines += [f"  {name}: {self.recipes[name][0]} of {self.recipes[name][1]} elements differ: BOUND here, not EXACT" for name in self.unfit]
        if self.fitting != self.capability:
            lines.append(f"the kernels of {self.fitting} fit better than those of {self.capability}: that profile is taken")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


# ---------------------------------------------------------------- trees


def tree_row(sums: Callable[[np.ndarray], np.ndarray], n: int, base: int = 0) -> np.ndarray:
    """For each j: how many of n terms are joined below the node that joins term `base` and term j (1 for j = base).

    sums : takes rows of n float32 numbers (J, n) and returns the sum of each
    """
    others = [j for j in range(n) if j != base]
    rows = np.ones((len(others), n), np.float32)
    rows[:, base] = M
    rows[np.arange(len(others)), others] = -M
    found = np.ones(n, np.int64)
    found[others] = n - np.rint(np.asarray(sums(rows), np.float64)).astype(np.int64)
    return found


def lanes_of(sizes: np.ndarray, base: int = 0) -> list[int]:
    """Strides L (powers of two) for which the terms base, base + L, ... are summed among themselves before any other joins them."""
    j = np.arange(len(sizes))
    found = []
    for lanes in (2, 4, 8, 16, 32, 64, 128):
        mates = (j > base) & ((j - base) % lanes == 0)
        rest = (j >= base) & ((j - base) % lanes != 0)
        if mates.any() and sizes[mates].max() < sizes[rest].min():
            found.append(lanes)
    return found


def order_of(sums: Callable[[np.ndarray], np.ndarray], n: int) -> str:
    """The order of a sum of n terms, in words."""
    sizes = tree_row(sums, n)
    if (sizes[1:] == np.arange(2, n + 1)).all():
        return "one after the other"
    for peel in range(8):
        found = lanes_of(sizes if peel == 0 else tree_row(sums, n, peel), peel)
        if found:
            words = "".join(f", joined to {lanes}" for lanes in found[-2::-1])
            return f"{found[-1]} running sums{words}, joined to one" + (f"; the first {peel} terms apart" if peel else "")
    first = next((j for j in range(1, n) if sizes[j] != j + 1), n)
    if first > 8:
        return f"one after the other in blocks of {first}"
    return "neither lanes nor blocks that are known"


# ---------------------------------------------------------------- the probe


class _Prober:
    """Asks this process's torch. All tensors are made from arrays: no generator, default dtype or device of the user's is touched."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.provider = use_provider("auto")[0]
        name = torch.backends.cpu.get_cpu_capability()
        self.capability = CAPABILITIES.get(name, name.lower())
        self.threads = torch.get_num_threads()
        self.mkldnn = bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
        self.rng = np.random.default_rng(0)

    def run(self) -> Probe:
        started = time.perf_counter()
        facts = dict(self.facts())
        claimed = self.capability if self.capability in LEVELS else "default"
        recipes = {level: dict(self.recipes(level)) for level in (claimed,)}
        if any(unequal for unequal, _ in recipes[claimed].values()):
            recipes.update({level: dict(self.recipes(level)) for level in LEVELS if level != claimed})
        fitting = min(recipes, key=lambda level: (sum(unequal > 0 for unequal, _ in recipes[level].values()), level != claimed))
        return Probe(str(self.torch.__version__), self.capability, self.threads, self.mkldnn, facts, recipes[fitting], fitting,
                     round(time.perf_counter() - started, 3))  # fmt: skip

    # ------------------------------------------------------------ torch and ours, on arrays

    def theirs(self, function: Callable, *arrays: np.ndarray, **keywords: Any) -> np.ndarray:
        return function(*(self.torch.from_numpy(a) for a in arrays), **keywords).numpy()

    def ours(self, name: str, *args: Any, level: str | None = None, mkldnn: bool | str = False, provider: str | None = None, **keywords: Any) -> Any:
        level = level or self.capability
        return _core.call_op(f"aten.{name}", list(args), keywords, capability=level if level in LEVELS else "default", num_threads=self.threads,
                             mkldnn=mkldnn, provider=provider or self.provider)  # fmt: skip

    def normal(self, *shape: int) -> np.ndarray:
        return (4 * self.rng.standard_normal(shape)).astype(np.float32)

    def which(self, expected: np.ndarray, candidates: dict[str, Callable[[], np.ndarray]]) -> str:
        """The candidate with these bits."""
        same = [name for name, make in candidates.items() if np.array_equal(expected, make(), equal_nan=True)]
        return same[0] if same else "none of the known ones"

    # ------------------------------------------------------------ questions

    def facts(self) -> Iterator[tuple[str, str]]:
        t = self.torch
        yield "sum order", order_of(lambda rows: self.theirs(t.sum, rows, dim=-1), 512)
        weight = np.ones((16, 800), np.float32)
        yield "product order", order_of(lambda rows: self.theirs(t.nn.functional.linear, rows, weight)[:, 0], 800)
        short = np.ones((16, 64), np.float32)
        yield "product order, one row", order_of(
            lambda rows: np.array([self.theirs(t.nn.functional.linear, row[None].copy(), short)[0, 0] for row in rows]), 64)  # fmt: skip
        yield "vector loop", self.vector_step()
        yield "fma", self.contraction()
        x = self.normal(4096)
        for name in ("exp", "log", "tanh", "sin", "cos", "erf", "sqrt"):
            arg = np.abs(x) if name in ("log", "sqrt") else x
            yield f"{name} from", self.which(self.theirs(getattr(t, name), arg), {
                "MKL's vector math": lambda n=name, a=arg: self.ours(f"{n}.default", a),
                "own restatement": lambda n=name, a=arg: self.ours(f"{n}.default", a, provider="reference")})  # fmt: skip
        yield "silu's exp from", self.which(self.theirs(t.nn.functional.silu, x), {
            "SLEEF": lambda: self.ours("silu.default", x, level="avx2"),
            "libm": lambda: self.ours("silu.default", x, level="default")})  # fmt: skip
        yield "gelu's erf from", self.which(self.theirs(t.nn.functional.gelu, x), {
            "oneDNN's AVX-512 polynomials": lambda: self.ours("gelu.default", x, mkldnn="avx512"),
            "oneDNN's AVX2 formula": lambda: self.ours("gelu.default", x, mkldnn="avx2"),
            "SLEEF's exp in Abramowitz and Stegun": lambda: self.ours("gelu.default", x, level="avx2"),
            "libm": lambda: self.ours("gelu.default", x, level="default")})  # fmt: skip

    def vector_step(self) -> str:
        """How many elements of a contiguous row the vector loop takes at a time, by where the scalar rest begins."""
        silu = self.torch.nn.functional.silu
        x = self.normal(4096)
        apart = np.repeat(x, 2)[::2]  # strided: scalar code
        scalar = silu(self.torch.from_numpy(np.repeat(x, 2))[::2]).numpy()
        differ = np.flatnonzero(self.theirs(silu, x) != scalar)
        if not differ.size:
            return "no vector functions"
        value = apart[differ[0]]
        row = self.theirs(silu, np.full(127, value))
        rest = int((row == scalar[differ[0]]).sum())
        step = next((s for s in (8, 16, 32, 64) if 127 % s == rest), None)
        return f"{step} elements at a time, then one by one" if step else f"{rest} of 127 elements one by one"

    def contraction(self) -> str:
        """Whether a + alpha * b is one rounding or two."""
        a, b = self.normal(4096), self.normal(4096)
        y = self.theirs(self.torch.add, a, b, alpha=0.3)
        return self.which(y, {"product and sum contracted": lambda: self.ours("add.Tensor", a, b, alpha=0.3, level="avx2"),
                              "product and sum rounded each": lambda: self.ours("add.Tensor", a, b, alpha=0.3, level="default")})  # fmt: skip

    def recipes(self, level: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Each kernel family against torch on small inputs."""
        t, f = self.torch, self.torch.nn.functional
        x, y = self.normal(37, 131), self.normal(37, 131)
        w, g, b = self.normal(65, 131), self.normal(131), self.normal(131)
        cases: dict[str, tuple[Callable[[], np.ndarray], str, list[Any], dict[str, Any]]] = {
            name: (lambda n=name, a=arg: self.theirs(getattr(t, n), a), f"{name}.default", [arg], {})
            for name in ("exp", "log", "tanh", "sin", "cos", "erf", "sqrt", "rsqrt", "sigmoid")
            for arg in [np.abs(x) + np.float32(0.01) if name in ("log", "sqrt", "rsqrt") else x]
        }
        cases |= {
            "silu": (lambda: self.theirs(f.silu, x), "silu.default", [x], {}),
            "gelu": (lambda: self.theirs(f.gelu, x), "gelu.default", [x], {}),
            "gelu tanh": (lambda: self.theirs(f.gelu, x, approximate="tanh"), "gelu.default", [x], {"approximate": "tanh"}),
            "add": (lambda: self.theirs(t.add, x, y, alpha=0.3), "add.Tensor", [x, y], {"alpha": 0.3}),
            "pow": (lambda: self.theirs(t.pow, np.abs(x), exponent=1.7), "pow.Tensor_Scalar", [np.abs(x), 1.7], {}),
            "sum": (lambda: self.theirs(t.sum, x, dim=-1), "sum.dim_IntList", [x, [-1]], {}),
            "sum of columns": (lambda: self.theirs(t.sum, x, dim=0), "sum.dim_IntList", [x, [0]], {}),
            "mean": (lambda: self.theirs(t.mean, x, dim=-1), "mean.dim", [x, [-1]], {}),
            "var": (lambda: self.theirs(t.var, x, dim=-1), "var.correction", [x, [-1]], {"correction": 1}),
            "softmax": (lambda: self.theirs(t.softmax, x, dim=-1), "_softmax.default", [x, -1, False], {}),
            "log_softmax": (lambda: self.theirs(t.log_softmax, x, dim=-1), "_log_softmax.default", [x, -1, False], {}),
            "layer_norm": (lambda: f.layer_norm(*map(t.from_numpy, [x]), (131,), *map(t.from_numpy, [g, b])).numpy(), "layer_norm.default",
                           [x, [131], g, b, 1e-5], {}),
            "gemm": (lambda: self.theirs(f.linear, x, w, g[:65].copy()), "linear.default", [x, w, g[:65].copy()], {}),
            "gemm, few rows": (lambda: self.theirs(f.linear, x[:1].copy(), w), "linear.default", [x[:1].copy(), w], {}),
            "bmm": (lambda: self.theirs(t.bmm, x.reshape(1, 37, 131), w.T.reshape(1, 131, 65).copy()), "bmm.default",
                    [x.reshape(1, 37, 131), w.T.reshape(1, 131, 65).copy()], {}),
        }  # fmt: skip
        for name, (theirs, op, args, keywords) in cases.items():
            yield name, self.compare(theirs(), self.ours(op, *args, level=level, mkldnn=self.mkldnn, **keywords))
        q, k, v = (self.normal(1, 2, 33, 16) for _ in range(3))
        attention = self.ours("_scaled_dot_product_flash_attention_for_cpu.default", q, k, v, 0.0, True, level=level)[0]
        yield "sdpa_flash", self.compare(self.theirs(f.scaled_dot_product_attention, q, k, v, is_causal=True), attention)

    @staticmethod
    def compare(expected: np.ndarray, actual: np.ndarray) -> tuple[int, int]:
        same = (expected.view(np.int32) == actual.view(np.int32)) | (np.isnan(expected) & np.isnan(actual))
        return int((~same).sum()), int(expected.size)


# ---------------------------------------------------------------- kept between runs


def cache_key() -> str:
    """What the answers depend on: torch's build and settings, the CPU, and this package's kernels."""
    import torch

    core = os.stat(_core.__file__)
    facts = [str(torch.__version__), str(torch.version.git_version), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(),
             bool(torch.backends.mkldnn.enabled), cpu(), platform.libc_ver(), {n: os.environ.get(n) for n in VARIABLES},
             os.environ.get("PORTING_DISABLE_CPU"), core.st_size, core.st_mtime_ns]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _cache_path() -> str:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(folder, "porting", f"probe-{cache_key()}.json")


def cached() -> Probe | None:
    """The kept answers for this torch, CPU and settings, or None."""
    try:
        with open(_cache_path(), encoding="utf-8") as file:
            return Probe.from_json(json.load(file))
    except (OSError, ValueError):
        return None


def _keep(found: Probe) -> None:
    path = _cache_path()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
            json.dump(found.to_json(), file)
        os.replace(file.name, path)
    except OSError:  # a cache that cannot be written is none
        pass


def probe(again: bool = False) -> Probe:
    """Ask the installed torch what it computes, or what it answered before.

    Parameters
    ----------
    again : ask even if the answers are kept

    Raises UnsupportedError if there is no torch.
    """
    try:
        import torch
        from torch.utils._python_dispatch import _disable_current_modes
    except ImportError as error:
        raise _core.UnsupportedError(f"there is no torch to be probed: {error}") from None
    found = None if again else cached()
    if found is None:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False), _disable_current_modes():
            found = _Prober(torch).run()
        _keep(found)
    return found


def sentences(environment: Any) -> tuple[str | None, list[str]]:
    """(the capability to compute under if it is another than the recorded one, warnings) of what a capture's environment says of its torch."""
    value = environment.get("probe")
    if not isinstance(value, dict):
        return None, []
    if "failed" in value:
        return None, [f"the reference's torch could not be probed: {value['failed']}"]
    try:
        found = Probe.from_json(value)
    except ValueError as error:
        return None, [f"what the capture says of its torch is {error}"]
    warnings = []
    other = found.fitting if found.fitting != found.capability and found.fitting in LEVELS else None
    if other:
        warnings.append(f"the reference said that it ran with the CPU capability {found.capability!r}, but computed as {other!r} does, which was taken")
    if found.unfit:
        warnings.append(f"on the reference's CPU and torch {len(found.unfit)} of {len(found.recipes)} recipes do not fit ({', '.join(found.unfit)}): what they"
                        " compute is judged by its bound (BOUND), not by bits (EXACT)")  # fmt: skip
    return other, warnings


def for_manifest() -> dict[str, Any] | None:
    """What a capture's manifest says of the reference: the probe's answers, or why there are none. Asks torch once per build, CPU and settings.

    PORTING_PROBE=0 in the environment leaves it out (None).
    """
    if os.environ.get("PORTING_PROBE") == "0" or sys.modules.get("torch") is None:
        return None
    try:
        return probe().to_json()
    except Exception as error:  # a capture never fails for this
        return {"failed": f"{type(error).__name__}: {error}"}
