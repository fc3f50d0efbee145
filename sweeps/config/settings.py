"""Explicit settings: the `model`, `task` and `train` sections checked, with every default filled in, and a lane's key.

The fields of the `Config` of a unit, network or task, with their types and defaults, are the only description of its
settings. All faults are returned at once.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sweeps.config import registry
from sweeps.config.faults import INT64, Fault, is_number, join, out_of_range
from sweeps.config.source import LENGTH, digest
from sweeps.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from arith_models.base import Network, Unit
    from sweeps.training.numerics import Numerics
    from sweeps.training.settings import Built
    from tasks.base import Task

# sweeps.training.settings is imported inside functions: it imports torch, which most commands can do without.

MOST_CHOICES = 64
"""Largest number of combinations of words tried in place of misspelt ones, to find the other faults."""


def section(
    cls: type[Any], given: Mapping[str, Any], path: str, steps: float | None, also: set[str] | None = None
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """Return explicit plain values of one Config, and faults; the values are None where there is a fault.

    Parameters
    ----------
    cls
        The Config, a dataclass.
    given
        The settings as written.
    path
        Dotted path of these settings, for faults.
    steps
        train.steps, of which a share such as 40% is taken; None: unknown.
    also
        Settings that are allowed elsewhere in the section, for the suggested names.
    """
    if not isinstance(given, Mapping):
        return None, [Fault(path, f"must be a mapping, but got {given!r}")]
    faults = [*_unknown(cls, given, path, also or set())]
    known = _steps_from_shares(cls, _without_unknown(cls, given), path, steps, faults)
    beyond = {key: [*_out_of_range(fields_of(cls)[key], value, join(path, key))] for key, value in known.items()}
    faults += itertools.chain(*beyond.values())
    known = {key: value for key, value in known.items() if not beyond[key]}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(validated(cls, known))))
    except ValidationError as error:
        found = [fault for e in error.errors() for fault in _faults_of(e, path, cls, given)]
        wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
        if wrong:
            found += _faults_besides(cls, known, path, wrong)
        reported = {fault.path for fault in faults}
        return None, faults + [fault for fault in dict.fromkeys(found) if fault.path not in reported]
    except (Exception, SystemExit) as error:  # a user's Config may raise anything in its own checks
        return None, [*faults, Fault(path, f"{cls.__qualname__} in {cls.__module__} raises {registry.raised(error)}")]
    return (None, faults) if faults else (plain, [])


def validated(cls: type[Any], given: Mapping[str, Any]) -> Any:
    """An instance of a Config. Raises pydantic's ValidationError."""
    # Strict JSON mode: a list is a tuple and an int a float, but text is no number and a bool neither.
    return _adapter(cls).validate_json(json.dumps(_integral(given)), strict=True)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _integral(value: Any) -> Any:
    """Whole floats as ints: 1e6 is allowed where an int is required, and every float field takes an int."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= INT64:
        return int(value)
    if isinstance(value, Mapping):
        return {k: _integral(v) for k, v in value.items()}
    return [_integral(v) for v in value] if isinstance(value, list | tuple) else value


def _faults_of(error: ErrorDetails, path: str, cls: type[Any], given: Mapping[str, Any]) -> list[Fault]:
    """The faults of one of pydantic's errors."""
    name = str(error["loc"][0]) if error["loc"] else ""
    forms = get_args(fields_of(cls).get(name))
    if forms and all(get_origin(form) is tuple for form in forms):  # pydantic has an error for each form
        allowed = " or ".join(_form(form) for form in forms)
        return [Fault(join(path, name), f"must be {allowed}, but got {given.get(name)!r}")]
    keys = [str(p) for p in error["loc"] if not str(p).startswith(("tuple[", "float", "function-"))]
    where = join(path, *keys)
    if error["type"] == "missing":
        return [Fault(where, "is missing")]
    if error["type"] == "value_error":
        inner = _config_at(cls, keys)
        cause = error["ctx"]["error"]
        return [Fault(where, str(cause))] if inner is None else _faults_of_config(inner, cause, where)
    if error["type"] == "literal_error":
        known = [word for word in get_args(fields_of(cls).get(name)) if isinstance(word, str)]
        near = registry.nearest(str(error["input"]), known)
        hint = f". Did you mean {near!r}?" if near else ""
        return [Fault(where, f"must be {error['ctx']['expected']}, but got {error['input']!r}{hint}")]
    return [Fault(where, f"{error['msg'][0].lower() + error['msg'][1:]}, but got {error['input']!r}")]


