"""The samplers: one entry for each of Optuna's, with everything in which it differs from the others.

Every sampler that Optuna ships has an entry in SAMPLERS, with all its options that a sweep file can hold; a test compares
the two. Any other sampler of Optuna's interface can have one. Options of the constructors that are left out:

    seed                        is given next to the name, and is the same for all
    constraints_func            the file's `search.constraints`
    search_space                of the grid: `search.space`
    warn_*                      off: what they warn of is documented here
    x0, source_trials           of cmaes: trials, which a file cannot hold, and a deprecated first point
    restart_strategy, inc_popsize                                     of cmaes: without effect since Optuna 4.4
    consider_prior, prior_weight, consider_magic_clip, consider_endpoints, gamma, weights     of tpe: deprecated
    *_strategy                  of the genetic samplers: functions
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, nsgaii

from sweeps.config.faults import Fault, is_number, join, out_of_range, shown, unknown
from sweeps.config.registry import nearest
from sweeps.config.space import Dimension, Search, points

MAX_GRID = 100_000
"""Points of a grid at most."""


@dataclass(frozen=True)
class Part:
    """A part of a sampler that a file gives by its name, or as `{name: ..., and its options}`, such as a crossover."""

    make: Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """An option that a sweep file may give to a sampler."""

    type: type
    """int, float, bool or str; dict: one of `parts`, or another sampler; list: rows of numbers."""
    least: int | None = None
    """Smallest value; None: none, or checked by the sampler itself."""
    most: int | None = None
    """Largest value, where a larger one needs more memory or time than there is; None: none."""
    needs: str | None = None
    """A bool option without which this one, also a bool, is off by default."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Name -> part, of which the option is one."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a sampler is made, and how a search uses it."""

    make: Callable[..., BaseSampler]
    """Optuna's class."""
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make` that differ from Optuna's defaults."""
    package: str | None = None
    """A package that must be installed besides Optuna."""
    is_grid: bool = False
    """Its points are enumerated here instead of by Optuna, since they do not depend on results. The search ends after them."""
    whole_ranges: bool = False
    """Enumerates every whole number of a range."""
    shuffled: bool = False
    """Its points come in an order drawn from the seed."""
    conditional: bool = False
    """Accepts trials that lack a parameter."""
    replay: bool = False
    """Keeps state in the study between suggestions (a generation), so history is suggested again instead of added."""
    most_integers: int | None = None
    """Largest range of whole numbers that it can search, where it makes a list of them; None: any."""
    quasi_random: bool = False
    """Suggests points of one fixed sequence: every suggestion uses the same seed, and none comes from a model."""
    several_objectives: bool = True
    """Can search for more than one."""
    constraints: bool = False
    """Takes constraints as such. The others get ranks in which they count already."""
    fixes: bool = False
    """Fixes some values of another sampler, its option `sampler`, whose entry counts for everything else; see `chosen`."""

    @property
    def learns(self) -> bool:
        """Whether suggestions depend on results."""
        return not (self.is_grid or self.quasi_random or self.make is optuna.samplers.RandomSampler)


_STARTUP = Option(int, least=0)
_ETA = Option(float, least=0)
_SBX = {"eta": _ETA, "uniform_crossover_prob": Option(float), "use_child_gene_prob": Option(float)}
_POPULATION = {
    "population_size": Option(int),
    "mutation": Option(dict, parts={"polynomial": Part(nsgaii.PolynomialMutation, {"eta": _ETA})}),
    "mutation_prob": Option(float),
    "crossover": Option(
        dict,
        parts={
            "blxalpha": Part(nsgaii.BLXAlphaCrossover, {"alpha": Option(float)}),
            "sbx": Part(nsgaii.SBXCrossover, _SBX),
            "spx": Part(nsgaii.SPXCrossover, {"epsilon": Option(float)}),
            "undx": Part(nsgaii.UNDXCrossover, {"sigma_xi": Option(float), "sigma_eta": Option(float)}),
            "uniform": Part(nsgaii.UniformCrossover, {"swapping_prob": Option(float)}),
            "vsbx": Part(nsgaii.VSBXCrossover, _SBX),
        },
    ),
    "crossover_prob": Option(float),
    "swapping_prob": Option(float),
}
_INDEPENDENT = {"independent_sampler": Option(dict)}
_NO_WARNING = {"warn_independent_sampling": False}

SAMPLERS: dict[str, Sampler] = {
    # Optuna's draws each point from those that are left, which takes longer the more there are, and as none depends on a
    # result, all of them are drawn at once here: every different point exactly once (whatever `avoid_premature_stop`), in an
    # order that the seed and the space determine, all orders equally likely. Optuna's prefers points with few neighbours.
    "brute_force": Sampler(
        make=optuna.samplers.BruteForceSampler,
        options={"avoid_premature_stop": Option(bool)},
        is_grid=True,
        whole_ranges=True,
        shuffled=True,
    ),
    "cmaes": Sampler(
        make=optuna.samplers.CmaEsSampler,
        options={
            "n_startup_trials": _STARTUP,
            "sigma0": Option(float),
            "popsize": Option(int, least=4),  # with fewer the package divides by zero
            "use_separable_cma": Option(bool),
            "with_margin": Option(bool),
            "lr_adapt": Option(bool),
            "consider_pruned_trials": Option(bool),
            **_INDEPENDENT,
        },
        defaults=_NO_WARNING,
        package="cmaes",
        replay=True,
        several_objectives=False,
    ),
    "gp": Sampler(
        make=optuna.samplers.GPSampler,
        options={"n_startup_trials": _STARTUP, "deterministic_objective": Option(bool), **_INDEPENDENT},
        defaults=_NO_WARNING,
        most_integers=1_000_000,
        constraints=True,
    ),
    # The points in order, instead of Optuna's random order, which a study in parallel could repeat.
    "grid": Sampler(
        make=optuna.samplers.GridSampler,
        options={"points": Option(int, least=2, most=MAX_GRID)},
        is_grid=True,
    ),
    "nsgaii": Sampler(make=optuna.samplers.NSGAIISampler, options=_POPULATION, replay=True, constraints=True),
    "nsgaiii": Sampler(
        make=optuna.samplers.NSGAIIISampler,
        options={**_POPULATION, "reference_points": Option(list), "dividing_parameter": Option(int, least=1)},
        replay=True,
        constraints=True,
    ),
    "partial_fixed": Sampler(
        make=optuna.samplers.PartialFixedSampler,
        options={"fixed": Option(dict), "sampler": Option(dict)},
        fixes=True,
    ),
    "qmc": Sampler(
        make=optuna.samplers.QMCSampler,
        options={"qmc_type": Option(str), "scramble": Option(bool), **_INDEPENDENT},
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
        constraints=True,
    ),
}
"""Name in `search.sampler` -> sampler, in alphabetical order."""

INDEPENDENT = ("random", "tpe")
"""What may be an `independent_sampler`: it draws parameters that the sampler itself does not model, and keeps no state."""
BASES = tuple(name for name, sampler in SAMPLERS.items() if not sampler.fixes)


@dataclass(frozen=True)
class Chosen:
    """The sampler that suggests in a search. Of partial_fixed that is its base."""

    name: str
    sampler: Sampler
    options: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> the value that it always has, except in configuration 0."""


def chosen(name: str, options: Mapping[str, Any]) -> Chosen:
    """Return the sampler that suggests, given the name and the options of a file without faults."""
    sampler = SAMPLERS[name]
    if not sampler.fixes:
        return Chosen(name, sampler, options)
    base, base_options = _named(options.get("sampler", Search.sampler))
    return Chosen(base, SAMPLERS[base], base_options, options["fixed"])


def is_grid(search: Search) -> bool:
    """Return whether the points of a search are enumerated, and so end; also for a base that has a fault."""
    given: Any = search.sampler
    if given in SAMPLERS and SAMPLERS[given].fixes:
        given = search.sampler_options.get("sampler", Search.sampler)
        given = given.get("name") if isinstance(given, Mapping) else given
    return not isinstance(given, str) or given not in SAMPLERS or SAMPLERS[given].is_grid


def make_sampler(found: Chosen, seed: int, fixed: Mapping[str, Any] | None = None) -> BaseSampler:
    """Return Optuna's sampler with our defaults and its options.

    `fixed` has parameters of Optuna's trials, by name, that every trial has. Raises ValueError for values that Optuna refuses.
    """
    sampler, options = found.sampler, found.options
    arguments: dict[str, Any] = {**sampler.defaults}
    with warnings.catch_warnings():
        # Interfaces of these samplers and options may change (experimental) or go (sigma0); the lock file pins them. No other
        # warning is suppressed.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="`sigma0` has been deprecated", category=FutureWarning)
        for key, value in options.items():
            arguments[key] = _argument(sampler.options[key], value, seed)
        for key, option in sampler.options.items():
            if option.needs is not None and options.get(option.needs) is False and key not in options:
                arguments[key] = False
        made = sampler.make(seed=seed, **arguments)
        return optuna.samplers.PartialFixedSampler(dict(fixed), made) if fixed else made


def _argument(option: Option, value: Any, seed: int) -> Any:
    """Return the argument of Optuna's constructor for an option's value in a file."""
    if option.type is list:
        return np.array(value, dtype=float)
    if option.type is not dict:
        return value
    name, options = _named(value)
    return option.parts[name].make(**options) if option.parts else make_sampler(chosen(name, options), seed)


def _named(value: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of `tpe` or `{name: tpe, n_startup_trials: 4}`."""
    given = {"name": value} if isinstance(value, str) else dict(value)
    return given.pop("name"), given


# ------------------------------------------------------------------------------------------- checks


def check_sampler(
    name: str, options: Mapping[str, Any], space: Mapping[str, Dimension] | None = None, objectives: int = 1
) -> list[Fault]:
    """Return faults of a sampler's name and options, and with `space` of the two together; an empty list if there are none.

    Paths are relative to the sampler's section of the file.
    """
    if name not in SAMPLERS:
        return [Fault("", unknown("sampler", name, SAMPLERS))]
    space = space or {}
    faults = list(_option_faults(f"sampler {name!r}", SAMPLERS[name].options, options, objectives))
    if SAMPLERS[name].fixes:
        faults += [] if faults else _fixed_faults(options.get("fixed"), space)
        if faults:
            return faults
        fixed, (base, base_options) = options["fixed"], _named(options.get("sampler", Search.sampler))
        left = {
            path: replace(dimension, kind="choice", choices=(fixed[path],)) if path in fixed else dimension
            for path, dimension in space.items()
        }
        found = check_sampler(base, base_options, left, objectives)
        return [Fault(join("sampler", fault.path), fault.message) for fault in found]
    sampler = SAMPLERS[name]
    if sampler.package is not None and importlib.util.find_spec(sampler.package) is None:
        package = sampler.package
        faults.append(
            Fault("", f"sampler {name!r} needs the package {package}, which is not installed: pip install {package}.")
        )
    if objectives > 1 and not sampler.several_objectives:
        able = ", ".join(other for other, one in SAMPLERS.items() if one.several_objectives)
        faults.append(Fault("", f"sampler {name!r} takes one objective, not {objectives}. Several are taken by {able}."))
    if faults:
        return faults
    if sampler.is_grid:
        return [Fault("", message) for message in _grid_faults(name, options.get("points"), space)]
    for path, dimension in space.items():
        listed = "integer" in dimension.kind and not (dimension.has_off and not sampler.conditional)
        count = int(dimension.high or 0) - int(dimension.low or 0) + 1 if listed else 0
        if sampler.most_integers is not None and count > sampler.most_integers:
            message = (
                f"sampler {name!r} cannot search {path}, a range of {count:,} whole numbers: {sampler.most_integers:,} are the "
                "most. Narrow the range, or take sampler tpe."
            )
            faults.append(Fault("", message))
    if faults:
        return faults
    try:
        make_sampler(chosen(name, options), seed=0)
    except ValueError as error:  # such as a population of one; Optuna's message says what is allowed
        return [Fault("", f"sampler {name!r}: {error}")]
    return []


def _grid_faults(name: str, ticks: int | None, space: Mapping[str, Dimension]) -> Iterator[str]:
    """Faults of a grid over a space: ranges without points, or more points than can be tried."""
    whole_ranges = SAMPLERS[name].whole_ranges
    sizes = []
    for path, dimension in space.items():
        single = dimension.low == dimension.high  # also of a choice, which has no bounds
        if ticks is None and dimension.kind != "choice" and not (whole_ranges and (single or "integer" in dimension.kind)):
            also = ", or a range of whole numbers" if whole_ranges else ""
            yield (
                f"sampler {name!r} cannot enumerate the range of {path}: give choices{also}, or sampler: "
                "{name: grid, points: 5} for 5 values from one end to the other."
            )
            return
        numbers = 1 if single else int(dimension.high or 0) - int(dimension.low or 0) + 1
        sizes.append(len(dimension.choices) or (ticks or numbers) + dimension.has_off)
    size = math.prod(sizes)
    if size > MAX_GRID and max(sizes) <= MAX_GRID and any(dimension.when for dimension in space.values()):
        with contextlib.suppress(ValueError):  # fewer, as some are equal where a condition does not hold
            size = len(points(space, {path: dimension.grid(ticks) for path, dimension in space.items()}, MAX_GRID))
    if size > MAX_GRID:
        yield f"sampler {name!r} has {size:,} points here; {MAX_GRID:,} is the most. Take fewer, or sampler random or qmc."


def _fixed_faults(fixed: Any, space: Mapping[str, Dimension]) -> Iterator[Fault]:
    """Faults of the values that partial_fixed fixes. A path that the space lacks may be one of another cell."""
    if not fixed:
        yield Fault("", "sampler 'partial_fixed' needs `fixed`: values that are not searched, such as {train.lr: 1e-3}.")
        return
    for path, value in fixed.items():
        if path in space and not space[path].may_be(value):
            values = ", ".join(map(shown, space[path].corners()))
            between = "" if space[path].kind == "choice" else " (both ends and off)"
            yield Fault(join("fixed", path), f"cannot be {shown(value)}: the space has {values}{between} for it.")
    if space and set(space) <= set(fixed):
        yield Fault("fixed", "leaves nothing to search: every dimension of the space is fixed.")


def _option_faults(owner: str, known: Mapping[str, Option], given: Mapping[str, Any], objectives: int) -> Iterator[Fault]:
    """Faults of options; `owner` is what has them, such as `sampler 'tpe'`."""
    for key, value in given.items():
        if key not in known:
            guess = nearest(key, known)
            hint = f" Did you mean {guess!r}?" if guess else ""
            hint = " It is given next to the name of the whole sampler." if key == "seed" else hint
            listed = ", ".join(known) if known else "none (seed apart)"
            yield Fault(key, f"{owner} has no option {key!r}.{hint} Its options: {listed}.")
        elif known[key].type is dict:
            yield from _part_faults(f"{key!r} of {owner}", key, known[key], value, objectives)
        elif message := _value_fault(f"option {key!r} of {owner}", known[key], value, objectives):
            yield Fault(key, message)


def _part_faults(what: str, key: str, option: Option, value: Any, objectives: int) -> Iterator[Fault]:
    if key == "fixed":
        if not isinstance(value, Mapping):
            yield Fault(key, f"option {what} must be a mapping of searched settings to values, not {shown(value)}.")
        return
    parts: Mapping[str, Part | Sampler] = option.parts or {n: SAMPLERS[n] for n in (BASES if key == "sampler" else INDEPENDENT)}
    if not isinstance(value, str) and not (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        yield Fault(key, f"option {what} must be a name, or {{name: ..., and its options}}, not {shown(value)}.")
        return
    name, options = _named(value)
    if name not in parts:
        yield Fault(key, f"option {what}: {unknown(key, name, parts)}")
    elif key != "sampler":  # which is checked as a whole, with the space
        for fault in _option_faults(f"{key} {name!r}", parts[name].options, options, objectives):
            yield Fault(join(key, fault.path), fault.message)


def _value_fault(what: str, option: Option, value: Any, objectives: int) -> str | None:
    if option.type is list:
        rows = value if isinstance(value, list) else []
        if not rows or not all(isinstance(row, list) and len(row) == objectives and all(map(is_number, row)) for row in rows):
            return f"{what} must be a list of points, each a list of {objectives} numbers, one for each objective."
        return None
    # isinstance alone is not enough: a bool is an int in Python, and 1 in YAML is allowed as a float.
    right = isinstance(value, (int, float) if option.type is float else option.type)
    if not right or (isinstance(value, bool) and option.type is not bool):
        return f"{what} must be of type {option.type.__name__}, not {value!r}."
    if option.least is not None and value < option.least:
        return f"{what} must be {option.least} or more, not {value}."
    if option.most is not None and value > option.most:
        return f"{what} must be {option.most} or less, not {value}."
    if option.type in (int, float) and (reason := out_of_range(value, option.type is int)):
        return f"{what} {reason}."
    return None
