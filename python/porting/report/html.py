"""The report as one HTML file that needs nothing else: no network, no fonts, no libraries.

`render(report)` gives the text, `write(report, path)` puts it in a file. Every name and reason comes from a file that somebody
else may have written, so all of it is escaped by the template engine, and the data for the page's script is JSON in a script
element that cannot be closed from inside. A Content-Security-Policy admits the page's own script by its hash and nothing else.

What it does not do: judge. Bands, reasons and the first divergence are those of the `Report`.
"""
import base64
import datetime
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, field
from importlib import resources

import jinja2

from ..places import make_way

BANDS = ("exact", "green", "amber", "red", "none")
BAND_WORDS = {"exact": "bit-exact", "green": "rounding", "amber": "suspicious", "red": "different", "none": "not compared"}
_MANY_TENSORS = 4  # more of a module with children are folded: the cache of a model hides its layers
_OP = re.compile(r"(?:^|\.)op\.(\d+)\.(.+)$")  # the end of an op's path in a report of ops
_MAX_TREE_DEPTH = 24  # deeper paths are shown as one label: browsers limit the depth of a page
_METRICS = ("num_elems", "num_unequal", "max_abs", "mean_abs", "p99_abs", "p999_abs", "max_abs_idx", "max_rel", "mean_rel", "max_ulp",
            "max_ulp_idx", "mean_signed_ulp", "max_err_scale", "max_err_scale_idx", "sqnr_db", "nmse", "cosine", "pcc",
            "num_nan_expected", "num_nan_actual", "num_nan_mismatch", "num_inf_expected", "num_inf_actual", "num_inf_mismatch",
            "first_nonfinite_mismatch", "min_expected", "max_expected", "min_actual", "max_actual", "ulp_histogram")
_COLUMNS = ("name", "module", "call", "step", "kind", "status", "band", "passed", "allowed", "reason", "shape", "dtype")
_FURTHER = ("tolerance", "own_rel", "rel", "amplification", "golden", "chained", "local", "picture")  # what not every row has
_LOCAL = ("num_unequal", "max_abs", "max_ulp", "max_err_scale", "nmse", "pcc")
_ULP_NAN = 2**64 - 1


def write(report, path, *, title=None):
    """Write the page of `report` to the file `path` and return its absolute path. Missing folders are made. Raises OSError."""
    text = render(report, title=title)
    make_way(path)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return os.path.abspath(path)


