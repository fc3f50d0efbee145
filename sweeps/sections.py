"""The small sections of a sweep file: seeds, search, resources, budget, and those not built yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sweeps.faults import Faults, is_number, shown, unknown, whole
from sweeps.space import Dimension, Search, read_space, repeated

MAX_SEED = 2**32 - 1
"""The largest seed that NumPy's RandomState takes, which draws a seed's subset offset."""
MAX_SEEDS = 1_000_000
PARALLEL = 8
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a sweep may be called: safe as the name of a folder, an experiment, a job of Ray or Slurm, and in a shell."""
_NOT_BUILT = "is not built yet: take it out of the file"
_SAMPLER_KEYS = ("name", "seed")


@dataclass(frozen=True)
class Resources:
    """What ONE worker gets. Never changes results."""

    cpus: int = 1
    gpus: float = 0.0
    memory_gb: float | None = None
    slots: Literal["auto"] | int = "auto"
    """Lanes that a worker trains together; at least 3, since packs of 1 and 2 round differently."""
    checkpoint_s: float = 5.0
    """How often a worker sends checkpoints, and how much work is lost with it at most."""


@dataclass(frozen=True)
class Budget:
    """When to stop a sweep that is not done."""

    hours: float | None = None
    """Wall time of the driver, all its runs together."""


def read_seeds(value: Any, faults: Faults) -> tuple[int, ...]:
    """`{first: 0, count: 100}`, a count, or a list, as the seeds themselves."""
    if isinstance(value, list):
        seeds = [faults.take_integer(item, f"seeds.{i}", 0, MAX_SEED) for i, item in enumerate(value)]
        known = [seed for seed in seeds if seed is not None]
        if not value:
            faults.add("seeds", "is an empty list: give at least one seed, or a count")
        for again in repeated(known):
            faults.add("seeds", f"seed {again} is given twice")
        return tuple(known)
    if not isinstance(value, dict):
        if not is_number(value):
            faults.add("seeds", f"must be a count, a list, or {{first: 0, count: 100}}, not {shown(value)}")
            return ()
        return _seed_range(0, faults.take_integer(value, "seeds", 1, MAX_SEEDS))
    given = faults.take_mapping(value, "seeds", known=("first", "count")) or {}
    if "count" not in given:
        faults.add("seeds", "needs a `count`: how many seeds")
        return ()
    first = faults.take_integer(given.get("first", 0), "seeds.first", 0, MAX_SEED)
    count = faults.take_integer(given["count"], "seeds.count", 1, MAX_SEEDS)
    if first is not None and count is not None and first + count - 1 > MAX_SEED:
        faults.add("seeds", f"the last seed would be {first + count - 1}, above the largest, {MAX_SEED}")
    return _seed_range(first or 0, count)


def _seed_range(first: int, count: int | None) -> tuple[int, ...]:
    return tuple(range(first, first + count)) if count is not None else ()


RESOURCES_KEYS = ("cpus", "gpus", "memory_gb", "slots", "checkpoint_s")


def read_resources(value: Any, faults: Faults) -> Resources:
    """The `resources` section."""
    given = faults.take_mapping(value, "resources", known=RESOURCES_KEYS) or {}
    cpus = faults.take_integer(given.get("cpus", 1), "resources.cpus", 1)
    gpus = faults.take_number(given.get("gpus", 0), "resources.gpus", low=0)
    memory_gb = None
    if given.get("memory_gb") is not None:
        memory_gb = faults.take_number(given["memory_gb"], "resources.memory_gb", above=0)
    checkpoint_s = faults.take_number(given.get("checkpoint_s", 5.0), "resources.checkpoint_s", above=0)
    slots: Literal["auto"] | int = "auto"
    if given.get("slots", "auto") != "auto":
        number = whole(given["slots"])
        if number is None or number < 3:
            faults.add(
                "resources.slots",
                f"must be auto, or a whole number of at least 3, not {shown(given['slots'])}",
            )
        else:
            slots = number
    return Resources(cpus or 1, gpus or 0.0, memory_gb, slots, checkpoint_s or 5.0)


def read_budget(value: Any, faults: Faults) -> Budget:
    """The `budget` section."""
    given = faults.take_mapping(value, "budget", known=("hours", "cost_usd", "failures")) or {}
    for key in ("cost_usd", "failures"):
        if key in given:
            faults.add(f"budget.{key}", _NOT_BUILT)
    hours = given.get("hours")
    return Budget(None if hours is None else faults.take_number(hours, "budget.hours", above=0))


