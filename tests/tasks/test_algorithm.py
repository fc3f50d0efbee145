"""The task on algorithms: its tables, batches, tests, errors and faults."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from lanes import resolved
from numpy.typing import NDArray

from sweeps.config.settings import float_leaves, section, validated
from sweeps.training.random import Stream, seed_key, signed
from tasks._algorithms import examples
from tasks.algorithm import PUBLISHED_BCD_BINS, PUBLISHED_BINS, Algorithm

SMALL: dict[str, Any] = {"bins": (8, 12, 17), "test_rows": 200, "examples_per_length": 300}


def task(operation: str = "multiply", **config: Any) -> Algorithm:
    return Algorithm(Algorithm.Config(operation=operation, **config))


def handed(made: Algorithm) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in made.shared().items()}


def stream(seed: int = 0) -> Any:
    return Stream(seed_key(seed, "batch"))


def rows(table: NDArray[Any]) -> list[tuple[int, ...]]:
    """Rows without what lies outside of the working space, so that those of different bins compare."""
    return [tuple(symbol for symbol in row if symbol != -1) for row in table.tolist()]


def trained_on(made: Algorithm) -> set[tuple[int, ...]]:
    return {row for n in made.bins for row in rows(made.shared()[f"x_{n}"])}


def test_binary_multiplication_has_the_published_examples() -> None:
    """Of length l there are 4^((l - 1) / 2), at most 10,000 of which are trained on, and 5 % of a bin come on top."""
    made = task()
    assert made.bins == PUBLISHED_BINS and task("bcd_multiply").bins == PUBLISHED_BCD_BINS
    shared = made.shared()
    own = {8: 4 + 16 + 64, 12: 256 + 1024, 16: 4096 + 10_000, 20: 20_000, 25: 30_000, 28: 10_000, 31: 20_000, 36: 20_000,
           41: 30_000}  # fmt: skip
    for n, count in own.items():
        copied = 0 if n == 8 else count * 5 // 100
        assert shared[f"x_{n}"].shape == shared[f"y_{n}"].shape == (count + copied, n)
        assert shared[f"x_{n}"].dtype == shared[f"y_{n}"].dtype == np.int8
        found = rows(shared[f"x_{n}"])
        below = max((b for b in made.bins if b < n), default=0)
        mine = [row for row in found if len(row) > below]
        assert len(mine) == len(set(mine)) == count
        assert len(found) - len(mine) == copied
        assert {len(row) for row in mine} == set(range(below + 1, n + 1)) & set(range(3, 42, 2))
    assert trained_on(made) >= set(rows(shared["x_41"])), "copies are examples of shorter bins"


def test_a_table_is_in_the_order_of_lengths() -> None:
    made = task(**SMALL)
    shared = made.shared()
    for n in made.bins:
        lengths = [len(row) for row in rows(shared[f"x_{n}"])]
        assert lengths == sorted(lengths)
        for length in set(lengths):
            first, count = (shared[f"{name}_{n}"][length] for name in ("first", "count"))
            assert lengths[first : first + count] == [length] * lengths.count(length)


def test_where_input_and_target_are_both_padding_is_outside_of_the_working_space() -> None:
    for operation in ("add", "duplicate", "left", "bcd_multiply"):
        bins = (9, 17) if operation == "bcd_multiply" else (8, 12)
        shared = task(operation, bins=bins, test_rows=64).shared()
        for n in bins:
            x, y = shared[f"x_{n}"], shared[f"y_{n}"]
            assert ((x == -1) == ((x <= 0) & (y == 0))).all()
            assert (x == 0).any() == (operation == "duplicate")


def test_the_sets_are_the_same_in_every_process_and_do_not_depend_on_the_bins() -> None:
    """A length's examples come from its own seed."""
    made = task(**SMALL)
    kept = {name: array.copy() for name, array in made.shared().items()}
    tests = [a.copy() for split in made.splits for a in made.evaluation_inputs(split)]
    for cached in (examples.tables, examples.inputs_of_bins, examples.inputs_of_length):
        cached.cache_clear()
    assert all(np.array_equal(kept[name], array) for name, array in made.shared().items())
    again = [a for split in made.splits for a in made.evaluation_inputs(split)]
    assert all(np.array_equal(a, b) for a, b in zip(tests, again, strict=True))
    other = task(**SMALL | {"bins": (10, 17)})
    assert trained_on(other) == trained_on(made)
    found = hashlib.sha256(b"".join(kept[name].tobytes() for name in sorted(kept)))
    assert found.hexdigest()[:16] == "1b80fec5ce0f624d", "raise the task's version where its tables change"


