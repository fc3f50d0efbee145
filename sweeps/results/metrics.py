"""The registry of metrics.

A metric is one entry of this module, of one of three kinds:

    LaneMetric            a value of one lane (one seed)
    ConfigurationMetric   an aggregate of a lane's value over the seeds of a configuration, with or without an interval
    StepMetric            a share of a configuration's seeds against the training step

Report, MLflow, figures, objectives, export and `sweeps list metrics` iterate the registry, so a metric is added by adding
its entry here, or by `register`. Metrics that depend on the task, `error.<split>` and `<score>.<split>`, are entries that
`configuration_metrics` and `find` make for the splits and scores that the results have.

The criteria themselves (solved, converged at, sparsity error) are computed by the engine: see `sweeps.training.lane`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from sweeps.config.space import Direction, Objective
from sweeps.errors import UserError
from sweeps.results.numbers import UNKNOWN, number, percent, steps
from sweeps.results.statistics import (
    SPARSITY_CEILING,
    Interval,
    beta_fits,
    beta_mean,
    bounded_mean,
    gamma_fits,
    gamma_mean,
    kaplan_meier,
    median,
    t_mean,
    wilson,
)
from sweeps.results.verdicts import last_error, lowest_error, solved_at_end, threshold_ratio
from sweeps.training.lane import SPARSITY_ERROR as SPARSITY_ERROR_NAME
from sweeps.training.lane import LaneResult

Lookup = Callable[[str], Interval]
"""Name of a configuration metric -> its value for one configuration."""

CRITERIA = "Madsen and Johansen (2019), Measuring Arithmetic Extrapolation Performance"
INTERVALS = "Madsen and Johansen (2020), Neural Arithmetic Units"


BEYOND = 2.0
"""Times the highest seed: an interval of a mean that reaches farther is not shown to people."""


@dataclass(frozen=True)
class Aggregation:
    """How the values of several lanes become one value."""

    name: str
    interval: str | None
    """Kind of the 95 % confidence interval; None: no interval. See docs/statistics.md."""
    apply: Callable[[Sequence[float | None]], Interval] | None
    """Values in order of the seeds, None where a lane has none. None: a metric of it has `of_results`."""


def _finite(values: Sequence[float | None]) -> list[float]:
    """Return the finite values in ascending order, so that sums are the same for any order of arrival."""
    return sorted(float(value) for value in values if value is not None and math.isfinite(value))


def _mean(values: Sequence[float | None]) -> Interval:
    present = [value for value in values if value is not None]
    return Interval(sum(present) / len(present)) if present else Interval()


def _median_of_all(values: Sequence[float | None], worst: float) -> Interval:
    ordered = sorted(worst if value is None or math.isnan(value) else value for value in values)
    if not ordered:
        return Interval()
    # numpy would make NaN of two infinite neighbours.
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return Interval(low / 2 + high / 2) if math.isfinite(low) and math.isfinite(high) else Interval()


def _sparsity_mean(values: Sequence[float | None]) -> Interval:
    finite = _finite(values)
    if beta_fits(finite):
        return replace(beta_mean(finite), method="beta")
    if finite and finite[-1] > SPARSITY_CEILING:  # as happens with linear networks: there is no known ceiling
        return replace(t_mean(finite, floor=0.0), method="t" if len(finite) > 1 else "")
    return bounded_mean(finite, SPARSITY_CEILING)


SHARE = Aggregation("share", "Wilson", lambda values: wilson(sum(map(bool, values)), len(values)))
GAMMA_MEAN = Aggregation("mean", "gamma where it fits, else bounded", None)
BETA_MEAN = Aggregation("mean", "beta where it fits, else bounded", _sparsity_mean)
BOUNDED_MEAN = Aggregation("mean", "bounded", None)
MEAN = Aggregation("mean", None, _mean)
MEDIAN = Aggregation("median", "order statistics", lambda values: median(_finite(values)))
"""Of the lanes that have a value."""
MEDIAN_OF_ALL = Aggregation("median", None, lambda values: _median_of_all(values, math.inf))
"""A missing value counts as infinite; an infinite median is unknown."""
MEDIAN_OF_ALL_MAXIMIZED = Aggregation("median", None, lambda values: _median_of_all(values, -math.inf))
"""The same where higher is better: a missing value counts as minus infinity."""
SUM = Aggregation("sum", None, lambda values: Interval(sum(value for value in values if value is not None)))


@dataclass(frozen=True, kw_only=True)
class LaneMetric:
    """A value of one lane."""

    name: str
    meaning: str
    source: str = ""
    unit: str = ""
    """steps, share, or empty: a plain number."""
    value: Callable[[LaneResult], float | None]
    """None where the lane has no value. Never NaN."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the Markdown tables."""

    header: str
    """In the table of a cell."""
    legend: str
    """What the column shows, after its short header and a colon."""
    short_header: str = ""
    """In the table of best configurations; empty: as `header`."""
    text: Callable[[Lookup], str] | None = None
    """A field in the table of a cell; None: the metric's estimate in its own format."""
    short_text: Callable[[Lookup], str] | None = None
    """A field in the table of best configurations; None: as in the table of a cell."""
    shows: tuple[str, ...] = ()
    """Other metrics that the column shows: as objectives they get no column of their own."""


