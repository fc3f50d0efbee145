"""The 1,797 handwritten digits that scikit-learn ships (Alpaydin and Kaynak 1998): real data without a download."""

from __future__ import annotations

import numpy as np
import torch

from tasks._digits.images import DigitImages, images, split

SIZE = 28
LARGEST = 16.0
TEST_SHARE, VALIDATION_SHARE = 1 / 5, 1 / 8


def read(side: int = SIZE, channels: int = 1) -> DigitImages:
    """8 x 8 pictures, made as large as MNIST's (bilinear), and rounded to 256 levels; several channels are equal.

    The last fifth (359) are the test, the last eighth of the others (179) validation, 1,259 training: in the set's own
    order, which seems to go by writers, so that most of them are in one part only.
    """
    from sklearn.datasets import load_digits  # here, because it takes two seconds to import

    found = load_digits()
    small = torch.from_numpy(found.images / LARGEST).unsqueeze(1)
    large = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    pixels = (255.0 * large).round().expand(-1, channels, -1, -1).numpy().astype(np.uint8)
    all_of_them = images(pixels, found.target, "scikit-learn's digits")
    start = len(all_of_them) - int(TEST_SHARE * len(all_of_them))
    training, test = all_of_them.part(0, start), all_of_them.part(start, len(all_of_them))
    return split(training, test, "scikit-learn's digits", VALIDATION_SHARE)
