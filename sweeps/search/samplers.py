"""The samplers by name, the options that a sweep file may give them, and what is wrong with its choice.

Any sampler of Optuna that needs no more than plain options has a name here; `grid` is enumerated by `cell.py`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from sweeps.config.registry import nearest
from sweeps.config.space import Dimension


@dataclass(frozen=True)
class Sampler:
    make: Callable[..., BaseSampler]
    options: dict[str, type]
    defaults: dict[str, Any]
    conditional: bool = False
    """Copes with a parameter that some trials lack."""
    replay: bool = False
    """Keeps notes in the study between asks (a generation, a place in a sequence), so history is asked again, not added."""


_POPULATION = {
    "population_size": int,
    "mutation_prob": float,
    "crossover_prob": float,
    "swapping_prob": float,
}
_QUIET = {"warn_independent_sampling": False}
# Deprecated options are left out, and so are those that take Python objects: neither belongs into a sweep file.
SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler(
        optuna.samplers.TPESampler,
        {
            "n_startup_trials": int,
            "n_ei_candidates": int,
            "multivariate": bool,
            "group": bool,
            "constant_liar": bool,
        },
        {"multivariate": True, "group": True, "constant_liar": True},
        conditional=True,
    ),
    "random": Sampler(optuna.samplers.RandomSampler, {}, {}, conditional=True),
    "gp": Sampler(
        optuna.samplers.GPSampler, {"n_startup_trials": int, "deterministic_objective": bool}, _QUIET
    ),
    "qmc": Sampler(
        optuna.samplers.QMCSampler,
        {"qmc_type": str, "scramble": bool},
        {"scramble": True, "warn_asynchronous_seeding": False, **_QUIET},
        replay=True,
    ),
    "nsgaii": Sampler(optuna.samplers.NSGAIISampler, _POPULATION, {}, replay=True),
    "nsgaiii": Sampler(
        optuna.samplers.NSGAIIISampler, {**_POPULATION, "dividing_parameter": int}, {}, replay=True
    ),
    "cmaes": Sampler(
        optuna.samplers.CmaEsSampler,
        {
            "n_startup_trials": int,
            "sigma0": float,
            "popsize": int,
            "use_separable_cma": bool,
            "with_margin": bool,
            "lr_adapt": bool,
        },
        _QUIET,
        replay=True,
    ),
}
_GRID_OPTIONS: dict[str, type] = {"points": int}


def sampler_names() -> list[str]:
    """Names that `search.sampler` may have, in alphabetical order."""
    return sorted([*SAMPLERS, "grid"])


def check_sampler(
    name: str, options: Mapping[str, Any], space: Mapping[str, Dimension] | None = None
) -> list[str]:
    """Faults of a sampler's name and options, and with `space` of the two together; an empty list if there are none."""
    if name not in sampler_names():
        guess = nearest(name, sampler_names())
        hint = f" Did you mean {guess!r}?" if guess else ""
        return [f"no sampler named {name!r}.{hint} Known: {', '.join(sampler_names())}."]
    known = _GRID_OPTIONS if name == "grid" else SAMPLERS[name].options
    faults = [fault for key, value in options.items() if (fault := _option_fault(name, key, value, known))]
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        faults.append("sampler 'cmaes' needs the package cmaes, which is not installed: pip install cmaes.")
    if faults:
        return faults
    return _grid_faults(options, space or {}) if name == "grid" else _construction_faults(name, options)


def _option_fault(sampler: str, key: str, value: Any, known: Mapping[str, type]) -> str | None:
    if key not in known:
        guess = nearest(key, known)
        hint = f" Did you mean {guess!r}?" if guess else ""
        listed = ", ".join(known) if known else "none (seed apart)"
        return f"sampler {sampler!r} has no option {key!r}.{hint} Its options: {listed}."
    wanted = known[key]
    # bool is an int in Python, and a YAML `1` is a fine float: neither is what isinstance alone would say.
    right = isinstance(value, (int, float) if wanted is float else wanted)
    if not right or (isinstance(value, bool) and wanted is not bool):
        return f"option {key!r} of sampler {sampler!r} must be of type {wanted.__name__}, not {value!r}."
    if key == "n_startup_trials" and value < 0:
        return f"option 'n_startup_trials' of sampler {sampler!r} must be 0 or more, not {value}."
    return None


def _construction_faults(name: str, options: Mapping[str, Any]) -> list[str]:
    try:
        make_sampler(name, options, seed=0)
    except ValueError as error:  # such as a population of one; Optuna's own words are good
        return [f"sampler {name!r}: {error}"]
    return []


def _grid_faults(options: Mapping[str, Any], space: Mapping[str, Dimension]) -> list[str]:
    points = options.get("points")
    if points is not None and points < 2:
        return [f"option 'points' of sampler 'grid' must be 2 or more, not {points}."]
    if points is not None:
        return []
    return [
        f"sampler 'grid' cannot enumerate the range of {path}: give choices, or sampler: {{name: grid, points: 5}} "
        "for 5 values from each end to the other."
        for path, dimension in space.items()
        if dimension.kind != "choice"
    ]


def make_sampler(name: str, options: Mapping[str, Any], seed: int) -> BaseSampler:
    kind = SAMPLERS[name]
    merged = {**kind.defaults, **options}
    if name == "tpe" and options.get("multivariate") is False and "group" not in options:
        merged["group"] = False  # group needs multivariate; who switches the one off means both
    with warnings.catch_warnings():
        # `group`, `with_margin` and the GA samplers are marked experimental: their interface may change, and the
        # lock file pins it. Nothing else is silenced.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind.make(seed=seed, **merged)
