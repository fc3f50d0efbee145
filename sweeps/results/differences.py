"""Tests and intervals for the difference between two samples of seeds: success rates, steps to convergence, other values.

Success rates of two independent samples are compared by Boschloo's exact test, those of the same seeds by the exact
unconditional form of McNemar's test. Both fix what an experiment fixes, the numbers of seeds. Fisher's test and the usual exact
form of McNemar's also fix the number of solved seeds, which no experiment does, and find fewer differences at the same rate
of false ones: of 20 seeds each, 20 against 15 solved has p = 0.047 by Fisher's test and 0.023 by Boschloo's (Lydersen,
Fagerland and Laake 2009; Fagerland, Lydersen and Laake 2013).

Every function is pure. Differences are second minus first. What cannot be computed is None, never NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from sweeps.results.statistics import Interval, wilson

RESAMPLES = 9_999
"""Of a bootstrap."""
MOST_TABLES = 40_000
"""Possible tables of two samples, (n + 1)(m + 1), up to which Boschloo's test is computed; beyond, Fisher's is close to it."""
_SHARES = (400, 2_000)
"""Fewest and most shares of unequal pairs of which McNemar's test takes the largest probability."""
_AT_ONCE = 1_000_000
MOST_EXACT_TABLES = 15_000
"""Tables of which all significant ones are found by Boschloo's test."""
MOST_ARRANGEMENTS = 200_000
"""Arrangements of two samples up to which the log-rank test is exact: 10 and 10 have 184,756."""
POWER = 0.8
"""Probability with which a detectable difference is found."""


