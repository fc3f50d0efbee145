"""Sums and products of house numbers' digits: from SVHN's files to trained lanes with a ResNet."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from lanes import PLAIN, assert_same, finish, resolved, train
from safetensors.torch import load

from arith_models.networks import image_recurrent
from arith_models.networks.image_recurrent import ImageRecurrent
from sweeps.checking.declaration import variants
from sweeps.config.settings import build, lane_key
from sweeps.training import trainers
from sweeps.training.lane import Lane, LaneResult
from sweeps.training.pack import Pack
from sweeps.training.random import Stream, seed_key
from tasks._digits.datasets import SVHN_FILES, fetch_svhn
from tasks.sequential_svhn import SequentialSVHN

TRAINING, TEST = 36, 6
NARROW, FEW = (4, 8), {"resnet18": (1, 1), "resnet34": (1, 2), "resnet50": (1, 1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small files of noise: 34 training, 2 validation and 6 test pictures, 0 written as 10."""
    for name, count, seed in zip(SVHN_FILES, (TRAINING, TEST), (1, 2), strict=True):
        X = np.random.RandomState(seed).randint(0, 256, (32, 32, 3, count)).astype(np.uint8)
        y = (np.arange(count) % 10 + 1).astype(np.uint8)[:, np.newaxis]
        scipy.io.savemat(tmp_path / name, {"X": X, "y": y})
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNets of two narrow widths with few blocks; programs of wider ones are forgotten."""
    monkeypatch.setattr(image_recurrent, "WIDTHS", NARROW)
    monkeypatch.setattr(image_recurrent, "BLOCKS", FEW)
    monkeypatch.setattr(trainers, "_STACKED_PROGRAMS", {})


def settings_of(folder: Path | str, model: Any = "nmu", length: int = 2, **task: Any) -> dict[str, Any]:
    given = {"name": "sequential_svhn", "operation": "product", "length": length, "test_lengths": [1, 3]}
    train = {"steps": 4, "batch": 8, "evaluate_every": 2}
    return resolved(model, {**given, "data": str(folder), **task}, **train)


def trained(settings: dict[str, Any], seeds: Any = range(3), compiled: bool = False) -> dict[int, LaneResult]:
    lanes = [Lane(f"seed {seed}", settings, seed) for seed in seeds]
    pack = Pack(lanes, len(lanes), build, compiled=compiled)
    results = {result.seed: result for result in finish(pack).values()}
    assert {result.outcome for result in results.values()} == {"unsolved"}, results
    assert compiled == (pack.why_uncompiled is None), pack.why_uncompiled
    return results


def test_a_batch_shows_the_files_pictures_with_the_oracles_targets(folder: Path) -> None:
    made = SequentialSVHN(SequentialSVHN.Config(data=str(folder), operation="product", length=2, test_lengths=(1, 3)))
    data = {n: torch.from_numpy(a) for n, a in {**made.instance(3), **made.shared()}.items()}
    images, target = made.sample(Stream(seed_key(3, "batch"), 5), data, 4)
    assert images.shape == (2, 4, 3, 32, 32) and images.dtype == torch.float32
    X = scipy.io.loadmat(folder / "train_32x32.mat")["X"]
    of_file = {X[..., i].transpose(2, 0, 1).tobytes(): i for i in range(TRAINING)}
    shown = (images * 255).round().to(torch.uint8).numpy()
    places = np.array([[of_file[picture.tobytes()] for picture in row] for row in shown])
    assert places.max() < 34, "the last two are for validation"
    np.testing.assert_array_equal(target.numpy(), made.truth(places, 3))
    assert float(images.max()) <= 1.0 and float(images.min()) >= 0.0


def test_no_picture_is_in_two_parts(folder: Path) -> None:
    made = SequentialSVHN(SequentialSVHN.Config(data=str(folder), length=2, test_lengths=(1, 3)))
    parts = [set(made.instance(0)["sequences"].flatten())]
    parts += [set(made.evaluation_inputs(split).flatten()) for split in ("interpolation", "length_1")]
    assert [len(part) for part in parts] == [34, 2, 6]
    pictures = made.shared()["images"]
    seen = [{pictures[place].tobytes() for place in part} for part in parts]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_missing_files_and_too_few_pictures_are_reported(folder: Path, tmp_path_factory: Any) -> None:
    def fault_of(data: Path, **settings: Any) -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            SequentialSVHN.Config(data=str(data), **{"length": 2, "test_lengths": (1,), **settings})
        return str(caught.value)

    empty = tmp_path_factory.mktemp("empty")
    assert f"no train_32x32.mat in {empty}. Put SVHN's two .mat files" in fault_of(empty)
    assert "a sequence of 9 test images is requested" in fault_of(folder, test_lengths=(9,))


def test_fetched_files_must_have_the_published_checksums(folder: Path, tmp_path_factory, monkeypatch) -> None:
    """Ours are not SVHN's own, so they are refused."""
    monkeypatch.setattr(fetch_svhn, "__defaults__", ([str(folder)],))
    with pytest.raises(ValueError, match=r"no source gave a file with checksum md5:e26dedcc.*\n.*wrong checksum"):
        SequentialSVHN.Config(data=str(tmp_path_factory.mktemp("to_be_filled")), fetch=True)


