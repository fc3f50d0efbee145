"""The size of packs on a GPU: from its multiprocessors, its memory and the bytes of a lane.

A lane is a thread block (`sweeps.training.cuda`). A multiprocessor has a few blocks at a time, and those of all of them are
a wave. A few waves keep a GPU busy: a prototype of the lane programs was as fast on an H200 with 8 waves as with many more.
More lanes only lose more with a worker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.utils import _pytree as pytree

from sweeps.errors import UserError
from sweeps.training.cuda import BLOCK, RESIDENT, SCRATCH_BYTES
from sweeps.training.lane import Lane
from sweeps.training.settings import Build
from sweeps.training.state import best_of, initial_state, tensors_of

WAVES = 8
"""Of a pack: while the last blocks of one are ending, those of the next are running."""
CONTEXT_BYTES = 2**30
"""What a process takes of a GPU's memory before its first tensor, and what is lost between tensors."""
COPIES = 3
"""Of evaluation data while a pack is set up: single tensors, stacked ones, and those that programs read."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as far as the size of packs depends on it."""

    name: str
    multiprocessors: int
    threads: int
    """Of a multiprocessor at most."""
    memory_bytes: int

    @classmethod
    def here(cls) -> Self:
        """Return the GPU that this process computes on, the first that it sees; torch must have found one."""
        found = torch.cuda.get_device_properties(0)
        return cls(found.name, found.multi_processor_count, found.max_threads_per_multi_processor, found.total_memory)

    @property
    def wave(self) -> int:
        """Lanes that run at the same time, where shared memory does not allow fewer."""
        return self.multiprocessors * max(1, min(RESIDENT, self.threads // BLOCK))

    def usable_bytes(self, share: float) -> int:
        """Return the memory for tensors of a process that has this share of the GPU."""
        whole = int(share * self.memory_bytes)
        return max(whole // 2, whole - CONTEXT_BYTES)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a pack on a device."""

    of_lane: int
    """Weights, moments and memory; the same at the best evaluation, without moments; the lane's own data. Of networks that
    repeat a cell also the inputs of an evaluation, which are laid out for every lane."""
    of_pack: int
    """Evaluation data that lanes share, and what programs need besides."""

    @classmethod
    def of(cls, lanes: Sequence[Lane], build: Build) -> Self:
        """Return what lanes of one structure take, as far as it is known before a step is compiled.

        Hidden values of networks that repeat a cell are not in it. Raises what `build` raises.
        """
        first = lanes[0]
        built, cpu = build(first.settings), torch.device("cpu")
        task, state = built.task, initial_state(built, first.seed, cpu)
        inputs = {split: task.evaluation_inputs(split) for split in task.splits}
        targets = tensors_of({split: task.truth(inputs[split], first.seed) for split in task.splits})
        own = tensors_of(task.instance(first.seed))
        of_inputs, of_targets = COPIES * _bytes(tensors_of(inputs)), COPIES * _bytes(targets)
        num_tasks = len({str(lane.settings["task"]) for lane in {id(lane.settings): lane for lane in lanes}.values()})
        of_lane = _bytes((state, best_of(state), own))
        of_pack = SCRATCH_BYTES + _bytes(tensors_of(task.shared())) + num_tasks * of_inputs
        if built.network.pieces:
            return cls(of_lane + of_inputs + of_targets, of_pack)
        return cls(of_lane + of_targets, of_pack) if own else cls(of_lane, of_pack + num_tasks * of_targets)


def most_lanes(gpu: Gpu, share: float, footprint: Footprint) -> int:
    """Return the most lanes of a pack of a worker that has this share of a GPU: a whole number of waves.

    It is `WAVES` waves of a whole GPU, and in proportion for a share; fewer where memory is short, and at least one lane.
    """
    in_memory = (gpu.usable_bytes(share) - footprint.of_pack) // max(1, footprint.of_lane)
    lanes = min(max(1, int(WAVES * share + 1e-6)) * gpu.wave, in_memory)
    return max(1, lanes - lanes % gpu.wave if lanes > gpu.wave else lanes)


def gpus_of_this_machine() -> int:
    """Return the number of this machine's GPUs. Raises UserError where there is none."""
    if not (gpus := torch.cuda.device_count()):
        raise UserError(
            f"the sweep's workers train on a GPU (`resources.gpus`), and torch {torch.__version__} finds none on this machine. "
            "If it has one: a torch that is built for CUDA, NVIDIA's driver, and CUDA_VISIBLE_DEVICES are needed. Else: "
            "`resources.gpus=0` trains on CPUs, `sweeps submit` on a cluster"
        )
    return gpus


def keep_to_share(share: float) -> None:
    """Limit this process to its share of the GPU's memory. What is above raises an error here, and not in a neighbour."""
    gpu = Gpu.here()
    torch.cuda.set_per_process_memory_fraction(gpu.usable_bytes(share) / gpu.memory_bytes)


def assigned_gpus() -> str:
    """Return the GPUs that this process sees by their numbers on its node, such as `1`; `all` where it is not limited."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def _bytes(tensors: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(tensors))
