"""Tests and intervals of differences against published examples, values worked out by hand, and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps.results import differences
from sweeps.results.differences import (
    _significant,
    boschloo,
    detectable_difference,
    holm,
    log_rank,
    mcnemar,
    mean_difference,
    paired_rate_difference,
    rank_test,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_boschloos_p_value_is_the_largest_over_the_unknown_rate() -> None:
    """20 of 20 against 15 of 20, from the definition: tables at least as unlikely by Fisher's one-sided test, on a grid."""
    n, observed = 20, stats.hypergeom.cdf(15, 40, 35, 20)
    tables = [(a, b) for a in range(n + 1) for b in range(n + 1) if stats.hypergeom.cdf(b, 2 * n, a + b, n) <= observed + 1e-12]
    rates = np.linspace(0.01, 0.99, 197)
    pmf = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    assert boschloo((20, 20), (15, 20)) == pytest.approx(2 * sum(pmf[a] * pmf[b] for a, b in tables).max(), abs=1e-4)
    assert boschloo((20, 20), (15, 20)) < float(stats.fisher_exact([[20, 15], [0, 5]]).pvalue)


def test_equal_and_undefined_rates_have_no_evidence_against_them() -> None:
    assert boschloo((0, 20), (0, 30)) == boschloo((20, 20), (5, 5)) == boschloo((0, 0), (1, 1)) == 1.0
    assert boschloo((10, 20), (10, 20)) > 0.9


def test_many_seeds_take_fishers_test() -> None:
    assert boschloo((150, 250), (130, 250)) == pytest.approx(float(stats.fisher_exact([[150, 130], [100, 120]]).pvalue))
    assert boschloo((100, 150), (80, 150)) < float(stats.fisher_exact([[100, 80], [50, 70]]).pvalue)


def test_mcnemars_exact_unconditional_test_by_enumeration() -> None:
    """Airway hyper-responsiveness of 21 children before and after a transplantation (Bentur 2009)."""
    n, observed = 21, 6 / math.sqrt(8)
    unequal = [(b, c) for b in range(n + 1) for c in range(n + 1 - b) if b + c]
    tables = [(b, c) for b, c in unequal if abs(b - c) / math.sqrt(b + c) >= observed - 1e-9]

    def size(p: float) -> float:
        return sum(stats.multinomial.pmf([b, c, n - b - c], n, [p, p, 1 - 2 * p]) for b, c in tables)

    largest = max(size(p) for p in np.linspace(0.01, 0.5, 50))
    assert mcnemar(1, 7, 21) == mcnemar(7, 1, 21) == pytest.approx(largest, abs=2e-4)
    assert mcnemar(1, 7, 21) < 2 * stats.binom.cdf(1, 8, 0.5) == pytest.approx(0.0703125)  # the conditional test
    assert mcnemar(4, 4, 100) == 1.0
    many = mcnemar(300, 380, 5000)  # the shares in parts
    assert many == pytest.approx(math.erfc(80 / math.sqrt(680) / math.sqrt(2)), rel=0.03)


def test_newcombes_interval_for_pairs_as_published() -> None:
    """Newcombe (1998b): of 50 pairs 36 both, 12 the first only, 2 the second only: method 10 gives 0.0569 to 0.3404."""
    found = paired_rate_difference(36, 12, 2, 0)
    assert found.estimate == pytest.approx(-0.2)
    assert (found.low, found.high) == pytest.approx((-0.3404, -0.0569), abs=5e-5)
    corrected = paired_rate_difference(20, 12, 2, 16)  # a positive correlation is corrected by half the number of pairs
    assert (corrected.low, corrected.high) == pytest.approx((-0.3292, -0.0562), abs=5e-5)
    assert paired_rate_difference(0, 0, 0, 0).estimate is None


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_a_paired_interval_contains_its_estimate_and_turns_with_the_sides(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    one, other = paired_rate_difference(*table), paired_rate_difference(both, second, first, neither)
    assert one.low is not None and one.high is not None and one.estimate is not None and other.high is not None
    assert -1 <= one.low <= one.estimate + 1e-12 and one.estimate <= one.high + 1e-12 and one.high <= 1
    assert one.low == pytest.approx(-other.high, abs=1e-9)


def test_the_log_rank_test_of_small_samples_counts_arrangements() -> None:
    """Of 20 arrangements of 3 and 3 seeds 2 are as extreme as 3 of 3 against none of 3; of 252 of 5 and 5 also 2."""
    assert log_rank([1, 2, 3], [None] * 3, 10) == pytest.approx(2 / 20)
    assert log_rank([None] * 5, [1000, 1100, 1200, 1300, 1400], 15_000) == pytest.approx(2 / 252)
    # Events observed less expected of a seed that converges at 1, 2 and never: 2/3, 1/6 and -5/6.
    assert log_rank([1], [2, None], 10) == pytest.approx(2 / 3)


def test_the_exact_log_rank_test_is_close_to_the_normal_approximation_of_larger_samples(monkeypatch) -> None:
    draws = rng()
    for shift in (1.0, 1.5, 2.5):
        a, b = ([int(1000 * s * x) for x in draws.exponential(size=10)] for s in (1.0, shift))
        exact = log_rank(a, b, 2500)
        with monkeypatch.context() as patch:
            patch.setattr(differences, "MOST_ARRANGEMENTS", 0)
            normal = log_rank(a, b, 2500)
        assert exact is not None and normal is not None and abs(exact - normal) < 0.05


def test_who_never_converges_is_at_risk_to_the_end() -> None:
    assert log_rank([None] * 5, [None] * 5, 10) is None
    assert log_rank([], [1], 10) is None
    assert log_rank([1000] * 5, [1000] * 5, 15000) == pytest.approx(1.0)
    late, never = log_rank([1000] * 10, [9000] * 10, 8000), log_rank([1000] * 10, [None] * 10, 8000)
    assert late is not None and late == never < 1e-3


def test_a_bootstrap_interval_is_that_of_its_seed_and_contains_the_difference() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0, 10.0], [5.0, 6.0, 7.0, 8.0, 30.0]
    one = mean_difference(a, b, rng())
    assert one == mean_difference(a, b, rng())
    assert one.estimate == pytest.approx(7.2)
    assert one.low is not None and one.high is not None and one.low < 7.2 < one.high


