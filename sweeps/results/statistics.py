"""Confidence intervals over seeds: of a success rate, of converged-at, of the sparsity error. docs/statistics.md has their
coverage in simulations.

The papers' (Madsen and Johansen 2020, whose R script `_compute_summary.r` this replaces): `wilson` of a success rate,
`gamma_mean` of converged-at, `beta_mean` of the sparsity error. Two of the three published computations have known errors:
the docstrings of `gamma_mean` and `beta_mean` describe the difference. In a comparison with a published table, success rates
and medians are the figures to compare.

Those that assume no family: `median` (order statistics), `bounded_mean` (of values in a known range), `kaplan_meier`.
`gamma_fits` and `beta_fits` are the checks that decide between a family and `bounded_mean`.

Every function is pure and takes plain numbers. What cannot be computed is None, never NaN: no values have no estimate, one
value has an estimate and no ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

SPARSITY_CEILING = 0.5
"""The largest min(|w|, |1 - |w||) of a weight in [-1, 1]. Weights of linear layers can pass it."""

_SPARSITY_CLIP = 1e-16
_NEAR_AN_END = 1e-6
_NARROW = 1e-4
"""Relative spread below which a gamma or beta is close to a normal, and its likelihood loses digits."""
_FARTHEST = 700.0
"""exp(700) is near the largest double: farther out on a log or logit axis an end counts as out of reach."""
LEAST_TO_FIT = 50
"""Values that the check of a family needs: among fewer a tail of 10 % may be missing, and the check does not see it."""
_ANDERSON_DARLING = 0.63
"""About the 10 % point of A² with two fitted parameters: 0.63 to 0.66 for the gamma (Lockhart and Stephens 1985)."""
_LEAST_SHAPE = 0.5
"""Of a fitted family: with a lower shape most of the mean is in a tail of which a sample says little."""
_DRAWS = 4000
_BLOCK = 256


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval, in the unit of the values; None where unknown."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the ends were computed, where that depends on the values: gamma, beta, bounded, t."""


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a success rate, a fraction in [0, 1].

    0 of 100 gives [0, 0.0370], 98 of 100 gives [0.9300, 0.9945]. No trials give an empty interval.
    The published script uses the same interval, and the two agree.
    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: successes must lie between 0 and the number of trials")
    return Interval() if n == 0 else _wilson(successes / n, n, confidence)


def _wilson(rate: float, n: float, confidence: float) -> Interval:
    """Return Wilson's interval of a rate of n trials, which need not be a whole number."""
    z = float(special.ndtri(0.5 + _checked(confidence) / 2))
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # The ends at 0 and n successes are exactly 0 and 1; rounding would leave 1e-17 next to them.
    low = 0.0 if rate == 0 else max(0.0, middle - half)
    high = 1.0 if rate == 1 else min(1.0, middle + half)
    return Interval(rate, low, high)


