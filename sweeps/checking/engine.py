"""Rules that run a definition in the engine: it is recorded, trained a few steps in packs and, on request, compiled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sweeps.checking.declaration import Subject
from sweeps.checking.source import Fault, Sources, fault_of_exception
from sweeps.config.settings import build, resolve
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.trainers import LEAST_SLOTS

SMALL = {"batch": 8, "steps": 1_000_000, "evaluate_every": 1_000}
SMALL_TASKS: dict[str, dict[str, Any]] = {
    "static": {"input_size": 10},
    "recurrent": {"input_size": 4, "length": 3, "extrapolation_length": 4},
    "algorithm": {
        "operation": "reverse", "bins": [8, 12], "examples_per_length": 50, "test_rows": 16, "test_length": 16,
        "extrapolation_rows": 4, "curve_lengths": [8],
    },
}  # fmt: skip
"""Settings of a task with which checking a model takes little time; for other tasks `Task.small`."""
STEPS, COMPILED_STEPS, MANY = 3, 20, 7

VALUES = "reads a tensor's value (a branch, .item(), float(), a function of Python's math)"
NO_VALUES = (
    "use torch.where, clamp or a product with a mask instead: all lanes run the same operations; a float setting may differ "
    "between lanes, and is a tensor here"
)
TRANSLATIONS = (
    ("data-dependent control flow", VALUES, NO_VALUES),
    ("data dependent", VALUES, NO_VALUES),
    ("dynamic shape", "makes a tensor whose shape depends on values (a mask as index, nonzero, unique)", NO_VALUES),
    ("random operation", "draws from torch's own generator", "draw from the stream that is passed in"),
    ("inplace arithmetic", "writes into a tensor that all lanes share", "compute a new tensor instead"),
    ("randomness", "draws from torch's own generator", "draw from the stream that is passed in"),
    ("meta", "computes with a tensor that the constructor made; the engine builds a model without storage",
     "make it in forward, from the parameters and from x"),
    ("dead", "uses a tensor that another call has left behind", "keep nothing between calls"),
)  # fmt: skip


class EngineSubject(Subject, ABC):
    """A definition that can be trained: a model with a task, or a task with a model."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings of a small lane, as a sweep file would give them."""

    def resolved(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the explicit settings of a small lane, None where there are faults, and the faults."""
        found, faults, _ = resolve(self.settings())
        return found, [str(fault) for fault in faults]


def translated(error: BaseException, sources: Sources) -> Fault:
    """Return an exception of vmap or of the recording as a fault, in terms of these rules."""
    message = str(error)
    for part, found, do in TRANSLATIONS:
        if part in message:
            return Fault(found, do, fault_of_exception(error, sources).location)
    return fault_of_exception(error, sources, "let it run under torch.vmap: plain tensor operations, all of fixed shapes")


def _filled(settings: dict[str, Any], seeds: range, slots: int, compiled: bool = False) -> tuple[Pack, Any]:
    pack = Pack([Lane(str(s), settings, s) for s in seeds], slots, build, compiled=compiled)
    return pack, pack.stepper()


def records(subject: EngineSubject) -> Iterator[Fault]:
    """The whole step and the evaluation, with a lane's floats as tensors, become plain tensor operations."""
    location = subject.sources.of_class()
    settings, faults = subject.resolved()
    if settings is None:
        yield Fault("; ".join(faults), "let the defaults fit each other", location)
        return
    try:
        _filled(settings, range(LEAST_SLOTS), LEAST_SLOTS)
    except (Exception, SystemExit) as error:  # any exception of the definition is a fault
        yield translated(error, subject.sources)


def trains(subject: EngineSubject) -> Iterator[Fault]:
    """After a few steps in packs, parameters are finite and have the same bits with any neighbours, NaN included."""
    location = subject.sources.of_class()
    settings, _ = subject.resolved()
    assert settings is not None  # `records` has passed
    # Lanes whose batches differ in length have a pack each: a second run takes the neighbours' place.
    apart = build(settings).network.lanes_apart
    seeds = range(1 if apart else LEAST_SLOTS)
    usual = _trained(settings, seeds)
    for name, value in usual.items():
        if not value.isfinite().all():
            yield Fault(f"after {STEPS} steps {name} is not finite", "check the divisions in forward", location)
    do = "compute with this lane's own tensors only"
    if apart:
        others = {"a second run": _trained(settings, seeds)}
    else:
        others = {
            "other neighbours": _trained(settings, range(0, LEAST_SLOTS * MANY, MANY)),
            "a neighbour that is NaN": _trained(settings, seeds, spoilt=1),
        }
    for what, changed in others.items():
        for name, value in usual.items():
            if not torch.equal(value[0], changed[name][0]):
                yield Fault(f"after {STEPS} steps {name} of a lane differs with {what}", do, location)


def _trained(settings: dict[str, Any], seeds: range, spoilt: int | None = None) -> dict[str, Tensor]:
    """Return the stacked parameters after a few steps; those of a lane that diverged are NaN."""
    pack, step = _filled(settings, seeds, len(seeds))
    state = pack.tensors["state"]
    if spoilt is not None:
        for value in state["params"].values():
            value[spoilt] = torch.nan
    step(STEPS)
    failed = state["status"] != 0
    return {name: torch.where(failed.view(-1, *[1] * (v.dim() - 1)), torch.nan, v) for name, v in state["params"].items()}


def compiles(subject: EngineSubject) -> Iterator[Fault]:
    """Compiled, a lane has the same bits alone and in a pack of seven, and nearly the values of the uncompiled step."""
    location = subject.sources.of_class()
    settings, _ = subject.resolved()
    assert settings is not None  # `records` has passed
    alone, step = _filled(settings, range(1), LEAST_SLOTS, compiled=True)
    if alone.why_uncompiled is not None:
        found = f"it does not compile: {alone.why_uncompiled}"
        yield Fault(found, "use operations that torch.compile supports", location)
        return
    among, step_among = _filled(settings, range(MANY), MANY, compiled=True)
    step(STEPS)
    plain = _trained(settings, range(LEAST_SLOTS))
    for name, value in alone.tensors["state"]["params"].items():
        if not torch.allclose(value[0], plain[name][0], rtol=1e-3, atol=1e-4):
            found = f"after {STEPS} steps the compiled {name} differs from that of the uncompiled step"
            yield Fault(found, "search for a value that the recording kept from its first run", location)
    step(COMPILED_STEPS - STEPS)
    step_among(COMPILED_STEPS)
    for name, value in alone.tensors["state"]["params"].items():
        if not torch.equal(value[0], among.tensors["state"]["params"][name][0]):
            found = f"compiled, {name} of a lane alone and among {MANY} differ after {COMPILED_STEPS} steps"
            yield Fault(found, "reduce over a lane's own axes, in an order that does not depend on their layout", location)
