"""The report of sweeps as one HTML file that needs no network: figures, a sortable table, and the verdict of every seed.

The page may hold anybody's text, such as labels of another's store: Jinja2 escapes all of it, and a content security policy
permits the page's own style and script, by their hashes, and nothing else. Figures are SVG in the page. The file is ASCII, so
that it is the same in any encoding.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sweeps.machine import price_here
from sweeps.results import formats, metrics
from sweeps.results.formats import Table, parameter_names, shown_value
from sweeps.results.numbers import UNKNOWN
from sweeps.results.provenance import commands, cost, digest, file_name, provenance
from sweeps.results.report import BY_BUDGET, Report
from sweeps.results.summary import RankedConfiguration
from sweeps.results.verdicts import KINDS, Verdict, last_error, lowest_error, threshold_ratio
from sweeps.training.lane import LaneResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED_COLUMNS = (
    "seed", "verdict", "why", "converged at", "steps", "lowest error", "last error", "lowest / threshold", "sparsity error",
)  # fmt: skip
SOLVED_KINDS = 2
"""The first so many of the verdicts' `KINDS` are solved."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Field:
    """A field of the table of configurations."""

    text: str
    value: float | int | None = None
    """What it is sorted by; None: its text, of which a number is sorted as one."""

    def __post_init__(self) -> None:
        if self.value is not None and self.text == str(self.value):
            object.__setattr__(self, "value", None)


def as_html(reports: Sequence[Report], timing: bool = True) -> str:
    """Return the page. Without `timing` it has no wall times and no provenance: the same records give the same text."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("sweeps.results"), autoescape=True, finalize=lambda value: _visible(value), auto_reload=False,
    )  # fmt: skip
    css, js = (_asset(name) for name in ("report.css", "report.js"))
    names = ", ".join(report.name for report in reports)
    page = environment.get_template("report.html").render(
        title=names if len(reports) == 1 else f"{len(reports)} sweeps: {names}",
        sweeps=[_sweep(report, number, timing) for number, report in enumerate(reports, start=1)],
        css=_Safe(css), js=_Safe(js), css_hash=_hash(css), js_hash=_hash(js),
    )  # fmt: skip
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


class _Safe(str):
    """Text of this package, which is HTML already."""

    def __html__(self) -> str:
        return self


def _visible(value: Any) -> Any:
    """Return text with control characters, which HTML does not permit, as `\\x1b`."""
    if isinstance(value, str) and not value.isprintable() and not hasattr(value, "__html__"):
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return value


def _asset(name: str) -> str:
    return (files("sweeps.results") / "templates" / name).read_text(encoding="ascii")


def _hash(text: str) -> str:
    return _Safe(f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}")


def _sweep(report: Report, number: int, timing: bool) -> dict[str, Any]:
    """Return what the template shows of one sweep."""
    totals = report.totals(timing)
    header, rows = _configurations(report)
    judged = [
        ([report.verdict_of(result) for result in one.results], [report.verdict_of(result) for result in one.confirmation])
        for one in report.configurations
    ]
    drawn, notes = _figures(report, number)
    question = report.row.document.get("question")
    first = [] if question is None else [formats.question(report)]
    return {
        "id": f"sweep-{number}",
        "name": report.name,
        "question": "" if question is None else str(question),
        "totals": formats.totals_line(totals, report.is_judged()),
        "overview": [part for part in formats.overview(report) if part not in first],
        "figures": drawn,
        "figure_notes": notes,
        "header": header,
        "rows": rows,
        "seeds": _seeds(report, judged),
        "remarks": _remarks(report),
        "verdicts": _verdicts(report, judged),
        "failures": next((part for part in formats.failures_by_reason(report) if isinstance(part, Table)), None),
        "cost": list(cost(report, totals, price_here()).items()) if timing else [],
        "provenance": list(provenance(report).items()) if timing else [],
        "commands": commands(report),
        "file_name": file_name(report),
        "digest": digest(report.row.definition),
        "definition": report.row.definition,
        "legend": [*formats.legend(report), *_SEED_LEGEND],
    }


_SEED_LEGEND = (
    "lowest error, last error: extrapolation error, the lowest of all evaluations and that of the last one.",
    "lowest / threshold: the lowest error divided by the threshold, the error of a solution that is off by 1e-5.",
)


# ------------------------------------------------------------------------------------------- the table of configurations


def _configurations(report: Report) -> tuple[list[str], list[dict[str, Any]]]:
    """Return header and rows of the table of all cells."""
    every = report.configurations
    axes = list(dict.fromkeys(axis for one in every for axis in one.configuration.labels))
    paths = list(dict.fromkeys(path for one in every for path in one.parameters))
    paths.sort(key=lambda path: path != "train.lr")  # the learning rate first
    columns = formats.columns(report)
    header = ["seeds", *axes, "#", "rank", "state", *(name for name, *_ in columns), *parameter_names(paths)]
    winners = {id(one) for cell in report.cells() if report.is_marked(cell) for one in cell if one.rank == 1}
    rows = []
    for one in every:
        fields = [Field(str(one.configuration.labels.get(axis, ""))) for axis in axes]
        mark = formats.STOPPED if one.state == "pruned" else ""
        fields += [Field(f"{one.configuration.number}{mark}", one.configuration.number)]
        fields += [Field(UNKNOWN if one.rank is None else str(one.rank)), Field(_state(one))]
        fields += [_metric(one, metric, text) for _, metric, text in columns]
        fields += [_parameter(report, one, path) for path in paths]
        seeds, asked = len(one.results), len(one.configuration.keys)
        rows.append({
            "best": id(one) in winners,
            "fields": [Field(str(seeds) if seeds == asked else f"{seeds} of {asked}", seeds), *fields],
        })  # fmt: skip
    return header, rows


def _state(one: RankedConfiguration) -> str:
    return "stopped early" if one.state == "pruned" else one.state


def _metric(one: RankedConfiguration, metric: metrics.ConfigurationMetric, text: Callable[[metrics.Lookup], str]) -> Field:
    if one.at_rung and metric.name in BY_BUDGET:
        return Field(UNKNOWN)  # it is not known how many steps an unsolved seed would have taken
    return Field(text(one.summary.value), _short(one.summary.value(metric.name, metric.direction).estimate))


def _parameter(report: Report, one: RankedConfiguration, path: str) -> Field:
    if path not in one.parameters:
        return Field(UNKNOWN)
    value = one.parameters[path]
    number = _short(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Field(shown_value(report.search.space, path, value), number)


def _short(value: float | int | None) -> float | int | None:
    """Return a number of four significant digits, enough to sort by."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