def test_a_lanes_key_depends_on_its_pictures_and_its_network(folder: Path, tmp_path_factory: Any) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(folder, copy)
    there, copied, optical = (lane_key(settings_of(data), 0, PLAIN) for data in (folder, copy, "optical"))
    assert there == copied != optical
    assert lane_key(settings_of(folder, {"name": "nmu", "images": "resnet18"}), 0, PLAIN) != there


@pytest.mark.usefixtures("small")
def test_three_lanes_with_a_resnet_train_and_remember(folder: Path) -> None:
    settings = settings_of(folder, {"name": "nmu", "images": "resnet18"}, length=1, test_lengths=[2])
    for result in trained(settings).values():
        assert result.curve["step"] == [0, 2, 4]
        assert all(math.isfinite(e) for e in result.curve["error.extrapolation"])
        state = load(result.state or b"")
        assert not torch.equal(state["memory.model.variance"], torch.ones_like(state["memory.model.variance"]))


@pytest.mark.slow
@pytest.mark.parametrize("variant", variants(ImageRecurrent), ids=lambda v: v.label.strip() or "defaults")
@pytest.mark.usefixtures("small")
def test_every_choice_of_the_network_trains_in_a_pack_and_keeps_to_its_lane(variant, folder: Path) -> None:
    """A lane among others in a larger pack has the same bits, running statistics included."""
    chosen = {name: getattr(variant.config, name) for name in ("images", "accumulator")}
    settings = settings_of(folder, {"name": "nmu", **chosen})
    results = trained(settings)
    assert all(math.isfinite(e) for r in results.values() for e in r.curve["error.extrapolation"])
    assert_same(trained(settings, [7, 8, 1, 9, 10])[1], results[1], rounding_of_evaluation=True)
    remembered = [name for name in load(results[1].state or b"") if "memory" in name]
    assert bool(remembered) == (variant.config.images != "cnn")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_looped_over_time_is_as_in_one_graph(folder: Path, monkeypatch) -> None:
    settings = settings_of(folder, {"name": "nmu", "images": "resnet18"}, length=2, digits=list(range(10)))
    unrolled = trained(settings)
    monkeypatch.setattr(trainers, "MOST_UNROLLED", 0)
    monkeypatch.setattr(trainers, "_STACKED_PROGRAMS", {})
    for seed, result in trained(settings).items():
        first, second = load(unrolled[seed].state or b""), load(result.state or b"")
        memory = [name for name in first if "memory" in name]
        assert memory
        for name in memory:
            torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_lane_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(folder: Path) -> None:
    settings = settings_of(folder, {"name": "nmu", "images": "resnet18"})
    whole = trained(settings)
    pack = Pack([Lane(f"seed {s}", settings, s) for s in range(3)], 3, build, compiled=False)
    assert pack.advance() == []
    lanes = [Lane(key, settings, int(key[-1]), checkpoint) for key, checkpoint in pack.checkpoints().items()]
    for result in train(lanes).values():
        assert_same(result, whole[result.seed], rounding_of_evaluation=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_compiled_step_is_as_uncompiled(folder: Path) -> None:
    """One time step: two would take twice as long to compile. SGD: Adam would step along rounding errors."""
    settings = settings_of(folder, {"name": "nmu", "images": "resnet18"}, length=1, test_lengths=[2])
    settings["train"] |= {"optimizer": "sgd", "lr": 1e-4}
    states = []
    for compiled in (True, False):
        pack = Pack([Lane(f"seed {s}", settings, s) for s in range(3)], 3, build, compiled=compiled)
        pack.stepper()(3)
        assert compiled == (pack.why_uncompiled is None), pack.why_uncompiled
        states.append({part: pack.tensors["state"][part] for part in ("params", "memory")})
    torch.testing.assert_close(states[0], states[1], rtol=1e-3, atol=1e-5)
