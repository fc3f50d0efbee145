"""The compiled step and evaluation of a structure, kept in the process: the second pack costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sweeps.settings import Built
from sweeps.training.compiled import Recorded, in_place
from sweeps.training.lane_floats import structure
from sweeps.training.step import LaneFunctions


@dataclass(frozen=True)
class Programs:
    """`step(state, floats, keys, budget, instance)` in place; `evaluate(params, floats, inputs, targets)`."""

    step: Recorded
    evaluate: Recorded

    @property
    def why_uncompiled(self) -> str | None:
        return self.step.why_uncompiled or self.evaluate.why_uncompiled


STEP_ARGUMENTS = ("state", "floats", "keys", "budget", "instance")
_KEPT: dict[tuple[Any, ...], Programs] = {}


def programs_for(
    settings: dict[str, Any], built: Built, zeros: frozenset[str], tensors: dict[str, Any], compiled: bool
) -> Programs:
    """Programs for the stacked `tensors` of a pack: state, floats, keys, budget, instance, inputs, targets.

    Evaluation inputs that all lanes share have no slot axis ("inputs_shared").
    """
    shapes = tuple(tuple(t.shape) for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor))
    device = str(tensors["budget"].device)
    key = (structure(settings), zeros, shapes, tensors["inputs_shared"], device, compiled)
    if key not in _KEPT:
        functions = LaneFunctions(built, zeros)
        step = in_place(torch.vmap(functions.step))
        arguments = tuple(tensors[k] for k in STEP_ARGUMENTS)
        evaluate = partial(_evaluate, functions, None if tensors["inputs_shared"] else 0)
        seen = (tensors["state"]["params"], *(tensors[k] for k in ("floats", "inputs", "targets")))
        _KEPT[key] = Programs(Recorded(step, arguments, compiled), Recorded(evaluate, seen, compiled))
    return _KEPT[key]


def _evaluate(functions: LaneFunctions, inputs_axis: int | None, *arguments: Any) -> Any:
    return torch.vmap(functions.evaluate, in_dims=(0, 0, inputs_axis, 0))(*arguments)