def render(report, *, title=None):
    """The page of `report` as text.

    Parameters
    ----------
    report : Report
    title : str, optional
        Shown at the top and in the browser's tab.
    """
    rows = list(report.rows)
    bands = [_band(row) for row in rows]
    counts = {band: bands.count(band) for band in BANDS}
    first = report.first_divergence
    first_idx = next((i for i, row in enumerate(rows) if row is first), None)
    files = resources.files(__package__)
    script = files.joinpath("report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=format_number, ulp=format_ulp, short=format_short)
    template = environment.from_string(files.joinpath("report.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        title=title or {"check": "Reference, re-run in C", "compare": "Port against reference"}.get(report.what, "Parity report"),
        css=jinja2.utils.markupsafe.Markup(files.joinpath("report.css").read_text(encoding="utf-8")),
        script=jinja2.utils.markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=jinja2.utils.markupsafe.Markup(_json_for_script(_page_data(report, rows, bands, first_idx))),
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        report=report,
        rows=rows,
        bands=bands,
        counts=counts,
        band_words=BAND_WORDS,
        first=first,
        first_idx=first_idx,
        cause=None if report.cause is None else str(report.cause),
        ruled_out=list(getattr(report.cause, "ruled_out", ())),
        worst_ulp=_worst(rows, "max_ulp"),
        worst_scale=_worst(rows, "max_err_scale"),
        events=_tree_events(rows, bands, first_idx, report.unit),
        plots=_plots(rows, bands, first_idx),
        kinds=sorted({row.kind for row in rows if row.kind}),
        facts=[("tolerance", report.tolerance), *_flatten(report.environment or {})],
        leaf=_leaf,
        **_columns(rows),
        own=_own_metric,
        word=_word,
        num_carried=sum(_word(row, band) == "carried" for row, band in zip(rows, bands)),
        root=_root,
        golden_ratio=_golden_ratio,
    )


# ---------------------------------------------------------------- what the rows say


def _band(row):
    """The band of a row: "red" for a wrong shape or dtype, "none" for what was not there to be compared."""
    if row.status in ("shape", "dtype"):
        return "red"
    return row.verdict.band if row.status == "compared" and row.verdict is not None else "none"


def _columns(rows):
    """Which of the further columns some row fills, and the widths of all."""
    further = {"local": (66, 60), "amplification": (52,), "chained": (56,), "golden": (52,)}
    fills = {"local": "local_metrics", "amplification": "amplification", "chained": "chained", "golden": "golden"}
    shown = [name for name in further if any(getattr(row, fills[name]) is not None for row in rows)]
    added = [width for name in shown for width in further[name]]
    many_steps = len({row.step for row in rows}) > 1
    widths = [76, *([30] if many_steps else []), 60, 68, 60, 66, *added, 84]
    name = 150 if len(added) > 2 else 200
    return {"shown": shown, "num_further": len(added), "many_steps": many_steps,
            "widths": f"minmax({name}px, 1fr) {' '.join(f'{width}px' for width in widths)}", "least": name + sum(widths) + 8 * len(widths) + 28}


def _word(row, band):
    """What a row's last column says: an error that is all carried along is not the module's own rounding."""
    if row.status != "compared":
        return row.status
    return "carried" if band == "green" and row.passed and row.local_metrics is not None else BAND_WORDS[band]


def _metric(row, name):
    """A metric as a float, or None if the row has none (not compared, no scale given)."""
    value = (row.metrics or {}).get(name)
    if value is None or (name == "max_err_scale" and value < 0):
        return None
    return float(value)


def _worst(rows, name):
    values = [v for v in (_metric(row, name) for row in rows) if v is not None]
    if any(math.isnan(v) for v in values):
        return math.nan
    return max(values, default=None)


def _leaf(row):
    """What a row adds to its module's path: "out.0", or "@1.out.0"."""
    if row.module and row.name.startswith(row.module) and len(row.name) > len(row.module):
        return row.name[len(row.module):].lstrip(".")
    return row.name


def format_number(value):
    """A metric for people: four significant digits, "–" for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e6):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def format_short(value):
    """A number for a narrow column: three significant digits, no needless signs and zeros in the exponent."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e5:
        return format_number(int(value))
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    if not e and abs(value) < 1e-3:
        mantissa, e, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def format_ulp(value):
    """A distance in representable values; the largest stands for NaN against a number."""
    if value is None:
        return "–"
    if math.isnan(value) or value >= _ULP_NAN:
        return "NaN"
    return format_number(int(value)) if value < 1e5 else format_short(float(value))


def _plain(value):
    """`value` as what JSON can say: numbers without NaN and infinity, strings, lists."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (int, float)):
        value = value.item()
    if isinstance(value, int):
        return value if abs(value) < 2**53 else ("NaN" if value >= _ULP_NAN else float(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def _json_for_script(value):
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _further(row):
    """The values of _FURTHER: how the error was inherited, who is nearer to float64, where it is."""
    golden = None if row.golden is None else [row.golden["reference"], row.golden["port"], row.golden["ratio"]]
    chained = None if row.chained is None else [row.chained.band, row.chained.passed, row.chained.reason]
    local = None if row.local_metrics is None else [row.local_metrics.get(name) for name in _LOCAL]
    picture = None
    if row.picture is not None:
        worst = [[row.index_of(i) or (), e, a] for i, e, a in row.picture["worst"]]
        picture = [row.picture["rows"], row.picture["cols"], row.picture["cells"], row.picture["top"], worst]
    return [row.tolerance, _root(_own_metric(row, "nmse")), _root(_metric(row, "nmse")), row.amplification, golden, chained, local, picture]


def _own_metric(row, name):
    """A metric of the module's own error: on the port's inputs where they differ."""
    value = (row.judged_metrics or {}).get(name)
    return None if value is None else float(value)


def _golden_ratio(row):
    ratio = None if row.golden is None else row.golden["ratio"]
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _page_data(report, rows, bands, first_idx):
    packed = []
    for row, band in zip(rows, bands):
        verdict = row.verdict
        metrics = row.metrics or {}
        histogram = list(metrics.get("ulp_histogram") or [])
        while histogram and histogram[-1] == 0:
            histogram.pop()
        facts = [row.name, row.module, row.call, row.step, row.kind, row.status, band,
                 None if verdict is None else bool(verdict.passed), None if verdict is None else _plain(verdict.allowed),
                 row.reason or ("" if verdict is None else verdict.reason), getattr(row, "shape", None), getattr(row, "dtype", None)]
        values = [histogram if name == "ulp_histogram" else metrics.get(name) for name in _METRICS] if metrics else []
        packed.append([_plain(v) for v in facts + _further(row) + values])
    return {"columns": [*_COLUMNS, *_FURTHER, *_METRICS], "rows": packed, "first": first_idx, "words": BAND_WORDS}


def _flatten(value, prefix=""):
    """(dotted key, text) of everything in nested mappings."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            yield from _flatten(item, name + ".")
        else:
            yield name, ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)


# ---------------------------------------------------------------- the module tree


@dataclass
class _Node:
    path: str
    label: str
    children: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    counts: dict = field(default_factory=lambda: dict.fromkeys(BANDS, 0))
    kind: str = ""
    worst: dict = field(default_factory=dict)  # greatest value below, of each metric that the line shows
    is_open: bool = False

    def count(self, row, band, is_first):
        """Takes a row below this node into its summary."""
        self.counts[band] += 1
        self.is_open = self.is_open or is_first
        for name in ("max_abs", "max_ulp", "max_err_scale"):
            value = _metric(row, name)
            if value is not None and value > self.worst.get(name, -math.inf):
                self.worst[name] = value


def _tree_events(rows, bands, first_idx, report_unit="module call"):
    """The tree as a flat list ("open", node, depth), ("row", index, depth), ("close", node, depth), in order of execution.

    Flat, so that neither Python nor the template recurses over names that a file chose.
    """
    root = _Node("", "(root)")
    for i, row in enumerate(rows):
        chain = [root]
        op = _OP.search(row.module) if report_unit == "op" else None
        module = row.module[: op.start()] if op else row.module
        parts = module.split(".", _MAX_TREE_DEPTH) if module else []
        for depth, part in enumerate(parts):
            node = chain[-1]
            if part not in node.children:
                node.children[part] = _Node(".".join(parts[: depth + 1]), part)
            chain.append(node.children[part])
        if op:
            chain.append(chain[-1].children.setdefault(op[0], _Node(row.module, f"{op[1]}  {op[2]}")))
        chain[-1].rows.append(i)
        chain[-1].kind = chain[-1].kind or row.kind or ""
        for node in chain:
            node.count(row, bands[i], i == first_idx)
    tops = [root] if root.rows or not root.children else list(root.children.values())
    events = []
    stack = [("open", node, 0) for node in reversed(tops)]
    while stack:
        what, item, depth = stack.pop()
        events.append((what, item, depth))
        if what == "open":
            item.is_open = item.is_open or depth == 0 or (depth < 3 and len(item.children) == 1)
            stack.append(("close", item, depth))
            stack.extend(("open", child, depth + 1) for child in reversed(item.children.values()))
            if item.children and len(item.rows) > _MANY_TENSORS:
                stack.append(("open", _fold(item, rows, bands, first_idx), depth + 1))
            else:
                stack.extend(("row", i, depth + 1) for i in reversed(item.rows))
    return events


def _fold(node, rows, bands, first_idx):
    """A node of the same path that holds the rows of `node` alone."""
    fold = _Node(node.path, f"{len(node.rows)} tensors", rows=node.rows, kind=node.kind)
    for i in node.rows:
        fold.count(rows[i], bands[i], i == first_idx)
    return fold


# ---------------------------------------------------------------- error growth


_PLOT_WIDTH, _PLOT_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 210, 62, 12, 12, 30


def _plots(rows, bands, first_idx):
    """What the template draws for each metric: dots as one path per band, ticks, the line of the first divergence.

    Dots are strokes of length 0 with round caps, so that 100,000 of them are five elements. Equal pixels are drawn once.
    """
    compared = [i for i, row in enumerate(rows) if row.status == "compared"]
    any_local = any(row.local_metrics is not None for row in rows)
    plots = []
    for key, label, value_of in (
        ("max_ulp", "max ulp", lambda row: _metric(row, "max_ulp")),
        ("max_err_scale", "max err/(u·s)", lambda row: _metric(row, "max_err_scale")),
        ("rel", "relative error", lambda row: _root(_metric(row, "nmse"))),
        ("own_rel", "own relative error", lambda row: _root(_own_metric(row, "nmse")) if any_local else None),
        ("amplification", "amplification", lambda row: row.amplification),
        ("ratio", "times less accurate than the reference", _golden_ratio),
    ):
        values = [(n, i, value_of(rows[i])) for n, i in enumerate(compared)]
        values = [(n, i, v) for n, i, v in values if v is not None]
        if values:
            plots.append(_plot(key, label, values, len(compared), bands, compared, first_idx))
    return {"plots": plots, "compared": compared, "width": _PLOT_WIDTH, "height": _PLOT_HEIGHT, "left": _LEFT, "right": _RIGHT,
            "top": _TOP, "bottom": _BOTTOM}


def _root(value):
    return None if value is None else math.sqrt(value) if value >= 0 else value


def _plot(key, label, values, num_compared, bands, compared, first_idx):
    positive = [v for _, _, v in values if v > 0 and math.isfinite(v) and v < _ULP_NAN]
    low = math.floor(math.log10(min(positive))) if positive else 0
    high = max(math.ceil(math.log10(max(positive))) if positive else 1, low + 1)
    inner_height = _PLOT_HEIGHT - _TOP - _BOTTOM
    zero_y = _PLOT_HEIGHT - _BOTTOM
    band_top, band_bottom = _TOP + 14, zero_y - 22  # above: not finite; below: exactly 0

    def y_of(value):
        if not math.isfinite(value) or value >= _ULP_NAN:
            return _TOP
        if value <= 0:
            return zero_y
        return band_bottom - (math.log10(value) - low) / (high - low) * (band_bottom - band_top)

    def x_of(n):
        return _LEFT + (_PLOT_WIDTH - _LEFT - _RIGHT) * (n / max(num_compared - 1, 1) if num_compared > 1 else 0.5)

    dots = {band: {} for band in BANDS}
    for n, i, value in values:
        dots[bands[i]][f"M{x_of(n):.1f} {y_of(value):.1f}h0"] = None
    step = max(1, math.ceil((high - low) / 6))
    ticks = [(f"1e{p}" if abs(p) > 3 else format_number(10.0**p), y_of(10.0**p)) for p in range(low, high + 1, step)]
    ticks.append(("0", zero_y))
    if any(y_of(v) == _TOP for _, _, v in values):
        ticks.append(("NaN", _TOP))
    first_x = x_of(compared.index(first_idx)) if first_idx in compared else None
    return {"key": key, "label": label, "paths": [(band, "".join(d)) for band, d in dots.items() if d], "ticks": ticks,
            "first_x": first_x, "inner_height": inner_height}