@dataclass(frozen=True, kw_only=True)
class ConfigurationMetric:
    """An aggregate over the seeds of a configuration."""

    name: str
    """`<base>.mean` and `<base>.median` where a lane's value is aggregated in both ways."""
    meaning: str
    source: str = ""
    unit: str = ""
    """steps, share, or empty: a plain number."""
    lane_value: Callable[[LaneResult], float | None]
    """The value of one lane that is aggregated."""
    seeds: Literal["all", "solved"] = "all"
    aggregation: Aggregation
    of_results: Callable[[Sequence[LaneResult]], Interval] | None = None
    """The value of the lanes of `seeds`, where more of them is needed than their values."""
    needs_threshold: bool = False
    """Whether it is undefined where the task has no threshold."""
    range_of: Callable[[int], tuple[float, float]] | None = None
    """Of a mean: the range of a lane's value, by its budget in steps; None: not known."""
    direction: Direction | None
    """The default direction as an objective. None: it is not an objective or, for a score of a task, the sweep file defines the
    direction."""
    format: Callable[[float | None], str] = number
    column: Column | None = None
    label: str = ""
    """Of an axis in figures; empty: the name with spaces."""
    default_figure: bool = False
    """Whether `sweeps figure` against an axis draws it when no metric is named."""

    @property
    def needs_solved_seeds(self) -> bool:
        """Whether it says nothing of a configuration without a solved seed, or is the same for all of those."""
        return self.needs_threshold or self.seeds == "solved"

    def value(self, results: Sequence[LaneResult]) -> Interval:
        """Return the value, with its interval, of results in order of their seeds."""
        if self.needs_threshold and not are_judged(results):
            return Interval()
        chosen = results if self.seeds == "all" else [result for result in results if result.solved]
        if self.of_results is not None:
            return self.of_results(chosen)
        assert self.aggregation.apply is not None, self.name
        return self.aggregation.apply([self.lane_value(result) for result in chosen])

    def shown(self, value: Interval, results: Sequence[LaneResult]) -> Interval:
        """Return the value for people: without ends where the high one is beyond `BEYOND` times the highest seed.

        There the end of the range, such as the budget, decides it, and not the seeds: see docs/statistics.md.
        """
        if value.method != "bounded" or value.high is None:
            return value
        highest = max((v for result in results if (v := self.lane_value(result)) is not None), default=0.0)
        return Interval(value.estimate) if value.high > BEYOND * highest else value

    def columns(self, value: Interval, estimate: str = ".estimate") -> dict[str, float | None]:
        """Return the value by column: the name alone, or the estimate and both ends of the interval.

        `success_rate.estimate`, `success_rate.low`, `success_rate.high`, but `converged_at.mean`, `converged_at.low`,
        `converged_at.high`, and `converged_at.median`, `converged_at.median_low`, `converged_at.median_high`. `estimate` is
        what is appended to a name that ends neither on `.mean` nor on `.median`.
        """
        if self.aggregation.interval is None:
            return {self.name: value.estimate}
        if self.name.endswith(".median"):
            return {self.name: value.estimate, f"{self.name}_low": value.low, f"{self.name}_high": value.high}
        base = self.name.removesuffix(".mean")
        first = base + estimate if base == self.name else self.name
        return {first: value.estimate, f"{base}.low": value.low, f"{base}.high": value.high}