@pytest.mark.parametrize("operation", ["add", "multiply", "sort", "duplicate", "search", "key_value_sort"])
def test_no_test_example_is_trained_on_where_the_space_allows_it(operation) -> None:
    made = task(operation, **SMALL, test_length=16, extrapolation_rows=100)
    taken = trained_on(made)
    seen = [row for split in made.splits for x in made.evaluation_inputs(split) for row in rows(x)]
    seen += [row for length in (9, 12, 16) for row in rows(made.curve_inputs(length)[0])]
    repeated = {len(row) for row in seen if row in taken}
    assert repeated <= set(made.shared_lengths())
    assert {len(row) for row in seen} - set(made.shared_lengths()), "some lengths are tested with new examples"
    for x in made.evaluation_inputs("interpolation"):
        assert len(set(rows(x))) == len(x)


def test_lengths_with_fewer_examples_than_are_trained_on_are_named() -> None:
    assert task("add").shared_lengths() == (3, 5, 7, 9, 11, 13)
    assert task("add", base=10).shared_lengths() == (3, 5)  # 100 and 10,000 examples
    assert task("sort").shared_lengths() == (1, 2, 3, 4, 5)
    assert task("bcd_multiply", examples_per_length=99).shared_lengths() == ()


def test_test_rows_are_spread_over_the_lengths() -> None:
    """60 rows over lengths 3, 5, 7, 9, 11: 4 and 14 each, as length 3 has no more than 4."""
    made = task(bins=(8, 12), test_rows=60)
    x_8, x_12 = made.evaluation_inputs("interpolation")
    counts = {n: sum(len(row) == n for row in rows(x_8) + rows(x_12)) for n in made.lengths}
    assert counts == {3: 4, 5: 14, 7: 14, 9: 14, 11: 14}
    assert x_8.shape == (32, 8) and x_12.shape == (28, 12) and x_8.dtype == np.int64


def test_the_extrapolation_split_is_of_the_test_length() -> None:
    (x,) = task(test_length=101, extrapolation_rows=7).evaluation_inputs("extrapolation")
    assert x.shape == (7, 101) and (x > 0).all()
    (x,) = task("reverse_pairs", test_length=101).evaluation_inputs("extrapolation")
    assert x.shape == (32, 101) and (x[:, :100] > 0).all() and (x[:, 100] == -1).all()


def test_rows_of_a_curve_shrink_as_the_work_for_one_grows() -> None:
    """Up to the largest bin 1024, at twice its length 1024 / 4, at the end 16; and never more than there are."""
    made = task("copy", bins=(20,), curve_rows=(1024, 16), curve_lengths=(15, 20, 40, 400))
    assert [len(made.curve_inputs(n)[0]) for n in (15, 20, 40, 400)] == [1024, 1024, 256, 16]
    assert [made.curve_inputs(n)[0].shape for n in (1, 2)] == [(5, 1), (25, 2)]
    assert task().curve_inputs(4001)[0].shape == (16, 4001)


def test_a_batch_has_every_bin_and_the_targets_of_its_rows() -> None:
    made = task(**SMALL)
    x, y = made.sample(stream(), handed(made), 50)
    assert [t.shape for t in x] == [t.shape for t in y] == [(50, 8), (50, 12), (50, 17)]
    assert {t.dtype for t in (*x, *y)} == {torch.int64}
    truth = made.truth(tuple(t.numpy() for t in x), 0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(truth, y, strict=True))
    again, _ = made.sample(stream(), handed(made), 50)
    other, _ = made.sample(stream(1), handed(made), 50)
    assert torch.equal(x[2], again[2]) and not torch.equal(x[2], other[2])


def test_every_row_of_a_table_is_drawn_equally_often() -> None:
    made = task(bins=(8,), test_rows=64)
    (x,), _ = made.sample(stream(), handed(made), 84 * 200)
    _, counts = np.unique(x.numpy(), axis=0, return_counts=True)
    assert len(counts) == 84
    assert abs(counts - 200).max() < 5 * 200**0.5


