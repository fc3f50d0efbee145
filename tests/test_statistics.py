"""Intervals: known answers, coverage by simulation, and properties that hold for any sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps.results.statistics import (
    Interval,
    beta_fits,
    beta_mean,
    bounded_mean,
    gamma_fits,
    gamma_mean,
    kaplan_meier,
    median,
    rate_difference,
    t_mean,
    wilson,
)

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
    assert (compared.estimate, compared.low, compared.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert rate_difference((0, 0), (1, 2)).estimate is None


def test_equal_perfect_rates_do_not_differ() -> None:
    compared = rate_difference((20, 20), (100, 100))
    assert compared.low is not None and compared.high is not None
    assert compared.low < 0 <= compared.high


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


# ------------------------------------------------------------------------------------------- medians


def test_the_interval_of_a_median_lies_between_order_statistics() -> None:
    """n = 10: ranks 2 and 9 cover 1 - 22/1024 = 97.85 %, ranks 3 and 8 cover 89.06 %, and 95 % is between them."""
    found = median([float(value) for value in range(1, 11)])
    share = (0.978515625 - 0.95) / (0.978515625 - 0.890625)
    weight = 8 * share / (2 + 6 * share)
    assert (found.estimate, found.low, found.high) == pytest.approx((5.5, 2 + weight, 9 - weight))


def test_five_values_have_no_95_percent_interval_of_their_median_and_six_have_one() -> None:
    """From the lowest to the highest of five covers 1 - 2/32 = 93.75 %."""
    assert median([1.0, 2.0, 3.0, 4.0, 50.0]) == Interval(3.0)
    assert median([1.0, 2.0, 3.0, 4.0, 50.0], confidence=0.9).low is not None
    six = median([1.0, 2.0, 3.0, 4.0, 5.0, 60.0])
    assert six.low is not None and six.high is not None and 1 < six.low < six.high < 60
    assert (median([]), median([7.0])) == (Interval(), Interval(7.0))
    rounded = median([0.0] * 3 + [57497.0] * 4, 0.515625)
    assert rounded.estimate == rounded.high == 57497


def test_equal_values_of_a_grid_have_an_interval_as_wide_as_the_grid() -> None:
    assert median([1500.0] * 100, lower=[1000.0] * 100) == Interval(1500.0, 1000.0, 1500.0)
    with pytest.raises(ValueError, match="2 values have 1 lower ends"):
        median([1.0, 2.0], lower=[1.0])


@given(st.lists(STEPS, max_size=60), st.floats(0.5, 0.99))
@settings(deadline=None, max_examples=100)
def test_the_interval_of_a_median_contains_it_and_keeps_to_the_values(values: list[float], confidence: float) -> None:
    found = median(values, confidence)
    assert contains_its_estimate(found)
    for end in (found.low, found.high):
        assert end is None or min(values) <= end <= max(values)
    assert median(sorted(values), confidence) == found


# ------------------------------------------------------------------------------------------- means in a known range


@pytest.mark.parametrize(("solved", "seeds"), [(3, 25), (50, 100), (97, 100)])
def test_of_zeros_and_ones_the_bounded_mean_is_jeffreys_interval(solved: int, seeds: int) -> None:
    from scipy.stats import beta

    found = bounded_mean([1.0] * solved + [0.0] * (seeds - solved), 1.0)
    expected = [float(beta.ppf(q, solved + 0.5, seeds - solved + 0.5)) for q in (0.025, 0.975)]
    assert found.estimate == solved / seeds and found.method == "bounded"
    assert [found.low, found.high] == pytest.approx(expected, abs=0.01)  # 4000 draws of the bootstrap


def test_equal_values_do_not_exclude_a_rare_tail_up_to_the_ceiling() -> None:
    """Of 25 equal seeds the high end has weight at the ceiling: the 97.5 % point of a Beta(1/2, 25.5), 0.094."""
    found = bounded_mean([1500.0] * 25, 10_000.0, lower=[1000.0] * 25)
    assert found.estimate == 1500 and found.low is not None and found.high is not None
    assert 900 < found.low < 1000
    assert found.high == pytest.approx(1500 + 8500 * 0.094, rel=0.05)
    never = bounded_mean([10_000.0] * 25, 10_000.0)
    assert never.high == 10_000 and never.low is not None and 8000 < never.low < 9500


def test_values_out_of_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 1 to 20, which are not in \[0, 10\]"):
        bounded_mean([1.0, 20.0], 10.0)
    assert (bounded_mean([], 1.0), bounded_mean([0.5], 1.0)) == (Interval(), Interval(0.5))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.floats(1e-3, 1e6))
@settings(deadline=None, max_examples=60)
def test_a_bounded_mean_keeps_to_its_range_has_a_width_and_does_not_depend_on_the_unit(
    values: list[float], unit: float
) -> None:
    found, scaled = bounded_mean(values, 1.0), bounded_mean([min(value * unit, unit) for value in values], unit)
    assert contains_its_estimate(found) and found == bounded_mean(values[::-1], 1.0)
    assert found.low is not None and found.high is not None and 0 <= found.low < found.high <= 1
    assert (scaled.low, scaled.high) == pytest.approx((found.low * unit, found.high * unit), rel=1e-9, abs=1e-12 * unit)


def test_many_values_make_the_bounded_mean_a_normal_interval() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 2000).tolist()
    found, plain = bounded_mean(values, 1.0), t_mean(values)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.002)


# ------------------------------------------------------------------------------------------- families


def test_a_family_is_used_where_it_fits_and_not_on_a_mixture_a_grid_or_few_values() -> None:
    rng = np.random.default_rng(1)
    gammas = [rng.gamma(4, 5000, 100).tolist() for _ in range(200)]
    assert 0.85 < sum(map(gamma_fits, gammas)) / 200 < 0.95  # the critical point is that of about 10 %
    mixed = [np.where(rng.random(100) < 0.9, rng.gamma(50, 340, 100), rng.uniform(0, 4e6, 100)).tolist() for _ in range(20)]
    assert not any(map(gamma_fits, mixed))
    assert not gamma_fits((np.ceil(rng.gamma(40, 42.5, 100) / 500) * 500).tolist())
    assert not gamma_fits(gammas[0][:49]) and not gamma_fits([5.0] * 100) and not gamma_fits([0.0, *gammas[0]])


def test_a_beta_does_not_fit_sparsities_over_many_decades() -> None:
    rng = np.random.default_rng(2)
    assert sum(beta_fits((0.5 * rng.beta(1.5, 20, 100)).tolist()) for _ in range(100)) > 80
    assert not any(beta_fits(np.exp(rng.uniform(np.log(1e-7), np.log(0.5), 100)).tolist()) for _ in range(20))
    assert not beta_fits([0.6] * 100) and not beta_fits([1e-6] * 100) and not beta_fits([])


# ------------------------------------------------------------------------------------------- Kaplan and Meier

REMISSION = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
"""Weeks in remission of 21 patients on 6-MP (Freireich and others 1963), and whether that ended in a relapse."""


def test_kaplan_and_meier_give_the_textbook_answer_for_6_mp() -> None:
    """Survival at 6, 7, 10, 13, 16, 22 and 23 weeks as in Kleinbaum and Klein, and Greenwood's error at 10 weeks, 0.0963."""
    at = [5, 6, 7, 10, 13, 16, 22, 23, 35]
    found = kaplan_meier(REMISSION, list(map(bool, RELAPSED)), at)
    survival = [1 - (one.estimate or 0.0) for one in found]
    assert survival == pytest.approx([1, 0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482, 0.4482], abs=5e-5)
    trials = 0.7529 * 0.2471 / 0.0963**2
    z, rate = 1.959964, 0.2471
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))
    assert (found[3].low, found[3].high) == pytest.approx((middle - half, middle + half), abs=2e-3)


