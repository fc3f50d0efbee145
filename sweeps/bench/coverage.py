"""Coverage of the intervals in `sweeps.results.statistics`, by simulation: how often each contains the true value.

`sweeps bench --coverage` prints the tables of docs/statistics.md. A distribution is that of the step at which a seed's error
crosses its threshold, or of its sparsity error. Steps are evaluated on a grid, so that what a record has is the first
evaluated step that is not before the crossing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeps.results.formats import table
from sweeps.results.numbers import number
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

SIZES = (25, 100)
"""Seeds."""
REPETITIONS = 2000
"""Of each distribution and number of seeds: the standard error of a coverage of 95 % is 0.5 points."""
_TRUTH = 2_000_000  # draws for true means and medians
_RESAMPLES = 999
_BATCH = 100

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Distribution:
    """What a seed's value is drawn from."""

    name: str
    draw: Draw
    """(generator, shape) -> values; infinite for a seed that never converges."""
    ceiling: float
    """The budget in steps, or the largest sparsity error."""
    grid: float = 0.0
    """Steps between two evaluations; 0: the values are no steps."""
    published: str = "gamma"
    """The papers' family of the mean."""


def _or(share: float, first: Draw, second: Draw) -> Draw:
    """Return a mixture: of the first with this probability, else of the second."""
    return lambda rng, shape: np.where(rng.random(shape) < share, first(rng, shape), second(rng, shape))


DISTRIBUTIONS = (
    Distribution(
        "mixture: 90 % near 17,000, 10 % uniform to 4 million",
        _or(0.9, lambda rng, shape: rng.gamma(50, 340, shape), lambda rng, shape: rng.uniform(0, 4e6, shape)),
        ceiling=4e6, grid=1000,
    ),
    Distribution("few values of the grid", lambda rng, shape: rng.gamma(40, 42.5, shape), ceiling=10_000, grid=500),
    Distribution("one value", lambda rng, shape: rng.uniform(1000, 1500, shape), ceiling=10_000, grid=500),
    Distribution(
        "bimodal: half near 5,000, half near 40,000",
        _or(0.5, lambda rng, shape: rng.gamma(40, 125, shape), lambda rng, shape: rng.gamma(60, 40_000 / 60, shape)),
        ceiling=100_000, grid=500,
    ),
    Distribution(
        "half of the seeds unsolved",
        _or(0.5, lambda rng, shape: 20_000 * rng.lognormal(0, 0.5, shape), lambda rng, shape: np.full(shape, np.inf)),
        ceiling=100_000, grid=500,
    ),
    Distribution(
        "sparsities over many decades: log-normal around 1e-4",
        lambda rng, shape: np.minimum(SPARSITY_CEILING, 1e-4 * rng.lognormal(0, 3, shape)),
        ceiling=SPARSITY_CEILING, published="beta",
    ),
)  # fmt: skip
"""Those of docs/statistics.md."""
FITTING = (
    Distribution("a gamma of shape 4", lambda rng, shape: rng.gamma(4, 5000, shape), ceiling=1e6, grid=100),
    Distribution(
        "sparsities, a beta of 1.5 and 20",
        lambda rng, shape: SPARSITY_CEILING * rng.beta(1.5, 20, shape),
        ceiling=SPARSITY_CEILING, published="beta",
    ),
    Distribution(
        "sparsities, log-normal around 1e-5",
        lambda rng, shape: np.minimum(SPARSITY_CEILING, 1e-5 * rng.lognormal(0, 1, shape)),
        ceiling=SPARSITY_CEILING, published="beta",
    ),
    Distribution(
        "sparsities, log-uniform from 1e-7 to 0.5",
        lambda rng, shape: np.exp(rng.uniform(np.log(1e-7), np.log(SPARSITY_CEILING), shape)),
        ceiling=SPARSITY_CEILING, published="beta",
    ),
)  # fmt: skip
"""For comparison: two that the papers' families fit, and two that they do not."""


@dataclass
class Coverage:
    """How one kind of interval did."""

    inside: int = 0
    below: int = 0
    """The interval was below the true value."""
    count: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, interval: Interval, truth: float) -> None:
        """Count an interval; one without an end does not count as containing anything."""
        self.count += 1
        if interval.low is None or interval.high is None:
            return
        self.inside += _contains(interval, truth)
        self.below += interval.high < truth
        self.widths.append(interval.high - interval.low)

    @property
    def share(self) -> float:
        """Share of the intervals that contain the true value."""
        return self.inside / self.count

    @property
    def width(self) -> float:
        """Median width."""
        return float(np.median(self.widths)) if self.widths else np.nan


