"""Intervals: known answers, coverage by simulation, and properties that hold for any sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps.results.statistics import Interval, beta_mean, gamma_mean, rate_difference, t_mean, wilson

STEPS = st.one_of(st.integers(0, 10_000_000).map(float), st.floats(1e-3, 1e7))
SPARSITY = st.one_of(st.just(0.0), st.just(0.5), st.floats(0, 0.5), st.floats(-16, -0.31).map(lambda p: 10**p))


def contains_its_estimate(interval: Interval) -> bool:
    figures = [interval.low, interval.estimate, interval.high]
    known = [figure for figure in figures if figure is not None]
    return all(math.isfinite(figure) for figure in known) and known == sorted(known)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 100, 0.0, 0.0370), (100, 100, 0.9630, 1.0), (98, 100, 0.9300, 0.9945), (0, 50, 0.0, 0.0713)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert interval.estimate == successes / n
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_no_trials_have_no_rate_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) == Interval(None, None, None)
    with pytest.raises(ValueError, match="5 successes of 3 trials"):
        wilson(5, 3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 3, confidence=95)


def test_newcombes_difference_gives_the_example_of_his_paper() -> None:
    # Newcombe 1998, table II (a): 56/70 against 48/80, method 10: 0.2000 [0.0524, 0.3339].
    compared = rate_difference((48, 80), (56, 70))
    assert compared is not None
    difference = compared.difference
    assert (difference.estimate, difference.low, difference.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert 0 < compared.p_value < 0.05
    assert rate_difference((0, 0), (1, 2)) is None


def test_equal_perfect_rates_do_not_differ() -> None:
    compared = rate_difference((20, 20), (100, 100))
    assert compared is not None
    assert compared.difference.low is not None and compared.difference.high is not None
    assert compared.difference.low < 0 <= compared.difference.high
    assert compared.p_value == 1.0


def test_the_gamma_estimate_is_the_sample_mean_even_of_a_skewed_sample() -> None:
    values = [15e3] * 60 + [18e3] * 30 + [4.5e6] * 10
    assert gamma_mean(values).estimate == pytest.approx(np.mean(values), rel=1e-12)


def test_the_gamma_interval_ends_where_the_likelihood_ratio_is_critical() -> None:
    """Against a brute-force profile over a grid of shapes, from scipy's density."""
    from scipy import stats

    values = np.array([4000.0, 5000.0, 5000.0, 7000.0, 12000.0])
    shapes = np.exp(np.linspace(-2, 6, 20_001))[:, None]

    def profile(mu: float) -> float:
        return float(stats.gamma.logpdf(values, shapes, scale=mu / shapes).sum(axis=1).max())

    interval = gamma_mean(values.tolist())
    assert interval.low is not None and interval.high is not None
    for end in (interval.low, interval.high):
        assert 2 * (profile(float(values.mean())) - profile(end)) == pytest.approx(3.8415, abs=1e-3)


def test_the_beta_interval_ends_where_the_likelihood_ratio_is_critical() -> None:
    """The density is scipy's, stretched over [0, 0.5]: the change of variable that the published script
    forgets."""
    from scipy import stats

    values = np.array([0.02, 0.05, 0.11, 0.20, 0.31])
    concentrations = np.exp(np.linspace(-2, 6, 20_001))[:, None]

    def profile(mu: float) -> float:
        a, b = 2 * mu * concentrations, (1 - 2 * mu) * concentrations
        return float(stats.beta.logpdf(values, a, b, scale=0.5).sum(axis=1).max())

    interval = beta_mean(values.tolist())
    assert interval.estimate is not None and interval.low is not None and interval.high is not None
    assert interval.estimate == pytest.approx(values.mean(), rel=0.02)
    peak = profile(interval.estimate)
    assert peak >= max(profile(interval.estimate * 0.999), profile(interval.estimate * 1.001))
    for end in (interval.low, interval.high):
        assert 2 * (peak - profile(end)) == pytest.approx(3.8415, abs=1e-3)


