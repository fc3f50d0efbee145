"""A definition in the engine itself: recorded, trained a few steps in packs, and, when asked, compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sweeps.checking.findings import Fault, raised
from sweeps.config.settings import build, resolve
from sweeps.training.lane import Lane
from sweeps.training.pack import LEAST_SLOTS, Pack

SMALL = {"batch": 8, "steps": 1_000_000, "evaluate_every": 1_000}
TASK = {"name": "static", "input_size": 10}
SEQUENCE = {"name": "recurrent", "input_size": 4, "length": 3, "extrapolation_length": 4}
SYMBOLS = {
    "name": "algorithm", "operation": "reverse", "bins": [8, 12], "examples_per_length": 50, "test_rows": 16,
    "test_length": 16, "extrapolation_rows": 4, "curve_lengths": [8],
}  # fmt: skip
STEPS, COMPILED_STEPS, MANY = 3, 20, 7

VALUES = "looks at a tensor's value (a branch, .item(), float(), a function of Python's math)"
LOOKS = (
    "all lanes run the same operations: torch.where, clamp or a product with a mask instead; a setting that is a float "
    "is a lane's own, and a tensor here"
)
TRANSLATIONS = (
    ("data-dependent control flow", VALUES, LOOKS),
    ("data dependent", VALUES, LOOKS),
    ("dynamic shape", "makes a tensor whose shape depends on values (a mask as index, nonzero, unique)", LOOKS),
    ("random operation", "draws from torch's own generator", "draw from the stream that is handed in"),
    ("inplace arithmetic", "writes into a tensor that all lanes share", "compute a new tensor instead"),
    ("randomness", "draws from torch's own generator", "draw from the stream that is handed in"),
    ("meta", "computes with a tensor that the constructor made; the engine builds a model without storage",
     "make it in forward, from the parameters and from x"),
    ("dead", "uses a tensor that another call has left behind", "keep nothing between calls"),
)  # fmt: skip


def translated(error: Exception, subject: Any) -> Fault:
    """The fault that an exception of vmap's or the recorder's stands for, in the words of our rules."""
    message = str(error)
    for sign, found, do in TRANSLATIONS:
        if sign in message:
            fault = raised(error, subject, do)
            return Fault(found, do, fault.place)
    return raised(error, subject, "let it run under torch.vmap: plain tensor operations, all of fixed shapes")


def settings_for(subject: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """Explicit settings of a small lane of the definition, and what speaks against them."""
    given: Mapping[str, Any]
    if subject.kind == "task":
        # A task on symbols is learnt by whole networks, not by units: its own network is the model.
        model = subject.cls.network if subject.cls.reads_symbols else "linear"
        task = {"name": subject.name, **subject.cls.small}
        given = {"model": model, "task": task, "train": SMALL}
    elif subject.kind == "network":  # one that reads symbols, and is a model of its own
        given = {"model": subject.name, "task": SYMBOLS, "train": SMALL}
    else:
        is_cell = subject.cls.is_cell
        given = {"model": subject.name, "task": SEQUENCE if is_cell else TASK, "train": SMALL}
    resolved, faults, _ = resolve(given)
    return resolved, [str(f) for f in faults]


def _filled(settings: dict[str, Any], seeds: range, slots: int, compiled: bool = False) -> tuple[Pack, Any]:
    pack = Pack([Lane(str(s), settings, s) for s in seeds], slots, build, compiled=compiled)
    return pack, pack.stepper()


def records(subject: Any) -> Iterator[Fault]:
    """The whole step and the evaluation, with a lane's floats as tensors, become plain tensor operations."""
    place = subject.sources.of_class()
    settings, faults = settings_for(subject)
    if settings is None:
        yield Fault("; ".join(faults), "let the defaults fit each other", place)
        return
    try:
        _filled(settings, range(LEAST_SLOTS), LEAST_SLOTS)
    except Exception as error:  # whatever the definition raises is what was found
        yield translated(error, subject)


def trains(subject: Any) -> Iterator[Fault]:
    """A few steps in packs of three: finite, and the same bits whoever the neighbours are, NaN included."""
    place = subject.sources.of_class()
    settings, _ = settings_for(subject)
    assert settings is not None  # `records` has passed
    usual = _trained(settings, range(LEAST_SLOTS))
    for name, value in usual.items():
        if not value.isfinite().all():
            yield Fault(f"after {STEPS} steps {name} is not finite", "look at what forward divides by", place)
    do = "compute with this lane's own tensors only"
    others = {"other neighbours": _trained(settings, range(0, 3 * MANY, MANY)),
              "a neighbour that is NaN": _trained(settings, range(LEAST_SLOTS), spoilt=1)}  # fmt: skip
    for what, changed in others.items():
        for name, value in usual.items():
            if not torch.equal(value[0], changed[name][0]):
                yield Fault(f"after {STEPS} steps {name} of a lane differs with {what}", do, place)


def _trained(settings: dict[str, Any], seeds: range, spoilt: int | None = None) -> dict[str, Tensor]:
    """The stacked parameters after a few steps; a lane that diverged is told by its parameters as NaN."""
    pack, step = _filled(settings, seeds, len(seeds))
    state = pack.tensors["state"]
    if spoilt is not None:
        for value in state["params"].values():
            value[spoilt] = torch.nan
    step(STEPS)
    failed = state["status"] != 0
    return {
        name: torch.where(failed.view(-1, *[1] * (v.dim() - 1)), torch.nan, v)
        for name, v in state["params"].items()
    }


def compiles(subject: Any) -> Iterator[Fault]:
    """Compiled, a lane has the same bits alone and among seven, and nearly those of the uncompiled step."""
    place = subject.sources.of_class()
    settings, _ = settings_for(subject)
    assert settings is not None  # `records` has passed
    alone, step = _filled(settings, range(1), LEAST_SLOTS, compiled=True)
    if alone.why_uncompiled is not None:
        yield Fault(
            f"it does not compile: {alone.why_uncompiled}", "use operations that torch.compile knows", place
        )
        return
    among, step_among = _filled(settings, range(MANY), MANY, compiled=True)
    step(STEPS)
    plain = _trained(settings, range(LEAST_SLOTS))
    for name, value in alone.tensors["state"]["params"].items():
        if not torch.allclose(value[0], plain[name][0], rtol=1e-3, atol=1e-4):
            found = f"after {STEPS} steps the compiled {name} is not what the uncompiled step gives"
            yield Fault(found, "look for a value that the recording kept from its first run", place)
    step(COMPILED_STEPS - STEPS)
    step_among(COMPILED_STEPS)
    for name, value in alone.tensors["state"]["params"].items():
        if not torch.equal(value[0], among.tensors["state"]["params"][name][0]):
            found = f"compiled, {name} of a lane alone and among {MANY} differ after {COMPILED_STEPS} steps"
            yield Fault(
                found,
                "reduce over a lane's own axes, in an order that does not depend on their layout",
                place,
            )
