"""The state of a lane as tensors: before its first step, stacked with other lanes, and as the bytes of a checkpoint."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.training.lane import Curve
from sweeps.training.optimizers import OPTIMIZERS, Params
from sweeps.training.random import Stream, seed_key
from sweeps.training.settings import Built

RUNNING, LOSS_NOT_FINITE, WEIGHT_NOT_FINITE, MOMENT_NOT_FINITE = 0, 1, 2, 3
NOT_FINITE = {
    LOSS_NOT_FINITE: "the loss",
    WEIGHT_NOT_FINITE: "an updated weight",
    MOMENT_NOT_FINITE: "the optimiser's second moment",
}
"""Status of a lane that diverged -> what was not finite."""

LaneState = dict[str, Any]
"""params {name: tensor}, moments {moment: {name: tensor}}, step int64, status int64 (one of the codes above),
last_error float32 (of the last evaluation, infinite before it), restarted_at int64 (step; 0 is never),
mean_loss float32 (running mean of a lane whose units draw discrete weights; not yet freed of its start at 0),
memory {owner: {name: tensor}} (from step to step besides weights; "model" is the network's, "lr" the learning rate's)."""


def initial_state(built: Built, seed: int, device: torch.device) -> LaneState:
    """Return a lane's state before its first step."""
    return {**state_without_weights(built, device), "params": initial_params(built, seed, device)}


def state_without_weights(built: Built, device: torch.device) -> LaneState:
    """Return a lane's state before its first step, with weights of 0: nothing is drawn."""
    model = built.model()
    params = {name: torch.zeros_like(p, device=device, requires_grad=False) for name, p in sorted(model.named_parameters())}
    moments = {
        moment: {name: torch.zeros_like(p) for name, p in params.items()}
        for moment in OPTIMIZERS[built.train.optimizer].moments
    }
    memory: dict[str, Params] = {}
    if of_model := model.initial_memory():
        memory["model"] = of_model
    if built.train.lr_decay.rule != "never":
        memory["lr"] = built.train.lr_decay.initial_memory()
    zero = torch.zeros((), dtype=torch.int64, device=device)
    return {
        "params": params, "moments": moments, "step": zero, "status": zero.clone(),
        "last_error": torch.full((), torch.inf, device=device), "restarted_at": zero.clone(),
        "mean_loss": torch.zeros((), device=device),
        "memory": pytree.tree_map(lambda t: t.to(device), memory),
    }  # fmt: skip


def initial_params(built: Built, seed: int, device: torch.device, purpose: str = "initialise") -> Params:
    """Return a lane's parameters, drawn from its seed and a purpose."""
    model = built.model().to(device)
    with torch.no_grad():
        model.initialise(Stream(seed_key(seed, purpose), device=device))
    return {name: p.detach().clone() for name, p in sorted(model.named_parameters())}


def tensors_of(arrays: Any, device: torch.device | None = None) -> Any:
    """Return NumPy arrays in nested containers as tensors, float64 as float32."""

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(device)

    return pytree.tree_map(tensor, arrays)


def stacked(states: list[LaneState]) -> LaneState:
    """Return lanes side by side: every tensor has a slot axis in front."""
    result: LaneState = pytree.tree_map(lambda *leaves: torch.stack(leaves), *states)
    return result


def rows_of(states: LaneState, which: npt.NDArray[np.int64]) -> LaneState:
    """Return a copy of some of the lanes that are side by side."""
    result: LaneState = pytree.tree_map(lambda t: t[torch.from_numpy(which).to(t.device)], states)
    return result


def put(state: LaneState, slot: int, lane: LaneState) -> None:
    """Write a lane into a slot, in place."""

    def write(target: Tensor, value: Tensor) -> None:
        target[slot] = value

    pytree.tree_map(write, state, lane)


BEST, CURVE, WALL_TIME, COLUMNS = "best", "curve", "wall_time_s", "columns"
"""In a checkpoint: prefix of the tensors of `best_of`, prefix of the curve's columns, the seconds of training, and the names of
the columns, in order."""


