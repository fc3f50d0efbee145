"""The samplers: one entry for each, with everything in which it differs from the others.

Any sampler of Optuna that needs no more than plain options can have an entry in SAMPLERS.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from sweeps.config.faults import out_of_range, unknown
from sweeps.config.registry import nearest
from sweeps.config.space import Dimension

MAX_GRID = 100_000
"""Points of a grid at most."""


@dataclass(frozen=True)
class Option:
    """An option that a sweep file may give to a sampler."""

    type: type
    least: int | None = None
    """Smallest value; None: none, or checked by the sampler itself."""
    most: int | None = None
    """Largest value, where a larger one needs more memory or time than there is; None: none."""
    needs: str | None = None
    """A bool option without which this one, also a bool, is off by default."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a sampler is made, and how a search uses it."""

    make: Callable[..., BaseSampler] | None
    """Optuna's class. None: a grid, whose points are enumerated without Optuna."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Without deprecated ones, and without those that take Python objects, which a sweep file cannot hold."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make` that differ from Optuna's defaults."""
    package: str | None = None
    """A package that must be installed besides Optuna."""
    conditional: bool = False
    """Accepts trials that lack a parameter."""
    replay: bool = False
    """Keeps state in the study between suggestions (a generation), so history is suggested again instead of added."""
    most_integers: int | None = None
    """Largest range of whole numbers that it can search, where it makes a list of them; None: any."""
    quasi_random: bool = False
    """Suggests points of one fixed sequence: every suggestion uses the same seed, and none comes from a model."""

    @property
    def is_grid(self) -> bool:
        """Whether the points are enumerated, and so end."""
        return self.make is None


_STARTUP = Option(int, least=0)
_POPULATION = {
    "population_size": Option(int),
    "mutation_prob": Option(float),
    "crossover_prob": Option(float),
    "swapping_prob": Option(float),
}
_NO_WARNING = {"warn_independent_sampling": False}

SAMPLERS: dict[str, Sampler] = {
    "cmaes": Sampler(
        make=optuna.samplers.CmaEsSampler,
        options={
            "n_startup_trials": _STARTUP,
            "sigma0": Option(float),
            "popsize": Option(int),
            "use_separable_cma": Option(bool),
            "with_margin": Option(bool),
            "lr_adapt": Option(bool),
        },
        defaults=_NO_WARNING,
        package="cmaes",
        replay=True,
    ),
    "gp": Sampler(
        make=optuna.samplers.GPSampler,
        options={"n_startup_trials": _STARTUP, "deterministic_objective": Option(bool)},
        defaults=_NO_WARNING,
        most_integers=1_000_000,
    ),
    "grid": Sampler(make=None, options={"points": Option(int, least=2, most=MAX_GRID)}),
    "nsgaii": Sampler(make=optuna.samplers.NSGAIISampler, options=_POPULATION, replay=True),
    "nsgaiii": Sampler(
        make=optuna.samplers.NSGAIIISampler,
        options={**_POPULATION, "dividing_parameter": Option(int)},
        replay=True,
    ),
    "qmc": Sampler(
        make=optuna.samplers.QMCSampler,
        options={"qmc_type": Option(str), "scramble": Option(bool)},
        defaults={"scramble": True, "warn_asynchronous_seeding": False, **_NO_WARNING},
        replay=True,
        quasi_random=True,
    ),
    "random": Sampler(make=optuna.samplers.RandomSampler, conditional=True),
    "tpe": Sampler(
        make=optuna.samplers.TPESampler,
        options={
            "n_startup_trials": _STARTUP,
            "n_ei_candidates": Option(int, least=1, most=10_000),
            "multivariate": Option(bool),
            "group": Option(bool, needs="multivariate"),
            "constant_liar": Option(bool),
        },
        defaults={"multivariate": True, "group": True, "constant_liar": True},
        conditional=True,
    ),
}
"""Name in `search.sampler` -> sampler, in alphabetical order."""


