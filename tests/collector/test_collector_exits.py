"""Every way out of a run: the model's exceptions, interrupts, early stops, full disks, errors inside the collector."""
import errno
import gc
import os
import subprocess
import sys
import threading
import warnings

import porting
import pytest
import torch
from plain_hooks import num_hooks, same_bits
from porting import ActivationCollector

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))


class Raises(torch.nn.Module):
    def __init__(self, error):
        super().__init__()
        self.before = torch.nn.Linear(4, 4)
        self.inner = torch.nn.Sequential(torch.nn.Tanh(), Thrower(error))

    def forward(self, x):
        return self.inner(self.before(x))


class Thrower(torch.nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("form", ["call", "with"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_models_exception_passes_and_the_capture_so_far_is_readable(tmp_path, form, kind):
    error = kind("mine")
    model = Raises(error)
    collector = ActivationCollector(model, tmp_path / "run.capture")
    with pytest.raises(kind) as caught:
        if form == "call":
            collector(X)
        else:
            with collector:
                model(X)
    assert caught.value is error
    assert num_hooks(model) == 0 and not torch._C._len_torch_dispatch_stack()
    with porting.open(tmp_path / "run.capture") as acts:
        assert acts.finished
        assert same_bits(acts["before.out.0"], model.before(X)) and "inner.1.in.0" in acts
        assert [c.module for c in acts.call_list if not c.returned] == ["", "inner", "inner.1"]
        assert [n for n in acts.notes if n["kind"] == "exception"] == [
            {"kind": "exception", "where": "", "reason": f"the model raised {kind.__name__}: mine"}]


def test_an_exception_that_the_user_catches_leaves_the_next_call_right():
    model = Raises(ValueError("mine"))
    with ActivationCollector(model) as collector:
        for _ in range(2):
            with pytest.raises(ValueError):
                model(X)
        assert not torch._C._len_torch_dispatch_stack()
        model.inner[1] = torch.nn.Tanh()
        output = model(X)
    acts = collector.capture
    assert [(c.number, c.step, c.returned) for c in acts.calls("")] == [(0, 0, False), (1, 1, False), (2, 2, True)]
    assert same_bits(acts["@2.out.0"], output)


class Recursive(torch.nn.Module):
    """Calls itself, and catches what the innermost call raises."""

    def forward(self, x, depth=3):
        if depth == 0:
            raise ArithmeticError
        try:
            return self(x * 2, depth=depth - 1) + 1
        except ArithmeticError:
            return x


def test_recursive_calls_and_caught_exceptions_keep_their_own_outputs():
    model = Recursive()
    output, acts = ActivationCollector(model)(X)
    assert same_bits(acts["out.0"], output)
    assert [c.returned for c in acts.calls("")] == [True, True, True, False]
    assert [c.step for c in acts.calls("")] == [0] * 4
    assert same_bits(acts["@2.out.0"], X * 4) and same_bits(acts["@1.out.0"], X * 4 + 1)


def test_the_writer_s_oserror_waits_until_the_model_is_done(tmp_path):
    """RLIMIT_FSIZE stands for a full disk."""
    script = """
import resource, signal, sys, warnings, torch, porting
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
warnings.simplefilter("ignore")
model = torch.nn.Sequential(*(torch.nn.Linear(100, 100) for _ in range(400)))
x = torch.randn(50, 100)
expected = model(x)
collector = porting.ActivationCollector(model, sys.argv[1], weights=False, program=False, budget_bytes=1 << 18)
try:
    collector(x)
except OSError as error:
    assert torch.equal(error.output, expected)
    print("errno", error.errno)
assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
acts = porting.open(sys.argv[1])
print("finished", acts.finished, torch.equal(torch.from_numpy(acts["in.0"].copy()), x))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run.capture")], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == f"errno {errno.EFBIG}", done.stdout + done.stderr
    assert done.stdout.split("\n")[1] == "finished False True", done.stdout + done.stderr


class Awkward:
    """Breaks whatever looks into it."""

    def __getattribute__(self, name):
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise RuntimeError("do not look")


class Passes(torch.nn.Module):
    def forward(self, x, other=None):
        return x + 1


def test_an_error_inside_the_collector_is_noted_and_warned_about_once():
    model = torch.nn.ModuleList([Passes(), Passes()])

    def run():
        return model[1](model[0](X, other=Awkward()), other=Awkward())

    with pytest.warns(RuntimeWarning, match="inputs of 0 could not be captured.*The model's run is not affected") as caught:
        output, acts = ActivationCollector(run, modules=model)()
    assert len(caught) == 1 and torch.equal(output, X + 1 + 1)
    assert [n["where"] for n in acts.notes] == ["the inputs of 0", "the inputs of 1"]
    assert same_bits(acts["1.out.0"], X + 1 + 1)


def test_warnings_that_are_errors_do_not_reach_the_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output, acts = ActivationCollector(Passes())(X, other=Awkward())
    assert torch.equal(output, X + 1) and len(acts.notes) == 1


def test_a_path_that_exists_is_refused_before_anything_runs(tmp_path):
    model = Passes()
    with pytest.raises(FileExistsError, match="exists already: choose another path"):
        ActivationCollector(model, tmp_path)
    collector = ActivationCollector(model, tmp_path / "later")
    (tmp_path / "later").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        collector(X)
    assert num_hooks(model) == 0 and not os.listdir(tmp_path / "later")


@pytest.mark.parametrize("options, error, text", [
    ({"include": "nothing"}, ValueError, r"no module is selected by the filters; there are 2, such as '', 'inner'"),
    ({"include": "("}, ValueError, "include: .* is not a regular expression"),
    ({"exclude": 3}, TypeError, "'int' object is not iterable|exclude takes"),
    ({"exclude": [3]}, TypeError, "exclude takes a regular expression"),
    ({"max_layers": -2}, ValueError, "max_layers is a number of layers"),
    ({"max_layers": True}, ValueError, "max_layers is a number of layers"),
    ({"level": "ops"}, ValueError, "level is 'module' or 'op' or 'stats', got 'ops'"),
    ({"program": "twice"}, ValueError, "program is 'once' or 'all' or False"),
    ({"weights": "maybe"}, ValueError, "weights is 'auto' or True or False"),
    ({"budget_bytes": 0}, ValueError, "budget_bytes is a number of bytes"),
])
def test_bad_options_get_one_sentence(options, error, text):
    model = torch.nn.Module()
    model.inner = Passes()
    with pytest.raises(error, match=text):
        ActivationCollector(model, **options)


@pytest.mark.parametrize("model", [3, lambda: None, object(), {"a": 3}])
def test_what_has_no_modules_is_refused(model):
    with pytest.raises(TypeError, match="no torch.nn.Module found|modules takes a torch.nn.Module"):
        ActivationCollector(model)


def test_a_mapping_of_modules_is_for_the_with_form():
    modules = {"a": Passes(), "b": Passes()}
    collector = ActivationCollector(modules)
    with pytest.raises(TypeError, match="a dict cannot be called: use `with"):
        collector(X)
    with collector:
        modules["b"](modules["a"](X))
    assert list(collector.capture) == ["b.in.0", "b.out.0", "a.in.0", "a.out.0"] or list(collector.capture) == [
        "a.in.0", "a.out.0", "b.in.0", "b.out.0"]
    assert collector.capture.roots == ["a", "b"]


class Engine:
    """An object with modules among its attributes, one inside another."""

    def __init__(self):
        self.model = torch.nn.Sequential(Passes(), torch.nn.Linear(4, 4))
        self.head = self.model[1]
        self.other = Passes()
        self.name = "engine"

    def __call__(self, x):
        return self.other(self.model(x))

    def run(self, x):
        return self(x)


@pytest.mark.parametrize("bound", [False, True])
def test_an_object_with_modules_inside(bound):
    engine = Engine()
    output, acts = ActivationCollector(engine.run if bound else engine)(X)
    assert acts.roots == ["model", "other"]
    assert same_bits(acts["other.out.0"], output)
    assert [c.module for c in acts.call_list] == ["model", "model.0", "model.1", "other"]
    assert acts.tensor_id("1.out.0") == acts.tensor_id("model.1.out.0")


def test_close_twice_and_reading_before_the_end():
    model = Passes()
    collector = ActivationCollector(model)
    with pytest.raises(RuntimeError, match="nothing has been captured yet"):
        collector.capture
    with collector:
        model(X)
        with pytest.raises(RuntimeError, match="still being written"):
            collector.capture
        with pytest.raises(RuntimeError, match="running already"):
            collector(X)
        collector.close()
        collector.close()
        assert num_hooks(model) == 0
    assert "out.0" in collector.capture


def test_a_temporary_capture_goes_when_it_is_closed_or_dropped():
    _, acts = ActivationCollector(Passes())(X)
    path, array = acts.path, acts["in.0"]
    assert os.path.isdir(path)
    acts.close()
    assert not os.path.exists(os.path.dirname(path)) and same_bits(array, X)
    collector = ActivationCollector(Passes())
    _, acts = collector(X)
    path = acts.path
    del acts
    gc.collect()
    assert not os.path.exists(os.path.dirname(path))
    with ActivationCollector(model := Passes()) as collector:
        model(X)
    path = collector.capture.path
    assert same_bits(collector.capture["in.0"], X)
    del collector
    gc.collect()
    assert not os.path.exists(os.path.dirname(path))


def test_hooks_added_later_still_run_before_ours():
    model = torch.nn.Sequential(Passes(), Passes())
    with ActivationCollector(model) as collector:
        handles = [model[1].register_forward_pre_hook(lambda m, args: (args[0] * 3,)),
                   model[1].register_forward_hook(lambda m, args, output: output * 5)]
        output = model(X)
        for handle in handles:
            handle.remove()
    assert same_bits(collector.capture["1.in.0"], (X + 1) * 3)
    assert same_bits(collector.capture["1.out.0"], ((X + 1) * 3 + 1) * 5) and torch.equal(output, ((X + 1) * 3 + 1) * 5)


def test_two_collectors_at_once_do_not_mix():
    model = torch.nn.Sequential(Passes(), Passes())
    with ActivationCollector(model) as outer:
        with ActivationCollector(model[1]) as inner:
            model(X)
        model(X + 1)
    assert len(inner.capture.calls("")) == 1 and len(outer.capture.calls("1")) == 2
    assert num_hooks(model) == 0


def test_calls_in_threads_have_their_own_stacks():
    model = torch.nn.Sequential(Passes(), torch.nn.Tanh())
    inputs = [torch.full((64,), float(i)) for i in range(8)]
    with ActivationCollector(model) as collector:
        threads = [threading.Thread(target=model, args=(x,)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    acts = collector.capture
    assert acts.notes == [] and len(acts.calls("")) == 8
    for call in acts.calls(""):
        assert (call.outputs["0"] == (torch.from_numpy(call.inputs["0"].copy()) + 1).tanh().numpy()).all()


def test_tap_stores_a_value_and_returns_it():
    class Functional(torch.nn.Module):
        def forward(self, x):
            for _ in range(2):
                x = porting.tap("twice", x * 2)
            porting.tap("both", {"a": x, "b": [x + 1]})
            return x

    model = Functional()
    assert torch.equal(model(X), X * 4)  # no collector: nothing but the value
    output, acts = ActivationCollector(model)(X)
    assert torch.equal(output, X * 4)
    assert acts.taps == ["twice", "both"]
    assert same_bits(acts["twice"], X * 2) and same_bits(acts["twice@1"], X * 4)
    assert same_bits(acts["both.a"], X * 4) and same_bits(acts["both.b.0"], X * 4 + 1)
    assert porting.tap("after", X) is X


def test_tap_that_cannot_be_stored_is_noted():
    class Functional(torch.nn.Module):
        def forward(self, x):
            porting.tap("", x)
            porting.tap("meta", x.to("meta"))
            return x

    with pytest.warns(RuntimeWarning, match="tap"):
        acts = ActivationCollector(Functional())(X)[1]
    assert [(n["kind"], n["where"]) for n in acts.notes] == [("warning", "the tap ''"), ("dropped", "meta")]
    assert "meta" not in list(acts)