def rate_difference(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Return the difference of two success rates, each (successes, trials), second minus first; empty if either has no trials.

    The interval is Newcombe's (1998, method 10), built from the two Wilson intervals, so it behaves at 0 %
    and 100 %.
    """
    a, b = wilson(*first, confidence=confidence), wilson(*second, confidence=confidence)
    if a.estimate is None or b.estimate is None:
        return Interval()
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    difference = b.estimate - a.estimate
    low = difference - math.hypot(b.estimate - b.low, a.high - a.estimate)
    high = difference + math.hypot(b.high - b.estimate, a.estimate - a.low)
    return Interval(difference, low, high)


def t_mean(values: Sequence[float], confidence: float = 0.95, floor: float = -math.inf, ceiling: float = math.inf) -> Interval:
    """Return Student's t interval of a mean, its ends clipped to [floor, ceiling].

    Identical values give an interval of no width.
    """
    x = _finite(values)
    if x.size == 0:
        return Interval()
    mean = _mean(x)
    if x.size == 1:
        return Interval(mean)
    sd = float(np.std(x - mean, ddof=1))
    half = float(special.stdtrit(x.size - 1, 0.5 + _checked(confidence) / 2)) * sd / math.sqrt(x.size)
    return Interval(mean, max(floor, mean - half), min(ceiling, mean + half))


def median(values: Sequence[float], confidence: float = 0.95, lower: Sequence[float] | None = None) -> Interval:
    """Return the median with the interval of order statistics, which assumes no family.

    Between the two pairs of order statistics whose coverage is next to `confidence` it is interpolated (Hettmansperger and
    Sheather 1986). Fewer than 6 values have no 95 % interval: from the lowest to the highest of 5 covers 93.75 %.

    `lower` is for values that are known to be in (lower, value] only, as converged-at is between two evaluations: the low end
    is that of `lower`, so that equal values have no interval of width zero. Raises ValueError for one of another length.
    """
    x = np.sort(_finite(values))
    below = x if lower is None else np.sort(_finite(lower))
    if below.size != x.size:
        raise ValueError(f"{x.size} values have {below.size} lower ends")
    if not x.size:
        return Interval()
    middle, n = float(np.median(x)), x.size

    def coverage(rank: int) -> float:
        return 1 - 2 * float(special.bdtr(rank - 1, n, 0.5))

    if coverage(1) < _checked(confidence):
        return Interval(middle)
    rank = 1
    while rank < n // 2 and coverage(rank + 1) >= confidence:
        rank += 1
    inner = coverage(rank + 1) if rank < n // 2 else 0.0
    share = (coverage(rank) - confidence) / (coverage(rank) - inner)
    weight = (n - rank) * share / (rank + (n - 2 * rank) * share)
    low = (1 - weight) * below[rank - 1] + weight * below[rank]
    high = (1 - weight) * x[n - rank] + weight * x[n - rank - 1]
    low = min(max(low, below[rank - 1]), middle)  # rounding may leave an end an ulp outside of what it is between
    high = max(min(high, x[n - rank]), middle)
    return Interval(middle, float(low), float(high))


def bounded_mean(
    values: Sequence[float], ceiling: float, confidence: float = 0.95, lower: Sequence[float] | None = None
) -> Interval:
    """Return the interval of the mean of values in [0, ceiling], which assumes no family.

    The ends are quantiles of the Bayesian bootstrap (Rubin 1981) of the values and two halves of a value: for the high end
    one at `ceiling`, since values of a rare tail may not have been seen, and one at the lowest value; for the low end one at 0
    and one at the highest value. Where all values are 0 or `ceiling` and both occur, it is Jeffreys' interval of a share.
    With one whole value at the end of the range it would be the bound of Gaffke (2005), which covers more than it says.

    The bootstrap's weights come from a generator with a fixed seed of its own: equal values have equal intervals.
    `lower` is as in `median`. Raises ValueError for a value out of the range.
    """
    x = np.sort(_finite(values))
    below = x if lower is None else np.sort(_finite(lower))
    if below.size != x.size:
        raise ValueError(f"{x.size} values have {below.size} lower ends")
    if x.size and (below[0] < 0 or x[-1] > ceiling):
        raise ValueError(f"bounded_mean was given values from {below[0]:g} to {x[-1]:g}, which are not in [0, {ceiling:g}]")
    if x.size < 2:
        return Interval(float(x[0])) if x.size else Interval()
    tail = (1 - _checked(confidence)) / 2
    at_end, inside = _half_weights()
    low_sum, high_sum, weights = inside * below[-1], at_end * ceiling + inside * x[0], at_end + inside
    for start in range(0, x.size, _BLOCK):
        drawn = _weights(start // _BLOCK)[: x.size - start]
        stop = start + len(drawn)
        low_sum = low_sum + np.einsum("i,ij->j", below[start:stop], drawn)  # not `@`, whose rounding depends on threads
        high_sum = high_sum + np.einsum("i,ij->j", x[start:stop], drawn)
        weights = weights + drawn.sum(axis=0)
    low = float(np.quantile(low_sum / weights, tail))
    high = float(np.quantile(high_sum / weights, 1 - tail))
    return Interval(_mean(x), min(low, float(below.mean())), min(max(high, _mean(x)), ceiling), "bounded")


@lru_cache(maxsize=4)
def _weights(block: int) -> np.ndarray:
    """Return weights of the bootstrap, [_BLOCK, _DRAWS], before they are divided by their sum."""
    return np.random.Generator(np.random.PCG64([1, block])).standard_exponential((_BLOCK, _DRAWS))


@lru_cache(maxsize=1)
def _half_weights() -> tuple[np.ndarray, np.ndarray]:
    """Return the weights, [_DRAWS] each, of two halves of a value."""
    first, second = np.random.Generator(np.random.PCG64(0)).standard_gamma(0.5, (2, _DRAWS))
    return first, second


def kaplan_meier(
    times: Sequence[float], observed: Sequence[bool], at: Sequence[float], confidence: float = 0.95
) -> list[Interval]:
    """Return Kaplan and Meier's (1958) share of events by each time of `at`, an ascending list, with pointwise intervals.

    `times` are those of the events, or where one was not `observed` until when there was none (right-censored). The interval
    is Wilson's with the number of trials that has the variance of Greenwood's formula, so that without censoring it is that
    of the plain share. Where the share is 0 or 1 that variance is 0: there the number of trials is that at risk, divided by
    the share that had no event before. Raises ValueError for lists of different lengths.
    """
    t, event = np.asarray(times, float), np.asarray(observed, bool)
    if t.shape != event.shape:
        raise ValueError(f"{t.size} times have {event.size} marks of whether they were observed")
    if not t.size:
        return [Interval() for _ in at]
    found, survival, greenwood = [], 1.0, 0.0
    moments = np.unique(t[event])
    next_moment, trials = 0, float(t.size)
    for time in at:
        while next_moment < len(moments) and moments[next_moment] <= time:
            moment = moments[next_moment]
            at_risk, events = int((t >= moment).sum()), int(((t == moment) & event).sum())
            trials = at_risk / survival
            survival *= 1 - events / at_risk
            greenwood += events / (at_risk * (at_risk - events)) if events < at_risk else math.inf
            next_moment += 1
        last = moments[next_moment - 1] if next_moment else min(time, t.max())
        if not (~event & (t < last)).any():  # nothing is censored before the last event: the plain share, free of rounding
            share, size = int((event & (t <= time)).sum()) / t.size, float(t.size)
        elif not next_moment:
            share, size = 0.0, float((t >= last).sum())
        else:
            share = 1 - survival
            size = trials if survival == 0 else share / (survival * greenwood)
        found.append(_wilson(share, size, confidence))
    return found


def gamma_fits(values: Sequence[float]) -> bool:
    """Return whether a gamma fits: by Anderson and Darling's A² at about 10 %, for at least `LEAST_TO_FIT` values."""
    x = _finite(values)
    if x.size < LEAST_TO_FIT or x.min() <= 0 or _is_narrow(x, _mean(x)):
        return False
    scaled = x / _mean(x)
    if scaled.min() == 0:
        return False
    spread = float(np.mean((scaled - 1) - np.log(scaled)))

    def slope(log_shape: float) -> float:  # of the likelihood in the shape: falls from +inf to -spread
        return log_shape - float(special.digamma(math.exp(log_shape))) - spread

    shape = math.exp(_root(slope, -math.log(spread)))
    return shape >= _LEAST_SHAPE and _fits(special.gammainc(shape, shape * np.sort(scaled)))


def beta_fits(values: Sequence[float]) -> bool:
    """Return whether a beta on [0, 0.5] fits: as `gamma_fits`."""
    x = _finite(values)
    if x.size < LEAST_TO_FIT or x.min() < 0 or x.max() > SPARSITY_CEILING:
        return False
    x = np.clip(x, _SPARSITY_CLIP, SPARSITY_CEILING - _SPARSITY_CLIP)
    if _is_narrow(x, min(_mean(x), SPARSITY_CEILING - _mean(x))) or SPARSITY_CEILING - x.min() < _NEAR_AN_END:
        return False
    if x.max() < _NEAR_AN_END:
        return gamma_fits(x.tolist())
    y = np.sort(x) / SPARSITY_CEILING
    likelihood = _BetaProfile(float(np.mean(np.log(y))), float(np.mean(np.log1p(-y))))
    a, b = likelihood.shapes(_root(likelihood.slope, float(special.logit(_mean(y)))))
    return min(a, b) >= _LEAST_SHAPE and _fits(special.betainc(a, b, y))


def _fits(probabilities: np.ndarray) -> bool:
    """Return whether A² of ascending values of the fitted distribution function is below its critical point."""
    u, n = np.clip(probabilities, 1e-300, 1 - 1e-16), len(probabilities)
    ranks = 2 * np.arange(1, n + 1) - 1
    return bool(-n - np.mean(ranks * (np.log(u) + np.log1p(-u[::-1]))) < _ANDERSON_DARLING)


def gamma_mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the profile-likelihood interval of the mean of a gamma, for converged-at in steps.

    The estimate is the sample mean, which is the maximum likelihood estimate of a gamma's mean. The interval
    contains each mean mu whose likelihood, at the shape that suits mu best, is within chi2(1)/2 of the greatest.

    Falls back to a t interval, clipped at 0, where a gamma cannot be fitted: values that hardly differ
    (relative standard deviation up to 1e-4; the published script: standard deviation up to 1e-5), or a zero
    among them (a lane that is solved before its first update). One value has no ends. An end beyond the
    largest double is None.

    The published script starts L-BFGS-B at the sample moments and often stops where the likelihood is not
    stationary: its "mean" of NAU on addition is 3.91e5 steps where the sample mean, which this function returns, is
    1.90e5. Its medians are correct.

    Raises ValueError for a negative value or one that is not finite.
    """
    x = _finite(values)
    if x.size and x.min() < 0:
        raise ValueError(f"gamma_mean was given {x.min():g}; steps and other gamma values cannot be negative")
    if x.size < 2 or x.min() == 0 or _is_narrow(x, _mean(x)):
        return t_mean(values, confidence, floor=0.0)
    mean = _mean(x)
    scaled = x / mean
    if scaled.min() == 0:  # Underflow: treated as a zero.
        return t_mean(values, confidence, floor=0.0)
    # Log of the mean minus mean of the logs: with the mean, the sufficient statistic of a gamma.
    spread = float(np.mean((scaled - 1) - np.log(scaled)))
    drop = _chi_squared(_checked(confidence)) / (2 * x.size)
    best = _gamma_profile(0.0, spread)

    def shortfall(log_ratio: float) -> float:
        return best - _gamma_profile(log_ratio, spread) - drop

    low, high = _crossing(shortfall, 0.0, -1), _crossing(shortfall, 0.0, +1)
    return Interval(mean, 0.0 if low is None else mean * math.exp(low), _scaled_exp(mean, high))


def _gamma_profile(log_ratio: float, spread: float) -> float:
    """Return the mean log-likelihood, up to a constant, at mu = mean * exp(log_ratio) and the best shape for it."""
    distance = spread + log_ratio + math.expm1(-log_ratio)

    def slope(log_shape: float) -> float:  # of the likelihood in the shape: falls from +inf to -distance
        return log_shape - float(special.digamma(math.exp(log_shape))) - distance

    log_shape = _root(slope, -math.log(distance))
    shape = math.exp(log_shape)
    return shape * log_shape - float(special.gammaln(shape)) - shape * (1 + distance)


def beta_mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the profile-likelihood interval of the mean of sparsity errors, as a beta stretched over [0, 0.5].

    With y = 2x a beta on [0, 1] of mean m, the sparsity error has mean m / 2. The estimate is the maximum
    likelihood one: close to the sample mean of values that are distributed like a beta; it can be twice as large for a
    few big errors among many tiny ones, which are not. As published, values are clipped to [1e-16, 0.5
    - 1e-16] first (a beta has no likelihood at its ends) and the interval's ends stay in [0, 0.5].

    Falls back to a t interval where a beta cannot be fitted: values that hardly differ (standard deviation up
    to 1e-4 of the distance to the nearer end of [0, 0.5]), and, clipped at 0 only, where one is above 0.5, as
    happens with linear networks. One value has no ends.

    The published script evaluates that density, whose mean is 2 mu, at x instead of 2x, so its sparsity
    errors are half of what was measured wherever the beta fit is used: NAC+ on addition is 0.227 in print and
    0.454 in its own files.

    Raises ValueError for a negative value or one that is not finite.
    """
    x = _finite(values)
    if x.size and x.min() < 0:
        raise ValueError(f"beta_mean was given {x.min():g}; a sparsity error cannot be negative")
    if x.size and x.max() > SPARSITY_CEILING:
        return t_mean(values, confidence, floor=0.0)
    x = np.clip(x, _SPARSITY_CLIP, SPARSITY_CEILING - _SPARSITY_CLIP)
    if x.size < 2 or _is_narrow(x, min(_mean(x), SPARSITY_CEILING - _mean(x))):
        return t_mean(values, confidence, floor=0.0, ceiling=SPARSITY_CEILING)
    # Within a millionth of an end a beta is a gamma, and its own likelihood drowns in the rounding of 1 - y.
    if x.max() < _NEAR_AN_END:
        return Interval(*_gamma_ends(x, confidence))
    if SPARSITY_CEILING - x.min() < _NEAR_AN_END:
        estimate, low_gap, high_gap = _gamma_ends(SPARSITY_CEILING - x, confidence)
        return Interval(SPARSITY_CEILING - estimate, SPARSITY_CEILING - high_gap, SPARSITY_CEILING - low_gap)
    y = x / SPARSITY_CEILING
    likelihood = _BetaProfile(float(np.mean(np.log(y))), float(np.mean(np.log1p(-y))))
    best = _root(likelihood.slope, float(special.logit(_mean(y))))
    greatest, drop = likelihood.value(best), _chi_squared(_checked(confidence)) / (2 * x.size)

    def shortfall(logit: float) -> float:
        return greatest - likelihood.value(logit) - drop

    low, high = _crossing(shortfall, best, -1), _crossing(shortfall, best, +1)
    return Interval(
        SPARSITY_CEILING * float(special.expit(best)),
        0.0 if low is None else SPARSITY_CEILING * float(special.expit(low)),
        SPARSITY_CEILING if high is None else SPARSITY_CEILING * float(special.expit(high)),
    )


def _gamma_ends(x: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return (estimate, low, high) of at least two values, as a gamma's mean, clipped to [0, 0.5]."""
    fit = gamma_mean(x.tolist(), confidence)
    assert fit.estimate is not None and fit.low is not None
    high = SPARSITY_CEILING if fit.high is None else min(SPARSITY_CEILING, fit.high)
    return fit.estimate, fit.low, high


@dataclass(frozen=True)
class _BetaProfile:
    """Mean log-likelihood of a beta against the logit of its mean, at the best a + b for it.

    The likelihood is concave in (a, b), so this has one peak.
    """

    mean_log: float
    mean_log1m: float

    def value(self, logit: float) -> float:
        a, b = self.shapes(logit)
        return a * self.mean_log + b * self.mean_log1m - float(special.betaln(a, b))

    def slope(self, logit: float) -> float:
        """Positive left of the peak, negative right of it."""
        a, b = self.shapes(logit)
        pull = float(special.digamma(b) - special.digamma(a))
        return pull + self.mean_log - self.mean_log1m

    def shapes(self, logit: float) -> tuple[float, float]:
        """Return the best a and b of this mean."""
        mean, rest = float(special.expit(logit)), float(special.expit(-logit))
        data = mean * self.mean_log + rest * self.mean_log1m

        def slope(log_concentration: float) -> float:  # falls from +inf to below 0, by Jensen
            c = math.exp(log_concentration)
            digamma = special.digamma
            return data + float(digamma(c) - mean * digamma(mean * c) - rest * digamma(rest * c))

        concentration = math.exp(_root(slope, 0.0))
        return mean * concentration, rest * concentration


def _crossing(shortfall: Callable[[float], float], start: float, direction: int) -> float | None:
    """Return where `shortfall`, negative at `start`, becomes positive in `direction`; None if beyond `_FARTHEST`."""
    step, inside = 0.05, start
    while True:
        outside = start + direction * step
        if abs(outside - start) > _FARTHEST:
            return None
        if shortfall(outside) > 0:
            return _zero(shortfall, inside, outside, 1e-10)
        inside, step = outside, step * 2


def _root(falling: Callable[[float], float], guess: float) -> float:
    """Return the root of a falling function, bracketed by steps that double from `guess`."""
    step, left = 1.0, guess
    while falling(left) < 0:
        left, step = left - step, step * 2
    step, right = 1.0, guess
    while falling(right) > 0:
        right, step = right + step, step * 2
    return left if left == right else _zero(falling, left, right, 1e-12)


def _zero(function: Callable[[float], float], low: float, high: float, relative: float) -> float:
    from scipy import optimize

    return float(optimize.brentq(function, low, high, xtol=1e-12, rtol=relative))


def _chi_squared(probability: float) -> float:
    """Return the quantile of chi-squared with one degree of freedom."""
    return 2 * float(special.gammaincinv(0.5, probability))


def _is_narrow(x: np.ndarray, scale: float) -> bool:
    return float(np.std(x, ddof=1)) <= _NARROW * scale


def _mean(x: np.ndarray) -> float:
    """Return the mean, clipped to the sample: rounding may leave it an ulp outside, and then an interval misses it."""
    return float(min(max(x.mean(), x.min()), x.max()))


def _scaled_exp(scale: float, exponent: float | None) -> float | None:
    if exponent is None or exponent + math.log(scale) > _FARTHEST:
        return None
    return scale * math.exp(exponent)


def _finite(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.all(np.isfinite(x)):
        raise ValueError("a value is not finite; leave out lanes without a value before computing an interval")
    return x


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; it is a fraction between 0 and 1, such as 0.95")
    return confidence