@dataclass(frozen=True, kw_only=True)
class StepMetric:
    """A share of a configuration's seeds against the training step."""

    name: str
    meaning: str
    source: str = ""
    unit: str = "share"
    label: str = ""
    value: Callable[[Sequence[LaneResult], Sequence[int] | None], list[tuple[int, Interval]]]
    """(results, steps) -> (step, value with its interval). None: 0, every step at which it changes, and the longest
    budget. Empty where the task does not define it."""


# ------------------------------------------------------------------------------------------- the entries


def are_judged(results: Sequence[LaneResult]) -> bool:
    """Return whether seeds can be solved: the task has a threshold, which a lane that ended in an exception does not say."""
    known = any(one.threshold is not None or one.solved or one.converged_at is not None for one in results)
    return known or all(one.outcome == "error" for one in results)


def penalised_steps(result: LaneResult) -> float:
    """Return what a lane contributes to par2: see `penalised`."""
    return penalised(result.solved, result.converged_at, result.budget)


def penalised(solved: bool, converged_at: int | None, budget: int) -> float:
    """Return converged-at in steps, twice the budget for an unsolved seed.

    A solved seed whose task defines no converged-at counts the whole budget.
    """
    if not solved:
        return 2 * budget
    return budget if converged_at is None else converged_at


def steps_to_convergence(result: LaneResult) -> int:
    """Return converged-at in steps, the budget for a lane that has not converged: it is observed up to there.

    A lane that diverged, or ended in an exception, would not have converged later, so it counts as observed to the end of
    its budget: to stop observing it where it failed would count it like the seeds that are left, as if it might still converge.
    """
    return result.budget if result.converged_at is None else result.converged_at


def step_before(result: LaneResult) -> int:
    """Return the step of the last evaluation before a lane converged, after which it did; 0 at the first evaluation.

    The budget for a lane that has not converged, and converged-at where there is no curve.
    """
    at, steps = steps_to_convergence(result), result.curve.get("step", [])
    if result.converged_at is None or at not in steps:
        return at
    return steps[steps.index(at) - 1] if steps[0] != at else 0


def solved_fraction(results: Sequence[LaneResult], at: Sequence[int] | None = None) -> list[tuple[int, Interval]]:
    """Return (step, share of seeds that have converged by it), over all seeds, by Kaplan and Meier.

    A seed has converged by a step if its converged-at is not later, regardless of its error afterwards, so the share never
    falls. The others are observed up to their budgets (`steps_to_convergence`): where these are equal it is the plain share
    with Wilson's interval. Empty if no result has a threshold or a converged-at: then the task does not define it.
    """
    if all(result.threshold is None and result.converged_at is None for result in results):
        return []
    converged = [result.converged_at is not None for result in results]
    times = [steps_to_convergence(result) for result in results]
    if at is None:
        at = sorted({0, *(time for time, met in zip(times, converged, strict=True) if met), max(one.budget for one in results)})
    return list(zip(at, kaplan_meier(times, converged, at), strict=True))


def _restricted_mean(results: Sequence[LaneResult]) -> Interval:
    """Return the mean of the steps to convergence, none of which counts more than the shortest budget: all are observed."""
    if not results:
        return Interval()
    budget = min(result.budget for result in results)
    pairs = [(min(step_before(result), budget), min(steps_to_convergence(result), budget)) for result in results]
    return bounded_mean([high for _, high in pairs], budget, lower=[low for low, _ in pairs])


def _converged_median(results: Sequence[LaneResult]) -> Interval:
    found = [result for result in results if result.converged_at is not None]
    return median(list(map(steps_to_convergence, found)), lower=list(map(step_before, found)))


def _converged_mean(results: Sequence[LaneResult]) -> Interval:
    found = [result for result in results if result.converged_at is not None]
    values = list(map(steps_to_convergence, found))
    if gamma_fits(values):
        return replace(gamma_mean(sorted(values)), method="gamma")
    return bounded_mean(
        values, max([result.budget for result in found] + values, default=0), lower=list(map(step_before, found))
    )


def _success(lookup: Lookup) -> str:
    rate = lookup(SUCCESS_RATE.name)
    if rate.estimate is None:
        return UNKNOWN
    counts = f"{lookup(SOLVED_SEEDS.name).estimate}/{lookup(SEEDS.name).estimate}"
    return f"{counts} {percent(rate.estimate)}% [{percent(rate.low)}, {percent(rate.high)}]"


def _converged(lookup: Lookup) -> str:
    middle = lookup(CONVERGED_AT_MEDIAN.name)
    ends = f" [{steps(middle.low)}, {steps(middle.high)}]" if middle.low is not None else ""
    return f"{steps(middle.estimate)}{ends}"


