"""Early stopping: which configurations of a cell get more seeds (racing) or more steps (successive halving).

Both are pure functions of results, and are called at fixed points, so that the number of workers, the order in which lanes
end and restarts change nothing:

    Racing. Configurations are taken in groups, numbers 0 to parallel - 1, then the next `parallel`. All of a group train the
    same first seeds. When every configuration of the group has them, those that are worse than the best one are stopped, and
    the others train the seeds up to the next level. The best one is that of the group at this level, or that of the groups
    before, which have all seeds.

    Halving. Configuration k trains on after a rung if it is among the best `keep` of the configurations 0 to k - parallel
    that have reached the rung, and itself.

Racing stops a configuration if two things hold. A permutation test (Fisher and Pitman; drawn at random where the permutations
are too many) says that its results are worse: of all seeds that each of the two has, or of the differences on common seeds.
And its mean would be worse even with as few failures as its interval permits: the share of its seeds with the worst possible
value, an unsolved seed, is replaced by the lower end of the interval of Clopper and Pearson. Without the second condition few
seeds would stop a configuration that is quick but sometimes fails, although its mean is better: the test alone supposes equal
distributions, as those of most races do (Maron and Moore 1994, "Hoeffding races", suppose a range only, and would need
hundreds of seeds here; Birattari et al. 2002, F-Race). Of a median both are about ranks: the lower end of its interval, by
the order statistics, must be above the other median. What can at best tie with a complete configuration, since each of the
two solves all of its seeds and the success rate is the objective, is compared by errors, which break ties.

Repeated looks are corrected for: of the error, 1 - confidence, the first level has a half, the second a quarter, and so on,
so that a sweep may get further levels without a change of earlier decisions. A level's error is shared by its tests.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from sweeps.config.space import EarlyStopping, Race
from sweeps.results.metrics import SeedValue

DRAWS = 20_000
"""Random permutations of a test that has more."""
MOST_EXACT = 10_000
"""Permutations that are all computed."""
MOST_TESTS = 4
"""Of a configuration at a level: two tests against each of two others."""

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
    p_value: float
    """Of the test that it is not worse, times the number of tests."""
    of_errors: bool = False
    """Compared are the errors, which break ties."""


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
        tests: list[tuple[float, int, bool]] = []
        num_tests = 0
        for rival, theirs, has_all_seeds in rivals:
            if rival == number:
                continue
            # What can only tie with a rival is compared by what breaks ties.
            best = {value for value, _ in (*values.values(), *theirs.values())} == {objective.best}
            of_errors = best and has_all_seeds
            one, other = ({seed: pair[of_errors] for seed, pair in of.items()} for of in (values, theirs))
            by_rank = objective.by_rank or of_errors
            p_values = _p_values(one, other, by_rank, error)
            num_tests += len(p_values)
            if _is_worse_at_best(list(one.values()), list(other.values()), None if by_rank else objective.ends, error / 2):
                tests += [(p_value, rival, of_errors) for p_value in p_values]
        if tests and min(tests)[0] * num_tests <= error:
            p_value, rival, of_errors = min(tests)
            found[number] = Worse(rival, p_value * num_tests, of_errors)
    return found


def error_of_level(rule: Race, level: int) -> float:
    """Return the probability of stopping the best configuration that a level may have."""
    return float((1 - rule.confidence) * 0.5 ** (level + 1))


def cannot_decide(rule: Race, objective: SeedValue) -> list[int]:
    """Return the levels of a race that stop nothing, or hardly anything, whatever the results are.

    These have too few seeds for a median, or an error that is too small for the number of random permutations.
    """
    found = []
    for level, seeds in enumerate(rule.levels):
        error = error_of_level(rule, level)
        if (objective.by_rank and 0.5**seeds > error / 2) or MOST_TESTS / DRAWS > error:
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


def _is_worse_at_best(one: list[float], other: list[float], ends: tuple[float, float] | None, error: float) -> bool:
    """Return whether the mean of `one` is worse than that of `other` with as few failures as its interval permits.

    Failures are values of the upper one of `ends`. Without them it is about the medians.
    """
    if ends is None:
        return median_low_end(one, error) > statistics.median(other)
    rest = [value for value in one if value < ends[1]]
    failing = failure_low_end(len(one) - len(rest), len(one), error)
    others = sum(sorted(rest)) / len(rest) if rest else ends[0]
    return failing * ends[1] + (1 - failing) * others > sum(sorted(other)) / len(other)


def failure_low_end(failures: int, n: int, error: float) -> float:
    """Return the lower bound of a share that is wrong with probability `error`: that of Clopper and Pearson."""
    return float(special.betaincinv(failures, n - failures + 1, error)) if failures else 0.0


def median_low_end(values: Sequence[float], error: float) -> float:
    """Return a lower bound of the median that is wrong with probability `error` at most; minus infinity where there is none.

    The r-th of the sorted values is above the median only if fewer than r values are below it, each with probability 1/2.
    """
    n, below, r = len(values), 0.0, 0
    while r < n and (below := below + math.comb(n, r) * 0.5**n) <= error:
        r += 1
    return sorted(values)[r - 1] if r else -math.inf


def _p_values(one: Mapping[int, float], other: Mapping[int, float], by_rank: bool, error: float) -> list[float]:
    """Return the p-values of those tests, that `one` is not worse than `other`, which can be below `error` at all.

    Which these are depends on the numbers of seeds only.
    """
    a, b = ([values[seed] for seed in sorted(values)] for values in (one, other))
    common = sorted(one.keys() & other.keys())
    pooled = np.array([*a, *b])
    if by_rank or not np.isfinite(pooled).all():
        pooled = _ranks(pooled)
    first, second = dict(zip(sorted(one), pooled, strict=False)), dict(zip(sorted(other), pooled[len(a) :], strict=True))
    draws = np.random.default_rng([len(a), len(b)])
    found = []
    if 1 / math.comb(len(pooled), len(a)) <= error / MOST_TESTS:
        found.append(_unpaired(pooled, len(a), draws))
    if 0.5 ** len(common) <= error / MOST_TESTS:
        found.append(_paired(np.array([first[s] - second[s] for s in common]), draws))
    return found


def _unpaired(pooled: npt.NDArray[np.float64], n: int, draws: np.random.Generator) -> float:
    """Return the share of choices of `n` values of all whose sum is at least that of the first `n`."""
    first, rest = pooled[:n], pooled[n:]
    if first.mean() <= rest.mean():
        return 1.0
    if first.min() > rest.max():
        return 1 / math.comb(len(pooled), n)
    observed = first.sum() - _tolerance(pooled)
    chosen = np.argpartition(draws.random((DRAWS, len(pooled))), n - 1, axis=1)[:, :n]
    return float((1 + np.count_nonzero(pooled[chosen].sum(axis=1) >= observed)) / (DRAWS + 1))


def _paired(differences: npt.NDArray[np.float64], draws: np.random.Generator) -> float:
    """Return the share of signs of the differences whose sum is at least that observed."""
    if differences.sum() <= 0:
        return 1.0
    observed = differences.sum() - _tolerance(differences)
    n = len(differences)
    if 2**n <= MOST_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(signs @ differences >= observed))
    signs = 1 - 2 * draws.integers(0, 2, (DRAWS, n))
    return float((1 + np.count_nonzero(signs @ differences >= observed)) / (DRAWS + 1))


def _tolerance(values: npt.NDArray[np.float64]) -> float:
    """Return by how much equal sums may differ by rounding."""
    return float(1e-12 * np.abs(values).sum())


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()], dtype=np.float64)
