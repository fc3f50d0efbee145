"""How figures look: size, colours, panels, axes for people, legends, notes, and files.

What they show is in `sweeps.results.figures`.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
import matplotlib.ticker
import matplotlib.transforms
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.metrics import ConfigurationMetric, StepMetric
from sweeps.results.numbers import number, steps

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B2A800")  # Okabe and Ito 2008
MARKERS = "osD^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
HATCHES = ("", "////", "\\\\\\\\", "||||", "----")
GREY = "#555555"
WIDTHS = {"column": 3.35, "page": 6.9}
"""Inches, of one column and of the whole width of a page in two columns."""
PANEL_WIDTH, PANEL_SHAPE = 4.6, 0.72  # inches, height by width
NARROWEST = 2.4
"""Inches of a panel beside another; narrower ones are put below each other."""
SUFFIXES: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
"""Kind of file -> metadata without which equal figures would have different bytes."""
LONGEST_TURNED = 24
"""Letters of a name that is turned rather than wrapped to many lines."""
BOLD, LINE = 0.74, 1.25
"""Of bold text: the mean width of a letter, and the height of a line, both by the font size."""
MOST_LINES = 5
"""Lines on what is not drawn."""

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

NAMES = {
    "step": "training step",
    "length": "length of the sequences",
    "train.lr": "learning rate",
    "train.batch": "batch size",
    "train.steps": "training steps",
    "train.gradient_noise": "gradient noise",
    "model.dropout": "dropout",
    "sparsity_error": "sparsity error",
    "par2": "par2 (steps)",
}
"""Name of a column, metric or setting -> what people call it. Others are made from the name."""


class FigureError(UserError):
    """There is nothing to draw, or no such column, size or kind of file. The message lists what there is."""


@dataclass(frozen=True)
class Style:
    """The size and the text of a figure."""

    width: float | None = None
    """Inches; None: by the number of panels."""
    height: float | None = None
    """Inches; None: by the width."""
    font_size: float = 9.0
    """Points."""
    title: str = ""
    dpi: int = 150
    """Of a .png."""


def read_style(size: str = "", width: str = "", title: str = "", dpi: int = 150, font_size: float | None = None) -> Style:
    """Return the style of the command's options: `size` as in 6x4 (inches), or `width` as in `column`, `page` or 5.5.

    A column has text of 8 points unless `font_size` is given. Raises FigureError.
    """
    if size and width:
        raise FigureError("give --size or --width, not both: --size is width x height, --width leaves the height to the figure")
    wide, high = None, None
    if size:
        parts = size.lower().replace("×", "x").split("x")
        wide, high = (_inches(part, f"--size {size!r}") for part in (parts if len(parts) == 2 else ("", "")))
    elif width:
        wide = WIDTHS.get(width) or _inches(width, f"--width {width!r}")
    if not 36 <= dpi <= 1200:
        raise FigureError(f"--dpi {dpi}: dots per inch are 36 to 1200")
    if font_size is not None and not 4 <= font_size <= 40:
        raise FigureError(f"--font-size {font_size:g}: text is 4 to 40 points high")
    return Style(wide, high, font_size or (8.0 if width in WIDTHS else 9.0), title, dpi)


def _inches(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 60:
        raise FigureError(
            f"{option}: a size is width x height in inches, such as 6x4, and a width is {' or '.join(WIDTHS)} or inches, "
            "each 1 to 60"
        )
    return value


def label_of(name: str) -> str:
    """Return what people call a column, a metric, a setting or an axis: `extrapolation error`, `learning rate`."""
    found: list[StepMetric | ConfigurationMetric] = [*metrics.step_metrics(), *metrics.configuration_metrics()]
    for metric in found:
        if metric.name == metrics.canonical_name(name) and metric.label:
            return metric.label
    for share in metrics.SYMBOL_ERRORS:
        if name == share.accuracy:
            return share.label
    if name in NAMES:
        return NAMES[name]
    first, _, rest = name.partition(".")
    if first in ("train", "model", "task") and rest:
        return rest.replace(".", " ").replace("_", " ")
    if first == "error" and rest:
        split, _, median = rest.partition(".")
        return f"{'median ' if median else ''}{split.replace('_', ' ')} error"
    words = first.replace("_", " ")
    split, _, median = rest.partition(".")
    return f"{'median ' if median or split == 'median' else ''}{words}{f', {split}' if split and split != 'median' else ''}"


def unit_of(name: str) -> str:
    """Return `share`, `steps` or empty: the unit of a metric or a column."""
    found: list[StepMetric | ConfigurationMetric] = [*metrics.step_metrics(), *metrics.configuration_metrics()]
    for metric in found:
        if metric.name == metrics.canonical_name(name):
            return metric.unit
    shares = {share.accuracy for share in metrics.SYMBOL_ERRORS} | {share.name for share in metrics.SYMBOL_ERRORS}
    return "share" if name.partition(".")[0].removesuffix("_with_padding") in shares else ""


def plain(text: str) -> str:
    """Return text of users as a figure shows it: $ would begin a formula, and fonts have no control characters."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("$", r"\$")