def _at_end(lookup: Lookup) -> str:
    return UNKNOWN if lookup(SUCCESS_RATE.name).estimate is None else str(lookup(SOLVED_SEEDS_AT_END.name).estimate)


def _error_median(of: LaneMetric) -> ConfigurationMetric:
    return ConfigurationMetric(
        name=f"{of.name}.median",
        meaning=f"median over all seeds, a missing one counting as infinite: {of.meaning}",
        lane_value=of.value,
        aggregation=MEDIAN_OF_ALL,
        direction="minimize",
    )


SOLVED = LaneMetric(
    name="solved",
    meaning="extrapolation error below the threshold at the best step, which has the lowest interpolation error",
    source=CRITERIA,
    value=lambda result: result.solved,
)
CONVERGED_AT = LaneMetric(
    name="converged_at",
    meaning="first evaluated step with an extrapolation error below the threshold",
    source=CRITERIA,
    unit="steps",
    value=lambda result: result.converged_at,
)
SPARSITY_ERROR = LaneMetric(
    name=SPARSITY_ERROR_NAME,
    meaning="largest min(|w|, |1 - |w||) of all weights, at the best step",
    source=CRITERIA,
    value=lambda result: result.sparsity_error,
)
STEPS = LaneMetric(
    name="steps",
    meaning="optimiser updates done; fewer than the budget if the lane ended early",
    unit="steps",
    value=lambda result: result.steps,
)

SOLVED_AT_END = LaneMetric(
    name="solved_at_end",
    meaning="extrapolation error below the threshold at the last evaluation",
    value=solved_at_end,
)
THRESHOLD = LaneMetric(
    name="threshold",
    meaning="extrapolation error of a solution that is off by 1e-5, below which a seed is solved",
    source=CRITERIA,
    value=lambda result: result.threshold,
)
ERROR_LOWEST = LaneMetric(
    name="error_lowest",
    meaning="lowest extrapolation error of all evaluations",
    value=lowest_error,
)
ERROR_AT_END = LaneMetric(
    name="error_at_end",
    meaning="extrapolation error at the last evaluation",
    value=last_error,
)
THRESHOLD_RATIO = LaneMetric(
    name="threshold_ratio",
    meaning="lowest extrapolation error divided by the threshold",
    value=threshold_ratio,
)