@dataclass(frozen=True)
class Result:
    """One distribution at one number of seeds."""

    distribution: Distribution
    seeds: int
    means: dict[str, Coverage]
    """By kind of interval: of the mean of the evaluated steps (restricted to the budget), or of the sparsity error.

    `bounded` is that of `restricted_mean`; `fitted` is that of `converged_at.mean`, over the seeds that converge, and of the
    sparsity error: the papers' family where it fits, else bounded.
    """
    crossing: dict[str, Coverage]
    """Of the mean step of crossing itself."""
    medians: dict[str, Coverage]
    """Of the median step of crossing of the seeds that converge, or sparsity error."""
    fitted: float
    """Share of the samples that the papers' family fits."""


def simulate(distribution: Distribution, seeds: int, repetitions: int, seed: int) -> Result:
    """Return the coverage of every interval. The same arguments give the same result."""
    rng = np.random.default_rng([seed, seeds, *distribution.name.encode()])
    many = distribution.draw(np.random.default_rng([seed, *distribution.name.encode()]), (_TRUTH,))
    ceiling, grid = distribution.ceiling, distribution.grid
    _, many_after = _evaluated(many, grid, ceiling)
    evaluated, crossed = float(many_after.mean()), float(np.minimum(many, ceiling).mean())
    converged = float(many_after[many <= ceiling].mean())
    middle = float(np.median(many[many < ceiling])) if np.isfinite(many).all() else float(np.median(many[np.isfinite(many)]))
    drawn = distribution.draw(rng, (repetitions, seeds))
    before, after = _evaluated(drawn, grid, ceiling)
    family = gamma_mean if distribution.published == "gamma" else beta_mean
    fits = gamma_fits if distribution.published == "gamma" else beta_fits
    means = {name: Coverage() for name in ("published", "t", "BCa", "bounded", "fitted")}
    crossing = {"bounded": Coverage()}
    medians = {name: Coverage() for name in ("without the grid", "recommended")}
    fitted, samples = 0, zip(drawn, before, after, _bca(after, rng), strict=True)
    for values, low, high, bca in samples:
        bounded = bounded_mean(high.tolist(), ceiling, lower=low.tolist())
        published = family(high.tolist())
        met = values <= ceiling
        fit = fits(high[met].tolist())
        fitted += fit
        means["published"].add(published, evaluated)
        means["t"].add(t_mean(high.tolist()), evaluated)
        means["BCa"].add(bca, evaluated)
        means["bounded"].add(bounded, evaluated)
        of_met = family(high[met].tolist()) if fit else bounded_mean(high[met].tolist(), ceiling, lower=low[met].tolist())
        means["fitted"].add(of_met, converged)
        crossing["bounded"].add(bounded, crossed)
        solved = np.isfinite(values)
        medians["without the grid"].add(median(high[solved].tolist()), middle)
        medians["recommended"].add(median(high[solved].tolist(), lower=low[solved].tolist()), middle)
    return Result(distribution, seeds, means, crossing if grid else {}, medians, fitted / repetitions)


def _evaluated(values: Array, grid: float, ceiling: float) -> tuple[Array, Array]:
    """Return the last evaluated step before each value, and the first one not before it; none is beyond the budget."""
    if not grid:
        return values, values
    after = np.minimum(np.maximum(np.ceil(values / grid), 1) * grid, ceiling)
    return np.where(np.isfinite(values), after - grid, ceiling), after


def _bca(samples: Array, rng: np.random.Generator) -> Sequence[Interval]:
    """Return the bootstrap interval of each row's mean, bias-corrected and accelerated (Efron 1987)."""
    from scipy.stats import bootstrap

    found: list[Interval] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, len(samples), _BATCH):
            part = samples[start : start + _BATCH]
            flat = np.ptp(part, axis=1) == 0  # for these scipy returns NaN
            jittered = part + np.where(flat, 1.0, 0.0)[:, None] * np.arange(part.shape[1])
            ends = bootstrap(
                (jittered,), np.mean, axis=1, n_resamples=_RESAMPLES, method="BCa", rng=rng, vectorized=True
            ).confidence_interval
            for row, low, high, equal in zip(part, ends.low, ends.high, flat, strict=True):
                value = float(row.mean())
                found.append(Interval(value, value, value) if equal else Interval(value, float(low), float(high)))
    return found


# ------------------------------------------------------------------------------------------- shares