def _config_at(cls: type[Any], keys: Sequence[str]) -> type[Any] | None:
    """The dataclass at some keys below a Config; None for a plain field."""
    for key in keys:
        hint = fields_of(cls).get(key)
        classes = [c for c in (hint, *get_args(hint)) if isinstance(c, type) and dataclasses.is_dataclass(c)]
        if not classes:
            return None
        cls = classes[0]
    return cls


def _faults_of_config(cls: type[Any], error: ValueError, path: str) -> list[Fault]:
    """The faults in a ValueError that a Config's `__post_init__` raised, each at its own setting where it begins with one.

    Every argument is one fault: `raise ValueError("lr = 0 must be above 0", "batch = 0 must be at least 1")`.
    """
    first_words = [(re.match(r"\w*", str(argument)), str(argument)) for argument in error.args]
    return [Fault(join(path, word[0]) if word and word[0] in fields_of(cls) else path, text) for word, text in first_words]


def _faults_besides(cls: type[Any], known: Mapping[str, Any], path: str, wrong: set[str]) -> list[Fault]:
    """Faults that remain whichever allowed value the `wrong` settings have.

    A Config checks its own rules only where every value has the right type. So it is built with each word that a wrong
    setting may be, or else with its default, and the faults that all of these attempts share are returned.
    """
    fields = fields_of(cls)
    words = [[(key, word) for word in get_args(fields[key]) if isinstance(word, str)] for key in wrong & set(fields)]
    rest = {key: value for key, value in known.items() if key not in wrong}
    attempts: list[list[Fault]] = []
    for choice in itertools.islice(itertools.product(*(some for some in words if some)), MOST_CHOICES):
        try:
            validated(cls, {**rest, **dict(choice)})
        except ValidationError as error:
            raised = [e["ctx"]["error"] for e in error.errors() if not e["loc"] and e["type"] == "value_error"]
            attempts.append([fault for cause in raised for fault in _faults_of_config(cls, cause, path)])
        else:
            return []
    return [fault for fault in attempts[0] if all(fault in other for other in attempts)] if attempts else []


def _form(hint: Any) -> str:
    """The form of a tuple of two floats as `[number, number]`."""
    parts = ", ".join(_form(part) for part in get_args(hint))
    return f"[{parts}]" if get_origin(hint) is tuple else "number"


