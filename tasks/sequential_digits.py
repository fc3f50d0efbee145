"""The sequential digits task.

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.2 and appendix "Sequential MNIST".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks._digits.datasets import fetch_mnist, read_mnist, read_optical
from tasks._digits.images import DataError, DigitImages
from tasks.base import Arrays, Stream, Task

Indices = NDArray[np.int64]
SIDE = 28
EVALUATION_SEEDS = {"train": 62379872, "validation": 47430696, "test": 88253339}  # published


class SequentialDigits(Task):
    """Sums and products of digits that are seen as images, one after another.

    y_t = d_1 + ... + d_t, or d_1 * ... * d_t, where image t shows the digit d_t.

    Two examples worked by hand, of images of 3, 4 and 2:
        operation sum: y = 3, 7, 9
        operation product: y = 3, 12, 24

    The images of the allowed digits are permuted once by the seed and cut into sequences that have none in common; an
    epoch shows all sequences in an order of its own, drawn from the stream, and what is left of the last batch is not used.
    Splits: "interpolation" are validation images in sequences of the training length, which choose the best step;
    "length_1" and so on are test images; "extrapolation" is the longest of them, and decides what is solved. Which images
    form a sequence there is drawn from the published seeds. Train, validation and test have no image in common.

    Deviations: evaluation is on the sweep's grid of steps in place of every fifth epoch; `most_sequences` bounds its cost.
    The error is the mean over all time steps, as published. Scores: `accuracy` of the rounded values at all steps, and
    `last_accuracy` at the last.
    """

    version = 1
    network = "image_recurrent"
    splits: tuple[str, ...] = ("interpolation", "extrapolation")
    score_names = ("accuracy", "last_accuracy")
    num_inputs = SIDE * SIDE
    num_outputs = 1
    inputs_are_indices = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        operation: Literal["sum", "product"] = "sum"
        """of the digits so far (--operation cumsum, cumprod)"""
        data: str = "optical"
        """`optical`: the 1,797 digits that scikit-learn ships; or a folder with MNIST's four IDX files"""
        fetch: bool = False
        """bring MNIST's files into the folder, with their checksums; a file of such a name that is not MNIST's is replaced"""
        digits: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        """which digits are shown (--mnist-digits); the paper leaves 0 out of products"""
        length: int = 10
        """images in a training sequence (--interpolation-length); the paper has 2 for products"""
        test_lengths: tuple[int, ...] = (1, 10, 100)
        """--extrapolation-lengths; the paper has 1, 10, 100, 200 to 1000 for sums and 1 to 20 for products"""
        most_sequences: int = 1_000
        """sequences of a split that are evaluated, the first of them"""
        thresholds: tuple[float, ...] = ()
        """test errors below which a lane is solved, one a test length; from a reference sweep (docs/results.md)"""

        def __post_init__(self) -> None:
            faults = []
            if not self.digits or set(self.digits) - set(range(10)) or len(set(self.digits)) < len(self.digits):
                faults.append(f"digits = {list(self.digits)} must be different digits from 0 to 9")
            for name in ("length", "most_sequences"):
                if getattr(self, name) < 1:
                    faults.append(f"{name} = {getattr(self, name)} must be at least 1")
            if not self.test_lengths or min(self.test_lengths) < 1 or len(set(self.test_lengths)) < len(self.test_lengths):
                faults.append(f"test_lengths = {list(self.test_lengths)} must be different lengths of at least 1")
            if self.thresholds and len(self.thresholds) != len(self.test_lengths):
                faults.append(
                    f"thresholds = {list(self.thresholds)}: one for each of the {len(self.test_lengths)} test_lengths"
                )
            if faults:
                raise ValueError(*faults)
            _check_data(self)  # a file that is missing or broken, or too few images: before anything runs

        @staticmethod
        def read(data: str, fetch: bool) -> DigitImages:
            """The images that `data` names."""
            return _data(data, fetch)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.time_steps = config.length
        self.split_lengths = sorted(config.test_lengths)
        self.splits = ("interpolation", *(f"length_{n}" for n in self.split_lengths[:-1]), "extrapolation")

    @classmethod
    def identity(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with a digest of the images in place of their path."""
        rest = {name: value for name, value in settings.items() if name not in ("data", "fetch")}
        return {**rest, "pictures": _digest(cls.Config.read, settings["data"], settings["fetch"])}

    def shared(self) -> Arrays:
        """`images` float32 [N, 28, 28] and `labels` int64 [N]: training, validation and test images, in this order."""
        return _arrays(self.config.data, self.config.fetch)

    def instance(self, seed: int) -> dict[str, Indices]:
        """`sequences` int64 [N // T, T]: which training images form a sequence, by a permutation that the seed draws."""
        rng = np.random.RandomState(seed)
        labels = self.config.read(self.config.data, self.config.fetch).train.labels
        return {"sequences": sequences(labels, self.config.digits, self.config.length, rng)}

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """A training batch: images [T, B, 28, 28] and targets [B, T, 1], float32."""
        indices = data["sequences"]
        size = min(batch, len(indices))
        per_epoch = len(indices) // size
        epoch = torch.div(stream.step, per_epoch, rounding_mode="floor")
        order = torch.argsort(stream.at(epoch).uniform((len(indices),)))
        within = stream.step - epoch * per_epoch
        chosen = order[within * size + torch.arange(size, device=order.device)]
        indices_TB = indices[chosen].T
        digits_BT = data["labels"][indices_TB].T.to(torch.float32)
        return self.present(indices_TB, data), self._accumulated(digits_BT).unsqueeze(-1)

    def _accumulated(self, digits_BT: Tensor) -> Tensor:
        return digits_BT.cumsum(1) if self.config.operation == "sum" else digits_BT.cumprod(1)

    def present(self, x: Tensor, shared: Mapping[str, Tensor]) -> Tensor:
        """The images of these indices."""
        return shared["images"][x]

    def evaluation_inputs(self, split: str) -> Indices:
        """Indices of images, int64 [T, rows], equal for all seeds."""
        data = self.config.read(self.config.data, self.config.fetch)
        validates = split == "interpolation"
        part = data.validation if validates else data.test
        begin = len(data.train) + (0 if validates else len(data.validation))
        rng = np.random.RandomState(EVALUATION_SEEDS["validation" if validates else "test"])
        found = sequences(part.labels, self.config.digits, self._length(split), rng)
        return np.ascontiguousarray(found[: self.config.most_sequences].T + begin)

    def _length(self, split: str) -> int:
        if split == "interpolation":
            return self.config.length
        return self.split_lengths[-1] if split == "extrapolation" else int(split.removeprefix("length_"))

    def truth(self, indices_TR: Indices, seed: int) -> NDArray[np.float64]:
        """The exact targets [rows, T, 1] in float64, digit by digit: independent of `sample`."""
        labels = self.shared()["labels"]
        value = np.full(indices_TR.shape[1], 0.0 if self.config.operation == "sum" else 1.0)
        targets = []
        for indices in indices_TR:
            value = value + labels[indices] if self.config.operation == "sum" else value * labels[indices]
            targets.append(value)
        return np.stack(targets, axis=1)[:, :, np.newaxis]

    def loss(self, y_BTO: Tensor, target_BTO: Tensor) -> Tensor:
        """Mean squared error over all time steps; also the error that evaluation reports."""
        return (y_BTO - target_BTO).square().mean()

    def scores(self, split: str, y_BTO: Tensor, target_BTO: Tensor) -> dict[str, Tensor]:
        right = (y_BTO.round() == target_BTO).to(torch.float32)
        return {"accuracy": right.mean(), "last_accuracy": right[:, -1].mean()}

    def has_threshold(self) -> bool:
        return bool(self.config.thresholds)

    def threshold(self) -> float | None:
        """That of the longest test length, where the file gives thresholds; they come from runs, not from a formula.

        Published: mean + t(0.99, 8) sd / √k of the test errors of k runs with an exact accumulator
        (`accumulator: sum` or `product`), each at its best validation step.
        """
        if not self.config.thresholds:
            return None
        return self.config.thresholds[self.config.test_lengths.index(self.split_lengths[-1])]


def sequences(
    labels: NDArray[Any], allowed_digits: Collection[int], length: int, rng: np.random.RandomState
) -> NDArray[np.int64]:
    """Return indices of images, [N // length, length]: each image is used once at most, and is of an allowed digit.

    As Madsen and Johansen (ICLR 2020, appendix "Sequential MNIST") cut them: the allowed images are permuted once, by one
    draw from `rng`, and cut into consecutive sequences; what is left over is not used. Raises ValueError for impossible
    digits or lengths, DataError where there is not even one sequence.
    """
    wrong = sorted(set(allowed_digits) - set(range(10)))
    if wrong or not allowed_digits:
        raise ValueError(f"allowed_digits = {sorted(allowed_digits)} must be digits 0 to 9, at least one")
    if length < 1:
        raise ValueError(f"length = {length} must be at least 1")
    kept = np.flatnonzero(np.isin(labels, sorted(allowed_digits)))
    count = len(kept) // length
    if count == 0:
        raise DataError(
            f"a sequence of {length} needs as many images of the digits {sorted(allowed_digits)}, but there are "
            f"{len(kept)}. Allow more digits, shorten the sequences, or use a larger set"
        )
    result: NDArray[np.int64] = rng.permutation(kept)[: count * length].reshape(count, length).astype(np.int64)
    return result


def _check_data(config: SequentialDigits.Config) -> None:
    data = config.read(config.data, config.fetch)
    for part, lengths in (
        ("train", [config.length]),
        ("validation", [config.length]),
        ("test", config.test_lengths),
    ):
        labels = getattr(data, part).labels
        found = int(np.isin(labels, config.digits).sum())
        if max(lengths) > found:
            raise ValueError(
                f"a sequence of {max(lengths)} {part} pictures is asked for, but {config.data} has {found} of the digits "
                f"{list(config.digits)}: make it shorter, or name a folder with a larger set as `data`"
            )


@lru_cache(maxsize=2)
def _data(source: str, fetch: bool) -> DigitImages:
    if source == "optical":
        return read_optical()
    folder = Path(source).expanduser()
    if fetch:
        fetch_mnist(folder)
    return read_mnist(folder)


@lru_cache(maxsize=8)
def _digest(read: Callable[[str, bool], DigitImages], source: str, fetch: bool) -> str:
    data = read(source, fetch)
    found = hashlib.sha256()
    for part in (data.train, data.validation, data.test):
        found.update(np.ascontiguousarray(part.pixels).data)
        found.update(np.ascontiguousarray(part.labels).data)
    return found.hexdigest()


@lru_cache(maxsize=2)
def _arrays(source: str, fetch: bool) -> dict[str, NDArray[Any]]:
    data = _data(source, fetch)
    parts = (data.train, data.validation, data.test)
    return {
        "images": np.concatenate([part.normalised()[:, 0] for part in parts]),
        "labels": np.concatenate([part.labels for part in parts]),
    }
