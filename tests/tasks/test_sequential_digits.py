"""Sums and products of digits that are seen as pictures."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lanes import PLAIN, resolved, train

from sweeps.config.settings import build, lane_key
from sweeps.training.lane import Lane
from sweeps.training.random import Stream, seed_key
from tasks.sequential_digits import SequentialDigits

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
with_mnist = pytest.mark.skipif(
    not MNIST.is_dir(), reason="MNIST's files are downloaded, not shipped; the other tests use scikit-learn's digits"
)


def task(**settings: Any) -> SequentialDigits:
    return SequentialDigits(SequentialDigits.Config(**settings))


def instance(made: SequentialDigits, seed: int = 3) -> dict[str, torch.Tensor]:
    arrays = {**made.instance(seed), **made.shared()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize(("operation", "by_hand"), [("sum", [3.0, 7, 9]), ("product", [3.0, 12, 24])])
def test_the_examples_of_the_docstring(operation, by_hand) -> None:
    made = task(operation=operation)
    labels = made.shared()["labels"]
    places = np.array([[np.flatnonzero(labels == digit)[0]] for digit in (3, 4, 2)])
    assert made.truth(places, 0)[0, :, 0].tolist() == by_hand


@pytest.mark.parametrize("operation", ["sum", "product"])
def test_a_training_batch_has_the_targets_of_the_oracle_and_training_pictures_only(operation) -> None:
    made = task(operation=operation, length=3)
    data = instance(made)
    images, target = made.sample(Stream(seed_key(3, "batch"), 5), data, 16)
    assert images.shape == (3, 16, 28, 28) and target.shape == (16, 3, 1)
    pictures = {picture.tobytes(): place for place, picture in enumerate(made.shared()["images"])}
    places = np.array([[pictures[p.tobytes()] for p in row] for row in images.numpy()])
    assert places.max() < 1259, "the training pictures come first"
    np.testing.assert_array_equal(target.numpy(), made.truth(places, 3))


def test_an_epoch_shows_a_sequence_at_most_once_and_the_next_in_another_order() -> None:
    made = task(length=10)
    data = instance(made)
    whole = {tuple(row) for row in data["sequences"].tolist()}
    assert len(whole) == 125
    batches = 125 // 32
    epochs = []
    for epoch in range(2):
        seen = []
        for step in range(epoch * batches, (epoch + 1) * batches):
            with_places = {**data, "images": torch.arange(len(data["labels"]))}
            places_TB, _ = made.sample(Stream(seed_key(3, "batch"), step), with_places, 32)
            seen += [tuple(row) for row in places_TB.T.tolist()]
        assert len(set(seen)) == len(seen) == batches * 32 and set(seen) <= whole
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_no_picture_is_in_two_parts_and_another_seed_cuts_other_sequences() -> None:
    made = task(length=2, test_lengths=(1, 4))
    parts = [set(made.instance(0)["sequences"].flatten())]
    parts += [set(made.evaluation_inputs(split).flatten()) for split in ("interpolation", "extrapolation")]
    assert not parts[0] & parts[1] and not parts[1] & parts[2] and not parts[0] & parts[2]
    assert not np.array_equal(made.instance(0)["sequences"], made.instance(1)["sequences"])
    assert made.evaluation_inputs("length_1").shape == (1, 359) and made.evaluation_inputs("extrapolation").shape == (4, 89)


def test_only_the_digits_that_are_allowed_are_shown() -> None:
    made = task(digits=(1, 2, 3), length=2)
    labels = made.shared()["labels"]
    assert set(labels[made.instance(0)["sequences"]].flatten()) == {1, 2, 3}
    assert set(labels[made.evaluation_inputs("extrapolation")].flatten()) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"digits": (1, 12)}, r"digits = \[1, 12\] must be different digits from 0 to 9"),
        ({"length": 0}, "length = 0 must be at least 1"),
        ({"test_lengths": ()}, "test_lengths = \\[\\] must be different lengths"),
        ({"thresholds": (1.0,)}, "one for each of the 3 test_lengths"),
        ({"test_lengths": (400,)}, "a sequence of 400 test images is requested, but optical has 359"),
        ({"data": "/nowhere/mnist"}, "no train-images-idx3-ubyte.gz"),
    ],
)
def test_impossible_settings_are_reported(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        task(**settings)


def test_the_longest_test_length_decides_what_is_solved() -> None:
    assert task().threshold() is None
    assert task(test_lengths=(9, 2), thresholds=(5.0, 1.0)).threshold() == 5.0


@with_mnist
def test_a_lanes_key_depends_on_its_pictures_and_not_on_their_folder(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(MNIST, copy)
    keys = {
        name: lane_key(settings_with(data), 0, PLAIN)
        for name, data in (("there", str(MNIST)), ("copied", str(copy)), ("others", "optical"))
    }
    assert keys["there"] == keys["copied"] != keys["others"]


def settings_with(data: str) -> dict[str, Any]:
    task = {"name": "sequential_digits", "length": 2, "test_lengths": [1], "data": data}
    return resolved("nau", task, steps=10)


def trained(model: Any, steps: int, **settings: Any) -> list[Any]:
    given = {"name": "sequential_digits", "most_sequences": 50, **settings}
    found = resolved(model, given, steps=steps, batch=32, evaluate_every=steps // 2)
    return list(train([Lane(f"seed {seed}", found, seed) for seed in range(2)]).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings", "steps"),
    [
        ("nau", {"operation": "sum", "length": 3, "test_lengths": [1, 20]}, 78),  # two epochs
        ("nmu", {"operation": "product", "length": 2, "digits": list(range(1, 10)), "test_lengths": [1, 3]}, 68),
    ],
)
def test_a_few_epochs_on_real_digits_bring_the_error_down(model, settings, steps) -> None:
    for result in trained(model, steps, **settings):
        error = result.curve["error.interpolation"]
        assert len(error) == 3 and error[-1] < 0.5 * error[0], result.reason
        assert all(math.isfinite(e) for e in result.curve["error.extrapolation"])


@pytest.mark.slow
@with_mnist
def test_a_few_steps_on_mnists_own_files_bring_the_error_down() -> None:
    for operation, model in (("sum", "nau"), ("product", "nmu")):
        digits = list(range(operation == "product", 10))
        settings = {"operation": operation, "data": str(MNIST), "length": 2, "digits": digits, "test_lengths": [1, 3]}
        for result in trained(model, 60, **settings):
            error = result.curve["error.interpolation"]
            assert error[-1] < 0.5 * error[0], result.reason


def test_the_network_reads_pictures_and_accumulates_exactly_where_set() -> None:
    """h_t = h_{t-1} * l_t with l_t of the CNN, from 1; and its mean squared error is that of the digits it reads."""
    found = resolved(
        {"name": "nmu", "accumulator": "product"}, {"name": "sequential_digits", "operation": "product", "length": 2}, steps=10
    )
    from sweeps.training.step import Context

    model = build(found).model()
    with torch.no_grad():
        model.initialise(Stream(seed_key(0, "initialise")))
        images = torch.rand(3, 5, 28, 28, generator=torch.Generator().manual_seed(0))
        ctx = Context.of_evaluation(torch.device("cpu"))
        read = torch.stack([model.images(x.unsqueeze(1), ctx)[0][:, 0] for x in images], 1)
        y_BTO, penalties = model(images, ctx)
    torch.testing.assert_close(y_BTO[..., 0], read.cumprod(1))
    assert penalties == {}
