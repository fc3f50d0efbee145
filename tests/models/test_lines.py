"""Bins that take turns on a line of one length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arith_models.lines import CALL_COST, OTHER_CALL_COST, Stretch, stretches_of

PUBLISHED = (8, 12, 16, 20, 25, 28, 31, 36, 41)


def num_steps(stretches: list[Stretch]) -> int:
    return sum(stretch.steps for stretch in stretches)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.sampled_from([0, 8, 128]), st.booleans())
def test_every_bin_has_as_many_steps_as_positions_at_one_place_with_a_free_position_on_both_sides(
    lengths: list[int], call_cost: int, at_once: bool
) -> None:
    width, stretches = stretches_of(tuple(lengths), call_cost, at_once)
    seen: dict[int, list[tuple[int, int]]] = {}
    for number, stretch in enumerate(stretches):
        free_from = 0
        for bin_, first in stretch.places:
            assert first > free_from
            free_from = first + lengths[bin_]
            seen.setdefault(bin_, []).append((number, first))
        assert free_from < width
    assert sorted(seen) == list(range(len(lengths)))
    for bin_, places in seen.items():
        numbers = [number for number, _ in places]
        assert len({first for _, first in places}) == 1, "a bin stays where it is"
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "without a break"
        assert sum(stretches[number].steps for number in numbers) == lengths[bin_]
    if at_once:
        assert len(stretches[0].places) == len(lengths)


def test_a_bin_by_itself_has_a_line_of_its_own_length() -> None:
    assert stretches_of((7,), 8) == (9, [Stretch(7, ((0, 1),))])


def test_the_published_bins_cost_a_tenth_more_at_most_than_on_a_line_that_is_cut_whenever_one_ends() -> None:
    width, stretches = stretches_of(PUBLISHED, CALL_COST["cpu"])
    cut = sum(n * (n + 1) for n in PUBLISHED) + max(PUBLISHED)
    assert width * num_steps(stretches) < 1.1 * cut


def test_where_a_call_costs_more_bins_share_more_steps() -> None:
    _, many = stretches_of(PUBLISHED, CALL_COST["cpu"])
    width, few = stretches_of(PUBLISHED, OTHER_CALL_COST)
    assert num_steps(few) == max(PUBLISHED) < num_steps(many)
    assert width < sum(PUBLISHED) + len(PUBLISHED) + 1
