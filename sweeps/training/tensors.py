"""From what tasks give, NumPy's arrays, to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def tensors_of(arrays: Any, device: torch.device | None = None) -> Any:
    """float32 from arrays of numbers with a fraction; whole numbers stay what they are."""

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(device)

    return pytree.tree_map(tensor, arrays)
