"""Full names: written, split, guessed; every example of docs/FORMAT.md section 6."""
import doctest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from porting import naming, structure
from porting.naming import full_name, prefix, split_name, suggest


@pytest.mark.parametrize("module", [naming, structure])
def test_the_examples_in_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("parts, name", [
    (("model.layers.0.mlp", 0, "in", "0"), "model.layers.0.mlp.in.0"),
    (("model.layers.0.mlp", 3, "out", "1.0"), "model.layers.0.mlp@3.out.1.0"),
    (("", 0, "in", "0"), "in.0"),
    (("", 2, "out", "logits"), "@2.out.logits"),
    (("rope.cos", 0, "tap", ""), "rope.cos"),
    (("rope.cos", 4, "tap", ""), "rope.cos@4"),
])
def test_names_and_their_parts(parts, name):
    assert full_name(*parts) == name
    assert split_name(name) == parts


def test_a_tap_of_several_tensors():
    assert full_name("rope", 1, "tap", "cos.0") == "rope@1.cos.0"


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="phase is one of in, out, tap, op, got 'input'"):
        full_name("a", 0, "input", "0")


path = st.lists(st.sampled_from(["in", "out", "layers", "0", "7", "a_b"]), max_size=4).map(".".join)
leaf = st.lists(st.sampled_from(["in", "out", "0", "key"]), min_size=1, max_size=3).map(".".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(path, st.integers(0, 12), st.sampled_from(["in", "out"]), leaf)
def test_splitting_is_the_inverse_if_the_module_is_known(module, call, phase, leaf):
    assert split_name(full_name(module, call, phase, leaf), {module}) == (module, call, phase, leaf)


def test_without_known_modules_the_longest_path_is_taken():
    assert split_name("gate.out.out.0") == ("gate.out", 0, "out", "0")
    assert split_name("x.out") == ("x.out", 0, "tap", "")
    assert prefix("x", 0, "tap") == "x"


def test_suggestions():
    names = [f"model.layers.{i}.{part}" for i in range(4) for part in ("self_attn", "mlp.gate_proj", "mlp.up_proj")]
    assert suggest("model.layers.2.self_atn", names)[0] == "model.layers.2.self_attn"
    assert suggest("mlp.up_proj", names)[0].endswith("mlp.up_proj")
    assert suggest("zzzzzzzz", names) == []
    many = [f"model.layers.{i}.part.{j}" for i in range(100) for j in range(100)]
    assert suggest("model.layers.7.part.x7", many) != []
