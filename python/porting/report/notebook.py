"""What a report shows in a notebook: a table with bands, the plot of errors along depth, and a widget that filters rows.

matplotlib and anywidget are imported when they are asked for (extra `notebook`). Every name and reason is escaped: they come from files.
"""
from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING, Any

from .jsonout import to_dict

if TYPE_CHECKING:
    from . import Report, Row

COLOURS = {"exact": "#2f7d4f", "green": "#58a55c", "amber": "#d99a1c", "red": "#c5362b", "none": "#8a8f98"}
WORDS = {"exact": "bit-exact", "green": "rounding", "amber": "grown rounding", "red": "different", "none": "not compared"}
_MOST_ROWS = 200
_CELL = "padding:1px 8px;text-align:{}"


def band_of(row: Row) -> str:
    """The band of a row; "red" for a wrong shape or dtype, "none" for what was not there to be compared."""
    return "red" if row.status in ("shape", "dtype") else row.band or "none"


def html(report: Report) -> str:
    """The report as a piece of HTML: what it says in one line, the first divergence with its cause, and the rows that need attention, or all if few."""
    word, colour = ("passed", COLOURS["exact"]) if report.passed else ("FAILED", COLOURS["red"])
    parts = [f'<div><b style="color:{colour}">{word}</b>: {escape(report.summary)}</div>']
    if report.why_failed:
        parts.append(f"<div>failed because {escape(report.why_failed)}</div>")
    first = report.first_divergence
    if first is not None:
        parts.append(f"<div>first divergence: <b>{escape(first.name)}</b> ({escape(first.kind)}): {escape(first.reason)}</div>")
        good = report.last_good
        parts.append(f"<div>last good before it: {escape(good.name)}</div>" if good is not None else "")
    if report.cause is not None:
        parts.append(f"<div>cause: {_lines(report.cause)}</div>")
    rows = [row for row in report.rows if not row.passed and row.status != "extra"] or list(report.rows)
    shown = rows[:_MOST_ROWS]
    title = f"{len(shown)} of {len(report.rows)} tensors" + ("" if report.passed else ", those not accepted first to fail")
    parts.append(f"<details{' open' if len(shown) <= 12 else ''}><summary>{title}</summary>{_table(shown)}</details>")
    return "".join(parts)


def _lines(text: Any) -> str:
    return "<br>".join(escape(line) for line in str(text).splitlines())