@pytest.mark.parametrize("length", [9, 11])
def test_a_batch_of_one_length_has_no_other(length) -> None:
    made = task(**SMALL)
    (x,), (y,) = made.sample_exact(stream(), handed(made), 4_000, 12, torch.tensor(length))
    assert x.shape == (4_000, 12)
    assert {len(row) for row in rows(x.numpy())} == {length}
    assert len(set(rows(x.numpy()))) == min(300, 4 ** (length // 2))
    assert np.array_equal(made.truth((x.numpy(),), 0)[0], y.numpy())


def test_a_length_without_examples_has_those_of_the_next_shorter_one() -> None:
    """Length 10 has none in binary multiplication; with no copies, 2 has no shorter one in its bin."""
    made = task(**SMALL | {"copied_percent": 0})
    for n, length, used in ((12, 10, 9), (12, 12, 11), (17, 17, 17), (8, 2, 3), (12, 4, 9)):
        (x,), _ = made.sample_exact(stream(), handed(made), 100, n, torch.tensor(length))
        assert {len(row) for row in rows(x.numpy())} == {used}


def test_lanes_draw_what_they_draw_alone() -> None:
    """Lengths differ between the lanes of a stacked call."""
    made = task(**SMALL)
    data = handed(made)
    keys = torch.tensor([[signed(w) for w in seed_key(s, "batch")] for s in range(3)], dtype=torch.int32)
    lengths = torch.tensor([9, 11, 9])

    def lane(key: torch.Tensor, length: torch.Tensor) -> Any:
        drawn = Stream((key[0], key[1]), key[0])
        return made.sample(drawn, data, 6), made.sample_exact(drawn.child("exact"), data, 6, 12, length)

    together = torch.vmap(lane)(keys, lengths)
    for k in range(3):
        alone = lane(keys[k], lengths[k])
        for one, stacked in zip(*map(torch.utils._pytree.tree_leaves, (alone, together)), strict=True):
            assert torch.equal(one, stacked[k])


def logits(*symbols: list[list[int]]) -> tuple[torch.Tensor, ...]:
    return tuple(50.0 * torch.nn.functional.one_hot(torch.tensor(s), 3) for s in symbols)


def test_errors_by_hand() -> None:
    """Two bins: of 3 rows and 8 positions, 5 no padding, one symbol is wrong in a number and one in the padding."""
    target = (torch.tensor([[1, 2], [1, 0]]), torch.tensor([[2, 1, 0, 0]]))
    y = logits([[1, 1], [1, 2]], [[2, 1, 0, 0]])
    made = task()
    scores = {name: value.item() for name, value in made.scores("extrapolation", y, target).items()}
    assert scores.pop("loss") == pytest.approx(made.loss(y, target).item())
    assert scores == pytest.approx({
        "symbol_error": 1 / 5, "sequence_error": 1 / 3, "symbol_error_with_padding": 2 / 8,
        "sequence_error_with_padding": 2 / 3,
    })  # fmt: skip
    for judged_by in ("symbol_error", "sequence_error"):
        for padding in (False, True):
            error = task(judged_by=judged_by, padding_counts=padding).error(y, target)
            assert error.item() == pytest.approx(scores[judged_by + "_with_padding" * padding])


def test_the_loss_is_the_mean_of_the_bins_with_or_without_padding() -> None:
    """A position that is surely wrong costs 50: 2 of 4 positions, 1 of 3 without padding; the second bin is right."""
    target = (torch.tensor([[1, 2], [1, 0]]), torch.tensor([[2, 1, 0, 0]]))
    y = logits([[1, 1], [1, 2]], [[2, 1, 0, 0]])
    assert task().loss(y, target).item() == pytest.approx((50 * 2 / 4 + 0) / 2)
    assert task(loss_over="unpadded").loss(y, target).item() == pytest.approx((50 / 3 + 0) / 2)
    uniform = (torch.zeros(2, 2, 3), torch.zeros(1, 4, 3))
    assert task().loss(uniform, target).item() == pytest.approx(np.log(3))


def test_solved_is_an_error_below_the_bound() -> None:
    assert task().threshold() == 0.01 and task(bound=0.5).threshold() == 0.5


def test_settings_that_make_the_tables_are_no_numbers_of_a_lane() -> None:
    """A float would be a lane's own, and lanes of a pack share one table."""
    found = resolved("linear", {"name": "static"}, steps=1)
    found["task"] = {"name": "algorithm", "copied_percent": 5, "bound": 0.01}
    assert not [path for path in float_leaves(found) if path.startswith("task.")]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"bins": (2, 8)}, r"bins = \[2, 8\]: operation multiply needs at least 3, so 2 is too short"),
    ({"operation": "bcd_multiply", "bins": (8, 17)}, "needs at least 9, so 8 is too short"),
    ({"bins": (8, 8, 12)}, r"bins = \[8, 8, 12\] must be different lengths"),
    ({"bins": (11, 12)}, "no length above 11 up to 12: leave 12 out, or make it 13"),
    ({"bins": (0,)}, "needs at least 3, so 0 is too short"),
    ({"test_length": 0}, "test_length = 0: operation multiply needs at least 3"),
    ({"curve_lengths": (2, 9)}, r"curve_lengths = \[2, 9\]: operation multiply needs at least 3, so 2 is too short"),
    ({"curve_lengths": (9, 9)}, "curve_lengths = .* must be different"),
    ({"base": 1}, "base = 1 must be from 2 to 100"),
    ({"base": 101}, "base = 101 must be from 2 to 100"),
    ({"operation": "sort", "symbols": 2}, "symbols = 2 must be from 3 to 100"),
    ({"operation": "sort", "symbols": 101}, "symbols = 101 must be from 3 to 100"),
    ({"bins": (8,)}, "test_rows = 1024 different examples are requested, but lengths 3 to 7 of multiply have 84"),
    ({"test_rows": 5}, "test_rows = 5 must be at least 20: one for each length"),
    ({"test_length": 5}, "extrapolation_rows = 32 different examples of test_length = 5 .* has 16 for tests"),
    ({"examples_per_length": 0}, "examples_per_length = 0 must be at least 1"),
    ({"copied_percent": -1}, "copied_percent = -1 must be at least 0"),
    ({"extrapolation_rows": 0}, "extrapolation_rows = 0 must be at least 1"),
    ({"curve_rows": (16, 1024)}, "curve_rows = .* the second no more than the first"),
    ({"bound": 0.0}, r"bound = 0.0 must lie in \(0, 1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), FAULTS)
def test_impossible_settings_of_an_operation_are_reported_before_training(config, message) -> None:
    with pytest.raises(ValueError, match=message):
        Algorithm.Config(**config)


def test_a_sweep_file_gives_lists_and_its_faults_are_reported() -> None:
    plain, faults = section(Algorithm.Config, {"bins": [12, 8], "curve_lengths": [], "test_rows": 64}, "task", None)
    assert not faults and plain is not None
    assert validated(Algorithm.Config, plain).bins == (12, 8)
    assert Algorithm(validated(Algorithm.Config, plain)).bins == (8, 12)
    _, faults = section(Algorithm.Config, {"bins": [1], "operation": "add"}, "task", None)
    assert [str(f) for f in faults] == ["task.bins: bins = [1]: operation add needs at least 3, so 1 is too short"]


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match="bins = ") as error:
        Algorithm.Config(bins=(1,), test_length=1, bound=7.0)
    assert [fault.partition(" = ")[0] for fault in error.value.args] == ["bins", "test_length", "bound"]
    with pytest.raises(ValueError, match="2 is too short") as error:
        Algorithm.Config(base=101, bins=(2, 8), test_length=0)
    assert [fault.partition(" = ")[0] for fault in error.value.args] == ["base", "bins", "test_length"]


def test_a_length_that_the_operation_does_not_have_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="operation multiply needs at least 3 positions, not 2"):
        task().curve_inputs(2)


def test_a_test_within_the_training_lengths_leaves_the_training_examples_out() -> None:
    """Length 9 has 256 examples: with 200 trained on, 56 are left."""
    config = {"bins": (8, 12), "examples_per_length": 200, "test_rows": 100, "test_length": 9}
    assert len(task(**config, extrapolation_rows=56).evaluation_inputs("extrapolation")[0]) == 56
    with pytest.raises(ValueError, match="has 56 for tests there"):
        task(**config, extrapolation_rows=57)
