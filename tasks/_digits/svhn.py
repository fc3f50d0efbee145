"""SVHN, Street View House Numbers, cropped digits (Netzer et al. 2011): MATLAB 5 files of 32 x 32 colour pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks._digits import fetching
from tasks._digits.errors import DataError
from tasks._digits.images import DigitImages, Images, images, split

FILES = {
    "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
}
SOURCES = ("http://ufldl.stanford.edu/housenumbers",)
SIDE = 32
VALIDATION_SHARE = 5_000 / 73_257
"""Of the training pictures, the last, as published."""
AGAIN = "Remove it and fetch it again"


def fetch(folder: Path, sources: Sequence[str] = SOURCES) -> list[Path]:
    """The two files, 246 MB, checked. `sources`: base URLs or local folders. Raises DataError."""
    return fetching.fetch(FILES, folder, sources)


def read(folder: Path) -> DigitImages:
    """The data of a folder with both files: of the 73,257 training images the last 5,000 validate; 26,032 test.

    Pixels [N, 3, 32, 32]. A training or validation picture that stands byte for byte in a later part is left out. A smaller
    set in files of these names is split in the same way. Raises DataError. Checksums are compared when files are fetched,
    not here.
    """
    train, test = (_file(folder / name) for name in FILES)
    return split(train, test, str(folder), VALIDATION_SHARE, drop_copies=True)


def _file(path: Path) -> Images:
    if not path.is_file():
        raise DataError(
            f"no {path.name} in {path.parent.resolve()}. Put SVHN's two .mat files of cropped digits there, or have them "
            "fetched (246 MB): task.fetch=true"
        )
    found = _loaded(path)
    X, y = found.get("X"), found.get("y")
    if X is None or y is None:
        raise DataError(f"{path}: has {sorted(found)}, but X (pictures) and y (labels) are expected. {AGAIN}")
    if X.ndim != 4 or X.shape[:3] != (32, 32, 3) or X.dtype != np.uint8:
        raise DataError(f"{path}: X is {X.dtype} {X.shape}, but uint8 (32, 32, 3, N) is expected. {AGAIN}")
    labels = np.asarray(y).reshape(-1).astype(np.int64)
    if labels.size and not (labels.min() >= 0 and labels.max() <= 10):
        raise DataError(f"{path}: labels reach from {labels.min()} to {labels.max()}, not 1 to 10. {AGAIN}")
    labels[labels == 10] = 0  # the set's name for the digit 0
    return images(np.ascontiguousarray(X.transpose(3, 2, 0, 1)), labels, str(path))


def _loaded(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # here, because no other data need it

    try:
        found: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises many kinds for a file that is cut off or of another format
        raise DataError(
            f"{path}: cannot be read as a MATLAB 5 file ({type(error).__name__}: {error}). {AGAIN}"
        ) from error
    return {name: value for name, value in found.items() if not name.startswith("__")}
