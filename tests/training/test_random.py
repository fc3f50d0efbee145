"""Random numbers of lanes: the cipher's published answers, and the properties of streams."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sweeps.training.random import Stream, derived_key, seed_key, signed, threefry2x32, threefry_of_ints

ONES, PI = 0xFFFFFFFF, ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3))
# Random123's kat_vectors: (key, counter, answer).
THIRTEEN = [
    ((0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    ((ONES, ONES), (ONES, ONES), (0xFD36D048, 0x2D17272C)),
    (*PI, (0xBA3E4725, 0xF27D669E)),
]
TWENTY = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    (*PI, (0xC4923A9C, 0x483DF7A0)),
]
words = st.integers(0, ONES)


def int32(values: list[int]) -> Tensor:
    return torch.tensor([signed(v) for v in values], dtype=torch.int32)


def unsigned(tensor: Tensor) -> list[int]:
    return [v & ONES for v in tensor.flatten().tolist()]


def stream(seed: int = 7, step: int = 0) -> Stream:
    return Stream(seed_key(seed, "batch"), step)


@pytest.mark.parametrize(("key", "counter", "answer"), THIRTEEN)
def test_thirteen_rounds_give_the_published_answers(key, counter, answer) -> None:
    assert threefry_of_ints(key, counter) == answer


@pytest.mark.parametrize(("key", "counter", "answer"), TWENTY)
def test_twenty_rounds_give_the_published_answers(key, counter, answer) -> None:
    assert threefry_of_ints(key, counter, rounds=20) == answer


def test_tensors_give_the_published_answers() -> None:
    keys, counters, answers = zip(*THIRTEEN, strict=True)
    columns = [int32([pair[i] for pair in pairs]) for pairs in (keys, counters) for i in (0, 1)]
    first, second = threefry2x32(*columns)
    assert list(zip(unsigned(first), unsigned(second), strict=True)) == list(answers)


@given(key=st.tuples(words, words), counters=st.lists(st.tuples(words, words), min_size=1, max_size=9))
def test_tensors_are_equal_to_ints_for_any_words(key, counters) -> None:
    columns = (int32([counter[i] for counter in counters]) for i in (0, 1))
    first, second = threefry2x32(int32([key[0]]), int32([key[1]]), *columns)
    expected = [threefry_of_ints(key, counter) for counter in counters]
    assert list(zip(unsigned(first), unsigned(second), strict=True)) == expected


@pytest.mark.parametrize("key_dims", [0, 1])
def test_under_vmap_every_lane_is_equal_to_ints(key_dims) -> None:
    """Lanes differ in key and step, the index is shared; the axis of the key may be first or last."""
    keys = torch.stack([int32([0, 1, 2**31, ONES]), int32([5, ONES, 0, 9])], dim=1)  # [4, 2]
    steps, index = int32([0, 3, 10**6, 2**31]), torch.arange(5, dtype=torch.int32)

    def lane(key: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        return threefry2x32(key[0], key[1], index, step)

    stacked = keys if key_dims == 0 else keys.T.contiguous()
    first, second = torch.vmap(lane, in_dims=(key_dims, 0))(stacked, steps)
    got = list(zip(unsigned(first), unsigned(second), strict=True))
    expected = [
        threefry_of_ints((k[0] & ONES, k[1] & ONES), (i, s & ONES))
        for k, s in zip(keys.tolist(), steps.tolist(), strict=True)
        for i in range(5)
    ]
    assert got == expected


@pytest.mark.slow
def test_compiled_is_equal_to_ints_also_in_the_tails_of_vectors() -> None:
    sizes = (1, 7, 16, 33, 131)

    def draw(key0: Tensor, key1: Tensor, step: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [threefry2x32(key0, key1, torch.arange(n, dtype=torch.int32), step) for n in sizes]

    key, step = (0xDEADBEEF, 0x80000001), 0xFFFFFFF0
    args = [torch.tensor(signed(word), dtype=torch.int32) for word in (*key, step)]
    compiled = torch.compile(draw, fullgraph=True, dynamic=False)(*args)
    for n, (first, second) in zip(sizes, compiled, strict=True):
        expected = [threefry_of_ints(key, (i, step)) for i in range(n)]
        assert list(zip(unsigned(first), unsigned(second), strict=True)) == expected, n


def test_two_draws_from_one_stream_share_no_number() -> None:
    source = stream()
    draws = [set(source.integers((n,), 0, 2**24).tolist()) for n in (51, 50, 1, 30)]
    assert all(not a & b for a, b in pairwise(draws))
    assert len(set.union(*draws)) == 132


def test_a_stream_is_a_function_of_key_and_step() -> None:
    assert torch.equal(stream(3, 5).uniform((9,)), stream(3, 5).uniform((9,)))
    assert not torch.equal(stream(3, 5).uniform((9,)), stream(3, 6).uniform((9,)))
    assert not torch.equal(stream(3, 5).uniform((9,)), stream(4, 5).uniform((9,)))


def test_purposes_of_one_seed_have_different_keys() -> None:
    keys = [seed_key(seed, p) for seed in (0, 1, ONES) for p in ("initialise", "batch", "model", "noise")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_outside_of_32_bits_is_refused(seed) -> None:
    with pytest.raises(ValueError, match=rf"seed = {seed} must lie in \[0, 2\*\*32\)"):
        seed_key(seed, "batch")


def test_a_child_does_not_depend_on_what_its_parent_has_drawn() -> None:
    fresh, used = stream(), stream()
    used.uniform((100,))
    assert torch.equal(fresh.child("first").uniform((8,)), used.child("first").uniform((8,)))


def test_a_child_has_the_key_that_its_name_gives() -> None:
    parent = seed_key(7, "batch")
    assert torch.equal(stream().child("first").normal((9,)), Stream(derived_key(parent, "first")).normal((9,)))


def test_children_and_their_parent_are_independent() -> None:
    source = stream()
    drawn = torch.stack([s.uniform((20_000,)) for s in (source, source.child("a"), source.child("b"))])
    off_diagonal = torch.corrcoef(drawn)[~torch.eye(3, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 4 / math.sqrt(20_000)


@settings(max_examples=25)
@given(seed=words, step=words, low=st.floats(-100, 100), width=st.floats(0.125, 100))
def test_uniform_stays_within_its_bounds(seed, step, low, width) -> None:
    drawn = stream(seed, step).uniform((1001,), low, low + width)
    assert drawn.dtype == torch.float32 and drawn.shape == (1001,)
    # The last of the 2**24 values may round up to the upper bound itself.
    assert drawn.min() >= torch.tensor(low) and drawn.max() <= torch.tensor(low + width)


def test_uniform_is_uniform() -> None:
    drawn = stream().uniform((100_000,))
    assert 0 <= drawn.min() and drawn.max() < 1
    assert stats.kstest(drawn.double().numpy(), "uniform").pvalue > 0.01
    assert drawn.double().mean() == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / 100_000))
    assert drawn.double().var() == pytest.approx(1 / 12, rel=0.02)


def test_normal_is_normal_and_finite() -> None:
    drawn = stream().normal((100_000,)).double()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 0.01
    assert drawn.mean() == pytest.approx(0, abs=4 / math.sqrt(100_000))
    assert drawn.var() == pytest.approx(1, rel=0.02)
    assert stats.kurtosis(drawn.numpy()) == pytest.approx(0, abs=4 * math.sqrt(24 / 100_000))
    assert drawn.abs().max() <= math.sqrt(48 * math.log(2)) + 1e-6


def test_the_two_halves_of_box_and_muller_are_independent() -> None:
    halves = stream().normal((100_000,)).double().view(2, -1)
    assert abs(float(torch.corrcoef(halves)[0, 1])) < 4 / math.sqrt(50_000)
    assert abs(float(torch.corrcoef(halves.square())[0, 1])) < 4 / math.sqrt(50_000)


def test_integers_cover_their_range_evenly() -> None:
    drawn = stream().integers((70_000,), -3, 4)
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn + 3)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize(("low", "high"), [(2, 2), (3, 2), (0, 2**24 + 1)])
def test_integers_refuse_a_width_that_they_cannot_cover(low, high) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
        stream().integers((1,), low, high)


def test_bernoulli_is_true_with_its_probability() -> None:
    drawn = stream().bernoulli((40_000,), 0.3)
    assert drawn.dtype == torch.bool
    assert drawn.double().mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 40_000))
    assert not stream().bernoulli((1000,), 0.0).any()
    assert stream().bernoulli((1000,), 1.0).all()


def test_shapes_are_kept_and_an_odd_one_drops_its_last_spare_number() -> None:
    assert torch.equal(stream().uniform((3, 1, 3)).flatten()[:5], stream().uniform((9,))[:5])
    assert stream().normal((2, 3)).shape == (2, 3)
