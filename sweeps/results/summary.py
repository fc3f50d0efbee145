"""What a configuration's seeds say together, and which configuration is best.

Rates are over all seeds. `converged_at` and `sparsity_error` are over solved seeds only, as in the papers; a
seed whose lane diverged, or failed with an error, is an unsolved seed and is also counted by its outcome.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.results.statistics import Interval, beta_mean, gamma_mean, wilson
from sweeps.training.lane import LaneResult

NO_ERROR_FIGURE = 400.0
"""log10 of an error that is missing or infinite, for medians: greater than that of any double (308.3), and
finite. An error of exactly 0 counts as 10 to the minus this."""

WORST = 1e300
"""Stands for an objective that no seed gives a figure for, such as the median converged-at of no solved seed.
Finite, so that samplers take it; worse than any figure."""

OBJECTIVES = ("par2", "success_rate", "converged_at", "converged_at.median", "sparsity_error")
"""Besides these an objective may be `error.<split>.median`, or `<score>.<split>.median` of a score that the task reports."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures of one configuration, steps in optimiser updates. What is unknown is None, never NaN."""

    seeds: int
    solved: int
    diverged: int
    errors: int
    """Seeds whose lane ended in an exception."""
    success_rate: Interval
    """Fraction of seeds solved, with Wilson's interval."""
    converged_at: Interval
    """Mean over solved seeds, with the gamma interval, in steps."""
    converged_at_median: float | None
    sparsity_error: Interval
    """Mean over solved seeds, with the beta interval."""
    par2: float | None
    """Mean over seeds of converged-at, an unsolved seed counting twice the budget, in steps."""
    error_medians: dict[str, float | None]
    """Split -> median error over all seeds, a missing one counting as infinite; None if infinite."""
    scores: dict[str, tuple[float | None, ...]]
    """`<score>.<split>` -> each seed's, by seed; None where a lane has none. Empty for most tasks."""
    log_error_median: float
    """Median over all seeds of log10 of the extrapolation error. Finite: see `NO_ERROR_FIGURE`."""
    seed_steps: int
    """Steps taken, all seeds together."""


def summarise(records: Sequence[LaneResult], budget: int) -> Summary:
    """Summary of one configuration's finished lanes, in any order. `budget` is train.steps."""
    solved = [record for record in records if record.solved]
    converged = _figures(record.converged_at for record in solved)
    rows = sorted(records, key=lambda record: record.seed)  # so that sums round alike in any order of arrival
    splits = sorted({split for record in rows for split in record.error})
    scores = [record.scores for record in rows]
    return Summary(
        seeds=len(rows),
        solved=len(solved),
        diverged=sum(record.outcome == "diverged" for record in rows),
        errors=sum(record.outcome == "error" for record in rows),
        success_rate=wilson(len(solved), len(rows)),
        converged_at=gamma_mean(converged),
        converged_at_median=float(np.median(converged)) if converged else None,
        sparsity_error=beta_mean(_figures(record.sparsity_error for record in solved)),
        par2=par2(rows, budget),
        error_medians={split: _median_error(rows, split) for split in splits},
        scores={name: tuple(s.get(name) for s in scores) for name in sorted({n for s in scores for n in s})},
        log_error_median=_median_log_error(rows, "extrapolation"),
        seed_steps=sum(record.steps for record in rows),
    )


def par2(records: Sequence[LaneResult], budget: int) -> float | None:
    """Mean converged-at in steps, an unsolved seed counting twice the budget; None without records.

    A solved seed whose task defines no converged-at counts the whole budget.
    """
    if not records:
        return None
    return sum(_penalised_steps(record, budget) for record in records) / len(records)


def objective_figure(summary: Summary, objective: str, direction: str = "minimize") -> float | None:
    """The figure an objective names; None where no seed gives it. Raises ValueError for an unknown name.

    Of a score it is the median over all seeds, a missing one counting as the worst in this direction.
    """
    if objective == "par2":
        return summary.par2
    if objective == "success_rate":
        return summary.success_rate.estimate
    if objective == "converged_at":
        return summary.converged_at.estimate
    if objective == "converged_at.median":
        return summary.converged_at_median
    if objective == "sparsity_error":
        return summary.sparsity_error.estimate
    first, _, rest = objective.partition(".")
    split, _, last = rest.rpartition(".")
    if first == "error" and split and last == "median":
        return summary.error_medians.get(split)
    if split and last == "median":
        return _median_score(summary.scores.get(f"{first}.{split}", ()), direction)
    near = difflib.get_close_matches(objective, (*OBJECTIVES, "error.extrapolation.median"), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"no objective named {objective!r}.{hint} It may be {', '.join(OBJECTIVES)}, error.<split>.median or "
        "<score>.<split>.median."
    )


def objective_value(
    summary: Summary, objective: str = "par2", direction: str = "minimize"
) -> tuple[float, float]:
    """(value, tie-break), both finite; the value in the objective's own direction, ties lowest first.

    A figure that no seed gives is `WORST`, or minus that where it is maximised. The tie-break is the median
    log extrapolation error: without it most of a search is one flat par2.
    """
    figure = objective_figure(summary, objective, direction)
    if figure is None or not math.isfinite(figure):
        figure = -WORST if direction == "maximize" else WORST
    return figure, summary.log_error_median


def rank(summaries: Sequence[Summary], objective: str = "par2", direction: str = "minimize") -> list[int]:
    """Positions of the summaries, best first. Full ties keep their order: the earlier one wins."""

    def key(position: int) -> tuple[float, float]:
        value, tie_break = objective_value(summaries[position], objective, direction)
        return (-value if direction == "maximize" else value), tie_break

    return sorted(range(len(summaries)), key=key)


def _penalised_steps(record: LaneResult, budget: int) -> int:
    if not record.solved:
        return 2 * budget
    return budget if record.converged_at is None else record.converged_at


def _figures(values: Iterable[float | None]) -> list[float]:
    """The finite ones, in ascending order: sums of them are then the same for any order of arrival."""
    return sorted(float(value) for value in values if value is not None and math.isfinite(value))


def _error(record: LaneResult, split: str) -> float:
    value = record.error.get(split)
    return math.inf if value is None or math.isnan(value) else value


def _median_error(records: Sequence[LaneResult], split: str) -> float | None:
    errors = sorted(_error(record, split) for record in records)
    middle = len(errors) // 2
    # numpy would make NaN of two infinite neighbours.
    low, high = errors[middle if len(errors) % 2 else middle - 1], errors[middle]
    return low / 2 + high / 2 if math.isfinite(high) else None


def _median_score(scores: Sequence[float | None], direction: str) -> float | None:
    worst = -math.inf if direction == "maximize" else math.inf
    values = sorted(worst if score is None else score for score in scores)
    if not values:
        return None
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low / 2 + high / 2 if math.isfinite(low) and math.isfinite(high) else None


def _median_log_error(records: Sequence[LaneResult], split: str) -> float:
    logs = [_log_error(_error(record, split)) for record in records]
    return float(np.median(logs)) if logs else NO_ERROR_FIGURE


def _log_error(error: float) -> float:
    if not math.isfinite(error):
        return NO_ERROR_FIGURE
    return math.log10(error) if error > 0 else -NO_ERROR_FIGURE
