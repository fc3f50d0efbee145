"""Early stopping: which configurations of a cell get more seeds (racing) or more steps (successive halving).

Both are pure functions of results, and are called at fixed points, so that the number of workers, the order in which lanes
end and restarts change nothing:

    Racing. Configurations are taken in groups, numbers 0 to parallel - 1, then the next `parallel`. All of a group train the
    same first seeds. When every configuration of the group has them, those that are worse than the best one are stopped, and
    the others train the seeds up to the next level. The best one is that of the group at this level, or that of the groups
    before, which have all seeds.

    Halving. Configuration k trains on after a rung if it is among the best `keep` of the configurations 0 to k - parallel
    that have reached the rung, and itself.

Racing compares confidence intervals: a configuration is stopped when the lower end of its own is above the upper end of that of
a better one. Of a mean that is Gaffke's interval (2005; Learned-Miller and Thomas 2019, "A new confidence interval for the mean
of a bounded random variable"), which supposes nothing but the range of the values: par2 is between 0 and twice the budget, and
an unsolved seed weighs as much as a quick one. For values that are 0 or 1 it is that of Clopper and Pearson. Of a median it is
that of the order statistics. (F-Race and most other races use tests that suppose equal distributions, or normal ones; with few
seeds these stop a configuration that is quick but sometimes fails, although its mean is better.) What can at best tie with a
complete configuration, since each of the two solves all of its seeds and the success rate is the objective, is compared by the
median error, which breaks ties.

Repeated looks are corrected for: of the error, 1 - confidence, the first level has a half, the second a quarter, and so on, so
that a sweep may get further levels without a change of earlier decisions. Half of a level's error is for the configuration, and
a quarter for each of the two that it is compared with.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sweeps.config.space import EarlyStopping, Race
from sweeps.results.metrics import SeedValue

DRAWS, MOST_DRAWN = 20_000, 4_000_000
"""Random draws for an interval of a mean, and numbers in them at most."""

Values = Mapping[int, tuple[float, float]]
"""Seed -> its contribution to the objective, and its error, which breaks ties; of both lower is better."""


@dataclass(frozen=True)
class Stage:
    """A part of a configuration's training: its first `seeds` seeds, up to `steps` updates each."""

    seeds: int
    steps: int


@dataclass(frozen=True)
class Worse:
    """Why a configuration is stopped in a race."""

    than: int
    """Number of the configuration that is better."""
    least: float
    """Lower end of its own interval, in the unit of the objective or, where `of_ties`, log10 of the error; lower is better."""
    most: float
    """Upper end of the other's."""
    of_ties: bool = False


def stages(stopping: EarlyStopping, num_seeds: int, steps: int) -> tuple[Stage, ...]:
    """Return the stages of a configuration of `num_seeds` seeds and a budget of `steps`, the last one with all of both.

    With both kinds the first level of seeds trains up to the rungs, and further seeds to the end.
    """
    levels = [n for n in stopping.race.levels if n < num_seeds] if stopping.race else []
    levels.append(num_seeds)
    rungs = [rung for rung in stopping.halving.rungs if rung < steps] if stopping.halving else []
    return (*(Stage(levels[0], rung) for rung in rungs), *(Stage(level, steps) for level in levels))


def group(number: int, parallel: int) -> range:
    """Return the configurations that race together with `number`."""
    first = number - number % parallel
    return range(first, first + parallel)