def best_of(state: LaneState) -> LaneState:
    """Return what is kept of a lane's state at its best evaluation: what an evaluation computes with."""
    return {"params": state["params"], "memory": state["memory"]}


def to_bytes(
    states: LaneState,
    curves: Mapping[str, npt.NDArray[Any]],
    wall_time_s: npt.NDArray[np.float64],
    best: LaneState | None = None,
) -> list[bytes]:
    """Return exact checkpoints of lanes side by side: weights, moments, step and curve, in the format of safetensors.

    The step is the whole state of the random streams. `curves` has the columns of `Curve.columns`, [lanes, evaluations].
    `best` is `best_of` the states at the best evaluations, where those are not the last ones. All lanes' bytes begin with
    the same header, and are written as rows of one array.
    """
    whole: dict[str, Any] = {**states, CURVE: {name: torch.from_numpy(column) for name, column in curves.items()}}
    whole |= {WALL_TIME: torch.from_numpy(wall_time_s)} | ({} if best is None else {BEST: best})
    flat = {_name(path): leaf.cpu().contiguous() for path, leaf in pytree.tree_flatten_with_path(whole)[0]}
    first = save({name: leaf[0].clone() for name, leaf in flat.items()}, {COLUMNS: json.dumps(list(curves))})
    header, start = _header(first)
    rows = np.empty((len(wall_time_s), len(first)), np.uint8)
    rows[:, :start] = np.frombuffer(first, np.uint8, start)
    for name, leaf in flat.items():
        begin, end = header[name]["data_offsets"]
        if begin < end:
            rows[:, start + begin : start + end] = leaf.reshape(len(leaf), -1).view(torch.uint8).numpy()
    return [row.tobytes() for row in rows]


def _header(blob: bytes) -> tuple[dict[str, Any], int]:
    """The names, types and places of the tensors, and where the first one begins."""
    start = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:start]), start


def from_bytes(blob: bytes, like: LaneState) -> tuple[LaneState, Curve, float, LaneState | None]:
    """Return state, curve, wall time, and the state at the best evaluation (None: it is the last one) of a checkpoint.

    Raises ValueError for bytes that `to_bytes` did not write, and where the tensors are not those of `like`. The format has
    numbers and text only: nothing in it is executed, whatever its origin.
    """
    try:
        tensors = load(blob)
        about = _header(blob)[0]["__metadata__"]
        if COLUMNS in about:
            wall_time_s = float(tensors.pop(WALL_TIME))
            curve = Curve.of_columns({name: tensors.pop(f"{CURVE}.{name}").tolist() for name in json.loads(about[COLUMNS])})
        else:  # written before curves were kept as tensors
            curve, wall_time_s = Curve(**json.loads(about["curve"])), float(about["wall_time_s"])
        if not all(isinstance(column, list) and len(column) == len(curve.step) for column in curve.columns().values()):
            raise ValueError("the columns of its curve differ in length")
        if not (math.isfinite(wall_time_s) and wall_time_s >= 0):
            raise ValueError(f"its seconds of training are {wall_time_s}")
        if any(after <= before for before, after in itertools.pairwise([-1, *curve.step])):
            raise ValueError("the steps of its curve do not increase")
    except (SafetensorError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"a checkpoint is damaged, or was not written by sweeps: {error}") from error
    if any(name.startswith(f"{BEST}.") for name in tensors):
        like = {**like, BEST: best_of(like)}
    paths, spec = pytree.tree_flatten_with_path(like)
    names = [_name(path) for path, _ in paths]
    if sorted(names) != sorted(tensors):
        raise ValueError(f"a checkpoint holds {sorted(tensors)}, but this lane needs {sorted(names)}")
    for name, (_, leaf) in zip(names, paths, strict=True):
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"a checkpoint holds {name} as {tensors[name].dtype} of {list(tensors[name].shape)}, "
                f"but this lane needs {leaf.dtype} of {list(leaf.shape)}"
            )
    state = pytree.tree_unflatten([tensors[n].to(leaf.device) for n, (_, leaf) in zip(names, paths, strict=True)], spec)
    best = state.pop(BEST, None)
    return state, curve, wall_time_s, best


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)