# ------------------------------------------------------------------------------------------- seeds, verdicts, failures

Judged = Sequence[tuple[Sequence[Verdict], Sequence[Verdict]]]
"""The verdicts of every configuration's seeds: those of the search, and fresh ones."""


def _seeds(report: Report, judged: Judged) -> str:
    """Return the seeds of every configuration as JSON that can stand in a script element."""
    entries = []
    for one, (search, fresh) in zip(report.configurations, judged, strict=True):
        rows = [[_seed(*pair) for pair in zip(one.results, search, strict=True)]]
        if fresh:
            rows.append([_seed(*pair) for pair in zip(one.confirmation, fresh, strict=True)])
        entries.append(rows)
    data = {"columns": SEED_COLUMNS, "kinds": KINDS, "solved": SOLVED_KINDS, "seeds": entries}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _seed(result: LaneResult, judged: Verdict) -> list[Any]:
    values = (lowest_error(result), last_error(result), threshold_ratio(result), result.sparsity_error)
    return [
        result.seed, KINDS.index(judged.kind), _visible(judged.text), result.converged_at, result.steps,
        *(None if value is None or not math.isfinite(value) else float(f"{value:.2g}") for value in values),
    ]  # fmt: skip


def _verdicts(report: Report, judged: Judged) -> Table | None:
    """Return a row for each cell with its number of seeds by verdict."""
    cells: dict[str, Counter[str]] = {}
    for one, (search, fresh) in zip(report.configurations, judged, strict=True):
        cells.setdefault(one.configuration.cell, Counter()).update(each.kind for each in (*search, *fresh))
    kinds = [kind for kind in KINDS if any(counts[kind] for counts in cells.values())]
    if not kinds:
        return None
    return formats.table(
        ["seeds of", *kinds], [[cell, *(str(counts[kind]) for kind in kinds)] for cell, counts in cells.items()]
    )


def _remarks(report: Report) -> list[tuple[str, list[str]]]:
    """Return (title, remarks) of every cell that has some: what the Markdown has below its table, not wrapped."""
    found = [(cell, [" ".join(one.split()) for one in formats.remarks_on(report, cell)]) for cell in report.cells()]
    return [
        (formats.title_of(cell) if cell[0].configuration.labels else "Remarks", remarks) for cell, remarks in found if remarks
    ]


# ------------------------------------------------------------------------------------------- figures


def _figures(report: Report, number: int) -> tuple[list[dict[str, str]], list[str]]:
    """Return the figures as SVG that can stand in a page, and why there are none, or not all."""
    from sweeps.results.figures import FigureError, standard_figures

    drawn, notes = [], []
    for at, (_, title, figure) in enumerate(standard_figures(report)):
        try:
            drawn.append({"title": title, "svg": svg(figure, f"s{number}-{at}-", title)})
        except FigureError as error:  # names so long that nothing else has room
            notes.append(f"Not drawn: {title}: {error}.")
    return drawn, notes if drawn or notes else ["No figure: no seed has ended with a result yet."]


_STYLE = re.compile(r' style="([^"]*)"')
_FONT = re.compile(r"(?:(italic|oblique) )?(?:(bold|[1-9]00) )?([\d.]+)px .*")
_ID = re.compile(r' (id="|xlink:href="#|clip-path="url\(#)(?=\w)')


def svg(figure: Figure, prefix: str, title: str) -> str:
    """Return a figure as an SVG element for a page: its ids begin with `prefix`, and it has no style of its own.

    The content security policy permits no style attributes: they become presentation attributes.
    """
    from sweeps.results.drawing import save

    stream = io.BytesIO()
    save(figure, stream, ".svg")
    text = stream.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = _STYLE.sub(_presentation, text)
    text = _ID.sub(rf" \g<1>{prefix}", text)
    text = text.replace("url(#", f"url(#{prefix}").replace(f"url(#{prefix}{prefix}", f"url(#{prefix}")
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(_visible(title))}" ', 1).strip()


def _presentation(found: re.Match[str]) -> str:
    attributes = []
    for declaration in found[1].split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        font = _FONT.fullmatch(value) if name == "font" else None
        if font:
            attributes += [f'font-size="{font[3]}"']
            attributes += [f'font-weight="{font[2]}"'] if font[2] else []
            attributes += [f'font-style="{font[1]}"'] if font[1] else []
        elif name:
            attributes.append(f'{name}="{value}"')
    return " " + " ".join(attributes)
