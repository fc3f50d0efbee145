"""One `Config` from a mapping: checked, every fault at once, and made explicit. A `Config` alone spells its fields."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sweeps.config import registry

if TYPE_CHECKING:
    from sweeps.training.settings import Built

# sweeps.training.settings is imported inside functions: it imports torch, which most commands can do without.

MOST_CHOICES = 64
"""How many ways to mend misspelt words are tried in search of other faults."""


@dataclass(frozen=True)
class Fault:
    """Something wrong (or to be warned of) at a dotted path of the settings."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def section(
    cls: type[Any], given: Mapping[str, Any], path: str, steps: float | None, also: set[str] | None = None
) -> tuple[dict[str, Any] | None, list[Fault]]:
    """(plain explicit values, faults) of one Config from a mapping; the values are None where there is a fault.

    `steps` is what a share such as 40% is of; `also` names settings that others have, for the advice.
    """
    if not isinstance(given, Mapping):
        return None, [Fault(path, f"must be a mapping, but got {given!r}")]
    faults = [*_unknown(cls, given, path, also or set()), *_not_finite(given, path)]
    given = {key: value for key, value in given.items() if not any(_not_finite(value, ""))}
    known = _steps_from_shares(cls, _without_unknown(cls, given), path, steps, faults)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(validated(cls, known))))
    except ValidationError as error:
        told = {fault.path for fault in faults}
        found = dict.fromkeys(_fault(e, path, cls, given) for e in error.errors())
        wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
        if wrong:
            found |= dict.fromkeys(Fault(path, message) for message in _besides(cls, known, wrong))
        return None, faults + [fault for fault in found if fault.path not in told]
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
    """1e6 may stand where an int is asked for; every float field takes an int."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {k: _integral(v) for k, v in value.items()}
    return [_integral(v) for v in value] if isinstance(value, list | tuple) else value


def _fault(error: Any, path: str, cls: type[Any], given: Mapping[str, Any]) -> Fault:
    name = str(error["loc"][0]) if error["loc"] else ""
    forms = get_args(fields_of(cls).get(name))
    if forms and all(get_origin(form) is tuple for form in forms):  # pydantic tells of each form in turn
        allowed = " or ".join(_form(form) for form in forms)
        return Fault(f"{path}.{name}", f"must be {allowed}, but got {given.get(name)!r}")
    where = ".".join(
        [path, *(str(p) for p in error["loc"] if not str(p).startswith(("tuple[", "float", "function-")))]
    )
    if error["type"] == "missing":
        return Fault(where, "is missing")
    if error["type"] == "value_error":
        return Fault(where, str(error["ctx"]["error"]))
    if error["type"] == "literal_error":
        known = [word for word in get_args(fields_of(cls).get(name)) if isinstance(word, str)]
        near = registry.nearest(str(error["input"]), known)
        allowed = error["ctx"]["expected"]
        return Fault(
            where,
            f"must be {allowed}, but got {error['input']!r}" + (f". Did you mean {near!r}?" if near else ""),
        )
    return Fault(where, f"{error['msg'][0].lower() + error['msg'][1:]}, but got {error['input']!r}")


def _besides(cls: type[Any], known: Mapping[str, Any], wrong: set[str]) -> list[str]:
    """What is wrong with the other settings, whatever the `wrong` ones should have been.

    A Config looks at its own rules only where every value has the right type. So it is made with each word that a wrong
    setting may be, or with its default, and what all of these complain of is told.
    """
    fields = fields_of(cls)
    words = [
        [(key, word) for word in get_args(fields[key]) if isinstance(word, str)]
        for key in wrong & set(fields)
    ]
    rest = {key: value for key, value in known.items() if key not in wrong}
    seen: list[dict[str, None]] = []
    for choice in itertools.islice(itertools.product(*(some for some in words if some)), MOST_CHOICES):
        try:
            validated(cls, {**rest, **dict(choice)})
        except ValidationError as error:
            own = [e["ctx"]["error"] for e in error.errors() if not e["loc"] and e["type"] == "value_error"]
            seen.append(dict.fromkeys(message for text in own for message in str(text).split("; ")))
        else:
            return []
    return [message for message in (seen[0] if seen else ()) if all(message in others for others in seen)]


def _form(hint: Any) -> str:
    """`[number, number]` of a tuple of two floats."""
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
            near = registry.nearest(str(key), [*fields, *also])
            yield Fault(
                f"{path}.{key}",
                "is not a setting here." + (f" Did you mean {near!r}?" if near else "")
                + f" Known: {', '.join(sorted([*fields, *also])) or 'none'}.",
            )  # fmt: skip
        elif dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping):
            yield from _unknown(fields[key], value, f"{path}.{key}", set())


def _not_finite(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"must be a finite number, but got {value}")
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _not_finite(item, f"{path}.{key}")


def _without_unknown(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The rest is checked all the same, so that every fault is told at once."""
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
    """Turns "40%" into steps, in fields annotated as Steps only."""
    result = dict(given)
    for key, hint in fields_of(cls).items():
        value = result.get(key)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            result[key] = _steps_from_shares(_as_class(hint), value, f"{path}.{key}", steps, faults)
        elif get_origin(hint) is Annotated and "steps" in get_args(hint) and isinstance(value, str):
            try:
                share = float(value.strip().removesuffix("%")) / 100 if value.strip().endswith("%") else None
            except ValueError:
                share = None
            if share is None or steps is None:
                faults.append(
                    Fault(
                        f"{path}.{key}",
                        f"must be steps or a share of train.steps such as 40%, but got {value!r}",
                    )
                )
            else:
                result[key] = share * steps
    return result


