"""A weight that grows (or shrinks) by a factor at fixed intervals until it reaches its end."""

from __future__ import annotations

from typing import Any

import torch


def grown(step: Any, start: Any, end: Any, factor: Any, every: Any) -> Any:
    """start * factor^floor(step / every), at most `end`; divided instead, and at least `end`, where start > end.

    All but the step may be numbers or a lane's own tensors. `start` and `end` are positive, `factor` is above 1.
    """
    power = factor ** torch.floor(step / every)
    rising = (start * power).clamp(max=end)
    falling = (start / power).clamp(min=end)
    return torch.where(torch.as_tensor(start <= end), rising, falling)
