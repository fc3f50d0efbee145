"""The figure of a comparison: of one pair both curves of convergence and their difference, of several all differences."""

from __future__ import annotations

import textwrap
from bisect import bisect_right

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweeps.results.comparison import Comparison, Pair, Side
from sweeps.results.drawing import (
    COLOURS,
    DASHES,
    GREY,
    HATCHES,
    PANEL_WIDTH,
    Style,
    columns_for,
    finished,
    grid,
    panels,
    plain,
    share_axis,
    steps_axis,
)
from sweeps.results.statistics import rate_difference, wilson


def draw(found: Comparison, style: Style | None = None) -> Figure:
    """Return the figure of a comparison. Bands and bars are intervals at each step, or of each pair, by itself."""
    style = style or Style()
    return _of_pair(found, found.pairs[0], style) if len(found.pairs) == 1 else _of_pairs(found, style)


def _of_pair(found: Comparison, pair: Pair, style: Style) -> Figure:
    figure, (curves, gap) = panels(2, style)
    met = [
        sorted(seed.converged_at for seed in side.seeds if seed.converged_at is not None) for side in (pair.first, pair.second)
    ]
    at = sorted({0, pair.budget, *(step for steps in met for step in steps if step <= pair.budget)})
    counts = [
        [(bisect_right(steps, step), len(side.seeds)) for step in at] for steps, side in zip(met, _sides(pair), strict=True)
    ]
    for number, (side, of_side) in enumerate(zip(_sides(pair), counts, strict=True)):
        colour, shares = COLOURS[number], [wilson(*count, found.confidence) for count in of_side]
        label = f"{side.name} ({len(side.seeds)} seed{'s' if len(side.seeds) != 1 else ''})"
        curves.step(
            at, [one.estimate or 0.0 for one in shares], where="post", color=colour, linestyle=DASHES[number], label=label
        )
        low, high = [one.low or 0.0 for one in shares], [1.0 if one.high is None else one.high for one in shares]
        curves.fill_between(at, low, high, step="post", facecolor=colour, alpha=0.13, linewidth=0)
        curves.fill_between(
            at, low, high, step="post", facecolor="none", edgecolor=colour, alpha=0.5, linewidth=0.6, hatch=HATCHES[number]
        )
    curves.set_ylabel("seeds converged", fontsize=style.font_size)
    curves.set_ylim(-0.02, 1.03)
    compared = [rate_difference(one, other, found.confidence) for one, other in zip(counts[0], counts[1], strict=True)]
    middle = [one.estimate or 0.0 for one in compared]
    low, high = ([end or 0.0 for end in ends] for ends in zip(*((one.low, one.high) for one in compared), strict=True))
    gap.axhline(0, color=GREY, linewidth=0.8)
    gap.step(at, middle, where="post", color="black")
    gap.fill_between(at, low, high, step="post", facecolor="black", alpha=0.13, linewidth=0)
    gap.set_ylabel("difference, second - first", fontsize=style.font_size)
    for panel in (curves, gap):
        grid(panel, style)
        share_axis(panel.yaxis)
        steps_axis(panel.xaxis)
        panel.set_xlabel("step", fontsize=style.font_size)
    level = f"{100 * found.confidence:g} %"
    notes = [f"bands: {level} at each step by itself (Wilson, and Newcombe for independent rates)", *_budgets(pair)]
    return finished(figure, [curves, gap], notes, [], style)


def _of_pairs(found: Comparison, style: Style) -> Figure:
    width = (style.width or 2 * PANEL_WIDTH) * 72 / (0.6 * style.font_size)  # in letters
    names = [textwrap.fill(f"{pair.first.name} against {pair.second.name}", max(12, int(0.35 * width))) for pair in found.pairs]
    key: dict[str, str] = {}
    needed = sum(name.count("\n") + 1.6 for name in names) * style.font_size * 1.25 / 72
    columns = columns_for(2, style)
    if style.height is not None and needed > 0.6 * style.height * columns / 2:  # names that would overlap are letters
        key = {f"{at}": f"{pair.first.name} against {pair.second.name}" for at, pair in enumerate(found.pairs, start=1)}
        names = list(key)
    each = (style.width or 2 * PANEL_WIDTH) / columns
    figure, (rates, means) = panels(2, style, shape=max(0.6, (needed + 0.6) / each))
    longest = max(len(line) for name in names for line in name.splitlines())
    letters = max(10, int((width - longest - 8) / columns) - 6)
    for panel, metric, label in (
        (rates, "success_rate", "seeds solved, second - first"),
        (means, "restricted_mean", "converged at, mean, second - first"),
    ):
        for row, pair in enumerate(found.pairs):
            of_pairs = pair.difference(pair.decisive) if metric == "success_rate" else None
            one = of_pairs if of_pairs is not None and of_pairs.unit == "share" else pair.difference(metric)
            if one is None or one.difference.estimate is None:
                continue
            value, low, high = one.difference.estimate, one.difference.low, one.difference.high
            ends = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
            panel.errorbar([value], [row], xerr=ends, fmt="o", markersize=4, capsize=3, linewidth=1.2, color=COLOURS[0])
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.set_xlabel(textwrap.fill(label, letters), fontsize=style.font_size)
        panel.set_ylim(len(names) - 0.5, -0.5)
        grid(panel, style)
    rates.set_yticks(range(len(names)), [plain(name) for name in names])
    means.set_yticks(range(len(names)), [plain(name) if columns == 1 else "" for name in names])
    share_axis(rates.xaxis)
    steps_axis(means.xaxis)
    for panel in (rates, means):
        panel.xaxis.set_major_locator(MaxNLocator(max(2, min(5, letters // 7)), steps=[1, 2, 5, 10]))
    level = f"{100 * found.confidence:g} %"
    notes = [f"bars: {level} intervals of each pair by itself, not adjusted for their number"]
    notes += [f"{letter}: {name}" for letter, name in key.items()]
    return finished(figure, [rates, means], notes, list(found.left_out), style)


def _sides(pair: Pair) -> tuple[Side, Side]:
    return pair.first, pair.second


def _budgets(pair: Pair) -> list[str]:
    budgets = {side.budget for side in _sides(pair)}
    return [f"budgets of {' and '.join(f'{steps:,}' for steps in sorted(budgets))} steps, drawn up to the shorter"] * (
        len(budgets) > 1
    )
