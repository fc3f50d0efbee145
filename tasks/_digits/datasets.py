"""The data sets of digits: MNIST, SVHN and scikit-learn's, read from their files or fetched with checksums."""

from __future__ import annotations

import gzip
import logging
import math
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from numpy.typing import NDArray

from tasks._digits.images import DataError, DigitImages, Images, images, split

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]

TIMEOUT_S = 60
REMOVE_AND_FETCH = "Remove it and fetch it again"
FETCH_AGAIN = f"{REMOVE_AND_FETCH} (task.fetch=true)"

MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_SOURCES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
MNIST_SIZE = (28, 28)
IDX_UNSIGNED_BYTES = 8
"""The third byte of an IDX file, MNIST's format: a magic number, the sizes of the axes, one byte an entry. The fourth byte
is the number of axes."""

SVHN_FILES = {
    "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
}
SVHN_SOURCES = ("http://ufldl.stanford.edu/housenumbers",)
SVHN_SIDE = 32
SVHN_VALIDATION_SHARE = 5_000 / 73_257
"""Share of the training images that are the validation set: the last ones, as published."""

OPTICAL_SIZE = 28
OPTICAL_LARGEST = 16.0
OPTICAL_TEST_SHARE, OPTICAL_VALIDATION_SHARE = 1 / 5, 1 / 8


def fetch_mnist(folder: Path, sources: Sequence[str] = MNIST_SOURCES) -> list[Path]:
    """Download MNIST's four files, 11 MB, and return them. `sources`: base URLs or local folders. Raises DataError."""
    return fetch_files(MNIST_FILES, folder, sources)


def read_mnist(folder: Path) -> DigitImages:
    """Return the images of a folder with MNIST's four files, gzipped or not: 55,000 for training, 5,000 for validation, 10,000
    for testing.

    A smaller set in files of these names is split in the same way: the last twelfth of its training file, rounded down, is
    the validation set. Raises DataError for a file that is missing, cut off or not in MNIST's format. Checksums are compared
    when files are fetched, not here.
    """
    return split(_mnist_pair(folder, "train"), _mnist_pair(folder, "t10k"), str(folder))


def _mnist_pair(folder: Path, prefix: str) -> Images:
    pixels = _read_images(folder, f"{prefix}-images-idx3-ubyte")
    if pixels.shape[1:] != MNIST_SIZE:
        raise DataError(
            f"{folder}: {prefix} images are {pixels.shape[1]} x {pixels.shape[2]}, but {MNIST_SIZE[0]} x {MNIST_SIZE[1]} is "
            "expected"
        )
    return images(pixels, read_labels(folder, f"{prefix}-labels-idx1-ubyte"), f"{folder}, {prefix} files")


def _read_images(folder: Path, stem: str) -> Bytes:
    """Return [N, height, width] of `stem` or `stem`.gz in a folder. Raises DataError."""
    return read_idx(find_idx(folder, stem), axes=3)


def read_labels(folder: Path, stem: str) -> Bytes:
    """Return labels [N], each 0 to 9. Raises DataError."""
    path = find_idx(folder, stem)
    labels = read_idx(path, axes=1)
    if labels.size and labels.max() > 9:
        raise DataError(f"{path}: label {labels.max()} at place {labels.argmax()} is not a digit 0 to 9. {FETCH_AGAIN}")
    return labels


def find_idx(folder: Path, stem: str) -> Path:
    """Return the file, or else its gzipped form. Raises DataError if neither exists."""
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"no {stem}.gz (nor {stem} without .gz) in {folder.resolve()}. Put MNIST's four files there, or have them "
        "fetched: task.fetch=true"
    )


