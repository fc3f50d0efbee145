"""MNIST (LeCun, Cortes and Burges), or a smaller set in the same four files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks._digits import fetching
from tasks._digits.errors import DataError
from tasks._digits.idx import read_images, read_labels
from tasks._digits.images import DigitImages, Images, images, split

FILES = {
    "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
SOURCES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
SIZE = (28, 28)


def fetch(folder: Path, sources: Sequence[str] = SOURCES) -> list[Path]:
    """MNIST's four files, 11 MB, checked. `sources`: base URLs or local folders. Raises DataError."""
    return fetching.fetch(FILES, folder, sources)


def read(folder: Path) -> DigitImages:
    """The data of a folder with MNIST's four files, gzipped or not: first 55,000, last 5,000, and the 10,000 test images.

    A smaller set in files of these names is split in the same way: the last twelfth of its training file, rounded down,
    validates. Raises DataError for what is missing, cut off or not MNIST's format. Checksums are compared when files are
    fetched, not here.
    """
    return split(_file_pair(folder, "train"), _file_pair(folder, "t10k"), str(folder))


def _file_pair(folder: Path, prefix: str) -> Images:
    pixels = read_images(folder, f"{prefix}-images-idx3-ubyte")
    if pixels.shape[1:] != SIZE:
        raise DataError(
            f"{folder}: {prefix} images are {pixels.shape[1]} x {pixels.shape[2]}, but {SIZE[0]} x {SIZE[1]} is expected"
        )
    return images(pixels, read_labels(folder, f"{prefix}-labels-idx1-ubyte"), f"{folder}, {prefix} files")
