"""What the benchmarks of the engine share: a compiled pack, a plain PyTorch training loop, and the time of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sweeps.config.settings import build, float_leaves, resolve
from sweeps.errors import UserError
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack

Steps = Callable[[int], None]
"""Trains a number of steps."""


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return explicit settings. Raises UserError with their faults."""
    explicit, faults, _ = resolve(settings)
    if explicit is None:
        raise UserError("; ".join(map(str, faults)))
    return explicit


def pack_of(num_lanes: int, settings: dict[str, Any], threads: int = 1, device: str = "cpu") -> Pack:
    """Return a compiled pack of so many seeds."""
    lanes = [Lane(str(seed), settings, seed) for seed in range(num_lanes)]
    zero_floats = frozenset(path for path, value in float_leaves(settings).items() if value == 0.0)
    return Pack(lanes, num_lanes, build, zero_floats, device, threads=threads)


def pack_steps(num_lanes: int, settings: dict[str, Any], threads: int = 1, device: str = "cpu") -> Steps:
    """Return the steps of a compiled pack, which draws its batches itself."""
    return pack_of(num_lanes, settings, threads, device).stepper()


def plain_steps(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    constrain: Callable[[], None] = lambda: None,
) -> Steps:
    """Return the steps of one seed in ordinary PyTorch. `loss(step)` draws a batch and returns its loss."""
    step = 0

    def run(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            optimizer.zero_grad()
            loss(step).backward()
            optimizer.step()
            constrain()
            step += 1

    return run


def seconds_per_step(run: Steps, steps: int) -> float:
    """Return the mean time of a step, on a GPU until it has been computed."""
    started = time.perf_counter()
    run(steps)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps
