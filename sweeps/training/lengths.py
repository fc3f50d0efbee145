"""Errors of a trained lane at many lengths, one length at a time, since long ones take minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sweeps.settings import Built
from sweeps.training.lane import LaneResult
from sweeps.training.looped import LoopedEvaluation
from sweeps.training.step import LaneFunctions
from sweeps.training.tensors import tensors_of


def lengths_of(task: Any) -> tuple[int, ...]:
    """Lengths at which a task wants a finished lane to be measured; none for most."""
    return tuple(task.config.curve_lengths) if hasattr(task, "curve_inputs") else ()


class LengthCurve:
    """A lane that has ended, and its errors by length so far. Call `advance` until `result` is there."""

    def __init__(
        self, ended: LaneResult, built: Built, lane: dict[str, Any], zeros: frozenset[str],
        compiled: bool, device: torch.device,
    ) -> None:  # fmt: skip
        """`lane` has the lane's own `params`, `memory` and `floats`, with a slot axis of one."""
        self.ended, self._built, self._lane, self._device = ended, built, lane, device
        self._evaluation = LoopedEvaluation(LaneFunctions(built, zeros), compiled, inputs_shared=True)
        self._left = deque(lengths_of(built.task))
        self._found: dict[str, list[float]] = {}

    @property
    def result(self) -> LaneResult | None:
        """The lane's result with `by_length`, or None while lengths are left."""
        return None if self._left else replace(self.ended, by_length=self._found)

    def advance(self) -> None:
        """Measures the next length."""
        length = self._left.popleft()
        x = self._built.task.curve_inputs(length)
        target = self._built.task.truth(x, self.ended.seed)
        inputs, targets = tensors_of((x, target), self._device)
        targets = pytree.tree_map(lambda t: t.unsqueeze(0), targets)
        values = self._evaluation(
            self._lane["params"],
            self._lane["memory"],
            self._lane["floats"],
            {"at": inputs},
            {"at": targets},
            {},
        )
        row = {"length": length, "rows": len(x[0])} | {
            name.removesuffix(".at"): v.item() for name, v in values.items() if name != "sparsity_error"
        }
        for name, value in row.items():
            self._found.setdefault(name, []).append(value)