def test_pairs_have_a_narrower_interval_where_they_vary_together() -> None:
    a = [float(10 * n) for n in range(20)]
    b = [value + 5 + (n % 3) for n, value in enumerate(a)]
    paired, apart = mean_difference(a, b, rng(), paired=True), mean_difference(a, b, rng())
    assert paired.low is not None and paired.high is not None and apart.low is not None and apart.high is not None
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)


def test_what_does_not_vary_has_no_interval_rather_than_one_of_no_width() -> None:
    assert mean_difference([5.0, 5.0], [7.0, 7.0], rng()).low is None
    assert mean_difference([5.0], [7.0], rng()).estimate == 2
    assert mean_difference([], [7.0], rng()).estimate is None
    assert mean_difference([0.4] * 19, [0.4] * 20, rng()).estimate == 0  # also where a sum rounds otherwise
    assert mean_difference([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], rng()).estimate == 0


def test_infinite_errors_are_the_largest() -> None:
    found = rank_test([1.0, 2.0, 3.0, 4.0, 5.0], [math.inf] * 5)
    assert found is not None and found < 0.05
    assert rank_test([math.inf] * 3, [math.inf] * 3) == 1.0
    assert rank_test([], [1.0]) is None


def test_holms_adjustment_as_in_his_example() -> None:
    assert holm([0.01, 0.04, 0.03, None, 0.005]) == pytest.approx([0.03, 0.06, 0.06, None, 0.02])
    assert holm([None]) == [None]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_keep_their_order_and_never_fall(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert all(b is not None and a <= b <= 1 for a, b in pairs)
    assert all(one[1] <= other[1] for one, other in itertools.pairwise(pairs) if one[1] is not None and other[1] is not None)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([5, 10, 20, 50]), st.floats(0, 1))
def test_more_seeds_show_smaller_differences(n: int, rate: float) -> None:
    few, many = detectable_difference(rate, n, n), detectable_difference(rate, 2 * n, 2 * n)
    assert few is not None and many is not None and 0 < many <= few <= 1


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 8)])
def test_a_difference_is_detected_where_boschloos_test_finds_it(n: int, m: int) -> None:
    found = _significant(n, m, 0.05)
    assert all(found[a, b] == (boschloo((a, n), (b, m)) <= 0.05) for a in range(n + 1) for b in range(m + 1))


def test_of_many_seeds_the_pooled_z_test_decides() -> None:
    """Of 200 each 100 against 120 has z = 20 / sqrt(400 * 0.55 * 0.45 / 2) = 2.01, and 119 has 1.91."""
    found = _significant(200, 200, 0.05)
    assert found[100, 120] and found[120, 100] and not found[100, 119]
    assert not found[0, 0] and not found[200, 200]
    assert detectable_difference(0.5, 200, 200) == pytest.approx(0.139, abs=5e-3)  # (1.96 + 0.84) sqrt(2 / 200) 0.5 = 0.140


def test_false_alarms_of_mcnemars_test_are_as_rare_as_promised() -> None:
    n = 14
    found = [(b, c) for b in range(n + 1) for c in range(n + 1 - b) if mcnemar(b, c, n) <= 0.05]
    for p in np.linspace(0.02, 0.5, 13):
        assert sum(stats.multinomial.pmf([b, c, n - b - c], n, [p, p, 1 - 2 * p]) for b, c in found) <= 0.05 + 1e-4


def test_one_seed_shows_nothing() -> None:
    assert detectable_difference(0.5, 1, 1) is None
    assert detectable_difference(0.5, 0, 20) is None
