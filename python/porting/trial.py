"""One captured module call, put to a port: what it returned, the rows of the comparison, and the text of a failure with its cause.

`compare` and `test_layer` judge whole models and layers; this is what tests are made of that want one call at a time, its values and its cause.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._core import PortingError
from .compare import match_leaves, rows_of_call
from .interop.propose import Search
from .port import run_port
from .report import Row
from .report.failure import failure
from .tolerance import Tolerance


@dataclass
class Outcome:
    """What a port made of one captured call. rows : one per output. found : leaf path of the reference to the port's array."""

    capture: Any
    call: Any
    rows: list[Row]
    found: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if something was compared (or there was nothing to compare) and nothing was refused or is missing."""
        judged = [row for row in self.rows if row.status != "extra"]
        return bool(judged) and all(row.passed for row in judged)

    def cause(self) -> Any:
        """The diagnosis of what was refused: a Diagnosis, a sentence that says why there is none, or None if nothing was refused."""
        refused = next((row for row in self.rows if row.status == "compared" and not row.passed), None)
        if refused is None or not self.found:
            return None
        from .diagnose import in_accord
        from .diagnose.explain import explain

        try:
            return in_accord(explain(self.call, self.found, capture=self.capture), refused.verdict)
        except (PortingError, ValueError, MemoryError) as error:
            return f"not determined: {error}"

    def text(self, cause: Any = None) -> str:
        """The failure of a test: every row that was not accepted."""
        bad = [row for row in self.rows if not row.passed and row.status != "extra"]
        texts = []
        for i, row in enumerate(bad[:8]):
            leaf = next((leaf for leaf in self.call.outputs if self.call.full_name("out", leaf) == row.name), None)
            expected, actual = (self.call.outputs[leaf], self.found.get(leaf)) if leaf is not None else (None, None)
            texts.append(failure(row, expected, actual, cause if i == 0 else None))
        if len(bad) > 8:
            texts.append(f"... and {len(bad) - 8} more outputs")
        return "\n\n".join(texts) or "nothing was compared"


def judge_call(capture: Any, call: Any, port: Callable[..., Any], tol: Tolerance) -> Outcome:
    """Runs the port on the captured inputs of one call, once, and compares every output. The port's own failure is a row."""
    found: dict[str, np.ndarray] = {}
    failed: Exception | None = None
    try:
        found = run_port(port, call) if len(call.outputs) else {}
    except Exception as error:  # whatever a port raises is a finding
        failed = error

    def answer(*_: Any) -> Any:
        if failed is not None:
            raise failed
        return found

    rows = list(rows_of_call(capture, call, answer, tol, search=Search(4)))
    matched = match_leaves(list(call.outputs), found)
    kept = {leaf: array for leaf, array in matched.items() if array.shape == call.outputs[leaf].shape}
    return Outcome(capture, call, rows, kept)