def _as_class(hint: Any) -> type[Any]:
    result: type[Any] = hint
    return result


def resolve(settings: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[Fault], list[Fault]]:
    """Explicit settings, faults and warnings. The settings are None where there is a fault.

    `settings` has `model` and `task` (a name, or a mapping with `name`) and `train`. Raises nothing for bad input.
    """
    from sweeps.training.settings import Train

    faults: list[Fault] = []
    train, found = section(Train, settings.get("train") or {}, "train", None)
    faults += found
    steps = train["steps"] if train else _number(settings.get("train"))
    task, found = _task(settings.get("task"), steps)
    faults += found
    model, found = _model(settings.get("model"), task, steps)
    faults += found
    if faults or train is None or task is None or model is None:
        return None, faults, []
    resolved = {"model": model, "task": task, "train": train}
    return resolved, [], list(cautions(resolved))


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


def lane_key(resolved: Mapping[str, Any], seed: int) -> str:
    """Return the content address of a lane: its settings except the budget, its seed, and the versions of its code."""
    from sweeps.training.settings import NUMERICS

    model, task = resolved["model"], resolved["task"]
    task_class = registry.find("task", task["name"])
    identity = {
        # The model's name is only a name: its network and units say what it is.
        "model": {key: value for key, value in model.items() if key != "name"},
        # A task that reads files is identified by their contents, not by where they are.
        "task": task_class.identity(task),
        "train": {key: value for key, value in resolved["train"].items() if key != "steps"},
        "seed": seed,
        "versions": {
            "network": registry.identity("network", model["network"]),
            "units": [registry.identity("model", u["name"]) for u in model["units"]],
            "task": registry.identity("task", task["name"]),
            "numerics": NUMERICS,
        },
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def settable_paths(resolved: Mapping[str, Any]) -> list[str]:
    """The dotted leaves that a sweep file may set. A setting that several units share is one leaf of `model`."""
    paths = ["model.name", "model.network", "model.units", "task.name"]
    for part in ("model", "task", "train"):
        paths += [
            f"{part}.{p}"
            for p, _ in _leaves(resolved[part])
            if not p.startswith(("units", "network", "name"))
        ]
    for unit in resolved["model"]["units"]:
        paths += [f"model.{p}" for p, _ in _leaves(unit) if p != "name"]
    return sorted(set(paths))


def _task(given: Any, steps: float | None) -> tuple[dict[str, Any] | None, list[Fault]]:
    name, rest, faults = _named(given, "task")
    if name is None:
        return None, faults
    try:
        cls = registry.find("task", name)
    except ValueError as error:
        return None, [Fault("task.name" if isinstance(given, Mapping) else "task", str(error))]
    plain, faults = section(cls.Config, rest, "task", steps)
    return ({"name": name, **plain} if plain is not None else None), faults


def _model(
    given: Any, task: dict[str, Any] | None, steps: float | None
) -> tuple[dict[str, Any] | None, list[Fault]]:
    name, rest, faults = _named(
        given, "model", required="units" not in given if isinstance(given, Mapping) else True
    )
    faults += _mistyped(rest)
    if faults:
        return None, faults
    try:
        given_network = rest.pop("network", None)
        network_name = given_network or _usual_network(name, task)
        network = registry.find("network", network_name)
        paper = copy.deepcopy(dict(network.presets.get(name, {})))
        given_units = rest.pop("units", None) or paper.pop("units", None) or [name] * network.num_units
        paper.pop("units", None)
        units = [u if isinstance(u, Mapping) else {"name": u} for u in given_units]
        classes = [registry.find("model", str(u.get("name"))) for u in units]
    except ValueError as error:
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", str(error))]
    unnamed = network.num_units == 0 and given_network is None and name != network_name
    told = _no_whole_network(name, task) if unnamed else None
    if told or (task and (told := _unreadable(network_name, network, task["name"]))):
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", told)]
    if len(units) != network.num_units:
        return None, [
            Fault(
                "model.units", f"network {network_name} takes {network.num_units} units, but got {len(units)}"
            )
        ]
    misplaced = _misplaced_cell(network_name, network, units, classes)
    if misplaced:
        return None, [Fault("model.name" if isinstance(given, Mapping) else "model", misplaced)]
    return _assemble(name, network_name, network, list(zip(units, classes, strict=True)), paper, rest, steps)


def _misplaced_cell(
    network_name: str, network: type[Any], units: list[Any], classes: list[type[Any]]
) -> str | None:
    """What is wrong with where a recurrent cell stands: only the first unit of a looped network is repeated."""
    repeated = 1 if network.pieces else 0
    for unit, cls in list(zip(units, classes, strict=True))[repeated:]:
        if cls.is_cell:
            told = f"{unit['name']} is a recurrent cell, and network {network_name} repeats "
            if repeated:
                return told + "its first unit alone: put another after it, such as linear"
            return told + "nothing: it needs a sequence task"
    return None


def _usual_network(name: str | None, task: dict[str, Any] | None) -> str:
    """A model that is a network of its own, or what the task usually arranges units in."""
    if name in registry.whole_networks():
        return name
    usual: str = registry.find("task", task["name"]).network if task else "two_layer"
    return usual


def _no_whole_network(name: str | None, task: dict[str, Any] | None) -> str:
    """Why a name does not do where the task arranges no units."""
    if name is not None:
        try:
            registry.find("model", name)
        except registry.UnknownName as error:
            return str(error)
    where = f"task {task['name']}" if task else "this task"
    known = ", ".join(registry.whole_networks())
    return f"{name or 'a list of units'} cannot learn {where}, where a model is a network of its own: {known}"


def _unreadable(name: str, network: type[Any], task_name: str) -> str | None:
    """Why a network cannot read what a task gives, or None."""
    needs, gives = (cls.reads_symbols for cls in (network, registry.find("task", task_name)))
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
    name: str | None, network_name: str, network: type[Any], units: list[tuple[Any, type[Any]]],
    paper: dict[str, Any], rest: dict[str, Any], steps: float | None,
) -> tuple[dict[str, Any] | None, list[Fault]]:  # fmt: skip
    """Shares the given settings out between the network and its units; a unit's setting reaches each that has it."""
    unit_fields = {f.name for _, c in units for f in dataclasses.fields(c.Config)}
    given = merge(paper, rest)
    shared = {k: given.pop(k) for k in list(given) if k in unit_fields and k not in fields_of(network.Config)}
    plain, faults = section(network.Config, given, "model", steps, also=unit_fields)
    resolved_units = []
    for i, (unit, cls) in enumerate(units):
        own = {k: v for k, v in shared.items() if k in fields_of(cls.Config)} | {
            k: v for k, v in unit.items() if k != "name"
        }
        unit_section, found = section(cls.Config, own, "model" if shared else f"model.units.{i}", steps)
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


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
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


def cautions(resolved: Mapping[str, Any]) -> Iterator[Fault]:
    """Warnings about one lane's explicit settings."""
    train, settings = resolved["train"], dict(resolved["task"])
    yield from _late_schedules(resolved["model"], "model", train["steps"])
    cls: Any = registry.find("task", settings.pop("name"))
    task = cls(validated(cls.Config, settings))
    if train["stop"] == "solved" and not task.has_threshold():
        yield Fault(
            "train.stop",
            f"task {resolved['task']['name']} has no threshold at these settings, so no lane is ever solved: "
            "every lane trains to the end, as with stop: never",
        )
    for message in task.warnings():
        yield Fault("task", message)


def _late_schedules(node: Any, path: str, steps: int) -> Iterator[Fault]:
    if not isinstance(node, Mapping):
        return
    start, weight = node.get("start"), node.get("weight")
    if isinstance(start, float) and weight and start >= steps:
        yield Fault(
            f"{path}.start",
            f"the penalty starts at step {start:g}, but training ends at {steps}: it never acts",
        )
    for key, value in node.items():
        yield from _late_schedules(value, f"{path}.{key}", steps)