def fields_of(cls: type[Any]) -> dict[str, Any]:
    """Field -> its type, annotations included."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _unknown(cls: type[Any], given: Mapping[str, Any], path: str, also: set[str]) -> Iterator[Fault]:
    fields = fields_of(cls)
    for key, value in given.items():
        if key not in fields:
            hint = registry.did_you_mean(str(key), [*fields, *also], path.partition(".")[0])
            listed = ", ".join(sorted([*fields, *also])) or "none"
            yield Fault(join(path, key), f"is not a setting here.{hint} Known: {listed}.", unknown_setting=True)
        elif dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping):
            yield from _unknown(fields[key], value, f"{path}.{key}", set())


def _out_of_range(hint: Any, value: Any, path: str) -> Iterator[Fault]:
    """Faults of the numbers in a field's value that neither the store nor a lane can hold: see `out_of_range`."""
    if is_number(value):
        reason = out_of_range(value, integer=not _has_float(hint))
        if reason:
            yield Fault(path, reason)
    elif isinstance(value, Mapping | list | tuple):
        fields = fields_of(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else {}
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _out_of_range(fields.get(str(key), hint), item, join(path, key))


def _has_float(hint: Any) -> bool:
    """Whether the type of a field is float or contains it."""
    return hint is float or any(map(_has_float, get_args(hint)))


def _without_unknown(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that exist: they are checked as well, so that every fault is reported at once."""
    fields = fields_of(cls)
    return {
        key: _without_unknown(fields[key], value)
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping)
        else value
        for key, value in given.items()
        if key in fields
    }


def _steps_from_shares(
    cls: type[Any], given: Mapping[str, Any], path: str, steps: float | None, faults: list[Fault]
) -> dict[str, Any]:
    """The settings with shares such as "40%" as steps, in fields that are annotated as Steps."""
    result = dict(given)
    for key, hint in fields_of(cls).items():
        value = result.get(key)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            result[key] = _steps_from_shares(hint, value, f"{path}.{key}", steps, faults)
        elif get_origin(hint) is Annotated and "steps" in get_args(hint) and isinstance(value, str):
            try:
                share = float(value.strip().removesuffix("%")) / 100 if value.strip().endswith("%") else None
            except ValueError:
                share = None
            if share is None or steps is None:
                message = f"must be steps or a share of train.steps such as 40%, but got {value!r}"
                faults.append(Fault(join(path, key), message))
            else:
                result[key] = share * steps
    return result


def resolve(settings: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[Fault], list[Fault]]:
    """Return explicit settings, faults and warnings. The settings are None where there is a fault.

    `settings` has `model` and `task` (a name, or a mapping with `name`) and `train`. Bad input raises nothing.
    """
    from sweeps.training.settings import Train

    faults: list[Fault] = []
    train, found = section(Train, settings.get("train") or {}, "train", None)
    faults += found
    steps = train["steps"] if train else _number(settings.get("train"))
    task_name, task, found = _task(settings.get("task"), steps)
    faults += found
    model, found = _model(settings.get("model"), task_name, steps)
    faults += found
    faults += _products_fault(train, model)
    if faults or train is None or task is None or model is None:
        return None, faults, []
    resolved = {"model": model, "task": task, "train": train}
    return resolved, [], list(_warnings(resolved))


def _products_fault(train: dict[str, Any] | None, model: dict[str, Any] | None) -> Iterator[Fault]:
    if train is None or model is None or train["products"] == "float32":
        return
    if not registry.find("network", model["network"]).pieces:
        reason = f"must be float32 for network {model['network']}, which repeats no cell, but got {train['products']!r}"
        yield Fault("train.products", reason)


def build(resolved: Mapping[str, Any]) -> Built:
    """Return the objects of explicit settings. Raises ValueError for settings that `resolve` did not make."""
    from sweeps.training.settings import Built, Train

    model, task = dict(resolved["model"]), dict(resolved["task"])
    network = registry.find("network", model.pop("network"))
    model.pop("name")
    units = tuple((registry.find("model", u["name"]), u) for u in model.pop("units"))
    task_class = registry.find("task", task.pop("name"))
    return Built(
        network=network,
        network_config=validated(network.Config, model),
        units=tuple((c, validated(c.Config, {k: v for k, v in u.items() if k != "name"})) for c, u in units),
        task=task_class(validated(task_class.Config, task)),
        train=validated(Train, resolved["train"]),
    )


def float_leaves(resolved: Mapping[str, Any]) -> dict[str, float]:
    """Return every float of explicit settings that a training step may read, by its dotted path."""
    from sweeps.training import settings as training

    return training.float_leaves(resolved, registry.find("task", resolved["task"]["name"]).evaluation_only)


def structure(resolved: Mapping[str, Any]) -> str:
    """Return a text that is equal for explicit settings whose lanes may share a pack."""
    from sweeps.training import settings as training

    return training.structure(resolved, registry.find("task", resolved["task"]["name"]).evaluation_only)


def lane_key(resolved: Mapping[str, Any], seed: int, numerics: Numerics) -> str:
    """Return the content address of a lane: its settings except the budget, its seed, versions of its code and numerics."""
    model, task = resolved["model"], resolved["task"]
    task_class = registry.find("task", task["name"])
    if not registry.find("network", model["network"]).pieces:
        numerics = numerics.of_lane_programs()
    identity = {
        # The model's name is only a label: its network and units define it.
        "model": {key: value for key, value in model.items() if key != "name"},
        # A task that reads files is identified by their contents, not by where they are.
        "task": task_class.identity(task),
        "train": {key: value for key, value in resolved["train"].items() if key != "steps"},
        "seed": seed,
        "versions": {
            "network": registry.version_key("network", model["network"]),
            "units": [registry.version_key("model", u["name"]) for u in model["units"]],
            "task": registry.version_key("task", task["name"]),
            "numerics": str(numerics),
        },
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def source_of(resolved: Mapping[str, Any]) -> str:
    """Return a digest of the code that trains a lane: the engine, its model and its task, with what they import of this
    project and of the user's own."""
    model, task = resolved["model"], resolved["task"]
    parts = {_engine_source(), registry.source_hash("task", task["name"]), registry.source_hash("network", model["network"])}
    parts |= {registry.source_hash("model", unit["name"]) for unit in model["units"]}
    return hashlib.sha256(" ".join(sorted(parts)).encode()).hexdigest()[:LENGTH]


@cache
def _engine_source() -> str:
    from sweeps.training import numerics

    folder = Path(numerics.__file__).parent
    of_python = digest({path.name: path for path in folder.glob("*.py")})
    return " ".join([of_python, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.h")))])


def settable_paths(resolved: Mapping[str, Any]) -> list[str]:
    """The dotted paths that a sweep file may set. A setting that several units share is one path of `model`."""
    paths = {"model.name", "model.network", "model.units", "task.name"}
    for part in ("model", "task", "train"):
        found = [path for path, _ in leaves(resolved[part])]
        paths |= {join(part, p) for p in found if not p.startswith(("units", "network", "name"))}
    for unit in resolved["model"]["units"]:
        paths |= {join("model", path) for path, _ in leaves(unit) if path != "name"}
    return sorted(paths)


def _task(given: Any, steps: float | None) -> tuple[str | None, dict[str, Any] | None, list[Fault]]:
    """The task's name, if there is such a task, its explicit settings, if they have no fault, and faults."""
    name, rest, faults = _named(given, "task")
    if name is None:
        return None, None, faults
    try:
        cls = registry.find("task", name)
    except UserError as error:
        return None, None, [Fault("task.name" if isinstance(given, Mapping) else "task", str(error))]
    plain, faults = section(cls.Config, rest, "task", steps)
    return name, ({"name": name, **plain} if plain is not None else None), faults


def _model(given: Any, task: str | None, steps: float | None) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The explicit settings of a model for a task, None if it is unknown, and faults."""
    name, rest, faults = _named(given, "model", required="units" not in given if isinstance(given, Mapping) else True)
    faults += _mistyped(rest)
    faults += _unknown_names(name, rest, "model.name" if isinstance(given, Mapping) else "model")
    if faults:
        return None, faults
    if task is None and "network" not in rest and not (isinstance(name, str) and registry.is_network(name)):
        return None, list(_unknown_anywhere(name, rest))  # the task decides how units are arranged
    try:
        given_network = rest.pop("network", None)
        network_name = given_network or _usual_network(name, task, "units" in rest)
        network = registry.find("network", network_name)
        reason = _not_arranged(name, network_name, network, given_network is not None, "units" in rest)
        if reason:
            return None, [
                Fault("model" if isinstance(given, str) else "model.network" if given_network else "model.name", reason)
            ]
        preset = copy.deepcopy(dict(network.presets.get(name, {})))
        preset_units = preset.pop("units", None)
        given_units = rest.pop("units", preset_units)
        if given_units is None:
            given_units = [name] * network.num_units
        units = [u if isinstance(u, Mapping) else {"name": u} for u in given_units]
        classes = [registry.find("model", str(u.get("name"))) for u in units]
    except UserError as error:
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", str(error))]
    unnamed = network.num_units == 0 and given_network is None and name != network_name
    reason = _no_whole_network(name, task) if unnamed else None
    reason = reason or (_unreadable(network_name, network, task) if task else None)
    if reason:
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", reason)]
    if len(units) != network.num_units:
        return None, [Fault("model.units", f"network {network_name} takes {network.num_units} units, but got {len(units)}")]
    misplaced = _misplaced_cell(network_name, network, units, classes)
    if misplaced:
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", misplaced)]
    return _assemble(name, network_name, network, list(zip(units, classes, strict=True)), preset, rest, steps)


def _misplaced_cell(network_name: str, network: type[Network], units: list[Any], classes: list[type[Unit]]) -> str | None:
    """The reason why a recurrent cell is in the wrong place, or None: only the first unit of a looped network is repeated."""
    repeated = 1 if network.pieces else 0
    for unit, cls in list(zip(units, classes, strict=True))[repeated:]:
        if cls.is_cell:
            message = f"{unit['name']} is a recurrent cell, and network {network_name} repeats "
            if repeated:
                return message + "its first unit alone: put another after it, such as linear"
            return message + "nothing: it needs a sequence task"
    return None


def _unknown_names(name: str | None, rest: Mapping[str, Any], where: str) -> Iterator[Fault]:
    """Faults of a model's name, its network and its units, each of which must exist."""
    units = rest.get("units")
    named: list[tuple[str, registry.Kind, Any]] = []
    if isinstance(rest.get("network"), str):
        named.append(("model.network", "network", rest["network"]))
    if units and isinstance(units, list | tuple):
        named += [(f"model.units.{i}", "model", u.get("name") if isinstance(u, Mapping) else u) for i, u in enumerate(units)]
    elif not units and name is not None:
        named.append((where, "model", name))
    for path, kind, word in named:
        if not isinstance(word, str):
            yield Fault(path, f"must be a unit's name or a mapping with `name`, but got {word!r}")
            continue
        try:
            if kind == "network" or path != where or not registry.is_network(word):
                registry.find(kind, word)
        except UserError as error:
            yield Fault(path, str(error))


def _unknown_anywhere(name: str | None, rest: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of settings that no network has, nor a unit of the model."""
    units = [u if isinstance(u, Mapping) else {"name": u} for u in rest.get("units") or [name]]
    configs = [registry.find("model", str(u["name"])).Config for u in units]
    configs += [registry.find("network", network).Config for network in registry.names("network")]
    known = {field for config in configs for field in fields_of(config)}
    for key in rest:
        if key not in known and key != "units":
            hint = registry.did_you_mean(str(key), known, "model")
            yield Fault(f"model.{key}", f"is not a setting of a model.{hint}", unknown_setting=True)


def _usual_network(name: str | None, task: str | None, units_given: bool) -> str:
    """The name of a model that is a whole network, else of the network in which the task usually arranges units.

    With units, the name is only a label.
    """
    if isinstance(name, str) and (name in registry.standalone_networks() or (not units_given and registry.is_network(name))):
        return name
    return registry.find("task", task).network if task else "two_layer"


def _not_arranged(
    name: str | None, network_name: str, network: type[Network], network_given: bool, units_given: bool
) -> str | None:
    """The reason why a network does not go with a model's name, or None: a whole network has no units, others need them."""
    if network.num_units == 0 and network_given and name not in (None, network_name):
        return f"{network_name} is a whole network, which arranges no unit {name}: write `model: {network_name}`"
    if network.num_units > 0 and name == network_name and not units_given:
        units = "unit" if network.num_units == 1 else "units"
        return (
            f"network {network_name} arranges {network.num_units} {units}: name a unit beside it, "
            f"`model: {{name: nmu, network: {network_name}}}`"
        )
    return None


def _no_whole_network(name: str | None, task: str | None) -> str:
    """The reason why a model does not fit a task that arranges no units."""
    if name is not None:
        try:
            registry.find("model", name)
        except registry.UnknownName as error:
            return str(error)
    where = f"task {task}" if task else "this task"
    known = ", ".join(registry.standalone_networks())
    return f"{name or 'a list of units'} cannot learn {where}, where a model is a whole network: {known}"


def _unreadable(name: str, network: type[Network], task_name: str) -> str | None:
    """The reason why a network cannot read the inputs of a task, or None."""
    needs, gives = network.reads_symbols, registry.find("task", task_name).reads_symbols
    if needs == gives:
        return None
    known = [n for n in registry.names("network") if registry.find("network", n).reads_symbols]
    what = ("symbols", "numbers") if needs else ("numbers", "symbols")
    return f"network {name} reads {what[0]}, but task {task_name} gives {what[1]}; symbols are read by {', '.join(known)}"


def _mistyped(given: Mapping[str, Any]) -> Iterator[Fault]:
    if not isinstance(given.get("network"), str | None):
        yield Fault("model.network", f"must be a name, but got {given['network']!r}")
    if not isinstance(given.get("units"), list | tuple | None):
        yield Fault("model.units", f"must be a list of units, but got {given['units']!r}")


def _assemble(
    name: str | None, network_name: str, network: type[Network], units: list[tuple[Any, type[Unit]]],
    preset: dict[str, Any], rest: dict[str, Any], steps: float | None,
) -> tuple[dict[str, Any] | None, list[Fault]]:  # fmt: skip
    """Distribute settings between a network and its units; a setting of units goes to every unit that has it."""
    unit_fields = {f.name for _, c in units for f in dataclasses.fields(c.Config)}
    given = merge(preset, rest)
    shared = {k: given.pop(k) for k in list(given) if k in unit_fields and k not in fields_of(network.Config)}
    plain, faults = section(network.Config, given, "model", steps, also=unit_fields)
    resolved_units = []
    for i, (unit, cls) in enumerate(units):
        unit_settings = {k: v for k, v in shared.items() if k in fields_of(cls.Config)}
        unit_settings |= {k: v for k, v in unit.items() if k != "name"}
        path = "model" if shared else f"model.units.{i}"
        unit_section, found = section(cls.Config, unit_settings, path, steps)
        faults += [f for f in found if f not in faults]
        resolved_units.append({"name": unit["name"], **(unit_section or {})})
    if faults or plain is None:
        return None, faults
    return {"name": name or "+".join(u["name"] for u in resolved_units), "network": network_name,
            "units": resolved_units, **plain}, []  # fmt: skip


def _named(given: Any, section: str, required: bool = True) -> tuple[Any, dict[str, Any], list[Fault]]:
    if isinstance(given, str):
        return given, {}, []
    if not isinstance(given, Mapping):
        return None, {}, [Fault(section, f"must be a name or a mapping with `name`, but got {given!r}")]
    rest = {k: v for k, v in given.items() if k not in ("name", "label")}
    name = given.get("name")
    if required and not isinstance(name, str):
        return None, rest, [Fault(f"{section}.name", f"must be a name, but got {name!r}")]
    return name, rest, []


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of everything in nested mappings that is not a mapping, or an empty one."""
    if isinstance(node, Mapping) and (node or not path):
        for key, value in node.items():
            yield from leaves(value, join(path, key))
    else:
        yield path, node


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A deep merge of mappings; `over` wins."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def _number(train: Any) -> float | None:
    steps = train.get("steps") if isinstance(train, Mapping) else None
    return float(steps) if isinstance(steps, int | float) and not isinstance(steps, bool) else None


def task_of(resolved: Mapping[str, Any]) -> Task:
    """Return the task of explicit settings."""
    settings = dict(resolved["task"])
    cls: type[Task] = registry.find("task", settings.pop("name"))
    return cls(validated(cls.Config, settings))


def _warnings(resolved: Mapping[str, Any]) -> Iterator[Fault]:
    """Warnings about explicit settings that are allowed and hardly intended."""
    train, task = resolved["train"], task_of(resolved)
    yield from _late_schedules(resolved["model"], "model", train["steps"])
    if train["stop"] == "solved" and not task.has_threshold():
        yield Fault(
            "train.stop",
            f"task {resolved['task']['name']} has no threshold at these settings, so no lane is ever solved: "
            "every lane trains to the end, as with stop: never",
        )
    for message in task.warnings():
        yield Fault("task", message)


def _late_schedules(node: Any, path: str, steps: int) -> Iterator[Fault]:
    for where, start, weight in penalty_starts(node, path):
        if weight and start >= steps:
            yield Fault(
                f"{where}.start",
                f"the penalty starts at step {_short(start)}, but training ends at {_short(steps)}: it never acts. "
                f"Shares of the steps fit always: {where}.start=40% {where}.end=60%",
            )


def _short(steps: float) -> str:
    """Return 1M, 5k or 5001: exactly the number, unlike in a report."""
    size, unit = next(((size, unit) for size, unit in ((1e6, "M"), (1e3, "k")) if steps and steps % size == 0), (1.0, ""))
    return f"{steps / size:.15g}{unit}"


def penalty_starts(node: Any, path: str) -> Iterator[tuple[str, float, float]]:
    """Return (dotted path, step at which it starts, weight) of every penalty in explicit settings that starts later."""
    if not isinstance(node, Mapping):
        return
    start, weight = node.get("start"), node.get("weight")
    if isinstance(start, float) and isinstance(weight, int | float):
        yield path, start, float(weight)
    for key, value in node.items():
        yield from penalty_starts(value, f"{path}.{key}")