def test_the_beta_mean_is_not_halved_as_in_the_published_table() -> None:
    # Like NAC+ on addition: 0.454 in its own files, 0.227 in print.
    values = np.random.default_rng(1).beta(40, 4, size=100) / 2
    interval = beta_mean(values.tolist())
    assert interval.estimate == pytest.approx(values.mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("interval_of", "draw", "truth"),
    [
        (gamma_mean, lambda rng: rng.gamma(2.0, 5000.0, size=30), 10_000.0),
        (beta_mean, lambda rng: rng.beta(0.5, 5.0, size=30) / 2, 0.5 / 5.5 / 2),
        (beta_mean, lambda rng: rng.beta(30.0, 3.0, size=30) / 2, 30 / 33 / 2),
    ],
)
def test_about_95_of_100_intervals_hold_the_true_mean(
    interval_of: Callable[[list[float]], Interval], draw: Callable[[np.random.Generator], np.ndarray], truth: float
) -> None:
    rng = np.random.default_rng(20200115)
    held = 0
    for _ in range(300):
        interval = interval_of(draw(rng).tolist())
        assert interval.low is not None and interval.high is not None
        held += interval.low <= truth <= interval.high
    assert 0.91 <= held / 300 <= 0.98  # the binomial's own spread is 0.013


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=80, deadline=None)
def test_a_gamma_interval_contains_its_estimate_and_is_never_nan(values: list[float]) -> None:
    interval = gamma_mean(values)
    assert contains_its_estimate(interval)
    assert (interval.estimate is None) == (not values)
    if len(values) > 1:
        assert interval.low is not None and interval.low >= 0


@given(st.lists(SPARSITY, max_size=12))
@example([0.0, 1e-15])  # once an overflow
@settings(max_examples=80, deadline=None)
def test_a_beta_interval_contains_its_estimate_and_stays_within_its_range(values: list[float]) -> None:
    interval = beta_mean(values)
    assert contains_its_estimate(interval)
    assert (interval.estimate is None) == (not values)
    if len(values) > 1:
        assert interval.low is not None and interval.high is not None
        assert interval.low >= 0 and interval.high <= 0.5


@given(st.lists(st.floats(1.0, 1e4), min_size=2, max_size=12), st.sampled_from([1e-3, 0.5, 1e3]))
@settings(max_examples=40, deadline=None)
def test_a_gamma_interval_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    plain, scaled = gamma_mean(values), gamma_mean([value * unit for value in values])
    for a, b in zip((plain.estimate, plain.low, plain.high), (scaled.estimate, scaled.low, scaled.high), strict=True):
        assert a is not None and b is not None
        assert b == pytest.approx(a * unit, rel=1e-4)


@given(st.lists(st.floats(0.01, 0.49), min_size=2, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_beta_interval_mirrors_when_its_values_do(values: list[float]) -> None:
    plain, mirrored = beta_mean(values), beta_mean([0.5 - value for value in values])
    assert plain.low is not None and plain.high is not None
    assert mirrored.low == pytest.approx(0.5 - plain.high, abs=1e-5)
    assert mirrored.high == pytest.approx(0.5 - plain.low, abs=1e-5)


@pytest.mark.parametrize("interval_of", [gamma_mean, beta_mean])
def test_few_values_have_no_interval_and_equal_ones_an_empty_one(interval_of: Callable[[list[float]], Interval]) -> None:
    assert interval_of([]) == Interval(None, None, None)
    assert interval_of([0.25]) == Interval(0.25, None, None)
    assert interval_of([0.25] * 7) == Interval(0.25, 0.25, 0.25)
    assert interval_of([0.0] * 7) == Interval(0.0, 0.0, 0.0)


def test_a_seed_that_is_solved_at_step_zero_makes_it_a_t_interval() -> None:
    values = [0.0, 1000.0, 2000.0, 9000.0]
    assert gamma_mean(values) == t_mean(values, floor=0.0)
    assert gamma_mean(values).low == 0.0


def test_a_sparsity_error_above_one_half_makes_it_a_t_interval() -> None:
    values = [0.31, 0.48, 0.74]
    assert beta_mean(values) == t_mean(values, floor=0.0)
    assert (beta_mean(values).high or 0.0) > 0.5


@pytest.mark.parametrize("size", [0.9e-6, 1.1e-6])
def test_tiny_sparsity_errors_are_a_gammas_on_either_side_of_the_switch(size: float) -> None:
    values = [size * share for share in (0.05, 0.2, 0.5, 0.7, 1.0)]
    beta, gamma = beta_mean(values), gamma_mean(values)
    assert (beta.estimate, beta.low, beta.high) == pytest.approx((gamma.estimate, gamma.low, gamma.high), rel=1e-4)


def test_t_interval_by_hand() -> None:
    # Mean 3, sd sqrt(2.5), n 5: half-width 2.7764 * 1.5811 / 2.2361 = 1.9632.
    interval = t_mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((3.0, 1.0368, 4.9632), abs=1e-4)


@pytest.mark.parametrize("interval_of", [gamma_mean, beta_mean])
def test_values_without_a_meaning_are_refused(interval_of: Callable[[list[float]], Interval]) -> None:
    with pytest.raises(ValueError, match="negative"):
        interval_of([-0.1, 0.2])
    with pytest.raises(ValueError, match="not finite"):
        interval_of([math.nan, 0.2])
