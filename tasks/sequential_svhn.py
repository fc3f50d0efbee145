"""The sequential SVHN task.

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020): not in the paper, but in its published code, with ResNets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks._digits.datasets import SVHN_SIDE, fetch_svhn, read_optical, read_svhn
from tasks._digits.images import DigitImages
from tasks.base import Arrays
from tasks.sequential_digits import SequentialDigits


class SequentialSVHN(SequentialDigits):
    """Sums and products of the digits of house numbers, given as colour images, one after another.

    y_t = d_1 + ... + d_t, or d_1 * ... * d_t, where colour image t [3, 32, 32] shows the digit d_t in its middle.

    Two examples worked by hand, of images of 3, 4 and 2:
        operation sum: y = 3, 7, 9
        operation product: y = 3, 12, 24

    Otherwise as `sequential_digits`: sequences, splits, scores, threshold and deviations. Pixels are divided by 255, as
    published, and not normalised otherwise. Images are kept as bytes and converted to floats when they are used.

    Deviation: an image that is twice in the published files is in one part only (`read_svhn`).
    """

    version = 1
    num_inputs = 3 * SVHN_SIDE * SVHN_SIDE

    @dataclass(frozen=True, kw_only=True)
    class Config(SequentialDigits.Config):
        data: str = "optical"
        """a folder with SVHN's train_32x32.mat and test_32x32.mat; or `optical`, to try it without a download: the grey
        digits that scikit-learn ships, in three equal channels"""
        fetch: bool = False
        """download SVHN's files (246 MB) into the folder if they are missing, and check their checksums"""

        @staticmethod
        def read(data: str, fetch: bool) -> DigitImages:
            """Return the images that `data` names."""
            return _data(data, fetch)

    def shared(self) -> Arrays:
        """Return `images` uint8 [N, 3, 32, 32] and `labels` int64 [N]: training, validation and test images, in this order."""
        return _arrays(self.config.data, self.config.fetch)

    def present(self, x: Tensor, shared: Mapping[str, Tensor]) -> Tensor:
        """Return the images of these indices, float32 [..., 3, 32, 32] in [0, 1]."""
        return shared["images"][x].to(torch.float32) / 255.0


@lru_cache(maxsize=1)
def _data(source: str, fetch: bool) -> DigitImages:
    if source == "optical":
        return read_optical(SVHN_SIDE, channels=3)
    folder = Path(source).expanduser()
    if fetch:
        fetch_svhn(folder)
    return read_svhn(folder)


@lru_cache(maxsize=1)
def _arrays(source: str, fetch: bool) -> dict[str, NDArray[Any]]:
    data = _data(source, fetch)
    parts = (data.train, data.validation, data.test)
    return {
        "images": np.concatenate([part.pixels for part in parts]),
        "labels": np.concatenate([part.labels for part in parts]),
    }