def boschloo(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the two-sided p-value of Boschloo's exact test that two success rates, each (successes, trials), are equal.

    Twice the smaller one-sided p-value, as SciPy computes it. For more than `MOST_TABLES` possible tables it is that of
    Fisher's exact test.
    """
    from scipy import stats  # here, as in `sweeps.results.statistics`: it takes seconds to import

    (a, n), (b, m) = first, second
    if min(n, m) == 0 or (a, b) in ((0, 0), (n, m)):
        return 1.0
    table = [[a, b], [n - a, m - b]]
    exact = stats.boschloo_exact if (n + 1) * (m + 1) <= MOST_TABLES else stats.fisher_exact
    return min(1.0, float(exact(table).pvalue))


def mcnemar(only_first: int, only_second: int, pairs: int) -> float:
    """Return the p-value of the exact unconditional McNemar test that of `pairs` pairs both rates are equal.

    Of Suissa and Shuster (1991): the probability of a statistic |b - c| / sqrt(b + c) at least as large as that observed, at
    the probability of unequal pairs for which it is largest.
    """
    b, c = only_first, only_second
    if b == c:
        return 1.0
    from scipy import stats

    unequal = np.arange(1, pairs + 1)
    least = abs(b - c) / math.sqrt(b + c) * np.sqrt(unequal)  # the |b - c| that counts as at least as far apart, of each b + c
    most = np.floor((unequal - least) / 2 + 1e-9)
    tail = np.where(most >= 0, 2 * stats.binom.cdf(most, unequal, 0.5), 0.0)
    tail = np.minimum(tail, 1.0)
    shares = np.linspace(0, 1, 1 + min(max(_AT_ONCE // pairs, _SHARES[0]), _SHARES[1]))[1:]
    parts = np.array_split(shares, math.ceil(len(shares) * pairs / _AT_ONCE))
    return float(min(1.0, max((stats.binom.pmf(unequal, pairs, part[:, None]) @ tail).max() for part in parts)))


def paired_rate_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> Interval:  # fmt: skip
    """Return the difference of the success rates of the same seeds, with Newcombe's interval (1998b, method 10).

    Like that for independent rates it is made of two Wilson intervals, with a term for the correlation of the pairs.
    """
    n = both + only_first + only_second + neither
    if n == 0:
        return Interval()
    a, b = wilson(both + only_first, n, confidence), wilson(both + only_second, n, confidence)
    assert a.estimate is not None and a.low is not None and a.high is not None
    assert b.estimate is not None and b.low is not None and b.high is not None
    product = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = both * neither - only_first * only_second
    phi = 0.0 if product == 0 else (max(cross - n / 2, 0.0) if cross > 0 else cross) / math.sqrt(product)

    def width(below: float, above: float) -> float:
        return math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))

    difference = b.estimate - a.estimate
    low = difference - width(b.estimate - b.low, a.high - a.estimate)
    high = difference + width(b.high - b.estimate, a.estimate - a.low)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def log_rank(first: Sequence[int | None], second: Sequence[int | None], budget: int) -> float | None:
    """Return the p-value of the log-rank test of the steps at which seeds converged; None if none did.

    A seed without a step, or with one after `budget`, is censored at the budget, also one that diverged before: it can never
    converge. Of small samples it is the exact permutation test, which is valid since all are censored at one step: the normal
    approximation gives 0.025 where 3 of 3 seeds converge and 0 of 3, and 2 of the 20 arrangements are as extreme.
    """
    from scipy import stats

    if math.comb(len(first) + len(second), len(first)) <= MOST_ARRANGEMENTS:
        return _exact_log_rank(first, second, budget)
    samples = []
    for steps in (first, second):
        met = [step for step in steps if step is not None and step <= budget]
        samples.append(stats.CensoredData(met, right=[budget] * (len(steps) - len(met))))
        if not steps:
            return None
    if all(step is None or step > budget for step in (*first, *second)):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = float(stats.logrank(*samples).pvalue)
    # No variance: all converged at one step, after which nobody is at risk.
    return p_value if math.isfinite(p_value) else 1.0


def _exact_log_rank(first: Sequence[int | None], second: Sequence[int | None], budget: int) -> float | None:
    """As `log_rank`: the share of all arrangements of the seeds whose observed less expected events are as far from 0."""
    steps = [budget + 1 if step is None or step > budget else step for step in (*first, *second)]
    if not first or not second or min(steps) > budget:
        return None
    at = np.asarray(steps)
    events = np.unique(at[at <= budget])
    hazard = np.array([(at == step).sum() / (at >= step).sum() for step in events])  # Nelson and Aalen's increments
    # The seeds' contributions to observed less expected events; those of all seeds together are 0.
    scores = (at <= budget) - np.array([hazard[events <= step].sum() for step in at])
    few = min(len(first), len(second))
    observed = abs(scores[: len(first)].sum())
    chosen = np.array(list(itertools.combinations(range(len(at)), few)))
    return float((np.abs(scores[chosen].sum(axis=1)) >= observed - 1e-9).mean())


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value, the same in any order, so that equal samples have no difference by rounding."""
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def mean_difference(
    first: Sequence[float], second: Sequence[float], rng: np.random.Generator, paired: bool = False, confidence: float = 0.95
) -> Interval:
    """Return the difference of two means with a bootstrap interval (BCa, or percentile where that is undefined).

    `paired`: value i of both is of the same seed. Ends are None for fewer than two values on a side, and where no value
    differs from another, since resamples could not differ either.
    """
    if not first or not second:
        return Interval()
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    estimate = mean(second) - mean(first)
    spread = np.ptp(b - a) if paired else max(np.ptp(a), np.ptp(b))
    if min(len(a), len(b)) < 2 or spread == 0:
        return Interval(estimate)
    import warnings

    from scipy import stats

    def statistic(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(b.mean(axis=axis) - a.mean(axis=axis))

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                (a, b), statistic, paired=paired, confidence_level=confidence, n_resamples=RESAMPLES, method=method,
                vectorized=True, rng=rng, batch=max(1, 2_000_000 // max(len(a), len(b))),
            ).confidence_interval  # fmt: skip
        if math.isfinite(found.low) and math.isfinite(found.high):
            return Interval(estimate, float(found.low), float(found.high))
    return Interval(estimate)


def rank_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Mann and Whitney's test; None without values. Infinite values are the largest."""
    from scipy import stats

    if not first or not second:
        return None
    if len({*first, *second}) == 1:
        return 1.0
    return min(1.0, float(stats.mannwhitneyu(first, second).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number by Holm's method (1979); those that are None do not count.

    Those below a level are significant at it together: with this probability at most one of them is a false alarm.
    """
    known = sorted((p_value, i) for i, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p_value, i) in enumerate(known):
        largest = max(largest, min(1.0, p_value * (len(known) - place)))
        adjusted[i] = largest
    return adjusted


def detectable_difference(rate: float, n: int, m: int, confidence: float = 0.95) -> float | None:
    """Return about the smallest true difference that n and m seeds show with a probability of `POWER`; None if none does.

    For success rates around `rate`, the two as far above and below it as [0, 1] permits. The power is that of Boschloo's test,
    for more than `MOST_EXACT_TABLES` tables that of the pooled z test, which is close to it there.
    """
    if min(n, m) == 0:
        return None
    from scipy import stats

    found = _significant(n, m, 1 - confidence)

    def power(difference: float) -> float:
        high = min(1.0, max(rate + difference / 2, difference))
        low = high - difference
        one, other = (stats.binom.pmf(np.arange(size + 1), size, p) for size, p in ((n, high), (m, low)))
        return float(one @ found @ other)

    if power(1.0) < POWER:
        return None
    below, above = 0.0, 1.0
    while above - below > 1e-3:
        middle = (below + above) / 2
        below, above = (below, middle) if power(middle) >= POWER else (middle, above)
    return above


def _significant(n: int, m: int, level: float) -> np.ndarray:
    """Return which tables, by successes of the first and of the second, are significant."""
    from scipy import stats

    i, j = np.arange(n + 1)[:, None], np.arange(m + 1)[None, :]
    if (n + 1) * (m + 1) > MOST_EXACT_TABLES:
        pooled = (i + j) / (n + m)
        deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        return np.asarray(np.abs(i / n - j / m) > float(special.ndtri(1 - level / 2)) * np.maximum(deviation, 1e-12))
    rates = np.linspace(0, 1, 202)[1:-1, None]
    first, second = stats.binom.pmf(i.ravel(), n, rates), stats.binom.pmf(j.ravel(), m, rates)
    chance = (first[:, :, None] * second[:, None, :]).reshape(len(rates), -1)
    found = np.zeros((n + 1) * (m + 1), bool)
    for one_sided in (stats.hypergeom.cdf(i, n + m, i + j, n), stats.hypergeom.sf(i - 1, n + m, i + j, n)):
        flat = one_sided.ravel()
        order = np.argsort(flat)
        last_equal = np.searchsorted(flat[order], flat * (1 + 1e-9), side="right") - 1
        at_most_as_likely = np.cumsum(chance[:, order], axis=1).max(axis=0)
        found |= 2 * at_most_as_likely[last_equal] <= level
    return found.reshape(n + 1, m + 1)
