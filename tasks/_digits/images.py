"""Images of digits with labels, and their split into training, validation and test parts that share none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's training images in [0, 1]; the published code normalises by them."""
VALIDATION_SHARE = 1 / 12
"""Share of the training images that validate, the last ones: 5,000 of MNIST's 60,000, as published."""


class DataError(ValueError):
    """Data that are missing, broken, or not enough. The message names the file, what is expected and what to do."""


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 [N, C, H, W] and `labels` int64 [N], each 0 to 9."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, rows: Any = slice(None)) -> NDArray[np.float32]:
        """float32 [N, C, H, W]: (pixel / 255 - 0.1307) / 0.3081. Of all images, or of these rows."""
        scaled = self.pixels[rows].astype(np.float32) / np.float32(255.0)
        result: NDArray[np.float32] = (scaled - np.float32(MEAN)) / np.float32(DEVIATION)
        return result

    def part(self, start: int, end: int) -> Images:
        return Images(self.pixels[start:end], self.labels[start:end])

    def digests(self) -> list[bytes]:
        """sha256 of each image: images are equal where these are."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.pixels]

    def without(self, *others: Images) -> Images:
        """The images that are in none of the others."""
        elsewhere = {digest for other in others for digest in other.digests()}
        kept = [place for place, digest in enumerate(self.digests()) if digest not in elsewhere]
        return self if len(kept) == len(self) else Images(self.pixels[kept], self.labels[kept])


@dataclass(frozen=True)
class DigitImages:
    """A data set, split. No image of one part is in another, byte for byte."""

    train: Images
    validation: Images
    test: Images


def images(pixels: NDArray[np.uint8], labels: NDArray[Any], source: str) -> Images:
    """`pixels` [N, H, W] or [N, C, H, W] with as many labels. Raises DataError, which names the source."""
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
    """The last of the training images, that share rounded down, are the validation images.

    `drop_copies`: an image that is in two parts stays in the test part, or else in the validation part.

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
                "pictures that were trained on says nothing: remove the copies"
            )
        seen |= dict.fromkeys(own, name)