def _table(rows: list[Row]) -> str:
    head = "".join(f'<th style="{_CELL.format("left")}">{name}</th>' for name in ("tensor", "kind", "verdict", "err/(u s)", "max ulp", "max abs", "why"))
    lines = []
    for row in rows:
        band, m = band_of(row), row.metrics or {}
        verdict = WORDS[band] if row.status == "compared" else row.status
        cells = [("left", escape(row.name)), ("left", escape(row.kind)), ("left", f'<span style="color:{COLOURS[band]}">■</span> {escape(verdict)}'),
                 *(("right", _number(m.get(name))) for name in ("max_err_scale", "max_ulp", "max_abs")), ("left", escape(row.reason))]
        lines.append("<tr>" + "".join(f'<td style="{_CELL.format(side)}">{text}</td>' for side, text in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _number(value: Any) -> str:
    if value is None or value == -1:
        return ""
    if isinstance(value, int):
        return "NaN" if value >= 2**64 - 1 else str(value) if value < 10**6 else f"{value:.1e}"
    return f"{value:.3g}"


def diagnosis_html(diagnosis: Any) -> str:
    """A Diagnosis: what it says, and the hypotheses that were tried, best first."""
    rows = "".join(
        f'<tr><td style="{_CELL.format("left")}">{escape(r.cause)}</td><td style="{_CELL.format("left")}">{escape(r.detail)}</td>'
        f'<td style="{_CELL.format("right")}">{r.explained:.2%}</td><td style="{_CELL.format("right")}">{r.residual:.3g}</td></tr>'
        for r in diagnosis.ranked[:20])
    tried = (f"<details><summary>{len(diagnosis.ranked)} hypotheses tried</summary><table><thead><tr><th>cause</th><th>what</th><th>explained</th>"
             f"<th>left, in units of rounding</th></tr></thead><tbody>{rows}</tbody></table></details>") if rows else ""
    return f"<div><b>{escape(diagnosis.cause)}</b></div><div>{_lines(diagnosis)}</div>{tried}"


# ---------------------------------------------------------------- the plot


def plot(report: Report, ax: Any = None, *, metric: str = "max_err_scale") -> Any:
    """Errors along depth: one point per compared tensor in order of execution, coloured by band, the first divergence marked.

    Parameters
    ----------
    ax : matplotlib axes to draw on; None: new ones
    metric : a field of port_metrics; the default is err/(u s), rounding's own unit. Bit-equal tensors stand on the lowest line

    Returns the axes. Raises ImportError without matplotlib, ValueError for an unknown metric.
    """
    rows = [(i, row) for i, row in enumerate(report.rows) if row.status == "compared" and row.metrics]
    if rows and not isinstance(rows[0][1].metrics.get(metric), (int, float)):
        raise ValueError(f"no metric {metric!r}: expected a number of port_metrics, such as max_err_scale, max_abs, max_rel, max_ulp, nmse")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("report.plot() needs matplotlib: pip install 'porting[notebook]'") from None
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
    values = {i: float(row.metrics[metric]) for i, row in rows}
    finite = [v for v in values.values() if math.isfinite(v) and v > 0]
    low, high = (min(finite) / 4, max(finite) * 4) if finite else (0.25, 4.0)
    for band in COLOURS:
        points = [(i, values[i]) for i, row in rows if band_of(row) == band]
        if points:
            heights = [low if v <= 0 else v if math.isfinite(v) else high for _, v in points]
            ax.scatter([i for i, _ in points], heights, s=12, color=COLOURS[band], label=f"{WORDS[band]} ({len(points)})")
    first = next((i for i, row in enumerate(report.rows) if row is report.first_divergence), None)
    if first is not None:
        ax.axvline(first, color=COLOURS["red"], lw=0.8)
        ax.annotate(report.rows[first].name, (first, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points",
                    fontsize=8, ha="right" if first > len(report.rows) / 2 else "left", parse_math=False)
    ax.set(yscale="log", xlabel="tensors in order of execution", ylabel="max err / (u s)" if metric == "max_err_scale" else metric)
    ax.grid(axis="y", lw=0.3)
    if rows:
        ax.legend(fontsize=8, loc="lower right")
    return ax


# ---------------------------------------------------------------- the widget

_SCRIPT = """
function render({ model, el }) {
  const rows = model.get("rows"), colours = model.get("colours");
  const make = (tag, text, parent) => { const e = document.createElement(tag); if (text) e.textContent = text; if (parent) parent.append(e); return e; };
  const bar = make("div", "", el);
  const filter = make("input", "", bar); filter.placeholder = "part of a name, or a regular expression"; filter.style.width = "24em";
  const band = make("select", "", bar);
  for (const name of ["all", "not accepted", ...Object.keys(colours)]) make("option", name, band);
  const count = make("span", "", bar); count.style.marginLeft = "1em";
  const box = make("div", "", el); box.style.cssText = "max-height:24em;overflow:auto;margin-top:4px";
  const detail = make("pre", "", el); detail.style.whiteSpace = "pre-wrap";
  let order = null, down = true;
  const columns = ["name", "kind", "band", "max_err_scale", "max_ulp", "max_abs"];
  const value = (row, c) => c in row ? row[c] : (row.metrics || {})[c];
  const show = x => typeof x === "number" ? (Number.isInteger(x) && x < 1e6 ? String(x) : x.toPrecision(3)) : x == null ? "" : String(x);
  function draw() {
    let test = null;
    try { test = filter.value ? new RegExp(filter.value) : null; filter.style.outline = ""; } catch (e) { filter.style.outline = "2px solid #c5362b"; return; }
    let found = rows.filter(r => (!test || test.test(r.name)) && (band.value === "all" || (band.value === "not accepted" ? !r.passed : (r.band || "none") === band.value)));
    if (order) found = [...found].sort((a, b) => {
      const [x, y] = [value(a, order), value(b, order)].map(v => v == null ? -Infinity : isNaN(v) ? String(v) : Number(v));
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    count.textContent = `${found.length} of ${rows.length} tensors` + (found.length > 500 ? ", the first 500 shown" : "");
    box.replaceChildren();
    const table = make("table", "", box), head = make("tr", "", make("thead", "", table)), body = make("tbody", "", table);
    for (const c of columns) { const th = make("th", c + (order === c ? (down ? " ▾" : " ▴") : ""), head); th.style.cursor = "pointer";
      th.onclick = () => { down = order === c ? !down : true; order = c; draw(); }; }
    for (const row of found.slice(0, 500)) {
      const tr = make("tr", "", body); tr.style.cursor = "pointer";
      for (const c of columns) { const td = make("td", show(value(row, c)), tr); if (c === "band") td.style.color = colours[row.band || "none"]; }
      tr.onclick = () => { detail.textContent = JSON.stringify(row, null, 1); model.set("selected", row.name); model.save_changes(); };
    }
  }
  filter.oninput = draw; band.onchange = draw; draw();
}
export default { render };
"""


def explore(report: Report) -> Any:
    """A widget with the report's rows: filter by name and band, sort by a column, click for all that was measured.

    Its `selected` is the full name of the row that was clicked last. Raises ImportError without anywidget.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise ImportError("report.explore() needs anywidget: pip install 'porting[notebook]'") from None

    class Explorer(anywidget.AnyWidget):
        _esm = _SCRIPT
        rows = traitlets.List().tag(sync=True)
        colours = traitlets.Dict().tag(sync=True)
        selected = traitlets.Unicode("").tag(sync=True)

    return Explorer(rows=json.loads(json.dumps(to_dict(report)["rows"])), colours=COLOURS)