def share_coverage(seeds: int, repetitions: int, seed: int) -> dict[str, float]:
    """Return the coverage of the success rate, which is exact, and of the share of seeds converged, which is simulated.

    Of the share half of the seeds never converge. It is taken at two steps: at that by which a quarter of all seeds has
    converged, and after the budget of every second seed, where the rest is an estimate by Kaplan and Meier.
    """
    from scipy.special import ndtr
    from scipy.stats import binom

    found: dict[str, float] = {}
    for rate in (0.5, 0.9, 0.98):
        inside = [_contains(wilson(solved, seeds), rate) for solved in range(seeds + 1)]
        found[f"success rate of {100 * rate:.0f} %"] = float(binom.pmf(np.arange(seeds + 1), seeds, rate) @ inside)
    drawn = DISTRIBUTIONS[4].draw(np.random.default_rng([seed, seeds]), (repetitions, seeds))
    equal, unequal = np.full(seeds, 100_000.0), np.where(np.arange(seeds) % 2, 25_000.0, 100_000.0)
    for name, step, budgets in (
        ("converged by step 20,000", 20_000, equal),
        ("converged by step 40,000, half of the budgets being 25,000", 40_000, unequal),
    ):
        truth, times = 0.5 * float(ndtr(np.log(step / 20_000) / 0.5)), np.minimum(drawn, budgets)
        found[name] = float(np.mean([
            _contains(kaplan_meier(row.tolist(), observed.tolist(), [step])[0], truth)
            for row, observed in zip(times, drawn <= budgets, strict=True)
        ]))  # fmt: skip
    return found


def _contains(interval: Interval, value: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= value <= interval.high


# ------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Simulated:
    """All results."""

    results: list[Result]
    shares: dict[int, dict[str, float]]
    """By number of seeds."""
    repetitions: int

    def table(self) -> str:
        """Return Markdown tables, in percent."""
        return "\n\n".join(
            [
                f"{self.repetitions} samples of each distribution; coverage in percent of intervals at 95 %.",
                "Intervals of the mean:",
                self._means(),
                "Intervals of the median:",
                self._medians(),
                "Intervals of shares:",
                self._shares(),
            ]
        )

    def _means(self) -> str:
        rows = []
        for one in self.results:
            means, crossing = one.means, one.crossing.get("bounded")
            restricted = means["bounded"] if crossing else None
            rows.append([
                one.distribution.name, str(one.seeds), f"{_percent(means['published'])} ({one.distribution.published})",
                _percent(means["t"]), _percent(means["BCa"]), *(_percent(of) if of else "" for of in (restricted, crossing)),
                _percent(means["fitted"]), f"{100 * one.fitted:.0f}", number(means["published"].width),
                number(restricted.width) if restricted else "", number(means["fitted"].width),
            ])  # fmt: skip
        header = ["distribution", "seeds", "the papers'", "t", "BCa", "restricted mean", "of the crossing",
                  "converged at, sparsity", "% that fit", "width: the papers'", "restricted mean",
                  "converged at, sparsity"]  # fmt: skip
        return str(table(header, rows))

    def _medians(self) -> str:
        rows = [
            [
                one.distribution.name, str(one.seeds),
                *(_percent(one.medians[name]) for name in ("without the grid", "recommended")),
                number(one.medians["recommended"].width),
            ]
            for one in self.results
        ]  # fmt: skip
        return str(table(["distribution", "seeds", "order statistics without the grid", "recommended", "width"], rows))

    def _shares(self) -> str:
        names = next(iter(self.shares.values()))
        rows = [[name, *(f"{100 * found[name]:.1f}" for found in self.shares.values())] for name in names]
        return str(table(["share", *(f"{seeds} seeds" for seeds in self.shares)], rows))

    def as_json(self) -> list[dict[str, Any]]:
        """Return one object for each distribution and number of seeds."""
        return [
            {
                "distribution": one.distribution.name,
                "seeds": one.seeds,
                "fitted": one.fitted,
                "mean": {name: _figures(found) for name, found in one.means.items()},
                "crossing": {name: _figures(found) for name, found in one.crossing.items()},
                "median": {name: _figures(found) for name, found in one.medians.items()},
            }
            for one in self.results
        ] + [
            {"share": name, "seeds": seeds, "coverage": coverage}
            for seeds, by_name in self.shares.items()
            for name, coverage in by_name.items()
        ]


def _percent(found: Coverage) -> str:
    return f"{100 * found.share:.1f}"


def _figures(found: Coverage) -> dict[str, float | None]:
    width = found.width
    return {"coverage": found.share, "below": found.below / found.count, "width": width if np.isfinite(width) else None}


def bench_coverage(
    repetitions: int = REPETITIONS,
    seed: int = 0,
    distributions: Sequence[Distribution] = (*DISTRIBUTIONS, *FITTING),
    sizes: Sequence[int] = SIZES,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Simulated:
    """Return the coverage of every interval on every distribution."""
    results = []
    for distribution in distributions:
        for size in sizes:
            on_progress(f"{distribution.name}, {size} seeds")
            results.append(simulate(distribution, size, repetitions, seed))
    return Simulated(results, {size: share_coverage(size, repetitions, seed) for size in sizes}, repetitions)