def refuse_unbuilt(document: Mapping[str, Any], faults: Faults) -> None:
    """Sections that nothing carries out yet; to skip them in silence would be another experiment."""
    for key in ("early_stopping", "confirm"):
        if document.get(key) is not None and faults.take_mapping(document[key], key) is not None:
            faults.add(key, _NOT_BUILT)


# ------------------------------------------------------------------------------------------- search

SEARCH_KEYS = ("sampler", "configurations", "parallel", "objective", "space", "order")


def read_search(value: Any, figures: set[str], faults: Faults) -> tuple[Search | None, dict[str, Dimension]]:
    """The `search` section and its whole space, before any cell has narrowed it.

    `figures` are what an objective `<figure>.median` may name, such as `error.extrapolation`. `configurations` is 0
    where a grid leaves it out, to be set from the size of the grid.
    """
    given = faults.take_mapping(value, "search", known=SEARCH_KEYS)
    if given is None:
        return None, {}
    if "order" in given:
        faults.add("search.order", _NOT_BUILT)
    sampler, seed, options = _read_sampler(given.get("sampler", "tpe"), faults)
    space: dict[str, Dimension] = {}
    if "space" in given:
        space = read_space(given["space"], "search.space", faults)
    else:
        faults.add(
            "search", "needs a `space`: the settings to search, such as train.lr: {log_uniform: [1e-4, 1e-1]}"
        )
    configurations = 0
    if given.get("configurations") is not None:
        configurations = faults.take_integer(given["configurations"], "search.configurations", 1) or 0
    elif sampler != "grid":
        faults.add(
            "search", "needs `configurations`: how many to try in every cell, the file's own values included"
        )
    parallel = faults.take_integer(given.get("parallel", PARALLEL), "search.parallel", 1)
    objective, direction = _read_objective(given.get("objective", "par2"), figures, faults)
    search = Search(
        sampler=sampler, sampler_options=options, seed=seed, configurations=configurations,
        parallel=parallel or PARALLEL, objective=objective, direction=direction,
    )  # fmt: skip
    return search, space


def _read_sampler(value: Any, faults: Faults) -> tuple[str, int, dict[str, Any]]:
    """(name, seed, options). Whether the options suit the sampler is checked later, with the space."""
    from sweeps.search import sampler_names  # here, because it loads optuna

    path = "search.sampler"
    given = {"name": value} if isinstance(value, str) else faults.take_mapping(value, path)
    if given is None:
        return "tpe", 0, {}
    name = given.get("name", "tpe")
    if name not in sampler_names():
        faults.add(
            "search.sampler.name" if "name" in given else path, unknown("sampler", str(name), sampler_names())
        )
        name = "tpe"
        given = {key: item for key, item in given.items() if key in _SAMPLER_KEYS}  # whose options are they?
    seed = faults.take_integer(given.get("seed", 0), "search.sampler.seed", 0, MAX_SEED)
    return name, seed or 0, {key: item for key, item in given.items() if key not in _SAMPLER_KEYS}


def _read_objective(
    value: Any, figures: set[str], faults: Faults
) -> tuple[str, Literal["minimize", "maximize"]]:
    from sweeps.summary import OBJECTIVES  # here, because it loads scipy

    path = "search.objective"
    known = [*OBJECTIVES, *(f"{figure}.median" for figure in sorted(figures))]
    if isinstance(value, dict) and len(value) == 1:
        name, direction = next(iter(value.items()))
    else:
        name, direction = value, "maximize" if value == "success_rate" else "minimize"
    if not isinstance(name, str):
        faults.add(
            path,
            "must be a name such as par2, or one name and direction such as {success_rate: maximize}, "
            f"not {shown(value)}",
        )
        return "par2", "minimize"
    if name not in known:
        faults.add(path, unknown("objective", name, known))
    elif not isinstance(value, dict) and name not in OBJECTIVES and not name.startswith("error."):
        faults.add(
            path, f"{name} is a score: say which is better, {{{name}: maximize}} or {{{name}: minimize}}"
        )
    if direction not in ("minimize", "maximize"):
        faults.add(f"{path}.{name}", unknown("direction", str(direction), ("minimize", "maximize")))
        direction = "minimize"
    return name, cast(Literal["minimize", "maximize"], direction)


def check_name(value: Any, faults: Faults) -> str:
    """A sweep's name: it becomes the name of folders, experiments and jobs."""
    if not isinstance(value, str) or not SWEEP_NAME.fullmatch(value):
        faults.add(
            "name",
            "must be 1 to 100 letters, digits, dots, dashes or underscores, a letter or digit first, "
            f"not {shown(value)}",
        )
    return str(value)