def make_sampler(name: str, options: Mapping[str, Any], seed: int) -> BaseSampler:
    """Optuna's sampler with our defaults and these options. Raises ValueError for values that it refuses."""
    sampler = SAMPLERS[name]
    if sampler.make is None:
        raise ValueError(f"sampler {name!r} is not one of Optuna's")
    arguments = {**sampler.defaults, **options}
    for key, option in sampler.options.items():
        if option.needs is not None and options.get(option.needs) is False and key not in options:
            arguments[key] = False
    with warnings.catch_warnings():
        # `group`, `with_margin` and the genetic samplers are experimental: their interface may change, and the lock file
        # pins it. No other warning is suppressed.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return sampler.make(seed=seed, **arguments)


def check_sampler(name: str, options: Mapping[str, Any], space: Mapping[str, Dimension] | None = None) -> list[str]:
    """Faults of a sampler's name and options, and with `space` of the two together; an empty list if there are none."""
    if name not in SAMPLERS:
        return [unknown("sampler", name, SAMPLERS)]
    sampler = SAMPLERS[name]
    faults = [fault for key, value in options.items() if (fault := _option_fault(name, key, value))]
    if sampler.package is not None and importlib.util.find_spec(sampler.package) is None:
        package = sampler.package
        faults.append(f"sampler {name!r} needs the package {package}, which is not installed: pip install {package}.")
    if faults:
        return faults
    if sampler.is_grid:
        return list(_grid_faults(name, options.get("points"), space or {}))
    for path, dimension in (space or {}).items():
        listed = "integer" in dimension.kind and not (dimension.has_off and not sampler.conditional)
        count = int(dimension.high or 0) - int(dimension.low or 0) + 1 if listed else 0
        if sampler.most_integers is not None and count > sampler.most_integers:
            faults.append(
                f"sampler {name!r} cannot search {path}, a range of {count:,} whole numbers: {sampler.most_integers:,} are the "
                "most. Narrow the range, or take sampler tpe."
            )
    if faults:
        return faults
    try:
        make_sampler(name, options, seed=0)
    except ValueError as error:  # such as a population of one; Optuna's message says what is allowed
        return [f"sampler {name!r}: {error}"]
    return []


def _grid_faults(name: str, points: int | None, space: Mapping[str, Dimension]) -> Iterator[str]:
    """Faults of a grid over a space: ranges without points, or more points than can be tried."""
    for path, dimension in space.items():
        if points is None and dimension.kind != "choice":
            yield (
                f"sampler {name!r} cannot enumerate the range of {path}: give choices, or sampler: "
                f"{{name: {name}, points: 5}} for 5 values from one end to the other."
            )
    size = math.prod(len(d.choices) or (points or 1) + d.has_off for d in space.values())
    if size > MAX_GRID:
        yield f"sampler {name!r} has {size:,} points here; {MAX_GRID:,} is the most. Take fewer, or sampler random or qmc."


def _option_fault(name: str, key: str, value: Any) -> str | None:
    known = SAMPLERS[name].options
    if key not in known:
        guess = nearest(key, known)
        hint = f" Did you mean {guess!r}?" if guess else ""
        listed = ", ".join(known) if known else "none (seed apart)"
        return f"sampler {name!r} has no option {key!r}.{hint} Its options: {listed}."
    option = known[key]
    # isinstance alone is not enough: a bool is an int in Python, and 1 in YAML is allowed as a float.
    right = isinstance(value, (int, float) if option.type is float else option.type)
    if not right or (isinstance(value, bool) and option.type is not bool):
        return f"option {key!r} of sampler {name!r} must be of type {option.type.__name__}, not {value!r}."
    if option.least is not None and value < option.least:
        return f"option {key!r} of sampler {name!r} must be {option.least} or more, not {value}."
    if option.most is not None and value > option.most:
        return f"option {key!r} of sampler {name!r} must be {option.most} or less, not {value}."
    if option.type is not bool and option.type is not str and (reason := out_of_range(value, option.type is int)):
        return f"option {key!r} of sampler {name!r} {reason}."
    return None
