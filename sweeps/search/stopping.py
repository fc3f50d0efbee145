"""Early stopping: which configurations of a cell get more seeds (racing) or more steps (successive halving).

Both are pure functions of results, and are called at fixed points, so that the number of workers, the order in which lanes
end and restarts change nothing:

    Racing. Configurations are taken in groups, numbers 0 to parallel - 1, then the next `parallel`. All of a group train the
    same first seeds. When every configuration of the group has them, those that are worse than the best one are stopped, and
    the others train the seeds up to the next level. The best one is that of the group at this level, or that of the groups
    before, which have all seeds.

    Halving. Configuration k trains on after a rung if it is among the best `keep` of the configurations 0 to k - parallel
    that have reached the rung, and itself.

Racing compares two configurations by exact permutation tests (Fisher and Pitman; drawn at random where the permutations are
too many), which hold for few seeds and any distribution: of all seeds that each has, and of the differences on common seeds
(Maron and Moore 1994, "Hoeffding races", and Birattari et al. 2002, F-Race, use Hoeffding's bound and Friedman's test in
their place; neither makes use of the many seeds of an earlier winner). What can at best tie with a complete configuration,
since each of the two solves all of its seeds and the success rate is the objective, is compared by errors, which break ties.
Repeated looks are corrected for by an error budget of (1 - confidence) that is halved at each level, so that a sweep may get
further levels without a change of earlier decisions.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweeps.config.space import EarlyStopping, Race
from sweeps.results.metrics import SeedValue

DRAWS = 9999
"""Random permutations of a test that has more: the smallest p-value is 1e-4."""
MOST_EXACT = 10_000
"""Permutations that are all computed."""

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
    """Of the test that it is not better, corrected for the number of tests of this level."""


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
    race: Race, level: int, group: Mapping[int, Values], before: Mapping[int, Values], objective: SeedValue, identity: str
) -> dict[int, Worse]:
    """Return the configurations of a group that are stopped after level number `level` (0 is the first).

    `group` has those of the group that are still in the race, each with its seeds up to this level, and `before` those that
    have all their seeds. `identity` of the cell is the seed of the random permutations. At least one configuration of the two
    is never stopped.
    """
    error = (1 - race.confidence) * 0.5 ** (level + 1)
    rivals = [
        (number, rivals[number], rivals is before)
        for rivals in (group, before)
        if (number := _leader(rivals, objective.by_rank)) is not None
    ]
    found: dict[int, Worse] = {}
    for number, values in group.items():
        seed = hashlib.sha256(f"{identity}/{number}/{level}".encode()).digest()
        draws = np.random.default_rng(np.frombuffer(seed, np.uint32))
        tests: list[tuple[float, int]] = []
        for rival, theirs, has_all_seeds in rivals:
            if rival == number:
                continue
            # What can only tie with a rival is compared by what breaks ties.
            best = {value for value, _ in (*values.values(), *theirs.values())} == {objective.best}
            what = 1 if best and has_all_seeds else 0
            one, other = ({seed: pair[what] for seed, pair in of.items()} for of in (values, theirs))
            by_rank = objective.by_rank or what == 1
            tests += [(p_value, rival) for p_value in _p_values(one, other, by_rank, error, draws)]
        if tests and min(tests)[0] * len(tests) <= error:
            found[number] = Worse(min(tests)[1], min(tests)[0] * len(tests))
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


def _p_values(
    one: Mapping[int, float], other: Mapping[int, float], by_rank: bool, error: float, draws: np.random.Generator
) -> list[float]:
    """Return the p-values of those tests, that `one` is not worse than `other`, which can be below `error` at all.

    Which these are depends on the numbers of seeds only.
    """
    a, b = ([values[seed] for seed in sorted(values)] for values in (one, other))
    common = sorted(one.keys() & other.keys())
    pooled = np.array([*a, *b])
    if by_rank or not np.isfinite(pooled).all():
        pooled = _ranks(pooled)
    ranks = dict(zip([*((0, s) for s in sorted(one)), *((1, s) for s in sorted(other))], pooled, strict=True))
    found = []
    if 1 / math.comb(len(pooled), len(a)) <= error / 2:
        found.append(_unpaired(pooled, len(a), draws))
    if 0.5 ** len(common) <= error / 2:
        found.append(_paired(np.array([ranks[0, s] - ranks[1, s] for s in common]), draws))
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