# ------------------------------------------------------------------------------------------- panels


def panels(count: int, style: Style, shape: float = PANEL_SHAPE) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, beside each other as far as they fit; `shape` is a panel's height by its width."""
    width, columns = style.width or PANEL_WIDTH * min(count, 3), columns_for(count, style)
    rows = math.ceil(count / columns)
    height = style.height or rows * max(width / columns * shape, 1.7)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def columns_for(count: int, style: Style) -> int:
    """Return how many of `count` panels are beside each other."""
    return max(1, min(count, int((style.width or PANEL_WIDTH * min(count, 3)) / NARROWEST)))


def panel_title(panel: Axes, title: str, style: Style, beside: int = 0) -> float:
    """Set the title of a panel, wrapped to its width less `beside` letters of labels; return the inches of further lines."""
    width = width_of(panel) / max(1, _columns_of(panel)) * 72 - 0.58 * style.font_size * beside - 18
    lines = textwrap.wrap(title, max(12, int(width / (BOLD * style.font_size))))
    panel.set_title(plain("\n".join(lines)), fontsize=style.font_size, loc="left", fontweight="bold")
    return max(0, len(lines) - 1) * LINE * style.font_size / 72


def grid(panel: Axes, style: Style) -> None:
    """Draw a panel's grid, and leave out what nobody reads."""
    panel.tick_params(which="both", labelsize=style.font_size)  # also of ticks that are made when the file is written
    panel.grid(True, color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def share_axis(axis: Any) -> None:
    """Label an axis in percent."""
    axis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))


def steps_axis(axis: Any) -> None:
    """Label an axis in steps: 2k, 4k."""
    axis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: steps(value)))


def numbers_axis(axis: Any) -> None:
    """Label an axis with few numbers, as in reports: 0.5, 3e-5."""
    axis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: number(value, 3)))


def scale_y(panel: Axes, name: str, values: Sequence[float]) -> None:
    """Set the y axis: shares from 0 to 100 %, errors on a logarithmic axis, with a linear part if one is 0."""
    panel.set_ylabel(plain(label_of(name)))
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        panel.text(0.5, 0.5, "no value", color=GREY, ha="center", va="center", transform=panel.transAxes)
        panel.set_yticks([])
    if unit_of(name) == "share":
        panel.set_ylim(-0.02, 1.03)
        share_axis(panel.yaxis)
    elif finite and min(finite) >= 0 and max(finite) > 30 * min(finite):
        scale_numbers(panel.set_yscale, finite)
        panel.yaxis.set_major_locator(_powers(panel.yaxis))
    elif unit_of(name) == "steps" and finite:
        steps_axis(panel.yaxis)
    elif finite:
        numbers_axis(panel.yaxis)


def _powers(axis: Any) -> matplotlib.ticker.Locator:
    found = axis.get_major_locator()
    if isinstance(found, matplotlib.ticker.LogLocator):
        found.set_params(numticks=7)
    return found


def scale_numbers(set_scale: Any, values: Sequence[float]) -> str:
    """Set a logarithmic scale, with a linear part where a value is 0, and return its name; values must not be negative."""
    positive = [value for value in values if value > 0]
    if not positive:
        return "linear"
    if len(positive) == len(values):
        set_scale("log")
        return "log"
    set_scale("symlog", linthresh=min(positive), linscale=0.5)
    return "symlog"


