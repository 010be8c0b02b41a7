"""Verdicts over op x shape x dtype x input: no right port is blamed, no fault is passed. bench/mutations.py is the same with more seeds."""
import re

import mutation_corpus as corpus
import numpy as np
import porting
import pytest
import torch
from porting.golden import accuracy, condition_factor
from porting.port import as_array
from porting.tolerance import condition_scale

#: What each preset must refuse: all faults, or those that are not small.
SMALL = {"next weight", "one term lost", "bias dropped", "bf16 weights", "unbiased", "eps", "mean taken off", "1 + weight", "of 1.01 x", "one left out", "scaled",
         "other function", "no mean", "values moved", "keys of the next head", "no mask", "no scale", "tanh", "weight scaled", "moved"}


@pytest.fixture(scope="module")
def every_case():
    return list(corpus.cases())


def test_no_right_port_is_blamed(every_case):
    judged = [(case.name, name, corpus.judge(case, port)) for case in every_case for name, port in case.right.items()]
    assert len(judged) >= 1000
    assert [(*where, found.reason) for *where, found in judged if not found.passed] == []
    bands = [found.band for *_, found in judged]
    assert bands.count("green") >= 300  # not all of them the same bits


def test_no_fault_is_passed(every_case):
    judged = [(case.name, name, corpus.judge(case, port)) for case in every_case for name, port in corpus.faults(case).items()]
    assert len(judged) >= 300 and len({name for _, name, _ in judged}) >= 25
    assert [(*where, found.reason) for *where, found in judged if found.passed] == []


PRESETS = ["strict", "exact", "close", "approximate", "allclose", "ulp(16)", "pcc(0.99)", "pcc(0.9999)"]


@pytest.mark.parametrize("tol", PRESETS)
def test_every_preset_refuses_what_is_not_small(every_case, tol):
    cases = [case for case in every_case[::5] if tol != "allclose" or "outliers" not in case.name]  # an absolute bound sees no difference of 1e-6
    judged = [(case.name, name, corpus.judge(case, port, tol)) for case in cases for name, port in corpus.faults(case).items() if name not in SMALL]
    assert len(judged) >= 300
    assert [(*where, found.reason) for *where, found in judged if found.passed] == []


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except porting.ParityError:
        return True
    return False


def test_the_asserts_refuse_it_too(every_case):
    cases = [case for case in every_case[::5]]
    faults = [(case, name, port) for case in cases for name, port in corpus.faults(case).items() if name not in SMALL]
    assert len(faults) >= 300
    assert [(case.name, name) for case, name, port in faults if not refused(porting.assert_with_pcc, case.reference, port)] == []
    assert [(case.name, name) for case, name, port in faults if not refused(porting.assert_close, port, case.reference, rtol=1e-2, atol=0)] == []
    right = [(case, name, port) for case in cases for name, port in case.right.items()]
    assert len(right) >= 300
    assert [(case.name, name, corpus.judge(case, port, "pcc(0.9999)").reason) for case, name, port in right if refused(porting.assert_with_pcc, case.reference, port)] == []


def test_a_float64_module_is_not_measured_by_float64():
    e = torch.randn(4, 16, dtype=torch.float64).numpy()
    assert condition_factor(e, e.copy()) is None and accuracy(e, e, e) is None
    assert condition_factor(e.astype("f4"), e) is not None


def test_an_exponential_that_overflows_is_no_fault():
    x = np.array([-90, -88.9, -60, 1], "f4")  # silu(-90) = -7e-38 is a normal number, and 0 where 1 + exp(90) overflows
    e = as_array(torch.nn.functional.silu(torch.from_numpy(x)))
    right = as_array(torch.nn.functional.silu(torch.from_numpy(x).double()).float())
    scale, _ = condition_scale("activation", e, [x], {}, "SiLU")
    assert porting.compare.__module__ and corpus.compare_arrays(e, right, kind="activation", scale=scale).passed
    wrong = right.copy()
    wrong[2] *= 1.001
    assert not corpus.compare_arrays(e, wrong, kind="activation", scale=scale).passed
    assert re.search("rounding", corpus.compare_arrays(e, wrong, kind="activation", scale=scale).reason)