SEEDS = ConfigurationMetric(
    name="seeds", meaning="finished seeds", lane_value=lambda result: 1, aggregation=SUM, direction=None
)  # fmt: skip
SOLVED_SEEDS = ConfigurationMetric(
    name=SOLVED.name, meaning="solved seeds", lane_value=SOLVED.value, aggregation=SUM, direction=None
)
DIVERGED = ConfigurationMetric(
    name="diverged",
    meaning="seeds whose loss or weights became infinite or NaN",
    lane_value=lambda result: result.outcome == "diverged",
    aggregation=SUM,
    direction="minimize",
)
ERRORS = ConfigurationMetric(
    name="errors",
    meaning="seeds that ended in an exception",
    lane_value=lambda result: result.outcome == "error",
    aggregation=SUM,
    direction=None,
)
SOLVED_SEEDS_AT_END = ConfigurationMetric(
    name=SOLVED_AT_END.name,
    meaning="seeds whose last evaluation is below the threshold",
    lane_value=SOLVED_AT_END.value,
    aggregation=SUM,
    direction=None,
    column=Column(header="at end", legend="seeds still, or again, below the threshold at their last evaluation", text=_at_end),
)
SUCCESS_RATE = ConfigurationMetric(
    name="success_rate",
    meaning="share of seeds solved",
    source=INTERVALS,
    unit="share",
    lane_value=SOLVED.value,
    aggregation=SHARE,
    needs_threshold=True,
    range_of=lambda budget: (0.0, 1.0),
    direction="maximize",
    format=percent,
    column=Column(
        header="success",
        legend="seeds solved, their share and its 95 % interval (Wilson)",
        text=_success,
    ),
    label="seeds solved",
    default_figure=True,
)
SUCCESS_RATE_AT_END = ConfigurationMetric(
    name="success_rate_at_end",
    meaning="share of seeds whose last evaluation is below the threshold",
    unit="share",
    lane_value=SOLVED_AT_END.value,
    aggregation=SHARE,
    needs_threshold=True,
    range_of=lambda budget: (0.0, 1.0),
    direction="maximize",
    format=percent,
    label="seeds solved at the end",
)
CONVERGED_AT_MEAN = ConfigurationMetric(
    name=f"{CONVERGED_AT.name}.mean",
    meaning="mean converged-at of solved seeds",
    source=INTERVALS,
    unit="steps",
    lane_value=CONVERGED_AT.value,
    seeds="solved",
    aggregation=GAMMA_MEAN,
    of_results=_converged_mean,
    direction="minimize",
    format=steps,
    label="converged at, mean (step)",
)
CONVERGED_AT_MEDIAN: ConfigurationMetric = ConfigurationMetric(
    name=f"{CONVERGED_AT.name}.median",
    meaning="median converged-at of solved seeds",
    source=INTERVALS,
    unit="steps",
    lane_value=CONVERGED_AT.value,
    seeds="solved",
    aggregation=MEDIAN,
    of_results=_converged_median,
    direction="minimize",
    format=steps,
    column=Column(
        header="converged at",
        legend="in steps, median of solved seeds with its 95 % interval (order statistics)",
        text=_converged,
        short_text=lambda lookup: steps(lookup(CONVERGED_AT_MEDIAN.name).estimate),
        shows=(CONVERGED_AT_MEAN.name,),
    ),
    label="converged at, median (step)",
    default_figure=True,
)
MEAN_SPARSITY_ERROR = ConfigurationMetric(
    name=SPARSITY_ERROR.name,
    meaning="mean sparsity error of solved seeds",
    source=INTERVALS,
    lane_value=SPARSITY_ERROR.value,
    seeds="solved",
    aggregation=BETA_MEAN,
    direction="minimize",
    column=Column(header="sparsity", legend="mean sparsity error of solved seeds"),
)
MEDIAN_SPARSITY_ERROR = ConfigurationMetric(
    name=f"{SPARSITY_ERROR.name}.median",
    meaning="median sparsity error of solved seeds",
    lane_value=SPARSITY_ERROR.value,
    seeds="solved",
    aggregation=MEDIAN,
    direction="minimize",
    label="sparsity error, median",
)
RESTRICTED_MEAN = ConfigurationMetric(
    name="restricted_mean",
    meaning="mean converged-at of all seeds, one that has not converged counting its budget: the restricted mean of Kaplan "
    "and Meier's curve",
    source="Irwin (1949), The standard error of an estimate of expectation of life",
    unit="steps",
    lane_value=steps_to_convergence,
    aggregation=BOUNDED_MEAN,
    of_results=_restricted_mean,
    needs_threshold=True,
    range_of=lambda budget: (0.0, float(budget)),
    direction="minimize",
    format=steps,
    label="restricted mean (step)",
)
PAR2 = ConfigurationMetric(
    name="par2",
    meaning="mean converged-at, an unsolved seed counting twice the budget",
    source="penalised average runtime with factor 2, the score of the SAT competitions",
    unit="steps",
    lane_value=penalised_steps,
    aggregation=MEAN,
    needs_threshold=True,
    range_of=lambda budget: (0.0, 2.0 * budget),
    direction="minimize",
    format=steps,
    column=Column(header="par2", legend="mean converged-at, an unsolved seed counting twice the budget; lower is better"),
)
SEED_STEPS = ConfigurationMetric(
    name="seed_steps",
    meaning="optimiser updates, all seeds together",
    unit="steps",
    lane_value=STEPS.value,
    aggregation=SUM,
    direction="minimize",
    format=steps,
)
SOLVED_FRACTION = StepMetric(
    name="solved_fraction",
    meaning="share of seeds that have converged by this step",
    source=INTERVALS,
    label="seeds converged",
    value=solved_fraction,
)

THRESHOLD_MEDIAN = ConfigurationMetric(
    name=THRESHOLD.name, meaning=THRESHOLD.meaning, source=CRITERIA, lane_value=THRESHOLD.value,
    aggregation=Aggregation("median", None, lambda values: Interval(median(_finite(values)).estimate)), direction=None,
)  # fmt: skip
ERROR_LOWEST_MEDIAN = _error_median(ERROR_LOWEST)
ERROR_AT_END_MEDIAN = _error_median(ERROR_AT_END)
THRESHOLD_RATIO_MEDIAN = _error_median(THRESHOLD_RATIO)

Metric = LaneMetric | ConfigurationMetric | StepMetric

