"""The table of docs/CAUSES.md that says which faults of the bench stand for which mistake: every kind has two or more, and the table is what the bench has."""
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import diagnose_coverage

    yield diagnose_coverage
    for name in [n for n in sys.modules if n.startswith("diagnose_faults") or n == "diagnose_coverage"]:
        del sys.modules[name]


def test_every_kind_of_mistake_is_seeded_twice(coverage):
    assert coverage.problems() == []


def test_a_kind_with_too_few_or_other_faults_is_refused(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "KINDS", {"once": ("eps", "rms_eps rms_eps"), "other": ("eps", "rms_eps linear_doubled"), "none": ("eps", "rms_eps no_such_fault")})
    assert [p.partition(":")[0] for p in coverage.problems()] == ["once", "other", "none"]


def test_the_table_is_what_the_bench_seeds(coverage):
    text = (ROOT / "docs" / "CAUSES.md").read_text()
    assert "\n".join(coverage.table()) in text
    assert f"seeds {len(coverage.FAULTS)} faults" in text
    named = {cause for causes, _ in coverage.KINDS.values() for cause in causes.split()}
    assert named <= set(re.findall(r"`([a-z0-9-]+)`", text.partition("### What it seeds")[0] + text.partition("## Outcomes")[2]))


def test_the_names_of_the_faults_differ(coverage):
    names = [fault.name for fault in coverage.FAULTS]
    assert len(names) == len(set(names))
