"""What capturing costs: one forward pass with everything captured to disk, beside the same forward with

- hooks that do nothing (the least that any hook-based tool costs),
- a dictionary of clones, written with torch.save after the run (what people do by hand),
- the same dictionary written with safetensors.

    OMP_WAIT_POLICY=PASSIVE python bench/capture.py [--rounds 7] [--threads 2] [--models minilm smollm2-prefill smollm2-decode tiny]

All variants run in one process on rotating inputs (equal tensors are stored once, so repeated inputs would flatter us); each round
runs every variant once, in rotating order; medians over rounds; the time includes writing the files out (close, save). `collector` has
program=False; `collector+program` records the ops too, in every call. `tiny` is a chain of 500 modules on 8 numbers: the fixed cost of a tensor.

Beside the wall time stands the CPU time of all threads, which other work on the machine disturbs less; ratios are given for both. `steady` is
the second and later forwards alone, inside a `with` block that stays open: what a further forward costs, without beginning and end.
"""
import argparse
import os
import shutil
import statistics
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import porting
import safetensors.torch
import torch
from porting import demo
from porting.hooks import ActivationCollector

FORWARDS = 4  # forwards per timed run, each on inputs of its own


def tensors_of(value, found):
    """Appends all tensors inside nested lists, tuples, dicts and caches."""
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            tensors_of(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            tensors_of(item, found)
    elif hasattr(value, "layers") and not isinstance(value, torch.nn.Module):
        for layer in value.layers:
            tensors_of([getattr(layer, "keys", None), getattr(layer, "values", None)], found)


class Hooks:
    """Pre- and post-hooks with kwargs on every module; `store` decides what they do."""

    def __init__(self, model, store):
        self.handles = []
        for name, module in model.named_modules():
            self.handles.append(module.register_forward_pre_hook(self.before(name, store), with_kwargs=True))
            self.handles.append(module.register_forward_hook(self.after(name, store), with_kwargs=True))

    @staticmethod
    def before(name, store):
        return lambda module, args, kwargs: store(name, "in", (args, kwargs)) if store else None

    @staticmethod
    def after(name, store):
        return lambda module, args, kwargs, output: store(name, "out", output) if store else None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()


class Clones:
    """What people do by hand: clone everything into a dictionary."""

    def __init__(self):
        self.tensors = {}

    def __call__(self, name, phase, value):
        found = []
        tensors_of(value, found)
        for tensor in found:
            self.tensors[f"{name}.{phase}.{len(self.tensors)}"] = tensor.detach().clone()


def run_plain(model, forwards, folder):
    for inputs in forwards:
        model(**inputs())


def run_noop(model, forwards, folder):
    with Hooks(model, None):
        run_plain(model, forwards, folder)


def run_steady(model, forwards, folder, program, times):
    """Appends (wall, CPU) seconds of each forward but the first to `times`."""
    with ActivationCollector(model, os.path.join(folder, "run.capture"), program=program, weights=False):
        for inputs in forwards:
            given = inputs()
            started = time.perf_counter(), time.process_time()
            model(**given)
            times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    del times[-len(forwards)]


def run_torch_save(model, forwards, folder):
    clones = Clones()
    with Hooks(model, clones):
        run_plain(model, forwards, folder)
    torch.save(clones.tensors, os.path.join(folder, "clones.pt"))


def run_safetensors(model, forwards, folder):
    clones = Clones()
    with Hooks(model, clones):
        run_plain(model, forwards, folder)
    safetensors.torch.save_file({k: v.contiguous() for k, v in clones.tensors.items()}, os.path.join(folder, "clones.safetensors"))


def run_collector(model, forwards, folder, program=False):
    with ActivationCollector(model, os.path.join(folder, "run.capture"), program=program, weights=False):
        run_plain(model, forwards, folder)


def run_collector_program(model, forwards, folder):
    run_collector(model, forwards, folder, program="all")


VARIANTS = {
    "no hooks": run_plain,
    "no-op hooks": run_noop,
    "collector": run_collector,
    "collector+program": run_collector_program,
    "clones+torch.save": run_torch_save,
    "clones+safetensors": run_safetensors,
}


# ---------------------------------------------------------------- models


def minilm():
    model = demo.minilm_pipeline().model
    return model, lambda: ids_only(model.config.vocab_size, 8, 64)


def ids_only(vocabulary, batch, length):
    ids = torch.randint(0, vocabulary, (batch, length))
    return lambda: {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_smollm2 = None


def smollm2():
    global _smollm2
    if _smollm2 is None:
        _smollm2 = demo.smollm2_pipeline().model
    return _smollm2


def smollm2_prefill():
    model = smollm2()
    return model, lambda: ids_only(model.config.vocab_size, 1, 64)


def smollm2_decode():
    import copy

    model = smollm2()

    def inputs():
        with torch.no_grad():
            cache = model(input_ids=torch.randint(0, model.config.vocab_size, (1, 64)), use_cache=True).past_key_values
        token = torch.randint(0, model.config.vocab_size, (1, 1))
        return lambda: {"input_ids": token, "past_key_values": copy.deepcopy(cache), "use_cache": True}

    return model, inputs


class Chain(torch.nn.Module):
    """500 modules that do next to nothing."""

    def __init__(self):
        super().__init__()
        self.links = torch.nn.ModuleList(torch.nn.Softsign() for _ in range(500))

    def forward(self, x):
        for link in self.links:
            x = link(x)
        return x


def tiny():
    return Chain().eval(), lambda: (lambda x: (lambda: {"x": x}))(torch.randn(8))


MODELS = {"minilm": minilm, "smollm2-prefill": smollm2_prefill, "smollm2-decode": smollm2_decode, "tiny": tiny}


def measure(name, rounds, folder):
    """({variant: (median wall, median CPU seconds of a forward)}, tensors stored in a forward)"""
    model, make_inputs = MODELS[name]()
    steady = {"steady": False, "steady+program": "all"}
    times = {variant: [] for variant in [*VARIANTS, *steady]}
    stored = 0
    for round_index in range(rounds + 1):  # the first round warms up
        order = list(times)
        order = order[round_index % len(order):] + order[: round_index % len(order)]
        for variant in order:
            forwards = [make_inputs() for _ in range(FORWARDS)]
            work = tempfile.mkdtemp(dir=folder)
            single = []
            with torch.no_grad():
                started = time.perf_counter(), time.process_time()
                if variant in steady:
                    run_steady(model, forwards, work, steady[variant], single)
                else:
                    VARIANTS[variant](model, forwards, work)
                    spent = time.perf_counter() - started[0], time.process_time() - started[1]
                    single.append((spent[0] / FORWARDS, spent[1] / FORWARDS))
            if variant == "collector" and not stored:
                with porting.open(os.path.join(work, "run.capture")) as activations:
                    stored = len(activations) // FORWARDS
            shutil.rmtree(work)
            if round_index:
                times[variant] += single
    return {variant: tuple(map(statistics.median, zip(*values))) for variant, values in times.items()}, stored


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']},"
          f" {args.rounds} rounds of {FORWARDS} forwards, medians")
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            medians, stored = measure(name, args.rounds, folder)
        base = medians["no-op hooks"]
        print(f"\n{name}: {stored} tensors a forward\n  {'':<20} {'wall ms':>9} {'ratio':>7} {'CPU ms':>9} {'ratio':>7}  CPU us a tensor"
              " over no-op hooks")
        for variant, (wall, cpu) in medians.items():
            extra = f"{(cpu - base[1]) / stored * 1e6:9.1f}" if stored and cpu > base[1] else ""
            print(f"  {variant:<20} {wall * 1e3:9.2f} {wall / base[0]:7.2f} {cpu * 1e3:9.2f} {cpu / base[1]:7.2f}  {extra}")


if __name__ == "__main__":
    main()