def read_idx(path: Path, axes: int) -> Bytes:
    """Return the entries of an IDX file. Raises DataError for another format or number of axes, or a file that is cut off."""
    content = _content(path)
    wanted = bytes((0, 0, IDX_UNSIGNED_BYTES, axes))
    head = 4 + 4 * axes
    if content[:4] != wanted[: len(content)]:
        what = "images" if axes == 3 else "labels"
        raise DataError(
            f"{path}: starts with {content[:4].hex()}, but an IDX file of {what} starts with {wanted.hex()}. "
            f"Is it another file, or compressed twice? {FETCH_AGAIN}"
        )
    if len(content) < head:
        raise DataError(f"{path}: cut off in its head, after {len(content)} of {head} bytes. {FETCH_AGAIN}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    expected = head + math.prod(shape)
    if len(content) != expected:
        fault = "cut off" if len(content) < expected else "too long"
        raise DataError(f"{path}: {fault}: shape {shape} needs {expected} bytes, but it has {len(content)}. {FETCH_AGAIN}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        fault = "cut off" if isinstance(error, EOFError) else "not a gzip file, or damaged"
        raise DataError(f"{path}: {fault} ({error}), {len(raw)} bytes. {FETCH_AGAIN}") from error


def fetch_svhn(folder: Path, sources: Sequence[str] = SVHN_SOURCES) -> list[Path]:
    """Download SVHN's two files, 246 MB, and return them. `sources`: base URLs or local folders. Raises DataError."""
    return fetch_files(SVHN_FILES, folder, sources)


def read_svhn(folder: Path) -> DigitImages:
    """Return the images of a folder with both files: the last 5,000 of 73,257 for validation, 26,032 for testing.

    Pixels [N, 3, 32, 32]. A training or validation image that is byte for byte in a later part is left out. A smaller
    set in files of these names is split in the same way. Raises DataError. Checksums are compared when files are fetched,
    not here.
    """
    train, test = (_svhn_part(folder / name) for name in SVHN_FILES)
    return split(train, test, str(folder), SVHN_VALIDATION_SHARE, drop_copies=True)


def _svhn_part(path: Path) -> Images:
    if not path.is_file():
        raise DataError(
            f"no {path.name} in {path.parent.resolve()}. Put SVHN's two .mat files of cropped digits there, or have them "
            "fetched (246 MB): task.fetch=true"
        )
    found = _read_matlab(path)
    X, y = found.get("X"), found.get("y")
    if X is None or y is None:
        raise DataError(f"{path}: has {sorted(found)}, but X (images) and y (labels) are expected. {REMOVE_AND_FETCH}")
    if X.ndim != 4 or X.shape[:3] != (32, 32, 3) or X.dtype != np.uint8:
        raise DataError(f"{path}: X is {X.dtype} {X.shape}, but uint8 (32, 32, 3, N) is expected. {REMOVE_AND_FETCH}")
    labels = np.asarray(y).reshape(-1).astype(np.int64)
    if labels.size and not (labels.min() >= 0 and labels.max() <= 10):
        raise DataError(f"{path}: labels reach from {labels.min()} to {labels.max()}, not 1 to 10. {REMOVE_AND_FETCH}")
    labels[labels == 10] = 0  # the label of the digit 0 in this set
    return images(np.ascontiguousarray(X.transpose(3, 2, 0, 1)), labels, str(path))


def _read_matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # imported here, because no other data set needs it

    try:
        found: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises many kinds for a file that is cut off or of another format
        raise DataError(
            f"{path}: cannot be read as a MATLAB 5 file ({type(error).__name__}: {error}). {REMOVE_AND_FETCH}"
        ) from error
    return {name: value for name, value in found.items() if not name.startswith("__")}


def read_optical(side: int = OPTICAL_SIZE, channels: int = 1) -> DigitImages:
    """Return the 1,797 digits that scikit-learn ships (Alpaydin and Kaynak 1998): real data without a download.

    The 8 x 8 images are enlarged to MNIST's size (bilinear) and rounded to 256 levels; several channels are equal.

    The last fifth (359) are the test set, the last eighth of the others (179) the validation set, 1,259 the training set: in
    the set's own order, which seems to be by writers, so that most writers are in one set only.
    """
    from sklearn.datasets import load_digits  # imported here, because it takes two seconds

    found = load_digits()
    small = torch.from_numpy(found.images / OPTICAL_LARGEST).unsqueeze(1)
    large = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    pixels = (255.0 * large).round().expand(-1, channels, -1, -1).numpy().astype(np.uint8)
    digits = images(pixels, found.target, "scikit-learn's digits")
    start = len(digits) - int(OPTICAL_TEST_SHARE * len(digits))
    training, test = digits.part(0, start), digits.part(start, len(digits))
    return split(training, test, "scikit-learn's digits", OPTICAL_VALIDATION_SHARE)


def fetch_files(files: Mapping[str, str], folder: Path, sources: Sequence[str]) -> list[Path]:
    """Download files into a folder, each from the first source that has it, and return them.

    `files` maps names to checksums such as "sha256:440f..." or "md5:e26d...". A source is a base URL (http, https or file) or
    a local folder. A file of the folder that has the right checksum is kept. Raises DataError, with the error of each source,
    for the first file that none of them has.
    """
    import pooch  # imported here, because only fetching needs it

    pooch.get_logger().setLevel("WARNING")
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_one(pooch, name, checksum, folder, sources) for name, checksum in files.items()]


def _fetch_one(pooch: Any, name: str, checksum: str, folder: Path, sources: Sequence[str]) -> Path:
    target, errors = folder / name, []
    for source in sources:
        url = _url(source, name)
        try:
            log.info("%s from %s", target, url)
            downloader = _copied if url.startswith("file:") else pooch.HTTPDownloader(timeout=TIMEOUT_S)
            pooch.retrieve(url, checksum, fname=name, path=folder, downloader=downloader)
            target.chmod(0o644)  # pooch makes it readable by its owner alone, and data folders are shared
            return target
        except (OSError, ValueError) as error:  # no such file, no network, or a wrong checksum: the next source
            errors.append(f"  {url}: {_reason(error)}")
    raise DataError(
        f"{target}: no source gave a file with checksum {checksum}:\n" + "\n".join(errors or ["  (no source given)"])
        + "\nPut the file there yourself, or name a mirror or a local folder as a source"
    )  # fmt: skip


def _url(source: str, name: str) -> str:
    base = source if "://" in source else Path(source).resolve().as_uri()
    return f"{base.rstrip('/')}/{name}"


def _copied(url: str, target: Any, _: Any) -> None:
    """The downloader that pooch calls for a local file."""
    shutil.copyfile(url2pathname(unquote(urlparse(url).path)), target)


def _reason(error: Exception) -> str:
    _, mismatch, found = str(error).partition("does not match the known hash")
    if mismatch:
        return f"wrong checksum, {found.rpartition('but got ')[2].split('.')[0]}: damaged, or another file"
    return f"{type(error).__name__}: {error}"
