"""Packs as plain data: what a worker is sent, what it sends back, and how large packs are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps import catalog
from sweeps.records import Checkpoint, Record
from sweeps.space import Dimension
from sweeps.spec import Sweep
from sweeps.training import LEAST_SLOTS, float_leaves

MOST_SLOTS = 100  # beyond about this many the stacked batch leaves a processor's cache


@dataclass(frozen=True)
class LaneOrder:
    """One lane to train: settings as an index into the pack's list, its seed, its key, and where to go on from."""

    settings: dict[str, Any]
    seed: int
    key: str
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class PackOrder:
    """What a worker is sent."""

    pack_id: str
    lanes: list[LaneOrder]
    slots: int
    zeros: frozenset[str]
    device: str = "cpu"
    checkpoint_s: float = 5.0


@dataclass(frozen=True)
class PackResult:
    """What a worker sends now and then: lanes that have ended, checkpoints of the others, seed-steps since the last."""

    records: list[Record] = field(default_factory=list)
    checkpoints: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    seed_steps: int = 0
    why_uncompiled: str | None = None


def lane_order(settings: dict[str, Any], seed: int, key: str, checkpoint: Checkpoint | None) -> LaneOrder:
    return LaneOrder(settings, seed, key, checkpoint.blob if checkpoint is not None else None)


def slots_for(sweep: Sweep, limits: Sequence[int], num_workers: int, most_slots: int = MOST_SLOTS) -> int:
    """Slots of every pack of a sweep: fixed, since each number of slots is a compilation. It never changes results.

    `auto`: what is in flight, spread over the workers, in whole configurations, between 3 and `most_slots`, which is less
    where a lane of a network fills a processor by itself.
    """
    if sweep.resources.slots != "auto":
        return sweep.resources.slots
    seeds = len(sweep.seeds)
    parallel = sweep.search.parallel if sweep.search else 1
    waves = [min(parallel, limit) * seeds for limit in limits]
    slots = min(most_slots, max(waves), math.ceil(sum(waves) / max(1, num_workers)))
    if slots > seeds:
        slots -= slots % seeds
    return max(min(LEAST_SLOTS, most_slots), slots)


def most_slots(bases: Sequence[Mapping[str, Any]]) -> int:
    """The most slots that `auto` gives the lanes of these settings: what the tightest of their networks says."""
    networks = {str(base["model"]["network"]) for base in bases}
    classes = [catalog.find("network", name) for name in networks]
    return min(1 if hasattr(c, "lanes_apart") else getattr(c, "most_slots", MOST_SLOTS) for c in classes)


def never_nonzero(
    bases: Sequence[Mapping[str, Any]], spaces: Sequence[Mapping[str, Dimension]]
) -> frozenset[str]:
    """Float settings that are 0 in every lane that a sweep can have: their terms leave the compiled step."""
    searched = {path.rsplit(".", 1)[-1] for space in spaces for path in space}
    leaves = [float_leaves(base) for base in bases]
    paths = {path for found in leaves for path in found}
    return frozenset(
        path
        for path in paths
        if all(found.get(path, 0.0) == 0.0 for found in leaves) and not searched & set(path.split("."))
    )
