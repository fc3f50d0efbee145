"""A lane's state as tensors: stacked with other lanes, taken out again, and written as bytes."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.training.lane import Curve
from sweeps.training.step import LaneState


def to_bytes(state: LaneState, curve: Curve, wall_time_s: float) -> bytes:
    """An exact checkpoint: weights, moments, step and curve. The step is the whole state of the random streams."""
    flat = {_name(path): leaf.contiguous().cpu() for path, leaf in pytree.tree_flatten_with_path(state)[0]}
    about = {"step": curve.step, "error": curve.error, "sparsity_error": curve.sparsity_error}
    about |= {"scores": curve.scores} if curve.scores else {}
    return save(flat, {"curve": json.dumps(about), "wall_time_s": repr(wall_time_s)})


def from_bytes(blob: bytes, like: LaneState) -> tuple[LaneState, Curve, float]:
    """The state, curve and wall time of a checkpoint. Raises ValueError where its tensors are not those of `like`."""
    tensors = load(blob)
    paths, spec = pytree.tree_flatten_with_path(like)
    names = [_name(path) for path, _ in paths]
    if sorted(names) != sorted(tensors):
        raise ValueError(f"a checkpoint holds {sorted(tensors)}, but this lane needs {sorted(names)}")
    state = pytree.tree_unflatten(
        [tensors[n].to(leaf.device) for n, (_, leaf) in zip(names, paths, strict=True)], spec
    )
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
    return state, Curve(**json.loads(header["curve"])), float(header["wall_time_s"])


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)


def stacked(states: list[LaneState]) -> LaneState:
    """Lanes side by side: every tensor gets a slot axis in front."""
    result: LaneState = pytree.tree_map(lambda *leaves: torch.stack(leaves), *states)
    return result


def slot_of(state: LaneState, slot: int) -> LaneState:
    """One lane of stacked lanes, copied."""
    result: LaneState = pytree.tree_map(lambda t: t[slot].clone(), state)
    return result


def put(state: LaneState, slot: int, lane: LaneState) -> None:
    """Writes a lane into a slot, in place."""

    def write(target: Tensor, value: Tensor) -> None:
        target[slot] = value

    pytree.tree_map(write, state, lane)
