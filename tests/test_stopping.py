"""Racing and halving as pure functions: hand-worked examples, and how often the best configuration is stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config.space import EarlyStopping, Halving, Objective, Race
from sweeps.results.metrics import SeedValue
from sweeps.search.stopping import (
    Stage,
    cannot_decide,
    failure_low_end,
    group,
    is_stopped_at_rung,
    median_low_end,
    race,
    stages,
)  # fmt: skip

RACE = Race((3, 6, 12, 25), confidence=0.95)
MOST = 2000.0
MEAN, MEDIAN = SeedValue(float, False, (0.0, MOST)), SeedValue(float, True)
SHARE = SeedValue(float, False, (-1.0, 0.0), best=-1.0)
Values = dict[int, tuple[float, float]]


def seeds(*values: float, errors: Sequence[float] | None = None) -> Values:
    return {seed: (value, errors[seed] if errors else 0.0) for seed, value in enumerate(values)}


def dropped(
    level: int, members: dict[int, Values], before: dict[int, Values] | None = None, objective: SeedValue = MEAN
) -> list[int]:
    return sorted(race(RACE, level, members, before or {}, objective))


def test_with_both_kinds_the_first_seeds_train_to_each_rung_and_the_others_to_the_end() -> None:
    halving = Halving((100, 300), Objective())
    assert stages(EarlyStopping(Race((2, 5)), halving), 10, 1000) == (
        Stage(2, 100), Stage(2, 300), Stage(2, 1000), Stage(5, 1000), Stage(10, 1000),
    )  # fmt: skip
    assert stages(EarlyStopping(), 10, 1000) == (Stage(10, 1000),)
    assert stages(EarlyStopping(Race((2, 10))), 10, 1000) == (Stage(2, 1000), Stage(10, 1000))


def test_groups_follow_one_another() -> None:
    assert [group(number, 4) for number in (0, 3, 4, 9)] == [range(4), range(4), range(4, 8), range(8, 12)]


def test_failures_have_the_lower_end_of_clopper_and_pearson() -> None:
    assert failure_low_end(3, 5, 0.025) == pytest.approx(0.1466, abs=1e-4)
    assert failure_low_end(5, 5, 0.025) == pytest.approx(0.025 ** (1 / 5))
    assert failure_low_end(0, 5, 0.025) == 0.0


def test_a_median_is_above_order_statistics() -> None:
    """Seven values: all are above the median with probability 2^-7 = 0.8 %, all but one with 6.3 %."""
    values = list(np.arange(7.0))
    assert median_low_end(values, 0.0078125) == 0.0
    assert median_low_end(values, 0.0077) == -math.inf
    assert median_low_end(values, 0.0625) == 1.0


def test_three_seeds_that_all_fail_lose_against_a_winner_with_25_seeds_and_the_p_value_is_exact() -> None:
    """At best it fails in 0.0125^(1/3) = 23 % of seeds, which alone is a mean of 464 steps."""
    failed, winner = seeds(*[MOST] * 3), seeds(*range(400, 425))
    (found,) = race(RACE, 0, {7: failed}, {2: winner}, MEAN).values()
    assert found.than == 2
    assert found.p_value == pytest.approx(1 / math.comb(28, 3))  # the only usable test: 3 common seeds are too few


def test_common_seeds_show_a_small_difference_that_is_hidden_by_the_differences_between_seeds() -> None:
    hard = [1.7**seed for seed in range(12)]
    assert dropped(2, {0: seeds(*hard), 1: seeds(*(1.01 * value for value in hard))}) == [1]
    others = {seed + 100: (1.01 * value, 0.0) for seed, value in enumerate(hard)}  # no seed in common
    assert dropped(2, {0: seeds(*hard), 1: others}) == []


def test_three_seeds_cannot_lose_against_three() -> None:
    assert dropped(0, {0: seeds(1, 2, 3), 1: seeds(MOST, MOST, MOST)}) == []


def test_a_configuration_that_is_quick_and_fails_at_times_is_not_stopped_by_a_slow_one_with_a_worse_mean() -> None:
    """Each of these is better than the slow one, and is stopped in at most 5 % of 200 races."""
    for solves, steps, slow in ((0.7, 100.0, 700.0), (0.8, 100.0, 520.0), (0.5, 200.0, 1120.0), (0.9, 300.0, 500.0)):
        assert (1 - solves) * MOST + solves * steps < slow
        wrong = 0
        for repetition in range(200):
            rng = np.random.default_rng(repetition)
            lanes = seeds(*np.where(rng.random(25) < solves, steps, MOST))
            looks = ({s: v for s, v in lanes.items() if s < count} for count in RACE.levels[:-1])
            wrong += any(dropped(level, {1: look}, {0: seeds(*[slow] * 25)}) for level, look in enumerate(looks))
        assert wrong <= 10, (solves, steps, slow, wrong)


def test_equal_configurations_are_never_stopped() -> None:
    assert dropped(3, {number: seeds(*range(25)) for number in range(5)}) == []
    assert dropped(3, {number: seeds(*[7.0] * 25) for number in range(5)}) == []


def test_medians_are_compared_by_rank_so_that_infinite_values_are_just_the_worst() -> None:
    worse, better = seeds(*[math.inf] * 12), seeds(*range(12))
    assert dropped(2, {0: worse, 1: better}, objective=MEDIAN) == [0]


def test_what_can_only_tie_with_a_complete_one_is_compared_by_its_errors() -> None:
    """All solve all of their seeds: with 25 of 25 and the smaller errors none of these can be better."""
    perfect = [-1.0] * 25
    complete = seeds(*perfect, errors=[-8.0] * 25)
    worse, better = seeds(*perfect[:12], errors=[-6.0] * 12), seeds(*perfect[:12], errors=[-9.0] * 12)
    found = race(RACE, 2, {3: worse, 4: better}, {0: complete}, SHARE)
    assert list(found) == [3] and found[3].of_errors
    still_racing = {3: worse, 5: seeds(*perfect[:12], errors=[-8.0] * 12)}  # which may fail a later seed
    assert race(RACE, 2, still_racing, {}, SHARE) == {}


def test_levels_that_can_stop_nothing_are_known() -> None:
    assert cannot_decide(Race((3, 5, 10, 25)), MEDIAN) == [3, 5]  # 2^-3 > 1.25 %, 2^-5 > 0.63 %
    assert cannot_decide(Race((3, 5, 10, 25)), MEAN) == []
    assert cannot_decide(Race((5, 10, 20), confidence=0.999), MEAN) == [20]  # four tests of 20,000 permutations


values = st.lists(st.sampled_from([1.0, 2.0, 5.0, 1000.0]), min_size=12, max_size=12)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 7), values, min_size=1), st.dictionaries(st.integers(8, 9), values), st.booleans())
def test_a_race_always_leaves_one_and_does_not_depend_on_the_order(
    members: dict[int, list[float]], before: dict[int, list[float]], by_rank: bool
) -> None:
    objective = MEDIAN if by_rank else MEAN
    group_ = {number: seeds(*found) for number, found in members.items()}
    earlier = {number: seeds(*found) for number, found in before.items()}
    found = race(RACE, 2, group_, earlier, objective)
    assert len(found) < len(group_) + len(earlier)
    turned = {number: dict(reversed(group_[number].items())) for number in reversed(group_)}
    assert race(RACE, 2, turned, earlier, objective) == found


def test_the_best_of_equal_configurations_is_stopped_in_at_most_5_percent_of_races() -> None:
    """Eight configurations that all solve half of their seeds, raced over all four levels, 100 times."""
    wrong = 0
    for repetition in range(100):
        rng = np.random.default_rng(repetition)
        lanes = {number: seeds(*np.where(rng.random(25) < 0.5, 2000.0, rng.uniform(500, 600, 25))) for number in range(8)}
        left = set(lanes)
        for level, count in enumerate(RACE.levels[:-1]):
            members = {n: {s: v for s, v in lanes[n].items() if s < count} for n in left}
            left -= race(RACE, level, members, {}, MEAN).keys()
        best = min(lanes, key=lambda n: sum(value for value, _ in lanes[n].values()))
        wrong += best not in left
    assert wrong <= 5


def test_at_a_rung_a_third_of_all_that_reached_it_trains_on() -> None:
    earlier = [(float(value),) for value in (1, 2, 3, 4, 5)]
    assert not is_stopped_at_rung((1.5,), earlier, 1 / 3)  # second of six: two may go on
    assert is_stopped_at_rung((2.5,), earlier, 1 / 3)
    assert not is_stopped_at_rung((2.5,), earlier, 1 / 2)


def test_the_first_at_a_rung_trains_on_and_equal_ones_are_treated_alike() -> None:
    assert not is_stopped_at_rung((9.0,), [], 1 / 3)
    assert is_stopped_at_rung((9.0,), [(1.0,)], 1 / 3)
    assert not is_stopped_at_rung((1.0,), [(1.0,)] * 10, 1 / 3)