_registry: list[Metric] = [
    SOLVED, SOLVED_AT_END, CONVERGED_AT, SPARSITY_ERROR, THRESHOLD, ERROR_LOWEST, ERROR_AT_END, THRESHOLD_RATIO, STEPS,
    SEEDS, SOLVED_SEEDS, DIVERGED, ERRORS, SUCCESS_RATE, SOLVED_SEEDS_AT_END, SUCCESS_RATE_AT_END, CONVERGED_AT_MEAN,
    CONVERGED_AT_MEDIAN, MEAN_SPARSITY_ERROR, MEDIAN_SPARSITY_ERROR, PAR2, RESTRICTED_MEAN, THRESHOLD_MEDIAN,
    ERROR_LOWEST_MEDIAN, ERROR_AT_END_MEDIAN, THRESHOLD_RATIO_MEDIAN, SEED_STEPS, SOLVED_FRACTION,
]  # fmt: skip
"""In the order of the reports."""

ALIASES = {CONVERGED_AT.name: CONVERGED_AT_MEAN.name}
"""Former name of a configuration metric -> its name. Sweep files may still use the former name."""


def error_median(split: str) -> ConfigurationMetric:
    """Return the metric `error.<split>.median`: over all seeds, a missing error counting as infinite."""
    return ConfigurationMetric(
        name=f"error.{split}.median",
        meaning=f"median error on {split} of all seeds, a missing one counting as infinite",
        lane_value=lambda result: result.error.get(split),
        aggregation=MEDIAN_OF_ALL,
        direction="minimize",
    )


def score_median(score: str, direction: Direction | None = None) -> ConfigurationMetric:
    """Return the metric `<score>.<split>.median` of a task's score, such as `relative_error.extrapolation`.

    It is the median over all seeds, a missing score counting as the worst. A task does not define whether higher or lower
    scores are better; without a direction lower scores are.
    """
    return ConfigurationMetric(
        name=f"{score}.median",
        meaning=f"median {score} of all seeds, a missing one counting as the worst",
        lane_value=lambda result: result.scores.get(score),
        aggregation=MEDIAN_OF_ALL_MAXIMIZED if direction == "maximize" else MEDIAN_OF_ALL,
        direction=direction,
    )


@dataclass(frozen=True)
class SeedValue:
    """What one seed contributes to an objective that is a mean or a median over all seeds."""

    of: Callable[[LaneResult], float]
    """Lower is better; infinite where the seed has no value."""
    by_rank: bool
    """The objective is a median."""
    ends: tuple[float, float] | None = None
    """Of a mean: the lowest value that there may be, and the highest, that of a seed that failed."""
    best: float | None = None
    """The value of a seed with which the objective cannot be better; None where it always can."""


def seed_value(objective: Objective, budget: int) -> SeedValue | None:
    """Return what a seed contributes that may train `budget` steps at most.

    None where the objective is not a median over all seeds, or a mean over them of values in a known range. Raises UserError
    for an unknown objective.
    """
    metric = find(objective.name, objective.direction)
    by_rank = metric.aggregation in (MEDIAN_OF_ALL, MEDIAN_OF_ALL_MAXIMIZED)
    if metric.seeds != "all" or (not by_rank and metric.range_of is None):
        return None
    maximize = objective.direction == "maximize"

    def of(result: LaneResult) -> float:
        value = metric.lane_value(result)
        return math.inf if value is None or math.isnan(value) else float(-value if maximize else value)

    if by_rank or metric.range_of is None:
        return SeedValue(of, by_rank)
    low, high = metric.range_of(budget)
    ends = (-high, -low) if maximize else (low, high)
    return SeedValue(of, by_rank, ends, ends[0] if metric.aggregation is SHARE else None)


# ------------------------------------------------------------------------------------------- access


def register(metric: Metric) -> None:
    """Add a metric. Raises ValueError for a name that another metric of its kind has, or begins with, up to a dot."""
    for one in _registry:
        shorter, longer = sorted((f"{one.name}.", f"{metric.name}."), key=len)
        if type(one) is type(metric) and longer.startswith(shorter):
            raise ValueError(f"there is a {type(metric).__name__} named {one.name!r} already: choose another name")
    _registry.append(metric)
    _named.cache_clear()


@cache
def _named() -> dict[str, ConfigurationMetric]:
    """Return the metrics of every configuration by name; emptied where the registry changes."""
    return {metric.name: metric for metric in _registry if isinstance(metric, ConfigurationMetric)}