def test_kaplan_and_meier_by_hand() -> None:
    """Events at 2 and 4, one censored at 3: survival 3/4, then 3/4 * 1/2. Where all have ended it is 0."""
    found = kaplan_meier([2, 3, 4, 5], [True, False, True, True], [1, 2, 3.5, 4, 9])
    assert [one.estimate for one in found] == pytest.approx([0, 1 / 4, 1 / 4, 1 - 3 / 8, 1])
    assert found[0] == wilson(0, 4) and found[1] == wilson(1, 4)
    assert found[4].high == 1 and found[4].low is not None and 0 < found[4].low < 1
    assert kaplan_meier([], [], [1]) == [Interval()]
    late = kaplan_meier([3, 3, 9], [False, False, False], [1, 5])
    assert late == [wilson(0, 3), wilson(0, 1)]  # one is still at risk after 3


@given(
    st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=40),
    st.lists(st.integers(0, 35), min_size=1, max_size=8).map(sorted),
)
@settings(deadline=None, max_examples=80)
def test_kaplan_and_meier_agree_with_scipy(seeds: list[tuple[int, bool]], at: list[int]) -> None:
    from scipy import stats

    times, observed = [time for time, _ in seeds], [met for _, met in seeds]
    found = kaplan_meier(times, observed, at)
    data = stats.CensoredData([t for t, met in seeds if met], right=[t for t, met in seeds if not met])
    expected = stats.ecdf(data).cdf.evaluate(np.array(at))
    assert [one.estimate for one in found] == pytest.approx(list(expected), abs=1e-12)
    assert all(contains_its_estimate(one) and one.low is not None and one.high is not None for one in found)
    assert [one.estimate or 0 for one in found] == sorted(one.estimate or 0 for one in found)


# ------------------------------------------------------------------------------------------- coverage


def test_a_simulation_is_the_same_for_the_same_seed_and_other_distributions_do_not_matter() -> None:
    from sweeps.bench.coverage import DISTRIBUTIONS, bench_coverage

    once = bench_coverage(5, distributions=DISTRIBUTIONS[:2], sizes=(10,))
    again = bench_coverage(5, distributions=DISTRIBUTIONS[1:2], sizes=(10,))
    assert once.as_json()[1] == again.as_json()[0]
    assert "few values of the grid" in again.table()
    header = next(line for line in again.table().splitlines() if line.startswith("| distribution"))
    assert "| restricted mean | of the crossing | converged at, sparsity |" in header


@pytest.mark.slow
def test_the_recommended_intervals_cover_93_to_97_percent_or_more_where_the_grid_decides() -> None:
    """As docs/statistics.md has them; three standard errors of 600 samples are 2.7 points."""
    from sweeps.bench.coverage import DISTRIBUTIONS, bench_coverage

    found = bench_coverage(600, distributions=DISTRIBUTIONS)
    for one in found.results:
        mean, middle = one.means["fitted"].share, one.medians["recommended"].share
        lowest = min(mean, middle, one.means["bounded"].share)
        assert lowest >= 0.93 - 0.027, (one.distribution.name, one.seeds)
        if not one.distribution.grid:
            assert mean <= 0.97 + 0.027 and middle <= 0.97 + 0.027, (one.distribution.name, one.seeds)
    mixture = found.results[1]
    assert mixture.means["published"].share < 0.8