def race(
    rule: Race, level: int, members: Mapping[int, Values], before: Mapping[int, Values], objective: SeedValue
) -> dict[int, Worse]:
    """Return the configurations of a group that are stopped after level number `level` (0 is the first).

    `members` has those of the group that are still in the race, each with its seeds up to this level, and `before` those of
    earlier groups that have all their seeds. At least one configuration of the two is never stopped.
    """
    error = error_of_level(rule, level)
    rivals = [
        (number, rivals[number], rivals is before)
        for rivals in (members, before)
        if (number := _leader(rivals, objective.by_rank)) is not None
    ]
    found: dict[int, Worse] = {}
    for number, values in members.items():
        for rival, theirs, has_all_seeds in rivals:
            if rival == number or number in found:
                continue
            # What can only tie with a rival is compared by what breaks ties.
            best = {value for value, _ in (*values.values(), *theirs.values())} == {objective.best}
            of_ties = best and has_all_seeds
            one, other = (np.sort([pair[of_ties] for pair in of.values()]) for of in (values, theirs))
            if of_ties or objective.by_rank:
                least, most = median_ends(one, error / 2)[0], median_ends(other, error / 4)[1]
            else:
                least, most = mean_ends(one, objective.ends, error / 2)[0], mean_ends(other, objective.ends, error / 4)[1]
            if least > most:
                found[number] = Worse(rival, least, most, of_ties)
    return found


def error_of_level(rule: Race, level: int) -> float:
    """Return the probability of stopping the best configuration that a level may have."""
    return float((1 - rule.confidence) * 0.5 ** (level + 1))


def cannot_decide(rule: Race, objective: SeedValue) -> list[int]:
    """Return the levels of a race that stop nothing, whatever the results are: medians of too few seeds, and errors that are
    too small for the number of random draws."""
    found = []
    for level, seeds in enumerate(rule.levels):
        error = error_of_level(rule, level)
        if (objective.by_rank and 0.5**seeds > error / 2) or (not objective.by_rank and error / 4 * DRAWS < 1):
            found.append(seeds)
    return found


def is_stopped_at_rung(value: tuple[float, ...], earlier: Sequence[tuple[float, ...]], keep: float) -> bool:
    """Return whether a configuration is stopped at a rung.

    `value` is its metric there and what breaks ties, lower is better, and `earlier` has those of the configurations that it
    is compared with. Equal values are treated alike: all of them train on if one does.
    """
    allowed = max(1, math.floor(keep * (len(earlier) + 1) + 1e-9))
    return sum(one < value for one in earlier) >= allowed


def _leader(configurations: Mapping[int, Values], by_rank: bool) -> int | None:
    """Return the one with the lowest mean, or median; of equal ones that with the lowest median error, then number."""

    def standing(values: Values) -> tuple[float, float]:
        ordered = sorted(value for value, _ in values.values())
        middle = statistics.median_low(ordered) if by_rank else sum(ordered) / len(ordered)
        return middle, statistics.median_low(sorted(error for _, error in values.values()))

    found = [(standing(values), number) for number, values in configurations.items() if values]
    return min(found)[1] if found else None


def mean_ends(values: npt.NDArray[np.float64], ends: tuple[float, float], error: float) -> tuple[float, float]:
    """Return a lower and an upper bound of the mean, each of which is wrong with probability `error`: Gaffke's.

    `values` are sorted, and `ends` are those of the range that values may have. An end of the range where `error` is smaller
    than the draws can tell.
    """
    low, high = ends
    uniform = _sorted_uniform(len(values))
    if error * len(uniform) < 1:
        return low, high
    upward, downward = np.append(values, high), np.append(-values[::-1], -low)
    highest = high - uniform @ np.diff(upward)
    lowest = low + uniform @ np.diff(downward)
    return float(np.quantile(lowest, error, method="lower")), float(np.quantile(highest, 1 - error, method="higher"))


@lru_cache(maxsize=32)
def _sorted_uniform(n: int) -> npt.NDArray[np.float64]:
    """Return draws of `n` sorted uniform numbers, always the same ones."""
    return np.sort(np.random.default_rng(n).random((max(1, min(DRAWS, MOST_DRAWN // n)), n)), axis=1)


def median_ends(values: npt.NDArray[np.float64], error: float) -> tuple[float, float]:
    """Return a lower and an upper bound of the median, each of which is wrong with probability `error` at most.

    `values` are sorted. The r-th is below the median unless fewer than r values are, of which each is with probability 1/2.
    """
    n, below, r = len(values), 0.0, 0
    while r < n and (below := below + math.comb(n, r) * 0.5**n) <= error:
        r += 1
    return (float(values[r - 1]), float(values[n - r])) if r else (-math.inf, math.inf)
