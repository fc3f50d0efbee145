"""Images of digits with labels, and their split into training, validation and test parts that share none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, DEVIATION = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's training images in [0, 1], by which the published code normalises."""
VALIDATION_SHARE = 1 / 12
"""Share of the training images that are the validation set: the last ones, 5,000 of MNIST's 60,000, as published."""


class DataError(ValueError):
    """Data that are missing, broken or too few. The message contains the file, what is expected and what to do."""


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 [N, C, H, W] and `labels` int64 [N], each 0 to 9."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, rows: Any = slice(None)) -> NDArray[np.float32]:
        """Return (pixel / 255 - 0.1307) / 0.3081 of all images, or of these rows, float32 [N, C, H, W]."""
        scaled = self.pixels[rows].astype(np.float32) / np.float32(255.0)
        result: NDArray[np.float32] = (scaled - np.float32(MEAN)) / np.float32(DEVIATION)
        return result

    def part(self, start: int, end: int) -> Images:
        return Images(self.pixels[start:end], self.labels[start:end])

    def digests(self) -> list[bytes]:
        """Return the sha256 of each image."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.pixels]

    def without(self, *others: Images) -> Images:
        """Return the images that are in none of the others."""
        elsewhere = {digest for other in others for digest in other.digests()}
        kept = [i for i, digest in enumerate(self.digests()) if digest not in elsewhere]
        return self if len(kept) == len(self) else Images(self.pixels[kept], self.labels[kept])


@dataclass(frozen=True)
class DigitImages:
    """A data set, split. No image of one part is in another, byte for byte."""

    train: Images
    validation: Images
    test: Images


def images(pixels: NDArray[np.uint8], labels: NDArray[Any], source: str) -> Images:
    """Return images of `pixels` [N, H, W] or [N, C, H, W]. Raises DataError, with the source, for another number of labels."""
    if len(pixels) != len(labels):
        raise DataError(
            f"{source}: {len(pixels)} images, but {len(labels)} labels. Are they of different sets? Fetch both again"
        )
    with_channel = pixels[:, np.newaxis] if pixels.ndim == 3 else pixels
    return Images(with_channel, labels.astype(np.int64))


def split(
    training: Images,
    test: Images,
    source: str,
    share: float = VALIDATION_SHARE,
    drop_copies: bool = False,
) -> DigitImages:
    """Split data into training, validation and test images; the last `share` of the training images is for validation.

    With `drop_copies` an image that is in two parts stays in the test part, or else in the validation part.

    Raises DataError for a part that is empty, images of two sizes, and an image that is in two parts.
    """
    start = len(training) - int(share * len(training))
    train, validation = training.part(0, start), training.part(start, len(training))
    if drop_copies:
        train, validation = train.without(validation, test), validation.without(test)
    made = DigitImages(train, validation, test)
    parts = {"training": made.train, "validation": made.validation, "test": made.test}
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"{source}: no {name} images are left of {len(training)} training images")
    sizes = {part.pixels.shape[1:] for part in parts.values()}
    if len(sizes) > 1:
        raise DataError(f"{source}: images of two sizes, {' and '.join(map(str, sorted(sizes)))}")
    _refuse_shared(parts, source)
    return made


def _refuse_shared(parts: dict[str, Images], source: str) -> None:
    seen: dict[bytes, str] = {}  # by digest: the images themselves are hundreds of megabytes
    for name, part in parts.items():
        own = set(part.digests())
        shared = [other for digest in own if (other := seen.get(digest))]
        if shared:
            raise DataError(
                f"{source}: {len(shared)} {name} images are also {' or '.join(sorted(set(shared)))} images. A test on "
                "images that were trained on is meaningless: remove the copies"
            )
        seen |= dict.fromkeys(own, name)