@contextmanager
def registered(*metrics: Metric) -> Iterator[None]:
    """Add metrics for the time of a `with` block."""
    before = list(_registry)
    try:
        for metric in metrics:
            register(metric)
        yield
    finally:
        _registry[:] = before
        _named.cache_clear()


def lane_metrics() -> list[LaneMetric]:
    """Return the metrics that every lane has; see `lane_values` for those that depend on the task."""
    return [metric for metric in _registry if isinstance(metric, LaneMetric)]


def step_metrics() -> list[StepMetric]:
    """Return the metrics against the training step."""
    return [metric for metric in _registry if isinstance(metric, StepMetric)]


def configuration_metrics(results: Iterable[LaneResult] = ()) -> list[ConfigurationMetric]:
    """Return the metrics of every configuration, then the medians of the errors and scores that these results have."""
    splits, scores = set(), set()
    for result in results:
        splits |= set(result.error)
        scores |= set(result.scores)
    return [*_named().values(), *map(error_median, sorted(splits)), *map(score_median, sorted(scores))]


def lane_values(result: LaneResult) -> dict[str, float | None]:
    """Return all values of a lane by metric, `error.<split>` and `<score>.<split>` included."""
    errors = {f"error.{split}": value for split, value in result.error.items()}
    return {metric.name: metric.value(result) for metric in lane_metrics()} | errors | result.scores


def canonical_name(name: str) -> str:
    """Return the current name of a configuration metric, given this or a former name."""
    return ALIASES.get(name, name)


def find(name: str, direction: Direction | None = None) -> ConfigurationMetric:
    """Return a configuration metric by name. `direction` matters for a task's score, whose entry does not define it.

    Raises UserError, with the nearest name, for an unknown one.
    """
    name = canonical_name(name)
    if (found := _named().get(name)) is not None:
        return found
    base, _, last = name.rpartition(".")
    first, _, split = base.partition(".")
    if split and last == "median":
        return error_median(split) if first == "error" else score_median(base, direction)
    names = list(default_directions())
    near = difflib.get_close_matches(name, (*names, error_median("extrapolation").name), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"no objective named {name!r}.{hint} It may be {', '.join(names)}, error.<split>.median or <score>.<split>.median."
    )


def default_directions() -> dict[str, Direction]:
    """Return the metrics that may be objectives of any task, with the direction that each has by default.

    Besides them an objective may be `error.<split>.median`, minimised, or `<score>.<split>.median`.
    """
    named = configuration_metrics()
    return {metric.name: metric.direction for metric in named if metric.direction is not None}


def listing() -> list[tuple[str, str]]:
    """Return (name, description) of every metric, for `sweeps list metrics`."""
    rows = []
    listed: list[Metric] = [*lane_metrics(), *step_metrics(), *configuration_metrics()]
    for metric in listed:
        parts = [metric.meaning]
        if isinstance(metric, ConfigurationMetric):
            level = "configuration"
            if metric.aggregation.interval:
                parts.append(f"95 % interval: {metric.aggregation.interval}")
            if metric.direction:
                parts.append(f"objective: {metric.direction}")
        else:
            level = "lane" if isinstance(metric, LaneMetric) else "configuration, against the step"
        parts += [f"source: {metric.source}"] if metric.source else []
        rows.append((metric.name, f"{level}: {'; '.join(parts)}"))
    return [
        *rows,
        ("error.<split>", "lane: error on an evaluation set of the task at the best step"),
        ("<score>.<split>", "lane: a score of the task at the best step"),
        (error_median("<split>").name, f"configuration: {error_median('<split>').meaning}; objective: minimize"),
        (score_median("<score>.<split>").name, f"configuration: {score_median('<score>.<split>').meaning}; objective: "
                                               "the sweep file defines the direction"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- errors by length


@dataclass(frozen=True)
class SymbolError:
    """A share of wrong outputs of a task on symbols; figures can also draw the accuracy, one minus it."""

    name: str
    header: str
    accuracy: str
    label: str


SYMBOL_ERRORS = (
    SymbolError("symbol_error", "% of symbols wrong", "symbol_accuracy", "symbols right"),
    SymbolError("sequence_error", "% of sequences wrong", "sequence_accuracy", "sequences right"),
)
"""Errors by length of a task on symbols. Padding counts only in those whose names end on `_with_padding`."""