def scale_x(panel: Axes, positions: Sequence[float], off: bool) -> None:
    """Set the x axis of a setting, the same for all panels. With `off` the value 0 is labelled as off."""
    positive = [position for position in positions if position > 0]
    if min(positions) < 0 or not positive or (max(positive) <= 30 * min(positive) and not off):
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
        return
    low, high = min(positive), max(positive)
    if len(positive) == len(positions):
        panel.set_xscale("log")
        panel.set_xlim(low / 1.4, high * 1.4)
    else:
        panel.set_xscale("symlog", linthresh=low, linscale=0.4)
        panel.set_xlim(-0.35 * low, high * 1.6)
        powers = [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        shown = powers[:: max(1, math.ceil(len(powers) / 5))]
        panel.set_xticks([0.0, *shown], ["off" if off else "0", *(f"$10^{{{round(math.log10(v))}}}$" for v in shown)])
        panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    panel.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def category_axis(panel: Axes, names: Sequence[str], style: Style) -> dict[str, str]:
    """Set the x axis to names, turned where they would overlap. Long ones are letters: return letter -> name of these."""
    width = width_of(panel) / max(1, _columns_of(panel)) * 72 / (0.6 * style.font_size) - 8  # in letters
    each = int(width / max(1, len(names)))
    wrapped = [textwrap.fill(name, max(10, each)) for name in names]
    key: dict[str, str] = {}
    if any(name.count("\n") > 1 for name in wrapped) and max(map(len, names)) > LONGEST_TURNED:
        key = {_letter(at): name for at, name in enumerate(names)}
        wrapped = list(key)
    turned = max(len(line) for name in wrapped for line in name.splitlines() or [""]) > each
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.set_xticks(
        range(len(names)), [plain(name) for name in (names if turned else wrapped)], rotation=35 if turned else 0,
        ha="right" if turned else "center", rotation_mode="anchor" if turned else "default",
    )  # fmt: skip
    return key


def _letter(at: int) -> str:
    """Return A to Z, then AA, AB."""
    return (_letter(at // 26 - 1) if at >= 26 else "") + chr(ord("A") + at % 26)


def width_of(panel: Axes) -> float:
    """Return the width of a panel's figure in inches."""
    figure = panel.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure.get_figwidth()


def panel_points(panel: Axes) -> float:
    """Return about how many points (1/72 inch) a panel is wide, before the figure's layout is computed."""
    return max(72.0, width_of(panel) / _columns_of(panel) * 72 - 60)


def _columns_of(panel: Axes) -> int:
    spec = panel.get_subplotspec()
    return spec.get_gridspec().ncols if spec is not None else 1


def length_axis(panel: Axes, lengths: Sequence[float]) -> None:
    """Set the x axis to lengths of sequences; one that is close to the one before has no label."""
    panel.set_xscale("log")
    labels: list[str] = []
    last = 0.0
    for length in lengths:
        labels.append(f"{length:g}" if length >= 1.4 * last else "")
        last = length if labels[-1] else last
    panel.set_xticks(lengths, labels, rotation=45 if len(lengths) > 5 else 0)
    panel.minorticks_off()


def threshold_lines(panel: Axes, by_colour: Sequence[tuple[str, float]], style: Style) -> None:
    """Draw the thresholds, each (colour of its group, value): one labelled line if all are equal, else lines or a band."""
    values = sorted({float(f"{value:.3g}") for _, value in by_colour})
    if not values:
        return
    across = matplotlib.transforms.blended_transform_factory(panel.transAxes, panel.transData)
    label: dict[str, Any] = {
        "transform": across, "ha": "right", "va": "bottom", "fontsize": style.font_size - 2, "color": GREY,
        "bbox": {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}, "zorder": 5,
    }  # fmt: skip
    apart = all(high > 30 * low for low, high in itertools.pairwise(values))
    if len(values) == 1 or (apart and len(values) <= 4):
        for value in values:
            colours = {colour for colour, of in by_colour if float(f"{of:.3g}") == value}
            colour = colours.pop() if len(values) > 1 and len(colours) == 1 else "#222222"
            panel.axhline(value, color=colour, linewidth=1, linestyle=(0, (4, 2)), zorder=4, label=f"_threshold {value:g}")
            panel.text(0.995, value, f"threshold {number(value)}", **label)
    else:
        panel.axhspan(values[0], values[-1], color="#222222", alpha=0.15, linewidth=0, zorder=1, label="_thresholds")
        panel.text(0.995, values[-1], f"thresholds {number(values[0])} to {number(values[-1])}", **label)


# ------------------------------------------------------------------------------------------- what is around the panels


def finished(figure: Figure, drawn: Sequence[Axes], notes: Sequence[str], missing: Sequence[str], style: Style) -> Figure:
    """Add legend, title and notes: sentences on how to read the figure, and lines on what is not drawn."""
    handles: dict[str, Any] = {}
    for panel in drawn:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width, height = figure.get_size_inches()
    small = max(5.0, style.font_size - 2)
    texts = [*(["; ".join(notes)] if notes else []), *(f"not drawn: {line}" for line in missing[:MOST_LINES])]
    texts += [f"not drawn: {len(missing) - MOST_LINES} more"] if len(missing) > MOST_LINES else []
    wrapped = [line for text in texts for line in textwrap.wrap(text, int(width * 72 / (0.58 * small)))]
    title = textwrap.wrap(style.title, int(width * 72 / (BOLD * (style.font_size + 2))))
    above: list[tuple[list[str], float, dict[str, Any], float]] = [
        (lines, size, look, len(lines) * size * 1.25 / 72 + 0.05)
        for lines, size, look in (
            (title, style.font_size + 2, {"color": "black", "fontweight": "bold"}), (wrapped, small, {"color": GREY}),
        )
        if lines
    ]  # fmt: skip
    below = _legend(figure, handles, style) if handles else 0
    if style.height is None:  # what is above and below does not make the panels lower
        height += sum(high for *_, high in above) + below * style.font_size * 1.35 / 72
        figure.set_size_inches(width, height)
    top = height - 0.04
    for lines, size, look, high in above:
        text = plain("\n".join(lines))
        figure.text(0.07 / width, top / height, text, ha="left", va="top", fontsize=size, linespacing=1.2, **look)
        top -= high
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, top / height))  # type: ignore[call-arg]
    return figure


def _legend(figure: Figure, handles: dict[str, Any], style: Style) -> int:
    """Add a legend below the panels, and return its number of lines."""
    letters = figure.get_figwidth() * 72 / (0.58 * style.font_size)
    longest = min(max(map(len, handles)), int(letters) - 8)
    columns = max(1, min(len(handles), 4, int(letters / (longest + 7))))
    labels = [textwrap.fill(label, max(20, int(letters / columns) - 7)) for label in handles]
    figure.legend(
        list(handles.values()), [plain(label) for label in labels], loc="outside lower center",
        ncols=columns, frameon=False, fontsize=style.font_size, handlelength=2.4, columnspacing=1.4,
    )  # fmt: skip
    lines = [label.count("\n") + 1 for label in labels]
    rows = math.ceil(len(lines) / columns)
    return max(sum(lines[at : at + rows]) for at in range(0, len(lines), rows))


def write(figure: Figure, file: Path, dpi: int = 150) -> None:
    """Write .svg, .png or .pdf: for equal results the same bytes. Raises FigureError for another ending."""
    if file.suffix not in SUFFIXES:
        raise FigureError(f"a figure is written as .svg, .png or .pdf, but the file requested ends in {file.suffix!r}")
    save(figure, file, file.suffix, dpi)


def save(figure: Figure, file: Path | BinaryIO, suffix: str, dpi: int = 150) -> None:
    """Write a figure to a file or a stream. Text stays text in .svg, and .pdf embeds its font as TrueType.

    Raises FigureError where the figure is too small for its text.
    """
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.hashsalt": "sweeps", "svg.fonttype": "none", "pdf.fonttype": 42}),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of other scripts; text in .svg has them
        warnings.filterwarnings("error", message="constrained_layout not applied")
        try:
            figure.savefig(file, dpi=dpi, metadata=SUFFIXES[suffix], format=suffix[1:])
        except UserWarning as problem:
            width, height = figure.get_size_inches()
            raise FigureError(
                f"a figure of {width:g} x {height:g} inches has no room for its text: give a larger --size, a smaller "
                "--font-size, or fewer metrics with --y"
            ) from problem
